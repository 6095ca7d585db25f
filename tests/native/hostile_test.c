/* SPDX-License-Identifier: MIT */
/*
 * hostile_test.c - the other side writes nonsense. First each kind of nonsense by itself, then 100,000
 * rounds of a deterministic stream of it, then a header that changes while it is read.
 *
 * The consumer must not look outside the data (guard pages, AddressSanitizer), must not loop for ever
 * (SIGALRM), and must count what it drops; the producer must not write outside the data.
 */
#include "fixture.h"

#include <pthread.h>

#define BYTES 4096u
#define KIND 7u
#ifdef __SANITIZE_THREAD__
#define ROUNDS 20000
#else
#define ROUNDS 100000
#endif

static void put(struct fixture_lane *l, uint32_t bytes) {
    static const uint8_t body[BYTES];
    struct fab_record r = {.size = bytes, .kind = KIND};
    CHECK_EQ(fab_producer_put(&l->p, &r, body), 1);
    fab_producer_publish(&l->p);
}

static uint32_t peek(struct fixture_lane *l) {
    return fab_consumer_peek(&l->c, UINT32_MAX, UINT64_MAX, &l->cols);
}

static void write_header(struct fixture_lane *l, uint64_t at, uint32_t size, uint32_t kind) {
    memcpy(l->data + (at & (BYTES - 1)), &size, sizeof size);
    memcpy(l->data + (at & (BYTES - 1)) + 4, &kind, sizeof kind);
}

/* One good record of 64 bytes, one whose header is overwritten, one good. */
static void drops_the_rest_when_a_header_is(uint32_t size, uint32_t kind, uint64_t start) {
    for (enum fixture_place place = 0; place < FIXTURE_PLACES; place++) {
        struct fixture_lane l;
        fixture_lane_open(&l, place, BYTES, start);
        for (int i = 0; i < 3; i++)
            put(&l, 16);
        write_header(&l, start + 64, size, kind);
        CHECK_EQ(peek(&l), 1);
        CHECK_EQ(peek(&l), 0);
        CHECK_EQ(l.c.dropped_bytes, 128);
        CHECK_EQ(l.cols.end, start + 192); /* what is dropped is handed back like what is handled */
        CHECK_EQ(fab_consumer_commit(&l.c, l.cols.end), 1);
        CHECK_EQ(l.c.broken, 0);
        put(&l, 16); /* the lane is not lost */
        CHECK_EQ(peek(&l), 1);
        fixture_lane_close(&l);
    }
}

