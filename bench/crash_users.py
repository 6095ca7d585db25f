"""Programs that use the fabric or a peer with two workers, for bench.crashes to kill: `python -m bench.crash_users`.

Each begins tasks that sleep and return their number, and gathers what became of them until a deadline. Peers are
used as their documentation shows, with what they offer for a worker's death turned on.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil

from bench.crash_tasks import SECONDS, TASKS, WORKERS, Called, Futures, Tally, work

KILL_AFTER = 0.4  # seconds: in the middle
PATIENCE = 5.0  # seconds, at least the fivefold of what the rest of the work takes: then it hangs


class FabricAgents(Futures):
    """Ours: ten agents."""

    def __init__(self) -> None:
        from bench.agents import Worker
        from fabric import Fabric

        self._fabric = Fabric(workers=WORKERS)
        self._agents = self._fabric.spawn_batch(Worker, 10)

    def pids(self) -> list[int]:
        """The workers."""
        return [worker.pid for worker in self._fabric.statistics().workers]

    def submit(self, number: int, seconds: float) -> Future[int]:
        """Ask an agent."""
        return self._agents[number % 10].submit((number, seconds))


class Executor(Futures):
    """ProcessPoolExecutor."""

    def __init__(self) -> None:
        from concurrent.futures import ProcessPoolExecutor

        self._executor: Any = ProcessPoolExecutor(WORKERS)

    def pids(self) -> list[int]:
        """The workers."""
        return list(self._executor._processes)

    def submit(self, number: int, seconds: float) -> Future[int]:
        """Submit."""
        future: Future[int] = self._executor.submit(work, number, seconds)
        return future


class FabricExecutor(Executor):
    """Ours: fabric.Executor."""

    def __init__(self) -> None:
        from fabric import Executor

        self._executor = Executor(WORKERS)


class Loky(Executor):
    """loky's reusable executor: got anew for each run, as it is meant to be."""

    def __init__(self) -> None:
        self._loky = importlib.import_module("loky")

    def begin(self, count: int, seconds: float) -> None:
        """Get the executor, then as others."""
        self._executor = self._loky.get_reusable_executor(max_workers=WORKERS)
        super().begin(count, seconds)


class Pool(Futures):
    """multiprocessing.Pool, by apply_async."""

    def __init__(self) -> None:
        self._pool: Any = multiprocessing.Pool(WORKERS)

    def pids(self) -> list[int]:
        """The workers."""
        return [process.pid for process in multiprocessing.active_children() if process.pid]

    def submit(self, number: int, seconds: float) -> Future[int]:
        """Apply, with the result put into a future."""
        future: Future[int] = Future()
        self._pool.apply_async(work, (number, seconds), {}, future.set_result, future.set_exception)
        return future


class FabricPool(Pool):
    """Ours: fabric.Pool."""

    def __init__(self) -> None:
        from fabric import Pool

        self._pool = Pool(WORKERS)

    def pids(self) -> list[int]:
        """The workers: what the fork server has started."""
        found = psutil.Process().children(recursive=True)
        return [child.pid for child in found if child.ppid() != os.getpid()]


class Pebble(Executor):
    """pebble's ProcessPool."""

    def __init__(self) -> None:
        self._executor = importlib.import_module("pebble").ProcessPool(max_workers=WORKERS)

    def pids(self) -> list[int]:
        """The workers."""
        return [process.pid for process in multiprocessing.active_children() if process.pid]

    def submit(self, number: int, seconds: float) -> Future[int]:
        """Schedule."""
        future: Future[int] = self._executor.schedule(work, args=(number, seconds))
        return future


class Joblib(Called):
    """joblib.Parallel; its tasks share an array, which joblib puts into /dev/shm."""

    def __init__(self) -> None:
        import numpy

        self._joblib = importlib.import_module("joblib")
        self._data = numpy.zeros(5_000_000)  # 40 MB

    def pids(self) -> list[int]:
        """The workers of the executor below."""
        return _children("loky")

    def call(self, count: int, seconds: float) -> Iterable[int]:
        """One Parallel."""
        tasks = (self._joblib.delayed(work)(number, seconds, self._data) for number in range(count))
        results: Iterable[int] = self._joblib.Parallel(n_jobs=WORKERS, return_as="generator")(tasks)
        return results


class Mpire(Called):
    """mpire's WorkerPool, by imap."""

    def __init__(self) -> None:
        self._pool: Any = importlib.import_module("mpire").WorkerPool(n_jobs=WORKERS, keep_alive=True)

    def pids(self) -> list[int]:
        """The workers."""
        return _children("crash_users")

    def call(self, count: int, seconds: float) -> Iterable[int]:
        """One imap."""
        results: Iterable[int] = self._pool.imap(work, [(number, seconds) for number in range(count)], chunk_size=1)
        return results


