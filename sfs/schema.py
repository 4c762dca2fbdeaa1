"""Schema of a table: one type per column, and one rule to read a value whatever the source spells.

A schema is settled once, from the training table, and kept with the model. Files, requests, labels and logged
records are then read by it, so that a row has one value per column whatever stands beside it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property, lru_cache, partial
from math import inf, isfinite
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias, cast
from zoneinfo import ZoneInfo

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from sfs.errors import SliceError
from sfs.record import none_if_missing, text_of

if TYPE_CHECKING:
    import pandas as pd

ColumnType: TypeAlias = Literal[
    "boolean", "integer", "number", "float32", "float16", "category", "text", "timestamp", "date"
]

MISSING_WORDS = frozenset({"NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "<NA>"})
"""Text that stands for a missing number or truth value, besides the empty text."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)", re.ASCII | re.IGNORECASE)
_WHOLE = re.compile(r"([+-]?\d{1,4000})(\.0*)?", re.ASCII)
_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?", re.ASCII)
_TRUTH = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_FLAGS = {"true": "1", "false": "0"}
_TRUTH_PAIRS = (("true", "false"), ("True", "False"), ("TRUE", "FALSE"))
_CODE = re.compile(r"(\d+)(\.0*)?", re.ASCII)
_FREE_TEXT_WORDS = 2.5
_SAMPLE_ROWS = 10_000
_READ = (inf, -inf, "")
"""Values of the right Python type that are missing all the same, as NaN is."""
_UNREADABLE = (TypeError, ValueError, OverflowError)
_ROUNDED: tuple[ColumnType, ...] = ("float32", "float16")
_SETTLED: tuple[tuple[set[type], ColumnType], ...] = (
    ({bool}, "boolean"),
    ({int}, "integer"),
    ({int, float}, "number"),
)
_NO_FEATURES: Mapping[str, str] = {}
_DTYPES: Mapping[str, tuple[Any, ...]] = {
    "boolean": (bool, "bool", "boolean"),
    "integer": (int, "int64", "Int64"),
    "number": (float, "float64", "float64"),
    **{rounded: (float, rounded, rounded) for rounded in _ROUNDED},
}
"""Python type of the values; the type of a series without and with missing ones."""
_MEANT = {
    "boolean": "true or false",
    "integer": "a whole number",
    "category": "text, a number or a boolean",
    "text": "text, a number or a boolean",
    "date": "a date such as 2026-05-01",
}


