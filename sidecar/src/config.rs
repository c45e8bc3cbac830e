//! TOML text in, valid settings out. A flag or `MLWATCH_*` variable beats the file, the file beats the default.

use crate::alert::{AlertSettings, RuleError};
use crate::period;
use crate::pipeline::{self, HistogramSettings, Limits, MIN_PERIOD};
use crate::report::{DriftSettings, LevelError, Override, OverrideError};
use crate::sink::{MlwatcherFiles, NativeFiles, Rotation, Sink};
use clap::ValueEnum;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};
use thiserror::Error;

/// Where producers put their rings unless told otherwise.
pub const DEFAULT_DIR: &str = "/dev/shm/mlwatch";
/// Where reports go unless told otherwise.
pub const DEFAULT_OUTPUT: &str = "mlwatch-metrics";

/// Most rows a sample may have.
pub const MAX_RESERVOIR: u64 = 1 << 24;

/// A report format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// metrics-<time>.jsonl, one report a line.
    Native,
    /// <time>_MLmetrics.json, as MLWatcher 1.0 writes.
    Mlwatcher,
}

/// What a file or the command line may say; `None` = nothing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Choices {
    /// The ring directory.
    pub dir: Option<PathBuf>,
    /// Length of a period, "60s".
    pub period: Option<String>,
    /// Rows in the sample.
    pub reservoir: Option<u64>,
    /// Directory of the report files.
    pub output: Option<PathBuf>,
    /// Directory of the checkpoints.
    pub checkpoint: Option<PathBuf>,
    /// Directory of the references.
    pub reference: Option<PathBuf>,
    /// When a difference from a reference counts as drift.
    pub drift: Option<DriftSettings>,
    /// When somebody is to be told.
    pub alerts: Option<AlertSettings>,
    /// What of the last two is otherwise for some models and columns.
    pub r#override: Option<Vec<Override>>,
    /// Of which columns every value is counted in buckets.
    pub histograms: Option<HistogramSettings>,
    /// Formats to write.
    pub format: Option<Vec<Format>>,
    /// `agent_id` in MLWatcher's format.
    pub agent_id: Option<String>,
    /// When report files rotate.
    pub rotation: Option<Rotation>,
    /// What producers may ask for.
    pub limits: Option<Limits>,
}

/// Everything `mlwatch run` needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The loop.
    pub pipeline: pipeline::Settings,
    /// Directory of the report files.
    pub output: PathBuf,
    /// Formats to write.
    pub formats: Vec<Format>,
    /// `agent_id` in MLWatcher's format.
    pub agent_id: String,
    /// When report files rotate.
    pub rotation: Rotation,
}

