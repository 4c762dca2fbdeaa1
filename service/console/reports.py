"""The pages of drift reports: live traffic against the reference, column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.console.choices import ListChoices
from service.console.parts import Promises
from service.console.render import Frame, page
from service.decisions import DriftReport


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One report, and how many of its columns drifted; ``names`` are those."""

    report: DriftReport
    drifted: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ColumnRow:
    """What was said of one column; each is text, empty where the report does not say it."""

    column: str
    kind: str
    method: str
    threshold: str
    value: str
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
    said = {name: _said(values.get(name)) for name in ("column", "kind", "method", "threshold", "value")}
    return ColumnRow(**said, drifted=None if drifted is None else bool(drifted))


def _said(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
