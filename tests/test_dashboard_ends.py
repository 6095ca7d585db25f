"""fabric.integrations.dashboard: how it begins, and how it ends with the fabric, before it, or in a forked child."""

import gc
import os
import socket
import threading
import warnings

import pytest

from fabric import Agent, ClosedError, Fabric, FabricError
from fabric.integrations import dashboard
from fabric.integrations.dashboard import server
from fabric.sampler import Sampler
from tests.dashboards import TOKEN, Stream, get, made_up_dashboard, wait_until
from tests.made_up_figures import source


class Echo(Agent):
    """Answers with what it is sent."""

    def on_message(self, body):
        return body


def test_a_port_that_is_taken_is_said_so():
    with socket.create_server(("127.0.0.1", 0)) as other, Fabric(workers=1) as fab:
        port = other.getsockname()[1]
        with pytest.raises(FabricError, match=rf"port {port} of 127\.0\.0\.1 .*in use; take another, or 0"):
            dashboard.serve(fab, port)


WRONG = ({"port": -1}, {"port": 65536}, {"interval": 0}, {"token": "short"}, {"token": ""}, {"history": 1})


def test_wrong_arguments_are_refused():
    with Fabric(workers=1) as fab:
        for wrong in WRONG:
            with pytest.raises(ValueError, match=next(iter(wrong))):
                dashboard.serve(fab, **wrong)
    with pytest.raises(ClosedError):
        dashboard.serve(fab)


def test_each_dashboard_has_a_token_of_its_own_or_that_which_was_given():
    with (
        Fabric(workers=1) as fab,
        dashboard.serve(fab) as one,
        dashboard.serve(fab, token="ü/? and so much more") as other,
    ):
        token = other.url.partition("token=")[2]
        assert token == "%C3%BC%2F%3F%20and%20so%20much%20more"
        assert get(other, token=token)[0] == 200
        assert len(one.url.partition("token=")[2]) >= 32
        assert get(one, token=token)[0] == 403


def test_when_the_fabric_closes_viewers_are_told_and_nothing_is_left():
    with Fabric(workers=1) as fab:
        shown = dashboard.serve(fab, token=TOKEN, interval=0.01)
        stream = Stream(shown)
        stream.until("sample")
    with stream:
        assert stream.until("end") == {"reason": "ended"}
        assert stream.next() is None
    assert "fabric-dashboard" not in [thread.name for thread in threading.enumerate()]
    shown.close()
    with pytest.raises(ConnectionRefusedError):
        get(shown)


def test_closing_the_dashboard_leaves_the_fabric_at_work():
    with Fabric(workers=1) as fab:
        with dashboard.serve(fab, token=TOKEN, interval=0.01) as shown, Stream(shown) as stream:
            stream.until("sample")
            shown.close()
            assert stream.until("end") == {"reason": "closed"}
        assert fab.spawn_batch(Echo, 1)[0].ask(1) == 1
        with dashboard.serve(fab, shown.port):  # the port is free again at once
            pass


def test_an_end_does_not_wait_for_a_viewer_that_reads_nothing(monkeypatch):
    monkeypatch.setattr(server, "_GOODBYE", 0.01)
    with made_up_dashboard(interval=0.001, workers=40) as shown, socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", shown.port))
        stalled.sendall(f"GET /api/events?token={TOKEN} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_until(lambda: any(viewer._transport.get_write_buffer_size() for viewer in list(shown._feed.viewers)))
        shown.close()


def test_a_dashboard_keeps_no_fabric_alive():
    fab = Fabric(workers=1)
    shown = dashboard.serve(fab)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del fab
        gc.collect()
    assert ["unclosed" in str(one.message) for one in caught] == [True]
    assert not shown._thread.is_alive()


def test_a_forked_child_lets_go_of_the_port():
    with made_up_dashboard() as shown:
        here, there = socket.socketpair()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: a fork with threads
            pid = os.fork()
        if pid == 0:
            here.close()
            shown.close()  # has nothing to close here, and does not wait
            there.send(b"forked")
            there.recv(1)
            os._exit(0)
        here.recv(100)
        shown.close()
        there.close()
        with here, pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", shown.port))
        assert os.waitpid(pid, 0)[1] == 0


# What it needs of the sampler.


def test_a_sampler_apart_has_a_history_of_its_own_and_ends_with_the_first():
    ended = []
    first = Sampler(source(), 30.0)
    apart = first.apart(0.5, keep=2)
    apart.at_close(lambda: ended.append("apart"))
    for _ in range(3):
        apart.sample()
    assert (len(apart.history), len(first.history)) == (2, 0)
    first.close()
    first.close()
    assert ended == ["apart"]
    first.at_close(lambda: ended.append("late"))
    assert ended == ["apart", "late"]
