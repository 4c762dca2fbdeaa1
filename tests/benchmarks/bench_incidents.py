"""How often the planted cause of many overlapping alarms comes first in its incident.

    python tests/benchmarks/bench_incidents.py --out FILE.json [--runs 100]

Every run has slices of its own (tests/benchmarks/incident_worlds.py), of which one changes. When its evidence reaches
the threshold of the detector, or some time later, all slices that alarm by then are grouped from samples of rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from incident_worlds import CHUNK_ROWS, WRONG, Bools, Change, Planted, World, alarmed

from service.monitor.incidents import RowSample, find_incidents

SEED, SLICES = 0, 1_000
MOST_CHUNKS = 10
FACTORS: Mapping[Change, Sequence[float]] = {
    "rise": (1.5, 2.0, 3.0, 6.0),
    "fall": (0.65, 0.4, 0.1, 0.001),
    "accuracy": (2.0, 4.0, 8.0),
}
FIRST, REACH = 3, 0.9
"""Places in which the cause counts as found, and the share of runs in which it is to be found."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one planted cause.

    Parameters
    ----------
    alarms, incidents
        Number of alarms, and of incidents that they make.
    place
        Place of the cause in its incident, from 1 on.
    moved
        Alarms of which the rows show that they moved with another slice.
    milliseconds
        Processor time of the grouping.
    """

    planted: Planted
    coverage: float
    alarms: int
    incidents: int
    place: int
    moved: int
    milliseconds: float


def columns(sample: RowSample, alarms: Bools) -> RowSample:
    """Return the sample for some slices."""
    return RowSample(sample.member[:, alarms], sample.exposed[:, alarms], sample.hit[:, alarms])


def run(world: World, rng: np.random.Generator, most_chunks: int = MOST_CHUNKS) -> Outcome:
    """Plant causes until one is found by its detector, and group the alarms."""
    slices, coverage = len(world.slices), world.coverage
    while True:
        change: Change = ("rise", "fall", "accuracy")[rng.integers(0, 3)]
        planted = Planted(int(rng.integers(0, slices)), change, float(rng.choice(FACTORS[change])))
        expected = np.full(slices, WRONG) if change == "accuracy" else coverage
        delay, later = None, int(rng.integers(1, 3))
        hits, exposed = np.zeros(slices), np.zeros(slices)
        for chunk in count(1):
            since = world.sample(CHUNK_ROWS, planted, change)
            hits, exposed = hits + since.hit.sum(axis=0), exposed + since.exposed.sum(axis=0)
            found, rising = alarmed(expected, hits, exposed, change)
            if found[planted.cause] and delay is None:
                delay = chunk
            if chunk == most_chunks or (delay and chunk >= later * delay):
                break
        if found[planted.cause] and found.sum() > FIRST:  # fewer alarms are in the first places anyway
            break
    before = world.sample(CHUNK_ROWS, None, change)
    began = time.process_time()
    wrong = np.full(int(found.sum()), change == "accuracy")
    incidents = find_incidents(columns(before, found), columns(since, found), rising[found].tolist(), wrong)
    spent = 1e3 * (time.process_time() - began)
    cause = int(found[: planted.cause].sum())
    (place,) = (k for each in incidents for k, one in enumerate(each, start=1) if one.alarm == cause)
    moved = sum(one.cause is not None and one.is_shown for each in incidents for one in each)
    share = float(coverage[planted.cause])
    return Outcome(planted, share, int(found.sum()), len(incidents), place, moved, spent)


def main() -> int:
    """Measure, print and write; 1 when the figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the results go, as JSON")
    parser.add_argument("--runs", type=int, default=100)
    options = parser.parse_args()
    outcomes = list[Outcome]()
    for seed in range(SEED, SEED + options.runs):
        rng = np.random.default_rng(seed)
        outcomes.append(one := run(World(SLICES, rng), rng))
        print(
            f"{one.planted.change:>8} x {one.planted.factor:<5} of a slice of {one.coverage:6.2%}: "
            f"{one.alarms:>3} alarms, {one.incidents} incidents, place {one.place}, {one.moved} moved with another",
            flush=True,
        )
    rows = [
        {
            "change": change,
            "runs": len(some),
            "alarms": int(np.median([one.alarms for one in some])) if some else 0,
            "first": sum(one.place == 1 for one in some),
            "found": sum(one.place <= FIRST for one in some),
            "one_incident": sum(one.incidents == 1 for one in some),
            "moved_share": round(sum(one.moved for one in some) / max(1, sum(one.alarms - 1 for one in some)), 3),
        }
        for change in FACTORS
        for some in [[one for one in outcomes if one.planted.change == change]]
    ]
    found = sum(one.place <= FIRST for one in outcomes)
    reached = found >= REACH * options.runs
    slowest = max(one.milliseconds for one in outcomes)
    said = "reached" if reached else "MISSED"
    print(f"in the first {FIRST}: {found} of {options.runs}: {said}; {slowest:.0f} ms at most")
    document = {
        "slices": SLICES,
        "rows": CHUNK_ROWS,
        "first": FIRST,
        "runs": options.runs,
        "results": rows,
        "found": {"count": found, "reach": REACH, "reached": reached},
        "slowest_ms": round(slowest),
        "most_alarms": max(one.alarms for one in outcomes),
    }
    options.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return int(not reached)


if __name__ == "__main__":
    sys.exit(main())
