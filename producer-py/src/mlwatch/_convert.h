/* Numbers of any layout and element type, into a section of the ring. Nothing here touches Python: it runs without the GIL.
 * Another thread may be writing to the caller's array meanwhile, so every conversion is defined for every value. */
#ifndef MLW_CONVERT_H
#define MLW_CONVERT_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <mlwatch.h>

/* What a section holds. The first four are the header's dtypes. */
enum target { TO_F16 = MLW_F16, TO_BF16 = MLW_BF16, TO_F32 = MLW_F32, TO_F64 = MLW_F64, TO_LABEL, TO_FLAG, TO_ID, TO_SEGMENT, TARGETS };

static const size_t target_size[TARGETS] = {
    [TO_F16] = 2, [TO_BF16] = 2, [TO_F32] = 4, [TO_F64] = 8, [TO_LABEL] = sizeof(int32_t), [TO_FLAG] = 1, [TO_ID] = sizeof(uint64_t), [TO_SEGMENT] = sizeof(uint16_t),
};

/* `columns` and `rows` count elements, strides are bytes and may be 0 or negative. */
struct matrix {
    const char *data;
    int element; /* enum element */
    size_t rows, columns;
    ptrdiff_t row_stride, column_stride;
};

/* ---- one number ---- */

static inline uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Rounds to odd: rounding the result again, to a format at least two bits shorter, gives what rounding once would have given. */
static inline float narrow_to_odd(double d)
{
    float f = (float)d;
    if (d != d || (double)f == d)
        return f;
    uint32_t bits = bits_of(f);
    if (fabs((double)f) > fabs(d))
        bits--;
    return float_of(bits | 1);
}

/* To nearest, ties to even. */
static inline uint16_t half_from_float(float f)
{
    uint32_t bits = bits_of(f), sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (bits >> 13 & 0x3ff));
    if (bits >= 0x47800000) /* 65536: beyond every half */
        return (uint16_t)(sign | 0x7c00);
    if (bits < 0x38800000) /* 2^-14: a subnormal half; the spacing of floats at 0.5 is that of subnormal halves */
        return (uint16_t)(sign | (bits_of(float_of(bits) + 0.5f) - 0x3f000000));
    bits += 0xfff + (bits >> 13 & 1);
    return (uint16_t)(sign | ((bits - 0x38000000) >> 13));
}

