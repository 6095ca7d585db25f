"""Who may open the segment, and what is never unpickled."""

import contextlib
import ctypes
import json
import os
import pickle
import signal
import threading
import warnings
from typing import ClassVar

import pytest

from fabric import EncodingError, Fabric, FabricError, SpawnError
from fabric.codec import Codec
from fabric.messages import (
    ERROR,
    FAILURE,
    JSON,
    MESSAGE,
    NDARRAY,
    NONE,
    ORDER,
    PICKLE,
    RAW,
    RECORDS,
    REPLY,
    REQUEST,
    ErrorInfo,
)
from fabric.receiver import Receiver
from fabric.remote_errors import Undecodable
from tests.agents import Echo
from tests.loopback import loopback
from tests.vandals import Vandal

NOBODY = 65_534
PATIENCE = 30
REFUSALS = {1, 13}  # EPERM, EACCES
PIDFD_GETFD = 438  # system call
SET_DUMPABLE = 4  # prctl
libc = ctypes.CDLL(None, use_errno=True)


class _Range(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _checked(result):
    """Return what libc returned, or raise the error that it left."""
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def _read_memory(pid, address):
    buffer = ctypes.create_string_buffer(8)
    here, there = _Range(ctypes.addressof(buffer), 8), _Range(address, 8)
    return _checked(libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0))


def _tries(pid, memfd, address, read_only):
    """Ways to get at a segment, by name."""
    return {
        "open": lambda: os.open(f"/proc/{pid}/fd/{memfd}", os.O_RDONLY),
        "open to write": lambda: os.open(f"/proc/{pid}/fd/{memfd}", os.O_RDWR),
        "list": lambda: os.listdir(f"/proc/{pid}/fd"),
        "memory": lambda: os.open(f"/proc/{pid}/mem", os.O_RDONLY),
        "mappings": lambda: os.listdir(f"/proc/{pid}/map_files"),
        "process_vm_readv": lambda: _read_memory(pid, address),
        "pidfd_getfd": lambda: _checked(libc.syscall(PIDFD_GETFD, os.pidfd_open(pid), memfd, 0)),
        "send a signal": lambda: os.kill(pid, 0),
        "open to write what was given to read": lambda: os.open(f"/proc/self/fd/{read_only}", os.O_RDWR),
    }


def _ask_a_stranger(segment, uid):
    """Have a process of this user try to get at the segment; return what became of each try: an errno, or None."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(segment._own))
    read_only = os.open(f"/proc/self/fd/{segment.descriptor}", os.O_RDONLY)
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads: this child starts none
        pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            signal.alarm(PATIENCE)
            if uid != os.getuid():
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                libc.prctl(SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self would be closed to it
            outcomes = {}
            for name, attempt in _tries(os.getppid(), segment.descriptor, address, read_only).items():
                try:
                    attempt()
                    outcomes[name] = None
                except OSError as error:
                    outcomes[name] = error.errno
            os.write(writer, json.dumps(outcomes).encode())
        os._exit(0)
    os.close(writer)
    os.close(read_only)
    with open(reader, "rb") as pipe:
        outcomes = json.loads(pipe.read())
    os.waitpid(pid, 0)
    return outcomes


@pytest.mark.skipif(os.getuid() != 0, reason="only root can try as another user")
def test_nobody_of_another_uid_can_open_the_segment():
    with loopback(1) as loop:
        outcomes = _ask_a_stranger(loop.segments[0], NOBODY)

    assert len(outcomes) == 9
    assert {name: outcome for name, outcome in outcomes.items() if outcome not in REFUSALS} == {}


def test_one_of_the_same_uid_can_which_is_why_the_test_before_this_means_something():
    with loopback(1) as loop:
        outcomes = _ask_a_stranger(loop.segments[0], os.getuid())

    assert [outcomes[name] for name in ("open", "open to write", "list", "send a signal")] == [None] * 4


def test_only_its_owner_may_open_the_segment_again():
    with loopback(1) as loop:
        assert os.fstat(loop.segments[0].descriptor).st_mode & 0o777 == 0o600


# What is never unpickled. A body that is, leaves a mark in the process that did it.


class Bomb:
    """Notes where it was unpickled."""

    marks: ClassVar[list[int]] = []

    def __reduce__(self):
        return _note, ()


def _note():
    Bomb.marks.append(threading.get_ident())
    return "unpickled"


BOMB = pickle.dumps(Bomb(), 5)
ERROR_BOMB = Codec().encode(ErrorInfo("agent", "text", "", 0, BOMB))[1]


@pytest.fixture(autouse=True)
def unmarked():
    Bomb.marks.clear()
    yield
    Bomb.marks.clear()


def test_the_bomb_goes_off_where_pickles_are_allowed():
    Codec().decode(PICKLE, BOMB)
    assert len(Bomb.marks) == 1


@pytest.mark.parametrize("allow", [True, False])
@pytest.mark.parametrize("encoding", [RAW, JSON, NDARRAY, NONE, ERROR, RECORDS, 0, 7, 200])
@pytest.mark.parametrize("process", [0, 1])
def test_what_arrives_in_any_other_encoding_is_never_unpickled(encoding, allow, process):
    with loopback(2) as loop:
        receiver = Receiver(loop.segments[process], loop.peers[process], Codec(allow_pickle=allow))
        for count in (1, 3):
            for _ in range(count):
                assert loop.peers[2].send(process, MESSAGE | encoding << 16, 1, 0, 0, BOMB)
            bodies = receiver.receive().bodies
            assert len(bodies) == count
            assert {type(body) for body in bodies} <= {Undecodable, bytes, type(None)}
        receiver.close()

    assert Bomb.marks == []


@pytest.mark.parametrize("encoding", [PICKLE, ORDER])
@pytest.mark.parametrize("process", [0, 1])
def test_without_pickles_none_is_unpickled_among_others_either(encoding, process):
    with loopback(2) as loop:
        receiver = Receiver(loop.segments[process], loop.peers[process], Codec("json", allow_pickle=False))
        for one in (RAW, encoding, JSON):
            assert loop.peers[2].send(process, MESSAGE | one << 16, 1, 0, 0, BOMB)
        assert [type(body) for body in receiver.receive().bodies] == [bytes, Undecodable, Undecodable]
        receiver.close()

    assert Bomb.marks == []


@pytest.fixture(scope="module")
def strict():
    """A fabric without pickles, one of whose workers sends what it likes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fabric.pump.LINGER", 0.0)  # else each test with futures waits for the pump to leave
        with Fabric(workers=2, encoding="json", allow_pickle=False, on_error=lambda letter: None) as fabric:
            yield fabric