class Queues(Called):
    """Two consumers on one multiprocessing.Queue, results in another."""

    def __init__(self) -> None:
        self._tasks: Any = multiprocessing.Queue()
        self._done: Any = multiprocessing.Queue()
        self._processes = [multiprocessing.Process(target=self._consume, daemon=True) for _ in range(WORKERS)]
        for process in self._processes:
            process.start()

    def _consume(self) -> None:
        while True:
            self._done.put(work(*self._tasks.get()))

    def pids(self) -> list[int]:
        """The consumers."""
        return [process.pid for process in self._processes if process.pid]

    def call(self, count: int, seconds: float) -> Iterator[int]:
        """Put all, get all."""
        for number in range(count):
            self._tasks.put((number, seconds))
        for _ in range(count):
            yield self._done.get()


class Ray(Called):
    """Two Ray actors that may be restarted and whose tasks may be retried, without end."""

    def __init__(self) -> None:
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        self._ray: Any = importlib.import_module("ray")
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
        self._ray.init(num_cpus=WORKERS, _node_ip_address="127.0.0.1", object_store_memory=100 << 20, **quiet)
        actor = self._ray.remote(_RayWorker).options(max_restarts=-1, max_task_retries=-1, num_cpus=0)
        self._actors = [actor.remote() for _ in range(WORKERS)]

    def pids(self) -> list[int]:
        """The actors' processes."""
        found: list[int] = self._ray.get([actor.pid.remote() for actor in self._actors])
        return found

    def call(self, count: int, seconds: float) -> Iterator[int]:
        """Call the actors in turn."""
        refs = [self._actors[number % WORKERS].work.remote(number, seconds) for number in range(count)]
        for ref in refs:
            yield self._ray.get(ref)


class _RayWorker:
    def pid(self) -> int:
        return os.getpid()

    def work(self, number: int, seconds: float) -> int:
        return work(number, seconds)


class Iceoryx:
    """An iceoryx2 publisher and a subscriber in another process; for what is left behind only."""

    def __init__(self) -> None:
        from bench.peers.iceoryx import Node

        folder = os.environ["TMPDIR"]
        self._send = Node(folder).sender("bodies")
        threading.Thread(target=self._publish, daemon=True).start()
        self._process = multiprocessing.get_context("spawn").Process(target=_subscribe, args=(folder,), daemon=True)
        self._process.start()

    def _publish(self) -> None:
        while True:
            self._send(bytes(64))
            time.sleep(0.01)

    def begin(self, count: int, seconds: float) -> None:
        """Nothing: it streams all the time."""

    def gather(self, deadline: float) -> Tally:
        """Give the subscriber time to start."""
        time.sleep(1.0)
        return Tally(0, 0)


def _subscribe(folder: str) -> None:
    from bench.peers.iceoryx import Node

    receive = Node(folder).receiver("bodies")
    while True:
        receive()
        time.sleep(0.001)


def _children(word: str) -> list[int]:
    """The children of this process that have a word in their command line, without helpers."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            line = " ".join(child.cmdline())
            if word in line and "resource_tracker" not in line:
                found.append(child.pid)
    return found


USERS: dict[str, Callable[[], Any]] = {
    "fabric": FabricAgents,
    "fabric.Executor": FabricExecutor,
    "fabric.Pool": FabricPool,
    "multiprocessing.Pool": Pool,
    "ProcessPoolExecutor": Executor,
    "loky": Loky,
    "pebble": Pebble,
    "joblib": Joblib,
    "mpire": Mpire,
    "multiprocessing.Queue": Queues,
    "Ray actors": Ray,
    "iceoryx2": Iceoryx,
}


def lose_a_worker(user: Any, idle: bool) -> dict[str, int]:
    """Kill a worker in the middle of the tasks, or just before them while it has nothing to do.

    Returns what became of the tasks, and whether others can be done after.
    """
    user.begin(WORKERS, 0.0)
    user.gather(time.monotonic() + PATIENCE)
    time.sleep(KILL_AFTER)
    killed: list[int] = []

    def kill() -> None:
        killed.append(user.pids()[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Timer(0.0 if idle else KILL_AFTER, kill)
    killer.start()
    if idle:
        killer.join()
        time.sleep(KILL_AFTER)
    user.begin(TASKS, SECONDS)
    tally = user.gather(time.monotonic() + TASKS * SECONDS / WORKERS + PATIENCE)
    try:
        user.begin(10, SECONDS)
        usable = user.gather(time.monotonic() + PATIENCE).finished == 10
    except Exception:
        usable = False
    return {**tally._asdict(), "usable": int(usable), "killed": len(killed)}


def main(name: str, what: str) -> None:
    """Do what bench.crashes asks for: lose a "busy" or an "idle" worker, or "work" until killed."""
    user = USERS[name]()
    if what in ("busy", "idle"):
        answer = Path(os.environ["TMPDIR"], "answer.json")  # no pipe: workers that live on would hold it open
        answer.write_text(json.dumps(lose_a_worker(user, what == "idle")))
        os._exit(0)  # what hangs would hold us up
    user.begin(WORKERS, 0.0)
    user.gather(time.monotonic() + PATIENCE)
    user.begin(10, 100.0)
    time.sleep(0.5)
    print("working", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
