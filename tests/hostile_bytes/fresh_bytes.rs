//! A ring whose every load returns other bytes, drawn from a script: what a reader that looks twice would trip over.
//!
//! The script can make a field right or leave it arbitrary, so that a fuzzer gets past every check. Where it ends, it is zeros: the tail
//! then equals the head, and nothing more comes.

use mlwatch::ring::wire::{self, ConsumedWords, Record};
use mlwatch::ring::{Area, Batch, Budget, Consumer, DType, FeatureKind, Matrix, Polled, Schema, SegmentBy, Task, Word};
use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::atomic::Ordering;

const CAPACITY: u64 = 1 << 14;
const UNIT: u64 = wire::ALIGN;
const POLLS: usize = 16;
const BUDGET: Budget = Budget { records: 40, bytes: 1 << 15 };
const CLASSES: usize = 3;
const FEATURES: usize = 5;

struct Script {
    bytes: Vec<u8>,
    at: Cell<usize>,
    /// The head that was last stored: plausible positions are near it.
    head: Cell<u64>,
}

impl Script {
    fn take<const N: usize>(&self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    fn byte(&self) -> u8 {
        let at = self.at.get();
        self.at.set(at + 1);
        self.bytes.get(at).copied().unwrap_or(0)
    }

    fn position(&self) -> u64 {
        match self.byte() {
            0xFF => u64::from_le_bytes(self.take()),
            units => self.head.get().wrapping_add(u64::from(units) * UNIT),
        }
    }
}

/// Remembers nothing: what was stored is only the script's hint for what is plausible.
struct Fresh {
    script: Rc<Script>,
    is_head: bool,
}

impl Word for Fresh {
    fn load(&self, _: Ordering) -> u64 {
        self.script.position()
    }

    fn store(&self, value: u64, _: Ordering) {
        if self.is_head {
            self.script.head.set(value);
        }
    }
}

struct Scripted {
    script: Rc<Script>,
    /// Twice a lap, so that the same place can read differently.
    payload: Vec<u64>,
    tail: Fresh,
    head: Fresh,
    consumed: [ConsumedWords<Fresh>; 2],
}

impl Scripted {
    fn new(data: &[u8]) -> Scripted {
        let script = Rc::new(Script { bytes: data.to_vec(), at: Cell::new(0), head: Cell::new(0) });
        let word = |is_head| Fresh { script: script.clone(), is_head };
        let mark =
            || ConsumedWords { head: word(false), next_seq: word(false), records: word(false), rows: word(false) };
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let numbers: Vec<u64> = data.chunks_exact(8).map(number).chain([0]).collect();
        let payload = numbers.into_iter().cycle().take(2 * CAPACITY as usize / 8);
        Scripted { payload: payload.collect(), tail: word(false), head: word(true), consumed: [mark(), mark()], script }
    }
}

/// The end of the payload as docs/wire-format.md has it; none that could be right for sections that must not be.
fn payload_len(sections: u16, rows: u32) -> u64 {
    let row_bytes = [4 * CLASSES, 8 * FEATURES, 4, CLASSES, 0, 8, 2];
    let present = (0..7).filter(|bit| sections >> bit & 1 == 1);
    present.map(|bit| (row_bytes[bit] as u64 * u64::from(rows)).next_multiple_of(UNIT)).sum()
}

impl Area for Scripted {
    type Word = Fresh;

    fn capacity(&self) -> u64 {
        CAPACITY
    }

    fn tail(&self) -> &Fresh {
        &self.tail
    }

    fn head(&self) -> &Fresh {
        &self.head
    }

    fn consumed(&self) -> &[ConsumedWords<Fresh>; 2] {
        &self.consumed
    }

    fn record(&self, pos: u64) -> Record {
        let right = u16::from_le_bytes(self.script.take());
        let is = |bit: u32| right >> bit & 1 == 1;
        let mut r: Record = bytemuck::must_cast::<[u8; 64], Record>(self.script.take());
        r.magic = if is(0) { wire::RECORD_MAGIC } else { r.magic };
        r.pos = if is(1) { pos } else { r.pos };
        r.kind = if is(2) { wire::KIND_DATA } else { r.kind };
        r.sections &= if is(3) { wire::section::ALL } else { u16::MAX };
        r.rows &= if is(4) { 0x1F } else { u32::MAX };
        r.seq &= if is(5) { 0xFFFF } else { u64::MAX };
        r.payload_len = if is(6) { payload_len(r.sections, r.rows) as u32 } else { r.payload_len };
        r.rec_len = if is(7) { r.payload_len.wrapping_add(UNIT as u32) } else { r.rec_len };
        if is(8) {
            let rest = CAPACITY - (pos & (CAPACITY - 1));
            (r.kind, r.rec_len) = (wire::KIND_PADDING, rest as u32);
        }
        r.crc = if is(9) { r.expected_crc() } else { r.crc };
        r
    }

