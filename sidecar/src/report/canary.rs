//! Versions of one model side by side: what they answered in the same period, without any reference.

use super::drift::{DriftSettings, Evidence, Measure, Verdict, are_entropies_comparable, class_mix};
use super::ordered::has_classes;
use super::{OrderedSample, Report};
use crate::period::Period;
use crate::profile::{Answered, SampledAnswers, Spec};
use crate::stats::{
    Difference, Elements, Made, Proportion, SharesApart, Single, Slack, Steps, benjamini_hochberg, kolmogorov_p,
};
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Arc;

/// Periods of other versions that are remembered: reports of one period come within a moment of each other. A ring that is found late, with
/// a backlog, has some more to be compared with.
const MOST_REMEMBERED: usize = 64;
/// The last period of each version of models that have several is remembered beyond that: many models may close at once.
const MOST_NEEDED: usize = 256;
/// Models with more classes are not compared: what is remembered of each must stay small.
const MOST_CLASSES: usize = 1024;
/// Other versions in one report.
pub(super) const MOST_COMPARED: usize = 8;

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Canary {
    pub version: String,
    pub rows: u64,
    pub bins_hash: String,
    pub class_mix: Evidence,
    pub confidence_ks: Evidence,
    pub margin_ks: Evidence,
    pub entropy_ks: Evidence,
    pub accuracy_difference: Interval,
    pub agreement: Interval,
    pub verdict: Option<Verdict>,
}

impl Canary {
    /// The measure with the worst verdict, and its name; of several the first.
    pub fn worst(&self) -> (&'static str, Evidence) {
        let Interval { value, z, verdict, n, n_other, .. } = self.accuracy_difference;
        let accuracy = Evidence { measure: Measure { value, z, verdict, ..Measure::default() }, n: Some(n), n_other };
        let measures = [
            ("accuracy_difference", accuracy),
            ("class_mix", self.class_mix),
            ("confidence_ks", self.confidence_ks),
            ("margin_ks", self.margin_ks),
            ("entropy_ks", self.entropy_ks),
        ];
        measures.into_iter().reduce(Evidence::worse).expect("five measures")
    }
}

/// A share or a difference of two, with its 95 % interval.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Interval {
    pub value: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub n: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_other: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub z: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// What was closed of late.
#[derive(Debug, Default)]
pub struct Versions(VecDeque<Digest>);

/// One version's period.
#[derive(Debug)]
struct Digest {
    period: Period,
    spec: Arc<Spec>,
    rows: u64,
    class_counts: Vec<u64>,
    /// Confidence, margin, entropy.
    answers: [Sampled; 3],
    /// How these were made of its probabilities, and what those are.
    made: [Made; 3],
    elements: Elements,
    right: Single,
    is_multi_label: bool,
    answered: Answered,
    has_versions: bool,
}

#[derive(Debug)]
struct Sampled {
    steps: Steps,
    n: u64,
}

impl Sampled {
    /// `ascending` holds finite values.
    fn of(ascending: &[f64]) -> Sampled {
        Sampled { steps: Steps::of_sorted(ascending), n: ascending.len() as u64 }
    }
}

