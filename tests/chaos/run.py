"""Run a fabric under blows and messages, then count: the workers' half of chaos.

streams (threads) ──▶ Fabric ──▶ workers ──▶ tally file       what was begun, in which order, how often
     └─ compare answers             ▲
striker (thread) ── SIGKILL, SIGSTOP┘ and the fork server
"""

import faulthandler
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fabric import AgentGroup, AgentRef, Fabric, FabricConfig
from tests.chaos import schedule
from tests.chaos.agents import Bomber, Inquirer, KeepingInquirer, KeepingRelay, KeepingWitness, Relay, Witness
from tests.chaos.streams import Asks, Futures, Inquiries, Relays, Stream, Tells, Waves
from tests.chaos.striker import Striker
from tests.chaos.tally import ASTRAY, BAD, DRIFT, LIVES, NEXT, OVERLAPS, REPEATS, SKIPPED, Tally

_AGENTS = 6  # of each kind
_GROUPS = 8
_OFTEN = 1_000_000  # a limit that chance does not reach


@dataclass(frozen=True)
class Plan:
    """What to run. `messages` are the least that are completed; `patience` is when a wait counts as a hang, in s."""

    seed: int
    kills: int = 40
    messages: int = 0
    mode: str = "retry"
    workers: int = 3
    patience: float = 60.0
    minutes: float = 0.0  # after which it ends with what was done; 0: never
    server: bool = True
    tight: bool = False  # the smallest lanes and outboxes, so that all of them are full most of the time

    @property
    def most(self) -> int:
        """How many messages one agent may get: 100 a kill were seen, where the schedule lets most of them through."""
        return max(1 << 18, self.kills << 9, self.messages)

    def over(self, began: float) -> bool:
        """Is the time up that the plan may take?"""
        return self.minutes > 0 and time.monotonic() > began + 60 * self.minutes


@dataclass
class Outcome:
    """What came of it. No problems: nothing was lost, doubled, hung or out of order."""

    seed: int
    problems: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value}" for name, value in self.figures.items())
        return "\n".join([f"seed {self.seed}: {figures}", *self.problems])


def run(plan: Plan) -> Outcome:
    """Run the plan in a folder that is removed afterwards. Never raises for what the fabric does wrong."""
    outcome = Outcome(plan.seed)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        tally = Tally(f"{folder}/tally", _GROUPS * _AGENTS, plan.most, create=True)
        start = time.monotonic()
        config = FabricConfig(
            workers=plan.workers,
            max_workers=plan.workers,
            lane_bytes=(64 if plan.tight else 1024) << 10,
            peer_lane_bytes=(16 if plan.tight else 32) << 10,  # small, so that the outbox is used
            outbox_bytes=(64 if plan.tight else 8192) << 10,
            max_restarts=_OFTEN,
            max_attempts=_OFTEN,
            stopped_timeout=10.0,
            journal_bytes=(256 if plan.tight else 1024) << 10,
            snapshot_every=50,
            on_crash="fail" if plan.mode == "fail" else "retry",
        )
        letters: list[Any] = []
        fabric = Fabric(config=config, on_error=letters.append)
        try:
            _Chaos(plan, fabric, tally, letters, outcome).run(folder)
        finally:
            fabric.close(drain=False)
            outcome.figures["seconds"] = round(time.monotonic() - start, 1)
            tally.close()
    return outcome


