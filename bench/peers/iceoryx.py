"""iceoryx2's Python API: a publisher and a subscriber in shared memory, samples of one size.

The subscriber spins, or waits for an event service that the publisher rings once per sample. Each run has a
prefix and a folder of its own, since a global file of iceoryx2 stays in /dev/shm even after an orderly end.
"""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench import bodies
from bench.latency import ping
from bench.peers import stream
from bench.sample import Sample

iox2: Any = importlib.import_module("iceoryx2")

BUFFER = 1_024  # samples that a subscriber holds
STOP = bytes(bodies.SIZE)


class Node:
    """This process's side: opens services by the name they share with the other process."""

    def __init__(self, folder: str, size: int = bodies.SIZE, held: int = BUFFER) -> None:
        """`size` is that of every sample in bytes, `held` how many of them a subscriber holds."""
        self._payload, self._size, self._held = ctypes.c_uint8 * size, size, held
        iox2.set_log_level(iox2.LogLevel.Fatal)
        config = iox2.config.default()
        config.global_cfg.prefix = iox2.FileName.new(Path(folder).name)
        config.global_cfg.root_path = iox2.Path.new(folder)
        builder = iox2.NodeBuilder.new().config(config)
        self._node = builder.signal_handling_mode(iox2.SignalHandlingMode.Disabled).create(iox2.ServiceType.Ipc)

    def sender(self, name: str) -> Callable[[bytes], None]:
        """Return what publishes one body; it waits while the subscriber's buffer is full."""
        publisher = self.publisher(name)

        def send(body: bytes) -> None:
            sample = publisher.loan_uninit()
            ctypes.memmove(sample.payload_ptr, body, self._size)
            sample.assume_init().send()

        return send

    def receiver(self, name: str) -> Callable[[], bytes | None]:
        """Return what takes one body, or None when there is none."""
        subscriber = self.subscriber(name)

        def receive() -> bytes | None:
            sample = subscriber.receive()
            if sample is None:
                return None
            body = ctypes.string_at(sample.payload_ptr, self._size)
            sample.delete()
            return body

        return receive

    def publisher(self, name: str) -> Any:
        """Return what loans and sends samples."""
        strategy = iox2.BackpressureStrategy.RetryUntilDelivered
        return self._samples(name).publisher_builder().backpressure_strategy(strategy).create()

    def subscriber(self, name: str) -> Any:
        """Return what receives samples."""
        return self._samples(name).subscriber_builder().buffer_size(self._held).create()

    def notifier(self, name: str) -> Any:
        """Return what wakes the listeners of that name."""
        return self._events(name).notifier_builder().create()

    def listener(self, name: str) -> Any:
        """Return what sleeps until it is notified."""
        return self._events(name).listener_builder().create()

    def _samples(self, name: str) -> Any:
        service = self._service(name).publish_subscribe(self._payload)
        return service.subscriber_max_buffer_size(self._held).enable_safe_overflow(False).open_or_create()

    def _events(self, name: str) -> Any:
        return self._service(f"{name}-event").event().open_or_create()

    def _service(self, name: str) -> Any:
        return self._node.service_builder(iox2.ServiceName.new(name))


def tell(messages: int) -> Sample:
    """Stream the messages to a subscriber that spins."""
    with own_folder() as folder, stream.consumer(_consume, folder, messages) as verdicts:
        verdicts.recv_bytes()  # it has subscribed
        send = Node(folder).sender("stream")

        def send_all(some: list[bytes]) -> None:
            for body in some:
                send(body)

        return stream.send(verdicts, messages, send_all, "the consumer spins")


def ask(trips: int, silence_us: float, spin: bool) -> Sample:
    """Publish one message and wait for its echo, both sides spinning or both sleeping on events."""
    ready, theirs = multiprocessing.Pipe()
    with own_folder() as folder:
        process = multiprocessing.Process(target=_echo, args=(theirs, folder, spin), daemon=True)
        process.start()
        send, receive = _ways(Node(folder), spin, "there", "back")
        ready.recv_bytes()

        def there_and_back(body: bytes) -> bytes:
            send(body)
            return receive()

        try:
            return ping(there_and_back, trips, silence_us)
        finally:
            send(STOP)
            process.join()


@contextmanager
def own_folder() -> Iterator[str]:
    """Give a folder whose name is also the prefix in /dev/shm, and remove both."""
    folder = tempfile.mkdtemp(prefix="bench-iox2-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for left in Path("/dev/shm").glob(f"{Path(folder).name}*"):
            left.unlink(missing_ok=True)


def _consume(verdicts: Connection, folder: str, messages: int) -> None:
    receive = Node(folder).receiver("stream")
    verdicts.send_bytes(stream.READY)

    def receive_all(due: int) -> list[bytes]:
        seen: list[bytes] = []
        while len(seen) < due:
            if (body := receive()) is not None:
                seen.append(body)
        return seen

    stream.consume(verdicts, messages, receive_all)


def _echo(ready: Connection, folder: str, spin: bool) -> None:
    send, receive = _ways(Node(folder), spin, "back", "there")
    ready.send_bytes(stream.READY)
    while (body := receive()) != STOP:
        send(body)


def _ways(node: Node, spin: bool, out: str, into: str) -> tuple[Callable[[bytes], None], Callable[[], bytes]]:
    """Return how to send one body and how to wait for one."""
    take, publish = node.receiver(into), node.sender(out)
    if spin:

        def spinning() -> bytes:
            while (body := take()) is None:
                pass
            return body

        return publish, spinning

    bell, sleeper = node.notifier(out), node.listener(into)

    def ringing(body: bytes) -> None:
        publish(body)
        bell.notify()

    def sleeping() -> bytes:
        while (body := take()) is None:
            sleeper.blocking_wait()
        return body

    return ringing, sleeping