impl Versions {
    /// Adds to `report` how its version compares with those that come before it in the order of their bytes and whose report of the same
    /// period came before: of each pair the same side reports.
    pub fn compare(
        &mut self,
        report: &mut Report,
        period: Period,
        sample: &OrderedSample<'_>,
        settings: &DriftSettings,
        has_versions: bool,
    ) {
        let profile = sample.profile;
        let spec = &profile.spec;
        if !has_classes(spec) || spec.classes.len() > MOST_CLASSES || profile.rows == 0 {
            return;
        }
        let SampledAnswers { confidence, margin, entropy } = &sample.answers;
        let answers = [confidence, margin, entropy];
        let outcomes = &profile.quality.outcomes;
        let moments = profile.predictions.probabilities.columns();
        let this = Digest {
            period,
            spec: spec.clone(),
            rows: profile.rows,
            class_counts: profile.predictions.class_counts.clone(),
            answers: answers.map(|values| Sampled::of(values)),
            made: [Made::Read, Made::margins(&moments), Made::entropies(&moments)],
            elements: profile.elements.probabilities,
            right: outcomes.single(),
            is_multi_label: outcomes.is_multi_label(),
            answered: profile.answered.clone(),
            has_versions,
        };
        let settings = settings.of_model(&spec.model, &spec.version);
        let others = self.0.iter().filter(|other| other.comes_before(&this));
        let compared = |other: &Digest| this.against(other, answers, settings.of("version", &other.spec.version));
        report.canary = others.take(MOST_COMPARED).map(compared).collect();
        self.0.push_front(this);
        while self.0.len() > MOST_REMEMBERED {
            match (0..self.0.len()).rev().find(|at| !self.is_needed(*at)) {
                Some(at) => drop(self.0.remove(at)),
                None => break,
            }
        }
        self.0.truncate(MOST_NEEDED);
    }

    /// Whether another version's report may still come that is to be compared with it: it is the last of its own.
    fn is_needed(&self, at: usize) -> bool {
        let this = &self.0[at];
        let newer = self.0.iter().take(at);
        let is_same = |other: &Digest| other.spec.model == this.spec.model && other.spec.version == this.spec.version;
        this.has_versions && !newer.into_iter().any(is_same)
    }
}

impl Digest {
    fn comes_before(&self, this: &Digest) -> bool {
        self.spec.model == this.spec.model
            && self.spec.version < this.spec.version
            && (self.period.start_ns, self.period.end_ns) == (this.period.start_ns, this.period.end_ns)
    }

    fn against(&self, other: &Digest, answers: [&Vec<f64>; 3], settings: &DriftSettings) -> Canary {
        let (mut class_mix, bins_hash) =
            class_mix(&self.spec.classes, &self.class_counts, &other.spec.classes, &other.class_counts);
        let mut distances: [Measure; 3] = std::array::from_fn(|i| {
            let slack = other.elements.slack(self.elements, other.made[i]);
            ks(&other.answers[i], answers[i], slack)
        });
        if !are_entropies_comparable(self.spec.classes.len(), other.spec.classes.len()) {
            distances[2] = Measure::undefined("not_comparable");
        }
        let p: Vec<f64> = distances.iter().filter_map(|measure| measure.p).collect();
        let tested = distances.iter_mut().filter(|measure| measure.p.is_some());
        tested.zip(benjamini_hochberg(&p)).for_each(|(measure, q)| measure.q = Some(q));
        let mut accuracy_difference = self.accuracy_against(other);
        let least = settings.min_rows;
        let [classified, others] = [&self.class_counts, &other.class_counts].map(|counts| counted(counts));
        if classified.min(others) >= least {
            class_mix.judge(&settings.psi, |measure| measure.z.is_some_and(|z| z >= settings.z));
        } else {
            class_mix.reason = class_mix.reason.or(Some("too_few"));
        }
        for (i, ks) in distances.iter_mut().enumerate() {
            if self.answers[i].n.min(other.answers[i].n) >= least {
                ks.judge(&settings.ks, |ks| ks.q.is_some_and(|q| q < settings.fdr));
            } else {
                ks.reason = ks.reason.or(Some("too_few"));
            }
        }
        if self.right.rows.min(other.right.rows) >= least {
            accuracy_difference.judge(settings);
        } else {
            accuracy_difference.reason = accuracy_difference.reason.or(Some("too_few"));
        }
        let verdicts = [class_mix.verdict, accuracy_difference.verdict];
        let verdict = verdicts.into_iter().chain(distances.map(|ks| ks.verdict)).flatten().max();
        let of = |i: usize| distances[i].counted(self.answers[i].n, other.answers[i].n);
        Canary {
            version: other.spec.version.clone(),
            rows: other.rows,
            bins_hash,
            class_mix: class_mix.counted(classified, others),
            confidence_ks: of(0),
            margin_ks: of(1),
            entropy_ks: of(2),
            accuracy_difference,
            agreement: self.agreement_with(other),
            verdict,
        }
    }

