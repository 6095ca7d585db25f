"""How a message may crash, by where it does: who asked is told, nobody else notices, the fabric works on.

                         segfault, os._exit, C exit     sys.exit, raise
    encoding a message   (the user's own process)       EncodingError
    decoding it          PoisonMessageError             EncodingError
    handling it          PoisonMessageError             AgentError
    encoding the reply   PoisonMessageError             EncodingError
    decoding the reply   (the user's own process)       EncodingError
    in a callback        (the user's own process)       logged
    in a finaliser       PoisonMessageError             printed by Python, and answered
    constructor, on_start  SpawnError                   SpawnError
    on_stop              replaced                       dead letter

The idea of such a matrix is loky's. What an agent of the other worker counts shows that it was left alone.
"""

import contextlib
import os
import resource
import signal
import threading

import pytest

from fabric import AgentError, EncodingError, Fabric, PoisonMessageError, SpawnError, WorkerLostError
from fabric.codec import Codec
from fabric.remote_errors import Undecodable
from tests.agents import Counter, Echo, FailsToStartAgain
from tests.crash_agents import (
    Crasher,
    CrashesAtStart,
    CrashesWhenDecoded,
    CrashesWhenEncoded,
    DiesOnceWhenMade,
    crash,
)

PATIENCE = 30
DEADLY = {"segfault": "SIGSEGV", "os._exit": "exit code 3", "C exit": "exit code 4"}  # how: what the error says of it
CONTAINED = ("sys.exit", "raise")
CRASHES = ("sys.exit", "raise", "StopIteration")
PLACES = ("decoding", "handling", "encoding the reply", "a finaliser")


@pytest.fixture(autouse=True, scope="module")
def no_core_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


@contextlib.contextmanager
def _used_to_the_end():
    """A fabric that is used once more at the end, by agents of both workers."""
    with Fabric(workers=2, max_attempts=2, on_error=lambda letter: None) as fabric:
        bystander = fabric.spawn_batch(Counter, 1, placement=1)[0]
        bystander.ask(1)
        yield fabric
        assert bystander.ask(1, timeout=PATIENCE) == 2, "the other worker was left alone"
        assert fabric.spawn_batch(Echo, 4).ask_all("hello", timeout=PATIENCE) == ["hello"] * 4


@pytest.fixture
def fab():
    with _used_to_the_end() as fabric:
        yield fabric


@pytest.fixture
def crasher(fab):
    return fab.spawn_batch(Crasher, 1, placement=0)[0]


