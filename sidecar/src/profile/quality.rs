//! Predictions against what was right, over every row that has a label.

use super::{Labels, Reading, Spec, rows::read_unit_row};
use crate::stats::{Classified, Columns, Errors, MOST_CONFUSED, Outcomes, Ranking, Reliability, Scoring, sole};
use crate::stats::{Scalar, with_view};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

/// How right a model was in a period.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Quality {
    /// Predicted classes against labels.
    pub outcomes: Outcomes,
    /// Probabilities against labels: order.
    pub ranking: Ranking,
    /// Probabilities against labels: distance.
    pub scoring: Scoring,
    /// The predicted class's probability against whether it was right, over single-label rows.
    pub reliability: Reliability,
    /// The same rows: how many were expected to be right, by the calibrated probability.
    pub expected_correct: f64,
    /// The same rows: by how much that many may well differ, as a variance, if the probability is right.
    pub expected_variance: f64,
    /// The same rows: the sum of their largest probabilities.
    pub confidence: f64,
    /// The same rows: how many were as sure as those that were right in the reference.
    pub sure: u64,
    /// A regression's outputs against targets, in the outputs' order.
    pub errors: Vec<Errors>,
    /// Rows with a label in range, or a target, predicted or not.
    pub labelled_rows: u64,
    /// Label values that are not a class.
    pub invalid_labels: u64,
    #[serde(skip)]
    in_hand: InHand,
}

/// The row in hand, everything read once: a producer may be changing it.
#[derive(Clone, Debug, Default)]
struct InHand {
    probabilities: Vec<f64>,
    set: Vec<bool>,
}

/// What came with the labels of a batch.
#[derive(Clone, Copy)]
pub(super) struct Answers<'a, 'r> {
    pub probabilities: Option<Columns<'r>>,
    pub classified: &'a Classified,
    pub reading: &'a Reading,
    /// From 1 to the next value of what the probabilities were made of, if they have been converted since.
    pub epsilon: Option<f64>,
}

impl Quality {
    /// Of the classes or outputs of `spec`.
    pub(super) fn new(spec: &Spec) -> Quality {
        let (classes, outputs) = classes_and_outputs(spec);
        Quality {
            outcomes: Outcomes::new(classes),
            ranking: Ranking::new(),
            scoring: Scoring::new(classes),
            reliability: Reliability::default(),
            expected_correct: 0.0,
            expected_variance: 0.0,
            confidence: 0.0,
            sure: 0,
            errors: vec![Errors::default(); outputs],
            labelled_rows: 0,
            invalid_labels: 0,
            in_hand: InHand::default(),
        }
    }

    /// An upper bound of its memory in bytes.
    pub(super) fn bytes(classes: u64) -> u64 {
        const COLUMN: u64 = 112; // of a class: counts, a sum, the row in hand; of an output: Errors
        let confusion = if classes <= MOST_CONFUSED as u64 { classes * classes * size_of::<u64>() as u64 } else { 0 };
        classes * COLUMN + confusion + Ranking::bytes(classes) + Reliability::BYTES
    }

    /// Whether it is for the classes of `spec`: what comes from a file may not be.
    pub(super) fn fits(&self, spec: &Spec) -> bool {
        let (classes, outputs) = classes_and_outputs(spec);
        self.outcomes.fits(classes)
            && self.ranking.fits(classes)
            && self.scoring.fits(classes)
            && self.reliability.fits()
            && self.sure <= self.outcomes.single_rows()
            && self.errors.len() == outputs
    }

    /// Compares a batch with its labels.
    pub(super) fn update(&mut self, labels: Labels<'_>, answers: &Answers<'_, '_>) {
        match labels {
            Labels::Classes(labels) => self.score_classes(labels, answers),
            Labels::Sets(sets) => self.score_sets(&sets, answers),
            Labels::Targets(targets) => match &answers.probabilities {
                Some(outputs) => with_view!(outputs, outputs => self.compare(&targets, outputs)),
                None => {
                    self.labelled_rows +=
                        targets.rows().into_iter().filter(|row| is_complete(row.iter())).count() as u64
                }
            },
        }
    }

