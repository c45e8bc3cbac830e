//! Errors of a regression's output against its targets: mean, absolute, squared and relative error, and R².

use serde::{Deserialize, Serialize};

/// Sums over the rows with a finite prediction and a finite target. Sums that exceed f64 say so: they are infinite or NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    /// Rows compared.
    pub n: u64,
    /// Rows without a target: NaN.
    pub missing: u64,
    /// Rows with a target whose prediction is not finite, or whose target is infinite.
    pub invalid: u64,
    /// Rows compared whose target is 0: they have no relative error.
    pub zero_targets: u64,
    sum: f64,
    absolute: f64,
    squares: f64,
    relative: f64,
    /// Of the targets: mean and sum of squared distances from it (Welford).
    mean: f64,
    m2: f64,
}

impl Errors {
    /// A row.
    pub fn add(&mut self, prediction: f64, target: f64) {
        if target.is_nan() {
            self.missing += 1;
        } else if !(target.is_finite() && prediction.is_finite()) {
            self.invalid += 1;
        } else {
            self.compare(prediction, target);
        }
    }

    fn compare(&mut self, prediction: f64, target: f64) {
        let error = prediction - target;
        self.n += 1;
        self.sum += error;
        self.absolute += error.abs();
        self.squares += error * error;
        if target == 0.0 {
            self.zero_targets += 1;
        } else {
            self.relative += (error / target).abs();
        }
        let distance = target - self.mean;
        self.mean += distance / self.n as f64;
        self.m2 += distance * (target - self.mean);
    }

    /// As if `other`'s rows had been added too (Chan).
    pub fn merge(&mut self, other: &Errors) {
        let n = self.n + other.n;
        if other.n > 0 {
            let delta = other.mean - self.mean;
            let share = other.n as f64 / n as f64;
            self.mean += delta * share;
            self.m2 += other.m2 + delta * delta * self.n as f64 * share;
        }
        self.n = n;
        self.missing += other.missing;
        self.invalid += other.invalid;
        self.zero_targets += other.zero_targets;
        self.sum += other.sum;
        self.absolute += other.absolute;
        self.squares += other.squares;
        self.relative += other.relative;
    }

    /// ME: prediction − target.
    pub fn mean_error(&self) -> Option<f64> {
        mean(self.sum, self.n)
    }

    /// MAE.
    pub fn mean_absolute_error(&self) -> Option<f64> {
        mean(self.absolute, self.n)
    }

    /// RMSE.
    pub fn root_mean_square_error(&self) -> Option<f64> {
        mean(self.squares, self.n).map(f64::sqrt)
    }

    /// R²: 1 − Σ(prediction − target)²/Σ(target − mean)². Undefined unless targets differ.
    pub fn r2(&self) -> Option<f64> {
        (self.m2 != 0.0).then(|| 1.0 - self.squares / self.m2)
    }

    /// MAPE: mean of |error/target| over the targets other than 0. Undefined without any.
    pub fn mean_absolute_percentage_error(&self) -> Option<f64> {
        mean(self.relative, self.n - self.zero_targets)
    }
}

fn mean(sum: f64, n: u64) -> Option<f64> {
    (n > 0).then(|| sum / n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(rows: &[(f64, f64)]) -> Errors {
        let mut errors = Errors::default();
        rows.iter().for_each(|&(prediction, target)| errors.add(prediction, target));
        errors
    }

    /// In two passes.
    fn naive_r2(rows: &[(f64, f64)]) -> f64 {
        let mean = rows.iter().map(|row| row.1).sum::<f64>() / rows.len() as f64;
        let squares = |f: &dyn Fn(&(f64, f64)) -> f64| rows.iter().map(|row| f(row).powi(2)).sum::<f64>();
        1.0 - squares(&|row| row.0 - row.1) / squares(&|row| row.1 - mean)
    }

    fn close(got: Option<f64>, want: f64) -> bool {
        got.is_some_and(|got| (got - want).abs() <= 1e-9 * want.abs().max(1.0))
    }

    #[test]
    fn rows_that_cannot_be_compared_are_counted_and_change_nothing() {
        let sound = [(1.0, 2.0), (3.0, 0.0), (5.0, 4.0)];
        let nan = f64::NAN;
        let others = [(1.0, nan), (nan, nan), (nan, 1.0), (f64::INFINITY, 1.0), (1.0, f64::NEG_INFINITY)];
        let errors = of(&[&sound[..], &others[..]].concat());
        assert_eq!((errors.n, errors.missing, errors.invalid, errors.zero_targets), (3, 2, 3, 1));
        let counted = Errors { missing: 2, invalid: 3, ..of(&sound) };
        assert_eq!(errors, counted);
        assert_eq!((errors.mean_error(), errors.mean_absolute_percentage_error()), (Some(1.0), Some(0.375)));
    }

    #[test]
    fn undefined_is_none() {
        let none = Errors::default();
        assert_eq!((none.mean_error(), none.root_mean_square_error(), none.r2()), (None, None, None));
        assert_eq!(of(&[(1.0, 2.0), (3.0, 2.0)]).r2(), None, "targets that do not differ");
        assert_eq!(of(&[(1.0, 0.0)]).mean_absolute_percentage_error(), None);
    }

    #[test]
    fn sums_that_exceed_f64_are_not_finite() {
        let errors = of(&[(1e308, -1e308), (1e200, 1.0), (-1e308, 1e308)]);
        assert!(!errors.root_mean_square_error().unwrap().is_finite() && !errors.r2().unwrap().is_finite());
        assert!(!errors.mean_error().unwrap().is_finite());
    }

    #[test]
    fn targets_far_from_0_keep_their_digits() {
        let noise = |i: u32, by: f64| (f64::from(i) * by).fract() - 0.5;
        let rows: Vec<_> =
            (0..20_000).map(|i| (1e6 + 1e-2 * noise(i, 0.754_877), 1e6 + 1e-2 * noise(i, 0.569_840))).collect();
        assert!(close(of(&rows).r2(), naive_r2(&rows)), "{:?} {}", of(&rows).r2(), naive_r2(&rows));
    }

    proptest! {
        #[test]
        fn equal_their_definitions(rows in proptest::collection::vec((-9.0..9.0f64, -9.0..9.0f64), 2..60)) {
            let errors = of(&rows);
            let mean = |f: fn(f64, f64) -> f64| rows.iter().map(|&(p, t)| f(p, t)).sum::<f64>() / rows.len() as f64;
            prop_assert!(close(errors.mean_error(), mean(|p, t| p - t)));
            prop_assert!(close(errors.mean_absolute_error(), mean(|p, t| (p - t).abs())));
            prop_assert!(close(errors.root_mean_square_error(), mean(|p, t| (p - t).powi(2)).sqrt()));
            prop_assert!(close(errors.mean_absolute_percentage_error(), mean(|p, t| ((p - t) / t).abs())));
            prop_assert!(close(errors.r2(), naive_r2(&rows)));
        }

        #[test]
        fn merge_equals_whole(rows in proptest::collection::vec((-9.0..9.0f64, -9.0..9.0f64), 2..60), at in 0.0..1.0f64) {
            let (left, right) = rows.split_at((rows.len() as f64 * at) as usize);
            let (mut merged, whole) = (of(left), of(&rows));
            merged.merge(&of(right));
            prop_assert_eq!((merged.n, merged.zero_targets), (whole.n, whole.zero_targets));
            prop_assert!(close(merged.r2(), whole.r2().unwrap()));
            prop_assert!(close(merged.root_mean_square_error(), whole.root_mean_square_error().unwrap()));
        }
    }
}
