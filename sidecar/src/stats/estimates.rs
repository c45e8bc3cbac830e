//! How right a model should be, from its probabilities alone: confidence-based performance estimation.
//!
//! A row predicted as k counts as ĉₖ right and 1 − ĉₖ wrong. True where the probabilities are calibrated, and blind to a change of
//! what is right for the same features.

use super::Binned;
use super::ranking::{MOST_RANKED, SCORE_BINS, auroc, score_bin};
use serde::{Deserialize, Serialize};

/// Sums over every row with a prediction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimates {
    rows: u64,
    /// Σ ĉ(1 − ĉ) of the predicted class.
    variance: f64,
    classes: Vec<Chances>,
    /// Of each class's score; empty until a row comes, and with more than [`MOST_RANKED`] classes.
    bins: Vec<Bin>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Chances {
    /// n̂: rows predicted as the class.
    predicted: u64,
    /// D: Σ ĉ over those.
    hits: f64,
    /// S: Σ ĉ over all rows.
    actual: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Bin {
    rows: u64,
    /// Σ ĉ.
    positives: f64,
}

/// What should be true of a class, it against the rest. Counts are of rows, and no whole numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "named by themselves")]
pub struct ClassEstimate {
    pub predicted: u64,
    pub true_positives: f64,
    pub false_positives: f64,
    pub false_negatives: f64,
    pub true_negatives: f64,
    /// Undefined if the class was never predicted.
    pub precision: Option<f64>,
    /// Undefined if no row can be of the class.
    pub recall: Option<f64>,
    /// Undefined if both are.
    pub f1: Option<f64>,
    /// Undefined unless rows can be of the class and of the rest, and with more than [`MOST_RANKED`] classes.
    pub auroc: Option<Binned>,
}

impl Estimates {
    /// For `classes` classes.
    pub fn new(classes: usize) -> Estimates {
        Estimates { rows: 0, variance: 0.0, classes: vec![Chances::default(); classes], bins: Vec::new() }
    }

    /// An upper bound of its memory in bytes.
    pub fn bytes(classes: u64) -> u64 {
        let bins = if classes > MOST_RANKED as u64 { 0 } else { (SCORE_BINS * size_of::<Bin>()) as u64 };
        classes * (size_of::<Chances>() as u64 + bins)
    }

    /// Whether it is for `classes` classes: what comes from a file may not be.
    pub fn fits(&self, classes: usize) -> bool {
        let ranked = classes <= MOST_RANKED && self.bins.len() == classes * SCORE_BINS;
        self.classes.len() == classes && (self.bins.is_empty() || ranked)
    }

    /// A row predicted as `predicted`: each class's score, by which rows are ranked, and its calibrated probability ĉ. All in [0, 1].
    pub fn add(&mut self, predicted: usize, scores: &[f64], chances: &[f64]) {
        let right = chances[predicted];
        self.rows += 1;
        self.variance += right * (1.0 - right);
        self.classes[predicted].predicted += 1;
        self.classes[predicted].hits += right;
        self.classes.iter_mut().zip(chances).for_each(|(class, chance)| class.actual += chance);
        if self.classes.len() <= MOST_RANKED {
            self.rank(scores, chances);
        }
    }

    fn rank(&mut self, scores: &[f64], chances: &[f64]) {
        if self.bins.is_empty() {
            self.bins = vec![Bin::default(); self.classes.len() * SCORE_BINS];
        }
        for (bins, (&score, chance)) in self.bins.chunks_exact_mut(SCORE_BINS).zip(scores.iter().zip(chances)) {
            let bin = &mut bins[score_bin(score)];
            bin.rows += 1;
            bin.positives += chance;
        }
    }

    /// As if `other`'s rows had been added too; it has as many classes.
    pub fn merge(&mut self, other: &Estimates) {
        self.rows += other.rows;
        self.variance += other.variance;
        for (class, other) in self.classes.iter_mut().zip(&other.classes) {
            class.predicted += other.predicted;
            class.hits += other.hits;
            class.actual += other.actual;
        }
        if self.bins.is_empty() {
            self.bins.clone_from(&other.bins);
            return;
        }
        for (bin, other) in self.bins.iter_mut().zip(&other.bins) {
            bin.rows += other.rows;
            bin.positives += other.positives;
        }
    }

    /// Rows with a prediction.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Share of rows that should be right; undefined without rows.
    pub fn accuracy(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.classes.iter().map(|class| class.hits).sum::<f64>() / self.rows as f64)
    }

    /// How far the realised accuracy of these rows may well be from it, one standard error, if the probabilities are calibrated.
    pub fn accuracy_error(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.variance.sqrt() / self.rows as f64)
    }

    /// Every class, in order.
    pub fn classes(&self) -> impl Iterator<Item = ClassEstimate> + '_ {
        self.classes.iter().enumerate().map(|(index, class)| {
            let predicted = class.predicted as f64;
            // Sums of the same numbers in another order: rounding may leave a tiny negative.
            let false_negatives = (class.actual - class.hits).max(0.0);
            ClassEstimate {
                predicted: class.predicted,
                true_positives: class.hits,
                false_positives: (predicted - class.hits).max(0.0),
                false_negatives,
                true_negatives: (self.rows as f64 - predicted - false_negatives).max(0.0),
                precision: (class.predicted > 0).then(|| class.hits / predicted),
                recall: (class.actual > 0.0).then(|| class.hits / class.actual),
                f1: (predicted + class.actual > 0.0).then(|| 2.0 * class.hits / (predicted + class.actual)),
                auroc: self.auroc(index),
            }
        })
    }

    fn auroc(&self, class: usize) -> Option<Binned> {
        let bins = self.bins.chunks_exact(SCORE_BINS).nth(class)?;
        auroc(bins.iter().map(|bin| (bin.positives, (bin.rows as f64 - bin.positives).max(0.0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn binary(scores: &[f64]) -> Estimates {
        let mut estimates = Estimates::new(2);
        for p in scores {
            let row = [1.0 - p, *p];
            estimates.add(usize::from(*p > 0.5), &row, &row);
        }
        estimates
    }

    fn near(got: f64, want: f64) -> bool {
        (got - want).abs() < 1e-9 * want.abs().max(1.0)
    }

    #[test]
    fn the_known_vector_comes_out() {
        let estimates = binary(&[0.9, 0.8, 0.3, 0.6, 0.1]);
        let one = estimates.classes().nth(1).unwrap();
        let got = [one.true_positives, one.false_positives, one.true_negatives, one.false_negatives];
        assert!(got.iter().zip([2.3, 0.7, 1.6, 0.4]).all(|(got, want)| near(*got, want)), "{got:?}");
        let got = [one.precision, one.recall, one.f1, one.auroc.map(|auroc| auroc.value), estimates.accuracy_error()];
        let want = [0.766_67, 0.851_85, 0.807_02, 0.838_16, 0.177_76];
        assert!(got.iter().zip(want).all(|(got, want)| (got.unwrap() - want).abs() < 5e-6), "{got:?}");
        assert!(near(estimates.accuracy().unwrap(), 0.78));
    }

    #[test]
    fn of_no_rows_nothing_is_estimated() {
        let none = Estimates::new(2);
        assert_eq!((none.accuracy(), none.accuracy_error()), (None, None));
        let class = none.classes().next().unwrap();
        assert_eq!((class.precision, class.recall, class.f1, class.auroc), (None, None, None, None));
        assert!(none.fits(2) && !none.fits(3));
    }

    #[test]
    fn many_classes_are_estimated_but_not_ranked() {
        let mut estimates = Estimates::new(MOST_RANKED + 1);
        let row = [1.0 / 65.0; 65];
        estimates.add(64, &row, &row);
        let class = estimates.classes().nth(64).unwrap();
        assert!(class.auroc.is_none() && near(class.precision.unwrap(), 1.0 / 65.0));
        assert!(estimates.fits(MOST_RANKED + 1));
    }

    fn one(is: bool) -> f64 {
        f64::from(u8::from(is))
    }

    fn rows() -> impl Strategy<Value = Vec<([f64; 3], [f64; 3], usize)>> {
        let unit = || proptest::array::uniform3(0.0..=1.0f64);
        proptest::collection::vec((unit(), unit(), 0..3usize), 1..40)
    }

    fn of(rows: &[([f64; 3], [f64; 3], usize)]) -> Estimates {
        let mut estimates = Estimates::new(3);
        rows.iter().for_each(|(scores, chances, predicted)| estimates.add(*predicted, scores, chances));
        estimates
    }

    proptest! {
        #[test]
        fn equal_their_definitions(rows in rows()) {
            let estimates = of(&rows);
            for (k, class) in estimates.classes().enumerate() {
                let sum = |f: fn(f64, bool) -> f64| rows.iter().map(|row| f(row.1[k], row.2 == k)).sum::<f64>();
                let cells = [
                    (class.true_positives, sum(|c, is| c * one(is))),
                    (class.false_positives, sum(|c, is| (1.0 - c) * one(is))),
                    (class.false_negatives, sum(|c, is| c * one(!is))),
                    (class.true_negatives, sum(|c, is| (1.0 - c) * one(!is))),
                ];
                prop_assert!(cells.iter().all(|&(got, want)| near(got, want)), "{:?}", cells);
            }
        }

        /// Every pair of rows, the row and itself included, is one of each kind with the product of their chances.
        #[test]
        fn auroc_is_within_its_error_of_the_one_over_all_pairs(rows in rows()) {
            let pairs = rows.iter().flat_map(|a| rows.iter().map(move |b| (a, b)));
            let (mut right, mut all) = (0.0, 0.0);
            for (a, b) in pairs {
                let weight = a.1[0] * (1.0 - b.1[0]);
                all += weight;
                right += weight * if a.0[0] > b.0[0] { 1.0 } else { 0.5 * one(a.0[0] == b.0[0]) };
            }
            if let Some(auroc) = of(&rows).classes().next().unwrap().auroc {
                prop_assert!((auroc.value - right / all).abs() <= auroc.error + 1e-9, "{auroc:?} {}", right / all);
            }
        }

        #[test]
        fn merge_equals_whole(rows in rows(), at in 0.0..1.0f64) {
            let (left, right) = rows.split_at((rows.len() as f64 * at) as usize);
            let (mut merged, whole) = (of(left), of(&rows));
            merged.merge(&of(right));
            prop_assert!(near(merged.accuracy().unwrap(), whole.accuracy().unwrap()));
            prop_assert!(near(merged.accuracy_error().unwrap(), whole.accuracy_error().unwrap()));
            for (got, want) in merged.classes().zip(whole.classes()) {
                prop_assert_eq!(got.predicted, want.predicted);
                prop_assert!(near(got.false_negatives, want.false_negatives));
                prop_assert_eq!(got.auroc.is_some(), want.auroc.is_some());
                prop_assert!(got.auroc.zip(want.auroc).is_none_or(|(got, want)| near(got.value, want.value)));
            }
        }
    }
}
