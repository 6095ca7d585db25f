/* SPDX-License-Identifier: MIT */
/*
 * arena_step_test.c - an owner or a reader is killed after each instruction of what it does with loans, as far as
 * that left something else than the one before.
 *
 *   tester            victim             examiner, a child of the tester after each death
 *   step ───────────▶ one instruction    takes the dead one's place, uses all free memory, reads all that was sent:
 *   kill ───────────▶ dead               nothing that a reader holds or a record names is written over, and
 *   fork ──────────────────────────────▶ in the end all memory is back
 *
 * In the end faults are seeded, and each must be noticed for what it is. step.h says how a victim dies.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#include <stdio.h>

int main(void) {
    puts("arena_step_test: skipped under sanitizers: single-stepping the instrumentation says nothing");
    return 0;
}
#else
#include "arena_step_world.h"
#include "step.h"

#include <sys/prctl.h>

#define DEADLINE_S 120

static void lend_and_send(struct step_run *r) {
    struct fab_arena *a = &r->w.arenas[STEP_OWNER];
    if (r->fault == STEP_SENT_BEFORE_LENT) { /* the index and the place are known: they are used in order */
        struct fab_lent_entry entry = {
            .loan = UINT64_C(1) << 32 | STEP_LOANS, .offset = STEP_LOANS * FAB_PAGE, .bytes = STEP_PAYLOAD};
        arena_send(r->w.peers[STEP_OWNER], STEP_READER, &entry, 1);
        int64_t offset = fab_arena_take(a, STEP_PAYLOAD);
        fab_arena_lend(a, (uint64_t)offset, (uint64_t)offset, STEP_PAYLOAD, STEP_READER);
        step_write_payload(a, &entry);
        return;
    }
    struct fab_lent_entry entry = step_lend(a);
    arena_send(r->w.peers[STEP_OWNER], STEP_READER, &entry, 1);
}

static void unlend(struct step_run *r) {
    fab_arena_unlend(&r->w.arenas[STEP_OWNER], r->entries[UNSENT].loan);
}

static void reclaim(struct step_run *r) {
    fab_arena_reclaim(&r->w.arenas[STEP_OWNER], 0);
}

/* Take what the ended loan had, and write there. */
static void take_and_write(struct step_run *r) {
    struct fab_arena *a = &r->w.arenas[STEP_OWNER];
    int64_t at = fab_arena_take(a, FAB_PAGE);
    memset(a->data + at, 0xbb, STEP_PAYLOAD);
}

static void succeed(struct step_run *r, uint32_t process) {
    uint8_t *block = r->w.memory + fab_block_offset(&r->w.header, process);
    memset(&r->spare, 0, sizeof r->spare);
    fab_peer_init(&r->spare, &r->w.header, process, r->w.whole, block);
    for (uint32_t other = 0; other < ARENA_PROCESSES; other++)
        fab_peer_set_bell(&r->spare, other, r->w.bells[other]);
}

/* The owner's successor. A fault takes away what it ought to look at. */
static void open_again(struct step_run *r) {
    if (r->fault == STEP_NO_OUTBOX)
        r->spare.outbox_in.capacity = 0;
    if (r->fault == STEP_NO_LANES)
        r->spare.out[STEP_READER].capacity = 0;
    if (r->fault == STEP_NO_RECEIPTS)
        r->spare.blocks[STEP_READER] = r->spare.blocks[0]; /* who never held anything */
    fab_arena_open(&r->spare_arena, &r->spare);
}

/* Take up what lies in the lane. */
static void hold(struct step_run *r) {
    struct fab_peer *s = r->w.peers[STEP_READER];
    fab_peer_receive(s, 1, UINT64_MAX, &r->cols);
    if (r->fault == STEP_HELD_BEFORE_END) {
        struct fab_receipt *receipt = fab_peer_own_receipt(s, STEP_OWNER, SENT);
        atomic_store(&receipt->state, fab_receipt_state(1, FAB_HELD));
        atomic_store(&receipt->end, r->cols.end);
        return;
    }
    if (r->fault == STEP_COMMIT_BEFORE_HELD)
        fab_peer_commit(s, STEP_OWNER, r->cols.end);
    step_hold(r, &r->entries[SENT], r->cols.end);
}

