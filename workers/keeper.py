"""Keep the state of agents that have snapshot() and restore(), so that a successor can go on from it.

    handle a slice -> journal its messages -> publish -> commit -> every so often: snapshots of all that changed

    successor: make the agents, restore their snapshots, hand them again what the journal holds since, with all
    that they send dropped (it was sent), and go on with the lanes

State and position agree, so each message has its effect on the state once. Messages of the journal that were
not committed are not handed on: they come again from the lane. Those whose effects are in a snapshot although
they were not committed (a coroutine held back the lane) are recognised when they come again: see `Mark`.

An agent whose on_message is a coroutine has its snapshot taken after each message, since what it awaited cannot
be had again; so has one with on_crash="fail".
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fabric.codec import Codec
from fabric.errors import FabricError
from fabric.workers.journal import NO_STATE, Entry, Gone, Journal, Later, Mark, Message, Owed, Run, State, States
from fabric.workers.vault import Vault

_MARGIN = 4096  # bytes, for marks
_LATER_SHARE = 512  # bytes of the journal for each message that is to be sent later: with its head it takes 100
_REPLAY_BYTES = 2 << 20  # of runs that a successor would have to go through: beyond it snapshots are taken


class Kept(NamedTuple):
    """An agent whose state is kept: how often, in messages (int) or seconds (float)."""

    agent: Any
    every: float
    coroutine: bool
    once: bool  # on_crash="fail": its messages must not be handled again, not even for its state

    @property
    def after_each(self) -> bool:
        """Is its snapshot taken after each message, and nothing handed to it again?"""
        return self.coroutine or self.once


class Keeper:
    """The agents of one worker that have snapshots."""

    def __init__(
        self,
        journal: Journal,
        codec: Codec,
        report: Callable[[int, BaseException], None],
        vault: Vault | None = None,
    ) -> None:
        """`report(address, error)` is told of an agent of which something cannot be kept; it lives on without."""
        self._vault = vault
        self.gone: list[State] = []  # the last snapshots of agents that were stopped
        self._written: dict[int, State] = {}  # the last snapshots, as they are in the journal
        self._journal = journal
        self._codec = codec
        self._report = report
        self._kept: dict[int, Kept] = {}
        self._captured: dict[int, State] = {}  # of coroutines that finished a message whose reply is not out yet
        self._states: dict[int, State] = {}  # of coroutines, since they finished a message
        self._unkept: dict[int, State] = {}  # agents whose snapshot failed: a successor must not begin with old ones
        self._sizes: dict[int, int] = {}  # of the last snapshots, in the journal
        self._total = 0  # of those
        self._new: Counter[int] = Counter()  # messages since the last snapshot
        self._since = time.monotonic()
        self._handled: dict[int, int] = {}
        self._done: list[tuple[int, int]] = []
        self._owed: dict[Any, Owed] = {}  # by ticket: what a successor has to tell of
        self._later: dict[int, Later] = {}  # by number: what a successor has to send, or to tell of
        self._later_bytes = 0  # of those
        self._tells_unwritten = True  # of more than are written down
        self._run_bytes = 0
        self._replay_bytes = min(_REPLAY_BYTES, journal.size // 8)
        self.due = False  # is it time for snapshots?
        self.active = False  # is there any agent whose state is kept?
        self.behind = False  # are there effects that neither the journal nor a snapshot has?
        self.taken = 0  # snapshots, in all

    def add(self, address: int, kept: Kept) -> None:
        """Keep the state of an agent from now on."""
        self._kept[address] = kept
        self.active = True

    def discard(self, address: int) -> None:
        """Keep the state of an agent no more: it is gone."""
        self._unkept.pop(address, None)
        self._drop(address)
        if address in self._written:
            self.gone.append(self._written.pop(address))

    def forget_gone(self) -> None:
        """Give up the snapshots of agents that were stopped; once nobody makes them again."""
        if self._vault is not None:
            self._vault.drop(self.gone)
        self.gone.clear()

    def _drop(self, address: int) -> None:
        if self._kept.pop(address, None) is not None:
            self.active = bool(self._kept)
            self._new.pop(address, None)
            self._states.pop(address, None)
            self._captured.pop(address, None)
            self._total -= self._sizes.pop(address, 0)

    def kept(self, address: int) -> Kept | None:
        """Return how the state of this agent is kept; None when it is not."""
        return self._kept.get(address)

    # While messages are handled.

    def note(self, targets: Sequence[int], lane: int, begin: int, end: int, lent: bool = False) -> None:
        """Take in messages of a lane, between two of its counters, that were handled and are not published yet.

        What was `lent` to some of them goes back when they are committed, so the journal could not tell it again.
        """
        kept, new = self._kept, self._new
        mine = [target for target in targets if target in kept and not kept[target].coroutine]
        if not mine:
            return
        self._handled[lane] = end
        new.update(mine)
        fits = self._journal.room - 2 * (end - begin) > 2 * self._needed_for_all() + _MARGIN  # twice, for padding
        if fits and not lent and self._journal.append_run(lane, begin, end):
            self._run_bytes += end - begin
        else:
            self.behind = True
        different = [kept[address] for address in set(mine)]
        self.behind = self.behind or any(one.once for one in different)
        self.due = self.due or self.behind or self._run_bytes > self._replay_bytes
        if not self.due:
            counts = ((new[address], kept[address].every) for address in set(mine))
            self.due = any(count >= every for count, every in counts if isinstance(every, int))

    def capture(self, address: int) -> None:
        """Take the snapshot of a coroutine's agent, which has just finished a message and not begun the next."""
        if address in self._kept:
            state = self._snapshot(address)
            if state is not None:
                self._captured[address] = state

    def finished(self, address: int, lane: int, behind: int) -> None:
        """Take in a coroutine's message that is published, and not committed yet."""
        if address in self._kept:
            if address in self._captured:  # not before: its message might still come again
                self._states[address] = self._captured.pop(address)
            self._done.append((lane, behind))
            self._new[address] += 1
            self.due = True

    def seconds_left(self) -> float | None:
        """Return seconds until snapshots are due by the clock; None when nothing waits for that."""
        limits = [kept.every for a in self._new if isinstance((kept := self._kept[a]).every, float)]
        if not limits:
            return None
        left = self._since + min(limits) - time.monotonic()
        self.due = self.due or left <= 0
        return max(0.0, left)

    # Messages that are committed before they are done.

    def write_down(self, owing: Sequence[Any]) -> None:
        """Take in what messages that are about to be committed leave to be done: tickets, and what is sent later."""
        later = [one for one in owing if isinstance(one, Later)]
        if later:
            self.promise(later)
        for ticket in owing:
            if not isinstance(ticket, Later) and not ticket.answered:
                self.owe(ticket)

    def owe(self, ticket: Any) -> None:
        """Take in a message that will be answered, or done, later, and is about to be committed."""
        owed = self._owed[ticket] = Owed(ticket.target, ticket.sender, ticket.correlation)
        if not self._journal.append_owed([owed]):
            self._take_all(Mark(dict(self._handled), list(self._done)))

    def paid(self, ticket: Any) -> None:
        """Take in that such a message has its answer, or is done."""
        self._owed.pop(ticket, None)

    # Messages that are sent later.

    def promise(self, messages: Sequence[Later]) -> None:
        """Take in what is to be sent later, before the messages are committed whose handlers said so."""
        if len(self._later) > self._journal.size // _LATER_SHARE:
            self._tell_of_unwritten(messages[0].sender)  # to write down so many again and again takes too long
            return
        noted = [self._cut_short(message) for message in messages]
        self._later.update((message.number, message) for message in noted)
        if not self._journal.append_later(noted):
            self._take_all(Mark(dict(self._handled), list(self._done)))

    def _tell_of_unwritten(self, sender: int) -> None:
        """Report, once, that messages which are to be sent later will be lost if this worker dies."""
        if self._tells_unwritten:
            self._tells_unwritten = False
            why = (
                f"{len(self._later):,} messages of tell_later wait in this worker, more than its journal of "
                f"{self._journal.size:,} bytes takes: others are lost if it dies before; raise journal_bytes"
            )
            self._report(sender, FabricError(why))

    def kept_promises(self, numbers: Sequence[int]) -> None:
        """Take in that such messages were sent, or will never be."""
        mine = [number for number in numbers if number in self._later]
        for number in mine:
            self._later_bytes -= len(self._later.pop(number).body or b"")
        if mine and not self._journal.append_gone(mine):
            self._take_all(Mark(dict(self._handled), list(self._done)))

    @property
    def promised(self) -> list[Later]:
        """What is to be sent later."""
        return list(self._later.values())

    def _cut_short(self, message: Later) -> Later:
        """Leave out a body that the journal has no place for, beside snapshots and what else there may be."""
        size = len(message.body or b"")
        if size > self._journal.size // 64 or self._later_bytes + size > self._journal.size // 8:
            return message._replace(body=None)
        self._later_bytes += size
        return message

    # Snapshots.

    def take(self, head_of: Callable[[int], int]) -> None:
        """Take snapshots of all that changed, or, where the journal is to be cut short, of all there are.

        `head_of(lane)` is how far it is committed. Everything handled so far must have been published.
        """
        self._done = [(lane, behind) for lane, behind in self._done if behind > head_of(lane)]
        mark = Mark(dict(self._handled), self._done)
        states = self._snapshots(list(self._new)) | self._unkept
        reserve = self._needed_for_all() + 2 * self._replay_bytes
        if self._journal.room - Journal.span(states) < reserve or not self._write(states, mark):
            self._drop_from_vault(states)
            self._take_all(mark)
        self._settle()

    def _take_all(self, mark: Mark) -> None:
        """Write all snapshots, and give up what stood before them."""
        start = self._journal.tail
        states = self._snapshots(list(self._kept)) | self._unkept
        if self._rewrite_the_rest() and self._write(states, mark):
            self._journal.forget(start)
            return
        self._drop_from_vault(states)
        error = FabricError(
            f"the snapshots of this worker take {Journal.span(states):,} bytes, which do not fit its journal of "
            f"{self._journal.size:,}: raise journal_bytes; its agents go on without"
        )
        for address in list(self._kept):
            self._give_up(address, error)
        self._journal.forget(self._journal.tail)
        self._rewrite_the_rest()
        self._journal.append_states(self._unkept, mark)

    def _rewrite_the_rest(self) -> bool:
        """Write down again what is owed, and what is to be sent later. False: there is no room."""
        owed, later = list(self._owed.values()), self.promised
        return (not owed or self._journal.append_owed(owed)) and (not later or self._journal.append_later(later))

    def _write(self, states: dict[int, State], mark: Mark) -> bool:
        """Write snapshots to the journal; those that they replace are given up. False: there is no room."""
        if not self._journal.append_states(states, mark):
            return False
        self._drop_from_vault({address: self._written.pop(address, NO_STATE) for address in states})
        self._written.update(states)
        return True

    def _drop_from_vault(self, states: dict[int, State]) -> None:
        if self._vault is not None:
            self._vault.drop(states.values())

    def _settle(self) -> None:
        self._new.clear()
        self._since = time.monotonic()
        self._run_bytes = 0
        self.due = self.behind = False

    def _snapshots(self, addresses: list[int]) -> dict[int, State]:
        states = {}
        for address in addresses:
            state = self._states.get(address) if self._kept[address].coroutine else self._snapshot(address)
            if state is not None:
                states[address] = state if self._vault is None else self._vault.put(state)
                self._resize(address, states[address])
        self.taken += len(states)
        return states

    def _snapshot(self, address: int) -> State | None:
        """Return the state of an agent; None, and it is kept no more, where that fails."""
        try:
            return State(*self._codec.encode_inline(self._kept[address].agent.snapshot()))
        except Exception as error:
            self._give_up(address, error)
            return None

    def _give_up(self, address: int, error: BaseException) -> None:
        """Report that the state of an agent is not kept any more, and see to it that a successor knows."""
        self._report(address, error)
        self._unkept[address] = NO_STATE
        self._drop(address)
        self.due = True

    def _resize(self, address: int, state: State) -> None:
        self._total += len(state.data) - self._sizes.get(address, 0)
        self._sizes[address] = len(state.data)

    def _needed_for_all(self) -> int:
        """How many bytes the snapshots of all would take, as far as is known."""
        return self._total + self._later_bytes + 64 * (len(self._kept) + 2) + 128 * len(self._later)

    # After a crash.

    def recover(
        self,
        head_of: Callable[[int], int],
        hand_on: Callable[[Run], None],
        lose: Callable[[int, BaseException], None],
        refuse: Callable[[Owed], None],
    ) -> Mark:
        """Bring the agents, made anew, to where the predecessor's were; return how far it had come.

        What it was to send later is `promised` then.

        `hand_on(run)` has messages handled, all that they send dropped. `lose(address, error)` is told of an
        agent that cannot be restored: it must not go on as if nothing had been. `refuse(owed)` is told of each
        question that may still wait for its reply.
        """
        entries = list(self._journal.read())
        for entry in entries:
            if isinstance(entry, Owed):
                refuse(entry)
            elif isinstance(entry, Later):
                self._later[entry.number] = entry
            elif isinstance(entry, Gone):
                self._later.pop(entry.number, None)
        self._later_bytes = sum(len(later.body or b"") for later in self.promised)
        if not self._kept:
            end = self._journal.tail
            if not self._later or self._journal.append_later(self.promised):
                self._journal.forget(end)
            if self._vault is not None:
                self._vault.keep_only([])
            return Mark({}, [])
        mark = next((entry.mark for entry in reversed(entries) if isinstance(entry, States)), Mark({}, []))
        self._handled, self._done = dict(mark.handled), list(mark.done)
        restored = self._restore(entries, lose)
        stale = self._journal.torn
        for place, entry in enumerate(entries):
            if not isinstance(entry, Run):
                continue
            if entry.end > head_of(entry.lane):
                stale = True
                continue
            messages = [m for m in entry.messages if self._is_new(m, place, restored)]
            if messages:
                self._new.update(message.target for message in messages)
                hand_on(entry._replace(messages=messages))
        if stale:  # such messages come again, and once they are committed they must not be here; nor such states
            self._take_all(mark)
            self._settle()
        return mark

    def _is_new(self, message: Message, place: int, restored: dict[int, int]) -> bool:
        kept = self._kept.get(message.target)
        return kept is not None and not kept.after_each and place > restored.get(message.target, -1)

    def _restore(self, entries: Sequence[Entry], lose: Callable[[int, BaseException], None]) -> dict[int, int]:
        """Give each agent its last snapshot; return where in the journal each has it from."""
        last: dict[int, tuple[int, State]] = {}
        for place, entry in enumerate(entries):
            if isinstance(entry, States):
                last.update({address: (place, state) for address, state in entry.states.items()})
        self._written = {address: state for address, (_, state) in last.items() if address in self._kept}
        if self._vault is not None:
            self._vault.keep_only(self._written.values())
        for address, (_, state) in last.items():
            kept = self._kept.get(address)
            if kept is None:
                continue
            if state == NO_STATE:
                self._unkept[address] = NO_STATE
                self._drop(address)
                continue
            self._resize(address, state)
            found = state if self._vault is None else self._vault.get(state)
            if kept.coroutine:
                self._states[address] = found
            try:
                kept.agent.restore(self._codec.decode(found.encoding, found.data))
            except Exception as error:
                lose(address, error)
        return {address: place for address, (place, _) in last.items()}
