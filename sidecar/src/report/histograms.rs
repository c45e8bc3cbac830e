//! What is said of a column whose values were all counted in buckets.

use crate::profile::{Profile, Size};
use crate::stats::{Histogram, Histograms, Moment, Side, ZERO_THRESHOLD, relative_error};
use serde::Serialize;

/// The buckets, and what follows from them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Counted {
    pub all_rows: AllRows,
    pub histogram: Buckets,
}

/// Quantiles of every row.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct AllRows {
    pub n: u64,
    pub relative_error: f64,
    pub q01: Option<f64>,
    pub q05: Option<f64>,
    pub q25: Option<f64>,
    pub q50: Option<f64>,
    pub q75: Option<f64>,
    pub q95: Option<f64>,
    pub q99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Buckets {
    pub scale: u8,
    pub count: u64,
    pub zero_threshold: f64,
    pub zero_count: u64,
    pub positive: SideBuckets,
    pub negative: SideBuckets,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct SideBuckets {
    pub offset: i32,
    pub counts: Vec<u64>,
    pub beyond: u64,
}

/// For each of the columns, which have these moments, its own if it has one.
fn counted(histograms: Option<&Histograms>, moments: &[Moment]) -> Vec<Option<Box<Counted>>> {
    let mut all = vec![None; moments.len()];
    if let Some(histograms) = histograms {
        for (nth, column) in histograms.columns().enumerate() {
            all[column] = Some(Box::new(Counted::of(histograms.histogram(nth), &moments[column])));
        }
    }
    all
}

impl Counted {
    fn of(histogram: Histogram, moment: &Moment) -> Counted {
        Counted { all_rows: AllRows::of(&histogram, moment), histogram: Buckets::of(histogram) }
    }

    /// An upper bound of its memory in bytes.
    pub(super) fn bytes(&self) -> u64 {
        let counts = self.histogram.positive.counts.capacity() + self.histogram.negative.counts.capacity();
        (size_of::<Counted>() + size_of::<u64>() * counts) as u64
    }

    /// The same of all of a model's.
    pub(super) fn bytes_at_most(size: Size) -> u64 {
        let (columns, scale) = size.histograms;
        columns.saturating_mul(size_of::<Counted>() as u64 + Histograms::bytes_of_a_column(scale))
    }
}

impl AllRows {
    /// No quantile is outside the extremes, which are known exactly.
    fn of(histogram: &Histogram, moment: &Moment) -> AllRows {
        let n = histogram.count();
        let within = |x: f64| if moment.n > 0 { x.max(moment.min).min(moment.max) } else { x };
        let shares = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99];
        let quantiles = shares.map(|share| histogram.quantile(share).map(within));
        let reason = match n {
            0 => Some("empty"),
            _ => quantiles.contains(&None).then_some("beyond_buckets"),
        };
        let [q01, q05, q25, q50, q75, q95, q99] = quantiles;
        AllRows { n, relative_error: relative_error(histogram.scale()), q01, q05, q25, q50, q75, q95, q99, reason }
    }
}

impl Buckets {
    fn of(histogram: Histogram) -> Buckets {
        let side = |Side { offset, counts, beyond }| SideBuckets { offset, counts, beyond };
        Buckets {
            scale: histogram.scale(),
            count: histogram.count(),
            zero_threshold: ZERO_THRESHOLD,
            zero_count: histogram.zero,
            positive: side(histogram.positive),
            negative: side(histogram.negative),
        }
    }
}

/// Of a profile's features, in column order.
pub(super) fn of_features(profile: &Profile, moments: &[Moment]) -> Vec<Option<Box<Counted>>> {
    counted(profile.histograms.as_ref().map(|histograms| &histograms.features), moments)
}

