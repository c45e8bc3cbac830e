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
        self.classified.classes.push(self.class_of(&probabilities));
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

    /// What a label that comes later can still change: everything but predictions, features and sample, which are empty. The labels
    /// that found no row, and the rows that are forgotten, are told once.
    pub fn remainder(&self) -> Profile {
        let spec = Spec {
            model: self.spec.model.clone(),
            version: self.spec.version.clone(),
            classes: self.spec.classes.clone(),
            regression: self.spec.regression,
            threshold: self.spec.threshold,
            segments: self.spec.segments,
            ..Spec::default()
        };
        Profile {
            records: self.records,
            rows: self.rows,
            losses: self.losses.clone(),
            quality: self.quality.clone(),
            estimates: self.estimates.clone(),
            segments: self.segments.clone(),
            later: Later { unjoined: Unjoined::default(), forgotten_rows: 0, ..self.later.clone() },
            predictions: Predictions::new(0),
            features: Features::new(&Spec::default()),
            sample: Sample::new(&Spec::default(), 0, 0),
            ..Profile::new(Arc::new(spec), 0, 0)
        }
    }

    /// An upper bound of a remainder's memory in bytes, its names apart.
    pub fn remainder_bytes(size: Size) -> u64 {
        const FIXED: u64 = 4096;
        let quality = Quality::bytes(size.classes) + Estimates::bytes(size.classes);
        quality.saturating_add(Segments::bytes(size)).saturating_add(FIXED)
    }
}
