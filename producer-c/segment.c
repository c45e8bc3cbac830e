/* The cold half of the producer: make, find, attach and leave ring files.
 *
 * What others may be doing meanwhile: the sidecar maps and reads rings, and unlinks dead ones while holding their producer lock;
 * other producers of the same stream take other slots. Everything found in a file that already has a name is distrusted until checked.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include "producer.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define MLW_DEFAULT_DIR "/dev/shm/mlwatch"
#define MLW_DEFAULT_RING (UINT64_C(8) << 20)
#define MLW_STREAM_CHARS 100

/* Where a failure is explained; the text goes to options->error. */
struct why {
    char *text;
    size_t size;
};

__attribute__((format(printf, 3, 4))) static int fail(const struct why *why, int err, const char *format, ...)
{
    if (why->text != NULL && why->size > 0) {
        va_list args;
        va_start(args, format);
        vsnprintf(why->text, why->size, format, args);
        va_end(args);
    }
    return -err;
}

/* ---- the process's handles, for fork ---- */

static pthread_mutex_t handles_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t handles_once = PTHREAD_ONCE_INIT;
static struct mlw_producer *handles;

static void lock_handles(void)
{
    pthread_mutex_lock(&handles_lock);
}

static void unlock_handles(void)
{
    pthread_mutex_unlock(&handles_lock);
}

/* The rings belong to the parent, and MADV_DONTFORK has kept their maps out of the child. Closing the child's descriptors leaves the
 * locks to the parent's: they last until the last descriptor of the open file is gone. */
static void detach_all_in_child(void)
{
    for (struct mlw_producer *p = handles; p != NULL; p = p->next) {
        if (p->fd >= 0)
            close(p->fd);
        p->fd = -1;
        p->map = NULL;
        p->data = NULL;
        p->consumer = NULL;
        p->retry_ns = 0;
        p->reserved = 0;
        p->claim.len = 0;
        memset((void *)&p->own_page, 0, sizeof p->own_page);
        atomic_store_explicit(&p->page, &p->own_page, memory_order_relaxed);
        atomic_store_explicit(&p->busy, 0, memory_order_relaxed);
    }
    unlock_handles();
}

static void watch_forks(void)
{
    pthread_atfork(lock_handles, unlock_handles, detach_all_in_child);
}

/* ---- options → recipe ---- */

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

static int check_name(const char *name, const char *what, const struct why *why)
{
    if (name != NULL && strlen(name) > MLW_MAX_NAME)
        return fail(why, EINVAL, "%s is %zu bytes long, %u at most", what, strlen(name), MLW_MAX_NAME);
    if (name != NULL && !is_utf8(name))
        return fail(why, EINVAL, "%s is not UTF-8", what);
    return 0;
}

static int check_names(const char *const *names, uint32_t count, const char *what, const struct why *why)
{
    int err = 0;
    for (uint32_t i = 0; names != NULL && i < count && err == 0; i++)
        err = check_name(names[i], what, why);
    return err;
}

static int check_options(const mlw_options *o, const struct why *why)
{
    if (o->model == NULL || o->model[0] == '\0')
        return fail(why, EINVAL, "model is required");
    if (o->task != MLW_CLASSIFICATION && o->task != MLW_REGRESSION)
        return fail(why, EINVAL, "task is %u, want MLW_CLASSIFICATION or MLW_REGRESSION", o->task);
    if (o->n_classes == 0 && o->n_features == 0)
        return fail(why, EINVAL, "n_classes and n_features are both 0: nothing to watch");
    if (o->n_classes > MLW_MAX_CLASSES || o->n_features > MLW_MAX_FEATURES)
        return fail(why, EINVAL, "%u classes and %u features, at most %u and %u", o->n_classes, o->n_features, MLW_MAX_CLASSES, MLW_MAX_FEATURES);
    if (dtype_size(o->proba_dtype) == 0 || dtype_size(o->feature_dtype) == 0)
        return fail(why, EINVAL, "dtypes are %u and %u, want MLW_F16, MLW_BF16, MLW_F32 or MLW_F64", o->proba_dtype, o->feature_dtype);
    if (!isfinite(o->threshold))
        return fail(why, EINVAL, "threshold is not a finite number");
    if (o->ring_bytes > MLW_MAX_CAPACITY)
        return fail(why, EINVAL, "ring_bytes is %llu, at most %llu", (unsigned long long)o->ring_bytes, (unsigned long long)MLW_MAX_CAPACITY);
    for (uint32_t i = 0; o->feature_kinds != NULL && i < o->n_features; i++)
        if (o->feature_kinds[i] > MLW_CATEGORICAL)
            return fail(why, EINVAL, "feature_kinds[%u] is %u, want MLW_NUMERICAL or MLW_CATEGORICAL", i, o->feature_kinds[i]);
    int err = check_name(o->model, "model", why);
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
    recipe->capacity = capacity_for(o->ring_bytes ? o->ring_bytes : MLW_DEFAULT_RING);
    return recipe->dir == NULL || recipe->stream == NULL ? -ENOMEM : build_schema(o, recipe);
}

