/* One call of collect: arguments → inputs → sections → records. Whatever can be wrong with a batch is found before its first record
 * is reserved: a batch is rejected whole or not at all. */
#ifndef MLW_COLLECT_H
#define MLW_COLLECT_H

#include "_input.h"

/* What the hot path needs to know of the options. */
struct schema {
    uint32_t task, n_classes, n_features, proba_dtype, feature_dtype;
    bool segments;
};

enum argument { ARG_PROBA, ARG_FEATURES, ARG_LABELS, ARG_IDS, ARG_TIMESTAMP, ARG_SEGMENTS, ARGUMENTS };
enum { INPUTS = ARGUMENTS - 1 }; /* all but the time stamp */

static const char *const argument_names[ARGUMENTS] = {"proba", "features", "labels", "ids", "timestamp", "segments"};

struct section {
    struct input input;
    uint32_t bit;
    enum target target;
    search_fn *bad; /* finds a number that must not be there; NULL = any number will do */
};

struct batch {
    const struct schema *schema;
    const struct methods *methods;
    Py_ssize_t rows; /* known as soon as the first argument is open */
    uint64_t timestamp_ns;
    uint32_t bits;
    int count;
    struct section sections[INPUTS];
};

static void start_batch(struct batch *b, const struct schema *schema, const struct methods *methods)
{
    b->schema = schema;
    b->methods = methods;
    b->rows = 0;
    b->timestamp_ns = 0;
    b->bits = 0;
    b->count = 0;
}

/* ---- shapes ---- */

static int wrong_shape(const struct input *in, const char *want, const char *remedy)
{
    char shape[120];
    return refuse("%s has shape %s, want %s; %s", in->name, shape_text(in, shape, sizeof shape), want, remedy);
}

static void as_columns(struct input *in, Py_ssize_t columns, ptrdiff_t column_stride)
{
    in->matrix.rows = (size_t)in->shape[0];
    in->matrix.columns = (size_t)columns;
    in->matrix.row_stride = in->strides[0];
    in->matrix.column_stride = column_stride;
}

static void as_lone_row(struct input *in)
{
    in->matrix.rows = 1;
    in->matrix.columns = (size_t)in->shape[0];
    in->matrix.row_stride = 0;
    in->matrix.column_stride = in->strides[0];
}

static int wrong_matrix(const struct input *in, uint32_t columns, const char *option)
{
    char want[40], remedy[100] = "give one row per prediction";
    snprintf(want, sizeof want, "(rows, %u)", columns);
    if (in->ndim == 2)
        snprintf(remedy, sizeof remedy, "give as many columns, or open the Monitor with %s=%zd", option, in->shape[1]);
    return wrong_shape(in, want, remedy);
}

/* (rows, columns); or one row as (columns,); or one column as (rows,). */
static int shape_matrix(struct input *in, uint32_t columns, const char *option)
{
    if (in->ndim == 2 && in->shape[1] == (Py_ssize_t)columns)
        as_columns(in, in->shape[1], in->strides[1]);
    else if (in->ndim == 1 && (columns == 1 || in->shape[0] == 0))
        as_columns(in, columns, 0);
    else if (in->ndim == 1 && in->shape[0] == (Py_ssize_t)columns)
        as_lone_row(in);
    else
        return wrong_matrix(in, columns, option);
    return 0;
}

static bool is_vector(const struct input *in)
{
    return in->ndim == 1 || (in->ndim == 2 && in->shape[1] == 1);
}

/* ---- sections ---- */

static Py_ssize_t leading(const struct input *in)
{
    return in->ndim > 0 ? in->shape[0] : 0;
}

static int add_section(struct batch *b, uint32_t bit, enum target target, search_fn *bad)
{
    struct section *s = &b->sections[b->count - 1];
    Py_ssize_t rows = (Py_ssize_t)s->input.matrix.rows;
    s->bit = bit;
    s->target = target;
    s->bad = bad;
    b->bits |= bit;
    if (b->count == 1)
        b->rows = rows;
    if (rows == b->rows)
        return 0;
    return refuse("%s has %zd rows and %s has %zd; give one row of each per prediction", s->input.name, rows, b->sections[0].input.name,
                  b->rows);
}

