import copy
import pickle
import signal
from concurrent.futures.process import BrokenProcessPool

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric import errors
from fabric.errors import (
    AgentError,
    FabricError,
    MessageTooLargeError,
    PoisonMessageError,
    SpawnError,
    WorkerLostError,
)

EXAMPLES = [
    errors.ClosedError("the fabric is closed"),
    errors.BackpressureError("the lane to worker 1 is full"),
    MessageTooLargeError(2_000_000, 1_000_000),
    errors.EncodingError("a lock cannot be pickled"),
    AgentError("ValueError: no", "Traceback ...\nValueError: no\n", "clerk-1"),
    errors.AgentNotFoundError("no agent is named clerk-7"),
    WorkerLostError(3, 4242, -signal.SIGKILL, "message 17 to clerk-1"),
    PoisonMessageError("message 17 to clerk-1", 3),
    SpawnError("2 of 10 agents were not made", {4: ValueError("bad start"), 7: "its worker died"}),
    errors.LayoutError("the segment has layout 2, this library reads 3"),
]


def attributes(error: BaseException) -> dict[str, object]:
    return {name: repr(value) for name, value in vars(error).items()}


class BrokenWorkerLostError(WorkerLostError, BrokenProcessPool):
    """What an executor raises: ours and the standard library's at once."""


def test_every_error_of_the_module_is_a_fabric_error_and_is_tried_here():
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}

    assert all(issubclass(kind, FabricError) for kind in kinds)
    assert kinds - {FabricError} == {type(error) for error in EXAMPLES}


def test_the_tree_in_the_docstring_names_every_error():
    assert errors.__doc__ is not None
    for error in EXAMPLES:
        assert f"── {type(error).__name__} " in errors.__doc__


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling_with_its_text_and_attributes(error, protocol):
    same = pickle.loads(pickle.dumps(error, protocol))

    assert type(same) is type(error)
    assert str(same) == str(error)
    assert same.args == error.args
    assert attributes(same) == attributes(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_can_be_copied_and_keeps_its_notes(error):
    noted = copy.copy(error)
    noted.add_note("while it was tested")

    assert pickle.loads(pickle.dumps(noted)).__notes__ == ["while it was tested"]
    assert str(noted) == str(error)


def test_an_error_that_is_also_broken_process_pool_survives_pickling():
    error = BrokenWorkerLostError(1, 99, 3)
    same = pickle.loads(pickle.dumps(error))

    assert isinstance(same, BrokenProcessPool)
    assert (same.worker, same.pid, same.exitcode, str(same)) == (1, 99, 3, str(error))


def test_a_timeout_or_a_wrong_argument_is_not_a_fabric_error():
    assert not issubclass(TimeoutError, FabricError)
    assert not issubclass(FabricError, ValueError | TypeError)


def test_a_message_too_large_names_its_size_and_the_limit():
    error = MessageTooLargeError(2_000_000, 1_000_000, "reply")

    assert "a reply of 2,000,000 bytes is over the limit of 1,000,000 bytes" in str(error)
    assert (error.size, error.limit) == (2_000_000, 1_000_000)


def test_an_agent_error_shows_the_remote_traceback_under_its_message():
    error = AgentError("ValueError: no", 'File "clerk.py", line 3\nValueError: no\n', "clerk-1")

    assert str(error) == 'ValueError: no\n\nRemote traceback:\nFile "clerk.py", line 3\nValueError: no'
    assert error.agent == "clerk-1"


def test_an_agent_error_without_a_traceback_shows_only_its_message():
    assert str(AgentError("ValueError: no")) == "ValueError: no"


def test_a_lost_worker_is_named_with_its_signal_its_message_and_a_hint():
    error = WorkerLostError(3, 4242, -signal.SIGKILL, "message 17 to clerk-1")

    assert str(error).startswith("worker 3 (pid 4242) was killed by SIGKILL while it handled message 17 to clerk-1")
    assert "memory" in str(error)
    assert error.signal_name == "SIGKILL"


@pytest.mark.parametrize(
    ("exitcode", "signal_name", "text"),
    [
        (0, "", "worker 1 (pid 2) exited with code 0"),
        (3, "", "worker 1 (pid 2) exited with code 3"),
        (None, "", "worker 1 (pid 2) died (exit status not known)"),
        (-signal.SIGABRT, "SIGABRT", "worker 1 (pid 2) was killed by SIGABRT"),
        (-(signal.SIGRTMIN + 3), f"signal {signal.SIGRTMIN + 3}", None),
        (-4000, "signal 4000", "worker 1 (pid 2) was killed by signal 4000"),
    ],
)
def test_a_lost_worker_says_how_it_ended(exitcode, signal_name, text):
    error = WorkerLostError(1, 2, exitcode)

    assert error.signal_name == signal_name
    assert error.exitcode == exitcode
    assert text is None or str(error) == text


def test_a_poison_message_says_how_often_it_was_tried():
    error = PoisonMessageError("message 17 to clerk-1", 3)

    assert "message 17 to clerk-1 killed its worker 3 times" in str(error)
    assert (error.message, error.attempts) == ("message 17 to clerk-1", 3)


def test_a_spawn_error_names_the_first_three_failures_in_order_of_index():
    failures = {
        9: "its worker died",
        2: ValueError("bad start\nsecond line"),
        5: KeyError(),
        30: "x",
        31: "y",
    }
    error = SpawnError("5 of 40 agents were not made", failures)

    assert str(error) == (
        "5 of 40 agents were not made: agent 2: ValueError: bad start; agent 5: KeyError; "
        "agent 9: its worker died; and 2 more"
    )
    assert error.failures == failures


def test_a_spawn_error_for_a_whole_batch_has_only_its_message():
    error = SpawnError("asked for 10, room for 5")

    assert str(error) == "asked for 10, room for 5"
    assert error.failures == {}


def test_a_spawn_error_keeps_its_own_copy_of_the_failures():
    failures = {0: "no"}
    error = SpawnError("1 of 1 agents was not made", failures)
    failures.clear()

    assert error.failures == {0: "no"}


@given(st.dictionaries(st.integers(0, 10**6), st.text(max_size=20), max_size=8))
def test_a_spawn_error_counts_every_failure_it_does_not_name(failures):
    text = str(SpawnError("failed", failures))

    assert text.endswith(f"; and {len(failures) - 3} more") == (len(failures) > 3)
