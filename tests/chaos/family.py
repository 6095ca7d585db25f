"""Kill a whole program: its coordinator, its fork server and its workers, in any order, in any phase of its life.

    this process ── starts ──▶ program (coordinator) ──▶ fork server ──▶ workers
         └──────── SIGKILL, SIGSTOP, SIGCONT to any of them ─────────────┘

Afterwards none of them runs, no file is left in its folder for temporary files or in /dev/shm, and it has printed
nothing but that workers were killed. They are known by a mark in their environment: an orphan has no parent.
"""

import os
import random
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_MARK = "CHAOS_FAMILY"
_GONE = 5.0  # seconds until the last process has ended: a worker takes 1 s to notice, on a machine that is busy
_STARTED = 30.0  # seconds that the program has to say that it works
_ROOT = Path(__file__).resolve().parents[2]
_SAID_OF_KILLED = ("a successor takes over", "given up", "the fork server")
ORDERS = ("coordinator", "server first", "workers first", "shuffled", "group", "stopped workers", "stopped all")


@dataclass(frozen=True)
class Assault:
    """How one program is killed: `after` seconds from its start, or from its word that it works."""

    order: str
    working: bool
    after: float
    gap: float  # seconds between two kills
    seed: int


def draw(seed: int, programs: int) -> list[Assault]:
    """Return an assault for each program. Pure."""
    dice = random.Random(seed)
    assaults = []
    for number in range(programs):
        working = dice.random() < 0.7
        after = dice.uniform(0, 0.25) if working else dice.uniform(0, 0.8)
        gap = dice.choice((0.0, dice.uniform(0, 0.002), dice.uniform(0, 0.05)))
        assaults.append(Assault(ORDERS[number % len(ORDERS)], working, after, gap, dice.randrange(1 << 32)))
    return assaults


def run(assault: Assault) -> tuple[int, list[str]]:
    """Start a program and kill it; return how many processes were killed, and what was left or said."""
    mark = secrets.token_hex(8)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, tempfile.TemporaryFile() as errors:
        program = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.program"],
            cwd=_ROOT,
            env=os.environ | {_MARK: mark, "TMPDIR": folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        with program:
            try:
                problems = _await(program, assault)
                killed = _strike(program, mark, assault)
                program.wait(_GONE)
                problems += _remaining(mark)
            finally:
                for process in _family(mark):
                    process.kill()
        errors.seek(0)
        said = errors.read().decode(errors="replace").splitlines()
        problems += [f"said: {line}" for line in said if not any(known in line for known in _SAID_OF_KILLED)]
        problems += [f"left behind: file {path}" for path in Path(folder).rglob("*")]
    return killed, problems


def _await(program: "subprocess.Popen[bytes]", assault: Assault) -> list[str]:
    """Wait until the moment has come."""
    assert program.stdout is not None
    if assault.working and not select.select([program.stdout], [], [], _STARTED)[0]:
        return [f"no fabric within {_STARTED:g} s"]
    time.sleep(assault.after)
    return []


def _strike(program: "subprocess.Popen[bytes]", mark: str, assault: Assault) -> int:
    """Kill all, in the order asked for; those that are started meanwhile are left to find out by themselves."""
    coordinator = psutil.Process(program.pid)
    others = [process for process in _family(mark) if process.pid != program.pid]
    workers = [process for process in others if _parent(process) != program.pid]  # the fork server's children
    servers = [process for process in others if process not in workers]
    stopped: list[psutil.Process] = []
    match assault.order:
        case "coordinator":
            victims = [coordinator]
        case "server first":
            victims = [*servers, coordinator]
        case "workers first":
            victims = [*workers, coordinator]
        case "shuffled":
            victims = [coordinator, *others]
            random.Random(assault.seed).shuffle(victims)
        case "group":
            os.killpg(program.pid, signal.SIGKILL)
            return 1 + len(others)
        case "stopped workers":
            victims, stopped = [coordinator], others
        case _:
            victims, stopped = [*servers, coordinator], [coordinator, *others]
    _each(stopped, signal.SIGSTOP, 0.0)
    _each(victims, signal.SIGKILL, assault.gap)
    _each(stopped, signal.SIGCONT, assault.gap)
    return len(victims)


def _each(processes: list[psutil.Process], what: int, gap: float) -> None:
    for process in processes:
        try:
            process.send_signal(what)  # looks whether the pid is still its own
        except psutil.NoSuchProcess:
            continue
        time.sleep(gap)


def _parent(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return 0


def _remaining(mark: str) -> list[str]:
    deadline = time.monotonic() + _GONE
    while left := _family(mark):
        if time.monotonic() > deadline:
            return [f"still runs: {process}" for process in left]
        time.sleep(0.01)
    return []


def _family(mark: str) -> list[psutil.Process]:
    """The processes that carry the mark and have not ended."""
    found = []
    for pid in psutil.pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            if f"{_MARK}={mark}".encode() in environment.split(b"\0"):
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        except (OSError, psutil.NoSuchProcess):
            continue
    return found
