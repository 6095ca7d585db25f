/* SPDX-License-Identifier: MIT */
/*
 * fab_wait.h - one process waits: for messages, for room in a lane, for quiet, for what it lent. Spin a little,
 * then sleep.
 *
 *   has_reason? -> spin -> arm: W2a sleeping = why, W2b look again -> block on the bell -> disarm
 */
#ifndef FAB_WAIT_H
#define FAB_WAIT_H

#include "fab_arena.h"

#include <sched.h>
#include <sys/epoll.h>

/* W2b: the second look, behind the store of `sleeping`. Seq_cst, unlike fab_consumer_ready. */
static inline int fab_peer_look_again(struct fab_peer *s, uint32_t reasons) {
    for (uint32_t lane = 0; lane < 2 * s->header.processes && (reasons & FAB_WAITS_MESSAGES) != 0; lane++) {
        struct fab_consumer *c = &s->in[lane];
        if (c->capacity == 0 || c->broken)
            continue;
        if (c->tail_seen != c->read || atomic_load_explicit(c->tail, FAB_W2B) != c->tail_seen)
            return 1;
    }
    if ((reasons & FAB_WAITS_ROOM) != 0 && fab_peer_room_came(s))
        return 1;
    if ((reasons & FAB_WAITS_ARENA) != 0 && fab_arena_returned(s->arena))
        return 1;
    return (reasons & FAB_WAITS_QUIET) != 0 && fab_peer_quiet(s);
}

/* Is there something to do, for one who waits for these reasons? Cheap; for spinning. */
static inline int fab_peer_has_reason(struct fab_peer *s, uint32_t reasons) {
    return ((reasons & FAB_WAITS_MESSAGES) != 0 && fab_peer_ready(s)) ||
           ((reasons & FAB_WAITS_ROOM) != 0 && fab_peer_room_came(s)) ||
           ((reasons & FAB_WAITS_ARENA) != 0 && fab_arena_returned(s->arena));
}

/* How many processes of the fabric are awake; a hint for the spin. */
static inline uint32_t fab_peer_awake(const struct fab_peer *s) {
    uint32_t awake = 1;
    for (uint32_t other = 0; other < s->header.processes; other++) {
        const struct fab_words *words = fab_peer_words(s, other);
        if (other != s->process) /* relaxed: a hint, nothing depends on it */
            awake += atomic_load_explicit(&words->present, memory_order_relaxed) != 0 &&
                     atomic_load_explicit(&words->sleeping, memory_order_relaxed) == 0;
    }
    return awake;
}

/* Look for work without sleeping, for at most `budget` ns. */
static inline int fab_peer_spin(struct fab_peer *s, uint32_t reasons, int64_t budget, int64_t start) {
    for (uint32_t round = 0;; round++) {
        if (fab_peer_has_reason(s, reasons))
            return 1;
        fab_cpu_relax(); /* one: each more adds its 20 ns to a round trip of 6 us */
        if ((round & 7) == 7 && fab_now() - start >= budget)
            return 0;
    }
}

/* Say that we sleep, and look again. Returns 1 when there is something to do: then do not block.
 * Either way call fab_peer_disarm afterwards. For event loops that block in their own way. */
static inline int fab_peer_arm(struct fab_peer *s, uint32_t reasons) {
    fab_meter_served(s); /* a coroutine that awaits, or a reply that finds no room: no handler runs */
    /* W2a: pairs with W1b. From here on whoever publishes sees that we sleep. */
    atomic_store_explicit(&s->words->sleeping, reasons, FAB_W2A);
    if (fab_peer_look_again(s, reasons))
        return 1;
    fab_count(s->words, FAB_COUNT_PARKS, 1);
    if (s->process != 0) /* nothing to do here: that may be what the coordinator waits for */
        fab_doorbell_notify(&fab_peer_words(s, 0)->sleeping, FAB_WAITS_QUIET, s->bells[0]);
    return 0;
}

/* Say that we are awake. */
static inline void fab_peer_awaken(struct fab_peer *s) {
    /* relaxed: a late bell is harmless, the next wait ends at once and finds nothing */
    atomic_store_explicit(&s->words->sleeping, 0, memory_order_relaxed);
}

/* Say that we are awake, and empty the bell. */
static inline void fab_peer_disarm(struct fab_peer *s) {
    fab_peer_awaken(s);
    fab_doorbell_clear(s->bell);
}

/* Block until the bell rings, at most `limit_ns`. With a pollset (an epoll that watches the bell for its
 * edges) the bell need not be emptied, for each ring is told once, and a wait is one system call, not two
 * (1.0 of 6.8 us in a round trip on one CPU). Returns as ppoll. */
static inline int fab_peer_block(int pollset, struct pollfd *fds, nfds_t count, int64_t limit_ns) {
    if (pollset >= 0) {
        struct epoll_event event;
        return epoll_wait(pollset, &event, 1, (int)(limit_ns / 1000000));
    }
    struct timespec limit = {.tv_sec = limit_ns / 1000000000, .tv_nsec = limit_ns % 1000000000};
    return ppoll(fds, count, &limit, NULL);
}

