/* SPDX-License-Identifier: MIT */
/*
 * syscall_tracer.c - kill one process of a fabric at its K-th system call, or have that call fail.
 *
 *   pytest                    tracer (this)               nursery (tests/syscall_victim.py)
 *   "worker2 kill 17" ------> "SCENARIO" ---------------> fork: a coordinator, which waits
 *                             PTRACE_SEIZE <------ pid ---
 *                             "go" ---------------------------------------> coordinator
 *                             follows all that it forks                      server1
 *                             counts the calls of one of them                worker1, worker2, ...
 *   <-- one line of JSON ---  all are gone, or the time is up
 *
 * Processes are named by birth: a child of the coordinator is server1, server2, ..., a child of a server is
 * worker1, worker2, ... The call is told by its entry: it has not been done when the process is killed.
 * Only the chosen process stops at its calls, and the coordinator, which says by them where it is (MARK).
 */
#include "syscall_stop.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

enum { TASKS_MAX = 512, NAME_MAX_ = 24, MARK = 0x5ab00000, MARKS = 16 };

struct task {
    pid_t tid;
    pid_t tgid; /* 0: stopped at birth, and its parent has not told of it yet */
    char name[NAME_MAX_];
    int fails; /* the call that it is in gets the error when it ends */
    long call; /* that call */
    unsigned long argument;
};

static struct task tasks[TASKS_MAX];

/* One run: what is to be done, and what came of it. */
static struct run {
    char target[NAME_MAX_];
    struct action action;
    long when;
    int sticky; /* that call and all that follow */
    pid_t root;
    int servers, workers, phase, status, root_ended, hung;
    long calls;
    const char *hit;
    int hit_phase;
    double began, root_end;
    char left[4096];
} run;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static struct task *find(pid_t tid) {
    for (int i = 0; i < TASKS_MAX; i++)
        if (tasks[i].tid == tid)
            return &tasks[i];
    return NULL;
}

static struct task *add(pid_t tid) {
    struct task *task = find(0);
    if (task == NULL)
        die("more tasks than the table holds");
    *task = (struct task){.tid = tid};
    return task;
}

static int any(void) {
    for (int i = 0; i < TASKS_MAX; i++)
        if (tasks[i].tid != 0)
            return 1;
    return 0;
}

/* A task may be dead already when it is spoken to: its end is told next, so nothing here looks at errors. */
static void resume(const struct task *task, int signal) {
    int watched = task->tgid == run.root || strcmp(task->name, run.target) == 0;
    ptrace(watched ? PTRACE_SYSCALL : PTRACE_CONT, task->tid, NULL, (void *)(long)signal);
}

/* Name a process or thread that `parent` has made. */
static void born(const struct task *parent, pid_t tid, int thread) {
    struct task *task = find(tid);
    int waiting = task != NULL; /* its first stop came before its parent's word */
    if (!waiting)
        task = add(tid);
    task->tgid = thread ? parent->tgid : tid;
    if (thread)
        memcpy(task->name, parent->name, NAME_MAX_);
    else if (parent->tgid == run.root)
        snprintf(task->name, NAME_MAX_, "server%d", ++run.servers);
    else
        snprintf(task->name, NAME_MAX_, "worker%d", ++run.workers);
    if (waiting)
        resume(task, 0);
}

static void at_entry(struct task *task, const struct __ptrace_syscall_info *info) {
    long number = (long)info->entry.nr;
    if (task->tgid == run.root && number == SYS_getpgid && info->entry.args[0] - MARK < MARKS)
        run.phase = (int)(info->entry.args[0] - MARK);
    if (strcmp(task->name, run.target) != 0 || run.phase == 0 || !action_fits(&run.action, task->tid, info))
        return;
    run.calls++;
    if (run.calls != run.when && !(run.sticky && run.when > 0 && run.calls > run.when))
        return;
    if (run.hit == NULL) {
        run.hit = call_name(number);
        run.hit_phase = run.phase;
    }
    if (run.action.error == 0) {
        kill(task->tgid, SIGKILL);
    } else {
        call_skip(task->tid, number);
        task->fails = 1;
        task->call = number;
        task->argument = (unsigned long)info->entry.args[0];
    }
}

static void at_call(struct task *task) {
    struct __ptrace_syscall_info info;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, task->tid, sizeof info, &info) > 0) {
        if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
            at_entry(task, &info);
        } else if (info.op == PTRACE_SYSCALL_INFO_EXIT && task->fails) {
            call_fail(task->tid, task->call, task->argument, run.action.error);
            task->fails = 0;
        }
    }
    resume(task, 0);
}

static void at_stop(struct task *task, int status) {
    int event = status >> 16;
    unsigned long child = 0;
    if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE) {
        if (ptrace(PTRACE_GETEVENTMSG, task->tid, NULL, &child) == 0)
            born(task, (pid_t)child, event == PTRACE_EVENT_CLONE);
        resume(task, 0);
    } else if (event == PTRACE_EVENT_STOP) {
        if (WSTOPSIG(status) == SIGTRAP)
            resume(task, 0);
        else
            ptrace(PTRACE_LISTEN, task->tid, NULL, NULL); /* stopped by a signal, and to stay so */
    } else if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
        at_call(task);
    } else {
        resume(task, WSTOPSIG(status));
    }
}

