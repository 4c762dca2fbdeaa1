"""The table with a row per slice."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common as build_common
from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models import dashboard as values
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from parts import (
    GREEN,
    HOUR,
    MODEL,
    PROCESS,
    PROMOTED,
    RED,
    VERSION,
    described,
    query,
    set_to,
    shown,
    targets,
    thresholds,
)

UID = "slicewatch-slices"
"""Of the dashboard."""


def columns() -> dict[str, tuple[str, str]]:
    """What the overview shows of each slice: the column's name, its query and its unit."""
    coverage = shown("slice_coverage_ratio", VERSION, HOUR)
    reference = shown("slice_reference_coverage_ratio", VERSION)
    upper = shown("slice_accuracy_upper_ratio", VERSION, PROMOTED)
    target = shown("slice_target_ratio", VERSION)
    share = "percentunit"
    return {
        "Coverage, 1 h": (coverage, share),
        "Reference": (reference, share),
        "Times reference": (f"{coverage} / {reference}", "none"),
        "Rows, 1 h": (shown("slice_known_predictions", VERSION, HOUR), "none"),
        "Accuracy": (shown("slice_accuracy_ratio", VERSION, PROMOTED), share),
        "Lower": (shown("slice_accuracy_lower_ratio", VERSION, PROMOTED), share),
        "Upper": (upper, share),
        "Target": (target, share),
        "Upper - target": (f"{upper} - {target}", share),
        "Labelled": (shown("slice_labelled_predictions", VERSION, PROMOTED), "none"),
        "Unknown, 1 h": (
            f"sum by (slice) (increase(slicewatch_slice_unknown_total{{{MODEL}}}[1h]))",
            "none",
        ),
    }


def overview() -> table.Panel:
    """A row per slice, worst accuracy first."""
    panel, wanted = table.Panel(), columns()
    described(
        panel,
        "Slices",
        "Every slice now: its share of the last hour's rows against its reference, and its accuracy since the "
        "version was promoted with a 95 % interval that holds however often it is looked at. An empty cell is a "
        "figure that is not known: too few labels, no reference, or no target. Click a slice to see it below.",
        "none",
        width=24,
        height=10,
    )
    facts = (
        f"max by (slice, owner, severity) (slicewatch_slice_info{{{PROCESS}}} and on (job, instance, slice) "
        f"slicewatch_slice_labelled_predictions{{{VERSION}, {HOUR}}})"
    )
    queries = [*(expr for expr, _ in wanted.values()), facts]
    targets(panel, [query(each).instant().format(PromQueryFormat.TABLE) for each in queries])
    transform(panel, list(wanted))
    for name, (_, unit) in wanted.items():
        panel.override_by_name(name, set_to(unit=unit, decimals={"percentunit": 1, "none": 0}[unit]))
    judge(panel)
    return panel


def transform(panel: table.Panel, names: Sequence[str]) -> None:
    """Make one table of the answers, in the order of the queries."""
    renamed = {f"Value #{letter}": name for letter, name in zip(ascii_uppercase, names, strict=False)}
    facts = ascii_uppercase[len(names)]
    dropped = ["Time", f"Value #{facts}", *(f"Time {k + 1}" for k in range(len(names) + 1))]
    order = ["slice", *renamed, "owner", "severity"]
    panel.with_transformation(
        values.DataTransformerConfig(id_val="joinByField", options={"byField": "slice", "mode": "outer"})
    )
    options = {
        "excludeByName": dict.fromkeys(dropped, True),
        "indexByName": {name: k for k, name in enumerate(order)},
        "renameByName": {**renamed, "slice": "Slice", "owner": "Owner", "severity": "Severity"},
    }
    panel.with_transformation(values.DataTransformerConfig(id_val="organize", options=options))


def judge(panel: table.Panel) -> None:
    """Colour what the alerts look at, and lead from a slice to its row below."""
    coloured = {"custom_cellOptions": {"type": "color-text"}}
    off = thresholds((None, RED), (0.5, GREEN), (1.5, RED)).build()
    panel.override_by_name("Times reference", set_to(**coloured, thresholds=off, decimals=2))
    below = thresholds((None, RED), (0, GREEN)).build()
    panel.override_by_name("Upper - target", set_to(**coloured, thresholds=below))
    kept = "&".join(
        f"${{{name}:queryparam}}" for name in ("datasource", "job", "instance", "model", "version")
    )
    url = f"/d/{UID}?${{__url_time_range}}&{kept}&var-slice=${{__data.fields.Slice:percentencode}}"
    panel.override_by_name("Slice", set_to(links=[{"title": "Show this slice", "url": url}]))
    panel.sort_by([build_common.TableSortByFieldState().display_name("Upper - target").desc(False)])
