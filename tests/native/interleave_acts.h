/* SPDX-License-Identifier: MIT */
/*
 * interleave_acts.h - what the coroutines do, with the shipped functions; and the same with a seeded fault.
 */
#ifndef INTERLEAVE_ACTS_H
#define INTERLEAVE_ACTS_H

#include "interleave_world.h"

/* One lane, without bells. */
struct lane {
    alignas(FAB_LINE) _Atomic(uint64_t) tail;
    alignas(FAB_LINE) _Atomic(uint64_t) head;
    alignas(FAB_LINE) uint8_t data[WORLD_LANE];
    uint64_t ends[WORLD_MESSAGES + 1]; /* counter behind message n - 1 */
    uint32_t batch;                    /* messages published together */
};
static struct lane lane;

/* Which message comes after this counter: what a successor goes on with. */
static inline uint32_t lane_number(uint64_t counter) {
    for (uint32_t n = 0; n <= world.messages; n++)
        if (lane.ends[n] == counter)
            return n;
    explore_fail("a counter is at %llu, between two records", (unsigned long long)counter);
    return 0;
}

static inline int lane_put(struct fab_producer *p, uint32_t n) {
    uint8_t body[WORLD_LANE / 2];
    struct fab_record r = world_record(n);
    world_fill(body, n);
    if (world.fault != WORLD_TAIL_BEFORE_DATA)
        return fab_producer_put(p, &r, body);
    uint8_t *at = fab_producer_claim(p, fab_record_span(r.size));
    if (at == NULL)
        return 0;
    fab_producer_publish(p);
    r.size += (uint32_t)sizeof r;
    memcpy(at, &r, sizeof r);
    memcpy(at + sizeof r, body, world.body_bytes);
    return 1;
}

static inline void lane_produce(void *arg) {
    struct fab_producer p = {0};
    (void)arg;
    if (fab_producer_init(&p, &lane.tail, &lane.head, lane.data, WORLD_LANE) != 0)
        explore_fail("the producer cannot connect");
    uint32_t n = lane_number(p.next);
    if (n % lane.batch != 0 && n != world.messages)
        explore_fail("torn: a batch is published in part");
    while (n < world.messages) {
        uint32_t written = 0;
        while (n < world.messages && written < lane.batch && lane_put(&p, n) == 1) {
            n++;
            written++;
            if (world.fault == WORLD_BATCH_IN_PIECES)
                fab_producer_publish(&p);
        }
        if (written == 0)
            weak_await(&lane.head);
        else
            fab_producer_publish(&p);
    }
}

static inline void lane_consume(void *arg) {
    struct fab_columns *cols = world_cols();
    struct fab_consumer c = {0};
    (void)arg;
    if (fab_consumer_init(&c, &lane.tail, &lane.head, lane.data, WORLD_LANE) != 0)
        explore_fail("the consumer cannot connect");
    uint32_t n = lane_number(c.read);
    while (n < world.messages) {
        uint32_t count = fab_consumer_peek(&c, FAB_BATCH_MAX, UINT64_MAX, cols);
        if (c.broken || c.dropped_bytes != 0)
            explore_fail("torn or stale: bytes that are no record");
        if (count == 0)
            weak_await(&lane.tail);
        if (world.fault == WORLD_COMMIT_BEFORE_READ)
            fab_consumer_commit(&c, cols->end);
        for (uint32_t i = 0; i < count; i++, n++) {
            if (world_examine(&c, cols, i) != n)
                explore_fail("record %llu where %u was to come", (unsigned long long)cols->targets[i], n);
            world.handled[1][n]++;
            explore_may_die();
        }
        fab_consumer_commit(&c, cols->end);
    }
}

static inline void lane_open(uint64_t at, uint32_t messages, uint32_t body_bytes, uint32_t batch) {
    weak_reset();
    memset(world.handled, 0, sizeof world.handled);
    world.header.processes = 0;
    world.messages = messages;
    world.body_bytes = body_bytes;
    lane.batch = batch;
    lane.ends[0] = at;
    for (uint32_t n = 0; n < messages; n++) {
        uint64_t span = fab_record_span(body_bytes);
        uint64_t to_end = WORLD_LANE - (lane.ends[n] & (WORLD_LANE - 1));
        lane.ends[n + 1] = lane.ends[n] + span + (span > to_end ? to_end : 0);
    }
    weak_word(&lane.tail, "tail", at, 0);
    weak_word(&lane.head, "head", at, 0);
    weak_bytes(lane.data, WORLD_LANE, "the lane");
    world_start("producer", 0, lane_produce, 1);
    world_start("consumer", 1, lane_consume, 1);
    world_start_supervisor();
}

