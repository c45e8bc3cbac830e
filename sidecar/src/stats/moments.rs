//! Count, mean, variance, extremes and missing values of every column, over every row.
//!
//! Of 64 rows at a time sums of d = x − o and d² are taken in the values' own precision, f32 or f64, with o the median of three of
//! them, so that neither an outlier nor a jump costs digits; they are moved to K in `f64`, which is near the mean, and merged into
//! (n, mean, M2) by Chan's formula every few thousand rows. K starts as the first finite value and moves to the running mean at each
//! merge, the first after 16 rows. Where f32 does not do, because squares overflow or vanish, all is `f64`.
//!
//! Chan, Golub, LeVeque: Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (1979).

mod tile;

use super::dispatch::dispatch;
use super::scalar::{Lane, Scalar};
use super::{Columns, packed, with_view};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};
use tile::{Block, Missing, Tile, lanes};

/// What is known of one column. `n` counts finite values; the others are counted apart and enter nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Finite values.
    pub n: u64,
    /// NaN: missing.
    pub nan: u64,
    /// ±∞.
    pub inf: u64,
    /// Values equal to 0.
    pub zero: u64,
    /// Mean of the finite values; 0 while there are none.
    pub mean: f64,
    /// Sum of squared distances from the mean; +∞ where it exceeds f64.
    pub m2: f64,
    /// Least finite value; +∞ while there are none.
    pub min: f64,
    /// Largest finite value; −∞ while there are none.
    pub max: f64,
}

impl Default for Moment {
    fn default() -> Moment {
        Moment::NONE
    }
}

impl Moment {
    /// Of no value.
    pub const NONE: Moment =
        Moment { n: 0, nan: 0, inf: 0, zero: 0, mean: 0.0, m2: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY };

    /// Of one finite value.
    pub fn of(x: f64) -> Moment {
        Moment { n: 1, zero: u64::from(x == 0.0), mean: x, min: x, max: x, ..Moment::NONE }
    }

    /// As if `other`'s values had been seen too.
    pub fn merge(&mut self, other: &Moment) {
        let n = self.n.saturating_add(other.n);
        if self.n == 0 {
            (self.mean, self.m2) = (other.mean, other.m2);
        } else if other.n > 0 {
            let delta = other.mean - self.mean;
            let share = other.n as f64 / n as f64;
            self.mean += delta * share;
            self.m2 += other.m2 + delta * delta * self.n as f64 * share;
        }
        self.n = n;
        self.nan = self.nan.saturating_add(other.nan);
        self.inf = self.inf.saturating_add(other.inf);
        self.zero = self.zero.saturating_add(other.zero);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Whether every finite value lies from `least` to `most`.
    pub fn is_within(&self, least: f64, most: f64) -> bool {
        self.min >= least && self.max <= most
    }

    /// Values of any kind.
    fn rows(&self) -> u64 {
        self.n.saturating_add(self.nan).saturating_add(self.inf)
    }

    /// Standard deviation with ddof 0; `None` without values.
    pub fn std(&self) -> Option<f64> {
        (self.n > 0).then(|| (self.m2 / self.n as f64).sqrt())
    }
}

/// Bytes of a block of rows: small enough to stay near while its columns are walked, with the next one on its way.
const BLOCK_BYTES: usize = 48 << 10;
/// Wide rows have larger ones, which stay in the second-level cache.
const LARGEST_BLOCK_BYTES: usize = 208 << 10;
/// So many in a block that adding up its sums takes little beside making them.
const ENOUGH_ROWS: usize = 64;
/// Blocks of a batch for which it is worth while that nobody asks for the first.
const LONG: usize = 8;
const FIRST_FLUSH: u64 = 16;
const FLUSH: u64 = 4096;

/// [`Moment`]s of the columns of one matrix.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Moments {
    merged: Vec<Moment>,
    pending: Pending,
    pending_rows: u64,
    /// Every column has a shift.
    started: bool,
}

