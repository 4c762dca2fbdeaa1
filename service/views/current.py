"""What is in force now: one holder, whose attributes are replaced whole, never changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

from models.registry import AliasChange
from service.decisions import DriftStatus
from service.errors import ServiceError
from service.events import FunctionSetVersion, Snapshot
from service.monitor.estimates import EstimateConfig
from sfs.intervals import Rate
from sfs.metadata import Metadata
from sfs.registry import FunctionSet

Origin: TypeAlias = Literal["file", "http"]


class NotReady(ServiceError):
    """The monitor has not yet made a snapshot: there is nothing to show."""


class UnknownSlice(ServiceError):
    """No slice has this name."""


@dataclass(frozen=True, slots=True)
class InForce:
    """The model version that answers, and the functions that are applied.

    Parameters
    ----------
    model
        The model's name.
    version
        The champion, or the version that was logged last; None where there is neither.
    functions, functions_version
        The live functions, and what their hash stands for in the log.
    metadata
        By slice.
    origins
        By slice: defined in a file, or added by HTTP.
    references
        Coverage that is expected of a slice, by name; only of slices whose function is still the one that
        was counted with.
    classes
        The C classes.
    promoted_at
        When the version became the champion; None if it is not.
    history
        Every change of the champion, oldest first.
    accuracies
        How often the version was right on held-out members, by name; of the same slices, and of all rows.
    """

    model: str
    version: int | None
    functions: FunctionSet
    functions_version: FunctionSetVersion
    metadata: Mapping[str, Metadata]
    origins: Mapping[str, Origin]
    references: Mapping[str, Rate]
    classes: tuple[str, ...]
    promoted_at: datetime | None
    history: tuple[AliasChange, ...] = ()
    accuracies: Mapping[str, Rate] = field(default_factory=dict)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Name to fingerprint of the live functions."""
        functions = self.functions_version
        return dict(zip(functions.names, functions.fingerprints, strict=True))


@dataclass(frozen=True, slots=True)
class FunctionHealth:
    """Whether a function is applied: ``open`` is a breaker that keeps it out, with the breaker's reason."""

    name: str
    state: Literal["ok", "open"]
    reason: str | None


_DEFAULTS = EstimateConfig()


def _all_well() -> Mapping[str, FunctionHealth]:
    return {}


class Current:
    """What is in force; readers take each attribute once, and see one state of it.

    Parameters
    ----------
    in_force
        The model and the functions.
    health
        Asks the live functions how they are, by name; functions that cannot fail may be left out.
    snapshot
        What the monitor last committed; None before the first.
    judging
        How figures are made that are not in the snapshot.

    Attributes
    ----------
    drifts
        Where every watched slice of the version in force stands with its detectors.
    """

    __slots__ = ("drifts", "health", "in_force", "judging", "snapshot")

    def __init__(
        self,
        in_force: InForce,
        health: Callable[[], Mapping[str, FunctionHealth]] = _all_well,
        snapshot: Snapshot | None = None,
        judging: EstimateConfig = _DEFAULTS,
    ) -> None:
        self.in_force, self.health = in_force, health
        self.snapshot, self.judging = snapshot, judging
        self.drifts: tuple[DriftStatus, ...] = ()
