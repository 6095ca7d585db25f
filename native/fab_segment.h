/* SPDX-License-Identifier: MIT */
/*
 * fab_segment.h - what lies in the one segment of a fabric, and who writes it.
 *
 *   | header, board | agents: table, classes |  block 0  |  block 1  |  ...  |  block N  |
 *   |<---------------- coordinator writes ------------->|<-worker 1->|       |<-worker N->|
 *
 * The segment is ordered by writer: all that one process writes is one stretch, mapped writable by
 * that process alone. Process 0 is the coordinator, processes 1 to N are the worker slots. P = N + 1.
 * What is in a block, and at which offset, is drawn in fab_layout.h. All of it is sparse: a page costs memory when it
 * is first touched.
 */
#ifndef FAB_SEGMENT_H
#define FAB_SEGMENT_H

#include "fab_histogram.h"
#include "fab_ring.h"

#define FAB_MAGIC UINT64_C(0x0063697262616673) /* "sfabric" */
#define FAB_VERSION 4u
#define FAB_PAGE UINT64_C(4096)
#define FAB_COUNTERS 128u
#define FAB_PROCESSES_MAX 257u
#define FAB_INTENT_WORDS 8u
#define FAB_CLASSES 64u
#define FAB_CLASS_NAME_BYTES 128u
#define FAB_TRAFFIC_BYTES 64u
#define FAB_LOANS_MAX 65536u /* the index of a loan has 16 bits in struct fab_arena */

/* Counters that the C core keeps itself, by index; fabric/counters.py names these and Python's own. */
#define FAB_COUNT_RECEIVED 0
#define FAB_COUNT_BATCHES 1
#define FAB_COUNT_BYTES_IN 2
#define FAB_COUNT_PARKS 3
#define FAB_COUNT_ALARMS 4 /* work found after the safety net's timeout: a lost wake-up. Must stay 0 */
#define FAB_COUNT_SPINS_WON 5
#define FAB_COUNT_WAITED_NS 6
#define FAB_COUNT_WAKE_UPS 7 /* parks that a bell ended */
#define FAB_COUNT_MESSAGES 8 /* of the received records: to agents; these four only while metrics are on */
#define FAB_COUNT_REPLIES 9
#define FAB_COUNT_REPLY_ERRORS 10
#define FAB_COUNT_LATE_CLOCKS 11   /* records whose time of sending cannot be: not measured */
#define FAB_COUNT_WAITING_SINCE 12 /* ns, monotonic; 0: at work */
#define FAB_COUNT_ARENA_BYTES 34   /* in blocks of our arena */
#define FAB_COUNT_ARENA_LOANS 35

/* What the coordinator chose; the first thing in the segment, and what decides every offset. */
struct fab_header {
    uint64_t magic;
    uint32_t version;
    uint32_t processes; /* P: coordinator and worker slots */
    uint64_t lane_bytes;
    uint64_t peer_lane_bytes;
    uint64_t control_lane_bytes;
    uint64_t outbox_bytes;
    uint64_t journal_bytes; /* 0 for none */
    uint64_t arena_bytes;
    uint64_t loans; /* that an arena may have out at a time; 0 where there is none */
    uint64_t max_agents;
    uint64_t segment_bytes;
    uint64_t identity; /* random: tells refs of this fabric from those of another */
};
static_assert(offsetof(struct fab_header, processes) == 12, "shared layout: processes");
static_assert(offsetof(struct fab_header, segment_bytes) == 80, "shared layout: segment_bytes");
static_assert(sizeof(struct fab_header) == 96, "shared layout: header size");

