/* SPDX-License-Identifier: MIT */
/*
 * fab_record.h - a record: what precedes the body of a message wherever it lies, in a lane, an outbox or a journal.
 *
 *   record | header 48 bytes | body | zero to 15 bytes up to the next multiple of 16 |
 *
 * Written by who sends, in its own block; read by the process at the other end of the lane, and by who succeeds
 * the writer.
 */
#ifndef FAB_RECORD_H
#define FAB_RECORD_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define FAB_ALIGN 16       /* records start at multiples of this */
#define FAB_TOKEN_SHIFT 20 /* see fab_record.correlation */
#define FAB_KIND_PAD 1     /* fills the ring up to its end; the only kind that fab_ring.h knows */

/* What precedes each body. A file format: any process of any fabric version reads it so. */
struct fab_record {
    uint32_t size; /* header and body, without the padding behind them */
    uint16_t kind;
    uint8_t encoding;
    uint8_t flags;
    uint64_t target; /* agent address: index u32, generation u32 */
    uint64_t sender;
    uint64_t correlation; /* token u44, index u20 within what was asked together; 0: no reply expected */
    uint64_t sequence;    /* per lane, counted by the producer */
    uint64_t sent_at;     /* CLOCK_MONOTONIC, nanoseconds */
};
static_assert(offsetof(struct fab_record, kind) == 4, "record format: kind");
static_assert(offsetof(struct fab_record, target) == 8, "record format: target");
static_assert(offsetof(struct fab_record, sent_at) == 40, "record format: sent_at");
static_assert(sizeof(struct fab_record) == 48, "record format: header size");

/* Bytes a record with this body takes in the ring. */
static inline uint64_t fab_record_span(uint64_t body_bytes) {
    return (sizeof(struct fab_record) + body_bytes + (FAB_ALIGN - 1)) & ~(uint64_t)(FAB_ALIGN - 1);
}

#endif
