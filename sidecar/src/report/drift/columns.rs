//! The distance of each column from its reference, by every measure.

use super::{ColumnDrift, ColumnKind, Measure};
use crate::reference::{Categorical, Column, Numerical, Reference};
use crate::report::OrderedSample;
use crate::report::ordered::has_classes;
use crate::stats::{
    Contingency, Elements, Made, Moment, Slack, ValueCounts, fisher_ln_p, kolmogorov_p, normal_z, spread,
};
use std::borrow::Cow;
use std::f64::consts::FRAC_2_PI;

/// Of every column of the profile, yet without q and verdicts.
pub(super) fn columns(sample: &OrderedSample<'_>, reference: &Reference) -> Vec<ColumnDrift> {
    let OrderedSample { profile, answers, .. } = sample;
    let Some(bins) = profile.bins.as_ref().filter(|_| reference.froze(profile)) else { return Vec::new() };
    let spec = &profile.spec;
    let mut columns = Vec::new();
    if has_classes(spec) {
        let predicted: Vec<u64> = profile.predictions.class_counts.clone();
        let undecided = reference.undecided(spec, profile.elements.probabilities);
        columns.push(classes(ColumnKind::PredictedClass, &spec.classes, &predicted, &reference.predicted, undecided));
        let actual: Vec<u64> = profile.quality.outcomes.classes().map(|class| class.support).collect();
        columns.push(classes(ColumnKind::ActualClass, &spec.classes, &actual, &reference.actual, 0.0));
        let predictions = &profile.predictions;
        let (confidence, margin, entropy) = (&reference.confidence, &reference.margin, &reference.entropy);
        let rows = [
            (ColumnKind::Confidence, confidence, &predictions.confidence, &bins.confidence, &answers.confidence),
            (ColumnKind::Margin, margin, &predictions.margin, &bins.margin, &answers.margin),
            (ColumnKind::Entropy, entropy, &predictions.entropy, &bins.entropy, &answers.entropy),
        ];
        let known = reference.probabilities.len();
        let made = [Made::Read, reference.margin_made(), reference.entropy_made()];
        for ((of, column, moments, counts, ascending), made) in rows.into_iter().zip(made) {
            let moment = moments.columns()[0];
            let above = |edges| counts.above(0, edges);
            let now = Now { moment: &moment, slack: slack(column.as_ref(), profile.elements.probabilities, made) };
            let measured = column.as_ref().and_then(|column| of_measured(column, now.slack));
            let distances = measured.map_or_else(Distances::unknown, |measured| measured.distances(ascending));
            columns.push(match of {
                ColumnKind::Entropy if column.is_some() && !are_entropies_comparable(spec.classes.len(), known) => {
                    nothing(of, "", "not_comparable")
                }
                _ => numerical(of, "", column.as_ref(), now, above, distances),
            });
        }
    }
    let of = if spec.regression { ColumnKind::Output } else { ColumnKind::Probability };
    let moments = profile.predictions.probabilities.columns();
    for (k, sampled) in sample.probabilities.iter().enumerate() {
        let (name, above) = (&spec.classes[k], |edges| bins.probabilities.above(k, edges));
        let column = reference.probability(name);
        let now = Now { moment: &moments[k], slack: slack(column, profile.elements.probabilities, Made::Read) };
        columns.push(numerical(of, name, column, now, above, sampled.distances));
    }
    let moments = profile.features.moments.columns();
    for (j, sampled) in sample.features.iter().enumerate() {
        let (feature, moment) = (&spec.features[j], &moments[j]);
        let column = reference.feature(&feature.name, feature.categorical);
        columns.push(match &profile.features.categories[j] {
            Some(_) => {
                categorical(&feature.name, column, moment, bins.categories[j].as_ref(), profile.elements.features)
            }
            None => {
                let above = |edges| bins.features.above(j, edges);
                let now = Now { moment, slack: slack(column, profile.elements.features, Made::Read) };
                numerical(ColumnKind::Feature, &feature.name, column, now, above, sampled.distances)
            }
        });
    }
    columns
}

