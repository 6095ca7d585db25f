/* SPDX-License-Identifier: MIT */
/*
 * arena_test.c - the arena of one process: what it hands out, what it lends, and what is refused.
 */
#include "arena_world.h"

static void sizes_are_whole_pages_and_what_cannot_be_is_refused(void) {
    struct arena_world w;
    arena_world_open(&w, 8, 16);
    struct fab_arena *a = &w.arenas[0];
    CHECK_EQ(fab_arena_take(a, 0), -EINVAL);
    CHECK_EQ(fab_arena_take(a, 8 * FAB_PAGE + 1), -EMSGSIZE);
    CHECK_EQ(fab_arena_take(a, UINT64_MAX), -EMSGSIZE);
    CHECK_EQ(fab_arena_take(a, 1), 0);
    CHECK_EQ(fab_arena_take(a, FAB_PAGE + 1), FAB_PAGE);
    CHECK_EQ(fab_arena_block_bytes(a, 0), FAB_PAGE);
    CHECK_EQ(fab_arena_block_bytes(a, FAB_PAGE), 2 * FAB_PAGE);
    CHECK_EQ(fab_arena_block_bytes(a, 2 * FAB_PAGE), 0);
    CHECK_EQ(fab_arena_block_bytes(a, 1), 0);
    CHECK_EQ(fab_arena_block_bytes(a, UINT64_MAX), 0);
    CHECK_EQ(fab_arena_find(a, 3 * FAB_PAGE - 1), FAB_PAGE);
    CHECK_EQ(fab_arena_find(a, 3 * FAB_PAGE), -1);
    CHECK_EQ(fab_arena_find(a, UINT64_MAX), -1);
    CHECK_EQ(fab_arena_take(a, 6 * FAB_PAGE), -ENOSPC);
    CHECK_EQ(fab_arena_take(a, 5 * FAB_PAGE), 3 * FAB_PAGE);
    CHECK_EQ(fab_arena_take(a, 1), -ENOSPC);
    CHECK_EQ(fab_arena_drop(a, 2 * FAB_PAGE), -EINVAL);
    CHECK_EQ(fab_arena_drop(a, 0), 0);
    CHECK_EQ(fab_arena_drop(a, 0), -EINVAL);
    CHECK_EQ(fab_arena_retain(a, 0), -EINVAL);
    arena_world_close(&w);
}

static void a_block_lives_until_its_last_reference(void) {
    struct arena_world w;
    arena_world_open(&w, 8, 16);
    struct fab_arena *a = &w.arenas[0];
    int64_t block = fab_arena_take(a, 1);
    CHECK_EQ(fab_arena_retain(a, (uint64_t)block), 0);
    CHECK_EQ(fab_arena_drop(a, (uint64_t)block), 0);
    CHECK_EQ(fab_arena_block_bytes(a, (uint64_t)block), FAB_PAGE);
    CHECK_EQ(fab_arena_drop(a, (uint64_t)block), 0);
    CHECK_EQ(fab_arena_block_bytes(a, (uint64_t)block), 0);
    arena_world_close(&w);
}

static void fresh_memory_is_taken_only_as_allowed_and_resident_memory_first(void) {
    struct arena_world w;
    arena_world_open(&w, 64, 16);
    struct fab_arena *a = &w.arenas[0];
    fab_arena_allow(a, 4 * FAB_PAGE);
    CHECK_EQ(fab_arena_take(a, 5 * FAB_PAGE), -ENOMEM);
    CHECK_EQ(fab_arena_take(a, 4 * FAB_PAGE), 0);
    CHECK_EQ(fab_arena_take(a, 1), -ENOMEM);
    fab_arena_allow(a, 4 * FAB_PAGE);
    CHECK_EQ(fab_arena_take(a, 4 * FAB_PAGE), 4 * FAB_PAGE);
    CHECK_EQ(fab_arena_drop(a, 0), 0);
    CHECK_EQ(fab_arena_take(a, 3 * FAB_PAGE), 0); /* what is resident needs no allowance */
    CHECK_EQ(fab_arena_drop(a, 4 * FAB_PAGE), 0);
    fab_arena_allow(a, FAB_PAGE);
    CHECK_EQ(fab_arena_take(a, 7 * FAB_PAGE), -ENOMEM); /* 5 resident, 2 fresh */
    CHECK_EQ(fab_arena_take(a, 6 * FAB_PAGE), 3 * FAB_PAGE);
    CHECK_EQ(arena_usage(a, 1), 9 * FAB_PAGE);
    arena_world_close(&w);
}

