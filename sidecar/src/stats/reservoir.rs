//! A uniform sample of whole rows: after n of them each is in it with probability min(1, k/n).
//!
//! Algorithm R (Vitter, Random Sampling with a Reservoir, 1985) draws a number for each row, while it takes many of them. From n = 16k
//! on Algorithm L ([`Skips`]) draws how many rows to pass over, which costs something for rows that are taken only. Seeded, so the
//! same rows in the same order give the same sample, however they come in batches.

use super::skips::Skips;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// Rows seen for each kept when rows begin to be passed over: fewer draws, though dearer ones, from some 10 on.
const DRAW_FOR_EACH: u64 = 16;

/// Decides which rows are kept and where; the rows themselves lie in [`RowStore`](super::RowStore)s.
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
}
