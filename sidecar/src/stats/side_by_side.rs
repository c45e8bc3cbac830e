//! Classifies many rows side by side, one in each lane of the vector registers, and takes their entropies on the way.
//!
//! Within a row each probability waits for what the one before it did to the largest so far; the same column of several rows goes
//! together. Every lane does what [`classify`] and [`entropy`] do to its row, in the same order, so the bits are the same. A row whose
//! sum is finite has neither NaN nor ±∞; the others go to [`classify`] itself.

mod lanes;

use super::dispatch::{Kernel, dispatch};
use super::entropy::{entropy, share_of};
use super::scalar::Scalar;
use super::{Classified, classify, packed};
use ndarray::ArrayView2;

pub(super) use lanes::Lanes;

/// Adds what [`classify`] and [`entropy`] say of every row, from the first to the last.
pub fn classify_rows<T: Scalar>(matrix: &ArrayView2<'_, T>, threshold: f64, into: &mut Classified) {
    let (values, columns) = (packed(matrix), matrix.ncols());
    // What one column leaves of 1 is the other class's.
    let tolerance = if columns > 1 { T::SUM_TOLERANCE } else { f64::INFINITY };
    into.reserve(matrix.nrows());
    // Lanes cost more than they save.
    if matrix.nrows() == 1 || columns == 0 {
        for row in matrix.rows() {
            let row = row.to_slice().expect("ring views are row-major without gaps");
            into.push(classify(row.iter().map(|p| p.widen()), threshold), entropy(row), tolerance);
        }
        return;
    }
    let mut lanes = Lanes::NONE;
    dispatch(Rows { values, columns, threshold, tolerance, lanes: &mut lanes, into });
}

struct Rows<'a, T: Scalar> {
    values: &'a [T],
    columns: usize,
    threshold: f64,
    tolerance: f64,
    /// Lent, so that they stay in memory from step to step: there are too few registers.
    lanes: &'a mut Lanes<T::Lane>,
    into: &'a mut Classified,
}

impl<T: Scalar> Kernel for Rows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // Of few columns their number is known while this is compiled.
        match self.columns {
            1 => self.of(1),
            2 => self.of(2),
            3 => self.of(3),
            columns => self.of(columns),
        }
    }
}

impl<T: Scalar> Rows<'_, T> {
    #[inline(always)]
    fn of(self, columns: usize) {
        let Rows { values, threshold, tolerance, lanes, into, .. } = self;
        let share = share_of(columns);
        for rows in values.chunks(lanes::rows_of(columns) * columns) {
            lanes.take(rows, columns, share);
            if lanes.are_flawless(tolerance) {
                into.extend(lanes, rows.len() / columns, columns, threshold);
                continue;
            }
            for (r, row) in rows.chunks_exact(columns).enumerate() {
                let prediction = lanes
                    .prediction(r, columns, threshold)
                    .ok_or(())
                    .or_else(|()| classify(row.iter().map(|p| p.widen()), threshold));
                into.push(prediction, lanes.entropies()[r], tolerance);
            }
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
        let tolerance = if columns == 1 { f64::INFINITY } else { T::SUM_TOLERANCE };
        let row_by_row = |values: &[T]| {
            let mut want = Classified::default();
            for row in values.chunks(columns) {
                want.push(classify(row.iter().map(|p| p.widen()), 0.4), entropy(row), tolerance);
            }
            want
        };
        let mut got = Classified::default();
        classify_rows(&ArrayView2::from_shape((values.len() / columns, columns), values).unwrap(), 0.4, &mut got);
        prop_assert_eq!(&got, &row_by_row(values));
        let mut baseline = Classified::default();
        let mut lanes = Lanes::NONE;
        Rows { values, columns, threshold: 0.4, tolerance, lanes: &mut lanes, into: &mut baseline }.run();
        prop_assert_eq!(&baseline, &row_by_row(values));
        Ok(())
    }

    fn probability() -> impl Strategy<Value = f64> {
        let odd = [0.0, -0.0, 1.0, -0.1, 1.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, 5e-324];
        prop_oneof![90 => 0.0..1.0f64, 20 => (0..4u8).prop_map(|x| f64::from(x) / 4.0), 1 => proptest::sample::select(odd.to_vec())]
    }

    /// Rows as they should be are another path.
    fn normalised(values: &[f64], columns: usize) -> Vec<f64> {
        let row = |row: &[f64]| row.iter().map(|p| p / row.iter().sum::<f64>()).collect::<Vec<_>>();
        values.chunks_exact(columns).flat_map(row).collect()
    }

    fn equal_in_every_type(values: &[f64], columns: usize) -> Result<(), TestCaseError> {
        equal_row_by_row(values, columns)?;
        equal_row_by_row(&values.iter().map(|&p| p as f32).collect::<Vec<_>>(), columns)?;
        equal_row_by_row(&values.iter().map(|&p| f16::from_f64(p)).collect::<Vec<_>>(), columns)?;
        equal_row_by_row(&values.iter().map(|&p| bf16::from_f64(p)).collect::<Vec<_>>(), columns)
    }

    proptest! {
        #[test]
        fn equals_classifying_row_by_row(
            columns in prop_oneof![1..20usize, 20..80usize],
            values in proptest::collection::vec(probability(), 0..1500),
        ) {
            equal_in_every_type(&values, columns)?;
            equal_in_every_type(&normalised(&values, columns), columns)?;
        }
    }

    #[test]
    fn rows_without_columns_are_as_invalid_as_one() {
        let (mut got, mut want) = (Classified::default(), Classified::default());
        classify_rows(&ArrayView2::<f32>::from_shape((3, 0), &[]).unwrap(), 0.5, &mut got);
        (0..3).for_each(|_| want.push(classify([].into_iter(), 0.5), 0.0, 1e-3));
        assert_eq!(got, want);
    }
}
