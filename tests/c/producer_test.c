/* The C producer by itself, for the sanitizers: every path that allocates, maps, forks, shares or fails.
 *
 *     producer_test DIR
 *
 * What the bytes mean is tested against the sidecar's consumer in tests/producers.rs.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <mlwatch.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../producer-c/crc32c.h"
#include "../../producer-c/wire.h"

static const char *dir;
static int passed, failed;

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            printf("    %s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);  \
            return 0;                                                                 \
        }                                                                             \
    } while (0)

/* Where in making a ring a process is killed. */
static enum step { NEVER, BEFORE_SIZING, BEFORE_RENAMING } dies;

/* These two stand before libc's. */
int posix_fallocate(int fd, off_t at, off_t len)
{
    if (dies == BEFORE_SIZING)
        raise(SIGKILL);
    return fallocate(fd, 0, at, len) == 0 ? 0 : errno;
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    if (dies == BEFORE_RENAMING)
        raise(SIGKILL);
    return renameat2(from_dir, from, to_dir, to, 0);
}

static mlw_options options_for(const char *model)
{
    mlw_options o = mlw_options_init();
    o.model = model;
    o.dir = dir;
    o.n_classes = 3;
    o.n_features = 4;
    o.ring_bytes = 1 << 16;
    return o;
}

static mlw_producer *opened(const char *model)
{
    mlw_options o = options_for(model);
    mlw_producer *p = NULL;
    return mlw_open(&o, &p) == 0 ? p : NULL;
}

static mlw_counts counts_of(const mlw_producer *p)
{
    mlw_counts c = mlw_counts_init();
    mlw_counters(p, &c);
    return c;
}

static int write_rows(mlw_producer *p, uint32_t rows)
{
    static const float features[64 * 4];
    mlw_batch b = mlw_batch_init();
    b.rows = rows;
    b.features = features;
    return mlw_write(p, &b);
}

/* What the consumer would do when it has read everything. */
static int drain_file(const char *path)
{
    struct mlw_identity id;
    uint64_t tail;
    int fd = open(path, O_RDWR);
    int ok = pread(fd, &id, sizeof id, 0) == (ssize_t)sizeof id && pread(fd, &tail, 8, (off_t)id.producer_off) == 8 &&
             pwrite(fd, &tail, 8, (off_t)id.consumer_off) == 8;
    close(fd);
    return ok;
}

static int drain(const mlw_producer *p)
{
    return drain_file(mlw_path(p));
}

static int every_function_takes_null_and_short_structs(void)
{
    mlw_producer *p = NULL;
    mlw_options o = options_for("null");
    o.size = 8;
    CHECK(mlw_open(NULL, &p) == -EINVAL && mlw_open(&o, &p) == -EINVAL && p == NULL);
    mlw_batch b = mlw_batch_init();
    mlw_reservation r = mlw_reservation_init();
    mlw_counts c = mlw_counts_init();
    CHECK(mlw_write(NULL, &b) == -EINVAL && mlw_reserve(NULL, &r) == -EINVAL && mlw_commit(NULL) == -EINVAL);
    CHECK(mlw_discard(NULL) == -EINVAL && mlw_counters(NULL, &c) == -EINVAL && mlw_record_rows(NULL, 1) == 0);
    CHECK(mlw_path(NULL) == NULL);
    mlw_reject(NULL, 1);
    mlw_close(NULL);
    CHECK((p = opened("null")) != NULL);
    b.size = 8;
    r.size = 8;
    c.size = 8;
    CHECK(mlw_write(p, &b) == -EINVAL && mlw_reserve(p, &r) == -EINVAL && mlw_counters(p, &c) == -EINVAL);
    mlw_close(p);
    return 1;
}

static int errors_have_a_text_each(void)
{
    const int errors[] = {0, -EAGAIN, -EMSGSIZE, -EBUSY, -EINVAL, -ENOTCONN, -ENOSPC, -EACCES, -EMEDIUMTYPE, -EUSERS, -ENOENT, -ENOMEM, -EIO};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        for (size_t j = 0; j < i; j++)
            CHECK(strcmp(mlw_strerror(errors[i]), mlw_strerror(errors[j])) != 0);
    return 1;
}

static int names_that_are_not_utf8_are_refused(void)
{
    const char *bad[] = {"\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "a\xe2\x82", "\xe0\x9f\xbf"};
    const char *good[] = {"z\xc3\xbcrich", "\xe2\x82\xac", "\xf0\x9f\x90\x8d"};
    mlw_producer *p;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mlw_options o = options_for(bad[i]);
        CHECK(mlw_open(&o, &p) == -EINVAL);
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        CHECK((p = opened(good[i])) != NULL);
        mlw_close(p);
    }
    return 1;
}

