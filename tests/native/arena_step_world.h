/* SPDX-License-Identifier: MIT */
/*
 * arena_step_world.h - an owner and a reader with loans in every state, what a victim does, and what must hold.
 *
 *   process 1, the owner         process 2, the reader          loan
 *   lent, sent, committed        holds it                       HELD
 *   lent, sent, received         holds it, not committed        TAKEN_UP
 *   lent, sent, committed        is done                        RETURNED, until the owner reclaims
 *   lent, in the lane            has not looked                 SENT
 *   lent, in the outbox                                         QUEUED
 *   lent                                                        UNSENT
 */
#ifndef ARENA_STEP_WORLD_H
#define ARENA_STEP_WORLD_H

#include "arena_world.h"

#define STEP_OWNER 1u
#define STEP_READER 2u
#define STEP_PAGES 12u
#define STEP_PAYLOAD 16u
#define STEP_AGENT (UINT64_C(1) << 32 | 2)

enum step_loan { HELD, TAKEN_UP, RETURNED, SENT, QUEUED, UNSENT, STEP_LOANS };
enum step_violation { STEP_TORN = 11, STEP_LOST, STEP_STUCK }; /* exit codes of an examiner */

/* Seeded faults: a test that cannot fail proves nothing. */
enum step_fault {
    STEP_SOUND,
    STEP_SENT_BEFORE_LENT,
    STEP_DONE_BEFORE_COMMIT,
    STEP_HELD_BEFORE_END,
    STEP_COMMIT_BEFORE_HELD,
    STEP_NO_OUTBOX,    /* the owner's successor looks into its lanes only */
    STEP_NO_LANES,     /* it looks into its outbox only */
    STEP_NO_RECEIPTS,  /* it does not ask who holds what */
    STEP_NO_ADOPTION,  /* the reader's successor does not look at its receipts */
    STEP_DONE_WITH_ALL /* it is done with what comes again, too */
};

struct step_control {
    _Atomic(int) began;
    _Atomic(int) ended;
};

struct step_run {
    struct arena_world w;
    enum step_fault fault;
    struct fab_lent_entry entries[STEP_LOANS];
    uint64_t ends[STEP_LOANS];
    struct step_control *control;
    const char *entry;
    uint32_t steps;
    struct fab_peer spare;
    struct fab_arena spare_arena;
    struct fab_columns cols;
};

static inline void step_demand(const struct step_run *r, int holds, enum step_violation kind,
                               const char *text) {
    static const char *const names[] = {"torn", "lost", "stuck"};
    if (holds)
        return;
    fprintf(stderr, "arena_step_test: %s, killed after %u instructions: %s: %s\n", r->entry, r->steps,
            names[kind - STEP_TORN], text);
    _exit((int)kind);
}

/* A payload says which loan it is: its index, and that again, turned over. */
static inline void step_write_payload(struct fab_arena *a, const struct fab_lent_entry *entry) {
    const uint64_t words[2] = {fab_loan_index(entry->loan), ~(uint64_t)fab_loan_index(entry->loan)};
    memcpy(a->data + entry->offset, words, sizeof words);
}

static inline int step_payload_is(const struct step_run *r, const struct fab_lent_entry *entry) {
    uint64_t words[2];
    const struct fab_header *h = &r->w.header;
    memcpy(words,
           r->w.whole + fab_block_offset(h, STEP_OWNER) + fab_arena_offset(h, STEP_OWNER) + entry->offset,
           sizeof words);
    return words[0] == fab_loan_index(entry->loan) && words[1] == ~words[0];
}

/* Write a payload and lend it to the reader; the loan alone keeps the block. */
static inline struct fab_lent_entry step_lend(struct fab_arena *a) {
    int64_t offset = fab_arena_take(a, STEP_PAYLOAD);
    int64_t loan = fab_arena_lend(a, (uint64_t)offset, (uint64_t)offset, STEP_PAYLOAD, STEP_READER);
    struct fab_lent_entry entry = {.loan = (uint64_t)loan, .offset = (uint64_t)offset, .bytes = STEP_PAYLOAD};
    step_write_payload(a, &entry);
    fab_arena_drop(a, (uint64_t)offset);
    return entry;
}

static inline void step_queue(struct step_run *r, const struct fab_lent_entry *entry) {
    struct {
        struct fab_lent_list list;
        struct fab_lent_entry entry;
    } body = {{.count = 1}, *entry};
    struct fab_batch b = {
        .header = {.size = sizeof body, .kind = ARENA_KIND, .encoding = FAB_LENT, .target = STEP_AGENT},
        .bytes = (const uint8_t *)&body,
        .bytes_count = sizeof body,
        .count = 1};
    uint32_t done = 0;
    uint64_t offset = 0;
    CHECK_EQ(fab_peer_outbox_batch(r->w.peers[STEP_OWNER], &b, &done, &offset), 1);
}

static inline int step_hold(struct step_run *r, const struct fab_lent_entry *entry, uint64_t end) {
    return fab_loan_hold(r->w.peers[STEP_READER], STEP_OWNER, entry->loan, entry->offset, entry->bytes, end);
}

