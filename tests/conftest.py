"""Guards for every test: what a test starts, opens or maps is gone when it ends.

Looked at before and after each test, and again around the whole session for fixtures of a wider scope:

    processes      our descendants, orphans among them; one that ended but was not waited for counts too
    threads        of the operating system, so that those started in C are seen
    descriptors    by number and by what they refer to
    memfds         that are still mapped, though their descriptor may be closed
    /dev/shm       files of this user

What a wider fixture keeps alive is there before the test and does not count. Closing takes the kernel and
other threads a moment, so the second look is repeated until nothing is left or SETTLE_SECONDS have passed.
"""

import gc
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np  # noqa: F401 - its threads start on import and stay
import psutil
import pytest
import tqdm

from fabric import Fabric
from fabric.testing import InlineFabric

SETTLE_SECONDS = 2.0
MARK = "FABRIC_TEST_RUN"  # all that this run starts inherits it: an orphan has no parent to tell it by

os.environ[MARK] = str(os.getpid())
tqdm.tqdm.monitor_interval = 0  # else its thread stays for as long as the process does

Resources = dict[str, str]  # what identifies it: what else a reader wants to know


def _is_marked(pid: int) -> bool:
    try:
        return f"{MARK}={os.getpid()}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # ended since, or not ours to read
        return False


def _processes() -> Resources:
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    found = {}
    for pid in children | {pid for pid in psutil.pids() if _is_marked(pid)}:
        try:
            process = psutil.Process(pid)
            zombie = process.status() == psutil.STATUS_ZOMBIE
            command = process.name() if zombie else " ".join(process.cmdline())
            found[f"process {pid}"] = f"{process.status()}, {command}"
        except psutil.Error:  # ended since
            continue
    return found


def _threads() -> Resources:
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    found = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            found[f"thread {task.name}"] = names.get(int(task.name)) or (task / "comm").read_text().strip()
        except OSError:
            continue
    return found


def _descriptors() -> Resources:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[f"descriptor {number} of {os.readlink(f'/proc/self/fd/{number}')}"] = "still open"
        except OSError:  # the one that listed the folder
            continue
    return found


def _memory() -> Resources:
    mapped = re.findall(r"(\d+) +(/memfd:.*)", Path("/proc/self/maps").read_text())
    return {f"memfd with inode {inode}": f"still mapped, {name}" for inode, name in mapped}


def _shm_files() -> Resources:
    found = {}
    for entry in os.scandir("/dev/shm"):
        try:
            if entry.stat(follow_symlinks=False).st_uid == os.getuid():
                found[f"file {entry.path}"] = "not removed"
        except OSError:
            continue
    return found


def _held() -> Resources:
    return _processes() | _threads() | _descriptors() | _memory() | _shm_files()


def _guard() -> Iterator[None]:
    before = _held()
    yield
    deadline = time.monotonic() + SETTLE_SECONDS
    collected = False
    while left := {name: detail for name, detail in _held().items() if name not in before}:
        if time.monotonic() > deadline:
            lines = "\n".join(f"  {name}: {detail}" for name, detail in sorted(left.items()))
            pytest.fail(f"left behind after {SETTLE_SECONDS:.0f} s:\n{lines}", pytrace=False)
        if not collected:
            gc.collect()
            collected = True
        time.sleep(0.005)  # a poll: no single event says that processes, threads and descriptors are all gone


@pytest.fixture(scope="module", params=[Fabric, InlineFabric], ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> Iterator[type[Fabric]]:
    """Run a test with real workers, and again in this process: what users see must not differ."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fabric.pump.LINGER", 0.0)  # else each test with futures waits for the pump to leave
        yield request.param


@pytest.fixture(scope="module")
def fab(kind: type[Fabric]) -> Iterator[Fabric]:
    """A fabric of two workers, shared by the tests of a module. Dead letters do not go to the log."""
    with kind(workers=2, on_error=lambda letter: None) as fabric:
        yield fabric


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Fail a test that leaves a process, thread, descriptor, mapped memfd or /dev/shm file."""
    yield from _guard()


@pytest.fixture(autouse=True, scope="session")
def nothing_is_left_behind_by_wider_fixtures() -> Iterator[None]:
    """Fail at the end of the session when the fixtures of a module, or of the session, leave something."""
    yield from _guard()
