"""Rows in files: CSV, TSV, Parquet and JSON lines, whole or batch by batch with bounded memory.

What a column holds does not depend on where a batch begins: a text file is read twice, first to settle the
type of every column. A column of a text file is numeric only when every value in it is a number written as
one (``007`` is text), and a field is missing when it is empty; ``NA``, ``NaN``, ``null`` and the like are
missing in numeric columns and ordinary text in all others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from sfs.errors import UnreadableFile
from sfs.table_arrays import chosen, frame_of
from sfs.table_csv import csv_batches
from sfs.table_files import SUFFIXES, existing_file, kind_of
from sfs.table_json import json_batches
from sfs.table_writer import write_batches

__all__ = ["SUFFIXES", "count_rows", "read_batches", "read_table", "write_batches"]

_Reader: TypeAlias = Callable[[Path, int, Sequence[str] | None, Collection[str]], Iterator[pd.DataFrame]]

_COUNT_BLOCK_BYTES = 8 << 20


def read_table(
    path: str | Path, *, columns: Sequence[str] | None = None, text: Collection[str] = ()
) -> pd.DataFrame:
    """Read a whole file; see `read_batches` for the parameters and errors."""
    return pd.concat(read_batches(path, columns=columns, text=text), ignore_index=True)


def read_batches(
    path: str | Path,
    batch_rows: int = 50_000,
    columns: Sequence[str] | None = None,
    *,
    text: Collection[str] = (),
) -> Iterator[pd.DataFrame]:
    """Yield a file's rows in order, at most ``batch_rows`` at a time.

    Parameters
    ----------
    path
        A file whose suffix is one of `SUFFIXES`, with ``.gz`` behind or not (Parquet: not).
    batch_rows
        Rows of each data frame but the last.
    columns
        Which columns to read, in this order; all by default.
    text
        Columns that stay text whatever they hold; names that the file does not have are ignored.

    Raises
    ------
    UnreadableFile
        If the file is absent, empty, has a header only, is not UTF-8 (the line is named), has rows of unequal
        length, repeats a column name, lacks one of ``columns``, or its suffix is none of ours.
    """
    file = existing_file(path)
    if batch_rows < 1:
        raise ValueError(f"batch_rows must be at least 1, got {batch_rows}")
    yield from _READERS[kind_of(file)](file, batch_rows, columns, text)


def count_rows(path: str | Path) -> int | None:
    """Return how many rows a file has, for a progress bar, or None where counting is not cheap (.gz)."""
    file = existing_file(path)
    if kind_of(file) == ".parquet":
        return int(_parquet(file).metadata.num_rows)
    if file.suffix.lower() == ".gz":
        return None
    quoted = kind_of(file) in (".csv", ".tsv")
    return max(_count_lines(file, quoted) - quoted, 0)


def _count_lines(file: Path, quoted: bool) -> int:
    lines, quotes, last = 0, 0, ord("\n")
    with file.open("rb") as stream:
        while block := stream.read(_COUNT_BLOCK_BYTES):
            data = np.frombuffer(block.replace(b"\r", b""), dtype=np.uint8)
            before = np.concatenate([[last], data])  # the byte before each, and the last
            ends = (data == ord("\n")) & (before[:-1] != ord("\n"))
            if quoted:
                opened = quotes + np.cumsum(data == ord('"'))
                ends &= opened % 2 == 0
                quotes = int(opened[-1]) if len(opened) else quotes
            lines, last = lines + int(ends.sum()), int(before[-1])
    return lines + (last != ord("\n"))


def _parquet(file: Path) -> Any:
    try:
        return parquet.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise UnreadableFile(f"{file} is not a Parquet file: {error}") from error


def _parquet_batches(
    file: Path, batch_rows: int, columns: Sequence[str] | None, text: Collection[str]
) -> Iterator[pd.DataFrame]:
    with _parquet(file) as opened:
        names = chosen(file, opened.schema_arrow.names, columns)
        if opened.metadata.num_rows == 0:
            raise UnreadableFile(f"{file} has columns but no rows: they are {', '.join(map(repr, names))}")
        for batch in opened.iter_batches(batch_rows, columns=names):
            if len(batch):
                yield frame_of(batch.select(names), text)


_READERS: dict[str, _Reader] = {
    ".csv": csv_batches,
    ".tsv": csv_batches,
    ".parquet": _parquet_batches,
    ".jsonl": json_batches,
    ".ndjson": json_batches,
}
