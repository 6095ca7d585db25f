"""Look into the arenas of a real fabric: how much is lent, and has all of it come back?"""

import gc
import time

from tests.payload_agents import Holder

PATIENCE = 30  # seconds until a test is taken to have failed


def holders_of(fab, kind=Holder, count=2):
    """Spawn so many agents, in turn on each of two workers, who know each other."""
    made = [fab.spawn_batch(kind, 1, placement=worker % 2)[0] for worker in range(count)]
    for worker, holder in enumerate(made):
        holder.ask(("know", *(other for other in made if other is not made[worker])), timeout=PATIENCE)
    return made


def lent(fab):
    """How many loans of the coordinator's are out, and how many blocks there are."""
    usage = fab._arena.usage()
    return usage[3], usage[5]


def all_came_back(fab, *holders):
    """Wait until no process has anything lent, or any block."""
    deadline = time.monotonic() + PATIENCE
    while True:
        gc.collect()
        left = [lent(fab), *(holder.ask(("usage",), timeout=PATIENCE) for holder in holders)]
        if set(left) == {(0, 0)}:
            return True
        assert time.monotonic() < deadline, f"(loans, blocks): {left}"
        time.sleep(0.001)  # a poll: a finalizer in another process says nothing
