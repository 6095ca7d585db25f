"""Kill the workers that cannot go on by themselves: those that hang, and those that wrote what cannot be.

Why is remembered by pid, until the death is told: then it is known what of.
"""

import time

from fabric.crew import Crew, Worker
from fabric.ending import Ender
from fabric.hangs import HangWatch, Sighting
from fabric.mending import GARBLED, is_garbled
from fabric.postmortem import in_hand, is_stopped
from fabric.ring import Peer
from fabric.segment import Segment


class Culler:
    """Looks for such workers of one fabric, in the supervisor thread, from its making on."""

    def __init__(self, segment: Segment, peer: Peer, crew: Crew, ender: Ender, hangs: HangWatch) -> None:
        self._segment = segment
        self._peer = peer
        self._crew = crew
        self._ender = ender
        self._hangs = hangs
        self._whys: dict[int, str] = {}  # why we killed which pid
        self._dropped: dict[int, int] = {}  # bytes from this slot that could be no records, as far as is seen to
        if self._hangs.interval is not None:
            self._crew.call_later(self._hangs.interval, self._look_for_hangs)

    def note(self, pid: int, why: str) -> None:
        """Remember what ails a worker that is dead, unless it was killed for a reason that is known."""
        self._whys.setdefault(pid, why)

    def take(self, pid: int) -> str:
        """Return why we killed this worker, "" if we did not. Once for each."""
        return self._whys.pop(pid, "")

    def was_garbled(self, slot: int) -> bool:
        """Has this dead worker written what cannot be into its lanes to us, since that was last seen to?"""
        dropped = self._peer.dropped_bytes_of(slot)
        before, self._dropped[slot] = self._dropped.get(slot, 0), dropped
        return dropped != before or is_garbled(self._segment, slot)

    def look_for_garbage(self) -> None:
        """Kill workers that wrote what cannot be into their lanes to us, in the supervisor thread."""
        for worker in self._crew.workers.values():
            if self._peer.dropped_bytes_of(worker.slot) != self._dropped.get(worker.slot, 0):
                self._kill(worker, GARBLED)

    def _look_for_hangs(self) -> None:
        """Kill workers that hang, in the supervisor thread; their pidfds say when they are dead. So the fork server."""
        workers = self._crew.workers.values()
        sightings = [Sighting(w.pid, in_hand(self._segment, w.slot), self._ender.is_stopped(w.pid)) for w in workers]
        server = self._crew.server.pid
        if server is not None:
            sightings.append(Sighting(server, None, is_stopped(server)))
        verdicts = self._hangs.look(sightings, time.monotonic())
        if server in verdicts:
            self._crew.server.kill()
        for worker in workers:
            if worker.pid in verdicts:
                self._kill(worker, verdicts[worker.pid])
        if self._hangs.interval is not None:
            self._crew.call_later(self._hangs.interval, self._look_for_hangs)

    def _kill(self, worker: Worker, why: str) -> None:
        self._whys[worker.pid] = why
        self._crew.ask_for_stack(worker.slot)
        self._crew.kill(worker.slot)
