"""How a fabric ends: closed, interrupted, killed. Nothing is left behind."""

import contextlib
import os
import resource
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

from fabric import ClosedError, Fabric, FabricConfig, FabricError
from fabric.crew import Crew
from fabric.layout import PROCESSES_MAX
from fabric.messages import COORDINATOR
from fabric.segment import Segment
from tests.agents import Counter, Echo, Rally, Sleeper

PATIENCE = 30


def _program(body):
    """Start a Python program that uses a fabric; it says "ready PIDS" when its workers run."""
    source = textwrap.dedent(
        """
        import os, signal, sys, time
        from fabric import Fabric
        from tests.agents import Counter, Sleeper

        def ready(fab):
            print("ready", *[worker.pid for worker in fab.statistics().workers], flush=True)
        """
    ) + textwrap.dedent(body)
    program = subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    line = program.stdout.readline().split()
    assert line[:1] == ["ready"], program.communicate()[1]
    family = [psutil.Process(int(pid)) for pid in line[1:]] + psutil.Process(program.pid).children(recursive=True)
    return program, family


def _ended(program, family):
    out, err = program.communicate(timeout=PATIENCE)
    _, alive = psutil.wait_procs(family, timeout=PATIENCE)
    assert not alive, f"still running: {alive}"
    return out, err


BUSY = """
    with Fabric(workers=2) as fab:
        sleepers = fab.spawn_batch(Sleeper, 10)
        ready(fab)
        fab.ask_many([sleepers[i % 10] for i in range(100_000)], [0.001] * 100_000)
"""


def test_one_ctrl_c_ends_an_ask_many_without_a_traceback_of_a_worker():
    program, family = _program(BUSY)
    program.send_signal(signal.SIGINT)
    _out, err = _ended(program, family)

    assert program.returncode == -signal.SIGINT
    assert err.count("Traceback") == 1
    assert "KeyboardInterrupt" in err


def test_sigterm_ends_a_program_as_cleanly():
    program, family = _program(BUSY)
    program.send_signal(signal.SIGTERM)
    _out, err = _ended(program, family)

    assert (program.returncode, err.count("Traceback")) == (128 + signal.SIGTERM, 0)


def test_sigterm_is_given_back_and_left_alone_where_somebody_handles_it():
    source = """
import signal
from fabric import Fabric
with Fabric(workers=1), Fabric(workers=1):
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with Fabric(workers=1):
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
"""
    subprocess.run([sys.executable, "-c", source], check=True, timeout=PATIENCE)


def test_ctrl_c_to_the_whole_group_is_no_different():
    program, family = _program("os.setpgid(0, 0)\n" + textwrap.dedent(BUSY))
    os.killpg(program.pid, signal.SIGINT)
    _, err = _ended(program, family)

    assert err.count("Traceback") == 1


@pytest.mark.parametrize("spin", [False, True], ids=["sleeping", "holding the GIL"])
def test_workers_end_when_the_coordinator_is_killed(spin):
    program, family = _program(
        f"""
        with Fabric(workers=2) as fab:
            sleepers = fab.spawn_batch(Sleeper, 2)
            futures = [sleeper.submit("spin" if {spin} else 100) for sleeper in sleepers]
            ready(fab)
            time.sleep(100)
        """
    )
    program.kill()
    _, err = _ended(program, family)

    assert err == ""


def test_a_killed_fork_server_is_replaced_and_workers_go_on():
    with Fabric(workers=1) as fab:
        echo = fab.spawn_batch(Echo, 1)[0]
        server = fab._supervisor.crew.server.process
        server.kill()
        server.wait()
        assert echo.ask("the worker runs on") == "the worker runs on"
        os.kill(fab.statistics().workers[0].pid, signal.SIGKILL)
        assert echo.ask("its successor runs") == "its successor runs"


def test_a_forked_child_is_refused_and_the_parent_goes_on():
    with Fabric(workers=1) as fab:
        counter = fab.spawn_batch(Counter, 1)[0]
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                counter.ask(1)
            except ClosedError as error:
                status = 0 if "forked child" in str(error) else 2
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert counter.ask(1) == 1


def test_close_twice_is_closing_once():
    fab = Fabric(workers=1)
    fab.close()
    fab.close()
    with pytest.raises(ClosedError):
        fab.spawn_batch(Echo, 1)


def test_who_waits_for_the_last_worker_to_leave_is_woken_when_its_slot_is_free():
    with contextlib.closing(Segment.create(FabricConfig(), 1)) as segment:
        crew = Crew(FabricConfig(), segment, 1, on_death=lambda death: None, on_attention=lambda: None)
        try:
            crew.start(1, [])
            crew.wait_started([1], PATIENCE)
            crew.kill(1)
            assert crew.wait_ended(PATIENCE)
            assert select.select([crew.bells[COORDINATOR]], [], [], 0)[0], "it would sleep on, for a second"
        finally:
            crew.close()
            crew.close_descriptors()


def test_an_unclosed_fabric_warns_and_is_closed():
    fab = Fabric(workers=1)
    fab.spawn_batch(Echo, 1)
    with pytest.warns(ResourceWarning, match="unclosed"):
        del fab


