//! How far a period is from its reference: every column, by every measure, each with what chance alone would give.

use crate::profile::Profile;
use crate::reference::{Column, Numerical, Reference};
use crate::stats::{
    Categories, Contingency, Moment, Noisy, benjamini_hochberg, kolmogorov_p, normal_p, spread, two_proportion_z,
};
use serde::{Deserialize, Serialize};
use std::f64::consts::FRAC_2_PI;

/// How empty bins are dealt with in PSI.
const ZERO_POLICY: &str = "half a count is added to every bin on both sides";
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Drift {
    pub reference: String,
    pub reference_rows: u64,
    pub zero_policy: &'static str,
    pub monitored: u64,
    pub drifted: u64,
    pub drifted_share: Measure,
    pub verdict: Option<Verdict>,
    pub columns: Vec<ColumnDrift>,
}

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct ColumnDrift {
    pub of: ColumnKind,
    pub name: String,
    pub n: u64,
    pub reference_n: u64,
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
    Probability,
    Output,
    Feature,
}

/// What a measure says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named by themselves")]
pub enum Verdict {
    Ok,
    Warn,
    Alert,
}

/// A value with what makes it believable: z above chance, p, and q among all columns of the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Measure {
    pub value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub z: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// From which value on a measure warns, and from which it alerts.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Levels {
    /// None: never.
    pub warn: Option<f64>,
    /// None: never.
    pub alert: Option<f64>,
}

/// When a measure counts as drift: its effect must be large, and chance must be excluded.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DriftSettings {
    /// Columns with fewer values have no verdict.
    pub min_rows: u64,
    /// Deviations above chance from which on an effect is believed.
    pub z: f64,
    /// False discovery rate up to which a p-value is believed.
    pub fdr: f64,
    /// Population stability index.
    pub psi: Levels,
    /// Jensen-Shannon distance.
    pub jensen_shannon: Levels,
    /// Hellinger distance.
    pub hellinger: Levels,
    /// Largest difference of a bin's share.
    pub l_infinity: Levels,
    /// Kolmogorov-Smirnov distance.
    pub ks: Levels,
    /// Wasserstein distance in deviations of the reference.
    pub w1: Levels,
    /// Difference of the shares of missing values.
    pub missing: Levels,
    /// Share of drifted features.
    pub drifted_share: Levels,
}

impl Default for DriftSettings {
    fn default() -> DriftSettings {
        let levels = |warn, alert| Levels { warn, alert };
        DriftSettings {
            min_rows: 30,
            z: 5.0,
            fdr: 0.01,
            psi: levels(Some(0.1), Some(0.25)),
            jensen_shannon: levels(Some(0.1), Some(0.3)),
            hellinger: levels(Some(0.15), None),
            l_infinity: levels(Some(0.1), None),
            ks: levels(None, Some(0.1)),
            w1: levels(Some(0.1), None),
            missing: levels(None, Some(0.02)),
            drifted_share: levels(None, Some(0.3)),
        }
    }
}

impl ColumnKind {
    /// As reports spell it.
    pub fn name(self) -> &'static str {
        match self {
            ColumnKind::PredictedClass => "predicted_class",
            ColumnKind::ActualClass => "actual_class",
            ColumnKind::Confidence => "confidence",
            ColumnKind::Margin => "margin",
            ColumnKind::Probability => "probability",
            ColumnKind::Output => "output",
            ColumnKind::Feature => "feature",
        }
    }
}

impl Levels {
    fn verdict(&self, value: f64, believed: bool) -> Verdict {
        let over = |level: Option<f64>| believed && level.is_some_and(|level| value > level);
        if over(self.alert) {
            Verdict::Alert
        } else if over(self.warn) {
            Verdict::Warn
        } else {
            Verdict::Ok
        }
    }
}

impl Measure {
    fn undefined(reason: &'static str) -> Measure {
        Measure { reason: Some(reason), ..Measure::default() }
    }

    fn of(value: f64) -> Measure {
        match value.is_finite() {
            true => Measure { value: Some(value), ..Measure::default() },
            false => Measure::undefined("overflow"),
        }
    }

