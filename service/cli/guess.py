"""What the columns of a table seem to be: text, number or category, or nothing that a model should read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.errors import MisuseError
from service.settings.nodes import nearest

if TYPE_CHECKING:
    import pandas as pd

LABEL_NAMES = ("label", "class", "target", "y")
MOST_LABELS = 50
MOST_CATEGORIES = 100
LONGEST_CATEGORY = 60
_ID_NAME = re.compile(r"(^|[\W_])(id|uuid|guid|key|index|nr)$", re.IGNORECASE)
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ]\d{1,2}:\d{2}.*)?")


@dataclass(frozen=True, slots=True)
class Column:
    """One column and what it was taken for; ``kind`` is None where it is left out."""

    name: str
    kind: str | None
    why: str
    distinct: int
    missing: int
    rows: int
    example: str

    @property
    def missing_share(self) -> float:
        """The share of rows without a value."""
        return self.missing / self.rows


def guess_columns(frame: pd.DataFrame, label: str) -> list[Column]:
    """Say of every column but the label what it is, and why.

    Raises
    ------
    MisuseError
        If no column is left that a model could read.
    """
    columns = [_column(str(name), frame[name]) for name in frame.columns if str(name) != label]
    if not any(column.kind for column in columns):
        said = "; ".join(f"{column.name!r}: {column.why}" for column in columns) or "there is only the label"
        raise MisuseError(f"no column can be a feature: {said}")
    return columns


def guess_label(frame: pd.DataFrame, asked: str | None) -> str:
    """Return the label column: the one asked for, or one with an obvious name and few values.

    Raises
    ------
    MisuseError
        If the column asked for is not there, or none is obvious; the message lists the candidates.
    """
    names = [str(name) for name in frame.columns]
    if asked is not None:
        if asked not in names:
            raise MisuseError(
                f"no column {asked!r} for the label{nearest(asked, names)}; the columns are {names}"
            )
        return asked
    values = {str(name): _distinct(frame[name]) for name in frame.columns}
    few = {name: count for name, count in values.items() if 2 <= count <= MOST_LABELS}
    for known in LABEL_NAMES:
        for name in few:
            if name.strip().lower() == known:
                return name
    options = (
        ", ".join(f"{name!r} ({count} values)" for name, count in few.items()) or "none has 2 to 50 values"
    )
    raise MisuseError(f"which column is the label? Pass --label COLUMN; candidates: {options}")


def shortened(value: Any, most: int = 40) -> str:
    """Return a value on one printable line.

    Examples
    --------
    >>> shortened("two\\nlines " + "x" * 50, most=12)
    'two lines...'
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    return line if len(line) <= most else line[: most - 3].rstrip() + "..."


def _column(name: str, series: pd.Series[Any]) -> Column:
    present = series.dropna()
    kind, why = _kind(name, series, present)
    example = shortened(present.iloc[0]) if len(present) else ""
    return Column(name, kind, why, _distinct(series), len(series) - len(present), len(series), example)


def _distinct(series: pd.Series[Any]) -> int:
    try:
        return int(series.nunique())
    except TypeError:  # lists and objects cannot be counted, and are left out
        return len(series)


def _kind(name: str, series: pd.Series[Any], present: pd.Series[Any]) -> tuple[str | None, str]:
    from pandas.api import types

    if present.empty:
        return None, "it is empty"
    if not all(
        isinstance(value, (str, bool, int, float)) or types.is_scalar(value) for value in present.head(1000)
    ):
        return None, "it holds lists or objects"
    if _distinct(present) == 1 and len(present) == len(series):
        return None, "it has the same value in every row"
    if types.is_bool_dtype(present.infer_objects()):
        return "category", "true or false"
    if types.is_datetime64_any_dtype(present):
        return None, "it is a date; derive a number or a category from it"
    if types.is_numeric_dtype(present.infer_objects()):
        return _number_kind(name, present.infer_objects())
    return _text_kind(present.astype(str))


def _number_kind(name: str, present: pd.Series[Any]) -> tuple[str | None, str]:
    whole = bool((present % 1 == 0).all())
    every_one_differs = len(present) >= 20 and present.nunique() == len(present)
    steps_of_one = bool((present.diff().dropna() == 1).all())
    if whole and every_one_differs and (steps_of_one or _ID_NAME.search(name)):
        return None, "it looks like an id: every row has its own"
    return "number", f"numbers from {present.min():g} to {present.max():g}"


def _text_kind(present: pd.Series[str]) -> tuple[str | None, str]:
    sample, distinct = present.head(1000), present.nunique()
    words = float(sample.str.split().str.len().mean())
    if float(sample.map(lambda value: bool(_DATE.fullmatch(value.strip()))).mean()) >= 0.95:
        return None, "it is a date; derive a number or a category from it"
    short = float(sample.str.len().mean()) <= LONGEST_CATEGORY
    if short and distinct <= MOST_CATEGORIES and distinct <= len(present) / 5:
        return "category", "few values that come again and again"
    if words >= 2.5 or _is_unspaced_text(sample):
        return "text", f"{words:.1f} words on average"
    if distinct > 0.9 * len(present) and len(present) >= 20:
        return None, "it looks like an id or a name: nearly every row has its own"
    if short and distinct <= MOST_CATEGORIES:
        return "category", "few values"
    return None, "it has too many values for a category, and too few words for text"


def _is_unspaced_text(sample: pd.Series[str]) -> bool:
    """Tell writing without spaces, such as Chinese, from ids and links, which are ASCII."""
    characters = "".join(sample)
    foreign = sum(character > "\u2e80" for character in characters)
    return foreign > len(characters) / 3 and len(characters) >= 5 * len(sample)
