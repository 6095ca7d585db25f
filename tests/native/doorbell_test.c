/* SPDX-License-Identifier: MIT */
/* doorbell_test.c - who is rung and when, how long to spin, when all is quiet. No wait is waited out. */
#include "fixture.h"

#include <pthread.h>

#define KIND 7u
#define ALL_REASONS (FAB_WAITS_MESSAGES | FAB_WAITS_ROOM | FAB_WAITS_QUIET)

static int bell_open(void) {
    int bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK(bell >= 0);
    return bell;
}

static void send(struct fixture_fabric *f, uint32_t from, uint32_t to) {
    struct fab_record r = {.size = 4, .kind = KIND};
    CHECK_EQ(fab_peer_send(f->peers[from], to, &r, "body"), 1);
}

/* Read what is there, and hand it back. Returns how many. */
static uint32_t receive(struct fixture_fabric *f, uint32_t to) {
    uint32_t count = 0;
    for (int32_t lane; (lane = fab_peer_receive(f->peers[to], 99, UINT64_MAX, &f->cols)) >= 0;) {
        fab_peer_commit(f->peers[to], (uint32_t)lane, f->cols.end);
        count += (uint32_t)f->cols.count;
    }
    return count;
}

static void a_bell_rings_for_the_reasons_that_were_given_only(void) {
    int bell = bell_open();
    _Atomic(uint32_t) sleeping = 0;
    CHECK_EQ(fab_doorbell_notify(&sleeping, ALL_REASONS, bell), 0);
    for (uint32_t waits = 1; waits <= ALL_REASONS; waits++)
        for (uint32_t reason = 1; reason <= FAB_WAITS_QUIET; reason *= 2) {
            atomic_store(&sleeping, waits);
            int rings = (waits & reason) != 0;
            CHECK_EQ(fab_doorbell_notify(&sleeping, reason, bell), rings);
            CHECK_EQ(fab_doorbell_clear(bell), rings);
        }
    CHECK_EQ(atomic_load(&sleeping), ALL_REASONS); /* only the sleeper writes its word */
    close(bell);
}

static void a_saturated_bell_neither_blocks_nor_loses_its_ring_nor_touches_errno(void) {
    int bell = bell_open();
    const uint64_t most = UINT64_MAX - 1;
    errno = 77;
    CHECK_EQ(fab_doorbell_clear(bell), 0);
    CHECK_EQ(write(bell, &most, sizeof most), sizeof most);
    fab_doorbell_ring(bell);
    fab_doorbell_ring(bell);
    CHECK_EQ(fab_doorbell_clear(bell), 1);
    CHECK_EQ(fab_doorbell_clear(bell), 0);
    fab_doorbell_ring(-1); /* nobody there */
    CHECK_EQ(errno, 77);
    close(bell);
}

static void messages_ring_a_sleeper_for_messages_and_commits_one_for_room(void) {
    struct fixture_fabric f;
    fixture_fabric_open(&f, 2, FAB_PAGE);
    send(&f, 0, 1); /* awake: no bell */
    CHECK_EQ(fab_doorbell_clear(f.bells[1]), 0);
    atomic_store(&f.peers[1]->words->sleeping, FAB_WAITS_ROOM);
    send(&f, 0, 1);
    CHECK_EQ(fab_doorbell_clear(f.bells[1]), 0);
    atomic_store(&f.peers[1]->words->sleeping, FAB_WAITS_MESSAGES);
    send(&f, 0, 1);
    CHECK_EQ(fab_doorbell_clear(f.bells[1]), 1);
    atomic_store(&f.peers[0]->words->sleeping, FAB_WAITS_MESSAGES);
    CHECK_EQ(fab_consumer_peek(&f.peers[1]->in[0], 1, 0, &f.cols), 1);
    fab_peer_commit(f.peers[1], 0, f.cols.end);
    CHECK_EQ(fab_doorbell_clear(f.bells[0]), 0);
    atomic_store(&f.peers[0]->words->sleeping, FAB_WAITS_ROOM);
    fab_peer_commit(f.peers[1], 0, f.cols.end); /* moves nothing */
    CHECK_EQ(fab_doorbell_clear(f.bells[0]), 0);
    CHECK_EQ(receive(&f, 1), 2);
    CHECK_EQ(fab_doorbell_clear(f.bells[0]), 1);
    fixture_fabric_close(&f);
}

static void a_peer_without_bells_rings_nobody(void) {
    struct fixture_fabric f;
    fixture_fabric_open(&f, 3, FAB_PAGE);
    struct fab_peer *fresh = calloc(1, sizeof *fresh);
    CHECK_EQ(fab_peer_init(fresh, &f.header, 1, f.whole, f.whole + fab_block_offset(&f.header, 1)), 0);
    for (int p = 0; p < 3; p++) /* descriptor 0 would be standard input */
        CHECK_EQ(fresh->bells[p], -1);
    CHECK_EQ(fresh->bell, -1);
    free(fresh);
    fixture_fabric_close(&f);
}

