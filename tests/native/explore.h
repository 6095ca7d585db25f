/* SPDX-License-Identifier: MIT */
/*
 * explore.h - run a few coroutines in every possible order, with a death of one at every step.
 *
 *   scheduler                          coroutines, one a process
 *     options: who runs                  ... explore_pause() before each step that others can notice
 *     take one, remember the rest  --->  one step, up to the next pause: there it may die
 *     state seen before? stop here <---
 *     nobody can run: the verdict
 *
 * Depth first, by running again: a path is the list of choices taken, and each execution follows the last
 * path with its last open choice changed. States, not paths, are visited once. A state is what each coroutine
 * remembers (a hash of what it has seen since explore_forget) and what is shared (explore_state_hash).
 *
 * A path that ends badly is run again with every step printed. (Two states with one hash of 64 bits would be
 * taken for one: with 10^7 states that is one chance in 10^5.)
 */
#ifndef EXPLORE_H
#define EXPLORE_H

#undef _FORTIFY_SOURCE /* its longjmp takes a jump to another stack for a mistake */
#include "check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define EXPLORE_THREADS 6u
#define EXPLORE_STACK (64u * 1024u)
#define EXPLORE_CHOICES 4096u
#define EXPLORE_STEPS 2000u /* more in one execution: it does not end */
#define EXPLORE_SEEN (UINT64_C(1) << 22)
#define EXPLORE_NOBODY EXPLORE_THREADS

enum explore_status { EXPLORE_ABSENT, EXPLORE_READY, EXPLORE_BLOCKED, EXPLORE_DEAD, EXPLORE_DONE };

struct explore_scenario {
    const char *name;
    void (*setup)(void);   /* bring about the first state, and start coroutines */
    void (*verdict)(void); /* nobody can go on: is all as it should be? */
    uint32_t kills;        /* how many deaths an execution may have */
};

struct explore_thread {
    const char *name;
    jmp_buf base; /* at the bottom of its stack, to begin anew */
    jmp_buf at;   /* where it paused */
    void (*body)(void *);
    void *arg;
    int (*may_go)(uint32_t thread, const void *awaited); /* while blocked */
    const void *awaited;
    uint64_t history;
    enum explore_status status;
    uint8_t fresh;
    uint8_t killable;
};

struct explore {
    const struct explore_scenario *scenario;
    struct explore_thread threads[EXPLORE_THREADS];
    jmp_buf scheduler;
    ucontext_t outside;
    uint32_t started; /* threads of this execution */
    uint32_t current; /* who runs; EXPLORE_NOBODY: the scheduler, and in setup and verdict */
    uint32_t kills_left;
    struct {
        uint16_t taken, count;
    } path[EXPLORE_CHOICES];
    uint32_t length; /* of the path */
    uint32_t depth;  /* how far this execution has come on it */
    uint64_t *seen;
    uint64_t states;
    uint64_t executions;
    uint64_t steps;
    int telling; /* print each step */
    char violation[256];
};
static struct explore explore;

/* What is shared: makes a state together with what the coroutines remember. */
static inline uint64_t explore_state_hash(uint64_t hash);

static inline uint64_t explore_mix(uint64_t hash, uint64_t value) {
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    hash ^= hash >> 29;
    hash *= UINT64_C(0xbf58476d1ce4e5b9);
    return hash ^ hash >> 32;
}

static inline struct explore_thread *explore_self(void) {
    return &explore.threads[explore.current];
}

/* The running coroutine has seen something that might have been otherwise. */
static inline void explore_note(uint64_t value) {
    explore_self()->history = explore_mix(explore_self()->history, value);
}

/* The running coroutine is where it was before, and all that it remembers is `memory`: what it has seen on
 * the way no longer matters. Without this, one who has slept twice is never where one was who slept once. */
static inline void explore_forget(uint64_t memory) {
    explore_self()->history = explore_mix(2, memory);
}

