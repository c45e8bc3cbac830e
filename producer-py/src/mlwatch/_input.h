/* Any Python object that holds numbers, seen as a strided matrix: by the buffer protocol, `__array__`, `to_numpy`, or item by item.
 * Every function that can fail returns -1 with a Python exception set; its text is the reason the user reads. */
#ifndef MLW_INPUT_H
#define MLW_INPUT_H

#include "_convert.h"

struct input {
    const char *name;
    int ndim;
    const Py_ssize_t *shape, *strides; /* ndim of each; NULL when ndim is 0 */
    struct matrix matrix;
    Py_buffer buffer;          /* held while buffer.obj is not NULL */
    void *numbers;             /* a sequence's numbers, else NULL */
    Py_ssize_t own_shape[2], own_strides[2];
};

/* Interned: a name made anew for every call would be kept by CPython's method cache. */
struct methods {
    PyObject *array, *to_numpy;
};

static int refuse(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    PyErr_FormatV(PyExc_ValueError, format, args);
    va_end(args);
    return -1;
}

/* Says of the caller's own exception which argument it is about. KeyboardInterrupt and its like pass as they are. */
static int unreadable(const char *name)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    refuse("%s cannot be read: %s: %.500S", name, PyExceptionClass_Name(type), value);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    return -1;
}

/* ---- the buffer protocol ---- */

static enum element integer_element(Py_ssize_t size, bool is_signed)
{
    switch (size) {
    case 1: return is_signed ? E_i8 : E_u8;
    case 2: return is_signed ? E_i16 : E_u16;
    case 4: return is_signed ? E_i32 : E_u32;
    case 8: return is_signed ? E_i64 : E_u64;
    default: return ELEMENTS;
    }
}

/* By size, since 'l' and 'L' have 4 or 8 bytes depending on the prefix. */
static enum element element_of(char code, Py_ssize_t size)
{
    switch (code) {
    case 'e': return size == 2 ? E_f16 : ELEMENTS;
    case 'f': return size == 4 ? E_f32 : ELEMENTS;
    case 'd': return size == 8 ? E_f64 : ELEMENTS;
    case '?': return size == 1 ? E_truth : ELEMENTS;
    case 'b': case 'h': case 'i': case 'l': case 'q': case 'n': return integer_element(size, true);
    case 'B': case 'H': case 'I': case 'L': case 'Q': case 'N': return integer_element(size, false);
    default: return ELEMENTS;
    }
}

static int set_element(struct input *in)
{
    const char *format = in->buffer.format ? in->buffer.format : "B", *code = format;
    bool big_endian = *code == '>' || *code == '!';
    if (big_endian || *code == '@' || *code == '=' || *code == '<')
        code++;
    enum element element = code[0] != '\0' && code[1] == '\0' ? element_of(code[0], in->buffer.itemsize) : ELEMENTS;
    if (element == ELEMENTS)
        return refuse("%s has elements of format '%.20s', want floats of 16, 32 or 64 bits, integers or bools; give %s.astype('float32')",
                      in->name, format, in->name);
    if (big_endian && in->buffer.itemsize > 1)
        return refuse("%s is big-endian (format '%s'); give %s.astype(%s.dtype.newbyteorder('='))", in->name, format, in->name, in->name);
    in->matrix.element = element;
    return 0;
}

/* ctypes leaves strides NULL, whatever is asked for. */
static const Py_ssize_t *packed_strides(struct input *in)
{
    in->own_strides[1] = in->buffer.itemsize;
    in->own_strides[0] = in->ndim == 2 ? in->shape[1] * in->buffer.itemsize : in->buffer.itemsize;
    return in->own_strides;
}

static int open_buffer(struct input *in, PyObject *object)
{
    if (PyObject_GetBuffer(object, &in->buffer, PyBUF_STRIDES | PyBUF_FORMAT) < 0) {
        in->buffer.obj = NULL;
        return unreadable(in->name);
    }
    in->ndim = in->buffer.ndim;
    in->shape = in->buffer.shape;
    in->strides = in->buffer.strides != NULL ? in->buffer.strides : packed_strides(in);
    in->matrix.data = in->buffer.buf;
    return set_element(in);
}

/* ---- __array__ and to_numpy ---- */

/* NULL without an exception: the object has no such method. */
static PyObject *call_if_there(PyObject *object, PyObject *method)
{
    PyObject *bound = PyObject_GetAttr(object, method);
    if (bound == NULL) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError))
            PyErr_Clear();
        return NULL;
    }
    PyObject *result = PyObject_CallNoArgs(bound);
    Py_DECREF(bound);
    return result;
}

static PyObject *as_array(PyObject *object, const struct methods *methods)
{
    PyObject *array = call_if_there(object, methods->array);
    return array != NULL || PyErr_Occurred() ? array : call_if_there(object, methods->to_numpy);
}

/* ---- sequences ---- */

/* -1 without an exception: not a sequence. A 0-d array passes for one until it is asked for its length. */
static Py_ssize_t length_of(PyObject *object)
{
    if (!PySequence_Check(object) || PyUnicode_Check(object))
        return -1;
    Py_ssize_t length = PySequence_Size(object);
    if (length < 0 && PyErr_ExceptionMatches(PyExc_TypeError))
        PyErr_Clear();
    return length;
}

static int put_real(void *to, PyObject *item)
{
    double number = PyFloat_AsDouble(item);
    memcpy(to, &number, sizeof number);
    return number == -1.0 && PyErr_Occurred() ? -1 : 0;
}

