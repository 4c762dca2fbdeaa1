"""JSON lines: one object a line, read batch by batch."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from sfs.errors import UnreadableFile
from sfs.table_arrays import as_text, chosen
from sfs.table_files import opened_bytes
from sfs.values import present

_WHOLE = range(-(2**63), 2**63)


def json_batches(
    path: Path, batch_rows: int, columns: Sequence[str] | None, text: Collection[str]
) -> Iterator[pd.DataFrame]:
    """Yield the rows of a file of JSON objects; an absent key is a missing value."""
    kinds: dict[str, set[type]] = {}
    for record in _records(path):
        for name, value in record.items():
            kinds.setdefault(name, set()).add(_kind(value))
    if not kinds:
        raise UnreadableFile(f"{path} holds no rows: expected a JSON object on every line")
    wanted = {name: kinds[name] for name in chosen(path, list(kinds), columns)}
    records = _records(path)
    while batch := list(islice(records, batch_rows)):
        yield _frame(batch, wanted, text)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with opened_bytes(path) as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield _record(path, number, line)


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        byte = f"{line[error.start]:#04x}"
        raise UnreadableFile(
            f"{path}, line {number} (byte {byte}) is not UTF-8 text: save as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise UnreadableFile(
            f"{path}, line {number} is not JSON: {error.msg} at column {error.colno}"
        ) from error
    if not isinstance(record, dict):
        raise UnreadableFile(
            f"{path}, line {number} is not a JSON object: expected {{...}} with a value per column"
        )
    return record


def _kind(value: Any) -> type:
    if isinstance(value, int) and not isinstance(value, bool) and value not in _WHOLE:
        return object
    return type(present(value))


def _frame(records: list[dict[str, Any]], kinds: dict[str, set[type]], text: Collection[str]) -> pd.DataFrame:
    columns = [_series([present(record.get(name)) for record in records], kinds[name]) for name in kinds]
    spelled = [
        as_text(column) if name in text else column for name, column in zip(kinds, columns, strict=True)
    ]
    frame = pd.DataFrame(dict(enumerate(spelled)), index=pd.RangeIndex(len(records)))
    frame.columns = pd.Index(kinds, dtype=object)
    return frame


def _series(values: list[Any], kinds: set[type]) -> pd.Series[Any]:
    held, missing = kinds - {type(None)}, None in values
    if held == {bool}:
        return pd.Series(values, dtype="boolean" if missing else "bool")
    if held == {int}:
        return pd.Series(values, dtype="Int64" if missing else "int64")
    if held and held <= {int, float}:
        return pd.Series(values, dtype="float64")
    return pd.Series(values, dtype=object)
