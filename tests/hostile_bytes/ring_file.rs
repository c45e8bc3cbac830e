//! Arbitrary bytes where a ring file has its identity and schema.
//!
//! The first byte of an input says which parts are made right, so that a fuzzer gets past magic, geometry and checksum.

use mlwatch::ring::wire::{self, Identity};
use mlwatch::ring::{Budget, Consumer, Schema, Segment, Snapshot};
use std::io::Write;

const IDENTITY: usize = size_of::<Identity>();
const LIMIT: u64 = 1 << 20;

/// What stands before the schema, as the input has it but for what is to be right.
fn identity(right: u8, bytes: &[u8; IDENTITY], schema: &[u8]) -> Identity {
    let mut id: Identity = bytemuck::pod_read_unaligned(bytes);
    if right & 1 == 1 {
        (id.magic, id.endian_tag) = (wire::MAGIC, wire::ENDIAN_TAG);
        (id.abi_major, id.feat_incompat) = (wire::ABI_MAJOR, 0);
    }
    if right & 2 == 2 {
        (id.page_size, id.capacity, id.record_align) = (4096, wire::MIN_CAPACITY, 64);
    }
    if right & 4 == 4 {
        (id.header_len, id.schema_len) = (IDENTITY as u32, schema.len() as u32);
        id.max_record = id.capacity / wire::RECORDS_PER_LAP;
        id.producer_off = (IDENTITY as u64 + schema.len() as u64).next_multiple_of(u64::from(id.page_size).max(1));
        id.consumer_off = id.producer_off.wrapping_add(id.page_size.into());
        id.data_off = id.consumer_off.wrapping_add(id.page_size.into());
        id.file_len = id.data_off.wrapping_add(id.capacity);
    }
    if right & 8 == 8 {
        let head = crc32c::crc32c(&bytemuck::bytes_of(&id)[..IDENTITY - 4]);
        id.crc = crc32c::crc32c_append(head, schema);
    }
    id
}

/// What was promised of an opened segment, whatever stood in the file.
fn check_opened(segment: Segment, size: u64) {
    let id = *segment.identity();
    assert!(id.capacity.is_power_of_two() && id.data_off + id.capacity == size && id.file_len == size);
    assert!(id.producer_off < id.consumer_off && id.consumer_off < id.data_off);
    let schema = segment.schema().clone();
    check_schema(&schema);
    let row: u64 = (0..7).filter_map(|bit| schema.row_bytes(1 << bit)).sum();
    assert!(row <= id.max_record, "a row of {row} bytes fits into no record");
    let polled = Consumer::new(segment, &schema).poll(Budget { records: 10, bytes: LIMIT }, |_| true, |_| {});
    assert!(polled.used <= id.capacity && polled.bytes <= polled.used);
}

fn check_schema(schema: &Schema) {
    assert!(!schema.model.is_empty() && schema.threshold.is_finite());
    assert_eq!(schema.feature_names.len(), schema.feature_kinds.len());
    assert!(schema.class_names.len() + schema.feature_names.len() > 0);
    assert!(schema.class_names.len() <= wire::MAX_CLASSES as usize);
    let names = schema.class_names.iter().chain(&schema.feature_names).chain([&schema.version, &schema.instance]);
    assert!(names.into_iter().all(|name| name.len() <= wire::MAX_NAME && !name.contains('\0')));
}

/// Whether a file with these bytes is read as a ring. Fails if anything but a clear answer comes of it.
pub fn open(input: &[u8]) -> bool {
    let Some((&right, rest)) = input.split_first() else { return false };
    let (head, schema) = rest.split_at(rest.len().min(IDENTITY));
    let mut bytes = [0; IDENTITY];
    bytes[..head.len()].copy_from_slice(head);
    if let Ok(schema) = Schema::parse(schema) {
        check_schema(&schema);
    }
    let id = identity(right, &bytes, schema);
    let mut file = tempfile::NamedTempFile::new_in("/dev/shm").expect("/dev/shm is writable");
    file.write_all(bytemuck::bytes_of(&id)).and_then(|()| file.write_all(schema)).expect("there is room");
    if id.file_len <= LIMIT && right & 16 == 0 {
        file.as_file().set_len(id.file_len).expect("there is room");
    }
    let size = file.as_file().metadata().expect("it is open").len();
    let (opened, snapshot) = (Segment::open(file.path(), LIMIT), Snapshot::read(file.path()));
    assert_eq!(opened.is_ok(), snapshot.is_ok(), "{:?}, {:?}", opened.err(), snapshot.err());
    let Ok(segment) = opened else { return false };
    check_opened(segment, size);
    true
}