static void the_spin_follows_the_recent_waits_up_to_its_limit(void) {
    struct fab_spin s = {.probe_interval = FAB_SPIN_PROBE_AT_LEAST};
    CHECK_EQ(fab_spin_budget(&s), 0); /* never */
    s.limit_ns = 20000;
    CHECK_EQ(fab_spin_budget(&s), 2000);
    fab_spin_learn(&s, 2000, 8000, 0);
    CHECK_EQ(s.mean_ns, 2000);
    CHECK_EQ(fab_spin_budget(&s), 6000);
    for (int i = 0; i < 50; i++)
        fab_spin_learn(&s, 6000, 12000, 0);
    CHECK_EQ(fab_spin_budget(&s), 20000);
    for (int i = 0; i < 50; i++)
        fab_spin_learn(&s, 20000, INT64_C(3600) * 1000000000, 1); /* an idle hour counts as 1 ms */
    CHECK(s.mean_ns > FAB_SPIN_WORTH_PROBING_NS && s.mean_ns <= 1000000);
    CHECK_EQ(fab_spin_budget(&s), 0);
}

static void a_spin_that_fails_is_given_up_and_probed_ever_more_rarely(void) {
    struct fab_spin s = {.limit_ns = 20000, .probe_interval = FAB_SPIN_PROBE_AT_LEAST};
    for (int failure = 0; failure < 8; failure++) {
        CHECK(fab_spin_budget(&s) > 0 && fab_spin_budget(&s) <= 20000);
        fab_spin_learn(&s, 20000, 50000, 1);
    }
    for (uint32_t interval = FAB_SPIN_PROBE_AT_LEAST; interval <= 2 * FAB_SPIN_PROBE_AT_MOST; interval *= 2) {
        CHECK_EQ(fab_spin_budget(&s), 60000); /* a probe of three times the limit */
        fab_spin_learn(&s, 60000, 110000, 1);
        uint32_t quiet = interval < FAB_SPIN_PROBE_AT_MOST ? interval : FAB_SPIN_PROBE_AT_MOST;
        for (uint32_t i = 0; i < quiet; i++)
            CHECK_EQ(fab_spin_budget(&s), 0);
    }
    fab_spin_learn(&s, 60000, 1000, 0); /* one success */
    CHECK(fab_spin_budget(&s) > 0 && fab_spin_budget(&s) <= 20000);
    CHECK_EQ(s.probe_interval, FAB_SPIN_PROBE_AT_LEAST);
}

static void who_has_no_core_to_spare_does_not_spin(void) {
    struct fixture_fabric f;
    fixture_fabric_open(&f, 3, FAB_PAGE);
    CHECK_EQ(fab_peer_awake(f.peers[0]), 3);
    atomic_store(&f.peers[1]->words->sleeping, FAB_WAITS_MESSAGES);
    CHECK_EQ(fab_peer_awake(f.peers[0]), 2);
    atomic_store(&f.peers[2]->words->present, 0); /* nobody in slot 2 */
    CHECK_EQ(fab_peer_awake(f.peers[0]), 1);
    fab_peer_tune(f.peers[0], 1, 20000);
    CHECK_EQ(f.peers[0]->spin.limit_ns, 0);
    fab_peer_tune(f.peers[0], 2, 20000);
    CHECK_EQ(f.peers[0]->spin.limit_ns, 20000);
    fixture_fabric_close(&f);
}

