"""Where a rate lies in its zone, how far evidence has come, and what a difference was found to be, as small plots."""

from __future__ import annotations

from markupsafe import Markup

from service.console.axes import ShareAxis, share_axis
from service.console.plots import number
from service.console.words import percent, points
from service.decisions import DriftStatus, SliceDecision, ToleranceBand

_WIDTH = 100


def zone_plot(drift: DriftStatus) -> Markup:
    """Return a rate with its interval in the zone where it may lie; nothing without a zone."""
    if drift.zone is None:
        return Markup("")
    low, high = _reach(drift, drift.zone)
    axis = ShareAxis(low, high, ())
    return Markup(
        '<svg class="range" viewBox="0 0 108 16" role="img" aria-label="{said}"><title>{said}</title>'
        '<g transform="translate(4 0)"><path class="rail" d="M0 8H100"/>{inside}</g></svg>'
    ).format(said=zone_said(drift), inside=_zone(drift.zone, axis, 16) + _found(drift, axis, 8))


def zone_chart(drift: DriftStatus) -> Markup:
    """Return the same with an axis; nothing without a zone."""
    if drift.zone is None:
        return Markup("")
    axis = share_axis(_reach(drift, drift.zone))
    return Markup(
        '<svg class="zone-chart" role="img" aria-label="{said}"><svg width="100%" height="44" '
        'viewBox="0 0 100 44" preserveAspectRatio="none"><path class="rule" d="{ticks}"/>'
        '<path class="rail" d="M0 22H100"/>{inside}</svg>{words}</svg>'
    ).format(
        said=zone_said(drift),
        ticks="".join(f"M{number(_along(axis, tick))} 0V44" for tick in axis.ticks),
        inside=_zone(drift.zone, axis, 44) + _found(drift, axis, 22),
        words=_tick_words(axis),
    )


def zone_said(drift: DriftStatus) -> str:
    """Return what such a plot shows, in words."""
    zone, value = drift.zone, drift.observed.value
    found = f"{drift.kind} not seen yet"
    if value is not None:
        found = f"{drift.kind} {percent(value)}, interval {percent(drift.lower)} to {percent(drift.upper)}"
    if zone is None:
        return found
    reference = "" if zone.reference.value is None else f", reference {percent(zone.reference.value)}"
    return f"{found}; expected {percent(zone.lower)} to {percent(zone.upper)}{reference}"


def meter(share: float) -> Markup:
    """Return how far evidence has come, as a bar that is full where it alarms."""
    kind = "full" if share >= 1 else "part"
    return Markup(
        '<svg class="meter" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" '
        'aria-label="{said} of what alarms"><rect class="rail" width="100" height="8"/>'
        '<rect class="{kind}" width="{width}" height="8"/></svg>'
    ).format(said=f"{share:.0%}", kind=kind, width=number(100 * min(max(share, 0.0), 1.0)))


def reach_of(margin: float) -> float:
    """Return how far plots of differences reach to both sides: margin and none at all have to stand apart.

    Examples
    --------
    >>> reach_of(0.02), reach_of(0.05)
    (0.1, 0.25)
    """
    return min(max(0.1, 5 * margin), 1.0)


def difference_plot(found: SliceDecision, margin: float, reach: float) -> Markup:
    """Return a difference with its interval beside none at all, in the middle, and the margin; nothing without rows."""
    if not found.pairs.n:
        return Markup("")
    axis = ShareAxis(-reach, reach, ())
    low, value, high, line = (
        number(_along(axis, each)) for each in (found.lower, found.difference, found.upper, -margin)
    )
    said = (
        f"difference {points(found.difference)} points, interval {points(found.lower)} to "
        f"{points(found.upper)}; margin {points(-margin)}"
    )
    return Markup(
        '<svg class="range difference" viewBox="0 0 108 16" role="img" aria-label="{said}"><title>{said}</title>'
        '<g transform="translate(4 0)"><path class="rail" d="M0 8H100"/><path class="zero" d="M50 1V15"/>'
        '<path class="mark" d="M{line} 1V15"/><path class="bar {kind}" d="M{low} 8H{high}"/>'
        '<circle class="dot {kind}" cx="{value}" cy="8" r="3.2"/></g></svg>'
    ).format(said=said, line=line, low=low, high=high, value=value, kind=found.outcome)


def _reach(drift: DriftStatus, zone: ToleranceBand) -> tuple[float, float]:
    """Return what such a plot shows: the zone and the rate, and as much of the interval as leaves them visible."""
    value = drift.observed.value
    shown = [zone.lower, zone.upper, *([value] if value is not None else [])]
    low, high = min(shown), max(shown)
    room = (high - low) or 0.05
    if value is not None:
        low, high = min(low, max(drift.lower, low - room)), max(high, min(drift.upper, high + room))
    return max(low - room / 5, 0.0), min(high + room / 5, 1.0)


def _zone(zone: ToleranceBand, axis: ShareAxis, height: int) -> Markup:
    left, right = _along(axis, zone.lower), _along(axis, zone.upper)
    reference = zone.reference.value
    tick = "" if reference is None else f"M{number(_along(axis, reference))} 1V{height - 1}"
    return Markup(
        '<rect class="zone" x="{}" width="{}" y="3" height="{}"/><path class="mark" d="{}"/>'
    ).format(number(left), number(max(right - left, 0.5)), height - 6, tick)


def _found(drift: DriftStatus, axis: ShareAxis, y: int) -> Markup:
    value = drift.observed.value
    if value is None:
        return Markup("")
    low, middle, high = (_along(axis, each) for each in (drift.lower, value, drift.upper))
    return Markup('<path class="bar" d="M{} {}H{}"/><path class="spot" d="M{} {}h.01"/>').format(
        number(low), y, number(max(high, low + 0.01)), number(middle), y
    )


def _tick_words(axis: ShareAxis) -> Markup:
    return Markup("").join(
        Markup('<text x="{}%" y="60" text-anchor="{}">{}</text>').format(
            number(_along(axis, tick)), _anchor(axis.place(tick)), f"{100 * tick:g}%"
        )
        for tick in axis.ticks
    )


def _anchor(place: float) -> str:
    return "start" if place < 0.02 else "end" if place > 0.98 else "middle"


def _along(axis: ShareAxis, share: float) -> float:
    return _WIDTH * axis.place(share)
