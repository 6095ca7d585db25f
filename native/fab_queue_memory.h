/* SPDX-License-Identifier: MIT */
/*
 * fab_queue_memory.h - where the records of a queue lie, and which bytes of its ring have memory.
 *
 *            warm                                 freed      head           tail      fresh
 *   | kept: 32 MiB at most | no memory: punched out |  done    | records       | memory | none yet ... 64 GiB |
 *
 *   record   | size u64 | check u32 | encoding u32 | body | up to 16 |
 *   padding  | a record of encoding FAB_QUEUE_PADDING up to the end of the ring
 *
 * A ring so large is hardly ever gone round. Memory is taken as tail comes to it, after a look at what is left
 * (the allowance: a shortage is an error, not a SIGBUS), and given back behind head. A put that finds the queue
 * empty and itself far out begins anew at the beginning, which has memory and is in the caches: `base` says which
 * position lies there, and changes only while both locks are held and nothing is in the queue. What is killed in
 * the middle of that has changed hints, or all.
 */
#ifndef FAB_QUEUE_MEMORY_H
#define FAB_QUEUE_MEMORY_H

#include "fab_queue.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define FAB_QUEUE_PADDING 255u
#define FAB_QUEUE_WARM_BYTES (UINT64_C(32) << 20)  /* that keep their memory for as long as the queue lives */
#define FAB_QUEUE_STEP_BYTES (UINT64_C(128) << 10) /* of memory taken at a time */
#define FAB_QUEUE_FREE_BYTES (UINT64_C(1) << 20)   /* given back at a time: a system call */
#define FAB_QUEUE_REWIND_BYTES (UINT64_C(128) << 10)

struct fab_queue_record {
    uint64_t size;
    uint32_t check; /* says that this is the record of this position, and no garbage */
    uint32_t encoding;
};
static_assert(sizeof(struct fab_queue_record) == FAB_QUEUE_UNIT, "shared layout: a record");

static inline uint32_t fab_queue_check(uint64_t position) {
    return (uint32_t)position ^ UINT32_C(0x5ec0bd5e);
}

/* Units that a record takes; bodies are shorter than the ring, see fab_queue_lay. */
static inline uint64_t fab_queue_span(uint64_t body_bytes) {
    return 1 + (body_bytes + FAB_QUEUE_UNIT - 1) / FAB_QUEUE_UNIT;
}

static inline uint64_t fab_queue_warm(const struct fab_queue *q) {
    return q->ring_bytes / 4 < FAB_QUEUE_WARM_BYTES ? q->ring_bytes / 4 : FAB_QUEUE_WARM_BYTES;
}

/* Where a position lies in the ring, in units. relaxed: whoever holds a lock sees the base of that time. */
static inline uint64_t fab_queue_offset(const struct fab_queue *q, uint64_t position) {
    uint64_t base = atomic_load_explicit(&q->shared->base, memory_order_relaxed);
    return (position - base) & (q->ring_bytes / FAB_QUEUE_UNIT - 1);
}

static inline struct fab_queue_record *fab_queue_at(const struct fab_queue *q, uint64_t offset) {
    return (struct fab_queue_record *)(void *)(q->ring + offset * FAB_QUEUE_UNIT);
}

/* Have memory put under bytes of the ring. Returns 0 or -errno. What lies there stays. */
static inline int fab_queue_populate(uint8_t *at, uint64_t bytes) {
    if (madvise(at, bytes, MADV_POPULATE_WRITE) == 0)
        return 0;
    if (errno != EINVAL)
        return errno == EFAULT ? -ENOMEM : -errno;
    for (uint64_t done = 0; done < bytes; done += FAB_PAGE) /* an older kernel */
        atomic_fetch_or_explicit((_Atomic(uint8_t) *)(at + done), 0, memory_order_relaxed);
    return 0;
}

/* See to it that these units have memory. Returns 0; -ENOMEM when the allowance is too small, or the system has
 * no more. Holder of put_lock. */
static inline int fab_queue_ensure(struct fab_queue *q, uint64_t offset, uint64_t units) {
    uint64_t end = (offset + units) * FAB_QUEUE_UNIT;
    uint64_t fresh =
        atomic_load_explicit(&q->shared->fresh, memory_order_relaxed); /* relaxed: behind put_lock */
    if (end <= fresh)
        return 0;
    uint64_t start =
        offset * FAB_QUEUE_UNIT; /* fresh may be far too low, see fab_queue_rewind: not from there */
    fresh = (fresh > start ? fresh : start) & ~(FAB_QUEUE_STEP_BYTES - 1);
    end = (end + FAB_QUEUE_STEP_BYTES - 1) & ~(FAB_QUEUE_STEP_BYTES - 1);
    int64_t needed = (int64_t)(end - fresh);
    /* relaxed: a budget of this process, nothing hangs on its order */
    if (atomic_fetch_sub_explicit(&q->allowance, needed, memory_order_relaxed) < needed) {
        atomic_fetch_add_explicit(&q->allowance, needed, memory_order_relaxed);
        return -ENOMEM;
    }
    int rc = fab_queue_populate(q->ring + fresh, end - fresh);
    if (rc == 0)
        atomic_store_explicit(&q->shared->fresh, end, memory_order_relaxed);
    return rc;
}

