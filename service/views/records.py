"""The latest records of a slice, page by page, and the confusion of its labelled ones."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal, TypeAlias

from service.errors import MisuseError
from service.events import FunctionSetVersion, Prediction
from service.serving.deployment import Deployment, DeploymentState
from service.store import queries
from service.store.engine import Store
from service.store.queries import Cursor
from service.store.tables import from_us, to_us
from service.views.slices import unknown_slice
from sfs.function import ALL_ROWS, NO_SLICE

RecordKind: TypeAlias = Literal["all", "errors", "correct", "unlabelled", "unknown"]
Membership: TypeAlias = Literal["in", "out", "unknown"]

CURSOR = "^[0-9]{1,16}-[0-9]{1,18}$"
"""Pattern of a cursor: a time in microseconds and a row, both in their valid ranges."""

SCANNED_ROWS = 20_000
"""Maximum number of rows that one page scans."""

BUCKET_ROWS = 2_000
"""Number of rows scanned for the counts by class, even if the page is full earlier."""

_FOREVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RecordView:
    """One prediction with its label.

    Parameters
    ----------
    id, at, version, predicted
        The prediction.
    label
        The true class; None if there is no label.
    probabilities
        By class; None if the model gave none, or if it is not of the active version.
    features
        Stored features of the record.
    slices, unknown_slices
        Slices of which it is a member, and of which its membership is unknown, by the functions of its time.
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
    """Records, newest first, and counts over all scanned rows.

    Parameters
    ----------
    records
        At most the requested number.
    buckets
        Number of labelled members by (true, predicted) class, among the scanned rows.
    scanned
        Number of scanned rows.
    complete
        Whether all rows before the given time were scanned.
    next
        Cursor of the next page; None if there are no more records.
    """

    records: tuple[RecordView, ...]
    buckets: Mapping[tuple[str, str], int]
    scanned: int
    complete: bool
    next: str | None


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
    """Return the place in the log of a cursor. Raises MisuseError if the text is not a cursor."""
    if not re.fullmatch(CURSOR, text):
        raise MisuseError(f"{text!r} is not a cursor: give 'next' of the previous page unchanged")
    at_us, _, row = text.partition("-")
    return Cursor(from_us(int(at_us)), int(row))


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
    """Return the latest records of a slice, of any model version, by the live version of its function.

    Parameters
    ----------
    name
        A slice, ``__all__`` or ``__none__``.
    kind
        All members, or those with this outcome; or ``unknown``, the rows of unknown membership.
    limit
        Maximum number of records.
    before
        Only records before this time.
    cursor
        ``next`` of the previous page, in place of ``before``; exact among records of the same time.
    complement
        Return rows known to be outside the slice instead of members.

    Raises
    ------
    MisuseError
        If the cursor is not valid.
    UnknownSlice
        If no slice has the name.
    """
    state = deployment.state
    live = state.functions_version
    if name not in (ALL_ROWS, NO_SLICE, *live.names):
        raise unknown_slice(name)
    side: Membership = "out" if complement else "in"
    start = from_cursor(cursor) if cursor else before or _FOREVER
    views: list[RecordView] = []
    buckets: Counter[tuple[str, str]] = Counter()
    scanned, complete, more, reached = 0, True, False, None
    with store.read() as connection:
        sets = {functions.hash: functions for functions in queries.all_function_sets(connection)}
        mask_of = cache(lambda set_hash: _mask(name, live, sets[set_hash]))
        for record in queries.recent_records(connection, state.model, before=start, limit=SCANNED_ROWS + 1):
            if scanned == SCANNED_ROWS or (len(views) >= limit and scanned >= BUCKET_ROWS):
                complete = False
                break
            scanned += 1
            row, label = record.prediction, record.label
            membership = _membership(name, row, mask_of(row.set_hash))
            if membership == side and label is not None:
                buckets[label, row.label] += 1
            if kind == "unknown":
                wanted = membership == "unknown"
            else:
                outcome = "unlabelled" if label is None else "correct" if label == row.label else "errors"
                wanted = membership == side and kind in ("all", outcome)
            more = more or (wanted and len(views) >= limit)
            if not more:
                reached = record.cursor
                if wanted:
                    views.append(_view(record, sets[row.set_hash], state))
    following = to_cursor(reached) if reached and (more or not complete) else None
    return RecordsView(tuple(views), dict(buckets), scanned, complete, following)


def _mask(name: str, live: FunctionSetVersion, functions: FunctionSetVersion) -> int | None:
    """Return the bits that decide membership under a function set; None if it had another function."""
    if name == ALL_ROWS:  # no bit: always a member
        return 0
    if name == NO_SLICE:
        if functions.slices != live.slices:
            return None
        return sum(1 << k for k, name in enumerate(functions.names) if name not in functions.votes)
    columns = list(zip(functions.names, functions.fingerprints, strict=True))
    column = (name, live.fingerprints[live.names.index(name)])
    return 1 << columns.index(column) if column in columns else None


def _membership(name: str, row: Prediction, mask: int | None) -> Membership | None:
    if mask is None:
        return None
    member, unknown = (int.from_bytes(bitmap, "little") & mask for bitmap in (row.member, row.unknown))
    if name in (ALL_ROWS, NO_SLICE):
        return "unknown" if unknown else "out" if member else "in"
    return "in" if member else "unknown" if unknown else "out"


def _view(record: queries.PredictionRecord, functions: FunctionSetVersion, state: DeploymentState) -> RecordView:
    row = record.prediction
    slices, unknown_slices = (
        tuple(name for k, name in enumerate(functions.names) if bitmap[k >> 3] >> (k & 7) & 1)
        for bitmap in (row.member, row.unknown)
    )
    p = row.probabilities if row.version == state.version else None
    known = p is not None and len(p) == len(state.classes)
    return RecordView(
        id=row.id,
        at=row.at,
        version=row.version,
        predicted=row.label,
        label=record.label,
        probabilities=dict(zip(state.classes, p or (), strict=True)) if known else None,
        features=None if row.features is None else json.loads(row.features),
        slices=slices,
        unknown_slices=unknown_slices,
    )
