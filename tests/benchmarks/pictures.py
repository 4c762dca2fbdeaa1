"""Pictures of the results as SVG, without a library of plots: dots on a logarithmic axis, and small lines over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#d1242f", "#1f6feb", "#1a7f37", "#9a6700", "#8250df", "#57606a", "#bf3989", "#0a7ea4")
_LEFT, _RIGHT, _STEP = 150, 44, 34
_STYLE = "text{font:12px system-ui,sans-serif;fill:#1f2328}.small{font-size:11px}.title{font-weight:600;font-size:13px}"


def dot_plot(
    title: str,
    rows: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    ticks: Mapping[float, str],
    width: int = 860,
) -> str:
    """Return dots of each series in each row, at positive values on a logarithmic axis from the first to the last tick.

    The first series is filled and drawn last; None is no dot, and dots beyond the axis are at its end.
    """
    low, high = math.log(min(ticks)), math.log(max(ticks))

    def x(value: float) -> str:
        share = (math.log(value) - low) / (high - low)
        return f"{_LEFT + (width - _LEFT - _RIGHT) * min(max(share, 0.0), 1.0):.1f}"

    top, bottom = 62, 62 + _STEP * len(rows)
    parts = [f'<text class="title" x="8" y="18">{escape(title)}</text>', _legend(list(series), width)]
    for k, row in enumerate(rows):
        y = top + _STEP * k + _STEP // 2
        if k % 2:
            box = f'x="{_LEFT}" y="{top + _STEP * k}" width="{width - _LEFT - _RIGHT}" height="{_STEP}"'
            parts.append(f'<rect {box} fill="#f6f8fa"/>')
        parts.append(f'<text x="{_LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(row)}</text>')
    for value, text in ticks.items():
        parts.append(f'<path d="M{x(value)} {top}V{bottom}" stroke="#d0d7de"/>')
        parts.append(f'<text class="small" x="{x(value)}" y="{bottom + 16}" text-anchor="middle">{escape(text)}</text>')
    for number, values in reversed(list(enumerate(series.values()))):
        fill = COLOURS[number] if number == 0 else "none"
        lane = (number + 1) * _STEP / (len(series) + 1)  # of its own, so that equal values do not hide each other
        for k, value in enumerate(values):
            if value is not None:
                y = top + _STEP * k + lane
                parts.append(
                    f'<circle cx="{x(value)}" cy="{y:.1f}" r="3" fill="{fill}" stroke="{COLOURS[number]}" '
                    'stroke-width="2"/>'
                )
    return _picture(title, width, bottom + 26, parts)


def _legend(names: Sequence[str], width: int) -> str:
    free = (width - 16 - 7 * sum(map(len, names))) / len(names)
    parts, place = [], 14.0
    for number, name in enumerate(names):
        fill = COLOURS[number] if number == 0 else "none"
        parts.append(
            f'<circle cx="{place:.0f}" cy="38" r="4.5" fill="{fill}" stroke="{COLOURS[number]}" stroke-width="2"/>'
            f'<text class="small" x="{place + 9:.0f}" y="42">{escape(name)}</text>'
        )
        place += 7 * len(name) + free
    return "".join(parts)


def line_panels(
    title: str,
    panels: Mapping[str, Sequence[float]],
    ticks: Mapping[int, str],
    marks: Mapping[str, Sequence[int]],
    learned: int,
    dots: Mapping[str, Sequence[int]] | None = None,
    columns: int = 3,
    width: int = 1080,
) -> str:
    """Return small lines over the same steps of time, each from 0 to its highest value.

    Parameters
    ----------
    panels
        Values of each panel.
    ticks
        Steps with a label, below the lowest panels.
    marks
        Steps of each panel at which a line is drawn.
    learned
        Number of first steps, which are shaded.
    dots
        Steps of each panel that get a dot at the top.
    """
    height, gap = 74, 16
    panel_width = (width - gap) // columns - gap
    steps = max(len(values) for values in panels.values())
    parts = [f'<text class="title" x="{gap}" y="18">{escape(title)}</text>']
    for k, (name, values) in enumerate(panels.items()):
        left, top = gap + (k % columns) * (panel_width + gap), 50 + (k // columns) * (height + 28)

        def x(step: float, left: int = left) -> str:
            return f"{left + panel_width * step / (steps - 1):.1f}"

        highest = max(*values, 1e-9)
        line = "L".join(f"{x(i)} {top + height * (1 - value / highest):.1f}" for i, value in enumerate(values))
        parts.append(f'<rect x="{left}" y="{top}" width="{panel_width}" height="{height}" fill="#f6f8fa"/>')
        shaded = panel_width * learned / (steps - 1)
        parts.append(f'<rect x="{left}" y="{top}" width="{shaded:.1f}" height="{height}" fill="#ddf4ff"/>')
        parts.append(f'<text class="small" x="{left}" y="{top - 6}">{escape(name)}</text>')
        parts.append(
            f'<text class="small" x="{left + panel_width}" y="{top - 6}" text-anchor="end">up to {highest:.1%}</text>'
        )
        for step in marks.get(name, ()):
            place = f"M{x(step)} {top}V{top + height}"
            parts.append(f'<path d="{place}" stroke="#d1242f" stroke-width="1.5" stroke-dasharray="4 2"/>')
        parts.append(f'<path d="M{line}" fill="none" stroke="#1f2328" stroke-width="1.2"/>')
        for step in (dots or {}).get(name, ()):
            parts.append(f'<circle cx="{x(step)}" cy="{top + 5}" r="3" fill="#1f6feb"/>')
        if k + columns >= len(panels):
            for step, text in ticks.items():
                parts.append(
                    f'<text class="small" x="{x(step)}" y="{top + height + 14}" text-anchor="middle">'
                    f"{escape(text)}</text>"
                )
    bottom = 50 + math.ceil(len(panels) / columns) * (height + 28)
    return _picture(title, width, bottom, parts)


def _picture(title: str, width: int, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}"><style>{_STYLE}</style>'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )
