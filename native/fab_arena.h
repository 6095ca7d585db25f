/* SPDX-License-Identifier: MIT */
/*
 * fab_arena.h - a process's own arena: its blocks, and the loans of pieces of them that are out.
 *
 *   take -> a block of whole pages, one reference       retain, drop: a reference more, or less
 *   allow: how much fresh memory may be taken           trim: give free memory back
 *   reclaim: end loans whose reader is done             (fab_lend.h makes them, fab_heirs.h finds a predecessor's)
 *
 *   shared, written by us      loans[index]     state, offset, bytes
 *   private                    lent[index]      the block, and where in out[] the loan is
 *                              out[]            the loans that are out, in no order
 *
 * Calls belong to one thread at a time (Python holds a lock), except fab_arena_returned, which whoever
 * waits calls at any time: what it reads is atomic. The story of deaths is told in fab_loan.h.
 */
#ifndef FAB_ARENA_H
#define FAB_ARENA_H

#include "fab_loan.h"
#include "fab_measures.h"
#include "fab_pages.h"

#include <sys/mman.h>

#define FAB_RECLAIM_SOME 64u /* loans that are looked at before memory is taken */

struct fab_lent {
    uint32_t page;  /* where the block begins */
    uint32_t place; /* in out[] */
};

struct fab_arena {
    struct fab_peer *peer;
    uint8_t *data;
    struct fab_loan *loans;
    struct fab_pages pages;
    uint64_t fresh_allowed; /* bytes of pages without memory that may still be taken */
    struct fab_lent *lent;
    uint32_t *unused; /* indices that were used and are free, the last freed last */
    uint32_t unused_count;
    uint32_t used_count;    /* indices that were ever used */
    uint64_t next_look;     /* round robin in out[] */
    _Atomic(uint64_t) *out; /* generation << 32 | reader << 16 | index */
    _Atomic(uint64_t) out_count;
    _Atomic(uint64_t) ended_count; /* grows with each loan that ends: out[] was changed */
};

static inline uint32_t fab_arena_page_of(uint64_t offset) {
    return (uint32_t)(offset / FAB_PAGE);
}

/* What its reader says of a loan that is out. */
static inline const struct fab_receipt *fab_arena_receipt(const struct fab_arena *a, uint64_t out) {
    return fab_peer_receipt(a->peer, (uint32_t)(out >> 16 & 0xffff), a->peer->process,
                            (uint32_t)(out & 0xffff));
}

/* W2b for an arena: is some reader done? Not L2: nothing is written on the strength of this look. The count is
 * read likewise, for it has all loans that were sent before. Who sees that a loan was moved (acquire) sees in
 * ended_count that one ended. */
static inline int fab_arena_look(const struct fab_arena *a) {
    uint64_t count = atomic_load_explicit(&a->out_count, FAB_W2B);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t out = atomic_load_explicit(&a->out[i], memory_order_acquire);
        const struct fab_receipt *receipt = fab_arena_receipt(a, out);
        uint64_t done = fab_receipt_state((uint32_t)(out >> 32), FAB_DONE);
        if (atomic_load_explicit(&receipt->state, FAB_W2B) == done)
            return 1;
    }
    return 0;
}

/* Is there a loan that its reader is done with? Any thread: when one ended meanwhile, another took its place and
 * may have been missed, so we look again. */
static inline int fab_arena_returned(const struct fab_arena *a) {
    uint64_t ended = 0;
    uint64_t before = 1;
    while (a != NULL && ended != before) {
        before = atomic_load_explicit(&a->ended_count, memory_order_acquire);
        if (fab_arena_look(a))
            return 1;
        ended = atomic_load_explicit(&a->ended_count, memory_order_acquire);
    }
    return 0;
}

/* Note that a loan is out. */
static inline void fab_arena_note(struct fab_arena *a, uint32_t index, uint32_t generation, uint32_t reader,
                                  uint32_t page) {
    uint64_t count = atomic_load_explicit(&a->out_count, memory_order_relaxed); /* relaxed: ours */
    a->lent[index] = (struct fab_lent){page, (uint32_t)count};
    atomic_store_explicit(&a->out[count], (uint64_t)generation << 32 | (uint64_t)reader << 16 | index,
                          memory_order_release);
    /* seq_cst: for W2b, before the loan is sent */
    atomic_store_explicit(&a->out_count, count + 1, memory_order_seq_cst);
}

