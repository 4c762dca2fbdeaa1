"""Read and write rows in CSV, TSV, Parquet and JSON Lines files, whole or in batches of bounded memory.

Column types do not depend on the batches: CSV, TSV and JSON Lines files are read twice, first to determine the
type of every column. A CSV or TSV column is numeric only if all its values are written as numbers (``007`` is
text). An empty field is missing; ``NA``, ``NaN``, ``null`` and the like are missing in numeric columns and
ordinary text in all others. Columns of a schema have the type in the schema, independent of the file's other values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from sfs.errors import UnreadableFile
from sfs.record import none_if_missing
from sfs.schema import Schema
from sfs.tables.formats import (
    FORMATS,
    SUFFIXES,
    csv_batches,
    file_format,
    frame_of,
    input_format,
    is_gzip,
    open_bytes,
    select_columns,
    to_dataframe,
)
from sfs.tables.writer import write_batches

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "count_rows",
    "file_format",
    "input_format",
    "read_batches",
    "read_table",
    "write_batches",
]

_Reader: TypeAlias = Callable[[Path, int, Sequence[str] | None, Collection[str], Schema], Iterator[pd.DataFrame]]
_NO_SCHEMA = Schema()

_COUNT_BLOCK_BYTES = 8 << 20
_INT64 = range(-(2**63), 2**63)


def read_table(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    text: Collection[str] = (),
    schema: Schema = _NO_SCHEMA,
    format: str = "table",
) -> pd.DataFrame:
    """Read a whole file; see `read_batches` for the parameters and errors."""
    batches = read_batches(path, columns=columns, text=text, schema=schema, format=format)
    return pd.concat(batches, ignore_index=True)


def read_batches(
    path: str | Path,
    batch_rows: int = 50_000,
    columns: Sequence[str] | None = None,
    *,
    text: Collection[str] = (),
    schema: Schema = _NO_SCHEMA,
    format: str = "table",
) -> Iterator[pd.DataFrame]:
    """Yield a file's rows in order, at most ``batch_rows`` at a time.

    Parameters
    ----------
    path
        File with one of `SUFFIXES`, or a text file with ``.gz`` appended. The format of a file without a suffix,
        or with ``.data``, ``.dat``, ``.tab``, ``.test`` or ``.txt``, is determined from its first bytes.
    batch_rows
        Number of rows per data frame; the last may have fewer.
    columns
        Columns to read, in this order; all by default.
    text
        Columns to read as text, whatever their values; absent columns are ignored.
    schema
        Types of columns; types of other columns are determined from the file.
    format
        One of `FORMATS`, whatever the suffix, or ``table``; a file whose name ends in ``.gz`` is compressed.

    Raises
    ------
    UnreadableFile
        If the file is absent, empty, has a header only, is not UTF-8 (the message names the line), has rows of
        unequal length, repeats a column name, lacks one of ``columns``, or has an unsupported format.
    """
    file = _require_file(path)
    if batch_rows < 1:
        raise ValueError(f"batch_rows must be at least 1, got {batch_rows}")
    for frame in _READERS[input_format(file, format)](file, batch_rows, columns, text, schema):
        yield schema.parse_frame(frame)


def count_rows(path: str | Path, format: str = "table") -> int | None:
    """Return the number of rows of a file, for a progress bar; None for .gz, which is slow to count."""
    file = _require_file(path)
    suffix = input_format(file, format)
    if suffix == ".parquet":
        return int(_open_parquet(file).metadata.num_rows)
    if is_gzip(file):
        return None
    quoted = suffix in (".csv", ".tsv")
    lines, quotes, last = 0, 0, ord("\n")
    with file.open("rb") as stream:
        while block := stream.read(_COUNT_BLOCK_BYTES):
            data = np.frombuffer(block.replace(b"\r", b""), dtype=np.uint8)
            before = np.concatenate([[last], data])  # the byte before every position, and the last byte
            ends = (data == ord("\n")) & (before[:-1] != ord("\n"))
            if quoted:
                opened = quotes + np.cumsum(data == ord('"'))
                ends &= opened % 2 == 0
                quotes = int(opened[-1]) if len(opened) else quotes
            lines, last = lines + int(ends.sum()), int(before[-1])
    return max(lines + (last != ord("\n")) - quoted, 0)


def _require_file(path: str | Path) -> Path:
    """Return the path of a non-empty file; raise UnreadableFile otherwise."""
    file = Path(path)
    if file.is_dir():
        raise UnreadableFile(f"{file} is a folder: pass a file ({', '.join(SUFFIXES)})")
    if not file.exists():
        raise UnreadableFile(f"no file {file}: check the path, which is relative to {Path.cwd()}")
    if file.stat().st_size == 0:
        raise UnreadableFile(f"{file} is empty (0 bytes): expected a header and rows")
    return file


def _open_parquet(file: Path) -> Any:
    try:
        return parquet.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise UnreadableFile(f"{file} is not a Parquet file: {error}") from error


def _parquet_batches(
    file: Path, batch_rows: int, columns: Sequence[str] | None, text: Collection[str], schema: Schema
) -> Iterator[pd.DataFrame]:
    with _open_parquet(file) as opened:
        names = select_columns(file, opened.schema_arrow.names, columns)
        if opened.metadata.num_rows == 0:
            raise UnreadableFile(f"{file} has columns but no rows: columns are {', '.join(map(repr, names))}")
        for batch in opened.iter_batches(batch_rows, columns=names):
            if len(batch):
                yield to_dataframe(batch.select(names), text)


def _json_batches(
    file: Path, batch_rows: int, columns: Sequence[str] | None, text: Collection[str], schema: Schema
) -> Iterator[pd.DataFrame]:
    """Yield the rows of a file with one JSON object per line; an absent key is a missing value."""
    types: dict[str, set[type]] = {}
    for record in _json_records(file):
        for name, value in record.items():
            is_large = type(value) is int and value not in _INT64
            kind = object if is_large or name in schema else type(_json_value(value))
            types.setdefault(name, set()).add(kind)
    if not types:
        raise UnreadableFile(f"{file} has no rows: expected a JSON object on every line")
    names = select_columns(file, list(types), columns)
    records = _json_records(file)
    while batch := list(islice(records, batch_rows)):
        series = [_json_series([_json_value(row.get(name)) for row in batch], types[name]) for name in names]
        yield frame_of(names, series, len(batch), text)


def _json_records(file: Path) -> Iterator[dict[str, Any]]:
    with open_bytes(file) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            place = f"{file}, line {number}"
            try:
                record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                byte = f"{line[error.start]:#04x}"
                raise UnreadableFile(f"{place} (byte {byte}) is not UTF-8 text: save the file as UTF-8") from error
            except json.JSONDecodeError as error:
                raise UnreadableFile(f"{place} is not JSON: {error.msg} at column {error.colno}") from error
            except (
                ValueError,
                RecursionError,
            ) as error:  # a number of thousands of digits, deeply nested lists
                raise UnreadableFile(f"{place} cannot be read: {error}") from error
            if not isinstance(record, dict):
                raise UnreadableFile(f"{place} is not a JSON object: expected {{...}} with a value per column")
            yield record


def _json_value(value: Any) -> Any:
    return None if value == "" else none_if_missing(value)  # as an empty field of a CSV file


def _json_series(values: list[Any], types: set[type]) -> pd.Series[Any]:
    known, has_missing = types - {type(None)}, None in values
    if known == {bool}:
        return pd.Series(values, dtype="boolean" if has_missing else "bool")
    if known == {int}:
        return pd.Series(values, dtype="Int64" if has_missing else "int64")
    if known and known <= {int, float}:
        return pd.Series(values, dtype="float64")
    return pd.Series(values, dtype=object)


_READERS: dict[str, _Reader] = {
    ".csv": csv_batches,
    ".tsv": partial(csv_batches, delimiter="\t"),
    ".parquet": _parquet_batches,
    ".jsonl": _json_batches,
    ".ndjson": _json_batches,
}
