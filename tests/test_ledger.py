"""How far a lane may be committed while coroutines have messages in hand."""

from fabric.workers.ledger import Ledger, Stretch


def _in_hand(ledger, lane, end, count):
    """Note a stretch of which so many messages are in hand."""
    stretch = Stretch(lane)
    stretch.in_hand = count
    assert ledger.read(lane, end, stretch) is None
    return stretch


def test_what_is_handled_at_once_is_committed_at_once():
    ledger = Ledger()

    assert [ledger.read(0, end) for end in (64, 128)] == [64, 128]
    assert ledger.read(0, 192, Stretch(0)) == 192, "a stretch with nothing in hand holds nothing up"
    assert ledger.empty


def test_a_message_in_hand_holds_up_what_is_behind_it():
    ledger = Ledger()
    held = _in_hand(ledger, 0, 100, 1)
    assert ledger.read(0, 200) is None
    assert ledger.read(0, 300) is None
    assert not ledger.empty

    assert ledger.done(held) == 300
    assert ledger.empty
    assert ledger.read(0, 400) == 400


def test_a_stretch_is_done_when_all_its_messages_are():
    ledger = Ledger()
    held = _in_hand(ledger, 0, 100, 3)

    assert [ledger.done(held) for _ in range(3)] == [None, None, 100]


def test_messages_may_be_done_in_any_order():
    ledger = Ledger()
    first, second, third = (_in_hand(ledger, 0, end, 1) for end in (100, 200, 300))
    assert ledger.read(0, 400) is None

    assert ledger.done(second) is None
    assert ledger.done(first) == 200
    assert ledger.done(third) == 400
    assert ledger.empty


def test_lanes_do_not_hold_up_each_other():
    ledger = Ledger()
    held = _in_hand(ledger, 1, 100, 1)

    assert ledger.read(0, 50) == 50
    assert ledger.read(2, 70) == 70
    assert ledger.done(held) == 100