static struct input *open_next(struct batch *b, enum argument argument, PyObject *object)
{
    struct input *in = &b->sections[b->count++].input;
    int err = open_input(in, argument_names[argument], object, b->methods, argument == ARG_IDS || argument == ARG_SEGMENTS);
    if (b->count == 1)
        b->rows = leading(in);
    return err == 0 ? in : NULL;
}

static int add_matrix(struct batch *b, struct input *in, uint32_t columns, const char *option, uint32_t bit, enum target target)
{
    if (columns == 0)
        return refuse("%s is given, but %s is 0; open the Monitor with %s, or pass None", in->name, option, option);
    if (shape_matrix(in, columns, option) < 0)
        return -1;
    return add_section(b, bit, target, NULL);
}

static int wrong_labels(const struct batch *b, const struct input *in)
{
    char want[80];
    uint32_t classes = b->schema->n_classes;
    snprintf(want, sizeof want, classes > 1 ? "(%zd,) or (%zd, %u)" : "(%zd,)", b->rows, b->rows, classes);
    return wrong_shape(in, want, "give a class index per row, or a flag per class");
}

static int add_labels(struct batch *b, struct input *in)
{
    if (b->schema->task == MLW_REGRESSION)
        return add_matrix(b, in, b->schema->n_classes, "n_classes", MLW_TARGETS, TO_F64);
    bool indices = is_vector(in), sets = !indices && in->ndim == 2 && in->shape[1] == (Py_ssize_t)b->schema->n_classes;
    if (!indices && !sets)
        return wrong_labels(b, in);
    as_columns(in, indices ? 1 : in->shape[1], indices ? 0 : in->strides[1]);
    if (indices)
        return add_section(b, MLW_LABELS, TO_LABEL, elements[in->matrix.element].fraction);
    return add_section(b, MLW_LABEL_SETS, TO_FLAG, elements[in->matrix.element].unflag);
}

static int add_ids(struct batch *b, struct input *in)
{
    if (!is_vector(in))
        return wrong_shape(in, "(rows,)", "give one integer per row");
    if (elements[in->matrix.element].to[TO_ID] == NULL)
        return refuse("ids are floats, want integers; give ids.astype('int64')");
    as_columns(in, 1, 0);
    return add_section(b, MLW_IDS, TO_ID, NULL);
}

static int add_segments(struct batch *b, struct input *in)
{
    if (!b->schema->segments)
        return refuse("segments is given, and the Monitor was opened without; open it with segments=True");
    if (!is_vector(in))
        return wrong_shape(in, "(rows,)", "give one integer per row");
    if (elements[in->matrix.element].to[TO_SEGMENT] == NULL)
        return refuse("segments are floats, want integers; give segments.astype('uint16')");
    as_columns(in, 1, 0);
    return add_section(b, MLW_SEGMENTS, TO_SEGMENT, elements[in->matrix.element].unsegment);
}

static int add(struct batch *b, enum argument argument, PyObject *object)
{
    const struct schema *s = b->schema;
    if (object == NULL || object == Py_None)
        return 0;
    struct input *in = open_next(b, argument, object);
    if (in == NULL)
        return -1;
    switch (argument) {
    case ARG_PROBA: return add_matrix(b, in, s->n_classes, "n_classes", MLW_PROBA, (enum target)s->proba_dtype);
    case ARG_FEATURES: return add_matrix(b, in, s->n_features, "n_features", MLW_FEATURES, (enum target)s->feature_dtype);
    case ARG_LABELS: return add_labels(b, in);
    case ARG_SEGMENTS: return add_segments(b, in);
    default: return add_ids(b, in);
    }
}