/* Negative ones in two's complement. */
static int put_integer(void *to, PyObject *item)
{
    PyObject *integer = PyNumber_Index(item);
    if (integer == NULL)
        return -1;
    uint64_t number = (uint64_t)PyLong_AsLongLong(integer);
    if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        number = PyLong_AsUnsignedLongLong(integer);
    }
    Py_DECREF(integer);
    memcpy(to, &number, sizeof number);
    return PyErr_Occurred() ? -1 : 0;
}

typedef int put_fn(void *to, PyObject *item);
enum { NUMBER_SIZE = 8 };

static int put_row(char *to, PyObject *row, Py_ssize_t length, put_fn *put)
{
    int err = 0;
    for (Py_ssize_t i = 0; i < length && err == 0; i++) {
        PyObject *item = PySequence_GetItem(row, i);
        err = item == NULL ? -1 : put(to + i * NUMBER_SIZE, item);
        Py_XDECREF(item);
    }
    return err;
}

static int put_rows(struct input *in, PyObject *rows, put_fn *put)
{
    Py_ssize_t columns = in->shape[1];
    int err = 0;
    for (Py_ssize_t i = 0; i < in->shape[0] && err == 0; i++) {
        PyObject *row = PySequence_GetItem(rows, i);
        Py_ssize_t length = row == NULL ? -1 : PySequence_Size(row);
        if (length >= 0 && length != columns)
            err = refuse("row %zd has %zd numbers and row 0 has %zd; give rows of one length", i, length, columns);
        else
            err = length < 0 ? -1 : put_row((char *)in->numbers + i * columns * NUMBER_SIZE, row, length, put);
        Py_XDECREF(row);
    }
    return err;
}

static int set_own_shape(struct input *in, PyObject *object)
{
    in->shape = in->own_shape;
    in->strides = in->own_strides;
    in->own_strides[0] = NUMBER_SIZE;
    Py_ssize_t rows = PySequence_Size(object);
    if (rows < 0)
        return -1;
    in->ndim = 1;
    in->own_shape[0] = rows;
    if (rows == 0)
        return 0;
    PyObject *first = PySequence_GetItem(object, 0);
    Py_ssize_t columns = first == NULL ? -1 : length_of(first);
    Py_XDECREF(first);
    if (columns < 0)
        return PyErr_Occurred() ? -1 : 0;
    in->ndim = 2;
    in->own_shape[1] = columns;
    in->own_strides[0] = columns * NUMBER_SIZE;
    in->own_strides[1] = NUMBER_SIZE;
    return 0;
}

static int make_room(struct input *in)
{
    size_t rows = (size_t)in->shape[0], columns = in->ndim == 2 ? (size_t)in->shape[1] : 1;
    if (columns == 0 || rows <= PY_SSIZE_T_MAX / NUMBER_SIZE / columns)
        in->numbers = PyMem_Malloc(rows * columns * NUMBER_SIZE);
    if (in->numbers != NULL)
        return 0;
    PyErr_NoMemory();
    return -1;
}

static int open_sequence(struct input *in, PyObject *object, bool integers)
{
    put_fn *put = integers ? put_integer : put_real;
    if (set_own_shape(in, object) < 0 || make_room(in) < 0)
        return unreadable(in->name);
    in->matrix.data = in->numbers;
    in->matrix.element = integers ? E_u64 : E_f64;
    int err = in->ndim == 2 ? put_rows(in, object, put) : put_row(in->numbers, object, in->shape[0], put);
    return err == 0 ? 0 : unreadable(in->name);
}

/* ---- any of them ---- */

static int open_array(struct input *in, PyObject *object, PyObject *array)
{
    if (!PyObject_CheckBuffer(array))
        return refuse("%s is %.100R, whose array is %.100R, want one with the buffer protocol", in->name, Py_TYPE(object), Py_TYPE(array));
    return open_buffer(in, array);
}

static int open_other(struct input *in, PyObject *object, const struct methods *methods, bool integers)
{
    PyObject *array = as_array(object, methods);
    if (array != NULL) {
        int err = open_array(in, object, array);
        Py_DECREF(array);
        return err;
    }
    if (PyErr_Occurred())
        return unreadable(in->name);
    if (PySequence_Check(object) && !PyUnicode_Check(object))
        return open_sequence(in, object, integers);
    return refuse("%s is %.100R, want an array, a tensor on the CPU, or a list of numbers", in->name, Py_TYPE(object));
}

/* Even after a failure `ndim` and `shape` say what is known, and close_input must follow. `integers`: sequences hold integers. */
static int open_input(struct input *in, const char *name, PyObject *object, const struct methods *methods, bool integers)
{
    in->name = name;
    in->ndim = 0;
    in->buffer.obj = NULL;
    in->numbers = NULL;
    if (PyObject_CheckBuffer(object))
        return open_buffer(in, object);
    if (PyList_CheckExact(object) || PyTuple_CheckExact(object))
        return open_sequence(in, object, integers);
    return open_other(in, object, methods, integers);
}

static void close_input(struct input *in)
{
    if (in->buffer.obj != NULL)
        PyBuffer_Release(&in->buffer);
    PyMem_Free(in->numbers);
}

static const char *shape_text(const struct input *in, char *out, size_t size)
{
    size_t at = (size_t)snprintf(out, size, "(");
    for (int i = 0; i < in->ndim && at + 24 < size; i++)
        at += (size_t)snprintf(out + at, size - at, i == 0 ? "%zd" : ", %zd", in->shape[i]);
    snprintf(out + at, size - at, in->ndim == 1 ? ",)" : ")");
    return out;
}

#endif
