//! A uniform sample of whole rows: after n of them each is in it with probability min(1, k/n).
//!
//! Algorithm R (Vitter, Random Sampling with a Reservoir, 1985) draws a number for each row, while it takes many of them. From n = 16k
//! on Algorithm L ([`Skips`]) draws how many rows to pass over, which costs something for rows that are taken only. Seeded, so the
//! same rows in the same order give the same sample, however they come in batches.

use super::order::{Ordered, for_each_column};
use super::skips::Skips;
use super::{Columns, Quantiles, Scalar, packed, with_view};
use ndarray::ArrayView2;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// Rows seen for each kept when rows begin to be passed over: fewer draws, though dearer ones, from some 10 on.
const DRAW_FOR_EACH: u64 = 16;

/// Decides which rows are kept and where; the rows themselves lie in [`RowStore`]s.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reservoir {
    capacity: u64,
    seen: u64,
    random: Xoshiro256PlusPlus,
    /// Since it has seen [`DRAW_FOR_EACH`] times its capacity.
    skips: Option<Skips>,
}

impl Reservoir {
    /// Keeps at most `capacity` rows.
    pub fn new(capacity: u64, seed: u64) -> Reservoir {
        Reservoir { capacity, seen: 0, random: Xoshiro256PlusPlus::seed_from_u64(seed), skips: None }
    }

    /// Most rows it keeps.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Of the next `rows` rows, adds to `kept` which of them go where, as (row, slot below [`len`](Self::len) after this call). A later
    /// one may take an earlier one's slot.
    pub fn offer(&mut self, rows: usize, kept: &mut Vec<(usize, usize)>) {
        let (before, end) = (self.seen, self.seen.saturating_add(rows as u64));
        if self.capacity > 0 {
            self.draw_for_each(end.min(self.capacity.saturating_mul(DRAW_FOR_EACH)), |row, slot| {
                kept.push(((row - before) as usize - 1, slot));
            });
            self.pass_over(end, |row, slot| kept.push(((row - before) as usize - 1, slot)));
        }
        self.seen = end;
    }

    /// Algorithm R, up to row `end`.
    fn draw_for_each(&mut self, end: u64, mut keep: impl FnMut(u64, usize)) {
        while self.seen < end {
            self.seen += 1;
            let slot = if self.seen <= self.capacity { self.seen - 1 } else { below(self.seen, &mut self.random) };
            if slot < self.capacity {
                keep(self.seen, slot as usize);
            }
        }
        if self.skips.is_none() && self.skips_are_due() {
            self.skips = Some(Skips::after(self.seen, self.capacity, &mut self.random));
        }
    }

    /// Algorithm L, up to row `end`.
    fn pass_over(&mut self, end: u64, mut keep: impl FnMut(u64, usize)) {
        let Some(skips) = &mut self.skips else { return };
        while self.seen < skips.next() && skips.next() <= end {
            self.seen = skips.next();
            keep(self.seen, below(self.capacity, &mut self.random) as usize);
            skips.advance(self.capacity, &mut self.random);
        }
    }

    fn skips_are_due(&self) -> bool {
        self.capacity > 0 && self.seen >= self.capacity.saturating_mul(DRAW_FOR_EACH)
    }

    /// Rows kept.
    pub fn len(&self) -> u64 {
        self.seen.min(self.capacity)
    }

    /// Whether no row is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it can have come about: what comes from a file may be anything, and a generator whose state is 0 stays there.
    pub fn is_sound(&self) -> bool {
        let mut random = self.random.clone();
        let moves = (0..4).any(|_| random.next_u64() != 0);
        let skips = self.skips.is_some() == self.skips_are_due();
        moves && skips && self.skips.is_none_or(|skips| skips.fits(self.seen))
    }
}

