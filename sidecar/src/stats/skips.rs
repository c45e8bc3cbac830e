//! Which row a full sample takes next, without a draw for each of those it passes over: Algorithm L (Li, Reservoir-Sampling Algorithms
//! of Time Complexity O(n(1 + log(N/n))), 1994).
//!
//! Give every row a key, uniform in (0, 1]: the k rows with the least keys are a uniform sample, whatever the keys are. All that must
//! be known of them is W, the largest of these k. The next row taken is the first whose key lies below W, and the number of those
//! before it is geometric; it takes the place of the row with the largest key, which may be any of them, and the k keys below W
//! are then uniform again, so that the largest of them is W·u^(1/k).
//!
//! Which rows have the least keys says nothing of how large those are (ranks and order statistics of equally distributed keys are
//! independent: Rényi, On the Theory of Order Statistics, 1953). So any uniform sample of n rows can go on in this way, W being
//! drawn as the k-th least of n uniforms: Beta(k, n − k + 1) (David and Nagaraja, Order Statistics, 2003, 2.3).
//!
//! Logarithms are `libm`'s, which are the same bits on every processor.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::Rng;
use serde::{Deserialize, Serialize};

/// Goes from one taken row to the next. Rows are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Skips {
    /// The largest of the sample's keys.
    largest_key: f64,
    /// The row taken next.
    next: u64,
}

impl Skips {
    /// Goes on with a uniform sample of `capacity` of the `seen` rows so far; 0 < `capacity` ≤ `seen`.
    pub fn after(seen: u64, capacity: u64, random: &mut Xoshiro256PlusPlus) -> Skips {
        let largest_key = beta(capacity as f64, (seen - capacity) as f64 + 1.0, random);
        let mut skips = Skips { largest_key, next: seen };
        skips.skip(random);
        skips
    }

    /// The row taken next. It stays at the largest number once it has come there.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// That row has taken another's place.
    pub fn advance(&mut self, capacity: u64, random: &mut Xoshiro256PlusPlus) {
        self.largest_key *= libm::exp(libm::log(uniform(random)) / capacity as f64);
        self.skip(random);
    }

    fn skip(&mut self, random: &mut Xoshiro256PlusPlus) {
        let passed_over = libm::log(uniform(random)) / libm::log1p(-self.largest_key);
        self.next = self.next.saturating_add(passed_over as u64).saturating_add(1);
    }

    /// Whether it can have come of `seen` rows: what comes from a file may be anything.
    pub fn fits(&self, seen: u64) -> bool {
        self.largest_key > 0.0 && self.largest_key < 1.0 && (self.next > seen || self.next == u64::MAX)
    }
}

/// In (0, 1].
fn uniform(random: &mut Xoshiro256PlusPlus) -> f64 {
    ((random.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64
}

/// In (0, 1); `a` and `b` are at least 1.
fn beta(a: f64, b: f64, random: &mut Xoshiro256PlusPlus) -> f64 {
    let (a, b) = (gamma(a, random), gamma(b, random));
    (a / (a + b)).clamp(f64::MIN_POSITIVE, 1.0 - f64::EPSILON)
}

/// Of scale 1 and `shape` ≥ 1 (Marsaglia and Tsang, A Simple Method for Generating Gamma Variables, 2000).
fn gamma(shape: f64, random: &mut Xoshiro256PlusPlus) -> f64 {
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(random);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && libm::log(uniform(random)) < 0.5 * x * x + d - d * v + d * libm::log(v) {
            return d * v;
        }
    }
}

/// Box and Muller's.
fn normal(random: &mut Xoshiro256PlusPlus) -> f64 {
    (-2.0 * libm::log(uniform(random))).sqrt() * libm::cos(std::f64::consts::TAU * uniform(random))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Steps, kolmogorov_p};
    use rand_xoshiro::rand_core::SeedableRng;

    /// Oracle: the keys themselves.
    #[test]
    fn the_first_key_is_the_kth_least_of_n_uniforms() {
        const DRAWS: usize = 1000;
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        for (k, n) in [(1, 16), (4, 64), (100, 1600), (5, 5)] {
            let mut by_keys = || {
                let mut keys: Vec<f64> = (0..n).map(|_| uniform(&mut random)).collect();
                *keys.select_nth_unstable_by(k - 1, f64::total_cmp).1
            };
            let mut oracle: Vec<f64> = (0..DRAWS).map(|_| by_keys()).collect();
            let mut got: Vec<f64> =
                (0..DRAWS).map(|_| Skips::after(n as u64, k as u64, &mut random).largest_key).collect();
            oracle.sort_by(f64::total_cmp);
            got.sort_by(f64::total_cmp);
            let ks = Steps::of_sorted(&oracle).distance(&got).unwrap().ks;
            let p = kolmogorov_p(ks, DRAWS as f64, DRAWS as f64);
            assert!(p > 1e-6, "k = {k}, n = {n}: D = {ks}, which chance exceeds once in {:.0} runs", 1.0 / p);
        }
    }

    #[test]
    fn what_cannot_have_been_is_refused() {
        let sound = Skips { largest_key: 0.1, next: 30 };
        assert!(sound.fits(29) && !sound.fits(30));
        for largest_key in [0.0, 1.0, -0.1, f64::NAN, f64::INFINITY] {
            assert!(!Skips { largest_key, ..sound }.fits(29), "{largest_key}");
        }
    }

    #[test]
    fn at_the_end_of_all_numbers_nothing_is_taken() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut skips = Skips { largest_key: f64::MIN_POSITIVE, next: u64::MAX - 1 };
        (0..3).for_each(|_| skips.advance(1, &mut random));
        assert_eq!(skips.next(), u64::MAX);
        assert!(skips.fits(u64::MAX));
    }
}
