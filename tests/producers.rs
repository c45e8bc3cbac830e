//! The C producer against the sidecar's consumer, in one process.

mod support;

use half::{bf16, f16};
use mlwatch::ring::{Area, Batch, Budget, Consumer, Matrix, Segment, SegmentBy, Snapshot, wire};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use support::conservation::{self, Read};
use support::{
    Api, BF16, F16, F32, F64, Options, Producer, REGRESSION, RawBatch, RawReservation, api, batch, reservation,
    ring_dir,
};

const ALL: Budget = Budget { records: u64::MAX, bytes: u64::MAX };
const EAGAIN: i32 = -11;
const EBUSY: i32 = -16;
const EINVAL: i32 = -22;
const EMSGSIZE: i32 = -90;

fn consumer(producer: &Producer) -> Consumer<Segment> {
    let segment = Segment::open(&producer.path(), 1 << 30).expect("a ring the producer made is sound");
    let schema = segment.schema().clone();
    Consumer::new(segment, &schema)
}

fn drain(consumer: &mut Consumer<Segment>, each: impl FnMut(Batch<'_>)) -> mlwatch::ring::Polled {
    consumer.poll(ALL, |_| true, each).sound().expect("what the producer wrote is sound")
}

/// Every row that was offered has been read, or is counted as dropped.
fn balance(consumer: &Consumer<Segment>, offered_rows: u64, missing: u64) {
    let counters = consumer.area().counters();
    conservation::check(&counters, Read::all(consumer.consumed(), missing), 0..=0);
    conservation::check_offered(&counters, offered_rows);
}

fn widened(matrix: Matrix<'_>) -> Vec<f64> {
    match matrix {
        Matrix::F16(view) => view.iter().map(|x| x.to_f64()).collect(),
        Matrix::BF16(view) => view.iter().map(|x| x.to_f64()).collect(),
        Matrix::F32(view) => view.iter().map(|&x| x.into()).collect(),
        Matrix::F64(view) => view.iter().copied().collect(),
    }
}

/// `values` in the ring's dtype, as bytes.
fn encoded(values: &[f64], dtype: u32) -> Vec<u8> {
    match dtype {
        F16 => values.iter().flat_map(|&x| f16::from_f64(x).to_le_bytes()).collect(),
        BF16 => values.iter().flat_map(|&x| bf16::from_f64(x).to_le_bytes()).collect(),
        F32 => values.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|&x| x.to_le_bytes()).collect(),
    }
}

#[test]
fn every_section_round_trips_in_every_dtype() {
    for dtype in [F16, BF16, F32, F64] {
        let dir = ring_dir();
        let producer = Producer::open(dir.path(), &Options { dtype, ..Options::default() }).unwrap();
        let (proba, features) = (vec![0.5, 0.25, 0.25, 1.0, 0.0, 0.0], vec![-1.5, 2.0, 0.0, 1024.0]);
        let (proba_bytes, feature_bytes) = (encoded(&proba, dtype), encoded(&features, dtype));
        let (labels, sets, ids) = ([2, -1], [1u8, 0, 1, 0, 0, 0], [7u64, u64::MAX]);
        let full = RawBatch {
            rows: 2,
            timestamp_ns: 1_234,
            proba: proba_bytes.as_ptr().cast(),
            features: feature_bytes.as_ptr().cast(),
            labels: labels.as_ptr(),
            ids: ids.as_ptr(),
            ..batch()
        };
        let with_sets = RawBatch { labels: std::ptr::null(), label_sets: sets.as_ptr(), ..full };
        let only_features = RawBatch { rows: 2, features: feature_bytes.as_ptr().cast(), ..batch() };
        for one in [&full, &with_sets, &only_features] {
            assert_eq!(producer.write(one), 0);
        }
        let mut seen = 0;
        drain(&mut consumer(&producer), |b| {
            assert_eq!((b.rows, b.seq), (2, seen));
            assert_eq!(widened(b.features.unwrap()), features);
            assert_eq!(b.probabilities.map(widened), (seen < 2).then(|| proba.clone()));
            assert_eq!(b.labels, (seen == 0).then_some(&labels[..]));
            assert_eq!(b.label_sets.map(|v| v.iter().copied().collect::<Vec<_>>()), (seen == 1).then(|| sets.to_vec()));
            assert_eq!(b.ids, (seen < 2).then_some(&ids[..]));
            assert_eq!(b.ts_ns == 1_234, seen < 2);
            seen += 1;
        });
        assert_eq!(seen, 3);
    }
}

