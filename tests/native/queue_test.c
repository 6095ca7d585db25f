/* SPDX-License-Identifier: MIT */
/* queue_test.c - one process, no waiting: records at all edges of ring and counters, memory, garbage. */
#include "queue_world.h"

#define FREE FAB_QUEUE_MOST_ITEMS

static void what_is_put_is_got_whatever_its_size(void) {
    struct queue_world w = {0};
    queue_world_open(&w, QUEUE_RING, FREE);
    for (uint64_t size = 0; size < 100; size++)
        CHECK_EQ(queue_put(&w, size, size), 1);
    CHECK_EQ(fab_queue_size(&w.q), 100);
    for (uint64_t size = 0; size < 100; size++)
        queue_get(&w, size, size);
    CHECK_EQ(fab_queue_get(&w.q, &w.taken, FAB_QUEUE_NO_WAIT), -EAGAIN);
    queue_world_close(&w);
}

/* Positions and counts wrap, at every place of the ring. */
static void counters_may_wrap_anywhere(void) {
    struct queue_world w = {0};
    queue_world_open(&w, QUEUE_RING, FREE);
    for (uint64_t back = 0; back < 40; back++) {
        queue_set(&w, UINT64_C(0) - back, UINT32_C(0) - (uint32_t)back, back % 7);
        for (uint64_t n = 0; n < 30; n++)
            CHECK_EQ(queue_put(&w, n, n * 3), 1);
        CHECK_EQ(fab_queue_size(&w.q), 30);
        CHECK_EQ(fab_queue_unfinished(&w.q), 30);
        for (uint64_t n = 0; n < 30; n++)
            queue_get(&w, n, n * 3);
    }
    queue_world_close(&w);
}

/* A record that does not fit before the end lies at the beginning; with 0 to 40 units left before the end. */
static void a_record_that_does_not_fit_before_the_end_lies_at_the_beginning(void) {
    struct queue_world w = {0};
    queue_world_open(&w, QUEUE_RING, FREE);
    for (uint64_t left = 0; left < 40; left++) {
        queue_set(&w, QUEUE_RING / FAB_QUEUE_UNIT - left, 0, 0);
        atomic_store(&w.q.shared->fresh, QUEUE_RING);
        CHECK_EQ(queue_put(&w, 0, 5), 1); /* not empty: it must not rewind */
        for (uint64_t n = 1; n < 20; n++) {
            CHECK_EQ(queue_put(&w, n, 90), 1);
            CHECK_EQ(queue_put(&w, n, 0), 1);
        }
        queue_get(&w, 0, 5);
        for (uint64_t n = 1; n < 20; n++) {
            queue_get(&w, n, 90);
            queue_get(&w, n, 0);
        }
    }
    queue_world_close(&w);
}

static void a_ring_that_is_full_takes_no_more_and_keeps_what_it_has(void) {
    struct queue_world w = {0};
    queue_world_open(&w, QUEUE_RING, FREE);
    for (int lap = 0; lap < 5; lap++) {
        uint64_t put = 0;
        while (queue_put(&w, put, 1000 + put % 50) == 1)
            put++;
        CHECK_EQ(queue_put(&w, put, 2000), -ENOBUFS);
        CHECK(put > (QUEUE_RING - QUEUE_RING / 8 - FAB_QUEUE_DATA) / 1100);
        for (uint64_t n = 0; n < put; n++)
            queue_get(&w, n, 1000 + n % 50);
    }
    queue_world_close(&w);
}

