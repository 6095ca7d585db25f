"""The examples under scripts/: a small run of each does what it says."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fabric import Fabric
from fabric.testing import InlineFabric

EXAMPLES = Path(__file__).parents[1] / "scripts" / "examples"
SMALL = ["--agents", "3000", "--steps", "30"]


@pytest.fixture
def epidemic(monkeypatch):
    """The example as a module that workers can import too."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "epidemic", raising=False)
    import epidemic

    return epidemic


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_an_epidemic_does_not_depend_on_the_number_of_workers(epidemic, workers):
    model = epidemic.Model(agents=5_000, seed=3)
    expected = epidemic.plain(model, 60)
    with Fabric(workers=workers) as fab:
        found = epidemic.simulate(fab, model, 60)

    assert epidemic.differences(found, expected) == []
    assert (found.counts.sum(axis=1) == 5_000).all()
    assert found.counts[-1][epidemic.RECOVERED] > 1_000


def test_an_epidemic_is_the_same_inline(epidemic):
    model = epidemic.Model(agents=101, seed=4)
    with InlineFabric(workers=4) as fab:
        assert epidemic.differences(epidemic.simulate(fab, model, 20), epidemic.plain(model, 20)) == []


def test_an_epidemic_that_went_otherwise_is_found_out(epidemic, monkeypatch, capsys):
    right = epidemic.plain(epidemic.Model(3_000), 30)
    wrong = right._replace(counts=right.counts + np.eye(30, 3, k=-1, dtype=int), records=1)
    monkeypatch.setattr(epidemic, "plain", lambda model, steps: wrong)

    assert epidemic.main(SMALL) == 1
    said = capsys.readouterr().out
    assert "step 1: counts" in said
    assert "plain numpy has 1\n" in said


def test_an_epidemic_without_matplotlib_says_so(epidemic, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    assert epidemic.main([*SMALL, "--plot", str(tmp_path / "epidemic.png")]) == 0
    assert "needs matplotlib" in capsys.readouterr().err


def test_an_epidemic_runs_as_a_script():
    done = _script("epidemic.py", *SMALL)

    assert (done.returncode, done.stderr) == (0, "")
    assert "the same counts in each step" in done.stdout


def test_an_epidemic_draws_its_plot(tmp_path):
    pytest.importorskip("matplotlib")
    done = _script("epidemic.py", *SMALL, "--plot", str(tmp_path / "epidemic.png"))  # it keeps fonts open

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "epidemic.png").read_bytes().startswith(b"\x89PNG")


def _script(name, *arguments):
    paths = os.pathsep.join([str(EXAMPLES.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
