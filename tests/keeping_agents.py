"""Agents whose state is kept: each remembers all that it handled, in order, so that a loss or a repeat shows."""

import asyncio
import os
import signal

from fabric import Agent


class Ledger(Agent):
    """Keeps what it is told; answers with all of it, and with how often snapshot and restore were called."""

    def __init__(self):
        self.seen = []
        self.restored = 0

    def on_message(self, body):
        if body == "all":
            return self.seen
        if body == "restored":
            return self.restored
        if body == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen.append(body)
        return len(self.seen)

    def snapshot(self):
        return self.seen, self.restored

    def restore(self, state):
        self.seen, self.restored = state
        self.restored += 1


class BatchLedger(Ledger):
    """Does so in batches."""

    def on_batch(self, bodies):
        return [self.on_message(body) for body in bodies]


class AsyncLedger(Ledger):
    """Does so in coroutines that let others run meanwhile."""

    async def on_message(self, body):
        await asyncio.sleep(0)
        return super().on_message(body)


class Teller(Ledger):
    """Keeps what it is told, and passes it on to all that it knows."""

    def __init__(self, others):
        super().__init__()
        self.others = others

    def on_message(self, body):
        if isinstance(body, int):
            for other in self.others:
                other.tell(body)
        return super().on_message(body)


class Unkeepable(Ledger):
    """Its snapshot cannot be had, or not be restored."""

    def __init__(self, how="snapshot"):
        super().__init__()
        self.how = how

    def snapshot(self):
        if self.how == "snapshot":
            raise ValueError("no snapshot of this")
        return self.seen, self.restored

    def restore(self, state):
        raise ValueError("this cannot be restored")


class Large(Agent):
    """Its state is large."""

    def __init__(self):
        self.count = 0

    def on_message(self, body):
        self.count += 1
        return self.count

    def snapshot(self):
        return self.count, bytes(100_000)

    def restore(self, state):
        self.count = state[0]


class Promiser(Agent):
    """Puts off all its replies."""

    def __init__(self):
        self.handles = []

    def on_message(self, body):
        if body == "drop":
            self.handles.clear()
        elif body == "answer":
            for handle in self.handles:
                handle.reply("at last")
            self.handles.clear()
        else:
            self.handles.append(self.context.reply_later())


class Huge(Agent):
    """Its state is larger than a journal; tells how much its worker's arena holds when asked for it."""

    NUMBERS = 600_000  # of 8 bytes each, and as many again of each value

    def __init__(self):
        self.seen = []

    def on_message(self, body):
        if body == "arena":
            return self._host.arena.usage()
        if body != "all":
            self.seen.append(body)
        return self.seen

    def snapshot(self):
        return self.seen, bytes([len(self.seen) % 256]) * 8 * self.NUMBERS

    def restore(self, state):
        self.seen, pattern = state
        assert pattern == bytes([len(self.seen) % 256]) * 8 * self.NUMBERS
