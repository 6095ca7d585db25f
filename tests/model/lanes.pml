/* SPDX-License-Identifier: MIT */
/*
 * lanes.pml - two lanes, the doorbells, the death bell and respawn, with a crash possible at every step.
 *
 *              requests: tail, records ->
 *   producer <- head                       consumer     either may be killed CRASHES times in all; the
 *            <- replies: tail, records                  supervisor rings all bells and starts a successor
 *                                head ->                that knows only what lies in memory
 *
 * Message n is record n of the request lane, and its reply carries n: that is the correlation id.
 * The machine is x86-TSO: a store waits in the buffer of its process and reaches memory at any later time, in
 * order; a load reads memory (no process loads a word that it writes, so nothing is forwarded); a seq_cst load
 * waits until the buffer is empty. System calls do not empty it, which is weaker than any machine we run on.
 * What a killed process stored still arrives, and only then the supervisor learns of its death.
 *
 * A record is one word, written by one store and read twice: who sees half of one would see the old one or the
 * new one too, and either is an error here. There is no safety net of one second: whoever is not woken sleeps
 * for ever. No state can come again, so every run ends, and it may end only when all is done.
 *
 * Each atomic below has one access to shared memory: the killer comes between any two of them.
 */
#ifndef MESSAGES
#define MESSAGES 3
#endif
#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef BUFFER
#define BUFFER 2 /* stores that wait in a process */
#endif

#define PRODUCER 0
#define CONSUMER 1
#define NOBODY 2
#define WAITS_MESSAGES 1
#define WAITS_ROOM 2

/* Words of memory. The producer writes the first, the consumer the second, each its own `sleeping`. */
#define TAIL 0
#define RECORD(place) (1 + (place) % SLOTS)
#define REPLY_HEAD (1 + SLOTS)
#define HEAD (2 + SLOTS)
#define REPLY_TAIL (3 + SLOTS)
#define REPLY_RECORD(place) (4 + SLOTS + (place) % SLOTS)
#define SLEEPING(who) (4 + 2 * SLOTS + (who))
byte memory[6 + 2 * SLOTS];
chan buffer[2] = [BUFFER] of { byte, byte };
bool bell[2]; /* eventfds: a level */

/* What a record says: its place in the lane (`sequence`), and its correlation id. */
#define IS(place, correlation) ((place) << 3 | (correlation))
#define PLACE(record) ((record) >> 3)
#define CORRELATION(record) ((record) & 7)

bool dead[2];
byte dying = NOBODY; /* the killed one takes its last step before anybody else takes one */
byte crashes;

/* What the world has seen. No process looks at it. */
byte handled;  /* messages 1 to this were handled, at least once */
byte answered; /* replies 1 to this were taken; the ids are kept where replies are (pending.py) */

#define FINISHED (answered == MESSAGES && memory[HEAD] == MESSAGES)

#define store(who, word, value) buffer[who]!word,value

/* What seq_cst asks of a load: the stores before it have arrived. */
#define W1B(who) empty(buffer[who])
#define W2B(who) empty(buffer[who])
#ifdef NO_STORE_LOAD_ORDER
#undef W1B
#define W1B(who) true
#endif
#ifdef NO_STORE_LOAD_ORDER_ASLEEP
#undef W2B
#define W2B(who) true
#endif

/* W1b, behind the store of a tail or a head (W1a: P1, C2). Killed before the bell rings: the death bell. */
inline notify(who, other, reason) {
    if
    :: W1B(who) && (memory[SLEEPING(other)] & reason) != 0 -> bell[other] = true
    :: W1B(who) && (memory[SLEEPING(other)] & reason) == 0
    fi
}

inline block(who) {
    if
    :: bell[who]
    :: FINISHED -> goto done
    fi
}

/* fab_peer_park: W2a, W2b at the lanes in and at the lanes out, poll, disarm. */
inline park(who, reasons, came_in, room_came) {
    store(who, SLEEPING(who), reasons);
#ifndef NO_SECOND_LOOK
    if
    :: W2B(who) && came_in
    :: W2B(who) && !(came_in) ->
        if
        :: room_came
        :: else -> block(who)
        fi
    fi;
#else
    block(who);
#endif
    store(who, SLEEPING(who), 0);
    atomic { bell[who] = false; starved = false }
}

