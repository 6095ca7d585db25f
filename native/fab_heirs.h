/* SPDX-License-Identifier: MIT */
/*
 * fab_heirs.h - open an arena: what a dead predecessor in our slot left lent stays where it is.
 *
 *   our table of loans -> those that can be -> found in a lane or in the outbox? -> else held, by its receipt?
 *                                                                                  -> else ended
 *   what is live -> sorted by place; loans that share a page are one block -> all else is one free run each,
 *   whose memory goes back to the system: nobody knows what of it there is
 *
 * This is part 3 of the story in fab_loan.h. Killed anywhere in here, the next successor does the same again.
 */
#ifndef FAB_HEIRS_H
#define FAB_HEIRS_H

#include "fab_arena.h"

#include <sys/mman.h>

/* One entry of the table, as the predecessor left it. */
struct fab_heir {
    uint64_t offset;
    uint64_t bytes;
    uint32_t index;
    uint32_t generation;
    uint32_t reader;
    uint32_t is_live;
};

/* Read our table. An entry that cannot be has no bytes. */
static inline void fab_heirs_read(const struct fab_arena *a, struct fab_heir *heirs) {
    for (uint32_t index = 0; index < a->used_count; index++) { /* relaxed, all: its writer is dead */
        const struct fab_loan *entry = &a->loans[index];
        uint64_t state = atomic_load_explicit(&entry->state, memory_order_relaxed);
        struct fab_heir heir = {.offset = atomic_load_explicit(&entry->offset, memory_order_relaxed),
                                .bytes = atomic_load_explicit(&entry->bytes, memory_order_relaxed),
                                .index = index,
                                .generation = fab_loan_state_generation(state),
                                .reader = (uint32_t)(state & 0xffff) - 1};
        uint64_t size = a->pages.count * FAB_PAGE;
        if (heir.generation == 0 || heir.reader >= a->peer->header.processes ||
            state != fab_loan_state(heir.generation, heir.reader) || heir.bytes > size ||
            heir.offset > size - heir.bytes)
            heir.bytes = 0;
        heirs[index] = heir;
    }
}

/* The loans that one record names are live. `bytes` are those of its body. */
static inline void fab_heirs_named(const struct fab_arena *a, struct fab_heir *heirs, const uint8_t *body,
                                   uint64_t bytes) {
    struct fab_lent_list list;
    struct fab_lent_entry entry;
    if (bytes < sizeof list)
        return;
    memcpy(&list, body, sizeof list);
    uint64_t most = (bytes - sizeof list) / sizeof entry;
    for (uint64_t i = 0; i < list.count && i < most; i++) {
        memcpy(&entry, body + sizeof list + i * sizeof entry, sizeof entry);
        uint32_t index = fab_loan_index(entry.loan);
        if (index >= a->used_count)
            continue;
        struct fab_heir *heir = &heirs[index];
        if (heir->generation == fab_loan_generation(entry.loan) && heir->offset == entry.offset &&
            heir->bytes == entry.bytes)
            heir->is_live = 1;
    }
}

/* Go through a ring of ours from its head to its tail. An older head than there is by now does no harm. */
static inline void fab_heirs_walk(const struct fab_arena *a, struct fab_heir *heirs,
                                  const struct fab_producer *ring) {
    if (ring->capacity == 0)
        return;
    /* P2, before the receipts are read: who commits a record has said before that it holds its loans */
    uint64_t head = atomic_load_explicit(ring->head, FAB_P2);
    struct fab_consumer c = {.data = ring->data, .capacity = ring->capacity, .read = head};
    if (ring->next - head > ring->capacity)
        return;
    while (c.read != ring->next) {
        struct fab_record r;
        uint64_t offset = c.read & (c.capacity - 1);
        uint64_t left = ring->next - c.read;
        if (!fab_consumer_header(&c, left < c.capacity - offset ? left : c.capacity - offset, &r))
            return;
        if (r.kind == FAB_KIND_PAD) {
            c.read += r.size;
            continue;
        }
        if ((r.encoding & FAB_LENT) != 0)
            fab_heirs_named(a, heirs, c.data + offset + sizeof r, r.size - sizeof r);
        c.read += fab_record_span(r.size - sizeof r);
    }
}

/* Does its reader hold it? Behind all walks. */
static inline int fab_heir_is_held(const struct fab_arena *a, const struct fab_heir *heir) {
    const struct fab_receipt *receipt =
        fab_peer_receipt(a->peer, heir->reader, a->peer->process, heir->index);
    /* L2: pairs with L1. If it is DONE, the payload is written over before long. */
    return atomic_load_explicit(&receipt->state, FAB_L2) == fab_receipt_state(heir->generation, FAB_HELD);
}

