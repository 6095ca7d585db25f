"""Log records as frames and back, from those who are well and from those who are not; no process."""

import json
import logging
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.config import FabricConfig
from fabric.log_frames import Assembler, cut, decode_record, encode_loss, encode_record
from fabric.log_pipe import WorkerOutput
from fabric.workers.logs import ForwardHandler

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def _record(text="hello", *args, **extra):
    record = logging.LogRecord("a.b", logging.INFO, "/x/y.py", 7, text, args, None, "f")
    vars(record).update(extra)
    return record


def _frame(**changes):
    content = json.loads(encode_record(_record()))
    content["record"].update(changes)
    return json.dumps(content).encode()


@given(st.text(), PLAIN)
def test_a_record_comes_back_as_it_was(text, value):
    record, lost = decode_record(encode_record(_record("%s", text, job=value), 3), 5)

    assert (record.getMessage(), record.job, record.worker, lost) == (text, value, 5, 3)
    assert (record.filename, record.module, record.lineno, record.funcName) == ("y.py", "y", 7, "f")
    assert record.msecs in range(1000)


@given(st.binary(max_size=200) | PLAIN.map(lambda value: json.dumps(value).encode()))
def test_whatever_arrives_is_a_record_or_a_ValueError(frame):
    try:
        record, _ = decode_record(frame, 1)
    except ValueError:
        return
    assert record is None


@given(st.sampled_from(["name", "levelno", "msg", "created", "lineno", "exc_text", "pathname", "process"]), PLAIN)
def test_a_field_of_any_value_makes_a_record_that_every_handler_can_format_or_a_ValueError(field, value):
    try:
        record, _ = decode_record(_frame(**{field: value}), 1)
    except ValueError:
        return
    form = "%(asctime)s %(msecs)d %(relativeCreated)d %(name)s %(levelno)d %(lineno)d %(process)s %(message)s"
    assert logging.Formatter(form).format(record)


@pytest.mark.parametrize("field", ["levelno", "created"])
@pytest.mark.parametrize("value", [-1, 1e300, 10**30, float("nan"), float("inf"), True])
def test_levels_and_times_that_cannot_be_are_refused(field, value):
    with pytest.raises(ValueError, match=r"no such|is of type"):
        decode_record(_frame(**{field: value}), 1)


@pytest.mark.parametrize("name", ["getMessage", "args", "msg", "worker", "processName", "__class__", "exc_info", "a b"])
def test_an_extra_attribute_does_not_take_the_place_of_one_that_a_record_has(name):
    content = json.loads(encode_record(_record()))
    content["extra"] = {name: "mine", "fine": 1}
    record, _ = decode_record(json.dumps(content).encode(), 2)

    assert (record.getMessage(), record.args, record.worker, record.fine) == ("hello", (), 2, 1)
    assert getattr(record, name, None) != "mine"


def test_what_is_too_long_is_cut_and_says_so():
    record, _ = decode_record(encode_record(_record("x" * 300_000, blob="y" * 300_000)), 1)

    assert record.getMessage().endswith("x... (37,856 more characters)")
    assert not hasattr(record, "blob")


@given(st.binary(min_size=1, max_size=100_000))
def test_pieces_make_the_frame_again(frame):
    assembler = Assembler()
    *incomplete, whole = [assembler.add(piece) for piece in cut(frame)]
    assert (set(incomplete) <= {None}, whole) == (True, frame)


def test_a_frame_that_its_sender_gave_up_does_not_harm_the_next():
    assembler = Assembler()
    first, *_ = cut(b"x" * 100_000)

    assert assembler.add(first) is None
    assert [assembler.add(piece) for piece in cut(b"whole")] == [b"whole"]


def test_a_frame_without_a_beginning_or_without_an_end_is_refused():
    first, middle, *_ = cut(b"x" * 100_000)
    assembler = Assembler()
    with pytest.raises(ValueError, match="no piece"):
        assembler.add(middle)
    assembler.add(first)
    for _ in range(126):  # 4 MiB
        assembler.add(middle)
    with pytest.raises(ValueError, match="too long"):
        assembler.add(middle)


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def _read(link):
    assembler, found = Assembler(), []
    while True:
        try:
            piece = link.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return found
        frame = assembler.add(piece)
        if frame is not None:
            found.append(decode_record(frame, 1))


def test_a_coordinator_that_does_not_read_costs_records_which_are_counted_and_not_time_without_end(ends):
    ours, theirs = ends
    handler = ForwardHandler(theirs, patience=0.01)
    for number in range(2_000):  # were each waited for, that would be 20 s and more
        handler.emit(_record("%s", f"{number} " + "x" * 1_000))
    got = _read(ours)
    handler.emit(_record("read again"))
    [(record, lost)] = _read(ours)

    assert 0 < len(got) < 2_000
    assert [found.getMessage().split()[0] for found, _ in got] == [str(number) for number in range(len(got))]
    assert (record.getMessage(), lost) == ("read again", 2_000 - len(got))


def test_a_long_record_that_finds_no_room_half_way_is_lost_as_a_whole(ends):
    ours, theirs = ends
    handler = ForwardHandler(theirs, patience=0.01)
    while not handler._lost:
        handler.emit(_record("x" * 100_000))
    _read(ours)
    handler.emit(_record("whole"))
    [(record, lost)] = _read(ours)

    assert (record.getMessage(), lost) == ("whole", 1)


def test_flush_says_what_was_lost_where_no_record_follows(ends):
    ours, theirs = ends
    handler = ForwardHandler(theirs, patience=0.01)
    while not handler._lost:
        handler.emit(_record("x" * 10_000))
    _read(ours)
    handler.flush()
    handler.flush()

    assert _read(ours) == [(None, 1)]


def test_a_coordinator_that_is_gone_is_no_error(ends):
    ours, theirs = ends
    ours.close()
    handler = ForwardHandler(theirs)
    handler.emit(_record())
    handler.flush()
    assert handler._lost == 0


@pytest.fixture
def output():
    found = WorkerOutput(FabricConfig(), lambda slot: 4711)
    yield found
    found.close()


def test_what_was_lost_is_counted_and_said(output, caplog):
    with output.opened(3) as [descriptor], socket.socket(fileno=descriptor) as link:
        link.send(next(cut(encode_loss(1_200))))
        for read in output.watched().values():
            read()
        link.detach()

    assert output.dropped == 1_200
    assert caplog.messages == ["worker 3 dropped 1,200 log records: they were not read in time"]
    assert caplog.records[0].worker == 3


def test_loggers_that_only_a_worker_names_are_made_in_bounds(output, monkeypatch, caplog):
    monkeypatch.setattr("fabric.log_pipe._MOST_NAMES", 2)
    with output.opened(3) as [descriptor], socket.socket(fileno=descriptor) as link:
        for name in ["tests.new.0", "tests.new.1", "tests.new.2", "tests.new.0", "n" * 1_000]:
            link.send(next(cut(_frame(name=name, levelno=30))))
        for read in output.watched().values():
            read()
        link.detach()

    assert [record.name[-1] for record in caplog.records] == ["0", "1", "2", "0", "n"]
    assert "tests.new.2" not in logging.root.manager.loggerDict
    assert "n" * 1_000 not in logging.root.manager.loggerDict
