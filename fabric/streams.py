"""Read streams of agents in the coordinator, and send them streams of chunks.

    AskStream ── what the user holds: when it is dropped, the stream is cancelled
        │ weak ▲                                         lane  ──STREAM, CANCEL──▶ worker  workers/streams.py
    Incoming ── the entry in Replies, filled by who drains     ──CREDIT─(control)─▶
        Inflow  what came, what was taken                lane ◀──items, numbered──

A CANCEL follows the question in its lane, so a question that was cancelled and comes again after a crash is
cancelled again. Credits take the control lane: in the lane of the question, which is held back as long as the
stream is open, a long stream would pile them up.
"""

import _thread
import contextlib
import struct
import weakref
from types import TracebackType
from typing import Any, Self

from fabric.agent import AgentRef
from fabric.chunks import Chunker
from fabric.errors import AgentNotFoundError, BackpressureError, FabricError
from fabric.flow import Inflow, check_window
from fabric.lane_ends import Post
from fabric.messages import CANCEL, CREDIT, DIRECT, INDEX_MASK, MESSAGE, NONE, RAW, STREAM, STREAM_END, ErrorInfo
from fabric.pending import NO_REPLIES, Entry, Failed, Finish, Replied, deadline_of, error_in
from fabric.switchboard import Switchboard

_TAKEN = struct.Struct("<Q")
_END = ErrorInfo(STREAM_END, "", "", 0, None)


class Incoming(Entry):
    """What comes of a stream."""

    __slots__ = ("flow", "waiter")
    stays = True

    def __init__(self, window: int) -> None:
        super().__init__(())
        self.flow = Inflow(window)
        self.waiter: Finish | None = None  # tells an event loop that something came

    def accept(self, replies: Replied) -> Finish | None:
        wrong: ValueError | None = None
        try:
            for correlation, body in zip(replies.correlations(), replies.bodies, strict=True):
                self.flow.accept(correlation & INDEX_MASK, body)
        except ValueError as error:
            wrong = error
        finish = self.wake()
        if wrong is not None and finish is None:
            raise wrong
        return finish

    def fail(self, slot: int, error: FabricError) -> Finish | None:
        if self.flow.end is None:
            self.flow.end = Failed(error)
        return self.wake()

    def wake(self) -> Finish | None:
        """Wake the reader if it is a thread; return how, if it is an event loop."""
        self.complete()
        waiter, self.waiter = self.waiter, None
        return waiter


