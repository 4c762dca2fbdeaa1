"""File formats, and conversion of their columns to pandas series: numbers, text and missing values."""

from __future__ import annotations

import csv
import gzip
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import IO, Any, cast

import pandas as pd
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import csv as arrow_csv

from sfs.errors import UnreadableFile, did_you_mean
from sfs.record import none_if_missing, text_of
from sfs.schema import MISSING_WORDS, Column, Schema

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
"""Supported formats; all but Parquet also with ``.gz`` appended."""
FORMATS = tuple(suffix[1:] for suffix in SUFFIXES if suffix != ".ndjson")
"""Names of the formats, for a file whose suffix names none; ``table`` is that of its suffix or content."""

_SNIFFED = ("", ".data", ".dat", ".tab", ".test", ".txt")
_SNIFFED_BYTES = 1 << 16
_MISSING_WORDS = pa.array(sorted(MISSING_WORDS))
_CODE = r"^[+-]?(0[0-9xX]|[0-9]{19})"
"""Pattern of a code, not a number: leading zeros, or more digits than fit in an int64."""


def file_format(path: Path, advice: str = "") -> str:
    """Return the format of a file, one of `SUFFIXES`, compressed or not.

    Raises
    ------
    UnreadableFile
        If the suffix is not supported, or the file is compressed Parquet.

    Examples
    --------
    >>> file_format(Path("comments.CSV.gz"))
    '.csv'
    """
    suffix = (path.with_suffix("") if is_gzip(path) else path).suffix.lower()
    if suffix not in SUFFIXES or (is_gzip(path) and suffix == ".parquet"):
        known = ", ".join(SUFFIXES)
        raise UnreadableFile(
            f"{path}: unknown file format {path.suffix!r}; supported are {known} (text also with .gz){advice}"
        )
    return suffix


def input_format(path: Path, given: str = "table") -> str:
    """Return the format of an existing file: the given one, else by its suffix, else by its first bytes.

    Raises
    ------
    UnreadableFile
        As `file_format`, or if ``given`` is none of `FORMATS`.
    """
    if given in FORMATS:
        return f".{given}"
    if given != "table":
        raise UnreadableFile(f"{path}: unknown file format {given!r}; supported are {', '.join(FORMATS)}")
    advice = f"; if its suffix is misleading, name its format: {', '.join(FORMATS)}"
    if (path.with_suffix("") if is_gzip(path) else path).suffix.lower() not in _SNIFFED:
        return file_format(path, advice)
    try:
        with open_bytes(path) as stream:
            start = stream.read(_SNIFFED_BYTES)
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read: {error}") from error
    if start.startswith(b"PAR1") and not is_gzip(path):
        return ".parquet"
    if b"\0" in start:
        return file_format(path, advice)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if re.match(rb"\{\s*[\"}]", text):
        return ".jsonl"
    header = text.partition(b"\n")[0]
    return ".tsv" if header.count(b"\t") > header.count(b",") else ".csv"


def is_gzip(path: Path) -> bool:
    """Return whether a file's name ends in ``.gz``."""
    return path.suffix.lower() == ".gz"


