//! How right a model should be, over every row with a prediction, labelled or not.

use super::Spec;
use super::predictions::Classified;
use super::rows::read_unit_row;
use crate::stats::{self, Calibration, Columns, Scalar, with_view};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

/// What a period's probabilities promise.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Estimates {
    /// Class by class.
    pub estimates: stats::Estimates,
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
        Estimates { estimates: stats::Estimates::new(classes(spec)), in_hand: InHand::default() }
    }

    /// An upper bound of its memory in bytes.
    pub(super) fn bytes(classes: u64) -> u64 {
        const IN_HAND: u64 = 2 * size_of::<f64>() as u64;
        stats::Estimates::bytes(classes) + classes * IN_HAND
    }

    /// Whether it is for the classes of `spec`: what comes from a file may not be.
    pub(super) fn fits(&self, spec: &Spec) -> bool {
        self.estimates.fits(classes(spec))
    }

    /// Adds a batch that was `classified`.
    pub(super) fn update(
        &mut self,
        probabilities: &Columns<'_>,
        classified: &Classified,
        calibration: Option<&Calibration>,
    ) {
        with_view!(probabilities, view => self.update_typed(view, classified, calibration));
    }

    fn update_typed<T: Scalar>(
        &mut self,
        rows: &ArrayView2<'_, T>,
        classified: &Classified,
        calibration: Option<&Calibration>,
    ) {
        let InHand { scores, chances } = &mut self.in_hand;
        for (row, predicted) in rows.rows().into_iter().zip(&classified.classes) {
            let Some(predicted) = *predicted else { continue };
            read_unit_row(row, scores);
            let Some(calibration) = calibration else {
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
    use crate::stats::Ranking;

    #[test]
    fn a_calibration_changes_the_chances_and_not_the_ranks() {
        let spec = Spec { classes: vec!["no".into(), "yes".into()], ..Spec::default() };
        let mut classified = Classified::default();
        classified.classes.extend([Some(1), None, Some(0)]);
        // Sure of everything, right every second time.
        let mut ranking = Ranking::new();
        (0..400).for_each(|i| ranking.add(&[f64::from(i % 10) / 10.0; 2], |_| i % 20 < 10));
        let calibration = Calibration::fit(&ranking, 1);
        let rows = [0.1, 0.9, f64::NAN, 0.0, 0.8, 0.2];
        let view = Columns::F64(ArrayView2::from_shape((3, 2), &rows).unwrap());
        let (mut raw, mut calibrated) = (Estimates::new(&spec), Estimates::new(&spec));
        raw.update(&view, &classified, None);
        calibrated.update(&view, &classified, Some(&calibration));
        assert_eq!((raw.estimates.rows(), calibrated.estimates.rows()), (2, 2));
        assert!((raw.estimates.accuracy().unwrap() - 0.85).abs() < 1e-12);
        assert!((calibrated.estimates.accuracy().unwrap() - 0.5).abs() < 1e-12);
    }
}
