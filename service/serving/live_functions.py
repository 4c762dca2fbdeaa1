"""The live functions on the request path: templates metered in process, Python functions isolated, behind breakers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.events import BREAKER_OPEN, CHANGED, DIED, INVALID_ANSWER, NOT_JSON, STARTING
from service.serving.breaker import FAULTS, SLOW, Breaker, BreakerLimits
from service.serving.channel import ConnectionClosed
from service.serving.function_call import FunctionCall
from service.serving.isolation import (
    EncodedRecords,
    FunctionOutcome,
    FunctionResult,
    Isolation,
    NoResult,
    Worker,
    encode_records,
    start_thread,
)
from service.serving.metered_templates import MeteredTemplates
from sfs.apply import ApplyResult, FunctionStats
from sfs.function import SlicingFunction
from sfs.matrix import SliceMatrix
from sfs.metering import OUT_OF_TIME
from sfs.record import Rows
from sfs.registry import FunctionSet
from sfs.template import Template

_STOPPED = frozenset({SLOW, OUT_OF_TIME, DIED, INVALID_ANSWER, BREAKER_OPEN})
_CLOSED = Breaker()
_PROBE_START_SECONDS = 10.0
"""Timeout for starting the process of a probe."""

_log = logging.getLogger(__name__)


class LiveFunctions:
    """A function set as applied to traffic; a bad function has no effect on the others.

    Parameters
    ----------
    functions
        K functions.
    limits
        Limits of the functions.
    sources
        Files and modules of the Python functions, as for `FunctionSet.from_files`: they are loaded again in a
        process of their own. A function that is missing or different there is unknown.
    clock
        Monotonic seconds, for breakers.
    """

    def __init__(
        self,
        functions: FunctionSet,
        limits: BreakerLimits | None = None,
        *,
        sources: Iterable[str | Path] = (),
        clock: Callable[[], float] = monotonic,
    ) -> None:
        limits = limits or BreakerLimits()
        isolation = Isolation([str(source) for source in sources], limits, clock)
        self._isolated = PythonFunctions(isolation, limits, clock)
        self._metered = MeteredTemplates(limits, clock)
        self._set_functions(functions)

    def _set_functions(self, functions: FunctionSet) -> None:
        self.functions = functions
        self.templates = FunctionSet(function for function in functions if isinstance(function, Template))
        self.python = tuple(function for function in functions if not isinstance(function, Template))
        _ = self.templates.plan  # compiled here, and not by the first request

    def disabled_reasons(self) -> dict[str, str | None]:
        """Return the reason why each Python function is disabled, None for an enabled one, and disabled templates."""
        reasons = {function.name: self._isolated.disabled_reason(function) for function in self.python}
        return {**reasons, **self._metered.disabled_reasons(self.templates)}

    def start(self) -> None:
        """Load the Python functions in their process, and wait for it; without any, no process is started.

        Without this call the first batches start the process, and Python functions are unknown meanwhile.

        Raises
        ------
        ServiceError
            If they cannot be loaded.
        """
        if self.python:
            self._isolated.start(self.python)

    def with_functions(self, functions: FunctionSet) -> LiveFunctions:
        """Return another set with Python functions of the same sources; it shares processes, limits and breakers."""
        other = copy(self)
        other._set_functions(functions)
        return other

    def apply(self, rows: Rows, *, update_breakers: bool = True) -> ApplyResult:
        """Return the memberships of N rows, and the run of each function; no error of a function is raised.

        A membership is unknown if its function failed, ran out of time, or has an open breaker; the reason is
        in the function's run. ``update_breakers=False`` is for rows that are not traffic.
        """
        if not self.python:
            return self.apply_templates(rows, update_breakers=update_breakers)
        with self._isolated.applying(self.python, rows, update_breakers=update_breakers) as columns:
            applied = self.apply_templates(rows, update_breakers=update_breakers)
        matrix = applied.matrix
        for k, stats in enumerate(applied.stats):
            columns[stats.name] = FunctionColumn(matrix.member[:, k], matrix.unknown[:, k], stats)
        ordered = [columns[name] for name in self.functions.names]
        member = np.empty((len(ordered[0].member), len(ordered)), dtype=bool)  # [N, K]
        unknown = np.empty_like(member)
        for k, column in enumerate(ordered):
            member[:, k], unknown[:, k] = column.member, column.unknown
        return ApplyResult(SliceMatrix(self.functions.names, member, unknown), tuple(column.run for column in ordered))

    def apply_templates(self, rows: Rows, *, update_breakers: bool = True) -> ApplyResult:
        """Return the memberships of the templates alone, as `apply`."""
        return self._metered.apply(self.templates, rows, update_breakers=update_breakers)

    def close(self) -> None:
        """Kill all processes, also those of sets derived from this one."""
        self._isolated.close()
        self._metered.close()


def stopped_reason(stats: FunctionStats) -> str | None:
    """Return the reason why a function was stopped or set aside in a batch; None if it was not.

    The rows on which it was in time are no random sample.
    """
    return next((reason for reason in stats.unknown if reason in _STOPPED), None)


class FunctionColumn(NamedTuple):
    """One function's column of a slice matrix of N rows."""

    member: NDArray[np.bool_]
    unknown: NDArray[np.bool_]
    run: FunctionStats


