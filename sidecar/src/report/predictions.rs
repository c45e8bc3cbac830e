//! What a model answered.

use super::{Summary, frequency};
use crate::profile::Profile;
use crate::stats::Moment;
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Predictions {
    pub rows: u64,
    pub invalid_rows: u64,
    pub nan_rows: u64,
    pub inf_rows: u64,
    pub out_of_range_rows: u64,
    pub not_normalised_rows: u64,
    pub tie_rows: u64,
    pub confidence: Summary,
    pub margin: Summary,
    pub classes: Vec<ClassReport>,
}

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct ClassReport {
    pub name: String,
    pub count: u64,
    pub frequency: Option<f64>,
    pub probability: Summary,
}

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Named {
    pub name: String,
    #[serde(flatten)]
    pub summary: Summary,
}

pub(super) fn predictions(profile: &Profile) -> Predictions {
    let invalid = profile.predictions.invalid;
    let (confidence, margin) = profile.sampled_confidence_and_margin();
    let classified: u64 = profile.predictions.class_counts.iter().sum();
    let class = |(k, (name, moment)): (usize, (&String, Moment))| ClassReport {
        name: name.clone(),
        count: profile.predictions.class_counts[k],
        frequency: frequency(profile.predictions.class_counts[k], classified),
        probability: Summary::of(&moment, profile.sample.probabilities.finite_column(k)),
    };
    Predictions {
        rows: profile.predictions.rows,
        invalid_rows: invalid.nan + invalid.inf,
        nan_rows: invalid.nan,
        inf_rows: invalid.inf,
        out_of_range_rows: invalid.out_of_range,
        not_normalised_rows: invalid.not_normalised,
        tie_rows: profile.predictions.tie_rows,
        confidence: Summary::of(&profile.predictions.confidence.columns()[0], confidence),
        margin: Summary::of(&profile.predictions.margin.columns()[0], margin),
        classes: profile
            .spec
            .classes
            .iter()
            .zip(profile.predictions.probabilities.columns())
            .enumerate()
            .map(class)
            .collect(),
    }
}

pub(super) fn outputs(profile: &Profile) -> Vec<Named> {
    let moments = profile.predictions.probabilities.columns();
    let named = |(k, (name, moment)): (usize, (&String, Moment))| Named {
        name: name.clone(),
        summary: Summary::of(&moment, profile.sample.probabilities.finite_column(k)),
    };
    profile.spec.classes.iter().zip(moments).enumerate().map(named).collect()
}
