"""The metrics page: names, values, and missing series."""

import math
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

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
from service.metrics.exposition import CONTENT_TYPE
from service.metrics.gauges import MetricsPage, render_drift, render_incidents, render_snapshot
from service.metrics.prediction_collector import reindex
from service.metrics.process import STAGES, ProcessMetrics
from sfs.apply import FunctionStats
from sfs.function import ALL_ROWS
from sfs.intervals import Rate
from sfs.validation import Metadata

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
ZONE = ToleranceBand(Rate(20, 1000), 0.015, 0.025, 0.1)


def series(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return every sample of a page by name and labels, without the prefix; none may be there twice."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            key = sample.name.removeprefix("slicewatch_"), frozenset(sample.labels.items())
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def named(text: bytes, name: str, *keys: str) -> dict[tuple[str, ...], float]:
    """Return the samples of one name by the values of these labels, and check that they have no others."""
    found = {}
    for (each, labels), value in series(text).items():
        if each == name:
            by_key = dict(labels)
            assert set(by_key) == set(keys)
            found[tuple(by_key[key] for key in keys)] = value
    return found


def functions(*names: str) -> FunctionSetVersion:
    return FunctionSetVersion("+".join(names), names, tuple(name * 2 for name in names), AT)


def row(made: FunctionSetVersion, *slices: str, label: str = "ham", version: int = 3) -> Prediction:
    """Return a row in some slices of a set."""
    bits = np.packbits([name in slices for name in made.names], bitorder="little").tobytes()
    none = bytes(len(bits))
    return Prediction("id", "spam", version, made.hash, AT, label, None, bits, none, None, 0, "live")


def process(**changes: object) -> ProcessMetrics:
    metrics = ProcessMetrics("spam", **{"log_queue_rows": lambda: 7, **changes})  # type: ignore[arg-type]
    metrics.add_routes(["/v1/predict"])
    return metrics


def estimate(name: str, labelled: int = 100, n: int = 1000, members: int = 100) -> SliceEstimate:
    """Return a slice with 90 % of its labels right, if there are any."""
    few = InsufficientData(labelled, 20, "few")
    share = Estimate(Rate(labelled * 9 // 10, labelled), 0.8, 0.95, "anytime") if labelled >= 20 else few
    inside = Performance(labelled, share, 0.7 if labelled >= 20 else few)
    covered = Estimate(Rate(members, n), 0.08, 0.12, "anytime") if n else InsufficientData(0, 1, "no rows")
    return SliceEstimate(name, name * 2, covered, 0, 0, inside, inside)


def snapshot(*slices: SliceEstimate, last_label_at: datetime | None = AT) -> Snapshot:
    """Return a snapshot with the same figures in all windows."""
    shown = (*slices, estimate(NONE_FIRED), estimate(ALL_ROWS, members=1000))
    window = WindowEstimates(AT - timedelta(hours=1), AT, shown)
    names = ("5m", "1h", "1d", "7d", "since_promotion")
    return Snapshot(AT, "spam", 3, "hash", dict.fromkeys(names, window), last_label_at)


@pytest.fixture
def metrics() -> ProcessMetrics:
    return process()


def test_slices_are_counted_by_version_from_bitmaps(metrics: ProcessMetrics) -> None:
    """Rows are counted in the slices of their bits, by version and by class."""
    made = functions("a", "b", "c", "d", "e", "f", "g", "h", "i")
    metrics.set_functions(made)
    metrics.set_version(3, ["ham", "spam"])
    metrics.count_predictions([row(made, "a", "i"), row(made, "i"), row(made, label="spam")])
    counted = named(metrics.text(), "slice_predictions_total", "model", "version", "slice")
    assert counted == {("spam", "3", name): {"a": 1, "i": 2}.get(name, 0) for name in "abcdefghi"}
    rows = named(metrics.text(), "predictions_total", "model", "version", "label")
    assert rows == {("spam", "3", "ham"): 2, ("spam", "3", "spam"): 1, ("spam", "3", "__other__"): 0}


def test_series_exist_at_zero_before_anything_happens(metrics: ProcessMetrics) -> None:
    """Registered series start at 0, so that the first event shows in a rate."""
    metrics.set_functions(functions("a"))
    metrics.set_version(3, ["ham"])
    found = series(metrics.text())
    names = {name for name, _ in found}
    assert {"slice_predictions_total", "predictions_total", "labels_total", "log_lost_total"} <= names
    assert {"model_reload_failures_total", "function_duration_seconds_total", "shed_total"} <= names
    counted = [value for (name, _), value in found.items() if name.endswith("_total") and "process" not in name]
    assert set(counted) == {0}


def test_labels_are_counted_by_outcome(metrics: ProcessMetrics) -> None:
    """Every outcome of the contract has a series."""
    metrics.count_labels("pending", 4)
    counted = named(metrics.text(), "labels_total", "model", "outcome")
    outcomes = ("accepted", "duplicate", "corrected", "pending", "too_late", "rejected")
    assert counted == {("spam", each): 4 if each == "pending" else 0 for each in outcomes}


def test_a_name_from_outside_makes_no_series(metrics: ProcessMetrics) -> None:
    """Unknown classes, versions, routes, stages and reasons are counted as __other__."""
    made = functions("a")
    metrics.set_functions(made)
    metrics.set_version(3, ["ham"])
    before = len(series(metrics.text()))
    metrics.count_predictions([row(made, label="<script>"), row(made, "a", label="ham", version=99)])
    metrics.observe_request("/evil", 0.1)
    metrics.observe_stage("evil", 0.1)
    metrics.count_shed("evil")
    text = metrics.text()
    assert b"evil" not in text
    assert b"<script>" not in text
    rows = named(text, "predictions_total", "model", "version", "label")
    assert rows[("spam", "3", "__other__")] == rows[("spam", "__other__", "__other__")] == 1
    assert len(series(text)) == before + 2  # the class and the slice of the other version
    reasons = named(text, "shed_total", "reason")
    assert reasons == {
        **{(name,): 0 for name in ("queue", "log", "deadline", "connections", "rate")},
        ("__other__",): 1,
    }


def test_a_removed_slice_loses_its_series_and_the_others_go_on(metrics: ProcessMetrics) -> None:
    """Slices missing from a new function set lose their series; rows of the old set still count by name."""
    old, new = functions("a", "b"), functions("c", "b")
    metrics.set_version(3, ["ham"])
    metrics.set_functions(old)
    metrics.count_predictions([row(old, "a", "b")])
    metrics.count_function_runs([FunctionStats("a", 1.0, {"junk answer": 1}, None)])
    metrics.set_functions(new)
    metrics.count_predictions([row(old, "a", "b"), row(new, "c")])
    text = metrics.text()
    counted = named(text, "slice_predictions_total", "model", "version", "slice")
    assert counted == {("spam", "3", "c"): 1, ("spam", "3", "b"): 2}
    assert named(text, "function_duration_seconds_total", "function") == {("c",): 0, ("b",): 0}
    assert named(text, "slice_unknown_total", "model", "slice", "reason") == {}


def test_rows_of_a_function_set_never_seen_count_in_no_slice(metrics: ProcessMetrics) -> None:
    """A bitmap of an unknown set is ignored; the row itself counts."""
    metrics.set_functions(functions("a"))
    metrics.set_version(3, ["ham"])
    metrics.count_predictions([row(functions("x", "y"), "x")])
    text = metrics.text()
    assert named(text, "slice_predictions_total", "model", "version", "slice") == {("spam", "3", "a"): 0}
    assert named(text, "predictions_total", "model", "version", "label")[("spam", "3", "ham")] == 1


def test_old_versions_lose_their_series(metrics: ProcessMetrics) -> None:
    """The last four versions have series, and one of them is active."""
    metrics.set_functions(functions("a"))
    for version in range(1, 8):
        metrics.set_version(version, ["ham"])
    text = metrics.text()
    counted = named(text, "slice_predictions_total", "model", "version", "slice")
    assert {version for _, version, _ in counted} == {"4", "5", "6", "7"}
    assert named(text, "model_info", "model", "version") == {("spam", "7"): 1}


def test_functions_show_their_time_and_why_memberships_are_unknown(metrics: ProcessMetrics) -> None:
    """Time and unknown rows add up by function and reason; unregistered functions are ignored."""
    metrics.set_functions(functions("a", "b"))
    runs = [
        FunctionStats("a", 0.25, {"KeyError": 2}, "row 0"),
        FunctionStats("gone", 9.0, {"KeyError": 9}, None),
    ]
    metrics.count_function_runs(runs)
    metrics.count_function_runs([FunctionStats("a", 0.5, {"KeyError": 1, "junk answer": 1}, None)])
    text = metrics.text()
    assert named(text, "function_duration_seconds_total", "function") == {("a",): 0.75, ("b",): 0}
    assert named(text, "slice_unknown_total", "model", "slice", "reason") == {
        ("spam", "a", "KeyError"): 3,
        ("spam", "a", "junk answer"): 1,
    }
    assert metrics.unknown_rows("a") == {"KeyError": 3, "junk answer": 1}
    assert metrics.unknown_rows("b") == metrics.unknown_rows("gone") == {}


def test_reasons_are_limited(metrics: ProcessMetrics) -> None:
    """A function with ever new errors creates a limited number of series, and every row counts."""
    metrics.set_functions(functions("a"))
    for k in range(100):
        metrics.count_function_runs([FunctionStats("a", 0.0, {f"Error{k}": 1}, None)])
    unknown = named(metrics.text(), "slice_unknown_total", "model", "slice", "reason")
    assert len(unknown) == 17
    assert sum(unknown.values()) == 100


def test_durations_queue_losses_and_reloads_show(metrics: ProcessMetrics) -> None:
    """Histograms, the queue gauge and the counters are on the page."""
    metrics.observe_request("/v1/predict", 0.004)
    metrics.observe_stage("model", 0.002)
    metrics.count_lost_rows(5)
    metrics.count_reload_failure()
    text = metrics.text()
    assert named(text, "request_duration_seconds_sum", "route")[("/v1/predict",)] == 0.004
    stages = named(text, "stage_duration_seconds_count", "stage")
    assert stages == {(stage,): float(stage == "model") for stage in (*STAGES, "__other__")}
    single = [named(text, name)[()] for name in ("log_queue_rows", "log_lost_total", "model_reload_failures_total")]
    assert single == [7, 5, 1]


def test_runs_of_jobs_show() -> None:
    """Runs are counted from 0 by outcome; only a success has a timestamp."""
    metrics = process(jobs=["tick", "reload"])
    metrics.count_job_run("tick", "ok", AT, 0.3)
    metrics.count_job_run("reload", "failed", AT, 0.3)
    counted = named(metrics.text(), "job_runs_total", "task", "outcome")
    assert counted == {("tick", "ok"): 1, ("tick", "failed"): 0, ("reload", "ok"): 0, ("reload", "failed"): 1}
    at = named(metrics.text(), "job_last_success_timestamp_seconds", "task")
    assert at == {("tick",): AT.timestamp()}


def test_the_duration_of_a_job_and_its_interval_show() -> None:
    """Durations are summed by task; an interval is a gauge."""
    metrics = process(jobs=["tick", "reload"])
    metrics.show_job_interval("tick", 10.0)
    for seconds in (0.25, 0.5):
        metrics.count_job_run("tick", "ok", AT, seconds)
    text = metrics.text()
    seconds = named(text, "job_duration_seconds_sum", "task")
    assert seconds == {("tick",): 0.75, ("reload",): 0, ("__other__",): 0}
    assert named(text, "job_interval_seconds", "task") == {("tick",): 10}


def test_no_label_is_one_that_prometheus_sets_itself() -> None:
    """Labels called job or instance would be renamed at each scrape."""
    labels = {key for _, pairs in series(realistic(3)) for key, _ in pairs}
    assert labels.isdisjoint({"job", "instance"})


def test_the_use_of_the_disk_shows(metrics: ProcessMetrics) -> None:
    """Sizes are in bytes; an unusable store is 0."""
    metrics.show_store(False, DiskUse(store=400, reusable=100, free=5_000, disk=9_000))
    names = "store_usable", "store_size_bytes", "store_reusable_bytes", "disk_free_bytes", "disk_size_bytes"
    assert [named(metrics.text(), name)[()] for name in names] == [0, 400, 100, 5_000, 9_000]


def test_the_end_of_the_watched_rows_shows() -> None:
    """The end of the rows that the detectors have read is a time; before the first run it has no series."""
    keys = "drift_watched_until_timestamp_seconds", "model"
    assert named(render_drift("m", [], [], AT), *keys) == {("m",): AT.timestamp()}
    assert named(render_drift("m", [], []), *keys) == {}


def test_processes_share_nothing() -> None:
    """There is no global registry."""
    first, second = process(), process()
    first.count_lost_rows(1)
    assert named(second.text(), "log_lost_total") == {(): 0}


def test_nothing_is_lost_between_threads(metrics: ProcessMetrics) -> None:
    """Counts of several threads add up, with scrapes and new function sets in between."""
    names = tuple(f"s{k}" for k in range(2000))
    made, other = functions(*names), functions(*reversed(names))
    metrics.set_version(3, ["ham"])
    metrics.set_functions(made)
    rows = [row(made, *names)]

    def work(turn: int) -> None:
        for k in range(25):
            metrics.count_predictions(rows)
            if k % 5 == 0:
                metrics.set_functions(other if turn % 2 else made)
        metrics.text()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    counted = named(metrics.text(), "slice_predictions_total", "model", "version", "slice")
    assert set(counted.values()) == {200}


@given(st.lists(st.sampled_from("abcdef"), unique=True), st.lists(st.sampled_from("abcdef"), unique=True))
def test_counts_move_with_their_names(old: list[str], new: list[str]) -> None:
    """A name keeps its count in any order."""
    counts = np.arange(1, len(old) + 1, dtype=np.int64)
    after = dict(zip(new, reindex(counts, old, new).tolist(), strict=True))
    assert after == {name: old.index(name) + 1 if name in old else 0 for name in new}


def test_the_gauges_of_a_slice_carry_the_figures_of_the_snapshot() -> None:
    """Names, labels and values are those of the contract, for the two exported windows."""
    text = render_snapshot(snapshot(estimate("a")), {}, {})
    keys = ("model", "version", "slice", "window")
    figures = {
        "slice_coverage_ratio": 0.1,
        "slice_known_predictions": 1000,
        "slice_accuracy_ratio": 0.9,
        "slice_accuracy_lower_ratio": 0.8,
        "slice_accuracy_upper_ratio": 0.95,
        "slice_f1_ratio": 0.7,
        "slice_labelled_predictions": 100,
    }
    for name, value in figures.items():
        found = named(text, name, *keys)
        assert {each for *_, each in found} == {"1h", "since_promotion"}
        assert {each for _, _, each, _ in found} == {"a", "__none__", "__all__"}
        assert found[("spam", "3", "a", "1h")] == value
    assert named(text, "snapshot_timestamp_seconds") == {(): AT.timestamp()}
    assert named(text, "last_label_timestamp_seconds") == {(): AT.timestamp()}


def test_the_last_label_and_the_last_known_row_of_a_slice_are_timestamps() -> None:
    """A slice without any has no series."""
    fresh = {
        "a": Freshness("aa", 1000, AT, 100, 90, AT - timedelta(hours=9)),
        "b": Freshness("bb", 0, None, 0, None, None),
    }
    text = render_snapshot(replace(snapshot(estimate("a"), estimate("b")), freshness=fresh), {}, {})
    keys = ("model", "version", "slice")
    labels, rows = (named(text, f"slice_last_{n}_timestamp_seconds", *keys) for n in ("label", "known_prediction"))
    assert labels == {("spam", "3", "a"): AT.timestamp() - 9 * 3600}
    assert rows == {("spam", "3", "a"): AT.timestamp()}


def test_what_is_not_known_has_no_series() -> None:
    """Missing accuracy, F1, coverage and last label have no series; the number of labels has."""
    text = render_snapshot(snapshot(estimate("few", labelled=19), estimate("empty", n=0), last_label_at=None), {}, {})
    keys = ("model", "version", "slice", "window")
    accuracy = ["slice_accuracy_ratio", "slice_accuracy_lower_ratio", "slice_accuracy_upper_ratio"]
    for name in (*accuracy, "slice_f1_ratio"):
        assert ("spam", "3", "few", "1h") not in named(text, name, *keys)
    assert named(text, "slice_labelled_predictions", *keys)[("spam", "3", "few", "1h")] == 19
    assert ("spam", "3", "empty", "1h") not in named(text, "slice_coverage_ratio", *keys)
    assert named(text, "last_label_timestamp_seconds") == {}
    assert not any(math.isnan(value) for value in series(text).values())


def test_a_slice_says_who_answers_for_it_and_what_it_must_keep() -> None:
    """Owner, severity and target come from the metadata or its defaults."""
    facts = {"a": Metadata(owner="trust", severity="critical", target=0.9), "gone": Metadata(owner="nobody")}
    text = render_snapshot(snapshot(estimate("a"), estimate("b")), facts, {})
    assert named(text, "slice_info", "slice", "owner", "severity", "target") == {
        ("a", "trust", "critical", "0.9"): 1,
        **{(name, "", "warning", ""): 1 for name in ("b", "__none__", "__all__")},
    }
    assert named(text, "slice_target_ratio", "model", "version", "slice") == {("spam", "3", "a"): 0.9}


def test_a_reference_shows_where_there_is_one() -> None:
    """A missing reference, or one without rows, has no series."""
    known = {"a": Rate(5, 100), "b": Rate(0, 0), "gone": Rate(1, 2)}
    text = render_snapshot(snapshot(estimate("a"), estimate("b")), {}, known)
    keys = ("model", "version", "slice")
    assert named(text, "slice_reference_coverage_ratio", *keys) == {("spam", "3", "a"): 0.05}
    assert named(text, "slice_reference_predictions", *keys) == {("spam", "3", "a"): 100}


def test_any_name_of_a_slice_can_be_shown() -> None:
    """Quotes, backslashes and letters of any script are escaped."""
    name = 'say "é\\n" {x}, 短い'
    text = render_snapshot(snapshot(estimate(name)), {name: Metadata(owner='a"b\nc')}, {})
    assert (name, 'a"b\nc', "warning", "") in named(text, "slice_info", "slice", "owner", "severity", "target")


def ours(text: bytes) -> list[bytes]:
    """The lines of our own metrics; those of the interpreter and the process move between two renderings."""
    return [line for line in text.splitlines() if line.startswith(b"slicewatch_")]


def test_the_page_is_the_process_and_the_last_snapshot(metrics: ProcessMetrics) -> None:
    """There are no slice gauges before the first snapshot, and a new one replaces the old."""
    page = MetricsPage(metrics)
    assert ours(page.text()) == ours(metrics.text())
    page.show(snapshot(estimate("old")), {}, {})
    metrics.count_lost_rows(1)
    page.show(snapshot(estimate("new")), {}, {})
    text = page.text()
    assert b"old" not in text
    assert text.endswith(render_snapshot(snapshot(estimate("new")), {}, {}))
    assert named(text, "log_lost_total") == {(): 1}
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"


def realistic(slices: int) -> bytes:
    """Return a page with everything on it."""
    names = [f"slice_{k}" for k in range(slices)]
    metrics, made = process(), functions(*names)
    metrics.set_functions(made)
    metrics.set_version(3, ["ham", "spam"])
    metrics.count_predictions([row(made, *names[::3])] * 16)
    metrics.count_function_runs(FunctionStats(name, 0.001, {"KeyError": 1}, None) for name in names)
    page = MetricsPage(metrics)
    facts = {name: Metadata(owner="trust", target=0.9) for name in names}
    fresh = {name: Freshness(name * 2, 1000, AT, 100, 90, AT) for name in names}
    shown = replace(snapshot(*map(estimate, names)), freshness=fresh)
    page.show(shown, facts, {name: Rate(5, 100) for name in names})
    page.show_drift("m", [drift(name, 1.0) for name in names], [Alarm(1, "m", 3, AT, drift(names[0], 21.0))], AT)
    metrics.show_job_interval("tick", 10.0)
    page.show_incidents("m", [Incident(1, "m", (Alarm(1, "m", 3, AT, drift(names[0], 21.0)),))], facts)
    return page.text()


def drift(name: str, evidence: float, zone: ToleranceBand | None = ZONE) -> DriftStatus:
    return DriftStatus(name, "f", "coverage", zone, evidence, 20.0, AT, "up", Rate(81, 1000), 0.06, 0.1)


def test_drift_shows_evidence_and_the_alarms_that_stand() -> None:
    """Evidence is relative to the threshold; an alarm shows observed rate, expected rate and start."""
    alarm = Alarm(3, "m", 1, AT + timedelta(minutes=5), drift("up", 21.0))
    text = render_drift("m", [drift("up", 0.0), drift("calm", 5.0), drift("blind", 0.0, None)], [alarm])
    keys = "model", "slice", "kind"
    up, calm = ("m", "up", "coverage"), ("m", "calm", "coverage")
    assert named(text, "slice_drift_evidence", *keys) == {up: 0.0, calm: 0.25}
    assert named(text, "slice_drift_alarm", *keys) == {up: 1.0, calm: 0.0}
    assert named(text, "slice_drift_since_timestamp_seconds", *keys) == {up: AT.timestamp()}
    assert named(text, "slice_drift_observed_ratio", *keys) == {up: 0.081}
    assert named(text, "slice_drift_expected_ratio", *keys) == {up: 0.02}


def test_the_expected_accuracy_of_an_alarm_about_a_target_is_the_target() -> None:
    """Also where nothing is known of the reference."""
    missed = replace(drift("up", 21.0, ToleranceBand(Rate(0, 0), 0.75, 1.0, 0.01, 0.75)), kind="accuracy")
    text = render_drift("m", [missed], [Alarm(3, "m", 1, AT, missed)])
    assert named(text, "slice_drift_expected_ratio", "model", "slice", "kind") == {("m", "up", "accuracy"): 0.75}


def test_an_incident_shows_its_cause_and_whom_to_notify() -> None:
    """Unresolved slices count; the severity is the highest of all, and the owner that of the first alarm."""
    names = {4: "cause", 3: "first", 5: "other"}
    metadata = {
        "first": Metadata(owner="trust", severity="info"),
        "cause": Metadata(owner="shop"),
        "other": Metadata(severity="critical"),
    }
    alarms = [Alarm(k, "m", 1, AT, drift(name, 21.0)) for k, name in names.items()]
    alarms[2] = replace(alarms[2], state="resolved", resolved_at=AT)
    text = render_incidents("m", [Incident(7, "m", tuple(alarms))], metadata)
    keys = "model", "incident", "cause", "kind", "severity", "owner"
    assert named(text, "incident_slices", *keys) == {("m", "7", "cause", "coverage", "critical", "trust"): 2.0}
    assert named(text, "incident_since_timestamp_seconds", "model", "incident") == {("m", "7"): AT.timestamp()}
    assert named(text, "incidents", "model") == {("m",): 1.0}
    assert named(render_incidents("m", [], {}), "incidents", "model") == {("m",): 0.0}


def test_runs_that_ended_are_counted_from_zero(metrics: ProcessMetrics) -> None:
    """Every final state has a series from the start."""
    metrics.count_retrain("held")
    counts = named(metrics.text(), "retrains_total", "outcome")
    assert counts == {("promoted",): 0, ("held",): 1, ("rejected",): 0, ("skipped",): 0, ("failed",): 0}


def test_promtool_finds_no_fault_with_a_page_of_100_slices() -> None:
    """promtool accepts the page silently."""
    command = ["promtool", "check", "metrics"]
    said = subprocess.run(command, input=realistic(100), capture_output=True, check=False)
    assert (said.returncode, said.stdout + said.stderr) == (0, b"")


def test_every_family_has_help_and_there_are_no_creation_times() -> None:
    """Every family has a help text and a type, and there are no ``_created`` series."""
    families = list(text_string_to_metric_families(realistic(3).decode()))
    assert all(family.documentation for family in families)
    assert all(family.type != "unknown" for family in families)
    assert not any(sample.name.endswith("_created") for family in families for sample in family.samples)


def test_rules_ask_only_for_what_is_exported(root: Path) -> None:
    """Every metric of the rules is on the page."""
    folder = root / "deploy" / "prometheus"
    rules = "".join((folder / name).read_text() for name in ("rules.yml", "alerts.yml"))
    asked = set(re.findall(r"(?<![:\w])slicewatch_(\w+)\s*[{\[)\n]", rules))
    assert len(asked) >= 8
    assert asked <= {name for name, _ in series(realistic(3))}


@pytest.mark.parametrize(
    "reason", ["process died", "invalid answer", "not JSON", "isolation starting", "breaker open", "changed on disk"]
)
def test_reasons_of_the_service_have_their_own_series(metrics: ProcessMetrics, reason: str) -> None:
    """They are counted by name after functions have used up all others."""
    metrics.set_functions(functions("a"))
    for name in [*(f"Error{k}" for k in range(100)), reason]:
        metrics.count_function_runs([FunctionStats("a", 0.0, {name: 1}, None)])
    assert metrics.unknown_rows("a")[reason] == 1


@given(st.lists(st.text(st.characters(), min_size=1, max_size=200), min_size=1, max_size=40))
def test_reasons_of_strangers_are_few_and_short(reasons: list[str]) -> None:
    """Names of exceptions make a bounded number of short label values; reasons of the service keep their own."""
    metrics = process()
    metrics.set_functions(functions("a"))
    for reason in [*reasons, "over budget"]:
        metrics.count_function_runs([FunctionStats("a", 0.0, {reason: 1}, None)])
    unknown = named(metrics.text(), "slice_unknown_total", "model", "slice", "reason")
    values = [reason for _, _, reason in unknown]
    assert len(values) <= 16 + 13
    assert all(len(value) <= 60 and value.isprintable() for value in values)
    assert ("spam", "a", "over budget") in unknown
    assert sum(unknown.values()) == len(reasons) + 1


def test_a_long_owner_is_cut() -> None:
    """The owner of a function in a file is a label value of at most 200 characters."""
    text = render_snapshot(snapshot(estimate("a")), {"a": Metadata(owner="x" * 5_000)}, {})
    assert (
        max(len(owner) for _, owner, _, _ in named(text, "slice_info", "slice", "owner", "severity", "target")) == 200
    )


def test_openmetrics_has_the_same_samples(metrics: ProcessMetrics) -> None:
    """Only the names of counter families differ; a strict parser reads the page."""
    metrics.set_version(1, ["a\u2028b", 'quo"te', "line\nfeed"])
    page = MetricsPage(metrics).openmetrics().decode()
    assert page.endswith("# EOF\n")
    found = {
        (sample.name.removeprefix("slicewatch_"), frozenset(sample.labels.items())): sample.value
        for family in openmetrics_families(page)
        for sample in family.samples
    }
    text = series(metrics.text())
    assert found.keys() == text.keys()
    ours = {key for key in text if not key[0].startswith("process_")}
    assert {key: found[key] for key in ours} == {key: text[key] for key in ours}
