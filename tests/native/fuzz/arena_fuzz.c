/* SPDX-License-Identifier: MIT */
/*
 * arena_fuzz.c - the input is a list of what owners and readers do with loans, honest or not; and what is written
 * into their tables by one who is not.
 *
 *   op u16 | process u16 | which u16 | number u64, again and again
 */
#include "fuzz.h"

#include "../arena_check.h"

#define MOST_STEPS 400
#define PAGES 16u
#define LOANS 8u

/* References to the block that begins at a page, which its owner has beside those of loans. */
static uint32_t own[ARENA_PROCESSES][PAGES];

/* A descriptor: of a loan that is there, of one that was, or nonsense. */
static struct fab_lent_entry describe(const struct arena_world *w, uint32_t owner, uint32_t which,
                                      uint64_t number) {
    const struct fab_loan *entry = fab_peer_loans(w->peers[0], owner) + which % LOANS;
    uint64_t generation = fab_loan_state_generation(atomic_load(&entry->state));
    struct fab_lent_entry e = {.loan = generation << 32 | which % LOANS,
                               .offset = atomic_load(&entry->offset),
                               .bytes = atomic_load(&entry->bytes)};
    if (number % 4 == 1)
        e.loan = number;
    if (number % 4 == 2)
        e.offset = number;
    if (number % 4 == 3)
        e.bytes = number;
    return e;
}

/* Write a word of a process's block: of its loans, of its receipts, of its lanes' counters, or of its lanes. */
static void scribble(const struct arena_world *w, uint32_t p, uint32_t which, uint64_t number) {
    const struct fab_header *h = &w->header;
    const uint64_t places[] = {fab_loans_offset(h) + 8 * (which % (LOANS * 4)),
                               fab_receipts_offset(h, which % 3) + 8 * (which / 3 % (LOANS * 2)),
                               fab_heads_offset() + FAB_LINE * (which % 12),
                               fab_data_offset(h, p, 0) + 8 * (which % 1024)};
    memcpy(w->memory + fab_block_offset(h, p) + places[which / 7 % 4], &number, sizeof number);
}

/* What a reader was told that it may read lies in the owner's arena. */
static void hold(const struct arena_world *w, uint32_t p, uint32_t which, uint64_t number) {
    uint32_t owner = which / LOANS % 5; /* there are three */
    struct fab_lent_entry e = describe(w, owner % 3, which, number);
    int rc = fab_loan_hold(w->peers[p], owner, e.loan, e.offset, e.bytes, number);
    CHECK(rc == 0 || rc == -EINVAL);
    if (rc == 0)
        CHECK(owner < 3 && e.bytes <= PAGES * FAB_PAGE && e.offset <= PAGES * FAB_PAGE - e.bytes);
}

static void send(const struct arena_world *w, uint32_t p, uint32_t which, uint64_t number) {
    struct {
        struct fab_lent_list list;
        struct fab_lent_entry entry;
    } body = {{.count = (uint32_t)(number % 3 == 0 ? number : 1)}, describe(w, p, which, number >> 8)};
    struct fab_record r = {
        .size = number % 5 == 0 ? which % sizeof body : sizeof body, .kind = 7, .encoding = FAB_LENT};
    (void)fab_peer_send(w->peers[p], which % 6, &r, &body);
}

static int connect(const struct arena_world *w, uint32_t p) {
    memset(w->peers[p], 0, offsetof(struct fab_peer, meter));
    return fab_peer_init(w->peers[p], &w->header, p, w->whole, w->memory + fab_block_offset(&w->header, p));
}

/* A successor comes; where the counters are such that none can, it finds empty lanes. */
static void replace(struct arena_world *w, uint32_t p) {
    struct fab_peer *s = w->peers[p];
    fab_arena_close(&w->arenas[p]);
    memset(own[p], 0, sizeof own[p]);
    if (connect(w, p) != 0) {
        for (uint32_t other = 0; other < ARENA_PROCESSES; other++)
            memset(w->memory + fab_block_offset(&w->header, other) + fab_heads_offset(), 0,
                   fab_begun_offset(&w->header) - fab_heads_offset());
        CHECK_EQ(connect(w, p), 0);
    }
    CHECK_EQ(fab_arena_open(&w->arenas[p], s), 0);
    fab_arena_allow(&w->arenas[p], PAGES * FAB_PAGE);
    CHECK(fab_loan_adopt(s) <= 3 * LOANS);
}

static void step(struct arena_world *w, uint32_t op, uint32_t p, uint32_t which, uint64_t number) {
    static struct fab_columns cols;
    struct fab_arena *a = &w->arenas[p];
    struct fab_lent_entry e = describe(w, which % 3, which / 3, number);
    uint64_t block = which % PAGES * FAB_PAGE;
    int64_t at;
    int32_t lane;
    switch (op % 12) {
    case 0:
        at = fab_arena_take(a, number % (PAGES * FAB_PAGE + 2));
        if (at >= 0)
            own[p][(uint64_t)at / FAB_PAGE] = 1;
        break;
    case 1: /* as the caller promises: no reference that is not its own */
        if (own[p][which % PAGES] != 0 && own[p][which % PAGES]--)
            CHECK_EQ(fab_arena_drop(a, block), 0);
        break;
    case 2:
        (void)fab_arena_lend(a, block, block + number % 64, number % 8192, which % 4);
        break;
    case 3:
        (void)fab_arena_unlend(a, e.loan);
        break;
    case 4:
        (void)fab_arena_reclaim(a, which % 9);
        break;
    case 5:
        hold(w, p, which, number);
        break;
    case 6:
        fab_loan_done(w->peers[p], which % 4, e.loan);
        break;
    case 7:
        send(w, p, which, number);
        break;
    case 8:
        lane = fab_peer_receive(w->peers[p], which, number, &cols);
        if (lane >= 0)
            fab_peer_commit(w->peers[p], (uint32_t)lane, cols.end);
        break;
    case 9:
        (void)fab_arena_trim(a, number % (PAGES * FAB_PAGE));
        break;
    case 10:
        replace(w, p);
        break;
    default:
        scribble(w, p, which, number);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct arena_world w;
    struct fuzz_input in = {data, size};
    if (w.whole == NULL)
        arena_world_open(&w, PAGES, LOANS);
    for (uint32_t p = 0; p < ARENA_PROCESSES; p++) /* as good as new, and faster than a new one */
        fixture_clear(&w.header, w.memory + fab_block_offset(&w.header, p));
    for (uint32_t p = 0; p < ARENA_PROCESSES; p++)
        replace(&w, p);
    for (uint32_t n = 0; n < MOST_STEPS && in.left != 0; n++) {
        uint32_t op = fuzz_u16(&in);
        uint32_t p = fuzz_u16(&in) % ARENA_PROCESSES;
        uint32_t which = fuzz_u16(&in);
        step(&w, op, p, which, fuzz_u64(&in));
        arena_check_tables(&w.arenas[p].pages);
        arena_check_loans(&w.arenas[p]);
        (void)fab_peer_has_reason(w.peers[p], FAB_WAITS_ARENA);
    }
    return 0;
}
