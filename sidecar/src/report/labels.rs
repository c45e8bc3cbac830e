//! How right a model was.

use super::frequency;
use crate::profile::Profile;
use crate::stats::ClassOutcomes;
use serde::Serialize;
use std::collections::BTreeMap;

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

pub(super) fn labels(profile: &Profile) -> Labels {
    let outcomes = &profile.quality.outcomes;
    let quality = outcomes.rows() > 0;
    let classes = profile.spec.classes.iter().zip(outcomes.classes()).filter(|_| quality);
    Labels {
        rows: profile.quality.labelled_rows,
        coverage: frequency(profile.quality.labelled_rows, profile.rows),
        scored_rows: outcomes.rows(),
        invalid: profile.quality.invalid_labels,
        unjoined_rows: profile.quality.unjoined_label_rows,
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