static void a_limit_on_items_is_exact(void) {
    struct queue_world w = {0};
    struct fab_queue_batch batch = {.bytes = (const uint8_t *)"abcdefgh", .uniform = 1, .count = 8};
    queue_world_open(&w, QUEUE_RING, 5);
    CHECK_EQ(fab_queue_put_many(&w.q, &batch, FAB_QUEUE_NO_WAIT), 5);
    CHECK_EQ(fab_queue_put_many(&w.q, &batch, FAB_QUEUE_NO_WAIT), -EAGAIN);
    CHECK_EQ(fab_queue_put_many(&w.q, &batch, fab_now() + 1000000), -EAGAIN);
    CHECK_EQ(fab_queue_get_many(&w.q, &w.taken, 2, FAB_QUEUE_NO_WAIT), 2);
    CHECK_EQ(w.taken.bytes[0] << 8 | w.taken.bytes[1], 'a' << 8 | 'b');
    CHECK_EQ(fab_queue_put_many(&w.q, &batch, FAB_QUEUE_NO_WAIT), 2);
    CHECK_EQ(fab_queue_size(&w.q), 5);
    queue_world_close(&w);
}

static void an_item_larger_than_the_room_stays_and_says_how_large(void) {
    struct queue_world w = {0};
    queue_world_open(&w, QUEUE_RING, FREE);
    CHECK_EQ(queue_put(&w, 1, 300), 1);
    CHECK_EQ(queue_put(&w, 2, 100), 1);
    w.taken.room = 299;
    CHECK_EQ(fab_queue_get(&w.q, &w.taken, FAB_QUEUE_NO_WAIT), -EMSGSIZE);
    CHECK_EQ(w.taken.used, 300);
    CHECK_EQ(fab_queue_get_many(&w.q, &w.taken, 2, FAB_QUEUE_NO_WAIT), -EMSGSIZE);
    w.taken.room = 399;
    CHECK_EQ(fab_queue_get_many(&w.q, &w.taken, 2, FAB_QUEUE_NO_WAIT), 1);
    queue_get(&w, 2, 100);
    queue_world_close(&w);
}

/* Never empty, so never rewound: through 16 MiB, with 100 kB in it. */
static void memory_is_given_back_behind_head(void) {
    struct queue_world w = {0};
    uint64_t most = 0;
    uint64_t put = 0;
    queue_world_open(&w, UINT64_C(8) << 20, FREE);
    for (; put < 100; put++)
        CHECK_EQ(queue_put(&w, put, 1000), 1);
    for (; put < 16 * 1024; put++) {
        CHECK_EQ(queue_put(&w, put, 1000), 1);
        queue_get(&w, put - 100, 1000);
        uint64_t memory = put % 64 == 0 ? queue_memory(&w) : 0;
        most = memory > most ? memory : most;
    }
    CHECK(most > fab_queue_warm(&w.q));
    CHECK(most < fab_queue_warm(&w.q) + 2 * FAB_QUEUE_FREE_BYTES + 2 * FAB_QUEUE_STEP_BYTES + FAB_QUEUE_DATA);
    queue_world_close(&w);
}

/* A backlog of 40 MB is consumed; what is kept is the warm part, and the next put lies at its beginning. */
static void a_backlog_leaves_little_and_the_queue_begins_anew(void) {
    struct queue_world w = {0};
    queue_world_open(&w, UINT64_C(64) << 20, FREE);
    for (int round = 0; round < 2; round++) {
        for (uint64_t n = 0; n < 400; n++)
            CHECK_EQ(queue_put(&w, n, 100000), 1);
        CHECK(queue_memory(&w) > 40000000);
        for (uint64_t n = 0; n < 400; n++)
            queue_get(&w, n, 100000);
        CHECK(queue_memory(&w) < fab_queue_warm(&w.q) + FAB_QUEUE_FREE_BYTES + (UINT64_C(1) << 20));
        CHECK_EQ(queue_put(&w, 7, 5000), 1);
        CHECK(queue_memory(&w) <= fab_queue_warm(&w.q) + FAB_QUEUE_STEP_BYTES + FAB_QUEUE_DATA);
        queue_get(&w, 7, 5000);
        CHECK(fab_queue_offset(&w.q, fab_queue_position(atomic_load(&w.q.shared->head))) < 1000);
    }
    queue_world_close(&w);
}

