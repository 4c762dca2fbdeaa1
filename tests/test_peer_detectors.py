"""Drift detectors of other tools: they raise what the tools raise."""

import math
import random

import numpy as np
import pytest
from peer_detectors import PEERS, Alarms, Recording, adwin, always, deviations, lone_z_test, page_hinkley, psi, z_test
from scipy.stats import norm
from traffic_streams import HOUR_BLOCKS, KINDS, Change, TrafficStream

DAY = 24 * HOUR_BLOCKS


def values(numbers: list[int]) -> Recording:
    """Return a recording of one slice whose blocks have one row each, and these values."""
    return Recording(np.ones(len(numbers), np.int64), np.array(numbers, np.uint16)[:, None])


def recorded(*changes: Change, rates: tuple[float, ...] = (0.01, 0.01, 0.05), hours: int = 60) -> Recording:
    return Recording.of(TrafficStream(KINDS["independent"], np.array(rates), 0, changes), hours)


def literal_adwin(numbers: list[float]) -> list[int]:
    """Return where ADWIN detects changes: a list of buckets, each a list of its values."""
    window: list[list[float]] = []  # oldest first
    detected = []
    for tick, number in enumerate(numbers, 1):
        window.append([number])
        size = 1
        while sum(len(bucket) == size for bucket in window) > 5:
            first = next(k for k, bucket in enumerate(window) if len(bucket) == size)
            window[first : first + 2] = [window[first] + window[first + 1]]
            size *= 2
        change = False
        while tick % 32 == 0 and differs(window):
            change = True
            del window[0]
        if change:
            detected.append(tick - 1)
    return detected


def differs(window: list[list[float]]) -> bool:
    everything = [value for bucket in window for value in bucket]
    variance, width = float(np.var(everything)), len(everything)
    log = math.log(2 * math.log(width) / 0.002)
    for cut in np.cumsum([len(bucket) for bucket in window]).tolist():
        old, new = everything[:cut], everything[cut:]
        if len(old) < 5 or len(new) < 5 or width <= 10:
            continue
        inverse = 1 / (len(old) - 4) + 1 / (len(new) - 4)
        if abs(np.mean(old) - np.mean(new)) > math.sqrt(2 * inverse * variance * log) + 2 / 3 * log * inverse:
            return True
    return False


def test_the_example_of_the_manual_of_river() -> None:
    """Page-Hinkley detects its change at 1006, ADWIN at 1023."""
    rng = random.Random(12345)
    stream = values(rng.choices([0, 1], k=1000) + rng.choices(range(4, 8), k=1000))
    assert page_hinkley(stream, 0).block.tolist() == [1006]
    assert adwin(stream, 0).block.tolist() == [1023]


def test_adwin_is_its_literal_twin() -> None:
    """On several slices with several changes, so that their windows have different lengths."""
    rng = np.random.default_rng(0)
    rates = np.array([[0.5, 0.5, 0.9, 0.1], [0.3, 0.9, 0.1, 0.9], [0.2, 0.2, 0.2, 0.2]])
    numbers = rng.random((3, 1600)) < np.repeat(rates, 400, axis=1)
    stream = Recording(np.ones(1600, np.int64), numbers.T.astype(np.uint16))
    alarms = adwin(stream, 0)
    for k in range(3):
        assert alarms.block[alarms.slice == k].tolist() == literal_adwin(numbers[k].astype(float).tolist())
    assert len(alarms.block) > 3


def test_page_hinkley_sees_a_fall() -> None:
    """Both sides are tested, and it begins again after a detection."""
    found = page_hinkley(values([9] * 200 + [0] * 200 + [9] * 200), 0)
    assert len(found.block) >= 2
    assert 200 <= found.block[0] < 220