@pytest.fixture(scope="module")
def calm():
    """One fabric for all that must not kill a worker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fabric.pump.LINGER", 0.0)  # else each test with futures waits for the pump to leave
        with _used_to_the_end() as fabric:
            yield fabric
            assert fabric.statistics().restarts == 0


@pytest.fixture
def raiser(calm):
    group = calm.spawn_batch(Crasher, 1, placement=0)
    yield group[0]
    assert group[0].ask("hello", timeout=PATIENCE) == "hello"
    assert calm.statistics().restarts == 0
    group.stop()


def _body(place, way):
    return CrashesWhenDecoded(way) if place == "decoding" else (place, way)


@pytest.mark.parametrize("way", DEADLY)
@pytest.mark.parametrize("place", PLACES)
def test_a_message_that_kills_its_worker_is_put_aside_and_the_error_says_how(crasher, place, way):
    with pytest.raises(PoisonMessageError, match=DEADLY[way]) as caught:
        crasher.ask(_body(place, way), timeout=PATIENCE)

    assert caught.value.attempts == 2
    assert crasher.ask("hello", timeout=PATIENCE) == "hello"


@pytest.mark.parametrize("way", CONTAINED)
@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("decoding", EncodingError),
        ("handling", AgentError),
        ("encoding the reply", EncodingError),
        ("decoding the reply", EncodingError),
    ],
)
def test_a_message_that_raises_is_answered_by_the_error_and_kills_nobody(calm, raiser, place, error, way):
    with pytest.raises(error, match="SystemExit: 5" if way == "sys.exit" else "ValueError: crash"):
        raiser.ask(_body(place, way), timeout=PATIENCE)


@pytest.mark.parametrize("way", CONTAINED)
def test_a_finaliser_that_raises_costs_nothing(calm, raiser, way):
    assert raiser.ask(("a finaliser", way), timeout=PATIENCE) == "answered"


@pytest.mark.parametrize("way", CRASHES)
def test_a_message_that_cannot_be_encoded_is_refused_and_none_of_its_call_is_sent(raiser, way):
    for send in (raiser.ask, raiser.tell, raiser.submit):
        with pytest.raises(EncodingError, match="cannot be pickled"):
            send(CrashesWhenEncoded(way))


@pytest.mark.parametrize("way", CONTAINED)
@pytest.mark.parametrize(("place", "error"), [("decoding", EncodingError), ("handling", AgentError)])
def test_a_told_message_that_raises_becomes_a_dead_letter(calm, raiser, place, error, way):
    before = len(calm.dead_letters())
    raiser.tell(_body(place, way))
    calm.drain(timeout=PATIENCE)
    assert raiser.ask("behind it", timeout=PATIENCE) == "behind it"

    assert [type(letter.error) for letter in calm.dead_letters()[before:]] == [error]


@pytest.mark.parametrize(
    ("place", "way"),
    [
        ("decoding", "raise"),
        ("handling", "segfault"),
        ("handling", "raise"),
        ("encoding the reply", "segfault"),
        ("encoding the reply", "raise"),
        ("decoding the reply", "raise"),
    ],
)
def test_in_a_batch_only_the_message_that_crashed_fails(fab, crasher, place, way):
    bodies = ["a"] * 4 + [_body(place, way)] + ["b"] * 5
    replies = fab.ask_many([crasher] * 10, bodies, timeout=PATIENCE, return_exceptions=True)

    assert [reply if isinstance(reply, str) else "error" for reply in replies] == ["a"] * 4 + ["error"] + ["b"] * 5


@pytest.mark.parametrize("way", CONTAINED)
def test_a_callback_that_raises_is_logged_and_later_futures_complete(raiser, way):
    future = raiser.submit("hello")
    future.add_done_callback(lambda done: crash(way))

    assert future.result(timeout=PATIENCE) == "hello"
    assert [raiser.submit("again").result(timeout=PATIENCE) for _ in range(3)] == ["again"] * 3


@pytest.mark.parametrize("way", CONTAINED)
def test_an_on_error_that_raises_is_logged_and_later_letters_are_told(way):
    told = threading.Event()

    def on_error(letter):
        if told.is_set():
            return
        told.set()
        crash(way)

    with Fabric(workers=1, on_error=on_error) as fab:
        crasher = fab.spawn_batch(Crasher, 1)[0]
        crasher.tell(("handling", "raise"))
        assert told.wait(PATIENCE)
        assert crasher.submit("hello").result(timeout=PATIENCE) == "hello"


# The codec alone, for what would take a batch of its own each.


@pytest.mark.parametrize("way", CRASHES)
def test_one_body_that_crashes_its_pickling_is_named_by_its_place(way):
    with pytest.raises(EncodingError, match=r"body 2: .* cannot be pickled"):
        Codec().encode_many([0, 1, CrashesWhenEncoded(way), 3])


@pytest.mark.parametrize("way", CRASHES)
def test_one_body_that_crashes_its_unpickling_leaves_the_others(way):
    codec = Codec()
    parts = [codec.encode(body)[1] for body in (0, 1, CrashesWhenDecoded(way), 3)]
    bodies = codec.decode_many(codec.encode(0)[0], parts)

    assert bodies[:2] + bodies[3:] == [0, 1, 3]
    assert isinstance(bodies[2], Undecodable)


# Agents that crash as they come and go, and workers killed meanwhile.


@pytest.mark.parametrize("way", CONTAINED)
@pytest.mark.parametrize("place", ["constructor", "on_start"])
def test_an_agent_that_raises_as_it_is_made_is_not_made_and_kills_nobody(calm, place, way):
    with pytest.raises(SpawnError, match="SystemExit: 5" if way == "sys.exit" else "ValueError: crash"):
        calm.spawn_batch(CrashesAtStart, 1, placement=0, where=place, way=way)
    assert calm.statistics().restarts == 0


@pytest.mark.parametrize("way", DEADLY)
def test_an_agent_that_kills_its_worker_as_it_is_made_is_a_spawn_error(fab, way):
    with pytest.raises(SpawnError, match="worker 1"):
        fab.spawn_batch(CrashesAtStart, 1, placement=0, where="constructor", way=way)


def test_an_agent_that_kills_its_worker_as_it_is_made_does_not_cost_the_other_agents_there(fab, crasher):
    with pytest.raises(SpawnError):
        fab.spawn_batch(CrashesAtStart, 1, placement=0, where="constructor", way="os._exit")
    assert crasher.ask("hello", timeout=PATIENCE) == "hello"


def test_a_worker_killed_while_it_makes_agents_makes_them_again(fab, tmp_path):
    agents = fab.spawn_batch(DiesOnceWhenMade, 10, placement=0, flag=str(tmp_path / "flag"))
    assert agents.ask_all("hello", timeout=PATIENCE) == ["hello"] * 10
    assert fab.statistics().restarts == 1


@pytest.mark.parametrize("way", [*DEADLY, *CONTAINED])
def test_an_agent_that_crashes_as_it_stops_is_gone_and_its_neighbours_are_not(fab, crasher, way):
    agent = fab.spawn_batch(CrashesAtStart, 1, placement=0, where="on_stop", way=way)[0]
    agent.stop()

    assert not agent.alive
    assert crasher.ask("hello", timeout=PATIENCE) == "hello"
    assert fab.statistics().restarts == (way in DEADLY)


@pytest.mark.parametrize(("way", "drain"), [*((way, True) for way in (*DEADLY, *CONTAINED)), ("segfault", False)])
def test_a_fabric_whose_agents_crash_as_they_stop_is_closed(way, drain):
    fab = Fabric(workers=2, on_error=lambda letter: None)
    fab.spawn_batch(CrashesAtStart, 4, where="on_stop", way=way)
    fab.close(drain=drain)

    assert fab.statistics().restarts == 0
    assert not any(worker.running for worker in fab.statistics().workers)


def test_a_worker_killed_as_it_comes_with_a_resize_is_replaced():
    with Fabric(workers=1, max_workers=2) as fab:
        crew = fab._supervisor.crew

        def kill_the_new_one():
            crew.wait_started([2], PATIENCE)
            crew.kill(2)

        killer = threading.Thread(target=kill_the_new_one)
        killer.start()
        fab.resize(2)
        killer.join()
        assert fab.spawn_batch(Echo, 4).ask_all("hello", timeout=PATIENCE) == ["hello"] * 4
        assert fab.statistics().restarts == 1


def test_a_worker_killed_as_it_goes_with_a_resize_is_gone():
    with Fabric(workers=2) as fab:
        crew, agent = fab._supervisor.crew, fab.spawn_batch(Crasher, 1, placement=1)[0]
        agent.stop()
        order = fab._switchboard.order

        def kill_first(slot, *rest, **options):
            crew.kill(slot)
            return order(slot, *rest, **options)

        fab._switchboard.order = kill_first
        fab.resize(1)
        assert (len(fab.statistics().workers), fab.statistics().restarts) == (1, 0)


def test_a_given_up_worker_is_not_unpickled_for_in_the_coordinator(crasher):
    futures = [crasher.submit(CrashesWhenDecoded("segfault")) for _ in range(3)]

    assert {type(future.exception(timeout=PATIENCE)) for future in futures} <= {WorkerLostError, PoisonMessageError}


def test_whoever_asks_an_agent_that_could_not_be_made_again_learns_why(fab, tmp_path):
    flag = tmp_path / "broken"
    agent = fab.spawn_batch(FailsToStartAgain, 1, placement=0, flag=str(flag))[0]
    neighbour = fab.spawn_batch(Echo, 1, placement=0)[0]
    flag.touch()
    os.kill(next(w.pid for w in fab.statistics().workers if w.slot == 1), signal.SIGKILL)

    with pytest.raises(PoisonMessageError, match="making agent"):
        agent.ask(0, timeout=PATIENCE)
    assert neighbour.ask("hello", timeout=PATIENCE) == "hello"
