"""A nursery of coordinators for tests/native/syscall_tracer.c, and what each of them lives through.

Imports are done here, once; a line on stdin has a coordinator forked, which lives through all phases of a fabric
and writes what became of each into OUT/report, one line of JSON each. In whatever state a step leaves the
fabric, the next is tried, and the fabric is closed: an error may be reported, but then all goes on or ends.
"""

import contextlib
import faulthandler
import gc
import json
import os
import sys
import threading
import time

from fabric import Fabric, coordinator, replies, supervisor  # noqa: F401 - loaded here, once
from tests.agents import Counter
from tests.keeping_agents import Ledger

_MARK = 0x5AB00000  # as in the tracer: a call that fails, and says where we are
_PATIENCE = 5.0  # seconds for each wait of the scenario
_STUCK = 15.0  # seconds until the stacks of all threads are printed: the tracer's limit is a little later
PHASES = ("", "start", "spawn", "respawn", "resize", "shut down", "end")


def mark(phase):
    """Say to the tracer where we are."""
    with contextlib.suppress(ProcessLookupError):
        os.getpgid(_MARK + phase)


class Diary:
    """What became of each step."""

    def __init__(self, folder):
        self._file = os.open(f"{folder}/report", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def note(self, **facts):
        os.write(self._file, json.dumps(facts).encode() + b"\n")

    @contextlib.contextmanager
    def step(self, phase):
        """Note that a step was done, or the error it ended with."""
        mark(phase)
        try:
            yield
        except Exception as error:
            self.note(phase=phase, error=type(error).__name__, module=type(error).__module__, text=str(error))
        else:
            self.note(phase=phase, done=True, at=time.monotonic())


def live(diary, start_method):
    """Go through all phases of a fabric."""
    fab = None
    before = _held()
    with diary.step(1):
        fab = Fabric(
            workers=2,
            max_workers=3,
            start_method=start_method,
            lane_bytes=2**16,
            outbox_bytes=2**16,
            journal_bytes=2**16,
            arena_bytes=0,
            max_agents=64,
            on_error=lambda letter: None,
        )
    if fab is not None:
        _use(diary, fab)
        with diary.step(5):
            fab.close(drain=False)
    mark(0)  # what looks at the end must not fail
    del fab
    gc.collect()
    deadline = time.monotonic() + 2.0
    while (left := _held() - before) and time.monotonic() < deadline:
        time.sleep(0.005)
    diary.note(phase=6, left=sorted(left))
    mark(6)


def _use(diary, fab):
    """Have agents handle 1, 2 and 3, each once, whatever happens meanwhile: they answer with how many they had."""
    ledgers = None
    for _ in range(2):  # what goes wrong once is told, and over
        if ledgers is None:
            with diary.step(2):
                made = fab.spawn_batch(Ledger, 4, snapshot_every=1)
                assert made.ask_all(1, timeout=_PATIENCE) == [1] * 4
                ledgers = made
    if ledgers is None:
        return
    with diary.step(3):
        fab._supervisor.crew.kill(1)  # by pidfd: it may be dead already
        assert ledgers.ask_all(2, timeout=_PATIENCE) == [2] * 4
    with diary.step(4):
        fab.resize(3)
        more = fab.spawn_batch(Counter, 3, start=10)
        assert more.ask_all(1, timeout=_PATIENCE) == [11] * 3
        more.stop()
        fab.resize(2)
        assert ledgers.ask_all(3, timeout=_PATIENCE) == [3] * 4
        assert ledgers.ask_all("all", timeout=_PATIENCE) == [[1, 2, 3]] * 4


def _held():
    """What this process holds: descriptors, threads, children, mapped memfds."""
    held = {f"thread {thread.name}" for thread in threading.enumerate()}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            held.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/children", encoding="ascii") as file:
            held |= {f"child {pid}" for pid in file.read().split()}
    with open("/proc/self/maps", encoding="utf-8") as file:
        held |= {"a mapped memfd" for line in file if "/memfd:" in line}
    return {name for name in held if not name.endswith(f"/proc/{os.getpid()}/fd")}


# What the tests of the tracer itself look for: see tests/test_syscalls.py.


def leave_a_process(diary):
    """Leave a process behind that nobody ends."""
    mark(1)
    if os.fork() == 0:
        time.sleep(100)
    diary.note(phase=6, left=[])


def hang(diary):
    """Never end."""
    mark(1)
    time.sleep(100)


def grow_heap(diary):
    """Have malloc ask for more heap, and use what it gives."""
    mark(1)
    blocks = [bytes(100_000) for _ in range(100)]  # below what malloc maps apart
    diary.note(phase=6, left=[], bytes=sum(map(len, blocks)))
    mark(6)


SCENARIOS = {
    "nothing": lambda diary: None,
    "forkserver": lambda diary: live(diary, "forkserver"),
    "spawn": lambda diary: live(diary, "spawn"),
    "leaves-a-process": leave_a_process,
    "hangs": hang,
    "grows": grow_heap,
}


def nursery(folder):
    """Fork a coordinator for each line on stdin; in the coordinator, return its scenario."""
    for line in iter(sys.stdin.readline, ""):
        pid = os.fork()
        if pid == 0:
            assert sys.stdin.readline() == "go\n"
            _settle(folder)
            return SCENARIOS[line.strip()]
        print(pid, flush=True)
        os.waitpid(pid, 0)
    return None


def _settle(folder):
    for number, name, flags in ((0, "/dev/null", os.O_RDONLY), (1, f"{folder}/out", os.O_WRONLY | os.O_CREAT)):
        opened = os.open(name, flags | os.O_TRUNC if number else flags)
        os.dup2(opened, number)
        if number == 1:
            os.dup2(opened, 2)
        os.close(opened)
    faulthandler.enable()
    faulthandler.dump_traceback_later(_STUCK)


if __name__ == "__main__":
    chosen = nursery(sys.argv[1])
    if chosen is not None:
        chosen(Diary(sys.argv[1]))
        faulthandler.cancel_dump_traceback_later()
