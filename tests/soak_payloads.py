"""Send large bodies in all ways while workers are killed; `python -m tests.soak_payloads --help`.

    coordinator, this thread      any way of sending, any size; keeps some of what comes back, looks at it later
    worker 1, 2: Store            look at all that comes, write to it, keep some, pass some on to one another
    a thread                      kills a worker at random moments

Each body is made from a seed: an old, a shifted or a foreign byte shows. In the end no arena may have a block or a
loan. What a process has for itself (anonymous memory, which private copies of pages are) must be within SLACK of
what it was after a warm-up, with what malloc keeps of freed memory given back before either look (of arrays of 16 MB
that is up to 43 MB, by chance): more would be copies of pages that were not dropped.
"""

import argparse
import ctypes
import functools
import gc
import logging
import os
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

from fabric import Agent, BackpressureError, Fabric
from tests.chaos.leaks import Leaks

SLACK = 32 << 20  # bytes: two of the largest bodies
ARENA = 96 << 20  # so small that senders wait for room now and then, though nothing else is busy
LARGEST = 16 << 20
LARGEST_OF_GROUP, LARGEST_OF_MANY = 3 << 20, 6 << 20
PATIENCE = 120
TILE = 4099  # bytes, a prime: no two pages of a body begin alike


@functools.lru_cache(maxsize=512)
def _tile(seed):
    return np.random.default_rng(seed).integers(0, 256, TILE, "u1")


def body(seed, size):
    """Return the bytes of this seed."""
    return np.resize(_tile(seed % 500), size)


def anonymous_bytes():
    """How much memory this process has that no other sees, but for what malloc keeps."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
    return 1024 * int(re.search(r"Anonymous: +(\d+)", Path("/proc/self/smaps_rollup").read_text())[1])


class Store(Agent):
    """Looks at all that comes, and keeps some of it for a while."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.kept = []

    def on_message(self, message):
        what, *arguments = message
        return getattr(self, what)(*arguments)

    def look(self, seed, array):
        """Compare; then spoil it, which nobody else may see; sometimes keep it."""
        array = getattr(array, "value", array)
        array = np.frombuffer(array, "u1") if isinstance(array, bytes) else array
        if not np.array_equal(array, body(seed, array.size)):
            raise ValueError(f"the {array.size:,} bytes of seed {seed} are not what was sent")
        if array.flags.writeable and array.size:
            array[self.chance.randrange(array.size)] ^= 0xFF
            if self.chance.random() < 0.2:
                array[:] = 0xAA
        if self.chance.random() < 0.1:
            self.kept.append((array, array.copy()))
        while len(self.kept) > self.chance.randrange(1, 8):
            was, copy = self.kept.pop(0)
            if not np.array_equal(was, copy):
                raise ValueError("what was kept has changed")
        return array.size

    def weigh(self, seed, array):
        """Compare, and allocate nothing that stays: for who looks at this process's memory."""
        if not np.array_equal(array, body(seed, array.size)):
            raise ValueError(f"the {array.size:,} bytes of seed {seed} are not what was sent")
        array[:] = 0

    def echo(self, seed, array):
        """Send back what came, or what is made anew."""
        self.look(seed, array.copy())
        return array if self.chance.random() < 0.5 else body(seed, array.size)

    def pass_on(self, other, seed, array):
        """Tell another agent; a full arena is no fault."""
        try:
            if self.chance.random() < 0.3:
                with self.context.loan(array.size, "u1") as mine:
                    mine[:] = array
                array = mine
            other.tell(("look", seed, array))
        except BackpressureError:
            return False
        return True

    def let_go(self):
        self.kept.clear()
        gc.collect()
        return self._host.arena.usage()[3], self._host.arena.usage()[5], anonymous_bytes()


