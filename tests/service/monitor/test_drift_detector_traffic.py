"""The drift detector with a live baseline, on the simulated traffic of the benchmarks."""

import copy

import numpy as np
import pytest
from bench_drift_delays import detected, divergence
from drift_streams import DAY_BLOCKS, THRESHOLD, Watch, alarms, side_by_side
from traffic_streams import DAY_HOURS, HOUR_BLOCKS, KINDS, Change, Traffic, TrafficStream, spread_rates

SWING = "swing of 40 % and clumps x3"
TRAFFIC = {kind: KINDS[kind] for kind in ("day and week", "clumps x3", "bursts")} | {
    SWING: Traffic(clumps=3, daily=0.4)
}
SLICES, DAYS, STREAMS = 20, 9, 12
CELLS = [(coverage, ratio) for coverage in (0.01, 0.05) for ratio in (0.0, 0.5, 1.5, 2.0, 3.0)]
RATES = {kind: spread_rates(SLICES) for kind in TRAFFIC} | {SWING: np.repeat([p for p, _ in CELLS], STREAMS)}
KIND_OF = [kind for kind, rates in RATES.items() for _ in rates]
CALM = [TrafficStream(traffic, RATES[kind], 7) for kind, traffic in TRAFFIC.items()]
REACH_RATIO = 2.75
"""A quarter more than in the benchmark, since there are few streams and nine days of learning."""

MINUTE = 6  # blocks


@pytest.fixture(scope="module")
def learned() -> Watch:
    """A watch that has learned for nine days and raised no alarm; but for the last hours, by two minutes."""
    watch, end = Watch(np.concatenate(list(RATES.values()))), DAY_HOURS * DAYS
    for first, last, watch.merged in ((0, end - 12, 2 * MINUTE), (end - 12, end, 1)):
        assert list(alarms(watch, side_by_side(CALM, last, first))) == []
    return watch


def test_calm_traffic_raises_no_alarm(learned: Watch) -> None:
    """Nine days of swings, of clumps and of bursts, beginning with the reference alone; every day is learned."""
    assert learned.baseline.season.days.tolist() == [DAYS - 1.0] * len(KIND_OF)


@pytest.mark.parametrize(
    ("ablation", "kinds"),
    [("", set()), ("no season", {"day and week", SWING}), ("no dispersion", {"clumps x3", "bursts", SWING})],
)
def test_each_part_of_the_method_is_needed(learned: Watch, ablation: str, kinds: set[str]) -> None:
    """From the same learned state the next six hours are calm, and alarm once a part is left out."""
    hours = side_by_side(CALM, DAY_HOURS * DAYS + 6, DAY_HOURS * DAYS)
    assert {KIND_OF[alarm.slice] for alarm in alarms(learned.without(ablation), hours)} == kinds


def test_changes_alarm_within_a_multiple_of_the_bound(learned: Watch) -> None:
    """With a season and clumps, at two hours of the day: a mean of 2.75 x phi log c / KL rows and a block, no miss."""
    first, rates, end = KIND_OF.index(SWING), RATES[SWING], DAY_HOURS * DAYS
    own = [tuple(range(i * STREAMS, (i + 1) * STREAMS)) for i in range(len(CELLS))]
    delays, bounds = [], []
    for hour in (end, end + 9):
        change = hour * HOUR_BLOCKS
        changes = tuple(Change(change, each, ratio) for each, (_, ratio) in zip(own, CELLS, strict=True))
        changed = TrafficStream(TRAFFIC[SWING], rates, 7, changes)
        hours = side_by_side([*CALM[:-1], changed], hour + 3, end)
        found = detected(copy.deepcopy(learned), hours, change, len(rates))
        assert sorted(found) == list(range(first, len(KIND_OF))), "a missed change, or an alarm without one"
        before = (rates * changed.season(np.array([change]))[0]).reshape(-1, STREAMS)
        delays.append(np.reshape([found[k] for k in sorted(found)], before.shape))
        bounds.append(
            [
                [TRAFFIC[SWING].clumps * THRESHOLD / divergence(ratio * p, p) for p in row]
                for row, (_, ratio) in zip(before.tolist(), CELLS, strict=True)
            ]
        )
    mean, bound = np.mean(delays, axis=(0, 2)), np.mean(bounds, axis=(0, 2))
    assert (mean <= REACH_RATIO * bound + 1_000).all(), (mean / bound).round(2)


def test_a_restart_in_mid_stream_changes_nothing() -> None:
    """Three restarts in two days of all kinds of traffic at once: the same detections, block by block."""
    rng, rates, blocks = np.random.default_rng(3), spread_rates(10), 2 * DAY_BLOCKS
    at = {int(each) // MINUTE * MINUTE for each in rng.integers(0, blocks, 3)}
    changes = (Change(blocks - 6_000, (0, 1), 3.0), Change(blocks - 2_000, (2,), 0.0))
    whole, again, found = Watch(rates), Watch(rates), []
    for hour in TrafficStream(KINDS["all at once"], rates, 3, changes).hours(2 * DAY_HOURS):
        for i in range(0, HOUR_BLOCKS, MINUTE):
            minute = slice(i, i + MINUTE)
            one = hour.first + i, hour.members[minute].sum(axis=0), hour.n[minute].sum(), MINUTE
            if hour.first + i in at:
                again.restart()
            detections = whole.feed(*one)
            assert again.feed(*one) == detections
            found += detections
    assert {detection.drift.slice for detection in found} == {"0", "1", "2"}
    assert again.detector.to_bytes() == whole.detector.to_bytes()
    assert again.baseline.to_bytes() == whole.baseline.to_bytes()
