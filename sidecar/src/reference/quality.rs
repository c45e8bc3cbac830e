//! How right a model was in a reference: what makes its probabilities believable later, without labels.

use crate::profile::{Learned, Profile, Right, Spec};
use crate::stats::{Calibration, MOST_RANKED, Ranking, Steps, confidence_threshold, is_multi_label};
use serde::{Deserialize, Serialize};

/// For the coins of a calibration: the same histograms give the same one.
const SEED: u64 = 0x6d6c_7761_7463_6821;

/// Over the rows with a prediction and a label. All of it adds up, so that references merge exactly; what follows from it is never stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// How many.
    pub rows: u64,
    /// Rows whose label is several classes.
    pub several_rows: u64,
    /// Rows whose label is a single class.
    pub single_rows: u64,
    /// Of these, predicted right.
    pub correct: u64,
    /// Of the same, the sum of the confidences.
    pub confidence: f64,
    /// Each class's scores, by whether rows were of it; of nothing with more than 64 classes.
    pub scores: Ranking,
}

impl Quality {
    /// `None` without labels.
    pub(super) fn of(profile: &Profile) -> Option<Quality> {
        let outcomes = &profile.quality.outcomes;
        (outcomes.rows() > 0).then(|| Quality {
            rows: outcomes.rows(),
            several_rows: outcomes.several_rows(),
            single_rows: outcomes.single_rows(),
            correct: outcomes.correct(),
            confidence: profile.quality.confidence,
            scores: profile.quality.ranking.clone(),
        })
    }

    /// As if the rows of both had been seen. `order` says where each of its classes is among those of `other`, which has the same.
    pub fn merge(&mut self, other: &Quality, order: &[usize]) {
        self.rows = self.rows.saturating_add(other.rows);
        self.several_rows = self.several_rows.saturating_add(other.several_rows);
        self.single_rows = self.single_rows.saturating_add(other.single_rows);
        self.correct = self.correct.saturating_add(other.correct);
        self.confidence += other.confidence;
        self.scores.merge(&other.scores.reordered(order));
    }

    /// The same with its classes in another order: `order` says where each of them is.
    pub(super) fn reordered(&self, order: &[usize]) -> Quality {
        Quality { scores: self.scores.reordered(order), ..self.clone() }
    }

    /// Whether it can have been made: what comes from a file may be anything.
    pub(super) fn is_sound(&self, classes: usize) -> bool {
        self.scores.fits(classes)
            && self.scores.is_sound()
            && self.correct <= self.single_rows
            && self.single_rows.saturating_add(self.several_rows) <= self.rows
            && (classes > MOST_RANKED || self.rows == self.scores.rows())
            && (0.0..=self.single_rows as f64).contains(&self.confidence)
    }

    /// `None` if the probabilities are best taken as they are.
    pub(super) fn calibration(&self) -> Option<Calibration> {
        Some(Calibration::fit(&self.scores, SEED)).filter(Calibration::is_any)
    }

    /// Accuracy and mean confidence of the rows with a single label. `None` without such, and where labels are sets: they do not stand
    /// for the others.
    pub fn means(&self) -> Option<[f64; 2]> {
        let stand = self.single_rows > 0 && !is_multi_label(self.several_rows, self.rows);
        stand.then(|| [self.correct as f64, self.confidence].map(|sum| sum / self.single_rows as f64))
    }

    /// `confidences` are those of all rows. `None` without [`means`](Self::means).
    pub(super) fn right(&self, confidences: &Steps) -> Option<Right> {
        let [accuracy, confidence] = self.means()?;
        Some(Right {
            rows: self.single_rows,
            accuracy,
            confidence,
            threshold: confidence_threshold(confidences.shares(), 1.0 - accuracy)?,
        })
    }
}

impl super::Reference {
    /// What follows from its labels for a model of `spec`: classes are matched by name. `None` without labels.
    pub(super) fn learned(&self, spec: &Spec) -> Option<Learned> {
        let quality = self.quality.as_ref()?;
        let place = |name: &String| self.probabilities.iter().position(|column| column.name == *name);
        let calibration = self.calibration.as_ref().map(|own| own.reordered(spec.classes.iter().map(place)));
        // What is no probability was cut to [0, 1] in the sums over labelled rows, and was not in the steps.
        let confidences = self.confidence.as_ref().filter(|column| column.moment.is_within(0.0, 1.0));
        let confidences = confidences.and_then(|column| Some(&column.as_numerical()?.steps));
        Some(Learned {
            reference: self.id,
            calibration: calibration.filter(Calibration::is_any),
            right: confidences.filter(|_| self.asks_the_same(spec)).and_then(|steps| quality.right(steps)),
        })
    }

