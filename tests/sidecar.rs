//! The sidecar as its operator runs it: a process of its own, signals, files, exit codes.

mod support;

use mlwatch::ring::Snapshot;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use support::sidecar::{Sidecar, inspect, reports, total, wait_until, wait_until_drained};
use support::{Options, Producer, RawBatch, batch, ring_dir};

/// One long period, so that a test's rows share a report.
const LONG: &[&str] = &["--period", "24h"];

fn write_rows(producer: &Producer, rows: usize, probabilities: [f32; 3]) {
    let (proba, features) = (vec![probabilities; rows], vec![[1f32, 2.0]; rows]);
    let one =
        RawBatch { rows: rows as u32, proba: proba.as_ptr().cast(), features: features.as_ptr().cast(), ..batch() };
    assert_eq!(producer.write(&one), 0);
}

fn mlwatch(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mlwatch")).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn two_producers_of_one_model_merge_into_one_report() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let instance = |name: &str| Options { instance: name.into(), version: "1".into(), ..Options::default() };
    let (a, b) =
        (Producer::open(dir.path(), &instance("a")).unwrap(), Producer::open(dir.path(), &instance("b")).unwrap());
    write_rows(&a, 3, [0.8, 0.1, 0.1]);
    write_rows(&b, 5, [0.1, 0.8, 0.1]);
    let sidecar = Sidecar::start(dir.path(), output.path(), LONG);
    wait_until_drained(&a.path());
    wait_until_drained(&b.path());
    assert!(sidecar.stop().0.success());
    let reports = reports(output.path());
    assert_eq!(reports.len(), 1, "{reports:#?}");
    let report = &reports[0];
    assert_eq!(report["instances"], Value::from(vec!["a", "b"]));
    assert_eq!((&report["rows"], &report["records"]), (&8.into(), &2.into()));
    let counts: Vec<_> =
        report["predictions"]["classes"].as_array().unwrap().iter().map(|c| c["count"].clone()).collect();
    assert_eq!(counts, [3, 5, 0]);
}

#[test]
fn models_and_versions_have_reports_of_their_own() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let version = |v: &str| Options { version: v.into(), ..Options::default() };
    let producers = ["1", "2"].map(|v| Producer::open(dir.path(), &version(v)).unwrap());
    producers.iter().for_each(|p| write_rows(p, 2, [0.8, 0.1, 0.1]));
    let sidecar = Sidecar::start(dir.path(), output.path(), LONG);
    producers.iter().for_each(|p| wait_until_drained(&p.path()));
    sidecar.stop();
    let mut versions: Vec<_> =
        reports(output.path()).iter().map(|r| (r["version"].clone(), r["rows"].clone())).collect();
    versions.sort_by_key(|v| v.0.to_string());
    assert_eq!(versions, [("1".into(), 2.into()), ("2".into(), 2.into())]);
}

#[test]
fn a_restarted_sidecar_continues_at_the_head_and_loses_nothing_between() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    let sidecar = Sidecar::start(dir.path(), output.path(), LONG);
    (0..100).for_each(|_| write_rows(&producer, 1, [0.8, 0.1, 0.1]));
    wait_until_drained(&producer.path());
    assert!(sidecar.stop().0.success());
    (0..50).for_each(|_| write_rows(&producer, 1, [0.1, 0.8, 0.1]));
    let sidecar = Sidecar::start(dir.path(), output.path(), LONG);
    wait_until_drained(&producer.path());
    assert!(sidecar.stop().0.success());
    let reports = reports(output.path());
    assert_eq!(reports.iter().map(|r| r["rows"].as_u64().unwrap()).collect::<Vec<_>>(), [100, 50]);
    assert!(reports.iter().all(|r| r["partial"] == true), "each saw a part of the period");
    assert_eq!(total(&reports, "/losses/missing_records"), 0);
    assert_eq!(inspect(&producer.path())["consumer_epoch"], 2);
}