#[test]
fn segments_arrive_row_by_row_where_the_schema_says_that_rows_have_them() {
    let dir = ring_dir();
    let options = Options { segment_by: wire::SEGMENT_BY_ROW, n_classes: 2, ..Options::default() };
    let producer = Producer::open(dir.path(), &options).unwrap();
    let rows = 5000u32; // several records
    let proba = vec![0.5f32; 2 * rows as usize];
    let segments: Vec<u16> = (0..rows).map(|row| (row * 13) as u16).collect();
    let with = RawBatch { rows, proba: proba.as_ptr().cast(), segments: segments.as_ptr(), ..batch() };
    let mut every_second = RawBatch { rows: rows / 2, segments_stride: 4, ..with };
    every_second.labels = [1i32; 2500].as_ptr();
    let without = RawBatch { segments: std::ptr::null(), ..with };
    let (mut got, mut bare, mut consumer) = (Vec::new(), 0, consumer(&producer));
    for one in [&with, &without, &every_second] {
        assert_eq!(producer.write(one), 0);
        drain(&mut consumer, |b| match b.segments {
            Some(segments) => got.extend_from_slice(segments),
            None => bare += b.rows,
        });
    }
    let want: Vec<u16> = segments.iter().copied().chain(segments.iter().copied().step_by(2)).collect();
    assert!(got == want && bare == rows as usize);
    assert_eq!(producer.write(&RawBatch { proba: std::ptr::null(), ..with }), EINVAL, "nothing to keep apart");
    let needs = consumer.area().identity().feat_incompat;
    assert_eq!((consumer.area().schema().segment_by, needs), (Some(SegmentBy::Row), wire::NEEDS_SEGMENTS));
}

#[test]
fn segments_by_what_is_no_categorical_feature_are_refused_with_the_reason() {
    let dir = ring_dir();
    for (segment_by, why) in [(1, "not MLW_CATEGORICAL"), (3, "there are 2 features")] {
        let Err((code, text)) = Producer::open(dir.path(), &Options { segment_by, ..Options::default() }) else {
            panic!("segments by {segment_by}")
        };
        assert!(code == EINVAL && text.contains(why), "{text}");
    }
}

#[test]
fn a_regression_has_targets_and_no_labels() {
    let dir = ring_dir();
    let options = Options { task: REGRESSION, n_classes: 1, ..Options::default() };
    let producer = Producer::open(dir.path(), &options).unwrap();
    let (outputs, targets) = ([1.5f32, 2.5], [1.0f64, f64::NAN]);
    let one = RawBatch { rows: 2, proba: outputs.as_ptr().cast(), targets: targets.as_ptr(), ..batch() };
    assert_eq!(producer.write(&one), 0);
    assert_eq!(producer.write(&RawBatch { labels: [0, 0].as_ptr(), targets: std::ptr::null(), ..one }), EINVAL);
    drain(&mut consumer(&producer), |b| {
        let got: Vec<f64> = b.targets.unwrap().iter().copied().collect();
        assert!(got[0] == 1.0 && got[1].is_nan());
    });
}

#[test]
fn strided_rows_arrive_packed() {
    let dir = ring_dir();
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    let wide = [1f32, 2.0, 99.0, 3.0, 4.0, 99.0];
    let forward = RawBatch { rows: 2, features: wide.as_ptr().cast(), features_stride: 12, ..batch() };
    let backward = RawBatch { features: wide[3..].as_ptr().cast(), features_stride: -12, ..forward };
    assert_eq!((producer.write(&forward), producer.write(&backward)), (0, 0));
    let mut got = Vec::new();
    drain(&mut consumer(&producer), |b| got.push(widened(b.features.unwrap())));
    assert_eq!(got, [[1.0, 2.0, 3.0, 4.0], [3.0, 4.0, 1.0, 2.0]]);
}

