/* SPDX-License-Identifier: MIT */
/*
 * fab_survey.h - one look at what all processes of a fabric have sent, and at what waits in their lanes from the
 * coordinator. For whoever has the segment mapped, a process of the fabric or not: reads only, and believes nothing.
 */
#ifndef FAB_SURVEY_H
#define FAB_SURVEY_H

#include "fab_peer.h"

struct fab_survey {
    uint64_t messages; /* sent, over all lanes */
    uint64_t asks;
    uint64_t replies;
    uint64_t bytes;
    uint64_t waiting_bytes; /* in its data lane from the coordinator */
    uint64_t in_flight;     /* records there */
};

static inline const uint8_t *fab_survey_block(const struct fab_header *h, const uint8_t *whole, uint32_t p) {
    return whole + fab_block_offset(h, p);
}

/* The sequence of the record at `head` of a lane; one that is written meanwhile may be anything. */
static inline uint64_t fab_survey_sequence(const uint8_t *data, uint64_t capacity, uint64_t head) {
    struct fab_record r;
    uint64_t offset = head & (capacity - 1);
    memcpy(&r, data + offset, 8); /* records begin at multiples of 16, so there is as much */
    if (r.kind == FAB_KIND_PAD)
        offset = 0;
    if (capacity - offset < sizeof r)
        return 0;
    memcpy(&r, data + offset, sizeof r);
    return r.sequence;
}

/* What waits for worker `p` in the data lane of the coordinator. */
static inline void fab_survey_lane(const struct fab_header *h, const uint8_t *whole, uint32_t p,
                                   struct fab_survey *out) {
    const uint8_t *from = fab_survey_block(h, whole, 0);
    const uint8_t *to = fab_survey_block(h, whole, p);
    const struct fab_traffic *traffic = (const void *)(from + fab_traffic_offset(h));
    uint64_t capacity = fab_lane_bytes(h, 0, p);
    /* the head first: the tail is then not before it */
    uint64_t head = atomic_load_explicit(fab_peer_counter(to, fab_heads_offset(), 0), memory_order_acquire);
    uint64_t tail =
        atomic_load_explicit(fab_peer_counter(from, fab_tails_offset(h), p), memory_order_acquire);
    uint64_t bytes = tail - head;
    if (bytes == 0 || bytes > capacity || head % FAB_ALIGN != 0)
        return;
    uint64_t first = fab_survey_sequence(from + fab_data_offset(h, 0, p), capacity, head);
    uint64_t behind = atomic_load_explicit(&traffic[p].records, memory_order_relaxed); /* relaxed: a figure */
    uint64_t most = bytes / sizeof(struct fab_record);
    out->waiting_bytes = bytes;
    out->in_flight = behind <= first         ? 0
                     : behind - first < most ? behind - first
                                             : most; /* <=: metrics are off */
}

#define FAB_SURVEY_HEAD 5u /* words before the counts of a copied histogram */

/* Copy a histogram but for its empty ends: sum, maximum, shortfall, first bucket, number of buckets, their counts.
 * Returns the number of words. Its words may be anything. */
static inline uint64_t fab_survey_histogram(const struct fab_histogram *h, uint64_t *out) {
    for (uint32_t i = 0; i < 3; i++) /* relaxed: figures, one by one */
        out[i] = atomic_load_explicit(i == 0   ? &h->sum
                                      : i == 1 ? &h->maximum
                                               : &h->shortfall,
                                      memory_order_relaxed);
    uint32_t first = fab_histogram_bucket(FAB_HISTOGRAM_TOP - out[2]);
    uint32_t last = fab_histogram_bucket(out[1]);
    uint32_t used = (out[1] | out[2]) == 0 || last < first ? 0 : last - first + 1;
    out[3] = first;
    out[4] = used;
    for (uint32_t i = 0; i < used; i++)
        out[FAB_SURVEY_HEAD + i] = atomic_load_explicit(&h->counts[first + i], memory_order_relaxed);
    return FAB_SURVEY_HEAD + used;
}

/* Copy what a process measured: messages by class, errors by class, histograms of lane time, batch size, round trip,
 * and of handler time by class; of the first `classes`. Returns the number of words: at most 2 classes +
 * (3 + classes) (FAB_SURVEY_HEAD + FAB_HISTOGRAM_BUCKETS), for which `out` has room. */
static inline uint64_t fab_survey_measures(const struct fab_header *h, const uint8_t *whole, uint32_t process,
                                           uint32_t classes, uint64_t *out) {
    const struct fab_measures *m =
        (const void *)(fab_survey_block(h, whole, process) + fab_measures_offset(h));
    uint64_t used = 2 * (uint64_t)classes;
    for (uint32_t i = 0; i < classes; i++) {
        out[i] = atomic_load_explicit(&m->messages[i], memory_order_relaxed);
        out[classes + i] = atomic_load_explicit(&m->errors[i], memory_order_relaxed);
    }
    used += fab_survey_histogram(&m->lane_time, out + used);
    used += fab_survey_histogram(&m->batch_size, out + used);
    used += fab_survey_histogram(&m->round_trip, out + used);
    for (uint32_t i = 0; i < classes; i++)
        used += fab_survey_histogram(&m->handler_time[i], out + used);
    return used;
}

/* Look at all processes; `out` has room for each. */
static inline void fab_survey_all(const struct fab_header *h, const uint8_t *whole, struct fab_survey *out) {
    for (uint32_t p = 0; p < h->processes; p++) {
        const struct fab_traffic *traffic =
            (const void *)(fab_survey_block(h, whole, p) + fab_traffic_offset(h));
        out[p] = (struct fab_survey){0};
        for (uint32_t lane = 0; lane < 2 * h->processes; lane++) { /* relaxed: figures, one by one */
            out[p].messages += atomic_load_explicit(&traffic[lane].messages, memory_order_relaxed);
            out[p].asks += atomic_load_explicit(&traffic[lane].asks, memory_order_relaxed);
            out[p].replies += atomic_load_explicit(&traffic[lane].replies, memory_order_relaxed);
            out[p].bytes += atomic_load_explicit(&traffic[lane].bytes, memory_order_relaxed);
        }
        if (p != 0)
            fab_survey_lane(h, whole, p, &out[p]);
    }
}

#endif
