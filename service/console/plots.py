"""Small plots as SVG, made by plain functions; every one has a name that says what it shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from service.console.words import percent

Place = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Band:
    """A share with its interval, under a name; where it is exact, all three are the same."""

    name: str
    value: float
    lower: float
    upper: float

    @property
    def said(self) -> str:
        """The band in words."""
        if self.lower == self.upper:
            return f"{self.name} {percent(self.value)}"
        return f"{self.name} {percent(self.value)}, interval {percent(self.lower)} to {percent(self.upper)}"


def by_ratio(share: float, mark: float) -> float:
    """Place a share on a scale of ratios from a quarter to four times the mark, in [0, 1].

    Examples
    --------
    >>> by_ratio(0.1, 0.1), by_ratio(0.2, 0.1), by_ratio(0.9, 0.1), by_ratio(0.0, 0.1)
    (0.5, 0.75, 1.0, 0.0)
    """
    if mark <= 0:
        return 0.5 if share <= 0 else 1.0
    return _within((math.log2(share / mark) + 2) / 4) if share > 0 else 0.0


def by_points(share: float, mark: float) -> float:
    """Place a share on a scale from 20 points below the mark to 20 above, in [0, 1].

    Examples
    --------
    >>> round(by_points(0.9, 0.9), 6), round(by_points(0.8, 0.9), 6), by_points(0.3, 0.9)
    (0.5, 0.25, 0.0)
    """
    return _within((share - mark + 0.2) / 0.4)


def range_plot(found: Band, mark: Band, scale: Callable[[float, float], float]) -> Markup:
    """Return an interval and its value beside a mark, which stands in the middle of every such plot."""
    low, value, high = (100 * scale(each, mark.value) for each in (found.lower, found.value, found.upper))
    zone, zone_end = (100 * scale(each, mark.value) for each in (mark.lower, mark.upper))
    return Markup(
        '<svg class="range" viewBox="0 0 108 16" role="img" aria-label="{said}"><title>{said}</title>'
        '<g transform="translate(4 0)"><path class="rail" d="M0 8H100"/>'
        '<rect class="zone" x="{zone}" width="{zone_width}" y="3" height="10"/>'
        '<path class="mark" d="M50 1V15"/><path class="bar" d="M{low} 8H{high}"/>'
        '<circle class="dot" cx="{value}" cy="8" r="3.2"/></g></svg>'
    ).format(
        said=f"{found.said}; {mark.said}",
        zone=number(zone),
        zone_width=number(max(zone_end - zone, 0.0)),
        low=number(low),
        high=number(max(high, low + 0.01)),
        value=number(value),
    )


def sparkline(values: Sequence[float | None], name: str, mark: float | None = None) -> Markup:
    """Return a small line of shares in order of time, from 0 up, with gaps; nothing where none is known."""
    known = [value for value in values if value is not None]
    if not known:
        return Markup("")
    top = max(*known, mark or 0.0) or 1.0
    step = 100 / max(len(values) - 1, 1)
    places = [(i * step, None if v is None else _height(v, top)) for i, v in enumerate(values)]
    said = f"{name}: last {percent(known[-1])}, lowest {percent(min(known))}, highest {percent(max(known))}"
    return Markup(
        '<svg class="spark" viewBox="-3 0 106 24" role="img" aria-label="{said}"><title>{said}</title>'
        '<path class="mark" d="{mark}"/><path class="line" d="{line}"/><path class="lone" d="{lone}"/></svg>'
    ).format(
        said=said,
        mark="" if mark is None else f"M0 {number(_height(mark, top))}H100",
        line=line_path(places),
        lone=lone_path(places),
    )


def line_path(places: Iterable[tuple[float, float | None]]) -> str:
    """Return a path through the places, lifted where there is none; without those that stand alone.

    Examples
    --------
    >>> line_path([(0, 1.0), (1, 2.5), (2, None), (3, 4.0)])
    'M0 1L1 2.5'
    """
    return "".join(joined(run) for run in runs(places) if len(run) > 1)


def lone_path(places: Iterable[tuple[float, float | None]]) -> str:
    """Return dots where places stand alone between gaps.

    Examples
    --------
    >>> lone_path([(0, 1.0), (1, 2.5), (2, None), (3, 4.0)])
    'M3 4h.01'
    """
    return "".join(f"{joined(run)}h.01" for run in runs(places) if len(run) == 1)


def joined(run: Iterable[Place]) -> str:
    """Return a path through places without gaps."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in run)


def runs(places: Iterable[tuple[float, float | None]]) -> list[list[Place]]:
    """Return the places between gaps, gap by gap."""
    out: list[list[Place]] = [[]]
    for x, y in places:
        if y is None:
            out.append([])
        else:
            out[-1].append((x, y))
    return [run for run in out if run]


def number(value: float) -> str:
    """Return a coordinate with as few characters as it needs.

    Examples
    --------
    >>> number(12.0), number(1 / 3)
    ('12', '0.33')
    """
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _height(value: float, top: float) -> float:
    return 22 - 19 * value / top


def _within(place: float) -> float:
    return min(max(place, 0.0), 1.0)
