"""What the task engine decides without a process or a clock: whose turn, how much ahead, how large a chunk."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.chunking import FixedSize, MeasuredSize
from fabric.pace import Pace
from fabric.task_future import TaskFuture, TaskOptions
from fabric.task_queue import TaskQueue

ORDINARY = TaskOptions()


class Nobody:
    """Owns futures that nobody runs."""

    def attend(self) -> None: ...
    def look(self) -> None: ...
    def wait(self, future: TaskFuture, timeout: float | None) -> None: ...
    def cancel(self, future: TaskFuture) -> bool:
        return False

    def cancel_waiting(self, task: TaskFuture) -> None: ...


def task(options: TaskOptions = ORDINARY, size: int = 10, large: bool = False) -> TaskFuture:
    made = TaskFuture(Nobody(), options)
    made.data = b"x" * size
    made.call = ("to be encoded",) if large else None
    return made


# Who follows a task.


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_a_follower_is_told_once_whenever_it_comes(moment: str) -> None:
    followed, told = task(), list[TaskFuture]()
    if moment == "before":
        followed.follow(told.append)
    followed.forget_call()  # as the pool settles a task: this, its state, then its follower
    if moment == "between":
        followed.follow(told.append)
    followed.settle("value", None)
    if moment == "after":
        followed.follow(told.append)
    follower = followed.take_follower()
    if follower is not None:
        follower(followed)
    assert told == [followed]


# The queue.


def test_tasks_of_one_priority_keep_their_order_and_higher_ones_go_first() -> None:
    queue = TaskQueue()
    low, high = TaskOptions(priority=-1), TaskOptions(priority=3)
    tasks = [task(options) for options in (low, ORDINARY, high, low, high, ORDINARY)]
    for each in tasks:
        queue.add(each)
    assert len(queue) == 6
    wanted = [tasks[i] for i in (2, 4, 1, 5, 0, 3)]
    assert [queue.pop() for _ in range(6)] == wanted
    assert queue.peek() is None
    with pytest.raises(IndexError):
        queue.pop()


def test_only_tasks_that_are_treated_alike_are_taken_together() -> None:
    queue = TaskQueue()
    other = TaskOptions(once=True)
    tasks = [task(), task(), task(other), task()]
    for each in tasks:
        queue.add(each)
    assert queue.take(10, 1 << 20) == tasks[:2]
    assert queue.take(10, 1 << 20) == tasks[2:3]
    assert queue.take(10, 1 << 20) == tasks[3:]


def test_a_large_task_ends_what_is_taken_together() -> None:
    queue = TaskQueue()
    tasks = [task(), task(large=True), task()]
    for each in tasks:
        queue.add(each)
    assert queue.take(10, 1 << 20) == tasks[:1]
    assert queue.peek() is tasks[1]
    assert queue.take(10, 1 << 20) == []


def test_bytes_bound_what_is_taken_together_but_for_a_first_task() -> None:
    queue = TaskQueue()
    tasks = [task(size=100) for _ in range(5)]
    for each in tasks:
        queue.add(each)
    assert queue.take(10, 250) == tasks[:2]
    assert queue.take(10, 1) == tasks[2:3]
    queue.put_back(tasks[2:3])
    assert queue.peek() is tasks[2]
    assert queue.clear() == tasks[2:]
    assert len(queue) == 0


@given(st.lists(st.tuples(st.sampled_from(["add", "pop", "take", "discard", "back"]), st.integers(-1, 1))))
def test_the_queue_agrees_with_a_model(steps: list[tuple[str, int]]) -> None:
    queue, model = TaskQueue(), {priority: deque[TaskFuture]() for priority in (-1, 0, 1)}
    options = {priority: TaskOptions(priority=priority) for priority in model}
    for step, number in steps:
        turn = next((model[p] for p in (1, 0, -1) if model[p]), None)
        if step == "add":
            made = task(options[number])
            queue.add(made)
            model[number].append(made)
        elif step == "pop" and turn:
            assert queue.pop() is turn.popleft()
        elif step == "take" and turn:
            assert queue.take(2, 1 << 20) == [turn.popleft() for _ in range(min(2, len(turn)))]
        elif step == "discard" and model[number]:
            assert queue.discard(model[number].pop())
        elif step == "back" and turn:
            taken = queue.take(1, 1 << 20)
            assert taken == [turn[0]]
            queue.put_back(taken)
        assert len(queue) == sum(map(len, model.values()))
        assert list(queue) == [each for p in (1, 0, -1) for each in model[p]]


# How much is ahead.


def test_of_a_worker_nothing_is_known_of_one_task_is_ahead() -> None:
    assert Pace(0.002).limit == 1


def paced(task_seconds: float, late: float = 0.0, rounds: int = 12) -> Pace:
    """Return the pace of a worker after so many rounds; its replies take `late` seconds, in which it waits."""
    pace, now, waited = Pace(0.002), 100.0, 5.0
    pace.begin(now, waited)
    for _ in range(rounds):
        now += task_seconds * pace.limit + late
        waited += late
        pace.observe(pace.limit, now, waited)
    return pace


def test_quick_tasks_open_the_window_step_by_step() -> None:
    assert [paced(2e-6, rounds=n).limit for n in (0, 1, 2, 3)] == [1, 4, 16, 64]
    assert paced(2e-6).limit == pytest.approx(1000, rel=0.1)


def test_messages_that_take_long_do_not_close_it() -> None:
    assert paced(2e-6, late=0.005).limit == pytest.approx(1000, rel=0.1)


def test_long_tasks_go_one_by_one() -> None:
    assert paced(0.01).limit == 1
    assert paced(0.0009).limit == 2


def test_slow_answers_close_it_at_once() -> None:
    pace = paced(2e-6)
    pace.observe(1, 200.0, 5.0)
    assert pace.limit == 1


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 10), st.floats(-1, 10)), max_size=30))
def test_there_is_always_room_for_one_and_never_for_more_than_a_thousand(
    steps: list[tuple[int, float, float]],
) -> None:
    pace, now, waited = Pace(0.002), 0.0, 0.0
    pace.begin(now, waited)
    for count, elapsed, idle in steps:
        now += elapsed
        waited = max(0.0, waited + idle)  # it begins anew with a successor
        pace.observe(count, now, waited)
        assert 1 <= pace.limit <= 1024
    pace.forget()
    assert pace.limit == 1


# How large chunks are.


def test_a_fixed_size_stays_as_it_is() -> None:
    sizer = FixedSize(7)
    sizer.observe(7, 100.0)
    assert sizer.next(3) == sizer.next(None) == 7


def test_the_first_chunks_are_single_items_and_quick_ones_grow() -> None:
    sizer = MeasuredSize(2)
    assert sizer.next(1_000_000) == 1
    sizer.observe(1, 1e-6)
    assert sizer.next(1_000_000) == 16
    sizer.observe(16, 16e-6)
    assert sizer.next(1_000_000) == 256


def test_what_is_left_of_quick_items_is_not_cut_into_chunks_that_cost_more_than_they_last() -> None:
    sizer = MeasuredSize(2)
    sizer.observe(1, 2e-6)
    sizer.observe(16, 32e-6)  # so that 50 of them take 100 us
    assert sizer.next(30) == 30
    assert sizer.next(120) in (49, 50)
    assert sizer.next(1_000) == 250

    sizer.observe(10, 10e-3)
    assert sizer.next(30) == 1


def test_slow_items_go_one_by_one() -> None:
    sizer = MeasuredSize(2)
    sizer.observe(1, 0.5)
    assert sizer.next(1_000) == 1
    for _ in range(60):
        sizer.observe(1000, 1e-3)
    assert sizer.next(10**6) > 100
    sizer.observe(1, 0.5)
    assert sizer.next(10**6) == 1


@given(
    st.integers(1, 8), st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 10)), max_size=20), st.integers(0, 10**6)
)
def test_a_chunk_is_never_empty_and_leaves_some_for_the_other_workers_unless_it_is_soon_done(
    workers: int, seen: list[tuple[int, float]], left: int
) -> None:
    sizer = MeasuredSize(workers)
    for count, seconds in seen:
        sizer.observe(count, seconds)
    soon = int(1e-4 / sizer._seconds) if sizer._seconds else 0
    assert 1 <= sizer.next(left) <= max(1, min(left, max(soon, -(-left // (2 * workers)))))
    assert 1 <= sizer.next(None) <= 4096
