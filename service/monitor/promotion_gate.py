"""Champion against candidate on the same held-out rows, slice by slice: promote, hold, or reject."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from scipy import special

from service.decisions import Decision, Outcome, PairedCounts, SliceDecision, SliceOutcome
from sfs.function import ALL_ROWS
from sfs.intervals import PairedDifference

_POWER = 0.8
"""With what probability the rows that a reason asks for would show a candidate to be as good."""


def decide(
    pairs: Sequence[PairedCounts],
    protected: Collection[str],
    *,
    margin: float,
    minimum_rows: int,
    confidence: float = 0.95,
) -> Decision:
    """Return whether a candidate may take over, with a reason for every slice.

    A protected slice has to be *shown* to be as good up to the margin: the lower limit of a one-sided test at
    ``confidence`` lies above it. All of them must be, so that no correction is needed for their number. The
    whole traffic is always protected, since a candidate could otherwise win every slice and lose the rest.

    A slice is shown to be worse when the rows that only one of the two got right speak against the candidate
    (exact McNemar test), unless the loss is shown to stay within the margin. Protected slices and the others
    are two families, each held to an error of 1 - ``confidence`` by Holm's correction: a harmless candidate
    is seldom rejected however many slices there are, and many others do not blunt the test of a protected one.

    A row is one vote: rows that repeat a content are counted as one before they come here.

    Below ``minimum_rows`` nothing is said of a slice. A protected slice of which nothing can be said holds
    the candidate for a person, also where it has no rows or is missing from ``pairs``.

    Parameters
    ----------
    pairs
        What was counted, a slice each; all rows are named ``__all__``.
    protected
        Names of the slices that have to be shown as good.
    margin
        The loss of accuracy that is let pass, in (0, 1): .02 is two points.
    minimum_rows
        Different held-out members below which a slice is not judged.
    confidence
        Of each test, in (0.5, 1).

    Raises
    ------
    ValueError
        If the counts do not add up, a slice comes twice, or a number is out of its range.

    References
    ----------
    Holm (1979), Scandinavian Journal of Statistics 6, 65-70. McNemar (1947), Psychometrika 12, 153-157.

    Examples
    --------
    >>> rows = [PairedCounts("__all__", 2000, 1800, 40, 60), PairedCounts("links", 400, 300, 60, 5)]
    >>> decision = decide(rows, {"links"}, margin=0.02, minimum_rows=50)
    >>> decision.outcome, [each.outcome for each in decision.slices]
    ('reject', ['better', 'worse'])
    """
    _check(pairs, margin, confidence)
    names = {ALL_ROWS, *protected}
    rows = _complete(pairs, names)
    harms = _harms([each for each in rows if each.n >= minimum_rows], names)
    slices = tuple(
        _slice_decision(each, each.slice in names, harms.get(each.slice), margin, minimum_rows, confidence)
        for each in rows
    )
    outcome = _outcome(slices)
    return Decision(outcome, _reasons(outcome, slices, margin), slices, margin, confidence)


def limits(pairs: PairedCounts, confidence: float = 0.95) -> tuple[float, float]:
    """Return the limits of candidate minus champion in accuracy, each for a one-sided test at ``confidence``.

    Bonett and Price's interval with one more row against what is to be shown. Without that row the test errs
    in up to 10 % of cases where nearly all disagreement goes one way; with it in at most 5.5 % (the tests
    enumerate it). It has width when no row disagrees, so that agreement alone proves nothing of a few rows.

    Examples
    --------
    >>> [round(limit, 3) for limit in limits(PairedCounts("a", 50, 45, 0, 0))]
    [-0.072, 0.072]
    """
    both_sides = 2 * confidence - 1
    gained, lost, n = pairs.only_candidate, pairs.only_champion, pairs.n
    lower = PairedDifference(gained, lost + 1, n + 1, both_sides).lower
    upper = PairedDifference(gained + 1, lost, n + 1, both_sides).upper
    return lower, upper


def mcnemar_p_value(pairs: PairedCounts) -> float:
    """Return the p-value of the candidate being no worse: of as many lost rows among those that disagree.

    Examples
    --------
    >>> mcnemar_p_value(PairedCounts("a", 100, 90, 5, 0)), mcnemar_p_value(PairedCounts("a", 100, 90, 0, 0))
    (0.03125, 1.0)
    """
    lost, gained = pairs.only_champion, pairs.only_candidate
    return float(special.betainc(lost, gained + 1, 0.5)) if lost else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values, corrected for their number so that each may be held against the whole error.

    Examples
    --------
    >>> holm([0.04, 0.01, 0.5])
    [0.08, 0.03, 0.5]
    """
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def rows_needed(pairs: PairedCounts, margin: float, confidence: float = 0.95) -> int | None:
    """Return about how many rows would show the candidate to be as good, if it stays as it looks.

    With a probability of .8, at the disagreement seen, and at the difference seen where that is against the
    candidate. None where no number would: the difference seen is beyond the margin.

    Examples
    --------
    >>> rows_needed(PairedCounts("a", 1000, 900, 25, 25), 0.02), rows_needed(PairedCounts("a", 50, 40, 5, 0), 0.02)
    (820, None)
    """
    gap = margin + min(_difference(pairs), 0.0)
    if gap <= 0:
        return None
    disagreement = (pairs.only_champion + pairs.only_candidate + 3) / (pairs.n + 3)
    z = float(special.ndtri(confidence) + special.ndtri(_POWER))
    exact = disagreement * (z / gap) ** 2
    step: int = 10 ** max(0, math.floor(math.log10(exact)) - 1)
    return math.ceil(exact / step) * step


