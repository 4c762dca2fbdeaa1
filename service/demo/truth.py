"""Which slices truly left their zone: counted on rows of the same nature as those that were served."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy.special import rel_entr

from sfs.apply import apply_with_stats
from sfs.intervals import Rate
from sfs.registry import FunctionSet

SLACK = 4.0
"""How many times the rows that no detector can do without are waited for before an alarm is demanded."""

Coverages = Mapping[str, Rate]


@dataclass(frozen=True, slots=True)
class Standing:
    """One slice under one version: where its coverage may lie, where it was in each phase, and who says what.

    Parameters
    ----------
    slice, version
        Which.
    lower, upper
        Its zone, as the service shows it.
    coverages
        By phase that was served under this version.
    left
        Whether one of them lies outside; None if too few rows came from there to tell.
    alarmed
        Whether the service has raised an alarm.
    """

    slice: str
    version: int
    lower: float
    upper: float
    coverages: Mapping[str, float]
    left: bool | None
    alarmed: bool


def coverages(functions: FunctionSet, rows: pd.DataFrame, label: str) -> Coverages:
    """Return the coverage of each slice in some rows, without their label."""
    S = apply_with_stats(functions, rows.drop(columns=label)).matrix
    return S.coverage()


def standings(
    zones: Mapping[int, Mapping[str, Mapping[str, Any]]],
    served: Mapping[tuple[int, str], int],
    phases: Mapping[str, Coverages],
    alarms: Iterable[Mapping[str, Any]],
) -> list[Standing]:
    """Return every watched slice under every version.

    Parameters
    ----------
    zones
        By version and slice: ``lower``, ``upper`` and ``threshold``.
    served
        By version and phase, how many rows it answered.
    phases
        By name, the coverages in a phase.
    alarms
        All there ever were, as the service tells them.
    """
    raised = {(each["version"], each["slice"]) for each in alarms if each["kind"] == "coverage"}
    return [
        _standing(name, version, zone, _seen(name, version, served, phases), (version, name) in raised)
        for version, by_slice in sorted(zones.items())
        for name, zone in by_slice.items()
    ]


def _seen(
    name: str, version: int, served: Mapping[tuple[int, str], int], phases: Mapping[str, Coverages]
) -> dict[str, tuple[float, int]]:
    """Return the coverage of a slice in each phase that a version has seen, and how many rows it saw."""
    rows = {phase: n for (by, phase), n in served.items() if by == version}
    seen = {phase: (phases[phase][name].value, n) for phase, n in rows.items()}
    return {phase: (value, n) for phase, (value, n) in seen.items() if value is not None}


def _standing(
    name: str, version: int, zone: Mapping[str, Any], seen: Mapping[str, tuple[float, int]], alarmed: bool
) -> Standing:
    above = [(value, n) for value, n in seen.values() if value > zone["upper"]]
    below = [(value, n) for value, n in seen.values() if value < zone["lower"]]
    told = max(sum(n / rows_to_tell(value, zone) for value, n in side) for side in (above, below))
    values = {phase: value for phase, (value, _) in seen.items()}
    left = None if 0 < told < SLACK else told > 0
    return Standing(name, version, zone["lower"], zone["upper"], values, left, alarmed)


def rows_to_tell(coverage: float, zone: Mapping[str, Any]) -> float:
    """Return how many rows it takes on average, at the least, to tell a coverage from those of a zone.

    The evidence that alarms, divided by what a row brings of it: the Kullback-Leibler divergence from the
    nearer edge of the zone. Nothing can be told of a coverage inside.

    References
    ----------
    Lorden (1971), Annals of Mathematical Statistics 42, 1897-1908.

    Examples
    --------
    >>> zone = {"lower": 0.0173, "upper": 0.0253, "threshold": 18.5}
    >>> round(rows_to_tell(0.08, zone)), round(rows_to_tell(0.026, zone)), rows_to_tell(0.02, zone)
    (475, 1878722, inf)
    """
    edge = min(max(coverage, zone["lower"]), zone["upper"])
    if coverage == edge:
        return math.inf
    brought = rel_entr(coverage, edge) + rel_entr(1 - coverage, 1 - edge)
    return float(zone["threshold"] / brought)
