//! What is known of rows, one in each lane.

use crate::stats::Prediction;
use crate::stats::entropy::{Share, term};
use crate::stats::scalar::Lane;
use std::array::from_fn;

/// After some columns.
pub struct Lanes<L: Lane, const W: usize> {
    first: [L; W],
    second: [L; W],
    least: [L; W],
    last: [L; W],
    class: [L::Count; W],
    column: L::Count,
    sum: [f64; W],
    terms: [f64; W],
}

/// After all: columns of what [`Prediction`] says of a row.
pub struct Answers<L: Lane, const W: usize> {
    pub class: [u32; W],
    pub confidence: [f64; W],
    pub margin: [f64; W],
    pub entropy: [f64; W],
    pub tie: [bool; W],
    first: [L; W],
    least: [L; W],
    sum: [f64; W],
}

impl<L: Lane, const W: usize> Lanes<L, W> {
    #[inline(always)]
    pub fn none() -> Lanes<L, W> {
        Lanes {
            first: [L::NEG_INFINITY; W],
            second: [L::NEG_INFINITY; W],
            least: [L::INFINITY; W],
            last: [L::NEG_INFINITY; W],
            class: [L::ZERO_COUNT; W],
            column: L::ZERO_COUNT,
            sum: [0.0; W],
            terms: [0.0; W],
        }
    }

    /// The next columns, [`MOST_COLUMNS`](super::tile::MOST_COLUMNS) at most; `alone` if there is but one in all.
    #[inline(always)]
    pub fn add(&mut self, columns: &[[L; W]], alone: bool) {
        for column in columns {
            self.compare(column);
        }
        let mut terms = [[0.0; W]; super::tile::MOST_COLUMNS];
        let terms = &mut terms[..columns.len()];
        // One loop over all values, for vectors as wide as there are.
        for (to, p) in terms.as_flattened_mut().iter_mut().zip(columns.as_flattened()) {
            *to = term(*p, alone);
        }
        for terms in terms {
            for (sum, term) in self.terms.iter_mut().zip(terms) {
                *sum += f64::from(*term);
            }
        }
    }

    /// Everything is read before it is chosen from: a choice is no branch then, and no store under a mask.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "every array goes along")]
    fn compare(&mut self, column: &[L; W]) {
        let at = self.column;
        for r in 0..W {
            let p = column[r];
            let (first, second, least, class) = (self.first[r], self.second[r], self.least[r], self.class[r]);
            let larger = p > first;
            let other = if p > second { p } else { second };
            self.second[r] = if larger { first } else { other };
            self.class[r] = if larger { at } else { class };
            self.first[r] = if larger { p } else { first };
            self.least[r] = if p < least { p } else { least };
            self.sum[r] += p.into();
        }
        self.last = *column;
        self.column += true.into();
    }

    /// Of rows of so many columns: right of those without NaN and ±∞.
    #[inline(always)]
    pub fn answers(&self, columns: usize, threshold: f64, share: Share) -> Answers<L, W> {
        let [confidence, second, last] = [self.first, self.second, self.last].map(|of| of.map(Into::<f64>::into));
        Answers {
            class: match columns {
                2 => last.map(|last| u32::from(last > threshold)),
                _ => self.class.map(|class| class.into() as u32),
            },
            confidence,
            margin: match columns {
                1 => confidence,
                _ => from_fn(|r| confidence[r] - second[r]),
            },
            entropy: self.terms.map(|terms| share.of(terms)),
            tie: match columns {
                1 => [false; W],
                _ => from_fn(|r| self.first[r] == self.second[r]),
            },
            first: self.first,
            least: self.least,
            sum: self.sum,
        }
    }
}

impl<L: Lane, const W: usize> Answers<L, W> {
    /// Whether no row has a flaw; their sums may be off 1 by `tolerance`.
    #[inline(always)]
    pub fn are_flawless(&self, tolerance: f64) -> bool {
        let mut flawless = true;
        for r in 0..W {
            flawless &= (self.least[r] >= L::ZERO) & (self.first[r] <= L::ONE);
        }
        for r in 0..W {
            flawless &= self.sum[r].is_finite() & ((self.sum[r] - 1.0).abs() <= tolerance);
        }
        flawless
    }

    /// Of a row without NaN and ±∞.
    #[inline(always)]
    pub fn prediction(&self, r: usize) -> Option<Prediction> {
        self.sum[r].is_finite().then(|| Prediction {
            class: self.class[r] as usize,
            confidence: self.confidence[r],
            margin: self.margin[r],
            tie: self.tie[r],
            out_of_range: self.least[r] < L::ZERO || self.first[r] > L::ONE,
            sum: self.sum[r],
        })
    }
}
