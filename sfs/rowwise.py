"""Plain functions applied row by row, in blocks: answers, time and faults per function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sfs.declared import short_text
from sfs.draft import lent, with_containers
from sfs.errors import InvalidAnswer
from sfs.function import LabelingFunction, SlicingFunction
from sfs.preprocess import Step

ABSTAINED = "abstained"
JUNK = "junk answer"
MAX_MESSAGE = 500
"""Characters of an exception's message that a report keeps."""

Chain: TypeAlias = tuple[Step, ...]
Failure: TypeAlias = Exception | SystemExit  # a function that ends the process is a fault like another
Fault: TypeAlias = tuple[int, Failure]
"""A row's position and what was raised there."""


@dataclass(slots=True)
class Answers:
    """What one function answered, filled while it is applied.

    Attributes
    ----------
    values
        int64[N]: a label, or 1 for a member and 0 for a non-member; 0 where unknown.
    unknown
        bool[N].
    reasons
        How many rows are unknown for which reason.
    first_fault
        The first row at which the function raised or answered junk, and what; None if it never did.
    seconds
        Time spent, a shared preprocessor's divided by the functions that share it.
    """

    values: NDArray[np.int64]
    unknown: NDArray[np.bool_]
    reasons: dict[str, int] = field(default_factory=dict)
    first_fault: Fault | None = None
    seconds: float = 0.0

    @property
    def faults(self) -> int:
        """How many rows are unknown for another reason than that the function abstained."""
        return sum(count for reason, count in self.reasons.items() if reason != ABSTAINED)

    def note(self, row: int, reason: str, error: Failure | None) -> None:
        """Mark a row unknown."""
        self.unknown[row] = True
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if error is not None:
            self.first_fault = _earlier(self.first_fault, (row, error))


@dataclass(slots=True)
class Prepared:
    """A block's rows behind a chain of preprocessors; rows that one of them raised on are not among them."""

    positions: Sequence[int]
    rows: list[Any]
    failed: dict[int, str] = field(default_factory=dict)
    first_fault: Fault | None = None
    with_containers: bool = False
    seconds: float = 0.0  # of the whole chain, each step's part divided by the functions that use it


class RowFunctions:
    """Several functions, applied together so that preprocessors they share run once per row.

    Parameters
    ----------
    functions
        K functions.
    rows
        N, how many rows there will be.
    strict
        Whether the first fault is raised, rather than noted.
    """

    def __init__(self, functions: Sequence[LabelingFunction], rows: int, *, strict: bool = False) -> None:
        self.functions = functions
        self.values = np.zeros((len(functions), rows), dtype=np.int64)  # [K, N]
        self.unknown = np.zeros((len(functions), rows), dtype=bool)  # [K, N]
        self.answers = [Answers(*each) for each in zip(self.values, self.unknown, strict=True)]
        self.strict = strict
        self._calls = [_call_of(function) for function in functions]
        self._users = Counter(chain[:n] for _, chain in self._calls for n in range(1, len(chain) + 1))

    def ask(self, start: int, rows: list[Any]) -> None:
        """Ask every function about a block of rows, the first of which is row ``start``.

        Raises
        ------
        Exception
            If strict, whatever the first faulty row's first faulty function raised, unchanged.
        """
        given = Prepared(range(start, start + len(rows)), rows, with_containers=with_containers(rows))
        chains: dict[Chain, Prepared] = {(): given}
        for (call, chain), function, answers in zip(self._calls, self.functions, self.answers, strict=True):
            prepared = self._prepared(chain, chains)
            answers.seconds += prepared.seconds
            _inherit_faults(answers, prepared)
            _ask_one(call, function.read, prepared, answers, self.strict)
        if self.strict:
            _raise_first(self.answers)

    def _prepared(self, chain: Chain, chains: dict[Chain, Prepared]) -> Prepared:
        if chain not in chains:
            before = self._prepared(chain[:-1], chains)
            chains[chain] = _run_step(chain[-1], before, self._users[chain])
        return chains[chain]


def fault_text(row: int, error: Failure) -> str:
    """Spell a fault, even one that cannot spell itself."""
    reason = reason_of(error)
    try:
        said = " ".join([str(error)[:MAX_MESSAGE], *getattr(error, "__notes__", ())])
    except Exception:
        said = "(it has no readable message)"
    return f"row {row}: {reason}: {said}"


def reason_of(error: Failure) -> str:
    """Return the reason under which a fault is counted."""
    return JUNK if isinstance(error, InvalidAnswer) else type(error).__name__


def _call_of(function: LabelingFunction) -> tuple[Callable[[Any], Any], Chain]:
    """Return what answers a row, and what the row goes through before; a subclass's own call is all of it."""
    if type(function).__call__ in (LabelingFunction.__call__, SlicingFunction.__call__):
        return function.caller, function.steps
    return function, ()


def _ask_one(
    call: Callable[[Any], Any],
    read: Callable[[Any], int | None],
    prepared: Prepared,
    answers: Answers,
    strict: bool,
) -> None:
    start = perf_counter()
    values = answers.values
    rows = map(lent, prepared.rows) if prepared.with_containers else prepared.rows
    for row, x in zip(prepared.positions, rows, strict=True):
        try:
            answer = call(x)
            if answer is False:
                continue
            value = 1 if answer is True else read(answer)
            if value is None:
                answers.note(row, ABSTAINED, None)
            else:
                values[row] = value
        except (Exception, SystemExit) as error:
            answers.note(row, reason_of(error), error)
            if strict:
                break
    answers.seconds += perf_counter() - start


def _run_step(step: Step, before: Prepared, users: int) -> Prepared:
    start = perf_counter()
    out = Prepared([], [], dict(before.failed), before.first_fault)
    positions: list[int] = []
    for row, x in zip(before.positions, before.rows, strict=True):
        try:
            made = step(x)
        except (Exception, SystemExit) as error:
            out.failed[row] = reason_of(error)
            out.first_fault = _earlier(out.first_fault, (row, _noted(error, step)))
            continue
        positions.append(row)
        out.rows.append(made)
    out.positions, out.with_containers = positions, with_containers(out.rows)
    out.seconds = before.seconds + (perf_counter() - start) / users
    return out


def _noted(error: Failure, step: Step) -> Failure:
    name = getattr(step, "name", None) or getattr(getattr(step, "__self__", None), "name", short_text(step))
    with suppress(TypeError):  # an exception may have made its notes unusable
        error.add_note(f"(in preprocessor {name!r})")
    return error


def _inherit_faults(answers: Answers, prepared: Prepared) -> None:
    for row, reason in prepared.failed.items():
        answers.note(row, reason, None)
    if prepared.first_fault is not None:
        answers.first_fault = _earlier(answers.first_fault, prepared.first_fault)


def _earlier(one: Fault | None, other: Fault | None) -> Fault | None:
    faults = [fault for fault in (one, other) if fault is not None]
    return min(faults, key=lambda fault: fault[0]) if faults else None


def _raise_first(answers: Sequence[Answers]) -> None:
    faults = [one.first_fault for one in answers if one.first_fault is not None]
    if faults:
        raise min(faults, key=lambda fault: fault[0])[1]
