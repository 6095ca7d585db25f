/* SPDX-License-Identifier: MIT */
/*
 * fab_peer.h - one process's ends of all its lanes: send, receive, know when all is quiet.
 *
 *             own block (writable)                          all blocks (read-only)
 *   out[l]    tail, data                                    head: in the consumer's block
 *   in[l]     head                                          tail, data: in the producer's block
 *
 * This struct is private memory of the process; nothing here is shared. It is not locked: in[] and
 * the waiting belong to one thread at a time (the leader), each out[l] to whoever holds its lock.
 */
#ifndef FAB_PEER_H
#define FAB_PEER_H

#include "fab_doorbell.h"
#include "fab_layout.h"
#include "fab_table.h"

struct fab_arena; /* fab_arena.h */

#define FAB_ASKED 4096u

/* When something was asked; see fab_meter_asked. */
struct fab_asked {
    _Atomic(uint64_t) key; /* 0: free */
    _Atomic(uint64_t) at;
    _Atomic(uint64_t) left; /* replies to come */
};

/* Where a process counts, while `measuring` is set; NULL: it does not. See fab_measures.h. */
struct fab_meter {
    const _Atomic(uint32_t) *measuring;
    struct fab_traffic *traffic; /* by lane */
    struct fab_measures *measures;
    _Atomic(uint32_t) *last_use;     /* by agent */
    const _Atomic(uint8_t) *classes; /* likewise */
    uint32_t batch_class;            /* of the messages received last; 0: several */
    uint32_t alone;                  /* was it one message? */
    uint64_t received_at;            /* ns; 0: nothing is in hand */
    struct fab_asked asked[FAB_ASKED];
};

struct fab_peer {
    struct fab_header header; /* private copy: the one in the segment is never looked at again */
    const uint8_t *whole;     /* the segment, read-only */
    uint8_t *block;           /* our own block, writable */
    struct fab_words *words;  /* ours */
    uint32_t process;
    uint32_t cores;     /* CPUs this process may use: spinning beside more awake processes is futile */
    uint32_t next_lane; /* round robin among incoming lanes */
    int bell;
    int pollset; /* an epoll that watches the bell, edge-triggered; -1 for none */
    struct fab_spin spin;
    struct fab_arena *arena;       /* what this process lends from; NULL for none */
    struct fab_producer outbox_in; /* worker: both ends of its outbox */
    struct fab_consumer outbox_out;
    struct fab_producer journal_in; /* worker: likewise; no capacity where there is none */
    struct fab_consumer journal_out;
    int bells[FAB_PROCESSES_MAX];
    uint64_t blocks[FAB_PROCESSES_MAX]; /* fab_block_offset of each: too slow for every send */
    uint8_t garbled[FAB_PROCESSES_MAX]; /* 1: it wrote counters that cannot be; see fab_peer_quiet */
    struct fab_producer out[2 * FAB_PROCESSES_MAX];
    struct fab_consumer in[2 * FAB_PROCESSES_MAX];
    struct fab_meter meter;
};

static inline const struct fab_words *fab_peer_words(const struct fab_peer *s, uint32_t process) {
    return (const struct fab_words *)(const void *)(s->whole + s->blocks[process]);
}

/* A head or tail in some block: `lines` is the offset of the array, `lane` the index in it. */
static inline const _Atomic(uint64_t) *fab_peer_counter(const uint8_t *block, uint64_t lines, uint32_t lane) {
    return &((const struct fab_counter_line *)(const void *)(block + lines))[lane].value;
}

static inline _Atomic(uint64_t) *fab_peer_own_counter(struct fab_peer *s, uint64_t lines, uint32_t lane) {
    return &((struct fab_counter_line *)(void *)(s->block + lines))[lane].value;
}

/* Connect both ends of lane `lane` (data, or control from P on) that this process has with `other`. */
static inline int fab_peer_connect(struct fab_peer *s, uint32_t other, uint32_t control) {
    const struct fab_header *h = &s->header;
    uint32_t there = other + control * h->processes;
    uint32_t here = s->process + control * h->processes;
    const uint8_t *block = s->whole + s->blocks[other];
    uint64_t bytes = fab_lane_bytes(h, s->process, there);
    if (bytes == 0)
        return 0;
    int rc = fab_producer_init(&s->out[there], fab_peer_own_counter(s, fab_tails_offset(h), there),
                               fab_peer_counter(block, fab_heads_offset(), here),
                               s->block + fab_data_offset(h, s->process, there), bytes);
    if (rc != 0)
        return rc;
    return fab_consumer_init(&s->in[there], fab_peer_counter(block, fab_tails_offset(h), here),
                             fab_peer_own_counter(s, fab_heads_offset(), there),
                             block + fab_data_offset(h, other, here), bytes);
}

