/* SPDX-License-Identifier: MIT */
/* fab_native.h - all of the C core, for the extension module. Read fab_ring.h first. */
#ifndef FAB_NATIVE_H
#define FAB_NATIVE_H

#include "fab_batch.h"
#include "fab_heap.h"
#include "fab_heirs.h"
#include "fab_journal.h"
#include "fab_lifeline.h"
#include "fab_outbox.h"
#include "fab_queue_tasks.h"
#include "fab_survey.h"
#include "fab_view.h"

/* What the binding wants to know about this machine and the CPUs it may use. */
static inline void fab_peer_tune(struct fab_peer *s, uint32_t cores, int64_t spin_ns) {
    s->cores = cores;
    s->spin.limit_ns = cores > 1 ? spin_ns : 0;
}

/* Tell where a process's bell is. Our own bell is the one that we wait on. -1: nobody there. */
static inline void fab_peer_set_bell(struct fab_peer *s, uint32_t process, int bell) {
    s->bells[process] = bell;
    if (process == s->process)
        s->bell = bell;
}

/* Have waits for our own bell go through an epoll that watches it with EPOLLIN | EPOLLET. */
static inline void fab_peer_set_pollset(struct fab_peer *s, int pollset) {
    s->pollset = pollset;
}

/* Wake a process whatever it waits for: it was given something to look at outside the lanes, or
 * somebody died (the death bell). */
static inline void fab_peer_ring(const struct fab_peer *s, uint32_t process) {
    if (s->bells[process] >= 0)
        fab_doorbell_ring(s->bells[process]);
}

/* Bytes in flight in one of our outgoing lanes, and the consumer's counter. */
static inline uint64_t fab_peer_backlog(struct fab_peer *s, uint32_t lane, uint64_t *head) {
    *head = atomic_load_explicit(s->out[lane].head, FAB_P2);
    return s->out[lane].next - *head;
}

/* Bytes that one of our outgoing lanes has room for; padding at its end comes off that. */
static inline uint64_t fab_peer_room(struct fab_peer *s, uint32_t lane) {
    return fab_producer_room(&s->out[lane], s->out[lane].capacity);
}

/* How far one of our outgoing lanes is written. */
static inline uint64_t fab_peer_tail(const struct fab_peer *s, uint32_t lane) {
    return s->out[lane].next;
}

/* Body bytes that a record to this lane may have; 0 where there is no lane. */
static inline uint64_t fab_peer_body_limit(const struct fab_peer *s, uint32_t lane) {
    return s->out[lane].capacity == 0 ? 0 : fab_ring_body_limit(s->out[lane].capacity);
}

/* How far a process has come: the sum of the heads of its incoming lanes. It grows with each commit, and
 * only so; whoever replaces dead processes asks whether the last one got anywhere. */
static inline uint64_t fab_peer_progress(const struct fab_peer *s, uint32_t process) {
    const uint8_t *block = s->whole + fab_block_offset(&s->header, process);
    uint64_t sum = 0;
    for (uint32_t lane = 0; lane < 2 * s->header.processes; lane++) /* relaxed: its writer is dead */
        sum += atomic_load_explicit(fab_peer_counter(block, fab_heads_offset(), lane), memory_order_relaxed);
    return sum;
}

/* Messages that went into one of our lanes. */
static inline uint64_t fab_peer_sent(const struct fab_peer *s, uint32_t lane) {
    return s->out[lane].sequence;
}

/* Bytes dropped as unreadable from the lanes of one process; a broken lane counts one more. */
static inline uint64_t fab_peer_dropped_of(const struct fab_peer *s, uint32_t process) {
    const struct fab_consumer *data = &s->in[process], *control = &s->in[process + s->header.processes];
    return data->dropped_bytes + data->broken + control->dropped_bytes + control->broken;
}

/* Those of all. */
static inline uint64_t fab_peer_dropped(const struct fab_peer *s) {
    uint64_t dropped = 0;
    for (uint32_t process = 0; process < s->header.processes; process++)
        dropped += fab_peer_dropped_of(s, process);
    return dropped;
}

/* Read a process's lanes to us again, from where we have committed: it is dead, and its tails were set to there.
 * Leader only. */
static inline void fab_peer_mend(struct fab_peer *s, uint32_t process) {
    for (uint32_t control = 0; control < 2; control++) {
        struct fab_consumer *c = &s->in[process + control * s->header.processes];
        c->read = c->tail_seen = c->committed;
        c->dropped_bytes += c->broken;
        c->broken = 0;
    }
    s->garbled[process] = 0;
}

#endif
