"""Charts and small plots as SVG. Colours and strokes come from the style sheet; every plot has an accessible name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from markupsafe import Markup

from service.console.formatting import signed_points, utc
from service.decisions import RATES, DriftStatus, SliceDecision, ToleranceBand
from service.events import Estimate, InsufficientData
from service.formatting import percent

_RATE_STEPS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_DAY = timedelta(days=1)
_TIME_STEPS = tuple(
    timedelta(seconds=seconds)
    for seconds in (10, 30, 60, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800)
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_INTERVALS = 5
_LABEL_CHARACTER = 0.028
"""Width of a character above the narrowest chart, as a fraction of the chart."""


@dataclass(frozen=True, slots=True)
class Band:
    """Named rate with its interval; an exact value has equal limits."""

    name: str
    value: float
    lower: float
    upper: float

    @property
    def description(self) -> str:
        """The band in words."""
        if self.lower == self.upper:
            return f"{self.name} {percent(self.value)}"
        return f"{self.name} {percent(self.value)}, interval {percent(self.lower)} to {percent(self.upper)}"


def band(name: str, rate: Estimate | InsufficientData) -> Band | None:
    """Return an estimate as a band; None without enough data."""
    return Band(name, rate.value, rate.lower, rate.upper) if isinstance(rate, Estimate) else None


def exact_band(name: str, value: float | None) -> Band | None:
    """Return a value without an interval as a band."""
    return None if value is None else Band(name, value, value, value)


@dataclass(frozen=True, slots=True)
class RateAxis:
    """Axis of rates from ``low`` to ``high``."""

    low: float
    high: float
    ticks: tuple[float, ...] = ()

    def position(self, rate: float) -> float:
        """Return the position of a rate along the axis, clipped to [0, 1]."""
        return _clip((rate - self.low) / (self.high - self.low))


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Axis of time from ``start`` to ``end``, with ticks on round times in UTC."""

    start: datetime
    end: datetime
    ticks: tuple[datetime, ...]
    step: timedelta

    def position(self, at: datetime) -> float:
        """Return the position of a time; 0 is the start, 1 the end."""
        return (at - self.start) / (self.end - self.start)

    def tick_label(self, tick: datetime) -> str:
        """Return the time of a tick, or its day at midnight."""
        at = tick.astimezone(UTC)
        if self.step >= _DAY or (at.hour, at.minute, at.second) == (0, 0, 0):
            return f"{at.day} {at:%b}"
        return f"{at:%H:%M:%S}" if self.step < timedelta(minutes=1) else f"{at:%H:%M}"


def rate_axis(rates: Iterable[float]) -> RateAxis:
    """Return an axis that holds all rates, with about four steps between round ends.

    Examples
    --------
    >>> rate_axis([0.12, 0.19]).ticks
    (0.12, 0.14, 0.16, 0.18, 0.2)
    """
    known = list(rates) or [0.0, 1.0]
    low, high = min(known), max(known)
    step = next((step for step in _RATE_STEPS if (high - low) / step <= _MAX_INTERVALS - 1), _RATE_STEPS[-1])
    first = max(math.floor(low / step + 1e-9), 0)
    last = min(max(math.ceil(high / step - 1e-9), first + 1), round(1 / step))
    ticks = tuple(round(n * step, 6) for n in range(min(first, last - 1), last + 1))
    return RateAxis(ticks[0], ticks[-1], ticks)


