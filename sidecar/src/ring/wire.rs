//! The bytes producer and sidecar share: the mirror of `producer-c/wire.h`, field by field.

use bytemuck::{Pod, Zeroable};
use std::mem::offset_of;
use std::sync::atomic::AtomicU64;

/// First bytes of every ring file.
pub const MAGIC: [u8; 8] = *b"MLWRING1";
/// The one major version this sidecar reads.
pub const ABI_MAJOR: u16 = 1;
/// The newest minor version known.
pub const ABI_MINOR: u16 = 0;
/// Reads differently on a machine of the other byte order.
pub const ENDIAN_TAG: u32 = 0x0102_0304;
/// First bytes of every record: "MLWR".
pub const RECORD_MAGIC: u32 = 0x5257_4C4D;
/// Alignment of records and sections.
pub const ALIGN: u64 = 64;
/// Bounds of the data area.
pub const MIN_CAPACITY: u64 = 1 << 14;
/// Bounds of the data area.
pub const MAX_CAPACITY: u64 = 1 << 33;
/// The data area holds at least this many records.
pub const RECORDS_PER_LAP: u64 = 4;
/// Bounds of a schema.
pub const MAX_CLASSES: u32 = 65_536;
/// Bounds of a schema.
pub const MAX_FEATURES: u32 = 1_048_576;
/// Longest name in a schema, in bytes.
pub const MAX_NAME: usize = 255;
/// Slots a stream may have.
pub const MAX_SLOTS: u32 = 64;
/// How many drop reasons have a counter.
pub const DROP_REASONS: usize = 8;
/// What the drop counters count, by index; the rest of the eight are unused.
pub const DROP_REASON_NAMES: [&str; 5] = ["full", "too_large", "contended", "rejected", "detached"];
/// Record kinds.
pub const KIND_DATA: u16 = 1;
/// Record kinds.
pub const KIND_PADDING: u16 = 2;
/// `ProducerPage::state`.
pub const STATE_ATTACHED: u64 = 1;
/// `ProducerPage::state`.
pub const STATE_CLOSED: u64 = 2;
/// The byte of the file that the producer locks.
pub const LOCK_PRODUCER: i64 = 0;
/// The byte of the file that the sidecar locks.
pub const LOCK_CONSUMER: i64 = 1;

/// `Identity::feat_incompat`: features of the kind embedding.
pub const NEEDS_EMBEDDINGS: u64 = 1 << 0;
/// `Identity::feat_incompat`: records may have the section [`section::SEGMENTS`].
pub const NEEDS_SEGMENTS: u64 = 1 << 1;
/// Every such bit that this sidecar knows.
pub const KNOWN_NEEDS: u64 = NEEDS_EMBEDDINGS | NEEDS_SEGMENTS;
/// `SchemaHead::segment_by`: the records say it.
pub const SEGMENT_BY_ROW: u32 = u32::MAX;

/// Section bits, in the order of the sections.
pub mod section {
    /// rows × classes, `proba_dtype`.
    pub const PROBABILITIES: u16 = 1 << 0;
    /// rows × features, `feature_dtype`.
    pub const FEATURES: u16 = 1 << 1;
    /// rows × i32.
    pub const LABELS: u16 = 1 << 2;
    /// rows × classes × u8.
    pub const LABEL_SETS: u16 = 1 << 3;
    /// rows × classes × f64.
    pub const TARGETS: u16 = 1 << 4;
    /// rows × u64.
    pub const IDS: u16 = 1 << 5;
    /// rows × u16.
    pub const SEGMENTS: u16 = 1 << 6;
    /// Every bit this sidecar knows.
    pub const ALL: u16 = (1 << 7) - 1;
}

/// Region A, first part.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
#[expect(missing_docs, reason = "docs/wire-format.md documents each field")]
pub struct Identity {
    pub magic: [u8; 8],
    pub abi_major: u16,
    pub abi_minor: u16,
    pub header_len: u32,
    pub endian_tag: u32,
    pub page_size: u32,
    pub file_len: u64,
    pub producer_off: u64,
    pub consumer_off: u64,
    pub data_off: u64,
    pub capacity: u64,
    pub record_align: u32,
    pub schema_len: u32,
    pub max_record: u64,
    pub schema_hash: u64,
    pub uuid: [u8; 16],
    pub created_ns: u64,
    pub feat_incompat: u64,
    pub feat_compat: u64,
    pub creator_pid: u32,
    pub creator_uid: u32,
    pub reserved: [u8; 116],
    pub crc: u32,
}

/// Region A, the fixed part of the schema.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
#[expect(missing_docs, reason = "docs/wire-format.md documents each field")]
pub struct SchemaHead {
    pub n_classes: u32,
    pub n_features: u32,
    pub proba_dtype: u8,
    pub feature_dtype: u8,
    pub task: u8,
    pub reserved0: [u8; 5],
    pub threshold: f64,
    pub period_ns: u64,
    pub reservoir_rows: u64,
    pub segment_by: u32,
    pub reserved1: [u8; 20],
}

