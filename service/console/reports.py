"""The pages of drift reports: live traffic against the reference, column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.console.choices import ListChoices
from service.console.parts import Promises
from service.console.render import Frame, page
from service.console.words import percent
from service.decisions import DriftReport

MOST_SHARES = 3
"""Values of a column whose shares are told."""


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One report, and how many of its columns drifted; ``names`` are those."""

    report: DriftReport
    drifted: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ColumnRow:
    """What was said of one column; each is text, empty where the report does not say it.

    ``moved`` is the mean, or the shares that moved most, in the reference and in the traffic.
    """

    column: str
    kind: str
    method: str
    threshold: str
    value: str
    moved: str
    error: str
    drifted: bool | None


def report_row(report: DriftReport) -> ReportRow:
    """Return a report as it is listed."""
    names = tuple(str(each.get("column")) for each in report.columns if each.get("drifted"))
    return ReportRow(report, len(names), names)


def column_rows(report: DriftReport) -> list[ColumnRow]:
    """Return the columns, those that drifted first."""
    made = [_column_row(each) for each in report.columns]
    return sorted(made, key=lambda each: (not each.drifted, each.column))


def reports(
    frame: Frame,
    model: str,
    choices: ListChoices,
    rows: Sequence[ReportRow],
    older: str,
    promises: Promises,
    now: datetime,
) -> str:
    """Return the page of all reports.

    Parameters
    ----------
    frame, model, choices
        What is around it, whose reports, and what the reader has chosen.
    rows, older
        The reports, newest first, and the address of those before; empty where there are none.
    promises
        How often one is made.
    now
        The time, UTC.
    """
    return page(
        "reports.html",
        frame,
        model=model,
        choices=choices,
        rows=rows,
        older=older,
        promises=promises,
        now=now,
    )


def report(frame: Frame, shown: DriftReport, now: datetime) -> str:
    """Return the page of one report."""
    return page(
        "report.html", frame, report=shown, row=report_row(shown), columns=column_rows(shown), now=now
    )


def _column_row(values: Mapping[str, Any]) -> ColumnRow:
    drifted = values.get("drifted")
    told = ("column", "kind", "method", "threshold", "value", "error")
    said = {name: _said(values.get(name)) for name in told}
    return ColumnRow(**said, moved=_moved(values), drifted=None if drifted is None else bool(drifted))


def _moved(values: Mapping[str, Any]) -> str:
    """Return what a column was in the reference and is in the traffic; empty where the report does not say it."""
    mean, shares = values.get("mean", ()), values.get("shares")
    if _is_pair(mean):
        return f"mean {_said(mean[0])} → {_said(mean[1])}"
    if not isinstance(shares, Mapping):
        return ""
    pairs = [(name, both) for name, both in shares.items() if _is_pair(both)][:MOST_SHARES]
    return ", ".join(f"{name} {percent(both[0])} → {percent(both[1])}" for name, both in pairs)


def _is_pair(both: Any) -> bool:
    return isinstance(both, list | tuple) and len(both) == 2 and all(isinstance(x, int | float) for x in both)


def _said(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
