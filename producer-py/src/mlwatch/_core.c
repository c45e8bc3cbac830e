/* mlwatch._core: the C library, and Producer, the type that mlwatch.Monitor derives from. */
#include "ring.c"

#include "recipe.c"
#include "private.c"
#include "segment.c"

#include "producer.c"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_collect.h"

struct state {
    PyObject *argument_names[ARGUMENTS];
    struct methods methods;
    PyObject *rejected; /* the name of Monitor's slow path */
    PyObject *dropped;
};

/* Every field is guarded by the GIL. `in_flight` counts calls that may have let it go while they use `handle`. */
typedef struct {
    PyObject_HEAD
    mlw_producer *handle; /* NULL = not open */
    struct schema schema;
    bool strict;
    bool closing; /* the last call in flight closes the handle */
    int in_flight;
    unsigned forks; /* as `forks` was when `in_flight` was last looked at */
    mlw_counts last_counts; /* these two as they were when the handle was closed */
    char *last_path;
} Producer;

/* ---- open and close ---- */

/* Grows in a child. What other threads had in flight goes on in the parent only, and would keep the child's handle open for good. */
static unsigned forks;

static void count_fork(void)
{
    forks++;
}

static void forget_parents_calls(Producer *self)
{
    if (self->forks != forks)
        self->in_flight = 0;
    self->forks = forks;
}

static void close_handle(Producer *self)
{
    self->last_counts = mlw_counts_init();
    mlw_counters(self->handle, &self->last_counts);
    self->last_path = strdup(mlw_path(self->handle));
    mlw_close(self->handle);
    self->handle = NULL;
}

static void close_if_unused(Producer *self)
{
    if (self->closing && self->in_flight == 0 && self->handle != NULL)
        close_handle(self);
}

static const char *utf8(PyObject *text, const char *what)
{
    Py_ssize_t size;
    const char *bytes = PyUnicode_AsUTF8AndSize(text, &size);
    if (bytes == NULL || strlen(bytes) == (size_t)size)
        return bytes;
    PyErr_Format(PyExc_ValueError, "%s %R holds a NUL", what, text);
    return NULL;
}

/* `*out` is NULL for an empty tuple: the library's own names. The strings belong to the tuple. */
static int names_of(PyObject *names, uint32_t want, const char *what, const char ***out)
{
    Py_ssize_t count = PyTuple_Size(names);
    if (count == 0)
        return 0;
    if (count != (Py_ssize_t)want) {
        PyErr_Format(PyExc_ValueError, "%zd %ss are given, want %u", count, what, want);
        return -1;
    }
    *out = PyMem_Calloc(want, sizeof **out);
    if (*out == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (uint32_t i = 0; i < want; i++)
        if (((*out)[i] = utf8(PyTuple_GetItem(names, i), what)) == NULL)
            return -1;
    return 0;
}

static int open_failed(int err, const char *text)
{
    if (err == -EINVAL) {
        PyErr_SetString(PyExc_ValueError, text);
        return -1;
    }
    PyObject *args = Py_BuildValue("(is)", -err, text);
    if (args != NULL)
        PyErr_SetObject(PyExc_OSError, args);
    Py_XDECREF(args);
    return -1;
}

static int open_handle(Producer *self, mlw_options *options)
{
    char error[512] = "";
    int err;
    options->error = error;
    options->error_size = sizeof error;
    Py_BEGIN_ALLOW_THREADS
    err = mlw_open(options, &self->handle);
    Py_END_ALLOW_THREADS
    if (err != 0)
        return open_failed(err, error[0] != '\0' ? error : mlw_strerror(err));
    self->schema = (struct schema){options->task, options->n_classes, options->n_features, options->proba_dtype, options->feature_dtype,
                                    options->segment_by == MLW_SEGMENT_BY_ROW};
    return 0;
}

struct arguments {
    PyObject *class_names, *feature_names;
    const char *kinds;
    Py_ssize_t kinds_size;
    unsigned long long period_ns, reservoir_rows, ring_bytes;
    int strict;
};

static int parse_options(PyObject *args, PyObject *kwargs, mlw_options *o, struct arguments *a)
{
    static char *names[] = {"model", "version", "instance", "task", "flags", "n_classes", "n_features", "dtype", "class_names",
                            "feature_names", "feature_kinds", "threshold", "period_ns", "reservoir_rows", "dir", "ring_bytes", "strict",
                            "segment_by", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sszIIIIIO!O!y#dKKyKpI:Producer", names, &o->model, &o->version, &o->instance, &o->task,
                                     &o->flags, &o->n_classes, &o->n_features, &o->proba_dtype, &PyTuple_Type, &a->class_names,
                                     &PyTuple_Type, &a->feature_names, &a->kinds, &a->kinds_size, &o->threshold, &a->period_ns,
                                     &a->reservoir_rows, &o->dir, &a->ring_bytes, &a->strict, &o->segment_by))
        return -1;
    o->feature_dtype = o->proba_dtype;
    o->period_ns = a->period_ns;
    o->reservoir_rows = a->reservoir_rows;
    o->ring_bytes = a->ring_bytes;
    if (a->kinds_size == 0)
        return 0;
    o->feature_kinds = (const uint8_t *)a->kinds;
    if (a->kinds_size == (Py_ssize_t)o->n_features)
        return 0;
    PyErr_Format(PyExc_ValueError, "%zd feature_kinds are given, want %u", a->kinds_size, o->n_features);
    return -1;
}

