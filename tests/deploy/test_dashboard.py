"""The dashboard as a file: generated, complete, and in the manner that Grafana's own linter asks for."""

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
    ("Slices", "Unknown, 1 h"): "[1h]",  # the hour that the other columns speak of
    ("Rows lost", "__auto"): "[$__range]",  # one number for all that is shown
    ("Retraining runs by outcome", "{{outcome}}"): "[$__range]",  # the same
    ("Failed job runs", "{{exported_job}}"): "[1h]",  # some jobs run once in ten minutes
}


def panels(dashboard: Mapping) -> list[Mapping]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def titled(dashboard: Mapping, title: str) -> Mapping:
    (found,) = (panel for panel in panels(dashboard) if panel["title"] == title)
    return found


def variables(dashboard: Mapping) -> dict[str, Mapping]:
    return {each["name"]: each for each in dashboard["templating"]["list"]}


def selectors(expr: str) -> list[tuple[str, str]]:
    """Return the metrics of an expression with what they are narrowed to."""
    found = re.findall(r"\b(slicewatch_\w+)(\{[^}]*\})?", expr)
    assert found, expr
    return found


def test_the_committed_file_is_what_the_script_writes(deploy: Path, tmp_path: Path) -> None:
    """Nobody has edited the one without the other."""
    made = tmp_path / "slices.json"
    subprocess.run([sys.executable, deploy / "grafana" / "generate.py", made], check=True)
    assert made.read_text() == (deploy / "grafana" / "dashboards" / "slices.json").read_text()


def test_the_dashboard_cannot_be_edited_in_the_browser(dashboard: Mapping, deploy: Path) -> None:
    """What is shown is what is in the repository."""
    assert dashboard["editable"] is False
    text = (deploy / "grafana" / "provisioning" / "dashboards" / "slicewatch.yaml").read_text()
    (provider,) = yaml.safe_load(text)["providers"]
    assert (provider["type"], provider["disableDeletion"], provider["allowUiUpdates"]) == (
        "file",
        True,
        False,
    )


def test_every_panel_says_what_it_shows_and_in_which_unit(dashboard: Mapping) -> None:
    """Title, description and unit are there, titles differ, and a panel without data says so."""
    assert len(panels(dashboard)) <= 25
    for panel in panels(dashboard):
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["fieldConfig"]["defaults"]["noValue"]
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert len(set(titles)) == len(titles)


def test_every_column_of_the_overview_has_its_unit(dashboard: Mapping) -> None:
    """Shares are shown as shares; every number of the table has a name and a unit of its own."""
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
    assert set(units.values()) == {"percentunit", "none"}
    dropped = options["excludeByName"]
    assert {f"Time {k}" for k in range(1, len(table["targets"]) + 1)} <= set(dropped)


def test_every_panel_and_query_uses_the_chosen_data_source(dashboard: Mapping) -> None:
    """Nothing is bound to one Prometheus."""
    asking = [*panels(dashboard), *(target for panel in panels(dashboard) for target in panel["targets"])]
    asking += [each for name, each in variables(dashboard).items() if name != "datasource"]
    asking += dashboard["annotations"]["list"]
    assert all(each["datasource"] == SOURCE for each in asking)
    source = variables(dashboard)["datasource"]
    assert (source["type"], source["query"], source["label"]) == ("datasource", "prometheus", "Data source")


def test_what_can_be_chosen(dashboard: Mapping) -> None:
    """The variables, in order; all but the model may be several or all, and are asked anew with the time range."""
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


def test_every_query_is_narrowed_to_job_and_instance(queries: list) -> None:
    """Each metric of each expression is, and one that knows its model also to that."""
    for each in queries:
        for name, braces in selectors(each.expr):
            assert 'job=~"$job"' in braces, name
            assert 'instance=~"$instance"' in braces, name
            if re.search("slice_(?!info)|predictions|labels_total|model_info", name):
                assert 'model=~"$model"' in braces, name


def test_counters_are_asked_for_their_rate_and_gauges_for_their_maximum(queries: list) -> None:
    """A counter is inside rate or increase; a gauge of the snapshot, the same on each process, inside max."""
    for each in queries:
        for name, _ in selectors(each.expr):
            before = re.escape(f"{name}{{")
            if name.endswith(COUNTERS):
                assert len(re.findall(rf"(?:rate|increase)\({before}", each.expr)) == each.expr.count(
                    f"{name}{{"
                )
            else:
                inside = re.findall(rf"\bmax(?: by \([^)]*\))? ?\({before}", each.expr)
                joined = re.findall(rf"and on \(job, instance, slice\) {before}", each.expr)
                assert len(inside) + len(joined) == each.expr.count(f"{name}{{"), each.expr


def test_rates_are_taken_over_an_interval_that_holds_several_scrapes(queries: list) -> None:
    """Every range is the one that Grafana makes from the scrape interval, but for those that say otherwise."""
    for each in queries:
        expected = FIXED_RANGES.get((each.panel, each.column), "[$__rate_interval]")
        assert set(re.findall(r"\[[^\]]*\]", each.expr)) <= {expected}


def test_grafana_knows_the_scrape_interval(deploy: Path) -> None:
    """The data source is told the interval of prometheus.yml, and has a fixed uid."""
    text = (deploy / "grafana" / "provisioning" / "datasources" / "prometheus.yaml").read_text()
    (source,) = yaml.safe_load(text)["datasources"]
    config = yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    assert (source["uid"], source["editable"]) == ("slicewatch-prometheus", False)


def test_letters_and_ids_are_told_apart(dashboard: Mapping) -> None:
    """Each query has a letter of its own in its panel, each panel a number of its own."""
    for panel in panels(dashboard):
        letters = [target["refId"] for target in panel["targets"]]
        assert letters
        assert len(set(letters)) == len(letters)
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_panels_fill_the_grid_without_overlap(dashboard: Mapping) -> None:
    """Side by side they are 24 wide, equally high, and the next ones begin where they end."""
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
    """In each panel with an upper limit it is filled down to the lower one, which is a line of the panel."""
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


def test_a_slice_of_the_overview_leads_to_its_row(dashboard: Mapping) -> None:
    """The link keeps every other choice, and the row that it leads to is repeated for each chosen slice."""
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
    """What is said of one slice and kind is merged; numbers have names and units; the newest comes first."""
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


def test_evidence_is_shown_against_the_line_at_which_it_alarms(dashboard: Mapping) -> None:
    """The line is drawn at 1, and is in sight though no evidence is near it."""
    shown = titled(dashboard, "Drift evidence")["fieldConfig"]["defaults"]
    assert shown["custom"]["thresholdsStyle"] == {"mode": "dashed"}
    assert [step["value"] for step in shown["thresholds"]["steps"]] == [None, 1]
    assert shown["custom"]["axisSoftMax"] > 1


@pytest.mark.parametrize("field", ["refresh", "time", "timezone", "uid", "schemaVersion", "tags"])
def test_the_page_is_complete(dashboard: Mapping, field: str) -> None:
    """What Grafana would otherwise choose itself is said."""
    assert dashboard[field]
