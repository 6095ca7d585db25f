/* SPDX-License-Identifier: MIT */
/*
 * fab_queue_tasks.h - what else there is to a queue: how full it is, tasks that are done, the shutdown.
 *
 *   unfinished = items put (in tail) - dropped - done
 *
 * `done` has many writers, and each adds one by a compare-and-swap that it is not killed in the middle of.
 */
#ifndef FAB_QUEUE_TASKS_H
#define FAB_QUEUE_TASKS_H

#include "fab_queue_ends.h"

/* How many items there are: exact at some moment of the call, unless the queue is very busy. Any process. */
static inline uint32_t fab_queue_size(const struct fab_queue *q) {
    uint64_t head = atomic_load_explicit(&q->shared->head, FAB_Q7);
    uint64_t tail = 0;
    for (int look = 0; look < 8; look++) {
        uint64_t before = head;
        tail = atomic_load_explicit(&q->shared->tail, FAB_Q7);
        head = atomic_load_explicit(&q->shared->head, FAB_Q7);
        if (head == before)
            break;
        head = look == 7 ? before : head;
    }
    return fab_queue_items(head, tail);
}

/* How many items were ever put, modulo 2^31. */
static inline uint32_t fab_queue_put_count(const struct fab_queue *q) {
    return fab_queue_count(atomic_load_explicit(&q->shared->tail, FAB_Q7));
}

/* Say that `count` items that were got are done with. Returns 0; -EINVAL: there are not so many. */
static inline int fab_queue_task_done(struct fab_queue *q, uint32_t count) {
    struct fab_queue_shared *s = q->shared;
    uint32_t done = atomic_load_explicit(&s->done, FAB_Q7);
    uint32_t left;
    do {
        uint32_t put = fab_queue_count(atomic_load_explicit(&s->tail, FAB_Q7));
        left = (put - atomic_load_explicit(&s->dropped, FAB_Q7) - done) & FAB_QUEUE_MOST_ITEMS;
        if (left < count)
            return -EINVAL;
    } while (!atomic_compare_exchange_weak_explicit(&s->done, &done, done + count, FAB_Q6, FAB_Q7));
    if (left == count)
        fab_queue_ring(&s->quiet, INT_MAX);
    return 0;
}

/* Wait until no task is unfinished. Returns 0, -EAGAIN or -EINTR. */
static inline int fab_queue_join(struct fab_queue *q, int64_t deadline) {
    while (!fab_queue_granted(q, FAB_QUEUE_QUIET)) {
        int rc = fab_queue_wait(q, FAB_QUEUE_QUIET, deadline);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* Refuse puts from now on; immediately: throw away what is there, and refuse gets. Returns 0 or -EBUSY: call it
 * again. Who is killed in the middle leaves the throwing away to whoever comes by. */
static inline int fab_queue_shutdown(struct fab_queue *q, int immediate) {
    struct fab_queue_shared *s = q->shared;
    uint32_t state = immediate ? FAB_QUEUE_DROPPED : FAB_QUEUE_SHUT;
    int rc = fab_queue_lock(&s->put_lock); /* no put is under way that would succeed after this */
    if (rc != 0)
        return rc;
    if (state > fab_queue_state(q))
        atomic_store_explicit(&s->state, state, FAB_Q6);
    fab_queue_unlock(&s->put_lock);
    fab_queue_ring(&s->items, INT_MAX);
    fab_queue_ring(&s->room, INT_MAX);
    if (fab_queue_state(q) != FAB_QUEUE_DROPPED)
        return 0;
    rc = fab_queue_lock(&s->get_lock);
    if (rc != 0)
        return rc;
    fab_queue_drop(q);
    fab_queue_unlock(&s->get_lock);
    fab_queue_ring(&s->quiet, INT_MAX);
    return 0;
}

/* Allow that so many bytes of fresh memory are taken: the caller found out that they are there. */
static inline void fab_queue_allow(struct fab_queue *q, uint64_t bytes) {
    atomic_fetch_add_explicit(&q->allowance, (int64_t)bytes, memory_order_relaxed); /* see fab_queue_ensure */
}

/* Say that this queue goes to programs that may not have the `__main__` of ours; or ask whether it was said. */
static inline void fab_queue_set_travelled(struct fab_queue *q) {
    atomic_store_explicit(&q->shared->travelled, 1,
                          memory_order_relaxed); /* a hint for what is put after it */
}

static inline int fab_queue_travelled(const struct fab_queue *q) {
    return atomic_load_explicit(&q->shared->travelled, memory_order_relaxed) != 0;
}

static inline void fab_queue_tune(struct fab_queue *q, int64_t spin_ns) {
    q->spin_ns = spin_ns;
}

static inline uint64_t fab_queue_identity(const struct fab_queue *q) {
    return q->shared->identity;
}

#endif
