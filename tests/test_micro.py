"""Micro-benchmarks of single floors, in one process: `pytest -m benchmark`, which is left out without that.

    ring       bytes into a lane and out of it, singly and in batches
    codec      each kind of body to bytes and back
    channel    both together: bodies over a lane
    table      where agents live, and messages sorted by worker
    decisions  placement, the window of a lane

What they are for: which floor a change made slower. Whole paths, beside peers, are measured by `python -m bench`. Each
checks what it got; `--benchmark-compare` compares with a run saved by `--benchmark-autosave`.
"""

from array import array

import numpy as np
import pytest

from fabric import FabricConfig
from fabric.batch import Batch
from fabric.codec import Codec
from fabric.columns import Columns
from fabric.directory import Directory
from fabric.messages import MESSAGE, RAW
from fabric.placement import Load, place
from fabric.receiver import Receiver
from fabric.sender import Sender, make_batch
from fabric.window import Window
from tests.loopback import loopback

pytestmark = pytest.mark.benchmark(max_time=0.3, min_rounds=5)

BATCH = 256
AGENTS = 10_000
META = MESSAGE | RAW << 16
BODIES = {
    "64 bytes": bytes(64),
    "1 kB": bytes(1_000),
    "None": None,
    "an int": 12_345,
    "a 3-key dict": {"name": "an agent", "step": 17, "value": 0.25},
    "an array of 100 floats": np.arange(100.0),
}
PLAIN = {name: body for name, body in BODIES.items() if not isinstance(body, bytes | np.ndarray)}  # what JSON can say


@pytest.fixture
def loop():
    with loopback(2, lane_bytes=2**20, max_agents=AGENTS) as made:
        yield made


@pytest.fixture
def receiver(loop):
    made = Receiver(loop.segments[1], loop.peers[1], Codec())
    yield made
    made.close()


def same(found, expected):
    """Compare bodies; arrays by dtype and content."""
    if isinstance(expected, np.ndarray):
        return found.dtype == expected.dtype and np.array_equal(found, expected)
    return type(found) is type(expected) and found == expected


# Ring.


def test_ring_one_record_there_and_committed(benchmark, loop):
    coordinator, worker = loop.peers[:2]
    columns = Columns()

    def turn():
        sent = coordinator.send(1, META, 7, 0, 0, BODIES["64 bytes"])
        lane = worker.receive(1, columns)
        facts = columns.facts()
        worker.commit(lane, facts[10])
        return sent, lane, facts[0], facts[5]

    assert benchmark(turn) == (True, 0, 1, 64)
    assert loop.peers[0].quiet()


@pytest.mark.parametrize("size", [64, 1_000])
def test_ring_a_batch_of_256_there_and_committed(benchmark, loop, size):
    coordinator, worker = loop.peers[:2]
    columns, blob = Columns(), bytes(size * BATCH)

    def turn():
        whole = Batch(META, 0, BATCH).target(7).bodies(blob, size).put(coordinator, 1)
        count = 0
        while (lane := worker.receive(BATCH, columns)) >= 0:
            facts = columns.facts()
            count += facts[0]
            worker.commit(lane, facts[10])
        return whole, count

    assert benchmark(turn) == (True, BATCH)
    assert loop.peers[0].quiet()


def test_ring_a_look_at_empty_lanes(benchmark, loop):
    columns = Columns()
    assert benchmark(lambda: loop.peers[1].receive(BATCH, columns)) == -1


# Codec.


@pytest.mark.parametrize("kind", BODIES)
def test_codec_encode(benchmark, kind):
    codec = Codec()
    assert same(codec.decode(*benchmark(codec.encode, BODIES[kind])), BODIES[kind])


@pytest.mark.parametrize("kind", BODIES)
def test_codec_decode(benchmark, kind):
    codec = Codec()
    assert same(benchmark(codec.decode, *codec.encode(BODIES[kind])), BODIES[kind])


@pytest.mark.parametrize("kind", PLAIN)
def test_codec_there_and_back_by_json(benchmark, kind):
    codec = Codec("json")
    assert same(benchmark(lambda: codec.decode(*codec.encode(PLAIN[kind]))), PLAIN[kind])


