/* SPDX-License-Identifier: MIT */
/*
 * step_acts.h - what a victim does: one entry point each, and the same with a fault that must be noticed.
 *
 * `control` is shared by tester and victim, and lies outside the segment: what the victim writes there stands
 * for what it did with a message (its reply, its file, its counter), and survives it.
 */
#ifndef STEP_ACTS_H
#define STEP_ACTS_H

#include "step_world.h"

#define STEP_HANDLED 8u

/* In place of libc's, which starts over when the kernel's clock ticked meanwhile: with half a millisecond an
 * instruction it always did. Here time stands still, so that two runs of a victim leave the same. */
int clock_gettime(clockid_t clock, struct timespec *now) {
    (void)clock;
    *now = (struct timespec){.tv_sec = 1};
    return 0;
}

/* Seeded faults: a test that cannot fail proves nothing. */
enum step_fault {
    STEP_SOUND,
    STEP_PIECES,      /* a batch is published record by record */
    STEP_EARLY_HEAD,  /* messages are handed back before they are handled */
    STEP_EARLY_TAIL,  /* a record is published before it is written */
    STEP_SILENT,      /* a record is published and the sleeper not told */
    STEP_LATE_OUTBOX, /* the outbox is handed back once, when all of it was moved */
    STEP_LATE_INTENT, /* what the publication of a slice means is said behind it */
    STEP_FAULTS
};

struct step_fill {
    uint8_t from;
    uint8_t lane;
    uint8_t count;
    uint8_t outbox; /* by way of the outbox */
    uint16_t size;
};

struct step_run;
struct step_case {
    const char *entry;
    const char *state;
    int32_t (*act)(struct step_run *);
    int32_t rc;  /* what it returns when nobody kills it */
    uint64_t at; /* where all counters stand at first */
    struct step_fill fills[4];
    uint16_t sizes[3]; /* what a publisher is to publish */
    uint32_t count;
    uint32_t lane;
    uint32_t most;    /* records, or bytes in flight; 0: no limit */
    uint32_t reasons; /* what the victim waits for */
    uint32_t sleeper; /* who else sleeps, and why */
    uint32_t sleeps_for;
    uint32_t starved; /* who found its lane full; then room came, or not */
    uint32_t room_came;
    uint32_t behind; /* what lies in the outbox */
    uint32_t victim;
    uint32_t long_way; /* go the long way too, and compare */
};

struct step_control {
    _Atomic(int) began;
    _Atomic(int) ended;
    int32_t rc;
    _Atomic(uint32_t) handled;
    _Atomic(uint32_t) runs;
    struct {
        uint32_t lane;
        uint32_t handled; /* records of this run and before */
        uint64_t end;
    } run[STEP_HANDLED];
    struct {
        uint32_t lane;
        struct fab_record header;
        uint8_t body[STEP_LANE_BYTES / 2];
    } record[STEP_HANDLED];
};

/* One case, under way. */
struct step_run {
    struct step_world *w;
    const struct step_case *c;
    struct step_control *control;
    enum step_fault fault;
    struct step_state begin; /* what `prepared` and this are put back to */
    uint8_t *prepared;       /* the segment as it was when the victim began */
    uint8_t *left;           /* as the victim of this step left it */
    struct fab_batch batch;  /* what a publisher is to publish */
    uint64_t targets[3];
    uint64_t senders[3];
    uint64_t correlations[3];
    uint32_t sizes[3];
    uint8_t encodings[3];
    uint8_t bytes[STEP_LANE_BYTES];
    uint8_t string[2 * STEP_LANE_BYTES]; /* the same, laid out as Python does what a slice sends */
    uint64_t string_bytes;
    struct fab_peer spare; /* zeroed memory for a successor */
};

static inline struct fab_peer *step_self(struct step_run *r) {
    return &r->w->now.peers[r->c->victim];
}

static inline int32_t step_send_one(struct step_run *r) {
    const struct fab_batch *b = &r->batch;
    struct fab_peer *s = step_self(r);
    struct fab_producer *p = &s->out[r->c->lane];
    uint32_t meta = b->header.kind | (uint32_t)b->encodings[0] << 16 | (uint32_t)b->header.flags << 24;
    struct fab_record record = fab_batch_header(b, 0);
    if (r->fault == STEP_SILENT) {
        int32_t rc = fab_producer_put(p, &record, b->bytes);
        fab_producer_publish(p);
        return rc;
    }
    if (r->fault == STEP_EARLY_TAIL) {
        uint8_t *at = fab_producer_claim(p, fab_record_span(record.size));
        if (at == NULL)
            return 0;
        fab_peer_publish(s, r->c->lane);
        record.size += (uint32_t)sizeof record;
        memcpy(at, &record, sizeof record);
        memcpy(at + sizeof record, b->bytes, record.size - sizeof record);
        return 1;
    }
    return fab_peer_send_one(s, r->c->lane, meta, b->targets[0], b->senders[0], b->correlations[0], b->bytes,
                             b->sizes[0]);
}

static inline int32_t step_send_batch(struct step_run *r) {
    uint32_t done = 0;
    uint64_t offset = 0;
    uint64_t most = r->c->most != 0 ? r->c->most : UINT64_MAX;
    if (r->fault != STEP_PIECES)
        return fab_peer_send_batch(step_self(r), r->c->lane, &r->batch, most, &done, &offset);
    struct fab_batch piece = r->batch;
    int32_t sent = 0;
    for (piece.count = 1; piece.count <= r->batch.count; piece.count++)
        sent += fab_peer_send_batch(step_self(r), r->c->lane, &piece, most, &done, &offset);
    return sent;
}

