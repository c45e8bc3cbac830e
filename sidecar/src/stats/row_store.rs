//! The rows that a [`Reservoir`](super::Reservoir) keeps.

use super::order::{Ordered, for_each_column};
use super::{Columns, Scalar, packed, with_view};
use ndarray::ArrayView2;

/// The kept rows of one section: f32 as long as that loses nothing.
#[derive(Clone, Debug, Default)]
pub struct RowStore {
    columns: usize,
    values: Values,
}

#[derive(Clone, Debug)]
enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl Default for Values {
    fn default() -> Values {
        Values::F32(Vec::new())
    }
}

impl RowStore {
    /// For rows of `columns` values.
    pub fn new(columns: usize) -> RowStore {
        RowStore { columns, values: Values::default() }
    }

    /// The same, f64 whatever comes.
    pub fn of_f64(columns: usize) -> RowStore {
        RowStore { columns, values: Values::F64(Vec::new()) }
    }

    /// Makes room for so many rows, and no more.
    pub fn reserve(&mut self, rows: usize) {
        let most = rows * self.columns;
        match &mut self.values {
            Values::F32(values) => values.reserve_exact(most.saturating_sub(values.len())),
            Values::F64(values) => values.reserve_exact(most.saturating_sub(values.len())),
        }
    }

    /// Keeps `rows[from]` in each slot of `kept = (from, slot)`.
    pub fn keep(&mut self, rows: &Columns<'_>, kept: &[(usize, usize)]) {
        if matches!(rows, Columns::F64(_)) {
            self.widen();
        }
        let columns = self.columns;
        match &mut self.values {
            Values::F32(values) => {
                with_view!(rows, view => keep(values, f32::NAN, columns, view, kept, |x| x.widen() as f32));
            }
            Values::F64(values) => with_view!(rows, view => keep(values, f64::NAN, columns, view, kept, |x| x.widen())),
        }
    }

    /// Marks slots whose row did not have this section: their values are NaN.
    pub fn keep_missing(&mut self, kept: &[(usize, usize)]) {
        for &(_, slot) in kept {
            let at = slot * self.columns;
            match &mut self.values {
                Values::F32(values) => slot_of(values, f32::NAN, at, self.columns).fill(f32::NAN),
                Values::F64(values) => slot_of(values, f64::NAN, at, self.columns).fill(f64::NAN),
            }
        }
    }

    /// Values in a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Rows there is memory for: every slot kept so far is below.
    pub fn slots(&self) -> usize {
        let values = match &self.values {
            Values::F32(values) => values.len(),
            Values::F64(values) => values.len(),
        };
        values.checked_div(self.columns).unwrap_or(usize::MAX)
    }

    /// Bytes of a value: 4, or 8 since f64 rows came.
    pub fn value_bytes(&self) -> usize {
        match &self.values {
            Values::F32(_) => 4,
            Values::F64(_) => 8,
        }
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.columns * self.value_bytes()
    }

