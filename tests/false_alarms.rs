//! How often the default alerts cry wolf, and how soon they notice what is real: periods of simulated rows through the real profile,
//! reference, report and rules.
//!
//! MLWATCH_PERIODS=8640 cargo test --release --test false_alarms -- --nocapture   # a month of 5-minute periods, of each size

use mlwatch::alert::{AlertSettings, Alerts};
use mlwatch::period::Period;
use mlwatch::profile::{Feature, Profile, Rows, Spec};
use mlwatch::reference::Reference;
use mlwatch::report::{Alert, AlertState, DriftSettings, OrderedSample, Report, Verdict};
use mlwatch::stats::Columns;
use ndarray::ArrayView2;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::sync::Arc;

const FEATURES: usize = 100;
const REFERENCE_ROWS: usize = 10_000;
const PERIODS_OF_A_MONTH: f64 = 30.0 * 288.0;
/// A tenth of them each: what production is made of.
const KINDS: usize = 10;

struct World {
    random: Xoshiro256PlusPlus,
    spec: Arc<Spec>,
    reference: Reference,
    alerts: Alerts,
    period: u64,
}

fn uniform(random: &mut Xoshiro256PlusPlus) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Box and Muller.
fn normal(random: &mut Xoshiro256PlusPlus) -> f64 {
    let radius = (-2.0 * (1.0 - uniform(random)).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(random)).cos()
}

/// A value of the feature's kind; the first is normal with std 1.
fn value(feature: usize, random: &mut Xoshiro256PlusPlus) -> f64 {
    let x = normal(random);
    match feature % KINDS {
        0 | 1 => x,
        2 => 1e6 + 1e-2 * x,
        3 => x.exp(),
        4 => -(1.0 - uniform(random)).ln(),
        5 if uniform(random) < 0.8 => 0.0,
        6 => (3.0 + x).round().max(0.0),
        7 => f64::from(u8::from(uniform(random) < 0.02)),
        8 if uniform(random) < 0.1 => f64::NAN,
        9 => x / normal(random).abs().max(1e-3),
        _ => x,
    }
}

impl World {
    fn new(seed: u64) -> World {
        let feature = |i: usize| Feature { name: format!("f{i}"), categorical: false };
        let spec =
            Arc::new(Spec { model: "m".into(), features: (0..FEATURES).map(feature).collect(), ..Spec::default() });
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut profile = Profile::new(spec.clone(), REFERENCE_ROWS as u64, 1);
        feed(&mut profile, REFERENCE_ROWS, &mut random, 0.0);
        let (reference, alerts) = (Reference::of(&profile), Alerts::new(AlertSettings::default()));
        World { random, spec, reference, alerts, period: 0 }
    }

    /// A period of `rows` rows, the first feature `shift` deviations beside itself.
    fn live(&mut self, rows: usize, shift: f64) -> Report {
        let frozen = self.reference.frozen(&self.spec);
        let mut profile = Profile::new(self.spec.clone(), 16_384, self.period).counting_in(Some(&frozen));
        feed(&mut profile, rows, &mut self.random, shift);
        self.period += 1;
        let period = Period { start_ns: self.period, end_ns: self.period + 1, partial: false };
        let sample = OrderedSample::of(&profile, Some(&self.reference));
        let report = Report::of_ordered(period, &sample, [""; 5]);
        let mut report = report.against(&sample, &DriftSettings::default());
        self.alerts.judge(&mut report, 0, Some(&self.reference), false);
        report
    }
}

fn feed(profile: &mut Profile, rows: usize, random: &mut Xoshiro256PlusPlus, shift: f64) {
    let mut values = Vec::with_capacity(rows * FEATURES);
    for _ in 0..rows {
        values.push(value(0, random) + shift);
        values.extend((1..FEATURES).map(|feature| value(feature, random)));
    }
    let features = Columns::F64(ArrayView2::from_shape((rows, FEATURES), &values).unwrap());
    profile.update(&Rows { count: rows, features: Some(features), ..Rows::default() });
}

fn started(report: &Report) -> impl Iterator<Item = &Alert> {
    report.alerts.iter().filter(|alert| alert.state == AlertState::Started)
}

fn periods() -> usize {
    std::env::var("MLWATCH_PERIODS").map_or(12, |text| text.parse().expect("a number of periods"))
}

/// With 3 of 5, a column whose periods are bad with probability p starts an alert in at most a period in 1 / (6 p³): the last of the
/// five is bad, and two of the four before it. A month has 864,000 periods of 100 columns.
#[test]
fn nothing_that_is_as_usual_wakes_anybody() {
    println!("rows a period   verdicts   not ok   alerts   expected a month (at most)");
    for rows in [30, 100, 300, 1000] {
        let mut world = World::new(rows as u64);
        let (mut verdicts, mut bad, mut alerts) = (0u64, 0u64, 0);
        for _ in 0..periods() {
            let report = world.live(rows, 0.0);
            let columns = || report.drift.iter().flat_map(|drift| &drift.columns).filter_map(|column| column.verdict);
            verdicts += columns().count() as u64;
            bad += columns().filter(|verdict| *verdict > Verdict::Ok).count() as u64;
            alerts += started(&report).count();
        }
        let p = bad as f64 / verdicts as f64;
        let a_month = 6.0 * p.powi(3) * FEATURES as f64 * PERIODS_OF_A_MONTH;
        println!("{rows:>13} {verdicts:>10} {bad:>8} {alerts:>8}   {a_month:.2e}");
        assert_eq!(alerts, 0);
        assert!(a_month <= 1.0, "{bad} of {verdicts} verdicts: {a_month} alerts a month");
    }
}

#[test]
fn half_a_deviation_is_noticed_within_five_periods_and_in_no_other_feature() {
    for rows in [300, 1000] {
        let mut world = World::new(7);
        for _ in 0..5 {
            assert!(world.live(rows, 0.0).alerts.is_empty());
        }
        let mut waited = 0;
        let first = loop {
            waited += 1;
            let report = world.live(rows, 0.5);
            if let Some(alert) = started(&report).next() {
                assert_eq!(started(&report).count(), 1);
                break alert.clone();
            }
            assert!(waited < 5, "not noticed with {rows} rows a period");
        };
        println!("{rows} rows a period: noticed after {waited} periods, {}", first.metric);
        assert_eq!(first.name, "f0");
    }
}
