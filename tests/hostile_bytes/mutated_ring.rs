//! Rings whose bytes lie still: arbitrary ones, and those of real producers with faults planted in them, against a reader that knows
//! nothing but docs/wire-format.md.

use crate::naive::{CAPACITY, Handed, Naive, Ring, crc32c};
use crate::support::{Options, Producer, RawBatch, batch, ring_dir};
use mlwatch::ring::wire::{ConsumedWords, Record, SEGMENT_BY_ROW};
use mlwatch::ring::{Area, Batch, Budget, Consumer, Matrix, Schema, Segment, Snapshot};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use std::fs;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

const ALL: Budget = Budget { records: u64::MAX, bytes: u64::MAX };

/* ---- rings as real producers leave them ---- */

/// Every section that a classification can have.
fn options() -> Options {
    Options { segment_by: SEGMENT_BY_ROW, ..Options::default() }
}

fn schema() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let dir = ring_dir();
        let producer = Producer::open(dir.path(), &options()).unwrap();
        Snapshot::read(&producer.path()).unwrap().schema
    })
}

/// Records of many sizes and all sections, until the ring was full some times and `at` of its bytes are left unread.
fn produced(seed: u64, at: u64) -> Ring {
    let dir = ring_dir();
    let options = Options { ring_bytes: CAPACITY as u64, ..options() };
    let producer = Producer::open(dir.path(), &options).unwrap();
    let segment = Segment::open(&producer.path(), 1 << 20).unwrap();
    let mut consumer = Consumer::new(segment, schema());
    let (values, labels, sets, ids, segments) = ([0.25f32; 900], [1i32; 300], [0u8; 900], [7u64; 300], [3u16; 300]);
    for i in 0..100 * (1 + seed) {
        let rows = 1 + (i * (7 + seed)) % 90;
        let mut b = RawBatch { rows: rows as u32, timestamp_ns: i + 1, features: values.as_ptr().cast(), ..batch() };
        b.proba = if i % 2 == 0 { values.as_ptr().cast() } else { b.proba };
        match i % 5 {
            0 => b.labels = labels.as_ptr(),
            1 => b.label_sets = sets.as_ptr(),
            2 => b.ids = ids.as_ptr(),
            _ => {}
        }
        b.segments = if i % 3 == 0 { segments.as_ptr() } else { b.segments };
        producer.write(&b);
        while consumer.backlog() > at && consumer.poll(Budget { records: 1, bytes: 1 }, |_| true, |_| {}).bytes > 0 {}
    }
    let (snapshot, file) =
        (Snapshot::read(&producer.path()).unwrap(), fs::read(producer.path()).expect("it has a name"));
    Ring { data: file[file.len() - CAPACITY..].to_vec(), head: snapshot.head, tail: snapshot.tail }
}

fn real_rings() -> &'static [Ring] {
    static RINGS: OnceLock<Vec<Ring>> = OnceLock::new();
    RINGS.get_or_init(|| (0..8).map(|seed| produced(seed, CAPACITY as u64 * (1 + seed % 4) / 4)).collect())
}

/* ---- the same bytes as an area ---- */

struct Still {
    units: Vec<[u64; 8]>,
    tail: AtomicU64,
    head: AtomicU64,
    consumed: [ConsumedWords<AtomicU64>; 2],
}

impl Still {
    fn of(ring: &Ring) -> Still {
        Still {
            units: ring.data.chunks_exact(64).map(bytemuck::pod_read_unaligned).collect(),
            tail: ring.tail.into(),
            head: ring.head.into(),
            consumed: Default::default(),
        }
    }
}

impl Area for Still {
    type Word = AtomicU64;

    fn capacity(&self) -> u64 {
        CAPACITY as u64
    }

    fn tail(&self) -> &AtomicU64 {
        &self.tail
    }

    fn head(&self) -> &AtomicU64 {
        &self.head
    }

    fn consumed(&self) -> &[ConsumedWords<AtomicU64>; 2] {
        &self.consumed
    }

    fn record(&self, pos: u64) -> Record {
        bytemuck::must_cast(self.units[pos as usize % CAPACITY / 64])
    }

    fn payload(&self, pos: u64, len: u64) -> &[u8] {
        let first = pos as usize % CAPACITY;
        &bytemuck::cast_slice(&self.units)[first..first + len as usize]
    }
}

fn bytes_of<'a>(matrix: Matrix<'a>) -> &'a [u8] {
    let Matrix::F32(view) = matrix else { panic!("not the schema's dtype") };
    bytemuck::cast_slice(view.to_slice().expect("rows follow one another"))
}

