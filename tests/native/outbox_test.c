/* SPDX-License-Identifier: MIT */
/* outbox_test.c - what a slice sends in one crossing: where it goes, what is said before, and when nothing is done. */
#include "fixture.h"

#define LANE FAB_PAGE
#define AGENT(index) (UINT64_C(1) << 32 | (index)) /* generation 1; 0 is the coordinator */

/* Records behind one another, as Python lays them out; on the heap, so that a read behind their end is seen. */
struct string {
    uint8_t *at;
    uint64_t bytes;
};

/* Agents 1 to 3 live in processes 1 to 3. We are process 1. */
static void open_world(struct fixture_fabric *f) {
    const uint64_t addresses[] = {0, AGENT(1), AGENT(2), AGENT(3)};
    const uint16_t slots[] = {0, 1, 2, 3};
    fixture_fabric_open(f, 4, LANE);
    fab_table_write(f->whole, addresses, slots, 4, FAB_AGENT_ALIVE);
}

static struct string laid_out(const uint64_t *targets, uint32_t count, uint32_t bytes) {
    struct string s = {.at = malloc(count * (sizeof(struct fab_record) + bytes) + 1)};
    for (uint32_t i = 0; i < count; i++) {
        struct fab_record r = {.size = bytes, .kind = FAB_KIND_MESSAGE, .encoding = (uint8_t)i, .sender = i};
        r.target = targets[i];
        r.correlation = 10 + i;
        memcpy(s.at + s.bytes, &r, sizeof r);
        fixture_fill(s.at + s.bytes + sizeof r, i, bytes);
        s.bytes += sizeof r + bytes;
    }
    s.at = realloc(s.at, s.bytes);
    return s;
}

static int pass(struct fixture_fabric *f, int32_t of, uint32_t behind, const uint64_t *targets,
                uint32_t count, uint32_t bytes) {
    struct string s = laid_out(targets, count, bytes);
    int rc = fab_peer_outbox_pass(f->peers[1], of, 4096, behind, s.at, s.bytes);
    free(s.at);
    return rc;
}

/* Be a successor of worker 1; return the lane of the slice that was published, -1 for none. */
static int32_t succeed(struct fixture_fabric *f, uint64_t *end) {
    memset(f->peers[1], 0, sizeof *f->peers[1]);
    CHECK_EQ(fab_peer_init(f->peers[1], &f->header, 1, f->whole, f->whole + fab_block_offset(&f->header, 1)),
             0);
    return fab_peer_published_slice(f->peers[1], end);
}

static uint32_t receive(struct fixture_fabric *f, uint32_t to) {
    uint32_t count = fab_consumer_peek(&f->peers[to]->in[1], FAB_BATCH_MAX, UINT64_MAX, &f->cols);
    fab_peer_commit(f->peers[to], 1, f->cols.end);
    return count;
}

static void records_for_one_worker_go_into_its_lane_and_a_successor_learns_of_it(void) {
    struct fixture_fabric f;
    const uint64_t targets[] = {AGENT(2), AGENT(2), AGENT(2)};
    uint64_t end = 0;
    open_world(&f);
    uint64_t before = (uint64_t)fab_now();
    CHECK_EQ(pass(&f, 3, 0, targets, 3, 20), 1);
    CHECK_EQ(receive(&f, 2), 3);
    CHECK(f.cols.kind == FAB_KIND_MESSAGE && f.cols.size == 20 && f.cols.asks == 3);
    CHECK(f.cols.sent_at >= before && f.cols.sent_at <= (uint64_t)fab_now());
    for (uint32_t i = 0; i < 3; i++) {
        const uint8_t *body = f.peers[2]->in[1].data + f.cols.start + f.cols.starts[i];
        CHECK(f.cols.targets[i] == AGENT(2) && f.cols.senders[i] == i && f.cols.correlations[i] == 10 + i);
        CHECK(f.cols.encodings[i] == i && body[0] == fixture_byte(i, 0) && body[19] == fixture_byte(i, 19));
    }
    CHECK_EQ(succeed(&f, &end), 3);
    CHECK_EQ(end, 4096);
    fixture_fabric_close(&f);
}

static void records_of_no_slice_say_nothing(void) {
    struct fixture_fabric f;
    const uint64_t targets[] = {AGENT(2)};
    uint64_t end = 0;
    open_world(&f);
    CHECK_EQ(pass(&f, -1, 0, targets, 1, 20), 1);
    CHECK_EQ(receive(&f, 2), 1);
    CHECK_EQ(succeed(&f, &end), -1);
    fixture_fabric_close(&f);
}

static void a_slice_for_several_workers_goes_through_the_outbox_by_one_store(void) {
    struct fixture_fabric f;
    const uint64_t targets[] = {AGENT(2), AGENT(3), 0, AGENT(2)};
    uint64_t end = 0;
    uint64_t lost = 0;
    open_world(&f);
    CHECK_EQ(pass(&f, -1, 0, targets, 4, 20),
             0); /* nothing demands one store: Python sends them lane by lane */
    CHECK_EQ(pass(&f, 0, 0, targets, 4, 20), 2);
    CHECK_EQ(receive(&f, 2), 0);
    CHECK_EQ(succeed(&f, &end), 0);
    CHECK_EQ(fixture_flush(f.peers[1], &lost), 1);
    CHECK_EQ(receive(&f, 2), 2);
    CHECK(f.cols.correlations[0] == 10 && f.cols.correlations[1] == 13);
    CHECK_EQ(receive(&f, 3), 1);
    CHECK_EQ(receive(&f, 0), 1);
    CHECK_EQ(lost, 0);
    fixture_fabric_close(&f);
}

