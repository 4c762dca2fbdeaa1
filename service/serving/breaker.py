"""Circuit breakers of Python functions: frozen values, with the time as an argument."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from service.errors import MisuseError

FAULTS = "faults"
SLOW = "over budget"
_RESET_FACTOR = 10
"""A breaker that stayed closed for this many times its last back-off starts again with the first back-off."""


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """Limits of Python functions on the request path.

    Parameters
    ----------
    budget_ms
        CPU time per row of a function without a budget of its own.
    least_ms
        Minimum CPU time that a function may use for a batch.
    hold_ms
        Maximum time that all Python functions together may hold a batch, waiting included; once more if the
        machine did not let them run. CPU time that a function may use in the first call of a process.
    faults
        Consecutive rows on which a function raises or returns an invalid value, before its breaker opens.
    slow_batches
        Consecutive batches in which it was over its budget per row, or asleep for as long as the time it may use,
        before it opens; a function that is still running at the end of its time in a batch opens it at once.
    back_off_seconds, longest_back_off_seconds
        Time from opening to the first probe; it doubles with each failed probe, up to the longest.
    probe_rows
        Rows of a probe.
    load_seconds
        Timeout for loading the functions in their process.
    memory_mb
        Address space of a process beyond that after loading; None for no limit.
    network
        Whether functions may use the network.
    recycle_calls
        Calls after which a process is replaced, and up to 255 more.

    Raises
    ------
    MisuseError
        If a limit is not above 0.
    """

    budget_ms: float = 1.0
    least_ms: float = 50.0
    hold_ms: float = 200.0
    faults: int = 20
    slow_batches: int = 5
    back_off_seconds: float = 1.0
    longest_back_off_seconds: float = 300.0
    probe_rows: int = 16
    load_seconds: float = 60.0
    memory_mb: float | None = 1024.0
    network: bool = False
    recycle_calls: int = 10_000

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if name != "network" and getattr(self, name) is not None and not getattr(self, name) > 0:
                raise MisuseError(f"{name} must be above 0, got {getattr(self, name)!r}")

    def allowance(self, budget_ms: float | None, rows: int) -> float:
        """Return the CPU seconds that a function may use for a batch.

        Examples
        --------
        >>> [BreakerLimits().allowance(None, rows) for rows in (1, 100, 1000)]
        [0.05, 0.1, 0.2]
        """
        return min(max(self.least_ms, rows * (budget_ms or self.budget_ms)), self.hold_ms) / 1000


@dataclass(frozen=True, slots=True)
class Breaker:
    """State of one function's breaker.

    Parameters
    ----------
    faults, slow_batches
        Consecutive bad rows and slow batches, while it is closed.
    reason
        Reason for being open; None while it is closed.
    since
        Time at which it opened, last failed a probe, or closed again, in monotonic seconds.
    back_off_seconds
        Time from ``since`` to the next probe; while it is closed, the last back-off.

    Examples
    --------
    >>> limits = BreakerLimits(faults=3)
    >>> breaker = Breaker().add_rows([True, True, False, True, True], limits, now=0.0)
    >>> breaker.is_open, breaker.add_rows([True], limits, now=9.0).reason
    (False, 'faults')
    """

    faults: int = 0
    slow_batches: int = 0
    reason: str | None = None
    since: float = 0.0
    back_off_seconds: float = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the function is kept off the request path."""
        return self.reason is not None

    def is_due(self, now: float) -> bool:
        """Return whether it is open and due for a probe."""
        return self.is_open and now - self.since >= self.back_off_seconds

    def add_rows(self, faulty: Iterable[bool], limits: BreakerLimits, now: float) -> Breaker:
        """Return the breaker after rows, in order, on which the function failed or did not."""
        count = self.faults
        for fault in faulty:
            count = count + 1 if fault else 0
            if count >= limits.faults:
                return self.trip(FAULTS, limits, now)
        return self if count == self.faults else replace(self, faults=count)

    def add_batch(self, slow: bool, limits: BreakerLimits, now: float) -> Breaker:
        """Return the breaker after a batch that was, or was not, over the budget per row."""
        count = self.slow_batches + 1 if slow else 0
        if count >= limits.slow_batches:
            return self.trip(SLOW, limits, now)
        return self if count == self.slow_batches else replace(self, slow_batches=count)

    def trip(self, reason: str, limits: BreakerLimits, now: float) -> Breaker:
        """Return it open: for the first back-off, or for twice the last one unless it stayed closed for long."""
        recovered = not self.is_open and now - self.since >= _RESET_FACTOR * self.back_off_seconds
        back_off = limits.back_off_seconds if recovered else 2 * self.back_off_seconds
        back_off = min(back_off or limits.back_off_seconds, limits.longest_back_off_seconds)
        return Breaker(reason=reason, since=now, back_off_seconds=back_off)

    def close(self, now: float) -> Breaker:
        """Return it closed, after a successful probe."""
        return Breaker(since=now, back_off_seconds=self.back_off_seconds)
