"""What the leaves of templates ask of one field, column by column.

Like questions to one field form a group, which fills bool[N, P], true for members, and reports the rows whose
value it cannot read: one of a wrong type, or of a record that has no such field. A missing value is no member
and no fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sfs.grammar import Spec, limits
from sfs.inputs import FloatArray, Inputs, Positions
from sfs.lengths import WordCounter, characters
from sfs.patterns import PatternSet, Texts, cased_pattern, words_pattern
from sfs.record import ABSENT
from sfs.values import text_of

BoolMatrix = NDArray[np.bool_]


class Group(Protocol):
    """Leaves that are evaluated together, over one field but for ``missing``."""

    field: str
    wants: str

    def evaluate(self, inputs: Inputs, members: BoolMatrix) -> Sequence[int]:
        """Set the members in bool[N, P], false before, and return the rows that it cannot read."""
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
        self._has_lows, self._has_highs = (
            bool(np.isfinite(self._lows).any()),
            bool(np.isfinite(self._highs).any()),
        )
        self._length: Callable[[Texts], FloatArray] | None = None
        if unit != "number":
            self._length = WordCounter(self._lows, self._highs) if unit == "words" else characters

    def evaluate(self, inputs: Inputs, members: BoolMatrix) -> Sequence[int]:
        """Set the members in bool[N, P] and return the rows that hold no number, or no text."""
        if self._length is None:
            numbers = inputs.numbers(self.field)
            column, rows, wrong = numbers.values, numbers.rows, numbers.wrong
        else:
            texts = inputs.texts(self.field)
            column, rows, wrong = self._length(texts.values), texts.rows, texts.wrong
        members[_everywhere(rows)] = self._within(column[:, None])  # [N, P]
        return wrong

    def _within(self, column: FloatArray) -> BoolMatrix:
        """Return bool[N, P]; most groups have bounds on one side only."""
        within: BoolMatrix = column >= self._lows if self._has_lows else column <= self._highs
        if self._has_lows and self._has_highs:
            within &= column <= self._highs
        return within


class ChoiceGroup:
    """Values of one field that are listed by leaves, compared as they are spelled.

    Parameters
    ----------
    field
        The column.
    choices
        P lists of spelled values.
    """

    wants = "text, a boolean or a number that can be spelled"

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
    """The rows without a value, or even without the field, of P fields.

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
        columns = [
            [value is None or value is ABSENT for value in inputs.values(field)] for field in self._fields
        ]
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
