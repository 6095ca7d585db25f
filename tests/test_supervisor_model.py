"""The supervisor against a model: workers die in any order, of any message, before and after they got anywhere.

No process: the crew is played by the test, and so is the clock. The lanes are real: victims are found where they lie.
FABRIC_LONG=n tries n times as many runs, at random and not the same each time.
"""

import os
import select
from types import SimpleNamespace

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fabric import supervisor as module
from fabric.codec import Codec
from fabric.columns import Columns
from fabric.config import FabricConfig
from fabric.counters import PID
from fabric.crew import Death, Worker
from fabric.errors import PoisonMessageError, WorkerLostError
from fabric.messages import CURSOR_LANE_SHIFT, MESSAGE, RAW, SkipOrder, TakeOverOrder
from fabric.supervisor import Supervisor
from fabric.tally import Tally
from tests.loopback import Loopback

LONG = int(os.environ.get("FABRIC_LONG", "0"))
SLOTS = (1, 2)
MAX_RESTARTS, WINDOW, MAX_ATTEMPTS = 2, 5.0, 2
ONCE = 900  # the target of messages that are handled at most once


class Crew:
    """Starts nothing: notes what it is told, and dies when it is told to."""

    def __init__(self, config, segment, cores, on_death, on_attention):
        self.bells = []
        self.on_death = on_death
        self.workers = {}
        self.due = []
        self.orders = {}
        self.pids = iter(range(1_000, 1_000_000))

    def start(self, slot, orders):
        assert slot not in self.workers, "a second process for one lane"
        self.orders[slot] = orders
        self.workers[slot] = Worker(slot, next(self.pids), -1)

    def wait_started(self, slots, timeout, failed):
        assert set(slots) <= set(self.workers)
        return not failed()

    def call_later(self, seconds, function):
        self.due.append((module.time.monotonic() + seconds, function))

    def kill(self, slot):
        raise AssertionError("nobody hangs here")


class Slot:
    """What the model knows of a slot."""

    def __init__(self):
        self.state = "empty"  # running, waiting, given up, going
        self.deaths = []  # without progress, on a clock without our delays
        self.delayed = 0.0
        self.committed = False
        self.wanted = None  # when its successor is due
        self.strikes = {}
        self.skips = {}


