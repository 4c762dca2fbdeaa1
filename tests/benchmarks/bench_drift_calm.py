"""How often calm traffic alarms: every kind of traffic for a month, the boundary of the band, and the ablations.

    python tests/benchmarks/bench_drift_calm.py --out FILE.json [--slices 1000] [--days 58] [--kinds A,B] [--cache DIR]

A run of a kind at 1,000 slices takes 8 minutes of a core. Runs in the cache are not repeated. A short version is
--slices 60 --days 9 --kinds "all at once".
"""

from __future__ import annotations

import itertools
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from drift_streams import (
    ABLATIONS,
    DAY_BLOCKS,
    LEARNING_DAYS,
    MONTH_DAYS,
    REFERENCE_ROWS,
    SLICES,
    TOLERANCE,
    Watch,
    alarms,
    cached,
    parser_of,
    shown,
    side_by_side,
    start_of,
    table,
    write,
)
from traffic_streams import DAY_HOURS, HOUR_BLOCKS, KINDS, Change, Traffic, TrafficStream, spread_rates

from service.decisions import RateKey
from service.monitor.drift_detector import DriftDetector
from service.monitor.tolerance_band import coverage_band
from sfs.intervals import Rate

SEED = 7
MOST_ALARMS = 1
LEARNED = {"4 weeks": LEARNING_DAYS, "1 day": 1}
SHIFTED, SHIFT = "a shift of 5 %", 1.05
"""Traffic whose rates grow by half of the tolerance once the service has learned."""
ABLATED: dict[str, Traffic] = {
    **{kind: KINDS[kind] for kind in ("day and week", "clumps x3", "hourly wander 4 %", "bursts")},
    SHIFTED: KINDS["independent"],
}
ENOUGH_ALARMS = 200
"""After so many alarms a run of an ablation ends."""

BOUNDARY_C, BOUNDARY_BLOCKS, BOUNDARY_STREAMS = 500, 20_000, 200
BOUNDARY_ROWS, BOUNDARY_COVERAGE, BOUNDARY_REACH = (1, 10, 100), 0.01, (10, 40)

Alarms = list[dict[str, Any]]


def run(traffic: Traffic, slices: int, days: int) -> Alarms:
    """Return the alarms of so many days, with the rate of the slice."""
    rates = spread_rates(slices)
    hours = shown(f"{slices} slices", TrafficStream(traffic, rates, SEED).hours(DAY_HOURS * days))
    return [{**asdict(alarm), "rate": float(rates[alarm.slice])} for alarm in alarms(Watch(rates), hours)]


def measured(kind: str, learned: int, slices: int, days: int, cache: Path | None) -> Alarms:
    """Return the alarms of a kind after so many days of learning; with halves of the volume ten days later."""
    traffic = KINDS[kind]
    if traffic.halved_after_hours is not None:
        traffic = replace(traffic, halved_after_hours=DAY_HOURS * (learned + 10))
    else:
        learned = LEARNING_DAYS  # one run for both tables
    days = min(days, learned + MONTH_DAYS)
    what = {"traffic": asdict(traffic), "slices": slices, "days": days, "seed": SEED}
    found: Alarms = cached(cache, f"calm {kind}", lambda: run(traffic, slices, days), **what)
    print(f"{kind}: {len(found)} alarms in {days} days", flush=True)
    return found


