//! How often the default alerts cry wolf, and how soon they notice what is real: periods of simulated rows through the real profile,
//! reference, report and rules. What a live ring gives goes the way that rows do: `Reference::of` a profile.
//!
//! MLWATCH_PERIODS=8640 cargo test --release --test false_alarms -- --nocapture   # a month of 5-minute periods, of each size

use mlwatch::alert::{AlertSettings, Alerts};
use mlwatch::period::Period;
use mlwatch::profile::{Feature, Labels, Profile, Rows, Spec};
use mlwatch::reference::Reference;
use mlwatch::report::{Alert, AlertState, ColumnKind, DriftSettings, OrderedSample, Report, Verdict, Versions};
use mlwatch::source::{ReportsOf, of_reports};
use mlwatch::stats::Columns;
use ndarray::ArrayView2;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::fs;
use std::sync::Arc;

const FEATURES: usize = 100;
const REFERENCE_ROWS: usize = 10_000;
const PERIODS_OF_A_MONTH: f64 = 30.0 * 288.0;
/// What production is made of, about as many columns of each.
const KINDS: [&str; 12] = [
    "normal",
    "normal",
    "mean 1e6, std 1e-2",
    "log-normal",
    "exponential",
    "mostly zero",
    "small counts",
    "rare flags",
    "gaps",
    "Cauchy",
    "large whole numbers",
    "constant",
];
/// Codes: so many values, as likely as each other, by Zipf's law, or one of them in half of the rows; or each .9 times as often as the
/// one before it; or so many that new ones always come.
const CODES: [&str; 11] = [
    "100 codes",
    "100 codes, Zipf",
    "100 codes, one in half",
    "200 codes",
    "200 codes, Zipf",
    "200 codes, one in half",
    "1000 codes",
    "1000 codes, Zipf",
    "1000 codes, one in half",
    "geometric codes",
    "whole numbers of a long tail",
];

/// Columns of one sort, as many of each kind.
#[derive(Clone, Copy)]
struct Sort {
    kinds: &'static [&'static str],
    features: usize,
    reference_rows: usize,
    categorical: bool,
    value: fn(usize, &mut Xoshiro256PlusPlus, f64) -> f64,
}

const NUMBERS: Sort =
    Sort { kinds: &KINDS, features: FEATURES, reference_rows: REFERENCE_ROWS, categorical: false, value };

fn codes(reference_rows: usize) -> Sort {
    Sort { kinds: &CODES, features: 2 * CODES.len(), reference_rows, categorical: true, value: code }
}

struct World {
    sort: Sort,
    random: Xoshiro256PlusPlus,
    spec: Arc<Spec>,
    reference: Reference,
    alerts: Alerts,
    period: u64,
}

/// What the reference is made from.
#[derive(Clone, Copy, Debug)]
enum Made {
    /// Rows: arrays, a table, a ring.
    Rows,
    /// References of rows, merged.
    Merged { parts: usize },
    /// The reports of so many periods.
    Reports { periods: usize, rows: usize },
    /// References of reports, merged.
    MergedReports { parts: usize, periods: usize, rows: usize },
}

fn uniform(random: &mut Xoshiro256PlusPlus) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Box and Muller.
fn normal(random: &mut Xoshiro256PlusPlus) -> f64 {
    let radius = (-2.0 * (1.0 - uniform(random)).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(random)).cos()
}

/// A value of the feature's kind, normal with std 1 unless it says otherwise, `shift` beside itself.
fn value(feature: usize, random: &mut Xoshiro256PlusPlus, shift: f64) -> f64 {
    let x = normal(random) + shift;
    match feature % KINDS.len() {
        2 => 1e6 + 1e-2 * x,
        3 => x.exp(),
        4 => -(1.0 - uniform(random)).ln() + shift,
        5 if uniform(random) < 0.8 => 0.0,
        6 => (3.0 + x).round().max(0.0),
        7 => f64::from(u8::from(uniform(random) < 0.02)),
        8 if uniform(random) < 0.1 => f64::NAN,
        9 => x / normal(random).abs().max(1e-3),
        10 => (200.0 + 30.0 * x).round(),
        11 => 5.0,
        _ => x,
    }
}

