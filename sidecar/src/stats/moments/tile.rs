//! Sums of some columns over a block of rows, in vector registers from the first row to the last.

use super::Pending;
use crate::stats::dispatch::{Kernel, prefetch};
use crate::stats::scalar::{Lane, Scalar};

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
        if !careful {
            let ahead = self.rows.len() / self.width * first;
            let tile =
                sum_finite::<T, W>(self.rows, self.width, first, &shifts, &self.next[ahead.min(self.next.len())..]);
            if tile.s2.iter().all(|s2| s2.is_finite()) {
                self.pending.add_lanes(first, &tile);
                return false;
            }
        }
        let tile = sum_any::<T, W>(self.rows, self.width, first, &shifts);
        self.pending.add_lanes(first, &tile);
        tile.nan.iter().chain(&tile.inf).any(|&count| count.into() > 0)
    }
}

/// Of each lane.
pub struct Tile<L: Lane, const W: usize> {
    pub s1: [f64; W],
    pub s2: [f64; W],
    pub min: [L; W],
    pub max: [L; W],
    pub zero: [L::Count; W],
    pub nan: [L::Count; W],
    pub inf: [L::Count; W],
}

impl<L: Lane, const W: usize> Tile<L, W> {
    const NONE: Tile<L, W> = Tile {
        s1: [0.0; W],
        s2: [0.0; W],
        min: [L::INFINITY; W],
        max: [L::NEG_INFINITY; W],
        zero: [L::ZERO_COUNT; W],
        nan: [L::ZERO_COUNT; W],
        inf: [L::ZERO_COUNT; W],
    };

    /// By itself.
    #[inline(always)]
    pub fn lane(&self, lane: usize) -> Tile<L, 1> {
        Tile {
            s1: [self.s1[lane]],
            s2: [self.s2[lane]],
            min: [self.min[lane]],
            max: [self.max[lane]],
            zero: [self.zero[lane]],
            nan: [self.nan[lane]],
            inf: [self.inf[lane]],
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
        for lane in 0..W {
            let x = row[lane].lane();
            let d = x.into() - shifts[lane];
            sums.s1[lane] += d;
            sums.s2[lane] += d * d;
            sums.min[lane] = if x < sums.min[lane] { x } else { sums.min[lane] };
            sums.max[lane] = if x > sums.max[lane] { x } else { sums.max[lane] };
            sums.zero[lane] += x.is_zero().into();
        }
    }
    sums
}

#[inline(always)]
fn sum_any<T: Scalar, const W: usize>(rows: &[T], width: usize, first: usize, shifts: &[f64; W]) -> Tile<T::Lane, W> {
    let mut sums = Tile::<T::Lane, W>::NONE;
    for row in rows.chunks_exact(width) {
        let row: &[T; W] = row[first..first + W].try_into().expect("W lanes");
        for lane in 0..W {
            let x = row[lane].lane();
            let finite = x > T::Lane::NEG_INFINITY && x < T::Lane::INFINITY;
            let d = if finite { x.into() - shifts[lane] } else { 0.0 };
            sums.s1[lane] += d;
            sums.s2[lane] += d * d;
            let (low, high) = if finite { (x, x) } else { (T::Lane::INFINITY, T::Lane::NEG_INFINITY) };
            sums.min[lane] = if low < sums.min[lane] { low } else { sums.min[lane] };
            sums.max[lane] = if high > sums.max[lane] { high } else { sums.max[lane] };
            sums.zero[lane] += x.is_zero().into();
            sums.nan[lane] += x.is_nan().into();
            sums.inf[lane] += (!finite && !x.is_nan()).into();
        }
    }
    sums
}
