"""Columns of a report: built from the rows of both sides, with the distances expected by chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy
from numpy.typing import NDArray

from models.column_encoders import as_number
from models.errors import DataError
from models.features import FeatureSpec
from models.splits import readable_text, record_contents
from sfs.intervals import effective_n

ColumnKind: TypeAlias = Literal["number", "category", "words", "missing", "label", "confidence"]
Value: TypeAlias = float | str | None
Side: TypeAlias = Sequence[tuple[int, Value]]
Sizes: TypeAlias = tuple[int, int] | None
FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

MINIMUM_ROWS = 30
"""Rows with a value that each side needs."""
MAX_CATEGORIES = 10
COMMON_SHARE, COMMON_ROWS = 0.01, 5
"""Beyond `MAX_CATEGORIES`, categories with a smaller share or fewer rows are merged: each one adds noise."""
OTHER = "(other)"
PERMUTATIONS, QUANTILE = 1000, 0.999
MINIMUM_DEVIATION = 0.001
"""Evidently divides distances by no smaller standard deviation; see `scale_small_deviation`."""

_NAME_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class PredictedRow:
    """A record with its prediction, and a hash of it all; features are None if not logged, the others if unknown."""

    features: Mapping[str, Any] | None
    label: str | None
    probabilities: Sequence[float] | None
    content: int | None = None


@dataclass(frozen=True, slots=True)
class ColumnPair:
    """One column on both sides.

    Parameters
    ----------
    column
        Name, unique in a report.
    kind
        ``number`` or ``category`` as it is, the number of ``words`` of a text, whether a value is ``missing``,
        and of predictions the ``label`` and the ``confidence``, which is the largest probability.
    numeric
        Whether the values are numbers rather than names.
    reference, live
        Values of the rows that have the column; None for a missing value.
    error
        Reason why it cannot be compared; empty if it can.
    independent
        Effective n of the values of both sides, where contents repeat; None if they do not.
    """

    column: str
    kind: ColumnKind
    numeric: bool
    reference: tuple[Value, ...]
    live: tuple[Value, ...]
    error: str = ""
    independent: Sizes = None


def build_columns(
    features: Sequence[FeatureSpec],
    reference: Sequence[PredictedRow],
    live: Sequence[PredictedRow],
    predicted: Sequence[PredictedRow] | None = None,
) -> list[ColumnPair]:
    """Return the columns to compare: features in order, then predictions.

    Predictions are compared with those of the rows in ``predicted``, by default of the reference.

    Rare categories are merged if there are many. A number that is constant in the reference is compared as a category:
    that number, or another one.

    Examples
    --------
    >>> rows = [PredictedRow({"likes": i % 3}, "spam", (0.2, 0.8)) for i in range(40)]
    >>> [(column.column, column.error) for column in build_columns([FeatureSpec("likes", "number")], rows, rows)][:2]
    [('likes', ''), ('predicted label', "every row of both sides has 'spam'")]
    """

    def by_content(rows: Sequence[PredictedRow]) -> list[tuple[int, PredictedRow]]:
        others = [-1 - k if row.content is None else row.content for k, row in enumerate(rows)]
        contents = record_contents([row.features for row in rows], features, others)  # unknown ones are distinct
        return list(zip(contents, rows, strict=True))

    sides = by_content(reference), by_content(live)
    pairs: list[ColumnPair] = []

    def add(name: str, kind: ColumnKind, is_numeric: bool, values: Sequence[Side]) -> None:
        contents = [[content for content, value in side if value is not None] for side in values]
        first, second = (tuple(value for _, value in side) for side in values)
        # The reference was drawn by content, and live rows one by one.
        independent = effective_n(contents[0]), len(set(contents[1]))
        pairs.append(ColumnPair(name, kind, is_numeric, first, second, independent=independent))

    for spec in features:
        name, (kind, read) = spec.column, _READERS[spec.kind]
        values = [
            [(c, read(row.features[name])) for c, row in rows if row.features and name in row.features]
            for rows in sides
        ]
        add(f"length of {name}" if kind == "words" else name, kind, kind != "category", values)
        if any(value is None for side in values for _, value in side):
            missing = [[(c, "yes" if value is None else "no") for c, value in side] for side in values]
            add(f"{name} is missing", "missing", False, missing)
    if predicted is not None:
        sides = by_content(predicted), sides[1]
    labels = [[(c, row.label) for c, row in rows if row.label is not None] for rows in sides]
    add("predicted label", "label", False, labels)
    confidence = [[(c, max(row.probabilities or (), default=None)) for c, row in rows] for rows in sides]
    add("confidence", "confidence", True, confidence)

    columns: dict[str, ColumnPair] = {}
    for pair in pairs:
        column = _constant_as_category(pair) if pair.numeric else _merge_rare_categories(pair)
        name = unique_name(pair.column, columns)
        columns[name] = replace(column, column=name, error=column.error or skip_reason(column))
    return list(columns.values())


def _read_number(value: Any) -> float | None:
    try:
        number = as_number(value, "", 0)
    except DataError:  # a model cannot use it either
        return None
    return None if number != number else number


def _count_words(value: Any) -> float | None:
    text = readable_text(value)
    return None if text is None else float(len(text.split()))


_READERS: Mapping[str, tuple[ColumnKind, Callable[[Any], Value]]] = {
    "number": ("number", _read_number),
    "category": ("category", readable_text),
    "text": ("words", _count_words),
}


def unique_name(name: str, taken: Iterable[str]) -> str:
    """Return the name, with as many primes as make it unique.

    >>> unique_name("confidence", {"confidence", "confidence'"})
    "confidence''"
    """
    while name in taken:
        name += "'"
    return name


def _constant_as_category(column: ColumnPair) -> ColumnPair:
    distinct = {value for value in column.reference if value is not None}
    if len(distinct) != 1 or set(column.live) <= {None, *distinct}:
        return column
    constant = distinct.pop()
    sides = [
        tuple(None if value is None else f"{constant:g}" if value == constant else OTHER for value in side)
        for side in (column.reference, column.live)
    ]
    return replace(column, numeric=False, reference=sides[0], live=sides[1])


def _merge_rare_categories(column: ColumnPair) -> ColumnPair:
    """Return a column of categories with the rare ones of both sides merged, if there are many, and long ones cut."""
    counts = Counter(value for value in (*column.reference, *column.live) if value is not None)
    least = max(COMMON_ROWS, COMMON_SHARE * counts.total()) if len(counts) > MAX_CATEGORIES else 0
    names: dict[Value, str] = {}
    for value, count in counts.items():
        name = str(value)
        short = name if len(name) <= _NAME_CHARACTERS else f"{name[: _NAME_CHARACTERS - 1]}…"
        names[value] = short if count >= least else OTHER
    if least and set(names.values()) == {OTHER}:
        return replace(column, error=f"none of its {len(names)} values is common enough to be compared")
    sides = [tuple(names.get(value) for value in side) for side in (column.reference, column.live)]
    return replace(column, reference=sides[0], live=sides[1])


def skip_reason(column: ColumnPair) -> str:
    """Return the reason why a column cannot be compared; empty if it can."""
    for k, side in enumerate(("the reference", "live traffic")):
        values = (column.reference, column.live)[k]
        rows = len(values) - values.count(None)
        if k == rows == 0 and column.kind in ("label", "confidence"):
            return f"the reference has no {column.column} yet: the version's first `report.every_hours` set it"
        if not values:
            return f"no row of {side} has this column"
        if rows == 0:
            return f"no row of {side} has a value"
        if rows < MINIMUM_ROWS:
            return f"{rows} rows of {side} have a value; {MINIMUM_ROWS} are needed"
        if column.independent and column.independent[k] == 1:
            return f"the {rows:,} rows of {side} with a value have an effective n of 1"
    distinct = {value for value in (*column.reference, *column.live) if value is not None}
    return "" if len(distinct) > 1 else f"every row of both sides has {distinct.pop()!r}"


def scale_small_deviation(reference: FloatArray, live: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return both sides divided by the reference's standard deviation, if Evidently would not divide by it."""
    deviation = float(np.std(reference))
    if deviation >= MINIMUM_DEVIATION or deviation == 0:
        return reference, live
    return reference / deviation, live / deviation