/* Connect both ends of a ring that this process keeps for itself. */
static inline int fab_peer_connect_own(struct fab_peer *s, struct fab_producer *in, struct fab_consumer *out,
                                       uint64_t words, uint64_t offset, uint64_t bytes) {
    _Atomic(uint64_t) *tail = fab_peer_own_counter(s, words, 0);
    _Atomic(uint64_t) *head = fab_peer_own_counter(s, words, 1);
    int rc = fab_producer_init(in, tail, head, s->block + offset, bytes);
    return rc != 0 ? rc : fab_consumer_init(out, tail, head, s->block + offset, bytes);
}

/* Set up process `process` over its two mappings; *s is zeroed memory. Returns 0 or -EINVAL. */
static inline int fab_peer_init(struct fab_peer *s, const struct fab_header *header, uint32_t process,
                                const uint8_t *whole, uint8_t *block) {
    if (process >= header->processes || header->processes > FAB_PROCESSES_MAX)
        return -EINVAL;
    s->header = *header;
    s->process = process;
    s->whole = whole;
    s->block = block;
    s->words = (struct fab_words *)(void *)block;
    atomic_store_explicit(&s->words->present, 1, memory_order_relaxed); /* relaxed: a hint */
    s->spin.probe_interval = FAB_SPIN_PROBE_AT_LEAST;
    s->bell = -1;
    s->pollset = -1;
    for (uint32_t other = 0; other < header->processes; other++) {
        s->bells[other] = -1; /* nobody there yet; 0 would be standard input */
        s->blocks[other] = fab_block_offset(header, other);
    }
    for (uint32_t other = 0; other < header->processes; other++)
        for (uint32_t control = 0; control < 2; control++)
            if (fab_peer_connect(s, other, control) != 0)
                return -EINVAL;
    if (process == 0)
        return 0;
    int rc = fab_peer_connect_own(s, &s->outbox_in, &s->outbox_out, fab_outbox_words_offset(header),
                                  fab_outbox_offset(header, process), header->outbox_bytes);
    if (rc != 0 || header->journal_bytes == 0)
        return rc;
    return fab_peer_connect_own(s, &s->journal_in, &s->journal_out, fab_journal_words_offset(header),
                                fab_journal_offset(header, process), header->journal_bytes);
}

/* Publish what was written to a lane, and wake its consumer if it sleeps. Returns 1 when it rang. */
static inline int fab_peer_publish(struct fab_peer *s, uint32_t lane) {
    uint32_t to = lane < s->header.processes ? lane : lane - s->header.processes;
    fab_producer_publish(&s->out[lane]);
    if (to == s->process)
        return 0;
    return fab_doorbell_notify(&fab_peer_words(s, to)->sleeping, FAB_WAITS_MESSAGES, s->bells[to]);
}

/* Is there a record to read, in any lane? Leader only. Wait-free. */
static inline int fab_peer_ready(struct fab_peer *s) {
    for (uint32_t lane = 0; lane < 2 * s->header.processes; lane++)
        if (s->in[lane].capacity != 0 && fab_consumer_ready(&s->in[lane]) != 0)
            return 1;
    return 0;
}

/* The next lane with something to read, or -1. Control lanes come first; data lanes take turns, so
 * that none starves. Leader only. Wait-free. */
static inline int32_t fab_peer_next(struct fab_peer *s) {
    uint32_t processes = s->header.processes;
    for (uint32_t lane = processes; lane < 2 * processes; lane++)
        if (s->in[lane].capacity != 0 && fab_consumer_ready(&s->in[lane]) != 0)
            return (int32_t)lane;
    for (uint32_t turn = 0; turn < processes; turn++) {
        uint32_t lane = s->next_lane;
        s->next_lane = lane + 1 < processes ? lane + 1 : 0;
        if (s->in[lane].capacity != 0 && fab_consumer_ready(&s->in[lane]) != 0)
            return (int32_t)lane;
    }
    return -1;
}

/* Hand bytes back to the producer of a lane, and wake it if it waits for room. Leader only. */
static inline void fab_peer_commit(struct fab_peer *s, uint32_t lane, uint64_t end) {
    uint32_t from = lane < s->header.processes ? lane : lane - s->header.processes;
    if (fab_consumer_commit(&s->in[lane], end) && from != s->process)
        fab_doorbell_notify(&fab_peer_words(s, from)->sleeping, FAB_WAITS_ROOM, s->bells[from]);
}

/* Step over what a dead predecessor has handled, to counter `end`, and commit it. Leader only. */
static inline void fab_peer_adopt(struct fab_peer *s, uint32_t lane, uint64_t end) {
    struct fab_consumer *c = &s->in[lane];
    uint64_t ready = c->capacity == 0 ? 0 : fab_consumer_ready(c);
    if (end - c->read > ready)
        return; /* behind the head: it was committed; beyond the tail: nonsense */
    c->read = end;
    fab_peer_commit(s, lane, end);
}

