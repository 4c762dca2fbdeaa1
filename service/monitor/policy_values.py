"""What the retraining policy goes by, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from service.decisions import Direction, Trigger, Zone
from sfs.intervals import Rate


@dataclass(frozen=True, slots=True)
class Rules:
    """What is waited for, and how often training is let happen.

    Parameters
    ----------
    new_labels
        Labelled members since the change that every risen slice needs.
    cool_down
        The least time between the end of one training and the opening of the next run.
    runs_a_month
        Trainings in any 30 days.
    wait
        How long labels are waited for.
    max_age
        Age at which a version is replaced though nothing is wrong; None for never.
    """

    new_labels: int
    cool_down: timedelta
    runs_a_month: int
    wait: timedelta
    max_age: timedelta | None = None

    @classmethod
    def of(
        cls,
        *,
        new_labels: int = 200,
        cool_down_hours: float = 24.0,
        runs_a_month: int = 8,
        wait_days: float = 14.0,
        max_age_days: float | None = None,
    ) -> Rules:
        """Return the rules as settings name them."""
        return cls(
            new_labels,
            timedelta(hours=cool_down_hours),
            runs_a_month,
            timedelta(days=wait_days),
            None if max_age_days is None else timedelta(days=max_age_days),
        )


@dataclass(frozen=True, slots=True)
class Opening:
    """A run to open now, as the store takes it."""

    state: Literal["waiting_for_labels", "training"]
    trigger: Trigger
    reason: str
    alarms: tuple[int, ...] = ()
    slices: tuple[str, ...] = ()
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run is asked for, but not now; ``until`` is None where another run has to end first."""

    reason: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a slice whose coverage moved.

    Parameters
    ----------
    slice, direction
        Which, and where its coverage went.
    labelled, right
        Members that were labelled since the change, and those of them that the model got right.
    zone
        Where its accuracy may lie; None without a reference.
    """

    slice: str
    direction: Direction
    labelled: int
    right: int
    zone: Zone | None

    @property
    def accuracy(self) -> Rate:
        """How often the model was right since the change."""
        return Rate(self.right, self.labelled)


@dataclass(frozen=True, slots=True)
class Wait:
    """Not enough labels yet: how many each risen slice has."""

    reason: str
    labelled: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Train:
    """Train now."""

    reason: str


@dataclass(frozen=True, slots=True)
class Skip:
    """End the run without training."""

    reason: str
