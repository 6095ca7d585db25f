/* SPDX-License-Identifier: MIT */
/*
 * segment_test.c - where things lie: no two regions overlap, they are ordered by writer, each lane leads
 * from its producer to its consumer, and a header that cannot be is refused.
 */
#include "fixture.h"

struct region {
    uint64_t start;
    uint64_t bytes;
    uint32_t writer;
};

struct regions {
    size_t count;
    struct region at[400000];
};

static void add(struct regions *r, uint64_t start, uint64_t bytes, uint32_t writer) {
    CHECK(r->count < sizeof r->at / sizeof *r->at);
    if (bytes != 0)
        r->at[r->count++] = (struct region){start, bytes, writer};
}

/* All that process p writes in its block, from the offsets that its peers use. */
static void add_block(struct regions *r, const struct fab_header *h, uint32_t p) {
    uint64_t block = fab_block_offset(h, p);
    uint32_t lanes = 2 * h->processes;
    add(r, block, sizeof(struct fab_words), p);
    for (uint32_t lane = 0; lane < lanes; lane++) {
        add(r, block + fab_heads_offset() + lane * FAB_LINE, FAB_LINE, p);
        add(r, block + fab_tails_offset(h) + lane * FAB_LINE, FAB_LINE, p);
        add(r, block + fab_data_offset(h, p, lane), fab_lane_bytes(h, p, lane), p);
        CHECK_EQ((block + fab_data_offset(h, p, lane)) % FAB_PAGE, 0);
    }
    add(r, block + fab_outbox_words_offset(h), 2 * FAB_LINE, p);
    add(r, block + fab_journal_words_offset(h), 2 * FAB_LINE, p);
    add(r, block + fab_begun_offset(h), 2 * h->processes * sizeof(uint64_t), p);
    add(r, block + fab_traffic_offset(h), lanes * sizeof(struct fab_traffic), p);
    add(r, block + fab_measures_offset(h), sizeof(struct fab_measures), p);
    add(r, block + fab_last_use_offset(h), h->max_agents * sizeof(uint32_t), p);
    add(r, block + fab_loans_offset(h), h->loans * sizeof(struct fab_loan), p);
    for (uint32_t owner = 0; owner < h->processes; owner++)
        add(r, block + fab_receipts_offset(h, owner), h->loans * sizeof(struct fab_receipt), p);
    add(r, block + fab_outbox_offset(h, p), p == 0 ? 0 : h->outbox_bytes, p);
    add(r, block + fab_journal_offset(h, p), p == 0 ? 0 : h->journal_bytes, p);
    add(r, block + fab_arena_offset(h, p), h->arena_bytes, p);
    CHECK_EQ(block % FAB_PAGE, 0);
    CHECK_EQ(fab_block_offset(h, p + 1) - block, fab_block_bytes(h, p));
}

static int by_start(const void *a, const void *b) {
    uint64_t x = ((const struct region *)a)->start;
    uint64_t y = ((const struct region *)b)->start;
    return (x > y) - (x < y);
}

static void check_layout(struct regions *r, struct fab_header h) {
    CHECK_EQ(fab_header_init(&h), 0);
    CHECK_EQ(fab_header_validate(&h, h.segment_bytes), 0);
    r->count = 0;
    add(r, 0, sizeof h, 0);
    add(r, fab_board_offset(), sizeof(struct fab_board), 0);
    add(r, fab_table_offset(), h.max_agents * sizeof(uint64_t), 0);
    add(r, fab_classes_offset(&h), h.max_agents, 0);
    add(r, fab_class_names_offset(&h), FAB_CLASSES * FAB_CLASS_NAME_BYTES, 0);
    for (uint32_t p = 0; p < h.processes; p++)
        add_block(r, &h, p);
    qsort(r->at, r->count, sizeof *r->at, by_start);
    for (size_t i = 1; i < r->count; i++) {
        CHECK(r->at[i - 1].start + r->at[i - 1].bytes <= r->at[i].start);
        CHECK(r->at[i - 1].writer <= r->at[i].writer);
        /* another writer begins on another page, as only its own pages are mapped writable */
        CHECK(r->at[i - 1].writer == r->at[i].writer || r->at[i].start % FAB_PAGE == 0);
    }
    CHECK(r->at[r->count - 1].start + r->at[r->count - 1].bytes <= h.segment_bytes);
    CHECK_EQ(h.segment_bytes % FAB_PAGE, 0);
}

static struct fab_header sizes(void) {
    return (struct fab_header){.processes = 3,
                               .lane_bytes = 65536,
                               .peer_lane_bytes = 8192,
                               .control_lane_bytes = 4096,
                               .outbox_bytes = 16384,
                               .journal_bytes = 32768,
                               .arena_bytes = 40960,
                               .loans = 100,
                               .max_agents = 1000};
}

