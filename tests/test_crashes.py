"""Workers that die: what their agents' callers see, and that nobody else notices."""

import os
import signal
import threading
import time

import pytest

from fabric import Agent, Fabric, PoisonMessageError, WorkerLostError
from tests.agents import Counter, Deadly, Doorkeeper, FailsToStartAgain, Inquirer, Recorder, Segfaulter, Talker, Waiter
from tests.waiting import until


def _kill(fab, slot=1):
    worker = next(worker for worker in fab.statistics().workers if worker.slot == slot)
    os.kill(worker.pid, signal.SIGKILL)


@pytest.fixture
def fab():
    with Fabric(workers=2, on_error=lambda letter: None) as fabric:
        yield fabric


def test_agents_of_a_killed_worker_answer_again(fab):
    agents = fab.spawn_batch(Deadly, 100)
    for _ in range(3):
        _kill(fab)
        assert agents.ask_all("hello") == ["hello"] * 100
    assert fab.statistics().restarts == 3


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_agents_that_were_given_references_each_are_made_again(start_method):
    with Fabric(workers=2, start_method=start_method) as fab:
        witnesses = fab.spawn_batch(Recorder, 2, placement=1)
        agents = fab.spawn_batch(Deadly, 2, placement=0, each={"witness": witnesses})
        _kill(fab)
        assert agents.ask_each(["a", "b"], timeout=30) == ["a", "b"]
        fab.drain(timeout=30)
        assert witnesses.ask_all("all") == [["a"], ["b"]]


def test_every_ask_in_flight_is_answered_once_though_its_worker_is_killed(fab):
    agents = fab.spawn_batch(Deadly, 10)
    futures = [agents[i % 10].submit(i) for i in range(5_000)]
    _kill(fab)

    assert [future.result(timeout=30) for future in futures] == list(range(5_000))


def test_an_ask_many_is_whole_though_both_workers_are_killed(fab):
    agents = fab.spawn_batch(Deadly, 10)
    refs, bodies = [agents[i % 10] for i in range(20_000)], list(range(20_000))
    bodies[5_000] = "die once"
    bodies[15_001] = "die once"

    assert fab.ask_many(refs, bodies, timeout=30) == [body if body != "die once" else "survived" for body in bodies]


def test_a_message_that_kills_its_worker_is_put_aside_and_the_rest_goes_on(fab):
    agents = fab.spawn_batch(Deadly, 10)
    bodies = ["a"] * 7 + ["die"] + ["b"] * 12
    replies = fab.ask_many(list(agents) * 2, bodies, timeout=30, return_exceptions=True)

    assert isinstance(replies[7], PoisonMessageError)
    assert replies[7].attempts == 3
    assert [reply for i, reply in enumerate(replies) if i != 7] == [body for i, body in enumerate(bodies) if i != 7]


def test_a_told_message_that_kills_its_worker_becomes_a_dead_letter(fab):
    agent = fab.spawn_batch(Deadly, 1)[0]
    agent.tell("die")
    fab.drain(timeout=30)

    assert [type(letter.error) for letter in fab.dead_letters()] == [PoisonMessageError]
    assert agent.ask("hello") == "hello"


def test_with_on_crash_fail_a_message_that_was_running_is_not_run_again(fab):
    recorder = fab.spawn_batch(Recorder, 1, placement=1)[0]
    agents = fab.spawn_batch(Deadly, 1, placement=0, on_crash="fail", kwargs={"witness": recorder})
    bodies = ["a", "b", "exit", "c"]
    replies = fab.ask_many([agents[0]] * 4, bodies, timeout=30, return_exceptions=True)
    fab.drain(timeout=30)

    assert isinstance(replies[2], WorkerLostError)
    assert (replies[2].exitcode, replies[:2], replies[3]) == (3, ["a", "b"], "c")
    assert recorder.ask("all") == ["a", "b", "c"], "each message ran once; what the dying one sent died with it"


def test_an_answer_to_a_question_of_a_dead_worker_is_not_taken_for_one_to_its_successor(fab, tmp_path):
    door, asked = tmp_path / "open", tmp_path / "asked"
    keeper = fab.spawn_batch(Doorkeeper, 1, placement=1, path=str(door))[0]
    inquirer = fab.spawn_batch(Inquirer, 1, placement=0, kwargs={"ref": keeper, "path": str(asked)})[0]
    neighbour = fab.spawn_batch(Counter, 1, placement=0)[0]
    assert inquirer.ask("a", timeout=30) == "a"  # the first question of this worker
    keeper.tell("wait")
    second = inquirer.submit("b")  # the second
    until(lambda: asked.read_text().split() == ["a", "b"])
    neighbour.ask(0, timeout=30)
    _kill(fab)
    until(lambda: asked.read_text().split() == ["a", "b", "b"])  # the first of its successor
    third = inquirer.submit("c")  # the second of its successor
    until(lambda: asked.read_text().split()[-1] == "c")
    neighbour.ask(0, timeout=30)
    door.touch()

    assert (second.result(30), third.result(30)) == ("b", "c")