/// Of models of so many classes: entropy is a share of the largest that they allow, and a single column counts as two.
pub fn are_entropies_comparable(classes: usize, others: usize) -> bool {
    classes.max(2) == others.max(2)
}

/// A column of the period.
#[derive(Clone, Copy)]
struct Now<'a> {
    moment: &'a Moment,
    /// Of its values and the reference's.
    slack: Slack,
}

/// How far the values of a column and those of its reference may be apart by their rounding alone.
pub fn slack(column: Option<&Column>, now: Elements, made: Made) -> Slack {
    column.map_or(Slack::NONE, |column| column.elements.slack(now, made))
}

/// A column of which nothing is known yet, for `reason`.
fn nothing(of: ColumnKind, name: &str, reason: &'static str) -> ColumnDrift {
    let undefined = Measure::undefined(reason);
    ColumnDrift {
        of,
        name: name.to_owned(),
        n: 0,
        reference_n: 0,
        rows: 0,
        reference_rows: 0,
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
        at_least: false,
        verdict: None,
        reason: Some(reason),
    }
}

impl ColumnDrift {
    /// What the missing values say, over all rows.
    fn with_missing(self, column: &Column, moment: &Moment) -> ColumnDrift {
        let (rows, reference_rows) = (moment.n + moment.nan + moment.inf, column.rows());
        let missing = missing([moment.nan, rows], [column.moment.nan, reference_rows]);
        ColumnDrift { rows, reference_rows, missing, ..self }
    }