static int all_slots_can_be_taken_and_the_next_is_told(void)
{
    mlw_producer *p[MLW_MAX_SLOTS], *one_more;
    for (unsigned i = 0; i < MLW_MAX_SLOTS; i++)
        CHECK((p[i] = opened("slots")) != NULL);
    char why[300] = "";
    mlw_options o = options_for("slots");
    o.error = why;
    o.error_size = sizeof why;
    CHECK(mlw_open(&o, &one_more) == -EUSERS && strstr(why, "all 64 slots") != NULL);
    for (unsigned i = 0; i < MLW_MAX_SLOTS; i++)
        mlw_close(p[i]);
    return 1;
}

/* ---- callers of before there were segments ---- */

/* A struct as long as it was then, so that the sanitizer sees any access beyond it; the compiler does not need to. */
static __attribute__((noinline)) void *as_it_was(const void *now, size_t size)
{
    void *then = malloc(size);
    memcpy(then, now, size);
    *(size_t *)then = size;
    return then;
}

static int an_older_caller_is_served_as_before(void)
{
    mlw_options o = options_for("older");
    o.segment_by = 77; /* beyond what this caller has */
    mlw_options *old_options = as_it_was(&o, offsetof(mlw_options, segment_by));
    mlw_producer *p = NULL;
    CHECK(mlw_open(old_options, &p) == 0);
    static const float proba[3 * 2];
    static const int32_t labels[2];
    mlw_batch b = mlw_batch_init();
    b.rows = 2;
    b.proba = proba;
    b.labels = labels;
    b.segments = (const uint16_t *)(const void *)labels; /* beyond, too */
    mlw_batch *old_batch = as_it_was(&b, offsetof(mlw_batch, segments));
    CHECK(mlw_write(p, old_batch) == 0 && mlw_write(p, old_batch) == 0);
    CHECK(mlw_write(p, &b) == -EINVAL); /* a newer one has segments, and the schema has none */
    mlw_reservation r = mlw_reservation_init();
    r.rows = 2;
    r.sections = MLW_PROBA | MLW_LABELS;
    mlw_reservation *old_reservation = as_it_was(&r, offsetof(mlw_reservation, segments));
    CHECK(mlw_reserve(p, old_reservation) == 0 && old_reservation->labels != NULL && mlw_commit(p) == 0);
    old_batch->size--;
    old_reservation->size--;
    old_options->size--;
    mlw_producer *none = NULL;
    CHECK(mlw_write(p, old_batch) == -EINVAL && mlw_reserve(p, old_reservation) == -EINVAL && mlw_open(old_options, &none) == -EINVAL);
    CHECK(counts_of(p).rows == 6 && counts_of(p).rejected_rows == 2);
    mlw_close(p);
    free(old_options);
    free(old_batch);
    free(old_reservation);
    return 1;
}

static int an_older_caller_cannot_reserve_what_it_has_no_pointer_for(void)
{
    mlw_options o = options_for("segments");
    o.segment_by = MLW_SEGMENT_BY_ROW;
    mlw_producer *p = NULL;
    CHECK(mlw_open(&o, &p) == 0);
    mlw_reservation r = mlw_reservation_init();
    r.rows = 1;
    r.sections = MLW_PROBA | MLW_SEGMENTS;
    CHECK(mlw_reserve(p, &r) == 0 && r.segments != NULL && ((uintptr_t)r.segments & 63) == 0 && mlw_commit(p) == 0);
    r.size = offsetof(mlw_reservation, segments);
    CHECK(mlw_reserve(p, &r) == -EINVAL && counts_of(p).records == 1);
    mlw_close(p);
    return 1;
}

static int an_older_caller_is_given_no_segments(void)
{
    mlw_options o = options_for("segments");
    o.segment_by = MLW_SEGMENT_BY_ROW;
    mlw_producer *p = NULL;
    CHECK(mlw_open(&o, &p) == 0);
    static const float proba[3];
    mlw_batch b = mlw_batch_init();
    b.rows = 1;
    b.proba = proba;
    b.segments = (const uint16_t *)1; /* whatever lies behind a shorter struct is not looked at */
    b.size = offsetof(mlw_batch, segments);
    CHECK(mlw_write(p, &b) == 0);
    mlw_reservation r = mlw_reservation_init();
    r.rows = 1;
    r.sections = MLW_PROBA;
    r.segments = (uint16_t *)1;
    r.size = offsetof(mlw_reservation, segments);
    CHECK(mlw_reserve(p, &r) == 0 && r.proba != NULL && r.segments == (uint16_t *)1 && mlw_commit(p) == 0);
    mlw_close(p);
    return 1;
}

/* ---- what is in the file ---- */

