/* SPDX-License-Identifier: MIT */
/*
 * arena_model_test.c - random use of an arena against a model that is too plain to be wrong: a number a page.
 *
 *   owner[page]   which block a page belongs to, 0 for none        loans   free, lent, sent, held, done
 *   warm[page]    has it memory?                                   blocks  references of ours, and of loans
 *
 * After each step the arena's own tables are walked, and every block is where the model has it.
 */
#include "arena_check.h"

#define PAGES 96u
#define LOANS 48u /* no more than are looked at before memory is taken: then the model knows what ends */
#define STEPS 60000
#define ME 1u

enum loan_state { LOAN_FREE, LOAN_LENT, LOAN_SENT, LOAN_HELD, LOAN_DONE };

struct model_loan {
    enum loan_state state;
    uint32_t block; /* its first page */
    uint32_t reader;
    uint64_t end;
    struct fab_lent_entry entry;
};

struct model {
    struct arena_world w;
    struct fab_arena *a;
    uint64_t seed;
    uint32_t owner[PAGES]; /* first page of the block, plus 1 */
    uint32_t warm[PAGES];
    uint32_t ours[PAGES]; /* references of ours to the block that begins here */
    struct model_loan loans[LOANS];
    uint64_t allowed; /* pages */
    uint64_t counts[8];
};

static uint32_t below(struct model *m, uint32_t limit) {
    return fixture_below(&m->seed, limit);
}

static uint32_t model_refs(const struct model *m, uint32_t block) {
    uint32_t refs = m->ours[block];
    for (uint32_t i = 0; i < LOANS; i++)
        refs += m->loans[i].state != LOAN_FREE && m->loans[i].block == block;
    return refs;
}

/* A block without references is free. */
static void model_settle(struct model *m, uint32_t block) {
    if (model_refs(m, block) != 0)
        return;
    for (uint32_t p = block; p < PAGES && m->owner[p] == block + 1; p++)
        m->owner[p] = 0;
}

/* What the arena reclaims: all that is done with. */
static void model_reclaim(struct model *m) {
    for (uint32_t i = 0; i < LOANS; i++)
        if (m->loans[i].state == LOAN_DONE) {
            m->loans[i].state = LOAN_FREE;
            model_settle(m, m->loans[i].block);
        }
}

/* How many of these pages have no memory. */
static uint32_t model_fresh(const struct model *m, uint32_t from, uint32_t pages) {
    uint32_t fresh = 0;
    for (uint32_t p = from; p < from + pages; p++)
        fresh += !m->warm[p];
    return fresh;
}

/* What taking so many pages must come to: 0, -ENOSPC or -ENOMEM. */
static int model_verdict(const struct model *m, uint32_t pages) {
    int rc = -ENOSPC;
    for (uint32_t start = 0, end; start < PAGES; start = end + 1) {
        for (end = start; end < PAGES && m->owner[end] == 0; end++)
            continue;
        if (end - start < pages)
            continue;
        rc = rc == -ENOSPC ? -ENOMEM : rc;
        if (model_fresh(m, start, pages) <= m->allowed || model_fresh(m, end - pages, pages) <= m->allowed)
            rc = 0;
    }
    return rc;
}

static void take(struct model *m) {
    static const uint64_t edges[] = {1, FAB_PAGE - 1, FAB_PAGE, FAB_PAGE + 1, PAGES * FAB_PAGE};
    uint64_t bytes = below(m, 8) == 0   ? edges[below(m, 5)]
                     : below(m, 4) != 0 ? 1 + below(m, 5 * FAB_PAGE)
                                        : 1 + below(m, PAGES * FAB_PAGE);
    uint32_t pages = (uint32_t)((bytes + FAB_PAGE - 1) / FAB_PAGE);
    model_reclaim(m);
    int verdict = model_verdict(m, pages);
    int64_t got = fab_arena_take(m->a, bytes);
    m->counts[verdict == 0 ? 0 : verdict == -ENOSPC ? 1 : 2]++;
    CHECK_EQ(got < 0 ? got : 0, verdict);
    if (got < 0)
        return;
    uint32_t start = (uint32_t)((uint64_t)got / FAB_PAGE);
    CHECK(got % (int64_t)FAB_PAGE == 0 && start + pages <= PAGES);
    uint32_t fresh = model_fresh(m, start, pages);
    CHECK(fresh <= m->allowed);
    m->allowed -= fresh;
    for (uint32_t p = start; p < start + pages; p++) {
        CHECK_EQ(m->owner[p], 0);
        m->owner[p] = start + 1;
        m->warm[p] = 1;
    }
    m->ours[start] = 1;
}

