"""Array agents for the tests. They are imported by the workers, so they live here and not in a test."""

import os
import signal
import tempfile

import numpy as np

from fabric import ArrayAgents

PAYMENT = np.dtype([("amount", "i8"), ("serial", "i8")])
BALANCE = np.dtype([("id", "u4"), ("total", "i8")])


class Accounts(ArrayAgents):
    """Add up what each account is paid, and remember whether the serial numbers of each came in order."""

    dtype = PAYMENT
    reply_dtype = BALANCE

    def __init__(self, ids, start=0):
        self.ids = ids
        self.total = np.full(len(ids), start, "i8")
        self.last = np.full(len(ids), -1, "i8")
        self.received = 0
        self.chunks = 0
        self.in_order = True
        self.views = set()

    def on_records(self, ids, records):
        places = ids - self.ids.start
        replies = np.empty(len(ids), BALANCE)
        replies["id"] = ids
        for row, (place, amount, serial) in enumerate(zip(places, records["amount"], records["serial"], strict=True)):
            self.in_order &= bool(serial > self.last[place])
            self.last[place] = serial
            self.total[place] += amount
            replies["total"][row] = self.total[place]
        self.received += len(ids)
        self.chunks += 1
        self.views.add((ids.flags.writeable, records.flags.writeable, records.flags.aligned, str(ids.dtype)))
        return replies

    def on_message(self, body):
        if body == "group":
            return self.group
        if body == "views":
            return self.views
        if body == "in order":
            return self.in_order
        if body == "received":
            return self.received
        return self.total


class Keeping(Accounts):
    """Accounts whose state outlives a crash. The amount -1 kills the worker the first time that it comes."""

    def on_records(self, ids, records):
        if -1 in records["amount"]:
            _die_once(self)
        return super().on_records(ids, records)

    def snapshot(self):
        return self.total, self.last, self.received, self.in_order

    def restore(self, state):
        self.total, self.last, self.received, self.in_order = state


class Deadly(ArrayAgents):
    """Answer with the record. 1 kills the worker each time that it comes, 2 the first time, 3 raises."""

    dtype = "i8"
    reply_dtype = "i8"

    def on_records(self, ids, records):
        if 1 in records:
            os.kill(os.getpid(), signal.SIGKILL)
        if 2 in records:
            _die_once(self)
        if 3 in records:
            raise ValueError("a three")
        return records


class Giver(ArrayAgents):
    """Return what the message before said."""

    dtype = "f8"
    reply_dtype = "f8"

    def __init__(self, ids):
        self.reply = None

    def on_records(self, ids, records):
        if isinstance(self.reply, str):
            if self.reply == "forward":
                self.context.forward(self.group.hosts[1])
            self.context.reply_later().reply(np.arange(len(ids), dtype=self.reply))
            return None
        return self.reply

    def on_message(self, body):
        self.reply = body


class Walkers(ArrayAgents):
    """Hand a token on: a record goes from id to id, `left` times, straight from worker to worker."""

    dtype = np.dtype([("left", "i4"), ("sum", "i8")])

    def __init__(self, ids, stride):
        self.first, self.stride = ids.start, stride
        self.visits = np.zeros(len(ids), "i8")

    def on_records(self, ids, records):
        np.add.at(self.visits, ids - self.first, 1)
        going = records["left"] > 0
        on = records[going].copy()
        on["left"] -= 1
        self.group.tell_records((ids[going] + self.stride) % len(self.group), on)

    def on_message(self, body):
        if body == "start":
            self.group.tell_records(self.group.ids, np.full(len(self.group), np.array((3, 0), self.dtype)))
        elif body == "flood":
            self.group.tell_records(np.zeros(1 << 20, "i8"), np.zeros(1 << 20, self.dtype))
        elif body == "ask":
            self.group.ask_records([0], np.zeros(1, self.dtype))
        return self.visits


class KeepingWalkers(Walkers):
    """Walkers whose visits outlive a crash."""

    def snapshot(self):
        return self.visits

    def restore(self, state):
        self.visits = state


class Unmakable(ArrayAgents):
    """Raise in the constructor, in the second range."""

    dtype = "i4"

    def __init__(self, ids):
        if ids.start:
            raise RuntimeError(f"not {ids}")

    def on_records(self, ids, records):
        pass


class Wanted(ArrayAgents):
    """Say what the constructor was given."""

    dtype = "i4"

    def __init__(self, ids, first, second="two", *, workers="three"):
        self.given = ids, first, second, workers
        self.stopped = False

    def on_start(self):
        self.of = len(self.group)

    def on_records(self, ids, records):
        pass

    def on_message(self, body):
        return (*self.given, self.of)


def _die_once(agent):
    """Kill this process, unless its predecessor died of the same message: the flag outlives it."""
    flag = f"{tempfile.gettempdir()}/shm-fabric-{os.getppid()}-{agent.ref.address}"
    if os.path.exists(flag):
        os.unlink(flag)
        return
    with open(flag, "x", encoding="utf-8"):
        os.kill(os.getpid(), signal.SIGKILL)


class Slow(ArrayAgents):
    """Add up the bytes of each record, before and after others had time to write; say how often they differed."""

    dtype = "V64"
    reply_dtype = "u8"

    def __init__(self, ids):
        self.changed = 0

    def on_records(self, ids, records):
        before, again = _sums(records), _sums(records.copy())
        for _ in range(3):
            os.sched_yield()
            again = _sums(records)
        self.changed += int((before != again).sum())
        return before

    def on_message(self, body):
        return self.changed


def _sums(records):
    return records.view("u1").reshape(len(records), 64).sum(axis=1, dtype="u8")