    /// What counts in the same bins say.
    fn with_counts(self, reference: &[u64], current: &[u64], hash: u32) -> ColumnDrift {
        let total = |counts: &[u64]| counts.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
        let (n, reference_n) = (total(current), total(reference));
        let reason = if n == 0 || reference_n == 0 { "empty" } else { "one_bin" };
        let base = ColumnDrift {
            n,
            reference_n,
            rows: n,
            reference_rows: reference_n,
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
    now: Now<'_>,
    above: impl Fn(usize) -> Vec<u64>,
    distances: Distances,
) -> ColumnDrift {
    let Now { moment, slack } = now;
    let Some((column, reference)) = column.and_then(|column| Some((column, column.as_numerical()?))) else {
        return nothing(of, name, "no_reference");
    };
    let (in_bins, mut above) = (moment.n + moment.inf, above(reference.edges.len()));
    if reference.edges.is_empty() {
        return ColumnDrift { n: in_bins, ..nothing(of, name, "empty") }.with_missing(column, moment);
    }
    let told = !reference.bounds.is_empty();
    let mut reference = Cow::Borrowed(reference);
    if !slack.is_none() {
        let (blurred, kept) = reference.blurred(slack);
        above = kept.into_iter().map(|edge| above[edge]).collect();
        reference = Cow::Owned(blurred);
    }
    let counts = between(in_bins, &above);
    let out_of_range = counts[0] + counts[counts.len() - 1];
    let hash = hash(reference.edges.iter());
    let nearest = reference.nearest(&shares_below(&counts));
    if let Some((nearest, distance)) = nearest.as_ref().filter(|_| told) {
        let (nearest, distance) = (nearest, *distance);
        let ks = Measure {
            p: Some(kolmogorov_p(distance, in_bins as f64, reference.total() as f64)),
            ..Measure::of(distance)
        };
        let w1 = mean_difference(&column.moment, moment);
        return ColumnDrift { ks, w1, at_least: true, out_of_range: Some(out_of_range), ..nothing(of, name, "") }
            .with_counts(&inner(nearest), &inner(&counts), hash)
            .with_missing(column, moment);
    }
    let Distances { ks, w1 } = distances;
    let at_least = reference.bounds.iter().any(|[least, most]| most > least);
    let then = nearest.map_or(Cow::Borrowed(&reference.counts), |(nearest, _)| Cow::Owned(nearest));
    ColumnDrift { ks, w1, at_least, out_of_range: Some(out_of_range), ..nothing(of, name, "") }
        .with_counts(&inner(&then), &inner(&counts), hash)
        .with_missing(column, moment)
}

/// At or below each edge, of all in the bins; 0 of nothing.
fn shares_below(counts: &[u64]) -> Vec<f64> {
    let all = counts.iter().fold(0u64, |sum, n| sum.saturating_add(*n)).max(1) as f64;
    let below = counts[..counts.len() - 1].iter().scan(0u64, |sum, n| {
        *sum = sum.saturating_add(*n);
        Some(*sum as f64 / all)
    });
    below.collect()
}

/// Wasserstein's distance is at least that of the means.
fn mean_difference(reference: &Moment, current: &Moment) -> Measure {
    if current.n == 0 {
        return Measure::undefined("empty");
    }
    let Some(deviation) = reference.std().filter(|std| std.is_finite() && *std > 0.0) else {
        return Measure::undefined("constant_reference");
    };
    let distance = (current.mean - reference.mean).abs();
    // Of whichever is wider, as of a sample.
    let wider = current.std().filter(|std| std.is_finite()).map_or(deviation, |std| deviation.max(std));
    let z = distance / (wider * (1.0 / current.n as f64 + 1.0 / reference.n as f64).sqrt());
    Measure { z: Some(z).filter(|z| z.is_finite()), ..Measure::of(distance / deviation) }
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

/// Of a column's sample from the reference's.
#[derive(Clone, Copy, Debug)]
pub struct Distances {
    ks: Measure,
    w1: Measure,
}

/// A column of a reference that holds numbers.
pub struct Measured<'a> {
    numerical: &'a Numerical,
    moment: &'a Moment,
    slack: Slack,
}

/// What distances from the column are measured by, if it has any numbers and they were counted.
pub fn of_measured(column: &Column, slack: Slack) -> Option<Measured<'_>> {
    let counted = |numerical: &&Numerical| !numerical.edges.is_empty() && numerical.bounds.is_empty();
    let numerical = column.as_numerical().filter(counted)?;
    Some(Measured { numerical, moment: &column.moment, slack })
}

impl Distances {
    /// Of one of which nothing is known.
    pub fn unknown() -> Distances {
        Distances { ks: Measure::undefined("not_sampled"), w1: Measure::undefined("not_sampled") }
    }
}

impl Measured<'_> {
    /// `sample` ascends.
    pub fn distances(&self, sample: &[f64]) -> Distances {
        let Measured { numerical: reference, moment, slack } = self;
        let Some(distance) = reference.steps.distance_within(sample, *slack) else { return Distances::unknown() };
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
        Distances { ks, w1 }
    }
}

/// Values that the reference does not know share a bin.
fn categorical(
    name: &str,
    column: Option<&Column>,
    moment: &Moment,
    known: Option<&ValueCounts>,
    now: Elements,
) -> ColumnDrift {
    let shape = column.and_then(|column| Some((column, column.as_categorical()?)));
    let Some(((column, reference), known)) = shape.zip(known) else {
        return nothing(ColumnKind::Feature, name, "no_reference");
    };
    let common = column.elements.common(now);
    let counted = reference.values.iter().zip(known.counts()).map(|((value, _), count)| (*value, *count)).collect();
    let mut counted = Categorical { values: counted, other: 0 };
    let mut reference = Cow::Borrowed(reference);
    if let Some(common) = common {
        (counted, reference) = (counted.rounded(common), Cow::Owned(reference.rounded(common)));
    }
    let mut current: Vec<u64> = counted.values.iter().map(|(_, count)| *count).collect();
    current.push(moment.n.saturating_sub(current.iter().sum()));
    let undefined = Measure::undefined("categorical");
    let hash = hash(reference.values.iter().map(|(value, _)| value));
    let known = ColumnDrift { ks: undefined, w1: undefined, ..nothing(ColumnKind::Feature, name, "") }
        .with_counts(&as_expected(&reference), &current, hash)
        .with_missing(column, moment);
    ColumnDrift { reference_n: column.moment.n, ..known }
}