static inline int32_t step_outbox_batch(struct step_run *r) {
    uint32_t done = 0;
    uint64_t offset = 0;
    return fab_peer_outbox_batch(step_self(r), &r->batch, &done, &offset);
}

#define STEP_SLICE_LANE 2
#define STEP_SLICE_END 4096

static inline int32_t step_outbox_pass(struct step_run *r) {
    struct fab_peer *s = step_self(r);
    int32_t of = r->fault == STEP_LATE_INTENT ? -1 : STEP_SLICE_LANE;
    int rc = fab_peer_outbox_pass(s, of, STEP_SLICE_END, r->c->behind, r->string, r->string_bytes);
    if (r->fault == STEP_LATE_INTENT)
        fab_peer_intend_slice(s, (int32_t)r->c->lane, STEP_SLICE_LANE, STEP_SLICE_END);
    return rc == 0 ? 0 : (int32_t)r->c->count;
}

static inline int32_t step_outbox_flush(struct step_run *r) {
    struct fab_peer *s = step_self(r);
    uint64_t lost = 0;
    if (r->fault != STEP_LATE_OUTBOX)
        return step_flush(s, &lost);
    _Atomic(uint64_t) *head = s->outbox_out.head;
    _Atomic(uint64_t) elsewhere = atomic_load(head);
    s->outbox_out.head = &elsewhere;
    int32_t rc = step_flush(s, &lost);
    s->outbox_out.head = head;
    atomic_store(head, elsewhere);
    return rc;
}

/* Handle a run: leave a trace of each record where it outlives us. */
static inline void step_handle(struct step_run *r, uint32_t lane) {
    struct step_control *control = r->control;
    const struct fab_columns *cols = &r->w->cols;
    const uint8_t *run = step_self(r)->in[lane].data + cols->start;
    uint32_t at = atomic_load_explicit(&control->handled, memory_order_relaxed);
    for (uint64_t i = 0; i < cols->count && at < STEP_HANDLED; i++, at++) {
        uint32_t size = cols->ends[i] - cols->starts[i];
        memcpy(control->record[at].body, run + cols->starts[i], size);
        control->record[at].lane = lane;
        control->record[at].header = (struct fab_record){.size = size,
                                                         .encoding = cols->encodings[i],
                                                         .target = cols->targets[i],
                                                         .sender = cols->senders[i],
                                                         .correlation = cols->correlations[i]};
        atomic_store_explicit(&control->handled, at + 1, memory_order_release);
    }
    uint32_t runs = atomic_load_explicit(&control->runs, memory_order_relaxed);
    control->run[runs % STEP_HANDLED].lane = lane;
    control->run[runs % STEP_HANDLED].handled = at;
    control->run[runs % STEP_HANDLED].end = cols->end;
    atomic_store_explicit(&control->runs, runs + 1, memory_order_release);
}

/* A worker's turn: receive, handle, commit, until nothing is there. Returns the number of records. */
static inline int32_t step_receive(struct step_run *r) {
    struct fab_peer *s = step_self(r);
    uint32_t most = r->c->most != 0 ? r->c->most : FAB_BATCH_MAX;
    int32_t count = 0;
    for (int32_t lane; (lane = fab_peer_receive(s, most, UINT64_MAX, &r->w->cols)) >= 0;) {
        count += (int32_t)r->w->cols.count;
        if (r->fault == STEP_EARLY_HEAD)
            fab_peer_commit(s, (uint32_t)lane, r->w->cols.end);
        step_handle(r, (uint32_t)lane);
        fab_peer_commit(s, (uint32_t)lane, r->w->cols.end);
    }
    return count;
}

/* The same, and then to sleep. */
static inline int32_t step_receive_and_arm(struct step_run *r) {
    int32_t count = step_receive(r);
    fab_peer_arm(step_self(r), r->c->reasons);
    fab_peer_disarm(step_self(r));
    return count;
}

static inline int step_consumes(const struct step_case *c) {
    return c->act == step_receive || c->act == step_receive_and_arm;
}

static inline int32_t step_arm(struct step_run *r) {
    int rc = fab_peer_arm(step_self(r), r->c->reasons);
    fab_peer_disarm(step_self(r));
    return rc;
}

static inline int32_t step_park(struct step_run *r) {
    return fab_peer_park(step_self(r), r->c->reasons, -1, 0);
}

static inline int32_t step_wait_for(struct step_run *r) {
    return fab_peer_wait(step_self(r), r->c->reasons, -1, 0);
}

static inline int32_t step_init(struct step_run *r) {
    const struct step_world *w = r->w;
    return fab_peer_init(&r->spare, &w->header, r->c->victim, w->whole, w->block[r->c->victim]);
}

/* Agents 10 to 12 lived in process 1, generation 1; their indexes are given to agents in process 2. */
#define STEP_FIRST_MOVED 10u
#define STEP_MOVED 3u
static inline uint64_t step_moved(uint32_t i, uint32_t generation) {
    return (uint64_t)generation << 32 | (STEP_FIRST_MOVED + i);
}

static inline void step_write_table(uint8_t *own, uint32_t generation) {
    uint64_t addresses[STEP_MOVED];
    uint16_t slots[STEP_MOVED];
    for (uint32_t i = 0; i < STEP_MOVED; i++) {
        addresses[i] = step_moved(i, generation);
        slots[i] = (uint16_t)generation;
    }
    fab_table_write(own, addresses, slots, STEP_MOVED, FAB_AGENT_ALIVE);
}

static inline int32_t step_table_write(struct step_run *r) {
    step_write_table(r->w->own[r->c->victim], 2);
    return 0;
}

#endif