/* Any live block; PAGES when there is none. */
static uint32_t some_block(struct model *m) {
    uint32_t at = below(m, PAGES);
    for (uint32_t i = 0; i < PAGES; i++)
        if (m->owner[(at + i) % PAGES] != 0)
            return m->owner[(at + i) % PAGES] - 1;
    return PAGES;
}

static uint32_t block_pages(const struct model *m, uint32_t block) {
    uint32_t pages = 0;
    while (block + pages < PAGES && m->owner[block + pages] == block + 1)
        pages++;
    return pages;
}

static void count_references(struct model *m, int more) {
    uint32_t block = some_block(m);
    if (block == PAGES || (!more && m->ours[block] == 0))
        return;
    uint64_t offset = block * FAB_PAGE;
    CHECK_EQ(more ? fab_arena_retain(m->a, offset) : fab_arena_drop(m->a, offset), 0);
    m->ours[block] += more ? 1 : UINT32_MAX;
    model_settle(m, block);
}

static void lend(struct model *m) {
    uint32_t block = some_block(m);
    uint32_t out = 0;
    if (block == PAGES)
        return;
    for (uint32_t i = 0; i < LOANS; i++)
        out += m->loans[i].state != LOAN_FREE;
    if (out == LOANS)
        model_reclaim(m);
    for (out = 0; out < LOANS && m->loans[out].state != LOAN_FREE; out++)
        continue;
    if (block_pages(m, block) == 0)
        return; /* it went with the last loan */
    uint64_t size = block_pages(m, block) * FAB_PAGE;
    uint64_t at = below(m, (uint32_t)size);
    uint64_t bytes = 1 + below(m, (uint32_t)(size - at));
    uint32_t reader = below(m, ARENA_PROCESSES);
    int64_t loan = fab_arena_lend(m->a, block * FAB_PAGE, block * FAB_PAGE + at, bytes, reader);
    m->counts[3 + (out == LOANS)]++;
    CHECK(out == LOANS ? loan == -ENOSPC : loan > 0);
    if (loan < 0)
        return;
    m->loans[out] = (struct model_loan){
        .state = LOAN_LENT,
        .block = block,
        .reader = reader,
        .entry = {.loan = (uint64_t)loan, .offset = block * FAB_PAGE + at, .bytes = bytes}};
}

/* Take up and commit all that lies before a reader. */
static void receive(struct model *m, uint32_t reader) {
    static struct fab_columns cols;
    struct fab_peer *s = m->w.peers[reader];
    while (fab_peer_receive(s, FAB_BATCH_MAX, UINT64_MAX, &cols) >= 0) {
        for (uint32_t i = 0; i < LOANS; i++) {
            struct model_loan *l = &m->loans[i];
            if (l->state != LOAN_SENT || l->reader != reader)
                continue;
            CHECK_EQ(fab_loan_hold(s, ME, l->entry.loan, l->entry.offset, l->entry.bytes, l->end), 0);
            l->state = LOAN_HELD;
        }
        fab_peer_commit(s, ME, cols.end);
    }
}

static void send(struct model *m, struct model_loan *l) {
    uint64_t span = fab_record_span(sizeof(struct fab_lent_list) + sizeof l->entry);
    if (fab_producer_room(&m->w.peers[ME]->out[l->reader], UINT64_MAX) < 2 * span)
        receive(m, l->reader);
    l->end = arena_send(m->w.peers[ME], l->reader, &l->entry, 1);
    l->state = LOAN_SENT;
}

