"""From records to the columns that a report compares; nothing here knows who compares them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from models.column_encoders import as_number, as_text
from models.errors import DataError
from models.features import FeatureSpec

ColumnKind: TypeAlias = Literal["number", "category", "words", "missing", "label", "confidence"]
Value: TypeAlias = float | str | None

FEWEST_ROWS = 30
"""Rows with a value that either side needs."""
MOST_NAMES = 10
COMMON_SHARE, COMMON_ROWS = 0.01, 5
"""Of more names than that, those that have less of all rows become one: each name lets chance do more."""
OTHER = "(other)"
_LONGEST_NAME = 60


@dataclass(frozen=True, slots=True)
class PredictedRow:
    """A record, and what a model said of it.

    Parameters
    ----------
    features
        Its fields as JSON values; None where they were not kept.
    label
        The predicted class.
    probabilities
        Of all classes; None where only the label is known.
    """

    features: Mapping[str, Any] | None
    label: str
    probabilities: Sequence[float] | None


@dataclass(frozen=True, slots=True)
class Compared:
    """One column of both sides.

    Parameters
    ----------
    column
        What it is called; no two of a report are called the same.
    kind
        A ``number`` or ``category`` as it is, the length of a text in ``words``, whether a value is
        ``missing``, or of the predictions the ``label`` and the ``confidence``, which is the greatest probability.
    numeric
        Whether the values are numbers, or names.
    reference, live
        The values of both sides; None where missing. They have as many rows as kept the column.
    error
        Why it cannot be compared; empty where it can.
    """

    column: str
    kind: ColumnKind
    numeric: bool
    reference: tuple[Value, ...]
    live: tuple[Value, ...]
    error: str = ""


def columns_of(
    features: Sequence[FeatureSpec], reference: Sequence[PredictedRow], live: Sequence[PredictedRow]
) -> list[Compared]:
    """Return the columns to compare, features in order and predictions last.

    Of many names those that few rows have become one, and a number that never changes in the reference is compared as a
    category: that number, or another. A column that cannot be compared says why.

    Examples
    --------
    >>> rows = [PredictedRow({"likes": i % 3}, "spam", (0.2, 0.8)) for i in range(40)]
    >>> [(each.column, each.error) for each in columns_of([FeatureSpec("likes", "number")], rows, rows)][:2]
    [('likes', ''), ('predicted label', "every row of both sides has 'spam'")]
    """
    found = [each for spec in features for each in _of_feature(spec, reference, live)]
    label = Compared("predicted label", "label", False, _labels(reference), _labels(live))
    confidence = Compared("confidence", "confidence", True, _confidences(reference), _confidences(live))
    return [_checked(_ready(each)) for each in _distinct([*found, label, confidence])]


def _of_feature(
    spec: FeatureSpec, reference: Iterable[PredictedRow], live: Iterable[PredictedRow]
) -> Iterator[Compared]:
    name, kind, read = spec.column, _KINDS[spec.kind], _READERS[spec.kind]
    sides = [_read(rows, name, read) for rows in (reference, live)]
    title = f"length of {name}" if kind == "words" else name
    yield Compared(title, kind, kind != "category", sides[0], sides[1])
    if None in sides[0] or None in sides[1]:
        gone = [tuple("yes" if value is None else "no" for value in side) for side in sides]
        yield Compared(f"{name} is missing", "missing", False, gone[0], gone[1])


def _read(rows: Iterable[PredictedRow], name: str, read: Callable[[Any], Value]) -> tuple[Value, ...]:
    """Return the values of the rows that kept the column."""
    return tuple(read(row.features[name]) for row in rows if row.features and name in row.features)


def _number(value: Any) -> float | None:
    try:
        number = as_number(value, "", 0)
    except DataError:  # whatever is no number, a model cannot use either
        return None
    return None if number != number else number


def _name(value: Any) -> str | None:
    try:
        return as_text(value, "", 0)
    except DataError:
        return None


def _words(value: Any) -> float | None:
    text = _name(value)
    return None if text is None else float(len(text.split()))


_KINDS: Mapping[str, ColumnKind] = {"number": "number", "category": "category", "text": "words"}
_READERS: Mapping[str, Callable[[Any], Value]] = {"number": _number, "category": _name, "text": _words}


def _labels(rows: Iterable[PredictedRow]) -> tuple[Value, ...]:
    return tuple(row.label for row in rows)


def _confidences(rows: Iterable[PredictedRow]) -> tuple[Value, ...]:
    return tuple(max(row.probabilities) if row.probabilities else None for row in rows)


def _distinct(columns: Iterable[Compared]) -> Iterator[Compared]:
    """Yield the columns, those called as an earlier one renamed."""
    taken: set[str] = set()
    for each in columns:
        name = unique_name(each.column, taken)
        taken.add(name)
        yield replace(each, column=name)


def unique_name(name: str, taken: Iterable[str]) -> str:
    """Return the name, or with as many strokes behind it as it takes to be none of the others.

    >>> unique_name("confidence", {"confidence", "confidence'"})
    "confidence''"
    """
    while name in taken:
        name += "'"
    return name


def _ready(column: Compared) -> Compared:
    if not column.numeric:
        return _folded(column)
    usual = {value for value in column.reference if value is not None}
    if len(usual) != 1 or set(column.live) <= {None, *usual}:
        return column
    constant = usual.pop()
    reference, live = _as_category(column.reference, constant), _as_category(column.live, constant)
    return replace(column, numeric=False, reference=reference, live=live)


def _as_category(values: Iterable[Value], constant: Value) -> tuple[Value, ...]:
    return tuple(None if each is None else f"{constant:g}" if each == constant else OTHER for each in values)


def _folded(column: Compared) -> Compared:
    """Return the column with names that few rows of both sides together have as one, if there are many names."""
    counts = Counter(value for value in (*column.reference, *column.live) if value is not None)
    least = max(COMMON_ROWS, COMMON_SHARE * counts.total()) if len(counts) > MOST_NAMES else 0
    shown = {each: _short(str(each)) if count >= least else OTHER for each, count in counts.items()}
    if least and set(shown.values()) == {OTHER}:
        return replace(column, error=f"none of its {len(shown)} values is common enough to be compared")
    sides = [
        tuple(None if each is None else shown[each] for each in side)
        for side in (column.reference, column.live)
    ]
    return replace(column, reference=sides[0], live=sides[1])


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _checked(column: Compared) -> Compared:
    return column if column.error else replace(column, error=skip_reason(column))


def skip_reason(column: Compared) -> str:
    """Return why a column cannot be compared; empty if it can."""
    for side, values in (("the reference", column.reference), ("live traffic", column.live)):
        rows = len(values) - values.count(None)
        if not values:
            return f"no row of {side} kept it"
        if rows == 0:
            return f"no row of {side} has a value"
        if rows < FEWEST_ROWS:
            return f"{rows} rows of {side} have a value, and {FEWEST_ROWS} are needed"
    distinct = {value for value in (*column.reference, *column.live) if value is not None}
    return "" if len(distinct) > 1 else f"every row of both sides has {distinct.pop()!r}"


FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SHUFFLES = 1000
QUANTILE = 0.999
_LEAST_DEVIATION = 0.001
"""Evidently divides by no less; see `in_deviations`."""


def in_deviations(reference: FloatArray, live: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return both sides divided by the standard deviation of the reference, if it is so small that it is not used."""
    deviation = float(np.std(reference))
    if deviation >= _LEAST_DEVIATION or deviation == 0:
        return reference, live
    return reference / deviation, live / deviation