/* End what nobody holds and nobody will be told of; move what is live to the front. Returns how many that is. */
static inline uint32_t fab_heirs_settle(struct fab_arena *a, struct fab_heir *heirs) {
    uint32_t live = 0;
    for (uint32_t index = 0; index < a->used_count; index++) {
        struct fab_heir heir = heirs[index];
        if (heir.bytes != 0 && (heir.is_live || fab_heir_is_held(a, &heir))) {
            heirs[live++] = heir;
            continue;
        }
        uint32_t generation = heir.generation + (heir.generation == 0); /* used, and so not 0 */
        atomic_store_explicit(&a->loans[index].state, (uint64_t)generation << 16, memory_order_release);
        a->unused[a->unused_count++] = index;
    }
    return live;
}

static inline int fab_heir_compare(const void *x, const void *y) {
    uint64_t a = ((const struct fab_heir *)x)->offset;
    uint64_t b = ((const struct fab_heir *)y)->offset;
    return (a > b) - (a < b);
}

/* Make blocks of what is live. */
static inline void fab_heirs_place(struct fab_arena *a, struct fab_heir *heirs, uint32_t live) {
    qsort(heirs, live, sizeof *heirs, fab_heir_compare);
    for (uint32_t i = 0, next = 0; i < live; i = next) {
        uint32_t start = fab_arena_page_of(heirs[i].offset);
        uint32_t end = start;
        for (; next < live && (next == i || fab_arena_page_of(heirs[next].offset) < end); next++) {
            uint32_t behind = fab_arena_page_of(heirs[next].offset + heirs[next].bytes + FAB_PAGE - 1);
            end = behind > end ? behind : end;
            fab_arena_note(a, heirs[next].index, heirs[next].generation, heirs[next].reader, start);
        }
        fab_pages_claim(&a->pages, start, end - start); /* cannot fail: in order, and behind the one before */
        a->pages.page[start].refs = next - i;
    }
}

/* Give back what memory lies between the blocks. Where that fails, it is taken for fresh: too much is asked for. */
static inline void fab_heirs_clear(const struct fab_arena *a) {
    const struct fab_pages *p = &a->pages;
    for (uint32_t page = 0; page < p->count; page += p->page[page].pages)
        if (!fab_bit(p->starts, page))
            (void)madvise(a->data + page * FAB_PAGE, p->page[page].pages * FAB_PAGE, MADV_REMOVE);
}

/* Give up an arena's private memory. What is lent stays lent. */
static inline void fab_arena_close(struct fab_arena *a) {
    if (a->peer != NULL && a->peer->arena == a)
        a->peer->arena = NULL;
    fab_pages_close(&a->pages);
    free(a->lent);
    free(a->unused);
    free(a->out);
    memset(a, 0, sizeof *a);
}

/* Private memory for an arena without blocks. Returns 0, -EINVAL (there is none), -ENOMEM. */
static inline int fab_arena_prepare(struct fab_arena *a, struct fab_peer *s) {
    const struct fab_header *h = &s->header;
    uint64_t pages = h->arena_bytes / FAB_PAGE;
    memset(a, 0, sizeof *a);
    if (pages == 0)
        return -EINVAL;
    a->peer = s;
    a->data = s->block + fab_arena_offset(h, s->process);
    a->loans = (struct fab_loan *)(void *)(s->block + fab_loans_offset(h));
    a->used_count = fab_loans_used(s, s->process);
    a->lent = calloc(h->loans + 1, sizeof *a->lent);
    a->unused = calloc(h->loans + 1, sizeof *a->unused);
    a->out = calloc(h->loans + 1, sizeof *a->out);
    if (a->lent != NULL && a->unused != NULL && a->out != NULL &&
        fab_pages_open(&a->pages, pages < FAB_NO_PAGE ? (uint32_t)pages : FAB_NO_PAGE - 1) == 0)
        return 0;
    fab_arena_close(a);
    return -ENOMEM;
}

/* Set up the arena of a process, with what a predecessor left lent. Returns 0, -EINVAL (there is none), -ENOMEM.
 * Its owner, before it sends anything; the bells are set. */
static inline int fab_arena_open(struct fab_arena *a, struct fab_peer *s) {
    int rc = fab_arena_prepare(a, s);
    if (rc != 0)
        return rc;
    struct fab_heir *heirs = calloc((size_t)a->used_count + 1, sizeof *heirs);
    if (heirs == NULL) {
        fab_arena_close(a);
        return -ENOMEM;
    }
    fab_heirs_read(a, heirs);
    for (uint32_t lane = 0; lane < 2 * s->header.processes; lane++)
        fab_heirs_walk(a, heirs, &s->out[lane]);
    fab_heirs_walk(a, heirs, &s->outbox_in);
    fab_heirs_place(a, heirs, fab_heirs_settle(a, heirs)); /* receipts are read behind all lanes */
    fab_heirs_clear(a);
    free(heirs);
    s->arena = a;
    return 0;
}

#endif
