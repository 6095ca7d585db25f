/* SPDX-License-Identifier: MIT */
/*
 * racing_test.c - a thread changes the segment between any two reads of it, while all ends are in use.
 *
 *   | no access | header, table, blocks of three processes | no access |
 *                 ^ the vandal writes any word, or any word of one process's block, for as long as it runs
 *
 * Process 0 sends, receives, waits and asks whether all is quiet; process 1 sends from its outbox. The verdict: no
 * access outside the segment or the private columns (guard pages, AddressSanitizer), all that a receiver reports
 * lies in the lane, nothing goes on for ever (SIGALRM), and what cannot be is dropped and counted.
 */
#include "fixture.h"

#include <pthread.h>

#ifndef __SANITIZE_THREAD__ /* the vandal races on purpose */

#define LANE_BYTES FAB_PAGE
#define ROUNDS 30000
#define KIND FAB_KIND_MESSAGE

struct vandal {
    uint8_t *whole;
    uint64_t begin; /* of what it writes, in bytes */
    uint64_t end;
    const struct fab_header *header;
    uint64_t seed;
    _Atomic(uint64_t) written;
    _Atomic(int) stop;
};

/* Something that stands, nearly, where it ought to: a counter a little off, a size that almost fits. */
static uint64_t near(uint64_t *seed, uint64_t word) {
    const uint64_t header = (uint64_t)fixture_below(seed, 3) << 32 | (48 + fixture_below(seed, 200));
    const uint64_t words[] = {word + 16 * fixture_below(seed, 300),
                              word - 16 * fixture_below(seed, 300),
                              fixture_random(seed),
                              (uint64_t)KIND << 32 | (48 + fixture_below(seed, 5000)),
                              header,
                              word + fixture_below(seed, 64),
                              fixture_below(seed, 2000)};
    return words[fixture_below(seed, 7)];
}

/* Half of the words that it writes are counters, or of loans and receipts: they are few, and decide what is read. */
static uint64_t place(struct vandal *v) {
    uint64_t lines = 4 * (uint64_t)v->header->processes + 2;
    uint64_t at = v->begin + 8 * (fixture_random(&v->seed) % ((v->end - v->begin) / 8));
    uint32_t which = fixture_below(&v->seed, 8);
    if (which == 0 && v->begin == FAB_PAGE)
        return fab_table_offset() + 8 * (1 + fixture_below(&v->seed, 2));
    for (uint32_t p = 0; p < v->header->processes; p++) {
        uint64_t block = fab_block_offset(v->header, p);
        uint64_t loans = fab_loans_offset(v->header);
        uint64_t data = fab_data_offset(v->header, p, 0);
        if (at < block || at >= block + fab_block_bytes(v->header, p))
            continue;
        if (which < 4) /* measures are much of it, and few of them decide anything */
            return at - block < fab_measures_offset(v->header) || at - block >= loans || which == 3
                       ? at
                       : block + data + (at - block) % (fab_block_bytes(v->header, p) - data) / 8 * 8;
        if (which == 4)
            return block + loans + 8 * (fixture_random(&v->seed) % ((data - loans) / 8));
        return block + fab_heads_offset() + FAB_LINE * (fixture_random(&v->seed) % lines);
    }
    return at;
}

static void *vandalise(void *arg) {
    struct vandal *v = arg;
    while (!atomic_load_explicit(&v->stop, memory_order_relaxed)) {
        uint64_t at = place(v);
        if (at >= FAB_PAGE) { /* who is attached looks at its own copy of the header */
            _Atomic(uint64_t) *word = (_Atomic(uint64_t) *)(void *)(v->whole + at);
            uint64_t before = atomic_load_explicit(word, memory_order_relaxed);
            atomic_store_explicit(word, near(&v->seed, before), memory_order_relaxed);
        }
        atomic_fetch_add_explicit(&v->written, 1, memory_order_relaxed);
    }
    return NULL;
}

/* Read what was reported, to the last byte. Returns a sum, so that the reads are not left out. */
static uint64_t inspect(const struct fab_consumer *c, const struct fab_columns *cols) {
    uint64_t sum = 0;
    CHECK(cols->count <= FAB_BATCH_MAX);
    CHECK(cols->count == 0 || cols->start + cols->bytes <= c->capacity);
    for (uint64_t i = 0; i < cols->count; i++) {
        CHECK(cols->starts[i] <= cols->ends[i] && cols->ends[i] <= cols->bytes);
        for (uint64_t at = cols->starts[i]; at < cols->ends[i]; at++)
            sum += c->data[cols->start + at];
    }
    return sum;
}

