"""Bring the agents of a successor to where those of its dead predecessor were.

    journal, vault -> state restored, and the messages since then handled again; all that they send is dropped
                   -> who waits for a reply that is lost is told so
                   -> what was to be sent later is remembered

The agents are made again before that, by orders of the coordinator.
"""

from collections.abc import Callable

from fabric import counters as count
from fabric.remote_errors import refusal
from fabric.workers.host import Host
from fabric.workers.journal import Owed, Replayed, Run
from fabric.workers.keeper import Keeper
from fabric.workers.recovery import Recovery


def restore(
    host: Host, keeper: Keeper, recovery: Recovery, head_of: Callable[[int], int], counters: memoryview
) -> None:
    """Restore the state of agents, and report what is lost.

    `recovery` learns how far the snapshots reach; `head_of(lane)` is how far the predecessor has committed it.
    """
    codec, failures = host.codec, list(host.failures)

    def replay(run: Run) -> None:
        host.replay(Replayed(run, codec))
        counters[count.REPLAYED] += len(run.messages)

    lost: list[tuple[int, BaseException]] = []
    owed: list[Owed] = []
    recovery.take(keeper.recover(head_of, replay, lambda *what: lost.append(what), owed.append))
    host.failures[:] = failures  # a replay drops what it finds there
    for target, sender, correlation in owed:
        info = refusal(recovery.lost(target, correlation))
        if correlation:
            host.send_reply(sender, target, correlation, info)
        else:
            host.failures.append((target, sender, info))
    for address, error in lost:
        host.lose(address, error)
    host.resume(recovery, head_of)
