/* The bytes producer and sidecar share. docs/wire-format.md says what they mean; sidecar/src/ring/wire.rs is the mirror.
 * Everything here is little-endian and naturally aligned. Prose drifts, the asserts do not. */
#ifndef MLW_WIRE_H
#define MLW_WIRE_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || UINTPTR_MAX != UINT64_MAX
#error "mlwatch needs a little-endian 64-bit machine"
#endif

#define MLW_MAGIC "MLWRING1"
#define MLW_MAGIC_BYTES {'M', 'L', 'W', 'R', 'I', 'N', 'G', '1'}
#define MLW_ABI_MAJOR 1u
#define MLW_ABI_MINOR 0u
#define MLW_ENDIAN_TAG 0x01020304u
#define MLW_RECORD_MAGIC 0x52574C4Du
#define MLW_ALIGN 64u
#define MLW_MIN_CAPACITY (UINT64_C(1) << 14)
#define MLW_MAX_CAPACITY (UINT64_C(1) << 33)
#define MLW_RECORDS_PER_LAP 4u
#define MLW_MAX_CLASSES 65536u
#define MLW_MAX_FEATURES 1048576u
#define MLW_MAX_NAME 255u
#define MLW_MAX_SLOTS 64u
#define MLW_DROP_REASONS 8u

/* feat_incompat: what a reader must know. */
#define MLW_NEEDS_EMBEDDINGS (UINT64_C(1) << 0)
#define MLW_NEEDS_SEGMENTS (UINT64_C(1) << 1)

enum mlw_record_kind { MLW_KIND_DATA = 1, MLW_KIND_PADDING = 2 };

enum mlw_state { MLW_STATE_ATTACHED = 1, MLW_STATE_CLOSED = 2 };

enum mlw_drop_reason {
    MLW_DROP_FULL = 0,
    MLW_DROP_TOO_LARGE = 1,
    MLW_DROP_CONTENDED = 2,
    MLW_DROP_REJECTED = 3,
    MLW_DROP_DETACHED = 4,
};

/* The lock bytes of the ring file. */
#define MLW_LOCK_PRODUCER 0
#define MLW_LOCK_CONSUMER 1

struct mlw_identity {
    char magic[8];
    uint16_t abi_major;
    uint16_t abi_minor;
    uint32_t header_len;
    uint32_t endian_tag;
    uint32_t page_size;
    uint64_t file_len;
    uint64_t producer_off;
    uint64_t consumer_off;
    uint64_t data_off;
    uint64_t capacity;
    uint32_t record_align;
    uint32_t schema_len;
    uint64_t max_record;
    uint64_t schema_hash;
    uint8_t uuid[16];
    uint64_t created_ns;
    uint64_t feat_incompat;
    uint64_t feat_compat;
    uint32_t creator_pid;
    uint32_t creator_uid;
    uint8_t reserved[116];
    uint32_t crc;
};

struct mlw_schema {
    uint32_t n_classes;
    uint32_t n_features;
    uint8_t proba_dtype;
    uint8_t feature_dtype;
    uint8_t task;
    uint8_t reserved0[5];
    double threshold;
    uint64_t period_ns;
    uint64_t reservoir_rows;
    uint32_t segment_by;
    uint8_t reserved1[20];
};

struct mlw_producer_page {
    _Atomic uint64_t tail;
    uint8_t alone[120];
    _Atomic uint64_t heartbeat_ns;
    _Atomic uint64_t attach_epoch;
    _Atomic uint64_t state;
    uint8_t reserved0[104];
    _Atomic uint64_t records;
    _Atomic uint64_t rows;
    _Atomic uint64_t bytes;
    _Atomic uint64_t next_seq;
    uint8_t reserved1[32];
    _Atomic uint64_t dropped_records[MLW_DROP_REASONS];
    _Atomic uint64_t dropped_rows[MLW_DROP_REASONS];
};

/* What the consumer had read when its head was at `head`. */
struct mlw_consumed {
    _Atomic uint64_t head;
    _Atomic uint64_t next_seq;
    _Atomic uint64_t records;
    _Atomic uint64_t rows;
};

struct mlw_consumer_page {
    _Atomic uint64_t head;
    uint8_t alone[120];
    _Atomic uint64_t heartbeat_ns;
    _Atomic uint64_t consumer_epoch;
    _Atomic uint64_t resyncs;
    _Atomic uint64_t quarantined;
    uint8_t reserved0[32];
    _Atomic uint64_t accounted_dropped_records[MLW_DROP_REASONS];
    _Atomic uint64_t accounted_dropped_rows[MLW_DROP_REASONS];
    struct mlw_consumed consumed[2]; /* the one whose head equals `head` is valid */
    struct mlw_consumed accounted;   /* what stood in reports when a sidecar last stopped in good order */
};