static void done(struct step_run *r) {
    fab_loan_done(r->w.peers[STEP_READER], STEP_OWNER, r->entries[HELD].loan);
}

/* From the record to DONE, with what was held before. */
static void hold_commit_done(struct step_run *r) {
    struct fab_peer *s = r->w.peers[STEP_READER];
    hold(r);
    if (r->fault == STEP_DONE_BEFORE_COMMIT)
        fab_loan_done(s, STEP_OWNER, r->entries[TAKEN_UP].loan);
    fab_peer_commit(s, STEP_OWNER, r->cols.end);
    fab_loan_done(s, STEP_OWNER, r->entries[TAKEN_UP].loan);
    fab_loan_done(s, STEP_OWNER, r->entries[SENT].loan);
}

/* The reader's successor. */
static void adopt(struct step_run *r) {
    if (r->fault == STEP_DONE_WITH_ALL)
        r->spare.in[STEP_OWNER].committed = r->ends[SENT];
    fab_loan_adopt(&r->spare);
}

struct step_case {
    const char *entry;
    void (*act)(struct step_run *);
    void (*examine)(struct step_run *);
    uint32_t successor; /* of which process the victim is the successor; 0: of none */
};
static const struct step_case cases[] = {
    {"fab_arena_lend, and sent", lend_and_send, step_examine_owner, 0},
    {"fab_arena_unlend", unlend, step_examine_owner, 0},
    {"fab_arena_reclaim", reclaim, step_examine_owner, 0},
    {"fab_arena_take", take_and_write, step_examine_owner, 0},
    {"fab_arena_open", open_again, step_examine_owner, STEP_OWNER},
    {"fab_loan_hold", hold, step_examine_reader, 0},
    {"fab_loan_done", done, step_examine_reader, 0},
    {"hold, commit, done", hold_commit_done, step_examine_reader, 0},
    {"fab_loan_adopt", adopt, step_examine_reader, STEP_READER},
};
#define CASES (sizeof cases / sizeof *cases)

struct step_job {
    struct step_run run;
    const struct step_case *c;
    uint8_t *prepared; /* the segment as it was when the victim began */
    uint8_t *left;     /* as the victim left it */
    uint32_t states;   /* how many different segments victims left */
};

static void perform(struct step_job *j) {
    atomic_store(&j->run.control->began, 1);
    j->c->act(&j->run);
    atomic_store(&j->run.control->ended, 1);
}

static void be_victim(void *arg) {
    struct step_job *j = arg;
    if (j->c->successor != 0)
        succeed(&j->run, j->c->successor);
    kill(getpid(), SIGSTOP);
    perform(j);
}

static void be_rehearsed(struct step_job *j) {
    pid_t pid =
        fork(); /* once in peace: then the dynamic linker has done its part, but nothing else remains */
    CHECK(pid >= 0);
    if (pid == 0) {
        if (j->c->successor != 0)
            succeed(&j->run, j->c->successor);
        perform(j);
        _exit(0);
    }
    CHECK_EQ(step_wait(pid), 0);
    memcpy(j->run.w.memory, j->prepared, j->run.w.header.segment_bytes);
    atomic_store(&j->run.control->began, 0);
    atomic_store(&j->run.control->ended, 0);
}

/* Have a child look at what the victim left. It ends with what it found; then all is put back. */
static void examine(struct step_job *j) {
    uint64_t bytes = j->run.w.header.segment_bytes;
    memcpy(j->left, j->run.w.memory, bytes);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        j->c->examine(&j->run);
        _exit(0);
    }
    int status = step_wait(pid);
    if (status != 0)
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
    memcpy(j->run.w.memory, j->left, bytes);
}

