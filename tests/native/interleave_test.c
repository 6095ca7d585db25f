/* SPDX-License-Identifier: MIT */
/*
 * interleave_test.c - the shipped ring, doorbell and peer code in every order that C11 and a death allow.
 *
 *   interleave_test.c     this: the scenarios, and the faults that each must be noticed
 *   interleave_acts.h     what coroutines do: produce, consume, ask, answer, wait for room, for quiet
 *   interleave_loans.h    the same for what is lent from an arena
 *   interleave_world.h    the segment, the supervisor
 *   weak.h                stale reads and bells, in place of <stdatomic.h>, memcpy and system calls
 *   weak_memory.h         which old values a load may still read
 *   explore.h             all schedules, depth first
 *
 * In each scenario all schedules are run, with one death at every step and the successor that follows, and
 * with all stale reads. There is no safety net here: a bell that does not ring leaves its sleeper asleep, and
 * that is a violation, as is a record that is torn, lost, or comes oftener than somebody died.
 *
 * The orders of the headers are weakened by scripts/mutate-ordering, one by one: this must then end with 1.
 * Arguments: the name of a scenario, and the number of a fault, to see its story. With INTERLEAVE_LONG set,
 * larger scenarios and two deaths.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#include <stdio.h>

int main(void) {
    puts("interleave_test: skipped under sanitizers: they do not know of stacks made by hand");
    return 0;
}
#else
#include "interleave_loans.h"

#define DEADLINE_S 600

/* What is left when nobody can go on: those who have an end have come to it. */
static void demand_end_of(uint32_t process) {
    for (uint32_t i = 0; i < explore.started; i++)
        if (world.process[i] == process && strcmp(explore.threads[i].name, "supervisor") != 0 &&
            explore.threads[i].status == EXPLORE_BLOCKED)
            explore_fail("stuck: %s sleeps for ever", explore.threads[i].name);
}

static void start(uint32_t process, const char *name, void (*body)(void *), int killable) {
    world_connect(world_start(name, process, body, killable), process);
}

/* Small records, published by two, while both counters pass 2^64 and the end of the ring. */
static void open_small_lane(void) {
    lane_open(0 - UINT64_C(160), 4, 16, 2);
}

/* Records of half the ring: PAD, a full lane, and bytes that are used again. */
static void open_full_lane(void) {
    lane_open(WORLD_LANE - 1024, 3, 2000, 1);
}

static void open_asking(uint32_t messages) {
    world_open(2);
    world.messages = messages;
    world.body_bytes = 16;
    world_announce_lane(0, 1, WORLD_LANE, "tail 0>1", "head 0>1", "lane 0>1");
    world_announce_lane(1, 0, WORLD_LANE, "tail 1>0", "head 1>0", "lane 1>0");
    world_announce_sleeper(0, "sleeping 0");
    world_announce_sleeper(1, "sleeping 1");
    start(0, "coordinator", world_ask, 0);
    start(1, "worker", world_answer, 1);
    world_start_supervisor();
}

static void open_asking_one(void) {
    open_asking(1);
}

static void open_asking_two(void) {
    open_asking(2);
}

static void close_asking(void) {
    demand_end_of(0);
    world_demand_handled(1);
    for (uint32_t n = 0; n < world.messages; n++)
        if (world.answered[n] == 0)
            explore_fail("stuck or lost: answer %u", n);
}

/* Two records, and room for one. */
static void open_room(void) {
    world_open(2);
    world.messages = 2;
    world.body_bytes = 16;
    world_announce_lane(0, 1, 64, "tail 0>1", "head 0>1", "lane 0>1");
    world_announce_sleeper(0, "sleeping 0");
    world_announce_sleeper(1, "sleeping 1");
    start(0, "coordinator", world_tell, 0);
    start(1, "worker", world_take, 1);
    world_start_supervisor();
}

static void close_room(void) {
    demand_end_of(0);
    world_demand_handled(1);
}

