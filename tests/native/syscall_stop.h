/* SPDX-License-Identifier: MIT */
/*
 * syscall_stop.h - at a system call's entry: which it is, what may be done to it, and how to have it fail.
 *
 * A call is skipped by changing its number to -1 at its entry, and given its error at its exit. Save brk, which
 * never returns an error: where it fails, and where it is asked for 0, it returns the break as it is. To return -ENOMEM
 * there would tell the C library that the heap had grown to the end of the address space. Only here does anything
 * know the CPU.
 */
#ifndef SYSCALL_STOP_H
#define SYSCALL_STOP_H

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <unistd.h>

/* What a run does at the call: kill the process (error 0), or have the call fail. */
struct action {
    int error;
    unsigned bit;
};

enum { CAN_NOSPC = 1, CAN_MFILE = 2, CAN_NOMEM = 4, CAN_INTR = 8 };

/* Which errors a call may end with, as its manual page says. Others would test what no kernel does. */
static const struct call {
    long number;
    const char *name;
    unsigned errors;
} calls[] = {
#define CALL(name, errors) {SYS_##name, #name, errors}
    CALL(read, CAN_INTR),
    CALL(write, CAN_INTR),
    CALL(pread64, 0),
    CALL(pwrite64, CAN_NOSPC),
    CALL(openat, CAN_NOSPC | CAN_MFILE | CAN_NOMEM),
    CALL(close, 0),
    CALL(fstat, CAN_NOMEM),
    CALL(newfstatat, CAN_NOMEM),
    CALL(getdents64, 0),
    CALL(readlinkat, CAN_NOMEM),
    CALL(ioctl, 0),
    CALL(lseek, 0),
    CALL(fcntl, CAN_MFILE),
    CALL(dup, CAN_MFILE),
    CALL(dup3, CAN_MFILE),
    CALL(pipe2, CAN_MFILE),
    CALL(ftruncate, CAN_NOSPC | CAN_INTR),
    CALL(fallocate, CAN_NOSPC | CAN_INTR),
    CALL(memfd_create, CAN_MFILE | CAN_NOMEM),
    CALL(eventfd2, CAN_MFILE | CAN_NOMEM),
    CALL(mmap, CAN_NOMEM),
    CALL(munmap, 0),
    CALL(mremap, CAN_NOMEM),
    CALL(mprotect, CAN_NOMEM),
    CALL(madvise, CAN_NOMEM),
    CALL(brk, CAN_NOMEM),
    CALL(clone, CAN_NOMEM),
    CALL(clone3, CAN_NOMEM),
    CALL(execve, CAN_NOMEM | CAN_MFILE),
    CALL(wait4, CAN_INTR),
    CALL(waitid, CAN_INTR),
    CALL(pidfd_open, CAN_MFILE | CAN_NOMEM),
    CALL(pidfd_send_signal, 0),
    CALL(socket, CAN_MFILE | CAN_NOMEM),
    CALL(socketpair, CAN_MFILE | CAN_NOMEM),
    CALL(sendto, CAN_NOMEM | CAN_INTR),
    CALL(sendmsg, CAN_NOMEM | CAN_INTR),
    CALL(recvfrom, CAN_NOMEM | CAN_INTR),
    CALL(recvmsg, CAN_NOMEM | CAN_INTR),
    CALL(ppoll, CAN_NOMEM | CAN_INTR),
    CALL(pselect6, CAN_NOMEM | CAN_INTR),
    CALL(clock_nanosleep, CAN_INTR),
    CALL(nanosleep, CAN_INTR),
    CALL(futex, CAN_INTR),
    CALL(rt_sigaction, 0),
    CALL(rt_sigprocmask, 0),
    CALL(sched_yield, 0),
    CALL(sched_getaffinity, 0),
    CALL(sched_setaffinity, 0),
    CALL(getpid, 0),
    CALL(getppid, 0),
    CALL(getpgid, 0),
    CALL(gettid, 0),
    CALL(getrandom, CAN_INTR),
    CALL(set_robust_list, 0),
    CALL(prctl, 0),
    CALL(prlimit64, 0),
    CALL(rseq, 0),
    CALL(kill, 0),
    CALL(exit, 0),
    CALL(exit_group, 0),
#ifdef SYS_poll /* what arm64 has not */
    CALL(poll, CAN_NOMEM | CAN_INTR),
    CALL(select, CAN_NOMEM | CAN_INTR),
    CALL(fork, CAN_NOMEM),
    CALL(vfork, CAN_NOMEM),
    CALL(pipe, CAN_MFILE),
    CALL(readlink, CAN_NOMEM),
    CALL(dup2, CAN_MFILE),
    CALL(arch_prctl, 0),
#endif
#undef CALL
};

