"""The benchmarks of cost curves: a wrong answer fails, ours and the peers of the standard library have all points."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from bench import curve, encoding, lookup, placing, scaling
from bench.harness import Contestant, Result, points, run_trial
from bench.lookup import MANY, NAME, REFERENCE
from bench.sample import WrongAnswerError
from fabric import Fabric
from fabric.placement import Load
from tests.test_bench_grid import runs

SIZES = {"most": 50, "most_bytes": 100_000, "sizes": [64, 65_536]}
PUBLISHED = {"messages": 500, "threads": [1, 3]}
SETTINGS = {"sizes": [1, 2], "messages": 200}
SEEDED: dict[str, tuple[str, Mapping[str, Any]]] = {  # the fault in ours, by what is run
    "an agent of many": ("population:ours", {"what": "ask_many", "agents": [10], "messages": 200, "agent": "Impostor"}),
    "an agent asked": (
        "population:ours",
        {"what": "ask, one at a time", "agents": [10], "messages": 200, "agent": "Impostor"},
    ),
    "an agent spawned": (
        "population:ours",
        {"what": "spawn_batch", "agents": [10], "messages": 0, "agent": "Miscounter"},
    ),
    "a thread's message": ("publishers:ours", {"messages": 200, "batch": 1, "threads": [2], "agent": "Forgetful"}),
    "a reply of a worker": ("scaling:ours", {"axis": "workers", "sizes": [1], "messages": 200, "agent": "Liar"}),
    "a body of a size": (
        "body_sizes:by_size",
        {"call": "bench.tell_many:ours", "most": 100, "most_bytes": 5_000, "sizes": [16], "agent": "Forgetful"},
    ),
}
KINDS = list(encoding.KINDS.values())
RUN = [
    *runs(["body_sizes:by_size"], SIZES, call=["bench.tell_many:ours", "bench.peers.pipe:tell"]),
    *runs(["stream_chunks:carried"], SIZES, way=["yielded", "sent", "yielded_by_pipe", "sent_by_pipe"]),
    *runs(["publishers:ours", "peers.publishers:mp_queue", "peers.publishers:ours"], PUBLISHED, batch=[1, 16]),
    *runs(["scaling:ours"], SETTINGS, axis=[scaling.WORKERS, scaling.WORK, scaling.BATCH, scaling.CALL]),
    *runs(["scaling:pool"], SETTINGS, axis=[scaling.WORKERS, scaling.WORK, scaling.CALL], ours=[False, True]),
    *runs(["lookup:ours", "lookup:by_dict"], {"agents": [5, 50], "looks": 100}, way=[NAME, REFERENCE, MANY]),
    *runs(["placing:ours"], {"axis": "agents", "sizes": [2, 8]}, policy=placing.POLICIES),
    *runs(["placing:at_random"], {"sizes": [2, 8]}, axis=["workers"]),
    *runs(["encoding:ours"], {"batches": 10}, kind=KINDS, json=[False, True]),
    *runs(["encoding:by_pickle"], {"batches": 10}, kind=["arrays", "dataclasses"], whole=[False, True]),
    *runs(["encoding:by_orjson"], {"batches": 10}, kind=[kind for kind in KINDS if kind not in encoding.NO_JSON]),
]


@pytest.mark.parametrize("what", SEEDED)
def test_a_bench_fails_when_what_it_measures_answers_wrong(what: str) -> None:
    call, options = SEEDED[what]
    found = run_trial(Contestant("a liar", f"bench.{call}", options, limit_s=30))
    assert found.get("wrong"), found


@pytest.mark.parametrize(("call", "options"), RUN)
def test_ours_and_the_peers_of_the_standard_library_run(call: str, options: Mapping[str, Any]) -> None:
    found = run_trial(Contestant("a contestant", f"bench.{call}", options, limit_s=30))
    assert "failed" not in found, found
    assert found["values"]
    assert all(value > 0 for values in found["values"].values() for value in values)
    points_due = options.get("sizes") or options.get("agents") or options.get("threads")
    if points_due:
        assert len(found["values"]) == len(points_due)


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        ("round_robin", [1, 2, 1]),  # one too few
        ("round_robin", [1, 1, 1, 2]),  # not alike
        ("round_robin", [1, 2, 1, 3]),  # no worker
        ("least_loaded", [1, 1, 2, 2]),  # the second has two already
        ("hash", [1, 1, 1, 1]),  # not what the keys say
    ],
)
def test_agents_that_are_placed_wrong_fail(policy: str, found: list[int]) -> None:
    load = Load((1, 2), (0, 2))
    with pytest.raises(WrongAnswerError):
        placing.check(policy, load, found, 4)
    placing.check(policy, load, placing.place(4, policy, load, [0, 1, 2, 3]).slots, 4)  # type: ignore[arg-type]


def test_agents_that_are_not_found_or_found_when_stopped_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    find = Fabric.find
    monkeypatch.setattr(Fabric, "find", lambda fabric, name: None)
    with pytest.raises(WrongAnswerError):
        lookup.ours("by name", [5], 20)
    monkeypatch.setattr(Fabric, "find", lambda fabric, name: find(fabric, name) or object())
    with pytest.raises(WrongAnswerError, match="stopped"):
        lookup.ours("by name", [5], 20)


@pytest.mark.parametrize("kind", encoding.KINDS.values())
def test_a_body_that_is_decoded_as_another_or_not_at_all_fails(kind: str) -> None:
    sent = encoding.make(kind, 3)
    for found in (sent[:2], [sent[0], sent[2], sent[1]]):
        with pytest.raises(WrongAnswerError):
            encoding._check(found, sent, False)
    encoding._check([one.copy() if isinstance(one, np.ndarray) else one for one in sent], sent, False)


def test_a_curve_is_shown_along_what_it_counts(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Result("a bench", "a case", metric, name, name == "ours", "ok", False, [value], 1, "")
        for metric in points("agents", [10, 1_000], "messages/s")
        for name, value in (("ours", 4.0), ("a peer", 2.0))
    ]
    assert curve.is_one(rows)
    assert rows[1].as_json()["axis"] == "agents"
    curve.show(rows)
    shown = capsys.readouterr().out
    assert re.search("agents.*ours.*a peer", shown)
    assert re.search(r"1,000 .*4\.00.*2\.00.* 2\.00 x a peer", shown)
