/* SPDX-License-Identifier: MIT */
/*
 * queue_step_test.c - a process is killed after each instruction of put, get, put_many, get_many and shutdown; what
 * it leaves must do for the others.
 *
 *   tester                                  victim
 *   a queue with `before` items in it
 *   PTRACE_SINGLESTEP                       one instruction of one call
 *   as if it were dead: the locks that it
 *   has are marked as the kernel would
 *   nothing that was put is lost, torn or there twice; the counts are right; all calls go on at once
 *   the memory as it was, and the next instruction
 *
 * At some of the instructions (all, with QUEUE_STEP_ALL=1, for minutes) it is killed indeed, so that the kernel
 * marks the locks. That takes a new victim each, and steps from the beginning: a twin (step.h) would not be the owner of the
 * victim's locks. In the end faults are seeded, and each must be noticed.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#include <stdio.h>

int main(void) {
    puts("queue_step_test: skipped under sanitizers: single-stepping the instrumentation says nothing");
    return 0;
}
#else
#include "queue_world.h"
#include "step.h"

#include <sys/resource.h>

#define SIZE 100u
#define STEPS_MOST 20000u
#define KILLS 12u /* of those that are killed indeed, for each call */

/* Where the queue is: in the middle; far out and empty, so that a put begins anew; at the end of the warm part, so
 * that the second put goes back; where a put has to jump over the last lap. */
enum place { NEAR, FAR, BACK, OVER };

enum fault { SOUND, PUBLISH_FIRST, COUNT_APART };

struct act {
    const char *name;
    int64_t (*run)(struct queue_world *w, enum fault fault);
    uint64_t before; /* items that are there, as numbers 0 and up */
    uint64_t puts;   /* items that it adds at the end, in one commit */
    uint64_t gets;   /* items that it takes from the beginning, in one commit */
    enum place place;
    int parks; /* somebody is noted as asleep */
};

struct run {
    struct queue_world *w;
    const struct act *act;
    enum fault fault;
};

static uint8_t bodies[3 * SIZE]; /* of what is put: items 2, 3 and 4 */

static int64_t put_one(struct queue_world *w, enum fault fault) {
    struct fab_queue_shared *s = w->q.shared;
    const uint8_t *body = bodies;
    if (fault == SOUND)
        return fab_queue_put(&w->q, body, SIZE, 0, FAB_QUEUE_NO_WAIT);
    if (fab_queue_lock(&s->put_lock) != 0)
        return -1;
    uint64_t tail = atomic_load(&s->tail);
    uint64_t next =
        fab_queue_word(fab_queue_position(tail) + fab_queue_span(SIZE), fab_queue_count(tail) + 1);
    if (fault == PUBLISH_FIRST)
        atomic_store(&s->tail, next);
    if (fault == COUNT_APART)
        atomic_store(&s->tail, tail + 1);
    CHECK_EQ(fab_queue_lay(&w->q, &tail, body, SIZE, 0), 0);
    atomic_store(&s->tail, next);
    fab_queue_unlock(&s->put_lock);
    return 1;
}

static int64_t put_many(struct queue_world *w, enum fault fault) {
    struct fab_queue_batch batch = {.bytes = bodies, .uniform = SIZE, .count = 3};
    (void)fault;
    return fab_queue_put_many(&w->q, &batch, FAB_QUEUE_NO_WAIT);
}

static int64_t get_one(struct queue_world *w, enum fault fault) {
    (void)fault;
    return fab_queue_get(&w->q, &w->taken, FAB_QUEUE_NO_WAIT);
}

static int64_t get_many(struct queue_world *w, enum fault fault) {
    (void)fault;
    return fab_queue_get_many(&w->q, &w->taken, 2, FAB_QUEUE_NO_WAIT);
}

static int64_t shut(struct queue_world *w, enum fault fault) {
    (void)fault;
    return fab_queue_shutdown(&w->q, 1);
}

static void be_victim(void *arg) {
    struct run *r = arg;
    kill(getpid(), SIGSTOP);
    if (r->act->run(r->w, r->fault) < 0)
        _exit(1);
}

