/* The hot half of the producer: claim a place, fill it, publish it with one store.
 *
 * What the other side may be doing meanwhile: the consumer reads records in [head, tail) and moves head up to tail.
 * It never writes to a page that we write, so the only thing we ever learn from it is `head`, and we do not trust it.
 *
 * No function here blocks, allocates or makes a system call, but for the first call after a fork, which opens a ring.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <time.h>

#include "producer.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

static void bump(_Atomic uint64_t *counter, uint64_t by)
{
    uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, now + by, memory_order_relaxed);
}

static struct mlw_producer_page *page(const mlw_producer *p)
{
    return atomic_load_explicit(&p->page, memory_order_relaxed);
}

uint64_t mlw_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- the handle is used by one call at a time ---- */

static int enter(mlw_producer *p, uint64_t rows)
{
    if (unlikely(atomic_exchange_explicit(&p->busy, 1, memory_order_acquire))) {
        /* Somebody else may be here too: the one place where counters need a read-modify-write. */
        atomic_fetch_add_explicit(&page(p)->dropped_records[MLW_DROP_CONTENDED], 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&page(p)->dropped_rows[MLW_DROP_CONTENDED], rows, memory_order_relaxed);
        return -EBUSY;
    }
    return 0;
}

static void leave(mlw_producer *p)
{
    atomic_store_explicit(&p->busy, 0, memory_order_release);
}

static void count_drop(mlw_producer *p, enum mlw_drop_reason why, uint64_t rows)
{
    bump(&page(p)->dropped_records[why], 1);
    bump(&page(p)->dropped_rows[why], rows);
}

/* A drop that leaves a gap in `seq`, so that the consumer sees it too. */
static void drop_record(mlw_producer *p, enum mlw_drop_reason why, uint64_t rows)
{
    count_drop(p, why, rows);
    p->next_seq++;
    atomic_store_explicit(&page(p)->next_seq, p->next_seq, memory_order_relaxed);
}

/* ---- shapes ---- */

uint64_t mlw_place_sections(const mlw_producer *p, uint64_t rows, uint32_t sections, uint64_t at[MLW_SECTIONS])
{
    uint64_t end = 0;
    for (int i = 0; i < MLW_SECTIONS; i++) {
        at[i] = end;
        if (sections >> i & 1)
            end = mlw_align_up(end + rows * p->row_bytes[i], MLW_ALIGN);
    }
    return end;
}

/* `rows` is in 1..=record_rows[sections]: the caller has checked. */
static void learn_shape(mlw_producer *p, uint32_t rows, uint32_t sections)
{
    struct mlw_shape *s = &p->shape;
    uint64_t at[MLW_SECTIONS];
    uint64_t payload_len = mlw_place_sections(p, rows, sections, at);
    s->rows = rows;
    s->sections = sections;
    s->len = sizeof(struct mlw_record) + payload_len;
    s->header[0] = MLW_RECORD_MAGIC | (uint64_t)MLW_KIND_DATA << 32 | (uint64_t)sections << 48;
    s->header[1] = s->len | payload_len << 32;
    s->header_crc = mlw_crc32c_header_start(s->header);
    for (int i = 0; i < MLW_SECTIONS; i++)
        s->at[i] = (uint32_t)(sizeof(struct mlw_record) + at[i]);
}

static inline int has_shape(const mlw_producer *p, uint32_t rows, uint32_t sections)
{
    return p->shape.rows == rows && p->shape.sections == sections;
}

/* ---- claim, publish ---- */

/* A forged head must not make us overwrite what the consumer may still read: believe only heads between the last one and our tail. */
static void refresh_head(mlw_producer *p)
{
    /* Pairs with the consumer's release store of head: its reads of the record are over. */
    uint64_t head = atomic_load_explicit(&p->consumer->head, memory_order_acquire);
    if (head - p->cached_head <= p->tail - p->cached_head && head % MLW_ALIGN == 0)
        p->cached_head = head;
}

static inline int has_room(mlw_producer *p, uint64_t need)
{
    if (likely(need <= p->capacity - (p->tail - p->cached_head)))
        return 1;
    refresh_head(p);
    return need <= p->capacity - (p->tail - p->cached_head);
}

/* For a record of the current shape. */
static inline int claim(mlw_producer *p, struct mlw_claim *c)
{
    uint64_t rest_of_lap = p->capacity - (p->tail & (p->capacity - 1));
    c->padding = unlikely(p->shape.len > rest_of_lap) ? rest_of_lap : 0;
    c->pos = p->tail + c->padding;
    if (likely(has_room(p, c->padding + p->shape.len)))
        return 0;
    drop_record(p, MLW_DROP_FULL, p->shape.rows);
    return -EAGAIN;
}

