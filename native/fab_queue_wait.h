/* SPDX-License-Identifier: MIT */
/*
 * fab_queue_wait.h - wait for items, for room, for all tasks to be done: spin a little, then sleep on a bell.
 *
 *   who changes something                        who waits
 *     store tail (head, done, state)               r = rings; sleepers: one more, and ASLEEP        Q5
 *     load sleepers; not ASLEEP: done    Q6        look again: is it there?                         Q7
 *     rings++, wake as many as there is work for   sleep while rings == r
 *     nobody was asleep: not ASLEEP, unless `sleepers` has changed since
 *
 * All of these are seq_cst: either the waker sees the sleeper, or the sleeper sees the change. `sleepers` is no
 * count that somebody would have to take back: it only says that a system call may be worth it, and a waker
 * that finds nobody says no. (It must count all the same: with a bare flag, or a count that goes back to 0, a
 * waker that was stopped before its last line takes away what another sleeper has said since.) So a process that
 * is killed in its sleep leaves nothing behind. One that is killed between its change and the bell, or when it
 * was woken and has taken nothing yet, leaves others asleep: no sleep is longer than FAB_SAFETY_NS.
 */
#ifndef FAB_QUEUE_WAIT_H
#define FAB_QUEUE_WAIT_H

#include "fab_queue.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>

#ifndef FAB_Q5
#define FAB_Q5 memory_order_seq_cst
#define FAB_Q6 memory_order_seq_cst
#define FAB_Q7 memory_order_seq_cst
#endif

#define FAB_QUEUE_ASLEEP 1u /* the lowest bit of `sleepers`; above it, how often somebody went to sleep */

/* States of a queue; they only grow. */
#define FAB_QUEUE_OPEN 0u
#define FAB_QUEUE_SHUT 1u    /* no more puts; gets until it is empty */
#define FAB_QUEUE_DROPPED 2u /* no more gets either */

enum fab_queue_wish { FAB_QUEUE_ITEMS, FAB_QUEUE_ROOM, FAB_QUEUE_QUIET };

static inline uint32_t fab_queue_state(const struct fab_queue *q) {
    return atomic_load_explicit(&q->shared->state, FAB_Q7);
}

/* Items that are not done, of which none were dropped. */
static inline uint32_t fab_queue_unfinished(const struct fab_queue *q) {
    uint32_t done = atomic_load_explicit(&q->shared->done, FAB_Q7);
    uint32_t dropped = atomic_load_explicit(&q->shared->dropped, FAB_Q7);
    uint64_t tail = atomic_load_explicit(&q->shared->tail, FAB_Q7);
    return (fab_queue_count(tail) - dropped - done) & FAB_QUEUE_MOST_ITEMS;
}

/* Is there what somebody waits for, or will it never be? Any process, no lock. */
static inline int fab_queue_granted(const struct fab_queue *q, enum fab_queue_wish wish) {
    if (wish == FAB_QUEUE_QUIET)
        return fab_queue_unfinished(q) == 0;
    uint64_t head = atomic_load_explicit(&q->shared->head, FAB_Q7); /* before tail, which it never passes */
    uint64_t tail = atomic_load_explicit(&q->shared->tail, FAB_Q7);
    uint32_t items = fab_queue_items(head, tail);
    return (wish == FAB_QUEUE_ITEMS ? items > 0 : items < q->maxsize) || fab_queue_state(q) != FAB_QUEUE_OPEN;
}

static inline struct fab_queue_bell *fab_queue_bell_of(const struct fab_queue *q, enum fab_queue_wish wish) {
    return wish == FAB_QUEUE_ITEMS  ? &q->shared->items
           : wish == FAB_QUEUE_ROOM ? &q->shared->room
                                    : &q->shared->quiet;
}

static inline long fab_queue_futex(_Atomic(uint32_t) *word, int what, uint32_t value,
                                   const struct timespec *limit) {
    return syscall(SYS_futex, word, what, value, limit, NULL, 0);
}

/* Wake up to `most` of those who wait, after what they wait for was stored. Never waits. */
static inline void fab_queue_ring(struct fab_queue_bell *bell, uint32_t most) {
    uint32_t sleepers = atomic_load_explicit(&bell->sleepers, FAB_Q6);
    if ((sleepers & FAB_QUEUE_ASLEEP) == 0)
        return;
    atomic_fetch_add_explicit(&bell->rings, 1, FAB_Q6);
    if (fab_queue_futex(&bell->rings, FUTEX_WAKE, most < INT_MAX ? most : INT_MAX, NULL) == 0)
        (void)atomic_compare_exchange_strong_explicit(
            &bell->sleepers, &sleepers, sleepers & ~FAB_QUEUE_ASLEEP, FAB_Q6, memory_order_relaxed);
}

