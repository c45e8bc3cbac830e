//! Predictions against labels, one class against the rest.
//!
//! Per class: TP, predicted and actual counts; the rest of the 2×2 table follows from the number of rows.
//! A 0/0 is undefined (`None`), not 0.

use serde::{Deserialize, Serialize};

/// Counts over the rows that had both a prediction and a label.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcomes {
    rows: u64,
    single_rows: u64,
    correct: u64,
    classes: Vec<Counts>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Counts {
    hits: u64,
    predicted: u64,
    actual: u64,
}

/// What a class's counts say. All in [0, 1] where defined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassOutcomes {
    /// Rows whose label holds this class.
    pub support: u64,
    /// (TP + TN) / rows; undefined without rows.
    pub accuracy: Option<f64>,
    /// TP / predicted; undefined if the class was never predicted.
    pub precision: Option<f64>,
    /// TP / support; undefined without support.
    pub recall: Option<f64>,
    /// 2 TP / (predicted + support); undefined if both are 0.
    pub f1: Option<f64>,
}

impl Outcomes {
    /// For `classes` classes.
    pub fn new(classes: usize) -> Outcomes {
        Outcomes { rows: 0, single_rows: 0, correct: 0, classes: vec![Counts::default(); classes] }
    }

    /// Whether it is for `classes` classes: what comes from a file may not be.
    pub fn fits(&self, classes: usize) -> bool {
        self.classes.len() == classes
    }

    /// A row predicted as `predicted` whose label is the class `actual`; both below the number of classes.
    pub fn add(&mut self, predicted: usize, actual: usize) {
        self.rows += 1;
        self.single_rows += 1;
        self.correct += u64::from(predicted == actual);
        self.classes[predicted].predicted += 1;
        self.classes[actual].actual += 1;
        self.classes[predicted].hits += u64::from(predicted == actual);
    }

    /// A row with several classes or none: `actual[k]` tells whether class k applies. Not part of the overall accuracy.
    pub fn add_set(&mut self, predicted: usize, actual: impl Iterator<Item = bool>) {
        self.rows += 1;
        self.classes[predicted].predicted += 1;
        for (class, applies) in actual.enumerate() {
            self.classes[class].actual += u64::from(applies);
            self.classes[class].hits += u64::from(applies && class == predicted);
        }
    }

    /// Rows with both a prediction and a label.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows whose label is exactly one class.
    pub fn single_rows(&self) -> u64 {
        self.single_rows
    }

    /// Share of single-label rows predicted right.
    pub fn accuracy(&self) -> Option<f64> {
        ratio(self.correct, self.single_rows)
    }

    /// Every class, in order.
    pub fn classes(&self) -> impl Iterator<Item = ClassOutcomes> + '_ {
        self.classes.iter().map(|c| ClassOutcomes {
            support: c.actual,
            accuracy: ratio(self.rows + 2 * c.hits - c.predicted - c.actual, self.rows),
            precision: ratio(c.hits, c.predicted),
            recall: ratio(c.hits, c.actual),
            f1: ratio(2 * c.hits, c.predicted + c.actual),
        })
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn zero_over_zero_is_undefined() {
        let mut outcomes = Outcomes::new(3);
        assert_eq!(outcomes.accuracy(), None);
        outcomes.add(0, 1);
        let classes: Vec<_> = outcomes.classes().collect();
        assert_eq!(classes[0].precision, Some(0.0));
        assert_eq!((classes[1].precision, classes[1].recall), (None, Some(0.0)));
        assert_eq!((classes[2].accuracy, classes[2].f1), (Some(1.0), None));
    }

    proptest! {
        #[test]
        fn equal_the_two_by_two_table(rows in proptest::collection::vec((0..4usize, 0..4usize), 1..60)) {
            let mut outcomes = Outcomes::new(4);
            rows.iter().for_each(|&(predicted, actual)| outcomes.add(predicted, actual));
            for (k, class) in outcomes.classes().enumerate() {
                let count = |p: bool, a: bool| rows.iter().filter(|r| (r.0 == k) == p && (r.1 == k) == a).count() as f64;
                let (tp, fp, fn_, tn) = (count(true, true), count(true, false), count(false, true), count(false, false));
                prop_assert_eq!(class.accuracy, Some((tp + tn) / rows.len() as f64));
                prop_assert_eq!(class.precision, (tp + fp > 0.0).then(|| tp / (tp + fp)));
                prop_assert_eq!(class.recall, (tp + fn_ > 0.0).then(|| tp / (tp + fn_)));
                prop_assert_eq!(class.f1, (tp + fp + fn_ > 0.0).then(|| 2.0 * tp / (2.0 * tp + fp + fn_)));
            }
        }

        #[test]
        fn a_one_hot_set_counts_as_its_class(rows in proptest::collection::vec((0..3usize, 0..3usize), 1..40)) {
            let (mut by_class, mut by_set) = (Outcomes::new(3), Outcomes::new(3));
            for &(predicted, actual) in &rows {
                by_class.add(predicted, actual);
                by_set.add_set(predicted, (0..3).map(|k| k == actual));
            }
            prop_assert!(by_class.classes().eq(by_set.classes()));
        }
    }
}
