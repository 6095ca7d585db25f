/* SPDX-License-Identifier: MIT */
/*
 * fab_doorbell.h - sleep and wake between processes, without a lost wake-up.
 *
 *   in the segment, one word a process    sleeping: 0 awake, else why it sleeps (FAB_WAITS_*)
 *   one eventfd a process                 the bell; level-triggered, so ringing twice is harmless
 *
 *   the one who publishes                      the one who sleeps
 *     W1a store tail (head, receipt)             W2a store sleeping = why
 *     W1b load  sleeping                         W2b load  all tails (heads, receipts) again
 *         ring when it says so                       block in poll() only when nothing is there
 *
 * Either W1b sees the sleeper, or W2b sees the work: that needs store-load order, which release and
 * acquire do not give, on x86 neither. All four are seq_cst operations. ThreadSanitizer cannot see a
 * missing one (it is no data race): the model and the interleaving tests do.
 *
 * Only the sleeper writes its word. A publisher killed between W1a and the bell leaves work before a
 * sleeper: the supervisor rings all bells when a process dies (the death bell).
 */
#ifndef FAB_DOORBELL_H
#define FAB_DOORBELL_H

#include "fab_ring.h"

#include <poll.h>
#include <time.h>
#include <unistd.h>

#ifndef FAB_W1B
#define FAB_W1B memory_order_seq_cst
#define FAB_W2A memory_order_seq_cst
#define FAB_W2B memory_order_seq_cst
#endif

#define FAB_WAITS_MESSAGES 1u /* records in an incoming lane */
#define FAB_WAITS_ROOM 2u     /* room in an outgoing lane */
#define FAB_WAITS_QUIET 4u    /* another process with nothing to do */
#define FAB_WAITS_ARENA 8u    /* a loan from our arena that its reader is done with */
#define FAB_SAFETY_NS 1000000000
#define FAB_LATE_BELL_NS 100000000 /* a publisher that takes longer from its store to the bell was killed */

static inline void fab_cpu_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");
#endif
}

/* CLOCK_MONOTONIC in nanoseconds. */
static inline int64_t fab_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Ring a bell whatever its owner does. Any process. Never waits: the eventfd is non-blocking, and a
 * saturated one is a bell that rings already. Keeps errno. */
static inline void fab_doorbell_ring(int bell) {
    int saved = errno;
    uint64_t one = 1;
    ssize_t done = write(bell, &one, sizeof one);
    (void)done;
    errno = saved;
}

/* Ring when the owner sleeps for one of these reasons; call it after the store of a tail or head.
 * Returns 1 when it rang. */
static inline int fab_doorbell_notify(const _Atomic(uint32_t) *sleeping, uint32_t reasons, int bell) {
    /* W1b: behind our seq_cst store of the tail (W1a = P1) or of the head (W1a = C2). */
    if ((atomic_load_explicit(sleeping, FAB_W1B) & reasons) == 0)
        return 0;
    fab_doorbell_ring(bell);
    return 1;
}

/* Empty the bell. Returns 1 when it had been rung. Its owner only. Never waits. Keeps errno. */
static inline int fab_doorbell_clear(int bell) {
    int saved = errno;
    uint64_t count;
    ssize_t done = read(bell, &count, sizeof count);
    errno = saved;
    return done == (ssize_t)sizeof count;
}

/* How long to spin before sleeping, learnt from how long the recent waits were.
 *
 * Spinning pays when the other side answers within the cost of a park (some 50 us). In a ping-pong
 * that has fallen asleep on both sides each wait is one park long, and no short spin bridges it, so
 * now and then a wait probes with a spin of three times the usual limit; one success is enough to
 * get both sides spinning again. Failed probes become rarer. */
struct fab_spin {
    int64_t limit_ns; /* 0: never spin */
    int64_t mean_ns;  /* moving mean of recent waits */
    uint32_t failures;
    uint32_t waits_until_probe;
    uint32_t probe_interval;
};

#define FAB_SPIN_PROBE_AT_LEAST 8u
#define FAB_SPIN_PROBE_AT_MOST 1024u
#define FAB_SPIN_WORTH_PROBING_NS 150000 /* some parks; or three limits, if that is more */

static inline int64_t fab_spin_budget(struct fab_spin *s) {
    int64_t most = 3 * s->limit_ns;
    most = most > FAB_SPIN_WORTH_PROBING_NS ? most : FAB_SPIN_WORTH_PROBING_NS;
    if (s->limit_ns == 0 || s->mean_ns > most)
        return 0;
    if (s->failures < 8) {
        int64_t twice = 2 * s->mean_ns + 2000;
        return twice < s->limit_ns ? twice : s->limit_ns;
    }
    if (s->waits_until_probe > 0) {
        s->waits_until_probe--;
        return 0;
    }
    s->waits_until_probe = s->probe_interval;
    s->probe_interval =
        s->probe_interval < FAB_SPIN_PROBE_AT_MOST ? 2 * s->probe_interval : FAB_SPIN_PROBE_AT_MOST;
    return 3 * s->limit_ns;
}

static inline void fab_spin_learn(struct fab_spin *s, int64_t budget_ns, int64_t waited_ns, int slept) {
    int64_t seen = waited_ns < 1000000 ? waited_ns : 1000000;
    s->mean_ns += (seen - s->mean_ns) / 4;
    if (!slept) {
        s->failures = 0;
        s->probe_interval = FAB_SPIN_PROBE_AT_LEAST;
    } else if (budget_ns > 0 && s->failures < 8) {
        s->failures++;
    }
}

#endif
