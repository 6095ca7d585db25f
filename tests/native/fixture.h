/* SPDX-License-Identifier: MIT */
/*
 * fixture.h - what the C tests stand on: memory between guard pages, one lane, the layout of a fabric.
 *
 *   | no access | data of the lane | no access |     a read or write one byte outside ends the test
 */
#ifndef FIXTURE_H
#define FIXTURE_H

#include "check.h"
#include "fab_native.h"

#include <sys/eventfd.h>
#include <sys/mman.h>

/* A deterministic stream of numbers (xorshift64*). */
static inline uint64_t fixture_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

static inline uint32_t fixture_below(uint64_t *state, uint32_t limit) {
    return (uint32_t)((fixture_random(state) >> 32) % limit);
}

static inline uint8_t *fixture_map(uint64_t bytes) { /* bytes: whole pages */
    uint8_t *at = mmap(NULL, bytes + 2 * FAB_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    CHECK_EQ(mprotect(at + FAB_PAGE, bytes, PROT_READ | PROT_WRITE), 0);
    return at + FAB_PAGE;
}

static inline void fixture_unmap(uint8_t *at, uint64_t bytes) {
    CHECK_EQ(munmap(at - FAB_PAGE, bytes + 2 * FAB_PAGE), 0);
}

/* Where the data of a lane lies: AddressSanitizer watches the heap, the kernel the guard pages. */
enum fixture_place { FIXTURE_GUARDED, FIXTURE_HEAP, FIXTURE_PLACES };

/* Both ends of one lane. */
struct fixture_lane {
    alignas(FAB_LINE) _Atomic(uint64_t) tail;
    alignas(FAB_LINE) _Atomic(uint64_t) head;
    enum fixture_place place;
    uint64_t capacity;
    uint8_t *data;
    struct fab_producer p;
    struct fab_consumer c;
    struct fab_columns cols;
};

/* An empty lane whose counters stand at `at`. */
static inline void fixture_lane_open(struct fixture_lane *l, enum fixture_place place, uint64_t capacity,
                                     uint64_t at) {
    l->place = place;
    l->capacity = capacity;
    l->data = place == FIXTURE_HEAP ? malloc(capacity) : fixture_map(capacity);
    memset(l->data, 0xee, capacity);
    atomic_init(&l->tail, at);
    atomic_init(&l->head, at);
    CHECK_EQ(fab_producer_init(&l->p, &l->tail, &l->head, l->data, capacity), 0);
    CHECK_EQ(fab_consumer_init(&l->c, &l->tail, &l->head, l->data, capacity), 0);
}

static inline void fixture_lane_close(struct fixture_lane *l) {
    if (l->place == FIXTURE_HEAP)
        free(l->data);
    else
        fixture_unmap(l->data, l->capacity);
}

/* Byte i of body n. */
static inline uint8_t fixture_byte(uint64_t n, uint64_t i) {
    return (uint8_t)(n * 31 + i * 7 + (i >> 8));
}

static inline void fixture_fill(uint8_t *body, uint64_t n, uint64_t bytes) {
    for (uint64_t i = 0; i < bytes; i++)
        body[i] = fixture_byte(n, i);
}

static inline void fixture_check_body(const uint8_t *body, uint64_t n, uint64_t bytes) {
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < bytes; i++)
        wrong += body[i] != fixture_byte(n, i);
    CHECK_EQ(wrong, 0);
}

/* Empty a block up to its lanes, but for what is measured: that is much, and decides nothing. */
static inline void fixture_clear(const struct fab_header *h, uint8_t *block) {
    uint64_t behind = fab_last_use_offset(h);
    memset(block, 0, fab_measures_offset(h));
    memset(block + behind, 0, fab_data_offset(h, 0, 0) - behind);
}

/* A fabric of P processes, all of them in this one. */
#define FIXTURE_PROCESSES 5
struct fixture_fabric {
    struct fab_header header;
    uint8_t *whole;
    struct fab_peer *peers[FIXTURE_PROCESSES];
    int bells[FIXTURE_PROCESSES];
    struct fab_columns cols;
};

/* Flush an outbox; *lost counts what nobody can get. */
static inline int fixture_flush(struct fab_peer *s, uint64_t *lost) {
    struct fab_record stray;
    int rc;
    while ((rc = fab_peer_outbox_flush(s, &stray)) == 2)
        ++*lost;
    return rc;
}

static inline void fixture_fabric_open(struct fixture_fabric *f, uint32_t processes, uint64_t lane_bytes) {
    f->header = (struct fab_header){.processes = processes,
                                    .lane_bytes = lane_bytes,
                                    .peer_lane_bytes = lane_bytes,
                                    .control_lane_bytes = lane_bytes,
                                    .outbox_bytes = 2 * lane_bytes,
                                    .journal_bytes = 2 * lane_bytes,
                                    .arena_bytes = FAB_PAGE,
                                    .loans = 8,
                                    .max_agents = 64};
    CHECK(processes <= FIXTURE_PROCESSES);
    CHECK_EQ(fab_header_init(&f->header), 0);
    f->whole = fixture_map(f->header.segment_bytes);
    for (uint32_t p = 0; p < processes; p++) {
        f->bells[p] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        CHECK(f->bells[p] >= 0);
    }
    for (uint32_t p = 0; p < processes; p++) {
        f->peers[p] = calloc(1, sizeof *f->peers[p]);
        CHECK_EQ(
            fab_peer_init(f->peers[p], &f->header, p, f->whole, f->whole + fab_block_offset(&f->header, p)),
            0);
        for (uint32_t other = 0; other < processes; other++)
            fab_peer_set_bell(f->peers[p], other, f->bells[other]);
    }
}

static inline void fixture_fabric_close(struct fixture_fabric *f) {
    for (uint32_t p = 0; p < f->header.processes; p++) {
        CHECK_EQ(f->peers[p]->words->counters[FAB_COUNT_ALARMS], 0);
        free(f->peers[p]);
        CHECK_EQ(close(f->bells[p]), 0);
    }
    fixture_unmap(f->whole, f->header.segment_bytes);
}

#endif
