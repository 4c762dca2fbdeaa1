"""A share over time as SVG: its line, the band of its interval, a mark to hold it against, and events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from service.console.axes import ShareAxis, TimeAxis, share_axis, time_axis
from service.console.plots import Band, joined, line_path, lone_path, number, runs
from service.console.words import percent, utc

_WIDTH, _HEIGHT = 1000, 100
"""Units of the stretched part; words are placed in percent beside it, so that they keep their size."""


_CHARACTER = 0.028
"""How wide a character is on the narrowest chart, as a share of it."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A share with its interval between two moments, and what it was counted from; None where there is none."""

    start: datetime
    end: datetime
    found: Band | None
    n: str


@dataclass(frozen=True, slots=True)
class Flag:
    """Something that happened, shown as a numbered line; ``alarm`` is whether it was one."""

    at: datetime
    number: int
    alarm: bool = False


def chart(name: str, spots: Sequence[Spot], mark: Band | None, flags: Sequence[Flag] = ()) -> Markup:
    """Return the chart of shares in order of time; nothing where none of the spots has a share."""
    found = [spot.found for spot in spots if spot.found is not None]
    if not found:
        return Markup("")
    shares = share_axis(
        each for band in [*found, *([mark] if mark else [])] for each in (band.lower, band.value, band.upper)
    )
    times = time_axis(spots[0].start, spots[-1].end)
    parts = [_rules(shares), _mark(mark, shares), _figures(spots, times, shares), _flag_lines(flags, times)]
    return Markup(
        '<svg class="chart" role="img" aria-label="{said}">'
        '<svg class="stretched" width="100%" height="160" viewBox="0 0 1000 100" preserveAspectRatio="none">'
        "{inside}</svg>{words}{flags}{hovers}</svg>"
    ).format(
        said=_said(name, found, mark),
        inside=Markup("").join(parts),
        words=_share_words(shares) + _time_words(times),
        flags=_flag_words(flags, times),
        hovers=_hovers(name, spots, times),
    )


def _said(name: str, found: Sequence[Band], mark: Band | None) -> str:
    values = [band.value for band in found]
    beside = f"; {mark.said}" if mark else ""
    return (
        f"{name} over time: last {percent(values[-1])}, "
        f"lowest {percent(min(values))}, highest {percent(max(values))}{beside}"
    )


def _rules(shares: ShareAxis) -> Markup:
    lines = "".join(f"M0 {number(_up(shares, tick))}H{_WIDTH}" for tick in shares.ticks)
    return Markup('<path class="rule" d="{}"/>').format(lines)


def _mark(mark: Band | None, shares: ShareAxis) -> Markup:
    if mark is None:
        return Markup("")
    top, bottom = _up(shares, mark.upper), _up(shares, mark.lower)
    return Markup(
        '<rect class="zone" x="0" width="1000" y="{top}" height="{height}"/><path class="mark" d="M0 {at}H1000"/>'
    ).format(top=number(top), height=number(bottom - top), at=number(_up(shares, mark.value)))


def _figures(spots: Sequence[Spot], times: TimeAxis, shares: ShareAxis) -> Markup:
    middles = [_along(times, spot.start + (spot.end - spot.start) / 2) for spot in spots]
    upper, value, lower = (
        [
            (x, None if spot.found is None else _up(shares, getattr(spot.found, end)))
            for x, spot in zip(middles, spots, strict=True)
        ]
        for end in ("upper", "value", "lower")
    )
    edges = list(zip(runs(upper), runs(lower), strict=True))
    areas = "".join(f"{joined([*above, *reversed(below)])}Z" for above, below in edges if len(above) > 1)
    whiskers = "".join(joined([*above, *below]) for above, below in edges if len(above) == 1)
    return Markup(
        '<path class="band" d="{}"/><path class="whisker" d="{}"/>'
        '<path class="line" d="{}"/><path class="lone" d="{}"/>'
    ).format(areas, whiskers, line_path(value), lone_path(value))


