/* SPDX-License-Identifier: MIT */
/*
 * fab_measures.h - what a process measures of its messages, while the board says so: one look at it, one clock
 * read and one pass over the columns of a batch.
 *
 *   sender: fab_meter_sent      traffic of the lane; when what was asked together was asked (private memory)
 *   receiver: fab_meter_read    messages by class, their time in the lane, last use of agents, batch sizes;
 *                               of replies how long they took, by what was noted when they were asked for
 *   worker: fab_peer_handled    how long handlers took
 *
 * All words have one writer (a lane's traffic: whoever holds the lane) and are stored relaxed: nobody acts on
 * them, and a reader may see one batch more in one word than in another. What a killed process had in hand may
 * be missing; what comes again is counted again.
 */
#ifndef FAB_MEASURES_H
#define FAB_MEASURES_H

#include "fab_peer.h"

/* Kinds of records and an encoding that fabric/messages.py names; a test holds them equal. */
#define FAB_KIND_MESSAGE 2
#define FAB_KIND_REPLY 3
#define FAB_KIND_SPAWN 5 /* the first of the orders to workers */
#define FAB_KIND_SHUTDOWN 8
#define FAB_KIND_REQUEST 10 /* what an agent wants of the coordinator */
#define FAB_KIND_STREAM 20
#define FAB_ENCODING_ERROR 6

#define FAB_ASKED_SHIFT 11 /* questions with numbers that differ only below are timed together */
#define FAB_ASKED_BUSY 1u
#define FAB_ASKED_STALE_NS 60000000000 /* nobody replies to that any more: somebody died, or dropped it */
#define FAB_LONG_NS 131072             /* a handler that takes so long is not sampled, but timed each time */
#define FAB_LAST_USE_SHIFT 24          /* ns to the unit of fab_last_use: 16.8 ms, for two years */

/* Start to measure. After fab_peer_init; without it nothing is. */
static inline void fab_meter_open(struct fab_peer *s) {
    const struct fab_header *h = &s->header;
    const struct fab_board *board = (const void *)(s->whole + fab_board_offset());
    s->meter.traffic = (void *)(s->block + fab_traffic_offset(h));
    s->meter.measures = (void *)(s->block + fab_measures_offset(h));
    s->meter.last_use = (void *)(s->block + fab_last_use_offset(h));
    s->meter.classes = (const void *)(s->whole + fab_classes_offset(h));
    s->meter.measuring = &board->measuring;
}

/* Are metrics kept? Any thread. */
static inline int fab_meter_on(const struct fab_peer *s) {
    /* relaxed: a switch; whoever sees it late measures a batch more or less */
    return s->meter.measuring != NULL && atomic_load_explicit(s->meter.measuring, memory_order_relaxed) != 0;
}

static inline struct fab_asked *fab_meter_asked_at(struct fab_peer *s, uint64_t key) {
    return &s->meter.asked[(key ^ key >> (FAB_TOKEN_SHIFT - FAB_ASKED_SHIFT)) % FAB_ASKED];
}

/* Note that `count` questions were asked now. A place that is taken stays so until the replies are there: who asks
 * then is not timed. (Were it given to the latest, slow replies would be the ones that are left out.) */
static inline void fab_meter_asked(struct fab_peer *s, uint64_t correlation, uint64_t count, uint64_t now) {
    uint64_t key = correlation >> FAB_ASKED_SHIFT;
    struct fab_asked *entry = fab_meter_asked_at(s, key);
    uint64_t held = atomic_load_explicit(&entry->key, memory_order_acquire);
    if (held == key) {
        atomic_fetch_add_explicit(&entry->left, count,
                                  memory_order_relaxed); /* another part of the same call */
        return;
    }
    if (held == FAB_ASKED_BUSY ||
        (held != 0 && now - atomic_load_explicit(&entry->at, memory_order_relaxed) < FAB_ASKED_STALE_NS))
        return;
    /* acquire: whoever freed the place is done with it */
    if (!atomic_compare_exchange_strong_explicit(&entry->key, &held, FAB_ASKED_BUSY, memory_order_acquire,
                                                 memory_order_relaxed))
        return; /* another thread took it */
    atomic_store_explicit(&entry->at, now, memory_order_relaxed);
    atomic_store_explicit(&entry->left, count, memory_order_relaxed);
    atomic_store_explicit(&entry->key, key, memory_order_release); /* the place is good from here on */
}

/* `count` replies have come. Leader only. */
static inline void fab_meter_replied(struct fab_peer *s, uint64_t correlation, uint64_t count, uint64_t now) {
    uint64_t key = correlation >> FAB_ASKED_SHIFT;
    struct fab_asked *entry = fab_meter_asked_at(s, key);
    if (atomic_load_explicit(&entry->key, memory_order_acquire) != key)
        return;
    uint64_t at = atomic_load_explicit(&entry->at, memory_order_relaxed);
    fab_histogram_record(&s->meter.measures->round_trip, now - at, count);
    if (atomic_fetch_sub_explicit(&entry->left, count, memory_order_relaxed) <= count)
        atomic_store_explicit(&entry->key, 0, memory_order_release);
}

/* Has a record of this kind one reply, if it has a correlation id? */
static inline int fab_meter_is_question(uint16_t kind) {
    return kind == FAB_KIND_MESSAGE || kind == FAB_KIND_REQUEST ||
           (kind >= FAB_KIND_SPAWN && kind <= FAB_KIND_SHUTDOWN);
}

