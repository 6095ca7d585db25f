/* SPDX-License-Identifier: MIT */
/* arena_check.h - do the tables of an arena agree with each other? */
#ifndef ARENA_CHECK_H
#define ARENA_CHECK_H

#include "arena_world.h"

/* Walk the arena's tables: runs are maximal, in the right bin, and all there is. */
static inline void arena_check_tables(const struct fab_pages *p) {
    uint32_t used = 0;
    uint32_t free_runs = 0;
    uint32_t before_free = 0;
    for (uint32_t at = 0; at < p->count; at += p->page[at].pages) {
        uint32_t pages = p->page[at].pages;
        int block = fab_bit(p->starts, at);
        CHECK(pages != 0 && at + pages <= p->count);
        CHECK_EQ(fab_bits_count(p->starts, at, pages), block);
        CHECK_EQ(fab_bits_count(p->ends, at, pages), !block);
        uint32_t resident = fab_bits_count(p->is_resident, at, pages);
        if (block)
            CHECK_EQ(resident, pages);
        else
            CHECK(!before_free && resident == p->page[at].resident && p->page[at + pages - 1].first == at);
        used += block ? pages : 0;
        free_runs += !block;
        before_free = !block;
    }
    CHECK_EQ(used, p->used);
    CHECK_EQ(fab_bits_count(p->is_resident, 0, p->count), p->resident);
    for (uint32_t kind = 0; kind < FAB_RUN_KINDS; kind++)
        for (uint32_t bin = 0; bin < FAB_BINS; bin++) {
            uint32_t run = p->bins[kind][bin];
            CHECK_EQ(run != FAB_NO_PAGE, fab_bit(p->filled[kind], bin));
            for (; run != FAB_NO_PAGE; run = p->page[run].next, free_runs--)
                CHECK(fab_bin_of(p->page[run].pages) == bin && fab_run_kind(&p->page[run]) == kind);
        }
    CHECK_EQ(free_runs, 0);
}

/* Every loan that is out lies in a block that lives, and is where it says. */
static inline void arena_check_loans(const struct fab_arena *a) {
    uint64_t count = atomic_load(&a->out_count);
    CHECK(count + a->unused_count == a->used_count && a->used_count <= a->peer->header.loans);
    for (uint64_t place = 0; place < count; place++) {
        uint32_t index = (uint32_t)(atomic_load(&a->out[place]) & 0xffff);
        CHECK(index < a->used_count && a->lent[index].place == place);
        CHECK(fab_pages_is_block(&a->pages, a->lent[index].page));
    }
}

#endif
