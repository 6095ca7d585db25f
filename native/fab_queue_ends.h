/* SPDX-License-Identifier: MIT */
/*
 * fab_queue_ends.h - put and get: one item, or many behind one commit.
 *
 *   put   lock, write records behind tail, Q1 store tail, unlock, ring for items
 *   get   lock, copy records behind head, store head, unlock, ring for room
 *
 * Who is killed before the store has done nothing, after it everything. Both say 0 or more when done, else:
 * -EAGAIN: full or empty until the deadline; -EINTR: a signal came; -EBUSY: somebody has held the lock for long, a
 * signal may have come; -ESHUTDOWN; -EBADMSG: what is there is no queue any more; and put: -ENOMEM: allowance,
 * see fab_queue_ensure; -ENOBUFS: more bytes than the ring has left.
 */
#ifndef FAB_QUEUE_ENDS_H
#define FAB_QUEUE_ENDS_H

#include "fab_queue_laps.h"
#include "fab_queue_wait.h"

#define FAB_QUEUE_ENCODING_BITS 8u   /* of what fab_queue_get returns */
#define FAB_QUEUE_NO_WAIT INT64_C(0) /* deadlines: these two, or a moment of fab_now */
#define FAB_QUEUE_FOR_EVER INT64_MAX

/* Items of one put, laid end to end. */
struct fab_queue_batch {
    const uint8_t *bytes;
    const uint64_t *sizes;    /* NULL: all are of size `uniform` */
    const uint8_t *encodings; /* NULL: all are `encoding` */
    uint64_t uniform;
    uint32_t encoding;
    uint32_t count;
};

/* Items of one get. */
struct fab_queue_taken {
    uint8_t *bytes;
    uint64_t room;
    uint64_t used;
    uint64_t sizes[FAB_BATCH_MAX];
    uint8_t encodings[FAB_BATCH_MAX];
};

/* Are two words of this queue those of a head and the tail behind it? */
static inline int fab_queue_is_sound(const struct fab_queue *q, uint64_t head, uint64_t tail) {
    uint64_t units = fab_queue_units(fab_queue_position(head), fab_queue_position(tail));
    uint32_t items = fab_queue_items(head, tail);
    return units < 2 * q->ring_bytes / FAB_QUEUE_UNIT && items <= units && (items > 0 || units == 0);
}

/* Write one record behind *tail, and move that. Returns 0, -ENOBUFS or -ENOMEM. Holder of put_lock. */
static inline int fab_queue_lay(struct fab_queue *q, uint64_t *tail, const uint8_t *body, uint64_t size,
                                uint32_t encoding) {
    if (size >= q->ring_bytes)
        return -ENOBUFS;
    uint64_t span = fab_queue_span(size);
    struct fab_queue_place place = fab_queue_place(q, *tail);
    int rc = fab_queue_make_room(q, &place, span);
    if (rc == 0)
        rc = fab_queue_ensure(q, place.offset, span);
    if (rc != 0)
        return rc;
    struct fab_queue_record *record = fab_queue_at(q, place.offset);
    record->size = size;
    record->check = fab_queue_check(place.position);
    record->encoding = encoding;
    if (size > 0)
        memcpy(record + 1, body, size);
    *tail = fab_queue_word(place.position + span, fab_queue_count(*tail) + 1);
    return 0;
}

/* Items that there is room for, of `wanted`. Holder of put_lock. */
static inline uint32_t fab_queue_room(struct fab_queue *q, uint64_t tail, uint32_t wanted) {
    struct fab_queue_shared *s = q->shared;
    /* relaxed: a head of the past, seen by a holder of put_lock; head is only counted, so relaxed too */
    uint64_t head = atomic_load_explicit(&s->head_seen, memory_order_relaxed);
    uint32_t items = fab_queue_items(head, tail);
    if (items > q->maxsize || q->maxsize - items < wanted) {
        head = atomic_load_explicit(&s->head, memory_order_relaxed);
        atomic_store_explicit(&s->head_seen, head, memory_order_relaxed);
        items = fab_queue_items(head, tail);
    }
    return items > q->maxsize ? 0 : q->maxsize - items < wanted ? q->maxsize - items : wanted;
}