static void what_was_freed_last_is_taken_first(void) {
    struct arena_world w;
    arena_world_open(&w, 64, 16);
    struct fab_arena *a = &w.arenas[0];
    for (uint64_t i = 0; i < 8; i++)
        CHECK_EQ(fab_arena_take(a, 2 * FAB_PAGE), 2 * i * FAB_PAGE);
    CHECK_EQ(fab_arena_drop(a, 2 * FAB_PAGE), 0);
    CHECK_EQ(fab_arena_drop(a, 10 * FAB_PAGE), 0);
    CHECK_EQ(fab_arena_drop(a, 6 * FAB_PAGE), 0);
    CHECK_EQ(fab_arena_take(a, 2 * FAB_PAGE), 6 * FAB_PAGE);
    CHECK_EQ(fab_arena_take(a, 2 * FAB_PAGE), 10 * FAB_PAGE);
    CHECK_EQ(fab_arena_take(a, 1), 2 * FAB_PAGE);
    CHECK_EQ(fab_arena_take(a, 2 * FAB_PAGE), 16 * FAB_PAGE);
    arena_world_close(&w);
}

/* 16 and 17 pages are of one class, and the first eight of it that are looked at are too short. */
static void the_last_run_of_a_class_is_found_too(void) {
    struct arena_world w;
    arena_world_open(&w, 17 + 1 + 20 * 17, 16);
    struct fab_arena *a = &w.arenas[0];
    CHECK_EQ(fab_arena_take(a, 17 * FAB_PAGE), 0);
    CHECK_EQ(fab_arena_take(a, FAB_PAGE), 17 * FAB_PAGE);
    for (uint64_t i = 0; i < 20; i++) {
        CHECK_EQ(fab_arena_take(a, 16 * FAB_PAGE), (18 + 17 * i) * FAB_PAGE);
        CHECK_EQ(fab_arena_take(a, FAB_PAGE), (18 + 17 * i + 16) * FAB_PAGE);
    }
    CHECK_EQ(fab_arena_drop(a, 0), 0);
    for (uint64_t i = 0; i < 20; i++)
        CHECK_EQ(fab_arena_drop(a, (18 + 17 * i) * FAB_PAGE), 0);
    CHECK_EQ(fab_arena_take(a, 18 * FAB_PAGE), -ENOSPC);
    CHECK_EQ(fab_arena_take(a, 17 * FAB_PAGE), 0);
    CHECK_EQ(fab_arena_take(a, 17 * FAB_PAGE), -ENOSPC);
    arena_world_close(&w);
}

static void trim_gives_back_the_largest_runs_and_no_more_than_is_over(void) {
    struct arena_world w;
    arena_world_open(&w, 64, 16);
    struct fab_arena *a = &w.arenas[0];
    CHECK_EQ(fab_arena_take(a, 4 * FAB_PAGE), 0);
    CHECK_EQ(fab_arena_take(a, FAB_PAGE), 4 * FAB_PAGE);
    CHECK_EQ(fab_arena_take(a, 16 * FAB_PAGE), 5 * FAB_PAGE);
    memset(a->data, 1, 21 * FAB_PAGE);
    CHECK_EQ(arena_memory(&w), 21);
    CHECK_EQ(fab_arena_trim(a, 0), 0); /* nothing is free */
    CHECK_EQ(fab_arena_drop(a, 0), 0);
    CHECK_EQ(fab_arena_drop(a, 5 * FAB_PAGE), 0);
    CHECK_EQ(fab_arena_trim(a, 20 * FAB_PAGE), 0);
    CHECK_EQ(fab_arena_trim(a, 19 * FAB_PAGE - 1), FAB_PAGE);
    CHECK_EQ(fab_arena_trim(a, 5 * FAB_PAGE), 14 * FAB_PAGE);
    CHECK_EQ(arena_memory(&w), 6);
    CHECK_EQ(arena_usage(a, 1), 6 * FAB_PAGE);
    CHECK_EQ(a->data[0], 1); /* the small run kept its memory, and so did the block */
    CHECK_EQ(a->data[4 * FAB_PAGE], 1);
    CHECK_EQ(fab_arena_trim(a, 0), 5 * FAB_PAGE);
    CHECK_EQ(arena_memory(&w), 1);
    CHECK_EQ(a->data[0], 0);
    fab_arena_allow(a, 0);
    CHECK_EQ(fab_arena_take(a, 1), -ENOMEM);
    arena_world_close(&w);
}