/* Has room appeared in a lane that was found full? For those who wait for room. */
static inline int fab_peer_room_came(struct fab_peer *s) {
    for (uint32_t lane = 0; lane < 2 * s->header.processes; lane++) {
        struct fab_producer *p = &s->out[lane];
        uint64_t starved_at = atomic_load_explicit(&p->starved_at, memory_order_relaxed); /* own hint */
        /* W2b for room; not P2: nothing is written on the strength of this look */
        if (starved_at != 0 && atomic_load_explicit(p->head, FAB_W2B) != starved_at - 1 &&
            atomic_compare_exchange_strong_explicit(&p->starved_at, &starved_at, 0, memory_order_relaxed,
                                                    memory_order_relaxed)) /* seen: say it once */
            return 1;
    }
    return 0;
}

/* The counters of a lane: its tail in the block of its producer, its head in that of its consumer. */
struct fab_pair {
    const _Atomic(uint64_t) *head;
    const _Atomic(uint64_t) *tail;
    uint64_t capacity;
    uint32_t other; /* who, beside us, writes here; our own number when two others do */
};

/* The counters of lane `lane` of process `from`; lane 2 P stands for its outbox. */
static inline struct fab_pair fab_peer_pair(const struct fab_peer *s, uint32_t from, uint32_t lane) {
    const struct fab_header *h = &s->header;
    const uint8_t *block = s->whole + s->blocks[from];
    if (lane == 2 * h->processes) {
        uint64_t words = fab_outbox_words_offset(h);
        return (struct fab_pair){fab_peer_counter(block, words, 1), fab_peer_counter(block, words, 0),
                                 from == 0 ? 0 : h->outbox_bytes, from};
    }
    uint32_t control = lane >= h->processes;
    uint32_t to = lane - control * h->processes;
    const uint8_t *there = s->whole + s->blocks[to];
    return (struct fab_pair){fab_peer_counter(there, fab_heads_offset(), from + control * h->processes),
                             fab_peer_counter(block, fab_tails_offset(h), lane),
                             fab_lane_bytes(h, from, lane),
                             from == s->process               ? to
                             : to == s->process || to == from ? from
                                                              : s->process};
}

/* The sum of all heads, or tails, of all lanes and outboxes. As no head passes its tail, equal sums
 * mean equal words. Left out, and told by *odd, are pairs that cannot be, and all those of a process that
 * was seen to write such: nobody would ever handle what they say, and it is not to be waited for. Nor is
 * what a worker sent into a slot that nobody was ever in. */
static inline uint64_t fab_peer_sum(struct fab_peer *s, int of_heads, uint64_t *odd) {
    uint32_t lanes = 2 * s->header.processes;
    uint64_t sum = 0;
    *odd = 0;
    for (uint32_t lane = 0; lane < lanes; lane++)
        if (s->in[lane].broken && lane % s->header.processes != s->process)
            s->garbled[lane % s->header.processes] = 1;
    for (uint32_t from = 0; from < s->header.processes; from++) {
        for (uint32_t lane = 0; lane <= lanes; lane++) {
            struct fab_pair pair = fab_peer_pair(s, from, lane);
            uint32_t to = lane == lanes ? from : lane % s->header.processes;
            uint64_t head = atomic_load_explicit(pair.head, FAB_W2B); /* W2b, for those who wait for quiet */
            uint64_t tail = atomic_load_explicit(pair.tail, FAB_W2B);
            /* The head again: had it moved between the two, the pair would say nothing. */
            int same = atomic_load_explicit(pair.head, FAB_W2B) == head;
            int garbage = same && (tail - head > pair.capacity || (tail | head) % FAB_ALIGN != 0);
            if (garbage && pair.other != s->process)
                s->garbled[pair.other] = 1;
            /* relaxed: set once, by a process before it takes part */
            int nobody =
                from != 0 && atomic_load_explicit(&fab_peer_words(s, to)->present, memory_order_relaxed) == 0;
            if (garbage || nobody || s->garbled[from] || s->garbled[to])
                *odd = *odd * 31 + from * (lanes + 1) + lane + 1;
            else
                sum += of_heads ? head : tail;
        }
    }
    return sum;
}

/* Is nothing in flight anywhere? All heads are read before all tails. Counters only grow and a head
 * never passes its tail, so head now = tail later means that the lane was empty all the time in
 * between: at one moment all were. An empty lane means handled, with its consequences published,
 * since a head moves only past messages whose effects are out. Any process. */
static inline int fab_peer_quiet(struct fab_peer *s) {
    for (int look = 0; look < 2; look++) { /* again when the first found out who is not to be waited for */
        uint64_t odd_heads;
        uint64_t odd_tails;
        uint64_t heads = fab_peer_sum(s, 1, &odd_heads);
        uint64_t tails = fab_peer_sum(s, 0, &odd_tails);
        if (odd_heads == odd_tails)
            return heads == tails;
    }
    return 0;
}

#endif
