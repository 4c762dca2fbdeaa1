"""Scan of a data set: one pass over its rows and labels, and a guess of the kind of each column."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.cli.project import blank_rows, project_source
from service.errors import MisuseError
from service.settings import nearest

if TYPE_CHECKING:
    import pandas as pd

    from service.settings.schema import Settings

SAMPLE_ROWS = 1000
SAMPLE_SEED = 0
LABEL_NAMES = ("label", "class", "target", "y")
MAX_CLASSES = 50
MAX_CATEGORIES = 100
MAX_CATEGORY_CHARACTERS = 60
_ID_NAME = re.compile(r"(^|[\W_])(id|uuid|guid|key|index|nr)$", re.IGNORECASE)
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ]\d{1,2}:\d{2}.*)?")


@dataclass(frozen=True, slots=True)
class DatasetScan:
    """Result of one pass: number of rows, first batch, uniform random sample of all rows, and classes."""

    rows: int
    first: pd.DataFrame
    sample: pd.DataFrame
    classes: tuple[str, ...]


def scan(settings: Settings, problems: list[str]) -> DatasetScan | None:
    """Read all rows once, in bounded memory, and append problems; None if the rows cannot be read."""
    import numpy as np

    from models.classes import class_names, read_labels
    from models.errors import ModelError
    from sfs.errors import SliceError

    label, random = settings.label, np.random.default_rng(SAMPLE_SEED)
    rows, first, keys, sample = 0, None, np.empty(0), None
    classes: dict[str, None] = {}
    blank: list[int] = []
    label_error = None
    try:
        for batch in project_source(settings).batches():
            first = batch if first is None else first
            if label in map(str, batch.columns):  # a missing column is another problem
                positions = blank_rows(batch[label])
                try:
                    classes |= dict.fromkeys(read_labels(batch.drop(index=batch.index[positions]), label))
                except ModelError as error:
                    label_error = label_error or str(error)
                blank += [rows + row for row in positions]
            rows += len(batch)
            keys, sample = _smallest_keys(keys, sample, random.random(len(batch)), batch)
    except (SliceError, ModelError, OSError) as error:
        problems.append(f"data: {error}")
        sample = None
    if first is not None and label in map(str, first.columns) and not label_error:
        try:
            class_names(list(classes), label)
        except ModelError as error:
            label_error = str(error)
    if label_error:
        problems.append(f"label: {label_error}")
    if blank:
        problems.append(
            f"label: {len(blank):,} of {rows:,} rows have no {label!r}, first in row {blank[0]} (from 0): fill them "
            "in or remove those rows"
        )
    if first is None or sample is None:
        return None
    return DatasetScan(rows, first, sample.reset_index(drop=True), tuple(classes))


def _smallest_keys(
    keys: Any, sample: pd.DataFrame | None, new_keys: Any, batch: pd.DataFrame
) -> tuple[Any, pd.DataFrame]:
    """Return the rows of a sample and a batch with the smallest random keys, in file order."""
    import numpy as np
    import pandas as pd

    keys = np.concatenate([keys, new_keys])
    chosen = np.sort(np.argsort(keys, kind="stable")[:SAMPLE_ROWS])
    old = len(keys) - len(batch)
    parts = [batch.iloc[chosen[chosen >= old] - old]]
    if sample is not None:
        parts.insert(0, sample.iloc[chosen[chosen < old]])
    return keys[chosen], pd.concat([part for part in parts if len(part)] or parts[:1])


@dataclass(frozen=True, slots=True)
class ColumnGuess:
    """Guessed kind of a column, and the reason; ``kind`` is None if the column is left out."""

    name: str
    kind: str | None
    reason: str
    distinct: int
    missing: int
    rows: int
    example: str


def guess_columns(frame: pd.DataFrame, label: str) -> list[ColumnGuess]:
    """Guess the kind of every column but the label.

    Raises
    ------
    MisuseError
        If no column can be a feature.
    """
    guesses = []
    for column in frame.columns:
        if (name := str(column)) != label:
            series = frame[column]
            present = series.dropna()
            kind, reason = _guess_kind(name, series, present)
            example = excerpt(present.iloc[0]) if len(present) else ""
            missing = len(series) - len(present)
            guesses.append(
                ColumnGuess(name, kind, reason, _count_distinct(series), missing, len(series), example)
            )
    if not any(guess.kind for guess in guesses):
        reasons = "; ".join(f"{guess.name!r}: {guess.reason}" for guess in guesses)
        raise MisuseError(f"no column can be a feature: {reasons or 'there is only the label'}")
    return guesses


def guess_label(frame: pd.DataFrame, requested: str | None) -> str:
    """Return the label column: the requested one, or one with a usual name and few values.

    Raises
    ------
    MisuseError
        If the requested column is missing, or no column is obvious; the message lists the candidates.
    """
    names = [str(name) for name in frame.columns]
    if requested is not None:
        if requested not in names:
            raise MisuseError(
                f"no column {requested!r} for the label{nearest(requested, names)}; the columns are {names}"
            )
        return requested
    counts = {str(name): _count_distinct(frame[name]) for name in frame.columns}
    candidates = {name: count for name, count in counts.items() if 2 <= count <= MAX_CLASSES}
    for usual in LABEL_NAMES:
        for name in candidates:
            if name.strip().lower() == usual:
                return name
    listed = ", ".join(f"{name!r} ({count} values)" for name, count in candidates.items())
    raise MisuseError(
        f"which column is the label? Pass --label COLUMN; candidates: {listed or 'none has 2 to 50 values'}"
    )


def excerpt(value: Any, max_characters: int = 40) -> str:
    """Return a value on one printable line.

    Examples
    --------
    >>> excerpt("two\\nlines " + "x" * 50, max_characters=12)
    'two lines...'
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    return line if len(line) <= max_characters else line[: max_characters - 3].rstrip() + "..."


