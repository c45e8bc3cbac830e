//! Which columns have a histogram: their names, as the operator says.

use crate::profile::{Histogrammed, Spec};
use crate::stats::MOST_SCALE;
use crate::wildcard;
use serde::Deserialize;
use std::ops::Range;

/// Of which columns every value is counted in buckets.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct HistogramSettings {
    /// Names of features; `*` stands for any text, `?` for a character. Codes are no quantities: categorical ones have none.
    pub features: Vec<String>,
    /// Every class's probability, or every output.
    pub predictions: bool,
    /// An octave has 2^scale buckets.
    pub scale: u8,
}

impl Default for HistogramSettings {
    fn default() -> HistogramSettings {
        HistogramSettings { features: Vec::new(), predictions: false, scale: 4 }
    }
}

impl HistogramSettings {
    /// Why they cannot be.
    pub fn check(&self) -> Result<(), String> {
        if self.scale > MOST_SCALE {
            return Err(format!("scale {}, want 0 to {MOST_SCALE}", self.scale));
        }
        Ok(())
    }

    /// Of a model.
    pub fn of_spec(&self, spec: &Spec) -> Option<Histogrammed> {
        let features = spec.features.iter().map(|feature| (&feature.name, feature.categorical));
        self.of(features, !spec.classes.is_empty())
    }

    /// The same of these features, each with whether it is categorical, with or without classes or outputs.
    pub fn of<'a>(
        &self,
        features: impl Iterator<Item = (&'a String, bool)>,
        has_predictions: bool,
    ) -> Option<Histogrammed> {
        let wanted = |name: &str| self.features.iter().any(|pattern| wildcard::matches(pattern, name));
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (column, (name, categorical)) in features.enumerate() {
            match runs.last_mut() {
                _ if categorical || !wanted(name) => {}
                Some(run) if run.end == column => run.end += 1,
                _ => runs.push(column..column + 1),
            }
        }
        let predictions = self.predictions && has_predictions;
        (predictions || !runs.is_empty()).then_some(Histogrammed { scale: self.scale, features: runs, predictions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_the_numerical_features_that_they_mean() {
        let names = ["age", "pixel_0", "pixel_1", "plan", "pixel_2", "size"].map(String::from);
        let chosen = |patterns: &[&str], predictions| {
            let features = patterns.iter().map(|pattern| pattern.to_string()).collect();
            let settings = HistogramSettings { features, predictions, scale: 6 };
            settings.of(names.iter().map(|name| (name, name == "plan")), true)
        };
        let some = |features: &[Range<usize>], predictions| {
            Some(Histogrammed { scale: 6, features: features.to_vec(), predictions })
        };
        assert_eq!(chosen(&["pixel_*", "size"], false), some(&[1..3, 4..6], false));
        assert_eq!(chosen(&["*"], true), some(&[0..3, 4..6], true));
        assert_eq!(chosen(&["plan", "nobody"], false), None);
        assert_eq!(chosen(&[], true), some(&[], true));
        let only = HistogramSettings { predictions: true, ..HistogramSettings::default() };
        assert_eq!(only.of([].into_iter(), false), None);
    }
}