@dataclass(frozen=True, slots=True)
class Column:
    """Name and type of a column, and how its values are read.

    Parameters
    ----------
    name
        The column.
    type
        ``boolean``; ``integer``, exact at any size; ``number``, a 64-bit float; ``float32`` and ``float16``,
        rounded to their bits; ``category``, short text without blanks around it, in Unicode form NFC; ``text``,
        read literally; ``timestamp`` and ``date``, text in ISO 8601.
    width
        Digits of a code with leading zeros, such as 5 for ``00501``; shorter ones are padded. Categories only.
    truth
        Spelling of true and false, in a boolean or in a category that has other values too.
    numbers
        Spelling of numbers in a category: ``1``, or ``1.0`` as of floats. None keeps each as it is written.
    missing
        Further values that stand for a missing one.
    decimal, thousands
        Decimal mark and separator of thousands in numbers that are text.
    zone
        Time zone of a timestamp, to which all are converted; None for times without a zone.

    Examples
    --------
    >>> Column("active", "boolean").parse("TRUE "), Column("zip", "category", width=5).parse(501)
    (True, '00501')
    >>> Column("at", "timestamp", zone="Europe/Berlin").parse("2026-05-01T10:00:00Z")
    '2026-05-01T12:00:00+02:00'
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    type: ColumnType
    width: Annotated[int, Field(ge=1, le=40)] | None = None
    truth: tuple[str, str] | None = None
    numbers: Literal["1", "1.0"] | None = None
    missing: tuple[str, ...] = ()
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ",", ".", " ", "'", "_"] = ""
    zone: str | None = None

    def __post_init__(self) -> None:
        if self.decimal == self.thousands:
            raise ValueError(f"decimal and thousands must differ, got {self.decimal!r} for both")
        try:
            ZoneInfo(self.zone or "UTC")
        except (ValueError, OSError, LookupError):
            raise ValueError(f"unknown time zone {self.zone!r}: use a name such as Europe/Berlin") from None

    def parse(self, value: Any) -> Any:
        """Return a value in the column's type, None if it is missing, or the value itself if it is of another type.

        A value of another type is refused by a feature and makes memberships of templates unknown.
        """
        if isinstance(value, np.generic):
            value = value.item()
        try:
            return self.read(value)
        except _UNREADABLE:
            return value

    def read(self, value: Any) -> Any:
        """Return a value as `parse` does; TypeError, ValueError or OverflowError if it is of another type."""
        if none_if_missing(value) is None:
            return None
        is_text = self.type in ("category", "text")
        if isinstance(value, str):
            text = value.strip()
            if not (value if self.type == "text" else text):
                return None
            if not is_text and (text in MISSING_WORDS or text.lower() == "nan"):
                return None
        if self.missing and canonical(text_of(value)) in _canonical_texts(self.missing):
            return None
        if is_text:
            return text_of(value) if self.type == "text" else self._category(text_of(value))
        value = text if isinstance(value, str) else value
        if self.type in ("timestamp", "date"):
            return self._moment(value)
        return self._truth_value(value) if self.type == "boolean" else self._number(value)

    def _category(self, text: str) -> str:
        text = normalize(text)
        if self.truth and text.lower() in _FLAGS:
            return self.truth[text.lower() == "false"]
        if self.numbers and _is_number(text):
            return canonical(text) if self.numbers == "1" else repr(float(text))
        code = _CODE.fullmatch(text) if self.width else None
        return code[1].zfill(self.width or 0) if code else text

    def _truth_value(self, value: Any) -> bool:
        if isinstance(value, str):
            if self.truth and value in self.truth:
                return value == self.truth[0]
            value = _TRUTH.get(value.lower())
        if value not in (0, 1):
            raise ValueError
        return bool(value)

    def _number(self, value: Any) -> Any:
        number = self._spelled_number(value) if isinstance(value, str) else value
        if not isinstance(number, (bool, int, float)):
            raise TypeError
        if self.type == "integer" and isinstance(number, int):
            return int(number)
        try:
            number = float(number)
        except OverflowError:
            return None
        if self.type in _ROUNDED:
            with np.errstate(over="ignore"):
                number = float(np.dtype(self.type).type(number))
        if not isfinite(number):
            return None
        if self.type == "integer" and not number.is_integer():
            raise ValueError
        return int(number) if self.type == "integer" else number

    def _spelled_number(self, text: str) -> bool | int | float:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        if self.thousands:
            separator, point = re.escape(self.thousands), re.escape(self.decimal)
            if re.fullmatch(rf"[+-]?[0-9]{{1,3}}({separator}[0-9]{{3}})+({point}[0-9]*)?", text):
                text = text.replace(self.thousands, "")
        if self.decimal != ".":
            text = text.replace(".", "?").replace(self.decimal, ".")
        if whole := _WHOLE.fullmatch(text):
            return int(whole[1])
        if not _NUMBER.fullmatch(text):
            raise ValueError
        return float(text)

    def _moment(self, value: Any) -> str:
        text = value.isoformat() if isinstance(value, date) else value  # a datetime is a date
        if not isinstance(text, str) or not _ISO_DATE.fullmatch(text):
            raise ValueError
        at = datetime.fromisoformat(text)
        if self.type == "date":
            if at != datetime(at.year, at.month, at.day):
                raise ValueError
            return at.date().isoformat()
        if self.zone is not None:
            zone = ZoneInfo(self.zone)
            at = at.replace(tzinfo=zone) if at.tzinfo is None else at
            at = at.astimezone(UTC).astimezone(zone)  # a time that a zone skips becomes the one an hour later
        elif at.tzinfo is not None:
            raise ValueError
        return at.isoformat()


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
    if not _is_number(text):
        return text
    return text_of(int(whole[1]) if (whole := _WHOLE.fullmatch(text)) else float(text))


@lru_cache
def _canonical_texts(texts: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(canonical, texts))


def _is_number(text: str) -> bool:
    """Return whether text spells a number without leading zeros, which codes have."""
    digits = text.lstrip("+-")
    return bool(_NUMBER.fullmatch(text)) and not (digits[0] == "0" and digits[1:2].isdigit())


class ClassReader:
    """Reads labels as one of the classes, in every spelling of the class.

    Where the classes are true and false, 1 and 0 are read as well, and the reverse. Codes that lack leading zeros
    are padded, as in a column.

    Parameters
    ----------
    classes
        C class names.

    Examples
    --------
    >>> ClassReader(["true", "false"]).read("True"), ClassReader(["0.0", "1.0"]).read("1")
    ('true', '1.0')
    >>> ClassReader(["true", "false"]).read("0"), ClassReader(["00501", "90210"]).read("501")
    ('false', '00501')
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = frozenset(classes)
        self._codes = Column("", "category", _code_width(classes))
        self._by_text: dict[str, str | None] = {}
        for name in classes:
            text = canonical(name)
            self._by_text[text] = None if text in self._by_text else name  # two spellings: exact ones only
        for flags in (_FLAGS, {number: word for word, number in _FLAGS.items()}):
            if self._by_text.keys() == flags.keys() and len(classes) == 2:
                self._by_text |= {other: self._by_text[own] for own, other in flags.items()}
                break

    def read(self, label: str) -> str | None:
        """Return the class that a label spells, or None."""
        return label if label in self._classes else self._by_text.get(self._codes.parse(canonical(label)))


