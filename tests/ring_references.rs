//! References made of a live ring, and what the sidecar that comes next says of it.

mod support;

use mlwatch::profile::{Feature, Labels, Profile, Rows, Spec};
use mlwatch::reference::Reference;
use mlwatch::stats::Columns;
use ndarray::ArrayView2;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use support::sidecar::{Sidecar, inspect, reports, total, wait_until, wait_until_drained};
use support::{Options, Producer, RawBatch, batch, ring_dir};

const ROWS: usize = 100;

/// Equidistributed in [0, 1).
fn noise(i: usize, step: f64) -> f32 {
    ((i as f64) * step).fract() as f32
}

/// The i-th batch: three classes, two features, a label per row.
fn arrays(i: usize) -> (Vec<f32>, Vec<f32>, Vec<i32>) {
    let rows = i * ROWS..(i + 1) * ROWS;
    let p = |row| [noise(row, 0.754_877_666) / 2.0, 0.5, 0.5 - noise(row, 0.754_877_666) / 2.0];
    let proba = rows.clone().flat_map(p).collect();
    let features = rows.clone().flat_map(|row| [noise(row, 0.569_840_29), (row % 7) as f32]).collect();
    (proba, features, rows.map(|row| (row % 4) as i32 - 1).collect())
}

fn write(producer: &Producer, i: usize) {
    let (proba, features, labels) = arrays(i);
    let (proba, features, labels) = (proba.as_ptr().cast(), features.as_ptr().cast(), labels.as_ptr());
    assert_eq!(producer.write(&RawBatch { rows: ROWS as u32, proba, features, labels, ..batch() }), 0);
}

/// What is to come out of the first batches.
fn expected(batches: usize) -> Reference {
    let classes = ["class_0", "class_1", "class_2"].map(String::from).to_vec();
    let features = ["feat_0", "feat_1"].map(|name| Feature { name: name.into(), categorical: false }).to_vec();
    let spec = Spec { model: "test".into(), threshold: 0.5, classes, features, ..Spec::default() };
    let seed = spec.seed();
    let mut profile = Profile::new(Arc::new(spec), 1_000_000, seed);
    for i in 0..batches {
        let (proba, features, labels) = arrays(i);
        profile.update(&Rows {
            count: ROWS,
            probabilities: Some(Columns::F32(ArrayView2::from_shape((ROWS, 3), &proba).unwrap())),
            features: Some(Columns::F32(ArrayView2::from_shape((ROWS, 2), &features).unwrap())),
            labels: Some(Labels::Classes(&labels)),
            ..Rows::default()
        });
    }
    Reference::of(&profile)
}

struct Places {
    rings: tempfile::TempDir,
    output: tempfile::TempDir,
}

impl Places {
    fn new() -> Places {
        Places { rings: ring_dir(), output: tempfile::tempdir().unwrap() }
    }

    fn reference(&self) -> PathBuf {
        self.output.path().join("m.mlwref")
    }

    fn producer(&self) -> Producer {
        Producer::open(self.rings.path(), &Options::default()).unwrap()
    }

