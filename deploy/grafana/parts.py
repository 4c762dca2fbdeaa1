"""How the dashboard's queries and panels are made; what they show is in the other files."""

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

SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")

PROCESS = 'job=~"$job", instance=~"$instance"'
MODEL = f'{PROCESS}, model=~"$model"'
VERSION = f'{MODEL}, version=~"$version"'
CHOSEN = f'{VERSION}, slice=~"$slice"'
HOUR = 'window="1h"'
PROMOTED = 'window="since_promotion"'

ROWS = "suffix: rows/s"
GREEN, ORANGE, RED, BLUE, GREY = "green", "orange", "red", "blue", "#8e8e8e"
Panel = bargauge.Panel | stat.Panel | statetimeline.Panel | table.Panel | timeseries.Panel


def shown(name: str, scope: str, *more: str) -> str:
    """A gauge of the snapshot per slice: all processes show the same, but for a moment after each tick."""
    return f"max by (slice) (slicewatch_{name}{{{', '.join((scope, *more))}}})"


def rate(name: str, scope: str, by: str = "") -> str:
    """A counter of all processes together, per second."""
    total = f"sum by ({by}) " if by else "sum"
    return f"{total}(rate(slicewatch_{name}{{{scope}}}[$__rate_interval]))"


def coverage_limit(sign: str) -> str:
    """One limit of Wilson's 95 % interval of a slice's coverage in the last hour."""
    p, n = (shown(f"slice_{name}", CHOSEN, HOUR) for name in ("coverage_ratio", "known_predictions"))
    half = f"1.96 * sqrt({p} * (1 - {p}) / {n} + 0.9604 / {n} ^ 2)"
    return f"({p} + 1.9208 / {n} {sign} {half}) / (1 + 3.8416 / {n})"


def quantile(q: float, of: str, by: str) -> str:
    """A quantile of times; the comparison leaves out what nobody asked for, which is not a number."""
    return f"histogram_quantile({q}, {rate(f'{of}_bucket', PROCESS, f'{by}, le')}) >= 0"


def thresholds(*steps: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    """Colours, each from a value on."""
    return dashboard.ThresholdsConfig().steps([values.Threshold(value, color) for value, color in steps])


def set_to(**properties: object) -> list[values.DynamicConfigValue]:
    """Properties of a field by name; those of the panel's kind begin with ``custom_``."""
    return [
        values.DynamicConfigValue(key.replace("custom_", "custom."), each) for key, each in properties.items()
    ]


def query(expr: str, legend: str = "__auto") -> prometheus.Dataquery:
    """One question to Prometheus, and what its lines are called."""
    return prometheus.Dataquery().datasource(SOURCE).expr(expr).legend_format(legend)


def targets(panel: Panel, queries: Iterable[prometheus.Dataquery]) -> None:
    """Give a panel its queries, lettered from A."""
    for letter, each in zip(ascii_uppercase, queries, strict=False):
        panel.with_target(each.ref_id(letter))


def described(panel: Panel, title: str, description: str, unit: str, width: int, height: int) -> None:
    """Say what a panel shows, in which unit, and how large it is; the grid is 24 wide."""
    panel.title(title).description(description).unit(unit).datasource(SOURCE).span(width).height(height)
    panel.no_value("none yet")


def number(
    title: str,
    description: str,
    expr: str,
    unit: str,
    *steps: tuple[float | None, str],
    legend: str = "__auto",
) -> stat.Panel:
    """One figure of now, a sixth of the width."""
    panel = stat.Panel()
    described(panel, title, description, unit, width=4, height=4)
    panel.thresholds(thresholds(*(steps or [(None, BLUE)]))).graph_mode(common.BigValueGraphMode.NONE)
    panel.reduce_options(build_common.ReduceDataOptions().calcs(["lastNotNull"]))
    targets(panel, [query(expr, legend).instant()])
    return panel


def lines(
    title: str, description: str, unit: str, queries: Mapping[str, str], width: int = 8
) -> timeseries.Panel:
    """Figures over time; queries by what their lines are called."""
    panel = timeseries.Panel()
    described(panel, title, description, unit, width, height=8)
    panel.line_width(1).fill_opacity(0).show_points(common.VisibilityMode.NEVER).min(0)
    panel.legend(
        build_common.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    panel.tooltip(
        build_common.VizTooltipOptions()
        .mode(common.TooltipDisplayMode.MULTI)
        .sort(common.SortOrder.DESCENDING)
    )
    targets(panel, [query(expr, legend).range() for legend, expr in queries.items()])
    return panel


def band(panel: timeseries.Panel, compared: str) -> timeseries.Panel:
    """Fill between the lines called lower and upper, and dash the line to compare with."""
    hidden = {"legend": True, "tooltip": False, "viz": False}
    edge = {"custom_lineWidth": 0, "color": {"mode": "fixed", "fixedColor": BLUE}, "custom_hideFrom": hidden}
    panel.override_by_name("lower", set_to(**edge))
    panel.override_by_name("upper", set_to(**edge, custom_fillBelowTo="lower", custom_fillOpacity=20))
    dashed = {"fill": "dash", "dash": [8, 8]}
    panel.override_by_name(
        compared, set_to(custom_lineStyle=dashed, color={"mode": "fixed", "fixedColor": ORANGE})
    )
    panel.override_by_regexp(
        "coverage|accuracy", set_to(custom_lineWidth=2, color={"mode": "fixed", "fixedColor": BLUE})
    )
    return panel.override_by_name("last hour", set_to(color={"mode": "fixed", "fixedColor": GREY}))
