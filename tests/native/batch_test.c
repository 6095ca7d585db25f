/* SPDX-License-Identifier: MIT */
/* batch_test.c - columns in, columns out; the partition by slot; the outbox. One thread. */
#include "fixture.h"

#define LANE FAB_PAGE
#define KIND 7u

/* Read the next run of the lane that leads from `from` to `to`, and hand it back. */
static uint32_t receive(struct fixture_fabric *f, uint32_t from, uint32_t to) {
    uint32_t count = fab_consumer_peek(&f->peers[to]->in[from], FAB_BATCH_MAX, UINT64_MAX, &f->cols);
    fab_peer_commit(f->peers[to], from, f->cols.end);
    return count;
}

static const uint8_t *body(const struct fixture_fabric *f, uint32_t from, uint32_t to, uint32_t i) {
    return f->peers[to]->in[from].data + f->cols.start + f->cols.starts[i];
}

static void columns_that_are_not_given_come_from_the_header(void) {
    struct fixture_fabric f;
    uint32_t done = 0;
    uint64_t offset = 0;
    fixture_fabric_open(&f, 2, LANE);
    struct fab_batch b = {.header = {2, KIND, 3, 1, 40, 50, 60, 0, 70}, .bytes_count = 6, .count = 3};
    b.bytes = (const uint8_t *)"aabbcc";
    uint64_t before = (uint64_t)fab_now();
    CHECK_EQ(fab_peer_send_batch(f.peers[0], 1, &b, UINT64_MAX, &done, &offset), 3);
    CHECK(done == 3 && offset == 6);
    CHECK_EQ(receive(&f, 0, 1), 3);
    CHECK(f.cols.kind == KIND && f.cols.encoding == 3 && f.cols.flags == 1 && f.cols.size == 2);
    CHECK(f.cols.sent_at >= before && f.cols.sent_at <= (uint64_t)fab_now()); /* stamped when it is sent */
    CHECK(f.cols.asks == 3);
    for (uint32_t i = 0; i < 3; i++) {
        CHECK(f.cols.targets[i] == 40 && f.cols.senders[i] == 50 && f.cols.correlations[i] == 60);
        CHECK(memcmp(body(&f, 0, 1, i), "aabbcc" + 2 * i, 2) == 0);
    }
    CHECK_EQ(fab_peer_send_batch(f.peers[0], 1, &b, UINT64_MAX, &done, &offset), 0); /* it is done */
    fixture_fabric_close(&f);
}

static void columns_that_are_given_win_over_the_header(void) {
    struct fixture_fabric f;
    uint32_t done = 0;
    uint64_t offset = 0;
    const uint64_t targets[] = {1, 2, 3};
    const uint64_t senders[] = {4, 5, 6};
    const uint64_t correlations[] = {7, 0, 9};
    const uint32_t sizes[] = {1, 0, 4};
    const uint8_t encodings[] = {5, 6, 5};
    fixture_fabric_open(&f, 2, LANE);
    struct fab_batch b = {.header = {99, KIND, 98, 0, 97, 96, 95, 0, 0},
                          .targets = targets,
                          .senders = senders,
                          .correlations = correlations,
                          .sizes = sizes,
                          .encodings = encodings,
                          .bytes = (const uint8_t *)"abcde",
                          .bytes_count = 5,
                          .count = 3,
                          .numbered = 1};
    CHECK_EQ(fab_peer_send_batch(f.peers[0], 1, &b, UINT64_MAX, &done, &offset), 3);
    CHECK_EQ(receive(&f, 0, 1), 3);
    for (uint32_t i = 0; i < 3; i++) {
        CHECK(f.cols.targets[i] == targets[i] && f.cols.senders[i] == senders[i]);
        CHECK(f.cols.correlations[i] == correlations[i] && f.cols.encodings[i] == encodings[i]);
        CHECK_EQ(f.cols.ends[i] - f.cols.starts[i], sizes[i]);
    }
    CHECK(f.cols.asks == 2 && f.cols.encoding == 256 && f.cols.size == UINT32_MAX);
    CHECK(*body(&f, 0, 1, 0) == 'a' && memcmp(body(&f, 0, 1, 2), "bcde", 4) == 0);
    fixture_fabric_close(&f);
}

static void a_repeated_body_goes_to_all_and_correlations_are_numbered(void) {
    struct fixture_fabric f;
    uint32_t done = 0;
    uint64_t offset = 0;
    fixture_fabric_open(&f, 2, LANE);
    struct fab_batch b = {.header = {3, KIND, 0, 0, 0, 0, 100, 0, 0}, .count = 100};
    b.bytes = (const uint8_t *)"xyz";
    b.bytes_count = 3;
    b.repeated = b.numbered = 1;
    for (uint32_t total = 0; total < 100;) { /* 64 fit at a time */
        int32_t sent = fab_peer_send_batch(f.peers[0], 1, &b, UINT64_MAX, &done, &offset);
        CHECK_EQ(sent, total == 0 ? 64 : 36);
        for (uint32_t count; (count = receive(&f, 0, 1)) != 0;)
            for (uint32_t i = 0; i < count; i++, total++) {
                CHECK_EQ(f.cols.correlations[i], 100 + total);
                CHECK(memcmp(body(&f, 0, 1, i), "xyz", 3) == 0);
            }
    }
    fixture_fabric_close(&f);
}

