"""The fork server killed, stopped or broken: no worker is lost, none runs unwatched, and nobody waits for ever."""

import os
import signal
import socket

import pytest

from fabric import Fabric, FabricError
from fabric.wire import receive_frame, send_frame
from fabric.workers.forkserver import ForkServer
from tests.agents import Echo, Imported
from tests.crash_agents import DiesOnce
from tests.waiting import until

PATIENCE = 30


@pytest.fixture
def server(tmp_path):
    """A fork server whose workers only write a file, and our end of its socket."""

    def worker_main(boot, slot, orders, descriptors):
        (tmp_path / f"worker {slot}").write_text(orders)
        return 7

    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ours.close()
            ForkServer(theirs, None, worker_main).run()
            status = 0
        finally:
            os._exit(status)
    theirs.close()
    with ours:
        yield ours
    assert os.waitpid(pid, 0)[1] == 0


def _born(link, slot):
    with open(os.devnull, "wb") as stack:
        send_frame(link, (slot, "orders"), (stack.fileno(),))
    (event, *_), (pidfd, key) = receive_frame(link)
    os.close(pidfd)
    assert event == "born"
    return key


def test_a_worker_runs_when_its_gate_is_opened(server, tmp_path):
    key = _born(server, 1)
    os.write(key, b"\0")
    os.close(key)

    event, slot, _pid, status = receive_frame(server)[0]
    assert (event, slot, status) == ("ended", 1, 7)
    assert (tmp_path / "worker 1").read_text() == "orders"


def test_a_worker_whose_key_is_lost_ends_and_has_done_nothing(server, tmp_path):
    os.close(_born(server, 2))

    assert receive_frame(server)[0][0] == "ended"
    assert not (tmp_path / "worker 2").exists()


def test_a_fork_server_that_dies_before_it_has_forked_a_successor_costs_nothing(tmp_path):
    with Fabric(workers=1, max_attempts=2) as fab:
        agent = fab.spawn_batch(DiesOnce, 1, flag=str(tmp_path / "flag"))[0]
        server = fab._supervisor.crew.server.process
        server.send_signal(signal.SIGSTOP)
        future = agent.submit("once more")
        until(lambda: 1 in fab._supervisor.crew.server.expected)
        server.kill()

        assert future.result(timeout=PATIENCE) == "once more", "it killed one worker: the other was never forked"
        assert agent.ask("hello", timeout=PATIENCE) == "hello"


def test_workers_that_cannot_be_forked_are_given_up_and_fabric_says_so(monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(FabricError, match="the fork server died"):
        Fabric(workers=2)


def test_resize_says_that_a_worker_cannot_be_started_and_the_others_go_on(monkeypatch):
    with Fabric(workers=1, max_workers=2) as fab:
        echo = fab.spawn_batch(Echo, 1)[0]
        with monkeypatch.context() as broken:
            broken.setattr("sys.executable", "/bin/false")
            fab._supervisor.crew.server.kill()
            with pytest.raises(FabricError, match="the fork server died"):
                fab.resize(2)
        assert echo.ask("hello") == "hello"
        fab.resize(2)
        assert fab.spawn_batch(Echo, 4).ask_all("all of them") == ["all of them"] * 4


def test_workers_have_what_is_preloaded_and_do_without_what_cannot_be():
    with Fabric(workers=1, preload=("colorsys", "no.such.module")) as fab:
        imported = fab.spawn_batch(Imported, 1)[0]
        assert imported.ask(["colorsys", "chunk"]) == [True, False]
