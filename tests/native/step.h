/* SPDX-License-Identifier: MIT */
/*
 * step.h - kill a process after each of its instructions, in time that grows with their number only.
 *
 *   tester                            victim                            twin
 *   PTRACE_SINGLESTEP                 one instruction
 *   PTRACE_CONT with SIGUSR1          in the handler: clone() --------> born, stopped in the handler
 *   SIGKILL                           dead
 *   look at what it left, put it back
 *   PTRACE_SYSCALL, twice                                               out of rt_sigreturn: where the
 *                                                                       victim was. It is the next victim
 *
 * To step each victim anew from the beginning would be n * n / 2 steps for n instructions; a step costs 4 to
 * 40 us. The twin has the victim's registers and private memory, and shares what the victim shared. That it
 * goes on exactly where the victim was is checked against the long way (step_test.c).
 *
 * No register is read or written, so nothing here knows the CPU. One thing must be so on arm64: what is
 * stepped has no exclusive load and store (a read-modify-write), which a step between the two breaks off for
 * ever. Our headers have none: each shared word has one writer.
 */
#ifndef STEP_H
#define STEP_H

#include "check.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define STEP_FORBIDDEN 77 /* exit code of a child that may not be traced */

/* In the victim. What the victim itself does after clone() does not matter: it is killed there. */
static void step_twin_handler(int signal) {
    (void)signal;
    syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
}

static inline int step_wait(pid_t pid) {
    int status;
    pid_t got;
    do
        got = waitpid(pid, &status, __WALL);
    while (got < 0 && errno == EINTR);
    CHECK_EQ(got, pid);
    return status;
}

static inline int step_stopped_by(int status, int signal) {
    return WIFSTOPPED(status) && WSTOPSIG(status) == signal;
}

/* Fork a child that runs `body`, and stop it shortly before. Returns -1 when ptrace is not permitted. */
static inline pid_t step_start(void (*body)(void *), void *arg) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct sigaction twin = {.sa_handler = step_twin_handler};
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(STEP_FORBIDDEN);
        CHECK_EQ(sigaction(SIGUSR1, &twin, NULL), 0);
        body(arg);
        _exit(0);
    }
    int status = step_wait(pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == STEP_FORBIDDEN)
        return -1;
    CHECK(step_stopped_by(status, SIGSTOP)); /* by `body`, when all is ready */
    long options = PTRACE_O_EXITKILL | PTRACE_O_TRACEFORK | PTRACE_O_TRACESYSGOOD;
    CHECK_EQ(ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)options), 0);
    return pid;
}

/* One instruction. Returns 0 when it did not end well: then *status says how. */
static inline int step_once(pid_t pid, int *status) {
    CHECK_EQ(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
    *status = step_wait(pid);
    return step_stopped_by(*status, SIGTRAP);
}

static inline void step_kill(pid_t pid) {
    CHECK_EQ(kill(pid, SIGKILL), 0);
    int status = step_wait(pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* Kill the victim where it is. Returns its twin, which step_resume makes the next victim. */
static inline pid_t step_kill_and_keep_twin(pid_t victim) {
    unsigned long twin;
    CHECK_EQ(ptrace(PTRACE_CONT, victim, NULL, (void *)(long)SIGUSR1), 0);
    CHECK_EQ(step_wait(victim) >> 8, SIGTRAP | PTRACE_EVENT_FORK << 8);
    CHECK_EQ(ptrace(PTRACE_GETEVENTMSG, victim, NULL, &twin), 0);
    CHECK(step_stopped_by(step_wait((pid_t)twin), SIGSTOP)); /* how the kernel hands over a new tracee */
    step_kill(victim);
    return (pid_t)twin;
}

/* Bring a twin out of its signal handler, and no instruction further. */
static inline void step_resume(pid_t twin) {
    for (int boundary = 0; boundary < 2; boundary++) { /* into rt_sigreturn, and out of it */
        CHECK_EQ(ptrace(PTRACE_SYSCALL, twin, NULL, NULL), 0);
        CHECK(step_stopped_by(step_wait(twin), SIGTRAP | 0x80));
    }
}

/* The whole affair in one place. The tracer wakes twice a step: on one CPU that costs half. */
static inline void step_pin(void) {
    cpu_set_t one;
    int cpu = sched_getcpu();
    CPU_ZERO(&one);
    if (cpu >= 0)
        CPU_SET((size_t)cpu, &one);
    if (cpu >= 0 && sched_setaffinity(0, sizeof one, &one) != 0)
        fputs("step_test: not pinned, so slower\n", stderr);
}

#endif