__attribute__((format(printf, 1, 2))) static inline void explore_tell(const char *format, ...) {
    va_list args;
    if (!explore.telling)
        return;
    va_start(args, format);
    printf("    %-14s ", explore.current == EXPLORE_NOBODY ? "-" : explore_self()->name);
    vprintf(format, args);
    puts("");
    va_end(args);
}

/* Something happened that must not. Ends the exploration; does not return to a coroutine. */
__attribute__((format(printf, 1, 2))) static inline void explore_fail(const char *format, ...) {
    va_list args;
    if (explore.violation[0] == '\0') {
        va_start(args, format);
        vsnprintf(explore.violation, sizeof explore.violation, format, args);
        va_end(args);
    }
    explore_tell("*** %s", explore.violation);
    if (explore.current != EXPLORE_NOBODY)
        _longjmp(explore.scheduler, 1);
}

/* One of `count` ways to go on; all will be taken, in other executions. */
static inline uint32_t explore_choose(uint32_t count) {
    if (count == 1)
        return 0;
    if (explore.depth == explore.length) {
        CHECK(explore.length < EXPLORE_CHOICES);
        explore.path[explore.length].taken = 0;
        explore.path[explore.length++].count = (uint16_t)count;
    }
    CHECK_EQ(explore.path[explore.depth].count, count); /* or an execution is not repeatable */
    return explore.path[explore.depth++].taken;
}

/* Die here or go on. Asked after each step that others can notice, and called where one who dies leaves
 * something else behind, though nobody can notice yet. To die later would be to be found dead later. */
static inline void explore_may_die(void) {
    struct explore_thread *t = explore_self();
    if (!t->killable || explore.kills_left == 0 || explore_choose(2) == 0)
        return;
    explore_tell("is killed");
    t->status = EXPLORE_DEAD;
    explore.kills_left--;
    _longjmp(explore.scheduler, 1);
}

/* Before a step that others can notice: let them go first. */
static inline void explore_pause(void) {
    explore_note(1);
    explore_may_die();
    if (_setjmp(explore_self()->at) == 0)
        _longjmp(explore.scheduler, 1);
}

/* Go on only when `may_go` says so. */
static inline void explore_block(int (*may_go)(uint32_t, const void *), const void *awaited) {
    explore_self()->may_go = may_go;
    explore_self()->awaited = awaited;
    explore_self()->status = EXPLORE_BLOCKED;
    explore_pause();
}

static inline uint32_t explore_start(const char *name, void (*body)(void *), void *arg, int killable) {
    CHECK(explore.started < EXPLORE_THREADS);
    struct explore_thread *t = &explore.threads[explore.started];
    t->name = name;
    t->body = body;
    t->arg = arg;
    t->killable = killable != 0;
    t->fresh = 1;
    t->history = 0;
    t->status = EXPLORE_READY;
    return explore.started++;
}

static inline void explore_bottom(void) {
    struct explore_thread *t = explore_self();
    if (_setjmp(t->base) == 0)
        swapcontext(&(ucontext_t){0}, &explore.outside);
    explore_self()->body(explore_self()->arg);
    explore_self()->status = EXPLORE_DONE;
    _longjmp(explore.scheduler, 1);
}

