"""Records as JSON values, and the sample of held-out records that a bundle keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from models.features import FeatureSpec, Table
from sfs.function import SlicingFunction
from sfs.record import Columns
from sfs.template import Template

SAMPLE_ROWS = 1000
SAMPLE_BYTES = 4_000_000
_MAX_DEPTH = 20


class _NotPlain(Exception):
    """A value that JSON has no form for."""


def sample_columns(
    frame: pd.DataFrame, label: str, features: Sequence[FeatureSpec], functions: Sequence[SlicingFunction]
) -> list[str]:
    """Return the columns that a sample keeps, in the table's order.

    They are the features and what templates read. With a plain function among the functions, which may read
    any column, they are all columns but the label.
    """
    columns = [str(column) for column in frame.columns]
    if not all(isinstance(function, Template) for function in functions):
        return [column for column in columns if column != label]
    read = {spec.column for spec in features}
    read |= {field for each in functions if isinstance(each, Template) for field in each.fields}
    return [column for column in columns if column in read and column != label]


def sample_records(rows: Table, columns: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """Return as many of N records, from the first on, as fit: at most 1,000, and 4 MB of JSON lines."""
    kept: list[dict[str, Any]] = []
    room = SAMPLE_BYTES
    for record in plain_records(rows[:SAMPLE_ROWS], columns):
        room -= len(json.dumps(record)) + 1
        if room < 0:
            break
        kept.append(record)
    return tuple(kept)


def plain_records(rows: Table, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return some columns of N rows as JSON records.

    Text, numbers, booleans, and lists and mappings of them stay what they are; an infinite number, which JSON
    lacks, is missing; dates and times become text in ISO 8601. A value of any other kind (bytes, an object)
    is left out of its record, so that a function which reads it finds no such field.
    """
    columns = Columns(rows)
    records: list[dict[str, Any]] = [{} for _ in range(len(rows))]
    for name in names:
        for record, value in zip(records, columns.column(name), strict=True):
            try:
                record[name] = _plain(value)
            except _NotPlain:
                continue
    return records


def _plain(value: Any, depth: int = 0) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, (date, time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, (float, Decimal)):
        number = float(value)
        return number if np.isfinite(number) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return _plain_nested(value, depth + 1)


def _plain_nested(value: Any, depth: int) -> Any:
    if depth <= _MAX_DEPTH:
        if isinstance(value, (list, tuple)):
            return [_plain(item, depth) for item in value]
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: _plain(item, depth) for key, item in value.items()}
    raise _NotPlain
