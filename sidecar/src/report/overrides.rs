//! What an operator wants otherwise for some models, versions and columns. The first override that is for a column counts, and no other.

use super::{DriftSettings, LevelError, Levels};
use crate::wildcard::matches;
use serde::Deserialize;
use thiserror::Error;

/// For whom, and what. What it leaves out is as elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "docs/operations.md documents each setting")]
pub struct Override {
    pub model: Option<String>,
    pub version: Option<String>,
    pub of: Option<String>,
    pub feature: Option<String>,
    /// False: nobody is told.
    pub alert: Option<bool>,
    pub persistence: Option<[u64; 2]>,
    pub min_rows: Option<u64>,
    pub z: Option<f64>,
    pub fdr: Option<f64>,
    pub psi: Option<Levels>,
    pub jensen_shannon: Option<Levels>,
    pub hellinger: Option<Levels>,
    pub l_infinity: Option<Levels>,
    pub ks: Option<Levels>,
    pub w1: Option<Levels>,
    pub missing: Option<Levels>,
    pub embedding: Option<Levels>,
    pub accuracy: Option<Levels>,
    pub concept: Option<Levels>,
    pub drifted_share: Option<Levels>,
}

/// What is judged by the levels of drift: the kinds of columns, and
const KINDS: [&str; 13] = [
    "predicted_class",
    "actual_class",
    "confidence",
    "margin",
    "entropy",
    "probability",
    "output",
    "feature",
    "embedding",
    // the share of drifted ones,
    "features",
    // how right a model is,
    "concept_drift",
    "accuracy_drift",
    // and another version.
    "version",
];

/// What is wrong with an override.
#[derive(Clone, Debug, PartialEq, Error)]
#[expect(missing_docs, reason = "the messages document them")]
pub enum OverrideError {
    #[error(
        "override {0} changes nothing: give it a level, min_rows, z, fdr, persistence or alert = false, or remove it"
    )]
    Nothing(usize),
    #[error(
        "override {second} is never reached: override {first} comes before and is for all of the same; put it behind, or remove it"
    )]
    Unreachable { first: usize, second: usize },
    #[error("override {at} is of = {of:?}, which nothing is; there are {}", KINDS.join(", "))]
    Kind { at: usize, of: String },
    #[error("override {at}: {source}")]
    Level { at: usize, source: LevelError },
}

impl Override {
    /// Whether it is for a model of this version.
    pub fn is_for_model(&self, model: &str, version: &str) -> bool {
        is_like(&self.model, model) && is_like(&self.version, version)
    }

    /// Whether it is for what is of this kind and called so.
    pub fn is_for(&self, of: &str, name: &str) -> bool {
        is_like(&self.of, of) && is_like(&self.feature, name)
    }

    fn patterns(&self) -> [&Option<String>; 4] {
        [&self.model, &self.version, &self.of, &self.feature]
    }

    /// Whether everything that `other` is for it is for too, as far as is plain to see.
    fn covers(&self, other: &Override) -> bool {
        let wider = |(mine, other): (&Option<String>, &Option<String>)| mine.is_none() || mine == other;
        self.patterns().into_iter().zip(other.patterns()).all(wider)
    }

    /// `settings` with its levels.
    fn over(&self, settings: &DriftSettings) -> DriftSettings {
        DriftSettings {
            min_rows: self.min_rows.unwrap_or(settings.min_rows),
            z: self.z.unwrap_or(settings.z),
            fdr: self.fdr.unwrap_or(settings.fdr),
            psi: self.psi.unwrap_or(settings.psi),
            jensen_shannon: self.jensen_shannon.unwrap_or(settings.jensen_shannon),
            hellinger: self.hellinger.unwrap_or(settings.hellinger),
            l_infinity: self.l_infinity.unwrap_or(settings.l_infinity),
            ks: self.ks.unwrap_or(settings.ks),
            w1: self.w1.unwrap_or(settings.w1),
            missing: self.missing.unwrap_or(settings.missing),
            embedding: self.embedding.unwrap_or(settings.embedding),
            accuracy: self.accuracy.unwrap_or(settings.accuracy),
            concept: self.concept.unwrap_or(settings.concept),
            drifted_share: self.drifted_share.unwrap_or(settings.drifted_share),
            overrides: Vec::new(),
        }
    }
}