    fn build(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mlwatch"));
        command.args(["reference", "build", "--output"]).arg(self.reference()).args(arguments);
        command.stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Of the producer's ring, as long as it takes.
    fn watch(&self, producer: &Producer) -> Child {
        self.build(&["--ring", producer.path().to_str().unwrap(), "--for", "1h"])
    }

    fn run_sidecar(&self, ring: &Path) -> Vec<Value> {
        let sidecar = Sidecar::start(self.rings.path(), self.output.path(), &["--period", "24h"]);
        wait_until("the sidecar is there", || inspect(ring)["consumer_attached"] == true);
        wait_until_drained(ring);
        assert!(sidecar.stop().0.success());
        reports(self.output.path())
    }
}

fn says(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn signal(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

/// In a crash, missed, dropped.
fn lost(reports: &[Value]) -> [u64; 3] {
    ["crash_rows", "missing_records", "dropped_rows"].map(|loss| total(reports, &format!("/losses/{loss}")))
}

#[test]
fn when_the_producer_has_gone_the_reference_holds_every_row_and_the_next_sidecar_counts_none_as_lost() {
    let places = Places::new();
    let producer = places.producer();
    (0..5).for_each(|i| write(&producer, i));
    let path = producer.path();
    let watch = places.watch(&producer);
    wait_until_drained(&path);
    (5..9).for_each(|i| write(&producer, i));
    drop(producer);
    let output = watch.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", says(&output));
    assert_eq!(Reference::load(&places.reference()).unwrap().with_bands(vec![]), expected(9));
    let producer = places.producer();
    assert_eq!(producer.path(), path);
    write(&producer, 9);
    let reports = places.run_sidecar(&path);
    assert_eq!((total(&reports, "/rows"), lost(&reports)), (ROWS as u64, [0; 3]));
}

#[test]
fn a_signal_ends_it_with_what_was_read_and_the_sidecar_reads_on() {
    let places = Places::new();
    let producer = places.producer();
    for (how, batches) in [("-INT", 3), ("-TERM", 3)] {
        let watch = places.watch(&producer);
        (0..batches).for_each(|i| write(&producer, i));
        wait_until("the watch is there", || inspect(&producer.path())["consumer_attached"] == true);
        wait_until_drained(&producer.path());
        signal(&watch, how);
        let output = watch.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", says(&output));
        assert_eq!(Reference::load(&places.reference()).unwrap().with_bands(vec![]), expected(batches));
    }
    write(&producer, 0);
    let reports = places.run_sidecar(&producer.path());
    assert_eq!((total(&reports, "/rows"), lost(&reports)), (ROWS as u64, [0; 3]));
}

#[test]
fn when_the_time_is_up_it_ends_with_periods_of_that_time() {
    let places = Places::new();
    let producer = places.producer();
    let mut watch = places.build(&[
        "--ring",
        "test",
        "--dir",
        places.rings.path().to_str().unwrap(),
        "--for",
        "1s",
        "--periods",
        "4",
        "--version",
        "7",
    ]);
    let mut written = 0;
    wait_until("the time is up", || {
        if inspect(&producer.path())["used"] == 0 {
            write(&producer, written);
            written += 1;
        }
        watch.try_wait().unwrap().is_some()
    });
    assert!(watch.wait().unwrap().success());
    let reference = Reference::load(&places.reference()).unwrap();
    assert_eq!(reference.version, "7");
    assert!(reference.rows <= (written * ROWS) as u64);
    let band = reference.band("features.feat_0.mean").expect("two periods with rows at least");
    assert!(band.n <= 4 && (0.3..0.7).contains(&band.mean), "{band:?}");
}

#[test]
fn a_ring_that_a_sidecar_reads_is_refused() {
    let places = Places::new();
    let producer = places.producer();
    let sidecar = Sidecar::start(places.rings.path(), places.output.path(), &[]);
    wait_until("the sidecar is there", || inspect(&producer.path())["consumer_attached"] == true);
    let output = places.watch(&producer).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(66));
    assert!(says(&output).contains("a sidecar reads it") && says(&output).contains("--reports"), "{}", says(&output));
    assert!(sidecar.stop().0.success());
    assert!(!places.reference().exists());
}

#[test]
fn a_killed_readers_ring_is_refused_until_a_sidecar_has_counted_the_loss() {
    let places = Places::new();
    let producer = places.producer();
    let watch = places.watch(&producer);
    write(&producer, 0);
    wait_until("the watch is there", || inspect(&producer.path())["consumer_attached"] == true);
    wait_until_drained(&producer.path());
    signal(&watch, "-KILL");
    watch.wait_with_output().unwrap();
    let output = places.watch(&producer).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(66));
    assert!(says(&output).contains("mlwatch run"), "{}", says(&output));
    let reports = places.run_sidecar(&producer.path());
    assert_eq!(lost(&reports)[0], ROWS as u64, "what a killed watch had read is lost, and counted");
    let watch = places.watch(&producer);
    write(&producer, 0);
    wait_until("the watch is there", || inspect(&producer.path())["consumer_attached"] == true);
    wait_until_drained(&producer.path());
    drop(producer);
    assert!(watch.wait_with_output().unwrap().status.success());
    assert_eq!(Reference::load(&places.reference()).unwrap().with_bands(vec![]), expected(1));
}

#[test]
fn what_was_dropped_before_it_came_is_said() {
    let places = Places::new();
    let producer = places.producer();
    let (proba, features, _) = arrays(0);
    let one = RawBatch { rows: 100, proba: proba.as_ptr().cast(), features: features.as_ptr().cast(), ..batch() };
    while producer.write(&one) == 0 {}
    let path = producer.path();
    let rows = producer.counts().rows;
    drop(producer);
    let output = places.build(&["--ring", path.to_str().unwrap()]).wait_with_output().unwrap();
    assert!(output.status.success() && says(&output).contains("rows=100"), "{}", says(&output));
    assert_eq!(Reference::load(&places.reference()).unwrap().rows, rows);
    let reports = places.run_sidecar(&path);
    assert_eq!((total(&reports, "/rows"), lost(&reports)), (0, [0; 3]), "it is told once");
}

#[test]
fn no_rows_are_no_reference_and_a_ring_says_itself_what_it_is_of() {
    let places = Places::new();
    let producer = places.producer();
    let output =
        places.build(&["--ring", producer.path().to_str().unwrap(), "--for", "1ms"]).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(66));
    assert!(says(&output).contains("no row came"), "{}", says(&output));
    let of_two = places.build(&["--ring", "test", "--model", "m"]).wait_with_output().unwrap();
    assert_eq!(of_two.status.code(), Some(64), "{}", says(&of_two));
    // Whoever has MLWATCH_DIR set may build from arrays all the same.
    let mut command = Command::new(env!("CARGO_BIN_EXE_mlwatch"));
    command.args(["reference", "build", "--model", "m", "--features", "/none.npy", "-o"]).arg(places.reference());
    assert_eq!(command.env("MLWATCH_DIR", places.rings.path()).output().unwrap().status.code(), Some(66));
    let of_none = places.build(&["--features", "x.npy"]).wait_with_output().unwrap();
    assert!(says(&of_none).contains("--model"), "{}", says(&of_none));
}