/* Backlogs that grow and shrink at random: tail goes back to the beginning, and what was put comes. */
static void laps_may_end_anywhere(void) {
    struct queue_world w = {0};
    static uint32_t sizes[1 << 16];
    static const uint32_t biases[8] = {50, 50, 95, 95, 5, 55, 95, 5};
    uint64_t put = 0, got = 0, live = 0, most = 0, backs = 0, full = 0, seed = 11;
    queue_world_open(&w, QUEUE_RING * 4, FREE);
    for (int step = 0; step < 20000; step++) {
        uint32_t bias = biases[step / 400 % 8]; /* in a hundred steps, puts */
        uint64_t tail = atomic_load(&w.q.shared->tail);
        uint64_t before = fab_queue_offset(&w.q, fab_queue_position(tail));
        uint64_t base = atomic_load(&w.q.shared->base);
        if (put == got || (fixture_below(&seed, 100) < bias && put - got < 60000)) {
            uint32_t size = fixture_below(&seed, fixture_below(&seed, 20) == 0 ? 90000 : 900);
            int32_t rc = queue_put(&w, put, size);
            if (rc == 1) {
                sizes[put++ & 0xffff] = size;
                live += 16 * fab_queue_span(size);
                uint64_t offset = fab_queue_offset(&w.q, fab_queue_position(atomic_load(&w.q.shared->tail)));
                backs += offset < before && base == atomic_load(&w.q.shared->base);
                continue;
            }
            CHECK_EQ(rc, -ENOBUFS);
            CHECK(live > w.q.ring_bytes / 4);
            full++;
        }
        uint64_t n = got++;
        queue_get(&w, n, sizes[n & 0xffff]);
        live -= 16 * fab_queue_span(sizes[n & 0xffff]);
        most = queue_memory(&w) > most + live ? queue_memory(&w) - live : most;
    }
    CHECK(backs > 2 && full > 0);
    CHECK(most < fab_queue_warm(&w.q) + 8 * FAB_QUEUE_STEP_BYTES + FAB_QUEUE_FREE_BYTES);
    queue_world_close(&w);
}

static uint64_t tail_offset(struct queue_world *w) {
    return fab_queue_offset(&w->q, fab_queue_position(atomic_load(&w->q.shared->tail)));
}

/* Right after tail has gone back, nobody gets any more: it fills what is free, jumps over, and goes on to the end. */
static void a_queue_that_has_gone_back_takes_as_much_as_any_other(void) {
    struct queue_world w = {0};
    queue_world_open(&w, QUEUE_RING * 4, FREE);
    for (uint64_t lap = 0; lap < 8; lap++) {
        uint64_t size = 300 + 289 * lap, span = fab_queue_span(size), put = 0, got = 0, overs = 0;
        for (; put < 20 + 11 * lap; put++)
            CHECK_EQ(queue_put(&w, put, size), 1);
        for (uint64_t before = 0; before <= tail_offset(&w); got++) {
            before = tail_offset(&w);
            CHECK_EQ(queue_put(&w, put++, size), 1);
            if (before <= tail_offset(&w))
                queue_get(&w, got, size);
            else
                got--;
        }
        for (uint64_t before = tail_offset(&w); queue_put(&w, put, size) == 1;
             before = tail_offset(&w), put++)
            overs += tail_offset(&w) > before + span;
        CHECK_EQ(overs, 1);
        CHECK((put - got) * span * FAB_QUEUE_UNIT > w.q.ring_bytes * 3 / 4);
        for (; got < put; got++)
            queue_get(&w, got, size);
        CHECK(queue_memory(&w) < fab_queue_warm(&w.q) + FAB_QUEUE_FREE_BYTES + 4 * FAB_QUEUE_STEP_BYTES);
    }
    queue_world_close(&w);
}

