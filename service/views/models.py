"""The model versions of the registry, read without loading a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from models.errors import BundleError, ModelError, RegistryError
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
    active = _active_version(deployment)
    return tuple(_view(registry, entry, entry.number == active) for entry in registry.list())


def model_view(registry: ModelRegistry, version: int, deployment: Deployment | None = None) -> ModelView:
    """Return one version, not active without a deployment. Raises RegistryError if it does not exist."""
    registry.path(version)
    active = None if deployment is None else _active_version(deployment)
    for stored in registry.list():
        if stored.number == version:
            return _view(registry, stored, version == active)
    raise RegistryError(f"version {version} was deleted")


def _active_version(deployment: Deployment) -> int | None:
    active = deployment.state.active  # a version served elsewhere may have the number of one in the registry
    return None if active is None else active.version


def held_out_accuracy(registry: ModelRegistry, version: int) -> Estimate | InsufficientData:
    """Return the accuracy of a stored version on its held-out rows, or the reason it cannot be read."""
    try:
        counts = registry.references(version)[ALL_ROWS]
    except (LookupError, ModelError):
        return InsufficientData(0, 1, "reference.json cannot be read")
    return estimate_of(counts.accuracy, "no held-out rows")


def _view(registry: ModelRegistry, stored: Version, in_force: bool) -> ModelView:
    folder, damaged = stored.path, stored.damaged
    classes: tuple[str, ...] = ()
    references: dict[str, Rate] = {}
    if damaged is None:
        try:
            counts = registry.references(stored.number)
            references = {name: entry.coverage for name, entry in counts.items()}
            classes = registry.classes(stored.number)
        except BundleError as error:
            damaged, references = str(error), {}
    try:
        modified = folder.stat().st_mtime
    except OSError as error:  # deleted, or replaced by a link that leads nowhere
        damaged, modified = damaged or f"{folder} cannot be read: {error.strerror}", 0.0
    created = datetime.fromtimestamp(modified, UTC)
    return ModelView(stored.number, stored.hash, created, stored.aliases, in_force, classes, references, damaged)
