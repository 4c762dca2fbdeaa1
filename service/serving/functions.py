"""The live functions on the request path: templates at once, plain functions behind a watchdog and breakers."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.serving.breaker import FAULTS, SLOW, Breaker, Limits, Seconds
from service.serving.watchdog import Job, Worker
from sfs.apply import Applied, FunctionRun, run
from sfs.function import SlicingFunction
from sfs.matrix import SliceMatrix
from sfs.record import Columns, Rows
from sfs.registry import FunctionSet
from sfs.rowwise import Answers, RowFunctions, fault_text
from sfs.template import Template

BREAKER_OPEN = "breaker open"
OUT_OF_TIME = "out of time"
STILL_RUNNING = "still running"


@dataclass(frozen=True, slots=True)
class _Column:
    """What one function said of N rows."""

    member: NDArray[np.bool_]
    unknown: NDArray[np.bool_]
    run: FunctionRun


class LiveFunctions:
    """A set of functions as it is applied to traffic: whatever a plain function does, the others have their say.

    Parameters
    ----------
    functions
        K functions.
    limits
        What plain ones may do.
    clock
        Monotonic seconds, for breakers.
    breakers
        By fingerprint; what is known of functions from earlier.
    """

    def __init__(
        self,
        functions: FunctionSet,
        limits: Limits | None = None,
        *,
        clock: Callable[[], Seconds] = monotonic,
        breakers: dict[str, Breaker] | None = None,
    ) -> None:
        self.functions = functions
        self.limits = limits or Limits()
        self.templates = FunctionSet(each for each in functions if isinstance(each, Template))
        self.plain = tuple(each for each in functions if not isinstance(each, Template))
        self._clock = clock
        known = breakers or {}
        self._breakers = {each.name: known.get(each.fingerprint, Breaker()) for each in self.plain}
        self._worker: Worker | None = None
        self._left_behind: list[Job] = []
        self._probes: dict[str, Job] = {}
        self._applying = threading.Lock()

    @property
    def breakers(self) -> dict[str, Breaker]:
        """The state of every plain function's breaker, by name; a copy."""
        return dict(self._breakers)

    def with_functions(self, functions: FunctionSet) -> LiveFunctions:
        """Return another set under the same limits; functions that are in both keep their breakers."""
        known = {each.fingerprint: self._breakers[each.name] for each in self.plain}
        return LiveFunctions(functions, self.limits, clock=self._clock, breakers=known)

    def apply(self, rows: Rows) -> Applied:
        """Return the memberships of N rows, and how each function fared; raises nothing that a function raises.

        A membership is unknown where its function faulted, was over its time, or is kept out by its breaker;
        the reason is in the function's run.
        """
        of_templates = run(self.templates, rows)
        if not self.plain:
            return of_templates
        with self._applying:
            columns = self._plain_columns(Columns(rows).records)
        matrix = of_templates.matrix
        for k, each in enumerate(of_templates.runs):
            columns[each.name] = _Column(matrix.member[:, k], matrix.unknown[:, k], each)
        return _side_by_side([columns[name] for name in self.functions.names])

    def close(self) -> None:
        """Tell every thread to end. Those that do not are daemons, and end with the process."""
        with self._applying:
            for job in [*self._left_behind, *self._probes.values()]:
                job.leave_behind()
            self._end_worker()

    def _plain_columns(self, records: list[Any]) -> dict[str, _Column]:
        self._harvest()
        running = {job.functions[job.running[0]].name for job in self._left_behind}
        columns: dict[str, _Column] = {}
        asked: list[SlicingFunction] = []
        for each in self.plain:
            if self._breakers[each.name].is_open:
                columns[each.name] = _unknown(each.name, len(records), BREAKER_OPEN)
                self._probe(each, records)
            elif each.name in running:
                columns[each.name] = _unknown(each.name, len(records), STILL_RUNNING)
            else:
                asked.append(each)
        if asked:
            columns |= self._ask(asked, records)
        return columns

    def _ask(self, asked: Sequence[SlicingFunction], records: list[Any]) -> dict[str, _Column]:
        job, rows = Job(asked, records), len(records)
        self._ready_worker().submit(job)
        allowances = [self.limits.allowance(each.budget_ms, rows) for each in asked]
        job.wait(allowances, self.limits.hold_ms / 1000)
        answered = list(job.answered)  # the thread may add to it yet
        columns = {}
        for each, one in zip(asked, answered, strict=False):
            columns[each.name] = self._judged(each, one, rows)
        if len(answered) < len(asked):
            self._leave_behind(job, answered, allowances)
        for k, each in enumerate(asked[len(answered) :]):
            columns[each.name] = _unknown(each.name, rows, OUT_OF_TIME if k else SLOW)
        return columns

    def _ready_worker(self) -> Worker:
        if self._worker is None:
            self._worker = Worker()
            weakref.finalize(self, self._worker.end)
        return self._worker

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def _judged(self, function: SlicingFunction, asked: RowFunctions, rows: int) -> _Column:
        answers, now = asked.answers[0], self._clock()
        breaker = self._breakers[function.name].after_rows(_faulty(answers), self.limits, now)
        if not breaker.is_open:
            breaker = breaker.after_batch(self._is_slow(function, answers, rows), self.limits, now)
        self._breakers[function.name] = breaker
        return _column(function.name, answers)

    def _is_slow(self, function: SlicingFunction, answers: Answers, rows: int) -> bool:
        return 1000 * answers.seconds > rows * (function.budget_ms or self.limits.budget_ms)

    def _leave_behind(self, job: Job, answered: list[RowFunctions], allowances: Sequence[Seconds]) -> None:
        """Give up waiting, and open the breaker of the function that took the largest part of what it may."""
        spent = [one.answers[0].seconds for one in answered] + [monotonic() - job.running[1]]
        shares = [seconds / allowance for seconds, allowance in zip(spent, allowances, strict=False)]
        name = job.functions[int(np.argmax(shares))].name
        self._breakers[name] = self._breakers[name].opened(SLOW, self.limits, self._clock())
        job.leave_behind()
        self._left_behind.append(job)
        self._end_worker()

    def _harvest(self) -> None:
        """Take in what probes found, and tell what was left behind once more to stop."""
        self._left_behind = [job for job in self._left_behind if not job.done.is_set()]
        for job in self._left_behind:
            job.leave_behind()
        for name, job in list(self._probes.items()):
            allowance = self.limits.allowance(job.functions[0].budget_ms, len(job.records))
            if job.done.is_set():
                del self._probes[name]
                self._breakers[name] = self._probed(self._breakers[name], job)
            elif monotonic() - job.running[1] > allowance:
                job.leave_behind()

    def _probed(self, breaker: Breaker, job: Job) -> Breaker:
        """Return the breaker after a probe: closed if a row was answered, and all of them in time."""
        now, rows = self._clock(), len(job.records)
        answers = job.answered[0].answers[0] if job.answered else None
        if answers is None or self._is_slow(job.functions[0], answers, rows):
            return breaker.opened(SLOW, self.limits, now)
        return breaker.opened(FAULTS, self.limits, now) if answers.faults >= rows else breaker.closed(now)

    def _probe(self, function: SlicingFunction, records: list[Any]) -> None:
        """Try a function again off the request path, where its breaker says that it is time."""
        busy = any(function in job.functions for job in self._left_behind) or function.name in self._probes
        if not records or busy or not self._breakers[function.name].is_due(self._clock()):
            return
        job, worker = Job([function], records[: self.limits.probe_rows]), Worker()
        self._probes[function.name] = job
        worker.submit(job)
        worker.end()


def _faulty(answers: Answers) -> Iterable[bool]:
    """Return which rows faulted. Where some abstained, which of the two is not known, and none counts."""
    if not answers.faults:
        return (False,)
    return (False,) if answers.faults < int(answers.unknown.sum()) else answers.unknown.tolist()


def _column(name: str, answers: Answers) -> _Column:
    fault = None if answers.first_fault is None else fault_text(*answers.first_fault)
    report = FunctionRun(name, answers.seconds, dict(answers.reasons), fault)
    return _Column(answers.values == 1, answers.unknown, report)


def _unknown(name: str, rows: int, reason: str) -> _Column:
    report = FunctionRun(name, 0.0, {reason: rows} if rows else {}, None)
    return _Column(np.zeros(rows, dtype=bool), np.ones(rows, dtype=bool), report)


def _side_by_side(columns: Sequence[_Column]) -> Applied:
    names = [column.run.name for column in columns]
    member = np.stack([column.member for column in columns], axis=1)  # [N, K]
    unknown = np.stack([column.unknown for column in columns], axis=1)
    return Applied(SliceMatrix(names, member, unknown), tuple(column.run for column in columns))
