"""A version from the registry, proved and warm before it answers anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from models.registry import CHAMPION, ModelRegistry
from service.errors import ServiceError
from service.serving.functions import LiveFunctions
from service.serving.predictor import Loaded

if TYPE_CHECKING:
    from models.bundle import ModelBundle

WARM_UP_ROWS = (1, 16, 64)


def load(registry: ModelRegistry, live: LiveFunctions, version: int | str = CHAMPION) -> Loaded:
    """Return a version, ready to answer: every digest checked, its golden batch repeated, all of it run once.

    Parameters
    ----------
    registry
        Where the versions are.
    live
        The functions that are applied to traffic.
    version
        Its number, or an alias.

    Raises
    ------
    ServiceError
        If the alias is not on any version.
    RegistryError
        If there is no such version.
    BundleError
        If the bundle is not what it was when it was stored, or does not give the answers that it gave then.
    """
    alias = None if isinstance(version, int) or version.isdecimal() else version
    number = int(version) if alias is None else _number_of(registry, alias)
    bundle = registry.get(version)
    if alias is not None and registry.alias(alias) != number:
        return load(registry, live, alias)  # the alias moved between the two looks
    warm_up(bundle, live)
    return Loaded(bundle, number, live)


def warm_up(bundle: ModelBundle, live: LiveFunctions) -> None:
    """Run features, templates and model once at each size of batch; plain functions are left alone."""
    records: Sequence[Mapping[str, Any]] = bundle.sample or bundle.golden.records
    for rows in WARM_UP_ROWS:
        batch = list(islice(cycle(records), rows))
        S = bundle.memberships(live.templates, batch)
        bundle.predict_proba(batch, S)


def _number_of(registry: ModelRegistry, alias: str) -> int:
    number = registry.alias(alias)
    if number is None:
        raise ServiceError(
            f"model {registry.name!r} has no {alias}: train one with `slicewatch train`, or promote a version"
        )
    return number
