/* SPDX-License-Identifier: MIT */
/*
 * fab_segment.h - where everything lies in the one segment of a fabric.
 *
 *   | header, board | agents: table, classes |  block 0  |  block 1  |  ...  |  block N  |
 *   |<---------------- coordinator writes ------------->|<-worker 1->|       |<-worker N->|
 *
 * The segment is ordered by writer: all that one process writes is one stretch, mapped writable by
 * that process alone. Process 0 is the coordinator, processes 1 to N are the worker slots. P = N + 1.
 *
 *   block of process p, in lines of 128 bytes
 *     line 0            sleeping, present, cpu
 *     line 1            cursor: which message is in hand (worker), spare
 *     lines 2 to 9      counters, 64-bit, one writer
 *     then 2 P lines    head of the lane from each process: data lanes, then control lanes
 *     then 2 P lines    tail of the lane to each process: data lanes, then control lanes
 *     then 2 lines      tail and head of the outbox
 *     then 2 lines      tail and head of the journal
 *     then P words      begun: how far each lane was handed to agents that take a message at most once
 *     then P words      handled: how far each lane is handled, where it is not committed that far
 *                       (in block 0 withdrawn: how far what was sent to each worker, and it has not begun, is taken back)
 *     then 2 P half lines  traffic: what went into the lane to each process, data lanes, then control lanes
 *     page-aligned      measures: what is counted by class, histograms (fab_measures.h)
 *     page-aligned      last use: one word of 32 bits an agent
 *     page-aligned      loans: one entry for each piece of our arena that somebody may read
 *     page-aligned      receipts: for each process that lends, one for each of its loans
 *     page-aligned      data of the lanes, of the outbox, of the journal, the arena
 *
 * Lane l of a process leads to process l (data, l < P) or to process l - P (control). Lanes between
 * coordinator and workers are large, lanes between workers small; a control lane exists only where
 * one end is the coordinator. All of it is sparse: a page costs memory when it is first touched.
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

static inline uint64_t fab_page_align(uint64_t bytes) {
    return (bytes + FAB_PAGE - 1) & ~(FAB_PAGE - 1);
}

/* Capacity of lane `lane` of process `from`; 0 where there is none. */
static inline uint64_t fab_lane_bytes(const struct fab_header *h, uint32_t from, uint32_t lane) {
    uint32_t to = lane < h->processes ? lane : lane - h->processes;
    if ((from == 0) == (to == 0)) {
        if (from == 0 || lane >= h->processes)
            return 0; /* the coordinator sends itself nothing; workers have no control lanes */
        return h->peer_lane_bytes;
    }
    return lane < h->processes ? h->lane_bytes : h->control_lane_bytes;
}

static inline uint64_t fab_heads_offset(void) {
    return sizeof(struct fab_words);
}

static inline uint64_t fab_tails_offset(const struct fab_header *h) {
    return fab_heads_offset() + 2 * (uint64_t)h->processes * FAB_LINE;
}

static inline uint64_t fab_outbox_words_offset(const struct fab_header *h) {
    return fab_tails_offset(h) + 2 * (uint64_t)h->processes * FAB_LINE;
}

static inline uint64_t fab_journal_words_offset(const struct fab_header *h) {
    return fab_outbox_words_offset(h) + 2 * FAB_LINE;
}

static inline uint64_t fab_begun_offset(const struct fab_header *h) {
    return fab_journal_words_offset(h) + 2 * FAB_LINE;
}

static inline uint64_t fab_traffic_offset(const struct fab_header *h) {
    uint64_t behind = fab_begun_offset(h) + 2 * h->processes * sizeof(uint64_t);
    return (behind + FAB_TRAFFIC_BYTES - 1) & ~(uint64_t)(FAB_TRAFFIC_BYTES - 1);
}

static inline uint64_t fab_measures_offset(const struct fab_header *h) {
    return fab_page_align(fab_traffic_offset(h) + 2 * (uint64_t)h->processes * FAB_TRAFFIC_BYTES);
}

static inline uint64_t fab_last_use_offset(const struct fab_header *h) {
    return fab_page_align(fab_measures_offset(h) + sizeof(struct fab_measures));
}

static inline uint64_t fab_loans_offset(const struct fab_header *h) {
    return fab_page_align(fab_last_use_offset(h) + h->max_agents * sizeof(uint32_t));
}

/* Where a process keeps its receipts for what `owner` lent it; with owner = P where they end. */
static inline uint64_t fab_receipts_offset(const struct fab_header *h, uint32_t owner) {
    return fab_page_align(fab_loans_offset(h) + h->loans * sizeof(struct fab_loan)) +
           owner * h->loans * sizeof(struct fab_receipt);
}