static void sizes_that_cannot_be_are_dropped_and_counted(void) {
    const uint32_t sizes[] = {0, 1, 16, 47, 129, 192, BYTES, BYTES + 1, 0x7fffffff, 0x80000000, UINT32_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        drops_the_rest_when_a_header_is(sizes[i], KIND, 0);
    drops_the_rest_when_a_header_is(65, KIND, BYTES - 128); /* beyond the end of the data, not beyond tail */
    drops_the_rest_when_a_header_is(96, KIND, BYTES - 128);
    drops_the_rest_when_a_header_is(UINT32_MAX - 15, KIND, 0 - (uint64_t)128);
}

static void pads_that_cannot_be_are_dropped_and_counted(void) {
    const uint32_t sizes[] = {0, 1, 8, 15, 17, 100, 144, BYTES, UINT32_MAX, 0xfffffff0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        drops_the_rest_when_a_header_is(sizes[i], FAB_KIND_PAD, 0);
    drops_the_rest_when_a_header_is(80, FAB_KIND_PAD, BYTES - 128); /* over the end of the data */
}

static void a_lane_of_pads_ends(void) {
    for (enum fixture_place place = 0; place < FIXTURE_PLACES; place++) {
        struct fixture_lane l;
        fixture_lane_open(&l, place, BYTES, 0);
        for (uint64_t at = 0; at < BYTES; at += 16)
            write_header(&l, at, 16, FAB_KIND_PAD);
        atomic_store(&l.tail, BYTES);
        CHECK_EQ(peek(&l), 0);
        CHECK_EQ(l.cols.end, BYTES);
        CHECK_EQ(l.c.dropped_bytes, 0);
        CHECK_EQ(fab_consumer_commit(&l.c, BYTES), 1);
        fixture_lane_close(&l);
    }
}

static void a_tail_that_cannot_be_breaks_the_lane_for_good(void) {
    const uint64_t tails[] = {64 + BYTES + 16, 0, 63, 65, 72, UINT64_MAX, UINT64_C(1) << 63, 64 - 16};
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        struct fixture_lane l;
        fixture_lane_open(&l, FIXTURE_GUARDED, BYTES, 0);
        put(&l, 16);
        CHECK_EQ(peek(&l), 1);
        CHECK_EQ(fab_consumer_commit(&l.c, l.cols.end), 1);
        atomic_store(&l.tail, tails[i]);
        CHECK_EQ(peek(&l), 0);
        CHECK_EQ(l.c.broken, 1);
        CHECK_EQ(l.cols.end, 64);
        atomic_store(&l.tail, 128); /* mended too late */
        CHECK_EQ(fab_consumer_ready(&l.c), 0);
        CHECK_EQ(peek(&l), 0);
        CHECK_EQ(atomic_load(&l.head), 64);
        fixture_lane_close(&l);
    }
}

static void a_tail_beyond_what_is_handed_back_breaks_the_lane(void) {
    struct fixture_lane l;
    fixture_lane_open(&l, FIXTURE_GUARDED, BYTES, 0);
    put(&l, 16);
    CHECK_EQ(peek(&l), 1); /* and still in hand: a producer of ours would not write over it */
    atomic_store(&l.tail, BYTES + 64);
    CHECK_EQ(peek(&l), 0);
    CHECK_EQ(l.c.broken, 1);
    CHECK_EQ(fab_consumer_commit(&l.c, 64), 1);
    fixture_lane_close(&l);
}

static void a_head_that_is_off_does_not_lead_past_the_tail(void) {
    struct fixture_lane l;
    fixture_lane_open(&l, FIXTURE_GUARDED, BYTES, 0);
    put(&l, 16);
    atomic_store(&l.head, 8); /* a dead predecessor scribbled on its own block */
    CHECK_EQ(fab_consumer_init(&l.c, &l.tail, &l.head, l.data, BYTES), 0);
    write_header(&l, 8, 50, KIND); /* fits into the 56 bytes that are left, but its padding does not */
    CHECK_EQ(peek(&l), 0);
    CHECK_EQ(l.c.dropped_bytes, 56);
    CHECK_EQ(fab_consumer_ready(&l.c), 0);
    fixture_lane_close(&l);
}

/* Put something into the lane that a hostile or dying producer might. */
static void scribble(struct fixture_lane *l, uint64_t *seed) {
    uint64_t head = atomic_load(&l->head);
    for (uint32_t n = fixture_below(seed, 12); n > 0; n--) {
        uint64_t at = fixture_below(seed, BYTES / 16) * 16;
        uint32_t small = 16 * fixture_below(seed, 20);
        const uint32_t sizes[] = {small, small + fixture_below(seed, 16), BYTES - (uint32_t)at,
                                  (uint32_t)fixture_random(seed)};
        write_header(l, at, sizes[fixture_below(seed, 4)], fixture_below(seed, 3));
    }
    for (uint64_t at = head & (BYTES - 16), n = fixture_below(seed, 30); n > 0; n--) { /* records in a row */
        uint32_t size = 48 + fixture_below(seed, 100);
        write_header(l, at, size, fixture_below(seed, 8) == 0 ? FAB_KIND_PAD : KIND);
        at += fab_record_span(size - 48);
    }
    const uint64_t tails[] = {head + 16 * fixture_below(seed, BYTES / 16 + 1), head + BYTES,
                              head + fixture_below(seed, 2 * BYTES), fixture_random(seed)};
    uint32_t which = fixture_below(seed, 64);
    atomic_store(&l->tail, tails[which < 2 ? 2 + which : which & 1]);
}

/* Peek until nothing comes. Returns how many records there were. */
static uint64_t read_all(struct fixture_lane *l, uint64_t *seed) {
    struct fab_consumer *c = &l->c;
    uint64_t records = 0;
    uint64_t sum = 0;
    uint64_t before;
    do {
        before = c->read;
        uint64_t dropped = c->dropped_bytes;
        uint32_t count =
            fab_consumer_peek(c, 1 + fixture_below(seed, 50), fixture_below(seed, BYTES), &l->cols);
        CHECK_EQ(count, l->cols.count);
        CHECK_EQ(l->cols.end, c->read);
        CHECK(c->dropped_bytes - dropped + l->cols.bytes <= c->read - before);
        CHECK(c->read - c->committed <= BYTES && c->tail_seen - c->read <= BYTES);
        CHECK(count == 0 || l->cols.start + l->cols.bytes <= BYTES);
        for (uint32_t i = 0; i < count; i++) {
            CHECK(l->cols.starts[i] <= l->cols.ends[i] && l->cols.ends[i] <= l->cols.bytes);
            for (uint64_t at = l->cols.starts[i]; at < l->cols.ends[i]; at++)
                sum += l->data[l->cols.start + at];
        }
        records += count;
    } while (c->read != before);
    CHECK(sum <= (uint64_t)BYTES * 255); /* which also keeps the compiler from leaving the reads out */
    return records;
}

static void a_stream_of_nonsense_is_survived(enum fixture_place place) {
    uint64_t seed = UINT64_C(0x9e3779b97f4a7c15) + place;
    uint64_t records = 0;
    uint64_t dropped = 0;
    uint64_t broken = 0;
    struct fixture_lane l;
    fixture_lane_open(&l, place, BYTES, 0 - (uint64_t)50 * BYTES);
    for (int round = 0; round < ROUNDS; round++) {
        scribble(&l, &seed);
        records += read_all(&l, &seed);
        dropped += l.c.dropped_bytes;
        broken += l.c.broken;
        fab_consumer_commit(&l.c, l.cols.end);
        if (l.c.broken || fixture_below(&seed, 100) == 0) { /* a replacement, its head scribbled on too */
            atomic_store(&l.head, fixture_random(&seed) & ~(uint64_t)(fixture_below(&seed, 2) * 15));
            CHECK_EQ(fab_consumer_init(&l.c, &l.tail, &l.head, l.data, BYTES), 0);
        }
        l.c.dropped_bytes = 0;
    }
    CHECK(records > ROUNDS / 2 && dropped > ROUNDS && broken > ROUNDS / 1000); /* the stream reaches all */
    fixture_lane_close(&l);
}

static void a_stream_of_nonsense_is_survived_between_guard_pages(void) {
    a_stream_of_nonsense_is_survived(FIXTURE_GUARDED);
}

static void a_stream_of_nonsense_is_survived_on_the_heap(void) {
    a_stream_of_nonsense_is_survived(FIXTURE_HEAP);
}

static void a_producer_writes_inside_the_data_whatever_the_head_says(void) {
    static const uint8_t body[BYTES];
    uint64_t seed = 42;
    uint64_t written = 0;
    struct fixture_lane l;
    fixture_lane_open(&l, FIXTURE_GUARDED, BYTES, 0 - (uint64_t)50 * BYTES);
    for (int round = 0; round < ROUNDS; round++) {
        const uint64_t heads[] = {l.p.next, l.p.next - 16 * fixture_below(&seed, BYTES / 8),
                                  l.p.next + fixture_below(&seed, BYTES), fixture_random(&seed)};
        atomic_store(&l.head, heads[fixture_below(&seed, 4)]);
        struct fab_record r = {.size = fixture_below(&seed, BYTES / 2), .kind = KIND};
        written += fab_producer_put(&l.p, &r, body) == 1;
        CHECK(l.p.next - l.p.head_seen <= BYTES);
    }
    CHECK(written > ROUNDS / 10);
    fixture_lane_close(&l);
}

#ifndef __SANITIZE_THREAD__ /* the writer races on purpose */
struct flipper {
    _Atomic(uint64_t) *word;
    _Atomic(int) stop;
};

/* Turn a good header into bad ones and back as fast as can be. */
static void *flip(void *arg) {
    struct flipper *f = arg;
    const uint64_t kind = (uint64_t)KIND << 32;
    const uint64_t words[] = {kind | 64, kind | UINT32_MAX, kind | 64, UINT64_C(1) << 32 | 0xfffffff0,
                              kind | 64, kind | 2 * BYTES,  kind | 64, kind | 47};
    for (uint32_t i = 0; !atomic_load_explicit(&f->stop, memory_order_relaxed); i++)
        atomic_store_explicit(f->word, words[i & 7], memory_order_relaxed);
    return NULL;
}

static void a_header_that_changes_while_it_is_read_is_read_once(void) {
    struct fixture_lane l;
    pthread_t thread;
    uint64_t good = 0;
    fixture_lane_open(&l, FIXTURE_GUARDED, BYTES, BYTES - 64);
    put(&l, 16);
    struct flipper f = {.word = (_Atomic(uint64_t) *)(void *)(l.data + BYTES - 64)};
    CHECK_EQ(pthread_create(&thread, NULL, flip, &f), 0);
    for (int round = 0; round < 5 * ROUNDS || good == 0; round++) {
        CHECK_EQ(fab_consumer_init(&l.c, &l.tail, &l.head, l.data, BYTES), 0);
        uint32_t count = peek(&l);
        good += count;
        CHECK_EQ(l.c.dropped_bytes, count != 0 ? 0 : 64);
        CHECK(count == 0 || (l.cols.starts[0] == 48 && l.cols.ends[0] == 64 && l.cols.size == 16));
    }
    atomic_store(&f.stop, 1);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    fixture_lane_close(&l);
}
#endif

static const struct check_test tests[] = {
    TEST(sizes_that_cannot_be_are_dropped_and_counted),
    TEST(pads_that_cannot_be_are_dropped_and_counted),
    TEST(a_lane_of_pads_ends),
    TEST(a_tail_that_cannot_be_breaks_the_lane_for_good),
    TEST(a_tail_beyond_what_is_handed_back_breaks_the_lane),
    TEST(a_head_that_is_off_does_not_lead_past_the_tail),
    TEST(a_stream_of_nonsense_is_survived_between_guard_pages),
    TEST(a_stream_of_nonsense_is_survived_on_the_heap),
    TEST(a_producer_writes_inside_the_data_whatever_the_head_says),
#ifndef __SANITIZE_THREAD__
    TEST(a_header_that_changes_while_it_is_read_is_read_once),
#endif
};

int main(void) {
    return CHECK_RUN(tests, 30);
}
