/* SPDX-License-Identifier: MIT */
/* journal_test.c - what a worker writes down is what its successor reads, wherever the ring stands. */
#include "fixture.h"

#include "fab_journal.h"

#define STATE 17

/* Send records of `bytes` bytes to worker 1 and have it receive them. Returns how many. */
static uint32_t deliver(struct fixture_fabric *f, uint32_t count, uint8_t first, uint32_t bytes) {
    uint8_t body[256];
    for (uint32_t i = 0; i < count; i++) {
        memset(body, first + (int)i, sizeof body);
        CHECK_EQ(fab_peer_send_one(f->peers[0], 1, 2, 100 + i, 0, 7, body, bytes), 1);
    }
    return fab_peer_receive(f->peers[1], 64, 4096, &f->cols) == 0 ? (uint32_t)f->cols.count : 0;
}

static int write_run(struct fixture_fabric *f) {
    return fab_peer_journal_run(f->peers[1], 0, f->cols.end - f->cols.bytes, f->cols.end);
}

static void succeed(struct fixture_fabric *f) {
    uint8_t *block = f->whole + fab_block_offset(&f->header, 1);
    memset(f->peers[1], 0, sizeof *f->peers[1]);
    CHECK_EQ(fab_peer_init(f->peers[1], &f->header, 1, f->whole, block), 0);
}

static void a_run_is_read_by_a_successor_as_it_lay_in_its_lane(void) {
    struct fixture_fabric f;
    fixture_fabric_open(&f, 2, FAB_PAGE);
    CHECK_EQ(deliver(&f, 3, 'a', 20), 3);
    uint64_t bytes = f.cols.bytes;
    uint64_t end = f.cols.end;
    CHECK_EQ(write_run(&f), 1);
    fab_peer_commit(f.peers[1], 0, end);
    succeed(&f);
    CHECK_EQ(fab_peer_journal_peek(f.peers[1], &f.cols), 1);
    CHECK_EQ(f.cols.kind, FAB_KIND_RUN);
    CHECK(f.cols.targets[0] == 0 && f.cols.senders[0] == end - bytes && f.cols.correlations[0] == end);
    CHECK_EQ(f.cols.ends[0] - f.cols.starts[0], bytes);
    const uint8_t *data = f.peers[1]->journal_out.data + f.cols.start + f.cols.starts[0];
    for (uint32_t i = 0; i < 3; i++) {
        struct fab_record r;
        memcpy(&r, data + i * fab_record_span(20), sizeof r);
        CHECK(r.size == sizeof r + 20 && r.target == 100 + i && r.correlation == 7);
        CHECK_EQ(data[i * fab_record_span(20) + sizeof r], 'a' + i);
    }
    CHECK_EQ(fab_peer_journal_peek(f.peers[1], &f.cols), 0);
    fixture_fabric_close(&f);
}

static void a_run_that_is_not_in_the_lane_is_refused(void) {
    struct fixture_fabric f;
    fixture_fabric_open(&f, 2, FAB_PAGE);
    CHECK_EQ(deliver(&f, 2, 'a', 20), 2);
    uint64_t end = f.cols.end;
    CHECK_EQ(fab_peer_journal_run(f.peers[1], 0, end, end + 64), -EINVAL); /* not read yet */
    CHECK_EQ(fab_peer_journal_run(f.peers[1], 2, 0, end), -EINVAL);        /* no data lane */
    CHECK_EQ(fab_peer_journal_run(f.peers[1], 0, end, 0), -EINVAL);        /* backwards */
    CHECK_EQ(fab_peer_journal_run(f.peers[0], 1, 0, 0), -EINVAL);          /* it has none */
    CHECK_EQ(fab_peer_journal_room(f.peers[0]), 0);
    CHECK_EQ(fab_peer_journal_run(f.peers[1], 0, f.cols.end - f.cols.bytes, end), 1);
    fixture_fabric_close(&f);
}

static void what_is_given_up_makes_room_round_and_round(void) {
    struct fixture_fabric f;
    fixture_fabric_open(&f, 2, FAB_PAGE); /* the journal has 8192 bytes */
    for (int round = 0; round < 100; round++) {
        uint64_t begin = fab_peer_journal_tail(f.peers[1]);
        uint32_t runs = 0;
        CHECK(deliver(&f, 4, (uint8_t)round, 100) > 0);
        while (write_run(&f) == 1)
            runs++;
        CHECK(runs > 0 && runs < 8192 / 100);
        fab_peer_commit(f.peers[1], 0, f.cols.end);
        while (fab_peer_receive(f.peers[1], 64, 4096, &f.cols) ==
               0) /* a run ends where the lane's data does */
            fab_peer_commit(f.peers[1], 0, f.cols.end);
        fab_peer_journal_forget(f.peers[1], begin - 16); /* before the head: nothing */
        fab_peer_journal_forget(f.peers[1], fab_peer_journal_tail(f.peers[1]) + 16);
        succeed(&f);
        uint32_t seen = 0;
        uint32_t count;
        while ((count = fab_peer_journal_peek(f.peers[1], &f.cols)) != 0)
            seen += count;
        CHECK_EQ(seen, runs);
        fab_peer_journal_forget(f.peers[1], fab_peer_journal_tail(f.peers[1]));
        CHECK_EQ(fab_peer_journal_room(f.peers[1]), 2 * FAB_PAGE);
    }
    fixture_fabric_close(&f);
}

static void a_batch_of_states_keeps_targets_and_order(void) {
    struct fixture_fabric f;
    const uint64_t targets[] = {5, 6, 7};
    const uint32_t sizes[] = {3, 0, 2};
    struct fab_batch b = {.header = {.kind = STATE},
                          .targets = targets,
                          .sizes = sizes,
                          .bytes = (const uint8_t *)"abcde",
                          .bytes_count = 5,
                          .count = 3};
    uint32_t done = 0;
    uint64_t offset = 0;
    fixture_fabric_open(&f, 2, FAB_PAGE);
    CHECK_EQ(fab_peer_journal_batch(f.peers[0], &b, &done, &offset), -EINVAL);
    CHECK_EQ(fab_peer_journal_batch(f.peers[1], &b, &done, &offset), 3);
    succeed(&f);
    CHECK_EQ(fab_peer_journal_peek(f.peers[1], &f.cols), 3);
    for (int i = 0; i < 3; i++)
        CHECK(f.cols.targets[i] == targets[i] && f.cols.ends[i] - f.cols.starts[i] == sizes[i]);
    CHECK_EQ(fab_peer_quiet(f.peers[0]), 1); /* what is written down is not in flight */
    fixture_fabric_close(&f);
}

static const struct check_test tests[] = {
    TEST(a_run_is_read_by_a_successor_as_it_lay_in_its_lane),
    TEST(a_run_that_is_not_in_the_lane_is_refused),
    TEST(what_is_given_up_makes_room_round_and_round),
    TEST(a_batch_of_states_keeps_targets_and_order),
};

int main(void) {
    return CHECK_RUN(tests, 20);
}
