"""Table with a row per slice."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common as build_common
from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models import dashboard as values
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from panels import (
    GREEN,
    HOUR,
    MODEL,
    PROCESS,
    PROMOTED,
    RED,
    VERSION,
    add_queries,
    describe,
    field_options,
    query,
    snapshot_gauge,
    thresholds,
)

UID = "slicewatch-slices"
"""Unique id of the dashboard."""


def columns() -> dict[str, tuple[str, str]]:
    """Columns of the table: name, query and unit."""
    coverage = snapshot_gauge("slice_coverage_ratio", VERSION, HOUR)
    reference = snapshot_gauge("slice_reference_coverage_ratio", VERSION)
    upper = snapshot_gauge("slice_accuracy_upper_ratio", VERSION, PROMOTED)
    target = snapshot_gauge("slice_target_ratio", VERSION)
    share = "percentunit"
    return {
        "Coverage, 1 h": (coverage, share),
        "Reference": (reference, share),
        "Times reference": (f"{coverage} / {reference}", "none"),
        "Rows, 1 h": (snapshot_gauge("slice_known_predictions", VERSION, HOUR), "none"),
        "Accuracy": (snapshot_gauge("slice_accuracy_ratio", VERSION, PROMOTED), share),
        "Lower": (snapshot_gauge("slice_accuracy_lower_ratio", VERSION, PROMOTED), share),
        "Upper": (upper, share),
        "Target": (target, share),
        "Upper - target": (f"{upper} - {target}", share),
        "Labelled": (snapshot_gauge("slice_labelled_predictions", VERSION, PROMOTED), "none"),
        "Last label": (f"1000 * {snapshot_gauge('slice_last_label_timestamp_seconds', VERSION)}", "dateTimeAsIso"),
        "Unknown, 1 h": (
            f"sum by (slice) (increase(slicewatch_slice_unknown_total{{{MODEL}}}[1h]))",
            "none",
        ),
    }


def overview() -> table.Panel:
    """Table with a row per slice, worst accuracy first."""
    panel, selected = table.Panel(), columns()
    describe(
        panel,
        "Slices",
        "Coverage of every slice in the last hour against its reference, and accuracy since the promotion of the "
        "version, with a 95% interval that is valid under continuous monitoring; it does not cover the rows since the "
        "last label. Empty cells: too few labels, no reference, or no target. Click a slice to show it below.",
        "none",
        width=24,
        height=10,
    )
    facts = (
        f"max by (slice, owner, severity) (slicewatch_slice_info{{{PROCESS}}} and on (job, instance, slice) "
        f"slicewatch_slice_labelled_predictions{{{VERSION}, {HOUR}}})"
    )
    queries = [*(expr for expr, _ in selected.values()), facts]
    add_queries(panel, [query(each).instant().format(PromQueryFormat.TABLE) for each in queries])
    join_by_slice(panel, list(selected))
    for name, (_, unit) in selected.items():
        panel.override_by_name(name, field_options(unit=unit, decimals=int(unit == "percentunit")))
    colour_and_link(panel)
    return panel


def join_by_slice(panel: table.Panel, names: Sequence[str]) -> None:
    """Join the query results to one table, in the order of the queries."""
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


def colour_and_link(panel: table.Panel) -> None:
    """Colour the columns that alerts use, and link a slice to its row below."""
    coloured = {"custom_cellOptions": {"type": "color-text"}}
    off = thresholds((None, RED), (0.5, GREEN), (1.5, RED)).build()
    panel.override_by_name("Times reference", field_options(**coloured, thresholds=off, decimals=2))
    below = thresholds((None, RED), (0, GREEN)).build()
    panel.override_by_name("Upper - target", field_options(**coloured, thresholds=below))
    parameters = "&".join(f"${{{name}:queryparam}}" for name in ("datasource", "job", "instance", "model", "version"))
    url = f"/d/{UID}?${{__url_time_range}}&{parameters}&var-slice=${{__data.fields.Slice:percentencode}}"
    panel.override_by_name("Slice", field_options(links=[{"title": "Show this slice", "url": url}]))
    panel.sort_by([build_common.TableSortByFieldState().display_name("Upper - target").desc(False)])
