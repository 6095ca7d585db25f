"""multiprocessing.Pool with one process: map with chunksize 1, imap_unordered, apply to arrays, and an idle one."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from typing import Any

from bench import bodies, processes
from bench.arrays import Job, answer, run
from bench.sample import Sample, WrongAnswerError, timed, warm_up


def echo(body: Any) -> Any:
    """The task: return the body."""
    return body


def ask_map(kind: str, messages: int) -> Sample:
    """Map the task over the bodies, each one a task of its own; the results come in order."""
    sent = bodies.make(kind, messages)
    with multiprocessing.Pool(1) as pool:
        pool.map(echo, sent[: warm_up(messages)], chunksize=1)
        seconds, replies = timed(lambda: pool.map(echo, sent, chunksize=1))
    bodies.expect(replies, sent, "results of Pool.map")
    return Sample({"replies": [messages / seconds]}, f"{messages:,} tasks, chunksize=1")


def ask_unordered(kind: str, messages: int) -> Sample:
    """As `ask_map`, the results in any order."""
    sent = bodies.make(kind, messages)
    with multiprocessing.Pool(1) as pool:
        list(pool.imap_unordered(echo, sent[: warm_up(messages)]))
        seconds, replies = timed(lambda: list(pool.imap_unordered(echo, sent)))
    if Counter(map(repr, replies)) != Counter(map(repr, sent)):
        raise WrongAnswerError("the results of imap_unordered are not what was sent")
    return Sample({"replies": [messages / seconds]}, f"{messages:,} tasks, in any order")


def arrays(job: dict[str, Any]) -> Sample:
    """Apply the task to one array at a time."""
    wanted = Job(**job)
    with multiprocessing.Pool(1) as pool:
        return run(lambda array: pool.apply(answer, (array, wanted.back)), wanted)


def idle(seconds: float) -> Sample:
    """Let a pool of one process do nothing after one task."""
    with multiprocessing.Pool(1) as pool:
        if pool.apply(echo, (1,)) != 1:
            raise WrongAnswerError("Pool.apply does not return what was sent")
        return processes.watch_idle(seconds)
