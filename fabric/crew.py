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
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fabric.config import FabricConfig
from fabric.errors import ClosedError, FabricError, advice
from fabric.guarded_log import GuardedLogger
from fabric.launch import launch
from fabric.log_pipe import WorkerOutput, coordinator_levels
from fabric.messages import COORDINATOR, STACK_SIGNAL, Boot
from fabric.orders import encode_order
from fabric.segment import Segment
from fabric.stacks import Stacks
from fabric.wire import receive_frame, send_frame

_log = GuardedLogger("fabric")
_PAUSE = 0.1  # seconds until the supervisor thread tries again what the machine refused
_SERVER_PATIENCE = 5.0  # seconds that the fork server has to leave once its socket has ended
_STATUS_PATIENCE = 1.0  # seconds that the exit status of a dead worker may take from the fork server


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
        self._statuses: dict[int, int] = {}
        self._expected: set[int] = set()  # slots whose worker the fork server has been asked for
        self._changed = threading.Condition()
        self._starting = threading.Lock()  # one frame at a time on the socket
        self._leaving = False
        self._closed = False
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._server: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._spawned: dict[int, subprocess.Popen[bytes]] = {}
        self._descriptors: list[int] = []
        self._stacks = Stacks()
        self.output = WorkerOutput(config, self._pid_of)
        try:
            self.bells = [self._eventfd() for _ in range(segment.layout.processes)]
            self._attention, self._bell = self._eventfd(), self._eventfd()
            self._lifeline, self._lifeline_writer = os.pipe2(os.O_CLOEXEC)
            self._descriptors += [self._lifeline, self._lifeline_writer]
            if config.start_method == "forkserver":
                self._start_server()
            self._watcher = threading.Thread(target=self._watch, name="fabric-supervisor", daemon=True)
            self._watcher.start()
        except BaseException as error:
            self._close_server()
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
        if self._link is None:  # the fork server was killed: its workers go on, and it is replaced
            self._start_server()
        assert self._link is not None
        with self._changed:
            self._expected.add(slot)
        try:
            with self.output.opened(slot) as channels:
                send_frame(self._link, (slot, orders), (self._stacks.new(slot), *channels))
        except OSError:  # killed: the watcher reads what it had still to say, then takes note of what it left undone
            with contextlib.suppress(OSError):
                self._link.shutdown(socket.SHUT_WR)
        except BaseException:
            with self._changed:
                self._expected.discard(slot)
            raise

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

    @property
    def server_pid(self) -> int | None:
        """The process that forks the workers, None when there is none."""
        server = self._server
        return None if server is None else server.pid

    def kill_server(self) -> None:
        """Kill the fork server; its end of the socket tells, and another one is started when it is needed."""
        server = self._server
        if server is not None:
            server.kill()

    @property
    def watcher(self) -> threading.Thread:
        """The supervisor thread."""
        return self._watcher

    def empty(self) -> bool:
        """Does no worker run?"""
        return not self._workers

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Run a function in the supervisor thread after so many seconds, unless the crew is closed before."""
        with self._changed:
            self._due.append((time.monotonic() + seconds, function))
        os.eventfd_write(self._bell, 1)

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
        if self._leaving:
            return
        watching = threading.current_thread() is self._watcher
        with contextlib.nullcontext() if watching else self._starting:  # whoever is about to start one has done so
            self._closed = True
        for slot in self.workers:
            self.kill(slot)
        self.wait_ended(10.0)
        self._leaving = True
        os.eventfd_write(self._bell, 1)
        if not watching:
            self._watcher.join()
        self._end_late_comers()
        self._close_server()

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
        boot = self._boot(None)
        self._server, self._link = launch(boot)
        with contextlib.suppress(ConnectionError):  # it is dead already: the watcher, or who sends next, finds out
            send_frame(self._link, boot)
        os.eventfd_write(self._bell, 1)

    def _close_server(self) -> None:
        if self._link is not None:
            self._link.close()
        if self._server is not None:
            try:
                self._server.wait(_SERVER_PATIENCE)
            except subprocess.TimeoutExpired:  # stopped by somebody: it would never leave
                self._server.kill()
                self._server.wait()
        self._server = self._link = None

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

    def _watch(self) -> None:
        while not self._leaving:
            try:
                self._look()
            except Exception:  # memory may be short, so that nothing is certain: look again soon
                _log.exception("the supervisor thread goes on after")
                time.sleep(_PAUSE)

    def _look(self) -> None:
        """Wait until something happens, and see to it."""
        watched = self._watched()
        poller = select.poll()
        for descriptor in watched:
            poller.register(descriptor, select.POLLIN)
        for descriptor, _ in poller.poll(self._run_due()):
            try:
                watched[descriptor]()
            except Exception:  # whatever it was: the other workers are to be watched on
                _log.exception("the supervisor thread goes on after")

    def _run_due(self) -> float | None:
        """Run what is due; return milliseconds until the next, None when there is none."""
        while not self._leaving:
            with self._changed:
                self._due.sort(key=lambda item: item[0])
                if not self._due:
                    return None
                wait = self._due[0][0] - time.monotonic()
                if wait > 0:
                    return wait * 1000 + 1
                _, function = self._due.pop(0)
            function()
        return 0

    def _watched(self) -> dict[int, Callable[[], object]]:
        with self._changed:
            watched: dict[int, Callable[[], object]] = {
                worker.pidfd: lambda worker=worker: self._ended(worker)  # type: ignore[misc]
                for worker in self._workers.values()
            }
        watched[self._bell] = lambda: _clear(self._bell)
        watched[self._attention] = self._attend
        watched.update(self.output.watched())
        if self._link is not None and self._link.fileno() >= 0:
            watched[self._link.fileno()] = self._hear_server
        return watched

    def _attend(self) -> None:
        _clear(self._attention)
        self._on_attention()

    def _hear_server(self) -> None:
        link = self._link
        if link is None or not select.select([link], [], [], 0)[0]:  # read meanwhile, by _exit_status
            return
        try:
            (event, slot, pid, *rest), descriptors = receive_frame(link)
        except (EOFError, OSError):
            self._server_ended(link)
            return
        if event == "born":
            self._greet(slot, pid, descriptors)
            return
        self._statuses[pid] = rest[0]

    def _server_ended(self, link: socket.socket) -> None:
        """Take note that the fork server was killed, and of what it left undone; it is replaced when it is needed."""
        with self._starting:
            if self._link is link:
                self._close_server()
            with self._changed:
                undone, self._expected = self._expected, set()
        for slot in sorted(undone):
            self._stillborn(slot, "the fork server died before it had done so")

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

    def _greet(self, slot: int, pid: int, descriptors: list[int]) -> None:
        """Watch a worker that was forked, and only then open its gate."""
        with self._changed:
            self._expected.discard(slot)
        if len(descriptors) < 2:  # our table of descriptors is full: without its key it ends at the gate
            for descriptor in descriptors:
                os.close(descriptor)
            self._stillborn(slot, "there is no descriptor left to watch it by; raise the limit, ulimit -n")
            return
        pidfd, key = descriptors
        self._born(slot, pid, pidfd)
        with contextlib.suppress(OSError):  # it is dead: its pidfd says so
            os.write(key, b"\0")
        os.close(key)

    def _born(self, slot: int, pid: int, pidfd: int) -> None:
        with self._changed:
            self._workers[slot] = Worker(slot, pid, pidfd)
            self.post(slot, pid)
            self._changed.notify_all()
        os.eventfd_write(self._bell, 1)

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
        deadline = time.monotonic() + _STATUS_PATIENCE
        while worker.pid not in self._statuses and time.monotonic() < deadline:
            link = self._link
            if link is None or link.fileno() < 0:
                return None  # the fork server, its parent, is dead: nobody can know
            if select.select([link], [], [], _STATUS_PATIENCE)[0]:
                self._hear_server()
        return self._statuses.pop(worker.pid, None)


def _clear(eventfd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(eventfd)
