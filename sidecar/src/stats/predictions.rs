//! What one row of probabilities says: class, confidence, margin.
//!
//! Class: the first of the largest; with two classes 1 if p₁ > threshold, else 0. Confidence: the largest probability.
//! Margin: largest minus second largest, counted with multiplicity, so a tie at the top gives 0.

/// A row whose largest probability is below it says little.
pub const LOW_CONFIDENCE: f64 = 0.6;

/// A row of finite probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Index of the predicted class.
    pub class: usize,
    /// The largest probability.
    pub confidence: f64,
    /// Largest minus second largest; with one column the probability itself.
    pub margin: f64,
    /// The largest probability stands more than once.
    pub tie: bool,
    /// Some probability is below 0 or above 1.
    pub out_of_range: bool,
    /// Sum of the row.
    pub sum: f64,
}

/// What is wrong with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It holds NaN, and has no prediction.
    Nan,
    /// It holds ±∞ and no NaN, and has no prediction.
    Inf,
    /// Some probability is below 0 or above 1.
    OutOfRange,
    /// It does not sum to 1.
    NotNormalised,
}

/// Classifies one row. `threshold` counts with two classes only.
#[inline]
pub fn classify(row: impl Iterator<Item = f64>, threshold: f64) -> Result<Prediction, Flaw> {
    let (mut first, mut second) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    let (mut class, mut columns, mut last) = (0, 0, 0.0);
    let (mut sum, mut least) = (0.0, f64::INFINITY);
    let mut nan = false;
    for (column, p) in row.enumerate() {
        nan |= p.is_nan();
        if p > first {
            (second, first, class) = (first, p, column);
        } else if p > second {
            second = p;
        }
        least = if p < least { p } else { least };
        sum += p;
        last = p;
        columns = column + 1;
    }
    if nan {
        return Err(Flaw::Nan);
    }
    // first or least is infinite, or every p is finite; the sum may overflow without either.
    if !first.is_finite() || !least.is_finite() {
        return Err(Flaw::Inf);
    }
    if columns == 2 {
        class = usize::from(last > threshold);
    }
    Ok(Prediction {
        class,
        confidence: first,
        margin: if columns == 1 { first } else { first - second },
        tie: columns > 1 && first == second,
        out_of_range: least < 0.0 || first > 1.0,
        sum,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(row: &[f64]) -> Result<Prediction, Flaw> {
        classify(row.iter().copied(), 0.5)
    }

    #[test]
    fn a_tie_goes_to_the_first_class_with_margin_zero() {
        let p = of(&[0.4, 0.4, 0.2]).unwrap();
        assert_eq!((p.class, p.margin, p.tie), (0, 0.0, true));
        let p = of(&[1.0 / 3.0; 3]).unwrap();
        assert_eq!((p.class, p.margin, p.tie), (0, 0.0, true));
    }

    #[test]
    fn the_threshold_is_strict_and_for_two_classes_only() {
        let class = |row: &[f64], threshold| classify(row.iter().copied(), threshold).unwrap().class;
        assert_eq!(class(&[0.7, 0.3], 0.3), 0);
        assert_eq!(class(&[0.7, f64::from(0.3f32)], 0.3), 1);
        assert_eq!(class(&[0.5, 0.3, 0.2], 0.9), 0);
    }

    #[test]
    fn a_row_with_nan_or_infinity_has_no_class() {
        assert_eq!(of(&[0.1, f64::NAN, f64::INFINITY]), Err(Flaw::Nan));
        assert_eq!(of(&[0.1, f64::INFINITY]), Err(Flaw::Inf));
        assert_eq!(of(&[0.1, f64::NEG_INFINITY, 0.3]), Err(Flaw::Inf));
    }

    proptest! {
        #[test]
        fn equals_sorting_the_row(row in proptest::collection::vec((0..20u8).prop_map(|x| f64::from(x) / 10.0 - 0.5), 3..12)) {
            let mut sorted = row.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let got = of(&row).unwrap();
            prop_assert_eq!(got.class, row.iter().position(|p| *p == sorted[0]).unwrap());
            prop_assert_eq!(got.confidence, sorted[0]);
            prop_assert_eq!(got.margin, sorted[0] - sorted[1]);
            prop_assert_eq!(got.out_of_range, row.iter().any(|p| !(0.0..=1.0).contains(p)));
        }
    }
}