def time_axis(start: datetime, end: datetime) -> TimeAxis:
    """Return the axis of [start, end], with few ticks on round times.

    Examples
    --------
    >>> axis = time_axis(datetime(2026, 5, 1, 12, 7, tzinfo=UTC), datetime(2026, 5, 1, 13, 7, tzinfo=UTC))
    >>> [axis.tick_label(tick) for tick in axis.ticks]
    ['12:15', '12:30', '12:45', '13:00']
    """
    end = max(end, start + timedelta(seconds=10))
    length = end - start
    longest = -(-length // (_MAX_INTERVALS * _DAY)) * _DAY
    step = next((step for step in _TIME_STEPS if length / step <= _MAX_INTERVALS), longest)
    first, last = -((_EPOCH - start) // step), (end - _EPOCH) // step
    return TimeAxis(start, end, tuple(_EPOCH + n * step for n in range(first, last + 1)), step)


@dataclass(frozen=True, slots=True)
class ChartPoint:
    """Rate of one time step, None without enough data, and the counts behind it in words."""

    start: datetime
    end: datetime
    band: Band | None
    counts: str


@dataclass(frozen=True, slots=True)
class EventMarker:
    """Numbered vertical line where something happened."""

    at: datetime
    number: int
    is_alarm: bool = False


def line_chart(
    name: str, chart_points: Sequence[ChartPoint], mark: Band | None, markers: Sequence[EventMarker] = ()
) -> Markup:
    """Return a chart of a rate over time: line, interval, reference and events; empty without any rate."""
    bands = [point.band for point in chart_points if point.band is not None]
    if not bands:
        return Markup("")
    rates = rate_axis(
        rate for band in [*bands, *([mark] if mark else [])] for rate in (band.lower, band.value, band.upper)
    )
    times = time_axis(chart_points[0].start, chart_points[-1].end)
    markers = [marker for marker in markers if 0 <= times.position(marker.at) <= 1]

    def y(rate: float) -> float:
        return 100 * (1 - rates.position(rate))

    # The plot is stretched to its box; text is placed in percent beside it, and keeps its size.
    reference = Markup("")
    if mark:
        reference = Markup(
            '<rect class="zone" x="0" width="1000" y="{}" height="{}"/><path class="mark" d="M0 {}H1000"/>'
        ).format(*map(coordinate, (y(mark.upper), y(mark.lower) - y(mark.upper), y(mark.value))))
    rules = "".join(f"M0 {coordinate(y(tick))}H1000" for tick in rates.ticks)
    flags = [
        "".join(f"M{coordinate(1000 * times.position(m.at))} 0V100" for m in markers if m.is_alarm is alarm)
        for alarm in (False, True)
    ]
    plot = Markup('<path class="rule" d="{}"/>{}{}<path class="flag" d="{}"/><path class="flag alarm" d="{}"/>').format(
        rules, reference, _line_with_band(chart_points, times, y), *flags
    )
    description = (
        f"{name} over time: last {percent(bands[-1].value)}, "
        f"lowest {percent(min(band.value for band in bands))}, "
        f"highest {percent(max(band.value for band in bands))}{f'; {mark.description}' if mark else ''}"
    )
    return Markup(
        '<svg class="chart" role="img" aria-label="{}">'
        '<svg class="stretched" width="100%" height="160" viewBox="0 0 1000 100" preserveAspectRatio="none">'
        "{}</svg>{}{}</svg>"
    ).format(description, plot, _chart_text(rates, times, markers), _tooltips(name, chart_points, times))


def _line_with_band(chart_points: Sequence[ChartPoint], times: TimeAxis, y: Callable[[float], float]) -> Markup:
    middles = [1000 * times.position(p.start + (p.end - p.start) / 2) for p in chart_points]
    upper, value, lower = (
        [
            (x, None if point.band is None else y(getattr(point.band, limit)))
            for x, point in zip(middles, chart_points, strict=True)
        ]
        for limit in ("upper", "value", "lower")
    )
    edges = list(zip(segments(upper), segments(lower), strict=True))
    areas = "".join(f"{polyline([*above, *reversed(below)])}Z" for above, below in edges if len(above) > 1)
    whiskers = "".join(polyline([*above, *below]) for above, below in edges if len(above) == 1)
    return Markup(
        '<path class="band" d="{}"/><path class="whisker" d="{}"/>'
        '<path class="line" d="{}"/><path class="lone" d="{}"/>'
    ).format(areas, whiskers, line_path(value), dot_path(value))


def _chart_text(rates: RateAxis, times: TimeAxis, markers: Sequence[EventMarker]) -> Markup:
    text = [
        Markup('<text x="-6" y="{}" dy=".35em" text-anchor="end">{}%</text>').format(
            coordinate(160 - 160 * rates.position(tick)), f"{100 * tick:g}"
        )
        for tick in rates.ticks
    ]
    text += [
        Markup('<text x="{}%" y="176" text-anchor="{}">{}</text>').format(
            coordinate(100 * times.position(tick)),
            _text_anchor(times.position(tick), 0.05),
            times.tick_label(tick),
        )
        for tick in times.ticks
    ]
    text += [
        Markup('<text class="flag" x="{}%" y="-4" text-anchor="middle">{}</text>').format(
            coordinate(100 * position), label
        )
        for position, label in merge_labels([(times.position(m.at), m.number) for m in markers])
    ]
    return Markup("").join(text)


def _tooltips(name: str, chart_points: Sequence[ChartPoint], times: TimeAxis) -> Markup:
    return Markup("").join(
        Markup('<rect class="hover" x="{}%" width="{}%" y="0" height="160"><title>{}</title></rect>').format(
            coordinate(100 * times.position(point.start)),
            coordinate(100 * (times.position(point.end) - times.position(point.start))),
            f"{utc(point.start)} to {utc(point.end)}\n{point.band.description if point.band else name}\n{point.counts}",
        )
        for point in chart_points
    )


def merge_labels(numbers: Sequence[tuple[float, int]]) -> list[tuple[float, str]]:
    """Return the labels of numbers at positions in [0, 1]; labels that would overlap become a range.

    Examples
    --------
    >>> merge_labels([(0.1, 1), (0.11, 2), (0.12, 3), (0.5, 4)])
    [(0.11, '1–3'), (0.5, '4')]
    """

    def label(group: Sequence[tuple[float, int]]) -> tuple[float, str]:
        first, last = group[0], group[-1]
        text = str(first[1]) if len(group) == 1 else f"{first[1]}–{last[1]}"
        return round((first[0] + last[0]) / 2, 6), text

    groups: list[list[tuple[float, int]]] = []
    for number in numbers:
        groups.append([number])
        while len(groups) > 1:
            (left, left_text), (right, right_text) = label(groups[-2]), label(groups[-1])
            if right - left >= _LABEL_CHARACTER * ((len(left_text) + len(right_text)) / 2 + 1):
                break
            last = groups.pop()
            groups[-1] += last
    return [label(group) for group in groups]


def ratio_scale(rate: float, mark: float) -> float:
    """Return a position in [0, 1] on a logarithmic scale from a quarter to four times the mark.

    Examples
    --------
    >>> ratio_scale(0.1, 0.1), ratio_scale(0.2, 0.1), ratio_scale(0.9, 0.1), ratio_scale(0.0, 0.1)
    (0.5, 0.75, 1.0, 0.0)
    """
    if mark <= 0:
        return 0.5 if rate <= 0 else 1.0
    return _clip((math.log2(rate / mark) + 2) / 4) if rate > 0 else 0.0


def points_scale(rate: float, mark: float) -> float:
    """Return a position in [0, 1] on a scale from 20 points below the mark to 20 above.

    Examples
    --------
    >>> round(points_scale(0.9, 0.9), 6), round(points_scale(0.8, 0.9), 6), points_scale(0.3, 0.9)
    (0.5, 0.25, 0.0)
    """
    return _clip((rate - mark + 0.2) / 0.4)


def coverage_plot(coverage: Estimate | InsufficientData, reference: Estimate | InsufficientData) -> Markup:
    """Return coverage beside the expected coverage; empty if either is missing."""
    value, expected = band("coverage", coverage), band("expected", reference)
    return interval_plot(value, expected, ratio_scale) if value and expected else Markup("")


def accuracy_plot(accuracy: Estimate | InsufficientData, target: float | None) -> Markup:
    """Return accuracy beside its target; empty if either is missing."""
    value, wanted = band("accuracy", accuracy), exact_band("target", target)
    return interval_plot(value, wanted, points_scale) if value and wanted else Markup("")


def interval_plot(rate: Band, mark: Band, scale: Callable[[float, float], float]) -> Markup:
    """Return an interval and its value beside a mark in the middle of the plot."""
    low, value, high = (100 * scale(x, mark.value) for x in (rate.lower, rate.value, rate.upper))
    zone, zone_end = (100 * scale(x, mark.value) for x in (mark.lower, mark.upper))
    return _small_plot(
        f"{rate.description}; {mark.description}",
        Markup(
            '<rect class="zone" x="{}" width="{}" y="3" height="10"/><path class="mark" d="M50 1V15"/>'
            '<path class="bar" d="M{} 8H{}"/><circle class="dot" cx="{}" cy="8" r="3.2"/>'
        ).format(*map(coordinate, (zone, max(zone_end - zone, 0.0), low, max(high, low + 0.01), value))),
    )


def sparkline(values: Sequence[float | None], name: str, mark: float | None = None) -> Markup:
    """Return a small line of rates in order of time, from 0 up, with gaps; empty without any rate."""
    present = [value for value in values if value is not None]
    if not present:
        return Markup("")
    top = max(*present, mark or 0.0) or 1.0
    step = 100 / max(len(values) - 1, 1)
    places = [(i * step, None if v is None else 22 - 19 * v / top) for i, v in enumerate(values)]
    return Markup(
        '<svg class="spark" viewBox="-3 0 106 24" role="img" aria-label="{name}"><title>{name}</title>'
        '<path class="mark" d="{mark}"/><path class="line" d="{line}"/><path class="lone" d="{lone}"/></svg>'
    ).format(
        name=f"{name}: last {percent(present[-1])}, lowest {percent(min(present))}, highest {percent(max(present))}",
        mark="" if mark is None else f"M0 {coordinate(22 - 19 * mark / top)}H100",
        line=line_path(places),
        lone=dot_path(places),
    )


def tolerance_plot(drift: DriftStatus) -> Markup:
    """Return a rate with its interval beside its tolerance band; empty without a band."""
    if drift.zone is None:
        return Markup("")
    axis = RateAxis(*_plot_limits(drift, drift.zone))
    return _small_plot(_drift_description(drift, drift.zone), _rate_in_band(drift, drift.zone, axis, 16))


def tolerance_chart(drift: DriftStatus) -> Markup:
    """Return the tolerance plot in full width with an axis; empty without a band."""
    if drift.zone is None:
        return Markup("")
    axis = rate_axis(_plot_limits(drift, drift.zone))
    positions = [(coordinate(100 * axis.position(tick)), tick) for tick in axis.ticks]
    labels = Markup("").join(
        Markup('<text x="{}%" y="60" text-anchor="{}">{}%</text>').format(
            x, _text_anchor(axis.position(tick), 0.02), f"{100 * tick:g}"
        )
        for x, tick in positions
    )
    return Markup(
        '<svg class="zone-chart" role="img" aria-label="{}"><svg width="100%" height="44" '
        'viewBox="0 0 100 44" preserveAspectRatio="none"><path class="rule" d="{}"/>'
        '<path class="rail" d="M0 22H100"/>{}</svg>{}</svg>'
    ).format(
        _drift_description(drift, drift.zone),
        "".join(f"M{x} 0V44" for x, _ in positions),
        _rate_in_band(drift, drift.zone, axis, 44),
        labels,
    )


def _drift_description(drift: DriftStatus, zone: ToleranceBand) -> str:
    value, reference = drift.observed.value, zone.reference.value
    rate = f"{RATES[drift.kind]} not observed yet"
    if value is not None:
        rate = f"{RATES[drift.kind]} {percent(value)}, interval {percent(drift.lower)} to {percent(drift.upper)}"
    beside = "" if reference is None else f", reference {percent(reference)}"
    limits = "" if zone.target is None else " (target)"
    return f"{rate}; expected {percent(zone.lower)} to {percent(zone.upper)}{limits}{beside}"


def _plot_limits(drift: DriftStatus, zone: ToleranceBand) -> tuple[float, float]:
    """Return limits that show the band, the rate, and as much of the interval as leaves these visible."""
    value, reference = drift.observed.value, zone.reference.value
    limits = [limit for limit in (zone.lower, zone.upper, value, reference) if limit is not None]
    low, high = min(limits), max(limits)
    room = (high - low) or 0.05
    if value is not None:
        low, high = min(low, max(drift.lower, low - room)), max(high, min(drift.upper, high + room))
    return max(low - room / 5, 0.0), min(high + room / 5, 1.0)


def _rate_in_band(drift: DriftStatus, zone: ToleranceBand, axis: RateAxis, height: int) -> Markup:
    left, right = (100 * axis.position(limit) for limit in (zone.lower, zone.upper))
    reference, value = zone.reference.value, drift.observed.value
    tick = "" if reference is None else f"M{coordinate(100 * axis.position(reference))} 1V{height - 1}"
    plot = Markup('<rect class="zone" x="{}" width="{}" y="3" height="{}"/><path class="mark" d="{}"/>').format(
        coordinate(left), coordinate(max(right - left, 0.5)), height - 6, tick
    )
    if value is None:
        return plot
    low, middle, high = (100 * axis.position(rate) for rate in (drift.lower, value, drift.upper))
    return plot + Markup('<path class="bar" d="M{} {y}H{}"/><path class="spot" d="M{} {y}h.01"/>').format(
        *map(coordinate, (low, max(high, low + 0.01), middle)), y=height // 2
    )


def evidence_meter(ratio: float) -> Markup:
    """Return evidence as a fraction of the alarm threshold: a bar that is full at 1."""
    return Markup(
        '<svg class="meter" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" '
        'aria-label="{} of the alarm threshold"><rect class="rail" width="100" height="8"/>'
        '<rect class="{}" width="{}" height="8"/></svg>'
    ).format(f"{ratio:.0%}", "full" if ratio >= 1 else "part", coordinate(100 * _clip(ratio)))


def difference_range(margin: float) -> float:
    """Return the half-width of a plot of differences on which the margin stands apart from 0.

    Examples
    --------
    >>> difference_range(0.02), difference_range(0.05)
    (0.1, 0.25)
    """
    return min(max(0.1, 5 * margin), 1.0)


def difference_plot(decision: SliceDecision, margin: float) -> Markup:
    """Return a difference in accuracy with its interval, beside 0 in the middle and the margin; empty without rows."""
    if not decision.pairs.n:
        return Markup("")
    width = difference_range(margin)
    axis = RateAxis(-width, width)
    low, value, high, line = (
        coordinate(100 * axis.position(x)) for x in (decision.lower, decision.difference, decision.upper, -margin)
    )
    return _small_plot(
        f"difference {signed_points(decision.difference)} points, interval {signed_points(decision.lower)} to "
        f"{signed_points(decision.upper)}; margin {signed_points(-margin)}",
        Markup(
            '<path class="zero" d="M50 1V15"/><path class="mark" d="M{line} 1V15"/>'
            '<path class="bar {kind}" d="M{low} 8H{high}"/>'
            '<circle class="dot {kind}" cx="{value}" cy="8" r="3.2"/>'
        ).format(line=line, low=low, high=high, value=value, kind=decision.outcome),
        "range difference",
    )


def _small_plot(name: str, inside: Markup, kind: str = "range") -> Markup:
    return Markup(
        '<svg class="{kind}" viewBox="0 0 108 16" role="img" aria-label="{name}"><title>{name}</title>'
        '<g transform="translate(4 0)"><path class="rail" d="M0 8H100"/>{inside}</g></svg>'
    ).format(kind=kind, name=name, inside=inside)


def line_path(places: Iterable[tuple[float, float | None]]) -> str:
    """Return a path through consecutive places, interrupted at gaps; single places are left out.

    Examples
    --------
    >>> line_path([(0, 1.0), (1, 2.5), (2, None), (3, 4.0)])
    'M0 1L1 2.5'
    """
    return "".join(polyline(segment) for segment in segments(places) if len(segment) > 1)


def dot_path(places: Iterable[tuple[float, float | None]]) -> str:
    """Return dots at single places between gaps.

    Examples
    --------
    >>> dot_path([(0, 1.0), (1, 2.5), (2, None), (3, 4.0)])
    'M3 4h.01'
    """
    return "".join(f"{polyline(segment)}h.01" for segment in segments(places) if len(segment) == 1)


def polyline(segment: Iterable[tuple[float, float]]) -> str:
    """Return a path through places without gaps."""
    return "M" + "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in segment)


def segments(places: Iterable[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    """Return the runs of places between gaps."""
    out: list[list[tuple[float, float]]] = [[]]
    for x, y in places:
        if y is None:
            out.append([])
        else:
            out[-1].append((x, y))
    return [segment for segment in out if segment]


def coordinate(value: float) -> str:
    """Return a coordinate in as few characters as possible.

    Examples
    --------
    >>> coordinate(12.0), coordinate(1 / 3)
    ('12', '0.33')
    """
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _text_anchor(position: float, edge: float) -> str:
    return "start" if position < edge else "end" if position > 1 - edge else "middle"


def _clip(position: float) -> float:
    return min(max(position, 0.0), 1.0)
