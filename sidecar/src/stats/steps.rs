//! An empirical distribution in few numbers: at most 1,001 values that stand for equal shares of the sorted sample, ties told once.
//!
//! Against it, a sample's Kolmogorov-Smirnov distance and Wasserstein distance come from one scan over both in order. With at most
//! 1,001 values both are those between the samples themselves; beyond, every share is right within 1/2,002.

use super::Slack;
use serde::{Deserialize, Serialize};

/// Most values told apart.
pub const MOST_STEPS: usize = 1001;

/// An empirical distribution function: ascending values, and how many of all lie at each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Steps {
    values: Vec<f64>,
    counts: Vec<u32>,
}

/// How far apart two distributions are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distance {
    /// Kolmogorov-Smirnov: the largest distance of the distribution functions, in [0, 1].
    pub ks: f64,
    /// Wasserstein-1: ∫|F − G| dx, in the values' unit; +∞ where it exceeds f64.
    pub w1: f64,
}

impl Steps {
    /// Of ascending finite values.
    pub fn of_sorted(ascending: &[f64]) -> Steps {
        let n = ascending.len();
        if n <= MOST_STEPS {
            return Steps::from_runs(ascending.iter().map(|&x| (x, 1)));
        }
        let middle = |i: usize| ascending[(2 * i + 1) * n / (2 * MOST_STEPS)];
        Steps::from_runs((0..MOST_STEPS).map(|i| (middle(i), 1)))
    }

    /// Ascending values with their counts; equal ones become one.
    fn from_runs(runs: impl Iterator<Item = (f64, u32)>) -> Steps {
        let mut steps = Steps::default();
        for (value, count) in runs {
            match (steps.values.last(), steps.counts.last_mut()) {
                (Some(last), Some(of_last)) if *last == value => *of_last += count,
                _ => {
                    steps.values.push(value);
                    steps.counts.push(count);
                }
            }
        }
        steps
    }

    /// Whether it can be one: what comes from a file may be anything.
    pub fn is_sound(&self) -> bool {
        let total = self.counts.iter().map(|&n| u64::from(n)).sum::<u64>();
        self.values.len() == self.counts.len()
            && total <= MOST_STEPS as u64
            && self.counts.iter().all(|&n| n > 0)
            && self.values.iter().all(|x| x.is_finite())
            && self.values.is_sorted_by(|a, b| a < b)
    }