static void sizes_beyond_the_bytes_are_refused_when_they_come_first(void) {
    struct fixture_fabric f;
    uint32_t done = 0;
    uint64_t offset = 0;
    const uint32_t sizes[] = {2, 2, 2, UINT32_MAX};
    fixture_fabric_open(&f, 2, LANE);
    struct fab_batch b = {.header = {.kind = KIND}, .sizes = sizes, .bytes_count = 5, .count = 4};
    b.bytes = (const uint8_t *)"aabbc";
    CHECK_EQ(fab_peer_send_batch(f.peers[0], 1, &b, UINT64_MAX, &done, &offset), 2);
    CHECK_EQ(fab_peer_send_batch(f.peers[0], 1, &b, UINT64_MAX, &done, &offset), -EINVAL);
    CHECK(done == 2 && offset == 4);
    done = 3;
    CHECK_EQ(fab_peer_send_batch(f.peers[0], 1, &b, UINT64_MAX, &done, &offset), -EINVAL);
    done = 0;
    offset = UINT64_MAX; /* a sum that wraps */
    CHECK_EQ(fab_peer_send_batch(f.peers[0], 1, &b, UINT64_MAX, &done, &offset), -EINVAL);
    CHECK_EQ(receive(&f, 0, 1), 2);
    CHECK_EQ(receive(&f, 0, 1), 0);
    fixture_fabric_close(&f);
}

static void a_body_over_the_limit_is_refused_when_it_comes_first(void) {
    static const uint8_t bytes[2 * LANE];
    struct fixture_fabric f;
    uint32_t done = 0;
    uint64_t offset = 0;
    const uint32_t sizes[] = {10, LANE / 2 - 47};
    fixture_fabric_open(&f, 2, LANE);
    struct fab_batch b = {.header = {.kind = KIND}, .sizes = sizes, .bytes = bytes, .count = 2};
    b.bytes_count = sizeof bytes;
    CHECK_EQ(fab_peer_send_batch(f.peers[0], 1, &b, UINT64_MAX, &done, &offset), 1);
    CHECK_EQ(fab_peer_send_batch(f.peers[0], 1, &b, UINT64_MAX, &done, &offset), -EMSGSIZE);
    CHECK_EQ(fab_peer_send_batch(f.peers[0], 0, &b, UINT64_MAX, &done, &offset), -EINVAL); /* no such lane */
    CHECK_EQ(fab_peer_send_batch(f.peers[0], 4, &b, UINT64_MAX, &done, &offset), -EINVAL);
    CHECK(done == 1 && offset == 10);
    fixture_fabric_close(&f);
}

static void a_batch_that_fits_partly_is_resumed_where_it_stopped(void) {
    static uint8_t bytes[300 * 40];
    struct fixture_fabric f;
    uint32_t sizes[300];
    uint32_t done = 0;
    uint64_t offset = 0;
    uint64_t end = 0;
    fixture_fabric_open(&f, 2, LANE);
    for (uint32_t i = 0; i < 300; i++) {
        sizes[i] = i * 13 % 41;
        fixture_fill(bytes + end, i, sizes[i]);
        end += sizes[i];
    }
    struct fab_batch b = {
        .header = {.kind = KIND}, .sizes = sizes, .bytes = bytes, .count = 300, .numbered = 1};
    b.bytes_count = end;
    for (uint32_t seen = 0; seen < 300;) {
        CHECK(fab_peer_send_batch(f.peers[0], 1, &b, UINT64_MAX, &done, &offset) > 0);
        CHECK(done == 300 || atomic_load(&f.peers[0]->out[1].starved_at) != 0);
        for (uint32_t count; (count = receive(&f, 0, 1)) != 0;)
            for (uint32_t i = 0; i < count; i++, seen++) {
                CHECK_EQ(f.cols.correlations[i], seen);
                CHECK_EQ(f.cols.ends[i] - f.cols.starts[i], sizes[seen]);
                fixture_check_body(body(&f, 0, 1, i), seen, sizes[seen]);
            }
        CHECK_EQ(seen, done);
    }
    CHECK_EQ(offset, end);
    fixture_fabric_close(&f);
}