/* Count what went into a lane: records of one kind, `bytes` of it. Who holds the lane, once a batch. */
static inline void fab_meter_sent(struct fab_peer *s, uint32_t lane, uint16_t kind, uint64_t count,
                                  uint64_t asks, uint64_t bytes) {
    struct fab_traffic *t = &s->meter.traffic[lane];
    atomic_store_explicit(&t->records, s->out[lane].sequence,
                          memory_order_relaxed); /* right, whenever we began */
    fab_tally(&t->bytes, bytes);
    if (fab_meter_is_question(kind))
        fab_tally(&t->asks, asks);
    if (kind == FAB_KIND_MESSAGE || kind == FAB_KIND_STREAM)
        fab_tally(&t->messages, count);
    else if (kind == FAB_KIND_REPLY)
        fab_tally(&t->replies, count);
}

/* Time in the lane: records that were sent together have one clock. */
static inline void fab_meter_lane_time(struct fab_peer *s, const struct fab_columns *cols, uint64_t now) {
    uint64_t first = 0;
    for (uint64_t i = 1; i <= cols->count; i++) {
        if (i < cols->count && cols->sent_ats[i] == cols->sent_ats[first])
            continue;
        uint64_t sent = cols->sent_ats[first];
        if (sent != 0 && sent <= now)
            fab_histogram_record(&s->meter.measures->lane_time, now - sent, i - first);
        else
            fab_count(s->words, FAB_COUNT_LATE_CLOCKS, i - first);
        first = i;
    }
}

/* Class of an agent; 0 where that is not known. */
static inline uint32_t fab_meter_class(const struct fab_peer *s, uint64_t target) {
    uint64_t index = target & UINT32_MAX;
    if (index >= s->header.max_agents)
        return 0;
    /* relaxed: a figure */
    uint8_t class = (uint8_t)atomic_load_explicit(&s->meter.classes[index], memory_order_relaxed);
    return class < FAB_CLASSES ? class : 0;
}

/* Messages by class, and when each agent was last used. Leaves in batch_class what they all are, or 0. */
static inline void fab_meter_agents(struct fab_peer *s, const struct fab_columns *cols, uint64_t now) {
    uint32_t when = (uint32_t)(now >> FAB_LAST_USE_SHIFT);
    uint32_t class = fab_meter_class(s, cols->targets[0]);
    uint64_t first = 0;
    s->meter.batch_class = class;
    for (uint64_t i = 0; i < cols->count; i++) {
        uint64_t index = cols->targets[i] & UINT32_MAX;
        uint32_t here = fab_meter_class(s, cols->targets[i]);
        if (index < s->header.max_agents) /* relaxed: read by monitors */
            atomic_store_explicit(&s->meter.last_use[index], when, memory_order_relaxed);
        if (here == class)
            continue;
        fab_tally(&s->meter.measures->messages[class], i - first);
        class = here;
        first = i;
        s->meter.batch_class = 0;
    }
    fab_tally(&s->meter.measures->messages[class], cols->count - first);
}

/* Replies: which are errors, and how long they took. */
static inline void fab_meter_replies(struct fab_peer *s, const struct fab_columns *cols, uint64_t now) {
    uint64_t first = 0;
    uint64_t errors = 0;
    for (uint64_t i = 0; i < cols->count; i++)
        errors += cols->encodings[i] == FAB_ENCODING_ERROR;
    fab_count(s->words, FAB_COUNT_REPLY_ERRORS, errors);
    fab_count(s->words, FAB_COUNT_REPLIES, cols->count);
    for (uint64_t i = 1; i <= cols->count; i++) {
        if (i < cols->count &&
            cols->correlations[i] >> FAB_ASKED_SHIFT == cols->correlations[first] >> FAB_ASKED_SHIFT)
            continue;
        fab_meter_replied(s, cols->correlations[first], i - first, now);
        first = i;
    }
}

/* What was received before is handled, for we are asked for more. A message that came alone is timed here, if it
 * took long: to read a clock around each would cost a fast one more than it tells. Leader only. */
static inline void fab_meter_served(struct fab_peer *s) {
    if (s->meter.received_at == 0)
        return;
    uint64_t took = (uint64_t)fab_now() - s->meter.received_at;
    s->meter.received_at = 0;
    if (s->meter.alone && took >= FAB_LONG_NS)
        fab_histogram_record(&s->meter.measures->handler_time[s->meter.batch_class], took, 1);
}

/* Measure a batch that was received. Leader only. */
static inline void fab_meter_read(struct fab_peer *s, const struct fab_columns *cols) {
    if (cols->count == 0)
        return;
    uint64_t now = (uint64_t)fab_now();
    if (cols->kind == FAB_KIND_REPLY) {
        fab_meter_replies(s, cols, now);
    } else if (cols->kind == FAB_KIND_MESSAGE || cols->kind == FAB_KIND_STREAM) {
        fab_count(s->words, FAB_COUNT_MESSAGES, cols->count);
        fab_histogram_record(&s->meter.measures->batch_size, cols->count, 1);
        fab_meter_agents(s, cols, now);
        s->meter.received_at = now;
        s->meter.alone = cols->count == 1 && cols->kind == FAB_KIND_MESSAGE;
    } else {
        return; /* orders and the like */
    }
    fab_meter_lane_time(s, cols, now);
}

/* Say that handlers took `ns` for `count` messages of the batch in hand. Worker only. */
static inline void fab_peer_handled(struct fab_peer *s, uint64_t count, uint64_t ns) {
    if (count != 0 && fab_meter_on(s))
        fab_histogram_record(&s->meter.measures->handler_time[s->meter.batch_class], ns / count, count);
}

#endif
