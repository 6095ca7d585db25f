"""Loans and shared arrays: no copy is made on the way, which the number of blocks shows, and none is kept."""

import gc
import pickle

import numpy as np
import pytest

from fabric import BackpressureError, ClosedError, EncodingError, Fabric, MessageTooLargeError, Shared
from fabric.testing import InlineFabric
from tests.arenas import PATIENCE, all_came_back, holders_of, lent
from tests.payload_agents import Holder, pattern
from tests.waiting import until

ARENA = 16 << 20
SIZE = 1 << 20


@pytest.fixture(scope="module", params=[Fabric, InlineFabric], ids=lambda kind: kind.__name__)
def fab(request):
    settings = {"arena_bytes": ARENA, "arena_timeout": 0.2}
    with request.param(workers=2, on_error=lambda letter: None, **settings) as fabric:
        yield fabric


@pytest.fixture
def holders(fab):
    made = holders_of(fab)
    yield made
    for holder in made:
        holder.ask(("let_go",), timeout=PATIENCE)
    assert all_came_back(fab, *made)


def _blocks(fab, count):
    """Are so many blocks of the arena in use? Inline receivers have copies, so that is not to be said."""
    return type(fab) is not Fabric or lent(fab)[1] == count


def test_a_loan_is_filled_sent_and_kept_without_another_block(fab, holders):
    with fab.loan(SIZE, "u1") as array:
        array[:] = pattern(1, SIZE)
        for holder in holders:
            holder.ask(("keep", array), timeout=PATIENCE)
            holder.ask(("keep", {"half": array[: SIZE // 2]}["half"]), timeout=PATIENCE)
        assert _blocks(fab, 1)
    del array
    gc.collect()
    assert _blocks(fab, 1)
    for holder in holders:
        whole, half = holder.ask(("show",), timeout=PATIENCE)
        assert np.array_equal(whole, pattern(1, SIZE))
        assert np.array_equal(half, pattern(1, SIZE)[: SIZE // 2])
        assert whole.flags.writeable


def test_a_loan_is_read_only_behind_its_with_and_can_be_sent_still(fab, holders):
    with fab.loan((4, SIZE // 4), "u1") as array:
        array[:] = 5
        alias = array
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    assert holders[0].ask(("sum", alias), timeout=PATIENCE) == [5 * SIZE]
    came = holders[1].ask(array, timeout=PATIENCE)
    assert (came == 5).all()
    assert not came.flags.writeable
    copy = array.copy()
    copy[:] = 6
    assert (array == 5).all()
    del array, alias, came


def test_a_loan_that_is_written_to_after_sending_may_show_that_and_nothing_worse(fab, holders):
    with fab.loan(SIZE, "u1") as array:
        array[:] = 1
        holders[0].ask(("keep", array), timeout=PATIENCE)
        array[:] = 2
        assert holders[0].ask(("look",), timeout=PATIENCE) in [[(1, 1)], [(1, 2)], [(2, 2)]]
        assert holders[1].ask(("sum", array), timeout=PATIENCE) == [2 * SIZE]
    del array


def test_what_receivers_write_to_a_loan_is_not_seen_by_its_owner(fab, holders):
    with fab.loan(SIZE, "u1") as array:
        array[:] = 0
        for value, holder in enumerate(holders, start=1):
            assert holder.ask(("write", array, value), timeout=PATIENCE) == (value, value)
            assert holder.ask(("write", array, value), timeout=PATIENCE) == (value, value)
        assert not array.any()
    del array


def test_a_loan_that_is_never_sent_goes_back(fab, holders):
    with fab.loan(SIZE, "u1"):
        assert _blocks(fab, 1)
    gc.collect()
    assert _blocks(fab, 0)


def test_an_exception_inside_the_with_goes_through_and_gives_the_loan_back(fab, holders):
    loan = fab.loan(SIZE, "u1")
    with pytest.raises(ZeroDivisionError), loan as array:
        array[0] = holders[0].ask(("sum", array), timeout=PATIENCE)[0] // 0
    assert not array.flags.writeable
    del array, loan
    gc.collect()
    assert _blocks(fab, 0)


@pytest.mark.parametrize("shape", [(), 0, (0, 5), (3, 4), (300, 200), 70_001])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [">f8", "c16", [("a", "i4"), ("b", "S3")], "M8[ns]", "?"], ids=str)
def test_loans_have_the_shape_order_and_dtype_asked_for(fab, holders, shape, order, dtype):
    with fab.loan(shape, dtype, order) as array:
        assert array.shape == ((shape,) if isinstance(shape, int) else shape)
        assert array.dtype == np.dtype(dtype)
        assert array.flags.f_contiguous if order == "F" else array.flags.c_contiguous
        array[...] = np.zeros(array.shape, dtype)
        came = holders[0].ask(array, timeout=PATIENCE)
    assert came.dtype == array.dtype
    assert came.tobytes() == array.tobytes()
    assert came.flags.f_contiguous == array.flags.f_contiguous
    del came, array


def test_loans_that_cannot_be_are_refused(fab):
    for shape, dtype, order, error in (
        (4, object, "C", TypeError),
        (4, [("a", object)], "C", TypeError),
        (4, "u1", "K", ValueError),
        ((4, -1), "u1", "C", ValueError),
        (4, "nonsense", "C", TypeError),
    ):
        with pytest.raises(error), fab.loan(shape, dtype, order):
            pass
    with pytest.raises(TypeError):
        fab.share(np.array([object()]))


@pytest.mark.parametrize("kind", [Fabric, InlineFabric])
def test_a_loan_for_which_there_is_no_room_is_refused_in_words(kind):
    with kind(workers=1, arena_bytes=ARENA, arena_timeout=0.05) as fab:
        with pytest.raises(MessageTooLargeError), fab.loan(ARENA + 1, "u1"):
            pass
        with fab.loan(ARENA, "u1") as full:
            with pytest.raises(BackpressureError, match="4,096 bytes was asked for"), fab.loan(4096, "u1"):
                pass
            with pytest.raises(BackpressureError, match="1,000 bytes was asked for"):
                fab.share(np.zeros(1_000, "u1"))
        del full


@pytest.mark.parametrize("kind", [Fabric, InlineFabric])
def test_a_loan_outlives_its_with_and_its_fabric(kind):
    with kind(workers=1) as fab:
        with fab.loan(SIZE, "u1") as array:
            array[:] = 3
        holder = fab.spawn_batch(Holder, 1)[0]
        came = holder.ask(array, timeout=PATIENCE)
        handle = fab.share(array)
    assert (array == 3).all()
    assert (came == 3).all()
    assert (handle.value == 3).all()
    for use, what in ((fab.loan, 1), (fab.share, array), (holder.ask, array)):
        with pytest.raises(ClosedError):
            use(what)
    del array, came, handle, what


def test_an_agent_lends_in_place_too(fab):
    holders = holders_of(fab, count=3)
    assert holders[0].ask(("lend", 7, SIZE), timeout=PATIENCE) == 1
    for holder in holders[1:]:
        (came,) = until(lambda holder=holder: holder.ask(("show",), timeout=PATIENCE))
        assert np.array_equal(came, pattern(7, SIZE))
        holder.ask(("let_go",), timeout=PATIENCE)
    assert np.array_equal(holders[0].ask(("make_loan", 8, SIZE), timeout=PATIENCE), pattern(8, SIZE))
    del came
    assert all_came_back(fab, *holders)


# share()


def test_a_shared_array_is_seen_by_all_where_it_lies(fab, holders):
    with fab.share(pattern(2, SIZE)) as handle:
        for holder in holders:
            came = holder.ask(handle, timeout=PATIENCE)
            assert type(came) is Shared
            assert np.array_equal(came.value, pattern(2, SIZE))
            assert np.array_equal(np.asarray(came), pattern(2, SIZE))
            assert not came.value.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                came.value[0] = 1
            holder.ask(("keep", handle), timeout=PATIENCE)
        assert _blocks(fab, 1), "ours; those of the replies are the workers'"
        assert "1048576" in repr(handle)
        del came
    with pytest.raises(EncodingError, match="closed"):
        holders[0].ask(handle, timeout=PATIENCE)
    assert _blocks(fab, 1), "who has received it keeps it"


def test_a_shared_dict_is_one_handle(fab, holders):
    parts = {
        "large": pattern(3, SIZE),
        "f": np.asfortranarray(np.ones((200, 300))),
        "none": np.empty((0, 3)),
        "0-d": 4.5,
    }
    handle = fab.share(parts)
    came = holders[0].ask([handle], timeout=PATIENCE)[0]
    assert list(came.value) == list(parts)
    for name, part in parts.items():
        assert np.array_equal(came[name], part)
        assert not came[name].flags.writeable
    assert came["f"].flags.f_contiguous
    assert "large" in repr(came)
    del came, handle
    gc.collect()
    assert _blocks(fab, 0) or until(lambda: lent(fab) == (0, 0))


def test_a_shared_array_is_a_copy_of_what_was_shared(fab):
    source = pattern(4, SIZE)
    with fab.share(source[::2]) as handle:
        source[:] = 0
        assert np.array_equal(handle.value, pattern(4, SIZE)[::2])


def test_a_handle_may_be_an_argument_of_agents(fab):
    handle = fab.share(np.ones(SIZE, "u1"))
    agents = fab.spawn_batch(Holder, 10, given=handle)
    assert agents.ask_all(("say_given",), timeout=PATIENCE) == [(SIZE, False)] * 10
    del handle
    assert agents.ask_all(("say_given",), timeout=PATIENCE) == [(SIZE, False)] * 10
    agents.stop()
    gc.collect()
    if type(fab) is Fabric:
        assert until(lambda: lent(fab) == (0, 0))


def test_a_handle_that_arrived_can_be_sent_on(fab, holders):
    with fab.share(pattern(5, SIZE)) as handle:
        there = holders[0].ask(handle, timeout=PATIENCE)
        again = holders[1].ask(there, timeout=PATIENCE)
    assert np.array_equal(again.value, pattern(5, SIZE))
    del there, again


def test_a_handle_is_a_few_bytes_where_the_arena_is_known(fab):
    with fab.share(np.zeros(SIZE)) as handle:
        buffers = []
        assert len(pickle.dumps(handle, 5, buffer_callback=buffers.append)) < 500
        assert np.array_equal(pickle.loads(pickle.dumps(handle, 4)).value, handle.value)
        for buffer in buffers:
            buffer.release()
