"""Labels in a file, row by row: what can be sent, and why not where it cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import MisuseError

if TYPE_CHECKING:
    import pandas as pd

    from service.api.schemas.predictions import LabelIn

OPTIONAL = ("observed_at", "labeller", "idempotency_key")
SAID_AS_IT_IS = ("id", "labeller", "idempotency_key")
"""Fields that stay text in a text file: ``007`` is an id, and not 7."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row, counted from 0: its label, or why it has none that can be sent."""

    number: int
    id: str | None
    label: LabelIn | None
    reason: str | None = None


def label_columns(file: Path, id_column: str, label_column: str) -> dict[str, str]:
    """Return which column holds which field: field -> column, for those that the file has.

    Raises
    ------
    UnreadableFile
        If the file cannot be read.
    MisuseError
        If it lacks the id or the label.
    """
    from sfs.errors import did_you_mean
    from sfs.tables import read_batches

    names = [str(name) for name in next(read_batches(file, 1)).columns]
    wanted = {"id": id_column, "label": label_column}
    problems = [
        f"{file}: no column {column!r}{did_you_mean(column, names)}; --{field}-column names the one with the {field}"
        for field, column in wanted.items()
        if column not in names
    ]
    if problems:
        raise MisuseError(problems)
    return wanted | {name: name for name in OPTIONAL if name in names and name not in wanted.values()}


def read_rows(file: Path, columns: Mapping[str, str], batch_rows: int) -> Iterator[list[Row]]:
    """Yield the rows of a file, so many at a time; ``columns`` as ``label_columns`` returns them."""
    from sfs.tables import file_format, read_batches

    written = file_format(file) in (".csv", ".tsv")
    text = [columns[field] for field in SAID_AS_IT_IS if field in columns] if written else ()
    start = 0
    for frame in read_batches(file, batch_rows, list(dict.fromkeys(columns.values())), text=text):
        yield [_row(start + n, fields) for n, fields in enumerate(_fields(frame, columns))]
        start += len(frame)


def _fields(frame: pd.DataFrame, columns: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield each row's fields that are there."""
    from sfs.record import none_if_missing

    values = {
        field: [none_if_missing(v) for v in frame[column].tolist()] for field, column in columns.items()
    }
    for row in zip(*values.values(), strict=True):
        named = zip(values, row, strict=True)
        yield {field: v for field, v in named if v is not None and not (isinstance(v, str) and not v.strip())}


def _row(number: int, fields: dict[str, Any]) -> Row:
    from pydantic import ValidationError

    from service.api.requests import field_errors
    from service.api.schemas.predictions import LabelIn
    from sfs.record import text_of

    id_ = str(fields["id"]) if "id" in fields else None
    try:
        if absent := [field for field in ("id", "label") if field not in fields]:
            raise ValueError(f"the row has no {absent[0]}")
        said = {field: text_of(value) for field, value in fields.items() if field in SAID_AS_IT_IS}
        when = {"observed_at": _moment(fields["observed_at"])} if "observed_at" in fields else {}
        return Row(number, id_, LabelIn.model_validate({**fields, **said, **when}))
    except ValidationError as error:
        wrong = field_errors(error.errors(include_url=False, include_context=False, include_input=False))
        return Row(number, id_, None, "; ".join(f"{each.field}: {each.message}" for each in wrong))
    except (ValueError, TypeError) as error:
        return Row(number, id_, None, str(error))


def _moment(value: Any) -> str:
    """Return a date and time as ISO 8601, in UTC where no zone is given."""
    said = str(value).strip()
    try:
        if said[4:5] != "-":
            raise ValueError  # digits alone would be read as a date, whatever they count
        at = datetime.fromisoformat(said)
    except ValueError:
        raise ValueError(f"observed_at {said!r:.60} is no time: write it as 2026-05-01T12:00:00Z") from None
    return (at.replace(tzinfo=UTC) if at.tzinfo is None else at).isoformat()
