"""Array agents as users see them, on real workers and inline: spawn, records told and asked, groups, errors."""

import pickle

import numpy as np
import pytest

import fabric
from fabric import (
    AgentError,
    AgentNotFoundError,
    ArrayAgents,
    ArrayGroup,
    BackpressureError,
    EncodingError,
    FabricError,
    SpawnError,
)
from tests.agents import Counter, Echo
from tests.range_agents import BALANCE, PAYMENT, Accounts, Giver, Unmakable, Walkers, Wanted

PATIENCE = 30


def _payments(amounts):
    records = np.zeros(len(amounts), PAYMENT)
    records["amount"] = amounts
    records["serial"] = np.arange(len(amounts))
    return records


def _totals(group):
    return np.concatenate(group.hosts.ask_all("totals", timeout=PATIENCE))


# Records.


@pytest.mark.parametrize("order", ["random", "sorted", "reversed", "strided"])
def test_records_reach_their_agents_in_order_and_once(fab, order):
    accounts = fab.spawn_array(Accounts, 101, start=7)
    ids = np.random.default_rng(3).integers(0, 101, 5_000)
    ids = {"sorted": np.sort(ids), "reversed": np.sort(ids)[::-1], "strided": np.repeat(ids, 3)[::3]}.get(order, ids)
    payments = np.repeat(_payments(np.arange(5_000)), 2)[::2]
    accounts.tell_records(ids, payments)
    replies = accounts.ask_records(ids, np.array([(1, 5_000 + i) for i in range(5_000)], PAYMENT), timeout=PATIENCE)

    expected = np.full(101, 7)
    np.add.at(expected, ids, np.arange(5_000))
    seen = np.zeros(101, int)
    for agent, reply in zip(ids, replies, strict=True):
        seen[agent] += 1
        assert tuple(reply) == (agent, expected[agent] + seen[agent])
    assert replies.dtype == BALANCE
    assert (_totals(accounts) == expected + seen).all()
    assert accounts.hosts.ask_all("in order", timeout=PATIENCE) == [True, True]
    assert fab.dead_letters() == []


def test_what_is_told_and_asked_by_one_thread_keeps_its_order_over_many_chunks(fab):
    accounts = fab.spawn_array(Accounts, 10)
    for start in range(0, 200, 20):
        records = _payments(np.ones(20))
        records["serial"] += start
        if start % 40:
            accounts.ask_records(np.arange(20) % 10, records, timeout=PATIENCE)
        else:
            accounts.tell_records(np.arange(20) % 10, records)

    assert _totals(accounts).tolist() == [20] * 10
    assert accounts.hosts.ask_all("in order") == [True, True]


def test_handlers_see_read_only_aligned_views_with_int64_ids(fab):
    accounts = fab.spawn_array(Accounts, 9)
    for count in range(1, 8):
        accounts.tell_records(np.arange(count, dtype="u2"), _payments(np.ones(count)))

    for views in accounts.hosts.ask_all("views", timeout=PATIENCE):
        assert views == {(False, False, True, "int64")}


def test_no_records_are_no_message(fab):
    accounts = fab.spawn_array(Accounts, 4)
    accounts.tell_records([], _payments([]))

    assert accounts.ask_records([], _payments([])).shape == (0,)
    assert accounts.hosts.ask_all("received") == [0, 0]


def test_bad_calls_are_refused_before_anything_is_sent(fab):
    accounts = fab.spawn_array(Accounts, 10)
    for send in (accounts.tell_records, accounts.ask_records):
        with pytest.raises(ValueError, match="id 10 at position 2"):
            send([0, 1, 10], _payments([1, 1, 1]))
        with pytest.raises(ValueError, match="1 ids and 2 records"):
            send([0], _payments([1, 1]))
        with pytest.raises(EncodingError, match=r"float64 where dtype .*amount"):
            send([0], np.zeros(1))
        with pytest.raises(ValueError, match="one dimension"):
            send([0], _payments([1])[0])

    assert _totals(accounts).tolist() == [0] * 10


def test_records_need_not_be_structured_and_may_have_a_shape(fab):
    for dtype in ("f8", ">i2", ("f4", (3,)), "M8[s]"):
        kind = type("Plain", (_Mirror,), {"dtype": dtype, "reply_dtype": dtype})
        group = fab.spawn_array(kind, 5)
        rows = np.frombuffer(np.random.default_rng(5).bytes(20 * kind.dtype.itemsize), kind.dtype.base)
        rows = rows.reshape(20, *kind.dtype.shape)
        replies = group.ask_records(np.arange(20) % 5, rows, timeout=PATIENCE)

        assert (replies.dtype, replies.tobytes()) == (rows.dtype, rows.tobytes())


