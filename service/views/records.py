"""Where a page of records ended, as text that the next question says again."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection

from service.errors import MisuseError
from service.events import FunctionSetVersion, Prediction
from service.serving.deployment import Deployment, DeploymentState
from service.store import queries
from service.store.engine import Store
from service.store.queries import Cursor
from service.store.tables import from_us, to_us
from service.views.slices import UnknownSlice
from sfs.function import ALL_ROWS, NO_SLICE

CURSOR = "^[0-9]{1,16}-[0-9]{1,18}$"
"""What every cursor looks like; both numbers are such that a time and a row can have them."""


def to_cursor(place: Cursor) -> str:
    """Return a place in the log as text.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> to_cursor(Cursor(datetime(2026, 5, 1, tzinfo=UTC), 7))
    '1777593600000000-7'
    """
    return f"{to_us(place.at)}-{place.row}"


def from_cursor(text: str) -> Cursor:
    """Return the place that a cursor says.

    Raises
    ------
    MisuseError
        If it is none.
    """
    if not re.fullmatch(CURSOR, text):
        raise MisuseError(f"{text!r} is no cursor: give the 'next' of a page as it was")
    at_us, _, row = text.partition("-")
    return Cursor(from_us(int(at_us)), int(row))


RecordKind: TypeAlias = Literal["all", "errors", "correct", "unlabelled", "unknown"]


@dataclass(frozen=True, slots=True)
class RecordView:
    """One prediction, and what is known of it.

    Parameters
    ----------
    id, at, version, predicted
        The answer.
    label
        The true class; None while there is no label.
    probabilities
        By class; None where the model gave none, or its classes are not those in force.
    features
        The record, as far as it was kept.
    slices, unknown_slices
        Those it is in, and those of which it is not known, by the functions of its time.
    """

    id: str
    at: datetime
    version: int
    predicted: str
    label: str | None
    probabilities: Mapping[str, float] | None
    features: Mapping[str, Any] | None
    slices: tuple[str, ...]
    unknown_slices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecordsView:
    """Records, newest first, and counts over all that were looked at.

    Parameters
    ----------
    records
        As many as were asked for, or fewer.
    buckets
        Labelled members by (true, predicted) class, among the rows that were looked at.
    scanned
        How many rows were looked at.
    complete
        Whether these were all rows before the given time; otherwise older ones were not looked at.
    next
        The cursor from which the next page goes on; None where no further record can be.
    """

    records: tuple[RecordView, ...]
    buckets: Mapping[tuple[str, str], int]
    scanned: int
    complete: bool
    next: str | None


SCANNED_ROWS = 20_000
"""Rows that are looked at, at most."""

BUCKET_ROWS = 2_000
"""Rows that are looked at for the counts by class, even where enough records were found earlier."""

_FOREVER = datetime.max.replace(tzinfo=UTC)
Membership: TypeAlias = Literal["in", "out", "unknown"]


def records(
    store: Store,
    deployment: Deployment,
    name: str,
    *,
    kind: RecordKind = "all",
    limit: int = 50,
    before: datetime | None = None,
    cursor: str | None = None,
    complement: bool = False,
) -> RecordsView:
    """Return the last records of a slice, of any model version, whose function was what it is now.

    Parameters
    ----------
    name
        A slice, ``__all__`` or ``__none__``.
    kind
        Members by how they were predicted; or ``unknown``, the rows of which the slice is not known.
    limit
        How many records.
    before
        Only records that were answered before.
    cursor
        Go on where another page ended, in place of ``before``. Records of one time are cut apart rightly.
    complement
        Take the rows that are known to be outside the slice for its members.

    Raises
    ------
    MisuseError
        If the cursor is none.
    UnknownSlice
        If no slice has the name.
    """
    state = deployment.state
    membership = _membership_of(state, name)
    inside: Membership = "out" if complement else "in"
    end = from_cursor(cursor) if cursor else before or _FOREVER
    shown: list[RecordView] = []
    buckets: Counter[tuple[str, str]] = Counter()
    scanned, complete, left, reached = 0, True, False, None
    with store.read() as connection:
        set_of = _sets(connection)
        for record in queries.recent_records(connection, state.model, before=end, limit=SCANNED_ROWS + 1):
            if scanned == SCANNED_ROWS or (len(shown) >= limit and scanned >= BUCKET_ROWS):
                complete = False
                break
            scanned += 1
            made = set_of(record.prediction.set_hash)
            found = membership(record.prediction, made)
            if found == inside and record.label is not None:
                buckets[record.label, record.prediction.label] += 1
            wanted = _is_wanted(record, kind, found, inside)
            left = left or (wanted and len(shown) >= limit)
            if not left:
                reached = record.cursor
                shown += [_view(record, made, state)] if wanted else []
    further = to_cursor(reached) if reached and (left or not complete) else None
    return RecordsView(tuple(shown), dict(buckets), scanned, complete, further)


def _sets(connection: Connection) -> Callable[[str], FunctionSetVersion]:
    known = {each.hash: each for each in queries.all_function_sets(connection)}
    return known.__getitem__


def _membership_of(
    state: DeploymentState, name: str
) -> Callable[[Prediction, FunctionSetVersion], Membership | None]:
    """Return what tells whether a row is in the slice; None where nobody asked the slice's function."""
    now = state.functions_version
    if name == ALL_ROWS:
        return lambda row, made: "in"
    if name == NO_SLICE:
        return _of_none(now)
    if name not in now.names:
        raise UnknownSlice(f"there is no slice {name!r}; the slices are listed under /v1/slices")
    wanted = (name, now.fingerprints[now.names.index(name)])

    places: dict[str, int | None] = {}

    def of_slice(row: Prediction, made: FunctionSetVersion) -> Membership | None:
        if made.hash not in places:
            columns = list(zip(made.names, made.fingerprints, strict=True))
            places[made.hash] = columns.index(wanted) if wanted in columns else None
        k = places[made.hash]
        if k is None:
            return None
        return "in" if _bit(row.member, k) else "unknown" if _bit(row.unknown, k) else "out"

    return of_slice