def test_a_fabric_left_open_is_closed_as_the_interpreter_exits_and_not_too_late():
    source = """
import atexit
atexit.register(lambda: print("closed" if fab._closed else "open"))  # runs last: it was there before fabric
from fabric import Fabric
fab = Fabric(workers=1)
raise ValueError("and nobody closes it")
"""
    program = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=PATIENCE)

    assert (program.returncode, program.stdout) == (1, "closed\n")
    assert program.stderr.count("Traceback") == 1


def test_workers_can_be_spawned_instead_of_forked():
    with Fabric(workers=2, start_method="spawn") as fab:
        counters = fab.spawn_batch(Counter, 10)
        assert counters.ask_all(1) == [1] * 10
        os.kill(fab.statistics().workers[0].pid, signal.SIGKILL)
        assert len(counters.ask_all(1)) == 10


def test_resize_adds_workers_and_removes_those_without_agents():
    with Fabric(workers=1, max_workers=3) as fab:
        first = fab.spawn_batch(Counter, 2)
        fab.resize(3)
        more = fab.spawn_batch(Counter, 3, placement="least_loaded")
        assert [worker.agents for worker in fab.statistics().workers] == [2, 2, 1]
        with pytest.raises(ValueError, match="still have agents"):
            fab.resize(1)
        more.stop()
        fab.resize(1)
        assert first.ask_all(1) == [1, 1]
        assert len(fab.statistics().workers) == 1
        with pytest.raises(ValueError, match="from 1 to max_workers=3"):
            fab.resize(4)


def test_a_fabric_that_cannot_be_started_says_why_and_leaves_nothing():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 6, hard))
    try:
        with pytest.raises(FabricError, match="ulimit -n"):
            Fabric(workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_as_many_workers_as_the_segment_has_room_for_may_be_asked_for():
    assert FabricConfig(workers=PROCESSES_MAX - 1).workers == PROCESSES_MAX - 1
    with pytest.raises(ValueError, match="workers=257"):
        Fabric(workers=PROCESSES_MAX)


INTERRUPTED = """
import os, signal, sys, threading
from fabric import Fabric

threading.Timer(float(sys.argv[1]), os.kill, (os.getpid(), signal.SIGINT)).start()
Fabric(workers=2).close()
"""


@pytest.mark.parametrize("delay", ["0", "0.02", "0.04", "0.06", "0.08"])
def test_ctrl_c_while_the_workers_start_leaves_nothing(delay):
    command = [sys.executable, "-c", INTERRUPTED, delay]
    program = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    _, err = program.communicate(timeout=PATIENCE)
    left = [process for process in psutil.process_iter() if _in_session(process, program.pid)]
    psutil.wait_procs(left, timeout=PATIENCE)

    assert err.count("Traceback") <= 1, err
    assert "Broken pipe" not in err
    assert not [process for process in left if process.is_running()]


def _in_session(process, session):
    try:
        return os.getsid(process.pid) == session
    except ProcessLookupError:
        return False


def test_a_close_with_a_timeout_drops_what_goes_on_for_ever_and_says_so(caplog):
    with Fabric(workers=2) as fab:
        echo, flooder = fab.spawn_batch(Echo, 1)[0], fab.spawn_batch(Rally, 2)
        flooder[0].tell(flooder[1])
        flooder[1].tell(flooder[0])
        assert echo.ask("here") == "here"
        started = time.monotonic()
        fab.close(timeout=0.3)
        assert 0.3 <= time.monotonic() - started < PATIENCE
    with Fabric(workers=1) as fab:
        gate = fab.spawn_batch(Sleeper, 1)[0]
        for _ in range(5):
            gate.tell(0.3)
        fab.close(drain=False)
    assert "messages were dropped" in caplog.text


def test_an_order_to_leave_for_a_worker_that_died_is_not_for_the_next_one():
    with Fabric(workers=2, max_workers=2) as fab:
        pid = fab.statistics().workers[1].pid
        os.kill(pid, signal.SIGSTOP)
        going = threading.Thread(target=fab.resize, args=(1,))
        going.start()
        time.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
        going.join(PATIENCE)
        fab.resize(2)
        agents = fab.spawn_batch(Echo, 10)
        assert agents.ask_all("here", timeout=PATIENCE) == ["here"] * 10
        assert fab.statistics().restarts == 0


def test_a_worker_may_be_sent_away_while_its_slot_waits_for_a_successor():
    with Fabric(workers=2, max_restarts=100) as fab:
        crew, backing_off, call_later = fab._supervisor.crew, threading.Event(), fab._supervisor.crew.call_later

        def called(seconds, function):
            call_later(seconds, function)
            if seconds >= 0.1:  # the restart policy's: nothing else is that far off
                backing_off.set()

        crew.call_later = called
        while not backing_off.is_set():  # without a message done in between
            crew.kill(2)
            time.sleep(0.001)
        going = threading.Thread(target=fab.resize, args=(1,), daemon=True)
        going.start()
        going.join(PATIENCE)
        assert not going.is_alive()
        crew.call_later = call_later
        fab.resize(2)
        assert fab.spawn_batch(Echo, 10).ask_all("here", timeout=PATIENCE) == ["here"] * 10
