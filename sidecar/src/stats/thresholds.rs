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

/// The threshold below which as large a share of a reference lies as was wrong, of its ascending confidences and the share of all at
/// each. Equal confidences it cannot part, and takes the nearer side. It lies between two confidences, so that a rounded one stays on
/// its side. `None` of nothing; +∞ if all of them should be below.
pub fn confidence_threshold(shares: impl Iterator<Item = (f64, f64)>, wrong: f64) -> Option<f64> {
    let (mut below, mut last, mut best) = (0.0, None, None);
    let mut consider = |threshold: f64, below: f64| {
        let distance = (below - wrong).abs();
        if best.is_none_or(|(nearest, _)| distance < nearest) {
            best = Some((distance, threshold));
        }
    };
    for (confidence, share) in shares {
        // The first as a ring of f32 may hold it.
        let here = last.map_or(f64::from((confidence as f32).next_down()), |last| last + (confidence - last) / 2.0);
        consider(here, below);
        (below, last) = (below + share, Some(confidence));
    }
    if last.is_some() {
        consider(f64::INFINITY, below);
    }
    best.map(|(_, threshold)| threshold)
}

impl Thresholded {
    /// Of no rows yet.
    pub fn new(threshold: f64) -> Thresholded {
        Thresholded { threshold, rows: 0, sure: 0 }
    }

    /// Whether it can be one: what comes from a file may be anything.
    pub fn fits(&self) -> bool {
        self.sure <= self.rows && !self.threshold.is_nan()
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

    /// Of confidences in any order, so many of them wrong.
    fn fitted(confidences: &[f64], wrong: usize) -> Option<f64> {
        let mut ascending = confidences.to_vec();
        ascending.sort_by(f64::total_cmp);
        let n = ascending.len() as f64;
        confidence_threshold(
            ascending.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as f64 / n)),
            wrong as f64 / n,
        )
    }

    #[test]
    fn ends_are_all_right_and_all_wrong() {
        assert_eq!(fitted(&[], 0), None);
        assert!((0.499..0.5).contains(&fitted(&[0.5, 0.9], 0).unwrap()));
        assert_eq!(fitted(&[0.5, 0.9], 1), Some(0.7));
        assert_eq!(fitted(&[0.5, 0.9], 2), Some(f64::INFINITY));
        assert_eq!(Thresholded::new(0.5).accuracy(), None);
    }

    #[test]
    fn equal_confidences_fall_on_the_nearer_side() {
        let sure = [0, 1, 2, 3, 4, 5].map(|wrong| accuracy(fitted(&[0.7; 5], wrong).unwrap(), [0.7]));
        assert_eq!(sure, [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_confidence_rounded_to_f32_stays_on_its_side() {
        let confidences = [0.6, 0.7, 0.8, 0.9];
        for wrong in 0..4 {
            let rounded = confidences.map(|confidence| f64::from(confidence as f32));
            assert_eq!(accuracy(fitted(&confidences, wrong).unwrap(), rounded), 1.0 - wrong as f64 / 4.0);
        }
    }

    #[test]
    fn a_model_less_sure_is_expected_to_be_less_right() {
        assert!((accuracy_by_difference(0.9, 0.95, 0.85) - 0.8).abs() < 1e-12);
        assert_eq!((accuracy_by_difference(0.1, 0.9, 0.2), accuracy_by_difference(0.9, 0.2, 0.9)), (0.0, 1.0));
    }

    proptest! {
        #[test]
        fn the_reference_itself_comes_out_as_right_as_it_was(n in 1..60usize, wrong in any::<prop::sample::Index>(), step in 1..900u32) {
            let confidences: Vec<f64> = (0..n as u32).map(|i| f64::from(i * step % 997)).collect();
            let wrong = wrong.index(n + 1);
            let threshold = fitted(&confidences, wrong).unwrap();
            prop_assert!((accuracy(threshold, confidences) - (1.0 - wrong as f64 / n as f64)).abs() < 1e-12);
        }

        #[test]
        fn no_threshold_comes_closer(tied in proptest::collection::vec(0..6u8, 1..40), wrong in any::<prop::sample::Index>()) {
            let confidences: Vec<f64> = tied.iter().copied().map(f64::from).collect();
            let wrong = wrong.index(confidences.len() + 1);
            let realised = 1.0 - wrong as f64 / confidences.len() as f64;
            let distance = |threshold: f64| (accuracy(threshold, confidences.iter().copied()) - realised).abs();
            let nearest = distance(fitted(&confidences, wrong).unwrap());
            prop_assert!((0..=6).all(|threshold| nearest <= distance(f64::from(threshold)) + 1e-12));
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
