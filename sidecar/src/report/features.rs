//! What a model was fed.

use super::{Summary, frequency};
use crate::profile::Profile;
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct FeatureReport {
    pub name: String,
    pub kind: &'static str,
    pub missing: u64,
    pub inf: u64,
    pub zero: u64,
    #[serde(flatten)]
    pub summary: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<ValueCount>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_count: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct ValueCount {
    pub value: f64,
    pub count: u64,
    pub frequency: Option<f64>,
}

pub(super) fn features(profile: &Profile) -> Vec<FeatureReport> {
    let moments = profile.features.moments.columns();
    let columns = profile.spec.features.iter().zip(moments).zip(&profile.features.categories).enumerate();
    columns
        .map(|(j, ((feature, moment), categories))| {
            let values = categories.as_ref().map(|categories| {
                let value = |(value, count)| ValueCount { value, count, frequency: frequency(count, moment.n) };
                categories.iter().map(value).collect()
            });
            FeatureReport {
                name: feature.name.clone(),
                kind: if feature.categorical { "categorical" } else { "numerical" },
                missing: moment.nan,
                inf: moment.inf,
                zero: moment.zero,
                summary: Summary::of(&moment, profile.sample.features.finite_column(j)),
                values,
                other_count: categories.as_ref().map(|categories| categories.other()),
            }
        })
        .collect()
}