/// Sums of each column since the last merge, about its shift.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pending {
    /// NaN = the column has had no finite value.
    shifts: Vec<f64>,
    s1: Vec<f64>,
    s2: Vec<f64>,
    min: Vec<f64>,
    max: Vec<f64>,
    zero: Vec<u64>,
    nan: Vec<u64>,
    inf: Vec<u64>,
}

impl Moments {
    /// For matrices of `columns` columns.
    pub fn new(columns: usize) -> Moments {
        Moments {
            merged: vec![Moment::NONE; columns],
            pending: Pending::new(vec![f64::NAN; columns]),
            pending_rows: 0,
            started: false,
        }
    }

    /// Whether it is for matrices of `columns` columns: what comes from a file may not be.
    pub fn fits(&self, columns: usize) -> bool {
        self.merged.len() == columns && self.pending.fits(columns) && self.pending_rows < FLUSH
    }

    /// Adds every row of `matrix`, which has as many columns as `self`.
    pub fn update(&mut self, matrix: &Columns<'_>) {
        with_view!(matrix, view => self.update_typed(view));
    }

    /// The same for a known element type.
    pub fn update_typed<T: Scalar>(&mut self, matrix: &ArrayView2<'_, T>) {
        let columns = self.merged.len();
        assert_eq!(matrix.ncols(), columns, "the schema fixes the number of columns");
        if columns == 0 || matrix.nrows() == 0 {
            return;
        }
        let mut rest = packed(matrix);
        self.start(rest, columns);
        let folded = folded_rows::<T>(columns);
        let block_rows = folded * rows_of_block(folded * columns * size_of::<T>());
        let is_long = rest.len() / columns >= LONG * block_rows;
        while !rest.is_empty() {
            let until_flush = self.flush_at() - self.pending_rows;
            let rows = block_rows.min(rest.len() / columns).min(until_flush as usize);
            let (block, after) = rest.split_at(rows * columns);
            let (folds, single) = block.split_at(rows / folded * folded * columns);
            let (next, width) = (after, columns * folded);
            dispatch(Block { rows: folds, width, next, is_long, pending: &mut self.pending });
            dispatch(Block { rows: single, width: columns, next, is_long, pending: &mut self.pending });
            self.pending_rows += rows as u64;
            if self.pending_rows == self.flush_at() {
                self.flush();
            }
            rest = after;
        }
    }

    /// The state after everything added.
    pub fn columns(&self) -> Vec<Moment> {
        let mut merged = self.merged.clone();
        let pending = (0..merged.len()).map(|column| self.pending.moment(column, self.pending_rows));
        merged.iter_mut().zip(pending).for_each(|(moment, pending)| moment.merge(&pending));
        merged
    }

    /// Finds the first finite value of every column that has had none: with any other shift, 0 say, values far from it would lose
    /// the digits of their variance.
    fn start<T: Scalar>(&mut self, values: &[T], columns: usize) {
        if self.started {
            return;
        }
        let shifts = &mut self.pending.shifts;
        for (column, shift) in shifts.iter_mut().enumerate().filter(|(_, shift)| shift.is_nan()) {
            let mut values = values.iter().skip(column).step_by(columns).map(|x| x.widen());
            *shift = values.find(|x| x.is_finite()).unwrap_or(f64::NAN);
        }
        self.started = !shifts.iter().any(|shift| shift.is_nan());
    }

    fn flush_at(&self) -> u64 {
        if self.merged[0].rows() == 0 { FIRST_FLUSH } else { FLUSH }
    }

    fn flush(&mut self) {
        for (column, moment) in self.merged.iter_mut().enumerate() {
            moment.merge(&self.pending.moment(column, self.pending_rows));
            if moment.n > 0 {
                self.pending.shifts[column] = moment.mean;
            }
        }
        self.pending.clear();
        self.pending_rows = 0;
    }
}

