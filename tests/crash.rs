//! The sidecar killed with SIGKILL at random moments while producers write, and both sides restarting as they like: every row is in a
//! report, or counted as lost.

mod support;

use mlwatch::checkpoint::{Saved, Store};
use mlwatch::ring::{Consumer, Segment, scan};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use support::conservation::{self, Read};
use support::sidecar::{Sidecar, report_lines, total, wait_until, wait_until_drained};
use support::{Counts, Options, Producer, RawBatch, batch, compiled, ring_dir};

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
        let mut dice = Dice(5);
        for _ in 0..kills() {
            let sidecar = Sidecar::start(dir.path(), output.path(), &["--period", "250ms", "--reservoir", "50"]);
            thread::sleep(dice.millis(400));
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

/// Read from a copy: the directory itself is locked.
fn saved(output: &Path) -> Vec<Saved> {
    let copy = tempfile::tempdir().unwrap();
    let Ok(entries) = fs::read_dir(output.join("checkpoint")) else { return Vec::new() };
    for entry in entries.flatten() {
        let _ = fs::copy(entry.path(), copy.path().join(entry.file_name()));
    }
    Store::open(copy.path()).unwrap().1
}

/// Rows that the newest checkpoint has.
fn committed_rows(output: &Path) -> Option<u64> {
    saved(output).iter().flat_map(|saved| &saved.open).map(|(_, profile)| profile.rows).max()
}

/// Rows that it says were read of each ring, by each model.
fn committed_marks(output: &Path) -> Vec<u64> {
    saved(output).iter().flat_map(|saved| &saved.model.marks).map(|mark| mark.consumed.rows).collect()
}

#[test]
fn a_period_goes_on_after_a_kill_with_every_committed_row_and_says_that_it_is_partial() {
    let (reports, rows) = reports_over_a_kill(&["--period", "24h"], &["--period", "24h"]);
    assert_eq!((reports.len(), total(&reports, "/rows"), total(&reports, "/losses/crash_rows")), (1, rows, 0));
    assert_eq!(reports[0]["partial"], true);
    assert_eq!((&reports[0]["features"][0]["n"], &reports[0]["features"][0]["sampled"]), (&rows.into(), &rows.into()));
    assert_eq!(reports[0]["features"][0]["max"], 99.0);
}

/// Rows reported, and counted as lost, after sidecars with these periods were killed one after the other and the last one was stopped.
fn rows_over_kills(periods: &[&str]) -> (u64, u64) {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    let (last, killed) = periods.split_last().unwrap();
    for (i, period) in killed.iter().enumerate() {
        let sidecar = Sidecar::start(dir.path(), output.path(), &["--period", period]);
        if i == 0 {
            producer.write_features(&[1.0; 240], 2);
        }
        wait_until("it has attached", || sidecar.log().contains("attached"));
        wait_until_drained(&producer.path());
        let known = || committed_marks(output.path()).contains(&120);
        wait_until("it is committed", known);
        sidecar.signal("-KILL");
        sidecar.wait();
    }
    let sidecar = Sidecar::start(dir.path(), output.path(), &["--period", last]);
    wait_until("it has attached", || sidecar.log().contains("attached"));
    assert!(sidecar.stop().0.success());
    let reports = distinct_reports(output.path());
    (total(&reports, "/rows"), total(&reports, "/losses/crash_rows"))
}

#[test]
fn nothing_is_counted_twice_over_kills_and_changed_settings() {
    assert_eq!(rows_over_kills(&["24h", "24h"]), (120, 0));
    assert_eq!(rows_over_kills(&["24h", "12h", "12h"]), (120, 0));
    assert_eq!(rows_over_kills(&["24h", "12h", "24h", "12h"]), (120, 0));
}

#[test]
fn an_orderly_stop_is_believed_over_an_older_checkpoint() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    let life = |period: &str, rows: usize, end: &str| {
        let sidecar = Sidecar::start(dir.path(), output.path(), &["--period", period]);
        producer.write_features(&vec![1.0; 2 * rows], 2);
        wait_until("it has attached", || sidecar.log().contains("attached"));
        wait_until_drained(&producer.path());
        let rows = producer.counts().rows;
        wait_until("it is committed", || committed_marks(output.path()).contains(&rows));
        sidecar.signal(end);
        sidecar.wait();
    };
    life("24h", 120, "-KILL");
    life("12h", 10, "-TERM"); // the old model's mark is still waited for
    life("12h", 11, "-TERM"); // another number, or its report would look like the one before it
    let reports = distinct_reports(output.path());
    assert_eq!((total(&reports, "/rows"), total(&reports, "/losses/crash_rows")), (141, 0));
}

