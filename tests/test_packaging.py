"""What users install works without the checkout: the wheel of the tree, which the sdist builds too."""

import os
import shutil
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = "fabric/integrations/dashboard"
SKIPPED = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.so", "__pycache__")

USE = """
import fabric, fabric.workers.host

class Doubler(fabric.Agent):
    def on_message(self, body):
        return 2 * body

if __name__ == "__main__":
    with fabric.Fabric(workers=1) as fab:
        print(fab.spawn_batch(Doubler, 1)[0].ask(21, timeout=30), fabric.__file__)
"""


def _run(*command: object, folder: Path) -> str:
    """Run a command as if nobody had set PYTHON* variables; return what it printed, or fail with that."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def _wheel(source: Path, folder: Path) -> Path:
    """Build a wheel with the tools of this environment, off line."""
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder)
    _run(sys.executable, "-m", "pip", "wheel", *options, source, folder=folder)
    [wheel] = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the checkout without anything that was built in it."""
    copy = tmp_path_factory.mktemp("tree") / "shm-fabric"
    return shutil.copytree(ROOT, copy, symlinks=True, ignore=SKIPPED)


@pytest.fixture(scope="module")
def wheel(tree, tmp_path_factory):
    return _wheel(tree, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed_python(wheel, tmp_path_factory):
    """The interpreter of a new environment that holds the wheel and borrows our dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin/python"
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
    options = ("--quiet", "--no-deps", "--no-index", wheel)
    _run(sys.executable, "-m", "pip", "--python", python, "install", *options, folder=folder)
    return python


def _contents(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(name for name in archive.namelist() if ".dist-info/" not in name)


def test_the_wheel_holds_each_module_of_the_checkout_once(wheel):
    modules = {path.relative_to(ROOT) for path in (ROOT / "fabric").rglob("*.py")}
    modules |= {"fabric" / path.relative_to(ROOT) for path in (ROOT / "workers").rglob("*.py")}
    modules |= {path.relative_to(ROOT) for path in (ROOT / PAGE).iterdir() if path.suffix in (".html", ".css", ".js")}
    expected = {str(path) for path in modules} | {"fabric/_native.abi3.so", "fabric/py.typed", "fabric/__init__.pyi"}
    assert _contents(wheel) == sorted(expected)
    assert "-cp311-abi3-linux_" in wheel.name


def test_the_sdist_builds_the_same_wheel(tree, wheel, tmp_path):
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    _run(sys.executable, "-c", build, folder=tree)
    [sdist] = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert [name for name in archive.getnames() if "/fabric/workers" in name] == []
        archive.extractall(tmp_path, filter="data")
    again = _wheel(tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path)
    assert again.name == wheel.name
    assert _contents(again) == _contents(wheel)


def test_the_installed_wheel_works_in_an_empty_folder(installed_python, tmp_path):
    answer, path = _run(installed_python, "-c", USE, folder=tmp_path).split()
    assert answer == "42"
    assert Path(path).is_relative_to(installed_python.parents[1])


def test_a_users_own_workers_module_is_not_mistaken_for_ours(installed_python, tmp_path):
    (tmp_path / "workers.py").write_text("raise ImportError('this is the file of the user')")
    (tmp_path / "script.py").write_text(USE)
    assert _run(installed_python, "script.py", folder=tmp_path).startswith("42 ")