class AskStream:
    """Iterate over what an agent yields, with `for` or `async for`: see AgentRef.ask_stream. One reader at a time."""

    def __init__(self, switchboard: Switchboard, ref: AgentRef, body: Any, window: int, timeout: float | None) -> None:
        deadline_of(timeout)  # checks it
        self._over = True  # until all of it stands
        self._switchboard = switchboard
        self._replies = switchboard.replies
        self._ref = ref
        self._timeout = timeout
        self._entry = Incoming(check_window(window))
        self._flow = self._entry.flow
        encoding, data = switchboard.codec.encode(body, ref._json)
        self._correlation = self._replies.expect(self._entry)
        self._question: Post | None = None  # while it is still to be sent
        try:
            self._entry.slots = (switchboard.slot_of(ref._address),)
            correlation = self._correlation | DIRECT | window
            self._question = Post(STREAM | encoding << 16, ref._address, correlation, data)
            self._over = False
            switchboard.streams[self._correlation] = weakref.ref(self)
            self._ask(wait=False)
        except AgentNotFoundError as error:
            self._entry.fail(0, error)
            self._over = False
        except BackpressureError:
            pass  # whoever reads waits for room
        except BaseException:
            self._over = True
            self._replies.forget(self._correlation)
            raise

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self._over:
            raise StopIteration
        deadline = deadline_of(self._timeout)
        try:
            self._ask(wait=True)
            while True:
                self._entry.done = False  # before the look: what comes after it says so again
                if self._flow.items:
                    return self._take()
                if self._flow.end is not None:
                    raise self._ending(StopIteration())
                self._tell(wait=True)
                if not self._replies.wait(self._entry, deadline):
                    raise TimeoutError(self._late())
        except (TimeoutError, StopIteration):
            raise
        except BaseException:
            self.close()
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._over:
            raise StopAsyncIteration
        import asyncio  # 16 ms, and most programs never need it

        try:
            async with asyncio.timeout(self._timeout):
                await self._send_async(self._ask)
                while not self._flow.items and self._flow.end is None:
                    await self._send_async(self._tell)
                    await self._arrival(asyncio.get_running_loop())
        except TimeoutError:
            raise TimeoutError(self._late()) from None
        if self._flow.items:
            return self._take()
        raise self._ending(StopAsyncIteration())

    def close(self) -> None:
        """Read no more: the agent's generator is closed. Safe to call twice, and by finalisers."""
        if self._over:
            return
        self._over = True
        self._replies.forget(self._correlation)
        self._switchboard.streams.pop(self._correlation, None)
        end = self._flow.end
        if self._question is not None or type(end) is ErrorInfo or type(end) is Failed:
            return  # it was not asked for, or the worker knows
        self._flow.items.clear()
        self._cancel()

    async def aclose(self) -> None:
        """Do as `close`."""
        self.close()

    def give_up(self, error: FabricError) -> None:
        """Let whoever reads get this error after what came. Any thread."""
        if self._flow.end is None:
            self._cancel()
        finish = self._entry.fail(0, error)
        if finish is not None:
            self._replies.run_later(finish)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_over", True):
            self.close()

    def __repr__(self) -> str:
        return f"<AskStream from {self._ref!r}: {self._flow.taken:,} items taken>"

    def _ask(self, wait: bool) -> None:
        if self._question is not None:
            self._switchboard.post(self._entry.slots[0], self._question, self._timeout, wait)
            self._question = None

    def _tell(self, wait: bool) -> None:
        """Tell the worker how far we are, if it is time for that."""
        credit = self._flow.credit
        if credit is None:
            return
        record = Post(CREDIT | RAW << 16, self._ref._address, self._correlation, _TAKEN.pack(credit[0]))
        try:
            self._switchboard.post(self._entry.slots[0], record, self._timeout, wait)
        except BackpressureError:
            raise
        except FabricError:
            pass  # the agent or its worker is gone: the stream is about to end with what says so
        self._flow.told(credit)

    def _take(self) -> Any:
        item = self._flow.take()
        with contextlib.suppress(BackpressureError):  # said with the next, and before anybody waits
            self._tell(wait=False)
        return item

    def _ending(self, regular: BaseException) -> BaseException:
        """Be over; return what says why."""
        end = self._flow.end
        self.close()
        if type(end) is ErrorInfo and end.what == STREAM_END:
            return regular
        return error_in(end, self._switchboard.codec.allow_pickle) or regular

    def _late(self) -> str:
        return f"no item from {self._ref!r} within {self._timeout} s; {self._flow.taken:,} came before"

    async def _send_async(self, send: Any) -> None:
        try:
            send(wait=False)
        except BackpressureError:  # the loop must not wait for room: a thread does
            import asyncio

            await asyncio.to_thread(send, wait=True)

    async def _arrival(self, loop: Any) -> None:
        """Wait until there is something to look at."""
        came, flow = loop.create_future(), self._flow

        def arrived() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(lambda: came.done() or came.set_result(None))

        self._entry.waiter = arrived
        try:
            if not flow.items and flow.end is None and flow.credit is None:
                self._replies.attend(self._correlation)
                await came
        finally:
            self._entry.waiter = None

    def _cancel(self) -> None:
        """Tell the worker that nobody reads. A finaliser may run while this thread holds any lock: never wait."""
        slot, address, correlation = self._entry.slots[0], self._ref._address, self._correlation
        switchboard, meta = self._switchboard, CANCEL | NONE << 16

        def wait_and_send() -> None:
            with contextlib.suppress(FabricError):
                switchboard.post(slot, Post(meta, address, correlation, b""), None)

        with contextlib.suppress(FabricError, RuntimeError):  # RuntimeError: the interpreter is on its way out
            if not switchboard.post_at_once(slot, meta, address, correlation):
                _thread.start_new_thread(wait_and_send, ())


class _Acks(Entry):
    """Replies to the chunks of one stream. `owed` are those that have none."""

    __slots__ = ("error", "last", "owed", "reply")
    stays = True

    def __init__(self, slot: int) -> None:
        super().__init__((slot,))
        self.owed: set[int] = set()
        self.last = -1
        self.reply: Any = None
        self.error: Any = None

    def accept(self, replies: Replied) -> None:
        for correlation, body in zip(replies.correlations(), replies.bodies, strict=True):
            index = correlation & INDEX_MASK
            if index in self.owed:  # else it comes again, from a successor
                if type(body) in NO_REPLIES:
                    self.error = self.error or body
                elif index == self.last:
                    self.reply = body
                self.owed.discard(index)
        self.complete()

    def fail(self, slot: int, error: FabricError) -> None:
        self.error = Failed(error)
        self.owed.clear()
        self.complete()


def send_stream(switchboard: Switchboard, ref: AgentRef, chunker: Chunker, window: int, timeout: float | None) -> Any:
    """Send a stream and return the reply to its last chunk: see AgentRef.send_stream. What is sent last if it
    fails is the caller's business."""
    address, codec, replies = ref._address, switchboard.codec, switchboard.replies
    slot = switchboard.slot_of(address)
    entry = _Acks(slot)
    token = replies.expect(entry)

    def wait_until(few: int) -> None:
        deadline = deadline_of(timeout)
        while True:
            entry.done = False
            if entry.error is not None:
                raise error_in(entry.error, codec.allow_pickle)  # type: ignore[misc]
            if len(entry.owed) <= few:
                return
            if not replies.wait(entry, deadline):
                raise TimeoutError(f"{ref!r} has not answered a chunk within {timeout} s; the stream is aborted")

    try:
        for chunk in chunker:
            if len(entry.owed) >= window or entry.error is not None:
                wait_until(window - 1)
            index = chunk.index & INDEX_MASK
            try:
                encoding, data = codec.encode(chunk, ref._json)
            except BackpressureError as error:  # it has waited for arena_timeout
                raise TimeoutError(f"no room in the arena for a chunk to {ref!r}: {error}") from error
            entry.owed.add(index)
            entry.last = index if chunk.is_last else -1
            switchboard.post(slot, Post(MESSAGE | encoding << 16, address, token | index, data), timeout)
        wait_until(0)
        return entry.reply
    finally:
        replies.forget(token)
