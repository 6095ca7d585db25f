"""Chaos: kill, stop and continue any process at random under load, and check that nothing is lost, doubled or hung.

    python -m tests.chaos --seed 7 --kills 1000            workers and the fork server die, the coordinator lives
    python -m tests.chaos --mode fail --kills 300          the same with on_crash="fail": at most once
    python -m tests.chaos --mode snapshot                  agents whose state is kept: each message counted once
    python -m tests.chaos family --kills 50                the coordinator and the whole group, in any order

What the seed replays: which process is hit, how, in which order, after how many messages or milliseconds, and the
content of every message. What it does not: at which instruction the signal finds its process.
"""
