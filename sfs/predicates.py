"""What the leaves of templates ask of one field, column by column.

Like questions to one field form a group, which fills bool[N, P], true for members, and reports the rows whose
value it cannot read. A missing value is no member and no fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from numbers import Real
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sfs.grammar import Spec, limits
from sfs.patterns import PatternSet, Texts, cased_pattern, words_pattern
from sfs.record import Columns
from sfs.values import text_of

BoolMatrix = NDArray[np.bool_]
Positions = NDArray[np.intp]
ValuesT = TypeVar("ValuesT")

_SHORT_SPLIT = 64
"""Counting words stops at the largest bound when it is at most this many words."""


@dataclass(frozen=True, slots=True)
class Readable(Generic[ValuesT]):
    """The values of one field that a kind can read.

    Parameters
    ----------
    values
        The values, missing ones and those of a wrong type left out.
    rows
        Their positions, or None where every row has one.
    wrong
        Positions of the rows whose value has a wrong type.
    """

    values: ValuesT
    rows: Positions | None
    wrong: Sequence[int]


class Inputs:
    """The columns of one evaluation, each read once per type."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._texts: dict[str, Readable[Texts]] = {}

    def values(self, field: str) -> list[Any]:
        """Return N values, None where missing."""
        return self._columns.column(field)

    def texts(self, field: str) -> Readable[Texts]:
        """Return the values that are text."""
        if field not in self._texts:
            self._texts[field] = _readable_texts(self.values(field))
        return self._texts[field]


def _readable_texts(values: list[Any]) -> Readable[Texts]:
    if set(map(type, values)) <= {str}:
        return Readable(Texts(values), None, ())
    rows = [row for row, value in enumerate(values) if isinstance(value, str)]
    wrong = [row for row, value in enumerate(values) if value is not None and not isinstance(value, str)]
    return Readable(Texts([str(values[row]) for row in rows]), np.array(rows, dtype=np.intp), wrong)


class Group(Protocol):
    """Leaves that are evaluated together, over one field but for ``missing``."""

    field: str
    wants: str

    def evaluate(self, inputs: Inputs, members: BoolMatrix) -> Sequence[int]:
        """Set the members in bool[N, P], false before, and return the rows of a wrong type."""
        ...


class TextGroup:
    """Keywords and regular expressions over the text of one field.

    Parameters
    ----------
    field
        The column.
    patterns
        P patterns of RE2.
    """

    wants = "text"

    def __init__(self, field: str, patterns: PatternSet) -> None:
        self.field = field
        self._patterns = patterns

    def evaluate(self, inputs: Inputs, members: BoolMatrix) -> Sequence[int]:
        """Set the members in bool[N, P] and return the rows that hold no text."""
        texts = inputs.texts(self.field)
        if texts.rows is None:
            self._patterns.match(texts.values, members)
        else:
            found = np.zeros((len(texts.rows), members.shape[1]), dtype=bool)
            self._patterns.match(texts.values, found)
            members[texts.rows] = found
        return texts.wrong


class RangeGroup:
    """Bounds on a number read from one field: the value itself, or the length of a text.

    Parameters
    ----------
    field
        The column.
    unit
        ``number``, ``words`` or ``characters``.
    bounds
        P mappings of ``above``, ``at_least``, ``below``, ``at_most``.
    """

    def __init__(self, field: str, unit: str, bounds: Sequence[dict[str, float]]) -> None:
        self.field = field
        self.wants = "a number" if unit == "number" else "text"
        self._lows, self._highs = np.array([limits(each) for each in bounds]).T
        self._read = partial(_lengths, measure=self._measure(unit)) if self.wants == "text" else _numbers

    def _measure(self, unit: str) -> Callable[[Sequence[str]], list[int]]:
        if unit == "characters":
            return _characters
        bounds = [bound for bound in (*self._lows, *self._highs) if math.isfinite(bound)]
        most = max(0, math.floor(max(bounds)))
        return partial(_words, most if most <= _SHORT_SPLIT else -1)

    def evaluate(self, inputs: Inputs, members: BoolMatrix) -> Sequence[int]:
        """Set the members in bool[N, P] and return the rows that hold no number, or no text."""
        numbers, rows, wrong = self._read(inputs, self.field)
        column = numbers[:, None]  # [N, 1]
        members[_everywhere(rows)] = (column >= self._lows) & (column <= self._highs)  # [N, P]
        return wrong


def _characters(texts: Sequence[str]) -> list[int]:
    return [len(text) for text in texts]