def test_the_z_test_controls_the_false_discoveries() -> None:
    """Its alarms are those of the literal step-up procedure on the p-values of each hour."""
    stream = recorded(Change(50 * HOUR_BLOCKS, (1,), 1.3), rates=(0.01, 0.01, 0.05, 0.2))
    alarms = z_test(stream, 48)
    n, members = (array.reshape(60, HOUR_BLOCKS, -1).sum(axis=1) for array in (stream.n, stream.members))
    expected = set()
    for hour in range(48, 60):
        p = []
        for k in range(4):
            pair = np.array([members[:48, k].sum(), members[hour, k]]), np.array([n[:48].sum(), n[hour, 0]])
            pooled = pair[0].sum() / pair[1].sum()
            error = math.sqrt(pooled * (1 - pooled) * (1 / pair[1]).sum())
            p.append(2 * norm.sf(abs(np.diff(pair[0] / pair[1])[0]) / error))
        ordered = sorted(p)
        limit = max((q for rank, q in enumerate(ordered, 1) if q <= 0.05 * rank / 4), default=-1)
        expected |= {(hour, k) for k in range(4) if p[k] <= limit}
    assert set(zip((alarms.block // HOUR_BLOCKS).tolist(), alarms.slice.tolist(), strict=True)) == expected
    assert {(hour, 1) for hour in range(50, 60)} <= expected


def test_a_lone_change_has_the_first_rank() -> None:
    """Among 1,000 calm slices its p-value must be below 5 % / 1,000."""
    stream = recorded(Change(50 * HOUR_BLOCKS, (1,), 1.03))
    assert len(lone_z_test(1_000)(stream, 48).block) < len(lone_z_test(3)(stream, 48).block)


@pytest.mark.parametrize(("rate", "factor", "raised"), [(0.05, 2.6, False), (0.05, 3.0, True), (0.01, 0.0, False)])
def test_psi_needs_a_gross_change(rate: float, factor: float, raised: bool) -> None:
    """A slice of 5 % has to grow to 2.8 times its size, and one of 1 % may vanish."""
    alarms = psi(recorded(Change(50 * HOUR_BLOCKS, (0,), factor), rates=(rate, 0.2)), 48)
    assert set(alarms.slice.tolist()) == ({0} if raised else set())


def test_deviations_are_those_of_the_reference() -> None:
    """An hour alarms if it is farther than three standard deviations from the mean of the learning hours."""
    stream = recorded(Change(55 * HOUR_BLOCKS, (2,), 1.2))
    hourly = stream.members.reshape(60, HOUR_BLOCKS, 3).sum(axis=1) / stream.n.reshape(60, -1).sum(axis=1)[:, None]
    far = np.abs(hourly[48:] - hourly[:48].mean(axis=0)) > 3 * hourly[:48].std(axis=0)
    alarms = deviations(stream, 48)
    assert np.array_equal(np.stack([alarms.block // HOUR_BLOCKS - 48, alarms.slice]), np.nonzero(far))
    assert far[7:, 2].all()


def test_always_fires() -> None:
    """Each slice has an alarm at the end of every watched hour."""
    alarms = always(recorded(hours=50), 48)
    assert alarms.block.tolist() == [49 * HOUR_BLOCKS - 1] * 3 + [50 * HOUR_BLOCKS - 1] * 3
    assert alarms.slice_days() == 3


def test_blocks_without_rows_are_no_values() -> None:
    """Every detector runs on a stream with empty blocks and hours, and learning raises nothing."""
    stream = recorded(hours=52)
    stream.n[50 * HOUR_BLOCKS : 51 * HOUR_BLOCKS] = stream.members[50 * HOUR_BLOCKS : 51 * HOUR_BLOCKS] = 0
    stream.n[::7] = stream.members[::7] = 0
    for name, detector in PEERS.items():
        alarms = detector(stream, 48)
        assert (alarms.block >= 48 * HOUR_BLOCKS).all(), name
        assert name == "always fire" or len(alarms.block) < 5, name


def test_the_first_alarm_counts_from_the_change_on() -> None:
    """Earlier ones do not, and a slice without one is missed."""
    alarms = Alarms(np.array([5, 9, 9, 20]), np.array([0, 0, 1, 1]))
    assert alarms.first_after(np.array([6, 9, 0])).tolist() == [9, 9, math.inf]
    assert Alarms(np.array([5, 9, DAY]), np.array([0, 0, 0])).slice_days() == 2
    assert Alarms.of({}).slice_days() == 0


def test_the_alarms_among_some_slices_are_those_of_these() -> None:
    """They keep block and slice."""
    part = Alarms(np.array([5, 9, 9, 20]), np.array([0, 2, 1, 3])).among(1, 3)
    assert (part.block.tolist(), part.slice.tolist()) == ([9, 9], [2, 1])
    assert part.figures() == {"alarms": 2, "slice_days": 2}
