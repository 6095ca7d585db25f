/* SPDX-License-Identifier: MIT */
/*
 * step_test.c - a process is killed after each instruction of each entry point; what it leaves must do.
 *
 *   step_cases.h     the entry points, and the states they are killed in
 *   step_verdict.h   what must hold after a death
 *   step.h           how a process is killed after each of its instructions
 *   step_acts.h      what a victim does, and faults for it
 *   step_world.h     the fabric: one segment, three processes
 *
 * In the end the faults are seeded, and each must be noticed for what it is. -DSTEP_SEEDED_FAULT=1 to 6 (enum
 * step_fault) seeds one for the whole test, which must fail.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#include <stdio.h>

int main(void) {
    puts("step_test: skipped under sanitizers: single-stepping the instrumentation says nothing");
    return 0;
}
#else
#include "step.h"
#include "step_cases.h"
#include "step_verdict.h"

#include <sys/prctl.h>

#ifndef STEP_SEEDED_FAULT
#define STEP_SEEDED_FAULT STEP_SOUND
#endif
#define DEADLINE_S 120

/* What a publisher is to publish. */
static void prepare_batch(struct step_run *r) {
    const struct step_case *c = r->c;
    struct fab_batch *b = &r->batch;
    for (uint32_t i = 0; i < c->count; i++) {
        uint32_t n = step_number(r->w, c->victim, c->lane, c->sizes[i]);
        struct fab_record header = step_record(r->w, c->victim, c->lane, n);
        r->targets[i] = header.target;
        r->senders[i] = header.sender;
        r->correlations[i] = header.correlation;
        r->sizes[i] = header.size;
        r->encodings[i] = header.encoding;
        fixture_fill(r->bytes + b->bytes_count, header.correlation, header.size);
        memcpy(r->string + r->string_bytes, &header, sizeof header);
        memcpy(r->string + r->string_bytes + sizeof header, r->bytes + b->bytes_count, header.size);
        r->string_bytes += sizeof header + header.size;
        b->bytes_count += header.size;
        b->header = header;
    }
    b->targets = r->targets;
    b->senders = r->senders;
    b->correlations = r->correlations;
    b->sizes = r->sizes;
    b->encodings = r->encodings;
    b->bytes = r->bytes;
    b->count = c->count;
}

/* What lies in lanes and outboxes. */
static void prepare_fill(struct step_world *w, const struct step_fill *f) {
    for (uint32_t i = 0; i < f->count; i++) {
        uint32_t n = f->lane == STEP_NOBODY ? 0 : step_number(w, f->from, f->lane, f->size);
        CHECK_EQ(f->outbox ? step_put(w, f->from, f->lane, n) : step_send(w, f->from, f->lane, n), 1);
        if (f->lane == STEP_NOBODY)
            w->now.nowhere++;
        else
            w->now.streams[f->from][f->lane].sent++;
    }
}

/* Bring about the state that a case begins with. */
static void prepare(struct step_run *r) {
    struct step_world *w = r->w;
    const struct step_case *c = r->c;
    w->entry = c->entry;
    w->state = c->state;
    w->victim = c->victim;
    step_world_reset(w, c->at);
    for (size_t i = 0; i < sizeof c->fills / sizeof *c->fills; i++)
        prepare_fill(w, &c->fills[i]);
    prepare_batch(r);
    if (c->starved != 0) {
        struct fab_record big = {.size = 2000, .kind = STEP_KIND};
        CHECK_EQ(fab_peer_send(&w->now.peers[c->starved], 3 - c->starved, &big, w->whole), 0);
    }
    if (c->room_came)
        step_take(w, STEP_SURVIVOR);
    step_write_table(w->memory, 1);
    if (c->act == step_init)
        atomic_store(&w->now.peers[c->victim].words->present, 0);
    w->now.asleep[c->sleeper] = c->sleeps_for;
    if (c->sleeps_for != 0)
        CHECK_EQ(fab_peer_arm(&w->now.peers[c->sleeper], c->sleeps_for), 0);
    memcpy(r->prepared, w->memory, w->header.segment_bytes);
    memcpy(&r->begin, &w->now, sizeof r->begin);
}

static void perform(struct step_run *r) {
    atomic_store(&r->control->began, 1);
    r->control->rc = r->c->act(r);
    atomic_store(&r->control->ended, 1);
}

static void be_victim(void *arg) {
    struct step_run *r = arg;
    step_world_enter(r->w, r->c->victim);
    kill(getpid(), SIGSTOP);
    perform(r);
}

/* Put back the segment as it was, the bells, and the survivors. */
static void restore(struct step_run *r, const uint8_t *memory, const int *rung) {
    struct step_world *w = r->w;
    memcpy(w->memory, memory, w->header.segment_bytes);
    memcpy(&w->now, &r->begin, sizeof w->now);
    for (uint32_t p = 0; p < STEP_PROCESSES; p++) {
        fab_doorbell_clear(w->bells[p]);
        if (rung[p])
            fab_doorbell_ring(w->bells[p]);
    }
}

static void start_over(struct step_run *r) {
    const int silence[STEP_PROCESSES] = {0};
    memset(r->control, 0, sizeof *r->control);
    memset(&r->spare, 0, sizeof r->spare);
    restore(r, r->prepared, silence);
}

/* The long way to the same death: from the beginning, step by step. It must leave the same. */
static void check_long_way(struct step_run *r) {
    struct step_control kept = *r->control;
    int status;
    start_over(r);
    pid_t pid = step_start(be_victim, r);
    for (uint32_t i = 0; i < r->w->steps; i++)
        CHECK(step_once(pid, &status));
    step_kill(pid);
    CHECK_EQ(memcmp(r->w->memory, r->left, r->w->header.segment_bytes), 0);
    CHECK_EQ(memcmp(r->control, &kept, sizeof kept), 0);
}

