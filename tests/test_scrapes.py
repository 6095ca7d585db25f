"""The server of scrapes: on this machine only, in the format asked for, and gone with its fabric."""

import gc
import gzip
import http.client
import os
import signal
import socket
import threading
import time
import warnings

import pytest

from fabric import ClosedError, Fabric, FabricError
from fabric.testing import InlineFabric
from tests.metrics_agents import Other

prometheus_client = pytest.importorskip("prometheus_client", reason="Prometheus is NOT TESTED: scripts/env installs it")
pytest.importorskip("google.protobuf", reason="Prometheus is NOT TESTED without protobuf: scripts/env installs it")

from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families as read_text  # noqa: E402

from fabric.integrations.prometheus import FabricCollector, serve  # noqa: E402
from tests.prometheus_messages import read_families  # noqa: E402
from tests.test_prometheus import PROTOBUF, counted_by  # noqa: E402

PROMETHEUS_3 = (  # what a server of version 3 asks for
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def get(server, path="/metrics", **headers):
    """Ask, and return (status, headers, content)."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def get_when_there_is_room(server):
    """Ask until the server has let go of whoever is gone; return the status."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            return get(server)[0]
        except (http.client.RemoteDisconnected, ConnectionResetError):  # hung up on
            time.sleep(0.002)
    return None


@pytest.fixture(scope="module")
def served():
    with InlineFabric(workers=2) as fab, serve(fab, name="mine") as server:
        yield server


def test_a_scrape_is_answered_in_text(served):
    status, headers, content = get(served)
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    families = {family.name: family for family in read_text(content.decode())}
    [up] = families["fabric_up"].samples
    assert (up.labels, up.value) == ({"fabric": "mine"}, 1)


def test_openmetrics_is_answered_to_who_asks_for_it(served):
    _, headers, content = get(served, Accept=PROMETHEUS_3)
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "fabric_up" in {family.name for family in read_openmetrics(content.decode())}


def test_native_histograms_are_answered_to_who_asks_for_openmetrics_2():
    with Fabric(workers=1) as fab, serve(fab) as server:
        fab.spawn_batch(Other, 2).ask_all(1)
        _, headers, content = get(server, Accept="application/openmetrics-text;version=2.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=2.0.0")
    [family] = [one for one in read_openmetrics(content.decode()) if one.name == "fabric_round_trip_seconds"]
    [histogram] = [one.native_histogram for one in family.samples if one.native_histogram]
    assert counted_by(histogram) == 2


def test_protobuf_is_answered_to_who_would_rather_have_it(served):
    _, headers, content = get(served, Accept=f"{PROTOBUF};q=0.7,{PROMETHEUS_3}")
    assert headers["Content-Type"] == PROTOBUF.replace(";", "; ")
    assert "fabric_up" in read_families(content)


def test_answers_are_compressed_for_who_takes_that(served):
    _, headers, content = get(served, Accept_Encoding="gzip")
    assert headers["Content-Encoding"] == "gzip"
    assert b"fabric_up" in gzip.decompress(content)


def test_single_series_may_be_asked_for(served):
    _, _, content = get(served, "/metrics?name[]=fabric_up&name[]=fabric_agents")
    assert {family.name for family in read_text(content.decode())} == {"fabric_up", "fabric_agents"}


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [("/", "127.0.0.1", 404), ("/metrics", "localhost:1", 200), ("/metrics", "evil.example:80", 403)],
)
def test_only_this_path_and_this_name_are_answered(served, path, host, status):
    assert get(served, path, Host=host)[0] == status


def test_only_get_is_understood(served):
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(b"POST /metrics HTTP/1.0\r\n\r\n")
        assert b" 501 " in connection.recv(100)


def test_the_server_listens_on_the_loopback_address_only(served):
    assert served.url == f"http://127.0.0.1:{served.port}/metrics"
    assert served._listener.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_said_so(served):
    with (
        InlineFabric(workers=1) as fab,
        pytest.raises(FabricError, match=rf"port {served.port} of 127.0.0.1 .*in use; choose another, or 0 for any"),
    ):
        serve(fab, served.port)


@pytest.mark.parametrize(
    ("port", "error"), [(-1, ValueError), (65536, ValueError), ("80", TypeError), (True, TypeError)]
)
def test_what_is_no_port_is_refused(port, error):
    with InlineFabric(workers=1) as fab, pytest.raises(error, match="port="):
        serve(fab, port)


def test_the_port_is_free_again_after_close():
    with InlineFabric(workers=1) as fab:
        server = serve(fab)
        get(server)
        server.close()
        server.close()
        with serve(fab, server.port) as again:
            assert get(again)[0] == 200
        assert repr(again) == "<ScrapeServer: closed>"


def test_the_server_ends_with_its_fabric():
    with InlineFabric(workers=1) as fab:
        server = serve(fab)
        assert get(server)[0] == 200
    with pytest.raises(ConnectionRefusedError):
        get(server)
    with pytest.raises(ClosedError):
        serve(fab)


def test_the_server_does_not_keep_a_fabric_that_nobody_holds():
    fab = InlineFabric(workers=1)
    server = serve(fab)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # nobody closed it: that is what this is about
        del fab
        gc.collect()
    with pytest.raises(ConnectionRefusedError):
        get(server)


def test_a_registry_of_the_user_is_served_with_the_fabric_in_it_as_long_as_it_lasts():
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.Counter("theirs", "of the user", registry=registry).inc()
    with InlineFabric(workers=1) as fab:
        with serve(fab, registry=registry) as server:
            content = get(server)[2]
            assert b"theirs_total 1.0" in content
            assert b"fabric_up{" in content
            with pytest.raises(ValueError, match="Duplicated"):
                serve(fab, registry=registry)
        assert [family.name for family in registry.collect()] == ["theirs"]
        registry.register(FabricCollector(fab))


