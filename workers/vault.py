"""Keep large snapshots in the worker's own arena, where its successor finds them; the journal says where.

    snapshot --put--> block, lent by this worker to itself, with a receipt that outlives it (lending.KEPT)
    journal           STATE, its body the parcel: loan, offset, bytes
    successor         the loan is still out; `get` reads it, `keep_only` ends those that no journal names

A snapshot that was put and never journalled, since its worker was killed in between, is ended by `keep_only`.
"""

from collections.abc import Iterable

from fabric.arena import Arena
from fabric.errors import BackpressureError
from fabric.lending import KEPT, Receipts
from fabric.messages import LENT
from fabric.parcel import unpack
from fabric.workers.journal import State


class Vault:
    """The large snapshots of one worker."""

    def __init__(self, arena: Arena, process: int, threshold: int) -> None:
        """`threshold` is how many bytes make a snapshot large."""
        self._arena = arena
        self._receipts: Receipts = arena.lending
        self._process = process
        self._threshold = threshold

    def put(self, state: State) -> State:
        """Return what the journal is to hold in a snapshot's place; itself if it is small, or there is no room."""
        if len(state.data) < self._threshold:
            return state
        try:
            parcel = self._arena.parcel([self._arena.store(memoryview(state.data), patient=False)], whole=True)
            body = parcel.lend(self._process)
        except BackpressureError:
            return state
        (entry,) = unpack(body)[0]
        self._receipts.hold(self._process, entry.loan, entry.offset, entry.bytes, KEPT)
        parcel.sent()
        return State(state.encoding | LENT, body)

    def get(self, state: State) -> State:
        """Return the snapshot that `put` took."""
        if not state.encoding & LENT:
            return state
        (entry,) = unpack(state.data)[0]
        return State(state.encoding & ~LENT, self._arena.read(entry.offset, entry.bytes))

    def drop(self, states: Iterable[State]) -> None:
        """Give up snapshots that no journal names any more, or names yet."""
        for loan in _loans(states):
            self._receipts.done(self._process, loan)

    def keep_only(self, states: Iterable[State]) -> None:
        """Give up all but these, whoever had this slot."""
        self._receipts.keep_only(_loans(states))


def _loans(states: Iterable[State]) -> list[int]:
    return [unpack(state.data)[0][0].loan for state in states if state.encoding & LENT]
