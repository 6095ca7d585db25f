"""Pickles of functions that are used again: only where nobody can tell."""

import functools
import math
import pickle
import threading
import types
from typing import Any

import pytest

from fabric.callables import FunctionCache, Located
from tests import task_functions as work


def in_main(source: str, name: str) -> Any:
    """Return a function that was defined in a script: it goes by value, with what it needs of its globals."""
    module = types.ModuleType("__main__")
    exec(source, module.__dict__)
    function = getattr(module, name)
    function.__module__ = "__main__"
    return function


def loaded(data: bytes | None) -> Any:
    """Return the function, as a worker has it."""
    assert data is not None
    function = pickle.loads(data)
    return function.there() if type(function) is Located else function


def test_an_importable_function_goes_by_name_and_is_pickled_once() -> None:
    cache = FunctionCache()
    data = cache.dump(work.echo)
    assert data is not None
    assert pickle.loads(data) is work.echo
    assert cache.dump(work.echo) is data
    assert cache.dump(math.sqrt) is cache.dump(math.sqrt)


@pytest.mark.parametrize("thing", [[].append, functools.partial(work.echo, 1), work.Unpicklable().__reduce__])
def test_what_has_a_state_is_pickled_with_each_task(thing: Any) -> None:
    assert FunctionCache().dump(thing) is None


def test_a_closure_over_constants_is_pickled_once_while_they_are_the_same() -> None:
    factor = 2

    def scaled(x: int) -> int:
        return x * factor

    cache = FunctionCache()
    data = cache.dump(scaled)
    assert data is not None
    assert cache.dump(scaled) is data
    factor = 3
    again = cache.dump(scaled)
    assert again is not None
    assert again is not data
    assert loaded(again)(5) == 15


def test_a_closure_over_what_may_change_is_pickled_each_time() -> None:
    held = [1]
    assert FunctionCache().dump(lambda x: x + held[0]) is None


def test_a_function_of_a_script_follows_its_globals() -> None:
    source = "import math\nscale = 2\ndef helper(x): return x * scale\ndef f(x): return helper(math.floor(x))"
    function = in_main(source, "f")
    cache = FunctionCache()
    data = cache.dump(function)
    assert data is not None
    assert cache.dump(function) is data
    assert loaded(data)(2.5) == 4
    function.__globals__["scale"] = 10  # of the helper
    changed = cache.dump(function)
    assert changed is not None
    assert loaded(changed)(2.5) == 20
    function.__globals__["scale"] = [10]
    assert cache.dump(function) is None


def test_new_code_or_defaults_are_seen() -> None:
    function = in_main("def f(x, y=1): return x + y", "f")
    cache = FunctionCache()
    assert loaded(cache.dump(function))(1) == 2
    function.__defaults__ = (5,)
    assert loaded(cache.dump(function))(1) == 6
    function.__code__ = in_main("def f(x, y=1): return x * 100", "f").__code__
    assert loaded(cache.dump(function))(1) == 100


def test_a_class_of_a_script_is_not_held_to_stay_as_it_is() -> None:
    function = in_main("class C: value = 1\ndef f(): return C.value", "f")
    assert FunctionCache().dump(function) is None


def test_a_closure_over_what_cannot_be_pickled_is_told_with_its_task() -> None:
    lock = threading.Lock()
    assert FunctionCache().dump(lambda: lock) is None  # a lock is no constant: it fails where the task is pickled


def test_a_function_that_calls_itself_is_pickled_once() -> None:
    def factorial(n: int) -> int:
        return 1 if n == 0 else n * factorial(n - 1)

    cache = FunctionCache()
    data = cache.dump(factorial)
    assert data is not None
    assert cache.dump(factorial) is data
    assert loaded(data)(5) == 120


def test_only_so_many_are_kept() -> None:
    cache = FunctionCache()
    functions = [in_main(f"def f(): return {i}", "f") for i in range(300)]
    for i, function in enumerate(functions):
        assert loaded(cache.dump(function))() == i
    assert len(cache._known) <= 128


def test_a_function_by_value_keeps_the_name_of_its_file() -> None:
    function = lambda x: x + 1  # noqa: E731
    assert loaded(FunctionCache().dump(function)).__code__.co_filename == __file__


def test_a_global_that_comes_later_is_seen() -> None:
    function = in_main("def f(): return helper()", "f")
    cache = FunctionCache()
    assert cache.dump(function) is not None  # a NameError, in the worker
    function.__globals__["helper"] = in_main("def helper(): return 7", "helper")
    assert loaded(cache.dump(function))() == 7
