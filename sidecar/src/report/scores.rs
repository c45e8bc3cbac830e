//! Probabilities and outputs against what was right.

use crate::profile::Profile;
use crate::stats::{
    Binned, CalibrationError, Errors, MOST_RANKED, Ranked, RankedAverages, Reliability, ReliabilityBin,
};
use serde::Serialize;

/// As is usual for ECE.
const UNIFORM_BINS: usize = 15;
const EQUAL_MASS_BINS: usize = 10;

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Scores {
    pub n: u64,
    pub log_loss: Option<f64>,
    pub brier: Option<f64>,
    pub calibration: Calibration,
    pub classes: Vec<ClassScores>,
    #[serde(rename = "macro")]
    pub macro_average: RankedMean,
    pub weighted: RankedMean,
    pub left_out: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ClassScores {
    pub name: String,
    pub n: u64,
    pub auroc: Option<f64>,
    pub auroc_error: Option<f64>,
    pub average_precision: Option<f64>,
    pub average_precision_error: Option<f64>,
    pub mean_probability: Option<f64>,
    pub bias: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// Over the classes that have rows, and rows of the rest too.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct RankedMean {
    pub n_classes: u64,
    pub auroc: Option<f64>,
    pub auroc_error: Option<f64>,
    pub average_precision: Option<f64>,
    pub average_precision_error: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Calibration {
    pub n: u64,
    pub ece: Option<f64>,
    pub rmsce: Option<f64>,
    pub mce: Option<f64>,
    pub equal_mass_ece: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    pub bins: Vec<CalibrationBin>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct CalibrationBin {
    pub n: u64,
    pub confidence: Option<f64>,
    pub accuracy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct OutputErrors {
    pub name: String,
    pub n: u64,
    pub missing: u64,
    pub invalid: u64,
    pub mean_error: Option<f64>,
    pub mean_absolute_error: Option<f64>,
    pub root_mean_square_error: Option<f64>,
    pub r2: Option<f64>,
    pub mean_absolute_percentage_error: Option<f64>,
    pub zero_targets: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

pub(super) fn is_classification(profile: &Profile) -> bool {
    !profile.spec.regression && !profile.spec.classes.is_empty()
}

pub(super) fn scores(profile: &Profile) -> Option<Scores> {
    if !is_classification(profile) {
        return None;
    }
    let (quality, spec) = (&profile.quality, &profile.spec);
    let (n, rows) = (quality.outcomes.single().rows, quality.outcomes.rows());
    let known = |x: Option<f64>| x.filter(|x| n > 0 && x.is_finite());
    let unreliable = Reliability::default();
    let reliability = if n > 0 { &quality.reliability } else { &unreliable };
    let all_ranked: Vec<Ranked> = quality.ranking.classes().collect();
    let mut ranked = all_ranked.iter().copied();
    let [macro_average, weighted] = ranked_means(profile, &all_ranked);
    let left_out = spec.classes.iter().zip(&all_ranked).filter(|(_, ranked)| ranked.auroc.is_none());
    let supports = quality.outcomes.classes().map(|class| class.support);
    let columns = spec.classes.iter().zip(supports).zip(quality.scoring.mean_probabilities());
    let class =
        |((name, support), mean): ((&String, u64), Option<f64>)| class_scores(name, rows, support, mean, ranked.next());
    Some(Scores {
        n,
        log_loss: known(quality.scoring.log_loss()),
        brier: known(quality.scoring.brier()),
        calibration: calibration(reliability, unlabelled(profile)),
        classes: columns.map(class).collect(),
        macro_average,
        weighted,
        left_out: left_out.map(|(name, _)| name.clone()).collect(),
        reason: unlabelled(profile),
    })
}

/// Why no rows of a single label stand for the others.
pub(super) fn unlabelled(profile: &Profile) -> Option<&'static str> {
    let outcomes = &profile.quality.outcomes;
    match outcomes.rows() {
        0 => Some("no_labels"),
        _ if outcomes.single().rows == 0 => Some("multi_label"),
        _ => None,
    }
}

/// Macro and weighted. Of two classes of which each row has one, both are of class 1.
fn ranked_means(profile: &Profile, ranked: &[Ranked]) -> [RankedMean; 2] {
    let outcomes = &profile.quality.outcomes;
    let is_binary = ranked.len() == 2 && outcomes.single_rows() == outcomes.rows();
    let meant = if is_binary { &ranked[1..] } else { ranked };
    let Some(averages) = RankedAverages::of(meant) else {
        let too_many = profile.spec.classes.len() > MOST_RANKED;
        let reason = Some(why_not_ranked(outcomes.rows(), too_many));
        return [RankedMean { reason, ..RankedMean::default() }; 2];
    };
    let mean = |auroc: Binned, precision: Binned| RankedMean {
        n_classes: meant.iter().filter(|ranked| ranked.auroc.is_some()).count() as u64,
        auroc: Some(auroc.value),
        auroc_error: Some(auroc.error),
        average_precision: Some(precision.value),
        average_precision_error: Some(precision.error),
        reason: None,
    };
    [
        mean(averages.auroc, averages.average_precision),
        mean(averages.weighted_auroc, averages.weighted_average_precision),
    ]
}

/// Where there is no AUROC.
fn why_not_ranked(rows: u64, too_many_classes: bool) -> &'static str {
    match (rows, too_many_classes) {
        (0, _) => "no_labels",
        (_, true) => "too_many_classes",
        (_, false) => "single_class",
    }
}

fn class_scores(name: &str, n: u64, support: u64, mean: Option<f64>, ranked: Option<Ranked>) -> ClassScores {
    let auroc = ranked.and_then(|ranked| ranked.auroc);
    let precision = ranked.and_then(|ranked| ranked.average_precision);
    let value = |binned: Option<Binned>| binned.map(|binned| binned.value);
    let error = |binned: Option<Binned>| binned.map(|binned| binned.error);
    ClassScores {
        name: name.to_owned(),
        n,
        auroc: value(auroc),
        auroc_error: error(auroc),
        average_precision: value(precision),
        average_precision_error: error(precision),
        mean_probability: mean,
        bias: mean.map(|mean| mean - support as f64 / n as f64),
        reason: auroc.is_none().then(|| why_not_ranked(n, ranked.is_none())),
    }
}

fn calibration(reliability: &Reliability, reason: Option<&'static str>) -> Calibration {
    let bins = reliability.uniform(UNIFORM_BINS);
    let errors = CalibrationError::of(&bins);
    let bin = |bin: &ReliabilityBin| {
        let (confidence, accuracy) = bin.means().unzip();
        CalibrationBin { n: bin.rows, confidence, accuracy, reason: (bin.rows == 0).then_some("empty") }
    };
    Calibration {
        n: reliability.total().rows,
        ece: errors.map(|errors| errors.expected),
        rmsce: errors.map(|errors| errors.root_mean_square),
        mce: errors.map(|errors| errors.maximum),
        equal_mass_ece: CalibrationError::of(&reliability.equal_mass(EQUAL_MASS_BINS)).map(|errors| errors.expected),
        bins: bins.iter().map(bin).collect(),
        reason,
    }
}

pub(super) fn errors(profile: &Profile) -> Vec<OutputErrors> {
    profile.spec.classes.iter().zip(&profile.quality.errors).map(|(name, errors)| output_errors(name, errors)).collect()
}

fn output_errors(name: &str, errors: &Errors) -> OutputErrors {
    let finite = |x: Option<f64>| x.filter(|x| x.is_finite());
    let squares = finite(errors.root_mean_square_error());
    OutputErrors {
        name: name.to_owned(),
        n: errors.n,
        missing: errors.missing,
        invalid: errors.invalid,
        mean_error: finite(errors.mean_error()),
        mean_absolute_error: finite(errors.mean_absolute_error()),
        root_mean_square_error: squares,
        r2: finite(errors.r2()),
        mean_absolute_percentage_error: finite(errors.mean_absolute_percentage_error()),
        zero_targets: errors.zero_targets,
        reason: why_undefined(errors),
    }
}

/// Of what is `null` among an output's errors.
fn why_undefined(errors: &Errors) -> Option<&'static str> {
    let known = [errors.root_mean_square_error(), errors.r2(), errors.mean_absolute_percentage_error()];
    match known {
        _ if errors.n == 0 && errors.invalid > 0 => Some("invalid"),
        _ if errors.n == 0 => Some("no_labels"),
        _ if known.iter().flatten().any(|x| !x.is_finite()) => Some("overflow"),
        [_, None, _] => Some("constant_target"),
        [.., None] => Some("zero_targets"),
        _ => None,
    }
}

/// What a class takes, besides its names.
pub(super) const CLASS_BYTES: u64 = (size_of::<ClassScores>() + size_of::<String>() + size_of::<OutputErrors>()) as u64;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(f64, f64)]) -> OutputErrors {
        let mut errors = Errors::default();
        pairs.iter().for_each(|(prediction, target)| errors.add(*prediction, *target));
        output_errors("y", &errors)
    }

    #[test]
    fn what_is_undefined_of_a_regression_says_why() {
        let reason = |pairs: &[(f64, f64)]| of(pairs).reason;
        assert_eq!(reason(&[]), Some("no_labels"));
        assert_eq!(reason(&[(f64::NAN, 1.0)]), Some("invalid"));
        assert_eq!(reason(&[(1.0, f64::NAN)]), Some("no_labels"));
        assert_eq!(reason(&[(1.0, 2.0), (2.0, 2.0)]), Some("constant_target"));
        assert_eq!(reason(&[(1.0, 1e308), (2.0, -1e308)]), Some("overflow"));
        assert_eq!(of(&[(1e308, 1e308), (-1e308, -1e308)]).r2, Some(1.0), "whatever the spread");
        assert_eq!(reason(&[(1.0, 5e-324), (2.0, 1.0)]), Some("overflow"), "the relative error alone");
        assert_eq!(reason(&[(1.0, 2.0), (2.0, 1.0)]), None);
    }

    #[test]
    fn every_null_of_an_output_has_a_reason() {
        for pairs in
            [&[][..], &[(1.0, 0.0), (2.0, 0.0)], &[(1e308, 1e308), (-1e308, -1e308)], &[(1.0, 5e-324), (2.0, 1.0)]]
        {
            let errors = of(pairs);
            let nulls =
                [errors.mean_error, errors.root_mean_square_error, errors.r2, errors.mean_absolute_percentage_error];
            assert_eq!(nulls.iter().any(Option::is_none), errors.reason.is_some(), "{errors:?}");
        }
    }
}