#[test]
fn limits_that_were_lowered_hold_after_a_kill_too() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let producer = Producer::open(dir.path(), &Options { reservoir_rows: 50_000, ..Options::default() }).unwrap();
    let first = Sidecar::start(dir.path(), output.path(), &["--period", "24h"]);
    producer.write_features(&[1.0; 240], 2);
    wait_until("it is committed", || committed_rows(output.path()) == Some(120));
    first.signal("-KILL");
    first.wait();
    let config = output.path().join("mlwatch.toml");
    fs::write(&config, "[limits]\nmax_reservoir_rows = 20000\n").unwrap();
    let second = Sidecar::start(dir.path(), output.path(), &["--period", "24h", "--config", config.to_str().unwrap()]);
    second.wait_for_log("reservoir_rows=20000");
    assert!(second.stop().0.success());
    let reports = distinct_reports(output.path());
    assert_eq!((total(&reports, "/rows"), total(&reports, "/losses/crash_rows")), (120, 0));
}

#[test]
fn a_ring_that_was_away_during_a_whole_life_of_the_sidecar_is_not_counted_twice() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    let first = Sidecar::start(dir.path(), output.path(), &["--period", "24h"]);
    producer.write_features(&[1.0; 240], 2);
    wait_until("it is committed", || committed_rows(output.path()) == Some(120));
    first.signal("-KILL");
    first.wait();
    let away = dir.path().join("away");
    fs::rename(producer.path(), &away).unwrap();
    assert!(Sidecar::start(dir.path(), output.path(), &["--period", "24h"]).stop().0.success());
    fs::rename(&away, producer.path()).unwrap();
    let last = Sidecar::start(dir.path(), output.path(), &["--period", "24h"]);
    wait_until("it has attached", || last.log().contains("attached"));
    assert!(last.stop().0.success());
    let reports = distinct_reports(output.path());
    assert_eq!((total(&reports, "/rows"), total(&reports, "/losses/crash_rows")), (120, 0));
}

/// Writes the checkpoint of a killed sidecar anew, sound but for its open period, which begins a little off.
fn move_open_period(output: &Path) {
    let (store, saved) = Store::open(&output.join("checkpoint")).unwrap();
    let Saved { model, mut open, mut checkpoint, .. } = saved.into_iter().next().unwrap();
    for _ in 0..2 {
        let moved = open.iter_mut().map(|(start_ns, profile)| (*start_ns + 1, profile));
        checkpoint.commit(&store, model.clone(), moved, Instant::now());
    }
    store.finish();
}

#[test]
fn what_a_checkpoint_with_an_impossible_period_held_is_counted_as_lost_and_said() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    let first = Sidecar::start(dir.path(), output.path(), &["--period", "24h"]);
    producer.write_features(&[1.0; 240], 2);
    wait_until("it is committed", || committed_rows(output.path()) == Some(120));
    first.signal("-KILL");
    first.wait();
    move_open_period(output.path());
    producer.write_features(&[1.0; 2], 2);
    let second = Sidecar::start(dir.path(), output.path(), &["--period", "24h"]);
    second.wait_for_log("a checkpoint is damaged");
    wait_until_drained(&producer.path());
    assert!(second.stop().0.success());
    let reports = distinct_reports(output.path());
    assert_eq!((total(&reports, "/rows"), total(&reports, "/losses/crash_rows")), (1, 120));
    let health: Value = serde_json::from_slice(&fs::read(output.path().join("health.json")).unwrap()).unwrap();
    assert_eq!((&health["checkpoints"]["damaged"]["periods"], &health["crash_rows"]), (&1.into(), &120.into()));
}

#[test]
fn changed_settings_close_what_was_open_and_begin_anew() {
    let (mut reports, rows) = reports_over_a_kill(&["--period", "24h"], &["--period", "12h"]);
    reports.sort_by_key(|report| report["rows"].as_u64());
    assert_eq!(reports.iter().map(|r| r["rows"].as_u64().unwrap()).collect::<Vec<_>>(), [1, rows - 1]);
    assert_eq!(reports.iter().map(|r| r["period_seconds"].as_f64().unwrap()).collect::<Vec<_>>(), [43_200.0, 86_400.0]);
    assert_eq!(total(&reports, "/losses/crash_rows"), 0);
}

/// Ends of a sidecar's life, and whether a column's mean is too high in it. It ends once an alert has got into this state.
const LIVES: [(f32, &str, &str); 5] = [
    (99.0, "firing", "-KILL"),
    (99.0, "firing", "-KILL"),
    (99.0, "firing", "-TERM"),
    (99.0, "firing", "-TERM"),
    (0.0, "ended", "-TERM"),
];

#[test]
fn an_alert_goes_on_over_kills_and_stops_and_ends_once() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let config = output.path().join("mlwatch.toml");
    let rule = "[[alerts.rule]]\nmetric = 'features.*.mean'\nabove = 10.0\npersistence = [2, 3]\n";
    fs::write(&config, format!("period = '250ms'\n{rule}")).unwrap();
    let producer = Producer::open(dir.path(), &Options { n_features: 1, ..Options::default() }).unwrap();
    for (value, state, end) in LIVES {
        let before = report_lines(output.path()).len();
        let sidecar = Sidecar::start(dir.path(), output.path(), &["--config", config.to_str().unwrap()]);
        wait_until(&format!("an alert is {state}"), || {
            producer.write_features(&[value], 1);
            let lines = report_lines(output.path());
            let mut told = lines.iter().skip(before).filter_map(|line| serde_json::from_str::<Value>(line).ok());
            told.any(|report| report.pointer("/alerts/0/state").is_some_and(|told| told == state))
        });
        sidecar.signal(end);
        sidecar.wait();
    }
    let reports = distinct_reports(output.path());
    let alerts: Vec<&Value> = reports.iter().flat_map(|report| report["alerts"].as_array().unwrap()).collect();
    let told = |state: &str| alerts.iter().filter(|alert| alert["state"] == state).count();
    assert_eq!((told("started"), told("ended"), alerts.len()), (1, 1, told("firing") + 2), "{alerts:#?}");
    assert!(alerts.iter().all(|alert| alert["start"] == alerts[0]["start"]), "{alerts:#?}");
}