static void regions_never_overlap_and_are_ordered_by_writer(void) {
    struct regions *r = malloc(sizeof *r);
    const uint32_t processes[] = {2, 3, 9, 64, FAB_PROCESSES_MAX};
    const uint64_t agents[] = {1, 512, 513, 100001, UINT64_C(1) << 32};
    CHECK(r != NULL);
    for (int i = 0; i < 5; i++) {
        struct fab_header h = sizes();
        h.processes = processes[i];
        h.max_agents = agents[i];
        check_layout(r, h);
        h.lane_bytes = h.peer_lane_bytes = h.control_lane_bytes = h.outbox_bytes = h.journal_bytes =
            UINT64_C(1) << 31;
        h.arena_bytes = UINT64_C(1) << 44;
        h.loans = FAB_LOANS_MAX;
        check_layout(r, h);
        h.lane_bytes = h.peer_lane_bytes = h.control_lane_bytes = h.outbox_bytes = FAB_PAGE;
        h.journal_bytes = 0;
        h.arena_bytes = h.loans = 0;
        check_layout(r, h);
    }
    free(r);
}

static void lanes_exist_where_they_are_used_and_alike_in_both_directions(void) {
    struct fab_header h = sizes();
    for (uint32_t a = 0; a < 3; a++)
        for (uint32_t b = 0; b < 3; b++) {
            uint64_t data = a == 0 && b == 0 ? 0 : a == 0 || b == 0 ? h.lane_bytes : h.peer_lane_bytes;
            uint64_t control = (a == 0) == (b == 0) ? 0 : h.control_lane_bytes;
            CHECK_EQ(fab_lane_bytes(&h, a, b), data);
            CHECK_EQ(fab_lane_bytes(&h, a, b + 3), control);
        }
}

static void a_header_that_is_not_ours_is_refused(void) {
    struct fab_header h = sizes();
    CHECK_EQ(fab_header_init(&h), 0);
    uint64_t bytes = h.segment_bytes;
    CHECK(memcmp(&h, "sfabric", 8) == 0);
    h.magic ^= 1;
    CHECK_EQ(fab_header_validate(&h, bytes), -ENOEXEC);
    h.magic ^= 1;
    h.version++;
    CHECK_EQ(fab_header_validate(&h, bytes), -EPROTO);
    h.version--;
    CHECK_EQ(fab_header_validate(&h, bytes), 0);
    CHECK_EQ(fab_header_validate(&h, bytes - 1), -EINVAL);
    CHECK_EQ(fab_header_validate(&h, bytes + FAB_PAGE), -EINVAL);
    h.arena_bytes += FAB_PAGE; /* sizes that could be, but not in this many bytes */
    CHECK_EQ(fab_header_validate(&h, bytes), -EINVAL);
    h.segment_bytes = bytes + 3 * FAB_PAGE;
    CHECK_EQ(fab_header_validate(&h, bytes), -EINVAL);
    CHECK_EQ(fab_header_validate(&h, bytes + 3 * FAB_PAGE), 0);
}

static void refuse(struct fab_header h) {
    CHECK_EQ(fab_header_init(&h), -EINVAL);
    h.segment_bytes = FAB_PAGE;
    CHECK_EQ(fab_header_validate(&h, FAB_PAGE), -EINVAL);
}

static void sizes_that_cannot_be_are_refused(void) {
    const uint64_t lanes[] = {
        0, 1, 2048, 4095, 4097, 12288, UINT64_C(1) << 32, UINT64_MAX, UINT64_C(1) << 63};
    for (size_t i = 0; i < sizeof lanes / sizeof *lanes; i++) {
        struct fab_header h[4] = {sizes(), sizes(), sizes(), sizes()};
        h[0].lane_bytes = h[1].peer_lane_bytes = h[2].control_lane_bytes = h[3].outbox_bytes = lanes[i];
        for (int size = 0; size < 4; size++)
            refuse(h[size]);
    }
    const uint32_t processes[] = {0, 1, FAB_PROCESSES_MAX + 1, UINT32_MAX};
    const uint64_t arenas[] = {1, 4095, (UINT64_C(1) << 44) + FAB_PAGE, UINT64_MAX};
    const uint64_t agents[] = {0, (UINT64_C(1) << 32) + 1, UINT64_C(1) << 63, UINT64_MAX};
    const uint64_t loans[] = {FAB_LOANS_MAX + 1, UINT64_C(1) << 32, UINT64_C(1) << 63, UINT64_MAX};
    for (int i = 0; i < 4; i++) {
        struct fab_header h[4] = {sizes(), sizes(), sizes(), sizes()};
        h[0].processes = processes[i];
        h[1].arena_bytes = arenas[i];
        h[2].max_agents = agents[i];
        h[3].loans = loans[i];
        for (int size = 0; size < 4; size++)
            refuse(h[size]);
    }
}

static void loans_without_an_arena_are_refused(void) {
    struct fab_header h = sizes();
    h.arena_bytes = 0;
    refuse(h);
    h.loans = 0;
    CHECK_EQ(fab_header_init(&h), 0);
}