/* Arm, and block until the bell rings, `extra` (a descriptor, or -1) becomes readable, or `timeout_ns`
 * passes. Returns 1 when there is a reason to look, 2 when it is `extra`, 0 for none, -errno. */
static inline int fab_peer_park(struct fab_peer *s, uint32_t reasons, int extra, int64_t timeout_ns) {
    struct pollfd fds[2] = {{.fd = s->bell, .events = POLLIN}, {.fd = extra, .events = POLLIN}};
    int64_t net = timeout_ns < 0 ? 0 : timeout_ns < FAB_SAFETY_NS ? timeout_ns : FAB_SAFETY_NS;
    int pollset = extra < 0 && net == FAB_SAFETY_NS ? s->pollset : -1; /* it counts in milliseconds */
    int rc = 1;
    if (!fab_peer_arm(s, reasons)) {
        rc = fab_peer_block(pollset, fds, extra >= 0 ? 2 : 1, net);
        rc = rc < 0 ? -errno : rc;
        /* Work, and no bell: its publisher may have been stopped between the two, so wait for that. Not
         * quiet: it comes with a head, and the bell for it only when the process of that head parks. */
        if (rc == 0 && fab_peer_look_again(s, reasons & ~FAB_WAITS_QUIET)) {
            fab_count(s->words, FAB_COUNT_ALARMS, fab_peer_block(pollset, fds, 1, FAB_LATE_BELL_NS) == 0);
            rc = 1;
        }
        fab_count(s->words, FAB_COUNT_WAKE_UPS, rc > 0);
    }
    fab_peer_awaken(s);
    if (pollset < 0)
        fab_doorbell_clear(s->bell);
    if (rc > 0 && extra >= 0 && (fds[1].revents & (POLLIN | POLLHUP | POLLERR)) != 0)
        return 2;
    return rc > 0 ? 1 : rc;
}

/* Say on which CPU we are; returns it plus 1. */
static inline uint32_t fab_peer_note_cpu(struct fab_peer *s) {
    uint32_t cpu = (uint32_t)sched_getcpu() + 1; /* relaxed: a hint */
    if (atomic_load_explicit(&s->words->cpu, memory_order_relaxed) !=
        cpu) /* others read this line: leave it */
        atomic_store_explicit(&s->words->cpu, cpu, memory_order_relaxed);
    return cpu;
}

/* Move this thread to another CPU if a process we may be waiting for is on ours. Two processes that wake
 * each other are put on one CPU by the kernel, and stay there: no spin can succeed, and each wait is a
 * park. Called for probes only, which are rare. The thread's affinity is what it was when this returns. */
static inline void fab_peer_part_company(struct fab_peer *s) {
    cpu_set_t allowed;
    cpu_set_t others;
    uint32_t cpu = fab_peer_note_cpu(s);
    int shared = 0;
    for (uint32_t other = 0; other < s->header.processes; other++)
        if (other != s->process)
            shared |= atomic_load_explicit(&fab_peer_words(s, other)->cpu, memory_order_relaxed) == cpu;
    if (!shared || sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2)
        return;
    others = allowed;
    CPU_CLR(cpu - 1, &others);
    if (sched_setaffinity(0, sizeof others, &others) == 0)
        (void)sched_setaffinity(0, sizeof allowed, &allowed);
    fab_peer_note_cpu(s);
}

/* Say since when we wait, 0 when we do not: what is waited is counted when it is over. Relaxed: for monitors. */
static inline void fab_peer_waits_since(struct fab_peer *s, int64_t since) {
    atomic_store_explicit(&s->words->counters[FAB_COUNT_WAITING_SINCE], (uint64_t)since,
                          memory_order_relaxed);
}

/* Learn from a wait, and count it. */
static inline void fab_peer_waited(struct fab_peer *s, int64_t budget, int64_t waited, int slept) {
    fab_spin_learn(&s->spin, budget, waited, slept);
    fab_count(s->words, FAB_COUNT_WAITED_NS, (uint64_t)waited);
    fab_peer_waits_since(s, 0);
}

/* Wait until there may be something to do: spin a little, then sleep. Returns as fab_peer_park, and
 * 0 after at most one second even when timeout_ns is longer: the caller looks round and comes again.
 * Leader only. */
static inline int fab_peer_wait(struct fab_peer *s, uint32_t reasons, int extra, int64_t timeout_ns) {
    if (fab_peer_has_reason(s, reasons))
        return 1;
    int64_t start = fab_now();
    fab_peer_waits_since(s, start);
    int64_t budget = fab_peer_awake(s) > s->cores ? 0 : fab_spin_budget(&s->spin);
    if (budget > s->spin.limit_ns)
        fab_peer_part_company(s);
    else
        fab_peer_note_cpu(s);
    budget = budget < timeout_ns ? budget : timeout_ns;
    if (budget > 0 && fab_peer_spin(s, reasons, budget, start)) {
        fab_count(s->words, FAB_COUNT_SPINS_WON, 1);
        fab_peer_waited(s, budget, fab_now() - start, 0);
        return 1;
    }
    int rc = fab_peer_park(s, reasons, extra, timeout_ns);
    fab_peer_waited(s, budget, fab_now() - start, 1);
    return rc;
}

#endif