static void a_window_that_is_full_opens_when_the_consumer_commits(void) {
    struct fixture_fabric f;
    uint32_t done = 0;
    uint64_t offset = 0;
    fixture_fabric_open(&f, 2, LANE);
    struct fab_batch b = {.header = {.kind = KIND}, .count = 1000, .bytes = (const uint8_t *)""};
    for (int round = 0; round < 100; round++) { /* 96 bytes in flight are two records of 48 */
        CHECK_EQ(fab_peer_send_batch(f.peers[0], 1, &b, 96, &done, &offset), 2);
        CHECK_EQ(fab_peer_send_batch(f.peers[0], 1, &b, 96, &done, &offset), 0);
        CHECK_EQ(fab_peer_room_came(f.peers[0]), 0);
        while (receive(&f, 0, 1) != 0)
            continue;
        CHECK_EQ(fab_peer_room_came(f.peers[0]), 1); /* whoever waits for room is told */
    }
    fixture_fabric_close(&f);
}

static void a_partition_is_stable_and_complete(void) {
    enum { MOST = 500, PROCESSES = 17 };
    uint64_t seed = 7;
    uint16_t slots[MOST];
    uint32_t order[MOST];
    uint32_t starts[PROCESSES + 1];
    for (uint32_t count = 0; count < MOST; count++) {
        uint32_t processes = 1 + fixture_below(&seed, PROCESSES);
        uint32_t in_use = 1 + fixture_below(&seed, processes);
        for (uint32_t i = 0; i < count; i++)
            slots[i] = (uint16_t)(processes - 1 - fixture_below(&seed, in_use));
        uint32_t at = 0;
        uint32_t used = fab_partition(slots, count, processes, order, starts);
        for (uint32_t p = 0; p < processes; p++) { /* naive: for each process all messages in order */
            CHECK_EQ(starts[p], at);
            for (uint32_t i = 0; i < count; i++)
                if (slots[i] == p)
                    CHECK_EQ(order[at++], i);
            used -= at != starts[p];
        }
        CHECK_EQ(starts[processes], count);
        CHECK_EQ(used, 0);
    }
}

#define AGENT(index) (UINT64_C(1) << 32 | (index)) /* generation 1; 0 is the coordinator */

/* Agents 1 to 3 live in processes 1 to 3, agent 4 is lost, the rest never was. */
static void outbox_open(struct fixture_fabric *f) {
    const uint64_t addresses[] = {0, AGENT(1), AGENT(2), AGENT(3), AGENT(4)};
    const uint16_t slots[] = {0, 1, 2, 3, 1};
    fixture_fabric_open(f, 4, LANE);
    fab_table_write(f->whole, addresses, slots, 4, FAB_AGENT_ALIVE);
    fab_table_write(f->whole, addresses + 4, slots + 4, 1, FAB_AGENT_LOST);
}

static int32_t outbox_put(struct fixture_fabric *f, const uint64_t *targets, uint32_t count, uint32_t bytes) {
    static const uint8_t data[LANE];
    uint32_t done = 0;
    uint64_t offset = 0;
    struct fab_batch b = {.header = {.size = bytes, .kind = KIND}, .targets = targets, .count = count};
    b.bytes = data;
    b.bytes_count = sizeof data;
    b.repeated = b.numbered = 1;
    return fab_peer_outbox_batch(f->peers[1], &b, &done, &offset);
}

static void the_outbox_flushes_in_order_and_counts_what_it_lost(void) {
    struct fixture_fabric f;
    const uint64_t another_generation = AGENT(2) + AGENT(0);
    const uint64_t targets[] = {AGENT(2),  0,        AGENT(4),    AGENT(2), AGENT(1),
                                AGENT(63), AGENT(3), AGENT(1000), AGENT(2), another_generation};
    uint64_t lost = 0;
    outbox_open(&f);
    CHECK_EQ(outbox_put(&f, targets, 10, 8), 10);
    CHECK_EQ(fab_peer_quiet(f.peers[0]), 0);
    CHECK_EQ(fixture_flush(f.peers[1], &lost), 1);
    CHECK_EQ(lost, 4); /* 4 is lost, 63 never was, 1000 is beyond the table, and the other generation */
    CHECK_EQ(receive(&f, 1, 2), 3);
    CHECK(f.cols.correlations[0] == 0 && f.cols.correlations[1] == 3 && f.cols.correlations[2] == 8);
    CHECK_EQ(receive(&f, 1, 1), 1); /* to itself, through its own lane */
    CHECK_EQ(f.cols.correlations[0], 4);
    CHECK_EQ(receive(&f, 1, 3), 1);
    CHECK_EQ(receive(&f, 1, 0), 1);
    CHECK_EQ(f.cols.correlations[0], 1);
    CHECK_EQ(fab_peer_quiet(f.peers[0]), 1);
    fixture_fabric_close(&f);
}

