/* SPDX-License-Identifier: MIT */
/*
 * interleave_world.h - a segment of a few processes over weak memory, and who replaces the dead.
 *
 *   coordinator, workers     coroutines that run the shipped fab_peer functions, each over its own fab_peer
 *   supervisor               waits for a death, rings all bells, starts a successor: fabric/supervisor.py
 */
#ifndef INTERLEAVE_WORLD_H
#define INTERLEAVE_WORLD_H

#include "weak.h"

#define WORLD_LANE UINT64_C(4096) /* the smallest there is */
#define WORLD_PROCESSES_MAX 3u
#define WORLD_MESSAGES 4u
#define WORLD_KIND 7u
#define WORLD_BYTES (UINT64_C(4) << 20)

/* Seeded faults, in what the coroutines do and not in the headers: each must be noticed. */
enum world_fault {
    WORLD_SOUND,
    WORLD_TAIL_BEFORE_DATA,
    WORLD_COMMIT_BEFORE_READ,
    WORLD_COMMIT_BEFORE_REPLY,
    WORLD_BATCH_IN_PIECES,
    WORLD_NO_BELL,
    WORLD_NO_BELL_FOR_ROOM,
    WORLD_NO_SECOND_LOOK,
    WORLD_LOOK_BEFORE_SLEEPING,
    WORLD_NO_DEATH_BELL,
    WORLD_SUCCESSOR_TOO_SOON,
    WORLD_QUIET_TAILS_FIRST,
    WORLD_OUTBOX_NOT_RESUMED,
    WORLD_DONE_BEFORE_COMMIT,
    WORLD_COMMIT_BEFORE_HOLD,
    WORLD_NO_BELL_FOR_ARENA,
    WORLD_RECEIPTS_BEFORE_LANES,
    WORLD_RECEIPTS_NOT_ADOPTED,
    WORLD_FAULTS
};

struct world {
    struct fab_header header;
    uint8_t *memory;
    uint64_t block[WORLD_PROCESSES_MAX];
    struct fab_peer peers[EXPLORE_THREADS]; /* by coroutine: a successor has its own */
    struct fab_columns cols[EXPLORE_THREADS];
    uint32_t process[EXPLORE_THREADS];
    uint32_t messages;
    uint32_t body_bytes;
    uint32_t passed_on; /* worker 1 passes on what it gets */
    /* Outside the segment: what agents did, 1 with what the coordinator sent, 2 with what was passed on; and what
     * the one who asked got. */
    uint32_t handled[3][WORLD_MESSAGES];
    uint32_t answered[WORLD_MESSAGES];
    enum world_fault fault;
};
static struct world world;

static inline struct fab_peer *world_self(void) {
    return &world.peers[explore.current];
}

static inline struct fab_columns *world_cols(void) {
    return &world.cols[explore.current];
}

/* Byte i of body n. */
static inline uint8_t world_byte(uint32_t n, uint32_t i) {
    return (uint8_t)(0x11 * (n + 1) + i);
}

static inline struct fab_record world_record(uint32_t n) {
    return (struct fab_record){
        .size = world.body_bytes, .kind = WORLD_KIND, .target = n, .correlation = n + 1};
}

static inline void world_fill(uint8_t *body, uint32_t n) {
    for (uint32_t i = 0; i < world.body_bytes; i++)
        body[i] = world_byte(n, i);
}

/* Read record i of a run as an agent would, and look whether it is whole. Returns its number. */
static inline uint32_t world_examine(const struct fab_consumer *c, const struct fab_columns *cols,
                                     uint32_t i) {
    uint8_t body[WORLD_LANE / 2];
    uint32_t n = (uint32_t)cols->targets[i];
    if (n >= world.messages || cols->correlations[i] != n + 1 || cols->kind != WORLD_KIND ||
        cols->ends[i] - cols->starts[i] != world.body_bytes)
        explore_fail("torn or stale: the header of a record");
    memcpy(body, c->data + cols->start + cols->starts[i], world.body_bytes);
    for (uint32_t at = 0; at < world.body_bytes; at++)
        if (body[at] != world_byte(n, at))
            explore_fail("torn or stale: the body of record %u", n);
    return n;
}

/* Connect the running coroutine, or in setup coroutine `thread`, to the segment as a process. */
static inline void world_connect(uint32_t thread, uint32_t process) {
    struct fab_peer *s = &world.peers[thread];
    uint32_t lanes = 2 * world.header.processes;
    memset(s, 0, offsetof(struct fab_peer, out) + lanes * sizeof *s->out);
    memset(s->in, 0, lanes * sizeof *s->in);
    if (fab_peer_init(s, &world.header, process, world.memory, world.memory + world.block[process]) != 0)
        explore_fail("process %u cannot connect to what its predecessor left", process);
    for (uint32_t other = 0; other < world.header.processes; other++)
        s->bells[other] = WEAK_FIRST_BELL + (int)other;
    s->bell = s->bells[process];
}

static inline uint32_t world_start(const char *name, uint32_t process, void (*body)(void *), int killable) {
    uint32_t thread = explore_start(name, body, NULL, killable);
    world.process[thread] = process;
    return thread;
}

static inline int world_is_dead(uint32_t thread, const void *awaited) {
    (void)thread;
    (void)awaited;
    for (uint32_t i = 0; i < explore.started; i++)
        if (explore.threads[i].status == EXPLORE_DEAD)
            return 1;
    return 0;
}

