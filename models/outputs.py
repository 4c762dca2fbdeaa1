"""Rates of a model's outputs that need no labels: low confidence, and indicators that contradict functions.

The confidence of a prediction is its greatest class probability. It is counted on a fixed grid, so that counts of all
versions can be added, and every version has a limit of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from models.errors import BundleError
from sfs.intervals import Rate, effective_n
from sfs.matrix import SliceMatrix

Floats: TypeAlias = NDArray[np.float64]

LIMITS: Floats = expit(np.arange(-12, 49) / 4)
"""Limits between the ranges of confidence, float64[61]: every quarter of log odds, from 0.05 to 1 - 6e-6."""

RANGES = len(LIMITS) + 1
"""Number of ranges; the first is below all limits."""

_LOW_SHARE = 0.1


def count_ranges(confidence: Floats) -> NDArray[np.int64]:
    """Return the number of rows in each range, int64[62].

    Parameters
    ----------
    confidence : float64[N]
        NaN, which is not counted, for a row without probabilities.

    Examples
    --------
    >>> counts = count_ranges(np.array([0.51, 0.7, 0.999, np.nan]))
    >>> counts.nonzero()[0].tolist(), counts[counts > 0].tolist()
    ([13, 16, 40], [1, 1, 1])
    """
    known = confidence[~np.isnan(confidence)]
    return np.bincount(np.searchsorted(LIMITS, known, side="right"), minlength=RANGES)


def low_limit(confidence: Floats) -> int:
    """Return the index of the lowest limit below which a tenth of the rows lie; of the highest one if there is none.

    Examples
    --------
    >>> f"{LIMITS[low_limit(np.linspace(0.5, 1, 1000))]:.3f}"
    '0.562'
    """
    below = count_ranges(confidence)[:-1].cumsum()
    return min(int(np.searchsorted(below, _LOW_SHARE * len(confidence))), len(LIMITS) - 1)


def nearest_limit(confidence: float) -> int:
    """Return the index of the limit nearest to a confidence."""
    return int(np.abs(LIMITS - confidence).argmin())


@dataclass(frozen=True, slots=True)
class OutputRates:
    """Rates among the held-out rows.

    Parameters
    ----------
    limit
        Confidence below which about a tenth of them lie, one of ``LIMITS``.
    low_confidence
        Rows below the limit.
    disagreement
        By slice with an indicator: rows on which it contradicts the function, of those of known membership.
    """

    limit: float
    low_confidence: Rate
    disagreement: Mapping[str, Rate]

    @classmethod
    def of(cls, P: Floats, inside: NDArray[np.bool_], S: SliceMatrix, contents: NDArray[np.uint64]) -> OutputRates:
        """Return the rates of N rows.

        Parameters
        ----------
        P : float64[N, C]
            Probabilities.
        inside : bool[N, K]
            Memberships by the indicators.
        S
            Memberships by the functions, in the same order.
        contents : uint64[N]
            Equal for rows of one content.
        """
        confidence = P.max(axis=1)
        limit = LIMITS[low_limit(confidence)]
        wrong, known = inside != S.member, ~S.unknown
        disagreement = {name: _rate(wrong[known[:, k], k], contents[known[:, k]]) for k, name in enumerate(S.names)}
        return cls(float(limit), _rate(confidence < limit, contents), disagreement)

    def to_json(self) -> dict[str, Any]:
        """Return the rates as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, saved: Any, slice_names: Sequence[str]) -> OutputRates:
        """Return stored rates.

        Raises
        ------
        BundleError
            If they are malformed, or of other slices.
        """
        try:
            disagreement = {str(name): Rate(**rate) for name, rate in saved["disagreement"].items()}
            rates = cls(saved["limit"], Rate(**saved["low_confidence"]), disagreement)
        except (TypeError, KeyError, AttributeError) as error:
            raise BundleError(f"the rates of the outputs are malformed: {error!r:.100}") from error
        counts = [(rate.count, rate.effective_n, rate.n) for rate in (rates.low_confidence, *disagreement.values())]
        if (
            type(rates.limit) is not float
            or not disagreement.keys() <= set(slice_names)
            or not all(type(number) is int for each in counts for number in each)
            or not all(0 <= count <= n and (n > 0) <= independent <= n for count, independent, n in counts)
        ):
            raise BundleError(f"the rates of the outputs are impossible: {rates!r:.100}")
        return rates


def _rate(hit: NDArray[np.bool_], contents: NDArray[np.uint64]) -> Rate:
    return Rate(int(hit.sum()), len(hit), effective_n(contents, hit))
