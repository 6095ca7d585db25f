"""One message there and back, timed one at a time: the same loop for ours and for each peer."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench import bodies
from bench.sample import Sample, WrongAnswerError, warm_up

METRIC = "round trip"


def ping(ask: Callable[[bytes], bytes], trips: int, silence_us: float) -> Sample:
    """Ask `trips` times, each time after `silence_us` of sleep (0: at once); return the latencies in µs.

    `ask` sends one 64-byte body and returns the reply, which must equal it.
    Raises: WrongAnswerError.
    """
    clock = time.perf_counter_ns
    pause = silence_us / 1e6
    warm = warm_up(trips)
    taken: list[float] = []
    for body in bodies.make("bytes", warm + trips):
        if pause:
            time.sleep(pause)
        start = clock()
        reply = ask(body)
        taken.append((clock() - start) / 1e3)
        if reply != body:
            raise WrongAnswerError(f"asked {bodies.short(body)}, the reply is {bodies.short(reply)}")
    return Sample({METRIC: taken[warm:]}, f"{trips:,} trips a round")