#[test]
fn records_of_every_size_survive_hundreds_of_laps() {
    let dir = ring_dir();
    let producer = Producer::open(dir.path(), &Options { ring_bytes: 1 << 14, ..Options::default() }).unwrap();
    let mut consumer = consumer(&producer);
    let (mut written, mut read, mut next) = (0u32, 0u32, 1u32);
    let (mut offered, mut missing) = (0, 0);
    for _ in 0..40_000 {
        next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let rows = next >> 16 & 63;
        let values: Vec<f32> = (0..rows * 2).map(|i| (written + i) as f32).collect();
        offered += u64::from(rows);
        if rows > 0 && producer.write_features(&values, 2) == 0 {
            written += rows * 2;
        }
        if next >> 8 & 3 == 0 {
            let polled = drain(&mut consumer, |b| {
                let Some(Matrix::F32(view)) = b.features else { panic!("f32 was written") };
                view.iter().for_each(|&x| {
                    assert_eq!(x, read as f32);
                    read += 1;
                });
            });
            missing += polled.missing;
            (written, read) = if written > 1 << 23 { (0, 0) } else { (written, read) };
        }
    }
    missing += drain(&mut consumer, |b| read += b.rows as u32 * 2).missing;
    assert_eq!(read, written);
    balance(&consumer, offered, missing);
    assert!(consumer.consumed().head > 500 << 14, "hundreds of laps");
}