static inline void explore_open(void) {
    static ucontext_t context;
    for (explore.current = 0; explore.current < EXPLORE_THREADS; explore.current++) {
        getcontext(&context);
        context.uc_stack.ss_sp =
            mmap(NULL, EXPLORE_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
        context.uc_stack.ss_size = EXPLORE_STACK;
        context.uc_link = NULL;
        CHECK(context.uc_stack.ss_sp != MAP_FAILED);
        makecontext(&context, explore_bottom, 0);
        CHECK_EQ(swapcontext(&explore.outside, &context), 0);
    }
    explore.current = EXPLORE_NOBODY;
    explore.seen = mmap(NULL, EXPLORE_SEEN * sizeof *explore.seen, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(explore.seen != MAP_FAILED);
}

/* Let a coroutine take its step. */
static inline void explore_step(uint32_t thread) {
    struct explore_thread *t = &explore.threads[thread];
    explore.current = thread;
    t->status = EXPLORE_READY;
    if (_setjmp(explore.scheduler) == 0) {
        if (!t->fresh)
            _longjmp(t->at, 1);
        t->fresh = 0;
        _longjmp(t->base, 1);
    }
    explore.current = EXPLORE_NOBODY;
}

/* Have we been in this state? From now on we have. */
static inline int explore_been_here(void) {
    uint64_t hash = explore_mix(explore.kills_left, explore.started);
    for (uint32_t i = 0; i < explore.started; i++) {
        const struct explore_thread *t = &explore.threads[i];
        hash = explore_mix(hash, t->status);
        hash = explore_mix(hash, t->status <= EXPLORE_BLOCKED ? t->history : 0);
    }
    hash = explore_state_hash(hash) | 1; /* 0 is an empty place */
    uint64_t at = hash >> 20 & (EXPLORE_SEEN - 1);
    for (; explore.seen[at] != 0; at = (at + 1) & (EXPLORE_SEEN - 1))
        if (explore.seen[at] == hash)
            return 1;
    CHECK(explore.states < EXPLORE_SEEN / 4 * 3); /* too large a scenario */
    explore.seen[at] = hash;
    explore.states++;
    return 0;
}

static inline int explore_can_go(uint32_t thread) {
    const struct explore_thread *t = &explore.threads[thread];
    return t->status == EXPLORE_READY || (t->status == EXPLORE_BLOCKED && t->may_go(thread, t->awaited));
}

/* Run, or kill, whoever comes next. Returns 0 when this execution is over. */
static inline int explore_advance(void) {
    uint32_t who[2 * EXPLORE_THREADS];
    uint32_t runnable = 0;
    for (uint32_t i = 0; i < explore.started; i++)
        if (explore_can_go(i))
            who[runnable++] = i;
    if (explore.depth == explore.length && !explore.telling && explore_been_here())
        return 0;
    uint32_t options = runnable;
    if (runnable == 0) {
        explore.scenario->verdict();
        who[options++] = EXPLORE_NOBODY;
    }
    uint32_t choice = explore_choose(options);
    if (who[choice] == EXPLORE_NOBODY || explore.violation[0] != '\0')
        return 0;
    explore_step(who[choice]);
    return explore.violation[0] == '\0';
}

static inline void explore_once(void) {
    uint32_t steps = 0;
    explore.depth = explore.started = 0;
    explore.kills_left = explore.scenario->kills;
    explore.scenario->setup();
    while (explore_advance())
        if (++steps > EXPLORE_STEPS)
            explore_fail("does not end: over %u steps", EXPLORE_STEPS);
    explore.executions++;
    explore.steps += steps;
}

/* The next path, or 0 when all have been taken. */
static inline int explore_next_path(void) {
    while (explore.length > 0 &&
           explore.path[explore.length - 1].taken + 1 == explore.path[explore.length - 1].count)
        explore.length--;
    if (explore.length == 0)
        return 0;
    explore.path[explore.length - 1].taken++;
    return 1;
}

/* Run a scenario in all ways there are, up to the first violation. Returns what went wrong, or NULL. */
static inline const char *explore_all(const struct explore_scenario *s) {
    CHECK_EQ(madvise(explore.seen, EXPLORE_SEEN * sizeof *explore.seen, MADV_DONTNEED), 0);
    explore.scenario = s;
    explore.length = 0;
    explore.states = explore.executions = explore.steps = 0;
    explore.violation[0] = '\0';
    do
        explore_once();
    while (explore.violation[0] == '\0' && explore_next_path());
    return explore.violation[0] == '\0' ? NULL : explore.violation;
}

/* Run the path that went wrong once more, and print it. */
static inline void explore_tell_story(void) {
    char kept[sizeof explore.violation];
    (memcpy)(kept, explore.violation, sizeof kept);
    explore.violation[0] = '\0';
    explore.telling = 1;
    explore_once();
    explore.telling = 0;
    CHECK(strcmp(kept, explore.violation) == 0);
}

#endif
