"""The agent table: addresses are used once, and the names of the living are taken."""

import threading
from array import array

import pytest

from fabric import FabricConfig, SpawnError
from fabric.directory import Directory
from fabric.inline_lanes import Lanes

MAX_AGENTS = 10


@pytest.fixture
def lanes():
    return Lanes(FabricConfig(max_agents=MAX_AGENTS), 3)


@pytest.fixture
def directory(lanes):
    return Directory(lanes, MAX_AGENTS)


def _spawn(directory, count, slot=1):
    addresses = directory.allocate(count)
    directory.open(addresses, array("H", [slot] * count))
    return addresses


def test_addresses_are_fresh_and_start_behind_the_coordinator(directory):
    assert list(directory.allocate(3)) == [1 << 32 | index for index in (1, 2, 3)]
    assert list(directory.allocate(0)) == []
    assert list(directory.allocate(1)) == [1 << 32 | 4]


def test_the_table_says_where_those_live_that_were_opened(directory, lanes):
    addresses = directory.allocate(2)
    assert lanes.route(addresses)[0] == 0, "not before they are opened"
    directory.open(addresses, array("H", [1, 2]))

    assert lanes.route(addresses) == (2, array("H", [1, 2]))
    assert (directory.count(1), directory.count(2), directory.total, directory.room) == (1, 1, 2, 8)


def test_a_closed_address_is_never_used_again_but_its_index_is(directory, lanes):
    seen = set()
    for _ in range(5):
        addresses = _spawn(directory, MAX_AGENTS)
        assert not seen & set(addresses)
        assert sorted(address & 0xFFFFFFFF for address in addresses) == list(range(1, MAX_AGENTS + 1))
        seen |= set(addresses)
        directory.close(addresses)
        assert lanes.route(addresses)[0] == 0

    assert (directory.total, directory.room) == (0, MAX_AGENTS)


def test_closing_what_is_closed_changes_nothing(directory):
    addresses = _spawn(directory, 2)
    for _ in range(3):
        directory.close(addresses)
    again = _spawn(directory, MAX_AGENTS)
    directory.close(addresses)

    assert len(set(again)) == MAX_AGENTS
    assert directory.total == MAX_AGENTS


def test_a_full_table_refuses_and_takes_as_many_as_were_asked_for_or_none(directory):
    _spawn(directory, 8)
    with pytest.raises(SpawnError, match="3 agents were asked for and max_agents=10 leaves room for 2"):
        directory.allocate(3)

    assert len(directory.allocate(2)) == 2


def test_the_living_are_told_from_the_dead_and_from_earlier_generations(directory):
    old = _spawn(directory, 3)
    directory.close(old[1:2])
    new = directory.allocate(MAX_AGENTS - 2)
    directory.open(new, array("H", [2] * len(new)))

    assert directory.alive(old) == array("Q", [old[0], old[2]])
    assert [(address, slot) for address, slot in zip(*directory.locate(array("Q", [new[-1], *old])), strict=True)] == [
        (new[-1], 2),
        (old[0], 1),
        (old[2], 1),
    ]


def test_the_agents_of_a_worker_given_up_are_lost(directory, lanes):
    kept, lost = _spawn(directory, 2, slot=1), _spawn(directory, 3, slot=2)

    assert directory.lose(2) == 3
    assert (directory.count(1), directory.count(2)) == (2, 0)
    assert directory.alive(array("Q", [*kept, *lost])) == kept
    assert lanes.route(lost)[0] == 0
    assert directory.lose(2) == 0


def test_names_belong_to_those_who_live(directory):
    addresses = _spawn(directory, 2)
    with directory.reserve("clerk") as give:
        with pytest.raises(ValueError, match="is taken"), directory.reserve("clerk"):
            pass  # another thread is making them
        assert directory.find("clerk-0") is None
        give(addresses, True)
    assert [directory.find(name) for name in ("clerk-0", "clerk-1")] == [(address, True) for address in addresses]
    assert [directory.find(name) for name in ("clerk-2", "clerk--1", "clerk-²", "clerk", "-0", "a-b-0")] == [None] * 6
    with pytest.raises(ValueError, match="name='clerk' is taken by 2 agents"), directory.reserve("clerk"):
        pass
    directory.close(addresses[:1])
    assert directory.find("clerk-0") is None
    with pytest.raises(ValueError, match="is taken"), directory.reserve("clerk"):
        pass
    directory.close(addresses)
    with directory.reserve("clerk"):
        pass


def test_threads_get_different_addresses():
    directory = Directory(Lanes(FabricConfig(max_agents=8_000), 2), 8_000)
    got, start = [], threading.Barrier(8)

    def spawn_and_stop():
        start.wait(30)
        for _ in range(50):
            addresses = _spawn(directory, 10)
            got.extend(addresses)
            directory.close(addresses[:5])

    threads = [threading.Thread(target=spawn_and_stop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(got) == len(set(got)) == 4_000
    assert directory.total == 2_000


def test_the_names_of_those_who_have_stopped_are_dropped_in_time(directory):
    (stays,) = _spawn(directory, 1)
    with directory.reserve("stays") as give:
        give(array("Q", [stays]), None)
    for number in range(1_000):
        addresses = _spawn(directory, 2)
        with directory.reserve(f"goes-{number}") as give:
            give(addresses, None)
        directory.close(addresses[:1])
        assert directory.find(f"goes-{number}-1") == (addresses[1], None), "one of them lives"
        directory.close(addresses[1:])
    assert len(directory._names) < 100
    assert directory.find("stays-0") == (stays, None)