/* Have all messages been handled, as they came from the coordinator (1) or from a worker (2), and none of them
 * oftener than there were deaths? */
static inline void world_demand_handled(uint32_t stage) {
    for (uint32_t n = 0; n < world.messages; n++) {
        if (world.handled[stage][n] == 0)
            explore_fail("stuck or lost: record %u", n);
        if (world.handled[stage][n] > 1 + explore.scenario->kills - explore.kills_left)
            explore_fail("record %u came %u times", n, world.handled[stage][n]);
    }
}

static inline void lane_verdict(void) {
    world_demand_handled(1);
    if (weak_last(weak_find(&lane.tail)) != lane.ends[world.messages] ||
        weak_last(weak_find(&lane.head)) != lane.ends[world.messages])
        explore_fail("stuck: not all is published and read");
}

/* Sleep for these reasons. */
static inline void world_park(struct fab_peer *s, uint32_t reasons) {
    if (world.fault != WORLD_NO_SECOND_LOOK && world.fault != WORLD_LOOK_BEFORE_SLEEPING) {
        fab_peer_park(s, reasons, -1, -1);
        return;
    }
    struct pollfd bell = {.fd = s->bell, .events = POLLIN};
    if (world.fault == WORLD_LOOK_BEFORE_SLEEPING && fab_peer_look_again(s, reasons))
        return;
    atomic_store_explicit(&s->words->sleeping, reasons, memory_order_seq_cst);
    ppoll(&bell, 1, NULL, NULL);
    fab_peer_disarm(s);
}

static inline int world_send(struct fab_peer *s, uint32_t to, uint32_t n) {
    uint8_t body[WORLD_LANE / 2];
    struct fab_record r = world_record(n);
    world_fill(body, n);
    if (world.fault != WORLD_NO_BELL)
        return fab_peer_send(s, to, &r, body);
    int rc = fab_producer_put(&s->out[to], &r, body);
    if (rc == 1)
        fab_producer_publish(&s->out[to]);
    return rc;
}

static inline void world_commit(struct fab_peer *s, uint32_t from, uint64_t end) {
    if (world.fault == WORLD_NO_BELL_FOR_ROOM)
        fab_consumer_commit(&s->in[from], end);
    else
        fab_peer_commit(s, from, end);
}

/* Receive, and look whether the lanes hold nothing but records. */
static inline int32_t world_receive(struct fab_peer *s) {
    int32_t from = fab_peer_receive(s, FAB_BATCH_MAX, UINT64_MAX, world_cols());
    if (from >= 0 && (s->in[from].broken || s->in[from].dropped_bytes != 0))
        explore_fail("torn or stale: bytes that are no record");
    return from;
}

/* Handle the messages of a run: pass each on to process `to`, or to nobody. */
static inline void world_handle(struct fab_peer *s, uint32_t from, int32_t to) {
    struct fab_columns *cols = world_cols();
    uint32_t *handled = world.handled[from == 0 ? 1 : 2];
    if (world.fault == WORLD_COMMIT_BEFORE_READ || world.fault == WORLD_COMMIT_BEFORE_REPLY)
        world_commit(s, from, cols->end);
    for (uint32_t i = 0; i < cols->count; i++) {
        uint32_t n = world_examine(&s->in[from], cols, i);
        if (n > 0 && handled[n - 1] == 0)
            explore_fail("record %u came before the one before it", n);
        handled[n]++;
        explore_may_die();
        while (to >= 0 && world_send(s, (uint32_t)to, n) == 0)
            world_park(s, FAB_WAITS_ROOM);
    }
    world_commit(s, from, cols->end);
}

/* A worker's loop, with native/ only: what comes is answered to the coordinator. */
static inline void world_answer(void *arg) {
    struct fab_peer *s = world_enter();
    (void)arg;
    for (;;) {
        world_forget(0);
        int32_t from = world_receive(s);
        if (from >= 0)
            world_handle(s, (uint32_t)from, 0);
        else
            world_park(s, FAB_WAITS_MESSAGES);
    }
}

