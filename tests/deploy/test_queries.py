"""All queries of the dashboard and all rules, on a real Prometheus with two processes."""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import pytest
import yaml
from scipy.stats import binomtest

from service.decisions import Alarm, DriftStatus, Incident, ToleranceBand
from service.events import (
    NONE_FIRED,
    DiskUse,
    Estimate,
    Freshness,
    FunctionSetVersion,
    InsufficientData,
    Performance,
    Prediction,
    SliceEstimate,
    Snapshot,
    WindowEstimates,
)
from service.metrics.gauges import MetricsPage
from service.metrics.process import ProcessMetrics
from sfs.apply import FunctionStats
from sfs.function import ALL_ROWS
from sfs.intervals import Rate
from sfs.validation import Metadata

# slice: members of the hour's 1,000 rows, right of the labelled since promotion
COUNTS = {"short": (150, 80, 100), "link": (30, 45, 50), "few": (5, 3, 4), NONE_FIRED: (820, 700, 800)}
COUNTS[ALL_ROWS] = (1000, 828, 954)
ROWS = 1000
TARGET = 0.95
REFERENCES = {"short": Rate(100, 2000), "link": Rate(66, 2000)}


def estimate(name: str) -> SliceEstimate:
    """Return the estimates of a slice; too few labels give no accuracy."""
    members, right, labelled = COUNTS[name]
    few = InsufficientData(labelled, 20, "few")
    share = Estimate(Rate(right, labelled), right / labelled - 0.05, right / labelled + 0.04, "anytime")
    inside = Performance(labelled, few, few) if labelled < 20 else Performance(labelled, share, 0.5)
    covered = Estimate(Rate(members, ROWS), 0.0, 1.0, "clopper-pearson")
    return SliceEstimate(name, name, covered, 0, 0, inside, inside)


class Process:
    """API process with activity before every scrape, so that counters increase."""

    def __init__(self, at: datetime) -> None:
        self.metrics = ProcessMetrics("spam", log_queue_rows=lambda: 7, jobs=["report"])
        self.metrics.add_routes(["/v1/predict"])
        self.metrics.show_store(True, DiskUse(store=8_192, reusable=0, free=10**9, disk=10**10))
        self.functions = FunctionSetVersion("set", ("short", "link", "few"), ("1", "2", "3"), at)
        self.metrics.set_functions(self.functions)
        self.metrics.set_version(3, ["ham", "spam"])
        self.page = MetricsPage(self.metrics)
        window = WindowEstimates(at - timedelta(hours=1), at, tuple(map(estimate, COUNTS)))
        self.at = at
        dry = at - timedelta(hours=2)
        fresh = {name: Freshness(name, ROWS, at, 100, 90, at) for name in COUNTS} | {
            "few": Freshness("few", 1, dry, 4, None, dry)
        }
        shown = Snapshot(at, "spam", 3, "set", {"1h": window, "since_promotion": window}, at, fresh)
        metadata = {
            "short": Metadata(owner="trust", severity="critical", target=TARGET),
            "link": Metadata(target=0.9),
        }
        self.page.show(shown, metadata, REFERENCES)
        zone = ToleranceBand(REFERENCES["short"], 0.04, 0.06, 0.1)
        drift = DriftStatus("short", "1", "coverage", zone, 20.0, 19.0, at, "up", Rate(150, ROWS), 0.0, 1.0)
        alarm = Alarm(1, "spam", 3, at, drift)
        self.page.show_drift("spam", [drift], [alarm], at)
        self.page.show_incidents("spam", [Incident(1, "spam", (alarm,))], metadata)

    def text(self) -> bytes:
        bits = np.packbits([True, False, False], bitorder="little").tobytes()
        row = Prediction("id", "spam", 3, "set", self.functions.at, "ham", None, bits, b"\0", None, 0, "live")
        self.metrics.count_predictions([row] * 100)
        self.metrics.count_function_runs([FunctionStats("link", 0.001, {"KeyError": 30}, None)])
        self.metrics.count_labels("accepted")
        self.metrics.observe_request("/v1/predict", 0.004)
        self.metrics.observe_stage("model", 0.002)
        self.metrics.count_job_run("report", "failed", self.functions.at, 0.5)
        self.metrics.count_retrain("held")
        return self.page.text()


