/* SPDX-License-Identifier: MIT */
/*
 * weak_memory.h - a memory that is as weak as C11 allows.
 *
 *   a shared word    every value it ever had:      v0  v1  v2  v3     each with what its writer had seen
 *   a coroutine      the oldest it may still read:         ^          and what it has seen of all words
 *
 *   load             any value from there on: all of them are tried. Acquire: it has seen what the writer had
 *   store            release: with all that its writer has seen. Relaxed: with nothing
 *   seq_cst          as acquire and release; and such a load does not read behind what seq_cst stores and
 *                    loads of this word came to before it, which is what gives store-load order
 *   bytes of a lane  in words of 8, as relaxed ones: read too early, they show any older content. To write
 *                    them while somebody may still read the content before is a violation by itself
 *
 * Words that are not announced (weak_word, weak_bytes) are plain memory.
 *
 * Each word has one writer, so the order of its values is the order of the stores; that it has but one is
 * checked. What is not in it: a load that is done after a later store of its own coroutine (caught for bytes,
 * see above), and a seq_cst store that is overtaken by a later relaxed one of its own coroutine.
 */
#ifndef WEAK_MEMORY_H
#define WEAK_MEMORY_H

#include "explore.h"

#include <stdatomic.h>
#include <stddef.h>

#define WEAK_WORDS 16u
#define WEAK_VALUES 40u
#define WEAK_RANGES 4u
#define WEAK_RANGE_WORDS 512u
#define WEAK_CONTENTS 12u

struct weak_view {
    uint16_t word[WEAK_WORDS];       /* the oldest value that may be read */
    uint16_t clock[EXPLORE_THREADS]; /* how far each coroutine is known to have come */
};

struct weak_word {
    const volatile void *address;
    const char *name;
    uint32_t count;
    uint32_t floor; /* what seq_cst operations came to */
    uint32_t firm;  /* all who read it, save its writer, do so with seq_cst */
    struct {
        uint64_t value;
        uint32_t writer;
        struct weak_view seen;
    } values[WEAK_VALUES];
};

/* Eight bytes of a lane. */
struct weak_content {
    uint64_t execution; /* that the rest is of; else there is what was there at first */
    uint32_t count;
    struct {
        uint64_t value;
        uint32_t writer;
        uint32_t clock;
    } values[WEAK_CONTENTS];
    uint16_t oldest[EXPLORE_THREADS];  /* that each may read */
    uint16_t read_at[EXPLORE_THREADS]; /* its clock when it last did */
};

struct weak_range {
    const uint8_t *begin;
    uint64_t bytes;
    const char *name;
    struct weak_content contents[WEAK_RANGE_WORDS];
};

struct weak {
    struct weak_word words[WEAK_WORDS];
    struct weak_range ranges[WEAK_RANGES];
    struct weak_view views[EXPLORE_THREADS + 1]; /* the last: of setup and verdict, where time stands still */
    uint32_t words_count;
    uint32_t ranges_count;
    uint64_t execution;
    uint16_t oldest[WEAK_WORDS]; /* value of each word that anybody may read */
    uint32_t onlooker;           /* a coroutine that reads no shared word; EXPLORE_NOBODY for none */
};
static struct weak weak;

static inline struct weak_view *weak_view(void) {
    return &weak.views[explore.current];
}

static inline uint16_t weak_tick(void) {
    return ++weak_view()->clock[explore.current];
}

static inline void weak_join(struct weak_view *view, const struct weak_view *other) {
    for (uint32_t i = 0; i < WEAK_WORDS; i++)
        view->word[i] = view->word[i] > other->word[i] ? view->word[i] : other->word[i];
    for (uint32_t i = 0; i < EXPLORE_THREADS; i++)
        view->clock[i] = view->clock[i] > other->clock[i] ? view->clock[i] : other->clock[i];
}

/* Nothing is shared yet, and nobody has seen anything. */
static inline void weak_memory_reset(void) {
    memset(weak.views, 0, sizeof weak.views);
    weak.words_count = weak.ranges_count = 0;
    weak.onlooker = EXPLORE_NOBODY;
    weak.execution++;
}

