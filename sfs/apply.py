"""Apply slicing functions to rows: memberships, unknowns, and time and faults per function."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from sfs.declared import short_text
from sfs.errors import DuplicateName, InvalidFunction, SliceError, UnknownName
from sfs.function import LabelingFunction, SlicingFunction
from sfs.matrix import SliceMatrix
from sfs.plan import Plan, PlanResult
from sfs.record import Columns, Rows, is_frame
from sfs.registry import FunctionSet
from sfs.rowwise import Answers, RowFunctions, fault_text
from sfs.template import Template

BLOCK_ROWS = 10_000
Planned: TypeAlias = tuple[Sequence[Template], PlanResult]
"""Templates, and what they answer."""


class FunctionRun(NamedTuple):
    """How one function fared.

    Parameters
    ----------
    name
        The function.
    seconds
        Time it took over all rows, with its share of preprocessors that it has in common with others.
    unknown
        Rows whose membership is unknown, by reason: the name of an exception, ``junk answer``, ``abstained``,
        or a template's reason.
    first_fault
        The first row at which it failed, and why; None if it never did.
    """

    name: str
    seconds: float
    unknown: Mapping[str, int]
    first_fault: str | None


@dataclass(frozen=True, slots=True)
class Applied:
    """The slice matrix of some rows, and how each of the K functions fared."""

    matrix: SliceMatrix
    runs: tuple[FunctionRun, ...]


def apply(functions: Iterable[SlicingFunction], rows: Rows) -> SliceMatrix:
    """Return which of N rows are in the slices of K functions; arguments and errors as in ``run``.

    Examples
    --------
    >>> short = SlicingFunction("short", lambda x: len(x.text.split()) < 3)
    >>> S = apply([short], [{"text": "Cool video!"}, {"text": None}])
    >>> S.member.tolist(), S.unknown.tolist()
    ([[True], [False]], [[False], [True]])
    """
    chosen, given = checked_functions(functions, SlicingFunction), checked_rows(rows)
    if chosen and all(isinstance(function, Template) for function in chosen):
        # no reports are made, which on one row would take a quarter of the time
        member, unknown = _plan_for(functions, chosen, given).memberships(Columns(given))
        return SliceMatrix([each.name for each in chosen], member, unknown)
    return run(functions if isinstance(functions, FunctionSet) else chosen, given).matrix


def run(
    functions: Iterable[SlicingFunction], rows: Rows, *, progress: Callable[[int], object] | None = None
) -> Applied:
    """Apply K functions to N rows, and report on each function.

    A function that raises or answers junk makes its own memberships of those rows unknown and nothing else.
    Templates are evaluated together, column by column; plain functions get one row at a time. Lists, dicts and
    other plain containers in a row of a frame or mapping are copied for each plain function, so that none
    changes what another reads; rows that are objects are handed over as they are.

    Parameters
    ----------
    functions
        Slicing functions and templates with distinct names; a ``FunctionSet`` keeps its templates compiled.
    rows
        A data frame, or a list of mappings or of any objects.
    progress
        Called with the number of rows just done, now and then; fits ``tqdm.update``.

    Raises
    ------
    InvalidFunction
        If something among the functions is not a slicing function.
    DuplicateName
        If two functions carry one name.
    UnknownName
        If a template reads a column that the data frame does not have.
    SliceError
        If the rows are of a kind that cannot be read twice, such as a generator.
    """
    chosen = checked_functions(functions, SlicingFunction)
    given = checked_rows(rows)
    planned = planned_answers(functions, chosen, given)
    if planned is not None and len(planned[0]) == len(chosen):
        return _all_planned(planned, progress)
    plain = [function for function in chosen if not isinstance(function, Template)]
    return _combined(chosen, planned, plain, rowwise_answers(plain, given, progress))


def checked_functions(functions: Iterable[Any], kind: type[LabelingFunction]) -> tuple[Any, ...]:
    """Return functions as a tuple: all of one kind, all with their own names."""
    if isinstance(functions, LabelingFunction):
        raise InvalidFunction(f"give a list of functions: [{functions.name}]")
    chosen = tuple(functions)
    if isinstance(functions, FunctionSet):  # checked when it was made
        return chosen
    for function in chosen:
        if not isinstance(function, kind):
            maker = "slicing_function" if kind is SlicingFunction else "labeling_function"
            raise InvalidFunction(
                f"expected a {kind.__name__}, got {short_text(function)}: make it with @{maker}()"
            )
    names = [function.name for function in chosen]
    if len(set(names)) != len(names):
        name, count = Counter(names).most_common(1)[0]
        raise DuplicateName(f"function names are not unique: {count} are called {name!r}")
    return chosen


def checked_rows(rows: Rows) -> Rows:
    """Return rows that can be counted and cut: a data frame with distinct columns, an array, or a list."""
    if is_frame(rows):
        twice = [name for name, count in Counter(map(str, rows.columns)).items() if count > 1]
        if twice:
            raise SliceError(f"two columns are called {twice[0]!r}: rename one of them")
        return rows
    if isinstance(rows, np.ndarray) and rows.ndim:
        return rows
    countable = hasattr(rows, "__len__") and hasattr(rows, "__getitem__") and not hasattr(rows, "to_pandas")
    if not countable or isinstance(rows, (str, bytes, Mapping, np.ndarray)):
        raise SliceError(
            f"rows are a data frame or a list of mappings or objects, got {type(rows).__name__}: turn an "
            "iterator into a list and a table into a pandas frame, or apply to one batch after another"
        )
    return list(rows)


def planned_answers(functions: Iterable[Any], chosen: Sequence[Any], rows: Rows) -> Planned | None:
    """Return the templates among the functions and what they answer, or None where there are none."""
    templates = [function for function in chosen if isinstance(function, Template)]
    if not templates:
        return None
    return templates, _plan_for(functions, templates, rows).evaluate(Columns(rows))


def _plan_for(functions: Iterable[Any], templates: Sequence[Template], rows: Rows) -> Plan:
    """Return the plan of the templates, after checking that a data frame has the columns that they read."""
    plan = functions.plan if isinstance(functions, FunctionSet) else Plan(templates)
    if is_frame(rows):
        _check_columns(plan.fields, [str(name) for name in rows.columns], templates)
    return plan


def rowwise_answers(
    functions: Sequence[LabelingFunction],
    rows: Rows,
    progress: Callable[[int], object] | None = None,
    *,
    strict: bool = False,
    records: Callable[[Any], list[Any]] = lambda block: Columns(block).records,
) -> RowFunctions:
    """Ask plain functions about rows, in blocks so that only one block's records are held."""
    asked = RowFunctions(functions, len(rows), strict=strict)
    for start in range(0, len(rows), BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, len(rows))
        if functions:
            asked.ask(start, records(rows.iloc[start:stop] if is_frame(rows) else rows[start:stop]))
        if progress is not None:
            progress(stop - start)
    return asked


