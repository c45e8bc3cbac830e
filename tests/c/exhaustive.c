/* Every state of a small ring, against the C code itself: what claim() hands out never touches what the consumer may still read.
 *
 *     exhaustive
 *
 * A ring of 8, 16 and 32 units of 64 bytes; every tail offset, every fill, every stale cached head, every head the consumer may have
 * published, forged ones too, every record size. (I1 and I2 of the protocol: reservations never intersect [head, tail); tail only
 * grows, stays aligned, and never runs more than a lap ahead.)
 */
#include "../../producer-c/ring.c"

#include <stdio.h>
#include <stdlib.h>

static uint64_t states, drops, paddings;

int mlw_attach_again(mlw_producer *p)
{
    (void)p;
    return -ENOTCONN;
}

#define CHECK(condition)                                                          \
    do {                                                                          \
        if (!(condition)) {                                                       \
            printf("FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition);         \
            exit(1);                                                              \
        }                                                                         \
    } while (0)

/* Records of one row that take `units`, header included. */
static void set_record_units(mlw_producer *p, uint64_t units)
{
    p->row_bytes[AT_FEATURES] = (units - 1) * MLW_ALIGN;
    learn_shape(p, 1, MLW_FEATURES);
}

/* Marks what the consumer may read, then publishes over the claim, and looks whether a mark is gone. */
static void check_claim(mlw_producer *p, struct mlw_producer_page *shared, uint64_t head, uint64_t units)
{
    unsigned char *data = p->data;
    uint64_t tail = p->tail, seq = p->next_seq, unit = MLW_ALIGN;
    for (uint64_t pos = head; pos != tail; pos += unit)
        data[pos & (p->capacity - 1)] = 0xA5;
    struct mlw_claim c = {.timestamp_ns = 1};
    uint64_t len = p->shape.len;
    int err = claim(p, &c);
    CHECK(err == 0 || err == -EAGAIN);
    if (err == 0) {
        paddings += c.padding != 0;
        CHECK(c.pos % unit == 0 && len == units * unit);
        CHECK((c.pos & (p->capacity - 1)) + len <= p->capacity);
        CHECK(c.pos == tail + c.padding);
        uint64_t end = c.pos + len;
        memset(record_at(p, c.pos) + sizeof(struct mlw_record), 0x5A, len - sizeof(struct mlw_record));
        publish(p, &c);
        CHECK(p->tail == end && atomic_load(&shared->tail) == end);
        CHECK(p->tail > tail && p->tail - head <= p->capacity);
    } else {
        drops++;
        CHECK(p->tail == tail && atomic_load(&shared->tail) == tail);
    }
    CHECK(p->next_seq == seq + 1 && atomic_load(&shared->next_seq) == seq + 1);
    for (uint64_t pos = head; pos != tail; pos += unit)
        CHECK(data[pos & (p->capacity - 1)] == 0xA5);
}

struct state {
    uint64_t tail, head, cached, stored;
};

static void check_state(mlw_producer *p, struct mlw_producer_page *shared, struct mlw_consumer_page *consumer, struct state s, uint64_t units)
{
    p->tail = s.tail;
    p->cached_head = s.cached;
    atomic_store(&shared->tail, s.tail);
    atomic_store(&consumer->head, s.stored);
    set_record_units(p, units);
    check_claim(p, shared, s.head, units);
    CHECK(p->tail - p->cached_head <= p->capacity && p->cached_head >= s.cached && p->cached_head % MLW_ALIGN == 0);
    CHECK(p->cached_head <= s.head || s.stored != s.head); /* only a forged head may be believed beyond the true one */
    states++;
}

/* A record that fits is dropped only if there is no room behind the true head. */
static void check_capacity(uint64_t slots)
{
    const uint64_t unit = MLW_ALIGN, capacity = slots * unit, base = 5 * capacity;
    unsigned char *data = aligned_alloc(MLW_ALIGN, capacity);
    struct mlw_producer_page shared = {0};
    struct mlw_consumer_page consumer = {0};
    mlw_producer p = {.data = data, .page = &shared, .consumer = &consumer, .capacity = capacity, .max_record = capacity / 4};
    for (uint64_t offset = 0; offset < slots; offset++)
        for (uint64_t used = 0; used <= slots; used++)
            for (uint64_t stale = used; stale <= slots; stale++)
                for (uint64_t units = 1; units <= slots / 4; units++) {
                    uint64_t tail = base + offset * unit, head = tail - used * unit, cached = tail - stale * unit;
                    uint64_t before = drops;
                    check_state(&p, &shared, &consumer, (struct state){tail, head, cached, head}, units);
                    uint64_t rest = capacity - (tail & (capacity - 1)), need = units * unit + (units * unit <= rest ? 0 : rest);
                    CHECK((drops > before) == (need > capacity - used * unit));
                    /* Heads that the consumer never published. Those from the true head to tail are its own to give. */
                    const uint64_t forged[] = {0, 1, head + 1, tail + unit, tail + capacity, cached - unit, UINT64_MAX, UINT64_MAX - 63, tail << 1};
                    for (size_t i = 0; i < sizeof forged / sizeof *forged; i++)
                        check_state(&p, &shared, &consumer, (struct state){tail, head, cached, forged[i]}, units);
                }
    free(data);
}

int main(void)
{
    check_capacity(8);
    check_capacity(16);
    check_capacity(32);
    CHECK(states > 1000000 && drops > 0 && paddings > 0);
    printf("ok     no_reservation_touches_what_may_be_read (%llu states, %llu with padding, %llu drops)\n", (unsigned long long)states,
           (unsigned long long)paddings, (unsigned long long)drops);
    puts("1 passed, 0 failed");
    return 0;
}