    /// Whether it is of nothing.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn total(&self) -> f64 {
        self.counts.iter().map(|&n| f64::from(n)).sum()
    }

    /// Ascending values, and the share of all at each.
    pub fn shares(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let total = self.total();
        self.values.iter().zip(&self.counts).map(move |(&value, &n)| (value, f64::from(n) / total))
    }

    /// The mixture of several, each with a weight; of nothing if all weights are 0.
    pub fn mixture(parts: &[(&Steps, f64)]) -> Steps {
        let all: f64 = parts.iter().filter(|(steps, _)| !steps.is_empty()).map(|(_, weight)| weight).sum();
        let weighted = |(steps, weight): &(&Steps, f64)| {
            let weight = *weight;
            steps.shares().map(move |(x, share)| (x, share * weight / all)).collect::<Vec<_>>()
        };
        Steps::of_shares(parts.iter().flat_map(weighted).collect())
    }

    /// Of finite values in any order with the share of all at each; shares sum to 1.
    pub fn of_shares(mut runs: Vec<(f64, f64)>) -> Steps {
        runs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut below, mut next) = (0.0, 0);
        let picked = runs.into_iter().map(|(value, share)| {
            below += share;
            // Of the points (2i + 1) / (2 · MOST_STEPS), those that lie below.
            let until = ((below * MOST_STEPS as f64 - 0.5).floor() + 1.0).clamp(0.0, MOST_STEPS as f64) as u32;
            let count = until.saturating_sub(next);
            next = next.max(until);
            (value, count)
        });
        Steps::from_runs(picked.filter(|(_, count)| *count > 0))
    }

    /// The values that stand for equal shares, ascending: equal ones as often as they do.
    pub fn points(&self) -> Vec<f64> {
        let repeated = self.values.iter().zip(&self.counts).map(|(&x, &n)| std::iter::repeat_n(x, n as usize));
        repeated.flatten().collect()
    }

    /// The share of all at or below `x`; 0 of nothing.
    pub fn share_at(&self, x: f64) -> f64 {
        let below = self.values.partition_point(|value| *value <= x);
        self.counts[..below].iter().map(|&n| f64::from(n)).sum::<f64>() / self.total().max(1.0)
    }

    /// Its [`spread`].
    pub fn spread(&self) -> f64 {
        spread(self.shares())
    }

    /// From ascending finite values whose rounding is another one: the least that it can be. `None` if either is of nothing.
    pub fn distance_within(&self, ascending: &[f64], slack: Slack) -> Option<Distance> {
        let Distance { ks, w1 } = self.distance(ascending)?;
        if slack.is_none() {
            return Some(Distance { ks, w1 });
        }
        // A value moves no farther than that.
        let moved: f64 = self.shares().map(|(x, share)| share * slack.at(x)).sum();
        Some(Distance { ks: self.ks_within(ascending, slack), w1: (w1 - moved).max(0.0) })
    }

    /// What was at or below x must still be at or below what x may have become, and the other way round.
    fn ks_within(&self, ascending: &[f64], slack: Slack) -> f64 {
        let n = ascending.len() as f64;
        let (mut ks, mut below, mut at) = (0.0f64, 0.0, 0);
        for (value, share) in self.shares() {
            below += share;
            at += ascending[at..].iter().take_while(|x| **x <= slack.above(value)).count();
            ks = ks.max(below - at as f64 / n);
        }
        let (mut below, mut step, total) = (0u64, 0, self.total());
        for (i, &x) in ascending.iter().enumerate() {
            while self.values.get(step).is_some_and(|value| *value <= slack.back(x)) {
                below += u64::from(self.counts[step]);
                step += 1;
            }
            ks = ks.max((i + 1) as f64 / n - below as f64 / total);
        }
        ks
    }

    /// Of ascending finite values. `None` if either is of nothing.
    pub fn distance(&self, ascending: &[f64]) -> Option<Distance> {
        if self.is_empty() || ascending.is_empty() {
            return None;
        }
        let (total, n) = (self.total(), ascending.len() as f64);
        let (mut mine, mut seen, mut step, mut at) = (0u64, 0u32, 0, 0);
        let (mut ks, mut w1, mut last, mut gap) = (0.0f64, 0.0, 0.0, 0.0f64);
        while step < self.values.len() || at < ascending.len() {
            let next = match (self.values.get(step), ascending.get(at)) {
                (Some(&a), Some(&b)) => a.min(b),
                (Some(&x), None) | (None, Some(&x)) => x,
                (None, None) => break,
            };
            if gap > 0.0 {
                w1 += gap * (next - last);
            }
            if self.values.get(step) == Some(&next) {
                mine += u64::from(self.counts[step]);
                step += 1;
            }
            while ascending.get(at) == Some(&next) {
                at += 1;
                seen += 1;
            }
            gap = (mine as f64 / total - f64::from(seen) / n).abs();
            ks = ks.max(gap);
            last = next;
        }
        Some(Distance { ks, w1 })
    }
}

