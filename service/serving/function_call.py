"""A call of Python functions on records: sent to their workers, examined while they run, and retried once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import cast

from service.events import DIED, INVALID_ANSWER, NOT_JSON, STARTING
from service.serving.breaker import SLOW
from service.serving.channel import ConnectionClosed, ProtocolError
from service.serving.isolation import (
    SHARED,
    CallRecords,
    EncodedRecords,
    FunctionOutcome,
    Isolation,
    NoResult,
    Worker,
)
from sfs.metering import OUT_OF_TIME

_SLICE_SECONDS = 0.01
"""Interval at which running functions are examined; a longer one is a pause of this process, and counts no more."""
_PARALLEL_BYTES = 16 << 20
"""Maximum size of the records, over all workers that read them at the same time."""
_UNREPORTED_SECONDS = 0.003
"""CPU time from one call to the next that counts as used by the function: less is the interpreter's own."""
_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Part:
    """The functions of a call that run in one worker."""

    functions: tuple[int, ...]  # of the call
    key: str  # of the worker
    positions: tuple[int, ...]  # of the functions among the loaded ones
    worker: Worker | None = None
    waited_seconds: float = 0.0


class FunctionCall:
    """A call of K functions on N records; after the run it has their outcomes, in order.

    A function may use its allowance of CPU time; in the first call of a worker ``hold_seconds``, as it may initialize
    something. All of them may hold the call for ``hold_seconds``; those that then had no chance to run, because the
    machine was busy elsewhere, are called once more in new workers. Time in which this process did not run counts as
    two slices at most. When functions that share a worker lose it, or use more than the largest allowance, they are
    called again, each in a worker of its own.

    Parameters
    ----------
    names
        Names of the functions.
    allowances
        CPU seconds that each may use.
    records
        N records.
    hold_seconds
        Maximum time of the call, twice.

    Attributes
    ----------
    outcomes
        Outcome of each function.
    waited_seconds
        Time that each function was asleep, and not waiting for a CPU; in slices.
    heaviest
        If the functions used the whole time themselves, position of the one that used the largest part of its
        allowance.
    """

    def __init__(
        self, names: Sequence[str], allowances: Sequence[float], records: EncodedRecords, hold_seconds: float
    ) -> None:
        self.names, self.allowances, self.hold_seconds = names, allowances, hold_seconds
        self.outcomes: list[FunctionOutcome] = []
        self.waited_seconds = [0.0] * len(names)
        self.heaviest: int | None = None
        self._records = CallRecords(records)
        self._at_once = max(1, _PARALLEL_BYTES // (1 + len(records.json)))
        self._isolation: Isolation | None = None
        self._unsent: list[_Part] = []
        self._running: list[_Part] = []
        self._done: list[_Part] = []
        self._found: dict[int, FunctionOutcome] = {}
        self._sent_at = monotonic()

    def run(self, isolation: Isolation) -> None:
        """Call all functions."""
        self.start(isolation)
        self.finish()

    def run_on(self, worker: Worker, position: int) -> None:
        """Call one function in a worker, which is not replaced."""
        if worker.call((position,), self._records):
            self._running.append(_Part((0,), self.names[0], (position,), worker))
        self.finish()

    def start(self, isolation: Isolation) -> None:
        """Send the call to the workers, or to as many as may read the records at once."""
        self._isolation = isolation
        shares = isolation.shares(tuple(self.names))
        self._unsent = [_Part(share.functions, share.key, share.positions) for share in shares]
        self._send()

    def finish(self) -> None:
        """Collect the outcomes."""
        held, since, may_retry = 0.0, self._sent_at, True
        while self._running:
            arrived = self._receive(self._running[0], monotonic() + _SLICE_SECONDS)
            now = monotonic()
            elapsed = min(now - since, 2 * _SLICE_SECONDS)
            since, held = now, held + elapsed
            if not arrived:
                self._examine(elapsed)
                if held >= self.hold_seconds:
                    if not self._end_hold(may_retry=may_retry):
                        break
                    held, may_retry = 0.0, False
            if self._unsent:
                self._send()
        found = self._found
        self.outcomes = [found[k] if k in found else NoResult(OUT_OF_TIME) for k in range(len(self.names))]

    def _send(self) -> None:
        """Send the call to further workers, as far as they may run at once."""
        while self._unsent and len(self._running) < self._at_once:
            part, isolation = self._unsent.pop(0), cast("Isolation", self._isolation)
            for _ in range(2):  # the first worker may have been lost while it was idle
                part.worker = isolation.worker(part.key)
                if part.worker is None or min(part.positions) < 0:
                    part.worker = None
                    break
                if part.worker.call(part.positions, self._records):
                    break
                isolation.drop(part.key)
                part.worker = None
            if part.worker is None:
                self._found |= dict.fromkeys(part.functions, NoResult(STARTING))
            else:
                self._running.append(part)

    def _receive(self, part: _Part, deadline: float) -> bool:
        """Return whether the outcome of a running part has arrived by the deadline."""
        worker = cast("Worker", part.worker)
        try:
            results = worker.receive(self._records.rows, deadline)
        except TimeoutError:
            return False
        except ProtocolError as error:
            names = ", ".join(repr(self.names[k]) for k in part.functions)
            _log.warning("the process of %s broke the protocol, and is ended: %s", names, error)
            self._stop(part, NoResult(INVALID_ANSWER))
        except ConnectionClosed:
            self._stop(part, NoResult(DIED if worker.process else STARTING))
        else:
            self._running.remove(part)
            self._done.append(part)
            if results and part.key != SHARED and worker.unreported_seconds > _UNREPORTED_SECONDS:
                results = [results[0]._replace(seconds=results[0].seconds + worker.unreported_seconds)]
            outcomes: Sequence[FunctionOutcome] = results or [NoResult(NOT_JSON)] * len(part.functions)
            self._found |= zip(part.functions, outcomes, strict=True)
        return True

    def _stop(self, part: _Part, outcome: FunctionOutcome) -> None:
        """End the process of a running part, and request another one for the next call; split a shared part."""
        self._running.remove(part)
        if part.key == SHARED:
            self._split(part)
        else:
            self._done.append(part)
            self._found |= dict.fromkeys(part.functions, outcome)
        if self._isolation is not None:
            self._isolation.drop(part.key)
            self._isolation.worker(part.key)

    def _split(self, part: _Part) -> None:
        pairs = zip(part.functions, part.positions, strict=True)
        self._unsent += [_Part((k,), self.names[k], (position,)) for k, position in pairs]

    def _examine(self, elapsed: float) -> None:
        """Stop running parts that have used their allowance, and note which of them are asleep."""
        for part in list(self._running):
            worker = cast("Worker", part.worker)
            asleep = worker.state() == "S"  # read first: it is asleep after its answer, too
            if self._receive(part, 0.0):
                continue
            first = self.hold_seconds if worker.calls == 1 else 0.0
            allowance = max(first, *(self.allowances[k] for k in part.functions))
            if (used := self._used_seconds(part)) > allowance:
                self._stop(part, NoResult(SLOW, used))
            elif asleep:
                part.waited_seconds += elapsed
                for k in part.functions:
                    self.waited_seconds[k] = part.waited_seconds

    def _used_seconds(self, part: _Part) -> float:
        """Return the CPU seconds that the functions of a part have used, reading the records excluded."""
        return max(0.0, cast("Worker", part.worker).used_seconds() - self._records.read_seconds)

    def _end_hold(self, *, may_retry: bool) -> bool:
        """Stop the running functions, and return whether they may go on, or are to be called again."""
        for part in list(self._running):
            if may_retry and part.key == SHARED and self._used_seconds(part) >= self.hold_seconds / 2:
                self._stop(part, NoResult(SLOW))  # which function it was, workers of their own will show
        used = dict.fromkeys(range(len(self.names)), 0.0)
        for part in (*self._running, *self._done):
            seconds = self._used_seconds(part)
            used |= dict.fromkeys(part.functions, seconds / len(part.functions))
        used |= {k: found.seconds for k, found in self._found.items() if found.seconds > used[k]}
        overloaded = sum(used.values()) >= self.hold_seconds
        retry = may_retry and not overloaded
        for part in list(self._running):
            worker, k = cast("Worker", part.worker), part.functions[0]
            waited, is_stuck = part.waited_seconds >= self.hold_seconds / 2, worker.state() != "R"
            if part.key != SHARED and (waited or (not retry and (is_stuck or used[k] > self.allowances[k]))):
                self._stop(part, NoResult(SLOW, used[k]))
            elif retry and worker.calls == 1 and not is_stuck:
                continue  # it may still be starting, or initialize something
            else:
                self._running.remove(part)
                if self._isolation is not None:
                    self._isolation.drop(part.key)
                if retry and self._isolation is not None:
                    self._split(part)
                else:
                    outcome = NoResult(OUT_OF_TIME if worker.is_ready else STARTING, used[k])
                    self._found |= dict.fromkeys(part.functions, outcome)
        outcomes = [self._found.get(k, NoResult(OUT_OF_TIME)) for k in used]
        if overloaded and any(isinstance(each, NoResult) and each.reason == OUT_OF_TIME for each in outcomes):
            self.heaviest = max(used, key=lambda k: used[k] / self.allowances[k])
            if isinstance(self._found.get(self.heaviest), NoResult):
                self._found[self.heaviest] = NoResult(SLOW, used[self.heaviest])
        return retry