class Soak:
    """One run: `step` does one thing, `end` says what is wrong."""

    def __init__(self, fab, seed):
        self.fab = fab
        self.chance = random.Random(seed)
        self.stores = [fab.spawn_batch(Store, 1, placement=k % 2, args=(seed + k,))[0] for k in range(6)]
        self.kept = []
        self.problems = []
        self.done = Counter()
        self.bytes = 0
        self._usual_wait, fab._arena.wait = fab._arena.wait, self._wait

    def _wait(self, reached, deadline):
        """Count how often the coordinator waits for room; what such a wait leaves behind is to be seen in the end."""
        self.done["wait for room"] += 1
        return self._usual_wait(reached, deadline)

    def step(self):
        """Send in some way."""
        way = self.chance.choice(("ask", "echo", "group", "many", "submit", "tell", "pass_on", "loan", "share", "keep"))
        seed, size = self.chance.randrange(1 << 30), int(2 ** self.chance.uniform(0, 24)) % (LARGEST + 1)
        self.done[way] += 1
        self.bytes += size
        getattr(self, "_" + way)(self.chance.choice(self.stores), seed, size)
        while len(self.kept) > self.chance.randrange(1, 6):
            seed, array = self.kept.pop(0)
            self._compare(array, body(seed, array.size), "what was kept here has changed")

    def _compare(self, came, expected, what):
        if not np.array_equal(came, expected):
            self.problems.append(what)

    def _ask(self, store, seed, size):
        sent = body(seed, size)
        sent = sent.tobytes() if seed % 3 == 0 else sent
        self._compare(store.ask(("look", seed, sent), timeout=PATIENCE), size, "a reply is wrong")

    def _echo(self, store, seed, size):
        came = store.ask(("echo", seed, body(seed, size)), timeout=PATIENCE)
        self._compare(came, body(seed, size), "what came back is not what was sent")
        self.kept.append((seed, came))

    def _group(self, store, seed, size):
        size = min(size, LARGEST_OF_GROUP)
        sizes = self.fab.ask_many(self.stores * 3, [("look", seed, body(seed, size))] * 18, timeout=PATIENCE)
        self._compare(sizes, [size] * 18, "replies are wrong")

    def _many(self, store, seed, size):
        size = min(size, LARGEST_OF_MANY)
        bodies = [("look", seed + k, body(seed + k, size)) for k in range(24)]
        self._compare(self.fab.ask_many([store] * 24, bodies, timeout=PATIENCE), [size] * 24, "replies are wrong")

    def _submit(self, store, seed, size):
        futures = [ref.submit(("echo", seed + k, body(seed + k, size))) for k, ref in enumerate(self.stores[:3])]
        for k, future in enumerate(futures):
            self._compare(future.result(PATIENCE), body(seed + k, size), "a future's result is wrong")

    def _tell(self, store, seed, size):
        for k in range(4):
            store.tell(("look", seed + k, body(seed + k, size)), timeout=PATIENCE)

    def _pass_on(self, store, seed, size):
        other = self.chance.choice(self.stores)
        store.tell(("pass_on", other, seed, body(seed, size)), timeout=PATIENCE)

    def _loan(self, store, seed, size):
        with self.fab.loan(size, "u1") as array:
            array[:] = body(seed, size)
            futures = [ref.submit(("look", seed, array)) for ref in self.stores]
            self._compare([future.result(PATIENCE) for future in futures], [size] * 6, "a loan's replies are wrong")
        self._compare(array, body(seed, size), "a loan was written to by a receiver")

    def _share(self, store, seed, size):
        with self.fab.share(body(seed, size)) as handle:
            for ref in self.stores:
                ref.tell(("look", seed, handle), timeout=PATIENCE)

    def _keep(self, store, seed, size):
        self._echo(store, seed, size)
        self.kept.append((seed, self.kept[-1][1]))

    def settled(self):
        """Let go of everything; return the anonymous memory of each process once no arena has anything in use."""
        self.kept.clear()
        self.fab.drain(timeout=PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while True:
            gc.collect()
            left = [store.ask(("let_go",), timeout=PATIENCE) for store in self.stores]
            ours = self.fab._arena.usage()
            if ours[3] == ours[5] == 0 and all(loans == blocks == 0 for loans, blocks, _ in left):
                return [anonymous_bytes(), left[0][2], left[1][2]]
            if time.monotonic() > deadline:
                self.problems.append(f"still in use: {ours[3:]} here, (loans, blocks, bytes) {left} in workers")
                return [0, 0, 0]


class Killer(threading.Thread):
    """Kills a worker from time to time."""

    def __init__(self, fab, seed, pause):
        super().__init__()
        self._fab, self._chance, self._pause = fab, random.Random(seed), pause
        self.stop = threading.Event()
        self.kills = 0

    def run(self):
        while not self.stop.wait(self._chance.uniform(0.1, 2 * self._pause)):
            worker = self._chance.choice(self._fab.statistics().workers)
            try:
                os.kill(worker.pid, signal.SIGKILL)
                self.kills += 1
            except ProcessLookupError:  # dead already
                pass


def run(seconds, seed, pause=1.0, megabytes=0):
    """Soak for so long, or with so many messages of 1 MB; return what is wrong, and the figures."""
    letters = []
    with Fabric(workers=2, arena_bytes=ARENA, max_restarts=10**6, max_attempts=10**6, on_error=letters.append) as fab:
        soak = Soak(fab, seed)
        for _ in range(1_000 if megabytes else 30):
            _one_megabyte(soak) if megabytes else soak.step()
        before = soak.settled()
        if megabytes:
            for _ in range(megabytes):
                _one_megabyte(soak)
            kills = 0
        else:
            kills = _soak(soak, seconds, seed, pause)
        after = soak.settled()
        soak.problems += sorted({str(letter.error) for letter in letters})
        figures = {"kills": kills, "MB": soak.bytes >> 20, "grown": [b - a for a, b in zip(before, after, strict=True)]}
        limit = (1 << 20) if megabytes else SLACK
        if max(figures["grown"]) > limit:
            soak.problems.append(f"anonymous memory has grown by {figures['grown']} bytes; {limit:,} are allowed")
        return soak.problems, figures | dict(soak.done)


def _soak(soak, seconds, seed, pause):
    killer = Killer(soak.fab, seed, pause)
    killer.start()
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not soak.problems:
            soak.step()
    finally:
        killer.stop.set()
        killer.join()
    return killer.kills


def _one_megabyte(soak):
    seed = soak.done["1 MB"] = soak.done["1 MB"] + 1
    soak.bytes += 1 << 20
    soak.stores[seed % 6].tell(("weigh", seed, body(seed, 1 << 20)))


def main():
    """Run what the command line says; exit 1 when anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak_payloads", description="Large bodies, and kills.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between kills, on average")
    parser.add_argument("--megabytes", type=int, default=0, help="instead: so many messages of 1 MB, and no kills")
    asked = parser.parse_args()
    logging.getLogger("fabric").setLevel(logging.ERROR)  # a line for each kill is no news here
    print(f"seed {asked.seed}", flush=True)
    run(1, asked.seed)  # warms up what is made once
    leaks = Leaks(memory=False)
    problems, figures = run(60 * asked.minutes, asked.seed, asked.pause, asked.megabytes)
    problems += leaks.found()
    print(figures)
    for problem in problems:
        print("WRONG:", problem)
    return int(bool(problems))


if __name__ == "__main__":
    from tests import soak_payloads  # by this name workers know it too

    sys.exit(soak_payloads.main())