/* Put what fits of a batch, without waiting. Returns how many, or as at the top. Holder of put_lock. */
static inline int32_t fab_queue_put_some(struct fab_queue *q, const struct fab_queue_batch *b) {
    struct fab_queue_shared *s = q->shared;
    if (fab_queue_state(q) != FAB_QUEUE_OPEN)
        return -ESHUTDOWN;
    uint64_t tail =
        atomic_load_explicit(&s->tail, memory_order_relaxed); /* relaxed: its writers had our lock */
    uint32_t room = fab_queue_room(q, tail, b->count);
    if (room == 0)
        return -EAGAIN;
    const uint8_t *body = b->bytes;
    uint32_t done = 0;
    int rc = 0;
    if (b->count > 1 || (fab_queue_position(tail) & 255) <= fab_queue_span(b->uniform))
        fab_queue_rewind(q, tail); /* each 4 KiB: head is in another CPU's cache */
    for (; done < room; done++) {
        uint64_t size = b->sizes != NULL ? b->sizes[done] : b->uniform;
        rc = fab_queue_lay(q, &tail, body, size, b->encodings != NULL ? b->encodings[done] : b->encoding);
        if (rc != 0)
            break;
        body += size;
    }
    if (done == 0)
        return rc;
    /* Q1: pairs with Q2. All that was laid is there now. */
    atomic_store_explicit(&s->tail, tail, FAB_Q1);
    return (int32_t)done;
}

/* Put items from the first on, as many as there is room for; waits until that is one. Returns how many, or as at
 * the top. Any process and thread. */
static inline int32_t fab_queue_put_many(struct fab_queue *q, const struct fab_queue_batch *b,
                                         int64_t deadline) {
    if (b->count == 0)
        return 0;
    for (;;) {
        int32_t rc = fab_queue_lock(&q->shared->put_lock);
        if (rc != 0)
            return rc;
        rc = fab_queue_put_some(q, b);
        fab_queue_unlock(&q->shared->put_lock);
        if (rc > 0)
            fab_queue_ring(&q->shared->items, (uint32_t)rc);
        if (rc != -EAGAIN || deadline == FAB_QUEUE_NO_WAIT)
            return rc;
        rc = fab_queue_wait(q, FAB_QUEUE_ROOM, deadline);
        if (rc != 0)
            return rc;
    }
}

/* Put one item. Returns 1, or as at the top. Any process and thread. */
static inline int32_t fab_queue_put(struct fab_queue *q, const uint8_t *body, uint64_t size,
                                    uint32_t encoding, int64_t deadline) {
    struct fab_queue_batch one = {.bytes = body, .uniform = size, .encoding = encoding, .count = 1};
    return fab_queue_put_many(q, &one, deadline);
}

/* Throw away what is there, after an immediate shutdown: whoever comes by. Holder of get_lock. */
static inline void fab_queue_drop(struct fab_queue *q) {
    struct fab_queue_shared *s = q->shared;
    uint64_t head = atomic_load_explicit(&s->head, memory_order_relaxed); /* relaxed: behind get_lock */
    uint64_t tail = atomic_load_explicit(&s->tail, FAB_Q2);
    if (fab_queue_items(head, tail) == 0)
        return;
    atomic_store_explicit(&s->dropped, fab_queue_items(head, tail), FAB_Q6); /* again, if head is not moved */
    atomic_store_explicit(&s->head, tail, FAB_Q6);
    fab_queue_free(q, tail, UINT64_MAX);
}

/* Find the record at *head, and go over padding; *passed is where that began that ends a lap. NULL: there is none that
 * can be right. Its size is read once, for what is checked must be what is used. Holder of get_lock. */
static inline const struct fab_queue_record *fab_queue_find(const struct fab_queue *q, uint64_t *head,
                                                            uint64_t tail, uint64_t *size, uint64_t *passed) {
    uint64_t ring = q->ring_bytes / FAB_QUEUE_UNIT;
    for (int padding = 0; padding < 3; padding++) { /* two at most: back, and over */
        uint64_t position = fab_queue_position(*head);
        uint64_t units = fab_queue_units(position, fab_queue_position(tail));
        uint64_t offset = fab_queue_offset(q, position);
        const struct fab_queue_record *record = fab_queue_at(q, offset);
        *size = *(const volatile uint64_t *)&record->size; /* volatile: once, whatever the compiler thinks */
        if (units == 0 || *size >= q->ring_bytes || record->check != fab_queue_check(position))
            return NULL;
        uint64_t span = fab_queue_span(*size);
        if (span > units || offset + span > ring)
            return NULL;
        if (record->encoding != FAB_QUEUE_PADDING)
            return record;
        *passed = offset + span == ring ? offset : *passed;
        *head = fab_queue_word(position + span, fab_queue_count(*head));
    }
    return NULL;
}

