"""Contract checks of slicing functions: deterministic, total, free of mutation, picklable, within budget."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from multiprocessing.reduction import ForkingPickler
from time import perf_counter
from typing import Any

from sfs.errors import InvalidReturnValue
from sfs.function import SlicingFunction
from sfs.preprocess import Preprocessor
from sfs.record import Columns, Record, fields_of
from sfs.template import Template

DEFAULT_BUDGET_MS = 5.0
"""Default time budget per row in milliseconds, for a function without ``budget_ms``."""

TOTAL, NO_VALUE, WITHIN_BUDGET = "total", "no value", "within budget"
_ATOMS = frozenset({str, int, float, bool, bytes, type(None)})
_MAX_PROBED = 200
_TIMED_RUNS = 5
_TEMPLATE_ROWS = 5  # a declaration has no state, and does on every row what it does on a few
_SLOW_SECONDS, _SLOW_ROWS = 0.05, 2
_HUGE_CHARACTERS = 20_000
_PROBES: Mapping[str, Any] = {
    NO_VALUE: None,
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
    is_warning
        The check passed, and the detail is a limit to know of.
    """

    name: str
    passed: bool
    detail: str
    is_warning: bool = False


def check_function(
    function: SlicingFunction, records: Sequence[Any], never_missing: Collection[str] = ()
) -> list[Check]:
    """Check one function on sample rows, and on variants of the first row with unusual field values.

    Parameters
    ----------
    function
        Function to check.
    records
        Sample rows as mappings, records or objects; include a few rows of every kind.
    never_missing
        Fields that have a value in every known row: a fault at a missing value there is a warning.

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
    if isinstance(function, Template):
        rows = rows[:_TEMPLATE_ROWS]
    elif len(rows) > _SLOW_ROWS and min(_seconds(function, rows[-1]) for _ in range(2)) > _SLOW_SECONDS:
        rows = rows[:_SLOW_ROWS]  # each is evaluated a dozen times
    unchanged = _does_not_mutate(function, rows)  # first, as a second call may change nothing more
    return [
        _deterministic(function, rows),
        _total(function, rows, never_missing),
        unchanged,
        _picklable(function, rows),
        _within_budget(function, rows),
    ]


def _deterministic(function: SlicingFunction, rows: Sequence[Any]) -> Check:
    runs = [[_evaluate(function, row) for row in rows] for _ in range(3)]
    for i, (one, two, three) in enumerate(zip(*runs, strict=True)):
        if not one == two == three:
            return Check(
                "deterministic",
                False,
                f"three runs on row {i} returned {one}, {two} and {three}: remove randomness and state",
            )
    return Check("deterministic", True, f"same results in three runs over {len(rows)} rows")


def _total(function: SlicingFunction, rows: Sequence[Any], never_missing: Collection[str]) -> Check:
    advice = "membership of such rows is unknown: return False for them"
    first = next((row for row in rows if isinstance(row, Record)), None)
    if first is None:
        return Check(TOTAL, True, "no record to replace values of")
    result = _evaluate(function, first)
    if isinstance(result, str):
        return Check(TOTAL, False, f"row {rows.index(first)}: {result}; {advice}")
    probed, warning = 0, None
    for field, kind, row in _probes(function, first):
        probed += 1
        result = _evaluate(function, row)
        if isinstance(result, str):
            fault = f"{kind} in {field!r}: {result}"
            if kind != NO_VALUE or field not in never_missing:
                return Check(TOTAL, False, f"{fault}; {advice}")
            warning = warning or f"{fault}; no row has a missing value there, but later ones would be unknown"
    if warning:
        return Check(TOTAL, True, warning, is_warning=True)
    return Check(TOTAL, True, f"returns a membership for {probed} rows with unusual values")


def _probes(function: SlicingFunction, record: Record) -> Iterator[tuple[str, str, Record]]:
    """Yield a record with one value replaced; a missing value replaces any, a text only a text.

    Only fields that the function reads are replaced, so that the time does not grow with the table's width.
    """
    fields = dict(vars(record))
    for name in _fields_read(function, fields):
        for kind, probe in _PROBES.items():
            if probe is None or isinstance(fields[name], str):
                yield name, kind, Record({**fields, name: probe})


def _fields_read(function: SlicingFunction, fields: Mapping[str, Any]) -> list[str]:
    """Return the fields that a function reads of a record; at most 200 where it reads the record as a whole."""
    if isinstance(function, Template):
        return sorted(function.fields & fields.keys())
    read = fields_read(function, [fields])
    return list(fields)[:_MAX_PROBED] if read is None else [name for name in fields if name in read]


def fields_read(function: SlicingFunction, records: Iterable[Mapping[str, Any]]) -> set[str] | None:
    """Return the fields that a function reads of records; None if it reads one as a whole, as preprocessors do.

    Examples
    --------
    >>> short = SlicingFunction("short", lambda x: x.likes > 3 and len(x.text) < 5)
    >>> sorted(fields_read(short, [{"text": "hi", "likes": 1, "id": 1}, {"text": "hi", "likes": 4, "id": 2}]))
    ['likes', 'text']
    """
    if isinstance(function, Template):
        return set(function.fields)
    read: set[str] = set()
    for fields in records:
        _evaluate(function, _TracedRecord(dict(fields), read))
        if _WHOLE in read:
            return None
    return read


_WHOLE = "\0"


class _TracedRecord(Record):
    """A record that notes which of its fields are read."""

    __slots__ = ("_read",)

    def __init__(self, fields: dict[Any, Any], read: set[str]) -> None:
        super().__init__(fields)
        object.__setattr__(self, "_read", read)

    def __getattribute__(self, name: str) -> Any:
        get = object.__getattribute__
        if name == "__dict__":
            get(self, "_read").add(_WHOLE)
        elif name in fields_of(self):
            get(self, "_read").add(name)
        return get(self, name)

    def __getitem__(self, name: Any) -> Any:
        value = fields_of(self)[name]
        self._read.add(name)
        return value

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field, or the default for a record without it."""
        try:
            return self[name]
        except KeyError:
            return default

    def __contains__(self, name: object) -> bool:
        try:
            self[name]
        except (KeyError, TypeError):
            return False
        return True

    def __reduce__(self) -> tuple[Any, ...]:
        return Record, (dict(self.__dict__),)