static int open_with_names(Producer *self, mlw_options *o, const struct arguments *a)
{
    const char **classes = NULL, **features = NULL;
    int err = names_of(a->class_names, o->n_classes, "class_name", &classes);
    if (err == 0)
        err = names_of(a->feature_names, o->n_features, "feature_name", &features);
    o->class_names = classes;
    o->feature_names = features;
    if (err == 0)
        err = open_handle(self, o);
    PyMem_Free(classes);
    PyMem_Free(features);
    return err;
}

/* The arguments come from Monitor.__init__, which has checked kinds and ranges; mlw_open checks the rest. */
static int producer_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    Producer *self = (Producer *)object;
    mlw_options options = mlw_options_init();
    struct arguments a;
    if (self->handle != NULL || self->closing) {
        PyErr_SetString(PyExc_ValueError, "a Monitor is opened once; make a new one");
        return -1;
    }
    if (parse_options(args, kwargs, &options, &a) < 0)
        return -1;
    self->strict = a.strict;
    return open_with_names(self, &options, &a);
}

static PyObject *producer_close(PyObject *object, PyObject *none)
{
    (void)none;
    Producer *self = (Producer *)object;
    self->closing = true;
    forget_parents_calls(self);
    close_if_unused(self);
    Py_RETURN_NONE;
}

