//! What a reference with labels says of a model's probabilities, on its way with the periods that are compared with it.

use super::Frozen;
use crate::stats::Calibration;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// In the order of a spec's classes.
#[derive(Debug)]
pub struct Learned {
    /// Which reference.
    pub reference: u32,
    /// What the probabilities mean; `None` if they mean what they say, as far as is known.
    pub calibration: Option<Calibration>,
    /// `None` if the reference was not asked the same: other classes, another threshold; if its labels are sets; or if its confidences are
    /// not in [0, 1].
    pub right: Option<Right>,
}

/// How right the model was, and how sure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Right {
    /// Rows with a prediction and a single label.
    pub rows: u64,
    /// Share of them predicted right.
    pub accuracy: f64,
    /// Their mean confidence.
    pub confidence: f64,
    /// Of the confidences; so large a share of which lies at or above it as was right.
    pub threshold: f64,
}

/// How a period reads its probabilities: the same way from its first row to its last, or not at all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reading {
    said: Said,
    #[serde(skip)]
    learned: Option<Arc<Learned>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Said {
    /// No reference: as they are.
    #[default]
    NoReference,
    /// The reference knew no labels: as they are.
    NoLabels,
    By {
        reference: u32,
        calibrated: bool,
    },
    /// As `By` until the sidecar was killed, and the next one did not find the reference.
    Gone {
        calibrated: bool,
    },
}

impl Reading {
    pub(super) fn of(frozen: Option<&Frozen>) -> Reading {
        frozen.map_or_else(Reading::default, |frozen| Reading::by(frozen.learned.clone()))
    }

    pub(super) fn by(learned: Option<Arc<Learned>>) -> Reading {
        let by = |learned: &Arc<Learned>| Said::By {
            reference: learned.reference,
            calibrated: learned.calibration.is_some(),
        };
        Reading { said: learned.as_ref().map_or(Said::NoLabels, by), learned }
    }

    /// What was serialized, once more in use.
    pub(super) fn revived(self, frozen: Option<&Frozen>) -> Reading {
        let Said::By { calibrated, .. } = self.said else { return self };
        let again = Reading::of(frozen);
        if again.said == self.said { again } else { Reading { said: Said::Gone { calibrated }, learned: None } }
    }

    /// What the reference says.
    pub fn learned(&self) -> Option<&Learned> {
        self.learned.as_deref()
    }

    /// How right the model was in it.
    pub fn right(&self) -> Option<Right> {
        self.learned()?.right
    }

    pub(super) fn calibration(&self) -> Option<&Calibration> {
        self.learned()?.calibration.as_ref()
    }

    /// That a row is of the class whose probability this is.
    pub(super) fn chance(&self, class: usize, probability: f64) -> f64 {
        self.calibration().map_or(probability, |calibration| calibration.at(class, probability))
    }

    /// Whether the chances of the period's rows are calibrated ones.
    pub fn is_calibrated(&self) -> bool {
        matches!(self.said, Said::By { calibrated: true, .. } | Said::Gone { calibrated: true })
    }

    /// Whether some rows were read in a way that others can no longer be.
    pub fn is_gone(&self) -> bool {
        matches!(self.said, Said::Gone { .. })
    }

    /// Why nothing follows from how right the reference was.
    pub fn why_unknown(&self) -> Option<&'static str> {
        match self.said {
            Said::NoReference => Some("no_reference"),
            Said::NoLabels => Some("no_labels_in_reference"),
            Said::Gone { .. } => Some("reference_gone"),
            Said::By { .. } => match self.learned()?.right {
                None => Some("not_comparable"),
                Some(_) => None,
            },
        }
    }
}
