"""What is expected of a version that a run has made: the traffic that it was made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from service.decisions import Run
from sfs.intervals import Rate

Baseline: TypeAlias = dict[tuple[str, str], Rate]
"""By name and fingerprint of the function: the coverage that is expected."""

DATA_KEY = "baseline"
"""Under which it stands in the data of a run."""


def baseline(
    references: Mapping[str, Rate], moved: Mapping[str, Rate], fingerprints: Mapping[str, str]
) -> Baseline:
    """Return what is expected once a run's version is in force.

    Of a slice that has moved that is what was counted since; of any other what was expected before, for no
    alarm has spoken against it.
    """
    expected = {**references, **{name: rate for name, rate in moved.items() if rate.n}}
    return {(name, fingerprints[name]): rate for name, rate in expected.items() if name in fingerprints}


def to_json(rates: Baseline) -> list[dict[str, Any]]:
    """Return a baseline as JSON values."""
    return [
        {"slice": name, "fingerprint": fingerprint, "count": rate.count, "n": rate.n}
        for (name, fingerprint), rate in rates.items()
    ]


def of_run(run: Run | None) -> Baseline:
    """Return the baseline that a run has left; none where there is no run, or it left none."""
    kept = (run.data or {}).get(DATA_KEY, ()) if run is not None else ()
    return {(each["slice"], each["fingerprint"]): Rate(each["count"], each["n"]) for each in kept}