/* ---- the record shapes that the schema allows ---- */

static int valid_sections(const mlw_producer *p, uint32_t sections)
{
    uint32_t truth = sections & (MLW_LABELS | MLW_LABEL_SETS | MLW_TARGETS);
    if ((sections & ~(uint32_t)MLW_IDS) == 0 || (truth & (truth - 1)) != 0)
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
    p->capacity = p->recipe.capacity;
    p->max_record = p->capacity / MLW_RECORDS_PER_LAP;
    for (uint32_t s = 1; s < MLW_SECTION_SETS; s++)
        p->record_rows[s] = valid_sections(p, s) ? most_rows(p, s) : 0;
}

static int check_row_fits(const mlw_producer *p, const struct why *why)
{
    uint64_t at[MLW_SECTIONS];
    uint64_t row = sizeof(struct mlw_record) + mlw_place_sections(p, 1, MLW_SECTION_SETS - 1, at);
    if (row <= p->max_record)
        return 0;
    return fail(why, EINVAL, "one row takes %llu bytes, a ring of %llu bytes takes records of %llu; set ring_bytes to %llu",
                (unsigned long long)row, (unsigned long long)p->capacity, (unsigned long long)p->max_record,
                (unsigned long long)capacity_for(row * MLW_RECORDS_PER_LAP));
}

/* ---- the directory ---- */

static int in_memory(int dir)
{
    struct statfs fs;
    if (fstatfs(dir, &fs) != 0)
        return 0;
    const unsigned long tmpfs = 0x01021994, ramfs = 0x858458f6, hugetlbfs = 0x958458f6;
    unsigned long type = (unsigned long)fs.f_type & 0xffffffff;
    return type == tmpfs || type == ramfs || type == hugetlbfs;
}

/* Made group-writable, so that a sidecar under another user but the same group can map the rings. */
static int open_dir(const struct mlw_recipe *recipe, const struct why *why)
{
    if (mkdir(recipe->dir, 0770) == 0)
        (void)chmod(recipe->dir, 02770);
    else if (errno != EEXIST)
        return fail(why, errno, "cannot make the ring directory %s: %s", recipe->dir, strerror(errno));
    int dir = open(recipe->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return fail(why, errno, "cannot open the ring directory %s as uid %u gid %u: %s", recipe->dir, geteuid(), getegid(), strerror(errno));
    if (!(recipe->flags & MLW_ALLOW_DISK) && !in_memory(dir)) {
        close(dir);
        return fail(why, EMEDIUMTYPE, "%s is not in memory: mount a tmpfs there (in Kubernetes an emptyDir with medium: Memory), or allow disks", recipe->dir);
    }
    return dir;
}

/* ---- one ring file ---- */

struct file {
    int fd;
    unsigned char *map;
    size_t len;
    uint64_t producer_off, consumer_off, data_off;
};

static void let_go(struct file *f)
{
    if (f->map != NULL)
        munmap(f->map, f->len);
    if (f->fd >= 0)
        close(f->fd);
    *f = (struct file){.fd = -1};
}

/* A lock of the open file and not of the process: two copies of this library in one process (a Python module and a C++ one, say) must
 * not take one ring, and closing some other descriptor of the file must not drop it. Where the kernel has none, the process's lock. */
static int lock_as_producer(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = MLW_LOCK_PRODUCER, .l_len = 1};
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    return errno == EINVAL && fcntl(fd, F_SETLK, &lock) == 0 ? 0 : -errno;
}