class _Mirror(ArrayAgents):
    def on_records(self, ids, records):
        return records


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (None, "returned None"),
        (np.zeros(3), "has to return as many rows of dtype float64; it returned 3"),
        (np.zeros(4, "f4"), "float32 where dtype float64 is wanted"),
        (np.zeros((4, 1)), r"shape \(4, 1\)"),
        ({}, "shape"),
        ("f4", "float32 where dtype float64 is wanted"),
    ],
)
def test_a_reply_that_is_not_one_row_a_record_is_an_error_that_says_so(fab, reply, text):
    group = fab.spawn_array(Giver, 4, workers=[0])
    group.hosts.ask_all(reply)

    with pytest.raises((AgentError, EncodingError), match=text):
        group.ask_records(range(4), np.zeros(4), timeout=PATIENCE)
    group.tell_records(range(4), np.zeros(4))  # what is told has no reply that could be wrong
    fab.drain(timeout=PATIENCE)
    if not isinstance(reply, str):
        assert fab.dead_letters() == []


def test_replies_may_come_later(fab):
    group = fab.spawn_array(Giver, 4)
    group.hosts.ask_all("f8")

    assert group.ask_records([2, 3, 0, 1], np.zeros(4), timeout=PATIENCE).tolist() == [0.0, 1.0, 0.0, 1.0]


def test_records_are_not_forwarded_unchecked(fab):
    group = fab.spawn_array(Giver, 4)
    group.hosts.ask_all("forward")

    with pytest.raises(AgentError, match="records cannot be forwarded"):
        group.ask_records([0], np.zeros(1), timeout=PATIENCE)


def test_only_a_class_with_a_reply_dtype_can_be_asked(fab):
    walkers = fab.spawn_array(Walkers, 4, stride=1)
    with pytest.raises(TypeError, match="reply_dtype"):
        walkers.ask_records([0], np.zeros(1, Walkers.dtype))


# From worker to worker.


def test_agents_tell_records_to_agents_of_all_ranges(fab):
    walkers = fab.spawn_array(Walkers, 1_000, stride=333)
    walkers.hosts[0].ask("start", timeout=PATIENCE)
    fab.drain(timeout=PATIENCE)

    assert (np.concatenate(walkers.hosts.ask_all("visits")) == 4).all()
    assert fab.dead_letters() == []


def test_a_handler_that_sends_more_than_the_outbox_takes_is_refused_and_sends_nothing(fab):
    walkers = fab.spawn_array(Walkers, 10, stride=1)
    with pytest.raises(AgentError, match="outbox_bytes") as caught:
        walkers.hosts[0].ask("flood", timeout=PATIENCE)
    assert isinstance(caught.value.__cause__, BackpressureError)

    fab.drain(timeout=PATIENCE)
    assert not np.concatenate(walkers.hosts.ask_all("visits")).any()


def test_ask_records_in_a_handler_is_refused(fab):
    walkers = fab.spawn_array(Walkers, 10, stride=1)
    with pytest.raises(AgentError, match="stop the whole worker"):
        walkers.hosts[0].ask("ask", timeout=PATIENCE)


# Groups.


def test_a_group_knows_its_ids_ranges_and_dtypes(fab):
    accounts = fab.spawn_array(Accounts, 11)

    assert (len(accounts), accounts.ids, list(accounts)) == (11, range(11), list(range(11)))
    assert accounts.ranges == [range(5), range(5, 11)]
    assert (accounts.dtype, accounts.reply_dtype) == (PAYMENT, BALANCE)
    assert len(accounts.hosts) == 2
    assert repr(accounts) == "<ArrayGroup of 11 agents in 2 ranges>"


def test_a_group_can_be_sent_and_comes_back_equal(fab):
    accounts = fab.spawn_array(Accounts, 11)
    echo = fab.spawn_batch(Echo, 1)[0]
    back = echo.ask(accounts, timeout=PATIENCE)
    again = pickle.loads(pickle.dumps(accounts))

    assert back == accounts == again
    assert len({back, accounts, again}) == 1
    assert accounts != fab.spawn_array(Accounts, 11)
    assert accounts.hosts[1].ask("group", timeout=PATIENCE) == accounts
    back.tell_records([10], _payments([5]))
    assert _totals(again)[10] == 5


def test_named_groups_are_found_as_long_as_they_live(fab):
    accounts = fab.spawn_array(Accounts, 5, name="accounts")

    assert fab.find("accounts") == accounts
    assert fab.find("accounts-1") == accounts.hosts[1]
    with pytest.raises(ValueError, match="taken"):
        fab.spawn_array(Accounts, 5, name="accounts")
    accounts.stop(timeout=PATIENCE)
    assert (fab.find("accounts"), fab.find("accounts-1"), fab.find("no such")) == (None, None, None)
    assert fab.spawn_array(Accounts, 6, name="accounts") == fab.find("accounts")


