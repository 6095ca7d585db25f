/* SPDX-License-Identifier: MIT */
/*
 * records_fuzz.c - the data of a lane are the input; so are its counters, and how much is asked for at a time.
 *
 *   head u64 | tail u16, bytes behind it | most u16 | most_bytes u16 | data from the head on
 */
#include "fuzz.h"

#define BYTES 4096u

static void read_all(struct fab_consumer *c, uint32_t most, uint64_t most_bytes, struct fab_columns *cols) {
    uint64_t before;
    do {
        before = c->read;
        uint64_t dropped = c->dropped_bytes;
        uint32_t count = fab_consumer_peek(c, most, most_bytes, cols);
        CHECK(count == cols->count && cols->end == c->read && count <= FAB_BATCH_MAX);
        CHECK(c->read - c->committed <= BYTES && c->tail_seen - c->read <= BYTES);
        CHECK(c->dropped_bytes - dropped + cols->bytes <= c->read - before);
        CHECK(count == 0 || cols->start + cols->bytes <= BYTES);
        for (uint32_t i = 0; i < count; i++)
            CHECK(cols->starts[i] <= cols->ends[i] && cols->ends[i] <= cols->bytes &&
                  (cols->size == UINT32_MAX || cols->ends[i] - cols->starts[i] == cols->size));
    } while (c->read != before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct fixture_lane l;
    struct fuzz_input in = {data, size};
    if (l.data == NULL)
        fixture_lane_open(&l, FIXTURE_GUARDED, BYTES, 0);
    uint64_t head = fuzz_u64(&in);
    uint64_t tail = head + fuzz_u16(&in) % (BYTES + 64);
    uint32_t most = 1 + fuzz_u16(&in);
    uint64_t most_bytes = fuzz_u16(&in);
    memset(l.data, 0, BYTES);
    for (uint64_t at = head; in.left != 0 && at - head < BYTES; at++)
        fuzz_take(&in, l.data + (at & (BYTES - 1)), 1);
    atomic_store(&l.head, head);
    atomic_store(&l.tail, tail);
    if (fab_consumer_init(&l.c, &l.tail, &l.head, l.data, BYTES) != 0)
        return 0;
    read_all(&l.c, most, most_bytes, &l.cols);
    CHECK(l.c.broken || l.c.read == tail); /* all that is there is read or dropped */
    fab_consumer_commit(&l.c, l.c.read);
    CHECK_EQ(atomic_load(&l.head), l.c.read);
    return 0;
}
