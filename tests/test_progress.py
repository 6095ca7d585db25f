"""A bar by tqdm, around what is iterated over or told by hand."""

import sys

import pytest
import tqdm

from fabric.progress import progress_bar


@pytest.fixture(autouse=True)
def no_bar_is_left():
    yield
    assert not tqdm.tqdm._instances


def test_items_come_through_the_bar_and_are_counted(capsys):
    assert list(progress_bar(iter("abc"), total=3)) == ["a", "b", "c"]
    shown = capsys.readouterr().err
    assert "3.00/3.00" in shown
    assert "tasks/s" in shown


def test_a_bar_is_told_of_progress_by_hand_and_named(capsys):
    bar = progress_bar(total=4, unit="agents", description="spawning")
    bar.update(4)
    bar.close()

    shown = capsys.readouterr().err
    assert "spawning: 100%" in shown
    assert "agents/s" in shown


def test_without_tqdm_it_names_the_extra_before_the_first_item(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"pip install 'shm-fabric\[progress\]'"):
        progress_bar([1, 2])