fn is_like(pattern: &Option<String>, text: &str) -> bool {
    pattern.as_ref().is_none_or(|pattern| matches(pattern, text))
}

/// An override, and all levels that hold where it counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Overridden {
    by: Override,
    settings: DriftSettings,
}

/// The settings of one model.
pub(super) struct OfModel<'a> {
    settings: &'a DriftSettings,
    overrides: Vec<&'a Overridden>,
}

impl DriftSettings {
    /// The same but for what `overrides` say, which are checked.
    pub fn with(mut self, overrides: &[Override]) -> Result<DriftSettings, OverrideError> {
        self.overrides = Vec::new();
        for (at, by) in overrides.iter().enumerate() {
            if let Some(first) = overrides[..at].iter().position(|before| before.covers(by)) {
                return Err(OverrideError::Unreachable { first: first + 1, second: at + 1 });
            }
            if let Some(of) = by.of.as_ref().filter(|of| !KINDS.iter().any(|kind| matches(of, kind))) {
                return Err(OverrideError::Kind { at: at + 1, of: of.clone() });
            }
            let [model, version, of, feature] = by.patterns().map(Clone::clone);
            if *by == (Override { model, version, of, feature, ..Override::default() }) {
                return Err(OverrideError::Nothing(at + 1));
            }
            let settings = by.over(&self);
            settings.check().map_err(|source| OverrideError::Level { at: at + 1, source })?;
            self.overrides.push(Overridden { by: by.clone(), settings });
        }
        Ok(self)
    }

    /// Of one model.
    pub(super) fn of_model(&self, model: &str, version: &str) -> OfModel<'_> {
        let overrides = self.overrides.iter().filter(|overridden| overridden.by.is_for_model(model, version));
        OfModel { settings: self, overrides: overrides.collect() }
    }
}

impl OfModel<'_> {
    /// Of one column, or what else is judged.
    pub(super) fn of(&self, of: &str, name: &str) -> &DriftSettings {
        let first = self.overrides.iter().find(|overridden| overridden.by.is_for(of, name));
        first.map_or(self.settings, |overridden| &overridden.settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(overrides: &str) -> Result<DriftSettings, String> {
        #[derive(Deserialize)]
        struct File {
            r#override: Vec<Override>,
        }
        let file: File = toml::from_str(overrides).map_err(|why| why.to_string())?;
        DriftSettings::default().with(&file.r#override).map_err(|why| why.to_string())
    }

    #[test]
    fn the_first_override_that_is_for_a_column_counts_and_no_other() {
        let settings = with(
            "[[override]]\nmodel = 'd*'\nfeature = 'age'\npsi = { alert = 0.5 }\n\
            [[override]]\nmodel = 'digits'\nz = 7\n[[override]]\nof = 'margin'\nversion = '2'\nmin_rows = 99\n",
        )
        .unwrap();
        let usual = DriftSettings::default();
        let of = |model, version, of, name| settings.of_model(model, version).of(of, name).clone();
        let age = of("digits", "2", "feature", "age");
        assert_eq!((age.psi, age.z, age.ks), (Levels { warn: None, alert: Some(0.5) }, usual.z, usual.ks));
        let other = of("digits", "2", "margin", "");
        assert_eq!((other.psi, other.z, other.min_rows), (usual.psi, 7.0, usual.min_rows));
        assert_eq!(of("m", "2", "margin", "").min_rows, 99);
        assert_eq!(of("m", "1", "margin", "").min_rows, usual.min_rows);
    }

    #[test]
    fn an_override_that_cannot_be_is_refused_with_its_remedy() {
        let refused = |overrides: &str| with(overrides).unwrap_err();
        assert!(refused("[[override]]\nmodel = 'm'\n").contains("override 1 changes nothing"));
        assert!(refused("[[override]]\nz = 1\n[[override]]\nfeature = 'x'\nz = 2\n").contains("override 2 is never"));
        assert!(refused("[[override]]\nof = 'featur'\nz = 1\n").contains("predicted_class"));
        assert!(refused("[[override]]\nz = 1\nfetaure = 'x'\n").contains("line 3"));
        let level = refused("[[override]]\npsi = { warn = 0.3, alert = 0.1 }\n");
        assert!(level.contains("override 1") && level.contains("psi alerts from 0.1"), "{level}");
    }
}