/* Sleep until the bell rings, at most `limit_ns`. Returns 0, or -EINTR for a signal. What is found after a sleep
 * as long as the safety net, without a bell, is an alarm: its publisher was killed, or the order above is broken. */
static inline int fab_queue_sleep(struct fab_queue *q, enum fab_queue_wish wish, int64_t limit_ns) {
    struct fab_queue_bell *bell = fab_queue_bell_of(q, wish);
    struct timespec limit = {.tv_sec = limit_ns / 1000000000, .tv_nsec = limit_ns % 1000000000};
    struct timespec late = {.tv_nsec = FAB_LATE_BELL_NS};
    uint32_t rings = atomic_load_explicit(&bell->rings, FAB_Q5);
    uint32_t sleepers = atomic_load_explicit(&bell->sleepers, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(
        &bell->sleepers, &sleepers, (sleepers + 2) | FAB_QUEUE_ASLEEP, FAB_Q5, memory_order_relaxed))
        ;
    if (fab_queue_granted(q, wish))
        return 0;
    if (fab_queue_futex(&bell->rings, FUTEX_WAIT, rings, &limit) == 0)
        return 0;
    if (errno == ETIMEDOUT && limit_ns == FAB_SAFETY_NS && fab_queue_granted(q, wish) &&
        fab_queue_futex(&bell->rings, FUTEX_WAIT, rings, &late) != 0 && errno == ETIMEDOUT)
        atomic_fetch_add_explicit(&q->alarms, 1, memory_order_relaxed); /* for tests */
    return errno == EINTR ? -EINTR : 0;
}

static inline int fab_queue_spin(const struct fab_queue *q, enum fab_queue_wish wish, int64_t budget_ns,
                                 int64_t start) {
    for (uint32_t round = 0;; round++) {
        if (fab_queue_granted(q, wish))
            return 1;
        fab_cpu_relax();
        if ((round & 7) == 7 && fab_now() - start >= budget_ns)
            return 0;
    }
}

/* What recent waits were like, as fab_doorbell.h wants it. relaxed: hints. */
static inline struct fab_spin fab_queue_pace_read(const struct fab_queue_pace *p, int64_t limit_ns) {
    return (struct fab_spin){
        .limit_ns = limit_ns,
        .mean_ns = atomic_load_explicit(&p->mean_ns, memory_order_relaxed),
        .failures = atomic_load_explicit(&p->failures, memory_order_relaxed),
        .waits_until_probe = atomic_load_explicit(&p->waits_until_probe, memory_order_relaxed),
        .probe_interval = atomic_load_explicit(&p->probe_interval, memory_order_relaxed)};
}

static inline void fab_queue_pace_write(struct fab_queue_pace *p, const struct fab_spin *spin) {
    atomic_store_explicit(&p->mean_ns, spin->mean_ns, memory_order_relaxed);
    atomic_store_explicit(&p->failures, spin->failures, memory_order_relaxed);
    atomic_store_explicit(&p->waits_until_probe, spin->waits_until_probe, memory_order_relaxed);
    atomic_store_explicit(&p->probe_interval, spin->probe_interval, memory_order_relaxed);
}

/* Wait until there may be what is wished for. Returns 0: look; -EAGAIN: the deadline (fab_now) has passed;
 * -EINTR. Holder of no lock. */
static inline int fab_queue_wait(struct fab_queue *q, enum fab_queue_wish wish, int64_t deadline) {
    struct fab_queue_pace *pace = wish == FAB_QUEUE_ITEMS ? &q->getting : &q->putting;
    struct fab_spin spin = fab_queue_pace_read(pace, q->spin_ns);
    int64_t start = fab_now();
    int64_t left = deadline - start;
    if (left <= 0)
        return fab_queue_granted(q, wish) ? 0 : -EAGAIN;
    int64_t budget = fab_spin_budget(&spin);
    budget = budget < left ? budget : left;
    int rc = 0;
    int slept = budget == 0 || !fab_queue_spin(q, wish, budget, start);
    if (slept) {
        left -= fab_now() - start;
        left = left < 0 ? 0 : left;
        rc = fab_queue_sleep(q, wish, left < FAB_SAFETY_NS ? left : FAB_SAFETY_NS);
    }
    fab_spin_learn(&spin, budget, fab_now() - start, slept);
    fab_queue_pace_write(pace, &spin);
    return rc;
}

#endif
