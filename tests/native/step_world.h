/* SPDX-License-Identifier: MIT */
/*
 * step_world.h - a small fabric in a memfd, who was sent what, and how a receiver tells.
 *
 *   process 0   coordinator                   whole segment read-only, own block writable: each process has
 *   process 1   the victim, in most cases     its own two mappings, as in production. The tester plays the
 *   process 2   survivor                      survivors and the successor; only it may write everywhere
 *
 * A stream is what one process sends through one of its lanes, at once or by way of its outbox. Message n of
 * a stream says so in its header, and its body is a pattern of n, so a receiver knows what must come next.
 */
#ifndef STEP_WORLD_H
#define STEP_WORLD_H

#include "fixture.h"

#define STEP_PROCESSES 3u
#define STEP_LANES (2 * STEP_PROCESSES)
#define STEP_COORDINATOR 0u
#define STEP_VICTIM 1u
#define STEP_SURVIVOR 2u
#define STEP_NOBODY 9u /* in place of a lane: to an agent that does not live */
#define STEP_LANE_BYTES FAB_PAGE
#define STEP_KIND 7u
#define STEP_NUMBERS 64u /* messages a stream may have */
#define STEP_AGENT(index) (UINT64_C(1) << 32 | (index))

enum step_violation { STEP_TORN = 11, STEP_LOST, STEP_TWICE, STEP_STUCK }; /* exit codes of a tester */

struct step_stream {
    uint32_t sent; /* published for certain: must arrive */
    uint32_t may;  /* up to here it may have been published by the one who was killed */
    uint32_t seen; /* next number that the receiver must find */
    uint16_t size[STEP_NUMBERS];
};

/* What a case makes, and what is put back before the next look: private memory of the tester. */
struct step_state {
    struct fab_peer peers[STEP_PROCESSES];
    struct step_stream streams[STEP_PROCESSES][STEP_LANES];
    uint32_t asleep[STEP_PROCESSES]; /* for which reasons */
    uint64_t nowhere;                /* messages to nobody: lost by right */
    uint64_t lost;
};

struct step_world {
    struct step_state now;
    struct fab_header header;
    int memfd;
    uint8_t *memory; /* the tester's own mapping of the segment, writable */
    uint8_t *whole;  /* what every process sees */
    uint8_t *own[STEP_PROCESSES];
    uint8_t *block[STEP_PROCESSES]; /* inside `own` */
    int bells[STEP_PROCESSES];
    uint32_t victim;
    struct fab_columns cols;
    const char *entry; /* for the message of a violation */
    const char *state;
    uint32_t steps;
};

/* Report what must never be, and end this tester. */
static inline void step_demand(const struct step_world *w, int holds, enum step_violation kind,
                               const char *text) {
    static const char *const names[] = {"torn", "lost", "published twice", "stuck"};
    if (holds)
        return;
    fflush(stdout);
    fprintf(stderr, "step_test: %s, %s, killed after %u instructions: %s: %s\n", w->entry, w->state, w->steps,
            names[kind - STEP_TORN], text);
    _exit((int)kind);
}

static inline void *step_map(const struct step_world *w, uint64_t from, uint64_t to, int protection) {
    void *at = mmap(NULL, to - from, protection, MAP_SHARED, w->memfd, (off_t)from);
    CHECK(at != MAP_FAILED);
    return at;
}

/* Where the stretch that a process maps writable begins: the coordinator has header and table too. */
static inline uint64_t step_own_from(const struct step_world *w, uint32_t process) {
    return process == STEP_COORDINATOR ? 0 : fab_block_offset(&w->header, process);
}

/* Flush an outbox; *lost counts what nobody can get. */
static inline int step_flush(struct fab_peer *s, uint64_t *lost) {
    struct fab_record stray;
    int rc;
    while ((rc = fab_peer_outbox_flush(s, &stray)) == 2)
        ++*lost;
    return rc;
}

