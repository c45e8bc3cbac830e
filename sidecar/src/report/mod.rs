//! What one closed period said about one model: plain data, all that any sink ever sees.
//!
//! A statistic that is undefined is `None`, written as `null` beside a `reason`; it is never 0 or NaN. `docs/report.md` documents
//! every field.

mod alerts;
mod canary;
mod drift;
mod embeddings;
mod estimated;
mod features;
mod histograms;
mod labels;
mod losses;
#[cfg(test)]
mod nulls;
mod ordered;
mod overrides;
mod predictions;
mod scores;
mod segments;
mod summary;

pub use alerts::{Alert, AlertState, Severity};
pub use canary::{Canary, Interval, Versions};
pub use drift::{
    ColumnDrift, ColumnKind, Drift, DriftSettings, EmbeddingDrift, Evidence, LevelError, Levels, Measure, Unmatched,
    Verdict, warn_of_unmatched,
};
pub use embeddings::Embedding;
pub use estimated::{Estimated, QualityDrift};
pub use features::{Codes, FeatureReport, TopValue, ValueCount};
pub use histograms::{AllRows, Buckets, Counted, SideBuckets};
pub use labels::{ClassQuality, ClassReasons, LabelReasons, Labels, Mean};
pub use losses::Losses;
pub use ordered::OrderedSample;
pub use overrides::{Override, OverrideError};
pub use predictions::{ClassReport, FirstInvalid, Named, Predictions};
pub use scores::{OutputErrors, Scores};
pub use segments::{Confidence, SegmentReport};
pub use summary::Summary;

use crate::period::{Period, utc};
use crate::profile::{DROP_REASONS, MOST_INSTANCES, Profile, Seen, Spec};
use crate::stats::{MOST_CATEGORIES, MOST_CONFUSED, Proportion};
use features::TOP;
use ordered::has_classes;
use predictions::FIRST_INVALID_BYTES;
use serde::Serialize;

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
    /// How many times the period was reported before.
    pub revision: u64,
    pub records: u64,
    pub rows: u64,
    pub sampled_rows: u64,
    pub losses: Losses,
    pub predictions: Option<Predictions>,
    pub outputs: Option<Vec<Named>>,
    pub features: Vec<FeatureReport>,
    pub embeddings: Vec<Embedding>,
    pub labels: Labels,
    pub scores: Option<Scores>,
    pub errors: Vec<OutputErrors>,
    pub estimated: Option<Estimated>,
    pub segments: Vec<SegmentReport>,
    /// `None` without a reference.
    pub drift: Option<Drift>,
    /// Empty without other versions.
    pub canary: Vec<Canary>,
    pub alerts: Vec<Alert>,
    pub more_alerts: u64,
    /// What its numbers are made of.
    #[serde(skip)]
    pub elements: Seen,
}

impl Report {
    /// Reads everything out of a closed profile with which nothing is compared.
    pub fn of(period: Period, profile: &Profile, drop_reasons: DropReasons) -> Report {
        Report::of_ordered(period, &OrderedSample::of(profile, None), drop_reasons)
    }

    /// The same of one whose sample is in order.
    pub fn of_ordered(period: Period, sample: &OrderedSample<'_>, drop_reasons: DropReasons) -> Report {
        let profile = sample.profile;
        let spec = &profile.spec;
        Report {
            instances: profile.instances.iter().cloned().collect(),
            more_instances: profile.more_instances,
            sampled_rows: profile.sample.len(),
            predictions: has_classes(spec).then(|| predictions::predictions(sample)),
            outputs: (spec.regression && !spec.classes.is_empty()).then(|| predictions::outputs(sample)),
            features: features::features(sample),
            embeddings: embeddings::embeddings(profile),
            ..Report::revised(period, profile, 0, drop_reasons)
        }
    }

