"""How long until the agents of a killed worker answer again?

::

    this process   ── SIGKILL ──▶ worker 1, 1,000 agents            the clock starts
                   ── ask ──────▶ its successor: one agent          first answer
                   ── ask_all ──▶ its successor: the other 999      last answer

Each answer is the pid that gives it, so none comes from before the kill. In the second setting messages are told
until the kill, and those that were handled more than once are counted: in a file that the handlers map. What would
change our minds: over 100 ms for the last answer, or a time that grows with the messages in the lane.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from pathlib import Path

from bench import agents as agent_classes
from bench.harness import Case, Contestant, Metric
from bench.sample import Sample, WrongAnswerError
from fabric import AgentGroup, Fabric

FIRST = Metric("first answer", "ms", higher_is_better=False)
LAST = Metric("last answer", "ms", higher_is_better=False)
REDELIVERED = Metric("redelivered", "messages", higher_is_better=False)
AGENTS = 1_000
_PATIENCE = 30.0


def cases(quick: bool) -> list[Case]:
    """Return the one case."""
    kills = 5 if quick else 20
    return [
        Case(
            "worker with 1,000 agents killed",
            (FIRST, LAST, REDELIVERED),
            (
                Contestant("fabric", "bench.recovery:ours", {"kills": kills}),
                Contestant("while it is told", "bench.recovery:ours", {"kills": kills, "told": True}, peer=False),
            ),
            rounds=1,
        )
    ]


def ours(kills: int, told: bool = False, *, agents: int = AGENTS, agent: str = "Survivor") -> Sample:
    """Kill the worker again and again; each time ask one agent, then all."""
    first, last, again = [], [], []
    with tempfile.NamedTemporaryFile(prefix="recovery-") as file, Fabric(workers=2, max_attempts=1_000) as fabric:
        os.truncate(file.name, 8)
        group = fabric.spawn_batch(getattr(agent_classes, agent), agents, placement=0, path=file.name)
        for _ in range(kills):
            before = _pid(group)
            sent, handled = _Teller(group), _handled(file.name)
            if told:
                sent.start()
                sent.under_way.wait(_PATIENCE)
            os.kill(before, signal.SIGKILL)
            start = time.perf_counter()
            sent.over.set()
            pids = [group[0].ask(None, timeout=_PATIENCE)]
            first.append((time.perf_counter() - start) * 1e3)
            pids += group.ask_all(None, timeout=_PATIENCE)
            last.append((time.perf_counter() - start) * 1e3)
            if set(pids) != {pids[0]} or pids[0] == before:
                raise WrongAnswerError(f"answers came from the processes {set(pids)}; {before} was killed")
            if told:
                sent.join()
            fabric.drain(timeout=_PATIENCE)
            again.append(_handled(file.name) - handled - sent.count)
    if min(again) < 0:
        raise WrongAnswerError(f"{-min(again)} told messages were not handled")
    return Sample({FIRST.name: first, LAST.name: last, REDELIVERED.name: again}, f"{kills} kills")


class _Teller(threading.Thread):
    """Tells all agents in turn, until it is over."""

    def __init__(self, group: AgentGroup) -> None:
        super().__init__(daemon=True)
        self._group = group
        self.over, self.under_way = threading.Event(), threading.Event()
        self.count = 0

    def run(self) -> None:
        while not self.over.is_set():
            self._group.tell_all(1)
            self.count += len(self._group)
            if self.count >= 5 * len(self._group):
                self.under_way.set()


def _pid(group: AgentGroup) -> int:
    pid: int = group[0].ask(None, timeout=_PATIENCE)
    return pid


def _handled(path: str) -> int:
    return int.from_bytes(Path(path).read_bytes(), "little")
