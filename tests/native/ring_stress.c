/* SPDX-License-Identifier: MIT */
/*
 * ring_stress.c - one producer thread, one consumer thread, a small ring, millions of records.
 *
 * On a machine whose cores are busy otherwise each full or empty ring costs a time slice: what has not
 * been sent after some seconds is left out.
 *
 * Record n has a size, a kind and a content that follow from n alone, so the consumer checks the count,
 * the order and every byte. ThreadSanitizer sees a weakened P or C order here (scripts/mutate-ordering).
 */
#include "fixture.h"

#include <pthread.h>
#include <sched.h>

#define BYTES 8192u
#if defined(__SANITIZE_THREAD__)
#define RECORDS 200000u
#elif defined(__SANITIZE_ADDRESS__)
#define RECORDS 1000000u
#else
#define RECORDS 2000000u
#endif

#define MOST_NS (INT64_C(8) * 1000000000)

struct stress {
    struct fixture_lane lane;
    _Atomic(uint64_t) records; /* how many there will be; relaxed throughout: orders nothing else */
};

static uint64_t mix(uint64_t n) {
    uint64_t state = n * UINT64_C(0x9e3779b97f4a7c15) + 1;
    return fixture_random(&state);
}

static uint32_t body_bytes(uint64_t n) { /* mostly small; one in 64 up to what the ring takes */
    uint64_t random = mix(n);
    return (uint32_t)(random >> 32) % ((random & 63) == 0 ? BYTES / 2 - 48 + 1 : 160);
}

static uint16_t kind(uint64_t n) { /* changes every eight records or so */
    return (uint16_t)(7 + mix(n / 8) % 3);
}

static struct fab_record header(uint64_t n) {
    return (struct fab_record){.size = body_bytes(n),
                               .kind = kind(n),
                               .encoding = (uint8_t)(n % 3),
                               .flags = (uint8_t)(n % 251),
                               .target = n,
                               .sender = ~n,
                               .correlation = n * 5,
                               .sent_at = n * 7};
}

/* Now and then let the other side run full or empty. */
static void pause_at_times(uint64_t *seed) {
    if (fixture_below(seed, 400) != 0)
        return;
    for (uint32_t pause = fixture_below(seed, 10000); pause > 0; pause--)
        fab_cpu_relax();
}

/* Write and publish all records in batches of a random size. */
static void *produce(void *arg) {
    static uint8_t body[BYTES];
    struct stress *s = arg;
    struct fab_producer *p = &s->lane.p;
    uint64_t seed = 1;
    uint64_t n = 0;
    for (int64_t start = fab_now(); n < RECORDS && fab_now() - start < MOST_NS;) {
        for (uint32_t batch = 1 + fixture_below(&seed, 40); batch > 0 && n < RECORDS; batch--) {
            struct fab_record r = header(n);
            fixture_fill(body, n, r.size);
            int rc = fab_producer_put(p, &r, body);
            CHECK(rc >= 0);
            if (rc == 0)
                break; /* full: publish what there is */
            n++;
        }
        fab_producer_publish(p);
        pause_at_times(&seed);
        if (atomic_load_explicit(&p->starved_at, memory_order_relaxed) != 0)
            sched_yield();
    }
    atomic_store_explicit(&s->records, n, memory_order_relaxed);
    return NULL;
}

static void check_run_of(const struct fixture_lane *l, uint64_t first) {
    const struct fab_columns *cols = &l->cols;
    uint32_t flags = 0;
    CHECK(cols->start + cols->bytes <= BYTES);
    for (uint32_t i = 0; i < cols->count; i++) {
        uint64_t n = first + i;
        struct fab_record r;
        const uint8_t *body = l->data + cols->start + cols->starts[i];
        memcpy(&r, body - sizeof r, sizeof r);
        CHECK(r.sequence == n && r.sent_at == n * 7 && r.flags == n % 251);
        CHECK(cols->targets[i] == n && cols->senders[i] == ~n && cols->correlations[i] == n * 5);
        CHECK_EQ(cols->encodings[i], n % 3);
        CHECK_EQ(cols->kind, kind(n));
        CHECK_EQ(cols->ends[i] - cols->starts[i], body_bytes(n));
        fixture_check_body(body, n, body_bytes(n));
        flags |= r.flags;
    }
    CHECK_EQ(cols->flags, flags);
}

/* Read all records in runs of a random size; hand them back at random, and when nothing else comes. */
static void consume(struct stress *s) {
    struct fixture_lane *l = &s->lane;
    uint64_t seed = 2;
    for (uint64_t n = 0; n < atomic_load_explicit(&s->records, memory_order_relaxed);) {
        uint32_t most = 1 + fixture_below(&seed, 60);
        uint32_t count = fab_consumer_peek(&l->c, most, fixture_below(&seed, BYTES), &l->cols);
        CHECK(count <= most && l->c.dropped_bytes == 0 && l->c.broken == 0);
        check_run_of(l, n);
        n += count;
        if (count == 0 || fixture_below(&seed, 3) == 0)
            fab_consumer_commit(&l->c, l->cols.end);
        pause_at_times(&seed);
        if (count == 0)
            sched_yield();
    }
    fab_consumer_commit(&l->c, l->cols.end);
}

static void all_records_arrive_in_order_and_whole(uint64_t at) {
    static struct stress s;
    pthread_t producer;
    fixture_lane_open(&s.lane, FIXTURE_GUARDED, BYTES, at);
    atomic_init(&s.records, UINT64_MAX);
    CHECK_EQ(pthread_create(&producer, NULL, produce, &s), 0);
    consume(&s);
    CHECK_EQ(pthread_join(producer, NULL), 0);
    CHECK_EQ(s.lane.p.sequence, atomic_load(&s.records));
    CHECK_EQ(fab_consumer_ready(&s.lane.c), 0);
    CHECK_EQ(atomic_load(&s.lane.head), atomic_load(&s.lane.tail));
    fixture_lane_close(&s.lane);
}

static void all_records_arrive_when_the_counters_start_at_0(void) {
    all_records_arrive_in_order_and_whole(0);
}

static void all_records_arrive_when_the_counters_pass_2_to_the_64(void) {
    all_records_arrive_in_order_and_whole(0 - (uint64_t)3 * BYTES - 16);
}

static const struct check_test tests[] = {
    TEST(all_records_arrive_when_the_counters_start_at_0),
    TEST(all_records_arrive_when_the_counters_pass_2_to_the_64),
};

int main(void) {
    return CHECK_RUN(tests, 60);
}
