"""The entry of an ask_records: chunks are added while replies come, and each reply is taken once."""

import numpy as np
import pytest

from fabric import EncodingError, WorkerLostError
from fabric.chunk import Chunk
from fabric.pending import Single
from fabric.record_post import RecordReplies
from fabric.records import Part, RowType, pack_rows
from fabric.remote_errors import refusal

ROWS = RowType("i8", "reply_dtype")
LOST = WorkerLostError(2, 123, 9, "a message")


def _entry(*parts, count=10):
    entry = RecordReplies(count, ROWS)
    entry.replies[:] = -1
    for slot, part in enumerate(parts, 1):
        entry.add(part, slot)
    return entry


def _reply(index, *values):
    return Single((7 << 20) + index, Chunk(pack_rows(ROWS, np.array(values, "i8"))))


def _half(start):
    return Part(0, slice(start, start + 5), None)


def test_it_is_done_when_all_replies_came_and_all_chunks_were_added():
    entry = _entry(_half(0))
    entry.accept(_reply(0, 1, 2, 3, 4, 5))
    assert not entry.done
    entry.add(Part(1, slice(5, 10), np.array([4, 0])), 2)
    entry.seal()
    assert not entry.done
    entry.accept(_reply(1, 6, 7))

    assert entry.done
    assert entry.error(True) is None
    assert entry.replies.tolist() == [1, 2, 3, 4, 5, 7, -1, -1, -1, 6]


def test_nothing_asked_is_done_at_once():
    entry = _entry(count=0)
    entry.seal()
    assert entry.done


def test_a_reply_that_comes_again_is_dropped():
    entry = _entry(_half(0), _half(5))
    entry.seal()
    entry.accept(_reply(0, 1, 2, 3, 4, 5))
    entry.accept(_reply(0, 9, 9, 9, 9, 9))
    assert not entry.done
    entry.fail(1, LOST)
    entry.accept(_reply(1, 6, 7, 8, 9, 10))

    assert entry.done
    assert entry.error(True) is None
    assert entry.replies.tolist() == list(range(1, 11))


def test_what_a_lost_worker_owes_fails_and_comes_no_more():
    entry = _entry(_half(0), _half(5))
    entry.seal()
    entry.fail(2, LOST)
    entry.accept(_reply(1, 6, 7, 8, 9, 10))
    assert not entry.done
    entry.accept(_reply(0, 1, 2, 3, 4, 5))

    assert entry.done
    assert entry.error(True) is LOST
    assert entry.replies.tolist() == [1, 2, 3, 4, 5, -1, -1, -1, -1, -1]


def test_the_error_of_the_first_chunk_is_the_one_that_is_raised():
    entry = _entry(_half(0), _half(5))
    entry.seal()
    entry.accept(Single(1, refusal(EncodingError("the second"))))
    entry.accept(Single(0, refusal(EncodingError("the first"))))

    assert str(entry.error(True)) == "the first"


@pytest.mark.parametrize("body", [b"rows", None, np.zeros(5, "f4"), np.zeros(4, "i8"), np.zeros((5, 1), "i8")])
def test_a_reply_of_anything_else_is_an_error(body):
    entry = _entry(_half(0))
    entry.seal()
    entry.accept(Single(0, body))

    assert entry.done
    assert isinstance(entry.error(True), EncodingError)


def test_a_reply_to_no_question_is_refused_as_a_whole():
    entry = _entry(_half(0))
    with pytest.raises(IndexError):
        entry.accept(_reply(1, 1, 2, 3, 4, 5))
    entry.seal()
    assert not entry.done
