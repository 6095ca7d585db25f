"""Cut what is to be sent into the chunks of a stream, and send them from a coroutine.

    iterable, bytes-like, binary file ──▶ pieces ──▶ Chunker ──▶ StreamChunk, one ahead of what is sent

Which chunk is the last is known only when there is no next, so one piece is always held back.
"""

import contextlib
import os
import secrets
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterator
from typing import Any, Protocol

from fabric.codec import CHUNK_OVERHEAD
from fabric.flow import check_window
from fabric.messages import StreamChunk

_PIECE = 1 << 20  # bytes read from a file at a time


class AsyncSender(Protocol):
    """What sending from a coroutine needs of a fabric.agent.Messenger."""

    def begin_ask(self, ref: Any, body: Any) -> Awaitable[Awaitable[Any]]: ...
    def tell_soon(self, ref: Any, body: Any) -> None: ...


class Chunker:
    """Number the pieces of one stream."""

    def __init__(self, source: Any, total: int | None, limit: int) -> None:
        """`limit` is the largest body that can be sent, in bytes: files and whole bytes-likes are cut to it."""
        if isinstance(source, str):
            raise TypeError("a stream of a str would send it letter by letter: encode it, or send it in a list")
        if total is not None and (not isinstance(total, int) or total < 0):
            raise ValueError(f"total={total!r} must be how many bytes there are in all, or None")
        most = min(_PIECE, limit - CHUNK_OVERHEAD)
        self._source = source if isinstance(source, AsyncIterable) else _pieces(source, most)
        self._total = _size_of(source) if total is None else total
        self._stream = secrets.randbits(63)
        self._index = 0
        self._so_far = 0
        self.over = False  # was the last one made?

    def __iter__(self) -> Iterator[StreamChunk]:
        """Make the chunks. What the source raises comes after the last piece that it gave."""
        if isinstance(self._source, AsyncIterable):
            raise TypeError("an asynchronous iterable can be sent by send_stream_async, in a coroutine")
        held: list[Any] = []
        try:
            for piece in self._source:
                if held:
                    yield self._chunk(held.pop(), False)
                held.append(piece)
        except BaseException:
            if held:
                yield self._chunk(held.pop(), False)
            raise
        yield self._chunk(held.pop() if held else b"", True)

    async def __aiter__(self) -> AsyncIterator[StreamChunk]:
        """Do so from an asynchronous iterable too."""
        if not isinstance(self._source, AsyncIterable):
            for chunk in self:
                yield chunk
            return
        held: list[Any] = []
        try:
            async for piece in self._source:
                if held:
                    yield self._chunk(held.pop(), False)
                held.append(_flat(piece))
        except BaseException:
            if held:
                yield self._chunk(held.pop(), False)
            raise
        yield self._chunk(held.pop() if held else b"", True)

    def aborted(self) -> StreamChunk:
        """Return what tells the agent that no more will come."""
        return StreamChunk(b"", self._index, False, self._total, self._so_far, self._stream, True)

    def _chunk(self, piece: Any, last: bool) -> StreamChunk:
        if type(piece) is bytes or isinstance(piece, (bytes, memoryview)):
            self._so_far += len(piece)
        else:
            self._so_far += getattr(piece, "nbytes", 0)
        self._index += 1
        self.over = last
        return StreamChunk(piece, self._index - 1, last, self._total, self._so_far, self._stream)


async def send_chunks(sender: AsyncSender, ref: Any, chunker: Chunker, window: int, timeout: float | None) -> Any:
    """Send a stream from a coroutine; return the reply to its last chunk. See AgentRef.send_stream."""
    import asyncio  # 16 ms, and most programs never need it

    check_window(window)
    asked: deque[asyncio.Future[Any]] = deque()
    reply = None
    chunks = aiter(chunker)
    try:
        async for chunk in chunks:
            if len(asked) >= window:
                await asyncio.wait_for(asked[0], timeout)
                asked.popleft()
            sending = asyncio.wait_for(sender.begin_ask(ref, chunk), timeout)
            asked.append(asyncio.ensure_future(await sending))
        while asked:
            reply = await asyncio.wait_for(asked[0], timeout)
            asked.popleft()
    except BaseException:
        for future in asked:
            if not future.cancel() and not future.cancelled():
                future.exception()  # looked at, lest the event loop complains that nobody did
        if not chunker.over:
            sender.tell_soon(ref, chunker.aborted())
        raise
    finally:
        with contextlib.suppress(RuntimeError):  # it is where it raised
            await chunks.aclose()  # type: ignore[attr-defined]
    return reply


def _pieces(source: Any, most: int) -> Iterator[Any]:
    """Yield the pieces of what a user gave."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        whole = _flat(source)
        for start in range(0, len(whole), most):
            yield memoryview(whole)[start : start + most]
    elif hasattr(source, "read"):
        while piece := source.read(most):
            if not isinstance(piece, (bytes, bytearray, memoryview)):
                raise TypeError(f"{source!r} gives {type(piece).__name__}, not bytes: open the file in binary mode")
            yield piece
    else:
        yield from map(_flat, source)


def _flat(item: Any) -> Any:
    """Return a bytes-like item as bytes, or as a view of its bytes; anything else as it is."""
    if type(item) is bytes:
        return item
    if isinstance(item, (bytearray, memoryview)):
        view = memoryview(item)
        return view.cast("B") if view.c_contiguous and view.nbytes else view.tobytes()
    return item


def _size_of(source: Any) -> int | None:
    """Return how many bytes there are in all, where that can be known without reading them."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return memoryview(source).nbytes
    if not hasattr(source, "read"):
        return None
    try:
        here = source.tell()
        end = source.seek(0, os.SEEK_END)
        source.seek(here)
    except (AttributeError, OSError, ValueError):  # a pipe, a socket
        return None
    return max(0, int(end) - int(here))