/// A code of the feature's kind.
fn code(feature: usize, random: &mut Xoshiro256PlusPlus, _: f64) -> f64 {
    let (kind, u) = (feature % CODES.len(), uniform(random));
    let codes = [100.0, 200.0, 1000.0, 0.0][kind / 3];
    match kind {
        10 => (1.0 - u).powi(-2).floor(),
        9 => ((1.0 - u).ln() / 0.9f64.ln()).floor(),
        1 | 4 | 7 => (codes + 1.0f64).powf(u).floor(),
        2 | 5 | 8 if u < 0.5 => codes,
        _ => (uniform(random) * codes).floor(),
    }
}

impl Made {
    fn make(self, sort: Sort, spec: &Arc<Spec>, random: &mut Xoshiro256PlusPlus) -> Reference {
        let mut merged = |parts: usize, part: Made| {
            let parts: Vec<Reference> = (0..parts).map(|_| part.make(sort, spec, random)).collect();
            Reference::merge(&parts, None).unwrap()
        };
        match self {
            Made::Rows => {
                let rows = sort.reference_rows;
                Reference::of(&fed(Profile::new(spec.clone(), rows as u64, 1), sort, rows, random))
            }
            Made::Merged { parts } => merged(parts, Made::Rows),
            Made::MergedReports { parts, periods, rows } => merged(parts, Made::Reports { periods, rows }),
            Made::Reports { periods, rows } => {
                let line = |i| {
                    let profile = fed(Profile::new(spec.clone(), 16_384, i), sort, rows, random);
                    serde_json::to_string(&report_of(&OrderedSample::of(&profile, None), i)).unwrap() + "\n"
                };
                reported(&(1..=periods as u64).map(line).collect::<String>())
            }
        }
    }
}

/// What the sidecar's files of these lines say.
fn reported(lines: &str) -> Reference {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics-1.jsonl");
    fs::write(&path, lines).unwrap();
    of_reports(&[path], &ReportsOf { model: "m".into(), version: String::new(), threshold: 0.5 }).unwrap()
}

fn report_of(sample: &OrderedSample<'_>, period: u64) -> Report {
    let start_ns = period * 1_000_000_000;
    Report::of_ordered(Period { start_ns, end_ns: start_ns + 1, partial: false }, sample, [""; 5])
}

impl World {
    fn new(sort: Sort, made: Made, seed: u64) -> World {
        let feature = |i: usize| Feature { name: format!("f{i}"), categorical: sort.categorical };
        let features = (0..sort.features).map(feature).collect();
        let spec = Arc::new(Spec { model: "m".into(), features, ..Spec::default() });
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let reference = made.make(sort, &spec, &mut random);
        World { sort, random, spec, reference, alerts: Alerts::new(AlertSettings::default()), period: 0 }
    }

    /// A period of `rows` rows, the feature `moved` half a deviation beside itself.
    fn live(&mut self, rows: usize, moved: Option<usize>) -> Report {
        let frozen = self.reference.frozen(&self.spec);
        let mut profile = Profile::new(self.spec.clone(), 16_384, self.period).counting_in(Some(&frozen));
        feed(&mut profile, self.sort, rows, &mut self.random, moved);
        self.period += 1;
        let sample = OrderedSample::of(&profile, Some(&self.reference));
        let mut report = report_of(&sample, self.period).against(&sample, &DriftSettings::default());
        self.alerts.judge(&mut report, 0, Some(&self.reference), false);
        report
    }
}

fn fed(mut profile: Profile, sort: Sort, rows: usize, random: &mut Xoshiro256PlusPlus) -> Profile {
    feed(&mut profile, sort, rows, random, None);
    profile
}

fn feed(profile: &mut Profile, sort: Sort, rows: usize, random: &mut Xoshiro256PlusPlus, moved: Option<usize>) {
    const BATCH: usize = 1000;
    let width = sort.features;
    for first in (0..rows).step_by(BATCH) {
        let count = BATCH.min(rows - first);
        let shift = |feature| if moved == Some(feature) { 0.5 } else { 0.0 };
        let values: Vec<f64> = (0..count * width).map(|i| (sort.value)(i % width, random, shift(i % width))).collect();
        let features = Columns::F64(ArrayView2::from_shape((count, width), &values).unwrap());
        profile.update(&Rows { count, features: Some(features), ..Rows::default() });
    }
}

