"""concurrent.futures.ProcessPoolExecutor with one worker: one submit per message or array, and an idle one."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from bench import bodies, processes
from bench.arrays import Job, answer, run
from bench.sample import Sample, WrongAnswerError, timed, warm_up


def echo(body: Any) -> Any:
    """The task: return the body."""
    return body


def ask(kind: str, messages: int) -> Sample:
    """Submit a task per body, then collect the results in order."""
    sent = bodies.make(kind, messages)
    with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as executor:

        def ask_each(some: list[Any]) -> list[Any]:
            futures = [executor.submit(echo, body) for body in some]
            return [future.result() for future in futures]

        ask_each(sent[: warm_up(messages)])
        seconds, replies = timed(lambda: ask_each(sent))
    bodies.expect(replies, sent, "results of submit")
    return Sample({"replies": [messages / seconds]}, f"{messages:,} tasks")


def arrays(job: dict[str, Any]) -> Sample:
    """Submit a task per array."""
    wanted = Job(**job)
    with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as executor:
        return run(lambda array: executor.submit(answer, array, wanted.back).result(), wanted)


def idle(seconds: float) -> Sample:
    """Let an executor of one worker do nothing after one task."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as executor:
        if executor.submit(echo, 1).result() != 1:
            raise WrongAnswerError("submit does not return what was sent")
        return processes.watch_idle(seconds)