static int map_file(struct file *f, size_t len)
{
    void *map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    f->map = map;
    f->len = len;
    /* A child that wrote through an inherited map would corrupt the parent's ring. */
    return madvise(map, len, MADV_DONTFORK) == 0 ? 0 : -errno;
}

/* After this no store into the ring can fault for want of memory: better ENOSPC now than SIGBUS in the inference loop. */
static int populate(struct file *f)
{
    if (madvise(f->map, f->len, MADV_POPULATE_WRITE) == 0)
        return 0;
    if (errno != EINVAL)
        return errno == EFAULT ? -ENOSPC : -errno;
    /* Linux before 5.14. The file is new and ours alone, or we hold its producer lock: adding 0 keeps what is there. */
    for (size_t at = 0; at < f->len; at += 4096)
        atomic_fetch_add_explicit((_Atomic uint8_t *)(f->map + at), 0, memory_order_relaxed);
    return 0;
}

static uint64_t fnv1a(const unsigned char *bytes, size_t len)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static struct mlw_identity identity_for(const struct mlw_recipe *recipe)
{
    struct mlw_identity id = {
        .magic = MLW_MAGIC_BYTES,
        .abi_major = MLW_ABI_MAJOR,
        .abi_minor = MLW_ABI_MINOR,
        .header_len = sizeof id,
        .endian_tag = MLW_ENDIAN_TAG,
        .page_size = (uint32_t)sysconf(_SC_PAGESIZE),
        .capacity = recipe->capacity,
        .record_align = MLW_ALIGN,
        .schema_len = recipe->schema_len,
        .max_record = recipe->capacity / MLW_RECORDS_PER_LAP,
        .schema_hash = fnv1a(recipe->schema, recipe->schema_len),
        .created_ns = mlw_now_ns(),
        .creator_pid = (uint32_t)getpid(),
        .creator_uid = (uint32_t)geteuid(),
    };
    id.producer_off = mlw_align_up(sizeof id + id.schema_len, id.page_size);
    id.consumer_off = id.producer_off + id.page_size;
    id.data_off = id.consumer_off + id.page_size;
    id.file_len = id.data_off + id.capacity;
    return id;
}

static uint32_t identity_crc(const struct mlw_identity *id, const unsigned char *schema)
{
    uint32_t crc = mlw_crc32c_table(0, id, offsetof(struct mlw_identity, crc));
    return mlw_crc32c_table(crc, schema, id->schema_len);
}

static void set_regions(struct file *f, const struct mlw_identity *id)
{
    f->producer_off = id->producer_off;
    f->consumer_off = id->consumer_off;
    f->data_off = id->data_off;
}

/* Sizes, fills and locks a file that has no public name yet. */
static int initialise(struct file *f, const struct mlw_recipe *recipe, const struct why *why)
{
    struct mlw_identity id = identity_for(recipe);
    int err;
    do /* a profiler's signals interrupt it */
        err = -posix_fallocate(f->fd, 0, (off_t)id.file_len);
    while (err == -EINTR);
    if (err == 0)
        err = map_file(f, id.file_len);
    if (err == 0)
        err = populate(f);
    if (err == -ENOSPC || err == -ENOMEM)
        return fail(why, ENOSPC, "no room for a ring file of %llu bytes in %s: raise its size or lower ring_bytes (now %llu)",
                    (unsigned long long)id.file_len, recipe->dir, (unsigned long long)recipe->capacity);
    if (err != 0)
        return fail(why, -err, "cannot allocate a ring file of %llu bytes in %s: %s", (unsigned long long)id.file_len, recipe->dir, strerror(-err));
    if (fchmod(f->fd, 0660) != 0) /* umask must not lock the sidecar out */
        return fail(why, errno, "cannot set the mode of a ring file in %s: %s", recipe->dir, strerror(errno));
    if (getrandom(id.uuid, sizeof id.uuid, 0) != (ssize_t)sizeof id.uuid)
        return fail(why, EIO, "the system gave no random bytes");
    id.crc = identity_crc(&id, recipe->schema);
    memcpy(f->map, &id, sizeof id);
    memcpy(f->map + sizeof id, recipe->schema, recipe->schema_len);
    set_regions(f, &id);
    err = lock_as_producer(f->fd);
    return err == 0 ? 0 : fail(why, -err, "cannot lock a ring file in %s: %s", recipe->dir, strerror(-err));
}

