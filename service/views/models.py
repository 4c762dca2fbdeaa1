"""The model versions of the registry, read without loading a model."""

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
from service.views.slices import estimate_of
from sfs.function import ALL_ROWS
from sfs.intervals import Rate


@dataclass(frozen=True, slots=True)
class ModelView:
    """One version of the model.

    Parameters
    ----------
    version, hash, aliases
        Number, content hash (empty if damaged), and the aliases that point to it.
    created
        Modification time of its folder.
    in_force
        Whether it is the active version.
    classes
        The C classes; empty if the version is damaged.
    references
        Expected coverage by slice, ``__all__`` included.
    damaged
        The problem with its files; None if they are intact.
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
    """Return all versions, oldest first, damaged ones included."""
    active = deployment.state.version
    return tuple(_view(entry, entry.number == active) for entry in registry.list())


def model_view(registry: ModelRegistry, version: int, deployment: Deployment | None = None) -> ModelView:
    """Return one version, not active without a deployment. Raises RegistryError if it does not exist."""
    registry.path(version)
    stored = next(entry for entry in registry.list() if entry.number == version)
    return _view(stored, deployment is not None and version == deployment.state.version)


def held_out_accuracy(folder: Path) -> Estimate | InsufficientData:
    """Return the accuracy of a stored version on its held-out rows, or the reason it cannot be read."""
    try:
        counts = slice_counts(json.loads((folder / "reference.json").read_bytes())[ALL_ROWS])
    except (OSError, LookupError, TypeError, ValueError, ModelError) as error:
        return InsufficientData(0, 1, f"reference.json cannot be read: {error!r:.100}")
    return estimate_of(counts.accuracy, "no held-out rows")


def _view(stored: Version, in_force: bool) -> ModelView:
    folder, damaged = stored.path, stored.damaged
    classes: tuple[str, ...] = ()
    references: dict[str, Rate] = {}
    if damaged is None:
        try:
            classes = tuple(json.loads((folder / "config.json").read_bytes())["classes"])
            counts = json.loads((folder / "reference.json").read_bytes())
            references = {name: slice_counts(entry).coverage for name, entry in counts.items()}
        except (OSError, KeyError, TypeError, ValueError) as error:
            damaged = f"{folder} cannot be read: {error}; copy the bundle again"
            classes = ()
    created = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
    return ModelView(stored.number, stored.hash, created, stored.aliases, in_force, classes, references, damaged)