static const struct call *call_find(long number) {
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (calls[i].number == number)
            return &calls[i];
    return NULL;
}

static const char *call_name(long number) {
    static char text[32];
    const struct call *call = call_find(number);
    if (call != NULL)
        return call->name;
    snprintf(text, sizeof text, "call %ld", number);
    return text;
}

/* Read an action's name. Returns 0 when there is none of this name. */
static int action_parse(struct action *action, const char *name) {
    static const struct {
        const char *name;
        struct action action;
    } known[] = {
        {"kill", {0, 0}},
        {"ENOSPC", {ENOSPC, CAN_NOSPC}},
        {"EMFILE", {EMFILE, CAN_MFILE}},
        {"ENOMEM", {ENOMEM, CAN_NOMEM}},
        {"EINTR", {EINTR, CAN_INTR}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, name) == 0) {
            *action = known[i].action;
            return 1;
        }
    return 0;
}

/* Only who may wait is interrupted: not who reads a file, nor who rings a bell. */
static int may_wait(pid_t tid, unsigned long descriptor) {
    char path[64], target[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%lu", tid, descriptor);
    ssize_t length = readlink(path, target, sizeof target - 1);
    target[length > 0 ? length : 0] = 0;
    return strncmp(target, "pipe:", 5) == 0 || strncmp(target, "socket:", 7) == 0;
}

/* May this be done to the call that a task is about to make? A process may be killed at any. */
static int action_fits(const struct action *action, pid_t tid, const struct __ptrace_syscall_info *info) {
    long number = (long)info->entry.nr;
    const struct call *call = call_find(number);
    if (action->error == 0)
        return 1;
    if (call == NULL || (call->errors & action->bit) == 0)
        return 0;
    if (number == SYS_openat && action->error == ENOSPC) /* only who makes a file needs room for it */
        return (info->entry.args[2] & O_CREAT) != 0;
    if (number == SYS_futex) /* only who waits is interrupted */
        return (info->entry.args[1] & 0x7f) == FUTEX_WAIT ||
               (info->entry.args[1] & 0x7f) == FUTEX_WAIT_BITSET;
    return (number != SYS_read && number != SYS_write) || may_wait(tid, info->entry.args[0]);
}

#if defined(__x86_64__)
static void call_skip(pid_t tid, long number) {
    if (number == SYS_brk)
        ptrace(PTRACE_POKEUSER, tid, (void *)offsetof(struct user_regs_struct, rdi), (void *)0L);
    else
        ptrace(PTRACE_POKEUSER, tid, (void *)offsetof(struct user_regs_struct, orig_rax), (void *)-1L);
}

/* `argument` is the first one that the call had: the caller may count on finding it in its register still. */
static void call_fail(pid_t tid, long number, unsigned long argument, int error) {
    if (number == SYS_brk)
        ptrace(PTRACE_POKEUSER, tid, (void *)offsetof(struct user_regs_struct, rdi), (void *)argument);
    else
        ptrace(PTRACE_POKEUSER, tid, (void *)offsetof(struct user_regs_struct, rax), (void *)(long)-error);
}
#elif defined(__aarch64__)
static void first_register(pid_t tid, unsigned long long value) {
    struct user_regs_struct registers;
    struct iovec part = {&registers, sizeof registers};
    if (ptrace(PTRACE_GETREGSET, tid, (void *)NT_PRSTATUS, &part) != 0)
        return;
    registers.regs[0] = value;
    ptrace(PTRACE_SETREGSET, tid, (void *)NT_PRSTATUS, &part);
}

static void call_skip(pid_t tid, long number) {
    int none = -1;
    struct iovec part = {&none, sizeof none};
    if (number == SYS_brk)
        first_register(tid, 0);
    else
        ptrace(PTRACE_SETREGSET, tid, (void *)NT_ARM_SYSTEM_CALL, &part);
}

static void call_fail(pid_t tid, long number, unsigned long argument, int error) {
    (void)argument; /* its register is the result's here */
    if (number != SYS_brk)
        first_register(tid, (unsigned long long)-error);
}
#else
#error "say here how a system call is skipped on this CPU"
#endif

#endif