def test_replies_to_a_peer_for_which_there_is_no_room_at_all_outlive_their_worker(tmp_path):
    doors = [tmp_path / "one", tmp_path / "two"]
    with Fabric(workers=2, peer_lane_bytes=32 << 10, outbox_bytes=64 << 10) as fab:
        talker = fab.spawn_batch(Talker, 1, placement=1)[0]
        keepers = fab.spawn_batch(Doorkeeper, 2, each={"path": map(str, doors)})
        kwargs = {"ref": talker, "path": str(tmp_path / "asked")}
        inquirer = fab.spawn_batch(Inquirer, 1, placement=0, kwargs=kwargs)[0]
        keepers[1].tell("wait")
        futures = [inquirer.submit(b"a") for _ in range(100)]
        keepers[0].ask("the questions are out", timeout=30)
        keepers[0].tell("wait")
        doors[1].touch()
        until(lambda: fab.statistics().workers[1].lane_bytes == 0 and fab.statistics().workers[1].received > 100)
        _kill(fab, slot=2)
        doors[0].touch()

        assert [len(future.result(timeout=30)) for future in futures] == [8_000] * 100


def test_what_was_sent_before_a_kill_is_handled_in_order(fab):
    recorder = fab.spawn_batch(Recorder, 1, placement=1)[0]
    relay = fab.spawn_batch(Deadly, 1, placement=0, kwargs={"witness": recorder})[0]
    for number in range(3_000):
        relay.tell(number)
        if number == 1_500:
            _kill(fab)
    fab.drain(timeout=30)
    seen = recorder.ask("all")

    assert sorted(set(seen)) == list(range(3_000)), "at least once: none is lost"
    first_seen = [number for i, number in enumerate(seen) if number not in set(seen[:i])]
    assert first_seen == list(range(3_000))


def test_a_worker_that_cannot_be_replaced_is_given_up_and_its_callers_are_told(tmp_path):
    flag = tmp_path / "broken"
    with Fabric(workers=2, on_error=lambda letter: None) as fab:
        agents = fab.spawn_batch(FailsToStartAgain, 10, flag=str(flag))
        others = fab.spawn_batch(Counter, 1, placement=1)
        futures = [agent.submit(0.001) for agent in agents for _ in range(50)]
        flag.touch()
        _kill(fab)
        outcomes = [future.exception(timeout=30) for future in futures]
        fab.drain(timeout=30)

        assert {type(outcome) for outcome in outcomes} <= {type(None), WorkerLostError}
        assert any(outcomes)
        assert sum(agent.alive for agent in agents) == 5
        assert others[0].ask(1) == 1
        assert fab.spawn_batch(Counter, 4).ask_all(1) == [1] * 4


def test_a_dead_letter_says_which_message_which_signal_and_where(fab):
    agent = fab.spawn_batch(Segfaulter, 1)[0]
    with pytest.raises(PoisonMessageError):
        agent.ask(b"crash", timeout=30)
    agent.tell(b"crash again")
    fab.drain(timeout=30)

    asked, told = fab.dead_letters()
    for letter, body in ((asked, b"crash"), (told, b"crash again")):
        assert isinstance(letter.error, PoisonMessageError)
        assert (letter.agent, letter.sender) == (agent.address, 0)
        assert (letter.body, letter.encoding, letter.signal) == (body, "raw", "SIGSEGV")
        assert "in dereference_null" in letter.stack
        assert "in on_message" in letter.stack


def test_a_question_in_the_hands_of_a_coroutine_is_answered_though_its_lane_went_on_without_it(fab):
    waiting = fab.spawn_batch(Waiter, 1, placement=0)[0]
    counter = fab.spawn_batch(Counter, 1, placement=0)[0]
    asked, told = waiting.submit("for ever"), waiting.tell("for ever")
    assert told is None
    bodies = [bytes(4_000)] * 1_500  # more than half a lane
    fab.tell_many([fab.spawn_batch(Recorder, 1, placement=0)[0]] * len(bodies), bodies)
    assert counter.ask(1, timeout=30) == 1
    _kill(fab)

    with pytest.raises(WorkerLostError, match="which it had begun"):
        asked.result(timeout=30)
    assert counter.ask(1, timeout=30) in (1, 2)  # what lay behind the one in hand may have come again
    deadline = time.monotonic() + 30
    while not fab.dead_letters() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [type(letter.error) for letter in fab.dead_letters()] == [WorkerLostError]


class Parent(Agent):
    """Spawns some and tells its witness so; the first time it dies when that is published, and not committed."""

    def __init__(self, witness, flag):
        self.witness, self.flag = witness, flag

    def on_message(self, body):
        for _ in range(2):
            self.context.spawn_batch(Counter, body)
        self._host.outbox.flush()
        if not os.path.exists(self.flag):
            with open(self.flag, "x", encoding="utf-8"):
                os.kill(os.getpid(), signal.SIGKILL)
        self.witness.tell(body)
        return body


def test_agents_that_a_handler_asked_for_are_made_once_though_it_is_run_again(fab, tmp_path):
    witness = fab.spawn_batch(Recorder, 1, placement=1)[0]
    parent = fab.spawn_batch(Parent, 1, placement=0, witness=witness, flag=str(tmp_path / "died"))[0]
    for count in (3, 4, 3):
        assert parent.ask(count, timeout=30) == count
    assert fab.statistics().restarts == 1
    until(lambda: "fabric-request" not in {thread.name for thread in threading.enumerate()})
    fab.drain(timeout=30)
    assert fab.statistics().agents == 2 + 2 * (3 + 4 + 3)
    assert witness.ask("all", timeout=30) == [3, 4, 3]
