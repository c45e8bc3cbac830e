/* Handles: open, close, and what becomes of them in a forked child. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "producer.h"

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
        p->shape.rows = 0;
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

/* ---- handles ---- */

/* Every record counted has a number of its own: one that was in hand when its process died may lack it, and leaves it as a gap. */
static uint64_t next_seq_of(const struct mlw_producer_page *page)
{
    uint64_t next = atomic_load(&page->next_seq);
    uint64_t counted = atomic_load(&page->records) + atomic_load(&page->dropped_records[MLW_DROP_FULL]) +
                       atomic_load(&page->dropped_records[MLW_DROP_TOO_LARGE]);
    return counted == next + 1 ? counted : next;
}

static void start_using(mlw_producer *p, const struct mlw_segment *f)
{
    struct mlw_producer_page *page = (void *)(f->map + f->producer_off);
    p->fd = f->fd;
    p->map = f->map;
    p->map_len = f->len;
    p->consumer = (const void *)(f->map + f->consumer_off);
    p->tail = atomic_load_explicit(&page->tail, memory_order_relaxed);
    p->cached_head = atomic_load_explicit(&p->consumer->head, memory_order_acquire);
    p->next_seq = next_seq_of(page);
    atomic_store(&page->next_seq, p->next_seq);
    /* The consumer may have moved on, or lied, since the positions were checked. */
    if (!mlw_sound_positions(p->cached_head, p->tail, p->capacity))
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
static int attach(mlw_producer *p, const struct mlw_why *why)
{
    struct mlw_segment f;
    unsigned slot;
    int err = mlw_take_segment(&f, &p->recipe, &slot, why);
    if (err != 0)
        return err;
    char *path = path_of(&p->recipe, slot);
    if (path == NULL) {
        mlw_let_go(&f);
        return mlw_fail(why, ENOMEM, "out of memory");
    }
    free(p->path);
    p->path = path;
    start_using(p, &f);
    return 0;
}

int mlw_attach_again(mlw_producer *p)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    uint64_t now_ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    if (now_ns < p->retry_ns)
        return -ENOTCONN;
    lock_handles();
    int err = attach(p, &(struct mlw_why){NULL, 0});
    unlock_handles();
    p->retry_ns = now_ns + 1000000000u;
    return err;
}

static void dispose(mlw_producer *p)
{
    mlw_free_recipe(&p->recipe);
    free(p->path);
    free(p);
}

int mlw_open(const mlw_options *options, mlw_producer **out)
{
    if (options == NULL || out == NULL || options->size < offsetof(mlw_options, segment_by))
        return -EINVAL;
    mlw_options o = mlw_options_init(); /* what an older caller does not know has its default */
    memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
    struct mlw_why why = {o.error, o.error_size};
    mlw_producer *p = calloc(1, sizeof *p);
    if (p == NULL)
        return mlw_fail(&why, ENOMEM, "out of memory");
    p->fd = -1;
    p->page = &p->own_page;
    p->crc_instruction = mlw_crc32c_has_instruction();
    int err = mlw_make_recipe(p, &o, &why);
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
