"""Hand out the items of a map, so many at a time, whatever they come from.

    sequences of Python's own    sliced, in whichever thread sends
    any other iterable           a thread of its own iterates, as in multiprocessing: it may wait for what only the
                                 one who takes the results does, and must then hold up nobody

Iterables may be endless: a thread stops when `bound` items are ahead of the results that were taken, unless `release`d.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any, Protocol

_LISTS = (list, tuple, range, str, bytes)


class Source(Protocol):
    """Where items come from. `take` is called by one thread at a time."""

    inert: bool  # does `take` run nobody's code?
    left: int | None  # items to come, if that is known
    error: BaseException | None  # that ended it

    def ready(self, least: int) -> bool: ...
    def ended(self) -> bool: ...
    def take(self, most: int) -> Any: ...
    def given(self, count: int) -> None: ...
    def release(self) -> None: ...
    def stop(self) -> None: ...
    def join(self, timeout: float) -> None: ...


def source_of(items: Iterable[Any], group: int, bound: int) -> "Listed | Iterated":
    """Return the source for an iterable. `group` items go together: of one that its error cuts short, none is given."""
    if is_listed(items):
        return Listed(items)
    return Iterated(iter(items), group, bound)


def is_listed(items: Any) -> bool:
    """Can items be had by slicing, which runs nobody's code?"""
    return type(items) in _LISTS or type(items).__name__ == "ndarray"


class Listed:
    """The items of a sequence."""

    inert = True
    error: BaseException | None = None

    def __init__(self, items: Any) -> None:
        self._items = items
        self._next = 0
        self.left: int | None = len(items)

    def ready(self, least: int) -> bool:
        """Can so many be taken, or the last?"""
        return bool(self.left)

    def ended(self) -> bool:
        """Will nothing come any more?"""
        return not self.left

    def take(self, most: int) -> Any:
        """Return the next items."""
        first, self._next = self._next, self._next + most
        items = self._items[first : self._next]
        self.left = max(0, len(self._items) - self._next)
        if not self.left:
            self._items = ()
        return items

    def given(self, count: int) -> None:
        """Take note that so many results were taken; it makes no difference here."""

    def release(self) -> None:
        """Give out all there is; it does so anyway."""

    def stop(self) -> None:
        """Give out nothing more."""
        self._items, self.left = (), 0

    def join(self, timeout: float) -> None:
        """Do nothing: there is no thread."""


class Iterated:
    """The items of an iterable, which a thread fetches."""

    inert = True
    left: int | None = None

    def __init__(self, items: Any, group: int, bound: int) -> None:
        self.error: BaseException | None = None
        self._items = items
        self._group = group
        self._bound = max(bound, 2 * group)
        self._fetched = 0  # the thread counts it,
        self._given = 0  # and who takes results counts this
        self._ready: deque[Any] = deque()
        self._want = group  # how many were asked for last
        self._room = threading.Event()
        self._over = False
        self._thread: threading.Thread | None = None

    def begin(self, came: Callable[[], None]) -> None:
        """Start to iterate; `came` is called when there is something for somebody who has nothing to do.

        Raises:
            RuntimeError: no thread can be started.
        """
        thread = threading.Thread(target=self._run, args=(came,), name="fabric-feeder", daemon=True)
        thread.start()
        self._thread = thread

    def _run(self, came: Callable[[], None]) -> None:
        ready = self._ready
        try:
            for item in self._items:
                ready.append(item)
                del item
                self._fetched += 1
                came()
                while self._is_full():
                    self._room.clear()
                    if self._is_full():
                        self._room.wait()
                if self._over:
                    break
        except BaseException as error:
            self.error = error
        finally:
            self._items = None
            self._over = True
            came()

    def _is_full(self) -> bool:
        ahead = self._fetched - self._given >= self._bound
        return not self._over and (ahead or len(self._ready) > 4 * self._want)

    def ready(self, least: int) -> bool:
        """Can so many be taken, or the last?"""
        count = len(self._ready)
        if self._group > 1:
            return count >= self._group or (count > 0 and self._over and self.error is None)
        return count >= least or (count > 0 and self._over)

    def ended(self) -> bool:
        """Will nothing come any more?"""
        return self._over and not self.ready(1)

    def take(self, most: int) -> Any:
        """Return the next items: `most` of them, or those there are."""
        self._want = most
        pop = self._ready.popleft
        items = [pop() for _ in repeat(None, min(most, len(self._ready)))]
        self._room.set()
        return items

    def given(self, count: int) -> None:
        """Take note that so many results were taken."""
        self._given += count
        if not self._room.is_set():
            self._room.set()

    def release(self) -> None:
        """Give out all there is, however few results are taken."""
        self._bound = 1 << 62
        self._room.set()

    def stop(self) -> None:
        """Give out nothing more."""
        self._over = True
        self._ready.clear()
        self._room.set()

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended, which may wait for something itself."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
