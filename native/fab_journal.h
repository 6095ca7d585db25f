/* SPDX-License-Identifier: MIT */
/*
 * fab_journal.h - what a worker writes down for its successor: the messages that agents with snapshots have
 * handled since, and their snapshots. A ring in the worker's own block, both ends its own.
 *
 *   | states | mark | run | run | states | mark | run |        run: records of a lane, copied as they lie there
 *   ^ head                                            ^ tail   mark: the states before it are complete
 *
 * Nobody else reads it while the worker lives, so nothing here needs an ordering: what a dead process has
 * stored is all there, in the order of its program, when the kernel has said that it is dead.
 */
#ifndef FAB_JOURNAL_H
#define FAB_JOURNAL_H

#include "fab_batch.h"

#define FAB_KIND_RUN 16u

/* Copy records of an incoming lane, from counter `begin` to `end`, which lie in one stretch and are not
 * committed yet. Returns 1, 0 for want of room, -EMSGSIZE, -EINVAL. Worker only. */
static inline int fab_peer_journal_run(struct fab_peer *s, uint32_t lane, uint64_t begin, uint64_t end) {
    if (s->journal_in.capacity == 0 || lane >= s->header.processes)
        return -EINVAL;
    const struct fab_consumer *c = &s->in[lane];
    uint64_t offset = begin & (c->capacity - 1);
    uint64_t held = c->read - c->committed;
    if (begin - c->committed > held || end - c->committed > held || end - begin > c->capacity - offset)
        return -EINVAL;
    struct fab_record r = {.size = (uint32_t)(end - begin),
                           .kind = FAB_KIND_RUN,
                           .target = lane,
                           .sender = begin,
                           .correlation = end};
    int rc = fab_producer_put(&s->journal_in, &r, c->data + offset);
    if (rc == 1)
        fab_producer_publish(&s->journal_in);
    return rc;
}

/* Write and publish records of a batch, as many as fit: see fab_batch_put. Worker only. */
static inline int32_t fab_peer_journal_batch(struct fab_peer *s, const struct fab_batch *b, uint32_t *done,
                                             uint64_t *offset) {
    if (s->journal_in.capacity == 0)
        return -EINVAL;
    int32_t count = fab_batch_put(&s->journal_in, b, UINT64_MAX, done, offset);
    if (count > 0)
        fab_producer_publish(&s->journal_in);
    return count;
}

/* Bytes that can be written before the tail meets the head; padding at the end comes off that. */
static inline uint64_t fab_peer_journal_room(struct fab_peer *s) {
    return s->journal_in.capacity == 0 ? 0 : fab_producer_room(&s->journal_in, s->journal_in.capacity);
}

static inline uint64_t fab_peer_journal_tail(const struct fab_peer *s) {
    return s->journal_in.next;
}

/* Read on, for a successor: up to FAB_BATCH_MAX records of one kind. Returns their number, 0 at the end. */
static inline uint32_t fab_peer_journal_peek(struct fab_peer *s, struct fab_columns *cols) {
    return s->journal_in.capacity == 0 ? 0
                                       : fab_consumer_peek(&s->journal_out, FAB_BATCH_MAX, UINT64_MAX, cols);
}

/* Give up all that was written before counter `end`. Worker only. */
static inline void fab_peer_journal_forget(struct fab_peer *s, uint64_t end) {
    struct fab_consumer *c = &s->journal_out;
    c->tail_seen = s->journal_in.next;
    if (end - c->committed > c->tail_seen - c->committed)
        return;
    c->read = end;
    fab_consumer_commit(c, end);
}

#endif