static void prepare(struct run *r) {
    struct queue_world *w = r->w;
    memset(w->q.shared, 0, sizeof *w->q.shared);
    memset(w->q.ring, 0xee, QUEUE_RING);
    CHECK_EQ(fab_queue_init(w->q.shared, QUEUE_RING, FAB_QUEUE_MOST_ITEMS, 1), 0);
    static const uint64_t positions[] = {[NEAR] = UINT64_C(0) - 5,
                                         [FAR] = FAB_QUEUE_REWIND_BYTES * 3 / FAB_QUEUE_UNIT,
                                         [BACK] = 16380,
                                         [OVER] = 16380};
    uint64_t position = positions[r->act->place];
    queue_set(w, position, UINT32_C(0) - 1, r->act->place == NEAR ? position - 3 : 0);
    for (uint64_t n = 0; n < r->act->before; n++)
        CHECK_EQ(queue_put(w, 2 * n, SIZE), 1); /* even: encoding 0 */
    if (r->act->place == OVER)
        atomic_store(&w->q.shared->freed, 16);
    atomic_store(&w->q.shared->items.sleepers, (uint32_t)r->act->parks);
    atomic_store(&w->q.shared->room.sleepers, (uint32_t)r->act->parks);
}

static int seeded;  /* a fault */
static int noticed; /* and it was */

static void must(int holds, const char *what, const struct run *r, uint32_t steps) {
    if (holds)
        return;
    noticed = seeded;
    if (seeded)
        return;
    fprintf(stderr, "queue_step_test: %s, killed after %u instructions: not so: %s\n", r->act->name, steps,
            what);
    _exit(1);
}

/* The next item is body n, and whole. */
static int is_next(struct queue_world *w, uint64_t n) {
    uint8_t wanted[SIZE];
    if (fab_queue_get(&w->q, &w->taken, FAB_QUEUE_NO_WAIT) != (int64_t)(SIZE << FAB_QUEUE_ENCODING_BITS))
        return 0;
    fixture_fill(wanted, n, SIZE);
    return memcmp(w->taken.bytes, wanted, SIZE) == 0;
}

/* How often this thread has let go of its CPU of itself. */
static long waits_so_far(void) {
    struct rusage usage;
    CHECK_EQ(getrusage(RUSAGE_THREAD, &usage), 0);
    return usage.ru_nvcsw;
}

/* What must hold after a death. Returns 1 if the victim's call had come to its commit point. */
static int judge(struct run *r, uint32_t steps) {
    struct queue_world *w = r->w;
    const struct act *act = r->act;
    uint64_t there = fab_queue_size(&w->q);
    int shutdown = fab_queue_state(&w->q) != FAB_QUEUE_OPEN;
    long waits = waits_so_far();
    if (shutdown) {
        must(fab_queue_get(&w->q, &w->taken, FAB_QUEUE_NO_WAIT) == -ESHUTDOWN, "gets are refused", r, steps);
        must(fab_queue_size(&w->q) == 0, "what was there is thrown away", r, steps);
        must(fab_queue_unfinished(&w->q) == 0, "and not waited for", r, steps);
        return 1;
    }
    int committed = there != act->before;
    uint64_t first = committed ? act->gets : 0;
    must(there == act->before || there == act->before + act->puts - act->gets, "all of it or none", r, steps);
    uint8_t body[SIZE];
    fixture_fill(body, 99, SIZE);
    must(fab_queue_put(&w->q, body, SIZE, 0, FAB_QUEUE_NO_WAIT) == 1, "others can put", r, steps);
    for (uint64_t n = first; n < act->before; n++)
        must(is_next(w, 2 * n), "what was there comes next, whole", r, steps);
    for (uint64_t n = 0; committed && n < act->puts; n++)
        must(is_next(w, 2 + n), "what was put comes next, whole", r, steps);
    must(is_next(w, 99), "what others put comes next", r, steps);
    must(fab_queue_get(&w->q, &w->taken, FAB_QUEUE_NO_WAIT) == -EAGAIN, "and nothing else", r, steps);
    must(waits_so_far() == waits, "nobody waits for the dead", r, steps);
    return committed;
}

/* What the kernel does to a lock whose owner dies, see robust_futexes(5) and futex(2). */
static void mark_as_dead(pthread_mutex_t *lock, pid_t owner) {
    _Atomic(uint32_t) *word =
        (_Atomic(uint32_t) *)(void *)lock; /* __lock comes first, in glibc and musl's kin */
    uint32_t value = atomic_load(word);
    if ((value & FUTEX_TID_MASK) == (uint32_t)owner)
        atomic_store(word, (value & FUTEX_WAITERS) | FUTEX_OWNER_DIED);
}