#[test]
fn a_ring_with_two_names_or_a_new_one_is_read_once() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    fs::hard_link(producer.path(), dir.path().join("twin.0.ring")).unwrap();
    let sidecar = Sidecar::start(dir.path(), output.path(), LONG);
    (0..50).for_each(|_| write_rows(&producer, 1, [0.8, 0.1, 0.1]));
    wait_until_drained(&producer.path());
    let moved = dir.path().join("moved.0.ring");
    fs::rename(producer.path(), &moved).unwrap();
    (0..50).for_each(|_| write_rows(&producer, 1, [0.8, 0.1, 0.1]));
    wait_until_drained(&moved);
    sidecar.stop(); // looks around once more
    assert_eq!(total(&reports(output.path()), "/rows"), 100);
}

#[test]
fn backlogs_of_several_producers_land_in_their_own_periods() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let instance = |name: &str| Options { instance: name.into(), ring_bytes: 1 << 20, ..Options::default() };
    let producers = ["a", "b", "c"].map(|name| Producer::open(dir.path(), &instance(name)).unwrap());
    let minute = 60_000_000_000;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    for (i, producer) in producers.iter().enumerate() {
        for back in (3..=9u64).rev() {
            let rows = 10 * (i as u32 + 1);
            let features = vec![[1f32, 2.0]; rows as usize];
            let timestamp_ns = now - back * minute;
            let one = RawBatch { rows, timestamp_ns, features: features.as_ptr().cast(), ..batch() };
            assert_eq!(producer.write(&one), 0);
        }
    }
    let sidecar = Sidecar::start(dir.path(), output.path(), &["--period", "60s"]);
    producers.iter().for_each(|p| wait_until_drained(&p.path()));
    sidecar.stop();
    let backlog: Vec<_> = reports(output.path()).into_iter().filter(|r| r["rows"] != 0).collect();
    assert_eq!(backlog.iter().map(|r| r["rows"].as_u64().unwrap()).collect::<Vec<_>>(), [60; 7]);
    assert_eq!(total(&backlog, "/losses/late_rows"), 0);
}

#[test]
fn a_killed_sidecar_leaves_the_unread_to_the_next_and_what_is_lost_is_counted() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    let sidecar = Sidecar::start(dir.path(), output.path(), LONG);
    (0..10).for_each(|_| write_rows(&producer, 1, [0.8, 0.1, 0.1]));
    wait_until_drained(&producer.path());
    sidecar.signal("-KILL");
    sidecar.wait();
    (0..7).for_each(|_| write_rows(&producer, 1, [0.8, 0.1, 0.1]));
    let sidecar = Sidecar::start(dir.path(), output.path(), LONG);
    wait_until_drained(&producer.path());
    sidecar.stop();
    let reports = reports(output.path());
    assert_eq!(total(&reports, "/rows") + total(&reports, "/losses/crash_rows"), 17);
    assert_eq!((total(&reports, "/losses/missing_records"), total(&reports, "/losses/dropped_rows")), (0, 0));
    assert!(reports.iter().all(|report| report["partial"] == true));
}

#[test]
fn a_copy_of_a_ring_takes_nothing_from_its_accounts() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    fs::copy(producer.path(), dir.path().join("zz-copy.0.ring")).unwrap();
    let sidecar = Sidecar::start(dir.path(), output.path(), LONG);
    (0..10).for_each(|_| write_rows(&producer, 1, [0.8, 0.1, 0.1]));
    wait_until_drained(&producer.path());
    let drained = std::time::SystemTime::now();
    let state = |turn| output.path().join(format!("checkpoint/0.state.{turn}"));
    let written = |turn| fs::metadata(state(turn)).is_ok_and(|file| file.modified().unwrap() > drained);
    write_rows(&producer, 1, [0.8, 0.1, 0.1]);
    wait_until("a checkpoint has the rows", || written(0) || written(1));
    sidecar.signal("-KILL");
    sidecar.wait();
    let sidecar = Sidecar::start(dir.path(), output.path(), LONG);
    wait_until_drained(&producer.path());
    sidecar.stop();
    let reports = reports(output.path());
    let lost = total(&reports, "/losses/crash_rows");
    assert_eq!(total(&reports, "/rows") + lost, 11);
    assert!(lost <= 1, "{lost} rows lost, and a checkpoint has ten of them");
}

