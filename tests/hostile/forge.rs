//! Rings made by hand, every byte of them ours to spoil. Written with `pwrite`: the forger must survive what it does to the file.

use mlwatch::ring::wire::{self, Identity, Record, SchemaHead, section};
use std::fs::{self, File};
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const PAGE: u64 = 4096;
/// Element types.
pub const F16: u8 = 1;
pub const F32: u8 = 3;
pub const F64: u8 = 4;
/// Kinds of features.
pub const NUMERICAL: u8 = 0;
pub const CATEGORICAL: u8 = 1;
pub const EMBEDDING: u8 = 2;
/// Tasks.
pub const CLASSIFICATION: u8 = 1;
pub const REGRESSION: u8 = 2;

/// A generator whose numbers prefer the edges, where checks go wrong.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Near 0, a power of two, `around`, or the largest number.
    pub fn edge(&mut self, around: u64) -> u64 {
        let power = 1 << self.below(64);
        let base = self.pick(&[0, power, around, around, u64::MAX, u64::MAX / 2]);
        let off = self.pick(&[0, 1, 63, 64, 65, 128, u64::MAX, u64::MAX - 62, u64::MAX - 63]);
        base.wrapping_add(off)
    }
}

/// What a forged ring says of itself.
#[derive(Clone)]
pub struct Shape {
    pub model: String,
    pub instance: String,
    pub classes: u32,
    pub features: u32,
    pub task: u8,
    pub proba_dtype: u8,
    pub feature_dtype: u8,
    /// The features' kinds, over and over.
    pub kinds: Vec<u8>,
    pub segment_by: u32,
    /// Bytes of each class and feature name.
    pub name_bytes: usize,
    pub capacity: u64,
    pub period_ns: u64,
    pub reservoir_rows: u64,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            model: "hostile".into(),
            instance: "attacker".into(),
            classes: 3,
            features: 2,
            task: CLASSIFICATION,
            proba_dtype: F32,
            feature_dtype: F32,
            kinds: vec![NUMERICAL],
            segment_by: 0,
            name_bytes: 0,
            capacity: 1 << 16,
            period_ns: 0,
            reservoir_rows: 0,
        }
    }
}

impl Shape {
    pub fn schema(&self) -> Vec<u8> {
        let head = SchemaHead {
            n_classes: self.classes,
            n_features: self.features,
            proba_dtype: self.proba_dtype,
            feature_dtype: self.feature_dtype,
            task: self.task,
            reserved0: [0; 5],
            threshold: 0.5,
            period_ns: self.period_ns,
            reservoir_rows: self.reservoir_rows,
            segment_by: self.segment_by,
            reserved1: [0; 20],
        };
        let mut bytes = bytemuck::bytes_of(&head).to_vec();
        bytes.extend(self.kinds.iter().cycle().take(self.features as usize));
        let mut name = |name: &str| {
            bytes.extend((name.len() as u16).to_le_bytes());
            bytes.extend(name.as_bytes());
        };
        [&self.model, "", &self.instance].into_iter().for_each(&mut name);
        for i in 0..self.classes + self.features {
            let width = self.name_bytes;
            name(&if width == 0 { String::new() } else { format!("{i:0>width$}") });
        }
        bytes
    }

    fn proba_bytes(&self) -> u64 {
        u64::from(self.classes) * size_of_dtype(self.proba_dtype)
    }

    fn feature_bytes(&self) -> u64 {
        u64::from(self.features) * size_of_dtype(self.feature_dtype)
    }

    /// What its reader must know.
    fn needs(&self) -> u64 {
        let embeddings = if self.kinds.contains(&EMBEDDING) { wire::NEEDS_EMBEDDINGS } else { 0 };
        let segments = if self.segment_by == wire::SEGMENT_BY_ROW { wire::NEEDS_SEGMENTS } else { 0 };
        embeddings | segments
    }

