"""Apply slicing functions to rows: memberships, and time and faults per function.

Templates are evaluated together, column by column; other functions row by row, in blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sfs.errors import (
    InvalidReturnValue,
    SliceError,
    UnknownName,
    did_you_mean,
)
from sfs.function import LabelingFunction, SlicingFunction
from sfs.matrix import SliceMatrix
from sfs.metering import Meter
from sfs.preprocess import Preprocessor, Step
from sfs.record import Columns, Rows, changes_undone, copy_for_call, has_containers, is_dataframe
from sfs.registry import FunctionSet, validate_functions
from sfs.template import Template
from sfs.template_plan import TemplatePlan, TemplateResults
from sfs.validation import short_repr

BLOCK_ROWS = 10_000
PREPARED_ROWS = 1_000
"""Rows of a block if any function has preprocessors, whose results may be large, such as parsed documents."""
ABSTAINED = "abstained"
INVALID_RETURN_VALUE = "junk answer"
"""Reason under which invalid return values are counted; stored and exported as a metric label."""
MAX_MESSAGE_CHARACTERS = 500
"""Maximum length of an exception's message in a report."""

Steps: TypeAlias = tuple[Step, ...]
Failure: TypeAlias = Exception | SystemExit  # SystemExit in a function counts as a fault
Fault: TypeAlias = tuple[int, Failure]
"""Position of a row, and the exception raised at that row."""


class FunctionStats(NamedTuple):
    """Time and faults of one function.

    Parameters
    ----------
    name
        Name of the function.
    seconds
        Time over all rows; the time of a preprocessor is divided equally among its functions.
    unknown
        Number of rows of unknown membership, by reason: the name of an exception, ``junk answer`` for an
        invalid return value, ``abstained``, or a template's reason.
    first_fault
        First fault, with its row and reason; None without faults.
    """

    name: str
    seconds: float
    unknown: Mapping[str, int]
    first_fault: str | None


_stats_of: Callable[[Iterable[Any]], FunctionStats] = partial(tuple.__new__, FunctionStats)  # thrice as fast


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """Slice matrix of N rows, and statistics of each of the K functions."""

    matrix: SliceMatrix
    stats: tuple[FunctionStats, ...]


def apply(functions: Iterable[SlicingFunction], rows: Rows) -> SliceMatrix:
    """Return the memberships of N rows in the slices of K functions; see ``apply_with_stats``.

    Examples
    --------
    >>> short = SlicingFunction("short", lambda x: len(x.text.split()) < 3)
    >>> S = apply([short], [{"text": "Cool video!"}, {"text": None}])
    >>> S.member.tolist(), S.unknown.tolist()
    ([[True], [False]], [[False], [True]])
    """
    chosen, given = validate_functions(functions, SlicingFunction), validate_rows(rows)
    if chosen and all(isinstance(function, Template) for function in chosen):
        # skip the statistics: they take a quarter of the time of a single row
        member, unknown = _plan_for(functions, chosen, given).memberships(Columns(given))
        return SliceMatrix([each.name for each in chosen], member, unknown)
    return apply_with_stats(functions if isinstance(functions, FunctionSet) else chosen, given).matrix