/* Say that less of the ring has memory, before it is so. Holder of put_lock. */
static inline void fab_queue_begin_lap(struct fab_queue *q) {
    uint64_t warm = fab_queue_warm(q);
    if (atomic_load_explicit(&q->shared->fresh, memory_order_relaxed) > warm)
        atomic_store_explicit(&q->shared->fresh, warm, memory_order_relaxed);
}

/* Give the memory of units back, but for what is kept warm, and for parts of pages of any size: the kernel would take
 * the rest of the page with them. */
static inline void fab_queue_punch(const struct fab_queue *q, uint64_t offset, uint64_t units) {
    uint64_t from = offset * FAB_QUEUE_UNIT;
    uint64_t to = (from + units * FAB_QUEUE_UNIT) & ~(FAB_QUEUE_DATA - 1);
    from = (from + FAB_QUEUE_DATA - 1) & ~(FAB_QUEUE_DATA - 1);
    if (from < fab_queue_warm(q))
        from = fab_queue_warm(q);
    if (from < to && to <= q->ring_bytes)
        (void)madvise(q->ring + from, to - from, MADV_REMOVE);
}

/* Give back the memory behind head, when it is much, and let those bytes be written again. Not before head was
 * stored: who is killed in between leaves it to the next. `passed` is the offset of padding that this get has gone over, to
 * the beginning of the ring, or UINT64_MAX: behind it there may be records of the next lap. Holder of get_lock. */
static inline void fab_queue_free(struct fab_queue *q, uint64_t head, uint64_t passed) {
    uint64_t position = fab_queue_position(head);
    uint64_t freed =
        atomic_load_explicit(&q->shared->freed, memory_order_relaxed); /* relaxed: behind get_lock */
    uint64_t units = fab_queue_units(freed, position);
    uint64_t least = q->ring_bytes / 8 < FAB_QUEUE_FREE_BYTES ? q->ring_bytes / 8 : FAB_QUEUE_FREE_BYTES;
    uint64_t offset = fab_queue_offset(q, freed);
    uint64_t end = fab_queue_offset(q, position);
    if (end < offset || units != end - offset) {     /* a lap has ended in between */
        if (passed != UINT64_MAX && passed > offset) /* else its getter was killed: a little stays */
            fab_queue_punch(q, offset, passed - offset);
        freed = position - end;
        units = 0;
    } else if (units * FAB_QUEUE_UNIT < least) {
        return;
    } else if (end * FAB_QUEUE_UNIT >= fab_queue_warm(q)) { /* as fab_queue_punch does */
        units -= end & (FAB_QUEUE_DATA / FAB_QUEUE_UNIT - 1);
    }
    fab_queue_punch(q, offset, units);
    /* Q3: pairs with Q4. From here on putters may write there. */
    atomic_store_explicit(&q->shared->freed, (freed + units) & FAB_QUEUE_POSITIONS, FAB_Q3);
}

/* Lay the next record at the beginning of the ring, when the queue is empty and that is worth it. Holder of
 * put_lock; takes get_lock if nobody has it. */
static inline void fab_queue_rewind(struct fab_queue *q, uint64_t tail) {
    struct fab_queue_shared *s = q->shared;
    uint64_t position = fab_queue_position(tail);
    if (fab_queue_offset(q, position) * FAB_QUEUE_UNIT < FAB_QUEUE_REWIND_BYTES ||
        fab_queue_position(atomic_load_explicit(&s->head, memory_order_relaxed)) != position)
        return; /* relaxed: it can only become so, and what counts is behind get_lock */
    int rc = pthread_mutex_trylock(&s->get_lock);
    if (rc == EOWNERDEAD)
        rc = pthread_mutex_consistent(&s->get_lock);
    if (rc != 0)
        return;
    /* relaxed: behind both locks. Head cannot have moved: it is at tail, which is ours. */
    uint64_t fresh = atomic_load_explicit(&s->fresh, memory_order_relaxed);
    uint64_t used = fab_queue_offset(q, position) * FAB_QUEUE_UNIT;
    uint64_t lap = atomic_load_explicit(&s->lap_end, memory_order_relaxed) * FAB_QUEUE_UNIT;
    fresh = fresh > used && fresh <= q->ring_bytes ? fresh : used;
    fresh = lap > fresh && lap < q->ring_bytes ? lap : fresh;
    fresh = fresh + FAB_QUEUE_STEP_BYTES < q->ring_bytes ? fresh + FAB_QUEUE_STEP_BYTES : q->ring_bytes;
    fab_queue_begin_lap(q);
    fab_queue_punch(q, 0, fresh / FAB_QUEUE_UNIT);
    atomic_store_explicit(&s->freed, position, FAB_Q3);
    atomic_store_explicit(&s->base, position, memory_order_relaxed);
    fab_queue_unlock(&s->get_lock);
}

#endif
