"""Drift reports in the store: the values from which their pages are rendered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, select

from service.decisions import DriftReport
from service.store.engine import add_row
from service.store.json_values import to_json, values_from_json
from service.store.tables import from_us, to_us
from service.store.tables import reports as table


def add_report(connection: Connection, report: DriftReport) -> DriftReport:
    """Store a report, and return it with its new id. Raises ValueError if its columns are not JSON values."""
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
    return replace(report, id=add_row(connection, table, row))


def reports(connection: Connection, model: str, *, before: int | None = None, limit: int = 50) -> Iterator[DriftReport]:
    """Yield a model's last reports, newest first, optionally only those with ids below ``before``."""
    query = select(table).where(table.c.model == model).order_by(table.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(table.c.id < before)
    yield from map(_to_report, connection.execute(query))


def report(connection: Connection, report_id: int) -> DriftReport | None:
    """Return a report by id."""
    row = connection.execute(select(table).where(table.c.id == report_id)).first()
    return None if row is None else _to_report(row)


def _to_report(row: Row[Any]) -> DriftReport:
    return DriftReport(
        id=row.id,
        model=row.model,
        version=row.version,
        at=from_us(row.at_us),
        start=from_us(row.start_us),
        end=from_us(row.end_us),
        reference_rows=row.reference_rows,
        current_rows=row.current_rows,
        columns=tuple(values_from_json(row._mapping[table.c.columns])),
        error=row.error,
    )