static void a_loan_ends_when_its_reader_is_done(void) {
    struct arena_world w;
    arena_world_open(&w, 8, 16);
    struct fab_arena *a = &w.arenas[0];
    CHECK_EQ(fab_arena_take(a, 3 * FAB_PAGE), 0);
    int64_t loan = fab_arena_lend(a, 0, FAB_PAGE + 7, 100, 1);
    int64_t other = fab_arena_lend(a, 0, 0, 3 * FAB_PAGE, 2);
    CHECK(loan > 0 && other > 0 && loan != other);
    CHECK_EQ(fab_arena_drop(a, 0), 0); /* the loans have it now */
    CHECK_EQ(arena_usage(a, 3), 2);
    CHECK_EQ(fab_arena_returned(a), 0);
    CHECK_EQ(fab_loan_hold(w.peers[1], 0, (uint64_t)loan, FAB_PAGE + 7, 100, 64), 0);
    CHECK_EQ(fab_loan_hold(w.peers[1], 0, (uint64_t)loan, FAB_PAGE + 7, 100, 64), 0); /* a successor */
    CHECK_EQ(fab_arena_reclaim(a, 0), 0);
    fab_loan_done(w.peers[2], 0, (uint64_t)other); /* not held: nothing happens */
    CHECK_EQ(fab_arena_reclaim(a, 0), 0);
    fab_loan_done(w.peers[1], 0, (uint64_t)loan);
    CHECK_EQ(fab_arena_returned(a), 1);
    CHECK_EQ(fab_loan_hold(w.peers[1], 0, (uint64_t)loan, FAB_PAGE + 7, 100, 64), -EINVAL);
    CHECK_EQ(fab_arena_reclaim(a, 0), 1);
    CHECK_EQ(fab_arena_block_bytes(a, 0), 3 * FAB_PAGE);
    CHECK_EQ(fab_loan_hold(w.peers[2], 0, (uint64_t)other, 0, 3 * FAB_PAGE, FAB_KEPT), 0);
    fab_loan_done(w.peers[2], 0, (uint64_t)other);
    CHECK_EQ(fab_arena_take(a, 8 * FAB_PAGE), 0); /* which reclaims by itself */
    CHECK_EQ(arena_usage(a, 3), 0);
    arena_world_close(&w);
}

static void a_loan_that_was_never_sent_is_ended_by_its_owner(void) {
    struct arena_world w;
    arena_world_open(&w, 8, 16);
    struct fab_arena *a = &w.arenas[0];
    CHECK_EQ(fab_arena_take(a, 1), 0);
    uint64_t loan = (uint64_t)fab_arena_lend(a, 0, 0, 1, 1);
    CHECK_EQ(fab_arena_unlend(a, loan + 1), -EINVAL);
    CHECK_EQ(fab_arena_unlend(a, loan + (UINT64_C(1) << 32)), -EINVAL);
    CHECK_EQ(fab_arena_unlend(a, UINT64_MAX), -EINVAL);
    CHECK_EQ(fab_arena_unlend(a, loan), 0);
    CHECK_EQ(fab_arena_unlend(a, loan), -EINVAL);
    CHECK_EQ(fab_loan_hold(w.peers[1], 0, loan, 0, 1, 64), -EINVAL);
    uint64_t next = (uint64_t)fab_arena_lend(a, 0, 0, 1, 1);
    CHECK_EQ(fab_loan_index(next), fab_loan_index(loan));
    CHECK_EQ(fab_loan_generation(next), fab_loan_generation(loan) + 1);
    CHECK_EQ(fab_loan_hold(w.peers[1], 0, loan, 0, 1, 64), -EINVAL);
    CHECK_EQ(fab_loan_hold(w.peers[1], 0, next, 0, 1, 64), 0);
    arena_world_close(&w);
}

