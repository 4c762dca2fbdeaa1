"""Contract checks of slicing functions: deterministic, total, free of mutation, picklable, within budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from multiprocessing.reduction import ForkingPickler
from time import perf_counter
from typing import Any

from sfs.errors import InvalidReturnValue
from sfs.function import SlicingFunction
from sfs.record import Columns, Record

DEFAULT_BUDGET_MS = 5.0
"""Default time budget per row in milliseconds, for a function without ``budget_ms``."""

_TIMED_RUNS = 5
_HUGE_CHARACTERS = 20_000
_PROBES: Mapping[str, Any] = {
    "no value": None,
    "empty text": "",
    "spaces": " \t\n\u2003",
    "other scripts": "نص 漢字 żółć 👍🏽 e\u0301\u202e",
    "control characters": "a\x00b\x1b[0m\ufeff",
    "lone surrogate": "a\ud800b",
    "markup": "<br />&#39;&amp;",
    "huge text": "check word " * (_HUGE_CHARACTERS // 11),
    "one huge word": "a" * _HUGE_CHARACTERS,
}


@dataclass(frozen=True, slots=True)
class Check:
    """Outcome of one check of one function.

    Parameters
    ----------
    name
        Name of the check: deterministic, total, does not mutate, picklable, or within budget.
    passed
        Whether the function passed the check.
    detail
        First counterexample, or the measurement.
    """

    name: str
    passed: bool
    detail: str


def check_function(function: SlicingFunction, records: Sequence[Any]) -> list[Check]:
    """Check one function on sample rows, and on variants of the first row with unusual field values.

    Parameters
    ----------
    function
        Function to check.
    records
        Sample rows as mappings, records or objects; include a few rows of every kind.

    Returns
    -------
    list of Check
        In this order: deterministic, total, does not mutate, picklable, within budget.

    Examples
    --------
    >>> from sfs.template import template
    >>> no_price = template("no_price", missing={"field": "price"})
    >>> [check.passed for check in check_function(no_price, [{"price": 3.5}])]
    [True, True, True, True, True]
    """
    rows = Columns(list(records)).records
    return [Check(name, *check(function, rows)) for name, check in _CHECKS.items()]


def _deterministic(function: SlicingFunction, rows: Sequence[Any]) -> tuple[bool, str]:
    runs = [[_evaluate(function, row) for row in rows] for _ in range(3)]
    for i, (one, two, three) in enumerate(zip(*runs, strict=True)):
        if not one == two == three:
            return (
                False,
                f"three runs on row {i} returned {one}, {two} and {three}: remove randomness and state",
            )
    return True, f"same results in three runs over {len(rows)} rows"


def _total(function: SlicingFunction, rows: Sequence[Any]) -> tuple[bool, str]:
    probed = 0
    for field, kind, row in _probes(rows):
        probed += 1
        result = _evaluate(function, row)
        if isinstance(result, str):
            return (
                False,
                f"{kind} in {field!r}: {result}; membership of such rows is unknown: return False for them",
            )
    return True, f"returns a membership for {probed} rows with unusual values"


def _probes(rows: Sequence[Any]) -> Iterator[tuple[str, str, Record]]:
    """Yield variants of the first record with one field replaced: any field by None, a text by another text."""
    first = next((row for row in rows if isinstance(row, Record)), None)
    if first is None:
        return
    fields = {name: first[name] for name in first}
    for name, value in fields.items():
        for kind, probe in _PROBES.items():
            if probe is None or isinstance(value, str):
                yield name, kind, Record({**fields, name: probe})


def _does_not_mutate(function: SlicingFunction, rows: Sequence[Any]) -> tuple[bool, str]:
    for i, row in enumerate(rows):
        before = repr(getattr(row, "__dict__", row))
        _evaluate(function, row)
        if repr(getattr(row, "__dict__", row)) != before:
            return False, f"the function modified row {i}: derive new values in a preprocessor"
    return True, f"{len(rows)} rows are unchanged"


def _picklable(function: SlicingFunction, rows: Sequence[Any]) -> tuple[bool, str]:
    try:
        twin = ForkingPickler.loads(ForkingPickler.dumps(function))
    except (Exception, SystemExit) as error:
        advice = "define it at the top level of a file, and keep open files and models out of resources"
        return False, f"cannot be sent to another process: {type(error).__name__}: {error}: {advice}"
    for i, row in enumerate(rows):
        if _evaluate(function, row) != _evaluate(twin, row):
            return (
                False,
                f"the unpickled copy returns another result for row {i}: keep its state in resources",
            )
    return True, "the unpickled copy returns the same results"


def _within_budget(function: SlicingFunction, rows: Sequence[Any]) -> tuple[bool, str]:
    budget_ms = DEFAULT_BUDGET_MS if function.budget_ms is None else function.budget_ms
    if not rows:
        return True, "no rows to time"
    # The shortest of several times per row, because other processes may interrupt any of them.
    times = [inf] * len(rows)
    for _ in range(_TIMED_RUNS):
        for i, row in enumerate(rows):
            start = perf_counter()
            _evaluate(function, row)
            times[i] = min(times[i], perf_counter() - start)
        mean_ms = sum(times) * 1000 / len(rows)
        if mean_ms <= budget_ms:
            break
    return mean_ms <= budget_ms, f"{mean_ms:.3f} ms per row; the budget is {budget_ms:g} ms"


_CHECKS: Mapping[str, Callable[[SlicingFunction, Sequence[Any]], tuple[bool, str]]] = {
    "deterministic": _deterministic,
    "total": _total,
    "does not mutate": _does_not_mutate,
    "picklable": _picklable,
    "within budget": _within_budget,
}


def _evaluate(function: SlicingFunction, row: Any) -> bool | str:
    """Return the membership, or the fault as text."""
    try:
        return function(row)
    except (Exception, SystemExit) as error:
        return str(error) if isinstance(error, InvalidReturnValue) else f"{type(error).__name__}: {error}"
