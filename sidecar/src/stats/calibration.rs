//! What a probability of the model means: a map from scores to shares, fitted to a histogram of both.
//!
//! Isotonic regression by pooling adjacent violators: Barlow, Bartholomew, Bremner, Brunk, *Statistical Inference under Order
//! Restrictions*, 1972; Zadrozny, Elkan, *Transforming Classifier Scores into Accurate Multiclass Probability Estimates*, 2002.

use super::ranking::{Bin, Ranking, SCORE_BINS, score_bin};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::sync::Arc;

/// Of more rows in a bin, half go to either side without a coin: chance would move them by less than a hundredth.
const MOST_COINS: u64 = 1 << 14;

/// A map for each class, or none where the probability is taken as it is. Memory: 8 KB a map.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    classes: Vec<Option<Arc<Isotonic>>>,
}

/// A non-decreasing map of [0, 1] into [0, 1], the same for all scores of a bin.
#[derive(Clone, Debug, PartialEq)]
pub struct Isotonic {
    /// [`SCORE_BINS`], non-decreasing.
    shares: Vec<f64>,
}

impl Calibration {
    /// Of each class that was ranked. `seed` is for the coins that part its rows into a half to fit and a half to judge by.
    pub fn fit(ranking: &Ranking, seed: u64) -> Calibration {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let fit = |bins: &[Bin]| Isotonic::fit_if_better(bins, &mut random).map(Arc::new);
        Calibration { classes: ranking.histograms().map(fit).collect() }
    }

    /// The calibrated probability of a class; `probability` is in [0, 1].
    pub fn at(&self, class: usize, probability: f64) -> f64 {
        match self.classes.get(class) {
            Some(Some(map)) => map.at(probability),
            _ => probability,
        }
    }

    /// The same maps for classes in another order, each named by where its own is.
    pub fn reordered(&self, order: impl Iterator<Item = Option<usize>>) -> Calibration {
        Calibration { classes: order.map(|class| self.classes.get(class?)?.clone()).collect() }
    }

    /// Whether each class has a map.
    pub fn mapped(&self) -> impl Iterator<Item = bool> + '_ {
        self.classes.iter().map(Option::is_some)
    }

    /// Whether some class has a map.
    pub fn is_any(&self) -> bool {
        self.mapped().any(|mapped| mapped)
    }
}

/// Rows of one bin, or pooled: how many, their share of positives, and the bins they span.
#[derive(Clone, Copy, Debug)]
struct Block {
    rows: f64,
    share: f64,
    from: usize,
    to: usize,
}

impl Isotonic {
    /// Least squares among the non-decreasing maps. `None` without rows.
    fn fit(bins: &[Bin]) -> Option<Isotonic> {
        let knots = knots_of(&pooled(&filled(bins)));
        let shares = (0..SCORE_BINS).map(|bin| interpolated(&knots, bin as f64));
        (!knots.is_empty()).then(|| Isotonic { shares: shares.collect() })
    }

    /// The fit of all rows, if that of one half of them lowers the Brier score of the other.
    fn fit_if_better(bins: &[Bin], random: &mut impl Rng) -> Option<Isotonic> {
        let (half, other) = parted(bins, random);
        let fitted = Isotonic::fit(&half)?;
        let before = squares(&other, |bin| (bin as f64 + 0.5) / SCORE_BINS as f64);
        let after = squares(&other, |bin| fitted.shares[bin]);
        if after < before { Isotonic::fit(bins) } else { None }
    }

    /// The value at a score in [0, 1].
    pub fn at(&self, score: f64) -> f64 {
        self.shares[score_bin(score)]
    }
}

/// Every row by the toss of a coin.
fn parted(bins: &[Bin], random: &mut impl Rng) -> (Vec<Bin>, Vec<Bin>) {
    let part = |bin: &Bin| {
        let positives = heads(bin.positives, random);
        let half = Bin { rows: positives + heads(bin.rows - bin.positives, random), positives };
        (half, Bin { rows: bin.rows - half.rows, positives: bin.positives - positives })
    };
    bins.iter().map(part).unzip()
}

/// Of so many coins: the bits that are set in as many random ones.
fn heads(coins: u64, random: &mut impl Rng) -> u64 {
    if coins > MOST_COINS {
        return coins / 2;
    }
    let words: u64 = (0..coins / 64).map(|_| u64::from(random.next_u64().count_ones())).sum();
    let rest = coins % 64;
    words + if rest > 0 { u64::from((random.next_u64() >> (64 - rest)).count_ones()) } else { 0 }
}

/// Σ (probability − y)² over the rows in bins, were all of a bin given the same probability: proper, so that it can only be lowered by
/// chance where the probability is right. A binned calibration error is not: of few rows it is the lower the fewer of its bins have any.
fn squares(bins: &[Bin], probability: impl Fn(usize) -> f64) -> f64 {
    let of_bin = |(index, bin): (usize, &Bin)| {
        let (p, rows, positives) = (probability(index), bin.rows as f64, bin.positives as f64);
        (rows - positives) * p * p + positives * (1.0 - p) * (1.0 - p)
    };
    bins.iter().enumerate().map(of_bin).sum()
}

