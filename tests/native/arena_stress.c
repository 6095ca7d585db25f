/* SPDX-License-Identifier: MIT */
/*
 * arena_stress.c - an owner and a reader in two threads, a small arena, payloads lent and given back; both die often.
 *
 *   owner                                        reader
 *   take, write payload n, lend, send n  ──────▶ hold, compare every word, commit, done with it some records later
 *   no memory: sleep for FAB_WAITS_ARENA ◀────── done
 *   now and then: a successor opens the arena    now and then: a successor adopts the receipts
 *
 * A payload that is written over while somebody may still read it is a data race: ThreadSanitizer sees a weakened
 * L order here (scripts/mutate-ordering). A wake-up that is lost is counted as an alarm, and fails the test.
 */
#include "arena_world.h"

#include <pthread.h>
#include <sched.h>

#define PAGES 8u
#define LOANS 6u
#define OWNER 1u
#define READER 2u
#define MOST_HELD 4u
#if defined(__SANITIZE_THREAD__)
#define MESSAGES 6000u
#else
#define MESSAGES 40000u
#endif
#define MOST_NS (INT64_C(8) * 1000000000)

struct stress {
    struct arena_world w;
    _Atomic(uint64_t) messages; /* how many there will be; relaxed: orders nothing else */
};

static uint64_t payload_words(uint64_t n) {
    return 1 + n * 37 % (2 * FAB_PAGE / 8);
}

/* Sleep until a reader is done with something. */
static void await_arena(struct fab_peer *s) {
    CHECK(fab_peer_wait(s, FAB_WAITS_ARENA, -1, -1) >= 0);
}

static uint64_t take(struct stress *s, uint64_t bytes) {
    struct fab_arena *a = &s->w.arenas[OWNER];
    int64_t at;
    while ((at = fab_arena_take(a, bytes)) == -ENOSPC)
        await_arena(s->w.peers[OWNER]);
    CHECK(at >= 0);
    return (uint64_t)at;
}

static uint64_t lend(struct stress *s, uint64_t offset, uint64_t bytes) {
    struct fab_arena *a = &s->w.arenas[OWNER];
    int64_t loan;
    while ((loan = fab_arena_lend(a, offset, offset, bytes, READER)) == -ENOSPC)
        await_arena(s->w.peers[OWNER]);
    CHECK(loan > 0);
    CHECK_EQ(fab_arena_drop(a, offset), 0);
    return (uint64_t)loan;
}

static void *own(void *arg) {
    struct stress *s = arg;
    uint64_t seed = 3;
    uint64_t n = 0;
    for (int64_t start = fab_now(); n < MESSAGES && fab_now() - start < MOST_NS; n++) {
        uint64_t words = payload_words(n);
        struct fab_lent_entry entry = {.offset = take(s, 8 * words), .bytes = 8 * words};
        uint64_t *payload = (uint64_t *)(void *)(s->w.arenas[OWNER].data + entry.offset);
        for (uint64_t i = 0; i < words; i++)
            payload[i] = n * 1000003 + i;
        entry.loan = lend(s, entry.offset, entry.bytes);
        while (fab_producer_room(&s->w.peers[OWNER]->out[READER], UINT64_MAX) < 256)
            await_arena(s->w.peers[OWNER]);  /* at most one more second */
        if (fixture_below(&seed, 50) == 0) { /* it dies, and its loan was never sent: that is sent again */
            fab_arena_close(&s->w.arenas[OWNER]);
            arena_attach(&s->w, OWNER);
            n--;
            continue;
        }
        arena_send(s->w.peers[OWNER], READER, &entry, 1);
    }
    atomic_store_explicit(&s->messages, n, memory_order_relaxed);
    return NULL;
}

struct held {
    struct {
        struct fab_lent_entry entry;
        uint64_t n;
    } loans[MOST_HELD];
    uint32_t count;
};

static void check_payload(const struct stress *s, const struct fab_lent_entry *entry, uint64_t n) {
    const struct fab_header *h = &s->w.header;
    const uint8_t *arena = s->w.whole + fab_block_offset(h, OWNER) + fab_arena_offset(h, OWNER);
    const uint64_t *payload = (const uint64_t *)(const void *)(arena + entry->offset);
    CHECK_EQ(entry->bytes, 8 * payload_words(n));
    for (uint64_t i = 0; i < entry->bytes / 8; i++)
        CHECK_EQ(payload[i], n * 1000003 + i);
}

/* Look once more, as views are used long after their record is committed; and be done. */
static void return_some(struct stress *s, struct held *held, uint32_t keep) {
    while (held->count > keep) {
        held->count--;
        check_payload(s, &held->loans[held->count].entry, held->loans[held->count].n);
        fab_loan_done(s->w.peers[READER], OWNER, held->loans[held->count].entry.loan);
    }
}

