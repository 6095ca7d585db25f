"""Who listens to a sampler hears of each sample, and of the end while there is still something to see."""

import gc
import weakref

import pytest

from fabric import Fabric
from fabric.testing import InlineFabric
from tests.agents import Counter


def test_a_listener_gets_each_sample_until_it_leaves():
    with InlineFabric(workers=1) as fab:
        heard = []
        stop = fab.sampler.each(heard.append)
        samples = [fab.sampler.sample(), fab.sampler.sample()]
        stop()
        stop()
        fab.sampler.sample()
    assert heard == samples


def test_a_condition_is_looked_at_until_whoever_set_it_has_enough():
    with InlineFabric(workers=1) as fab:
        looked = []
        stop, _ = (fab.sampler.when(lambda history, n=n: looked.append(n) or [], print, start=False) for n in (1, 2))
        fab.sampler.sample()
        stop()
        stop()
        fab.sampler.sample()
    assert looked == [1, 2, 2]


def test_a_listener_that_raises_costs_nobody_a_sample(caplog):
    with InlineFabric(workers=1) as fab:
        heard = []
        fab.sampler.each(lambda sample: 1 / 0)
        fab.sampler.each(heard.append)
        assert fab.sampler.sample() in heard
    assert "a callback of the sampler raised" in caplog.text


@pytest.mark.parametrize("kind", [Fabric, InlineFabric])
def test_who_waits_for_the_end_is_called_while_the_fabric_can_be_looked_at(kind):
    seen = []
    with kind(workers=1) as fab:
        fab.spawn_batch(Counter, 3)
        fab.sampler.at_close(lambda: seen.append(fab.statistics()))
    assert [found.agents for found in seen] == [3]
    fab.sampler.at_close(lambda: seen.append("late"))
    assert seen[1:] == ["late"]
    fab.sampler.close()
    assert len(seen) == 2


def test_who_no_longer_waits_for_the_end_is_not_called_and_not_kept():
    class Server:
        def close(self):
            seen.append(self)

    seen = []
    with InlineFabric(workers=1) as fab:
        server = Server()
        gone = weakref.ref(server)
        stop = fab.sampler.at_close(server.close)
        del server
        assert gone() is not None
        stop()
        stop()
        del stop
        gc.collect()
        assert gone() is None
    assert seen == []


def test_statistics_that_a_close_interrupts_are_the_last_ones(monkeypatch):
    with InlineFabric(workers=1) as fab:
        last = fab.statistics()

        def closed_meanwhile():
            fab._final = last
            raise TypeError("what was read is gone")

        monkeypatch.setattr(fab, "_take_statistics", closed_meanwhile)
        assert fab.statistics() is last
        fab._final = None
        monkeypatch.undo()


def test_statistics_that_fail_while_the_fabric_is_open_say_why(monkeypatch):
    with InlineFabric(workers=1) as fab:
        monkeypatch.setattr(fab, "_take_statistics", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fab.statistics()
        monkeypatch.undo()