class PythonFunctions:
    """Python functions in their processes, each behind a breaker."""

    def __init__(self, isolation: Isolation, limits: BreakerLimits, clock: Callable[[], float]) -> None:
        self._isolation, self._limits, self._clock = isolation, limits, clock
        self._breakers: dict[str, Breaker] = {}  # by fingerprint: a changed function starts with a closed one
        self._probing: set[str] = set()
        self._lock = threading.Lock()

    def start(self, functions: Sequence[SlicingFunction]) -> None:
        """Load all functions, and start the processes of some. Raises ServiceError if they cannot be loaded."""
        self._isolation.start()
        with self._lock:
            for function in functions:
                if self.disabled_reason(function) is None:
                    self._isolation.worker(self._isolation.key(function.name))

    def close(self) -> None:
        """Kill all processes."""
        with self._lock:
            self._isolation.close()

    def breaker(self, function: SlicingFunction) -> Breaker:
        """Return the state of a function's breaker."""
        return self._breakers.get(function.fingerprint, _CLOSED)

    def disabled_reason(self, function: SlicingFunction) -> str | None:
        """Return the reason why a function is disabled; None if it is enabled."""
        loaded = self._isolation.fingerprints
        if loaded is None:
            return STARTING
        if loaded.get(function.name) != function.fingerprint:
            return CHANGED
        return self.breaker(function).reason

    def apply(
        self, functions: Sequence[SlicingFunction], rows: Rows, *, update_breakers: bool = True
    ) -> dict[str, FunctionColumn]:
        """Return each function's column of N rows, by name; a bad function has no effect on the others."""
        with self.applying(functions, rows, update_breakers=update_breakers) as columns:
            pass
        return columns

    @contextmanager
    def applying(
        self, functions: Sequence[SlicingFunction], rows: Rows, *, update_breakers: bool = True
    ) -> Iterator[dict[str, FunctionColumn]]:
        """Apply functions to N rows while the block runs; after it, the dict has their columns by name."""
        with self._lock:
            records = encode_records(rows)
            columns: dict[str, FunctionColumn] = {}
            enabled: list[SlicingFunction] = []
            loaded, breakers = self._isolation.fingerprints, self._breakers
            for function in functions:
                if (breaker := breakers.get(function.fingerprint)) is not None and breaker.is_open:
                    columns[function.name] = _unknown_column(function.name, len(rows), BREAKER_OPEN)
                    self._probe_if_due(function, rows)
                elif loaded is not None and loaded.get(function.name) != function.fingerprint:
                    columns[function.name] = _unknown_column(function.name, len(rows), CHANGED)
                elif not records.encoded_rows:
                    columns[function.name] = _unknown_column(function.name, len(rows), NOT_JSON)
                else:
                    enabled.append(function)
            names = [function.name for function in enabled]
            budgets = [function.budget_ms for function in enabled]
            allowance = {budget_ms: self._limits.allowance(budget_ms, records.rows) for budget_ms in set(budgets)}
            allowances = [allowance[budget_ms] for budget_ms in budgets]
            call = FunctionCall(names, allowances, records, self._limits.hold_ms / 1000)
            if enabled:
                call.start(self._isolation)
            try:
                yield columns
            finally:
                call.finish()
            budget_seconds = records.encoded_rows * self._limits.budget_ms / 1000
            for k, (function, outcome) in enumerate(zip(enabled, call.outcomes, strict=True)):
                changes_nothing = (  # as most calls
                    isinstance(outcome, FunctionResult)
                    and not outcome.reasons
                    and function.budget_ms is None
                    and outcome.seconds <= budget_seconds
                    and not call.waited_seconds[k]
                    and k != call.heaviest
                    and function.fingerprint not in breakers
                )
                if update_breakers and not changes_nothing:
                    self._update_breaker(function, outcome, records, call.waited_seconds[k], k == call.heaviest)
                columns[function.name] = _column(function.name, outcome, records)

    def _update_breaker(
        self,
        function: SlicingFunction,
        outcome: FunctionOutcome,
        records: EncodedRecords,
        waited_seconds: float,
        heaviest: bool,
    ) -> None:
        before = after = self.breaker(function)
        limits, now, rows = self._limits, self._clock(), records.encoded_rows
        if heaviest or (isinstance(outcome, NoResult) and outcome.reason == SLOW):
            after = before.trip(SLOW, limits, now)
        elif isinstance(outcome, FunctionResult):
            if not outcome.faults or outcome.faults < int(outcome.unknown.sum()):
                faulty = [False]  # if some rows abstained, the failed rows cannot be identified: none counts
            else:
                faulty = outcome.unknown.tolist()
            after = before.add_rows(faulty, limits, now)
            if not after.is_open:
                slow = self._is_slow(function, outcome.seconds, waited_seconds, rows)
                after = after.add_batch(slow, limits, now)
        elif outcome.reason in (DIED, INVALID_ANSWER):
            after = before.add_rows([True] * rows, limits, now)
        if after is not before:
            self._breakers[function.fingerprint] = after
        if after.is_open and not before.is_open:
            self._isolation.drop(function.name)
            fault = outcome.first_fault if isinstance(outcome, FunctionResult) else outcome.reason
            row_and_kind = ": ".join(str(fault).split(": ", 2)[:2])  # the message may quote the record
            _log.warning("breaker of function %r opened, %s: %s", function.name, after.reason, row_and_kind)
            _log.debug("first fault of function %r: %s", function.name, fault)

    def _is_slow(self, function: SlicingFunction, cpu_seconds: float, waited_seconds: float, rows: int) -> bool:
        over_budget = 1000 * cpu_seconds > rows * (function.budget_ms or self._limits.budget_ms)
        return over_budget or waited_seconds > self._limits.allowance(function.budget_ms, rows)

    def _probe_if_due(self, function: SlicingFunction, rows: Rows) -> None:
        """Try a disabled function again, in a thread and a worker of its own, if its back-off is over."""
        if function.fingerprint in self._probing or not self.breaker(function).is_due(self._clock()):
            return
        records = encode_records(rows[: self._limits.probe_rows])
        loaded = self._isolation.fingerprints or {}
        if not records.encoded_rows or loaded.get(function.name) != function.fingerprint:
            return
        worker = self._isolation.fork()
        if worker is None:
            return
        self._probing.add(function.fingerprint)
        position = self._isolation.position(function.name)
        if start_thread(partial(self._probe, function, records, worker, position)) is None:
            self._probing.discard(function.fingerprint)

    def _probe(self, function: SlicingFunction, records: EncodedRecords, worker: Worker, position: int) -> None:
        """Close the breaker if the function has a result for a row, and is in time; else extend its back-off.

        A first call may initialize something, the second one counts. If it is good, the worker is kept.
        """
        rows = records.encoded_rows
        try:
            worker.wait_until_ready(monotonic() + _PROBE_START_SECONDS)
        except (ConnectionClosed, TimeoutError):
            self._probing.discard(function.fingerprint)
            return
        allowance = self._limits.allowance(function.budget_ms, rows)
        for _ in range(2):
            call = FunctionCall([function.name], [allowance], records, self._limits.hold_ms / 1000)
            call.run_on(worker, position)
            [outcome] = call.outcomes
            if isinstance(outcome, NoResult):
                break
        breaker, limits, now = self.breaker(function), self._limits, self._clock()
        if isinstance(outcome, FunctionResult):
            if self._is_slow(function, outcome.seconds, call.waited_seconds[0], rows):
                breaker = breaker.trip(SLOW, limits, now)
            elif outcome.faults >= rows:
                breaker = breaker.trip(FAULTS, limits, now)
            else:
                breaker = breaker.close(now)
        elif outcome.reason == SLOW:
            breaker = breaker.trip(SLOW, limits, now)
        elif outcome.reason in (DIED, INVALID_ANSWER):
            breaker = breaker.trip(FAULTS, limits, now)
        if breaker.is_open:
            worker.kill()
        else:
            self._isolation.adopt(function.name, worker)
        self._breakers[function.fingerprint] = breaker
        self._probing.discard(function.fingerprint)


def _unknown_column(name: str, rows: int, reason: str, seconds: float = 0.0) -> FunctionColumn:
    function_run = FunctionStats(name, seconds, {reason: rows} if rows else {}, None)
    return FunctionColumn(np.zeros(rows, dtype=bool), np.ones(rows, dtype=bool), function_run)


def _column(name: str, outcome: FunctionOutcome, records: EncodedRecords) -> FunctionColumn:
    if isinstance(outcome, NoResult):
        return _unknown_column(name, records.rows, outcome.reason, outcome.seconds)
    reasons, member, unknown = outcome.reasons, outcome.member, outcome.unknown
    if records.positions is not None:
        reasons = {**reasons, NOT_JSON: records.rows - records.encoded_rows}
        member, unknown = np.zeros(records.rows, dtype=bool), np.ones(records.rows, dtype=bool)
        at = list(records.positions)
        member[at], unknown[at] = outcome.member, outcome.unknown
    return FunctionColumn(member, unknown, FunctionStats(name, outcome.seconds, reasons, outcome.first_fault))
