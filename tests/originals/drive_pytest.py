"""Run pytest's tests of some modules one after another, and tell how each ended (see events.py)."""

import sys

import pytest

from tests.originals.events import chosen, job, matches


class Reporter:
    """A plugin that tells of each test what came of its set-up, call and teardown together."""

    def __init__(self, wanted, events):
        self._events, self._wanted, self._worst = events, wanted, None

    def _name(self, nodeid):
        return self._wanted["prefix"] + nodeid.partition("::")[2]

    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if matches(self._name(item.nodeid), self._wanted)]
        self._events.tell("collected", ids=[self._name(item.nodeid) for item in items])
        items[:] = [item for item in items if chosen(self._name(item.nodeid), self._wanted)]

    def pytest_runtest_logstart(self, nodeid):
        self._worst = ("passed", "")
        self._events.tell("start", id=self._name(nodeid))

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self._worst = ("failed", report.longreprtext)
        elif report.skipped and self._worst[0] == "passed":
            self._worst = ("skipped", report.longreprtext)

    def pytest_runtest_logfinish(self, nodeid):
        self._events.tell("end", id=self._name(nodeid), outcome=self._worst[0], detail=self._worst[1])


def main():
    wanted, events = job()
    command = ["-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir=.", "--pyargs", *wanted["modules"]]
    return pytest.main(command, plugins=[Reporter(wanted, events)])


if __name__ == "__main__":
    sys.exit(main())