fn started(report: &Report) -> impl Iterator<Item = &Alert> {
    report.alerts.iter().filter(|alert| alert.state == AlertState::Started)
}

fn asked() -> Option<usize> {
    std::env::var("MLWATCH_PERIODS").ok().map(|text| text.parse().expect("a number of periods"))
}

fn periods() -> usize {
    asked().unwrap_or(12)
}

/// Of a kind of columns.
#[derive(Clone, Copy, Default)]
struct Judged {
    verdicts: u64,
    bad: u64,
    columns: u64,
}

impl Judged {
    /// With 3 of 5, a column whose periods are bad with probability p starts an alert in at most a period in 1 / (6 p³): the last of the
    /// five is bad, and two of the four before it.
    fn alerts_a_month(&self) -> f64 {
        match self.verdicts {
            0 => 0.0,
            n => 6.0 * (self.bad as f64 / n as f64).powi(3) * self.columns as f64 * PERIODS_OF_A_MONTH,
        }
    }
}

const HEADING: &str = "rows a period   verdicts   not ok   alerts   expected a month (at most)";

/// Nothing changes for `periods()`. Kind by kind, for a rare alarm in every column is none, and a steady one in a few is many.
fn assert_quiet(sort: Sort, made: Made, rows: usize) {
    let mut world = World::new(sort, made, rows as u64);
    let (mut kinds, mut alerts) = (vec![Judged::default(); sort.kinds.len()], 0);
    let kind_of = |feature| feature % sort.kinds.len();
    // Of a hundred columns, whatever their number.
    (0..FEATURES).for_each(|feature| kinds[kind_of(feature)].columns += 1);
    for _ in 0..periods() {
        let report = world.live(rows, None);
        let columns = report.drift.iter().flat_map(|drift| &drift.columns);
        for (feature, column) in columns.filter(|column| column.of == ColumnKind::Feature).enumerate() {
            let kind = &mut kinds[kind_of(feature)];
            kind.verdicts += u64::from(column.verdict.is_some());
            kind.bad += u64::from(column.verdict > Some(Verdict::Ok));
        }
        alerts += started(&report).count();
    }
    let all = kinds.iter().fold(Judged::default(), |all, kind| Judged {
        verdicts: all.verdicts + kind.verdicts,
        bad: all.bad + kind.bad,
        columns: all.columns + kind.columns,
    });
    let a_month: f64 = kinds.iter().map(Judged::alerts_a_month).sum();
    println!("{rows:>13} {:>10} {:>8} {alerts:>8}   {a_month:.2e}   {made:?}", all.verdicts, all.bad);
    for (name, kind) in sort.kinds.iter().zip(&kinds).filter(|(_, kind)| kind.bad > 0) {
        println!("{:>13} {:>10} {:>8}            {:.2e}   {name}", "", kind.verdicts, kind.bad, kind.alerts_a_month());
    }
    assert_eq!(alerts, 0, "{made:?}");
    // Of a dozen periods one bad verdict says little about its kind.
    let expected = if asked().is_some() { a_month } else { all.alerts_a_month() };
    assert!(expected <= 1.0, "{made:?}: {expected} alerts a month");
}

/// Periods until `feature` starts an alert, and the measure that did.
fn noticed(made: Made, rows: usize, feature: usize) -> (usize, String) {
    let mut world = World::new(NUMBERS, made, 7);
    for _ in 0..5 {
        assert!(world.live(rows, None).alerts.is_empty(), "{made:?}");
    }
    for waited in 1..5 {
        let report = world.live(rows, Some(feature));
        if let Some(alert) = started(&report).next() {
            assert_eq!((started(&report).count(), alert.name.as_str()), (1, format!("f{feature}").as_str()));
            println!("{rows} rows a period, {made:?}: {} noticed after {waited}, {}", KINDS[feature], alert.metric);
            return (waited, alert.metric.clone());
        }
    }
    panic!("not noticed with {rows} rows a period, {made:?}");
}