    fn accuracy_against(&self, other: &Digest) -> Interval {
        let share = |of: Single| Proportion::of(of.correct, of.rows);
        let (n, n_other) = (self.right.rows, Some(other.right.rows));
        let apart = SharesApart::of(self.right.correct, n, other.right.correct, other.right.rows);
        match (share(self.right), share(other.right)) {
            (Some(this), Some(other)) => {
                let Difference { value, low, high } = Difference::of(this, other);
                let z = apart.and_then(|apart| apart.z);
                Interval { value: Some(value), low: Some(low), high: Some(high), n, n_other, z, ..Interval::default() }
            }
            _ if self.is_multi_label || other.is_multi_label => {
                Interval { n, n_other, reason: Some("multi_label"), ..Interval::default() }
            }
            _ => Interval { n, n_other, reason: Some("no_labels"), ..Interval::default() },
        }
    }

    /// By the names of the classes: their order may differ.
    fn agreement_with(&self, other: &Digest) -> Interval {
        let (mut n, mut equal) = (0, 0);
        for (mine, theirs) in self.answered.common(&other.answered) {
            n += 1;
            equal += u64::from(self.spec.classes.get(mine) == other.spec.classes.get(theirs));
        }
        match Proportion::of(equal, n) {
            Some(Proportion { value, low, high }) => {
                Interval { value: Some(value), low: Some(low), high: Some(high), n, ..Interval::default() }
            }
            None => {
                let either_has_none = self.answered.is_empty() || other.answered.is_empty();
                let reason = if either_has_none { "no_ids" } else { "no_common_ids" };
                Interval { reason: Some(reason), ..Interval::default() }
            }
        }
    }
}

fn counted(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
}

impl Interval {
    /// Drift in the accuracy: large enough by its level, and not by chance.
    fn judge(&mut self, settings: &DriftSettings) {
        let mut measure = Measure { value: self.value, z: self.z, ..Measure::default() };
        measure.judge(&settings.accuracy, |measure| measure.z.is_some_and(|z| z.abs() >= settings.z));
        self.verdict = measure.verdict;
    }
}

