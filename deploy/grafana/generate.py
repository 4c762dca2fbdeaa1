"""Generate the dashboard: python deploy/grafana/generate.py [FILE]. A test regenerates and compares it."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from alarms import drift_and_alarms
from grafana_foundation_sdk.builders import dashboard, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as values
from overview import UID, overview
from panels import (
    GREEN,
    HOUR,
    MODEL,
    ORANGE,
    PROCESS,
    PROMOTED,
    RED,
    ROWS,
    SLICE,
    VERSION,
    Panel,
    coverage_limit,
    interval_band,
    quantile,
    rate,
    snapshot_gauge,
    stat_panel,
    time_series,
)
from variables import promotions, variables

FILE = Path(__file__).parent / "dashboards" / "slices.json"


def key_figures() -> list[Panel]:
    """Key figures, and the table of slices."""
    upper, target = (
        snapshot_gauge("slice_accuracy_upper_ratio", VERSION, PROMOTED),
        snapshot_gauge("slice_target_ratio", VERSION),
    )
    labelled = snapshot_gauge("slice_labelled_predictions", VERSION, PROMOTED)
    version = stat_panel(
        "Version",
        "Active model version; two while replicas switch over.",
        f"max by (version) (slicewatch_model_info{{{MODEL}}})",
        "none",
        legend="{{version}}",
    )
    version.text_mode(common.BigValueTextMode.NAME)
    return [
        stat_panel(
            "Rows",
            "Predicted rows per second, summed over all processes.",
            rate("predictions_total", MODEL),
            ROWS,
        ),
        version,
        stat_panel(
            "Snapshot age",
            "Time since the monitor's latest snapshot, the source of all figures of slices.",
            f"time() - max(slicewatch_snapshot_timestamp_seconds{{{PROCESS}}})",
            "s",
            (None, GREEN),
            (120, ORANGE),
            (300, RED),
        ),
        stat_panel(
            "Last label",
            "Time since the last label arrived; accuracy does not cover later rows.",
            f"time() - max(slicewatch_last_label_timestamp_seconds{{{PROCESS}}})",
            "s",
            (None, GREEN),
            (86_400, RED),
        ),
        stat_panel(
            "Slices below target",
            "Slices whose accuracy since promotion is below the target even at its upper limit.",
            f"count({upper} < {target}) or 0 * count({labelled})",
            "none",
            (None, GREEN),
            (1, RED),
        ),
        stat_panel(
            "Rows lost",
            "Rows in the selected time range that could not be written to the log; no figure counts them.",
            f"sum(increase(slicewatch_log_lost_total{{{PROCESS}}}[$__range]))",
            "none",
            (None, GREEN),
            (1, RED),
        ),
        overview(),
    ]


def slice_row() -> list[timeseries.Panel]:
    """Row that is repeated for every selected slice."""
    coverage = {
        "coverage": snapshot_gauge("slice_coverage_ratio", SLICE, HOUR),
        "lower": coverage_limit("-"),
        "upper": coverage_limit("+"),
        "reference": snapshot_gauge("slice_reference_coverage_ratio", SLICE),
    }
    accuracy = {
        "accuracy": snapshot_gauge("slice_accuracy_ratio", SLICE, PROMOTED),
        "lower": snapshot_gauge("slice_accuracy_lower_ratio", SLICE, PROMOTED),
        "upper": snapshot_gauge("slice_accuracy_upper_ratio", SLICE, PROMOTED),
        "target": snapshot_gauge("slice_target_ratio", SLICE),
        "last hour": snapshot_gauge("slice_accuracy_ratio", SLICE, HOUR),
    }
    n = {
        "rows, last hour": snapshot_gauge("slice_known_predictions", SLICE, HOUR),
        "labelled, since promotion": snapshot_gauge("slice_labelled_predictions", SLICE, PROMOTED),
        "labelled, last hour": snapshot_gauge("slice_labelled_predictions", SLICE, HOUR),
    }
    return [
        interval_band(
            time_series(
                "Coverage of $slice",
                "Share of the slice in the last hour's rows of known membership, with 95% Wilson interval; dashed: "
                "reference coverage. No line: no rows, or no reference.",
                "percentunit",
                coverage,
                width=9,
            ),
            "reference",
        ),
        interval_band(
            time_series(
                "Accuracy of $slice",
                "Share of labelled rows predicted correctly since the promotion of the version, with a 95% "
                "interval that is valid under continuous monitoring; dashed: target. It applies to all rows only if "
                "the labelled rows are a random sample. No line: fewer than 20 labels, or no target.",
                "percentunit",
                accuracy,
                width=9,
            ).max(1),
            "target",
        ),
        time_series("Rows of $slice", "Row counts behind coverage and accuracy.", "short", n, width=6),
    ]


def traffic() -> list[timeseries.Panel]:
    """Traffic, latency, rejections."""
    latency = {f"{{{{route}}}} p{q:.0%}"[:-1]: quantile(q, "request_duration_seconds", "route") for q in (0.5, 0.99)}
    rejected = {
        "rejected: {{reason}}": rate("shed_total", PROCESS, "reason"),
        "rows lost": rate("log_lost_total", PROCESS),
    }
    return [
        time_series(
            "Rows by predicted class",
            "Predicted rows per second, by class. A class that grows or vanishes is an early sign of drift.",
            ROWS,
            {"{{label}}": rate("predictions_total", VERSION, "label")},
            width=12,
        ),
        time_series(
            "Request latency",
            "Median and 99th percentile of the request duration, by route.",
            "s",
            latency,
            width=12,
        ),
        time_series(
            "Stage latency",
            "99th percentile of the duration of every stage of a request.",
            "s",
            {"{{stage}}": quantile(0.99, "stage_duration_seconds", "stage")},
        ),
        time_series(
            "Log queue",
            "Rows waiting to be written to the log, per process. While the queue is full, requests are rejected.",
            "short",
            {"{{instance}}": f"max by (instance) (slicewatch_log_queue_rows{{{PROCESS}}})"},
        ),
        time_series(
            "Rejected and lost",
            "Requests rejected because of overload, by reason, and rows that could not be logged, per second.",
            "suffix: /s",
            rejected,
        ),
    ]


def labels_and_functions() -> list[timeseries.Panel]:
    """Labels, rows and functions behind accuracy and coverage."""
    seconds = rate("function_duration_seconds_total", PROCESS, "function")
    rows = rate("predictions_total", MODEL)
    unknown = rate("slice_unknown_total", MODEL, "slice, reason")
    return [
        time_series(
            "Age of the last label",
            "Time since the last label arrived; accuracy does not cover later rows.",
            "s",
            {"age": f"time() - max(slicewatch_last_label_timestamp_seconds{{{PROCESS}}})"},
        ),
        time_series(
            "Labels by outcome",
            "Labels received per second, by outcome; pending: arrived before the prediction.",
            "suffix: labels/s",
            {"{{outcome}}": rate("labels_total", MODEL, "outcome")},
        ),
        time_series(
            "Rows by slice",
            "Rows per second by slice, the ten largest; a row can be in several slices.",
            ROWS,
            {"{{slice}}": f"topk(10, {rate('slice_predictions_total', VERSION, 'slice')})"},
        ),
        time_series(
            "Unknown memberships",
            "Rows per second of unknown membership, by slice and reason, the ten highest. These rows are excluded from "
            "the slice's coverage. No line: no unknown rows.",
            ROWS,
            {"{{slice}}: {{reason}}": f"topk(10, {unknown})"},
            width=12,
        ),
        time_series(
            "Function time",
            "Time per predicted row by slicing function, the ten slowest.",
            "s",
            {"{{function}}": f"topk(10, {seconds} / on () group_left () ({rows} > 0))"},
            width=12,
        ),
    ]


def build() -> values.Dashboard:
    """The complete dashboard."""
    page = (
        dashboard.Dashboard("Slicewatch: slices")
        .uid(UID)
        .description("Coverage, accuracy and drift of every slice of the traffic, and the state of the service.")
        .tags(["slicewatch"])
        .readonly()
        .timezone("browser")
        .tooltip(values.DashboardCursorSync.CROSSHAIR)
        .refresh("30s")
        .time("now-6h", "now")
        .variables(variables())
        .annotation(promotions())
    )
    rows = {
        dashboard.Row("Overview"): key_figures(),
        dashboard.Row("Drift and alarms"): drift_and_alarms(),
        dashboard.Row("Slice: $slice").repeat("slice"): slice_row(),
        dashboard.Row("Traffic"): traffic(),
        dashboard.Row("Labels and functions"): labels_and_functions(),
    }
    for row, panels in rows.items():
        page.with_row(row)
        for panel in panels:
            page.with_panel(panel)
    built = page.build()
    for k, panel in zip(count(1), built.panels, strict=False):
        panel.id_val = k
    return built


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    target.write_text(JSONEncoder(sort_keys=True, indent=2).encode(build()) + "\n")