def _check(pairs: Sequence[PairedCounts], margin: float, confidence: float) -> None:
    """Refuse what no comparison can have counted."""
    if not 0 < margin < 1:
        raise ValueError(f"a margin is a share of rows between 0 and 1, got {margin}")
    if not 0.5 < confidence < 1:
        raise ValueError(f"the confidence of a one-sided test lies between 0.5 and 1, got {confidence}")
    seen = set()
    for each in pairs:
        counts = (each.both, each.only_champion, each.only_candidate)
        if min(counts) < 0 or sum(counts) > each.n:
            raise ValueError(f"the counts of {each.slice!r} do not add up: {counts} of {each.n} rows")
        if each.slice in seen:
            raise ValueError(f"slice {each.slice!r} comes twice: count each slice once")
        seen.add(each.slice)


def _complete(pairs: Sequence[PairedCounts], protected: Collection[str]) -> list[PairedCounts]:
    """Return all rows first, then the slices as they come, then the protected ones that were not counted."""
    missing = sorted(set(protected) - {each.slice for each in pairs})
    rows = [*pairs, *(PairedCounts(name, 0, 0, 0, 0) for name in missing)]
    return sorted(rows, key=lambda each: each.slice != ALL_ROWS)


def _harms(rows: Sequence[PairedCounts], protected: Collection[str]) -> dict[str, float]:
    """Return the corrected p-value of harm by slice, each family for itself."""
    harms: dict[str, float] = {}
    for family in (True, False):
        members = [each for each in rows if (each.slice in protected) is family]
        corrected = holm([mcnemar_p_value(each) for each in members])
        harms.update(zip((each.slice for each in members), corrected, strict=True))
    return harms


def _slice_decision(
    pairs: PairedCounts, protected: bool, p: float | None, margin: float, minimum_rows: int, confidence: float
) -> SliceDecision:
    """Return what is said of one slice; ``p`` is None where there are too few rows."""
    lower, upper = limits(pairs, confidence)
    difference = _difference(pairs)
    seen = f"{points(difference)} ({points(lower)} to {points(upper)})"
    outcome: SliceOutcome
    if p is None:
        outcome = "not_verified"
        reason = f"not verified: {pairs.n:,} different held-out rows, of at least {minimum_rows:,}; difference {seen}"
    elif lower > 0:
        outcome, reason = "better", f"better: difference {seen}"
    elif lower > -margin:
        outcome, reason = "as_good", f"as good: difference {seen}, within {_allowed(margin)}"
    elif p < 1 - confidence:
        outcome = "worse"
        reason = (
            f"worse: difference {seen} on {pairs.n:,} different held-out rows; {pairs.only_champion:,} lost, "
            f"{pairs.only_candidate:,} gained, corrected p {'< 0.0001' if p < 1e-4 else f'= {p:.2g}'}"
        )
    elif protected:
        outcome, reason = "not_verified", _unclear(pairs, seen, margin, confidence)
    else:
        outcome, reason = "no_harm", f"no harm shown: difference {seen}"
    return SliceDecision(pairs, protected, difference, lower, upper, outcome, reason)


