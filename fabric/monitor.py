"""Watch a fabric that runs in another process: its figures, who waits for whom, where a worker is in its Python code.

    coordinator, workers                      segment (memfd)              this process
    count, as they always do  ──────────────▶ words ──pread──▶ Monitor ──▶ Statistics, Sample, Waits
    worker k: leaves its stack in a file  ◀──LOOK_SIGNAL── stack(k)

Reads only, by /proc/PID/fd, which the kernel allows the same user. Reading a file leaves its holes as they are, so
no page of the segment comes to be by being watched, and the watched processes do nothing for it.
"""

import contextlib
import fcntl
import os
import select
import signal
import time
import warnings
from typing import Self

from fabric import counters as count
from fabric.attaching import Found, attach, check_user, entries
from fabric.errors import FabricError
from fabric.lanes import look_into, records_sent
from fabric.messages import COORDINATOR, LOOK_SIGNAL
from fabric.meters import Meters
from fabric.postmortem import is_stopped
from fabric.samples import Sample
from fabric.stacks import LOOK_FILE
from fabric.statistics import Known, Statistics, take
from fabric.usage import UsageReader
from fabric.waits import Waiting, Waits

_MOST_BYTES = 256 << 10  # of a stack: of up to 100 threads
_PATIENCE = 1.0  # seconds that a worker has to leave its stack
_STOP_PATIENCE = 0.1  # seconds for which the coordinator may stop a worker
_LOOK = 0.005


