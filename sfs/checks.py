"""Contract checks of slicing functions: what a function must keep so that its slice can be believed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from time import perf_counter
from typing import Any

from sfs.declared import short_text
from sfs.errors import InvalidAnswer
from sfs.function import SlicingFunction
from sfs.record import Columns, Record

DEFAULT_BUDGET_MS = 5.0
"""What one row may take on average where a function declares no budget."""

_HUGE = 20_000
_PROBES: Mapping[str, Any] = {
    "no value": None,
    "empty text": "",
    "spaces": " \t\n\u2003",
    "other scripts": "نص 漢字 żółć 👍🏽 e\u0301\u202e",
    "control characters": "a\x00b\x1b[0m\ufeff",
    "half a surrogate pair": "a\ud800b",
    "markup": "<br />&#39;&amp;",
    "huge text": "check word " * (_HUGE // 11),
    "one huge word": "a" * _HUGE,
}


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check of one function.

    Parameters
    ----------
    name
        What was checked: deterministic, total, does not mutate, picklable, or within budget.
    passed
        Whether the function keeps it.
    detail
        What was found: the first counterexample, or the measured figure.
    """

    name: str
    passed: bool
    detail: str


def check_function(function: SlicingFunction, records: Sequence[Any]) -> list[Check]:
    """Check one function on sample rows, and on the same rows with odd values put in.

    Parameters
    ----------
    function
        The function.
    records
        Sample rows as mappings, records or objects; a few of each kind that occurs.

    Returns
    -------
    list of Check
        In this order: deterministic, total, does not mutate, picklable, within budget.

    Examples
    --------
    >>> from sfs.template import template
    >>> shout = template("no_price", missing={"field": "price"})
    >>> [check.passed for check in check_function(shout, [{"price": 3.5}])]
    [True, True, True, True, True]
    """
    rows = Columns(list(records)).records
    return [Check(name, *check(function, rows)) for name, check in _CHECKS.items()]


def _deterministic(function: SlicingFunction, rows: Sequence[Any]) -> tuple[bool, str]:
    answers = [[_answer(function, row) for row in rows] for _ in range(3)]
    for i, (one, two, three) in enumerate(zip(*answers, strict=True)):
        if not one == two == three:
            return (
                False,
                f"row {i} was answered {one}, {two} and {three}: draw nothing at random, keep no state",
            )
    return True, f"the same answers in three runs over {len(rows)} rows"


def _total(function: SlicingFunction, rows: Sequence[Any]) -> tuple[bool, str]:
    tried = 0
    for field, kind, row in _probes(rows):
        tried += 1
        fault = _fault(function, row)
        if fault is not None:
            return False, f"{kind} in {field!r}: {fault}; such rows will be unknown: answer False for them"
    return True, f"answers {tried} rows with odd values in text fields"


def _probes(rows: Sequence[Any]) -> Iterator[tuple[str, str, Record]]:
    """Yield the first row with one text or missing value replaced; rows of other kinds are left alone."""
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
        before = _content(row)
        _answer(function, row)
        if _content(row) != before:
            return False, f"row {i} was changed: derive new values in a preprocessor, on a copy"
    return True, f"{len(rows)} rows are as they were"


def _content(row: Any) -> str:
    return repr(getattr(row, "__dict__", row))


def _picklable(function: SlicingFunction, rows: Sequence[Any]) -> tuple[bool, str]:
    try:
        twin = ForkingPickler.loads(ForkingPickler.dumps(function))
    except (Exception, SystemExit) as error:
        advice = "define it at the top level of a file, and keep open files and models out of resources"
        return False, f"cannot be sent to another process: {type(error).__name__}: {error}: {advice}"
    for i, row in enumerate(rows):
        if _answer(function, row) != _answer(twin, row):
            return False, f"a copy in another process would answer row {i} otherwise"
    return True, "a copy gives the same answers"


def _within_budget(function: SlicingFunction, rows: Sequence[Any]) -> tuple[bool, str]:
    budget_ms = DEFAULT_BUDGET_MS if function.budget_ms is None else function.budget_ms
    if not rows:
        return True, "no rows to time"
    start = perf_counter()
    for row in rows:
        _answer(function, row)
    spent_ms = (perf_counter() - start) * 1000 / len(rows)
    return spent_ms <= budget_ms, f"{spent_ms:.3f} ms a row; the budget is {budget_ms:g} ms"


_CHECKS: Mapping[str, Callable[[SlicingFunction, Sequence[Any]], tuple[bool, str]]] = {
    "deterministic": _deterministic,
    "total": _total,
    "does not mutate": _does_not_mutate,
    "picklable": _picklable,
    "within budget": _within_budget,
}


def _answer(function: SlicingFunction, row: Any) -> bool | str:
    """Return the answer, or the fault spelled out."""
    try:
        return function(row)
    except (Exception, SystemExit) as error:
        return _spelled(error)


def _fault(function: SlicingFunction, row: Any) -> str | None:
    answer = _answer(function, row)
    return answer if isinstance(answer, str) else None


def _spelled(error: Exception | SystemExit) -> str:
    return short_text(error) if isinstance(error, InvalidAnswer) else f"{type(error).__name__}: {error}"
