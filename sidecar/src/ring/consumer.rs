//! The consumer's side of the protocol, over any [`Area`]: a mapped file, or a byte array in a test.
//!
//! A record's header is copied once, the copy is checked, and only the copy is used. The payload is handed out in place.
//! Whatever bytes the area holds, a poll ends, stays in bounds, and either advances or reports [`Corruption`].

use super::schema::{DType, Schema};
use super::wire::{self, ConsumedWords, Record, section};
use half::{bf16, f16};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{self, Acquire, Relaxed, Release};
use thiserror::Error;

/// A 64-bit word that both sides see: an `AtomicU64`, or a model checker's.
pub trait Word {
    /// As `AtomicU64::load`.
    fn load(&self, order: Ordering) -> u64;
    /// As `AtomicU64::store`.
    fn store(&self, value: u64, order: Ordering);
}

impl Word for AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }
}

/// The memory of a ring as the consumer sees it. The producer may append at any time; a hostile one may change any byte.
pub trait Area {
    /// How its shared words are accessed.
    type Word: Word;
    /// Bytes in the data area, a power of two.
    fn capacity(&self) -> u64;
    /// The producer's position.
    fn tail(&self) -> &Self::Word;
    /// The consumer's position: a hint to the producer, and untrusted when an earlier consumer left it.
    fn head(&self) -> &Self::Word;
    /// What was consumed at one of the last two heads. Untrusted when an earlier consumer left it.
    fn consumed(&self) -> &[ConsumedWords<Self::Word>; 2];
    /// Copies the header at `pos`, reading every byte once.
    fn record(&self, pos: u64) -> Record;
    /// The bytes at `pos`, in place; `pos + len` does not cross the end of a lap.
    fn payload(&self, pos: u64, len: u64) -> &[u8];
}

/// How far a ring has been read, and what that was since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumed {
    /// Position.
    pub head: u64,
    /// The sequence number expected there.
    pub next_seq: u64,
    /// Data records.
    pub records: u64,
    /// Their rows.
    pub rows: u64,
}

impl Consumed {
    pub(super) fn load<W: Word>(words: &ConsumedWords<W>) -> Consumed {
        Consumed {
            head: words.head.load(Relaxed),
            next_seq: words.next_seq.load(Relaxed),
            records: words.records.load(Relaxed),
            rows: words.rows.load(Relaxed),
        }
    }

    /// Each store after the one before. `head` first: until the ring's head follows, what stands here describes none. `next_seq` last:
    /// where the head stays as it is, the words are not the newer ones before they are whole.
    pub(super) fn store<W: Word>(&self, words: &ConsumedWords<W>) {
        words.head.store(self.head, Release);
        words.records.store(self.records, Release);
        words.rows.store(self.rows, Release);
        words.next_seq.store(self.next_seq, Release);
    }

    /// As the last consumer left it. `None` if what stands there does not belong to `head`.
    fn stored(head: u64, words: &[ConsumedWords<impl Word>; 2]) -> Option<Consumed> {
        words.iter().map(Consumed::load).filter(|at| at.head == head).max_by_key(|at| at.next_seq)
    }
}

/// What a record or position did wrong. The ring cannot be read on from here.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the messages document them")]
pub enum Corruption {
    #[error("tail {tail} is not within one lap of head {head}, or not a multiple of 64")]
    Tail { head: u64, tail: u64 },
    #[error("no record begins at {pos}")]
    Magic { pos: u64 },
    #[error("the record header at {pos} fails its checksum")]
    Checksum { pos: u64 },
    #[error("the record at {pos} says it is at {says}")]
    Position { pos: u64, says: u64 },
    #[error("the record at {pos} has length {rec_len}, at most {most} are possible there")]
    Length { pos: u64, rec_len: u32, most: u64 },
    #[error("the padding at {pos} has length {rec_len}, and {rest} are left of the lap")]
    Padding { pos: u64, rec_len: u32, rest: u64 },
    #[error("the record at {pos} is of unknown kind {kind}")]
    Kind { pos: u64, kind: u16 },
    #[error("the record at {pos} has sections {sections:#x}, which its schema does not allow")]
    Sections { pos: u64, sections: u16 },
    #[error("the record at {pos} with {rows} rows has {len} bytes of payload, its sections take {need}")]
    Payload { pos: u64, rows: u32, len: u32, need: u64 },
    #[error("the record at {pos} has sequence number {seq}, at least {expected} expected")]
    Sequence { pos: u64, seq: u64, expected: u64 },
}

