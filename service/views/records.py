"""The latest records of a slice, page by page and with long values cut, their confusion, and single records."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal, TypeAlias

from service.errors import MisuseError, ServiceError
from service.events import FunctionSetVersion
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

VALUE_CHARS, NAME_CHARS, RECORD_FIELDS = 1_000, 200, 100
"""Maximum length of a value and of a field's name in a list, and number of fields of a record there."""

PAGE_CHARS = 1_000_000
STORED_CHARS = 32 * 2**20
"""Length of the listed and of the stored records with which a page ends."""

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
    cut
        Full length in characters of each feature that is cut.
    omitted
        Number of features left out.
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
    cut: Mapping[str, int] = field(default_factory=dict)
    omitted: int = 0


class UnknownPrediction(ServiceError):
    """No prediction with this id is in the log."""


@dataclass(frozen=True, slots=True)
class RecordsView:
    """Records, newest first, and counts over all scanned rows.

    Parameters
    ----------
    records
        At most the requested number, with long features cut.
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
    listed = stored = 0
    buckets: Counter[tuple[str, str]] = Counter()
    scanned, complete, more, reached = 0, True, False, None
    with store.read() as connection:
        sets = {functions.hash: functions for functions in queries.all_function_sets(connection)}
        mask_of = cache(lambda set_hash: _mask(name, live, sets[set_hash]))
        for record in queries.recent_records(connection, state.model, before=start, limit=SCANNED_ROWS + 1):
            full = len(views) >= limit or listed >= PAGE_CHARS or stored >= STORED_CHARS
            if scanned == SCANNED_ROWS or (full and scanned >= BUCKET_ROWS):
                complete = False
                break
            scanned += 1
            label = record.label
            membership = _membership(name, record, mask_of(record.set_hash))
            if membership == side and label is not None:
                buckets[label, record.predicted] += 1
            if kind == "unknown":
                wanted = membership == "unknown"
            else:
                outcome = "unlabelled" if label is None else "correct" if label == record.predicted else "errors"
                wanted = membership == side and kind in ("all", outcome)
            more = more or (wanted and full)
            if not more:
                reached = record.cursor
                if wanted:
                    features = queries.stored_features(connection, record.row)
                    shown = cut_features(None if features is None else json.loads(features))
                    views.append(_view(record, sets[record.set_hash], state, *shown))
                    stored += len(features or "")
                    listed += _length(views[-1])
    following = to_cursor(reached) if reached and (more or not complete) else None
    return RecordsView(tuple(views), dict(buckets), scanned, complete, following)


def record_view(store: Store, deployment: Deployment, id_: str) -> RecordView:
    """Return one prediction with its label and its whole record. Raises UnknownPrediction."""
    state = deployment.state
    with store.read() as connection:
        prediction = queries.prediction(connection, state.model, id_)
        if prediction is None:
            raise UnknownPrediction(f"no prediction of {state.model} in the log has the id {id_!r}")
        label = queries.labels(connection, state.model, [id_]).get(id_)
        sets = {functions.hash: functions for functions in queries.all_function_sets(connection)}
    features = None if prediction.features is None else json.loads(prediction.features)
    p = prediction
    record = queries.RecentRecord(
        p.id, p.at, p.version, p.set_hash, p.label, p.probabilities, p.member, p.unknown, label, 0
    )
    return _view(record, sets[p.set_hash], state, features, {}, 0)


def cut_features(features: Mapping[str, Any] | None) -> tuple[dict[str, Any] | None, dict[str, int], int]:
    """Return the features of a record for a list, the length of each one that is cut, and the number left out.

    A long list or object becomes the beginning of its JSON.

    Examples
    --------
    >>> features, cut, omitted = cut_features({"likes": 3, "text": "spam" * 300})
    >>> features["text"][-24:], cut, omitted
    ('spam… (1,200 characters)', {'text': 1200}, 0)
    """
    if features is None:
        return None, {}, 0
    shown: dict[str, Any] = {}
    cut: dict[str, int] = {}
    for name, value in features.items():
        if len(shown) < RECORD_FIELDS and len(name) <= NAME_CHARS:
            text = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
            if isinstance(text, str) and len(text) > VALUE_CHARS:
                cut[name] = len(text)
                value = f"{text[:VALUE_CHARS]}… ({len(text):,} characters)"
            shown[name] = value
    return shown, cut, len(features) - len(shown)


def _length(view: RecordView) -> int:
    """Return the approximate length in characters of a listed record."""
    features = sum(len(name) + len(str(value)) for name, value in (view.features or {}).items())
    return features + sum(map(len, (view.id, *view.slices, *view.unknown_slices)))


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


def _membership(name: str, row: queries.RecentRecord, mask: int | None) -> Membership | None:
    if mask is None:
        return None
    member, unknown = (int.from_bytes(bitmap, "little") & mask for bitmap in (row.member, row.unknown))
    if name in (ALL_ROWS, NO_SLICE):
        return "unknown" if unknown else "out" if member else "in"
    return "in" if member else "unknown" if unknown else "out"


def _view(
    row: queries.RecentRecord,
    functions: FunctionSetVersion,
    state: DeploymentState,
    features: Mapping[str, Any] | None,
    cut: Mapping[str, int],
    omitted: int,
) -> RecordView:
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
        predicted=row.predicted,
        label=row.label,
        probabilities=dict(zip(state.classes, p or (), strict=True)) if known else None,
        features=features,
        slices=slices,
        unknown_slices=unknown_slices,
        cut=cut,
        omitted=omitted,
    )
