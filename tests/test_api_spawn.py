"""How agents come to be, on real workers and inline: batches, names, placement, waves, the warm pool."""

import io
import sys
import threading

import pytest
import tqdm

from fabric import Agent, EncodingError, FabricError, MessageTooLargeError, SpawnError
from tests.agents import Counter, Echo
from tests.api_agents import Eager, Made, Named, Phantom, Picky, UnloadableBody, Witness, Wordy

PATIENCE = 30  # seconds until a test is taken to have failed


@pytest.fixture
def left(fab):
    """Fail when a test that is to spawn nothing leaves agents."""
    before = fab.statistics().agents
    yield
    assert fab.statistics().agents == before
    assert fab.spawn_batch(Echo, 3).ask_all(1) == [1] * 3


# Arguments.


def test_constructors_get_their_arguments(fab):
    assert fab.spawn_batch(Counter, 2, start=5).ask_all(1) == [6, 6]
    assert fab.spawn_batch(Counter, 2, args=(7,)).ask_all(1) == [8, 8]
    assert fab.spawn_batch(Counter, 3, each={"start": iter([1, 2, 3])}).ask_all(0) == [1, 2, 3]
    named = fab.spawn_batch(Named, 2, kwargs={"args": "x"}, each={"keys": [1, 2]}, args=("y",))
    assert named.ask_all(0) == [("y", "x", 1), ("y", "x", 2)]


def test_agents_can_be_found_by_name_while_they_live(fab):
    clerks = fab.spawn_batch(Counter, 2, each={"start": [1, 2]}, name="clerk-of-works")
    assert [clerk.name for clerk in clerks] == ["clerk-of-works-0", "clerk-of-works-1"]
    assert fab.find("clerk-of-works-1") == clerks[1]
    assert fab.find("clerk-of-works-1").ask(0) == 2
    assert (clerks[-1].name, clerks[1:][0].name) == ("clerk-of-works-1", "clerk-of-works-1")
    assert repr(clerks[0]) == "<AgentRef clerk-of-works-0>"
    for name in ("clerk-of-works-2", "clerk-of-works", "clerk-of-works-x", "nobody-0", ""):
        assert fab.find(name) is None
    with pytest.raises(ValueError, match="'clerk-of-works' is taken by 2 agents"):
        fab.spawn_batch(Echo, 1, name="clerk-of-works")
    clerks[0].stop()
    assert fab.find("clerk-of-works-0") is None
    clerks.stop()
    assert fab.spawn_batch(Echo, 1, name="clerk-of-works")[0].ask(1) == 1


@pytest.mark.usefixtures("left")
def test_wrong_arguments_are_refused_before_anything_starts(fab):
    class Deaf(Agent):
        pass

    wrong = [
        (TypeError, "subclass of fabric.Agent", {"kind": dict}),
        (TypeError, "subclass of fabric.Agent", {"kind": Echo()}),
        (TypeError, "neither on_message nor on_batch", {"kind": Deaf}),
        (ValueError, "count=-1", {"count": -1}),
        (TypeError, "count=2.0", {"count": 2.0}),
        (TypeError, "count=True", {"count": True}),
        (ValueError, "3 values for 2 agents", {"each": {"start": [1, 2, 3]}}),
        (ValueError, "not known", {"placement": "anywhere"}),
        (ValueError, "names no worker", {"placement": 2}),
        (ValueError, "names no worker", {"placement": -1}),
        (TypeError, "must be", {"placement": None}),
        (TypeError, 'placement="hash" needs keys', {"placement": "hash"}),
        (ValueError, "1 keys for 2 agents", {"placement": "hash", "keys": ["a"]}),
        (ValueError, "3 keys for 2 agents", {"placement": "hash", "keys": ["a", "b", "c"]}),
        (TypeError, "give a str", {"placement": "hash", "keys": ["a", 1.5]}),
    ]
    for error, text, options in wrong:
        arguments = {"kind": Counter, "count": 2, **options}
        with pytest.raises(error, match=text):
            fab.spawn_batch(arguments.pop("kind"), arguments.pop("count"), **arguments)


@pytest.mark.usefixtures("left")
def test_an_encoding_or_concurrency_that_cannot_be_is_refused(fab):
    class Foreign(Echo):
        encoding = "yaml"

    class Idle(Echo):
        max_concurrency = 0

    for kind, text in ((Foreign, "encoding is 'yaml'"), (Idle, "max_concurrency is 0")):
        with pytest.raises(ValueError, match=text):
            fab.spawn_batch(kind, 1)


