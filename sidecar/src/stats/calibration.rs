//! What a probability of the model means: a map from probabilities to shares, fitted to pairs of both.
//!
//! Isotonic regression by pooling adjacent violators: Barlow, Bartholomew, Bremner, Brunk, *Statistical Inference under Order
//! Restrictions*, 1972; Zadrozny, Elkan, *Transforming Classifier Scores into Accurate Multiclass Probability Estimates*, 2002.

use super::{CalibrationError, Reliability};
use serde::{Deserialize, Serialize};

/// Knots kept of a fit. 255 steps between them: those of a finer map differ by less than sampling error.
pub const MOST_KNOTS: usize = 256;
/// Bins of the error that a map has to improve.
const BINS: usize = 15;

/// A map for each class, or none where the probability is taken as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    classes: Vec<Option<Isotonic>>,
}

/// A non-decreasing, piecewise linear map of [0, 1] into [0, 1], constant beyond its first and last knot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Isotonic {
    /// (x, y), both non-decreasing, x increasing.
    knots: Vec<(f64, f64)>,
}

/// A pair of a probability and what came of it: whether the row was of the class.
pub type Pair = (f64, bool);

impl Calibration {
    /// From each class's pairs, in any order but that in which a held-out half is every second one.
    pub fn fit(classes: &[Vec<Pair>]) -> Calibration {
        Calibration { classes: classes.iter().map(|pairs| Isotonic::fit_if_better(pairs)).collect() }
    }

    /// The calibrated probability of a class.
    pub fn at(&self, class: usize, probability: f64) -> f64 {
        match self.classes.get(class) {
            Some(Some(map)) => map.at(probability),
            _ => probability,
        }
    }

    /// Whether some class has a map.
    pub fn is_any(&self) -> bool {
        self.classes.iter().any(Option::is_some)
    }
}

/// Rows of one score, or pooled: weight, mean share, and the scores they span.
#[derive(Clone, Copy, Debug)]
struct Block {
    rows: f64,
    share: f64,
    from: f64,
    to: f64,
}

impl Isotonic {
    /// Least squares among the non-decreasing maps, thinned to [`MOST_KNOTS`]. `None` without pairs. Scores are finite.
    pub fn fit(pairs: &[Pair]) -> Option<Isotonic> {
        let knots = thinned(&knots_of(&pooled(&tied(pairs))));
        (!knots.is_empty()).then_some(Isotonic { knots })
    }

    /// The fit of all pairs, if that of the even ones lowers the expected calibration error of the odd ones.
    pub fn fit_if_better(pairs: &[Pair]) -> Option<Isotonic> {
        let half = |odd: usize| pairs.iter().skip(odd).step_by(2).copied();
        let fitted = Isotonic::fit(&half(0).collect::<Vec<_>>())?;
        let before = expected_error(half(1))?;
        let after = expected_error(half(1).map(|(score, is)| (fitted.at(score), is)))?;
        if after < before { Isotonic::fit(pairs) } else { None }
    }

    /// The value at a score. NaN is taken for the first knot.
    pub fn at(&self, score: f64) -> f64 {
        let after = self.knots.partition_point(|knot| knot.0 <= score);
        let Some(&(x0, y0)) = after.checked_sub(1).and_then(|before| self.knots.get(before)) else {
            return self.knots[0].1;
        };
        match self.knots.get(after) {
            Some(&(x1, y1)) => y0 + (y1 - y0) * ((score - x0) / (x1 - x0)),
            None => y0,
        }
    }
}

fn expected_error(pairs: impl Iterator<Item = Pair>) -> Option<f64> {
    let mut reliability = Reliability::default();
    pairs.for_each(|(score, is)| reliability.add(score, is));
    CalibrationError::of(&reliability.uniform(BINS)).map(|error| error.expected)
}

/// A block for each distinct score, rising.
fn tied(pairs: &[Pair]) -> Vec<Block> {
    let mut sorted = pairs.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let same = sorted.chunk_by(|a, b| a.0 == b.0);
    let block = |rows: &[Pair]| {
        let hits = rows.iter().filter(|pair| pair.1).count() as f64;
        let (from, to) = (rows[0].0, rows[0].0);
        Block { rows: rows.len() as f64, share: hits / rows.len() as f64, from, to }
    };
    same.map(block).collect()
}

/// Adjacent blocks whose shares do not rise become one.
fn pooled(blocks: &[Block]) -> Vec<Block> {
    let mut pooled: Vec<Block> = Vec::new();
    for &block in blocks {
        let mut block = block;
        while let Some(last) = pooled.pop_if(|last| last.share >= block.share) {
            let rows = last.rows + block.rows;
            let share = (last.rows * last.share + block.rows * block.share) / rows;
            block = Block { rows, share, from: last.from, to: block.to };
        }
        pooled.push(block);
    }
    pooled
}

/// Where each block begins and ends: between blocks the map is linear.
fn knots_of(blocks: &[Block]) -> Vec<(f64, f64)> {
    let ends = blocks.iter().flat_map(|block| {
        let end = (block.to > block.from).then_some((block.to, block.share));
        std::iter::once((block.from, block.share)).chain(end)
    });
    ends.collect()
}

