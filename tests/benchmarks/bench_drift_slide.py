"""A slide of a percent a day: how far the level has moved at the alarm, and silence once the new level is normal.

    python tests/benchmarks/bench_drift_slide.py --out FILE.json [--streams 20] [--cache DIR]

Four weeks are learned, then the level slides for sixty days. A week after its end the rate of that week is taken as
the new normal, and a month follows. Blocks are merged to minutes, since nothing here takes seconds. A run takes
3 minutes of a core.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import numpy as np
from drift_streams import DAY_BLOCKS, LEARNING_DAYS, MONTH_DAYS, Watch, alarms, cached, parser_of, shown, table, write
from traffic_streams import BLOCK_SECONDS, DAY_HOURS, WEEK_HOURS, Change, Traffic, TrafficStream

from sfs.intervals import Rate

SEED = 13
TRAFFIC = Traffic(clumps=3, daily=0.3, weekly=0.25)
COVERAGES, DAILY = (0.01, 0.05, 0.2), (0.99, 1.01)
SLIDE_DAYS, MOST_MOVED = 60, 0.25
MINUTE = 60 // BLOCK_SECONDS
CELLS = [(coverage, daily) for coverage in COVERAGES for daily in DAILY]


def run(streams: int) -> dict[str, Any]:
    """Return the block of the first alarm of each stream of a cell; and the alarms before the slide and after it."""
    rates = np.repeat([coverage for coverage, _ in CELLS], streams)
    slices = [tuple(range(i * streams, (i + 1) * streams)) for i in range(len(CELLS))]
    changes = tuple(
        Change(LEARNING_DAYS * DAY_BLOCKS, own, daily**SLIDE_DAYS, SLIDE_DAYS * DAY_BLOCKS)
        for own, (_, daily) in zip(slices, CELLS, strict=True)
    )
    watch, stream = Watch(rates, merged=MINUTE), TrafficStream(TRAFFIC, rates, SEED, changes)
    slide_end = DAY_HOURS * (LEARNING_DAYS + SLIDE_DAYS)
    first: dict[int, int] = {}
    early = 0
    for alarm in alarms(watch, shown("slide", stream.hours(slide_end))):
        early += alarm.block < LEARNING_DAYS * DAY_BLOCKS
        first.setdefault(alarm.slice, alarm.block)
    members, rows = np.zeros(len(rates), np.int64), 0
    for hour in stream.hours(slide_end + WEEK_HOURS, slide_end):
        members += hour.members.sum(axis=0)
        rows += int(hour.n.sum())
        for _ in watch.blocks(hour):
            pass
    watch.baseline.rebase({key: Rate(count, rows) for key, count in zip(watch.keys, members.tolist(), strict=True)})
    watch.detector.restart(watch.keys)
    after_week = slide_end + WEEK_HOURS
    late = [asdict(alarm) for alarm in alarms(watch, stream.hours(after_week + DAY_HOURS * MONTH_DAYS, after_week))]
    return {"first": [[first.get(k) for k in own] for own in slices], "early": early, "late": late}


def results(measured: dict[str, Any], streams: int) -> list[dict[str, Any]]:
    """Return the rows cell by cell."""
    rows = []
    for i, (coverage, daily) in enumerate(CELLS):
        found = [block for block in measured["first"][i] if block is not None]
        days = np.array(found) / DAY_BLOCKS - LEARNING_DAYS
        moved = np.abs(daily**days - 1).tolist()
        late = sum(alarm["slice"] // streams == i for alarm in measured["late"])
        most = max(moved, default=None)
        rows.append(
            {
                "coverage": coverage,
                "daily": daily,
                "streams": streams,
                "missed": streams - len(found),
                "mean_days": float(days.mean()) if found else None,
                "mean_moved": float(np.mean(moved)) if found else None,
                "most_moved": most,
                "alarms_after": late,
                "reached": len(found) == streams and most < MOST_MOVED and not late,
            }
        )
    return rows


def main() -> int:
    """Measure, print and write; 1 when a figure is missed."""
    parser = parser_of(__doc__)
    parser.add_argument("--streams", type=int, default=20, help="of each coverage and direction")
    options = parser.parse_args()
    measured = cached(
        options.cache,
        "slide",
        lambda: run(options.streams),
        traffic=asdict(TRAFFIC),
        streams=options.streams,
        seed=SEED,
    )
    rows = results(measured, options.streams)
    said = (
        f"A slide of the level by 1 % a day for {SLIDE_DAYS} days, after {LEARNING_DAYS} days of learning, in traffic "
        "with day, week and clumps; moved is the change of the level at the first alarm. A week after the slide the "
        f"new level is accepted as normal; the alarms of the {MONTH_DAYS} days after that are counted. "
        f"{options.streams} streams a row, fed minute by minute; {measured['early']} alarms before the slide."
    )
    head = ("coverage", "days to the alarm", "moved, mean", "moved, most", "missed", "alarms after", "target", "met")
    body = (
        (
            f"{row['coverage']:.0%} {'+' if row['daily'] > 1 else '-'}1 % a day",
            *(
                "-" if row[name] is None else f"{row[name]:{form}}"
                for name, form in (("mean_days", ".1f"), ("mean_moved", ".1%"), ("most_moved", ".1%"))
            ),
            row["missed"],
            row["alarms_after"],
            f"< {MOST_MOVED:.0%}, 0 after",
            "yes" if row["reached"] else "**no**",
        )
        for row in rows
    )
    write(options.out, [table(said, head, body)], slide=rows, late=measured["late"])
    return int(not all(row["reached"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