struct mlw_record {
    uint32_t magic;
    uint16_t kind;
    uint16_t sections;
    uint32_t rec_len;
    uint32_t payload_len;
    uint64_t pos;
    uint64_t seq;
    uint64_t ts_ns;
    uint32_t rows;
    uint8_t reserved[16];
    uint32_t crc;
};

/* One line per field: name, offset. tests/wire.rs expands the same lists to compare them with Rust's. */
#define MLW_IDENTITY_FIELDS(F)                                                                        \
    F(magic, 0) F(abi_major, 8) F(abi_minor, 10) F(header_len, 12) F(endian_tag, 16) F(page_size, 20) \
    F(file_len, 24) F(producer_off, 32) F(consumer_off, 40) F(data_off, 48) F(capacity, 56)           \
    F(record_align, 64) F(schema_len, 68) F(max_record, 72) F(schema_hash, 80) F(uuid, 88)            \
    F(created_ns, 104) F(feat_incompat, 112) F(feat_compat, 120) F(creator_pid, 128)                  \
    F(creator_uid, 132) F(crc, 252)
#define MLW_SCHEMA_FIELDS(F)                                                                          \
    F(n_classes, 0) F(n_features, 4) F(proba_dtype, 8) F(feature_dtype, 9) F(task, 10)                \
    F(threshold, 16) F(period_ns, 24) F(reservoir_rows, 32) F(segment_by, 40)
#define MLW_PRODUCER_PAGE_FIELDS(F)                                                                   \
    F(tail, 0) F(heartbeat_ns, 128) F(attach_epoch, 136) F(state, 144) F(records, 256) F(rows, 264)   \
    F(bytes, 272) F(next_seq, 280) F(dropped_records, 320) F(dropped_rows, 384)
#define MLW_CONSUMER_PAGE_FIELDS(F)                                                                   \
    F(head, 0) F(heartbeat_ns, 128) F(consumer_epoch, 136) F(resyncs, 144) F(quarantined, 152)        \
    F(accounted_dropped_records, 192) F(accounted_dropped_rows, 256) F(consumed, 320) F(accounted, 384)
#define MLW_CONSUMED_FIELDS(F) F(head, 0) F(next_seq, 8) F(records, 16) F(rows, 24)
#define MLW_RECORD_FIELDS(F)                                                                          \
    F(magic, 0) F(kind, 4) F(sections, 6) F(rec_len, 8) F(payload_len, 12) F(pos, 16) F(seq, 24)      \
    F(ts_ns, 32) F(rows, 40) F(crc, 60)

#define MLW_AT(type, field, at) \
    static_assert(offsetof(struct type, field) == (at), #type "." #field " must be at " #at);
#define MLW_IDENTITY_AT(field, at) MLW_AT(mlw_identity, field, at)
#define MLW_SCHEMA_AT(field, at) MLW_AT(mlw_schema, field, at)
#define MLW_PRODUCER_PAGE_AT(field, at) MLW_AT(mlw_producer_page, field, at)
#define MLW_CONSUMER_PAGE_AT(field, at) MLW_AT(mlw_consumer_page, field, at)
#define MLW_CONSUMED_AT(field, at) MLW_AT(mlw_consumed, field, at)
#define MLW_RECORD_AT(field, at) MLW_AT(mlw_record, field, at)
MLW_IDENTITY_FIELDS(MLW_IDENTITY_AT)
MLW_SCHEMA_FIELDS(MLW_SCHEMA_AT)
MLW_PRODUCER_PAGE_FIELDS(MLW_PRODUCER_PAGE_AT)
MLW_CONSUMER_PAGE_FIELDS(MLW_CONSUMER_PAGE_AT)
MLW_CONSUMED_FIELDS(MLW_CONSUMED_AT)
MLW_RECORD_FIELDS(MLW_RECORD_AT)

static_assert(sizeof(struct mlw_identity) == 256, "identity is 256 bytes");
static_assert(sizeof(struct mlw_schema) == 64, "schema header is 64 bytes");
static_assert(sizeof(struct mlw_producer_page) == 448, "producer page is 448 bytes");
static_assert(sizeof(struct mlw_consumer_page) == 416, "consumer page is 416 bytes");
static_assert(sizeof(struct mlw_consumed) == 32, "what was consumed is 32 bytes");
static_assert(sizeof(struct mlw_record) == 64, "record header is 64 bytes");
static_assert(sizeof(_Atomic uint64_t) == 8, "atomics in shared memory are plain words");

#endif
