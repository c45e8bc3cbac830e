//! How undecided a row of probabilities is: its entropy as a share of the largest that so many classes allow.
//!
//! −Σ p ln p / ln K with 0 ln 0 = 0; a single column p counts as the pair p and 1 − p. Shannon, *A Mathematical Theory of
//! Communication*, 1948. Each p is taken within [0, 1]: one that is not counts as the nearer end, NaN as 0.
//!
//! −p ln p is computed in f32, whatever the element type, and summed in f64 from the first class to the last: a row has the same
//! entropy, to the bit, in whatever batch it comes and in the sample. The result is rounded to f32, which is as much as is known: two
//! versions of a model may order their classes differently, and what their sums round differently must not tell them apart.

mod ln;

use super::Scalar;
use super::dispatch::{Kernel, dispatch};
use super::scalar::Lane;
use ln::minus_ln;

/// Values whose terms are computed together.
const BLOCK: usize = 256;

/// Of one row: in [0, 1] if it sums to 1, and finite for any. Right within 1e-6.
pub fn entropy<T: Scalar>(row: &[T]) -> f64 {
    dispatch(Row(row))
}

struct Row<'a, T>(&'a [T]);

impl<T: Scalar> Kernel for Row<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let alone = self.0.len() == 1;
        let mut terms = [0.0; BLOCK];
        let mut sum = 0.0;
        for part in self.0.chunks(BLOCK) {
            let terms = &mut terms[..part.len()];
            terms.iter_mut().zip(part).for_each(|(to, p)| *to = term(p.lane(), alone));
            terms.iter().for_each(|term| sum += f64::from(*term));
        }
        share_of(self.0.len()).of(sum)
    }
}

/// What a value adds to its row's sum; `alone` if it is all of its row.
#[inline(always)]
pub(super) fn term<L: Lane>(p: L, alone: bool) -> f32 {
    let p = p.narrow();
    surprise(p) + if alone { surprise(1.0 - if p > 0.0 { p } else { 0.0 }) } else { 0.0 }
}

/// What a row's sum is to be multiplied by.
#[derive(Clone, Copy)]
pub(super) struct Share(f64);

/// For rows of so many columns.
pub(super) fn share_of(columns: usize) -> Share {
    Share((columns.max(2) as f64).ln().recip())
}

impl Share {
    /// A row's entropy from the sum of its terms.
    #[inline(always)]
    pub fn of(self, terms: f64) -> f64 {
        f64::from((terms * self.0) as f32)
    }
}

/// −p ln p, of p within [0, 1]; of NaN 0. What is too small to be normal adds nothing: it would add next to nothing.
#[inline(always)]
fn surprise(p: f32) -> f32 {
    let p = if p < 1.0 { p } else { 1.0 };
    let p = if p > f32::MIN_POSITIVE { p } else { f32::MIN_POSITIVE };
    (p - f32::MIN_POSITIVE) * minus_ln(p)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};
    use proptest::prelude::*;

    /// By the definition, in f64.
    fn naive(row: &[f64]) -> f64 {
        let pair = [row[0], 1.0 - row[0]];
        let row = if row.len() == 1 { &pair } else { row };
        let sum: f64 = row.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum();
        -sum / (row.len() as f64).ln()
    }

    #[test]
    fn known_rows_have_their_known_entropies() {
        for (row, want) in [
            (&[1.0, 0.0, 0.0][..], 0.0),
            (&[1.0 / 3.0; 3], 1.0),
            (&[0.5, 0.25, 0.25], 0.946_394_630_357_186_2),
            (&[0.9, 0.1], 0.468_995_593_589_281_2),
            (&[0.9], 0.468_995_593_589_281_2),
            (&[0.5], 1.0),
            (&[0.0], 0.0),
            (&[1.0], 0.0),
        ] {
            assert!((entropy(row) - want).abs() < 3e-7, "{row:?}: {}", entropy(row));
        }
        assert_eq!(entropy(&[0.0, 1.0, 0.0]), 0.0, "a sure row has none at all");
    }

    #[test]
    fn a_hostile_row_has_a_finite_entropy() {
        let hostile =
            [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, -1e308, -0.0, 5e-324, f64::MIN_POSITIVE, 1e-40, 2.0];
        for a in hostile {
            for b in hostile {
                for row in [&[a][..], &[a, b], &[a, b, 0.5], &[a; 700]] {
                    let entropy = entropy(row);
                    assert!(entropy.is_finite() && entropy >= 0.0, "{row:?}: {entropy}");
                }
            }
        }
        assert_eq!(entropy::<f64>(&[]), 0.0);
    }

    #[test]
    fn the_order_of_the_classes_does_not_matter() {
        let rows = (1..3000).map(|i| {
            let weights =
                [0.754_877_666, 0.569_840_29, 0.618_033_98, 0.430_159_7].map(|step| (f64::from(i) * step).fract());
            weights.map(|weight| weight / weights.iter().sum::<f64>())
        });
        for [a, b, c, d] in rows {
            let orders = [[a, b, c, d], [d, c, b, a], [b, d, a, c], [c, a, d, b]];
            assert_eq!(orders.map(|row| entropy(&row)), [entropy(&[a, b, c, d]); 4]);
        }
    }

    fn row(columns: usize) -> impl Strategy<Value = Vec<f64>> {
        let weight = prop_oneof![4 => 0.0..1.0f64, 1 => Just(0.0), 1 => (-60.0..0.0f64).prop_map(f64::exp)];
        prop::collection::vec(weight, columns).prop_map(|weights| {
            let sum: f64 = weights.iter().sum();
            let alone = weights.len() == 1 || sum == 0.0;
            weights.iter().map(|weight| if alone { *weight } else { weight / sum }).collect()
        })
    }

    fn any_row() -> impl Strategy<Value = Vec<f64>> {
        let columns = prop_oneof![8 => 1..20usize, 1 => 20..BLOCK, 1 => BLOCK - 1..2 * BLOCK + 9];
        columns.prop_flat_map(row)
    }

    fn is_that_of_the_definition<T: Scalar>(row: &[T]) {
        let (got, widened) = (entropy(row), row.iter().map(|p| p.widen()).collect::<Vec<f64>>());
        assert!((got - naive(&widened)).abs() < 1e-6, "{widened:?}: {got}, want {}", naive(&widened));
        assert_eq!(got.to_bits(), entropy(&widened).to_bits(), "widened");
    }

    proptest! {
        #[test]
        fn is_that_of_the_definition_in_whatever_type(row in any_row()) {
            is_that_of_the_definition(&row);
            is_that_of_the_definition(&row.iter().map(|p| *p as f32).collect::<Vec<_>>());
            is_that_of_the_definition(&row.iter().map(|p| f16::from_f64(*p)).collect::<Vec<_>>());
            is_that_of_the_definition(&row.iter().map(|p| bf16::from_f64(*p)).collect::<Vec<_>>());
        }

        #[test]
        fn every_processor_computes_the_same_bits(row in any_row()) {
            prop_assert_eq!(Row(&row).run().to_bits(), entropy(&row).to_bits());
        }
    }
}
