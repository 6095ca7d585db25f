"""Libraries that take a pool take ours as it is: the real ones run, and are skipped where they are not installed."""

import contextlib
import importlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fabric import Pool
from tests import sampler_functions as work

with contextlib.suppress(ImportError):
    importlib.import_module("scipy.linalg")  # its threads start on import and stay, as numpy's do in conftest.py

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


def neighbour(name: str) -> object:
    return pytest.importorskip(name, reason=f"{name} is not installed: Pool with it is NOT TESTED (scripts/neighbours)")


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(2) as shared:
        assert len(shared._pool) == 2
        yield shared


def test_emcee_samples_with_our_pool(pool: Pool) -> None:
    emcee = neighbour("emcee")
    chains = []
    for own in (None, pool):
        start = np.random.default_rng(1).normal(size=(16, 3))
        sampler = emcee.EnsembleSampler(16, 3, work.log_normal, pool=own)  # type: ignore[attr-defined]
        sampler._random.seed(7)
        sampler.run_mcmc(start, 50)
        chains.append(sampler.get_chain())
    assert np.array_equal(*chains)


def test_dynesty_samples_with_our_pool(pool: Pool) -> None:
    dynesty = neighbour("dynesty")
    sampler = dynesty.NestedSampler(  # type: ignore[attr-defined]
        work.log_normal, work.unit_cube, 2, nlive=50, pool=pool, queue_size=4, rstate=np.random.default_rng(3)
    )
    sampler.run_nested(print_progress=False, maxiter=300)
    assert sampler.results.niter >= 100


def test_scipy_takes_our_map_for_its_workers(pool: Pool) -> None:
    optimize = neighbour("scipy.optimize")
    bounds = [(-2.0, 2.0)] * 3
    found = optimize.differential_evolution(  # type: ignore[attr-defined]
        work.rosenbrock, bounds, workers=pool.map, updating="deferred", seed=5, maxiter=200, tol=1e-8
    )
    assert np.allclose(found.x, 1.0, atol=1e-2)
    brute = optimize.brute(work.rosenbrock, bounds, Ns=5, finish=None, workers=pool.map)  # type: ignore[attr-defined]
    assert np.allclose(brute, 1.0)


def test_schwimmbad_and_ours_have_the_same_methods(pool: Pool) -> None:
    schwimmbad = neighbour("schwimmbad")
    with schwimmbad.SerialPool() as serial:  # type: ignore[attr-defined]
        expected = list(serial.map(work.square, range(20)))
    assert pool.map(work.square, range(20)) == expected
    got: list[list[float]] = []
    pool.map_async(work.square, range(20), callback=got.append).wait()
    assert got == [expected]


def test_schwimmbads_multipool_may_stand_on_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    neighbour("schwimmbad")
    module = importlib.import_module("schwimmbad.multiprocessing")
    with monkeypatch.context() as patch:
        patch.setattr("multiprocess.pool.Pool", Pool)
        importlib.reload(module)
    called: list[float] = []
    with module.MultiPool(2) as own:
        assert own.map(work.square, range(10), callback=called.append) == [i * i for i in range(10)]
        assert own.size == 2
    assert called == [i * i for i in range(10)]
    importlib.reload(module)


DEAP = """
    import random
    from deap import algorithms, base, creator, tools
    from fabric import Pool

    creator.create("Best", base.Fitness, weights=(1.0,))
    creator.create("Bits", list, fitness=creator.Best)

    def ones(bits):
        return (sum(bits),)

    toolbox = base.Toolbox()
    toolbox.register("bit", random.randint, 0, 1)
    toolbox.register("bits", tools.initRepeat, creator.Bits, toolbox.bit, 30)
    toolbox.register("population", tools.initRepeat, list, toolbox.bits)
    toolbox.register("evaluate", ones)
    toolbox.register("mate", tools.cxTwoPoint)
    toolbox.register("mutate", tools.mutFlipBit, indpb=0.05)
    toolbox.register("select", tools.selTournament, tournsize=3)

    if __name__ == "__main__":
        random.seed(1)
        with Pool(2) as pool:
            toolbox.register("map", pool.map)
            population, _ = algorithms.eaSimple(toolbox.population(n=60), toolbox, 0.5, 0.2, 15, verbose=False)
            copies = pool.map(toolbox.clone, population)
        assert copies == population
        assert max(one.fitness.values[0] for one in population) > 22
"""


def test_deap_evolves_with_our_map_in_a_script_of_its_own(tmp_path: Path) -> None:
    neighbour("deap")
    script = tmp_path / "evolve.py"
    script.write_text(textwrap.dedent(DEAP), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
