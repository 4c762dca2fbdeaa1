"""Prediction log: function sets, and every prediction once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from sqlalchemy import Connection, insert, null, select, update

from service.events import FunctionSetVersion, Prediction
from service.store.block_store import SeriesKey, mark_dirty
from service.store.engine import driver_of, insert_into, sql_of
from service.store.errors import StoreError
from service.store.queries import function_set
from service.store.tables import (
    PREDICTION_COLUMNS,
    blocks,
    chunks,
    function_sets,
    predictions,
    to_prediction,
    to_row,
    to_us,
)

# Earlier predictions are returned without their features: those of a thousand ids may take gigabytes.
_COLUMNS = [null().label(column.name) if column.name == "features" else column for column in PREDICTION_COLUMNS]
_INSERT, _, _VALUES = sql_of(insert(predictions), predictions).partition(" VALUES ")
_ROWS_OF_INSERT = 64


class LogResult(NamedTuple):
    """Outcome of a logged prediction.

    Parameters
    ----------
    prediction
        Prediction in the log under this id, from this request, or from an earlier one without its features.
    outcome
        ``stored``; ``repeated``: logged before with the same content, and the first prediction is returned;
        ``conflict``: the id belongs to other content, and nothing was written.
    """

    prediction: Prediction
    outcome: Literal["stored", "repeated", "conflict"]


def record_set(connection: Connection, functions: FunctionSetVersion) -> None:
    """Record a function set; a recorded one is not changed, except for its votes.

    A set from before votes were recorded gets them here, and its blocks are marked for a recount, because
    they change the meaning of "no slice fired".
    """
    known = function_set(connection, functions.hash)
    votes = json.dumps(functions.votes)
    if known is None:
        row = {
            "hash": functions.hash,
            "names": json.dumps(functions.names),
            "fingerprints": json.dumps(functions.fingerprints),
            "at_us": to_us(functions.at),
            "votes": votes,
        }
        connection.execute(insert_into(connection, function_sets).on_conflict_do_nothing(), row)
    elif known.votes != functions.votes:
        b = blocks.c
        connection.execute(update(function_sets).where(function_sets.c.hash == functions.hash).values(votes=votes))
        counted = select(b.model, b.version, b.set_hash, b.start_us).where(b.set_hash == functions.hash)
        mark_dirty(connection, [(SeriesKey(*row[:3]), row.start_us) for row in connection.execute(counted)])


def add_predictions(connection: Connection, given: Sequence[Prediction]) -> list[LogResult]:
    """Log predictions with new ids, mark their blocks for a recount, and return the outcomes.

    Raises StoreError if a function set was not recorded before its predictions.
    """
    first: dict[tuple[str, str], Prediction] = {}
    for row in given:
        first.setdefault((row.model, row.id), row)
    known: dict[tuple[str, str], Prediction] = {}
    driver = driver_of(connection)
    driver.execute("SAVEPOINT new_predictions")
    try:
        _insert(connection, first.values())
        all_new = True  # as usual
    except sqlite3.IntegrityError:
        driver.execute("ROLLBACK TO new_predictions")
        all_new = False
    driver.execute("RELEASE new_predictions")
    if not all_new:
        wanted = {row.set_hash for row in given}
        recorded = select(function_sets.c.hash).where(function_sets.c.hash.in_(wanted))
        if missing := wanted - set(connection.scalars(recorded)):
            raise StoreError(
                f"function set {min(missing)!r} is not in the store: record the set before its predictions"
            )
        by_model: dict[str, list[str]] = {}
        for model, id_ in first:
            by_model.setdefault(model, []).append(id_)
        for model, ids in by_model.items():
            query = select(*_COLUMNS).where(predictions.c.model == model)
            for part in chunks(ids):
                for logged in connection.execute(query.where(predictions.c.id.in_(part))):
                    known[model, logged.id] = to_prediction(logged)
        _insert(connection, [row for key, row in first.items() if key not in known])

    new = [row for key, row in first.items() if key not in known]
    written = {(SeriesKey(row.model, row.version, row.set_hash), row.at) for row in new}  # mostly a single one
    mark_dirty(connection, ((series, to_us(at)) for series, at in written))
    if all_new and len(first) == len(given):
        return [LogResult(row, "stored") for row in given]
    results, seen = [], set(known)
    for row in given:
        key = (row.model, row.id)
        if key not in seen:
            results.append(LogResult(row, "stored"))
        else:
            logged_row = known.get(key, first[key])
            is_same = logged_row.content_hash == row.content_hash
            results.append(LogResult(logged_row, "repeated" if is_same else "conflict"))
        seen.add(key)
    return results


def _insert(connection: Connection, rows: Collection[Prediction]) -> None:
    driver = driver_of(connection)
    for part in chunks(rows, _ROWS_OF_INSERT):
        # One statement for many rows: between two statements other threads may take the interpreter for 5 ms.
        driver.execute(_insert_of(len(part)), [value for row in part for value in to_row(row)])


@lru_cache
def _insert_of(rows: int) -> str:
    return f"{_INSERT} VALUES {', '.join([_VALUES] * rows)}"
