/* SPDX-License-Identifier: MIT */
/*
 * step_verdict.h - what must hold after a death: what the segment shows, what the others find, what a
 * successor makes of it.
 *
 *   nothing torn      a batch is there whole or not at all, each record as it was written
 *   nothing lost      what was published arrives, what was not handed back is read again
 *   nothing twice     save what was in hand: a run that was not committed, one record of the outbox
 *   nobody stuck      survivors go on, a successor takes over, sleepers can be woken
 */
#ifndef STEP_VERDICT_H
#define STEP_VERDICT_H

#include "step_acts.h"

enum step_outcome { STEP_NONE, STEP_PART, STEP_ALL, STEP_OUTCOMES };

struct step_tally {
    uint32_t points;
    uint32_t outcomes[STEP_OUTCOMES];
    uint32_t again;    /* left a message that came twice, by right */
    uint32_t bell_due; /* left a sleeper that only the death bell wakes */
};

/* Let everything that is under way arrive. */
static inline void step_settle(struct step_world *w) {
    struct fab_peer *successor = &w->now.peers[w->victim];
    for (int round = 0; round < 8; round++) {
        if (w->victim != STEP_COORDINATOR)
            step_flush(successor, &w->now.lost);
        for (uint32_t p = 0; p < STEP_PROCESSES; p++)
            step_take(w, p);
    }
    step_demand(w, fab_peer_quiet(&w->now.peers[STEP_COORDINATOR]), STEP_STUCK, "it does not get quiet");
    step_demand(w, w->now.lost <= w->now.nowhere, STEP_LOST, "in the outbox");
    for (uint32_t from = 0; from < STEP_PROCESSES; from++)
        for (uint32_t lane = 0; lane < STEP_LANES; lane++) {
            const struct step_stream *stream = &w->now.streams[from][lane];
            step_demand(w, stream->seen >= stream->sent, STEP_LOST, "sent, and never received");
        }
}

/* Are all counters what they can be? */
static inline void step_check_counters(const struct step_world *w) {
    for (uint32_t from = 0; from < STEP_PROCESSES; from++)
        for (uint32_t lane = 0; lane <= STEP_LANES; lane++) { /* the last: its outbox */
            uint32_t there = lane < STEP_PROCESSES ? from : from + STEP_PROCESSES;
            uint64_t box = fab_outbox_words_offset(&w->header);
            uint64_t tail = *(lane == STEP_LANES ? step_word(w, from, box, 0)
                                                 : step_word(w, from, fab_tails_offset(&w->header), lane));
            uint64_t head =
                *(lane == STEP_LANES ? step_word(w, from, box, 1)
                                     : step_word(w, lane % STEP_PROCESSES, fab_heads_offset(), there));
            step_demand(w, tail - head <= STEP_LANE_BYTES && tail % FAB_ALIGN == 0 && head % FAB_ALIGN == 0,
                        STEP_TORN, "a counter that cannot be");
        }
}

/* One message through an empty lane to a process that sleeps. */
static inline void step_wake_with(struct step_world *w, uint32_t from, uint32_t lane, uint16_t size) {
    uint32_t to = lane % STEP_PROCESSES;
    struct fab_peer *sleeper = &w->now.peers[to];
    struct step_stream *stream = &w->now.streams[from][lane];
    fab_peer_disarm(sleeper);
    step_demand(w, fab_peer_arm(sleeper, FAB_WAITS_MESSAGES) == 0, STEP_STUCK, "no rest without work");
    step_demand(w, step_send(w, from, lane, step_number(w, from, lane, size)) == 1, STEP_STUCK,
                "no room in an empty lane");
    stream->sent++;
    step_demand(w, fab_doorbell_clear(w->bells[to]), STEP_STUCK, "nobody rang for the sleeper");
    fab_peer_disarm(sleeper);
    step_take(w, to);
    step_demand(w, stream->seen == stream->sent, STEP_STUCK, "a message that does not arrive");
}

/* The fabric works: messages both ways, from outboxes and through control lanes, to sleepers. */
static inline void step_goes_on(struct step_world *w) {
    const uint32_t me = w->victim;
    for (uint32_t other = 0; other < STEP_PROCESSES; other++) {
        for (uint32_t control = 0; control < 2 && other != me; control++) {
            if (fab_lane_bytes(&w->header, me, other + control * STEP_PROCESSES) == 0)
                continue;
            step_wake_with(w, me, other + control * STEP_PROCESSES, 700);
            step_wake_with(w, other, me + control * STEP_PROCESSES, 700);
        }
    }
    if (me != STEP_COORDINATOR)
        step_demand(w, step_put(w, me, 0, step_number(w, me, 0, 700)) == 1, STEP_STUCK, "a full outbox");
    step_settle(w);
    for (uint32_t from = 0; from < STEP_PROCESSES; from++)
        for (uint32_t lane = 0; lane < STEP_LANES; lane++)
            step_demand(w, w->now.streams[from][lane].seen == w->now.streams[from][lane].may, STEP_LOST,
                        "not all arrived in the end");
}

