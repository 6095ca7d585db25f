"""Random numbers of a task follow from seed and index, and from nothing else."""

import asyncio
import subprocess
import sys
import threading

import numpy as np
import pytest

import fabric
from fabric import Agent, Fabric, task_generator
from fabric.seeds import set_current

PATIENCE = 60
TASKS = 40


class Roller(Agent):
    """Runs "tasks" as a runner does: says which it is, then lets the code in it draw. `on_message` is for one."""

    def on_message(self, body):
        seed, index = body
        set_current(seed, index)
        try:
            return draw_twice()
        finally:
            set_current(None, 0)


def draw_twice():
    return fabric.rng().integers(2**62), fabric.rng().random()


@pytest.fixture
def no_task():
    yield
    set_current(None, 0)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_tasks_draw_the_same_numbers_whatever_the_number_of_workers(workers):
    with Fabric(workers=workers) as fab:
        rollers = fab.spawn_batch(Roller, workers)
        asked = [rollers[index % workers] for index in range(TASKS)]
        drawn = fab.ask_many(asked, [(2026, index) for index in range(TASKS)], timeout=PATIENCE)

    streams = [task_generator(2026, index) for index in range(TASKS)]
    assert drawn == [(stream.integers(2**62), stream.random()) for stream in streams]
    assert len(set(drawn)) == TASKS


def test_a_task_has_the_stream_of_numpys_own_children():
    children = np.random.SeedSequence(5).spawn(3)
    for index, child in enumerate(children):
        assert (task_generator(5, index).random(4) == np.random.default_rng(child).random(4)).all()


def test_a_SeedSequence_as_seed_keeps_its_place_and_is_left_as_it_is():
    seed = np.random.SeedSequence(5).spawn(2)[1]
    expected = np.random.default_rng(np.random.SeedSequence(5, spawn_key=(1, 3))).random()

    assert task_generator(seed, 3).random() == expected
    assert task_generator(seed, 3).random() == expected
    assert seed.n_children_spawned == 0


def test_streams_of_neighbouring_tasks_and_seeds_are_uncorrelated():
    drawn = np.array([task_generator(seed, index).random(10_000) for seed in (0, 1) for index in range(8)])
    centred = drawn - 0.5  # of variance 1/12; and no BLAS, whose threads would be left behind here
    correlation = 12 * (centred[:, None] * centred).mean(axis=2) - np.eye(len(drawn))

    assert np.abs(correlation).max() < 0.05  # five standard deviations of what chance gives


@pytest.mark.usefixtures("no_task")
def test_one_task_has_one_generator_which_goes_on():
    set_current(1, 0)
    first = fabric.rng()

    assert fabric.rng() is first
    assert [fabric.rng().random(), fabric.rng().random()] == list(task_generator(1, 0).random(2))


@pytest.mark.usefixtures("no_task")
def test_coroutines_of_different_tasks_keep_their_own():
    async def task(index, go_on):
        set_current(3, index)
        first = fabric.rng().random()
        await go_on.wait()
        return first, fabric.rng().random()

    async def both():
        go_on = asyncio.Event()
        tasks = [asyncio.create_task(task(index, go_on)) for index in range(2)]
        await asyncio.sleep(0)
        go_on.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(both()) == [tuple(task_generator(3, index).random(2)) for index in range(2)]


@pytest.mark.usefixtures("no_task")
def test_without_a_seed_it_says_where_to_give_one():
    with pytest.raises(LookupError, match=r"no seed here: .*seed=\.\.\."):
        fabric.rng()
    set_current(1, 0)
    fabric.rng()
    set_current(None, 1)
    with pytest.raises(LookupError, match="no seed here"):
        fabric.rng()


@pytest.mark.usefixtures("no_task")
def test_a_thread_that_a_task_starts_is_told_to_be_handed_the_generator():
    seen = []

    def look():
        try:
            seen.append(fabric.rng())
        except LookupError as error:
            seen.append(str(error))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(PATIENCE)
    assert "hand them the generator" in seen[0]


@pytest.mark.parametrize(("seed", "index", "name"), [(1.5, 0, "seed"), (None, 0, "seed"), (1, "0", "index")])
def test_what_is_no_whole_number_is_refused_by_name(seed, index, name):
    with pytest.raises(TypeError, match=f"^{name}=.*whole number"):
        task_generator(seed, index)
    with pytest.raises(ValueError, match=r"^seed=-1 must be 0 or more"):
        task_generator(-1, 0)


def test_saying_which_task_runs_loads_nothing():
    code = "import sys; from fabric.seeds import set_current; set_current(1, 0); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