fn filled(bins: &[Bin]) -> Vec<Block> {
    let filled = bins.iter().enumerate().filter(|(_, bin)| bin.rows > 0);
    let block = |(index, bin): (usize, &Bin)| {
        let rows = bin.rows as f64;
        Block { rows, share: bin.positives as f64 / rows, from: index, to: index }
    };
    filled.map(block).collect()
}

/// Adjacent blocks whose shares do not rise become one.
fn pooled(blocks: &[Block]) -> Vec<Block> {
    let mut pooled: Vec<Block> = Vec::new();
    for &block in blocks {
        let mut block = block;
        while let Some(last) = pooled.pop_if(|last| last.share >= block.share) {
            let rows = last.rows + block.rows;
            let share = (last.rows * last.share + block.rows * block.share) / rows;
            // A mean, which rounding may place beyond both.
            block = Block { rows, share: share.clamp(block.share, last.share), from: last.from, to: block.to };
        }
        pooled.push(block);
    }
    pooled
}

/// Where each block begins and ends.
fn knots_of(blocks: &[Block]) -> Vec<(f64, f64)> {
    let ends = blocks.iter().flat_map(|block| {
        let end = (block.to > block.from).then_some((block.to as f64, block.share));
        std::iter::once((block.from as f64, block.share)).chain(end)
    });
    ends.collect()
}

