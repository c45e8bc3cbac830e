//! How undecided a row of probabilities is: its entropy as a share of the largest that so many classes allow.
//!
//! −Σ p ln p / ln K with 0 ln 0 = 0; a single column p counts as the pair p and 1 − p. Shannon, *A Mathematical Theory of
//! Communication*, 1948. Each p is taken within [0, 1]: one that is not counts as the nearer end, NaN as 0.
//!
//! −p ln p is computed in f32 lanes, whatever the element type, and summed in f64 in an order that depends on the row's width alone: a
//! row has the same entropy, to the bit, in whatever batch it comes and in the sample. The result is rounded to f32, which is as much as
//! is known: two versions of a model may order their classes differently, and what their sums round differently must not tell them apart.

mod ln;

use super::dispatch::{Kernel, dispatch};
use super::{Scalar, packed};
use ln::ln;
use ndarray::ArrayView2;

/// Values whose terms are computed together: whole rows, or a part of one.
const BLOCK: usize = 256;
const LANES: usize = 4;

/// Of each row, in [0, 1] for one that sums to 1, and finite for any. Right within 1e-6.
pub fn entropies<T: Scalar>(rows: &ArrayView2<'_, T>, into: &mut Vec<f64>) {
    into.clear();
    into.resize(rows.nrows(), 0.0);
    dispatch(Rows { values: packed(rows), columns: rows.ncols(), into });
}

/// Of one row.
pub fn entropy<T: Scalar>(row: &[T]) -> f64 {
    let mut entropy = [0.0];
    dispatch(Rows { values: row, columns: row.len(), into: &mut entropy });
    entropy[0]
}

/// Rows without gaps, and where their entropies go.
struct Rows<'a, T> {
    values: &'a [T],
    columns: usize,
    into: &'a mut [f64],
}

impl<T: Scalar> Kernel for Rows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Rows { values, columns, into } = self;
        if columns == 0 {
            return;
        }
        let largest = (columns.max(2) as f64).ln();
        let together = (BLOCK / columns).max(1);
        let mut terms = [0.0; BLOCK];
        for (rows, into) in values.chunks(together * columns).zip(into.chunks_mut(together)) {
            if columns > BLOCK {
                let whole: f64 = rows.chunks(BLOCK).map(|part| sum(fill(&mut terms, part, false))).sum();
                into[0] = rounded(whole / largest);
                continue;
            }
            let terms = fill(&mut terms, rows, columns == 1).chunks_exact(columns);
            terms.zip(into).for_each(|(row, entropy)| *entropy = rounded(sum(row) / largest));
        }
    }
}

/// What each value adds to its row's sum; `alone` if it is all of its row.
#[inline(always)]
fn fill<'a, T: Scalar>(terms: &'a mut [f32; BLOCK], values: &[T], alone: bool) -> &'a [f32] {
    let terms = &mut terms[..values.len()];
    for (term, p) in terms.iter_mut().zip(values) {
        *term = surprise(unit(*p));
    }
    if alone {
        for (term, p) in terms.iter_mut().zip(values) {
            *term += surprise(1.0 - unit(*p));
        }
    }
    terms
}

/// Written so that NaN is 0.
#[inline(always)]
fn unit<T: Scalar>(p: T) -> f32 {
    let p = p.widen() as f32;
    let p = if p > 0.0 { p } else { 0.0 };
    if p < 1.0 { p } else { 1.0 }
}

/// −p ln p. What is too small to be normal adds next to nothing, by any logarithm.
#[inline(always)]
fn surprise(p: f32) -> f32 {
    -p * ln(if p > f32::MIN_POSITIVE { p } else { f32::MIN_POSITIVE })
}

#[inline(always)]
fn rounded(x: f64) -> f64 {
    f64::from(x as f32)
}

#[inline(always)]
fn sum(terms: &[f32]) -> f64 {
    let (whole, rest) = terms.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for terms in whole {
        lanes.iter_mut().zip(terms).for_each(|(lane, term)| *lane += f64::from(*term));
    }
    lanes.iter().chain(&[rest.iter().map(|term| f64::from(*term)).sum()]).sum()
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

    fn of_rows<T: Scalar>(values: &[T], columns: usize) -> Vec<f64> {
        let mut into = vec![7.0; 3];
        entropies(&ArrayView2::from_shape((values.len() / columns, columns), values).unwrap(), &mut into);
        into
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
        assert!(of_rows::<f32>(&[], 3).is_empty());
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

    fn matrix() -> impl Strategy<Value = (usize, Vec<f64>)> {
        let columns = prop_oneof![8 => 1..20usize, 1 => 20..BLOCK, 1 => BLOCK - 1..2 * BLOCK + 9];
        columns.prop_flat_map(|columns| {
            let rows = prop::collection::vec(row(columns), 0..6);
            rows.prop_map(move |rows| (columns, rows.concat()))
        })
    }

    fn is_that_of_the_definition<T: Scalar>(columns: usize, values: &[T]) {
        let widened: Vec<f64> = values.iter().map(|p| p.widen()).collect();
        for (row, got) in widened.chunks(columns).zip(of_rows(values, columns)) {
            assert!((got - naive(row)).abs() < 1e-6, "{row:?}: {got}, want {}", naive(row));
            assert_eq!(got.to_bits(), entropy(row).to_bits(), "alone and widened");
        }
    }

    proptest! {
        #[test]
        fn is_that_of_the_definition_in_whatever_type_and_batch((columns, values) in matrix()) {
            is_that_of_the_definition(columns, &values);
            is_that_of_the_definition(columns, &values.iter().map(|p| *p as f32).collect::<Vec<_>>());
            is_that_of_the_definition(columns, &values.iter().map(|p| f16::from_f64(*p)).collect::<Vec<_>>());
            is_that_of_the_definition(columns, &values.iter().map(|p| bf16::from_f64(*p)).collect::<Vec<_>>());
        }

        #[test]
        fn every_processor_computes_the_same_bits((columns, values) in matrix()) {
            let mut plain = vec![0.0; values.len() / columns];
            Rows { values: &values, columns, into: &mut plain }.run();
            prop_assert_eq!(plain, of_rows(&values, columns));
        }
    }
}
