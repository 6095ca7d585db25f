/* SPDX-License-Identifier: MIT */
/*
 * fab_queue.h - the memory of a queue: any number of producers and consumers, in any processes, none of which
 * owns it. One memfd, sealed, sparse: a header and one ring, so large that it is never full before memory is.
 *
 *   line 0   magic, version, sizes               the creator, once
 *   line 1   put_lock, fresh, head_seen, lap_end whoever holds put_lock
 *   line 2   tail                                whoever holds put_lock: the only commit point of puts
 *   line 3   get_lock, tail_seen, freed          whoever holds get_lock
 *   line 4   head                                whoever holds get_lock: the only commit point of gets
 *   line 5   base                                whoever holds both
 *   line 6   items, room, quiet: the bells       anybody: see fab_queue_wait.h
 *   line 7   state, done, dropped                see fab_queue_tasks.h
 *   64 KiB   ring                                records, see fab_queue_memory.h
 *
 *   tail and head, 64 bits:  | position, in 16 bytes: 33 bits | items so far: 31 bits |
 *
 * so that one store moves the bytes and the count: how many items there are is exact whoever is killed where.
 * Positions grow for ever, modulo 2^33, twice the largest ring. What lies between head and tail is there.
 *
 *   Q1 publish: the store of tail  -> Q2: a getter's load of tail   (the records before it)
 *   Q3 commit:  the store of freed -> Q4: a putter's load of freed  (nobody reads those bytes any more)
 *
 * Both locks are robust: of a process that is killed with one, the kernel says so to the next, and there is
 * nothing to repair, for all that is not behind a commit point is a hint that may be too low.
 */
#ifndef FAB_QUEUE_H
#define FAB_QUEUE_H

#include "fab_segment.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* Q1: release would do for the records; the order before the bell, Q6, needs more. */
#ifndef FAB_Q1
#define FAB_Q1 memory_order_seq_cst
#define FAB_Q2 memory_order_acquire
#define FAB_Q3 memory_order_release
#define FAB_Q4 memory_order_acquire
#endif

#define FAB_QUEUE_MAGIC UINT64_C(0x3165756575716266) /* "fbqueue1" */
#define FAB_QUEUE_VERSION 1u
#define FAB_QUEUE_DATA UINT64_C(65536) /* where the ring begins: a multiple of any page size */
#define FAB_QUEUE_UNIT UINT64_C(16)
#define FAB_QUEUE_LEAST_BYTES (UINT64_C(1) << 20)
#define FAB_QUEUE_MOST_BYTES (UINT64_C(1) << 36)
#define FAB_QUEUE_COUNT_BITS 31u
#define FAB_QUEUE_MOST_ITEMS ((UINT32_C(1) << FAB_QUEUE_COUNT_BITS) - 1)
#define FAB_QUEUE_POSITIONS ((UINT64_C(1) << 33) - 1)
#define FAB_QUEUE_LOCK_SLICE_NS 100000000 /* so often does who waits for a lock see to signals */

/* Somebody may sleep: see fab_queue_wait.h. */
struct fab_queue_bell {
    _Atomic(uint32_t) sleepers; /* how often somebody went to sleep << 1 | is perhaps asleep */
    _Atomic(uint32_t) rings;
};

struct fab_queue_shared {
    uint64_t magic;
    uint32_t version;
    uint32_t maxsize; /* items; FAB_QUEUE_MOST_ITEMS for a queue without limit */
    uint64_t ring_bytes;
    uint64_t file_bytes;
    uint64_t identity; /* random: tells this queue from any other */
    uint64_t lock_bytes;
    alignas(FAB_LINE) pthread_mutex_t put_lock;
    _Atomic(uint64_t) fresh;     /* bytes of the ring that have memory, in this lap; at least so many */
    _Atomic(uint64_t) head_seen; /* a head of the past */
    _Atomic(uint64_t) lap_end;   /* offset behind the padding by which tail last went back */
    alignas(FAB_LINE) _Atomic(uint64_t) tail;
    alignas(FAB_LINE) pthread_mutex_t get_lock;
    _Atomic(uint64_t) tail_seen; /* a tail of the past, not before head */
    _Atomic(uint64_t) freed;     /* position up to which bytes may be written again */
    alignas(FAB_LINE) _Atomic(uint64_t) head;
    alignas(FAB_LINE) _Atomic(uint64_t) base; /* position that lies at the beginning of the ring */
    alignas(FAB_LINE) struct fab_queue_bell items;
    struct fab_queue_bell room;
    struct fab_queue_bell quiet;
    alignas(FAB_LINE) _Atomic(uint32_t) state;
    _Atomic(uint32_t) done;      /* items of which task_done was said */
    _Atomic(uint32_t) dropped;   /* items that an immediate shutdown threw away */
    _Atomic(uint32_t) travelled; /* 1: it was sent to somebody; a hint for how to pickle */
};
static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "a locked atomic cannot be shared between processes");
static_assert(offsetof(struct fab_queue_shared, identity) == 32, "shared layout: identity");
static_assert(offsetof(struct fab_queue_shared, put_lock) == FAB_LINE, "shared layout: put_lock");
static_assert(offsetof(struct fab_queue_shared, tail) == 2 * FAB_LINE, "shared layout: tail");
static_assert(offsetof(struct fab_queue_shared, get_lock) == 3 * FAB_LINE, "shared layout: get_lock");
static_assert(offsetof(struct fab_queue_shared, head) == 4 * FAB_LINE, "shared layout: head");
static_assert(offsetof(struct fab_queue_shared, base) == 5 * FAB_LINE, "shared layout: base");
static_assert(offsetof(struct fab_queue_shared, items) == 6 * FAB_LINE, "shared layout: bells");
static_assert(offsetof(struct fab_queue_shared, state) == 7 * FAB_LINE, "shared layout: state");
static_assert(sizeof(struct fab_queue_shared) == 8 * FAB_LINE, "shared layout: size of the header");

