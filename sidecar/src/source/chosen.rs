//! Which columns of a table are what.

use super::SourceError;
use super::arrays::class_index;
use super::spec::listed;
use crate::wildcard;
use std::path::Path;

/// What stands for a missing value, besides nothing at all.
const MISSING: [&str; 6] = ["NA", "N/A", "NaN", "nan", "null", "NULL"];

/// Columns by name, or by names with `*` and `?`.
#[derive(Clone, Debug, Default)]
pub struct TableColumns {
    /// Empty: all that are nothing else.
    pub features: Vec<String>,
    /// In the order of the classes.
    pub probabilities: Vec<String>,
    /// Holds class indices, or names of classes; of a regression the output's targets.
    pub label: Option<String>,
}

/// Where they are in the table.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub header: Vec<String>,
    pub features: Vec<usize>,
    pub probabilities: Vec<usize>,
    pub label: Option<usize>,
    /// As the table calls them, unless they were told.
    pub class_names: Vec<String>,
}

impl Chosen {
    pub fn of(
        path: &Path,
        header: Vec<String>,
        columns: &TableColumns,
        classes: Option<&[String]>,
        regression: bool,
    ) -> Result<Chosen, SourceError> {
        let probabilities = places(path, &header, &columns.probabilities)?;
        let label = places(path, &header, columns.label.as_slice())?.first().copied();
        let features = match columns.features.as_slice() {
            [] => (0..header.len()).filter(|at| !probabilities.contains(at) && label != Some(*at)).collect(),
            names => places(path, &header, names)?,
        };
        if label.is_some() && probabilities.is_empty() {
            return Err(SourceError::Options("labels are compared with predictions: give --proba-columns too".into()));
        }
        if label.is_some() && regression && probabilities.len() > 1 {
            let why = format!(
                "--label-column holds the targets of one output, and there are {}: make the reference from arrays, with --labels",
                probabilities.len()
            );
            return Err(SourceError::Options(why));
        }
        let named = || probabilities.iter().map(|&at| header[at].clone()).collect();
        let class_names = classes.map_or_else(named, <[String]>::to_vec);
        Ok(Chosen { header, features, probabilities, label, class_names })
    }

    /// A class by its name or its index, −1 where it is missing.
    pub fn label(&self, text: &str) -> Result<i32, String> {
        let (text, names) = (text.trim(), &self.class_names);
        if let Some(class) = names.iter().position(|name| name == text) {
            return Ok(class as i32);
        }
        if is_missing(text) {
            return Ok(-1);
        }
        let number =
            text.parse().map_err(|_| format!("{text:?} is neither a class ({}) nor an index", listed(names)))?;
        class_index(number, names.len())
    }

    /// As the table calls them.
    pub fn feature_names(&self) -> Vec<String> {
        self.features.iter().map(|&at| self.header[at].clone()).collect()
    }
}

/// Whether a field without blanks around it says nothing.
pub fn is_missing(text: &str) -> bool {
    text.is_empty() || MISSING.contains(&text)
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