/* Offset in its block of the data of lane `lane`; with lane = 2 P that of the outbox. */
static inline uint64_t fab_data_offset(const struct fab_header *h, uint32_t from, uint32_t lane) {
    uint64_t at = fab_page_align(fab_receipts_offset(h, h->processes));
    for (uint32_t l = 0; l < lane; l++)
        at += fab_lane_bytes(h, from, l);
    return at;
}

static inline uint64_t fab_outbox_offset(const struct fab_header *h, uint32_t process) {
    return fab_data_offset(h, process, 2 * h->processes);
}

static inline uint64_t fab_journal_offset(const struct fab_header *h, uint32_t process) {
    return fab_outbox_offset(h, process) + (process == 0 ? 0 : h->outbox_bytes);
}

static inline uint64_t fab_arena_offset(const struct fab_header *h, uint32_t process) {
    return fab_journal_offset(h, process) + (process == 0 ? 0 : h->journal_bytes);
}

static inline uint64_t fab_block_bytes(const struct fab_header *h, uint32_t process) {
    return fab_page_align(fab_arena_offset(h, process) + h->arena_bytes);
}

static inline uint64_t fab_table_offset(void) {
    return FAB_PAGE;
}

static inline uint64_t fab_board_offset(void) {
    return FAB_LINE;
}

/* Where the class of each agent stands, one byte; and behind them the names of the classes. */
static inline uint64_t fab_classes_offset(const struct fab_header *h) {
    return fab_page_align(fab_table_offset() + h->max_agents * sizeof(uint64_t));
}

static inline uint64_t fab_class_names_offset(const struct fab_header *h) {
    return fab_page_align(fab_classes_offset(h) + h->max_agents);
}

/* Where the block of a process begins in the segment; with process = P the end of the segment. */
static inline uint64_t fab_block_offset(const struct fab_header *h, uint32_t process) {
    uint64_t at = fab_page_align(fab_class_names_offset(h) + FAB_CLASSES * FAB_CLASS_NAME_BYTES);
    if (process > 0)
        at += fab_block_bytes(h, 0) + (process - 1) * fab_block_bytes(h, 1);
    return at;
}

static inline int fab_is_lane_size(uint64_t bytes, uint64_t least) {
    return bytes >= least && (bytes & (bytes - 1)) == 0 && bytes <= (UINT64_C(1) << 31);
}

/* Are these sizes a layout that can be? 0 or -EINVAL. Bounds keep every sum far from 2^64. */
static inline int fab_header_check(const struct fab_header *h) {
    if (h->processes < 2 || h->processes > FAB_PROCESSES_MAX || h->max_agents < 1 ||
        h->max_agents > (UINT64_C(1) << 32))
        return -EINVAL;
    if (!fab_is_lane_size(h->lane_bytes, FAB_PAGE) || !fab_is_lane_size(h->peer_lane_bytes, FAB_PAGE) ||
        !fab_is_lane_size(h->control_lane_bytes, FAB_PAGE) || !fab_is_lane_size(h->outbox_bytes, FAB_PAGE))
        return -EINVAL;
    if (h->journal_bytes != 0 && !fab_is_lane_size(h->journal_bytes, FAB_PAGE))
        return -EINVAL;
    if (h->arena_bytes % FAB_PAGE != 0 || h->arena_bytes > (UINT64_C(1) << 44))
        return -EINVAL;
    if (h->loans > FAB_LOANS_MAX || (h->loans != 0 && h->arena_bytes == 0))
        return -EINVAL;
    return 0;
}

/* Fill in what follows from the sizes. Returns 0 or -EINVAL. Coordinator, on its own memory. */
static inline int fab_header_init(struct fab_header *h) {
    h->magic = FAB_MAGIC;
    h->version = FAB_VERSION;
    if (fab_header_check(h) != 0)
        return -EINVAL;
    h->segment_bytes = fab_block_offset(h, h->processes);
    return 0;
}

/* Is this the header of a segment of `bytes` bytes, and of our version? Work on a private copy.
 * Returns 0, -ENOEXEC (not our segment), -EPROTO (another version), -EINVAL (sizes that cannot be). */
static inline int fab_header_validate(const struct fab_header *h, uint64_t bytes) {
    if (h->magic != FAB_MAGIC)
        return -ENOEXEC;
    if (h->version != FAB_VERSION)
        return -EPROTO;
    if (fab_header_check(h) != 0 || h->segment_bytes != fab_block_offset(h, h->processes) ||
        h->segment_bytes != bytes)
        return -EINVAL;
    return 0;
}

#endif
