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

/// Which quantiles these are.
const SHARES: [f64; 7] = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99];

impl Quantiles {
    /// Of finite values in any order; `None` of none. Sorts in place.
    pub fn of(values: &mut [f64]) -> Option<Quantiles> {
        values.sort_unstable_by(f64::total_cmp);
        Quantiles::of_ascending(values)
    }

    /// Of finite values that ascend; `None` of none.
    pub fn of_ascending(values: &[f64]) -> Option<Quantiles> {
        Quantiles::by_rank(values.len(), |rank| values[rank])
    }

    /// Of `n` values, of which `value` says those that have the [`ranks`](Self::ranks).
    pub(super) fn by_rank(n: usize, value: impl Fn(usize) -> f64) -> Option<Quantiles> {
        let last = n.checked_sub(1)?;
        let [q01, q05, q25, q50, q75, q95, q99] = SHARES.map(|share| Place::of(share, last).interpolate(&value));
        Some(Quantiles { q01, q05, q25, q50, q75, q95, q99 })
    }

    /// Of `n` values, those that the quantiles lie between, ascending, from 0 for the least; `None` of none.
    pub(super) fn ranks(n: usize) -> Option<[usize; 14]> {
        let last = n.checked_sub(1)?;
        let mut ranks = [0; 14];
        for (ranks, share) in ranks.chunks_exact_mut(2).zip(SHARES) {
            let place = Place::of(share, last);
            ranks.copy_from_slice(&[place.below, place.above]);
        }
        ranks.sort_unstable();
        Some(ranks)
    }
}

/// The `q` quantile, q in [0, 1], of ascending finite values; `None` of none.
pub fn quantile_sorted(ascending: &[f64], q: f64) -> Option<f64> {
    Some(Place::of(q, ascending.len().checked_sub(1)?).interpolate(|rank| ascending[rank]))
}

/// Where a quantile lies: between two ranks, and how far from the lower one.
struct Place {
    below: usize,
    above: usize,
    share: f64,
}

impl Place {
    fn of(q: f64, last: usize) -> Place {
        let position = q * last as f64;
        Place { below: position.floor() as usize, above: position.ceil() as usize, share: position.fract() }
    }

    fn interpolate(&self, value: impl Fn(usize) -> f64) -> f64 {
        let (low, high) = (value(self.below), value(self.above));
        // Halves, because high − low overflows for values near the largest f64.
        // And + 0, which makes 0 of −0.
        if low == high { low + 0.0 } else { low + 2.0 * (self.share * (high / 2.0 - low / 2.0)) }
    }
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
