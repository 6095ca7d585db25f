"""Keep a worker in each slot: start, replace, send away, give up.

a worker dies (its pidfd says so, in the supervisor thread)
  1. ring every bell: it may have died between publishing and ringing (the death bell)
  2. ask the restart policy; whether anything was committed since the last death counts as progress
  3. a successor in the same slot makes the agents again and goes on from the lanes' heads,
     or the slot is given up: its agents are lost, and those who wait for them are told
"""

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterable

from fabric.blame import Blame
from fabric.config import FabricConfig, usable_cpus
from fabric.counters import CLOSING, LEFT, PID, RECYCLED, REDELIVERED, RESTARTS
from fabric.crew import Crew, Death
from fabric.culling import Culler
from fabric.directory import Directory
from fabric.ending import Ender, Ending
from fabric.errors import ClosedError, FabricError, WorkerLostError
from fabric.guarded_log import GuardedLogger
from fabric.hangs import HangWatch
from fabric.mending import GARBLED, mender
from fabric.messages import (
    COORDINATOR,
    HURRY_SIGNAL,
    SHUTDOWN,
    SkipOrder,
    TakeOverOrder,
)
from fabric.pending import One
from fabric.postmortem import died_unclear, examine
from fabric.receiver import Receiver
from fabric.restart import GiveUp, RestartPolicy
from fabric.salvage import empty_lanes
from fabric.segment import Segment
from fabric.spawning import Spawner
from fabric.switchboard import Switchboard
from fabric.unasked import Unasked

_log = GuardedLogger("fabric")
_AGAIN = 0.1  # seconds until something is tried again for which the machine had no room
_NO_ROOM_LOOK = 0.01  # seconds until it is looked whether a full lane takes an order now
_START_PATIENCE = 60.0  # seconds until a worker that has not started is given up; a loaded machine is slow