/// ∫√(F(1 − F)) dx over ascending values with the share of all at each: how far a sample strays by chance. Of many values
/// the mean of ∫|F − Fₙ| dx is √(2/π)/√n of it, whatever the distribution, and its deviation at most √(1 − 2/π)/√n of it (the triangle
/// inequality of the deviations of |F − Fₙ| at each x, the half of a normal).
pub fn spread(ascending: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (mut below, mut last, mut spread) = (0.0, None, 0.0);
    for (value, share) in ascending {
        if let Some(last) = last.replace(value) {
            spread += (below * (1.0f64 - below)).max(0.0).sqrt() * (value - last);
        }
        below += share;
    }
    spread
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Element, Elements, Made};
    use proptest::prelude::*;

    /// Share of ascending values ≤ x.
    fn cdf(ascending: &[f64], x: f64) -> f64 {
        ascending.partition_point(|v| *v <= x) as f64 / ascending.len() as f64
    }

    fn oracle(a: &[f64], b: &[f64]) -> Distance {
        let mut all = [a, b].concat();
        all.sort_by(f64::total_cmp);
        let gap = |x: f64| (cdf(a, x) - cdf(b, x)).abs();
        let ks = all.iter().map(|&x| gap(x)).fold(0.0, f64::max);
        Distance { ks, w1: all.windows(2).map(|pair| gap(pair[0]) * (pair[1] - pair[0])).sum() }
    }

    fn sorted(mut values: Vec<f64>) -> Vec<f64> {
        values.sort_by(f64::total_cmp);
        values
    }

    #[test]
    fn agree_with_published_numbers() {
        let reference = [38.7, 41.5, 43.8, 44.5, 45.5, 46.0, 47.7, 58.0];
        let current = [39.2, 39.3, 39.7, 41.4, 41.8, 42.9, 43.3, 45.8];
        let d = Steps::of_sorted(&reference).distance(&current).unwrap();
        assert!((d.ks - 0.625).abs() < 1e-12 && (d.w1 - 4.1625).abs() < 1e-12, "{d:?}");
    }

    #[test]
    fn of_a_large_sample_stay_within_what_they_promise() {
        let noise = |i: usize, step: f64| (i as f64 * step).fract();
        let a = sorted((0..20_000).map(|i| noise(i, 0.754_877_666)).collect());
        let b = sorted((0..3_000).map(|i| noise(i, 0.569_840_29) * 1.1).collect());
        let (got, want) = (Steps::of_sorted(&a).distance(&b).unwrap(), oracle(&a, &b));
        assert!((got.ks - want.ks).abs() <= 1.0 / 2002.0 + 1e-12, "{got:?} {want:?}");
        assert!((got.w1 - want.w1).abs() <= 1e-3, "{got:?} {want:?}");
    }

    #[test]
    fn the_spread_of_a_uniform_distribution_is_an_eighth_of_pi() {
        let uniform: Vec<f64> = (0..1001).map(|i| f64::from(i) / 1000.0).collect();
        assert!((Steps::of_sorted(&uniform).spread() - std::f64::consts::PI / 8.0).abs() < 1e-3);
    }

    proptest! {
        #[test]
        fn the_same_values_in_another_rounding_are_no_distance_away_and_others_are(
            values in proptest::collection::vec(prop_oneof![(-30..30i32).prop_map(|x| f64::from(x) / 10.0), -9.0..9.0f64], 1..300),
            then in prop::sample::select(Element::ALL.to_vec()),
            now in prop::sample::select(Element::ALL.to_vec()),
        ) {
            let rounded = |element: Element| sorted(values.iter().map(|x| element.round(*x)).collect());
            let slack = Elements::of(then).slack(Elements::of(now), Made::Read);
            let (then, now) = (Steps::of_sorted(&rounded(then)), rounded(now));
            let same = then.distance_within(&now, slack).unwrap();
            prop_assert!(same.ks <= 1e-12 && same.w1 <= 1e-9, "{same:?}");
            let moved: Vec<f64> = now.iter().map(|x| x + 20.0).collect();
            prop_assert!(then.distance_within(&moved, slack).unwrap().ks > 1.0 - 1e-12);
        }

        #[test]
        fn without_slack_it_is_the_distance(
            a in proptest::collection::vec((-20..20i32).prop_map(f64::from), 1..80),
            b in proptest::collection::vec((-20..20i32).prop_map(f64::from), 1..80),
        ) {
            let (a, b) = (Steps::of_sorted(&sorted(a)), sorted(b));
            prop_assert!((a.ks_within(&b, Slack::NONE) - a.distance(&b).unwrap().ks).abs() < 1e-12);
        }

        #[test]
        fn equal_the_two_sample_oracle(
            a in proptest::collection::vec((-20..20i32).prop_map(f64::from), 1..80),
            b in proptest::collection::vec((-20..20i32).prop_map(f64::from), 1..80),
        ) {
            let (a, b) = (sorted(a), sorted(b));
            let (got, want) = (Steps::of_sorted(&a).distance(&b).unwrap(), oracle(&a, &b));
            prop_assert!((got.ks - want.ks).abs() < 1e-12 && (got.w1 - want.w1).abs() < 1e-9, "{:?} {:?}", got, want);
            prop_assert!(Steps::of_sorted(&a).is_sound());
        }

        #[test]
        fn a_mixture_is_within_a_step_of_the_whole(
            a in proptest::collection::vec(-20.0..20.0f64, 1..300),
            b in proptest::collection::vec(-5.0..40.0f64, 1..300),
        ) {
            let whole = sorted([a.as_slice(), &b].concat());
            let (a, b) = (Steps::of_sorted(&sorted(a.clone())), Steps::of_sorted(&sorted(b.clone())));
            let mixture = Steps::mixture(&[(&a, a.total()), (&b, b.total())]);
            prop_assert!(mixture.is_sound());
            prop_assert_eq!(&Steps::of_sorted(&mixture.points()), &mixture);
            prop_assert!(mixture.distance(&whole).unwrap().ks <= 1.5 / MOST_STEPS as f64, "{:?}", mixture.distance(&whole));
        }
    }
}