/* Open the arena, hold what there is, and lend all of it. Only the tables in the segment may be nonsense. */
static void borrow(const struct fixture_fabric *f, struct fab_peer *s, uint32_t loans) {
    struct fab_arena a;
    uint64_t usage[6];
    CHECK_EQ(fab_arena_open(&a, s), 0);
    fab_arena_allow(&a, UINT64_MAX);
    CHECK(fab_loan_adopt(s) <= f->header.processes * loans);
    for (uint32_t n = 0; n < f->header.processes * loans; n++) {
        const struct fab_loan *entry = fab_peer_loans(s, n / loans) + n % loans;
        uint64_t generation = fab_loan_state_generation(atomic_load(&entry->state));
        uint64_t loan = generation << 32 | n % loans;
        uint64_t offset = atomic_load(&entry->offset);
        uint64_t bytes = atomic_load(&entry->bytes);
        if (fab_loan_hold(s, n / loans, loan, offset, bytes, 64) == 0)
            CHECK(bytes <= f->header.arena_bytes && offset <= f->header.arena_bytes - bytes);
        fab_loan_done(s, n / loans, loan);
    }
    int64_t at = fab_arena_take(&a, 1);
    if (at >= 0)
        while (fab_arena_lend(&a, (uint64_t)at, (uint64_t)at, 1, s->process) >= 0)
            continue;
    fab_arena_usage(&a, usage);
    CHECK(usage[0] <= f->header.arena_bytes && usage[3] <= loans);
    fab_arena_close(&a);
}

/* Take the ends of the lanes anew, as a successor does, where the words allow it. */
static void succeed(struct fixture_fabric *f, uint32_t p) {
    struct fab_peer *made = calloc(1, sizeof *made);
    if (fab_peer_init(made, &f->header, p, f->whole, f->whole + fab_block_offset(&f->header, p)) == 0) {
        for (uint32_t other = 0; other < f->header.processes; other++)
            fab_peer_set_bell(made, other, f->bells[other]);
        if (p != 0)
            fab_peer_outbox_resume(made);
        fab_meter_open(made);
        borrow(f, made, (uint32_t)f->header.loans);
        struct fab_peer *before = f->peers[p];
        f->peers[p] = made;
        made = before;
    }
    free(made);
}

/* All lanes empty, and all ends anew: else they would soon all be broken for good. */
static void start_afresh(struct fixture_fabric *f) {
    uint64_t lines = 4 * (uint64_t)f->header.processes + 2;
    for (uint32_t p = 0; p < f->header.processes; p++) {
        uint8_t *counters = f->whole + fab_block_offset(&f->header, p) + fab_heads_offset();
        for (uint64_t line = 0; line < lines; line++)
            atomic_store((_Atomic(uint64_t) *)(void *)(counters + line * FAB_LINE), 0);
    }
    for (uint32_t p = 0; p < f->header.processes; p++)
        succeed(f, p);
    const uint64_t addresses[] = {UINT64_C(1) << 32 | 1, UINT64_C(1) << 32 | 2};
    const uint16_t slots[] = {1, 2};
    fab_table_write(f->whole, addresses, slots, 2, FAB_AGENT_ALIVE);
}

/* What each end believes, in its own memory, can be. */
static void check_beliefs(const struct fab_peer *s) {
    for (uint32_t l = 0; l < 2 * s->header.processes; l++) {
        const struct fab_consumer *c = &s->in[l];
        const struct fab_producer *p = &s->out[l];
        CHECK(p->next - p->head_seen <= p->capacity);
        CHECK(c->read - c->committed <= c->capacity && c->tail_seen - c->read <= c->capacity);
        CHECK(c->tail_seen - c->committed <= c->capacity);
    }
}

/* Find out where agents are, and sort their messages by that: what the table says must not lead past the arrays. */
static void look_up(const struct fab_peer *s, uint64_t *seed) {
    enum { COUNT = 16 };
    uint64_t addresses[COUNT];
    uint16_t slots[COUNT];
    uint32_t order[COUNT];
    uint32_t *starts = malloc((s->header.processes + 1) * sizeof *starts); /* no more than Python gives it */
    for (uint32_t i = 0; i < COUNT; i++)
        addresses[i] = (uint64_t)fixture_below(seed, 2) << 32 | (1 + fixture_below(seed, 2));
    uint32_t found = fab_peer_route(s, addresses, COUNT, slots);
    CHECK(found <= COUNT && fab_partition(slots, found, s->header.processes, order, starts) <= found);
    free(starts);
}

struct tally {
    uint64_t received, dropped, lost, broken, refused, quiet, sum;
};

