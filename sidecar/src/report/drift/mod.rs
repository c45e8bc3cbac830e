//! How far a period is from its reference: every column, by every measure, each with what chance alone would give.

mod columns;
mod embeddings;
mod measure;
#[cfg(test)]
mod roundings;
mod unmatched;

pub(super) use columns::{Distances, are_entropies_comparable, class_mix, of_measured, slack};
pub use embeddings::EmbeddingDrift;
pub use measure::{DriftSettings, Evidence, LevelError, Levels, Measure, Verdict};
pub use unmatched::{Unmatched, warn_of_unmatched};

use super::OrderedSample;
use crate::stats::benjamini_hochberg;
use serde::Serialize;

/// How empty bins are dealt with in PSI.
const ZERO_POLICY: &str = "half a count is added to every bin on both sides";

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Drift {
    pub reference: String,
    pub reference_rows: u64,
    pub zero_policy: &'static str,
    pub unmatched: Unmatched,
    pub monitored: u64,
    pub drifted: u64,
    pub drifted_share: Measure,
    pub verdict: Option<Verdict>,
    pub columns: Vec<ColumnDrift>,
    pub embeddings: Vec<EmbeddingDrift>,
}

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct ColumnDrift {
    pub of: ColumnKind,
    pub name: String,
    pub n: u64,
    pub reference_n: u64,
    pub rows: u64,
    pub reference_rows: u64,
    pub bins: u64,
    pub bins_hash: String,
    pub out_of_range: Option<u64>,
    pub psi: Measure,
    pub jensen_shannon: Measure,
    pub hellinger: Measure,
    pub l_infinity: Measure,
    pub chi2: Measure,
    pub ks: Measure,
    pub w1: Measure,
    pub missing: Measure,
    /// Of a reference that was not counted: no measure may be less than it is said to be, and each may be more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
    pub verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named by themselves")]
pub enum ColumnKind {
    PredictedClass,
    ActualClass,
    Confidence,
    Margin,
    Entropy,
    Probability,
    Output,
    Feature,
}

impl ColumnKind {
    /// As reports spell it.
    pub fn name(self) -> &'static str {
        match self {
            ColumnKind::PredictedClass => "predicted_class",
            ColumnKind::ActualClass => "actual_class",
            ColumnKind::Confidence => "confidence",
            ColumnKind::Margin => "margin",
            ColumnKind::Entropy => "entropy",
            ColumnKind::Probability => "probability",
            ColumnKind::Output => "output",
            ColumnKind::Feature => "feature",
        }
    }
}

/// Of a period whose rows were counted in a reference's bins.
pub(super) fn drift(sample: &OrderedSample<'_>, settings: &DriftSettings) -> Option<Drift> {
    let reference = sample.reference?;
    let mut columns = columns::columns(sample, reference);
    let spec = &sample.profile.spec;
    let settings = settings.of_model(&spec.model, &spec.version);
    fill_q(&mut columns, |column| &mut column.ks);
    fill_q(&mut columns, |column| &mut column.chi2);
    columns.iter_mut().for_each(|column| {
        let settings = settings.of(column.of.name(), &column.name);
        judge(column, settings);
    });
    let features = || columns.iter().filter(|column| column.of == ColumnKind::Feature);
    let monitored = features().filter(|column| column.verdict.is_some()).count() as u64;
    let drifted = features().filter(|column| column.verdict > Some(Verdict::Ok)).count() as u64;
    let mut drifted_share = match monitored {
        0 => Measure::undefined("too_few"),
        _ => Measure::of(drifted as f64 / monitored as f64),
    };
    drifted_share.judge(&settings.of("features", "").drifted_share, |_| true);
    Some(Drift {
        reference: reference.id(),
        reference_rows: reference.rows,
        zero_policy: ZERO_POLICY,
        unmatched: Unmatched::of(&sample.profile.spec, reference),
        monitored,
        drifted,
        verdict: columns.iter().filter_map(|column| column.verdict).chain(drifted_share.verdict).max(),
        drifted_share,
        embeddings: embeddings::embeddings(sample.profile, reference, &settings),
        columns,
    })
}

impl ColumnDrift {
    /// An upper bound of its memory.
    pub(super) fn bytes(&self) -> u64 {
        super::DRIFT_BYTES + self.name.len() as u64
    }

