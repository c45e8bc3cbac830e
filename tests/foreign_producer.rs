//! A producer that shares no code with ours: written from `docs/wire-format.md` alone, on memory of the `shared_memory` crate.

use mlwatch::ring::{Budget, Consumer, Matrix, Segment};
use shared_memory::{Shmem, ShmemConf};
use std::path::Path;

const PAGE: usize = 4096;
const CAPACITY: usize = 1 << 14;

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 })
    })
}

fn schema() -> Vec<u8> {
    let mut s = vec![0u8; 64];
    s[0..4].copy_from_slice(&2u32.to_le_bytes()); // classes
    s[4..8].copy_from_slice(&1u32.to_le_bytes()); // features
    (s[8], s[9], s[10]) = (3, 3, 1); // f32, f32, classification
    s[16..24].copy_from_slice(&0.5f64.to_le_bytes());
    s[40..44].copy_from_slice(&u32::MAX.to_le_bytes()); // records carry segments
    s.push(2); // embedding
    for name in ["foreign", "7", "elsewhere", "no", "yes", "e_0"] {
        s.extend((name.len() as u16).to_le_bytes());
        s.extend(name.as_bytes());
    }
    s
}

fn identity(schema: &[u8]) -> Vec<u8> {
    let producer_off = (256 + schema.len()).next_multiple_of(PAGE) as u64;
    let mut a = vec![0u8; 256];
    let mut put = |at: usize, bytes: &[u8]| a[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MLWRING1");
    put(8, &1u16.to_le_bytes());
    put(12, &256u32.to_le_bytes());
    put(16, &0x0102_0304u32.to_le_bytes());
    put(20, &(PAGE as u32).to_le_bytes());
    put(24, &(producer_off + 2 * PAGE as u64 + CAPACITY as u64).to_le_bytes());
    put(32, &producer_off.to_le_bytes());
    put(40, &(producer_off + PAGE as u64).to_le_bytes());
    put(48, &(producer_off + 2 * PAGE as u64).to_le_bytes());
    put(56, &(CAPACITY as u64).to_le_bytes());
    put(64, &64u32.to_le_bytes());
    put(68, &(schema.len() as u32).to_le_bytes());
    put(72, &(CAPACITY as u64 / 4).to_le_bytes());
    put(112, &0b11u64.to_le_bytes()); // a reader must know embeddings and segments
    let crc = crc32c(&[&a[..252], schema].concat());
    a[252..256].copy_from_slice(&crc.to_le_bytes());
    a
}

/// Probabilities, feature, label, segment.
type Row = ([f32; 2], f32, i32, u16);

fn record(pos: u64, seq: u64, rows: &[Row]) -> Vec<u8> {
    let section = |bytes: Vec<u8>| {
        let mut padded = bytes;
        padded.resize(padded.len().next_multiple_of(64), 0xAA);
        padded
    };
    let payload = [
        section(rows.iter().flat_map(|r| r.0).flat_map(f32::to_le_bytes).collect()),
        section(rows.iter().flat_map(|r| r.1.to_le_bytes()).collect()),
        section(rows.iter().flat_map(|r| r.2.to_le_bytes()).collect()),
        section(rows.iter().flat_map(|r| r.3.to_le_bytes()).collect()),
    ]
    .concat();
    let mut h = vec![0u8; 64];
    h[0..4].copy_from_slice(&0x5257_4C4Du32.to_le_bytes());
    h[4..6].copy_from_slice(&1u16.to_le_bytes());
    h[6..8].copy_from_slice(&0b100_0111u16.to_le_bytes());
    h[8..12].copy_from_slice(&(64 + payload.len() as u32).to_le_bytes());
    h[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    h[16..24].copy_from_slice(&pos.to_le_bytes());
    h[24..32].copy_from_slice(&seq.to_le_bytes());
    h[32..40].copy_from_slice(&5u64.to_le_bytes());
    h[40..44].copy_from_slice(&(rows.len() as u32).to_le_bytes());
    let crc = crc32c(&h[..60]);
    h[60..64].copy_from_slice(&crc.to_le_bytes());
    [h, payload].concat()
}

struct Foreign {
    memory: Shmem,
    data_off: usize,
    tail: usize,
}

impl Foreign {
    fn new(name: &str) -> Foreign {
        let schema = schema();
        let identity = identity(&schema);
        let len = u64::from_le_bytes(identity[24..32].try_into().unwrap()) as usize;
        let memory = ShmemConf::new().os_id(name).size(len).create().unwrap();
        let mut foreign = Foreign { memory, data_off: len - CAPACITY, tail: 0 };
        foreign.put(0, &identity);
        foreign.put(256, &schema);
        foreign
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.memory.len());
        // SAFETY: inside the mapping, which nobody else writes.
        unsafe { self.memory.as_ptr().add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    fn publish(&mut self, record: &[u8]) {
        self.put(self.data_off + self.tail, record);
        self.tail += record.len();
        std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
        let (tail, producer_off) = (self.tail as u64, self.data_off - 2 * PAGE);
        self.put(producer_off, &tail.to_le_bytes());
    }
}

#[test]
fn a_producer_written_from_the_documentation_is_understood() {
    let name = format!("mlwatch-foreign-{}.0.ring", std::process::id());
    let mut foreign = Foreign::new(&name);
    let rows = [([0.25, 0.75], 31.0, 1, 500), ([0.5, 0.5], f32::NAN, -1, 65535)];
    let first = record(0, 0, &rows);
    foreign.publish(&first);
    foreign.publish(&record(first.len() as u64, 2, &rows[..1]));

    let segment = Segment::open(&Path::new("/dev/shm").join(&name), 1 << 30).unwrap();
    let schema = segment.schema().clone();
    assert_eq!(
        (schema.model.as_str(), schema.class_names[1].as_str(), schema.feature_names[0].as_str()),
        ("foreign", "yes", "e_0")
    );
    assert_eq!(schema.embeddings(), [("e", 0..1)]);
    let mut seen = Vec::new();
    let polled = Consumer::new(segment, &schema)
        .poll(
            Budget { records: 10, bytes: 1 << 20 },
            |_| true,
            |b| {
                let Some(Matrix::F32(proba)) = b.probabilities else { panic!("f32 was written") };
                seen.push((b.seq, b.rows, proba[[0, 1]], b.labels.unwrap().to_vec(), b.segments.unwrap().to_vec()));
            },
        )
        .sound()
        .unwrap();
    assert_eq!(seen, [(0, 2, 0.75, vec![1, -1], vec![500, 65535]), (2, 1, 0.75, vec![1], vec![500])]);
    assert_eq!((polled.records, polled.missing, polled.drained), (2, 1, true));
}
