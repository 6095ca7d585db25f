/* SPDX-License-Identifier: MIT */
/*
 * ring_test.c - a lane at its edges, one thread. Edges are reached by setting the counters, not by
 * waiting: a lane of 4096 bytes whose head and tail stand wherever the test wants them.
 */
#include "fixture.h"

#define BYTES 4096u
#define LIMIT (BYTES / 2 - 48) /* of a body */
#define KIND 7u

static struct fixture_lane *lane_at(enum fixture_place place, uint64_t at) {
    struct fixture_lane *l = aligned_alloc(alignof(struct fixture_lane), sizeof *l);
    CHECK(l != NULL);
    fixture_lane_open(l, place, BYTES, at);
    return l;
}

static void lane_free(struct fixture_lane *l) {
    fixture_lane_close(l);
    free(l);
}

/* Write record n, with a body of so many bytes. */
static int put(struct fixture_lane *l, uint16_t kind, uint64_t n, uint32_t bytes) {
    static uint8_t body[BYTES];
    struct fab_record r = {.size = bytes, .kind = kind, .target = n, .sender = ~n, .correlation = n * 3};
    fixture_fill(body, n, bytes < sizeof body ? bytes : sizeof body);
    return fab_producer_put(&l->p, &r, body);
}

static uint32_t peek(struct fixture_lane *l) {
    return fab_consumer_peek(&l->c, UINT32_MAX, UINT64_MAX, &l->cols);
}

/* Record i of the run is record n, with a body of so many bytes. */
static void check_record(const struct fixture_lane *l, uint32_t i, uint64_t n, uint64_t bytes) {
    const struct fab_columns *cols = &l->cols;
    CHECK(i < cols->count);
    CHECK_EQ(cols->targets[i], n);
    CHECK_EQ(cols->senders[i], ~n);
    CHECK_EQ(cols->correlations[i], n * 3);
    CHECK_EQ(cols->ends[i] - cols->starts[i], bytes);
    CHECK(cols->ends[i] <= cols->bytes && cols->start + cols->bytes <= BYTES);
    fixture_check_body(l->data + cols->start + cols->starts[i], n, bytes);
}

/* Take what is there, which must be record n and nothing else, and hand it back. */
static void take_one(struct fixture_lane *l, uint64_t n, uint64_t bytes) {
    CHECK_EQ(peek(l), 1);
    check_record(l, 0, n, bytes);
    CHECK_EQ(fab_consumer_commit(&l->c, l->cols.end), 1);
    CHECK_EQ(fab_consumer_ready(&l->c), 0);
    CHECK_EQ(atomic_load(&l->head), atomic_load(&l->tail));
}

static void a_record_comes_out_as_it_went_in(void) {
    struct fixture_lane *l = lane_at(FIXTURE_GUARDED, 0);
    struct fab_record r = {5, KIND, 3, 9, 11, 12, 13, 99, 15};
    CHECK_EQ(fab_producer_put(&l->p, &r, "hello"), 1);
    fab_producer_publish(&l->p);
    CHECK_EQ(peek(l), 1);
    const struct fab_columns *cols = &l->cols;
    CHECK(cols->kind == KIND && cols->encoding == 3 && cols->flags == 9 && cols->asks == 1);
    CHECK(cols->size == 5 && cols->sent_at == 15 && cols->start == 0 && cols->bytes == 64 && cols->end == 64);
    CHECK(cols->targets[0] == 11 && cols->senders[0] == 12 && cols->correlations[0] == 13);
    CHECK(cols->starts[0] == 48 && cols->ends[0] == 53 && cols->encodings[0] == 3);
    CHECK(memcmp(l->data + 48, "hello", 5) == 0);
    memcpy(&r, l->data, sizeof r);
    CHECK_EQ(r.sequence, 0); /* counted by the lane, whatever the caller put there */
    lane_free(l);
}

static void nothing_is_seen_before_it_is_published(void) {
    struct fixture_lane *l = lane_at(FIXTURE_GUARDED, 0);
    for (uint64_t n = 0; n < 3; n++)
        CHECK_EQ(put(l, KIND, n, 10), 1);
    CHECK_EQ(fab_consumer_ready(&l->c), 0);
    CHECK_EQ(peek(l), 0);
    fab_producer_publish(&l->p);
    CHECK_EQ(fab_consumer_ready(&l->c), 3 * 64);
    CHECK_EQ(peek(l), 3);
    lane_free(l);
}

