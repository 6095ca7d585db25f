import heapq
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.errors import SpawnError
from fabric.placement import Load, Placement, place

KEYS = st.text() | st.binary() | st.integers()


@st.composite
def loads(draw):
    slots = sorted(draw(st.sets(st.integers(1, 70), min_size=1, max_size=12)))
    agents = [draw(st.integers(0, 40)) for _ in slots]
    return Load(tuple(slots), tuple(agents), draw(st.integers(0, 1000)))


def one_at_a_time(count, load):
    """Place by the plainest rule: each agent in turn to the least loaded, the lowest slot among equals."""
    heap = list(zip(load.agents, load.slots, strict=True))
    heapq.heapify(heap)
    placed = []
    for _ in range(count):
        agents, slot = heap[0]
        placed.append(slot)
        heapq.heapreplace(heap, (agents + 1, slot))
    return placed


def test_round_robin_takes_the_live_slots_in_turn_and_says_where_it_stopped():
    load = Load((1, 3, 4), (0, 0, 0), next=1)

    assert place(4, "round_robin", load) == Placement([3, 4, 1, 3], next=2)


@given(loads(), st.integers(0, 200), st.integers(0, 200))
def test_two_round_robin_batches_are_placed_like_one(load, first, second):
    one = place(first, "round_robin", load)
    two = place(second, "round_robin", Load(load.slots, load.agents, one.next))
    both = place(first + second, "round_robin", load)

    assert one.slots + two.slots == both.slots
    assert two.next == both.next


def test_a_round_robin_position_stays_good_when_workers_leave():
    assert place(3, "round_robin", Load((2, 5), (0, 0), next=7)).slots == [5, 2, 5]


def test_least_loaded_fills_to_a_level_with_the_lowest_slot_first_among_equals():
    load = Load((1, 2, 3), (5, 3, 3), next=2)

    assert place(6, "least_loaded", load) == Placement([2, 3, 2, 3, 1, 2], next=2)


@given(loads(), st.integers(0, 300))
def test_least_loaded_is_the_same_as_placing_one_agent_at_a_time(load, count):
    assert place(count, "least_loaded", load).slots == one_at_a_time(count, load)


@pytest.mark.parametrize("policy", ["round_robin", "least_loaded", 1])
def test_a_large_batch_is_spread_exactly(policy):
    load = Load((1, 2, 3, 4), (100, 0, 0, 0))
    counts = Counter(place(100_000, policy, load).slots)

    expected = {
        "round_robin": {1: 25_000, 2: 25_000, 3: 25_000, 4: 25_000},
        "least_loaded": {1: 24_925, 2: 25_025, 3: 25_025, 4: 25_025},
        1: {2: 100_000},
    }
    assert counts == expected[policy]


def test_a_whole_number_pins_all_agents_to_that_live_worker():
    assert place(3, 1, Load((2, 4, 7), (0, 0, 0), next=2)) == Placement([4, 4, 4], next=2)


@pytest.mark.parametrize("index", [-1, 3, 100])
def test_a_pinned_worker_that_is_not_there_is_refused_with_the_range(index):
    with pytest.raises(ValueError, match=rf"placement={index} names no worker; the live ones are 0 to 2"):
        place(3, index, Load((2, 4, 7), (0, 0, 0)))


@given(loads(), st.lists(KEYS, max_size=30))
def test_a_key_gets_a_live_slot_whatever_else_is_in_its_batch(load, keys):
    placed = place(len(keys), "hash", load, keys)

    assert set(placed.slots) <= set(load.slots)
    assert placed.next == load.next
    assert placed.slots == [place(1, "hash", load, [key]).slots[0] for key in keys]