/* What the coordinator posts for all, behind the header in the first page. */
struct fab_board {
    alignas(FAB_LINE) _Atomic(uint32_t) measuring; /* are metrics kept? looked at once a batch */
    alignas(FAB_LINE) _Atomic(uint64_t) pids[FAB_PROCESSES_MAX]; /* who runs in which slot; 0: nobody */
    alignas(FAB_LINE) _Atomic(uint8_t) used[FAB_PROCESSES_MAX];  /* 1: has a worker, or gets one */
};
static_assert(offsetof(struct fab_board, pids) == FAB_LINE, "shared layout: pids");
static_assert(offsetof(struct fab_board, used) == 18 * FAB_LINE, "shared layout: used");
static_assert(2 * FAB_LINE + sizeof(struct fab_board) <= FAB_PAGE, "the board fits behind the header");

/* What went into one lane. Written by whoever holds the lane, so one writer a line. */
struct fab_traffic {
    alignas(FAB_TRAFFIC_BYTES) _Atomic(uint64_t) records; /* of any kind: the sequence of the next one */
    _Atomic(uint64_t) messages;                           /* to agents */
    _Atomic(uint64_t) asks;                               /* to agents and orders, that expect a reply */
    _Atomic(uint64_t) replies;
    _Atomic(uint64_t) bytes; /* headers and padding included */
    uint64_t spare[3];
};
static_assert(sizeof(struct fab_traffic) == FAB_TRAFFIC_BYTES, "shared layout: traffic");

/* What a process measures. Classes are the kinds of agents, numbered by the coordinator; 0: several, or one too many. */
struct fab_measures {
    _Atomic(uint64_t) messages[FAB_CLASSES];        /* that agents of a class were handed */
    _Atomic(uint64_t) errors[FAB_CLASSES];          /* whose handler raised, or that found no agent */
    struct fab_histogram lane_time;                 /* ns from sent to received */
    struct fab_histogram batch_size;                /* messages received together */
    struct fab_histogram round_trip;                /* ns from question to reply, of who asked */
    struct fab_histogram handler_time[FAB_CLASSES]; /* ns a message */
};
static_assert(offsetof(struct fab_measures, lane_time) == 2 * 8 * FAB_CLASSES, "shared layout: measures");

/* The words of a process that others, or its successor, read. */
struct fab_words {
    alignas(FAB_LINE) _Atomic(uint32_t) sleeping;
    _Atomic(uint32_t) present; /* 1 once a process has taken this slot; a hint for who spins */
    _Atomic(uint32_t) cpu;     /* where it last looked for work, plus 1; a hint likewise */
    alignas(FAB_LINE) _Atomic(uint64_t) cursor[2];
    _Atomic(uint64_t) intent[FAB_INTENT_WORDS]; /* see fab_outbox.h and workers/outbox.py */
    alignas(FAB_LINE) _Atomic(uint64_t) counters[FAB_COUNTERS];
};
static_assert(offsetof(struct fab_words, cursor) == FAB_LINE, "shared layout: cursor");
static_assert(offsetof(struct fab_words, counters) == 2 * FAB_LINE, "shared layout: counters");
static_assert(sizeof(struct fab_words) == 10 * FAB_LINE, "shared layout: words");

struct fab_counter_line {
    alignas(FAB_LINE) _Atomic(uint64_t) value;
};
static_assert(sizeof(struct fab_counter_line) == FAB_LINE, "one head or tail a line: one writer each");

/* One loan, in the block of the process that lends: see fab_loan.h. */
struct fab_loan {
    _Atomic(uint64_t) state;  /* generation << 16 | reader + 1; 0 below the generation: free */
    _Atomic(uint64_t) offset; /* in the arena */
    _Atomic(uint64_t) bytes;
    uint64_t spare;
};
static_assert(sizeof(struct fab_loan) == 32, "shared layout: loan");

/* What a reader says of one loan, in the reader's block. */
struct fab_receipt {
    _Atomic(uint64_t) state; /* generation << 2 | FAB_HELD or FAB_DONE */
    _Atomic(uint64_t) end;   /* counter of the lane behind the record that it came in */
};
static_assert(sizeof(struct fab_receipt) == 16, "shared layout: receipt");

/* Bump one of our own counters. */
static inline void fab_count(struct fab_words *own, uint32_t counter, uint64_t by) {
    fab_tally(&own->counters[counter], by);
}

#endif