    fn noisy(noisy: Noisy) -> Measure {
        Measure { z: Some(noisy.z), ..Measure::of(noisy.value) }
    }

    /// Large enough by its levels, and `believed`.
    fn judge(&mut self, levels: &Levels, believed: impl Fn(&Measure) -> bool) {
        self.verdict = self.value.map(|value| levels.verdict(value.abs(), believed(self)));
    }
}

/// Of a period whose rows were counted in the reference's bins.
pub(super) fn drift(profile: &Profile, reference: &Reference, settings: &DriftSettings) -> Drift {
    let mut columns = columns(profile, reference);
    fill_q(&mut columns, |column| &mut column.ks);
    fill_q(&mut columns, |column| &mut column.chi2);
    columns.iter_mut().for_each(|column| judge(column, settings));
    let features = || columns.iter().filter(|column| column.of == ColumnKind::Feature);
    let monitored = features().filter(|column| column.verdict.is_some()).count() as u64;
    let drifted = features().filter(|column| column.verdict > Some(Verdict::Ok)).count() as u64;
    let mut drifted_share = match monitored {
        0 => Measure::undefined("too_few"),
        _ => Measure::of(drifted as f64 / monitored as f64),
    };
    drifted_share.judge(&settings.drifted_share, |_| true);
    Drift {
        reference: reference.id(),
        reference_rows: reference.rows,
        zero_policy: ZERO_POLICY,
        monitored,
        drifted,
        verdict: columns.iter().filter_map(|column| column.verdict).chain(drifted_share.verdict).max(),
        drifted_share,
        columns,
    }
}

fn columns(profile: &Profile, reference: &Reference) -> Vec<ColumnDrift> {
    let Some(bins) = profile.bins.as_ref().filter(|_| reference.froze(profile)) else { return Vec::new() };
    let spec = &profile.spec;
    let mut columns = Vec::new();
    if !spec.regression && !spec.classes.is_empty() {
        let predicted: Vec<u64> = profile.predictions.class_counts.clone();
        columns.push(classes(ColumnKind::PredictedClass, &spec.classes, &predicted, &reference.predicted));
        let actual: Vec<u64> = profile.quality.outcomes.classes().map(|class| class.support).collect();
        columns.push(classes(ColumnKind::ActualClass, &spec.classes, &actual, &reference.actual));
        let (confidence, margin) = super::predictions::sampled_confidence_and_margin(profile);
        let rows = [
            (
                ColumnKind::Confidence,
                &reference.confidence,
                &profile.predictions.confidence,
                &bins.confidence,
                confidence,
            ),
            (ColumnKind::Margin, &reference.margin, &profile.predictions.margin, &bins.margin, margin),
        ];
        for (of, column, moments, counts, sample) in rows {
            let moment = moments.columns()[0];
            let above = |edges| counts.above(0, edges);
            columns.push(numerical(of, "", column.as_ref(), &moment, above, sample));
        }
    }
    let of = if spec.regression { ColumnKind::Output } else { ColumnKind::Probability };
    for (k, (name, moment)) in spec.classes.iter().zip(profile.predictions.probabilities.columns()).enumerate() {
        let sample = profile.sample.probabilities.finite_column(k);
        let above = |edges| bins.probabilities.above(k, edges);
        columns.push(numerical(of, name, reference.probability(name), &moment, above, sample));
    }
    let moments = profile.features.moments.columns();
    for (j, ((feature, moment), categories)) in
        spec.features.iter().zip(moments).zip(&profile.features.categories).enumerate()
    {
        let column = reference.feature(&feature.name, feature.categorical);
        columns.push(match categories {
            Some(categories) => categorical(&feature.name, column, &moment, categories),
            None => {
                let sample = profile.sample.features.finite_column(j);
                let above = |edges| bins.features.above(j, edges);
                numerical(ColumnKind::Feature, &feature.name, column, &moment, above, sample)
            }
        });
    }
    columns
}