inline ring_all() {
#ifndef NO_DEATH_BELL
    bell[PRODUCER] = true;
    bell[CONSUMER] = true
#else
    skip
#endif
}

active proctype producer() provided (dying != CONSUMER) {
    byte next, published, head_seen; /* its end of the request lane */
    byte read, tail_seen;            /* its end of the reply lane */
    bool starved;

start:
    {
        d_step { /* a successor goes on from memory; its own words wait in no buffer */
            next = memory[TAIL];
            published = next;
            head_seen = memory[HEAD];
            read = memory[REPLY_HEAD];
            tail_seen = read
        }
        do
        :: atomic { next < MESSAGES && next - head_seen < SLOTS && !starved ->
#ifdef TAIL_BEFORE_DATA
            store(PRODUCER, TAIL, next + 1);
#endif
            store(PRODUCER, RECORD(next), IS(next, next + 1));
            next++ }
        :: atomic { next < MESSAGES && next - head_seen == SLOTS && !starved ->
            head_seen = memory[HEAD]; /* P2 */
            starved = next - head_seen == SLOTS }
        :: atomic { next != published -> /* a batch, of any size */
            store(PRODUCER, TAIL, next); /* P1, W1a */
            published = next };
            notify(PRODUCER, CONSUMER, WAITS_MESSAGES)
        :: atomic { next == published && memory[REPLY_TAIL] != read ->
            tail_seen = memory[REPLY_TAIL] }; /* C1 */
            do
            :: atomic { read != tail_seen ->
                assert(PLACE(memory[REPLY_RECORD(read)]) == read) }; /* the header */
                d_step {
                    assert(PLACE(memory[REPLY_RECORD(read)]) == read); /* the body */
                    if
                    :: CORRELATION(memory[REPLY_RECORD(read)]) == answered + 1 -> answered++
                    :: else -> /* a repeat, dropped: a crash made it; or a reply is missing */
                        assert(CORRELATION(memory[REPLY_RECORD(read)]) <= answered && crashes > 0)
                    fi;
                    read++
                }
            :: atomic { read == tail_seen ->
                store(PRODUCER, REPLY_HEAD, read); /* C2, W1a */
                starved = false };
                break
            od;
            notify(PRODUCER, CONSUMER, WAITS_ROOM)
        :: next == published && (next == MESSAGES || starved) && memory[REPLY_TAIL] == read ->
            park(PRODUCER, WAITS_MESSAGES | (starved -> WAITS_ROOM : 0),
                 memory[REPLY_TAIL] != tail_seen, starved && memory[HEAD] != head_seen)
        od
    } unless {
        d_step {
            dying == PRODUCER ->
            dying = NOBODY;
            dead[PRODUCER] = true;
            next = 0; published = 0; head_seen = 0; read = 0; tail_seen = 0; starved = false
        };
        !dead[PRODUCER] -> goto start
    }
done:
    skip
}