static void a_table_word_tells_the_slot_of_the_living_only(void) {
    _Atomic(uint64_t) table[4];
    const uint64_t address = UINT64_C(7) << 32 | 2; /* index 2, generation 7 */
    for (uint32_t state = FAB_AGENT_ALIVE; state <= FAB_AGENT_LOST; state++) {
        atomic_init(&table[2], fab_agent_word(address, state, 0xabcd));
        CHECK_EQ(fab_agent_slot(table, 4, address), state == FAB_AGENT_ALIVE ? 0xabcd : -1);
    }
    atomic_store(&table[2], fab_agent_word(address, FAB_AGENT_ALIVE, 3));
    CHECK_EQ(fab_agent_slot(table, 4, address), 3);
    CHECK_EQ(fab_agent_slot(table, 4, UINT64_C(8) << 32 | 2), -1); /* another generation */
    CHECK_EQ(fab_agent_slot(table, 2, address), -1);               /* no such index */
    CHECK_EQ(fab_agent_slot(table, 4, address | UINT32_MAX), -1);
}

#define GEN (UINT64_C(1) << 32)
static void a_slot_that_is_no_process_hosts_nobody(void) {
    struct fixture_fabric f;
    uint16_t slots[3];
    fixture_fabric_open(&f, 3, FAB_PAGE);
    const uint64_t addresses[] = {GEN | 1, GEN | 2, GEN | 3};
    const uint16_t words[] = {1, 2, 3}; /* 3 processes: 0, 1, 2 */
    fab_table_write(f.whole, addresses, words, 3, FAB_AGENT_ALIVE);
    CHECK_EQ(fab_peer_route(f.peers[1], addresses, 3, slots), 2);
    CHECK(slots[0] == 1 && slots[1] == 2);
    fab_table_write(f.whole, addresses + 2, words, 1, FAB_AGENT_ALIVE);
    CHECK_EQ(fab_peer_route(f.peers[1], addresses, 3, slots), 3);
    CHECK_EQ(slots[2], 1);
    fab_table_write(f.whole, addresses, words, 1, FAB_AGENT_STOPPED);
    CHECK_EQ(fab_peer_route(f.peers[2], addresses, 3, slots), 0);
    fixture_fabric_close(&f);
}

static void every_lane_leads_from_its_producer_to_its_consumer(void) {
    struct fixture_fabric f;
    fixture_fabric_open(&f, 4, FAB_PAGE);
    for (uint64_t from = 0; from < 4; from++)
        for (uint32_t lane = 0; lane < 8; lane++) {
            struct fab_record r = {.kind = 9, .sender = from, .target = lane};
            int exists = fab_lane_bytes(&f.header, (uint32_t)from, lane) != 0;
            CHECK_EQ(fab_peer_send(f.peers[from], lane, &r, ""), exists ? 1 : -EINVAL);
            CHECK_EQ(fab_peer_body_limit(f.peers[from], lane), exists ? FAB_PAGE / 2 - 48 : 0);
        }
    for (uint32_t to = 0; to < 4; to++) {
        int32_t lane;
        uint32_t expected = to == 0 ? 6 : 5; /* data from all (not 0 to 0), control from or to 0 */
        for (; (lane = fab_peer_receive(f.peers[to], 9, 0, &f.cols)) >= 0; expected--) {
            CHECK_EQ(f.cols.count, 1);
            CHECK_EQ(f.cols.senders[0], lane & 3);
            CHECK_EQ(f.cols.targets[0], to + (lane & 4 ? 4u : 0u));
            fab_peer_commit(f.peers[to], (uint32_t)lane, f.cols.end);
        }
        CHECK_EQ(expected, 0);
        CHECK_EQ(fab_peer_dropped(f.peers[to]), 0);
    }
    CHECK_EQ(fab_peer_quiet(f.peers[0]), 1);
    fixture_fabric_close(&f);
}

static void control_lanes_come_first_and_data_lanes_take_turns(void) {
    struct fixture_fabric f;
    fixture_fabric_open(&f, 4, FAB_PAGE);
    struct fab_record r = {.kind = 9};
    for (uint32_t from = 1; from < 4; from++)
        for (int i = 0; i < 2; i++)
            CHECK_EQ(fab_peer_send(f.peers[from], 0, &r, ""), 1);
    CHECK_EQ(fab_peer_send(f.peers[3], 4, &r, ""), 1);
    const int32_t order[] = {7, 1, 2, 3, 1, 2, 3, -1};
    for (int i = 0; i < 8; i++)
        CHECK_EQ(fab_peer_receive(f.peers[0], 1, 0, &f.cols), order[i]);
    fixture_fabric_close(&f);
}

static const struct check_test tests[] = {
    TEST(regions_never_overlap_and_are_ordered_by_writer),
    TEST(lanes_exist_where_they_are_used_and_alike_in_both_directions),
    TEST(a_header_that_is_not_ours_is_refused),
    TEST(sizes_that_cannot_be_are_refused),
    TEST(loans_without_an_arena_are_refused),
    TEST(a_table_word_tells_the_slot_of_the_living_only),
    TEST(a_slot_that_is_no_process_hosts_nobody),
    TEST(every_lane_leads_from_its_producer_to_its_consumer),
    TEST(control_lanes_come_first_and_data_lanes_take_turns),
};

int main(void) {
    return CHECK_RUN(tests, 30);
}
