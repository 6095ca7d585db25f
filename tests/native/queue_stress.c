/* SPDX-License-Identifier: MIT */
/*
 * queue_stress.c - threads that put and get at once, for ThreadSanitizer: it sees an order that is too weak as a
 * race for the bytes of records.
 *
 *   streaming    no limit, never empty: round the ring some times
 *   waiting      few items at a time: everybody sleeps and is woken; no bell may fail to come
 *
 * Count, content and the order of each producer are checked by the consumers.
 */
#include "queue_world.h"

#include <pthread.h>

#define ENDS 2 /* producers, and consumers */
#define STREAMED 20000u
#define WAITED 4000u
#define BODY 200u /* at most */

struct stress {
    struct fab_queue *q;
    uint32_t each;
    uint32_t number; /* of this thread */
    int64_t deadline;
    uint64_t got;
    uint64_t seen[ENDS];
};

static void body_of(uint8_t *body, uint64_t producer, uint64_t n, uint64_t size) {
    fixture_fill(body, producer + n, size);
    memcpy(body, &producer, 8);
    memcpy(body + 8, &n, 8);
}

static uint64_t size_of(uint64_t n) {
    return 16 + n % (BODY - 16);
}

static void *produce(void *arg) {
    struct stress *s = arg;
    uint8_t bytes[8 * BODY];
    uint64_t sizes[8];
    for (uint64_t n = 0; n < s->each;) {
        struct fab_queue_batch batch = {.bytes = bytes, .sizes = sizes, .encoding = 1};
        uint8_t *at = bytes;
        for (; batch.count < 1 + n % 8 && n + batch.count < s->each; batch.count++) {
            sizes[batch.count] = size_of(n + batch.count);
            body_of(at, s->number, n + batch.count, sizes[batch.count]);
            at += sizes[batch.count];
        }
        int32_t rc = fab_queue_put_many(s->q, &batch, s->deadline);
        CHECK(rc > 0 || rc == -ENOBUFS || rc == -EBUSY);
        n += rc > 0 ? (uint64_t)rc : 0;
        if (rc == -ENOBUFS)
            sched_yield();
    }
    return NULL;
}

static void *consume(void *arg) {
    struct stress *s = arg;
    uint8_t wanted[BODY];
    struct fab_queue_taken taken = {.room = 8 * BODY, .bytes = malloc(8 * BODY)};
    for (;;) {
        int32_t rc = fab_queue_get_many(s->q, &taken, 1 + (uint32_t)s->got % 5, FAB_QUEUE_FOR_EVER);
        if (rc == -ESHUTDOWN)
            break;
        if (rc == -EBUSY)
            continue;
        CHECK(rc > 0);
        const uint8_t *at = taken.bytes;
        for (int32_t i = 0; i < rc; i++) {
            uint64_t producer;
            uint64_t n;
            memcpy(&producer, at, 8);
            memcpy(&n, at + 8, 8);
            CHECK(producer < ENDS);
            CHECK(n + 1 > s->seen[producer]);
            s->seen[producer] = n + 1;
            CHECK_EQ(taken.sizes[i], size_of(n));
            body_of(wanted, producer, n, size_of(n));
            CHECK_EQ(memcmp(at, wanted, size_of(n)), 0);
            at += taken.sizes[i];
        }
        s->got += (uint64_t)rc;
    }
    free(taken.bytes);
    return NULL;
}

static void run(uint32_t maxsize, uint32_t each, int64_t spin_ns) {
    struct queue_world w = {0};
    struct stress ends[2 * ENDS] = {0};
    pthread_t threads[2 * ENDS];
    uint64_t got = 0;
    queue_world_open(&w, QUEUE_RING, maxsize);
    fab_queue_tune(&w.q, spin_ns);
    for (uint32_t i = 0; i < 2 * ENDS; i++) {
        int forever = maxsize != FAB_QUEUE_MOST_ITEMS;
        ends[i] = (struct stress){.q = &w.q, .each = each, .number = i % ENDS};
        ends[i].deadline = forever ? FAB_QUEUE_FOR_EVER : FAB_QUEUE_NO_WAIT;
        CHECK_EQ(pthread_create(&threads[i], NULL, i < ENDS ? produce : consume, &ends[i]), 0);
    }
    for (uint32_t i = 0; i < ENDS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    while (fab_queue_shutdown(&w.q, 0) != 0)
        ;
    for (uint32_t i = ENDS; i < 2 * ENDS; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
        got += ends[i].got;
    }
    CHECK_EQ(got, (uint64_t)ENDS * each);
    CHECK_EQ(fab_queue_size(&w.q), 0);
    CHECK_EQ(w.q.alarms, 0);
    queue_world_close(&w);
}

static void streaming(void) {
    run(FAB_QUEUE_MOST_ITEMS, STREAMED, 0);
}

static void waiting(void) {
    run(1, WAITED, 0);
    run(3, WAITED, 0);
    run(3, WAITED, 20000);
}

int main(void) {
    static const struct check_test tests[] = {TEST(streaming), TEST(waiting)};
    return CHECK_RUN(tests, 120);
}