#[test]
fn a_batch_longer_than_a_record_is_split_by_rows() {
    let dir = ring_dir();
    let producer = Producer::open(dir.path(), &Options { ring_bytes: 1 << 14, ..Options::default() }).unwrap();
    let values: Vec<f32> = (0..2400).map(|i| i as f32).collect();
    assert_eq!(producer.write_features(&values, 2), 0);
    let (mut got, mut records) = (Vec::new(), 0);
    drain(&mut consumer(&producer), |b| {
        got.extend(widened(b.features.unwrap()));
        records += 1;
    });
    assert_eq!(got, values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
    // SAFETY: the handle is open.
    let most = unsafe { (api().record_rows)(producer.0, u32::from(wire::section::FEATURES)) };
    assert_eq!(records, 1200u32.div_ceil(most));
}

#[test]
fn a_full_ring_drops_the_newest_and_counts_exactly() {
    let dir = ring_dir();
    let producer = Producer::open(dir.path(), &Options { ring_bytes: 1 << 14, ..Options::default() }).unwrap();
    let mut consumer = consumer(&producer);
    let (mut produced, mut consumed, mut missing) = (0u64, 0u64, 0u64);
    for round in 0..50u64 {
        for i in 0..400 {
            let rows = 1 + (i + round) % 7;
            let result = producer.write_features(&vec![0.5; rows as usize * 2], 2);
            assert!(result == 0 || result == EAGAIN);
            produced += rows;
        }
        missing += drain(&mut consumer, |b| consumed += b.rows as u64).missing;
    }
    // One more record, whose sequence number tells of the drops before it.
    assert_eq!(producer.write_features(&[0.5; 2], 2), 0);
    produced += 1;
    missing += drain(&mut consumer, |b| consumed += b.rows as u64).missing;
    let counts = producer.counts();
    assert!(counts.full.1 > 0, "the ring was meant to be full");
    assert_eq!((counts.rows, counts.dropped_rows), (consumed, counts.full.1));
    balance(&consumer, produced, missing);
}

#[test]
fn reserve_and_commit_write_the_same_bytes_as_write() {
    let dir = ring_dir();
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    let (proba, labels) = ([0.5f32, 0.25, 0.25], [1]);
    let one = RawBatch { rows: 1, timestamp_ns: 9, proba: proba.as_ptr().cast(), labels: labels.as_ptr(), ..batch() };
    assert_eq!(producer.write(&one), 0);
    let mut place = reservation(1, u32::from(wire::section::PROBABILITIES | wire::section::LABELS));
    place.timestamp_ns = 9;
    // SAFETY: the handle is open; the places are writable as long as the reservation.
    unsafe {
        assert_eq!((api().reserve)(producer.0, &mut place), 0);
        place.proba.cast::<[f32; 3]>().write(proba);
        place.labels.write(1);
        assert!(place.features.is_null() && place.ids.is_null());
        assert_eq!((api().reserve)(producer.0, &mut RawReservation { ..place }), EBUSY);
        assert_eq!(producer.write(&one), EBUSY);
        assert_eq!((api().commit)(producer.0), 0);
        assert_eq!((api().commit)(producer.0), EINVAL);
    }
    let consumer = consumer(&producer);
    let (first, second) = (consumer.area().record(0), consumer.area().record(192));
    assert_eq!((first.sections, first.rows, first.payload_len), (second.sections, second.rows, second.payload_len));
    let (a, b) = (consumer.area().payload(64, 128), consumer.area().payload(256, 128));
    assert_eq!((&a[..12], &a[64..68]), (&b[..12], &b[64..68]));
    assert_eq!(producer.counts().contended, (2, 2));
}

#[test]
fn a_discarded_or_oversized_reservation_leaves_nothing_behind() {
    let dir = ring_dir();
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    let features = u32::from(wire::section::FEATURES);
    // SAFETY: the handle is open.
    unsafe {
        let most = (api().record_rows)(producer.0, features);
        assert_eq!((api().reserve)(producer.0, &mut reservation(most, features)), 0);
        assert_eq!((api().discard)(producer.0), 0);
        assert_eq!((api().reserve)(producer.0, &mut reservation(most + 1, features)), EMSGSIZE);
        assert_eq!((api().reserve)(producer.0, &mut reservation(0, features)), EINVAL);
        assert_eq!((api().reserve)(producer.0, &mut reservation(1, 1 << 6)), EINVAL, "the schema has none");
        assert_eq!((api().reserve)(producer.0, &mut reservation(1, 1 << 7)), EINVAL);
    }
    assert_eq!(producer.write_features(&[1.0, 2.0], 2), 0);
    let polled = drain(&mut consumer(&producer), |b| assert_eq!(b.rows, 1));
    assert_eq!((polled.records, polled.missing), (1, 1));
    let counts = producer.counts();
    assert_eq!((counts.too_large.0, counts.rejected.0), (1, 3));
}

#[test]
fn a_forged_head_makes_the_producer_drop_and_never_overwrite() {
    let dir = ring_dir();
    let producer = Producer::open(dir.path(), &Options { ring_bytes: 1 << 14, ..Options::default() }).unwrap();
    let values = [1f32; 1000];
    while producer.write_features(&values, 2) == 0 {}
    let before = Snapshot::read(&producer.path()).unwrap();
    let page = fs::File::options().write(true).open(producer.path()).unwrap();
    let segment = Segment::open(&producer.path(), 1 << 30).unwrap();
    let at = segment.identity().consumer_off;
    for forged in [before.tail + 64, before.tail + 63, u64::MAX, u64::MAX - 63, 1, before.tail - 1, before.tail << 1] {
        page.write_all_at(&forged.to_le_bytes(), at).unwrap();
        assert_eq!(producer.write_features(&values, 2), EAGAIN, "head {forged}");
        assert_eq!(Snapshot::read(&producer.path()).unwrap().tail, before.tail);
    }
    page.write_all_at(&before.tail.to_le_bytes(), at).unwrap();
    assert_eq!(producer.write_features(&values, 2), 0);
}

#[test]
fn producers_of_one_stream_take_slots_of_their_own() {
    let dir = ring_dir();
    let options = Options { model: "a/b c".into(), version: "2.0".into(), ..Options::default() };
    let first = Producer::open(dir.path(), &options).unwrap();
    let second = Producer::open(dir.path(), &options).unwrap();
    let names: Vec<_> = [&first, &second].map(|p| p.path().file_name().unwrap().to_str().unwrap().to_owned()).into();
    assert_eq!(names, ["a_b_c@2_0.0.ring", "a_b_c@2_0.1.ring"]);
    drop(first);
    assert_eq!(Producer::open(dir.path(), &options).unwrap().path().file_name().unwrap(), "a_b_c@2_0.0.ring");
}

#[test]
fn two_copies_of_the_library_in_one_process_take_slots_of_their_own() {
    let (dir, tools) = (ring_dir(), tempfile::tempdir().unwrap());
    let first = Producer::open(dir.path(), &Options::default()).unwrap();
    let copy = tools.path().join("libmlwatch-copy.so");
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/c/libmlwatch.so.1"), &copy).unwrap();
    let other: &'static Api = Box::leak(Box::new(Api::load(&copy)));
    assert_ne!(other.open as usize, api().open as usize, "it was meant to be another copy");
    let same = Producer::open_with(other, dir.path(), &Options::default()).unwrap();
    let another = Producer::open_with(other, dir.path(), &Options { n_features: 5, ..Options::default() }).unwrap();
    let paths = BTreeSet::from([&first, &same, &another].map(|p| p.path()));
    assert_eq!(paths.len(), 3, "{paths:?}");
    drop(first);
    let again = Producer::open_with(other, dir.path(), &Options::default()).unwrap();
    assert_eq!(again.path().file_name().unwrap(), "test.0.ring");
    [same, another, again].into_iter().for_each(|producer| {
        // SAFETY: opened by this copy, closed by it once.
        unsafe { (other.close)(producer.0) };
        std::mem::forget(producer);
    });
}

#[test]
fn gaps_before_a_corrupt_record_are_counted() {
    let dir = ring_dir();
    let producer = Producer::open(dir.path(), &Options { ring_bytes: 1 << 14, ..Options::default() }).unwrap();
    let mut consumer = consumer(&producer);
    while producer.write_features(&[0.5; 64], 2) == 0 {}
    drain(&mut consumer, |_| {});
    assert_eq!((producer.write_features(&[1.0; 2], 2), producer.write_features(&[2.0; 2], 2)), (0, 0));
    let second = Snapshot::read(&producer.path()).unwrap().tail - 128;
    let file = fs::File::options().write(true).open(producer.path()).unwrap();
    let at = consumer.area().identity().data_off + second % (1 << 14);
    file.write_all_at(&[0; 4], at).unwrap();
    let polled = consumer.poll(ALL, |_| true, |_| {});
    assert_eq!((polled.records, polled.missing), (1, 1));
    assert!(polled.corruption.is_some() && polled.sound().is_err());
}

#[test]
fn reading_stops_before_a_record_that_is_not_wanted_yet() {
    let dir = ring_dir();
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    for ts in [5, 6, 7] {
        let one = RawBatch { rows: 1, timestamp_ns: ts, features: [1f32, 2.0].as_ptr().cast(), ..batch() };
        assert_eq!(producer.write(&one), 0);
    }
    let mut consumer = consumer(&producer);
    let polled = consumer.poll(ALL, |ts| ts < 6, |_| {});
    assert_eq!((polled.records, polled.drained, consumer.next_ts_ns()), (1, false, Some(6)));
    assert_eq!(consumer.poll(ALL, |_| true, |_| {}).records, 2);
    assert_eq!(consumer.next_ts_ns(), None);
}

#[test]
fn a_restarted_producer_goes_on_where_the_last_one_stopped() {
    let dir = ring_dir();
    let open = || Producer::open(dir.path(), &Options::default()).unwrap();
    let first = open();
    assert_eq!(first.write_features(&[1.0, 2.0], 2), 0);
    let path = first.path();
    drop(first);
    assert!(Snapshot::read(&path).unwrap().closed);
    let second = open();
    assert_eq!(second.write_features(&[3.0, 4.0], 2), 0);
    let snapshot = Snapshot::read(&path).unwrap();
    assert_eq!((snapshot.producer_epoch, snapshot.counters.records, snapshot.closed), (2, 2, false));
    let mut seqs = Vec::new();
    drain(&mut consumer(&second), |b| seqs.push(b.seq));
    assert_eq!(seqs, [0, 1]);
}

#[test]
fn another_schema_replaces_a_drained_ring_but_not_one_with_unread_records() {
    let dir = ring_dir();
    let options = |n_features| Options { n_features, ..Options::default() };
    let old = Producer::open(dir.path(), &options(2)).unwrap();
    assert_eq!(old.write_features(&[1.0, 2.0], 2), 0);
    let path = old.path();
    drop(old);
    let beside = Producer::open(dir.path(), &options(3)).unwrap();
    assert_ne!(beside.path(), path);
    drop(beside);
    let mut reader = {
        let segment = Segment::open(&path, 1 << 30).unwrap();
        let schema = segment.schema().clone();
        Consumer::new(segment, &schema)
    };
    assert_eq!(drain(&mut reader, |_| {}).records, 1);
    let inode = fs::metadata(&path).unwrap().ino();
    let replacing = Producer::open(dir.path(), &options(4)).unwrap();
    assert_eq!(replacing.path(), path);
    assert_ne!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file stays");
}

#[test]
fn files_are_for_user_and_group_and_fully_allocated() {
    let dir = ring_dir();
    let inner = dir.path().join("rings");
    let producer = Producer::open(&inner, &Options { ring_bytes: 1 << 20, ..Options::default() }).unwrap();
    assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o7777, 0o2770);
    let file = fs::metadata(producer.path()).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o660);
    assert!(file.blocks() * 512 >= file.len(), "no hole is left to fault in the inference loop");
}