@pytest.fixture(scope="module")
def vandal(strict):
    return strict.spawn_batch(Vandal, 1, placement=0)[0]


def _send(vandal, kind, encoding, correlation, body):
    """Have the first worker send the coordinator a record."""
    vandal.tell(["send_text", 0, kind | encoding << 16, correlation, body.hex()])


@pytest.mark.parametrize("encoding", [PICKLE, ERROR, ORDER])
@pytest.mark.parametrize("way", ["ask", "submit", "ask_many"])
def test_no_reply_is_unpickled_where_pickles_are_refused(strict, vandal, encoding, way):
    body = ERROR_BOMB if encoding == ERROR else BOMB
    question = ["reply_with", encoding, body.hex()]
    ask = {
        "ask": lambda: vandal.ask(question, timeout=PATIENCE),
        "submit": lambda: vandal.submit(question).result(timeout=PATIENCE),
        "ask_many": lambda: strict.ask_many([vandal] * 2, [question] * 2, timeout=PATIENCE),
    }
    with pytest.raises(FabricError):
        ask[way]()

    assert Bomb.marks == []


@pytest.mark.parametrize("kind", [FAILURE, REQUEST, MESSAGE, REPLY])
@pytest.mark.parametrize("encoding", [PICKLE, ERROR, ORDER, RAW])
def test_nothing_that_was_not_asked_for_is_unpickled(strict, vandal, kind, encoding):
    _send(vandal, kind, encoding, 0, ERROR_BOMB if encoding == ERROR else BOMB)
    strict.drain(timeout=PATIENCE)
    assert strict.spawn_batch(Echo, 1)[0].ask([1], timeout=PATIENCE) == [1]

    assert Bomb.marks == []


@pytest.mark.parametrize("encoding", [PICKLE, ERROR])
@pytest.mark.parametrize("order", ["spawn", "prewarm"])
def test_no_answer_to_an_order_is_unpickled(strict, vandal, encoding, order):
    body = ERROR_BOMB if encoding == ERROR else BOMB
    give = {"spawn": lambda: strict.spawn_batch(Echo, 1, placement=0), "prewarm": lambda: strict.prewarm(Echo, 2)}
    vandal.ask(["answer_orders_with", encoding, body.hex()], timeout=PATIENCE)
    with pytest.raises(SpawnError):
        give[order]()
    vandal.ask(["answer_orders_with", 0, ""], timeout=PATIENCE)
    strict.prewarm(Echo, 0)

    assert Bomb.marks == []


@pytest.mark.parametrize(
    "answer", [b"", b"null", b"[]", b"[[], 1]", b'[[], "much", []]', b"[[[7, 1, 2, 3, 4, 5]], 0, []]"]
)
def test_a_report_that_cannot_be_is_a_failure_of_that_spawn_only(strict, vandal, answer):
    vandal.ask(["answer_orders_with", JSON, answer.hex()], timeout=PATIENCE)
    with pytest.raises(SpawnError):
        strict.spawn_batch(Echo, 1, placement=0)
    vandal.ask(["answer_orders_with", 0, ""], timeout=PATIENCE)

    assert strict.spawn_batch(Echo, 1, placement=0)[0].ask([1], timeout=PATIENCE) == [1]


def test_what_needs_a_pickle_is_refused_on_its_way_out(strict):
    echo = strict.spawn_batch(Echo, 1)[0]
    for send in (echo.ask, echo.tell, echo.submit):
        with pytest.raises(EncodingError):
            send({1, 2})
