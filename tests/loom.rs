//! Every interleaving of a producer and the sidecar's consumer on a small ring, and every value the memory model allows a load to see.
//!
//! The consumer is the real one, with its own orderings. The producer is a model of `producer-c/ring.c`, store by store: its own
//! orderings are proved where they stand, by `tests/c/race.c` under ThreadSanitizer.

mod support;

use bytemuck::cast_slice;
use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicU64;
use mlwatch::ring::wire::{self, ConsumedWords, Record};
use mlwatch::ring::{Area, Batch, Budget, Consumer, Matrix, Word};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{self, Acquire, Relaxed, Release};
use support::schema;

const ALL: Budget = Budget { records: u64::MAX, bytes: u64::MAX };
const UNIT: u64 = wire::ALIGN;

/// What may be wrong with the protocol.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    ConsumerLoadsTailRelaxed,
    ConsumerStoresHeadRelaxed,
    ProducerStoresTailRelaxed,
    ProducerLoadsHeadRelaxed,
    ProducerStoresTailFirst,
}

struct Shared {
    atomic: AtomicU64,
    /// The consumer's ordering is ignored.
    relaxed: bool,
}

impl Word for Shared {
    fn load(&self, order: Ordering) -> u64 {
        self.atomic.load(if self.relaxed { Relaxed } else { order })
    }

    fn store(&self, value: u64, order: Ordering) {
        self.atomic.store(value, if self.relaxed { Relaxed } else { order });
    }
}

/// A ring whose every unit tells loom who is reading or writing it.
struct Memory {
    units: Box<[std::cell::UnsafeCell<[u64; 8]>]>,
    access: Vec<UnsafeCell<()>>,
    tail: Shared,
    head: Shared,
    consumed: [ConsumedWords<Shared>; 2],
}

// SAFETY: a unit is touched only while its cell in `access` is held, and loom fails the test if two threads do so at once.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(units: u64, start: u64, fault: Fault) -> Memory {
        let word = |value, relaxed| Shared { atomic: AtomicU64::new(value), relaxed };
        let mark = || ConsumedWords {
            head: word(start, false),
            next_seq: word(0, false),
            records: word(0, false),
            rows: word(0, false),
        };
        Memory {
            units: (0..units).map(|_| Default::default()).collect(),
            access: (0..units).map(|_| UnsafeCell::new(())).collect(),
            tail: word(start, fault == Fault::ConsumerLoadsTailRelaxed),
            head: word(start, fault == Fault::ConsumerStoresHeadRelaxed),
            consumed: [mark(), mark()],
        }
    }

    fn capacity(&self) -> u64 {
        self.units.len() as u64 * UNIT
    }

    fn index(&self, pos: u64) -> usize {
        ((pos & (self.capacity() - 1)) / UNIT) as usize
    }

    fn write(&self, pos: u64, unit: [u64; 8]) {
        let index = self.index(pos);
        // SAFETY: the cell is held for writing.
        self.access[index].with_mut(|_| unsafe { *self.units[index].get() = unit });
    }
}

/// The consumer's side.
struct View {
    memory: Arc<Memory>,
    /// Units that were handed out and not yet used.
    in_use: Rc<RefCell<Vec<usize>>>,
}

impl Area for View {
    type Word = Shared;

    fn capacity(&self) -> u64 {
        self.memory.capacity()
    }

    fn tail(&self) -> &Shared {
        &self.memory.tail
    }

    fn head(&self) -> &Shared {
        &self.memory.head
    }

    fn consumed(&self) -> &[ConsumedWords<Shared>; 2] {
        &self.memory.consumed
    }

    fn record(&self, pos: u64) -> Record {
        let index = self.memory.index(pos);
        // SAFETY: the cell is held for reading.
        self.memory.access[index].with(|_| bytemuck::must_cast(unsafe { *self.memory.units[index].get() }))
    }

    fn payload(&self, pos: u64, len: u64) -> &[u8] {
        let (first, count) = (self.memory.index(pos), (len / UNIT) as usize);
        self.in_use.borrow_mut().extend(first..first + count);
        // SAFETY: `count` units lie there one after the other; whoever uses them tells loom, see `poll`.
        let units = unsafe { std::slice::from_raw_parts(self.memory.units[first].get(), count) };
        cast_slice(units)
    }
}

fn value(seq: u64, row: u64) -> f64 {
    (seq * 100 + row) as f64
}

/// `producer-c/ring.c`, store by store.
struct Producer {
    memory: Arc<Memory>,
    tail: u64,
    cached_head: u64,
    next_seq: u64,
    dropped: u64,
    fault: Fault,
}

impl Producer {
    fn refresh_head(&mut self) {
        let order = if self.fault == Fault::ProducerLoadsHeadRelaxed { Relaxed } else { Acquire };
        let head = self.memory.head.atomic.load(order);
        if head.wrapping_sub(self.cached_head) <= self.tail - self.cached_head && head.is_multiple_of(UNIT) {
            self.cached_head = head;
        }
    }

    fn has_room(&mut self, need: u64) -> bool {
        let fits = |p: &Producer| need <= p.memory.capacity() - (p.tail - p.cached_head);
        fits(self) || {
            self.refresh_head();
            fits(self)
        }
    }

    /// Padding before the record, if there is room.
    fn claim(&mut self, len: u64) -> Option<u64> {
        let rest_of_lap = self.memory.capacity() - (self.tail & (self.memory.capacity() - 1));
        let padding = if len <= rest_of_lap { 0 } else { rest_of_lap };
        self.has_room(padding + len).then_some(padding)
    }