def apply_with_stats(
    functions: Iterable[SlicingFunction],
    rows: Rows,
    *,
    progress: Callable[[int], object] | None = None,
    meter: Meter | None = None,
) -> ApplyResult:
    """Apply K functions to N rows, and report the time and faults of each function.

    If a function raises or returns an invalid value, its own membership of the row is unknown; other functions
    are not affected. Lists, dicts and other plain containers in a row of a frame or mapping are copied for each
    function, so that no function changes the input of another. Other objects are passed without a copy.

    Parameters
    ----------
    functions
        Slicing functions and templates with distinct names; a ``FunctionSet`` keeps its templates compiled.
    rows
        A data frame, or a list of mappings or of any objects.
    progress
        Callback with the number of rows completed since the last call, such as ``tqdm.update``.
    meter
        Measures and bounds the CPU time of the templates; none by default.

    Raises
    ------
    InvalidFunction
        If an item of ``functions`` is not a slicing function.
    DuplicateName
        If two functions share a name.
    UnknownName
        If a template reads a column that the data frame does not have.
    SliceError
        If the rows are not a sequence (a generator, for example), or two columns share a name.
    """
    chosen, given = validate_functions(functions, SlicingFunction), validate_rows(rows)
    stats: dict[str, FunctionStats] = {}
    templates, results = evaluate_templates(functions, chosen, given, meter)
    if results is not None:
        names = [template.name for template in templates]
        columns = zip(names, results.seconds.tolist(), results.faults, results.first_faults, strict=True)
        runs = tuple(map(_stats_of, columns))
        if len(templates) == len(chosen):
            if progress is not None:
                progress(len(given))
            return ApplyResult(SliceMatrix(names, results.member, results.unknown), runs)
        stats = dict(zip(names, runs, strict=True))
    plain = [function for function in chosen if not isinstance(function, Template)]
    evaluator = evaluate_rows(plain, given, progress)
    for function, result in zip(plain, evaluator.results, strict=True):
        fault = None if result.first_fault is None else format_fault(*result.first_fault)
        stats[function.name] = FunctionStats(function.name, result.seconds, dict(result.reasons), fault)
    position = {function.name: k for k, function in enumerate(chosen)}
    member = np.zeros((len(given), len(chosen)), dtype=bool)  # [N, K]
    unknown = np.zeros_like(member)
    at = [position[function.name] for function in plain]
    member[:, at], unknown[:, at] = (evaluator.values == 1).T, evaluator.unknown.T
    if results is not None:
        at = [position[template.name] for template in templates]
        member[:, at], unknown[:, at] = results.member, results.unknown
    return ApplyResult(SliceMatrix(position, member, unknown), tuple(stats[name] for name in position))


def validate_rows(rows: Rows) -> Rows:
    """Return a data frame with distinct columns or an array unchanged, and any other sequence as a list."""
    if is_dataframe(rows):
        duplicates = [name for name, count in Counter(map(str, rows.columns)).items() if count > 1]
        if duplicates:
            raise SliceError(f"duplicate column {duplicates[0]!r}: rename one of them")
        return rows
    if isinstance(rows, np.ndarray) and rows.ndim:
        return rows
    is_sequence = hasattr(rows, "__len__") and hasattr(rows, "__getitem__") and not hasattr(rows, "to_pandas")
    if not is_sequence or isinstance(rows, (str, bytes, Mapping, np.ndarray)):
        raise SliceError(
            f"rows must be a data frame or a list of mappings or objects, got {type(rows).__name__}: convert "
            "an iterator to a list and a table to a pandas data frame, or apply in batches"
        )
    return list(rows)


def evaluate_templates(
    functions: Iterable[Any], chosen: Sequence[Any], rows: Rows, meter: Meter | None = None
) -> tuple[Sequence[Template], TemplateResults | None]:
    """Return the templates among the functions and their results; None if there are no templates."""
    templates = [function for function in chosen if isinstance(function, Template)]
    if not templates:
        return templates, None
    return templates, _plan_for(functions, templates, rows).evaluate(Columns(rows), meter)


def _plan_for(functions: Iterable[Any], templates: Sequence[Template], rows: Rows) -> TemplatePlan:
    """Return the plan of the templates; raise UnknownName if a data frame lacks a column that they read."""
    if isinstance(functions, FunctionSet):
        plan = functions.plan
    else:
        plan = TemplatePlan(template.spec for template in templates)
    if is_dataframe(rows):
        columns = [str(name) for name in rows.columns]
        for absent in sorted(plan.fields - set(columns)):
            reader = next(template.name for template in templates if absent in template.fields)
            raise UnknownName(
                f"template {reader!r} reads column {absent!r}, which is not in the data frame"
                f"{did_you_mean(absent, columns)}"
            )
    return plan


