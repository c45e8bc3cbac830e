//! A consumer killed between any two of its stores leaves a ring from which the next one goes on, knowing to the record what was read.
//!
//! The real consumer runs on an area that logs its stores. Then every memory a kill may leave is looked at: each set of stores that
//! the compiler or the processor may have carried out by then, given their orderings.

mod support;

use mlwatch::ring::wire::{self, ConsumedWords, Record};
use mlwatch::ring::{Area, Budget, Consumed, Consumer, Word};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::atomic::Ordering::{self, Relaxed, Release};
use support::schema;

const CAPACITY: u64 = 1 << 14;
const RECORD: u64 = 256;
/// Positions of the words of page C: head, then both marks.
const WORDS: usize = 9;
/// Stores that may be reordered with each other. One record takes five.
const WINDOW: usize = 8;

#[derive(Clone, Copy)]
struct Store {
    word: usize,
    value: u64,
    order: Ordering,
}

type Log = Rc<RefCell<Vec<Store>>>;

struct Logged {
    index: usize,
    value: Cell<u64>,
    log: Log,
}

impl Word for Logged {
    fn load(&self, _: Ordering) -> u64 {
        self.value.get()
    }

    fn store(&self, value: u64, order: Ordering) {
        self.value.set(value);
        self.log.borrow_mut().push(Store { word: self.index, value, order });
    }
}

/// A ring whose records are computed: `RECORD` bytes each, as many rows as their number says, padding where a lap ends.
struct Endless {
    tail: Logged,
    head: Logged,
    consumed: [ConsumedWords<Logged>; 2],
    payload: Vec<u64>,
}

impl Endless {
    fn new(words: [u64; WORDS], tail: u64, log: &Log) -> Endless {
        let word = |index: usize, value| Logged { index, value: Cell::new(value), log: log.clone() };
        let at = |index: usize| word(index, words[index]);
        let mark = |first: usize| ConsumedWords {
            head: at(first),
            next_seq: at(first + 1),
            records: at(first + 2),
            rows: at(first + 3),
        };
        Endless {
            tail: word(WORDS, tail),
            head: at(0),
            consumed: [mark(1), mark(5)],
            payload: vec![0; (RECORD / 8) as usize],
        }
    }
}

impl Area for Endless {
    type Word = Logged;

    fn capacity(&self) -> u64 {
        CAPACITY
    }

    fn tail(&self) -> &Logged {
        &self.tail
    }

    fn head(&self) -> &Logged {
        &self.head
    }

    fn consumed(&self) -> &[ConsumedWords<Logged>; 2] {
        &self.consumed
    }

    fn record(&self, pos: u64) -> Record {
        let ends_a_lap = (pos + RECORD).is_multiple_of(CAPACITY);
        let mut record = Record {
            magic: wire::RECORD_MAGIC,
            kind: if ends_a_lap { wire::KIND_PADDING } else { wire::KIND_DATA },
            sections: wire::section::FEATURES,
            rec_len: RECORD as u32,
            payload_len: (RECORD - wire::RECORD_HEADER) as u32,
            pos,
            // Between two records others were dropped.
            seq: pos / RECORD * 4,
            ts_ns: 1,
            rows: 3,
            reserved: [0; 16],
            crc: 0,
        };
        record.crc = record.expected_crc();
        record
    }

    fn payload(&self, _: u64, len: u64) -> &[u8] {
        &bytemuck::cast_slice(&self.payload)[..len as usize]
    }
}

/// What a consumer does over its life, one store of head at a time; and what it had read after each.
fn live(area: Endless) -> Vec<Consumed> {
    let one = Budget { records: 1, bytes: 1 };
    let mut consumer = Consumer::new(area, &schema::of_features(8));
    let mut read = vec![consumer.consumed()];
    for step in 0..80 {
        match step % 16 {
            // Drops after the newest record are told apart from a period's end, sometimes twice at one head.
            7 | 8 | 12 => drop(consumer.abandon_until(consumer.consumed().next_seq + 1)),
            14 => consumer.resync(),
            _ => drop(consumer.poll(one, |_| true, |_| {})),
        }
        read.push(consumer.consumed());
        if step % 16 == 14 {
            let area = consumer.area();
            area.tail.value.set(area.tail.value.get() + 20 * RECORD);
        }
    }
    read
}

/// Whether a processor or compiler may have carried out exactly these stores of the window: a release waits for all before it.
fn possible(window: &[Store], done: u32) -> bool {
    let earlier_are_done = |i: usize| done & ((1 << i) - 1) == (1 << i) - 1;
    (0..window.len()).all(|i| done >> i & 1 == 0 || window[i].order != Release || earlier_are_done(i))
}

/// Every state of page C that a kill may leave.
fn remains(start: [u64; WORDS], log: &[Store]) -> BTreeSet<[u64; WORDS]> {
    let mut states = BTreeSet::from([start]);
    let mut words = start;
    for from in 0..log.len() {
        let window = &log[from..log.len().min(from + WINDOW)];
        for done in (0..1 << window.len()).filter(|&done| possible(window, done)) {
            let mut left = words;
            (0..window.len()).filter(|i| done >> i & 1 == 1).for_each(|i| left[window[i].word] = window[i].value);
            states.insert(left);
        }
        words[log[from].word] = log[from].value;
    }
    states
}

/// States looked at, and those from which the next consumer would go on with something that was never true.
fn look(start: [u64; WORDS], weaken: bool) -> (usize, Vec<Consumed>) {
    let log = Log::default();
    let read = live(Endless::new(start, start[0] + 20 * RECORD, &log));
    let mut log = log.borrow().clone();
    if weaken {
        log.iter_mut().for_each(|store| store.order = Relaxed);
    }
    let states = remains(start, &log);
    let next = |words: &[u64; WORDS]| {
        Consumer::new(Endless::new(*words, 0, &Log::default()), &schema::of_features(8)).consumed()
    };
    let wrong = states.iter().map(next).filter(|at| !read.contains(at)).collect();
    (states.len(), wrong)
}

/// A new ring, one inherited half-way, and one whose marks say the same twice.
fn starts() -> [[u64; WORDS]; 3] {
    let at = 40 * RECORD;
    [[0; WORDS], [at, at, 160, 40, 120, at - RECORD, 156, 39, 117], [at, at, 160, 40, 120, at, 160, 40, 120]]
}

#[test]
fn whatever_a_killed_consumer_had_stored_the_next_one_knows_what_was_read() {
    for start in starts() {
        let (states, wrong) = look(start, false);
        println!("{states} states");
        assert!(states > 300, "only {states} states");
        assert_eq!(wrong, [], "a restarted consumer believes it");
    }
}

#[test]
fn without_release_the_marks_would_be_torn() {
    for start in starts() {
        let (states, wrong) = look(start, true);
        assert!(!wrong.is_empty(), "none of {states} states is torn");
    }
}