static void private_name(char out[NAME_MAX], const char *name)
{
    uint64_t nonce = 0;
    if (getrandom(&nonce, sizeof nonce, 0) != (ssize_t)sizeof nonce)
        nonce = mlw_now_ns() ^ (uint64_t)getpid() << 32;
    snprintf(out, NAME_MAX, ".%.150s.%016llx.tmp", name, (unsigned long long)nonce);
}

static int open_nameless(int dir, char temporary[NAME_MAX])
{
    temporary[0] = '\0';
    return openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0660);
}

static int open_private(int dir, const char *name, char temporary[NAME_MAX])
{
    private_name(temporary, name);
    return openat(dir, temporary, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0660);
}

static int link_nameless(int fd, int dir, const char *name)
{
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, self, dir, name, AT_SYMLINK_FOLLOW) == 0 ? 0 : -errno;
}

/* Gives the finished file its name. -EEXIST: somebody else was quicker. */
static int give_name(const struct file *f, int dir, const char *temporary, const char *name, int replace)
{
    if (temporary[0] == '\0')
        return link_nameless(f->fd, dir, name);
    int moved = replace ? renameat(dir, temporary, dir, name) : renameat2(dir, temporary, dir, name, RENAME_NOREPLACE);
    if (moved == 0)
        return 0;
    int err = -errno;
    unlinkat(dir, temporary, 0);
    return err;
}

/* A nameless file leaves nothing behind if we die; where there are none, and to replace a ring, a private name and a rename. */
static int make_ring(struct file *f, const struct mlw_recipe *recipe, int dir, const char *name, int replace, const struct why *why)
{
    char temporary[NAME_MAX];
    for (int nameless = !replace; nameless >= 0; nameless--) {
        *f = (struct file){.fd = nameless ? open_nameless(dir, temporary) : open_private(dir, name, temporary)};
        if (f->fd < 0 && nameless)
            continue;
        if (f->fd < 0)
            return fail(why, errno, "cannot make a ring in %s as uid %u gid %u: %s", recipe->dir, geteuid(), getegid(), strerror(errno));
        int err = initialise(f, recipe, why);
        if (err != 0) {
            if (temporary[0] != '\0')
                unlinkat(dir, temporary, 0);
            let_go(f);
            return err;
        }
        err = give_name(f, dir, temporary, name, replace);
        if (err == 0)
            return 0;
        let_go(f);
        if (err == -EEXIST)
            return err;
        fail(why, -err, "cannot name the ring %s/%s: %s", recipe->dir, name, strerror(-err));
        if (!nameless) /* a nameless file may lack /proc to be linked from; a private name does not */
            return err;
    }
    return -EIO;
}

/* ---- attaching to a file that is there ---- */

static int same_geometry(const struct mlw_identity *found, const struct mlw_recipe *recipe, uint64_t size)
{
    struct mlw_identity want = identity_for(recipe);
    memcpy(want.uuid, found->uuid, sizeof want.uuid);
    want.created_ns = found->created_ns;
    want.creator_pid = found->creator_pid;
    want.creator_uid = found->creator_uid;
    want.abi_minor = found->abi_minor;
    want.feat_compat = found->feat_compat;
    want.crc = found->crc;
    return size == want.file_len && memcmp(&want, found, sizeof want) == 0;
}

static int sound_positions(uint64_t head, uint64_t tail, uint64_t capacity)
{
    return tail - head <= capacity && head % MLW_ALIGN == 0 && tail % MLW_ALIGN == 0;
}

/* Maps the locked file if it is a ring of exactly our making: same schema, same geometry, intact. */
static int adopt(struct file *f, const struct mlw_recipe *recipe, uint64_t size)
{
    struct mlw_identity id;
    if (pread(f->fd, &id, sizeof id, 0) != (ssize_t)sizeof id || !same_geometry(&id, recipe, size))
        return 0;
    if (map_file(f, id.file_len) != 0 || populate(f) != 0)
        return 0;
    if (memcmp(f->map + sizeof id, recipe->schema, recipe->schema_len) != 0 || id.crc != identity_crc(&id, recipe->schema))
        return 0;
    set_regions(f, &id);
    const struct mlw_producer_page *page = (const void *)(f->map + id.producer_off);
    const struct mlw_consumer_page *consumer = (const void *)(f->map + id.consumer_off);
    return !atomic_load(&consumer->quarantined) && sound_positions(atomic_load(&consumer->head), atomic_load(&page->tail), id.capacity);
}