def test_a_stopped_group_is_not_there_any_more(fab):
    accounts = fab.spawn_array(Accounts, 5)
    before = fab.statistics().agents
    accounts.stop(timeout=PATIENCE)

    assert fab.statistics().agents == before - 2
    for send in (accounts.tell_records, accounts.ask_records):
        with pytest.raises(AgentNotFoundError):
            send([0], _payments([1]))


# Spawning.


def test_constructors_get_their_range_and_then_what_was_given(fab):
    group = fab.spawn_array(Wanted, 7, args=("one",), kwargs={"workers": "four"}, second=2)

    assert group.hosts.ask_all("given") == [(range(3), "one", 2, "four", 7), (range(3, 7), "one", 2, "four", 7)]


@pytest.mark.parametrize(("workers", "ranges"), [([1], [range(5)]), ([1, 0], [range(2), range(2, 5)])])
def test_workers_may_be_chosen(fab, workers, ranges):
    before = [worker.agents for worker in fab.statistics().workers]
    group = fab.spawn_array(Accounts, 5, workers=workers)
    added = [worker.agents - old for worker, old in zip(fab.statistics().workers, before, strict=True)]

    assert group.ranges == ranges
    assert added == [int(worker in workers) for worker in (0, 1)]


def test_there_are_no_more_ranges_than_agents(fab):
    group = fab.spawn_array(Accounts, 1)

    assert group.ranges == [range(1)]
    assert group.ask_records([0], _payments([3]))["total"].tolist() == [3]


def test_a_constructor_that_raises_is_a_SpawnError_and_nothing_lives_on(fab):
    before = fab.statistics().agents
    with pytest.raises(SpawnError, match="1 of 2 agents of Unmakable") as caught:
        fab.spawn_array(Unmakable, 10, name="unmakable")

    assert "range(5, 10)" in str(caught.value.failures[1])
    assert (fab.statistics().agents, fab.find("unmakable")) == (before, None)


def _class(**members):
    return type("Wrong", (ArrayAgents,), {"dtype": "i4", "on_records": lambda self, ids, records: None, **members})


async def _async(self, *rest):
    pass


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (Counter, "subclass of fabric.ArrayAgents"),
        (_class(dtype=None), "Wrong has no dtype"),
        (type("Wrong", (ArrayAgents,), {"dtype": "i4"}), "no on_records"),
        (_class(on_records=_async), "async"),
        (_class(on_message=_async), "async"),
        (_class(on_batch=lambda self, bodies: None), "on_batch"),
        (_class(snapshot=lambda self: None), "only one of snapshot"),
    ],
)
def test_classes_that_cannot_work_are_refused(fab, wrong, text):
    with pytest.raises(TypeError, match=text):
        fab.spawn_array(wrong, 5)


def test_dtypes_with_objects_are_refused_where_the_class_is_defined():
    with pytest.raises(TypeError, match=r"Wrong\.dtype is .*objects"):
        _class(dtype=[("a", "O")])
    with pytest.raises(TypeError, match=r"Wrong\.reply_dtype is object"):
        _class(reply_dtype=object)


@pytest.mark.parametrize(
    ("count", "options", "error"),
    [
        (0, {}, ValueError),
        (-1, {}, ValueError),
        (2.5, {}, TypeError),
        (True, {}, TypeError),
        (5, {"workers": [2]}, ValueError),
        (5, {"workers": []}, ValueError),
        (5, {"workers": [0, 0]}, ValueError),
        (5, {"on_crash": "maybe"}, ValueError),
        (5, {"snapshot_every": 5}, ValueError),
    ],
)
def test_wrong_arguments_are_refused(fab, count, options, error):
    with pytest.raises(error):
        fab.spawn_array(Accounts, count, **options)


def test_array_agents_are_not_spawned_one_by_one(fab):
    with pytest.raises(TypeError, match="spawn_array"):
        fab.spawn_batch(Accounts, 5)
    with pytest.raises(TypeError, match="spawn_array"):
        fab.prewarm(Accounts, 5)


def test_the_base_class_says_what_is_missing():
    assert ArrayAgents(range(3)).on_message.__self__ is not None
    with pytest.raises(NotImplementedError, match="on_records"):
        ArrayAgents(range(3)).on_records([], [])
    with pytest.raises(FabricError, match="before the agent has an address"):
        ArrayAgents(range(3)).group  # noqa: B018 - it raises
    assert (fabric.ArrayAgents, fabric.ArrayGroup) == (ArrayAgents, ArrayGroup)
