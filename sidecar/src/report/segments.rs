//! The same model for each of those whom its rows are about.

use super::frequency;
use crate::profile::{Profile, Segment};
use crate::stats::Moment;
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct SegmentReport {
    pub segment: String,
    pub rows: u64,
    pub class_counts: Vec<u64>,
    pub confidence: Confidence,
    pub scored_rows: u64,
    pub accuracy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_reason: Option<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Confidence {
    pub n: u64,
    pub mean: Option<f64>,
    pub std: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// Ascending by value; rows without a segment and rows of further ones last, where there are any.
pub(super) fn segments(profile: &Profile) -> Vec<SegmentReport> {
    let Some(segments) = &profile.segments else { return Vec::new() };
    let known = segments.known().into_iter().map(|(value, segment)| (value.to_string(), segment));
    let rest = [("__missing__", &segments.missing), ("__other__", &segments.other)];
    let rest =
        rest.into_iter().filter(|(_, segment)| segment.rows > 0).map(|(name, segment)| (name.to_owned(), segment));
    known.chain(rest).map(|(name, segment)| report(name, segment, profile)).collect()
}

fn report(segment: String, of: &Segment, profile: &Profile) -> SegmentReport {
    let is_multi_label = profile.quality.outcomes.is_multi_label();
    let accuracy = frequency(of.right_rows, of.scored_rows).filter(|_| !is_multi_label);
    SegmentReport {
        segment,
        rows: of.rows,
        class_counts: of.class_counts.clone(),
        confidence: confidence(&of.confidence),
        scored_rows: of.scored_rows,
        accuracy,
        accuracy_reason: match accuracy {
            Some(_) => None,
            None if profile.spec.regression => Some("regression"),
            None if is_multi_label => Some("multi_label"),
            None => Some("no_labels"),
        },
    }
}

fn confidence(moment: &Moment) -> Confidence {
    let (mean, std) = ((moment.n > 0).then_some(moment.mean), moment.std());
    let finite = |x: &f64| x.is_finite();
    let overflow = !(mean.iter().all(finite) && std.iter().all(finite));
    Confidence {
        n: moment.n,
        mean: mean.filter(finite),
        std: std.filter(finite),
        reason: if moment.n == 0 { Some("empty") } else { overflow.then_some("overflow") },
    }
}