    /// Whether a row's predicted class and confidence are the same for `spec`.
    fn asks_the_same(&self, spec: &Spec) -> bool {
        let names = || self.probabilities.iter().map(|column| &column.name);
        match spec.classes.len() {
            2 => names().eq(&spec.classes) && self.threshold == spec.threshold,
            classes => classes == names().count() && names().all(|name| spec.classes.contains(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Labels, Rows};
    use crate::reference::Reference;
    use crate::stats::Columns;
    use ndarray::ArrayView2;
    use std::sync::Arc;

    fn spec(classes: &[&str]) -> Spec {
        Spec { classes: classes.iter().map(|name| name.to_string()).collect(), threshold: 0.5, ..Spec::default() }
    }

    /// A model of three classes that is surer than right; one label in ten is not known.
    fn profile(rows: std::ops::Range<usize>) -> Profile {
        let mut profile = Profile::new(Arc::new(spec(&["a", "b", "c"])), 10_000, 1);
        for i in rows {
            let chance = |k: f64| ((i as f64 + 0.5) * k).fract();
            let sure = 0.6 + 0.4 * chance(0.618_033_99);
            let mut proba = [(1.0 - sure) * 0.7, (1.0 - sure) * 0.3, sure];
            proba.rotate_left(i % 3);
            let predicted = (2 - i % 3) as i32;
            let label = if i % 10 == 0 {
                -1
            } else if chance(0.754_877_67) < 0.7 {
                predicted
            } else {
                (predicted + 1) % 3
            };
            profile.update(&Rows {
                count: 1,
                probabilities: Some(Columns::F64(ArrayView2::from_shape((1, 3), &proba).unwrap())),
                labels: Some(Labels::Classes(&[label])),
                ..Rows::default()
            });
        }
        profile
    }

    #[test]
    fn merge_equals_whole() {
        let of = |rows| Quality::of(&profile(rows)).unwrap();
        let (mut merged, whole) = (of(0..1000), of(0..3000));
        merged.merge(&of(1000..3000), &[0, 1, 2]);
        assert!((merged.confidence - whole.confidence).abs() < 1e-9);
        assert_eq!(Quality { confidence: whole.confidence, ..merged.clone() }, whole);
        assert_eq!((whole.single_rows, merged.calibration()), (2700, whole.calibration()));
    }

    #[test]
    fn classes_in_another_order_are_merged_with_their_own() {
        let quality = Quality::of(&profile(0..1000)).unwrap();
        let turned = Quality { scores: quality.scores.reordered(&[2, 0, 1]), ..quality.clone() };
        let (mut merged, mut twice) = (quality.clone(), quality.clone());
        merged.merge(&turned, &[1, 2, 0]);
        twice.merge(&quality, &[0, 1, 2]);
        assert_ne!(turned, quality);
        assert_eq!(merged, twice);
        assert_eq!(Ranking::new().reordered(&[1, 0]), Ranking::new());
    }

    #[test]
    fn a_loaded_reference_has_the_calibration_of_the_saved_one() {
        let reference = Reference::of(&profile(0..3000));
        let loaded = Reference::from_bytes(&reference.to_bytes()).unwrap();
        assert!(loaded.calibration.is_some());
        assert_eq!((&loaded, loaded.id()), (&reference, reference.id()));
    }

    #[test]
    fn classes_are_matched_by_name_and_what_is_right_only_if_they_are_the_same() {
        let reference = Reference::of(&profile(0..3000));
        let learned = |classes: &[&str]| reference.learned(&spec(classes)).unwrap();
        let (own, turned, other) = (learned(&["a", "b", "c"]), learned(&["c", "a", "b"]), learned(&["c", "x"]));
        let at = |learned: &Learned, class| learned.calibration.as_ref().unwrap().at(class, 0.8);
        assert!((at(&own, 2) - 0.7).abs() < 0.1, "{}", at(&own, 2));
        assert_eq!([at(&turned, 0), at(&turned, 1), at(&other, 0)], [at(&own, 2), at(&own, 0), at(&own, 2)]);
        assert_eq!((turned.right, at(&other, 1)), (own.right, 0.8));
        assert!(own.right.is_some() && other.right.is_none());
        assert!(learned(&["x", "y"]).calibration.is_none());
    }

    #[test]
    fn where_labels_are_sets_nothing_is_known_of_what_is_right() {
        let profile = profile(0..3000);
        let quality = Quality::of(&profile).unwrap();
        let some = Quality { several_rows: 20, rows: 2720, ..quality.clone() };
        let sets = Quality { several_rows: 100, rows: 2800, ..quality.clone() };
        let steps = Reference::of(&profile).confidence.unwrap().as_numerical().unwrap().steps.clone();
        assert_eq!(some.right(&steps), quality.right(&steps));
        assert_eq!((sets.means(), sets.right(&steps)), (None, None));
        let mut merged = sets.clone();
        merged.merge(&some, &[0, 1, 2]);
        assert_eq!((merged.rows, merged.several_rows, merged.means()), (5520, 120, None));
    }

    #[test]
    fn what_contradicts_itself_is_unsound() {
        let sound = Quality::of(&profile(0..300)).unwrap();
        assert!(sound.is_sound(3) && !sound.is_sound(2));
        assert!(!Quality { correct: sound.single_rows + 1, ..sound.clone() }.is_sound(3));
        assert!(!Quality { single_rows: u64::MAX, ..sound.clone() }.is_sound(3), "more than all rows");
        assert!(!Quality { several_rows: 1, ..sound.clone() }.is_sound(3), "more than all rows");
        assert!(!Quality { rows: sound.rows + 1, ..sound.clone() }.is_sound(3), "more than are in the scores");
        for confidence in [f64::NAN, -1.0, f64::INFINITY, 1e308] {
            assert!(!Quality { confidence, ..sound.clone() }.is_sound(3), "{confidence}");
        }
    }
}