    /// A sound header for `rows` rows at a position.
    pub fn record(&self, sections: u16, rows: u32, pos: u64, seq: u64, ts_ns: u64) -> Record {
        let payload_len = payload_len(self, sections, rows) as u32;
        let rec_len = payload_len + wire::RECORD_HEADER as u32;
        let (magic, kind) = (wire::RECORD_MAGIC, wire::KIND_DATA);
        Record { magic, kind, sections, rec_len, payload_len, pos, seq, ts_ns, rows, reserved: [0; 16], crc: 0 }
    }
}

fn size_of_dtype(dtype: u8) -> u64 {
    match dtype {
        F64 => 8,
        F32 => 4,
        _ => 2,
    }
}

/// Which sections these are, and the payload that holds them. In the order of their bits.
pub fn joined(parts: &[(u16, Vec<u8>)]) -> (u16, Vec<u8>) {
    parts.iter().fold((0, Vec::new()), |(sections, mut payload), (section, bytes)| {
        payload.extend(bytes);
        payload.resize(payload.len().next_multiple_of(wire::ALIGN as usize), 0);
        (sections | section, payload)
    })
}

fn payload_len(shape: &Shape, sections: u16, rows: u32) -> u64 {
    let width = |bit| match bit {
        section::PROBABILITIES => shape.proba_bytes(),
        section::FEATURES => shape.feature_bytes(),
        section::LABELS => 4,
        section::LABEL_SETS => shape.classes.into(),
        section::TARGETS => u64::from(shape.classes) * 8,
        section::SEGMENTS => 2,
        _ => 8,
    };
    let present = (0..16).map(|bit| 1u16 << bit).filter(|bit| sections & bit != 0);
    present.map(|bit| (width(bit) * u64::from(rows)).next_multiple_of(wire::ALIGN)).sum()
}

/// Identity and schema, sound unless `spoil` does something about it; the checksum is always right.
pub fn identity(shape: &Shape, spoil: impl FnOnce(&mut Identity)) -> (Identity, Vec<u8>) {
    let schema = shape.schema();
    let producer_off = (size_of::<Identity>() as u64 + schema.len() as u64).next_multiple_of(PAGE);
    let mut id: Identity = bytemuck::Zeroable::zeroed();
    (id.magic, id.abi_major, id.header_len) = (wire::MAGIC, wire::ABI_MAJOR, size_of::<Identity>() as u32);
    (id.endian_tag, id.page_size, id.record_align) = (wire::ENDIAN_TAG, PAGE as u32, wire::ALIGN as u32);
    (id.producer_off, id.consumer_off, id.data_off) = (producer_off, producer_off + PAGE, producer_off + 2 * PAGE);
    (id.capacity, id.max_record) = (shape.capacity, shape.capacity / wire::RECORDS_PER_LAP);
    id.feat_incompat = shape.needs();
    (id.schema_len, id.file_len) = (schema.len() as u32, producer_off + 2 * PAGE + shape.capacity);
    spoil(&mut id);
    let header = &bytemuck::bytes_of(&id)[..offset_of!(Identity, crc)];
    id.crc = crc32c::crc32c_append(crc32c::crc32c(header), &schema);
    (id, schema)
}

/// A ring file, and where its forger stands.
pub struct Forged {
    pub path: PathBuf,
    pub file: File,
    pub id: Identity,
    pub shape: Shape,
    pub pos: u64,
    pub seq: u64,
}

impl Forged {
    /// A sound and empty ring that appears whole, in place of whatever had the name.
    pub fn new(dir: &Path, name: &str, shape: &Shape) -> Forged {
        Forged::prepared(dir, name, shape, |_| {})
    }