static inline void step_world_open(struct step_world *w) {
    w->header = (struct fab_header){.processes = STEP_PROCESSES,
                                    .lane_bytes = STEP_LANE_BYTES,
                                    .peer_lane_bytes = STEP_LANE_BYTES,
                                    .control_lane_bytes = STEP_LANE_BYTES,
                                    .outbox_bytes = STEP_LANE_BYTES,
                                    .max_agents = 64};
    CHECK_EQ(fab_header_init(&w->header), 0);
    w->memfd = memfd_create("step_test", MFD_CLOEXEC);
    CHECK(w->memfd >= 0);
    CHECK_EQ(ftruncate(w->memfd, (off_t)w->header.segment_bytes), 0);
    w->memory = step_map(w, 0, w->header.segment_bytes, PROT_READ | PROT_WRITE);
    w->whole = step_map(w, 0, w->header.segment_bytes, PROT_READ);
    for (uint32_t p = 0; p < STEP_PROCESSES; p++) {
        uint64_t from = step_own_from(w, p);
        w->own[p] = step_map(w, from, fab_block_offset(&w->header, p + 1), PROT_READ | PROT_WRITE);
        w->block[p] = w->own[p] + (fab_block_offset(&w->header, p) - from);
        w->bells[p] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        CHECK(w->bells[p] >= 0);
    }
}

/* In a victim: give up what only the tester has. A write outside the own block is a SIGSEGV from here on. */
static inline void step_world_enter(const struct step_world *w, uint32_t process) {
    CHECK_EQ(munmap(w->memory, w->header.segment_bytes), 0);
    for (uint32_t p = 0; p < STEP_PROCESSES; p++)
        if (p != process)
            CHECK_EQ(munmap(w->own[p], fab_block_offset(&w->header, p + 1) - step_own_from(w, p)), 0);
}

/* Put a process into its slot: the first one, or a successor. */
static inline void step_attach(struct step_world *w, uint32_t process) {
    struct fab_peer *s = &w->now.peers[process];
    memset(s, 0, sizeof *s);
    step_demand(w, fab_peer_init(s, &w->header, process, w->whole, w->block[process]) == 0, STEP_STUCK,
                "nobody can take over");
    for (uint32_t other = 0; other < STEP_PROCESSES; other++)
        fab_peer_set_bell(s, other, w->bells[other]);
}

static inline _Atomic(uint64_t) *step_word(const struct step_world *w, uint32_t process, uint64_t lines,
                                           uint32_t lane) {
    uint8_t *block = w->memory + fab_block_offset(&w->header, process);
    return &((struct fab_counter_line *)(void *)(block + lines))[lane].value;
}

/* An empty fabric, all of whose counters stand at `at`, with nonsense where no record was yet. */
static inline void step_world_reset(struct step_world *w, uint64_t at) {
    uint64_t blocks = fab_block_offset(&w->header, 0);
    const uint64_t addresses[] = {STEP_AGENT(0), STEP_AGENT(1), STEP_AGENT(2)};
    const uint16_t slots[] = {0, 1, 2};
    memset(w->memory, 0, blocks);
    for (uint32_t p = 0; p < STEP_PROCESSES;
         p++) { /* but for what is measured, which is much and decides nothing */
        uint8_t *block = w->memory + fab_block_offset(&w->header, p);
        uint64_t behind = fab_last_use_offset(&w->header);
        memset(block, 0xee, fab_measures_offset(&w->header));
        memset(block + behind, 0xee, fab_block_bytes(&w->header, p) - behind);
    }
    fab_table_write(w->memory, addresses, slots, STEP_PROCESSES, FAB_AGENT_ALIVE);
    memset(&w->now, 0, sizeof w->now);
    for (uint32_t p = 0; p < STEP_PROCESSES; p++) {
        memset(w->memory + fab_block_offset(&w->header, p), 0, sizeof(struct fab_words));
        for (uint32_t lane = 0; lane < STEP_LANES; lane++) {
            atomic_store(step_word(w, p, fab_heads_offset(), lane), at);
            atomic_store(step_word(w, p, fab_tails_offset(&w->header), lane), at);
        }
        for (uint32_t end = 0; end < 2; end++) /* of the outbox */
            atomic_store(step_word(w, p, fab_outbox_words_offset(&w->header), end), at);
    }
    for (uint32_t p = 0; p < STEP_PROCESSES; p++) {
        step_attach(w, p);
        fab_doorbell_clear(w->bells[p]);
    }
}

/* Message n of a stream. */
static inline uint64_t step_seed(uint32_t from, uint32_t lane, uint32_t n) {
    return (uint64_t)from << 40 | (uint64_t)lane << 32 | n;
}

