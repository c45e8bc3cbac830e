//! What references are made from: arrays, a table, a live ring, or the reports of times when all was well.
//!
//! Rows are streamed, in order and in batches of a size that depends on the columns alone, into one profile: the same rows give the
//! same bytes, whichever file they come in.

mod arrays;
mod bands;
mod batch;
mod build;
mod chosen;
mod chunks;
mod gathered;
mod live;
mod npy;
#[cfg(feature = "parquet")]
mod parquet;
mod reports;
mod spec;
mod table;
mod told;

pub use arrays::{ArrayFiles, Arrays};
pub use batch::{Batch, BatchLabels, Values};
pub use build::{DEFAULT_PERIODS, DEFAULT_SAMPLE_ROWS, Extent, Source, build};
pub use chosen::TableColumns;
pub use live::{Watching, find, watch};
pub use reports::{ReportsOf, of_reports};
pub use spec::Names;
pub use table::{OpenTable, open_table};

use std::fmt::Display;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why there is no reference.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages document them")]
pub enum SourceError {
    #[error("{0}")]
    Options(String),
    #[error("{}: {why}", path.display())]
    Input { path: PathBuf, why: String },
}

impl SourceError {
    fn input(path: &Path, why: impl Display) -> SourceError {
        SourceError::Input { path: path.to_owned(), why: why.to_string() }
    }
}

/// The lines of a file of names.
pub fn lines(path: &Path) -> Result<Vec<String>, SourceError> {
    let text = std::fs::read_to_string(path).map_err(|why| SourceError::input(path, why))?;
    Ok(text.lines().map(str::to_owned).collect())
}
