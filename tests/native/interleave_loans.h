/* SPDX-License-Identifier: MIT */
/*
 * interleave_loans.h - an arena of one page with one loan: each message must wait for the one before to come back.
 *
 *   process 1   owner    take, write, lend, send; no memory: sleep for FAB_WAITS_ARENA; in the end, for all of it
 *   process 0   reader   hold, read, commit, read again, done
 *
 * Both may die. A payload that is written over while it may still be read is a violation by itself (weak_memory.h).
 */
#ifndef INTERLEAVE_LOANS_H
#define INTERLEAVE_LOANS_H

#include "interleave_acts.h"

#define LOAN_OWNER 1u
#define LOAN_READER 0u

struct loan_body {
    struct fab_lent_list list;
    struct fab_lent_entry entry;
};

static struct fab_arena loan_arenas[EXPLORE_THREADS]; /* by coroutine, as world.peers */

static inline const uint8_t *loan_payload(void) {
    return world.memory + world.block[LOAN_OWNER] + fab_arena_offset(&world.header, LOAN_OWNER);
}

/* The owner's successor asks who holds what before it looks into its lanes. */
static inline void loan_open_in_wrong_order(struct fab_arena *a, struct fab_peer *s) {
    struct fab_heir heir;
    fab_arena_prepare(a, s);
    fab_heirs_read(a, &heir);
    heir.is_live = a->used_count != 0 && heir.bytes != 0 && fab_heir_is_held(a, &heir);
    fab_heirs_walk(a, &heir, &s->out[LOAN_READER]);
    heir.bytes = heir.is_live ? heir.bytes : 0;
    fab_heirs_place(a, &heir, fab_heirs_settle(a, &heir));
    s->arena = a;
}

static inline struct fab_arena *loan_open(struct fab_peer *s) {
    struct fab_arena *a = &loan_arenas[explore.current];
    if (world.fault == WORLD_RECEIPTS_BEFORE_LANES)
        loan_open_in_wrong_order(a, s);
    else if (fab_arena_open(a, s) != 0)
        explore_fail("the arena cannot be opened");
    fab_arena_allow(a, UINT64_MAX);
    return a;
}

/* What the owner remembers, where it begins another turn. */
static inline void loan_forget(const struct fab_arena *a, uint32_t n) {
    world_forget(((n * 4 + a->out_count) * 4 + a->next_look) * 4 + a->unused_count + a->pages.used * 64);
}

/* Payload n, lent and sent. Returns 0 when there is no memory for it yet. */
static inline int loan_send(struct fab_peer *s, struct fab_arena *a, uint32_t n) {
    int64_t at = fab_arena_take(a, sizeof(uint64_t));
    uint64_t payload = n + 1;
    if (at < 0)
        return 0;
    memcpy(a->data + at, &payload, sizeof payload);
    int64_t loan = fab_arena_lend(a, (uint64_t)at, (uint64_t)at, sizeof payload, LOAN_READER);
    if (loan < 0)
        explore_fail("there is memory, and no loan for it");
    fab_arena_drop(a, (uint64_t)at);
    struct loan_body body = {{.count = 1},
                             {.loan = (uint64_t)loan, .offset = (uint64_t)at, .bytes = sizeof payload}};
    struct fab_record r = {.size = sizeof body, .kind = WORLD_KIND, .encoding = FAB_LENT, .target = n};
    if (fab_peer_send(s, LOAN_READER, &r, &body) != 1)
        explore_fail("the lane is full");
    return 1;
}

static inline void loan_own(void *arg) {
    struct fab_peer *s = world_enter();
    struct fab_arena *a = loan_open(s);
    (void)arg;
    uint32_t n = (uint32_t)(s->out[LOAN_READER].next / fab_record_span(sizeof(struct loan_body)));
    while (n < world.messages) {
        loan_forget(a, n);
        if (loan_send(s, a, n))
            n++;
        else
            world_park(s, FAB_WAITS_ARENA);
    }
    for (loan_forget(a, n); a->out_count != 0; loan_forget(a, n))
        if (fab_arena_reclaim(a, 0) == 0)
            world_park(s, FAB_WAITS_ARENA);
}

static inline void loan_done(struct fab_peer *s, uint64_t loan) {
    if (world.fault == WORLD_NO_BELL_FOR_ARENA)
        atomic_store_explicit(&fab_peer_own_receipt(s, LOAN_OWNER, 0)->state,
                              fab_receipt_state(fab_loan_generation(loan), FAB_DONE), memory_order_seq_cst);
    else
        fab_loan_done(s, LOAN_OWNER, loan);
}

static inline void loan_look(uint32_t n) {
    uint64_t payload;
    memcpy(&payload, loan_payload(), sizeof payload);
    if (payload != n + 1)
        explore_fail("torn or stale: the payload of message %u", n);
}

/* One message, from the lane to DONE. */
static inline void loan_handle(struct fab_peer *s, const struct fab_columns *cols) {
    struct fab_lent_entry entry;
    uint32_t n = (uint32_t)cols->targets[0];
    memcpy(&entry, s->in[LOAN_OWNER].data + cols->start + cols->starts[0] + sizeof(struct fab_lent_list),
           sizeof entry);
    if (world.fault == WORLD_COMMIT_BEFORE_HOLD)
        world_commit(s, LOAN_OWNER, cols->end);
    if (fab_loan_hold(s, LOAN_OWNER, entry.loan, entry.offset, entry.bytes, cols->end) != 0)
        explore_fail("lost: message %u names a loan that has ended", n);
    loan_look(n);
    world.handled[1][n]++;
    if (world.fault == WORLD_DONE_BEFORE_COMMIT)
        loan_done(s, entry.loan);
    world_commit(s, LOAN_OWNER, cols->end);
    if (world.fault != WORLD_DONE_BEFORE_COMMIT)
        loan_look(n);
    loan_done(s, entry.loan);
}

static inline void loan_read(void *arg) {
    struct fab_peer *s = world_enter();
    (void)arg;
    if (world.fault != WORLD_RECEIPTS_NOT_ADOPTED)
        fab_loan_adopt(s);
    for (;;) {
        world_forget(0);
        if (fab_peer_receive(s, 1, UINT64_MAX, world_cols()) >= 0)
            loan_handle(s, world_cols());
        else
            world_park(s, FAB_WAITS_MESSAGES);
    }
}

static inline void loan_announce(void) {
    uint8_t *owner = world.memory + world.block[LOAN_OWNER];
    uint8_t *reader = world.memory + world.block[LOAN_READER];
    struct fab_loan *loan = (struct fab_loan *)(void *)(owner + fab_loans_offset(&world.header));
    struct fab_receipt *receipt =
        (struct fab_receipt *)(void *)(reader + fab_receipts_offset(&world.header, LOAN_OWNER));
    world_announce_lane(LOAN_OWNER, LOAN_READER, WORLD_LANE, "tail 1>0", "head 1>0", "lane 1>0");
    world_announce_sleeper(LOAN_READER, "sleeping 0");
    world_announce_sleeper(LOAN_OWNER, "sleeping 1");
    weak_word(&loan->state, "loan: state", 0, 0);
    weak_word(&loan->offset, "loan: offset", 0, 0);
    weak_word(&loan->bytes, "loan: bytes", 0, 0);
    weak_word(&receipt->state, "receipt: state", 0, 0);
    weak_word(&receipt->end, "receipt: end", 0, 0);
    weak_bytes(loan_payload(), 8, "the payload");
}

#endif
