//! What a model answered, over every row.

use super::Spec;
use super::invalid::Invalid;
use super::rows::Record;
use crate::stats::{Columns, Moments, Prediction, Scalar, Validity, classify, with_view};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

/// The answers of a period.
#[derive(Debug, Serialize, Deserialize)]
pub struct Predictions {
    /// Rows with a probabilities section.
    pub rows: u64,
    /// Faulty rows among them.
    pub invalid: Invalid,
    /// Rows whose largest probability stands more than once.
    pub tie_rows: u64,
    /// Rows predicted as each class.
    pub class_counts: Vec<u64>,
    /// Of each class's probability, or each output.
    pub probabilities: Moments,
    /// One column: the largest probability of each valid row.
    pub confidence: Moments,
    /// One column: largest minus second largest.
    pub margin: Moments,
}

/// What a batch in hand was classified as; kept for its memory.
#[derive(Debug, Default)]
pub(super) struct Classified {
    /// Of each row; empty for a batch without predictions.
    pub classes: Vec<Option<usize>>,
    /// Of the rows with a class.
    pub confidence: Vec<f64>,
    /// Of the same rows.
    pub margin: Vec<f64>,
}

impl Classified {
    pub fn clear(&mut self) {
        self.classes.clear();
        self.confidence.clear();
        self.margin.clear();
    }

    /// The largest probability of each row with a class.
    pub fn confidence(&self) -> &[f64] {
        &self.confidence
    }

    /// The class predicted for a row of the batch, if it had a valid prediction.
    pub fn class(&self, row: usize) -> Option<usize> {
        self.classes.get(row).copied().flatten()
    }
}

impl Predictions {
    /// Of `classes` classes or outputs.
    pub(super) fn new(classes: usize) -> Predictions {
        Predictions {
            rows: 0,
            invalid: Invalid::default(),
            tie_rows: 0,
            class_counts: vec![0; classes],
            probabilities: Moments::new(classes),
            confidence: Moments::new(1),
            margin: Moments::new(1),
        }
    }

    /// Whether it is for `classes` classes: what comes from a file may not be.
    pub(super) fn fits(&self, classes: usize) -> bool {
        self.class_counts.len() == classes
            && self.probabilities.fits(classes)
            && self.confidence.fits(1)
            && self.margin.fits(1)
            && self.invalid.fits()
    }

    /// Adds a batch's `probabilities`, and leaves in `classified` what its rows were classified as.
    pub(super) fn update(
        &mut self,
        probabilities: &Columns<'_>,
        record: Option<&Record<'_>>,
        spec: &Spec,
        classified: &mut Classified,
    ) {
        with_view!(probabilities, view => {
            self.rows += view.nrows() as u64;
            self.probabilities.update_typed(view);
            if !spec.regression {
                self.classify_rows(view, record, spec.threshold, classified);
            }
        });
    }

    fn classify_rows<T: Scalar>(
        &mut self,
        rows: &ArrayView2<'_, T>,
        record: Option<&Record<'_>>,
        threshold: f64,
        classified: &mut Classified,
    ) {
        let check_sum = rows.ncols() > 1;
        for (at, row) in rows.rows().into_iter().enumerate() {
            let prediction = classify(row.iter().map(|p| p.widen()), threshold);
            classified.classes.push(prediction.ok().map(|p| p.class));
            match prediction {
                Ok(p) => {
                    self.count(&p);
                    classified.confidence.push(p.confidence);
                    classified.margin.push(p.margin);
                    if p.out_of_range {
                        self.invalid.out_of_range.add(record, at);
                    }
                    if check_sum && (p.sum - 1.0).abs() > T::SUM_TOLERANCE {
                        self.invalid.not_normalised.add(record, at);
                    }
                }
                Err(Validity::Nan) => self.invalid.nan.add(record, at),
                Err(Validity::Inf) => self.invalid.inf.add(record, at),
            }
        }
        update_column(&mut self.confidence, &classified.confidence);
        update_column(&mut self.margin, &classified.margin);
    }

    fn count(&mut self, p: &Prediction) {
        self.class_counts[p.class] += 1;
        self.tie_rows += u64::from(p.tie);
    }
}

fn update_column(moments: &mut Moments, values: &[f64]) {
    moments.update_typed(&ArrayView2::from_shape((values.len(), 1), values).expect("one column"));
}