/* Judge after each instruction as if it were the last. Returns their number; 0 when ptrace is not permitted. */
static uint32_t pretend_everywhere(struct run *r, uint8_t *kept) {
    struct fab_queue_shared *s = r->w->q.shared;
    uint32_t committed = 0;
    uint32_t steps = 0;
    int status;
    prepare(r);
    pid_t pid = step_start(be_victim, r);
    while (pid > 0 && step_once(pid, &status)) {
        CHECK(steps++ < STEPS_MOST);
        memcpy(kept, s, r->w->q.file_bytes);
        mark_as_dead(&s->put_lock, pid);
        mark_as_dead(&s->get_lock, pid);
        committed += (uint32_t)judge(r, steps);
        if (noticed) {
            step_kill(pid);
            return STEPS_MOST;
        }
        memcpy(s, kept, r->w->q.file_bytes);
    }
    if (pid < 0)
        return 0;
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    must(judge(r, steps) == 1, "a call that returned has done its work", r, steps);
    must(committed > 0, "it is stopped behind its commit point too", r, steps);
    return steps;
}

/* Kill a victim after this number of instructions. */
static void kill_after(struct run *r, uint32_t steps) {
    int status;
    prepare(r);
    pid_t pid = step_start(be_victim, r);
    uint32_t done = 0;
    while (done < steps && step_once(pid, &status))
        done++;
    if (done == steps)
        step_kill(pid);
    (void)judge(r, steps);
}

static const struct act acts[] = {
    {.name = "put", .run = put_one, .before = 1, .puts = 1},
    {.name = "put, with a sleeper", .run = put_one, .before = 0, .puts = 1, .parks = FAB_QUEUE_ASLEEP},
    {.name = "put, at the beginning again", .run = put_one, .puts = 1, .place = FAR},
    {.name = "put, back", .run = put_one, .before = 1, .puts = 1, .place = BACK},
    {.name = "put, over", .run = put_one, .before = 2, .puts = 1, .place = OVER},
    {.name = "get_many, over padding", .run = get_many, .before = 2, .gets = 2, .place = BACK},
    {.name = "put_many", .run = put_many, .before = 1, .puts = 3},
    {.name = "get", .run = get_one, .before = 3, .gets = 1},
    {.name = "get, with a sleeper", .run = get_one, .before = 1, .gets = 1, .parks = FAB_QUEUE_ASLEEP},
    {.name = "get_many", .run = get_many, .before = 3, .gets = 2},
    {.name = "immediate shutdown", .run = shut, .before = 3},
};

int main(void) {
    struct queue_world w = {0};
    uint64_t seed = 5;
    alarm(getenv("QUEUE_STEP_ALL") != NULL ? 3600 : 120);
    step_pin();
    queue_world_open(&w, QUEUE_RING, FAB_QUEUE_MOST_ITEMS);
    uint8_t *kept = malloc(w.q.file_bytes);
    for (uint64_t n = 0; n < 3; n++)
        fixture_fill(bodies + n * SIZE, 2 + n, SIZE);
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) {
        struct run r = {.w = &w, .act = &acts[i]};
        uint32_t steps = pretend_everywhere(&r, kept);
        if (steps == 0) {
            puts("queue_step_test: skipped: ptrace is not permitted here");
            return 0;
        }
        uint32_t kills = getenv("QUEUE_STEP_ALL") != NULL ? steps : KILLS;
        for (uint32_t n = 0; n < kills; n++)
            kill_after(&r, kills == steps ? n : fixture_below(&seed, steps));
        printf("%s: dead after each of %u instructions, killed at %u\n", acts[i].name, steps, kills);
    }
    seeded = 1;
    for (enum fault fault = PUBLISH_FIRST; fault <= COUNT_APART; fault++) {
        struct run r = {.w = &w, .act = &acts[0], .fault = fault};
        noticed = 0;
        CHECK_EQ(pretend_everywhere(&r, kept), STEPS_MOST);
    }
    puts("seeded faults: noticed");
    free(kept);
    queue_world_close(&w);
    return 0;
}
#endif
