"""Schema of a table: one type per column, and one rule to read a value whatever the source spells.

A schema is settled once, from the training table, and kept with the model. Files, requests, labels and logged
records are then read by it, so that a row has one value per column whatever stands beside it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from sfs.errors import SliceError
from sfs.record import none_if_missing, text_of

if TYPE_CHECKING:
    import pandas as pd

ColumnType: TypeAlias = Literal["boolean", "integer", "number", "float32", "category", "text"]

MISSING_WORDS = frozenset({"NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "<NA>"})
"""Text that stands for a missing number or truth value, besides the empty text."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)", re.ASCII | re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d{1,40}", re.ASCII)
_TRUTH = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_CODE = re.compile(r"\d+", re.ASCII)
_FREE_TEXT_WORDS = 2.5
_SAMPLE_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Column:
    """Name and type of a column, and how its values are read.

    Parameters
    ----------
    name
        The column.
    type
        ``boolean``; ``integer``, exact at any size; ``number``, a 64-bit float; ``float32``, rounded to 32 bits;
        ``category``, short text without blanks around it, in Unicode form NFC; ``text``, read literally.
    width
        Digits of a code with leading zeros, such as 5 for ``00501``; a number is padded to it. Categories only.
    truth
        Spelling of true and false in a category that has other values too.

    Examples
    --------
    >>> Column("active", "boolean").parse("TRUE "), Column("zip", "category", width=5).parse(501)
    (True, '00501')
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    type: ColumnType
    width: Annotated[int, Field(ge=1, le=40)] | None = None
    truth: tuple[str, str] | None = None

    def parse(self, value: Any) -> Any:
        """Return a value in the column's type, None if it is missing, or the value itself if it is of another type.

        A value of another type is refused by a feature and makes memberships of templates unknown.
        """
        value = none_if_missing(value)
        if isinstance(value, np.generic):
            value = value.item()
        if value is None:
            return None
        if self.type == "text":
            return self._text(value) if value != "" else None
        if self.type == "category":
            return self._category(value)
        if isinstance(value, str):
            value = value.strip()
            if not value or value in MISSING_WORDS:
                return None
        return self._truth_value(value) if self.type == "boolean" else self._number(value)

    def _text(self, value: Any) -> Any:
        if isinstance(value, bool) and self.truth:
            return self.truth[0 if value else 1]
        try:
            return text_of(value)
        except TypeError:
            return value

    def _category(self, value: Any) -> Any:
        text = self._text(value)
        if not isinstance(text, str):
            return value
        text = normalize(text)
        if self.width and not isinstance(value, str) and _CODE.fullmatch(text):
            text = text.zfill(self.width)
        return text or None

    def _truth_value(self, value: Any) -> Any:
        if isinstance(value, (bool, int, float)):
            return bool(value) if value in (0, 1) else value
        return _TRUTH.get(value.lower(), value) if isinstance(value, str) else value

    def _number(self, value: Any) -> Any:
        number = value
        if isinstance(value, str):
            if value.lower() in ("true", "false"):
                number = value.lower() == "true"
            elif _WHOLE.fullmatch(value):
                number = int(value)
            elif _NUMBER.fullmatch(value):
                number = float(value)
        if not isinstance(number, (bool, int, float)):
            return value
        if self.type == "integer":
            return int(number) if isinstance(number, (bool, int)) or number.is_integer() else number
        try:
            return float(np.float32(number)) if self.type == "float32" else float(number)
        except OverflowError:
            return value


def normalize(text: str) -> str:
    """Return a label or category without blanks around it, in Unicode form NFC.

    Examples
    --------
    >>> normalize(" cafe\\u0301 ") == "caf\\u00e9"
    True
    """
    stripped = text.strip()
    return stripped if stripped.isascii() else unicodedata.normalize("NFC", stripped)


def canonical(text: str) -> str:
    """Return the text that all spellings of one label share: blanks, Unicode forms, truth values, and numbers.

    Examples
    --------
    >>> canonical("True"), canonical(" 1.0 "), canonical("1"), canonical("Spam")
    ('true', '1', '1', 'Spam')
    """
    text = normalize(text)
    if text.lower() in ("true", "false"):
        return text.lower()
    if not _NUMBER.fullmatch(text) or _has_leading_zero(text):
        return text
    return text_of(int(text) if _WHOLE.fullmatch(text) else float(text))


def _has_leading_zero(text: str) -> bool:
    digits = text.lstrip("+-")
    return len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()


class ClassReader:
    """Reads labels as one of the classes, in every spelling of the class.

    Parameters
    ----------
    classes
        C class names.

    Examples
    --------
    >>> ClassReader(["true", "false"]).read("True"), ClassReader(["0.0", "1.0"]).read("1")
    ('true', '1.0')
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = frozenset(classes)
        self._by_text: dict[str, str | None] = {}
        for name in classes:
            text = canonical(name)
            self._by_text[text] = None if text in self._by_text else name  # two spellings: exact ones only

    def read(self, label: str) -> str | None:
        """Return the class that a label spells, or None."""
        return label if label in self._classes else self._by_text.get(canonical(label))


