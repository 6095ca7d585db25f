/* SPDX-License-Identifier: MIT */
/*
 * fab_ring.h - a lane: a one-way byte ring of variable-length records (fab_record.h) between two processes.
 *
 *   data   |..free..| PAD | record | record | record |..free..........................|
 *                   ^ head (consumer moves it)       ^ tail (producer moves it)
 *
 * head and tail are free-running byte counters: offset = counter & (capacity - 1), and tail - head
 * is the number of bytes in flight. A record never wraps; what is left at the end becomes a PAD.
 *
 * Who writes what. The tail and the data lie in the producer's block of the segment, the head in
 * the consumer's. Each side maps the other's block read-only.
 *
 *   P1 publish: producer's store of tail      -> C1: consumer's load of tail  (record contents)
 *   C2 release: consumer's store of head      -> P2: producer's load of head  (bytes are free)
 *
 * All bytes of a batch are written first, then one store of the tail publishes them: a producer
 * killed before P1 has published nothing, killed after it everything. P1 and C2 are also the first
 * half of the sleep/wake pair W1 (fab_doorbell.h), which needs store-load order: hence seq_cst.
 *
 * Nothing read from shared memory is trusted: a counter or a length that cannot be right marks the
 * lane broken in the reader's own memory, and its bytes are dropped and counted.
 */
#ifndef FAB_RING_H
#define FAB_RING_H

#include "fab_columns.h"

#include <errno.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <string.h>

#ifndef FAB_P1
#define FAB_P1 memory_order_seq_cst
#define FAB_C1 memory_order_acquire
#define FAB_C2 memory_order_seq_cst
#define FAB_P2 memory_order_acquire
#endif

#define FAB_LINE 128 /* two cache lines: adjacent-line prefetch pairs them */

static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "a locked atomic cannot be shared between processes");
static_assert(sizeof(_Atomic(uint64_t)) == 8, "shared layout: counters are plain 64-bit words");

/* One end of a lane, in the memory of the process that owns it. */
struct fab_producer {
    _Atomic(uint64_t) *tail;
    const _Atomic(uint64_t) *head;
    uint8_t *data;
    uint64_t capacity;
    uint64_t next;      /* where the next record goes: tail plus what is written and not published */
    uint64_t head_seen; /* last head loaded; saves a remote read while there is room */
    uint64_t sequence;
    /* Head when the last record did not fit, plus 1; 0 when it fitted. Atomic because the thread that
     * waits for room need not be the one that holds this producer. */
    _Atomic(uint64_t) starved_at;
};

struct fab_consumer {
    const _Atomic(uint64_t) *tail;
    _Atomic(uint64_t) *head;
    const uint8_t *data;
    uint64_t capacity;
    uint64_t read;      /* next record to look at; head follows it when work is committed */
    uint64_t committed; /* our own copy of head: the word itself is in memory that others see */
    uint64_t tail_seen;
    uint64_t dropped_bytes;
    uint32_t broken;
};

/* Largest body a lane of this capacity takes: whatever the position, it fits once the lane is empty. */
static inline uint64_t fab_ring_body_limit(uint64_t capacity) {
    return capacity / 2 - sizeof(struct fab_record);
}

/* Connect the producer's end. A replacement in the same slot goes on where the published tail is.
 * Returns 0 or -EINVAL (capacity is no power of two, or counters that cannot be). */
static inline int fab_producer_init(struct fab_producer *p, _Atomic(uint64_t) *tail,
                                    const _Atomic(uint64_t) *head, uint8_t *data, uint64_t capacity) {
    if (capacity < 4096 || (capacity & (capacity - 1)) != 0)
        return -EINVAL;
    uint64_t at = atomic_load_explicit(tail, memory_order_relaxed); /* relaxed: our own counter */
    uint64_t head_now = atomic_load_explicit(head, memory_order_acquire);
    if (at - head_now > capacity || at % FAB_ALIGN != 0)
        return -EINVAL;
    p->tail = tail;
    p->head = head;
    p->data = data;
    p->capacity = capacity;
    p->next = at;
    p->head_seen = head_now;
    p->sequence = 0;
    atomic_init(&p->starved_at, 0);
    return 0;
}