/// Of more rows a period where time was given.
fn sizes() -> &'static [usize] {
    if asked().is_some() { &[200, 2000, 20_000] } else { &[200] }
}

#[test]
fn nothing_that_is_as_usual_wakes_anybody() {
    println!("{HEADING}");
    for rows in [30, 100, 300, 1000] {
        assert_quiet(NUMBERS, Made::Rows, rows);
    }
}

/// Most bins of such columns expect less than one row.
#[test]
fn codes_of_many_values_wake_nobody_either() {
    println!("{HEADING}");
    for reference_rows in [3000, 50_000] {
        for rows in [50, 100, 300, 1000] {
            assert_quiet(codes(reference_rows), Made::Rows, rows);
        }
    }
    assert_quiet(codes(10_000), Made::Merged { parts: 2 }, 300);
}

#[test]
fn merged_references_wake_nobody_either() {
    println!("{HEADING}");
    for parts in [2, 12] {
        sizes().iter().for_each(|rows| assert_quiet(NUMBERS, Made::Merged { parts }, *rows));
    }
}

#[test]
fn references_made_of_reports_wake_nobody_either() {
    println!("{HEADING}");
    for &rows in sizes() {
        assert_quiet(NUMBERS, Made::Reports { periods: 10_000usize.div_ceil(rows).max(4), rows }, rows);
    }
    assert_quiet(NUMBERS, Made::Reports { periods: 1, rows: 2000 }, 2000);
}

#[test]
fn merged_references_made_of_reports_wake_nobody_either() {
    println!("{HEADING}");
    for parts in [2, 12] {
        assert_quiet(NUMBERS, Made::MergedReports { parts, periods: 5, rows: 200 }, 200);
        assert_quiet(NUMBERS, Made::MergedReports { parts, periods: 1, rows: 2000 }, 2000);
    }
}

#[test]
fn half_a_deviation_is_noticed_within_five_periods_and_in_no_other_feature() {
    for rows in [300, 1000] {
        noticed(Made::Rows, rows, 0);
    }
}

#[test]
fn half_a_deviation_is_noticed_as_soon_whatever_the_reference_was_made_of() {
    let reports = Made::Reports { periods: 12, rows: 1000 };
    let merged = Made::MergedReports { parts: 2, periods: 12, rows: 300 };
    for (made, rows) in [(Made::Merged { parts: 12 }, 300), (reports, 300), (reports, 1000), (merged, 300)] {
        assert_eq!(noticed(made, rows, 0).0, 3);
    }
}

/// How a model of two classes says what it knows.
#[derive(Clone, Copy, Debug)]
enum Sureness {
    Calibrated,
    /// Of what it says half is true.
    Overconfident,
    /// Right in 99 of 100 rows.
    Sure,
}

/// Rows of a model that goes on as it is, each with the label that a coin gives it.
fn answered(mut profile: Profile, rows: usize, sureness: Sureness, random: &mut Xoshiro256PlusPlus) -> Profile {
    let (mut proba, mut labels) = (Vec::with_capacity(2 * rows), Vec::with_capacity(rows));
    for _ in 0..rows {
        let x = uniform(random);
        let (says, is) = match sureness {
            Sureness::Calibrated => (x, x),
            Sureness::Overconfident => (x, 0.25 + x / 2.0),
            Sureness::Sure => (if x < 0.5 { 0.01 } else { 0.99 }, if x < 0.5 { 0.01 } else { 0.99 }),
        };
        proba.extend([1.0 - says, says]);
        labels.push(i32::from(uniform(random) < is));
    }
    let probabilities = Some(Columns::F64(ArrayView2::from_shape((rows, 2), &proba).unwrap()));
    profile.update(&Rows { count: rows, probabilities, labels: Some(Labels::Classes(&labels)), ..Rows::default() });
    profile
}

fn classifier(version: &str) -> Arc<Spec> {
    let classes = ["no", "yes"].map(String::from).to_vec();
    Arc::new(Spec { model: "m".into(), version: version.into(), threshold: 0.5, classes, ..Spec::default() })
}

