/* SPDX-License-Identifier: MIT */
/*
 * step_cases.h - the entry points and the states they are killed in.
 *
 * Lanes and outboxes hold 4096 bytes; a body of 40 spans 96, 1904 spans 1952, 2000 spans 2048: half of it.
 */
#ifndef STEP_CASES_H
#define STEP_CASES_H

#include "step_acts.h"

#define SEND_ONE .entry = "fab_peer_send_one", .act = step_send_one, .victim = STEP_VICTIM, .count = 1
#define SEND_BATCH .entry = "fab_peer_send_batch", .act = step_send_batch, .victim = STEP_VICTIM, .count = 3
#define OUTBOX_BATCH                                                                                         \
    .entry = "fab_peer_outbox_batch", .act = step_outbox_batch, .victim = STEP_VICTIM, .count = 3, .lane = 2
#define PASS                                                                                                 \
    .entry = "fab_peer_outbox_pass", .act = step_outbox_pass, .victim = STEP_VICTIM, .count = 3, .lane = 2
#define FLUSH .entry = "fab_peer_outbox_flush", .act = step_outbox_flush, .victim = STEP_VICTIM
#define RECEIVE .entry = "fab_peer_receive, commit", .act = step_receive, .victim = STEP_VICTIM
#define ARM .entry = "fab_peer_arm, disarm", .act = step_arm, .victim = STEP_VICTIM
#define PARK .entry = "fab_peer_park", .act = step_park, .victim = STEP_VICTIM
#define WAIT .entry = "fab_peer_wait", .act = step_wait_for, .victim = STEP_VICTIM
#define INIT .entry = "fab_peer_init", .act = step_init, .victim = STEP_VICTIM
#define TABLE .entry = "fab_table_write", .act = step_table_write, .victim = STEP_COORDINATOR
#define SMALL {40, 40, 40}
#define BEFORE_2_64(bytes) (0 - (uint64_t)(bytes))

