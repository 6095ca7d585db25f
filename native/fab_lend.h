/* SPDX-License-Identifier: MIT */
/*
 * fab_lend.h - lend pieces of an arena's blocks, and end the loans that were never sent.
 *
 *   lend -> loan (generation << 32 | index), which has a reference to the block ── a record ──> its reader
 *   unlend: it was not sent, or nobody will get the record
 *
 * Calls belong to the arena's thread (fab_arena.h). Those whose reader is done end by fab_arena_reclaim.
 */
#ifndef FAB_LEND_H
#define FAB_LEND_H

#include "fab_arena.h"

/* An entry for a loan; FAB_LOANS_MAX when all are out. */
static inline uint32_t fab_arena_entry(struct fab_arena *a) {
    uint64_t loans = a->peer->header.loans;
    if (a->unused_count == 0 && a->used_count == loans)
        fab_arena_reclaim(a, 0);
    if (a->unused_count != 0)
        return a->unused[--a->unused_count];
    return a->used_count < loans ? a->used_count++ : FAB_LOANS_MAX;
}

/* Lend [at, at + bytes) of the block at `offset` to a process. Takes a reference to the block. Returns the loan
 * (generation << 32 | index), -ENOSPC when all loans are out, -EINVAL. */
static inline int64_t fab_arena_lend(struct fab_arena *a, uint64_t offset, uint64_t at, uint64_t bytes,
                                     uint32_t reader) {
    uint64_t size = fab_arena_block_bytes(a, offset);
    if (size == 0 || bytes == 0 || reader >= a->peer->header.processes || at < offset || bytes > size ||
        at - offset > size - bytes)
        return -EINVAL;
    uint32_t index = fab_arena_entry(a);
    if (index == FAB_LOANS_MAX)
        return -ENOSPC;
    if (fab_arena_retain(a, offset) != 0) {
        a->unused[a->unused_count++] = index;
        return -EINVAL;
    }
    struct fab_loan *entry = &a->loans[index];
    uint64_t before = atomic_load_explicit(&entry->state, memory_order_relaxed); /* relaxed: ours */
    uint32_t generation = fab_loan_state_generation(before) % FAB_GENERATIONS + 1;
    fab_arena_note(a, index, generation, reader, fab_arena_page_of(offset));
    atomic_store_explicit(&entry->offset, at, memory_order_relaxed);
    atomic_store_explicit(&entry->bytes, bytes, memory_order_relaxed);
    /* Last, and release, for a successor: who dies before has lent nothing. A reader comes by P1 -> C1. */
    atomic_store_explicit(&entry->state, fab_loan_state(generation, reader), memory_order_release);
    fab_arena_tell(a);
    return (int64_t)((uint64_t)generation << 32 | index);
}

/* End a loan that was never sent. Returns 0, or -EINVAL when it is not out. */
static inline int fab_arena_unlend(struct fab_arena *a, uint64_t loan) {
    uint32_t index = fab_loan_index(loan);
    if (index >= a->used_count)
        return -EINVAL;
    uint32_t place = a->lent[index].place;
    if (place >= atomic_load_explicit(&a->out_count, memory_order_relaxed)) /* relaxed: ours */
        return -EINVAL;
    uint64_t out = atomic_load_explicit(&a->out[place], memory_order_relaxed);
    if ((out & 0xffff) != index || out >> 32 != fab_loan_generation(loan))
        return -EINVAL;
    fab_arena_end(a, place);
    return 0;
}

/* End the loans that a record of ours names, which nobody will get. `bytes` are those of its body. */
static inline void fab_arena_unlend_named(struct fab_arena *a, const uint8_t *body, uint64_t bytes) {
    struct fab_lent_list list;
    struct fab_lent_entry entry;
    if (bytes < sizeof list)
        return;
    memcpy(&list, body, sizeof list);
    for (uint64_t i = 0; i < list.count && (i + 1) * sizeof entry <= bytes - sizeof list; i++) {
        memcpy(&entry, body + sizeof list + i * sizeof entry, sizeof entry);
        (void)fab_arena_unlend(a, entry.loan);
    }
}

#endif