/* This word is shared, and shows `value`. `firm`: see above. */
static inline void weak_word(const volatile void *address, const char *name, uint64_t value, uint32_t firm) {
    CHECK(weak.words_count < WEAK_WORDS);
    struct weak_word *w = &weak.words[weak.words_count++];
    w->address = address;
    w->name = name;
    w->count = 1;
    w->floor = 0;
    w->firm = firm;
    memset(&w->values[0], 0, sizeof w->values[0]);
    w->values[0].value = value;
    w->values[0].writer = EXPLORE_NOBODY;
}

/* These bytes are shared. What the memory holds is what they show at first; nothing is written there. */
static inline void weak_bytes(const uint8_t *begin, uint64_t bytes, const char *name) {
    CHECK(weak.ranges_count < WEAK_RANGES && bytes <= 8 * WEAK_RANGE_WORDS);
    struct weak_range *r = &weak.ranges[weak.ranges_count++];
    r->begin = begin;
    r->bytes = bytes;
    r->name = name;
}

static inline struct weak_word *weak_find(const volatile void *address) {
    for (uint32_t i = 0; i < weak.words_count; i++)
        if (weak.words[i].address == address)
            return &weak.words[i];
    return NULL;
}

/* The value that a shared word shows in the end; and in setup, to all. */
static inline uint64_t weak_last(const struct weak_word *w) {
    return w->values[w->count - 1].value;
}

static inline int weak_is_acquire(memory_order order) {
    return order != memory_order_relaxed && order != memory_order_release;
}

static inline uint64_t weak_load(const volatile void *address, size_t bytes, memory_order order) {
    struct weak_word *w = weak_find(address);
    if (w == NULL)
        return bytes == 4 ? *(const volatile uint32_t *)address : *(const volatile uint64_t *)address;
    if (explore.current == EXPLORE_NOBODY)
        return weak_last(w);
    uint16_t *oldest = &weak_view()->word[w - weak.words];
    if (w->values[w->count - 1].writer == explore.current && *oldest == w->count - 1)
        return weak_last(w); /* our own word: nobody else writes it meanwhile */
    CHECK(!w->firm || order == memory_order_seq_cst);
    explore_pause();
    uint32_t from = order == memory_order_seq_cst && w->floor > *oldest ? w->floor : *oldest;
    uint32_t at = w->count - 1 - explore_choose(w->count - from); /* the newest first */
    explore_tell("load  %s: %llu%s", w->name, (unsigned long long)w->values[at].value,
                 at + 1 == w->count ? "" : ", which is not the newest");
    explore_note(at);
    *oldest = (uint16_t)at;
    if (order == memory_order_seq_cst)
        w->floor = at > w->floor ? at : w->floor;
    if (weak_is_acquire(order))
        weak_join(weak_view(), &w->values[at].seen);
    return w->values[at].value;
}

static inline void weak_store(volatile void *address, size_t bytes, uint64_t value, memory_order order) {
    struct weak_word *w = weak_find(address);
    if (w == NULL) {
        if (bytes == 4)
            *(volatile uint32_t *)address = (uint32_t)value;
        else
            *(volatile uint64_t *)address = value;
        return;
    }
    CHECK(w->count < WEAK_VALUES);
    struct weak_view *view = weak_view();
    if (explore.current != EXPLORE_NOBODY)
        explore_pause();
    explore_tell("store %s: %llu", w->name, (unsigned long long)value);
    if (view->word[w - weak.words] != w->count - 1)
        explore_fail("two processes write %s", w->name);
    view->word[w - weak.words] = (uint16_t)w->count;
    memset(&w->values[w->count].seen, 0, sizeof w->values[w->count].seen);
    if (order != memory_order_relaxed)
        w->values[w->count].seen = *view;
    w->values[w->count].value = value;
    w->values[w->count].writer = explore.current;
    if (order == memory_order_seq_cst)
        w->floor = w->count;
    w->count++;
}

static inline int weak_is_newer(uint32_t thread, const void *awaited) {
    const struct weak_word *w = awaited;
    return weak.views[thread].word[w - weak.words] + 1u < w->count;
}

/* In place of polling a word: go on when it shows something newer than we have read. In time it does. */
static inline void weak_await(const volatile void *address) {
    const struct weak_word *w = weak_find(address);
    explore_block(weak_is_newer, w);
    weak_view()->word[w - weak.words] = (uint16_t)(w->count - 1);
    explore_note(w->count);
}

