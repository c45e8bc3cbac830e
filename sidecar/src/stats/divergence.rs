//! How far two sets of counts over the same bins are apart, and how much of that is chance.
//!
//! p is the reference's share of a bin, q the current one, N and M the current and the reference's totals. Chance: if both come from
//! one distribution, (q − p)² / p summed over the bins is χ² with B − 1 degrees of freedom times 1/N + 1/M, to first order; PSI is the
//! same, the squared Hellinger distance and the Jensen-Shannon divergence (in nats) are an eighth of it. Few counts in a bin bend that,
//! so z is taken of counts with half a one added, and of bins wide enough to expect something.

use super::significance::{chi2_p, fisher_ln_p, normal_z};

/// A measure, and how many standard deviations it lies above what chance alone gives on average; `None` where too little is expected
/// to tell.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the type says it")]
pub struct Noisy {
    pub value: f64,
    pub z: Option<f64>,
}

/// Two sets of counts over the same bins.
#[derive(Clone, Copy, Debug)]
pub struct Contingency<'a> {
    reference: &'a [u64],
    current: &'a [u64],
    reference_total: f64,
    current_total: f64,
}

/// Added to every count where an empty bin would be an infinity, or would say far more than that chance left it empty (Jeffreys' prior).
const PSEUDO: f64 = 0.5;

/// More bins than this are put together with their neighbours for z until they hold one in the reference and expect one now: of few,
/// what half a count too much adds in each cannot reach a z that matters.
const MOST_UNGROUPED: usize = 10;

/// Bins whose expected counts are below are pooled for χ².
const LEAST_EXPECTED: f64 = 5.0;

/// χ² of homogeneity.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "named by themselves")]
pub struct Chi2 {
    pub statistic: f64,
    pub degrees: u64,
    pub p: f64,
}