/// A column of which nothing is known yet, for `reason`.
fn nothing(of: ColumnKind, name: &str, reason: &'static str) -> ColumnDrift {
    let undefined = Measure::undefined(reason);
    ColumnDrift {
        of,
        name: name.to_owned(),
        n: 0,
        reference_n: 0,
        bins: 0,
        bins_hash: String::new(),
        out_of_range: None,
        psi: undefined,
        jensen_shannon: undefined,
        hellinger: undefined,
        l_infinity: undefined,
        chi2: undefined,
        ks: undefined,
        w1: undefined,
        missing: undefined,
        verdict: None,
        reason: Some(reason),
    }
}

impl ColumnDrift {
    /// An upper bound of its memory.
    pub(super) fn bytes(&self) -> u64 {
        super::DRIFT_BYTES + self.name.len() as u64
    }

    /// The measure with the worst verdict, and its name; of several the first.
    pub fn worst(&self) -> (&'static str, Measure) {
        let measures = [
            ("psi", self.psi),
            ("ks", self.ks),
            ("w1", self.w1),
            ("missing", self.missing),
            ("jensen_shannon", self.jensen_shannon),
            ("hellinger", self.hellinger),
            ("l_infinity", self.l_infinity),
        ];
        let worse =
            |a: (&'static str, Measure), b: (&'static str, Measure)| if b.1.verdict > a.1.verdict { b } else { a };
        measures.into_iter().reduce(worse).expect("seven measures")
    }

    /// What counts in the same bins say.
    fn with_counts(self, reference: &[u64], current: &[u64], hash: u32) -> ColumnDrift {
        let total = |counts: &[u64]| counts.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
        let (n, reference_n) = (total(current), total(reference));
        let reason = if n == 0 || reference_n == 0 { "empty" } else { "one_bin" };
        let base = ColumnDrift {
            n,
            reference_n,
            bins: reference.len() as u64,
            bins_hash: format!("{hash:08x}"),
            reason: (n == 0 || reference_n == 0).then_some("empty"),
            ..self
        };
        let Some(table) = Contingency::new(reference, current) else {
            let undefined = Measure::undefined(reason);
            let [psi, jensen_shannon, hellinger, l_infinity, chi2] = [undefined; 5];
            return ColumnDrift { psi, jensen_shannon, hellinger, l_infinity, chi2, ..base };
        };
        ColumnDrift {
            psi: Measure::noisy(table.psi()),
            jensen_shannon: Measure::noisy(table.jensen_shannon()),
            hellinger: Measure::noisy(table.hellinger()),
            l_infinity: Measure::noisy(table.l_infinity()),
            chi2: match table.chi2() {
                Some(chi2) => Measure { p: Some(chi2.p), ..Measure::of(chi2.statistic) },
                None => Measure::undefined("too_few"),
            },
            ..base
        }
    }
}

fn numerical(
    of: ColumnKind,
    name: &str,
    column: Option<&Column>,
    moment: &Moment,
    above: impl Fn(usize) -> Vec<u64>,
    mut sample: Vec<f64>,
) -> ColumnDrift {
    let Some((column, reference)) = column.and_then(|column| Some((column, column.as_numerical()?))) else {
        return nothing(of, name, "no_reference");
    };
    if reference.edges.is_empty() {
        return ColumnDrift { missing: missing(column, moment), ..nothing(of, name, "empty") };
    }
    let in_bins = moment.n + moment.inf;
    let counts = between(in_bins, &above(reference.edges.len()));
    let out_of_range = counts[0] + counts[counts.len() - 1];
    sample.sort_unstable_by(f64::total_cmp);
    let hash = hash(reference.edges.iter());
    let (ks, w1) = distances(reference, &column.moment, &sample);
    ColumnDrift { ks, w1, missing: missing(column, moment), out_of_range: Some(out_of_range), ..nothing(of, name, "") }
        .with_counts(&inner(&reference.counts), &inner(&counts), hash)
}

/// How many of `all` lie in each bin, from how many lie above each edge.
fn between(all: u64, above: &[u64]) -> Vec<u64> {
    let at_least: Vec<u64> = [all].iter().chain(above).chain(&[0]).copied().collect();
    at_least.windows(2).map(|pair| pair[0].saturating_sub(pair[1])).collect()
}

