"""Retention: labels of ids that never came, and predictions beyond their age, deleted in small parts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, func, select

from service.monitor.windows import BLOCK_SECONDS, floor_to
from service.store.engine import insert_into
from service.store.queries import kept_since
from service.store.runs import active_run
from service.store.tables import (
    checkpoints,
    chunks,
    dirty_blocks,
    first_labels,
    from_us,
    kept_since_name,
    label_current,
    label_events,
    pending_labels,
    predictions,
    to_us,
)


def expire_labels(connection: Connection, before: datetime, limit: int) -> int:
    """Delete labels that arrived before a moment and whose predictions never did.

    Returns the number of their ids, at most ``limit``, oldest first. A prediction that arrives later is unlabelled.
    """
    c, e = pending_labels.c, label_events.c
    oldest = select(c.model, c.prediction_id).where(c.received_us < to_us(before)).order_by(c.received_us).limit(limit)
    by_model: dict[str, list[str]] = {}
    for model, id_ in connection.execute(oldest):
        by_model.setdefault(model, []).append(id_)
    for model, ids in by_model.items():
        for part in chunks(ids):
            connection.execute(delete(label_events).where(e.model == model, e.prediction_id.in_(part)))
            connection.execute(delete(pending_labels).where(c.model == model, c.prediction_id.in_(part)))
    return sum(map(len, by_model.values()))


def count_pending(connection: Connection) -> int:
    """Return the number of labelled ids whose predictions have not arrived."""
    return connection.scalar(select(func.count()).select_from(pending_labels)) or 0


def deletable_before(connection: Connection, model: str, before: datetime, fed_until: datetime) -> datetime:
    """Return the moment, a full hour, before which rows can be deleted; at most ``before``.

    Rows that the detectors have not read, rows in blocks that wait for a recount, and rows of an unfinished
    retraining run stay. Blocks are never counted from a part of their rows, and none is longer than an hour.

    Parameters
    ----------
    model
        Name of the model.
    before
        Rows of this time or later stay.
    fed_until
        End of the rows that the detectors have read.
    """
    d = dirty_blocks.c
    limits = [before, fed_until]
    dirty_us = connection.scalar(select(func.min(d.start_us)).where(d.model == model))
    if dirty_us is not None:
        limits.append(from_us(dirty_us))
    if (run := active_run(connection, model)) is not None:
        limits.append(min(run.opened_at, run.since or run.opened_at))
    return floor_to(min(limits), BLOCK_SECONDS[-1])


def delete_predictions(
    connection: Connection, model: str, before: datetime, fed_until: datetime, fed_seq: int, limit: int
) -> int:
    """Delete the oldest predictions with their labels and features, and return their number.

    Counts stay: blocks of deleted rows are final, and labels that would change them no longer count.

    Parameters
    ----------
    model, before, fed_until
        As for ``deletable_before``.
    fed_seq
        Number of the last first label that the detectors have read; predictions of later ones stay.
    limit
        Maximum number of rows.
    """
    before = deletable_before(connection, model, before, fed_until)
    p, f, e = predictions.c, first_labels.c, label_events.c
    # SQLite numbers the next row after the last one: without the last, a number would be used twice, of a row or label.
    last = connection.scalar(select(func.max(f.seq))) or 0
    waiting = select(f.prediction_row).where(f.model == model, f.seq > min(fed_seq, last - 1))
    oldest = (
        select(p.row, p.id)
        .where(p.model == model, p.at_us < to_us(before), p.row.not_in(waiting))
        .where(p.row < select(func.max(p.row)).scalar_subquery())
        .order_by(p.at_us)
        .limit(limit)
    )
    found = connection.execute(oldest).all()
    if found and (kept_since(connection, model) or before) <= before:
        insert = insert_into(connection, checkpoints)
        values = {"name": kept_since_name(model), "at_us": to_us(before), "state": b""}
        moved = insert.on_conflict_do_update(index_elements=[checkpoints.c.name], set_={"at_us": insert.excluded.at_us})
        connection.execute(moved, values)
    for part in chunks(found):
        rows, ids = [row.row for row in part], [row.id for row in part]
        connection.execute(delete(label_current).where(label_current.c.prediction_row.in_(rows)))
        connection.execute(delete(first_labels).where(f.prediction_row.in_(rows)))
        connection.execute(delete(label_events).where(e.model == model, e.prediction_id.in_(ids)))
        connection.execute(delete(predictions).where(p.row.in_(rows)))
    return len(found)
