/* SPDX-License-Identifier: MIT */
/*
 * leader.pml - who drains the reply lanes of the coordinator: fabric/replies.py, method by method.
 *
 *   askers       ask, then lead or follow until the reply is there; the last one may run out of patience
 *   worker       answers each question once, at any time, in any order
 *   pump         with -DPUMP: a future is outstanding, whose reply comes like the others
 *   supervisor   with -DATTENTION: hears of something that nobody waits for, and that must be drained all the same
 *
 * Python's threads take turns, so nothing is reordered, and each step has one access to what they share. The wait
 * in the C core is one step: it ends when a lane has something or the bell was rung (lanes.pml shows that it does).
 * A lock to sleep on is made for each sleep: who wakes up the one of an earlier sleep wakes nobody.
 * There is no safety net of one second. No state can come again, so every run ends, and it may end only when all
 * is answered and drained. Those who wait for room or quiet are not here, nor is close().
 */
#ifndef ASKERS
#define ASKERS 3 /* 2 or 3 */
#endif
#define IMPATIENT (ASKERS - 1)
#define UNASKED 3 /* the place in the lanes of what nobody waits for */
#define NOBODY 255

bool lead;     /* Replies._lead */
bool bell;     /* the coordinator's own */
bool orders;   /* Replies._orders: is there one? */
bool promised; /* Replies._promised: is there a future? */
bool job;      /* Replies._jobs: is there one? */
bool pump_bell;
bool lanes[4]; /* what lies in the incoming lanes, by who waits for it */

bool asked[3];
bool done[3];      /* Entry.done */
bool following[3]; /* Entry.lock is there, and in Replies._followers */
bool woken[3];     /* that lock is released */
byte hand[4] = NOBODY; /* whose lock each thread has taken from the list, to release it */
byte through;          /* askers that are */

#define SOMETHING_CAME (lanes[0] || lanes[1] || lanes[2] || lanes[UNASKED])
#define SOME_FOLLOW (following[0] || following[1] || following[2])

/* Once the lock of this sleep is given up, nobody wakes its owner by it. */
inline give_up_lock(whose) {
    d_step {
        following[whose] = false;
        woken[whose] = false;
        if :: hand[0] == whose -> hand[0] = NOBODY :: else fi;
        if :: hand[1] == whose -> hand[1] = NOBODY :: else fi;
        if :: hand[2] == whose -> hand[2] = NOBODY :: else fi;
        if :: hand[3] == whose -> hand[3] = NOBODY :: else fi
    }
}

inline ring_pump() {
    pump_bell = pump_bell || promised || job
}

inline hand_on(me) {
    if
    :: lead
    :: !lead ->
        if
        :: following[0] -> hand[me] = 0
        :: following[1] -> hand[me] = 1
        :: following[2] -> hand[me] = 2
        :: !SOME_FOLLOW ->
#ifndef NO_HAND_ON_TO_PUMP
            ring_pump()
#endif
        fi;
        d_step {
            if
            :: hand[me] != NOBODY -> woken[hand[me]] = true; hand[me] = NOBODY
            :: else
            fi
        }
    fi
}

inline complete(whose) {
    done[whose] = true;
    d_step {
        if
        :: following[whose] -> woken[whose] = true
        :: else
        fi
    }
}

inline drain() {
    orders = false;
    do
    :: atomic { lanes[0] -> lanes[0] = false }; complete(0)
    :: atomic { lanes[1] -> lanes[1] = false }; complete(1)
    :: atomic { lanes[2] -> lanes[2] = false }; complete(2)
    :: atomic { lanes[UNASKED] -> lanes[UNASKED] = false; promised = false }; job = true; pump_bell = true
    :: !SOMETHING_CAME -> break
    od
}

inline leave(me) {
    do
    :: lead = false;
        hand_on(me);
        if
        :: !orders -> break
        :: orders ->
            if
            :: atomic { !lead -> lead = true }; drain()
            :: lead -> break
            fi
        fi
    od
}

active [ASKERS] proctype asker() {
    bool late;

    asked[_pid] = true;
    do /* wait */
    :: done[_pid] || late -> break
    :: !done[_pid] && !late ->
        if
        :: atomic { !lead -> lead = true };
            do /* _lead_until */
#ifndef NO_LOOK_AS_LEADER
            :: done[_pid] -> break
            :: atomic { !done[_pid] && (SOMETHING_CAME || bell) -> bell = bell && SOMETHING_CAME }; drain()
#else
            :: atomic { SOMETHING_CAME || bell -> bell = bell && SOMETHING_CAME }; drain();
                if
                :: done[_pid] -> break
                :: else
                fi
#endif
            :: _pid == IMPATIENT -> late = true; drain(); break
            od;
            leave(_pid)
        :: lead -> /* _follow */
            following[_pid] = true;
            if /* _sleep */
#ifndef PROBE_TAKES_LEAD
            :: !lead
#else
            :: atomic { !lead -> lead = true }; lead = false
#endif
            :: lead ->
                if
                :: done[_pid]
                :: !done[_pid] ->
                    if
                    :: woken[_pid]
                    :: _pid == IMPATIENT -> late = true
                    fi
                fi
            fi;
            give_up_lock(_pid);
#ifndef NO_HAND_ON
            hand_on(_pid)
#endif
        fi
    od;
    through++
}

active proctype worker() {
end:
    do
    :: atomic { asked[0] -> asked[0] = false; lanes[0] = true }
    :: atomic { asked[1] -> asked[1] = false; lanes[1] = true }
    :: atomic { asked[2] -> asked[2] = false; lanes[2] = true }
    od
}

#ifdef ATTENTION
active proctype supervisor() { /* crew.py: the attention bell rang; then Replies.wake_and_drain */
    lanes[UNASKED] = true;
#ifndef ATTENTION_IS_NO_ORDER
    orders = true;
#endif
    bell = true;
    if
    :: atomic { !lead -> lead = true }; drain(); leave(3)
    :: lead
    fi;
    through == ASKERS;
    assert(!lanes[UNASKED] && !orders)
}
#endif

#ifdef PUMP
active proctype future() { /* submitted by somebody who goes away; its reply comes later */
    atomic { promised = true; pump_bell = true };
    lanes[UNASKED] = true
}

active proctype pump() { /* _run_pump */
    pump_bell;
    do
    :: job -> job = false; break /* that was the future's */
    :: !job && promised ->
        pump_bell = false;
        if
        :: atomic { !lead -> lead = true };
            do /* _lead_until */
            :: job || !promised -> break
            :: atomic { promised && (SOMETHING_CAME || bell) -> bell = bell && SOMETHING_CAME }; drain()
            od;
            leave(3)
        :: lead -> pump_bell
        fi
    :: !job && !promised -> pump_bell = false; pump_bell || job
    od
}
#endif
