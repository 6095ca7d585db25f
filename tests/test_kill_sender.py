"""Senders killed at every store to the segment, in the middle of a Python call: all of a batch is there, or none.

    a forked child       Switchboard.tell, tell_many: dies at the chosen moment
    this process         is the workers: reads what came, and whether it was rung
    a second child       goes on in the place of the first

See tests/store_trap.py for the moments, and for the seed that chooses some of them.
"""

import ctypes
import itertools
import os
import platform
import warnings
from array import array

import pytest

from fabric.agent import AgentRef
from fabric.batch import Batch
from fabric.codec import Codec
from fabric.receiver import Receiver
from fabric.replies import Replies
from fabric.ring import MESSAGES
from fabric.segment import Segment
from fabric.switchboard import Switchboard
from tests.loopback import loopback
from tests.store_trap import A_FEW, ALL, NEVER, Trap, compiled, sample

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the trap flag is known for x86-64 only")
SENDS = {
    "tell": lambda board, refs, n: board.tell(refs[0], _body(n), None, True),
    "batch": lambda board, refs, n: board.tell_many(_addresses(refs[:1] * 8), [_body(n)] * 8, None),
    "batch to two": lambda board, refs, n: board.tell_many(_addresses(refs * 4), [_body(n)] * 8, None),
    "same body": lambda board, refs, n: board.tell_many(_addresses(refs[:1] * 5), board.same(_body(n), 5, None), None),
}
WANTED = {"tell": (1, 0), "batch": (8, 0), "batch to two": (4, 4), "same body": (5, 0)}  # records by worker


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("trap"))


def _addresses(refs):
    return array("Q", [ref._address for ref in refs])


def _body(number):
    return f"{number} " + "x" * (700 - number % 50)  # so that the lane is gone round a few times


class Sending:
    """A segment with two workers, which are this process, and coordinators that come and die."""

    def __init__(self, loop, library, send, fault=None):
        self.loop = loop
        self.library = library
        self.send = send
        self.fault = fault
        self.addresses = [loop.put_agent(1, 1), loop.put_agent(2, 2)]
        pairs = list(zip(loop.segments, loop.peers, strict=True))[1:]
        self.receivers = [Receiver(segment, peer, Codec()) for segment, peer in pairs]
        self.numbers = itertools.count()

    def coordinate(self, moment):
        """Send from another process, which is killed. Returns (what it sent, the stores that it made or None)."""
        number = next(self.numbers)
        read, write = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # numpy's threads: the child does not use them
            pid = os.fork()
        if pid == 0:
            try:
                os.write(write, b"%d" % self._be_coordinator(moment, number))
            finally:
                os._exit(0)
        os.close(write)
        _, status = os.waitpid(pid, 0)
        with open(read, "rb") as pipe:
            said = pipe.read()
        assert said or os.waitstatus_to_exitcode(status) == -9
        return number, int(said) if said else None

    def _be_coordinator(self, moment, number):
        segment = Segment.attach(os.dup(self.loop.segments[0].descriptor), 0)
        peer = segment.peer()
        for process, bell in enumerate(self.loop.bells):
            peer.set_bell(process, bell)
        codec = Codec()
        replies = Replies(peer, Receiver(segment, peer, codec), print)
        board = Switchboard(peer, codec, replies, 0.02, lambda slot: segment.handled_of(slot, 0))
        refs = [AgentRef(board, address, None) for address in self.addresses]
        if self.fault is not None:
            self.fault()
        trap = Trap(self.library)
        trap.arm(moment, (ctypes.addressof(ctypes.c_char.from_buffer(segment._own)), len(segment._own)))
        self.send(board, refs, number)
        return trap.disarm()

    def arm(self):
        """Let both workers sleep."""
        for peer in self.loop.peers[1:]:
            assert not peer.arm(MESSAGES)

    def read(self):
        """Wake both; return by worker (was it rung, all that came)."""
        found = []
        for receiver, peer, bell in zip(self.receivers, self.loop.peers[1:], self.loop.bells[1:], strict=True):
            rung = _rung(bell)
            peer.disarm()
            bodies = []
            while (received := receiver.receive()) is not None:
                assert not received.undecodable
                bodies += received.bodies
                receiver.commit(received.lane, received.end)
            assert peer.dropped_bytes() == 0
            found.append((rung, bodies))
        return found

    def die_at(self, moment, wanted):
        """Kill one at this moment. Returns for how many lanes the bell is left to the supervisor."""
        self.arm()
        number, _ = self.coordinate(moment)
        found = self.read()
        for (_, bodies), count in zip(found, wanted, strict=True):
            assert bodies in ([], [_body(number)] * count), f"torn: a batch is there in part, killed at moment {moment}"
        self.arm()
        number, stores = self.coordinate(NEVER)
        assert stores is not None
        assert self.read() == [(count > 0, [_body(number)] * count) for count in wanted], (
            f"a successor, moment {moment}"
        )
        return sum(bool(bodies) and not rung for rung, bodies in found)


def _rung(bell):
    try:
        return os.eventfd_read(bell) > 0
    except BlockingIOError:
        return False


def _kill_senders(library, how, most, fault=None):
    with loopback(2) as loop:
        sending = Sending(loop, library, SENDS[how], fault)
        try:
            sending.arm()
            number, stores = sending.coordinate(NEVER)
            assert sending.read() == [(count > 0, [_body(number)] * count) for count in WANTED[how]]
            silent = [sending.die_at(moment, WANTED[how]) for moment in sample(stores, most)]
            print(f"{how}: {stores} stores, {len(silent)} killed, {sum(silent)} bells left to the supervisor")
        finally:
            for receiver in sending.receivers:
                receiver.close()


@pytest.mark.parametrize("how", SENDS)
def test_a_sender_killed_at_a_store_leaves_all_of_a_batch_or_none(library, how):
    _kill_senders(library, how, A_FEW)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("how", SENDS)
def test_a_sender_killed_at_any_store_leaves_all_of_a_batch_or_none(library, how):
    _kill_senders(library, how, ALL)


def test_a_batch_that_is_published_in_pieces_is_noticed(library):
    with pytest.raises(AssertionError, match="torn"):
        _kill_senders(library, "batch", ALL, _publish_in_pieces)


def _publish_in_pieces():
    put = Batch.put

    def wrong(self, peer, lane, most_bytes=2**62):
        while not put(self, peer, lane, peer.backlog(lane)[0] + 1):
            pass
        return True

    Batch.put = wrong
