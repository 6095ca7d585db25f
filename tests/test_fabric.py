"""The fabric as users use it: real workers, real lanes."""

import gc
import weakref
from pathlib import Path

import pytest

from fabric import AgentError, AgentNotFoundError, ClosedError, Fabric
from fabric.codec import Codec
from fabric.large import Large
from fabric.parcel import Parcel
from tests.agents import Counter, Echo, Recorder, Relay
from tests.ends import PAGE, ends


@pytest.fixture
def no_collection():
    """Have the garbage collector rest."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module")
def fab():
    with Fabric(workers=2) as fabric:
        yield fabric


def test_an_ask_returns_what_the_agent_returns(fab):
    counters = fab.spawn_batch(Counter, 3, start=10)

    assert counters[0].ask(5) == 15
    assert counters[0].ask(5) == 20
    assert counters[1].ask(1) == 11


def test_ask_all_and_ask_each_reply_in_order(fab):
    counters = fab.spawn_batch(Counter, 1_000, start=10)

    assert counters.ask_all(1) == [11] * 1_000
    assert counters.ask_each(range(1_000)) == [11 + i for i in range(1_000)]


def test_told_messages_are_handled_in_order_and_drain_waits_for_them(fab):
    recorder = fab.spawn_batch(Recorder, 1)[0]
    for number in range(1_000):
        recorder.tell(number)
    fab.tell_many([recorder] * 1_000, range(1_000, 2_000))
    fab.drain(timeout=30)

    assert recorder.ask("all") == list(range(2_000))


def test_agents_of_different_workers_send_to_each_other(fab):
    recorders = fab.spawn_batch(Recorder, 2)
    relays = fab.spawn_batch(Relay, 2)
    for relay in relays:
        for recorder in recorders:
            relay.tell((recorder, "hello"))
    fab.drain(timeout=30)

    assert recorders.ask_all("all") == [["hello", "hello"]] * 2


def test_an_agent_that_raises_answers_with_an_agent_error_and_lives_on(fab):
    counter = fab.spawn_batch(Counter, 1)[0]
    with pytest.raises(AgentError, match="unsupported operand") as caught:
        counter.ask("not a number")

    assert isinstance(caught.value.__cause__, TypeError)
    assert counter.ask(1) == 1


def test_a_stopped_agent_is_not_found(fab):
    echo = fab.spawn_batch(Echo, 1)[0]
    assert echo.alive
    echo.stop()

    assert not echo.alive
    with pytest.raises(AgentNotFoundError):
        echo.ask(1)


def test_a_future_brings_the_reply(fab):
    echo = fab.spawn_batch(Echo, 1)[0]

    assert [future.result(timeout=30) for future in [echo.submit(i) for i in range(100)]] == list(range(100))


def test_a_closed_fabric_refuses():
    with Fabric(workers=1) as fabric:
        echo = fabric.spawn_batch(Echo, 1)[0]
    with pytest.raises(ClosedError):
        echo.ask(1)


def _mapped():
    """The mappings of segments, by address and inode: another fabric of this module may be open."""
    return {line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if "/memfd:" in line}


def test_a_closed_fabric_has_nothing_mapped_though_no_garbage_is_collected(no_collection):
    before = _mapped()
    fabric = Fabric(workers=1)
    echo = fabric.spawn_batch(Echo, 1)[0]
    with fabric.loan((1 << 20,), "u1") as array:
        assert (echo.ask(array) == array).all()
    del array
    assert _mapped() > before
    fabric.close()
    del fabric, echo
    assert _mapped() == before


def test_a_codec_goes_with_its_last_name_though_no_garbage_is_collected(no_collection):
    with ends(2) as (process, _):
        codec = Codec()
        codec.lend(Large(process.arena, PAGE, inline_limit=PAGE), PAGE)
        assert codec.decode(*codec.encode(b"small")) == b"small"
        assert type(codec.encode(bytes(2 * PAGE))[1]) is Parcel
        seen = weakref.ref(codec)
        del codec
        assert seen() is None
