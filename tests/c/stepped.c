/* One call into the library between two stops: tests/stepped.rs goes through it instruction by instruction.
 *
 *     stepped DIR SCENE
 *
 * Four records are in the ring when the scene begins; the tracer reads some of them at the first stop. Row number n since the ring was
 * made has the id n and features that follow from it.
 */
#include <mlwatch.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>

enum { FEATURES = 6, MOST_ROWS = 320, LONG = 70 };

static const char *dir;
static double features[MOST_ROWS * FEATURES];
static uint64_t ids[MOST_ROWS];
static uint64_t rows_so_far;

static mlw_producer *opened(void)
{
    char why[256] = "";
    mlw_options o = mlw_options_init();
    o.model = "stepped";
    o.instance = "host";
    o.n_features = FEATURES;
    o.proba_dtype = o.feature_dtype = MLW_F64;
    o.dir = dir;
    o.ring_bytes = 1 << 14;
    o.error = why;
    o.error_size = sizeof why;
    mlw_producer *p = NULL;
    if (mlw_open(&o, &p) != 0)
        fprintf(stderr, "%s\n", why);
    return p;
}

static void fill(double *to_features, uint64_t *to_ids, uint32_t rows)
{
    for (uint32_t r = 0; r < rows; r++, rows_so_far++) {
        to_ids[r] = rows_so_far;
        for (int f = 0; f < FEATURES; f++)
            to_features[r * FEATURES + f] = (double)(rows_so_far * 10 + f);
    }
}

static int write_rows(mlw_producer *p, uint32_t rows)
{
    fill(features, ids, rows);
    mlw_batch b = mlw_batch_init();
    b.rows = rows;
    b.features = features;
    b.ids = ids;
    b.timestamp_ns = 1;
    return mlw_write(p, &b);
}

static int reserve(mlw_producer *p, uint32_t rows)
{
    mlw_reservation r = mlw_reservation_init();
    r.rows = rows;
    r.sections = MLW_FEATURES | MLW_IDS;
    r.timestamp_ns = 1;
    int err = mlw_reserve(p, &r);
    if (err == 0)
        fill(r.features, r.ids, rows);
    return err;
}

/* ---- the scenes ---- */

static void writes(mlw_producer *p)
{
    write_rows(p, 3);
}

static void writes_in_parts(mlw_producer *p)
{
    write_rows(p, 2 * mlw_record_rows(p, MLW_FEATURES | MLW_IDS) + 1);
}

static void commits(mlw_producer *p)
{
    reserve(p, 3);
    mlw_commit(p);
}

static void discards(mlw_producer *p)
{
    reserve(p, 3);
    mlw_discard(p);
}

static void fills_a_long_record(mlw_producer *p)
{
    write_rows(p, LONG);
}

static void is_refused(mlw_producer *p)
{
    reserve(p, MOST_ROWS);
    reserve(p, 0);
    mlw_reject(p, 5);
}

static void is_contended(mlw_producer *p)
{
    reserve(p, 1);
    write_rows(p, 2);
    mlw_commit(p);
}

static void closes(mlw_producer *p)
{
    mlw_close(p);
}

static void attaches(mlw_producer *closed)
{
    (void)closed;
    opened();
}

static const struct scene {
    const char *name;
    void (*play)(mlw_producer *);
    uint32_t rows[4]; /* of the records before it */
} scenes[] = {
    {"write", writes, {1, 2, 3, 4}},
    {"write in parts", writes_in_parts, {1, 2, 3, 4}},
    {"commit", commits, {1, 2, 3, 4}},
    {"discard", discards, {1, 2, 3, 4}},
    {"pad", fills_a_long_record, {LONG, LONG, LONG, LONG}},
    {"drop", fills_a_long_record, {LONG, LONG, LONG, LONG}},
    {"refuse", is_refused, {1, 2, 3, 4}},
    {"contend", is_contended, {1, 2, 3, 4}},
    {"close", closes, {1, 2, 3, 4}},
    {"attach", attaches, {1, 2, 3, 4}},
};

static const struct scene *find(const char *name)
{
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++)
        if (strcmp(scenes[i].name, name) == 0)
            return &scenes[i];
    return NULL;
}

int main(int argc, char **argv)
{
    const struct scene *scene = argc == 3 ? find(argv[2]) : NULL;
    if (scene == NULL)
        return 64;
    dir = argv[1];
    mlw_producer *p = opened();
    if (p == NULL)
        return 66;
    for (int i = 0; i < 4; i++)
        if (write_rows(p, scene->rows[i]) != 0)
            return 67;
    if (scene->play == attaches)
        mlw_close(p);
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGSTOP);
    scene->play(p);
    raise(SIGSTOP);
    return 0;
}
