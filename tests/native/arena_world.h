/* SPDX-License-Identifier: MIT */
/*
 * arena_world.h - three processes with arenas, all of them in this one, over a memfd: only a file gives memory back.
 */
#ifndef ARENA_WORLD_H
#define ARENA_WORLD_H

#include "fixture.h"

#define ARENA_PROCESSES 3u
#define ARENA_KIND 7u

struct arena_world {
    struct fab_header header;
    int memfd;
    uint8_t *memory; /* writable: the blocks of all three */
    uint8_t *whole;  /* read-only, as every process sees it */
    struct fab_peer *peers[ARENA_PROCESSES];
    struct fab_arena arenas[ARENA_PROCESSES];
    int bells[ARENA_PROCESSES];
};

/* Put a process into its slot: the first one, or a successor. */
static inline void arena_attach(struct arena_world *w, uint32_t process) {
    struct fab_peer *s = w->peers[process];
    memset(s, 0, sizeof *s);
    CHECK_EQ(
        fab_peer_init(s, &w->header, process, w->whole, w->memory + fab_block_offset(&w->header, process)),
        0);
    for (uint32_t other = 0; other < ARENA_PROCESSES; other++)
        fab_peer_set_bell(s, other, w->bells[other]);
    if (w->header.arena_bytes == 0)
        return;
    CHECK_EQ(fab_arena_open(&w->arenas[process], s), 0);
    fab_arena_allow(&w->arenas[process], UINT64_MAX);
}

/* A process dies, and its successor comes. */
static inline void arena_replace(struct arena_world *w, uint32_t process) {
    fab_arena_close(&w->arenas[process]);
    arena_attach(w, process);
    fab_loan_adopt(w->peers[process]);
}

static inline void arena_world_open(struct arena_world *w, uint64_t pages, uint64_t loans) {
    memset(w, 0, sizeof *w);
    w->header = (struct fab_header){.processes = ARENA_PROCESSES,
                                    .lane_bytes = FAB_PAGE,
                                    .peer_lane_bytes = FAB_PAGE,
                                    .control_lane_bytes = FAB_PAGE,
                                    .outbox_bytes = FAB_PAGE,
                                    .arena_bytes = pages * FAB_PAGE,
                                    .loans = loans,
                                    .max_agents = 64};
    CHECK_EQ(fab_header_init(&w->header), 0);
    w->memfd = memfd_create("arena", MFD_CLOEXEC);
    CHECK(w->memfd >= 0);
    CHECK_EQ(ftruncate(w->memfd, (off_t)w->header.segment_bytes), 0);
    w->memory = mmap(NULL, w->header.segment_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, w->memfd, 0);
#ifdef __SANITIZE_THREAD__ /* it knows memory by its address: two mappings would be two memories */
    w->whole = w->memory;
#else
    w->whole = mmap(NULL, w->header.segment_bytes, PROT_READ, MAP_SHARED, w->memfd, 0);
#endif
    CHECK(w->memory != MAP_FAILED && w->whole != MAP_FAILED);
    for (uint32_t p = 0; p < ARENA_PROCESSES; p++) {
        w->bells[p] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        w->peers[p] = calloc(1, sizeof *w->peers[p]);
        CHECK(w->bells[p] >= 0 && w->peers[p] != NULL);
    }
    for (uint32_t p = 0; p < ARENA_PROCESSES; p++)
        arena_attach(w, p);
}

static inline void arena_world_close(struct arena_world *w) {
    for (uint32_t p = 0; p < ARENA_PROCESSES; p++) {
        CHECK_EQ(w->peers[p]->words->counters[FAB_COUNT_ALARMS], 0);
        fab_arena_close(&w->arenas[p]);
        CHECK(w->peers[p]->arena == NULL);
        free(w->peers[p]);
        CHECK_EQ(close(w->bells[p]), 0);
    }
    if (w->whole != w->memory)
        CHECK_EQ(munmap(w->memory, w->header.segment_bytes), 0);
    CHECK_EQ(munmap(w->whole, w->header.segment_bytes), 0);
    CHECK_EQ(close(w->memfd), 0);
}

static inline uint64_t arena_usage(const struct fab_arena *a, uint32_t which) {
    uint64_t out[6];
    fab_arena_usage(a, out);
    return out[which];
}

/* How many pages of the arena of process 0 have memory behind them, by what the kernel says. */
static inline uint32_t arena_memory(const struct arena_world *w) {
    uint8_t in[4096];
    uint32_t sum = 0;
    uint64_t at = fab_block_offset(&w->header, 0) + fab_arena_offset(&w->header, 0);
    uint64_t pages = w->header.arena_bytes / FAB_PAGE;
    CHECK(pages <= sizeof in);
    CHECK_EQ(mincore(w->whole + at, w->header.arena_bytes, in), 0);
    for (uint64_t i = 0; i < pages; i++)
        sum += in[i] & 1;
    return sum;
}

/* Send process `to` a record that names loans. Returns the lane's counter behind it, for hold(). */
static inline uint64_t arena_send(struct fab_peer *s, uint32_t to, const struct fab_lent_entry *entries,
                                  uint32_t count) {
    uint8_t body[1024];
    struct fab_lent_list list = {.count = count};
    struct fab_record r = {
        .size = (uint32_t)(sizeof list + count * sizeof *entries), .kind = ARENA_KIND, .encoding = FAB_LENT};
    CHECK(r.size <= sizeof body);
    memcpy(body, &list, sizeof list);
    memcpy(body + sizeof list, entries, count * sizeof *entries);
    CHECK_EQ(fab_peer_send(s, to, &r, body), 1);
    return s->out[to].next;
}

#endif