/// What is wrong with the configuration.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages document them")]
pub enum ConfigError {
    #[error("cannot read the configuration {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Parse { path: PathBuf, source: toml::de::Error },
    #[error("period (--period, MLWATCH_PERIOD, or in the file): {0}")]
    Period(String),
    #[error("period (--period, MLWATCH_PERIOD, or in the file): {0:?} is too short, at least {MIN_PERIOD:?}")]
    ShortPeriod(Duration),
    #[error("{0} in the file is 0, which leaves nothing")]
    Zero(&'static str),
    #[error("reservoir (--reservoir, MLWATCH_RESERVOIR, or in the file): {0} rows, want 1 to {MAX_RESERVOIR}")]
    Reservoir(u64),
    #[error("drift in the file: {0}")]
    Drift(#[from] LevelError),
    #[error("in the file, {0}")]
    Override(#[from] OverrideError),
    #[error("alerts in the file: {0}")]
    Alerts(#[from] RuleError),
    #[error("histograms in the file: {0}")]
    Histograms(String),
    #[error("format: name at least one of native, mlwatcher")]
    NoFormat,
}

impl Choices {
    /// Reads a TOML file.
    pub fn read(path: &Path) -> Result<Choices, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
    }

    /// `self` where it says something, `other` elsewhere.
    pub fn or(self, other: Choices) -> Choices {
        Choices {
            dir: self.dir.or(other.dir),
            period: self.period.or(other.period),
            reservoir: self.reservoir.or(other.reservoir),
            output: self.output.or(other.output),
            checkpoint: self.checkpoint.or(other.checkpoint),
            reference: self.reference.or(other.reference),
            drift: self.drift.or(other.drift),
            alerts: self.alerts.or(other.alerts),
            r#override: self.r#override.or(other.r#override),
            histograms: self.histograms.or(other.histograms),
            format: self.format.or(other.format),
            agent_id: self.agent_id.or(other.agent_id),
            rotation: self.rotation.or(other.rotation),
            limits: self.limits.or(other.limits),
        }
    }

    /// Checks and completes.
    pub fn settle(self) -> Result<Settings, ConfigError> {
        let period = self.period.map(|text| period::parse_duration(&text).map_err(ConfigError::Period)).transpose()?;
        if let Some(short) = period.filter(|period| *period < MIN_PERIOD) {
            return Err(ConfigError::ShortPeriod(short));
        }
        if let Some(rows) = self.reservoir.filter(|rows| !(1..=MAX_RESERVOIR).contains(rows)) {
            return Err(ConfigError::Reservoir(rows));
        }
        let mut formats = Vec::new();
        for format in self.format.unwrap_or_else(|| vec![Format::Native]) {
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
        if formats.is_empty() {
            return Err(ConfigError::NoFormat);
        }
        let (limits, rotation) = (self.limits.unwrap_or_default(), self.rotation.unwrap_or_default());
        let zeros = [
            ("limits.max_rings", limits.max_rings == 0),
            ("limits.max_models", limits.max_models == 0),
            ("limits.max_reservoir_rows", limits.max_reservoir_rows == 0),
            ("rotation.max_bytes", rotation.max_bytes == 0),
            ("rotation.max_age", rotation.max_age.is_zero()),
            ("rotation.keep", rotation.keep == 0),
        ];
        if let Some((name, _)) = zeros.iter().find(|(_, zero)| *zero) {
            return Err(ConfigError::Zero(name));
        }
        let drift = self.drift.unwrap_or_default();
        drift.check()?;
        let overrides = self.r#override.unwrap_or_default();
        let drift = drift.with(&overrides)?;
        let alerts = AlertSettings { overrides, ..self.alerts.unwrap_or_default() };
        alerts.check()?;
        let histograms = self.histograms.unwrap_or_default();
        histograms.check().map_err(ConfigError::Histograms)?;
        let output = self.output.unwrap_or_else(|| DEFAULT_OUTPUT.into());
        Ok(Settings {
            pipeline: pipeline::Settings {
                dir: self.dir.unwrap_or_else(|| DEFAULT_DIR.into()),
                period,
                reservoir_rows: self.reservoir,
                checkpoint: self.checkpoint.unwrap_or_else(|| output.join("checkpoint")),
                reference: self.reference,
                drift,
                alerts,
                histograms,
                limits,
            },
            output,
            formats,
            agent_id: self.agent_id.unwrap_or_else(host_name),
            rotation,
        })
    }
}

impl Settings {
    /// The sinks these settings ask for.
    pub fn sinks(&self) -> io::Result<Vec<Box<dyn Sink>>> {
        let sink = |format: &Format| -> io::Result<Box<dyn Sink>> {
            Ok(match format {
                Format::Native => Box::new(NativeFiles::new(&self.output, self.rotation)?),
                Format::Mlwatcher => Box::new(MlwatcherFiles::new(&self.output, self.rotation, self.agent_id.clone())?),
            })
        };
        self.formats.iter().map(sink).collect()
    }
}

fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(|_| "mlwatch".into(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        let choices: Choices = toml::from_str(text).map_err(|e| e.to_string())?;
        choices.settle().map_err(|e| e.to_string())
    }

    #[test]
    fn nothing_at_all_is_a_valid_configuration() {
        let settings = parse("").unwrap();
        assert_eq!(settings.pipeline.dir, Path::new("/dev/shm/mlwatch"));
        assert_eq!(settings.formats, [Format::Native]);
    }

    #[test]
    fn a_typo_is_an_error_that_names_line_and_alternatives() {
        let error = parse("dir = '/x'\nperod = '60s'\n").unwrap_err();
        assert!(error.contains("line 2") && error.contains("`perod`") && error.contains("`period`"), "{error}");
        let error = parse("[rotation]\nmax_bites = 1\n").unwrap_err();
        assert!(error.contains("line 2") && error.contains("max_bytes"), "{error}");
    }

    #[test]
    fn values_are_checked_with_their_remedy() {
        assert!(parse("period = 'soon'").unwrap_err().contains("such as \"60s\""));
        assert!(parse("period = '1ms'").unwrap_err().contains("at least 100ms"));
        assert!(parse("reservoir = 0").unwrap_err().contains("want 1 to"));
        assert!(parse("reservoir = 99999999").unwrap_err().contains("want 1 to"));
        assert!(parse("[rotation]\nkeep = 0").unwrap_err().contains("rotation.keep"));
        assert_eq!(parse("format = ['native', 'mlwatcher', 'native']").unwrap().formats.len(), 2);
        assert!(parse("[histograms]\nscale = 7").unwrap_err().contains("want 0 to 6"));
        for (setting, remedy) in [
            ("psi = { warn = 0.3, alert = 0.1 }", "psi alerts from 0.1 and warns from 0.3"),
            ("ks = { alert = nan }", "ks has the level NaN, want a number of at least 0"),
            ("w1 = { warn = -1 }", "w1 has the level -1"),
            ("missing = { alert = inf }", "missing has the level inf"),
            ("z = -1", "z is -1, want a number of deviations"),
            ("fdr = 2", "fdr is 2, want a rate"),
            ("fdr = 0", "fdr is 0, want a rate"),
        ] {
            let error = parse(&format!("[drift]\n{setting}")).unwrap_err();
            assert!(error.contains("drift in the file") && error.contains(remedy), "{error}");
        }
        assert!(parse("[drift]\npsi = { warn = 0.1, alert = 0.1 }\nks = {}\nz = 0").is_ok());
        let rule = |sigmas: &str| format!("[[alerts.rule]]\nmetric = 'labels.accuracy'\noutside_sigma = {sigmas}");
        for sigmas in ["-3", "0"] {
            assert!(parse(&rule(sigmas)).unwrap_err().contains("above 0, such as 3"));
        }
        assert!(parse(&rule("nan")).unwrap_err().contains("not finite") && parse(&rule("3")).is_ok());
        let silent = parse("[[override]]\nmodel = 'm'\nalert = false\n").unwrap().pipeline.alerts;
        assert_eq!(silent.overrides.len(), 1);
        assert!(parse("[[override]]\npersistence = [3, 2]").unwrap_err().contains("override 1: persistence is [3, 2]"));
        assert!(parse("format = []").unwrap_err().contains("mlwatcher"));
        assert!(parse("[limits]\nkeep_abandoned = '1x'").unwrap_err().contains("such as"));
    }

    #[test]
    fn a_flag_beats_the_file() {
        let flag = Choices { period: Some("5s".into()), ..Choices::default() };
        let file = Choices { period: Some("9s".into()), reservoir: Some(7), ..Choices::default() };
        let settings = flag.or(file).settle().unwrap();
        assert_eq!(
            (settings.pipeline.period, settings.pipeline.reservoir_rows),
            (Some(Duration::from_secs(5)), Some(7))
        );
    }
}
