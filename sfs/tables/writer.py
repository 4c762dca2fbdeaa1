"""Write rows to a file in batches, in the formats of `sfs.tables`."""

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
from sfs.patterns import replace_surrogates
from sfs.tables.formats import file_format, open_text


def write_batches(path: str | Path, frames: Iterable[pd.DataFrame]) -> int:
    """Write data frames with the same columns to one file, and return the number of rows.

    The write is atomic: rows go to a temporary file, which is renamed at the end. Booleans are written as
    ``true`` and ``false``, missing values as empty fields (CSV, TSV) or null, and lone surrogates, which UTF-8
    cannot encode, as U+FFFD. JSON Lines keep 15 decimals of a float.

    Parameters
    ----------
    path
        Output file; the suffix determines the format, as in `sfs.tables.read_batches`.
    frames
        At least one data frame; only one is in memory at a time.

    Raises
    ------
    UnreadableFile
        If the format is not supported.
    SliceError
        If a column cannot have one type in Parquet, the columns of the frames differ, or there are no frames.
    """
    file = Path(path)
    write = _WRITERS[file_format(file)]
    temporary = file.with_name(f".{os.getpid()}.{file.name}")  # keep the suffix, which determines the format
    try:
        rows = write(file, temporary, _encodable_frames(frames))
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def _encodable_frames(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    columns: list[Any] | None = None
    for frame in frames:
        columns = list(frame.columns) if columns is None else columns
        if list(frame.columns) != columns:
            raise SliceError(f"every batch must have the columns {columns}, got {list(frame.columns)}")
        yield _encodable_frame(frame)
    if columns is None:
        raise SliceError("nothing to write: pass at least one batch of rows")


def _encodable_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame without lone surrogates; the same frame if it has none."""
    changed: dict[int, pd.Series[Any]] = {}
    for i, (_, series) in enumerate(frame.items()):
        is_categorical = isinstance(series.dtype, pd.CategoricalDtype)
        kind = series.dtype.categories.dtype if is_categorical else series.dtype  # type: ignore[union-attr]
        if pd.api.types.is_object_dtype(kind) or pd.api.types.is_string_dtype(kind):
            values = series.tolist()
            encodable = [_encodable(value) for value in values]
            if not all(map(operator.is_, encodable, values)):
                changed[i] = pd.Series(encodable, index=series.index, dtype=object)
    names = [_encodable(name) for name in frame.columns]
    if not changed and all(map(operator.is_, names, frame.columns)):
        return frame
    columns = {i: changed.get(i, frame.iloc[:, i]) for i in range(frame.shape[1])}
    return pd.DataFrame(columns, index=frame.index).set_axis(names, axis=1)


def _encodable(value: Any) -> Any:
    """Return the value itself if it has no lone surrogates, else a copy without them."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, (list, tuple)):
        items = [_encodable(item) for item in value]
        return value if all(map(operator.is_, items, value)) else items
    if isinstance(value, dict):
        out = {_encodable(key): _encodable(item) for key, item in value.items()}
        same = all(map(operator.is_, out, value)) and all(map(operator.is_, out.values(), value.values()))
        return value if same else out
    return value


def _write_text(file: Path, temporary: Path, frames: Iterator[pd.DataFrame]) -> int:
    rows, delimiter = 0, "\t" if file_format(file) == ".tsv" else ","
    with open_text(temporary, "wt") as stream:
        for frame in frames:
            spelled = frame.apply(_lower_case_booleans)
            spelled.to_csv(stream, sep=delimiter, header=rows == 0, index=False)
            rows += len(frame)
    return rows


def _lower_case_booleans(series: pd.Series[Any]) -> pd.Series[Any]:
    if not pd.api.types.is_bool_dtype(series.dtype):
        return series
    return series.astype(object).map({True: "true", False: "false"}, na_action="ignore")


def _write_json(file: Path, temporary: Path, frames: Iterator[pd.DataFrame]) -> int:
    rows = 0
    with open_text(temporary, "wt") as stream:
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


def _write_parquet(file: Path, temporary: Path, frames: Iterator[pd.DataFrame]) -> int:
    rows, writer = 0, None
    try:
        for frame in frames:
            schema = None if writer is None else writer.schema
            try:
                table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
            except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
                raise SliceError(
                    f"{file}: {error.args[-1]}: a Parquet column has one type; write CSV or JSON lines"
                ) from error
            if writer is None:
                # Treat a column without values in the first batch as text.
                fields = [f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in table.schema]
                table = table.cast(pa.schema(fields))
                writer = parquet.ParquetWriter(temporary, table.schema)
            writer.write_table(table)
            rows += len(frame)
    finally:
        if writer is not None:
            writer.close()
    return rows


_WRITERS: dict[str, Callable[[Path, Path, Iterator[pd.DataFrame]], int]] = {
    ".csv": _write_text,
    ".tsv": _write_text,
    ".jsonl": _write_json,
    ".ndjson": _write_json,
    ".parquet": _write_parquet,
}
