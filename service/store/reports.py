"""Reports in the store: the values of each comparison, from which its pages are made again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, select

from service.decisions import DriftReport
from service.store.engine import add_row
from service.store.loop_json import to_json, values_from_json
from service.store.tables import from_us, to_us
from service.store.tables import reports as kept


def add_report(connection: Connection, report: DriftReport) -> DriftReport:
    """Keep a report, and return it with the id that it was given; the one that it came with is not looked at.

    Raises
    ------
    ValueError
        If its columns do not hold JSON values.
    """
    row = {
        "model": report.model,
        "version": report.version,
        "at_us": to_us(report.at),
        "start_us": to_us(report.start),
        "end_us": to_us(report.end),
        "reference_rows": report.reference_rows,
        "current_rows": report.current_rows,
        "columns": to_json(report.columns),
        "error": report.error,
    }
    id_ = add_row(connection, kept, row)
    return replace(report, id=id_)


def reports(
    connection: Connection, model: str, *, before: int | None = None, limit: int = 50
) -> list[DriftReport]:
    """Return a model's last reports, newest first; those with lower ids than ``before``, if given."""
    query = select(kept).where(kept.c.model == model).order_by(kept.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(kept.c.id < before)
    return [_to_report(row) for row in connection.execute(query)]


def report(connection: Connection, report_id: int) -> DriftReport | None:
    """Return the report of an id; None where there is none."""
    row = connection.execute(select(kept).where(kept.c.id == report_id)).first()
    return None if row is None else _to_report(row)


def _to_report(row: Row[Any]) -> DriftReport:
    values = row._mapping
    return DriftReport(
        id=row.id,
        model=row.model,
        version=row.version,
        at=from_us(row.at_us),
        start=from_us(row.start_us),
        end=from_us(row.end_us),
        reference_rows=row.reference_rows,
        current_rows=row.current_rows,
        columns=tuple(values_from_json(values[kept.c.columns])),
        error=row.error,
    )