static void counters_may_pass_2_to_the_64(void) {
    for (uint64_t before = 16; before <= 2 * BYTES; before += 16) {
        struct fixture_lane *l = lane_at(FIXTURE_GUARDED, 0 - before);
        for (uint64_t n = 0; n < 20; n++) {
            uint32_t bytes = (uint32_t)(n * 97 % (LIMIT + 1));
            CHECK_EQ(put(l, KIND, n, bytes), 1);
            fab_producer_publish(&l->p);
            take_one(l, n, bytes);
        }
        CHECK(atomic_load(&l->tail) < 0 - before);
        lane_free(l);
    }
}

static void a_lane_fills_exactly_to_its_capacity(void) {
    for (uint64_t at = 0; at < 2; at++) {
        struct fixture_lane *l = lane_at(FIXTURE_GUARDED, 0 - at * 128);
        for (uint64_t n = 0; n < 64; n++)
            CHECK_EQ(put(l, KIND, n, 16), 1);
        CHECK_EQ(put(l, KIND, 64, 0), 0);
        CHECK(atomic_load(&l->p.starved_at) != 0);
        fab_producer_publish(&l->p);
        CHECK_EQ(fab_consumer_ready(&l->c), BYTES);
        uint64_t seen = 0;
        while (peek(l) != 0)
            for (uint32_t i = 0; i < l->cols.count; i++)
                check_record(l, i, seen++, 16);
        CHECK_EQ(seen, 64);
        CHECK_EQ(put(l, KIND, 64, 0), 0); /* read is not handed back */
        CHECK_EQ(fab_consumer_commit(&l->c, l->cols.end), 1);
        CHECK_EQ(put(l, KIND, 64, 0), 1);
        /* what did not fit is still remembered: only who waits for it, and sees the head move, forgets it */
        CHECK(atomic_load(&l->p.starved_at) != 0);
        lane_free(l);
    }
}

static void what_is_left_takes_a_record_of_that_span_and_none_larger(void) {
    struct fixture_lane *l = lane_at(FIXTURE_GUARDED, 0);
    for (uint64_t n = 0; n < 63; n++)
        CHECK_EQ(put(l, KIND, n, 16), 1);
    uint64_t next = l->p.next;
    CHECK_EQ(put(l, KIND, 63, 17), 0); /* one byte too many: 80 bytes into 64 */
    CHECK_EQ(l->p.next, next);
    CHECK_EQ(put(l, KIND, 63, 1), 1);
    CHECK_EQ(fab_producer_room(&l->p, 1), 0);
    fab_producer_publish(&l->p);
    CHECK_EQ(peek(l), 64);
    check_record(l, 63, 63, 1);
    lane_free(l);
}

static void room_too_short_for_a_header_takes_nothing(void) {
    struct fixture_lane *l = lane_at(FIXTURE_GUARDED, 0);
    for (uint64_t n = 0; n < 63; n++)
        CHECK_EQ(put(l, KIND, n, 16), 1);
    CHECK_EQ(put(l, KIND, 63, 0), 1); /* 16 bytes are left */
    CHECK_EQ(fab_producer_room(&l->p, 1), 16);
    CHECK_EQ(put(l, KIND, 64, 0), 0);
    fab_producer_publish(&l->p);
    CHECK_EQ(peek(l), 64);
    fab_consumer_commit(&l->c, 64); /* the first: now 16 at the end, which become a PAD, and 64 */
    CHECK_EQ(put(l, KIND, 64, 0), 1);
    CHECK_EQ(fab_producer_room(&l->p, 1), 16);
    fab_producer_publish(&l->p);
    CHECK_EQ(peek(l), 1);
    check_record(l, 0, 64, 0);
    lane_free(l);
}