@pytest.mark.usefixtures("left")
def test_arguments_that_cannot_be_sent_are_refused(fab):
    lock = threading.Lock()
    with pytest.raises(EncodingError, match="cannot be pickled"):
        fab.spawn_batch(Counter, 2, start=lock)
    with pytest.raises(EncodingError, match="cannot be pickled"):
        fab.spawn_batch(Counter, 400, each={"start": [1] * 399 + [lock]})


def test_arguments_that_are_too_large_for_a_lane_are_refused_where_there_is_no_arena(kind):
    with kind(workers=2, arena_bytes=0) as fab:
        with pytest.raises(MessageTooLargeError):
            fab.spawn_batch(Counter, 200, each={"start": [1] * 199 + [bytes(5_000_000)]})
        with pytest.raises(MessageTooLargeError):
            fab.spawn_batch(Counter, 1, start=bytes(5_000_000))


def test_many_large_arguments_go_in_several_orders(fab):
    counters = fab.spawn_batch(Echo, 0)
    assert len(counters) == 0
    named = fab.spawn_batch(Named, 8, each={"name": [bytes([i]) * 1_500_000 for i in range(8)]})

    assert [name[0] for name, _, _ in named.ask_all(0)] == list(range(8))


# Failures.


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize("where", ["init", "start"])
def test_a_batch_of_which_some_fail_is_a_SpawnError_and_the_others_are_stopped(fab, where):
    witness = fab.spawn_batch(Witness, 1)[0]
    refuse = [where if i in (1, 120, 299) else "" for i in range(300)]
    with pytest.raises(SpawnError, match="3 of 300 agents of Picky could not be made: agent 1: ") as caught:
        fab.spawn_batch(Picky, 300, each={"refuse": refuse}, witness=witness)

    assert sorted(caught.value.failures) == [1, 120, 299]
    assert all(isinstance(why, ValueError) for why in caught.value.failures.values())
    assert "refused in" in str(caught.value)
    assert len(witness.ask(("await", 297), timeout=PATIENCE)) == 297
    witness.stop()


@pytest.mark.usefixtures("left")
def test_a_class_or_argument_that_the_worker_cannot_have_is_a_SpawnError(fab):
    with pytest.raises(SpawnError, match="cannot be had in the worker: ModuleNotFoundError: No module named 'phantom'"):
        fab.spawn_batch(Phantom, 2)
    with pytest.raises(SpawnError, match="No module named 'phantom'"):
        fab.spawn_batch(Counter, 2, start=UnloadableBody())


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize("what", ["ref", "context"])
def test_an_agent_has_no_address_in_its_constructor(fab, what):
    with pytest.raises(SpawnError, match="__init__ runs before the agent has an address") as caught:
        fab.spawn_batch(Eager, 1, what=what)

    assert type(caught.value.failures[0]) is FabricError


def test_more_agents_than_the_table_takes_are_refused_before_any_starts(kind):
    with kind(workers=2, max_agents=100) as fab:
        agents = fab.spawn_batch(Echo, 60)
        with pytest.raises(SpawnError, match="asked for 50 agents, room for 40"):
            fab.spawn_batch(Echo, 50)
        fab.spawn_batch(Echo, 40)
        assert fab.statistics().agents == 100
        agents.stop()
        assert len(fab.spawn_batch(Echo, 60).ask_all(1)) == 60


def test_a_report_of_failures_that_is_larger_than_a_lane_is_cut_short(kind):
    with kind(workers=1, lane_bytes=2**16) as fab:
        with pytest.raises(SpawnError, match="90 of 90 agents of Wordy") as caught:
            fab.spawn_batch(Wordy, 90)
        assert set(caught.value.failures) == set(range(90))
        assert "long long" in str(caught.value.failures[89])
        assert fab.spawn_batch(Echo, 2).ask_all(1) == [1, 1]


# Placement.


def test_placement_goes_by_turn_by_load_by_key_or_by_index(kind):
    with kind(workers=3) as fab:

        def spread(count, **options):
            before = [worker.agents for worker in fab.statistics().workers]
            fab.spawn_batch(Echo, count, **options)
            return [worker.agents - then for worker, then in zip(fab.statistics().workers, before, strict=True)]

        assert spread(4) == [2, 1, 1]
        assert spread(4) == [1, 2, 1]
        assert spread(5, placement=2) == [0, 0, 5]
        assert spread(4, placement="least_loaded") == [2, 2, 0]
        assert sorted(spread(7, placement="hash", keys=["same"] * 7)) == [0, 0, 7]
        assert sum(spread(50, placement="hash", keys=range(50))) == 50


# Waves.


