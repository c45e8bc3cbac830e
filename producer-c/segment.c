/* Ring files: made whole before they have a name, or adopted if they are sound, or replaced.
 *
 * What others may be doing meanwhile: the sidecar maps and reads rings, and unlinks dead ones while holding their producer lock;
 * other producers of the same stream take other slots. Everything found in a file that already has a name is distrusted until checked.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "producer.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

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
static int open_dir(const struct mlw_recipe *recipe, const struct mlw_why *why)
{
    int made = mkdir(recipe->dir, 0770) == 0;
    if (made)
        (void)chmod(recipe->dir, 02770);
    else if (errno != EEXIST)
        return mlw_fail(why, errno, "cannot make the ring directory %s: %s", recipe->dir, strerror(errno));
    int dir = open(recipe->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return mlw_fail(why, errno, "cannot open the ring directory %s as uid %u gid %u: %s", recipe->dir, geteuid(), getegid(), strerror(errno));
    if (!(recipe->flags & MLW_ALLOW_DISK) && !in_memory(dir)) {
        close(dir);
        if (made)
            rmdir(recipe->dir);
        return mlw_fail(why, EMEDIUMTYPE,
                        "%s is not in memory: mount a tmpfs there (in Kubernetes an emptyDir with medium: Memory), or allow disks (MLW_ALLOW_DISK, in "
                        "Python allow_disk=True)",
                        recipe->dir);
    }
    return dir;
}

/* ---- one ring file ---- */

void mlw_let_go(struct mlw_segment *f)
{
    if (f->map != NULL)
        munmap(f->map, f->len);
    if (f->fd >= 0)
        close(f->fd);
    *f = (struct mlw_segment){.fd = -1};
}

/* A lock of the open file and not of the process: two copies of this library in one process (a Python module and a C++ one, say) must
 * not take one ring, and closing some other descriptor of the file must not drop it. Where the kernel has none, the process's lock. */
int mlw_lock_as_producer(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = MLW_LOCK_PRODUCER, .l_len = 1};
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    return errno == EINVAL && fcntl(fd, F_SETLK, &lock) == 0 ? 0 : -errno;
}

static int map_file(struct mlw_segment *f, size_t len)
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
static int populate(struct mlw_segment *f)
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

/* The kernel's zeros are in memory, and the first lap would fetch every line from there. */
static void warm(const struct mlw_segment *f)
{
    for (size_t at = 0; at < f->len; at += MLW_ALIGN)
        (void)*(const volatile unsigned char *)(f->map + at);
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
        .feat_incompat = recipe->feat_incompat,
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

static void set_regions(struct mlw_segment *f, const struct mlw_identity *id)
{
    f->producer_off = id->producer_off;
    f->consumer_off = id->consumer_off;
    f->data_off = id->data_off;
}

static uint64_t bytes_free(int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 ? fs.f_bavail * (uint64_t)fs.f_bsize : 0;
}

static int no_room(uint64_t room, const struct mlw_identity *id, const struct mlw_recipe *recipe, const struct mlw_why *why)
{
    uint64_t fits = id->capacity;
    while (fits >= MLW_MIN_CAPACITY && id->data_off + fits > room)
        fits /= 2;
    char remedy[100] = "raise its size: no ring fits into that";
    if (fits >= MLW_MIN_CAPACITY && fits >= id->page_size)
        snprintf(remedy, sizeof remedy, "raise its size, or lower ring_bytes from %llu to %llu", (unsigned long long)id->capacity, (unsigned long long)fits);
    return mlw_fail(why, ENOSPC, "no room for a ring file of %llu bytes in %s, where %llu are free: %s", (unsigned long long)id->file_len, recipe->dir,
                    (unsigned long long)room, remedy);
}

static int no_memory(int err, const struct mlw_segment *f, const struct mlw_identity *id, const struct mlw_recipe *recipe, const struct mlw_why *why)
{
    uint64_t room = ftruncate(f->fd, 0) == 0 ? bytes_free(f->fd) : 0; /* what the file has got already is room too */
    if ((err == -ENOSPC || err == -ENOMEM) && room < id->file_len)
        return no_room(room, id, recipe, why);
    return mlw_fail(why, -err, "cannot allocate a ring file of %llu bytes in %s: %s", (unsigned long long)id->file_len, recipe->dir, strerror(-err));
}

/* Locks, sizes and fills a file that has no public name yet; in this order, see private.c. */
static int initialise(struct mlw_segment *f, const struct mlw_recipe *recipe, const struct mlw_why *why)
{
    struct mlw_identity id = identity_for(recipe);
    int err = mlw_lock_as_producer(f->fd);
    if (err != 0)
        return mlw_fail(why, -err, "cannot lock a ring file in %s: %s", recipe->dir, strerror(-err));
    do /* a profiler's signals interrupt it */
        err = -posix_fallocate(f->fd, 0, (off_t)id.file_len);
    while (err == -EINTR);
    if (err == 0)
        err = map_file(f, id.file_len);
    if (err == 0)
        err = populate(f);
    if (err != 0)
        return no_memory(err, f, &id, recipe, why);
    warm(f);
    if (fchmod(f->fd, 0660) != 0) /* umask must not lock the sidecar out */
        return mlw_fail(why, errno, "cannot set the mode of a ring file in %s: %s", recipe->dir, strerror(errno));
    if (getrandom(id.uuid, sizeof id.uuid, 0) != (ssize_t)sizeof id.uuid)
        return mlw_fail(why, EIO, "the system gave no random bytes");
    id.crc = identity_crc(&id, recipe->schema);
    memcpy(f->map, &id, sizeof id);
    memcpy(f->map + sizeof id, recipe->schema, recipe->schema_len);
    set_regions(f, &id);
    return 0;
}

static int create_nameless(int dir, char temporary[NAME_MAX])
{
    temporary[0] = '\0';
    return openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0660);
}

