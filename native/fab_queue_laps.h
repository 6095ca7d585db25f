/* SPDX-License-Identifier: MIT */
/*
 * fab_queue_laps.h - where the next record goes in the ring, so that memory is used again.
 *
 *   one lap     | done           | freed ... records ... tail |            room to the end          |
 *   go back     | tail   room    | freed ... records ... pad->|                                      |
 *   jump over   | records   pad->| freed ... records          | tail           room                  |
 *
 * Most of a ring of 64 GiB has no memory, and to take and give back memory costs more than the copy. So tail goes
 * back to the beginning when it is out of the warm part, and what is in the queue is little. Should it come up with
 * the records of its last lap, because nobody gets any more, it jumps over them to behind where it turned (lap_end). It
 * goes back only when freed is in its own lap: so there are two laps at most, and lap_end is that of the last.
 *
 * Both are padding: positions go on as if the bytes had been used. lap_end is stored before the padding is
 * published; who is killed in between was in one lap, where nobody looks at it.
 */
#ifndef FAB_QUEUE_LAPS_H
#define FAB_QUEUE_LAPS_H

#include "fab_queue_memory.h"

/* Where tail is, and what is before it. Units, but for `position`. */
struct fab_queue_place {
    uint64_t position;
    uint64_t offset;
    uint64_t used;  /* from freed to tail; more than `offset`: freed is in the lap before */
    uint64_t limit; /* offset up to which records may go: one unit stays, for padding */
};

static inline struct fab_queue_place fab_queue_place(const struct fab_queue *q, uint64_t tail) {
    uint64_t ring = q->ring_bytes / FAB_QUEUE_UNIT;
    /* Q4: pairs with Q3. Our licence to overwrite what lies before it. */
    uint64_t freed = atomic_load_explicit(&q->shared->freed, FAB_Q4);
    uint64_t position = fab_queue_position(tail);
    struct fab_queue_place p = {
        .position = position, .offset = fab_queue_offset(q, position), .limit = ring - 1};
    p.used = fab_queue_units(freed, position);
    if (p.used > p.offset && p.offset < atomic_load_explicit(&q->shared->lap_end, memory_order_relaxed)) {
        uint64_t at = fab_queue_offset(q, freed); /* relaxed: lap_end is written by holders of put_lock */
        p.limit = at > 0 ? at - 1 : 0;
    }
    return p;
}

/* Is it worth it to go back to the beginning, with a record of so many units? Not from the far half: what lies behind
 * lap_end is all the room that is sure to be left. */
static inline int fab_queue_should_go_back(const struct fab_queue *q, const struct fab_queue_place *p,
                                           uint64_t span) {
    uint64_t warm = fab_queue_warm(q) / FAB_QUEUE_UNIT;
    return p->offset >= warm && p->offset <= (p->limit + 1) / 2 && p->used <= warm / 2 && span <= warm / 4;
}

/* Write padding from tail to an offset behind it; the beginning of the ring for ring's end. */
static inline int fab_queue_pad(struct fab_queue *q, struct fab_queue_place *p, uint64_t to) {
    int rc = fab_queue_ensure(q, p->offset, 1);
    if (rc != 0)
        return rc;
    *fab_queue_at(q, p->offset) = (struct fab_queue_record){.size = (to - p->offset - 1) * FAB_QUEUE_UNIT,
                                                            .check = fab_queue_check(p->position),
                                                            .encoding = FAB_QUEUE_PADDING};
    p->position = (p->position + to - p->offset) & FAB_QUEUE_POSITIONS;
    p->offset = to;
    return 0;
}

/* Give back the memory around an offset, but nothing before another. */
static inline void fab_queue_punch_from(const struct fab_queue *q, uint64_t around, uint64_t least) {
    uint64_t from = around & ~(FAB_QUEUE_DATA / FAB_QUEUE_UNIT - 1);
    uint64_t to = from + 2 * FAB_QUEUE_STEP_BYTES / FAB_QUEUE_UNIT;
    from = from > least ? from : least;
    to = to < q->ring_bytes / FAB_QUEUE_UNIT ? to : q->ring_bytes / FAB_QUEUE_UNIT;
    if (from < to)
        fab_queue_punch(q, from, to - from);
}

/* Find room for a record of so many units. Returns 0, -ENOBUFS or -ENOMEM. Holder of put_lock. */
static inline int fab_queue_make_room(struct fab_queue *q, struct fab_queue_place *p, uint64_t span) {
    uint64_t ring = q->ring_bytes / FAB_QUEUE_UNIT;
    /* relaxed: written by holders of put_lock only */
    uint64_t lap_end = atomic_load_explicit(&q->shared->lap_end, memory_order_relaxed);
    int rc = 0;
    if (p->used <= p->offset) {
        uint64_t before = p->offset - p->used; /* where freed is */
        if (p->offset + span <= p->limit && !fab_queue_should_go_back(q, p, span))
            return 0;
        if (span + 1 > before)
            return p->offset + span <= p->limit ? 0 : -ENOBUFS;
        if (lap_end > p->offset &&
            lap_end <= ring) /* what has memory behind us is dead: that of the last padding */
            fab_queue_punch_from(q, lap_end, p->offset + 1);
        atomic_store_explicit(&q->shared->lap_end, p->offset + 1, memory_order_relaxed);
        rc = fab_queue_pad(q, p, ring);
        if (rc == 0) {
            fab_queue_begin_lap(q);
            p->offset = 0;
        }
        return rc;
    }
    if (p->offset + span <= p->limit)
        return 0;
    if (p->offset >= lap_end || lap_end > ring / 2 + 1 || lap_end + span >= ring || p->offset > p->limit)
        return -ENOBUFS;
    return fab_queue_pad(q, p,
                         lap_end); /* not where the lap went to the end: what is left there is not worth it */
}

#endif
