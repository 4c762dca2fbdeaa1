"""What the pages are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from service.serving.deployment import Deployment
from service.store.engine import Store

if TYPE_CHECKING:
    from models.registry import ModelRegistry
    from service.store.writer import Writer


@dataclass(frozen=True, slots=True)
class Promises:
    """What was promised about alarms and reports, for pages to say.

    Parameters
    ----------
    tolerance
        The relative change of a coverage that is let pass.
    accuracy_tolerance
        The drop of an accuracy that is let pass, as a difference.
    false_alarms_a_month
        How many alarms a month may come while nothing changed, at most, on average.
    max_slices
        Over how many slices together.
    report_hours
        How often live traffic is compared with the reference column by column.
    """

    tolerance: float = 0.1
    accuracy_tolerance: float = 0.01
    false_alarms_a_month: float = 1.0
    max_slices: int = 200
    report_hours: float = 24.0


def _no_failures(name: str) -> Mapping[str, int]:
    return {}


def _no_record() -> Mapping[str, Any] | None:
    return None


@dataclass(frozen=True, slots=True)
class ConsoleParts:
    """What the routes read, and through what an alarm is acknowledged.

    Parameters
    ----------
    current
        What is in force, the last snapshot, and where slices stand with the detectors.
    store
        The log, for series, records, alarms, runs and reports.
    clock
        The time, UTC.
    writer
        Takes acknowledgements; None where they cannot be given here.
    registry
        The versions of the model; None where models are served elsewhere.
    failures
        From a slice's name to the rows that its function gave no answer for, by reason, since the service began.
    example
        A record with the feature columns of the version in force, for commands to copy; None without one.
    promises
        What was promised about alarms and reports.
    speed
        Seconds that pass on the clock in one on the wall's.
    """

    deployment: Deployment
    store: Store
    clock: Callable[[], datetime]
    writer: Writer | None = None
    registry: ModelRegistry | None = None
    failures: Callable[[str], Mapping[str, int]] = _no_failures
    example: Callable[[], Mapping[str, Any] | None] = _no_record
    promises: Promises = Promises()
    speed: float = 1.0
