/* SPDX-License-Identifier: MIT */
/*
 * measures_test.c - histograms tell a value within 3 %, and what is measured of messages is what happened.
 *
 *   process 0  coordinator: asks          lane 0 -> 1 -> questions, lane 1 -> 0 -> replies
 *   process 1  worker: replies
 */
#include "fixture.h"

#include <pthread.h>

#define LANE UINT64_C(65536)
#define AGENT(index) (UINT64_C(1) << 32 | (index))
#define TOKEN(number) ((uint64_t)(number) << FAB_TOKEN_SHIFT)

static uint64_t lowest(uint32_t bucket) { /* as fabric/histogram.py has it */
    uint32_t shift = (bucket >> FAB_HISTOGRAM_SUB_BITS) == 0 ? 0 : (bucket >> FAB_HISTOGRAM_SUB_BITS) - 1;
    return shift == 0 ? bucket : (uint64_t)(bucket - (shift << FAB_HISTOGRAM_SUB_BITS)) << shift;
}

static void a_bucket_is_at_most_a_32nd_of_its_values_wide(void) {
    uint64_t seed = 7;
    for (uint32_t bucket = 0; bucket < FAB_HISTOGRAM_BUCKETS; bucket++) {
        uint64_t low = lowest(bucket);
        uint64_t next = lowest(bucket + 1);
        CHECK_EQ(fab_histogram_bucket(low), bucket);
        CHECK_EQ(fab_histogram_bucket(next - 1), bucket);
        CHECK(low < 32 || (next - low) * 32 <= low);
    }
    for (int i = 0; i < 100000; i++) {
        uint64_t value = fixture_random(&seed) >> fixture_below(&seed, 64);
        uint32_t bucket = fab_histogram_bucket(value);
        uint64_t most = (UINT64_C(1) << FAB_HISTOGRAM_VALUE_BITS) - 1;
        value = value < most ? value : most;
        CHECK(lowest(bucket) <= value && value < lowest(bucket + 1));
    }
    CHECK_EQ(fab_histogram_bucket(UINT64_MAX), FAB_HISTOGRAM_BUCKETS - 1);
}

static void a_histogram_counts_adds_up_and_keeps_the_largest(void) {
    static struct fab_histogram h;
    fab_histogram_record(&h, 5, 3);
    fab_histogram_record(&h, 1000, 1);
    fab_histogram_record(&h, UINT64_MAX, 1);
    uint64_t most = (UINT64_C(1) << FAB_HISTOGRAM_VALUE_BITS) - 1;
    CHECK_EQ(h.sum, 15 + 1000 + most);
    CHECK_EQ(h.maximum, most);
    CHECK_EQ(h.counts[5], 3);
    CHECK_EQ(h.counts[fab_histogram_bucket(1000)], 1);
    CHECK_EQ(h.counts[FAB_HISTOGRAM_BUCKETS - 1], 1);
}

static void start(struct fixture_fabric *f, uint32_t measuring) {
    struct fab_board *board;
    fixture_fabric_open(f, 3, LANE);
    board = (void *)(f->whole + fab_board_offset());
    atomic_store(&board->measuring, measuring);
    uint8_t *classes = f->whole + fab_classes_offset(&f->header);
    classes[1] = classes[2] = 1;
    classes[3] = 2;
    classes[4] = FAB_CLASSES; /* what no coordinator of ours writes */
    for (uint32_t p = 0; p < 3; p++)
        fab_meter_open(f->peers[p]);
}

static uint64_t counted(const struct fab_histogram *h) {
    uint64_t count = 0;
    for (uint32_t i = 0; i < FAB_HISTOGRAM_BUCKETS; i++)
        count += h->counts[i];
    return count;
}

/* Send `count` records, targets and correlation ids given. */
static void send(struct fab_peer *s, uint32_t lane, uint16_t kind, uint8_t encoding, uint32_t count,
                 const uint64_t *targets, const uint64_t *correlations) {
    uint32_t done = 0;
    uint64_t offset = 0;
    struct fab_batch b = {.header = {.size = 4, .kind = kind, .encoding = encoding},
                          .targets = targets,
                          .correlations = correlations,
                          .bytes = (const uint8_t *)"body",
                          .bytes_count = 4,
                          .count = count,
                          .repeated = 1};
    CHECK_EQ(fab_peer_send_batch(s, lane, &b, UINT64_MAX, &done, &offset), (int32_t)count);
}