def _of_none(now: FunctionSetVersion) -> Callable[[Prediction, FunctionSetVersion], Membership | None]:
    """Return what tells whether no slice took a row in; None under another collection of slices."""
    slices_of: dict[str, int | None] = {}

    def of_none(row: Prediction, made: FunctionSetVersion) -> Membership | None:
        if made.hash not in slices_of:
            slices_of[made.hash] = _mask(made) if made.slices == now.slices else None
        slices = slices_of[made.hash]
        if slices is None:
            return None
        fired, doubtful = (int.from_bytes(bitmap, "little") & slices for bitmap in (row.member, row.unknown))
        return "unknown" if doubtful else "out" if fired else "in"

    return of_none


def _mask(made: FunctionSetVersion) -> int:
    """Return the bits of the functions that are no votes."""
    return sum(1 << k for k, name in enumerate(made.names) if name not in made.votes)


def _bit(bitmap: bytes, k: int) -> int:
    return bitmap[k >> 3] >> (k & 7) & 1


def _is_wanted(
    record: queries.PredictionRecord, kind: RecordKind, found: Membership | None, inside: Membership
) -> bool:
    if kind == "unknown" or found != inside:
        return kind == found
    right = None if record.label is None else record.label == record.prediction.label
    return kind == "all" or kind == {None: "unlabelled", True: "correct", False: "errors"}[right]


def _view(record: queries.PredictionRecord, made: FunctionSetVersion, state: DeploymentState) -> RecordView:
    row = record.prediction
    given = row.probabilities if row.version == state.version else None
    known = given is not None and len(given) == len(state.classes)
    return RecordView(
        id=row.id,
        at=row.at,
        version=row.version,
        predicted=row.label,
        label=record.label,
        probabilities=dict(zip(state.classes, given or (), strict=True)) if known else None,
        features=None if row.features is None else json.loads(row.features),
        slices=_names(row.member, made),
        unknown_slices=_names(row.unknown, made),
    )


def _names(bitmap: bytes, made: FunctionSetVersion) -> tuple[str, ...]:
    return tuple(name for k, name in enumerate(made.names) if _bit(bitmap, k))
