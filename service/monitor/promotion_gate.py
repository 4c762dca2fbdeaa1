"""Promotion gate: champion against candidate on the same held-out rows, slice by slice."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Sequence

import scipy

from service.decisions import Decision, Outcome, PairedCounts, SliceDecision, SliceOutcome
from service.formatting import points
from sfs.function import ALL_ROWS
from sfs.intervals import PairedDifference

_POWER = 0.8
"""Power at the number of rows that a reason asks for."""


def decide(
    pairs: Sequence[PairedCounts],
    protected: Collection[str],
    *,
    margin: float,
    minimum_rows: int,
    confidence: float = 0.95,
) -> Decision:
    """Decide on a candidate: promote, hold or reject, with a reason for every slice.

    A protected slice must be *verified* as not worse than the margin: the lower limit of a one-sided test at
    ``confidence`` lies above it. All protected slices must be, so no correction for their number is needed.
    All rows together are always protected, since a candidate could otherwise win every slice and lose the rest.

    A slice is worse if the rows that only one version got right speak against the candidate (exact McNemar
    test), unless the loss is verified to stay within the margin. Protected slices and the others are two
    families, each held to an error of 1 - ``confidence`` by Holm's correction: a harmless candidate is seldom
    rejected however many slices there are, and many others do not blunt the test of a protected one.

    Each row counts once: rows with the same content must be merged before, and n is the effective n.

    Below ``minimum_rows`` a slice is not verified. A protected slice that is not verified holds the candidate
    for approval, also if it has no rows or is missing from ``pairs``.

    Parameters
    ----------
    pairs
        Counts of every slice; all rows are named ``__all__``.
    protected
        Slices that must be verified.
    margin
        Tolerated loss of accuracy, in (0, 1): 0.02 is two points.
    minimum_rows
        Distinct held-out members that a decision on a slice needs.
    confidence
        Confidence of each test, in (0.5, 1).

    Raises
    ------
    ValueError
        If counts do not add up, a slice occurs twice, or a number is out of range.

    References
    ----------
    Holm (1979), Scandinavian Journal of Statistics 6, 65-70. McNemar (1947), Psychometrika 12, 153-157.

    Examples
    --------
    >>> rows = [PairedCounts("__all__", 2000, 1800, 40, 60), PairedCounts("links", 400, 300, 60, 5)]
    >>> decision = decide(rows, {"links"}, margin=0.02, minimum_rows=50)
    >>> decision.outcome, [entry.outcome for entry in decision.slices]
    ('reject', ['better', 'worse'])
    """
    if not 0 < margin < 1:
        raise ValueError(f"the margin must lie between 0 and 1, got {margin}")
    if not 0.5 < confidence < 1:
        raise ValueError(f"the confidence of a one-sided test must lie between 0.5 and 1, got {confidence}")
    names = [pair.slice for pair in pairs]
    for pair in pairs:
        counts = (pair.both, pair.only_champion, pair.only_candidate)
        if min(counts) < 0 or sum(counts) > pair.n:
            raise ValueError(f"the counts of {pair.slice!r} do not add up: {counts} of {pair.n} rows")
        if names.count(pair.slice) > 1:
            raise ValueError(f"slice {pair.slice!r} occurs twice: count each slice once")

    required = {ALL_ROWS, *protected}
    rows = [*pairs, *(PairedCounts(name, 0, 0, 0, 0) for name in sorted(required.difference(names)))]
    rows.sort(key=lambda pair: pair.slice != ALL_ROWS)
    p_values: dict[str, float] = {}
    for family in (True, False):
        tested = [p for p in rows if p.n >= minimum_rows and (p.slice in required) is family]
        adjusted = holm([mcnemar_p_value(pair) for pair in tested])
        p_values.update(zip((pair.slice for pair in tested), adjusted, strict=True))
    slices = tuple(
        _slice_decision(p, p.slice in required, p_values.get(p.slice), margin, minimum_rows, confidence) for p in rows
    )

    outcome: Outcome
    unverified = [entry for entry in slices if entry.outcome == "not_verified"]
    if worse := [entry for entry in slices if entry.outcome == "worse"]:
        outcome, decisive = "reject", worse
    elif held := [entry for entry in unverified if entry.protected]:
        outcome, decisive = "hold", held
    else:
        outcome, decisive = "promote", []
    reasons = [f"{_title(entry)} is {entry.reason}" for entry in decisive]
    if outcome == "promote":
        verified = ", ".join(_title(entry) for entry in slices if entry.protected)
        reasons.append(f"verified within {_points_of(margin)}: {verified}; no slice is significantly worse")
        if better := ", ".join(_title(entry) for entry in slices if entry.outcome == "better"):
            reasons.append(f"better: {better}")
    if others := ", ".join(
        f"{_title(entry)} (effective n {entry.pairs.n:,})" for entry in unverified if not entry.protected
    ):
        reasons.append(f"not verified, not protected: {others}")
    return Decision(outcome, tuple(reasons), slices, margin, confidence)


def limits(pairs: PairedCounts, confidence: float = 0.95) -> tuple[float, float]:
    """Return the limits of candidate minus champion in accuracy, each for a one-sided test at ``confidence``.

    Bonett and Price's interval with one more row against the hypothesis that is tested. Without that row the
    test errs in up to 10% of cases where nearly all disagreement goes one way; with it in at most 5.5% (the
    tests enumerate it). It has width when no row disagrees, so that agreement on few rows proves nothing.

    Examples
    --------
    >>> [round(limit, 3) for limit in limits(PairedCounts("a", 50, 45, 0, 0))]
    [-0.072, 0.072]
    """
    two_sided = 2 * confidence - 1
    gained, lost, n = pairs.only_candidate, pairs.only_champion, pairs.n
    lower = PairedDifference(gained, lost + 1, n + 1, two_sided).lower
    upper = PairedDifference(gained + 1, lost, n + 1, two_sided).upper
    return lower, upper


def mcnemar_p_value(pairs: PairedCounts) -> float:
    """Return the exact one-sided p-value of McNemar's test that the candidate is no worse.

    Examples
    --------
    >>> mcnemar_p_value(PairedCounts("a", 100, 90, 5, 0)), mcnemar_p_value(PairedCounts("a", 100, 90, 0, 0))
    (0.03125, 1.0)
    """
    lost, gained = pairs.only_champion, pairs.only_candidate
    return float(scipy.special.betainc(lost, gained + 1, 0.5)) if lost else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's method.

    Examples
    --------
    >>> holm([0.04, 0.01, 0.5])
    [0.08, 0.03, 0.5]
    """
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def least_rows(margin: float, confidence: float = 0.95) -> int:
    """Return the number of rows below which no candidate is verified, even if it never disagrees.

    Examples
    --------
    >>> least_rows(0.02)
    190
    """
    return bisect_right(range(10**9), -margin, lo=1, key=lambda n: limits(PairedCounts("", n, n, 0, 0), confidence)[0])