#[test]
fn sigterm_drains_what_is_in_the_ring_and_reports_it_as_partial() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let options = Options { ring_bytes: 1 << 22, ..Options::default() };
    let producer = Producer::open(dir.path(), &options).unwrap();
    let sidecar = Sidecar::start(dir.path(), output.path(), LONG);
    wait_until("the sidecar has attached", || inspect(&producer.path())["consumer_epoch"] == 1);
    (0..5000).for_each(|_| write_rows(&producer, 2, [0.8, 0.1, 0.1]));
    let (status, log) = sidecar.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    let reports = reports(output.path());
    assert_eq!(total(&reports, "/rows"), 10_000);
    assert_eq!(reports.last().unwrap()["partial"], true);
}

#[test]
fn every_row_dropped_while_nobody_read_is_reported_once() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let producer = Producer::open(dir.path(), &Options { ring_bytes: 1 << 14, ..Options::default() }).unwrap();
    for _ in 0..500 {
        producer.write_features(&[0.5; 6], 2);
    }
    let before = producer.counts();
    assert!(before.full.1 > 0);
    for _ in 0..2 {
        let sidecar = Sidecar::start(dir.path(), output.path(), LONG);
        wait_until_drained(&producer.path());
        write_rows(&producer, 1, [0.8, 0.1, 0.1]);
        wait_until_drained(&producer.path());
        sidecar.stop();
    }
    let reports = reports(output.path());
    assert_eq!(total(&reports, "/rows"), producer.counts().rows);
    assert_eq!(total(&reports, "/losses/dropped_rows_by_reason/full"), before.full.1);
    assert_eq!(total(&reports, "/losses/missing_records"), before.full.0);
}

#[test]
fn periods_follow_the_records_and_empty_ones_are_reported() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let producer = Producer::open(dir.path(), &Options { period_ns: 200_000_000, ..Options::default() }).unwrap();
    let sidecar = Sidecar::start(dir.path(), output.path(), &[]);
    write_rows(&producer, 4, [0.8, 0.1, 0.1]);
    let empty = |reports: &[Value]| reports.iter().filter(|r| r["rows"] == 0).count();
    wait_until("empty periods follow", || empty(&reports(output.path())) >= 3);
    sidecar.stop();
    let reports = reports(output.path());
    assert_eq!(total(&reports, "/rows"), 4);
    assert!(reports.iter().all(|r| r["period_seconds"] == 0.2), "the producer's wish counts");
    let starts: Vec<_> = reports.iter().map(|r| r["start"].as_str().unwrap().to_owned()).collect();
    assert!(starts.windows(2).all(|pair| pair[0] < pair[1]), "{starts:?}");
    let nothing = reports.iter().find(|r| r["rows"] == 0).unwrap();
    assert_eq!(nothing["predictions"]["confidence"]["mean"], Value::Null);
    assert_eq!(nothing["predictions"]["confidence"]["reason"], "empty");
}

#[test]
fn periods_of_a_producer_that_comes_later_are_whole() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let sidecar = Sidecar::start(dir.path(), output.path(), &["--period", "200ms"]);
    let started = std::time::Instant::now();
    wait_until("the period of its start is over", || started.elapsed().as_millis() > 250);
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    write_rows(&producer, 4, [0.8, 0.1, 0.1]);
    wait_until("the rows are reported", || total(&reports(output.path()), "/rows") == 4);
    assert!(reports(output.path()).iter().all(|report| report["partial"] == false));
    sidecar.stop();
}

#[test]
fn a_second_sidecar_on_one_directory_reads_nothing_and_says_why() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    let first = Sidecar::start(dir.path(), output.path(), LONG);
    wait_until("the first has attached", || inspect(&producer.path())["consumer_attached"] == true);
    let second_output = tempfile::tempdir().unwrap();
    let second = Sidecar::start(dir.path(), second_output.path(), LONG);
    second.wait_for_log("another sidecar reads it");
    write_rows(&producer, 3, [0.8, 0.1, 0.1]);
    wait_until_drained(&producer.path());
    assert!(second.stop().0.success());
    first.stop();
    assert_eq!((total(&reports(output.path()), "/rows"), reports(second_output.path()).len()), (3, 0));
}