/* A loan goes one step further: it is sent or ended, received, or done with. */
static void move_loan(struct model *m) {
    struct model_loan *l = &m->loans[below(m, LOANS)];
    struct fab_peer *reader = m->w.peers[l->reader];
    if (l->state == LOAN_LENT && below(m, 4) == 0) {
        CHECK_EQ(fab_arena_unlend(m->a, l->entry.loan), 0);
        l->state = LOAN_FREE;
        model_settle(m, l->block);
    } else if (l->state == LOAN_LENT && below(m, 4) == 0) { /* as a snapshot keeps it */
        l->end = FAB_KEPT;
        CHECK_EQ(fab_loan_hold(reader, ME, l->entry.loan, l->entry.offset, l->entry.bytes, l->end), 0);
        l->state = LOAN_HELD;
    } else if (l->state == LOAN_LENT) {
        send(m, l);
    } else if (l->state == LOAN_SENT) {
        receive(m, l->reader);
    } else if (l->state == LOAN_HELD) {
        fab_loan_done(reader, ME, l->entry.loan);
        l->state = LOAN_DONE;
        CHECK_EQ(fab_arena_returned(m->a), 1);
    }
}

static void trim(struct model *m) {
    uint32_t keep = below(m, PAGES / 2);
    uint32_t cold = 0;
    uint32_t before = 0;
    for (uint32_t p = 0; p < PAGES; p++)
        before += m->owner[p] == 0 && m->warm[p];
    uint64_t given = fab_arena_trim(m->a, keep * FAB_PAGE) / FAB_PAGE;
    CHECK_EQ(given, before > keep ? before - keep : 0);
    for (uint32_t p = 0; p < PAGES; p++) {
        int warm = fab_bit(m->a->pages.is_resident, p);
        CHECK(m->owner[p] != 0 ? warm : warm <= (int)m->warm[p]);
        cold += m->warm[p] != 0 && !warm;
        m->warm[p] = warm != 0;
    }
    CHECK_EQ(cold, given);
}

/* The owner dies: what was never sent, or is done with, is ended; pages that live loans share are one block. */
static void replace_owner(struct model *m) {
    arena_replace(&m->w, ME);
    memset(m->owner, 0, sizeof m->owner);
    memset(m->ours, 0, sizeof m->ours);
    memset(m->warm, 0, sizeof m->warm);
    uint8_t joined[PAGES + 1] = {0}; /* does a loan cover this page and the one before? */
    for (uint32_t i = 0; i < LOANS; i++) {
        struct model_loan *l = &m->loans[i];
        int self_done = l->state == LOAN_HELD && l->reader == ME && l->end != FAB_KEPT;
        if (self_done || (l->state != LOAN_SENT && l->state != LOAN_HELD))
            l->state =
                l->state == LOAN_HELD ? LOAN_DONE : LOAN_FREE; /* our own receipts, too, had a reader */
        if (l->state == LOAN_FREE)
            continue;
        uint64_t last = (l->entry.offset + l->entry.bytes - 1) / FAB_PAGE;
        for (uint64_t p = l->entry.offset / FAB_PAGE; p <= last; p++) {
            m->warm[p] = 1;
            joined[p] |= p != l->entry.offset / FAB_PAGE;
        }
    }
    for (uint32_t p = 0; p < PAGES; p++)
        if (m->warm[p])
            m->owner[p] = joined[p] ? m->owner[p - 1] : p + 1;
    for (uint32_t i = 0; i < LOANS; i++)
        m->loans[i].block =
            m->loans[i].state == LOAN_FREE ? 0 : m->owner[m->loans[i].entry.offset / FAB_PAGE] - 1;
    fab_arena_allow(m->a, m->allowed * FAB_PAGE);
    m->counts[5]++;
}

