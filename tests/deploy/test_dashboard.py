"""The dashboard file: generated, complete, and following the rules of Grafana's dashboard linter."""

import re
import subprocess
import sys
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

import pytest
import yaml

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COUNTERS = ("_total", "_bucket", "_count", "_sum")
FIXED_RANGES = {
    ("Slices", "Unknown, 1 h"): "[1h]",  # the hour of the other columns
    ("Rows lost", "__auto"): "[$__range]",  # one number for the selected time range
    ("Retraining runs by outcome", "{{outcome}}"): "[$__range]",  # the same
    ("Failed job runs", "{{task}}"): "[1h]",  # some jobs run once in ten minutes
    ("Job duration", "{{task}}"): "[15m]",  # the same
}


def panels(dashboard: Mapping) -> list[Mapping]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def titled(dashboard: Mapping, title: str) -> Mapping:
    (found,) = (panel for panel in panels(dashboard) if panel["title"] == title)
    return found


def variables(dashboard: Mapping) -> dict[str, Mapping]:
    return {each["name"]: each for each in dashboard["templating"]["list"]}


def selectors(expr: str) -> list[tuple[str, str]]:
    """Return the metrics of an expression with their selectors."""
    found = re.findall(r"\b(slicewatch_\w+)(\{[^}]*\})?", expr)
    assert found, expr
    return found


def test_the_committed_file_is_what_the_script_writes(deploy: Path, tmp_path: Path) -> None:
    """Regenerating the dashboard changes nothing."""
    made = tmp_path / "slices.json"
    subprocess.run([sys.executable, deploy / "grafana" / "generate.py", made], check=True)
    assert made.read_text() == (deploy / "grafana" / "dashboards" / "slices.json").read_text()


def test_the_dashboard_cannot_be_edited_in_the_browser(dashboard: Mapping, deploy: Path) -> None:
    """The dashboard shown is the one in the repository."""
    assert dashboard["editable"] is False
    text = (deploy / "grafana" / "provisioning" / "dashboards" / "slicewatch.yaml").read_text()
    (provider,) = yaml.safe_load(text)["providers"]
    assert (provider["type"], provider["disableDeletion"], provider["allowUiUpdates"]) == (
        "file",
        True,
        False,
    )


def test_every_panel_says_what_it_shows_and_in_which_unit(dashboard: Mapping) -> None:
    """Panels have a title, a description and a unit; titles are unique; a panel without data says so."""
    assert len(panels(dashboard)) <= 28
    for panel in panels(dashboard):
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["fieldConfig"]["defaults"]["noValue"]
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert len(set(titles)) == len(titles)


def test_every_column_of_the_table_has_its_unit(dashboard: Mapping) -> None:
    """Ratios have the unit percent, times that of a date; all numbers of the table have a name and a unit."""
    table = titled(dashboard, "Slices")
    options = table["transformations"][-1]["options"]
    numbers = [name for key, name in options["renameByName"].items() if key.startswith("Value #")]
    units = {
        override["matcher"]["options"]: each["value"]
        for override in table["fieldConfig"]["overrides"]
        for each in override["properties"]
        if each["id"] == "unit"
    }
    assert list(units) == numbers
    assert len(table["targets"]) == len(numbers) + 1
    assert set(units.values()) == {"percentunit", "none", "dateTimeAsIso"}
    dropped = options["excludeByName"]
    assert {f"Time {k}" for k in range(1, len(table["targets"]) + 1)} <= set(dropped)


def test_every_panel_and_query_uses_the_selected_data_source(dashboard: Mapping) -> None:
    """No panel is bound to a particular Prometheus."""
    asking = [*panels(dashboard), *(target for panel in panels(dashboard) for target in panel["targets"])]
    asking += [each for name, each in variables(dashboard).items() if name != "datasource"]
    asking += dashboard["annotations"]["list"]
    assert all(each["datasource"] == SOURCE for each in asking)
    source = variables(dashboard)["datasource"]
    assert (source["type"], source["query"], source["label"]) == ("datasource", "prometheus", "Data source")


def test_variables(dashboard: Mapping) -> None:
    """The variables, in order; all but the model are multi-value; they refresh with the time range."""
    found = variables(dashboard)
    assert list(found) == ["datasource", "job", "instance", "model", "version", "slice"]
    for name in ("job", "instance", "model", "version", "slice"):
        each = found[name]
        assert (each["type"], each["refresh"], each["label"]) == ("query", 2, name.capitalize())
        assert each["query"] == each["definition"]
        if name == "model":
            assert not each["multi"]
        else:
            assert (each["multi"], each["includeAll"], each["allValue"]) == (True, True, ".+")


def test_every_query_selects_job_and_instance(queries: list) -> None:
    """All metrics of all expressions select them; metrics with a model label also select the model."""
    for each in queries:
        for name, braces in selectors(each.expr):
            assert 'job=~"$job"' in braces, name
            assert 'instance=~"$instance"' in braces, name
            if re.search("slice_(?!info)|predictions|labels_total|model_info", name):
                assert 'model=~"$model"' in braces, name


