"""What the monitor costs: a block of a thousand slices, their state, restarts in mid-stream, and the replay of a month.

python tests/benchmarks/bench_drift_cost.py --out FILE.json [--slices 1000]

The counts of the month are a table of 0.4 GB. It takes 8 minutes of a core.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from datetime import UTC
from pathlib import Path

import numpy as np
import pyarrow as pa
from drift_streams import BLOCK, MONTH_DAYS, SLICES, Watch, parser_of, shown, start_of, table, write
from pyarrow import parquet
from traffic_streams import DAY_HOURS, HOUR_BLOCKS, KINDS, Change, Hour, TrafficStream, spread_rates

from service.monitor.drift_detector import Observation

SEED = 19
REACH_MS, REACH_BYTES = 1.0, 2_048
REACH_REPLAY_SECONDS, REACH_REPLAY_MIB = 600, 1_024
LEARNING_HOURS, TIMED_HOURS = 26, 2
STORED_SLICES, STORED_DAYS = 100, 9
RESTARTS, RESTARTED_SLICES, RESTARTED_DAYS = 3, 40, 3


def array_ms(watch: Watch, hour: Hour) -> list[float]:
    """Return the processor time of each block as arrays."""
    spent, began = [], time.process_time()
    for _ in watch.blocks(hour):
        now = time.process_time()
        spent.append(1e3 * (now - began))
        began = now
    return spent


def observation_ms(watch: Watch, hour: Hour) -> list[float]:
    """Return the processor time of each block as an observation, without the time in which it is made."""
    spent, keys = [], tuple(watch.zones)
    for i, (n, members) in enumerate(zip(hour.n, hour.members, strict=True)):
        at = start_of(hour.first + i)
        rows = np.full_like(members, n)
        block = Observation(at, at + BLOCK, keys, np.stack([members, rows, np.zeros_like(rows)]))
        began = time.process_time()
        watch.detector.advance(block)
        spent.append(1e3 * (time.process_time() - began))
    return spent


def stored_bytes() -> tuple[float, float]:
    """Return the stored bytes of a slice's detector and baseline, once every hour of the week has been learned."""
    rates = spread_rates(STORED_SLICES, SEED)
    watch = Watch(rates)
    for hour in shown("stored", TrafficStream(KINDS["all at once"], rates, SEED).hours(STORED_DAYS * DAY_HOURS)):
        for _ in watch.blocks(hour):
            pass
    return len(watch.detector.to_bytes()) / STORED_SLICES, len(watch.baseline.to_bytes()) / STORED_SLICES


