//! p-values, and what becomes of them when there are many.

use statrs::function::erf::erfc;
use statrs::function::gamma::gamma_ur;

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

/// Two-sided p of a standard normal.
pub fn normal_p(z: f64) -> f64 {
    erfc(z.abs() / std::f64::consts::SQRT_2)
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

/// z of the difference of two shares, `a` of `n` and `b` of `m`, pooled. `None` where both are 0, both are 1, or one is of nothing.
pub fn two_proportion_z(a: u64, n: u64, b: u64, m: u64) -> Option<f64> {
    let (a, n, b, m) = (a as f64, n as f64, b as f64, m as f64);
    let pooled = (a + b) / (n + m);
    let deviation = (pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m)).sqrt();
    (n > 0.0 && m > 0.0 && deviation > 0.0).then(|| (a / n - b / m) / deviation)
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

    fn assert_near(got: f64, want: f64, within: f64) {
        assert!((got - want).abs() <= within, "{got}, want {want}");
    }

    #[test]
    fn chi2_and_the_normal_agree_with_tables() {
        assert_near(chi2_p(3.841_458_820_694_124, 1), 0.05, 1e-9);
        assert_near(chi2_p(16.918_977_604_620_45, 9), 0.05, 1e-9);
        assert_near(normal_p(1.959_963_984_540_054), 0.05, 1e-9);
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

    #[test]
    fn a_difference_of_shares_is_measured_in_its_deviations() {
        assert_near(two_proportion_z(30, 100, 20, 100).unwrap(), 1.632_993_16, 1e-8);
        assert_eq!(two_proportion_z(0, 100, 0, 100), None);
        assert_eq!(two_proportion_z(1, 1, 0, 0), None);
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