    /// Of a period that was reported before, what labels that came since have changed: the rest stands in its first report alone.
    pub fn revised(period: Period, profile: &Profile, revision: u64, drop_reasons: DropReasons) -> Report {
        let spec = &profile.spec;
        Report {
            format: FORMAT,
            model: spec.model.clone(),
            version: spec.version.clone(),
            task: if spec.regression { "regression" } else { "classification" },
            instances: Vec::new(),
            more_instances: false,
            start: period.start_ns,
            end: period.end_ns,
            period_seconds: (period.end_ns - period.start_ns) as f64 / 1e9,
            partial: period.partial,
            revision,
            records: profile.records,
            rows: profile.rows,
            sampled_rows: 0,
            losses: losses::losses(profile, drop_reasons),
            predictions: None,
            outputs: None,
            features: Vec::new(),
            embeddings: Vec::new(),
            labels: labels::labels(profile),
            scores: scores::scores(profile),
            errors: scores::errors(profile),
            estimated: estimated::estimated(profile),
            segments: segments::segments(profile),
            drift: None,
            canary: Vec::new(),
            alerts: Vec::new(),
            more_alerts: 0,
            elements: profile.elements,
        }
    }

    /// The same, compared with the reference in whose bins the profile was counted, if there is one.
    pub fn against(self, sample: &OrderedSample<'_>, settings: &DriftSettings) -> Report {
        Report { drift: drift::drift(sample, settings), ..self }.judged(settings)
    }

    /// The same with a verdict on how right the model was, which labels that come later can change.
    pub fn judged(mut self, settings: &DriftSettings) -> Report {
        if let Some(estimated) = &mut self.estimated {
            estimated.judge(&settings.of_model(&self.model, &self.version));
        }
        self
    }
}

/// What a class, a feature and one of its values take in a report, besides their names.
const CLASS_BYTES: u64 =
    (size_of::<ClassReport>() + size_of::<ClassQuality>()) as u64 + scores::CLASS_BYTES + estimated::CLASS_BYTES;
const FEATURE_BYTES: u64 = 512;
const EMBEDDING_BYTES: u64 = 512 + size_of::<EmbeddingDrift>() as u64;
/// Its class counts apart; a f64 may take 350 digits.
const SEGMENT_BYTES: u64 = 768;
const VALUE_BYTES: u64 = size_of::<ValueCount>() as u64;
/// Another version, with its name.
const CANARY_BYTES: u64 = size_of::<Canary>() as u64 + 256;
/// Alerts in a report: of ten thousand features that drift together, most say nothing new.
pub const MOST_ALERTS: usize = 1000;
/// An alert, its texts being names of columns and what an operator has called a rule.
const ALERT_BYTES: u64 = size_of::<Alert>() as u64 + 1024;
/// And each of them when it is compared with a reference: the measures, and the hash of its bins.
const DRIFT_BYTES: u64 = size_of::<ColumnDrift>() as u64 + 8;
const TOP_BYTES: u64 = size_of::<TopValue>() as u64;
/// A row of the confusion matrix, besides its counts.
const CONFUSION_ROW_BYTES: u64 = size_of::<Vec<u64>>() as u64;