def wasserstein_by_chance(reference: FloatArray, live: FloatArray, sizes: Sizes = None) -> float:
    """Return the 99.9% quantile of the Wasserstein distance, in deviations of the reference, of permuted rows.

    The permutations are seeded: the result is the same for the same rows. ``sizes`` are the effective n of both
    sides; as many rows are drawn.
    """
    pool = np.sort(np.concatenate([reference, live]))
    gaps, rows = np.diff(pool), np.arange(len(pool))
    first, second = sizes or (len(reference), len(live))
    random = np.random.default_rng(0)
    distances = []
    for _ in range(PERMUTATIONS):
        drawn = random.permutation(rows)
        below = np.cumsum(drawn < first) / first - np.cumsum(drawn >= len(pool) - second) / second
        distances.append(float(np.abs(below[:-1]) @ gaps))
    return float(np.quantile(distances, QUANTILE)) / max(float(np.std(reference)), MINIMUM_DEVIATION)


def jensenshannon_by_chance(reference: IntArray, live: IntArray, sizes: Sizes = None) -> float:
    """Return the 99.9% quantile of the Jensen-Shannon distance of permuted rows, for counts int[K].

    ``sizes`` are the effective n of both sides; as many rows are drawn.
    """
    both = reference + live
    one, other = sizes or (int(reference.sum()), int(live.sum()))
    random = np.random.default_rng(0)
    first = random.multivariate_hypergeometric(both, one, size=PERMUTATIONS)  # int[P, K]
    second = np.array([random.multivariate_hypergeometric(rest, other) for rest in both - first])
    return float(np.quantile(scipy.spatial.distance.jensenshannon(first, second, axis=1), QUANTILE))


def count_names(reference: Sequence[str], live: Sequence[str]) -> tuple[list[str], IntArray, IntArray]:
    """Return the K names of both sides, and their counts int[K] on each side.

    >>> count_names(["a", "b", "a"], ["c"])
    (['a', 'b', 'c'], array([2, 1, 0]), array([0, 0, 1]))
    """
    names, places = np.unique([*reference, *live], return_inverse=True)
    first, second = (np.bincount(part, minlength=len(names)) for part in np.split(places, [len(reference)]))
    return names.tolist(), first, second