static int identity_of(const mlw_producer *p, struct mlw_identity *id)
{
    int fd = open(mlw_path(p), O_RDONLY);
    int ok = pread(fd, id, sizeof *id, 0) == (ssize_t)sizeof *id;
    close(fd);
    return ok;
}

/* What a ring of these kinds and segments says that its reader must know; all ones if it cannot be opened. */
static uint64_t needs(const char *model, const uint8_t kinds[4], uint32_t segment_by)
{
    mlw_options o = options_for(model);
    o.feature_kinds = kinds;
    o.segment_by = segment_by;
    mlw_producer *p = NULL;
    struct mlw_identity id = {.feat_incompat = UINT64_MAX};
    if (mlw_open(&o, &p) == 0 && !identity_of(p, &id))
        id.feat_incompat = UINT64_MAX - 1;
    mlw_close(p);
    return id.feat_incompat;
}

static int a_ring_says_what_its_reader_must_know(void)
{
    const uint8_t plain[4] = {MLW_NUMERICAL, MLW_CATEGORICAL}, embedding[4] = {MLW_NUMERICAL, MLW_CATEGORICAL, MLW_NUMERICAL, MLW_EMBEDDING};
    CHECK(needs("needs-1", NULL, 0) == 0 && needs("needs-2", plain, 0) == 0);
    CHECK(needs("needs-3", plain, 2) == 0); /* a reader that does not know it reports the model as a whole */
    CHECK(needs("needs-4", plain, MLW_SEGMENT_BY_ROW) == MLW_NEEDS_SEGMENTS);
    CHECK(needs("needs-5", embedding, 2) == MLW_NEEDS_EMBEDDINGS);
    CHECK(needs("needs-6", embedding, MLW_SEGMENT_BY_ROW) == (MLW_NEEDS_EMBEDDINGS | MLW_NEEDS_SEGMENTS));
    return 1;
}

static int kinds_and_segments_that_cannot_be_are_refused(void)
{
    const uint8_t kinds[4] = {MLW_NUMERICAL, MLW_CATEGORICAL, MLW_EMBEDDING, MLW_CATEGORICAL};
    const uint8_t unknown[4] = {0, 0, 0, MLW_EMBEDDING + 1};
    const uint32_t wrong[] = {1, 3, 5, UINT32_MAX - 1}; /* numerical, an embedding, beyond the features */
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK(needs("refused", kinds, wrong[i]) == UINT64_MAX);
    CHECK(needs("refused", NULL, 1) == UINT64_MAX && needs("refused", unknown, 0) == UINT64_MAX);
    CHECK(needs("taken", kinds, 2) == MLW_NEEDS_EMBEDDINGS && needs("taken", kinds, 4) == MLW_NEEDS_EMBEDDINGS);
    return 1;
}

enum { SECTIONS = 7, MOST_ROWS = 23 };

/* Bytes of each section's rows, for 3 classes and 4 features. */
static const uint64_t widths[SECTIONS] = {3 * 4, 4 * 4, 4, 3, 3 * 8, 8, 2};

/* No two bytes of a section, and no two sections, begin alike. */
static _Alignas(8) unsigned char given[SECTIONS][MOST_ROWS * 24];

static void make_up_values(void)
{
    for (unsigned i = 0; i < SECTIONS; i++)
        for (unsigned at = 0; at < sizeof given[i]; at++)
            given[i][at] = (unsigned char)(at * 7 + i * 37 + 1);
}

static int write_given(mlw_producer *p, uint32_t rows, uint32_t sections)
{
    const void *from[SECTIONS];
    for (int i = 0; i < SECTIONS; i++)
        from[i] = sections >> i & 1 ? given[i] : NULL;
    mlw_batch b = mlw_batch_init();
    b.rows = rows;
    b.proba = from[0];
    b.features = from[1];
    b.labels = from[2];
    b.label_sets = from[3];
    b.targets = from[4];
    b.ids = from[5];
    b.segments = from[6];
    return mlw_write(p, &b);
}

static int fill_given(mlw_producer *p, uint32_t rows, uint32_t sections)
{
    mlw_reservation r = mlw_reservation_init();
    r.rows = rows;
    r.sections = sections;
    int err = mlw_reserve(p, &r);
    if (err != 0)
        return err;
    void *to[SECTIONS] = {r.proba, r.features, r.labels, r.label_sets, r.targets, r.ids, r.segments};
    for (int i = 0; i < SECTIONS; i++)
        if (to[i] != NULL)
            memcpy(to[i], given[i], rows * widths[i]);
    return mlw_commit(p);
}

