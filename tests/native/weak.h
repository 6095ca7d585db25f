/* SPDX-License-Identifier: MIT */
/*
 * weak.h - the shipped headers over a memory that is as weak as C11 allows, one step at a time.
 *
 * They are compiled unchanged: the macros at the end take the place of <stdatomic.h>'s, of memcpy and of the
 * system calls.
 *
 *   a bell     is a system call: whoever empties it has seen what those who rang had
 *   ppoll      knows no time: who is not woken sleeps for ever
 */
#ifndef WEAK_H
#define WEAK_H

#include "weak_memory.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>

#define WEAK_BELLS 3u
#define WEAK_FIRST_BELL 1000 /* descriptors */

struct weak_bell {
    uint64_t rung;
    struct weak_view seen;
};
static struct weak_bell weak_bells[WEAK_BELLS];

/* Private memory of a coroutine, which may die at any step: it all goes back when the next execution begins. */
static uint8_t weak_heaps[EXPLORE_THREADS][4096];
static uint32_t weak_heap_used[EXPLORE_THREADS];

/* What was done outside the shared memory, and is remembered there: part of a state. */
static inline uint64_t weak_outside_hash(uint64_t hash);

/* Nothing is shared yet, nobody has seen anything, and no bell is rung. */
static inline void weak_reset(void) {
    weak_memory_reset();
    memset(weak_bells, 0, sizeof weak_bells);
    memset(weak_heap_used, 0, sizeof weak_heap_used);
}

static inline struct weak_bell *weak_bell(int fd) {
    CHECK(fd >= WEAK_FIRST_BELL && fd < WEAK_FIRST_BELL + (int)WEAK_BELLS);
    return &weak_bells[fd - WEAK_FIRST_BELL];
}

static inline ssize_t weak_ring(int fd, const void *one, size_t bytes) {
    struct weak_bell *b = weak_bell(fd);
    (void)one;
    if (explore.current != weak.onlooker) /* all bells after a death are one step */
        explore_pause();
    explore_tell("rings bell %d", fd - WEAK_FIRST_BELL);
    weak_join(&b->seen, weak_view());
    b->rung = 1;
    return (ssize_t)bytes;
}

static inline ssize_t weak_empty_bell(int fd, void *count, size_t bytes) {
    struct weak_bell *b = weak_bell(fd);
    explore_pause();
    explore_tell("empties bell %d%s", fd - WEAK_FIRST_BELL, b->rung ? "" : ", which was not rung");
    explore_note(b->rung);
    if (!b->rung) {
        errno = EAGAIN;
        return -1;
    }
    (memcpy)(count, &b->rung, bytes);
    weak_join(weak_view(), &b->seen);
    b->rung = 0;
    return (ssize_t)bytes;
}

static inline int weak_is_rung(uint32_t thread, const void *bell) {
    (void)thread;
    return ((const struct weak_bell *)bell)->rung != 0;
}

/* No safety net: who is not woken sleeps for ever. */
static inline int weak_poll(struct pollfd *fds) {
    explore_tell("sleeps");
    explore_block(weak_is_rung, weak_bell(fds[0].fd));
    fds[0].revents = POLLIN;
    return 1;
}

static inline void *weak_calloc(size_t count, size_t bytes) {
    uint32_t me = explore.current;
    size_t rounded = (count * bytes + 15) & ~(size_t)15;
    CHECK(me < EXPLORE_THREADS && rounded <= sizeof weak_heaps[me] - weak_heap_used[me]);
    void *at = weak_heaps[me] + weak_heap_used[me];
    weak_heap_used[me] += (uint32_t)rounded;
    return memset(at, 0, rounded);
}

static inline int weak_clock(struct timespec *now) {
    *now = (struct timespec){.tv_sec = 1};
    return 0;
}

/* A view, in such a way that it does not matter how many values a word had that nobody can read any more. */
static inline uint64_t weak_view_hash(uint64_t hash, const struct weak_view *v) {
    for (uint32_t i = 0; i < weak.words_count; i++)
        hash = explore_mix(hash,
                           weak.words[i].count - (v->word[i] > weak.oldest[i] ? v->word[i] : weak.oldest[i]));
    for (uint32_t i = 0; i < explore.started; i++) {
        uint32_t last = explore.threads[i].status == EXPLORE_DONE ? weak.views[i].clock[i] : 0;
        hash = explore_mix(hash, last - v->clock[i]);
    }
    return hash;
}

/* Which is the oldest value of a word that anybody may read? */
static inline uint16_t weak_oldest(uint32_t word) {
    const struct weak_word *w = &weak.words[word];
    uint32_t oldest = w->count - 1;
    for (uint32_t i = 0; i < explore.started; i++)
        if (i != weak.onlooker && explore.threads[i].status != EXPLORE_DONE)
            oldest = weak.views[i].word[word] < oldest ? weak.views[i].word[word] : oldest;
    return (uint16_t)(w->firm && w->floor > oldest ? w->floor : oldest);
}

/* Contents of lanes are left out: they follow from how far each coroutine has come. */
static inline uint64_t explore_state_hash(uint64_t hash) {
    for (uint32_t i = 0; i < weak.words_count; i++)
        weak.oldest[i] = weak_oldest(i);
    for (uint32_t i = 0; i < weak.words_count; i++) {
        const struct weak_word *w = &weak.words[i];
        hash = explore_mix(hash, w->count - (w->floor > weak.oldest[i] ? w->floor : weak.oldest[i]));
        for (uint32_t at = weak.oldest[i]; at < w->count; at++)
            hash = weak_view_hash(explore_mix(hash, w->values[at].value), &w->values[at].seen);
    }
    for (uint32_t i = 0; i < explore.started; i++)
        if (i != weak.onlooker && explore.threads[i].status != EXPLORE_DONE)
            hash = weak_view_hash(hash, &weak.views[i]);
    for (uint32_t i = 0; i < WEAK_BELLS; i++)
        hash = weak_view_hash(explore_mix(hash, weak_bells[i].rung), &weak_bells[i].seen);
    return weak_outside_hash(hash);
}

#undef atomic_load_explicit
#undef atomic_store_explicit
#undef atomic_thread_fence
#undef memcpy
#define atomic_load_explicit(word, order) weak_load((word), sizeof *(word), (order))
#define atomic_store_explicit(word, value, order) weak_store((word), sizeof *(word), (value), (order))
#define atomic_thread_fence(order) fences_are_not_modelled
#define memcpy(to, from, bytes) weak_memcpy((to), (from), (bytes))
#define write(fd, data, bytes) weak_ring((fd), (data), (bytes))
#define read(fd, data, bytes) weak_empty_bell((fd), (data), (bytes))
#define ppoll(fds, count, limit, mask) ((void)(limit), (void)(count), weak_poll(fds))
#define clock_gettime(clock, now) weak_clock(now)

#define calloc(count, bytes) weak_calloc((count), (bytes))
#define free(memory) ((void)(memory))

#include "fab_batch.h"
#include "fab_heirs.h"
#include "fab_outbox.h"

#endif
