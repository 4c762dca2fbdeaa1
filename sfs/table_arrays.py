"""From a column of a file to a pandas series: numbers as numbers, missing as missing, text as text."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import compute as pc

from sfs.errors import UnreadableFile
from sfs.values import present, text_of

_MISSING_WORDS = pa.array(["NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "<NA>"])
_CODE = r"^[+-]?(0[0-9xX]|[0-9]{19})"
"""Leading zeros, or more digits than an int64 holds: a code, which a number would destroy."""
_COMPARED, _SHOWN = 300, 20
"""How many names a misspelled one is compared with, and how many are told where none is near."""


def frame_of(batch: pa.RecordBatch | pa.Table, text: Collection[str] = ()) -> pd.DataFrame:
    """Return a data frame of Arrow columns; the ones named in ``text`` as text whatever they hold."""
    series = [_series(column) for column in batch.columns]
    spelled = [as_text(s) if name in text else s for name, s in zip(batch.schema.names, series, strict=True)]
    frame = pd.DataFrame(dict(enumerate(spelled)), index=pd.RangeIndex(batch.num_rows))
    frame.columns = pd.Index(batch.schema.names, dtype=object)
    return frame


def _series(column: Any) -> pd.Series[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if column.null_count and pa.types.is_integer(column.type):
        return column.to_pandas(types_mapper=lambda _: pd.Int64Dtype())  # type: ignore[no-any-return]
    if column.null_count and pa.types.is_boolean(column.type):
        return column.to_pandas(types_mapper=lambda _: pd.BooleanDtype())  # type: ignore[no-any-return]
    return column.to_pandas()  # type: ignore[no-any-return]


def as_text(series: pd.Series[Any]) -> pd.Series[Any]:
    """Return the same values as text, spelled as `sfs.values.text_of` does; missing ones stay missing."""
    spelled = [None if present(value) is None else text_of(value) for value in series.tolist()]
    return pd.Series(spelled, dtype=object)


def narrowest(column: pa.Array) -> pa.DataType:
    """Return the narrowest type for all values of a text column: null, bool, int64, double or string."""
    bare = bare_values(column)
    if bare.null_count == len(bare):
        return pa.null()
    if pc.any(pc.match_substring_regex(bare, _CODE)).as_py():
        return pa.string()
    if pc.all(pc.is_in(pc.utf8_lower(bare), pa.array(["true", "false", None]))).as_py():
        return pa.bool_()
    return next((kind for kind in (pa.int64(), pa.float64()) if _holds(kind, bare)), pa.string())


def bare_values(column: pa.Array) -> pa.Array:
    """Return a text column without blanks around values and the words that stand for a missing number."""
    trimmed = pc.utf8_trim_whitespace(column)
    empty = pc.or_(pc.is_in(trimmed, _MISSING_WORDS), pc.equal(trimmed, ""))
    return pc.if_else(empty, pa.scalar(None, pa.string()), trimmed)


def _holds(kind: pa.DataType, column: pa.Array) -> bool:
    try:
        pc.cast(column, kind)
    except pa.ArrowInvalid:
        return False
    return True


def wider(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    """Return the narrowest of our types that holds the values of both.

    Examples
    --------
    >>> str(wider(pa.int64(), pa.float64())), str(wider(pa.bool_(), pa.int64()))
    ('double', 'string')
    """
    if first == second or second == pa.null():
        return first
    if first == pa.null():
        return second
    return pa.float64() if {first, second} == {pa.int64(), pa.float64()} else pa.string()


def chosen(path: Path, names: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    """Return the columns to read, after checking that the file has each of them once."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UnreadableFile(f"{path}: column {repeated[0]!r} appears more than once: rename one of them")
    for name in columns or ():
        if name not in names:
            raise UnreadableFile(f"{path}: no column {name!r}{nearest(name, names)}")
    return list(names if columns is None else columns)


def nearest(name: str, names: Sequence[str]) -> str:
    """Return the end of a message about an unknown name: the nearest spelling, or the first names there are.

    However many there are, it is soon told: a request may bring as many as it likes.

    Examples
    --------
    >>> nearest("lable", ["text", "label"])
    "; did you mean 'label'?"
    """
    known = names[:_COMPARED]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    folded = [other for other in known if other.strip().casefold() == name.strip().casefold()]
    if folded or close:
        return f"; did you mean {(folded or close)[0]!r}?"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"; there is {', '.join(map(repr, names[:_SHOWN]))}{more}" if names else "; there are none"