/* The record at the head, behind its padding, has these rows of these sections where docs/wire-format.md says; then reads on. */
static int has_given(const mlw_producer *p, uint32_t rows, uint32_t sections)
{
    static unsigned char payload[SECTIONS * MOST_ROWS * 24];
    struct mlw_identity id;
    struct mlw_record r;
    uint64_t head, at = 0;
    int fd = open(mlw_path(p), O_RDONLY);
    CHECK(identity_of(p, &id) && pread(fd, &head, 8, (off_t)id.consumer_off) == 8);
    do {
        CHECK(pread(fd, &r, sizeof r, (off_t)(id.data_off + head % id.capacity)) == (ssize_t)sizeof r && r.pos == head);
        head += r.rec_len;
    } while (r.kind == MLW_KIND_PADDING);
    CHECK(r.kind == MLW_KIND_DATA && r.rows == rows && r.sections == sections && r.payload_len <= sizeof payload);
    CHECK(pread(fd, payload, r.payload_len, (off_t)(id.data_off + r.pos % id.capacity + sizeof r)) == (ssize_t)r.payload_len);
    close(fd);
    for (int i = 0; i < SECTIONS; i++)
        if (sections >> i & 1) {
            CHECK(memcmp(payload + at, given[i], rows * widths[i]) == 0);
            at = (at + rows * widths[i] + MLW_ALIGN - 1) / MLW_ALIGN * MLW_ALIGN;
        }
    CHECK(at == r.payload_len && r.rec_len == sizeof r + at);
    return drain(p);
}

static int may_be(uint32_t sections, uint32_t truths)
{
    uint32_t truth = sections & (MLW_LABELS | MLW_LABEL_SETS | MLW_TARGETS);
    return (sections & ~(uint32_t)(MLW_IDS | MLW_SEGMENTS)) != 0 && (truth & (truth - 1)) == 0 && (truth & ~truths) == 0;
}

static int every_section_is_where_it_should_be_for(uint32_t task, uint32_t truths)
{
    mlw_options o = options_for(task == MLW_REGRESSION ? "sections-r" : "sections-c");
    o.task = task;
    o.segment_by = MLW_SEGMENT_BY_ROW;
    mlw_producer *p = NULL;
    CHECK(mlw_open(&o, &p) == 0);
    for (uint32_t sections = 1; sections < 1 << SECTIONS; sections++) {
        CHECK((mlw_record_rows(p, sections) > 0) == may_be(sections, truths));
        for (uint32_t rows = 1; rows <= MOST_ROWS && may_be(sections, truths); rows += 11) {
            CHECK(write_given(p, rows, sections) == 0 && has_given(p, rows, sections));
            CHECK(fill_given(p, rows, sections) == 0 && has_given(p, rows, sections));
        }
    }
    mlw_close(p);
    return 1;
}

static int every_section_is_where_it_should_be_with_any_others(void)
{
    make_up_values();
    return every_section_is_where_it_should_be_for(MLW_CLASSIFICATION, MLW_LABELS | MLW_LABEL_SETS) &&
           every_section_is_where_it_should_be_for(MLW_REGRESSION, MLW_TARGETS);
}

static int full_then_drained_then_full_again(void)
{
    mlw_producer *p = opened("laps");
    CHECK(p != NULL);
    uint64_t produced = 0;
    for (int lap = 0; lap < 200; lap++) {
        for (uint32_t rows = 1; rows <= 64; rows++) {
            int err = write_rows(p, rows);
            CHECK(err == 0 || err == -EAGAIN);
            produced += rows;
        }
        CHECK(lap % 3 != 2 || drain(p));
    }
    mlw_counts c = counts_of(p);
    CHECK(c.rows + c.dropped_rows == produced && c.full_rows == c.dropped_rows && c.full_rows > 0);
    mlw_close(p);
    return 1;
}

static int reserve_row(mlw_producer *p)
{
    mlw_reservation r = mlw_reservation_init();
    r.rows = 1;
    r.sections = MLW_FEATURES;
    int err = mlw_reserve(p, &r);
    if (err == 0)
        memset(r.features, 0, 4 * sizeof(float));
    return err;
}

static int write_row(mlw_producer *p)
{
    return write_rows(p, 1);
}

static int reserve_and_commit_row(mlw_producer *p)
{
    int err = reserve_row(p);
    return err ? err : mlw_commit(p);
}

/* `first` makes a record of one row, as the parent did last: what the parent knows of that shape is of the parent's ring. */
static int child_writes_its_own(mlw_producer *p, int (*first)(mlw_producer *))
{
    char parents[512];
    snprintf(parents, sizeof parents, "%s", mlw_path(p));
    int ok = first(p) == 0 && strcmp(mlw_path(p), parents) != 0 && counts_of(p).rows == 1;
    ok = ok && write_rows(p, 2) == 0 && counts_of(p).rows == 3;
    mlw_close(p);
    return ok;
}