static void records_queue_behind_what_lies_in_the_outbox(void) {
    struct fixture_fabric f;
    const uint64_t targets[] = {AGENT(2)};
    uint64_t lost = 0;
    open_world(&f);
    for (int32_t of = -1; of < 1; of++)
        CHECK_EQ(pass(&f, of, 1, targets, 1, 20), 2);
    CHECK_EQ(receive(&f, 2), 0);
    CHECK_EQ(fixture_flush(f.peers[1], &lost), 1);
    CHECK_EQ(receive(&f, 2), 2);
    fixture_fabric_close(&f);
}

static void nothing_is_done_when_somebody_is_gone_or_a_record_is_none(void) {
    struct fixture_fabric f;
    const uint64_t targets[] = {AGENT(2), AGENT(2)};
    const uint64_t gone[] = {AGENT(2), AGENT(63), AGENT(1000)};
    uint64_t end = 0;
    open_world(&f);
    struct fab_peer before = *f.peers[1];
    struct string s = laid_out(targets, 2, 20);
    for (uint32_t behind = 0; behind < 2; behind++) {
        CHECK_EQ(pass(&f, 0, behind, gone, 2, 20), 0);
        CHECK_EQ(pass(&f, 0, behind, gone + 1, 1, 20), 0);
        CHECK_EQ(pass(&f, 0, behind, gone + 2, 1, 20), 0);
        for (uint64_t bytes = 0; bytes < s.bytes; bytes++) { /* cut off anywhere but behind a record */
            uint8_t *part = malloc(bytes + 1);
            memcpy(part, s.at, bytes);
            part = realloc(part, bytes != 0 ? bytes : 1);
            if (bytes != s.bytes / 2)
                CHECK_EQ(fab_peer_outbox_pass(f.peers[1], 0, 4096, behind, part, bytes), 0);
            free(part);
        }
        const uint16_t pad = FAB_KIND_PAD;
        uint8_t *kind = s.at + offsetof(struct fab_record, kind);
        memcpy(kind, &pad, sizeof pad);
        CHECK_EQ(fab_peer_outbox_pass(f.peers[1], 0, 4096, behind, s.at, s.bytes), 0);
        *kind = FAB_KIND_MESSAGE;
    }
    CHECK(f.peers[1]->out[2].next == before.out[2].next &&
          f.peers[1]->outbox_in.next == before.outbox_in.next);
    CHECK_EQ(succeed(&f, &end), -1);
    free(s.at);
    fixture_fabric_close(&f);
}

static void what_a_lane_does_not_take_for_certain_goes_to_the_outbox_and_then_nowhere(void) {
    struct fixture_fabric f;
    const uint64_t targets[] = {AGENT(2), AGENT(2), AGENT(2)};
    int last = 1;
    open_world(&f);
    for (uint32_t n = 0; n < 20; n++) { /* nobody reads: 3 times 1,024 of 4,096 bytes, then 8,192 more */
        int rc = pass(&f, 0, last == 2, targets, 3, 1024 - 48);
        CHECK(rc == 1 ? last == 1 : rc == 2 ? last != 0 : 1);
        last = rc;
    }
    CHECK_EQ(last, 0);
    fixture_fabric_close(&f);
}

/* Wherever the lane stands: all that was passed is there after one store, in order, and nothing else. */
static void what_is_passed_is_whole_wherever_the_lane_stands(void) {
    struct fixture_fabric f;
    const uint64_t targets[] = {AGENT(2), AGENT(2), AGENT(2), AGENT(2)};
    uint64_t seed = 11;
    open_world(&f);
    for (uint32_t round = 0; round < 5000; round++) {
        uint32_t count = 1 + fixture_below(&seed, 4);
        uint32_t bytes = fixture_below(&seed, 700);
        uint64_t fits = (count + 1) * fab_record_span(bytes);
        CHECK_EQ(pass(&f, -1, 0, targets, count, bytes), fits <= LANE);
        uint32_t found = 0;
        for (uint32_t some; (some = receive(&f, 2)) != 0; found += some)
            for (uint32_t i = 0; i < some; i++)
                CHECK(f.cols.correlations[i] == 10 + found + i && f.cols.ends[i] - f.cols.starts[i] == bytes);
        CHECK_EQ(found, fits <= LANE ? count : 0);
    }
    fixture_fabric_close(&f);
}

static void what_was_said_and_not_published_is_struck_out(void) {
    struct fixture_fabric f;
    const uint64_t targets[] = {AGENT(2)};
    uint64_t end = 0;
    for (int32_t lane = -1; lane < 4; lane++) {
        open_world(&f);
        fab_peer_intend_slice(f.peers[1], lane, 2, 4096);
        CHECK_EQ(succeed(&f, &end), -1);
        CHECK_EQ(pass(&f, -1, lane < 0, targets, 1, 20),
                 lane < 0 ? 2 : 1); /* moves that tail for another reason */
        CHECK_EQ(succeed(&f, &end), -1);
        fixture_fabric_close(&f);
    }
}

static const struct check_test tests[] = {
    TEST(records_for_one_worker_go_into_its_lane_and_a_successor_learns_of_it),
    TEST(records_of_no_slice_say_nothing),
    TEST(a_slice_for_several_workers_goes_through_the_outbox_by_one_store),
    TEST(records_queue_behind_what_lies_in_the_outbox),
    TEST(nothing_is_done_when_somebody_is_gone_or_a_record_is_none),
    TEST(what_a_lane_does_not_take_for_certain_goes_to_the_outbox_and_then_nowhere),
    TEST(what_is_passed_is_whole_wherever_the_lane_stands),
    TEST(what_was_said_and_not_published_is_struck_out),
};

int main(void) {
    return CHECK_RUN(tests, 20);
}