class Monitor:
    """A look at a fabric from outside, as long as it runs. Use it as a context manager. One thread at a time.

    `pid` is the process that made the fabric. Where that has several, `index` or `identity` says which.

    Raises:
        ProcessLookupError: there is no such process.
        PermissionError: it is another user's.
        LayoutError: its fabric is of another version of shm-fabric.
        FabricError: it runs no fabric, or several and none is chosen, or is a worker; the text says which.

    Example:
        >>> with Monitor(pid) as monitor:
        ...     monitor.statistics().messages
        1000
    """

    def __init__(self, pid: int, *, index: int | None = None, identity: int | None = None) -> None:
        self.pid = pid
        self._closed = True
        check_user(pid)
        try:
            self._process = os.pidfd_open(pid)
        except OSError:  # ended meanwhile, or a thread
            raise ProcessLookupError(f"there is no process {pid}") from None
        try:
            found = attach(pid, index, identity)
        except BaseException as error:
            ended = _has_ended(self._process)
            os.close(self._process)
            if ended and isinstance(error, FabricError):
                raise ProcessLookupError(f"process {pid} has ended") from None
            raise
        self._take(found)

    def _take(self, found: Found) -> None:
        self._segment, self._place = found
        self._closed = False
        self.identity = self._segment.layout.identity
        self._meters = Meters(self._segment)
        self._waiting = Waiting(self._segment)
        self._usage: UsageReader | None = None
        self._before: Statistics | None = None

    @property
    def alive(self) -> bool:
        """Does the fabric run still? False once its process has ended, or has closed it; or this is closed."""
        return not self._closed and not _has_ended(self._process) and self._place.is_held()

    @property
    def descriptor(self) -> int:
        """A descriptor that is readable once that process has ended: for poll and select."""
        return self._process

    @property
    def process_ended(self) -> bool:
        """Has the process that made the fabric ended?"""
        return self._closed or _has_ended(self._process)

    def statistics(self) -> Statistics:
        """Return what the coordinator's own `statistics()` says; the last figures, once the fabric has ended.

        `outstanding` is told otherwise: questions sent less replies received, those given up included; and `sent`
        stands still while metrics are off.

        Raises:
            ClosedError: this monitor is closed.
        """
        pids = self._meters.pids()

        def lane(slot: int) -> tuple[int, int, int]:
            head, tail = self._segment.head_of(slot, COORDINATOR), self._segment.tail_of(COORDINATOR, slot)
            found = look_into(self._segment, COORDINATOR, slot, head, tail)
            return found.bytes, found.capacity, records_sent(self._segment, COORDINATOR, slot)

        slots = self._meters.slots()
        known = Known(
            slots=slots,
            former=[slot for slot in self._meters.used() if slot not in slots],
            agents=lambda slot: self._meters.counters_of(slot)[count.AGENTS],
            lane=lane,
            pids=lambda slot: pids[slot] if slot in slots else 0,
            facts={},
        )
        return take(self._meters, known)

    def sample(self) -> Sample:
        """Return the statistics with rates since the sample before, and what the system says of the processes.

        Raises:
            ClosedError: this monitor is closed.
        """
        statistics = self.statistics()
        pids = [statistics.coordinator.pid, *(worker.pid for worker in statistics.workers if worker.alive)]
        self._usage = self._usage or UsageReader()
        before, self._before = self._before, statistics
        return Sample(statistics, self._usage.read(pids) if self.alive else {}, before)

    def waits(self) -> Waits:
        """Return what lies in the lanes and what each worker has in hand; since when, as far as this has seen it.

        Raises:
            ClosedError: this monitor is closed.
        """
        return self._waiting.look(time.monotonic())

    def stack(self, slot: int) -> str:
        """Return the Python stack of a worker, whatever it does at the moment: of all its threads, innermost first.

        Waits for it for up to a second. The worker is interrupted by a signal, which it does not notice otherwise.

        Raises:
            FabricError: there is no worker in that slot, or it can leave none: it is stopped, starts or ends.
            ClosedError: this monitor is closed.
        """
        pid = self._worker_pid(slot)
        name = f"worker {slot} (pid {pid})"
        try:
            process = os.pidfd_open(pid)
        except OSError:
            raise FabricError(f"{name} has ended") from None
        try:
            if _has_ended(process):
                raise FabricError(f"{name} has ended: ask again for its successor's stack")
            if _stays_stopped(pid):
                raise FabricError(
                    f"{name} is stopped, by a signal or a debugger, and runs no code that could tell its stack; "
                    f"kill -CONT {pid} lets it go on"
                )
            if not self._is_worker(slot, pid) or not _catches(pid, LOOK_SIGNAL):  # which would end it
                raise FabricError(f"{name} does not answer onlookers: it is starting, or had no descriptor to spare")
            return _stack_of(name, pid, process)
        finally:
            os.close(process)

    def _worker_pid(self, slot: int) -> int:
        slots = self._meters.slots()
        if slot not in slots:
            raise FabricError(f"there is no worker {slot}: this fabric has workers {', '.join(map(str, slots))}")
        pid = self._meters.pids()[slot]
        if pid == 0 or not self.alive:
            raise FabricError(f"nobody runs in slot {slot}: its worker has ended, or its successor is starting")
        return pid

    def _is_worker(self, slot: int, pid: int) -> bool:
        """Is this process, whose pidfd we hold, the worker in that slot? It says so, and holds the segment."""
        if self._meters.counters_of(slot)[count.PID] != pid or self._meters.pids()[slot] != pid:
            return False
        with contextlib.suppress(OSError):
            return any(place.file == self._place.file for place in entries(pid, os.readlink(self._place.path)))
        return False

    def close(self) -> None:
        """Look no more. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._segment.close()
            os.close(self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *rest: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(f"unclosed {self!r}: use it in a with statement", ResourceWarning, source=self, stacklevel=1)
            self.close()

    def __repr__(self) -> str:
        return f"<Monitor of process {self.pid}: {'closed' if self._closed else f'fabric {self.identity:016x}'}>"


def _has_ended(pidfd: int) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))


def _stays_stopped(pid: int) -> bool:
    """Is it stopped, and not only for the moment in which the coordinator looks at it?"""
    deadline = time.monotonic() + _STOP_PATIENCE
    while is_stopped(pid):
        if time.monotonic() > deadline:
            return True
        time.sleep(_LOOK)
    return False


def _catches(pid: int, number: int) -> bool:
    """Has this process a handler for a signal?"""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8") as status:
        for line in status:
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def _stack_of(name: str, pid: int, process: int) -> str:
    """Have a worker leave its stack, read it, and empty the file. Onlookers take turns by its lock."""
    places = entries(pid, f"/memfd:{LOOK_FILE} (deleted)")
    try:
        file = os.open(places[0].path, os.O_RDWR | os.O_CLOEXEC)
    except (OSError, IndexError):
        raise FabricError(f"{name} has ended") from None
    deadline = time.monotonic() + _PATIENCE
    try:
        while not _locked(file):
            if time.monotonic() > deadline:
                raise FabricError(f"another onlooker asks {name} for its stack, and does not finish")
            time.sleep(_LOOK)
        os.ftruncate(file, 0)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, LOOK_SIGNAL)
        text = _await_text(file, deadline)
        os.ftruncate(file, 0)
    finally:
        os.close(file)
    if not text:
        state = "has ended" if _has_ended(process) else "is in a system call that nothing interrupts"
        raise FabricError(f"{name} left no stack within {_PATIENCE:g} s: it {state}")
    return text


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _await_text(file: int, deadline: float) -> str:
    """Return what was written, once that grows no more."""
    size = 0
    while time.monotonic() < deadline:
        time.sleep(_LOOK)
        before, size = size, os.fstat(file).st_size
        if size == before != 0:
            break
    return os.pread(file, _MOST_BYTES, 0).decode("utf-8", "replace")
