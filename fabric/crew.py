"""Start worker processes, watch them, and say how they end. Decides nothing: the coordinator does.

coordinator process                                fork server          worker k
  Crew.start(k) --------------------socket-------> fork ------------->  waits at its gate
  watcher <---- born: pidfd and the gate's key ---------                  |
          ------ opens the gate ----------------------------------------> runs
  watcher thread, in poll on:
    each worker's pidfd     readable: it is dead (only the kernel says so)
    the server's socket     births, and how each one ended
    workers' logs, output   handed to this process's logging
    the attention bell      a worker has something for a coordinator that waits for nothing
    its own bell            there is something new to watch, or it is time to leave
    the lifeline's reader   never readable; its writer is what workers hang on

A worker does nothing before its pidfd is watched. Whatever is killed or fails on the way, the key is lost with it
and the worker ends at its gate: none ever runs unwatched in a slot, beside another that is started there.
"""

import contextlib
import errno
import os
import select
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fabric.config import FabricConfig
from fabric.errors import ClosedError, FabricError, advice
from fabric.fork_server import ForkServer
from fabric.guarded_log import GuardedLogger
from fabric.launch import launch
from fabric.log_pipe import WorkerOutput, coordinator_levels
from fabric.lookout import Lookout, clear
from fabric.messages import COORDINATOR, STACK_SIGNAL, Boot
from fabric.orders import encode_order
from fabric.segment import Segment
from fabric.stacks import Stacks
from fabric.wire import send_frame

_log = GuardedLogger("fabric")
_PAUSE = 0.1  # seconds until a death is told again that could not be told


class Death(NamedTuple):
    """A worker that ended. `exitcode` as in multiprocessing: a signal is negative; None when not known.

    `pid` is 0 for one that could not be started, and `why` says what was in the way; `stack` is what faulthandler
    left of it, "" for nothing.
    """

    slot: int
    pid: int
    exitcode: int | None
    why: str = ""
    stack: str = ""


class Worker(NamedTuple):
    """A running worker."""

    slot: int
    pid: int
    pidfd: int