static void no_memory_is_taken_beyond_the_allowance(void) {
    struct queue_world w = {0};
    queue_world_open(&w, UINT64_C(64) << 20, FREE);
    atomic_store(&w.q.allowance, 1 << 20);
    uint64_t put = 0;
    while (queue_put(&w, put, 5000) == 1)
        put++;
    CHECK_EQ(queue_put(&w, put, 5000), -ENOMEM);
    CHECK(queue_memory(&w) <= (1 << 20) + FAB_QUEUE_DATA);
    fab_queue_allow(&w.q, 1 << 20);
    CHECK_EQ(queue_put(&w, put, 5000), 1);
    for (uint64_t n = 0; n <= put; n++)
        queue_get(&w, n, 5000);
    queue_world_close(&w);
}

static void *hold(void *arg) {
    struct queue_world *w = arg;
    CHECK_EQ(fab_queue_lock(&w->q.shared->put_lock), 0);
    CHECK_EQ(fab_queue_lock(&w->q.shared->get_lock), 0);
    return NULL; /* and dies with them, which the kernel tells the next */
}

static void who_finds_a_lock_held_says_so_and_a_dead_holder_is_no_hindrance(void) {
    struct queue_world w = {0};
    pthread_t thread;
    queue_world_open(&w, QUEUE_RING, FREE);
    CHECK_EQ(pthread_create(&thread, NULL, hold, &w), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(queue_put(&w, 2, 10), 1);
    queue_get(&w, 2, 10);
    CHECK_EQ(fab_queue_lock(&w.q.shared->put_lock), 0);
    CHECK_EQ(queue_put(&w, 2, 10), -EBUSY); /* ours is a plain lock: who has it waits for itself */
    CHECK_EQ(fab_queue_shutdown(&w.q, 1), -EBUSY);
    fab_queue_unlock(&w.q.shared->put_lock);
    queue_world_close(&w);
}

static void a_shutdown_lets_gets_go_on_and_an_immediate_one_does_not(void) {
    struct queue_world w = {0};
    queue_world_open(&w, QUEUE_RING, FREE);
    for (uint64_t n = 0; n < 3; n++)
        CHECK_EQ(queue_put(&w, n, 10), 1);
    CHECK_EQ(fab_queue_shutdown(&w.q, 0), 0);
    CHECK_EQ(queue_put(&w, 3, 10), -ESHUTDOWN);
    queue_get(&w, 0, 10);
    CHECK_EQ(fab_queue_shutdown(&w.q, 1), 0);
    CHECK_EQ(fab_queue_shutdown(&w.q, 0), 0);
    CHECK_EQ(fab_queue_get(&w.q, &w.taken, FAB_QUEUE_FOR_EVER), -ESHUTDOWN);
    CHECK_EQ(fab_queue_size(&w.q), 0);
    CHECK_EQ(fab_queue_unfinished(&w.q), 1);
    CHECK_EQ(fab_queue_task_done(&w.q, 2), -EINVAL);
    CHECK_EQ(fab_queue_task_done(&w.q, 1), 0);
    CHECK_EQ(fab_queue_join(&w.q, FAB_QUEUE_FOR_EVER), 0);
    queue_world_close(&w);
}

static void what_is_no_queue_is_refused(void) {
    struct queue_world w = {0};
    struct fab_queue other = {0};
    queue_world_open(&w, QUEUE_RING, FREE);
    CHECK_EQ(fab_queue_open(&other, w.descriptor), 0);
    fab_queue_close(&other);
    fab_queue_close(&other);
    struct fab_queue_shared *s = w.q.shared;
#define REFUSES(field, wrong, rc)                                                                            \
    do {                                                                                                     \
        uint64_t right = s->field;                                                                           \
        s->field = (wrong);                                                                                  \
        CHECK_EQ(fab_queue_open(&other, w.descriptor), rc);                                                  \
        s->field = (__typeof__(s->field))right;                                                              \
    } while (0)
    REFUSES(magic, 7, -EBADF);
    REFUSES(version, 2, -EBADF);
    REFUSES(ring_bytes, QUEUE_RING * 2, -EINVAL);
    REFUSES(ring_bytes, QUEUE_RING - 16, -EINVAL);
    REFUSES(ring_bytes, 0, -EINVAL);
    REFUSES(file_bytes, UINT64_MAX, -EINVAL);
    REFUSES(maxsize, 0, -EINVAL);
    REFUSES(maxsize, UINT32_MAX, -EINVAL);
    REFUSES(lock_bytes, 1, -EINVAL);
    CHECK_EQ(ftruncate(w.descriptor, 100), 0);
    CHECK_EQ(fab_queue_open(&other, w.descriptor), -EBADF);
    CHECK_EQ(fab_queue_open(&other, -1), -EBADF);
    queue_world_close(&w);
}

/* Words and records at random: an error, or what looks like items, and nothing outside the ring. */
static void garbage_is_never_read_or_written_outside_the_ring(void) {
    struct queue_world w = {0};
    uint64_t seed = 7;
    queue_world_open(&w, QUEUE_RING, FREE);
    uint8_t *guarded = fixture_map(w.q.file_bytes);
    int flags = MAP_SHARED | MAP_FIXED;
    CHECK(mmap(guarded, w.q.file_bytes, PROT_READ | PROT_WRITE, flags, w.descriptor, 0) == guarded);
    fab_queue_close(&w.q);
    CHECK_EQ(fab_queue_attach(&w.q, (struct fab_queue_shared *)(void *)guarded, w.q.file_bytes), 0);
    w.taken.room = 5000;
    for (int round = 0; round < 5000; round++) {
        struct fab_queue_shared *s = w.q.shared;
        queue_set(&w, fixture_random(&seed), (uint32_t)fixture_random(&seed), fixture_random(&seed));
        atomic_store(&s->state, 0);
        atomic_store(&s->fresh, fixture_random(&seed) >> fixture_below(&seed, 64));
        for (uint64_t n = 0; n < 4; n++)
            (void)queue_put(&w, n, fixture_below(&seed, 2000));
        uint64_t at = fab_queue_offset(&w.q, fab_queue_position(atomic_load(&s->head)));
        uint64_t *words = (uint64_t *)(void *)fab_queue_at(&w.q, at);
        _Atomic(uint64_t) *victims[] = {&s->tail,  &s->head, &s->tail_seen, &s->head_seen,
                                        &s->freed, &s->base, &s->lap_end};
        uint32_t which = fixture_below(&seed, 9);
        if (which < 7)
            atomic_store(victims[which], fixture_random(&seed) >> fixture_below(&seed, 64));
        else
            words[which - 7] = fixture_random(&seed) >> fixture_below(&seed, 64);
        for (int n = 0; n < 6; n++) {
            (void)fab_queue_get_many(&w.q, &w.taken, 3, FAB_QUEUE_NO_WAIT);
            (void)queue_put(&w, 1, 100);
        }
        (void)fab_queue_size(&w.q);
        (void)fab_queue_task_done(&w.q, 1);
    }
    w.q.shared = NULL;
    fixture_unmap(guarded, w.q.file_bytes);
    queue_world_close(&w);
}

int main(void) {
    static const struct check_test tests[] = {
        TEST(what_is_put_is_got_whatever_its_size),
        TEST(counters_may_wrap_anywhere),
        TEST(a_record_that_does_not_fit_before_the_end_lies_at_the_beginning),
        TEST(a_ring_that_is_full_takes_no_more_and_keeps_what_it_has),
        TEST(a_limit_on_items_is_exact),
        TEST(an_item_larger_than_the_room_stays_and_says_how_large),
        TEST(memory_is_given_back_behind_head),
        TEST(a_backlog_leaves_little_and_the_queue_begins_anew),
        TEST(laps_may_end_anywhere),
        TEST(a_queue_that_has_gone_back_takes_as_much_as_any_other),
        TEST(no_memory_is_taken_beyond_the_allowance),
        TEST(who_finds_a_lock_held_says_so_and_a_dead_holder_is_no_hindrance),
        TEST(a_shutdown_lets_gets_go_on_and_an_immediate_one_does_not),
        TEST(what_is_no_queue_is_refused),
        TEST(garbage_is_never_read_or_written_outside_the_ring),
    };
    return CHECK_RUN(tests, 120);
}