impl Pending {
    fn new(shifts: Vec<f64>) -> Pending {
        let columns = shifts.len();
        Pending {
            shifts,
            s1: vec![0.0; columns],
            s2: vec![0.0; columns],
            min: vec![f64::INFINITY; columns],
            max: vec![f64::NEG_INFINITY; columns],
            zero: vec![0; columns],
            nan: vec![0; columns],
            inf: vec![0; columns],
        }
    }

    /// All but the shifts.
    fn clear(&mut self) {
        [&mut self.s1, &mut self.s2].into_iter().for_each(|sums| sums.fill(0.0));
        [&mut self.zero, &mut self.nan, &mut self.inf].into_iter().for_each(|counts| counts.fill(0));
        self.min.fill(f64::INFINITY);
        self.max.fill(f64::NEG_INFINITY);
    }

    fn fits(&self, columns: usize) -> bool {
        let floats = [&self.shifts, &self.s1, &self.s2, &self.min, &self.max];
        let counts = [&self.zero, &self.nan, &self.inf];
        floats.iter().all(|values| values.len() == columns) && counts.iter().all(|counts| counts.len() == columns)
    }

    fn moment(&self, column: usize, rows: u64) -> Moment {
        let [s1, s2] = [self.s1[column], self.s2[column]];
        let (nan, inf) = (self.nan[column], self.inf[column]);
        let n = rows.saturating_sub(nan + inf);
        let mean_d = if n > 0 { s1 / n as f64 } else { 0.0 };
        Moment {
            n,
            nan,
            inf,
            zero: self.zero[column],
            mean: if n > 0 { self.shifts[column] + mean_d } else { 0.0 },
            // Rounding may leave a tiny negative where values are constant; squares of |d| > 1e154 overflow, and say so.
            m2: if s2.is_finite() { (s2 - s1 * mean_d).max(0.0) } else { f64::INFINITY },
            min: self.min[column],
            max: self.max[column],
        }
    }

    /// The shifts of the columns that lanes from `first` are in; any will do for those that have had no finite value.
    #[inline(always)]
    fn lanes<const W: usize>(&self, first: usize) -> [f64; W] {
        let shifts: [f64; W] = match self.shifts.get(first..first + W) {
            Some(shifts) => shifts.try_into().expect("W lanes"),
            None => {
                let mut column = first % self.shifts.len();
                [(); W].map(|()| self.shifts[next(&mut column, self.shifts.len())])
            }
        };
        shifts.map(|shift| if shift.is_nan() { 0.0 } else { shift })
    }

    #[inline(always)]
    fn add_lanes<L: Lane, const W: usize>(&mut self, first: usize, tile: &Tile<L, W>) {
        let columns = self.shifts.len();
        if first + W <= columns {
            return self.add(first, tile);
        }
        let mut column = first % columns;
        for lane in 0..W {
            self.add(next(&mut column, columns), &tile.lane(lane));
        }
    }

    #[inline(always)]
    fn add<L: Lane, const W: usize>(&mut self, first: usize, tile: &Tile<L, W>) {
        let to = first..first + W;
        self.s1[to.clone()].iter_mut().zip(tile.s1).for_each(|(to, s1)| *to += s1);
        self.s2[to.clone()].iter_mut().zip(tile.s2).for_each(|(to, s2)| *to += s2);
        // Everything is read before it is chosen from, or it is stored under a mask.
        for (to, x) in self.min[to.clone()].iter_mut().zip(tile.min) {
            let (x, least) = (x.into(), *to);
            *to = if x < least { x } else { least };
        }
        for (to, x) in self.max[to.clone()].iter_mut().zip(tile.max) {
            let (x, most) = (x.into(), *to);
            *to = if x > most { x } else { most };
        }
        self.zero[to].iter_mut().zip(tile.zero).for_each(|(to, count)| *to += count.into());
    }

    #[inline(always)]
    fn add_missing<L: Lane, const W: usize>(&mut self, first: usize, missing: &Missing<L, W>) {
        let columns = self.shifts.len();
        let mut column = first % columns;
        for (nan, inf) in missing.nan.iter().zip(missing.inf) {
            let column = next(&mut column, columns);
            self.nan[column] += (*nan).into();
            self.inf[column] += inf.into();
        }
    }
}