/* Ring all bells for a dead one, and start another in its place. The kernel says that it is dead, so whoever
 * is told by us, or started by us, finds all that it wrote. */
static inline void world_replace(uint32_t dead) {
    const struct explore_thread *t = &explore.threads[dead];
    explore_note(dead);
    *weak_view() = weak.views[dead];
    if (world.fault != WORLD_NO_DEATH_BELL)
        for (uint32_t p = 0; p < world.header.processes; p++)
            fab_doorbell_ring(WEAK_FIRST_BELL + (int)p);
    explore_pause();
    uint32_t next = world_start(t->name, world.process[dead], t->body, t->killable);
    weak.views[next] = weak.views[dead];
    world.peers[next].process = UINT32_MAX; /* it is to connect by itself */
}

static inline void world_supervise(void *arg) {
    (void)arg;
    if (world.fault == WORLD_SUCCESSOR_TOO_SOON) { /* a timeout is taken for a death */
        explore_pause();
        world_replace(1);
        return;
    }
    for (uint32_t deaths = 0; deaths < explore.scenario->kills; deaths++) {
        uint32_t dead = 0;
        explore_block(world_is_dead, NULL);
        while (explore.threads[dead].status != EXPLORE_DEAD)
            dead++;
        world_replace(dead);
        explore.threads[dead].status = EXPLORE_DONE;
    }
}

static inline void world_start_supervisor(void) {
    if (explore.scenario->kills != 0 || world.fault == WORLD_SUCCESSOR_TOO_SOON)
        weak.onlooker = world_start("supervisor", 0, world_supervise, 0);
}

/* What a process remembers of its lanes, where it begins another turn of its loop. */
static inline void world_forget(uint64_t more) {
    const struct fab_peer *s = world_self();
    uint64_t hash = explore_mix(more, s->next_lane);
    for (uint32_t lane = 0; lane <= 2 * s->header.processes; lane++) {
        int outbox = lane == 2 * s->header.processes;
        const struct fab_producer *p = outbox ? &s->outbox_in : &s->out[lane];
        const struct fab_consumer *c = outbox ? &s->outbox_out : &s->in[lane];
        if ((outbox ? s->process == 0 : p->capacity == 0))
            continue;
        hash = explore_mix(explore_mix(hash, p->next), p->head_seen);
        hash = explore_mix(explore_mix(hash, p->starved_at), c->read);
        hash = explore_mix(explore_mix(hash, c->tail_seen), c->committed);
    }
    explore_forget(hash);
}

static inline uint64_t weak_outside_hash(uint64_t hash) {
    for (uint32_t n = 0; n < world.messages; n++) {
        hash = explore_mix(hash, world.answered[n]);
        for (uint32_t stage = 1; stage <= 2; stage++)
            hash = explore_mix(hash, world.handled[stage][n]);
    }
    return hash;
}

/* The first thing that a process does: a successor connects to what it finds. */
static inline struct fab_peer *world_enter(void) {
    if (world_self()->process == UINT32_MAX)
        world_connect(explore.current, world.process[explore.current]);
    return world_self();
}

static inline void world_open_with(uint32_t processes, uint64_t arena_bytes, uint64_t loans) {
    world.header = (struct fab_header){.processes = processes,
                                       .lane_bytes = WORLD_LANE,
                                       .peer_lane_bytes = WORLD_LANE,
                                       .control_lane_bytes = WORLD_LANE,
                                       .outbox_bytes = WORLD_LANE,
                                       .arena_bytes = arena_bytes,
                                       .loans = loans,
                                       .max_agents = WORLD_MESSAGES};
    CHECK_EQ(fab_header_init(&world.header), 0);
    if (world.memory == NULL)
        world.memory = mmap(NULL, WORLD_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(world.memory != MAP_FAILED && world.header.segment_bytes <= WORLD_BYTES);
    for (uint32_t p = 0; p < processes; p++)
        world.block[p] = fab_block_offset(&world.header, p);
    weak_reset();
    world.passed_on = 0;
    memset(world.handled, 0, sizeof world.handled);
    memset(world.answered, 0, sizeof world.answered);
}

static inline void world_open(uint32_t processes) {
    world_open_with(processes, 0, 0);
}

/* The data lane from one process to another is shared. All of it but `room` bytes is a PAD not yet read. */
static inline void world_announce_lane(uint32_t from, uint32_t to, uint64_t room, const char *tail,
                                       const char *head, const char *data) {
    uint8_t *producer = world.memory + world.block[from];
    const uint8_t *consumer = world.memory + world.block[to];
    uint8_t *bytes = producer + fab_data_offset(&world.header, from, to);
    const uint32_t pad[2] = {(uint32_t)(WORLD_LANE - room), FAB_KIND_PAD};
    weak_word(fab_peer_counter(producer, fab_tails_offset(&world.header), to), tail, pad[0], 0);
    weak_word(fab_peer_counter(consumer, fab_heads_offset(), from), head, 0, 0);
    memcpy(bytes, pad, sizeof pad);
    weak_bytes(bytes, WORLD_LANE, data);
}

static inline void world_announce_sleeper(uint32_t process, const char *name) {
    weak_word(&((struct fab_words *)(void *)(world.memory + world.block[process]))->sleeping, name, 0,
              FAB_W1B == memory_order_seq_cst);
}

#endif
