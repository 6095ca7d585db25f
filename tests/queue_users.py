"""What child processes of the queue tests do; importable, so that spawn and forkserver find it."""

import os
import signal
from pathlib import Path

from fabric import Queue


def echo(inbox, outbox):
    """Send back what comes, until None."""
    while (item := inbox.get()) is not None:
        outbox.put(item)


def produce(queue, number, count, batch):
    """Put (number, n) for n up to count, singly or in batches, with bodies of many sizes."""
    n = 0
    while n < count:
        items = [(number, i, bytes([i % 251]) * (i % 700)) for i in range(n, min(count, n + batch))]
        if batch == 1:
            queue.put(items[0])
        else:
            queue.put_many(items)
        n += len(items)


def produce_for_ever(queue, number, pipe):
    """Put (number, n) for ever, and say through a pipe how far it has surely come."""
    n = 0
    while True:
        queue.put((number, n, bytes([n % 251]) * (n % 700)))
        n += 1
        pipe.send_bytes(n.to_bytes(8, "little"))


def consume_for_ever(queue, pipe):
    """Get items for ever, and say through a pipe which."""
    while True:
        number, n, body = queue.get()
        assert body == bytes([n % 251]) * (n % 700)
        pipe.send((number, n))


def consume_tasks(queue, count):
    """Get items and say that they are done with."""
    for _ in range(count):
        queue.get()
        queue.task_done()


def create_and_die(answers):
    """Make a queue, put something, give it to a child, and be killed."""
    import multiprocessing

    queue = Queue()
    queue.put("from the creator")
    context = multiprocessing.get_context("spawn")
    context.Process(target=outlive, args=(queue, os.getpid(), answers)).start()
    signal.pause()


def outlive(queue, creator, answers):
    """Kill the creator of a queue, and go on with it."""
    os.kill(creator, signal.SIGKILL)
    while os.getppid() == creator:
        os.sched_yield()
    queue.put("after its death")
    answers.put([queue.get(), queue.get()])


def answer_from(queue, answer):
    """Put the answer into a queue that came as an argument."""
    queue.put(answer)
    return os.getpid()


def is_asleep(entry):
    """Say whether the process or thread of this entry of /proc sleeps."""
    return Path(entry, "stat").read_text().rpartition(")")[2].split()[0] == "S"