static void loans_run_out_and_come_back(void) {
    struct arena_world w;
    uint64_t loans[16];
    arena_world_open(&w, 8, 16);
    struct fab_arena *a = &w.arenas[0];
    CHECK_EQ(fab_arena_take(a, 1), 0);
    for (int i = 0; i < 16; i++)
        loans[i] = (uint64_t)fab_arena_lend(a, 0, 0, 1, 1);
    CHECK_EQ(fab_arena_lend(a, 0, 0, 1, 1), -ENOSPC);
    CHECK_EQ(fab_loan_hold(w.peers[1], 0, loans[9], 0, 1, 64), 0);
    fab_loan_done(w.peers[1], 0, loans[9]);
    CHECK_EQ(fab_arena_lend(a, 0, 0, 1, 1), (int64_t)(loans[9] + (UINT64_C(1) << 32)));
    CHECK_EQ(a->pages.page[0].refs, 17);
    arena_world_close(&w);
}

/* Wherever the last look ended: the loan that takes the place of one that ended must not be missed. */
static void a_look_at_all_loans_misses_none(void) {
    struct arena_world w;
    uint64_t loans[5];
    arena_world_open(&w, 8, 16);
    struct fab_arena *a = &w.arenas[0];
    CHECK_EQ(fab_arena_take(a, 1), 0);
    for (int i = 0; i < 5; i++)
        loans[i] = (uint64_t)fab_arena_lend(a, 0, 0, 1, 1);
    CHECK_EQ(fab_arena_reclaim(a, 2), 0);
    for (int i = 0; i < 5; i += 4) {
        CHECK_EQ(fab_loan_hold(w.peers[1], 0, loans[i], 0, 1, 64), 0);
        fab_loan_done(w.peers[1], 0, loans[i]);
    }
    CHECK_EQ(fab_arena_reclaim(a, 0), 2);
    arena_world_close(&w);
}

static void generations_wrap_past_0(void) {
    struct arena_world w;
    arena_world_open(&w, 8, 16);
    struct fab_arena *a = &w.arenas[0];
    CHECK_EQ(fab_arena_take(a, 1), 0);
    CHECK_EQ(fab_arena_unlend(a, (uint64_t)fab_arena_lend(a, 0, 0, 1, 1)), 0);
    atomic_store(&a->loans[0].state, (uint64_t)FAB_GENERATIONS << 16);
    CHECK_EQ(fab_arena_lend(a, 0, 0, 1, 1), INT64_C(1) << 32);
    arena_world_close(&w);
}

static void what_does_not_lie_in_its_block_is_not_lent(void) {
    struct arena_world w;
    arena_world_open(&w, 8, 16);
    struct fab_arena *a = &w.arenas[0];
    CHECK_EQ(fab_arena_take(a, 1), 0);
    CHECK_EQ(fab_arena_take(a, 2 * FAB_PAGE), FAB_PAGE);
    CHECK_EQ(fab_arena_lend(a, 0, 0, 0, 1), -EINVAL);
    CHECK_EQ(fab_arena_lend(a, 0, 0, FAB_PAGE + 1, 1), -EINVAL);
    CHECK_EQ(fab_arena_lend(a, 0, 1, FAB_PAGE, 1), -EINVAL);
    CHECK_EQ(fab_arena_lend(a, FAB_PAGE, 0, 1, 1), -EINVAL);
    CHECK_EQ(fab_arena_lend(a, 2 * FAB_PAGE, 2 * FAB_PAGE, 1, 1), -EINVAL);
    CHECK_EQ(fab_arena_lend(a, 0, UINT64_MAX, 2, 1), -EINVAL);
    CHECK_EQ(fab_arena_lend(a, 0, 0, UINT64_MAX, 1), -EINVAL);
    CHECK_EQ(fab_arena_lend(a, 0, 0, 1, ARENA_PROCESSES), -EINVAL);
    CHECK_EQ(arena_usage(a, 3), 0);
    CHECK(fab_arena_lend(a, 0, FAB_PAGE - 1, 1, 1) > 0);
    arena_world_close(&w);
}

