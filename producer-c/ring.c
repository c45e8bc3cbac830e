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

/* ---- claim, publish ---- */

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

/* A forged head must not make us overwrite what the consumer may still read: believe only heads between the last one and our tail. */
static void refresh_head(mlw_producer *p)
{
    /* Pairs with the consumer's release store of head: its reads of the record are over. */
    uint64_t head = atomic_load_explicit(&p->consumer->head, memory_order_acquire);
    if (head - p->cached_head <= p->tail - p->cached_head && head % MLW_ALIGN == 0)
        p->cached_head = head;
}

static int has_room(mlw_producer *p, uint64_t need)
{
    if (need <= p->capacity - (p->tail - p->cached_head))
        return 1;
    refresh_head(p);
    return need <= p->capacity - (p->tail - p->cached_head);
}

/* `rows` is in 1..=record_rows[sections]: the caller has checked. */
static int claim(mlw_producer *p, uint32_t rows, uint32_t sections, uint64_t timestamp_ns)
{
    struct mlw_claim *c = &p->claim;
    uint64_t len = sizeof(struct mlw_record) + mlw_place_sections(p, rows, sections, c->at);
    uint64_t rest_of_lap = p->capacity - (p->tail & (p->capacity - 1));
    uint64_t padding = len <= rest_of_lap ? 0 : rest_of_lap;
    if (unlikely(!has_room(p, padding + len))) {
        drop_record(p, MLW_DROP_FULL, rows);
        return -EAGAIN;
    }
    c->padding = padding;
    c->pos = p->tail + padding;
    c->len = len;
    c->timestamp_ns = timestamp_ns ? timestamp_ns : mlw_now_ns();
    c->rows = rows;
    c->sections = sections;
    return 0;
}

static unsigned char *payload(const mlw_producer *p)
{
    return p->data + (p->claim.pos & (p->capacity - 1)) + sizeof(struct mlw_record);
}

/* As words held in registers, stored once: fields stored one by one and read back for the checksum cost 20 ns. */
static void write_header(const mlw_producer *p, struct mlw_record r)
{
    uint64_t w[8] = {
        MLW_RECORD_MAGIC | (uint64_t)r.kind << 32 | (uint64_t)r.sections << 48,
        r.rec_len | (uint64_t)r.payload_len << 32,
        r.pos,
        r.seq,
        r.ts_ns,
        r.rows,
    };
    w[7] = (uint64_t)mlw_crc32c_header(p->crc_instruction, w) << 32;
    uint64_t *to = (uint64_t *)(p->data + (r.pos & (p->capacity - 1)));
    for (int i = 0; i < 8; i++)
        to[i] = w[i];
}

static void publish(mlw_producer *p)
{
    struct mlw_claim *c = &p->claim;
    struct mlw_producer_page *shared = page(p);
    if (unlikely(c->padding))
        write_header(p, (struct mlw_record){.kind = MLW_KIND_PADDING, .rec_len = (uint32_t)c->padding, .pos = p->tail, .seq = p->next_seq});
    write_header(p, (struct mlw_record){
        .kind = MLW_KIND_DATA,
        .sections = (uint16_t)c->sections,
        .rec_len = (uint32_t)c->len,
        .payload_len = (uint32_t)(c->len - sizeof(struct mlw_record)),
        .pos = c->pos,
        .seq = p->next_seq,
        .ts_ns = c->timestamp_ns,
        .rows = c->rows,
    });
    p->next_seq++;
    p->tail = c->pos + c->len;
    /* Before tail: a kill between the two counts a record that nobody sees, and its gap in seq says so. */
    bump(&shared->records, 1);
    bump(&shared->rows, c->rows);
    bump(&shared->bytes, c->len);
    atomic_store_explicit(&shared->next_seq, p->next_seq, memory_order_relaxed);
    atomic_store_explicit(&shared->heartbeat_ns, c->timestamp_ns, memory_order_relaxed);
    /* Pairs with the consumer's acquire load of tail: from here on the record is whole and belongs to it. */
    atomic_store_explicit(&shared->tail, p->tail, memory_order_release);
    c->len = 0;
}

/* ---- write: claim, copy, publish ---- */

static void copy_rows(unsigned char *to, const unsigned char *from, ptrdiff_t stride, uint64_t row_bytes, uint32_t rows)
{
    if ((uint64_t)stride == row_bytes) {
        memcpy(to, from, rows * row_bytes);
        return;
    }
    for (uint32_t r = 0; r < rows; r++, to += row_bytes, from += stride)
        memcpy(to, from, row_bytes);
}