    /// A kept row, as one row of columns.
    pub fn row(&self, slot: usize) -> Columns<'_> {
        let at = slot * self.columns..(slot + 1) * self.columns;
        let shape = (1, self.columns);
        match &self.values {
            Values::F32(values) => Columns::F32(ArrayView2::from_shape(shape, &values[at]).expect("one row")),
            Values::F64(values) => Columns::F64(ArrayView2::from_shape(shape, &values[at]).expect("one row")),
        }
    }

    /// Appends the values of a kept row to `out`, `value_bytes` each.
    pub fn copy_out(&self, slot: usize, out: &mut Vec<u8>) {
        let at = slot * self.columns..(slot + 1) * self.columns;
        out.extend_from_slice(match &self.values {
            Values::F32(values) => bytemuck::cast_slice(&values[at]),
            Values::F64(values) => bytemuck::cast_slice(&values[at]),
        });
    }

    /// The opposite: `bytes` are one row of values of `value_bytes` each, 4 or 8.
    pub fn copy_in(&mut self, slot: usize, bytes: &[u8], value_bytes: usize) {
        let row: Vec<f64> = match value_bytes {
            4 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes")).into()).collect(),
            _ => bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("8 bytes"))).collect(),
        };
        assert_eq!(row.len(), self.columns, "a whole row");
        let view = ArrayView2::from_shape((1, self.columns), row.as_slice()).expect("one row");
        if value_bytes == 8 {
            self.widen();
        }
        match &mut self.values {
            Values::F32(values) => keep(values, f32::NAN, self.columns, &view, &[(0, slot)], |x| x as f32),
            Values::F64(values) => keep(values, f64::NAN, self.columns, &view, &[(0, slot)], |x| x),
        }
    }

    fn widen(&mut self) {
        if let Values::F32(values) = &mut self.values {
            self.values = Values::F64(widened(std::mem::take(values)));
        }
    }

    /// The finite values of one column, in slot order.
    pub fn finite_column(&self, column: usize) -> Vec<f64> {
        let step = self.columns;
        match &self.values {
            Values::F32(values) => finite(values.iter().skip(column).step_by(step).map(|&x| f64::from(x))),
            Values::F64(values) => finite(values.iter().skip(column).step_by(step).copied()),
        }
    }

    /// Calls `each` with the finite values of every column, from the first column to the last.
    pub fn for_each_column(&self, each: impl FnMut(usize, &mut dyn Ordered)) {
        match &self.values {
            Values::F32(values) => for_each_column(values, self.columns, each),
            Values::F64(values) => for_each_column(values, self.columns, each),
        }
    }

    /// Calls `each` with every kept row.
    pub fn for_each_row(&self, mut each: impl FnMut(&[f64])) {
        let mut row = vec![0.0; self.columns];
        match &self.values {
            Values::F32(values) => values.chunks_exact(self.columns.max(1)).for_each(|kept| {
                row.iter_mut().zip(kept).for_each(|(to, &from)| *to = from.into());
                each(&row);
            }),
            Values::F64(values) => values.chunks_exact(self.columns.max(1)).for_each(each),
        }
    }
}

/// Values that are let go at a time: 1 MiB.
const CHUNK: usize = (1 << 20) / size_of::<f32>();

/// Both are never there at once: zeros take no memory before something else is written, which is done from the end, where the narrow
/// ones can be let go.
fn widened(mut narrow: Vec<f32>) -> Vec<f64> {
    let mut wide = vec![0.0; narrow.len()];
    while !narrow.is_empty() {
        let start = narrow.len().saturating_sub(CHUNK);
        wide[start..].iter_mut().zip(narrow.drain(start..)).for_each(|(to, from)| *to = from.into());
        narrow.shrink_to_fit();
    }
    wide
}

fn finite(values: impl Iterator<Item = f64>) -> Vec<f64> {
    values.filter(|x| x.is_finite()).collect()
}

fn slot_of<V: Copy>(values: &mut Vec<V>, missing: V, at: usize, columns: usize) -> &mut [V] {
    if values.len() < at + columns {
        values.resize(at + columns, missing);
    }
    &mut values[at..at + columns]
}

fn keep<V: Copy, T: Copy>(
    values: &mut Vec<V>,
    missing: V,
    columns: usize,
    rows: &ArrayView2<'_, T>,
    kept: &[(usize, usize)],
    convert: impl Fn(T) -> V,
) {
    let rows = packed(rows);
    for &(from, slot) in kept {
        let from = &rows[from * columns..(from + 1) * columns];
        let to = slot_of(values, missing, slot * columns, columns);
        to.iter_mut().zip(from).for_each(|(to, &x)| *to = convert(x));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_becomes_f64_when_f64_rows_come() {
        let mut store = RowStore::new(1);
        store.keep(&Columns::F32(ArrayView2::from_shape((1, 1), &[0.5f32]).unwrap()), &[(0, 0)]);
        store.keep_missing(&[(0, 1)]);
        store.keep(&Columns::F64(ArrayView2::from_shape((1, 1), &[0.1f64]).unwrap()), &[(0, 2)]);
        assert_eq!(store.finite_column(0), [0.5, 0.1]);
    }

    #[test]
    fn values_that_become_wide_are_the_same() {
        for count in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let narrow: Vec<f32> = (0..count).map(|i| i as f32 * 0.1).collect();
            let want: Vec<f64> = narrow.iter().map(|&x| f64::from(x)).collect();
            assert!(widened(narrow) == want, "{count}");
        }
    }
}
