"""A decision of the gate as a table, for terminals and logs."""

from __future__ import annotations

from service.decisions import Decision, SliceDecision
from service.monitor.gate import points

_HEAD = ("slice", "rows", "champion", "candidate", "difference", "interval", "outcome", "reason")
_RIGHT = 6
"""How many columns are figures, after the first; they are flush right."""


def table(decision: Decision) -> str:
    """Return what was decided and why, then a line per slice; protected slices carry a star.

    Examples
    --------
    >>> from service.decisions import Pairs
    >>> from service.monitor.gate import decide
    >>> rows = [Pairs("__all__", 2000, 1800, 40, 44)]
    >>> print(table(decide(rows, set(), margin=0.02, minimum_rows=50)).splitlines()[2].split()[:8])
    ['slice', 'rows', 'champion', 'candidate', 'difference', 'interval', 'outcome', 'reason']
    """
    lines = [_HEAD, *(_cells(each) for each in decision.slices)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    said = [decision.outcome, *(f"- {reason}" for reason in decision.reasons)]
    return "\n".join([*said, *(_line(cells, widths) for cells in lines)])


def _cells(judged: SliceDecision) -> tuple[str, ...]:
    pairs = judged.pairs
    return (
        f"{pairs.slice} *" if judged.protected else pairs.slice,
        f"{pairs.n:,}",
        _percent(pairs.champion.value),
        _percent(pairs.candidate.value),
        points(judged.difference),
        f"{points(judged.lower)} to {points(judged.upper)}",
        judged.outcome,
        judged.reason,
    )


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    placed = [
        cell.rjust(width) if 0 < column < _RIGHT else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(placed).rstrip()


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.1f} %"