static inline unsigned char *record_at(const mlw_producer *p, uint64_t pos)
{
    return p->data + (pos & (p->capacity - 1));
}

/* As words held in registers, stored once: fields stored one by one and read back for the checksum cost 20 ns. */
static inline void write_header(const mlw_producer *p, const uint64_t start[2], uint32_t start_crc, uint64_t pos, uint64_t ts_ns, uint32_t rows)
{
    uint64_t seq = p->next_seq, *to = (uint64_t *)record_at(p, pos);
    uint64_t crc = mlw_crc32c_header_end(p->crc_instruction, start_crc, pos, seq, ts_ns, rows);
    to[0] = start[0];
    to[1] = start[1];
    to[2] = pos;
    to[3] = seq;
    to[4] = ts_ns;
    to[5] = rows;
    to[6] = 0;
    to[7] = crc << 32;
}

static __attribute__((noinline)) void write_padding(const mlw_producer *p, uint64_t len)
{
    const uint64_t start[2] = {MLW_RECORD_MAGIC | (uint64_t)MLW_KIND_PADDING << 32, len};
    write_header(p, start, mlw_crc32c_header_start(start), p->tail, 0, 0);
}

static inline void publish(mlw_producer *p, const struct mlw_claim *c)
{
    const struct mlw_shape *s = &p->shape;
    struct mlw_producer_page *shared = page(p);
    if (unlikely(c->padding))
        write_padding(p, c->padding);
    write_header(p, s->header, s->header_crc, c->pos, c->timestamp_ns, s->rows);
    p->next_seq++;
    p->tail = c->pos + s->len;
    /* Before tail: a kill between the two counts a record that nobody sees, and its gap in seq says so. */
    bump(&shared->records, 1);
    bump(&shared->rows, s->rows);
    bump(&shared->bytes, s->len);
    atomic_store_explicit(&shared->next_seq, p->next_seq, memory_order_relaxed);
    atomic_store_explicit(&shared->heartbeat_ns, c->timestamp_ns, memory_order_relaxed);
    /* Pairs with the consumer's acquire load of tail: from here on the record is whole and belongs to it. */
    atomic_store_explicit(&shared->tail, p->tail, memory_order_release);
}

/* ---- write: claim, copy, publish ---- */

/* A few rows are a few vectors, for which a call costs as much as the copy. The end may be written twice. */
static inline void copy(unsigned char *to, const unsigned char *from, uint64_t len)
{
    if (len < 16 || len > 256) {
        memcpy(to, from, len);
        return;
    }
    for (uint64_t i = 0; i < len - 16; i += 16)
        memcpy(to + i, from + i, 16);
    memcpy(to + len - 16, from + len - 16, 16);
}

static __attribute__((noinline)) void copy_apart(unsigned char *to, const unsigned char *from, ptrdiff_t stride, uint64_t row_bytes, uint32_t rows)
{
    for (uint32_t r = 0; r < rows; r++, to += row_bytes, from += stride)
        memcpy(to, from, row_bytes);
}

static inline void copy_section(const mlw_producer *p, unsigned char *record, int i, const void *first, ptrdiff_t stride, uint64_t first_row)
{
    const struct mlw_shape *s = &p->shape;
    if (!(s->sections >> i & 1))
        return;
    uint64_t row_bytes = p->row_bytes[i];
    int packed = stride == 0 || (uint64_t)stride == row_bytes;
    const unsigned char *from = (const unsigned char *)first + (ptrdiff_t)first_row * (packed ? (ptrdiff_t)row_bytes : stride);
    if (likely(packed))
        copy(record + s->at[i], from, s->rows * row_bytes);
    else
        copy_apart(record + s->at[i], from, stride, row_bytes, s->rows);
}

enum { AT_PROBA, AT_FEATURES, AT_LABELS, AT_LABEL_SETS, AT_TARGETS, AT_IDS, AT_SEGMENTS };
static_assert(MLW_PROBA == 1 << AT_PROBA && MLW_SEGMENTS == 1 << AT_SEGMENTS, "bits and places of the sections are the same");