#[test]
fn a_file_of_alerts_that_is_none_is_counted_and_removed() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    fs::create_dir(output.path().join("checkpoint")).unwrap();
    let file = output.path().join("checkpoint/alerts");
    fs::write(&file, "no alerts").unwrap();
    let (status, log) = Sidecar::start(dir.path(), output.path(), &[]).stop();
    assert!(status.success() && log.contains("what it held is forgotten") && !file.exists(), "{log}");
    let health: Value = serde_json::from_slice(&fs::read(output.path().join("health.json")).unwrap()).unwrap();
    assert_eq!(health["checkpoints"]["damaged"]["checksum"], 1);
}

/* ---- both sides restart at random ---- */

fn restart_time() -> Duration {
    let seconds = std::env::var("MLWATCH_RESTART_SECONDS").map_or(3.0, |s| s.parse().expect("a number of seconds"));
    Duration::from_secs_f64(seconds)
}

/// Deterministic, and different for each seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_micros(self.below(1000 * most))
    }
}

/// Writers one after the other, each killed. Rows that were acknowledged, and how many writers there were.
fn restart_writers(dir: &Path, until: Instant) -> (u64, u64) {
    let tools = tempfile::tempdir().unwrap();
    let writer = compiled("tests/c/writer.c", tools.path());
    let path = tools.path().join("acks");
    let acks = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    acks.set_len(4096).unwrap();
    let (mut dice, mut rows, mut writers) = (Dice(7), 0, 0);
    while Instant::now() < until {
        acks.write_all_at(&[0; 8], 0).unwrap();
        let mut child = Command::new(&writer).arg(dir).arg(writers.to_string()).arg(&path).spawn().unwrap();
        thread::sleep(dice.millis(60));
        assert!(child.try_wait().unwrap().is_none(), "the writer ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        let mut acknowledged = [0; 8];
        acks.read_exact_at(&mut acknowledged, 0).unwrap();
        rows += (0..u64::from_le_bytes(acknowledged)).map(|i| 1 + i * 7 % 40).sum::<u64>();
        writers += 1;
    }
    (rows, writers)
}

/// Sidecars one after the other, stopped or killed. How many there were.
fn restart_sidecars(dir: &Path, output: &Path, until: Instant) -> u64 {
    let (mut dice, mut sidecars) = (Dice(11), 0);
    while Instant::now() < until {
        let sidecar = Sidecar::start(dir, output, &["--period", "200ms", "--reservoir", "20"]);
        thread::sleep(dice.millis(400));
        sidecar.signal(if dice.below(2) == 0 { "-KILL" } else { "-TERM" });
        sidecar.wait();
        sidecars += 1;
    }
    sidecars
}

#[test]
fn both_sides_restart_at_random_and_nothing_is_lost_but_what_is_counted() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let until = Instant::now() + restart_time();
    let ((acknowledged, writers), sidecars) = thread::scope(|scope| {
        let writers = scope.spawn(|| restart_writers(dir.path(), until));
        let sidecars = restart_sidecars(dir.path(), output.path(), until);
        (writers.join().unwrap(), sidecars)
    });
    let found = scan(dir.path()).unwrap().found;
    assert_eq!(found.len(), 1, "{writers} writers one after the other need one slot");
    let last = Sidecar::start(dir.path(), output.path(), &["--period", "200ms"]);
    wait_until_drained(&found[0].path);
    assert!(last.stop().0.success());

    let reports = distinct_reports(output.path());
    let sum = |pointer| total(&reports, pointer);
    let segment = Segment::open(&found[0].path, 1 << 30).unwrap();
    let (counters, schema) = (segment.counters(), segment.schema().clone());
    let consumed = Consumer::new(segment, &schema).consumed();
    assert_eq!(sum("/rows") + sum("/losses/crash_rows"), consumed.rows);
    assert!((acknowledged..=acknowledged + 40 * writers).contains(&consumed.rows), "{acknowledged} acknowledged");
    assert_eq!(sum("/losses/dropped_rows"), counters.dropped_rows.iter().sum::<u64>());
    let lost = conservation::check(&counters, Read::all(consumed, sum("/losses/missing_records")), 0..=writers);
    println!(
        "{writers} writers, {sidecars} sidecars: {acknowledged} rows acknowledged, {} reported, {} lost with a sidecar; {lost} records in hand",
        sum("/rows"),
        sum("/losses/crash_rows")
    );
}