/* Say how much of it is in use. Relaxed: read by monitors. */
static inline void fab_arena_tell(struct fab_arena *a) {
    _Atomic(uint64_t) *counters = a->peer->words->counters;
    if (!fab_meter_on(a->peer))
        return;
    atomic_store_explicit(&counters[FAB_COUNT_ARENA_BYTES], a->pages.used * FAB_PAGE, memory_order_relaxed);
    atomic_store_explicit(&counters[FAB_COUNT_ARENA_LOANS],
                          atomic_load_explicit(&a->out_count, memory_order_relaxed), memory_order_relaxed);
}

/* One reference less; the block is free at none. */
static inline void fab_arena_unref(struct fab_arena *a, uint32_t page) {
    if (--a->pages.page[page].refs == 0)
        fab_pages_release(&a->pages, page);
    fab_arena_tell(a);
}

/* End a loan that is out. The shared word first: a successor must not find lent what is used anew. */
static inline void fab_arena_end(struct fab_arena *a, uint64_t place) {
    uint64_t last = atomic_load_explicit(&a->out_count, memory_order_relaxed) - 1; /* relaxed: ours, all */
    uint64_t out = atomic_load_explicit(&a->out[place], memory_order_relaxed);
    uint64_t moved = atomic_load_explicit(&a->out[last], memory_order_relaxed);
    uint32_t index = (uint32_t)(out & 0xffff);
    atomic_store_explicit(&a->loans[index].state, (out >> 32) << 16, memory_order_release);
    /* release, before a loan changes its place: who looks and misses it sees that one ended */
    atomic_store_explicit(&a->ended_count, atomic_load_explicit(&a->ended_count, memory_order_relaxed) + 1,
                          memory_order_release);
    atomic_store_explicit(&a->out[place], moved, memory_order_release);
    atomic_store_explicit(&a->out_count, last, memory_order_release);
    a->lent[moved & 0xffff].place = (uint32_t)place;
    a->unused[a->unused_count++] = index;
    fab_arena_unref(a, a->lent[index].page);
}

/* Look at up to `most` loans, in turn (0: at all), and end those whose reader is done. Returns how many. Turns go
 * downwards: the loan that takes the place of one that ended comes from above, where all were looked at. */
static inline uint32_t fab_arena_reclaim(struct fab_arena *a, uint32_t most) {
    uint64_t count = atomic_load_explicit(&a->out_count, memory_order_relaxed); /* relaxed: ours, all */
    uint64_t looks = most != 0 && most < count ? most : count;
    uint32_t ended = 0;
    if (looks == count)
        a->next_look = count;
    for (; looks > 0; looks--) {
        if (a->next_look == 0 || a->next_look > count - ended)
            a->next_look = count - ended;
        uint64_t out = atomic_load_explicit(&a->out[--a->next_look], memory_order_relaxed);
        const struct fab_receipt *receipt = fab_arena_receipt(a, out);
        /* L2: pairs with L1. The reader is done with the payload. */
        if (atomic_load_explicit(&receipt->state, FAB_L2) !=
            fab_receipt_state((uint32_t)(out >> 32), FAB_DONE))
            continue;
        fab_arena_end(a, a->next_look);
        ended++;
    }
    return ended;
}

/* Allow so many bytes of fresh memory: the caller has found out that they are there. */
static inline void fab_arena_allow(struct fab_arena *a, uint64_t fresh_bytes) {
    a->fresh_allowed = fresh_bytes;
}

/* A block of at least so many bytes, with one reference. Returns its offset in the arena; -ENOSPC: no run is
 * long enough, -ENOMEM: more fresh memory than is allowed, -EMSGSIZE: more than the arena, -EINVAL: none. */