active proctype consumer() provided (dying != PRODUCER) {
    byte read, tail_seen, committed; /* its end of the request lane */
    byte next, published, head_seen; /* its end of the reply lane */
    byte behind, replied;            /* messages up to here are handled, and have their replies written */
    bool starved;

start:
    {
        d_step {
            read = memory[HEAD];
            tail_seen = read;
            committed = read;
            behind = read;
            replied = read;
            next = memory[REPLY_TAIL];
            published = next;
            head_seen = memory[REPLY_HEAD]
        }
        do
        :: atomic { committed == tail_seen && memory[TAIL] != tail_seen ->
            tail_seen = memory[TAIL]; /* C1 */
            assert(tail_seen - read <= SLOTS) }
        :: committed == tail_seen && memory[TAIL] == tail_seen ->
            park(CONSUMER, WAITS_MESSAGES, memory[TAIL] != tail_seen, false)

        /* Peek all of them. */
        :: atomic { read != tail_seen ->
            assert(memory[RECORD(read)] == IS(read, read + 1)); /* the header */
#ifdef COMMIT_BEFORE_READ
            store(CONSUMER, HEAD, read + 1)
#endif
            };
            atomic {
                assert(memory[RECORD(read)] == IS(read, read + 1)); /* the body */
                read++;
#ifdef COMMIT_BEFORE_PROCESS
                store(CONSUMER, HEAD, read)
#endif
            }

        /* Handle a slice of them. */
        :: atomic { read == tail_seen && behind != read && replied == committed ->
            behind++;
            if
            :: behind == handled + 1 -> handled++
            :: else -> assert(behind <= handled && crashes > 0) /* again; never past one that was not */
            fi;
#ifdef COMMIT_BEFORE_REPLY
            store(CONSUMER, HEAD, behind)
#endif
            }

        /* Publish the replies to the slice. */
        :: atomic { replied != behind && next - head_seen < SLOTS && !starved ->
            store(CONSUMER, REPLY_RECORD(next), IS(next, replied + 1));
            replied++;
            next++ }
        :: atomic { replied != behind && next - head_seen == SLOTS && !starved ->
            head_seen = memory[REPLY_HEAD]; /* P2 */
            starved = next - head_seen == SLOTS }
        :: atomic { next != published && (replied == behind || starved) ->
            store(CONSUMER, REPLY_TAIL, next); /* P1, W1a */
            published = next };
            notify(CONSUMER, PRODUCER, WAITS_MESSAGES)
        :: starved && next == published && memory[REPLY_HEAD] == head_seen -> /* for nothing but room */
            park(CONSUMER, WAITS_ROOM, false, memory[REPLY_HEAD] != head_seen)
        :: atomic { starved && next == published && memory[REPLY_HEAD] != head_seen -> starved = false }

        /* Commit the slice. */
        :: atomic { behind != committed && replied == behind && next == published ->
#if !defined(COMMIT_BEFORE_READ) && !defined(COMMIT_BEFORE_PROCESS) && !defined(COMMIT_BEFORE_REPLY)
            store(CONSUMER, HEAD, behind); /* C2, W1a */
#endif
            committed = behind };
#ifndef NO_BELL_FOR_ROOM
            notify(CONSUMER, PRODUCER, WAITS_ROOM)
#endif
        od
    } unless {
        d_step {
            dying == CONSUMER ->
            dying = NOBODY;
            dead[CONSUMER] = true;
            read = 0; tail_seen = 0; committed = 0; next = 0; published = 0; head_seen = 0; behind = 0;
            replied = 0; starved = false
        };
        !dead[CONSUMER] -> goto start
    }
done:
    assert(handled == MESSAGES)
}

/* What the kernel says: it has stopped, and all that it stored has arrived. */
#ifndef SUCCESSOR_TOO_SOON
#define SEEN_DEAD(who) empty(buffer[who])
#else
#define SEEN_DEAD(who) true
#endif

/* supervisor.py: the death bell, then a successor. */
active proctype supervisor() provided (dying == NOBODY) {
end:
    do
    :: dead[PRODUCER] && SEEN_DEAD(PRODUCER) ->
        ring_all();
        dead[PRODUCER] = false
    :: dead[CONSUMER] && SEEN_DEAD(CONSUMER) ->
        ring_all();
        dead[CONSUMER] = false
    od
}

active proctype killer() provided (dying == NOBODY) {
end:
    do
    :: atomic { crashes < CRASHES && !FINISHED && !dead[PRODUCER] -> crashes++; dying = PRODUCER }
    :: atomic { crashes < CRASHES && !FINISHED && !dead[CONSUMER] -> crashes++; dying = CONSUMER }
    od
}

active proctype memory_bus() provided (dying == NOBODY) {
    byte word, value;
end:
    do
    :: d_step { buffer[PRODUCER]?word,value -> memory[word] = value; word = 0; value = 0 }
    :: d_step { buffer[CONSUMER]?word,value -> memory[word] = value; word = 0; value = 0 }
    od
}