def _check_columns(fields: Iterable[str], columns: Sequence[str], templates: Sequence[Template]) -> None:
    for field in sorted(set(fields) - set(columns)):
        reader = next(template.name for template in templates if field in template.fields)
        near = difflib.get_close_matches(field, columns, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"the columns are {list(columns)}"
        raise UnknownName(f"template {reader!r} reads column {field!r}, which the rows do not have: {advice}")


def _all_planned(planned: Planned, progress: Callable[[int], object] | None) -> Applied:
    templates, result = planned
    names = [template.name for template in templates]
    if progress is not None:
        progress(len(result.member))
    return Applied(SliceMatrix(names, result.member, result.unknown), tuple(_template_runs(names, result)))


def _combined(
    chosen: Sequence[SlicingFunction],
    planned: Planned | None,
    plain: Sequence[SlicingFunction],
    asked: RowFunctions,
) -> Applied:
    position = {function.name: k for k, function in enumerate(chosen)}
    member = np.zeros((asked.values.shape[1], len(chosen)), dtype=bool)  # [N, K]
    unknown = np.zeros_like(member)
    runs = {function.name: _plain_run(function.name, asked.answers[k]) for k, function in enumerate(plain)}
    at = [position[name] for name in runs]
    member[:, at], unknown[:, at] = (asked.values == 1).T, asked.unknown.T
    if planned is not None:
        names = [template.name for template in planned[0]]
        at = [position[name] for name in names]
        member[:, at], unknown[:, at] = planned[1].member, planned[1].unknown
        runs |= zip(names, _template_runs(names, planned[1]), strict=True)
    return Applied(SliceMatrix(position, member, unknown), tuple(runs[name] for name in position))


def _template_runs(names: Sequence[str], result: PlanResult) -> Iterator[FunctionRun]:
    return map(FunctionRun, names, result.seconds.tolist(), result.faults, result.first_faults)


def _plain_run(name: str, answers: Answers) -> FunctionRun:
    fault = None if answers.first_fault is None else fault_text(*answers.first_fault)
    return FunctionRun(name, answers.seconds, dict(answers.reasons), fault)
