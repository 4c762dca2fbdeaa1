"""Class labels as text, independent of the column type; and columns that give them away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.column_encoders import as_text
from models.errors import ConfigError, DataError
from models.features import Table, check_columns
from sfs.record import Columns, Rows
from sfs.registry import FunctionSet
from sfs.schema import ClassReader, normalize
from sfs.template import Template

MAX_CLASSES = 1000
_LEAK_ERROR, _LEAK_SHARE, _LEAK_ROWS = 0.02, 0.05, 40


def read_labels(rows: Table, column: str, classes: Sequence[str] = ()) -> list[str]:
    """Return N labels as text, spelled as the class that they mean.

    Raises
    ------
    DataError
        If the column is missing, a label is blank, or is no text, number or boolean.

    Examples
    --------
    >>> read_labels([{"spam": True}, {"spam": 1.0}], "spam")
    ['true', '1']
    """
    labels = read_known_labels(rows, column, classes)
    if blank := [row for row, label in enumerate(labels) if label is None]:
        raise DataError(
            f"label column {column!r} is blank in {len(blank):,} of {len(labels):,} rows, first in row "
            f"{blank[0]}: fill in these labels or drop the rows"
        )
    return [label for label in labels if label is not None]


def read_known_labels(rows: Table, column: str, classes: Sequence[str] = ()) -> list[str | None]:
    """Return N labels as `read_labels`, None where a label is blank."""
    check_columns(rows, [column])
    labels = [as_text(value, column, row) for row, value in enumerate(Columns(rows).column(column))]
    reader = ClassReader(classes)
    return [None if not label or not label.strip() else reader.read(label) or normalize(label) for label in labels]


def without_label(rows: Rows, column: str) -> Rows:
    """Return the rows without the label column, the input of slicing functions."""
    if isinstance(rows, pd.DataFrame):
        kept = [str(name) != column for name in rows.columns]
        return rows if all(kept) else rows.loc[:, kept]
    if not isinstance(rows, Sequence) or isinstance(rows, (str, bytes)):
        return rows
    return [
        {name: value for name, value in row.items() if name != column}
        if isinstance(row, Mapping) and column in row
        else row
        for row in rows
    ]


def check_label_not_read(functions: FunctionSet, label: str) -> None:
    """Raise ConfigError if a template reads the label, because this leaks it to the model."""
    for function in functions:
        if isinstance(function, Template) and label in function.fields:
            raise ConfigError(
                f"template {function.name!r} reads the label column {label!r}, and leaks it to the model: "
                "describe the slice by other columns, or remove the template"
            )


def class_names(labels: Sequence[str], column: str) -> tuple[str, ...]:
    """Return the classes in order: by value if all are numbers, else by spelling.

    Raises
    ------
    DataError
        If there is one class only, or more than 1,000.

    Examples
    --------
    >>> class_names(["10", "9", "10"], "stars")
    ('9', '10')
    """
    names = set(labels)
    if len(names) < 2:
        only = f"only {next(iter(names))!r}" if names else "no label"
        raise DataError(f"label column {column!r} holds {only}: at least two classes are required")
    if len(names) > MAX_CLASSES:
        raise DataError(
            f"label column {column!r} holds {len(names):,} distinct values, at most {MAX_CLASSES:,} classes are "
            "allowed: is it a number or an identifier?"
        )
    try:
        values = {name: float(name) for name in names}
    except ValueError:
        return tuple(sorted(names))
    if not np.isfinite(list(values.values())).all():
        return tuple(sorted(names))
    return tuple(sorted(names, key=lambda name: (values[name], name)))


def class_codes(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return int64[N], each label's position among the classes."""
    positions = {name: k for k, name in enumerate(classes)}
    return np.fromiter((positions[label] for label in labels), dtype=np.int64, count=len(labels))


def label_leaks(features: pd.DataFrame, labels: Sequence[str]) -> list[str]:
    """Return a sentence for every column that alone predicts the label almost perfectly.

    A row is predicted by the other rows with its value, or, where nearly every row has its own number, by the
    row with the next lower number. At most 2% of the rows, and a twentieth of the errors of the most frequent
    class, may be wrong.

    Parameters
    ----------
    features
        N rows.
    labels
        N labels.

    Examples
    --------
    >>> rows = pd.DataFrame({"age": [30, 40, 50] * 20, "refunded": [1.0, None, 2.0] * 20})
    >>> label_leaks(rows, ["returned", "kept", "returned"] * 20)
    ["column 'age' alone predicts the label for 100.0% of 60 rows: is it known only after the outcome?", \
"column 'refunded' alone predicts the label for 100.0% of 60 rows: is it known only after the outcome?"]
    """
    classes = {label: k for k, label in enumerate(dict.fromkeys(labels))}
    y = np.array([classes[label] for label in labels], dtype=np.int64)
    if len(y) < _LEAK_ROWS or len(classes) < 2:
        return []
    allowed = min(_LEAK_ERROR * len(y), _LEAK_SHARE * (len(y) - np.bincount(y).max()))
    sentences = []
    for place, name in enumerate(map(str, features.columns)):
        wrong = _errors_alone(features.iloc[:, place], y)
        if wrong <= allowed:
            sentences.append(
                f"column {name!r} alone predicts the label for {1 - wrong / len(y):.1%} of {len(y):,} rows: "
                "is it known only after the outcome?"
            )
    return sentences


def _errors_alone(column: pd.Series[Any], y: NDArray[np.int64]) -> int:
    """Return the rows whose class other rows with the same or the next value do not have."""
    values = [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]
    try:
        groups = {value: k for k, value in enumerate(dict.fromkeys(values))}
    except TypeError:  # lists and objects are no features
        return len(y)
    codes = np.array([groups[value] for value in values])
    if len(groups) <= len(y) / 10:
        counts = np.zeros((len(groups), int(y.max()) + 1), dtype=np.int64)
        np.add.at(counts, (codes, y), 1)
        others = counts[codes]
        others[np.arange(len(y)), y] -= 1
        own = others[np.arange(len(y)), y].copy()
        others[np.arange(len(y)), y] = 0
        return int((own <= others.max(axis=1)).sum())
    if not pd.api.types.is_numeric_dtype(column):
        return len(y)
    # Equal values in random order, lest the order of the table's rows decides.
    shuffled = np.random.default_rng(0).permutation(len(y))
    numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)[shuffled]
    ordered = y[shuffled][np.argsort(numbers, kind="stable")]
    return int((ordered[1:] != ordered[:-1]).sum())
