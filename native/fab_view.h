/* SPDX-License-Identifier: MIT */
/*
 * fab_view.h - what a receiver sees of another process's arena: a private mapping, copied page by page on
 * its own first write, so that the sender's bytes stay as they were sent.
 *
 *   file (shared)      | a | b | c | d |        the sender's block
 *   private mapping    | . | B | . | . |        b was written to here: its page is the receiver's own
 *   fab_view_renew     | . | . | . | . |        before the block is used again, B is dropped
 *
 * Dropping all pages of 8 MB costs 0.32 ms, and faults when they are next read; to ask which are ours 0.07. Nor is
 * that needed where this process had no page fault since it began to look: the first write to a page is one.
 */
#ifndef FAB_VIEW_H
#define FAB_VIEW_H

#include "fab_segment.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define FAB_VIEW_PAGES 512u /* looked at in one read */
#define FAB_PAGEMAP_PRESENT (UINT64_C(1) << 63)
#define FAB_PAGEMAP_SWAPPED (UINT64_C(1) << 62)
#define FAB_PAGEMAP_FILE (UINT64_C(1) << 61)

/* Is this page our own copy, by its word in /proc/self/pagemap? */
static inline int fab_view_is_copy(uint64_t word) {
    return (word & (FAB_PAGEMAP_PRESENT | FAB_PAGEMAP_SWAPPED)) != 0 && (word & FAB_PAGEMAP_FILE) == 0;
}

/* Drop the copies among up to FAB_VIEW_PAGES pages from `at`. Returns 0 or -errno. */
static inline int fab_view_renew_some(int pagemap, uint8_t *at, uint64_t pages) {
    uint64_t words[FAB_VIEW_PAGES];
    ssize_t wanted = (ssize_t)(pages * sizeof words[0]);
    off_t where = (off_t)((uintptr_t)at / FAB_PAGE * sizeof words[0]);
    if (pagemap < 0 || pread(pagemap, words, (size_t)wanted, where) != wanted)
        return madvise(at, pages * FAB_PAGE, MADV_DONTNEED) != 0 ? -errno : 0;
    for (uint64_t page = 0; page < pages;) {
        uint64_t first = page;
        while (page < pages && fab_view_is_copy(words[page]))
            page++;
        if (page > first && madvise(at + first * FAB_PAGE, (page - first) * FAB_PAGE, MADV_DONTNEED) != 0)
            return -errno;
        page += page == first;
    }
    return 0;
}

/* Drop this process's own copies of pages of a private mapping: `at` is page-aligned, `bytes` is rounded up.
 * `pagemap` is /proc/self/pagemap, or -1: then all pages are dropped. Returns 0 or -errno: then old copies
 * may still be there, and the memory must not be used again. Any thread. */
static inline int fab_view_renew(int pagemap, uint8_t *at, uint64_t bytes) {
    uint64_t pages = (bytes + FAB_PAGE - 1) / FAB_PAGE;
    int rc = 0;
    for (uint64_t done = 0; done < pages && rc == 0; done += FAB_VIEW_PAGES)
        rc = fab_view_renew_some(pagemap, at + done * FAB_PAGE,
                                 pages - done < FAB_VIEW_PAGES ? pages - done : FAB_VIEW_PAGES);
    return rc;
}

/* How many page faults this process has had, in all of its threads: those of the kernel on our behalf count too.
 * UINT64_MAX when that cannot be known. Any thread. */
static inline uint64_t fab_view_faults(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return UINT64_MAX;
    return (uint64_t)usage.ru_minflt + (uint64_t)usage.ru_majflt;
}

/* Map whole pages of the segment privately, once more: for a second view of pages that somebody looks at.
 * Returns NULL when there are no mappings left, or no memory for one. Any thread. */
static inline void *fab_view_map(int segment, uint64_t offset, uint64_t bytes) {
    int flags = MAP_PRIVATE | MAP_NORESERVE;
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, segment, (off_t)offset);
    return at == MAP_FAILED ? NULL : at;
}

/* Let go of such pages, and of what was written to them. Any thread. */
static inline void fab_view_unmap(void *at, uint64_t bytes) {
    (void)munmap(at, bytes);
}

#endif
