"""How a version did on the rows that were held out for it, without loading it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from models.bundle.reference import slice_counts
from models.errors import ModelError
from models.registry import ModelRegistry, Version
from service.events import Estimate, InsufficientData
from service.serving.deployment import Deployment
from service.views.rates import estimate_of
from sfs.function import ALL_ROWS
from sfs.intervals import Rate


def held_out_accuracy(folder: Path) -> Estimate | InsufficientData:
    """Return how often a stored version was right on its held-out rows; why nobody knows, where it is damaged."""
    try:
        counts = slice_counts(json.loads((folder / "reference.json").read_bytes())[ALL_ROWS])
    except (OSError, LookupError, TypeError, ValueError, ModelError) as error:
        return InsufficientData(0, 1, f"reference.json cannot be read: {error!r:.100}")
    return estimate_of(counts.accuracy.count, counts.accuracy.n, "no rows were held out")


@dataclass(frozen=True, slots=True)
class ModelView:
    """One version.

    Parameters
    ----------
    version, hash
        Its number, and what its content hashes to; the hash of a damaged one is empty.
    created
        When its folder was written.
    aliases
        Those that are on it.
    in_force
        Whether it answers here.
    classes
        The C classes; none where the version is damaged.
    references
        Coverage by slice among the rows of its training, ``__all__`` included, with n.
    damaged
        What is wrong with its folder; None where nothing is.
    """

    version: int
    hash: str
    created: datetime
    aliases: tuple[str, ...]
    in_force: bool
    classes: tuple[str, ...]
    references: Mapping[str, Rate]
    damaged: str | None


def models_view(registry: ModelRegistry, deployment: Deployment) -> tuple[ModelView, ...]:
    """Return all versions, oldest first; those that are damaged say so."""
    answers = deployment.state.version
    return tuple(_view(each, each.number == answers) for each in registry.list())


def model_view(registry: ModelRegistry, version: int, deployment: Deployment | None = None) -> ModelView:
    """Return one version; without ``current`` it is not known to be in force.

    Raises
    ------
    RegistryError
        If there is no such version.
    """
    registry.path(version)
    answers = None if deployment is None else deployment.state.version
    stored = next(each for each in registry.list() if each.number == version)
    return _view(stored, version == answers)


def _view(stored: Version, in_force: bool) -> ModelView:
    classes: tuple[str, ...] = ()
    references: dict[str, Rate] = {}
    damaged = stored.damaged
    if damaged is None:
        try:
            classes, references = _classes(stored.path), _references(stored.path)
        except (OSError, KeyError, TypeError, ValueError) as error:
            damaged = f"{stored.path} cannot be read: {error}; copy the bundle anew"
    created = datetime.fromtimestamp(stored.path.stat().st_mtime, UTC)
    return ModelView(
        stored.number, stored.hash, created, stored.aliases, in_force, classes, references, damaged
    )


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(json.loads((folder / "config.json").read_bytes())["classes"])


def _references(folder: Path) -> dict[str, Rate]:
    counts = json.loads((folder / "reference.json").read_bytes())
    return {name: slice_counts(each).coverage for name, each in counts.items()}