/* The coordinator tells worker 1, that tells another or itself, and then all are quiet. */
static void open_quiet(uint32_t processes) {
    uint32_t last = processes - 1;
    world_open(processes);
    world.messages = 1;
    world.body_bytes = 16;
    world.passed_on = 1;
    world_announce_lane(0, 1, WORLD_LANE, "tail 0>1", "head 0>1", "lane 0>1");
    world_announce_lane(1, last, WORLD_LANE, "tail 1>", "head 1>", "lane 1>");
    for (uint32_t p = 0; p < processes; p++)
        world_announce_sleeper(p, (const char *[]){"sleeping 0", "sleeping 1", "sleeping 2"}[p]);
    start(0, "coordinator", world_drain, 0);
    start(1, "worker 1", world_take, 1);
    if (last == 2)
        start(2, "worker 2", world_take, 0);
    world_start_supervisor();
}

static void open_quiet_of_two(void) {
    open_quiet(2);
}

static void open_quiet_of_three(void) {
    open_quiet(3);
}

static void close_quiet(void) {
    demand_end_of(0);
}

static void open_outbox(uint32_t messages) {
    world_open(3);
    world.messages = messages;
    world.body_bytes = 16;
    uint8_t *block = world.memory + world.block[1];
    weak_word(&((struct fab_counter_line *)(void *)(block + fab_outbox_words_offset(&world.header)))[0].value,
              "tail outbox", 0, 0);
    weak_word(&((struct fab_counter_line *)(void *)(block + fab_outbox_words_offset(&world.header)))[1].value,
              "head outbox", 0, 0);
    for (uint32_t i = 0; i < 3; i++)
        weak_word(&((struct fab_words *)(void *)block)->intent[i],
                  (const char *[]){"intent: behind", "intent: lane", "intent: tail"}[i], 0, 0);
    weak_bytes(block + fab_outbox_offset(&world.header, 1), WORLD_LANE, "the outbox");
    world_announce_lane(1, 2, WORLD_LANE, "tail 1>2", "head 1>2", "lane 1>2");
    world_announce_sleeper(2, "sleeping 2");
    for (uint64_t n = 0; n < world.messages; n++) /* the agent table: each target lives in worker 2 */
        ((uint64_t *)(void *)(world.memory + FAB_PAGE))[n] = fab_agent_word(n, FAB_AGENT_ALIVE, 2);
    start(1, "worker 1", world_flush, 1);
    start(2, "worker 2", world_take, 0);
    world_start_supervisor();
}

static void open_outbox_of_two(void) {
    open_outbox(2);
}

static void open_outbox_of_three(void) {
    open_outbox(3);
}

static void close_outbox(void) {
    demand_end_of(1);
    world_demand_handled(2);
    for (uint32_t n = 0; n < world.messages; n++)
        if (world.handled[2][n] > 1)
            explore_fail("published twice: record %u of the outbox", n);
}

static void open_loans(void) {
    world_open_with(2, FAB_PAGE, 1);
    world.messages = 2;
    loan_announce();
    start(1, "owner", loan_own, 1);
    start(0, "reader", loan_read, 1);
    world_start_supervisor();
}

static void close_loans(void) {
    demand_end_of(1);
    for (uint32_t n = 0; n < world.messages; n++)
        if (world.handled[1][n] == 0)
            explore_fail("stuck or lost: message %u", n);
}

static const struct explore_scenario scenarios[] = {
    {"lane", open_small_lane, lane_verdict, 2},
    {"full lane", open_full_lane, lane_verdict, 1},
    {"ask", open_asking_one, close_asking, 1},
    {"ask 2", open_asking_two, close_asking, 0},
    {"room", open_room, close_room, 1},
    {"quiet", open_quiet_of_two, close_quiet, 1},
    {"outbox", open_outbox_of_two, close_outbox, 1},
    {"loans", open_loans, close_loans, 1},
};
/* A minute more. */
static const struct explore_scenario longer[] = {
    {"full lane", open_full_lane, lane_verdict, 2},
    {"ask", open_asking_one, close_asking, 2},
    {"ask 2", open_asking_two, close_asking, 1},
    {"room", open_room, close_room, 2},
    {"quiet", open_quiet_of_two, close_quiet, 2},
    {"quiet of 3", open_quiet_of_three, close_quiet, 0},
    {"outbox of 3", open_outbox_of_three, close_outbox, 1},
    {"outbox", open_outbox_of_two, close_outbox, 2},
    {"loans", open_loans, close_loans, 2},
};
#define SCENARIOS (sizeof scenarios / sizeof *scenarios)

