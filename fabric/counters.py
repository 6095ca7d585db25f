"""Name the counters in a process's block: one writer each, bumped once a batch, read by anyone.

The first are kept by the C core (native/fab_segment.h); the others by the loop.
"""

RECEIVED = 0  # records read from lanes
BATCHES = 1
BYTES_IN = 2  # headers included
PARKS = 3  # times that it slept
ALARMS = 4  # lost wake-ups found by the safety net: must be 0
SPINS_WON = 5  # waits that ended before it slept
WAITED_NS = 6  # time without work
WAKE_UPS = 7  # sleeps that a bell ended
MESSAGES = 8  # records to agents; this and the next three only while metrics are kept
REPLIES = 9  # replies received
REPLY_ERRORS = 10  # of these: errors
WAITING_SINCE_NS = 12  # since when it waits now, on the monotonic clock, which WAITED_NS does not count yet; 0: at work
LATE_CLOCKS = 11  # records whose time of sending cannot be, and that were not timed

PID = 16
CLOSING = 17  # the coordinator's: 1 when workers are to leave at once
AGENTS = 18  # alive now
ERRORS = 19  # messages whose handler raised, or that found no agent
LOST = 20  # messages to agents that had stopped meanwhile
LATE_REPLIES = 21  # replies that nobody waits for any more
DROPPED_BYTES = 22  # bytes in lanes that could not be records
STARTED_NS = 23  # monotonic clock
SNAPSHOTS = 24  # taken of agents
REPLAYED = 25  # messages handled again after a crash for the state of their agents
EXPIRED = 27  # messages skipped, for whoever asked had given up (expire=True)
FIRST_TOKEN = 28  # of a worker: whoever asked something with a lower one is dead
LEFT = 29  # of a worker: its pid, once it has left as it was told and nothing is in its hands any more
RECOVERY_NS = 26  # from a worker seen dead to its successor at work, in all
ENCODE_NS = 30  # time spent encoding bodies; of single ones each 16th is timed and counted 16 times
DECODE_NS = 31  # and decoding
STARTS = 32  # workers that this slot has had
ROWS = 33  # records that array agents were handed
ARENA_BYTES = 34  # in blocks of this process's arena
WAITED_BEFORE_NS = 36  # of WAITED_NS: by predecessors of the process that runs
ARENA_LOANS = 35  # pieces of it that others hold

# The coordinator's own; any of its threads adds to these: see fabric.tally.
TIMEOUTS = 48  # calls that gave up waiting
BACKPRESSURE_WAITS = 49  # calls that waited for room
BACKPRESSURE_NS = 50  # and how long
REFUSALS = 51  # calls that may not wait and found no room
RESTARTS = 52
REDELIVERED = 53  # messages that a dead worker had begun and its successor got again
POISONED = 54  # messages that killed too many workers
DEAD_LETTERS = 55
DROPPED_LOGS = 56  # log records of workers: not read in time, or not to be read
RECYCLED = 57  # workers that left as they were told, and were replaced
