"""Dispersion of calm traffic at several scales, and the divisors that follow."""

from __future__ import annotations

import numpy as np
import pytest

from service.monitor.dispersion import Dispersion, Peaks

ROWS, RATE, DAY = 1_000, 0.05, 8_640
CALM = np.array([False])  # no alarm


def feed(dispersion: Dispersion, rates: np.ndarray, clumps: float = 1.0, seed: int = 0, expected: float = RATE) -> None:
    """Add blocks of ten seconds of one rate; ``rates`` float64[B]."""
    rng = np.random.default_rng(seed)
    if clumps > 1:
        total = (ROWS - 1) / (clumps - 1) - 1
        rates = rng.beta(rates * total, (1 - rates) * total)
    for block, count in enumerate(rng.binomial(ROWS, rates).tolist()):
        n = np.array([float(ROWS)])
        dispersion.add(10 * block, 10, np.array([float(count)]), n, np.array([expected]))


def learn(dispersion: Dispersion, rates: np.ndarray, *, calm: bool = True) -> None:
    """Add days of blocks of ten seconds with these rates, minute by minute, and learn each; float64[days * DAY]."""
    rng, rows = np.random.default_rng(0), 6.0 * ROWS
    due = np.full((24, 1), RATE * ROWS * DAY / 24)
    minutes = rng.binomial(ROWS, rates).reshape(-1, DAY // 6, 6).sum(axis=2)
    for day, counts in enumerate(minutes):
        for minute, count in enumerate(counts.tolist(), day * DAY // 6):
            dispersion.add(60 * minute, 60, np.array([float(count)]), np.array([rows]), np.array([RATE]))
        members = counts.reshape(24, -1).sum(axis=1)[:, None].astype(np.float64)
        dispersion.end_day(np.array([calm]), members, due)


def wander_of(dispersion: Dispersion) -> float:
    return float(dispersion.wander(dispersion.ratios(), np.array([RATE]))[0])


@pytest.mark.parametrize("clumps", [1.0, 3.0, 10.0])
def test_clumps_are_measured_at_blocks(clumps: float) -> None:
    """The variance of blocks over the binomial one, and of minutes alike."""
    dispersion = Dispersion.empty(1)
    feed(dispersion, np.full(6_000, RATE), clumps)
    assert dispersion.ratios()[:2, 0] == pytest.approx(clumps, rel=0.15)


def test_a_season_is_no_dispersion() -> None:
    """Neighbouring chunks are compared, so that a daily swing does not matter."""
    dispersion = Dispersion.empty(1)
    feed(dispersion, RATE * (1 + 0.4 * np.sin(2 * np.pi * np.arange(8_640) / 8_640)))
    assert dispersion.ratios()[:2, 0] == pytest.approx(1.0, abs=0.1)


def test_a_wander_is_measured_at_hours() -> None:
    """The standard deviation of the rate itself is found, with its margin, and not of a rate that stays."""
    rng, memory = np.random.default_rng(1), np.exp(-1 / 360)
    wander = np.zeros(DAY * 6)
    for block in range(1, len(wander)):
        wander[block] = memory * wander[block - 1] + rng.normal(0, np.sqrt(1 - memory**2))
    found = []
    for rates in (RATE * (1 + 0.05 * wander), np.full(len(wander), RATE)):
        dispersion = Dispersion.empty(1)
        learn(dispersion, rates)
        found.append(wander_of(dispersion))
    assert 0.03 < found[0] < 0.09
    assert found[1] < 0.015


def test_a_change_teaches_nothing() -> None:
    """The residuals of a day that was not calm are dropped."""
    dispersion = Dispersion.empty(1)
    day = np.where(np.arange(DAY) < DAY // 24, 2 * RATE, RATE)
    learn(dispersion, day, calm=False)
    assert dispersion.excursion.max() == 0
    assert dispersion.kept.max() == 0
    learn(dispersion, day)
    assert dispersion.excursion[1, 0, 0] == pytest.approx(0.95 * (2 / (25 / 24) - 1), abs=0.02)  # a twentieth fades


def test_a_slide_is_no_wander() -> None:
    """A level that moves by a hundredth a day is the same in all chunks of a day, and neither excursion nor wander."""
    calm, slide = Dispersion.empty(1), Dispersion.empty(1)
    learn(calm, np.full(DAY * 10, RATE))
    learn(slide, RATE * np.repeat(1.01 ** np.arange(10), DAY))
    assert wander_of(slide) < 1.5 * wander_of(calm) < 0.02
    assert slide.excursion[1].max() < 0.03


def test_independent_days_leave_the_variance_as_it_is() -> None:
    """The degree of freedom that the level of a day takes is given back."""
    dispersion = Dispersion.empty(1)
    learn(dispersion, np.full(DAY * 20, RATE))
    assert dispersion.kept[0, 0, 0] / dispersion.kept[0, 1, 0] == pytest.approx(1, abs=0.1)
    assert dispersion.kept[2, 0, 0] / dispersion.kept[2, 1, 0] == pytest.approx(1, abs=0.45)


def test_long_blocks_are_left_out_at_short_scales() -> None:
    """Merged blocks of five minutes say nothing about ten seconds."""
    dispersion = Dispersion.empty(1)
    for block in range(100):
        dispersion.add(300 * block, 300, np.array([3_000.0]), np.array([30_000.0]), None)
    assert dispersion.differences[0, 2, 0] == 0
    assert dispersion.differences[2, 2, 0] > 0


def test_the_divisor_of_exponential_heights_is_their_mean() -> None:
    """Heights with a mean of 4 ask for a divisor of 4, with its margin."""
    peaks, rng = Peaks.empty(1, 1), np.random.default_rng(0)
    for height in rng.exponential(4.0, 5_000):
        peaks.add(np.array([[height]]), np.ones((1, 1)), CALM)
        peaks.add(np.zeros((1, 1)), np.ones((1, 1)), CALM)
    assert peaks.divisor(np.ones(1))[0, 0] == pytest.approx(1.25 * 4, rel=0.1)


def test_a_few_large_heights_matter_more_than_many_small() -> None:
    """Bursts among chance: each may contribute a few nats at most."""
    peaks = Peaks.empty(1, 1)
    for height in [*[1.0] * 5_000, *[150.0] * 40]:
        peaks.add(np.array([[height]]), np.ones((1, 1)), CALM)
        peaks.add(np.zeros((1, 1)), np.ones((1, 1)), CALM)
    assert 150 / peaks.divisor(np.ones(1))[0, 0] < 3


def test_the_evidence_of_an_alarm_is_no_height_of_calm_traffic() -> None:
    """Neither when it is raised nor while it falls back."""
    peaks = Peaks.empty(1, 1)
    for height, alarmed in ((20.0, False), (0.0, True), (15.0, True), (0.0, True)):
        peaks.add(np.array([[height]]), np.ones((1, 1)), np.array([alarmed]))
    assert peaks.cubes[0, 0] == 0
