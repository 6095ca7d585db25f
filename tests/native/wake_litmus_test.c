/* SPDX-License-Identifier: MIT */
/*
 * wake_litmus_test.c - a model, not the code: all interleavings of the sleep/wake protocol, with the orders
 * that the headers name. The step functions below mirror fab_doorbell.h, and fab_queue_wait.h, by hand; who changes one changes
 * the other.
 *
 *   publisher, twice                         sleeper, until it has taken both
 *     W1a  tail += 1                           awake: take what the tail shows
 *     W1b  look at sleeping                    W2a  sleeping = 1
 *          ring if it says so                  W2b  look at tail; if nothing new, block until the bell
 *                                                   sleeping = 0 (relaxed), empty the bell
 *
 * The machine: one memory, and one store waiting in each thread before it reaches memory, at any later
 * time. A load may pass the waiting store of its own thread unless both are seq_cst. That is x86-TSO with
 * a buffer of one (where the store alone would do) and also what arm64 and C11 ask (both needed); loads
 * never pass loads here, and the order of data is not in it: ThreadSanitizer sees to that.
 *
 * Lost wake-up: nobody can move, and the sleeper has not taken both.
 */
#include "check.h"
#include "fab_doorbell.h"
#include "fab_queue_wait.h"

struct orders {
    memory_order w1a, w1b, w2a, w2b;
};

struct state { /* small numbers: a state is an index into `seen` */
    uint32_t tail, sleeping, bell;
    uint32_t tail_waits;     /* publisher's waiting store: 0 none, else the value */
    uint32_t sleeping_waits; /* sleeper's: 0 none, 1 sleeping = 0, 2 sleeping = 1 */
    uint32_t waits_seq_cst;  /* the sleeper's is seq_cst */
    uint32_t publisher;      /* 0 W1a, 1 W1b, 2 ring; then again from 3; 6 done */
    uint32_t sleeper;        /* 0 awake, 1 W2a, 2 W2b, 3 blocked, 4 say awake, 5 empty the bell, 6 done */
    uint32_t taken;
};

enum { STATES = 3 * 2 * 2 * 3 * 3 * 2 * 7 * 7 * 3 };

static uint32_t index_of(const struct state *s) {
    uint32_t i = s->tail;
    i = i * 2 + s->sleeping;
    i = i * 2 + s->bell;
    i = i * 3 + s->tail_waits;
    i = i * 3 + s->sleeping_waits;
    i = i * 2 + s->waits_seq_cst;
    i = i * 7 + s->publisher;
    i = i * 7 + s->sleeper;
    return i * 3 + s->taken;
}

/* May a load pass a waiting store? */
static int passes(int waits, int store_seq_cst, memory_order load) {
    return !waits || !store_seq_cst || load != memory_order_seq_cst;
}

/* Each step returns 0 when it cannot be taken now. */
static int step_publisher(struct state *s, const struct orders *o) {
    switch (s->publisher % 3) {
    case 0: /* W1a; two stores of one thread stay in order: the buffer must be free */
        if (s->publisher == 6 || s->tail_waits)
            return 0;
        s->tail_waits = s->publisher / 3 + 1;
        s->publisher++;
        return 1;
    case 1: /* W1b */
        if (!passes(s->tail_waits != 0, o->w1a == memory_order_seq_cst, o->w1b))
            return 0;
        s->publisher += s->sleeping ? 1 : 2;
        return 1;
    default: /* a system call orders all before it */
        if (s->tail_waits)
            return 0;
        s->bell = 1;
        s->publisher++;
        return 1;
    }
}

static int step_sleeper(struct state *s, const struct orders *o) {
    switch (s->sleeper) {
    case 0: /* an acquire load: passes the waiting store */
        s->taken = s->tail;
        s->sleeper = s->taken == 2 ? 6 : 1;
        return 1;
    case 1: /* W2a */
        if (s->sleeping_waits)
            return 0;
        s->sleeping_waits = 2;
        s->waits_seq_cst = o->w2a == memory_order_seq_cst;
        s->sleeper = 2;
        return 1;
    case 2: /* W2b */
        if (!passes(s->sleeping_waits != 0, (int)s->waits_seq_cst, o->w2b))
            return 0;
        s->sleeper = s->tail != s->taken ? 4 : 3;
        return 1;
    case 3: /* blocked: a system call, but the store may still wait when the call looks at the bell */
        if (!s->bell)
            return 0;
        s->sleeper = 4;
        return 1;
    case 4:
        if (s->sleeping_waits)
            return 0;
        s->sleeping_waits = 1;
        s->waits_seq_cst = 0;
        s->sleeper = 5;
        return 1;
    case 5:
        s->bell = 0;
        s->sleeper = 0;
        return 1;
    default:
        return 0;
    }
}

