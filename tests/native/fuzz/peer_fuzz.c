/* SPDX-License-Identifier: MIT */
/*
 * peer_fuzz.c - the input is a list of what three processes do to their segment, honest or not.
 *
 *   op u16 | process u16 | lane u16 | number u64, again and again
 */
#include "fuzz.h"

#define MOST_STEPS 400
#define KIND FAB_KIND_MESSAGE

static void inspect(const struct fab_peer *s, int32_t lane, const struct fab_columns *cols) {
    CHECK(lane >= -1 && lane < (int32_t)(2 * s->header.processes));
    if (lane < 0)
        return;
    uint64_t sum = 0;
    CHECK(cols->count == 0 || cols->start + cols->bytes <= s->in[lane].capacity);
    for (uint64_t i = 0; i < cols->count; i++)
        for (uint64_t at = cols->starts[i]; at < cols->ends[i]; at++)
            sum += s->in[lane].data[cols->start + at];
    CHECK(sum < UINT64_MAX);
}

/* Write a word of a process's own block: one of its counters, or any. */
static void scribble(struct fixture_fabric *f, uint32_t p, uint32_t where, uint64_t number) {
    uint64_t block = fab_block_offset(&f->header, p);
    uint64_t at = where % 2 == 0 ? fab_heads_offset() + FAB_LINE * (where / 2 % (4 * f->header.processes + 2))
                                 : 8 * (where * 31 % (fab_block_bytes(&f->header, p) / 8));
    memcpy(f->whole + block + at, &number, sizeof number);
}

/* The first record of an outgoing lane gets another header. */
static void spoil(struct fixture_fabric *f, uint32_t p, uint32_t lane, uint64_t number) {
    if (f->peers[p]->out[lane].capacity != 0)
        memcpy(f->peers[p]->out[lane].data + number % 64 * 16, &number, sizeof number);
}

static void step(struct fixture_fabric *f, uint32_t op, struct fab_peer *s, uint32_t lane, uint64_t number) {
    static const uint8_t body[2 * FAB_PAGE];
    struct fab_record r = {.size = (uint32_t)number % FAB_PAGE, .kind = KIND, .target = number};
    struct fab_record stray;
    uint32_t done = 0;
    uint64_t offset = 0;
    int32_t got;
    struct fab_batch b = {.header = r, .bytes = body, .bytes_count = sizeof body, .count = number % 5};
    b.repeated = 1;
    switch (op % 8) {
    case 0:
        (void)fab_peer_send(s, lane, &r, body);
        break;
    case 1:
        (void)fab_peer_send_batch(s, lane, &b, number, &done, &offset);
        break;
    case 2:
        got = fab_peer_receive(s, (uint32_t)number, number, &f->cols);
        inspect(s, got, &f->cols);
        if (got >= 0)
            fab_peer_commit(s, (uint32_t)got, number % 3 == 0 ? f->cols.end : number);
        break;
    case 3:
        scribble(f, s->process, lane, number);
        break;
    case 4:
        spoil(f, s->process, lane, number);
        break;
    case 5:
        if (s->process != 0)
            (void)fab_peer_outbox_batch(s, &b, &done, &offset);
        break;
    case 6:
        if (s->process != 0)
            while (fab_peer_outbox_flush(s, &stray) == 2)
                continue;
        break;
    default:
        (void)fab_peer_quiet(s);
        (void)fab_peer_arm(s, (uint32_t)number);
        fab_peer_disarm(s);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct fixture_fabric f;
    struct fuzz_input in = {data, size};
    if (f.whole == NULL)
        fixture_fabric_open(&f, 3, FAB_PAGE);
    atomic_store(&((struct fab_board *)(void *)(f.whole + fab_board_offset()))->measuring, 1);
    for (uint32_t p = 0; p < 3; p++) { /* as good as new, and faster than a new one */
        fixture_clear(&f.header, f.whole + fab_block_offset(&f.header, p));
        memset(f.peers[p], 0, offsetof(struct fab_peer, meter));
    }
    for (uint32_t p = 0; p < 3; p++) {
        CHECK_EQ(fab_peer_init(f.peers[p], &f.header, p, f.whole, f.whole + fab_block_offset(&f.header, p)),
                 0);
        if (p != 0)
            fab_peer_outbox_resume(f.peers[p]);
        fab_meter_open(f.peers[p]);
        for (uint32_t other = 0; other < 3; other++)
            fab_peer_set_bell(f.peers[p], other, f.bells[other]);
    }
    const uint64_t address = UINT64_C(1) << 32 | 1;
    const uint16_t slot = 2;
    fab_table_write(f.whole, &address, &slot, 1, FAB_AGENT_ALIVE);
    for (uint32_t n = 0; n < MOST_STEPS && in.left != 0; n++) {
        uint32_t op = fuzz_u16(&in);
        uint32_t p = fuzz_u16(&in) % 3;
        uint32_t lane = fuzz_u16(&in);
        uint64_t number = fuzz_u64(&in);
        step(&f, op, f.peers[p], op % 8 == 3 ? lane : lane % 6, number);
        for (uint32_t l = 0; l < 6; l++) {
            const struct fab_consumer *c = &f.peers[p]->in[l];
            CHECK(f.peers[p]->out[l].next - f.peers[p]->out[l].head_seen <= f.peers[p]->out[l].capacity);
            CHECK(c->read - c->committed <= c->capacity && c->tail_seen - c->read <= c->capacity);
        }
    }
    return 0;
}
