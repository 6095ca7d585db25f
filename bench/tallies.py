"""What receives the records of bench.records, in the fabric and in its peers alike: it counts and adds up."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.sample import WrongAnswerError
from fabric import ArrayAgents

RECORD = np.dtype([("serial", "u8"), ("payload", "u1", (56,))])
Verdict = tuple[list[int], int, int, bool]


class Tally:
    """How many records each agent got, what their serial numbers add up to, and whether these only grew."""

    def __init__(self, agents: int) -> None:
        self.agents = agents
        self.begin()

    def begin(self) -> None:
        """Count from here on."""
        self.seen = np.zeros(self.agents, "i8")
        self.serials = self.payload = 0
        self.last, self.in_order = -1, True

    def take(self, ids: Any, records: Any) -> None:
        """Take in a chunk."""
        serial = records["serial"]
        self.seen += np.bincount(ids, minlength=self.agents)
        self.serials += int(serial.sum())
        self.payload += int(records["payload"][:, 0].sum())
        self.in_order &= int(serial[0]) > self.last and bool((serial[1:] > serial[:-1]).all())
        self.last = int(serial[-1])

    def verdict(self) -> Verdict:
        """Return what was taken in since the last one."""
        found = self.seen.tolist(), self.serials, self.payload, self.in_order
        self.begin()
        return found


class Sink(ArrayAgents):
    """A range of agents that tally what they are told; they answer with the serial numbers."""

    dtype = RECORD
    reply_dtype = "u8"

    def __init__(self, ids: range) -> None:
        self.tally = Tally(len(ids))
        self.first = ids.start

    def on_records(self, ids: Any, records: Any) -> Any:
        self.tally.take(ids - self.first, records)
        return records["serial"]

    def on_message(self, body: object) -> Verdict:
        return self.tally.verdict()


class Forgetful(Sink):
    """Forgets the first record of each chunk, and answers as if it did not."""

    def on_records(self, ids: Any, records: Any) -> Any:
        super().on_records(ids[1:], records[1:])
        return records["serial"]


class Liar(Sink):
    """Swaps two replies."""

    def on_records(self, ids: Any, records: Any) -> Any:
        replies = super().on_records(ids, records).copy()
        replies[:2] = replies[1::-1]
        return replies


def make(records: int, agents: int) -> tuple[Any, Any]:
    """Return ids at random and records with growing serial numbers; the same each time."""
    chance = np.random.default_rng(7)
    ids = chance.integers(0, agents, records)
    sent = np.frombuffer(chance.bytes(records * RECORD.itemsize), RECORD).copy()
    sent["serial"] = np.arange(records)
    return ids, sent


def check(verdicts: list[Verdict], ids: Any, sent: Any, agents: int) -> None:
    """Compare what arrived with what was sent.

    Raises: WrongAnswerError.
    """
    due = np.bincount(ids, minlength=agents).tolist(), int(sent["serial"].sum()), int(sent["payload"][:, 0].sum())
    found = [count for seen, *_ in verdicts for count in seen], sum(v[1] for v in verdicts), sum(v[2] for v in verdicts)
    if found != due:
        raise WrongAnswerError(f"{sum(found[0]):,} records arrived, sums {found[1:]}; due were {len(ids):,}, {due[1:]}")
    if not all(verdict[3] for verdict in verdicts):
        raise WrongAnswerError("the records of one range did not arrive in order")