static int producer_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void producer_dealloc(PyObject *object)
{
    Producer *self = (Producer *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->handle != NULL)
        close_handle(self);
    free(self->last_path);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* ---- collect ---- */

/* A new reference to why the batch is rejected, from the exception that is set. NULL: it is not an Exception, and stays set. */
static PyObject *take_reason(void)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return NULL;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    PyObject *reason = PyObject_Str(value);
    if (reason == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
        reason = PyUnicode_FromString(PyExceptionClass_Name(type));
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    return reason;
}

/* The inference loop sees an exception only if it asked for that, or if it is no Exception: KeyboardInterrupt and its like. */
static PyObject *false_unless_raised(const Producer *self)
{
    if (PyErr_Occurred()) {
        if (self->strict || !PyErr_ExceptionMatches(PyExc_Exception))
            return NULL;
        PyErr_Clear();
    }
    Py_RETURN_FALSE;
}

static PyObject *report_rejection(Producer *self, const struct state *state, PyObject *reason)
{
    if (reason != NULL)
        Py_XDECREF(PyObject_CallMethodObjArgs((PyObject *)self, state->rejected, reason, NULL));
    Py_XDECREF(reason);
    return false_unless_raised(self);
}

static PyObject *report_drop(Producer *self, const struct state *state, const struct outcome *done, Py_ssize_t rows)
{
    if (self->strict)
        PyErr_Format(state->dropped, "%llu of %zd rows are not in the ring: %s", (unsigned long long)done->dropped, rows, mlw_strerror(done->err));
    return false_unless_raised(self);
}

static int send_arguments(Producer *self, struct batch *b, PyObject *const given[ARGUMENTS], struct outcome *done)
{
    if (fill_batch(b, given) < 0)
        return -1;
    if (self->handle == NULL) /* an argument's own code has forked, and closed it in the child */
        return refuse("the Monitor is closed");
    *done = send_batch(self->handle, b);
    return done->bad == NULL ? 0 : refuse_number(done);
}

static void leave_handle(Producer *self)
{
    if (self->in_flight > 0) /* not if it was forgotten meanwhile */
        self->in_flight--;
    close_if_unused(self);
}

static PyObject *producer_collect(PyObject *object, PyTypeObject *type, PyObject *const *args, size_t nargs, PyObject *names)
{
    Producer *self = (Producer *)object;
    const struct state *state = PyType_GetModuleState(type);
    PyObject *given[ARGUMENTS] = {NULL};
    struct outcome done = {0};
    struct batch b;
    start_batch(&b, &self->schema, &state->methods);
    if (self->handle == NULL || self->closing)
        return report_rejection(self, state, PyUnicode_FromString("the Monitor is closed"));
    forget_parents_calls(self);
    self->in_flight++;
    int err = assign_arguments(state->argument_names, args, (Py_ssize_t)nargs, names, given);
    if (err == 0)
        err = send_arguments(self, &b, given, &done);
    if (err != 0)
        mlw_reject(self->handle, (uint64_t)b.rows);
    empty_batch(&b);
    leave_handle(self);
    if (err != 0)
        return report_rejection(self, state, take_reason());
    if (done.err != 0)
        return report_drop(self, state, &done, b.rows);
    Py_RETURN_TRUE;
}

/* ---- attributes ---- */

static PyObject *producer_path(PyObject *object, void *unused)
{
    (void)unused;
    const Producer *self = (const Producer *)object;
    const char *path = self->handle != NULL ? mlw_path(self->handle) : self->last_path;
    if (path == NULL)
        Py_RETURN_NONE;
    return PyUnicode_DecodeFSDefault(path);
}

static PyObject *producer_closed(PyObject *object, void *unused)
{
    (void)unused;
    const Producer *self = (const Producer *)object;
    return PyBool_FromLong(self->handle == NULL || self->closing);
}

#define COUNTS(F)                                                                                                       \
    F(records) F(rows) F(bytes) F(dropped_records) F(dropped_rows) F(full_records) F(full_rows) F(too_large_records)    \
    F(too_large_rows) F(contended_records) F(contended_rows) F(rejected_records) F(rejected_rows) F(detached_records)   \
    F(detached_rows)

#define COUNT_FIELD(name) + 1
static_assert(sizeof(mlw_counts) == sizeof(size_t) + (0 COUNTS(COUNT_FIELD)) * sizeof(uint64_t), "every field of mlw_counts is listed");

static int put_count(PyObject *counts, const char *name, uint64_t count)
{
    PyObject *key = PyUnicode_FromString(name), *number = PyLong_FromUnsignedLongLong(count);
    int err = key == NULL || number == NULL ? -1 : PyDict_SetItem(counts, key, number);
    Py_XDECREF(key);
    Py_XDECREF(number);
    return err;
}

static PyObject *producer_counters(PyObject *object, void *unused)
{
    (void)unused;
    const Producer *self = (const Producer *)object;
    mlw_counts now = self->last_counts;
    if (self->handle != NULL) {
        now = mlw_counts_init();
        mlw_counters(self->handle, &now);
    }
    PyObject *counts = PyDict_New();
#define PUT_COUNT(name) || put_count(counts, #name, now.name) < 0
    if (counts == NULL COUNTS(PUT_COUNT))
        Py_CLEAR(counts);
    return counts;
}

/* ---- the module ---- */

PyDoc_STRVAR(collect_doc,
             "collect($self, proba, features=None, labels=None, ids=None, timestamp=None, segments=None)\n--\n\n"
             "Write one batch into the ring; True when every row is there.\n\n"
             "proba is (rows, n_classes), features (rows, n_features); one row may be 1-D. labels are class\n"
             "indices (rows,) with -1 or NaN for none, flags (rows, n_classes), or, with task='regression',\n"
             "what should have been predicted; with ids and without proba and features they belong to rows\n"
             "that were collected before. ids are integers (rows,). timestamp is in seconds since 1970, None\n"
             "for now. segments, of a Monitor opened with segments=True, are integers 0 to 65535 (rows,).\n"
             "Arrays of any layout, CPU tensors and lists will do.\n\n"
             "False when rows were dropped or the batch is rejected; nothing is raised unless strict=True.");
PyDoc_STRVAR(close_doc, "close($self)\n--\n\nLeave the ring to the sidecar, which drains it. Closing twice is fine.");

static PyMethodDef producer_methods[] = {
    {"collect", (PyCFunction)(void (*)(void))producer_collect, METH_METHOD | METH_FASTCALL | METH_KEYWORDS, collect_doc},
    {"close", producer_close, METH_NOARGS, close_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef producer_attributes[] = {
    {"path", producer_path, NULL, "The ring file's path.", NULL},
    {"closed", producer_closed, NULL, "Whether close has been called.", NULL},
    {"counters", producer_counters, NULL, "What has been written, dropped and rejected since the ring was made.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot producer_slots[] = {
    {Py_tp_doc, "The C half of mlwatch.Monitor."},
    {Py_tp_init, producer_init},
    {Py_tp_dealloc, producer_dealloc},
    {Py_tp_traverse, producer_traverse},
    {Py_tp_methods, producer_methods},
    {Py_tp_getset, producer_attributes},
    {0, NULL},
};

static PyType_Spec producer_spec = {
    .name = "mlwatch._core.Producer",
    .basicsize = sizeof(Producer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = producer_slots,
};

static int add_producer(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &producer_spec, NULL);
    int err = type == NULL ? -1 : PyModule_AddObjectRef(module, "Producer", type);
    Py_XDECREF(type);
    return err;
}

static int intern_names(struct state *state)
{
    for (int i = 0; i < ARGUMENTS; i++)
        if ((state->argument_names[i] = PyUnicode_InternFromString(argument_names[i])) == NULL)
            return -1;
    state->methods.array = PyUnicode_InternFromString("__array__");
    state->methods.to_numpy = PyUnicode_InternFromString("to_numpy");
    state->rejected = PyUnicode_InternFromString("_rejected");
    return state->methods.array == NULL || state->methods.to_numpy == NULL || state->rejected == NULL ? -1 : 0;
}

static int core_exec(PyObject *module)
{
    struct state *state = PyModule_GetState(module);
    pthread_atfork(NULL, NULL, count_fork);
    if (intern_names(state) < 0)
        return -1;
    state->dropped = PyErr_NewExceptionWithDoc("mlwatch.Dropped", "With strict=True: rows did not get into the ring, and are counted.",
                                               PyExc_RuntimeError, NULL);
    if (state->dropped == NULL || PyModule_AddObjectRef(module, "Dropped", state->dropped) < 0)
        return -1;
    if (PyModule_AddStringConstant(module, "__version__", MLW_VERSION) < 0)
        return -1;
    return add_producer(module);
}

static int core_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct state *state = PyModule_GetState(module);
    Py_VISIT(state->dropped);
    return 0;
}

static int core_clear(PyObject *module)
{
    struct state *state = PyModule_GetState(module);
    for (int i = 0; i < ARGUMENTS; i++)
        Py_CLEAR(state->argument_names[i]);
    Py_CLEAR(state->methods.array);
    Py_CLEAR(state->methods.to_numpy);
    Py_CLEAR(state->rejected);
    Py_CLEAR(state->dropped);
    return 0;
}

static void core_free(void *module)
{
    core_clear(module);
}

static PyModuleDef_Slot core_slots[] = {{Py_mod_exec, core_exec}, {0, NULL}};

static PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "mlwatch._core",
    .m_size = sizeof(struct state),
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&core_module);
}
