"""How does the rate of `ask_many` change with the workers, with the batch and with the size of a call?

::

    this process  ── ask_many in calls of N ──▶  1 .. 8 workers, batches of up to B messages, 1,000 agents

Each curve departs in one thing from the usual (one worker, batches of 256, everything in one call). With as many
workers as cores or more, the figure says what crowding costs, not what the fabric can do; handlers that work for 20 µs
show what workers are for. Replies are compared. The peer is multiprocessing's Pool, with as many processes, a map for
each call and chunks of its own choice: it sends many messages as one, to no agent in particular; ours does so too, and
stands beside. What would change our minds: a batch of 16 as fast as 256 (then smaller is better for latency), or two
workers slower than one with cores to spare.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

from bench import agents as agent_classes
from bench import ask_many, bodies
from bench.harness import Case, Contestant, points
from bench.machine import usable_cores
from bench.sample import Sample, timed, warm_up
from fabric import Fabric
from fabric import Pool as FabricPool

MOST_WORKERS = 8
BATCHES = (1, 4, 16, 64, 256, 1_024)
CALLS = (1, 4, 16, 64, 256, 1_024, 4_096, 16_384)
_CALLS_A_MESSAGE = 75  # a point has at most one call for so many of the messages of the others
WORKERS, WORK, BATCH, CALL = "workers", "workers, 20 µs of work a message", "batch_size", "messages in a call"


def cases(quick: bool) -> list[Case]:
    """Return a curve for each setting."""
    messages = 50_000 if quick else 300_000
    workers = [*range(1, _most_workers() + 1)]
    return [
        _case(WORKERS, workers, messages, quick),
        _case(WORK, workers, messages // 10, quick),
        _case(BATCH, BATCHES, messages, quick),
        _case(CALL, CALLS, messages, quick),
    ]


def ours(axis: str, sizes: Sequence[int], messages: int, *, agent: str = "Echo") -> Sample:
    """Ask with each of these settings."""
    values = {}
    for size in sizes:
        if axis == WORK:
            values[f"{size:,}"] = [_with_work(size, messages)]
            continue
        given = {WORKERS: {"workers": size}, BATCH: {"batch_size": size}, CALL: {"call_size": size}}[axis]
        count = min(messages, size * messages // _CALLS_A_MESSAGE) if axis == CALL else messages
        values[f"{size:,}"] = ask_many.ours("bytes", count, agent=agent, **given).values["replies"]  # type: ignore[arg-type]
    return Sample(values, f"up to {messages:,} messages")


def pool(axis: str, sizes: Sequence[int], messages: int, *, ours: bool = False) -> Sample:
    """Map with each of these settings, by multiprocessing's Pool or by ours."""
    values = {}
    for size in sizes:
        sent = bodies.make("bytes", min(messages, size * messages // _CALLS_A_MESSAGE) if axis == CALL else messages)
        part = size if axis == CALL else len(sent)
        task = work if axis == WORK else same
        kind: Any = FabricPool if ours else multiprocessing.Pool
        with kind(1 if axis == CALL else size) as processes:
            processes.map(task, sent[: warm_up(len(sent))])
            calls = [sent[first : first + part] for first in range(0, len(sent), part)]
            seconds, found = timed(
                lambda calls=calls, task=task, its=processes: [its.map(task, call) for call in calls]
            )
        bodies.expect([body for part in found for body in part], sent, "results of map")
        values[f"{size:,}"] = [len(sent) / seconds]
    return Sample(values, f"up to {messages:,} messages")


def same(body: bytes) -> bytes:
    """The task."""
    return body


def work(body: bytes) -> bytes:
    """The task that takes 20 µs."""
    return agent_classes.busy(body)


def _with_work(workers: int, messages: int) -> float:
    sent = bodies.make("bytes", messages)
    with Fabric(workers=workers) as fabric:
        refs = list(islice(cycle(list(fabric.spawn_batch(agent_classes.Busy, ask_many.AGENTS))), messages))
        fabric.ask_many(refs[: warm_up(messages)], sent[: warm_up(messages)])
        seconds, replies = timed(lambda: fabric.ask_many(refs, sent))
    bodies.expect(replies, sent, "replies")
    return messages / seconds


def _case(axis: str, sizes: Sequence[int], messages: int, quick: bool) -> Case:
    options: dict[str, Any] = {"axis": axis, "sizes": sizes, "messages": messages}
    busy = 1 + max(sizes) if axis in (WORKERS, WORK) else 2
    contestants = [Contestant("fabric", "bench.scaling:ours", options, busy=busy, limit_s=120)]
    if axis != BATCH:
        contestants.append(Contestant("multiprocessing.Pool", "bench.scaling:pool", options, busy=busy, limit_s=120))
        options = options | {"ours": True}
        contestants.append(Contestant("fabric.Pool", "bench.scaling:pool", options, peer=False, busy=busy, limit_s=120))
    shown = axis.partition(",")[0]
    return Case(f"against {axis}", points(shown, sizes, "messages/s"), tuple(contestants), 1 if quick else 3)


def _most_workers() -> int:
    return min(MOST_WORKERS, max(4, usable_cores()))
