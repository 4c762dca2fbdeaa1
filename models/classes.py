"""Class labels as text, independent of the column type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.column_encoders import as_text
from models.errors import DataError
from models.features import Table, check_columns
from sfs.record import Columns, Rows

MAX_CLASSES = 1000


def read_labels(rows: Table, column: str) -> list[str]:
    """Return N labels as text.

    Raises
    ------
    DataError
        If the column is missing, a label is blank, or is no text, number or boolean.

    Examples
    --------
    >>> read_labels([{"spam": True}, {"spam": 1.0}], "spam")
    ['true', '1']
    """
    check_columns(rows, [column])
    labels = [as_text(value, column, row) for row, value in enumerate(Columns(rows).column(column))]
    blank = [row for row, label in enumerate(labels) if label is None or not label.strip()]
    if blank:
        raise DataError(
            f"label column {column!r} is blank in {len(blank):,} of {len(labels):,} rows, first in row "
            f"{blank[0]}: fill in these labels or drop the rows"
        )
    return [label for label in labels if label is not None]


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
