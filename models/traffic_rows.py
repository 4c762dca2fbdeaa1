"""Labelled rows of traffic below those of a project's table, as one table to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pandas as pd
from pandas.api.types import infer_dtype

from models.classes import read_labels
from models.errors import DataError
from models.features import FeatureSpec, check_columns
from models.splits import content_hashes, held_out
from models.table_features import as_name, as_number
from sfs.record import text_of
from sfs.registry import FunctionSet
from sfs.template import Template

NEW_CLASS_CONTENTS = 20
"""Different contents outside the held-out tenth that traffic must have of a class that the table lacks."""

Labelled: TypeAlias = tuple[Mapping[str, Any], str]
"""A record of traffic, and its label."""
_NUMBERS = ("integer", "floating", "mixed-integer-float")
_LARGEST = 10**300  # beyond it a whole number is no float, and counts as missing, as in a feature


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """A table's rows and, after them, those of traffic.

    Parameters
    ----------
    frame
        All rows, with the table's columns, and those that functions read in traffic besides.
    base, traffic
        How many are of the one and the other.
    left_out
        How many rows of traffic are not there: those without all features, or of a new class that is too rare.
    """

    frame: pd.DataFrame
    base: int
    traffic: int
    left_out: int


def with_traffic(
    base: pd.DataFrame,
    traffic: Sequence[Labelled],
    label: str,
    features: Sequence[FeatureSpec],
    functions: FunctionSet,
) -> LabelledRows:
    """Return a table's rows and those of traffic in one table.

    Columns that the table lacks are kept where functions may read them: those that templates name, and with a
    plain function, which may read any column, all. What a row lacks is missing there. Numbers and texts of
    traffic become what the table's column holds.

    Parameters
    ----------
    base
        The table's N rows.
    traffic
        M records and labels. One is left out that lacks a feature column, or has a value there that the
        feature cannot be; or whose class the table lacks, while it has few contents in traffic.
    label
        The label's column.
    features, functions
        What the rows are for.

    Raises
    ------
    DataError
        If the table lacks the label or a feature, or a label of it is blank.
    """
    check_columns(base, [spec.column for spec in features])
    labels = read_labels(base, label)
    kept = _without_rare([row for row in traffic if _fits(row[0], features)], set(labels), features)
    if not kept:
        return LabelledRows(base, len(base), 0, len(traffic))
    columns: dict[str, pd.Series[Any]] = {}
    for place, name in enumerate(map(str, base.columns)):
        columns[name] = _joined(base.iloc[:, place], [record.get(name) for record, _ in kept])
    columns[label] = pd.Series([*labels, *(said for _, said in kept)], dtype=object)
    for name in _read(functions, kept):
        if name not in columns and name != label:
            only_there = [None] * len(base) + [record.get(name) for record, _ in kept]
            columns[name] = pd.Series(only_there, dtype=object)
    return LabelledRows(pd.DataFrame(columns), len(base), len(kept), len(traffic) - len(kept))


def _fits(record: Mapping[str, Any], features: Sequence[FeatureSpec]) -> bool:
    """Tell whether a record has every feature, as a value that it can be; a missing value is one."""
    try:
        for spec in features:
            if spec.kind == "number":
                as_number(record[spec.column], spec.column, 0)
            else:
                as_name(record[spec.column], spec.column, 0)
    except (KeyError, DataError):
        return False
    return True


def _without_rare(rows: list[Labelled], known: set[str], features: Sequence[FeatureSpec]) -> list[Labelled]:
    """Leave out rows of new classes that have too few contents to learn from: they would end the training."""
    new = [row for row in rows if row[1] not in known]
    if not new:
        return rows
    hashes = content_hashes([record for record, _ in new], features)
    contents: dict[str, set[int]] = {}
    for (_, said), content, out in zip(new, hashes.tolist(), held_out(hashes).tolist(), strict=True):
        if not out:
            contents.setdefault(said, set()).add(content)
    learned = known | {said for said, found in contents.items() if len(found) >= NEW_CLASS_CONTENTS}
    return [row for row in rows if row[1] in learned]


def _read(functions: FunctionSet, traffic: Sequence[Labelled]) -> list[str]:
    """Return the columns of traffic that functions may read, in order of first occurrence."""
    there = list(dict.fromkeys(name for record, _ in traffic for name in record))
    if not all(isinstance(each, Template) for each in functions):
        return there
    named = {field for each in functions if isinstance(each, Template) for field in each.fields}
    return [name for name in there if name in named]


def _joined(column: pd.Series[Any], values: Sequence[Any]) -> pd.Series[Any]:
    """Return a column with more values below, as what it holds: whole numbers, numbers, texts, or anything."""
    kind = infer_dtype(column, skipna=True)
    if kind in _NUMBERS:
        numbers = [_number(value) for value in values]
        if all(value is None or isinstance(value, int | float) for value in numbers):
            whole = kind == "integer" and all(type(value) is int and abs(value) < 2**63 for value in numbers)
            first = column if whole else column.astype("float64")
            more = pd.Series(numbers, dtype="int64" if whole else "float64")
            joined: pd.Series[Any] = pd.concat([first, more], ignore_index=True)
            return joined
    below = map(_spelled, values) if kind == "string" else values
    return pd.Series([*column.astype(object).tolist(), *below], dtype=object)


def _number(value: Any) -> Any:
    """Return a text that spells a number as that number, a boolean as one, and everything else as it is."""
    if isinstance(value, str | bool):
        try:
            return float(value)
        except ValueError:
            return value
    return None if type(value) is int and abs(value) > _LARGEST else value


def _spelled(value: Any) -> Any:
    """Return a number or a boolean as it is written, and everything else as it is."""
    return text_of(value) if isinstance(value, int | float) else value