fn handed(base: usize, b: &Batch<'_>) -> Handed {
    let place = |bytes: &[u8]| bytes.as_ptr() as usize - base..bytes.as_ptr() as usize - base + bytes.len();
    let sections = [
        b.probabilities.map(|m| place(bytes_of(m))),
        b.features.map(|m| place(bytes_of(m))),
        b.labels.map(|labels| place(bytemuck::cast_slice(labels))),
        b.label_sets.map(|sets| place(sets.to_slice().expect("rows follow one another"))),
        b.targets.map(|_| panic!("a classification has none")),
        b.ids.map(|ids| place(bytemuck::cast_slice(ids))),
        b.segments.map(|segments| place(bytemuck::cast_slice(segments))),
    ];
    Handed { seq: b.seq, ts_ns: b.ts_ns, rows: b.rows as u64, sections }
}

/// Records and faults found. Fails unless both readers find the same.
fn read_by_both(ring: &Ring) -> (usize, bool) {
    let area = Still::of(ring);
    let base = area.units.as_ptr() as usize;
    let mut consumer = Consumer::new(area, schema());
    let mut found = Vec::new();
    let polled = consumer.poll(ALL, |_| true, |b| found.push(handed(base, &b)));
    let mut naive = Naive::at_head(ring);
    let (want, fault) = naive.read();
    assert_eq!((&found, polled.corruption.is_some()), (&want, fault), "{:?}", polled.corruption);
    assert_eq!((consumer.consumed().head, polled.drained), (naive.head, !fault));
    assert_eq!(consumer.area().head.load(Relaxed), naive.head, "what was read is given back, and no more");
    consumer.resync();
    let (goes_on, given_back) = (consumer.consumed().head, consumer.area().head.load(Relaxed));
    assert_eq!((goes_on, given_back), (ring.tail & !63, ring.tail & !63), "after a fault it goes on at the tail");
    (found.len(), fault)
}

/* ---- faults ---- */

#[derive(Clone, Debug)]
enum Fault {
    Flip {
        at: usize,
        bits: u8,
    },
    Copy {
        from: usize,
        to: usize,
        len: usize,
    },
    Insert {
        at: usize,
        bytes: Vec<u8>,
    },
    /// In the header of one of the unread records, and its checksum made right.
    Field {
        record: usize,
        at: usize,
        value: Vec<u8>,
    },
    /// Features alone, of another number of rows, and all lengths made right.
    Resize {
        record: usize,
        rows: u32,
    },
    Tail {
        by: i64,
    },
    Head {
        by: i64,
    },
}

/// Where the records between head and tail begin, as long as they follow one another.
fn records(ring: &Ring) -> Vec<u64> {
    let (mut at, mut all) = (ring.head & !63, Vec::new());
    while at < ring.tail && all.len() < 300 {
        all.push(at);
        let place = at as usize % CAPACITY;
        let rec_len: [u8; 4] = ring.data[place + 8..place + 12].try_into().unwrap();
        at = at.saturating_add(u64::from(u32::from_le_bytes(rec_len)).next_multiple_of(64).max(64)) & !63;
    }
    all
}

fn set_field(ring: &mut Ring, record: usize, at: usize, value: &[u8]) {
    let all = records(ring);
    if all.is_empty() {
        return;
    }
    let place = all[record % all.len()] as usize % CAPACITY;
    ring.data[place + at..place + at + value.len()].copy_from_slice(value);
    let crc = crc32c(&ring.data[place..place + 60]);
    ring.data[place + 60..place + 64].copy_from_slice(&crc.to_le_bytes());
}

fn plant(ring: &mut Ring, fault: &Fault) {
    match fault {
        Fault::Flip { at, bits } => ring.data[*at] ^= bits,
        Fault::Copy { from, to, len } => {
            let len = (*len).min(CAPACITY - from).min(CAPACITY - to);
            ring.data.copy_within(*from..from + len, *to);
        }
        Fault::Insert { at, bytes } => {
            ring.data.splice(*at..*at, bytes.iter().copied());
            ring.data.truncate(CAPACITY);
        }
        Fault::Field { record, at, value } => set_field(ring, *record, *at, value),
        Fault::Resize { record, rows } => {
            let payload_len = (rows * 8).next_multiple_of(64);
            set_field(ring, *record, 40, &rows.to_le_bytes());
            set_field(ring, *record, 12, &payload_len.to_le_bytes());
            set_field(ring, *record, 4, &[1, 0, 2, 0]);
            // Last: the records after it are found by it.
            set_field(ring, *record, 8, &(payload_len + 64).to_le_bytes());
        }
        Fault::Tail { by } => ring.tail = ring.tail.wrapping_add_signed(*by),
        Fault::Head { by } => ring.head = ring.head.wrapping_add_signed(*by),
    }
}

fn shift() -> impl Strategy<Value = i64> {
    prop_oneof![(-300..300i64).prop_map(|units| units * 64), -200..200i64, any::<i64>()]
}