static void a_descriptor_that_is_not_what_the_owner_wrote_is_refused(void) {
    struct arena_world w;
    arena_world_open(&w, 8, 16);
    struct fab_arena *a = &w.arenas[0];
    CHECK_EQ(fab_arena_take(a, 1), 0);
    uint64_t loan = (uint64_t)fab_arena_lend(a, 0, 8, 100, 1);
    struct fab_peer *reader = w.peers[1];
    CHECK_EQ(fab_loan_hold(reader, 3, loan, 8, 100, 64), -EINVAL);
    CHECK_EQ(fab_loan_hold(reader, UINT32_MAX, loan, 8, 100, 64), -EINVAL);
    CHECK_EQ(fab_loan_hold(reader, 1, loan, 8, 100, 64), -EINVAL);
    CHECK_EQ(fab_loan_hold(reader, 0, loan + 1, 8, 100, 64), -EINVAL);
    CHECK_EQ(fab_loan_hold(reader, 0, loan | UINT32_MAX, 8, 100, 64), -EINVAL);
    CHECK_EQ(fab_loan_hold(reader, 0, loan & UINT32_MAX, 8, 100, 64), -EINVAL);
    CHECK_EQ(fab_loan_hold(reader, 0, UINT64_MAX, 8, 100, 64), -EINVAL);
    CHECK_EQ(fab_loan_hold(reader, 0, loan, 0, 100, 64), -EINVAL);
    CHECK_EQ(fab_loan_hold(reader, 0, loan, 8, 101, 64), -EINVAL);
    CHECK_EQ(fab_loan_hold(w.peers[2], 0, loan, 8, 100, 64), -EINVAL);
    CHECK_EQ(fab_loan_hold(reader, 0, loan, 8, 100, 64), 0);
    /* the owner's table itself says what cannot be */
    atomic_store(&a->loans[0].bytes, 9 * FAB_PAGE);
    CHECK_EQ(fab_loan_hold(reader, 0, loan, 8, 9 * FAB_PAGE, 64), -EINVAL);
    atomic_store(&a->loans[0].offset, 0 - UINT64_C(8));
    CHECK_EQ(fab_loan_hold(reader, 0, loan, 0 - UINT64_C(8), 16, 64), -EINVAL);
    fab_loan_done(reader, 3, loan);
    fab_loan_done(reader, 0, UINT64_MAX);
    fab_loan_done(reader, 0, 0);
    arena_world_close(&w);
}

/* Whatever stands in our table, or in a record: only what agrees, and can be, is kept. */
static void a_successor_believes_neither_its_table_nor_a_record(void) {
    const struct fab_lent_entry spoilt[] = {
        {0, 0, 9 * FAB_PAGE, 0},            /* more than the arena */
        {0, 8 * FAB_PAGE, 1, 0},            /* behind it */
        {0, 0 - UINT64_C(8), 16, 0},        /* past 2^64 */
        {0, UINT64_C(1) << 50, FAB_PAGE, 0} /* far behind it */
    };
    struct arena_world w;
    for (uint32_t i = 0; i < 5; i++) {
        arena_world_open(&w, 8, 16);
        struct fab_arena *a = &w.arenas[0];
        CHECK_EQ(fab_arena_take(a, 1), 0);
        struct fab_lent_entry entry = {.loan = (uint64_t)fab_arena_lend(a, 0, 0, 100, 1), .bytes = 100};
        if (i < 4) {
            atomic_store(&a->loans[0].offset, spoilt[i].offset);
            atomic_store(&a->loans[0].bytes, spoilt[i].bytes);
            entry.offset = spoilt[i].offset;
            entry.bytes = spoilt[i].bytes;
        } else {
            entry.offset = 8; /* not what the table says: nobody could ever hold it */
        }
        arena_send(w.peers[0], 1, &entry, 1);
        arena_replace(&w, 0);
        CHECK_EQ(arena_usage(a, 3), 0);
        CHECK_EQ(arena_usage(a, 2), 8 * FAB_PAGE);
        arena_world_close(&w);
    }
}