static uint64_t receive(struct fixture_fabric *f, uint32_t p) {
    int32_t lane = fab_peer_commit_and_receive(f->peers[p], -1, 0, FAB_BATCH_MAX, UINT64_MAX, &f->cols);
    if (lane < 0)
        return 0;
    fab_peer_commit(f->peers[p], (uint32_t)lane, f->cols.end);
    return f->cols.count;
}

static void questions_and_replies_are_counted_and_timed(void) {
    const uint64_t targets[] = {AGENT(1), AGENT(2), AGENT(3), AGENT(4), AGENT(999)};
    const uint64_t asked[] = {TOKEN(5), TOKEN(5) + 1, TOKEN(5) + 2, 0, 0};
    const uint64_t zeros[] = {0, 0, 0};
    struct fixture_fabric f;
    start(&f, 1);
    const struct fab_measures *worker = f.peers[1]->meter.measures;
    const struct fab_measures *coordinator = f.peers[0]->meter.measures;

    send(f.peers[0], 1, FAB_KIND_MESSAGE, 1, 5, targets, asked);
    CHECK_EQ(receive(&f, 1), 5);
    send(f.peers[1], 0, FAB_KIND_REPLY, 1, 2, zeros, asked);
    send(f.peers[1], 0, FAB_KIND_REPLY, FAB_ENCODING_ERROR, 1, zeros, asked + 2);
    CHECK_EQ(receive(&f, 0), 3);

    CHECK(worker->messages[1] == 2 && worker->messages[2] == 1 && worker->messages[0] == 2);
    CHECK_EQ(counted(&worker->lane_time), 5);
    CHECK_EQ(worker->batch_size.counts[5], 1);
    CHECK_EQ(f.peers[1]->words->counters[FAB_COUNT_MESSAGES], 5);
    CHECK_EQ(f.peers[1]->meter.batch_class, 0); /* of several */
    for (uint32_t index = 1; index < 5; index++)
        CHECK(f.peers[1]->meter.last_use[index] != 0);
    CHECK_EQ(f.peers[1]->meter.last_use[5], 0);

    CHECK_EQ(counted(&coordinator->round_trip), 3);
    CHECK_EQ(counted(&coordinator->lane_time), 3);
    CHECK_EQ(f.peers[0]->words->counters[FAB_COUNT_REPLIES], 3);
    CHECK_EQ(f.peers[0]->words->counters[FAB_COUNT_REPLY_ERRORS], 1);

    struct fab_survey seen[3];
    fab_survey_all(&f.header, f.whole, seen);
    CHECK(seen[0].messages == 5 && seen[0].asks == 3 && seen[0].replies == 0);
    CHECK(seen[1].messages == 0 && seen[1].replies == 3 && seen[1].bytes == 3 * 64);
    CHECK(seen[1].in_flight == 0 && seen[1].waiting_bytes == 0);
    fixture_fabric_close(&f);
}

static void nothing_is_measured_while_the_board_says_no(void) {
    const uint64_t target = AGENT(1);
    const uint64_t asked = TOKEN(1);
    struct fixture_fabric f;
    struct fab_survey seen[3];
    start(&f, 0);
    send(f.peers[0], 1, FAB_KIND_MESSAGE, 1, 1, &target, &asked);
    CHECK_EQ(receive(&f, 1), 1);
    fab_peer_handled(f.peers[1], 1, 1000);
    fab_survey_all(&f.header, f.whole, seen);
    CHECK(seen[0].messages == 0 && seen[0].bytes == 0);
    CHECK_EQ(counted(&f.peers[1]->meter.measures->lane_time), 0);
    CHECK_EQ(counted(&f.peers[1]->meter.measures->handler_time[1]), 0);
    CHECK_EQ(f.peers[1]->meter.last_use[1], 0);
    fixture_fabric_close(&f);
}

static void handler_time_is_that_of_the_class_in_hand(void) {
    const uint64_t one[] = {AGENT(1), AGENT(2)};
    const uint64_t zeros[] = {0, 0};
    struct fixture_fabric f;
    start(&f, 1);
    send(f.peers[0], 1, FAB_KIND_MESSAGE, 1, 2, one, zeros);
    CHECK_EQ(receive(&f, 1), 2);
    fab_peer_handled(f.peers[1], 2, 6000);
    const struct fab_histogram *h = &f.peers[1]->meter.measures->handler_time[1];
    CHECK(h->sum == 6000 && h->counts[fab_histogram_bucket(3000)] == 2);

    send(f.peers[0], 1, FAB_KIND_MESSAGE, 1, 1, one, zeros); /* alone, and long: timed without being told */
    CHECK_EQ(receive(&f, 1), 1);
    int64_t begin = fab_now();
    while (fab_now() - begin < 2 * FAB_LONG_NS)
        fab_cpu_relax();
    CHECK_EQ(receive(&f, 1), 0);
    CHECK_EQ(counted(h), 3);
    CHECK(h->maximum >= 2 * FAB_LONG_NS);
    fixture_fabric_close(&f);
}