@pytest.mark.parametrize("kind", BODIES)
def test_codec_encode_256(benchmark, kind):
    codec = Codec()
    encoded = benchmark(codec.encode_many, [BODIES[kind]] * BATCH)
    sizes = [encoded.sizes] * BATCH if isinstance(encoded.sizes, int) else list(encoded.sizes)
    ends = np.cumsum(sizes)
    parts = [bytes(encoded.blob[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
    assert all(same(codec.decode(encoded.encoding, part), BODIES[kind]) for part in parts)


@pytest.mark.parametrize("kind", BODIES)
def test_codec_decode_256(benchmark, kind):
    codec = Codec()
    encoding, data = codec.encode(BODIES[kind])
    found = benchmark(codec.decode_many, encoding, [data] * BATCH)
    assert len(found) == BATCH
    assert all(same(body, BODIES[kind]) for body in found)


# Channel.


@pytest.mark.parametrize("kind", BODIES)
def test_channel_256_bodies_over_a_lane(benchmark, loop, receiver, kind):
    codec, sender, bodies = Codec(), Sender(loop.peers[0], 1), [BODIES[kind]] * BATCH

    def turn():
        whole = sender.put(make_batch(MESSAGE, codec.encode_many(bodies), 7, BATCH))
        arrived = []
        while (received := receiver.receive()) is not None:
            arrived += received.bodies
            receiver.commit(received.lane, received.end)
        return whole, arrived

    whole, arrived = benchmark(turn)
    assert whole
    assert len(arrived) == BATCH
    assert all(same(body, BODIES[kind]) for body in arrived)
    assert loop.peers[0].quiet()


def test_channel_one_body_over_a_lane(benchmark, loop, receiver):
    sender = Sender(loop.peers[0], 1)

    def turn():
        sender.send_one(META, 7, 0, BODIES["64 bytes"])
        received = receiver.receive()
        receiver.commit_at_next(received.lane, received.end)
        return received.bodies

    assert benchmark(turn) == [BODIES["64 bytes"]]


# Where agents live.


@pytest.fixture
def spawned(loop):
    """Addresses of 10,000 agents, in turn on both workers, and their directory."""
    directory = Directory(loop.peers[0], AGENTS)
    addresses = directory.allocate(AGENTS)
    directory.open(addresses, array("H", [1, 2] * (AGENTS // 2)))
    return addresses, directory


def test_table_route_256_messages(benchmark, loop, spawned):
    addresses, _ = spawned
    found, slots = benchmark(loop.peers[0].route, addresses[:BATCH])
    assert (found, slots) == (BATCH, array("H", [1, 2] * (BATCH // 2)))


def test_table_sort_256_messages_by_worker(benchmark, loop):
    parts = benchmark(loop.peers[0].partition, array("H", [1, 2] * (BATCH // 2)))
    assert [(slot, list(indexes)) for slot, indexes in parts] == [
        (1, list(range(0, BATCH, 2))),
        (2, list(range(1, BATCH, 2))),
    ]


def test_table_which_of_10_000_agents_live(benchmark, spawned):
    addresses, directory = spawned
    directory.close(addresses[:10])
    assert benchmark(directory.alive, addresses) == addresses[10:]


# Decisions.


@pytest.mark.parametrize("policy", ["round_robin", "least_loaded"])
def test_placement_of_10_000_agents(benchmark, policy):
    load = Load((1, 2, 3, 4), (0, 0, 0, 0))
    found = benchmark(place, AGENTS, policy, load)
    assert [found.slots.count(slot) for slot in load.slots] == [AGENTS // 4] * 4


def test_placement_of_1_000_agents_by_hash(benchmark):
    load, keys = Load((1, 2, 3, 4), (0, 0, 0, 0)), [f"key {number}" for number in range(1_000)]
    found = benchmark(place, len(keys), "hash", load, keys)
    assert found.slots == place(len(keys), "hash", load, keys).slots
    assert {*found.slots} == {*load.slots}


def test_window_decides_1_000_times(benchmark):
    lane = FabricConfig().lane_bytes

    def observe():
        window = Window(lane, 0.02)
        for tick in range(1_000):  # a consumer of 50 MB/s, looked at every 2 ms, that is never idle
            window.observe(tick * 100_000, tick * 0.002, 1_000)
        return window.limit

    assert benchmark(observe) == pytest.approx(1_000_000, rel=0.05)
