//! p-values, and what becomes of them when there are many.

use statrs::function::erf::erfc_inv;
use statrs::function::gamma::{gamma_ur, ln_gamma};

/// Upper tail of χ² with `degrees` degrees of freedom.
pub fn chi2_p(statistic: f64, degrees: u64) -> f64 {
    if statistic <= 0.0 {
        1.0
    } else if statistic.is_finite() {
        gamma_ur(degrees as f64 / 2.0, statistic / 2.0).clamp(0.0, 1.0)
    } else {
        0.0
    }
}

/// Asymptotic p of a two-sample Kolmogorov-Smirnov distance `d` between samples of `n` and `m`, with Stephens' correction for small
/// ones (Stephens, Use of the Kolmogorov-Smirnov, Cramér-Von Mises and Related Statistics Without Extensive Tables, 1970). Ties make it
/// conservative.
pub fn kolmogorov_p(d: f64, n: f64, m: f64) -> f64 {
    let root = (n * m / (n + m)).sqrt();
    let lambda = (root + 0.12 + 0.11 / root) * d;
    if lambda < 0.2 {
        return 1.0; // 1 − 5e-13, where the series needs many terms
    }
    let term = |k: i32| {
        let term = (-2.0 * f64::from(k * k) * lambda * lambda).exp();
        if k % 2 == 1 { term } else { -term }
    };
    (2.0 * (1..=40).map(term).sum::<f64>()).clamp(0.0, 1.0)
}

/// ln p of Fisher's exact test that `a` of `n` and `b` of `m` are of one share: twice the tail in which `a` lies, given `a + b`. It holds
/// however few are expected, and as a logarithm also where p is less than any f64. `None` where one share is of nothing.
pub fn fisher_ln_p(a: u64, n: u64, b: u64, m: u64) -> Option<f64> {
    let [mut a, mut n, mut b, mut m] = [a, n, b, m].map(|count| count as f64);
    if n == 0.0 || m == 0.0 {
        return None;
    }
    if a * m < b * n {
        (a, n, b, m) = (b, m, a, n);
    }
    let ln_choose = |n: f64, k: f64| ln_gamma(n + 1.0) - ln_gamma(k + 1.0) - ln_gamma(n - k + 1.0);
    let in_bin = a + b;
    let ln_first = ln_choose(in_bin, a) + ln_choose(n + m - in_bin, n - a) - ln_choose(n + m, n);
    let (mut tail, mut term, mut x) = (1.0, 1.0, a);
    for _ in 0..MOST_TERMS {
        let ratio = (in_bin - x) * (n - x) / ((x + 1.0) * (m - in_bin + x + 1.0));
        // Ratios only fall: what is left is at most a geometric series.
        let left = term * ratio / (1.0 - ratio).max(f64::EPSILON);
        if left < 1e-12 * tail {
            break;
        }
        (term, x) = (term * ratio, x + 1.0);
        tail += term;
    }
    Some((std::f64::consts::LN_2 + ln_first + tail.ln()).min(0.0))
}

/// Terms of a tail. Where they do not suffice it is so wide that its p is far from any limit.
const MOST_TERMS: usize = 10_000;

/// |z| of a standard normal whose two-sided p has this logarithm.
pub fn normal_z(ln_p: f64) -> f64 {
    const LEAST_LN: f64 = -600.0;
    if ln_p > LEAST_LN {
        return std::f64::consts::SQRT_2 * erfc_inv(ln_p.exp().min(1.0));
    }
    // p → √(2/π) exp(−z²/2) / z
    let z = |near: f64| (std::f64::consts::FRAC_2_PI.ln() - 2.0 * (ln_p + near.ln())).sqrt();
    (0..4).fold((-2.0 * ln_p).sqrt(), |near, _| z(near))
}

/// How far two shares are apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SharesApart {
    /// Their difference.
    pub value: f64,
    /// One standard error of it, were both the same, pooled.
    pub error: f64,
    /// Corrected: few rows on one side know few shares. `None` where both are 0 or both are 1.
    pub z: Option<f64>,
}

impl SharesApart {
    /// `a` of `n` and `b` of `m`. `None` if one is of nothing.
    pub fn of(a: u64, n: u64, b: u64, m: u64) -> Option<SharesApart> {
        if n == 0 || m == 0 {
            return None;
        }
        let (a, n, b, m) = (a as f64, n as f64, b as f64, m as f64);
        let (value, pooled, rows) = (a / n - b / m, (a + b) / (n + m), 1.0 / n + 1.0 / m);
        let error = (pooled * (1.0 - pooled) * rows).sqrt();
        Some(SharesApart { value, error, z: corrected_z(value, error, rows / 2.0) })
    }
}

/// How many `errors` a difference is beside 0, the step between two values it can take, halved, not counted (Yates, Contingency Tables
/// Involving Small Numbers and the χ² Test, 1934). `None` without an error.
pub fn corrected_z(difference: f64, error: f64, half_step: f64) -> Option<f64> {
    let beyond = (difference.abs() - half_step).max(0.0).copysign(difference);
    Some(beyond / error).filter(|z| z.is_finite())
}

/// The false discovery rates at which each of `p` would be called (Benjamini and Hochberg, Controlling the False Discovery Rate, 1995).
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_unstable_by(|&a, &b| p[b].total_cmp(&p[a]));
    let (mut q, mut least) = (vec![1.0; p.len()], 1.0f64);
    for (larger, &at) in order.iter().enumerate() {
        let rank = p.len() - larger;
        least = least.min(p[at] * p.len() as f64 / rank as f64);
        q[at] = least;
    }
    q
}