/* The sleepers: whoever is rung has a reason, and whoever has one is rung unless the victim was killed. */
static inline void step_check_bells(struct step_world *w, int ended, struct step_tally *t) {
    for (uint32_t p = 0; p < STEP_PROCESSES; p++) {
        struct fab_peer *s = &w->now.peers[p];
        int rung = fab_doorbell_clear(w->bells[p]);
        if (w->now.asleep[p] == 0)
            continue;
        int due = fab_peer_look_again(s, w->now.asleep[p]);
        step_demand(w, due || !rung, STEP_STUCK, "rung before there was a reason: the wake-up is spent");
        step_demand(w, rung || !due || !ended, STEP_STUCK, "a sleeper that nobody woke");
        t->bell_due += due && !rung;
        fab_peer_ring(&w->now.peers[p == STEP_SURVIVOR ? STEP_COORDINATOR : STEP_SURVIVOR], p);
        step_demand(w, poll(&(struct pollfd){.fd = s->bell, .events = POLLIN}, 1, 0) == 1, STEP_STUCK,
                    "the death bell is not heard");
        fab_peer_disarm(s);
    }
}

/* What the victim handled, and what it handed back: the successor must find the rest. */
static inline void step_check_heads(struct step_run *r, struct step_tally *t) {
    struct step_world *w = r->w;
    const struct step_control *control = r->control;
    uint32_t next[STEP_LANES] = {0};
    uint32_t committed[STEP_LANES] = {0};
    for (uint32_t i = 0; i < control->handled; i++) {
        uint32_t lane = control->record[i].lane;
        uint32_t there = r->c->victim + (lane < STEP_PROCESSES ? 0 : STEP_PROCESSES);
        uint32_t n =
            step_verify(w, lane % STEP_PROCESSES, there, &control->record[i].header, control->record[i].body);
        step_demand(w, n == next[lane]++, STEP_LOST, "handled out of turn");
    }
    for (uint32_t lane = 0; lane < STEP_LANES; lane++) {
        uint32_t there = r->c->victim + (lane < STEP_PROCESSES ? 0 : STEP_PROCESSES);
        uint64_t head = *step_word(w, r->c->victim, fab_heads_offset(), lane);
        int found = head == r->c->at;
        for (uint32_t run = 0; run < control->runs && !found; run++)
            if (control->run[run].lane == lane) {
                found = control->run[run].end == head;
                for (uint32_t i = committed[lane] = 0; i < control->run[run].handled; i++)
                    committed[lane] += control->record[i].lane == lane;
            }
        step_demand(w, found, STEP_LOST, "handed back, and nobody handled it");
        w->now.streams[lane % STEP_PROCESSES][there].seen = committed[lane];
        t->again += committed[lane] < next[lane];
    }
}

/* Which agents the table leads to: of each pair exactly one, the new ones first. Writing again mends it. */
static inline enum step_outcome step_check_table(const struct step_run *r) {
    const struct step_world *w = r->w;
    const uint64_t from = fab_table_offset() + STEP_FIRST_MOVED * sizeof(uint64_t);
    const uint64_t behind = from + STEP_MOVED * sizeof(uint64_t);
    const struct fab_peer *s = &w->now.peers[STEP_SURVIVOR];
    uint32_t moved = 0;
    for (uint32_t i = 0; i < STEP_MOVED; i++) {
        int32_t old = fab_peer_slot(s, step_moved(i, 1));
        int32_t new = fab_peer_slot(s, step_moved(i, 2));
        step_demand(w, (old == 1 && new == -1) || (old == -1 && new == 2), STEP_TORN, "a word of the table");
        step_demand(w, new == -1 || moved == i, STEP_TORN, "the table is not written in order");
        moved += new == 2;
    }
    step_demand(w,
                memcmp(w->memory, r->prepared, from) == 0 &&
                    memcmp(w->memory + behind, r->prepared + behind, w->header.segment_bytes - behind) == 0,
                STEP_TORN, "other words were written");
    step_write_table(w->own[STEP_COORDINATOR], 2);
    for (uint32_t i = 0; i < STEP_MOVED; i++)
        step_demand(w, fab_peer_slot(s, step_moved(i, 2)) == 2, STEP_STUCK, "the table cannot be mended");
    return moved == 0 ? STEP_NONE : moved == STEP_MOVED ? STEP_ALL : STEP_PART;
}

