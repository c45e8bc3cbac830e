//! What a measure of distance says, and from when on it counts.

use crate::report::overrides::Overridden;
use crate::stats::Noisy;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a measure says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named by themselves")]
pub enum Verdict {
    Ok,
    Warn,
    Alert,
}

/// A value with what makes it believable: z above chance, p, and q among all columns of the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Measure {
    pub value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub z: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// A measure where no other field says how many it is of, on this side and on the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Evidence {
    #[serde(flatten)]
    pub measure: Measure,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_other: Option<u64>,
}

/// From which value on a measure warns, and from which it alerts. What a setting leaves out is never, whatever it is by default.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Levels {
    /// None: never.
    pub warn: Option<f64>,
    /// None: never.
    pub alert: Option<f64>,
}

/// When a measure counts as drift: its effect must be large, and chance must be excluded.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DriftSettings {
    /// Columns with fewer values have no verdict.
    pub min_rows: u64,
    /// Deviations above chance from which on an effect is believed.
    pub z: f64,
    /// False discovery rate up to which a p-value is believed.
    pub fdr: f64,
    /// Population stability index.
    pub psi: Levels,
    /// Jensen-Shannon distance.
    pub jensen_shannon: Levels,
    /// Hellinger distance.
    pub hellinger: Levels,
    /// Largest difference of a bin's share.
    pub l_infinity: Levels,
    /// Kolmogorov-Smirnov distance.
    pub ks: Levels,
    /// Wasserstein distance in deviations of the reference.
    pub w1: Levels,
    /// Difference of the shares of missing values.
    pub missing: Levels,
    /// Distance of an embedding's centroid in deviations of the reference's vectors.
    pub embedding: Levels,
    /// Difference of two versions' accuracies, and what one has fallen by since the reference.
    pub accuracy: Levels,
    /// Difference of the estimated and the realised accuracy.
    pub concept: Levels,
    /// Share of drifted features.
    pub drifted_share: Levels,
    /// What is otherwise for some models and columns.
    #[serde(skip)]
    pub(in crate::report) overrides: Vec<Overridden>,
}

impl Default for DriftSettings {
    fn default() -> DriftSettings {
        let levels = |warn, alert| Levels { warn, alert };
        DriftSettings {
            min_rows: 30,
            z: 5.0,
            fdr: 0.01,
            psi: levels(Some(0.1), Some(0.25)),
            jensen_shannon: levels(Some(0.1), Some(0.3)),
            hellinger: levels(Some(0.15), None),
            l_infinity: levels(Some(0.1), None),
            ks: levels(None, Some(0.1)),
            w1: levels(Some(0.1), None),
            missing: levels(None, Some(0.02)),
            embedding: levels(Some(0.1), Some(0.5)),
            accuracy: levels(Some(0.02), Some(0.05)),
            concept: levels(Some(0.05), Some(0.1)),
            drifted_share: levels(None, Some(0.3)),
            overrides: Vec::new(),
        }
    }
}

/// What is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Error)]
#[expect(missing_docs, reason = "the messages document them")]
pub enum LevelError {
    #[error("{name} has the level {level}, want a number of at least 0; leave it out for never")]
    Level { name: &'static str, level: f64 },
    #[error(
        "{name} alerts from {alert} and warns from {warn}: nothing would ever warn, want warn <= alert, or leave out warn"
    )]
    Order { name: &'static str, warn: f64, alert: f64 },
    #[error("z is {0}, want a number of deviations of at least 0, such as 5")]
    Z(f64),
    #[error("fdr is {0}, want a rate above 0 and at most 1, such as 0.01")]
    Fdr(f64),
}

impl DriftSettings {
    /// What is wrong with them, if anything.
    pub fn check(&self) -> Result<(), LevelError> {
        if !(self.z.is_finite() && self.z >= 0.0) {
            return Err(LevelError::Z(self.z));
        }
        if !(self.fdr > 0.0 && self.fdr <= 1.0) {
            return Err(LevelError::Fdr(self.fdr));
        }
        let levels = [
            ("psi", self.psi),
            ("jensen_shannon", self.jensen_shannon),
            ("hellinger", self.hellinger),
            ("l_infinity", self.l_infinity),
            ("ks", self.ks),
            ("w1", self.w1),
            ("missing", self.missing),
            ("embedding", self.embedding),
            ("accuracy", self.accuracy),
            ("concept", self.concept),
            ("drifted_share", self.drifted_share),
        ];
        levels.into_iter().try_for_each(|(name, levels)| levels.check(name))
    }
}

/// By its name.
type Named = (&'static str, Evidence);

impl Evidence {
    /// That of two with the worse verdict; the first of equals. One without a verdict is not worse than any that has one.
    pub fn worse(a: Named, b: Named) -> Named {
        if b.1.measure.verdict > a.1.measure.verdict { b } else { a }
    }
}

impl Levels {
    fn check(&self, name: &'static str) -> Result<(), LevelError> {
        let mut levels = [self.warn, self.alert].into_iter().flatten();
        if let Some(level) = levels.find(|level| !(level.is_finite() && *level >= 0.0)) {
            return Err(LevelError::Level { name, level });
        }
        match (self.warn, self.alert) {
            (Some(warn), Some(alert)) if warn > alert => Err(LevelError::Order { name, warn, alert }),
            _ => Ok(()),
        }
    }

    fn verdict(&self, value: f64, believed: bool) -> Verdict {
        let over = |level: Option<f64>| believed && level.is_some_and(|level| value > level);
        if over(self.alert) {
            Verdict::Alert
        } else if over(self.warn) {
            Verdict::Warn
        } else {
            Verdict::Ok
        }
    }
}

impl Measure {
    /// Without a value, for `reason`.
    pub fn undefined(reason: &'static str) -> Measure {
        Measure { reason: Some(reason), ..Measure::default() }
    }

    /// A value, if it is finite.
    pub fn of(value: f64) -> Measure {
        match value.is_finite() {
            true => Measure { value: Some(value), ..Measure::default() },
            false => Measure::undefined("overflow"),
        }
    }

    /// A value with its z.
    pub fn noisy(noisy: Noisy) -> Measure {
        Measure { z: noisy.z, ..Measure::of(noisy.value) }
    }

    /// Of so many on either side.
    pub fn counted(self, n: u64, n_other: u64) -> Evidence {
        Evidence { measure: self, n: Some(n), n_other: Some(n_other) }
    }

    /// Large enough by its levels, and `believed`. Without levels it is switched off, and has no verdict.
    pub fn judge(&mut self, levels: &Levels, believed: impl Fn(&Measure) -> bool) {
        let is_on = levels.warn.or(levels.alert).is_some();
        self.verdict = self.value.filter(|_| is_on).map(|value| levels.verdict(value.abs(), believed(self)));
    }
}
