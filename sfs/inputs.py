"""The columns of one evaluation: each field read once as text and once as numbers, whatever asks for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from sfs.patterns import Texts
from sfs.record import Columns

FloatArray = NDArray[np.float64]
Positions = NDArray[np.intp]
ValuesT = TypeVar("ValuesT")


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
        Positions of the rows whose value has a wrong type, or that have no such field.
    """

    values: ValuesT
    rows: Positions | None
    wrong: Sequence[int]


class Inputs:
    """The columns of one evaluation, each read once per type."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._texts: dict[str, Readable[Texts]] = {}
        self._numbers: dict[str, Readable[FloatArray]] = {}

    def values(self, field: str) -> list[Any]:
        """Return N values, None where missing and ``ABSENT`` where a record has no such field."""
        return self._columns.field(field)

    def texts(self, field: str) -> Readable[Texts]:
        """Return the values that are text."""
        if field not in self._texts:
            self._texts[field] = _readable_texts(self.values(field))
        return self._texts[field]

    def numbers(self, field: str) -> Readable[FloatArray]:
        """Return the values that are numbers, as 64-bit floats."""
        if field not in self._numbers:
            self._numbers[field] = _readable_numbers(self.values(field))
        return self._numbers[field]


def _readable_texts(values: list[Any]) -> Readable[Texts]:
    if set(map(type, values)) <= {str}:
        return Readable(Texts(values), None, ())
    rows = [row for row, value in enumerate(values) if isinstance(value, str)]
    wrong = [row for row, value in enumerate(values) if value is not None and not isinstance(value, str)]
    return Readable(Texts([str(values[row]) for row in rows]), np.array(rows, dtype=np.intp), wrong)


def _readable_numbers(values: list[Any]) -> Readable[FloatArray]:
    if set(map(type, values)) <= {float}:
        return Readable(np.array(values, dtype=np.float64), None, ())
    numbers = [_number(value) for value in values]
    known = [(row, number) for row, number in enumerate(numbers) if number is not None]
    wrong = [row for row, number in enumerate(numbers) if number is None and values[row] is not None]
    rows = np.array([row for row, _ in known], dtype=np.intp)
    return Readable(np.array([number for _, number in known], dtype=np.float64), rows, wrong)


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