static inline uint16_t bfloat_from_float(float f)
{
    uint32_t bits = bits_of(f);
    if (f != f)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float float_from_half(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 0x3ff;
    if (exponent == 0)
        return float_of(sign | bits_of((float)fraction * 0x1p-24f));
    return float_of(sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13);
}

/* An index that no class has: the sidecar counts it as invalid. */
#define NO_CLASS INT32_MIN

static inline int32_t label_from_signed(int64_t x)
{
    return x < INT32_MIN || x > INT32_MAX ? NO_CLASS : (int32_t)x;
}

static inline int32_t label_from_unsigned(uint64_t x)
{
    return x > INT32_MAX ? NO_CLASS : (int32_t)x;
}

static inline int32_t label_from_real(double x)
{
    if (x != x)
        return -1;
    return x >= INT32_MIN && x <= INT32_MAX ? (int32_t)x : NO_CLASS;
}

static inline bool never(double x)
{
    (void)x;
    return false;
}

/* Neither an integer nor NaN. From 2^53 on every finite double is an integer. */
static inline bool is_fraction(double x)
{
    if (x != x)
        return false;
    return fabs(x) < 0x1p53 ? (double)(int64_t)x != x : isinf(x) != 0;
}

/* Negative ones are huge here. */
static inline bool is_no_segment(uint64_t x)
{
    return x > UINT16_MAX;
}

/* ---- many numbers: one loop for every element type and target ---- */

#define AS_IS(x) (x)
#define AS_TRUTH(x) ((x) != 0)

/* E: name, C type, how to read it, its label, whether it is no class index. */
#define REAL_ELEMENTS(E)                                            \
    E(f16, uint16_t, float_from_half, label_from_real, is_fraction) \
    E(f32, float, AS_IS, label_from_real, is_fraction)              \
    E(f64, double, AS_IS, label_from_real, is_fraction)
#define INTEGER_ELEMENTS(E)                             \
    E(i8, int8_t, AS_IS, label_from_signed, never)      \
    E(i16, int16_t, AS_IS, label_from_signed, never)    \
    E(i32, int32_t, AS_IS, label_from_signed, never)    \
    E(i64, int64_t, AS_IS, label_from_signed, never)    \
    E(u8, uint8_t, AS_IS, label_from_unsigned, never)   \
    E(u16, uint16_t, AS_IS, label_from_unsigned, never) \
    E(u32, uint32_t, AS_IS, label_from_unsigned, never) \
    E(u64, uint64_t, AS_IS, label_from_unsigned, never) \
    E(truth, uint8_t, AS_TRUTH, label_from_unsigned, never)

#define EACH(S, stride, statement)                            \
    for (size_t i = 0; i < n; i++) {                          \
        S x;                                                  \
        memcpy(&x, from + (ptrdiff_t)i * (stride), sizeof x); \
        statement;                                            \
    }

/* Twice: with a constant stride the compiler can vectorise. */
#define EACH_OF_ANY_STRIDE(S, statement)         \
    if (stride == (ptrdiff_t)sizeof(S))          \
        EACH(S, (ptrdiff_t)sizeof(S), statement) \
    else                                         \
        EACH(S, stride, statement)

#define CONVERSION(name, S, T, value)                                                       \
    static void name(void *restrict to, const char *restrict from, size_t n, ptrdiff_t stride) \
    {                                                                                       \
        T *out = to;                                                                        \
        EACH_OF_ANY_STRIDE(S, out[i] = (T)(value))                                          \
    }

/* The index of the first number that is not what it should be, n when all are. */
#define SEARCH(name, S, bad)                                              \
    static size_t name(const char *from, size_t n, ptrdiff_t stride)      \
    {                                                                     \
        EACH_OF_ANY_STRIDE(S, if (bad) return i)                          \
        return n;                                                         \
    }

#define CONVERSIONS(name, S, number, label, fraction)                                               \
    CONVERSION(name##_to_half, S, uint16_t, half_from_float(narrow_to_odd((double)number(x))))      \
    CONVERSION(name##_to_bfloat, S, uint16_t, bfloat_from_float(narrow_to_odd((double)number(x))))  \
    CONVERSION(name##_to_float, S, float, number(x))                                                \
    CONVERSION(name##_to_double, S, double, number(x))                                              \
    CONVERSION(name##_to_label, S, int32_t, label(number(x)))                                       \
    CONVERSION(name##_to_flag, S, uint8_t, number(x) != 0)                                          \
    SEARCH(name##_fraction, S, fraction((double)number(x)))                                         \
    SEARCH(name##_unflag, S, !(number(x) == 0 || number(x) == 1))
#define INTEGER_CONVERSIONS(name, S, number, label, fraction)    \
    CONVERSION(name##_to_id, S, uint64_t, number(x))             \
    CONVERSION(name##_to_segment, S, uint16_t, number(x))        \
    SEARCH(name##_unsegment, S, is_no_segment((uint64_t)number(x)))

REAL_ELEMENTS(CONVERSIONS)
INTEGER_ELEMENTS(CONVERSIONS)
INTEGER_ELEMENTS(INTEGER_CONVERSIONS)

#define ELEMENT_NAME(name, S, number, label, fraction) E_##name,
enum element { REAL_ELEMENTS(ELEMENT_NAME) INTEGER_ELEMENTS(ELEMENT_NAME) ELEMENTS };

typedef size_t search_fn(const char *from, size_t n, ptrdiff_t stride);

static const struct {
    size_t size;
    void (*to[TARGETS])(void *restrict to, const char *restrict from, size_t n, ptrdiff_t stride); /* NULL = cannot be */
    search_fn *fraction, *unflag, *unsegment;
} elements[ELEMENTS] = {
#define ELEMENT_ROW(name, S, to_id, to_segment, search)                                                 \
    [E_##name] = {sizeof(S),                                                                            \
                  {[TO_F16] = name##_to_half, [TO_BF16] = name##_to_bfloat, [TO_F32] = name##_to_float, \
                   [TO_F64] = name##_to_double, [TO_LABEL] = name##_to_label, [TO_FLAG] = name##_to_flag, \
                   [TO_ID] = to_id, [TO_SEGMENT] = to_segment},                                         \
                  name##_fraction,                                                                      \
                  name##_unflag,                                                                        \
                  search},
#define REAL_ROW(name, S, number, label, fraction) ELEMENT_ROW(name, S, NULL, NULL, NULL)
#define INTEGER_ROW(name, S, number, label, fraction) ELEMENT_ROW(name, S, name##_to_id, name##_to_segment, name##_unsegment)
    REAL_ELEMENTS(REAL_ROW) INTEGER_ELEMENTS(INTEGER_ROW)};

/* ---- a matrix ---- */

static bool same_bytes(enum element element, enum target target)
{
    switch (element) {
    case E_f16: return target == TO_F16;
    case E_f32: return target == TO_F32;
    case E_f64: return target == TO_F64;
    case E_i32: return target == TO_LABEL;
    case E_u16: return target == TO_SEGMENT;
    case E_i64:
    case E_u64: return target == TO_ID;
    default: return false;
    }
}

/* The longest evenly spaced pieces: the whole matrix, or one row each. */
struct pieces {
    size_t count, length;
    ptrdiff_t stride;
};

static struct pieces pieces_of(const struct matrix *m, size_t rows)
{
    if (m->columns == 1)
        return (struct pieces){1, rows, m->row_stride};
    if (m->row_stride == (ptrdiff_t)m->columns * m->column_stride)
        return (struct pieces){1, rows * m->columns, m->column_stride};
    return (struct pieces){rows, m->columns, m->column_stride};
}

static void convert_rows(void *to, enum target target, const struct matrix *m, size_t first, size_t rows)
{
    struct pieces p = pieces_of(m, rows);
    bool copy = same_bytes(m->element, target) && p.stride == (ptrdiff_t)elements[m->element].size;
    for (size_t i = 0; i < p.count; i++) {
        const char *from = m->data + (ptrdiff_t)(first + i) * m->row_stride;
        char *piece = (char *)to + i * p.length * target_size[target];
        if (copy)
            memcpy(piece, from, p.length * target_size[target]);
        else
            elements[m->element].to[target](piece, from, p.length, p.stride);
    }
}

/* Row-major index of the first number that `bad` finds, rows * columns when there is none. */
static size_t search_matrix(const struct matrix *m, search_fn *bad)
{
    struct pieces p = pieces_of(m, m->rows);
    for (size_t i = 0; i < p.count; i++) {
        size_t at = bad(m->data + (ptrdiff_t)i * m->row_stride, p.length, p.stride);
        if (at < p.length)
            return i * p.length + at;
    }
    return m->rows * m->columns;
}

static double number_at(const struct matrix *m, size_t row, size_t column)
{
    double number;
    const char *from = m->data + (ptrdiff_t)row * m->row_stride + (ptrdiff_t)column * m->column_stride;
    elements[m->element].to[TO_F64](&number, from, 1, 0);
    return number;
}

#endif
