/* SPDX-License-Identifier: MIT */
/*
 * fab_layout.h - where everything lies in the segment of a fabric: each offset follows from its header.
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
 * one end is the coordinator.
 */
#ifndef FAB_LAYOUT_H
#define FAB_LAYOUT_H

#include "fab_segment.h"

#include <errno.h>

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
