//! Sums of some columns over a block of rows, in vector registers from the first row to the last.

use super::Pending;
use crate::stats::dispatch::{Kernel, prefetch};
use crate::stats::scalar::{Lane, Scalar};
use std::array::from_fn;
use std::hint::black_box;
use std::ops::AddAssign;

/// Lanes summed together: a cache line of values. Their sums, extremes and counts fill most of AVX2's registers.
pub const fn lanes<T: Scalar>() -> usize {
    64 / size_of::<T::Lane>()
}

/// So many lanes later, in units of them.
const AHEAD: usize = 8;

/// Rows whose sums are taken in the values' own precision.
const GROUP: usize = 64;

/// Rows in hand, without gaps, to be added to `pending`. A row may be several rows of the matrix side by side.
pub struct Block<'a, T> {
    pub rows: &'a [T],
    pub width: usize,
    /// The rows after them, or where they would be.
    pub next: &'a [T],
    /// They are asked for meanwhile, line by line, or else what comes a few lanes later: of a short batch that is most of it.
    pub is_long: bool,
    pub pending: &'a mut Pending,
}

impl<T: Scalar> Kernel for Block<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        match lanes::<T>() {
            16 => self.add::<16>(),
            _ => self.add::<8>(),
        }
    }
}

impl<T: Scalar> Block<'_, T> {
    #[inline(always)]
    fn add<const LANES: usize>(mut self) {
        let whole = self.width - self.width % LANES;
        let mut careful = false;
        for first in (0..whole).step_by(LANES) {
            careful = self.add_lanes::<LANES>(first, careful);
        }
        for first in whole..self.width {
            careful = self.add_lanes::<1>(first, careful);
        }
    }

    /// What is not finite, and what the values' own precision does not hold, shows in s2, and only then are the rows walked again with
    /// more care; at once if the last lanes needed it. Whether these did.
    #[inline(always)]
    fn add_lanes<const W: usize>(&mut self, first: usize, careful: bool) -> bool {
        let shifts = self.pending.lanes(first);
        let ahead = match self.is_long {
            true => Ahead { values: self.next, at: self.rows.len() / self.width * first, step: W },
            false => {
                let later = first + AHEAD * W;
                let values = if later + W <= self.width { self.rows } else { self.next };
                Ahead { values, at: later % self.width, step: self.width }
            }
        };
        let mut vanishing = false;
        if !careful {
            match sum_groups::<T, W, false>(self.rows, self.width, first, &shifts, ahead) {
                Ok((tile, _)) => {
                    self.pending.add_lanes(first, &tile);
                    return false;
                }
                Err(unsound) => vanishing = unsound == Unsound::Vanishing,
            }
        }
        if !vanishing
            && let Ok((tile, missing)) = sum_groups::<T, W, true>(self.rows, self.width, first, &shifts, ahead)
        {
            return self.add_sums(first, &tile, &missing);
        }
        let (tile, missing) = sum_wide::<T, W>(self.rows, self.width, first, &shifts);
        self.add_sums(first, &tile, &missing)
    }

    /// Whether some values are missing.
    #[inline(always)]
    fn add_sums<const W: usize>(
        &mut self,
        first: usize,
        tile: &Tile<T::Lane, W>,
        missing: &Missing<T::Lane, W>,
    ) -> bool {
        self.pending.add_lanes(first, tile);
        let any = missing.nan.iter().chain(&missing.inf).any(|&count| count.into() > 0);
        if any {
            self.pending.add_missing(first, missing);
        }
        any
    }
}

/// What is asked for while rows are summed, a step a row. It may lie behind the values, where the next record begins.
#[derive(Clone, Copy)]
struct Ahead<'a, T> {
    values: &'a [T],
    at: usize,
    step: usize,
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

type Sums<L, const W: usize> = (Tile<L, W>, Missing<L, W>);

impl<L: Lane, const W: usize> Missing<L, W> {
    const NONE: Missing<L, W> = Missing { nan: [L::ZERO_COUNT; W], inf: [L::ZERO_COUNT; W] };