/* A reader dies; its successor is done with what it held. */
static void replace_reader(struct model *m) {
    uint32_t reader = 2 * below(m, 2);
    uint32_t ended = 0;
    for (uint32_t i = 0; i < LOANS; i++) {
        struct model_loan *l = &m->loans[i];
        if (l->state != LOAN_HELD || l->reader != reader || l->end == FAB_KEPT)
            continue;
        l->state = LOAN_DONE;
        ended++;
    }
    fab_arena_close(&m->w.arenas[reader]);
    arena_attach(&m->w, reader);
    CHECK_EQ(fab_loan_adopt(m->w.peers[reader]), ended);
    m->counts[6]++;
}

static void check(struct model *m) {
    uint32_t blocks = 0;
    uint32_t warm = 0;
    uint32_t used = 0;
    uint32_t out = 0;
    for (uint32_t p = 0; p < PAGES; p++) {
        uint32_t start = m->owner[p];
        CHECK_EQ(fab_arena_find(m->a, p * FAB_PAGE + below(m, FAB_PAGE)),
                 start == 0 ? -1 : (int64_t)((start - 1) * FAB_PAGE));
        CHECK_EQ(fab_arena_block_bytes(m->a, p * FAB_PAGE),
                 start == p + 1 ? block_pages(m, p) * FAB_PAGE : 0);
        if (start == p + 1)
            CHECK_EQ(m->a->pages.page[p].refs, model_refs(m, p));
        blocks += start == p + 1;
        used += start != 0;
        warm += m->warm[p];
    }
    for (uint32_t i = 0; i < LOANS; i++)
        out += m->loans[i].state != LOAN_FREE;
    CHECK_EQ(arena_usage(m->a, 0), used * FAB_PAGE);
    CHECK_EQ(arena_usage(m->a, 1), warm * FAB_PAGE);
    CHECK_EQ(arena_usage(m->a, 3), out);
    CHECK_EQ(arena_usage(m->a, 5), blocks);
}

static void step(struct model *m) {
    uint32_t what = below(m, 100);
    if (what < 25)
        take(m);
    else if (what < 50)
        count_references(m, what < 30);
    else if (what < 65)
        lend(m);
    else if (what < 95)
        move_loan(m);
    else if (what < 96)
        trim(m);
    else if (what < 97)
        replace_owner(m);
    else if (what < 98)
        replace_reader(m);
    else
        fab_arena_allow(m->a, (m->allowed = below(m, 2 * PAGES)) * FAB_PAGE);
}

/* Everybody gives everything back. */
static void give_back(struct model *m) {
    for (uint32_t i = 0; i < LOANS; i++)
        while (m->loans[i].state != LOAN_FREE && m->loans[i].state != LOAN_DONE)
            move_loan(m);
    for (uint32_t block = 0; block < PAGES; block++)
        for (; m->ours[block] != 0; m->ours[block]--)
            CHECK_EQ(fab_arena_drop(m->a, block * FAB_PAGE), 0);
    fab_arena_reclaim(m->a, 0);
    model_reclaim(m);
    memset(m->owner, 0, sizeof m->owner);
    check(m);
    CHECK_EQ(arena_usage(m->a, 2), PAGES * FAB_PAGE);
    CHECK_EQ(fab_arena_take(m->a, PAGES * FAB_PAGE + 1), -EMSGSIZE);
}

static void an_arena_does_what_its_model_does(void) {
    static struct model m;
    arena_world_open(&m.w, PAGES, LOANS);
    m.a = &m.w.arenas[ME];
    m.seed = 20;
    m.allowed = PAGES;
    fab_arena_allow(m.a, m.allowed * FAB_PAGE);
    for (int i = 0; i < STEPS; i++) {
        step(&m);
        if (i % 8 == 0) {
            check(&m);
            arena_check_tables(&m.a->pages);
        }
        if (i % 4096 == 0)
            give_back(&m);
    }
    give_back(&m);
    for (int i = 0; i < 7; i++)
        CHECK(m.counts[i] > 100 || i == 4);
    arena_world_close(&m.w);
}

static const struct check_test tests[] = {TEST(an_arena_does_what_its_model_does)};

int main(void) {
    return CHECK_RUN(tests, 60);
}
