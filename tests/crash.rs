//! The sidecar killed with SIGKILL at random moments while producers write: every row is in a report, or counted as lost.

mod support;

use mlwatch::checkpoint::Store;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use support::sidecar::{Sidecar, report_lines, total, wait_until, wait_until_drained};
use support::{Counts, Options, Producer, RawBatch, batch, ring_dir};

/// `MLWATCH_KILLS` for a longer run.
fn kills() -> u64 {
    std::env::var("MLWATCH_KILLS").map_or(25, |n| n.parse().expect("MLWATCH_KILLS is a number"))
}

/// Writes until told to stop. What the ring counted.
fn produce(dir: &Path, model: &str, stop: &AtomicBool) -> Counts {
    let options = Options { model: model.into(), ring_bytes: 1 << 17, ..Options::default() };
    let producer = Producer::open(dir, &options).unwrap();
    let (proba, features) = ([[0.7f32, 0.2, 0.1]; 16], [[1f32, 2.0]; 16]);
    let mut i = 0u32;
    while !stop.load(Relaxed) {
        i += 1;
        let rows = 1 + i % 16;
        let one = RawBatch { rows, proba: proba.as_ptr().cast(), features: features.as_ptr().cast(), ..batch() };
        producer.write(&one);
        if i.is_multiple_of(8) {
            thread::sleep(Duration::from_micros(200)); // a rate that the sidecar mostly keeps up with
        }
    }
    wait_until_drained(&producer.path());
    producer.write_features(&[0.0; 2], 2); // its sequence number tells of the drops before it
    wait_until_drained(&producer.path());
    producer.counts()
}

/// Whole reports, each once: one that was delivered in the instant of a kill may have been delivered again.
fn distinct_reports(output: &Path) -> Vec<Value> {
    let lines: BTreeSet<String> = report_lines(output).into_iter().collect();
    lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn every_row_is_reported_or_counted_over_any_number_of_kills() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let stop = AtomicBool::new(false);
    let models = ["first", "second"];
    let counts = thread::scope(|scope| {
        let producers = models.map(|model| {
            let (dir, stop) = (dir.path(), &stop);
            scope.spawn(move || produce(dir, model, stop))
        });
        let mut random = 0x9E37_79B9_7F4A_7C15u64;
        for _ in 0..kills() {
            let sidecar = Sidecar::start(dir.path(), output.path(), &["--period", "250ms", "--reservoir", "50"]);
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (born, life) = (Instant::now(), Duration::from_micros((random >> 33) % 400_000));
            thread::sleep(life.saturating_sub(born.elapsed()));
            sidecar.signal("-KILL");
            sidecar.wait();
        }
        let last = Sidecar::start(dir.path(), output.path(), &["--period", "250ms", "--reservoir", "50"]);
        stop.store(true, Relaxed);
        let counts = producers.map(|producer| producer.join().unwrap());
        assert!(last.stop().0.success());
        counts
    });
    let reports = distinct_reports(output.path());
    let mut crash_rows = 0;
    for (model, counts) in models.iter().zip(counts) {
        let of_model: Vec<Value> = reports.iter().filter(|r| r["model"] == *model).cloned().collect();
        let sum = |pointer| total(&of_model, pointer);
        assert_eq!(sum("/rows") + sum("/losses/crash_rows"), counts.rows, "{model}");
        assert_eq!(sum("/losses/dropped_rows"), counts.dropped_rows, "{model}");
        assert_eq!(sum("/losses/missing_records"), counts.full.0, "{model}: gaps are drops");
        crash_rows += sum("/losses/crash_rows");
        println!(
            "{model}: {} rows written, {} reported, {} lost in {} kills, {} dropped",
            counts.rows,
            sum("/rows"),
            sum("/losses/crash_rows"),
            kills(),
            counts.dropped_rows
        );
    }
    assert!(crash_rows > 0, "kills that cost nothing prove nothing");
}

/// The rows of each report after a sidecar with these arguments was killed and another one, with those, has gone on.
fn reports_over_a_kill(first: &[&str], second: &[&str]) -> (Vec<Value>, u64) {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    let sidecar = Sidecar::start(dir.path(), output.path(), first);
    for i in 0..40 {
        producer.write_features(&[i as f32; 6], 2);
    }
    wait_until_drained(&producer.path());
    let committed = |rows: u64| wait_until("it is committed", || committed_rows(output.path()) == Some(rows));
    committed(120);
    sidecar.signal("-KILL");
    sidecar.wait();
    producer.write_features(&[99.0; 2], 2);
    let sidecar = Sidecar::start(dir.path(), output.path(), second);
    wait_until_drained(&producer.path());
    assert!(sidecar.stop().0.success());
    (distinct_reports(output.path()), producer.counts().rows)
}

/// Rows that the newest checkpoint has, read from a copy: the directory itself is locked.
fn committed_rows(output: &Path) -> Option<u64> {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(output.join("checkpoint")).ok()? {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).ok()?;
    }
    let (_, saved) = Store::open(copy.path()).unwrap();
    saved.iter().flat_map(|saved| &saved.open).map(|(_, profile)| profile.rows).max()
}

#[test]
fn a_period_goes_on_after_a_kill_with_every_committed_row_and_says_that_it_is_partial() {
    let (reports, rows) = reports_over_a_kill(&["--period", "24h"], &["--period", "24h"]);
    assert_eq!((reports.len(), total(&reports, "/rows"), total(&reports, "/losses/crash_rows")), (1, rows, 0));
    assert_eq!(reports[0]["partial"], true);
    assert_eq!((&reports[0]["features"][0]["n"], &reports[0]["features"][0]["sampled"]), (&rows.into(), &rows.into()));
    assert_eq!(reports[0]["features"][0]["max"], 99.0);
}

#[test]
fn changed_settings_close_what_was_open_and_begin_anew() {
    let (mut reports, rows) = reports_over_a_kill(&["--period", "24h"], &["--period", "12h"]);
    reports.sort_by_key(|report| report["rows"].as_u64());
    assert_eq!(reports.iter().map(|r| r["rows"].as_u64().unwrap()).collect::<Vec<_>>(), [1, rows - 1]);
    assert_eq!(reports.iter().map(|r| r["period_seconds"].as_f64().unwrap()).collect::<Vec<_>>(), [43_200.0, 86_400.0]);
    assert_eq!(total(&reports, "/losses/crash_rows"), 0);
}
