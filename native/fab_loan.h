/* SPDX-License-Identifier: MIT */
/*
 * fab_loan.h - payloads that lie in another process's arena: what their reader does.
 *
 *   owner's block                                  reader's block
 *   loans[index]      state, offset, bytes         receipts[owner][index]   state, end
 *     written by the owner only                      written by the reader only
 *
 *   a record in a lane    | header, encoding & 0x80 | count, 0 | loan, offset, bytes, 0 | ... | the rest |
 *                           loan = generation << 32 | index, generations from 1
 *
 * A payload is written once, in whole pages of the owner's arena. It is lent to one process by a loan, which
 * travels in a record; the reader says in its receipt that it holds it and, later, that it is done.
 *
 *   L1 done: reader's store of receipt.state -> L2 reclaim: owner's load of it  (the payload was read)
 *
 * What L1 is to the next payload, C2 is to the next record. What stands in a loan reaches its reader by P1 -> C1,
 * because it is written before the record is published. L1 is also W1a, for who waits for an arena.
 *
 * Who dies leaves this:
 *
 * 1. A reader takes up a record: it checks the loan against the owner's table, stores `end` (the lane's counter
 *    behind the record), then HELD; then it may look at the payload. It says DONE only when its views are gone
 *    and the lane is committed past the record. So DONE may always free the payload, although a successor
 *    gets again what was not committed.
 * 2. A reader dies. Its successor, before it receives anything, goes through its receipts. HELD, with `end` not
 *    beyond the lane's head: the record was committed and only the dead one held the payload: DONE. HELD with
 *    `end` beyond the head: the record comes again. FAB_KEPT in place of `end`: it is not known by a lane, and kept.
 * 3. An owner dies. Its successor (fab_heirs.h) walks its outgoing lanes and its outbox for loans that were
 *    published and not committed, and only then reads the receipts. As a reader stores HELD before it
 *    commits, a loan that is in no lane any more shows in the receipt. Live is what was found, or is HELD.
 *    All else (DONE, or lent and never published) is ended.
 */
#ifndef FAB_LOAN_H
#define FAB_LOAN_H

#include "fab_peer.h"

#ifndef FAB_L1
#define FAB_L1 memory_order_seq_cst
#define FAB_L2 memory_order_acquire
#endif

#define FAB_HELD 1u
#define FAB_DONE 2u
#define FAB_KEPT UINT64_MAX /* in place of fab_receipt.end: no record brought it */
#define FAB_LENT 0x80u      /* in the encoding of a record: its body begins with a list of loans */

/* What precedes the body of a record that lends, and each entry of it. A file format, as fab_record is. */
struct fab_lent_list {
    uint32_t count;
    uint32_t zero;
};
struct fab_lent_entry {
    uint64_t loan;
    uint64_t offset;
    uint64_t bytes;
    uint64_t zero;
};
static_assert(sizeof(struct fab_lent_list) == 8, "record format: head of the list of loans");
static_assert(sizeof(struct fab_lent_entry) == 32, "record format: entry of the list of loans");

static inline uint32_t fab_loan_index(uint64_t loan) {
    return (uint32_t)(loan & UINT32_MAX);
}

static inline uint32_t fab_loan_generation(uint64_t loan) {
    return (uint32_t)(loan >> 32);
}

#define FAB_GENERATIONS 0x7fffffffu /* the highest; then comes 1. So a loan is no negative number */

/* fab_loan.state of a loan to this reader. */
static inline uint64_t fab_loan_state(uint32_t generation, uint32_t reader) {
    return (uint64_t)generation << 16 | (reader + 1);
}

static inline uint32_t fab_loan_state_generation(uint64_t state) {
    return (uint32_t)(state >> 16) & FAB_GENERATIONS;
}

/* fab_receipt.state. */
static inline uint64_t fab_receipt_state(uint32_t generation, uint32_t what) {
    return (uint64_t)generation << 2 | what;
}

static inline const struct fab_loan *fab_peer_loans(const struct fab_peer *s, uint32_t owner) {
    return (const struct fab_loan *)(const void *)(s->whole + s->blocks[owner] +
                                                   fab_loans_offset(&s->header));
}

/* The receipt of `reader` for a loan; ours is also fab_peer_own_receipt. */
static inline const struct fab_receipt *fab_peer_receipt(const struct fab_peer *s, uint32_t reader,
                                                         uint32_t owner, uint32_t index) {
    const uint8_t *block = s->whole + s->blocks[reader];
    return (const struct fab_receipt *)(const void *)(block + fab_receipts_offset(&s->header, owner)) + index;
}

static inline struct fab_receipt *fab_peer_own_receipt(struct fab_peer *s, uint32_t owner, uint32_t index) {
    return (struct fab_receipt *)(void *)(s->block + fab_receipts_offset(&s->header, owner)) + index;
}

/* Can this be a piece of an arena? */
static inline int fab_loan_fits(const struct fab_header *h, uint64_t offset, uint64_t bytes) {
    return bytes != 0 && bytes <= h->arena_bytes && offset <= h->arena_bytes - bytes;
}

/* Say that we hold a loan that came in a record; again, when the record comes again to a successor. `end` is the
 * lane's counter behind the record. Returns 0, or -EINVAL when it is not what the owner's table says, or
 * was done with: then nothing may be read. Its reader only, any thread. Wait-free. */
