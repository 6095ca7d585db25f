/* SPDX-License-Identifier: MIT */
/* fab_heap.h - have malloc keep what was freed: large bodies come and go, one like the other. */
#ifndef FAB_HEAP_H
#define FAB_HEAP_H

#include <stdint.h>
#include <stdlib.h>

/* glibc makes blocks up to the largest that was ever freed, at most 32 MiB, from its heap, and gives the heap's top back
 * beyond twice that. Until one was freed that is 128 KiB: each body of 64 KiB then moves the top there and back, and each
 * of 1 MiB is made of fresh pages. So one is freed, which nobody has touched. Nothing comes of it with another malloc. */
static inline void fab_heap_keep(uint64_t largest) {
    void *volatile block = malloc(largest); /* volatile: or the compiler sees that it is for nothing */
    free(block);
}

#endif
