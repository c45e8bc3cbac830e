/* mlwatch: one call in the inference loop. C11 and C++17.
 *
 *     mlw_options options = mlw_options_init();
 *     options.model = "digits";
 *     options.n_classes = 10;
 *     mlw_producer *p = NULL;
 *     if (mlw_open(&options, &p) != 0)                // may allocate and call the system
 *         ...                                         // say so and serve on: calls with NULL do nothing
 *     mlw_batch batch = mlw_batch_init();
 *     batch.rows = 128;
 *     batch.proba = proba;                            // 128 x 10 float
 *     mlw_write(p, &batch);                           // copies; never blocks, allocates or calls the system
 *     ...
 *     mlw_close(p);
 *
 * Functions return 0 or a negative errno (-EINVAL for a NULL handle); they never print, abort or block. A batch that does not fit is dropped and counted.
 * A handle serves one thread at a time: a call that finds it in use drops its batch as "contended".
 * After fork() the parent keeps its ring; the child's first call opens one of its own.
 */
#ifndef MLWATCH_H
#define MLWATCH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MLW_VERSION "0.1.0"

typedef struct mlw_producer mlw_producer;

enum { MLW_F16 = 1, MLW_BF16 = 2, MLW_F32 = 3, MLW_F64 = 4 };
enum { MLW_CLASSIFICATION = 1, MLW_REGRESSION = 2 };
/* Consecutive features of kind MLW_EMBEDDING whose names differ in their number only (e_0, e_1; e[0], e[1]) are one vector. */
enum { MLW_NUMERICAL = 0, MLW_CATEGORICAL = 1, MLW_EMBEDDING = 2 };

/* Which sections a reservation has. */
enum {
    MLW_PROBA = 1u << 0,      /* rows x n_classes, proba_dtype */
    MLW_FEATURES = 1u << 1,   /* rows x n_features, feature_dtype */
    MLW_LABELS = 1u << 2,     /* rows x int32_t: class index, -1 = no label */
    MLW_LABEL_SETS = 1u << 3, /* rows x n_classes x uint8_t: one-hot or multi-label */
    MLW_TARGETS = 1u << 4,    /* rows x n_classes x double: regression; NaN = not known */
    MLW_IDS = 1u << 5,        /* rows x uint64_t */
    MLW_SEGMENTS = 1u << 6    /* rows x uint16_t; with MLW_SEGMENT_BY_ROW only */
};

/* options.flags */
enum { MLW_ALLOW_DISK = 1u << 0 }; /* accept a ring directory that is not in memory */

/* options.segment_by: every batch may carry segments. */
#define MLW_SEGMENT_BY_ROW UINT32_MAX

/* Structs grow at their end; a caller that knows less of one says so by its size. */
typedef struct mlw_options {
    size_t size;                      /* sizeof(mlw_options), set by mlw_options_init */
    const char *model;                /* required; strings are UTF-8, 255 bytes at most, and copied */
    const char *version;              /* default "" */
    const char *instance;             /* default: the host's name */
    uint32_t task;                    /* default MLW_CLASSIFICATION */
    uint32_t flags;
    uint32_t n_classes;               /* columns of proba; with MLW_REGRESSION the number of outputs */
    uint32_t n_features;              /* columns of features */
    uint32_t proba_dtype;             /* default MLW_F32 */
    uint32_t feature_dtype;           /* default MLW_F32 */
    const char *const *class_names;   /* n_classes names, or NULL for class_0, class_1, ... */
    const char *const *feature_names; /* n_features names, or NULL for feat_0, feat_1, ... */
    const uint8_t *feature_kinds;     /* n_features of MLW_NUMERICAL, ..., or NULL: all are numerical */
    double threshold;                 /* two classes: class 1 when p1 > threshold; default 0.5 */
    uint64_t period_ns;               /* a wish for the reporting period; 0 = none */
    uint64_t reservoir_rows;          /* a wish for the sample size; 0 = none */
    const char *dir;                  /* default $MLWATCH_DIR, else /dev/shm/mlwatch */
    uint64_t ring_bytes;              /* default 8 MiB; rounded up to a power of two */
    char *error;                      /* where mlw_open explains a failure in full, or NULL */
    size_t error_size;
    uint32_t segment_by;              /* whose statistics are kept apart: 0 = none; i + 1 = by the code of categorical feature i; MLW_SEGMENT_BY_ROW */
    uint32_t reserved;                /* 0 */
} mlw_options;

