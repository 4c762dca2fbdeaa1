"""Rows to a file, batch by batch: what `sfs.tables` reads."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from sfs.errors import SliceError
from sfs.patterns import whole_characters
from sfs.table_files import kind_of, opened_text


def write_batches(path: str | Path, frames: Iterable[pd.DataFrame]) -> int:
    """Write data frames of the same columns one after another, and return how many rows that made.

    The file appears whole or not at all: rows go to a file beside it, which takes its name at the end.
    Booleans are written ``true`` and ``false``, missing values as nothing (CSV, TSV) or null, and half a
    surrogate pair, which no text in UTF-8 has, as U+FFFD. JSON lines hold 15 digits behind a float's point.

    Parameters
    ----------
    path
        Its suffix decides the kind, as in `sfs.tables.read_batches`.
    frames
        Any number of data frames; each is let go before the next is asked for.

    Raises
    ------
    UnreadableFile
        If the suffix is none of these.
    SliceError
        If a column cannot be one type in Parquet, or the frames' columns differ.
    """
    file = Path(path)
    write = _WRITERS[kind_of(file)]
    beside = file.with_name(f".{os.getpid()}.{file.name}")  # the suffix still says how to write it
    try:
        rows = write(file, beside, _same_columns(frames))
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
    return rows


def _same_columns(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    columns: list[Any] | None = None
    for frame in frames:
        columns = list(frame.columns) if columns is None else columns
        if list(frame.columns) != columns:
            raise SliceError(f"every batch must have the columns {columns}, got {list(frame.columns)}")
        yield _encodable(frame)
    if columns is None:
        raise SliceError("there is nothing to write: no batch of rows was given")


def _encodable(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with whole characters only; the same one if it has no others."""
    whole = {i: _whole_series(series) for i, (_, series) in enumerate(frame.items())}
    changed = {i: series for i, series in whole.items() if series is not None}
    names = [_whole(name) for name in frame.columns]
    if not changed and all(map(operator.is_, names, frame.columns)):
        return frame
    columns = {i: changed.get(i, frame.iloc[:, i]) for i in whole}
    return pd.DataFrame(columns, index=frame.index).set_axis(names, axis=1)


def _whole_series(series: pd.Series[Any]) -> pd.Series[Any] | None:
    """Return the series with whole characters, or None where it has no others."""
    kind = series.dtype.categories.dtype if isinstance(series.dtype, pd.CategoricalDtype) else series.dtype
    if not (pd.api.types.is_object_dtype(kind) or pd.api.types.is_string_dtype(kind)):
        return None
    values = series.tolist()
    whole = [_whole(value) for value in values]
    if all(map(operator.is_, whole, values)):
        return None
    return pd.Series(whole, index=series.index, dtype=object)


def _whole(value: Any) -> Any:
    """Return the same value where it has whole characters only, and else a copy that has."""
    if isinstance(value, str):
        return whole_characters(value)
    if isinstance(value, (list, tuple)):
        items = [_whole(item) for item in value]
        return value if all(map(operator.is_, items, value)) else items
    if isinstance(value, dict):
        held = {_whole(key): _whole(item) for key, item in value.items()}
        same = all(map(operator.is_, held, value)) and all(map(operator.is_, held.values(), value.values()))
        return value if same else held
    return value


def _write_text(file: Path, beside: Path, frames: Iterator[pd.DataFrame]) -> int:
    rows, delimiter = 0, "\t" if kind_of(file) == ".tsv" else ","
    with opened_text(beside, "wt") as stream:
        for frame in frames:
            spelled = frame.apply(_spelled_flags)
            spelled.to_csv(stream, sep=delimiter, header=rows == 0, index=False)
            rows += len(frame)
    return rows


def _spelled_flags(series: pd.Series[Any]) -> pd.Series[Any]:
    if not pd.api.types.is_bool_dtype(series.dtype):
        return series
    return series.astype(object).map({True: "true", False: "false"}, na_action="ignore")


def _write_json(file: Path, beside: Path, frames: Iterator[pd.DataFrame]) -> int:
    rows = 0
    with opened_text(beside, "wt") as stream:
        for frame in frames:
            frame.to_json(
                stream,
                orient="records",
                lines=True,
                force_ascii=False,
                date_format="iso",
                double_precision=15,
            )
            rows += len(frame)
    return rows


def _write_parquet(file: Path, beside: Path, frames: Iterator[pd.DataFrame]) -> int:
    rows, writer = 0, None
    try:
        for frame in frames:
            table = _table(file, frame, None if writer is None else writer.schema)
            writer = writer or parquet.ParquetWriter(beside, table.schema)
            writer.write_table(table)
            rows += len(frame)
    finally:
        if writer is not None:
            writer.close()
    return rows


def _table(file: Path, frame: pd.DataFrame, schema: pa.Schema | None) -> pa.Table:
    try:
        table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise SliceError(
            f"{file}: {error.args[-1]}: a Parquet column has one type; write CSV or JSON lines"
        ) from error
    if schema is not None:
        return table
    # A column that is missing in the whole first batch is taken for text.
    fields = [f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in table.schema]
    return table.cast(pa.schema(fields))


_WRITERS: dict[str, Callable[[Path, Path, Iterator[pd.DataFrame]], int]] = {
    ".csv": _write_text,
    ".tsv": _write_text,
    ".jsonl": _write_json,
    ".ndjson": _write_json,
    ".parquet": _write_parquet,
}
