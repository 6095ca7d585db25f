"""What may be in a message, on real workers and inline: objects, arrays, JSON; what is too large or cannot be sent."""

import contextlib
import sys
import threading

import numpy as np
import pytest

from fabric import Agent, AgentError, EncodingError, MessageTooLargeError, SpawnError
from tests.agents import Counter, Echo, Recorder
from tests.api_agents import (
    ArrayUser,
    HasError,
    HoldsLockError,
    JsonEcho,
    Made,
    MuteError,
    NeedsTwoError,
    Postponer,
    Raiser,
    Replier,
    Shouter,
    Stopper,
    UnloadableBody,
)
from tests.api_coroutines import Asker, Summoner
from tests.api_steps import one

PATIENCE = 30  # seconds until a test is taken to have failed
HUGE = 5_000_000  # bytes: more than a lane of the coordinator takes
LARGE = 200_000  # bytes: more than a lane between workers takes


@pytest.fixture(scope="module")
def plain(kind):
    """A fabric without arenas, in which all of a body goes through the lanes."""
    with kind(workers=2, arena_bytes=0, on_error=lambda letter: None) as fabric:
        yield fabric


@pytest.fixture(scope="module")
def json_fab(kind):
    """A fabric that speaks JSON and refuses pickles."""
    with kind(workers=2, encoding="json", allow_pickle=False, on_error=lambda letter: None) as fabric:
        yield fabric


# Objects.


@pytest.mark.parametrize(
    "body",
    [
        *(None, True, 0, -1, 2**70, 1.5, float("inf"), "", "ä€😀", b"", b"\0" * 70_000, bytearray(b"x"), ()),
        *([1, [2]], {1: {2}}, range(3), ..., int, ValueError, complex(1, 2)),
    ],
    ids=lambda body: type(body).__name__,
)
def test_a_body_arrives_as_it_was_sent(fab, body):
    returned = one(fab, Echo).ask(body)

    assert returned == body
    assert type(returned) is type(body)


def test_functions_and_classes_without_a_module_that_workers_have_go_by_value(fab, monkeypatch):
    class Local(Agent):
        def on_message(self, body):
            return [body(number) for number in range(3)]

    assert one(fab, Local).ask(lambda number: number + len(sys.argv[:0])) == [0, 1, 2]
    in_main = type("InMain", (Local,), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "InMain", in_main, raising=False)
    assert one(fab, in_main).ask(lambda number: -number) == [0, -1, -2]


def test_what_cannot_be_pickled_is_refused_before_it_is_sent(fab):
    echoes, lock = fab.spawn_batch(Echo, 3), threading.Lock()
    for send in (echoes[0].ask, echoes[0].tell, echoes[0].submit, echoes.ask_all, echoes.tell_all):
        with pytest.raises(EncodingError, match="lock cannot be pickled"):
            send(lock)
    for send in (echoes.ask_each, echoes.tell_each):
        with pytest.raises(EncodingError, match="body 2: lock cannot be pickled"):
            send([1, 2, lock])

    assert echoes.ask_all(1) == [1] * 3
    assert fab.statistics().outstanding == 0


def test_what_cannot_be_unpickled_in_the_worker_is_an_error_for_its_sender_alone(fab):
    raiser, recorder, before = one(fab, Raiser), one(fab, Recorder), len(fab.dead_letters())
    fab.tell_many([recorder] * 4, [1, UnloadableBody(), HasError(), 2])
    fab.drain(timeout=PATIENCE)
    with pytest.raises(EncodingError, match="a body cannot be decoded: ModuleNotFoundError: No module named 'phantom'"):
        raiser.ask(UnloadableBody())
    seen = recorder.ask("all")

    assert [seen[0], type(seen[1]), seen[2]] == [1, HasError, 2]
    assert [(letter.agent, type(letter.error)) for letter in fab.dead_letters()[before:]] == [
        (recorder.address, EncodingError)
    ]


def test_a_reference_of_another_fabric_cannot_be_sent(fab, kind):
    with kind(workers=1) as other:
        stranger = one(other, Echo)
        with pytest.raises(EncodingError, match="no part in its fabric"):
            one(fab, Recorder).ask(stranger)


# Replies.


def test_a_reply_that_cannot_be_sent_is_an_error_and_its_neighbours_arrive(fab):
    replier = one(fab, Replier)
    replies = fab.ask_many([replier] * 4, [list, threading.Lock, UnloadableBody, dict], return_exceptions=True)

    assert replies[::3] == [[], {}]
    assert [type(reply) for reply in replies[1:3]] == [EncodingError] * 2
    assert "the reply" in str(replies[1])
    assert "lock cannot be pickled" in str(replies[1])
    assert "No module named 'phantom'" in str(replies[2])
    for function, text in ((threading.Lock, "lock cannot be pickled"), (UnloadableBody, "'phantom'")):
        with pytest.raises(EncodingError, match=text):
            replier.ask(function, timeout=PATIENCE)
        with pytest.raises(EncodingError, match=text):
            replier.submit(function).result(timeout=PATIENCE)
        with pytest.raises(AgentError, match=text):
            one(fab, Asker).ask((replier, function), timeout=PATIENCE)


