//! What one closed period said about one model: plain data, all that any sink ever sees.
//!
//! A statistic that is undefined is `None`, written as `null` beside a `reason`; it is never 0 or NaN. `docs/report.md` documents
//! every field.

use crate::period::{Period, utc};
use crate::profile::{DROP_REASONS, MOST_INSTANCES, Profile, Spec};
use crate::stats::{ClassOutcomes, MOST_CATEGORIES, Moment, Quantiles, classify};
use serde::Serialize;
use std::collections::BTreeMap;

/// Changes when a field changes its meaning or goes away.
pub const FORMAT: &str = "mlwatch.report/1";

/// Names of the drop reasons, as the reports spell them.
pub type DropReasons = [&'static str; DROP_REASONS];

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Report {
    pub format: &'static str,
    pub model: String,
    pub version: String,
    pub task: &'static str,
    pub instances: Vec<String>,
    pub more_instances: bool,
    #[serde(serialize_with = "utc")]
    pub start: u64,
    #[serde(serialize_with = "utc")]
    pub end: u64,
    pub period_seconds: f64,
    pub partial: bool,
    pub records: u64,
    pub rows: u64,
    pub sampled_rows: u64,
    pub losses: Losses,
    pub predictions: Option<Predictions>,
    pub outputs: Option<Vec<Named>>,
    pub features: Vec<FeatureReport>,
    pub labels: Labels,
}

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Losses {
    pub dropped_rows: u64,
    pub dropped_records: u64,
    pub dropped_rows_by_reason: BTreeMap<&'static str, u64>,
    pub dropped_records_by_reason: BTreeMap<&'static str, u64>,
    pub crash_rows: u64,
    pub crash_records: u64,
    pub missing_records: u64,
    pub resyncs: u64,
    pub late_rows: u64,
    pub early_rows: u64,
    pub ring_fill_high_water: f64,
}

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

/// Count, moments and extremes over every finite value; quantiles of the sample.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Summary {
    pub n: u64,
    pub mean: Option<f64>,
    pub std: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub range: Option<f64>,
    pub sampled: u64,
    pub q01: Option<f64>,
    pub q05: Option<f64>,
    pub q25: Option<f64>,
    pub q50: Option<f64>,
    pub median: Option<f64>,
    pub q75: Option<f64>,
    pub q95: Option<f64>,
    pub q99: Option<f64>,
    pub iqr: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Labels {
    pub rows: u64,
    pub coverage: Option<f64>,
    pub scored_rows: u64,
    pub invalid: u64,
    pub unjoined_rows: u64,
    pub accuracy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_reason: Option<&'static str>,
    pub classes: Vec<ClassQuality>,
}

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct ClassQuality {
    pub name: String,
    pub support: u64,
    pub accuracy: Option<f64>,
    pub precision: Option<f64>,
    pub recall: Option<f64>,
    pub f1: Option<f64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<&'static str, &'static str>,
}

impl Report {
    /// Reads everything out of a closed profile. Sorts the sample for its quantiles, so it takes its time: not for the tail's thread.
    pub fn of(period: Period, profile: &Profile, drop_reasons: DropReasons) -> Report {
        let spec = &profile.spec;
        let has_predictions = !spec.classes.is_empty();
        Report {
            format: FORMAT,
            model: spec.model.clone(),
            version: spec.version.clone(),
            task: if spec.regression { "regression" } else { "classification" },
            instances: profile.instances.iter().cloned().collect(),
            more_instances: profile.more_instances,
            start: period.start_ns,
            end: period.end_ns,
            period_seconds: (period.end_ns - period.start_ns) as f64 / 1e9,
            partial: period.partial,
            records: profile.records,
            rows: profile.rows,
            sampled_rows: profile.reservoir.len(),
            losses: losses(profile, drop_reasons),
            predictions: (has_predictions && !spec.regression).then(|| predictions(profile)),
            outputs: (has_predictions && spec.regression).then(|| outputs(profile)),
            features: features(profile),
            labels: labels(profile),
        }
    }
}

/// What a class, a feature and one of its values take in a report, besides their names.
const CLASS_BYTES: u64 = 512;
const FEATURE_BYTES: u64 = 512;
const VALUE_BYTES: u64 = size_of::<ValueCount>() as u64;

impl Report {
    /// An upper bound of its memory in bytes.
    pub fn bytes(&self) -> u64 {
        let names = |names: &mut dyn Iterator<Item = &String>| names.map(|name| name.len() as u64).sum::<u64>();
        let classes = || self.predictions.iter().flat_map(|predictions| &predictions.classes);
        let outputs = || self.outputs.iter().flatten();
        let values: u64 = self.features.iter().flat_map(|f| &f.values).map(|values| values.capacity() as u64).sum();
        (classes().count() + outputs().count()) as u64 * CLASS_BYTES
            + self.features.len() as u64 * FEATURE_BYTES
            + values * VALUE_BYTES
            + 2 * names(&mut classes().map(|class| &class.name))
            + names(&mut outputs().map(|output| &output.name))
            + names(&mut self.features.iter().map(|feature| &feature.name))
            + names(&mut self.instances.iter())
            + 4096
    }

    /// The same for any report of a model.
    pub fn bytes_at_most(spec: &Spec) -> u64 {
        let size = spec.size();
        let values = size.categorical * 2 * MOST_CATEGORIES as u64 * VALUE_BYTES;
        let instances = (MOST_INSTANCES * MAX_NAME) as u64;
        size.classes * CLASS_BYTES + size.features * FEATURE_BYTES + values + 2 * spec.bytes() + instances + 4096
    }
}

/// Of an instance, in bytes.
const MAX_NAME: usize = 255;

impl Summary {
    /// `sample` holds the finite values of the kept rows, in any order.
    fn of(moment: &Moment, mut sample: Vec<f64>) -> Summary {
        let any = moment.n > 0;
        let std = moment.std();
        let range = moment.max - moment.min;
        let overflow = any && !(std.is_some_and(f64::is_finite) && range.is_finite() && moment.mean.is_finite());
        let q = Quantiles::of(&mut sample);
        Summary {
            n: moment.n,
            mean: any.then_some(moment.mean).filter(|x| x.is_finite()),
            std: std.filter(|x| x.is_finite()),
            min: any.then_some(moment.min),
            max: any.then_some(moment.max),
            range: any.then_some(range).filter(|x| x.is_finite()),
            sampled: sample.len() as u64,
            q01: q.map(|q| q.q01),
            q05: q.map(|q| q.q05),
            q25: q.map(|q| q.q25),
            q50: q.map(|q| q.q50),
            median: q.map(|q| q.q50),
            q75: q.map(|q| q.q75),
            q95: q.map(|q| q.q95),
            q99: q.map(|q| q.q99),
            iqr: q.map(|q| q.q75 - q.q25).filter(|x| x.is_finite()),
            reason: if !any {
                Some("empty")
            } else if overflow {
                Some("overflow")
            } else if q.is_none() {
                Some("not_sampled")
            } else {
                None
            },
        }
    }
}

fn frequency(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn losses(profile: &Profile, reasons: DropReasons) -> Losses {
    let losses = &profile.losses;
    let by_reason = |counts: &[u64; DROP_REASONS]| reasons.into_iter().zip(*counts).collect();
    let (used, capacity) = losses.high_water;
    Losses {
        dropped_rows: total(&losses.dropped_rows),
        dropped_records: total(&losses.dropped_records),
        dropped_rows_by_reason: by_reason(&losses.dropped_rows),
        dropped_records_by_reason: by_reason(&losses.dropped_records),
        crash_rows: losses.crash_rows,
        crash_records: losses.crash_records,
        missing_records: losses.missing_records,
        resyncs: losses.resyncs,
        late_rows: losses.late_rows,
        early_rows: losses.early_rows,
        ring_fill_high_water: frequency(used, capacity).unwrap_or(0.0),
    }
}

/// Saturates: a hostile producer may count anything.
fn total(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

fn predictions(profile: &Profile) -> Predictions {
    let invalid = profile.invalid;
    let (confidence, margin) = sampled_confidence_and_margin(profile);
    let classified: u64 = profile.class_counts.iter().sum();
    let class = |(k, (name, moment)): (usize, (&String, Moment))| ClassReport {
        name: name.clone(),
        count: profile.class_counts[k],
        frequency: frequency(profile.class_counts[k], classified),
        probability: Summary::of(&moment, profile.sampled_probabilities.finite_column(k)),
    };
    Predictions {
        rows: profile.prediction_rows,
        invalid_rows: invalid.nan + invalid.inf,
        nan_rows: invalid.nan,
        inf_rows: invalid.inf,
        out_of_range_rows: invalid.out_of_range,
        not_normalised_rows: invalid.not_normalised,
        tie_rows: profile.tie_rows,
        confidence: Summary::of(&profile.confidence.columns()[0], confidence),
        margin: Summary::of(&profile.margin.columns()[0], margin),
        classes: profile.spec.classes.iter().zip(profile.probabilities.columns()).enumerate().map(class).collect(),
    }
}

fn sampled_confidence_and_margin(profile: &Profile) -> (Vec<f64>, Vec<f64>) {
    let (mut confidence, mut margin) = (Vec::new(), Vec::new());
    profile.sampled_probabilities.for_each_row(|row| {
        if let Ok(p) = classify(row.iter().copied(), profile.spec.threshold) {
            confidence.push(p.confidence);
            margin.push(p.margin);
        }
    });
    (confidence, margin)
}

fn outputs(profile: &Profile) -> Vec<Named> {
    let moments = profile.probabilities.columns();
    let named = |(k, (name, moment)): (usize, (&String, Moment))| Named {
        name: name.clone(),
        summary: Summary::of(&moment, profile.sampled_probabilities.finite_column(k)),
    };
    profile.spec.classes.iter().zip(moments).enumerate().map(named).collect()
}

fn features(profile: &Profile) -> Vec<FeatureReport> {
    let moments = profile.features.columns();
    let columns = profile.spec.features.iter().zip(moments).zip(&profile.categories).enumerate();
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
                summary: Summary::of(&moment, profile.sampled_features.finite_column(j)),
                values,
                other_count: categories.as_ref().map(|categories| categories.other()),
            }
        })
        .collect()
}

