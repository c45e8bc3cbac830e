//! Predictions against what was right, over every row that has a label.

use super::{Labels, predictions::Classified};
use crate::stats::{MOST_CONFUSED, Outcomes};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

/// How right a model was in a period.
#[derive(Debug, Serialize, Deserialize)]
pub struct Quality {
    /// Predictions against labels.
    pub outcomes: Outcomes,
    /// Rows with a label in range, or a target, predicted or not.
    pub labelled_rows: u64,
    /// Label values that are not a class.
    pub invalid_labels: u64,
    /// Rows of records with neither predictions nor features to join their labels to.
    pub unjoined_label_rows: u64,
    /// The row in hand, each of its flags read once: a producer may be changing them.
    #[serde(skip)]
    set: Vec<bool>,
}

impl Quality {
    /// Of `classes` classes or outputs.
    pub(super) fn new(classes: usize) -> Quality {
        Quality {
            outcomes: Outcomes::new(classes),
            labelled_rows: 0,
            invalid_labels: 0,
            unjoined_label_rows: 0,
            set: Vec::new(),
        }
    }

    /// An upper bound of its memory in bytes.
    pub(super) fn bytes(classes: u64) -> u64 {
        const CLASS: u64 = 40; // counts, a flag
        let confusion = if classes <= MOST_CONFUSED as u64 { classes * classes * size_of::<u64>() as u64 } else { 0 };
        classes * CLASS + confusion
    }

    /// Whether it is for `classes` classes: what comes from a file may not be.
    pub(super) fn fits(&self, classes: usize) -> bool {
        self.outcomes.fits(classes)
    }

    /// Scores a batch that was `classified`.
    pub(super) fn update(&mut self, labels: Labels<'_>, classes: usize, classified: &Classified) {
        match labels {
            Labels::Classes(labels) => self.score_classes(labels, classes, classified),
            Labels::Sets(sets) => self.score_sets(&sets, classified),
            Labels::Targets(targets) => {
                self.labelled_rows +=
                    targets.rows().into_iter().filter(|row| !row.iter().any(|t| t.is_nan())).count() as u64;
            }
        }
    }

    fn score_classes(&mut self, labels: &[i32], classes: usize, classified: &Classified) {
        for (row, &label) in labels.iter().enumerate() {
            match usize::try_from(label) {
                Ok(actual) if actual < classes => self.score(classified.class(row), actual),
                Err(_) if label == -1 => {}
                _ => self.invalid_labels += 1,
            }
        }
    }

    fn score(&mut self, predicted: Option<usize>, actual: usize) {
        self.labelled_rows += 1;
        if let Some(predicted) = predicted {
            self.outcomes.add(predicted, actual);
        }
    }

    fn score_sets(&mut self, sets: &ArrayView2<'_, u8>, classified: &Classified) {
        self.labelled_rows += sets.nrows() as u64;
        for (row, set) in sets.rows().into_iter().enumerate() {
            let Some(predicted) = classified.class(row) else { continue };
            self.set.clear();
            self.set.extend(set.iter().map(|&flag| flag != 0));
            self.outcomes.add_set(predicted, &self.set);
        }
    }
}
