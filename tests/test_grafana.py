"""The Grafana dashboard in docs/ asks for what is exposed, by labels that are there, and says in which unit."""

import json
import re
from pathlib import Path

import pytest

from fabric import Fabric
from tests.metrics_agents import Picky

pytest.importorskip(
    "prometheus_client", reason="the Grafana dashboard is NOT TESTED: scripts/env installs what it needs"
)

from fabric.integrations.prometheus import FabricCollector

DASHBOARD = json.loads((Path(__file__).parents[1] / "docs/grafana.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SELECTOR = re.compile(r"(\w+)\{([^}]*)\}")
OF_THE_SCRAPE = {"instance"}  # a label that Prometheus adds


def expressions():
    found = [target["expr"] for panel in PANELS for target in panel["targets"]]
    return found + [one["expr"] for one in DASHBOARD["annotations"]["list"]]


@pytest.fixture(scope="module")
def exposed():
    """The labels of each series that a fabric in use exposes."""
    with Fabric(workers=1, on_error=lambda letter: None) as fab:
        fab.spawn_batch(Picky, 1)[0].ask(0)
        found = {}
        for family in FabricCollector(fab).collect():
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_each_series_that_it_asks_for_is_exposed(exposed):
    asked = {name for expression in expressions() for name, _ in SELECTOR.findall(expression)}
    assert len(asked) > 40
    assert asked - exposed.keys() == set()


def test_nothing_is_named_without_the_selector_of_the_chosen_fabric():
    for expression in expressions():
        selected = SELECTOR.findall(expression)
        assert len(selected) == len(re.findall(r"\bfabric_\w+", expression))
        assert all('instance=~"$instance"' in labels and 'fabric=~"$fabric"' in labels for _, labels in selected)


def test_each_label_that_it_goes_by_is_one_of_that_series(exposed):
    for panel in PANELS:
        for target in panel["targets"]:
            expression = target["expr"]
            grouped = {
                label.strip() for labels in re.findall(r"by \(([^)]*)\)", expression) for label in labels.split(",")
            }
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            for name, labels in SELECTOR.findall(expression):
                matched = set(re.findall(r"(\w+)(?:=~|!=|=)", labels))
                assert (grouped | matched | shown) - OF_THE_SCRAPE - exposed[name] == set(), expression
            assert shown <= grouped, "what is summed away cannot be shown"


def test_each_variable_asks_for_a_series_that_is_exposed(exposed):
    queries = [one["query"]["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
    assert queries
    for query in queries:
        name, label = re.fullmatch(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", query).groups()
        assert label in exposed[name] | OF_THE_SCRAPE


def test_brackets_of_each_expression_match():
    for expression in expressions():
        depth = 0
        for sign in expression:
            depth += (sign in "({[") - (sign in ")}]")
            assert depth >= 0, expression
        assert depth == 0, expression


def test_each_panel_has_a_unit_a_title_a_source_and_a_place_of_its_own():
    taken = set()
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert all(one["datasource"]["uid"] == "${datasource}" for one in (panel, *panel["targets"]))
        place = panel["gridPos"]
        cells = {(place["x"] + column, place["y"] + line) for column in range(place["w"]) for line in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert cells & taken == set()
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_times_are_shown_as_times_and_bytes_as_bytes():
    for panel in PANELS:
        units = {panel["fieldConfig"]["defaults"]["unit"]}
        units |= {
            one["value"]
            for over in panel["fieldConfig"]["overrides"]
            for one in over["properties"]
            if one["id"] == "unit"
        }
        for target in panel["targets"]:
            if target["expr"].startswith("histogram_quantile") and "_seconds_bucket" in target["expr"]:
                assert "s" in units
            if re.match(r"sum[^/]*fabric_\w+_bytes\{[^}]*\}\)$", target["expr"]):
                assert "bytes" in units
