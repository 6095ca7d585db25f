"""Answer browsers and scripts, in one thread with an event loop of its own.

serve() ──▶ Dashboard ──▶ thread: connections, and the Feed's timer
                ▲ end(): the fabric closes, or close(): the program does
"""

import asyncio
import contextlib
import os
import socket
import threading
import weakref
from http import HTTPStatus
from typing import Self
from urllib.parse import quote

import orjson

from fabric.errors import ClosedError
from fabric.integrations.dashboard.feed import Feed, Viewer
from fabric.integrations.dashboard.page import page
from fabric.integrations.dashboard.requests import HEAD_BYTES, Request, read_request, response, response_head

_MOST_CONNECTIONS = 64
_HASTE = 2.0  # seconds for a request to come: a connection that says nothing is not to keep others out
_PATIENCE = 10.0  # seconds for a response to be read
_GOODBYE = 0.5  # seconds for viewers to hear that this was all
_TEXT, _HTML, _JSON, _EVENTS = "text/plain", "text/html; charset=utf-8", "application/json", "text/event-stream"
_dashboards: "weakref.WeakSet[Dashboard]" = weakref.WeakSet()


class Dashboard:
    """A page that is being served. Close it, use it as a context manager, or leave it to the end of the fabric."""

    def __init__(self, feed: Feed, listening: socket.socket, token: str) -> None:
        self._feed = feed
        self._listening = listening
        self._token = token
        self._pid = os.getpid()
        self.port: int = listening.getsockname()[1]
        self._reason = ""
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="fabric-dashboard", daemon=True)
        self._thread.start()
        _dashboards.add(self)

    @property
    def url(self) -> str:
        """Where the page is, with the token."""
        return f"http://127.0.0.1:{self.port}/?token={quote(self._token, safe='')}"

    def close(self) -> None:
        """End the page and its thread; those who look are told. Safe to call twice, and from any thread."""
        self._end("closed")

    def end(self) -> None:
        """Do as close, and say that the fabric has ended."""
        self._end("ended")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Dashboard: port {self.port}, {'open' if self._thread.is_alive() else 'closed'}>"

    def _end(self, reason: str) -> None:
        if os.getpid() != self._pid:
            return  # a forked child has no thread to end
        self._reason = self._reason or reason
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended already
            self._loop.call_soon_threadsafe(self._ending.set)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())
        self._feed.sampler.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._listening, limit=HEAD_BYTES)
        await self._ending.wait()
        server.close()
        self._feed.end(self._reason)
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, which is good for one request."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= _MOST_CONNECTIONS or self._ending.is_set():
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            await self._answer(reader, writer)
            await self._part(writer, _PATIENCE)
        except asyncio.CancelledError:  # the end
            await self._part(writer, _GOODBYE)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):  # not one that we serve, or it went away
            pass
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _part(self, writer: asyncio.StreamWriter, patience: float) -> None:
        """Let the client read what is on its way. Half closed, for a forked child may hold the connection too."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(patience):
                writer.write_eof()
                writer.close()
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_HASTE):
            request = await read_request(reader)
        refusal = request.refusal(self._token)
        if refusal is not None:
            writer.write(response(refusal, _TEXT, refusal.phrase.encode()))
        elif request.path == "/api/events":
            await self._stream(reader, writer)
        else:
            writer.write(self._content(request))

    def _content(self, request: Request) -> bytes:
        if request.path == "/":
            document, policy = page()
            return response(HTTPStatus.OK, _HTML, document, policy)
        if request.path != "/api/sample":
            return response(HTTPStatus.NOT_FOUND, _TEXT, b"Not Found")
        try:
            return response(HTTPStatus.OK, _JSON, orjson.dumps(self._feed.now()))
        except ClosedError:
            return response(HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, b"the fabric has ended")

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send events until the client goes away, or is dropped."""
        viewer = Viewer(writer.transport)
        try:
            writer.write(response_head(HTTPStatus.OK, _EVENTS) + self._feed.join(viewer))
            await reader.read(1)  # a client that listens sends nothing more
        finally:
            self._feed.leave(viewer)


def _after_fork() -> None:
    """Let go of the port in a forked child, so that it is free when the parent is done with it."""
    for dashboard in list(_dashboards):
        with contextlib.suppress(OSError):
            os.close(dashboard._listening.detach())


os.register_at_fork(after_in_child=_after_fork)
