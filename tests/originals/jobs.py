"""Run one part of a suite, for one side, in a process of its own, with a time limit on each test.

    run() ── driver (a session of its own) ── the suite ── whatever its tests start
      │         │
      └─ pipe ──┘ one line an event

A test over its limit is ended with its whole session, and counts as failed; so does one that takes its process along. A
new driver goes on with the tests that are left.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.originals.suites import Part
from tests.originals.verdict import Outcome, Outcomes

ROOT = Path(__file__).parents[2]
LOGS = ROOT / "build" / "originals" / "{}.{}-logs".format(*sys.version_info)


@dataclass(frozen=True)
class Side:
    """Whom the suite meets: "original", "fabric", "same" or "faulty"; and what every driver is told."""

    subject: str
    limit: float  # seconds a test may take
    more_tests: str = ""  # a folder with modules of the package `test` that this Python lacks
    select: str = ""  # beside the part's own

    def environment(self, part: Part) -> dict[str, str]:
        paths = (str(Path(__file__).parent / "site"), str(ROOT))
        names = {"ORIGINALS_SUBJECT": self.subject, "ORIGINALS_TARGET": part.suite, "ORIGINALS_TESTS": self.more_tests}
        return {**os.environ, **names, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}


class _Driver:
    """One process that runs tests; `run` reads its events until it has ended or one takes too long."""

    def __init__(self, part: Part, side: Side, wanted: dict, log) -> None:
        self._log, self._part, self._side = log, part, side
        self.current, self._since, self._log_at = None, time.monotonic(), log.tell()
        self._events, told = os.pipe()
        command = (sys.executable, "-m", f"tests.originals.{part.driver}", json.dumps(wanted), str(told))
        where = {"cwd": wanted["folder"], "env": side.environment(part), "stdout": log, "stderr": log}
        self._process = subprocess.Popen(command, pass_fds=(told,), start_new_session=True, **where)
        os.close(told)
        self.collected: list[str] = []

    def run(self, found: Outcomes) -> bool:
        """Read events into `found`; return whether the driver came to its end by itself."""
        pidfd, rest = os.pidfd_open(self._process.pid), b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._events, selectors.EVENT_READ)
            selector.register(pidfd, selectors.EVENT_READ)
            while True:
                left = self._since + self._side.limit - time.monotonic()
                ready = {key.fd for key, _ in selector.select(max(0, left))}
                told = os.read(self._events, 1 << 20) if self._events in ready else b""
                *lines, rest = (rest + told).split(b"\n")
                for line in lines:
                    self._take(json.loads(line), found)
                if not told and (pidfd in ready or left <= 0):  # a child that was forked may keep the pipe open
                    break
                if not told and self._events in ready:  # the driver is about to end, or has been closed behind our back
                    selector.unregister(self._events)
        os.close(pidfd)
        os.close(self._events)
        return self._end(found, over=pidfd not in ready)

    def _take(self, event: dict, found: Outcomes) -> None:
        self._since = time.monotonic()
        if event["event"] == "collected":
            self.collected = event["ids"]
        elif event["event"] == "start":
            self.current, self._log_at = event["id"], os.fstat(self._log.fileno()).st_size
        else:
            self.current = None
            found[event["id"]] = Outcome(event["outcome"], event["detail"])

    def _end(self, found: Outcomes, over: bool) -> bool:
        """Kill what is left of the session, and say what that means for the test that was running."""
        pid = self._process.pid
        family = _session(pid)
        if over:
            self._process.send_signal(signal.SIGABRT)  # faulthandler writes where each thread stands
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                pass
        _kill(family | _session(pid))
        code = self._process.wait()
        if over:
            name = self.current or f"the end of {self._part.name}"
            found[name] = self._failed(f"not done after {self._side.limit:.0f} s")
        elif self.current is not None:
            found[self.current] = self._failed(f"took its process along, which ended with {code}")
        elif code not in (0, 1):
            found[f"the end of {self._part.name}"] = self._failed(f"the process of the tests ended with {code}")
        return not over and self.current is None

    def _failed(self, words: str) -> Outcome:
        with Path(self._log.name).open("rb") as log:
            log.seek(self._log_at)
            return Outcome("failed", f"{log.read(20_000).decode(errors='replace')}\n{words}")


def _session(leader: int) -> set[psutil.Process]:
    """Return the processes of a driver's session, and their children if those have left it."""
    found = set()
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader:
                found |= {process, *process.children(recursive=True)}
        except (ProcessLookupError, psutil.Error):
            continue
    return found


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()  # psutil makes sure that it is still the process that we saw
        except psutil.Error:
            pass


def give_up(signum: int, _: object) -> None:
    """End this process upon a signal, and with it the drivers, which are in sessions of their own."""
    for driver in psutil.Process().children():
        _kill(_session(driver.pid))
    os._exit(128 + signum)


def run(part: Part, side: Side, only: Iterable[str] = ()) -> tuple[Outcomes, float]:
    """Run the tests of a part, or those of them that are named; return how each ended, and the seconds that took."""
    LOGS.mkdir(parents=True, exist_ok=True)
    began, found, collected, only = time.monotonic(), {}, [], list(only)
    again = "-again" if only else ""
    with (LOGS / f"{part.name}-{side.subject}{again}.log".replace(" ", "-")).open("wb") as log:
        while True:
            with tempfile.TemporaryDirectory() as folder:
                wanted = {"modules": part.modules, "select": (part.select, side.select), "prefix": part.prefix}
                wanted |= {"only": list(only), "done": list(found), "folder": folder}
                driver = _Driver(part, side, wanted, log)
                before = len(found)
                finished = driver.run(found)
            collected = collected or driver.collected
            if finished or len(found) == before:
                break
    for name in only or collected:
        found.setdefault(name, Outcome("failed", "it never ran (see the log)"))
    if not collected:
        found[f"the tests of {part.name}"] = Outcome("failed", f"none were found; see {log.name}")
    return found, time.monotonic() - began
