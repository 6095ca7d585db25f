/* SPDX-License-Identifier: MIT */
/*
 * fab_runs.h - the pages of an arena: blocks of whole pages, and the free runs between them, in bins by size.
 *
 *   | block | free run | block | block |       free run        |     runs are maximal: no two are neighbours
 *
 *   page[]    at the first page of a block or run: how long it is; at the last page of a run: where it begins
 *   resident  a bit a page: it has memory behind it (it was in a block, and was not given back since)
 *   starts    a bit a page: a block begins here
 *   ends      a bit a page: a free run ends here
 *   bins      the free runs by size, eight classes a power of two, the last freed first; three kinds of
 *             them: all of it resident, some of it, nothing of it
 *
 * Private memory of the process that owns the arena. The pages themselves are never touched here: a page
 * costs memory when it is first written, and who hands pages out has to know how many fresh ones those are.
 */
#ifndef FAB_RUNS_H
#define FAB_RUNS_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FAB_NO_PAGE UINT32_MAX
#define FAB_BINS 240u
#define FAB_BIN_WORDS 4u
#define FAB_BIN_LOOK 8u /* runs of the class that may be too short, before a larger class is taken */

enum fab_run_kind { FAB_RUN_RESIDENT, FAB_RUN_PARTLY, FAB_RUN_FRESH, FAB_RUN_KINDS };

struct fab_page {
    uint32_t pages;    /* at the first page */
    uint32_t refs;     /* at the first page of a block */
    uint32_t resident; /* at the first page of a free run: how many of its pages are */
    uint32_t next;     /* likewise: neighbours in the bin */
    uint32_t prev;
    uint32_t first; /* at the last page of a free run */
};

struct fab_pages {
    uint32_t count;
    uint32_t used;     /* pages in blocks */
    uint32_t resident; /* in blocks or free */
    uint32_t blocks;
    struct fab_page *page;
    uint64_t *is_resident;
    uint64_t *starts;
    uint64_t *ends;
    uint64_t filled[FAB_RUN_KINDS][FAB_BIN_WORDS];
    uint32_t bins[FAB_RUN_KINDS][FAB_BINS];
};

static inline int fab_bit(const uint64_t *bits, uint32_t at) {
    return (int)(bits[at / 64] >> (at % 64) & 1);
}

static inline void fab_bit_put(uint64_t *bits, uint32_t at, int value) {
    bits[at / 64] = (bits[at / 64] & ~(UINT64_C(1) << at % 64)) | (uint64_t)(value != 0) << at % 64;
}

/* The bits of one word that lie in [from, end); *from moves on to the next word. */
static inline uint64_t fab_bit_mask(uint64_t *from, uint64_t end) {
    uint64_t low = *from % 64;
    uint64_t high = end - *from < 64 - low ? low + (end - *from) : 64;
    *from += high - low;
    return (high == 64 ? UINT64_MAX : (UINT64_C(1) << high) - 1) & ~((UINT64_C(1) << low) - 1);
}

static inline uint32_t fab_bits_count(const uint64_t *bits, uint64_t from, uint64_t count) {
    uint32_t sum = 0;
    for (uint64_t end = from + count; from < end;) {
        uint64_t word = bits[from / 64];
        sum += (uint32_t)__builtin_popcountll(word & fab_bit_mask(&from, end));
    }
    return sum;
}

static inline void fab_bits_fill(uint64_t *bits, uint64_t from, uint64_t count, int value) {
    for (uint64_t end = from + count; from < end;) {
        uint64_t *word = &bits[from / 64];
        uint64_t mask = fab_bit_mask(&from, end);
        *word = value ? *word | mask : *word & ~mask;
    }
}

/* The class of runs of this many pages. Classes below 16 are exact. */
static inline uint32_t fab_bin_of(uint32_t pages) {
    if (pages < 16)
        return pages;
    uint32_t power = 31 - (uint32_t)__builtin_clz(pages);
    return (power - 2) * 8 + (pages >> (power - 3) & 7);
}