def restarted_alike() -> tuple[int, int]:
    """Return the detections of a stream with changes, and those that a watch restarted three times has other."""
    rng = np.random.default_rng(SEED)
    rates = spread_rates(RESTARTED_SLICES, SEED)
    blocks = RESTARTED_DAYS * DAY_HOURS * HOUR_BLOCKS
    changes = tuple(
        Change(int(rng.integers(blocks // 3, blocks)), (k,), float(rng.choice([0.3, 1.7, 3])))
        for k in range(0, RESTARTED_SLICES, 2)
    )
    at = set(rng.integers(0, blocks, RESTARTS).tolist())
    whole, again = Watch(rates), Watch(rates)
    found = other = 0
    for hour in TrafficStream(KINDS["all at once"], rates, SEED, changes).hours(RESTARTED_DAYS * DAY_HOURS):
        for (block, expected), (_, got) in zip(whole.blocks(hour), again.blocks(hour), strict=True):
            found += len(expected)
            other += expected != got
            if block in at:
                again.restart()
    return found, other


def write_counts(path: Path, stream: TrafficStream, slices: int) -> None:
    """Write the table of counts of a month, as a replay reads it."""
    names = [f"slice_{k}" for k in range(slices)]
    kinds = [("start", pa.timestamp("us", UTC)), ("known", pa.int32()), *((name, pa.int32()) for name in names)]
    with parquet.ParquetWriter(path, pa.schema(kinds)) as writer:
        day: list[Hour] = []
        for hour in shown("counts", stream.hours(MONTH_DAYS * DAY_HOURS)):
            day.append(hour)
            if len(day) == DAY_HOURS:
                n, members = (np.concatenate([getattr(each, name) for each in day]) for name in ("n", "members"))
                starts = [start_of(day[0].first + i) for i in range(len(n))]
                columns = [starts, n.astype(np.int32), *members.T.astype(np.int32)]
                writer.write_table(pa.table(columns, schema=pa.schema(kinds)))
                day = []


def replayed(slices: int) -> tuple[float, float]:
    """Return the processor seconds of the replay of a month, and the largest resident memory, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        write_counts(
            Path(folder) / "month.parquet", TrafficStream(KINDS["all at once"], spread_rates(slices), SEED), slices
        )
        words = [sys.executable, "-m", "service", "drift", "replay", "month.parquet", "--json"]
        process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"the replay failed with exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> int:
    """Measure, print and write; 1 when a figure is missed."""
    parser = parser_of(__doc__)
    parser.add_argument("--slices", type=int, default=SLICES)
    options = parser.parse_args()
    rates = spread_rates(options.slices)
    stream = TrafficStream(KINDS["all at once"], rates, SEED)
    watch = Watch(rates)
    for hour in stream.hours(LEARNING_HOURS):
        for _ in watch.blocks(hour):
            pass
    arrays, observations = [], []
    for hour in stream.hours(LEARNING_HOURS + 2 * TIMED_HOURS, LEARNING_HOURS):
        if len(arrays) <= len(observations):
            arrays += array_ms(watch, hour)
        else:
            observations += observation_ms(watch, hour)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    watch.restart()
    for _ in watch.blocks(next(stream.hours(LEARNING_HOURS + 5, LEARNING_HOURS + 4))):
        pass
    memory = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    stored = stored_bytes()
    found, other = restarted_alike()
    seconds, mib = replayed(options.slices)
    figures = [
        ("block as arrays, processor time, median", statistics.median(arrays), f"<= {REACH_MS} ms", REACH_MS),
        ("block as an observation, the same", statistics.median(observations), f"<= {REACH_MS} ms", REACH_MS),
    ]
    rows = [(what, f"{value:.2f} ms", reach, value <= limit) for what, value, reach, limit in figures]
    rows.insert(1, ("the mean, with the limits of every minute", f"{statistics.fmean(arrays):.2f} ms", "", True))
    each = sum(stored)
    rows += [
        (
            f"stored state of a slice after {STORED_DAYS} days",
            f"{each:,.0f} bytes",
            f"<= {REACH_BYTES:,} bytes",
            each <= REACH_BYTES,
        ),
        ("of it the baseline", f"{stored[1]:,.0f} bytes", "", True),
        ("state of a slice in memory", f"{memory / options.slices:,.0f} bytes", "", True),
        (f"other detections after {RESTARTS} restarts", f"{other} of {found}", "0", other == 0 < found),
        (
            "replay of a month in blocks of 10 s, processor time",
            f"{seconds:,.0f} s",
            f"<= {REACH_REPLAY_SECONDS} s",
            seconds <= REACH_REPLAY_SECONDS,
        ),
        (
            "its resident memory, at most",
            f"{mib:,.0f} MiB",
            f"<= {REACH_REPLAY_MIB:,} MiB",
            mib <= REACH_REPLAY_MIB,
        ),
    ]
    said = (
        f"{options.slices:,} slices of coverage in traffic with all that is above at once, on the second day; "
        f"restarts of {RESTARTED_SLICES} slices, half of which change, over {RESTARTED_DAYS} days."
    )
    body = ((what, value, reach, ("yes" if met else "**no**") if reach else "") for what, value, reach, met in rows)
    results = [{"what": what, "value": value, "reach": reach, "reached": met} for what, value, reach, met in rows]
    write(options.out, [table(said, ("measurement", "value", "target", "met"), body)], cost=results)
    return int(not all(row["reached"] for row in results))


if __name__ == "__main__":
    sys.exit(main())
