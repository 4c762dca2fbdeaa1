"""Plain functions on the request path: asked in processes of their own, and kept out by breakers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from service.serving.breaker import FAULTS, SLOW, Breaker, BreakerLimits, Seconds
from service.serving.function_call import (
    DIED,
    NOT_JSON,
    STARTING,
    CallResult,
    FunctionCall,
    NoResult,
    Outcome,
    Records,
    records_of,
)
from service.serving.isolation import Isolation, in_background
from service.serving.processes import FunctionResult, Worker
from sfs.apply import FunctionStats
from sfs.function import SlicingFunction
from sfs.record import Rows

_log = logging.getLogger(__name__)

BREAKER_OPEN = "breaker open"
CHANGED = "changed on disk"
_CLOSED = Breaker()
_PROBE_SECONDS = 10.0
"""A probe whose process has not begun by then is given up."""


@dataclass(frozen=True, slots=True)
class FunctionColumn:
    """What one function said of N rows."""

    member: NDArray[np.bool_]
    unknown: NDArray[np.bool_]
    run: FunctionStats


class PythonFunctions:
    """The breakers of plain functions, and the processes that they run in.

    Parameters
    ----------
    isolation
        Where they run; from now on for nobody else.
    limits
        What they may do.
    clock
        Monotonic seconds, for breakers.
    """

    def __init__(self, isolation: Isolation, limits: BreakerLimits, clock: Callable[[], Seconds]) -> None:
        self._isolation, self._limits, self._clock = isolation, limits, clock
        self._breakers: dict[str, Breaker] = {}  # by fingerprint, so that a changed function begins anew
        self._probing: set[str] = set()
        self._applying = threading.Lock()

    def start(self) -> None:
        """Load the functions in their process; raises `ServiceError` if they cannot be."""
        self._isolation.start()

    def close(self) -> None:
        """End all processes."""
        with self._applying:
            self._isolation.close()

    def breaker(self, function: SlicingFunction) -> Breaker:
        """Return the state of a function's breaker."""
        return self._breakers.get(function.fingerprint, _CLOSED)

    def why_out(self, function: SlicingFunction) -> str | None:
        """Return why a function is not asked at present, or None."""
        loaded = self._isolation.fingerprints
        if loaded is None:
            return STARTING
        if loaded.get(function.name) != function.fingerprint:
            return CHANGED
        return self.breaker(function).reason

    def columns(
        self, functions: Sequence[SlicingFunction], rows: Rows, *, judge: bool = True
    ) -> dict[str, FunctionColumn]:
        """Return what each function says of N rows, by name; whatever one of them does, the others have theirs.

        What functions do on rows that are no traffic, ``judge=False``, is not held against them.
        """
        with self._applying:
            records = records_of(rows)
            columns: dict[str, FunctionColumn] = {}
            asked: list[SlicingFunction] = []
            for each in functions:
                if self.breaker(each).is_open:
                    columns[each.name] = unknown(each.name, len(rows), BREAKER_OPEN)
                    self._probe_when_due(each, rows)
                elif self.why_out(each) == CHANGED:
                    columns[each.name] = unknown(each.name, len(rows), CHANGED)
                else:
                    asked.append(each)
            return columns | self._asked(asked, records, judge)

    def _asked(
        self, functions: Sequence[SlicingFunction], records: Records, judge: bool
    ) -> dict[str, FunctionColumn]:
        names = [each.name for each in functions]
        if not (functions and records.readable):
            return {name: unknown(name, records.rows, NOT_JSON) for name in names}
        allowances = [self._limits.allowance(each.budget_ms, records.rows) for each in functions]
        end = monotonic() + self._limits.hold_ms / 1000
        asked = FunctionCall(names, allowances, records, end).put(self._isolation)
        if judge:
            self._judge(functions, asked, records.readable)
        pairs = zip(names, asked.outcomes, strict=True)
        return {name: _column(name, outcome, records) for name, outcome in pairs}

    def _judge(self, functions: Sequence[SlicingFunction], asked: CallResult, rows: int) -> None:
        now = self._clock()
        for k, (function, outcome) in enumerate(zip(functions, asked.outcomes, strict=True)):
            before = self.breaker(function)
            if k == asked.heaviest:
                after = before.opened(SLOW, self._limits, now)
            else:
                after = self._judged(before, function, outcome, rows, now)
            if after is not before:
                self._breakers[function.fingerprint] = after
            if after.is_open and not before.is_open:
                fault = outcome.fault if isinstance(outcome, FunctionResult) else outcome.reason
                _log.warning("function %r is set aside, %s: %s", function.name, after.reason, fault)

    def _judged(
        self, breaker: Breaker, function: SlicingFunction, outcome: Outcome, rows: int, now: Seconds
    ) -> Breaker:
        if isinstance(outcome, FunctionResult):
            after = breaker.after_rows(_faulty(outcome), self._limits, now)
            slow = self._is_slow(function, outcome, rows)
            return after if after.is_open else after.after_batch(slow, self._limits, now)
        if outcome.reason == SLOW:
            return breaker.opened(SLOW, self._limits, now)
        return breaker.after_rows([True] * rows, self._limits, now) if outcome.reason == DIED else breaker

    def _is_slow(self, function: SlicingFunction, said: FunctionResult, rows: int) -> bool:
        return 1000 * said.seconds > rows * (function.budget_ms or self._limits.budget_ms)

    def _probe_when_due(self, function: SlicingFunction, rows: Rows) -> None:
        """Try a function again off the request path, where its breaker says that it is time."""
        if function.fingerprint in self._probing or not self.breaker(function).is_due(self._clock()):
            return
        records = records_of(rows[: self._limits.probe_rows])
        loaded = self._isolation.fingerprints or {}
        if not records.readable or loaded.get(function.name) != function.fingerprint:
            return
        worker = self._isolation.fork()
        if worker is None:
            return
        self._probing.add(function.fingerprint)
        if in_background(partial(self._probe, function, records, worker)) is None:
            self._probing.discard(function.fingerprint)

    def _probe(self, function: SlicingFunction, records: Records, worker: Worker) -> None:
        allowance = self._limits.allowance(function.budget_ms, records.readable)
        end = monotonic() + _PROBE_SECONDS + allowance
        outcome = FunctionCall([function.name], [allowance], records, end).put_once(worker)
        worker.kill()
        if outcome is not None:
            self._breakers[function.fingerprint] = self._probed(function, outcome, records.readable)
        self._probing.discard(function.fingerprint)

    def _probed(self, function: SlicingFunction, outcome: Outcome, rows: int) -> Breaker:
        """Return the breaker after a probe: closed if a row was answered, and all of them in time."""
        breaker, now = self.breaker(function), self._clock()
        if isinstance(outcome, NoResult):
            if outcome.reason == NOT_JSON:
                return breaker
            reason = FAULTS if outcome.reason == DIED else SLOW
            return breaker.opened(reason, self._limits, now)
        if self._is_slow(function, outcome, rows):
            return breaker.opened(SLOW, self._limits, now)
        return breaker.opened(FAULTS, self._limits, now) if outcome.faults >= rows else breaker.closed(now)


