"""Predictions as rows of the log, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from struct import Struct
from typing import Any, TypeVar

from sqlalchemy import Row

from service.events import Prediction
from service.store.tables import from_us, predictions, to_us

CHUNK_ROWS = 1000  # values in one IN (...); every database takes so many

PREDICTION_COLUMNS = tuple(c for c in predictions.c if c.name != "row")

T = TypeVar("T")


def chunks(values: Iterable[T], rows: int = CHUNK_ROWS) -> Iterator[list[T]]:
    """Yield the values, so many at a time.

    >>> list(chunks("abc", 2))
    [['a', 'b'], ['c']]
    """
    source = iter(values)
    while part := list(islice(source, rows)):
        yield part


def to_row(prediction: Prediction) -> dict[str, Any]:
    """Return the values of a prediction by column."""
    p = prediction
    return {
        "model": p.model,
        "id": p.id,
        "version": p.version,
        "set_hash": p.set_hash,
        "at_us": to_us(p.at),
        "label": p.label,
        "probabilities": None
        if p.probabilities is None
        else _floats(len(p.probabilities)).pack(*p.probabilities),
        "member": p.member,
        "unknown": p.unknown,
        "features": p.features,
        "content_hash": p.content_hash,
        "source": p.source,
    }


def to_prediction(row: Sequence[Any] | Row[Any]) -> Prediction:
    """Return the prediction that a row of ``PREDICTION_COLUMNS`` keeps."""
    model, id_, version, set_hash, at_us, label, packed, member, unknown, features, content, source = row[:12]
    probabilities = None if packed is None else _floats(len(packed) // 8).unpack(packed)
    return Prediction(
        id=id_,
        model=model,
        version=version,
        set_hash=set_hash,
        at=from_us(at_us),
        label=label,
        probabilities=probabilities,
        member=member,
        unknown=unknown,
        features=features,
        content_hash=content,
        source=source,
    )


def _floats(count: int) -> Struct:
    return Struct(f"<{count}d")  # Python keeps the last hundred that were made