/// The first value of a header's field, plausible or not.
fn field() -> impl Strategy<Value = (usize, Vec<u8>)> {
    let small =
        |at: usize, width: usize| (Just(at), (0..200u64).prop_map(move |value| value.to_le_bytes()[..width].to_vec()));
    prop_oneof![
        (Just(4), (0..4u16).prop_map(|kind| kind.to_le_bytes().to_vec())),
        small(6, 2),
        (Just(8), (0..80u32).prop_map(|units| (units * 64).to_le_bytes().to_vec())),
        small(8, 4),
        (Just(12), (0..80u32).prop_map(|units| (units * 64).to_le_bytes().to_vec())),
        small(16, 8),
        small(24, 8),
        small(40, 4),
        (0..56usize, prop::collection::vec(any::<u8>(), 1..=4)),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    let place = 0..CAPACITY;
    let bytes = prop::collection::vec(any::<u8>(), 1..130);
    prop_oneof![
        3 => (place.clone(), 1..=u8::MAX).prop_map(|(at, bits)| Fault::Flip { at, bits }),
        3 => (0..CAPACITY / 64, 0..CAPACITY / 64, 1..60usize)
            .prop_map(|(from, to, units)| Fault::Copy { from: from * 64, to: to * 64, len: units * 64 }),
        1 => (place.clone(), place.clone(), 1..5000usize).prop_map(|(from, to, len)| Fault::Copy { from, to, len }),
        1 => (place.clone(), bytes).prop_map(|(at, bytes)| Fault::Insert { at, bytes }),
        1 => (place, 1..9usize).prop_map(|(at, units)| Fault::Insert { at: at & !63, bytes: vec![0; units * 64] }),
        8 => (any::<usize>(), field()).prop_map(|(record, (at, value))| Fault::Field { record, at, value }),
        3 => (any::<usize>(), 0..1200u32).prop_map(|(record, rows)| Fault::Resize { record, rows }),
        2 => shift().prop_map(|by| Fault::Tail { by }),
        2 => shift().prop_map(|by| Fault::Head { by }),
    ]
}

/// Noise with real records here and there, and positions that may fit them.
fn noise() -> impl Strategy<Value = Ring> {
    let positions = (0..1u64 << 40, 0..=CAPACITY as u64 / 64, prop::bool::weighted(0.9));
    let records = prop::collection::vec((0..CAPACITY / 64, 0..8usize), 0..40);
    (positions, records, any::<u8>()).prop_map(|((unit, used, aligned), records, salt)| {
        let mut ring = Ring { data: vec![0; CAPACITY], head: unit * 64, tail: unit * 64 + used * 64 };
        ring.data.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i as u8).wrapping_mul(salt) ^ (i >> 8) as u8);
        ring.head += u64::from(!aligned);
        for (to, from) in records {
            let place = real_rings()[from].head as usize % CAPACITY;
            let len = 256.min(CAPACITY - place).min(CAPACITY - to * 64);
            ring.data[to * 64..to * 64 + len].copy_from_slice(&real_rings()[from].data[place..place + len]);
        }
        // One of them says that it is where the head is.
        set_field(&mut ring, 0, 16, &(unit * 64).to_le_bytes());
        ring
    })
}

#[test]
fn a_tail_that_goes_round_the_end_of_the_numbers_is_no_backlog() {
    let ring = Ring { data: vec![0; CAPACITY], head: !63, tail: 64 };
    let consumer = Consumer::new(Still::of(&ring), schema());
    assert_eq!((consumer.backlog(), consumer.has_news()), (0, true));
}

#[test]
fn a_real_ring_is_read_whole_by_both_readers() {
    for ring in real_rings() {
        let (records, fault) = read_by_both(ring);
        assert!(records > 0 && !fault && records >= self::records(ring).len() - 1);
    }
}

#[test]
fn planted_faults_are_found_often_and_often_leave_something_to_read() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut clean, mut faulty, mut records) = (0, 0, 0);
    for round in 0..600 {
        let mut ring = real_rings()[round % 8].clone();
        let planted = fault().new_tree(&mut runner).unwrap().current();
        plant(&mut ring, &planted);
        let (read, fault) = read_by_both(&ring);
        records += read;
        (clean, faulty) = if fault { (clean, faulty + 1) } else { (clean + 1, faulty) };
    }
    assert!(clean > 100 && faulty > 200 && records > 2000, "{clean} {faulty} {records}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_ring_with_planted_faults_is_read_up_to_the_first_of_them(
        which in 0..8usize,
        faults in prop::collection::vec(fault(), 1..5),
    ) {
        let mut ring = real_rings()[which].clone();
        faults.iter().for_each(|fault| plant(&mut ring, fault));
        read_by_both(&ring);
    }

    #[test]
    fn noise_is_read_as_the_documentation_says(ring in noise(), faults in prop::collection::vec(fault(), 0..3)) {
        let mut ring = ring;
        faults.iter().for_each(|fault| plant(&mut ring, fault));
        read_by_both(&ring);
    }
}