def evaluate_rows(
    functions: Sequence[LabelingFunction],
    rows: Rows,
    progress: Callable[[int], object] | None = None,
    *,
    strict: bool = False,
    records: Callable[[Any], list[Any]] | None = None,
) -> RowEvaluator:
    """Evaluate plain functions in blocks of rows; the records of only one block are in memory at a time.

    With ``records``, the rows of a block as passed to functions, a function may assign to fields of its row.
    """
    evaluator = RowEvaluator(functions, len(rows), strict=strict, assignable=records is not None)
    size = PREPARED_ROWS if any(function.steps for function in functions) else BLOCK_ROWS
    for start in range(0, len(rows), size):
        stop = min(start + size, len(rows))
        if functions:
            block = rows.iloc[start:stop] if is_dataframe(rows) else rows[start:stop]
            evaluator.evaluate(start, Columns(block).records if records is None else records(block))
        if progress is not None:
            progress(stop - start)
    return evaluator


@dataclass(slots=True)
class RowResults:
    """Results of one function, filled in during its evaluation.

    Attributes
    ----------
    values
        int64[N]: a label, or 1 for a member and 0 for a non-member; 0 for an unknown row.
    unknown
        bool[N].
    reasons
        Number of unknown rows by reason.
    first_fault
        First row with an exception or an invalid return value, and the exception; None without faults.
    seconds
        Time over all rows; the time of a preprocessor is divided equally among its functions.
    """

    values: NDArray[np.int64]
    unknown: NDArray[np.bool_]
    reasons: dict[str, int] = field(default_factory=dict)
    first_fault: Fault | None = None
    seconds: float = 0.0

    @property
    def faults(self) -> int:
        """Number of unknown rows, abstentions excluded."""
        return sum(count for reason, count in self.reasons.items() if reason != ABSTAINED)

    def mark_unknown(self, row: int, reason: str, error: Failure | None = None) -> None:
        """Mark a row as unknown, count the reason, and keep the earliest error."""
        self.unknown[row] = True
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if error is not None:
            self.first_fault = _earlier(self.first_fault, (row, error))


@dataclass(slots=True)
class _PreparedBlock:
    """Preprocessed rows of one block, without rows on which a preprocessor raised."""

    positions: Sequence[int]
    rows: list[Any]
    failed: dict[int, str] = field(default_factory=dict)
    first_fault: Fault | None = None
    has_containers: bool = False
    seconds: float = 0.0  # over all steps; the time of a step is divided among its functions


class RowEvaluator:
    """Evaluator of several functions on the same rows; a shared preprocessor runs once per row.

    Parameters
    ----------
    functions
        K functions.
    rows
        N, the total number of rows.
    strict
        Whether to raise the first fault instead of recording it.
    copies
        Whether each function gets a copy of the containers of a row: needed if another one reads the row afterwards.
    assignable
        Whether a function may assign to fields of a row, which is undone before the next function.
    """

    def __init__(
        self,
        functions: Sequence[LabelingFunction],
        rows: int,
        *,
        strict: bool = False,
        copies: bool = True,
        assignable: bool = False,
    ) -> None:
        self.functions = functions
        self.copies = copies
        self.assignable = assignable
        self.values = np.zeros((len(functions), rows), dtype=np.int64)  # [K, N]
        self.unknown = np.zeros((len(functions), rows), dtype=bool)  # [K, N]
        self.results = [RowResults(*each) for each in zip(self.values, self.unknown, strict=True)]
        self.strict = strict
        self._calls: list[tuple[Callable[[Any], Any], Steps]] = [
            (function.bound_function, function.steps)
            if type(function).__call__ in (LabelingFunction.__call__, SlicingFunction.__call__)
            else (function, ())  # a subclass that overrides __call__ runs its own preprocessors
            for function in functions
        ]
        self._users = Counter(steps[:n] for _, steps in self._calls for n in range(1, len(steps) + 1))

    def evaluate(self, start: int, rows: list[Any]) -> None:
        """Evaluate every function on a block of rows that starts at row ``start``.

        Raises
        ------
        Exception
            If strict: the original exception of the first faulty function in the first faulty row.
        """
        positions = range(start, start + len(rows))
        contained = self.copies and has_containers(rows)
        blocks: dict[Steps, _PreparedBlock] = {(): _PreparedBlock(positions, rows, has_containers=contained)}
        for (call, steps), function, result in zip(self._calls, self.functions, self.results, strict=True):
            block = self._prepare(steps, blocks)
            result.seconds += block.seconds
            for row, reason in block.failed.items():
                result.mark_unknown(row, reason)
            if block.first_fault is not None:
                result.first_fault = _earlier(result.first_fault, block.first_fault)
            if self.assignable:
                with changes_undone():
                    _call_on_block(call, function.parse_return_value, block, result, self.strict)
            else:
                _call_on_block(call, function.parse_return_value, block, result, self.strict)
        if self.strict:
            faults = [result.first_fault for result in self.results if result.first_fault is not None]
            if faults:
                raise min(faults, key=lambda fault: fault[0])[1]

    def _prepare(self, steps: Steps, blocks: dict[Steps, _PreparedBlock]) -> _PreparedBlock:
        if steps not in blocks:
            before = self._prepare(steps[:-1], blocks)
            blocks[steps] = _run_step(steps[-1], before, self._users[steps])
            blocks[steps].has_containers &= self.copies
        return blocks[steps]