class Supervisor:
    """The worker slots of one fabric."""

    def __init__(
        self,
        config: FabricConfig,
        segment: Segment,
        switchboard: Switchboard,
        directory: Directory,
        unasked: Unasked,
    ) -> None:
        """`unasked` gets the messages that are lost with a worker given up, and those that took one down."""
        self._config = config
        self._switchboard = switchboard
        self._directory = directory
        self._unasked = unasked
        self._peer = switchboard.peer
        self._lock = threading.Lock()
        self._policies: dict[int, RestartPolicy] = {}
        self._progress: dict[int, int] = {}
        self._segment = segment
        self._blame = Blame(segment, unasked, config.max_attempts)
        self._spawner: Spawner | None = None
        self._dismissed = False  # no worker is started any more
        self._going: set[int] = set()  # sent away, and not seen dead yet
        self._careful: set[int] = set()  # slots whose workers take messages one at a time, and say which
        self._died_ns: dict[int, int] = {}  # by slot, monotonic clock
        self._obstacle = ""  # why a worker could last not be started
        self._reliefs: dict[int, deque[str]] = {}  # by slot: why workers there are to leave, in the order of the lane
        # Told who died of what, and is given up with that or not; in the supervisor thread. None: we killed it.
        self.watchers: list[Callable[[int, WorkerLostError | None, bool], None]] = []
        self.post: Callable[[Iterable[int]], None] = lambda slots: None  # told which slots are used, when that changes
        self.restarts = 0
        self.recycled = 0  # workers that were replaced for a reason of ours, at a good moment
        self.ended = 0  # workers that we killed for the message they had in hand
        self.redelivered = 0  # messages that a dead worker had begun and its successor gets again
        self.crew = Crew(config, segment, usable_cpus(), self._worker_died, switchboard.replies.wake_and_drain)
        for process, bell in enumerate(self.crew.bells):
            self._peer.set_bell(process, bell)
        self._ender = Ender(segment, self.crew, lambda correlation: switchboard.replies.expects(correlation))
        hangs = HangWatch(config.handler_timeout, config.stopped_timeout)
        self._culler = Culler(segment, self._peer, self.crew, self._ender, hangs)
        switchboard.replies.on_garbage = lambda: self.crew.call_later(0, self._culler.look_for_garbage)

    @property
    def slots(self) -> tuple[int, ...]:
        """The slots that have a worker, or are about to get its successor."""
        with self._lock:
            return tuple(sorted(self._policies))

    @property
    def dropped_logs(self) -> int:
        """How many log records of workers were lost: not read in time, or not to be read."""
        return self.crew.output.dropped

    def start(self, spawner: Spawner, slots: Iterable[int]) -> None:
        """Start a worker in each of these slots and wait until they run.

        Raises:
            FabricError: they do not start.
            ClosedError: the fabric is closed, maybe meanwhile.
        """
        self._spawner = spawner
        wanted = list(slots)
        for slot in wanted:
            with self._lock:
                self._check_open()
                self._progress[slot] = self._peer.progress(slot)
                self._policies[slot] = RestartPolicy(self._config.max_restarts, self._config.restart_window)
                self._post_slots()
                self._reliefs.pop(slot, None)
            self._switchboard.use(slot)
            control = self._segment.tail_of(COORDINATOR, slot + self._peer.processes)
            self.crew.start(slot, [TakeOverOrder(control, 0)])  # an order to leave may lie there for one who died
        try:
            if not self.crew.wait_started(wanted, _START_PATIENCE, lambda: not set(wanted) <= set(self.slots)):
                self._check_open()
                raise FabricError(f"not all of the workers {wanted} can be started: {self._obstacle}")
        finally:
            spawner.slots = self.slots

    def _post_slots(self) -> None:
        if not self._dismissed:  # then what was posted last stands, for whoever looks on to the end
            self.post(self._policies)

    def _check_open(self) -> None:
        if self._dismissed:
            raise ClosedError("this fabric is closed: its workers were dismissed")

    def release(self, slots: Iterable[int]) -> None:
        """Count on these workers no more: no agent is made there, and whoever dies there is not replaced."""
        with self._lock:
            for slot in slots:
                if self._policies.pop(slot, None) is not None:
                    self._going.add(slot)
            self._post_slots()
        if self._spawner is not None:
            self._spawner.slots = self.slots

    def send_away(self, slots: Iterable[int]) -> None:
        """Have workers leave when their lanes are empty, and wait until they are gone."""
        going = set(slots)
        self.release(going)
        for slot in going:
            with contextlib.suppress(FabricError):  # it has died meanwhile, or all are dismissed
                self._switchboard.order(slot, SHUTDOWN, None, One(slot), control=True)

        def gone() -> bool:
            return going.isdisjoint(self._going)

        if not self._switchboard.replies.wait_for(gone, 0, time.monotonic() + _START_PATIENCE):
            for slot in going:
                self.crew.kill(slot)
            self._switchboard.replies.wait_for(gone, 0, None)

    def dismiss(self) -> None:
        """Have all workers leave as soon as the message in hand is handled; none is replaced any more."""
        with self._lock:
            self._dismissed = True
            self._policies.clear()
        self.crew.wake()
        self._segment.counters()[CLOSING] = 1
        for process in range(1, self._peer.processes):
            self._peer.ring(process)

    def recycle(self, slot: int, reason: str) -> None:
        """Have a worker leave when what was sent to it before is handled, and a successor take its place. Any thread.

        Never waits. What the coordinator sends from now on is the successor's, which makes the same agents again.
        Coroutines and streams in hand are waited for, and what comes meanwhile is still taken. One that dies before
        it has left has died like any other, and its successor leaves instead. Without a worker nothing happens.
        """
        with self._lock:
            if slot not in self._policies:
                return
            reasons = self._reliefs.setdefault(slot, deque())
            reasons.append(reason)  # before the worker can have left
            try:
                sent = self._switchboard.relieve(slot)
            except FabricError:  # closed meanwhile, or given up
                return
            if not sent:
                reasons.pop()
        if not sent:
            self.crew.call_later(_NO_ROOM_LOOK, lambda: self.recycle(slot, reason))

    def end_question(self, slot: int, correlations: Container[int], why: str) -> bool:
        """Kill the worker of a slot if what it has in hand right now is one of these questions of the coordinator.

        True: whoever asked gets a WorkerLostError that says `why`, nobody handles it again, and a successor goes on
        with the rest. (A reply that was just going out, which nobody can see, is what whoever asked gets instead.)
        False: something else is in hand, or it cannot be known (a batch is decoded or encoded, a coroutine runs): try
        again. It is no mark against the slot, nor against any message. Any thread; waits for a tenth of a second at
        the most.
        """
        return self._ender.end(slot, correlations, why)

    def has_in_hand(self, slot: int, correlation: int) -> bool:
        """Is this question of the coordinator what a worker has in hand, as far as can be seen while it runs?"""
        return self._ender.has_in_hand(slot, correlation)

    def kill_all(self) -> None:
        """Kill all workers; none is replaced any more."""
        self.dismiss()
        for slot in self.crew.workers:
            self.crew.kill(slot)

    def hurry(self, slot: int) -> None:
        """Have a worker send the replies of what it has done, if it runs a task behind that."""
        with self.crew.worker_at(slot) as worker:
            if worker is not None and self._ender.has_any_in_hand(worker):
                with contextlib.suppress(ProcessLookupError):  # it is dead, and that has not been taken in yet
                    signal.pidfd_send_signal(worker.pidfd, HURRY_SIGNAL)

    def interrupt(self, slot: int, act: Callable[[int], None]) -> bool:
        """Have a worker stand while `act` is told which question of ours it has in hand: see Ender.interrupt."""
        return self._ender.interrupt(slot, act)

    def _worker_died(self, death: Death) -> None:
        if self._culler.was_garbled(death.slot):
            self._mend(death)  # and come back
            return
        with self._lock:
            policy = self._policies.get(death.slot)
            going = death.slot in self._going
        if going:  # killed before it had left, maybe, with an order that nobody will read now
            self._empty(death.slot, WorkerLostError(death.slot, death.pid, death.exitcode))
        with self._lock:
            self._going.discard(death.slot)  # after the look: whoever waits for this may fill the slot at once
        for process in range(self._peer.processes):
            self._peer.ring(process)
        ending = self._ender.take(death.pid)
        if policy is None:
            return
        if self._segment.counters_of(death.slot)[LEFT] == death.pid != 0:  # nobody but us tells workers to leave
            self._relieve(death)
            return
        if not death.why:
            self._died_ns[death.slot] = time.monotonic_ns()
        if ending is not None:
            self._replace_ended(death, ending, policy)
            return
        progress = self._peer.progress(death.slot)
        begun = self._had_begun(death)
        # The first death of this kind tells nothing of the message, so its successor may not be held to account for it.
        unclear = begun and death.slot not in self._careful and died_unclear(self._segment, death.slot)
        if unclear:
            self._careful.add(death.slot)
        if begun:
            self._blame.agent(death)
        decision = policy.died(time.monotonic(), unclear or progress != self._progress[death.slot])
        self._progress[death.slot] = progress
        victim = examine(self._segment, death.slot) if begun else None
        why = self._culler.take(death.pid)
        message = death.why or why if victim is None else f"{victim} ({why})" if why else str(victim)
        error = WorkerLostError(death.slot, death.pid, death.exitcode, message)
        if death.why:
            self._obstacle = death.why
            _log.warning("%s", error)
        if victim is not None:
            self._count_again(victim.again)
            assert self._spawner is not None
            self._blame.message(death, victim, error, why, self._spawner.runs_once(victim.target))
        if isinstance(decision, GiveUp):
            self._give_up(death.slot, error, decision.reason)
            self._tell_watchers(death.slot, error, given_up=True)
            return
        self._tell_watchers(death.slot, error)
        if not death.why:
            _log.warning("%s; a successor takes over its %d agents", error, self._directory.count(death.slot))
            self.restarts += 1
            self._unasked.tally.add(RESTARTS)
        if death.stack:
            _log.warning("the stack of worker %d at its end:\n%s", death.slot, death.stack)
        self.crew.call_later(decision.delay, lambda: self._succeed(death.slot))

    def _relieve(self, death: Death) -> None:
        """Start the successor of a worker that left as it was told: a new start, and nothing to account for."""
        with self._lock:
            reasons = self._reliefs.get(death.slot)
            reason = reasons.popleft() if reasons else "it was told to leave"
        _log.info("worker %d (pid %d) was recycled: %s", death.slot, death.pid, reason)
        self.recycled += 1
        self._unasked.tally.add(RECYCLED)
        self._progress[death.slot] = self._peer.progress(death.slot)
        self._died_ns.pop(death.slot, None)
        self._careful.discard(death.slot)
        self.crew.call_later(0, lambda: self._succeed(death.slot))

    def _replace_ended(self, death: Death, ending: Ending, policy: RestartPolicy) -> None:
        """Start the successor of a worker that we killed for the message it had in hand."""
        victim = ending.victim
        error = WorkerLostError(death.slot, death.pid, death.exitcode, f"{victim} ({ending.why})")
        self._blame.skip(
            death.slot, SkipOrder(victim.lane, victim.position, error)
        )  # first: whatever fails, it is not retried
        _log.info("%s", error)
        self.ended += 1
        self._count_again(victim.again - 1)
        self._progress[death.slot] = self._peer.progress(death.slot)
        policy.died(time.monotonic(), True)
        self._tell_watchers(death.slot, None)
        self.crew.call_later(0, lambda: self._succeed(death.slot))

    def _count_again(self, messages: int) -> None:
        self.redelivered += messages
        self._unasked.tally.add(REDELIVERED, messages)

    def _tell_watchers(self, slot: int, error: WorkerLostError | None, given_up: bool = False) -> None:
        for watcher in self.watchers:
            watcher(slot, error, given_up)

    def _mend(self, death: Death) -> None:
        """Make its lanes to us good again and tell those whose replies may have been there; then it may have died."""
        mend = mender(self._segment, self._peer, death.slot)
        self._culler.note(death.pid, GARBLED)

        def mend_and_tell(receiver: Receiver) -> None:
            mend(receiver)
            self.crew.call_later(0, lambda: self.crew.tell(death))

        error = WorkerLostError(death.slot, death.pid, death.exitcode, GARBLED)
        self._switchboard.replies.fail_all(death.slot, error, mend_and_tell)

    def _had_begun(self, death: Death) -> bool:
        """Had this worker taken over its slot? Else what lies there is its predecessor's, which has been looked at."""
        return self._segment.counters_of(death.slot)[PID] == death.pid != 0

    def _succeed(self, slot: int) -> None:
        if slot in self._going:  # sent away while nobody was there, to hear that and to leave
            self._worker_died(Death(slot, 0, None, "it was sent away before it was started again"))
            return  # whoever waited for that may have started another worker there by now: a second would be nobody's
        if slot not in self.slots or self._spawner is None:
            if slot in self._going:  # sent away before it had come
                self._worker_died(Death(slot, 0, None, "it was sent away"))
            return
        try:
            take_over = TakeOverOrder(0, self._died_ns.get(slot, 0), slot in self._careful)
            self.crew.start(slot, [take_over, *self._blame.learnt(slot), *self._spawner.orders_of(slot)])
        except Exception as error:  # no memory for the orders: to be tried again as if it had died
            self._worker_died(Death(slot, 0, None, f"{type(error).__name__}: {error}"))

    def _give_up(self, slot: int, error: WorkerLostError, reason: str) -> None:
        with self._lock:
            self._policies.pop(slot, None)
            self._post_slots()
            self._going.discard(slot)
        lost = self._directory.lose(slot)
        if self._spawner is not None:
            self._spawner.slots = self.slots
        _log.error("%s; given up (%s): its %d agents are lost", error, reason, lost)
        error.add_note(f"given up: {reason}")
        self._empty(slot, error)

    def _empty(self, slot: int, error: WorkerLostError) -> None:
        """Take what lies in the lanes of a dead worker that has no successor, and tell whose it is."""
        self._switchboard.give_up(slot, error)  # before its lanes are emptied: nothing comes after that
        self._switchboard.replies.fail_all(slot, error)
        self._empty_lanes(slot, error)

    def _empty_lanes(self, slot: int, error: WorkerLostError) -> None:
        """Empty them now, or when there are memory and descriptors for it: who waits for quiet waits for this."""
        if slot in self.slots:
            return  # it has a worker again, who reads them
        codec, bells = self._switchboard.codec, self.crew.bells
        try:
            empty_lanes(self._segment, slot, codec, bells, error, self._unasked.bury)
        except (OSError, MemoryError) as problem:
            _log.warning("the lanes of worker %d cannot be emptied yet: %s", slot, problem)
            self.crew.call_later(_AGAIN, lambda: self._empty_lanes(slot, error))
