"""Queues that workers get when they start, or are made with: in initargs and constructor arguments."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fabric import Agent, Executor, Fabric, JoinableQueue, Pool, Queue, SimpleQueue

PATIENCE = 30
ROOT = Path(__file__).parents[1]


class Item:
    """What is put."""

    def __init__(self, number):
        self.number = number


class Putter(Agent):
    """Puts what it is told into the queue that it was made with."""

    def __init__(self, queue):
        self.queue = queue

    def on_message(self, body):
        self.queue.put(Item(body))
        return os.getpid()


def begin(queue, word):
    """Say who we are, as an initializer."""
    queue.put((word, os.getpid()))


@pytest.fixture(params=[Queue, JoinableQueue, SimpleQueue], ids=lambda kind: kind.__name__)
def queue(request):
    made = request.param()
    yield made
    made.close()


def test_the_initializer_of_a_pool_has_a_queue(queue):
    with Pool(2, begin, (queue, "pool")) as pool:
        said = {queue.get() for _ in range(2)}
        assert pool.map(abs, [-1]) == [1]
    assert {word for word, _ in said} == {"pool"}
    assert len({pid for _, pid in said} - {os.getpid()}) == 2


def test_a_queue_that_nobody_else_keeps_lives_as_long_as_the_pool():
    with Pool(2, begin, (Queue(), "pool")) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]


def test_the_initializer_of_an_executor_has_a_queue(queue):
    with Executor(1, initializer=begin, initargs=(queue, "executor")) as executor:
        pid = executor.submit(os.getpid).result(PATIENCE)
        assert queue.get() == ("executor", pid)


def test_an_agent_is_made_with_a_queue(queue):
    with Fabric(workers=1) as fab:
        agent = fab.spawn_batch(Putter, 1, queue=queue)[0]
        assert agent.ask(7, timeout=PATIENCE) != os.getpid()
        assert queue.get().number == 7


def test_an_agent_is_made_with_a_queue_that_nobody_else_keeps():
    with Fabric(workers=1) as fab:
        assert fab.spawn_batch(Putter, 1, queue=Queue())[0].ask(7, timeout=PATIENCE) != os.getpid()


def test_classes_of_a_script_go_both_ways_through_a_queue_of_initargs(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        from fabric import Pool, Queue

        class Item:
            def __init__(self, number):
                self.number = number

        def begin(given_tasks, given_results):
            global tasks, results
            tasks, results = given_tasks, given_results

        def work():
            results.put(Item(tasks.get(timeout=20).number + 1))

        if __name__ == "__main__":
            tasks, results = Queue(), Queue()
            tasks.put(Item(0))
            with Pool(1, begin, (tasks, results)) as pool:
                tasks.put(Item(1))
                pool.apply(work)
                pool.apply(work)
            print([(type(item) is Item, item.number) for item in results.get_many()])
    """)
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, check=False
    )
    assert (done.stdout, done.stderr) == ("[(True, 1), (True, 2)]\n", "")


def test_a_class_of_a_script_that_was_put_too_early_comes_with_a_remedy(queue, monkeypatch):
    monkeypatch.setattr(Item, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Item", Item, raising=False)
    monkeypatch.delitem(sys.modules, "fabric.coordinator")
    queue.put(Item(1))
    monkeypatch.delattr(sys.modules["__main__"], "Item")
    with pytest.raises(AttributeError, match="Item") as failed:
        queue.get()
    assert "have the class in a module" in failed.value.__notes__[0]
