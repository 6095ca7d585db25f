"""Name the counters in a process's block: one writer each, bumped once a batch, read by anyone."""

HANDLED = 0  # messages handled
BATCHES = 1
REPLIES = 2
ERRORS = 3  # messages whose handler raised, or that found no agent
BYTES_IN = 4
BUSY_NS = 5  # time in the host
AGENTS = 6  # alive now
LOST = 7  # messages to agents that had stopped meanwhile
PARKS = 8
ALARMS = 9  # lost wake-ups found by the safety net: must be 0
DROPPED_BYTES = 10  # bytes in lanes that could not be records
SENT = 11
LATE_REPLIES = 12  # replies that nobody waits for any more
PID = 13