@pytest.fixture(scope="module")
def process() -> Process:
    return Process(datetime.now(UTC))


@pytest.fixture(scope="module")
def server(prometheus: Callable, page_server: Callable, process: Process, settled: Callable) -> Iterator[object]:
    """Prometheus server after scrapes of two processes with the same figures, and evaluation of all rules."""
    with (
        page_server(process.text) as one,
        page_server(process.text) as other,
        prometheus(one, other) as started,
    ):
        settled(lambda: len(started.query("rate(slicewatch_log_lost_total[5s])")) == 2, "rates")
        for record in (
            "coverage_deviation:squared1h",
            "unknown_per_predictions:ratio_rate15m",
            "drift_alarm:max",
        ):
            settled(partial(started.query, f"slice:slicewatch_slice_{record}"), record)
        yield started


def test_every_query_of_the_dashboard_is_answered(server: object, queries: list) -> None:
    """No panel, column or annotation is empty, and Prometheus accepts every expression."""
    empty = [each for each in queries if not server.over_time(each.filled(model="spam"))]
    assert empty == []


def test_one_slice_can_be_selected(server: object, queries: list) -> None:
    """With one selected slice its queries return one series, as the bands require."""
    asked = [each for each in queries if "$slice" in each.expr]
    assert len(asked) == 12
    found = {(each.panel, each.column): len(server.query(each.filled(model="spam", slice="short"))) for each in asked}
    assert set(found.values()) == {1}


def test_the_table_has_the_figures_of_the_snapshot_once(server: object, queries: list, process: Process) -> None:
    """Two processes give one row per slice: coverage, reference, accuracy and limits, n, owner and severity."""
    table = {each.column: each.filled(model="spam") for each in queries if each.panel == "Slices"}
    column = {
        name: {key[0]: value for key, value in server.values(expr, "slice").items()} for name, expr in table.items()
    }
    judged = {name: right / n for name, (_, right, n) in COUNTS.items() if n >= 20}
    assert column["Coverage, 1 h"] == {name: members / ROWS for name, (members, *_) in COUNTS.items()}
    assert column["Rows, 1 h"] == dict.fromkeys(COUNTS, ROWS)
    assert column["Labelled"] == {name: n for name, (*_, n) in COUNTS.items()}
    assert column["Accuracy"] == judged
    assert column["Upper"] == {name: value + 0.04 for name, value in judged.items()}
    assert column["Lower"] == {name: value - 0.05 for name, value in judged.items()}
    assert column["Reference"] == {"short": 0.05, "link": 0.033}
    assert column["Times reference"] == {"short": 0.15 / 0.05, "link": 0.03 / 0.033}
    assert column["Target"] == {"short": 0.95, "link": 0.9}
    assert column["Upper - target"] == {
        "short": pytest.approx(0.84 - 0.95),
        "link": pytest.approx(0.94 - 0.9),
    }
    assert set(column["Unknown, 1 h"]) == {"link"}
    assert column["Last label"]["short"] == pytest.approx(1000 * process.at.timestamp())
    assert column["Last label"]["few"] == pytest.approx(1000 * process.at.timestamp() - 2 * 3600 * 1000)
    facts = server.values(table["facts"], "slice", "owner", "severity")
    assert set(facts) == {
        ("short", "trust", "critical"),
        *((name, "", "warning") for name in set(COUNTS) - {"short"}),
    }


def test_the_band_of_coverage_is_the_wilson_interval(server: object, queries: list) -> None:
    """The limits in PromQL equal those of scipy."""
    expr = {each.column: each.filled(model="spam") for each in queries if each.panel.startswith("Coverage of")}
    lower, upper = (server.values(expr[name], "slice") for name in ("lower", "upper"))
    for name, (members, *_) in COUNTS.items():
        exact = binomtest(members, ROWS).proportion_ci(method="wilson")
        assert (lower[name,], upper[name,]) == pytest.approx((exact.low, exact.high), abs=1e-5)


def test_the_table_of_alarms_has_the_figures_of_the_alarms(server: object, queries: list, process: Process) -> None:
    """Two processes give one row, with the time in milliseconds for Grafana."""
    column = {
        each.column: server.values(each.filled(model="spam"), "slice", "kind")
        for each in queries
        if each.panel == "Unresolved alarms"
    }
    assert column == {
        "Observed": {("short", "coverage"): 0.15},
        "Expected": {("short", "coverage"): 0.05},
        "Times expected": {("short", "coverage"): 0.15 / 0.05},
        "Since": {("short", "coverage"): pytest.approx(process.functions.at.timestamp() * 1000)},
    }