/* A call may be sent in parts and answered in parts: its place is free again when all is answered. */
static void what_was_asked_together_is_timed_from_its_first_part(void) {
    struct fixture_fabric f;
    start(&f, 1);
    struct fab_peer *s = f.peers[0];
    struct fab_asked *place = fab_meter_asked_at(s, TOKEN(9) >> FAB_ASKED_SHIFT);
    fab_meter_asked(s, TOKEN(9), 2, 100);
    fab_meter_asked(s, TOKEN(9) + 2, 1, 900);
    CHECK(place->at == 100 && place->left == 3);
    fab_meter_replied(s, TOKEN(9) + 1, 2, 1100);
    CHECK(place->key != 0);
    fab_meter_replied(s, TOKEN(9), 1, 2100);
    CHECK_EQ(place->key, 0);
    const struct fab_histogram *h = &s->meter.measures->round_trip;
    CHECK(h->counts[fab_histogram_bucket(1000)] == 2 && h->counts[fab_histogram_bucket(2000)] == 1);
    fab_meter_replied(s, TOKEN(9), 1, 5000); /* it comes again: nobody knows of it */
    CHECK_EQ(counted(h), 3);
    fixture_fabric_close(&f);
}

static void a_place_that_is_taken_is_not_given_to_a_later_question(void) {
    struct fixture_fabric f;
    start(&f, 1);
    struct fab_peer *s = f.peers[0];
    uint64_t same = TOKEN(1 + FAB_ASKED); /* another call that has the place of TOKEN(1) */
    struct fab_asked *place = fab_meter_asked_at(s, TOKEN(1) >> FAB_ASKED_SHIFT);
    CHECK(place == fab_meter_asked_at(s, same >> FAB_ASKED_SHIFT));
    fab_meter_asked(s, TOKEN(1), 1, 100);
    fab_meter_asked(s, same, 1, 200);
    CHECK_EQ(place->at, 100);
    fab_meter_replied(s, same, 1, 300);
    CHECK_EQ(counted(&s->meter.measures->round_trip), 0);
    fab_meter_asked(s, same, 1,
                    100 + FAB_ASKED_STALE_NS); /* the first is lost: nobody waits a minute for it */
    CHECK_EQ(place->at, 100 + (uint64_t)FAB_ASKED_STALE_NS);
    fixture_fabric_close(&f);
}

static void a_clock_that_cannot_be_is_counted_and_not_timed(void) {
    struct fixture_fabric f;
    start(&f, 1);
    struct fab_record r = {.size = 4, .kind = FAB_KIND_MESSAGE, .target = AGENT(1)};
    CHECK_EQ(fab_peer_send(f.peers[0], 1, &r, "body"), 1); /* never stamped */
    r.sent_at = (uint64_t)fab_now() + 1000000000000;
    CHECK_EQ(fab_peer_send(f.peers[0], 1, &r, "body"), 1);
    CHECK_EQ(receive(&f, 1), 2);
    CHECK_EQ(counted(&f.peers[1]->meter.measures->lane_time), 0);
    CHECK_EQ(f.peers[1]->words->counters[FAB_COUNT_LATE_CLOCKS], 2);
    fixture_fabric_close(&f);
}

static void a_survey_tells_what_is_in_flight_at_every_position_of_the_lane(void) {
    const uint64_t target = AGENT(1);
    const uint64_t zero = 0;
    struct fixture_fabric f;
    struct fab_survey seen[3];
    uint32_t sent = 0;
    start(&f, 1);
    for (uint32_t round = 0; round < 3 * LANE / 48; round++) { /* bodies of 4 bytes: a PAD now and then */
        uint32_t many = 1 + round % 7;
        for (uint32_t i = 0; i < many; i++, sent++)
            send(f.peers[0], 1, FAB_KIND_MESSAGE, 1, 1, &target, &zero);
        fab_survey_all(&f.header, f.whole, seen);
        CHECK_EQ(seen[1].in_flight, many);
        CHECK(seen[1].waiting_bytes >= many * 64);
        while (receive(&f, 1) != 0)
            ;
    }
    fab_survey_all(&f.header, f.whole, seen);
    CHECK(seen[0].messages == sent && seen[1].in_flight == 0);
    /* counters that cannot be are no reason to look outside the lane */
    for (uint64_t word = 1; word != 0; word <<= 1) {
        *(uint64_t *)(void *)(f.whole + fab_block_offset(&f.header, 1) + fab_heads_offset()) = word;
        fab_survey_all(&f.header, f.whole, seen);
        CHECK(seen[1].in_flight <= LANE / 48);
    }
    fixture_fabric_close(&f);
}

