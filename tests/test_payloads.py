"""Large bodies end to end, on real workers and inline: equal, writable as they were, and in order."""

import asyncio
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fabric import Fabric
from tests.arenas import PATIENCE, holders_of
from tests.payload_agents import AsyncHolder, BatchHolder, Bundle, Holder, pattern, read_only
from tests.test_arrays import same
from tests.waiting import until

THRESHOLD = 4096  # low, so that small arrays go through the arena
BIG = 3 << 20  # over what a lane between workers takes, under what one of the coordinator does
LIMITS = [4095, 4096, 4097, 8192, 131_071, 131_072, (1 << 22) - 100, 1 << 22, (1 << 22) + 1, 64 << 20]
SETTINGS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def fab(kind):
    with kind(workers=2, arena_threshold=THRESHOLD, on_error=lambda letter: None) as fabric:
        yield fabric


@pytest.fixture(scope="module")
def holders(fab):
    """One agent a worker, who know each other."""
    return holders_of(fab)


DTYPES = st.one_of(
    hnp.scalar_dtypes(),
    hnp.datetime64_dtypes(),
    hnp.byte_string_dtypes(min_len=1),
    hnp.unicode_string_dtypes(min_len=1),
    hnp.array_dtypes(allow_subarrays=False),
)
LAYOUTS = {
    "C": lambda array: array,
    "F": lambda array: np.asfortranarray(array),
    "reversed": lambda array: array[::-1] if array.ndim else array,
    "strided": lambda array: array[..., ::2] if array.ndim else array,
    "transposed": lambda array: array.T,
    "broadcast": lambda array: np.broadcast_to(array, (3, *array.shape)),
    "read-only": lambda array: read_only(array.copy()),
    "0-d": lambda array: array.reshape(-1)[:1].reshape(()) if array.size else array,
    "empty": lambda array: array[:0] if array.ndim else array,
}


@st.composite
def arrays(draw):
    """An array of any dtype and layout, mostly large enough for the arena."""
    dtype = draw(DTYPES)
    shape = draw(hnp.array_shapes(max_dims=3, min_side=8, max_side=40))
    seed = draw(hnp.arrays(dtype, hnp.array_shapes(max_dims=1, max_side=8)))
    array = np.resize(seed, shape).astype(dtype)
    return LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))](array)


@given(array=arrays())
@SETTINGS
def test_an_array_of_any_kind_comes_back_the_same(holders, array):
    came = holders[0].ask(array, timeout=PATIENCE)
    assert same(came, array)
    assert came.flags.writeable == array.flags.writeable
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        assert came.flags.f_contiguous


NESTED = st.recursive(
    st.one_of(st.none(), st.integers(), st.binary(max_size=20_000), arrays(), st.binary(max_size=9_000).map(bytearray)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.integers(), inner, max_size=3),
        st.tuples(st.just("not a word for it"), inner),
        st.builds(Bundle, st.text(max_size=5), st.lists(inner, max_size=2), st.just({})),
    ),
    max_leaves=5,
)


def _flat(body):
    """Yield what is in a body, depth first, with the types of what holds it."""
    yield type(body)
    if isinstance(body, (list, tuple)):
        for part in body:
            yield from _flat(part)
    elif isinstance(body, dict):
        for item in body.items():
            yield from _flat(item)
    elif isinstance(body, Bundle):
        yield from _flat([body.name, body.arrays, body.rest])
    elif isinstance(body, np.ndarray):
        yield body.dtype, body.shape, body.tobytes()
    else:
        yield body


@given(body=NESTED)
@SETTINGS
def test_arrays_in_anything_come_back_the_same(holders, body):
    expected = pickle.loads(pickle.dumps([body], 5))  # which loses some byte orders, as numpy has it
    assert list(_flat(holders[0].ask([body], timeout=PATIENCE))) == list(_flat(expected))


@pytest.mark.parametrize("size", LIMITS)
def test_any_size_goes_both_ways(fab, holders, size):
    body = pattern(size, size)
    for sent in (body, body.tobytes()):
        came = holders[1].ask(sent, timeout=PATIENCE)
        assert type(came) is type(sent)
        assert np.array_equal(np.frombuffer(came, "u1"), body)


