//! Whether a model is right as often as it says: expected, maximum and root-mean-square calibration error of the predicted class.
//!
//! Guo, Pleiss, Sun, Weinberger, *On Calibration of Modern Neural Networks*, 2017 (ECE, MCE); Kumar, Liang, Ma, *Verified Uncertainty
//! Calibration*, 2019 (root mean square).

use serde::{Deserialize, Serialize};

/// Of [0, 1]: a multiple of 15 and 10, so that coarser bins are made of whole ones.
const FINE: usize = 1500;

/// A histogram of confidences, with how many of each bin's rows were right. Memory: 36 KB once there is a row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// [`FINE`] bins; empty until a row comes.
    bins: Vec<ReliabilityBin>,
}

/// Rows of like confidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// How many.
    pub rows: u64,
    /// How many of them were right.
    pub correct: u64,
    /// Sum of their confidences.
    pub confidence: f64,
}

/// How far confidence and accuracy are apart in the bins that have rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrationError {
    /// ECE: mean distance, by rows.
    pub expected: f64,
    /// RMSCE: root of the mean square, by rows.
    pub root_mean_square: f64,
    /// MCE: largest distance.
    pub maximum: f64,
}

impl ReliabilityBin {
    /// Mean confidence and accuracy, where there are rows.
    pub fn means(&self) -> Option<(f64, f64)> {
        let rows = self.rows as f64;
        (self.rows > 0).then(|| (self.confidence / rows, self.correct as f64 / rows))
    }

    fn add(&mut self, other: &ReliabilityBin) {
        self.rows += other.rows;
        self.correct += other.correct;
        self.confidence += other.confidence;
    }
}

impl Reliability {
    /// An upper bound of its memory in bytes.
    pub const BYTES: u64 = (FINE * size_of::<ReliabilityBin>()) as u64;

    /// Whether it is whole: what comes from a file may not be.
    pub fn fits(&self) -> bool {
        [0, FINE].contains(&self.bins.len())
    }

    /// A row with a confidence in [0, 1].
    pub fn add(&mut self, confidence: f64, correct: bool) {
        if self.bins.is_empty() {
            self.bins = vec![ReliabilityBin::default(); FINE];
        }
        let bin = ((confidence * FINE as f64) as usize).min(FINE - 1);
        self.bins[bin].add(&ReliabilityBin { rows: 1, correct: u64::from(correct), confidence });
    }

    /// As if `other`'s rows had been added too.
    pub fn merge(&mut self, other: &Reliability) {
        if self.bins.is_empty() {
            self.bins.clone_from(&other.bins);
        } else {
            self.bins.iter_mut().zip(&other.bins).for_each(|(bin, other)| bin.add(other));
        }
    }

    /// All rows.
    pub fn total(&self) -> ReliabilityBin {
        let mut total = ReliabilityBin::default();
        self.bins.iter().for_each(|bin| total.add(bin));
        total
    }

    /// `count` bins of the same width, a divisor of 1,500; none without rows.
    pub fn uniform(&self, count: usize) -> Vec<ReliabilityBin> {
        assert_eq!(FINE % count, 0, "of whole bins");
        self.grouped(count, |fine, _| fine * count / FINE)
    }

    /// At most `count` bins of about as many rows each: a narrow one is never split, so that many rows of one confidence stay together.
    pub fn equal_mass(&self, count: usize) -> Vec<ReliabilityBin> {
        let rows = u128::from(self.total().rows.max(1));
        let mut bins = self.grouped(count, |_, before| (u128::from(before) * count as u128 / rows) as usize);
        bins.retain(|bin| bin.rows > 0);
        bins
    }

    /// `group` of a fine bin's index and the rows before it; below `count` for bins that have rows.
    fn grouped(&self, count: usize, group: impl Fn(usize, u64) -> usize) -> Vec<ReliabilityBin> {
        let mut groups = vec![ReliabilityBin::default(); if self.bins.is_empty() { 0 } else { count }];
        let mut before = 0;
        for (fine, bin) in self.bins.iter().enumerate().filter(|(_, bin)| bin.rows > 0) {
            groups[group(fine, before)].add(bin);
            before += bin.rows;
        }
        groups
    }
}