def test_waves_come_one_after_the_other_and_report(fab):
    waves = list(fab.spawn_waves(Counter, 25, wave_size=10, each={"start": range(25)}))

    assert [(wave.index, wave.spawned, wave.failed, len(wave.agents)) for wave in waves] == [
        (0, 10, 0, 10),
        (1, 10, 0, 10),
        (2, 5, 0, 5),
    ]
    assert [start for wave in waves for start in wave.agents.ask_all(0)] == list(range(25))
    assert all(wave.seconds >= 0 and f"wave {wave.index}: {wave.spawned} spawned" in str(wave) for wave in waves)
    assert list(fab.spawn_waves(Counter, 0, wave_size=10)) == []


@pytest.mark.parametrize(
    ("policy", "reports", "alive"),
    [
        ("continue", [(4, 0), (3, 1), (4, 0)], 11),
        ("stop", [(4, 0), (3, 1)], 7),
        ("rollback", [(4, 0), (3, 1)], 0),
    ],
)
def test_a_wave_with_failures_is_followed_by_what_the_policy_says(fab, policy, reports, alive):
    before = fab.statistics().agents
    refuse = ["init" if i == 5 else "" for i in range(12)]
    waves = list(fab.spawn_waves(Picky, 12, wave_size=4, on_failure=policy, each={"refuse": refuse}))

    assert [(wave.spawned, wave.failed) for wave in waves] == reports
    assert fab.statistics().agents - before == alive
    assert sum(ref.alive for wave in waves for ref in wave.agents) == alive


def test_a_wave_is_spawned_when_it_is_asked_for(fab):
    before = fab.statistics().agents
    waves = fab.spawn_waves(Counter, 30, wave_size=10)
    assert fab.statistics().agents == before
    next(waves)
    assert fab.statistics().agents == before + 10
    waves.close()
    assert fab.statistics().agents == before + 10


@pytest.mark.usefixtures("left")
def test_wrong_arguments_of_waves_are_refused_before_the_first(fab):
    for error, options in (
        (ValueError, {"wave_size": 0}),
        (ValueError, {"wave_size": 1, "interval": -1.0}),
        (ValueError, {"wave_size": 1, "on_failure": "panic"}),
        (ValueError, {"wave_size": 1, "each": {"start": [1]}}),
        (ValueError, {"wave_size": 1, "keys": [1], "placement": "hash"}),
        (TypeError, {"wave_size": 1.5}),
    ):
        with pytest.raises(error):
            fab.spawn_waves(Counter, 5, **options)


def test_progress_shows_a_bar(fab, monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    waves = list(fab.spawn_waves(Counter, 40, wave_size=20, progress=True))

    assert len(waves) == 2
    assert "spawning Counter: 100%" in shown.getvalue()
    assert "40.0/40.0" in shown.getvalue()
    assert not tqdm.tqdm._instances


# Prewarm.


def test_a_spawn_from_the_warm_pool_constructs_nothing(kind):
    with kind(workers=2) as fab:
        probes = fab.spawn_batch(Made, 2)
        fab.prewarm(Made, 61)
        made = probes.ask_all("made")
        assert max(fab.spawn_batch(Made, 61).ask_all("number")) <= max(made)
        fab.prewarm(Made, 0)
        made = probes.ask_all("made")
        assert min(fab.spawn_batch(Made, 2).ask_all("number")) > min(made)


def test_the_warm_pool_is_refilled_when_there_is_nothing_else_to_do(kind):
    with kind(workers=1) as fab:
        fab.prewarm(Made, 5)
        first = fab.spawn_batch(Made, 5)
        start = min(first.ask_all("number"))
        while first[0].ask("made") < start + 9:  # a message a look: the worker is idle in between
            fab.drain(timeout=PATIENCE)
        assert sorted(fab.spawn_batch(Made, 5).ask_all("number")) == list(range(start + 5, start + 10))


def test_only_an_equal_recipe_takes_from_the_warm_pool(fab):
    fab.prewarm(Counter, 4, start=5)
    assert fab.spawn_batch(Counter, 4).ask_all(0) == [0] * 4
    assert fab.spawn_batch(Counter, 4, start=5).ask_all(0) == [5] * 4
    assert fab.spawn_batch(Counter, 4, each={"start": [1] * 4}).ask_all(0) == [1] * 4
    fab.prewarm(Counter, 0, start=5)


@pytest.mark.usefixtures("left")
def test_what_cannot_be_constructed_cannot_be_prewarmed(fab):
    with pytest.raises(SpawnError, match=r"Made cannot be prewarmed: .*cannot be made"):
        fab.prewarm(Made, 4, fail=True)
    with pytest.raises(TypeError):
        fab.prewarm(dict, 4)
    with pytest.raises(ValueError, match="count=-1"):
        fab.prewarm(Made, -1)
