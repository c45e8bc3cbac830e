//! Sums of some columns over a block of rows, in vector registers from the first row to the last.

use super::Pending;
use crate::stats::dispatch::{Kernel, prefetch};
use crate::stats::scalar::{Lane, Scalar};
use std::array::from_fn;
use std::hint::black_box;
use std::ops::AddAssign;

/// Columns summed together. Their sums, extremes and counts fill most of AVX2's registers.
pub const LANES: usize = 8;

/// Rows in hand, without gaps, to be added to `pending`. A row may be several rows of the matrix side by side.
pub struct Block<'a, T> {
    pub rows: &'a [T],
    pub width: usize,
    /// Asked for meanwhile.
    pub next: &'a [T],
    pub pending: &'a mut Pending,
}

impl<T: Scalar> Kernel for Block<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let whole = self.width - self.width % LANES;
        let mut careful = false;
        for first in (0..whole).step_by(LANES) {
            careful = self.add_lanes::<LANES>(first, careful);
        }
        for first in whole..self.width {
            careful = self.add_lanes::<1>(first, careful);
        }
    }
}

impl<T: Scalar> Block<'_, T> {
    /// A value that is not finite shows in s2, and only then are the rows walked again with care; at once if the last lanes needed it.
    /// Whether these did. Where all is finite, both ways give the same bits.
    #[inline(always)]
    fn add_lanes<const W: usize>(&mut self, first: usize, careful: bool) -> bool {
        let shifts = self.pending.lanes(first);
        let ahead = self.rows.len() / self.width * first;
        let next = &self.next[ahead.min(self.next.len())..];
        if !careful {
            let tile = sum_finite::<T, W>(self.rows, self.width, first, &shifts, next);
            // Of squares: no two of them cancel.
            if tile.s2.iter().sum::<f64>().is_finite() {
                self.pending.add_lanes(first, &tile);
                return false;
            }
        }
        let (tile, missing) = sum_any::<T, W>(self.rows, self.width, first, &shifts, next);
        self.pending.add_lanes(first, &tile);
        self.pending.add_missing(first, &missing);
        missing.nan.iter().chain(&missing.inf).any(|&count| count.into() > 0)
    }
}

/// Of each lane.
pub struct Tile<L: Lane, const W: usize> {
    pub s1: [f64; W],
    pub s2: [f64; W],
    pub min: [L; W],
    pub max: [L; W],
    pub zero: [L::Count; W],
}

/// What enters nothing else.
pub struct Missing<L: Lane, const W: usize> {
    pub nan: [L::Count; W],
    pub inf: [L::Count; W],
}

impl<L: Lane, const W: usize> Tile<L, W> {
    const NONE: Tile<L, W> =
        Tile { s1: [0.0; W], s2: [0.0; W], min: [L::INFINITY; W], max: [L::NEG_INFINITY; W], zero: [L::ZERO_COUNT; W] };

    /// Another row, statistic by statistic, which is what the registers hold.
    #[inline(always)]
    fn add(&mut self, d: &[f64; W], low: &[L; W], high: &[L; W]) {
        (0..W).for_each(|lane| self.s1[lane] += d[lane]);
        (0..W).for_each(|lane| self.s2[lane] += d[lane] * d[lane]);
        (0..W).for_each(|lane| self.min[lane] = if low[lane] < self.min[lane] { low[lane] } else { self.min[lane] });
        (0..W).for_each(|lane| self.max[lane] = if high[lane] > self.max[lane] { high[lane] } else { self.max[lane] });
    }

    /// By itself.
    #[inline(always)]
    pub fn lane(&self, lane: usize) -> Tile<L, 1> {
        Tile {
            s1: [self.s1[lane]],
            s2: [self.s2[lane]],
            min: [self.min[lane]],
            max: [self.max[lane]],
            zero: [self.zero[lane]],
        }
    }
}

#[inline(always)]
fn sum_finite<T: Scalar, const W: usize>(
    rows: &[T],
    width: usize,
    first: usize,
    shifts: &[f64; W],
    next: &[T],
) -> Tile<T::Lane, W> {
    let mut sums = Tile::<T::Lane, W>::NONE;
    for (r, row) in rows.chunks_exact(width).enumerate() {
        prefetch(next, r * W);
        let row: &[T; W] = row[first..first + W].try_into().expect("W lanes");
        let x = row.map(Scalar::lane);
        let d = from_fn(|lane| x[lane].into() - shifts[lane]);
        sums.add(&d, &x, &x);
        count(&mut sums.zero, |lane| x[lane].is_zero());
    }
    whole(sums)
}

#[inline(always)]
fn sum_any<T: Scalar, const W: usize>(
    rows: &[T],
    width: usize,
    first: usize,
    shifts: &[f64; W],
    next: &[T],
) -> (Tile<T::Lane, W>, Missing<T::Lane, W>) {
    let mut sums = Tile::<T::Lane, W>::NONE;
    let mut missing = Missing::<T::Lane, W> { nan: [T::Lane::ZERO_COUNT; W], inf: [T::Lane::ZERO_COUNT; W] };
    for (r, row) in rows.chunks_exact(width).enumerate() {
        prefetch(next, r * W);
        let row: &[T; W] = row[first..first + W].try_into().expect("W lanes");
        let x = row.map(Scalar::lane);
        let finite = x.map(|x| x > T::Lane::NEG_INFINITY && x < T::Lane::INFINITY);
        let d = from_fn(|lane| if finite[lane] { x[lane].into() - shifts[lane] } else { 0.0 });
        let low = from_fn(|lane| if finite[lane] { x[lane] } else { T::Lane::INFINITY });
        let high = from_fn(|lane| if finite[lane] { x[lane] } else { T::Lane::NEG_INFINITY });
        sums.add(&d, &low, &high);
        count(&mut sums.zero, |lane| x[lane].is_zero());
        count(&mut missing.nan, |lane| x[lane].is_nan());
        count(&mut missing.inf, |lane| !finite[lane] && !x[lane].is_nan());
    }
    whole((sums, missing))
}

/// The same. By way of memory, or registers are cut to the halves that the sums are added to others in, and a row takes half as
/// many instructions again.
#[inline(always)]
fn whole<S>(sums: S) -> S {
    black_box(sums)
}

#[inline(always)]
fn count<C: Copy + From<bool> + AddAssign, const W: usize>(counts: &mut [C; W], is: impl Fn(usize) -> bool) {
    (0..W).for_each(|lane| counts[lane] += is(lane).into());
}