    /// The measure with the worst verdict, and its name; of several the first.
    pub fn worst(&self) -> (&'static str, Evidence) {
        let values = |measure: Measure| measure.counted(self.n, self.reference_n);
        let measures = [
            ("psi", values(self.psi)),
            ("ks", values(self.ks)),
            ("w1", values(self.w1)),
            ("missing", self.missing.counted(self.rows, self.reference_rows)),
            ("jensen_shannon", values(self.jensen_shannon)),
            ("hellinger", values(self.hellinger)),
            ("l_infinity", values(self.l_infinity)),
        ];
        measures.into_iter().reduce(Evidence::worse).expect("seven measures")
    }
}

/// Among all columns that have a p-value.
fn fill_q(columns: &mut [ColumnDrift], measure: impl Fn(&mut ColumnDrift) -> &mut Measure) {
    let mut tested: Vec<&mut Measure> = columns.iter_mut().map(measure).filter(|measure| measure.p.is_some()).collect();
    let p: Vec<f64> = tested.iter().filter_map(|measure| measure.p).collect();
    tested.iter_mut().zip(benjamini_hochberg(&p)).for_each(|(measure, q)| measure.q = Some(q));
}

/// χ² has a verdict, but no effect size: with enough rows it finds any difference, so the column's verdict is without it. What is missing
/// is judged by its own rows: a column that has gone altogether has no values for the other measures.
fn judge(column: &mut ColumnDrift, settings: &DriftSettings) {
    let above_chance = |measure: &Measure| measure.z.is_some_and(|z| z >= settings.z);
    if column.rows.min(column.reference_rows) >= settings.min_rows {
        column.missing.judge(&settings.missing, |missing| missing.z.is_some_and(|z| z.abs() >= settings.z));
    }
    if column.n.min(column.reference_n) >= settings.min_rows {
        let by_q = |measure: &Measure| measure.q.is_some_and(|q| q < settings.fdr);
        column.reason = None;
        column.psi.judge(&settings.psi, above_chance);
        column.jensen_shannon.judge(&settings.jensen_shannon, above_chance);
        column.hellinger.judge(&settings.hellinger, above_chance);
        column.l_infinity.judge(&settings.l_infinity, above_chance);
        column.w1.judge(&settings.w1, above_chance);
        column.ks.judge(&settings.ks, by_q);
        column.chi2.judge(&Levels { warn: Some(0.0), alert: None }, by_q);
    } else {
        column.reason = column.reason.filter(|reason| !reason.is_empty()).or(Some("too_few"));
    }
    column.verdict = column.worst().1.measure.verdict;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Feature, Profile, Rows, Spec};
    use crate::reference::Reference;
    use crate::stats::Columns;
    use ndarray::ArrayView2;
    use std::sync::Arc;

    const FEATURES: [(&str, bool); 4] = [("level", false), ("plan", true), ("constant", false), ("gaps", false)];

    fn spec() -> Arc<Spec> {
        let features = FEATURES.map(|(name, categorical)| Feature { name: name.into(), categorical }).to_vec();
        let classes = ["no", "yes"].map(String::from).to_vec();
        Arc::new(Spec { model: "m".into(), threshold: 0.5, classes, features, ..Spec::default() })
    }

    /// Equidistributed in [0, 1), another sequence for each `step`.
    fn noise(i: usize, step: f64) -> f64 {
        (i as f64 * step).fract()
    }

    /// As in the reference.
    fn usual(i: usize) -> [f64; 4] {
        let gap = if i.is_multiple_of(10) { f64::NAN } else { noise(i, 0.569_840_29) };
        [noise(i, 0.754_877_666), (i % 4) as f64, 5.0, gap]
    }

    fn fed(mut profile: Profile, rows: usize, row: impl Fn(usize) -> [f64; 4]) -> Profile {
        for i in 0..rows {
            let (p, features) = (noise(i, 0.618_033_98), row(i));
            let proba = [1.0 - p, p];
            profile.update(&Rows {
                count: 1,
                probabilities: Some(Columns::F64(ArrayView2::from_shape((1, 2), &proba).unwrap())),
                features: Some(Columns::F64(ArrayView2::from_shape((1, 4), &features).unwrap())),
                labels: None,
                ..Rows::default()
            });
        }
        profile
    }

    fn against_usual(rows: usize, row: impl Fn(usize) -> [f64; 4]) -> Drift {
        let reference = Reference::of(&fed(Profile::new(spec(), 10_000, 1), 5_000, usual));
        let frozen = reference.frozen(&spec());
        let profile = fed(Profile::new(spec(), 10_000, 2).counting_in(Some(&frozen)), rows, row);
        drifted(&profile, &reference)
    }

    fn drifted(profile: &Profile, reference: &Reference) -> Drift {
        drift(&OrderedSample::of(profile, Some(reference)), &DriftSettings::default()).unwrap()
    }

    fn feature<'a>(drift: &'a Drift, name: &str) -> &'a ColumnDrift {
        drift.columns.iter().find(|column| column.of == ColumnKind::Feature && column.name == name).unwrap()
    }

    #[test]
    fn what_is_as_usual_does_not_drift() {
        let drift = against_usual(1000, usual);
        assert_eq!((drift.verdict, drift.monitored, drift.drifted), (Some(Verdict::Ok), 4, 0), "{drift:#?}");
        assert_eq!(feature(&drift, "level").out_of_range, Some(0));
        assert_eq!(drift.columns.len(), 5 + 2 + 4);
        let actual = drift.columns.iter().find(|column| column.of == ColumnKind::ActualClass).unwrap();
        assert_eq!((actual.verdict, actual.reason), (None, Some("no_reference")), "there were no labels");
    }

    #[test]
    fn the_rows_of_a_reference_lie_within_its_bins_of_entropy_and_surer_ones_are_found() {
        let spec =
            Arc::new(Spec { threshold: 0.5, classes: ["a", "b", "c"].map(String::from).to_vec(), ..Spec::default() });
        let rows = |sharper: f32| -> Vec<f32> {
            let weights = (0..3000).map(|i| (noise(i, 0.754_877_666) as f32 + 0.01).powf(sharper)).collect::<Vec<_>>();
            weights.chunks(3).flat_map(|w| [0, 1, 2].map(|k| w[k] / w.iter().sum::<f32>())).collect()
        };
        let fed = |mut profile: Profile, values: &[f32]| {
            let probabilities = Some(Columns::F32(ArrayView2::from_shape((1000, 3), values).unwrap()));
            profile.update(&Rows { count: 1000, probabilities, ..Rows::default() });
            profile
        };
        let reference = Reference::of(&fed(Profile::new(spec.clone(), 1000, 1), &rows(1.0)));
        let entropy = |values: &[f32]| {
            let empty = Profile::new(spec.clone(), 1000, 2).counting_in(Some(&reference.frozen(&spec)));
            let drift = drifted(&fed(empty, values), &reference);
            drift.columns.into_iter().find(|column| column.of == ColumnKind::Entropy).unwrap()
        };
        let same = entropy(&rows(1.0));
        assert_eq!(
            (same.n, same.out_of_range, same.ks.value, same.verdict),
            (1000, Some(0), Some(0.0), Some(Verdict::Ok))
        );
        assert_eq!(same.psi.value, Some(0.0));
        assert_eq!(entropy(&rows(6.0)).verdict, Some(Verdict::Alert));
    }

    #[test]
    fn a_shifted_feature_is_found_by_every_measure_and_no_other_is() {
        let drift = against_usual(1000, |i| {
            let [level, others @ ..] = usual(i);
            [[level + 0.5].as_slice(), &others].concat().try_into().unwrap()
        });
        let level = feature(&drift, "level");
        assert_eq!((level.verdict, drift.drifted), (Some(Verdict::Alert), 1), "{level:#?}");
        for measure in
            [level.psi, level.jensen_shannon, level.hellinger, level.l_infinity, level.w1, level.ks, level.chi2]
        {
            assert!(measure.verdict > Some(Verdict::Ok), "{measure:?}");
        }
        let deviation = (1.0f64 / 12.0).sqrt();
        assert!(
            (level.w1.value.unwrap() - 0.5 / deviation).abs() < 0.02 && (level.ks.value.unwrap() - 0.5).abs() < 0.01
        );
        assert!(level.out_of_range.unwrap().abs_diff(500) < 5, "half of it lies above the reference's largest");
    }

    #[test]
    fn a_new_category_a_changed_constant_and_more_gaps_are_found() {
        let drift = against_usual(1000, |i| {
            let [level, plan, _, gap] = usual(i);
            [level, if i % 3 == 0 { 99.0 } else { plan }, 6.0, if i % 5 == 0 { f64::NAN } else { gap }]
        });
        for name in ["plan", "constant", "gaps"] {
            assert_eq!(feature(&drift, name).verdict, Some(Verdict::Alert), "{name}: {:#?}", feature(&drift, name));
        }
        assert_eq!(feature(&drift, "constant").w1.reason, Some("constant_reference"));
        let (_, plan) = feature(&drift, "plan").worst();
        assert_eq!((plan.n, plan.n_other), (Some(1000), Some(5000)));
        assert!((feature(&drift, "gaps").missing.value.unwrap() - 0.1).abs() < 0.02);
        assert_eq!((drift.drifted, drift.drifted_share.verdict), (3, Some(Verdict::Alert)));
    }

    #[test]
    fn a_column_that_goes_missing_or_comes_back_is_judged_by_its_rows() {
        // 1,000 rows of 5,000 before: altogether, all but 20 values, categorical.
        let drift = against_usual(1000, |i| {
            let [level, _, constant, gap] = usual(i);
            [if i < 20 { level } else { f64::NAN }, f64::NAN, constant, if i < 900 { gap } else { f64::NAN }]
        });
        let [level, plan, gaps] = ["level", "plan", "gaps"].map(|name| feature(&drift, name));
        for column in [level, plan, gaps] {
            let (measure, evidence) = column.worst();
            assert_eq!((column.verdict, measure), (Some(Verdict::Alert), "missing"), "{column:#?}");
            assert_eq!((column.rows, column.reference_rows), (1000, 5000));
            assert_eq!((evidence.n, evidence.n_other), (Some(1000), Some(5000)), "of rows, and not of values");
        }
        assert_eq!((level.missing.value, level.reason, level.psi.verdict), (Some(0.98), Some("too_few"), None));
        assert_eq!((plan.missing.value, plan.reason, plan.n), (Some(1.0), Some("empty"), 0));
        assert_eq!((drift.monitored, drift.drifted, drift.drifted_share.value), (4, 3, Some(0.75)));
        let nothing = |i| [usual(i)[0], f64::NAN, usual(i)[2], f64::NAN];
        let reference = Reference::of(&fed(Profile::new(spec(), 10_000, 1), 5_000, nothing));
        let frozen = reference.frozen(&spec());
        let drift = drifted(&fed(Profile::new(spec(), 10_000, 2).counting_in(Some(&frozen)), 100, usual), &reference);
        for (name, n, missing) in [("plan", 100, -1.0), ("gaps", 90, -0.9)] {
            let column = feature(&drift, name);
            assert_eq!((column.verdict, column.missing.value, column.n), (Some(Verdict::Alert), Some(missing), n));
            assert!(column.missing.z < Some(-5.0) && column.missing.p < Some(1e-9), "{column:#?}");
        }
        let few = drifted(&fed(Profile::new(spec(), 9, 2).counting_in(Some(&frozen)), 29, usual), &reference);
        assert_eq!(feature(&few, "plan").verdict, None);
    }

    #[test]
    fn rows_whose_probabilities_are_all_missing_are_drift() {
        let reference = Reference::of(&fed(Profile::new(spec(), 10_000, 1), 5_000, usual));
        let mut profile = Profile::new(spec(), 10_000, 2).counting_in(Some(&reference.frozen(&spec())));
        let missing = Columns::F64(ArrayView2::from_shape((300, 2), &[f64::NAN; 600]).unwrap());
        profile.update(&Rows { count: 300, probabilities: Some(missing), ..Rows::default() });
        let drift = drifted(&profile, &reference);
        let probabilities = || drift.columns.iter().filter(|column| column.of == ColumnKind::Probability);
        assert_eq!(probabilities().count(), 2);
        assert!(probabilities().all(|column| column.missing.verdict == Some(Verdict::Alert)), "{drift:#?}");
        assert_eq!(drift.verdict, Some(Verdict::Alert));
    }

    #[test]
    fn codes_are_counted_over_every_row_however_many_others_come_first() {
        // 1,000 codes as likely as each other, far more than a period counts exactly, in another order than before.
        let of = |rows: usize, step: f64| move |i: usize| [0.5, (noise(i % rows, step) * 1000.0).floor(), 5.0, 0.5];
        let reference = Reference::of(&fed(Profile::new(spec(), 100, 1), 20_000, of(20_000, 0.754_877_666)));
        let profile = Profile::new(spec(), 100, 2).counting_in(Some(&reference.frozen(&spec())));
        let drift = drifted(&fed(profile, 5000, of(5000, 0.569_840_29)), &reference);
        let plan = feature(&drift, "plan");
        assert_eq!((plan.n, plan.bins, plan.verdict), (5000, 257, Some(Verdict::Ok)), "{plan:#?}");
        assert!(plan.psi.value < Some(0.01) && plan.l_infinity.value < Some(0.01), "{plan:#?}");
    }

    #[test]
    fn much_less_than_chance_gives_is_no_drift() {
        // Four values in exact turn are nearer to each other than any sample; with z = 0.5 either side would do.
        let reference = Reference::of(&fed(Profile::new(spec(), 100, 1), 400, usual));
        let profile = fed(Profile::new(spec(), 100, 2).counting_in(Some(&reference.frozen(&spec()))), 400, usual);
        let any = Levels { warn: Some(-1.0), alert: None };
        let settings =
            DriftSettings { z: 0.5, psi: any, jensen_shannon: any, hellinger: any, ..DriftSettings::default() };
        let drift = drift(&OrderedSample::of(&profile, Some(&reference)), &settings).unwrap();
        let plan = feature(&drift, "plan");
        assert!(plan.psi.z < Some(-0.5) && plan.hellinger.z < Some(-0.5), "{plan:#?}");
        assert_eq!(plan.verdict, Some(Verdict::Ok));
    }

    #[test]
    fn a_measure_that_is_switched_off_has_no_verdict_and_is_never_the_worst() {
        let reference = Reference::of(&fed(Profile::new(spec(), 100, 1), 400, usual));
        let profile = fed(Profile::new(spec(), 100, 2).counting_in(Some(&reference.frozen(&spec()))), 400, usual);
        let off = Levels { warn: None, alert: None };
        let settings = DriftSettings { psi: off, ks: off, w1: off, missing: off, ..DriftSettings::default() };
        let drift = drift(&OrderedSample::of(&profile, Some(&reference)), &settings).unwrap();
        let level = feature(&drift, "level");
        assert_eq!((level.psi.verdict, level.worst().0, level.verdict), (None, "jensen_shannon", Some(Verdict::Ok)));
    }

    #[test]
    fn entropies_of_models_of_more_or_fewer_classes_are_not_compared() {
        let reference = Reference::of(&fed(Profile::new(spec(), 100, 1), 400, usual));
        let mut more = (*spec()).clone();
        more.classes.push("never".into());
        let mut profile = Profile::new(more.clone().into(), 100, 2).counting_in(Some(&reference.frozen(&more)));
        for i in 0..400 {
            let p = noise(i, 0.618_033_98);
            let proba = [1.0 - p, p, 0.0];
            let probabilities = Some(Columns::F64(ArrayView2::from_shape((1, 3), &proba).unwrap()));
            profile.update(&Rows { count: 1, probabilities, ..Rows::default() });
        }
        let drift = drifted(&profile, &reference);
        let of = |kind| drift.columns.iter().find(|column| column.of == kind).unwrap();
        let entropy = of(ColumnKind::Entropy);
        assert_eq!((entropy.verdict, entropy.reason), (None, Some("not_comparable")));
        assert_eq!(of(ColumnKind::Confidence).verdict, Some(Verdict::Ok));
        assert_eq!((drift.unmatched.classes, drift.unmatched.reference_features), (1, 0));
    }

    #[test]
    fn few_rows_are_measured_and_not_judged() {
        let drift = against_usual(20, |_| [9.0; 4]);
        assert_eq!((drift.verdict, drift.monitored), (None, 0));
        assert!(feature(&drift, "level").psi.value.unwrap() > 1.0);
        assert_eq!(feature(&drift, "level").reason, Some("too_few"));
        assert_eq!(against_usual(0, usual).verdict, None);
    }

    #[test]
    fn a_column_that_the_reference_does_not_know_says_so() {
        let reference = Reference::of(&fed(Profile::new(spec(), 100, 1), 200, usual));
        let mut other = (*spec()).clone();
        other.features[0].name = "new".into();
        other.features[1].categorical = false;
        let other = Arc::new(other);
        let profile = Profile::new(other.clone(), 100, 1).counting_in(Some(&reference.frozen(&other)));
        let drift = drifted(&fed(profile, 100, usual), &reference);
        let reasons: Vec<_> = ["new", "plan"].map(|name| feature(&drift, name).reason).to_vec();
        assert_eq!(reasons, [Some("no_reference"); 2]);
    }
}