static inline enum fab_run_kind fab_run_kind(const struct fab_page *run) {
    return run->resident == run->pages ? FAB_RUN_RESIDENT
           : run->resident != 0        ? FAB_RUN_PARTLY
                                       : FAB_RUN_FRESH;
}

static inline void fab_run_link(struct fab_pages *p, uint32_t start, uint32_t pages, uint32_t resident) {
    struct fab_page *run = &p->page[start];
    run->pages = pages;
    run->resident = resident;
    uint32_t bin = fab_bin_of(pages);
    uint32_t *first = &p->bins[fab_run_kind(run)][bin];
    run->prev = FAB_NO_PAGE;
    run->next = *first;
    if (*first != FAB_NO_PAGE)
        p->page[*first].prev = start;
    *first = start;
    p->filled[fab_run_kind(run)][bin / 64] |= UINT64_C(1) << bin % 64;
    p->page[start + pages - 1].first = start;
    fab_bit_put(p->ends, start + pages - 1, 1);
}

static inline void fab_run_unlink(struct fab_pages *p, uint32_t start) {
    const struct fab_page *run = &p->page[start];
    enum fab_run_kind kind = fab_run_kind(run);
    uint32_t bin = fab_bin_of(run->pages);
    if (run->next != FAB_NO_PAGE)
        p->page[run->next].prev = run->prev;
    if (run->prev != FAB_NO_PAGE)
        p->page[run->prev].next = run->next;
    else
        p->bins[kind][bin] = run->next;
    if (p->bins[kind][bin] == FAB_NO_PAGE)
        p->filled[kind][bin / 64] &= ~(UINT64_C(1) << bin % 64);
    fab_bit_put(p->ends, start + run->pages - 1, 0);
}

/* At which end of a run this many pages are resident, and how many there are not: *fresh. */
static inline uint32_t fab_run_window(const struct fab_pages *p, uint32_t run, uint32_t pages,
                                      uint32_t *fresh) {
    uint32_t last = run + p->page[run].pages - pages;
    uint32_t resident = p->page[run].resident;
    *fresh = resident == 0 ? pages : 0;
    if (resident == 0 || resident == p->page[run].pages)
        return run;
    uint32_t front = fab_bits_count(p->is_resident, run, pages);
    uint32_t back = fab_bits_count(p->is_resident, last, pages);
    *fresh = pages - (back > front ? back : front);
    return back > front ? last : run;
}

/* The first run of a class that has so many pages, among `look` of them. */
static inline uint32_t fab_bin_search(const struct fab_pages *p, uint32_t kind, uint32_t bin, uint32_t pages,
                                      uint32_t look) {
    uint32_t run = p->bins[kind][bin];
    while (run != FAB_NO_PAGE && p->page[run].pages < pages)
        run = look-- > 1 ? p->page[run].next : FAB_NO_PAGE;
    return run;
}

/* A run of the next larger class that has any: they all are long enough. */
static inline uint32_t fab_bin_above(const struct fab_pages *p, uint32_t kind, uint32_t bin) {
    for (uint32_t next = bin + 1; next < FAB_BINS; next = (next | 63) + 1) {
        uint64_t word = p->filled[kind][next / 64] & (UINT64_MAX << next % 64);
        if (word != 0)
            return p->bins[kind][next / 64 * 64 + (uint32_t)__builtin_ctzll(word)];
    }
    return FAB_NO_PAGE;
}

/* The last stretch of resident pages of a free run, at most `most` long: they count as fresh from now on.
 * Returns how many, and *from. */
static inline uint32_t fab_run_cool(struct fab_pages *p, uint32_t run, uint32_t most, uint32_t *from) {
    uint32_t pages = p->page[run].pages;
    uint32_t resident = p->page[run].resident;
    uint32_t end = run + pages;
    while (end > run && !fab_bit(p->is_resident, end - 1))
        end--;
    *from = end;
    while (*from > run && end - *from < most && fab_bit(p->is_resident, *from - 1))
        --*from;
    fab_run_unlink(p, run);
    fab_bits_fill(p->is_resident, *from, end - *from, 0);
    p->resident -= end - *from;
    fab_run_link(p, run, pages, resident - (end - *from));
    return end - *from;
}

#endif