/* Free bytes, after a fresh look at the head when fewer than `wanted` were known. Producer only. */
static inline uint64_t fab_producer_room(struct fab_producer *p, uint64_t wanted) {
    uint64_t room = p->capacity - (p->next - p->head_seen);
    if (room >= wanted)
        return room;
    /* P2: pairs with C2. The consumer is done with the bytes below head. */
    uint64_t head = atomic_load_explicit(p->head, FAB_P2);
    if (p->next - head <= p->capacity) /* a head beyond our own tail is nonsense: keep the last good one */
        p->head_seen = head;
    return p->capacity - (p->next - p->head_seen);
}

/* Where a record of `span` bytes goes, after padding up to the end if it does not fit before it;
 * NULL when the lane is full. Nothing is published. Producer only. Wait-free. */
static inline uint8_t *fab_producer_claim(struct fab_producer *p, uint64_t span) {
    uint64_t offset = p->next & (p->capacity - 1);
    uint64_t to_end = p->capacity - offset;
    uint64_t pad = span > to_end ? to_end : 0;
    int starved = fab_producer_room(p, pad + span) < pad + span;
    /* relaxed: a hint to the thread that waits; it looks at the head itself */
    if (starved) {
        atomic_store_explicit(&p->starved_at, p->head_seen + 1, memory_order_relaxed);
        return NULL;
    }
    if (pad != 0) {
        uint32_t size = (uint32_t)pad;
        uint32_t kind = FAB_KIND_PAD;
        memcpy(p->data + offset, &size, sizeof size);
        memcpy(p->data + offset + sizeof size, &kind, sizeof kind);
        offset = 0;
    }
    p->next += pad + span;
    return p->data + offset;
}

/* Write one record behind the published ones. Returns 1, 0 when the lane is full, -EMSGSIZE, or -EINVAL
 * for a kind that is ours. header->size is the size of the body. Producer only. Wait-free. */
static inline int fab_producer_put(struct fab_producer *p, const struct fab_record *header,
                                   const void *body) {
    uint64_t body_bytes = header->size;
    if (header->kind == FAB_KIND_PAD)
        return -EINVAL;
    if (body_bytes > fab_ring_body_limit(p->capacity))
        return -EMSGSIZE;
    uint8_t *at = fab_producer_claim(p, fab_record_span(body_bytes));
    if (at == NULL)
        return 0;
    struct fab_record record = *header;
    record.size = (uint32_t)(sizeof record + body_bytes);
    record.sequence = p->sequence++;
    memcpy(at, &record, sizeof record);
    if (body_bytes != 0)
        memcpy(at + sizeof record, body, body_bytes);
    return 1;
}

/* Make all that was written visible. Producer only. Wait-free. */
static inline void fab_producer_publish(struct fab_producer *p) {
    /* P1: pairs with C1, all records are complete before the tail covers them. Also W1. */
    atomic_store_explicit(p->tail, p->next, FAB_P1);
}

/* Connect the consumer's end. A replacement goes on from the committed head.
 * Returns 0 or -EINVAL. */
static inline int fab_consumer_init(struct fab_consumer *c, const _Atomic(uint64_t) *tail,
                                    _Atomic(uint64_t) *head, const uint8_t *data, uint64_t capacity) {
    if (capacity < 4096 || (capacity & (capacity - 1)) != 0)
        return -EINVAL;
    uint64_t at = atomic_load_explicit(head, memory_order_relaxed); /* relaxed: our own counter */
    *c = (struct fab_consumer){tail, head, data, capacity, at, at, at, 0, 0};
    return 0;
}

