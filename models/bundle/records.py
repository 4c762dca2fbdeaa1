"""Records in a bundle: the sample of held-out records, and the golden batch that verifies a loaded model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.bundle.files import DECODE_ERRORS
from models.classes import without_label
from models.errors import BundleError
from models.features import FeatureSpec, Table
from sfs.checks import fields_read
from sfs.function import SlicingFunction
from sfs.matrix import SliceMatrix
from sfs.record import Columns
from sfs.schema import Schema

SAMPLE_ROWS = 1000
SAMPLE_BYTES = 4_000_000
GOLDEN_ROWS = 16
TOLERANCE = 1e-4
_MAX_DEPTH = 20

Predict: TypeAlias = Callable[[Sequence[Mapping[str, Any]], SliceMatrix | None], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class GoldenBatch:
    """N records with their probabilities, once with memberships and once with all of them unknown.

    Parameters
    ----------
    records
        The feature columns of N rows.
    slices
        Memberships of the N rows.
    probabilities, without_slices
        float64[N, C], with and without the memberships.
    """

    records: tuple[Mapping[str, Any], ...]
    slices: SliceMatrix
    probabilities: NDArray[np.float64]
    without_slices: NDArray[np.float64]

    @classmethod
    def record(cls, predict: Predict, records: Sequence[Mapping[str, Any]], slices: SliceMatrix) -> GoldenBatch:
        """Return records with a model's predictions."""
        return cls(tuple(records), slices, predict(records, slices), predict(records, None))

    def verify(self, predict: Predict) -> None:
        """Raise BundleError unless a model gives the same probabilities within 1e-4."""
        for case, slices, expected in (
            ("with memberships", self.slices, self.probabilities),
            ("without memberships", None, self.without_slices),
        ):
            actual = predict(self.records, slices)
            if actual.shape != expected.shape:
                raise BundleError(f"golden batch {case}: expected probabilities {expected.shape}, got {actual.shape}")
            off = np.abs(actual - expected)
            if not bool((off <= TOLERANCE).all()):
                row = int(np.nan_to_num(off.max(axis=1), nan=np.inf).argmax())
                now, then = actual[row].round(6).tolist(), expected[row].round(6).tolist()
                raise BundleError(
                    f"golden batch {case}, row {row}: the model predicts {now}, but {then} when it was "
                    "saved: train it again on this machine"
                )

    def to_json(self) -> dict[str, Any]:
        """Return the batch as JSON values, floats exact."""
        return {
            "records": [dict(record) for record in self.records],
            "slices": list(self.slices.names),
            "member": self.slices.member.tolist(),
            "unknown": self.slices.unknown.tolist(),
            "probabilities": self.probabilities.tolist(),
            "without_slices": self.without_slices.tolist(),
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> GoldenBatch:
        """Return the batch of ``to_json``; BundleError if it is malformed."""
        try:
            shape = (len(saved["records"]), len(saved["slices"]))
            member, unknown = (np.array(saved[name], dtype=bool).reshape(shape) for name in ("member", "unknown"))
            slices = SliceMatrix(saved["slices"], member, unknown)
            probabilities = (np.array(saved[name], dtype=np.float64) for name in ("probabilities", "without_slices"))
            batch = cls(tuple(saved["records"]), slices, *probabilities)
        except DECODE_ERRORS as error:
            raise BundleError(f"golden.json is malformed ({type(error).__name__})") from error
        if not batch.records:
            raise BundleError("golden.json has no record to verify the model with")
        return batch


def sample_columns(
    frame: pd.DataFrame, label: str, features: Sequence[FeatureSpec], functions: Sequence[SlicingFunction]
) -> list[str]:
    """Return the columns of a sample, in the table's order.

    They are the columns of the features and those that the functions read: a template its fields, a Python
    function the columns that it reads of the rows in ``frame``. With a Python function that reads records as a
    whole, as one with preprocessors does, they are all columns but the label.
    """
    columns = [str(column) for column in frame.columns if str(column) != label]
    records = [vars(record) for record in Columns(without_label(frame, label)).records]
    read = {spec.column for spec in features}
    for function in functions:
        fields = fields_read(function, records)
        if fields is None:
            return columns
        read |= fields
    return [column for column in columns if column in read]


def sample_records(rows: Table, columns: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """Return the first of N records, at most 1,000, and 4 MB of JSON lines."""
    kept: list[dict[str, Any]] = []
    room = SAMPLE_BYTES
    for record in plain_records(rows[:SAMPLE_ROWS], columns):
        room -= len(json.dumps(record)) + 1
        if room < 0:
            break
        kept.append(record)
    return tuple(kept)


def stored_schema(config: Mapping[str, Any], sample: Sequence[Mapping[str, Any]]) -> Schema:
    """Return the schema in the content of a bundle's ``config.json``; of a bundle without one, that of its sample.

    Raises
    ------
    SliceError
        If the schema is malformed.
    """
    if config.get("schema") is not None:
        return Schema.from_json(config["schema"])
    kinds = {feature["column"]: feature["kind"] for feature in config["features"]}
    return Schema().completed(pd.DataFrame(list(sample), dtype=object), kinds)


class _NotPlain(Exception):
    """Value without a JSON representation."""


def plain_records(rows: Table, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return some columns of N rows as JSON records.

    Text, numbers, booleans, and lists and mappings of them stay as they are; an infinite number, which JSON
    lacks, is missing; dates and times become text in ISO 8601. A value of any other kind (bytes, an object)
    is left out of its record, so that a function which reads it finds no such field.
    """
    columns = Columns(rows)
    records: list[dict[str, Any]] = [{} for _ in range(len(rows))]
    for name in names:
        for record, value in zip(records, columns.column(name), strict=True):
            try:
                record[name] = _plain(value, 0)
            except _NotPlain:
                continue
    return records


def _plain(value: Any, depth: int) -> Any:
    value = value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
    if isinstance(value, (date, time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, (float, Decimal)):
        number = float(value)
        return number if np.isfinite(number) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if depth < _MAX_DEPTH:
        if isinstance(value, (list, tuple)):
            return [_plain(item, depth + 1) for item in value]
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: _plain(item, depth + 1) for key, item in value.items()}
    raise _NotPlain
