/* SPDX-License-Identifier: MIT */
/* header_fuzz.c - the input is the header of a segment; what is accepted must lay everything out inside, apart. */
#include "fuzz.h"

static void check_layout(const struct fab_header *h) {
    CHECK(h->processes >= 2 && h->processes <= FAB_PROCESSES_MAX);
    uint64_t end = FAB_PAGE + h->max_agents * sizeof(uint64_t);
    uint32_t step = h->processes > 8 ? h->processes / 4 : 1; /* not all of a large one: that takes long */
    for (uint32_t p = 0; p < h->processes; p += step) {
        uint64_t block = fab_block_offset(h, p);
        uint64_t words = fab_outbox_words_offset(h) + 2 * FAB_LINE;
        CHECK(block >= end && block % FAB_PAGE == 0);
        CHECK(fab_heads_offset() >= sizeof(struct fab_words) && fab_tails_offset(h) > fab_heads_offset());
        uint64_t at = fab_data_offset(h, p, 0);
        CHECK(at >= words && fab_loans_offset(h) >= words && fab_receipts_offset(h, h->processes) <= at);
        CHECK(fab_receipts_offset(h, 0) >= fab_loans_offset(h) + h->loans * sizeof(struct fab_loan));
        for (uint32_t lane = 0; lane < 2 * h->processes; lane += step) {
            CHECK(fab_data_offset(h, p, lane) >= at);
            at = fab_data_offset(h, p, lane) + fab_lane_bytes(h, p, lane);
        }
        CHECK(fab_outbox_offset(h, p) >= at && fab_arena_offset(h, p) >= fab_outbox_offset(h, p));
        end = block + fab_block_bytes(h, p);
        CHECK(fab_arena_offset(h, p) + h->arena_bytes <= fab_block_bytes(h, p) && end <= h->segment_bytes);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input in = {data, size};
    struct fab_header h;
    fuzz_take(&in, &h, sizeof h);
    uint64_t length = fuzz_u64(&in);
    int rc = fab_header_validate(&h, length);
    CHECK(rc == 0 || rc == -ENOEXEC || rc == -EPROTO || rc == -EINVAL);
    if (rc == 0)
        CHECK_EQ(h.segment_bytes, length);
    if (fab_header_init(&h) == 0) { /* the same sizes, and what follows from them filled in */
        CHECK_EQ(fab_header_validate(&h, h.segment_bytes), 0);
        check_layout(&h);
    }
    return 0;
}