/// Linear between knots, constant beyond the first and the last of them.
fn interpolated(knots: &[(f64, f64)], x: f64) -> f64 {
    let after = knots.partition_point(|knot| knot.0 <= x);
    let Some(&(x0, y0)) = after.checked_sub(1).and_then(|before| knots.get(before)) else {
        return knots[0].1;
    };
    match knots.get(after) {
        Some(&(x1, y1)) => (y0 + (y1 - y0) * ((x - x0) / (x1 - x0))).min(y1),
        None => y0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A probability and whether the row was of the class.
    type Pair = (f64, bool);

    fn ranking(pairs: &[Pair]) -> Ranking {
        let mut ranking = Ranking::new();
        pairs.iter().for_each(|&(score, is)| ranking.add(&[score], |_| is));
        ranking
    }

    fn calibration(pairs: &[Pair]) -> Calibration {
        Calibration::fit(&ranking(pairs), 1)
    }

    fn fit(pairs: &[Pair]) -> Option<Isotonic> {
        ranking(pairs).histograms().next().and_then(Isotonic::fit)
    }

    /// The min-max formula: at the i-th score, the largest over a ≤ i of the least over b ≥ i of the share in a..=b.
    fn min_max(pairs: &[Pair], score: f64) -> f64 {
        let mut sorted = pairs.to_vec();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let tied: Vec<&[Pair]> = sorted.chunk_by(|a, b| a.0 == b.0).collect();
        let share = |a: usize, b: usize| {
            let rows = tied[a..=b].concat();
            rows.iter().filter(|pair| pair.1).count() as f64 / rows.len() as f64
        };
        let i = tied.iter().position(|rows| rows[0].0 == score).unwrap();
        let least = |a: usize| (i..tied.len()).map(|b| share(a, b)).fold(f64::INFINITY, f64::min);
        (0..=i).map(least).fold(f64::NEG_INFINITY, f64::max)
    }

    fn pairs(scores: impl Strategy<Value = f64>) -> impl Strategy<Value = Vec<Pair>> {
        proptest::collection::vec((scores, any::<bool>()), 1..60)
    }

    /// A model that says p where `share(p)` is true, over an even grid.
    fn model(share: impl Fn(f64) -> f64) -> Vec<Pair> {
        let chance = |i: usize| (i as f64 * 0.618_033_988_749_894_9).fract();
        (0..20_000).map(|i| (chance(i), chance(i * 7919 + 3) < share(chance(i)))).collect()
    }

    #[test]
    fn a_fit_follows_scikit_learns() {
        // IsotonicRegression(out_of_bounds="clip").fit([.1, .2, .3, .3, .5, .6, .7, .9], [0, 1, 0, 1, 0, 1, 1, 0])
        let y = [false, true, false, true, false, true, true, false];
        let pairs: Vec<Pair> = [0.1, 0.2, 0.3, 0.3, 0.5, 0.6, 0.7, 0.9].into_iter().zip(y).collect();
        let fit = fit(&pairs).unwrap();
        for (score, want) in [
            (0.0, 0.0),
            (0.1, 0.0),
            (0.15, 0.25),
            (0.2, 0.5),
            (0.5, 0.5),
            (0.55, 0.583_333_333_333),
            (0.6, 0.666_666_666_667),
            (1.0, 0.666_666_666_667),
        ] {
            assert!((fit.at(score) - want).abs() < 1e-9, "{score}: {} {want}", fit.at(score));
        }
    }

    /// Whether chance lets its map through or not.
    #[test]
    fn a_calibrated_model_keeps_its_probabilities_but_for_sampling_error() {
        let calibration = calibration(&model(|p| p));
        assert!([0.05, 0.3, 0.5, 0.8, 0.95].into_iter().all(|p| (calibration.at(0, p) - p).abs() < 0.06));
    }

    #[test]
    fn an_overconfident_model_is_taken_at_what_it_is_worth() {
        let calibration = calibration(&model(|p| 0.25 + p / 2.0));
        assert!(calibration.is_any());
        for p in [0.05, 0.3, 0.5, 0.8, 0.95] {
            assert!((calibration.at(0, p) - (0.25 + p / 2.0)).abs() < 0.06, "{p}: {}", calibration.at(0, p));
        }
        assert_eq!(calibration.at(1, 0.3), 0.3, "a class it knows nothing of");
    }

    /// Of 200 models that are right as often as they say, with 20 rows each: a map of ten rows is seldom right of the other ten.
    #[test]
    fn a_map_that_does_not_hold_for_the_other_half_is_refused() {
        let few = model(|p| p);
        let kept = few.chunks(20).take(200).filter(|pairs| calibration(pairs).is_any()).count();
        assert!(kept < 60, "{kept}");
    }

    #[test]
    fn maps_follow_their_classes() {
        let reordered = calibration(&model(|p| p * p)).reordered([None, Some(0), Some(7)].into_iter());
        assert!(reordered.mapped().eq([false, true, false]));
        assert!((reordered.at(1, 0.5) - 0.25).abs() < 0.06 && reordered.at(0, 0.5) == 0.5);
    }

    #[test]
    fn one_pair_is_a_constant() {
        let one = fit(&[(0.5, true)]).unwrap();
        assert_eq!([0.0, 0.5, 1.0].map(|score| one.at(score)), [1.0; 3]);
        assert!(!Calibration::fit(&Ranking::new(), 1).is_any());
        assert!(!calibration(&[(0.5, true)]).is_any(), "nothing is held out to test it with");
    }

    #[test]
    fn coins_are_fair_and_their_number_is_bounded() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        assert_eq!((heads(0, &mut random), heads(u64::MAX, &mut random)), (0, u64::MAX / 2));
        for coins in [1, 63, 64, 65, 1000] {
            let tosses: Vec<u64> = (0..400).map(|_| heads(coins, &mut random)).collect();
            let (mean, expected) = (tosses.iter().sum::<u64>() as f64 / 400.0, coins as f64 / 2.0);
            assert!((mean - expected).abs() < 4.0 * (coins as f64 / 4.0 / 400.0).sqrt(), "{coins}: {mean}");
            assert!(tosses.iter().all(|heads| *heads <= coins));
        }
    }

    proptest! {
        #[test]
        fn a_fit_equals_the_min_max_formula(pairs in pairs((0..=20u8).prop_map(|x| f64::from(x) / 20.0))) {
            let fit = fit(&pairs).unwrap();
            for (score, _) in &pairs {
                prop_assert!((fit.at(*score) - min_max(&pairs, *score)).abs() < 1e-12);
            }
        }

        #[test]
        fn a_fit_never_falls_and_stays_in_the_unit_interval(pairs in pairs(0.0..=1.0f64)) {
            let fit = fit(&pairs).unwrap();
            prop_assert!(fit.shares.is_sorted() && fit.shares.iter().all(|y| (0.0..=1.0).contains(y)));
        }

        /// Pooling keeps the sum: what a class is expected to have in the rows is what it has.
        #[test]
        fn a_fit_keeps_the_number_of_positives(pairs in pairs(0.0..=1.0f64)) {
            let fit = fit(&pairs).unwrap();
            let expected: f64 = pairs.iter().map(|pair| fit.at(pair.0)).sum();
            prop_assert!((expected - pairs.iter().filter(|pair| pair.1).count() as f64).abs() < 1e-9);
        }

        #[test]
        fn the_order_of_the_rows_changes_nothing(pairs in pairs(0.0..=1.0f64)) {
            let backwards: Vec<Pair> = pairs.iter().rev().copied().collect();
            prop_assert_eq!(calibration(&pairs), calibration(&backwards));
        }

        #[test]
        fn halves_make_up_the_whole(pairs in pairs(0.0..=1.0f64), seed in any::<u64>()) {
            let ranking = ranking(&pairs);
            let bins = ranking.histograms().next().unwrap();
            let (half, other) = parted(bins, &mut Xoshiro256PlusPlus::seed_from_u64(seed));
            for ((whole, a), b) in bins.iter().zip(half).zip(other) {
                prop_assert_eq!((a.rows + b.rows, a.positives + b.positives), (whole.rows, whole.positives));
                prop_assert!(a.positives <= a.rows && b.positives <= b.rows);
            }
        }
    }
}
