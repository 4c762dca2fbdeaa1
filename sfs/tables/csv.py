"""Comma- and tab-separated text, read block by block."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import pandas as pd
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import csv as arrow_csv

from sfs.errors import UnreadableFile
from sfs.tables.formats import (
    common_type,
    file_format,
    narrowest_type,
    null_if_missing,
    open_bytes,
    open_text,
    select_columns,
    to_dataframe,
)

_BLOCK_BYTES = 8 << 20
_LIMIT_LOCK = Lock()


def csv_batches(
    path: Path, batch_rows: int, columns: Sequence[str] | None, text: Collection[str]
) -> Iterator[pd.DataFrame]:
    """Yield the rows of a comma- or tab-separated file; see `sfs.tables.read_batches`."""
    names = select_columns(path, _header(path), columns)
    types = {name: pa.string() if name in text else pa.null() for name in names}
    for block in _blocks(path, names):
        for name, column in zip(names, block.columns, strict=True):
            if types[name] != pa.string():
                types[name] = common_type(types[name], narrowest_type(column))
    pending: list[pa.RecordBatch] = []
    for block in _blocks(path, names):
        arrays = [_cast(column, kind) for column, kind in zip(block.columns, types.values(), strict=True)]
        pending.append(pa.RecordBatch.from_arrays(arrays, names=names))
        while sum(map(len, pending)) >= batch_rows:
            table = pa.Table.from_batches(pending)
            yield to_dataframe(table.slice(0, batch_rows), text)
            pending = table.slice(batch_rows).to_batches()
    if pending:
        yield to_dataframe(pa.Table.from_batches(pending), text)


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if kind == pa.string():
        return column
    values = null_if_missing(column)
    return values if kind == pa.null() else pc.cast(values, kind)


def _delimiter(path: Path) -> str:
    return "\t" if file_format(path) == ".tsv" else ","


def _header(path: Path) -> list[str]:
    try:
        with _long_fields(), open_text(path, encoding="utf-8-sig") as stream:
            rows = (row for row in csv.reader(stream, delimiter=_delimiter(path)) if row)
            names = next(rows, None)
            first = next(rows, None)
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise _unreadable(path, error) from error
    if names is None:
        raise UnreadableFile(f"{path} has only blank lines: expected a header and rows")
    if first is None:
        raise UnreadableFile(f"{path} has a header but no rows: columns are {', '.join(map(repr, names))}")
    if len(names) == len(first) == 1 and 0 < names[0].count(";") == first[0].count(";"):
        raise UnreadableFile(f"{path} looks separated by ';': save it with commas, or with tabs as .tsv")
    return names


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let the csv module read fields as long as Arrow does; its limit is global to the process."""
    with _LIMIT_LOCK:
        before = csv.field_size_limit(_BLOCK_BYTES)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _blocks(path: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    convert = arrow_csv.ConvertOptions(
        column_types={name: pa.string() for name in names},
        include_columns=list(names),
        strings_can_be_null=True,
        null_values=[""],
    )
    parse = arrow_csv.ParseOptions(delimiter=_delimiter(path), newlines_in_values=True)
    read = arrow_csv.ReadOptions(block_size=_BLOCK_BYTES)
    try:
        with arrow_csv.open_csv(
            path, read_options=read, parse_options=parse, convert_options=convert
        ) as blocks:
            yield from (block for block in blocks if len(block))
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UnreadableFile:
    """Return the error to raise, with the line at fault where a second pass finds it."""
    text = str(error)
    if isinstance(error, UnicodeDecodeError) or "UTF8" in text or "UTF-8" in text:
        return UnreadableFile(f"{path}{_line_not_utf8(path)} is not UTF-8 text: save the file as UTF-8")
    if "columns, got" in text:
        return UnreadableFile(f"{path}{_ragged_line(path)}: quote values that contain {_delimiter(path)!r}")
    if "straddl" in text or "field limit" in text:
        return UnreadableFile(f"{path}: a row exceeds {_BLOCK_BYTES >> 20} MiB: check for an unclosed quote")
    return UnreadableFile(f"{path} cannot be read: {text}")


def _line_not_utf8(path: Path) -> str:
    with open_bytes(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return f", line {number} (byte {line[error.start]:#04x})"
    return ""


def _ragged_line(path: Path) -> str:
    with _long_fields(), open_text(path, encoding="utf-8-sig") as stream:
        reader = csv.reader(stream, delimiter=_delimiter(path))
        width = len(next(reader))
        for row in reader:
            if row and len(row) != width:
                return f", line {reader.line_num} has {len(row)} values where the header has {width}"
    return " has rows of unequal length"