static int a_forked_child_opens_a_ring_of_its_own_whose_first_call_is(const char *model, int (*first)(mlw_producer *))
{
    mlw_producer *p = opened(model);
    CHECK(p != NULL && write_rows(p, 5) == 0);
    CHECK(reserve_row(p) == 0); /* the child must not inherit the open reservation */
    pid_t child = fork();
    if (child == 0)
        _exit(child_writes_its_own(p, first) ? 0 : 1);
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(mlw_commit(p) == 0 && write_rows(p, 1) == 0 && counts_of(p).rows == 7);
    mlw_close(p);
    return 1;
}

static int a_forked_child_opens_a_ring_of_its_own(void)
{
    return a_forked_child_opens_a_ring_of_its_own_whose_first_call_is("fork-write", write_row) &&
           a_forked_child_opens_a_ring_of_its_own_whose_first_call_is("fork-reserve", reserve_and_commit_row);
}

static int a_child_without_a_ring_counts_its_drops(void)
{
    char inner[400];
    snprintf(inner, sizeof inner, "%s/inner", dir);
    mlw_options o = options_for("detached");
    o.dir = inner;
    mlw_producer *p;
    CHECK(mlw_open(&o, &p) == 0 && write_rows(p, 3) == 0);
    pid_t child = fork();
    if (child == 0) {
        if (unlink(mlw_path(p)) != 0 || rmdir(inner) != 0 || symlink("/nowhere/at/all", inner) != 0)
            _exit(2);
        int ok = write_rows(p, 3) == -ENOTCONN && write_rows(p, 4) == -ENOTCONN;
        mlw_counts c = counts_of(p);
        ok = ok && c.detached_records == 2 && c.detached_rows == 7 && c.dropped_rows == 7;
        mlw_close(p);
        _exit(ok ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    mlw_close(p);
    return 1;
}

/* ---- files that the dead leave ---- */

static const char *inside(char path[600], const char *name)
{
    snprintf(path, 600, "%s/%s", dir, name);
    return path;
}

/* Makes a file of the ring directory; its descriptor. */
static int made(const char *name, off_t size, time_t age)
{
    char path[600];
    struct timespec then[2] = {{.tv_sec = time(NULL) - age}, {.tv_sec = time(NULL) - age}};
    int fd = open(inside(path, name), O_CREAT | O_RDWR, 0660);
    return ftruncate(fd, size) == 0 && futimens(fd, then) == 0 ? fd : -1;
}

static int is_there(const char *name)
{
    char path[600];
    struct stat st;
    return lstat(inside(path, name), &st) == 0;
}

static int private_files_of_the_dead_are_removed_and_nothing_else(void)
{
    const char *stay[] = {
        ".sweep.0.ring.0123456789abcde.tmp",   /* a digit short */
        ".sweep.0.ring.0123456789ABCDEF.tmp",  /* not our digits */
        ".sweep.00.ring.0123456789abcdef.tmp", /* not our slots */
        ".sweep.64.ring.0123456789abcdef.tmp",
        ".sweep.0.ring.0123456789abcdef.tmp.x",
        ".sweeper.0.ring.0123456789abcdef.tmp", /* another stream's */
    };
    const char *empty = ".sweep.2.ring.0123456789abcdef.tmp", *held = ".sweep.3.ring.0123456789abcdef.tmp";
    const char *old = ".sweep.4.ring.0123456789abcdef.tmp", *dead = ".sweep.63.ring.0123456789abcdef.tmp";
    const char *elsewhere = ".sweep.5.ring.0123456789abcdef.tmp";
    char path[600];
    for (size_t i = 0; i < sizeof stay / sizeof *stay; i++)
        close(made(stay[i], 100, 3600));
    int holder = made(held, 100, 3600);
    struct flock lock = {.l_type = F_WRLCK, .l_start = MLW_LOCK_PRODUCER, .l_len = 1};
    CHECK(holder >= 0 && fcntl(holder, F_OFD_SETLK, &lock) == 0);
    close(made(empty, 0, 0));
    close(made(old, 0, 3600));
    close(made(dead, 100, 0));
    CHECK(symlink(stay[0], inside(path, elsewhere)) == 0);
    mlw_producer *p = opened("sweep");
    CHECK(p != NULL);
    mlw_close(p);
    for (size_t i = 0; i < sizeof stay / sizeof *stay; i++)
        CHECK(is_there(stay[i]));
    CHECK(is_there(empty) && is_there(held) && is_there(elsewhere) && !is_there(old) && !is_there(dead));
    close(holder);
    mlw_close(opened("sweep"));
    CHECK(!is_there(held));
    return 1;
}

/* For how many of the files whose names begin so `act` says yes; all of them without it. */
static int each_file(const char *beginning, int (*act)(const char *path))
{
    char path[600];
    int count = 0;
    DIR *entries = opendir(dir);
    for (const struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (strncmp(entry->d_name, beginning, strlen(beginning)) == 0)
            count += act == NULL || act(inside(path, entry->d_name));
    closedir(entries);
    return count;
}

static int has_a_size(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && st.st_size > 0;
}

static int back_dated(const char *path)
{
    const struct timespec then[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    return utimensat(AT_FDCWD, path, then, 0) == 0;
}

static pid_t crashing(uint32_t n_features, enum step step)
{
    pid_t child = fork();
    if (child != 0)
        return child;
    mlw_options o = options_for("crash");
    o.n_features = n_features;
    mlw_producer *p;
    dies = step;
    if (mlw_open(&o, &p) != 0)
        _exit(1);
    for (;;)
        write_rows(p, 1);
}

static int killed(pid_t child)
{
    int status;
    return waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static int a_crash_loop_leaves_one_ring(void)
{
    srand(1);
    mlw_close(opened("crash"));
    for (uint32_t i = 0; i < 200; i++) {
        if (i % 5 == 0) {
            CHECK(killed(crashing(5 + i, i % 2 ? BEFORE_SIZING : BEFORE_RENAMING))); /* a schema of its own: it replaces the ring */
        } else {
            pid_t child = crashing(1 + i % 3, NEVER);
            usleep((useconds_t)(rand() % 1500));
            kill(child, SIGKILL);
            CHECK(killed(child));
        }
        each_file("crash.", drain_file);
        CHECK(each_file("crash.", NULL) <= 1 && each_file(".crash.", has_a_size) <= 1);
    }
    each_file(".crash.", back_dated);
    mlw_close(opened("crash"));
    CHECK(each_file("crash.", NULL) == 1 && each_file(".crash.", NULL) == 0);
    return 1;
}

enum { SLOTS_WATCHED = 16 };

/* `guards` are locked as long as the slot is believed to be one's own. */
static int has_its_slot_alone(const int guards[SLOTS_WATCHED], uint32_t n_features)
{
    mlw_options o = options_for("alone");
    o.n_features = n_features;
    mlw_producer *p;
    unsigned slot;
    CHECK(mlw_open(&o, &p) == 0 && sscanf(strrchr(mlw_path(p), '/'), "/alone.%u.", &slot) == 1 && slot < SLOTS_WATCHED);
    CHECK(flock(guards[slot], LOCK_EX | LOCK_NB) == 0);
    CHECK(write_rows(p, 1) == 0 && drain(p));
    CHECK(flock(guards[slot], LOCK_UN) == 0);
    mlw_close(p);
    return 1;
}

static void take_slots_for_ever(uint32_t seed)
{
    int guards[SLOTS_WATCHED]; /* opened first, so that a kill closes them before the ring */
    char name[40];
    for (int slot = 0; slot < SLOTS_WATCHED; slot++) {
        snprintf(name, sizeof name, "guard.%d", slot);
        guards[slot] = made(name, 0, 0);
    }
    for (uint32_t i = seed; has_its_slot_alone(guards, 1 + i % 3); i++) {
    }
    _exit(1);
}

static pid_t taking_slots(uint32_t seed)
{
    pid_t child = fork();
    if (child != 0)
        return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails kills nobody */
    take_slots_for_ever(seed);
    return 0;
}

static int no_two_live_producers_have_one_slot(void)
{
    enum { ALIVE = 4, KILLS = 100 };
    pid_t alive[ALIVE];
    for (uint32_t i = 0; i < ALIVE; i++)
        alive[i] = taking_slots(i);
    for (uint32_t i = ALIVE; i < ALIVE + KILLS; i++) {
        pid_t *one = &alive[i % ALIVE];
        usleep((useconds_t)(rand() % 3000));
        kill(*one, SIGKILL);
        CHECK(killed(*one));
        *one = taking_slots(i);
    }
    for (int i = 0; i < ALIVE; i++) {
        kill(alive[i], SIGKILL);
        CHECK(killed(alive[i]));
    }
    return 1;
}

struct shared {
    mlw_producer *p;
    int calls;
    pthread_barrier_t all_there; /* or the first has done all its calls before the last one's thread is made */
};

static void *write_often(void *argument)
{
    struct shared *s = argument;
    pthread_barrier_wait(&s->all_there);
    for (int i = 0; i < s->calls; i++)
        write_rows(s->p, 1);
    return NULL;
}

static int threads_that_share_a_handle_are_counted_not_corrupting(void)
{
    enum { THREADS = 4, CALLS = 100000 };
    struct shared s = {.p = opened("threads"), .calls = CALLS};
    CHECK(s.p != NULL && pthread_barrier_init(&s.all_there, NULL, THREADS) == 0);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, write_often, &s);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    mlw_counts c = counts_of(s.p);
    CHECK(c.rows + c.dropped_rows == THREADS * CALLS && c.records + c.dropped_records == THREADS * CALLS);
    pthread_barrier_destroy(&s.all_there);
    mlw_close(s.p);
    return 1;
}

static void *open_write_close(void *unused)
{
    (void)unused;
    for (int i = 0; i < 30; i++) {
        mlw_producer *p = opened("churn");
        if (p == NULL || write_rows(p, 3) != 0)
            return (void *)1;
        mlw_close(p);
    }
    return NULL;
}

static int threads_may_open_and_close_while_another_forks(void)
{
    enum { THREADS = 3 };
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, open_write_close, NULL);
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        waitpid(child, NULL, 0);
    }
    void *wrong = NULL;
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        wrong = result ? result : wrong;
    }
    CHECK(wrong == NULL);
    return 1;
}

/* Checks every record between head and tail: rows of one feature, each row's value one more than the one's before, `*next` first. */
static int read_back(const char *path, uint64_t *next)
{
    struct mlw_identity id;
    uint64_t head, tail;
    int fd = open(path, O_RDONLY);
    CHECK(pread(fd, &id, sizeof id, 0) == (ssize_t)sizeof id);
    CHECK(pread(fd, &head, 8, (off_t)id.consumer_off) == 8 && pread(fd, &tail, 8, (off_t)id.producer_off) == 8);
    while (head < tail) {
        struct mlw_record r;
        float values[64];
        off_t at = (off_t)(id.data_off + head % id.capacity);
        CHECK(pread(fd, &r, sizeof r, at) == (ssize_t)sizeof r && r.magic == MLW_RECORD_MAGIC && r.pos == head);
        CHECK(r.crc == mlw_crc32c_table(0, &r, 60) && r.rows <= 64);
        CHECK(pread(fd, values, r.rows * sizeof *values, at + (off_t)sizeof r) == (ssize_t)(r.rows * sizeof *values));
        for (uint32_t i = 0; i < r.rows; i++)
            CHECK(values[i] == (float)((*next)++ % 1000));
        head += r.rec_len;
    }
    close(fd);
    return 1;
}

struct counting {
    mlw_producer *p;
    uint64_t next; /* rows taken */
    uint64_t read; /* rows read back */
    int ok;
    _Atomic int stop;
};

static int write_counting(struct counting *c, uint32_t rows)
{
    float values[64];
    for (uint32_t i = 0; i < rows; i++)
        values[i] = (float)((c->next + i) % 1000);
    mlw_batch b = mlw_batch_init();
    b.rows = rows;
    b.features = values;
    int err = mlw_write(c->p, &b);
    c->next += err == 0 ? rows : 0;
    return err;
}

static int all_is_there(struct counting *c)
{
    return read_back(mlw_path(c->p), &c->read) && c->read == c->next && drain(c->p);
}

static void *write_and_read_back(void *argument)
{
    struct counting *c = argument;
    for (uint32_t i = 0; c->ok && !c->stop; i++)
        if (write_counting(c, 1 + i % 64) != 0)
            c->ok = all_is_there(c);
    c->ok = c->ok && all_is_there(c);
    return NULL;
}

enum { CHILDREN = 60, CHILDS_ROWS = 20 * 21 / 2 };

/* The writing thread was anywhere in mlw_write when it was copied. */
static void write_in_child(mlw_producer *p)
{
    struct counting c = {.p = p};
    for (uint32_t rows = 1; rows <= 20; rows++)
        if (write_counting(&c, rows) != 0)
            _exit(1);
    _exit(all_is_there(&c) && c.next == CHILDS_ROWS ? 0 : 2);
}

static int children_succeed(mlw_producer *p)
{
    for (int i = 0; i < CHILDREN; i++) {
        if (fork() == 0)
            write_in_child(p);
        int status;
        if (i % 3 == 2) /* three at a time */
            for (int alive = 0; alive < 3; alive++)
                CHECK(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    return 1;
}

static uint64_t rows_of(const char *path)
{
    struct mlw_identity id;
    uint64_t rows = 0;
    int fd = open(path, O_RDONLY);
    if (pread(fd, &id, sizeof id, 0) == (ssize_t)sizeof id)
        (void)!pread(fd, &rows, 8, (off_t)(id.producer_off + offsetof(struct mlw_producer_page, rows)));
    close(fd);
    return rows;
}

static int a_thread_writes_while_another_forks_and_every_row_is_where_it_belongs(void)
{
    mlw_options o = options_for("forks");
    o.n_features = 1;
    struct counting c = {.ok = 1};
    CHECK(mlw_open(&o, &c.p) == 0);
    pthread_t writer;
    pthread_create(&writer, NULL, write_and_read_back, &c);
    int ok = children_succeed(c.p);
    c.stop = 1;
    pthread_join(writer, NULL);
    CHECK(ok && c.ok && counts_of(c.p).rows == c.next && rows_of(mlw_path(c.p)) == c.next);
    uint64_t childrens = 0;
    char name[40], path[600];
    for (int slot = 1; slot <= 3; slot++) {
        snprintf(name, sizeof name, "forks.%d.ring", slot);
        childrens += rows_of(inside(path, name));
    }
    CHECK(childrens == CHILDREN * CHILDS_ROWS && each_file("forks.", NULL) <= 4);
    mlw_close(c.p);
    return 1;
}

/* Strict seccomp kills at any system call but read, write and exit. The sanitizers make calls of their own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STRICT 0
#else
#define STRICT 1
#endif

static void write_under_seccomp(mlw_producer *p)
{
    if (STRICT && prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0)
        _exit(2);
    int ok = 1;
    for (int i = 0; i < 2000; i++) { /* several laps' worth: full rings and drops too */
        int err = write_rows(p, 1 + (uint32_t)i % 64);
        ok = ok && (err == 0 || err == -EAGAIN);
        mlw_reservation r = mlw_reservation_init();
        r.rows = 1;
        r.sections = MLW_PROBA | MLW_LABELS;
        if (mlw_reserve(p, &r) == 0)
            ok = ok && mlw_commit(p) == 0;
    }
    ok = ok && counts_of(p).full_rows > 0;
    if (!STRICT)
        _exit(ok ? 0 : 1);
    syscall(SYS_exit, ok ? 0 : 1); /* _exit is exit_group, which is not allowed */
}

static int after_open_no_call_reaches_the_system(void)
{
    pid_t child = fork();
    if (child == 0) {
        mlw_producer *p = opened("seccomp");
        if (p == NULL)
            _exit(3);
        write_under_seccomp(p);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return 1;
}

static int crc32c_by_instruction_equals_the_table(void)
{
    CHECK(mlw_crc32c_table(0, "123456789", 9) == 0xe3069283u); /* the check value of RFC 3720's polynomial */
    uint64_t w[8];
    for (int round = 0; round < 1000; round++) {
        for (int i = 0; i < 8; i++)
            w[i] = (uint64_t)(round * 8 + i + 1) * UINT64_C(0x9e3779b97f4a7c15);
        w[6] = w[7] = 0; /* as in every header, up to the checksum */
        uint32_t start = mlw_crc32c_header_start(w), whole = mlw_crc32c_table(0, w, 60);
        CHECK(mlw_crc32c_header_end(mlw_crc32c_has_instruction(), start, w[2], w[3], w[4], w[5]) == whole);
        CHECK(mlw_crc32c_header_end(0, start, w[2], w[3], w[4], w[5]) == whole);
    }
    return 1;
}

static void run(const char *name, int (*test)(void))
{
    int ok = test();
    printf("%s %s\n", ok ? "ok    " : "FAILED", name);
    passed += ok;
    failed += !ok;
}

#define RUN(test) run(#test, test)

int main(int argc, char **argv)
{
    if (argc != 2)
        return 64;
    dir = argv[1];
    setvbuf(stdout, NULL, _IONBF, 0);
    alarm(300); /* a hang is a failure */
    RUN(every_function_takes_null_and_short_structs);
    RUN(errors_have_a_text_each);
    RUN(names_that_are_not_utf8_are_refused);
    RUN(all_slots_can_be_taken_and_the_next_is_told);
    RUN(an_older_caller_is_served_as_before);
    RUN(an_older_caller_cannot_reserve_what_it_has_no_pointer_for);
    RUN(an_older_caller_is_given_no_segments);
    RUN(a_ring_says_what_its_reader_must_know);
    RUN(kinds_and_segments_that_cannot_be_are_refused);
    RUN(every_section_is_where_it_should_be_with_any_others);
    RUN(full_then_drained_then_full_again);
    RUN(a_forked_child_opens_a_ring_of_its_own);
    RUN(a_child_without_a_ring_counts_its_drops);
    RUN(private_files_of_the_dead_are_removed_and_nothing_else);
    RUN(a_crash_loop_leaves_one_ring);
    RUN(no_two_live_producers_have_one_slot);
    RUN(threads_that_share_a_handle_are_counted_not_corrupting);
    RUN(threads_may_open_and_close_while_another_forks);
    RUN(a_thread_writes_while_another_forks_and_every_row_is_where_it_belongs);
    RUN(after_open_no_call_reaches_the_system);
    RUN(crc32c_by_instruction_equals_the_table);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
