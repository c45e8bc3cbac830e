//! Classifies many rows side by side, one in each lane of the vector registers.
//!
//! Within a row each probability waits for what the one before it did to the largest so far; the same column of several rows
//! goes together. Every lane does what [`classify`] does to its row, in the same order, so the bits are the same. A row whose sum is
//! finite has neither NaN nor ±∞; the others, and those left over at the end, go to [`classify`] itself.

use super::dispatch::{Kernel, dispatch};
use super::scalar::{Lane, Scalar};
use super::{Prediction, Validity, classify, packed, rows};
use ndarray::ArrayView2;
use std::array::from_fn;

/// Calls `each` with what [`classify`] says of every row, from the first to the last.
pub fn classify_rows<T: Scalar>(
    matrix: &ArrayView2<'_, T>,
    threshold: f64,
    mut each: impl FnMut(Result<Prediction, Validity>),
) {
    let (values, columns) = (packed(matrix), matrix.ncols());
    let each = &mut each;
    // As many lanes as have room in the registers.
    let done = match size_of::<T::Lane>() {
        4 => dispatch(Blocks::<T, _, 8> { values, columns, threshold, each }),
        _ => dispatch(Blocks::<T, _, 4> { values, columns, threshold, each }),
    };
    rows(*matrix, done..matrix.nrows()).rows().into_iter().for_each(|row| {
        each(classify(row.iter().map(|p| p.widen()), threshold));
    });
}

/// The rows that fill all of the `W` lanes; how many they are.
struct Blocks<'a, T, F, const W: usize> {
    values: &'a [T],
    columns: usize,
    threshold: f64,
    each: &'a mut F,
}

impl<T: Scalar, F: FnMut(Result<Prediction, Validity>), const W: usize> Kernel for Blocks<'_, T, F, W> {
    type Output = usize;

    #[inline(always)]
    fn run(self) -> usize {
        let blocks = self.values.chunks_exact((W * self.columns).max(1));
        let done = W * blocks.len();
        for block in blocks {
            let mut lanes = Lanes::<T::Lane, W>::none();
            for column in 0..self.columns {
                lanes.add(&from_fn(|r| block[r * self.columns + column].lane()));
            }
            for (r, row) in block.chunks_exact(self.columns).enumerate() {
                (self.each)(match lanes.sum[r].is_finite() {
                    true => Ok(lanes.prediction(r, row, self.threshold)),
                    false => classify(row.iter().map(|p| p.widen()), self.threshold),
                });
            }
        }
        done
    }
}

/// What is known of each row after some columns.
struct Lanes<L: Lane, const W: usize> {
    first: [L; W],
    second: [L; W],
    least: [L; W],
    class: [L::Count; W],
    column: L::Count,
    sum: [f64; W],
}

impl<L: Lane, const W: usize> Lanes<L, W> {
    #[inline(always)]
    fn none() -> Lanes<L, W> {
        Lanes {
            first: [L::NEG_INFINITY; W],
            second: [L::NEG_INFINITY; W],
            least: [L::INFINITY; W],
            class: [L::ZERO_COUNT; W],
            column: L::ZERO_COUNT,
            sum: [0.0; W],
        }
    }

    /// The next column. Everything is read before it is chosen from: a choice is no branch then, and no store under a mask.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "every array goes along")]
    fn add(&mut self, column: &[L; W]) {
        let at = self.column;
        for r in 0..W {
            let p = column[r];
            let (first, second, least, class) = (self.first[r], self.second[r], self.least[r], self.class[r]);
            let larger = p > first;
            let other = if p > second { p } else { second };
            self.second[r] = if larger { first } else { other };
            self.class[r] = if larger { at } else { class };
            self.first[r] = if larger { p } else { first };
            self.least[r] = if p < least { p } else { least };
            self.sum[r] += p.into();
        }
        self.column += true.into();
    }

    /// Of a row without NaN and ±∞.
    #[inline(always)]
    fn prediction<T: Scalar>(&self, r: usize, row: &[T], threshold: f64) -> Prediction {
        let [first, second, least] = [self.first[r], self.second[r], self.least[r]].map(Into::into);
        Prediction {
            class: match row {
                [_, last] => usize::from(last.widen() > threshold),
                _ => self.class[r].into() as usize,
            },
            confidence: first,
            margin: if row.len() == 1 { first } else { first - second },
            tie: row.len() > 1 && first == second,
            out_of_range: least < 0.0 || first > 1.0,
            sum: self.sum[r],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};
    use proptest::prelude::*;

    /// The same bits, NaN included, whatever the instructions.
    fn equal_row_by_row<T: Scalar>(values: &[T], columns: usize) -> Result<(), TestCaseError> {
        let values = &values[..values.len() - values.len() % columns];
        let of_row = |row: &[T]| classify(row.iter().map(|p| p.widen()), 0.4);
        let want: Vec<_> = values.chunks(columns).map(of_row).collect();
        let mut got = Vec::new();
        let matrix = ArrayView2::from_shape((values.len() / columns, columns), values).unwrap();
        classify_rows(&matrix, 0.4, |prediction| got.push(prediction));
        prop_assert_eq!(format!("{got:?}"), format!("{want:?}"));
        let mut baseline = Vec::new();
        let each = &mut |prediction| baseline.push(prediction);
        let done = Blocks::<T, _, 4> { values, columns, threshold: 0.4, each }.run();
        prop_assert_eq!(format!("{baseline:?}"), format!("{:?}", &want[..done]));
        Ok(())
    }

    fn probability() -> impl Strategy<Value = f64> {
        let odd = [0.0, -0.0, 1.0, -0.1, 1.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, 5e-324];
        prop_oneof![90 => 0.0..1.0f64, 20 => (0..4u8).prop_map(|x| f64::from(x) / 4.0), 1 => proptest::sample::select(odd.to_vec())]
    }

    proptest! {
        #[test]
        fn equals_classifying_row_by_row(columns in 1..40usize, values in proptest::collection::vec(probability(), 0..1500)) {
            equal_row_by_row(&values, columns)?;
            equal_row_by_row(&values.iter().map(|&p| p as f32).collect::<Vec<_>>(), columns)?;
            equal_row_by_row(&values.iter().map(|&p| f16::from_f64(p)).collect::<Vec<_>>(), columns)?;
            equal_row_by_row(&values.iter().map(|&p| bf16::from_f64(p)).collect::<Vec<_>>(), columns)?;
        }
    }

    #[test]
    fn rows_without_columns_are_as_invalid_as_one() {
        let mut said = Vec::new();
        classify_rows(&ArrayView2::<f32>::from_shape((3, 0), &[]).unwrap(), 0.5, |prediction| said.push(prediction));
        assert_eq!(said, [classify([].into_iter(), 0.5); 3]);
    }
}
