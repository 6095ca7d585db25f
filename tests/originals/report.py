"""Print what the originals' tests said, for people: a table, then each difference with its reason."""

from dataclasses import dataclass, field

from tests.originals.verdict import Outcomes, Verdict, counts


@dataclass
class Row:
    """All that is known of one suite."""

    suite: str
    original: Outcomes = field(default_factory=dict)
    ours: Outcomes = field(default_factory=dict)
    seconds: tuple[float, float] = (0.0, 0.0)
    unsteady: list[str] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)

    def add(self, original: Outcomes, took: float, ours: Outcomes, we_took: float, unsteady: list[str]) -> None:
        """Add a part of the suite."""
        self.original |= original
        self.ours |= ours
        self.seconds = (self.seconds[0] + took, self.seconds[1] + we_took)
        self.unsteady += unsteady


def show(rows: list[Row], subject: str) -> None:
    """Print the table and the differences."""
    print(f"\n{'':10}  {'the original':^34}  {subject:^34}")
    titles = f"{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}"
    print(f"{'suite':10}  {titles}  {titles}")
    for row in rows:
        print(f"{row.suite:10}", end="")
        for outcomes, seconds in zip((row.original, row.ours), row.seconds, strict=True):
            passed, failed, skipped = counts(outcomes)
            print(f"  {passed:8}{failed:8}{skipped:9}{seconds:9.0f}", end="")
        print()
    for row in rows:
        _differences(row)


def _differences(row: Row) -> None:
    for name, why in row.verdict.explained.items():
        print(f"\n{row.suite}: {name} differs: {why}")
    for name in row.unsteady:
        print(f"\n{row.suite}: {name} failed beside others and passed alone")
    for name, outcome in row.verdict.unexplained.items():
        last = "\n    ".join(outcome.detail.strip().splitlines()[-6:])
        print(f"\n{row.suite}: {name} {outcome.kind} WITHOUT AN EXPLANATION:\n    {last}")
    for pattern, name in row.verdict.stale.items():
        print(f"\n{row.suite}: STALE EXPLANATION of {pattern}: {name} passes")
