"""What the pages are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from service.store.engine import Store
from service.views.current import Current


@dataclass(frozen=True, slots=True)
class ConsoleParts:
    """What the routes read; nothing of it is changed by them.

    Parameters
    ----------
    current
        What is in force, and the last snapshot.
    store
        The log, for series and records.
    clock
        The time, UTC.
    """

    current: Current
    store: Store
    clock: Callable[[], datetime]
