/* Private names: what a ring file is called while it is being made, and what becomes of it when its maker is killed meanwhile.
 *
 * A maker holds the producer's lock before it gives its file a size. So one that has a size and whose lock is free was left by the
 * dead. An empty one may also be between its maker's open and lock, and is given time.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "producer.h"

enum { SECONDS_TO_LOCK = 10 };

/* Of the dot, the ring's name and a random number. */
static void format_name(char out[NAME_MAX], const char *ring, unsigned long long nonce)
{
    snprintf(out, NAME_MAX, ".%.150s.%016llx.tmp", ring, nonce);
}

int mlw_create_private(int dir, const char *ring, char name[NAME_MAX])
{
    uint64_t nonce = 0;
    if (getrandom(&nonce, sizeof nonce, 0) != (ssize_t)sizeof nonce)
        nonce = mlw_now_ns() ^ (uint64_t)getpid() << 32;
    format_name(name, ring, nonce);
    return openat(dir, name, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0660);
}

/* What was taken apart must give the same name when put together: nothing but our own shape does. */
static int is_private(const char *found, const char *stream)
{
    char ring[NAME_MAX], name[NAME_MAX];
    unsigned slot;
    unsigned long long nonce;
    size_t len = strlen(stream);
    if (found[0] != '.' || strncmp(found + 1, stream, len) != 0 || sscanf(found + 1 + len, ".%2u.ring.%16llx", &slot, &nonce) != 2)
        return 0;
    snprintf(ring, sizeof ring, "%s.%u.ring", stream, slot);
    format_name(name, ring, nonce);
    return slot < MLW_MAX_SLOTS && strcmp(found, name) == 0;
}

static int past_its_open(const struct stat *st)
{
    return st->st_size > 0 || time(NULL) - st->st_mtim.tv_sec > SECONDS_TO_LOCK;
}

static void unlink_if_dead(int dir, const char *name)
{
    struct stat st;
    int fd = openat(dir, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && past_its_open(&st) && mlw_lock_as_producer(fd) == 0)
        unlinkat(dir, name, 0);
    close(fd);
}

void mlw_sweep_private(int dir, const char *stream)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* with a position of its own */
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    if (entries == NULL) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (const struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (is_private(entry->d_name, stream))
            unlink_if_dead(dir, entry->d_name);
    closedir(entries);
}