static void all_is_quiet_when_nothing_is_in_flight_anywhere(void) {
    struct fixture_fabric f;
    uint64_t lost = 0;
    const uint64_t address = UINT64_C(1) << 32 | 5;
    const uint16_t slot = 2;
    fixture_fabric_open(&f, 3, FAB_PAGE);
    fab_table_write(f.whole, &address, &slot, 1, FAB_AGENT_ALIVE);
    for (uint32_t p = 0; p < 3; p++)
        CHECK_EQ(fab_peer_quiet(f.peers[p]), 1);
    send(&f, 0, 1);
    CHECK_EQ(fab_peer_quiet(f.peers[2]), 0);
    CHECK_EQ(fab_peer_receive(f.peers[1], 1, 0, &f.cols), 0);
    CHECK_EQ(fab_peer_quiet(f.peers[0]), 0); /* looked at is not handled */
    struct fab_batch b = {
        .header = {.kind = KIND, .target = address}, .bytes = (const uint8_t *)"", .count = 1};
    uint32_t done = 0;
    uint64_t offset = 0;
    CHECK_EQ(fab_peer_outbox_batch(f.peers[1], &b, &done, &offset), 1);
    fab_peer_commit(f.peers[1], 0, f.cols.end);
    CHECK_EQ(fab_peer_quiet(f.peers[0]), 0); /* its consequence lies in the outbox of 1 */
    CHECK_EQ(fixture_flush(f.peers[1], &lost), 1);
    CHECK_EQ(fab_peer_quiet(f.peers[0]), 0); /* now in the lane to 2 */
    send(&f, 2, 0);
    CHECK_EQ(receive(&f, 2), 1);
    CHECK_EQ(fab_peer_quiet(f.peers[0]), 0); /* the reply is under way */
    CHECK_EQ(receive(&f, 0), 1);
    for (uint32_t p = 0; p < 3; p++)
        CHECK_EQ(fab_peer_quiet(f.peers[p]), 1);
    struct fab_record r = {.kind = KIND};
    CHECK_EQ(fab_peer_send(f.peers[2], 3, &r, "body"), 1); /* control lanes count too */
    CHECK_EQ(fab_peer_quiet(f.peers[0]), 0);
    fixture_fabric_close(&f);
}

static void park_returns_at_once_when_there_is_what_it_waits_for(void) {
    struct fixture_fabric f;
    fixture_fabric_open(&f, 2, FAB_PAGE);
    struct fab_peer *s = f.peers[0];
    const int64_t hour = INT64_C(3600) * 1000000000;
    CHECK_EQ(fab_peer_park(s, FAB_WAITS_QUIET, -1, hour), 1);
    send(&f, 1, 0);
    CHECK_EQ(fab_peer_park(s, FAB_WAITS_MESSAGES, -1, hour), 1);
    CHECK_EQ(fab_peer_wait(s, FAB_WAITS_MESSAGES, -1, hour), 1);
    CHECK_EQ(receive(&f, 0), 1);
    struct fab_record r = {.size = FAB_PAGE / 2 - 48, .kind = KIND};
    static const uint8_t body[FAB_PAGE];
    for (int i = 0; i < 3; i++)
        CHECK_EQ(fab_peer_send(s, 1, &r, body), i < 2);
    CHECK_EQ(fab_peer_room_came(s), 0);
    CHECK_EQ(receive(&f, 1), 2);
    CHECK_EQ(fab_peer_park(s, FAB_WAITS_ROOM, -1, hour), 1);
    CHECK_EQ(s->words->counters[FAB_COUNT_PARKS], 0); /* it never got as far as blocking */
    CHECK_EQ(atomic_load(&s->words->sleeping), 0);
    fixture_fabric_close(&f);
}

static void park_ends_for_a_bell_a_descriptor_or_the_time(void) {
    struct fixture_fabric f;
    int ends[2];
    fixture_fabric_open(&f, 2, FAB_PAGE);
    struct fab_peer *s = f.peers[0];
    const int64_t hour = INT64_C(3600) * 1000000000;
    CHECK_EQ(pipe(ends), 0);
    fab_peer_ring(f.peers[1], 0); /* somebody died, or left something outside the lanes */
    CHECK_EQ(fab_peer_park(s, FAB_WAITS_MESSAGES, ends[0], hour), 1);
    CHECK_EQ(fab_doorbell_clear(f.bells[0]), 0);
    CHECK_EQ(fab_peer_park(s, FAB_WAITS_MESSAGES, ends[0], 0), 0);
    CHECK_EQ(fab_peer_park(s, FAB_WAITS_MESSAGES, ends[0], -5), 0); /* a deadline that has passed */
    int64_t start = fab_now();
    CHECK_EQ(fab_peer_wait(s, FAB_WAITS_MESSAGES, ends[0], 3000000), 0);
    CHECK(fab_now() - start >= 3000000);
    CHECK_EQ(close(ends[1]), 0);
    CHECK_EQ(fab_peer_park(s, FAB_WAITS_MESSAGES, ends[0], hour), 2);
    CHECK_EQ(s->words->counters[FAB_COUNT_PARKS], 5);
    CHECK_EQ(close(ends[0]), 0);
    fixture_fabric_close(&f);
}

static void a_worker_that_parks_rings_a_coordinator_that_waits_for_quiet(void) {
    struct fixture_fabric f;
    fixture_fabric_open(&f, 3, FAB_PAGE);
    atomic_store(&f.peers[0]->words->sleeping, FAB_WAITS_MESSAGES);
    CHECK_EQ(fab_peer_park(f.peers[1], FAB_WAITS_MESSAGES, -1, 0), 0);
    CHECK_EQ(fab_doorbell_clear(f.bells[0]), 0);
    atomic_store(&f.peers[0]->words->sleeping, FAB_WAITS_QUIET);
    CHECK_EQ(fab_peer_park(f.peers[1], FAB_WAITS_MESSAGES, -1, 0), 0);
    CHECK_EQ(fab_doorbell_clear(f.bells[0]), 1);
    fixture_fabric_close(&f);
}

