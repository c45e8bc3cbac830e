//! `producer-c/wire.h` and `sidecar/src/ring/wire.rs` say the same, number by number.

use mlwatch::ring::wire;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

const PROGRAM: &str = r#"
#include <stdio.h>
#include <inttypes.h>
#include "wire.h"
#define STRUCT(s) printf(#s " %zu\n", sizeof(struct s));
#define IDENTITY(f, at) printf("mlw_identity." #f " %zu\n", offsetof(struct mlw_identity, f));
#define SCHEMA(f, at) printf("mlw_schema." #f " %zu\n", offsetof(struct mlw_schema, f));
#define PRODUCER(f, at) printf("mlw_producer_page." #f " %zu\n", offsetof(struct mlw_producer_page, f));
#define CONSUMER(f, at) printf("mlw_consumer_page." #f " %zu\n", offsetof(struct mlw_consumer_page, f));
#define CONSUMED(f, at) printf("mlw_consumed." #f " %zu\n", offsetof(struct mlw_consumed, f));
#define RECORD(f, at) printf("mlw_record." #f " %zu\n", offsetof(struct mlw_record, f));
#define NUMBER(n) printf(#n " %" PRIu64 "\n", (uint64_t)(n));
int main(void)
{
    STRUCT(mlw_identity) STRUCT(mlw_schema) STRUCT(mlw_producer_page) STRUCT(mlw_consumer_page) STRUCT(mlw_record)
    STRUCT(mlw_consumed) MLW_CONSUMED_FIELDS(CONSUMED)
    MLW_IDENTITY_FIELDS(IDENTITY) MLW_SCHEMA_FIELDS(SCHEMA) MLW_PRODUCER_PAGE_FIELDS(PRODUCER)
    MLW_CONSUMER_PAGE_FIELDS(CONSUMER) MLW_RECORD_FIELDS(RECORD)
    NUMBER(MLW_ABI_MAJOR) NUMBER(MLW_ABI_MINOR) NUMBER(MLW_ENDIAN_TAG) NUMBER(MLW_RECORD_MAGIC) NUMBER(MLW_ALIGN)
    NUMBER(MLW_MIN_CAPACITY) NUMBER(MLW_MAX_CAPACITY) NUMBER(MLW_RECORDS_PER_LAP) NUMBER(MLW_MAX_CLASSES)
    NUMBER(MLW_MAX_FEATURES) NUMBER(MLW_MAX_NAME) NUMBER(MLW_MAX_SLOTS) NUMBER(MLW_DROP_REASONS)
    NUMBER(MLW_KIND_DATA) NUMBER(MLW_KIND_PADDING) NUMBER(MLW_STATE_ATTACHED) NUMBER(MLW_STATE_CLOSED)
    NUMBER(MLW_LOCK_PRODUCER) NUMBER(MLW_LOCK_CONSUMER) NUMBER(MLW_DROP_FULL) NUMBER(MLW_DROP_TOO_LARGE)
    NUMBER(MLW_DROP_CONTENDED) NUMBER(MLW_DROP_REJECTED) NUMBER(MLW_DROP_DETACHED)
    NUMBER(MLW_NEEDS_EMBEDDINGS) NUMBER(MLW_NEEDS_SEGMENTS)
    puts(MLW_MAGIC " 0");
}
"#;

fn what_c_says() -> BTreeMap<String, u64> {
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("wire.c"), dir.path().join("wire"));
    fs::write(&source, PROGRAM).unwrap();
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("producer-c");
    let built = Command::new("cc").arg("-std=c11").arg("-I").arg(include).arg(&source).arg("-o").arg(&program).status();
    assert!(built.expect("cc runs").success());
    let out = Command::new(&program).output().unwrap();
    let lines = String::from_utf8(out.stdout).unwrap();
    lines.lines().map(|line| line.split_once(' ').unwrap()).map(|(name, n)| (name.into(), n.parse().unwrap())).collect()
}

fn what_rust_says() -> BTreeMap<String, u64> {
    let mut says = BTreeMap::new();
    for (name, size, fields) in
        [wire::IDENTITY, wire::SCHEMA, wire::PRODUCER_PAGE, wire::CONSUMER_PAGE, wire::CONSUMED, wire::RECORD]
    {
        says.insert(name.to_string(), size as u64);
        says.extend(fields.iter().map(|(field, at)| (format!("{name}.{field}"), *at as u64)));
    }
    let reason = |name| wire::DROP_REASON_NAMES.iter().position(|n| *n == name).unwrap() as u64;
    let numbers = [
        ("MLW_ABI_MAJOR", wire::ABI_MAJOR.into()),
        ("MLW_ABI_MINOR", wire::ABI_MINOR.into()),
        ("MLW_ENDIAN_TAG", wire::ENDIAN_TAG.into()),
        ("MLW_RECORD_MAGIC", wire::RECORD_MAGIC.into()),
        ("MLW_ALIGN", wire::ALIGN),
        ("MLW_MIN_CAPACITY", wire::MIN_CAPACITY),
        ("MLW_MAX_CAPACITY", wire::MAX_CAPACITY),
        ("MLW_RECORDS_PER_LAP", wire::RECORDS_PER_LAP),
        ("MLW_MAX_CLASSES", wire::MAX_CLASSES.into()),
        ("MLW_MAX_FEATURES", wire::MAX_FEATURES.into()),
        ("MLW_MAX_NAME", wire::MAX_NAME as u64),
        ("MLW_MAX_SLOTS", wire::MAX_SLOTS.into()),
        ("MLW_DROP_REASONS", wire::DROP_REASONS as u64),
        ("MLW_KIND_DATA", wire::KIND_DATA.into()),
        ("MLW_KIND_PADDING", wire::KIND_PADDING.into()),
        ("MLW_STATE_ATTACHED", wire::STATE_ATTACHED),
        ("MLW_STATE_CLOSED", wire::STATE_CLOSED),
        ("MLW_LOCK_PRODUCER", wire::LOCK_PRODUCER as u64),
        ("MLW_LOCK_CONSUMER", wire::LOCK_CONSUMER as u64),
        ("MLW_DROP_FULL", reason("full")),
        ("MLW_DROP_TOO_LARGE", reason("too_large")),
        ("MLW_DROP_CONTENDED", reason("contended")),
        ("MLW_DROP_REJECTED", reason("rejected")),
        ("MLW_DROP_DETACHED", reason("detached")),
        ("MLW_NEEDS_EMBEDDINGS", wire::NEEDS_EMBEDDINGS),
        ("MLW_NEEDS_SEGMENTS", wire::NEEDS_SEGMENTS),
        (std::str::from_utf8(&wire::MAGIC).unwrap(), 0),
    ];
    says.extend(numbers.map(|(name, n)| (name.to_string(), n)));
    says
}

#[test]
fn c_and_rust_agree_on_every_offset_size_and_constant() {
    assert_eq!(what_c_says(), what_rust_says());
}