impl Report {
    /// An upper bound of its memory in bytes.
    pub fn bytes(&self) -> u64 {
        let names = |names: &mut dyn Iterator<Item = &String>| names.map(|name| name.len() as u64).sum::<u64>();
        // A revision has them too, and its predictions stand in the first report.
        let classes = || self.scores.iter().flat_map(|scores| &scores.classes);
        let outputs = || &self.errors;
        let predicted = self.predictions.iter().flat_map(|predictions| &predictions.classes);
        let counted = (self.features.iter().flat_map(|feature| &feature.counted))
            .chain(predicted.flat_map(|class| &class.counted))
            .chain(self.outputs.iter().flatten().flat_map(|output| &output.counted));
        let codes =
            |codes: &Codes| codes.values.capacity() as u64 * VALUE_BYTES + codes.top.capacity() as u64 * TOP_BYTES;
        (classes().count() + outputs().len()) as u64 * CLASS_BYTES
            + self.features.len() as u64 * FEATURE_BYTES
            + counted.map(|counted| counted.bytes()).sum::<u64>()
            + self.features.iter().flat_map(|feature| &feature.codes).map(codes).sum::<u64>()
            + self.labels.confusion.iter().flatten().map(confusion_row_bytes).sum::<u64>()
            + self.embeddings.len() as u64 * EMBEDDING_BYTES
            + self.segments.iter().map(|segment| SEGMENT_BYTES + 8 * segment.class_counts.len() as u64).sum::<u64>()
            + names(&mut self.embeddings.iter().map(|embedding| &embedding.name))
            + 5 * names(&mut classes().map(|class| &class.name))
            + 2 * names(&mut outputs().iter().map(|output| &output.name))
            + names(&mut self.features.iter().map(|feature| &feature.name))
            + names(&mut self.instances.iter())
            + self.canary.len() as u64 * CANARY_BYTES
            + self.alerts.iter().map(Alert::bytes).sum::<u64>()
            + self.drift.iter().flat_map(|drift| &drift.columns).map(ColumnDrift::bytes).sum::<u64>()
            + FIRST_INVALID_BYTES
            + 4096
    }

    /// The same for any report of a model.
    pub fn bytes_at_most(spec: &Spec) -> u64 {
        let size = spec.size();
        let codes = size.categorical * 2 * (MOST_CATEGORIES as u64 * VALUE_BYTES + TOP as u64 * TOP_BYTES);
        let embeddings = size.embeddings * EMBEDDING_BYTES;
        let segments = size.segments.saturating_mul(SEGMENT_BYTES + 8 * size.classes);
        let instances = (MOST_INSTANCES * MAX_NAME) as u64;
        let confused = size.classes.min(MOST_CONFUSED as u64);
        let columns = size.classes * CLASS_BYTES
            + size.features * FEATURE_BYTES
            + (size.classes + size.features + 5) * DRIFT_BYTES
            + confused * (CONFUSION_ROW_BYTES + confused * size_of::<u64>() as u64)
            + codes
            + embeddings
            + FIRST_INVALID_BYTES;
        let alerts = MOST_ALERTS as u64 * ALERT_BYTES + canary::MOST_COMPARED as u64 * CANARY_BYTES;
        let rest = columns + 6 * spec.bytes() + instances + alerts + 4096;
        rest.saturating_add(segments).saturating_add(Counted::bytes_at_most(size))
    }
}

fn confusion_row_bytes(row: &Vec<u64>) -> u64 {
    CONFUSION_ROW_BYTES + (row.capacity() * size_of::<u64>()) as u64
}

/// Of an instance, in bytes.
const MAX_NAME: usize = 255;

/// Value and the ends of its interval.
fn spread(proportion: Option<Proportion>) -> [Option<f64>; 3] {
    [proportion.map(|p| p.value), proportion.map(|p| p.low), proportion.map(|p| p.high)]
}