class Schema:
    """Columns of a table, by name; a column outside the schema is read as it is.

    Parameters
    ----------
    columns
        Columns with distinct names.

    Raises
    ------
    SliceError
        If two columns share a name.

    Examples
    --------
    >>> schema = Schema([Column("likes", "integer"), Column("tier", "category")])
    >>> schema.parse_record({"likes": "3", "tier": " gold ", "other": "x"})
    {'likes': 3, 'tier': 'gold', 'other': 'x'}
    """

    def __init__(self, columns: Sequence[Column] = ()) -> None:
        self.columns = {column.name: column for column in columns}
        if len(self.columns) != len(columns):
            raise SliceError(f"schema: column names must be distinct, got {[c.name for c in columns]}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and list(self.columns.values()) == list(other.columns.values())

    __hash__ = None  # type: ignore[assignment]  # compared by value

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __repr__(self) -> str:
        return f"Schema({list(self.columns.values())})"

    def completed(self, frame: pd.DataFrame, text: Collection[str] = ()) -> Schema:
        """Return the schema with a column for every further column of a table, settled from its values.

        Dates, lists and other objects have no type in a schema, and neither have columns without a value.

        Parameters
        ----------
        frame
            N rows.
        text
            Columns to read literally, such as the text features.
        """
        names = map(str, frame.columns)
        found = [
            _column_of(name, frame.iloc[:, place], name in text)
            for place, name in enumerate(names)
            if name not in self.columns
        ]
        return Schema([*self.columns.values(), *(column for column in found if column is not None)])

    def parse_record(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record with every value in the type of its column."""
        parsers, exact = self._parsers, self._exact
        return {
            name: value
            if type(value) is exact.get(name, _NoType) and value == value
            else parsers[name](value)
            if name in parsers
            else value
            for name, value in record.items()
        }

    @cached_property
    def _parsers(self) -> dict[str, Any]:
        return {name: column.parse for name, column in self.columns.items()}

    @cached_property
    def _exact(self) -> dict[str, type]:
        """Python type of the values that need no conversion."""
        exact: dict[str, type] = {"boolean": bool, "integer": int, "number": float}
        return {name: exact[column.type] for name, column in self.columns.items() if column.type in exact}

    def parse_frame(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return a table with every value in the type of its column; the same table if nothing changes."""
        import pandas as pd

        changed: dict[int, pd.Series[Any]] = {}
        for place, name in enumerate(map(str, frame.columns)):
            if (column := self.columns.get(name)) is not None:
                series = frame.iloc[:, place]
                parsed = _parse_series(column, series)
                if parsed is not series:
                    changed[place] = parsed
        if not changed:
            return frame
        parts = [changed.get(place, frame.iloc[:, place]) for place in range(frame.shape[1])]
        parsed_frame = pd.concat(parts, axis=1)
        parsed_frame.columns = frame.columns
        return parsed_frame

    def to_json(self) -> list[dict[str, Any]]:
        """Return the columns as JSON values."""
        dumped: list[dict[str, Any]] = _COLUMNS.dump_python(
            list(self.columns.values()), exclude_defaults=True, mode="json"
        )
        return dumped

    @classmethod
    def from_json(cls, saved: Any) -> Schema:
        """Return the schema of ``to_json``; SliceError if it is malformed."""
        try:
            return cls(_COLUMNS.validate_python(saved))
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            place = ".".join(map(str, fault["loc"]))
            raise SliceError(
                f"malformed schema, column {place}: {fault['msg']}, got {fault['input']!r:.80}"
            ) from error


_COLUMNS = TypeAdapter(list[Column])


class _NoType:
    pass


def _column_of(name: str, series: pd.Series[Any], is_text: bool) -> Column | None:
    from pandas.api import types

    dtype = series.dtype
    if is_text:
        return Column(name, "text")
    if types.is_bool_dtype(dtype):
        return Column(name, "boolean")
    if types.is_integer_dtype(dtype):
        return Column(name, "integer")
    if types.is_float_dtype(dtype):
        return Column(name, "float32" if dtype == np.float32 else "number")
    if not types.is_object_dtype(dtype) and not types.is_string_dtype(dtype):
        return None
    values = [value for value in series.tolist() if none_if_missing(value) is not None]
    kinds = set(map(type, values))
    if not kinds:
        return None
    if kinds == {bool}:
        return Column(name, "boolean")
    if kinds == {int}:
        return Column(name, "integer")
    if kinds <= {int, float}:
        return Column(name, "number")
    if not kinds <= {str, int, float, bool}:
        return None
    values = [text_of(value) for value in values]
    sample = values[:_SAMPLE_ROWS]
    if sum(len(value.split()) for value in sample) >= _FREE_TEXT_WORDS * len(sample):
        return Column(name, "text")
    stripped = {value.strip() for value in values}
    spelled = {value for value in stripped if value.lower() in ("true", "false")}
    truth = None
    if spelled and len({value.lower() for value in spelled}) == len(spelled):
        yes = next((value for value in spelled if value.lower() == "true"), None)
        no = next((value for value in spelled if value.lower() == "false"), None)
        yes, no = yes or _like(no, "true"), no or _like(yes, "false")
        truth = (yes, no)
    codes = {len(value) for value in stripped if _CODE.fullmatch(value)}
    has_zeros = any(value.startswith("0") and len(value) > 1 and _CODE.fullmatch(value) for value in stripped)
    return Column(name, "category", codes.pop() if has_zeros and len(codes) == 1 else None, truth)


def _like(spelled: str | None, word: str) -> str:
    """Return a word in the case of another."""
    if spelled is None or spelled.islower():
        return word
    return word.upper() if spelled.isupper() else word.capitalize()


def _has_type(kind: ColumnType, dtype: Any) -> bool:
    """Return whether a series' type is that of a column; values of an object series may be of any type."""
    from pandas.api import types

    if kind == "boolean":
        return types.is_bool_dtype(dtype)
    if kind == "integer":
        return types.is_integer_dtype(dtype)
    return bool(dtype == {"number": np.float64, "float32": np.float32}.get(kind))


def _parse_series(column: Column, series: pd.Series[Any]) -> pd.Series[Any]:
    """Return a series in the column's type, of a numeric type if all its values are; the same one if it has it."""
    import pandas as pd
    from pandas.api import types

    dtype = series.dtype
    if _has_type(column.type, dtype):
        return series
    given = series.tolist()
    values = [column.parse(value) for value in given]
    kinds = set(map(type, values)) - {type(None)}
    is_missing = any(value is None for value in values)
    if column.type == "boolean" and kinds == {bool}:
        target = "boolean" if is_missing else "bool"
    elif (
        column.type == "integer"
        and kinds == {int}
        and all(v is None or -(2**63) <= v < 2**63 for v in values)
    ):
        target = "Int64" if is_missing else "int64"
    elif column.type in ("number", "float32") and kinds == {float}:
        target = "float64" if column.type == "number" else "float32"
    else:
        target = "object"
    if (
        target == "object"
        and types.is_object_dtype(dtype)
        and all(a is b for a, b in zip(given, values, strict=True))
    ):
        return series
    return pd.Series(values, index=series.index, dtype=target)