static void heard(pid_t tid, int status) {
    struct task *task = find(tid);
    if (WIFSTOPPED(status)) {
        if (task == NULL)
            add(tid);
        else if (task->tgid != 0)
            at_stop(task, status);
        return;
    }
    if (tid == run.root && task != NULL) {
        run.status = status;
        run.root_ended = 1;
        run.root_end = now();
    }
    if (task != NULL)
        task->tid = 0;
}

/* Say which processes are still there, then kill them. */
static void give_up(void) {
    size_t used = strlen(run.left);
    for (int i = 0; i < TASKS_MAX; i++) {
        struct task *task = &tasks[i];
        char path[64], where[64] = "";
        if (task->tid == 0)
            continue;
        snprintf(path, sizeof path, "/proc/%d/syscall", task->tid);
        FILE *file = fopen(path, "r");
        if (file != NULL && fscanf(file, "%63s", where) != 1)
            where[0] = 0;
        if (file != NULL)
            fclose(file);
        used += (size_t)snprintf(run.left + used, sizeof run.left - used, "%s%s %d in call %s",
                                 used ? ", " : "", task->name, task->tid, where);
        kill(task->tgid ? task->tgid : task->tid, SIGKILL);
        if (used > sizeof run.left - 100)
            break;
    }
}

/* Follow all tasks until none is left. They have `limit` seconds, and `grace` more than their coordinator. */
static void follow(double limit, double grace) {
    int given_up = 0;
    while (any()) {
        int status;
        pid_t tid = waitpid(-1, &status, __WALL);
        if (tid > 0)
            heard(tid, status);
        else if (errno == ECHILD)
            break;
        int late = run.root_ended ? now() > run.root_end + grace : now() > run.began + limit;
        if (late && !given_up) {
            given_up = 1;
            run.hung = !run.root_ended;
            give_up();
        }
        if (given_up && now() > run.began + limit + grace + 10)
            die("processes that cannot be killed");
    }
}

static void tick(int signal) {
    (void)signal; /* waitpid returns, so that the time is looked at */
}

static FILE *to_nursery, *from_nursery;

/* Start the nursery: it has all imports done, so that a coordinator is a fork away. */
static void start_nursery(char **argv) {
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0)
        die("pipe2");
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(in[0], 0);
        dup2(out[1], 1);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    to_nursery = fdopen(in[1], "w");
    from_nursery = fdopen(out[0], "r");
}

/* Have the nursery fork a coordinator, and take it in hand before it does anything. */
static void start_coordinator(const char *scenario) {
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE;
    fprintf(to_nursery, "%s\n", scenario);
    fflush(to_nursery);
    if (fscanf(from_nursery, "%d", &run.root) != 1)
        die("the nursery ended");
    if (ptrace(PTRACE_SEIZE, run.root, NULL, (void *)(options | PTRACE_O_EXITKILL)) != 0)
        die("PTRACE_SEIZE");
    struct task *root = add(run.root);
    root->tgid = run.root;
    snprintf(root->name, NAME_MAX_, "coordinator");
    ptrace(PTRACE_INTERRUPT, run.root, NULL, NULL); /* from its next stop on it stops at calls too */
    fputs("go\n", to_nursery);
    fflush(to_nursery);
}

static void report(void) {
    printf("{\"calls\": %ld, \"hit\": \"%s\", \"phase\": %d, \"signal\": %d, \"exit\": %d, \"hung\": %s, "
           "\"seconds\": %.3f, \"left\": \"%s\"}\n",
           run.calls, run.hit ? run.hit : "", run.hit_phase,
           WIFSIGNALED(run.status) ? WTERMSIG(run.status) : 0,
           WIFEXITED(run.status) ? WEXITSTATUS(run.status) : -1, run.hung ? "true" : "false",
           now() - run.began, run.left);
    fflush(stdout);
}

int main(int argc, char **argv) {
    char scenario[64], target[NAME_MAX_], action[16];
    double limit, grace;
    if (argc < 2)
        return 2;
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* orphans come to us, wherever we run */
    start_nursery(argv + 1);
    struct sigaction quiet = {.sa_handler = tick};
    struct itimerval every = {{0, 50000}, {0, 50000}};
    sigaction(SIGALRM, &quiet, NULL);
    while (scanf("%63s %23s %15s %ld %d %lf %lf", scenario, target, action, &run.when, &run.sticky, &limit,
                 &grace) == 7) {
        struct run next = {.when = run.when, .sticky = run.sticky, .began = now()};
        run = next;
        memcpy(run.target, target, NAME_MAX_);
        if (!action_parse(&run.action, action))
            die("unknown action");
        start_coordinator(scenario);
        setitimer(ITIMER_REAL, &every, NULL);
        follow(limit, grace);
        setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
        report();
    }
    return 0;
}