/* ---- the time stamp ---- */

/* The year 2286. What counts milliseconds since 1970, or less, is beyond it. */
#define MAX_SECONDS 1e10

static int set_timestamp(struct batch *b, PyObject *object)
{
    if (object == NULL || object == Py_None)
        return 0;
    double seconds = PyFloat_AsDouble(object);
    if (seconds == -1.0 && PyErr_Occurred())
        return unreadable("timestamp");
    if (!(seconds >= 0 && seconds < MAX_SECONDS))
        return refuse("timestamp is %.100R, want seconds since 1970 as time.time() gives; divide milliseconds by 1e3, nanoseconds by 1e9", object);
    uint64_t whole = (uint64_t)seconds;
    b->timestamp_ns = whole * 1000000000 + (uint64_t)((seconds - (double)whole) * 1e9 + 0.5);
    if (b->timestamp_ns == 0)
        b->timestamp_ns = 1; /* 0 would mean now */
    return 0;
}

/* ---- arguments ---- */

static int wrong_keyword(PyObject *name)
{
    return refuse("collect has no argument %.100R; it takes proba, features, labels, ids, timestamp, segments", name);
}

/* Names in calls are interned, so that comparing pointers nearly always does. */
static int argument_index(PyObject *const known[ARGUMENTS], PyObject *name)
{
    for (int i = 0; i < ARGUMENTS; i++)
        if (known[i] == name)
            return i;
    for (int i = 0; i < ARGUMENTS; i++)
        if (PyUnicode_CompareWithASCIIString(name, argument_names[i]) == 0)
            return i;
    return -1;
}

static int assign_keywords(PyObject *const known[ARGUMENTS], PyObject *names, PyObject *const *values, PyObject *given[ARGUMENTS])
{
    Py_ssize_t count = names == NULL ? 0 : PyTuple_Size(names);
    for (Py_ssize_t k = 0; k < count; k++) {
        PyObject *name = PyTuple_GetItem(names, k);
        int i = argument_index(known, name);
        if (i < 0)
            return wrong_keyword(name);
        if (given[i] != NULL)
            return refuse("collect got %s twice", argument_names[i]);
        given[i] = values[k];
    }
    return 0;
}

static int assign_arguments(PyObject *const known[ARGUMENTS], PyObject *const *args, Py_ssize_t positional, PyObject *names,
                            PyObject *given[ARGUMENTS])
{
    if (positional > ARGUMENTS)
        return refuse("collect takes %d arguments, got %zd", ARGUMENTS, positional);
    for (Py_ssize_t i = 0; i < positional; i++)
        given[i] = args[i];
    if (assign_keywords(known, names, args + positional, given) < 0)
        return -1;
    return given[ARG_PROBA] != NULL ? 0 : refuse("collect needs proba; pass None to watch features only");
}

static int fill_batch(struct batch *b, PyObject *const given[ARGUMENTS])
{
    for (int a = 0; a < ARGUMENTS; a++)
        if (a != ARG_TIMESTAMP && add(b, (enum argument)a, given[a]) < 0)
            return -1;
    const uint32_t labels = MLW_LABELS | MLW_LABEL_SETS | MLW_TARGETS;
    if (!(b->bits & (MLW_PROBA | MLW_FEATURES)) && !((b->bits & labels) && (b->bits & MLW_IDS)))
        return refuse("proba and features are both None; give one of them, or labels and the ids that their rows had");
    return set_timestamp(b, given[ARG_TIMESTAMP]);
}

static void empty_batch(struct batch *b)
{
    while (b->count > 0)
        close_input(&b->sections[--b->count].input);
}

/* ---- into the ring: no Python from here on ---- */

struct outcome {
    int err; /* of the last chunk that was dropped; 0 = all rows are in the ring */
    uint64_t dropped;
    const struct section *bad; /* NULL = every number may be written */
    size_t bad_at;
};