static void a_full_lane_stops_the_outbox_until_there_is_room(void) {
    struct fixture_fabric f;
    uint64_t targets[65];
    uint64_t lost = 0;
    outbox_open(&f);
    for (int i = 0; i < 65; i++)
        targets[i] = i < 64 ? AGENT(2) : AGENT(3);
    targets[0] = AGENT(3); /* one to 3, 63 to 2, which leave that lane 64 bytes, and one to 3 */
    CHECK_EQ(outbox_put(&f, targets, 65, 16), 65);
    CHECK_EQ(outbox_put(&f, targets + 63, 1, 17), 1);
    CHECK_EQ(fixture_flush(f.peers[1], &lost), 0);
    CHECK_EQ(receive(&f, 1, 3), 2);
    CHECK_EQ(fixture_flush(f.peers[1], &lost), 0); /* still the same one stands at the front */
    CHECK(atomic_load(&f.peers[1]->out[2].starved_at) != 0);
    CHECK_EQ(receive(&f, 1, 2), 63);
    CHECK_EQ(fixture_flush(f.peers[1], &lost), 1);
    CHECK_EQ(receive(&f, 1, 2), 1);
    CHECK_EQ(lost, 0);
    fixture_fabric_close(&f);
}

static void a_full_outbox_takes_what_fits_and_says_what_room_is_certain(void) {
    struct fixture_fabric f;
    const uint64_t targets[] = {AGENT(2), AGENT(2), AGENT(2), AGENT(2), AGENT(2)};
    uint64_t lost = 0;
    outbox_open(&f); /* the outbox has 8192 bytes */
    CHECK_EQ(fab_peer_outbox_room(f.peers[1]), 4096);
    CHECK_EQ(outbox_put(&f, targets, 5, 4096 - 48), 2);
    CHECK_EQ(fab_peer_outbox_room(f.peers[1]), 0);
    CHECK_EQ(outbox_put(&f, targets, 1, 0), 0);
    CHECK_EQ(fixture_flush(f.peers[1], &lost), 1); /* too large for the lanes */
    CHECK_EQ(lost, 2);
    for (uint32_t bytes = 0; bytes < 3000; bytes += 7) { /* wherever it stands: what is certain fits */
        uint64_t room = fab_peer_outbox_room(f.peers[1]);
        CHECK_EQ(outbox_put(&f, targets, 1, (uint32_t)room - 48), 1);
        CHECK_EQ(fixture_flush(f.peers[1], &lost), 1);
        CHECK_EQ(outbox_put(&f, targets + 4, 1, bytes % 512), 1);
        CHECK_EQ(fixture_flush(f.peers[1], &lost), 1);
        CHECK_EQ(receive(&f, 1, 2), 1);
    }
    fixture_fabric_close(&f);
}

static void a_replacement_inherits_the_outbox_and_drops_what_is_no_record(void) {
    struct fixture_fabric f;
    const uint64_t targets[] = {AGENT(2), AGENT(3), AGENT(2)};
    uint64_t lost = 0;
    outbox_open(&f);
    CHECK_EQ(outbox_put(&f, targets, 3, 16), 3);
    uint64_t block = fab_block_offset(&f.header, 1);
    uint8_t *data = f.whole + block + fab_outbox_offset(&f.header, 1);
    memset(data + 64, 0xff, 8); /* the dying process scribbled over the second */
    memset(f.peers[1], 0, sizeof *f.peers[1]);
    CHECK_EQ(fab_peer_init(f.peers[1], &f.header, 1, f.whole, f.whole + block), 0);
    CHECK_EQ(fixture_flush(f.peers[1], &lost), 1);
    CHECK_EQ(lost, 1);
    CHECK_EQ(receive(&f, 1, 2), 1);
    CHECK_EQ(fab_peer_quiet(f.peers[0]), 1);
    fixture_fabric_close(&f);
}

static const struct check_test tests[] = {
    TEST(columns_that_are_not_given_come_from_the_header),
    TEST(columns_that_are_given_win_over_the_header),
    TEST(a_repeated_body_goes_to_all_and_correlations_are_numbered),
    TEST(sizes_beyond_the_bytes_are_refused_when_they_come_first),
    TEST(a_body_over_the_limit_is_refused_when_it_comes_first),
    TEST(a_batch_that_fits_partly_is_resumed_where_it_stopped),
    TEST(a_window_that_is_full_opens_when_the_consumer_commits),
    TEST(a_partition_is_stable_and_complete),
    TEST(the_outbox_flushes_in_order_and_counts_what_it_lost),
    TEST(a_full_lane_stops_the_outbox_until_there_is_room),
    TEST(a_full_outbox_takes_what_fits_and_says_what_room_is_certain),
    TEST(a_replacement_inherits_the_outbox_and_drops_what_is_no_record),
};

int main(void) {
    return CHECK_RUN(tests, 20);
}