    fn write_header(&self, kind: u16, pos: u64, rec_len: u64, rows: u64) {
        let data = kind == wire::KIND_DATA;
        let mut record = Record {
            magic: wire::RECORD_MAGIC,
            kind,
            sections: if data { wire::section::FEATURES } else { 0 },
            rec_len: rec_len as u32,
            payload_len: if data { (rec_len - UNIT) as u32 } else { 0 },
            pos,
            seq: self.next_seq,
            ts_ns: 1,
            rows: rows as u32,
            reserved: [0; 16],
            crc: 0,
        };
        record.crc = record.expected_crc();
        self.memory.write(pos, bytemuck::must_cast(record));
    }

    fn store_tail(&self) {
        let order = if self.fault == Fault::ProducerStoresTailRelaxed { Relaxed } else { Release };
        self.memory.tail.atomic.store(self.tail, order);
    }

    fn write(&mut self, rows: u64) {
        let len = UNIT * (1 + rows);
        let Some(padding) = self.claim(len) else {
            (self.dropped, self.next_seq) = (self.dropped + 1, self.next_seq + 1);
            return;
        };
        let (before, pos) = (self.tail, self.tail + padding);
        self.tail = pos + len;
        if self.fault == Fault::ProducerStoresTailFirst {
            self.store_tail();
        }
        for row in 0..rows {
            self.memory.write(pos + UNIT * (1 + row), [value(self.next_seq, row).to_bits(); 8]);
        }
        if padding > 0 {
            self.write_header(wire::KIND_PADDING, before, padding, 0);
        }
        self.write_header(wire::KIND_DATA, pos, len, rows);
        self.next_seq += 1;
        self.store_tail();
    }
}

/// A ring, where its first record begins, and the rows of each record. The first `before` are written before the consumer comes.
#[derive(Clone, Copy)]
struct Scene {
    units: u64,
    start: u64,
    rows: &'static [u64],
    before: usize,
    polls: usize,
}

/// Two units a record: full and empty in turns.
const WRAPPING: Scene = Scene { units: 8, start: 2, rows: &[1, 1, 1, 1, 1, 1], before: 3, polls: 2 };
/// The second record finds too short a rest of the lap.
const PADDING: Scene = Scene { units: 16, start: 10, rows: &[2, 3, 3, 3, 2], before: 2, polls: 2 };

fn poll(consumer: &mut Consumer<View>, rows: &[u64]) -> u64 {
    let (in_use, memory) = (consumer.area().in_use.clone(), consumer.area().memory.clone());
    let check = |b: Batch<'_>| {
        let Some(Matrix::F64(features)) = b.features else { panic!("f64 features were written") };
        assert_eq!(b.rows as u64, rows[b.seq as usize]);
        features.indexed_iter().for_each(|((row, _), &x)| assert_eq!(x, value(b.seq, row as u64)));
        // The batch has been used until here: a producer that may write by now is a race, whatever was seen.
        in_use.borrow_mut().drain(..).for_each(|unit| memory.access[unit].with(|_| ()));
    };
    consumer.poll(ALL, |_| true, check).sound().expect("what is visible is whole").missing
}

/// The consumer's half of a scene. How many sequence numbers it found missing.
fn read(memory: Arc<Memory>, scene: Scene, polls: usize) -> u64 {
    let mut consumer = Consumer::new(View { memory, in_use: Rc::default() }, &schema::of_features(8));
    (0..polls).map(|_| poll(&mut consumer, scene.rows)).sum()
}

fn play(scene: Scene, fault: Fault) {
    let start = scene.start * UNIT;
    let memory = Arc::new(Memory::new(scene.units, start, fault));
    let mut producer =
        Producer { memory: memory.clone(), tail: start, cached_head: start, next_seq: 0, dropped: 0, fault };
    scene.rows[..scene.before].iter().for_each(|&rows| producer.write(rows));
    let theirs = memory.clone();
    let reader = loom::thread::spawn(move || read(theirs, scene, scene.polls));
    scene.rows[scene.before..].iter().for_each(|&rows| producer.write(rows));
    let mut missing = reader.join().unwrap();
    // A second consumer finds where the first one stopped, and what is left.
    missing += read(memory.clone(), scene, 1);
    let end = Consumer::new(View { memory, in_use: Rc::default() }, &schema::of_features(8)).consumed();
    assert_eq!((end.head, end.records), (producer.tail, scene.rows.len() as u64 - producer.dropped));
    assert_eq!(missing + (producer.next_seq - end.next_seq), producer.dropped);
}

/// How many interleavings there are.
fn explore(scene: Scene, fault: Fault) -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let model = loom::model::Builder::new();
    model.check(move || {
        counter.fetch_add(1, Relaxed);
        play(scene, fault);
    });
    count.load(Relaxed)
}

#[test]
fn in_every_interleaving_of_a_wrapping_ring_what_is_visible_is_whole_and_what_is_read_is_not_overwritten() {
    println!("{} interleavings", explore(WRAPPING, Fault::None));
}

#[test]
fn in_every_interleaving_around_padding_what_is_visible_is_whole_and_what_is_read_is_not_overwritten() {
    println!("{} interleavings", explore(PADDING, Fault::None));
}

#[test]
fn every_weakened_ordering_is_found() {
    for fault in [
        Fault::ConsumerLoadsTailRelaxed,
        Fault::ConsumerStoresHeadRelaxed,
        Fault::ProducerStoresTailRelaxed,
        Fault::ProducerLoadsHeadRelaxed,
        Fault::ProducerStoresTailFirst,
    ] {
        let found = catch_unwind(AssertUnwindSafe(|| explore(WRAPPING, fault)));
        assert!(found.is_err(), "{fault:?} makes no difference");
    }
}