static inline struct fab_record step_record(const struct step_world *w, uint32_t from, uint32_t lane,
                                            uint32_t n) {
    uint64_t seed = step_seed(from, lane, n);
    uint32_t agent = lane == STEP_NOBODY ? STEP_NOBODY : lane % STEP_PROCESSES;
    return (struct fab_record){
        .size = lane == STEP_NOBODY ? 40 : w->now.streams[from][lane].size[n % STEP_NUMBERS],
        .kind = STEP_KIND,
        .encoding = (uint8_t)n,
        .flags = 3,
        .target = STEP_AGENT(agent),
        .sender = ~seed,
        .correlation = seed};
}

/* Send message n. Returns 1, or 0 when there is no room. */
static inline int step_send(struct step_world *w, uint32_t from, uint32_t lane, uint32_t n) {
    uint8_t body[STEP_LANE_BYTES];
    struct fab_record r = step_record(w, from, lane, n);
    fixture_fill(body, step_seed(from, lane, n), r.size);
    return fab_peer_send(&w->now.peers[from], lane, &r, body);
}

/* Put message n into the outbox. Returns 1, or 0 when there is no room. */
static inline int step_put(struct step_world *w, uint32_t from, uint32_t lane, uint32_t n) {
    uint8_t body[STEP_LANE_BYTES];
    uint32_t done = 0;
    uint64_t offset = 0;
    struct fab_batch b = {.header = step_record(w, from, lane, n), .bytes = body, .count = 1};
    b.bytes_count = b.header.size;
    fixture_fill(body, step_seed(from, lane, n), b.header.size);
    return fab_peer_outbox_batch(&w->now.peers[from], &b, &done, &offset);
}

/* Give the next message of a stream a size. Returns its number. */
static inline uint32_t step_number(struct step_world *w, uint32_t from, uint32_t lane, uint16_t size) {
    struct step_stream *stream = &w->now.streams[from][lane];
    CHECK(stream->may < STEP_NUMBERS);
    stream->size[stream->may] = size;
    return stream->may++;
}

/* A record that was found: is it whole, and which is it? */
static inline uint32_t step_verify(const struct step_world *w, uint32_t from, uint32_t lane,
                                   const struct fab_record *found, const uint8_t *body) {
    uint32_t n = (uint32_t)found->correlation;
    const struct step_stream *stream = &w->now.streams[from][lane];
    struct fab_record wanted = step_record(w, from, lane, n);
    uint64_t wrong = 0;
    step_demand(w,
                n < stream->may && found->size == wanted.size && found->encoding == wanted.encoding &&
                    found->target == wanted.target && found->sender == wanted.sender &&
                    found->correlation == wanted.correlation,
                STEP_TORN, "a header that nobody wrote");
    for (uint32_t i = 0; i < wanted.size; i++)
        wrong += body[i] != fixture_byte(step_seed(from, lane, n), i);
    step_demand(w, wrong == 0, STEP_TORN, "a body that nobody wrote");
    return n;
}

/* Read all that lies before a process, and hand it back. */
static inline void step_take(struct step_world *w, uint32_t to) {
    struct fab_peer *s = &w->now.peers[to];
    const struct fab_columns *cols = &w->cols;
    for (int32_t got; (got = fab_peer_receive(s, FAB_BATCH_MAX, UINT64_MAX, &w->cols)) >= 0;) {
        uint32_t from = (uint32_t)got % STEP_PROCESSES;
        uint32_t lane = (uint32_t)got < STEP_PROCESSES ? to : to + STEP_PROCESSES;
        struct step_stream *stream = &w->now.streams[from][lane];
        for (uint64_t i = 0; i < cols->count; i++) {
            struct fab_record r = {.size = cols->ends[i] - cols->starts[i],
                                   .encoding = cols->encodings[i],
                                   .target = cols->targets[i],
                                   .sender = cols->senders[i],
                                   .correlation = cols->correlations[i]};
            uint32_t n = step_verify(w, from, lane, &r, s->in[got].data + cols->start + cols->starts[i]);
            step_demand(w, n >= stream->seen, STEP_TWICE, "a message that was there already");
            step_demand(w, n <= stream->seen, STEP_LOST, "the one before it is missing");
            stream->seen++;
        }
        fab_peer_commit(s, (uint32_t)got, cols->end);
    }
    step_demand(w, fab_peer_dropped(s) == 0, STEP_TORN, "bytes that are no record");
}

#endif
