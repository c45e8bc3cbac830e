//! Labels that did not come with their rows.

use super::quality::Answers;
use super::segments::{SegmentKey, single_label};
use super::{Estimates, Features, Labels, Predictions, Profile, Quality, Sample, Segments, Size, Spec};
use crate::stats::{Columns, Moment, Scalar, classify, with_view};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What became of labels without rows, and of rows without labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Later {
    /// Seconds from a row of this period to its label, where that came later.
    pub delay: Moment,
    /// Rows of this period that waited for a label when it closed.
    pub waiting_rows: u64,
    /// Rows of records with neither predictions nor features, of this period, that are the label of no row.
    pub unjoined: Unjoined,
    /// Rows of any period for whose labels nobody waits any more, or whose labels nobody will report, since the period before closed.
    pub forgotten_rows: u64,
}

/// Why a label found no row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unjoined {
    /// Its record names no ids.
    pub no_id: u64,
    /// No row waits under its id: it never came, has its label already, or is forgotten.
    pub unknown_id: u64,
    /// There is no label, only an id.
    pub no_label: u64,
}

impl Unjoined {
    /// Rows.
    pub fn rows(&self) -> u64 {
        self.no_id.saturating_add(self.unknown_id).saturating_add(self.no_label)
    }

    pub(super) fn add(&mut self, other: &Unjoined) {
        self.no_id += other.no_id;
        self.unknown_id += other.unknown_id;
        self.no_label += other.no_label;
    }
}

/// A row of a period, and the label that came for it.
#[derive(Clone, Copy, Debug)]
pub struct Labelled<'a, 'b> {
    /// Of one row, as they were.
    pub probabilities: Columns<'a>,
    /// Of one row.
    pub label: Labels<'b>,
    /// From 1 to the next value of what the probabilities were made of.
    pub epsilon: f64,
    /// In which segment it was counted.
    pub segment: Option<SegmentKey>,
    /// From the row to its label.
    pub delay_seconds: f64,
}

impl Profile {
    /// Takes a label for a row that was added before. `false` if it is none of the classes, which is counted: another one may come.
    pub fn label(&mut self, labelled: &Labelled<'_, '_>) -> bool {
        let Labelled { probabilities, label, .. } = *labelled;
        self.classified.clear();
        self.classified.push_class(self.class_of(&probabilities));
        let invalid_before = self.quality.invalid_labels;
        let answers = Answers {
            probabilities: Some(probabilities),
            classified: &self.classified,
            reading: &self.estimates.reading,
            epsilon: Some(labelled.epsilon),
        };
        self.quality.update(label, &answers);
        if self.quality.invalid_labels > invalid_before {
            return false;
        }
        self.later.delay.merge(&Moment::of(labelled.delay_seconds));
        let actual = single_label(&label, 0, self.spec.classes.len());
        if let (Some(segments), Some(predicted), Some(actual)) = (&mut self.segments, self.classified.class(0), actual)
        {
            segments.judge(labelled.segment, predicted, actual);
        }
        true
    }

    fn class_of(&self, row: &Columns<'_>) -> Option<usize> {
        if self.spec.regression {
            return None;
        }
        let prediction = with_view!(row, view => classify(view.iter().map(|p| p.widen()), self.spec.threshold));
        prediction.ok().map(|prediction| prediction.class)
    }

    /// Label rows of this period that are the label of no row.
    pub fn add_unjoined(&mut self, unjoined: &Unjoined) {
        self.later.unjoined.add(unjoined);
    }

    /// What a label that comes later can still change, and what that is compared with: everything but predictions, of which only
    /// confidence is there, features and sample. The labels that found no row, and the rows that are forgotten, are told once.
    pub fn remainder(&self) -> Profile {
        Profile {
            records: self.records,
            rows: self.rows,
            losses: self.losses.clone(),
            quality: self.quality.clone(),
            estimates: self.estimates.clone(),
            segments: self.segments.clone(),
            later: Later { unjoined: Unjoined::default(), forgotten_rows: 0, ..self.later.clone() },
            predictions: Predictions { confidence: self.predictions.confidence.clone(), ..Predictions::new(0) },
            features: Features::new(&Spec::default()),
            sample: Sample::new(&Spec::default(), 0, 0),
            ..Profile::new(Arc::new(spec_of_remainder(&self.spec)), 0, 0)
        }
    }

