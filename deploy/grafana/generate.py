"""Writes the dashboard: python deploy/grafana/generate.py [FILE]. A test holds the committed file to what it writes."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from alarms import drift_and_alarms
from choices import choices, promotions
from grafana_foundation_sdk.builders import dashboard, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as values
from overview import UID, overview
from parts import (
    CHOSEN,
    GREEN,
    HOUR,
    MODEL,
    ORANGE,
    PROCESS,
    PROMOTED,
    RED,
    ROWS,
    VERSION,
    Panel,
    band,
    coverage_limit,
    lines,
    number,
    quantile,
    rate,
    shown,
)

FILE = Path(__file__).parent / "dashboards" / "slices.json"


def figures() -> list[Panel]:
    """The top of the page."""
    upper, target = (
        shown("slice_accuracy_upper_ratio", VERSION, PROMOTED),
        shown("slice_target_ratio", VERSION),
    )
    judged = shown("slice_labelled_predictions", VERSION, PROMOTED)
    version = number(
        "Version",
        "The model version that answers; two while replicas change over.",
        f"max by (version) (slicewatch_model_info{{{MODEL}}})",
        "none",
        legend="{{version}}",
    )
    version.text_mode(common.BigValueTextMode.NAME)
    return [
        number(
            "Rows",
            "Rows answered per second, all processes together.",
            rate("predictions_total", MODEL),
            ROWS,
        ),
        version,
        number(
            "Age of the figures",
            "Time since the monitor's last snapshot, from which every figure of a slice comes.",
            f"time() - max(slicewatch_snapshot_timestamp_seconds{{{PROCESS}}})",
            "s",
            (None, GREEN),
            (120, ORANGE),
            (300, RED),
        ),
        number(
            "Last label",
            "Time since the last label arrived; accuracy says nothing about rows after it.",
            f"time() - max(slicewatch_last_label_timestamp_seconds{{{PROCESS}}})",
            "s",
            (None, GREEN),
            (86_400, RED),
        ),
        number(
            "Slices below target",
            "Slices whose accuracy since promotion is below their target even at its upper limit.",
            f"count({upper} < {target}) or 0 * count({judged})",
            "none",
            (None, GREEN),
            (1, RED),
        ),
        number(
            "Rows lost",
            "Rows that could not be written to the log in the time shown; no figure counts them.",
            f"sum(increase(slicewatch_log_lost_total{{{PROCESS}}}[$__range]))",
            "none",
            (None, GREEN),
            (1, RED),
        ),
        overview(),
    ]


def of_slice() -> list[timeseries.Panel]:
    """The row that is repeated for each chosen slice."""
    coverage = {
        "coverage": shown("slice_coverage_ratio", CHOSEN, HOUR),
        "lower": coverage_limit("-"),
        "upper": coverage_limit("+"),
        "reference": shown("slice_reference_coverage_ratio", CHOSEN),
    }
    accuracy = {
        "accuracy": shown("slice_accuracy_ratio", CHOSEN, PROMOTED),
        "lower": shown("slice_accuracy_lower_ratio", CHOSEN, PROMOTED),
        "upper": shown("slice_accuracy_upper_ratio", CHOSEN, PROMOTED),
        "target": shown("slice_target_ratio", CHOSEN),
        "last hour": shown("slice_accuracy_ratio", CHOSEN, HOUR),
    }
    n = {
        "rows, last hour": shown("slice_known_predictions", CHOSEN, HOUR),
        "labelled, since promotion": shown("slice_labelled_predictions", CHOSEN, PROMOTED),
        "labelled, last hour": shown("slice_labelled_predictions", CHOSEN, HOUR),
    }
    return [
        band(
            lines(
                "Coverage of $slice",
                "Share of the last hour's rows of known membership that are in the slice, with Wilson's 95 % "
                "interval; dashed is the share that is expected. No line: no rows, or no reference.",
                "percentunit",
                coverage,
                width=9,
            ),
            "reference",
        ),
        band(
            lines(
                "Accuracy of $slice",
                "Share of the labelled rows that were predicted right since the version was promoted, with a 95 % "
                "interval that holds however often it is looked at; dashed is the target. It speaks of all rows "
                "only if labels were drawn at random. No line: fewer than 20 labels, or no target.",
                "percentunit",
                accuracy,
                width=9,
            ).max(1),
            "target",
        ),
        lines("Rows of $slice", "What the two figures beside are counted on.", "short", n, width=6),
    ]


def traffic() -> list[timeseries.Panel]:
    """What is asked, how long it takes, and what is turned away."""
    latency = {
        f"{{{{route}}}} p{q:.0%}"[:-1]: quantile(q, "request_duration_seconds", "route") for q in (0.5, 0.99)
    }
    refused = {
        "refused: {{reason}}": rate("shed_total", PROCESS, "reason"),
        "rows lost": rate("log_lost_total", PROCESS),
    }
    return [
        lines(
            "Rows by predicted class",
            "Rows answered per second, by predicted class. A class that grows or vanishes is a first sign of drift.",
            ROWS,
            {"{{label}}": rate("predictions_total", VERSION, "label")},
            width=12,
        ),
        lines(
            "Time to answer",
            "Median and 99th percentile of the time from request to answer, by route.",
            "s",
            latency,
            width=12,
        ),
        lines(
            "Time by step",
            "99th percentile of each step of a request; the step that grows is where the time goes.",
            "s",
            {"{{stage}}": quantile(0.99, "stage_duration_seconds", "stage")},
        ),
        lines(
            "Rows waiting to be logged",
            "Length of the queue before the log, per process. A queue that stays full is turned into refusals.",
            "short",
            {"{{instance}}": f"max by (instance) (slicewatch_log_queue_rows{{{PROCESS}}})"},
        ),
        lines(
            "Refused and lost",
            "Requests refused because there were too many, by reason, and rows that could not be logged, per second.",
            "suffix: /s",
            refused,
        ),
    ]


def labels_and_functions() -> list[timeseries.Panel]:
    """What accuracy and coverage are made from."""
    seconds = rate("function_duration_seconds_total", PROCESS, "function")
    rows = rate("predictions_total", MODEL)
    unknown = rate("slice_unknown_total", MODEL, "slice, reason")
    return [
        lines(
            "Age of the last label",
            "Time since the last label arrived; accuracy says nothing about rows after it.",
            "s",
            {"age": f"time() - max(slicewatch_last_label_timestamp_seconds{{{PROCESS}}})"},
        ),
        lines(
            "Labels by outcome",
            "Labels received per second, by what became of them; pending ones came before their prediction.",
            "suffix: labels/s",
            {"{{outcome}}": rate("labels_total", MODEL, "outcome")},
        ),
        lines(
            "Rows by slice",
            "Rows per second in each slice, the ten largest; a row may be in several.",
            ROWS,
            {"{{slice}}": f"topk(10, {rate('slice_predictions_total', VERSION, 'slice')})"},
        ),
        lines(
            "Unknown memberships",
            "Rows per second for which a function gave no answer, by slice and reason, the ten worst. They are left "
            "out of the slice's coverage. No line: every function answered.",
            ROWS,
            {"{{slice}}: {{reason}}": f"topk(10, {unknown})"},
            width=12,
        ),
        lines(
            "Time of functions",
            "Time that each slicing function takes per answered row, the ten slowest.",
            "s",
            {"{{function}}": f"topk(10, {seconds} / on () group_left () ({rows} > 0))"},
            width=12,
        ),
    ]


def built() -> values.Dashboard:
    """The whole page."""
    page = (
        dashboard.Dashboard("Slicewatch: slices")
        .uid(UID)
        .description(
            "Coverage, accuracy and drift of each slice of the traffic, and the service that counts them."
        )
        .tags(["slicewatch"])
        .readonly()
        .timezone("browser")
        .tooltip(values.DashboardCursorSync.CROSSHAIR)
        .refresh("30s")
        .time("now-6h", "now")
        .variables(choices())
        .annotation(promotions())
    )
    rows = {
        dashboard.Row("Overview"): figures(),
        dashboard.Row("Drift and alarms"): drift_and_alarms(),
        dashboard.Row("Slice: $slice").repeat("slice"): of_slice(),
        dashboard.Row("Traffic"): traffic(),
        dashboard.Row("Labels and functions"): labels_and_functions(),
    }
    for row, panels in rows.items():
        page.with_row(row)
        for panel in panels:
            page.with_panel(panel)
    made = page.build()
    for k, panel in zip(count(1), made.panels, strict=False):
        panel.id_val = k
    return made


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    target.write_text(JSONEncoder(sort_keys=True, indent=2).encode(built()) + "\n")