class Slow:
    """A collector that waits in the middle of a scrape until it is let go."""

    def __init__(self):
        self.begun, self.go = threading.Event(), threading.Event()

    def collect(self):
        self.begun.set()
        assert self.go.wait(20)
        return []


def test_a_scrape_in_progress_is_answered_when_the_fabric_closes():
    registry = prometheus_client.CollectorRegistry()
    slow = Slow()
    fab = InlineFabric(workers=1)
    server = serve(fab, registry=registry)
    registry.register(slow)
    answers = []
    scrape = threading.Thread(target=lambda: answers.append(get(server)))
    scrape.start()
    assert slow.begun.wait(20)
    end = threading.Thread(target=fab.close)
    end.start()
    assert server._closed.wait(20)
    slow.go.set()
    end.join(20)
    scrape.join(20)
    [(status, _, content)] = answers
    assert status == 200
    assert b"fabric_up{" in content


def test_who_says_nothing_does_not_hold_up_the_close():
    with InlineFabric(workers=1) as fab, serve(fab) as server:
        silent = socket.create_connection(("127.0.0.1", server.port))
        half = socket.create_connection(("127.0.0.1", server.port))
        half.sendall(b"GET /metrics HT")
        get(server)  # both were accepted before this one
    with silent, half:
        assert silent.recv(1) == b""
        assert b"400" in half.recv(1000)


def test_so_many_are_answered_at_once_and_one_more_is_hung_up_on(monkeypatch):
    monkeypatch.setattr("fabric.integrations.scrapes._MOST_CONNECTIONS", 2)
    with InlineFabric(workers=1) as fab, serve(fab) as server:
        silent, half = (socket.create_connection(("127.0.0.1", server.port)) for _ in range(2))
        with silent, half, socket.create_connection(("127.0.0.1", server.port)) as third:
            assert third.recv(1) == b""
            silent.shutdown(socket.SHUT_WR)
            assert silent.recv(1) == b"", "that one has gone"
            assert get_when_there_is_room(server) == 200


def test_a_thread_that_cannot_be_had_costs_that_scrape_only(monkeypatch, caplog):
    start = threading.Thread.start

    def refuse_once(thread):
        if thread.name == "fabric-scrape":
            monkeypatch.setattr(threading.Thread, "start", start)
            raise RuntimeError("can't start new thread")
        start(thread)

    with InlineFabric(workers=1) as fab, serve(fab) as server:
        monkeypatch.setattr(threading.Thread, "start", refuse_once)
        with socket.create_connection(("127.0.0.1", server.port)) as refused:
            assert refused.recv(1) == b""
        assert get(server)[0] == 200
    assert "can't start new thread" in caplog.text


def test_who_does_not_read_the_answer_does_not_hold_up_the_close(monkeypatch):
    monkeypatch.setattr("fabric.integrations.scrapes._FINISH_SECONDS", 0.1)
    registry = prometheus_client.CollectorRegistry()
    with InlineFabric(workers=1) as fab, serve(fab, registry=registry) as server:
        prometheus_client.Gauge("long", "x" * 2**24, registry=registry)  # more than sockets buffer
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert connection.recv(1) == b"H"
    with connection:
        assert 0 < len(b"".join(iter(lambda: connection.recv(2**20), b""))) < 2**24


def test_a_fabric_may_be_closed_by_a_scrape_itself():
    registry = prometheus_client.CollectorRegistry()
    fab = InlineFabric(workers=1)
    server = serve(fab, registry=registry)

    class Closing:
        def collect(self):
            fab.close()
            return []

    registry.register(Closing())
    assert get(server)[0] == 200
    with pytest.raises(ConnectionRefusedError):
        get(server)


def test_a_collector_that_fails_is_an_error_to_who_asks_and_in_the_log(caplog):
    registry = prometheus_client.CollectorRegistry()

    class Failing:
        def collect(self):
            raise RuntimeError("not today")

    with InlineFabric(workers=1) as fab, serve(fab, registry=registry) as server:
        registry.register(Failing())
        assert get(server)[0] == 500
    assert "not today" in caplog.text


def test_many_scrapes_at_once_while_workers_are_killed_are_all_answered():
    with Fabric(workers=2, max_restarts=100, max_attempts=100, on_error=lambda letter: None) as fab:
        server = serve(fab)
        agents = fab.spawn_batch(Other, 64)
        stop, contents, failed = threading.Event(), [], []

        def scrape():
            while not stop.is_set():
                status, _, content = get(server)
                (contents if status == 200 else failed).append(content)

        threads = [threading.Thread(target=scrape) for _ in range(4)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        for kills in range(1, 4):
            agents.tell_all(1)
            os.kill(next(worker.pid for worker in fab.statistics().workers if worker.alive), signal.SIGKILL)
            while fab.statistics().restarts < kills:
                assert time.monotonic() < deadline
                time.sleep(0.002)  # a poll, as somebody who watches would
            assert agents.ask_all(2, timeout=30) == [2] * 64
        stop.set()
        for thread in threads:
            thread.join(20)
        final = get(server)[2].decode()
    assert failed == []
    assert len(contents) >= 4
    for content in (*contents[::50], final.encode()):
        assert {"fabric_up", "fabric_worker_up"} <= {family.name for family in read_text(content.decode())}
    assert 'fabric_restarts_total{fabric="0"} 3.0' in final