    /// As `new`, after `prepare` has spoilt it.
    pub fn prepared(dir: &Path, name: &str, shape: &Shape, prepare: impl FnOnce(&Forged)) -> Forged {
        let (id, schema) = identity(shape, |_| {});
        let (path, hidden) = (dir.join(name), dir.join(format!(".{name}.tmp")));
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(&hidden).expect("it is made");
        file.set_len(id.file_len).expect("it is sized");
        let forged = Forged { path, file, id, shape: shape.clone(), pos: 0, seq: 0 };
        forged.put(0, bytemuck::bytes_of(&id));
        forged.put(size_of::<Identity>() as u64, &schema);
        prepare(&forged);
        fs::rename(&hidden, &forged.path).expect("it is named");
        forged
    }

    pub fn put(&self, at: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, at).expect("memory is left");
    }

    pub fn put_word(&self, at: u64, word: u64) {
        self.put(at, &word.to_le_bytes());
    }

    /// 0 where the file has no such byte.
    pub fn word(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        let _ = self.file.read_at(&mut bytes, at);
        u64::from_le_bytes(bytes)
    }

    /// Where the byte at a position lies in the file.
    pub fn data(&self, pos: u64) -> u64 {
        self.id.data_off + pos % self.id.capacity
    }

    pub fn head(&self) -> u64 {
        self.word(self.id.consumer_off + offset_of!(wire::ConsumerPage, head) as u64)
    }

    pub fn attached(&self) -> bool {
        self.word(self.id.consumer_off + offset_of!(wire::ConsumerPage, consumer_epoch) as u64) > 0
    }

    pub fn quarantined(&self) -> bool {
        self.word(self.id.consumer_off + offset_of!(wire::ConsumerPage, quarantined) as u64) != 0
    }

    pub fn set_tail(&self, tail: u64) {
        self.put_word(self.id.producer_off, tail);
    }

    fn set_next_seq(&self) {
        self.put_word(self.id.producer_off + offset_of!(wire::ProducerPage, next_seq) as u64, self.seq);
    }

    /// Writes a header at our position, its checksum made right, and moves the tail to `tail`.
    pub fn publish_raw(&mut self, mut record: Record, tail: u64) {
        record.crc = record.expected_crc();
        self.put(self.data(self.pos), bytemuck::bytes_of(&record));
        self.set_tail(tail);
    }

    /// A sound record of which `spoil` may spoil the header, the checksum still being right. `false` if the ring is full.
    pub fn write(
        &mut self,
        sections: u16,
        rows: u32,
        ts_ns: u64,
        payload: &[u8],
        spoil: impl FnOnce(&mut Record),
    ) -> bool {
        let len = wire::RECORD_HEADER + payload_len(&self.shape, sections, rows);
        assert!(payload.len() as u64 <= len - wire::RECORD_HEADER, "what is longer may make the file grow");
        let rest = self.id.capacity - self.pos % self.id.capacity;
        let padding = if len > rest { rest } else { 0 };
        if self.pos.wrapping_add(padding + len).wrapping_sub(self.head()) > self.id.capacity {
            return false;
        }
        if padding > 0 {
            let mut record = self.shape.record(0, 0, self.pos, self.seq, 0);
            (record.kind, record.rec_len, record.payload_len) = (wire::KIND_PADDING, padding as u32, 0);
            self.publish_raw(record, self.pos);
            self.pos += padding;
        }
        let mut record = self.shape.record(sections, rows, self.pos, self.seq, ts_ns);
        spoil(&mut record);
        self.put(self.data(self.pos + wire::RECORD_HEADER), payload);
        self.seq += 1;
        self.set_next_seq();
        self.publish_raw(record, self.pos);
        self.pos += len;
        self.set_tail(self.pos);
        true
    }

    /// Features of so many rows, all sound.
    pub fn write_sound(&mut self, rows: u32) -> bool {
        let payload = vec![0u8; (self.shape.feature_bytes() * u64::from(rows)) as usize];
        self.write(section::FEATURES, rows, now_ns(), &payload, |_| {})
    }
}

pub fn now_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_nanos() as u64
}