#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() {
    api(); // builds it
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = fs::read_to_string(root.join("include/mlwatch.h")).unwrap();
    let functions = header.lines().filter(|line| line.ends_with(");") && !line.starts_with(' '));
    let name = |line: &str| {
        let before = line.split('(').next().unwrap();
        before.rsplit([' ', '*']).next().unwrap().to_owned()
    };
    let declared: BTreeSet<String> = functions.map(name).filter(|name| name.starts_with("mlw_")).collect();
    let library = root.join("target/c/libmlwatch.so.1");
    let listed = Command::new("nm").args(["-D", "--defined-only"]).arg(&library).output().expect("nm runs");
    let text = String::from_utf8(listed.stdout).unwrap();
    let symbols = text.lines().filter(|line| line.contains(" T ")).map(|line| line.split_whitespace().nth(2).unwrap());
    let exported: BTreeSet<String> = symbols.map(|symbol| symbol.split('@').next().unwrap().to_owned()).collect();
    assert_eq!(exported, declared);
    assert!(declared.contains("mlw_write") && declared.len() >= 11);
    let dynamic = Command::new("readelf").arg("-d").arg(&library).output().expect("readelf runs");
    let dynamic = String::from_utf8(dynamic.stdout).unwrap();
    assert!(dynamic.contains("soname: [libmlwatch.so.1]"), "{dynamic}");
    let needed: Vec<_> = dynamic.lines().filter(|line| line.contains("(NEEDED)")).collect();
    assert!(needed.iter().all(|line| line.contains("[libc.so")), "libc only: {needed:?}");
}

