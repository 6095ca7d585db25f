"""Everything is bounded: full lanes, many outstanding asks, a million queued messages, agents that flood each other."""

import psutil
import pytest

from fabric import BackpressureError, Fabric, MessageTooLargeError
from fabric.codec import Codec
from tests.agents import Counter, Echo, Flooder, Gate, Recorder, Sleeper


@pytest.fixture
def gate(tmp_path):
    return tmp_path / "open"


def _fill_lane_of(agent):
    """Send until the lane is full; return how many it took."""
    for sent in range(10_000):
        try:
            agent.tell_nowait(b"x" * 64)
        except BackpressureError:
            return sent
    raise AssertionError("the lane took 10,000 messages and was not full")


def test_a_full_lane_refuses_those_who_do_not_wait_and_times_out_those_who_do(gate):
    with Fabric(workers=1, lane_bytes=2**16) as fab:
        agents = fab.spawn_batch(Gate, 2, path=str(gate))
        fab.drain(timeout=30)  # the order to spawn is out of the lane
        agents[0].tell("wait")
        sent = _fill_lane_of(agents[1])
        with pytest.raises(BackpressureError):
            agents[1].submit_nowait(b"x")
        with pytest.raises(TimeoutError):
            agents[1].tell(b"x" * 64, timeout=0.05)
        with pytest.raises(TimeoutError):
            agents[1].ask(b"x" * 64, timeout=0.05)
        with pytest.raises(TimeoutError):
            fab.tell_many([agents[1]] * 100, [b"x" * 64] * 100, timeout=0.05)

        assert 400 < sent < 700, "64 KiB hold some 580 records of 112 bytes"
        gate.touch()
        fab.drain(timeout=30)
        assert agents[1].ask("count") == sent


def test_a_coordinator_lane_holds_65536_messages_of_64_bytes(gate):
    with Fabric(workers=1) as fab:
        agents = fab.spawn_batch(Gate, 2, path=str(gate))
        agents[0].tell("wait")
        for _ in range(65_536):
            agents[1].tell_nowait(b"x" * 64)
        gate.touch()
        fab.drain(timeout=30)
        assert agents[1].ask("count") == 65_536


@pytest.mark.parametrize("size", [64, 16_384, 65_535])
def test_what_is_encoded_of_a_call_at_a_time_is_bounded_in_bytes(size, monkeypatch):
    encoded, encode_many = [], Codec.encode_many

    def noting(*arguments):
        encoded.append(encode_many(*arguments))
        return encoded[-1]

    monkeypatch.setattr(Codec, "encode_many", noting)
    with Fabric(workers=1) as fab:
        echo = fab.spawn_batch(Echo, 1)[0]
        sent = [index.to_bytes(8) + bytes(size - 8) for index in range(300)]
        assert fab.ask_many([echo] * len(sent), sent) == sent

    blobs = [len(one.blob) for one in encoded if len(one.blob) >= size]
    assert sum(blobs) == len(sent) * size
    assert max(blobs) <= 2**20
    assert len(blobs) <= sum(blobs) // 2**19 + 1, "but no smaller than need be"


def test_50000_asks_may_be_outstanding(gate):
    with Fabric(workers=1) as fab:
        agents = fab.spawn_batch(Gate, 2, path=str(gate))
        agents[0].tell("wait")
        futures = [agents[1].submit(b"x") for _ in range(50_000)]
        assert fab.statistics().outstanding == 50_000
        gate.touch()
        assert [future.result(timeout=30) for future in futures] == list(range(1, 50_001))


def test_a_million_messages_may_be_queued_in_all(gate):
    with Fabric(workers=2, lane_bytes=2**26) as fab:
        agents = fab.spawn_batch(Gate, 4, path=str(gate))
        agents[0].tell("wait")
        agents[1].tell("wait")
        for _ in range(500_000):
            agents[2].tell_nowait(b"x" * 64)
            agents[3].tell_nowait(b"x" * 64)
        gate.touch()
        fab.drain(timeout=60)
        assert agents.ask_all("count")[2:] == [500_000, 500_000]


def test_memory_does_not_grow_when_a_producer_outruns_a_worker():
    with Fabric(workers=1, lane_bytes=2**20) as fab:
        recorder = fab.spawn_batch(Echo, 1)[0]
        worker = psutil.Process(fab.statistics().workers[0].pid)
        bodies = [b"x" * 64] * 20_000
        sizes = []
        for _ in range(12):
            fab.tell_many([recorder] * len(bodies), bodies)
            sizes.append(psutil.Process().memory_info().rss + worker.memory_info().rss)
        assert max(sizes[6:]) - min(sizes[2:6]) < 8 * 2**20


def test_a_message_over_the_lane_limit_is_refused_and_the_fabric_works_on():
    with Fabric(workers=1, lane_bytes=2**16, arena_bytes=0) as fab:
        echo = fab.spawn_batch(Echo, 1)[0]
        for send in (echo.tell, echo.ask, echo.submit, echo.tell_nowait):
            with pytest.raises(MessageTooLargeError) as caught:
                send(b"x" * 2**16)
            assert (caught.value.size, caught.value.limit) == (2**16, 2**15 - 48)
        with pytest.raises(MessageTooLargeError):
            fab.ask_many([echo] * 2, [b"small", b"x" * 2**16])
        assert echo.ask(b"x" * (2**15 - 48)) == b"x" * (2**15 - 48)


def test_agents_that_flood_each_other_get_errors_and_nobody_stands_still():
    with Fabric(workers=2, peer_lane_bytes=2**14, outbox_bytes=2**16, on_error=lambda letter: None) as fab:
        pair = fab.spawn_batch(Flooder, 2)
        witness = fab.spawn_batch(Recorder, 1)[0]
        pair[0].tell(("meet", pair[1], witness))
        pair[1].tell(("meet", pair[0], witness))
        fab.drain(timeout=30)
        pair.tell_all(("flood", 12))
        fab.drain(timeout=60)
        refusals = [letter for letter in fab.dead_letters() if isinstance(letter.error.__cause__, BackpressureError)]

        assert refusals, "the flood must have been larger than the outbox, or this tested nothing"
        assert witness.ask("all") == []
        assert fab.statistics().alarms == 0


def test_a_message_that_waited_for_room_arrives_once():
    with Fabric(workers=1, lane_bytes=2**16) as fab:
        counter, sleeper = fab.spawn_batch(Counter, 1)[0], fab.spawn_batch(Sleeper, 1)[0]
        for expected in (2_000, 4_000):
            sleeper.tell(0.3)
            for _ in range(2_000):  # a lane holds six hundred of them: some wait until the sleeper wakes
                counter.tell(1)
            assert counter.ask(0, timeout=30) == expected