def format_fault(row: int, error: Failure) -> str:
    """Return the text of a fault, even if ``str`` of the exception raises."""
    is_invalid = isinstance(error, InvalidReturnValue)
    kind = "invalid return value" if is_invalid else type(error).__name__
    try:
        message = " ".join([str(error)[:MAX_MESSAGE_CHARACTERS], *getattr(error, "__notes__", ())])
    except Exception:
        message = "(no readable message)"
    return f"row {row}: {kind}: {message}"


def _reason(error: Failure) -> str:
    return INVALID_RETURN_VALUE if isinstance(error, InvalidReturnValue) else type(error).__name__


def _call_on_block(
    call: Callable[[Any], Any],
    parse: Callable[[Any], int | None],
    block: _PreparedBlock,
    result: RowResults,
    strict: bool,
) -> None:
    start = perf_counter()
    values = result.values
    rows = map(copy_for_call, block.rows) if block.has_containers else block.rows
    for row, x in zip(block.positions, rows, strict=True):
        try:
            returned = call(x)
            if returned is False:
                continue
            value = 1 if returned is True else parse(returned)
            if value is None:
                result.mark_unknown(row, ABSTAINED)
            else:
                values[row] = value
        except (Exception, SystemExit) as error:
            result.mark_unknown(row, _reason(error), error)
            if strict:
                break
    result.seconds += perf_counter() - start


def _run_step(step: Step, before: _PreparedBlock, users: int) -> _PreparedBlock:
    start = perf_counter()
    positions: list[int] = []
    out = _PreparedBlock(positions, [], dict(before.failed), before.first_fault)
    owner = getattr(step, "__self__", None)
    rows = owner.rows_ahead(before.rows) if isinstance(owner, Preprocessor) else before.rows
    for row, x in zip(before.positions, rows, strict=True):
        try:
            prepared = step(x)
        except (Exception, SystemExit) as error:
            name = getattr(step, "name", None) or getattr(owner, "name", None)
            with suppress(TypeError):  # the exception may have overwritten __notes__
                error.add_note(f"(in preprocessor {name or short_repr(step)!r})")
            out.failed[row] = _reason(error)
            out.first_fault = _earlier(out.first_fault, (row, error))
            continue
        positions.append(row)
        out.rows.append(prepared)
    out.has_containers = has_containers(out.rows)
    out.seconds = before.seconds + (perf_counter() - start) / users
    return out


def _earlier(one: Fault | None, other: Fault) -> Fault:
    return other if one is None or other[0] < one[0] else one