def rows_needed(pairs: PairedCounts, margin: float, confidence: float = 0.95) -> int | None:
    """Return the approximate number of rows that would verify the candidate with 80% power.

    Assumes the observed disagreement, and the observed difference if it is against the candidate. None if no
    number of rows would do: the observed difference exceeds the margin.

    Examples
    --------
    >>> rows_needed(PairedCounts("a", 1000, 900, 25, 25), 0.02), rows_needed(PairedCounts("a", 50, 40, 5, 0), 0.02)
    (820, None)
    """
    gap = margin + min(_difference(pairs), 0.0)
    if gap <= 0:
        return None
    disagreement = (pairs.only_champion + pairs.only_candidate + 3) / (pairs.n + 3)
    z = float(scipy.special.ndtri(confidence) + scipy.special.ndtri(_POWER))
    exact = disagreement * (z / gap) ** 2
    step: int = 10 ** max(0, math.floor(math.log10(exact)) - 1)
    return math.ceil(exact / step) * step


def _slice_decision(
    pairs: PairedCounts, protected: bool, p: float | None, margin: float, minimum_rows: int, confidence: float
) -> SliceDecision:
    """Return the decision on one slice; ``p`` is None below the minimum of rows."""
    lower, upper = limits(pairs, confidence)
    difference = _difference(pairs)
    observed = f"difference {points(difference)} points ({points(lower)} to {points(upper)}), effective n {pairs.n:,}"
    outcome: SliceOutcome
    if p is None:
        outcome = "not_verified"
        reason = f"not verified: {pairs.n:,} distinct held-out rows, at least {minimum_rows:,} needed"
    elif lower > 0:
        outcome, reason = "better", f"better: {observed}"
    elif lower > -margin:
        outcome, reason = "as_good", f"as good: {observed}, within the margin of {_points_of(margin)}"
    elif p < 1 - confidence:
        outcome = "worse"
        reason = (
            f"worse: {observed}; {pairs.only_champion:,} rows lost, {pairs.only_candidate:,} gained, "
            f"adjusted p {'< 0.0001' if p < 1e-4 else f'= {p:.2g}'}"
        )
    elif protected:
        outcome = "not_verified"
        needed = rows_needed(pairs, margin, confidence)
        reason = f"not verified: {observed}, inconclusive at a margin of {_points_of(margin)}; " + (
            "the difference exceeds the margin" if needed is None else f"about {needed:,} distinct rows needed"
        )
    else:
        outcome, reason = "no_harm", f"not significantly worse: {observed}"
    return SliceDecision(pairs, protected, difference, lower, upper, outcome, reason)


def _difference(pairs: PairedCounts) -> float:
    return (pairs.only_candidate - pairs.only_champion) / pairs.n if pairs.n else 0.0


def _title(decision: SliceDecision) -> str:
    return "all traffic" if decision.pairs.slice == ALL_ROWS else decision.pairs.slice


def _points_of(margin: float) -> str:
    return f"{margin * 100:g} points"
