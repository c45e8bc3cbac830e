//! A consumer that means harm, in a process of its own, against a real producer that writes as fast as it can.

use super::forge::Dice;
use super::{Attacker, HANGING, seconds};
use crate::attacks::Round;
use crate::support::{Counts, RawBatch};
use crate::support::{Options, Producer, batch, ring_dir};
use mlwatch::ring::wire::{ConsumerPage, ProducerPage};
use mlwatch::ring::{Batch, Budget, Consumer, Matrix, Segment, Snapshot};
use std::fs::File;
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// What it writes, and what must come of it.
pub struct Trial {
    pub name: &'static str,
    pub prepare: fn(&Path, Dice) -> Round,
    pub run: fn(&Trial) -> u64,
}

pub const ALL: &[Trial] = &[
    Trial {
        name: "consumer: heads nobody can believe, beside a real one",
        prepare: unbelievable,
        run: beside_a_reader,
    },
    Trial { name: "consumer: heads that may be true", prepare: believable, run: alone },
    Trial { name: "consumer: a page forged while producers come and go", prepare: any_page, run: coming_and_going },
];

const RING: &str = "victim.0.ring";
const ROWS: u32 = 3;
/// A ring of the victim's capacity without class and feature names has its pages here.
const PRODUCER_AT: u64 = 4096;
const CONSUMER_AT: u64 = 8192;

/* ---- the attacker ---- */

fn forge(dir: &Path, mut dice: Dice, head: fn(&mut Dice, u64) -> u64) -> Round {
    let path = dir.join(RING);
    Box::new(move || {
        // Opened anew: the name may lead to a new ring.
        let Ok(file) = File::options().read(true).write(true).open(&path) else { return };
        for _ in 0..100 {
            let mut tail = [0; 8];
            let _ = file.read_exact_at(&mut tail, PRODUCER_AT + offset_of!(ProducerPage, tail) as u64);
            let head = head(&mut dice, u64::from_le_bytes(tail));
            file.write_all_at(&head.to_le_bytes(), CONSUMER_AT).expect("it can be written");
            let word = 16 + dice.below(size_of::<ConsumerPage>() as u64 / 8 - 16);
            file.write_all_at(&dice.next().to_le_bytes(), CONSUMER_AT + word * 8).expect("it can be written");
        }
    })
}

/// Far beyond the tail, which moves on meanwhile; unaligned; or long behind.
fn unbelievable(dir: &Path, dice: Dice) -> Round {
    forge(dir, dice, |dice, tail| dice.pick(&[0, 1, 63, tail + (1 << 40), u64::MAX, u64::MAX - 63, tail | 1]))
}

fn believable(dir: &Path, dice: Dice) -> Round {
    forge(dir, dice, |dice, tail| tail.saturating_sub(dice.below(2000) * 64))
}

fn any_page(dir: &Path, dice: Dice) -> Round {
    forge(dir, dice, |dice, tail| dice.edge(tail))
}

/* ---- the victim ---- */

fn open(dir: &Path) -> Producer {
    let options = Options { model: "victim".into(), ring_bytes: 1 << 16, ..Options::default() };
    Producer::open(dir, &options).expect("a forged page keeps nobody from opening")
}

/// The i-th record, whose every value follows from i.
fn write(producer: &Producer, i: u64) {
    let values = [i as f32; 2 * ROWS as usize];
    producer.write(&RawBatch { rows: ROWS, timestamp_ns: i + 1, features: values.as_ptr().cast(), ..batch() });
}

fn check(b: &Batch<'_>) {
    let Some(Matrix::F32(features)) = b.features else { panic!("f32 features were written") };
    assert!(features.iter().all(|&x| x == (b.ts_ns - 1) as f32), "overwritten: {features:?} of record {}", b.ts_ns - 1);
}

fn assert_adds_up(attempted: u64, before: &Counts, after: &Counts) {
    let (written, dropped) = (after.records - before.records, after.dropped_records - before.dropped_records);
    assert_eq!(written + dropped, attempted, "{before:?} {after:?}");
    let (written, dropped) = (after.rows - before.rows, after.dropped_rows - before.dropped_rows);
    assert_eq!(written + dropped, attempted * u64::from(ROWS), "{before:?} {after:?}");
}

fn reader(path: &Path) -> Consumer<Segment> {
    let segment = Segment::open(path, 1 << 30).unwrap();
    assert_eq!(segment.identity().producer_off, PRODUCER_AT, "where the attacker believes it");
    let schema = segment.schema().clone();
    Consumer::new(segment, &schema)
}

/// Also when the test fails: the scope would wait for its thread for ever.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Everything that was written is read, whole and in order.
fn beside_a_reader(trial: &Trial) -> u64 {
    let dir = ring_dir();
    let producer = open(dir.path());
    let mut reader = reader(&producer.path());
    let attacker = Attacker::start(trial.name, dir.path());
    let (stop, start, mut read) = (AtomicBool::new(false), Instant::now(), 0);
    let all = Budget { records: u64::MAX, bytes: u64::MAX };
    let mut drain =
        || read += reader.poll(all, |_| true, |b| check(&b)).sound().expect("nothing was overwritten").records;
    let (attempted, counts) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let producer = producer;
            let attempted = (0..).take_while(|_| !stop.load(Relaxed)).map(|i| write(&producer, i)).count() as u64;
            (attempted, producer.counts())
        });
        let stopper = StopOnDrop(&stop);
        while start.elapsed() < Duration::from_secs_f64(seconds()) {
            drain();
        }
        drop(stopper);
        writer.join().unwrap()
    });
    drain();
    assert_adds_up(attempted, &Counts::default(), &counts);
    assert_eq!(read, counts.records);
    assert!(read > 100, "{read} records prove nothing");
    attacker.stop()
}

/// The producer goes on or drops, its tail only grows, and once the page is true again all is as before.
fn alone(trial: &Trial) -> u64 {
    let dir = ring_dir();
    let producer = open(dir.path());
    let path = producer.path();
    let attacker = Attacker::start(trial.name, dir.path());
    let (start, mut attempted, mut tail) = (Instant::now(), 0, 0);
    // More than a lap is written only if some of the lies are believed, for nobody reads.
    while start.elapsed() < Duration::from_secs_f64(seconds()) || tail <= 2 << 16 {
        assert!(start.elapsed() < Duration::from_secs_f64(seconds()) + HANGING, "none of the lies was believed");
        (0..100).for_each(|i| write(&producer, attempted + i));
        attempted += 100;
        let now = Snapshot::read(&path).unwrap().tail;
        assert!(now >= tail && now.is_multiple_of(64), "{tail}, then {now}");
        tail = now;
    }
    let rounds = attacker.stop();
    assert_adds_up(attempted, &Counts::default(), &producer.counts());
    let mut reader = reader(&path);
    reader.resync();
    write(&producer, attempted);
    let all = Budget { records: u64::MAX, bytes: u64::MAX };
    assert_eq!(reader.poll(all, |_| true, |b| check(&b)).sound().expect("all is as before").records, 1);
    rounds
}

/// Each producer opens a ring, and counts what it writes and drops.
fn coming_and_going(trial: &Trial) -> u64 {
    let dir = ring_dir();
    drop(open(dir.path()));
    let attacker = Attacker::start(trial.name, dir.path());
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs_f64(seconds()) {
        let producer = open(dir.path());
        let before = producer.counts();
        (0..1000).for_each(|i| write(&producer, i));
        assert_adds_up(1000, &before, &producer.counts());
    }
    attacker.stop()
}