/// Uniform in 0..n by multiply and shift (Lemire 2019, without rejection: the bias is below n / 2^64).
fn below(n: u64, random: &mut Xoshiro256PlusPlus) -> u64 {
    ((u128::from(random.next_u64()) * u128::from(n)) >> 64) as u64
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

    /// Calls `each` with the finite values of every column, from the first column to the last.
    pub fn for_each_column(&self, each: impl FnMut(usize, &mut dyn Ordered)) {
        match &self.values {
            Values::F32(values) => for_each_column(values, self.columns, each),
            Values::F64(values) => for_each_column(values, self.columns, each),
        }
    }

    /// Of every column: how many finite values it has, and their quantiles.
    pub fn quantiles(&self) -> Vec<(u64, Option<Quantiles>)> {
        let mut quantiles = Vec::with_capacity(self.columns);
        self.for_each_column(|_, column| quantiles.push((column.count() as u64, column.quantiles())));
        quantiles
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
    use crate::stats::chi2_p;
    use proptest::prelude::*;

    /// χ² over which rows are kept, on both sides of 16k: an off-by-one in the range (0..n instead of 0..=n) shows at small k, and a
    /// first key that is too large or too small in the rows that follow it.
    #[test]
    fn keeps_every_row_equally_often() {
        let cases = [
            (1, 10, 40_000),
            (1, 50, 40_000),
            (4, 13, 40_000),
            (4, 200, 20_000),
            (100, 120, 4_000),
            (100, 2400, 2_000),
        ];
        for (k, rows, runs) in cases {
            let mut kept_count = vec![0f64; rows];
            for seed in 0..runs {
                sampled(k, rows, seed).iter().for_each(|&row| kept_count[row] += 1.0);
            }
            let share = k as f64 / rows as f64;
            let expected = runs as f64 * share;
            let chi2: f64 =
                kept_count.iter().map(|count| (count - expected).powi(2) / (expected * (1.0 - share))).sum();
            // The counts of one run add up to k, which is all that ties them to each other.
            let p = chi2_p(chi2 * (rows as f64 - 1.0) / rows as f64, rows as u64 - 1);
            assert!(p > 1e-6, "k = {k}, {rows} rows: χ² = {chi2}, which chance exceeds once in {:.0} runs", 1.0 / p);
        }
    }

    /// χ² over whole samples: all 45 pairs of the 10 rows after the switch that are kept together.
    #[test]
    fn keeps_every_pair_of_rows_equally_often() {
        let (k, rows, runs, first) = (2, 42, 200_000, 32);
        let mut counts = vec![0u32; 100];
        for seed in 0..runs {
            let mut pair = sampled(k, rows, seed);
            pair.sort_unstable();
            if pair[0] >= first {
                counts[(pair[0] - first) * 10 + pair[1] - first] += 1;
            }
        }
        let expected = runs as f64 / (rows * (rows - 1) / 2) as f64;
        let pairs = (0..10).flat_map(|i| (i + 1..10).map(move |j| i * 10 + j));
        let chi2: f64 = pairs.map(|at| (f64::from(counts[at]) - expected).powi(2) / expected).sum();
        let p = chi2_p(chi2, 45);
        assert!(p > 1e-6, "χ² = {chi2}, which chance exceeds once in {:.0} runs", 1.0 / p);
    }

    /// The rows in the slots, after all of them were offered at once.
    fn sampled(capacity: u64, rows: usize, seed: u64) -> Vec<usize> {
        let (mut slots, mut kept) = (vec![usize::MAX; capacity as usize], Vec::new());
        Reservoir::new(capacity, seed).offer(rows, &mut kept);
        kept.iter().for_each(|&(row, slot)| slots[slot] = row);
        slots
    }

    #[test]
    fn the_same_seed_keeps_the_same_rows() {
        assert_eq!(sampled(3, 100, 7), sampled(3, 100, 7));
        assert_ne!(sampled(3, 100, 7), sampled(3, 100, 8));
    }

    #[test]
    fn of_no_capacity_keeps_nothing() {
        let (mut reservoir, mut kept) = (Reservoir::new(0, 1), Vec::new());
        reservoir.offer(1000, &mut kept);
        assert!(kept.is_empty() && reservoir.is_sound());
    }

    #[test]
    fn at_the_end_of_all_numbers_nothing_is_kept() {
        let mut reservoir = Reservoir { seen: u64::MAX - 5, ..Reservoir::new(2, 1) };
        let mut kept = Vec::new();
        (0..3).for_each(|_| reservoir.offer(100, &mut kept));
        assert!(reservoir.is_sound() && kept.len() <= 5);
    }

    #[test]
    fn what_cannot_have_been_is_refused() {
        let mut old = Reservoir::new(2, 1);
        old.offer(32, &mut Vec::new());
        assert!(old.is_sound() && old.skips.is_some());
        assert!(!Reservoir { seen: 31, ..old.clone() }.is_sound(), "too early for skips");
        assert!(!Reservoir { skips: None, ..old.clone() }.is_sound(), "too late for none");
        assert!(!Reservoir { seen: old.skips.unwrap().next(), ..old }.is_sound(), "past the next row");
        let stuck = postcard::from_bytes([[0; 32].as_slice()].concat().as_slice()).unwrap();
        assert!(!Reservoir { random: stuck, ..Reservoir::new(2, 1) }.is_sound());
    }

    proptest! {
        #[test]
        fn however_batches_are_cut_and_wherever_it_was_saved_the_same_rows_go_to_the_same_slots(
            capacity in 1..20u64,
            cuts in proptest::collection::vec(0..200usize, 1..12),
            seed in 0..u64::MAX,
        ) {
            let (mut whole, mut kept) = (Reservoir::new(capacity, seed), Vec::new());
            whole.offer(cuts.iter().sum(), &mut kept);
            let (mut pieces, mut by_pieces, mut offset) = (Reservoir::new(capacity, seed), Vec::new(), 0);
            for rows in cuts {
                let mut kept = Vec::new();
                pieces.offer(rows, &mut kept);
                by_pieces.extend(kept.into_iter().map(|(row, slot)| (offset + row, slot)));
                offset += rows;
                prop_assert!(pieces.is_sound());
                pieces = postcard::from_bytes(&postcard::to_stdvec(&pieces).unwrap()).unwrap();
            }
            prop_assert_eq!(kept, by_pieces);
        }
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
