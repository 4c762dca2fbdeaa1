"""Gross changes in the first week, while the season is being learned: hours to the alarm.

    python tests/benchmarks/bench_drift_first_week.py --out FILE.json [--streams 20] [--cache DIR]

Slices vanish, double and triple at ten in the morning of the first day, when only the reference is known, of the third
and of the seventh day. A run takes 3 minutes of a core.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import numpy as np
from drift_streams import DAY_BLOCKS, Watch, cached, parser_of, shown, table, write
from traffic_streams import DAY_HOURS, HOUR_BLOCKS, KINDS, Change, Traffic, TrafficStream

SEED = 17
TRAFFIC = ("independent", "all at once")
COVERAGES, RATIOS, DAYS, AT_HOUR = (0.01, 0.05), {"gone": 0.0, "doubled": 2.0, "tripled": 3.0}, (0, 2, 6), 10
LAST_DAYS = 3
"""Days after the last change until which an alarm counts."""

CELLS = [(coverage, name, day) for coverage in COVERAGES for name in RATIOS for day in DAYS]


def run(traffic: Traffic, streams: int) -> dict[str, Any]:
    """Return for every cell the hours to the alarm of each stream, None if missed; and what was detected before."""
    rates = np.repeat([coverage for coverage, _, _ in CELLS], streams)
    starts = np.repeat([day * DAY_BLOCKS + AT_HOUR * HOUR_BLOCKS for _, _, day in CELLS], streams)
    slices = [tuple(range(i * streams, (i + 1) * streams)) for i in range(len(CELLS))]
    changes = tuple(
        Change(day * DAY_BLOCKS + AT_HOUR * HOUR_BLOCKS, own, RATIOS[name])
        for own, (_, name, day) in zip(slices, CELLS, strict=True)
    )
    watch, first, early = Watch(rates), {}, []
    hours = DAY_HOURS * (max(DAYS) + LAST_DAYS) + AT_HOUR
    for hour in shown("first week", TrafficStream(traffic, rates, SEED, changes).hours(hours)):
        for block, detections in watch.blocks(hour):
            for k, drift in ((int(detection.drift.slice), detection.drift) for detection in detections):
                if block < starts[k]:
                    early.append((block / DAY_BLOCKS, k, drift.direction, drift.observed.count, drift.observed.n))
                elif block < starts[k] + LAST_DAYS * DAY_BLOCKS:
                    first.setdefault(k, (block + 1 - int(starts[k])) / HOUR_BLOCKS)
    return {"hours": [[first.get(k) for k in own] for own in slices], "early": early}


def duration(hours: float) -> str:
    """Return a time in seconds, minutes or hours."""
    if hours < 1 / 30:
        return f"{3_600 * hours:.0f} s"
    return f"{60 * hours:.0f} min" if hours < 1 else f"{hours:.2g} h"


def cell(hours: list[float | None]) -> str:
    """Return median, largest, and share of the alarms."""
    found = [each for each in hours if each is not None]
    if not found:
        return "none"
    said = f"{duration(float(np.median(found)))} (most {duration(max(found))})"
    return said if len(found) == len(hours) else f"{said}, {len(found)} of {len(hours)}"


def main() -> int:
    """Measure, print and write; there is no target."""
    parser = parser_of(__doc__)
    parser.add_argument("--streams", type=int, default=20, help="of each change on each day")
    options = parser.parse_args()
    measured = {
        kind: cached(
            options.cache,
            f"first week {kind}",
            lambda kind=kind: run(KINDS[kind], options.streams),
            traffic=asdict(KINDS[kind]),
            streams=options.streams,
            seed=SEED,
        )
        for kind in TRAFFIC
    }
    body = [
        (
            kind,
            f"{coverage:.0%}",
            name,
            *(cell(measured[kind]["hours"][CELLS.index((coverage, name, d))]) for d in DAYS),
        )
        for kind in TRAFFIC
        for coverage in COVERAGES
        for name in RATIOS
    ]
    early = ", ".join(f"{len(measured[kind]['early'])} on {kind!r}" for kind in TRAFFIC)
    said = (
        f"Time from a change in the first week to the alarm, median and most of {options.streams} streams; an alarm "
        f"counts for {LAST_DAYS} days. The changes begin at {AT_HOUR}:00. Detections before the change: {early}."
    )
    head = ("traffic", "coverage", "change", *(f"on day {day + 1}" for day in DAYS))
    write(options.out, [table(said, head, body)], cells=CELLS, measured=measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