/* How far the victim came, by what is in the segment. A publisher's outcome is known when all arrived. */
static inline enum step_outcome step_how_far(const struct step_run *r) {
    const struct step_world *w = r->w;
    const uint32_t me = r->c->victim;
    const struct fab_words *words =
        (const struct fab_words *)(const void *)(w->memory + w->now.peers[0].blocks[me]);
    if (r->c->act == step_table_write)
        return step_check_table(r);
    if (r->c->act == step_outbox_flush) {
        uint64_t tail = *step_word(w, me, fab_outbox_words_offset(&w->header), 0);
        uint64_t head = *step_word(w, me, fab_outbox_words_offset(&w->header), 1);
        return head == tail ? STEP_ALL : head == r->c->at ? STEP_NONE : STEP_PART;
    }
    if (step_consumes(r->c)) {
        int none = 1;
        int all = 1;
        for (uint32_t lane = 0; lane < STEP_LANES; lane++) {
            const struct fab_consumer *c = &w->now.peers[me].in[lane];
            none &= c->capacity == 0 || atomic_load(c->head) == r->c->at;
            all &= c->capacity == 0 || atomic_load(c->head) == atomic_load(c->tail);
        }
        return all ? STEP_ALL : none ? STEP_NONE : STEP_PART;
    }
    if (r->c->act != step_init)
        return words->sleeping != 0 ? STEP_ALL : STEP_NONE;
    uint64_t present = (uint64_t)((const uint8_t *)&words->present - w->memory);
    uint64_t behind = present + sizeof words->present;
    step_demand(w,
                memcmp(w->memory, r->prepared, present) == 0 &&
                    memcmp(w->memory + behind, r->prepared + behind, w->header.segment_bytes - behind) == 0,
                STEP_TORN, "who attaches changes nothing");
    return words->present != 0 ? STEP_ALL : STEP_NONE;
}

/* While nobody is in the slot, the others go on: send to it what fits. */
static inline void step_send_to_the_dead(struct step_world *w) {
    for (uint32_t from = 0; from < STEP_PROCESSES; from++) {
        if (from == w->victim)
            continue;
        struct step_stream *stream = &w->now.streams[from][w->victim];
        int sent = step_send(w, from, w->victim, step_number(w, from, w->victim, 24));
        step_demand(w, sent >= 0, STEP_STUCK, "a survivor cannot send");
        stream->sent += (uint32_t)sent;
        stream->may -= !sent;
    }
}

/* None or all of a batch, and all of it when the call had returned. Its rest goes through the successor. */
static inline enum step_outcome step_check_batch(struct step_run *r, int ended) {
    struct step_world *w = r->w;
    struct step_stream *stream = &w->now.streams[r->c->victim][r->c->lane];
    uint32_t came = stream->seen - stream->sent;
    step_demand(w, came == 0 || came == (uint32_t)r->c->rc, STEP_TORN, "a part of a batch");
    step_demand(w, !ended || came == (uint32_t)r->c->rc, STEP_LOST, "a batch that was published");
    for (stream->sent = stream->seen; stream->sent < stream->may; stream->sent++) {
        int (*again)(struct step_world *, uint32_t, uint32_t, uint32_t) =
            r->c->act == step_outbox_batch || r->c->act == step_outbox_pass ? step_put : step_send;
        step_demand(w, again(w, r->c->victim, r->c->lane, stream->sent) == 1, STEP_STUCK, "no room");
    }
    step_settle(w);
    return came != 0 ? STEP_ALL : STEP_NONE;
}

/* The victim is dead: is everything as it must be, and does it go on? */
static inline void step_examine(struct step_run *r, struct step_tally *t) {
    struct step_world *w = r->w;
    int ended = atomic_load(&r->control->ended);
    step_check_counters(w);
    step_check_bells(w, ended, t);
    enum step_outcome outcome = step_how_far(r);
    step_demand(w, !ended || r->control->rc == r->c->rc, STEP_TORN, "it returned something else");
    if (step_consumes(r->c))
        step_check_heads(r, t);
    step_send_to_the_dead(w);
    step_attach(w, w->victim);
    struct fab_peer *successor = &w->now.peers[w->victim];
    uint64_t end = 0;
    int32_t published = -1;
    if (w->victim != STEP_COORDINATOR) {
        fab_peer_outbox_resume(successor);
        published = fab_peer_published_slice(successor, &end);
    }
    if (fab_peer_ready(successor))
        step_demand(w, fab_peer_park(successor, FAB_WAITS_MESSAGES, -1, 0) == 1, STEP_STUCK,
                    "a successor that sleeps before work");
    step_settle(w);
    if (r->c->count != 0)
        outcome = step_check_batch(r, ended);
    if (r->c->act == step_outbox_pass) {
        int known = published == STEP_SLICE_LANE && end == STEP_SLICE_END;
        step_demand(w, outcome != STEP_ALL || known, STEP_TWICE, "a successor does not know of a slice");
        step_demand(w, outcome == STEP_ALL || published == -1, STEP_LOST, "a slice that is said to be out");
    }
    step_goes_on(w);
    t->points++;
    t->outcomes[outcome]++;
}

#endif
