/* SPDX-License-Identifier: MIT */
/*
 * lifeline_test.c - a worker ends with its coordinator, whatever its main thread is doing.
 *
 *   parent (coordinator)   holds the write end ------- lifeline -------> child (worker)
 *                          <------------------------- report ----------  one letter a step
 */
#include "fixture.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define LONG_GRACE (INT64_C(3600) * 1000000000)

struct pair {
    int lifeline[2];
    int report[2];
    pid_t child;
};

static void tell(const struct pair *p, char step) {
    CHECK_EQ(write(p->report[1], &step, 1), 1);
}

static char hear(const struct pair *p) {
    char step = 0;
    return read(p->report[0], &step, 1) == 1 ? step : 0;
}

/* Fork a child that starts its lifeline and then runs `work`. */
static struct pair start(int64_t grace_ns, void (*work)(const struct pair *, struct fab_lifeline *)) {
    static struct fab_lifeline line; /* lives as long as the process */
    struct pair p;
    CHECK_EQ(pipe(p.lifeline), 0);
    CHECK_EQ(pipe(p.report), 0);
    p.child = fork();
    CHECK(p.child >= 0);
    if (p.child == 0) {
        alarm(20); /* a lifeline that fails leaves no process behind */
        close(p.lifeline[1]);
        close(p.report[0]);
        line.fd = p.lifeline[0];
        line.bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        line.grace_ns = grace_ns;
        CHECK_EQ(fab_lifeline_start(&line), 0);
        work(&p, &line);
        _exit(1);
    }
    close(p.lifeline[0]);
    close(p.report[1]);
    return p;
}

/* The child's exit code, once it has ended. */
static int finish(struct pair *p) {
    int status;
    CHECK_EQ(waitpid(p->child, &status, 0), p->child);
    CHECK_EQ(hear(p), 0);
    close(p->report[0]);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* The bell is silent until the coordinator goes; then it rings, and the flag says why. */
static void wait_for_the_end(const struct pair *p, struct fab_lifeline *line) {
    struct pollfd bell = {.fd = line->bell, .events = POLLIN};
    CHECK_EQ(poll(&bell, 1, 0), 0);
    CHECK_EQ(fab_lifeline_ended(line), 0);
    tell(p, 'r');
    CHECK_EQ(poll(&bell, 1, -1), 1);
    CHECK_EQ(fab_lifeline_ended(line), 1);
    tell(p, 'e');
}

static void wait_for_the_end_then_hang(const struct pair *p, struct fab_lifeline *line) {
    wait_for_the_end(p, line);
    for (;;)
        pause();
}

static void wait_for_the_end_then_leave(const struct pair *p, struct fab_lifeline *line) {
    wait_for_the_end(p, line);
    _exit(7); /* on_stop is done */
}

static void spin_for_ever(const struct pair *p, struct fab_lifeline *line) {
    (void)line;
    tell(p, 'r');
    for (;;)
        fab_cpu_relax();
}

static void signals_are_for_the_main_thread(const struct pair *p, struct fab_lifeline *line) {
    sigset_t mask;
    (void)line;
    int got = 0;
    CHECK_EQ(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0);
    CHECK_EQ(sigismember(&mask, SIGUSR1), 0); /* as it was before the lifeline was started */
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, &mask, NULL), 0);
    for (int i = 0; i < 2000; i++) {          /* for as long as the thread may take to start */
        CHECK_EQ(kill(getpid(), SIGUSR1), 0); /* a thread that does not block it takes it, and all die */
        CHECK_EQ(sigwait(&mask, &got), 0);
        CHECK_EQ(got, SIGUSR1);
        sched_yield();
    }
    tell(p, 'r');
    for (;;)
        pause();
}

static void a_worker_that_hangs_is_ended_when_the_grace_is_over(void) {
    const int64_t grace = 30000000;
    struct pair p = start(grace, wait_for_the_end_then_hang);
    CHECK_EQ(hear(&p), 'r');
    int64_t from = fab_now();
    CHECK_EQ(close(p.lifeline[1]), 0);
    CHECK_EQ(hear(&p), 'e');
    CHECK_EQ(finish(&p), 0);
    CHECK(fab_now() - from >= grace); /* from above the deadline of the whole program bounds it */
}

static void a_worker_that_spins_is_ended_too(void) {
    struct pair p = start(0, spin_for_ever);
    CHECK_EQ(hear(&p), 'r');
    CHECK_EQ(close(p.lifeline[1]), 0);
    CHECK_EQ(finish(&p), 0);
}

static void a_worker_that_is_done_need_not_wait_for_the_grace(void) {
    struct pair p = start(LONG_GRACE, wait_for_the_end_then_leave);
    CHECK_EQ(hear(&p), 'r');
    CHECK_EQ(close(p.lifeline[1]), 0);
    CHECK_EQ(hear(&p), 'e');
    CHECK_EQ(finish(&p), 7);
}

static void a_worker_ends_with_a_coordinator_that_is_killed(void) {
    int status;
    CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* the orphan becomes our child */
    pid_t coordinator = fork();
    CHECK(coordinator >= 0);
    if (coordinator == 0) {
        struct pair p = start(0, spin_for_ever);
        CHECK_EQ(hear(&p), 'r');
        kill(getpid(), SIGKILL);
    }
    CHECK_EQ(waitpid(coordinator, &status, 0), coordinator);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    CHECK(wait(&status) > 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

static void the_lifeline_thread_takes_no_signals(void) {
    struct pair p = start(0, signals_are_for_the_main_thread);
    CHECK_EQ(hear(&p), 'r');
    CHECK_EQ(close(p.lifeline[1]), 0);
    CHECK_EQ(finish(&p), 0);
}

static const struct check_test tests[] = {
    TEST(a_worker_that_hangs_is_ended_when_the_grace_is_over),
    TEST(a_worker_that_spins_is_ended_too),
    TEST(a_worker_that_is_done_need_not_wait_for_the_grace),
    TEST(a_worker_ends_with_a_coordinator_that_is_killed),
    TEST(the_lifeline_thread_takes_no_signals),
};

int main(void) {
    return CHECK_RUN(tests, 20);
}