static inline int fab_loan_hold(struct fab_peer *s, uint32_t owner, uint64_t loan, uint64_t offset,
                                uint64_t bytes, uint64_t end) {
    uint32_t index = fab_loan_index(loan);
    uint32_t generation = fab_loan_generation(loan);
    if (owner >= s->header.processes || index >= s->header.loans || generation == 0 ||
        !fab_loan_fits(&s->header, offset, bytes))
        return -EINVAL;
    /* relaxed, all three: the record that named the loan was published after they were written (P1 -> C1) */
    const struct fab_loan *entry = fab_peer_loans(s, owner) + index;
    if (atomic_load_explicit(&entry->state, memory_order_relaxed) != fab_loan_state(generation, s->process) ||
        atomic_load_explicit(&entry->offset, memory_order_relaxed) != offset ||
        atomic_load_explicit(&entry->bytes, memory_order_relaxed) != bytes)
        return -EINVAL;
    struct fab_receipt *receipt = fab_peer_own_receipt(s, owner, index);
    if (atomic_load_explicit(&receipt->state, memory_order_relaxed) == /* relaxed: ours */
        fab_receipt_state(generation, FAB_DONE))
        return -EINVAL;
    /* In this order for our successor; seen by the owner's before the head that C2 stores. */
    atomic_store_explicit(&receipt->end, end, memory_order_relaxed);
    atomic_store_explicit(&receipt->state, fab_receipt_state(generation, FAB_HELD), memory_order_release);
    return 0;
}

/* Say DONE, and wake the owner if it waits for that. */
static inline void fab_receipt_done(struct fab_peer *s, uint32_t owner, struct fab_receipt *receipt,
                                    uint32_t generation) {
    /* L1: pairs with L2. This is the owner's licence to write over the payload. Also W1a. */
    atomic_store_explicit(&receipt->state, fab_receipt_state(generation, FAB_DONE), FAB_L1);
    fab_doorbell_notify(&fab_peer_words(s, owner)->sleeping, FAB_WAITS_ARENA, s->bells[owner]);
}

/* Say that we are done with a loan that we hold: our views are gone, and the lane is committed past its record.
 * Nothing happens when we do not hold it. Its reader only, any thread. Never waits. */
static inline void fab_loan_done(struct fab_peer *s, uint32_t owner, uint64_t loan) {
    uint32_t index = fab_loan_index(loan);
    uint32_t generation = fab_loan_generation(loan);
    if (owner >= s->header.processes || index >= s->header.loans)
        return;
    struct fab_receipt *receipt = fab_peer_own_receipt(s, owner, index);
    if (generation != 0 && atomic_load_explicit(&receipt->state, memory_order_relaxed) == /* ours */
                               fab_receipt_state(generation, FAB_HELD))
        fab_receipt_done(s, owner, receipt, generation);
}

/* How many entries of a table of loans were ever used: they are used in order. What was never touched has no
 * memory yet, and looking at it would give it some. */
static inline uint32_t fab_loans_used(const struct fab_peer *s, uint32_t owner) {
    const struct fab_loan *loans = fab_peer_loans(s, owner);
    uint32_t used = 0;
    /* relaxed: what a dead reader held was written before it came to hold it */
    while (used < s->header.loans && atomic_load_explicit(&loans[used].state, memory_order_relaxed) != 0)
        used++;
    return used;
}

/* Take up the receipts of a dead predecessor: be done with what only it held (story 2). Returns how many those
 * were. Before anything is received, when the bells are set. Never waits. */
static inline uint32_t fab_loan_adopt(struct fab_peer *s) {
    uint32_t ended = 0;
    for (uint32_t owner = 0; owner < s->header.processes; owner++) {
        uint32_t used = fab_loans_used(s, owner);
        for (uint32_t index = 0; index < used; index++) { /* relaxed: its writer is dead */
            struct fab_receipt *receipt = fab_peer_own_receipt(s, owner, index);
            uint64_t state = atomic_load_explicit(&receipt->state, memory_order_relaxed);
            uint64_t end = atomic_load_explicit(&receipt->end, memory_order_relaxed);
            /* counters pass 2^64, so they are compared by their difference */
            if ((state & 3) != FAB_HELD || end == FAB_KEPT || (int64_t)(s->in[owner].committed - end) < 0)
                continue;
            fab_receipt_done(s, owner, receipt, (uint32_t)(state >> 2));
            ended++;
        }
    }
    return ended;
}

/* Be done with what a process has lent to itself for its successors (FAB_KEPT), but for these loans. Its own
 * process, before it lends itself more. Never waits. */
static inline void fab_loan_keep_only(struct fab_peer *s, const uint64_t *loans, uint32_t count) {
    uint32_t used = fab_loans_used(s, s->process);
    for (uint32_t index = 0; index < used; index++) { /* relaxed, all: we are its writer */
        struct fab_receipt *receipt = fab_peer_own_receipt(s, s->process, index);
        uint64_t state = atomic_load_explicit(&receipt->state, memory_order_relaxed);
        uint32_t found = 0;
        if ((state & 3) != FAB_HELD || atomic_load_explicit(&receipt->end, memory_order_relaxed) != FAB_KEPT)
            continue;
        for (uint32_t i = 0; i < count; i++)
            found |=
                fab_loan_index(loans[i]) == index && fab_loan_generation(loans[i]) == (uint32_t)(state >> 2);
        if (!found)
            fab_receipt_done(s, s->process, receipt, (uint32_t)(state >> 2));
    }
}

#endif
