"""fabric.integrations.dashboard, as programs see it: who is answered, what with, and how it ends."""

import contextlib
import gc
import http.client
import json
import os
import re
import socket
import threading
import time
import warnings

import pytest

from fabric import Agent, ClosedError, Fabric, FabricError
from fabric.histogram import Histogram
from fabric.integrations import dashboard
from fabric.integrations.dashboard import feed as feeds
from fabric.integrations.dashboard import server
from fabric.integrations.dashboard.feed import Feed, Viewer
from fabric.integrations.dashboard.frames import frame, quarters
from fabric.integrations.dashboard.server import Dashboard
from fabric.sampler import Sampler
from fabric.samples import Sample
from tests.made_up_figures import made_up, source

PATIENCE = 30.0
TOKEN = "a-token-of-this-test"


class Echo(Agent):
    """Answers with what it is sent."""

    def on_message(self, body):
        return body


@pytest.fixture
def shown():
    """A dashboard of figures that nobody measured, sampled quickly."""
    with _dashboard() as made:
        yield made


def _dashboard(interval=0.01, keep=50, **options):
    feed = Feed(Sampler(source(**options), interval), (), keep)
    return Dashboard(feed, dashboard._listen(0), TOKEN)


def _get(shown, path="/", token=TOKEN, method="GET", headers=None):
    """Return status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", shown.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.putrequest(method, path if token is None else f"{path}?token={token}", skip_host=headers is not None)
        for name, value in headers or ():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


class Stream:
    """Reads the events of a dashboard."""

    def __init__(self, shown):
        self._connection = http.client.HTTPConnection("127.0.0.1", shown.port, timeout=PATIENCE)
        self._connection.request("GET", f"/api/events?token={TOKEN}")
        self.answer = self._connection.getresponse()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.answer.close()
        self._connection.close()

    def next(self):
        """Return name and data of the next event; None at the end."""
        lines = []
        while (line := self.answer.readline().decode()) not in ("\n", ""):
            lines.append(line.rstrip("\n"))
        if not lines:
            return None
        fields = dict(line.split(": ", 1) for line in lines)
        return self.next() if "event" not in fields else (fields["event"], json.loads(fields["data"]))

    def until(self, name):
        """Return the data of the next event of this name."""
        while (found := self.next())[0] != name:
            pass
        return found[1]


def _wait_until(reached, event=None):
    event, deadline = event or threading.Event(), time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline
        event.wait(0.005)


# Who is answered.


@pytest.mark.parametrize("path", ["/", "/api/sample", "/api/events", "/nowhere"])
@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x", "%C3%BC"])
def test_without_the_token_all_that_is_told_is_forbidden(shown, path, token):
    status, _, body = _get(shown, path, token)
    assert (status, body) == (403, b"Forbidden")


@pytest.mark.parametrize(
    "hosts",
    [(), ("evil.example",), ("127.0.0.1.evil.example:80",), ("evil.example", "127.0.0.1"), ("",), ("[::1]:80",)],
)
def test_a_request_that_names_another_host_is_refused_whatever_it_knows(shown, hosts):
    assert _get(shown, headers=[("Host", host) for host in hosts])[0] == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:1", "localhost:8000"])
def test_a_forwarded_port_may_have_another_number(shown, host):
    assert _get(shown, headers=[("Host", host)])[0] == 200


def test_nothing_can_be_sent_to_it(shown):
    assert [_get(shown, method=method)[0] for method in ("POST", "PUT", "HEAD", "OPTIONS")] == [405] * 4


def test_only_loopback_is_listened_on(shown):
    assert shown._listening.getsockname() == ("127.0.0.1", shown.port)


def test_what_is_not_there_is_not_found(shown):
    assert _get(shown, "/etc/passwd")[0] == 404


NONSENSE = [
    b"nonsense\r\n\r\n",
    b"GET / SMTP/1.0\r\n\r\n",
    b"x" * 100_000,
    b"GET http://[ HTTP/1.1\r\n\r\n",
    b"\xff\r\n\r\n",
]


@pytest.mark.parametrize("sent", NONSENSE)
def test_nonsense_is_hung_up_on_and_others_are_answered(shown, sent):
    with socket.create_connection(("127.0.0.1", shown.port), timeout=PATIENCE) as client:
        try:
            client.sendall(sent)
            answer = client.recv(1000)
        except ConnectionError:  # it does not read to the end
            answer = b""
        assert answer == b""
    assert _get(shown)[0] == 200


def test_a_request_that_does_not_come_is_not_waited_for_for_ever(shown, monkeypatch):
    monkeypatch.setattr(server, "_PATIENCE", 0.05)
    with socket.create_connection(("127.0.0.1", shown.port), timeout=PATIENCE) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        assert client.recv(1000) == b""


def test_no_more_than_so_many_are_connected_at_a_time(shown, monkeypatch):
    monkeypatch.setattr(server, "_MOST_CONNECTIONS", 1)
    with Stream(shown) as first:
        with pytest.raises((ConnectionError, http.client.BadStatusLine)):
            _get(shown)
        assert first.until("sample")


# What with.


def test_the_page_needs_nothing_else_and_lets_nothing_else_run(shown):
    _, headers, body = _get(shown)
    document, policy = body.decode(), headers["Content-Security-Policy"]
    [nonce] = re.findall(r"script-src 'nonce-([\w-]+)'", policy)
    assert "default-src 'none'" in policy
    assert len(re.findall(rf'<(?:script|style) nonce="{nonce}">', document)) == document.count("<script") + 1
    assert re.findall(r"\son\w+\s*=|\bsrc\s*=|innerHTML|https?://(?!www\.w3\.org/2000/svg)", document) == []
    assert nonce not in _get(shown)[2].decode()


def test_nothing_is_kept_by_the_browser_nor_told_to_other_sites(shown):
    for path in ("/", "/api/sample"):
        headers = _get(shown, path)[1]
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in headers


def test_a_stream_begins_with_what_there_was_and_goes_on(shown):
    with Stream(shown) as first:
        assert first.next() == ("history", {"interval": 0.01, "keep": 50, "points": [], "frame": None})
        assert first.next()[1]["interval"] is None  # there is nothing yet to compare it with
        assert first.next()[1]["point"]["messages"] == 2468
        with Stream(shown) as second:
            had = second.next()[1]
            assert had["points"][0]["messages"] == 2468
            assert had["frame"]["point"] == had["points"][-1]


def test_viewers_share_each_sample(shown):
    with Stream(shown) as one, Stream(shown) as other:
        mine = {one.until("sample")["point"]["at"] for _ in range(40)}
        theirs = {other.until("sample")["point"]["at"] for _ in range(40)}
        assert len(mine & theirs) > 20
        seconds = sorted(mine | theirs)
        assert seconds == [seconds[0] + step for step in range(len(seconds))]


def test_nothing_is_sampled_while_nobody_looks(shown):
    feed = shown._feed
    assert feed.sampler.latest is None
    with Stream(shown) as stream:
        stream.until("sample")
    _wait_until(lambda: feed._ticking is None)
    taken = len(feed.sampler.history)
    assert _get(shown)[0] == 200
    assert len(feed.sampler.history) == taken
    assert not feed.sampler.running


def test_a_viewer_that_comes_again_is_shown_no_rate_over_the_time_when_nobody_looked(shown):
    with Stream(shown) as stream:
        stream.until("sample")
        stream.until("sample")
    _wait_until(lambda: shown._feed._ticking is None)
    with Stream(shown) as stream:
        assert stream.next()[1]["frame"] is None
        assert stream.next()[1]["interval"] is None
        assert stream.next()[1]["interval"] == 1.0


def test_a_script_gets_all_statistics():
    with Fabric(workers=1) as fab, dashboard.serve(fab) as shown:
        fab.spawn_batch(Echo, 10).ask_all(b"x")
        token = shown.url.partition("token=")[2]
        found = json.loads(_get(shown, "/api/sample", token)[2])
        assert [one["messages"] for one in found["classes"] if one["name"] == "Echo"] == [10]
        assert found["rates"]["messages"] == pytest.approx(10 / found["interval"])
        assert found["recent"]["round_trip"]["count"] == 10
        assert str(os.getpid()) in found["usage"]
        assert found["alerts"] == []


class Slow:
    """A connection of which nobody reads."""

    def __init__(self):
        self.written, self.aborted = [], False

    def get_write_buffer_size(self):
        return len(self.written)

    def write(self, data):
        self.written.append(data)

    def abort(self):
        self.aborted = True


def test_a_viewer_who_has_not_read_one_message_is_not_sent_the_next_and_dropped_in_the_end(monkeypatch):
    connection = Slow()
    viewer = Viewer(connection)
    for number in range(100):
        viewer.send(b"%d" % number)
    assert (connection.written, connection.aborted) == ([b"0"], False)
    monkeypatch.setattr(feeds, "_PATIENCE", -1.0)
    viewer.send(b"100")
    assert connection.aborted


def test_a_viewer_that_stalls_is_dropped_and_holds_up_nobody(monkeypatch):
    monkeypatch.setattr(feeds, "_PATIENCE", 0.2)
    with _dashboard(interval=0.001, workers=40) as shown, socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.settimeout(PATIENCE)
        stalled.connect(("127.0.0.1", shown.port))
        stalled.sendall(f"GET /api/events?token={TOKEN} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        with Stream(shown) as reader:
            reader.until("sample")
            _wait_until(lambda: len(shown._feed.viewers) == 2 or reader.until("sample") is None)
            _wait_until(lambda: len(shown._feed.viewers) == 1 or reader.until("sample") is None)
            assert reader.until("sample")


# How it begins and ends.


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
        assert _get(other, token=token)[0] == 200
        assert len(one.url.partition("token=")[2]) >= 32
        assert _get(one, token=token)[0] == 403


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
        _get(shown)


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
    with _dashboard(interval=0.001, workers=40) as shown, socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", shown.port))
        stalled.sendall(f"GET /api/events?token={TOKEN} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        _wait_until(lambda: any(viewer._transport.get_write_buffer_size() for viewer in list(shown._feed.viewers)))
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
    with _dashboard() as shown:
        here, there = socket.socketpair()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: a fork with threads
            pid = os.fork()
        if pid == 0:
            shown.close()  # has nothing to close here, and does not wait
            there.send(b"forked")
            there.recv(1)
            os._exit(0)
        here.recv(100)
        shown.close()
        with here, there:
            with pytest.raises(ConnectionRefusedError):
                _get(shown)
            here.send(b"!")
        assert os.waitpid(pid, 0)[1] == 0


# The figures.


def test_a_first_sample_has_no_rates_and_a_second_one_has():
    first = frame(Sample(made_up(1)), [])
    assert (first["interval"], first["point"]["messages"], first["workers"][0]["rate"]) == (None, None, None)
    assert first["times"]["round_trip"]["recent"]["count"] == 0
    assert first["times"]["round_trip"]["whole"]["count"] == 10
    second = frame(Sample(made_up(2), before=made_up(1)), [])
    assert second["interval"] == 1.0
    assert second["point"]["replies"] == 500
    assert [one["busy"] for one in second["workers"]] == [0.75, 0.75]
    assert second["times"]["handler_time"]["recent"]["count"] == 50


def test_buckets_to_draw_hold_all_that_was_counted_and_lie_side_by_side():
    histogram = Histogram.of([3e-9, 1e-6, 1.01e-6, 0.5, 700.0])
    drawn = quarters(histogram)
    assert sum(count for _, _, count in drawn) == 5
    assert all(below / low <= 1.2501 for low, below, _ in drawn)
    for value in (1e-6, 0.5, 700.0):
        assert any(low <= value < below for low, below, _ in drawn)
    assert quarters(Histogram()) == []


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
