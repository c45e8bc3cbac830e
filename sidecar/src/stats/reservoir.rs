//! A uniform sample of whole rows.
//!
//! Algorithm R (Vitter, Random Sampling with a Reservoir, 1985): after n rows each of them is in the sample with probability
//! min(1, k/n). Seeded, so the same rows in the same order give the same sample.

use super::{Columns, Scalar, with_view};
use ndarray::ArrayView2;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// Decides which rows are kept and where; the rows themselves lie in [`RowStore`]s.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reservoir {
    capacity: u64,
    seen: u64,
    random: Xoshiro256PlusPlus,
}

impl Reservoir {
    /// Keeps at most `capacity` rows.
    pub fn new(capacity: u64, seed: u64) -> Reservoir {
        Reservoir { capacity, seen: 0, random: Xoshiro256PlusPlus::seed_from_u64(seed) }
    }

    /// Most rows it keeps.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Where the next row goes: a slot below [`len`](Self::len) after this call, or nowhere.
    pub fn offer(&mut self) -> Option<usize> {
        self.seen = self.seen.saturating_add(1);
        let slot = if self.seen <= self.capacity { self.seen - 1 } else { self.below(self.seen) };
        (slot < self.capacity).then_some(slot as usize)
    }

    /// Rows kept.
    pub fn len(&self) -> u64 {
        self.seen.min(self.capacity)
    }

    /// Whether no row is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Uniform in 0..n by multiply and shift (Lemire 2019, without rejection: the bias is below n / 2^64).
    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.random.next_u64()) * u128::from(n)) >> 64) as u64
    }
}

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
        if let Values::F32(values) = &self.values {
            self.values = Values::F64(values.iter().map(|&x| f64::from(x)).collect());
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
    for &(from, slot) in kept {
        let to = slot_of(values, missing, slot * columns, columns);
        to.iter_mut().zip(rows.row(from)).for_each(|(to, &x)| *to = convert(x));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// χ² over which rows are kept: an off-by-one in the range (0..n instead of 0..=n) shows at small k.
    #[test]
    fn keeps_every_row_equally_often() {
        for (k, rows, runs) in [(1u64, 10usize, 40_000u64), (4, 13, 40_000), (100, 120, 4_000)] {
            let mut kept_count = vec![0f64; rows];
            for seed in 0..runs {
                let mut reservoir = Reservoir::new(k, seed);
                let mut slots = vec![usize::MAX; k as usize];
                for row in 0..rows {
                    if let Some(slot) = reservoir.offer() {
                        slots[slot] = row;
                    }
                }
                slots.iter().for_each(|&row| kept_count[row] += 1.0);
            }
            let expected = runs as f64 * k as f64 / rows as f64;
            let miss = 1.0 - k as f64 / rows as f64;
            let chi2: f64 = kept_count.iter().map(|count| (count - expected).powi(2) / (expected * miss)).sum();
            // Mean rows − 1, deviation √(2·rows): six deviations above is beyond chance for these fixed seeds.
            assert!(chi2 < rows as f64 + 6.0 * (2.0 * rows as f64).sqrt(), "k = {k}: χ² = {chi2}");
        }
    }

    #[test]
    fn the_same_seed_keeps_the_same_rows() {
        let slots = |seed| {
            let mut reservoir = Reservoir::new(3, seed);
            (0..100).map(|_| reservoir.offer()).collect::<Vec<_>>()
        };
        assert_eq!(slots(7), slots(7));
        assert_ne!(slots(7), slots(8));
    }

    #[test]
    fn a_store_becomes_f64_when_f64_rows_come() {
        let mut store = RowStore::new(1);
        store.keep(&Columns::F32(ArrayView2::from_shape((1, 1), &[0.5f32]).unwrap()), &[(0, 0)]);
        store.keep_missing(&[(0, 1)]);
        store.keep(&Columns::F64(ArrayView2::from_shape((1, 1), &[0.1f64]).unwrap()), &[(0, 2)]);
        assert_eq!(store.finite_column(0), [0.5, 0.1]);
    }
}