static __attribute__((noinline)) void copy_others(const mlw_producer *p, unsigned char *record, const mlw_batch *b, uint64_t first_row)
{
    copy_section(p, record, AT_LABELS, b->labels, b->labels_stride, first_row);
    copy_section(p, record, AT_LABEL_SETS, b->label_sets, b->label_sets_stride, first_row);
    copy_section(p, record, AT_TARGETS, b->targets, b->targets_stride, first_row);
    copy_section(p, record, AT_IDS, b->ids, b->ids_stride, first_row);
    if (p->shape.sections >> AT_SEGMENTS) /* or the batch may end before them */
        copy_section(p, record, AT_SEGMENTS, b->segments, b->segments_stride, first_row);
}

static inline int write_record(mlw_producer *p, const mlw_batch *b, uint64_t first_row)
{
    struct mlw_claim c;
    int err = claim(p, &c);
    if (unlikely(err))
        return err;
    c.timestamp_ns = likely(b->timestamp_ns) ? b->timestamp_ns : mlw_now_ns();
    unsigned char *record = record_at(p, c.pos);
    copy_section(p, record, AT_PROBA, b->proba, b->proba_stride, first_row);
    copy_section(p, record, AT_FEATURES, b->features, b->features_stride, first_row);
    if (p->shape.sections >> AT_LABELS)
        copy_others(p, record, b, first_row);
    publish(p, &c);
    return 0;
}

/* A caller of before there were segments has a batch without. */
enum { LEAST_BATCH = offsetof(mlw_batch, segments), LEAST_RESERVATION = offsetof(mlw_reservation, segments) };

static inline uint32_t sections_of(const mlw_batch *b)
{
    uint32_t segments = b->size >= sizeof *b && b->segments != NULL;
    return (uint32_t)(b->proba != NULL) << AT_PROBA | (uint32_t)(b->features != NULL) << AT_FEATURES | (uint32_t)(b->labels != NULL) << AT_LABELS |
           (uint32_t)(b->label_sets != NULL) << AT_LABEL_SETS | (uint32_t)(b->targets != NULL) << AT_TARGETS | (uint32_t)(b->ids != NULL) << AT_IDS |
           segments << AT_SEGMENTS;
}

static int ready(mlw_producer *p, uint64_t rows)
{
    if (unlikely(p->data == NULL) && mlw_attach_again(p) != 0) {
        count_drop(p, MLW_DROP_DETACHED, rows);
        return -ENOTCONN;
    }
    return 0;
}

/* Of any shape: the first of its kind, longer than a record, malformed, or without a ring to go to. */
static __attribute__((noinline)) int write_any(mlw_producer *p, const mlw_batch *b, uint32_t sections)
{
    int result = ready(p, b->rows);
    if (result)
        return result;
    uint32_t most = p->record_rows[sections];
    if (most == 0) {
        count_drop(p, MLW_DROP_REJECTED, b->rows);
        return -EINVAL;
    }
    for (uint64_t row = 0; row < b->rows; row += p->shape.rows) {
        uint32_t rows = b->rows - row < most ? (uint32_t)(b->rows - row) : most;
        if (!has_shape(p, rows, sections))
            learn_shape(p, rows, sections);
        int err = write_record(p, b, row);
        result = err ? err : result;
    }
    return result;
}

int mlw_write(mlw_producer *p, const mlw_batch *batch)
{
    if (p == NULL || batch == NULL || batch->size < LEAST_BATCH)
        return -EINVAL;
    if (batch->rows == 0)
        return 0;
    int err = enter(p, batch->rows);
    if (err)
        return err;
    uint32_t sections = sections_of(batch);
    err = likely(has_shape(p, batch->rows, sections)) ? write_record(p, batch, 0) : write_any(p, batch, sections);
    leave(p);
    return err;
}

/* ---- reserve, commit, discard: `busy` is held in between ---- */

static __attribute__((noinline)) int reserve_any(mlw_producer *p, const mlw_reservation *r)
{
    int err = ready(p, r->rows);
    if (err)
        return err;
    uint32_t most = r->sections < MLW_SECTION_SETS ? p->record_rows[r->sections] : 0;
    if (most == 0 || r->rows == 0) {
        count_drop(p, MLW_DROP_REJECTED, r->rows);
        return -EINVAL;
    }
    if (r->rows > most) {
        drop_record(p, MLW_DROP_TOO_LARGE, r->rows);
        return -EMSGSIZE;
    }
    learn_shape(p, r->rows, r->sections);
    return 0;
}

static inline void *section(const mlw_producer *p, int i)
{
    return p->shape.sections >> i & 1 ? record_at(p, p->claim.pos) + p->shape.at[i] : NULL;
}

