//! A writer killed with SIGKILL at random moments while the sidecar's consumer reads: every record it committed arrives intact,
//! in order, and nothing else does.

mod support;

use mlwatch::ring::{Batch, Budget, Consumer, Matrix, Segment, Snapshot, scan};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use support::conservation::{self, Read};
use support::ring_dir;

/// `MLWATCH_KILLS` for a longer run.
fn kills() -> u64 {
    std::env::var("MLWATCH_KILLS").map_or(500, |n| n.parse().expect("MLWATCH_KILLS is a number"))
}

/// What the reader has seen of the current run.
struct Run {
    number: u64,
    records: u64,
}

impl Run {
    /// Every byte of the batch follows from its run and index.
    fn check(&mut self, b: &Batch<'_>) {
        let i = self.records;
        let ids = b.ids.expect("ids were written");
        assert!(ids.iter().all(|&id| id == self.number << 32 | i), "run {}, record {i}: ids {ids:?}", self.number);
        assert_eq!((b.rows as u64, b.ts_ns), (1 + i * 7 % 40, i + 1));
        let Some(Matrix::F64(features)) = b.features else { panic!("f64 features were written") };
        for ((r, f), &x) in features.indexed_iter() {
            assert_eq!(x, (i * 1000 + r as u64 * 10 + f as u64) as f64);
        }
        self.records += 1;
    }
}

struct Reader {
    consumer: Option<Consumer<Segment>>,
    missing: u64,
}

impl Reader {
    /// Attaches when the first writer has made the ring, then reads what is there.
    fn read(&mut self, dir: &Path, run: &mut Run) {
        if self.consumer.is_none() {
            let found = scan(dir).unwrap().found;
            assert!(found.len() <= 1, "one writer at a time needs one slot: {found:?}");
            let Some(ring) = found.first() else { return };
            let segment = Segment::open(&ring.path, 1 << 30).expect("a named ring is whole");
            let schema = segment.schema().clone();
            self.consumer = Some(Consumer::new(segment, &schema));
        }
        let consumer = self.consumer.as_mut().expect("attached above");
        let all = Budget { records: u64::MAX, bytes: u64::MAX };
        self.missing +=
            consumer.poll(all, |_| true, |b| run.check(&b)).sound().expect("a killed writer corrupts nothing").missing;
    }
}

/// Reads until the writer has lived for as long as it may, then kills it.
fn live_and_die(mut writer: Child, life: Duration, mut read: impl FnMut()) {
    let born = Instant::now();
    while born.elapsed() < life {
        read();
    }
    assert!(writer.try_wait().unwrap().is_none(), "the writer ended by itself");
    writer.kill().unwrap();
    writer.wait().unwrap();
    read();
}

#[test]
fn a_killed_writer_loses_and_forges_nothing() {
    let dir = ring_dir();
    let tools = tempfile::tempdir().unwrap();
    let writer = support::compiled("tests/c/writer.c", tools.path());
    let acks_path = tools.path().join("acks");
    let acks = File::options().read(true).write(true).create_new(true).open(&acks_path).unwrap();
    acks.set_len(4096).unwrap();
    let mut reader = Reader { consumer: None, missing: 0 };
    let (mut random, mut total, mut in_hand) = (0x9E37_79B9_7F4A_7C15u64, 0u64, 0u64);
    for number in 0..kills() {
        acks.write_all_at(&[0; 8], 0).unwrap();
        let child = Command::new(&writer).arg(dir.path()).arg(number.to_string()).arg(&acks_path).spawn().unwrap();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let life = Duration::from_micros((random >> 33) % 6000);
        let mut run = Run { number, records: 0 };
        live_and_die(child, life, || reader.read(dir.path(), &mut run));
        let mut acknowledged = [0; 8];
        acks.read_exact_at(&mut acknowledged, 0).unwrap();
        let acknowledged = u64::from_le_bytes(acknowledged);
        // The kill may have come between the record's publication and its acknowledgement.
        assert!(
            (acknowledged..=acknowledged + 1).contains(&run.records),
            "{acknowledged} acknowledged, {} read",
            run.records
        );
        total += run.records;
        in_hand += u64::from(run.records > 0);
    }
    let counts = Snapshot::read(&scan(dir.path()).unwrap().found[0].path).unwrap().counters;
    let consumed = reader.consumer.as_ref().expect("attached").consumed();
    assert_eq!(consumed.records, total);
    let lost_in_crashes = conservation::check(&counts, Read::all(consumed, reader.missing), 0..=kills());
    assert!(
        in_hand > kills() / 4,
        "only {in_hand} writers got as far as writing: the kills come too early to prove anything"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{} crashes leave one file", kills());
    println!(
        "{} kills, {total} records, {} missing by sequence, {lost_in_crashes} lost in a crash",
        kills(),
        reader.missing
    );
}
