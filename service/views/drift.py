"""Where every watched slice stands with its detectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from service.decisions import Drift, DriftKind
from service.views.current import Current


@dataclass(frozen=True, slots=True)
class DriftView:
    """What the detectors say of the version in force; no version where none is."""

    model: str
    version: int | None
    drifts: tuple[Drift, ...]


def drift_view(current: Current) -> DriftView:
    """Return where every watched slice stands, those nearest to an alarm first."""
    in_force = current.in_force
    nearest = sorted(current.drifts, key=lambda each: (-each.share, each.slice, each.kind))
    return DriftView(in_force.model, in_force.version, tuple(nearest))


def drifts_by_slice(current: Current) -> Mapping[str, Mapping[DriftKind, Drift]]:
    """Return what the detectors say of each slice by kind, where the function is still the one in force."""
    prints = current.in_force.functions.fingerprints
    found: dict[str, dict[DriftKind, Drift]] = {}
    for each in current.drifts:
        if each.fingerprint == prints.get(each.slice):
            found.setdefault(each.slice, {})[each.kind] = each
    return found
