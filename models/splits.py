"""Training, validation and held-out split; duplicates are always assigned to the same split.

A row's content is its text features, normalised in case and spaces; where a row has no text, all its features.
A row is held out if and only if its hash is divisible by 10, in every table and in traffic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.column_encoders import as_text
from models.errors import DataError
from models.features import FeatureSpec, Table, check_columns
from sfs.intervals import effective_n
from sfs.record import Columns

Hashes: TypeAlias = NDArray[np.uint64]

HELD_OUT_MODULUS = 10
VALIDATION_MODULUS = 5
MIN_ROWS = 20
_FEW_CONTENTS = 0.75
_MAX_LISTED = 10


@dataclass(frozen=True, slots=True)
class SplitIndices:
    """Positions of the training, validation and held-out rows.

    Parameters
    ----------
    train, valid, held_out
        int64 positions, ascending; no content is in two of them.
    remarks
        Sentences for the user where the usual shares were not possible.
    by_functions
        int64 positions of further training rows, with a label of functions.
    """

    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    held_out: NDArray[np.int64]
    remarks: tuple[str, ...] = ()
    by_functions: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def learned(self) -> NDArray[np.int64]:
        """Positions of all training rows, ascending."""
        return np.sort(np.concatenate([self.train, self.by_functions]))


def content_hashes(rows: Table, specs: Sequence[FeatureSpec]) -> Hashes:
    """Return uint64[N], equal for rows whose content is equal.

    Raises
    ------
    DataError
        If a feature's column is missing, or holds something other than text, booleans and numbers.

    Examples
    --------
    >>> rows = [{"text": "Check  this OUT", "likes": 3}, {"text": "check this out", "likes": 4}]
    >>> a, b = content_hashes(rows, [FeatureSpec("text", "text"), FeatureSpec("likes", "number")])
    >>> bool(a == b)
    True
    """
    check_columns(rows, [spec.column for spec in specs])
    columns = Columns(rows)
    contents = _contents(columns, [spec.column for spec in specs if spec.kind == "text"])
    if not all(map(any, contents)):
        all_features = _contents(columns, [spec.column for spec in specs])
        contents = [text if any(text) else row for text, row in zip(contents, all_features, strict=True)]
    encoded = ("\x1f".join(content).encode("utf-8", "surrogatepass") for content in contents)
    hashes = (int.from_bytes(blake2b(content, digest_size=8).digest(), "big") for content in encoded)
    return np.fromiter(hashes, dtype=np.uint64, count=len(columns))


def record_contents(
    records: Sequence[Mapping[str, Any] | None], specs: Sequence[FeatureSpec], others: Sequence[int]
) -> list[int]:
    """Return a number per record, equal for those of one content; a record that lacks a feature has its ``others``."""
    names = [spec.column for spec in specs]
    complete = {
        k: {name: readable_text(record[name]) for name in names}
        for k, record in enumerate(records)
        if names and record and all(name in record for name in names)
    }
    hashes = content_hashes(list(complete.values()), specs).view(np.int64).tolist() if complete else []
    found = dict(zip(complete, hashes, strict=True))
    return [found.get(k, other) for k, other in enumerate(others)]


def readable_text(value: Any) -> str | None:
    """Return a value as text; None if it is missing, or if a model cannot read it."""
    try:
        return as_text(value, "", 0)
    except DataError:
        return None


def _contents(columns: Columns, names: Sequence[str]) -> list[tuple[str, ...]]:
    if not names:
        return [()] * len(columns)
    normalised = [
        [
            " ".join(str(as_text(value, name, row)).casefold().split()) if value is not None else ""
            for row, value in enumerate(columns.column(name))
        ]
        for name in sorted(names)
    ]
    return list(zip(*normalised, strict=True))


def held_out(hashes: Hashes) -> NDArray[np.bool_]:
    """Return bool[N], the rows excluded from training and selection."""
    return np.asarray(hashes % HELD_OUT_MODULUS == 0)


def split(hashes: Hashes, y: NDArray[np.int64], classes: Sequence[str]) -> SplitIndices:
    """Split labelled rows; training and validation rows both have every class.

    Validation takes a fifth of the contents that are not held out; where a class would be missing on a side,
    another fifth, a third or a half.

    Raises
    ------
    DataError
        If there are too few rows, or a class has fewer than two contents outside the held-out rows.
    """
    if len(hashes) < MIN_ROWS:
        raise DataError(f"{len(hashes)} rows are too few to train and evaluate a model: use at least {MIN_ROWS}")
    out = held_out(hashes)
    rare = []
    for k, name in enumerate(classes):
        contents = np.unique(hashes[y == k])
        if (outside := int((~held_out(contents)).sum())) < 2:
            rare.append((name, int((y == k).sum()), len(contents), outside))
    if rare:
        name, rows, distinct, outside = rare[0]
        others = [repr(name) for name, *_ in rare[1:]]
        also = f" (as have too few: {', '.join(others[:_MAX_LISTED])}{', ...' * (len(others) > _MAX_LISTED)})"
        raise DataError(
            f"class {name!r} has {rows} row{'s' * (rows != 1)} with {distinct} distinct "
            f"content{'s' * (distinct != 1)}, {outside} of them outside the held-out tenth, "
            f"and 2 are required{also if others else ''}: "
            "add rows, merge it with another class, or drop it"
        )
    rest = hashes // HELD_OUT_MODULUS
    for modulus in (VALIDATION_MODULUS, 3, 2):
        for remainder in range(modulus):
            valid = ~out & (rest % modulus == remainder)
            train = ~out & ~valid
            if all(len(np.unique(y[side])) == len(classes) for side in (train, valid)):
                remarks = tuple(_remarks(hashes, hashes[out], modulus))
                return SplitIndices(np.flatnonzero(train), np.flatnonzero(valid), np.flatnonzero(out), remarks)
    raise DataError(
        f"{len(hashes)} rows cannot be split so that training and validation both have all {len(classes)} "
        "classes: add rows of the rarest classes"
    )


def _remarks(hashes: Hashes, held_out: Hashes, modulus: int) -> Iterator[str]:
    if modulus != VALIDATION_MODULUS:
        yield (
            f"The table is small: one in {modulus} of the rows not held out is used for validation, "
            "so that it has every class."
        )
    effective, contents = effective_n(held_out), len(np.unique(held_out))
    if effective < 2:
        rows = f"{len(held_out):,} rows"
        one = f"One content is held out ({rows})" if contents == 1 else f"One content has most of the held-out {rows}"
        found = one if effective else "No row is held out"
        yield (
            f"{found}: a hash selects a tenth of the contents, and the table has {len(np.unique(hashes)):,}. No "
            "accuracy is expected, no accuracy alarm can be raised, and the promotion gate cannot verify a later "
            "version: add rows with other contents, or features that distinguish the rows."
        )
    elif contents < _FEW_CONTENTS * len(held_out):
        yield (
            f"The {len(held_out):,} held-out rows have only {contents:,} distinct contents, the others are "
            f"repeats: their effective n is {effective:,}."
        )
