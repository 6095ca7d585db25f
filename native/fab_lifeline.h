/* SPDX-License-Identifier: MIT */
/*
 * fab_lifeline.h - end with the coordinator, even while Python holds the GIL.
 *
 *   coordinator   keeps the write end of a pipe, and nobody else does
 *   worker        a small C thread blocks on the read end: its end-of-file is the coordinator's death
 *
 * The thread tells the worker's loop (flag and bell), leaves it `grace_ns` to run on_stop, then ends
 * the process. It touches no Python and takes no lock.
 */
#ifndef FAB_LIFELINE_H
#define FAB_LIFELINE_H

#include "fab_doorbell.h"

#include <pthread.h>
#include <signal.h>

struct fab_lifeline {
    int fd;
    int bell;
    int64_t grace_ns;
    _Atomic(uint32_t) ended;
};

static void *fab_lifeline_watch(void *arg) {
    struct fab_lifeline *line = arg;
    struct pollfd fd = {.fd = line->fd, .events = POLLIN};
    while (poll(&fd, 1, -1) < 0 && errno == EINTR)
        continue;
    /* release: pairs with fab_lifeline_ended */
    atomic_store_explicit(&line->ended, 1, memory_order_release);
    fab_doorbell_ring(line->bell);
    struct timespec grace = {.tv_sec = line->grace_ns / 1000000000, .tv_nsec = line->grace_ns % 1000000000};
    while (nanosleep(&grace, &grace) < 0 && errno == EINTR)
        continue;
    _exit(0);
}

/* Start watching. *line must live as long as the process. Returns 0 or -errno. */
static inline int fab_lifeline_start(struct fab_lifeline *line) {
    pthread_t thread;
    sigset_t all;
    sigset_t before;
    sigfillset(&all); /* signals are for Python's main thread */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&thread, NULL, fab_lifeline_watch, line);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        pthread_detach(thread);
    return -rc;
}

/* Has the coordinator gone? Any thread of the worker. */
static inline int fab_lifeline_ended(const struct fab_lifeline *line) {
    return (int)atomic_load_explicit(&line->ended, memory_order_acquire);
}

#endif