/* A list that claims more entries than its record has, and a record too short for a list. */
static void a_record_that_lies_about_its_length_is_read_as_far_as_it_goes(void) {
    struct arena_world w;
    arena_world_open(&w, 8, 16);
    struct fab_arena *a = &w.arenas[0];
    CHECK_EQ(fab_arena_take(a, 1), 0);
    struct {
        struct fab_lent_list list;
        struct fab_lent_entry entry;
    } body = {{UINT32_MAX, 0}, {.loan = (uint64_t)fab_arena_lend(a, 0, 0, 100, 1), .bytes = 100}};
    struct fab_record r = {.kind = ARENA_KIND, .encoding = FAB_LENT};
    for (r.size = 0; r.size < sizeof body; r.size++)
        CHECK_EQ(fab_peer_send(w.peers[0], 1, &r, &body), 1);
    arena_replace(&w, 0);
    CHECK_EQ(arena_usage(a, 3), 0);
    CHECK_EQ(fab_arena_take(a, 1), 0);
    body.entry.loan = (uint64_t)fab_arena_lend(a, 0, 0, 100, 1);
    r.size = sizeof body;
    CHECK_EQ(fab_peer_send(w.peers[0], 2, &r, &body), 1);
    arena_replace(&w, 0);
    CHECK_EQ(arena_usage(a, 3), 1);
    arena_world_close(&w);
}

static void who_waits_for_the_arena_is_rung(void) {
    struct arena_world w;
    arena_world_open(&w, 8, 16);
    CHECK_EQ(fab_arena_take(&w.arenas[0], 1), 0);
    uint64_t loan = (uint64_t)fab_arena_lend(&w.arenas[0], 0, 0, 1, 1);
    CHECK_EQ(fab_loan_hold(w.peers[1], 0, loan, 0, 1, 64), 0);
    CHECK_EQ(fab_peer_has_reason(w.peers[0], FAB_WAITS_ARENA), 0);
    CHECK_EQ(fab_peer_arm(w.peers[0], FAB_WAITS_ARENA), 0);
    fab_loan_done(w.peers[1], 0, loan);
    CHECK_EQ(fab_doorbell_clear(w.bells[0]), 1);
    CHECK_EQ(fab_peer_has_reason(w.peers[0], FAB_WAITS_ARENA), 1);
    CHECK_EQ(fab_peer_arm(w.peers[0], FAB_WAITS_ARENA), 1);
    CHECK_EQ(fab_arena_reclaim(&w.arenas[0], 0), 1);
    CHECK_EQ(fab_peer_arm(w.peers[0], FAB_WAITS_ARENA), 0);
    fab_peer_disarm(w.peers[0]);
    arena_world_close(&w);
}

static void a_process_without_an_arena_has_none(void) {
    struct arena_world w;
    struct fab_arena a;
    arena_world_open(&w, 0, 0);
    CHECK_EQ(fab_arena_open(&a, w.peers[0]), -EINVAL);
    CHECK_EQ(fab_peer_has_reason(w.peers[0], FAB_WAITS_ARENA), 0);
    CHECK_EQ(fab_loan_adopt(w.peers[1]), 0);
    CHECK_EQ(fab_loan_hold(w.peers[1], 0, UINT64_C(1) << 32, 0, 1, 64), -EINVAL);
    fab_loan_done(w.peers[1], 0, UINT64_C(1) << 32);
    arena_world_close(&w);
}

static const struct check_test tests[] = {
    TEST(sizes_are_whole_pages_and_what_cannot_be_is_refused),
    TEST(a_block_lives_until_its_last_reference),
    TEST(fresh_memory_is_taken_only_as_allowed_and_resident_memory_first),
    TEST(what_was_freed_last_is_taken_first),
    TEST(the_last_run_of_a_class_is_found_too),
    TEST(trim_gives_back_the_largest_runs_and_no_more_than_is_over),
    TEST(a_loan_ends_when_its_reader_is_done),
    TEST(a_loan_that_was_never_sent_is_ended_by_its_owner),
    TEST(loans_run_out_and_come_back),
    TEST(a_look_at_all_loans_misses_none),
    TEST(generations_wrap_past_0),
    TEST(what_does_not_lie_in_its_block_is_not_lent),
    TEST(a_descriptor_that_is_not_what_the_owner_wrote_is_refused),
    TEST(a_successor_believes_neither_its_table_nor_a_record),
    TEST(a_record_that_lies_about_its_length_is_read_as_far_as_it_goes),
    TEST(who_waits_for_the_arena_is_rung),
    TEST(a_process_without_an_arena_has_none),
};

int main(void) {
    return CHECK_RUN(tests, 30);
}
