"""Numbers and categories as features: what is learned of a column is a small value with exact JSON state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import DataError
from sfs.record import text_of

_LINEAR_UP_TO = 3.0
_LARGEST = 20.0
_QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
_DATES = (date, time, timedelta, np.datetime64, np.timedelta64)


@dataclass(frozen=True, slots=True)
class NumberScale:
    """How a column's numbers become features: distance from the median in robust standard deviations.

    Beyond 3 of them a number counts by its logarithm, and never for more than 20, so that an absurd value
    cannot drown the others. Infinity is taken for a missing value. A missing value is the median, and sets an
    indicator if training saw missing values (one that it never saw set would carry an untrained weight).

    Parameters
    ----------
    center, scale
        In the column's own unit.
    missing_seen
        Whether some training value was missing.
    """

    center: float
    scale: float
    missing_seen: bool

    @classmethod
    def fit(cls, values: NDArray[np.float64]) -> NumberScale:
        """Learn from float[N], NaN where missing."""
        known = values[np.isfinite(values)]
        missing = len(known) < len(values)
        if not len(known):
            return cls(0.0, 1.0, missing)
        low, first, middle, third, high = np.quantile(known, _QUANTILES, method="nearest")
        with np.errstate(over="ignore"):
            spreads = ((third - first) / 1.349, (high - low) / 4.653, known.max() - known.min())
        scale = next((float(spread) for spread in spreads if 0 < spread < np.inf), 1.0)
        return cls(float(middle), scale, missing)

    def transform(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return float32[N, 2]: the scaled number, and whether it is missing."""
        missing = ~np.isfinite(values)
        with np.errstate(over="ignore"):
            scaled = (np.where(missing, self.center, values) - self.center) / self.scale
            beyond = np.maximum(np.abs(scaled) - _LINEAR_UP_TO, 0.0)
        near = np.minimum(np.abs(scaled), _LINEAR_UP_TO)
        squeezed = np.sign(scaled) * np.minimum(near + np.log1p(beyond), _LARGEST)
        return np.stack([squeezed, missing & self.missing_seen], axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The categories of a column, most frequent first; all others share a column, and so do missing ones.

    As with numbers, a shared column stays 0 where training had no row for it.

    Parameters
    ----------
    names
        The categories with a column of their own, spelled by `sfs.record.text_of`.
    other_seen, missing_seen
        Whether some training value was another category, or missing.
    """

    names: tuple[str, ...]
    other_seen: bool
    missing_seen: bool

    @classmethod
    def fit(cls, names: Sequence[str | None], max_names: int, min_rows: int) -> Vocabulary:
        """Learn from N spelled categories, keeping at most ``max_names`` of those with ``min_rows`` rows."""
        counts = Counter(name for name in names if name is not None)
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        kept = [name for name, rows in ranked if rows >= min_rows][:max_names]
        missing = counts.total() < len(names)
        return cls(tuple(kept), len(kept) < len(counts), missing)

    def transform(self, names: Sequence[str | None]) -> NDArray[np.int64]:
        """Return int64[N], each row's column among len(names) + 2, or -1 for no column at all."""
        other = len(self.names) if self.other_seen else -1
        places: dict[str | None, int] = {name: place for place, name in enumerate(self.names)}
        places[None] = len(self.names) + 1 if self.missing_seen else -1
        return np.fromiter((places.get(name, other) for name in names), dtype=np.int64, count=len(names))


def as_number(value: Any, column: str, row: Any) -> float:
    """Return a value as a float, NaN where missing or infinite.

    Raises
    ------
    DataError
        If the value is not a number, a boolean, or text that spells a number.
    """
    if value is None:
        return np.nan
    if isinstance(value, _DATES):
        raise _dated(column, row, value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise DataError(
            f"column {column!r}, row {row}: {_short(value)} is not a number: "
            "make the column a category or text feature, or mend the value"
        ) from None
    except OverflowError:
        return np.nan
    return number if np.isfinite(number) else np.nan


def as_name(value: Any, column: str, row: Any) -> str | None:
    """Return how a category or text is spelled, None where missing.

    Raises
    ------
    DataError
        If the value is not text, a boolean or a number.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, _DATES):
        raise _dated(column, row, value)
    try:
        return text_of(value)
    except (TypeError, OverflowError):
        raise DataError(
            f"column {column!r}, row {row}: {_short(value)} is a {type(value).__name__}, "
            "expected text, a number or a boolean"
        ) from None


def _dated(column: str, row: Any, value: Any) -> DataError:
    """Return the refusal of a date or time, with what to do instead."""
    return DataError(
        f"column {column!r}, row {row}: {_short(value)} is a date or time, which is no feature: "
        "derive a number (age in days) or a category (weekday) from it"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
