"""The coverage and accuracy that are expected of each slice, before live traffic has a say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from service.serving.live_functions import LiveFunctions
from sfs.function import ALL_ROWS
from sfs.intervals import Rate

if TYPE_CHECKING:
    from models.bundle import ModelBundle

_ROWS = 64


def references(bundle: ModelBundle, live: LiveFunctions) -> dict[str, Rate]:
    """Return the expected coverage by slice, with its n.

    A function that is what it was in training has the count of all rows there. One that is new, or another by
    now, is applied to the held-out rows that the bundle keeps; it has no reference if it can tell of none of
    them, as when they lack its columns.
    """
    now = live.functions.fingerprints
    counted = {name: bundle.reference[name].coverage for name in _unchanged(bundle, now)}
    found = counted if len(counted) == len(now) else {**_on_sample(bundle, live), **counted}
    return {name: rate for name, rate in found.items() if rate.n}


def accuracies(bundle: ModelBundle, live: LiveFunctions) -> dict[str, Rate]:
    """Return how often the model was right on held-out rows, of all (``__all__``) and by slice, with its n.

    A slice has a rate if its function is what it was in training.
    """
    unchanged = _unchanged(bundle, live.functions.fingerprints)
    counts = {name: bundle.reference[name] for name in [ALL_ROWS, *unchanged]}
    return {name: each.accuracy for name, each in counts.items() if each.held_out}


def _unchanged(bundle: ModelBundle, now: Mapping[str, str]) -> list[str]:
    then = bundle.function_fingerprints
    return [name for name in now if name in bundle.reference and then.get(name) == now[name]]


def _on_sample(bundle: ModelBundle, live: LiveFunctions) -> Mapping[str, Rate]:
    member = known = np.zeros(len(live.functions), np.int64)
    for start in range(0, len(bundle.sample), _ROWS):
        S = live.apply(bundle.sample[start : start + _ROWS], judge=False).matrix
        member, known = member + S.member.sum(axis=0), known + (~S.unknown).sum(axis=0)
    return {
        name: Rate(int(count), int(n))
        for name, count, n in zip(live.functions.names, member, known, strict=True)
    }
