//! Arrays of the same rows: features, probabilities and labels.

use super::SourceError;
use super::batch::{Batch, BatchLabels, Values};
use super::build::{Extent, Source};
use super::npy::Npy;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// `FILE.npy`, or `FILE.npz:NAME`; without a name an `.npz` is asked for the usual ones.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "named by themselves")]
pub struct ArrayFiles {
    pub features: Option<PathBuf>,
    pub probabilities: Option<PathBuf>,
    pub labels: Option<PathBuf>,
}

/// An array and where it is from.
#[derive(Debug)]
struct Array {
    path: PathBuf,
    npy: Npy,
}

impl Array {
    fn open(spec: &Path, usual: &[&str]) -> Result<Array, SourceError> {
        let text = spec.to_string_lossy();
        let (path, name) = match text.rsplit_once(":") {
            Some((path, name)) if path.ends_with(".npz") => (PathBuf::from(path), Some(name)),
            _ => (spec.to_owned(), None),
        };
        let npy = Npy::open(&path, &name.map_or(usual.to_vec(), |name| vec![name]));
        npy.map(|npy| Array { path: spec.to_owned(), npy }).map_err(|why| SourceError::input(spec, why))
    }

    fn read(&self, range: Range<usize>) -> Result<Values, SourceError> {
        self.npy.read(range).map_err(|why| SourceError::input(&self.path, why))
    }
}

/// A source of rows.
#[derive(Debug)]
pub struct Arrays {
    features: Option<Array>,
    probabilities: Option<Array>,
    labels: Option<Array>,
    regression: bool,
}

impl Arrays {
    /// Opens the files and checks that they fit each other.
    pub fn open(files: &ArrayFiles, regression: bool) -> Result<Arrays, SourceError> {
        let open =
            |file: &Option<PathBuf>, usual: &[&str]| file.as_ref().map(|file| Array::open(file, usual)).transpose();
        let arrays = Arrays {
            features: open(&files.features, &["X", "features"])?,
            probabilities: open(&files.probabilities, &["proba", "probabilities"])?,
            labels: open(&files.labels, &["y", "labels"])?,
            regression,
        };
        arrays.check()?;
        Ok(arrays)
    }

    fn check(&self) -> Result<(), SourceError> {
        let Some(first) = self.features.as_ref().or(self.probabilities.as_ref()) else {
            let why = "no rows are named: give --features, --proba or both, or --table, --ring or --reports";
            return Err(SourceError::Options(why.into()));
        };
        let all = [&self.features, &self.probabilities, &self.labels].into_iter().flatten();
        for array in all {
            let (rows, want) = (array.npy.rows, first.npy.rows);
            if rows != want {
                return Err(SourceError::input(
                    &array.path,
                    format!("it has {rows} rows, and {} has {want}", first.path.display()),
                ));
            }
            if array.npy.columns == 0 {
                return Err(SourceError::input(&array.path, "it has no columns"));
            }
        }
        match (&self.probabilities, &self.labels) {
            (Some(array), _) if array.npy.dimensions == 1 && !self.regression => Err(SourceError::input(
                &array.path,
                "it has one dimension, want rows × classes; of two classes give both: numpy.column_stack([1 - p, p]); or --task regression",
            )),
            (None, Some(array)) => {
                Err(SourceError::input(&array.path, "labels are compared with predictions: give --proba too"))
            }
            (Some(outputs), Some(targets)) if self.regression => match targets.npy.columns == outputs.npy.columns {
                true => Ok(()),
                false => Err(SourceError::input(
                    &targets.path,
                    format!(
                        "it has {} columns, and there are {} outputs: give a target for each, NaN where it is not known",
                        targets.npy.columns, outputs.npy.columns
                    ),
                )),
            },
            (Some(proba), Some(labels)) if ![1, proba.npy.columns].contains(&labels.npy.columns) => {
                Err(SourceError::input(
                    &labels.path,
                    format!(
                        "it has {} columns, want a class index per row, or a flag for each of {} classes",
                        labels.npy.columns, proba.npy.columns
                    ),
                ))
            }
            _ => Ok(()),
        }
    }

    fn labels(&self, range: Range<usize>) -> Result<Option<BatchLabels>, SourceError> {
        let (Some(array), Some(proba)) = (&self.labels, &self.probabilities) else { return Ok(None) };
        let (first, values) = (range.start, array.read(range)?.into_f64());
        if self.regression {
            return Ok(Some(BatchLabels::Targets(values)));
        }
        if array.npy.columns > 1 {
            return Ok(Some(BatchLabels::Sets(values.iter().map(|x| u8::from(*x != 0.0)).collect())));
        }
        let index = |(i, x): (usize, &f64)| {
            class_index(*x, proba.npy.columns)
                .map_err(|why| SourceError::input(&array.path, format!("row {}: {why}", first + i)))
        };
        values
            .iter()
            .enumerate()
            .map(index)
            .collect::<Result<_, _>>()
            .map(|classes| Some(BatchLabels::Classes(classes)))
    }
}

/// NaN and −1: not known.
pub fn class_index(x: f64, classes: usize) -> Result<i32, String> {
    let known = x >= 0.0 && x < classes as f64 && x.fract() == 0.0;
    match x {
        _ if x.is_nan() || x == -1.0 => Ok(-1),
        _ if known => Ok(x as i32),
        _ => {
            Err(format!("label {x} is no class: want 0 to {}, or -1 where it is not known", classes.saturating_sub(1)))
        }
    }
}

impl Source for Arrays {
    fn extent(&self) -> Extent {
        let columns = |array: &Option<Array>| array.as_ref().map_or(0, |array| array.npy.columns);
        let rows = self.features.as_ref().or(self.probabilities.as_ref()).map_or(0, |array| array.npy.rows);
        Extent { rows, classes: columns(&self.probabilities), features: columns(&self.features) }
    }

    fn read(&mut self, rows: Range<usize>) -> Result<Batch, SourceError> {
        let read = |array: &Option<Array>| array.as_ref().map(|array| array.read(rows.clone())).transpose();
        Ok(Batch {
            count: rows.len(),
            probabilities: read(&self.probabilities)?,
            features: read(&self.features)?,
            labels: self.labels(rows.clone())?,
        })
    }
}