/* Give up on what lies in the lane: the bytes cannot be records. They are counted. */
static inline void fab_consumer_drop(struct fab_consumer *c) {
    c->dropped_bytes += c->tail_seen - c->read;
    c->read = c->tail_seen;
}

/* Unread bytes, after a look at the tail when none were known. 0: nothing there, or a broken lane.
 * Consumer only. Wait-free. */
static inline uint64_t fab_consumer_ready(struct fab_consumer *c) {
    if (c->read != c->tail_seen)
        return c->tail_seen - c->read;
    if (c->broken)
        return 0;
    /* C1: pairs with P1. The records below tail are complete. */
    uint64_t tail = atomic_load_explicit(c->tail, FAB_C1);
    if (tail - c->committed > c->capacity || tail - c->read > c->capacity || tail % FAB_ALIGN != 0) {
        c->broken = 1; /* no producer of ours moves a tail there: nothing more is read from this lane */
        return 0;
    }
    c->tail_seen = tail;
    return tail - c->read;
}

/* The header at `read`, copied once and checked, or 0 when the bytes there cannot be a record.
 * `room` is how many bytes the record may span: the least of unread bytes and bytes to the end. */
static inline int fab_consumer_header(const struct fab_consumer *c, uint64_t room, struct fab_record *out) {
    const uint8_t *at = c->data + (c->read & (c->capacity - 1));
    if (room < FAB_ALIGN)
        return 0;
    memcpy(out, at, 8); /* size and kind: a PAD may be shorter than a header */
    if (out->kind == FAB_KIND_PAD)
        return out->size <= room && out->size >= FAB_ALIGN && out->size % FAB_ALIGN == 0;
    uint32_t size = out->size;
    if (size < sizeof *out || size > room || fab_record_span(size - sizeof *out) > room)
        return 0;
    memcpy((uint8_t *)out + 8, at + 8, sizeof *out - 8);
    return 1;
}

/* Look at up to `most` records of one kind that lie behind one another, and step over them: the
 * next peek shows what follows. Returns their number, 0 for none. The bytes stay until
 * fab_consumer_commit(end). Consumer only. Wait-free. */
static inline uint32_t fab_consumer_peek(struct fab_consumer *c, uint32_t most, uint64_t most_bytes,
                                         struct fab_columns *cols) {
    struct fab_record r;
    cols->count = cols->flags = cols->asks = 0;
    cols->bytes = 0;
    most = most < FAB_BATCH_MAX ? most : FAB_BATCH_MAX;
    while (cols->count < most) {
        uint64_t ready = fab_consumer_ready(c);
        uint64_t offset = c->read & (c->capacity - 1);
        uint64_t room = ready < c->capacity - offset ? ready : c->capacity - offset;
        if (room == 0 || (offset == 0 && cols->count != 0))
            break; /* a run is one stretch of memory: it ends where the data ends, PAD or no PAD */
        if (!fab_consumer_header(c, room, &r)) {
            fab_consumer_drop(c);
            break;
        }
        if (r.kind == FAB_KIND_PAD) {
            if (cols->count != 0)
                break;
            c->read += r.size;
            continue;
        }
        if (cols->count != 0 && (r.kind != cols->kind || cols->bytes + r.size > most_bytes))
            break;
        if (cols->count == 0)
            cols->start = offset;
        c->read += fab_record_span(r.size - sizeof r);
        fab_columns_add(cols, &r);
    }
    cols->end = c->read;
    return (uint32_t)cols->count;
}

/* Hand the bytes below `end` back to the producer. Returns 1 when that moved the head.
 * Consumer only. Wait-free. */
static inline int fab_consumer_commit(struct fab_consumer *c, uint64_t end) {
    if (end - c->committed > c->read - c->committed || end == c->committed)
        return 0; /* not ours to hand back: beyond what was read, or already done */
    c->committed = end;
    /* C2: pairs with P2. This is the producer's licence to overwrite the bytes. Also W1 (room). */
    atomic_store_explicit(c->head, end, FAB_C2);
    return 1;
}

#endif
