/* SPDX-License-Identifier: MIT */
/*
 * fab_outbox.h - what a worker's handlers sent and no lane had room for yet: a ring with both ends in one process.
 *
 *   handlers --batch--> outbox --step by step, in order--> lanes of the targets
 *           \\--one--------(while it is empty)-----------> lane of the target
 *
 * What lies here counts as published: a successor goes on with it.
 */
#ifndef FAB_OUTBOX_H
#define FAB_OUTBOX_H

#include "fab_batch.h"
#include "fab_lend.h"

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

#define FAB_INTENT_OF_SLICE 3 /* of the intent words; those before are of the first record of the outbox */

/* Say what the next store of the tail of `lane` (-1: of our outbox) will mean: that all effects of a slice are out,
 * which is what lies in lane `of` up to counter `end`. A successor that finds that tail moved on commits the slice
 * and does not handle it again. The lane makes the other words good: it is taken away first and given last. Release
 * as in fab_peer_intend. Worker only. */
static inline void fab_peer_intend_slice(struct fab_peer *s, int32_t lane, uint32_t of, uint64_t end) {
    _Atomic(uint64_t) *words = &s->words->intent[FAB_INTENT_OF_SLICE];
    const struct fab_producer *p = lane < 0 ? &s->outbox_in : &s->out[lane];
    atomic_store_explicit(&words[0], 0, memory_order_release);
    atomic_store_explicit(&words[1], end, memory_order_release);
    atomic_store_explicit(&words[2], (uint64_t)(lane + 1), memory_order_release);
    atomic_store_explicit(&words[3], p->next, memory_order_release);
    atomic_store_explicit(&words[0], (uint64_t)of + 1, memory_order_release);
}

/* The slice that a dead predecessor had published, if it was not over: its lane, and its end in *end; -1 for none. What
 * had not been published is struck out, for that tail will move for other reasons. Before anything is sent. */
static inline int32_t fab_peer_published_slice(struct fab_peer *s, uint64_t *end) {
    _Atomic(uint64_t) *words = &s->words->intent[FAB_INTENT_OF_SLICE];
    uint64_t word[4];
    for (int i = 0; i < 4; i++) /* relaxed: whoever wrote them is dead */
        word[i] = atomic_load_explicit(&words[i], memory_order_relaxed);
    uint64_t where = word[2];
    if (word[0] != 0 && word[0] <= s->header.processes && where <= s->header.processes &&
        (where == 0 ? &s->outbox_in : &s->out[where - 1])->next != word[3]) {
        *end = word[1];
        return (int32_t)(word[0] - 1);
    }
    atomic_store_explicit(&words[0], 0, memory_order_release);
    return -1;
}

/* Look at records that lie behind one another (header, body, no padding; header.size is that of the body): the lane
 * that all their targets live behind in *lane, -1 when that is not one; in *wanted the room with which they fit for
 * certain, though one of them may have to begin anew behind padding. Returns 0, -ENOENT (somebody is gone), -EINVAL. */
static inline int fab_peer_outbox_look(struct fab_peer *s, const uint8_t *records, uint64_t bytes,
                                       int32_t *lane, uint64_t *wanted) {
    struct fab_record r;
    uint64_t most = 0;
    *wanted = 0;
    for (uint64_t at = 0; at < bytes; at += sizeof r + r.size) {
        if (bytes - at < sizeof r)
            return -EINVAL;
        memcpy(&r, records + at, sizeof r);
        if (r.size > bytes - at - sizeof r || r.kind == FAB_KIND_PAD)
            return -EINVAL;
        int32_t slot = fab_peer_slot(s, r.target);
        if (slot < 0)
            return -ENOENT;
        *lane = at == 0 || slot == *lane ? slot : -1;
        uint64_t span = fab_record_span(r.size);
        most = span > most ? span : most;
        *wanted += span;
    }
    *wanted += most;
    return bytes == 0 ? -EINVAL : 0;
}

/* Write records behind one another, of one kind, to a lane (-1: to our outbox), and publish them by one store. */
static inline void fab_peer_outbox_write(struct fab_peer *s, int32_t lane, const uint8_t *records,
                                         uint64_t bytes) {
    struct fab_producer *p = lane < 0 ? &s->outbox_in : &s->out[lane];
    struct fab_record r = {0};
    uint64_t before = p->next;
    uint64_t now = (uint64_t)fab_now();
    uint64_t count = 0;
    uint64_t asks = 0;
    int metered = lane >= 0 && fab_meter_on(s); /* what leaves the outbox is measured then */
    for (uint64_t at = 0; at < bytes; at += sizeof r + r.size, count++) {
        memcpy(&r, records + at, sizeof r);
        r.sent_at = now;
        (void)fab_producer_put(p, &r, records + at + sizeof r); /* there is room: that was looked at */
        asks += r.correlation != 0;
        if (metered && r.kind == FAB_KIND_MESSAGE && r.correlation != 0) /* before it is published */
            fab_meter_asked(s, r.correlation, 1, now);
    }
    if (metered)
        fab_meter_sent(s, (uint32_t)lane, r.kind, count, asks, p->next - before);
    if (lane < 0)
        fab_producer_publish(p);
    else
        fab_peer_publish(s, (uint32_t)lane);
}

/* Publish records behind one another, of one kind, by one store: what most slices send, in one crossing. They go to
 * the lane that all their targets live behind; to our outbox when they are to queue `behind` what lies there already,
 * or when they are all of a slice and no one lane takes them. What the store will mean is said before it (`of` below
 * 0: nothing, see fab_peer_intend_slice). Returns 1 (in a lane), 2 (in the outbox), or 0 when nothing was done: there
 * is too little room, or somebody is gone. Worker only. Never waits. */
static inline int fab_peer_outbox_pass(struct fab_peer *s, int32_t of, uint64_t end, uint32_t behind,
                                       const uint8_t *records, uint64_t bytes) {
    int32_t lane = -1;
    uint64_t wanted = 0;
    if (fab_peer_outbox_look(s, records, bytes, &lane, &wanted) != 0)
        return 0;
    if (behind || (lane >= 0 && fab_producer_room(&s->out[lane], wanted) < wanted))
        lane = -1;
    if (lane < 0 && ((of < 0 && !behind) || fab_producer_room(&s->outbox_in, wanted) < wanted))
        return 0; /* decided before anything is said: what is said stays true until the next slice */
    if (of >= 0)
        fab_peer_intend_slice(s, lane, (uint32_t)of, end);
    fab_peer_outbox_write(s, lane, records, bytes);
    return lane < 0 ? 2 : 1;
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