/* Whether replacing the locked file would lose records that the sidecar may still read. */
static int has_unread(int fd, uint64_t size)
{
    struct mlw_identity id;
    uint64_t head, tail, quarantined;
    if (pread(fd, &id, sizeof id, 0) != (ssize_t)sizeof id || memcmp(id.magic, MLW_MAGIC, sizeof id.magic) != 0 || id.file_len != size)
        return 0;
    if (pread(fd, &tail, sizeof tail, (off_t)id.producer_off) != (ssize_t)sizeof tail ||
        pread(fd, &head, sizeof head, (off_t)id.consumer_off) != (ssize_t)sizeof head ||
        pread(fd, &quarantined, sizeof quarantined, (off_t)(id.consumer_off + offsetof(struct mlw_consumer_page, quarantined))) !=
            (ssize_t)sizeof quarantined)
        return 0;
    return head != tail && !quarantined && sound_positions(head, tail, id.capacity);
}

enum { SLOT_TAKEN = 1 };

static int still_named(int dir, const char *name, const struct stat *held)
{
    struct stat now;
    return fstatat(dir, name, &now, AT_SYMLINK_NOFOLLOW) == 0 && now.st_dev == held->st_dev && now.st_ino == held->st_ino;
}

/* The slot's file is there: lock it, then adopt or replace it. */
static int take_existing(struct file *f, const struct mlw_recipe *recipe, int dir, const char *name, int replace_unread, const struct why *why)
{
    struct stat st;
    *f = (struct file){.fd = openat(dir, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)};
    if (f->fd < 0)
        return SLOT_TAKEN;
    if (fstat(f->fd, &st) != 0 || lock_as_producer(f->fd) != 0 || !still_named(dir, name, &st)) {
        let_go(f);
        return SLOT_TAKEN;
    }
    if (adopt(f, recipe, (uint64_t)st.st_size))
        return 0;
    if (!replace_unread && has_unread(f->fd, (uint64_t)st.st_size)) {
        let_go(f);
        return SLOT_TAKEN;
    }
    struct file old = *f; /* its lock keeps others off the name until the rename is done */
    int err = make_ring(f, recipe, dir, name, 1, why);
    let_go(&old);
    return err;
}

static int take_slot(struct file *f, const struct mlw_recipe *recipe, int dir, unsigned slot, int replace_unread, const struct why *why)
{
    char name[NAME_MAX];
    struct stat st;
    snprintf(name, sizeof name, "%s.%u.ring", recipe->stream, slot);
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        if (!S_ISREG(st.st_mode))
            return SLOT_TAKEN;
        return take_existing(f, recipe, dir, name, replace_unread, why);
    }
    int err = make_ring(f, recipe, dir, name, 0, why);
    return err == -EEXIST ? SLOT_TAKEN : err;
}

static int take_any_slot(struct file *f, const struct mlw_recipe *recipe, int dir, unsigned *slot, const struct why *why)
{
    for (int replace_unread = 0; replace_unread <= 1; replace_unread++)
        for (*slot = 0; *slot < MLW_MAX_SLOTS; ++*slot) {
            int result = take_slot(f, recipe, dir, *slot, replace_unread, why);
            if (result != SLOT_TAKEN)
                return result;
        }
    return fail(why, EUSERS, "all %u slots of stream %s in %s are in use or not writable for uid %u gid %u", MLW_MAX_SLOTS, recipe->stream, recipe->dir,
                geteuid(), getegid());
}

/* ---- handles ---- */

