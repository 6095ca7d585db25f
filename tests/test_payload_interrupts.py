"""Lent memory when a signal's handler raises in the middle of sending, and a record that is received twice."""

import gc

import numpy as np
import pytest

from fabric.parcel import Entry, unpack
from fabric.ring import Peer
from fabric.sender import Sender
from tests.ends import PAGE, ends

META = 2 | 0x81 << 16  # a message, raw, lent


class InterruptedHereError(Exception):
    """What the handler of a signal raises."""


@pytest.mark.parametrize("where", ["before the store", "behind it"])
def test_what_an_interrupted_send_lent_goes_back_if_it_was_not_sent_and_not_before_it_is_read_if_it_was(
    monkeypatch, where
):
    send = Peer.send

    def interrupted(peer, *record):
        if where == "behind it":
            send(peer, *record)
        raise InterruptedHereError

    with ends(2) as (first, second):
        piece = first.arena.store(memoryview(b"x" * PAGE))
        parcel = first.arena.parcel([piece], whole=True)
        monkeypatch.setattr(Peer, "send", interrupted)
        with pytest.raises(InterruptedHereError):
            Sender(first.peer, 1).send_one(META, 5, 7, parcel)
        monkeypatch.undo()
        del parcel
        gc.collect()
        others = [first.arena.store(memoryview(b"y" * PAGE)) for _ in range(3)]
        received = second.receiver.receive()
        if where == "before the store":
            assert received is None
            assert first.lent == (0, len(others))
        else:
            assert received.bodies == [b"x" * PAGE]
            assert piece.block not in {other.block for other in others}


def test_views_of_a_record_that_came_twice_are_given_back_by_the_later_ones():
    with ends(2) as (first, second):
        parcel = first.arena.parcel([first.arena.store(memoryview(b"x" * PAGE))], whole=True)
        (entry,) = unpack(parcel.lend(1))[0]
        parcel.sent()
        del parcel
        views = second.receiver._views
        torn = views.take(0, [Entry(*entry)], 0)  # kept by a traceback
        again = np.frombuffer(views.take(0, [Entry(*entry)], 0)[0], "u1")
        del torn
        gc.collect()
        assert first.arena.usage()[3] == 1
        assert again.tobytes() == b"x" * PAGE
        del again
        gc.collect()
        assert first.arena.usage()[3] == 0