static const struct {
    enum world_fault fault;
    const char *scenario;
    const char *text;
    const char *as; /* what the violation is to be called */
} faults[] = {
    {WORLD_TAIL_BEFORE_DATA, "lane", "published before it is written", "torn"},
    {WORLD_COMMIT_BEFORE_READ, "full lane", "handed back before it is read", "may still read"},
    {WORLD_BATCH_IN_PIECES, "lane", "a batch published record by record", "torn"},
    {WORLD_SUCCESSOR_TOO_SOON, "ask", "a successor beside one who lives", "two processes"},
    {WORLD_COMMIT_BEFORE_REPLY, "ask", "handed back before the reply is out", "stuck"},
    {WORLD_NO_BELL, "ask", "published without a bell", "stuck"},
    {WORLD_NO_SECOND_LOOK, "ask", "asleep without a second look", "stuck"},
    {WORLD_LOOK_BEFORE_SLEEPING, "ask", "the second look before saying that one sleeps", "stuck"},
    {WORLD_NO_BELL_FOR_ROOM, "room", "room without a bell", "stuck"},
    {WORLD_NO_DEATH_BELL, "room", "a death without a bell", "stuck"},
    {WORLD_OUTBOX_NOT_RESUMED, "outbox", "a successor that does not look at the intent", "twice"},
    {WORLD_QUIET_TAILS_FIRST, "quiet", "quiet by tails before heads", "quiet"},
    {WORLD_DONE_BEFORE_COMMIT, "loans", "done before it is committed", "lost"},
    {WORLD_COMMIT_BEFORE_HOLD, "loans", "committed before it is held", "stuck"},
    {WORLD_NO_BELL_FOR_ARENA, "loans", "done without a bell", "stuck"},
    {WORLD_RECEIPTS_BEFORE_LANES, "loans", "an owner that looks for its loans in the wrong order",
     "may still read"},
    {WORLD_RECEIPTS_NOT_ADOPTED, "loans", "a reader that does not look at what it inherits", "stuck"},
};
#define FAULTS (sizeof faults / sizeof *faults)

static const struct explore_scenario *find(const char *name) {
    for (size_t i = 0; i < SCENARIOS; i++)
        if (strcmp(scenarios[i].name, name) == 0)
            return &scenarios[i];
    fprintf(stderr, "interleave_test: no scenario is called %s\n", name);
    exit(2);
}

/* Explore a scenario, and tell the story of what goes wrong. */
static int run(const struct explore_scenario *s, uint64_t *states) {
    const char *violation = explore_all(s);
    printf("%-12s %u killed %8llu states %8llu executions %9llu steps: %s\n", s->name, s->kills,
           (unsigned long long)explore.states, (unsigned long long)explore.executions,
           (unsigned long long)explore.steps, violation == NULL ? "all good" : violation);
    *states += explore.states;
    if (violation != NULL)
        explore_tell_story();
    fflush(stdout);
    return violation != NULL;
}

static int faults_are_missed(void) {
    int missed = 0;
    for (size_t i = 0; i < FAULTS; i++) {
        world.fault = faults[i].fault;
        const char *violation = explore_all(find(faults[i].scenario));
        int noticed = violation != NULL && strstr(violation, faults[i].as) != NULL;
        printf("seeded fault %u, %s: %s\n", (unsigned)world.fault, faults[i].text,
               violation == NULL ? "NOT NOTICED" : violation);
        missed += !noticed;
    }
    world.fault = WORLD_SOUND;
    return missed;
}

int main(int count, char **args) {
    uint64_t states = 0;
    alarm(DEADLINE_S);
    explore_open();
    world.fault = count > 2 ? (enum world_fault)atoi(args[2]) : WORLD_SOUND;
    if (count > 1)
        return run(find(args[1]), &states);
    for (size_t i = 0; i < SCENARIOS; i++)
        if (run(&scenarios[i], &states))
            return 1;
    if (faults_are_missed())
        return 1;
    for (size_t i = 0; getenv("INTERLEAVE_LONG") != NULL && i < sizeof longer / sizeof *longer; i++)
        if (run(&longer[i], &states))
            return 1;
    printf("interleave_test: %llu states, all good; %zu seeded faults, each noticed\n",
           (unsigned long long)states, FAULTS);
    return 0;
}
#endif