#[test]
fn files_that_are_no_rings_disturb_nobody_and_are_named_once() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("empty.0.ring"), "").unwrap();
    fs::write(dir.path().join("noise.0.ring"), vec![0xA5; 100_000]).unwrap();
    fs::create_dir(dir.path().join("folder.0.ring")).unwrap();
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    let cut = fs::read(producer.path()).unwrap();
    fs::write(dir.path().join("cut.0.ring"), &cut[..cut.len() / 2]).unwrap();
    let sidecar = Sidecar::start(dir.path(), output.path(), LONG);
    write_rows(&producer, 3, [0.8, 0.1, 0.1]);
    wait_until_drained(&producer.path());
    let (status, log) = sidecar.stop();
    assert!(status.success());
    for name in ["empty", "noise", "folder", "cut"] {
        let lines = log.lines().filter(|line| line.contains(&format!("{name}.0.ring"))).count();
        assert_eq!(lines, 1, "{name}: {log}");
    }
    assert_eq!(total(&reports(output.path()), "/rows"), 3);
}

#[test]
fn a_corrupt_ring_is_given_up_and_then_quarantined_and_others_go_on() {
    use std::os::unix::fs::FileExt;
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let model = |name: &str| Options { model: name.into(), ..Options::default() };
    let (good, bad) =
        (Producer::open(dir.path(), &model("good")).unwrap(), Producer::open(dir.path(), &model("bad")).unwrap());
    let sidecar = Sidecar::start(dir.path(), output.path(), LONG);
    wait_until("both are attached", || [&good, &bad].iter().all(|p| inspect(&p.path())["consumer_attached"] == true));
    let file = fs::File::options().write(true).open(bad.path()).unwrap();
    let tail_at = fs::metadata(bad.path()).unwrap().len() - (1 << 16) - 2 * 4096;
    for i in 1..=5u64 {
        file.write_all_at(&(i * 640).to_le_bytes(), tail_at).unwrap(); // records of zeros
        wait_until("it is noticed", || inspect(&bad.path())["resyncs"].as_u64() >= Some(i));
    }
    write_rows(&good, 3, [0.8, 0.1, 0.1]);
    (0..40).for_each(|_| write_rows(&bad, 1, [0.8, 0.1, 0.1])); // into a ring that nobody reads any more
    wait_until_drained(&good.path());
    assert_eq!(inspect(&bad.path())["quarantined"], true);
    let (status, log) = sidecar.stop();
    assert!(status.success() && log.contains("quarantined: corrupt 5 times"), "{log}");
    let again = Sidecar::start(dir.path(), output.path(), LONG);
    wait_until("it is attached", || inspect(&bad.path())["consumer_attached"] == true);
    (0..2).for_each(|_| write_rows(&bad, 1, [0.8, 0.1, 0.1]));
    let (_, log) = again.stop();
    assert!(log.contains("an earlier sidecar quarantined it"), "{log}");
    let reports = reports(output.path());
    assert_eq!(total(&reports, "/rows"), 3);
    assert_eq!(total(&reports, "/losses/resyncs"), 5);
    assert_eq!(total(&reports, "/losses/missing_records"), 42, "what was written after it was quarantined");
    drop(bad);
    let fresh = Producer::open(dir.path(), &model("bad")).unwrap();
    assert!(!Snapshot::read(&fresh.path()).unwrap().quarantined, "a new producer gets a new ring");
}

