//! A distribution function of which only a few quantiles are known: between what it lies.
//!
//! Values may come in lumps. At a value that many equal, the function jumps past the share whose quantile it is, nobody knows how far;
//! elsewhere it is taken as linear between the quantiles.

/// Farther apart, least and most are no rounding errors.
const WIDE: f64 = 1e-9;

/// At ascending values, the least and the most of all that may lie at or below each.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    values: Vec<f64>,
    bounds: Vec<[f64; 2]>,
    /// Where the function may jump. At the largest value its bounds do not tell.
    lumps: Vec<bool>,
}

impl Envelope {
    /// `bounds` of `values` that ascend, both of one length. Lumps are where they are wide; and where the last but one is, the last.
    pub fn new(values: Vec<f64>, bounds: Vec<[f64; 2]>) -> Envelope {
        assert_eq!(values.len(), bounds.len(), "a bound for every value");
        let mut lumps: Vec<bool> = bounds.iter().map(|[least, most]| most - least > WIDE).collect();
        if let [.., last_but_one, last] = lumps.as_mut_slice() {
            *last |= *last_but_one;
        }
        Envelope { values, bounds, lumps }
    }

    /// Of ascending quantiles, the least and the largest value among them, and their shares, from 0 to 1. A quantile is a lump where it
    /// is one of two shares, or where `is_lump` says so.
    pub fn of_quantiles(quantiles: &[f64], shares: &[f64], is_lump: impl Fn(f64) -> bool) -> Envelope {
        let mut envelope = Envelope { values: Vec::new(), bounds: Vec::new(), lumps: Vec::new() };
        let mut from = 0;
        for same in quantiles.chunk_by(|a, b| a == b) {
            let next = from + same.len();
            let least = shares[next - 1];
            let lump = same.len() > 1 || is_lump(same[0]);
            envelope.values.push(same[0]);
            envelope.lumps.push(lump);
            envelope.bounds.push([least, if lump { shares.get(next).copied().unwrap_or(1.0) } else { least }]);
            from = next;
        }
        envelope
    }

    /// The least and the most that may lie at or below `x`.
    pub fn at(&self, x: f64) -> [f64; 2] {
        let next = self.values.partition_point(|value| *value <= x);
        let Some(before) = next.checked_sub(1) else { return [0.0; 2] };
        let (value, [least, most]) = (self.values[before], self.bounds[before]);
        match self.values.get(next) {
            Some(&next_value) if value < x => {
                let [next_least, _] = self.bounds[next];
                // Halved, for the whole may exceed f64.
                let along = (x / 2.0 - value / 2.0) / (next_value / 2.0 - value / 2.0);
                let towards = |from: f64, to: f64| from + (to - from) * along;
                let next_least = next_least.max(least);
                let just_below_next = next_least.max(most);
                let least = if self.lumps[next] { least } else { towards(least, next_least) };
                [least, if self.lumps[before] { just_below_next } else { towards(most, just_below_next) }]
            }
            _ => [least, most],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::quantile_sorted;
    use proptest::prelude::*;

    const SHARES: [f64; 9] = [0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0];

    fn quantiles(ascending: &[f64]) -> Vec<f64> {
        SHARES.iter().map(|share| quantile_sorted(ascending, *share).unwrap()).collect()
    }

    #[test]
    fn beside_lumps_it_is_linear_and_at_a_lump_it_ends_at_the_next_share() {
        let smooth = Envelope::of_quantiles(&[0.0, 1.0, 3.0], &[0.0, 0.5, 1.0], |_| false);
        assert_eq!([-1.0, 0.5, 1.0, 2.0, 3.0, 9.0].map(|x| smooth.at(x)[0]), [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]);
        assert_eq!([-1.0, 0.5, 1.0, 2.0, 3.0, 9.0].map(|x| smooth.at(x)[1]), [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]);
        let lump = Envelope::of_quantiles(&[0.0, 1.0, 1.0, 3.0], &[0.0, 0.2, 0.6, 1.0], |_| false);
        assert_eq!([lump.at(0.5), lump.at(1.0), lump.at(2.0)], [[0.0, 0.3], [0.6, 1.0], [0.8, 1.0]]);
        let whole = Envelope::of_quantiles(&[0.0, 1.0, 3.0], &[0.0, 0.5, 1.0], |_| true);
        assert_eq!([whole.at(0.5), whole.at(1.0), whole.at(2.0)], [[0.0, 0.5], [0.5, 1.0], [0.5, 1.0]]);
    }

    proptest! {
        #[test]
        fn of_lumps_the_share_of_all_lies_within(
            mut values in proptest::collection::vec((-9..9i32).prop_map(|x| f64::from(x * x * x.signum())), 1..400),
            x in -90..90i32,
        ) {
            values.sort_by(f64::total_cmp);
            let n = values.len() as f64;
            let share = values.partition_point(|value| *value <= f64::from(x)) as f64 / n;
            let [least, most] = Envelope::of_quantiles(&quantiles(&values), &SHARES, |_| true).at(f64::from(x));
            // A quantile lies between two ranks, so its share is known but for one value.
            prop_assert!(least - 1.0 / n <= share + 1e-9 && share <= most + 1.0 / n + 1e-9, "{least} {share} {most}");
        }

        #[test]
        fn the_bounds_ascend_within_a_share_of_all(
            mut values in proptest::collection::vec(prop_oneof![(-9..9i32).prop_map(f64::from), -1e308..1e308f64], 1..60),
            mut at in proptest::collection::vec(-10.0..10.0f64, 2..9),
            modulus in 1..4u32,
        ) {
            values.sort_by(f64::total_cmp);
            at.sort_by(f64::total_cmp);
            let is_lump = |x: f64| (x as i64 as u32).is_multiple_of(modulus);
            let envelope = Envelope::of_quantiles(&quantiles(&values), &SHARES, is_lump);
            let bounds: Vec<[f64; 2]> = at.iter().map(|x| envelope.at(*x)).collect();
            for [least, most] in &bounds {
                prop_assert!(0.0 <= *least && least <= most && *most <= 1.0, "{least} {most}");
            }
            for pair in bounds.windows(2) {
                prop_assert!((0..2).all(|i| pair[0][i] <= pair[1][i] + 1e-12), "{bounds:?}");
            }
        }
    }
}
