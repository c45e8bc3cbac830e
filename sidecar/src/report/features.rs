//! What a model was fed.

use super::histograms::{Counted, of_features};
use super::{OrderedSample, Summary, frequency};
use crate::profile::{Block, Feature};
use crate::stats::{Categories, Frequent};
use serde::Serialize;

/// Of the most frequent values, so many are named.
pub(super) const TOP: usize = 20;

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct FeatureReport {
    pub name: String,
    pub kind: &'static str,
    pub missing: u64,
    pub missing_share: Option<f64>,
    pub inf: u64,
    pub zero: u64,
    #[serde(flatten)]
    pub summary: Summary,
    #[serde(flatten)]
    pub codes: Option<Codes>,
    #[serde(flatten)]
    pub counted: Option<Box<Counted>>,
}

/// What a categorical feature has besides.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Codes {
    pub values: Vec<ValueCount>,
    pub other_count: u64,
    pub distinct: u64,
    pub distinct_error: f64,
    pub top: Vec<TopValue>,
}

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct ValueCount {
    pub value: f64,
    pub count: u64,
    pub frequency: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct TopValue {
    pub value: f64,
    pub count: u64,
    pub over_at_most: u64,
    pub frequency: Option<f64>,
}

pub(super) fn features(sample: &OrderedSample<'_>) -> Vec<FeatureReport> {
    let profile = sample.profile;
    let moments = profile.features.moments.columns();
    let mut counted = of_features(profile, &moments);
    let columns = profile.spec.features.iter().zip(moments).zip(&profile.features.categories);
    columns
        .zip(&sample.features)
        .enumerate()
        .map(|(j, (((feature, moment), categories), sampled))| FeatureReport {
            name: feature.name.clone(),
            kind: kind(feature, j, &profile.spec.embeddings),
            missing: moment.nan,
            missing_share: frequency(moment.nan, moment.n.saturating_add(moment.nan).saturating_add(moment.inf)),
            inf: moment.inf,
            zero: moment.zero,
            summary: Summary::with(&moment, sampled.count, sampled.quantiles),
            codes: categories.as_ref().map(|categories| codes(categories, moment.n)),
            counted: counted[j].take(),
        })
        .collect()
}

fn kind(feature: &Feature, column: usize, embeddings: &[Block]) -> &'static str {
    if feature.categorical {
        "categorical"
    } else if embeddings.iter().any(|block| block.columns.contains(&column)) {
        "embedding"
    } else {
        "numerical"
    }
}

fn codes(categories: &Categories, n: u64) -> Codes {
    let value = |(value, count)| ValueCount { value, count, frequency: frequency(count, n) };
    let top = |f: Frequent| TopValue {
        value: f.value,
        count: f.count,
        over_at_most: f.over_at_most,
        frequency: frequency(f.count, n),
    };
    let distinct = categories.distinct();
    Codes {
        values: categories.iter().map(value).collect(),
        other_count: categories.other(),
        distinct: distinct.count,
        distinct_error: distinct.error,
        top: categories.top(TOP).into_iter().map(top).collect(),
    }
}