/* Kill the victim here, look, and put all back for the twin that goes on. Returns the twin. */
static pid_t kill_here(struct step_run *r, pid_t victim, struct step_tally *t) {
    struct step_world *w = r->w;
    int rung[STEP_PROCESSES];
    pid_t twin = step_kill_and_keep_twin(victim);
    memcpy(r->left, w->memory, w->header.segment_bytes);
    for (uint32_t p = 0; p < STEP_PROCESSES; p++)
        if ((rung[p] = fab_doorbell_clear(w->bells[p])) != 0)
            fab_doorbell_ring(w->bells[p]);
    step_examine(r, t);
    if (r->c->long_way && r->fault == STEP_SOUND)
        check_long_way(r);
    restore(r, r->left, rung);
    return twin;
}

/* Kill the victim of one case after each instruction. */
static struct step_tally kill_everywhere(struct step_run *r) {
    struct step_tally t = {0};
    int status;
    prepare(r);
    perform(r); /* once in peace: then the dynamic linker has done its part */
    CHECK(r->fault != STEP_SOUND || r->control->rc == r->c->rc);
    start_over(r);
    pid_t victim = step_start(be_victim, r);
    for (r->w->steps = 1;; r->w->steps++) {
        step_demand(r->w, step_once(victim, &status), STEP_STUCK, "it ended by itself");
        if (!atomic_load(&r->control->began))
            continue;
        victim = kill_here(r, victim, &t);
        if (atomic_load(&r->control->ended))
            break;
        step_resume(victim);
    }
    step_kill(victim);
    return t;
}

static struct step_tally run_case(const struct step_run *tools, const struct step_case *c,
                                  enum step_fault fault) {
    static struct step_run run;
    memcpy(&run, tools, sizeof run);
    memset(run.control, 0, sizeof *run.control);
    run.c = c;
    run.fault = fault;
    return kill_everywhere(&run);
}

/* Seed each fault in a tester of its own, which must end for the right reason. */
static void faults_are_noticed(const struct step_run *tools) {
    static const struct {
        int32_t (*act)(struct step_run *);
        enum step_violation as;
        const char *text;
    } wanted[STEP_FAULTS] = {
        [STEP_PIECES] = {step_send_batch, STEP_TORN, "a batch published record by record: torn"},
        [STEP_EARLY_HEAD] = {step_receive, STEP_LOST, "handed back before it is handled: lost"},
        [STEP_EARLY_TAIL] = {step_send_one, STEP_TORN, "published before it is written: torn"},
        [STEP_SILENT] = {step_send_one, STEP_STUCK, "published without a bell: stuck"},
        [STEP_LATE_INTENT] = {step_outbox_pass, STEP_TWICE, "a slice that is out, said late: handled twice"},
        [STEP_LATE_OUTBOX] = {step_outbox_flush, STEP_TWICE, "outbox handed back late: published twice"},
    };
    CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    for (enum step_fault fault = STEP_SOUND + 1; fault < STEP_FAULTS; fault++) {
        fflush(stdout);
        pid_t tester = fork();
        CHECK(tester >= 0);
        if (tester == 0) {
            CHECK(freopen("/dev/null", "w", stderr) != NULL);
            alarm(DEADLINE_S);
            for (size_t i = 0; i < STEP_CASES; i++)
                if (step_cases[i].act == wanted[fault].act)
                    run_case(tools, &step_cases[i], fault);
            _exit(0);
        }
        int status = step_wait(tester);
        while (wait(NULL) > 0) /* the victim that it left to us */
            continue;
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == (int)wanted[fault].as);
        printf("seeded fault %d is noticed: %s\n", (int)fault, wanted[fault].text);
    }
}

static void print_tally(const struct step_case *c, const struct step_tally *t) {
    printf("%-24s %-34s %4u kill points: %4u none, %4u part, %4u all", c->entry, c->state, t->points,
           t->outcomes[STEP_NONE], t->outcomes[STEP_PART], t->outcomes[STEP_ALL]);
    if (t->bell_due)
        printf("; %u left to the death bell", t->bell_due);
    if (t->again)
        printf("; %u with something in hand, found again", t->again);
    puts("");
    fflush(stdout);
}

static void stop_at_once(void *arg) {
    (void)arg;
    kill(getpid(), SIGSTOP);
}

int main(void) {
    static struct step_world world;
    static struct step_run tools = {.w = &world};
    uint32_t points = 0;
    alarm(DEADLINE_S);
    step_pin();
    pid_t probe = step_start(stop_at_once, NULL);
    if (probe < 0) {
        puts("step_test: skipped: ptrace is not permitted here");
        return 0;
    }
    step_kill(probe);
    step_world_open(&world);
    tools.prepared = fixture_map(world.header.segment_bytes);
    tools.left = fixture_map(world.header.segment_bytes);
    tools.control =
        mmap(NULL, sizeof *tools.control, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(tools.control != MAP_FAILED);
    for (size_t i = 0; i < STEP_CASES; i++) {
        struct step_tally t = run_case(&tools, &step_cases[i], STEP_SEEDED_FAULT);
        print_tally(&step_cases[i], &t);
        points += t.points;
    }
    faults_are_noticed(&tools);
    printf("step_test: %u kill points, 0 torn, 0 lost, 0 stuck\n", points);
    return 0;
}
#endif