/// The bins between the extremes; what lies outside belongs to the nearest. Of a constant column the outer bins are all there is to
/// tell a change by, and stay.
fn inner(counts: &[u64]) -> Vec<u64> {
    if counts.len() < 4 {
        return counts.to_vec();
    }
    let (last, mut inner) = (counts.len() - 1, counts[1..counts.len() - 1].to_vec());
    inner[0] += counts[0];
    inner[last - 2] += counts[last];
    inner
}

/// `sample` ascends.
fn distances(reference: &Numerical, moment: &Moment, sample: &[f64]) -> (Measure, Measure) {
    let Some(distance) = reference.steps.distance(sample) else {
        return (Measure::undefined("not_sampled"), Measure::undefined("not_sampled"));
    };
    let (n, m) = (sample.len() as f64, reference.counts.iter().sum::<u64>() as f64);
    let ks = Measure { p: Some(kolmogorov_p(distance.ks, n, m)), ..Measure::of(distance.ks) };
    let deviation = moment.std().filter(|std| std.is_finite() && *std > 0.0);
    let w1 = deviation.map_or(Measure::undefined("constant_reference"), |deviation| {
        // Of whichever is wider: an outlier that strays by chance widens its own side.
        let spread = reference.steps.spread().max(spread(sample.iter().map(|x| (*x, 1.0 / n))));
        let scale = spread * (1.0 / n + 1.0 / m).sqrt();
        let z = (distance.w1 - FRAC_2_PI.sqrt() * scale) / ((1.0 - FRAC_2_PI).sqrt() * scale);
        Measure { z: Some(z).filter(|z| z.is_finite()), ..Measure::of(distance.w1 / deviation) }
    });
    (ks, w1)
}

/// Values that the reference does not know share a bin.
fn categorical(name: &str, column: Option<&Column>, moment: &Moment, categories: &Categories) -> ColumnDrift {
    let Some((column, reference)) = column.and_then(|column| Some((column, column.as_categorical()?))) else {
        return nothing(ColumnKind::Feature, name, "no_reference");
    };
    let mut current = vec![0; reference.values.len() + 1];
    for (value, count) in categories.iter() {
        let known = reference.values.binary_search_by(|(known, _)| known.total_cmp(&value));
        current[known.unwrap_or(reference.values.len())] += count;
    }
    current[reference.values.len()] += categories.other();
    let counts: Vec<u64> = reference.values.iter().map(|(_, n)| *n).chain([reference.other]).collect();
    let undefined = Measure::undefined("categorical");
    ColumnDrift {
        ks: undefined,
        w1: undefined,
        missing: missing(column, moment),
        ..nothing(ColumnKind::Feature, name, "")
    }
    .with_counts(&counts, &current, hash(reference.values.iter().map(|(value, _)| value)))
}

/// By name: a class that the reference does not know shares a bin with others such.
fn classes(of: ColumnKind, names: &[String], counts: &[u64], reference: &[(String, u64)]) -> ColumnDrift {
    if reference.is_empty() {
        return nothing(of, "", "no_reference");
    }
    let mut current = vec![0; reference.len()];
    let mut unknown = 0;
    for (name, count) in names.iter().zip(counts) {
        match reference.iter().position(|(known, _)| known == name) {
            Some(at) => current[at] += count,
            None => unknown += count,
        }
    }
    let mut known: Vec<u64> = reference.iter().map(|(_, n)| *n).collect();
    if unknown > 0 {
        current.push(unknown);
        known.push(0);
    }
    let undefined = Measure::undefined("categorical");
    let hash =
        crc32c::crc32c(reference.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join("\0").as_bytes());
    ColumnDrift { ks: undefined, w1: undefined, missing: undefined, ..nothing(of, "", "") }
        .with_counts(&known, &current, hash)
}

