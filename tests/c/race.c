/* Two threads on one mapping: the producer against a consumer written from docs/wire-format.md. Under ThreadSanitizer, which sees no
 * further than one process, this proves the orderings that the sidecar's consumer pairs with (I3 of the protocol).
 *
 *     race DIR
 *
 * The consumer lets the ring run full, drains it, follows the producer closely for a while, and begins again. Every value follows from
 * its record's seq. At the end the books must balance: produced = consumed + dropped, and the gaps in seq are the drops.
 */
#include <errno.h>
#include <mlwatch.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../producer-c/producer.h"

enum { FEATURES = 6, MOST_ROWS = 48, LAPS = 10000, EMPTY_LOOKS = 20 };

#define CHECK(condition)                                                  \
    do {                                                                  \
        if (!(condition)) {                                               \
            printf("FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                      \
        }                                                                 \
    } while (0)

/* What the threads tell each other beside the ring. Relaxed: no order between other stores may come from here. */
static _Atomic uint64_t drops_so_far;
static _Atomic int enough;

/* ---- the producer ---- */

static double feature(uint64_t seq, uint64_t row, uint64_t column)
{
    return (double)(seq * 1000 + row * 10 + column);
}

static void fill(double *features, uint64_t *ids, uint64_t seq, uint32_t rows)
{
    for (uint32_t r = 0; r < rows; r++) {
        ids[r] = seq << 8 | r;
        for (uint32_t f = 0; f < FEATURES; f++)
            features[r * FEATURES + f] = feature(seq, r, f);
    }
}

static int write_copied(mlw_producer *p, uint32_t rows)
{
    static double features[MOST_ROWS * FEATURES];
    static uint64_t ids[MOST_ROWS];
    fill(features, ids, p->next_seq, rows);
    mlw_batch b = mlw_batch_init();
    b.rows = rows;
    b.features = features;
    b.ids = ids;
    b.timestamp_ns = 1;
    return mlw_write(p, &b);
}

static int write_in_place(mlw_producer *p, uint32_t rows, int (*finish)(mlw_producer *))
{
    mlw_reservation r = mlw_reservation_init();
    r.rows = rows;
    r.sections = MLW_FEATURES | MLW_IDS;
    r.timestamp_ns = 1;
    int err = mlw_reserve(p, &r);
    if (err)
        return err;
    fill(r.features, r.ids, p->next_seq, rows);
    return finish(p);
}

struct offered {
    uint64_t rows, too_large;
};

/* A reservation to be discarded offers nothing, unless it finds no room: then it is a drop like any other. */
static int discard(mlw_producer *p, uint32_t rows, struct offered *offered)
{
    int err = write_in_place(p, rows, mlw_discard);
    offered->rows += err ? rows : 0;
    return err;
}

static int offer(mlw_producer *p, uint64_t i, struct offered *offered)
{
    uint32_t rows = 1 + (uint32_t)(i * 7 % MOST_ROWS);
    if (i % 11 == 10)
        return discard(p, rows, offered);
    if (i % 101 == 100) {
        rows = mlw_record_rows(p, MLW_FEATURES | MLW_IDS) + 1;
        offered->too_large++;
    }
    offered->rows += rows;
    return i % 2 && rows <= MOST_ROWS ? write_copied(p, rows) : write_in_place(p, rows, mlw_commit);
}

static void *produce(void *argument)
{
    mlw_producer *p = argument;
    struct offered *offered = calloc(1, sizeof *offered);
    for (uint64_t i = 0; !atomic_load_explicit(&enough, memory_order_relaxed); i++) {
        int err = offer(p, i, offered);
        CHECK(err == 0 || err == -EAGAIN || err == -EMSGSIZE);
        if (err == -EAGAIN) {
            atomic_fetch_add_explicit(&drops_so_far, 1, memory_order_relaxed);
            sched_yield();
        }
    }
    return offered;
}

/* ---- the consumer ---- */

struct consumer {
    const struct mlw_producer_page *theirs;
    struct mlw_consumer_page *mine;
    const unsigned char *data;
    uint64_t capacity, head, next_seq, records, rows, missing, paddings;
};

static void check_header(const struct consumer *c, const struct mlw_record *r, uint64_t tail)
{
    CHECK(r->magic == MLW_RECORD_MAGIC && r->pos == c->head && r->crc == mlw_crc32c_table(0, r, offsetof(struct mlw_record, crc)));
    CHECK(r->rec_len >= sizeof *r && r->rec_len % MLW_ALIGN == 0 && r->rec_len <= tail - c->head);
    CHECK((c->head & (c->capacity - 1)) + r->rec_len <= c->capacity);
    CHECK(r->kind == MLW_KIND_DATA || r->kind == MLW_KIND_PADDING);
}

static void read_record(struct consumer *c, const struct mlw_record *r)
{
    const unsigned char *payload = c->data + (c->head & (c->capacity - 1)) + sizeof *r;
    const double *features = (const void *)payload;
    const uint64_t *ids = (const void *)(payload + mlw_align_up(r->rows * FEATURES * sizeof *features, MLW_ALIGN));
    CHECK(r->seq >= c->next_seq && r->sections == (MLW_FEATURES | MLW_IDS) && r->rows >= 1 && r->rows <= MOST_ROWS);
    for (uint32_t row = 0; row < r->rows; row++) {
        CHECK(ids[row] == (r->seq << 8 | row));
        for (uint32_t f = 0; f < FEATURES; f++)
            CHECK(features[row * FEATURES + f] == feature(r->seq, row, f));
    }
    c->missing += r->seq - c->next_seq;
    c->next_seq = r->seq + 1;
    c->records++;
    c->rows += r->rows;
}

/* Pairs with the producer's release store of tail. */
static uint64_t sound_tail(const struct consumer *c)
{
    uint64_t tail = atomic_load_explicit(&c->theirs->tail, memory_order_acquire);
    CHECK(tail - c->head <= c->capacity && tail % MLW_ALIGN == 0);
    return tail;
}

static void wait_until_full(const struct consumer *c)
{
    uint64_t before = atomic_load_explicit(&drops_so_far, memory_order_relaxed);
    while (atomic_load_explicit(&drops_so_far, memory_order_relaxed) == before) {
        sound_tail(c);
        sched_yield();
    }
}

/* Everything that is there, record by record. Whether there was anything. */
static int consume(struct consumer *c)
{
    uint64_t tail = sound_tail(c);
    int found = c->head != tail;
    while (c->head != tail) {
        struct mlw_record r;
        memcpy(&r, c->data + (c->head & (c->capacity - 1)), sizeof r);
        check_header(c, &r, tail);
        if (r.kind == MLW_KIND_DATA)
            read_record(c, &r);
        else
            c->paddings++;
        c->head += r.rec_len;
        /* Pairs with the producer's acquire load of head. */
        atomic_store_explicit(&c->mine->head, c->head, memory_order_release);
    }
    return found;
}

static void follow(struct consumer *c)
{
    for (int empty = 0; empty < EMPTY_LOOKS; empty += !consume(c))
        ;
}

static uint64_t consume_laps(struct consumer *c)
{
    uint64_t turns = 0;
    for (; c->head < LAPS * c->capacity; turns++) {
        wait_until_full(c);
        follow(c);
    }
    atomic_store_explicit(&enough, 1, memory_order_relaxed);
    return turns;
}

/* ---- the books ---- */

static void balance(const mlw_producer *p, const struct consumer *c, const struct offered *offered)
{
    mlw_counts n = mlw_counts_init();
    CHECK(mlw_counters(p, &n) == 0);
    CHECK(n.records == c->records && n.rows == c->rows);
    CHECK(offered->rows == c->rows + n.dropped_rows && offered->too_large == n.too_large_records);
    CHECK(n.full_records + n.too_large_records == n.dropped_records);
    CHECK(p->next_seq == n.records + n.dropped_records);
    CHECK(c->missing + (p->next_seq - c->next_seq) == n.dropped_records);
    CHECK(n.full_records > 0 && n.too_large_records > 0 && c->paddings > 0);
}

static mlw_producer *opened(const char *dir)
{
    mlw_options o = mlw_options_init();
    o.model = "race";
    o.dir = dir;
    o.n_features = FEATURES;
    o.feature_dtype = MLW_F64;
    o.ring_bytes = MLW_MIN_CAPACITY;
    mlw_producer *p = NULL;
    CHECK(mlw_open(&o, &p) == 0);
    return p;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 64;
    alarm(300); /* a hang is a failure */
    mlw_producer *p = opened(argv[1]);
    struct consumer c = {.theirs = atomic_load(&p->page), .mine = (struct mlw_consumer_page *)p->consumer, .data = p->data, .capacity = p->capacity};
    pthread_t producer;
    CHECK(pthread_create(&producer, NULL, produce, p) == 0);
    uint64_t turns = consume_laps(&c);
    void *offered;
    CHECK(pthread_join(producer, &offered) == 0);
    consume(&c);
    balance(p, &c, offered);
    printf("ok     what_is_visible_is_whole_and_what_is_read_is_not_overwritten (%llu records, %d laps, full %llu times, %llu missing)\n",
           (unsigned long long)c.records, LAPS, (unsigned long long)turns, (unsigned long long)c.missing);
    free(offered);
    mlw_close(p);
    return 0;
}
