/* SPDX-License-Identifier: MIT */
/*
 * fab_pages.h - hand out blocks of whole pages, and take them back. Read fab_runs.h first.
 *
 *   take      a run that is resident, or was used last, before fresh memory; from the end of it that is resident
 *   release   one run of the block and of the free runs beside it
 *   claim     exactly these pages: a successor that finds them lent
 */
#ifndef FAB_PAGES_H
#define FAB_PAGES_H

#include "fab_runs.h"

static inline void fab_pages_close(struct fab_pages *p) {
    free(p->page);
    free(p->is_resident);
    free(p->starts);
    free(p->ends);
    *p = (struct fab_pages){0};
}

/* One free run of `count` fresh pages; *p is zeroed memory. Returns 0 or -ENOMEM. */
static inline int fab_pages_open(struct fab_pages *p, uint32_t count) {
    size_t words = (size_t)count / 64 + 1;
    p->count = count;
    p->page = calloc(count, sizeof *p->page); /* large and zero: memory comes as it is touched */
    p->is_resident = calloc(words, sizeof *p->is_resident);
    p->starts = calloc(words, sizeof *p->starts);
    p->ends = calloc(words, sizeof *p->ends);
    if (p->page == NULL || p->is_resident == NULL || p->starts == NULL || p->ends == NULL) {
        fab_pages_close(p);
        return -ENOMEM;
    }
    memset(p->bins, 0xff, sizeof p->bins);
    fab_run_link(p, 0, count, 0);
    return 0;
}

/* The first page of the block that this page belongs to, or FAB_NO_PAGE. *gap: where the free run begins then. */
static inline uint32_t fab_pages_find(const struct fab_pages *p, uint32_t at, uint32_t *gap) {
    uint64_t word = p->starts[at / 64] & (UINT64_MAX >> (63 - at % 64));
    uint32_t w = at / 64;
    *gap = 0;
    while (word == 0 && w > 0)
        word = p->starts[--w];
    if (word == 0)
        return FAB_NO_PAGE;
    uint32_t start = w * 64 + 63 - (uint32_t)__builtin_clzll(word);
    if (at - start < p->page[start].pages)
        return start;
    *gap = start + p->page[start].pages;
    return FAB_NO_PAGE;
}

/* Make `pages` pages from `start` on a block of one reference; they lie in the free run at `run`. */
static inline void fab_pages_carve(struct fab_pages *p, uint32_t run, uint32_t start, uint32_t pages) {
    uint32_t resident = p->page[run].resident;
    uint32_t end = run + p->page[run].pages;
    uint32_t inside = fab_bits_count(p->is_resident, start, pages);
    uint32_t before = start == run ? 0 : fab_bits_count(p->is_resident, run, start - run);
    fab_run_unlink(p, run);
    if (start != run)
        fab_run_link(p, run, start - run, before);
    if (start + pages != end)
        fab_run_link(p, start + pages, end - start - pages, resident - before - inside);
    fab_bits_fill(p->is_resident, start, pages, 1);
    p->page[start].pages = pages;
    p->page[start].refs = 1;
    fab_bit_put(p->starts, start, 1);
    p->resident += pages - inside;
    p->used += pages;
    p->blocks++;
}

/* Make exactly these pages a block. Returns 0, or -EINVAL when not all of them are free. */
static inline int fab_pages_claim(struct fab_pages *p, uint32_t start, uint32_t pages) {
    uint32_t run;
    if (pages == 0 || start >= p->count || pages > p->count - start ||
        fab_pages_find(p, start, &run) != FAB_NO_PAGE || pages > run + p->page[run].pages - start)
        return -EINVAL;
    fab_pages_carve(p, run, start, pages);
    return 0;
}

/* A run of at least so many pages, or FAB_NO_PAGE when there is none: resident before fresh. */
static inline uint32_t fab_pages_search(const struct fab_pages *p, uint32_t pages) {
    uint32_t bin = fab_bin_of(pages);
    for (uint32_t kind = 0; kind < FAB_RUN_KINDS; kind++) {
        uint32_t run = fab_bin_search(p, kind, bin, pages, FAB_BIN_LOOK);
        if (run == FAB_NO_PAGE)
            run = fab_bin_above(p, kind, bin);
        if (run != FAB_NO_PAGE)
            return run;
    }
    for (uint32_t kind = 0; kind < FAB_RUN_KINDS; kind++) { /* before we say no: all of the class */
        uint32_t run = fab_bin_search(p, kind, bin, pages, UINT32_MAX);
        if (run != FAB_NO_PAGE)
            return run;
    }
    return FAB_NO_PAGE;
}