def test_counters_are_queried_by_rate_and_gauges_by_maximum(queries: list) -> None:
    """A counter is inside rate or increase; a snapshot gauge, equal on all processes, is inside max."""
    for each in queries:
        for name, _ in selectors(each.expr):
            before = re.escape(f"{name}{{")
            if name.endswith(COUNTERS):
                assert len(re.findall(rf"(?:rate|increase)\({before}", each.expr)) == each.expr.count(f"{name}{{")
            else:
                inside = re.findall(rf"\bmax(?: by \([^)]*\))? ?\({before}", each.expr)
                joined = re.findall(rf"and on \(job, instance, slice\) {before}", each.expr)
                assert len(inside) + len(joined) == each.expr.count(f"{name}{{"), each.expr


def test_rates_are_taken_over_an_interval_that_holds_several_scrapes(queries: list) -> None:
    """All ranges are $__rate_interval, except for the listed ones."""
    for each in queries:
        expected = FIXED_RANGES.get((each.panel, each.column), "[$__rate_interval]")
        assert set(re.findall(r"\[[^\]]*\]", each.expr)) <= {expected}


def test_grafana_knows_the_scrape_interval(deploy: Path) -> None:
    """The data source has the interval of prometheus.yml and a fixed uid."""
    text = (deploy / "grafana" / "provisioning" / "datasources" / "prometheus.yaml").read_text()
    (source,) = yaml.safe_load(text)["datasources"]
    config = yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    assert (source["uid"], source["editable"]) == ("slicewatch-prometheus", False)


def test_reference_and_panel_ids_are_unique(dashboard: Mapping) -> None:
    """Reference ids are unique in their panel, panel ids in the dashboard."""
    for panel in panels(dashboard):
        letters = [target["refId"] for target in panel["targets"]]
        assert letters
        assert len(set(letters)) == len(letters)
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_panels_fill_the_grid_without_overlap(dashboard: Mapping) -> None:
    """Panels side by side are 24 wide and equally high, and the next ones start below them."""
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    y = 0
    for top, together in groupby(places, key=lambda place: place["y"]):
        row = list(together)
        assert top == y
        assert [place["x"] for place in row] == [sum(p["w"] for p in row[:k]) for k in range(len(row))]
        assert sum(place["w"] for place in row) == 24
        assert len({place["h"] for place in row}) == 1
        y += row[0]["h"]


def test_bands_fill_between_their_limits(dashboard: Mapping) -> None:
    """Upper limits are filled down to the lower limit, which is a series of the panel."""
    banded = [panel for panel in panels(dashboard) if "upper" in legends(panel)]
    assert [panel["title"] for panel in banded] == ["Coverage of $slice", "Accuracy of $slice"]
    for panel in banded:
        filled = {
            (override["matcher"]["options"], each["value"])
            for override in panel["fieldConfig"]["overrides"]
            for each in override["properties"]
            if each["id"] == "custom.fillBelowTo"
        }
        assert filled == {("upper", "lower")}
        assert {"lower", "reference" if "Coverage" in panel["title"] else "target"} <= legends(panel)


def legends(panel: Mapping) -> set[str]:
    return {target.get("legendFormat", "") for target in panel["targets"]}


def test_a_slice_of_the_table_links_to_its_row(dashboard: Mapping) -> None:
    """The link keeps all other variables, and the target row is repeated for every selected slice."""
    table = titled(dashboard, "Slices")
    (url,) = (
        link["url"]
        for override in table["fieldConfig"]["overrides"]
        for each in override["properties"]
        if each["id"] == "links"
        for link in each["value"]
    )
    assert url.startswith(f"/d/{dashboard['uid']}?")
    assert url.endswith("var-slice=${__data.fields.Slice:percentencode}")
    assert set(re.findall(r"\$\{(\w+):queryparam\}", url)) == set(variables(dashboard)) - {"slice"}
    assert [row["title"] for row in dashboard["panels"] if row.get("repeat") == "slice"] == ["Slice: $slice"]


def test_an_alarm_is_one_row_of_its_table(dashboard: Mapping) -> None:
    """Results are merged by slice and kind; numbers have names and units; the latest change is first."""
    table = titled(dashboard, "Unresolved alarms")
    merged, organized = table["transformations"]
    assert (merged["id"], organized["id"]) == ("merge", "organize")
    places = organized["options"]["indexByName"]
    assert (places["slice"], places["kind"], max(places.values())) == (0, 1, len(places) - 1)
    names = organized["options"]["renameByName"]
    assert [f"Value #{target['refId']}" for target in table["targets"]] == list(names)[:-2]
    units = {
        override["matcher"]["options"]: override["properties"][0]["value"]
        for override in table["fieldConfig"]["overrides"]
    }
    assert units == {
        "Observed": "percentunit",
        "Expected": "percentunit",
        "Times expected": "none",
        "Since": "dateTimeAsIso",
    }
    assert set(units) == {name for key, name in names.items() if key.startswith("Value #")}
    assert table["options"]["sortBy"] == [{"displayName": "Since", "desc": True}]


def test_evidence_is_shown_against_the_alarm_threshold(dashboard: Mapping) -> None:
    """The threshold is at 1 and always in sight."""
    shown = titled(dashboard, "Drift evidence")["fieldConfig"]["defaults"]
    assert shown["custom"]["thresholdsStyle"] == {"mode": "dashed"}
    assert [step["value"] for step in shown["thresholds"]["steps"]] == [None, 1]
    assert shown["custom"]["axisSoftMax"] > 1


@pytest.mark.parametrize("field", ["refresh", "time", "timezone", "uid", "schemaVersion", "tags"])
def test_the_page_is_complete(dashboard: Mapping, field: str) -> None:
    """Fields with a default of Grafana are set explicitly."""
    assert dashboard[field]
