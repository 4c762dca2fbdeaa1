"""The label column as classes: text throughout, however it was typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.errors import DataError
from models.features import Table, check_columns
from models.table_features import as_name
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
    labels = [as_name(value, column, row) for row, value in enumerate(Columns(rows).column(column))]
    blank = [row for row, label in enumerate(labels) if label is None or not label.strip()]
    if blank:
        raise DataError(
            f"label column {column!r} is blank in {len(blank):,} of {len(labels):,} rows, first in row "
            f"{blank[0]}: fill these labels in or leave the rows out"
        )
    return [label for label in labels if label is not None]


def without_label(rows: Rows, column: str) -> Rows:
    """Return rows as slicing functions may see them: without the label, where it is there."""
    if isinstance(rows, pd.DataFrame):
        kept = [str(name) != column for name in rows.columns]
        return rows if all(kept) else rows.loc[:, kept]
    if not isinstance(rows, Sequence) or isinstance(rows, (str, bytes)):
        return rows
    return [_without(row, column) for row in rows]


def _without(row: Any, column: str) -> Any:
    if not isinstance(row, Mapping) or column not in row:
        return row
    return {name: value for name, value in row.items() if name != column}


def class_names(labels: Sequence[str], column: str) -> tuple[str, ...]:
    """Return the classes in order: by value if all are numbers, else by spelling.

    Raises
    ------
    DataError
        If there is one class only, or more than can be classes.

    Examples
    --------
    >>> class_names(["10", "9", "10"], "stars")
    ('9', '10')
    """
    names = set(labels)
    if len(names) < 2:
        shown = f"only {next(iter(names))!r}" if names else "no label"
        raise DataError(
            f"label column {column!r} holds {shown}: two classes or more are needed to learn from"
        )
    if len(names) > MAX_CLASSES:
        raise DataError(
            f"label column {column!r} holds {len(names):,} different values, and at most {MAX_CLASSES:,} can "
            "be classes: is it a number or an identifier?"
        )
    return tuple(sorted(names, key=_by_value if all(map(_is_number, names)) else str))


def class_codes(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return int64[N], each label's position among the classes."""
    positions = {name: k for k, name in enumerate(classes)}
    return np.fromiter((positions[label] for label in labels), dtype=np.int64, count=len(labels))


def _is_number(name: str) -> bool:
    try:
        return bool(np.isfinite(float(name)))
    except ValueError:
        return False


def _by_value(name: str) -> tuple[float, str]:
    return float(name), name