/* How long one side's recent waits were; private, and a hint, so threads may overwrite each other's. */
struct fab_queue_pace {
    _Atomic(int64_t) mean_ns;
    _Atomic(uint32_t) failures;
    _Atomic(uint32_t) waits_until_probe;
    _Atomic(uint32_t) probe_interval;
};

/* A queue as one process sees it. Private memory; all but the hints is set once. */
struct fab_queue {
    struct fab_queue_shared *shared;
    uint8_t *ring;
    uint64_t ring_bytes; /* copies of what was checked */
    uint64_t file_bytes;
    uint32_t maxsize;
    int64_t spin_ns;            /* 0: never spin */
    _Atomic(int64_t) allowance; /* bytes of fresh memory that may be taken without a look at what is left */
    _Atomic(uint32_t) alarms;   /* bells that did not come, see fab_queue_wait.h */
    struct fab_queue_pace getting;
    struct fab_queue_pace putting;
};

static inline uint64_t fab_queue_position(uint64_t word) {
    return word >> FAB_QUEUE_COUNT_BITS;
}

static inline uint32_t fab_queue_count(uint64_t word) {
    return (uint32_t)word & FAB_QUEUE_MOST_ITEMS;
}

static inline uint64_t fab_queue_word(uint64_t position, uint32_t count) {
    return (position & FAB_QUEUE_POSITIONS) << FAB_QUEUE_COUNT_BITS | (count & FAB_QUEUE_MOST_ITEMS);
}

/* From one position or count to a later one. */
static inline uint64_t fab_queue_units(uint64_t from, uint64_t to) {
    return (to - from) & FAB_QUEUE_POSITIONS;
}

static inline uint32_t fab_queue_items(uint64_t head, uint64_t tail) {
    return (fab_queue_count(tail) - fab_queue_count(head)) & FAB_QUEUE_MOST_ITEMS;
}

/* Take a lock. Returns 0, or -EBUSY after some time, so that the caller can see to signals. What a killed owner
 * left behind needs no repair. */
static inline int fab_queue_lock(pthread_mutex_t *lock) {
    int rc = EBUSY;
    for (uint32_t round = 0; round < 100 && rc == EBUSY; round++) {
        rc = pthread_mutex_trylock(lock); /* held for some 100 ns by who is not asleep */
        if (rc == EBUSY)
            fab_cpu_relax();
    }
    if (rc == EBUSY) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        int64_t ns = until.tv_nsec + (int64_t)FAB_QUEUE_LOCK_SLICE_NS;
        until.tv_sec += ns / 1000000000;
        until.tv_nsec = ns % 1000000000;
        rc = pthread_mutex_timedlock(lock, &until);
    }
    if (rc == EOWNERDEAD)
        rc = pthread_mutex_consistent(lock);
    return rc == ETIMEDOUT ? -EBUSY : -rc;
}

static inline void fab_queue_unlock(pthread_mutex_t *lock) {
    (void)pthread_mutex_unlock(lock); /* it is ours, so it cannot fail */
}

static inline int fab_queue_lock_init(pthread_mutex_t *lock) {
    pthread_mutexattr_t attributes;
    int rc = pthread_mutexattr_init(&attributes);
    if (rc != 0)
        return -rc;
    rc = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (rc == 0)
        rc = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (rc == 0)
        rc = pthread_mutex_init(lock, &attributes);
    (void)pthread_mutexattr_destroy(&attributes);
    return -rc;
}

