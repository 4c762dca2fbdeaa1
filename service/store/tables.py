"""The tables of the store: what SQLite and PostgreSQL both have, and nothing else.

Times are microseconds since 1970 in UTC, which both databases compare exactly; bitmaps, probabilities and
counts are bytes; what is looked at as a whole is JSON. Rows of ``predictions``, ``label_events``,
``first_labels`` and ``audit`` are only ever added. Labels that count, and blocks, can be made again from the
first two; the states of alarms and runs stand here alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from struct import Struct
from typing import Any, TypeVar

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
from service.events import Prediction

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

# Names that a later migration can speak of, the same on every database.
CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

metadata = MetaData(naming_convention=CONVENTION)


class Bytes(LargeBinary):
    """Bytes, which every driver takes as they are; a wrapper around each value would slow down writing."""

    def bind_processor(self, dialect: Dialect) -> None:
        """Leave the values alone."""


# SQLite numbers rows by itself only where the type is spelled INTEGER, which holds 64 bits there.
RowNumber = BigInteger().with_variant(Integer(), "sqlite")

function_sets = Table(
    "function_sets",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("names", Text, nullable=False),
    Column("fingerprints", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("votes", Text, nullable=False, server_default="[]"),
)

predictions = Table(
    "predictions",
    metadata,
    Column("row", RowNumber, primary_key=True, autoincrement=True),
    Column("model", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("set_hash", Text, ForeignKey("function_sets.hash"), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("label", Text, nullable=False),
    Column("probabilities", Bytes),
    Column("member", Bytes, nullable=False),
    Column("unknown", Bytes, nullable=False),
    Column("features", Text),
    Column("content_hash", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    UniqueConstraint("model", "id"),
    Index(None, "model", "at_us"),
)

label_events = Table(
    "label_events",
    metadata,
    Column("row", RowNumber, primary_key=True, autoincrement=True),
    Column("model", Text, nullable=False),
    Column("prediction_id", Text, nullable=False),
    Column("observed_us", BigInteger, nullable=False),
    Column("labeller", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    Column("idempotency_key", Text),
    Column("outcome", Text, nullable=False),
    UniqueConstraint(
        "model", "prediction_id", "observed_us", "labeller", "label", name="uq_label_events_statement"
    ),
    UniqueConstraint("model", "idempotency_key"),
)

label_current = Table(
    "label_current",
    metadata,
    Column("prediction_row", RowNumber, ForeignKey(predictions.c.row), autoincrement=False),
    Column("label", Text, nullable=False),
    Column("observed_us", BigInteger, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("prediction_row"),
)

pending_labels = Table(
    "pending_labels",
    metadata,
    Column("model", Text),
    Column("prediction_id", Text),
    Column("received_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("model", "prediction_id"),
)

blocks = Table(
    "blocks",
    metadata,
    Column("model", Text),
    Column("version", BigInteger, autoincrement=False),
    Column("set_hash", Text),
    Column("start_us", BigInteger, autoincrement=False),
    Column("seconds", BigInteger, autoincrement=False),
    Column("counts", Bytes, nullable=False),
    Column("revision", BigInteger, nullable=False),
    PrimaryKeyConstraint("model", "version", "start_us", "seconds", "set_hash"),
)

dirty_blocks = Table(
    "dirty_blocks",
    metadata,
    Column("model", Text),
    Column("version", BigInteger, autoincrement=False),
    Column("set_hash", Text),
    Column("start_us", BigInteger, autoincrement=False),
    Column("mark", Text, nullable=False),
    PrimaryKeyConstraint("model", "version", "set_hash", "start_us"),
)

# In order of arrival: what the watch has seen is not rewritten by a correction.
first_labels = Table(
    "first_labels",
    metadata,
    Column("seq", RowNumber, primary_key=True, autoincrement=True),
    Column("prediction_row", RowNumber, ForeignKey(predictions.c.row), nullable=False),
    Column("model", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("label", Text, nullable=False),
    UniqueConstraint("prediction_row"),
    Index(None, "model", "seq"),
)

alarms = Table(
    "alarms",
    metadata,
    Column("id", RowNumber, primary_key=True, autoincrement=True),
    Column("model", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("slice", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("drift", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("acknowledged_us", BigInteger),
    Column("acknowledged_by", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("resolved_us", BigInteger),
    Column("resolution", Text, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", RowNumber, primary_key=True, autoincrement=True),
    Column("model", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("trigger", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("opened_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("alarms", Text, nullable=False),
    Column("slices", Text, nullable=False),
    Column("since_us", BigInteger),
    Column("attempts", BigInteger, nullable=False),
    Column("champion", BigInteger),
    Column("candidate", BigInteger),
    Column("data", Text),
    Column("decision", Text),
    Column("outcome", Text, nullable=False),
)

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

audit = Table(
    "audit",
    metadata,
    Column("id", RowNumber, primary_key=True, autoincrement=True),
    Column("at_us", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),
)

reports = Table(
    "reports",
    metadata,
    Column("id", RowNumber, primary_key=True, autoincrement=True),
    Column("model", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("reference_rows", BigInteger, nullable=False),
    Column("current_rows", BigInteger, nullable=False),
    Column("columns", Text, nullable=False),
    Column("error", Text, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("name", Text, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("state", Bytes, nullable=False),
)


def to_us(at: datetime) -> int:
    """Return a moment as microseconds since 1970.

    Raises
    ------
    ValueError
        If the moment has no time zone.

    >>> to_us(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    if at.tzinfo is None:
        raise ValueError(f"a time needs its zone, got {at.isoformat()}; give it in UTC")
    return (at - EPOCH) // MICROSECOND


def from_us(at_us: int) -> datetime:
    """Return the moment, in UTC, of microseconds since 1970.

    >>> from_us(1_000_000).isoformat()
    '1970-01-01T00:00:01+00:00'
    """
    return EPOCH + at_us * MICROSECOND


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