/// What other rows than the reference's are to be compared with: a value has its bin because it occurred. Where there were more of them
/// than bins, the occurrence that chose it says nothing about its share; and as many rows as there are values that occurred once are
/// expected to hold one that did not occur (Good, The Population Frequencies of Species, 1953).
fn as_expected(reference: &Categorical) -> Vec<u64> {
    let chosen_by = u64::from(reference.other > 0);
    let once = reference.values.iter().filter(|(_, n)| *n == 1).count() as u64;
    let values = reference.values.iter().map(|(_, n)| n.saturating_sub(chosen_by));
    values.chain([reference.other.saturating_add(once)]).collect()
}

/// PSI over the classes that two versions predicted, and the hash of its bins.
pub fn class_mix(names: &[String], counts: &[u64], other_names: &[String], other: &[u64]) -> (Measure, String) {
    let other: Vec<(String, u64)> = other_names.iter().cloned().zip(other.iter().copied()).collect();
    let column = classes(ColumnKind::PredictedClass, names, counts, &other, 0.0);
    (column.psi, column.bins_hash)
}

/// By name: a class that the reference does not know shares a bin with others such. An `undecided` share of the reference's rows may be of
/// any class.
fn classes(
    of: ColumnKind,
    names: &[String],
    counts: &[u64],
    reference: &[(String, u64)],
    undecided: f64,
) -> ColumnDrift {
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
    let at_least = undecided > 0.0;
    if at_least {
        known = moved_towards(&known, &current, undecided);
    }
    ColumnDrift { ks: undefined, w1: undefined, missing: undefined, at_least, ..nothing(of, "", "") }
        .with_counts(&known, &current, hash)
}

/// The difference of the shares of NaN, each of so many rows.
fn missing([nan, rows]: [u64; 2], [nan_then, rows_then]: [u64; 2]) -> Measure {
    let Some(ln_p) = fisher_ln_p(nan, rows, nan_then, rows_then) else { return Measure::undefined("empty") };
    let share = nan as f64 / rows as f64 - nan_then as f64 / rows_then as f64;
    Measure { z: Some(normal_z(ln_p) * share.signum()), p: Some(ln_p.exp()), ..Measure::of(share) }
}

/// The counts with so large a share of all moved that they are as near to the others as can be.
fn moved_towards(counts: &[u64], others: &[u64], share: f64) -> Vec<u64> {
    let total = |counts: &[u64]| counts.iter().map(|n| *n as f64).sum::<f64>();
    let (all, of_others) = (total(counts), total(others));
    if all == 0.0 || of_others == 0.0 {
        return counts.to_vec();
    }
    let gaps: Vec<f64> = counts.iter().zip(others).map(|(n, m)| *m as f64 / of_others - *n as f64 / all).collect();
    let apart: f64 = gaps.iter().map(|gap| gap.max(0.0)).sum();
    let part = if apart > share { share / apart } else { 1.0 };
    counts.iter().zip(gaps).map(|(n, gap)| (*n as f64 + gap * part * all).round() as u64).collect()
}

fn hash<'a>(values: impl Iterator<Item = &'a f64>) -> u32 {
    values.fold(0, |crc, value| crc32c::crc32c_append(crc, &value.to_le_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_expected_without_what_gave_them_their_bins() {
        let all = Categorical { values: vec![(1.0, 1), (2.0, 5), (3.0, 1)], other: 0 };
        assert_eq!(as_expected(&all), [1, 5, 1, 2], "two that occurred once stand for two that did not");
        let first = Categorical { values: vec![(1.0, 1), (2.0, 5), (3.0, 2)], other: 7 };
        assert_eq!(as_expected(&first), [0, 4, 1, 8]);
    }
}