/* Threads of one process ask through lanes of their own, which one of them does not answer for: places are taken and
 * given back while others look for one. No time is longer than the test. */
#define RACE_CALLS 20000u
struct race {
    struct fixture_fabric f;
    _Atomic(uint32_t) ended;
    int64_t begin;
};

struct asker {
    struct race *race;
    uint32_t lane;
};

static void *ask(void *arg) {
    const struct asker *me = arg;
    const uint64_t target = AGENT(1);
    for (uint64_t i = 1; i <= RACE_CALLS; i++) {
        uint64_t correlation = TOKEN(2 * i + me->lane);
        uint32_t done = 0;
        uint64_t offset = 0;
        struct fab_batch b = {.header = {.size = 0, .kind = FAB_KIND_MESSAGE, .target = target},
                              .correlations = &correlation,
                              .bytes = (const uint8_t *)"",
                              .count = 1};
        while (fab_peer_send_batch(me->race->f.peers[0], me->lane, &b, UINT64_MAX, &done, &offset) == 0)
            sched_yield();
    }
    atomic_fetch_add(&me->race->ended, 1);
    return NULL;
}

static void *answer(void *arg) {
    const struct asker *me = arg;
    struct fab_peer *s = me->race->f.peers[me->lane];
    struct fab_columns *cols = malloc(sizeof *cols);
    CHECK(cols != NULL);
    for (uint32_t replied = 0; replied < RACE_CALLS;) {
        int32_t lane = fab_peer_commit_and_receive(s, -1, 0, 256, UINT64_MAX, cols);
        if (lane < 0) {
            sched_yield();
            continue;
        }
        for (uint64_t i = 0; i < cols->count; i++, replied++) {
            struct fab_record r = {
                .kind = FAB_KIND_REPLY, .correlation = cols->correlations[i], .sent_at = 1};
            while (fab_peer_send(s, 0, &r, "") == 0)
                sched_yield();
        }
        fab_peer_commit(s, (uint32_t)lane, cols->end);
    }
    free(cols);
    return NULL;
}

static void askers_in_several_threads_share_the_places(void) {
    struct race *race = calloc(1, sizeof *race);
    pthread_t threads[4];
    CHECK(race != NULL);
    start(&race->f, 1);
    race->begin = fab_now();
    struct asker askers[2] = {{race, 1}, {race, 2}};
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(pthread_create(&threads[i], NULL, ask, &askers[i]), 0);
        CHECK_EQ(pthread_create(&threads[2 + i], NULL, answer, &askers[i]), 0);
    }
    uint64_t came = 0;
    while (came < 2 * RACE_CALLS) {
        uint64_t more = receive(&race->f, 0);
        if (more == 0)
            sched_yield();
        came += more;
    }
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    const struct fab_histogram *h = &race->f.peers[0]->meter.measures->round_trip;
    CHECK(h->maximum <=
          (uint64_t)(fab_now() - race->begin)); /* no time of another call, and none of nobody's */
    CHECK(counted(h) > 0 && counted(h) <= 2 * RACE_CALLS);
    for (uint32_t i = 0; i < FAB_ASKED; i++)
        CHECK_EQ(race->f.peers[0]->meter.asked[i].key, 0); /* all were answered, so all are free */
    fixture_fabric_close(&race->f);
    free(race);
}

static const struct check_test tests[] = {
    TEST(a_bucket_is_at_most_a_32nd_of_its_values_wide),
    TEST(a_histogram_counts_adds_up_and_keeps_the_largest),
    TEST(questions_and_replies_are_counted_and_timed),
    TEST(nothing_is_measured_while_the_board_says_no),
    TEST(handler_time_is_that_of_the_class_in_hand),
    TEST(what_was_asked_together_is_timed_from_its_first_part),
    TEST(a_place_that_is_taken_is_not_given_to_a_later_question),
    TEST(a_clock_that_cannot_be_is_counted_and_not_timed),
    TEST(a_survey_tells_what_is_in_flight_at_every_position_of_the_lane),
    TEST(askers_in_several_threads_share_the_places),
};

int main(void) {
    return CHECK_RUN(tests, 60);
}
