//! How many distinct values a column has: HyperLogLog, 4,096 registers of one byte.
//!
//! Flajolet, Fusy, Gandouet, Meunier: HyperLogLog (2007), read out by Ertl's corrected raw estimator (New cardinality estimation
//! algorithms for HyperLogLog sketches, 2017, algorithm 6), which has no bias to be corrected at either end and needs no tables.

use super::codes::Code;
use serde::{Deserialize, Serialize};

const P: u32 = 12;
const REGISTERS: usize = 1 << P;
/// The rank of a hash whose bits behind the register's number are all 0.
const MOST_RANK: usize = 64 - P as usize + 1;

/// Standard error of an estimate, relative: 1.04/√4096.
pub const DISTINCT_ERROR: f64 = 1.04 / 64.0;

/// A set of values, of which only its size is known, roughly. The same for the same set, whatever its order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct HyperLogLog {
    registers: Vec<u8>,
}

impl Default for HyperLogLog {
    fn default() -> HyperLogLog {
        HyperLogLog { registers: vec![0; REGISTERS] }
    }
}

impl HyperLogLog {
    /// Whether it can be one: what comes from a file may not be.
    pub fn fits(&self) -> bool {
        self.registers.len() == REGISTERS && self.registers.iter().all(|rank| usize::from(*rank) <= MOST_RANK)
    }

    /// The first bits of the hash choose a register, which keeps the largest position of a first 1 among the others.
    pub fn add(&mut self, code: Code) {
        let hash = code.hash();
        let rank = ((hash << P) | (1 << (P - 1))).leading_zeros() as u8 + 1;
        let register = &mut self.registers[(hash >> (64 - P)) as usize];
        *register = (*register).max(rank);
    }

    /// The union.
    pub fn merge(&mut self, other: &HyperLogLog) {
        self.registers.iter_mut().zip(&other.registers).for_each(|(a, b)| *a = (*a).max(*b));
    }

    pub fn estimate(&self) -> f64 {
        let mut counts = [0.0; MOST_RANK + 1];
        self.registers.iter().for_each(|rank| counts[usize::from(*rank)] += 1.0);
        let m = REGISTERS as f64;
        let mut z = m * tau(1.0 - counts[MOST_RANK] / m);
        for count in counts[1..MOST_RANK].iter().rev() {
            z = 0.5 * (z + count);
        }
        z += m * sigma(counts[0] / m);
        m * m / (2.0 * std::f64::consts::LN_2 * z)
    }
}

/// x + Σ x^(2^k)·2^(k−1), k from 1.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

/// ⅓(1 − x − Σ (1 − x^(2^−k))²·2^−k), k from 1.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl Iterator<Item = u64>) -> HyperLogLog {
        let mut sketch = HyperLogLog::default();
        values.for_each(|x| sketch.add(Code::of(x as f64).unwrap()));
        sketch
    }

    #[test]
    fn estimates_are_within_the_promised_error_at_every_size_and_without_bias() {
        assert_eq!(HyperLogLog::default().estimate(), 0.0);
        const SETS: u64 = 40;
        for size in [1, 100, 257, 1000, 4096, 10_000, 15_000, 20_000, 60_000, 300_000] {
            let errors: Vec<f64> = (0..SETS)
                .map(|set| of((0..size).map(|i| set * 1_000_003 + i)).estimate() / size as f64 - 1.0)
                .collect();
            let mean = errors.iter().sum::<f64>() / SETS as f64;
            let std = (errors.iter().map(|e| e * e).sum::<f64>() / SETS as f64).sqrt();
            println!("{size}: bias {mean:+.4}, standard error {std:.4}");
            assert!(std < 1.4 * DISTINCT_ERROR, "{size}: {std}");
            assert!(mean.abs() < 4.0 * DISTINCT_ERROR / (SETS as f64).sqrt(), "{size}: {mean}");
            assert!(errors.iter().all(|e| e.abs() < 4.5 * DISTINCT_ERROR), "{size}: {errors:?}");
        }
    }

    #[test]
    fn a_union_is_the_same_as_the_whole_in_any_order_and_repetition() {
        let mut union = of(0..3000);
        union.merge(&of((2000..5000).rev()));
        assert_eq!(union, of((0..5000).chain(0..5000)));
    }

    #[test]
    fn a_register_is_a_hash_bits_first_one_beyond_its_number() {
        // The hash of 0 is E220A8397B1DCDAF: register E22, then 0A8…: four zeros before the first 1.
        let sketch = of(std::iter::once(0));
        assert_eq!((sketch.registers[0xE22], sketch.registers.iter().filter(|r| **r > 0).count()), (5, 1));
    }

    #[test]
    fn what_is_full_to_the_brim_has_an_estimate() {
        let mut full = HyperLogLog::default();
        full.registers.fill(MOST_RANK as u8);
        assert!(full.fits() && full.estimate() > 1e18);
        full.registers[0] = MOST_RANK as u8 + 1;
        assert!(!full.fits());
    }
}
