"""Detector of lower accuracy on labels that are no random sample: by true and by predicted class, in groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.events import Counts
from service.monitor.label_dispersion import LabelDispersion
from service.monitor.tolerance_band import MANY_ERRORS, TOLERATED_MISS, UNCHANGED_MISS
from sfs.intervals import clopper_pearson_arrays

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Indices = NDArray[np.intp]

FACTORS = (1.2, 1.5, 2.0, 3.0, 6.0, 12.0)
"""Alternatives: factors on the odds of an error at its limit."""
MEDIUM = 2
"""Index of the factor whose likelihood ratio dates the change."""

_LOG_FACTORS = np.log(FACTORS)
PAIRED_LABELS, PAIRED_RATIO = 50, math.exp(3)
"""After so many labels of a rate, the larger statistic of its two views is at most so many times the smaller."""

_STATE = (
    *("sums", "unpaired", "last", "cusum", "counts", "change", "past_parts"),
    *("begun", "blocks", "blocks_with_labels"),
)
_MOST = 300.0
_LARGEST = math.exp(_MOST)  # finite when multiplied by itself

BLOCK_SECONDS = 10
MONTH_BLOCKS = 30 * 86_400 // BLOCK_SECONDS


def log_thresholds(slices: int, families: int, false_alarms_a_month: float) -> tuple[float, float, float]:
    """Return the logarithms of the alarm thresholds of a slice, of a family, and of all rows.

    Half of the false alarms of accuracy is for the slices, a quarter for the families, a quarter for all rows;
    without families, theirs is for the slices.

    Parameters
    ----------
    slices, families
        Numbers of slices and of families that share the false alarms.
    false_alarms_a_month
        Expected false alarms of accuracy in 30 days, over all rates.

    Examples
    --------
    >>> [round(threshold, 2) for threshold in log_thresholds(1_000, 50, 0.5)]
    [20.76, 18.46, 14.54]
    """
    shares = (0.5, 0.25, 0.25) if families else (0.75, 0.0, 0.25)
    slice_share, family_share, whole = (false_alarms_a_month * share for share in shares)
    return (
        math.log(max(1, slices) * MONTH_BLOCKS / slice_share),
        math.log(families * MONTH_BLOCKS / family_share) if families else math.inf,
        math.log(MONTH_BLOCKS / whole),
    )


def error_limits(confusion: Counts, effective_n: Counts, tolerance: float, slices: int) -> FloatArray:
    """Return the highest error rate without drift, by true class and by predicted class: float64[K, 2, C].

    The rule is that of ``tolerance_band.accuracy_band``, for each class by itself; 1 where the reference has no
    rows of the class, whose labels are then no evidence.

    Parameters
    ----------
    confusion : int64[K, C, C]
        Reference counts by true and predicted class.
    effective_n : int64[K]
        Effective n of each rate's reference rows.
    tolerance
        Tolerated absolute growth of an error rate; doubled if a fifth of the reference is wrong already.
    slices
        Number of monitored slices.

    Examples
    --------
    >>> ham_first = np.array([[[4_850, 150], [60, 540]]])
    >>> error_limits(ham_first, np.array([5_600]), 0.01, 200).round(3).tolist()
    [[[0.044, 0.158], [0.025, 0.286]]]
    """
    right = np.einsum("kcc->kc", confusion)
    rows = np.stack([confusion.sum(axis=2), confusion.sum(axis=1)], axis=1)  # [K, 2, C]
    wrong = rows - right[:, None, :]
    share = effective_n / np.maximum(confusion.sum(axis=(1, 2)), 1)
    n = np.maximum(np.rint(rows * share[:, None, None]), rows > 0).astype(np.int64)
    errors = wrong * n / np.maximum(rows, 1)
    _, highest = clopper_pearson_arrays(errors, n, 1 - 2 * UNCHANGED_MISS / (slices * confusion.shape[1]))
    _, high = clopper_pearson_arrays(errors, n, 1 - 2 * TOLERATED_MISS)
    tolerated = np.where(errors >= MANY_ERRORS * n, 2 * tolerance, tolerance)
    return np.where(n > 0, np.minimum(np.maximum(highest, high + tolerated), 1.0), 1.0)


def target_limits(confusion: Counts, target: float) -> FloatArray:
    """Return the error rates of every true class at which a slice just has its target accuracy: float64[C].

    The odds of an error in the reference, whose mix of classes is kept, are multiplied by one number.

    Parameters
    ----------
    confusion : int64[C, C]
        Reference counts by true and predicted class.
    target
        Accuracy in (0, 1).

    Examples
    --------
    >>> target_limits(np.array([[90, 10], [20, 80]]), 0.75).round(3).tolist()
    [0.178, 0.322]
    """
    n = confusion.sum(axis=1)
    rates = (n - np.diagonal(confusion) + 0.5) / (n + 1)
    low, high = -40.0, 40.0
    for _ in range(100):
        middle = (low + high) / 2
        odds = rates / (1 - rates) * math.exp(middle)
        limits = odds / (1 + odds)
        low, high = (middle, high) if limits @ n < (1 - target) * n.sum() else (low, middle)
    return np.where(n > 0, limits, 1.0)


@dataclass(frozen=True, slots=True)
class Part:
    """Labels and errors of one slice since the change that was found in its group."""

    rate: int
    errors: int
    labels: int


@dataclass(frozen=True, slots=True)
class Fall:
    """Lower accuracy that was found in one rate.

    Parameters
    ----------
    rate
        Position of the slice, family, or all rows.
    true_class
        Position of the true class whose recall fell; None for all classes.
    since
        Likeliest start of the change, in seconds since the epoch.
    errors, labels
        Counts since then, of this class or of all.
    all_errors, all_labels
        Counts since then, of all classes.
    evidence, threshold
        Logarithms of the statistic and of its threshold.
    dispersion
        Number by which the log-likelihood ratio was divided last.
    parts
        Of a group, the slices with labels since then, the one with the most errors first.
    """

    rate: int
    true_class: int | None
    since: int
    errors: int
    labels: int
    all_errors: int
    all_labels: int
    evidence: float
    threshold: float
    dispersion: float
    parts: tuple[Part, ...] = ()


class LabelDetector:
    """One-sided detectors of K rates on labels of C classes, valid though labels are selected by class.

    Labels are seldom a random sample. If they are selected by their **true** class (one class is sent first, or
    is reported sooner), the error rate within a true class is that of the traffic; if they are selected by their
    **predicted** class (a queue of predicted spam is reviewed first), that within a predicted class is. Each rate has
    two e-detectors, one by true and one by predicted class, and alarms once both have reached the threshold: under
    either selection one of the two is valid, and an alarm needs it. After every ``PAIRED_LABELS`` labels the larger
    of the two is scaled down to ``PAIRED_RATIO`` times the smaller, so that the selection may change: evidence that
    only one view has is not kept.

    An e-detector is a mixture over classes and sizes of change. For each of them, M is the sum, over all blocks of 10
    seconds at which the change may have started, of the likelihood ratio since then. Blocks without labels are
    starts, too, so that M grows by 1 in a block whether it has labels or not: the expected alarms in N blocks are at
    most N / c for the threshold c, and a slice with few labels needs less evidence than one with many, at the same
    number of false alarms a month. The log-likelihood ratio is divided by the dispersion of the labels.

    Parameters
    ----------
    limits : float64[K, 2, C]
        Highest error rates without drift by true and by predicted class, as of ``error_limits``; 1 where nothing is
        expected. A view without limits is left out; a rate without both is not monitored.
    of_all : bool[K]
        Rates whose second view is of all labels instead of by predicted class: its limit is that of class 0. For
        a target, and for a reference without counts by class; it assumes labels at random.
    thresholds : float64[K]
        Logarithms of the thresholds.
    start
        Seconds since the epoch.
    groups
        Slices of each group, by the position of the group.

    Examples
    --------
    >>> limits = error_limits(np.array([[[4_850, 150], [60, 540]]]), np.array([5_600]), 0.01, 200)
    >>> detector = LabelDetector(limits, np.array([False]), np.array([18.0]), start=0)
    >>> some = np.array([[[80, 2], [9, 9]]])
    >>> days = (detector.advance(86_400 * day, np.array([0]), some) for day in range(1, 30))
    >>> fall = next(falls[0] for falls in days if falls)
    >>> fall.true_class, fall.since // 86_400, fall.errors, fall.labels
    (1, 0, 54, 108)

    References
    ----------
    Shin, Ramdas and Rinaldo (2022), E-detectors: a nonparametric framework for sequential change detection.
    Elkan (2001), The foundations of cost-sensitive learning, on selection by class.
    """

    def __init__(
        self,
        limits: FloatArray,
        of_all: BoolArray,
        thresholds: FloatArray,
        start: int,
        groups: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        rates, _, classes = limits.shape
        self.thresholds, self._of_all = thresholds, of_all
        exists = (limits > 0) & (limits < 1)  # [K, 2, C]
        self._expected = exists
        # the odds m / (1 - m) times f belong to the rate m f / (1 + m (f - 1))
        growth = np.log1p(np.where(exists, limits, 0.0)[..., None] * (np.array(FACTORS) - 1))  # [K, 2, C, F]
        self._growth = np.concatenate([np.zeros_like(growth[:, :, :1]), growth], axis=2)  # [K, 2, 1 + C, F]
        # half of the weight is for all classes together, half for each alone
        known = exists.sum(axis=2)[..., None]  # [K, 2, 1]
        alone = np.where(exists & (known > 1), 0.5 / np.maximum(known, 1), 0.0)
        together = np.where(known > 1, 0.5, known > 0)
        self._weight = np.concatenate([together, alone], axis=2) / len(FACTORS)  # [K, 2, 1 + C]
        self._missing = known[..., 0] == 0  # [K, 2]
        self._groups = {group: np.array(parts, np.intp) for group, parts in (groups or {}).items()}
        self._pairs, pairs = {}, 0
        for group, parts in self._groups.items():
            self._pairs[group] = slice(pairs, pairs := pairs + len(parts))
        self._dispersion = [LabelDispersion.zeros(rates, classes) for _ in range(2)]
        self._sums = np.zeros((rates, 2, 1 + classes, len(FACTORS)))
        self._work = np.empty((2, *self._sums.shape))
        self._unpaired = np.zeros(rates, np.int64)
        self._start, self._last = start, np.full(rates, start, np.int64)
        self._cusum = np.zeros((rates, 1 + classes))
        self._counts = np.zeros((rates, 1 + classes, 2), np.int64)
        self._change = np.zeros((rates, 1 + classes, 5), np.int64)  # start; counts before it, own and of all classes
        self._change[..., 0] = start
        self._past_parts = np.zeros((pairs, 1 + classes, 2), np.int64)
        self._begun = np.zeros((rates, 2), np.int64)
        self._blocks, self._blocks_with_labels = np.zeros((2, rates), np.int64)

    def arrays(self) -> Mapping[str, NDArray[np.float64 | np.int64]]:
        """Return the state by name: a detector whose arrays are set to these values continues exactly."""
        state = {name: getattr(self, f"_{name}") for name in _STATE}
        for view, dispersion in enumerate(self._dispersion):
            state |= {f"{name}_{view}": array for name, array in dispersion.arrays().items()}
        return state

    def resume(
        self,
        earlier: Mapping[str, NDArray[np.float64 | np.int64]],
        rates: tuple[Indices, Indices],
        parts: tuple[Indices, Indices],
        same: BoolArray,
    ) -> None:
        """Continue from the arrays of a detector with the same classes.

        Parameters
        ----------
        earlier
            Its ``arrays``.
        rates, parts
            Positions here, and there, of k rates and of the parts of their groups.
        same : bool[k, 2]
            Views whose limits are the same; the evidence of others begins again, and so does a rate without any.
        """
        for name, array in self.arrays().items():
            (here, there), axis = (parts, 0) if name == "past_parts" else (rates, 0 if name in _STATE else 1)
            np.moveaxis(array, axis, 0)[here] = np.moveaxis(earlier[name], axis, 0)[there]
        self._sums[rates[0]] *= same[:, :, None, None]
        restarted = rates[0][~same.any(axis=1)]
        self.reset(restarted)
        self._last[restarted] = self._start

    def limit_starts(self, at: int) -> None:
        """Move changes that started after a moment to it: the clock was ahead at the time."""
        np.minimum(self._change[..., 0], at, out=self._change[..., 0])
        np.minimum(self._last, at, out=self._last)

    def log_statistic(self) -> FloatArray:
        """Return the logarithm of every rate's statistic, as of its last label, at least 0: float64[K]."""
        return np.log(np.maximum(self._smaller(np.arange(len(self._sums)), self._sums)[0], 1.0))

    def blocks_a_label(self) -> FloatArray:
        """Return the mean number of blocks up to one with labels, at least 1: float64[K]."""
        return np.maximum(self._blocks / np.maximum(self._blocks_with_labels, 1), 1.0)

    def counted(self) -> Counts:
        """Return errors and labels of every rate since it began or alarmed: int64[K, 2]."""
        return np.asarray(self._counts[:, 0] - self._begun, np.int64)

    def labels_a_month(self) -> FloatArray:
        """Return the labels of every rate in thirty days, fewer if it has been counted for less: float64[K]."""
        shares = np.minimum(1.0, MONTH_BLOCKS / np.maximum(self._blocks, 1))
        return np.asarray(self._counts[:, 0, 1] * shares, np.float64)

    def divisors(self, rates: Indices) -> FloatArray:
        """Return the dispersion of the labels of these rates: float64[k].

        Selection by one of the classes disperses the errors within the other, which is no correlation of errors: the
        smaller of the two dispersions is the one that counts.
        """
        views = zip(self._dispersion, self._missing[rates].T, strict=True)
        smallest = np.minimum(*(np.where(missing, np.inf, each.divisors(rates)) for each, missing in views))
        return np.where(np.isinf(smallest), 1.0, smallest)

    def advance(self, end: int, rates: Indices, confusion: Counts) -> list[Fall]:
        """Add the labels that arrived together, and return the falls found, in the order of the rates.

        Parameters
        ----------
        end
            End of the block in seconds since the epoch, not before that of earlier labels.
        rates : intp[k]
            Rates with labels, each once; a group has the labels of all of its rows, each once.
        confusion : int64[k, C, C]
            Their labels by true and predicted class.
        """
        right = np.einsum("kcc->kc", confusion)
        by_class = np.einsum("ktp->kt", confusion), np.einsum("ktp->kp", confusion)
        labels = np.stack(by_class, axis=1)  # [k, 2, C]
        errors = labels - right[:, None, :]
        if self._of_all[rates].any():
            for counts in (labels, errors):
                rest = np.zeros_like(counts[:, 1])
                rest[:, 0] = counts[:, 0].sum(axis=1)
                counts[:, 1] = np.where(self._of_all[rates, None], rest, counts[:, 1])
        for view, dispersion in enumerate(self._dispersion):
            dispersion.advance(end - 1, rates, labels[:, view], errors[:, view])
        phi = self.divisors(rates)
        weighted = labels / phi[:, None, None], (errors / phi[:, None, None]) * self._expected[rates]
        log_e, sums = self._work[0, : len(rates)], self._work[1, : len(rates)]  # new memory takes longer
        np.take(self._growth, rates, axis=0, out=sums, mode="clip")
        np.multiply(weighted[1][..., None], _LOG_FACTORS, out=log_e[:, :, 1:])
        log_e[:, :, 1:] -= np.multiply(sums[:, :, 1:], weighted[0][..., None], out=sums[:, :, 1:])
        np.einsum("kvcf->kvf", log_e[:, :, 1:], out=log_e[:, :, 0])
        medium = np.where(self._missing[rates, 0, None], log_e[:, 1, :, MEDIUM], log_e[:, 0, :, MEDIUM])
        self._date(end - BLOCK_SECONDS, rates, labels[:, 0], errors[:, 0], medium)
        blocks = np.clip((end - self._last[rates]) // BLOCK_SECONDS, 0, MONTH_BLOCKS)
        self._blocks[rates] += blocks
        self._blocks_with_labels[rates] += 1
        self._last[rates] = np.maximum(self._last[rates], end)
        np.take(self._sums, rates, axis=0, out=sums, mode="clip")
        ratio, flat = (each.reshape(len(rates), -1) for each in (log_e, sums))  # long rows are quicker
        np.exp(np.minimum(ratio, _MOST, out=ratio), out=ratio)
        flat += blocks[:, None]
        flat *= ratio
        np.minimum(flat, _LARGEST, out=flat)
        self._sums[rates] = sums
        statistic, mixture = self._smaller(rates, sums)
        self._unpaired[rates] += np.einsum("kc->k", labels[:, 0])
        (paired,) = np.nonzero(self._unpaired[rates] >= PAIRED_LABELS)
        most = PAIRED_RATIO * statistic[paired, None] / np.maximum(mixture[paired], 1 / _LARGEST)
        self._sums[rates[paired]] *= np.minimum(most, 1.0)[..., None, None]
        self._unpaired[rates[paired]] = 0
        (alarmed,) = np.nonzero(statistic >= np.exp(self.thresholds[rates]))
        evidence = np.log(statistic[alarmed])
        found = zip(rates[alarmed].tolist(), evidence.tolist(), phi[alarmed].tolist(), strict=True)
        falls = [self._fall(*each) for each in sorted(found)]
        self.reset(rates[alarmed])
        return falls

    def likeliest(self, rate: int) -> Fall | None:
        """Return the likeliest change of a rate, without evidence; None if none is likelier than no change."""
        return self._fall(rate, 0.0, 1.0) if self._cusum[rate].any() else None

    def _smaller(self, rates: Indices, sums: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the statistic of some rates, float64[k], and the mixtures of its views, float64[k, 2]."""
        mixture = np.einsum("kvgf,kvg->kv", sums, self._weight[rates])
        mixture[self._missing[rates]] = _LARGEST
        smaller = np.minimum(mixture[:, 0], mixture[:, 1])
        smaller[self._missing[rates, 0] & self._missing[rates, 1]] = 0.0
        return smaller, mixture

    def _date(self, start: int, rates: Indices, labels: Counts, errors: Counts, log_e: FloatArray) -> None:
        """Bring the likeliest start of a change, and the counts before it, up to date: by true class, or of all."""
        before = self._cusum[rates]  # [k, 1 + C]
        cusum = np.maximum(before + log_e, 0.0)
        self._cusum[rates] = cusum
        counts = self._counts[rates]
        which, group = np.nonzero((before == 0) & (cusum > 0))
        self._change[rates[which], group, 0] = start
        self._change[rates[which], group, 1:3] = counts[which, group]
        self._change[rates[which], group, 3:] = counts[which, 0]
        for rate, own in zip(rates[which].tolist(), group.tolist(), strict=True):
            if rate in self._groups:
                self._past_parts[self._pairs[rate], own] = self._counts[self._groups[rate], own]
        for place, added in enumerate((errors, labels)):
            counts[:, 0, place] += np.einsum("kc->k", added)  # quicker than sum over few classes
            counts[:, 1:, place] += added
        self._counts[rates] = counts

    def _fall(self, rate: int, evidence: float, dispersion: float) -> Fall:
        best = int(self._cusum[rate].argmax())
        start, *before = self._change[rate, best].tolist()
        parts: list[Part] = []
        if rate in self._groups:
            slices = self._groups[rate]
            counts = self._counts[slices, best] - self._past_parts[self._pairs[rate], best]
            of_slices = zip(slices.tolist(), counts.tolist(), strict=True)
            parts = [Part(part, errors, labels) for part, (errors, labels) in of_slices if labels]
            parts.sort(key=lambda part: (-part.errors, part.labels))
        true_class = best - 1 if best else None
        now, threshold = self._counts[rate, [best, 0]].ravel().tolist(), float(self.thresholds[rate])
        errors, labels, all_errors, all_labels = (count - past for count, past in zip(now, before, strict=True))
        found = errors, labels, all_errors, all_labels, evidence, threshold, dispersion
        return Fall(rate, true_class, start, *found, tuple(parts))

    def reset(self, rates: Indices) -> None:
        """Begin again: no start of a change before now counts."""
        self._sums[rates] = 0
        self._cusum[rates] = 0
        self._begun[rates] = self._counts[rates, 0]
