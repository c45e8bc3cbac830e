/* Options in, recipe out: everything checked, copied and derived before a file is touched. */
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "producer.h"

#define MLW_DEFAULT_DIR "/dev/shm/mlwatch"
#define MLW_DEFAULT_RING (UINT64_C(8) << 20)
#define MLW_STREAM_CHARS 100

int mlw_fail(const struct mlw_why *why, int err, const char *format, ...)
{
    if (why->text != NULL && why->size > 0) {
        va_list args;
        va_start(args, format);
        vsnprintf(why->text, why->size, format, args);
        va_end(args);
    }
    return -err;
}

/* ---- checks ---- */

static size_t dtype_size(uint32_t dtype)
{
    switch (dtype) {
    case MLW_F16:
    case MLW_BF16: return 2;
    case MLW_F32: return 4;
    case MLW_F64: return 8;
    default: return 0;
    }
}

/* Bytes of the character at s as RFC 3629 has it; 0 if it is none. */
static size_t utf8_length(const unsigned char *s)
{
    if (s[0] < 0x80)
        return 1;
    size_t len = s[0] >= 0xC2 && s[0] <= 0xDF ? 2 : s[0] >= 0xE0 && s[0] <= 0xEF ? 3 : s[0] >= 0xF0 && s[0] <= 0xF4 ? 4 : 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    int overlong = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xF0 && s[1] < 0x90);
    int beyond = (s[0] == 0xED && s[1] > 0x9F) || (s[0] == 0xF4 && s[1] > 0x8F); /* surrogates, above U+10FFFF */
    return overlong || beyond ? 0 : len;
}

static int is_utf8(const char *text)
{
    for (const unsigned char *s = (const unsigned char *)text; *s != '\0';) {
        size_t len = utf8_length(s);
        if (len == 0)
            return 0;
        s += len;
    }
    return 1;
}

static int check_name(const char *name, const char *what, const struct mlw_why *why)
{
    if (name != NULL && strlen(name) > MLW_MAX_NAME)
        return mlw_fail(why, EINVAL, "%s is %zu bytes long, %u at most", what, strlen(name), MLW_MAX_NAME);
    if (name != NULL && !is_utf8(name))
        return mlw_fail(why, EINVAL, "%s is not UTF-8", what);
    return 0;
}

static int check_names(const char *const *names, uint32_t count, const char *what, const struct mlw_why *why)
{
    int err = 0;
    for (uint32_t i = 0; names != NULL && i < count && err == 0; i++)
        err = check_name(names[i], what, why);
    return err;
}

static uint8_t kind_of(const mlw_options *o, uint32_t feature)
{
    return o->feature_kinds == NULL ? MLW_NUMERICAL : o->feature_kinds[feature];
}

static int check_features(const mlw_options *o, const struct mlw_why *why)
{
    for (uint32_t i = 0; i < o->n_features; i++)
        if (kind_of(o, i) > MLW_EMBEDDING)
            return mlw_fail(why, EINVAL, "feature_kinds[%u] is %u, want MLW_NUMERICAL, MLW_CATEGORICAL or MLW_EMBEDDING", i, kind_of(o, i));
    if (o->segment_by == 0 || o->segment_by == MLW_SEGMENT_BY_ROW)
        return 0;
    if (o->segment_by > o->n_features)
        return mlw_fail(why, EINVAL, "segment_by is %u and there are %u features; want 0, a feature's index + 1, or MLW_SEGMENT_BY_ROW", o->segment_by,
                        o->n_features);
    if (kind_of(o, o->segment_by - 1) != MLW_CATEGORICAL)
        return mlw_fail(why, EINVAL, "segment_by is %u, and feature %u is not MLW_CATEGORICAL", o->segment_by, o->segment_by - 1);
    return 0;
}

