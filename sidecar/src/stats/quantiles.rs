//! Quantiles of a sample, type 7 of Hyndman and Fan (Sample Quantiles in Statistical Packages, 1996), as numpy's default:
//! exact for the sample; against all rows the 95 % rank error of a k-row reservoir is ±1.36/√k (Dvoretzky–Kiefer–Wolfowitz).

/// The quantiles a report gives of every column.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "named by their hundredths")]
pub struct Quantiles {
    pub q01: f64,
    pub q05: f64,
    pub q25: f64,
    pub q50: f64,
    pub q75: f64,
    pub q95: f64,
    pub q99: f64,
}

impl Quantiles {
    /// Of finite values in any order; `None` of none. Sorts in place.
    pub fn of(values: &mut [f64]) -> Option<Quantiles> {
        values.sort_unstable_by(f64::total_cmp);
        let q = |at| quantile_sorted(values, at);
        Some(Quantiles {
            q01: q(0.01)?,
            q05: q(0.05)?,
            q25: q(0.25)?,
            q50: q(0.5)?,
            q75: q(0.75)?,
            q95: q(0.95)?,
            q99: q(0.99)?,
        })
    }
}

/// The `q` quantile, q in [0, 1], of ascending finite values; `None` of none.
pub fn quantile_sorted(ascending: &[f64], q: f64) -> Option<f64> {
    let position = q * ascending.len().checked_sub(1)? as f64;
    let (below, share) = (position.floor(), position.fract());
    let low = ascending[below as usize];
    let high = ascending[position.ceil() as usize];
    // Halves, because high − low overflows for values near the largest f64.
    // And + 0, which makes 0 of −0.
    Some(if low == high { low + 0.0 } else { low + 2.0 * (share * (high / 2.0 - low / 2.0)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpolate_linearly_between_order_statistics() {
        let values = [1.0, 2.0, 3.0, 10.0];
        assert_eq!(quantile_sorted(&values, 0.0), Some(1.0));
        assert_eq!(quantile_sorted(&values, 1.0), Some(10.0));
        assert_eq!(quantile_sorted(&values, 0.5), Some(2.5));
        assert_eq!(quantile_sorted(&values, 0.25), Some(1.75));
        assert_eq!(quantile_sorted(&values, 0.75), Some(4.75));
        assert_eq!(quantile_sorted(&[], 0.5), None);
        assert!(quantile_sorted(&[-0.0; 3], 0.5).is_some_and(|zero| zero == 0.0 && zero.is_sign_positive()));
        assert_eq!(quantile_sorted(&[-f64::MAX, f64::MAX], 0.5), Some(0.0));
    }

    #[test]
    fn of_one_value_are_that_value() {
        let q = Quantiles::of(&mut [7.0]).unwrap();
        assert_eq!((q.q01, q.q50, q.q99), (7.0, 7.0, 7.0));
    }
}