static void a_run_stops_at_the_wrap_when_a_record_ends_there(void) {
    struct fixture_lane *l = lane_at(FIXTURE_GUARDED, BYTES - 128);
    for (uint64_t n = 0; n < 3; n++)
        CHECK_EQ(put(l, KIND, n, 16), 1);
    fab_producer_publish(&l->p);
    CHECK_EQ(peek(l), 2);
    CHECK_EQ(l->cols.start + l->cols.bytes, BYTES);
    check_record(l, 0, 0, 16);
    check_record(l, 1, 1, 16);
    CHECK_EQ(peek(l), 1);
    CHECK_EQ(l->cols.start, 0);
    check_record(l, 0, 2, 16);
    lane_free(l);
}

static void a_run_stops_at_the_wrap_when_a_pad_lies_there(void) {
    struct fixture_lane *l = lane_at(FIXTURE_GUARDED, BYTES - 96);
    CHECK_EQ(put(l, KIND, 0, 0), 1);
    CHECK_EQ(put(l, KIND, 1, 1), 1); /* 64 bytes do not fit into the 48 that are left */
    fab_producer_publish(&l->p);
    CHECK_EQ(peek(l), 1);
    CHECK_EQ(l->cols.end, BYTES - 48); /* the PAD belongs to the next run */
    take_one(l, 1, 1);
    lane_free(l);
}

static void a_pad_may_be_16_bytes(void) {
    struct fixture_lane *l = lane_at(FIXTURE_GUARDED, BYTES - 16);
    CHECK_EQ(put(l, KIND, 0, 0), 1);
    CHECK_EQ(l->p.next, BYTES + 48);
    fab_producer_publish(&l->p);
    take_one(l, 0, 0);
    CHECK_EQ(l->cols.start, 0);
    CHECK_EQ(atomic_load(&l->head), BYTES + 48);
    lane_free(l);
}

static void a_body_at_the_limit_fits_at_every_position_of_an_empty_lane(void) {
    CHECK_EQ(fab_ring_body_limit(BYTES), LIMIT);
    for (uint64_t at = 0; at < BYTES; at += 16) {
        struct fixture_lane *l = lane_at(FIXTURE_GUARDED, at);
        CHECK_EQ(put(l, KIND, at, LIMIT), 1);
        fab_producer_publish(&l->p);
        take_one(l, at, LIMIT);
        lane_free(l);
    }
}

static void a_body_over_the_limit_and_a_kind_that_is_ours_are_refused(void) {
    struct fixture_lane *l = lane_at(FIXTURE_GUARDED, 0);
    CHECK_EQ(put(l, KIND, 0, LIMIT + 1), -EMSGSIZE);
    CHECK_EQ(put(l, KIND, 0, UINT32_MAX), -EMSGSIZE);
    CHECK_EQ(put(l, FAB_KIND_PAD, 0, 16), -EINVAL);
    CHECK_EQ(l->p.next, 0);
    CHECK_EQ(l->p.sequence, 0);
    lane_free(l);
}

static void a_run_is_of_one_kind(void) {
    struct fixture_lane *l = lane_at(FIXTURE_GUARDED, 0);
    const uint16_t kinds[] = {7, 7, 8, 7, 0, 0};
    for (uint64_t n = 0; n < 6; n++)
        CHECK_EQ(put(l, kinds[n], n, (uint32_t)n), 1);
    fab_producer_publish(&l->p);
    const uint32_t counts[] = {2, 1, 1, 2};
    uint64_t n = 0;
    for (int run = 0; run < 4; run++) {
        CHECK_EQ(peek(l), counts[run]);
        CHECK_EQ(l->cols.kind, kinds[n]);
        for (uint32_t i = 0; i < counts[run]; i++, n++)
            check_record(l, i, n, n);
    }
    CHECK_EQ(peek(l), 0);
    lane_free(l);
}

static void a_run_has_at_most_so_many_records_and_bytes_but_the_first_always(void) {
    struct fixture_lane *l = lane_at(FIXTURE_GUARDED, 0);
    for (uint64_t n = 0; n < 8; n++)
        CHECK_EQ(put(l, KIND, n, 16), 1);
    fab_producer_publish(&l->p);
    CHECK_EQ(fab_consumer_peek(&l->c, 0, UINT64_MAX, &l->cols), 0);
    CHECK_EQ(fab_consumer_peek(&l->c, 3, UINT64_MAX, &l->cols), 3);
    CHECK_EQ(fab_consumer_peek(&l->c, 9, 128, &l->cols), 2);
    check_record(l, 0, 3, 16);
    CHECK_EQ(fab_consumer_peek(&l->c, 9, 127, &l->cols), 1);
    CHECK_EQ(fab_consumer_peek(&l->c, 9, 0, &l->cols), 1);
    check_record(l, 0, 6, 16);
    CHECK_EQ(peek(l), 1);
    lane_free(l);
}