static void a_broken_lane_is_no_reason_to_stay_awake(void) {
    struct fixture_fabric f;
    fixture_fabric_open(&f, 3, FAB_PAGE);
    atomic_store(f.peers[1]->out[0].tail, 8);
    CHECK_EQ(fab_peer_ready(f.peers[0]), 0);
    CHECK_EQ(fab_peer_dropped(f.peers[0]), 1);
    CHECK_EQ(fab_peer_park(f.peers[0], FAB_WAITS_MESSAGES, -1, 0), 0);
    send(&f, 2, 0); /* and the other lanes go on */
    CHECK_EQ(fab_peer_wait(f.peers[0], FAB_WAITS_MESSAGES, -1, 0), 1);
    CHECK_EQ(receive(&f, 0), 1);
    fixture_fabric_close(&f);
}

static void a_lane_that_is_mended_goes_on_where_it_was_committed(void) {
    struct fixture_fabric f;
    fixture_fabric_open(&f, 2, FAB_PAGE);
    send(&f, 1, 0);
    CHECK_EQ(receive(&f, 0), 1);
    uint64_t committed = atomic_load(f.peers[1]->out[0].head);
    atomic_store(f.peers[1]->out[0].tail, committed + 8);
    CHECK_EQ(fab_peer_ready(f.peers[0]), 0);
    CHECK_EQ(fab_peer_dropped_of(f.peers[0], 1), 1);
    CHECK_EQ(fab_peer_dropped_of(f.peers[0], 0), 0);
    f.peers[0]->garbled[1] = 1;
    atomic_store(f.peers[1]->out[0].tail, committed); /* it is dead */
    fab_peer_mend(f.peers[0], 1);
    CHECK_EQ(fab_peer_dropped(f.peers[0]), 1); /* what was counted stays so */
    CHECK_EQ(f.peers[0]->garbled[1], 0);
    send(&f, 1, 0);
    CHECK_EQ(receive(&f, 0), 1);
    fixture_fabric_close(&f);
}

/* Publish to a sleeper, and do not ring: what a broken protocol does. */
static void *publish_without_ringing(void *arg) {
    struct fixture_fabric *f = arg;
    struct fab_record r = {.kind = KIND};
    while (atomic_load(&f->peers[0]->words->sleeping) == 0)
        continue;
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL); /* likely, not surely, it blocks by then */
    CHECK_EQ(fab_producer_put(&f->peers[1]->out[0], &r, ""), 1);
    fab_producer_publish(&f->peers[1]->out[0]);
    return NULL;
}

static void work_that_nobody_rang_for_is_an_alarm(void) {
    struct fixture_fabric f;
    fixture_fabric_open(&f, 2, FAB_PAGE);
    while (f.peers[0]->words->counters[FAB_COUNT_ALARMS] == 0) {
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, publish_without_ringing, &f), 0);
        while (!fab_peer_ready(f.peers[0]))
            CHECK(fab_peer_park(f.peers[0], FAB_WAITS_MESSAGES, -1, 20000000) >= 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK_EQ(receive(&f, 0), 1);
    }
    f.peers[0]->words->counters[FAB_COUNT_ALARMS] = 0;
    fixture_fabric_close(&f);
}

static const struct check_test tests[] = {
    TEST(a_bell_rings_for_the_reasons_that_were_given_only),
    TEST(a_saturated_bell_neither_blocks_nor_loses_its_ring_nor_touches_errno),
    TEST(messages_ring_a_sleeper_for_messages_and_commits_one_for_room),
    TEST(a_peer_without_bells_rings_nobody),
    TEST(the_spin_follows_the_recent_waits_up_to_its_limit),
    TEST(a_spin_that_fails_is_given_up_and_probed_ever_more_rarely),
    TEST(who_has_no_core_to_spare_does_not_spin),
    TEST(all_is_quiet_when_nothing_is_in_flight_anywhere),
    TEST(park_returns_at_once_when_there_is_what_it_waits_for),
    TEST(park_ends_for_a_bell_a_descriptor_or_the_time),
    TEST(a_worker_that_parks_rings_a_coordinator_that_waits_for_quiet),
    TEST(a_broken_lane_is_no_reason_to_stay_awake),
    TEST(a_lane_that_is_mended_goes_on_where_it_was_committed),
    TEST(work_that_nobody_rang_for_is_an_alarm),
};

int main(void) {
    return CHECK_RUN(tests, 20);
}
