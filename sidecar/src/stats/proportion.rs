//! A share and what its sample size says about it.
//!
//! Wilson, *Probable Inference, the Law of Succession, and Statistical Inference*, 1927: stays within [0, 1], and says something of
//! 0 of n and n of n too.

/// Two-sided 95 % point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// `part` of `whole`, where there is a whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proportion {
    /// part / whole.
    pub value: f64,
    /// Least share that `part` of `whole` does not speak against at 95 %.
    pub low: f64,
    /// The largest.
    pub high: f64,
}

impl Proportion {
    /// `part` is at most `whole`; `None` of nothing.
    pub fn of(part: u64, whole: u64) -> Option<Proportion> {
        if whole == 0 {
            return None;
        }
        let n = whole as f64;
        let value = part as f64 / n;
        let z2 = Z * Z / n;
        let centre = value + z2 / 2.0;
        let half = Z * (value * (1.0 - value) / n + z2 / (4.0 * n)).sqrt();
        // At the ends the bound is exactly 0 or 1, whatever rounding says.
        let low = if part == 0 { 0.0 } else { ((centre - half) / (1.0 + z2)).max(0.0) };
        let high = if part == whole { 1.0 } else { ((centre + half) / (1.0 + z2)).min(1.0) };
        Some(Proportion { value, low, high })
    }
}

/// The difference of two independent shares, with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "named by themselves")]
pub struct Difference {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Difference {
    /// `a` − `b`, from their score intervals (Newcombe, Interval Estimation for the Difference Between Independent Proportions, 1998,
    /// method 10).
    pub fn of(a: Proportion, b: Proportion) -> Difference {
        let value = a.value - b.value;
        let below = (a.value - a.low).hypot(b.high - b.value);
        let above = (a.high - a.value).hypot(b.value - b.low);
        Difference { value, low: value - below, high: value + above }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn of_nothing_is_undefined_and_of_all_or_none_still_uncertain() {
        assert_eq!(Proportion::of(0, 0), None);
        let none = Proportion::of(0, 10).unwrap();
        assert_eq!((none.value, none.low), (0.0, 0.0));
        assert!((none.high - 0.277_532_799_862_889_2).abs() < 1e-15, "z²/(n + z²), got {}", none.high);
        let all = Proportion::of(10, 10).unwrap();
        assert_eq!((all.value, all.high), (1.0, 1.0));
        assert!((all.low - (1.0 - none.high)).abs() < 1e-15);
    }

    /// Newcombe's table II, example a: 56/70 against 48/80.
    #[test]
    fn a_difference_has_the_published_interval() {
        let got = Difference::of(Proportion::of(56, 70).unwrap(), Proportion::of(48, 80).unwrap());
        assert!((got.low - 0.0524).abs() < 5e-5 && (got.high - 0.3339).abs() < 5e-5, "{got:?}");
    }

    proptest! {
        /// The interval's ends are the shares p with |part/n − p| = z √(p(1 − p)/n).
        #[test]
        fn ends_solve_the_score_equation(part in 0..=1000u64, more in 0..1_000_000u64) {
            let whole = part + more + 1;
            let got = Proportion::of(part, whole).unwrap();
            prop_assert!(got.low <= got.value && got.value <= got.high && 0.0 <= got.low && got.high <= 1.0);
            for end in [got.low, got.high] {
                let score = Z * (end * (1.0 - end) / whole as f64).sqrt();
                prop_assert!(((got.value - end).abs() - score).abs() < 1e-12, "{part} of {whole}: {end}");
            }
        }
    }
}