static const struct step_case step_cases[] = {
    {SEND_ONE, .state = "empty", .lane = 2, .sizes = {40}, .rc = 1},
    {SEND_ONE, .state = "its consumer sleeps", .lane = 2, .sizes = {40}, .rc = 1, .sleeper = STEP_SURVIVOR,
     .sleeps_for = FAB_WAITS_MESSAGES, .long_way = 1},
    {SEND_ONE, .state = "control lane, coordinator sleeps", .lane = 3, .sizes = {0}, .rc = 1,
     .sleeper = STEP_COORDINATOR, .sleeps_for = FAB_WAITS_MESSAGES},
    {SEND_ONE, .state = "behind a PAD", .lane = 2, .sizes = {40}, .rc = 1, .at = STEP_LANE_BYTES - 32},
    {SEND_ONE, .state = "behind a PAD, past 2^64", .lane = 2, .sizes = {100}, .rc = 1, .at = BEFORE_2_64(16)},
    {SEND_ONE, .state = "the last that fits", .lane = 2, .sizes = {144}, .rc = 1,
     .fills = {{1, 2, 2, 0, 1904}}},
    {SEND_ONE, .state = "would fit but for the PAD", .lane = 2, .sizes = {40}, .rc = 0, .at = 64,
     .fills = {{1, 2, 1, 0, 1904}, {1, 2, 1, 0, 2000}}},
    {SEND_ONE, .state = "full", .lane = 2, .sizes = {40}, .rc = 0, .fills = {{1, 2, 2, 0, 2000}}},

    {SEND_BATCH, .state = "empty", .lane = 2, .sizes = {40, 0, 100}, .rc = 3},
    {SEND_BATCH, .state = "its consumer sleeps", .lane = 2, .sizes = SMALL, .rc = 3, .sleeper = STEP_SURVIVOR,
     .sleeps_for = FAB_WAITS_MESSAGES},
    {SEND_BATCH, .state = "the second wraps", .lane = 2, .sizes = SMALL, .rc = 3,
     .at = STEP_LANE_BYTES - 128},
    {SEND_BATCH, .state = "the first wraps, past 2^64", .lane = 2, .sizes = SMALL, .rc = 3,
     .at = BEFORE_2_64(32)},
    {SEND_BATCH, .state = "the third ends at 2^64", .lane = 2, .sizes = SMALL, .rc = 3,
     .at = BEFORE_2_64(288)},
    {SEND_BATCH, .state = "two of three fit", .lane = 2, .sizes = SMALL, .rc = 2,
     .fills = {{1, 2, 2, 0, 1904}}},
    {SEND_BATCH, .state = "two fit, one behind a PAD", .lane = 2, .sizes = SMALL, .rc = 2, .at = 176,
     .fills = {{1, 2, 1, 0, 1840}, {1, 2, 1, 0, 1856}}},
    {SEND_BATCH, .state = "full", .lane = 2, .sizes = SMALL, .rc = 0, .fills = {{1, 2, 2, 0, 2000}}},
    {SEND_BATCH, .state = "a window that holds two", .lane = 2, .sizes = SMALL, .rc = 2, .most = 100},
    {.entry = "fab_peer_send_batch",
     .act = step_send_batch,
     .count = 3,
     .state = "from the coordinator",
     .lane = 2,
     .sizes = SMALL,
     .rc = 3,
     .victim = STEP_COORDINATOR,
     .sleeper = STEP_SURVIVOR,
     .sleeps_for = FAB_WAITS_MESSAGES},

    {OUTBOX_BATCH, .state = "empty", .sizes = {40, 0, 100}, .rc = 3},
    {OUTBOX_BATCH, .state = "the second wraps", .sizes = SMALL, .rc = 3, .at = STEP_LANE_BYTES - 128},
    {OUTBOX_BATCH, .state = "the first wraps, past 2^64", .sizes = SMALL, .rc = 3, .at = BEFORE_2_64(32)},
    {OUTBOX_BATCH, .state = "two of three fit", .sizes = SMALL, .rc = 2, .fills = {{1, 2, 2, 1, 1904}}},
    {OUTBOX_BATCH, .state = "full", .sizes = SMALL, .rc = 0, .fills = {{1, 2, 2, 1, 2000}}},

    {PASS, .state = "empty", .sizes = {40, 0, 100}, .rc = 3},
    {PASS, .state = "its consumer sleeps", .sizes = SMALL, .rc = 3, .sleeper = STEP_SURVIVOR,
     .sleeps_for = FAB_WAITS_MESSAGES},
    {PASS, .state = "the first wraps, past 2^64", .sizes = SMALL, .rc = 3, .at = BEFORE_2_64(32)},
    {PASS, .state = "the lane is full", .sizes = SMALL, .rc = 3, .fills = {{1, 2, 2, 0, 2000}}},
    {PASS, .state = "behind another in the outbox", .sizes = SMALL, .rc = 3, .behind = 1,
     .fills = {{1, 2, 1, 1, 40}}},
    {PASS, .state = "lane and outbox are full", .sizes = SMALL, .rc = 0,
     .fills = {{1, 2, 2, 0, 2000}, {1, 2, 2, 1, 1904}}},

    {FLUSH, .state = "to two processes", .rc = 1,
     .fills = {{1, 2, 1, 1, 40}, {1, 0, 1, 1, 0}, {1, 2, 1, 1, 100}}},
    {FLUSH, .state = "to one that sleeps", .rc = 1, .fills = {{1, 2, 2, 1, 40}}, .sleeper = STEP_SURVIVOR,
     .sleeps_for = FAB_WAITS_MESSAGES},
    {FLUSH, .state = "outbox and lane wrap", .rc = 1, .fills = {{1, 2, 3, 1, 40}},
     .at = STEP_LANE_BYTES - 128},
    {FLUSH, .state = "they wrap past 2^64", .rc = 1, .fills = {{1, 2, 2, 1, 40}}, .at = BEFORE_2_64(32)},
    {FLUSH, .state = "a lane that fills up", .rc = 0, .fills = {{1, 2, 2, 0, 1904}, {1, 2, 3, 1, 40}}},
    {FLUSH, .state = "to nobody and to itself", .rc = 1,
     .fills = {{1, 2, 1, 1, 40}, {1, STEP_NOBODY, 1, 1, 40}, {1, 1, 1, 1, 40}}},

    {RECEIVE, .state = "nothing there", .rc = 0},
    {RECEIVE, .state = "one run of three", .rc = 3, .fills = {{2, 1, 3, 0, 40}}},
    {RECEIVE, .state = "one at a time", .rc = 2, .fills = {{2, 1, 2, 0, 40}}, .most = 1},
    {RECEIVE, .state = "a PAD between", .rc = 2, .fills = {{2, 1, 2, 0, 40}}, .at = STEP_LANE_BYTES - 128},
    {RECEIVE, .state = "a PAD first, past 2^64", .rc = 2, .fills = {{2, 1, 2, 0, 40}}, .at = BEFORE_2_64(32)},
    {RECEIVE, .state = "full, its sender waits for room", .rc = 2, .fills = {{2, 1, 2, 0, 2000}}, .most = 1,
     .starved = 2, .sleeper = STEP_SURVIVOR, .sleeps_for = FAB_WAITS_ROOM},
    {RECEIVE, .state = "control lane and data lane", .rc = 2, .fills = {{2, 1, 1, 0, 100}, {0, 4, 1, 0, 0}}},
    {.entry = "fab_peer_receive, commit",
     .victim = STEP_VICTIM,
     .state = "then sleep: quiet is waited for",
     .act = step_receive_and_arm,
     .rc = 1,
     .fills = {{2, 1, 1, 0, 40}},
     .reasons = FAB_WAITS_MESSAGES,
     .sleeper = STEP_COORDINATOR,
     .sleeps_for = FAB_WAITS_QUIET},

    {ARM, .state = "nothing there", .rc = 0, .reasons = FAB_WAITS_MESSAGES},
    {ARM, .state = "a message is there", .rc = 1, .reasons = FAB_WAITS_MESSAGES, .fills = {{2, 1, 1, 0, 40}}},
    {ARM, .state = "full, no room", .rc = 0, .reasons = FAB_WAITS_ROOM, .fills = {{1, 2, 2, 0, 2000}},
     .starved = 1},
    {ARM, .state = "full, room came", .rc = 1, .reasons = FAB_WAITS_ROOM, .fills = {{1, 2, 2, 0, 2000}},
     .starved = 1, .room_came = 1},
    {PARK, .state = "nothing there", .rc = 0, .reasons = FAB_WAITS_MESSAGES},
    {PARK, .state = "a message is there", .rc = 1, .reasons = FAB_WAITS_MESSAGES,
     .fills = {{2, 1, 1, 0, 40}}},
    {WAIT, .state = "nothing there", .rc = 0, .reasons = FAB_WAITS_MESSAGES},

    {INIT, .state = "all lanes in use", .rc = 0,
     .fills = {{1, 2, 2, 0, 40}, {2, 1, 2, 0, 40}, {0, 4, 1, 0, 40}, {1, 2, 2, 1, 40}}},
    {INIT, .state = "all lanes past 2^64", .rc = 0, .at = BEFORE_2_64(32),
     .fills = {{1, 2, 2, 0, 40}, {2, 1, 2, 0, 40}, {0, 4, 1, 0, 40}, {1, 2, 2, 1, 40}}},

    {TABLE, .state = "three agents replaced", .rc = 0},
};
#define STEP_CASES (sizeof step_cases / sizeof *step_cases)

#endif