def test_evidence_versions_outcomes_and_failed_jobs(server: object, queries: list, settled: Callable) -> None:
    """Evidence as a fraction, the active version, retraining runs by outcome, and the failed job."""
    expr = {each.panel: each.filled(model="spam") for each in queries}
    assert server.values(expr["Drift evidence"], "slice", "kind") == {("short", "coverage"): 20.0 / 19.0}
    assert server.values(expr["Champion"], "version") == {("3",): 1}
    ended = settled(lambda: server.values(f"{expr['Retraining runs by outcome']} > 1", "outcome"), "retrainings")
    assert set(ended) == {("held",)}
    assert float.is_integer(ended["held",])
    assert set(server.values(f"{expr['Failed job runs']} > 1", "task")) == {("report",)}


def test_slices_below_their_target_are_counted(server: object, queries: list) -> None:
    """One of the two slices with a target misses it; without any, the panel shows 0."""
    (expr,) = (each.filled(model="spam") for each in queries if each.panel == "Slices below target")
    assert server.values(expr) == {(): 1}
    assert server.values(expr.replace("< max", "> 2 * max")) == {(): 0}


def test_every_variable_has_values(server: object, dashboard: Mapping) -> None:
    """All variables list the existing values."""
    offered = {}
    for variable in dashboard["templating"]["list"][1:]:
        match, label = variable["query"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
        for name in ("job", "instance", "model", "version"):
            match = match.replace(f"${name}", ".+")
        offered[label] = server.ask(f"label/{label}/values", **{"match[]": match})
    assert offered["job"] == ["slicewatch"]
    assert len(offered["instance"]) == 2
    assert (offered["model"], offered["version"]) == (["spam"], ["3"])
    assert sorted(offered["slice"]) == sorted(COUNTS)


def test_recording_rules_answer(server: object, deploy: object) -> None:
    """All recorded series exist, once per slice."""
    groups = yaml.safe_load((deploy / "prometheus" / "rules.yml").read_text())["groups"]
    records = [rule["record"] for group in groups for rule in group["rules"]]
    assert len(records) >= 8
    found = {name: server.values(name, "model", "version", "slice") for name in records}
    assert [name for name, series in found.items() if not series] == []
    assert found["slice:slicewatch_slice_coverage_per_reference:ratio1h"]["spam", "3", "short"] == 0.15 / 0.05
    assert found["slice:slicewatch_slice_drift_observed:ratio"] == {("spam", "", "short"): 0.15}
    assert found["slice:slicewatch_slice_drift_expected:ratio"] == {("spam", "", "short"): 0.05}


def test_rules_are_evaluated_and_the_right_alerts_are_pending(server: object, settled: Callable) -> None:
    """No rule fails, and exactly the alerts with a cause are pending."""

    expected = {
        ("SlicewatchIncident", "", "critical"),
        ("SlicewatchSliceCoverageDrift", "short", "critical"),
        ("SlicewatchSliceCoverageOutsideReference", "short", "critical"),
        ("SlicewatchSliceAccuracyBelowTarget", "short", "critical"),
        ("SlicewatchSliceUnknownHigh", "link", "warning"),
        ("SlicewatchRetrainNeedsSomebody", "", "warning"),
    }

    def rules() -> list[Mapping]:
        return [rule for group in server.ask("rules")["groups"] for rule in group["rules"]]

    def begun() -> set[tuple[str, ...]]:
        alerts = [alert["labels"] for rule in rules() for alert in rule.get("alerts", [])]
        return {(each["alertname"], each.get("slice", ""), each["severity"]) for each in alerts}

    settled(lambda: begun() >= expected, "alerts")
    assert begun() == expected
    assert [rule for rule in rules() if rule["health"] != "ok"] == []


def test_the_page_is_clean(process: Process) -> None:
    """promtool reports nothing on the scraped page."""
    said = subprocess.run(["promtool", "check", "metrics"], input=process.text(), capture_output=True, check=False)
    assert (said.returncode, said.stdout + said.stderr) == (0, b"")