fn ks(other: &Sampled, ascending: &[f64], slack: Slack) -> Measure {
    match other.steps.distance_within(ascending, slack) {
        Some(distance) => {
            let p = kolmogorov_p(distance.ks, ascending.len() as f64, other.n as f64);
            Measure { p: Some(p), ..Measure::of(distance.ks) }
        }
        None => Measure::undefined("not_sampled"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Labels, Profile, Rows};
    use crate::stats::Columns;
    use ndarray::ArrayView2;
    use std::ops::Range;

    const PERIOD: Period = Period { start_ns: 0, end_ns: 1, partial: false };

    /// 600 rows with ids from `first` on; a row in `one_in` is answered otherwise.
    fn profile(version: &str, classes: [&str; 2], first: u64, one_in: u64) -> Profile {
        of_rows(version, classes, first..first + 600, one_in, |_| true)
    }

    fn of_rows(
        version: &str,
        classes: [&str; 2],
        ids: Range<u64>,
        one_in: u64,
        is_labelled: impl Fn(u64) -> bool,
    ) -> Profile {
        let spec = Spec {
            model: "m".into(),
            version: version.into(),
            threshold: 0.5,
            classes: classes.map(String::from).to_vec(),
            ..Spec::default()
        };
        let mut profile = Profile::new(Arc::new(spec), 1000, 1);
        for id in ids {
            let truth = id % 2;
            let sure = 0.9 - (id % 7) as f64 / 100.0;
            let answer = if id % one_in == 0 { 1 - truth } else { truth };
            let yes = if answer == 1 { sure } else { 1.0 - sure };
            let by_name = if classes[0] == "no" { [1.0 - yes, yes] } else { [yes, 1.0 - yes] };
            let truth = if classes[0] == "no" { truth as i32 } else { 1 - truth as i32 };
            let label = [if is_labelled(id) { truth } else { -1 }];
            profile.update(&Rows {
                count: 1,
                probabilities: Some(Columns::F64(ArrayView2::from_shape((1, 2), &by_name).unwrap())),
                labels: Some(Labels::Classes(&label)),
                ids: Some(&[id]),
                ..Rows::default()
            });
        }
        profile
    }

    fn compared(profiles: &[Profile]) -> Vec<Canary> {
        let mut versions = Versions::default();
        let mut last = Vec::new();
        for profile in profiles {
            let mut report = Report::of(PERIOD, profile, [""; 5]);
            versions.compare(&mut report, PERIOD, &OrderedSample::of(profile, None), &DriftSettings::default(), true);
            last = report.canary;
        }
        last
    }

    #[test]
    fn versions_that_answer_alike_agree_whatever_the_order_of_their_classes() {
        let same = compared(&[profile("1", ["no", "yes"], 0, 1000), profile("2", ["yes", "no"], 0, 1000)]);
        assert_eq!((same.len(), same[0].version.as_str(), same[0].verdict), (1, "1", Some(Verdict::Ok)));
        assert_eq!((same[0].agreement.value, same[0].agreement.n), (Some(1.0), 600));
        assert_eq!((same[0].class_mix.measure.value, same[0].confidence_ks.measure.value), (Some(0.0), Some(0.0)));
        assert_eq!((same[0].margin_ks.measure.value, same[0].entropy_ks.measure.value), (Some(0.0), Some(0.0)));
        assert_eq!(same[0].accuracy_difference.value, Some(0.0));
        let Canary { class_mix, confidence_ks, margin_ks, entropy_ks, .. } = same[0];
        for measure in [class_mix, confidence_ks, margin_ks, entropy_ks] {
            assert_eq!((measure.n, measure.n_other), (Some(600), Some(600)));
        }
    }

    #[test]
    fn in_another_rounding_the_same_answers_are_no_difference_and_others_are() {
        let tenths = |version: &str, narrow: bool, up: f64| {
            let spec = Spec {
                model: "m".into(),
                version: version.into(),
                threshold: 0.5,
                classes: ["no", "yes"].map(String::from).to_vec(),
                ..Spec::default()
            };
            let mut profile = Profile::new(Arc::new(spec), 1000, 1);
            let p = |i: u32| (f64::from(i % 4 + 1) / 10.0 + up).min(0.45);
            let rows: Vec<f64> = (0..1000).flat_map(|i| [1.0 - p(i), p(i)]).collect();
            let wide = ArrayView2::from_shape((1000, 2), &rows).unwrap();
            let single = wide.mapv(|p| p as f32);
            let probabilities = if narrow { Columns::F32(single.view()) } else { Columns::F64(wide) };
            profile.update(&Rows { count: 1000, probabilities: Some(probabilities), ..Rows::default() });
            profile
        };
        for narrow in [false, true] {
            let same = &compared(&[tenths("1", narrow, 0.0), tenths("2", !narrow, 0.0)])[0];
            let ks = |canary: &Canary| {
                [canary.confidence_ks, canary.margin_ks, canary.entropy_ks].map(|ks| ks.measure.value)
            };
            assert_eq!((ks(same), same.verdict), ([Some(0.0); 3], Some(Verdict::Ok)));
            let other = &compared(&[tenths("1", narrow, 0.0), tenths("2", !narrow, 0.1)])[0];
            assert!(ks(other).iter().all(|ks| *ks > Some(0.2)), "{other:?}");
            assert_eq!(other.verdict, Some(Verdict::Alert));
        }
    }

    #[test]
    fn a_worse_version_shows_in_accuracy_and_agreement_with_their_intervals() {
        let worse = &compared(&[profile("1", ["no", "yes"], 0, 1000), profile("2", ["no", "yes"], 200, 4)])[0];
        let difference = worse.accuracy_difference;
        assert!((difference.value.unwrap() + 0.25).abs() < 0.01, "{difference:?}");
        assert!(
            difference.low < difference.value && difference.value < difference.high && difference.high < Some(-0.2)
        );
        assert_eq!((difference.verdict, worse.verdict), (Some(Verdict::Alert), Some(Verdict::Alert)));
        assert_eq!((worse.agreement.value, worse.agreement.n), (Some(0.75), 400), "400 ids are in both");
    }

    #[test]
    fn an_unused_class_more_is_no_difference_and_entropies_are_not_compared() {
        let two = profile("1", ["no", "yes"], 0, 1000);
        let mut three = (*two.spec).clone();
        (three.version, three.classes) = ("2".into(), ["no", "yes", "never"].map(String::from).to_vec());
        let mut profile = Profile::new(three.into(), 1000, 1);
        two.sample.probabilities.for_each_row(|row: &[f64]| {
            let with_none = [row[0], row[1], 0.0];
            let probabilities = Some(Columns::F64(ArrayView2::from_shape((1, 3), &with_none).unwrap()));
            profile.update(&Rows { count: 1, probabilities, ..Rows::default() });
        });
        let same = &compared(&[two, profile])[0];
        assert_eq!((same.entropy_ks.measure.value, same.entropy_ks.measure.reason), (None, Some("not_comparable")));
        assert_eq!(
            (same.confidence_ks.measure.value, same.margin_ks.measure.value, same.verdict),
            (Some(0.0), Some(0.0), Some(Verdict::Ok))
        );
    }

    #[test]
    fn what_few_rows_say_is_given_without_a_verdict_and_says_so() {
        let names = ["no", "yes"];
        let few = &compared(&[of_rows("1", names, 0..20, 100, |_| true), of_rows("2", names, 0..600, 2, |_| true)])[0];
        let reasons = [
            few.class_mix.measure.reason,
            few.confidence_ks.measure.reason,
            few.margin_ks.measure.reason,
            few.accuracy_difference.reason,
        ];
        assert_eq!((reasons, few.verdict), ([Some("too_few"); 4], None));
        assert!(few.confidence_ks.measure.value.is_some() && few.accuracy_difference.value.is_some());
        let labelled = |version, one_in| of_rows(version, names, 0..600, one_in, |id| id < 29);
        let labels = &compared(&[labelled("1", 1000), labelled("2", 2)])[0];
        assert_eq!((labels.accuracy_difference.n, labels.accuracy_difference.reason), (29, Some("too_few")));
        assert_eq!((labels.accuracy_difference.verdict, labels.class_mix.measure.reason), (None, None));
        assert!(labels.class_mix.measure.verdict.is_some());
    }

    #[test]
    fn another_period_or_model_is_not_compared() {
        let (a, b) = (profile("1", ["no", "yes"], 0, 9), profile("2", ["no", "yes"], 0, 9));
        let mut versions = Versions::default();
        let mut report = Report::of(PERIOD, &a, [""; 5]);
        versions.compare(&mut report, PERIOD, &OrderedSample::of(&a, None), &DriftSettings::default(), true);
        let next = Period { start_ns: 1, end_ns: 2, partial: false };
        let mut report = Report::of(next, &b, [""; 5]);
        versions.compare(&mut report, next, &OrderedSample::of(&b, None), &DriftSettings::default(), true);
        assert!(report.canary.is_empty());
        assert!(compared(&[a]).is_empty(), "itself");
    }

    #[test]
    fn of_each_pair_the_version_that_comes_later_by_its_bytes_reports_whichever_closes_first() {
        let profiles = ["10", "2", "9"].map(|version| profile(version, ["no", "yes"], 0, 9));
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let mut versions = Versions::default();
            for at in order {
                let mut report = Report::of(PERIOD, &profiles[at], [""; 5]);
                let sample = OrderedSample::of(&profiles[at], None);
                versions.compare(&mut report, PERIOD, &sample, &DriftSettings::default(), true);
                assert!(report.canary.iter().all(|other| other.version < report.version), "{order:?}");
            }
        }
    }

    #[test]
    fn what_is_still_to_be_compared_with_is_remembered_however_many_close_at_once() {
        let of = |model: u64, version: &str| {
            let mut profile = of_rows(version, ["no", "yes"], 0..3, 9, |_| true);
            let spec = Spec { model: model.to_string(), ..(*profile.spec).clone() };
            profile.spec = spec.into();
            profile
        };
        let mut versions = Versions::default();
        let mut compare = |model, version, has_versions| {
            let profile = of(model, version);
            let mut report = Report::of(PERIOD, &profile, [""; 5]);
            let sample = OrderedSample::of(&profile, None);
            versions.compare(&mut report, PERIOD, &sample, &DriftSettings::default(), has_versions);
            (report.canary.len(), versions.0.len())
        };
        let first = MOST_REMEMBERED as u64 + 10;
        (0..first).for_each(|model| assert_eq!(compare(model, "1", true).0, 0));
        (0..first).for_each(|model| assert_eq!(compare(first + model, "1", false).0, 0));
        (0..first).for_each(|model| assert_eq!(compare(model, "2", true).0, 1, "{model}"));
        (0..MOST_NEEDED as u64).for_each(|model| assert!(compare(1000 + model, "1", true).1 <= MOST_NEEDED));
    }

    /// How likely each number of right rows is, by the binomial's recursion, as far as it matters.
    fn chances(rows: u64, accuracy: f64) -> Vec<(u64, f64)> {
        let odds = accuracy / (1.0 - accuracy);
        let mut logs = vec![rows as f64 * (1.0 - accuracy).ln()];
        for right in 1..=rows {
            logs.push(logs[right as usize - 1] + ((rows - right + 1) as f64 / right as f64 * odds).ln());
        }
        (0..=rows).zip(logs.into_iter().map(f64::exp)).filter(|(_, chance)| *chance > 1e-13).collect()
    }

    /// The chance that two versions that are equally right are told apart by a period, summed over all that may come.
    fn told_apart(rows: [u64; 2], accuracy: f64, settings: &DriftSettings) -> f64 {
        let [one, other] = rows.map(|rows| chances(rows, accuracy));
        let mut sum = 0.0;
        for (right, chance) in &one {
            for (other_right, other_chance) in &other {
                let z = SharesApart::of(*right, rows[0], *other_right, rows[1]).unwrap();
                let mut interval = Interval { value: Some(z.value), z: z.z, ..Interval::default() };
                interval.judge(settings);
                sum += if interval.verdict > Some(Verdict::Ok) { chance * other_chance } else { 0.0 };
            }
        }
        sum
    }

    #[test]
    fn versions_that_are_equally_right_start_less_than_an_alert_a_month() {
        let settings = DriftSettings::default();
        let mut worst = (0.0, [0, 0], 0.0);
        for rows in [[30, 30], [30, 300], [30, 3000], [50, 50], [100, 100], [300, 300], [1000, 1000]] {
            for accuracy in [0.5, 0.7, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995] {
                let p = told_apart(rows, accuracy, &settings);
                // 3 of 5: the last is bad, and two of the four before it; 8,640 periods of 5 minutes.
                let a_month = 6.0 * p.powi(3) * 8640.0;
                println!("{rows:?} rows, accuracy {accuracy}: {p:.2e} a period, {a_month:.2e} alerts a month");
                if a_month > worst.0 {
                    worst = (a_month, rows, accuracy);
                }
            }
        }
        println!("worst: {worst:?}");
        assert!(worst.0 < 0.1, "{worst:?}");
    }

    #[test]
    fn a_version_that_is_a_tenth_less_right_is_told_apart_by_a_thousand_rows() {
        let z = SharesApart::of(900, 1000, 800, 1000).unwrap();
        let mut interval = Interval { value: Some(z.value), z: z.z, ..Interval::default() };
        interval.judge(&DriftSettings::default());
        assert_eq!(interval.verdict, Some(Verdict::Alert), "{z:?}");
    }
}