static inline void hand_out(mlw_producer *p, mlw_reservation *r)
{
    p->claim.timestamp_ns = r->timestamp_ns ? r->timestamp_ns : mlw_now_ns();
    r->proba = section(p, AT_PROBA);
    r->features = section(p, AT_FEATURES);
    r->labels = section(p, AT_LABELS);
    r->label_sets = section(p, AT_LABEL_SETS);
    r->targets = section(p, AT_TARGETS);
    r->ids = section(p, AT_IDS);
    if (likely(r->size >= sizeof *r))
        r->segments = section(p, AT_SEGMENTS);
    p->reserved = 1;
}

int mlw_reserve(mlw_producer *p, mlw_reservation *r)
{
    if (p == NULL || r == NULL || r->size < LEAST_RESERVATION || (r->sections >> AT_SEGMENTS != 0 && r->size < sizeof *r))
        return -EINVAL;
    int err = enter(p, r->rows);
    if (err)
        return err;
    if (unlikely(r->rows == 0 || !has_shape(p, r->rows, r->sections)))
        err = reserve_any(p, r);
    if (likely(err == 0))
        err = claim(p, &p->claim);
    if (likely(err == 0))
        hand_out(p, r);
    else
        leave(p);
    return err;
}

static inline int finish(mlw_producer *p, int visible)
{
    if (p == NULL || !p->reserved)
        return -EINVAL;
    p->reserved = 0;
    if (visible)
        publish(p, &p->claim);
    leave(p);
    return 0;
}

int mlw_commit(mlw_producer *p)
{
    return finish(p, 1);
}

int mlw_discard(mlw_producer *p)
{
    return finish(p, 0);
}

/* ---- counting ---- */

uint32_t mlw_record_rows(const mlw_producer *p, uint32_t sections)
{
    return p != NULL && sections < MLW_SECTION_SETS ? p->record_rows[sections] : 0;
}

void mlw_reject(mlw_producer *p, uint64_t rows)
{
    if (p == NULL || enter(p, rows) != 0)
        return;
    count_drop(p, MLW_DROP_REJECTED, rows);
    leave(p);
}

int mlw_counters(const mlw_producer *p, mlw_counts *out)
{
    if (p == NULL || out == NULL || out->size < sizeof *out)
        return -EINVAL;
    struct mlw_producer_page *shared = page(p);
    mlw_counts c = {.size = out->size};
    c.records = atomic_load_explicit(&shared->records, memory_order_relaxed);
    c.rows = atomic_load_explicit(&shared->rows, memory_order_relaxed);
    c.bytes = atomic_load_explicit(&shared->bytes, memory_order_relaxed);
    uint64_t *records[] = {&c.full_records, &c.too_large_records, &c.contended_records, &c.rejected_records, &c.detached_records};
    uint64_t *rows[] = {&c.full_rows, &c.too_large_rows, &c.contended_rows, &c.rejected_rows, &c.detached_rows};
    for (int i = 0; i <= MLW_DROP_DETACHED; i++) {
        *records[i] = atomic_load_explicit(&shared->dropped_records[i], memory_order_relaxed);
        *rows[i] = atomic_load_explicit(&shared->dropped_rows[i], memory_order_relaxed);
        c.dropped_records += *records[i];
        c.dropped_rows += *rows[i];
    }
    *out = c;
    return 0;
}

const char *mlw_strerror(int err)
{
    switch (err < 0 ? -err : err) {
    case 0: return "all rows are in the ring";
    case EAGAIN: return "the ring is full: rows dropped and counted; is the sidecar running?";
    case EMSGSIZE: return "more rows than one record holds: dropped and counted; see mlw_record_rows, or raise ring_bytes";
    case EBUSY: return "the handle is in use by another thread or an open reservation: rows dropped and counted; open one handle per thread";
    case EINVAL: return "malformed: wrong size field, sections that the schema does not have, or no rows; nothing was written";
    case ENOTCONN: return "no ring: after a fork none could be opened; rows dropped and counted, the next attempt follows within a second";
    case ENOSPC: return "the file system of the ring directory is too small for the ring; raise /dev/shm or lower ring_bytes";
    case EACCES: return "no permission for the ring directory or file; producer and sidecar need a common group";
    case EMEDIUMTYPE: return "the ring directory is not in memory (tmpfs); mount one there, or allow disks with MLW_ALLOW_DISK";
    case EUSERS: return "all 64 slots of the stream are in use; close producers or use another version or directory";
    case ENOENT: return "the ring directory's parent does not exist";
    case ENOMEM: return "out of memory";
    default: return "the system refused; the value is a negative errno";
    }
}
