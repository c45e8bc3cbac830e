//! What a model answered, over every row.

use super::Spec;
use super::invalid::Invalid;
use super::rows::Record;
use crate::stats::{Classified, Columns, LOW_CONFIDENCE, Moments, Scalar, classify, classify_rows, entropy, with_view};
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
    /// One column: how undecided each valid row is.
    pub entropy: Moments,
    /// Valid rows whose largest probability is below [`LOW_CONFIDENCE`].
    pub low_confidence_rows: u64,
}

/// Of each row that has a class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SampledAnswers {
    /// Its largest probability.
    pub confidence: Vec<f64>,
    /// Largest minus second largest.
    pub margin: Vec<f64>,
    /// How undecided it is.
    pub entropy: Vec<f64>,
}

impl SampledAnswers {
    /// Of no rows yet, with room for so many.
    pub(super) fn with_room(rows: usize) -> SampledAnswers {
        let column = || Vec::with_capacity(rows);
        SampledAnswers { confidence: column(), margin: column(), entropy: column() }
    }

    pub(super) fn add(&mut self, row: &[f64], threshold: f64) {
        if let Ok(p) = classify(row.iter().copied(), threshold) {
            self.confidence.push(p.confidence);
            self.margin.push(p.margin);
            self.entropy.push(entropy(row));
        }
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
            entropy: Moments::new(1),
            low_confidence_rows: 0,
        }
    }

    /// Whether it is for `classes` classes: what comes from a file may not be.
    pub(super) fn fits(&self, classes: usize) -> bool {
        self.class_counts.len() == classes
            && self.probabilities.fits(classes)
            && self.confidence.fits(1)
            && self.margin.fits(1)
            && self.entropy.fits(1)
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
        classify_rows(rows, threshold, classified);
        classified.classes().flatten().for_each(|class| self.class_counts[class] += 1);
        self.tie_rows += classified.ties;
        self.low_confidence_rows += classified.confidence.iter().map(|c| u64::from(*c < LOW_CONFIDENCE)).sum::<u64>();
        for (row, flaw) in &classified.flaws {
            self.invalid.of(*flaw).add(record, *row as usize);
        }
        update_column(&mut self.confidence, &classified.confidence);
        update_column(&mut self.margin, &classified.margin);
        update_column(&mut self.entropy, &classified.entropy);
    }
}

fn update_column(moments: &mut Moments, values: &[f64]) {
    moments.update_typed(&ArrayView2::from_shape((values.len(), 1), values).expect("one column"));
}

#[cfg(test)]
mod tests {
    use super::super::{Profile, Rows};
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn profile(classes: usize) -> Profile {
        let classes = (0..classes).map(|k| k.to_string()).collect();
        Profile::new(Arc::new(Spec { classes, threshold: 0.5, ..Spec::default() }), 1000, 1)
    }

    fn feed(profile: &mut Profile, values: &[f32]) {
        let columns = profile.spec.classes.len();
        let view = ArrayView2::from_shape((values.len() / columns, columns), values).unwrap();
        let probabilities = Some(Columns::F32(view));
        profile.update(&Rows { count: view.nrows(), probabilities, ..Rows::default() });
    }

    #[test]
    fn a_row_is_of_low_confidence_below_the_limit_only() {
        let mut p = profile(2);
        feed(&mut p, &[0.6, 0.4, 0.55, 0.45, 0.599, 0.401, f32::NAN, 0.1, 1.0, 0.0]);
        assert_eq!((p.predictions.low_confidence_rows, p.predictions.confidence.columns()[0].n), (2, 4));
    }

    #[test]
    fn what_the_sample_says_takes_no_more_memory_than_its_rows() {
        let mut p = profile(3);
        feed(&mut p, &[0.2, 0.3, 0.5].repeat(700));
        let SampledAnswers { confidence, margin, entropy } = p.sampled_answers();
        assert_eq!([confidence, margin, entropy].map(|column| (column.len(), column.capacity())), [(700, 700); 3]);
    }

    #[test]
    fn hostile_rows_have_a_finite_entropy_or_none() {
        let mut p = profile(3);
        let hostile = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, -1.0, 0.5, 2.0, 1e-45];
        let all = hostile.map(|a| hostile.map(|b| hostile.map(|c| [a, b, c])));
        feed(&mut p, all.as_flattened().as_flattened().as_flattened());
        let entropy = p.predictions.entropy.columns()[0];
        let classified: u64 = p.predictions.class_counts.iter().sum();
        assert_eq!((entropy.n, entropy.nan, entropy.inf, classified), (216, 0, 0, 216));
        assert!(entropy.min >= 0.0 && entropy.max.is_finite() && entropy.mean.is_finite());
        assert!(p.sampled_answers().entropy.iter().all(|entropy| entropy.is_finite()));
    }

    fn row() -> impl Strategy<Value = [f32; 3]> {
        let sound = (0.0..1.0f32, 0.0..1.0f32).prop_map(|(a, b)| [a * b, a * (1.0 - b), 1.0 - a]);
        prop_oneof![9 => sound, 1 => Just([0.5, f32::NAN, 0.5]), 1 => Just([0.0, 1.0, 0.0])]
    }

    proptest! {
        #[test]
        fn how_rows_are_cut_into_batches_does_not_matter(rows in prop::collection::vec(row(), 1..60), size in 1..20usize) {
            let (mut whole, mut cut) = (profile(3), profile(3));
            feed(&mut whole, rows.as_flattened());
            rows.chunks(size).for_each(|rows| feed(&mut cut, rows.as_flattened()));
            let (a, b) = (whole.predictions.entropy.columns()[0], cut.predictions.entropy.columns()[0]);
            prop_assert_eq!((a.n, a.zero, a.min, a.max), (b.n, b.zero, b.min, b.max));
            prop_assert!((a.mean - b.mean).abs() < 1e-12 && (a.m2 - b.m2).abs() < 1e-9);
            prop_assert_eq!(whole.predictions.low_confidence_rows, cut.predictions.low_confidence_rows);
            prop_assert_eq!(whole.sampled_answers(), cut.sampled_answers());
        }

        #[test]
        fn the_sample_says_of_a_row_what_was_counted_of_it(rows in prop::collection::vec(row(), 1..60)) {
            let mut p = profile(3);
            feed(&mut p, rows.as_flattened());
            let sampled = p.sampled_answers();
            prop_assert_eq!(&sampled.entropy, &p.classified.entropy, "to the bit: bins are frozen by the sample");
            prop_assert_eq!(&sampled.confidence, &p.classified.confidence);
            prop_assert_eq!(&sampled.margin, &p.classified.margin);
        }
    }
}
