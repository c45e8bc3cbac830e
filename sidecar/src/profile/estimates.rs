//! How right a model should be, over every row with a prediction, labelled or not.

use super::rows::read_unit_row;
use super::{Reading, Spec};
use crate::stats::{self, Classified, Columns, Scalar, Thresholded, with_view};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

/// What a period's probabilities promise.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Estimates {
    /// Class by class.
    pub estimates: stats::Estimates,
    /// Rows as sure as those that were right in the reference, where it knows that.
    pub sure: Option<Thresholded>,
    /// What the probabilities are taken for.
    pub reading: Reading,
    #[serde(skip)]
    in_hand: InHand,
}

/// The row in hand: what the model says, and what that means.
#[derive(Clone, Debug, Default)]
struct InHand {
    scores: Vec<f64>,
    chances: Vec<f64>,
}

impl Estimates {
    /// Of the classes of `spec`.
    pub(super) fn new(spec: &Spec) -> Estimates {
        Estimates {
            estimates: stats::Estimates::new(classes(spec)),
            sure: None,
            reading: Reading::default(),
            in_hand: InHand::default(),
        }
    }

    /// The same, of no rows yet, by what a reference says.
    pub(super) fn reading(self, reading: Reading) -> Estimates {
        Estimates { sure: reading.right().map(|right| Thresholded::new(right.threshold)), reading, ..self }
    }

    /// An upper bound of its memory in bytes.
    pub(super) fn bytes(classes: u64) -> u64 {
        const IN_HAND: u64 = 2 * size_of::<f64>() as u64;
        stats::Estimates::bytes(classes) + classes * IN_HAND
    }

    /// Whether it is for the classes of `spec`: what comes from a file may not be.
    pub(super) fn fits(&self, spec: &Spec) -> bool {
        self.estimates.fits(classes(spec)) && self.sure.is_none_or(|sure| sure.fits())
    }

    /// Adds a batch that was `classified`.
    pub(super) fn update(&mut self, probabilities: &Columns<'_>, classified: &Classified) {
        with_view!(probabilities, view => self.update_typed(view, classified));
    }

    fn update_typed<T: Scalar>(&mut self, rows: &ArrayView2<'_, T>, classified: &Classified) {
        if let Some(sure) = &mut self.sure {
            classified.confidence.iter().for_each(|confidence| sure.add(*confidence));
        }
        let InHand { scores, chances } = &mut self.in_hand;
        for (row, predicted) in rows.rows().into_iter().zip(classified.classes()) {
            let Some(predicted) = predicted else { continue };
            read_unit_row(row, scores);
            let Some(calibration) = self.reading.calibration() else {
                self.estimates.add(predicted, scores, scores);
                continue;
            };
            chances.clear();
            chances.extend(scores.iter().enumerate().map(|(class, &score)| calibration.at(class, score)));
            self.estimates.add(predicted, scores, chances);
        }
    }
}

fn classes(spec: &Spec) -> usize {
    if spec.regression { 0 } else { spec.classes.len() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Learned;
    use crate::stats::{Calibration, Ranking};

    #[test]
    fn a_calibration_changes_the_chances_and_not_the_ranks() {
        let spec = Spec { classes: vec!["no".into(), "yes".into()], ..Spec::default() };
        let mut classified = Classified::default();
        [Some(1), None, Some(0)].into_iter().for_each(|class| classified.push_class(class));
        // Sure of everything, right every second time.
        let mut ranking = Ranking::new();
        (0..400).for_each(|i| ranking.add(&[f64::from(i % 10) / 10.0; 2], |_| i % 20 < 10));
        let calibration = Calibration::fit(&ranking, 1);
        let rows = [0.1, 0.9, f64::NAN, 0.0, 0.8, 0.2];
        let view = Columns::F64(ArrayView2::from_shape((3, 2), &rows).unwrap());
        let learned = Learned { reference: 1, calibration: Some(calibration), right: None };
        let mut raw = Estimates::new(&spec);
        let mut calibrated = Estimates::new(&spec).reading(Reading::by(Some(learned.into())));
        raw.update(&view, &classified);
        calibrated.update(&view, &classified);
        assert_eq!((raw.estimates.rows(), calibrated.estimates.rows()), (2, 2));
        assert!((raw.estimates.accuracy().unwrap() - 0.85).abs() < 1e-12);
        assert!((calibrated.estimates.accuracy().unwrap() - 0.5).abs() < 1e-12);
    }
}
