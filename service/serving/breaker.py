"""A circuit breaker per plain function: when it opens, and when the function gets another chance.

A breaker is a value: each event makes a new one, and the time is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from service.errors import MisuseError

Seconds: TypeAlias = float

FAULTS = "faults"
SLOW = "over budget"
_CALM = 10
"""A breaker that stayed closed for so many times its last back-off begins anew with the first one."""


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """What plain functions may do on the request path.

    Parameters
    ----------
    budget_ms
        Time per row of a function that states no budget of its own.
    least_ms
        What a function may take of a batch however few its rows are, so that one pause of the machine is no
        verdict.
    hold_ms
        What all plain functions together may take of a batch.
    faults
        Rows in a row on which a function raises or answers junk, before its breaker opens.
    slow_batches
        Batches in a row over the budget per row, before it opens; a function that is still running when its
        time of a batch is up opens it at once.
    back_off_seconds, longest_back_off_seconds
        Time from opening to the first probe; it doubles with each probe that fails, up to the longest.
    probe_rows
        Rows that a probe tries.
    load_seconds
        Time in which the functions must be loaded, in the process that they run in.
    memory_mb
        Address space that they may take there beyond what loading took; None for no limit.

    Raises
    ------
    MisuseError
        If one is not above 0.
    """

    budget_ms: float = 1.0
    least_ms: float = 50.0
    hold_ms: float = 200.0
    faults: int = 20
    slow_batches: int = 5
    back_off_seconds: Seconds = 1.0
    longest_back_off_seconds: Seconds = 300.0
    probe_rows: int = 16
    load_seconds: Seconds = 60.0
    memory_mb: float | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise MisuseError(f"{name} must be above 0, got {getattr(self, name)!r}")

    def allowance(self, budget_ms: float | None, rows: int) -> Seconds:
        """Return the time that a function may take of a batch.

        Examples
        --------
        >>> [BreakerLimits().allowance(None, rows) for rows in (1, 100, 1000)]
        [0.05, 0.1, 0.2]
        """
        asked = max(self.least_ms, rows * (budget_ms or self.budget_ms))
        return min(asked, self.hold_ms) / 1000


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state of one function's breaker.

    Parameters
    ----------
    faults, slow_batches
        Rows and batches in a row that went wrong, while it is closed.
    reason
        Why it is open; None while it is closed.
    since
        When it opened, last failed a probe, or closed again, in seconds of the monotonic clock.
    back_off_seconds
        Time from ``since`` to the next probe; while it is closed, the last one that it had.

    Examples
    --------
    >>> limits = BreakerLimits(faults=3)
    >>> breaker = Breaker().after_rows([True, True, False, True, True], limits, now=0.0)
    >>> breaker.is_open, breaker.after_rows([True], limits, now=9.0).reason
    (False, 'faults')
    """

    faults: int = 0
    slow_batches: int = 0
    reason: str | None = None
    since: Seconds = 0.0
    back_off_seconds: Seconds = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the function is kept from the request path."""
        return self.reason is not None

    def is_due(self, now: Seconds) -> bool:
        """Tell whether it is open and time for a probe."""
        return self.is_open and now - self.since >= self.back_off_seconds

    def after_rows(self, faulty: Iterable[bool], limits: BreakerLimits, now: Seconds) -> Breaker:
        """Return the breaker after rows, in order, on which the function faulted or did not."""
        count = self.faults
        for fault in faulty:
            count = count + 1 if fault else 0
            if count >= limits.faults:
                return self.opened(FAULTS, limits, now)
        return self if count == self.faults else replace(self, faults=count)

    def after_batch(self, slow: bool, limits: BreakerLimits, now: Seconds) -> Breaker:
        """Return the breaker after a batch that was, or was not, over the budget per row."""
        count = self.slow_batches + 1 if slow else 0
        if count >= limits.slow_batches:
            return self.opened(SLOW, limits, now)
        return self if count == self.slow_batches else replace(self, slow_batches=count)

    def opened(self, reason: str, limits: BreakerLimits, now: Seconds) -> Breaker:
        """Return it open: for the first back-off, or for twice the last one if it did not last closed."""
        lapsed = not self.is_open and now - self.since >= _CALM * self.back_off_seconds
        back_off = limits.back_off_seconds if lapsed else 2 * self.back_off_seconds
        back_off = min(back_off or limits.back_off_seconds, limits.longest_back_off_seconds)
        return Breaker(reason=reason, since=now, back_off_seconds=back_off)

    def closed(self, now: Seconds) -> Breaker:
        """Return it closed after a good probe."""
        return Breaker(since=now, back_off_seconds=self.back_off_seconds)
