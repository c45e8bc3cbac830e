//! Accuracy from confidence alone, against a reference with labels: average thresholded confidence and difference of confidence.
//!
//! Garg, Balakrishnan, Lipton, Neyshabur, Sedghi, *Leveraging Unlabeled Data to Predict Out-of-Distribution Performance*, 2022;
//! Guillory, Shankar, Ebrahimi, Darrell, Schmidt, *Predicting with Confidence on Unseen Distributions*, 2021.

use super::Proportion;
use serde::{Deserialize, Serialize};

/// Rows at least as sure as a threshold: their share estimates the accuracy (ATC).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thresholded {
    threshold: f64,
    rows: u64,
    sure: u64,
}

/// The threshold below which as many reference rows are as were wrong, of pairs of confidence and correctness. Among equal confidences
/// it cannot part, and takes the nearer side. `None` without pairs; +∞ if every row was wrong.
pub fn confidence_threshold(pairs: &[(f64, bool)]) -> Option<f64> {
    let mut confidences: Vec<f64> = pairs.iter().map(|pair| pair.0).collect();
    confidences.sort_by(f64::total_cmp);
    let wrong = pairs.iter().filter(|pair| !pair.1).count();
    let Some(&here) = confidences.get(wrong) else {
        return (!pairs.is_empty()).then_some(f64::INFINITY);
    };
    let below = confidences.partition_point(|c| *c < here);
    let through = confidences.partition_point(|c| *c <= here);
    if wrong - below <= through - wrong {
        return Some(here);
    }
    Some(confidences.get(through).copied().unwrap_or(f64::INFINITY))
}

impl Thresholded {
    /// Of no rows yet.
    pub fn new(threshold: f64) -> Thresholded {
        Thresholded { threshold, rows: 0, sure: 0 }
    }

    /// A row.
    pub fn add(&mut self, confidence: f64) {
        self.rows += 1;
        self.sure += u64::from(confidence >= self.threshold);
    }

    /// As if `other`'s rows had been added too; it has the same threshold.
    pub fn merge(&mut self, other: &Thresholded) {
        self.rows += other.rows;
        self.sure += other.sure;
    }

    /// Share of rows that should be right.
    pub fn accuracy(&self) -> Option<Proportion> {
        Proportion::of(self.sure, self.rows)
    }
}

/// The reference's accuracy less what mean confidence has fallen by since, within [0, 1] (DoC).
pub fn accuracy_by_difference(reference_accuracy: f64, reference_confidence: f64, confidence: f64) -> f64 {
    (reference_accuracy - (reference_confidence - confidence)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accuracy(threshold: f64, confidences: impl IntoIterator<Item = f64>) -> f64 {
        let mut counter = Thresholded::new(threshold);
        confidences.into_iter().for_each(|confidence| counter.add(confidence));
        counter.accuracy().unwrap().value
    }

    #[test]
    fn ends_are_all_right_and_all_wrong() {
        assert_eq!(confidence_threshold(&[]), None);
        assert_eq!(confidence_threshold(&[(0.5, true), (0.9, true)]), Some(0.5));
        assert_eq!(confidence_threshold(&[(0.5, false), (0.9, false)]), Some(f64::INFINITY));
        assert_eq!(Thresholded::new(0.5).accuracy(), None);
    }

    #[test]
    fn equal_confidences_fall_on_the_nearer_side() {
        let of = |wrong: usize| confidence_threshold(&[0, 1, 2, 3, 4].map(|i| (0.7, i >= wrong)));
        assert_eq!([of(1), of(2), of(3), of(4)], [Some(0.7), Some(0.7), Some(f64::INFINITY), Some(f64::INFINITY)]);
    }

    #[test]
    fn a_model_less_sure_is_expected_to_be_less_right() {
        assert!((accuracy_by_difference(0.9, 0.95, 0.85) - 0.8).abs() < 1e-12);
        assert_eq!((accuracy_by_difference(0.1, 0.9, 0.2), accuracy_by_difference(0.9, 0.2, 0.9)), (0.0, 1.0));
    }

    proptest! {
        #[test]
        fn the_reference_itself_comes_out_as_right_as_it_was(
            right in proptest::collection::vec(any::<bool>(), 1..60), step in 1..900u32,
        ) {
            let pairs: Vec<_> = right.iter().enumerate().map(|(i, &right)| (f64::from(i as u32 * step % 997), right)).collect();
            let threshold = confidence_threshold(&pairs).unwrap();
            let realised = right.iter().filter(|right| **right).count() as f64 / right.len() as f64;
            prop_assert!((accuracy(threshold, pairs.iter().map(|pair| pair.0)) - realised).abs() < 1e-12);
        }

        #[test]
        fn no_threshold_comes_closer(pairs in proptest::collection::vec((0..6u8, any::<bool>()), 1..40)) {
            let pairs: Vec<(f64, bool)> = pairs.into_iter().map(|(c, right)| (f64::from(c), right)).collect();
            let realised = pairs.iter().filter(|pair| pair.1).count() as f64 / pairs.len() as f64;
            let distance = |threshold: f64| (accuracy(threshold, pairs.iter().map(|pair| pair.0)) - realised).abs();
            let fitted = distance(confidence_threshold(&pairs).unwrap());
            prop_assert!((0..=6).all(|threshold| fitted <= distance(f64::from(threshold)) + 1e-12));
        }

        #[test]
        fn merge_equals_whole(confidences in proptest::collection::vec(0.0..1.0f64, 0..40), at in 0.0..1.0f64) {
            let of = |confidences: &[f64]| {
                let mut counter = Thresholded::new(0.5);
                confidences.iter().for_each(|confidence| counter.add(*confidence));
                counter
            };
            let (left, right) = confidences.split_at((confidences.len() as f64 * at) as usize);
            let mut merged = of(left);
            merged.merge(&of(right));
            prop_assert_eq!(merged, of(&confidences));
        }
    }
}
