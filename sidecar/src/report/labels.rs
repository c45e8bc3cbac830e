//! How right a model was.

use super::{frequency, spread};
use crate::profile::{self, Profile};
use crate::stats::{Averages, ClassOutcomes, Moment};
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Labels {
    pub rows: u64,
    pub coverage: Option<f64>,
    pub scored_rows: u64,
    pub invalid: u64,
    pub unjoined_rows: u64,
    pub unjoined: Unjoined,
    pub waiting_rows: u64,
    pub forgotten_rows: u64,
    pub delay: Delay,
    pub accuracy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_reason: Option<&'static str>,
    pub classes: Vec<ClassQuality>,
    pub single_rows: u64,
    pub accuracy_low: Option<f64>,
    pub accuracy_high: Option<f64>,
    pub balanced_accuracy: Option<f64>,
    pub mcc: Option<f64>,
    #[serde(rename = "macro")]
    pub macro_average: Mean,
    pub weighted: Mean,
    pub confusion: Option<Vec<Vec<u64>>>,
    #[serde(skip_serializing_if = "LabelReasons::is_empty")]
    pub reasons: LabelReasons,
}

/// Rows of `unjoined_rows`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Unjoined {
    pub no_id: u64,
    pub unknown_id: u64,
    pub no_label: u64,
}

/// In seconds, of the rows whose labels came later.
#[derive(Clone, Debug, Serialize)]
pub struct Delay {
    pub n: u64,
    pub mean: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// Over the classes that have a value.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Mean {
    pub precision: Option<f64>,
    pub recall: Option<f64>,
    pub f1: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// Why a field of the same name is `null`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "named after the fields")]
pub struct LabelReasons {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balanced_accuracy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcc: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confusion: Option<&'static str>,
}

impl LabelReasons {
    fn is_empty(&self) -> bool {
        *self == LabelReasons::default()
    }
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
    #[serde(skip_serializing_if = "ClassReasons::is_empty")]
    pub reasons: ClassReasons,
    pub predicted: u64,
    pub share: Option<f64>,
    pub share_low: Option<f64>,
    pub share_high: Option<f64>,
    pub accuracy_low: Option<f64>,
    pub accuracy_high: Option<f64>,
    pub precision_low: Option<f64>,
    pub precision_high: Option<f64>,
    pub recall_low: Option<f64>,
    pub recall_high: Option<f64>,
    pub specificity: Option<f64>,
    pub specificity_low: Option<f64>,
    pub specificity_high: Option<f64>,
}

/// Why a field of the same name is `null`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "named after the fields")]
pub struct ClassReasons {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub specificity: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub f1: Option<&'static str>,
}

impl ClassReasons {
    fn is_empty(&self) -> bool {
        *self == ClassReasons::default()
    }
}

fn unjoined(unjoined: &profile::Unjoined) -> Unjoined {
    let profile::Unjoined { no_id, unknown_id, no_label } = *unjoined;
    Unjoined { no_id, unknown_id, no_label }
}

fn delay(delay: &Moment) -> Delay {
    let of = |seconds| (delay.n > 0).then_some(seconds);
    let reason = (delay.n == 0).then_some("none_later");
    Delay { n: delay.n, mean: of(delay.mean), min: of(delay.min), max: of(delay.max), reason }
}

pub(super) fn labels(profile: &Profile) -> Labels {
    let outcomes = &profile.quality.outcomes;
    let scored = outcomes.rows() > 0;
    let nothing = nothing_scored(profile);
    let [accuracy, accuracy_low, accuracy_high] = spread(outcomes.accuracy());
    let averages = outcomes.macro_averages();
    let all_single = outcomes.single_rows() == outcomes.rows();
    let balanced_accuracy = averages.recall.filter(|_| all_single);
    let mcc = outcomes.matthews();
    let confusion = outcomes
        .confusion()
        .filter(|_| scored && !outcomes.is_multi_label())
        .map(|rows| rows.map(<[u64]>::to_vec).collect());
    let not_confused = if outcomes.is_multi_label() { "multi_label" } else { "too_many_classes" };
    let not_single = if all_single { "single_class" } else { "multi_label" };
    let reason = |is_null: bool, otherwise| is_null.then_some(nothing.unwrap_or(otherwise));
    let classes = profile.spec.classes.iter().zip(outcomes.classes()).filter(|_| scored);
    Labels {
        rows: profile.quality.labelled_rows,
        coverage: frequency(profile.quality.labelled_rows, profile.rows),
        scored_rows: outcomes.rows(),
        invalid: profile.quality.invalid_labels,
        unjoined_rows: profile.later.unjoined.rows(),
        unjoined: unjoined(&profile.later.unjoined),
        waiting_rows: profile.later.waiting_rows,
        forgotten_rows: profile.later.forgotten_rows,
        delay: delay(&profile.later.delay),
        accuracy,
        accuracy_reason: reason(accuracy.is_none(), "multi_label"),
        classes: classes.map(|(name, class)| class_quality(name, &class)).collect(),
        single_rows: outcomes.single_rows(),
        accuracy_low,
        accuracy_high,
        balanced_accuracy,
        mcc,
        macro_average: mean(averages, nothing),
        weighted: mean(outcomes.weighted_averages(), nothing),
        reasons: LabelReasons {
            coverage: (profile.rows == 0).then_some("empty"),
            balanced_accuracy: reason(balanced_accuracy.is_none(), "multi_label"),
            mcc: reason(mcc.is_none(), not_single),
            confusion: reason(confusion.is_none(), not_confused),
        },
        confusion,
    }
}

/// Why there is nothing to say of the quality of classes at all.
fn nothing_scored(profile: &Profile) -> Option<&'static str> {
    match profile.quality.outcomes.rows() {
        _ if profile.spec.regression => Some("regression"),
        0 => Some("no_labels"),
        _ => None,
    }
}

fn mean(averages: Averages, nothing: Option<&'static str>) -> Mean {
    let Averages { precision, recall, f1 } = averages;
    let undefined = [precision, recall, f1].iter().any(Option::is_none);
    Mean { precision, recall, f1, reason: undefined.then_some(nothing.unwrap_or("no_actual_positive")) }
}

fn class_quality(name: &str, class: &ClassOutcomes) -> ClassQuality {
    let [share, share_low, share_high] = spread(class.share);
    let [accuracy, accuracy_low, accuracy_high] = spread(class.accuracy);
    let [precision, precision_low, precision_high] = spread(class.precision);
    let [recall, recall_low, recall_high] = spread(class.recall);
    let [specificity, specificity_low, specificity_high] = spread(class.specificity);
    ClassQuality {
        name: name.to_owned(),
        support: class.support,
        accuracy,
        precision,
        recall,
        f1: class.f1,
        reasons: ClassReasons {
            precision: precision.is_none().then_some("no_predicted_positive"),
            recall: recall.is_none().then_some("no_actual_positive"),
            specificity: specificity.is_none().then_some("no_actual_negative"),
            f1: class.f1.is_none().then_some("no_positive"),
        },
        predicted: class.predicted,
        share,
        share_low,
        share_high,
        accuracy_low,
        accuracy_high,
        precision_low,
        precision_high,
        recall_low,
        recall_high,
        specificity,
        specificity_low,
        specificity_high,
    }
}
