//! How far probabilities are from what was right: log-loss, Brier score, and the bias of each class.

use serde::{Deserialize, Serialize};

/// Sums over rows with both a prediction and a label. Probabilities are in [0, 1].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scoring {
    rows: u64,
    single_rows: u64,
    log_loss: f64,
    squares: f64,
    /// Of each class's probability.
    expected: Vec<f64>,
}

impl Scoring {
    /// For `classes` classes.
    pub fn new(classes: usize) -> Scoring {
        Scoring { rows: 0, single_rows: 0, log_loss: 0.0, squares: 0.0, expected: vec![0.0; classes] }
    }

    /// How many classes.
    pub fn classes(&self) -> usize {
        self.expected.len()
    }

    /// Whether it is for `classes` classes: what comes from a file may not be.
    pub fn fits(&self, classes: usize) -> bool {
        self.expected.len() == classes
    }

    /// Any row with a label.
    pub fn add(&mut self, probabilities: &[f64]) {
        self.rows += 1;
        self.expected.iter_mut().zip(probabilities).for_each(|(sum, p)| *sum += p);
    }

    /// Further for a row whose label is the one class `actual`; `epsilon` is that of the probabilities' type before they were widened.
    pub fn add_single(&mut self, probabilities: &[f64], actual: usize, epsilon: f64) {
        let p = probabilities[actual];
        self.single_rows += 1;
        self.log_loss -= p.clamp(epsilon, 1.0 - epsilon).ln();
        let all: f64 = probabilities.iter().map(|p| p * p).sum();
        self.squares += (all - p * p) + (1.0 - p) * (1.0 - p);
    }

    /// As if `other`'s rows had been added too; it has as many classes.
    pub fn merge(&mut self, other: &Scoring) {
        self.rows += other.rows;
        self.single_rows += other.single_rows;
        self.log_loss += other.log_loss;
        self.squares += other.squares;
        self.expected.iter_mut().zip(&other.expected).for_each(|(sum, other)| *sum += other);
    }

    /// Mean of −ln p of what was right, over single-label rows.
    pub fn log_loss(&self) -> Option<f64> {
        mean(self.log_loss, self.single_rows)
    }

    /// Mean of Σₖ (pₖ − yₖ)² over single-label rows; half of it with two classes, where it is (p₁ − y₁)².
    pub fn brier(&self) -> Option<f64> {
        let scale = if self.expected.len() == 2 { 0.5 } else { 1.0 };
        mean(scale * self.squares, self.single_rows)
    }

    /// Mean probability of each class; nothing without rows.
    pub fn mean_probabilities(&self) -> impl Iterator<Item = Option<f64>> + '_ {
        self.expected.iter().map(|sum| mean(*sum, self.rows))
    }
}

fn mean(sum: f64, rows: u64) -> Option<f64> {
    (rows > 0).then(|| sum / rows as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EPSILON: f64 = f64::EPSILON;

    fn of(rows: &[([f64; 3], usize)]) -> Scoring {
        let mut scoring = Scoring::new(3);
        for (row, actual) in rows {
            scoring.add(row);
            scoring.add_single(row, *actual, EPSILON);
        }
        scoring
    }

    #[test]
    fn a_sure_mistake_costs_what_the_type_can_tell_from_0() {
        for epsilon in [f64::EPSILON, f64::from(f32::EPSILON), 0.5f64.powi(10)] {
            let mut scoring = Scoring::new(2);
            scoring.add_single(&[1.0, 0.0], 1, epsilon);
            assert_eq!((scoring.log_loss(), scoring.brier()), (Some(-epsilon.ln()), Some(1.0)));
        }
    }

    #[test]
    fn a_row_of_several_labels_counts_in_the_mean_probabilities_only() {
        let mut scoring = Scoring::new(2);
        scoring.add(&[0.25, 0.75]);
        assert_eq!((scoring.log_loss(), scoring.brier()), (None, None));
        assert!(scoring.mean_probabilities().eq([Some(0.25), Some(0.75)]));
        assert!(Scoring::new(1).mean_probabilities().eq([None]));
    }

    proptest! {
        #[test]
        fn equal_their_definitions(rows in proptest::collection::vec((proptest::array::uniform3(0.0..=1.0f64), 0..3usize), 1..40)) {
            let scoring = of(&rows);
            let n = rows.len() as f64;
            let log_loss = rows.iter().map(|(p, y)| -p[*y].clamp(EPSILON, 1.0 - EPSILON).ln()).sum::<f64>() / n;
            let square = |p: f64, is: bool| (p - f64::from(u8::from(is))).powi(2);
            let brier = rows.iter().flat_map(|(p, y)| (0..3).map(move |k| square(p[k], k == *y))).sum::<f64>() / n;
            prop_assert!((scoring.log_loss().unwrap() - log_loss).abs() < 1e-12);
            prop_assert!((scoring.brier().unwrap() - brier).abs() < 1e-12);
        }

        #[test]
        fn merge_equals_whole(
            rows in proptest::collection::vec((proptest::array::uniform3(0.0..=1.0f64), 0..3usize), 2..40), at in 0.0..1.0f64,
        ) {
            let (left, right) = rows.split_at((rows.len() as f64 * at) as usize);
            let (mut merged, whole) = (of(left), of(&rows));
            merged.merge(&of(right));
            prop_assert!((merged.log_loss().unwrap() - whole.log_loss().unwrap()).abs() < 1e-12);
            prop_assert!((merged.brier().unwrap() - whole.brier().unwrap()).abs() < 1e-12);
            let gap = |(a, b): (Option<f64>, Option<f64>)| (a.unwrap() - b.unwrap()).abs();
            prop_assert!(merged.mean_probabilities().zip(whole.mean_probabilities()).map(gap).all(|gap| gap < 1e-12));
        }
    }
}