def _parser_of(column: Column) -> Callable[[Any], Any]:
    """Return the parser of a column; text is read several times faster where it only has to be normalized."""
    if column.type != "category" or column.width or column.truth or column.numbers or column.missing:
        return column.parse

    return partial(_normalized, column.parse)


def _normalized(parse: Callable[[Any], Any], value: Any) -> Any:
    return (normalize(value) or None) if type(value) is str else parse(value)


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

    def completed(self, frame: pd.DataFrame, features: Mapping[str, str] = _NO_FEATURES) -> Schema:
        """Return the schema with a column for every further column of a table, settled from its values.

        Lists and other objects have no type in a schema. A column without a value has the kind of its feature.

        Parameters
        ----------
        frame
            N rows.
        features
            Kind of each feature column: a text is read literally, and none is a date.
        """
        names = map(str, frame.columns)
        found = [
            _column_of(name, frame.iloc[:, place], features.get(name))
            for place, name in enumerate(names)
            if name not in self.columns
        ]
        return Schema([*self.columns.values(), *(column for column in found if column is not None)])

    def joined(self, other: Schema) -> Schema:
        """Return the schema with the columns of another one that it lacks."""
        return Schema([*self.columns.values(), *(c for n, c in other.columns.items() if n not in self.columns)])

    def parse_record(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record with every value in the type of its column; empty text is missing in other columns too."""
        parsers, exact = self._parsers, self._exact
        return {
            name: value
            if type(value) is exact.get(name) and value == value and value not in _READ
            else parsers[name](value)
            if name in parsers
            else None
            if value == ""
            else value
            for name, value in record.items()
        }

    @cached_property
    def _parsers(self) -> dict[str, Any]:
        return {name: _parser_of(column) for name, column in self.columns.items()}

    @cached_property
    def _exact(self) -> dict[str, type]:
        """Python type of the values that need no conversion."""
        exact: dict[str, type] = {"boolean": bool, "integer": int, "number": float, "text": str}
        columns = [column for column in self.columns.values() if not column.missing]
        return {column.name: exact[column.type] for column in columns if column.type in exact}

    def parse_frame(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return a table with every value in the type of its column; the same table if nothing changes."""
        import pandas as pd

        given = [frame.iloc[:, place] for place in range(frame.shape[1])]
        parsed = [_parse_series(self.columns.get(str(series.name)), series) for series in given]
        if all(a is b for a, b in zip(given, parsed, strict=True)):
            return frame
        parsed_frame = pd.concat(parsed, axis=1)
        parsed_frame.columns = frame.columns
        return parsed_frame

    def faults(self, frame: pd.DataFrame) -> dict[str, str]:
        """Return a sentence for each column with a value of another type; rows are named by the frame's index."""
        sentences = {}
        for place, name in enumerate(map(str, frame.columns)):
            column, series = self.columns.get(name), frame.iloc[:, place]
            if column is None or _has_type(column.type, series.dtype):
                continue
            moment = f"a date and time {'with' if column.zone else 'without'} a time zone"
            meant = moment if column.type == "timestamp" else _MEANT.get(column.type, "a number")
            for row, value in zip(series.index, series.tolist(), strict=True):
                try:
                    column.read(value)
                except _UNREADABLE:
                    sentences[name] = (
                        f"column {name!r}, row {row}: expected {meant}, got {value!r:.60}: correct the value, or "
                        "change the type of the column in the schema"
                    )
                    break
        return sentences

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
            reason = fault["msg"].removeprefix("Value error, ")
            reason += "" if fault["type"] == "value_error" else f", got {fault['input']!r:.80}"
            raise SliceError(f"malformed schema, column {place}: {reason}") from error


_COLUMNS = TypeAdapter(list[Column])


def _column_of(name: str, series: pd.Series[Any], feature: str | None) -> Column | None:
    from pandas.api import types

    dtype = series.dtype
    if feature == "text":
        return Column(name, "text")
    if types.is_bool_dtype(dtype):
        return Column(name, "boolean")
    if types.is_integer_dtype(dtype):
        return Column(name, "integer")
    if types.is_float_dtype(dtype):
        return Column(name, next((rounded for rounded in _ROUNDED if dtype == rounded), "number"))
    if types.is_datetime64_any_dtype(dtype):
        return None if feature else Column(name, "timestamp", zone=_zone_of(getattr(dtype, "tz", None)))
    if not types.is_object_dtype(dtype) and not types.is_string_dtype(dtype):
        return None
    values = [value for value in series.tolist() if none_if_missing(value) is not None]
    kinds = set(map(type, values))
    if not kinds:
        return Column(name, cast("ColumnType", feature)) if feature else None
    for known, name_of_type in _SETTLED:
        if kinds <= known:
            return Column(name, name_of_type)
    if all(issubclass(kind, date) for kind in kinds) and not feature:
        zones = {getattr(value, "tzinfo", None) for value in values}
        zone = _zone_of(zones.pop() if len(zones) == 1 else "UTC")
        return Column(name, "date" if kinds == {date} else "timestamp", zone=zone)
    if not kinds <= {str, int, float, bool}:
        return None
    values = [text_of(value) for value in values]
    sample = values[:_SAMPLE_ROWS]
    if sum(len(value.split()) for value in sample) >= _FREE_TEXT_WORDS * len(sample):
        return Column(name, "text")
    stripped = {value.strip() for value in values}
    spelled = {value for value in stripped if value.lower() in _FLAGS}
    truth = next((pair for pair in _TRUTH_PAIRS if spelled and spelled <= {*pair}), None)
    return Column(name, "category", _code_width(stripped), truth, _number_style(stripped))


def _zone_of(zone: Any) -> str | None:
    """Return the name of a time zone; UTC for one without a name, such as a fixed offset."""
    named = getattr(zone, "key", None) or getattr(zone, "zone", None)
    return None if zone is None else named or "UTC"


def _number_style(values: Collection[str]) -> Literal["1", "1.0"] | None:
    """Return the one spelling of the numbers among values."""
    numbers = [value for value in values if _NUMBER.fullmatch(value)]
    if not numbers or not all(map(_is_number, numbers)):
        return None
    if all(value == canonical(value) for value in numbers):
        return "1"
    return "1.0" if all(value == repr(float(value)) for value in numbers) else None


def _code_width(values: Collection[str]) -> int | None:
    """Return the digits of the codes among values, if one has a leading zero and all are of one length."""
    codes = [code[1] for value in values if (code := _CODE.fullmatch(value))]
    has_zeros = any(value.startswith("0") and len(value) > 1 for value in codes)
    return len(codes[0]) if has_zeros and len(set(map(len, codes))) == 1 else None


def _has_type(kind: ColumnType, dtype: Any) -> bool:
    """Return whether a series' type is that of a column; values of an object series may be of any type."""
    from pandas.api import types

    if kind == "boolean":
        return types.is_bool_dtype(dtype)
    if kind == "integer":
        return types.is_integer_dtype(dtype)
    return kind in ("number", *_ROUNDED) and bool(dtype == ("float64" if kind == "number" else kind))


def _parse_series(column: Column | None, series: pd.Series[Any]) -> pd.Series[Any]:
    """Return a series in the column's type, of a numeric type if all its values are; the same one if it has it."""
    import pandas as pd
    from pandas.api import types

    dtype = series.dtype
    is_finite = dtype.kind != "f" or not np.isinf(series.to_numpy(np.float64, na_value=np.nan)).any()
    if column is None or (_has_type(column.type, dtype) and not column.missing and is_finite):
        return series
    given = series.tolist()
    values = [column.parse(value) for value in given]
    kinds = set(map(type, values)) - {type(None)}
    kind, *dtypes = _DTYPES.get(column.type, (None,))
    fits = kind is not int or all(type(v) is not int or -(2**63) <= v < 2**63 for v in values)
    if kinds == {kind} and fits:
        return pd.Series(values, index=series.index, dtype=dtypes[None in values])
    if types.is_object_dtype(dtype) and all(a is b for a, b in zip(given, values, strict=True)):
        return series
    return pd.Series(values, index=series.index, dtype="object")
