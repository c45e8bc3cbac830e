//! Count, mean, variance, extremes and missing values of every column, over every row.
//!
//! Sums of d = x − K and d² are taken in `f64` with K near the mean, and merged into (n, mean, M2) by Chan's formula every
//! few thousand rows. K starts as the first finite value and moves to the running mean at each merge, the first after 16 rows, so
//! that an outlier in the first row costs no digits.
//!
//! Chan, Golub, LeVeque: Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (1979).

use super::{Columns, Scalar, packed, with_view};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

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

impl Moment {
    const NONE: Moment =
        Moment { n: 0, nan: 0, inf: 0, zero: 0, mean: 0.0, m2: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY };

    /// As if `other`'s values had been seen too.
    pub fn merge(&mut self, other: &Moment) {
        let n = self.n + other.n;
        if self.n == 0 {
            (self.mean, self.m2) = (other.mean, other.m2);
        } else if other.n > 0 {
            let delta = other.mean - self.mean;
            let share = other.n as f64 / n as f64;
            self.mean += delta * share;
            self.m2 += other.m2 + delta * delta * self.n as f64 * share;
        }
        self.n = n;
        self.nan += other.nan;
        self.inf += other.inf;
        self.zero += other.zero;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Standard deviation with ddof 0; `None` without values.
    pub fn std(&self) -> Option<f64> {
        (self.n > 0).then(|| (self.m2 / self.n as f64).sqrt())
    }
}

/// Columns summed together so that the compiler keeps them in vector registers.
const LANES: usize = 4;
/// Bytes of a block of rows: small enough to stay in the first-level cache while its columns are walked.
const BLOCK_BYTES: usize = 24 << 10;
const FIRST_FLUSH: u64 = 16;
const FLUSH: u64 = 4096;

/// [`Moment`]s of the columns of one matrix.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Moments {
    merged: Vec<Moment>,
    pending: Vec<Sums>,
    pending_rows: u64,
    /// NaN = the column has had no finite value.
    shifts: Vec<f64>,
    /// Every column has a shift.
    started: bool,
}

/// Sums of one column since the last merge, about its shift.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Sums {
    s1: f64,
    s2: f64,
    min: f64,
    max: f64,
    zero: u64,
    nan: u64,
    inf: u64,
}

impl Sums {
    const NONE: Sums = Sums { s1: 0.0, s2: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY, zero: 0, nan: 0, inf: 0 };

    fn add(&mut self, other: &Sums) {
        self.s1 += other.s1;
        self.s2 += other.s2;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.zero += other.zero;
        self.nan += other.nan;
        self.inf += other.inf;
    }

    fn moment(&self, rows: u64, shift: f64) -> Moment {
        let n = rows - self.nan - self.inf;
        let mean_d = if n > 0 { self.s1 / n as f64 } else { 0.0 };
        Moment {
            n,
            nan: self.nan,
            inf: self.inf,
            zero: self.zero,
            mean: if n > 0 { shift + mean_d } else { 0.0 },
            // Rounding may leave a tiny negative where values are constant; squares of |d| > 1e154 overflow, and say so.
            m2: if self.s2.is_finite() { (self.s2 - self.s1 * mean_d).max(0.0) } else { f64::INFINITY },
            min: self.min,
            max: self.max,
        }
    }
}

impl Moments {
    /// For matrices of `columns` columns.
    pub fn new(columns: usize) -> Moments {
        Moments {
            merged: vec![Moment::NONE; columns],
            pending: vec![Sums::NONE; columns],
            pending_rows: 0,
            shifts: vec![f64::NAN; columns],
            started: false,
        }
    }

    /// Whether it is for matrices of `columns` columns: what comes from a file may not be.
    pub fn fits(&self, columns: usize) -> bool {
        [self.merged.len(), self.pending.len(), self.shifts.len()] == [columns; 3] && self.pending_rows < FLUSH
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
        let values = packed(matrix);
        self.start(values, columns);
        let block_rows = (BLOCK_BYTES / (columns * size_of::<T>())).clamp(1, FLUSH as usize);
        let mut rest = values;
        while !rest.is_empty() {
            let until_flush = self.flush_at() - self.pending_rows;
            let rows = block_rows.min(rest.len() / columns).min(until_flush as usize);
            let (block, after) = rest.split_at(rows * columns);
            self.add_block(block, columns);
            self.pending_rows += rows as u64;
            if self.pending_rows == self.flush_at() {
                self.flush();
            }
            rest = after;
        }
    }

    /// The state after everything added.
    pub fn columns(&self) -> Vec<Moment> {
        let sums = self.pending.iter().zip(&self.shifts);
        let pending = sums.map(|(sums, &shift)| sums.moment(self.pending_rows, shift));
        let mut merged = self.merged.clone();
        merged.iter_mut().zip(pending).for_each(|(moment, pending)| moment.merge(&pending));
        merged
    }

