"""Start worker processes, watch them, and say how they end. Decides nothing: the coordinator does.

coordinator process                                fork server          worker k
  Crew.start(k) --------------------socket-------> fork ------------->  runs
  watcher thread, in poll on:
    each worker's pidfd     readable: it is dead (only the kernel says so)
    the server's socket     births, and how each one ended
    the attention bell      a worker has something for a coordinator that waits for nothing
    its own bell            there is something new to watch, or it is time to leave
    the lifeline's reader   never readable; its writer is what workers hang on
"""

import contextlib
import logging
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
from fabric.errors import FabricError
from fabric.messages import Boot, COORDINATOR, STACK_SIGNAL
from fabric.segment import Segment
from fabric.wire import receive_frame, send_frame

_BOOTSTRAP = "import sys; sys.path[:] = sys.argv.pop().split(chr(31)); from fabric.workers.__main__ import main; main()"
_log = logging.getLogger("fabric")
_STACK_BYTES = 64 << 10
_STACK_PATIENCE = 0.5  # seconds that a hung worker has to say where it hangs
_STACK_LOOK = 0.02
_STATUS_PATIENCE = 1.0  # seconds that the exit status of a dead worker may take from the fork server


class Death(NamedTuple):
    """A worker that ended. `exitcode` as in multiprocessing: a signal is negative; None when not known.

    `stack` is what faulthandler left of it, "" for nothing.
    """

    slot: int
    pid: int
    exitcode: int | None
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
        self._statuses: dict[int, int] = {}
        self._changed = threading.Condition()
        self._starting = threading.Lock()  # one frame at a time on the socket
        self._leaving = False
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._server: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._spawned: dict[int, subprocess.Popen[bytes]] = {}
        self._descriptors: list[int] = []
        self._stacks: dict[int, int] = {}  # by slot: the file that its worker leaves its stack in
        try:
            self.bells = [self._eventfd() for _ in range(segment.layout.processes)]
            self._attention, self._bell = self._eventfd(), self._eventfd()
            self._lifeline, self._lifeline_writer = os.pipe2(os.O_CLOEXEC)
            self._descriptors += [self._lifeline, self._lifeline_writer]
            if config.start_method == "forkserver":
                self._start_server()
            self._watcher = threading.Thread(target=self._watch, name="fabric-supervisor", daemon=True)
            self._watcher.start()
        except BaseException:
            self._close_server()
            self.close_descriptors()
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
        """Start a worker in a slot; it carries out `orders` before it looks at its lanes. Returns at once."""
        with self._starting:
            self._start(slot, orders)

    def _start(self, slot: int, orders: list[Any]) -> None:
        if self._config.start_method == "spawn":
            self._spawn(slot, orders)
            return
        for _ in range(2):
            try:
                assert self._link is not None
                send_frame(self._link, (slot, orders), (self._new_stack(slot),))
                return
            except OSError:  # the fork server was killed: its workers go on, and it is replaced
                self._close_server()
                self._start_server()
        raise FabricError("the fork server dies as soon as it starts; python -m fabric doctor may tell why")

    def wait_started(self, slots: list[int], timeout: float) -> None:
        """Wait until workers run in these slots. FabricError when they do not in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: all(slot in self._workers for slot in slots), timeout):
                missing = [slot for slot in slots if slot not in self._workers]
                raise FabricError(f"workers {missing} did not start within {timeout} s: see their messages above")

    def kill(self, slot: int) -> None:
        """Kill a worker; its death is told as any other's. Nothing happens when there is none."""
        with self._changed:
            worker = self._workers.get(slot)
            if worker is not None:
                with contextlib.suppress(ProcessLookupError):  # it is dead, and that has not been taken in yet
                    signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)

    def ask_for_stack(self, slot: int) -> None:
        """Have a worker leave its Python stack, and wait a little for it. One that is stopped leaves none."""
        with self._changed:
            worker, stack = self._workers.get(slot), self._stacks.get(slot)
            if worker is None or stack is None:
                return
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(worker.pidfd, STACK_SIGNAL)
        deadline = time.monotonic() + _STACK_PATIENCE
        size = -1
        while time.monotonic() < deadline and not 0 < size == os.fstat(stack).st_size:
            size = os.fstat(stack).st_size
            time.sleep(_STACK_LOOK)

    def empty(self) -> bool:
        """Does no worker run?"""
        return not self._workers

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Run a function in the supervisor thread after so many seconds, unless the crew is closed before."""
        with self._changed:
            self._due.append((time.monotonic() + seconds, function))
        os.eventfd_write(self._bell, 1)

    def wait_ended(self, timeout: float) -> bool:
        """Wait until no worker runs any more; False when some still do after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._workers, timeout)

    def close(self) -> None:
        """Kill what still runs, and end the supervisor thread. Safe to call twice."""
        if self._leaving:
            return
        for slot in self.workers:
            self.kill(slot)
        self.wait_ended(10.0)
        self._leaving = True
        os.eventfd_write(self._bell, 1)
        if threading.current_thread() is not self._watcher:
            self._watcher.join()
        self._close_server()

    def close_descriptors(self) -> None:
        """Close what this process holds, when nobody rings any more; in a forked child this is all there is to do."""
        descriptors, self._descriptors = [*self._descriptors, *self._stacks.values()], []
        self._stacks.clear()
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)

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
            preload=[name for name in ("numpy",) if name in sys.modules],
        )

    def _new_stack(self, slot: int) -> int:
        """Return an empty anonymous file for the stack of a worker that is about to start."""
        old = self._stacks.pop(slot, None)
        if old is not None:
            os.close(old)
        self._stacks[slot] = os.memfd_create("shm-fabric-stack", os.MFD_CLOEXEC)
        return self._stacks[slot]

    def _launch(self, slot: int | None) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair()
        boot = self._boot(slot)
        inherited = [theirs.fileno(), boot.memfd, boot.lifeline, boot.attention, *boot.bells]
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        with theirs, _interrupts_blocked():
            process = subprocess.Popen(
                [sys.executable, *flags, "-c", _BOOTSTRAP, str(theirs.fileno()), "\x1f".join(boot.sys_path)],
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
            )
        send_frame(ours, boot)
        return process, ours

    def _start_server(self) -> None:
        self._server, self._link = self._launch(None)
        with contextlib.suppress(AttributeError):
            os.eventfd_write(self._bell, 1)

    def _close_server(self) -> None:
        if self._link is not None:
            self._link.close()
        if self._server is not None:
            self._server.wait()
        self._server = self._link = None

    def _spawn(self, slot: int, orders: list[Any]) -> None:
        process, link = self._launch(slot)
        with link:
            send_frame(link, orders, (self._new_stack(slot),))
        self._spawned[process.pid] = process
        self._born(slot, process.pid, os.pidfd_open(process.pid))

    # Watching.

    def _watch(self) -> None:
        poller = select.poll()
        while not self._leaving:
            watched = self._watched()
            for descriptor in watched:
                poller.register(descriptor, select.POLLIN)
            ready = [descriptor for descriptor, _ in poller.poll(self._run_due())]
            for descriptor in watched:
                poller.unregister(descriptor)
            for descriptor in ready:
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

    def _watched(self) -> dict[int, Callable[[], None]]:
        with self._changed:
            watched: dict[int, Callable[[], None]] = {
                worker.pidfd: lambda worker=worker: self._ended(worker)  # type: ignore[misc]
                for worker in self._workers.values()
            }
        watched[self._bell] = lambda: _clear(self._bell)
        watched[self._attention] = self._attend
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
        except (EOFError, OSError):  # killed: replaced when a worker is to be started
            with contextlib.suppress(OSError):
                link.close()
            return
        if event == "born":
            self._born(slot, pid, descriptors[0])
        else:
            self._statuses[pid] = rest[0]

    def _born(self, slot: int, pid: int, pidfd: int) -> None:
        with self._changed:
            self._workers[slot] = Worker(slot, pid, pidfd)
            self._changed.notify_all()
        os.eventfd_write(self._bell, 1)

    def _ended(self, worker: Worker) -> None:
        """Tell of a death; only then is the slot free, so that nobody starts another worker there meanwhile."""
        exitcode = self._exit_status(worker)
        try:
            self._on_death(Death(worker.slot, worker.pid, exitcode, self._stack_of(worker.slot)))
        finally:
            with self._changed:
                if self._workers.get(worker.slot) == worker:
                    del self._workers[worker.slot]
                os.close(worker.pidfd)
                os.eventfd_write(self.bells[COORDINATOR], 1)  # now, not before: who closes looks at `empty`
                self._changed.notify_all()

    def _stack_of(self, slot: int) -> str:
        stack = self._stacks.get(slot)
        return "" if stack is None else os.pread(stack, _STACK_BYTES, 0).decode("utf-8", "replace")

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


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start a process that Ctrl-C does not reach before it has said that it ignores it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _clear(eventfd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(eventfd)
