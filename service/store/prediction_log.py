"""The prediction log: every answered record once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from service.events import Prediction
from service.store.dirty_blocks import BLOCK_US, SeriesKey, mark_dirty
from service.store.errors import StoreError
from service.store.labels import LabelRules, settle_pending
from service.store.tables import (
    PREDICTION_COLUMNS,
    chunks,
    function_sets,
    predictions,
    to_prediction,
    to_row,
    to_us,
)

Key = tuple[str, str]
"""Model and prediction id."""


@dataclass(frozen=True, slots=True)
class LogResult:
    """What became of a prediction.

    Parameters
    ----------
    prediction
        The one that stands in the log under this id, whoever wrote it.
    outcome
        ``stored`` now; ``repeated``: the same content was there already, and its answer stands;
        ``conflict``: the id is taken by other content, and nothing was written.
    """

    prediction: Prediction
    outcome: Literal["stored", "repeated", "conflict"]


def add_predictions(
    connection: Connection, given: Sequence[Prediction], rules: LabelRules
) -> list[LogResult]:
    """Write predictions whose ids are new, and say of each what stands in the log.

    Labels that were waiting for them are counted, and their blocks marked to be counted again.

    Raises
    ------
    StoreError
        If a function set was not recorded before its predictions.
    """
    first: dict[Key, Prediction] = {}
    for each in given:
        first.setdefault((each.model, each.id), each)
    known: dict[Key, Prediction] = {}
    if not _all_new(connection, first.values()):
        _refuse_unknown_sets(connection, first.values())
        known = _logged(connection, first)
        _insert(connection, [each for key, each in first.items() if key not in known])
    new = [each for key, each in first.items() if key not in known]
    touched = {(p.model, p.version, p.set_hash, to_us(p.at) // BLOCK_US) for p in new}
    mark_dirty(
        connection, ((SeriesKey(model, version, hash_), b * BLOCK_US) for model, version, hash_, b in touched)
    )
    settle_pending(connection, {(each.model, each.id) for each in new}, rules)
    return _outcomes(given, first, known)


def _outcomes(
    given: Sequence[Prediction], first: dict[Key, Prediction], known: dict[Key, Prediction]
) -> list[LogResult]:
    out, seen = [], set(known)
    for each in given:
        key = (each.model, each.id)
        standing = known.get(key, first[key])
        if key not in seen:
            out.append(LogResult(each, "stored"))
        elif standing.content_hash == each.content_hash:
            out.append(LogResult(standing, "repeated"))
        else:
            out.append(LogResult(standing, "conflict"))
        seen.add(key)
    return out


def _all_new(connection: Connection, rows: Collection[Prediction]) -> bool:
    """Write the rows if all of their ids are new, as is usual, and tell whether they were."""
    try:
        with connection.begin_nested():
            _insert(connection, rows)
    except IntegrityError:
        return False
    return True


def _insert(connection: Connection, rows: Collection[Prediction]) -> None:
    if rows:
        connection.execute(insert(predictions), [to_row(each) for each in rows])


def _logged(connection: Connection, keys: Iterable[Key]) -> dict[Key, Prediction]:
    by_model: dict[str, list[str]] = {}
    for model, id_ in keys:
        by_model.setdefault(model, []).append(id_)
    found = {}
    for model, ids in by_model.items():
        for part in chunks(ids):
            query = select(*PREDICTION_COLUMNS).where(
                predictions.c.model == model, predictions.c.id.in_(part)
            )
            found.update({(row.model, row.id): to_prediction(row) for row in connection.execute(query)})
    return found


def _refuse_unknown_sets(connection: Connection, rows: Iterable[Prediction]) -> None:
    wanted = {each.set_hash for each in rows}
    query = select(function_sets.c.hash).where(function_sets.c.hash.in_(wanted))
    if missing := wanted - set(connection.scalars(query)):
        raise StoreError(
            f"function set {min(missing)!r} is not in the store: record the set before its predictions"
        )