#[test]
fn a_ring_whose_file_changes_its_size_is_survived_and_others_go_on() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let model = |name: &str| Options { model: name.into(), ..Options::default() };
    let good = Producer::open(dir.path(), &model("good")).unwrap();
    for (name, length) in [("nothing", 0), ("half", 40_000), ("identity", 4096), ("pages", 12_288), ("grown", 1 << 20)]
    {
        let cut = Producer::open(dir.path(), &model(name)).unwrap();
        write_rows(&cut, 3, [0.8, 0.1, 0.1]);
        let path = cut.path();
        std::mem::forget(cut); // closing would touch the pages that are about to go
        let sidecar = Sidecar::start(dir.path(), output.path(), LONG);
        wait_until_drained(&path);
        fs::File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        write_rows(&good, 1, [0.8, 0.1, 0.1]);
        wait_until_drained(&good.path());
        let (status, log) = sidecar.stop();
        assert!(status.success(), "cut to {length}: {log}");
        assert!(log.contains("somebody changed its file's size"), "cut to {length}: {log}");
        fs::remove_file(&path).unwrap();
    }
    assert_eq!(total(&reports(output.path()), "/rows"), 5 * 3 + 5);
}

#[test]
fn exit_codes_and_messages_tell_usage_configuration_and_absence_apart() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("mlwatch.toml");
    fs::write(&config, "reservoir = 100\nperod = '5s'\n").unwrap();
    let typo = mlwatch(&["run", "--config", config.to_str().unwrap()]);
    assert_eq!(typo.status.code(), Some(78));
    assert!(stderr(&typo).contains("line 2") && stderr(&typo).contains("`period`"), "{}", stderr(&typo));
    let usage = mlwatch(&["run", "--perod", "5s"]);
    assert_eq!(usage.status.code(), Some(64));
    assert!(stderr(&usage).contains("--period"), "{}", stderr(&usage));
    let absent = mlwatch(&["inspect", "/dev/shm/nothing.0.ring"]);
    assert_eq!(absent.status.code(), Some(69));
    assert!(stderr(&absent).contains("/dev/shm/nothing.0.ring: No such file"), "{}", stderr(&absent));
    let version = mlwatch(&["--version"]);
    assert!(version.status.success() && String::from_utf8_lossy(&version.stdout).starts_with("mlwatch 0."));
}

#[test]
fn inspect_writes_no_control_characters_that_a_producer_chose() {
    let dir = ring_dir();
    let options = Options { model: "a\u{1b}[2Jb\nc".into(), ..Options::default() };
    let producer = Producer::open(dir.path(), &options).unwrap();
    let text = String::from_utf8(mlwatch(&["inspect", producer.path().to_str().unwrap()]).stdout).unwrap();
    assert!(text.contains(r"a\u{1b}[2Jb\nc"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

#[test]
fn inspect_shows_identity_schema_positions_and_counters() {
    let dir = ring_dir();
    let options = Options { model: "digits".into(), version: "3".into(), ..Options::default() };
    let producer = Producer::open(dir.path(), &options).unwrap();
    write_rows(&producer, 3, [0.8, 0.1, 0.1]);
    let text = mlwatch(&["inspect", producer.path().to_str().unwrap()]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for part in ["digits", "version \"3\"", "class_0, class_1, class_2", "1 records, 3 rows", "fill       192 of 65536"]
    {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
    let json = inspect(&producer.path());
    assert_eq!(
        (&json["schema"]["model"], &json["counters"]["rows"], &json["head"]),
        (&"digits".into(), &3.into(), &0.into())
    );
    assert!(Path::new(json["path"].as_str().unwrap()).exists());
}

#[test]
fn inspect_knows_what_the_sidecar_will_take() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    let sidecar = Sidecar::start(dir.path(), output.path(), LONG);
    sidecar.wait_for_log("attached");
    let text = mlwatch(&["inspect", producer.path().to_str().unwrap()]);
    let text = String::from_utf8(text.stdout).unwrap();
    let memory = text.lines().find(|line| line.starts_with("memory")).expect(&text);
    let bytes = memory.split(' ').find(|word| word.parse::<u64>().is_ok()).expect(memory);
    assert!(sidecar.says(&format!("profile_bytes_at_most={bytes} ")), "{memory}\n{}", sidecar.log());
}
