//! What a model answered.

use super::histograms::{Counted, of_predictions};
use super::{MAX_NAME, OrderedSample, Summary, frequency, spread};
use crate::period::utc;
use crate::profile::{Fault, Invalid, Occurrence};
use crate::stats::{Moment, Moments, Proportion};
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
    pub entropy: Summary,
    pub low_confidence_rows: u64,
    pub low_confidence_share: Option<f64>,
    pub low_confidence_share_low: Option<f64>,
    pub low_confidence_share_high: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low_confidence_reason: Option<&'static str>,
    pub first_invalid: Vec<FirstInvalid>,
    pub classes: Vec<ClassReport>,
}

/// The first row of a kind of invalid ones.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct FirstInvalid {
    pub kind: &'static str,
    pub instance: String,
    pub sequence: u64,
    pub row: u64,
    #[serde(serialize_with = "utc")]
    pub time: u64,
}

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct ClassReport {
    pub name: String,
    pub count: u64,
    pub frequency: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_reason: Option<&'static str>,
    pub probability: Summary,
    #[serde(flatten)]
    pub counted: Option<Box<Counted>>,
}

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Named {
    pub name: String,
    #[serde(flatten)]
    pub summary: Summary,
    #[serde(flatten)]
    pub counted: Option<Box<Counted>>,
}

pub(super) fn predictions(sample: &OrderedSample<'_>) -> Predictions {
    let OrderedSample { profile, answers, probabilities: sampled, .. } = sample;
    let invalid = &profile.predictions.invalid;
    let classified: u64 = profile.predictions.class_counts.iter().sum();
    let low_confidence_rows = profile.predictions.low_confidence_rows;
    let [low_confidence_share, low_confidence_share_low, low_confidence_share_high] =
        spread(Proportion::of(low_confidence_rows, classified));
    let moments = profile.predictions.probabilities.columns();
    let mut counted = of_predictions(profile, &moments);
    let class = |(k, (name, moment)): (usize, (&String, Moment))| ClassReport {
        name: name.clone(),
        count: profile.predictions.class_counts[k],
        frequency: frequency(profile.predictions.class_counts[k], classified),
        frequency_reason: (classified == 0).then_some("empty"),
        probability: Summary::with(&moment, sampled[k].count, sampled[k].quantiles),
        counted: counted[k].take(),
    };
    Predictions {
        rows: profile.predictions.rows,
        invalid_rows: invalid.nan.rows + invalid.inf.rows,
        nan_rows: invalid.nan.rows,
        inf_rows: invalid.inf.rows,
        out_of_range_rows: invalid.out_of_range.rows,
        not_normalised_rows: invalid.not_normalised.rows,
        tie_rows: profile.predictions.tie_rows,
        confidence: of_rows(&profile.predictions.confidence, &answers.confidence),
        margin: of_rows(&profile.predictions.margin, &answers.margin),
        entropy: of_rows(&profile.predictions.entropy, &answers.entropy),
        low_confidence_rows,
        low_confidence_share,
        low_confidence_share_low,
        low_confidence_share_high,
        low_confidence_reason: low_confidence_share.is_none().then_some("empty"),
        first_invalid: first_invalid(invalid),
        classes: profile.spec.classes.iter().zip(moments).enumerate().map(class).collect(),
    }
}

fn of_rows(moments: &Moments, sample: &[f64]) -> Summary {
    Summary::of_ascending(&moments.columns()[0], sample)
}

fn first_invalid(invalid: &Invalid) -> Vec<FirstInvalid> {
    let first = |(kind, fault): (&'static str, &Fault)| {
        let Occurrence { instance, sequence, ts_ns, row } = fault.first.clone()?;
        Some(FirstInvalid { kind, instance, sequence, row, time: ts_ns })
    };
    invalid.faults().into_iter().filter_map(first).collect()
}

/// What the first rows of each kind of invalid ones take.
pub(super) const FIRST_INVALID_BYTES: u64 = 4 * (size_of::<FirstInvalid>() + MAX_NAME) as u64;

pub(super) fn outputs(sample: &OrderedSample<'_>) -> Vec<Named> {
    let profile = sample.profile;
    let moments = profile.predictions.probabilities.columns();
    let counted = of_predictions(profile, &moments);
    let columns = profile.spec.classes.iter().zip(moments).zip(&sample.probabilities).zip(counted);
    columns
        .map(|(((name, moment), sampled), counted)| Named {
            name: name.clone(),
            summary: Summary::with(&moment, sampled.count, sampled.quantiles),
            counted,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Profile, Record, Rows, Spec};
    use crate::stats::Columns;
    use ndarray::ArrayView2;
    use serde_json::json;
    use std::sync::Arc;

    fn of(values: &[f64]) -> serde_json::Value {
        let classes = ["a", "b"].map(String::from).to_vec();
        let mut profile = Profile::new(Arc::new(Spec { classes, threshold: 0.5, ..Spec::default() }), 10, 1);
        let probabilities = Some(Columns::F64(ArrayView2::from_shape((values.len() / 2, 2), values).unwrap()));
        let record = Some(Record { instance: "i", sequence: 9, ts_ns: 1_700_000_000_123_456_789, first_row: 0 });
        profile.update(&Rows { count: values.len() / 2, probabilities, record, ..Rows::default() });
        serde_json::to_value(predictions(&OrderedSample::of(&profile, None))).unwrap()
    }

    #[test]
    fn a_share_of_low_confidence_has_its_interval_or_a_reason() {
        let said = of(&[0.9, 0.1, 0.5, 0.5, 0.2, 0.8, 0.0, 1.0]);
        assert_eq!((&said["low_confidence_rows"], &said["low_confidence_share"]), (&json!(1), &json!(0.25)));
        let [low, high] = ["low", "high"].map(|end| said[format!("low_confidence_share_{end}")].as_f64().unwrap());
        assert!((low - 0.0456).abs() < 1e-4 && (high - 0.6994).abs() < 1e-4, "{low} {high}");
        assert!(said.get("low_confidence_reason").is_none());
        let said = of(&[f64::NAN, 0.5]);
        assert!(said["low_confidence_share"].is_null() && said["low_confidence_share_low"].is_null());
        assert_eq!(said["classes"][1]["frequency_reason"], json!("empty"));
        assert_eq!((&said["low_confidence_reason"], &said["entropy"]["reason"]), (&json!("empty"), &json!("empty")));
    }

    #[test]
    fn the_first_row_of_each_kind_is_told_with_its_time() {
        let time = "2023-11-14T22:13:20.123Z";
        let first = |kind, row: u64| json!({"kind": kind, "instance": "i", "sequence": 9, "row": row, "time": time});
        let said = of(&[0.5, 0.5, f64::NAN, 0.1, 2.0, 1.0, 0.1, f64::NAN]);
        assert_eq!(
            said["first_invalid"],
            json!([first("nan", 1), first("out_of_range", 2), first("not_normalised", 2)])
        );
        assert_eq!(of(&[0.5, 0.5])["first_invalid"], json!([]));
    }
}
