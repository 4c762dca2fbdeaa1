"""Builders of the dashboard's queries and panels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from string import ascii_uppercase

from grafana_foundation_sdk.builders import (
    bargauge,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import common as build_common
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as values

DATASOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")

PROCESS = 'job=~"$job", instance=~"$instance"'
MODEL = f'{PROCESS}, model=~"$model"'
VERSION = f'{MODEL}, version=~"$version"'
SLICE = f'{VERSION}, slice=~"$slice"'
HOUR = 'window="1h"'
PROMOTED = 'window="since_promotion"'

ROWS = "suffix: rows/s"
GREEN, ORANGE, RED, BLUE, GREY = "green", "orange", "red", "blue", "#8e8e8e"
Panel = bargauge.Panel | stat.Panel | statetimeline.Panel | table.Panel | timeseries.Panel


def snapshot_gauge(name: str, scope: str, *more: str) -> str:
    """A snapshot gauge per slice. All processes show the same, except for a moment after a snapshot."""
    return f"max by (slice) (slicewatch_{name}{{{', '.join((scope, *more))}}})"


def rate(name: str, scope: str, by: str = "") -> str:
    """Per-second rate of a counter, summed over all processes."""
    total = f"sum by ({by}) " if by else "sum"
    return f"{total}(rate(slicewatch_{name}{{{scope}}}[$__rate_interval]))"


def coverage_limit(sign: str) -> str:
    """One limit of the 95% Wilson interval of a slice's coverage in the last hour."""
    p, n = (snapshot_gauge(f"slice_{name}", SLICE, HOUR) for name in ("coverage_ratio", "known_predictions"))
    half = f"1.96 * sqrt({p} * (1 - {p}) / {n} + 0.9604 / {n} ^ 2)"
    return f"({p} + 1.9208 / {n} {sign} {half}) / (1 + 3.8416 / {n})"


def quantile(q: float, of: str, by: str) -> str:
    """Quantile of a duration histogram; the comparison drops series without requests, which are NaN."""
    return f"histogram_quantile({q}, {rate(f'{of}_bucket', PROCESS, f'{by}, le')}) >= 0"


def thresholds(*steps: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    """Threshold colours with their lower bounds."""
    return dashboard.ThresholdsConfig().steps([values.Threshold(value, color) for value, color in steps])


def field_options(**properties: object) -> list[values.DynamicConfigValue]:
    """Field options by name; the prefix ``custom_`` marks options of the panel type."""
    return [values.DynamicConfigValue(key.replace("custom_", "custom."), each) for key, each in properties.items()]


def query(expr: str, legend: str = "__auto") -> prometheus.Dataquery:
    """A Prometheus query with the legend of its series."""
    return prometheus.Dataquery().datasource(DATASOURCE).expr(expr).legend_format(legend)


def add_queries(panel: Panel, queries: Iterable[prometheus.Dataquery]) -> None:
    """Add queries to a panel, with reference ids from A."""
    for letter, each in zip(ascii_uppercase, queries, strict=False):
        panel.with_target(each.ref_id(letter))


def describe(panel: Panel, title: str, description: str, unit: str, width: int, height: int) -> None:
    """Set title, description, unit and size of a panel; the grid is 24 columns wide."""
    panel.title(title).description(description).unit(unit).datasource(DATASOURCE).span(width).height(height)
    panel.no_value("no data")


def stat_panel(
    title: str,
    description: str,
    expr: str,
    unit: str,
    *steps: tuple[float | None, str],
    legend: str = "__auto",
) -> stat.Panel:
    """The current value of a query, a sixth of the width."""
    panel = stat.Panel()
    describe(panel, title, description, unit, width=4, height=4)
    panel.thresholds(thresholds(*(steps or [(None, BLUE)]))).graph_mode(common.BigValueGraphMode.NONE)
    panel.reduce_options(build_common.ReduceDataOptions().calcs(["lastNotNull"]))
    add_queries(panel, [query(expr, legend).instant()])
    return panel


def time_series(
    title: str, description: str, unit: str, queries: Mapping[str, str], width: int = 8
) -> timeseries.Panel:
    """Series over time; queries by legend."""
    panel = timeseries.Panel()
    describe(panel, title, description, unit, width, height=8)
    panel.line_width(1).fill_opacity(0).show_points(common.VisibilityMode.NEVER).min(0)
    panel.legend(
        build_common.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    panel.tooltip(
        build_common.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    add_queries(panel, [query(expr, legend).range() for legend, expr in queries.items()])
    return panel


def interval_band(panel: timeseries.Panel, compared: str) -> timeseries.Panel:
    """Fill between the series lower and upper, and dash the series to compare with."""
    hidden = {"legend": True, "tooltip": False, "viz": False}
    edge = {"custom_lineWidth": 0, "color": {"mode": "fixed", "fixedColor": BLUE}, "custom_hideFrom": hidden}
    panel.override_by_name("lower", field_options(**edge))
    panel.override_by_name("upper", field_options(**edge, custom_fillBelowTo="lower", custom_fillOpacity=20))
    dashed = {"fill": "dash", "dash": [8, 8]}
    panel.override_by_name(
        compared, field_options(custom_lineStyle=dashed, color={"mode": "fixed", "fixedColor": ORANGE})
    )
    panel.override_by_regexp(
        "coverage|accuracy", field_options(custom_lineWidth=2, color={"mode": "fixed", "fixedColor": BLUE})
    )
    return panel.override_by_name("last hour", field_options(color={"mode": "fixed", "fixedColor": GREY}))
