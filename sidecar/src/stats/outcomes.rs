//! Predictions against labels: which class was taken for which, and one class against the rest.
//!
//! Per class: TP, predicted and actual counts; the rest of the 2×2 table follows from the number of rows. Of few classes the whole
//! confusion matrix is kept as well. A 0/0 is undefined (`None`), not 0.

use super::Proportion;
use serde::{Deserialize, Serialize};

/// Of more classes there is no confusion matrix: 64 × 64 counts take 32 KiB.
pub const MOST_CONFUSED: usize = 64;
/// Where more than one row in so many has several labels, labels are sets; fewer are taken for faults.
const SETS_ONE_IN: u64 = 100;

/// Counts over the rows that had both a prediction and a label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcomes {
    rows: u64,
    single_rows: u64,
    several_rows: u64,
    correct: u64,
    classes: Vec<Counts>,
    /// Single-label rows, actual × predicted; empty with more than [`MOST_CONFUSED`] classes.
    confusion: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Counts {
    hits: u64,
    predicted: u64,
    actual: u64,
}

/// What a class's counts say, it against the rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassOutcomes {
    /// Rows whose label holds this class.
    pub support: u64,
    /// Rows predicted as this class.
    pub predicted: u64,
    /// support / rows; undefined without rows.
    pub share: Option<Proportion>,
    /// (TP + TN) / rows; undefined without rows.
    pub accuracy: Option<Proportion>,
    /// TP / predicted; undefined if the class was never predicted.
    pub precision: Option<Proportion>,
    /// TP / support; undefined without support.
    pub recall: Option<Proportion>,
    /// TN / (rows − support); undefined if every row has the class.
    pub specificity: Option<Proportion>,
    /// 2 TP / (predicted + support) in [0, 1]; undefined if both are 0. It is no share of independent rows, and has no interval.
    pub f1: Option<f64>,
}

/// Rows of a single label.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Single {
    /// How many.
    pub rows: u64,
    /// Of these, predicted right.
    pub correct: u64,
}

/// Means over the classes that have a value; undefined if none has.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "named by themselves")]
pub struct Averages {
    pub precision: Option<f64>,
    pub recall: Option<f64>,
    pub f1: Option<f64>,
}

impl Outcomes {
    /// For `classes` classes.
    pub fn new(classes: usize) -> Outcomes {
        let cells = if classes <= MOST_CONFUSED { classes * classes } else { 0 };
        Outcomes {
            rows: 0,
            single_rows: 0,
            several_rows: 0,
            correct: 0,
            classes: vec![Counts::default(); classes],
            confusion: vec![0; cells],
        }
    }

    /// Whether it is for `classes` classes: what comes from a file may not be.
    pub fn fits(&self, classes: usize) -> bool {
        let new = Outcomes::new(classes);
        self.classes.len() == new.classes.len() && self.confusion.len() == new.confusion.len()
    }

    /// A row predicted as `predicted` whose label is the class `actual`; both below the number of classes.
    pub fn add(&mut self, predicted: usize, actual: usize) {
        self.rows += 1;
        self.classes[predicted].predicted += 1;
        self.classes[actual].actual += 1;
        self.classes[predicted].hits += u64::from(predicted == actual);
        self.add_single(predicted, actual);
    }

    /// A row whose label is a set: `applies[k]` tells whether class k is in it. A set of several classes or none is not part of the
    /// overall accuracy or the confusion matrix.
    pub fn add_set(&mut self, predicted: usize, applies: &[bool]) {
        self.rows += 1;
        self.classes[predicted].predicted += 1;
        for (class, _) in applies.iter().enumerate().filter(|(_, applies)| **applies) {
            self.classes[class].actual += 1;
            self.classes[class].hits += u64::from(class == predicted);
        }
        match sole(applies) {
            Some(actual) => self.add_single(predicted, actual),
            None => self.several_rows += u64::from(applies.contains(&true)),
        }
    }

    fn add_single(&mut self, predicted: usize, actual: usize) {
        self.single_rows += 1;
        self.correct += u64::from(predicted == actual);
        if let Some(cell) = self.confusion.get_mut(actual * self.classes.len() + predicted) {
            *cell += 1;
        }
    }