/* Kill the victim of one case after each instruction that changed something. Returns how many there were in all. */
static uint32_t kill_everywhere(struct step_job *j) {
    struct step_run *r = &j->run;
    uint32_t points = 0;
    int status;
    step_prepare(r);
    r->entry = j->c->entry;
    uint64_t bytes = r->w.header.segment_bytes;
    j->prepared = fixture_map(bytes);
    j->left = fixture_map(bytes);
    memcpy(j->prepared, r->w.memory, bytes);
    be_rehearsed(j);
    pid_t victim = step_start(be_victim, j);
    for (r->steps = 1;; r->steps++) {
        step_demand(r, step_once(victim, &status), STEP_STUCK, "it ended by itself");
        if (!atomic_load(&r->control->began))
            continue;
        points++;
        int ended = atomic_load(&r->control->ended);
        if (!ended && points > 1 && memcmp(r->w.memory, j->left, bytes) == 0)
            continue; /* to die here is to die an instruction before: all that is left is the segment */
        victim = step_kill_and_keep_twin(victim);
        examine(j);
        j->states++;
        if (ended)
            break;
        step_resume(victim);
    }
    step_kill(victim);
    fixture_unmap(j->prepared, bytes);
    fixture_unmap(j->left, bytes);
    arena_world_close(&r->w);
    return points;
}

static uint32_t run_case(const struct step_case *c, enum step_fault fault, struct step_control *control) {
    static struct step_job job;
    memset(&job, 0, sizeof job);
    memset(control, 0, sizeof *control);
    job.c = c;
    job.run.fault = fault;
    job.run.control = control;
    uint32_t points = kill_everywhere(&job);
    printf("%-26s %5u kill points, %3u states\n", c->entry, points, job.states);
    return points;
}

/* Seed each fault in a tester of its own, which must end for the right reason. */
static void faults_are_noticed(struct step_control *control) {
    static const struct {
        enum step_fault fault;
        void (*act)(struct step_run *);
        enum step_violation as;
        const char *text;
    } seeded[] = {
        {STEP_SENT_BEFORE_LENT, lend_and_send, STEP_LOST, "sent before it is lent: lost"},
        {STEP_DONE_BEFORE_COMMIT, hold_commit_done, STEP_LOST, "done before it is committed: lost"},
        {STEP_HELD_BEFORE_END, hold, STEP_LOST, "held before it says where: lost"},
        {STEP_COMMIT_BEFORE_HELD, hold, STEP_STUCK, "committed before it is held: stuck"},
        {STEP_NO_OUTBOX, open_again, STEP_LOST, "an owner that forgets its outbox: lost"},
        {STEP_NO_LANES, open_again, STEP_LOST, "an owner that forgets its lanes: lost"},
        {STEP_NO_RECEIPTS, open_again, STEP_TORN, "an owner that asks nobody: torn"},
        {STEP_NO_ADOPTION, done, STEP_STUCK, "a reader's successor that does not look: stuck"},
        {STEP_DONE_WITH_ALL, adopt, STEP_LOST, "a reader's successor that is done with all: lost"},
    };
    CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    for (size_t i = 0; i < sizeof seeded / sizeof *seeded; i++) {
        fflush(stdout);
        pid_t tester = fork();
        CHECK(tester >= 0);
        if (tester == 0) {
            CHECK(freopen("/dev/null", "w", stderr) != NULL);
            alarm(DEADLINE_S);
            for (size_t n = 0; n < CASES; n++)
                if (cases[n].act == seeded[i].act)
                    run_case(&cases[n], seeded[i].fault, control);
            _exit(0);
        }
        int status = step_wait(tester);
        while (wait(NULL) > 0) /* the victim that it left to us */
            continue;
        printf("seeded fault: %s: ", seeded[i].text);
        CHECK_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -1, seeded[i].as);
        puts("noticed");
    }
}

static void stop_at_once(void *arg) {
    (void)arg;
    kill(getpid(), SIGSTOP);
}

int main(void) {
    uint32_t points = 0;
    alarm(DEADLINE_S);
    step_pin();
    pid_t probe = step_start(stop_at_once, NULL);
    if (probe < 0) {
        puts("arena_step_test: skipped: ptrace is not permitted here");
        return 0;
    }
    step_kill(probe);
    struct step_control *control =
        mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(control != MAP_FAILED);
    for (size_t i = 0; i < CASES; i++) {
        points += run_case(&cases[i], STEP_SOUND, control);
        fflush(stdout);
    }
    faults_are_noticed(control);
    printf("arena_step_test: %u kill points, 0 torn, 0 lost, 0 stuck\n", points);
    return 0;
}
#endif
