"""Queues between processes: started in any way, killed at any time, whoever made the queue."""

import collections
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from fabric import Agent, Fabric, JoinableQueue, Queue, SimpleQueue
from tests import queue_users

PATIENCE = 30
SEED = int(os.environ.get("KILL_SEED", random.randrange(10**6)))
ROOT = Path(__file__).parents[1]


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def context(request):
    yield multiprocessing.get_context(request.param)
    if request.param == "forkserver":
        multiprocessing.forkserver._forkserver._stop()
    if request.param != "fork":
        multiprocessing.resource_tracker._resource_tracker._stop()


@contextlib.contextmanager
def running(processes):
    """Start them; wait for their ends, and demand that they are good."""
    for process in processes:
        process.start()
    try:
        yield
        for process in processes:
            process.join(PATIENCE)
        assert [process.exitcode for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()
            process.join()
            process.close()


@pytest.fixture
def queue():
    made = Queue()
    yield made
    made.close()


@pytest.mark.parametrize("kind", [Queue, JoinableQueue, SimpleQueue])
def test_a_child_however_started_gets_and_puts(context, kind):
    inbox, outbox = kind(), kind()
    with running([context.Process(target=queue_users.echo, args=(inbox, outbox))]):
        for item in (b"bytes", "text", [1, None], b"x" * 1_000_000):
            inbox.put(item)
            assert outbox.get() == item
        inbox.put(None)
    for made in (inbox, outbox):
        made.close()


@pytest.mark.parametrize("maxsize", [0, 10])
@pytest.mark.parametrize("batch", [1, 50])
def test_many_producers_and_consumers_lose_nothing_and_keep_each_producers_order(maxsize, batch):
    context, count, ends = multiprocessing.get_context("fork"), 3_000, 3
    queue, got = Queue(maxsize), Queue()
    producers = [context.Process(target=queue_users.produce, args=(queue, p, count, batch)) for p in range(ends)]
    consumers = [context.Process(target=_consume_until_none, args=(queue, got)) for _ in range(ends)]
    with running(producers + consumers):
        for process in producers:
            process.join(PATIENCE)
        queue.put_many([None] * ends)
        seen = [got.get(timeout=PATIENCE) for _ in range(ends)]
    for numbers in seen:
        for p in range(ends):
            assert numbers[p] == sorted(numbers[p])
    for p in range(ends):
        assert sorted(n for numbers in seen for n in numbers[p]) == list(range(count))
    assert queue.empty()
    queue.close()
    got.close()


def _consume_until_none(queue, got):
    numbers = collections.defaultdict(list)
    while (item := queue.get(timeout=PATIENCE)) is not None:
        number, n, body = item
        assert body == bytes([n % 251]) * (n % 700)
        numbers[number].append(n)
    got.put(dict(numbers) | {p: numbers[p] for p in range(3)})


def test_join_counts_tasks_of_all_processes():
    context, queue = multiprocessing.get_context("fork"), JoinableQueue()
    with running([context.Process(target=queue_users.consume_tasks, args=(queue, 100)) for _ in range(3)]):
        queue.put_many(range(300))
        queue.join(timeout=PATIENCE)
        assert queue.empty()
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()
    queue.close()


def test_a_queue_outlives_its_creator():
    context, answers = multiprocessing.get_context("fork"), Queue()
    process = context.Process(target=queue_users.create_and_die, args=(answers,))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    assert answers.get(timeout=PATIENCE) == ["from the creator", "after its death"]
    process.close()
    answers.close()


class Strangers:
    """Processes that are killed while they use a queue, one after the other."""

    def __init__(self, target, queue):
        self.context = multiprocessing.get_context("fork")
        self.target, self.queue = target, queue

    @contextlib.contextmanager
    def one(self, *arguments):
        ours, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(target=self.target, args=(self.queue, *arguments, theirs))
        process.start()
        theirs.close()
        try:
            yield process, ours
        finally:
            process.kill()
            process.join()
            process.close()
            ours.close()


def _read_all(pipe, read):
    """Return what a dead process has said; what it was saying when it was killed does not count."""
    said = []
    with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
        while True:
            said.append(read(pipe))
    return said


@pytest.mark.parametrize("maxsize", [0, 5])
def test_producers_killed_at_random_lose_nothing_that_was_put(maxsize):
    print(f"KILL_SEED={SEED}")
    chance, queue = random.Random(SEED), Queue(maxsize)
    strangers = Strangers(queue_users.produce_for_ever, queue)
    for number in range(25):
        with strangers.one(number) as (process, pipe):
            numbers, wanted = [], chance.randrange(1, 300)
            while len(numbers) < wanted:
                who, n, body = queue.get(timeout=PATIENCE)
                assert (who, body) == (number, bytes([n % 251]) * (n % 700))
                numbers.append(n)
            process.kill()
            process.join()
            said = _read_all(pipe, lambda pipe: int.from_bytes(pipe.recv_bytes(), "little"))
            surely = said[-1] if said else 0
            while not queue.empty():
                numbers.append(queue.get(timeout=PATIENCE)[1])
            assert numbers == list(range(len(numbers)))
            assert len(numbers) - surely in (0, 1)  # put, and killed before it could say so
    assert queue.qsize() == 0
    queue.close()


def test_consumers_killed_at_random_leave_all_but_the_item_in_their_hands():
    print(f"KILL_SEED={SEED}")
    chance, queue, count = random.Random(SEED), Queue(), 20_000
    queue.put_many((0, n, bytes([n % 251]) * (n % 700)) for n in range(count))
    strangers, got, deaths = Strangers(queue_users.consume_for_ever, queue), [], 0
    for _ in range(25):
        with strangers.one() as (process, pipe):
            wanted = chance.randrange(1, 300)
            for _ in range(wanted):
                got.append(pipe.recv()[1])
            process.kill()
            process.join()
            got += [n for _, n in _read_all(pipe, lambda pipe: pipe.recv())]
            deaths += 1
    left = [item[1] for _ in range(queue.qsize()) for item in [queue.get(timeout=PATIENCE)]]
    assert left == list(range(count - len(left), count))
    assert got == sorted({*got})
    assert 0 <= count - len(got) - len(left) <= deaths
    queue.close()


def test_consumers_killed_in_their_sleep_do_not_take_the_wake_up_of_others():
    context, queue, got = multiprocessing.get_context("fork"), Queue(), Queue()
    sleepers = [context.Process(target=queue_users.echo, args=(queue, got)) for _ in range(4)]
    for process in sleepers:
        process.start()
    for process in sleepers:
        _until_it_sleeps(process.pid)
    for process in sleepers[:3]:
        process.kill()
        process.join()
    for n in range(100):
        queue.put(n)
        assert got.get(timeout=PATIENCE) == n
    queue.put(None)
    sleepers[3].join(PATIENCE)
    assert sleepers[3].exitcode == 0
    for process in sleepers:
        process.close()
    queue.close()
    got.close()


def _until_it_sleeps(pid):
    deadline = time.monotonic() + PATIENCE
    while not queue_users.is_asleep(f"/proc/{pid}"):
        assert time.monotonic() < deadline, "it never slept"
        os.sched_yield()


def test_a_stopped_process_delays_nobody_who_does_not_wait_for_it(queue):
    context, got = multiprocessing.get_context("fork"), Queue()
    process = context.Process(target=queue_users.echo, args=(queue, got))
    process.start()
    _until_it_sleeps(process.pid)
    os.kill(process.pid, signal.SIGSTOP)
    queue.put(1)
    assert queue.get(timeout=PATIENCE) == 1
    os.kill(process.pid, signal.SIGCONT)
    queue.put(None)
    process.join(PATIENCE)
    process.close()
    got.close()


class Answering(Agent):
    def on_message(self, queue):
        queue.put(Mine(7))
        return os.getpid()


class Mine:
    def __init__(self, number):
        self.number = number


def test_a_queue_travels_in_a_message_to_a_worker(queue):
    with Fabric(workers=1) as fabric:
        worker = fabric.spawn_batch(Answering, 1)[0].ask(queue, timeout=PATIENCE)
    assert worker != os.getpid()
    assert queue.get(timeout=PATIENCE).number == 7


def _run_script(folder, text):
    script = folder / "script.py"
    script.write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_classes_of_a_script_are_the_same_at_the_other_end(tmp_path, method):
    out = _run_script(
        tmp_path,
        f"""
        import multiprocessing
        from fabric import Queue

        class Task:
            pass

        class Last(Task):
            pass

        def work(tasks, results):
            while not isinstance(task := tasks.get(), Last):
                results.put(type(task) is Task)

        if __name__ == "__main__":
            tasks, results = Queue(), Queue()
            process = multiprocessing.get_context("{method}").Process(target=work, args=(tasks, results))
            process.start()
            tasks.put_many([Task(), Task(), Last()])
            print(results.get(), results.get())
            process.join()
        """,
    )
    assert out == "True True\n"


def test_classes_of_a_script_reach_workers_that_have_another_main(tmp_path):
    out = _run_script(
        tmp_path,
        """
        from fabric import Agent, Fabric, Queue

        class Task:
            number = 7

        class Worker(Agent):
            def on_message(self, queue):
                return queue.get(timeout=20).number

        if __name__ == "__main__":
            queue = Queue()
            with Fabric(workers=1) as fabric:
                reply = fabric.spawn_batch(Worker, 1)[0].submit(queue)
                queue.put(Task())
                print(reply.result(20))
        """,
    )
    assert out == "7\n"


def test_what_multiprocessing_can_pickle_travels_too(queue):
    ours, theirs = multiprocessing.Pipe()
    queue.put([theirs])
    [other] = queue.get(timeout=PATIENCE)
    other.send("through the pipe in the queue")
    assert ours.recv() == "through the pipe in the queue"
    for end in (ours, theirs, other):
        end.close()
    multiprocessing.resource_sharer.stop()
