"""Dispersion of labels: by how much the errors of labels that arrive together vary more than independent ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.events import Counts

FloatArray = NDArray[np.float64]
Indices = NDArray[np.intp]

SCALES_SECONDS = (3_600, 8 * 3_600)
"""Windows whose labels are compared: sessions of labelling, and shifts of work."""

PRIOR_CORRELATION, PRIOR_WINDOWS = 0.02, 30
"""Correlation assumed at first, so that the first clump of labels is no alarm; pairs of windows that weigh as much."""

PRIOR_DISPERSION = 3.0
"""Dispersion assumed at first, at most: a thousand labels in the first minutes are not one clump."""

SHARED_WINDOWS = 100
"""Pairs of windows of a rate that weigh as much as the correlation of all rates."""


@dataclass(frozen=True, eq=False, slots=True)
class LabelDispersion:
    """Correlation of errors within windows of one hour and of eight, for K rates, each with C strata.

    Labels of one topic, or of one labeller, err together. If two labels of a window err with correlation r, the
    errors among n of them vary 1 + (n - 1) r times as much as independent ones. The correlation is estimated from
    each window and the one with labels before it, stratum by stratum: with errors k and labels n of both,
    h = n1 n2 / (n1 + n2), and v the pooled variance, E[h (k1/n1 - k2/n2)^2 - v] = v (2 h - 1) r. No error rate has
    to be known, and a lasting change of the rate disturbs one pair only. The correlation of a rate is shrunken
    towards that of all K.

    A clump of labels is not known beforehand: the size of the window under way counts at once.

    Parameters
    ----------
    window : int64[W, K]
        Number of the window under way at each of W scales.
    labels, errors : int64[W, K, 2, C]
        Counts of the window before it, and of the window under way, of a longer one without those of the hour.
    excess, information : float64[W, K]
        Sums of (2 h - 1) (h (k1/n1 - k2/n2)^2 - v) and of (2 h - 1)^2 v, over pairs of windows.
    pairs, total, squares : float64[W, K]
        Pairs compared; sums of the labels of finished windows, and of their squares.
    offset, slope : float64[W, K]
        Correlation of the rate, as a linear function of that of all rates.

    References
    ----------
    Williams (1982), Extra-binomial variation in logistic linear models, Applied Statistics 31, 144-148.
    von Neumann (1941), Distribution of the ratio of the mean square successive difference to the variance,
    Annals of Mathematical Statistics 12, 367-395.
    """

    window: Counts
    labels: Counts
    errors: Counts
    excess: FloatArray
    information: FloatArray
    pairs: FloatArray
    total: FloatArray
    squares: FloatArray
    offset: FloatArray
    slope: FloatArray

    @classmethod
    def zeros(cls, rates: int, strata: int) -> LabelDispersion:
        """Return the state before the first label."""
        scales = len(SCALES_SECONDS)
        labels, errors = np.zeros((2, scales, rates, 2, strata), np.int64)
        excess, information, pairs, total, squares, offset = np.zeros((6, scales, rates))
        window, slope = np.full((scales, rates), -1), np.ones((scales, rates))
        return cls(window, labels, errors, excess, information, pairs, total, squares, offset, slope)

    def arrays(self) -> Mapping[str, NDArray[np.float64 | np.int64]]:
        """Return the state by name; the arrays are changed in place."""
        return {name: getattr(self, name) for name in self.__slots__}

    def advance(self, seconds: int, rates: Indices, labels: Counts, errors: Counts) -> None:
        """Add labels that arrived together.

        Parameters
        ----------
        seconds
            Time of arrival since the epoch; the windows of earlier labels are finished.
        rates : intp[k]
            Rates with labels, each once.
        labels, errors : int64[k, C]
            Their labels and errors by stratum.
        """
        for scale, width in enumerate(SCALES_SECONDS):
            ended = rates[self.window[scale, rates] != seconds // width]
            if ended.size:
                if scale == 0:  # hours make up the longer windows
                    self.labels[1:, ended, 1] += self.labels[0, ended, 1]
                    self.errors[1:, ended, 1] += self.errors[0, ended, 1]
                self._finish(scale, ended)
                self.window[scale, ended] = seconds // width
        self.labels[0, rates, 1] += labels
        self.errors[0, rates, 1] += errors

    def _finish(self, scale: int, rates: Indices) -> None:
        """Compare the windows of these rates with those before, and begin new ones."""
        n, k = self.labels[scale, rates], self.errors[scale, rates]  # [k, 2, C]
        both = n.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            p = k.sum(axis=1) / both
            v = p * (1 - p) * both / (both - 1)
            h = n[:, 0] * n[:, 1] / both
            excess = h * (k[:, 0] / n[:, 0] - k[:, 1] / n[:, 1]) ** 2 - v
        known = (n > 0).all(axis=1) & (v > 0)
        # large windows say more about a correlation: the weight is 2 h - 1
        self.excess[scale, rates] += np.where(known, (2 * h - 1) * excess, 0.0).sum(axis=1)
        self.information[scale, rates] += np.where(known, (2 * h - 1) ** 2 * v, 0.0).sum(axis=1)
        self.pairs[scale, rates] += known.any(axis=1)
        own = self.excess[scale, rates], self.information[scale, rates], self.pairs[scale, rates]
        self.offset[scale, rates], self.slope[scale, rates] = _shrunken(*own, SHARED_WINDOWS)
        size = n[:, 1].sum(axis=1)
        self.total[scale, rates] += size
        self.squares[scale, rates] += size.astype(np.float64) ** 2
        # a stratum without labels in this window keeps those of the window before
        fresh = n[:, 1] > 0
        self.labels[scale, rates, 0] = np.where(fresh, n[:, 1], n[:, 0])
        self.errors[scale, rates, 0] = np.where(fresh, k[:, 1], k[:, 0])
        self.labels[scale, rates, 1] = self.errors[scale, rates, 1] = 0

    def divisors(self, rates: Indices) -> FloatArray:
        """Return by how much the errors of these rates vary more than independent ones, at least 1: float64[k].

        A log-likelihood ratio divided by it is that of about as many independent labels.
        """
        labels = np.einsum("wkc->wk", np.take(self.labels[:, :, 1], rates, axis=1))  # under way
        labels[1:] += labels[0]
        total, squares, offset, slope = (
            np.take(each, rates, axis=1) for each in (self.total, self.squares, self.offset, self.slope)
        )
        squares += labels * labels
        total += labels
        others = np.maximum(squares / np.maximum(total, 1.0, out=total) - 1, 0.0)
        prior = np.minimum(PRIOR_CORRELATION, (PRIOR_DISPERSION - 1) / np.maximum(others, 1.0))
        excess, information, pairs = (
            each.sum(axis=1, keepdims=True) for each in (self.excess, self.information, self.pairs)
        )
        of_all, weight = _shrunken(excess, information, pairs, PRIOR_WINDOWS)
        correlation = offset + slope * (of_all + weight * prior)
        return np.asarray((1 + np.maximum(correlation, 0.0) * others).max(axis=0), np.float64)


def _shrunken(
    excess: FloatArray, information: FloatArray, pairs: FloatArray, windows: int
) -> tuple[FloatArray, FloatArray]:
    """Return offset and slope of correlations as functions of the prior, which weighs as much as some windows."""
    weight = windows * information / np.maximum(pairs, 1)
    total = information + weight
    known = total > 0
    total = np.where(known, total, 1.0)
    return np.where(known, excess / total, 0.0), np.where(known, weight / total, 1.0)