typedef struct mlw_batch {
    size_t size;                 /* sizeof(mlw_batch), set by mlw_batch_init */
    uint32_t rows;
    uint32_t reserved;           /* 0 */
    uint64_t timestamp_ns;       /* Unix time; 0 = now (coarse clock, a few ms) */
    const void *proba;           /* NULL = not in this batch; the same for every section below */
    ptrdiff_t proba_stride;      /* bytes from row to row; 0 = packed; the same below */
    const void *features;
    ptrdiff_t features_stride;
    const int32_t *labels;       /* class index, -1 = no label */
    ptrdiff_t labels_stride;
    const uint8_t *label_sets;   /* n_classes flags a row; not together with labels */
    ptrdiff_t label_sets_stride;
    const double *targets;       /* n_classes values a row; regression only */
    ptrdiff_t targets_stride;
    const uint64_t *ids;
    ptrdiff_t ids_stride;
    const uint16_t *segments;    /* a number per row that says whom it is about: country, customer tier */
    ptrdiff_t segments_stride;
} mlw_batch;

/* A place in the ring for one record: fill the sections, then commit. */
typedef struct mlw_reservation {
    size_t size;           /* sizeof(mlw_reservation), set by mlw_reservation_init */
    uint32_t rows;
    uint32_t sections;     /* MLW_PROBA | ... */
    uint64_t timestamp_ns; /* Unix time; 0 = now */
    void *proba;           /* set by mlw_reserve: 64-byte aligned, row-major, packed */
    void *features;
    int32_t *labels;
    uint8_t *label_sets;
    double *targets;
    uint64_t *ids;
    uint16_t *segments;
} mlw_reservation;

/* Since the ring was made, over every process that has used it. dropped_* = the sum of the reasons. */
typedef struct mlw_counts {
    size_t size; /* sizeof(mlw_counts), set by mlw_counts_init */
    uint64_t records, rows, bytes;
    uint64_t dropped_records, dropped_rows;
    uint64_t full_records, full_rows;
    uint64_t too_large_records, too_large_rows;
    uint64_t contended_records, contended_rows;
    uint64_t rejected_records, rejected_rows;
    uint64_t detached_records, detached_rows;
} mlw_counts;

/* Initialisers and not memset, which some compilers turn into a slow string instruction. */
static inline mlw_options mlw_options_init(void)
{
    mlw_options o = {sizeof(mlw_options), NULL, NULL, NULL, MLW_CLASSIFICATION, 0, 0, 0, MLW_F32, MLW_F32, NULL, NULL, NULL, 0.5, 0, 0, NULL, 0, NULL, 0, 0, 0};
    return o;
}

static inline mlw_batch mlw_batch_init(void)
{
    mlw_batch b = {sizeof(mlw_batch), 0, 0, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0};
    return b;
}

static inline mlw_reservation mlw_reservation_init(void)
{
    mlw_reservation r = {sizeof(mlw_reservation), 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL};
    return r;
}

static inline mlw_counts mlw_counts_init(void)
{
    mlw_counts c = {sizeof(mlw_counts), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    return c;
}

/* Continues a ring that an earlier process of the stream has left, or makes one. *out is written on success only.
 * -EINVAL options; -ENOSPC the file system is too small for the ring; -EACCES; -EMEDIUMTYPE the directory is not in memory;
 * -EUSERS all 64 slots of the stream are in use. */
int mlw_open(const mlw_options *options, mlw_producer **out);

/* Copies a batch into the ring. A batch longer than a record becomes several records, each taken or dropped on its own.
 * 0 all rows are in the ring; -EAGAIN ring full; -EBUSY handle in use; -EINVAL malformed; -ENOTCONN no ring after a fork.
 * Not 0 means that at least one row was dropped, and counted. */
int mlw_write(mlw_producer *p, const mlw_batch *batch);

/* Most rows with these sections that one record holds. */
uint32_t mlw_record_rows(const mlw_producer *p, uint32_t sections);

/* Reserve, fill, commit: the model writes straight into the ring. Between reserve and commit or discard the handle is in use.
 * -EMSGSIZE more rows than mlw_record_rows; otherwise as mlw_write. */
int mlw_reserve(mlw_producer *p, mlw_reservation *r);
int mlw_commit(mlw_producer *p);
int mlw_discard(mlw_producer *p);

/* Counts rows that the caller could not turn into a batch, as rejected; as contended if the handle is in use. */
void mlw_reject(mlw_producer *p, uint64_t rows);

int mlw_counters(const mlw_producer *p, mlw_counts *out);

/* The ring file's path; valid until mlw_close. In a forked child it changes with the first call that opens its ring. */
const char *mlw_path(const mlw_producer *p);

/* Leaves the ring to the sidecar, which drains it. NULL is fine. */
void mlw_close(mlw_producer *p);

/* A short text for a value returned by the functions above; never NULL. */
const char *mlw_strerror(int err);

#ifdef __cplusplus
}
#endif
#endif
