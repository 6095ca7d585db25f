/* SPDX-License-Identifier: MIT */
/*
 * store_trap.c - stop before and after each store of this process to a mapping; die at the one that is asked for.
 *
 *   store ---> SIGSEGV: it is read-only     count, make it writable, set the trap flag
 *        <---
 *   store, for good
 *   SIGTRAP after that one instruction      make it read-only again, clear the trap flag
 *
 * A moment is 2 n before store n (from 0), with all that was done since the one before, and 2 n + 1 right after
 * it, with nothing done since. A shared library for tests/store_trap.py; x86-64 only. One thread stores.
 */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define TRAP_FLAG 0x100

int store_trap_arm(void *begin, uint64_t bytes, uint64_t moment);
int store_trap_disarm(void);
uint64_t store_trap_stores(void);

static struct {
    uint8_t *begin;
    uint64_t bytes;
    uint64_t moment;
    uint64_t stores;
} trap;

static void die_at(uint64_t moment) {
    if (moment == trap.moment)
        kill(getpid(), SIGKILL);
}

static void on_fault(int number, siginfo_t *info, void *context) {
    ucontext_t *at = context;
    uint8_t *address = info->si_addr;
    if (trap.begin == NULL || address < trap.begin || address >= trap.begin + trap.bytes) {
        signal(number, SIG_DFL); /* not ours: it faults again, and that is the end */
        return;
    }
    die_at(2 * trap.stores);
    mprotect(trap.begin, trap.bytes, PROT_READ | PROT_WRITE);
    at->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

static void on_trap(int number, siginfo_t *info, void *context) {
    ucontext_t *at = context;
    (void)number;
    (void)info;
    at->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
    die_at(2 * trap.stores++ + 1);
    if (trap.begin != NULL)
        mprotect(trap.begin, trap.bytes, PROT_READ);
}

/* Watch whole pages. Returns 0 or -errno. */
int store_trap_arm(void *begin, uint64_t bytes, uint64_t moment) {
    struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    struct sigaction step = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    trap.begin = begin;
    trap.bytes = bytes;
    trap.moment = moment;
    trap.stores = 0;
    if (sigaction(SIGSEGV, &fault, NULL) != 0 || sigaction(SIGTRAP, &step, NULL) != 0 ||
        mprotect(begin, bytes, PROT_READ) != 0)
        return -errno;
    return 0;
}

/* Watch no longer. Returns 0 or -errno. */
int store_trap_disarm(void) {
    uint8_t *begin = trap.begin;
    trap.begin = NULL;
    signal(SIGSEGV, SIG_DFL);
    signal(SIGTRAP, SIG_DFL);
    return begin == NULL || mprotect(begin, trap.bytes, PROT_READ | PROT_WRITE) == 0 ? 0 : -errno;
}

/* How many there were since store_trap_arm. */
uint64_t store_trap_stores(void) {
    return trap.stores;
}