class Crew:
    """The worker processes of one fabric."""

    def __init__(
        self,
        config: FabricConfig,
        segment: Segment,
        cores: int,
        on_death: Callable[[Death], None],
        on_attention: Callable[[], None],
    ) -> None:
        self._config = config
        self._segment = segment
        self._cores = cores
        self._on_death = on_death
        self._on_attention = on_attention
        self._workers: dict[int, Worker] = {}
        self.post: Callable[[int, int], None] = lambda slot, pid: None  # told who runs in a slot, 0 for nobody
        self._changed = threading.Condition()
        self._starting = threading.Lock()  # one at a time, and none behind `_closed`
        self._closed = False
        self.server = ForkServer(self._starting, self._born, self._stillborn)
        self._spawned: dict[int, subprocess.Popen[bytes]] = {}
        self._descriptors: list[int] = []
        self._stacks = Stacks()
        self.output = WorkerOutput(config, self._pid_of)
        try:
            self.bells = [self._eventfd() for _ in range(segment.layout.processes)]
            self._attention = self._eventfd()
            self._lookout = Lookout(self._eventfd(), self._watched)
            self.watcher = self._lookout.thread  # the supervisor thread
            self._lifeline, self._lifeline_writer = os.pipe2(os.O_CLOEXEC)
            self._descriptors += [self._lifeline, self._lifeline_writer]
            if config.start_method == "forkserver":
                self._start_server()
            self.watcher.start()
        except BaseException as error:
            self.server.close()
            self.close_descriptors()
            if isinstance(error, RuntimeError):
                raise OSError(errno.EAGAIN, str(error)) from error  # "can't start new thread"
            raise

    def _eventfd(self) -> int:
        self._descriptors.append(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        return self._descriptors[-1]

    @property
    def workers(self) -> dict[int, Worker]:
        """The running workers by slot."""
        with self._changed:
            return dict(self._workers)

    def start(self, slot: int, orders: list[Any]) -> None:
        """Start a worker in a slot; it carries out `orders` before it looks at its lanes. Returns at once.

        Where the machine refuses what that takes, it is told as a death, and whether to try again is decided there.
        ClosedError: the crew is closed.
        """
        encoded = [encode_order(order) for order in orders]  # for the worker to read: the fork server runs no user code
        try:
            with self._starting:
                if self._closed:
                    raise ClosedError("this fabric is closed: it starts no worker any more")
                self._start(slot, encoded)
        except OSError as error:
            why = (error.strerror or str(error)) + advice(error)
            self.call_later(0, lambda: self._stillborn(slot, why))

    def _start(self, slot: int, orders: list[bytes]) -> None:
        if self._config.start_method == "spawn":
            self._spawn(slot, orders)
            return
        if not self.server.linked:  # the fork server was killed: its workers go on, and it is replaced
            self._start_server()
        with self.server.asked(slot) as link, self.output.opened(slot) as channels:
            send_frame(link, (slot, orders), (self._stacks.new(slot), *channels))

    def wait_started(self, slots: list[int], timeout: float, failed: Callable[[], bool] = lambda: False) -> bool:
        """Wait until workers run in these slots. False: `failed` says that one of them never will.

        Raises:
            FabricError: they do not run in time.
        """

        def running() -> bool:
            return all(slot in self._workers for slot in slots)

        with self._changed:
            if not self._changed.wait_for(lambda: running() or failed(), timeout):
                missing = [slot for slot in slots if slot not in self._workers]
                raise FabricError(f"workers {missing} did not start within {timeout} s: see their messages above")
            return running()

    def kill(self, slot: int) -> None:
        """Kill a worker; its death is told as any other's. Nothing happens when there is none."""
        with self._changed:
            worker = self._workers.get(slot)
            if worker is not None:
                with contextlib.suppress(ProcessLookupError):  # it is dead, and that has not been taken in yet
                    signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)

    @contextlib.contextmanager
    def worker_at(self, slot: int) -> Iterator[Worker | None]:
        """Give the worker of a slot with a pidfd that stays open meanwhile, though it may die; None: there is none."""
        with self._changed:
            worker = self._workers.get(slot)
            if worker is not None:
                worker = worker._replace(pidfd=os.dup(worker.pidfd))
        try:
            yield worker
        finally:
            if worker is not None:
                os.close(worker.pidfd)

    def ask_for_stack(self, slot: int) -> None:
        """Have a worker leave its Python stack, and wait a little for it. One that is stopped leaves none."""
        with self._changed:
            worker = self._workers.get(slot)
            if worker is None:
                return
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(worker.pidfd, STACK_SIGNAL)
        self._stacks.wait(slot)

    def empty(self) -> bool:
        """Does no worker run?"""
        return not self._workers

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Run a function in the supervisor thread after so many seconds, unless the crew is closed before."""
        self._lookout.call_later(seconds, function)

    def wake(self) -> None:
        """Have those who wait in `wait_started` look again whether it has failed."""
        with self._changed:
            self._changed.notify_all()

    def wait_ended(self, timeout: float) -> bool:
        """Wait until no worker runs any more; False when some still do after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._workers, timeout)

    def close(self) -> None:
        """Kill what still runs, and end the supervisor thread. Safe to call twice."""
        if self._lookout.leaving:
            return
        watching = threading.current_thread() is self.watcher
        with contextlib.nullcontext() if watching else self._starting:  # whoever is about to start one has done so
            self._closed = True
        for slot in self.workers:
            self.kill(slot)
        self.wait_ended(10.0)
        self._lookout.leave()
        self._end_late_comers()
        self.server.close()

    def close_descriptors(self) -> None:
        """Close what this process holds, when nobody rings any more; in a forked child this is all there is to do."""
        descriptors, self._descriptors = self._descriptors, []
        self._stacks.close()
        self.output.close()
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _end_late_comers(self) -> None:
        """Kill those that were born behind the last look: nobody watches them any more."""
        for worker in self.workers.values():
            self.kill(worker.slot)
            select.select([worker.pidfd], [], [])
            process = self._spawned.pop(worker.pid, None)
            if process is not None:
                process.wait()
            os.close(worker.pidfd)
        self._workers.clear()

    # Starting.

    def _boot(self, slot: int | None) -> Boot:
        return Boot(
            config=self._config,
            slot=slot,
            cores=self._cores,
            memfd=self._segment.descriptor,
            bells=self.bells,
            lifeline=self._lifeline,
            attention=self._attention,
            sys_path=[entry or os.getcwd() for entry in sys.path],
            argv=sys.argv[:1],
            warning_filters=list(warnings.filters),
            preload=[*(name for name in ("numpy",) if name in sys.modules), *self._config.preload],
            log_levels=coordinator_levels(),
        )

    def _start_server(self) -> None:
        self.server.start(self._boot(None))
        self._lookout.ring()

    def _spawn(self, slot: int, orders: list[bytes]) -> None:
        boot = self._boot(slot)
        process, link = launch(boot)
        with link:
            try:
                pidfd = os.pidfd_open(process.pid)
            except BaseException:
                process.kill()
                process.wait()
                raise
            self._spawned[process.pid] = process
            self._born(slot, process.pid, pidfd)
            with contextlib.suppress(ConnectionError):  # it is dead: its pidfd says so
                send_frame(link, boot)
                with self.output.opened(slot) as channels:
                    send_frame(link, orders, (self._stacks.new(slot), *channels))

    # Watching.

    def _watched(self) -> dict[int, Callable[[], object]]:
        with self._changed:
            watched: dict[int, Callable[[], object]] = {
                worker.pidfd: lambda worker=worker: self._ended(worker)  # type: ignore[misc]
                for worker in self._workers.values()
            }
        watched[self._attention] = self._attend
        watched.update(self.output.watched())
        watched.update(self.server.watched())
        return watched

    def _attend(self) -> None:
        clear(self._attention)
        self._on_attention()

    def _stillborn(self, slot: int, why: str) -> None:
        """Tell of a worker that never ran as of one that died."""
        self.tell(Death(slot, 0, None, why))
        with self._changed:
            self._changed.notify_all()

    def tell(self, death: Death) -> None:
        """Tell of a death; once more if that fails, for want of memory, or nobody would ever take the slot."""
        try:
            self._on_death(death)
        except Exception as error:
            _log.exception("the death of worker %d is told again after", death.slot)
            again = Death(death.slot, 0, None, f"{type(error).__name__}: {error}")
            self.call_later(_PAUSE, lambda: self.tell(again))

    def _born(self, slot: int, pid: int, pidfd: int) -> None:
        with self._changed:
            self._workers[slot] = Worker(slot, pid, pidfd)
            self.post(slot, pid)
            self._changed.notify_all()
        self._lookout.ring()

    def _ended(self, worker: Worker) -> None:
        """Tell of a death; only then is the slot free, so that nobody starts another worker there meanwhile."""
        exitcode = self._exit_status(worker)
        try:
            self.output.finish(worker.slot)
            self.tell(Death(worker.slot, worker.pid, exitcode, stack=self._stacks.read(worker.slot)))
        finally:
            with self._changed:
                if self._workers.get(worker.slot) == worker:
                    del self._workers[worker.slot]
                    self.post(worker.slot, 0)
                os.close(worker.pidfd)
                os.eventfd_write(self.bells[COORDINATOR], 1)  # now, not before: who closes looks at `empty`
                self._changed.notify_all()

    def _pid_of(self, slot: int) -> int | None:
        worker = self._workers.get(slot)
        return None if worker is None else worker.pid

    def _exit_status(self, worker: Worker) -> int | None:
        process = self._spawned.pop(worker.pid, None)
        if process is not None:
            return process.wait()
        return self.server.exit_status(worker.pid)