/// The difference of the shares of NaN.
fn missing(column: &Column, moment: &Moment) -> Measure {
    let (rows, then) = (moment.n + moment.nan + moment.inf, column.rows());
    if rows == 0 || then == 0 {
        return Measure::undefined("empty");
    }
    let share = moment.nan as f64 / rows as f64 - column.moment.nan as f64 / then as f64;
    let z = two_proportion_z(moment.nan, rows, column.moment.nan, then).unwrap_or(0.0);
    Measure { z: Some(z), p: Some(normal_p(z)), ..Measure::of(share) }
}

fn hash<'a>(values: impl Iterator<Item = &'a f64>) -> u32 {
    values.fold(0, |crc, value| crc32c::crc32c_append(crc, &value.to_le_bytes()))
}

/// Among all columns that have a p-value.
fn fill_q(columns: &mut [ColumnDrift], measure: impl Fn(&mut ColumnDrift) -> &mut Measure) {
    let mut tested: Vec<&mut Measure> = columns.iter_mut().map(measure).filter(|measure| measure.p.is_some()).collect();
    let p: Vec<f64> = tested.iter().filter_map(|measure| measure.p).collect();
    tested.iter_mut().zip(benjamini_hochberg(&p)).for_each(|(measure, q)| measure.q = Some(q));
}

/// χ² has a verdict, but no effect size: with enough rows it finds any difference, so the column's verdict is without it.
fn judge(column: &mut ColumnDrift, settings: &DriftSettings) {
    if column.n < settings.min_rows || column.reference_n < settings.min_rows {
        column.reason = column.reason.filter(|reason| !reason.is_empty()).or(Some("too_few"));
        return;
    }
    column.reason = None;
    let by_z = |measure: &Measure| measure.z.is_some_and(|z| z.abs() >= settings.z);
    let by_q = |measure: &Measure| measure.q.is_some_and(|q| q < settings.fdr);
    column.psi.judge(&settings.psi, by_z);
    column.jensen_shannon.judge(&settings.jensen_shannon, by_z);
    column.hellinger.judge(&settings.hellinger, by_z);
    column.l_infinity.judge(&settings.l_infinity, by_z);
    column.w1.judge(&settings.w1, by_z);
    column.missing.judge(&settings.missing, by_z);
    column.ks.judge(&settings.ks, by_q);
    column.chi2.judge(&Levels { warn: Some(0.0), alert: None }, by_q);
    column.verdict = column.worst().1.verdict;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Feature, Rows, Spec};
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
                segments: None,
            });
        }
        profile
    }

    fn against_usual(rows: usize, row: impl Fn(usize) -> [f64; 4]) -> Drift {
        let reference = Reference::of(&fed(Profile::new(spec(), 10_000, 1), 5_000, usual));
        let frozen = reference.frozen(&spec());
        let profile = fed(Profile::new(spec(), 10_000, 2).counting_in(Some(&frozen)), rows, row);
        drift(&profile, &reference, &DriftSettings::default())
    }

    fn feature<'a>(drift: &'a Drift, name: &str) -> &'a ColumnDrift {
        drift.columns.iter().find(|column| column.of == ColumnKind::Feature && column.name == name).unwrap()
    }

    #[test]
    fn what_is_as_usual_does_not_drift() {
        let drift = against_usual(1000, usual);
        assert_eq!((drift.verdict, drift.monitored, drift.drifted), (Some(Verdict::Ok), 4, 0), "{drift:#?}");
        assert_eq!(feature(&drift, "level").out_of_range, Some(0));
        assert_eq!(drift.columns.len(), 4 + 2 + 4);
        let actual = drift.columns.iter().find(|column| column.of == ColumnKind::ActualClass).unwrap();
        assert_eq!((actual.verdict, actual.reason), (None, Some("no_reference")), "there were no labels");
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
        assert!((feature(&drift, "gaps").missing.value.unwrap() - 0.1).abs() < 0.02);
        assert_eq!((drift.drifted, drift.drifted_share.verdict), (3, Some(Verdict::Alert)));
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
        let drift = drift(&fed(profile, 100, usual), &reference, &DriftSettings::default());
        let reasons: Vec<_> = ["new", "plan"].map(|name| feature(&drift, name).reason).to_vec();
        assert_eq!(reasons, [Some("no_reference"); 2]);
    }
}