static inline int64_t fab_arena_take(struct fab_arena *a, uint64_t bytes) {
    uint64_t allowed = a->fresh_allowed / FAB_PAGE;
    uint32_t start;
    if (bytes == 0)
        return -EINVAL;
    if (bytes > a->pages.count * FAB_PAGE)
        return -EMSGSIZE;
    fab_arena_reclaim(a, FAB_RECLAIM_SOME);
    uint32_t pages = fab_arena_page_of(bytes + FAB_PAGE - 1);
    int rc = fab_pages_take(&a->pages, pages, &allowed, &start);
    if (rc != 0 && fab_arena_reclaim(a, 0) != 0)
        rc = fab_pages_take(&a->pages, pages, &allowed, &start);
    if (rc != 0)
        return rc;
    a->fresh_allowed = allowed * FAB_PAGE;
    fab_arena_tell(a);
    return (int64_t)(start * FAB_PAGE);
}

/* Does a block begin at this offset? */
static inline int fab_arena_is_block(const struct fab_arena *a, uint64_t offset) {
    return offset % FAB_PAGE == 0 && fab_pages_is_block(&a->pages, offset / FAB_PAGE);
}

/* Bytes of the block that begins at this offset; 0 when none does. */
static inline uint64_t fab_arena_block_bytes(const struct fab_arena *a, uint64_t offset) {
    return fab_arena_is_block(a, offset) ? a->pages.page[fab_arena_page_of(offset)].pages * FAB_PAGE : 0;
}

/* Where the block begins that this offset lies in; -1 when it lies in none. */
static inline int64_t fab_arena_find(const struct fab_arena *a, uint64_t offset) {
    uint32_t gap;
    if (offset >= a->pages.count * FAB_PAGE)
        return -1;
    uint32_t start = fab_pages_find(&a->pages, fab_arena_page_of(offset), &gap);
    return start == FAB_NO_PAGE ? -1 : (int64_t)(start * FAB_PAGE);
}

/* One reference more to the block at this offset. Returns 0 or -EINVAL. */
static inline int fab_arena_retain(struct fab_arena *a, uint64_t offset) {
    if (!fab_arena_is_block(a, offset) || a->pages.page[fab_arena_page_of(offset)].refs == UINT32_MAX)
        return -EINVAL;
    a->pages.page[fab_arena_page_of(offset)].refs++;
    return 0;
}

/* One reference more to the block that this offset lies in. Returns where it begins; -1: it lies in none. */
static inline int64_t fab_arena_retain_around(struct fab_arena *a, uint64_t offset) {
    int64_t block = fab_arena_find(a, offset);
    return block >= 0 && fab_arena_retain(a, (uint64_t)block) == 0 ? block : -1;
}

/* One reference less. Returns 0 or -EINVAL. */
static inline int fab_arena_drop(struct fab_arena *a, uint64_t offset) {
    if (!fab_arena_is_block(a, offset))
        return -EINVAL;
    fab_arena_unref(a, fab_arena_page_of(offset));
    return 0;
}

/* Give the memory of free pages back to the system, beyond `keep_bytes` of it, the largest runs first. Returns
 * how many bytes it took. */
static inline uint64_t fab_arena_trim(struct fab_arena *a, uint64_t keep_bytes) {
    struct fab_pages *p = &a->pages;
    uint64_t keep = keep_bytes / FAB_PAGE + (keep_bytes % FAB_PAGE != 0);
    uint64_t given = 0;
    for (uint64_t over; (over = p->resident - p->used) > keep;) {
        over -= keep;
        uint32_t run = fab_pages_largest_resident(p);
        uint32_t from;
        if (run == FAB_NO_PAGE)
            break;
        uint32_t pages = fab_run_cool(p, run, (uint32_t)over, &from);
        if (madvise(a->data + from * FAB_PAGE, pages * FAB_PAGE, MADV_REMOVE) != 0)
            break; /* memory that is no file: it stays, and is asked for again */
        given += pages * FAB_PAGE;
    }
    return given;
}

/* Bytes in blocks, bytes resident, bytes of the largest free run, loans out, bytes of the arena, blocks. */
static inline void fab_arena_usage(const struct fab_arena *a, uint64_t out[6]) {
    out[0] = a->pages.used * FAB_PAGE;
    out[1] = a->pages.resident * FAB_PAGE;
    out[2] = fab_pages_largest(&a->pages) * FAB_PAGE;
    out[3] = atomic_load_explicit(&a->out_count, memory_order_relaxed); /* relaxed: ours */
    out[4] = a->pages.count * FAB_PAGE;
    out[5] = a->pages.blocks;
}

#endif
