"""What do many threads that tell through one fabric get done, against one?

::

    1 to 10 threads of this process ── tell, or tell_many(256), 64 bytes ──▶ one worker, an agent for each thread

Two cores, and one lock of Python for all threads: more of them cannot do more, but they may do less. The rate is of
all threads together, until the last message was handled. Each agent keeps what its thread told it, in order, which is
then compared. The peers' one consumer does the same. What would change our minds: ten threads that get less done than
half of what one does, or less than ten do with multiprocessing's queue, whose put only appends to a deque.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench import agents as agent_classes
from bench import bodies
from bench.harness import Case, Contestant, points
from bench.peers import stream
from bench.sample import Sample, warm_up
from fabric import Fabric

THREADS = (1, 2, 4, 10)
BATCH = 256
JOIN_S = 60.0
Publish = Callable[[int, Sequence[bytes]], None]  # by the thread of this number


def cases(quick: bool) -> list[Case]:
    """Return the case of single messages, and that of batches."""
    one, many = (40_000, 200_000) if quick else (200_000, 1_000_000)
    return [_case("one by one", 1, one, quick), _case(f"batches of {BATCH}", BATCH, many, quick)]


def ours(messages: int, batch: int, *, threads: Sequence[int] = THREADS, agent: str = "Sink") -> Sample:
    """Tell agents; then have an auditor of the same worker count and digest what they kept."""
    values = {}
    for count in threads:
        with Fabric(workers=1) as fabric:
            refs = list(fabric.spawn_batch(getattr(agent_classes, agent), count, each={"index": range(count)}))
            auditor = fabric.spawn_batch(agent_classes.Auditor, 1)[0]

            def publish(thread: int, part: Sequence[bytes], fabric: Fabric = fabric, refs: list[Any] = refs) -> None:
                if batch == 1:
                    tell = refs[thread].tell
                    for body in part:
                        tell(body)
                    return
                to = [refs[thread]] * batch
                for first in range(0, len(part), batch):
                    some = part[first : first + batch]
                    fabric.tell_many(to[: len(some)], some)

            for due in (warm_up(messages), messages):
                start, sent = in_threads(count, due, publish)
                fabric.drain(timeout=JOIN_S)
                seconds = time.perf_counter() - start
                stream.check(tuple(auditor.ask(None)), sent)
        values[f"{count:,}"] = [messages / seconds]
    return Sample(values, f"{messages:,} messages")


def in_threads(threads: int, messages: int, publish: Publish) -> tuple[float, list[bytes]]:
    """Have threads publish their shares; return when they began, once all are done, and the bodies by thread."""
    sent = bodies.make("bytes", messages)
    shares = [sent[messages * thread // threads : messages * (thread + 1) // threads] for thread in range(threads)]
    gate = threading.Barrier(threads + 1)
    failed: list[BaseException] = []

    def work(thread: int) -> None:
        gate.wait()
        try:
            publish(thread, shares[thread])
        except BaseException as error:
            failed.append(error)

    started = [threading.Thread(target=work, args=(thread,), daemon=True) for thread in range(threads)]
    for thread in started:
        thread.start()
    gate.wait()
    start = time.perf_counter()
    for thread in started:
        thread.join(JOIN_S)
    if failed:
        raise failed[0]
    return start, sent


def _case(name: str, batch: int, messages: int, quick: bool) -> Case:
    options = {"messages": messages, "batch": batch}
    slower = options | {"messages": messages // (2 if batch == 1 else 10)}
    contestants = (
        Contestant("fabric", "bench.publishers:ours", options, limit_s=120),
        Contestant("multiprocessing.Queue", "bench.peers.publishers:mp_queue", slower, limit_s=120),
        Contestant("faster-fifo", "bench.peers.publishers:fifo", slower, "faster_fifo", limit_s=120),
        Contestant("fabric.Queue", "bench.peers.publishers:ours", options, peer=False, limit_s=120),
    )
    return Case(name, points("threads", THREADS, "messages/s"), contestants, 1 if quick else 3)