impl CalibrationError {
    /// Over the bins that have rows; `None` if none has.
    pub fn of(bins: &[ReliabilityBin]) -> Option<CalibrationError> {
        let rows = bins.iter().map(|bin| bin.rows).sum::<u64>() as f64;
        let gaps = || bins.iter().filter_map(|bin| bin.means().map(|(p, y)| (bin.rows as f64 / rows, (p - y).abs())));
        (rows > 0.0).then(|| CalibrationError {
            expected: gaps().map(|(share, gap)| share * gap).sum(),
            root_mean_square: gaps().map(|(share, gap)| share * gap * gap).sum::<f64>().sqrt(),
            maximum: gaps().map(|(_, gap)| gap).fold(0.0, f64::max),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(rows: &[(f64, bool)]) -> Reliability {
        let mut reliability = Reliability::default();
        rows.iter().for_each(|&(confidence, correct)| reliability.add(confidence, correct));
        reliability
    }

    #[test]
    fn the_known_vector_comes_out() {
        let rows = [(0.25, false), (0.25, false), (0.55, true), (0.75, true), (0.75, true)];
        let error = CalibrationError::of(&of(&rows).uniform(2)).unwrap();
        assert!((error.expected - 0.29).abs() < 1e-12, "{error:?}");
        assert!((error.root_mean_square - 0.291_8).abs() < 5e-5, "{error:?}");
        assert!((error.maximum - 0.316_666_666_666_666_7).abs() < 1e-12, "{error:?}");
    }

    #[test]
    fn of_no_rows_there_is_no_error() {
        let none = Reliability::default();
        assert_eq!((CalibrationError::of(&none.uniform(15)), CalibrationError::of(&none.equal_mass(10))), (None, None));
        assert!(none.fits() && none.uniform(15).is_empty() && none.total().means().is_none());
    }

    #[test]
    fn both_ends_of_the_unit_interval_have_a_bin() {
        let bins = of(&[(0.0, false), (1.0, true)]).uniform(15);
        assert_eq!((bins[0].rows, bins[14].rows, bins.len()), (1, 1, 15));
    }

    #[test]
    fn rows_of_one_confidence_stay_in_one_bin() {
        let bins = of(&[(0.7, true); 30]).equal_mass(10);
        assert_eq!((bins.len(), bins[0].rows), (1, 30));
    }

    proptest! {
        #[test]
        fn uniform_bins_equal_sorting_the_rows_into_them(rows in proptest::collection::vec((0.0..=1.0f64, any::<bool>()), 1..100)) {
            let naive = |row: &(f64, bool)| ((row.0 * FINE as f64) as usize).min(FINE - 1) / (FINE / 15);
            for (index, bin) in of(&rows).uniform(15).iter().enumerate() {
                let inside: Vec<_> = rows.iter().filter(|row| naive(row) == index).collect();
                prop_assert_eq!(bin.rows, inside.len() as u64);
                prop_assert_eq!(bin.correct, inside.iter().filter(|row| row.1).count() as u64);
                prop_assert!((bin.confidence - inside.iter().map(|row| row.0).sum::<f64>()).abs() < 1e-12);
            }
        }

        /// A bin begins with the first fine bin behind its share of the rows, so it exceeds that share by less than its last fine bin.
        #[test]
        fn equal_mass_bins_exceed_their_share_by_less_than_a_fine_bin(rows in proptest::collection::vec(0..FINE, 1..300)) {
            let middle = |fine: usize| (fine as f64 + 0.5) / FINE as f64;
            let reliability = of(&rows.iter().map(|&fine| (middle(fine), true)).collect::<Vec<_>>());
            let bins = reliability.equal_mass(10);
            let fullest = reliability.bins.iter().map(|bin| bin.rows).max().unwrap();
            prop_assert!(bins.iter().all(|bin| bin.rows < rows.len() as u64 / 10 + 1 + fullest));
            prop_assert_eq!(bins.iter().map(|bin| bin.rows).sum::<u64>(), rows.len() as u64);
        }

        #[test]
        fn merge_equals_whole(rows in proptest::collection::vec((0.0..=1.0f64, any::<bool>()), 1..100), at in 0.0..1.0f64) {
            let (left, right) = rows.split_at((rows.len() as f64 * at) as usize);
            let (mut merged, whole) = (of(left), of(&rows));
            merged.merge(&of(right));
            for (got, want) in merged.uniform(15).iter().zip(whole.uniform(15)) {
                prop_assert_eq!((got.rows, got.correct), (want.rows, want.correct));
                prop_assert!((got.confidence - want.confidence).abs() < 1e-12);
            }
        }
    }
}
