"""How soon a changed coverage alarms, and what the watch costs.

    python tests/benchmarks/bench_drift.py --out FILE.json

The delays are those of a simulation that writes the detector down once more, stream by stream and alternative by
alternative, in plain floats. The committed tests/benchmarks/drift_delays.json is what this command wrote; a test
holds the watch of the service to it. The cost is that of the watch itself.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from service.monitor.drift_detector import DriftDetector, Observation, RateKey, log_threshold
from service.monitor.tolerance_band import coverage_band
from sfs.intervals import Rate

SEED = 0
SLICES, FALSE_ALARMS_A_MONTH = 1_000, 1.0
REFERENCE_ROWS, TOLERANCE = 200_000, 0.1
BLOCK_ROWS, CALM_BLOCKS, MOST_BLOCKS = 1_000, 20, 20_000
COVERAGES, RATIOS = (0.002, 0.01, 0.05), (0.0, 0.5, 1.5, 2.0, 3.0)
ODDS_UP, ODDS_DOWN = (1.1, 1.25, 1.5, 2.0, 3.0, 6.0), (0.9, 0.8, 0.65, 0.5, 0.25, 0.05)
REACH_RATIO, REACH_MS = 2.2, 1.0


@dataclass
class Process:
    """The sum of likelihood ratios of one alternative to a limit of the zone, over all starts."""

    limit: float
    alternative: float
    log_sum: float = field(default=-math.inf)

    def add(self, members: int, others: int) -> float:
        """Take in a block; return the logarithm of the sum."""
        ratio = members * math.log(self.alternative / self.limit)
        ratio += others * math.log((1 - self.alternative) / (1 - self.limit))
        larger = max(0.0, self.log_sum)
        self.log_sum = larger + math.log(math.exp(-larger) + math.exp(self.log_sum - larger)) + ratio
        return self.log_sum


def beyond(limit: float, factors: tuple[float, ...]) -> Iterator[Process]:
    """Yield a process for each alternative: the limit with its odds multiplied."""
    for factor in factors:
        odds = factor * limit / (1 - limit)
        yield Process(limit, odds / (1 + odds))


def delay(before: float, after: float, threshold: float, rng: np.random.Generator) -> int | None:
    """Return how many rows after the change a stream alarms; None if it never does, or did before."""
    zone = coverage_band(Rate(round(REFERENCE_ROWS * before), REFERENCE_ROWS), TOLERANCE, SLICES)
    processes = [*beyond(zone.lower, ODDS_DOWN), *beyond(zone.upper, ODDS_UP)]
    for block in range(CALM_BLOCKS + MOST_BLOCKS):
        members = int(rng.binomial(BLOCK_ROWS, before if block < CALM_BLOCKS else after))
        logs = [process.add(members, BLOCK_ROWS - members) for process in processes]
        largest = max(logs)
        mixture = largest + math.log(sum(math.exp(each - largest) for each in logs) / len(logs))
        if mixture >= threshold:
            return (block + 1 - CALM_BLOCKS) * BLOCK_ROWS if block >= CALM_BLOCKS else None
    return None


def divergence(q: float, p: float) -> float:
    """Return the Kullback-Leibler divergence of Bernoulli(q) from Bernoulli(p)."""
    return (q * math.log(q / p) if q else 0.0) + (1 - q) * math.log((1 - q) / (1 - p))


def delays(coverage: float, ratio: float, streams: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return one row of results; the reference holds just the expected number of members."""
    threshold = log_threshold(SLICES, FALSE_ALARMS_A_MONTH)
    bound = threshold / divergence(ratio * coverage, coverage)
    each = [delay(coverage, ratio * coverage, threshold, rng) for _ in range(streams)]
    found = [rows for rows in each if rows is not None]
    mean, reach = statistics.fmean(found), REACH_RATIO * bound + BLOCK_ROWS
    return {
        "coverage": coverage,
        "ratio": ratio,
        "mean_rows": round(mean),
        "p95_rows": round(float(np.percentile(found, 95))),
        "missed": streams - len(found),
        "bound_rows": round(bound),
        "times_bound": round(mean / bound, 2),
        "reach_rows": round(reach),
        "reached": mean <= reach and len(found) == streams,
    }


def block_ms(rng: np.random.Generator, blocks: int = 300) -> float:
    """Return the median time of a block of all slices, which all stay as they are."""
    coverage = np.exp(rng.uniform(math.log(0.002), math.log(0.3), SLICES))
    keys = [RateKey(f"slice{k}", f"f{k}", "coverage") for k in range(SLICES)]
    members = rng.binomial(REFERENCE_ROWS, coverage).tolist()
    zones = [coverage_band(Rate(count, REFERENCE_ROWS), TOLERANCE, SLICES) for count in members]
    watch = DriftDetector(dict(zip(keys, zones, strict=True)), log_threshold(SLICES, FALSE_ALARMS_A_MONTH))
    start, spent = datetime(2026, 1, 1, tzinfo=UTC), []
    for _ in range(blocks):
        counts = [Rate(count, BLOCK_ROWS) for count in rng.binomial(BLOCK_ROWS, coverage).tolist()]
        block = Observation(start, start + timedelta(seconds=10), dict(zip(keys, counts, strict=True)))
        began = time.perf_counter()
        watch.advance(block)
        spent.append(1e3 * (time.perf_counter() - began))
        start = block.end
    return statistics.median(spent)


def main() -> int:
    """Measure, print and write; 1 when a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the results go, as JSON")
    parser.add_argument("--streams", type=int, default=400, help="of each change")
    options = parser.parse_args()
    rng = np.random.default_rng(SEED)
    results = [delays(p, r, options.streams, rng) for p in COVERAGES for r in RATIOS]
    cost = round(block_ms(rng), 2)
    for row in results:
        print(
            f"{row['coverage']:>6} x {row['ratio']:<3}  mean {row['mean_rows']:>7,}  p95 {row['p95_rows']:>7,}  "
            f"{row['times_bound']:>5} x bound {row['bound_rows']:>6,}  missed {row['missed']}  "
            f"to reach {row['reach_rows']:>7,}: {'reached' if row['reached'] else 'MISSED'}"
        )
    print(f"a block of {SLICES:,} slices: {cost} ms (<= {REACH_MS} ms)")
    document = {
        "slices": SLICES,
        "false_alarms_a_month": FALSE_ALARMS_A_MONTH,
        "reference_rows": REFERENCE_ROWS,
        "tolerance": TOLERANCE,
        "block_rows": BLOCK_ROWS,
        "streams": options.streams,
        "delays": results,
        "cost": {"block_ms": cost, "reach_ms": REACH_MS, "reached": cost <= REACH_MS},
    }
    options.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return int(not all(row["reached"] for row in [*results, document["cost"]]))


if __name__ == "__main__":
    sys.exit(main())