static int check_options(const mlw_options *o, const struct mlw_why *why)
{
    if (o->model == NULL || o->model[0] == '\0')
        return mlw_fail(why, EINVAL, "model is required");
    if (o->task != MLW_CLASSIFICATION && o->task != MLW_REGRESSION)
        return mlw_fail(why, EINVAL, "task is %u, want MLW_CLASSIFICATION or MLW_REGRESSION", o->task);
    if (o->n_classes == 0 && o->n_features == 0)
        return mlw_fail(why, EINVAL, "n_classes and n_features are both 0: nothing to watch");
    if (o->task == MLW_CLASSIFICATION && o->n_classes == 1)
        return mlw_fail(why, EINVAL, "n_classes is 1, and a classification needs a column per class: give (1 - p, p) with n_classes 2");
    if (o->n_classes > MLW_MAX_CLASSES || o->n_features > MLW_MAX_FEATURES)
        return mlw_fail(why, EINVAL, "%u classes and %u features, at most %u and %u", o->n_classes, o->n_features, MLW_MAX_CLASSES, MLW_MAX_FEATURES);
    if (dtype_size(o->proba_dtype) == 0 || dtype_size(o->feature_dtype) == 0)
        return mlw_fail(why, EINVAL, "dtypes are %u and %u, want MLW_F16, MLW_BF16, MLW_F32 or MLW_F64", o->proba_dtype, o->feature_dtype);
    if (!isfinite(o->threshold))
        return mlw_fail(why, EINVAL, "threshold is not a finite number");
    if (o->ring_bytes > MLW_MAX_CAPACITY)
        return mlw_fail(why, EINVAL, "ring_bytes is %llu, at most %llu", (unsigned long long)o->ring_bytes, (unsigned long long)MLW_MAX_CAPACITY);
    int err = check_features(o, why);
    if (err == 0)
        err = check_name(o->model, "model", why);
    if (err == 0)
        err = check_name(o->version, "version", why);
    if (err == 0)
        err = check_name(o->instance, "instance", why);
    if (err == 0)
        err = check_names(o->class_names, o->n_classes, "a class name", why);
    if (err == 0)
        err = check_names(o->feature_names, o->n_features, "a feature name", why);
    return err;
}

/* ---- the schema's bytes ---- */

static size_t string_size(const char *s)
{
    return 2 + (s == NULL ? 0 : strlen(s));
}

static unsigned char *put_string(unsigned char *to, const char *s)
{
    uint16_t len = (uint16_t)(string_size(s) - 2);
    memcpy(to, &len, 2);
    if (len > 0)
        memcpy(to + 2, s, len);
    return to + 2 + len;
}

static size_t strings_size(const char *const *names, uint32_t count)
{
    size_t size = 0;
    for (uint32_t i = 0; i < count; i++)
        size += string_size(names == NULL ? NULL : names[i]);
    return size;
}

static unsigned char *put_strings(unsigned char *to, const char *const *names, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        to = put_string(to, names == NULL ? NULL : names[i]);
    return to;
}

static int build_schema(const mlw_options *o, struct mlw_recipe *recipe)
{
    char host[MLW_MAX_NAME + 1] = "";
    const char *instance = o->instance;
    if (instance == NULL && gethostname(host, sizeof host - 1) == 0)
        instance = host;
    size_t size = sizeof(struct mlw_schema) + o->n_features + string_size(o->model) + string_size(o->version) + string_size(instance) +
                  strings_size(o->class_names, o->n_classes) + strings_size(o->feature_names, o->n_features);
    unsigned char *to = recipe->schema = malloc(size);
    if (to == NULL)
        return -ENOMEM;
    recipe->schema_len = (uint32_t)size;
    struct mlw_schema head = {
        .n_classes = o->n_classes,
        .n_features = o->n_features,
        .proba_dtype = (uint8_t)o->proba_dtype,
        .feature_dtype = (uint8_t)o->feature_dtype,
        .task = (uint8_t)o->task,
        .threshold = o->threshold,
        .period_ns = o->period_ns,
        .reservoir_rows = o->reservoir_rows,
        .segment_by = o->segment_by,
    };
    memcpy(to, &head, sizeof head);
    to += sizeof head;
    if (o->feature_kinds != NULL)
        memcpy(to, o->feature_kinds, o->n_features);
    else
        memset(to, MLW_NUMERICAL, o->n_features);
    to += o->n_features;
    to = put_string(put_string(put_string(to, o->model), o->version), instance);
    put_strings(put_strings(to, o->class_names, o->n_classes), o->feature_names, o->n_features);
    return 0;
}

static size_t append_safe(char *to, size_t at, const char *s)
{
    for (; *s != '\0' && at < MLW_STREAM_CHARS; s++) {
        int safe = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') || *s == '-' || *s == '_';
        to[at++] = safe ? *s : '_';
    }
    return at;
}

static char *stream_name(const mlw_options *o)
{
    char *name = malloc(MLW_STREAM_CHARS + 2);
    if (name == NULL)
        return NULL;
    size_t at = append_safe(name, 0, o->model);
    if (o->version != NULL && o->version[0] != '\0' && at < MLW_STREAM_CHARS) {
        name[at++] = '@';
        at = append_safe(name, at, o->version);
    }
    name[at] = '\0';
    return name;
}