static inline int fab_queue_size_is_good(uint64_t ring_bytes) {
    return ring_bytes >= FAB_QUEUE_LEAST_BYTES && ring_bytes <= FAB_QUEUE_MOST_BYTES &&
           (ring_bytes & (ring_bytes - 1)) == 0;
}

/* Write the header of a new queue into zeroed memory. Returns 0 or -errno. Its creator. */
static inline int fab_queue_init(struct fab_queue_shared *s, uint64_t ring_bytes, uint32_t maxsize,
                                 uint64_t identity) {
    if (!fab_queue_size_is_good(ring_bytes) || maxsize == 0 || maxsize > FAB_QUEUE_MOST_ITEMS)
        return -EINVAL;
    int rc = fab_queue_lock_init(&s->put_lock);
    if (rc == 0)
        rc = fab_queue_lock_init(&s->get_lock);
    s->version = FAB_QUEUE_VERSION;
    s->maxsize = maxsize;
    s->ring_bytes = ring_bytes;
    s->file_bytes = FAB_QUEUE_DATA + ring_bytes;
    s->identity = identity;
    s->lock_bytes = sizeof s->put_lock;
    s->magic = FAB_QUEUE_MAGIC;
    return rc;
}

/* See to it that a mapping of so many bytes is a queue, and note its sizes. Returns 0; -EBADF: it is none, or
 * another version's; -EINVAL: its sizes contradict each other. */
static inline int fab_queue_attach(struct fab_queue *q, struct fab_queue_shared *s, uint64_t bytes) {
    if (bytes < FAB_QUEUE_DATA || s->magic != FAB_QUEUE_MAGIC || s->version != FAB_QUEUE_VERSION)
        return -EBADF;
    q->ring_bytes = s->ring_bytes;
    q->file_bytes = s->file_bytes;
    q->maxsize = s->maxsize;
    if (!fab_queue_size_is_good(q->ring_bytes) || q->file_bytes != FAB_QUEUE_DATA + q->ring_bytes ||
        q->file_bytes != bytes || q->maxsize == 0 || q->maxsize > FAB_QUEUE_MOST_ITEMS ||
        s->lock_bytes != sizeof s->put_lock)
        return -EINVAL;
    q->shared = s;
    q->ring = (uint8_t *)s + FAB_QUEUE_DATA;
    return 0;
}

static inline struct fab_queue_shared *fab_queue_map(int descriptor, uint64_t bytes) {
    int flags = MAP_SHARED | MAP_NORESERVE;
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, descriptor, 0);
    if (at == MAP_FAILED)
        return NULL;
    (void)madvise(at, bytes, MADV_DONTDUMP);
    return at;
}

/* Map a descriptor that is a queue. Returns as fab_queue_attach, or -errno. Undone by fab_queue_close. */
static inline int fab_queue_open(struct fab_queue *q, int descriptor) {
    struct stat about;
    if (fstat(descriptor, &about) != 0)
        return -errno;
    uint64_t bytes = (uint64_t)about.st_size;
    if (about.st_size < (off_t)FAB_QUEUE_DATA)
        return -EBADF;
    struct fab_queue_shared *shared = fab_queue_map(descriptor, bytes);
    if (shared == NULL)
        return -errno;
    int rc = fab_queue_attach(q, shared, bytes);
    if (rc != 0)
        (void)munmap(shared, bytes);
    return rc;
}

/* Make a queue of an empty file of FAB_QUEUE_DATA + ring_bytes, and map it. Returns 0 or -errno. */
static inline int fab_queue_create(struct fab_queue *q, int descriptor, uint64_t ring_bytes, uint32_t maxsize,
                                   uint64_t identity) {
    struct fab_queue_shared *shared = fab_queue_map(descriptor, FAB_QUEUE_DATA + ring_bytes);
    if (shared == NULL)
        return -errno;
    int rc = fab_queue_init(shared, ring_bytes, maxsize, identity);
    if (rc == 0)
        rc = fab_queue_attach(q, shared, FAB_QUEUE_DATA + ring_bytes);
    if (rc != 0)
        (void)munmap(shared, FAB_QUEUE_DATA + ring_bytes);
    return rc;
}

/* Let go of the mapping; nobody here may be using it. */
static inline void fab_queue_close(struct fab_queue *q) {
    if (q->shared != NULL)
        (void)munmap(q->shared, q->file_bytes);
    q->shared = NULL;
}

#endif
