"""Errors on their way: told with texts and causes, ours as themselves, and none that breaks who reads it."""

import pickle

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fabric import (
    AgentError,
    AgentNotFoundError,
    EncodingError,
    FabricError,
    MessageTooLargeError,
    PoisonMessageError,
    WorkerLostError,
)
from fabric.codec import Codec
from fabric.messages import ERROR, ErrorInfo
from fabric.remote_errors import describe, refusal, revive

FAST = settings(max_examples=100, deadline=None, derandomize=True, database=None)
CODEC, JSON_CODEC = Codec(), Codec("json", allow_pickle=False)


def _round_trip(body, codec=CODEC):
    return codec.decode(*codec.encode(body))


def _raised(error):
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("codec", [CODEC, JSON_CODEC], ids=["pickle", "json"])
def test_an_exception_travels_with_its_text_and_itself_if_allowed(codec):
    info = describe(_raised(KeyError("gone")), agent=1 << 32 | 5, frames_to_skip=0)
    returned = _round_trip(info, codec)
    error = revive(returned, codec.allow_pickle)

    assert returned == info
    assert str(error).startswith("agent 5 raised KeyError: 'gone'\n\nRemote traceback:\n")
    assert error.agent == "agent 5"
    assert "in _raised" in error.remote_traceback
    assert type(error.__cause__) is (KeyError if codec.allow_pickle else type(None))


class _OnlyHere(Exception):  # noqa: N818
    """Pickles, but cannot be rebuilt where `allowed` is false."""

    allowed = True

    def __reduce__(self):
        return _rebuild, ()


def _rebuild():
    if not _OnlyHere.allowed:
        raise ImportError("not here")
    return _OnlyHere()


def test_an_exception_that_cannot_be_rebuilt_is_its_text_with_a_note(monkeypatch):
    info = describe(_raised(_OnlyHere("text")))
    monkeypatch.setattr(_OnlyHere, "allowed", False)
    error = revive(info)

    assert error.__cause__ is None
    assert "raised _OnlyHere: text" in str(error)
    assert "the original exception cannot be rebuilt here: ImportError: not here" in error.__notes__[0]


def test_a_long_text_keeps_its_beginning_and_its_end():
    info = describe(_raised(ValueError("a" * 50_000 + "z" * 50_000)))

    assert len(info.message) < 17_000
    assert info.message.startswith("ValueError: aaa")
    assert info.message.endswith("zzz")
    assert "characters left out" in info.message
    assert "in _raised" in info.traceback


@FAST
@given(st.text(st.characters(), max_size=30))
@example("\udcff\n\0")
def test_any_text_travels_in_an_error(text):
    info = _round_trip(describe(_raised(ValueError(text))))
    again = _round_trip(refusal(EncodingError(text)))

    shown = text.encode("utf-8", "backslashreplace").decode()
    assert info.message == f"ValueError: {shown}"
    assert str(revive(again)) == shown


@pytest.mark.parametrize(
    "error",
    [
        AgentNotFoundError("agent 5 has stopped"),
        EncodingError("it cannot be said"),
        MessageTooLargeError(10, 5, "reply"),
        PoisonMessageError("a message", 3),
        WorkerLostError(1, 77, -9, "a message"),
        WorkerLostError(1, 77, None),
    ],
    ids=lambda error: type(error).__name__,
)
def test_our_own_errors_travel_as_themselves_without_a_pickle(error):
    returned = revive(_round_trip(refusal(error), JSON_CODEC), allow_pickle=False)

    assert type(returned) is type(error)
    assert str(returned) == str(error)
    assert vars(returned) == vars(error)


class Unpicklable:
    """Refuses to be pickled, or to be made again, in words of its own."""

    def __init__(self, at_the_other_end=False):
        self.at_the_other_end = at_the_other_end

    def __reduce__(self):
        if self.at_the_other_end:
            return int, ("no number",)
        raise pickle.PicklingError("not me")


def test_why_a_reply_cannot_be_sent_arrives_as_the_cause():
    (info,) = CODEC.decode_many(ERROR, [CODEC.encode_replies([Unpicklable()]).blob])
    error = revive(info)

    assert isinstance(error, EncodingError)
    assert (type(error.__cause__), str(error.__cause__)) == (pickle.PicklingError, "not me")
    assert revive(info, allow_pickle=False).__cause__ is None


def test_why_a_body_cannot_be_decoded_arrives_as_the_cause():
    body = CODEC.decode_or_mark(*CODEC.encode(Unpicklable(at_the_other_end=True)))
    error = revive(_round_trip(refusal(body.error)))

    assert (type(error), type(error.__cause__)) == (EncodingError, ValueError)
    assert "no number" in str(error.__cause__)


class MadeOnceError(Exception):
    """Wants more than its args."""

    def __init__(self, one, two):
        super().__init__(one)


@pytest.mark.parametrize("cause", [MadeOnceError("a", "b"), ValueError("x" * 100_000)], ids=["unpicklable", "large"])
def test_a_cause_that_cannot_travel_stays_behind(cause):
    error = EncodingError("it cannot be said")
    error.__cause__ = cause
    returned = revive(_round_trip(refusal(error)))

    assert (str(returned), returned.__cause__) == ("it cannot be said", None)


@pytest.mark.parametrize("line", [b"[1,2,3,4]\n", b'["a","b","c"]\n', b"{}\n", b"", b'["a","b","c","d"]\n'])
def test_an_error_of_the_wrong_shape_is_refused(line):
    with pytest.raises(EncodingError):
        CODEC.decode(ERROR, line)


@pytest.mark.parametrize("what", ["not_found", "encoding", "too_large", "poison", "lost"])
@pytest.mark.parametrize("message", ["", "no json", "[[]]", '["a", "b", "c", "d", "e"]', "7", '[null, {}, "x"]'])
def test_an_error_of_ours_with_arguments_it_cannot_have_is_an_error_all_the_same(what, message):
    error = revive(ErrorInfo(what, message, "", 7, None))

    assert isinstance(error, FabricError)
    assert str(error)


def test_an_agent_error_is_what_is_left_of_an_unknown_kind():
    error = revive(ErrorInfo("of the future", "SomeError: text", "", 7, None))

    assert type(error) is AgentError
    assert isinstance(error, FabricError)
