//! How right a model should be, by its probabilities alone and by what a reference has taught of them.

use super::overrides::OfModel;
use super::scores::{is_classification, unlabelled};
use super::{DriftSettings, Evidence, Levels, Measure, Verdict};
use crate::profile::{Profile, Right};
use crate::stats::{ClassEstimate, MOST_RANKED, SharesApart, Single, accuracy_by_difference, corrected_z};
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Estimated {
    pub n: u64,
    pub calibrated: bool,
    pub accuracy: Option<f64>,
    pub accuracy_error: Option<f64>,
    pub labelled_n: u64,
    pub estimated_minus_realised: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_minus_realised_reason: Option<&'static str>,
    pub concept_drift: QualityDrift,
    pub accuracy_drift: QualityDrift,
    pub classes: Vec<ClassEstimated>,
    pub average_thresholded_confidence: ThresholdedConfidence,
    pub difference_of_confidence: ConfidenceDifference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ClassEstimated {
    pub name: String,
    pub predicted: u64,
    pub true_positives: f64,
    pub precision: Option<f64>,
    pub recall: Option<f64>,
    pub f1: Option<f64>,
    pub auroc: Option<f64>,
    pub auroc_error: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ThresholdedConfidence {
    pub threshold: Option<f64>,
    pub accuracy: Option<f64>,
    pub estimated_minus_realised: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_minus_realised_reason: Option<&'static str>,
    pub reference_n: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ConfidenceDifference {
    pub confidence: Option<f64>,
    pub accuracy: Option<f64>,
    pub estimated_minus_realised: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_minus_realised_reason: Option<&'static str>,
    pub reference_n: Option<u64>,
    pub reference_accuracy: Option<f64>,
    pub reference_confidence: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// A difference of two accuracies, one standard error of it, and how many of these it is beside 0.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct QualityDrift {
    pub value: Option<f64>,
    pub error: Option<f64>,
    pub n: u64,
    pub reference_n: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub z: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

impl QualityDrift {
    /// As an alert shows it.
    pub fn evidence(&self) -> Evidence {
        Evidence { measure: self.measure(), n: Some(self.n), n_other: self.reference_n }
    }

    fn measure(&self) -> Measure {
        Measure { value: self.value, z: self.z, verdict: self.verdict, reason: self.reason, ..Measure::default() }
    }

    fn of(value: f64, error: f64, z: Option<f64>, n: u64, reference_n: u64) -> QualityDrift {
        QualityDrift { value: Some(value), error: Some(error), n, reference_n: Some(reference_n), z, ..Self::default() }
    }

    /// Large enough by its levels, and not by chance; `counts` says which sign does: of the worse.
    fn judge(&mut self, settings: &DriftSettings, levels: &Levels, counts: impl Fn(f64) -> bool) {
        let (Some(value), Some(reference_n)) = (self.value, self.reference_n) else { return };
        if self.n.min(reference_n) < settings.min_rows {
            self.reason = self.reason.or(Some("too_few"));
            return;
        }
        let mut measure = self.measure();
        measure.judge(levels, |measure| counts(value) && measure.z.is_some_and(|z| z.abs() >= settings.z));
        self.verdict = measure.verdict;
    }
}

impl Estimated {
    /// Whether the model is less right than it promises, and than it was. A class's map is of the class against the rest, and not of the rows
    /// predicted as it alone: of a model that is less sure than right it promises somewhat too little, and that is no drift.
    pub(super) fn judge(&mut self, settings: &OfModel<'_>) {
        let of = settings.of("concept_drift", "");
        self.concept_drift.judge(of, &of.concept, |value| value > 0.0);
        let of = settings.of("accuracy_drift", "");
        self.accuracy_drift.judge(of, &of.accuracy, |value| value < 0.0);
    }
}

/// What a class takes, besides its name.
pub(super) const CLASS_BYTES: u64 = size_of::<ClassEstimated>() as u64;

pub(super) fn estimated(profile: &Profile) -> Option<Estimated> {
    if !is_classification(profile) {
        return None;
    }
    let (estimates, reading) = (&profile.estimates.estimates, &profile.estimates.reading);
    let (n, classes) = (estimates.rows(), &profile.spec.classes);
    // Some chances are calibrated and others are not: they make no sum.
    let mixed = reading.is_gone() && reading.is_calibrated();
    let unless_mixed = |x: Option<f64>| x.filter(|_| !mixed);
    let class = |(name, class): (&String, ClassEstimate)| class_estimated(name, class, n, classes.len());
    Some(Estimated {
        n,
        calibrated: reading.is_calibrated(),
        accuracy: unless_mixed(estimates.accuracy()),
        accuracy_error: unless_mixed(estimates.accuracy_error()),
        labelled_n: profile.quality.outcomes.single().rows,
        estimated_minus_realised: unless_mixed(minus_realised(profile, profile.quality.expected_correct)),
        estimated_minus_realised_reason: mixed.then_some("reference_gone").or(unlabelled(profile)),
        concept_drift: concept_drift(profile),
        accuracy_drift: accuracy_drift(profile),
        classes: classes.iter().zip(estimates.classes()).filter(|_| !mixed).map(class).collect(),
        average_thresholded_confidence: thresholded_confidence(profile),
        difference_of_confidence: confidence_difference(profile),
        reason: match () {
            _ if n == 0 => Some("empty"),
            _ if mixed => Some("reference_gone"),
            _ if classes.len() > MOST_RANKED => Some("too_many_classes"),
            _ => None,
        },
    })
}

fn class_estimated(name: &str, class: ClassEstimate, rows: u64, classes: usize) -> ClassEstimated {
    ClassEstimated {
        name: name.to_owned(),
        predicted: class.predicted,
        true_positives: class.true_positives,
        precision: class.precision,
        recall: class.recall,
        f1: class.f1,
        auroc: class.auroc.map(|auroc| auroc.value),
        auroc_error: class.auroc.map(|auroc| auroc.error),
        reason: match class {
            _ if rows == 0 => Some("empty"),
            _ if class.recall.is_none() => Some("no_actual_positive"),
            _ if class.precision.is_none() => Some("no_predicted_positive"),
            _ if classes > MOST_RANKED => Some("too_many_classes"),
            _ if class.auroc.is_none() => Some("single_class"),
            _ => None,
        },
    }
}

/// Of the labelled rows: by how much the accuracy of so many right ones exceeds theirs.
fn minus_realised(profile: &Profile, right: f64) -> Option<f64> {
    let Single { rows, correct } = profile.quality.outcomes.single();
    (rows > 0).then(|| (right - correct as f64) / rows as f64)
}

/// Why the accuracy is compared with nothing that a reference has taught.
fn why_not_compared(profile: &Profile) -> Option<&'static str> {
    why_unknown(profile).or(unlabelled(profile))
}

/// What was expected of the labelled rows minus what came of them. Had the calibrated probabilities been right, each row would have been
/// right by a coin of its own, which has the variance ĉ(1 − ĉ) whatever the others do; and what the reference says of the mean of all
/// these coins is off by what the accuracy of its own rows may well be.
fn concept_drift(profile: &Profile) -> QualityDrift {
    let (n, right) = (profile.quality.outcomes.single().rows, profile.estimates.reading.right());
    let too_many = (profile.spec.classes.len() > MOST_RANKED).then_some("too_many_classes");
    match (why_not_compared(profile).or(too_many), right, minus_realised(profile, profile.quality.expected_correct)) {
        (None, Some(right), Some(value)) => {
            let of_rows = profile.quality.expected_variance / (n as f64 * n as f64);
            let of_reference = right.accuracy * (1.0 - right.accuracy) / right.rows as f64;
            let error = (of_rows + of_reference).sqrt();
            // Rows are whole: half of one is no difference.
            QualityDrift::of(value, error, corrected_z(value, error, 0.5 / n as f64), n, right.rows)
        }
        (reason, ..) => QualityDrift { n, reason, ..QualityDrift::default() },
    }
}

/// The accuracy of the labelled rows minus that of the reference's.
fn accuracy_drift(profile: &Profile) -> QualityDrift {
    let (Single { rows: n, correct }, right) = (profile.quality.outcomes.single(), profile.estimates.reading.right());
    let apart = |right: Right| {
        let then = (right.accuracy * right.rows as f64).round() as u64;
        Some((right.rows, SharesApart::of(correct, n, then, right.rows)?))
    };
    match (why_not_compared(profile), right.and_then(apart)) {
        (None, Some((reference_n, SharesApart { value, error, z }))) => {
            QualityDrift::of(value, error, z, n, reference_n)
        }
        (reason, _) => QualityDrift { n, reason, ..QualityDrift::default() },
    }
}

fn why_unknown(profile: &Profile) -> Option<&'static str> {
    let of_rows = match () {
        _ if profile.estimates.estimates.rows() == 0 => Some("empty"),
        // Labelled rows are scored by probabilities, which are cut to [0, 1]: their confidences would be others.
        _ if !profile.predictions.confidence.columns()[0].is_within(0.0, 1.0) => Some("not_comparable"),
        _ => None,
    };
    profile.estimates.reading.why_unknown().or(of_rows)
}

fn thresholded_confidence(profile: &Profile) -> ThresholdedConfidence {
    let reason = why_unknown(profile);
    let Some(right) = profile.estimates.reading.right() else {
        return ThresholdedConfidence { reason, ..ThresholdedConfidence::default() };
    };
    let known = |value: Option<f64>| value.filter(|_| reason.is_none());
    ThresholdedConfidence {
        threshold: Some(right.threshold).filter(|threshold| threshold.is_finite()),
        accuracy: known(profile.estimates.sure.and_then(|sure| sure.accuracy()).map(|accuracy| accuracy.value)),
        estimated_minus_realised: known(minus_realised(profile, profile.quality.sure as f64)),
        estimated_minus_realised_reason: unlabelled(profile).filter(|_| reason.is_none()),
        reference_n: Some(right.rows),
        reason,
    }
}

fn confidence_difference(profile: &Profile) -> ConfidenceDifference {
    let reason = why_unknown(profile);
    let Some(right) = profile.estimates.reading.right() else {
        return ConfidenceDifference { reason, ..ConfidenceDifference::default() };
    };
    let known = |value: Option<f64>| value.filter(|_| reason.is_none());
    let confidence = known(Some(profile.predictions.confidence.columns()[0].mean));
    let accuracy = |confidence| accuracy_by_difference(right.accuracy, right.confidence, confidence);
    let labelled = profile.quality.outcomes.single().rows as f64;
    let of_labelled = accuracy(profile.quality.confidence / labelled.max(1.0)) * labelled;
    ConfidenceDifference {
        confidence,
        accuracy: confidence.map(accuracy),
        estimated_minus_realised: known(minus_realised(profile, of_labelled)),
        estimated_minus_realised_reason: unlabelled(profile).filter(|_| reason.is_none()),
        reference_n: Some(right.rows),
        reference_accuracy: Some(right.accuracy),
        reference_confidence: Some(right.confidence),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Frozen, Labels, Rows, Spec};
    use crate::reference::Reference;
    use crate::stats::Columns;
    use ndarray::ArrayView2;
    use std::sync::Arc;

    /// The probability of class 1, and what was right.
    type Row = (f64, i32);

    fn spec(threshold: f64) -> Arc<Spec> {
        Spec { classes: ["no", "yes"].map(String::from).to_vec(), threshold, ..Spec::default() }.into()
    }

    fn feed(mut profile: Profile, rows: &[Row]) -> Profile {
        for (p, label) in rows {
            let proba = [1.0 - p, *p];
            profile.update(&Rows {
                count: 1,
                probabilities: Some(Columns::F64(ArrayView2::from_shape((1, 2), &proba).unwrap())),
                labels: Some(Labels::Classes(&[*label])),
                ..Rows::default()
            });
        }
        profile
    }

    fn empty() -> Profile {
        Profile::new(spec(0.5), 10_000, 1)
    }

    /// Says p where yes is right of a quarter and half of p.
    fn overconfident(rows: usize, seed: usize) -> Vec<Row> {
        let chance = |i: usize| ((i + seed) as f64 * 0.618_033_988_749_894_9).fract();
        let label = |i: usize| i32::from(chance(i * 7919 + 3) < 0.25 + chance(i) / 2.0);
        (0..rows).map(|i| (chance(i), label(i))).collect()
    }

    fn reference() -> Reference {
        Reference::of(&feed(empty(), &overconfident(4000, 0)))
    }

    fn against(frozen: &Frozen, rows: &[Row]) -> Estimated {
        estimated(&feed(empty().counting_in(Some(frozen)), rows)).unwrap()
    }

    fn mean(values: impl Iterator<Item = f64>) -> f64 {
        let values: Vec<f64> = values.collect();
        values.iter().sum::<f64>() / values.len() as f64
    }

    fn confidence(row: &Row) -> f64 {
        row.0.max(1.0 - row.0)
    }

    fn accuracy(rows: &[Row]) -> f64 {
        mean(rows.iter().map(|(p, label)| f64::from(u8::from((*p > 0.5) == (*label == 1)))))
    }

    #[test]
    fn estimates_equal_their_definitions_over_the_rows() {
        let (before, now) = (overconfident(4000, 0), overconfident(1500, 77));
        let got = against(&reference().frozen(&spec(0.5)), &now);
        let atc = got.average_thresholded_confidence;
        let sure =
            |rows: &[Row]| mean(rows.iter().map(|row| f64::from(u8::from(confidence(row) >= atc.threshold.unwrap()))));
        assert!((sure(&before) - accuracy(&before)).abs() < 1.0 / 1000.0, "the reference itself");
        assert_eq!((atc.accuracy, atc.reference_n, atc.reason), (Some(sure(&now)), Some(4000), None));
        assert!((atc.estimated_minus_realised.unwrap() - (sure(&now) - accuracy(&now))).abs() < 1e-12);
        let doc = got.difference_of_confidence;
        let [was, is] = [&before, &now].map(|rows| mean(rows.iter().map(confidence)));
        let want = accuracy(&before) - (was - is);
        assert!((doc.accuracy.unwrap() - want).abs() < 1e-12, "{doc:?} {want}");
        assert!((doc.estimated_minus_realised.unwrap() - (want - accuracy(&now))).abs() < 1e-12);
        assert!((doc.reference_confidence.unwrap() - was).abs() < 1e-12);
    }

    fn judged(profile: &Profile) -> Estimated {
        let mut estimated = estimated(profile).unwrap();
        estimated.judge(&DriftSettings::default().of_model("m", ""));
        estimated
    }

    #[test]
    fn labels_that_mean_something_else_are_concept_drift_and_others_are_not() {
        let frozen = reference().frozen(&spec(0.5));
        let as_taught = overconfident(1500, 77);
        let turned: Vec<Row> = as_taught.iter().map(|(p, label)| (*p, 1 - label)).collect();
        for (rows, verdict) in [(&as_taught, Verdict::Ok), (&turned, Verdict::Alert)] {
            let profile = feed(empty().counting_in(Some(&frozen)), rows);
            for Estimated { concept_drift, accuracy_drift, .. } in [judged(&profile), judged(&profile.remainder())] {
                assert_eq!((concept_drift.verdict, accuracy_drift.verdict), (Some(verdict), Some(verdict)));
                assert_eq!((concept_drift.n, concept_drift.reference_n), (1500, Some(4000)));
            }
        }
        let profile = feed(empty().counting_in(Some(&frozen)), &turned);
        let Estimated { concept_drift: concept, accuracy_drift, estimated_minus_realised, .. } = judged(&profile);
        assert_eq!(concept.value, estimated_minus_realised);
        let chances = || {
            turned.iter().map(|(p, _)| {
                profile
                    .estimates
                    .reading
                    .learned()
                    .unwrap()
                    .calibration
                    .as_ref()
                    .unwrap()
                    .at(usize::from(*p > 0.5), confidence(&(*p, 0)))
            })
        };
        let of_rows = chances().map(|c| c * (1.0 - c)).sum::<f64>() / 1500.0 / 1500.0;
        let taught = accuracy(&overconfident(4000, 0));
        let error = (of_rows + taught * (1.0 - taught) / 4000.0).sqrt();
        assert!((concept.error.unwrap() / error - 1.0).abs() < 1e-9, "{concept:?} {error}");
        assert!((concept.z.unwrap() - (concept.value.unwrap() - 0.5 / 1500.0) / error).abs() < 1e-6);
        assert!((accuracy_drift.value.unwrap() - (accuracy(&turned) - taught)).abs() < 1e-12);
        assert!(accuracy_drift.z.unwrap() < -5.0);
    }

    #[test]
    fn a_model_that_is_more_often_right_than_it_promises_and_was_is_no_drift() {
        let better: Vec<Row> = overconfident(1500, 77).iter().map(|(p, _)| (*p, i32::from(*p > 0.5))).collect();
        let got = judged(&feed(empty().counting_in(Some(&reference().frozen(&spec(0.5)))), &better));
        assert!(got.accuracy_drift.z.unwrap() > 5.0);
        assert_eq!(got.accuracy_drift.verdict, Some(Verdict::Ok));
        assert!(got.concept_drift.z.unwrap() < -5.0);
        assert_eq!(got.concept_drift.verdict, Some(Verdict::Ok));
    }

    #[test]
    fn what_no_labelled_reference_has_taught_has_no_verdict_and_a_reason() {
        let rows = overconfident(1500, 77);
        let unlabelled: Vec<Row> = rows.iter().map(|(p, _)| (*p, -1)).collect();
        let no_labels = Reference::of(&feed(empty(), &unlabelled)).frozen(&spec(0.5));
        let taught = reference().frozen(&spec(0.5));
        let against = |frozen: Option<&Frozen>, rows: &[Row]| judged(&feed(empty().counting_in(frozen), rows));
        for (got, reason) in [
            (against(None, &rows), "no_reference"),
            (against(Some(&no_labels), &rows), "no_labels_in_reference"),
            (against(Some(&taught), &unlabelled), "no_labels"),
            (against(Some(&taught), &rows[..29]), "too_few"),
            (against(Some(&reference().frozen(&spec(0.7))), &rows), "not_comparable"),
        ] {
            for drift in [got.concept_drift, got.accuracy_drift] {
                assert_eq!((drift.verdict, drift.reason), (None, Some(reason)));
                assert_eq!(drift.value.is_some(), reason == "too_few");
            }
        }
    }

    #[test]
    fn a_period_reported_once_more_says_what_it_said() {
        let profile = feed(empty().counting_in(Some(&reference().frozen(&spec(0.5)))), &overconfident(1500, 77));
        let json = |profile: &Profile| serde_json::to_value(estimated(profile)).unwrap();
        assert_eq!(json(&profile.remainder()), json(&profile));
    }

    #[test]
    fn a_reference_with_labels_corrects_an_overconfident_model() {
        let now = overconfident(1500, 77);
        let (raw, calibrated) =
            (estimated(&feed(empty(), &now)).unwrap(), against(&reference().frozen(&spec(0.5)), &now));
        assert!(calibrated.calibrated && !raw.calibrated);
        let off = |estimated: &Estimated| (estimated.accuracy.unwrap() - accuracy(&now)).abs();
        assert!(off(&raw) > 0.1 && off(&calibrated) < 3.0 * calibrated.accuracy_error.unwrap(), "{calibrated:?}");
        let minus = calibrated.estimated_minus_realised.unwrap();
        assert!((minus - (calibrated.accuracy.unwrap() - accuracy(&now))).abs() < 1e-12);
    }

    #[test]
    fn what_no_reference_can_tell_says_why() {
        let why = |estimated: &Estimated| {
            let [atc, doc] =
                [estimated.average_thresholded_confidence.reason, estimated.difference_of_confidence.reason];
            assert_eq!(atc, doc);
            assert_eq!(atc.is_some(), estimated.average_thresholded_confidence.accuracy.is_none());
            assert_eq!(doc.is_some(), estimated.difference_of_confidence.accuracy.is_none());
            atc
        };
        let rows = overconfident(100, 5);
        let unlabelled: Vec<Row> = rows.iter().map(|(p, _)| (*p, -1)).collect();
        let no_labels = Reference::of(&feed(empty(), &unlabelled)).frozen(&spec(0.5));
        assert_eq!(why(&estimated(&feed(empty(), &rows)).unwrap()), Some("no_reference"));
        assert_eq!(why(&against(&no_labels, &rows)), Some("no_labels_in_reference"));
        assert_eq!(why(&against(&reference().frozen(&spec(0.7)), &rows)), Some("not_comparable"));
        assert_eq!(why(&against(&reference().frozen(&spec(0.5)), &[])), Some("empty"));
        assert_eq!(why(&against(&reference().frozen(&spec(0.5)), &rows)), None);
    }

    #[test]
    fn confidences_that_are_no_probabilities_are_compared_with_nothing() {
        let sound = overconfident(400, 5);
        let frozen = reference().frozen(&spec(0.5));
        // A logit, a confidence above 1 by an ulp, and one so large that the mean overflows.
        for p in [-3.0, 1.0 + f64::EPSILON, -1e308] {
            let one: Vec<Row> = sound.iter().copied().chain([(p, 1), (p, 1)]).collect();
            let logits = Reference::of(&feed(empty(), &one)).frozen(&spec(0.5));
            let told = [against(&frozen, &one), against(&logits, &sound), against(&logits, &one)];
            for Estimated { average_thresholded_confidence: atc, difference_of_confidence: doc, .. } in told {
                assert_eq!((atc.reason, doc.reason), (Some("not_comparable"), Some("not_comparable")), "{p}");
                assert_eq!((atc.accuracy, atc.estimated_minus_realised), (None, None));
                assert_eq!((doc.accuracy, doc.estimated_minus_realised, doc.confidence), (None, None, None));
            }
            let profile = feed(empty().counting_in(Some(&frozen)), &one);
            let reason = |profile: &Profile| estimated(profile).unwrap().difference_of_confidence.reason;
            assert_eq!(reason(&profile.remainder()), reason(&profile));
        }
        let sums_to_less = feed_rows(&frozen, [-0.5, 0.75]);
        assert_eq!(estimated(&sums_to_less).unwrap().difference_of_confidence.reason, None, "its confidence is one");
    }

    /// One row of any two values.
    fn feed_rows(frozen: &Frozen, row: [f64; 2]) -> Profile {
        let mut profile = empty().counting_in(Some(frozen));
        let probabilities = Some(Columns::F64(ArrayView2::from_shape((1, 2), &row).unwrap()));
        profile.update(&Rows { count: 1, probabilities, ..Rows::default() });
        profile
    }

    /// As a checkpoint keeps it.
    fn revived(profile: &Profile, frozen: Option<&Frozen>) -> Profile {
        let bytes = postcard::to_stdvec(profile).unwrap();
        let mut revived = postcard::from_bytes::<Profile>(&bytes).unwrap().revived(spec(0.5)).unwrap();
        revived.revive_against(frozen);
        revived
    }

    #[test]
    fn a_period_goes_on_as_it_began_or_says_that_it_cannot() {
        let (rows, mine) = (overconfident(400, 9), reference().frozen(&spec(0.5)));
        let (first, second) = rows.split_at(150);
        let half = feed(empty().counting_in(Some(&mine)), first);
        let json = |profile: &Profile| serde_json::to_value(estimated(profile)).unwrap();
        let whole = json(&feed(empty().counting_in(Some(&mine)), &rows));
        assert_eq!(json(&feed(revived(&half, Some(&mine)), second)), whole);
        let another = Reference::of(&feed(empty(), &overconfident(3000, 4))).frozen(&spec(0.5));
        for frozen in [None, Some(&another)] {
            let gone = feed(revived(&half, frozen), second);
            for profile in [&gone, &revived(&gone, Some(&mine))] {
                let got = estimated(profile).unwrap();
                assert_eq!(
                    (got.n, got.reason, got.accuracy, got.classes.len()),
                    (400, Some("reference_gone"), None, 0)
                );
                assert_eq!((got.estimated_minus_realised, got.accuracy_error), (None, None));
                assert_eq!(got.average_thresholded_confidence.reason, Some("reference_gone"));
                assert_eq!(got.difference_of_confidence.reason, Some("reference_gone"));
            }
        }
        let without = feed(revived(&feed(empty(), first), Some(&mine)), second);
        assert_eq!(json(&without), json(&feed(empty(), &rows)), "one that began without a reference ends without");
    }
}
