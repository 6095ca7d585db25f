"""Processes of a Loopback with their arenas: what is sent from one of them is received as views by another."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fabric.codec import Codec
from fabric.config import FabricConfig
from fabric.messages import MESSAGE
from fabric.payloads import open_arena
from fabric.receiver import Received, Receiver
from fabric.sender import Sender, make_batch
from tests.loopback import Loopback, loopback

PAGE = 4096
ARENA_BYTES = 256 * PAGE


class End:
    """One process: sends, receives, and has an arena. Bodies of a page and more go through that."""

    def __init__(self, loop: Loopback, process: int, patience: float = 0.0, memory_left: int = 2**40) -> None:
        self.peer, self.process = loop.peers[process], process
        self.layout, self.whole = loop.segments[process].layout, loop.segments[process].whole
        self.codec = Codec()
        self.receiver = Receiver(loop.segments[process], self.peer, self.codec)
        self.memory_left = memory_left
        config = FabricConfig(arena_threshold=PAGE, arena_timeout=patience)
        arena = open_arena(
            loop.segments[process], self.peer, self.codec, self.receiver, config, lambda: self.memory_left
        )
        assert arena is not None
        self.arena = arena

    def send(self, to: int, *bodies: Any) -> None:
        """Send these in one batch."""
        encoded = self.codec.encode_many(bodies, reader=to)
        assert Sender(self.peer, to).put(make_batch(MESSAGE, encoded, 7, len(bodies)))

    def receive(self) -> Received:
        """Receive a run, which is not committed."""
        received = self.receiver.receive()
        assert received is not None
        return received

    def commit(self, received: Received) -> None:
        """Commit a run, and give back what could not be before."""
        self.receiver.commit(received.lane, received.end)
        self.receiver.receive()

    def take(self) -> Any:
        """Receive a run, commit it, and return its bodies: of one, the body."""
        received = self.receive()
        self.commit(received)
        return received.bodies[0] if received.count == 1 else received.bodies

    @property
    def lent(self) -> tuple[int, int]:
        """How many loans are out, and how many blocks there are."""
        usage = self.arena.usage()
        return usage[3], usage[5]

    def close(self) -> None:
        """Close as a process does."""
        self.whole = None
        self.receiver.close()
        self.arena.close()


@contextmanager
def ends(count: int = 3, arena_bytes: int = ARENA_BYTES, **options: Any) -> Iterator[list[End]]:
    """Make so many Ends on one segment for the length of a with statement."""
    with loopback(count - 1, arena_bytes=arena_bytes) as loop:
        made = [End(loop, process, **options) for process in range(count)]
        try:
            yield made
        finally:
            for end in made:
                end.close()