#[cfg(test)]
mod tests {
    use super::*;
    use statrs::function::erf::erfc;

    /// Two-sided p of a standard normal.
    fn normal_p(z: f64) -> f64 {
        erfc(z / std::f64::consts::SQRT_2)
    }

    fn assert_near(got: f64, want: f64, within: f64) {
        assert!((got - want).abs() <= within, "{got}, want {want}");
    }

    #[test]
    fn chi2_agrees_with_tables() {
        assert_near(chi2_p(3.841_458_820_694_124, 1), 0.05, 1e-9);
        assert_near(chi2_p(16.918_977_604_620_45, 9), 0.05, 1e-9);
        assert_eq!((chi2_p(0.0, 3), chi2_p(f64::INFINITY, 3)), (1.0, 0.0));
    }

    /// scipy.special.kolmogorov(1.36) is .049485877; with n_e = 4 scipy's ks_2samp(method="asymp") gives .04932 for D = .625.
    #[test]
    fn kolmogorov_agrees_with_tables() {
        let n = 1e12;
        assert_near(kolmogorov_p(1.36 / (n / 2.0f64).sqrt(), n, n), 0.049_485_877, 1e-6);
        assert_near(kolmogorov_p(0.625, 8.0, 8.0), 0.04932, 1e-3);
        assert_eq!(kolmogorov_p(0.0, 8.0, 8.0), 1.0);
        assert_near(kolmogorov_p(1.0, 1e4, 1e4), 0.0, 1e-300);
    }

    /// Every table with the same margins, one after the other.
    fn fisher_by_hand(a: u64, n: u64, b: u64, m: u64) -> f64 {
        let choose = |n: u64, k: u64| (0..k).fold(1.0, |c, i| c * (n - i) as f64 / (i + 1) as f64);
        let in_bin = a + b;
        let probability = |x: u64| choose(in_bin, x) * choose(n + m - in_bin, n - x) / choose(n + m, n);
        let all = in_bin.saturating_sub(m)..=in_bin.min(n);
        let tail = |is_in: &dyn Fn(u64) -> bool| all.clone().filter(|x| is_in(*x)).map(probability).sum::<f64>();
        (2.0 * tail(&|x| x >= a).min(tail(&|x| x <= a))).min(1.0)
    }

    #[test]
    fn fisher_equals_adding_up_every_table_with_the_same_margins() {
        for [a, n, b, m] in
            [[3, 10, 1, 12], [0, 5, 9, 30], [2, 40, 0, 500], [20, 20, 0, 7], [9, 30, 30, 100], [1, 1, 0, 1]]
        {
            let p = fisher_ln_p(a, n, b, m).unwrap().exp();
            assert_near(p, fisher_by_hand(a, n, b, m), 1e-10);
            assert_near(fisher_ln_p(b, m, a, n).unwrap().exp(), p, 1e-10);
        }
        for none_or_all in [[0, 9, 0, 20], [9, 9, 20, 20]] {
            let [a, n, b, m] = none_or_all;
            assert_near(fisher_ln_p(a, n, b, m).unwrap(), 0.0, 1e-9);
        }
        assert_eq!(fisher_ln_p(1, 1, 0, 0), None);
    }

    #[test]
    fn of_large_counts_fisher_has_the_z_of_two_proportions() {
        for (a, z) in [(3000, 15.0), (2100, 1.6), (2000, 0.0), (9999, 130.0)] {
            let (n, b, m) = (10_000.0, 20_000, 100_000.0);
            let pooled = (a as f64 + f64::from(b)) / (n + m);
            let want = (a as f64 / n - f64::from(b) / m) / (pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m)).sqrt();
            let got = normal_z(fisher_ln_p(a, 10_000, b as u64, 100_000).unwrap());
            assert!((got - want).abs() < 0.05 + 0.1 * want && got + 1.0 > z, "{got}, {want}");
        }
    }

    #[test]
    fn z_is_that_of_its_p_also_where_p_is_no_f64() {
        assert_near(normal_z(0.05f64.ln()), 1.959_963_984_540_054, 1e-9);
        for z in [0.01, 1.0, 5.0, 20.0, 34.0] {
            assert_near(normal_z(normal_p(z).ln()), z, 1e-6 * z);
        }
        assert_near(normal_z(-599.999_999), normal_z(-600.000_001), 1e-4);
        assert_near(normal_z(-5e5), 1000.0, 0.01);
        assert_eq!(normal_z(0.0), 0.0);
    }

    /// The example of scipy.stats.false_discovery_control.
    #[test]
    fn benjamini_hochberg_agrees_with_the_paper() {
        let p = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
            0.7590, 1.000,
        ];
        let q = benjamini_hochberg(&p);
        let want = [0.0015, 0.003, 0.0095, 0.035625, 0.0603, 0.06385714, 0.06385714, 0.0645, 0.0765];
        want.iter().zip(q).for_each(|(want, got)| assert_near(got, *want, 1e-8));
        assert_eq!(benjamini_hochberg(&[]), [0.0; 0]);
        assert_eq!(benjamini_hochberg(&[0.04, 0.01]), [0.04, 0.02]);
    }
}