static uint64_t capacity_for(uint64_t bytes)
{
    uint64_t capacity = MLW_MIN_CAPACITY;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    while (capacity < bytes || capacity < page)
        capacity *= 2;
    return capacity;
}

static uint64_t needs_of(const mlw_options *o)
{
    uint64_t needs = o->segment_by == MLW_SEGMENT_BY_ROW ? MLW_NEEDS_SEGMENTS : 0;
    for (uint32_t i = 0; i < o->n_features; i++)
        needs |= kind_of(o, i) == MLW_EMBEDDING ? MLW_NEEDS_EMBEDDINGS : 0;
    return needs;
}

static int build_recipe(const mlw_options *o, struct mlw_recipe *recipe)
{
    const char *dir = o->dir;
    if (dir == NULL || dir[0] == '\0')
        dir = getenv("MLWATCH_DIR");
    if (dir == NULL || dir[0] == '\0')
        dir = MLW_DEFAULT_DIR;
    recipe->dir = strdup(dir);
    recipe->stream = stream_name(o);
    recipe->flags = o->flags;
    recipe->feat_incompat = needs_of(o);
    recipe->capacity = capacity_for(o->ring_bytes ? o->ring_bytes : MLW_DEFAULT_RING);
    return recipe->dir == NULL || recipe->stream == NULL ? -ENOMEM : build_schema(o, recipe);
}

/* ---- the record shapes that the schema allows ---- */

static int valid_sections(const mlw_producer *p, uint32_t sections)
{
    uint32_t truth = sections & (MLW_LABELS | MLW_LABEL_SETS | MLW_TARGETS);
    if ((sections & ~(uint32_t)(MLW_IDS | MLW_SEGMENTS)) == 0 || (truth & (truth - 1)) != 0)
        return 0;
    for (int i = 0; i < MLW_SECTIONS; i++)
        if ((sections >> i & 1) && p->row_bytes[i] == 0)
            return 0;
    return 1;
}

static uint32_t most_rows(const mlw_producer *p, uint32_t sections)
{
    uint64_t room = p->max_record - sizeof(struct mlw_record), row = 0, at[MLW_SECTIONS];
    for (int i = 0; i < MLW_SECTIONS; i++)
        row += sections >> i & 1 ? p->row_bytes[i] : 0;
    uint64_t rows = room / row;
    while (rows > 0 && mlw_place_sections(p, rows, sections, at) > room)
        rows--;
    return (uint32_t)rows;
}

static void derive_shapes(mlw_producer *p, const mlw_options *o)
{
    int classification = o->task == MLW_CLASSIFICATION;
    p->row_bytes[0] = o->n_classes * dtype_size(o->proba_dtype);
    p->row_bytes[1] = o->n_features * dtype_size(o->feature_dtype);
    p->row_bytes[2] = classification ? sizeof(int32_t) : 0;
    p->row_bytes[3] = classification ? o->n_classes : 0;
    p->row_bytes[4] = classification ? 0 : o->n_classes * sizeof(double);
    p->row_bytes[5] = sizeof(uint64_t);
    p->row_bytes[6] = o->segment_by == MLW_SEGMENT_BY_ROW ? sizeof(uint16_t) : 0;
    p->capacity = p->recipe.capacity;
    p->max_record = p->capacity / MLW_RECORDS_PER_LAP;
    for (uint32_t s = 1; s < MLW_SECTION_SETS; s++)
        p->record_rows[s] = valid_sections(p, s) ? most_rows(p, s) : 0;
}

static int check_row_fits(const mlw_producer *p, const struct mlw_why *why)
{
    uint64_t at[MLW_SECTIONS];
    uint64_t row = sizeof(struct mlw_record) + mlw_place_sections(p, 1, MLW_SECTION_SETS - 1, at);
    if (row <= p->max_record)
        return 0;
    return mlw_fail(why, EINVAL, "one row takes %llu bytes, a ring of %llu bytes takes records of %llu; set ring_bytes to %llu",
                (unsigned long long)row, (unsigned long long)p->capacity, (unsigned long long)p->max_record,
                (unsigned long long)capacity_for(row * MLW_RECORDS_PER_LAP));
}

int mlw_make_recipe(mlw_producer *p, const mlw_options *o, const struct mlw_why *why)
{
    int err = check_options(o, why);
    if (err != 0)
        return err;
    if (build_recipe(o, &p->recipe) != 0)
        return mlw_fail(why, ENOMEM, "out of memory");
    derive_shapes(p, o);
    return check_row_fits(p, why);
}

void mlw_free_recipe(struct mlw_recipe *recipe)
{
    free(recipe->dir);
    free(recipe->stream);
    free(recipe->schema);
}