/// Of its classes' probabilities, or its outputs.
pub(super) fn of_predictions(profile: &Profile, moments: &[Moment]) -> Vec<Option<Box<Counted>>> {
    counted(profile.histograms.as_ref().map(|histograms| &histograms.predictions), moments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Feature, Histogrammed, Rows, Spec};
    use crate::report::Report;
    use crate::stats::Columns;
    use ndarray::ArrayView2;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn spec(features: usize) -> Spec {
        let feature = |i| Feature { name: format!("f{i}"), categorical: false };
        Spec {
            classes: ["a", "b"].map(String::from).to_vec(),
            features: (0..features).map(feature).collect(),
            histograms: Some(Histogrammed { scale: 4, features: Vec::from_iter(Some(0..1)), predictions: true }),
            ..Spec::default()
        }
    }

    fn report(spec: Spec, probabilities: &[f64], features: &[f64]) -> Report {
        let (rows, columns) = (probabilities.len() / 2, spec.features.len());
        let mut profile = Profile::new(Arc::new(spec), 100, 1);
        profile.update(&Rows {
            count: rows,
            probabilities: Some(Columns::F64(ArrayView2::from_shape((rows, 2), probabilities).unwrap())),
            features: Some(Columns::F64(ArrayView2::from_shape((rows, columns), features).unwrap())),
            ..Rows::default()
        });
        let period = crate::period::Period { start_ns: 0, end_ns: 1, partial: false };
        Report::of(period, &profile, [""; 5])
    }

    fn said(features: &[f64]) -> Value {
        let report = report(spec(2), &[0.5; 6], features);
        serde_json::to_value(report).unwrap()
    }

    #[test]
    fn chosen_columns_have_theirs_and_others_have_none() {
        let said = said(&[1.5, 1.0, -3.0, 1.0, 0.0, 1.0]);
        let of = |path: &str| said.pointer(path).unwrap().clone();
        assert_eq!(
            of("/features/0/histogram"),
            json!({"scale": 4, "count": 3, "zero_threshold": ZERO_THRESHOLD, "zero_count": 1,
                "positive": {"offset": 8, "counts": [1], "beyond": 0}, "negative": {"offset": 24, "counts": [1], "beyond": 0}})
        );
        assert_eq!((of("/features/0/all_rows/n"), of("/features/0/all_rows/q50")), (json!(3), json!(0.0)));
        assert!(said["features"][1].get("histogram").is_none() && said["features"][1].get("all_rows").is_none());
        assert_eq!(of("/predictions/classes/1/histogram/positive/offset"), json!(-16));
        assert_eq!(
            of("/predictions/classes/1/all_rows/q99"),
            json!(0.5),
            "within the extremes: exact where they are equal"
        );
    }

    #[test]
    fn quantiles_that_are_not_known_are_null_with_the_reason() {
        let empty = &said(&[f64::NAN, 0.0, f64::INFINITY, 0.0, f64::NAN, 0.0])["features"][0]["all_rows"];
        assert_eq!((&empty["n"], &empty["q50"], &empty["reason"]), (&json!(0), &Value::Null, &json!("empty")));
        let large = &said(&[1e30, 0.0, 2.0, 0.0, 1e30, 0.0])["features"][0]["all_rows"];
        assert_eq!(
            (large["q01"].is_null(), &large["q95"], &large["reason"]),
            (false, &Value::Null, &json!("beyond_buckets"))
        );
    }

    #[test]
    fn a_report_with_histograms_stays_within_what_is_said_of_its_model() {
        let all = Histogrammed { scale: 6, features: Vec::from_iter(Some(0..3)), predictions: true };
        let spec = Spec { histograms: Some(all), ..spec(3) };
        let features: Vec<f64> =
            (0..30_000).map(|i| 2f64.powf(i as f64 / 300.0 - 32.0) * f64::from(1 - i % 2 * 2)).collect();
        let report = report(spec.clone(), &[0.5; 20_000], &features);
        let counts =
            |counted: &Counted| 8 * (counted.histogram.positive.counts.len() + counted.histogram.negative.counts.len());
        let heap: usize =
            report.features.iter().flat_map(|feature| &feature.counted).map(|counted| counts(counted)).sum();
        assert!(heap > 3 * 40_000 && heap as u64 <= report.bytes(), "{heap} {}", report.bytes());
        assert!(report.bytes() <= Report::bytes_at_most(&spec), "{}", report.bytes());
        assert!(
            Report::bytes_at_most(&spec) - Report::bytes_at_most(&Spec { histograms: None, ..spec }) >= heap as u64
        );
    }
}