def ablated(slices: int, learned: int, days: int) -> dict[str, dict[str, int]]:
    """Return for every ablation the alarms by kind of traffic, in so many days after the service has learned."""
    kinds = list(ABLATED)
    shift = Change(DAY_HOURS * HOUR_BLOCKS * learned, tuple(range(slices)), SHIFT)
    streams = [
        TrafficStream(traffic, spread_rates(slices), SEED, (shift,) if kind == SHIFTED else ())
        for kind, traffic in ABLATED.items()
    ]
    watch = Watch(np.tile(spread_rates(slices), len(kinds)))
    for hour in shown("ablations", side_by_side(streams, DAY_HOURS * learned)):
        for _ in watch.blocks(hour):
            pass
    found = {}
    for name in ABLATIONS:
        hours = side_by_side(streams, DAY_HOURS * (learned + days), DAY_HOURS * learned)
        alarmed = (kinds[alarm.slice // slices] for alarm in alarms(watch.without(name), shown(name, hours)))
        counted = Counter(itertools.islice(alarmed, ENOUGH_ALARMS))
        found[name] = {kind: counted[kind] for kind in kinds}
    return found


def month(found: Alarms, learned: int) -> Alarms:
    """Return the alarms of the thirty days after the learning."""
    return [each for each in found if learned <= each["block"] // DAY_BLOCKS < learned + MONTH_DAYS]


def boundary(rows: int) -> float:
    """Return the mean number of alarms of rates at exactly the upper limit of their band, at a threshold of 500."""
    rng = np.random.default_rng(SEED)
    band = coverage_band(Rate(round(REFERENCE_ROWS * BOUNDARY_COVERAGE), REFERENCE_ROWS), TOLERANCE, SLICES)
    keys = [RateKey(str(k), "f", "coverage") for k in range(BOUNDARY_STREAMS)]
    detector = DriftDetector(dict.fromkeys(keys, band), math.log(BOUNDARY_C))
    n, unknown = np.full(BOUNDARY_STREAMS, rows), np.zeros(BOUNDARY_STREAMS, np.int64)
    found = 0
    for block in range(BOUNDARY_BLOCKS):
        members = rng.binomial(rows, band.upper, BOUNDARY_STREAMS)
        found += len(detector.advance_arrays(start_of(block), start_of(block + 1), members, n, unknown))
    return found / BOUNDARY_STREAMS


def calm_rows(kinds: Sequence[str], slices: int, days: int, cache: Path | None) -> list[dict[str, Any]]:
    """Return kind by kind the alarms of a month, after four weeks and after a day of learning."""
    rows = []
    for kind in kinds:
        row: dict[str, Any] = {"kind": kind, "slices": slices}
        for name, learned in LEARNED.items():
            found = measured(kind, learned, slices, days, cache)
            row[name] = month(found, learned)
        row["reached"] = all(len(row[name]) <= MOST_ALARMS for name in LEARNED)
        rows.append(row)
    return rows


def ablation_rows(slices: int, days: int, cache: Path | None) -> list[dict[str, Any]]:
    """Return the alarms of the ablations by kind of traffic; each must alarm more often than a month may."""
    learned, days = min(days, LEARNING_DAYS), min(days, MONTH_DAYS)
    what = {"kinds": list(ABLATED), "slices": slices, "learned": learned, "days": days, "seed": SEED}
    found = cached(cache, "ablations", lambda: ablated(slices, learned, days), **what)
    return [
        {"ablation": name, **kinds, "reached": (sum(kinds.values()) > MOST_ALARMS) == bool(name)}
        for name, kinds in found.items()
    ]


def main() -> int:
    """Measure, print and write; 1 when a figure is missed."""
    parser = parser_of(__doc__)
    parser.add_argument("--slices", type=int, default=SLICES)
    parser.add_argument("--days", type=int, default=LEARNING_DAYS + MONTH_DAYS, help="of every run, at most")
    parser.add_argument("--kinds", default=",".join(KINDS), help="comma separated; all by default")
    parser.add_argument("--ablation-slices", type=int, default=60, help="of each of the kinds that are ablated")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    if strangers := [kind for kind in kinds if kind not in KINDS]:
        parser.error(f"no traffic {strangers[0]!r}; there is: {', '.join(KINDS)}")
    calm = calm_rows(kinds, options.slices, options.days, options.cache)
    without = ablation_rows(options.ablation_slices, options.days, options.cache)
    low, high = BOUNDARY_REACH
    limits = [{"rows": n, "alarms": boundary(n)} for n in BOUNDARY_ROWS]
    for limit in limits:
        limit["reached"] = low <= limit["alarms"] <= high
    said = {
        "calm": f"Alarms over all slices in the {MONTH_DAYS} days after the learning, on traffic that does not change.",
        "boundary": (
            f"Alarms of a rate at exactly the upper limit of its band, in {BOUNDARY_BLOCKS:,} blocks at a threshold "
            f"of {BOUNDARY_C}; mean of {BOUNDARY_STREAMS} streams. The bound is {high}."
        ),
        "ablations": (
            f"Alarms of {options.ablation_slices} slices of each traffic in {min(options.days, MONTH_DAYS)} days, once "
            f"a part of the method is left out, at most {ENOUGH_ALARMS}; the service has learned "
            f"{min(options.days, LEARNING_DAYS)} days before."
        ),
    }
    tables = [
        table(
            said["calm"],
            ("traffic", "slices", *(f"learned {name}" for name in LEARNED), "target", "met"),
            (
                (
                    row["kind"],
                    f"{row['slices']:,}",
                    *(len(row[name]) for name in LEARNED),
                    f"<= {MOST_ALARMS} each",
                    "yes" if row["reached"] else "**no**",
                )
                for row in calm
            ),
        ),
        table(
            said["ablations"],
            ("left out", *ABLATED, "target, all", "met"),
            (
                (
                    row["ablation"] or "nothing",
                    *(row[kind] for kind in ABLATED),
                    f"> {MOST_ALARMS}" if row["ablation"] else f"<= {MOST_ALARMS}",
                    "yes" if row["reached"] else "**no**",
                )
                for row in without
            ),
        ),
        table(
            said["boundary"],
            ("rows a block", "alarms", "target", "met"),
            (
                (row["rows"], f"{row['alarms']:.1f}", f"{low} to {high}", "yes" if row["reached"] else "**no**")
                for row in limits
            ),
        ),
    ]
    write(options.out, tables, calm=calm, ablations=without, boundary=limits)
    return int(not all(row["reached"] for row in [*calm, *without, *limits]))


if __name__ == "__main__":
    sys.exit(main())
