"""Row on drift: unresolved incidents and alarms, evidence, champion, retraining runs, jobs, disk."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

from grafana_foundation_sdk.builders import bargauge, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import common as build_common
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as values
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from panels import (
    BLUE,
    GREEN,
    MODEL,
    PROCESS,
    RED,
    Panel,
    add_queries,
    describe,
    field_options,
    query,
    thresholds,
    time_series,
)

WORST = 10
"""Number of detectors shown, by evidence."""


def drift_and_alarms() -> list[Panel]:
    """The panels of the row."""
    return [
        unresolved_incidents(),
        unresolved_alarms(),
        drift_evidence(),
        champion(),
        retraining_runs(),
        failed_jobs(),
        job_durations(),
        disk_use(),
    ]


def detector_gauge(name: str) -> str:
    """A drift gauge per slice and kind. All processes show the same, except for a moment after a snapshot."""
    return f"max by (slice, kind) (slicewatch_slice_drift_{name}{{{MODEL}}})"


def unresolved_incidents() -> table.Panel:
    """Table with a row per unresolved incident, the latest first."""
    panel = table.Panel()
    describe(
        panel,
        "Unresolved incidents",
        "Alarms with one cause: the slice that explains the most of the others, and the number of drifted slices. "
        "No row: no unresolved incident. The alarms page of the console shows how each slice moved.",
        "none",
        width=24,
        height=6,
    )
    panel.no_value("no unresolved incident")
    expr = f"max by (incident, cause, kind, severity, owner) (slicewatch_incident_slices{{{MODEL}}})"
    add_queries(panel, [query(expr).instant().format(PromQueryFormat.TABLE)])
    names = {"incident": "Incident", "cause": "Cause", "kind": "Rate", "severity": "Severity", "owner": "Owner"}
    options = {"excludeByName": {"Time": True}, "renameByName": {**names, "Value": "Slices", "Value #A": "Slices"}}
    panel.with_transformation(values.DataTransformerConfig(id_val="organize", options=options))
    return panel.sort_by([build_common.TableSortByFieldState().display_name("Incident").desc(True)])


def unresolved_alarms() -> table.Panel:
    """Table with a row per unresolved alarm, latest change first."""
    observed, expected = detector_gauge("observed_ratio"), detector_gauge("expected_ratio")
    columns = {
        "Observed": (observed, field_options(unit="percentunit", decimals=1)),
        "Expected": (expected, field_options(unit="percentunit", decimals=1)),
        "Times expected": (f"{observed} / {expected}", field_options(unit="none", decimals=2)),
        "Since": (f"1000 * {detector_gauge('since_timestamp_seconds')}", field_options(unit="dateTimeAsIso")),
    }
    panel = table.Panel()
    describe(
        panel,
        "Unresolved alarms",
        "Drifted slices: rate since the change at the time of the alarm, expected rate, and start of the change. "
        "No row: no unresolved alarm. The alarms page of the console shows the evidence and resolves alarms.",
        "none",
        width=12,
        height=8,
    )
    panel.no_value("no unresolved alarm")
    queries = [query(expr).instant().format(PromQueryFormat.TABLE) for expr, _ in columns.values()]
    add_queries(panel, queries)
    for name, (_, options) in columns.items():
        panel.override_by_name(name, options)
    merge_by_slice(panel, list(columns))
    return panel.sort_by([build_common.TableSortByFieldState().display_name("Since").desc(True)])


def merge_by_slice(panel: table.Panel, names: Sequence[str]) -> None:
    """Merge the query results to one row per slice and kind, in the order of the queries."""
    renamed = {f"Value #{letter}": name for letter, name in zip(ascii_uppercase, names, strict=False)}
    order = ["slice", "kind", *renamed]
    panel.with_transformation(values.DataTransformerConfig(id_val="merge", options={}))
    options = {
        "excludeByName": {"Time": True},
        "indexByName": {name: k for k, name in enumerate(order)},
        "renameByName": {**renamed, "slice": "Slice", "kind": "Rate"},
    }
    panel.with_transformation(values.DataTransformerConfig(id_val="organize", options=options))


def drift_evidence() -> timeseries.Panel:
    """Evidence of the detectors against the alarm threshold."""
    panel = time_series(
        "Drift evidence",
        "Log evidence that a slice's coverage or accuracy has left its tolerance band, as a fraction of the log alarm "
        "threshold; the ten highest. At 1 an alarm is raised and the detector is reset.",
        "none",
        {"{{slice}}: {{kind}}": f"topk({WORST}, {detector_gauge('evidence')})"},
        width=12,
    )
    at_line = build_common.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
    panel.thresholds(thresholds((None, "transparent"), (1, RED))).thresholds_style(at_line)
    return panel.axis_soft_max(1.1).decimals(2)


def champion() -> statetimeline.Panel:
    """Timeline of the active version."""
    panel = statetimeline.Panel()
    describe(
        panel,
        "Champion",
        "Active model version over time; two while replicas switch over.",
        "none",
        width=8,
        height=8,
    )
    answers = values.ValueMappingResult(text="active", color=GREEN)
    panel.mappings([values.ValueMap({"1": answers})]).show_value(common.VisibilityMode.NEVER)
    panel.merge_values(True).row_height(0.6).fill_opacity(80)
    panel.legend(build_common.VizLegendOptions().show_legend(False))
    expr = f"max by (version) (slicewatch_model_info{{{MODEL}}})"
    add_queries(panel, [query(expr, "version {{version}}").range()])
    return panel


def retraining_runs() -> bargauge.Panel:
    """Outcomes of retraining runs in the selected time range."""
    panel = bargauge.Panel()
    describe(
        panel,
        "Retraining runs by outcome",
        "Retraining runs that ended in the selected time range. held: waits for approval; rejected: worse on a "
        "slice; skipped: not needed.",
        "none",
        width=8,
        height=8,
    )
    panel.orientation(common.VizOrientation.HORIZONTAL).display_mode(common.BarGaugeDisplayMode.BASIC)
    panel.thresholds(thresholds((None, BLUE))).min(0).decimals(0)
    panel.reduce_options(build_common.ReduceDataOptions().calcs(["lastNotNull"]))
    ended = f"sum by (outcome) (increase(slicewatch_retrains_total{{{PROCESS}}}[$__range]))"
    add_queries(panel, [query(f"round({ended})", "{{outcome}}").instant()])
    return panel


def failed_jobs() -> timeseries.Panel:
    """Failed jobs."""
    failed = f'slicewatch_job_runs_total{{{PROCESS}, outcome="failed"}}'
    return time_series(
        "Failed job runs",
        "Number of failures per job in the preceding hour. If the tick fails, no figure is updated; the service's "
        "log shows the reason.",
        "short",
        {"{{task}}": f"sum by (task) (increase({failed}[1h]))"},
    )


def job_durations() -> timeseries.Panel:
    """Mean duration of the runs of each job."""
    seconds, runs = (
        f"sum by (task) (rate(slicewatch_job_duration_seconds_{part}{{{PROCESS}}}[15m]))" for part in ("sum", "count")
    )
    return time_series(
        "Job duration",
        "Mean duration of the runs of each job in 15 minutes. A tick longer than its interval delays every figure.",
        "s",
        {"{{task}}": f"{seconds} / {runs}"},
        width=12,
    )


def disk_use() -> timeseries.Panel:
    """Size of the store and free space of its disk."""
    gauges = {"store": "store_size_bytes", "reusable": "store_reusable_bytes", "free on the disk": "disk_free_bytes"}
    return time_series(
        "Disk use",
        "Size of the database with its journal, the part of it that new rows use again, and free space on its disk.",
        "bytes",
        {legend: f"max(slicewatch_{name}{{{PROCESS}}})" for legend, name in gauges.items()},
        width=12,
    )
