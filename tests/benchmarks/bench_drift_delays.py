"""How many rows after a change its slice alarms, with clumps and season in the traffic.

    python tests/benchmarks/bench_drift_delays.py --out FILE.json [--streams 20] [--kinds A,B] [--cache DIR]

The baseline is learned for four weeks. Then every slice changes at six moments of the following week, each time from
the state that an unchanged stream has reached. A kind of traffic takes 3 minutes of a core.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from drift_streams import LEARNING_DAYS, REFERENCE_ROWS, THRESHOLD, Watch, cached, parser_of, shown, table, write
from traffic_streams import DAY_HOURS, HOUR_BLOCKS, Change, Hour, Traffic, TrafficStream

SEED = 11
COVERAGES, RATIOS = (0.002, 0.01, 0.05), (0.0, 0.5, 1.5, 2.0, 3.0)
KINDS = {
    "independent": Traffic(),
    "clumps x3": Traffic(clumps=3),
    "daily swing 40 %, clumps x3": Traffic(clumps=3, daily=0.4),
    "day and week, clumps x3": Traffic(clumps=3, daily=0.3, weekly=0.25),
}
STARTS = ((0, 3, 20), (1, 8, 0), (2, 12, 45), (3, 17, 10), (5, 22, 30), (6, 10, 5))
"""Day of the week, hour and minute of the changes."""

REACH_RATIO = 2.2
LONGEST_HOURS = 48

CELLS = [(coverage, ratio) for coverage in COVERAGES for ratio in RATIOS]


def divergence(q: float, p: float) -> float:
    """Return the Kullback-Leibler divergence of Bernoulli(q) from Bernoulli(p)."""
    return (q * np.log(q / p) if q else 0.0) + (1 - q) * np.log((1 - q) / (1 - p))


def run(traffic: Traffic, streams: int) -> dict[str, Any]:
    """Return for every cell the rows to the alarm of each stream, None if it was missed, and their bounds."""
    rates = np.repeat([coverage for coverage, _ in CELLS], streams)
    ratios = np.repeat([ratio for _, ratio in CELLS], streams)
    slices = [tuple(range(i * streams, (i + 1) * streams)) for i in range(len(CELLS))]
    watch, early = Watch(rates), 0
    calm = TrafficStream(traffic, rates, SEED)
    starts = {DAY_HOURS * (LEARNING_DAYS + day) + hour: 6 * minute for day, hour, minute in STARTS}
    delays: list[list[int | None]] = [[] for _ in CELLS]
    bounds: list[list[float]] = [[] for _ in CELLS]
    for hour in shown(str(traffic), calm.hours(max(starts) + 1)):
        at = hour.first // HOUR_BLOCKS
        if at in starts:
            block = hour.first + starts[at]
            changes = tuple(Change(block, own, ratio) for own, (_, ratio) in zip(slices, CELLS, strict=True))
            hours = TrafficStream(traffic, rates, SEED, changes).hours(at + LONGEST_HOURS, at)
            found = detected(copy.deepcopy(watch), hours, block, len(rates))
            before = (rates * calm.season(np.array([block]))[0]).tolist()
            for i, own in enumerate(slices):
                delays[i] += [found.get(k) for k in own]
                bounds[i] += [traffic.clumps * THRESHOLD / divergence(ratios[k] * before[k], before[k]) for k in own]
        early += sum(len(detections) for _, detections in watch.blocks(hour))
    return {"delays": delays, "bounds": bounds, "early": early}


def detected(watch: Watch, hours: Iterable[Hour], change: int, enough: int) -> dict[int, int]:
    """Return the rows from a change to the first detection of each slice, until enough slices have one."""
    found: dict[int, int] = {}
    rows = 0
    for hour in hours:
        for n, (block, detections) in zip(hour.n, watch.blocks(hour), strict=True):
            if block >= change:
                rows += int(np.max(n))
                for detection in detections:
                    found.setdefault(int(detection.drift.slice), rows)
        if len(found) >= enough:
            break
    return found


def results(kind: str, measured: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a kind of traffic, cell by cell."""
    rows = []
    for (coverage, ratio), delays, bounds in zip(CELLS, measured["delays"], measured["bounds"], strict=True):
        found = [rows for rows in delays if rows is not None]
        mean, bound = float(np.mean(found)), float(np.mean(bounds))
        reach = REACH_RATIO * bound + KINDS[kind].rows
        rows.append(
            {
                "kind": kind,
                "coverage": coverage,
                "ratio": ratio,
                "streams": len(delays),
                "mean_rows": round(mean),
                "error_rows": round(float(np.std(found) / np.sqrt(len(found)))),
                "p95_rows": round(float(np.percentile(found, 95))),
                "missed": len(delays) - len(found),
                "bound_rows": round(bound),
                "times_bound": round(mean / bound, 2),
                "reach_rows": round(reach),
                "reached": mean <= reach and len(found) == len(delays),
            }
        )
    return rows


def delay_table(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the table of the results."""
    said = (
        f"Rows from the change of a slice's coverage to its alarm, in blocks of {Traffic().rows:,} rows, with a "
        f"baseline learned for {LEARNING_DAYS} days after a reference of {REFERENCE_ROWS:,} rows; mean of "
        f"{rows[0]['streams']} streams with its standard error. phi log c / KL is the bound for a detector that "
        "knows both rates, has no tolerance and corrects for clumps of a known variance phi. The rate before is that "
        "of the hour."
    )
    head = ("traffic", "coverage", "mean", "95 %", "missed", "phi log c / KL", "mean / bound", "target", "met")
    body = (
        (
            row["kind"],
            f"{row['coverage']:.1%} x {row['ratio']:g}",
            f"{row['mean_rows']:,} ±{row['error_rows']:,}",
            f"{row['p95_rows']:,}",
            row["missed"],
            f"{row['bound_rows']:,}",
            row["times_bound"],
            f"<= {row['reach_rows']:,}",
            "yes" if row["reached"] else "**no**",
        )
        for row in rows
    )
    return table(said, head, body)


def main() -> int:
    """Measure, print and write; 1 when a figure is missed."""
    parser = parser_of(__doc__)
    parser.add_argument("--streams", type=int, default=20, help="of each change, at each of the six moments")
    parser.add_argument("--kinds", default="", help="separated by semicolons; all by default")
    options = parser.parse_args()
    rows, early = [], {}
    for kind in options.kinds.split(";") if options.kinds else KINDS:
        traffic = KINDS[kind]
        found = cached(
            options.cache,
            f"delays {kind}",
            lambda traffic=traffic: run(traffic, options.streams),
            traffic=asdict(traffic),
            streams=options.streams,
            starts=STARTS,
            seed=SEED,
        )
        rows += results(kind, found)
        early[kind] = found["early"]
    write(options.out, [delay_table(rows)], delays=rows, detections_before=early)
    return int(not all(row["reached"] for row in rows) or any(early.values()))


if __name__ == "__main__":
    sys.exit(main())