    #[inline(always)]
    fn add_group(&mut self, group: &Group<L, W>, rows: u64) {
        for lane in 0..W {
            self.nan[lane] += L::count(rows) - group.finite[lane] - group.inf[lane];
            self.inf[lane] += group.inf[lane];
        }
    }
}

impl<L: Lane, const W: usize> Tile<L, W> {
    const NONE: Tile<L, W> =
        Tile { s1: [0.0; W], s2: [0.0; W], min: [L::INFINITY; W], max: [L::NEG_INFINITY; W], zero: [L::ZERO_COUNT; W] };

    /// Another row, statistic by statistic, which is what the registers hold.
    #[inline(always)]
    fn add(&mut self, d: &[f64; W], low: &[L; W], high: &[L; W]) {
        for lane in 0..W {
            self.s1[lane] += d[lane];
            self.s2[lane] += d[lane] * d[lane];
            self.min[lane] = if low[lane] < self.min[lane] { low[lane] } else { self.min[lane] };
            self.max[lane] = if high[lane] > self.max[lane] { high[lane] } else { self.max[lane] };
        }
    }

    /// Moves a group's sums of `n` values to the shift.
    #[inline(always)]
    fn add_group(&mut self, group: &Group<L, W>, n: &[f64; W], shifts: &[f64; W]) {
        for lane in 0..W {
            let by = group.origin[lane].into() - shifts[lane];
            let s1 = group.s1[lane].into();
            let moved = s1 + n[lane] * by;
            self.s1[lane] += moved;
            self.s2[lane] += group.s2[lane].into() + by * (s1 + moved);
        }
        for lane in 0..W {
            self.min[lane] = if group.min[lane] < self.min[lane] { group.min[lane] } else { self.min[lane] };
            self.max[lane] = if group.max[lane] > self.max[lane] { group.max[lane] } else { self.max[lane] };
        }
        for lane in 0..W {
            self.zero[lane] += group.zero[lane];
        }
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

/// Which rows of 64 an origin is taken from: neither rows at regular intervals, as the first of every batch, nor a step are two of them
/// unless they are many.
const SEEN_OF_64: [usize; 3] = [0, 27, 53];

/// Sums of some rows of each lane about the median of three of them, in the values' own precision.
struct Group<L: Lane, const W: usize> {
    origin: [L; W],
    s1: [L; W],
    s2: [L; W],
    min: [L; W],
    max: [L; W],
    zero: [L::Count; W],
    finite: [L::Count; W],
    inf: [L::Count; W],
}

impl<L: Lane, const W: usize> Group<L, W> {
    fn about(origin: [L; W]) -> Group<L, W> {
        Group {
            origin,
            s1: [L::ZERO; W],
            s2: [L::ZERO; W],
            min: [L::INFINITY; W],
            max: [L::NEG_INFINITY; W],
            zero: [L::ZERO_COUNT; W],
            finite: [L::ZERO_COUNT; W],
            inf: [L::ZERO_COUNT; W],
        }
    }

    /// Another row, statistic by statistic, which is what the registers hold. What is `MISSING` must be neither extreme.
    #[inline(always)]
    fn add<const MISSING: bool>(&mut self, x: &[L; W]) {
        let mut d: [L; W] = from_fn(|lane| x[lane] - self.origin[lane]);
        let mut value = *x;
        if MISSING {
            let finite: [bool; W] = from_fn(|lane| x[lane].is_finite());
            for lane in 0..W {
                d[lane] = if finite[lane] { d[lane] } else { L::ZERO };
                value[lane] = if finite[lane] { x[lane] } else { L::NAN };
            }
            count(&mut self.finite, |lane| finite[lane]);
            count(&mut self.inf, |lane| x[lane].is_infinite());
        }
        (0..W).for_each(|lane| self.s1[lane] = self.s1[lane] + d[lane]);
        (0..W).for_each(|lane| self.s2[lane] = self.s2[lane] + d[lane] * d[lane]);
        (0..W)
            .for_each(|lane| self.min[lane] = if value[lane] < self.min[lane] { value[lane] } else { self.min[lane] });
        (0..W)
            .for_each(|lane| self.max[lane] = if value[lane] > self.max[lane] { value[lane] } else { self.max[lane] });
        count(&mut self.zero, |lane| x[lane].is_zero());
    }

    /// Whether sums in the values' own precision do. Squares are neither negative nor cancel: what is not finite, or too large, stays in
    /// their sum.
    #[inline(always)]
    fn is_sound(&self) -> bool {
        let mut sound = true;
        for lane in 0..W {
            let (s2, constant) = (self.s2[lane], self.min[lane] >= self.max[lane]);
            sound &= (s2 < L::INFINITY) & ((s2 > L::SQUARES) | constant);
        }
        sound
    }

    /// Why they do not.
    #[cold]
    fn unsound(&self) -> Unsound {
        if self.s2.iter().all(|s2| *s2 < L::INFINITY) { Unsound::Vanishing } else { Unsound::NotFinite }
    }
}

/// Why sums in the values' own precision do not do.
#[derive(Clone, Copy, PartialEq)]
enum Unsound {
    /// Some values are not, or sums are too large.
    NotFinite,
    /// Some squares may have been too small.
    Vanishing,
}

/// Of three values each; of those with NaN any.
#[inline(always)]
fn median<L: Lane, const W: usize>(of: &[[L; W]; 3]) -> [L; W] {
    let [a, b, c] = of;
    from_fn(|lane| {
        let (a, b, c) = (a[lane], b[lane], c[lane]);
        let (low, high) = (if a < b { a } else { b }, if a > b { a } else { b });
        let high = if high < c { high } else { c };
        if low > high { low } else { high }
    })
}

/// Unless some may be `MISSING`, all values must be finite.
#[inline(always)]
fn sum_groups<T: Scalar, const W: usize, const MISSING: bool>(
    rows: &[T],
    width: usize,
    first: usize,
    shifts: &[f64; W],
    mut ahead: Ahead<'_, T>,
) -> Result<Sums<T::Lane, W>, Unsound> {
    let mut sums = Tile::<T::Lane, W>::NONE;
    let mut missing = Missing::<T::Lane, W>::NONE;
    for rows in rows.chunks(GROUP * width) {
        let n = rows.len() / width;
        let origins = SEEN_OF_64.map(|share| {
            let row: &[T; W] = rows[n * share / 64 * width + first..][..W].try_into().expect("W lanes");
            let x = row.map(Scalar::lane);
            from_fn(|lane| if MISSING && !x[lane].is_finite() { T::Lane::nearest(shifts[lane]) } else { x[lane] })
        });
        let mut group = Group::about(median(&origins));
        for row in rows.chunks_exact(width) {
            prefetch(ahead.values, ahead.at);
            ahead.at += ahead.step;
            let row: &[T; W] = row[first..first + W].try_into().expect("W lanes");
            group.add::<MISSING>(&row.map(Scalar::lane));
        }
        let group = whole(group);
        if !group.is_sound() {
            return Err(group.unsound());
        }
        if MISSING {
            missing.add_group(&group, n as u64);
            let n = from_fn(|lane| group.finite[lane].into() as u32 as f64);
            sums.add_group(&group, &n, shifts);
        } else {
            sums.add_group(&group, &[n as f64; W], shifts);
        }
    }
    Ok((sums, missing))
}

#[inline(always)]
fn sum_wide<T: Scalar, const W: usize>(rows: &[T], width: usize, first: usize, shifts: &[f64; W]) -> Sums<T::Lane, W> {
    let mut sums = Tile::<T::Lane, W>::NONE;
    let mut missing = Missing::<T::Lane, W>::NONE;
    for row in rows.chunks_exact(width) {
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