class _Chaos:
    """One run: its streams, its striker, and the counting at the end."""

    def __init__(self, plan: Plan, fabric: Fabric, tally: Tally, letters: list[Any], outcome: Outcome) -> None:
        self.plan, self.fabric, self.tally, self.letters, self.outcome = plan, fabric, tally, letters, outcome
        self.once = plan.mode == "fail"
        self.keeps = plan.mode == "snapshot"
        self.groups: dict[int, AgentGroup] = {}  # by index of the first
        self.streams = self._streams()
        self.bombers = self._bombers()

    def run(self, folder: str) -> None:
        """Stream and strike until the schedule is done and the messages are through; then count."""
        failed, over = threading.Event(), threading.Event()
        blows = schedule.draw(self.plan.seed, self.plan.kills, self.plan.server)
        striker = Striker(self.fabric, blows, self._completed, over, self.bombers)
        for stream in self.streams:
            stream.failed = failed
            stream.start()
        striker.start()
        began = time.monotonic()
        try:
            while (striker.is_alive() or self._completed() < self.plan.messages) and not failed.wait(0.05):
                if self.plan.over(began) or not any(stream.is_alive() for stream in self.streams):
                    break
        finally:
            over.set()
            for stream in self.streams:
                stream.over.set()
            striker.join()
        self._end(striker, folder)

    def _end(self, striker: Striker, folder: str) -> None:
        problems, deadline = self.outcome.problems, time.monotonic() + self.plan.patience
        for stream in self.streams:
            stream.join(max(0.1, deadline - time.monotonic()))
            if stream.is_alive():
                problems.append(f"{stream.name} hangs")
            problems += stream.problems
        if striker.error is not None:
            problems.append(f"the striker failed: {striker.error!r}")
        if not problems:
            try:
                self.fabric.drain(timeout=self.plan.patience)
            except TimeoutError as error:
                problems.append(f"drain: {error}")
        if problems:
            _show_stacks(self.fabric, folder)
        self._count(striker)
        self.fabric.close(drain=False)
        for stream in self.streams:  # those that hung get a ClosedError
            stream.join(self.plan.patience)

    def _completed(self) -> int:
        return sum(stream.completed for stream in self.streams)

    # Agents and streams.

    def _streams(self) -> list[Stream]:
        seed, patience = self.plan.seed, self.plan.patience
        witness = KeepingWitness if self.keeps else Witness
        asked, promised, told = (self._witnesses(witness) for _ in range(3))
        relays = self._pairs(KeepingRelay if self.keeps else Relay, witness)
        streams: list[Stream] = [
            Asks(self.fabric, self.groups[asked], asked, seed, patience, self.once),
            Futures(self.fabric, self.groups[promised], promised, seed + 1, patience, self.once),
            Tells(self.fabric, self.groups[told], told, seed + 2, patience, self.once),
            Relays(self.fabric, self.groups[relays], relays, seed + 3, patience, self.once),
        ]
        # None with "fail": a question that is lost leaves its asker waiting. None when tight: beyond half a lane
        # what coroutines have in hand is committed, and not handled again (DESIGN.md, section 7). None beside kept
        # states: a coroutine in hand holds its lane, and what others tell meanwhile may then be told twice.
        if not self.once and not self.plan.tight and not self.keeps:
            inquirers = self._pairs(KeepingInquirer if self.keeps else Inquirer, Witness)
            streams.append(Inquiries(self.fabric, self.groups[inquirers], inquirers, seed + 4, patience))
        if self.plan.tight:
            for stream in streams:
                stream.most = min(stream.most, 20 if isinstance(stream, Relays) else 400)
        return [*streams, Waves(self.fabric, (), 0, seed + 5, patience)]

    def _bombers(self) -> list[AgentRef]:
        """One on each worker; retried, so that each bomb is set once, whatever else kills its worker."""
        first = _AGENTS * (_GROUPS - 1)
        where = self.tally.path, self.tally.agents, self.tally.most
        workers = range(self.plan.workers)
        groups = [
            self.fabric.spawn_batch(Bomber, 1, args=(where, first + k), placement=k, on_crash="retry") for k in workers
        ]
        return [group[0] for group in groups]

    def _witnesses(self, kind: type[Witness], **each: Any) -> int:
        first = _AGENTS * len(self.groups)
        where = self.tally.path, self.tally.agents, self.tally.most
        each = {"index": range(first, first + _AGENTS), **each}
        self.groups[first] = self.fabric.spawn_batch(kind, _AGENTS, each=each, args=(where,))
        return first

    def _pairs(self, kind: type[Relay], receiver: type[Witness]) -> int:
        """Spawn witnesses, and senders that know one each, mostly on another worker."""
        receivers = self._witnesses(receiver)
        turned = [*range(1, _AGENTS), 0]
        refs = [self.groups[receivers][place] for place in turned]
        return self._witnesses(kind, receiver=refs, receiver_index=[receivers + place for place in turned])

    # Counting.

    def _count(self, striker: Striker) -> None:
        statistics = self.fabric.statistics()
        for stream in self.streams:
            for place, sent in enumerate(stream.sent):
                self._judge(stream, stream.first + place, sent)
                if isinstance(stream, (Relays, Inquiries)):
                    self._judge(stream, self._receiver_of(stream.first + place), sent, relayed=True)
        words = [self.tally.words(agent) for agent in range(self.tally.agents)]
        if not self.once and self.letters:
            self.outcome.problems.append(f"{len(self.letters)} dead letters, the first {self.letters[0].error!r}")
        if statistics.alarms:
            self.outcome.problems.append(f"{statistics.alarms} wake-ups were lost")
        self.outcome.figures |= {
            "kills": striker.kills,
            "messages": self._completed(),
            "restarts": statistics.restarts,
            "repeated": sum(word[REPEATS] for word in words),
            "late replies": statistics.late_replies,
            "answered by WorkerLostError": sum(stream.lost for stream in self.streams),
            "dead letters": len(self.letters),
            "lives of agents": sum(word[LIVES] for word in words),
            "stalls": striker.stalls,
            "dealt": striker.dealt,
        }

    def _receiver_of(self, sender: int) -> int:
        place = sender % _AGENTS
        return sender - place - _AGENTS + (place + 1) % _AGENTS

    def _judge(self, stream: Stream, agent: int, sent: int, relayed: bool = False) -> None:
        """Compare what an agent began with what it was sent."""
        words, runs = self.tally.words(agent), self.tally.runs(agent, sent)
        who = f"{stream.name}, agent {agent}{' (told by an agent)' if relayed else ''}"
        wrong = []
        if words[BAD]:
            wrong.append(f"{words[BAD]} messages with other content")
        if words[ASTRAY]:
            drift = words[DRIFT] - (words[DRIFT] >> 63 << 64)
            wrong.append(f"{words[ASTRAY]} messages met with another state than the one before had left, by {drift}")
        if words[OVERLAPS]:
            wrong.append(f"made {words[OVERLAPS]} times while its previous process still ran")
        if words[NEXT] > sent:
            wrong.append(f"{words[NEXT]} messages begun, {sent} sent")
        reported = stream.lost + len(self.letters) if self.once else 0
        if runs.count(0) > reported or (words[SKIPPED] and not self.once):
            where = [number for number, begun in enumerate(runs) if not begun][:3]
            wrong.append(f"{runs.count(0)} of {sent} lost ({where}), {words[SKIPPED]} passed over, {reported} reported")
        if self.once and not relayed and (words[REPEATS] or max(runs, default=0) > 1):
            wrong.append(f"{words[REPEATS]} begun twice")
        self.outcome.problems += [f"{who}: {what}" for what in wrong]


def _show_stacks(fabric: Fabric, folder: str) -> None:
    """Print where every thread is, here and in the workers, before all of it is taken down."""
    faulthandler.dump_traceback(sys.stderr, all_threads=True)
    for worker in fabric.statistics().workers:
        print(f"worker {worker.slot}: {worker}", file=sys.stderr)
        if worker.alive:
            os.kill(worker.pid, signal.SIGUSR1)
    time.sleep(0.5)  # they write their stacks
    for path in sorted(Path(folder).glob("stack.*")):
        if text := path.read_text():
            print(path.name, text, file=sys.stderr)