/* Take up record n, and look at its payload. */
static void read_one(struct stress *s, const struct fab_columns *cols, uint64_t n, struct held *held) {
    struct fab_lent_entry entry;
    struct fab_peer *reader = s->w.peers[READER];
    memcpy(&entry, reader->in[OWNER].data + cols->start + cols->starts[0] + sizeof(struct fab_lent_list),
           sizeof entry);
    CHECK_EQ(fab_loan_hold(reader, OWNER, entry.loan, entry.offset, entry.bytes, cols->end), 0);
    check_payload(s, &entry, n);
    held->loans[held->count].entry = entry;
    held->loans[held->count++].n = n;
}

static void read_all(struct stress *s) {
    static struct fab_columns cols;
    struct held held = {.count = 0};
    uint64_t seed = 4;
    for (uint64_t n = 0; n < atomic_load_explicit(&s->messages, memory_order_relaxed);) {
        struct fab_peer *reader = s->w.peers[READER];
        if (fab_peer_receive(reader, 1, UINT64_MAX, &cols) < 0) {
            return_some(s, &held, 0);
            fab_peer_wait(reader, FAB_WAITS_MESSAGES, -1, 2000000);
            continue;
        }
        read_one(s, &cols, n, &held);
        if (fixture_below(&seed, 50) == 0) { /* it dies before it commits: the record comes again */
            fab_arena_close(&s->w.arenas[READER]);
            arena_attach(&s->w, READER);
            fab_loan_adopt(s->w.peers[READER]);
            held.count = 0;
            continue;
        }
        fab_peer_commit(reader, OWNER, cols.end);
        n++;
        return_some(s, &held, fixture_below(&seed, MOST_HELD));
    }
    return_some(s, &held, 0);
}

static void payloads_stay_until_their_reader_is_done_and_then_come_back(void) {
    static struct stress s;
    pthread_t owner;
    arena_world_open(&s.w, PAGES, LOANS);
    atomic_init(&s.messages, UINT64_MAX);
    CHECK_EQ(pthread_create(&owner, NULL, own, &s), 0);
    read_all(&s);
    CHECK_EQ(pthread_join(owner, NULL), 0);
    fab_arena_reclaim(&s.w.arenas[OWNER], 0);
    CHECK_EQ(arena_usage(&s.w.arenas[OWNER], 0), 0);
    CHECK_EQ(arena_usage(&s.w.arenas[OWNER], 3), 0);
    arena_world_close(&s.w);
}

/* Lend, hold, give back and reclaim, all in one thread. */
static void *turn_over(void *arg) {
    struct stress *s = arg;
    struct fab_arena *a = &s->w.arenas[OWNER];
    for (uint32_t n = 0; n < MESSAGES; n++) {
        uint64_t loans[3];
        uint64_t at = (uint64_t)fab_arena_take(a, 1);
        for (int i = 0; i < 3; i++)
            loans[i] = (uint64_t)fab_arena_lend(a, at, at, 1, READER);
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(fab_loan_hold(s->w.peers[READER], OWNER, loans[i], at, 1, FAB_KEPT), 0);
            fab_loan_done(s->w.peers[READER], OWNER, loans[i]);
        }
        CHECK_EQ(fab_arena_drop(a, at), 0);
        CHECK_EQ(fab_arena_reclaim(a, 0), 3);
        if (n % 64 == 0)
            sched_yield();
    }
    atomic_store_explicit(&s->messages, 0, memory_order_relaxed);
    return NULL;
}

static void one_thread_may_wait_for_an_arena_that_another_uses(void) {
    static struct stress s;
    pthread_t owner;
    uint64_t seen = 0;
    arena_world_open(&s.w, PAGES, LOANS);
    atomic_init(&s.messages, 1);
    CHECK_EQ(pthread_create(&owner, NULL, turn_over, &s), 0);
    while (atomic_load_explicit(&s.messages, memory_order_relaxed) != 0)
        seen += (uint64_t)fab_peer_has_reason(s.w.peers[OWNER], FAB_WAITS_ARENA);
    CHECK_EQ(pthread_join(owner, NULL), 0);
    printf("(%llu times) ", (unsigned long long)seen);
    CHECK_EQ(fab_peer_has_reason(s.w.peers[OWNER], FAB_WAITS_ARENA), 0);
    arena_world_close(&s.w);
}

static const struct check_test tests[] = {TEST(one_thread_may_wait_for_an_arena_that_another_uses),
                                          TEST(payloads_stay_until_their_reader_is_done_and_then_come_back)};

int main(void) {
    return CHECK_RUN(tests, 60);
}