    fn payload(&self, pos: u64, len: u64) -> &[u8] {
        let offset = pos & (CAPACITY - 1);
        assert!(pos.is_multiple_of(UNIT) && len <= CAPACITY - offset, "{len} bytes at {pos} cross the end of a lap");
        let other = u64::from(self.script.byte()) * UNIT;
        let first = (offset + other % CAPACITY) as usize;
        &bytemuck::cast_slice(&self.payload)[first..first + len as usize]
    }
}

fn schema() -> Schema {
    Schema {
        model: "m".into(),
        version: String::new(),
        instance: String::new(),
        task: Task::Classification,
        proba_dtype: DType::F32,
        feature_dtype: DType::F64,
        threshold: 0.5,
        period: None,
        reservoir_rows: None,
        class_names: vec!["c".into(); CLASSES],
        feature_names: vec!["f".into(); FEATURES],
        feature_kinds: vec![FeatureKind::Numerical; FEATURES],
        segment_by: Some(SegmentBy::Row),
    }
}

/// Every value of a batch is looked at, and every section has the schema's shape.
fn use_batch(b: &Batch<'_>) {
    assert!(b.rows > 0);
    match (b.probabilities, b.features) {
        (None | Some(Matrix::F32(_)), None | Some(Matrix::F64(_))) => {}
        other => panic!("not the schema's dtypes: {other:?}"),
    }
    if let Some(Matrix::F32(view)) = b.probabilities {
        assert_eq!(view.dim(), (b.rows, CLASSES));
        black_box(view.sum());
    }
    if let Some(Matrix::F64(view)) = b.features {
        assert_eq!(view.dim(), (b.rows, FEATURES));
        black_box(view.sum());
    }
    if let Some(labels) = b.labels {
        assert_eq!(labels.len(), b.rows);
        black_box(labels.iter().fold(0, |all, label| all ^ label));
    }
    if let Some(sets) = b.label_sets {
        assert_eq!(sets.dim(), (b.rows, CLASSES));
        black_box(sets.iter().fold(0, |all, set| all ^ set));
    }
    if let Some(ids) = b.ids {
        assert_eq!(ids.len(), b.rows);
        black_box(ids.iter().fold(0, |all, id| all ^ id));
    }
    if let Some(segments) = b.segments {
        assert_eq!(segments.len(), b.rows);
        black_box(segments.iter().fold(0, |all, segment| all ^ segment));
    }
    assert!(b.targets.is_none() && (b.labels.is_none() || b.label_sets.is_none()), "a classification has one truth");
}

fn check_poll(polled: &Polled, unwanted: bool) {
    assert!(polled.records <= BUDGET.records && polled.used <= CAPACITY);
    assert!(polled.bytes < BUDGET.bytes + CAPACITY / wire::RECORDS_PER_LAP && polled.bytes <= polled.used);
    let spent = polled.records == BUDGET.records || polled.bytes >= BUDGET.bytes;
    assert!(polled.drained || polled.corruption.is_some() || spent || unwanted, "it stopped and does not say why");
    assert!(!polled.drained || polled.corruption.is_none());
}

/// What a script led to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub records: u64,
    pub corruptions: u64,
}

/// Polls a ring that reads as the script says, and fails if a poll does not keep its promises.
pub fn poll(script: &[u8]) -> Outcome {
    let mut consumer = Consumer::new(Scripted::new(script), &schema());
    let mut outcome = Outcome::default();
    for _ in 0..POLLS {
        let (before, unwanted) = (consumer.consumed(), Cell::new(false));
        let wanted = |ts_ns: u64| {
            unwanted.set(ts_ns.is_multiple_of(13));
            !unwanted.get()
        };
        let polled = consumer.poll(BUDGET, wanted, |b| use_batch(&b));
        check_poll(&polled, unwanted.get());
        assert_eq!(consumer.consumed().head - before.head, polled.bytes);
        assert!(consumer.consumed().records - before.records == polled.records || before.records > u64::MAX - 40);
        black_box((consumer.next_ts_ns(), consumer.has_news()));
        assert!(consumer.backlog() <= CAPACITY);
        if polled.corruption.is_some() {
            consumer.resync();
            assert!(consumer.consumed().head.is_multiple_of(UNIT));
        }
        outcome.records += polled.records;
        outcome.corruptions += u64::from(polled.corruption.is_some());
    }
    outcome
}
