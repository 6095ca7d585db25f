"""What multiprocessing gives to processes that it starts itself can be given to workers, in constructor arguments."""

import gc
import multiprocessing
import os
import pickle
import signal
import threading
import types
from multiprocessing import context, heap, reduction, resource_tracker

import pytest

from fabric import Agent, EncodingError, Fabric
from fabric.inheriting import Descriptor, dumps

PATIENCE = 30


@pytest.fixture
def methods(monkeypatch):
    """The module `multiprocessing`, whose helper process and shared memory end with the test."""
    monkeypatch.setattr(heap.BufferWrapper, "_heap", heap.Heap())
    yield multiprocessing
    gc.collect()  # the names of its locks go with them
    resource_tracker._resource_tracker._stop()


class User(Agent):
    """Does as it is told with what it was made with."""

    def __init__(self, tools):
        self.tools = tools

    def on_message(self, body):
        what, *arguments = body
        if what == "pid":
            return os.getpid()
        return getattr(self.tools[what], arguments[0])(*arguments[1:])


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_locks_queues_and_events_are_shared_with_an_agent(methods, start_method):
    ctx = methods.get_context(start_method)
    tools = {"lock": ctx.Lock(), "queue": ctx.Queue(), "event": ctx.Event()}
    with Fabric(workers=1) as fab:
        user = fab.spawn_batch(User, 1, tools=tools)[0]
        assert user.ask(("lock", "acquire"), timeout=PATIENCE)
        assert not tools["lock"].acquire(block=False)
        user.ask(("lock", "release"), timeout=PATIENCE)
        assert tools["lock"].acquire(timeout=PATIENCE)

        user.ask(("queue", "put", "from the agent"), timeout=PATIENCE)
        assert tools["queue"].get(timeout=PATIENCE) == "from the agent"
        tools["queue"].put("to the agent")
        assert user.ask(("queue", "get", True, PATIENCE), timeout=PATIENCE) == "to the agent"

        tools["event"].set()
        assert user.ask(("event", "is_set"), timeout=PATIENCE)
    tools["queue"].close()
    tools["queue"].join_thread()


def test_the_successor_of_a_dead_worker_has_them_too(methods):
    event = methods.get_context("forkserver").Event()
    with Fabric(workers=1) as fab:
        user = fab.spawn_batch(User, 1, tools={"event": event})[0]
        os.kill(user.ask(("pid",), timeout=PATIENCE), signal.SIGKILL)
        user.ask(("event", "set"), timeout=PATIENCE)
        assert event.wait(PATIENCE)


def test_shared_values_conditions_and_ends_of_pipes_are_shared_with_an_agent(methods):
    ctx = methods.get_context("forkserver")
    reader, writer = ctx.Pipe(duplex=False)
    tools = {"value": ctx.Value("i", 5), "writer": writer, "condition": ctx.Condition(), "simple": ctx.SimpleQueue()}
    with reader, writer, Fabric(workers=1) as fab:
        user = fab.spawn_batch(User, 1, tools=tools)[0]
        user.ask(("value", "__setattr__", "value", 7), timeout=PATIENCE)
        assert tools["value"].value == 7
        user.ask(("writer", "send", "hello"), timeout=PATIENCE)
        assert reader.recv() == "hello"
        assert user.ask(("condition", "acquire"), timeout=PATIENCE)
        user.ask(("simple", "put", "simple"), timeout=PATIENCE)
        assert tools["simple"].get() == "simple"
    tools["simple"].close()


def test_a_lock_of_a_fork_context_is_refused_with_the_remedy(methods):
    with pytest.raises(EncodingError, match=r'get_context\("forkserver"\)'):
        dumps({"lock": methods.get_context("fork").Lock()})


def test_what_has_no_path_is_refused_with_the_remedy():
    one, other = multiprocessing.Pipe()
    with one, other, pytest.raises(EncodingError, match=r"Pipe\(duplex=False\)"):
        dumps(one)


def test_a_lambda_beside_a_pipe_goes_by_value():
    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader, writer:
        again, function = pickle.loads(dumps((writer, lambda: 5)))
        with again:
            again.send(function())
        assert reader.recv() == 5


def test_a_descriptor_that_was_closed_is_not_taken_for_another():
    reader, writer = multiprocessing.Pipe(duplex=False)
    with writer:
        number = reader.fileno()
        data = dumps(reader)
        reader.close()
        other = os.open(os.devnull, os.O_RDONLY)
        os.dup2(other, number)
        with pytest.raises(FileNotFoundError, match="another file"):
            pickle.loads(data)
        os.close(other)
        if number != other:
            os.close(number)


def test_another_file_by_that_number_is_not_even_opened(monkeypatch):
    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader, writer:
        data = dumps(reader)
        kept, other = os.dup(reader.fileno()), os.open(os.devnull, os.O_RDONLY)
        os.dup2(other, reader.fileno())
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", lambda path, *rest: pytest.fail(f"{path} was opened"))
            with pytest.raises(FileNotFoundError, match="another file"):
                pickle.loads(data)
        os.dup2(kept, reader.fileno())
        os.close(kept)
        os.close(other)


def test_a_file_that_takes_its_number_while_it_is_opened_is_closed_again(monkeypatch):
    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader, writer:
        before = len(os.listdir("/proc/self/fd"))
        descriptor = pickle.loads(pickle.dumps(Descriptor(os.getpid(), writer.fileno(), (1, 2), os.O_WRONLY)))
        monkeypatch.setattr(os, "stat", lambda path: types.SimpleNamespace(st_dev=1, st_ino=2))
        with pytest.raises(FileNotFoundError, match="another file"):
            descriptor.detach()
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_pipe_that_nobody_reads_any_more_is_opened_without_waiting():
    reader, writer = multiprocessing.Pipe(duplex=False)
    with writer:
        data = dumps(writer)
        reader.close()
        with pickle.loads(data) as again, pytest.raises(BrokenPipeError):
            again.send("hello")


def test_nothing_is_pretended_afterwards_nor_to_other_threads():
    seen = []

    class Looker:
        def __reduce__(self):
            thread = threading.Thread(target=lambda: seen.append(context.get_spawning_popen()))
            thread.start()
            thread.join(PATIENCE)
            return int, ()

    assert pickle.loads(dumps(Looker())) == 0
    assert seen == [None]
    assert context.get_spawning_popen() is None
    with pytest.raises(EncodingError, match="cannot be pickled"):
        dumps(threading.Lock())
    assert context.get_spawning_popen() is None


def test_the_reducers_of_multiprocessing_are_left_as_they_are():
    before = dict(reduction.ForkingPickler._extra_reducers)
    dumps(lambda: 5)
    assert reduction.ForkingPickler._extra_reducers == before