def _words(most: int, texts: Sequence[str]) -> list[int]:
    """Count words as ``str.split`` finds them, going no further than ``most`` + 1."""
    return [len(text.split(None, most)) for text in texts]


def _lengths(
    inputs: Inputs, field: str, measure: Callable[[Sequence[str]], list[int]]
) -> tuple[NDArray[np.float64], Positions | None, Sequence[int]]:
    texts = inputs.texts(field)
    return np.array(measure(texts.values.values), dtype=np.float64), texts.rows, texts.wrong


def _numbers(inputs: Inputs, field: str) -> tuple[NDArray[np.float64], Positions | None, Sequence[int]]:
    values = inputs.values(field)
    if set(map(type, values)) <= {float}:
        return np.array(values, dtype=np.float64), None, ()
    readable = _readable_numbers(values)
    return np.array(readable.values, dtype=np.float64), readable.rows, readable.wrong


def _readable_numbers(values: list[Any]) -> Readable[list[float]]:
    numbers = [_number(value) for value in values]
    known = [(row, number) for row, number in enumerate(numbers) if number is not None]
    wrong = [row for row, number in enumerate(numbers) if number is None and values[row] is not None]
    rows = np.array([row for row, _ in known], dtype=np.intp)
    return Readable([number for _, number in known], rows, wrong)


def _number(value: Any) -> float | None:
    """Read a number as a 64-bit float; None where it is missing or of another type, booleans among them."""
    if type(value) is float:
        return value
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (Real, Decimal)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]
    except ValueError:  # a signalling NaN of decimal
        return None
    return None if math.isnan(number) else number


class ChoiceGroup:
    """Values of one field that are listed by leaves, compared as they are spelled.

    Parameters
    ----------
    field
        The column.
    choices
        P lists of spelled values.
    """

    wants = "text, a boolean or a number"

    def __init__(self, field: str, choices: Sequence[Iterable[str]]) -> None:
        self.field = field
        self._leaves: dict[str, list[int]] = {}
        for p, values in enumerate(choices):
            for value in values:
                self._leaves.setdefault(value, []).append(p)

    def evaluate(self, inputs: Inputs, members: BoolMatrix) -> Sequence[int]:
        """Set the members in bool[N, P] and return the rows that hold no scalar."""
        wrong: list[int] = []
        rows: list[int] = []
        found: list[int] = []
        for row, value in enumerate(inputs.values(self.field)):
            if value is None:
                continue
            try:
                hits = self._leaves.get(value if type(value) is str else text_of(value))
            except TypeError:
                wrong.append(row)
                continue
            if hits:
                rows += [row] * len(hits)
                found += hits
        members[rows, found] = True
        return wrong


class MissingGroup:
    """The rows without a value, of P fields.

    Parameters
    ----------
    fields
        The columns.
    """

    field = ""
    wants = "anything"

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields = fields

    def evaluate(self, inputs: Inputs, members: BoolMatrix) -> Sequence[int]:
        """Set the members in bool[N, P]; there is no value that cannot be missing."""
        columns = [[value is None for value in inputs.values(field)] for field in self._fields]
        members[:] = np.array(columns, dtype=bool).T  # [N, P]
        return ()


def _everywhere(rows: Positions | None) -> Positions | slice:
    return slice(None) if rows is None else rows


def source_of(leaf: Spec) -> tuple[str, str, str]:
    """Return what leaves must share to be one group: how they read, in which way, and which field."""
    kind, body = next(iter(leaf.items()))
    field = body["field"]
    if kind == "keyword":
        return "text", "lowered", field
    if kind == "regex":
        return "text", "as is", field
    if kind in ("length", "compare"):
        return "range", body.get("unit", "number"), field
    return kind, "", "" if kind == "missing" else field


def group_of(source: tuple[str, str, str], leaves: Sequence[Spec]) -> Group:
    """Return the group that answers the leaves of one source, in their order."""
    how, way, field = source
    bodies = [next(iter(leaf.values())) for leaf in leaves]
    if how == "text":
        return TextGroup(field, PatternSet([_pattern(body) for body in bodies], lowered=way == "lowered"))
    if how == "range":
        return RangeGroup(field, way, bodies)
    if how == "one_of":
        return ChoiceGroup(field, [body["values"] for body in bodies])
    return MissingGroup([body["field"] for body in bodies])


def _pattern(body: Spec) -> str:
    if "words" in body:
        return words_pattern(body["words"], body["whole_word"])
    return cased_pattern(body["pattern"], body["ignore_case"])
