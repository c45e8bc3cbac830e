//! A CSV file with a header line: features, probabilities and a label in columns of one table.

use super::SourceError;
use super::arrays::class_index;
use super::batch::{Batch, BatchLabels, Values};
use super::build::{Extent, Source};
use super::spec::listed;
use crate::wildcard;
use csv::{ByteRecord, Reader, ReaderBuilder};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What stands for a missing value, besides nothing at all.
const MISSING: [&str; 6] = ["NA", "N/A", "NaN", "nan", "null", "NULL"];

/// Columns by name, or by names with `*` and `?`.
#[derive(Clone, Debug, Default)]
pub struct TableColumns {
    /// Empty: all that are nothing else.
    pub features: Vec<String>,
    /// In the order of the classes.
    pub probabilities: Vec<String>,
    /// Holds class indices, or names of classes.
    pub label: Option<String>,
}

/// A source of rows.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    reader: Reader<File>,
    header: Vec<String>,
    rows: usize,
    features: Vec<usize>,
    probabilities: Vec<usize>,
    label: Option<usize>,
    class_names: Vec<String>,
    regression: bool,
}

impl Table {
    /// Reads the header, and the file once to count its rows.
    pub fn open(
        path: &Path,
        columns: &TableColumns,
        classes: Option<&[String]>,
        regression: bool,
    ) -> Result<Table, SourceError> {
        if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("parquet")) {
            let why = "Parquet is not read: write it as CSV, or its columns as arrays with numpy.save";
            return Err(SourceError::input(path, why));
        }
        let mut reader = open(path)?;
        let header = reader.headers().map_err(|why| SourceError::input(path, why))?;
        let header: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
        let probabilities = places(path, &header, &columns.probabilities)?;
        let label = places(path, &header, columns.label.as_slice())?.first().copied();
        let features = match columns.features.as_slice() {
            [] => (0..header.len()).filter(|at| !probabilities.contains(at) && label != Some(*at)).collect(),
            names => places(path, &header, names)?,
        };
        if label.is_some() && probabilities.is_empty() {
            return Err(SourceError::Options("labels are compared with predictions: give --proba-columns too".into()));
        }
        let named = || probabilities.iter().map(|&at| header[at].clone()).collect();
        let class_names = classes.map_or_else(named, <[String]>::to_vec);
        let rows = count(path, &mut reader)?;
        let reader = open(path)?;
        Ok(Table {
            path: path.to_owned(),
            reader,
            header,
            rows,
            features,
            probabilities,
            label,
            class_names,
            regression,
        })
    }

    /// As the table calls them.
    pub fn feature_names(&self) -> Vec<String> {
        self.features.iter().map(|&at| self.header[at].clone()).collect()
    }

    /// As the table calls them, unless they were told.
    pub fn class_names(&self) -> Vec<String> {
        self.class_names.clone()
    }

    fn number(&self, record: &ByteRecord, column: usize) -> Result<f64, SourceError> {
        let field = String::from_utf8_lossy(&record[column]);
        let text = field.trim();
        if text.is_empty() || MISSING.contains(&text) {
            return Ok(f64::NAN);
        }
        text.parse().map_err(|_| {
            let remedy = "leave the column out (--feature-columns), or give the codes that the producer gives, as numbers, and name it in --categorical";
            self.wrong(record, column, format!("{text:?} is no number: {remedy}"))
        })
    }

    fn label(&self, record: &ByteRecord, column: usize) -> Result<i32, SourceError> {
        let text = String::from_utf8_lossy(&record[column]);
        if let Some(class) = self.class_names.iter().position(|name| name == text.trim()) {
            return Ok(class as i32);
        }
        let number = match text.trim() {
            "" => Ok(f64::NAN),
            text if MISSING.contains(&text) => Ok(f64::NAN),
            text => text
                .parse()
                .map_err(|_| format!("{text:?} is neither a class ({}) nor an index", listed(&self.class_names))),
        };
        let index = number.and_then(|number| class_index(number, self.class_names.len()));
        index.map_err(|why| self.wrong(record, column, why))
    }

    fn wrong(&self, record: &ByteRecord, column: usize, why: String) -> SourceError {
        let line = record.position().map_or(0, csv::Position::line);
        SourceError::input(&self.path, format!("line {line}, column {}: {why}", self.header[column]))
    }
}

fn open(path: &Path) -> Result<Reader<File>, SourceError> {
    ReaderBuilder::new().from_path(path).map_err(|why| SourceError::input(path, why))
}

fn count(path: &Path, reader: &mut Reader<File>) -> Result<usize, SourceError> {
    let (mut record, mut rows) = (ByteRecord::new(), 0);
    while reader.read_byte_record(&mut record).map_err(|why| SourceError::input(path, why))? {
        rows += 1;
    }
    Ok(rows)
}

/// Where the columns are; a pattern stands for its columns in the table's order.
fn places(path: &Path, header: &[String], patterns: &[String]) -> Result<Vec<usize>, SourceError> {
    let mut places = Vec::new();
    for pattern in patterns {
        let found = header.iter().enumerate().filter(|(_, name)| match wildcard::is_wild(pattern) {
            true => wildcard::matches(pattern, name),
            false => *name == pattern,
        });
        let found: Vec<usize> = found.map(|(at, _)| at).collect();
        if found.is_empty() {
            return Err(SourceError::input(path, format!("it has no column {pattern}, only {}", listed(header))));
        }
        places.extend(found.into_iter().filter(|at| !places.contains(at)).collect::<Vec<_>>());
    }
    Ok(places)
}

impl Source for Table {
    fn extent(&self) -> Extent {
        Extent { rows: self.rows, classes: self.probabilities.len(), features: self.features.len() }
    }

    fn read(&mut self, rows: Range<usize>) -> Result<Batch, SourceError> {
        let (mut record, mut probabilities, mut features, mut labels) =
            (ByteRecord::new(), Vec::new(), Vec::new(), Vec::new());
        let mut count = 0;
        while count < rows.len()
            && self.reader.read_byte_record(&mut record).map_err(|why| SourceError::input(&self.path, why))?
        {
            for &column in &self.probabilities {
                probabilities.push(self.number(&record, column)?);
            }
            for &column in &self.features {
                features.push(self.number(&record, column)?);
            }
            if let (Some(column), false) = (self.label, self.regression) {
                labels.push(self.label(&record, column)?);
            }
            count += 1;
        }
        let some = |values: Vec<f64>| (!values.is_empty()).then_some(Values::F64(values));
        let labels = (!labels.is_empty()).then_some(BatchLabels::Classes(labels));
        Ok(Batch { count, probabilities: some(probabilities), features: some(features), labels })
    }
}