static void *place_of(const mlw_reservation *r, uint32_t bit)
{
    switch (bit) {
    case MLW_PROBA: return r->proba;
    case MLW_FEATURES: return r->features;
    case MLW_LABELS: return r->labels;
    case MLW_LABEL_SETS: return r->label_sets;
    case MLW_TARGETS: return r->targets;
    case MLW_SEGMENTS: return r->segments;
    default: return r->ids;
    }
}

static int write_chunk(mlw_producer *p, const struct batch *b, size_t first, uint32_t rows)
{
    mlw_reservation r = mlw_reservation_init();
    r.rows = rows;
    r.sections = b->bits;
    r.timestamp_ns = b->timestamp_ns;
    int err = mlw_reserve(p, &r);
    if (err != 0)
        return err;
    for (int i = 0; i < b->count; i++) {
        const struct section *s = &b->sections[i];
        convert_rows(place_of(&r, s->bit), s->target, &s->input.matrix, first, rows);
    }
    return mlw_commit(p);
}

/* As mlw_write does it: each chunk is taken or dropped on its own.
 * `most` is never 0: fill_batch adds only sections that the schema has, and mlw_open has seen that a row of them all fits. */
static struct outcome write_batch(mlw_producer *p, const struct batch *b)
{
    struct outcome done = {0};
    size_t rows = (size_t)b->rows;
    uint32_t most = mlw_record_rows(p, b->bits), now;
    for (size_t row = 0; row < rows; row += now) {
        now = rows - row < most ? (uint32_t)(rows - row) : most;
        int err = write_chunk(p, b, row, now);
        if (err != 0) {
            done.err = err;
            done.dropped += now;
        }
    }
    return done;
}

static struct outcome check_and_write(mlw_producer *p, const struct batch *b)
{
    for (int i = 0; i < b->count; i++) {
        const struct section *s = &b->sections[i];
        size_t numbers = s->input.matrix.rows * s->input.matrix.columns;
        size_t at = s->bad == NULL ? numbers : search_matrix(&s->input.matrix, s->bad);
        if (at < numbers)
            return (struct outcome){.bad = s, .bad_at = at};
    }
    return write_batch(p, b);
}

/* ---- with the GIL again ---- */

/* From here on others get the interpreter meanwhile: what takes tens of microseconds. */
enum { LET_OTHERS_RUN = 64 * 1024 };

static size_t bytes_of(const struct batch *b)
{
    size_t bytes = 0;
    for (int i = 0; i < b->count; i++)
        bytes += (size_t)b->rows * b->sections[i].input.matrix.columns * target_size[b->sections[i].target];
    return bytes;
}

static struct outcome send_batch(mlw_producer *p, const struct batch *b)
{
    if (bytes_of(b) < LET_OTHERS_RUN)
        return check_and_write(p, b);
    PyThreadState *thread = PyEval_SaveThread();
    struct outcome done = check_and_write(p, b);
    PyEval_RestoreThread(thread);
    return done;
}

static int refuse_number(const struct outcome *o)
{
    const struct matrix *m = &o->bad->input.matrix;
    size_t row = o->bad_at / m->columns, column = o->bad_at % m->columns;
    char number[40];
    snprintf(number, sizeof number, "%.17g", number_at(m, row, column));
    if (o->bad->bit == MLW_LABEL_SETS)
        return refuse("labels[%zu, %zu] is %s, want 0 or 1 in every column; give a class index per row instead?", row, column, number);
    if (o->bad->bit == MLW_SEGMENTS && o->bad->input.numbers != NULL) /* of a list: negative ones in two's complement */
        snprintf(number, sizeof number, "%lld", ((const long long *)o->bad->input.numbers)[o->bad_at]);
    if (o->bad->bit == MLW_SEGMENTS)
        return refuse("segments[%zu] is %s, want 0 to 65535", row, number);
    return refuse("labels[%zu] is %s, want a class index, -1 or NaN; for real numbers open the Monitor with task='regression'", row, number);
}

#endif
