"""The row on drift: which alarms stand, how near others are, and what was trained because of them."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

from grafana_foundation_sdk.builders import bargauge, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import common as build_common
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as values
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from parts import (
    BLUE,
    GREEN,
    MODEL,
    PROCESS,
    RED,
    Panel,
    described,
    lines,
    query,
    set_to,
    targets,
    thresholds,
)

WORST = 10
"""How many of the detectors are shown that are nearest to an alarm."""


def drift_and_alarms() -> list[Panel]:
    """Return the panels of the row."""
    return [unresolved(), evidence(), versions(), retrainings(), failures()]


def of_detector(name: str) -> str:
    """A gauge per slice and kind of rate: all processes show the same, but for a moment after each tick."""
    return f"max by (slice, kind) (slicewatch_slice_drift_{name}{{{MODEL}}})"


def unresolved() -> table.Panel:
    """A row per alarm that stands, the newest change first."""
    observed, expected = of_detector("observed_ratio"), of_detector("expected_ratio")
    columns = {
        "Observed": (observed, set_to(unit="percentunit", decimals=1)),
        "Expected": (expected, set_to(unit="percentunit", decimals=1)),
        "Times expected": (f"{observed} / {expected}", set_to(unit="none", decimals=2)),
        "Since": (f"1000 * {of_detector('since_timestamp_seconds')}", set_to(unit="dateTimeAsIso")),
    }
    panel = table.Panel()
    described(
        panel,
        "Unresolved alarms",
        "Slices that have drifted: the rate since the change as it was when the alarm was raised, the rate "
        "that was expected, and when the change began. No row: no alarm stands. The console's page of alarms "
        "shows the evidence, and ends them.",
        "none",
        width=12,
        height=8,
    )
    panel.no_value("none stands")
    queries = [query(expr).instant().format(PromQueryFormat.TABLE) for expr, _ in columns.values()]
    targets(panel, queries)
    for name, (_, shown) in columns.items():
        panel.override_by_name(name, shown)
    merge(panel, list(columns))
    return panel.sort_by([build_common.TableSortByFieldState().display_name("Since").desc(True)])


def merge(panel: table.Panel, names: Sequence[str]) -> None:
    """Make one row of all that is said of one slice and kind, in the order of the queries."""
    renamed = {f"Value #{letter}": name for letter, name in zip(ascii_uppercase, names, strict=False)}
    order = ["slice", "kind", *renamed]
    panel.with_transformation(values.DataTransformerConfig(id_val="merge", options={}))
    options = {
        "excludeByName": {"Time": True},
        "indexByName": {name: k for k, name in enumerate(order)},
        "renameByName": {**renamed, "slice": "Slice", "kind": "Rate"},
    }
    panel.with_transformation(values.DataTransformerConfig(id_val="organize", options=options))


def evidence() -> timeseries.Panel:
    """The detectors against the line at which they alarm."""
    panel = lines(
        "Evidence of drift",
        "Evidence that a slice's coverage or accuracy has left its zone, as a share of what alarms, both as "
        "logarithms; the ten highest. At the line an alarm is raised, and the detector begins anew.",
        "none",
        {"{{slice}}: {{kind}}": f"topk({WORST}, {of_detector('evidence')})"},
        width=12,
    )
    at_line = build_common.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
    panel.thresholds(thresholds((None, "transparent"), (1, RED))).thresholds_style(at_line)
    return panel.axis_soft_max(1.1).decimals(2)


def versions() -> statetimeline.Panel:
    """Which version answered when."""
    panel = statetimeline.Panel()
    described(
        panel,
        "Champion",
        "The model version that answers, over time; two at once while replicas change over.",
        "none",
        width=8,
        height=8,
    )
    answers = values.ValueMappingResult(text="answers", color=GREEN)
    panel.mappings([values.ValueMap({"1": answers})]).show_value(common.VisibilityMode.NEVER)
    panel.merge_values(True).row_height(0.6).fill_opacity(80)
    panel.legend(build_common.VizLegendOptions().show_legend(False))
    expr = f"max by (version) (slicewatch_model_info{{{MODEL}}})"
    targets(panel, [query(expr, "version {{version}}").range()])
    return panel


def retrainings() -> bargauge.Panel:
    """How the retrainings of the time shown ended."""
    panel = bargauge.Panel()
    described(
        panel,
        "Retrainings by outcome",
        "Retrainings that ended in the time shown. Held ones wait for a person; rejected ones were worse on "
        "a slice; skipped ones were not needed.",
        "none",
        width=8,
        height=8,
    )
    panel.orientation(common.VizOrientation.HORIZONTAL).display_mode(common.BarGaugeDisplayMode.BASIC)
    panel.thresholds(thresholds((None, BLUE))).min(0).decimals(0)
    panel.reduce_options(build_common.ReduceDataOptions().calcs(["lastNotNull"]))
    ended = f"sum by (outcome) (increase(slicewatch_retrains_total{{{PROCESS}}}[$__range]))"
    targets(panel, [query(f"round({ended})", "{{outcome}}").instant()])
    return panel


def failures() -> timeseries.Panel:
    """Jobs that did not do what they are for; Prometheus has its own label ``job``, so theirs is renamed."""
    failed = f'slicewatch_job_runs_total{{{PROCESS}, outcome="failed"}}'
    return lines(
        "Failed runs of jobs",
        "How often each job failed in the hour before. A tick that fails leaves every figure as it was; the "
        "service's log has the reason.",
        "short",
        {"{{exported_job}}": f"sum by (exported_job) (increase({failed}[1h]))"},
    )
