/* SPDX-License-Identifier: MIT */
/*
 * fab_batch.h - many records in one call: columns in, columns out.
 *
 * Python hands over arrays of targets, sizes and correlation ids and one joined body; the headers
 * are written here. So a message costs no Python object for its header and no crossing of its own.
 */
#ifndef FAB_BATCH_H
#define FAB_BATCH_H

#include "fab_send.h"
#include "fab_wait.h"

/* What the records of a batch have in common, and where they differ. A NULL column: all as in header. */
struct fab_batch {
    struct fab_record header;     /* size: of every body when sizes is NULL */
    const uint64_t *targets;      /* NULL: header.target */
    const uint64_t *senders;      /* NULL: header.sender */
    const uint64_t *correlations; /* NULL: header.correlation, plus 1 a record when `numbered` */
    const uint32_t *sizes;
    const uint8_t *encodings;
    const uint8_t *bytes; /* the bodies behind one another, or one body when `repeated` */
    uint64_t bytes_count; /* how many there are: sizes are checked against it */
    uint32_t count;
    uint32_t numbered;
    uint32_t repeated;
};

/* Header of record i of a batch. */
static inline struct fab_record fab_batch_header(const struct fab_batch *b, uint32_t i) {
    struct fab_record r = b->header;
    if (b->targets != NULL)
        r.target = b->targets[i];
    if (b->senders != NULL)
        r.sender = b->senders[i];
    if (b->correlations != NULL)
        r.correlation = b->correlations[i];
    else if (b->numbered)
        r.correlation += i;
    if (b->sizes != NULL)
        r.size = b->sizes[i];
    if (b->encodings != NULL)
        r.encoding = b->encodings[i];
    return r;
}

/* Are fewer than `most_bytes` in flight? When not, whoever waits for room waits for this lane too. */
static inline int fab_batch_window(struct fab_producer *p, uint64_t most_bytes) {
    if (p->next - p->head_seen < most_bytes)
        return 1;
    fab_producer_room(p, UINT64_MAX); /* more than there can be: a fresh look at the head */
    if (p->next - p->head_seen < most_bytes)
        return 1;
    atomic_store_explicit(&p->starved_at, p->head_seen + 1,
                          memory_order_relaxed); /* as in fab_producer_claim */
    return 0;
}

/* Write records `*done` and following of a batch, as many as fit and as stay below `most_bytes` in
 * flight, and publish them together. `*done` and `*offset` (into bytes) move on. Returns how many
 * were written; -EMSGSIZE or -EINVAL when the next one never can be and none was. */
static inline int32_t fab_batch_put(struct fab_producer *p, const struct fab_batch *b, uint64_t most_bytes,
                                    uint32_t *done, uint64_t *offset) {
    uint32_t first = *done;
    int rc = 1;
    while (*done < b->count && fab_batch_window(p, most_bytes)) {
        struct fab_record r = fab_batch_header(b, *done);
        uint64_t at = b->repeated ? 0 : *offset;
        rc = at > b->bytes_count || r.size > b->bytes_count - at ? -EINVAL
                                                                 : fab_producer_put(p, &r, b->bytes + at);
        if (rc != 1)
            break;
        *offset = at + r.size;
        (*done)++;
    }
    if (*done == first && rc < 0)
        return rc;
    return (int32_t)(*done - first);
}

/* Correlation id of record i of a batch. */
static inline uint64_t fab_batch_correlation(const struct fab_batch *b, uint32_t i) {
    if (b->correlations != NULL)
        return b->correlations[i];
    return b->header.correlation + (b->numbered ? i : 0);
}

/* Note what was asked by records [first, end) of a batch. Returns how many of them expect a reply. */
static inline uint64_t fab_batch_note_asks(struct fab_peer *s, const struct fab_batch *b, uint32_t first,
                                           uint32_t end) {
    uint64_t asks = 0;
    if (b->header.kind != FAB_KIND_MESSAGE || (b->correlations == NULL && b->header.correlation == 0))
        return 0;
    for (uint32_t begin = first, i = first; i < end; begin = i) {
        uint64_t correlation = fab_batch_correlation(b, begin);
        while (i < end && fab_batch_correlation(b, i) >> FAB_ASKED_SHIFT == correlation >> FAB_ASKED_SHIFT)
            i++;
        if (correlation == 0)
            continue;
        fab_meter_asked(s, correlation, i - begin, b->header.sent_at);
        asks += i - begin;
    }
    return asks;
}

/* Write and publish records of a batch to a lane: see fab_batch_put. */
static inline int32_t fab_peer_send_batch(struct fab_peer *s, uint32_t lane, const struct fab_batch *b,
                                          uint64_t most_bytes, uint32_t *done, uint64_t *offset) {
    if (lane >= 2 * s->header.processes || s->out[lane].capacity == 0)
        return -EINVAL;
    struct fab_batch stamped = *b;
    struct fab_producer *p = &s->out[lane];
    uint64_t before = p->next;
    uint32_t first = *done;
    stamped.header.sent_at = (uint64_t)fab_now();
    int32_t count = fab_batch_put(p, &stamped, most_bytes, done, offset);
    if (count <= 0)
        return count;
    if (fab_meter_on(s)) { /* before they are published: the first reply may be here at once */
        uint64_t asks = fab_batch_note_asks(s, &stamped, first, *done);
        fab_meter_sent(s, lane, b->header.kind, (uint64_t)count, asks, p->next - before);
    }
    fab_peer_publish(s, lane);
    return count;
}