static int link_nameless(int fd, int dir, const char *name)
{
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, self, dir, name, AT_SYMLINK_FOLLOW) == 0 ? 0 : -errno;
}

/* Gives the finished file its name. -EEXIST: somebody else was quicker. */
static int give_name(const struct mlw_segment *f, int dir, const char *temporary, const char *name, int replace)
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

enum { SLOT_TAKEN = 1 };

/* A nameless file leaves nothing behind if we die; where there are none, and to replace a ring, a private name and a rename. */
static int make_ring(struct mlw_segment *f, const struct mlw_recipe *recipe, int dir, const char *name, int replace, const struct mlw_why *why)
{
    char temporary[NAME_MAX];
    for (int nameless = !replace; nameless >= 0; nameless--) {
        *f = (struct mlw_segment){.fd = nameless ? create_nameless(dir, temporary) : mlw_create_private(dir, name, temporary)};
        if (f->fd < 0 && nameless)
            continue;
        if (f->fd < 0)
            return mlw_fail(why, errno, "cannot make a ring in %s as uid %u gid %u: %s", recipe->dir, geteuid(), getegid(), strerror(errno));
        int err = initialise(f, recipe, why);
        if (err != 0) {
            if (temporary[0] != '\0')
                unlinkat(dir, temporary, 0);
            mlw_let_go(f);
            return err;
        }
        err = give_name(f, dir, temporary, name, replace);
        if (err == 0)
            return 0;
        mlw_let_go(f);
        if (err == -EEXIST || replace) /* a sticky directory keeps another user's ring in its place */
            return SLOT_TAKEN;
        mlw_fail(why, -err, "cannot name the ring %s/%s: %s", recipe->dir, name, strerror(-err));
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

int mlw_sound_positions(uint64_t head, uint64_t tail, uint64_t capacity)
{
    return tail - head <= capacity && head % MLW_ALIGN == 0 && tail % MLW_ALIGN == 0;
}

/* Whoever may write to the file can cut it short under our stores: that must be ourselves, or our group and nobody else. */
static int is_ours(const struct stat *st)
{
    int in_group = st->st_gid == getegid() || group_member(st->st_gid);
    return st->st_uid == geteuid() || (in_group && !(st->st_mode & S_IWOTH));
}

/* Maps the locked file if it is a ring of exactly our making: same schema, same geometry, intact. */
static int adopt(struct mlw_segment *f, const struct mlw_recipe *recipe, const struct stat *st)
{
    struct mlw_identity id;
    uint64_t size = (uint64_t)st->st_size;
    if (!is_ours(st))
        return 0;
    if (pread(f->fd, &id, sizeof id, 0) != (ssize_t)sizeof id || !same_geometry(&id, recipe, size))
        return 0;
    if (map_file(f, id.file_len) != 0 || populate(f) != 0)
        return 0;
    if (memcmp(f->map + sizeof id, recipe->schema, recipe->schema_len) != 0 || id.crc != identity_crc(&id, recipe->schema))
        return 0;
    set_regions(f, &id);
    const struct mlw_producer_page *page = (const void *)(f->map + id.producer_off);
    const struct mlw_consumer_page *consumer = (const void *)(f->map + id.consumer_off);
    return !atomic_load(&consumer->quarantined) && mlw_sound_positions(atomic_load(&consumer->head), atomic_load(&page->tail), id.capacity);
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
    return head != tail && !quarantined && mlw_sound_positions(head, tail, id.capacity);
}

/* What may be done to get a slot, the cheapest first: continuing a ring takes no memory, replacing an unread one loses records. */
enum effort { CONTINUE, MAKE, MAKE_OVER_UNREAD, EFFORTS };

static int still_named(int dir, const char *name, const struct stat *held)
{
    struct stat now;
    return fstatat(dir, name, &now, AT_SYMLINK_NOFOLLOW) == 0 && now.st_dev == held->st_dev && now.st_ino == held->st_ino;
}

/* The slot's file is there: lock it, then adopt or replace it. */
static int take_existing(struct mlw_segment *f, const struct mlw_recipe *recipe, int dir, const char *name, enum effort effort, const struct mlw_why *why)
{
    struct stat st;
    *f = (struct mlw_segment){.fd = openat(dir, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)};
    if (f->fd < 0)
        return SLOT_TAKEN;
    if (fstat(f->fd, &st) != 0 || mlw_lock_as_producer(f->fd) != 0 || !still_named(dir, name, &st)) {
        mlw_let_go(f);
        return SLOT_TAKEN;
    }
    if (adopt(f, recipe, &st))
        return 0;
    if (effort == CONTINUE || (effort == MAKE && has_unread(f->fd, (uint64_t)st.st_size))) {
        mlw_let_go(f);
        return SLOT_TAKEN;
    }
    struct mlw_segment old = *f; /* its lock keeps others off the name until the rename is done */
    int err = make_ring(f, recipe, dir, name, 1, why);
    mlw_let_go(&old);
    return err;
}

static int take_slot(struct mlw_segment *f, const struct mlw_recipe *recipe, int dir, unsigned slot, enum effort effort, const struct mlw_why *why)
{
    char name[NAME_MAX];
    struct stat st;
    snprintf(name, sizeof name, "%s.%u.ring", recipe->stream, slot);
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        if (!S_ISREG(st.st_mode))
            return SLOT_TAKEN;
        return take_existing(f, recipe, dir, name, effort, why);
    }
    return effort == CONTINUE ? SLOT_TAKEN : make_ring(f, recipe, dir, name, 0, why);
}

static int take_any_slot(struct mlw_segment *f, const struct mlw_recipe *recipe, int dir, unsigned *slot, const struct mlw_why *why)
{
    for (enum effort effort = CONTINUE; effort < EFFORTS; effort++)
        for (*slot = 0; *slot < MLW_MAX_SLOTS; ++*slot) {
            int result = take_slot(f, recipe, dir, *slot, effort, why);
            if (result != SLOT_TAKEN)
                return result;
        }
    return mlw_fail(why, EUSERS, "all %u slots of stream %s in %s are in use or not writable for uid %u gid %u", MLW_MAX_SLOTS, recipe->stream, recipe->dir,
                geteuid(), getegid());
}

int mlw_take_segment(struct mlw_segment *f, const struct mlw_recipe *recipe, unsigned *slot, const struct mlw_why *why)
{
    int dir = open_dir(recipe, why);
    if (dir < 0)
        return dir;
    *f = (struct mlw_segment){.fd = -1};
    mlw_sweep_private(dir, recipe->stream);
    int err = take_any_slot(f, recipe, dir, slot, why);
    close(dir);
    return err;
}