static uint32_t sections_of(const mlw_batch *b)
{
    return (b->proba ? MLW_PROBA : 0u) | (b->features ? MLW_FEATURES : 0u) | (b->labels ? MLW_LABELS : 0u) |
           (b->label_sets ? MLW_LABEL_SETS : 0u) | (b->targets ? MLW_TARGETS : 0u) | (b->ids ? MLW_IDS : 0u);
}

static void copy_section(mlw_producer *p, uint32_t bit, const void *first, ptrdiff_t stride, uint64_t first_row)
{
    const struct mlw_claim *c = &p->claim;
    if (!(c->sections & bit))
        return;
    int i = __builtin_ctz(bit);
    if (stride == 0)
        stride = (ptrdiff_t)p->row_bytes[i];
    const unsigned char *from = (const unsigned char *)first + (ptrdiff_t)first_row * stride;
    copy_rows(payload(p) + c->at[i], from, stride, p->row_bytes[i], c->rows);
}

static void copy_sections(mlw_producer *p, const mlw_batch *b, uint64_t first_row)
{
    copy_section(p, MLW_PROBA, b->proba, b->proba_stride, first_row);
    copy_section(p, MLW_FEATURES, b->features, b->features_stride, first_row);
    copy_section(p, MLW_LABELS, b->labels, b->labels_stride, first_row);
    copy_section(p, MLW_LABEL_SETS, b->label_sets, b->label_sets_stride, first_row);
    copy_section(p, MLW_TARGETS, b->targets, b->targets_stride, first_row);
    copy_section(p, MLW_IDS, b->ids, b->ids_stride, first_row);
}

static int write_rows(mlw_producer *p, const mlw_batch *b)
{
    uint32_t sections = sections_of(b);
    uint32_t most = p->record_rows[sections];
    if (unlikely(most == 0)) {
        count_drop(p, MLW_DROP_REJECTED, b->rows);
        return -EINVAL;
    }
    int result = 0;
    uint64_t row = 0;
    do {
        uint32_t rows = b->rows - row < most ? (uint32_t)(b->rows - row) : most;
        int err = claim(p, rows, sections, b->timestamp_ns);
        if (err == 0) {
            copy_sections(p, b, row);
            publish(p);
        } else {
            result = err;
        }
        row += rows;
    } while (unlikely(row < b->rows));
    return result;
}

static int ready(mlw_producer *p, uint64_t rows)
{
    if (unlikely(p->data == NULL) && mlw_attach_again(p, mlw_now_ns()) != 0) {
        count_drop(p, MLW_DROP_DETACHED, rows);
        return -ENOTCONN;
    }
    return 0;
}

int mlw_write(mlw_producer *p, const mlw_batch *batch)
{
    if (p == NULL || batch == NULL || batch->size < sizeof *batch)
        return -EINVAL;
    if (batch->rows == 0)
        return 0;
    int err = enter(p, batch->rows);
    if (err)
        return err;
    err = ready(p, batch->rows);
    if (err == 0)
        err = write_rows(p, batch);
    leave(p);
    return err;
}

/* ---- reserve, commit, discard: `busy` is held in between ---- */

static int reserve_rows(mlw_producer *p, mlw_reservation *r)
{
    uint32_t most = r->sections < MLW_SECTION_SETS ? p->record_rows[r->sections] : 0;
    if (most == 0 || r->rows == 0) {
        count_drop(p, MLW_DROP_REJECTED, r->rows);
        return -EINVAL;
    }
    if (r->rows > most) {
        drop_record(p, MLW_DROP_TOO_LARGE, r->rows);
        return -EMSGSIZE;
    }
    return claim(p, r->rows, r->sections, r->timestamp_ns);
}

static void *section(const mlw_producer *p, uint32_t bit)
{
    return p->claim.sections & bit ? payload(p) + p->claim.at[__builtin_ctz(bit)] : NULL;
}

int mlw_reserve(mlw_producer *p, mlw_reservation *r)
{
    if (p == NULL || r == NULL || r->size < sizeof *r)
        return -EINVAL;
    int err = enter(p, r->rows);
    if (err)
        return err;
    err = ready(p, r->rows);
    if (err == 0)
        err = reserve_rows(p, r);
    if (err) {
        leave(p);
        return err;
    }
    r->proba = section(p, MLW_PROBA);
    r->features = section(p, MLW_FEATURES);
    r->labels = section(p, MLW_LABELS);
    r->label_sets = section(p, MLW_LABEL_SETS);
    r->targets = section(p, MLW_TARGETS);
    r->ids = section(p, MLW_IDS);
    p->reserved = 1;
    return 0;
}

static int finish(mlw_producer *p, int visible)
{
    if (p == NULL || !p->reserved)
        return -EINVAL;
    p->reserved = 0;
    if (visible)
        publish(p);
    p->claim.len = 0;
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