class SupervisorMachine(RuleBasedStateMachine):
    """Two slots and a coordinator."""

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.now = 100.0
        self.patch.setattr(
            module, "time", SimpleNamespace(monotonic=lambda: self.now, monotonic_ns=lambda: int(self.now * 1e9))
        )
        self.patch.setattr(module, "Crew", Crew)
        self.patch.setattr(module._log.logger, "disabled", True)
        self.patch.setattr(module, "empty_lanes", self.empty)
        self.loop = Loopback(len(SLOTS))
        self.emptied, self.failed, self.refused, self.aside = [], [], [], []
        self.slots = {slot: Slot() for slot in SLOTS}

    @initialize()
    def begin(self):
        config = FabricConfig(
            workers=2, max_restarts=MAX_RESTARTS, restart_window=WINDOW, max_attempts=MAX_ATTEMPTS, stopped_timeout=None
        )
        replies = SimpleNamespace(
            wake_and_drain=lambda: None,
            fail_all=lambda slot, error: self.failed.append(slot),
            wait_for=lambda reached, reason, deadline: True,
        )
        switchboard = SimpleNamespace(
            peer=self.loop.peers[0],
            replies=replies,
            codec=Codec(),
            use=lambda slot: None,
            give_up=lambda slot, error: self.refused.append(slot),
            order=lambda *arguments, **options: None,
        )
        directory = SimpleNamespace(count=lambda slot: 1, lose=lambda slot: 1)
        unasked = SimpleNamespace(
            bury=None, put_aside=lambda letter, told: self.aside.append((letter.error, told)), tally=Tally()
        )
        self.spawner = SimpleNamespace(
            slots=(), runs_once=lambda target: target == ONCE, orders_of=lambda slot: [("agents of", slot)]
        )
        self.supervisor = Supervisor(config, self.loop.segments[0], switchboard, directory, unasked)
        self.crew = self.supervisor.crew
        self.supervisor.start(self.spawner, SLOTS)
        for slot in SLOTS:
            self.slots[slot].state = "running"

    def empty(self, segment, slot, *rest):
        """Play fabric.salvage: nothing is left in the lanes of a worker that is given up."""
        self.emptied.append(slot)
        peer, columns = self.loop.segments[slot].peer(), Columns()
        while (lane := peer.receive(1, columns)) >= 0:
            peer.commit(lane, columns.facts()[10])

    @rule(slot=st.sampled_from(SLOTS), once=st.booleans())
    def send(self, slot, once):
        """Let a message lie in the lane of a worker."""
        self.loop.peers[0].send(slot, MESSAGE | RAW << 16, ONCE if once else 7, 0, 0, b"body")

    @rule(slot=st.sampled_from(SLOTS))
    def handle_one(self, slot):
        """A worker gets somewhere: it commits a message."""
        columns, peer = Columns(), self.loop.peers[slot]
        if self.slots[slot].state not in ("running", "going") or peer.receive(1, columns) != 0:
            return
        end = columns.facts()[10]
        peer.commit(0, end)
        self.slots[slot].committed = True

    @rule(slot=st.sampled_from(SLOTS), in_hand=st.integers(0, 2), exitcode=st.sampled_from([0, 1, -9, -11, None]))
    def die(self, slot, in_hand, exitcode):
        self._die(slot, in_hand, exitcode)

    @rule(
        slot=st.sampled_from(SLOTS),
        in_hand=st.integers(0, 2),
        times=st.integers(1, 3),
        between=st.sampled_from([0.0, 0.05, 1.0, 2.5]),
        commit=st.booleans(),
        once=st.booleans(),
    )
    def die_again_and_again(self, slot, in_hand, times, between, commit, once):
        """Die as soon as there is a successor, maybe of the same message; and see that one more comes."""
        self.send(slot, once)
        for _ in range(times):
            if commit:
                self.handle_one(slot)
            self._die(slot, in_hand, -11)
            wanted = self.slots[slot].wanted
            self.wait(between if wanted is None else wanted - self.now + between)

    def _die(self, slot, in_hand, exitcode):
        model = self.slots[slot]
        if model.state not in ("running", "going"):
            return
        head = self.loop.segments[0].head_of(slot, 0)
        waiting = self.loop.peers[0].backlog(slot)[0] // 64
        index = min(in_hand, waiting)
        cursor = self.loop.segments[slot].cursor()
        cursor[0], cursor[1] = index, 0 << CURSOR_LANE_SHIFT | head
        victim = head + 64 * (index - 1) if index else None
        target = self._target(slot, victim) if index else None
        for bell in self.loop.bells:
            if self._rung(bell):
                os.eventfd_read(bell)
        worker = self.crew.workers[slot]
        self.loop.segments[slot].counters()[PID] = worker.pid  # it had begun to work
        self.crew.on_death(Death(slot, worker.pid, exitcode, ""))
        del self.crew.workers[slot]
        assert all(self._rung(bell) for bell in self.loop.bells), "the death bell"
        self._expect(slot, model, victim, target)

    def _target(self, slot, victim):
        data = self.loop.segments[0].lane_data(0, slot)
        return int.from_bytes(data[victim % len(data) + 8 : victim % len(data) + 16], "little")

    @staticmethod
    def _rung(bell):
        return bool(select.select([bell], [], [], 0)[0])

    def _expect(self, slot, model, victim, target):
        """Say what ought to happen now."""
        if model.state == "going":
            model.state = "empty"
            return
        progressed, model.committed = model.committed, False
        if progressed:
            model.deaths, model.delayed, delay = [], 0.0, 0.0
        else:
            lived = self.now - model.delayed
            model.deaths = [*(at for at in model.deaths if lived - at <= WINDOW), lived]
            count = len(model.deaths)
            delay = None if count > MAX_RESTARTS else 0.0 if count == 1 else 0.1 * 2 ** (count - 2)
            model.delayed += delay or 0.0
        if victim is not None:
            self._blame(model, victim, target)
        if delay is None:
            model.state, model.wanted = "given up", None
            assert (self.refused[-1], self.failed[-1], self.emptied[-1]) == (slot, slot, slot)
        else:
            model.state, model.wanted = "waiting", self.now + delay

    def _blame(self, model, victim, target):
        strikes = model.strikes.get(victim, 0) + 1
        model.strikes = {victim: strikes}
        if target == ONCE:
            verdict = WorkerLostError
        elif strikes >= MAX_ATTEMPTS:
            verdict = PoisonMessageError
        else:
            return
        model.strikes = {}
        model.skips[victim] = verdict
        if verdict is PoisonMessageError:  # one that was asked and is lost is told to who asked, and not put aside
            assert type(self.aside[-1][0]) is verdict

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.11, 1.0, WINDOW + 0.1]))
    def wait(self, seconds):
        """Let time pass, and what is due run."""
        self.now += seconds
        due = [item for item in self.crew.due if item[0] <= self.now]
        self.crew.due = [item for item in self.crew.due if item[0] > self.now]
        for _, function in sorted(due, key=lambda item: item[0]):
            function()
        for slot, model in self.slots.items():
            if model.state == "waiting" and model.wanted <= self.now:
                model.state, model.wanted = "running", None
                self.loop.peers[slot] = self.loop.segments[slot].peer()
                self._check_orders(slot, model)

    def _check_orders(self, slot, model):
        """A successor is told whose place it takes, what not to handle, and which agents to make."""
        take_over, *skips, agents = self.crew.orders[slot]
        assert isinstance(take_over, TakeOverOrder)
        assert agents == ("agents of", slot)
        assert all(isinstance(skip, SkipOrder) and skip.lane == 0 for skip in skips)
        head = self.loop.segments[0].head_of(slot, 0)
        expected = {at: kind for at, kind in model.skips.items() if at >= head}
        assert {skip.position: type(skip.error) for skip in skips if skip.position >= head} == expected

    @rule(slot=st.sampled_from(SLOTS))
    def send_away(self, slot):
        if self.slots[slot].state == "running":
            self.supervisor.send_away([slot])
            self.slots[slot].state = "going"

    @rule(slot=st.sampled_from(SLOTS))
    def start_again(self, slot):
        model = self.slots[slot]
        if model.state in ("empty", "given up"):
            self.supervisor.start(self.spawner, [slot])
            before, self.slots[slot] = model, Slot()
            self.slots[slot].state = "running"
            self.loop.peers[slot] = self.loop.segments[slot].peer()  # it sees the lanes as they stand
            self.slots[slot].skips, self.slots[slot].strikes = before.skips, before.strikes

    @invariant()
    def only_those_run_that_ought_to(self):
        if not hasattr(self, "supervisor"):
            return
        running = {slot for slot, model in self.slots.items() if model.state in ("running", "going")}
        assert set(self.crew.workers) == running
        manned = tuple(slot for slot, model in self.slots.items() if model.state in ("running", "waiting"))
        assert self.supervisor.slots == self.spawner.slots == manned

    def teardown(self):
        self.patch.undo()
        self.loop.close()


TestSupervisor = SupervisorMachine.TestCase
TestSupervisor.settings = settings(
    max_examples=100 * max(1, LONG),
    stateful_step_count=50,
    deadline=None,
    derandomize=not LONG,
    phases=(Phase.generate, Phase.shrink) if LONG else (Phase.generate,),  # to shrink a story takes minutes
    database=None,
    print_blob=True,
)
