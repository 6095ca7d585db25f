"""Serve scrapes of Prometheus on the loopback address, in threads that end with the server.

    accept thread ──▶ a thread a connection: read the request, collect, write, close
    close():  no more accepted ─▶ those that still read a request are cut off ─▶ those that answer may finish

It takes no framework: one path, one method, no connection that is kept.
"""

import gzip
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from fabric.errors import FabricError, advice
from fabric.guarded_log import GuardedLogger
from fabric.integrations import prometheus_protobuf as protobuf
from fabric.integrations.families import WithNative

_HOST = "127.0.0.1"
_SILENCE_SECONDS = 10.0  # so long may a client say nothing
_MOST_CONNECTIONS = 64  # each has a thread
_FINISH_SECONDS = 2.0  # so long may answers take once the server is told to close
_NAMES = ("127.0.0.1", "localhost")  # a page of the web that had its name point here would give another
_log = GuardedLogger("fabric")


class Exposition:
    """Writes a registry in the format that a scraper asks for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def write(self, accept: str, names: list[str]) -> tuple[str, bytes]:
        """Return content type and content; of the series `names` only, where there are any."""
        registry: Any = self._registry.restricted_registry(names) if names else self._registry
        if protobuf.is_asked_for(accept):
            return protobuf.CONTENT_TYPE, protobuf.encode(registry)
        encode, content_type = choose_encoder(accept)
        if "application/openmetrics-text; version=2" in content_type:
            registry = WithNative(registry)
        return content_type, encode(registry)


class ScrapeServer:
    """A server of one exposition at http://127.0.0.1:port/metrics. Any thread may close it."""

    def __init__(self, port: int, exposition: Exposition) -> None:
        """Take the port; serve after `start`."""
        self._listener = _listen(port)
        self.port: int = self._listener.getsockname()[1]
        self.exposition = exposition
        self._lock = threading.RLock()  # the garbage collector may close us in the middle of anything
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._ends: list[Callable[[], None]] = []
        self._closed = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, name="fabric-scrapes", daemon=True)

    @property
    def url(self) -> str:
        """Where to scrape."""
        return f"http://{_HOST}:{self.port}/metrics"

    def start(self) -> None:
        """Begin to answer."""
        self._acceptor.start()

    def at_close(self, callback: Callable[[], None]) -> None:
        """Call back once no scrape is answered any more."""
        self._ends.append(callback)

    def close(self) -> None:
        """Answer what was asked, and end. Safe to call twice; in the thread of a scrape too."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
        self._stop_accepting()
        deadline = time.monotonic() + _FINISH_SECONDS
        self._cut_off(socket.SHUT_RD)  # a request that has not come is not waited for; answers go on
        self._join(deadline)
        self._cut_off(socket.SHUT_RDWR)  # nobody reads that answer
        self._join(deadline + _FINISH_SECONDS)  # for ever, if one waits for what this very thread holds
        for callback in self._ends:
            callback()

    def _stop_accepting(self) -> None:
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept()
        except OSError:
            pass
        self._listener.close()
        if self._acceptor.ident is not None and self._acceptor is not threading.current_thread():
            self._acceptor.join()

    def _cut_off(self, how: int) -> None:
        me = threading.current_thread()
        with self._lock:
            for thread, connection in self._connections.items():
                if thread is not me:
                    try:
                        connection.shutdown(how)
                    except OSError:
                        pass

    def _join(self, deadline: float) -> None:
        with self._lock:
            threads = [one for one in self._connections if one is not threading.current_thread() and one.is_alive()]
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                connection, address = self._listener.accept()
            except OSError as error:
                if not self._closed.is_set():  # out of descriptors, most likely: the next may find one
                    _log.warning("a scrape could not be accepted: %s%s", error.strerror, advice(error))
                    self._closed.wait(0.1)
                continue
            self._begin(connection, address)

    def _begin(self, connection: socket.socket, address: Any) -> None:
        """Answer in a thread of its own; hang up where there are too many."""
        thread = threading.Thread(target=self._answer, args=(connection, address), name="fabric-scrape", daemon=True)
        with self._lock:
            if len(self._connections) >= _MOST_CONNECTIONS:
                connection.close()
                return
            self._connections[thread] = connection
        try:
            thread.start()
        except RuntimeError as error:  # the system gives no more threads: the next may get one
            _log.warning("a scrape was not answered: %s", error)
            with self._lock:
                del self._connections[thread]
                connection.close()

    def _answer(self, connection: socket.socket, address: Any) -> None:
        try:
            if not self._closed.is_set():
                _Handler(connection, address, self)  # type: ignore[arg-type]  # it only keeps it
        except OSError:  # whoever asked is gone
            pass
        except Exception:
            _log.exception("a request could not be answered")
        finally:
            with self._lock:
                del self._connections[threading.current_thread()]
                connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ScrapeServer: {'closed' if self._closed.is_set() else self.url}>"


class _Handler(BaseHTTPRequestHandler):
    """Answers one request, and closes: HTTP/1.0."""

    timeout = _SILENCE_SECONDS
    server_version, sys_version = "shm-fabric", ""
    server: Any

    def do_GET(self) -> None:
        """Answer a scrape."""
        url = urlsplit(self.path)
        if self.headers.get("Host", _HOST).partition(":")[0] not in _NAMES:
            self.send_error(HTTPStatus.FORBIDDEN, f"Ask for this by the name {_HOST} or localhost")
        elif url.path != "/metrics":
            self.send_error(HTTPStatus.NOT_FOUND, "There is only /metrics")
        else:
            self._scrape(parse_qs(url.query).get("name[]", []))

    def _scrape(self, names: list[str]) -> None:
        try:
            content_type, content = self.server.exposition.write(self.headers.get("Accept", ""), names)
        except Exception:
            _log.exception("a scrape could not be answered")
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, "The figures could not be read: see the program's log")
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            content = gzip.compress(content, 1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Say nothing: scrapes come all the time."""


def _listen(port: int) -> socket.socket:
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port={port!r} must be a number; 0 for any that is free")
    if not 0 <= port <= 65535:
        raise ValueError(f"port={port} must be from 0 (any that is free) to 65535")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after a server that has just closed
        listener.bind((_HOST, port))
        listener.listen(16)
    except OSError as error:
        listener.close()
        why = f"port {port} of {_HOST} cannot be had: {error.strerror}"
        raise FabricError(f"{why}; choose another, or 0 for any that is free") from error
    return listener
