/* What the sources share: the handle, and what each room does for the next.
 *
 * ring.c is hot; recipe.c (options), private.c and segment.c (files) and producer.c (handles) are cold.
 */
#ifndef MLW_PRODUCER_H
#define MLW_PRODUCER_H

#include <limits.h>
#include <mlwatch.h>
#include <stdatomic.h>
#include <stdint.h>

#include "crc32c.h"
#include "wire.h"

enum { MLW_SECTIONS = 7, MLW_SECTION_SETS = 1 << MLW_SECTIONS };

/* Where a failure is explained: options->error. */
struct mlw_why {
    char *text;
    size_t size;
};

/* Everything needed to attach, and to attach again after a fork. */
struct mlw_recipe {
    char *dir;
    char *stream;
    unsigned char *schema;
    uint32_t schema_len;
    uint32_t flags;
    uint64_t feat_incompat;
    uint64_t capacity;
};

/* How records of so many rows with these sections look: worked out when it changes, which for most loops is once. */
struct mlw_shape {
    uint32_t rows; /* 0 = none yet */
    uint32_t sections;
    uint64_t len;              /* of the record, header included */
    uint64_t header[2];        /* the header's first words */
    uint32_t header_crc;       /* of these */
    uint32_t at[MLW_SECTIONS]; /* where each section begins, from the record's start */
};

/* A place in the ring for a record of the current shape, not yet visible. */
struct mlw_claim {
    uint64_t pos;
    uint64_t padding; /* in front of it, up to the end of the lap */
    uint64_t timestamp_ns;
};

struct mlw_producer {
    /* Hot. `busy` guards all of it; `page` is atomic because a contended call counts itself without holding `busy`. */
    _Atomic uint32_t busy;
    int reserved;                     /* a reservation is open */
    unsigned char *data;              /* NULL = detached: no ring, because of a fork */
    struct mlw_producer_page *_Atomic page; /* the ring's, or `own_page` while detached */
    const struct mlw_consumer_page *consumer;
    uint64_t capacity;
    uint64_t tail;        /* equals page->tail: nobody else writes it */
    uint64_t cached_head; /* some head the consumer has published; never ahead of it */
    uint64_t next_seq;
    int crc_instruction; /* the CPU computes CRC-32C */
    struct mlw_shape shape; /* none while detached */
    struct mlw_claim claim; /* of the open reservation */
    uint64_t max_record;
    uint64_t row_bytes[MLW_SECTIONS];        /* 0 = the schema has no such section */
    uint32_t record_rows[MLW_SECTION_SETS];  /* by sections; 0 = not a valid combination */

    /* Cold. */
    struct mlw_producer_page own_page;
    struct mlw_recipe recipe;
    uint64_t retry_ns; /* while detached: do not try to attach before this, by the clock that nobody sets */
    int fd;
    unsigned char *map;
    size_t map_len;
    char *path;
    struct mlw_producer *next; /* in the process's list of handles */
};

static inline uint64_t mlw_align_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) & ~(to - 1);
}

/* A ring file, mapped and locked. */
struct mlw_segment {
    int fd;
    unsigned char *map;
    size_t len;
    uint64_t producer_off, consumer_off, data_off;
};

/* Explains, and returns -err. */
__attribute__((format(printf, 3, 4))) int mlw_fail(const struct mlw_why *why, int err, const char *format, ...);

/* Checks and copies the options, and derives the shapes of records. */
int mlw_make_recipe(mlw_producer *p, const mlw_options *o, const struct mlw_why *why);
void mlw_free_recipe(struct mlw_recipe *recipe);

/* Makes an empty file beside `ring`, to be locked at once. The descriptor, or -1 and errno; `name` receives what it is called. */
int mlw_create_private(int dir, const char *ring, char name[NAME_MAX]);
/* Removes the files that killed makers of this stream's rings have left. */
void mlw_sweep_private(int dir, const char *stream);

int mlw_lock_as_producer(int fd);
/* Takes the first slot to be had: a sound ring of the same recipe, or a new one. */
int mlw_take_segment(struct mlw_segment *f, const struct mlw_recipe *recipe, unsigned *slot, const struct mlw_why *why);
void mlw_let_go(struct mlw_segment *f);
int mlw_sound_positions(uint64_t head, uint64_t tail, uint64_t capacity);

/* The end of the payload; `at` receives the sections' offsets. */
uint64_t mlw_place_sections(const mlw_producer *p, uint64_t rows, uint32_t sections, uint64_t at[MLW_SECTIONS]);

/* Gives a detached handle a ring of its own. 0, or why not; never tries more than once a second. */
int mlw_attach_again(mlw_producer *p);

uint64_t mlw_now_ns(void);

#endif