/// Region B. Written by the producer only; every field may change under the reader.
#[derive(Debug)]
#[repr(C)]
#[expect(missing_docs, reason = "docs/wire-format.md documents each field")]
pub struct ProducerPage {
    pub tail: AtomicU64,
    alone: [u8; 120],
    pub heartbeat_ns: AtomicU64,
    pub attach_epoch: AtomicU64,
    pub state: AtomicU64,
    reserved0: [u8; 104],
    pub records: AtomicU64,
    pub rows: AtomicU64,
    pub bytes: AtomicU64,
    pub next_seq: AtomicU64,
    reserved1: [u8; 32],
    pub dropped_records: [AtomicU64; DROP_REASONS],
    pub dropped_rows: [AtomicU64; DROP_REASONS],
}

/// Region C. Written by the sidecar only; the producer reads `head`.
#[derive(Debug)]
#[repr(C)]
#[expect(missing_docs, reason = "docs/wire-format.md documents each field")]
pub struct ConsumerPage {
    pub head: AtomicU64,
    alone: [u8; 120],
    pub heartbeat_ns: AtomicU64,
    pub consumer_epoch: AtomicU64,
    pub resyncs: AtomicU64,
    pub quarantined: AtomicU64,
    reserved0: [u8; 32],
    pub accounted_dropped_records: [AtomicU64; DROP_REASONS],
    pub accounted_dropped_rows: [AtomicU64; DROP_REASONS],
    pub consumed: [ConsumedWords<AtomicU64>; 2],
    pub accounted: ConsumedWords<AtomicU64>,
}

/// What the consumer had read when its head was at `head`, as it lies in region C.
#[derive(Debug, Default)]
#[repr(C)]
#[expect(missing_docs, reason = "docs/wire-format.md documents each field")]
pub struct ConsumedWords<W> {
    pub head: W,
    pub next_seq: W,
    pub records: W,
    pub rows: W,
}

/// The header before every payload in region D.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
#[expect(missing_docs, reason = "docs/wire-format.md documents each field")]
pub struct Record {
    pub magic: u32,
    pub kind: u16,
    pub sections: u16,
    pub rec_len: u32,
    pub payload_len: u32,
    pub pos: u64,
    pub seq: u64,
    pub ts_ns: u64,
    pub rows: u32,
    pub reserved: [u8; 16],
    pub crc: u32,
}

/// Length of [`Record`], the least a record can have.
pub const RECORD_HEADER: u64 = size_of::<Record>() as u64;

impl Record {
    /// What `crc` must be.
    pub fn expected_crc(&self) -> u32 {
        crc32c::crc32c(&bytemuck::bytes_of(self)[..offset_of!(Record, crc)])
    }
}

/// Asserts each field's offset at compile time and lists them for the test that compares them with the C header.
macro_rules! layout {
    ($list:ident, $type:ty, $size:literal, $c_name:literal, { $($field:ident: $at:literal),* $(,)? }) => {
        $(const _: () = assert!(offset_of!($type, $field) == $at);)*
        const _: () = assert!(size_of::<$type>() == $size);
        /// C name, size, and every field's offset.
        pub const $list: (&str, usize, &[(&str, usize)]) = ($c_name, $size, &[$((stringify!($field), $at)),*]);
    };
}

layout!(IDENTITY, Identity, 256, "mlw_identity", {
    magic: 0, abi_major: 8, abi_minor: 10, header_len: 12, endian_tag: 16, page_size: 20, file_len: 24,
    producer_off: 32, consumer_off: 40, data_off: 48, capacity: 56, record_align: 64, schema_len: 68,
    max_record: 72, schema_hash: 80, uuid: 88, created_ns: 104, feat_incompat: 112, feat_compat: 120,
    creator_pid: 128, creator_uid: 132, crc: 252,
});
layout!(SCHEMA, SchemaHead, 64, "mlw_schema", {
    n_classes: 0, n_features: 4, proba_dtype: 8, feature_dtype: 9, task: 10, threshold: 16, period_ns: 24,
    reservoir_rows: 32, segment_by: 40,
});
layout!(PRODUCER_PAGE, ProducerPage, 448, "mlw_producer_page", {
    tail: 0, heartbeat_ns: 128, attach_epoch: 136, state: 144, records: 256, rows: 264, bytes: 272,
    next_seq: 280, dropped_records: 320, dropped_rows: 384,
});
layout!(CONSUMER_PAGE, ConsumerPage, 416, "mlw_consumer_page", {
    head: 0, heartbeat_ns: 128, consumer_epoch: 136, resyncs: 144, quarantined: 152, accounted_dropped_records: 192,
    accounted_dropped_rows: 256, consumed: 320, accounted: 384,
});
layout!(CONSUMED, ConsumedWords<AtomicU64>, 32, "mlw_consumed", { head: 0, next_seq: 8, records: 16, rows: 24 });
layout!(RECORD, Record, 64, "mlw_record", {
    magic: 0, kind: 4, sections: 6, rec_len: 8, payload_len: 12, pos: 16, seq: 24, ts_ns: 32, rows: 40, crc: 60,
});
