"""Audit log; entries are added in the transaction of the audited action and never changed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, insert, select

from service.decisions import AuditEntry
from service.store.json_values import to_json, values_from_json
from service.store.tables import audit, from_us, to_us

MONITOR = "monitor"
"""Actor of automatic actions."""


def record(connection: Connection, entry: AuditEntry) -> None:
    """Add an entry. Raises ValueError if its detail is not JSON, or its time has no time zone."""
    row = {
        "at_us": to_us(entry.at),
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "detail": to_json(entry.detail),
    }
    connection.execute(insert(audit), row)


def entries(connection: Connection, *, before: int | None = None, limit: int = 100) -> list[tuple[int, AuditEntry]]:
    """Return the last entries with their ids, newest first, optionally only those with ids below ``before``."""
    query = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(audit.c.id < before)
    return [(row.id, _to_entry(row)) for row in connection.execute(query)]


def entries_about(connection: Connection, subject: str, limit: int = 200) -> list[AuditEntry]:
    """Return the last entries about one subject, oldest first."""
    query = select(audit).where(audit.c.subject == subject).order_by(audit.c.id.desc()).limit(limit)
    return [_to_entry(row) for row in connection.execute(query)][::-1]


def _to_entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(from_us(row.at_us), row.actor, row.action, row.subject, values_from_json(row.detail))