/* Which slot hosts this agent, or -1 when it is not alive there. Any process. Wait-free. */
static inline int32_t fab_peer_slot(const struct fab_peer *s, uint64_t address) {
    const _Atomic(uint64_t) *table = (const _Atomic(uint64_t) *)(const void *)(s->whole + FAB_PAGE);
    int32_t slot = fab_agent_slot(table, s->header.max_agents, address);
    return slot < (int32_t)s->header.processes ? slot : -1;
}

/* Receive from the next lane that has something: returns the lane, or -1 when all are empty. The
 * columns may be empty for a lane whose bytes were dropped. Leader only. Wait-free. */
static inline int32_t fab_peer_receive(struct fab_peer *s, uint32_t most, uint64_t most_bytes,
                                       struct fab_columns *cols) {
    int32_t lane = fab_peer_next(s);
    if (lane < 0)
        return lane;
    fab_consumer_peek(&s->in[lane], most, most_bytes, cols);
    cols->more = (uint64_t)fab_peer_ready(s); /* saves the caller the call that would find nothing */
    fab_count(s->words, FAB_COUNT_RECEIVED, cols->count);
    fab_count(s->words, FAB_COUNT_BATCHES, 1);
    fab_count(s->words, FAB_COUNT_BYTES_IN, cols->bytes);
    if (fab_meter_on(s))
        fab_meter_read(s, cols);
    return lane;
}

/* Commit what was received before (lane -1: nothing), then receive: one crossing for both. Leader only. */
static inline int32_t fab_peer_commit_and_receive(struct fab_peer *s, int32_t lane, uint64_t end,
                                                  uint32_t most, uint64_t most_bytes,
                                                  struct fab_columns *cols) {
    fab_meter_served(s);
    if (lane >= 0)
        fab_peer_commit(s, (uint32_t)lane, end);
    return fab_peer_receive(s, most, most_bytes, cols);
}

/* Commit as above, wait as fab_peer_wait if nothing is there, then receive: one crossing for an ask at a
 * time, where three were. Returns the lane, -1 when the wait ended with nothing to read, or -EINTR, with
 * nothing received: a handler of that signal may raise. Leader only. */
static inline int32_t fab_peer_commit_and_await(struct fab_peer *s, uint32_t reasons, int64_t timeout_ns,
                                                int32_t lane, uint64_t end, uint32_t most,
                                                uint64_t most_bytes, struct fab_columns *cols) {
    fab_meter_served(s);
    if (lane >= 0)
        fab_peer_commit(s, (uint32_t)lane, end);
    int rc = fab_peer_wait(s, reasons, -1, timeout_ns);
    return rc == -EINTR ? rc : fab_peer_receive(s, most, most_bytes, cols);
}

/* Read again what was received and not committed: whoever received it was interrupted. Leader only. */
static inline void fab_peer_rewind(struct fab_peer *s) {
    for (uint32_t lane = 0; lane < 2 * s->header.processes; lane++)
        s->in[lane].read = s->in[lane].committed;
}

/* Which slot hosts each of these agents. Returns `count`, or the index of the first that is not
 * alive. Any process. Wait-free. */
static inline uint32_t fab_peer_route(const struct fab_peer *s, const uint64_t *addresses, uint32_t count,
                                      uint16_t *slots) {
    for (uint32_t i = 0; i < count; i++) {
        int32_t slot = fab_peer_slot(s, addresses[i]);
        if (slot < 0)
            return i;
        slots[i] = (uint16_t)slot;
    }
    return count;
}

/* Order of messages by slot, stable within a slot: a counting sort. `starts` has processes + 1
 * entries; messages order[starts[p]] to order[starts[p + 1] - 1] go to process p. Slots come from
 * fab_peer_route. Returns the number of slots in use. */
static inline uint32_t fab_partition(const uint16_t *slots, uint32_t count, uint32_t processes,
                                     uint32_t *order, uint32_t *starts) {
    uint32_t used = 0;
    uint32_t at = 0;
    memset(starts, 0, (processes + 1) * sizeof *starts);
    for (uint32_t i = 0; i < count; i++)
        starts[slots[i]]++;
    for (uint32_t p = 0; p <= processes; p++) {
        uint32_t here = starts[p];
        used += here != 0;
        starts[p] = at;
        at += here;
    }
    for (uint32_t i = 0; i < count; i++)
        order[starts[slots[i]]++] = i;
    memmove(starts + 1, starts, processes * sizeof *starts);
    starts[0] = 0;
    return used;
}

/* Write table words for `count` agents. Coordinator only. */
static inline void fab_table_write(uint8_t *whole, const uint64_t *addresses, const uint16_t *slots,
                                   uint32_t count, uint32_t state) {
    _Atomic(uint64_t) *table = (_Atomic(uint64_t) *)(void *)(whole + FAB_PAGE);
    for (uint32_t i = 0; i < count; i++) /* release: whoever is told the address finds the word */
        atomic_store_explicit(&table[addresses[i] & UINT32_MAX],
                              fab_agent_word(addresses[i], state, slots[i]), memory_order_release);
}

#endif