def unknown(name: str, rows: int, reason: str, seconds: Seconds = 0.0) -> FunctionColumn:
    """Return the column of a function of which nothing is known, and why."""
    report = FunctionStats(name, seconds, {reason: rows} if rows else {}, None)
    return FunctionColumn(np.zeros(rows, dtype=bool), np.ones(rows, dtype=bool), report)


def _faulty(said: FunctionResult) -> Iterable[bool]:
    """Return which rows faulted. Where some abstained, which of the two is not known, and none counts."""
    if not said.faults:
        return (False,)
    return (False,) if said.faults < int(said.unknown.sum()) else said.unknown.tolist()


def _column(name: str, outcome: Outcome, records: Records) -> FunctionColumn:
    if isinstance(outcome, NoResult):
        return unknown(name, records.rows, outcome.reason, outcome.seconds)
    report = FunctionStats(name, outcome.seconds, outcome.reasons, outcome.fault)
    if records.positions is None:
        return FunctionColumn(outcome.member, outcome.unknown, report)
    left_out = {NOT_JSON: records.rows - records.readable}
    column = unknown(name, records.rows, NOT_JSON)
    at = list(records.positions)
    column.member[at], column.unknown[at] = outcome.member, outcome.unknown
    return FunctionColumn(
        column.member, column.unknown, report._replace(unknown={**outcome.reasons, **left_out})
    )