static void start_using(mlw_producer *p, const struct file *f)
{
    struct mlw_producer_page *page = (void *)(f->map + f->producer_off);
    p->fd = f->fd;
    p->map = f->map;
    p->map_len = f->len;
    p->consumer = (const void *)(f->map + f->consumer_off);
    p->tail = atomic_load_explicit(&page->tail, memory_order_relaxed);
    p->cached_head = atomic_load_explicit(&p->consumer->head, memory_order_acquire);
    p->next_seq = atomic_load_explicit(&page->next_seq, memory_order_relaxed);
    /* The consumer may have moved on, or lied, since the positions were checked. */
    if (!sound_positions(p->cached_head, p->tail, p->capacity))
        p->cached_head = p->tail - p->capacity;
    atomic_fetch_add(&page->attach_epoch, 1);
    atomic_store(&page->state, MLW_STATE_ATTACHED);
    atomic_store(&page->heartbeat_ns, mlw_now_ns());
    for (int i = 0; i < (int)MLW_DROP_REASONS; i++) {
        atomic_fetch_add(&page->dropped_records[i], atomic_load(&p->own_page.dropped_records[i]));
        atomic_fetch_add(&page->dropped_rows[i], atomic_load(&p->own_page.dropped_rows[i]));
    }
    atomic_store(&p->page, page);
    p->data = f->map + f->data_off;
}

static char *path_of(const struct mlw_recipe *recipe, unsigned slot)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s.%u.ring", recipe->dir, recipe->stream, slot) < 0 ? NULL : path;
}

/* With the list of handles locked. */
static int attach(mlw_producer *p, const struct why *why)
{
    int dir = open_dir(&p->recipe, why);
    if (dir < 0)
        return dir;
    struct file f = {.fd = -1};
    unsigned slot;
    int err = take_any_slot(&f, &p->recipe, dir, &slot, why);
    close(dir);
    if (err != 0)
        return err;
    char *path = path_of(&p->recipe, slot);
    if (path == NULL) {
        let_go(&f);
        return fail(why, ENOMEM, "out of memory");
    }
    free(p->path);
    p->path = path;
    start_using(p, &f);
    return 0;
}

int mlw_attach_again(mlw_producer *p, uint64_t now_ns)
{
    if (now_ns < p->retry_ns)
        return -ENOTCONN;
    lock_handles();
    int err = attach(p, &(struct why){NULL, 0});
    unlock_handles();
    p->retry_ns = now_ns + 1000000000u;
    return err;
}

static void dispose(mlw_producer *p)
{
    free(p->recipe.dir);
    free(p->recipe.stream);
    free(p->recipe.schema);
    free(p->path);
    free(p);
}

static int prepare(mlw_producer *p, const mlw_options *o, const struct why *why)
{
    p->fd = -1;
    p->page = &p->own_page;
    p->crc_instruction = mlw_crc32c_has_instruction();
    if (build_recipe(o, &p->recipe) != 0)
        return fail(why, ENOMEM, "out of memory");
    derive_shapes(p, o);
    return check_row_fits(p, why);
}

int mlw_open(const mlw_options *options, mlw_producer **out)
{
    if (options == NULL || out == NULL || options->size < sizeof *options)
        return -EINVAL;
    struct why why = {options->error, options->error_size};
    int err = check_options(options, &why);
    if (err != 0)
        return err;
    mlw_producer *p = calloc(1, sizeof *p);
    if (p == NULL)
        return fail(&why, ENOMEM, "out of memory");
    err = prepare(p, options, &why);
    if (err == 0) {
        pthread_once(&handles_once, watch_forks);
        lock_handles();
        err = attach(p, &why);
        if (err == 0) {
            p->next = handles;
            handles = p;
        }
        unlock_handles();
    }
    if (err != 0) {
        dispose(p);
        return err;
    }
    *out = p;
    return 0;
}

const char *mlw_path(const mlw_producer *p)
{
    return p == NULL ? NULL : p->path;
}

void mlw_close(mlw_producer *p)
{
    if (p == NULL)
        return;
    lock_handles();
    for (struct mlw_producer **at = &handles; *at != NULL; at = &(*at)->next)
        if (*at == p) {
            *at = p->next;
            break;
        }
    if (p->map != NULL) {
        struct mlw_producer_page *page = atomic_load(&p->page);
        atomic_store(&page->state, MLW_STATE_CLOSED);
        munmap(p->map, p->map_len);
        close(p->fd);
    }
    unlock_handles();
    dispose(p);
}
