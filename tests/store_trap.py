"""Die at a chosen store to the segment: what test_kill_sender.py and test_kill_worker.py have processes do.

    a process of a test                              native/store_trap.c, loaded by ctypes
      Trap(library).arm(moment)   --mprotect-->        what it may write is read-only
      any Python code  ---store--> SIGSEGV             count; SIGKILL if it is this one; let it through

The method is that of aos, lockless_queue_stepping.cc. There are hundreds of moments to die at. The tests take a
sample (KILL_SEED=N takes that of a run that failed); `-m soak` takes all of them.
"""

import ctypes
import os
import random
import re
import subprocess
from pathlib import Path
from typing import Any

from fabric import Agent

NEVER = 2**64 - 1
SOURCE = Path(__file__).parent / "native" / "store_trap.c"
SEED = int(os.environ.get("KILL_SEED", random.randrange(10**6)))
A_FEW, ALL = 16, 10**6  # moments to die at


def compiled(folder: Path) -> str:
    """Compile tests/native/store_trap.c; return the path of the library."""
    path = str(folder / "store_trap.so")
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([os.environ.get("CC", "cc"), *flags, "-o", path, str(SOURCE)], check=True)
    return path


def sample(stores: int, most: int) -> list[int]:
    """Choose the moments to die at among those of so many stores; there are two for each."""
    moments = range(2 * stores)
    print(f"KILL_SEED={SEED}: {min(len(moments), most)} of {len(moments)} moments")
    return sorted(random.Random(SEED).sample(moments, min(len(moments), most)))


class Trap:
    """The stores of this process to what it may write of a segment."""

    def __init__(self, library: str) -> None:
        """Load the compiled tests/native/store_trap.c."""
        self._library = ctypes.CDLL(library)
        self._library.store_trap_arm.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]
        self._library.store_trap_stores.restype = ctypes.c_uint64

    def arm(self, moment: int, mapping: tuple[int, int] | None = None) -> None:
        """Be killed at this moment: 2 n is before store n, 2 n + 1 right after it. `mapping`: (address, bytes)."""
        rc = self._library.store_trap_arm(*(mapping or own_mapping()), moment)
        if rc != 0:
            raise OSError(-rc, os.strerror(-rc))

    def disarm(self) -> int:
        """Be killed no longer; return how many stores there were."""
        rc = self._library.store_trap_disarm()
        if rc != 0:
            raise OSError(-rc, os.strerror(-rc))
        return int(self._library.store_trap_stores())


def own_mapping() -> tuple[int, int]:
    """Return (address, bytes) of the one writable mapping of a segment in this process."""
    found = re.findall(r"^(\w+)-(\w+) rw-s .*/memfd:shm-fabric", Path("/proc/self/maps").read_text(), re.MULTILINE)
    if len(found) != 1:
        raise RuntimeError(f"{len(found)} writable mappings of a segment, and one was to be there")
    begin, end = (int(number, 16) for number in found[0])
    return begin, end - begin


class Trapped(Agent):
    """Answers with what it was sent, or tells it to a witness. Its whole worker can be made to die at a store."""

    def __init__(self, library: str, witness: Any = None, fault: str = "") -> None:
        """`fault`: the name of one of FAULTS, seeded in this worker."""
        self._library = library
        self._witness = witness
        self._trap: Trap | None = None
        if fault:
            FAULTS[fault]()

    def arm(self, moment: int, flag: str) -> bool:
        """Arm the trap, once for each flag: a successor that gets the same message again must not die again."""
        try:
            os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        self._trap = Trap(self._library)
        self._trap.arm(moment)
        return True

    def on_message(self, body: Any) -> Any:
        if isinstance(body, dict):
            return self.arm(**body)
        if body == "disarm":
            trap, self._trap = self._trap, None
            return None if trap is None else trap.disarm()
        if self._witness is None:
            return body
        self.context.tell(self._witness, body)
        return len(body)


class Witness(Agent):
    """Remembers the number that each text begins with; asked for "all", says them."""

    def __init__(self) -> None:
        self._seen: list[int] = []

    def on_message(self, body: str) -> Any:
        if body == "all":
            return self._seen
        self._seen.append(int(body.split()[0]))
        return None


class Keeper(Agent):
    """Adds what it is sent, keeps the sum across a crash, tells it to a witness, and answers with it."""

    def __init__(self, witness: Any) -> None:
        self._witness = witness
        self._total = 0

    def on_message(self, body: int) -> int:
        self._total += body
        self.context.tell(self._witness, str(self._total))
        return self._total

    def snapshot(self) -> int:
        return self._total

    def restore(self, state: int) -> None:
        self._total = state


class Promiser(Agent):
    """Tells one witness of what it is sent at once, another later, and answers."""

    def __init__(self, now: Any, later: Any) -> None:
        self._now, self._later = now, later

    def on_message(self, body: str) -> int:
        self.context.tell(self._now, body)
        self.context.tell_later(0.0, self._later, body)
        return len(body)


class Delayer(Agent):
    """Tells a witness of what it is sent, and answers when it is told to."""

    def __init__(self, witness: Any) -> None:
        self._witness = witness
        self._handles: list[Any] = []

    def on_message(self, body: str) -> None:
        if body == "answer":
            handles, self._handles = self._handles, []
            for handle in handles:
                handle.reply("at last")
            return
        self.context.tell(self._witness, body)
        self._handles.append(self.context.reply_later())


class Asker(Agent):
    """Asks another agent, one question after the other, and answers with its answers."""

    def __init__(self, other: Any) -> None:
        self._other = other

    async def on_message(self, bodies: Any) -> Any:
        return [await self._other.ask_async(body) for body in bodies]


class Writer(Agent):
    """Appends what it is sent to a file, which outlives everybody."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)

    def on_message(self, body: Any) -> None:
        os.write(self._file, b"%s\n" % body)


def _commit_before_publishing() -> None:
    """Seed a fault in this worker: a message is handed back before its reply is out."""
    from fabric.workers.publisher import Publisher

    publish = Publisher.publish

    def wrong(self: Any, received: Any, *rest: Any) -> None:
        self._peer.commit(received.lane, received.end)
        publish(self, received, *rest)

    Publisher.publish = wrong  # type: ignore[method-assign]


def _publish_before_saying_so() -> None:
    """Seed a fault in this worker: what the publication of a slice means is written down behind it."""
    from fabric.ring import Peer

    pass_on = Peer.pass_on

    def wrong(self: Any, lane: int, end: int, behind: bool, records: bytes) -> int:
        done = pass_on(self, -1, 0, behind, records)
        if lane >= 0:
            self.intend_slice(2, lane, end)
        return done

    Peer.pass_on = wrong  # type: ignore[method-assign]


FAULTS = {"commit, then publish": _commit_before_publishing, "publish, then intend": _publish_before_saying_so}