    fn score_classes(&mut self, labels: &[i32], answers: &Answers<'_, '_>) {
        let classes = self.scoring.classes();
        for (row, &label) in labels.iter().enumerate() {
            match usize::try_from(label) {
                Ok(actual) if actual < classes => {
                    self.labelled_rows += 1;
                    let Some((predicted, epsilon)) = self.take(row, answers) else { continue };
                    self.outcomes.add(predicted, actual);
                    self.ranking.add(&self.in_hand.probabilities, |class| class == actual);
                    self.scoring.add(&self.in_hand.probabilities);
                    self.score_single(predicted, actual, epsilon, answers.reading);
                }
                Err(_) if label == -1 => {}
                _ => self.invalid_labels += 1,
            }
        }
    }

    fn score_sets(&mut self, sets: &ArrayView2<'_, u8>, answers: &Answers<'_, '_>) {
        self.labelled_rows += sets.nrows() as u64;
        for (row, set) in sets.rows().into_iter().enumerate() {
            let Some((predicted, epsilon)) = self.take(row, answers) else { continue };
            self.in_hand.set.clear();
            self.in_hand.set.extend(set.iter().map(|&flag| flag != 0));
            self.outcomes.add_set(predicted, &self.in_hand.set);
            self.ranking.add(&self.in_hand.probabilities, |class| self.in_hand.set[class]);
            self.scoring.add(&self.in_hand.probabilities);
            if let Some(actual) = sole(&self.in_hand.set) {
                self.score_single(predicted, actual, epsilon, answers.reading);
            }
        }
    }

    /// Reads a row that has a prediction: the predicted class, and the precision of the probabilities that are now in hand.
    fn take(&mut self, row: usize, answers: &Answers<'_, '_>) -> Option<(usize, f64)> {
        let predicted = answers.classified.class(row)?;
        let epsilon = with_view!(answers.probabilities?, view => {
            read_unit_row(view.row(row), &mut self.in_hand.probabilities)
        });
        Some((predicted, answers.epsilon.unwrap_or(epsilon)))
    }

    fn score_single(&mut self, predicted: usize, actual: usize, epsilon: f64, reading: &Reading) {
        let probability = self.in_hand.probabilities[predicted];
        self.scoring.add_single(&self.in_hand.probabilities, actual, epsilon);
        self.reliability.add(probability, predicted == actual);
        let chance = reading.chance(predicted, probability);
        self.expected_correct += chance;
        self.expected_variance += chance * (1.0 - chance);
        // Not that of the predicted class, where the threshold is not a half.
        let confidence = self.in_hand.probabilities.iter().copied().fold(0.0, f64::max);
        self.confidence += confidence;
        self.sure += u64::from(reading.right().is_some_and(|right| confidence >= right.threshold));
    }

    fn compare<T: Scalar>(&mut self, targets: &ArrayView2<'_, f64>, outputs: &ArrayView2<'_, T>) {
        for (targets, outputs) in targets.rows().into_iter().zip(outputs.rows()) {
            let targets = targets.iter().zip(outputs).zip(&mut self.errors).map(|((&target, output), errors)| {
                errors.add(output.widen(), target);
                target
            });
            // Not short-circuited: every output is compared.
            let missing = targets.filter(|target| target.is_nan()).count();
            self.labelled_rows += u64::from(missing == 0);
        }
    }
}

fn classes_and_outputs(spec: &Spec) -> (usize, usize) {
    let columns = spec.classes.len();
    if spec.regression { (0, columns) } else { (columns, 0) }
}

fn is_complete<'a>(mut targets: impl Iterator<Item = &'a f64>) -> bool {
    !targets.any(|target| target.is_nan())
}
