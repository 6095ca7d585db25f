"""docs/metrics.md names every metric, as it is exposed."""

from pathlib import Path

from fabric.figures import FIGURES

PAGE = (Path(__file__).parents[1] / "docs/metrics.md").read_text(encoding="utf-8")


def test_each_metric_has_its_row_with_kind_labels_and_meaning():
    rows = [line for line in PAGE.splitlines() if line.startswith("| `fabric_") and line.count("|") == 5]
    expected = [
        f"| `{figure.prometheus_name}` | {figure.kind} | {', '.join(figure.labels)} | {figure.help} |"
        for figure in FIGURES
    ]
    assert rows == expected


def test_names_follow_the_conventions_of_prometheus():
    for figure in FIGURES:
        name = figure.prometheus_name
        assert name.endswith("_total") == (figure.kind == "counter")
        assert not figure.help.endswith(".")
        assert not {"le", "quantile", "fabric"} & set(figure.labels)
        if figure.unit in ("s", "By"):
            assert f"_{figure.suffix}" in name
    assert len({figure.prometheus_name for figure in FIGURES}) == len(FIGURES)