/// A share, where there is a whole.
fn frequency(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Block, Feature, Rows, SegmentBy, Segmentation};
    use crate::reference::Reference;
    use crate::stats::Columns;
    use ndarray::ArrayView2;
    use std::sync::Arc;

    #[test]
    fn a_labelled_report_against_its_reference_stays_within_what_is_said_of_its_model() {
        for classes in [2, 3, MOST_CONFUSED, MOST_CONFUSED + 1] {
            let names = (0..classes).map(|i| format!("a class whose name is as long as {i}")).collect();
            let spec = Arc::new(Spec { classes: names, ..Spec::default() });
            let feed = |mut profile: Profile| {
                for row in 0..200 {
                    let mut proba = vec![0.3 / classes as f64; classes];
                    proba[row % classes] += 0.7;
                    profile.update(&Rows {
                        count: 1,
                        probabilities: Some(Columns::F64(ArrayView2::from_shape((1, classes), &proba).unwrap())),
                        labels: Some(crate::profile::Labels::Classes(&[(row / 2 % classes) as i32])),
                        ..Rows::default()
                    });
                }
                profile
            };
            let reference = Reference::of(&feed(Profile::new(spec.clone(), 100, 1)));
            let profile = feed(Profile::new(spec.clone(), 100, 1).counting_in(Some(&reference.frozen(&spec))));
            let period = Period { start_ns: 0, end_ns: 1, partial: false };
            let sample = OrderedSample::of(&profile, Some(&reference));
            let report = Report::of_ordered(period, &sample, [""; DROP_REASONS]);
            let report = report.against(&sample, &DriftSettings::default());
            assert_eq!(report.labels.confusion.is_some(), classes <= MOST_CONFUSED);
            assert_eq!(report.labels.classes.len(), classes);
            assert!(heap(&report) <= report.bytes(), "{classes}: {} > {}", heap(&report), report.bytes());
            assert!(report.bytes() <= Report::bytes_at_most(&spec), "{classes}: {}", report.bytes());
            let revised = Report::revised(period, &profile.remainder(), 1, [""; DROP_REASONS]);
            assert!(heap(&revised) <= revised.bytes(), "{classes}: {} > {}", heap(&revised), revised.bytes());
        }
    }

    /// What grows with the classes, counted by hand.
    fn heap(report: &Report) -> u64 {
        fn list<T>(list: &[T], name: impl Fn(&T) -> &str) -> u64 {
            (size_of_val(list) + list.iter().map(|x| name(x).len()).sum::<usize>()) as u64
        }
        let (scores, estimated) = (report.scores.as_ref().unwrap(), report.estimated.as_ref().unwrap());
        let predicted = report.predictions.iter().map(|predictions| list(&predictions.classes, |class| &class.name));
        let confusion = report.labels.confusion.iter().flatten();
        predicted.sum::<u64>()
            + list(&report.labels.classes, |class| &class.name)
            + list(&scores.classes, |class| &class.name)
            + list(&scores.left_out, |name| name)
            + list(&scores.calibration.bins, |_| "")
            + list(&estimated.classes, |class| &class.name)
            + report.drift.iter().map(|drift| list(&drift.columns, |column| &column.name)).sum::<u64>()
            + confusion.map(|row| (size_of_val(row) + size_of_val(row.as_slice())) as u64).sum::<u64>()
            + size_of::<Report>() as u64
    }

    #[test]
    fn a_report_with_everything_there_is_stays_within_what_is_said_of_its_model() {
        let feature = |i| Feature { name: format!("feature_{i}"), categorical: i == 0 };
        let spec = Spec {
            classes: (0..3).map(|i| format!("class_{i}")).collect(),
            features: (0..4).map(feature).collect(),
            embeddings: [1..3, 3..4].map(|columns| Block { name: "feature".into(), columns }).to_vec(),
            segments: Some(Segmentation { by: SegmentBy::Feature(0), most: 32 }),
            ..Spec::default()
        };
        let mut profile = Profile::new(Arc::new(spec.clone()), 100, 1);
        let features: Vec<f64> = (0..4000).map(f64::from).collect();
        let probabilities = [0.2, 0.3, 0.5].repeat(1000);
        profile.update(&Rows {
            count: 1000,
            probabilities: Some(Columns::F64(ArrayView2::from_shape((1000, 3), &probabilities).unwrap())),
            features: Some(Columns::F64(ArrayView2::from_shape((1000, 4), &features).unwrap())),
            labels: None,
            ..Rows::default()
        });
        let report = Report::of(Period { start_ns: 0, end_ns: 1, partial: false }, &profile, [""; DROP_REASONS]);
        let codes = report.features[0].codes.as_ref().unwrap();
        assert_eq!((codes.values.len(), codes.top.len(), codes.other_count), (MOST_CATEGORIES, TOP, 1000 - 256));
        assert_eq!((report.embeddings.len(), report.segments.len()), (2, 33));
        assert!(report.bytes() <= Report::bytes_at_most(&spec), "{}", report.bytes());
    }
}