/* A run with so many pages of which at most `allowed` are fresh, or FAB_NO_PAGE. Looks at all of them. */
static inline uint32_t fab_pages_search_resident(const struct fab_pages *p, uint32_t pages,
                                                 uint64_t allowed) {
    uint32_t fresh;
    for (uint32_t kind = 0; kind < FAB_RUN_FRESH; kind++)
        for (uint32_t bin = fab_bin_of(pages); bin < FAB_BINS; bin++)
            for (uint32_t run = p->bins[kind][bin]; run != FAB_NO_PAGE; run = p->page[run].next)
                if (p->page[run].pages >= pages && fab_run_window(p, run, pages, &fresh) != FAB_NO_PAGE &&
                    fresh <= allowed)
                    return run;
    return FAB_NO_PAGE;
}

/* A block of so many pages, at most *allowed of them fresh; *allowed is lowered by those. Returns 0 and *start,
 * -ENOSPC when no run is long enough, -ENOMEM when those that are have too many fresh pages. */
static inline int fab_pages_take(struct fab_pages *p, uint32_t pages, uint64_t *allowed, uint32_t *start) {
    uint32_t fresh;
    uint32_t run = fab_pages_search(p, pages);
    if (run == FAB_NO_PAGE)
        return -ENOSPC;
    *start = fab_run_window(p, run, pages, &fresh);
    if (fresh > *allowed) {
        run = fab_pages_search_resident(p, pages, *allowed);
        if (run == FAB_NO_PAGE)
            return -ENOMEM;
        *start = fab_run_window(p, run, pages, &fresh);
    }
    *allowed -= fresh;
    fab_pages_carve(p, run, *start, pages);
    return 0;
}

/* Does a block begin at this page? */
static inline int fab_pages_is_block(const struct fab_pages *p, uint64_t page) {
    return page < p->count && fab_bit(p->starts, (uint32_t)page);
}

/* Free a block, and make one run of it and of the free ones beside it. */
static inline void fab_pages_release(struct fab_pages *p, uint32_t start) {
    uint32_t pages = p->page[start].pages;
    uint32_t resident = pages;
    uint32_t next = start + pages;
    p->used -= pages;
    p->blocks--;
    fab_bit_put(p->starts, start, 0);
    if (next < p->count && !fab_bit(p->starts, next)) {
        fab_run_unlink(p, next);
        pages += p->page[next].pages;
        resident += p->page[next].resident;
    }
    if (start > 0 && fab_bit(p->ends, start - 1)) {
        start = p->page[start - 1].first;
        fab_run_unlink(p, start);
        pages += p->page[start].pages;
        resident += p->page[start].resident;
    }
    fab_run_link(p, start, pages, resident);
}

/* The largest free run that has resident pages (within a class: the last freed), or FAB_NO_PAGE. */
static inline uint32_t fab_pages_largest_resident(const struct fab_pages *p) {
    for (uint32_t bin = FAB_BINS; bin-- > 0;)
        for (uint32_t kind = 0; kind < FAB_RUN_FRESH; kind++)
            if (p->bins[kind][bin] != FAB_NO_PAGE)
                return p->bins[kind][bin];
    return FAB_NO_PAGE;
}

/* Pages of the largest free run. */
static inline uint32_t fab_pages_largest(const struct fab_pages *p) {
    uint32_t most = 0;
    for (uint32_t bin = FAB_BINS; bin-- > 0 && most == 0;)
        for (uint32_t kind = 0; kind < FAB_RUN_KINDS; kind++)
            for (uint32_t run = p->bins[kind][bin]; run != FAB_NO_PAGE; run = p->page[run].next)
                most = p->page[run].pages > most ? p->page[run].pages : most;
    return most;
}

#endif
