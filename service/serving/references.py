"""Expected coverage and accuracy of each slice, before live traffic has a baseline of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.decisions import Run
from service.serving.live_functions import LiveFunctions, stopped_reason
from sfs.function import ALL_ROWS
from sfs.intervals import Rate, effective_n
from sfs.registry import FunctionSet

if TYPE_CHECKING:
    from models.bundle.model_bundle import ModelBundle

BoolArray: TypeAlias = NDArray[np.bool_]
Baseline: TypeAlias = dict[tuple[str, str], Rate]
"""Expected coverage by name and fingerprint of the function."""

BASELINE_KEY = "baseline"
"""Key of a baseline in the data of a run."""

_BATCH_ROWS = 64


def reference_coverage(
    bundle: ModelBundle, live: LiveFunctions, counted: Mapping[str, Rate] | None = None
) -> dict[str, Rate]:
    """Return the expected coverage by slice, with its n.

    A function unchanged since training has the count of all training rows. A new or changed function is
    applied to the held-out records in the bundle, unless it is among those ``counted`` before; it has no reference
    if it is known on fewer than two contents of them, for instance because they lack its columns.
    """
    fingerprints = live.functions.fingerprints
    coverages = {name: rate for name, rate in (counted or {}).items() if name in fingerprints}
    coverages |= {name: bundle.reference[name].coverage for name in _unchanged(bundle, fingerprints)}
    if len(coverages) < len(fingerprints):
        new = FunctionSet(function for function in live.functions if function.name not in coverages)
        coverages |= _coverage_of_sample(bundle, live.with_functions(new))
    return {name: rate for name, rate in coverages.items() if rate.is_informative}


def reference_accuracy(bundle: ModelBundle, live: LiveFunctions) -> dict[str, Rate]:
    """Return the held-out accuracy, unless of one content, of all rows (``__all__``) and of unchanged functions."""
    names = [ALL_ROWS, *_unchanged(bundle, live.functions.fingerprints)]
    rates = {name: bundle.reference[name].accuracy for name in names}
    return {name: rate for name, rate in rates.items() if rate.is_informative}


def _unchanged(bundle: ModelBundle, fingerprints: Mapping[str, str]) -> list[str]:
    trained = bundle.function_fingerprints
    return [name for name in fingerprints if name in bundle.reference and trained.get(name) == fingerprints[name]]


def _coverage_of_sample(bundle: ModelBundle, live: LiveFunctions) -> dict[str, Rate]:
    from models.splits import content_hashes  # imports pandas

    contents = content_hashes(bundle.sample, bundle.featurizer.specs)
    members: dict[str, list[BoolArray]] = {name: [] for name in live.functions.names}
    unknown: dict[str, list[BoolArray]] = {name: [] for name in live.functions.names}
    for start in range(0, len(bundle.sample), _BATCH_ROWS):
        applied = live.apply(bundle.sample[start : start + _BATCH_ROWS], update_breakers=False)
        for k, name in enumerate(applied.matrix.names):
            members[name].append(applied.matrix.member[:, k])
            unknown[name].append(applied.matrix.unknown[:, k])
        stopped = {stats.name for stats in applied.stats if stopped_reason(stats)}
        if stopped:
            live = live.with_functions(FunctionSet(each for each in live.functions if each.name not in stopped))
    rates = {}
    for name in live.functions.names:
        if members[name]:
            known = ~np.concatenate(unknown[name])
            member = np.concatenate(members[name])
            independent = effective_n(contents[known], member[known])
            rates[name] = Rate(int(member.sum()), int(known.sum()), independent)
    return rates


def run_baseline(
    references: Mapping[str, Rate], moved: Mapping[str, Rate], fingerprints: Mapping[str, str]
) -> Baseline:
    """Return the expected coverage once the version of a run is active.

    For a slice with a coverage alarm this is the coverage since its change; for any other the earlier
    reference is kept, since no alarm contradicts it.
    """
    expected = {**references, **{name: rate for name, rate in moved.items() if rate.n}}
    return {(name, fingerprints[name]): rate for name, rate in expected.items() if name in fingerprints}


def baseline_to_json(baseline: Baseline) -> list[dict[str, Any]]:
    """Return a baseline as JSON values."""
    return [
        {"slice": name, "fingerprint": fingerprint, **asdict(rate)} for (name, fingerprint), rate in baseline.items()
    ]


def baseline_of_run(run: Run | None) -> Baseline:
    """Return the baseline stored with a run; empty if there is no run or no baseline."""
    stored = (run.data or {}).get(BASELINE_KEY, ()) if run is not None else ()
    return {(e["slice"], e["fingerprint"]): Rate(e["count"], e["n"], e.get("independent")) for e in stored}