/* Bytes of lanes. */

static inline struct weak_content *weak_content(const uint8_t *at, const struct weak_range **range) {
    for (uint32_t i = 0; i < weak.ranges_count; i++) {
        struct weak_range *r = &weak.ranges[i];
        if (at < r->begin || at >= r->begin + r->bytes)
            continue;
        struct weak_content *c = &r->contents[(at - r->begin) / 8];
        if (c->execution != weak.execution) {
            memset(c, 0, sizeof *c);
            c->execution = weak.execution;
            c->count = 1;
            (memcpy)(&c->values[0].value, r->begin + (at - r->begin) / 8 * 8, 8);
            c->values[0].writer = EXPLORE_NOBODY;
        }
        *range = r;
        return c;
    }
    return NULL;
}

/* Has the current coroutine seen what `writer` did when its clock stood at `clock`? */
static inline int weak_knows(uint32_t writer, uint32_t clock) {
    return writer == EXPLORE_NOBODY || weak_view()->clock[writer] >= clock;
}

static inline uint64_t weak_read(struct weak_content *c) {
    uint32_t me = explore.current;
    uint32_t from = c->oldest[me];
    for (uint32_t i = from; i < c->count; i++)
        if (weak_knows(c->values[i].writer, c->values[i].clock))
            from = i;
    uint32_t at = c->count - 1 - explore_choose(c->count - from);
    if (from + 1 != c->count)
        explore_note(at);
    c->oldest[me] = (uint16_t)at;
    c->read_at[me] = weak_tick();
    return c->values[at].value;
}

static inline void weak_write(struct weak_content *c, const char *name, uint64_t value) {
    for (uint32_t i = 0; i < explore.started; i++)
        if (i != explore.current && !weak_knows(i, c->read_at[i]))
            explore_fail("overwritten in %s while %s may still read it", name, explore.threads[i].name);
    if (!weak_knows(c->values[c->count - 1].writer, c->values[c->count - 1].clock))
        explore_fail("two processes write the bytes of %s", name);
    CHECK(c->count < WEAK_CONTENTS);
    c->values[c->count].value = value;
    c->values[c->count].writer = explore.current;
    c->values[c->count++].clock = weak_tick();
}

/* The part of a copy up to the next multiple of 8 of the shared side. */
static inline uint64_t weak_part(const uint8_t *shared, uint64_t left) {
    uint64_t part = 8 - ((uintptr_t)shared & 7);
    return part < left ? part : left;
}

static inline void weak_copy_out(uint8_t *to, const uint8_t *from, uint64_t bytes) {
    const struct weak_range *range;
    for (uint64_t part; bytes > 0; to += part, from += part, bytes -= part) {
        part = weak_part(from, bytes);
        uint64_t value = weak_read(weak_content(from, &range));
        (memcpy)(to, (uint8_t *)&value + ((uintptr_t)from & 7), part);
    }
}

static inline void weak_copy_in(uint8_t *to, const uint8_t *from, uint64_t bytes) {
    const struct weak_range *range;
    uint64_t half = bytes / 2;
    for (uint64_t part; bytes > 0; to += part, from += part, bytes -= part) {
        part = weak_part(to, bytes);
        struct weak_content *c = weak_content(to, &range);
        uint64_t value = c->values[c->count - 1].value;
        (memcpy)((uint8_t *)&value + ((uintptr_t)to & 7), from, part);
        weak_write(c, range->name, value);
        if (bytes > half && bytes - part <= half)
            explore_may_die();
    }
}

static inline void *weak_memcpy(void *to, const void *from, size_t bytes) {
    const struct weak_range *range;
    uint8_t between[4096];
    if (explore.current == EXPLORE_NOBODY || bytes == 0)
        return (memcpy)(to, from, bytes);
    if (weak_content(from, &range) != NULL) {
        CHECK(bytes <= sizeof between);
        weak_copy_out(between, from, bytes);
        from = between;
    }
    if (weak_content(to, &range) == NULL)
        return (memcpy)(to, from, bytes);
    weak_copy_in(to, from, bytes);
    return to;
}

#endif
