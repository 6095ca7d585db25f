/* SPDX-License-Identifier: MIT */
/*
 * weak_test.c - the memory that interleave_test stands on, against the litmus tests that C11 is known by.
 *
 *   SB  store x, load y   | store y, load x          both loads old: only seq_cst forbids it
 *   MP  write, store flag | load flag, read          flag new and content old: release and acquire forbid it
 *   IR  store x | store y | load x, y | load y, x    readers disagree which was first: only seq_cst forbids it
 *   CO  store x 1, 2      | load x, x                backwards: always forbidden
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#include <stdio.h>

int main(void) {
    puts("weak_test: skipped under sanitizers: they do not know of stacks made by hand");
    return 0;
}
#else
#include "weak.h"

static struct {
    _Atomic(uint64_t) x, y;
    uint64_t content;
    memory_order store, load;
    uint64_t got[4];
    uint64_t wanted[4];
    uint32_t seen; /* executions that ended with `wanted` */
} litmus;

static uint64_t weak_outside_hash(uint64_t hash) {
    for (int i = 0; i < 4; i++)
        hash = explore_mix(hash, litmus.got[i]);
    return hash;
}

static void store_x(void *arg) {
    (void)arg;
    atomic_store_explicit(&litmus.x, 1, litmus.store);
}

static void store_y(void *arg) {
    (void)arg;
    atomic_store_explicit(&litmus.y, 1, litmus.store);
}

static void store_x_load_y(void *arg) {
    store_x(arg);
    litmus.got[0] = atomic_load_explicit(&litmus.y, litmus.load);
}

static void store_y_load_x(void *arg) {
    store_y(arg);
    litmus.got[1] = atomic_load_explicit(&litmus.x, litmus.load);
}

static void write_store_x(void *arg) {
    uint64_t value = 7;
    memcpy(&litmus.content, &value, sizeof value);
    store_x(arg);
}

static void load_x_read(void *arg) {
    (void)arg;
    litmus.got[0] = atomic_load_explicit(&litmus.x, litmus.load);
    if (litmus.got[0] == 1)
        memcpy(&litmus.got[1], &litmus.content, sizeof litmus.content);
}

static void load_x_load_y(void *arg) {
    (void)arg;
    litmus.got[0] = atomic_load_explicit(&litmus.x, litmus.load);
    litmus.got[1] = atomic_load_explicit(&litmus.y, litmus.load);
}

static void load_y_load_x(void *arg) {
    (void)arg;
    litmus.got[2] = atomic_load_explicit(&litmus.y, litmus.load);
    litmus.got[3] = atomic_load_explicit(&litmus.x, litmus.load);
}

static void store_x_twice(void *arg) {
    store_x(arg);
    atomic_store_explicit(&litmus.x, 2, litmus.store);
}

static void load_x_twice(void *arg) {
    (void)arg;
    litmus.got[0] = atomic_load_explicit(&litmus.x, litmus.load);
    litmus.got[1] = atomic_load_explicit(&litmus.x, litmus.load);
}

static void begin(void) {
    weak_reset();
    memset(litmus.got, 0, sizeof litmus.got);
    weak_word(&litmus.x, "x", 0, 0);
    weak_word(&litmus.y, "y", 0, 0);
    weak_bytes((const uint8_t *)&litmus.content, sizeof litmus.content, "the content");
}

static void buffering(void) {
    begin();
    explore_start("1", store_x_load_y, NULL, 0);
    explore_start("2", store_y_load_x, NULL, 0);
}

static void passing(void) {
    begin();
    explore_start("writer", write_store_x, NULL, 0);
    explore_start("reader", load_x_read, NULL, 0);
}

static void disagreeing(void) {
    begin();
    explore_start("x", store_x, NULL, 0);
    explore_start("y", store_y, NULL, 0);
    explore_start("xy", load_x_load_y, NULL, 0);
    explore_start("yx", load_y_load_x, NULL, 0);
}

static void coherent(void) {
    begin();
    explore_start("writer", store_x_twice, NULL, 0);
    explore_start("reader", load_x_twice, NULL, 0);
}

static void end(void) {
    litmus.seen += memcmp(litmus.got, litmus.wanted, sizeof litmus.got) == 0;
}

/* Can it end with these four values? */
static int may_end(void (*setup)(void), memory_order store, memory_order load, const uint64_t wanted[4]) {
    const struct explore_scenario s = {"litmus", setup, end, 0};
    litmus.store = store;
    litmus.load = load;
    litmus.seen = 0;
    memcpy(litmus.wanted, wanted, sizeof litmus.wanted);
    CHECK(explore_all(&s) == NULL);
    CHECK(explore.executions > 1);
    return litmus.seen != 0;
}
#define MAY_END(setup, store, load, ...)                                                                     \
    may_end(setup, memory_order_##store, memory_order_##load, (const uint64_t[4]){__VA_ARGS__})

static void a_load_passes_a_store_unless_all_is_seq_cst(void) {
    CHECK(MAY_END(buffering, relaxed, relaxed, 0, 0));
    CHECK(MAY_END(buffering, release, acquire, 0, 0));
    CHECK(MAY_END(buffering, seq_cst, acquire, 0, 0));
    CHECK(MAY_END(buffering, release, seq_cst, 0, 0));
    CHECK(!MAY_END(buffering, seq_cst, seq_cst, 0, 0));
    CHECK(MAY_END(buffering, seq_cst, seq_cst, 1, 1));
}

static void what_was_written_before_a_release_is_there_after_the_acquire(void) {
    CHECK(MAY_END(passing, relaxed, acquire, 1, 0));
    CHECK(MAY_END(passing, release, relaxed, 1, 0));
    CHECK(MAY_END(passing, release, acquire, 1, 7));
    CHECK(!MAY_END(passing, release, acquire, 1, 0));
    CHECK(MAY_END(passing, release, acquire, 0, 0));
}

static void two_readers_agree_on_what_came_first_only_with_seq_cst(void) {
    CHECK(MAY_END(disagreeing, release, acquire, 1, 0, 1, 0));
    CHECK(!MAY_END(disagreeing, seq_cst, seq_cst, 1, 0, 1, 0));
}

static void a_word_does_not_go_back(void) {
    CHECK(MAY_END(coherent, relaxed, relaxed, 1, 2));
    CHECK(MAY_END(coherent, relaxed, relaxed, 0, 0));
    CHECK(!MAY_END(coherent, relaxed, relaxed, 2, 1));
    CHECK(!MAY_END(coherent, relaxed, relaxed, 1, 0));
}

static const struct check_test tests[] = {
    TEST(a_load_passes_a_store_unless_all_is_seq_cst),
    TEST(what_was_written_before_a_release_is_there_after_the_acquire),
    TEST(two_readers_agree_on_what_came_first_only_with_seq_cst),
    TEST(a_word_does_not_go_back),
};

int main(void) {
    explore_open();
    return CHECK_RUN(tests, 20);
}
#endif
