/* SPDX-License-Identifier: MIT */
/*
 * check.h - the smallest test harness. A test is a function whose name is a sentence; a failed check says
 * where and what, and ends the process (a forked child too, so its exit code tells the parent).
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CHECK(condition) check_true((condition) ? 1 : 0, #condition, __FILE__, __LINE__)

/* Integers of any width; a counter just under 2^64 prints as a small negative number. */
#define CHECK_EQ(found, wanted)                                                                              \
    check_equal((int64_t)(found), (int64_t)(wanted), #found " == " #wanted, __FILE__, __LINE__)

#ifdef __SANITIZE_THREAD__
/* Called by ThreadSanitizer. It would sleep for a second at each exit of a process with threads. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
    return "atexit_sleep_ms=20";
}
#endif

struct check_test {
    const char *name;
    void (*run)(void);
};
#define TEST(function) {#function, function}

static inline void check_true(int holds, const char *text, const char *file, int line) {
    if (holds)
        return;
    fflush(stdout);
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, text);
    _exit(1);
}

static inline void check_equal(int64_t found, int64_t wanted, const char *text, const char *file, int line) {
    if (found == wanted)
        return;
    fflush(stdout);
    fprintf(stderr, "%s:%d: not so: %s: found %lld, wanted %lld\n", file, line, text, (long long)found,
            (long long)wanted);
    _exit(1);
}

/* Run the tests and list them. Whoever has not finished after `deadline_s` hangs: SIGALRM ends it. */
static inline int check_run(const struct check_test *tests, size_t count, unsigned deadline_s) {
    alarm(deadline_s);
    for (size_t i = 0; i < count; i++) {
        printf("%s ", tests[i].name);
        fflush(stdout); /* before it runs: of a test that hangs the name is there; and no child prints it */
        tests[i].run();
        puts("ok");
    }
    return fflush(stdout);
}
#define CHECK_RUN(tests, deadline_s) check_run(tests, sizeof(tests) / sizeof *(tests), deadline_s)

#endif