impl Corruption {
    /// One word for a counter.
    pub fn reason(&self) -> &'static str {
        match self {
            Corruption::Tail { .. } => "tail",
            Corruption::Magic { .. } => "magic",
            Corruption::Checksum { .. } => "checksum",
            Corruption::Position { .. } => "position",
            Corruption::Length { .. } => "length",
            Corruption::Padding { .. } => "padding",
            Corruption::Kind { .. } => "kind",
            Corruption::Sections { .. } => "sections",
            Corruption::Payload { .. } => "payload",
            Corruption::Sequence { .. } => "sequence",
        }
    }
}

/// A rows × columns view into the ring.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "named by themselves")]
pub enum Matrix<'a> {
    F16(ArrayView2<'a, f16>),
    BF16(ArrayView2<'a, bf16>),
    F32(ArrayView2<'a, f32>),
    F64(ArrayView2<'a, f64>),
}

/// One record's payload in place: rows × (probabilities, features, labels, ids).
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Rows in every section.
    pub rows: usize,
    /// The record's sequence number.
    pub seq: u64,
    /// Unix time, ns, as the producer says.
    pub ts_ns: u64,
    /// rows × classes; with the task regression rows × outputs.
    pub probabilities: Option<Matrix<'a>>,
    /// rows × features.
    pub features: Option<Matrix<'a>>,
    /// Class indices, −1 = none. Not checked against the number of classes.
    pub labels: Option<&'a [i32]>,
    /// rows × classes flags.
    pub label_sets: Option<ArrayView2<'a, u8>>,
    /// rows × outputs.
    pub targets: Option<ArrayView2<'a, f64>>,
    /// One per row.
    pub ids: Option<&'a [u64]>,
    /// One per row: whom it is about.
    pub segments: Option<&'a [u16]>,
}

/// How much one poll may do, so that endless padding or one busy ring starves nobody.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "named by themselves")]
pub struct Budget {
    pub records: u64,
    pub bytes: u64,
}

/// What one poll did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// Data records handed out.
    pub records: u64,
    /// Sequence numbers skipped: records dropped, or lost to a crash or a resync.
    pub missing: u64,
    /// Bytes between head and tail when the poll began.
    pub used: u64,
    /// Bytes consumed, padding included.
    pub bytes: u64,
    /// Nothing was left when the poll ended.
    pub drained: bool,
    /// Why it ended early, if it did; everything before counts.
    pub corruption: Option<Corruption>,
}

impl Polled {
    /// Itself, unless there was corruption.
    pub fn sound(self) -> Result<Polled, Corruption> {
        self.corruption.map_or(Ok(self), Err)
    }
}

/// The reading end of one ring.
#[derive(Debug)]
pub struct Consumer<A> {
    area: A,
    shape: Shape,
    at: Consumed,
    /// Which of the area's two `consumed` describes the head that the producer sees.
    slot: usize,
    /// What stood in the ring is an earlier consumer's word: the first record may have a lower sequence number than it says.
    inherited: bool,
}

impl<A: Area> Consumer<A> {
    /// Continues where an earlier consumer stopped.
    pub fn new(area: A, schema: &Schema) -> Consumer<A> {
        let head = area.head().load(Acquire);
        let at = Consumed::stored(head, area.consumed()).unwrap_or(Consumed { head, ..Consumed::default() });
        let slot = usize::from(Consumed::load(&area.consumed()[1]) == at);
        Consumer { area, shape: Shape::of(schema), at, slot, inherited: true }
    }

    /// The memory underneath.
    pub fn area(&self) -> &A {
        &self.area
    }

    /// How far it has read.
    pub fn consumed(&self) -> Consumed {
        self.at
    }

    /// Gives everything before its head back to the producer.
    fn release(&mut self) {
        self.slot ^= 1;
        self.at.store(&self.area.consumed()[self.slot]);
        // Pairs with the producer's acquire load of head: our reads of the records come before its next writes there.
        self.area.head().store(self.at.head, Release);
    }

    /// Hands out the records between head and tail, oldest first, and gives each back to the producer. Stops before a record for
    /// which `wanted` says no to its time stamp.
    #[must_use]
    pub fn poll(&mut self, budget: Budget, wanted: impl Fn(u64) -> bool, mut each: impl FnMut(Batch<'_>)) -> Polled {
        let mut polled = Polled::default();
        polled.corruption = self.read(&mut polled, budget, wanted, &mut each).err();
        polled
    }

    fn read(
        &mut self,
        polled: &mut Polled,
        budget: Budget,
        wanted: impl Fn(u64) -> bool,
        each: &mut impl FnMut(Batch<'_>),
    ) -> Result<(), Corruption> {
        let tail = self.checked_tail()?;
        polled.used = tail - self.at.head;
        while self.at.head != tail && polled.records < budget.records && polled.bytes < budget.bytes {
            let record = self.area.record(self.at.head);
            self.check(&record, tail)?;
            if record.kind == wire::KIND_DATA {
                if !wanted(record.ts_ns) {
                    return Ok(());
                }
                polled.missing += self.advance_seq(&record)?;
                let payload = self.area.payload(self.at.head + wire::RECORD_HEADER, record.payload_len.into());
                each(self.shape.batch(&record, payload));
                polled.records += 1;
                self.at.records = self.at.records.saturating_add(1);
                self.at.rows = self.at.rows.saturating_add(record.rows.into());
            }
            polled.bytes += u64::from(record.rec_len);
            self.at.head += u64::from(record.rec_len);
            self.release();
        }
        polled.drained = self.at.head == tail;
        Ok(())
    }

    /// The time stamp of the record that is next, if there is a sound one.
    pub fn next_ts_ns(&self) -> Option<u64> {
        let tail = self.checked_tail().ok()?;
        let mut pos = self.at.head;
        while pos != tail {
            let record = self.area.record(pos);
            self.check_at(pos, &record, tail).ok()?;
            if record.kind == wire::KIND_DATA {
                return Some(record.ts_ns);
            }
            pos += u64::from(record.rec_len);
        }
        None
    }

    /// Counts everything up to `next_seq` as never to be read. How many sequence numbers that are.
    pub fn abandon_until(&mut self, next_seq: u64) -> u64 {
        let abandoned = next_seq.saturating_sub(self.at.next_seq);
        self.at.next_seq += abandoned;
        self.release();
        abandoned
    }

    /// Gives up what is in the ring: the way on after [`Corruption`]. The next record's sequence number tells how much was lost.
    pub fn resync(&mut self) {
        self.at.head = self.area.tail().load(Acquire) & !(wire::ALIGN - 1);
        self.release();
    }

    /// Whether the producer's position is another than ours: something to read, or to complain about.
    pub fn has_news(&self) -> bool {
        self.area.tail().load(Relaxed) != self.at.head
    }

    /// Bytes written and not yet read; 0 if the positions are unsound.
    pub fn backlog(&self) -> u64 {
        let used = self.area.tail().load(Relaxed).checked_sub(self.at.head);
        used.filter(|used| *used <= self.area.capacity()).unwrap_or(0)
    }

    fn checked_tail(&self) -> Result<u64, Corruption> {
        // Pairs with the producer's release store of tail: records before it are whole.
        let (head, tail) = (self.at.head, self.area.tail().load(Acquire));
        let sound = tail >= head && tail - head <= self.area.capacity() && (head | tail).is_multiple_of(wire::ALIGN);
        if sound { Ok(tail) } else { Err(Corruption::Tail { head, tail }) }
    }

    fn check(&self, record: &Record, tail: u64) -> Result<(), Corruption> {
        self.check_at(self.at.head, record, tail)
    }

    fn check_at(&self, pos: u64, record: &Record, tail: u64) -> Result<(), Corruption> {
        if record.magic != wire::RECORD_MAGIC {
            return Err(Corruption::Magic { pos });
        }
        if record.crc != record.expected_crc() {
            return Err(Corruption::Checksum { pos });
        }
        if record.pos != pos {
            return Err(Corruption::Position { pos, says: record.pos });
        }
        let rest_of_lap = self.area.capacity() - (pos & (self.area.capacity() - 1));
        let longest = self.area.capacity() / wire::RECORDS_PER_LAP;
        let most = rest_of_lap.min(tail - pos).min(longest);
        let rec_len = u64::from(record.rec_len);
        if rec_len < wire::RECORD_HEADER || rec_len > most || !rec_len.is_multiple_of(wire::ALIGN) {
            return Err(Corruption::Length { pos, rec_len: record.rec_len, most });
        }
        match record.kind {
            // Only ever one in a row, at the end of a lap: endless padding would keep the reader busy for nothing.
            wire::KIND_PADDING if rec_len == rest_of_lap => Ok(()),
            wire::KIND_PADDING => Err(Corruption::Padding { pos, rec_len: record.rec_len, rest: rest_of_lap }),
            wire::KIND_DATA => self.shape.check(record),
            kind => Err(Corruption::Kind { pos, kind }),
        }
    }

    fn advance_seq(&mut self, record: &Record) -> Result<u64, Corruption> {
        let expected = self.at.next_seq;
        let missing = match record.seq.checked_sub(expected) {
            Some(missing) => missing,
            None if self.inherited => 0,
            None => return Err(Corruption::Sequence { pos: record.pos, seq: record.seq, expected }),
        };
        self.inherited = false;
        self.at.next_seq = record.seq.saturating_add(1);
        Ok(missing)
    }
}

const SECTIONS: usize = section::ALL.count_ones() as usize;

/// How the schema's rows lie in a payload.
#[derive(Debug)]
struct Shape {
    row_bytes: [Option<u64>; SECTIONS],
    classes: usize,
    features: usize,
    proba_dtype: DType,
    feature_dtype: DType,
}

impl Shape {
    fn of(schema: &Schema) -> Shape {
        Shape {
            row_bytes: std::array::from_fn(|bit| schema.row_bytes(1 << bit)),
            classes: schema.class_names.len(),
            features: schema.feature_names.len(),
            proba_dtype: schema.proba_dtype,
            feature_dtype: schema.feature_dtype,
        }
    }

    /// Start and length of each section present, and the end of the payload. `None` where the sections are not allowed or overflow.
    fn place(&self, sections: u16, rows: u32) -> Option<([(usize, usize); SECTIONS], u64)> {
        let truth = sections & (section::LABELS | section::LABEL_SETS | section::TARGETS);
        if sections == 0 || sections & !section::ALL != 0 || truth.count_ones() > 1 {
            return None;
        }
        let (mut places, mut end) = ([(0, 0); SECTIONS], 0u64);
        for (bit, place) in places.iter_mut().enumerate().filter(|(bit, _)| sections >> bit & 1 == 1) {
            let bytes = self.row_bytes[bit]?.checked_mul(rows.into())?;
            *place = (usize::try_from(end).ok()?, usize::try_from(bytes).ok()?);
            end = end.checked_add(bytes)?.checked_next_multiple_of(wire::ALIGN)?;
        }
        Some((places, end))
    }

    fn check(&self, record: &Record) -> Result<(), Corruption> {
        let Record { pos, sections, rows, rec_len, payload_len: len, .. } = *record;
        let (_, need) = self.place(sections, rows).ok_or(Corruption::Sections { pos, sections })?;
        let fits = rows > 0 && need == u64::from(len) && need + wire::RECORD_HEADER == u64::from(rec_len);
        if fits { Ok(()) } else { Err(Corruption::Payload { pos, rows, len, need }) }
    }

    /// `record` has passed `check`, so every section lies inside `payload`.
    fn batch<'a>(&self, record: &Record, payload: &'a [u8]) -> Batch<'a> {
        let rows = record.rows as usize;
        let (places, _) = self.place(record.sections, record.rows).expect("the record was checked");
        let bytes = |section: u16| {
            let (start, len) = places[section.trailing_zeros() as usize];
            (record.sections & section != 0).then(|| &payload[start..start + len])
        };
        Batch {
            rows,
            seq: record.seq,
            ts_ns: record.ts_ns,
            probabilities: bytes(section::PROBABILITIES).map(|b| matrix(self.proba_dtype, rows, self.classes, b)),
            features: bytes(section::FEATURES).map(|b| matrix(self.feature_dtype, rows, self.features, b)),
            labels: bytes(section::LABELS).map(bytemuck::cast_slice),
            label_sets: bytes(section::LABEL_SETS).map(|b| view(rows, self.classes, b)),
            targets: bytes(section::TARGETS).map(|b| view(rows, self.classes, b)),
            ids: bytes(section::IDS).map(bytemuck::cast_slice),
            segments: bytes(section::SEGMENTS).map(bytemuck::cast_slice),
        }
    }
}

fn view<T: bytemuck::Pod>(rows: usize, columns: usize, bytes: &[u8]) -> ArrayView2<'_, T> {
    ArrayView2::from_shape((rows, columns), bytemuck::cast_slice(bytes)).expect("the section's length was checked")
}

fn matrix(dtype: DType, rows: usize, columns: usize, bytes: &[u8]) -> Matrix<'_> {
    match dtype {
        DType::F16 => Matrix::F16(view(rows, columns, bytes)),
        DType::BF16 => Matrix::BF16(view(rows, columns, bytes)),
        DType::F32 => Matrix::F32(view(rows, columns, bytes)),
        DType::F64 => Matrix::F64(view(rows, columns, bytes)),
    }
}