def _flag_lines(flags: Sequence[Flag], times: TimeAxis) -> Markup:
    lines = {
        kind: "".join(
            f"M{number(_along(times, flag.at))} 0V{_HEIGHT}"
            for flag in _shown(flags, times)
            if flag.alarm is (kind == "flag alarm")
        )
        for kind in ("flag", "flag alarm")
    }
    return Markup("").join(Markup('<path class="{}" d="{}"/>').format(*each) for each in lines.items())


def _flag_words(flags: Sequence[Flag], times: TimeAxis) -> Markup:
    """Return the numbers over the lines; those that would stand on each other are said together."""
    return Markup("").join(
        Markup('<text class="flag" x="{}%" y="-4" text-anchor="middle">{}</text>').format(
            number(100 * place), said
        )
        for place, said in together([(times.place(flag.at), flag.number) for flag in _shown(flags, times)])
    )


def together(flags: Sequence[tuple[float, int]]) -> list[tuple[float, str]]:
    """Return where numbers stand along an axis of length 1, and what is said there.

    Examples
    --------
    >>> together([(0.1, 1), (0.11, 2), (0.12, 3), (0.5, 4)])
    [(0.11, '1–3'), (0.5, '4')]
    """
    groups: list[list[tuple[float, int]]] = []
    for flag in flags:
        groups.append([flag])
        while len(groups) > 1 and _touch(groups[-2], groups[-1]):
            last = groups.pop()
            groups[-1] += last
    return [(_middle(group), _numbers(group)) for group in groups]


def _touch(one: Sequence[tuple[float, int]], other: Sequence[tuple[float, int]]) -> bool:
    characters = len(_numbers(one)) + len(_numbers(other))
    return _middle(other) - _middle(one) < _CHARACTER * (characters / 2 + 1)


def _numbers(group: Sequence[tuple[float, int]]) -> str:
    return str(group[0][1]) if len(group) == 1 else f"{group[0][1]}–{group[-1][1]}"


def _middle(group: Sequence[tuple[float, int]]) -> float:
    return round((group[0][0] + group[-1][0]) / 2, 6)


def _share_words(shares: ShareAxis) -> Markup:
    return Markup("").join(
        Markup('<text x="-6" y="{}" dy=".35em" text-anchor="end">{}</text>').format(
            number(160 - 160 * shares.place(tick)), f"{100 * tick:g}%"
        )
        for tick in shares.ticks
    )


def _time_words(times: TimeAxis) -> Markup:
    return Markup("").join(
        Markup('<text x="{}%" y="176" text-anchor="{}">{}</text>').format(
            number(100 * times.place(tick)), _anchor(times.place(tick)), times.said(tick)
        )
        for tick in times.ticks
    )


def _hovers(name: str, spots: Sequence[Spot], times: TimeAxis) -> Markup:
    """Return what is said when a pointer rests on a stretch of time."""
    return Markup("").join(
        Markup('<rect class="hover" x="{}%" width="{}%" y="0" height="160"><title>{}</title></rect>').format(
            number(100 * times.place(spot.start)),
            number(100 * (times.place(spot.end) - times.place(spot.start))),
            f"{utc(spot.start)} to {utc(spot.end)}\n{spot.found.said if spot.found else name}\n{spot.n}",
        )
        for spot in spots
    )


def _shown(flags: Sequence[Flag], times: TimeAxis) -> list[Flag]:
    return [flag for flag in flags if 0 <= times.place(flag.at) <= 1]


def _anchor(place: float) -> str:
    return "start" if place < 0.05 else "end" if place > 0.95 else "middle"


def _along(times: TimeAxis, at: datetime) -> float:
    return _WIDTH * times.place(at)


def _up(shares: ShareAxis, share: float) -> float:
    return _HEIGHT * (1 - shares.place(share))
