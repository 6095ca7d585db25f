/* SPDX-License-Identifier: MIT */
/*
 * fab_table.h - the agent table: one word an agent, written by the coordinator, read by anyone without a lock.
 *
 *   | generation u32 | state u16 | slot u16 |      address of an agent: | generation u32 | index u32 |
 *
 * Index 0 is the coordinator itself, generation 0; agents have generations from 1. A word is written whole, so a reader sees an old or a new one.
 */
#ifndef FAB_TABLE_H
#define FAB_TABLE_H

#include "fab_segment.h"

#define FAB_AGENT_ALIVE 0u /* so that word = generation | slot: one comparison tells all */
#define FAB_AGENT_STOPPED 1u
#define FAB_AGENT_LOST 2u /* its worker was given up */

static inline uint64_t fab_agent_word(uint64_t address, uint32_t state, uint32_t slot) {
    return (address & UINT64_C(0xffffffff00000000)) | (uint64_t)(state & 0xffff) << 16 | (slot & 0xffff);
}

/* Slot that hosts this agent, or -1 when it is not alive there any more. Any process. Wait-free. */
static inline int32_t fab_agent_slot(const _Atomic(uint64_t) *table, uint64_t max_agents, uint64_t address) {
    uint64_t index = address & UINT32_MAX;
    if (index >= max_agents)
        return -1;
    /* relaxed: the word says all there is to know; what it leads to is a lane, ordered by P1/C1 */
    uint64_t word = atomic_load_explicit(&table[index], memory_order_relaxed);
    if ((word >> 32) != (address >> 32) || ((word >> 16) & 0xffff) != FAB_AGENT_ALIVE)
        return -1;
    return (int32_t)(word & 0xffff);
}

#endif
