"""Drive tests/native/syscall_tracer.c: one run a system call, and the verdict on each.

    Tracer.run("worker2", "kill", 17)   a coordinator lives through all phases, its second worker dies at call 17
    Outcome.problem()                   "" when what came of it is what the contract allows

Allowed is: every step is done, as if nothing had happened; or a step ends with an error of the fabric, in time,
and the others go on. Nothing may be left, and nobody may hang, whatever was killed or failed.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.syscall_victim import PHASES

SOURCE = Path(__file__).parent / "native" / "syscall_tracer.c"
ACTIONS = ("kill", "ENOSPC", "EMFILE", "ENOMEM", "EINTR")
ROLES = ("coordinator", "server1", "worker1", "worker2", "worker3", "worker4")  # worker3 succeeds 1, 4 comes by resize
_LIMIT = 20.0  # seconds that a run may take; the slowest good one takes 2
_GRACE = 5.0  # seconds that processes may live on after their coordinator
_COMPLAINTS = ("resource_tracker", "leaked", "ResourceWarning")
_UPSETS = ("Fatal Python error", "Exception ignored in")  # Python's, where it has no memory; not for less
_THREAD_LOST = "Exception ignored in thread started by"


class Outcome(NamedTuple):
    """What came of one run."""

    role: str
    action: str
    when: int
    facts: dict  # of the tracer: what was hit, how the coordinator ended, who was left
    steps: list[dict]  # of the coordinator
    stderr: str
    shm: set[str]  # new in /dev/shm

    def __str__(self):
        hit, phase = self.facts["hit"], PHASES[self.facts["phase"]]
        return f"{self.role} {self.action} {self.when} ({hit or 'not reached'}, {phase})"

    @property
    def errors(self):
        """The steps that ended with an error."""
        return [step for step in self.steps if "error" in step]

    def problem(self):
        """Say what the contract does not allow, or ""."""
        if self.facts["hung"] and _THREAD_LOST in self.stderr:
            return ""  # CPython's: Thread.start() waits for ever for a thread that had no memory to begin
        if self.facts["hung"]:
            return f"the coordinator hung; {self.facts['left']}"
        if self.facts["left"]:
            return f"left behind: {self.facts['left']}"
        if self.shm:
            return f"left in /dev/shm: {self.shm}"
        words = _COMPLAINTS + _UPSETS * (self.action in ("kill", "EINTR"))
        complaints = [line for line in self.stderr.splitlines() if any(word in line for word in words)]
        if complaints:
            return f"complaints: {complaints}"
        if self.role == "coordinator" and self.action == "kill" and self.facts["hit"]:
            return "" if self.facts["signal"] == 9 else "the coordinator was to be killed"
        return self._problem_of_survivor()

    def _problem_of_survivor(self):
        if self.facts["exit"] != 0:
            return f"the coordinator ended with exit status {self.facts['exit']}, signal {self.facts['signal']}"
        if not self.steps or self.steps[-1]["phase"] != PHASES.index("end"):
            return "the coordinator did not get to its end"
        if self.steps[-1]["left"]:
            return f"the coordinator still holds {self.steps[-1]['left']}"
        if self.action in ("kill", "EINTR") and self.errors:
            return "a process that dies, and a call that is interrupted, are no errors"
        unclear = [step for step in self.errors if not _is_clear(step)]
        return f"not a clear error: {unclear}" if unclear else ""


def _is_clear(step):
    """Is this an error of the fabric with a text, or the one that Python itself may raise in any line?"""
    return (step["module"] == "fabric.errors" and step["text"]) or step["error"] == "MemoryError"


def _shm():
    """What Python's own shared memory, or ours, would leave; others on this machine have theirs there too."""
    return {name for name in os.listdir("/dev/shm") if name.startswith(("psm_", "sem.mp-")) or "fabric" in name}


class Tracer:
    """A tracer and its nursery."""

    def __init__(self, folder):
        self._folder = folder
        program = folder / "tracer"
        subprocess.run(
            [os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-O2", "-o", program, SOURCE], check=True
        )
        self._process = subprocess.Popen(
            [program, sys.executable, "-m", "tests.syscall_victim", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=SOURCE.parents[2],
        )

    def __enter__(self):
        return self

    def __exit__(self, *rest):
        self.close()

    def run(self, role, action, when, scenario="forkserver", sticky=False, limit=_LIMIT, grace=_GRACE):
        """Run a scenario; `when` counts from 1, and 0 has nothing done."""
        (self._folder / "report").write_text("")
        before = _shm()
        self._process.stdin.write(f"{scenario} {role} {action} {when} {int(sticky)} {limit} {grace}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise OSError("the tracer ended: see its message above")
        steps = [json.loads(row) for row in (self._folder / "report").read_text().splitlines()]
        stderr = (self._folder / "out").read_text(errors="replace")
        return Outcome(role, action, when, json.loads(line), steps, stderr, _shm() - before)

    def close(self):
        """End both processes."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


if __name__ == "__main__":  # one run again: python -m tests.syscall_runs worker1 kill 17
    with tempfile.TemporaryDirectory() as folder, Tracer(Path(folder)) as tracer:
        outcome = tracer.run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    print(outcome, outcome.problem() or "as the contract allows", *outcome.steps, outcome.stderr, sep="\n")
