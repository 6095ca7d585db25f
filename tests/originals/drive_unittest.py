"""Run unittest's test cases of some modules one after another, and tell how each ended (see events.py).

CPython's own checks stay on: children that were left (`reap_children`), threads and processes that dangle. They only
set `support.environment_altered`; here a test that sets it has failed.
"""

import sys
import unittest

from tests.originals.events import chosen, job, matches


class Result(unittest.TestResult):
    """A result that tells as it goes. What a class or a module leaves behind is told under the name of its teardown."""

    def __init__(self, events, name_of):
        super().__init__()
        self._events, self._name_of = events, name_of
        self._worst, self._last = None, "set-up"

    def startTest(self, test):
        self.settle()
        super().startTest(test)
        self._worst, self._last = ("passed", ""), self._name_of(test)
        self._events.tell("start", id=self._last)

    def stopTest(self, test):
        super().stopTest(test)
        if self._altered() and self._worst[0] == "passed":
            self._worst = ("failed", "left children, threads or processes behind (see the log)")
        self._events.tell("end", id=self._last, outcome=self._worst[0], detail=self._worst[1])
        self._worst = None

    def settle(self):
        """Tell of what was left behind since the last test ended."""
        if self._altered():
            detail = "left threads or processes behind (see the log)"
            self._events.tell("end", id=f"after {self._last}", outcome="failed", detail=detail)

    @staticmethod
    def _altered():
        support = sys.modules.get("test.support")
        altered = bool(support and support.environment_altered)
        if altered:
            support.environment_altered = False
        return altered

    def _failed(self, test, error):
        detail = self._exc_info_to_string(error, test)
        if self._worst is None:  # a set-up or teardown of a class or module
            self._events.tell("end", id=str(test), outcome="failed", detail=detail)
        else:
            self._worst = ("failed", detail)

    def addError(self, test, err):
        self._failed(test, err)

    def addFailure(self, test, err):
        self._failed(test, err)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self._failed(test, err)

    def addSkip(self, test, reason):
        if self._worst is not None:
            self._worst = ("skipped", reason)

    def addExpectedFailure(self, test, err):
        self._worst = ("skipped", "is expected to fail")

    def addUnexpectedSuccess(self, test):
        self._worst = ("failed", "was expected to fail")


def _cases(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _cases(test)
        else:
            yield test


def main():
    wanted, events = job()

    def name_of(test):
        return wanted["prefix"] + ".".join(test.id().split(".")[-2:])

    loader, cases = unittest.TestLoader(), {}
    for module in wanted["modules"]:
        for case in _cases(loader.loadTestsFromName(module)):
            if matches(name_of(case), wanted):
                cases[name_of(case)] = case
    if "test.support" in sys.modules:
        sys.modules["test.support"].verbose = 0
    events.tell("collected", ids=list(cases))
    result = Result(events, name_of)
    unittest.TestSuite(case for name, case in cases.items() if chosen(name, wanted)).run(result)
    result.settle()


if __name__ == "__main__":
    main()
