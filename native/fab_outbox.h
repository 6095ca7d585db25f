/* SPDX-License-Identifier: MIT */
/*
 * fab_outbox.h - what a worker's handlers sent and no lane had room for yet: a ring with both ends in one process.
 *
 *   handlers --batch--> outbox --step by step, in order--> lanes of the targets
 *
 * What lies here counts as published: a successor goes on with it.
 */
#ifndef FAB_OUTBOX_H
#define FAB_OUTBOX_H

#include "fab_batch.h"

/* Write and publish records of a batch to our own outbox. Worker only. Never waits. */
static inline int32_t fab_peer_outbox_batch(struct fab_peer *s, const struct fab_batch *b, uint32_t *done,
                                            uint64_t *offset) {
    struct fab_batch stamped = *b;
    stamped.header.sent_at = (uint64_t)fab_now();
    int32_t count = fab_batch_put(&s->outbox_in, &stamped, UINT64_MAX, done, offset);
    if (count > 0)
        fab_producer_publish(&s->outbox_in);
    return count;
}

/* Bytes that the outbox still takes for certain, padding allowed for. Worker only. */
static inline uint64_t fab_peer_outbox_room(struct fab_peer *s) {
    return fab_producer_room(&s->outbox_in, s->outbox_in.capacity) / 2;
}

/* Say that no record of the outbox is on its way. */
static inline void fab_peer_intend_nothing(struct fab_peer *s) {
    atomic_store_explicit(&s->words->intent[0], s->outbox_out.read, memory_order_release);
}

/* Say what the first record of the outbox is about to do, for a successor: without this, one killed between
 * the tail of the lane and the head of the outbox would have its record sent twice. The counter behind the
 * record makes the other two words good: it is taken away first and given last. Release, although nobody
 * else reads them while we live: one may be killed between any two stores, and they must be in this order. */
static inline void fab_peer_intend(struct fab_peer *s, uint64_t behind, uint32_t lane) {
    fab_peer_intend_nothing(s);
    atomic_store_explicit(&s->words->intent[1], lane, memory_order_release);
    atomic_store_explicit(&s->words->intent[2], s->out[lane].next, memory_order_release);
    atomic_store_explicit(&s->words->intent[0], behind, memory_order_release);
}

/* Take up the outbox of a dead predecessor: step over its first record if that is in its lane already. */
static inline void fab_peer_outbox_resume(struct fab_peer *s) {
    struct fab_consumer *c = &s->outbox_out;
    uint64_t behind = atomic_load_explicit(&s->words->intent[0], memory_order_relaxed);
    uint64_t lane = atomic_load_explicit(&s->words->intent[1], memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&s->words->intent[2], memory_order_relaxed);
    uint64_t ready = fab_consumer_ready(c);
    if (ready == 0 || behind - c->read > ready || behind == c->read || lane >= s->header.processes ||
        s->out[lane].capacity == 0 || s->out[lane].next == tail)
        return;
    c->read = behind;
    fab_consumer_commit(c, behind);
}

/* Move the first record of the outbox to the lane its target lives behind. Returns 1 (moved), 0 when that lane
 * is full or the outbox empty, 2 when nobody can get it: then it is taken out and its header is in *stray. What
 * lies in an outbox may be a dead predecessor's: bytes that are no record are dropped, as from a lane; that too
 * is a stray, of no kind. What was lent to nobody is taken back. Under the arena's lock. */
static inline int fab_peer_outbox_step(struct fab_peer *s, struct fab_record *stray) {
    struct fab_consumer *c = &s->outbox_out;
    struct fab_record r;
    uint64_t ready = fab_consumer_ready(c);
    uint64_t offset = c->read & (c->capacity - 1);
    uint64_t room = ready < c->capacity - offset ? ready : c->capacity - offset;
    if (room == 0)
        return 0;
    if (!fab_consumer_header(c, room, &r)) {
        fab_consumer_drop(c);
        fab_consumer_commit(c, c->read);
        *stray = (struct fab_record){0};
        return 2;
    }
    int rc = 1;
    uint64_t span = r.kind == FAB_KIND_PAD ? r.size : fab_record_span(r.size - sizeof r);
    if (r.kind != FAB_KIND_PAD) {
        int32_t slot = fab_peer_slot(s, r.target);
        r.size -= (uint32_t)sizeof r;
        if (slot >= 0)
            fab_peer_intend(s, c->read + span, (uint32_t)slot);
        rc = slot < 0 ? -ENOENT : fab_peer_send(s, (uint32_t)slot, &r, c->data + offset + sizeof r);
        if (rc != 1) /* nothing was sent: other sends may move that tail before we come again */
            fab_peer_intend_nothing(s);
        if (rc == 0)
            return 0;
        if (rc < 0) {
            *stray = r;
            if ((r.encoding & FAB_LENT) != 0 && s->arena != NULL)
                fab_arena_unlend_named(s->arena, c->data + offset + sizeof r, r.size);
        }
    }
    c->read += span;
    fab_consumer_commit(c, c->read);
    return rc < 0 ? 2 : 1;
}

/* Move what fits from the outbox to the lanes, in order. Returns 1 when the outbox is empty, 0 when a lane is
 * full, 2 at a record that nobody can get, with its header in *stray: call again. Worker only. Never waits. */
static inline int fab_peer_outbox_flush(struct fab_peer *s, struct fab_record *stray) {
    int rc = 1;
    while (rc == 1)
        rc = fab_peer_outbox_step(s, stray);
    return rc == 2 ? 2 : fab_consumer_ready(&s->outbox_out) == 0;
}

#endif