static int drain_publisher(struct state *s) {
    if (!s->tail_waits)
        return 0;
    s->tail = s->tail_waits;
    s->tail_waits = 0;
    return 1;
}

static int drain_sleeper(struct state *s) {
    if (!s->sleeping_waits)
        return 0;
    s->sleeping = s->sleeping_waits - 1;
    s->sleeping_waits = s->waits_seq_cst = 0;
    return 1;
}

/* Number of states from here on in which the wake-up is lost. */
static uint32_t explore(struct state s, const struct orders *o, uint8_t *seen) {
    uint32_t i = index_of(&s);
    if (seen[i])
        return 0;
    seen[i] = 1;
    struct state next[4] = {s, s, s, s};
    int moved[4] = {step_publisher(&next[0], o), step_sleeper(&next[1], o), drain_publisher(&next[2]),
                    drain_sleeper(&next[3])};
    if (!moved[0] && !moved[1] && !moved[2] && !moved[3])
        return s.taken != 2;
    uint32_t lost = 0;
    for (int way = 0; way < 4; way++)
        if (moved[way])
            lost += explore(next[way], o, seen);
    return lost;
}

static uint32_t lost_with(struct orders o) {
    uint8_t *seen = calloc(STATES, 1);
    CHECK(seen != NULL);
    uint32_t lost = explore((struct state){0}, &o, seen);
    uint32_t states = 0;
    for (uint32_t i = 0; i < STATES; i++)
        states += seen[i];
    CHECK(states > 100); /* or the model did not run */
    free(seen);
    return lost;
}

static void no_wake_up_for_messages_is_lost_with_the_orders_of_the_headers(void) {
    CHECK_EQ(lost_with((struct orders){FAB_P1, FAB_W1B, FAB_W2A, FAB_W2B}), 0);
}

static void no_wake_up_for_room_is_lost_with_the_orders_of_the_headers(void) {
    CHECK_EQ(lost_with((struct orders){FAB_C2, FAB_W1B, FAB_W2A, FAB_W2B}), 0);
}

/* Queues: `sleepers` is the model's word, and `rings`, which a sleep compares, a bell that stays rung. */
static void no_wake_up_of_a_queue_is_lost_with_the_orders_of_the_headers(void) {
    CHECK_EQ(lost_with((struct orders){FAB_Q1, FAB_Q6, FAB_Q5, FAB_Q7}), 0); /* for items: a store of tail */
    CHECK_EQ(lost_with((struct orders){FAB_Q6, FAB_Q6, FAB_Q5, FAB_Q7}),
             0); /* for room, quiet: of head, done */
}

static void a_wake_up_is_lost_when_any_one_order_is_weaker(void) {
    const memory_order sc = memory_order_seq_cst;
    const struct orders weaker[] = {{memory_order_release, sc, sc, sc},
                                    {sc, memory_order_acquire, sc, sc},
                                    {sc, sc, memory_order_release, sc},
                                    {sc, sc, sc, memory_order_acquire}};
    CHECK_EQ(lost_with((struct orders){sc, sc, sc, sc}), 0);
    for (int i = 0; i < 4; i++)
        CHECK(lost_with(weaker[i]) > 0);
}

static const struct check_test tests[] = {
    TEST(no_wake_up_for_messages_is_lost_with_the_orders_of_the_headers),
    TEST(no_wake_up_for_room_is_lost_with_the_orders_of_the_headers),
    TEST(no_wake_up_of_a_queue_is_lost_with_the_orders_of_the_headers),
    TEST(a_wake_up_is_lost_when_any_one_order_is_weaker),
};

int main(void) {
    return CHECK_RUN(tests, 20);
}
