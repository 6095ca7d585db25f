"""Ask for streams, and send them, for the agents of a worker: that part of WorkerMessenger."""

import contextlib
import weakref
from abc import abstractmethod
from collections.abc import Awaitable
from typing import Any

from fabric.agent import AgentRef
from fabric.chunks import Chunker, send_chunks
from fabric.codec import Codec
from fabric.errors import BackpressureError, FabricError
from fabric.flow import check_window
from fabric.messages import DIRECT, INDEX_BITS, STREAM
from fabric.workers.context import current_ticket
from fabric.workers.later import SOON
from fabric.workers.outbox import Outbox
from fabric.workers.reading import NO_ITERATING, WorkerStream


class StreamMessenger:
    """What references do in a worker about streams."""

    codec: Codec
    outbox: Outbox
    reading: "weakref.WeakSet[WorkerStream]"
    _asked: dict[int, Any]

    @abstractmethod
    def require_alive(self, address: int) -> None: ...
    @abstractmethod
    def tell(self, ref: AgentRef, body: Any, timeout: float | None, wait: bool) -> None: ...
    @abstractmethod
    def tell_later(self, seconds: float, ref: AgentRef, body: Any) -> None: ...
    @abstractmethod
    def ask_async(self, ref: AgentRef, body: Any, timeout: float | None) -> Awaitable[Any]: ...
    @abstractmethod
    def woken(self) -> None: ...
    @abstractmethod
    def _next_token(self) -> int: ...
    @abstractmethod
    def _speaker(self) -> int: ...

    def ask_stream(self, ref: AgentRef, body: Any, window: int, timeout: float | None) -> WorkerStream:
        """Queue a question; iterate over what comes. Only in a coroutine."""
        if current_ticket.get() is None:
            raise FabricError(NO_ITERATING)
        check_window(window)
        encoding, data = self.codec.encode(body, ref._json)
        self.require_alive(ref._address)
        correlation, speaker = self._next_token() << INDEX_BITS, self._speaker()
        self.outbox.tell(ref._address, speaker, correlation | DIRECT | window, encoding, data, kind=STREAM)
        stream = WorkerStream(self, (ref._address, speaker, correlation), window, timeout)
        self.reading.add(stream)
        self._asked[correlation >> INDEX_BITS] = weakref.ref(stream)  # whoever drops it cancels it
        self.woken()
        return stream

    def stop_reading(self, address: int) -> None:
        """Close the streams that an agent reads, for it is being stopped."""
        for stream in [stream for stream in self.reading if stream.speaker == address]:
            stream.close()

    def forget_asked(self, correlation: int) -> None:
        """Wait no more for replies to a question."""
        self._asked.pop(correlation >> INDEX_BITS, None)

    def send_stream(self, ref: AgentRef, source: Any, total: int | None, window: int, timeout: float | None) -> Any:
        """Refuse, as `ask`."""
        raise FabricError(NO_ITERATING)

    def send_stream_async(
        self, ref: AgentRef, source: Any, total: int | None, window: int, timeout: float | None
    ) -> Awaitable[Any]:
        """See AgentRef.send_stream_async. Only in a coroutine."""
        return send_chunks(self, ref, Chunker(source, total, self.outbox.limit), window, timeout)

    async def begin_ask(self, ref: AgentRef, body: Any) -> Awaitable[Any]:
        """Queue a question, when the outbox has room for it; return what awaits the answer."""
        import asyncio

        while True:
            try:
                return self.ask_async(ref, body, None)
            except BackpressureError:
                await asyncio.sleep(SOON)

    def tell_soon(self, ref: AgentRef, body: Any) -> None:
        """Queue a message, now or when the outbox has room; an agent that is gone need not know."""
        with contextlib.suppress(FabricError):
            try:
                self.tell(ref, body, None, False)
            except BackpressureError:
                self.tell_later(SOON, ref, body)
