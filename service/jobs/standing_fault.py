"""Faults that stand: logged when they begin, and then once an hour."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

LOG_SECONDS = 3600.0


class StandingFault:
    """Limits the log lines of a job that fails again and again. For one thread at a time.

    Examples
    --------
    >>> fault = StandingFault(iter((0, 2, 3600)).__next__)
    >>> fault.is_news("disk full"), fault.is_news("disk full"), fault.is_news("disk full")
    (True, False, True)
    """

    def __init__(self, seconds: Callable[[], float] = monotonic) -> None:
        self._seconds = seconds
        self._text, self._logged_at = "", 0.0

    def is_news(self, text: str) -> bool:
        """Return whether to log a fault now: it is another one, or was last logged an hour ago."""
        now = self._seconds()
        if text == self._text and now < self._logged_at + LOG_SECONDS:
            return False
        self._text, self._logged_at = text, now
        return True

    def clear(self) -> None:
        """End the fault: the next one is news, whatever it is."""
        self._text = ""