impl<'a> Contingency<'a> {
    /// `None` without two bins, or where one side has counted nothing.
    pub fn new(reference: &'a [u64], current: &'a [u64]) -> Option<Contingency<'a>> {
        assert_eq!(reference.len(), current.len(), "the same bins");
        let total = |counts: &[u64]| counts.iter().fold(0u64, |sum, n| sum.saturating_add(*n)) as f64;
        let (reference_total, current_total) = (total(reference), total(current));
        let defined = reference.len() >= 2 && reference_total > 0.0 && current_total > 0.0;
        defined.then_some(Contingency { reference, current, reference_total, current_total })
    }

    /// (p, q) of each bin, with `pseudo` added to every count.
    fn shares(&self, pseudo: f64) -> impl Iterator<Item = (f64, f64)> + '_ {
        let more = pseudo * self.reference.len() as f64;
        let (p_total, q_total) = (self.reference_total + more, self.current_total + more);
        let shares = self.reference.iter().zip(self.current);
        shares.map(move |(&p, &q)| ((p as f64 + pseudo) / p_total, (q as f64 + pseudo) / q_total))
    }

    /// 1/N + 1/M.
    fn scale(&self) -> f64 {
        1.0 / self.current_total + 1.0 / self.reference_total
    }

    /// The same with sparse bins of many put together with their neighbours, the last as it comes. Only the reference decides: bins
    /// chosen by what is counted now would not be those that chance is reckoned for. Neighbours, and not the sparsest of all: those are
    /// sparse by chance too, and hold more the next time.
    fn grouped(&self) -> [Vec<u64>; 2] {
        let least = match self.reference.len() {
            0..=MOST_UNGROUPED => 0.0,
            _ => (self.reference_total / self.current_total).max(1.0),
        };
        let (mut groups, mut is_full) = ([Vec::<u64>::new(), Vec::new()], true);
        for (&p, &q) in self.reference.iter().zip(self.current) {
            for (group, count) in groups.iter_mut().zip([p, q]) {
                match group.last_mut().filter(|_| !is_full) {
                    Some(last) => *last = last.saturating_add(count),
                    None => group.push(count),
                }
            }
            is_full = groups[0].last().is_some_and(|&p| p as f64 >= least);
        }
        groups
    }

    /// Of a measure that is to first order distributed as χ² · (1/N + 1/M).
    fn z(&self, like_chi2: impl Fn(&Contingency<'_>) -> f64) -> Option<f64> {
        let [reference, current] = self.grouped();
        let grouped = Contingency::new(&reference, &current)?;
        let degrees = reference.len() as f64 - 1.0;
        Some((like_chi2(&grouped) - degrees * self.scale()) / ((2.0 * degrees).sqrt() * self.scale()))
    }

    /// Population stability index Σ(q − p) ln(q/p), half a count added to every bin on both sides (Jeffreys' prior), so that an empty
    /// bin is no infinity.
    pub fn psi(&self) -> Noisy {
        Noisy { value: self.psi_with(PSEUDO), z: self.z(|grouped| grouped.psi_with(PSEUDO)) }
    }

    fn psi_with(&self, pseudo: f64) -> f64 {
        self.shares(pseudo).map(|(p, q)| (q - p) * (q / p).ln()).sum()
    }

    /// Jensen-Shannon distance √JSD to base 2, in [0, 1] (Lin 1991; Endres and Schindelin 2003).
    pub fn jensen_shannon(&self) -> Noisy {
        let value = (self.jensen_shannon_nats(0.0) / std::f64::consts::LN_2).sqrt().min(1.0);
        Noisy { value, z: self.z(|grouped| 8.0 * grouped.jensen_shannon_nats(PSEUDO)) }
    }

    fn jensen_shannon_nats(&self, pseudo: f64) -> f64 {
        let part = |x: f64, m: f64| if x > 0.0 { x * (x / m).ln() } else { 0.0 };
        let parts = self.shares(pseudo).map(|(p, q)| part(p, (p + q) / 2.0) + part(q, (p + q) / 2.0));
        (parts.sum::<f64>() / 2.0).max(0.0)
    }

    /// Hellinger distance √(1 − Σ√(pq)), in [0, 1].
    pub fn hellinger(&self) -> Noisy {
        let value = self.hellinger_squared(0.0).sqrt().min(1.0);
        Noisy { value, z: self.z(|grouped| 8.0 * grouped.hellinger_squared(PSEUDO)) }
    }

    /// Half the sum of (√q − √p)² is the same as 1 − Σ√(pq), and keeps its digits where the two are nearly equal.
    fn hellinger_squared(&self, pseudo: f64) -> f64 {
        self.shares(pseudo).map(|(p, q)| (q.sqrt() - p.sqrt()).powi(2)).sum::<f64>() / 2.0
    }

    /// Largest |q − p| of a bin, in [0, 1]; z is that of B times the exact p of this bin, for it was chosen out of B.
    pub fn l_infinity(&self) -> Noisy {
        let differences = self.shares(0.0).map(|(p, q)| (q - p).abs()).enumerate();
        let (at, value) = differences.fold((0, 0.0), |most, it| if it.1 > most.1 { it } else { most });
        let [n, m] = [self.current_total, self.reference_total].map(|total| total as u64);
        let ln_p = fisher_ln_p(self.current[at], n, self.reference[at], m);
        let of_all = |ln_p: f64| ln_p + (self.reference.len() as f64).ln();
        Noisy { value, z: ln_p.map(|ln_p| normal_z(of_all(ln_p).min(0.0))) }
    }

    /// χ² of the 2 × B table; bins that are expected to hold fewer than 5 on either side are pooled into one. `None` if fewer than two
    /// are left.
    pub fn chi2(&self) -> Option<Chi2> {
        let both = self.reference_total + self.current_total;
        let expected = |cells: [f64; 2]| {
            let in_bin = cells[0] + cells[1];
            [in_bin * self.reference_total / both, in_bin * self.current_total / both]
        };
        let (mut pooled, mut cells) = ([0.0; 2], Vec::with_capacity(self.reference.len()));
        for (&p, &q) in self.reference.iter().zip(self.current) {
            let cell = [p as f64, q as f64];
            if expected(cell).iter().any(|e| *e < LEAST_EXPECTED) {
                pooled = [pooled[0] + cell[0], pooled[1] + cell[1]];
            } else {
                cells.push(cell);
            }
        }
        if pooled[0] + pooled[1] > 0.0 {
            cells.push(pooled);
        }
        let degrees = cells.len().checked_sub(2)? as u64 + 1;
        let distance = |cell: [f64; 2]| {
            let expected = expected(cell);
            (cell[0] - expected[0]).powi(2) / expected[0] + (cell[1] - expected[1]).powi(2) / expected[1]
        };
        let statistic = cells.into_iter().map(distance).sum();
        Some(Chi2 { statistic, degrees, p: chi2_p(statistic, degrees) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_xoshiro::Xoshiro256PlusPlus;
    use rand_xoshiro::rand_core::{Rng, SeedableRng};

    const DICE: [[u64; 6]; 2] = [[16, 18, 16, 14, 12, 12], [16, 16, 16, 16, 16, 8]];
    const HISTOGRAMS: [[u64; 10]; 2] =
        [[11, 32, 58, 97, 114, 82, 59, 34, 10, 3], [7, 30, 55, 95, 99, 102, 65, 34, 10, 3]];

    fn assert_near(got: f64, want: f64, within: f64) {
        assert!((got - want).abs() <= within, "{got}, want {want}");
    }

    /// Reproduced with scipy, Evidently's and Deepchecks' formulas.
    #[test]
    fn agree_with_published_numbers() {
        let dice = Contingency::new(&DICE[0], &DICE[1]).unwrap();
        assert_near(dice.hellinger().value, 0.068_127_74, 5e-9);
        assert_near(dice.l_infinity().value, 0.04545, 5e-6);
        assert_near(dice.psi_with(0.0), 0.037218, 5e-7);
        assert_near(dice.jensen_shannon().value, 0.081734, 5e-7);
        let chi2 = dice.chi2().unwrap();
        assert_near(chi2.statistic, 1.62241, 5e-6);
        assert_near(chi2.p, 0.89853, 5e-6);
        assert_eq!(chi2.degrees, 5);
        let histograms = Contingency::new(&HISTOGRAMS[0], &HISTOGRAMS[1]).unwrap();
        assert_near(histograms.psi_with(0.0), 0.01840073, 5e-9);
        assert_near(histograms.hellinger().value, 0.04792539, 5e-9);
    }

    #[test]
    fn small_bins_are_pooled_for_chi2() {
        let pooled = Contingency::new(&[50, 50, 1, 2], &[40, 60, 2, 1]).unwrap().chi2().unwrap();
        let by_hand = Contingency::new(&[50, 50, 3], &[40, 60, 3]).unwrap().chi2().unwrap();
        assert_eq!(pooled, by_hand);
        assert_eq!(Contingency::new(&[1, 2], &[2, 1]).unwrap().chi2(), None);
    }

    #[test]
    fn of_one_bin_or_of_nothing_are_undefined() {
        assert!(Contingency::new(&[5], &[5]).is_none());
        assert!(Contingency::new(&[0, 0], &[5, 1]).is_none());
        assert!(Contingency::new(&[5, 1], &[0, 0]).is_none());
    }

    #[test]
    fn z_is_of_bins_that_expect_something() {
        // 100,000 rows before and 100 now: five values, then 200 more that occurred once.
        let (mut reference, mut current) = (vec![20_000; 5], vec![20; 5]);
        let few = Contingency::new(&reference, &current).unwrap().psi();
        reference.extend([1; 200]);
        current.extend([0; 200]);
        let sparse = Contingency::new(&reference, &current).unwrap();
        let [grouped, _] = sparse.grouped();
        assert_eq!(grouped, [20_000, 20_000, 20_000, 20_000, 20_000, 200], "all 200 together expect less than one");
        assert!(sparse.psi().value > 0.5 && few.value < 1e-9);
        for z in [few.z, sparse.psi().z, sparse.jensen_shannon().z, sparse.hellinger().z] {
            assert!(z.unwrap() < 1.0, "{z:?}");
        }
        assert_eq!(Contingency::new(&[10; 11], &[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap().psi().z, None, "one group");
        let few = Contingency::new(&[0, 5000, 0], &[1000, 0, 0]).unwrap().psi();
        assert!(few.z > Some(100.0), "few stay apart: {few:?}");
    }

    /// Of shapes with more bins than rows: a period in 170 may be wrong for an alert a month in a hundred columns, at 3 of 5 periods.
    #[test]
    fn chance_alone_hardly_ever_gives_a_z_that_counts() {
        const DRAWS: usize = 400;
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut uniform = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let geometric = |i: usize| 0.7f64.powi(i as i32);
        let zipf = |i: usize| 1.0 / (i + 1) as f64;
        let dominant = |i: usize| if i == 0 { 99.0 } else { 1.0 / 300.0 };
        type Weight<'a> = &'a dyn Fn(usize) -> f64;
        let shapes: [(&str, usize, Weight<'_>); 5] = [
            ("uniform", 500, &|_| 1.0),
            ("geometric", 200, &geometric),
            ("geometric", 500, &geometric),
            ("Zipf", 300, &zipf),
            ("dominant", 300, &dominant),
        ];
        for (name, bins, weight) in shapes {
            let below: Vec<f64> = (0..bins)
                .scan(0.0, |sum, i| {
                    *sum += weight(i);
                    Some(*sum)
                })
                .collect();
            let mut drawn = |rows: usize| {
                let mut counts = vec![0u64; bins];
                (0..rows).for_each(|_| counts[below.partition_point(|b| *b < uniform() * below[bins - 1])] += 1);
                counts
            };
            let reference = drawn(100_000);
            for rows in [50, 300, 1000] {
                let mut is_wrong = || {
                    let current = drawn(rows);
                    let table = Contingency::new(&reference, &current).unwrap();
                    let measures = [table.psi(), table.jensen_shannon(), table.hellinger(), table.l_infinity()];
                    measures.iter().any(|measure| measure.z >= Some(5.0))
                };
                let wrong = (0..DRAWS).filter(|_| is_wrong()).count();
                assert!(wrong * 170 <= DRAWS, "{name} of {bins}: {wrong} of {DRAWS} at {rows} rows");
            }
        }
    }

    #[test]
    fn the_largest_difference_has_its_own_bins_z_chosen_out_of_all() {
        // The last bin is the least likely by chance, the first has the value.
        let table = [[5000, 4000, 1000, 0], [44, 43, 10, 3]];
        let largest = Contingency::new(&table[0], &table[1]).unwrap().l_infinity();
        assert_near(largest.value, 0.06, 1e-12);
        let of_bin = fisher_ln_p(44, 100, 5000, 10_000).unwrap();
        assert_eq!(largest.z, Some(normal_z((of_bin + 4f64.ln()).min(0.0))));
        assert!(largest.z < Some(1.0), "{largest:?}");
        let gone = Contingency::new(&[0, 4000], &[1000, 0]).unwrap().l_infinity();
        assert!(gone.value == 1.0 && gone.z > Some(50.0), "{gone:?}");
    }

    proptest! {
        #[test]
        fn are_zero_between_equals_and_symmetric(
            counts in proptest::collection::vec((0..500u64, 0..500u64), 2..12),
        ) {
            let (p, q): (Vec<u64>, Vec<u64>) = counts.into_iter().unzip();
            if let Some(same) = Contingency::new(&p, &p) {
                prop_assert_eq!((same.psi().value, same.jensen_shannon().value, same.hellinger().value), (0.0, 0.0, 0.0));
            }
            if let (Some(there), Some(back)) = (Contingency::new(&p, &q), Contingency::new(&q, &p)) {
                for (a, b) in [
                    (there.psi(), back.psi()),
                    (there.jensen_shannon(), back.jensen_shannon()),
                    (there.hellinger(), back.hellinger()),
                    (there.l_infinity(), back.l_infinity()),
                ] {
                    prop_assert!((a.value - b.value).abs() <= 1e-12);
                    prop_assert!(a.value >= 0.0 && a.z.is_none_or(f64::is_finite));
                }
                prop_assert!(there.jensen_shannon().value <= 1.0 && there.hellinger().value <= 1.0);
            }
        }
    }
}
