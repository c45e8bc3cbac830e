//! References beside the real sidecar: periods compared, files replaced and damaged under it, a kill in the middle.

mod support;

use mlwatch::profile::{Feature, Labels, Profile, Rows, Spec};
use mlwatch::reference::Reference;
use mlwatch::stats::Columns;
use ndarray::ArrayView2;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use support::sidecar::{Sidecar, reports, wait_until, wait_until_drained};
use support::{Options, Producer, RawBatch, batch, ring_dir};

const MINUTE: u64 = 60_000_000_000;
const DAY: u64 = 1440 * MINUTE;
const ROWS: usize = 400;

/// Equidistributed in [0, 1).
fn feature(i: usize, column: usize) -> f32 {
    ((i as f64) * [0.754_877_666, 0.569_840_29][column]).fract() as f32
}

/// Of the model that `support::Options` describe, from rows as [`write_period`] writes them.
fn reference(rows: usize, version: &str) -> Reference {
    let options = Options::default();
    let names = ["class_0", "class_1", "class_2"].map(String::from).to_vec();
    let features = ["feat_0", "feat_1"].map(|name| Feature { name: name.into(), categorical: false }).to_vec();
    let (model, version) = (options.model, version.into());
    let spec = Spec { model, version, threshold: 0.5, classes: names, features, ..Spec::default() };
    let mut profile = Profile::new(Arc::new(spec), 1 << 14, 1);
    let values: Vec<f32> = (0..2 * rows).map(|i| feature(i / 2, i % 2)).collect();
    let features = Some(Columns::F32(ArrayView2::from_shape((rows, 2), &values).unwrap()));
    profile.update(&Rows { count: rows, features, ..Rows::default() });
    Reference::of(&profile)
}

/// Three classes, surer of the first than right.
fn answers(rows: usize) -> (Vec<f32>, Vec<i32>) {
    let sure = |i: usize| 0.6 + 0.4 * feature(i, 0);
    let proba = (0..rows).flat_map(|i| [sure(i), (1.0 - sure(i)) * 0.7, (1.0 - sure(i)) * 0.3]).collect();
    (proba, (0..rows).map(|i| i32::from(feature(i, 1) > 0.6)).collect())
}

/// The same with answers and, of them, labels.
fn labelled_reference(rows: usize) -> Reference {
    let names = ["class_0", "class_1", "class_2"].map(String::from).to_vec();
    let spec = Spec { model: Options::default().model, threshold: 0.5, classes: names, ..Spec::default() };
    let mut profile = Profile::new(Arc::new(spec), 1 << 14, 1);
    let (proba, labels) = answers(rows);
    let probabilities = Some(Columns::F32(ArrayView2::from_shape((rows, 3), &proba).unwrap()));
    profile.update(&Rows { count: rows, probabilities, labels: Some(Labels::Classes(&labels)), ..Rows::default() });
    Reference::of(&profile)
}

fn write_answers(producer: &Producer) {
    let (proba, _) = answers(ROWS);
    let one = RawBatch { rows: ROWS as u32, timestamp_ns: now_ns(), proba: proba.as_ptr().cast(), ..batch() };
    assert_eq!(producer.write(&one), 0);
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// Rows of the second feature `shift` beside what they are in the reference.
fn write_period(producer: &Producer, timestamp_ns: u64, shift: f32) {
    let values: Vec<f32> = (0..2 * ROWS).map(|i| feature(i / 2, i % 2) + [0.0, shift][i % 2]).collect();
    let one = RawBatch { rows: ROWS as u32, timestamp_ns, features: values.as_ptr().cast(), ..batch() };
    assert_eq!(producer.write(&one), 0);
}

fn drift<'a>(report: &'a Value, name: &str) -> &'a Value {
    let columns = report["drift"]["columns"].as_array().unwrap();
    columns.iter().find(|column| column["of"] == "feature" && column["name"] == name).unwrap()
}

/// As `health.json` has them, once there is one.
fn references(output: &Path) -> Value {
    let health = fs::read(output.join("health.json")).unwrap_or_default();
    serde_json::from_slice(&health).map_or(Value::Null, |health: Value| health["references"].clone())
}

fn with_rows(output: &Path) -> Vec<Value> {
    reports(output).into_iter().filter(|report| report["rows"] != 0).collect()
}