static void step(struct fixture_fabric *f, uint64_t *seed, struct tally *t) {
    static const uint8_t body[LANE_BYTES];
    uint32_t p = fixture_below(seed, f->header.processes);
    struct fab_peer *s = f->peers[p];
    struct fab_record r = {.size = fixture_below(seed, 600), .kind = KIND, .target = fixture_random(seed)};
    t->refused += fab_peer_send(s, fixture_below(seed, 2 * f->header.processes), &r, body) != 1;
    int32_t lane = fab_peer_receive(s, 1 + fixture_below(seed, 40), fixture_below(seed, 8192), &f->cols);
    if (lane >= 0) {
        t->received += f->cols.count;
        t->sum += inspect(&s->in[lane], &f->cols);
        fab_peer_commit(s, (uint32_t)lane, f->cols.end);
    }
    if (p != 0) {
        const uint64_t address = UINT64_C(1) << 32 | fixture_below(seed, 64);
        struct fab_batch b = {.header = {.size = 100, .kind = KIND, .target = address},
                              .bytes = body,
                              .bytes_count = sizeof body,
                              .count = 3,
                              .repeated = 1};
        uint32_t done = 0;
        uint64_t offset = 0;
        CHECK(fab_peer_outbox_batch(s, &b, &done, &offset) >= 0);
        struct fab_record stray;
        for (int tries = 0; fab_peer_outbox_flush(s, &stray) == 2 && tries < 100; tries++)
            t->lost++;
    }
    check_beliefs(s);
    look_up(s, seed);
    t->quiet += (uint64_t)fab_peer_quiet(s);
    (void)fab_peer_arm(s, FAB_WAITS_MESSAGES | FAB_WAITS_ROOM | FAB_WAITS_QUIET);
    fab_peer_disarm(s);
    struct fab_survey seen[3];
    fab_survey_all(&f->header, f->whole, seen);
    t->sum += seen[1].in_flight + fab_peer_progress(s, fixture_below(seed, f->header.processes)) +
              fab_peer_awake(s);
    for (uint32_t l = 0; l < 2 * f->header.processes; l++) {
        t->broken += s->in[l].broken;
        t->dropped += s->in[l].dropped_bytes;
        s->in[l].dropped_bytes = 0;
    }
    if (fixture_below(seed, 8) == 0)
        succeed(f, p);
    if (fixture_below(seed, 30) == 0)
        start_afresh(f);
}

static void survives(uint32_t first, uint32_t last, uint64_t seed) {
    struct fixture_fabric f;
    struct tally t = {0};
    pthread_t thread;
    fixture_fabric_open(&f, 3, LANE_BYTES);
    start_afresh(&f);
    atomic_store(&((struct fab_board *)(void *)(f.whole + fab_board_offset()))->measuring, 1);
    struct vandal v = {.whole = f.whole,
                       .begin = first == 0 ? FAB_PAGE : fab_block_offset(&f.header, first),
                       .end = fab_block_offset(&f.header, last + 1),
                       .header = &f.header,
                       .seed = seed};
    CHECK_EQ(pthread_create(&thread, NULL, vandalise, &v), 0);
    for (int round = 0; round < ROUNDS || atomic_load(&v.written) < ROUNDS || t.dropped == 0 || t.broken == 0;
         round++)
        step(&f, &seed, &t); /* until it has reached all of these, which a busy machine puts off */
    atomic_store(&v.stop, 1);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    printf("(%llu received, %llu bytes dropped, %llu words written) ", (unsigned long long)t.received,
           (unsigned long long)t.dropped, (unsigned long long)atomic_load(&v.written));
    CHECK(t.received > 0 && t.sum != 0);
    for (uint32_t p = 0; p < 3; p++) /* by now they may say anything */
        atomic_store(&f.peers[p]->words->counters[FAB_COUNT_ALARMS], 0);
    fixture_fabric_close(&f);
}

static void a_worker_that_writes_over_its_own_block_is_survived(void) {
    survives(1, 1, 42);
}

static void whoever_writes_over_all_blocks_is_survived(void) {
    survives(0, 2, 43);
}

/* A header that changes while it is checked: whoever attaches looks at a copy. */
static void a_header_is_judged_by_a_copy(void) {
    struct fab_header good = {.processes = 3,
                              .lane_bytes = FAB_PAGE,
                              .peer_lane_bytes = FAB_PAGE,
                              .control_lane_bytes = FAB_PAGE,
                              .outbox_bytes = FAB_PAGE,
                              .max_agents = 64};
    uint64_t seed = 44;
    uint64_t accepted = 0;
    CHECK_EQ(fab_header_init(&good), 0);
    for (int round = 0; round < 300000; round++) {
        struct fab_header h = good;
        uint64_t words[sizeof h / 8];
        memcpy(words, &h, sizeof h);
        for (uint32_t n = fixture_below(&seed, 3); n > 0; n--) {
            uint32_t at = fixture_below(&seed, sizeof h / 8);
            words[at] =
                fixture_below(&seed, 2) ? UINT64_C(1) << fixture_below(&seed, 64) : near(&seed, words[at]);
        }
        memcpy(&h, words, sizeof h);
        if (fab_header_validate(&h, good.segment_bytes) != 0)
            continue;
        accepted++;
        for (uint32_t p = 0; p < h.processes; p++) /* whatever was accepted lies inside */
            CHECK(fab_block_offset(&h, p) + fab_block_bytes(&h, p) <= good.segment_bytes);
    }
    CHECK(accepted > 1000);
}

static const struct check_test tests[] = {
    TEST(a_worker_that_writes_over_its_own_block_is_survived),
    TEST(whoever_writes_over_all_blocks_is_survived),
    TEST(a_header_is_judged_by_a_copy),
};

int main(void) {
    return CHECK_RUN(tests, 60);
}
#else
int main(void) {
    puts("left out under ThreadSanitizer: the vandal races on purpose");
    return 0;
}
#endif