/* Copy out up to `wanted` items from *head on, and move that. Returns how many, -EMSGSIZE or -EBADMSG. Holder of
 * get_lock. */
static inline int32_t fab_queue_copy_out(const struct fab_queue *q, struct fab_queue_taken *taken,
                                         uint64_t *head, uint64_t tail, uint32_t wanted, uint64_t *passed) {
    uint32_t done = 0;
    for (taken->used = 0; done < wanted; done++) {
        uint64_t size;
        const struct fab_queue_record *record = fab_queue_find(q, head, tail, &size, passed);
        if (record == NULL && done == 0)
            return -EBADMSG;
        if (record != NULL && done == 0 && size > taken->room) {
            taken->used = size;
            return -EMSGSIZE;
        }
        if (record == NULL || size > taken->room - taken->used)
            break;
        memcpy(taken->bytes + taken->used, record + 1, size);
        taken->sizes[done] = size;
        taken->encodings[done] = (uint8_t)record->encoding;
        taken->used += size;
        *head = fab_queue_word(fab_queue_position(*head) + fab_queue_span(size), fab_queue_count(*head) + 1);
    }
    return (int32_t)done;
}

/* Take up to `most` items, without waiting. Returns how many, or as at the top, or -EMSGSIZE: the next one takes
 * taken->used bytes, and there are not so many; it is still there. Holder of get_lock. */
static inline int32_t fab_queue_take(struct fab_queue *q, struct fab_queue_taken *taken, uint32_t most) {
    struct fab_queue_shared *s = q->shared;
    uint32_t state = fab_queue_state(q); /* before tail: what was put before the shutdown is seen */
    if (state >= FAB_QUEUE_DROPPED) {
        fab_queue_drop(q);
        return -ESHUTDOWN;
    }
    /* relaxed: only holders of get_lock write these. The tail of the past was loaded by Q2. */
    uint64_t head = atomic_load_explicit(&s->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&s->tail_seen, memory_order_relaxed);
    if (fab_queue_items(head, tail) < most) {
        tail = atomic_load_explicit(&s->tail, FAB_Q2); /* Q2: pairs with Q1 */
        atomic_store_explicit(&s->tail_seen, tail, memory_order_relaxed);
    }
    if (!fab_queue_is_sound(q, head, tail))
        return -EBADMSG;
    uint32_t there = fab_queue_items(head, tail);
    uint64_t passed = UINT64_MAX;
    if (there == 0)
        return state == FAB_QUEUE_OPEN ? -EAGAIN : -ESHUTDOWN;
    int32_t rc = fab_queue_copy_out(q, taken, &head, tail, there < most ? there : most, &passed);
    if (rc < 0)
        return rc;
    /* For the room: behind it comes the bell. For the bytes: nobody looks at it, see Q3. */
    atomic_store_explicit(&s->head, head, FAB_Q6);
    fab_queue_free(q, head, passed);
    return rc;
}

/* Get up to `most` items; waits until that is one. Returns how many, or as fab_queue_take. Any process and
 * thread; `taken` belongs to one thread at a time. */
static inline int32_t fab_queue_get_many(struct fab_queue *q, struct fab_queue_taken *taken, uint32_t most,
                                         int64_t deadline) {
    most = most < FAB_BATCH_MAX ? most : FAB_BATCH_MAX;
    for (;;) {
        int32_t rc = fab_queue_lock(&q->shared->get_lock);
        if (rc != 0)
            return rc;
        rc = fab_queue_take(q, taken, most);
        fab_queue_unlock(&q->shared->get_lock);
        if (rc > 0)
            fab_queue_ring(&q->shared->room, (uint32_t)rc);
        if (rc != -EAGAIN || deadline == FAB_QUEUE_NO_WAIT)
            return rc;
        rc = fab_queue_wait(q, FAB_QUEUE_ITEMS, deadline);
        if (rc != 0)
            return rc;
    }
}

/* Get one item. Returns its size and encoding in one number, or as fab_queue_take. */
static inline int64_t fab_queue_get(struct fab_queue *q, struct fab_queue_taken *taken, int64_t deadline) {
    int32_t rc = fab_queue_get_many(q, taken, 1, deadline);
    return rc < 0 ? rc : (int64_t)(taken->sizes[0] << FAB_QUEUE_ENCODING_BITS | taken->encodings[0]);
}

#endif