def _does_not_mutate(function: SlicingFunction, rows: Sequence[Any]) -> Check:
    if isinstance(function, Template):
        return Check("does not mutate", True, f"{len(rows)} rows are unchanged")
    for i, row in enumerate(rows):
        before = _state(row)
        _evaluate(function, row)
        if _state(row) != before:
            return Check(
                "does not mutate",
                False,
                f"the function modified row {i}: derive new values in a preprocessor",
            )
    return Check("does not mutate", True, f"{len(rows)} rows are unchanged")


def _state(row: Any) -> Any:
    """Return the content of a row, which a later change does not reach."""
    if not isinstance(row, Record):
        return repr(getattr(row, "__dict__", row))
    return {name: value if type(value) in _ATOMS else repr(value) for name, value in fields_of(row).items()}


def _picklable(function: SlicingFunction, rows: Sequence[Any]) -> Check:
    try:
        twin = ForkingPickler.loads(ForkingPickler.dumps(function))
    except (Exception, SystemExit) as error:
        advice = "define it at the top level of a file, and keep open files and models out of resources"
        return Check(
            "picklable",
            False,
            f"cannot be sent to another process: {type(error).__name__}: {error}: {advice}",
        )
    for i, row in enumerate(rows):
        if _evaluate(function, row) != _evaluate(twin, row):
            return Check(
                "picklable",
                False,
                f"the unpickled copy returns another result for row {i}: keep its state in resources",
            )
    return Check("picklable", True, "the unpickled copy returns the same results")


def _within_budget(function: SlicingFunction, rows: Sequence[Any]) -> Check:
    budget_ms = DEFAULT_BUDGET_MS if function.budget_ms is None else function.budget_ms
    if not rows:
        return Check(WITHIN_BUDGET, True, "no rows to time")
    # The shortest of several times per row, because other processes may interrupt any of them.
    times = [inf] * len(rows)
    for _ in range(_TIMED_RUNS):
        times = [min(best, _seconds(function, row)) for best, row in zip(times, rows, strict=True)]
        mean_ms = sum(times) * 1000 / len(rows)
        if mean_ms <= budget_ms:
            break
    return Check(WITHIN_BUDGET, mean_ms <= budget_ms, f"{mean_ms:.3f} ms per row; the budget is {budget_ms:g} ms")


def _seconds(function: SlicingFunction, row: Any) -> float:
    """Return the time for a row that is not memoized: most of the traffic is new."""
    _forget(function.pre)
    start = perf_counter()
    _evaluate(function, row)
    return perf_counter() - start


def _forget(preprocessors: Iterable[Preprocessor]) -> None:
    for preprocessor in preprocessors:
        preprocessor.reset_cache()
        _forget(preprocessor.pre)


def _evaluate(function: SlicingFunction, row: Any) -> bool | str:
    """Return the membership, or the fault as text."""
    try:
        code = function.parse_return_value(function(row))
        return f"{function.name!r} abstained (-1): the membership of this row is unknown" if code is None else code == 1
    except (Exception, SystemExit) as error:
        return str(error) if isinstance(error, InvalidReturnValue) else f"{type(error).__name__}: {error}"