static void a_run_has_at_most_as_many_records_as_columns(void) {
    struct fixture_lane *l = aligned_alloc(alignof(struct fixture_lane), sizeof *l);
    fixture_lane_open(l, FIXTURE_HEAP, 65536, 0);
    for (uint64_t n = 0; n <= FAB_BATCH_MAX; n++)
        CHECK_EQ(put(l, KIND, n, 0), 1);
    fab_producer_publish(&l->p);
    CHECK_EQ(peek(l), FAB_BATCH_MAX);
    CHECK_EQ(peek(l), 1);
    CHECK_EQ(l->cols.targets[0], FAB_BATCH_MAX);
    lane_free(l);
}

static void columns_say_what_all_records_share(void) {
    struct fixture_lane *l = lane_at(FIXTURE_GUARDED, 0);
    struct fab_record r = {.size = 4, .kind = KIND, .encoding = 2, .flags = 1, .sent_at = 50};
    CHECK_EQ(fab_producer_put(&l->p, &r, "aaaa"), 1);
    r.flags = 4;
    r.correlation = 1;
    r.sent_at = 60;
    CHECK_EQ(fab_producer_put(&l->p, &r, "bbbb"), 1);
    fab_producer_publish(&l->p);
    CHECK_EQ(peek(l), 2);
    CHECK(l->cols.encoding == 2 && l->cols.size == 4 && l->cols.flags == 5 && l->cols.asks == 1);
    CHECK_EQ(l->cols.sent_at, 50);
    CHECK_EQ(fab_producer_put(&l->p, &r, "cccc"), 1);
    r.encoding = 3;
    r.size = 3;
    CHECK_EQ(fab_producer_put(&l->p, &r, "ddd"), 1);
    r.encoding = 2;
    r.size = 4;
    CHECK_EQ(fab_producer_put(&l->p, &r, "eeee"), 1);
    fab_producer_publish(&l->p);
    CHECK_EQ(peek(l), 3);
    CHECK(l->cols.encoding == 256 && l->cols.size == UINT32_MAX && l->cols.asks == 3);
    CHECK(l->cols.encodings[1] == 3 && l->cols.encodings[2] == 2);
    lane_free(l);
}

static void commit_moves_the_head_only_over_what_was_read(void) {
    struct fixture_lane *l = lane_at(FIXTURE_GUARDED, 0 - (uint64_t)64);
    for (uint64_t n = 0; n < 4; n++)
        CHECK_EQ(put(l, KIND, n, 16), 1);
    fab_producer_publish(&l->p);
    CHECK_EQ(fab_consumer_commit(&l->c, 0), 0); /* nothing is read yet */
    CHECK_EQ(peek(l), 1);                       /* up to the wrap */
    CHECK_EQ(peek(l), 3);
    CHECK_EQ(fab_consumer_commit(&l->c, l->cols.end + 16), 0);  /* beyond */
    CHECK_EQ(fab_consumer_commit(&l->c, 0 - (uint64_t)128), 0); /* before */
    CHECK_EQ(atomic_load(&l->head), 0 - (uint64_t)64);
    CHECK_EQ(fab_consumer_commit(&l->c, 64), 1); /* a part */
    CHECK_EQ(atomic_load(&l->head), 64);
    CHECK_EQ(fab_consumer_commit(&l->c, 64), 0); /* twice */
    CHECK_EQ(fab_consumer_commit(&l->c, 0), 0);  /* back */
    CHECK_EQ(fab_consumer_commit(&l->c, 192), 1);
    CHECK_EQ(atomic_load(&l->head), 192);
    lane_free(l);
}