    /// As if `other`'s rows had been added too; it has as many classes.
    pub fn merge(&mut self, other: &Outcomes) {
        self.rows += other.rows;
        self.single_rows += other.single_rows;
        self.several_rows += other.several_rows;
        self.correct += other.correct;
        for (counts, other) in self.classes.iter_mut().zip(&other.classes) {
            counts.hits += other.hits;
            counts.predicted += other.predicted;
            counts.actual += other.actual;
        }
        self.confusion.iter_mut().zip(&other.confusion).for_each(|(cell, other)| *cell += other);
    }

    /// Rows with both a prediction and a label.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows whose label is exactly one class.
    pub fn single_rows(&self) -> u64 {
        self.single_rows
    }

    /// Of these, rows predicted right.
    pub fn correct(&self) -> u64 {
        self.correct
    }

    /// Rows whose label is several classes.
    pub fn several_rows(&self) -> u64 {
        self.several_rows
    }

    /// Whether labels are sets.
    pub fn is_multi_label(&self) -> bool {
        is_multi_label(self.several_rows, self.rows)
    }

    /// The rows of a single label where they stand for the others: none where labels are sets.
    pub fn single(&self) -> Single {
        if self.is_multi_label() {
            return Single::default();
        }
        Single { rows: self.single_rows, correct: self.correct }
    }

    /// Share of single-label rows predicted right; undefined where labels are sets.
    pub fn accuracy(&self) -> Option<Proportion> {
        let Single { rows, correct } = self.single();
        Proportion::of(correct, rows)
    }

    /// A row for each actual class, in it a count for each predicted one; `None` with more than [`MOST_CONFUSED`] classes.
    pub fn confusion(&self) -> Option<impl Iterator<Item = &[u64]>> {
        (self.classes.len() <= MOST_CONFUSED).then(|| self.confusion.chunks_exact(self.classes.len().max(1)))
    }

    /// Every class, in order.
    pub fn classes(&self) -> impl Iterator<Item = ClassOutcomes> + '_ {
        self.classes.iter().map(|c| {
            let neither = self.rows + c.hits - c.predicted - c.actual;
            ClassOutcomes {
                support: c.actual,
                predicted: c.predicted,
                share: Proportion::of(c.actual, self.rows),
                accuracy: Proportion::of(c.hits + neither, self.rows),
                precision: Proportion::of(c.hits, c.predicted),
                recall: Proportion::of(c.hits, c.actual),
                specificity: Proportion::of(neither, self.rows - c.actual),
                f1: (c.predicted + c.actual > 0).then(|| 2.0 * c.hits as f64 / (c.predicted + c.actual) as f64),
            }
        })
    }

    /// Every class weighs the same.
    pub fn macro_averages(&self) -> Averages {
        self.averages(|_| 1.0)
    }

    /// Every class weighs as many rows as it has.
    pub fn weighted_averages(&self) -> Averages {
        self.averages(|class| class.support as f64)
    }

    fn averages(&self, weight: impl Fn(&ClassOutcomes) -> f64) -> Averages {
        let mean = |value: fn(&ClassOutcomes) -> Option<f64>| {
            let defined = self.classes().filter_map(|class| Some((value(&class)?, weight(&class))));
            let (sum, weights) = defined.fold((0.0, 0.0), |(sum, weights), (x, w)| (sum + w * x, weights + w));
            (weights > 0.0).then(|| sum / weights)
        };
        Averages {
            precision: mean(|class| Some(class.precision?.value)),
            recall: mean(|class| Some(class.recall?.value)),
            f1: mean(|class| class.f1),
        }
    }

    /// Matthews correlation of predicted and actual class: 1 all right, 0 no better than chance. Undefined unless both vary, and
    /// where some label is not a single class.
    ///
    /// Gorodkin, *Comparing two K-category assignments by a K-category correlation coefficient*, 2004.
    pub fn matthews(&self) -> Option<f64> {
        if self.single_rows != self.rows {
            return None;
        }
        let sum = |term: fn(&Counts) -> u128| self.classes.iter().map(term).sum::<u128>();
        let rows = u128::from(self.rows);
        let agreeing = rows * u128::from(self.correct);
        let by_chance = sum(|c| u128::from(c.predicted) * u128::from(c.actual));
        let predicted = rows * rows - sum(|c| u128::from(c.predicted).pow(2));
        let actual = rows * rows - sum(|c| u128::from(c.actual).pow(2));
        let difference = agreeing.abs_diff(by_chance) as f64 * if agreeing < by_chance { -1.0 } else { 1.0 };
        let spread = (predicted as f64).sqrt() * (actual as f64).sqrt();
        (spread > 0.0).then(|| difference / spread)
    }
}