@given(loads(), st.integers(1, 70), st.lists(KEYS, min_size=1, max_size=50))
def test_a_slot_that_joins_takes_keys_but_moves_none_between_the_others(load, joins, keys):
    more = Load(tuple(sorted({*load.slots, joins})), (0,) * len({*load.slots, joins}))
    before = place(len(keys), "hash", load, keys).slots
    after = place(len(keys), "hash", more, keys).slots

    assert all(new in (old, joins) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("slots", [(1, 2, 3), (14, 15, 16, 17, 18), tuple(range(1, 65))])
def test_hashing_spreads_keys_evenly_over_any_slots(slots):
    count = 500 * len(slots)
    counts = Counter(place(count, "hash", Load(slots, (0,) * len(slots)), range(count)).slots)

    assert set(counts) == set(slots)
    assert all(400 < counts[slot] < 600 for slot in slots)


def test_a_fifth_worker_moves_about_a_fifth_of_the_keys():
    keys = [f"clerk-{i}" for i in range(5_000)]
    four = place(5_000, "hash", Load((1, 2, 3, 4), (0,) * 4), keys).slots
    five = place(5_000, "hash", Load((1, 2, 3, 4, 5), (0,) * 5), keys).slots

    moved = sum(old != new for old, new in zip(four, five, strict=True))
    assert 850 < moved < 1_150


def test_hashing_is_the_same_in_every_run_and_version():
    load = Load(tuple(range(1, 21)), (0,) * 20)

    assert place(6, "hash", load, ["a", b"a", 0, -1, "", 10**30]).slots == [11, 12, 16, 4, 18, 12]


def test_keys_that_print_alike_are_different_keys():
    load = Load(tuple(range(1, 65)), (0,) * 64)

    assert len(set(place(3, "hash", load, [1, "1", b"1"]).slots)) == 3


@pytest.mark.parametrize("keys", [None, "abc", b"abc"])
def test_hashing_without_a_sequence_of_keys_is_refused(keys):
    with pytest.raises(TypeError, match="needs keys"):
        place(3, "hash", Load((1,), (0,)), keys)


@pytest.mark.parametrize("key", [None, 1.5, True, ("a",)])
def test_a_key_of_another_type_is_refused(key):
    with pytest.raises(TypeError, match=r"give a str, an int or bytes"):
        place(1, "hash", Load((1,), (0,)), [key])


def test_keys_that_do_not_match_the_count_are_refused():
    with pytest.raises(ValueError, match="2 keys for 3 agents"):
        place(3, "hash", Load((1,), (0,)), ["a", "b"])


@pytest.mark.parametrize("policy", ["", "random", "Hash"])
def test_an_unknown_policy_is_refused_with_those_that_are_known(policy):
    with pytest.raises(ValueError, match="round_robin, least_loaded, hash or a worker's index"):
        place(1, policy, Load((1,), (0,)))


@pytest.mark.parametrize("policy", [None, True, 1.0])
def test_a_policy_of_another_type_is_refused(policy):
    with pytest.raises(TypeError, match="round_robin, least_loaded, hash or a worker's index"):
        place(1, policy, Load((1,), (0,)))


def test_a_negative_count_is_refused():
    with pytest.raises(ValueError, match="count=-1"):
        place(-1, "round_robin", Load((1,), (0,)))


@pytest.mark.parametrize("policy", ["round_robin", "least_loaded", 0])
def test_no_agents_take_no_slots(policy):
    assert place(0, policy, Load((1, 2), (3, 0), next=1)) == Placement([], next=1)


@pytest.mark.parametrize("policy", ["round_robin", "least_loaded", "hash", 0])
def test_without_a_live_worker_nothing_can_be_placed(policy):
    with pytest.raises(SpawnError, match="no worker is alive"):
        place(1, policy, Load((), ()), ["a"])


@pytest.mark.parametrize(
    ("slots", "agents", "why"),
    [
        ((1, 2), (0,), "2 slots but 1 counts"),
        ((2, 1), (0, 0), "ascending"),
        ((1, 1), (0, 0), "ascending"),
        ((0, 1), (0, 0), "from 1 on"),
        ((1, 2), (0, -1), "negative"),
    ],
)
def test_a_load_that_makes_no_sense_is_refused(slots, agents, why):
    with pytest.raises(ValueError, match=why):
        Load(slots, agents)
