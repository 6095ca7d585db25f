"""Compare what the originals' tests say of the original and of us. Pure: outcomes in, a verdict out."""

from dataclasses import dataclass, field
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Outcome:
    """How a test ended: "passed", "failed" or "skipped", and in which words."""

    kind: str
    detail: str = ""


Outcomes = dict[str, Outcome]


@dataclass
class Verdict:
    """`unexplained` and `stale` are what somebody has to look at."""

    explained: dict[str, str] = field(default_factory=dict)  # test -> why it differs
    unexplained: dict[str, Outcome] = field(default_factory=dict)  # test -> what we did
    stale: dict[str, str] = field(default_factory=dict)  # pattern -> a test that it names, and which passes

    @property
    def good(self) -> bool:
        return not self.unexplained and not self.stale


def different(original: Outcomes, ours: Outcomes) -> Outcomes:
    """Return what became with us of tests that the original passes and we do not."""
    never = Outcome("failed", "it never ran")
    found = {name: ours.get(name, never) for name, outcome in original.items() if outcome.kind == "passed"}
    # Tests that only we have are the driver's own complaints, of a teardown that failed or a process that did not end.
    found |= {name: outcome for name, outcome in ours.items() if name not in original and outcome.kind == "failed"}
    return {name: outcome for name, outcome in found.items() if outcome.kind != "passed"}


def judge(original: Outcomes, ours: Outcomes, explanations: dict[str, str]) -> Verdict:
    """Return the verdict on one suite. An explanation is for all tests that its pattern matches (`*` is anything)."""
    verdict = Verdict()
    differing = different(original, ours)
    for name, outcome in differing.items():
        why = [text for pattern, text in explanations.items() if fnmatchcase(name, pattern)]
        if why:
            verdict.explained[name] = why[0]
        else:
            verdict.unexplained[name] = outcome
    for name in sorted(set(original) - set(differing)):
        if original[name].kind == "passed":
            verdict.stale |= {pattern: name for pattern in explanations if fnmatchcase(name, pattern)}
    return verdict


def counts(outcomes: Outcomes) -> tuple[int, int, int]:
    """Return how many passed, failed and were skipped."""
    kinds = [outcome.kind for outcome in outcomes.values()]
    return kinds.count("passed"), kinds.count("failed"), kinds.count("skipped")