/* The same, for what nobody waits for. Worker 1 passes it on: to worker 2, or to itself where there is none. */
static inline void world_take(void *arg) {
    struct fab_peer *s = world_enter();
    (void)arg;
    for (;;) {
        world_forget(0);
        int32_t from = world_receive(s);
        if (from >= 0)
            world_handle(s, (uint32_t)from,
                         from == 0 && world.passed_on ? (int32_t)world.header.processes - 1 : -1);
        else
            world_park(s, FAB_WAITS_MESSAGES);
    }
}

/* One who asks: send all, and go on until each has its answer. */
static inline void world_ask(void *arg) {
    struct fab_peer *s = world_enter();
    struct fab_columns *cols = world_cols();
    uint32_t sent = 0;
    uint32_t got = 0;
    (void)arg;
    while (got < world.messages) {
        world_forget(sent * 100 + got);
        while (sent < world.messages && world_send(s, 1, sent) == 1)
            sent++;
        int32_t from = world_receive(s);
        if (from < 0) {
            world_park(s, FAB_WAITS_MESSAGES | (sent < world.messages ? FAB_WAITS_ROOM : 0));
            continue;
        }
        for (uint32_t i = 0; i < cols->count; i++) {
            uint32_t n = world_examine(&s->in[from], cols, i);
            if (n > got || (n < got && explore.kills_left == explore.scenario->kills))
                explore_fail("answer %u where %u was to come", n, got);
            got += n == got; /* a second answer, of a successor, is dropped */
            world.answered[n]++;
        }
        world_commit(s, (uint32_t)from, cols->end);
    }
}

/* One who tells, and waits for room where there is none. */
static inline void world_tell(void *arg) {
    struct fab_peer *s = world_enter();
    (void)arg;
    for (uint32_t n = 0; n < world.messages; n++)
        for (world_forget(n); world_send(s, 1, n) == 0; world_forget(n))
            world_park(s, FAB_WAITS_ROOM);
}

static inline int world_quiet(struct fab_peer *s) {
    if (world.fault != WORLD_QUIET_TAILS_FIRST)
        return fab_peer_quiet(s);
    uint64_t odd;
    uint64_t tails = fab_peer_sum(s, 0, &odd);
    return fab_peer_sum(s, 1, &odd) == tails;
}

/* One who tells, and waits until all of it has been handled, and what came of it. */
static inline void world_drain(void *arg) {
    struct fab_peer *s = world_enter();
    world_tell(arg);
    for (world_forget(100); !world_quiet(s); world_forget(100))
        world_park(s, FAB_WAITS_QUIET);
    for (uint32_t n = 0; n < world.messages; n++)
        if (world.handled[1][n] == 0 || world.handled[2][n] == 0)
            explore_fail("quiet, and message %u is not handled", n);
}

/* A worker whose agent sent all to worker 2, by way of the outbox. A successor goes on. */
static inline void world_flush(void *arg) {
    struct fab_peer *s = world_enter();
    struct fab_batch batch = {.header = world_record(0), .bytes = NULL, .count = world.messages};
    uint8_t bytes[WORLD_MESSAGES * WORLD_LANE / 2];
    uint64_t targets[WORLD_MESSAGES];
    uint64_t correlations[WORLD_MESSAGES];
    struct fab_record stray;
    uint64_t offset = 0;
    uint32_t done = 0;
    (void)arg;
    for (uint32_t n = 0; n < world.messages; n++) {
        targets[n] = n;
        correlations[n] = n + 1;
        world_fill(bytes + n * world.body_bytes, n);
    }
    batch.targets = targets;
    batch.correlations = correlations;
    batch.bytes = bytes;
    batch.bytes_count = world.messages * world.body_bytes;
    if (s->outbox_in.next == 0 && fab_peer_outbox_batch(s, &batch, &done, &offset) != (int32_t)world.messages)
        explore_fail("the outbox does not take all");
    if (world.fault != WORLD_OUTBOX_NOT_RESUMED)
        fab_peer_outbox_resume(s);
    if (fab_peer_outbox_flush(s, &stray) != 1) /* the lane is large, and all targets are there */
        explore_fail("lost or stuck: a record of the outbox");
}

#endif
