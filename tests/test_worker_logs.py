"""What workers log and print arrives in the coordinator's logging, whatever becomes of the worker."""

import logging
import os
import threading
import time
import warnings

import pytest

from fabric import Fabric, WorkerLostError
from fabric.workers.logs import ForwardHandler
from tests.log_agents import Logger

PATIENCE = 60
METHODS = ["forkserver", "spawn"]


class Heard(logging.Handler):
    """Keeps what the loggers of this process are given, and lets others wait for it."""

    def __init__(self):
        super().__init__()
        self.records = []
        self.more = threading.Condition()

    def emit(self, record):
        with self.more:
            self.records.append(record)
            self.more.notify_all()

    def of(self, name):
        return [record for record in self.records if record.name == name]

    def wait_for(self, count, name="tests.worker"):
        with self.more:
            assert self.more.wait_for(lambda: len(self.of(name)) >= count, PATIENCE), [*map(str, self.records)]
        return self.of(name)

    def texts(self, name="tests.worker"):
        return [record.getMessage() for record in self.of(name)]


@pytest.fixture
def heard(monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # Python and C then buffer nothing, and all is easy
    handler, root = Heard(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


class PatientLogger(Logger):
    """Waits for the coordinator for as long as the tests do: no record is dropped because the machine is busy."""

    def on_start(self):
        for handler in logging.getLogger().handlers:
            if isinstance(handler, ForwardHandler):
                handler._patience = PATIENCE


def _logger(fab):
    return fab.spawn_batch(Logger, 1, on_crash="fail")[0]


@pytest.mark.parametrize("start_method", METHODS)
def test_a_record_arrives_as_it_was_logged_and_names_its_worker(heard, start_method):
    began = time.time()
    with Fabric(workers=2, start_method=start_method) as fab:
        pids = fab.spawn_batch(Logger, 2).ask_all(("say", logging.WARNING, "%s and %d", "text", 3), timeout=PATIENCE)
        records = heard.wait_for(2)

    assert sorted((record.worker, record.process) for record in records) == [(1, pids[0]), (2, pids[1])]
    here = logging.makeLogRecord({})
    for record in records:
        assert (record.name, record.levelno, record.levelname) == ("tests.worker", logging.WARNING, "WARNING")
        assert (record.getMessage(), record.args) == ("text and 3", ())
        assert record.processName == f"fabric-worker-{record.worker}"
        assert (record.module, record.funcName, record.threadName) == ("log_agents", "say", "MainThread")
        assert began <= record.created <= time.time()
        assert here.relativeCreated - record.relativeCreated == pytest.approx(
            1e3 * (here.created - record.created), abs=0.01
        )


def test_a_traceback_and_plain_extra_attributes_come_along(heard):
    with Fabric(workers=1) as fab:
        _logger(fab).ask(("say_with_all",), timeout=PATIENCE)
        [record] = heard.wait_for(1)

    shown = logging.Formatter("%(message)s for %(job)d").format(record)
    assert shown.startswith("it failed for 7\nTraceback (most recent call last):")
    assert shown.endswith("ValueError: the cause")
    assert record.sizes == [1, 2.5]
    assert not hasattr(record, "lock"), "what is no plain data stays behind, and the record comes all the same"


def test_no_pickles_are_needed(heard):
    with Fabric(workers=1, encoding="json", allow_pickle=False) as fab:
        _logger(fab).ask(["say", logging.INFO, "hello"], timeout=PATIENCE)
        heard.wait_for(1)
    assert heard.texts() == ["hello"]


def test_what_cannot_be_rendered_is_said_in_the_worker_and_the_next_record_comes(heard):
    with Fabric(workers=1, capture_output=True) as fab:
        _logger(fab).ask(("say_what_does_not_fit",), timeout=PATIENCE)
        heard.wait_for(1)
    assert heard.texts() == ["and on"]
    assert "--- Logging error ---" in heard.texts("fabric.output")


def test_levels_of_the_coordinator_hold_in_workers_so_that_nothing_is_sent_for_nothing(heard):
    chatty = logging.getLogger("tests.chatty")
    chatty.setLevel(logging.DEBUG)
    try:
        with Fabric(workers=1) as fab:
            logger = _logger(fab)
            assert not logger.ask(("enabled", "tests.worker", logging.DEBUG), timeout=PATIENCE)
            assert logger.ask(("enabled", "tests.worker", logging.INFO), timeout=PATIENCE)
            assert logger.ask(("enabled", "tests.chatty", logging.DEBUG), timeout=PATIENCE)
    finally:
        chatty.setLevel(logging.NOTSET)


def test_what_logging_disables_is_not_sent(heard):
    logging.disable(logging.WARNING)
    try:
        with Fabric(workers=1) as fab:
            assert not _logger(fab).ask(("enabled", "tests.worker", logging.WARNING), timeout=PATIENCE)
    finally:
        logging.disable(logging.NOTSET)


def test_a_level_that_is_raised_later_holds_here(heard):
    with Fabric(workers=1) as fab:
        logger = _logger(fab)
        logging.getLogger("tests").setLevel(logging.ERROR)
        try:
            logger.ask(("say", logging.WARNING, "not this"), timeout=PATIENCE)
            logger.ask(("say", logging.ERROR, "but this"), timeout=PATIENCE)
            heard.wait_for(1)
        finally:
            logging.getLogger("tests").setLevel(logging.NOTSET)
    assert heard.texts() == ["but this"]


def test_many_records_of_many_workers_all_come_in_the_order_of_each(heard):
    with Fabric(workers=2) as fab:
        fab.spawn_batch(PatientLogger, 2).ask_all(("say_many", 3_000), timeout=PATIENCE)
        heard.wait_for(6_000)
        assert fab.statistics().dropped_logs == 0

    for worker in (1, 2):
        texts = [record.getMessage() for record in heard.of("tests.worker") if record.worker == worker]
        assert texts == [f"{number} of 3000" for number in range(3_000)]


@pytest.mark.parametrize("size", [4_097, 200_000])
def test_a_long_record_comes_whole(heard, size):
    text = "".join(chr(ord("a") + number % 26) for number in range(size))
    with Fabric(workers=1) as fab:
        _logger(fab).ask(("say", logging.INFO, "%s", text), timeout=PATIENCE)
        heard.wait_for(1)
    assert heard.texts() == [text]


@pytest.mark.parametrize("start_method", METHODS)
def test_a_worker_that_is_killed_right_after_it_logged_has_said_it(heard, start_method):
    with Fabric(workers=1, start_method=start_method) as fab:
        logger = _logger(fab)
        for number in range(5):
            with pytest.raises(WorkerLostError):
                logger.ask(("say_and_die", number), timeout=PATIENCE)
            assert heard.texts() == [f"number {seen}" for seen in range(number + 1)], "before its death is told"


def test_whenever_a_worker_is_killed_all_that_it_has_logged_is_there(heard, tmp_path):
    path = tmp_path / "last"
    with Fabric(workers=1) as fab:
        logger = _logger(fab)
        for kill in range(1, 6):
            path.write_bytes(b"")
            heard.records.clear()
            future = logger.submit(("say_without_end", str(path)))
            heard.wait_for(kill * 37)
            fab._supervisor.crew.kill(1)
            with pytest.raises(WorkerLostError):
                future.result(timeout=PATIENCE)
            count = len(heard.texts())
            assert heard.texts() == [str(number) for number in range(1, count + 1)]
            assert count in (int(path.read_bytes()), int(path.read_bytes()) + 1)


@pytest.mark.parametrize("start_method", METHODS)
def test_what_is_written_arrives_line_by_line_whoever_writes_it(heard, start_method):
    with Fabric(workers=1, capture_output=True, start_method=start_method) as fab:
        pid = _logger(fab).ask(("say", logging.INFO, "hello"), timeout=PATIENCE)
        _logger(fab).ask(("write_everywhere",), timeout=PATIENCE)
        records = heard.wait_for(5, "fabric.output")

    by_level = {level: [r.getMessage() for r in records if r.levelno == level] for level in (20, 30)}
    assert by_level == {
        logging.INFO: ["from Python", "from a descriptor", "from C", "from a child"],
        logging.WARNING: ["to stderr"],
    }
    assert {(record.worker, record.process, record.processName) for record in records} == {(1, pid, "fabric-worker-1")}


@pytest.mark.parametrize("start_method", METHODS)
def test_what_a_worker_wrote_right_before_it_died_arrives_also_without_an_end_of_line(heard, start_method):
    with Fabric(workers=1, capture_output=True, start_method=start_method) as fab:
        with pytest.raises(WorkerLostError):
            _logger(fab).ask(("print_and_die", 7), timeout=PATIENCE)
        assert heard.texts("fabric.output") == ["printed 7", "no end of line, 7"]


def test_what_is_logged_in_a_fabric_of_a_worker_comes_through_that_worker(heard):
    with Fabric(workers=1) as fab:
        pid = _logger(fab).ask(("say_in_a_fabric", logging.INFO, "from below"), timeout=PATIENCE)
        [record] = heard.wait_for(1)
    assert (record.getMessage(), record.worker, record.process) == ("from below", 1, pid)


def test_a_forked_child_of_the_coordinator_hands_on_nothing(heard):
    with Fabric(workers=1, capture_output=True) as fab:
        _logger(fab).ask(("write_half_a_line",), timeout=PATIENCE)
        [_, out, _] = fab._supervisor.crew.output._readers[1]
        deadline = time.monotonic() + PATIENCE
        while not out._rest:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, from Python 3.12 on: the child has none
            child = os.fork()
        if child == 0:
            os._exit(len(heard.records))
        assert os.waitpid(child, 0)[1] == 0
    assert heard.texts("fabric.output") == ["half"]


def test_without_forward_logs_workers_log_for_themselves(heard):
    with Fabric(workers=1, forward_logs=False) as fab:
        logger = _logger(fab)
        assert logger.ask(("handlers",), timeout=PATIENCE) == []
        logger.ask(("say", logging.ERROR, "only there"), timeout=PATIENCE)
    assert heard.texts() == []


@pytest.mark.parametrize("capture", [True, False])
def test_warnings_are_logged_only_where_logging_captures_them(heard, capture):
    with Fabric(workers=1, capture_output=True) as fab:
        _logger(fab).ask(("warn", capture), timeout=PATIENCE)
        records = heard.wait_for(1, "py.warnings" if capture else "fabric.output")
    assert "UserWarning: beware" in records[0].getMessage()
    assert bool(heard.texts("py.warnings")) == capture


def test_no_thread_is_started_for_it():
    with Fabric(workers=1, capture_output=True) as fab:
        names = sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("fabric"))
        assert [name for name in names if name != "fabric-replies"] == ["fabric-supervisor"]
        assert _logger(fab).ask(("threads",), timeout=PATIENCE) == 1


def test_garbage_from_a_worker_is_dropped_counted_and_said_and_its_records_still_come(heard):
    pieces = [b"garbage", b"\x03{}", b"\x03" + b"[" * 30_000, b"\x03" + os.urandom(1_000), b"\x02no beginning", b"\xff"]
    with Fabric(workers=1) as fab:
        logger = _logger(fab)
        logger.ask(("send_garbage", pieces), timeout=PATIENCE)
        logger.ask(("say", logging.INFO, "and on"), timeout=PATIENCE)
        heard.wait_for(1)
        assert fab.statistics().dropped_logs == len(pieces)
    assert "worker 1 sent what is no log record, 1 times now: dropped" in heard.texts("fabric")


def test_a_worker_that_closes_its_channels_is_no_longer_watched_there_and_works_on(heard):
    with Fabric(workers=1, capture_output=True) as fab:
        logger = _logger(fab)
        logger.ask(("close_channels",), timeout=PATIENCE)
        crew = fab._supervisor.crew
        deadline = time.monotonic() + PATIENCE
        while crew.output.watched():
            assert time.monotonic() < deadline, "the supervisor thread would find them readable for ever"
            time.sleep(0.001)
        assert logger.ask(("threads",), timeout=PATIENCE) == 1


def test_a_handler_that_raises_does_not_keep_the_supervisor_from_its_work(capfd):
    class Broken(logging.Handler):
        def emit(self, record):
            raise RuntimeError("a bug of the user")

    broken = Broken()
    logging.getLogger().addHandler(broken)
    try:
        with Fabric(workers=1) as fab:
            logger = _logger(fab)
            with pytest.raises(WorkerLostError):
                logger.ask(("say_and_die", 1), timeout=PATIENCE)
            assert logger.ask(("threads",), timeout=PATIENCE) == 1
    finally:
        logging.getLogger().removeHandler(broken)
    assert "a bug of the user" in capfd.readouterr().err


def test_a_successor_logs_through_channels_of_its_own_and_none_is_left(heard):
    with Fabric(workers=2, capture_output=True) as fab:
        loggers = fab.spawn_batch(Logger, 2)
        fab._supervisor.crew.kill(1)
        loggers.ask_all(("say", logging.INFO, "here"), timeout=PATIENCE)
        heard.wait_for(2)
        assert len(fab._supervisor.crew.output.watched()) == 6
    assert sorted(record.worker for record in heard.of("tests.worker")) == [1, 2]
