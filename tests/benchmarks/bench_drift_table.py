"""Changes in the first week, with and without the season of a training table: time to the alarm.

    python tests/benchmarks/bench_drift_table.py --out FILE.json [--streams 5] [--days 8.5]

Traffic in clumps, with a day of 30 % and weekends a fifth lower; a table of four weeks with 500 rows an hour. Some
slices do not change, but their season is weaker or stronger than that of the table, or an hour later. A run takes
4 minutes of a core.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
from bench_drift_first_week import cell
from drift_streams import BLOCK, SLICES, SWING, THRESHOLD, TOLERANCE, FloatArray, parser_of, start_of, table, write
from traffic_streams import HOUR_BLOCKS, WEEK_HOURS

from models.table_season import TableSeason
from service.decisions import RateKey
from service.monitor.drift_detector import DriftDetector
from service.monitor.live_baseline import LiveBaseline
from service.monitor.season import TableProfile
from service.monitor.tolerance_band import coverage_band
from sfs.intervals import Rate
from sfs.matrix import SliceMatrix

SEED, ROWS, VARIANCE, TABLE_ROWS, WEEKS = 5, 1_000, 3.0, 500, 4
COVERAGES, RATIOS, DAYS, AT_HOUR = (0.05, 0.2), {"halved": 0.5, "x 1.5": 1.5, "doubled": 2.0}, (0, 2, 6), 10
CALM = [(coverage, power, late) for coverage in COVERAGES for power in (0.6, 1.0, 1.3) for late in (0, 1)]
CELLS = [(coverage, name, day) for coverage in COVERAGES for name in RATIOS for day in DAYS]


def factors(hour: float, power: FloatArray, late: FloatArray) -> FloatArray:
    """Return the season at hours since Monday, with another swing and later by hours."""
    at = (hour - late) % WEEK_HOURS
    day = 1 + 0.3 * np.sin(2 * np.pi * (at - 8) / 24)
    return np.asarray((day * np.where(at >= 120, 0.85, 1.06)) ** power)


def table_of(rates: FloatArray, rng: np.random.Generator) -> tuple[TableProfile, list[Rate]]:
    """Return season and coverages of a training table."""
    hours = np.repeat(np.arange(WEEKS * WEEK_HOURS), TABLE_ROWS)
    times = pd.Series(pd.Timestamp(start_of(0)) + pd.to_timedelta(hours, unit="h"))
    none = np.zeros(len(rates))
    p = np.stack([rates * factors(float(hour), none + 1, none) for hour in range(WEEK_HOURS)])  # [168, K]
    member = rng.random((len(hours), len(rates)), np.float32) < p.astype(np.float32)[hours % WEEK_HOURS]
    names = [str(k) for k in range(len(rates))]
    season = TableSeason.of(times, "UTC", SliceMatrix(names, member, np.zeros_like(member)))
    assert season is not None
    members = np.array([season.members[name] for name in names], np.float32).T
    rows = np.tile(np.array(season.rows, np.float32)[:, None], len(names))
    profile = TableProfile.of(members, rows, np.array([season.dispersion[name] for name in names]))
    return profile, [Rate(count, len(hours)) for count in member.sum(axis=0).tolist()]


def main() -> int:
    """Measure, print and write; there is no target."""
    parser = parser_of(__doc__)
    parser.add_argument("--streams", type=int, default=5, help="of each change on each day, and of each calm season")
    parser.add_argument("--days", type=float, default=8.5, help="of live traffic")
    options = parser.parse_args()
    rng, streams = np.random.default_rng(SEED), options.streams
    calm = np.repeat(np.array(CALM), streams, axis=0)
    rates = np.concatenate([np.repeat([coverage for coverage, _, _ in CELLS], streams), calm[:, 0]])
    changed = len(CELLS) * streams
    power, late = np.concatenate([np.ones(changed), calm[:, 1]]), np.concatenate([np.zeros(changed), calm[:, 2]])
    ratio = np.concatenate([np.repeat([RATIOS[name] for _, name, _ in CELLS], streams), np.ones(len(calm))])
    from_hour = np.full(len(rates), np.inf)
    from_hour[:changed] = np.repeat([24 * day + AT_HOUR for _, _, day in CELLS], streams)
    profile, references = table_of(rates, rng)
    keys = [RateKey(str(k), "f", "coverage") for k in range(len(rates))]
    bands = [coverage_band(rate, TOLERANCE, SLICES) for rate in references]
    detectors = {
        name: DriftDetector(
            dict(zip(keys, bands, strict=True)),
            THRESHOLD,
            LiveBaseline(keys, bands, TOLERANCE, SWING, table=season),
        )
        for name, season in (("swing", None), ("table", profile))
    }
    found: dict[str, dict[int, float]] = {name: {} for name in detectors}
    early = dict.fromkeys(detectors, 0)
    n, unknown, size = np.full(len(rates), ROWS), np.zeros(len(rates), np.int64), ROWS / (VARIANCE - 1)
    for block in range(round(24 * options.days * HOUR_BLOCKS)):
        hour, at = block / HOUR_BLOCKS, start_of(block)
        p = rates * factors(hour, power, late) * np.where(hour >= from_hour, ratio, 1.0)
        members = rng.binomial(n, rng.beta(p * size, (1 - p) * size))
        for name, detector in detectors.items():
            for detection in detector.advance_arrays(at, at + BLOCK, members, n, unknown):
                k = int(detection.drift.slice)
                if hour < from_hour[k]:
                    early[name] += 1
                else:
                    found[name].setdefault(k, hour + 1 / HOUR_BLOCKS - from_hour[k])
    measured = {
        name: [[hours.get(i * streams + k) for k in range(streams)] for i in range(len(CELLS))]
        for name, hours in found.items()
    }
    body = [
        (f"{coverage:.0%}", change, name, *(cell(measured[name][CELLS.index((coverage, change, day))]) for day in DAYS))
        for coverage in COVERAGES
        for change in RATIOS
        for name in detectors
    ]
    said = (
        f"Time from a change at {AT_HOUR}:00 of the first week to the alarm, median and most of {streams} streams. "
        f"Alarms without a change: {early['table']} with the season of the table, {early['swing']} without."
    )
    head = ("coverage", "change", "season", *(f"on day {day + 1}" for day in DAYS))
    write(options.out, [table(said, head, body)], cells=CELLS, measured=measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