/// Evenly spaced among them, first and last included.
fn thinned(knots: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if knots.len() <= MOST_KNOTS {
        return knots.to_vec();
    }
    (0..MOST_KNOTS).map(|i| knots[i * (knots.len() - 1) / (MOST_KNOTS - 1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The min-max formula: at the i-th score, the largest over a ≤ i of the least over b ≥ i of the share in a..=b.
    fn min_max(pairs: &[Pair], score: f64) -> f64 {
        let blocks = tied(pairs);
        let share = |a: usize, b: usize| {
            let rows: f64 = blocks[a..=b].iter().map(|block| block.rows).sum();
            blocks[a..=b].iter().map(|block| block.rows * block.share).sum::<f64>() / rows
        };
        let i = blocks.iter().position(|block| block.from == score).unwrap();
        let least = |a: usize| (i..blocks.len()).map(|b| share(a, b)).fold(f64::INFINITY, f64::min);
        (0..=i).map(least).fold(f64::NEG_INFINITY, f64::max)
    }

    fn pairs(scores: impl Strategy<Value = f64>) -> impl Strategy<Value = Vec<Pair>> {
        proptest::collection::vec((scores, any::<bool>()), 1..60)
    }

    /// A model that says p where `share(p)` is true, over an even grid and with every row of a score sorted by chance.
    fn model(share: impl Fn(f64) -> f64) -> Vec<Pair> {
        let chance = |i: usize| (i as f64 * 0.618_033_988_749_894_9).fract();
        (0..20_000).map(|i| (chance(i), chance(i * 7919 + 3) < share(chance(i)))).collect()
    }

    #[test]
    fn a_fit_follows_scikit_learns() {
        // IsotonicRegression(out_of_bounds="clip").fit([.1, .2, .3, .3, .5, .6, .7, .9], [0, 1, 0, 1, 0, 1, 1, 0])
        let y = [false, true, false, true, false, true, true, false];
        let pairs: Vec<Pair> = [0.1, 0.2, 0.3, 0.3, 0.5, 0.6, 0.7, 0.9].into_iter().zip(y).collect();
        let fit = Isotonic::fit(&pairs).unwrap();
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

    #[test]
    fn a_map_that_does_not_hold_for_the_other_half_is_refused() {
        // At 0.5, half of the odd pairs are of the class, as it says, and all of the even ones.
        let pairs: Vec<Pair> = (0..400).map(|i| (0.5, i % 2 == 0 || i % 4 == 1)).collect();
        let calibration = Calibration::fit(&[pairs]);
        assert!(!calibration.is_any());
        assert_eq!(calibration.at(0, 0.37), 0.37);
        assert_eq!(calibration.at(9, 0.37), 0.37, "a class it knows nothing of");
    }

    /// Whether chance lets its map through or not.
    #[test]
    fn a_calibrated_model_keeps_its_probabilities_but_for_sampling_error() {
        let calibration = Calibration::fit(&[model(|p| p)]);
        assert!([0.05, 0.3, 0.5, 0.8, 0.95].into_iter().all(|p| (calibration.at(0, p) - p).abs() < 0.06));
    }

    #[test]
    fn an_overconfident_model_is_taken_at_what_it_is_worth() {
        let calibration = Calibration::fit(&[model(|p| 0.25 + p / 2.0), Vec::new()]);
        assert!(calibration.is_any());
        for p in [0.05, 0.3, 0.5, 0.8, 0.95] {
            assert!((calibration.at(0, p) - (0.25 + p / 2.0)).abs() < 0.06, "{p}: {}", calibration.at(0, p));
        }
        assert_eq!(calibration.at(1, 0.3), 0.3);
    }

    #[test]
    fn one_pair_is_a_constant() {
        let fit = Isotonic::fit(&[(0.5, true)]).unwrap();
        assert_eq!([0.0, 0.5, 1.0, f64::NAN].map(|score| fit.at(score)), [1.0; 4]);
        assert_eq!(Isotonic::fit(&[]), None);
        assert_eq!(Isotonic::fit_if_better(&[(0.5, true)]), None, "nothing is held out to test it with");
    }

    #[test]
    fn a_map_of_many_steps_is_thinned_and_stays_close() {
        let many: Vec<Block> = (0..2000)
            .map(|i| f64::from(i) / 2000.0)
            .map(|x| Block { rows: 1.0, share: x * x, from: x, to: x })
            .collect();
        let map = Isotonic { knots: thinned(&knots_of(&pooled(&many))) };
        assert_eq!(map.knots.len(), MOST_KNOTS);
        assert!(many.iter().all(|block| (map.at(block.from) - block.share).abs() < 1e-4));
    }

    proptest! {
        #[test]
        fn a_fit_equals_the_min_max_formula(pairs in pairs((0..=20u8).prop_map(|x| f64::from(x) / 20.0))) {
            let fit = Isotonic::fit(&pairs).unwrap();
            for (score, _) in &pairs {
                prop_assert!((fit.at(*score) - min_max(&pairs, *score)).abs() < 1e-12);
            }
        }

        #[test]
        fn a_fit_never_falls_and_stays_in_the_unit_interval(pairs in pairs(0.0..=1.0f64)) {
            let fit = Isotonic::fit(&pairs).unwrap();
            let values: Vec<f64> = (0..=1000).map(|i| fit.at(f64::from(i) / 1000.0)).collect();
            prop_assert!(values.is_sorted() && values.iter().all(|y| (0.0..=1.0).contains(y)));
        }

        /// Pooling keeps the sum: what a class is expected to have in the pairs is what it has.
        #[test]
        fn a_fit_keeps_the_number_of_positives(pairs in pairs(0.0..=1.0f64)) {
            let fit = Isotonic::fit(&pairs).unwrap();
            let expected: f64 = pairs.iter().map(|pair| fit.at(pair.0)).sum();
            prop_assert!((expected - pairs.iter().filter(|pair| pair.1).count() as f64).abs() < 1e-9);
        }
    }
}
