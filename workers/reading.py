"""Read the stream of another agent, in a coroutine of an agent: what ask_stream returns in a worker."""

import contextlib
import struct
from typing import Any, Self

from fabric.errors import FabricError
from fabric.flow import Inflow
from fabric.messages import CANCEL, CREDIT, INDEX_MASK, NONE, RAW, STREAM_END, ErrorInfo
from fabric.remote_errors import Undecodable, revive

NO_ITERATING = (
    "a stream in a handler would stop the whole worker while it waits: make on_message an async def and use "
    "`async for item in ref.ask_stream(body)`, or `await ref.send_stream_async(chunks)`"
)
_TAKEN = struct.Struct("<Q")


class WorkerStream:
    """What comes of a stream that a coroutine here reads; the one thread of the worker does it all."""

    def __init__(self, host: Any, question: tuple[int, int, int], window: int, timeout: float | None) -> None:
        """`question` is (agent asked, agent that asks, correlation id)."""
        self._host = host
        self._target, self.speaker, self._correlation = question
        self._flow = Inflow(window)
        self._timeout = timeout
        self._came: Any = None  # what the reader awaits
        self._over = False

    def accept(self, correlation: int, body: Any) -> bool:
        """Take in a reply. False: it is not one that could come now."""
        try:
            self._flow.accept(correlation & INDEX_MASK, body)
        except ValueError:
            return False
        if self._came is not None and not self._came.done():
            self._came.set_result(None)
        return True

    def __iter__(self) -> Self:
        raise FabricError(NO_ITERATING)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        import asyncio  # it is there: this is a coroutine

        if self._over:
            raise StopAsyncIteration
        flow = self._flow
        try:
            async with asyncio.timeout(self._timeout):
                while not flow.items and flow.end is None:
                    self._tell()
                    self._came = self._host.loop().create_future()
                    await self._came
        except TimeoutError:
            raise TimeoutError(f"no item within {self._timeout} s; {flow.taken:,} came before") from None
        finally:
            self._came = None
        if flow.items:
            item = flow.take()
            self._tell()
            return item
        end = flow.end
        self.close()
        if isinstance(end, ErrorInfo) and end.what == STREAM_END:
            raise StopAsyncIteration
        raise end.error if isinstance(end, Undecodable) else revive(end, self._host.codec.allow_pickle)

    def close(self) -> None:
        """Read no more: the other agent's generator is closed. Safe to call twice."""
        if not self._over:
            self._over = True
            self._host.forget_asked(self._correlation)
            if not isinstance(self._flow.end, ErrorInfo):
                self._steer(CANCEL | NONE << 16, b"")

    async def aclose(self) -> None:
        """Do as `close`."""
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at the end of the process its parts may be gone
            self.close()

    def _tell(self) -> None:
        credit = self._flow.credit
        if credit is not None:
            self._flow.told(credit)
            self._steer(CREDIT | RAW << 16, _TAKEN.pack(credit[0]))

    def _steer(self, meta: int, body: bytes) -> None:
        self._host.outbox.steer(meta, self._target, self.speaker, self._correlation, body)
        self._host.woken()