    /// A remainder that was serialized, once more in use; only what a label can change is believed. Its reference wants
    /// [`revive_against`](Self::revive_against). `None` if it does not belong to `spec`.
    pub fn revived_remainder(self, spec: &Spec) -> Option<Profile> {
        let spec = spec_of_remainder(spec);
        let fits = self.quality.fits(&spec) && self.estimates.fits(&spec) && self.segments_fit(&spec);
        fits.then(|| Profile { spec: Arc::new(spec), ..self }.remainder())
    }

    /// An upper bound of a remainder's memory in bytes, its names apart.
    pub fn remainder_bytes(size: Size) -> u64 {
        const FIXED: u64 = 4096;
        let quality = Quality::bytes(size.classes) + Estimates::bytes(size.classes);
        quality.saturating_add(Segments::bytes(size)).saturating_add(FIXED)
    }
}

fn spec_of_remainder(spec: &Spec) -> Spec {
    Spec {
        model: spec.model.clone(),
        version: spec.version.clone(),
        classes: spec.classes.clone(),
        regression: spec.regression,
        threshold: spec.threshold,
        segments: spec.segments,
        ..Spec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Rows, SegmentBy, Segmentation};
    use super::*;
    use crate::period::Period;
    use crate::report::Report;
    use crate::stats::RowStore;
    use half::f16;
    use ndarray::ArrayView2;
    use serde_json::{Value, json};

    const ROWS: usize = 40;
    const CLASSES: usize = 3;

    fn empty(regression: bool) -> Profile {
        let classes = ["a", "b", "c"].map(String::from).to_vec();
        let segments = Some(Segmentation { by: SegmentBy::Row, most: 2 });
        Profile::new(Spec { classes, regression, threshold: 0.5, segments, ..Spec::default() }.into(), 4, 1)
    }

    fn told(profile: &Profile) -> Value {
        let period = Period { start_ns: 0, end_ns: 1, partial: false };
        let mut all = serde_json::to_value(Report::revised(period, profile, 1, [""; 5])).unwrap();
        all["labels"].as_object_mut().unwrap().remove("delay");
        json!([all["rows"], all["labels"], all["scores"], all["errors"], all["estimated"], all["segments"]])
    }

    #[test]
    fn labels_of_every_encoding_say_later_what_they_say_at_once() {
        let value = |i: usize| if i == 50 { f16::NAN } else { f16::from_f64((i * 7 % 11) as f64 / 11.0) };
        let values: Vec<f16> = (0..ROWS * CLASSES).map(value).collect();
        let probabilities = Columns::F16(ArrayView2::from_shape((ROWS, CLASSES), &values).unwrap());
        let segments: Vec<u16> = (0..ROWS as u16).map(|row| row % 5).collect();
        let classes: Vec<i32> = (0..ROWS as i32).map(|row| row % 3).collect();
        let flags: Vec<u8> = (0..ROWS * CLASSES).map(|i| u8::from(i.is_multiple_of(4))).collect();
        let target = |i: usize| if i.is_multiple_of(13) { f64::NAN } else { i as f64 / 9.0 };
        let targets: Vec<f64> = (0..ROWS * CLASSES).map(target).collect();
        let encodings = [
            Labels::Classes(&classes),
            Labels::Sets(ArrayView2::from_shape((ROWS, CLASSES), &flags).unwrap()),
            Labels::Targets(ArrayView2::from_shape((ROWS, CLASSES), &targets).unwrap()),
        ];
        let mut kept = RowStore::new(CLASSES);
        kept.keep(&probabilities, &(0..ROWS).map(|row| (row, row)).collect::<Vec<_>>());
        for labels in encodings {
            let regression = matches!(labels, Labels::Targets(_));
            let (mut at_once, mut later) = (empty(regression), empty(regression));
            let rows =
                Rows { count: ROWS, probabilities: Some(probabilities), segments: Some(&segments), ..Rows::default() };
            at_once.update(&Rows { labels: Some(labels), ..rows });
            later.update(&rows);
            let mut later = later.remainder();
            for row in 0..ROWS {
                let segment = SegmentKey::of(&rows, row, &later.spec.segments.unwrap());
                assert!(later.label(&Labelled {
                    probabilities: kept.row(row),
                    label: labels.slice(row..row + 1),
                    epsilon: probabilities.epsilon(),
                    segment,
                    delay_seconds: 1.0,
                }));
            }
            assert_eq!(told(&later), told(&at_once));
        }
    }
}
