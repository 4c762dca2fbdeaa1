"""Tables of the store, within the common subset of SQLite and PostgreSQL.

Times are microseconds since 1970 in UTC, which both databases compare exactly; bitmaps, probabilities and
counts are bytes; values that are read as a whole are JSON. Rows of ``predictions``, ``label_events``,
``first_labels`` and ``audit`` are only ever added; retention deletes the oldest of the first three. Until then
``label_current`` and ``blocks`` can be rebuilt from the first two; the states of alarms and runs exist here alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from struct import Struct
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Row,
    Table,
    Text,
    UniqueConstraint,
)

from service.decisions import ACTIVE
from service.events import BlockCounts, Prediction
from service.monitor.block_counts import decompress

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

# Names that a later migration can refer to, the same on every database.
CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

metadata = MetaData(naming_convention=CONVENTION)


class Bytes(LargeBinary):
    """Bytes without conversion: every driver accepts them, and a wrapper around each value slows down writing."""

    def bind_processor(self, dialect: Dialect) -> None:
        """Disable the conversion."""


# SQLite numbers rows only if the type is spelled INTEGER, which holds 64 bits there.
RowNumber = BigInteger().with_variant(Integer(), "sqlite")


def _required(kind: Any, *names: str) -> list[Column[Any]]:
    return [Column(name, kind, nullable=False) for name in names]


def _key_columns(kind: Any, *names: str) -> list[Column[Any]]:
    return [Column(name, kind, autoincrement=False) for name in names]


function_sets = Table(
    "function_sets",
    metadata,
    Column("hash", Text, primary_key=True),
    *_required(Text, "names", "fingerprints"),
    *_required(BigInteger, "at_us"),
    Column("votes", Text, nullable=False, server_default="[]"),
)

predictions = Table(
    "predictions",
    metadata,
    Column("row", RowNumber, primary_key=True, autoincrement=True),
    *_required(Text, "model", "id"),
    *_required(BigInteger, "version"),
    Column("set_hash", Text, ForeignKey("function_sets.hash"), nullable=False),
    *_required(BigInteger, "at_us"),
    *_required(Text, "label"),
    Column("probabilities", Bytes),
    *_required(Bytes, "member", "unknown"),
    Column("features", Text),
    *_required(BigInteger, "content_hash"),
    *_required(Text, "source"),
    Column("disagreement", Bytes),
    UniqueConstraint("model", "id"),
    Index(None, "model", "at_us"),
)

label_events = Table(
    "label_events",
    metadata,
    Column("row", RowNumber, primary_key=True, autoincrement=True),
    *_required(Text, "model", "prediction_id"),
    *_required(BigInteger, "observed_us"),
    *_required(Text, "labeller", "label"),
    *_required(BigInteger, "received_us"),
    Column("idempotency_key", Text),
    *_required(Text, "outcome"),
    UniqueConstraint("model", "prediction_id", "observed_us", "labeller", "label", name="uq_label_events_statement"),
    UniqueConstraint("model", "idempotency_key"),
)

label_current = Table(
    "label_current",
    metadata,
    Column("prediction_row", RowNumber, ForeignKey(predictions.c.row), autoincrement=False),
    *_required(Text, "label"),
    *_required(BigInteger, "observed_us", "received_us"),
    PrimaryKeyConstraint("prediction_row"),
)

pending_labels = Table(
    "pending_labels",
    metadata,
    *_key_columns(Text, "model", "prediction_id"),
    *_required(BigInteger, "received_us"),
    PrimaryKeyConstraint("model", "prediction_id"),
    Index(None, "received_us"),
)

blocks = Table(
    "blocks",
    metadata,
    *_key_columns(Text, "model"),
    *_key_columns(BigInteger, "version"),
    *_key_columns(Text, "set_hash"),
    *_key_columns(BigInteger, "start_us", "seconds"),
    *_required(Bytes, "counts"),
    *_required(BigInteger, "revision"),
    PrimaryKeyConstraint("model", "version", "start_us", "seconds", "set_hash"),
)

dirty_blocks = Table(
    "dirty_blocks",
    metadata,
    *_key_columns(Text, "model"),
    *_key_columns(BigInteger, "version"),
    *_key_columns(Text, "set_hash"),
    *_key_columns(BigInteger, "start_us"),
    *_required(Text, "mark"),
    PrimaryKeyConstraint("model", "version", "set_hash", "start_us"),
)

# In order of arrival: a correction does not change what the drift detector has seen.
first_labels = Table(
    "first_labels",
    metadata,
    Column("seq", RowNumber, primary_key=True, autoincrement=True),
    Column("prediction_row", RowNumber, ForeignKey(predictions.c.row), nullable=False),
    *_required(Text, "model"),
    *_required(BigInteger, "version", "at_us"),
    *_required(Text, "label"),
    UniqueConstraint("prediction_row"),
    Index(None, "model", "seq"),
)

alarms = Table(
    "alarms",
    metadata,
    Column("id", RowNumber, primary_key=True, autoincrement=True),
    *_required(Text, "model"),
    *_required(BigInteger, "version"),
    *_required(Text, "slice", "kind"),
    *_required(BigInteger, "at_us"),
    *_required(Text, "drift", "state"),
    Column("acknowledged_us", BigInteger),
    *_required(Text, "acknowledged_by", "note"),
    Column("resolved_us", BigInteger),
    *_required(Text, "resolution"),
    Column("accepted", Text),
    Column("incident", BigInteger),
    Column("place", BigInteger, nullable=False, server_default="0"),
    Column("moved", Text, nullable=False, server_default=""),
    Index(None, "incident"),
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", RowNumber, primary_key=True, autoincrement=True),
    *_required(Text, "model"),
    Column("acknowledged_us", BigInteger),
    *_required(Text, "acknowledged_by", "note"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", RowNumber, primary_key=True, autoincrement=True),
    *_required(Text, "model", "state", "trigger", "reason"),
    *_required(BigInteger, "opened_us", "updated_us"),
    *_required(Text, "alarms", "slices"),
    Column("since_us", BigInteger),
    *_required(BigInteger, "attempts"),
    Column("champion", BigInteger),
    Column("candidate", BigInteger),
    Column("data", Text),
    Column("decision", Text),
    *_required(Text, "outcome"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", RowNumber, primary_key=True, autoincrement=True),
    *_required(BigInteger, "at_us"),
    *_required(Text, "actor", "action", "subject", "detail"),
)

reports = Table(
    "reports",
    metadata,
    Column("id", RowNumber, primary_key=True, autoincrement=True),
    *_required(Text, "model"),
    *_required(BigInteger, "version", "at_us", "start_us", "end_us", "reference_rows", "current_rows"),
    *_required(Text, "columns", "error"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("name", Text, primary_key=True),
    *_required(BigInteger, "at_us"),
    *_required(Bytes, "state"),
)

# One row of random text: another file at the same place has another.
store_identity = Table("store_identity", metadata, Column("id", Text, primary_key=True))

UNRESOLVED = alarms.c.state.in_(("open", "acknowledged"))
ACTIVE_RUN = runs.c.state.in_(ACTIVE)

Index(
    "uq_alarms_unresolved",
    alarms.c.model,
    alarms.c.slice,
    alarms.c.kind,
    unique=True,
    sqlite_where=UNRESOLVED,
    postgresql_where=UNRESOLVED,
)
Index("uq_runs_active", runs.c.model, unique=True, sqlite_where=ACTIVE_RUN, postgresql_where=ACTIVE_RUN)

SECOND_US = 1_000_000
CHUNK_ROWS = 1000  # values in one IN (...), which every database accepts

PREDICTION_COLUMNS = tuple(column for column in predictions.c if column.name != "row")
BLOCK_COLUMNS = tuple(blocks.c[name] for name in ("counts", "model", "version", "set_hash", "start_us", "seconds"))

T = TypeVar("T")


def to_us(at: datetime) -> int:
    """Return a moment as microseconds since 1970. Raises ValueError without a time zone.

    >>> to_us(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    if at.tzinfo is None:
        raise ValueError(f"the time {at.isoformat()} has no time zone: give it in UTC")
    return (at - EPOCH) // MICROSECOND


def from_us(at_us: int) -> datetime:
    """Return the moment, in UTC, of microseconds since 1970.

    >>> from_us(1_000_000).isoformat()
    '1970-01-01T00:00:01+00:00'
    """
    return EPOCH + at_us * MICROSECOND


def kept_since_name(model: str) -> str:
    """Return the name of the checkpoint whose time is the start of a model's rows, once some were deleted.

    >>> kept_since_name("spam")
    'kept_since:spam'
    """
    return f"kept_since:{model}"


def chunks(values: Iterable[T], rows: int = CHUNK_ROWS) -> Iterator[list[T]]:
    """Yield the values in lists of at most this length.

    >>> list(chunks("abc", 2))
    [['a', 'b'], ['c']]
    """
    source = iter(values)
    while part := list(islice(source, rows)):
        yield part


def to_row(prediction: Prediction) -> tuple[Any, ...]:
    """Return the values of a prediction in the order of ``PREDICTION_COLUMNS``."""
    p = prediction
    packed = None if p.probabilities is None else _doubles(len(p.probabilities)).pack(*p.probabilities)
    return (
        p.model,
        p.id,
        p.version,
        p.set_hash,
        to_us(p.at),
        p.label,
        packed,
        p.member,
        p.unknown,
        p.features,
        p.content_hash,
        p.source,
        p.disagreement,
    )


def to_prediction(row: Sequence[Any] | Row[Any]) -> Prediction:
    """Return the prediction of a row of ``PREDICTION_COLUMNS``."""
    model, id_, version, set_hash, at_us, label, packed, *rest = row[:13]
    return Prediction(id_, model, version, set_hash, from_us(at_us), label, to_probabilities(packed), *rest)


def to_probabilities(packed: bytes | None) -> tuple[float, ...] | None:
    """Return the probabilities in a stored value."""
    return None if packed is None else _doubles(len(packed) // 8).unpack(packed)


def to_confidence(packed: Sequence[bytes | None]) -> NDArray[np.float64]:
    """Return the greatest probability in N stored values, float64[N]; NaN without probabilities.

    >>> to_confidence([_doubles(2).pack(0.25, 0.75), None, b""]).tolist()
    [0.75, nan, nan]
    """
    confidence = np.full(len(packed), np.nan)
    lengths = np.array([len(each or b"") for each in packed], np.intp)
    for length in np.unique(lengths[lengths > 0]).tolist():  # one, as a rule
        rows = np.flatnonzero(lengths == length)
        values = np.frombuffer(b"".join(packed[row] or b"" for row in rows.tolist()), "<f8")
        confidence[rows] = values.reshape(len(rows), -1).max(axis=1)
    return confidence


def to_block(row: Sequence[Any]) -> BlockCounts:
    """Return the block of a row of ``BLOCK_COLUMNS``."""
    counts, model, version, set_hash, start_us, seconds = row
    return decompress(counts, model, version, set_hash, from_us(start_us), seconds)


@lru_cache
def _doubles(count: int) -> Struct:
    return Struct(f"<{count}d")
