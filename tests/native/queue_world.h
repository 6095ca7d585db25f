/* SPDX-License-Identifier: MIT */
/*
 * queue_world.h - queues for the C tests: a memfd each, mapped once or more often, with bodies that tell who put
 * them.
 */
#ifndef QUEUE_WORLD_H
#define QUEUE_WORLD_H

#include "fixture.h"

#include <sys/mman.h>

#define QUEUE_RING FAB_QUEUE_LEAST_BYTES
#define QUEUE_ROOM (1u << 20) /* of what is got */

struct queue_world {
    int descriptor;
    struct fab_queue q;
    struct fab_queue_taken taken;
};

static inline void queue_world_open(struct queue_world *w, uint64_t ring_bytes, uint32_t maxsize) {
    w->descriptor = memfd_create("queue", MFD_CLOEXEC);
    CHECK(w->descriptor >= 0);
    CHECK_EQ(ftruncate(w->descriptor, (off_t)(FAB_QUEUE_DATA + ring_bytes)), 0);
    CHECK_EQ(fab_queue_create(&w->q, w->descriptor, ring_bytes, maxsize, 1), 0);
    fab_queue_allow(&w->q, UINT64_MAX / 4);
    w->taken.room = QUEUE_ROOM;
    w->taken.bytes = malloc(QUEUE_ROOM);
}

static inline void queue_world_close(struct queue_world *w) {
    fab_queue_close(&w->q);
    free(w->taken.bytes);
    CHECK_EQ(close(w->descriptor), 0);
}

/* Bytes of memory that the file has. */
static inline uint64_t queue_memory(const struct queue_world *w) {
    struct stat about;
    CHECK_EQ(fstat(w->descriptor, &about), 0);
    return (uint64_t)about.st_blocks * 512;
}

/* Put body n of so many bytes, without waiting. Returns as fab_queue_put. */
static inline int32_t queue_put(struct queue_world *w, uint64_t n, uint64_t bytes) {
    static _Thread_local uint8_t body[QUEUE_ROOM];
    fixture_fill(body, n, bytes);
    return fab_queue_put(&w->q, body, bytes, n & 1, FAB_QUEUE_NO_WAIT);
}

/* Get the next, which must be body n of so many bytes. */
static inline void queue_get(struct queue_world *w, uint64_t n, uint64_t bytes) {
    CHECK_EQ(fab_queue_get(&w->q, &w->taken, FAB_QUEUE_NO_WAIT),
             (int64_t)(bytes << FAB_QUEUE_ENCODING_BITS | (n & 1)));
    fixture_check_body(w->taken.bytes, n, bytes);
}

/* Set the counters of an empty queue. */
static inline void queue_set(struct queue_world *w, uint64_t position, uint32_t count, uint64_t base) {
    uint64_t word = fab_queue_word(position, count);
    atomic_store(&w->q.shared->tail, word);
    atomic_store(&w->q.shared->head, word);
    atomic_store(&w->q.shared->tail_seen, word);
    atomic_store(&w->q.shared->head_seen, word);
    atomic_store(&w->q.shared->freed, position & FAB_QUEUE_POSITIONS);
    atomic_store(&w->q.shared->base, base & FAB_QUEUE_POSITIONS);
    atomic_store(&w->q.shared->done, count);
}

#endif
