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
