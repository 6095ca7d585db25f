/* SPDX-License-Identifier: MIT */
/*
 * fab_histogram.h - a log-linear histogram that one process writes and anyone reads.
 *
 *   value     0 .. 31          32 .. 63         64 .. 127        ...   2^39 .. 2^40 - 1
 *   buckets   32, width 1      32, width 1      32, width 2      ...   32, width 2^34
 *
 * After HdrHistogram, with 5 bits of precision: a bucket is at most 1/32 of its values wide, so the middle
 * of it tells any of them within 1.6 %. fabric/histogram.py reads it.
 */
#ifndef FAB_HISTOGRAM_H
#define FAB_HISTOGRAM_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define FAB_HISTOGRAM_SUB_BITS 5u
#define FAB_HISTOGRAM_VALUE_BITS 40u /* in nanoseconds 18 minutes; what is larger counts as this */
#define FAB_HISTOGRAM_BUCKETS                                                                                \
    ((FAB_HISTOGRAM_VALUE_BITS - FAB_HISTOGRAM_SUB_BITS + 1u) << FAB_HISTOGRAM_SUB_BITS)

#define FAB_HISTOGRAM_TOP ((UINT64_C(1) << FAB_HISTOGRAM_VALUE_BITS) - 1)

/* All zeros: nothing is counted. */
struct fab_histogram {
    _Atomic(uint64_t) sum;
    _Atomic(uint64_t) maximum;
    _Atomic(uint64_t)
        shortfall; /* FAB_HISTOGRAM_TOP less the least value: what is not in use need not be read */
    _Atomic(uint64_t) counts[FAB_HISTOGRAM_BUCKETS];
};
static_assert(offsetof(struct fab_histogram, counts) == 24, "shared layout: counts of a histogram");
static_assert(sizeof(struct fab_histogram) == 8 * (3 + 1152), "shared layout: histogram");

/* Which bucket counts this value. */
static inline uint32_t fab_histogram_bucket(uint64_t value) {
    if (value < UINT64_C(2) << FAB_HISTOGRAM_SUB_BITS)
        return (uint32_t)value;
    if (value >> FAB_HISTOGRAM_VALUE_BITS != 0)
        return FAB_HISTOGRAM_BUCKETS - 1;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(value) - FAB_HISTOGRAM_SUB_BITS;
    return (shift << FAB_HISTOGRAM_SUB_BITS) + (uint32_t)(value >> shift);
}

/* Add to a word of our own: one writer, so no read-modify-write. Relaxed: nobody acts on it. */
static inline void fab_tally(_Atomic(uint64_t) *word, uint64_t by) {
    uint64_t value = atomic_load_explicit(word, memory_order_relaxed);
    atomic_store_explicit(word, value + by, memory_order_relaxed);
}

/* Count a value so many times. The process that owns the histogram only, one thread at a time. Wait-free. */
static inline void fab_histogram_record(struct fab_histogram *h, uint64_t value, uint64_t times) {
    if (value > FAB_HISTOGRAM_TOP)
        value = FAB_HISTOGRAM_TOP;
    fab_tally(&h->sum, value * times);
    if (value > atomic_load_explicit(&h->maximum, memory_order_relaxed)) /* relaxed: ours */
        atomic_store_explicit(&h->maximum, value, memory_order_relaxed);
    if (FAB_HISTOGRAM_TOP - value > atomic_load_explicit(&h->shortfall, memory_order_relaxed))
        atomic_store_explicit(&h->shortfall, FAB_HISTOGRAM_TOP - value, memory_order_relaxed);
    fab_tally(&h->counts[fab_histogram_bucket(value)], times);
}

#endif