@pytest.mark.parametrize(
    ("raised", "text", "cause"),
    [
        (KeyError("gone"), "KeyError: 'gone'", KeyError),
        (NeedsTwoError, r"TypeError: .*missing 2 required positional arguments", TypeError),
        (lambda: NeedsTwoError("this", "that"), "NeedsTwoError: this and that", None),
        (HoldsLockError, "HoldsLockError: holds a lock", None),
        (MuteError, r"MuteError \(its text cannot be shown: RuntimeError\)", MuteError),
        (lambda: ValueError("no \udcff text"), r"ValueError: no (\\udcff|\udcff) text", ValueError),
        (lambda: ValueError("x" * 1_000_000), "ValueError: xxx", ValueError),
        (lambda: SystemExit(3), "SystemExit: 3", SystemExit),
        (StopIteration, "StopIteration", StopIteration),
    ],
    ids=["plain", "in its constructor", "needs two", "lock", "mute", "surrogate", "long", "exit", "stop"],
)
def test_an_exception_arrives_with_its_text_and_as_itself_where_it_can(fab, raised, text, cause):
    raiser = one(fab, Raiser)
    with pytest.raises(AgentError, match=text) as caught:
        raiser.ask(raised, timeout=PATIENCE)

    assert type(caught.value.__cause__) is (cause or type(None))
    assert caught.value.agent == f"agent {raiser.address & 0xFFFFFFFF}" or "generation" in caught.value.agent
    if "Mute" not in text:
        assert "in on_message" in caught.value.remote_traceback
        assert "Remote traceback:" in str(caught.value)
    with contextlib.suppress(AgentError):
        raiser.ask(raised)


# Arrays.


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(24).reshape(2, 3, 4)[:, ::2, ::-1],
        np.array(7.5, np.float16),
        np.zeros((2, 0, 3), ">i4"),
        np.array([(1, 2.5)], [("a", "i1"), ("b", "<f8", (2,))]),
        np.zeros(2, {"names": ["a", "b"], "formats": ["i4", "f8"], "offsets": [8, 0]}),
        np.array(["2026-11-21"], "M8[D]"),
        np.array(["ä", "bc"]),
        np.array([1, "a", None], object),
        np.zeros(3, "V0"),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}".replace(" ", ""),
)
def test_arrays_arrive_whole_and_are_the_receivers_own(fab, array):
    before, user = array.copy(), one(fab, ArrayUser)
    returned = user.ask(array, timeout=PATIENCE)

    assert np.array_equal(array, before)
    assert (returned.dtype, returned.shape) == (array.dtype, array.shape)
    assert np.array_equal(returned.reshape(-1)[1:], array.reshape(-1)[1:])
    assert returned.flags.writeable
    if array.dtype.itemsize and array.size:
        returned.reshape(-1)[:] = np.ones(1, array.dtype)[0] if array.dtype.names is None else before.reshape(-1)[0]


def test_an_array_may_be_changed_as_soon_as_it_is_sent(fab):
    recorder, array = one(fab, Recorder), np.arange(1_000)
    recorder.tell({"nested": array, "twice": array})
    array[:] = 0
    seen = recorder.ask("all")[0]

    assert np.array_equal(seen["nested"], np.arange(1_000))
    assert np.array_equal(seen["twice"], np.arange(1_000))


# Too large.


def test_a_body_over_the_limit_of_the_lane_is_refused(plain):
    echoes = plain.spawn_batch(Echo, 2)
    body = bytes(HUGE)
    one = echoes[0]
    for send in (one.ask, one.tell, one.submit, one.tell_nowait, echoes.ask_all, echoes.tell_all):
        with pytest.raises(MessageTooLargeError, match="of 5,000,000 bytes is over the limit of 4,194,256") as caught:
            send(body)
        assert (caught.value.size, caught.value.limit) == (HUGE, 4_194_256)
    with pytest.raises(MessageTooLargeError):
        echoes[0].ask(np.zeros(HUGE, np.uint8))
    with pytest.raises(MessageTooLargeError):
        echoes.ask_each([1, body])

    assert echoes.ask_all(1) == [1, 1]
    assert len(echoes[0].ask(bytes(4_194_256))) == 4_194_256
    assert plain.statistics().outstanding == 0


