"""Sample a fabric now and then, off its hot path: read its counters, ask the system for CPU and memory, keep some.

    whoever asks ──sample()──▶ Statistics + Usage ──▶ history (bounded) ──▶ conditions ──▶ callbacks
    sampler thread, only after start(): the same on a timer

The sampled processes do nothing for it: their counters are words in the segment, which are read as they stand.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable

from fabric.alerts import Alert, Condition
from fabric.guarded_log import GuardedLogger
from fabric.samples import Sample
from fabric.statistics import Statistics
from fabric.usage import UsageReader

_log = GuardedLogger("fabric")


class Sampler:
    """Samples of one fabric. Any thread; callbacks run in the one that samples."""

    def __init__(self, take: Callable[[], Statistics], interval: float, keep: int = 240) -> None:
        """`interval` is in seconds, `keep` how many samples the history has."""
        self._take = take
        self.interval = interval
        self._history: deque[Sample] = deque(maxlen=keep)
        self._usage: UsageReader | None = None  # made with the first sample
        self._lock = threading.RLock()  # a callback may ask for a sample
        self._watches: list[tuple[Condition, Callable[[Alert], None], set[str]]] = []
        self._listeners: list[Callable[[Sample], None]] = []
        self._at_close: list[Callable[[], None]] = []
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._apart: weakref.WeakSet[Sampler] = weakref.WeakSet()

    @property
    def history(self) -> list[Sample]:
        """The last samples, the oldest first."""
        with self._lock:
            return list(self._history)

    @property
    def latest(self) -> Sample | None:
        """The last sample; None: nobody has asked for one."""
        with self._lock:
            return self._history[-1] if self._history else None

    @property
    def running(self) -> bool:
        """Is there a thread that samples on its own?"""
        return self._thread is not None

    def sample(self) -> Sample:
        """Take a sample now, look at the conditions, and return it. Costs the workers nothing.

        Raises:
            ClosedError: the fabric is closed.
        """
        with self._lock:
            statistics = self._take()
            pids = [statistics.coordinator.pid, *(worker.pid for worker in statistics.workers if worker.alive)]
            before = self._history[-1].statistics if self._history else None
            self._usage = self._usage or UsageReader()
            sample = Sample(statistics, self._usage.read(pids), before)
            self._history.append(sample)
            listeners = list(self._listeners)
            due = self._alerts()
        for listener in listeners:
            self._tell(listener, sample)
        for callback, alert in due:
            self._tell(callback, alert)
        return sample

    def each(self, callback: Callable[[Sample], None]) -> Callable[[], None]:
        """Call back with each sample, whoever asks for it; return what ends that. Does not start the thread."""

        def stop() -> None:
            with self._lock:
                if callback in self._listeners:
                    self._listeners.remove(callback)

        with self._lock:
            self._listeners.append(callback)
        return stop

    def when(self, condition: Condition, callback: Callable[[Alert], None], start: bool = True) -> Callable[[], None]:
        """Call back when a condition comes to hold (fabric.alerts: slow, stalled, growing), once until it ends.

        With `start` the fabric is sampled from now on, each `interval`. Returns what ends the looking.
        """
        watch: tuple[Condition, Callable[[Alert], None], set[str]] = (condition, callback, set())

        def stop() -> None:
            with self._lock:
                self._watches = [one for one in self._watches if one is not watch]

        with self._lock:
            self._watches.append(watch)
        if start:
            self.start()
        return stop

    def start(self, interval: float | None = None) -> None:
        """Sample in a thread of its own, each `interval` seconds. Safe to call twice."""
        with self._lock:
            if interval is not None:
                if not interval > 0:
                    raise ValueError(f"interval={interval!r} must be over 0 seconds")
                self.interval = interval
                self._wake.set()  # the new interval begins now
            if self._thread is not None or self._closed:
                return
            me = weakref.ref(self)
            self._thread = threading.Thread(target=_run, args=(me, self._wake), name="fabric-sampler", daemon=True)
            self._thread.start()

    def apart(self, interval: float, keep: int = 240) -> "Sampler":
        """Return a sampler of the same fabric with an interval and a history of its own. It ends with this one."""
        if not interval > 0:
            raise ValueError(f"interval={interval!r} must be over 0 seconds")
        made = Sampler(self._take, interval, keep)
        with self._lock:
            self._apart.add(made)
            closed = self._closed
        if closed:
            made.close()
        return made

    def at_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when the fabric closes, while it can still be looked at; at once where that is past.

        Returns what takes that back.
        """

        def stop() -> None:
            with self._lock:
                self._at_close = [one for one in self._at_close if one is not callback]

        with self._lock:
            closed = self._closed
            if not closed:
                self._at_close.append(callback)
        if closed:
            callback()
        return stop

    def close(self) -> None:
        """End the thread, if there is one, and whoever looks. Safe to call twice; the history stays."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
            watchers, self._at_close = self._at_close, []
            self._wake.set()
            apart = list(self._apart)
        for watcher in watchers:
            self._tell(watcher)
        for sampler in apart:
            sampler.close()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _alerts(self) -> list[tuple[Callable[[Alert], None], Alert]]:
        """Look at the conditions; return whom to tell of what is new."""
        due = []
        history = list(self._history)
        for condition, callback, known in self._watches:
            found = {alert.key: alert for alert in condition(history)}
            due += [(callback, alert) for key, alert in found.items() if key not in known]
            known.clear()
            known.update(found)
        return due

    def _tell(self, callback: Callable[..., None], *what: Alert | Sample) -> None:
        try:
            callback(*what)
        except Exception:
            _log.exception("a callback of the sampler raised")

    def _sample_on_time(self) -> bool:
        """Sample for the thread. False: that is over."""
        if self._closed:
            return False
        try:
            self.sample()
        except Exception:  # closed meanwhile, or a condition that raises: the next sample may go well
            if not self._closed:
                _log.exception("the fabric could not be sampled")
        return not self._closed


def _run(me: "weakref.ref[Sampler]", wake: threading.Event) -> None:
    """Sample until the sampler is closed, or nobody holds it any more."""
    interval = 0.0
    while True:
        woken = wake.wait(interval) if interval else False
        sampler = me()
        if sampler is None:
            return
        wake.clear()
        if not woken and not sampler._sample_on_time():
            return
        if sampler._closed:
            return
        interval = sampler.interval
        del sampler
