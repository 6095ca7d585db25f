"""tell_later and workers that die: a successor sends what was promised, once."""

import os
import signal

import pytest

from fabric import Agent, Fabric, WorkerLostError
from tests.agents import Recorder
from tests.waiting import until

PATIENCE = 30  # seconds until something is taken to hang


class Promiser(Agent):
    """Told (seconds, body), sends that to its witness then; asked so, it answers when that is written down."""

    def __init__(self, witness):
        self.witness = witness

    def on_message(self, message):
        seconds, *bodies = message
        for body in bodies:
            self.context.tell_later(seconds, self.witness, body)
        return len(bodies)


class Starter(Promiser):
    """Promises when it starts: its first life, which leaves a mark, for a day to come, a later one for now."""

    def __init__(self, witness, mark):
        super().__init__(witness)
        self.mark = mark

    def on_start(self):
        seconds = 0 if os.path.exists(self.mark) else 100_000
        self.context.tell_later(seconds, self.witness, "started")
        with open(self.mark, "w", encoding="utf-8"):
            pass


class AsyncPromiser(Promiser):
    async def on_message(self, message):
        return Promiser.on_message(self, message)


class KeepingPromiser(Promiser):
    """Counts what it has promised, and keeps that."""

    count = 0

    def on_message(self, message):
        if message == "count":
            return self.count
        made = super().on_message(message)
        self.count += made
        return made

    def snapshot(self):
        return self.count

    def restore(self, state):
        self.count = state


class BatchPromiser(Promiser):
    def on_batch(self, messages):
        return [Promiser.on_message(self, message) for message in messages]


def _kill(fab):
    """Kill the first worker, and wait for its successor."""
    before, pid = fab.statistics().restarts, fab.statistics().workers[0].pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: fab.statistics().restarts > before and fab.statistics().workers[0].pid not in (None, pid))


@pytest.fixture
def letters():
    return []


@pytest.fixture
def fab(letters):
    with Fabric(workers=2, on_error=letters.append, journal_bytes=2**18, max_restarts=100) as fabric:
        yield fabric


@pytest.fixture
def witness(fab):
    return fab.spawn_batch(Recorder, 1, placement=1)[0]


def _promise(promiser, seconds, *bodies):
    """Have it promise, and wait until that is written down: the next message is not handled before."""
    assert promiser.ask((seconds, *bodies), timeout=PATIENCE) == len(bodies)
    assert promiser.ask((0,), timeout=PATIENCE) == 0


def _seen(witness, count):
    """Wait until the witness has so many, then tell what it has."""
    until(lambda: len(witness.ask("all", timeout=PATIENCE)) >= count)
    return witness.ask("all", timeout=PATIENCE)


@pytest.mark.parametrize("kind", [Promiser, AsyncPromiser, KeepingPromiser, BatchPromiser])
def test_a_successor_sends_what_was_to_be_sent_later(fab, witness, kind):
    promiser = fab.spawn_batch(kind, 1, placement=0, witness=witness)[0]
    _promise(promiser, 0.3, "a", ["b"], b"c")
    _kill(fab)
    _kill(fab)
    assert _seen(witness, 3) == ["a", ["b"], b"c"]
    _promise(promiser, 0, "last")
    assert _seen(witness, 4) == ["a", ["b"], b"c", "last"]


@pytest.mark.parametrize("kind", [Promiser, KeepingPromiser])
def test_what_was_sent_is_not_sent_again(fab, witness, kind):
    promiser = fab.spawn_batch(kind, 1, placement=0, witness=witness)[0]
    for number in range(5):
        _promise(promiser, 0.001, number)
    assert _seen(witness, 5) == list(range(5))
    _promise(promiser, 1_000, "never")
    _kill(fab)
    _promise(promiser, 0.01, "last")
    assert _seen(witness, 6)[5:] == ["last"]


def test_handlers_that_are_run_again_for_their_state_promise_nothing_twice(fab, witness):
    promiser = fab.spawn_batch(KeepingPromiser, 1, placement=0, witness=witness, snapshot_every=1_000)[0]
    for number in range(5):
        _promise(promiser, 1.5, number)  # so late that it is killed before it sends any
    _kill(fab)
    assert promiser.ask("count", timeout=PATIENCE) == 5
    assert _seen(witness, 5) == list(range(5))
    _promise(promiser, 0, "last")
    assert _seen(witness, 6)[5:] == ["last"]


def test_a_journal_that_is_cut_short_again_and_again_keeps_what_is_to_be_sent(fab, witness):
    promiser = fab.spawn_batch(Promiser, 1, placement=0, witness=witness)[0]
    keeping = fab.spawn_batch(KeepingPromiser, 1, placement=0, witness=witness)[0]
    count = 0
    for rounds, seconds in enumerate((3, 9, 27), 1):  # proves nothing when it was sent before the kill: with more time
        _promise(promiser, seconds, "kept", "x" * 1000)
        for _ in range(20):
            for one in (promiser, keeping):
                _promise(one, 0, *["x" * 1000] * 20)
            count += 40
            _seen(witness, count)
        early = witness.ask("all", timeout=PATIENCE).count("kept") == rounds
        _kill(fab)
        count += 2
        seen = _seen(witness, count)
        assert (seen.count("kept"), len(seen)) == (rounds, count)
        if not early:
            break
    assert not early, "it was never in the journal when its worker was killed"


def test_what_is_too_large_to_be_written_down_is_a_dead_letter_when_its_worker_dies(fab, witness, letters):
    promiser = fab.spawn_batch(Promiser, 1, placement=0, witness=witness)[0]
    _promise(promiser, 1_000, bytes(1 << 20))
    _kill(fab)
    letter = until(lambda: letters and letters[0])
    assert isinstance(letter.error, WorkerLostError)
    assert witness.ask("all", timeout=PATIENCE) == []


def test_of_more_than_the_journal_takes_a_dead_letter_tells_once(fab, witness, letters):
    promiser = fab.spawn_batch(Promiser, 1, placement=0, witness=witness)[0]
    _promise(promiser, 1_000, *range(600))
    assert letters == []
    for _ in range(3):
        _promise(promiser, 0, "beyond")
    until(lambda: letters)
    assert _seen(witness, 3) == ["beyond"] * 3
    fab.drain(timeout=PATIENCE)
    [letter] = letters
    assert "raise journal_bytes" in str(letter.error)


def test_what_on_start_promises_is_promised_anew_by_each_life(fab, witness, tmp_path):
    fab.spawn_batch(Starter, 1, placement=0, witness=witness, mark=str(tmp_path / "lived"))
    until((tmp_path / "lived").exists)
    _kill(fab)
    assert _seen(witness, 1) == ["started"]
    fab.drain(timeout=PATIENCE)
    assert witness.ask("all", timeout=PATIENCE) == ["started"]
