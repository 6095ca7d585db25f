"""fabric.integrations.dashboard, as programs see it: who is answered, and what with."""

import http.client
import json
import os
import re
import socket

import pytest

from fabric import Agent, Fabric
from fabric.alerts import slow
from fabric.histogram import Histogram
from fabric.integrations import dashboard
from fabric.integrations.dashboard import feed as feeds
from fabric.integrations.dashboard import server
from fabric.integrations.dashboard.feed import Viewer
from fabric.integrations.dashboard.frames import frame, quarters
from fabric.samples import Sample
from tests.dashboards import PATIENCE, TOKEN, Stream, get, made_up_dashboard, wait_until
from tests.made_up_figures import made_up


class Echo(Agent):
    """Answers with what it is sent."""

    def on_message(self, body):
        return body


@pytest.fixture
def shown():
    """A dashboard of figures that nobody measured, sampled quickly."""
    with made_up_dashboard() as made:
        yield made


# Who is answered.


@pytest.mark.parametrize("path", ["/", "/api/sample", "/api/events", "/nowhere"])
@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x", "%C3%BC"])
def test_without_the_token_all_that_is_told_is_forbidden(shown, path, token):
    status, _, body = get(shown, path, token)
    assert (status, body) == (403, b"Forbidden")


@pytest.mark.parametrize(
    "hosts",
    [
        (),
        ("evil.example",),
        ("127.0.0.1.evil.example:80",),
        ("evil.example", "127.0.0.1"),
        ("127.0.0.1", "evil.example"),
        ("",),
        ("[::1]:80",),
    ],
)
def test_a_request_that_names_another_host_is_refused_whatever_it_knows(shown, hosts):
    assert get(shown, headers=[("Host", host) for host in hosts])[0] == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:1", "localhost:8000"])
def test_a_forwarded_port_may_have_another_number(shown, host):
    assert get(shown, headers=[("Host", host)])[0] == 200


def test_nothing_can_be_sent_to_it(shown):
    assert [get(shown, method=method)[0] for method in ("POST", "PUT", "HEAD", "OPTIONS")] == [405] * 4


def test_only_loopback_is_listened_on(shown):
    assert shown._listening.getsockname() == ("127.0.0.1", shown.port)


def test_what_is_not_there_is_not_found(shown):
    assert get(shown, "/etc/passwd")[0] == 404


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
    assert get(shown)[0] == 200


def test_a_request_that_does_not_come_is_not_waited_for_for_ever(shown, monkeypatch):
    monkeypatch.setattr(server, "_HASTE", 0.05)
    with socket.create_connection(("127.0.0.1", shown.port), timeout=PATIENCE) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        assert client.recv(1000) == b""


def test_no_more_than_so_many_are_connected_at_a_time(shown, monkeypatch):
    monkeypatch.setattr(server, "_MOST_CONNECTIONS", 1)
    with Stream(shown) as first:
        with pytest.raises((ConnectionError, http.client.BadStatusLine)):
            get(shown)
        assert first.until("sample")


# What with.


def test_the_page_needs_nothing_else_and_lets_nothing_else_run(shown):
    _, headers, body = get(shown)
    document, policy = body.decode(), headers["Content-Security-Policy"]
    [nonce] = re.findall(r"script-src 'nonce-([\w-]+)'", policy)
    assert {"default-src 'none'", "require-trusted-types-for 'script'"} <= set(policy.split("; "))
    assert len(re.findall(rf'<(?:script|style) nonce="{nonce}">', document)) == document.count("<script") + 1
    assert re.findall(r"\son\w+\s*=|\bsrc\s*=|innerHTML|https?://(?!www\.w3\.org/2000/svg)", document) == []
    assert nonce not in get(shown)[2].decode()


def test_nothing_is_kept_by_the_browser_nor_told_to_other_sites(shown):
    for path in ("/", "/api/sample"):
        headers = get(shown, path)[1]
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
    wait_until(lambda: feed._ticking is None)
    taken = len(feed.sampler.history)
    assert get(shown)[0] == 200
    assert len(feed.sampler.history) == taken
    assert not feed.sampler.running


def test_a_viewer_that_comes_again_is_shown_no_rate_over_the_time_when_nobody_looked(shown):
    with Stream(shown) as stream:
        stream.until("sample")
        stream.until("sample")
    wait_until(lambda: shown._feed._ticking is None)
    with Stream(shown) as stream:
        assert stream.next()[1]["frame"] is None
        assert stream.next()[1]["interval"] is None
        assert stream.next()[1]["interval"] == 1.0


def test_a_script_gets_all_statistics():
    with Fabric(workers=1) as fab, dashboard.serve(fab) as shown:
        fab.spawn_batch(Echo, 10).ask_all(b"x")
        token = shown.url.partition("token=")[2]
        found = json.loads(get(shown, "/api/sample", token)[2])
        assert [one["messages"] for one in found["classes"] if one["name"] == "Echo"] == [10]
        assert found["rates"]["messages"] == pytest.approx(10 / found["interval"])
        assert found["recent"]["round_trip"]["count"] == 10
        assert str(os.getpid()) in found["usage"]
        assert found["alerts"] == []


def test_a_condition_that_raises_is_logged_and_hides_nothing(caplog):
    def wrong(history):
        raise RuntimeError("not this one")

    with made_up_dashboard(conditions=[wrong, slow(0.0001)]) as shown:
        with Stream(shown) as stream:
            assert [len(stream.until("sample")["alerts"]) for _ in range(3)] == [0, 1, 1]
        assert len(json.loads(get(shown, "/api/sample")[2])["alerts"]) == 1
    assert "a condition of the dashboard raised" in caplog.text


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
    with made_up_dashboard(interval=0.001, workers=40) as shown, socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.settimeout(PATIENCE)
        stalled.connect(("127.0.0.1", shown.port))
        stalled.sendall(f"GET /api/events?token={TOKEN} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        with Stream(shown) as reader:
            reader.until("sample")
            wait_until(lambda: len(shown._feed.viewers) == 2 or reader.until("sample") is None)
            wait_until(lambda: len(shown._feed.viewers) == 1 or reader.until("sample") is None)
            assert reader.until("sample")


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
