//! What is known of some rows, one in each lane.

use crate::stats::Prediction;
use crate::stats::entropy::{Share, term};
use crate::stats::scalar::{Lane, Scalar};
use std::array::from_fn;

/// Rows of a group: a vector's worth.
const GROUP: usize = 8;
const GROUPS: usize = 4;
/// Rows side by side, at most.
const ROWS: usize = GROUP * GROUPS;
/// Columns in hand, at most.
const COLUMNS: usize = 32;

/// So many rows of so many columns go side by side: of wide ones few, or there are too many places in memory to read on from.
#[inline(always)]
pub fn rows_of(columns: usize) -> usize {
    if columns <= COLUMNS { ROWS } else { GROUP }
}

/// One value of each row of a group.
type Of<X> = [X; GROUP];

/// After some columns. No vector lies across two cache lines.
#[repr(align(64))]
pub struct Lanes<L: Lane> {
    groups: usize,
    columns: [[Of<L>; COLUMNS]; GROUPS],
    /// What the columns add to the entropies.
    terms: [[Of<f32>; COLUMNS]; GROUPS],
    first: [Of<L>; GROUPS],
    second: [Of<L>; GROUPS],
    last: [Of<L>; GROUPS],
    class: [Of<L::Count>; GROUPS],
    least: [Of<L>; GROUPS],
    sum: [Of<f64>; GROUPS],
    entropy: [Of<f64>; GROUPS],
}

impl<L: Lane> Lanes<L> {
    /// Of no rows.
    pub const NONE: Lanes<L> = Lanes {
        groups: 0,
        columns: [[[L::ZERO; GROUP]; COLUMNS]; GROUPS],
        terms: [[[0.0; GROUP]; COLUMNS]; GROUPS],
        first: [[L::ZERO; GROUP]; GROUPS],
        second: [[L::ZERO; GROUP]; GROUPS],
        last: [[L::ZERO; GROUP]; GROUPS],
        class: [[L::ZERO_COUNT; GROUP]; GROUPS],
        least: [[L::ZERO; GROUP]; GROUPS],
        sum: [[0.0; GROUP]; GROUPS],
        entropy: [[0.0; GROUP]; GROUPS],
    };

    /// Takes rows of so many columns, as many as there is room for; step by step, so that no step waits for what the one before it has
    /// only begun.
    #[inline(always)]
    pub fn take<T: Scalar<Lane = L>>(&mut self, rows: &[T], columns: usize, share: Share) {
        self.groups = rows.len().div_ceil(GROUP * columns);
        for from in (0..columns).step_by(COLUMNS) {
            let n = COLUMNS.min(columns - from);
            for (group, rows) in rows.chunks(GROUP * columns).enumerate() {
                self.gather(group, rows, columns, from, n);
            }
            for group in 0..self.groups {
                self.compare(group, from, n);
            }
            for group in 0..self.groups {
                let values = self.columns[group][..n].as_flattened();
                for (to, p) in self.terms[group][..n].as_flattened_mut().iter_mut().zip(values) {
                    *to = term(*p, columns == 1);
                }
            }
            for group in 0..self.groups {
                let mut sums = if from == 0 { [0.0; GROUP] } else { self.entropy[group] };
                for terms in &self.terms[group][..n] {
                    for r in 0..GROUP {
                        sums[r] += f64::from(terms[r]);
                    }
                }
                self.entropy[group] = if from + n == columns { sums.map(|terms| share.of(terms)) } else { sums };
            }
        }
    }

    /// Turns a group of rows into columns, `n` from `from` on. Where there are too few rows, the last one counts again.
    #[inline(always)]
    fn gather<T: Scalar<Lane = L>>(&mut self, group: usize, rows: &[T], columns: usize, from: usize, n: usize) {
        let into = &mut self.columns[group][..n];
        match columns {
            2 if rows.len() == 2 * GROUP => return narrow::<T, 2>(rows, into),
            3 if rows.len() == 3 * GROUP => return narrow::<T, 3>(rows, into),
            _ => {}
        }
        let last = rows.len() / columns - 1;
        let rows = from_fn(|r| &rows[r.min(last) * columns + from..][..n]);
        let (eights, rest) = into.as_chunks_mut();
        for (eight, into) in eights.iter_mut().enumerate() {
            gather::<T, 8>(&rows, 8 * eight, into);
        }
        let at = n - rest.len();
        match rest.len() {
            1 => gather::<T, 1>(&rows, at, rest.first_chunk_mut().expect("one")),
            2 => gather::<T, 2>(&rows, at, rest.first_chunk_mut().expect("two")),
            3 => gather::<T, 3>(&rows, at, rest.first_chunk_mut().expect("three")),
            4 => gather::<T, 4>(&rows, at, rest.first_chunk_mut().expect("four")),
            5 => gather::<T, 5>(&rows, at, rest.first_chunk_mut().expect("five")),
            6 => gather::<T, 6>(&rows, at, rest.first_chunk_mut().expect("six")),
            7 => gather::<T, 7>(&rows, at, rest.first_chunk_mut().expect("seven")),
            _ => {}
        }
    }

