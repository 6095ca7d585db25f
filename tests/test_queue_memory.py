"""The memory of queues: taken as it is used, given back behind the consumers, gone with the last process."""

import multiprocessing
import os
import resource
import subprocess
import sys
import textwrap

import pytest

from fabric import FabricError, JoinableQueue, Queue, SimpleQueue

PATIENCE = 30
KEPT = 34 << 20  # what a queue keeps to put into again, and what is not given back yet


def memory_of(queue):
    return os.fstat(queue._ring.descriptor).st_blocks * 512


@pytest.mark.parametrize("kind", [Queue, JoinableQueue, SimpleQueue])
def test_a_queue_has_no_name_and_takes_next_to_no_memory(kind):
    before = set(os.listdir("/dev/shm"))
    made = kind()
    made.put(b"x" * 64)
    assert {name for name in set(os.listdir("/dev/shm")) - before if "fabric" in name} == set()
    assert memory_of(made) < 1 << 20
    assert os.stat(f"/proc/self/fd/{made._ring.descriptor}").st_mode & 0o777 == 0o600
    with pytest.raises(PermissionError):
        os.ftruncate(made._ring.descriptor, 1)
    made.close()


def test_a_backlog_is_given_back_as_it_is_consumed():
    queue, body = Queue(), b"x" * 100_000
    for _ in range(1_500):
        queue.put(body)
    full = memory_of(queue)
    assert full > 150_000_000
    for _ in range(1_000):
        queue.get()
    assert memory_of(queue) < full - 100_000_000 + KEPT
    for _ in range(500):
        assert queue.get() == body
    assert memory_of(queue) < KEPT
    queue.close()


def test_an_endless_producer_and_its_consumer_stay_in_bounded_memory():
    context, queue = multiprocessing.get_context("fork"), Queue(2_000)
    process = context.Process(target=_produce_for_ever, args=(queue,))
    process.start()
    try:
        most = 0
        for n in range(200_000):
            number, _ = queue.get(timeout=PATIENCE)
            assert number == n
            most = max(most, memory_of(queue)) if n % 1_000 == 0 else most
        assert most < KEPT + (8 << 20)
    finally:
        process.kill()
        process.join()
        process.close()
    queue.close()


def _produce_for_ever(queue):
    n = 0
    while True:
        queue.put_many((n + i, b"x" * 1_000) for i in range(100))
        n += 100


def test_a_limit_on_address_space_makes_the_ring_smaller():
    script = """
        import resource
        from fabric import Queue
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        queues = [Queue() for _ in range(3)]
        queues[2].put(b"x" * 10_000_000)
        print(len(queues[2].get()))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stdout, done.stderr) == ("10000000\n", "")


def test_a_limit_on_the_size_of_files_makes_the_ring_smaller_and_ends_in_advice():
    script = """
        import resource
        from fabric import FabricError, Queue
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
        queue = Queue()
        queue.put(b"x" * 10_000_000)
        print(len(queue.get()))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, 1 << 12))
        try:
            Queue()
        except FabricError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stdout.startswith("10000000\na queue cannot be made: File too large; raise"), done.stderr
    assert (done.stdout.strip()[-9:], done.stderr) == ("ulimit -f", "")


def test_without_descriptors_the_error_says_what_to_raise():
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limit[1]))
    try:
        with pytest.raises(FabricError, match="ulimit -n"):
            opened.extend(Queue() for _ in range(100))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        for queue in opened:
            queue.close()