def _unclear(pairs: PairedCounts, seen: str, margin: float, confidence: float) -> str:
    """Return why a protected slice with enough rows to look at is not verified."""
    needed = rows_needed(pairs, margin, confidence)
    wanted = (
        "more rows cannot show it while the difference stays beyond the margin"
        if needed is None
        else f"about {needed:,} rows would be needed"
    )
    return (
        f"not verified: difference {seen} on {pairs.n:,} different held-out rows, neither shown to be worse "
        f"nor shown to be within {_allowed(margin)}; {wanted}"
    )


def _outcome(slices: Sequence[SliceDecision]) -> Outcome:
    if any(each.outcome == "worse" for each in slices):
        return "reject"
    return "hold" if _unverified(slices, protected=True) else "promote"


def _reasons(outcome: Outcome, slices: Sequence[SliceDecision], margin: float) -> tuple[str, ...]:
    """Return the sentences of the decision: what decided it, then what nobody could say."""
    if outcome == "promote":
        shown = ", ".join(_named(each) for each in slices if each.protected)
        better = ", ".join(_named(each) for each in slices if each.outcome == "better")
        decisive = [
            f"shown to be as good, up to {_allowed(margin)}: {shown}; no slice is shown to be worse",
            *([f"better: {better}"] if better else []),
        ]
    else:
        worse = [each for each in slices if each.outcome == "worse"]
        decisive = [
            f"{_named(each)} is {each.reason}" for each in worse or _unverified(slices, protected=True)
        ]
    beside = ", ".join(
        f"{_named(each)} ({each.pairs.n:,} rows)" for each in _unverified(slices, protected=False)
    )
    return (*decisive, *([f"not verified, and not protected: {beside}"] if beside else []))


def _unverified(slices: Sequence[SliceDecision], *, protected: bool) -> list[SliceDecision]:
    return [each for each in slices if each.outcome == "not_verified" and each.protected is protected]


def _difference(pairs: PairedCounts) -> float:
    return (pairs.only_candidate - pairs.only_champion) / pairs.n if pairs.n else 0.0


def _named(judged: SliceDecision) -> str:
    return "the whole traffic" if judged.pairs.slice == ALL_ROWS else judged.pairs.slice


def points(share: float) -> str:
    """Return a difference of shares as percentage points, with its sign."""
    return f"{round(share * 100, 1) + 0.0:+.1f}"


def _allowed(margin: float) -> str:
    return f"{margin * 100:g} points"


_HEAD = ("slice", "rows", "champion", "candidate", "difference", "interval", "outcome", "reason")
_RIGHT = 6
"""How many columns are figures, after the first; they are flush right."""


def table(decision: Decision) -> str:
    """Return what was decided and why, then a line per slice; protected slices carry a star.

    Examples
    --------
    >>> from service.decisions import PairedCounts
    >>> from service.monitor.promotion_gate import decide
    >>> rows = [PairedCounts("__all__", 2000, 1800, 40, 44)]
    >>> print(table(decide(rows, set(), margin=0.02, minimum_rows=50)).splitlines()[2].split()[:8])
    ['slice', 'rows', 'champion', 'candidate', 'difference', 'interval', 'outcome', 'reason']
    """
    lines = [_HEAD, *(_cells(each) for each in decision.slices)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    said = [decision.outcome, *(f"- {reason}" for reason in decision.reasons)]
    return "\n".join([*said, *(_line(cells, widths) for cells in lines)])


def _cells(judged: SliceDecision) -> tuple[str, ...]:
    pairs = judged.pairs
    return (
        f"{pairs.slice} *" if judged.protected else pairs.slice,
        f"{pairs.n:,}",
        _percent(pairs.champion.value),
        _percent(pairs.candidate.value),
        points(judged.difference),
        f"{points(judged.lower)} to {points(judged.upper)}",
        judged.outcome,
        judged.reason,
    )


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    placed = [
        cell.rjust(width) if 0 < column < _RIGHT else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(placed).rstrip()


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.1f} %"