@pytest.mark.parametrize("size", LIMITS[:-1])
def test_any_size_goes_from_worker_to_worker(fab, holders, size):
    first, second = holders
    first.ask(("pass_on", pattern(size, size)), timeout=PATIENCE)
    (came,) = until(lambda: second.ask(("show",), timeout=PATIENCE))
    assert np.array_equal(came, pattern(size, size))
    second.ask(("let_go",))


def test_data_frames_arrive_as_they_were(holders):
    pandas = pytest.importorskip("pandas", reason="NOT TESTED: pandas is not installed, and with it data frames")
    frame = pandas.DataFrame({"a": np.arange(10_000.0), "b": np.arange(10_000), "c": ["x", "y"] * 5_000})
    pandas.testing.assert_frame_equal(holders[0].ask(frame, timeout=PATIENCE), frame)


@pytest.mark.parametrize("kind_of_agent", [Holder, AsyncHolder, BatchHolder])
def test_large_bodies_go_by_every_way_of_sending(fab, kind_of_agent):
    group = fab.spawn_batch(kind_of_agent, 6)
    bodies = [pattern(seed, 50_000) for seed in range(6)]

    def check(came, expected=bodies):
        assert all(np.array_equal(a, b) for a, b in zip(came, expected, strict=True))

    check([ref.ask(body, timeout=PATIENCE) for ref, body in zip(group, bodies, strict=True)])
    check([future.result(PATIENCE) for future in [group[k].submit(body) for k, body in enumerate(bodies)]])
    check(group.ask_each(bodies, timeout=PATIENCE))
    check(group.ask_all(bodies[0], timeout=PATIENCE), [bodies[0]] * 6)
    check(fab.ask_many([group[k % 6] for k in range(60)], bodies * 10, timeout=PATIENCE), bodies * 10)
    check([group[0].submit_nowait(bodies[3]).result(PATIENCE)], [bodies[3]])
    check([asyncio.run(_ask(group[1], bodies[1]))], [bodies[1]])
    check(group.ask_all(("put_off", bodies[2]), timeout=PATIENCE), [bodies[2]] * 6)
    group.tell_each([("keep", body) for body in bodies])
    group.tell_all(("keep", bodies[0]))
    fab.tell_many(list(group), [("keep", body) for body in bodies])
    for k, ref in enumerate(group):
        ref.tell(("keep", bodies[k]))
        ref.tell_nowait(("keep", bodies[k]))
    for k, kept in enumerate(group.ask_all(("show",), timeout=PATIENCE)):
        check(kept, [bodies[k], bodies[0], bodies[k], bodies[k], bodies[k]])
    group.stop()


async def _ask(ref, body):
    return await ref.ask_async(body, timeout=PATIENCE)


def test_agents_forward_delay_and_ask_with_large_bodies(fab):
    first, second = holders_of(fab)
    body = pattern(3, 50_000)
    assert np.array_equal(first.ask(("forward", body), timeout=PATIENCE), body)
    first.ask(("later", body), timeout=PATIENCE)
    asker = fab.spawn_batch(AsyncHolder, 1, placement=0)[0]
    asker.ask(("know", second), timeout=PATIENCE)
    assert np.array_equal(asker.ask(("ask", body), timeout=PATIENCE), body)
    if type(fab) is Fabric:
        (came,) = until(lambda: second.ask(("show",), timeout=PATIENCE))
        assert np.array_equal(came, body)


def test_spawn_arguments_may_be_large(fab):
    given = np.full(BIG, 2, "u1")
    agents = fab.spawn_batch(Holder, 4, given=given)
    each = fab.spawn_batch(Holder, 2, each={"given": [given, given[:10]]})
    assert agents.ask_all(("say_given",), timeout=PATIENCE) == [(2 * BIG, True)] * 4
    assert [total for total, _ in each.ask_all(("say_given",), timeout=PATIENCE)] == [2 * BIG, 20]


@pytest.mark.parametrize("size", [100_000, 1_000_000], ids=["copied", "mapped apart"])
def test_what_one_agent_writes_is_seen_by_no_other_of_a_broadcast(fab, size):
    group = fab.spawn_batch(Holder, 6)
    sent = np.zeros(size, "u1")
    assert group.ask_all(("write", sent), timeout=PATIENCE) == [(1, 1)] * 6
    assert group.ask_all(("look",), timeout=PATIENCE) == [[(1, 1)]] * 6
    group[0].ask(("let_go",), timeout=PATIENCE)
    assert group[1:].ask_all(("look",), timeout=PATIENCE) == [[(1, 1)]] * 5
    assert not sent.any()