static inline void step_prepare(struct step_run *r) {
    const uint64_t address = STEP_AGENT;
    const uint16_t slot = STEP_READER;
    arena_world_open(&r->w, STEP_PAGES, 16);
    fab_table_write(r->w.memory, &address, &slot, 1, FAB_AGENT_ALIVE);
    for (uint32_t i = 0; i < STEP_LOANS; i++)
        r->entries[i] = step_lend(&r->w.arenas[STEP_OWNER]);
    const enum step_loan order[] = {HELD, RETURNED, TAKEN_UP, SENT};
    for (uint32_t i = 0; i < 4; i++)
        r->ends[order[i]] = arena_send(r->w.peers[STEP_OWNER], STEP_READER, &r->entries[order[i]], 1);
    step_queue(r, &r->entries[QUEUED]);
    for (uint32_t i = 0; i < 3; i++) {
        CHECK_EQ(fab_peer_receive(r->w.peers[STEP_READER], 1, UINT64_MAX, &r->cols), STEP_OWNER);
        CHECK_EQ(r->cols.end, r->ends[order[i]]);
        CHECK_EQ(step_hold(r, &r->entries[order[i]], r->cols.end), 0);
    }
    fab_peer_commit(r->w.peers[STEP_READER], STEP_OWNER, r->ends[RETURNED]);
    fab_loan_done(r->w.peers[STEP_READER], STEP_OWNER, r->entries[RETURNED].loan);
}

/* The owner takes every page that is free, and writes over it: what somebody still reads is found out. */
static inline void step_use_all_memory(struct fab_arena *a) {
    for (int64_t at; (at = fab_arena_take(a, FAB_PAGE)) >= 0;) {
        memset(a->data + at, 0xaa, FAB_PAGE);
        a->pages.page[fab_arena_page_of((uint64_t)at)].refs = 1000; /* to tell it from what is lent */
    }
}

static inline void step_give_back(struct fab_arena *a) {
    for (uint32_t page = 0; page < STEP_PAGES; page++)
        while (fab_pages_is_block(&a->pages, page) && a->pages.page[page].refs > 100)
            if (a->pages.page[page].refs == 1000) {
                a->pages.page[page].refs = 1;
                fab_arena_drop(a, page * FAB_PAGE);
            }
}

/* The reader takes up all that comes, looks at it, and is done with it. Returns a bit for each loan that came. */
static inline uint32_t step_read_all(struct step_run *r) {
    struct fab_peer *reader = r->w.peers[STEP_READER];
    uint64_t lost = 0;
    uint32_t came = 0;
    step_demand(r, fixture_flush(r->w.peers[STEP_OWNER], &lost) == 1 && lost == 0, STEP_LOST,
                "what lay in the outbox");
    while (fab_peer_receive(reader, 1, UINT64_MAX, &r->cols) >= 0) {
        struct fab_lent_entry entry;
        step_demand(r, r->cols.size == sizeof(struct fab_lent_list) + sizeof entry, STEP_TORN, "a record");
        memcpy(&entry,
               reader->in[STEP_OWNER].data + r->cols.start + r->cols.starts[0] + sizeof(struct fab_lent_list),
               sizeof entry);
        step_demand(r, step_hold(r, &entry, r->cols.end) == 0, STEP_LOST,
                    "a record names what is lent no more");
        step_demand(r, step_payload_is(r, &entry), STEP_TORN, "the payload of a record was written over");
        fab_peer_commit(reader, STEP_OWNER, r->cols.end);
        fab_loan_done(reader, STEP_OWNER, entry.loan);
        came |= 1u << fab_loan_index(entry.loan);
    }
    step_demand(r, fab_peer_dropped(reader) == 0, STEP_TORN, "bytes that are no record");
    return came;
}

/* All has come back. */
static inline void step_demand_empty(const struct step_run *r, struct fab_arena *a) {
    step_give_back(a);
    fab_arena_reclaim(a, 0);
    step_demand(r, arena_usage(a, 3) == 0, STEP_STUCK, "a loan that never ends");
    step_demand(r, arena_usage(a, 5) == 0 && arena_usage(a, 2) == STEP_PAGES * FAB_PAGE, STEP_STUCK,
                "memory that never comes back");
}

/* The owner is dead; the reader lives, and holds two payloads. */
static inline void step_examine_owner(struct step_run *r) {
    struct fab_arena *a = &r->w.arenas[STEP_OWNER];
    uint64_t tail = atomic_load(r->w.peers[STEP_READER]->in[STEP_OWNER].tail);
    arena_attach(&r->w, STEP_OWNER);
    fab_peer_outbox_resume(r->w.peers[STEP_OWNER]);
    step_use_all_memory(a);
    for (enum step_loan loan = HELD; loan <= TAKEN_UP; loan++)
        step_demand(r, step_payload_is(r, &r->entries[loan]), STEP_TORN,
                    "a payload that is held was written over");
    uint32_t came = step_read_all(r);
    uint32_t due = 1u << SENT | 1u << QUEUED;
    step_demand(r, (came & due) == due, STEP_LOST, "a record that was sent");
    step_demand(r, (came != due) == (tail != r->ends[SENT]), STEP_LOST, "a record that was published");
    fab_loan_done(r->w.peers[STEP_READER], STEP_OWNER, r->entries[HELD].loan);
    fab_loan_done(r->w.peers[STEP_READER], STEP_OWNER, r->entries[TAKEN_UP].loan);
    step_demand_empty(r, a);
}

/* The reader is dead, and the owner lives. */
static inline void step_examine_reader(struct step_run *r) {
    struct fab_arena *a = &r->w.arenas[STEP_OWNER];
    uint64_t head = atomic_load(r->w.peers[STEP_OWNER]->out[STEP_READER].head);
    arena_attach(&r->w, STEP_READER);
    if (r->fault != STEP_NO_ADOPTION)
        fab_loan_adopt(r->w.peers[STEP_READER]);
    step_use_all_memory(a);
    uint32_t due = 1u << QUEUED | (uint32_t)(head < r->ends[SENT]) << SENT |
                   (uint32_t)(head < r->ends[TAKEN_UP]) << TAKEN_UP;
    step_demand(r, step_read_all(r) == due, STEP_LOST,
                "what was not committed comes again, and nothing else");
    CHECK_EQ(fab_arena_unlend(a, r->entries[UNSENT].loan), 0);
    step_demand_empty(r, a);
}

#endif
