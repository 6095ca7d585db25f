"""A small suite like those of CPython, for tests/test_originals.py: what has to be reached, and what may go wrong."""

import concurrent.futures
import multiprocessing
import os
import subprocess
import sys
import threading
import unittest

SCRIPT = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
with ProcessPoolExecutor(1, mp_context=get_context("fork")) as executor:
    print(executor.submit(abs, -1).result())
"""


def _submit() -> None:
    """Use an executor; the exit code of this process says how that went."""
    exec(SCRIPT, {})


class Reach(unittest.TestCase):
    def test_here(self):
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as executor:
            assert executor.submit(abs, -1).result() == 1

    def test_in_a_script(self):
        assert subprocess.run((sys.executable, "-c", SCRIPT), capture_output=True, check=True).stdout == b"1\n"

    def test_in_a_spawned_child(self):
        child = multiprocessing.get_context("spawn").Process(target=_submit)
        child.start()
        child.join()
        assert child.exitcode == 0


class Trouble(unittest.TestCase):
    def test_a_hangs(self):
        threading.Event().wait()

    def test_b_takes_its_process_along(self):
        os._exit(3)

    def test_c_fails(self):
        raise AssertionError("as planned")

    def test_d_passes(self):
        pass

    @unittest.skip("says so")
    def test_e_is_skipped(self):
        pass


class Mess(unittest.TestCase):
    def test_a_leaves_a_mark(self):
        from test import support

        support.environment_altered = True

    def test_b_passes(self):
        pass
