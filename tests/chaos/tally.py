"""Count what handlers did in a file that all processes map: a killed worker's counts survive it.

    agent 0: 10 words | agent 1: 10 words | ...  one writer at a time: the process that hosts the agent
    agent 0: `most` bytes, how often message n was begun | agent 1: ...

The order is judged where a message is handled, by `NEXT`: what arrives is the next message, or one that was begun
before (a successor repeats it); anything later than the next means that one was passed over.
"""

import mmap
import os
from pathlib import Path

WORDS = 10
NEXT = 0  # the least message that was never begun
REPEATS = 1  # messages that were begun before
SKIPPED = 2  # messages that were passed over
BAD = 3  # messages whose content is not what was sent
OWNER = 4  # pid of the process that hosts the agent, and when it was started
BORN = 5
LIVES = 6  # how often the agent was made
OVERLAPS = 7  # how often it was made while the process that hosted it before was still running
ASTRAY = 8  # messages that met with another state than the message before had left
DRIFT = 9  # by how many messages the last of those was ahead of the state, modulo 2^64: behind when it came twice


class Tally:
    """The counts of `agents` agents, each of up to `most` messages."""

    def __init__(self, path: str, agents: int, most: int, create: bool = False) -> None:
        self.path, self.agents, self.most = path, agents, most
        size = agents * (WORDS * 8 + most)
        descriptor = os.open(path, os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0), 0o600)
        try:
            if create:
                os.ftruncate(descriptor, size)  # sparse: pages cost memory when they are first touched
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        whole = memoryview(self._map)
        self._words = whole[: agents * WORDS * 8].cast("Q")
        self._runs = whole[agents * WORDS * 8 :]

    def made(self, agent: int) -> None:
        """Note that the agent was made in this process."""
        words = self.words(agent)
        born = _born(os.getpid())
        if words[OWNER] not in (0, os.getpid()) and _born(words[OWNER]) == words[BORN]:
            words[OVERLAPS] += 1
        words[OWNER], words[BORN] = os.getpid(), born
        words[LIVES] += 1

    def begun(self, agent: int, message: int, intact: bool) -> None:
        """Note that the agent began to handle a message. Killed between two of these lines it is begun again."""
        words = self.words(agent)
        if not intact:
            words[BAD] += 1
        where = agent * self.most + message
        if self._runs[where] < 255:
            self._runs[where] += 1
        due = words[NEXT]
        if message == due:
            words[NEXT] = due + 1
        elif message < due:
            words[REPEATS] += 1
        else:
            words[SKIPPED] += message - due
            words[NEXT] = message + 1

    def words(self, agent: int) -> memoryview:
        """The words of one agent."""
        return self._words[agent * WORDS : (agent + 1) * WORDS]

    def runs(self, agent: int, messages: int) -> bytes:
        """How often each of the agent's first messages was begun, one byte a message."""
        return bytes(self._runs[agent * self.most : agent * self.most + messages])

    def close(self) -> None:
        """Unmap and remove the file."""
        self._words.release()
        self._runs.release()
        self._map = None  # type: ignore[assignment]
        Path(self.path).unlink()


def _born(pid: int) -> int:
    """When a living process was started, in clock ticks; 0 when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])
