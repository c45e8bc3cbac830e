//! A CSV file with a header line: features, probabilities and a label in columns of one table.

use super::SourceError;
use super::batch::{Batch, BatchLabels, Values};
use super::build::{Extent, Source};
use super::chosen::{Chosen, TableColumns, is_missing};
use csv::{ByteRecord, Reader, ReaderBuilder};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A table, whatever its format.
pub struct OpenTable {
    /// Its rows.
    pub source: Box<dyn Source>,
    /// As the table calls them, unless they were told.
    pub class_names: Vec<String>,
    /// As the table calls them.
    pub feature_names: Vec<String>,
}

/// `.parquet`, or else CSV.
pub fn open_table(
    path: &Path,
    columns: &TableColumns,
    classes: Option<&[String]>,
    regression: bool,
) -> Result<OpenTable, SourceError> {
    let named = |source, chosen: &Chosen| OpenTable {
        source,
        class_names: chosen.class_names.clone(),
        feature_names: chosen.feature_names(),
    };
    if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("parquet")) {
        #[cfg(feature = "parquet")]
        {
            let file = super::parquet::ParquetFile::open(path, columns, classes, regression)?;
            let chosen = file.chosen().clone();
            return Ok(named(Box::new(file), &chosen));
        }
        #[cfg(not(feature = "parquet"))]
        {
            let why = "this mlwatch was built without the cargo feature parquet: build it with that, or write the table as CSV, or its columns as arrays with numpy.save";
            return Err(SourceError::input(path, why));
        }
    }
    let table = Table::open(path, columns, classes, regression)?;
    let chosen = table.chosen().clone();
    Ok(named(Box::new(table), &chosen))
}

/// A source of rows.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    reader: Reader<File>,
    rows: usize,
    chosen: Chosen,
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
        let mut reader = open(path)?;
        let header = reader.headers().map_err(|why| SourceError::input(path, why))?;
        let header: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
        let chosen = Chosen::of(path, header, columns, classes, regression)?;
        let rows = count(path, &mut reader)?;
        let reader = open(path)?;
        Ok(Table { path: path.to_owned(), reader, rows, chosen, regression })
    }

    /// What its columns are.
    pub fn chosen(&self) -> &Chosen {
        &self.chosen
    }

    fn number(&self, record: &ByteRecord, column: usize) -> Result<f64, SourceError> {
        let field = String::from_utf8_lossy(&record[column]);
        let text = field.trim();
        if is_missing(text) {
            return Ok(f64::NAN);
        }
        text.parse().map_err(|_| {
            let remedy = "leave the column out (--feature-columns), or give the codes that the producer gives, as numbers, and name it in --categorical";
            self.wrong(record, column, format!("{text:?} is no number: {remedy}"))
        })
    }

    fn label(&self, record: &ByteRecord, column: usize) -> Result<i32, SourceError> {
        let index = self.chosen.label(&String::from_utf8_lossy(&record[column]));
        index.map_err(|why| self.wrong(record, column, why))
    }

    fn wrong(&self, record: &ByteRecord, column: usize, why: String) -> SourceError {
        let line = record.position().map_or(0, csv::Position::line);
        SourceError::input(&self.path, format!("line {line}, column {}: {why}", self.chosen.header[column]))
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

impl Source for Table {
    fn extent(&self) -> Extent {
        Extent { rows: self.rows, classes: self.chosen.probabilities.len(), features: self.chosen.features.len() }
    }

    fn read(&mut self, rows: Range<usize>) -> Result<Batch, SourceError> {
        let (mut record, mut probabilities, mut features) = (ByteRecord::new(), Vec::new(), Vec::new());
        let (mut labels, mut targets) = (Vec::new(), Vec::new());
        let mut count = 0;
        while count < rows.len()
            && self.reader.read_byte_record(&mut record).map_err(|why| SourceError::input(&self.path, why))?
        {
            for &column in &self.chosen.probabilities {
                probabilities.push(self.number(&record, column)?);
            }
            for &column in &self.chosen.features {
                features.push(self.number(&record, column)?);
            }
            match self.chosen.label {
                Some(column) if self.regression => targets.push(self.number(&record, column)?),
                Some(column) => labels.push(self.label(&record, column)?),
                None => {}
            }
            count += 1;
        }
        let some = |values: Vec<f64>| (!values.is_empty()).then_some(Values::F64(values));
        let labels = match self.chosen.label {
            Some(_) if self.regression => Some(BatchLabels::Targets(targets)),
            Some(_) => Some(BatchLabels::Classes(labels)),
            None => None,
        };
        Ok(Batch { count, probabilities: some(probabilities), features: some(features), labels })
    }
}