/// `column`, which becomes the one after it; after the last comes the first.
#[inline(always)]
fn next(column: &mut usize, columns: usize) -> usize {
    let this = *column;
    *column = if this + 1 == columns { 0 } else { this + 1 };
    this
}

/// So many rows are taken as one whose width is a multiple of the lanes, so that no columns are left over, unless a block would hold
/// too few of those.
fn folded_rows<T: Scalar>(columns: usize) -> usize {
    let folded = lanes::<T>() >> columns.trailing_zeros().min(lanes::<T>().trailing_zeros());
    if folded * columns * size_of::<T>() <= LARGEST_BLOCK_BYTES / 8 { folded } else { 1 }
}

fn rows_of_block(row_bytes: usize) -> usize {
    let enough = ENOUGH_ROWS.min(LARGEST_BLOCK_BYTES / row_bytes);
    (BLOCK_BYTES / row_bytes).max(enough).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::dispatch::Kernel;
    use proptest::prelude::*;

    #[test]
    fn counts_that_somebody_forged_saturate() {
        let forged = Moment { n: u64::MAX - 1, nan: u64::MAX, inf: u64::MAX, zero: u64::MAX, ..Moment::of(0.0) };
        let mut merged = forged;
        merged.merge(&forged);
        assert_eq!(
            (merged.n, merged.nan, merged.inf, merged.zero, merged.rows()),
            (u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX)
        );
        assert_eq!((merged.mean, merged.m2), (0.0, 0.0));
    }

    /// The obvious way: two passes over one column.
    fn oracle(column: &[f64]) -> Moment {
        let finite: Vec<f64> = column.iter().copied().filter(|x| x.is_finite()).collect();
        let n = finite.len() as f64;
        let mean = if finite.is_empty() { 0.0 } else { finite.iter().sum::<f64>() / n };
        Moment {
            n: finite.len() as u64,
            nan: column.iter().filter(|x| x.is_nan()).count() as u64,
            inf: column.iter().filter(|x| x.is_infinite()).count() as u64,
            zero: column.iter().filter(|&&x| x == 0.0).count() as u64,
            mean,
            m2: finite.iter().map(|x| (x - mean) * (x - mean)).sum(),
            min: finite.iter().copied().fold(f64::INFINITY, f64::min),
            max: finite.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    /// Of values that are held in f64.
    fn assert_close(got: &Moment, want: &Moment) {
        assert_within(1e-12, 1e-9, got, want);
    }

    /// Of values that are held in f32.
    fn assert_near(got: &Moment, want: &Moment) {
        assert_within(1e-6, 1e-6, got, want);
    }

    /// The mean is right within `of_std` of the standard deviation, which is right within `of_itself`; but for the last digits of the
    /// mean in f64.
    fn assert_within(of_std: f64, of_itself: f64, got: &Moment, want: &Moment) {
        assert_eq!((got.n, got.nan, got.inf, got.zero), (want.n, want.nan, want.inf, want.zero));
        assert_eq!((got.min, got.max), (want.min, want.max));
        let std = want.std().unwrap_or(0.0);
        let digits = 1e-12 * want.mean.abs().max(std).max(f64::MIN_POSITIVE);
        let mean_off = (got.mean - want.mean).abs();
        assert!(mean_off <= of_std * std + digits, "mean {} want {}: off by {mean_off:e}", got.mean, want.mean);
        let std_off = (got.std().unwrap_or(0.0) - std).abs();
        assert!(std_off <= of_itself * std + digits, "std {:?} want {std}: off by {std_off:e}", got.std());
    }

    fn fed<T: Scalar>(values: &[T], columns: usize, cut: usize) -> Moments {
        let mut moments = Moments::new(columns);
        for batch in values.chunks(cut * columns) {
            moments.update_typed(&ArrayView2::from_shape((batch.len() / columns, columns), batch).unwrap());
        }
        moments
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => -1e3..1e3f64,
            2 => Just(0.0),
            1 => Just(f64::NAN),
            1 => Just(f64::INFINITY),
            1 => Just(f64::NEG_INFINITY),
            1 => 1e6..1e6 + 1e-2f64,
        ]
    }

    proptest! {
        #[test]
        fn equal_the_two_pass_oracle_however_batches_are_cut(
            columns in 1..11usize,
            cut in 1..40usize,
            values in proptest::collection::vec(value(), 1..600),
        ) {
            let values = &values[..values.len() - values.len() % columns];
            let moments = fed(values, columns, cut).columns();
            for (j, got) in moments.iter().enumerate() {
                let column: Vec<f64> = values.iter().skip(j).step_by(columns).copied().collect();
                assert_close(got, &oracle(&column));
            }
        }

        #[test]
        fn merge_equals_whole(values in proptest::collection::vec(value(), 2..400), at in 0.0..1.0f64) {
            let at = (values.len() as f64 * at) as usize;
            let mut left = fed(&values[..at], 1, 7).columns()[0];
            left.merge(&fed(&values[at..], 1, 7).columns()[0]);
            assert_close(&left, &oracle(&values));
        }
    }

    proptest! {
        #[test]
        fn of_f32_equal_the_oracle_at_any_width(columns in 1..140usize, values in proptest::collection::vec(value(), 1..1000)) {
            let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
            let values = &values[..values.len() - values.len() % columns];
            let mut moments = Moments::new(columns);
            moments.update_typed(&ArrayView2::from_shape((values.len() / columns, columns), values).unwrap());
            for (j, got) in moments.columns().iter().enumerate() {
                let column: Vec<f64> = values.iter().skip(j).step_by(columns).map(|&x| x.into()).collect();
                // An origin may be an outlier here, where two of the three rows that it is taken from are.
                assert_within(1e-5, 1e-5, got, &oracle(&column));
            }
        }

        #[test]
        fn are_the_same_bits_whatever_the_instructions(columns in 1..40usize, values in proptest::collection::vec(value(), 40..900)) {
            let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
            let rows = &values[..values.len() - values.len() % columns];
            let shifts: Vec<f64> = (0..columns).map(|j| 0.1 * j as f64).collect();
            let (mut widest, mut plain) = (Pending::new(shifts.clone()), Pending::new(shifts));
            dispatch(Block { rows, width: columns, next: &[], is_long: false, pending: &mut widest });
            Kernel::run(Block { rows, width: columns, next: &[], is_long: true, pending: &mut plain });
            let bits = |sums: &[f64]| sums.iter().map(|sum| sum.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&widest.s1), bits(&plain.s1));
            prop_assert_eq!(bits(&widest.s2), bits(&plain.s2));
            prop_assert_eq!((&widest.min, &widest.max, &widest.zero), (&plain.min, &plain.max, &plain.zero));
            prop_assert_eq!((widest.nan, widest.inf), (plain.nan, plain.inf));
        }
    }

    type Case = (&'static str, Box<dyn Fn(usize) -> f64>);

    /// Each has broken some way to sum.
    fn hard_columns() -> Vec<Case> {
        let noise = |i: usize| (i as f64 * 0.754_877_666).fract() - 0.5;
        let every = |n: usize| move |i: usize| if i.is_multiple_of(n) { 1e4 } else { noise(i) };
        vec![
            ("uniform", Box::new(noise)),
            ("mean 1e6, std 1e-2", Box::new(move |i| 1e6 + 1e-2 * noise(i))),
            ("mean 1000, std 1", Box::new(move |i| 1000.0 + 3.46 * noise(i))),
            ("constant", Box::new(|_| 0.1)),
            ("zero", Box::new(|_| 0.0)),
            ("one of ten not zero", Box::new(move |i| if i % 10 == 3 { noise(i) } else { 0.0 })),
            ("outlier first", Box::new(move |i| if i == 0 { 1e12 } else { noise(i) })),
            ("outlier late", Box::new(move |i| if i == 9999 { 1e12 } else { noise(i) })),
            ("outlier in every 16th row", Box::new(every(16))),
            ("outlier in every 64th row", Box::new(every(64))),
            ("outlier in every 128th row", Box::new(every(128))),
            ("step", Box::new(move |i| if i < 16 { noise(i) } else { 1e6 + noise(i) })),
            ("step late", Box::new(move |i| if i < 9000 { noise(i) } else { 1e6 + noise(i) })),
            ("ramp", Box::new(|i| i as f64)),
            ("two values", Box::new(|i| if i % 2 == 0 { -1e-3 } else { 1e3 })),
            ("1e30", Box::new(move |i| 1e30 * noise(i))),
            ("1e-30", Box::new(move |i| 1e-30 * noise(i))),
            ("three of 1e-30", Box::new(|i| 1e-30 * (i % 3) as f64 - 1e-30)),
            ("1e-30 after 1", Box::new(move |i| if i < 128 { 1.0 } else { 1e-30 * noise(i) })),
            ("denormal", Box::new(move |i| 1e-310 * noise(i))),
            ("denormal in f32", Box::new(move |i| 1e-40 * noise(i))),
            ("largest in f32", Box::new(|i| if i % 2 == 0 { f32::MAX.into() } else { f32::MIN.into() })),
            ("one in a hundred missing", Box::new(move |i| if i % 100 == 7 { f64::NAN } else { noise(i) })),
            ("some infinite", Box::new(move |i| if i % 1000 < 2 { f64::INFINITY } else { noise(i) })),
            ("all but one missing", Box::new(|i| if i == 5000 { 1e6 } else { f64::NAN })),
            ("none", Box::new(|_| f64::NAN)),
        ]
    }

    #[test]
    fn keep_their_digits_on_hard_columns() {
        for (name, case) in hard_columns() {
            let values: Vec<f64> = (0..20_000).map(case).collect();
            for (columns, cut) in [(1, 128), (1, 20_000), (2, 64), (20, 100)] {
                println!("{name}, {columns} columns, {cut} rows at once");
                let column = |of: usize| values.iter().skip(of).step_by(columns).copied().collect::<Vec<_>>();
                for (j, got) in fed(&values, columns, cut).columns().iter().enumerate() {
                    assert_close(got, &oracle(&column(j)));
                }
                let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
                for (j, got) in fed(&values, columns, cut).columns().iter().enumerate() {
                    let column: Vec<f64> = column(j).iter().map(|&x| f64::from(x as f32)).collect();
                    assert_near(got, &oracle(&column));
                }
            }
        }
    }

    #[test]
    fn keep_their_digits_where_the_first_values_are_missing() {
        for missing in [1, 15, 16, 17, 5000] {
            for cut in [1, 7, 6000] {
                let mut values = vec![f64::NAN; missing];
                values.extend([f64::INFINITY, 1e6, 1e6 + 1e-2]);
                assert_close(&fed(&values, 1, cut).columns()[0], &oracle(&values));
            }
        }
    }

    #[test]
    fn say_so_when_squares_overflow() {
        let moment = fed(&[1e200, -1e200, 0.0], 1, 2).columns()[0];
        assert_eq!((moment.n, moment.std()), (3, Some(f64::INFINITY)));
        let constant = fed(&[1e200; 50], 1, 7).columns()[0];
        assert_eq!((constant.mean, constant.std()), (1e200, Some(0.0)));
    }

    #[test]
    fn of_nothing_have_no_std() {
        let mut moments = Moments::new(2);
        moments.update_typed(&ArrayView2::<f32>::from_shape((0, 2), &[]).unwrap());
        assert_eq!(moments.columns()[0].std(), None);
        assert_eq!(moments.columns()[0].n, 0);
    }
}