fn labels(profile: &Profile) -> Labels {
    let outcomes = &profile.outcomes;
    let quality = outcomes.rows() > 0;
    let classes = profile.spec.classes.iter().zip(outcomes.classes()).filter(|_| quality);
    Labels {
        rows: profile.labelled_rows,
        coverage: frequency(profile.labelled_rows, profile.rows),
        scored_rows: outcomes.rows(),
        invalid: profile.invalid_labels,
        unjoined_rows: profile.unjoined_label_rows,
        accuracy: outcomes.accuracy(),
        accuracy_reason: match outcomes.accuracy() {
            Some(_) => None,
            None if profile.spec.regression => Some("regression"),
            None if quality => Some("multi_label"),
            None => Some("no_labels"),
        },
        classes: classes.map(|(name, class)| class_quality(name, &class)).collect(),
    }
}

fn class_quality(name: &str, class: &ClassOutcomes) -> ClassQuality {
    let undefined = [
        ("precision", class.precision.is_none(), "no_predicted_positive"),
        ("recall", class.recall.is_none(), "no_actual_positive"),
        ("f1", class.f1.is_none(), "no_positive"),
    ];
    ClassQuality {
        name: name.to_owned(),
        support: class.support,
        accuracy: class.accuracy,
        precision: class.precision,
        recall: class.recall,
        f1: class.f1,
        reasons: undefined.iter().filter(|(_, is, _)| *is).map(|&(what, _, why)| (what, why)).collect(),
    }
}