/// How many of so many periods were judged, and were not all right; expected alerts a month.
fn print_judged(what: &str, rows: usize, judged: Judged, alerts: usize) -> f64 {
    let a_month = judged.alerts_a_month();
    println!("{rows:>13} {:>10} {:>8} {alerts:>8}   {a_month:.2e}   {what}", judged.verdicts, judged.bad);
    a_month
}

#[test]
fn labels_that_come_as_the_reference_has_taught_wake_nobody() {
    println!("{HEADING}");
    for sureness in [Sureness::Calibrated, Sureness::Overconfident, Sureness::Sure] {
        for (taught, rows) in [(200, 1000), (2000, 30), (2000, 300), (10_000, 1000)] {
            let mut random = Xoshiro256PlusPlus::seed_from_u64(taught as u64 + rows as u64);
            let (spec, mut alerts) = (classifier(""), Alerts::new(AlertSettings::default()));
            let (mut both, mut started_ones) = ([Judged { columns: 1, ..Judged::default() }; 2], 0);
            for period in 1..=periods() as u64 {
                // Another one every time: an unlucky reference would be unlucky all the time.
                let reference =
                    Reference::of(&answered(Profile::new(spec.clone(), 1, 1), taught, sureness, &mut random));
                let frozen = reference.frozen(&spec);
                let profile = Profile::new(spec.clone(), 1, period).counting_in(Some(&frozen));
                let profile = answered(profile, rows, sureness, &mut random);
                let sample = OrderedSample::of(&profile, None);
                let mut report = report_of(&sample, period).judged(&DriftSettings::default());
                alerts.judge(&mut report, 0, None, false);
                let estimated = report.estimated.as_ref().unwrap();
                for (judged, drift) in both.iter_mut().zip([estimated.concept_drift, estimated.accuracy_drift]) {
                    judged.verdicts += u64::from(drift.verdict.is_some());
                    judged.bad += u64::from(drift.verdict > Some(Verdict::Ok));
                }
                started_ones += started(&report).count();
            }
            assert!(both.iter().all(|judged| judged.verdicts == periods() as u64), "{sureness:?}");
            let what = ["concept", "accuracy"].map(|of| format!("{of}, {taught} rows taught, {sureness:?}"));
            let a_month: f64 =
                what.iter().zip(both).map(|(what, one)| print_judged(what, rows, one, started_ones)).sum();
            assert!(started_ones == 0 && a_month <= 1.0, "{sureness:?}: {a_month} alerts a month");
        }
    }
}

#[test]
fn versions_that_are_equally_good_wake_nobody() {
    println!("{HEADING}");
    for [one, other] in [[30, 30], [30, 1000], [300, 300], [1000, 1000]] {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(one as u64 + other as u64);
        let (specs, mut alerts) = (["1", "2"].map(classifier), Alerts::new(AlertSettings::default()));
        let (mut judged, mut started_ones) = (Judged { columns: 1, ..Judged::default() }, 0);
        let mut versions = Versions::default();
        for period in 1..=periods() as u64 {
            for (spec, rows) in specs.iter().zip([one, other]) {
                let profile = Profile::new(spec.clone(), 16_384, period);
                let profile = answered(profile, rows, Sureness::Calibrated, &mut random);
                let sample = OrderedSample::of(&profile, None);
                let start_ns = period * 1_000_000_000;
                let period = Period { start_ns, end_ns: start_ns + 1, partial: false };
                let mut report = Report::of_ordered(period, &sample, [""; 5]);
                versions.compare(&mut report, period, &sample, &DriftSettings::default(), true);
                alerts.judge(&mut report, 0, None, false);
                judged.verdicts += report.canary.iter().filter(|other| other.verdict.is_some()).count() as u64;
                judged.bad += report.canary.iter().filter(|other| other.verdict > Some(Verdict::Ok)).count() as u64;
                started_ones += started(&report).count();
            }
        }
        assert_eq!(judged.verdicts, periods() as u64);
        let a_month = print_judged(&format!("{one} against {other}, all measures"), one, judged, started_ones);
        assert!(started_ones == 0 && (asked().is_none() || a_month <= 1.0), "{a_month} alerts a month");
    }
}