/// Whether labels are sets, of `several_rows` rows with several labels among `rows` with any.
///
/// Rows of a single label are then no fair sample of the others: the fewer labels apply, the fewer rows are right by chance.
pub fn is_multi_label(several_rows: u64, rows: u64) -> bool {
    several_rows.saturating_mul(SETS_ONE_IN) > rows
}

/// The class in a set of exactly one.
pub fn sole(applies: &[bool]) -> Option<usize> {
    let mut classes = applies.iter().enumerate().filter(|(_, applies)| **applies).map(|(class, _)| class);
    classes.next().filter(|_| classes.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(rows: &[(usize, usize)], classes: usize) -> Outcomes {
        let mut outcomes = Outcomes::new(classes);
        rows.iter().for_each(|&(predicted, actual)| outcomes.add(predicted, actual));
        outcomes
    }

    fn value(proportion: Option<Proportion>) -> Option<f64> {
        proportion.map(|p| p.value)
    }

    #[test]
    fn zero_over_zero_is_undefined() {
        assert_eq!(Outcomes::new(3).accuracy(), None);
        let outcomes = of(&[(0, 1)], 3);
        let classes: Vec<_> = outcomes.classes().collect();
        assert_eq!(value(classes[0].precision), Some(0.0));
        assert_eq!((value(classes[1].precision), value(classes[1].recall)), (None, Some(0.0)));
        assert_eq!((value(classes[2].accuracy), classes[2].f1), (Some(1.0), None));
        assert_eq!(classes[1].specificity, None);
        assert_eq!(outcomes.matthews(), None);
    }

    #[test]
    fn averages_leave_undefined_classes_out() {
        // Class 2 is neither predicted nor there; class 1 is never predicted.
        let outcomes = of(&[(0, 0), (0, 0), (0, 1)], 3);
        let of_macro = Averages { precision: Some(2.0 / 3.0), recall: Some(0.5), f1: Some(0.4) };
        assert_eq!(outcomes.macro_averages(), of_macro);
        let weighted = outcomes.weighted_averages();
        assert_eq!((weighted.precision, weighted.recall), (Some(2.0 / 3.0), Some(2.0 / 3.0)));
        assert_eq!(Outcomes::new(3).macro_averages(), Averages { precision: None, recall: None, f1: None });
    }

    #[test]
    fn confusion_is_kept_for_few_classes_only() {
        let outcomes = of(&[(0, 1), (1, 1), (0, 1)], 2);
        assert_eq!(outcomes.confusion().unwrap().collect::<Vec<_>>(), [[0, 0], [2, 1]]);
        let many = of(&[(64, 0), (64, 64)], MOST_CONFUSED + 1);
        assert!(many.confusion().is_none());
        assert_eq!(value(many.accuracy()), Some(0.5));
        assert!(many.fits(65) && !many.fits(64));
    }

    #[test]
    fn a_set_of_none_or_several_is_scored_one_against_the_rest_only() {
        let mut outcomes = Outcomes::new(3);
        outcomes.add_set(0, &[true, false, true]);
        outcomes.add_set(1, &[false; 3]);
        assert_eq!((outcomes.rows(), outcomes.single_rows(), outcomes.accuracy()), (2, 0, None));
        assert_eq!(outcomes.classes().map(|c| c.support).collect::<Vec<_>>(), [1, 0, 1]);
        assert_eq!(outcomes.matthews(), None);
    }

    #[test]
    fn rows_of_one_label_stand_for_the_others_unless_more_than_one_in_a_hundred_has_several() {
        let with_several = |several: usize| {
            let mut outcomes = of(&[(0, 0), (0, 1)].repeat((200 - several) / 2), 2);
            (0..several).for_each(|_| outcomes.add_set(0, &[true; 2]));
            outcomes
        };
        let few = with_several(2);
        assert_eq!((few.rows(), few.several_rows(), few.single()), (200, 2, Single { rows: 198, correct: 99 }));
        assert_eq!(value(few.accuracy()), Some(0.5));
        let many = with_several(4);
        assert_eq!((many.is_multi_label(), many.single(), many.accuracy()), (true, Single::default(), None));
        assert_eq!((many.single_rows(), many.correct()), (196, 98));
        let (mut merged, mut none) = (few, Outcomes::new(2));
        merged.merge(&many);
        assert_eq!((merged.several_rows(), merged.is_multi_label()), (6, true));
        (0..9).for_each(|_| none.add_set(0, &[false; 2]));
        assert_eq!((none.is_multi_label(), none.accuracy()), (false, None), "no label is not several");
    }

    /// Pearson's correlation of the one-hot encodings: covariances summed over the classes.
    fn matthews_by_covariance(rows: &[(usize, usize)], classes: usize) -> Option<f64> {
        let n = rows.len() as f64;
        let one = |is: bool| f64::from(u8::from(is));
        let covariance = |a: &dyn Fn(&(usize, usize), usize) -> f64, b: &dyn Fn(&(usize, usize), usize) -> f64| {
            (0..classes)
                .map(|k| {
                    let mean =
                        |f: &dyn Fn(&(usize, usize), usize) -> f64| rows.iter().map(|r| f(r, k)).sum::<f64>() / n;
                    let (a0, b0) = (mean(a), mean(b));
                    rows.iter().map(|r| (a(r, k) - a0) * (b(r, k) - b0)).sum::<f64>()
                })
                .sum::<f64>()
        };
        let predicted = |r: &(usize, usize), k: usize| one(r.0 == k);
        let actual = |r: &(usize, usize), k: usize| one(r.1 == k);
        let spread = (covariance(&predicted, &predicted) * covariance(&actual, &actual)).sqrt();
        (spread > 1e-9).then(|| covariance(&predicted, &actual) / spread)
    }

    proptest! {
        #[test]
        fn equal_the_two_by_two_table(rows in proptest::collection::vec((0..4usize, 0..4usize), 1..60)) {
            let outcomes = of(&rows, 4);
            for (k, class) in outcomes.classes().enumerate() {
                let count = |p: bool, a: bool| rows.iter().filter(|r| (r.0 == k) == p && (r.1 == k) == a).count() as f64;
                let (tp, fp, fn_, tn) = (count(true, true), count(true, false), count(false, true), count(false, false));
                let ratio = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
                prop_assert_eq!(value(class.share), ratio(tp + fn_, rows.len() as f64));
                prop_assert_eq!(value(class.accuracy), ratio(tp + tn, rows.len() as f64));
                prop_assert_eq!(value(class.precision), ratio(tp, tp + fp));
                prop_assert_eq!(value(class.recall), ratio(tp, tp + fn_));
                prop_assert_eq!(value(class.specificity), ratio(tn, tn + fp));
                prop_assert_eq!(class.f1, ratio(2.0 * tp, 2.0 * tp + fp + fn_));
            }
        }

        #[test]
        fn matthews_is_the_correlation_of_the_one_hot_encodings(
            rows in proptest::collection::vec((0..4usize, 0..4usize), 1..60),
        ) {
            match (of(&rows, 4).matthews(), matthews_by_covariance(&rows, 4)) {
                (Some(got), Some(want)) => prop_assert!((got - want).abs() < 1e-12, "{got} {want}"),
                (got, want) => prop_assert_eq!(got, want),
            }
        }

        #[test]
        fn a_one_hot_set_counts_as_its_class(rows in proptest::collection::vec((0..3usize, 0..3usize), 1..40)) {
            let mut by_set = Outcomes::new(3);
            rows.iter().for_each(|&(predicted, actual)| by_set.add_set(predicted, &[0, 1, 2].map(|k| k == actual)));
            prop_assert_eq!(of(&rows, 3), by_set);
        }

        #[test]
        fn merge_equals_whole(rows in proptest::collection::vec((0..3usize, 0..3usize), 0..40), at in 0.0..1.0f64) {
            let (left, right) = rows.split_at((rows.len() as f64 * at) as usize);
            let mut merged = of(left, 3);
            merged.merge(&of(right, 3));
            prop_assert_eq!(merged, of(&rows, 3));
        }
    }
}
