"""A logger whose calls raise nothing."""

import logging

import pytest

from fabric.guarded_log import GuardedLogger


class Broken(logging.Handler):
    """Raises, as a handler should not."""

    def emit(self, record):
        raise RuntimeError("a bug of the user")


@pytest.fixture
def broken():
    log, handler = logging.getLogger("tests.guarded"), Broken()
    log.addHandler(handler)
    yield
    log.removeHandler(handler)


@pytest.mark.usefixtures("broken")
def test_a_handler_that_raises_is_told_on_stderr_and_the_call_returns(capsys):
    GuardedLogger("tests.guarded").warning("text")
    assert "RuntimeError: a bug of the user" in capsys.readouterr().err


def test_a_record_is_that_of_the_caller(caplog):
    try:
        raise ValueError("the cause")
    except ValueError:
        GuardedLogger("tests.guarded").exception("%s failed", "it")

    [record] = caplog.records
    assert (record.name, record.getMessage(), record.levelno) == ("tests.guarded", "it failed", logging.ERROR)
    assert (record.module, record.funcName) == ("test_guarded_log", "test_a_record_is_that_of_the_caller")
    assert "ValueError: the cause" in caplog.text