def distance_of_numbers(reference: FloatArray, live: FloatArray) -> float:
    """Return the Wasserstein distance in standard deviations of the reference.

    >>> distance_of_numbers(np.array([-1.0, 1.0]), np.array([-0.5, 1.5]))
    0.5
    """
    return float(wasserstein_distance(reference, live)) / max(float(np.std(reference)), _LEAST_DEVIATION)


def distance_of_shares(reference: ArrayLike, live: ArrayLike) -> float:
    """Return the Jensen-Shannon distance (natural logarithm) of two counts int[K] of the same names.

    >>> round(distance_of_shares([50, 50], [57, 43]), 3)
    0.05
    """
    return float(jensenshannon(np.asarray(reference, np.float64), np.asarray(live, np.float64)))


def chance_of_numbers(reference: FloatArray, live: FloatArray) -> float:
    """Return the distance that 999 of 1,000 random exchanges of rows stay below; the same for the same rows."""
    pool = np.sort(np.concatenate([reference, live]))
    gaps, below = np.diff(pool), np.arange(1, len(pool))
    side = np.arange(len(pool)) < len(reference)
    random = np.random.default_rng(0)
    distances = []
    for _ in range(SHUFFLES):
        first = np.cumsum(random.permutation(side))[:-1]
        apart = np.abs(first / len(reference) - (below - first) / len(live))
        distances.append(float(apart @ gaps))
    return float(np.quantile(distances, QUANTILE)) / max(float(np.std(reference)), _LEAST_DEVIATION)


def chance_of_shares(reference: IntArray, live: IntArray) -> float:
    """Return the distance that 999 of 1,000 random exchanges of rows stay below, for counts int[K]."""
    both = reference + live
    random = np.random.default_rng(0)
    first = random.multivariate_hypergeometric(both, int(reference.sum()), size=SHUFFLES)  # int[SHUFFLES, K]
    return float(np.quantile(jensenshannon(first, both - first, axis=1), QUANTILE))


def counts_of(reference: Sequence[str], live: Sequence[str]) -> tuple[list[str], IntArray, IntArray]:
    """Return the K names of both sides together, and how often each side has them, int[K].

    >>> counts_of(["a", "b", "a"], ["c"])
    (['a', 'b', 'c'], array([2, 1, 0]), array([0, 0, 1]))
    """
    names, places = np.unique([*reference, *live], return_inverse=True)
    first, second = (np.bincount(part, minlength=len(names)) for part in np.split(places, [len(reference)]))
    return names.tolist(), first, second