def open_text(path: Path, mode: str = "rt", encoding: str = "utf-8") -> IO[str]:
    """Open a text file, compressed or not, without newline translation."""
    if is_gzip(path):
        return cast("IO[str]", gzip.open(path, mode, encoding=encoding, newline=""))
    return cast("IO[str]", path.open(mode.replace("t", ""), encoding=encoding, newline=""))


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading bytes, compressed or not."""
    return cast("IO[bytes]", gzip.open(path, "rb") if is_gzip(path) else path.open("rb"))


def select_columns(path: Path, names: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    """Return the columns to read; raise UnreadableFile if a name is absent or repeated."""
    duplicates = sorted(name for name, count in Counter(names).items() if count > 1)
    if duplicates and not duplicates[0].strip():
        places = ", ".join(str(k) for k, name in enumerate(names, start=1) if not name.strip())
        raise UnreadableFile(
            f"{path}: columns {places} have no name: name them in the first line, and remove a title above the header"
        )
    if duplicates:
        raise UnreadableFile(f"{path}: column {duplicates[0]!r} appears more than once: rename one of them")
    for name in columns or ():
        if name not in names:
            raise UnreadableFile(f"{path}: no column {name!r}{did_you_mean(name, names)}")
    return list(names if columns is None else columns)


def to_dataframe(batch: pa.RecordBatch | pa.Table, text: Collection[str] = ()) -> pd.DataFrame:
    """Return a data frame of Arrow columns; convert the columns in ``text`` to text, whatever their type."""
    names = batch.schema.names
    return frame_of(names, [_series(column) for column in batch.columns], batch.num_rows, text)


def frame_of(
    names: Collection[str], series: Sequence[pd.Series[Any]], rows: int, text: Collection[str]
) -> pd.DataFrame:
    """Return a data frame of series; convert the columns in ``text`` to text, but keep missing values and lists."""
    columns = dict(enumerate(series))
    for position, name in enumerate(names):
        if name in text:
            columns[position] = pd.Series([_text(value) for value in columns[position].tolist()], dtype=object)
    frame = pd.DataFrame(columns, index=pd.RangeIndex(rows))
    frame.columns = pd.Index(names, dtype=object)
    return frame


def _text(value: Any) -> Any:
    try:
        return None if none_if_missing(value) is None else text_of(value)
    except TypeError:  # a list, which features refuse with its row
        return value


def _series(column: Any) -> pd.Series[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if pa.types.is_nested(column.type):
        # pandas would make floats of the whole numbers of every list as soon as one in the batch lacks a number
        return pd.Series(column.to_pylist(), dtype=object)
    if column.null_count and pa.types.is_integer(column.type):
        whole = pd.UInt64Dtype() if column.type == pa.uint64() else pd.Int64Dtype()
        return column.to_pandas(types_mapper=lambda _: whole)  # type: ignore[no-any-return]
    if column.null_count and pa.types.is_boolean(column.type):
        return column.to_pandas(types_mapper=lambda _: pd.BooleanDtype())  # type: ignore[no-any-return]
    return column.to_pandas()  # type: ignore[no-any-return]


def narrowest_type(column: pa.Array) -> pa.DataType:
    """Return the narrowest type for all values of a text column: null, bool, int64, double or string."""
    values = null_if_missing(column)
    if values.null_count == len(values):
        return pa.null()
    if pc.any(pc.match_substring_regex(values, _CODE)).as_py():
        return pa.string()
    if pc.all(pc.is_in(pc.utf8_lower(values), pa.array(["true", "false", None]))).as_py():
        return pa.bool_()
    for kind in (pa.int64(), pa.float64()):
        try:
            pc.cast(values, kind)
        except pa.ArrowInvalid:
            continue
        return kind
    return pa.string()


def null_if_missing(column: pa.Array) -> pa.Array:
    """Strip the values of a text column, and replace markers of a missing number by null."""
    stripped = pc.utf8_trim_whitespace(column)
    missing = pc.or_(pc.is_in(stripped, _MISSING_WORDS), pc.equal(stripped, ""))
    return pc.if_else(missing, pa.scalar(None, pa.string()), stripped)


def common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    """Return the narrowest supported type that represents the values of both.

    Examples
    --------
    >>> str(common_type(pa.int64(), pa.float64())), str(common_type(pa.bool_(), pa.int64()))
    ('double', 'string')
    """
    if first == second or second == pa.null():
        return first
    if first == pa.null():
        return second
    return pa.float64() if {first, second} == {pa.int64(), pa.float64()} else pa.string()


_BLOCK_BYTES = 8 << 20
_LIMIT_LOCK = Lock()


def csv_batches(
    path: Path,
    batch_rows: int,
    columns: Sequence[str] | None,
    text: Collection[str],
    schema: Schema,
    delimiter: str = ",",
) -> Iterator[pd.DataFrame]:
    """Yield the rows of a comma- or tab-separated file; see `sfs.tables.read_batches`."""
    header = _header(path, delimiter)
    stripped = [name.strip() for name in header]
    names = select_columns(path, stripped, columns)
    written = [header[stripped.index(name)] for name in names]
    types = {name: pa.string() if name in text or name in schema else pa.null() for name in names}
    has_line_ends = False
    for block in _blocks(path, delimiter, written):
        for name, column in zip(names, block.columns, strict=True):
            if types[name] != pa.string():
                types[name] = common_type(types[name], narrowest_type(column))
            if types[name] == pa.string() and not has_line_ends:
                has_line_ends = bool(pc.any(pc.match_substring(column, "\n")).as_py())
    if has_line_ends:
        _check_quotes(path, delimiter)
    pending: list[pa.RecordBatch] = []
    for block in _blocks(path, delimiter, written):
        arrays = [_cast(column, kind) for column, kind in zip(block.columns, types.values(), strict=True)]
        pending.append(pa.RecordBatch.from_arrays(arrays, names=names))
        while sum(map(len, pending)) >= batch_rows:
            table = pa.Table.from_batches(pending)
            yield to_dataframe(_by_schema(table.slice(0, batch_rows), schema), text)
            pending = table.slice(batch_rows).to_batches()
    if pending:
        yield to_dataframe(_by_schema(pa.Table.from_batches(pending), schema), text)


_ARROW_TYPES = {"boolean": pa.bool_(), "integer": pa.int64(), "number": pa.float64()}
_PLAIN = r"^([+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|(?i:true|false))$"
"""Pattern of the values that Arrow reads as the schema does; it also reads ``0x1F`` and ``NAN``."""


def _by_schema(table: pa.Table, schema: Schema) -> pa.Table:
    """Return a table with columns cast at once where Arrow reads all values; others stay text, for the schema."""
    for place, name in enumerate(table.column_names):
        column = schema.columns.get(name, Column(name, "text"))
        kind = _ARROW_TYPES.get(column.type)
        if kind is not None and column == Column(name, column.type):
            values = null_if_missing(table.column(place).combine_chunks())
            if pc.all(pc.match_substring_regex(values, _PLAIN)).as_py():
                with suppress(pa.ArrowInvalid):
                    table = table.set_column(place, name, pc.cast(values, kind))
    return table


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if kind == pa.string():
        return column
    values = null_if_missing(column)
    return values if kind == pa.null() else pc.cast(values, kind)


def _header(path: Path, delimiter: str) -> list[str]:
    try:
        with _long_fields(), open_text(path, encoding="utf-8-sig") as stream:
            rows = (row for row in csv.reader(stream, delimiter=delimiter) if row)
            names = next(rows, None)
            first = next(rows, None)
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise _unreadable(path, delimiter, error) from error
    if names is None:
        raise UnreadableFile(f"{path} has only blank lines: expected a header and rows")
    if first is None:
        raise UnreadableFile(f"{path} has a header but no rows: columns are {', '.join(map(repr, names))}")
    if len(names) == len(first) == 1 and 0 < names[0].count(";") == first[0].count(";"):
        raise UnreadableFile(f"{path} appears to be separated by ';': save it with commas, or with tabs as .tsv")
    return names


@contextmanager
def _long_fields() -> Iterator[None]:
    """Raise the field size limit of the csv module, global to the process, to that of Arrow."""
    with _LIMIT_LOCK:
        before = csv.field_size_limit(_BLOCK_BYTES)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _blocks(path: Path, delimiter: str, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    convert = arrow_csv.ConvertOptions(
        column_types={name: pa.string() for name in names},
        include_columns=list(names),
        strings_can_be_null=True,
        null_values=[""],
    )
    parse = arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    read = arrow_csv.ReadOptions(block_size=_BLOCK_BYTES)
    try:
        with arrow_csv.open_csv(path, read_options=read, parse_options=parse, convert_options=convert) as blocks:
            yield from (block for block in blocks if len(block))
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, delimiter, error) from error


def _unreadable(path: Path, delimiter: str, error: Exception) -> UnreadableFile:
    """Return the error to raise, with the faulty line if a second pass finds it."""
    text = str(error)
    if isinstance(error, UnicodeDecodeError) or "UTF8" in text or "UTF-8" in text:
        return UnreadableFile(f"{path}{_line_not_utf8(path)} is not UTF-8 text: save the file as UTF-8")
    if "columns, got" in text:
        return UnreadableFile(f"{path}{_ragged_record(path, delimiter)}")
    if "straddl" in text or "field limit" in text:
        at = _long_record(path, delimiter)
        return UnreadableFile(f"{path}{at}: a row exceeds {_BLOCK_BYTES >> 20} MiB: is a quote not closed there?")
    return UnreadableFile(f"{path} cannot be read: {text}")


def _line_not_utf8(path: Path) -> str:
    with open_bytes(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return f", line {number} (byte {line[error.start]:#04x})"
    return ""


def _ragged_record(path: Path, delimiter: str) -> str:
    with _long_fields(), open_text(path, encoding="utf-8-sig") as stream:
        reader = csv.reader(stream, delimiter=delimiter)
        header = next(row for row in reader if row)
        width, second, begin = len(header), reader.line_num + 1, reader.line_num + 1
        for row in reader:
            if row and len(row) != width:
                values = f"{len(row)} value{'s' * (len(row) != 1)} where the header has {width}"
                if reader.line_num > begin:
                    return (
                        f", the record that begins in line {begin} and ends in line {reader.line_num} has {values}: "
                        f"is a quote not closed in line {begin}?"
                    )
                title = f"; is line {second - 1} a title above the header?" if begin == second else ""
                return f", line {begin} has {values}: quote values that contain {delimiter!r}{title}"
            begin = reader.line_num + 1
    return f" has rows of unequal length: quote values that contain {delimiter!r}"


def _long_record(path: Path, delimiter: str) -> str:
    begin = 1
    with _long_fields(), open_text(path, encoding="utf-8-sig") as stream:
        reader = csv.reader(stream, delimiter=delimiter)
        try:
            for row in reader:
                if sum(map(len, row)) >= _BLOCK_BYTES:
                    break
                begin = reader.line_num + 1
        except csv.Error:
            pass
    return f", line {begin}"


def _check_quotes(path: Path, delimiter: str) -> None:
    """Raise UnreadableFile if a value over several lines begins with a quote that is not closed before text."""
    begin = 1
    with _long_fields(), open_text(path, encoding="utf-8-sig") as stream:
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        while True:
            try:
                if next(reader, None) is None:
                    return
            except csv.Error:
                if reader.line_num > begin:
                    raise UnreadableFile(
                        f"{path}, the record that begins in line {begin} and ends in line {reader.line_num} has text "
                        f"after a quoted value, or no closing quote: is a quote not closed in line {begin}?"
                    ) from None
            begin = reader.line_num + 1