    /// Finds the first finite value of every column that has had none: with any other shift, 0 say, values far from it would lose
    /// the digits of their variance.
    fn start<T: Scalar>(&mut self, values: &[T], columns: usize) {
        if self.started {
            return;
        }
        for (column, shift) in self.shifts.iter_mut().enumerate().filter(|(_, shift)| shift.is_nan()) {
            let mut values = values.iter().skip(column).step_by(columns).map(|x| x.widen());
            *shift = values.find(|x| x.is_finite()).unwrap_or(f64::NAN);
        }
        self.started = !self.shifts.iter().any(|shift| shift.is_nan());
    }

    fn flush_at(&self) -> u64 {
        if self.merged.iter().all(|moment| moment.n + moment.nan + moment.inf == 0) { FIRST_FLUSH } else { FLUSH }
    }

    fn flush(&mut self) {
        for ((moment, sums), shift) in self.merged.iter_mut().zip(&mut self.pending).zip(&mut self.shifts) {
            moment.merge(&sums.moment(self.pending_rows, *shift));
            *sums = Sums::NONE;
            if moment.n > 0 {
                *shift = moment.mean;
            }
        }
        self.pending_rows = 0;
    }

    fn add_block<T: Scalar>(&mut self, block: &[T], columns: usize) {
        let whole = columns - columns % LANES;
        for first in (0..whole).step_by(LANES) {
            self.add_lanes::<T, LANES>(block, columns, first);
        }
        for column in whole..columns {
            self.add_lanes::<T, 1>(block, columns, column);
        }
    }

    /// A non-finite value shows in s2, and only then is the block walked again with care.
    fn add_lanes<T: Scalar, const W: usize>(&mut self, block: &[T], columns: usize, first: usize) {
        let shifts: [f64; W] = self.shifts[first..first + W].try_into().expect("W lanes");
        let sums = sum_finite::<T, W>(block, columns, first, &shifts);
        for (lane, sums) in sums.iter().enumerate() {
            let column = first + lane;
            if sums.s2.is_finite() {
                self.pending[column].add(sums);
            } else {
                self.pending[column].add(&sum_any(block, columns, column, shifts[lane]));
            }
        }
    }
}

#[inline(always)]
fn sum_finite<T: Scalar, const W: usize>(block: &[T], columns: usize, first: usize, shifts: &[f64; W]) -> [Sums; W] {
    let (mut s1, mut s2, mut zero) = ([0.0; W], [0.0; W], [0u64; W]);
    let (mut min, mut max) = ([f64::INFINITY; W], [f64::NEG_INFINITY; W]);
    for row in block.chunks_exact(columns) {
        let row: &[T; W] = row[first..first + W].try_into().expect("W lanes");
        for lane in 0..W {
            let x = row[lane].widen();
            let d = x - shifts[lane];
            s1[lane] += d;
            s2[lane] += d * d;
            min[lane] = if x < min[lane] { x } else { min[lane] };
            max[lane] = if x > max[lane] { x } else { max[lane] };
            zero[lane] += u64::from(x == 0.0);
        }
    }
    std::array::from_fn(|l| Sums { s1: s1[l], s2: s2[l], min: min[l], max: max[l], zero: zero[l], nan: 0, inf: 0 })
}

fn sum_any<T: Scalar>(block: &[T], columns: usize, column: usize, shift: f64) -> Sums {
    let mut sums = Sums::NONE;
    for x in block.iter().skip(column).step_by(columns).map(|x| x.widen()) {
        if x.is_nan() {
            sums.nan += 1;
        } else if x.is_infinite() {
            sums.inf += 1;
        } else {
            let d = x - shift;
            sums.add(&Sums { s1: d, s2: d * d, min: x, max: x, zero: u64::from(x == 0.0), nan: 0, inf: 0 });
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    fn assert_close(got: &Moment, want: &Moment) {
        assert_eq!((got.n, got.nan, got.inf, got.zero), (want.n, want.nan, want.inf, want.zero));
        assert_eq!((got.min, got.max), (want.min, want.max));
        let std = want.std().unwrap_or(0.0);
        let size = want.mean.abs().max(std).max(f64::MIN_POSITIVE);
        assert!((got.mean - want.mean).abs() <= 1e-12 * size, "mean {} want {}", got.mean, want.mean);
        let got_std = got.std().unwrap_or(0.0);
        assert!((got_std - std).abs() <= 1e-9 * std + 1e-12 * size, "std {got_std} want {std}");
    }

    fn fed(values: &[f64], columns: usize, cut: usize) -> Moments {
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

    #[test]
    fn keep_their_digits_on_hard_columns() {
        let noise = |i: usize| (i as f64 * 0.754_877_666).fract() - 0.5;
        type Case = Box<dyn Fn(usize) -> f64>;
        let cases: [(&str, Case); 5] = [
            ("mean 1e6, std 1e-2", Box::new(move |i| 1e6 + 1e-2 * noise(i))),
            ("constant", Box::new(|_| 0.1)),
            ("outlier first", Box::new(move |i| if i == 0 { 1e12 } else { noise(i) })),
            ("1e30", Box::new(move |i| 1e30 * noise(i))),
            ("denormal", Box::new(move |i| 1e-310 * noise(i))),
        ];
        for (name, case) in cases {
            let values: Vec<f64> = (0..20_000).map(case).collect();
            let (got, want) = (fed(&values, 1, 128).columns()[0], oracle(&values));
            println!("{name}");
            assert_close(&got, &want);
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
