"""Which pages are looked at: against a model that goes through all of them, and from many threads."""

import random
import threading

from hypothesis import given
from hypothesis import strategies as st

from fabric.looks import Looks

PAGES = 12
STRETCHES = st.tuples(st.integers(0, PAGES - 1), st.integers(1, 4), st.booleans())


class Model:
    """Each stretch that is looked at, in a list."""

    def __init__(self):
        self.held = []

    def add(self, first, last, read_only):
        meet = [held for held in self.held if held[0] <= last and held[1] >= first]
        if any(held != (first, last, True) or not read_only for held in meet):
            return False
        self.held.append((first, last, read_only))
        return True


@given(st.lists(st.one_of(STRETCHES, st.integers(0, 100))))
def test_no_two_views_share_a_page_that_one_may_write_to(steps):
    looks, model = Looks(), Model()
    for step in steps:
        if isinstance(step, tuple):
            first, size, read_only = step
            last = first + size - 1
            assert looks.add(first, last, read_only) == model.add(first, last, read_only)
        elif model.held:
            looks.remove(model.held.pop(step % len(model.held))[0])
    for first, _, _ in model.held:
        looks.remove(first)
    assert looks.add(0, PAGES + 4, False), "nothing is left"


def test_a_finalizer_that_runs_inside_add_neither_waits_nor_is_forgotten():
    looks = Looks()
    assert looks.add(1, 2, False)

    class Last(int):
        """Compared while the lock is held: as if garbage were collected there."""

        compared = 0

        def __lt__(self, other):
            if not self.compared:
                looks.remove(1)
            self.compared += 1
            return int(self) < other

    last = Last(9)
    assert looks.add(8, last, False)
    assert last.compared
    assert looks.add(1, 2, False)


def test_views_that_die_in_other_threads_are_all_taken_off():
    looks, handed = Looks(), [[] for _ in range(4)]
    stop = threading.Event()

    def bury(mine):
        while not stop.is_set() or mine:
            if mine:
                looks.remove(mine.pop())

    threads = [threading.Thread(target=bury, args=(mine,)) for mine in handed]
    for thread in threads:
        thread.start()
    chance = random.Random(1)
    for number in range(20_000):
        first = 10 * number
        assert looks.add(first, first + chance.randrange(10), bool(number % 2))
        handed[number % 4].append(first)
    stop.set()
    for thread in threads:
        thread.join()
    assert looks.add(0, 300_000, False)