#[test]
fn a_shift_is_in_the_report_at_once_and_alerts_in_the_third_period() {
    let (dir, output, library) = (ring_dir(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    reference(5000, "").save(&library.path().join("any.mlwref")).unwrap();
    let producer = Producer::open(dir.path(), &Options { version: "7".into(), ..Options::default() }).unwrap();
    let start = (now_ns() / MINUTE - 20) * MINUTE;
    (0..12).for_each(|i| write_period(&producer, start + i * MINUTE, if (4..8).contains(&i) { 0.5 } else { 0.0 }));
    let library = library.path().to_str().unwrap();
    let sidecar = Sidecar::start(dir.path(), output.path(), &["--period", "60s", "--reference", library]);
    wait_until_drained(&producer.path());
    assert!(sidecar.stop().0.success());
    let reports = with_rows(output.path());
    let verdicts: Vec<_> = reports.iter().map(|report| drift(report, "feat_1")["verdict"].as_str().unwrap()).collect();
    let (ok, alert) = ("ok", "alert");
    assert_eq!(verdicts, [[ok; 4], [alert; 4], [ok; 4]].concat());
    assert!(reports.iter().all(|report| drift(report, "feat_0")["verdict"] == "ok"));
    assert_eq!(drift(&reports[4], "feat_1")["n"], ROWS);
    let alerts = |report: &Value| -> Vec<String> {
        let alerts = report["alerts"].as_array().unwrap().iter();
        alerts.map(|a| format!("{} {} {}", a["name"], a["state"], a["severity"]).replace('"', "")).collect()
    };
    // Two features: one that drifts is a share of a half, which alerts as well.
    let firing = |state: &str| vec![format!("feat_1 {state} critical"), format!(" {state} critical")];
    let (started, still, ended) = (firing("started"), firing("firing"), firing("ended"));
    let want = [&vec![vec![]; 6][..], &[started], &vec![still; 3], &[ended], &[vec![]]].concat();
    let got: Vec<_> = reports.iter().map(alerts).collect();
    assert_eq!(got, want);
}

#[test]
fn names_that_do_not_match_are_said_once_and_counted_and_a_column_gone_missing_alerts() {
    let (dir, output, library) = (ring_dir(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut other = reference(5000, "");
    other.features[1].name = "renamed".into();
    other.with_bands(vec![]).save(&library.path().join("m.mlwref")).unwrap();
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    let start = (now_ns() / MINUTE - 20) * MINUTE;
    for i in 0..4 {
        let values = vec![f32::NAN; 2 * ROWS];
        let timestamp_ns = start + i * MINUTE;
        let one = RawBatch { rows: ROWS as u32, timestamp_ns, features: values.as_ptr().cast(), ..batch() };
        assert_eq!(producer.write(&one), 0);
    }
    let library = library.path().to_str().unwrap();
    let sidecar = Sidecar::start(dir.path(), output.path(), &["--period", "60s", "--reference", library]);
    wait_until_drained(&producer.path());
    let (status, log) = sidecar.stop();
    assert!(status.success());
    let said: Vec<&str> = log.lines().filter(|line| line.contains("features that only one side has")).collect();
    assert!(said.len() == 1 && said[0].contains("feat_1") && said[0].contains("renamed"), "{log}");
    let reports = with_rows(output.path());
    let unmatched = json!({"features": 1, "reference_features": 1, "classes": 0, "reference_classes": 0});
    assert!(reports.iter().all(|report| report["drift"]["unmatched"] == unmatched));
    assert_eq!(drift(&reports[0], "feat_1")["reason"], "no_reference");
    let alert = &reports[2]["alerts"][0];
    assert_eq!((&alert["metric"], &alert["name"]), (&json!("drift.feature.missing"), &json!("feat_0")));
}

#[test]
fn a_replaced_reference_counts_from_the_next_period_and_a_damaged_one_is_refused() {
    let (dir, output, library) = (ring_dir(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = library.path().join("m.mlwref");
    let (first, second) = (reference(500, ""), reference(5000, ""));
    first.save(&file).unwrap();
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    let path = library.path().to_str().unwrap();
    let sidecar = Sidecar::start(dir.path(), output.path(), &["--period", "24h", "--reference", path]);
    let today = now_ns();
    write_period(&producer, today, 0.0);
    wait_until_drained(&producer.path());
    second.save(&file).unwrap();
    wait_until("the new reference is taken", || references(output.path())["bytes"] == second.to_bytes().len());
    write_period(&producer, today, 0.0);
    fs::write(&file, &second.to_bytes()[..1000]).unwrap();
    wait_until("the damaged one is refused", || references(output.path())["refused"]["checksum"] == 1);
    assert!(sidecar.says("what it said before still counts"));
    write_period(&producer, today + DAY, 0.0);
    wait_until_drained(&producer.path());
    assert!(sidecar.stop().0.success());
    let reports = with_rows(output.path());
    let ids: Vec<_> = reports.iter().map(|report| report["drift"]["reference"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, [first.id(), second.id()]);
    assert_eq!(drift(&reports[0], "feat_0")["n"], 2 * ROWS);
}

fn has_checkpoint(output: &Path) -> bool {
    fs::read_dir(output.join("checkpoint"))
        .is_ok_and(|files| files.flatten().any(|file| file.path().to_string_lossy().contains(".state.")))
}

/// What the report of a period says in which the sidecar was killed and its reference meanwhile replaced, or not.
fn after_a_kill(replaced: Option<&Reference>) -> Value {
    let (dir, output, library) = (ring_dir(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = library.path().join("m.mlwref");
    labelled_reference(5000).save(&file).unwrap();
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    let arguments = ["--period", "24h", "--reference", library.path().to_str().unwrap()];
    let killed = Sidecar::start(dir.path(), output.path(), &arguments);
    write_answers(&producer);
    wait_until_drained(&producer.path());
    wait_until("it is in a checkpoint", || has_checkpoint(output.path()));
    killed.signal("-KILL");
    killed.wait();
    if let Some(reference) = replaced {
        reference.save(&file).unwrap();
    }
    write_answers(&producer);
    let sidecar = Sidecar::start(dir.path(), output.path(), &arguments);
    wait_until_drained(&producer.path());
    assert!(sidecar.stop().0.success());
    with_rows(output.path()).pop().unwrap()
}

#[test]
fn after_a_kill_estimates_go_on_by_the_reference_they_began_with() {
    let report = after_a_kill(None);
    let (estimated, rows) = (&report["estimated"], report["rows"].as_u64().unwrap());
    assert_eq!((&estimated["calibrated"], &estimated["n"]), (&Value::Bool(true), &Value::from(rows)));
    // All rows are predicted as the class that six in ten are of, whatever the model says.
    assert!((estimated["accuracy"].as_f64().unwrap() - 0.6).abs() < 0.02, "{estimated}");
    let atc = &estimated["average_thresholded_confidence"];
    assert!((atc["accuracy"].as_f64().unwrap() - 0.6).abs() < 0.02, "{atc}");
    assert!((estimated["difference_of_confidence"]["accuracy"].as_f64().unwrap() - 0.6).abs() < 0.02);
}

#[test]
fn after_a_kill_estimates_by_another_reference_are_not_mixed_in() {
    let report = after_a_kill(Some(&labelled_reference(3000)));
    let estimated = &report["estimated"];
    assert_eq!((&estimated["accuracy"], &estimated["reason"]), (&Value::Null, &"reference_gone".into()), "{estimated}");
    assert_eq!(estimated["difference_of_confidence"]["reason"], "reference_gone");
}

#[test]
fn after_a_kill_a_period_goes_on_in_the_bins_it_began_in() {
    let (dir, output, library) = (ring_dir(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    reference(5000, "").save(&library.path().join("m.mlwref")).unwrap();
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    let arguments = ["--period", "24h", "--reference", library.path().to_str().unwrap()];
    let killed = Sidecar::start(dir.path(), output.path(), &arguments);
    write_period(&producer, now_ns(), 0.5);
    wait_until_drained(&producer.path());
    wait_until("it is in a checkpoint", || has_checkpoint(output.path()));
    killed.signal("-KILL");
    killed.wait();
    write_period(&producer, now_ns(), 0.5);
    let sidecar = Sidecar::start(dir.path(), output.path(), &arguments);
    wait_until_drained(&producer.path());
    assert!(sidecar.stop().0.success());
    let report = with_rows(output.path()).pop().unwrap();
    let (rows, lost) = (report["rows"].as_u64().unwrap(), report["losses"]["crash_rows"].as_u64().unwrap());
    assert_eq!(rows + lost, 2 * ROWS as u64);
    assert_eq!(drift(&report, "feat_1")["n"], rows, "bins and rows were restored together");
}