def test_a_reply_over_the_limit_of_the_lane_is_an_error_and_its_neighbours_arrive(plain):
    replier, postponer = one(plain, Replier), one(plain, Postponer)
    replies = plain.ask_many([replier] * 3, [lambda: 1, lambda: bytes(HUGE), lambda: 3], return_exceptions=True)
    assert [replies[0], type(replies[1]), replies[2]] == [1, MessageTooLargeError, 3]
    assert "a reply of 5,000,000 bytes" in str(replies[1])
    with pytest.raises(MessageTooLargeError):
        replier.ask(lambda: bytes(HUGE), timeout=PATIENCE)
    future = postponer.submit(("ask", 0))
    postponer.tell(("build", HUGE))
    with pytest.raises(MessageTooLargeError):
        future.result(timeout=PATIENCE)
    assert replier.ask(list) == []


def test_a_message_or_reply_over_the_limit_between_workers_is_an_error(plain):
    replier, asker = plain.spawn_batch(Replier, 1, placement=0)[0], plain.spawn_batch(Asker, 1, placement=1)[0]
    with pytest.raises(AgentError, match="MessageTooLargeError: a reply of 200,000 bytes is over the limit of 131,024"):
        asker.ask((replier, lambda: bytes(LARGE)), timeout=PATIENCE)
    with pytest.raises(AgentError, match="MessageTooLargeError: a message of 200,000 bytes is over the limit"):
        asker.ask((replier, bytes(LARGE)), timeout=PATIENCE)
    shouter, recorder, before = one(plain, Shouter), one(plain, Recorder), len(plain.dead_letters())
    shouter.tell(("once", recorder, bytes(LARGE)[:130_000]))
    plain.drain(timeout=PATIENCE)

    assert len(recorder.ask("all")[0]) == 130_000
    assert len(plain.dead_letters()) == before
    assert asker.ask((replier, list), timeout=PATIENCE) == []


# JSON.


def test_a_class_may_choose_json(fab):
    echoes = fab.spawn_batch(JsonEcho, 2)
    assert echoes[0].ask((1, 2)) == [1, 2], "tuples arrive as lists: it went as JSON, both ways"
    assert echoes.ask_each([{"a": (1,)}, "x"]) == [{"a": [1]}, "x"]
    assert fab.ask_many(list(echoes), [(1,), b"raw"]) == [[1], b"raw"]
    assert one(fab, Asker).ask((echoes[0], (1, 2)), timeout=PATIENCE) == [1, 2]
    with pytest.raises(EncodingError, match="cannot be said in JSON"):
        echoes[0].ask({1, 2})
    with pytest.raises(EncodingError, match=r"the reply .*cannot be said in JSON"):
        echoes[0].ask("set")
    replies = fab.ask_many(list(echoes), ["set", "x"], return_exceptions=True)
    assert [type(replies[0]), replies[1]] == [EncodingError, "x"]


def test_references_of_several_minds_can_be_asked_together(fab):
    refs = [one(fab, JsonEcho), one(fab, Echo)]

    assert fab.ask_many(refs, [(1, 2), (1, 2)]) in ([(1, 2), (1, 2)], [[1, 2], (1, 2)])


def test_a_fabric_without_pickles_takes_what_json_says_bytes_and_arrays(json_fab):
    echo = one(json_fab, Echo)
    assert echo.ask({"a": (1, 2.5, None, "x")}) == {"a": [1, 2.5, None, "x"]}
    assert echo.ask(b"raw") == b"raw"
    assert np.array_equal(echo.ask(np.arange(3)), np.arange(3))
    for body in ({1}, echo, ValueError(), np.array([None])):
        with pytest.raises(EncodingError):
            echo.ask(body)
    with pytest.raises(EncodingError, match="the reply"):
        one(json_fab, JsonEcho).ask("set", timeout=PATIENCE)


def test_a_fabric_without_pickles_says_what_went_wrong_in_words(json_fab):
    counters, before = json_fab.spawn_batch(Counter, 2), len(json_fab.dead_letters())
    with pytest.raises(AgentError, match="TypeError: unsupported operand") as caught:
        counters[0].ask("not a number")
    assert caught.value.__cause__ is None
    counters[0].tell("not a number")
    json_fab.drain(timeout=PATIENCE)
    assert "unsupported operand" in str(json_fab.dead_letters()[before].error)
    with pytest.raises(SpawnError, match=r"agent 1: AgentError: agent [0-9]+ .*raised ValueError: cannot be made"):
        json_fab.spawn_batch(Made, 2, each={"fail": [False, True]})
    assert counters.ask_all(1) == [1, 1]


def test_in_a_fabric_without_pickles_agents_stop_others_but_spawn_none(json_fab):
    class LastWords(Stopper):
        def __init__(self, heir):
            self.heir = heir

        def on_stop(self):
            self.context.tell(self.heir, ["answer", "gone"])

    postponer, before = one(json_fab, Postponer), len(json_fab.dead_letters())
    future = postponer.submit(["ask", 0])
    one(json_fab, LastWords, heir=postponer).tell("self")
    assert future.result(timeout=PATIENCE) == "gone"
    one(json_fab, Summoner).tell([None, 1, {}])
    json_fab.drain(timeout=PATIENCE)

    assert "needs a pickle" in str(json_fab.dead_letters()[before].error)
