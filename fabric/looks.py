"""Know which pages of a private mapping are looked at, so that no two views share one that either may write to.

pages of the mapping   | 1 | 2 | 3 | 4 | 5 | 6 |
looked at                [1, 3 writable]  [5, 5 read-only, twice]
add(3, 4, ...)           no: what is written through one would be seen, and lost, through the other
"""

import bisect
import collections
import threading


class Looks:
    """Stretches of pages that are looked at. `add` is for one thread at a time, `remove` for finalizers anywhere."""

    def __init__(self) -> None:
        self._firsts: list[int] = []  # of stretches, which have no page in common; sorted
        self._stretches: dict[int, tuple[int, bool, int]] = {}  # by the first page: last page, read-only, how many look
        self._gone: collections.deque[int] = collections.deque()
        self._lock = threading.Lock()

    def add(self, first: int, last: int, read_only: bool) -> bool:
        """Look at these pages too. False: somebody does, and one of the two might write."""
        with self._lock:
            added = self._add(first, last, read_only)
        self._remove_gone()  # those whose finalizers ran meanwhile, maybe in this thread
        return added

    def remove(self, first: int) -> None:
        """Look no more at a stretch that was added. Never waits: it may run in a thread that is inside `add`."""
        self._gone.append(first)
        self._remove_gone()

    def _add(self, first: int, last: int, read_only: bool) -> bool:
        place = bisect.bisect_right(self._firsts, last) - 1
        near = self._firsts[place] if place >= 0 else -1
        if near < 0 or self._stretches[near][0] < first:
            self._firsts.insert(place + 1, first)
            self._stretches[first] = last, read_only, 1
            return True
        end, other_read_only, count = self._stretches[near]
        if (near, end) != (first, last) or not (read_only and other_read_only):
            return False
        self._stretches[first] = last, True, count + 1
        return True

    def _remove_gone(self) -> None:
        while self._gone and self._lock.acquire(False):  # who has the lock looks again once it is free
            try:
                while self._gone:
                    self._remove(self._gone.popleft())
            finally:
                self._lock.release()

    def _remove(self, first: int) -> None:
        last, read_only, count = self._stretches[first]
        if count > 1:
            self._stretches[first] = last, read_only, count - 1
            return
        del self._stretches[first]
        del self._firsts[bisect.bisect_left(self._firsts, first)]
