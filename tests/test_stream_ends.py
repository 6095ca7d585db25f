"""How streams end: their agent stops, who reads them lets go, the fabric is closed."""

import gc

import pytest

from fabric import AgentNotFoundError, ClosedError
from tests.agents import Recorder
from tests.stream_agents import AsyncWatched, Misbehaving, Reader, Yielder
from tests.streaming import PATIENCE, one, until


def test_a_stopped_agent_ends_its_streams_and_their_generators(fab):
    ref, witness = one(fab, Yielder), one(fab, Recorder)
    stream = ref.ask_stream({"count": 100}, window=3, timeout=PATIENCE)
    assert next(stream) == 0
    ref.stop(PATIENCE)
    with pytest.raises(AgentNotFoundError):
        list(stream)
    gone = ref.ask_stream({"count": 1})
    with pytest.raises(AgentNotFoundError):
        next(gone)
    witness.tell("a")
    fab.drain(timeout=PATIENCE)


@pytest.mark.parametrize("agent", [Yielder, AsyncWatched])
@pytest.mark.parametrize("how", ["close", "with", "break", "collected", "unread"])
def test_a_stream_that_is_let_go_closes_its_generator(fab, agent, how):
    ref = one(fab, agent)
    request = {"count": 100} if agent is Yielder else 100
    stream = ref.ask_stream(request, window=3, timeout=PATIENCE)
    if how == "close":
        assert next(stream) == 0
        stream.close()
        stream.close()
        assert list(stream) == []
    elif how == "with":
        with stream:
            assert next(stream) == 0
    elif how == "break":
        for _ in stream:
            break
    elif how == "collected":
        assert next(stream) == 0
        cycle = [stream]
        cycle.append(cycle)
        del cycle
    else:
        until(fab, lambda: ref.ask("made", PATIENCE) == 3)
    del stream
    gc.collect()
    until(fab, lambda: ref.ask("closed", PATIENCE) == 1)
    assert ref.ask("made", PATIENCE) <= 5
    fab.drain(timeout=PATIENCE)  # its question was committed: nothing is in hand any more


def test_a_stream_that_is_closed_is_closed_before_what_its_reader_asks_next(fab):
    ref = one(fab, Yielder)
    stream = ref.ask_stream({"count": 100}, timeout=PATIENCE)
    assert next(stream) == 0
    stream.close()
    assert ref.ask("closed", PATIENCE) == 1


def test_what_a_generator_raises_while_it_is_closed_is_a_dead_letter(fab):
    ref = one(fab, Misbehaving)
    before = len(fab.dead_letters())
    with ref.ask_stream("no end", window=1, timeout=PATIENCE) as stream:
        assert next(stream) == 1
    fab.drain(timeout=PATIENCE)
    until(fab, lambda: len(fab.dead_letters()) > before)
    assert "in finally" in str(fab.dead_letters()[-1].error)


@pytest.mark.parametrize("placement", [0, 1])
def test_a_stream_that_a_coroutine_drops_closes_its_generator(fab, placement):
    reader, ref = one(fab, Reader, placement=0), one(fab, Yielder, placement=placement)
    assert reader.ask((ref, {"count": 100}, "keep"), PATIENCE) == 0
    assert ref.ask("made", PATIENCE) <= 4
    assert ref.ask("closed", PATIENCE) == 0
    reader.ask((ref, None, "drop"), PATIENCE)
    until(fab, lambda: ref.ask("closed", PATIENCE) == 1)


@pytest.mark.parametrize("placement", [0, 1])
def test_an_agent_that_stops_lets_go_of_the_streams_that_it_read(fab, placement):
    reader, ref = one(fab, Reader, placement=0), one(fab, Yielder, placement=placement)
    assert reader.ask((ref, {"count": 100}, "keep"), PATIENCE) == 0
    reader.stop(PATIENCE)
    until(fab, lambda: ref.ask("closed", PATIENCE) == 1)


def test_closing_a_fabric_ends_the_streams_that_are_open(kind):
    with kind(workers=1) as fab:
        ref = fab.spawn_batch(Yielder, 1)[0]
        unread = ref.ask_stream({"count": 1000}, window=2)
        stream = ref.ask_stream({"count": 1000}, window=2, timeout=PATIENCE)
        assert next(stream) == 0
    assert len(list(_until_error(stream, ClosedError))) <= 2
    unread.close()
    with pytest.raises(ClosedError):
        ref.ask_stream({"count": 1})


def _until_error(stream, error):
    """Yield what still comes of a stream, which ends with this error."""
    with pytest.raises(error):
        yield from stream