static void a_replacement_goes_on_from_what_is_published_and_committed(void) {
    struct fixture_lane *l = lane_at(FIXTURE_GUARDED, 0);
    for (uint64_t n = 0; n < 3; n++)
        CHECK_EQ(put(l, KIND, n, 16), 1);
    fab_producer_publish(&l->p);
    CHECK_EQ(put(l, KIND, 666, 200), 1); /* killed before it published this */
    CHECK_EQ(fab_producer_init(&l->p, &l->tail, &l->head, l->data, BYTES), 0);
    CHECK_EQ(put(l, KIND, 3, 16), 1);
    fab_producer_publish(&l->p);
    CHECK_EQ(peek(l), 4);
    fab_consumer_commit(&l->c, 128); /* killed in record 2 */
    CHECK_EQ(fab_consumer_init(&l->c, &l->tail, &l->head, l->data, BYTES), 0);
    CHECK_EQ(peek(l), 2);
    check_record(l, 0, 2, 16);
    check_record(l, 1, 3, 16);
    lane_free(l);
}

static void ends_refuse_capacities_and_counters_that_cannot_be(void) {
    struct fixture_lane *l = lane_at(FIXTURE_GUARDED, 0);
    const uint64_t capacities[] = {0, 1, 2048, 4095, 4097, 12288};
    for (int i = 0; i < 6; i++) {
        CHECK_EQ(fab_producer_init(&l->p, &l->tail, &l->head, l->data, capacities[i]), -EINVAL);
        CHECK_EQ(fab_consumer_init(&l->c, &l->tail, &l->head, l->data, capacities[i]), -EINVAL);
    }
    const uint64_t tails[] = {BYTES + 16, 8, 0 - (uint64_t)16};
    for (int i = 0; i < 3; i++) {
        atomic_store(&l->tail, tails[i]);
        CHECK_EQ(fab_producer_init(&l->p, &l->tail, &l->head, l->data, BYTES), -EINVAL);
    }
    lane_free(l);
}

static void a_head_that_cannot_be_gives_no_room(void) {
    struct fixture_lane *l = lane_at(FIXTURE_GUARDED, 0);
    for (uint64_t n = 0; n < 64; n++)
        CHECK_EQ(put(l, KIND, n, 16), 1);
    fab_producer_publish(&l->p);
    const uint64_t heads[] = {BYTES + 16, 2 * BYTES, UINT64_MAX, 0 - (uint64_t)16, UINT64_C(1) << 63};
    for (int i = 0; i < 5; i++) {
        atomic_store(&l->head, heads[i]);
        CHECK_EQ(put(l, KIND, 64, 0), 0);
    }
    atomic_store(&l->head, 64);
    CHECK_EQ(put(l, KIND, 64, 16), 1);
    CHECK_EQ(put(l, KIND, 65, 0), 0);
    lane_free(l);
}

static const struct check_test tests[] = {
    TEST(a_record_comes_out_as_it_went_in),
    TEST(nothing_is_seen_before_it_is_published),
    TEST(counters_may_pass_2_to_the_64),
    TEST(a_lane_fills_exactly_to_its_capacity),
    TEST(what_is_left_takes_a_record_of_that_span_and_none_larger),
    TEST(room_too_short_for_a_header_takes_nothing),
    TEST(a_run_stops_at_the_wrap_when_a_record_ends_there),
    TEST(a_run_stops_at_the_wrap_when_a_pad_lies_there),
    TEST(a_pad_may_be_16_bytes),
    TEST(a_body_at_the_limit_fits_at_every_position_of_an_empty_lane),
    TEST(a_body_over_the_limit_and_a_kind_that_is_ours_are_refused),
    TEST(a_run_is_of_one_kind),
    TEST(a_run_has_at_most_so_many_records_and_bytes_but_the_first_always),
    TEST(a_run_has_at_most_as_many_records_as_columns),
    TEST(columns_say_what_all_records_share),
    TEST(commit_moves_the_head_only_over_what_was_read),
    TEST(a_replacement_goes_on_from_what_is_published_and_committed),
    TEST(ends_refuse_capacities_and_counters_that_cannot_be),
    TEST(a_head_that_cannot_be_gives_no_room),
};

int main(void) {
    return CHECK_RUN(tests, 20);
}
