//! `mlwatch reference`: make, show and merge references.

use crate::period;
use crate::reference::{FileError, MergeError, Mismatch, Reference};
use crate::shutdown::Shutdown;
use crate::source::{self, ArrayFiles, Arrays, Names, OpenTable, ReportsOf, SourceError, TableColumns, Watching};
use clap::{Args, Subcommand, ValueEnum};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use tracing::{info, warn};

#[derive(Debug, Subcommand)]
pub enum ReferenceCommand {
    /// Make a reference from arrays, a table, a live ring or reports.
    Build(Box<Build>),
    /// Make one reference of several of the same model and columns.
    Merge(Merge),
    /// Show what a reference holds.
    Show {
        /// The file.
        file: PathBuf,
        /// As JSON, with every column.
        #[arg(long)]
        json: bool,
    },
}

/// What can end `mlwatch reference` early.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages document them")]
pub enum ReferenceError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("{}: {source}", path.display())]
    Load { path: PathBuf, source: FileError },
    #[error("cannot write {}: {source}; name another file with -o", path.display())]
    Save { path: PathBuf, source: io::Error },
    #[error("{}: {why}", path.display())]
    Merge { path: PathBuf, why: Mismatch },
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ReferenceError {
    /// As in sysexits.h: 78 configuration, 66 no input, 74 input or output.
    pub fn exit_code(&self) -> u8 {
        match self {
            ReferenceError::Source(SourceError::Options(_)) | ReferenceError::Merge { .. } => 78,
            ReferenceError::Source(SourceError::Input { .. }) | ReferenceError::Load { .. } => 66,
            ReferenceError::Save { .. } | ReferenceError::Io(_) => 74,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Task {
    Classification,
    Regression,
}

/// What reports and rings say themselves, and other sources.
const NOT_OF_REPORTS: [&str; 8] =
    ["features", "proba", "labels", "table", "task", "class_names", "feature_names", "categorical"];
const NOT_OF_A_RING: [&str; 2] = ["reports", "threshold"];

#[derive(Args, Debug)]
pub struct Build {
    /// The model's name, as its producer gives it
    #[arg(long, required_unless_present = "ring", conflicts_with = "ring")]
    model: Option<String>,
    /// Of this version only [default: any]
    #[arg(long, default_value = "", hide_default_value = true)]
    version: String,
    #[arg(long, value_enum, default_value = "classification")]
    task: Task,
    /// Two classes: class 1 is predicted above it
    #[arg(long, default_value_t = 0.5, allow_negative_numbers = true)]
    threshold: f64,
    /// The file to write
    #[arg(short, long)]
    output: PathBuf,
    /// Rows × features: FILE.npy, or FILE.npz:NAME [default name: X or features]
    #[arg(long)]
    features: Option<PathBuf>,
    /// Rows × classes, or outputs: FILE.npy, or FILE.npz:NAME [default name: proba or probabilities]
    #[arg(long)]
    proba: Option<PathBuf>,
    /// A class index per row, -1 where it is not known, or a flag per row and class; of a regression a target per row and output [default name: y or labels]
    #[arg(long, requires = "proba")]
    labels: Option<PathBuf>,
    /// A CSV file with a header line, or a .parquet file, instead of arrays
    #[arg(long, conflicts_with_all = ["features", "proba", "labels", "feature_names"])]
    table: Option<PathBuf>,
    /// Its features, names or patterns such as pixel_* [default: all that are nothing else]
    #[arg(long, value_delimiter = ',', requires = "table")]
    feature_columns: Vec<String>,
    /// Its class probabilities, in the order of the classes
    #[arg(long, value_delimiter = ',', requires = "table")]
    proba_columns: Vec<String>,
    /// Its labels: class names or indices; of a regression with one output its targets
    #[arg(long, requires = "table")]
    label_column: Option<String>,
    /// The sidecar's report files (metrics-*.jsonl), instead of arrays: whole periods of the model, and with --version of it alone
    #[arg(long, num_args = 1.., conflicts_with_all = NOT_OF_REPORTS)]
    reports: Vec<PathBuf>,
    /// A live ring that no sidecar reads, instead of arrays: its file, or (the beginning of) its name in --dir
    #[arg(long, conflicts_with_all = NOT_OF_REPORTS, conflicts_with_all = NOT_OF_A_RING)]
    ring: Option<PathBuf>,
    /// How long it is watched, such as 10m; less if its producer goes or somebody stops it, then what was read counts
    #[arg(long = "for", requires = "ring", default_value = "10m", value_parser = period::parse_duration)]
    time: Duration,
    /// Directory of the rings
    #[arg(long, env = "MLWATCH_DIR", default_value = "/dev/shm/mlwatch")]
    dir: PathBuf,
    /// Names of the classes or outputs, or @FILE with one a line [default: class_0…, or the table's]
    #[arg(long, value_delimiter = ',')]
    class_names: Option<Vec<String>>,
    /// Names of the features, or @FILE with one a line [default: feat_0…]
    #[arg(long, value_delimiter = ',')]
    feature_names: Option<Vec<String>>,
    /// Features whose values are codes to be counted, or @FILE with one a line
    #[arg(long, value_delimiter = ',')]
    categorical: Vec<String>,
    /// Rows that distributions are taken from; beyond, a uniform sample of so many. At most 1 GiB
    #[arg(long, default_value_t = source::DEFAULT_SAMPLE_ROWS, value_parser = clap::value_parser!(u64).range(1..))]
    max_sample_rows: u64,
    /// Into how many periods the rows are cut, to see how much numbers go up and down; each has at least 50 rows
    #[arg(long, default_value_t = source::DEFAULT_PERIODS, value_parser = clap::value_parser!(u64).range(1..))]
    periods: u64,
}

#[derive(Args, Debug)]
pub struct Merge {
    /// The files: their order does not matter
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The file to write
    #[arg(short, long, visible_alias = "out")]
    output: PathBuf,
    /// Of which version the merged one is, '' for any [default: theirs]
    #[arg(long)]
    version: Option<String>,
}

impl ReferenceCommand {
    pub fn run(self) -> Result<(), ReferenceError> {
        match self {
            ReferenceCommand::Build(build) => build.run(),
            ReferenceCommand::Merge(merge) => merge.run(),
            ReferenceCommand::Show { file, json } => super::show::show(&load(&file)?, json),
        }
    }
}

pub fn load(path: &Path) -> Result<Reference, ReferenceError> {
    Reference::load(path).map_err(|source| ReferenceError::Load { path: path.to_owned(), source })
}

fn save(reference: &Reference, path: &Path) -> Result<(), ReferenceError> {
    reference.save(path).map_err(|source| ReferenceError::Save { path: path.to_owned(), source })?;
    info!(file = ?path, model = reference.model, version = reference.version, rows = reference.rows, id = reference.id(), "reference written");
    Ok(())
}

impl Merge {
    fn run(self) -> Result<(), ReferenceError> {
        let parts = self.files.iter().map(|file| load(file)).collect::<Result<Vec<_>, _>>()?;
        let named = |MergeError { part, why }| ReferenceError::Merge { path: self.files[part].clone(), why };
        save(&Reference::merge(&parts, self.version.as_deref()).map_err(named)?, &self.output)
    }
}

impl Build {
    fn run(self) -> Result<(), ReferenceError> {
        let reference = match (&self.ring, &self.table) {
            (Some(ring), _) => self.of_ring(ring)?,
            (None, Some(table)) => self.of_table(table)?,
            (None, None) if !self.reports.is_empty() => self.of_reports()?,
            (None, None) => self.of_arrays()?,
        };
        warn_of_logits(&reference);
        save(&reference, &self.output)
    }

    fn is_regression(&self) -> bool {
        matches!(self.task, Task::Regression)
    }

    fn names(&self) -> Result<Names, SourceError> {
        if !(0.0..=1.0).contains(&self.threshold) {
            let why = format!("--threshold is {}, want a probability, 0 to 1: the producer's", self.threshold);
            return Err(SourceError::Options(why));
        }
        let listed = |names: &Option<Vec<String>>| names.as_deref().map(names_of).transpose();
        Ok(Names {
            model: self.model.clone().unwrap_or_default(),
            version: self.version.clone(),
            regression: self.is_regression(),
            threshold: self.threshold,
            classes: listed(&self.class_names)?,
            features: listed(&self.feature_names)?,
            categorical: names_of(&self.categorical)?,
        })
    }

    fn of_arrays(&self) -> Result<Reference, SourceError> {
        let files = ArrayFiles {
            features: self.features.clone(),
            probabilities: self.proba.clone(),
            labels: self.labels.clone(),
        };
        self.build(&mut Arrays::open(&files, self.is_regression())?, self.names()?)
    }

    fn of_ring(&self, ring: &Path) -> Result<Reference, ReferenceError> {
        let watching = Watching {
            version: self.version.clone(),
            time: self.time,
            most_sample_rows: self.max_sample_rows,
            periods: self.periods,
        };
        let shutdown = Shutdown::on_signals()?;
        Ok(source::watch(&source::find(ring, &self.dir)?, &watching, || shutdown.requested())?)
    }

    fn of_reports(&self) -> Result<Reference, SourceError> {
        let Names { model, version, threshold, .. } = self.names()?;
        source::of_reports(&self.reports, &ReportsOf { model, version, threshold })
    }

    fn of_table(&self, path: &Path) -> Result<Reference, SourceError> {
        let columns = TableColumns {
            features: self.feature_columns.clone(),
            probabilities: self.proba_columns.clone(),
            label: self.label_column.clone(),
        };
        let names = self.names()?;
        let table = source::open_table(path, &columns, names.classes.as_deref(), self.is_regression())?;
        let OpenTable { mut source, class_names, feature_names } = table;
        self.build(&mut *source, Names { classes: Some(class_names), features: Some(feature_names), ..names })
    }

    fn build(&self, source: &mut dyn source::Source, names: Names) -> Result<Reference, SourceError> {
        let extent = source.extent();
        let spec = names.spec(extent.classes, extent.features)?;
        source::build(source, spec, self.max_sample_rows, self.periods)
    }
}

/// They are no error: the ring may carry them too, and is compared with them all the same.
fn warn_of_logits(reference: &Reference) {
    let outside = reference.probabilities.iter().find(|column| !column.moment.is_within(0.0, 1.0));
    if let Some(column) = outside.filter(|_| !reference.regression) {
        warn!(
            class = column.name,
            min = column.moment.min,
            max = column.moment.max,
            "probabilities outside 0 to 1, as logits are: entropy, calibration and estimates without labels mean nothing then; give what softmax or a sigmoid makes of them, or --task regression"
        );
    }
}

/// A file may hold what is too much for a command line, or has commas in it.
fn names_of(given: &[String]) -> Result<Vec<String>, SourceError> {
    match given {
        [one] if one.starts_with('@') => source::lines(Path::new(&one[1..])),
        names => Ok(names.to_vec()),
    }
}
