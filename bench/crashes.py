"""What survives when a worker is killed, and what is left when the whole program is?

::

    this process ── starts ──▶ program of bench.crash_users ──▶ two workers
         │                        └─ kills a worker (busy, or idle before the work), counts its 200 tasks
         └── kill -9 ──▶ program; 5 s later: its processes, semaphores, files

Tasks sleep 10 ms; those that neither finish nor fail within 5 s more hang. A program's processes are known by a
mark in their environment, semaphores and files in /dev/shm by being new there, so nothing else may run. What is left
is removed afterwards, the processes by their pid. What would change our minds: a peer that finishes all tasks and
leaves nothing either, or ours doing less.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.crash_tasks import TASKS
from bench.harness import ROOT, Case, Contestant, Metric
from bench.sample import Sample

FINISHED = Metric("finished", f"of {TASKS} tasks")
USABLE = Metric("usable afterwards", "1: yes")
LEFT = Metric("left behind", "things", higher_is_better=False)
PEERS = {  # by name in crash_users: the module that must be installed
    "multiprocessing.Pool": "",
    "ProcessPoolExecutor": "",
    "loky": "loky",
    "pebble": "pebble",
    "joblib": "joblib",
    "mpire": "mpire",
    "multiprocessing.Queue": "",
    "Ray actors": "ray",
    "iceoryx2": "iceoryx2",
}
OURS = {"fabric": "", "fabric.Executor": "", "fabric.Pool": "fabric.pool"}  # agents; and the drop-ins
_MARK = "BENCH_CRASHES"
_LIMIT = 25.0  # seconds that a program may take
_SETTLE = 5.0  # seconds from the kill to the count
_SHM = Path("/dev/shm")


def cases(quick: bool) -> list[Case]:
    """Return the three cases."""
    rounds = 1 if quick else 5
    workers = "one of two workers killed"
    return [
        Case(f"{workers} while busy", (FINISHED, USABLE), _contestants("lose_a_worker", what="busy"), rounds),
        Case(f"{workers} while idle", (FINISHED, USABLE), _contestants("lose_a_worker", what="idle"), rounds),
        Case("5 s after kill -9 of the program", (LEFT,), _contestants("orphan", iceoryx2=True), min(rounds, 3)),
    ]


def lose_a_worker(user: str, what: str) -> Sample:
    """Have a program lose a worker; return what became of its tasks."""
    with _program(user, what) as (program, folder):
        program.wait(_LIMIT)
        answer = Path(folder, "answer.json")
        if not answer.exists():
            raise RuntimeError(f"{user} ended with status {program.returncode} and said nothing")
        found = json.loads(answer.read_text())
    if not found["killed"]:
        raise RuntimeError(f"{user} had no worker that could be killed")
    hung = TASKS - found["finished"] - found["errors"]
    note = f"{found['errors']} failed, {hung} never ended" if found["finished"] < TASKS else "all done"
    return Sample({FINISHED.name: [found["finished"]], USABLE.name: [found["usable"]]}, note)


def orphan(user: str) -> Sample:
    """Kill a program that works; return what is left of it 5 s later."""
    before = set(_SHM.iterdir())
    with _program(user, "work") as (program, folder):
        assert program.stdout is not None
        if not program.stdout.readline():
            raise RuntimeError(f"{user} did not come to work")
        program.kill()
        program.wait()
        time.sleep(_SETTLE)
        processes = _marked(folder)
        shared = [path for path in _SHM.iterdir() if path not in before]
        semaphores = [path for path in shared if path.name.startswith("sem.")]
        files = [path for path in (*shared, *Path(folder).rglob("*")) if path.is_file() and path not in semaphores]
        files += [path for one in shared if one.is_dir() for path in one.rglob("*") if path.is_file()]
        size = sum(path.stat().st_blocks * 512 for path in files)
        _end(processes)
        _remove(before)
    count = len(processes) + len(semaphores) + len(files)
    note = f"{len(processes)} processes, {len(semaphores)} semaphores, {len(files)} files of {size / 1e6:.1f} MB"
    return Sample({LEFT.name: [count]}, note if count else "nothing")


def _contestants(function: str, iceoryx2: bool = False, **options: str) -> tuple[Contestant, ...]:
    users = OURS | PEERS
    return tuple(
        Contestant(
            name,
            f"bench.crashes:{function}",
            {"user": name, **options},
            needs,
            slow=name == "Ray actors",
            peer=name not in OURS,
            limit_s=_LIMIT + 15,
        )
        for name, needs in users.items()
        if iceoryx2 or name != "iceoryx2"
    )


@contextmanager
def _program(user: str, what: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start a program with a folder of its own for temporary files; end all that it started, at last."""
    folder = tempfile.mkdtemp(prefix=f"crash-{secrets.token_hex(4)}-")
    program = subprocess.Popen(
        [sys.executable, "-m", "bench.crash_users", user, what],
        cwd=ROOT,
        env=os.environ | {_MARK: folder, "TMPDIR": folder},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield program, folder
    finally:
        program.kill()
        _end(_marked(folder))
        program.wait()
        if program.stdout is not None:
            program.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


def _marked(folder: str) -> list[psutil.Process]:
    """The processes of a program that have not ended."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
            ended = process.status() == psutil.STATUS_ZOMBIE
            if not ended and f"{_MARK}={folder}".encode() in environment.split(b"\0"):
                found.append(process)
    return found


def _end(processes: list[psutil.Process]) -> None:
    """Kill processes; resource trackers get the time to clean up behind the others."""
    for tracker in (False, True):
        some = [one for one in processes if one.is_running() and ("resource_tracker" in _line(one)) == tracker]
        if tracker:
            psutil.wait_procs(some, 2.0)
        for process in some:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)  # looks whether the pid is still its own


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _remove(before: set[Path]) -> None:
    """Remove from /dev/shm what our programs leave there; anybody else's is not ours to touch."""
    ours = ("sem.loky-", "sem.mp-", "loky-", "joblib_memmapping_folder_", "crash-")
    for path in _SHM.iterdir():
        if path not in before and path.name.startswith(ours):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