def _count_distinct(series: pd.Series[Any]) -> int:
    try:
        return int(series.nunique())
    except TypeError:  # lists and objects cannot be counted, and are left out
        return len(series)


def _guess_kind(name: str, series: pd.Series[Any], present: pd.Series[Any]) -> tuple[str | None, str]:
    from pandas.api import types

    if present.empty:
        return None, "it is empty"
    if not all(isinstance(v, (str, bool, int, float)) or types.is_scalar(v) for v in present.head(1000)):
        return None, "it holds lists or objects"
    if _count_distinct(present) == 1 and len(present) == len(series):
        return None, "it has the same value in every row"
    if types.is_bool_dtype(present.infer_objects()):
        return "category", "true or false"
    if types.is_datetime64_any_dtype(present):
        return None, "it is a date; derive a number or a category from it"
    if types.is_numeric_dtype(present.infer_objects()):
        return _guess_number(name, present.infer_objects())
    return _guess_text(present.astype(str))


def _guess_number(name: str, present: pd.Series[Any]) -> tuple[str | None, str]:
    is_unique = len(present) >= 20 and present.nunique() == len(present)
    is_whole, is_counter = bool((present % 1 == 0).all()), bool((present.diff().dropna() == 1).all())
    if is_unique and is_whole and (is_counter or _ID_NAME.search(name)):
        return None, "it looks like an id: every row has its own"
    return "number", f"numbers from {present.min():g} to {present.max():g}"


def _guess_text(present: pd.Series[str]) -> tuple[str | None, str]:
    sample, distinct = present.head(1000), present.nunique()
    words = float(sample.str.split().str.len().mean())
    if float(sample.map(lambda value: bool(_DATE.fullmatch(value.strip()))).mean()) >= 0.95:
        return None, "it is a date; derive a number or a category from it"
    is_short = float(sample.str.len().mean()) <= MAX_CATEGORY_CHARACTERS
    if is_short and distinct <= MAX_CATEGORIES and distinct <= len(present) / 5:
        return "category", "few values, often repeated"
    # Ids and links are ASCII; other text without spaces, such as Chinese, is text.
    characters = "".join(sample)
    unspaced = sum(character > "\u2e80" for character in characters) > len(characters) / 3
    if words >= 2.5 or (unspaced and len(characters) >= 5 * len(sample)):
        return "text", f"{words:.1f} words on average"
    if distinct > 0.9 * len(present) and len(present) >= 20:
        return None, "it looks like an id or a name: nearly every row has its own"
    if is_short and distinct <= MAX_CATEGORIES:
        return "category", "few values"
    return None, "it has too many values for a category and too few words for text"