    /// Adds the `n` columns in hand, of which `from` is the first, to what is known.
    #[inline(always)]
    fn compare(&mut self, group: usize, from: usize, n: usize) {
        let (mut first, mut second, mut least, mut class, mut sum, mut at);
        if from == 0 {
            (first, second, least) = ([L::NEG_INFINITY; GROUP], [L::NEG_INFINITY; GROUP], [L::INFINITY; GROUP]);
            (class, sum, at) = ([L::ZERO_COUNT; GROUP], [0.0; GROUP], L::ZERO_COUNT);
        } else {
            (first, second, least) = (self.first[group], self.second[group], self.least[group]);
            (class, sum, at) = (self.class[group], self.sum[group], L::count(from as u64));
        }
        let columns = &self.columns[group][..n];
        for column in columns {
            for r in 0..GROUP {
                // Everything is read before it is chosen from: a choice is no branch then, and no store under a mask.
                let (p, f, s, l, c) = (column[r], first[r], second[r], least[r], class[r]);
                let larger = p > f;
                let other = if p > s { p } else { s };
                second[r] = if larger { f } else { other };
                class[r] = if larger { at } else { c };
                first[r] = if larger { p } else { f };
                least[r] = if p < l { p } else { l };
                sum[r] += p.into();
            }
            at += true.into();
        }
        self.last[group] = columns[n - 1];
        (self.first[group], self.second[group], self.least[group]) = (first, second, least);
        (self.class[group], self.sum[group]) = (class, sum);
    }

    /// Whether no row has a flaw; their sums may be off 1 by `tolerance`.
    #[inline(always)]
    pub fn are_flawless(&self, tolerance: f64) -> bool {
        let mut flawless = true;
        for group in 0..self.groups {
            for r in 0..GROUP {
                flawless &= (self.least[group][r] >= L::ZERO) & (self.first[group][r] <= L::ONE);
                flawless &= (self.sum[group][r] - 1.0).abs() <= tolerance;
            }
        }
        flawless
    }

    #[inline(always)]
    pub fn classes(&self, columns: usize, threshold: f64) -> [u32; ROWS] {
        match columns {
            2 => from_fn(|r| u32::from(self.last.as_flattened()[r].into() > threshold)),
            _ => from_fn(|r| self.class.as_flattened()[r].into() as u32),
        }
    }

    #[inline(always)]
    pub fn confidences(&self) -> [f64; ROWS] {
        from_fn(|r| self.first.as_flattened()[r].into())
    }

    #[inline(always)]
    pub fn margins(&self, columns: usize) -> [f64; ROWS] {
        match columns {
            1 => self.confidences(),
            _ => from_fn(|r| self.first.as_flattened()[r].into() - self.second.as_flattened()[r].into()),
        }
    }

    #[inline(always)]
    pub fn entropies(&self) -> &[f64] {
        self.entropy.as_flattened()
    }

    /// Of the first `n` rows those whose largest probability stands more than once.
    #[inline(always)]
    pub fn ties(&self, n: usize, columns: usize) -> u64 {
        let mut ties = L::ZERO_COUNT;
        for (first, second) in self.first.as_flattened()[..n].iter().zip(self.second.as_flattened()) {
            ties += ((columns > 1) & (first == second)).into();
        }
        ties.into()
    }

    /// Of a row without NaN and ±∞.
    pub fn prediction(&self, r: usize, columns: usize, threshold: f64) -> Option<Prediction> {
        let of = |lanes: &[Of<L>]| lanes.as_flattened()[r];
        let (first, second, least) = (of(&self.first), of(&self.second), of(&self.least));
        let sum = self.sum.as_flattened()[r];
        sum.is_finite().then(|| Prediction {
            class: self.classes(columns, threshold)[r] as usize,
            confidence: first.into(),
            margin: self.margins(columns)[r],
            tie: columns > 1 && first == second,
            out_of_range: least < L::ZERO || first > L::ONE,
            sum,
        })
    }
}

#[inline(always)]
fn narrow<T: Scalar, const C: usize>(rows: &[T], into: &mut [Of<T::Lane>]) {
    let rows: &[[T; C]; GROUP] = rows.as_chunks().0.first_chunk().expect("a group");
    for (column, into) in into.iter_mut().enumerate() {
        *into = from_fn(|r| rows[r][column].lane());
    }
}

#[inline(always)]
fn gather<T: Scalar, const N: usize>(rows: &[&[T]; GROUP], from: usize, into: &mut [Of<T::Lane>; N]) {
    let rows: [&[T; N]; GROUP] = from_fn(|r| rows[r][from..].first_chunk().expect("so many columns"));
    for (column, into) in into.iter_mut().enumerate() {
        *into = from_fn(|r| rows[r][column].lane());
    }
}