#[test]
fn the_cpp17_example_writes_its_batches_into_the_ring() {
    api(); // builds the library
    let (root, tools, dir) = (Path::new(env!("CARGO_MANIFEST_DIR")), tempfile::tempdir().unwrap(), ring_dir());
    let program = tools.path().join("iris");
    let built = Command::new("c++")
        .args(["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Iinclude", "examples/cpp/main.cpp"])
        .args(["target/c/libmlwatch.a", "-o"])
        .arg(&program)
        .current_dir(root)
        .status();
    assert!(built.expect("c++ runs").success());
    assert!(Command::new(&program).arg("0.1").arg(dir.path()).status().unwrap().success());
    let mut rows = 0;
    let (snapshot, mut consumer) = {
        let path = dir.path().join("iris.0.ring");
        let segment = Segment::open(&path, 1 << 30).unwrap();
        let schema = segment.schema().clone();
        (Snapshot::read(&path).unwrap(), Consumer::new(segment, &schema))
    };
    drain(&mut consumer, |b| {
        for row in widened(b.probabilities.unwrap()).chunks(3) {
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-3);
        }
        rows += b.rows as u64;
    });
    assert!(rows > 0 && rows == snapshot.counters.rows);
}

#[test]
fn opening_explains_what_is_wrong_and_what_helps() {
    let dir = ring_dir();
    let why = |dir: &Path, options: Options| Producer::open(dir, &options).map(|_| ()).unwrap_err();
    let base = Options::default;
    let cases = [
        (why(dir.path(), Options { model: String::new(), ..base() }), EINVAL, "model is required"),
        (why(dir.path(), Options { n_classes: 0, n_features: 0, ..base() }), EINVAL, "nothing to watch"),
        (why(dir.path(), Options { n_classes: 1, ..base() }), EINVAL, "with n_classes 2"),
        (why(dir.path(), Options { dtype: 9, ..base() }), EINVAL, "MLW_F32"),
        (why(dir.path(), Options { task: 3, ..base() }), EINVAL, "MLW_REGRESSION"),
        (why(dir.path(), Options { n_features: 100_000, ..base() }), EINVAL, "set ring_bytes to 2097152"),
        (why(dir.path(), Options { version: "x".repeat(256), ..base() }), EINVAL, "255 at most"),
        (why(Path::new("/dev/shm/no/such/dir"), base()), -2, "/dev/shm/no/such/dir"),
        (why(Path::new("/proc"), base()), -124, "not in memory"),
    ];
    for ((code, text), want, part) in cases {
        assert_eq!(code, want, "{text}");
        assert!(text.contains(part), "{text:?} should say {part:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_name_that_leads_elsewhere_costs_a_slot_and_nothing_else() {
    let dir = ring_dir();
    fs::create_dir(dir.path().join("test.0.ring")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("test.1.ring")).unwrap();
    let made = Command::new("mkfifo").arg(dir.path().join("test.2.ring")).status().unwrap();
    assert!(made.success());
    fs::write(dir.path().join("test.3.ring"), "not a ring").unwrap();
    let producer = Producer::open(dir.path(), &Options::default()).unwrap();
    assert_eq!(producer.path().file_name().unwrap(), "test.3.ring");
    for slot in 0..3 {
        assert!(Segment::open(&dir.path().join(format!("test.{slot}.ring")), 1 << 30).is_err());
    }
}

#[test]
fn a_handle_used_by_two_threads_counts_what_it_turns_away() {
    let dir = ring_dir();
    let producer = Producer::open(dir.path(), &Options { ring_bytes: 1 << 20, ..Options::default() }).unwrap();
    let mut consumer = consumer(&producer);
    let shared = &producer;
    struct Shared<'a>(&'a Producer);
    // SAFETY: the C library promises that accidental sharing is counted, not corrupting; that is what is tested.
    unsafe impl Sync for Shared<'_> {}
    let shared = Shared(shared);
    let (mut missing, each) = (0, 20_000u64);
    std::thread::scope(|scope| {
        let shared = &shared;
        let threads: Vec<_> = (0..2)
            .map(|_| scope.spawn(move || (0..each).filter(|_| shared.0.write_features(&[0.5; 64], 2) == 0).count()))
            .collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            missing += drain(&mut consumer, |_| {}).missing;
        }
    });
    missing += drain(&mut consumer, |_| {}).missing;
    balance(&consumer, 2 * each * 32, missing);
}
