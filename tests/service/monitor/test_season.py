"""Season of rates: level, hour of day, day of week and hour of week, learned by days."""

from __future__ import annotations

import numpy as np
import pytest

from service.monitor.season import LEVEL_DAYS, Season

CALM = np.ones(1)  # dispersion


def learn(season: Season, rates: np.ndarray, days: int, rows: float = 10_000.0, first: int = 0) -> None:
    """Add days of binomial counts; ``rates`` float64[168] by hour of week."""
    rng = np.random.default_rng(first)
    for day in range(first, first + days):
        weekday = day % 7
        p = rates[24 * weekday : 24 * (weekday + 1), None]
        n = np.full((24, 1), rows, np.float32)
        season.add_day(weekday, rng.binomial(int(rows), p).astype(np.float32), n, np.array([True]))
        season.settle(CALM)


def swing(amplitude: float, level: float = 0.1) -> np.ndarray:
    """Return rates by hour of week with a daily swing."""
    return level * (1 + amplitude * np.sin(2 * np.pi * (np.arange(168) + 0.5) / 24))


def test_a_daily_swing_is_known_after_a_day() -> None:
    """One whole day gives the hours of all days."""
    season = Season.empty(1)
    learn(season, swing(0.4), 1)
    expected = season.profile(CALM).rate[:, 0]
    assert np.abs(expected / swing(0.4) - 1).max() < 0.15
    assert np.abs(expected / swing(0.4) - 1).mean() < 0.04


def test_a_rate_without_a_season_has_a_flat_profile() -> None:
    """Chance is not taken for a season: the hours differ by less than a fifth of what they were counted at."""
    season = Season.empty(1)
    learn(season, np.full(168, 0.01), 14, rows=2_000)
    counted = season.members[:, 0] / season.rows[:, 0]
    assert season.profile(CALM).rate[:, 0].std() < 0.35 * counted.std()


def test_a_weekend_is_known_after_a_week() -> None:
    """Hours at which few rows were counted borrow from the day."""
    rates = np.full(168, 0.02)
    rates[120:] = 0.03
    season = Season.empty(1)
    learn(season, rates, 6)
    assert season.profile(CALM).rate[130, 0] < 0.024
    learn(season, rates, 1, first=6)
    assert season.profile(CALM).rate[130, 0] == pytest.approx(0.03, rel=0.08)


def test_between_hours_the_rate_is_interpolated() -> None:
    """At a steady change no step is expected; at a step the rate may be that of the hour itself."""
    rates = swing(0.4)
    rates[120:] *= 1.5
    season = Season.empty(1)
    learn(season, rates, 28, rows=1_000_000)
    profile = season.profile(CALM)
    expected, lowest, highest, _ = (float(each[0, 0]) for each in profile.at(np.array([32.0])))
    assert expected == pytest.approx(0.1 * (1 + 0.4 * np.sin(2 * np.pi * 32 / 24)), rel=0.01)
    assert highest / lowest < 1.02
    expected, lowest, highest, _ = (float(each[0, 0]) for each in profile.at(np.array([120.01])))
    assert expected < 0.9 * highest
    assert highest == pytest.approx(0.15, rel=0.03)


def test_a_slide_does_not_become_normal_by_lasting() -> None:
    """After four weeks the level stays, while the season is learned on."""
    season = Season.empty(1)
    learn(season, swing(0.1), LEVEL_DAYS)
    learn(season, 1.3 * swing(0.4), LEVEL_DAYS, first=LEVEL_DAYS)
    rate = season.profile(CALM).rate[:, 0]
    assert rate.mean() == pytest.approx(0.1, rel=0.01)
    assert rate.max() / rate.mean() == pytest.approx(1.3, abs=0.1)


def test_another_level_keeps_the_season() -> None:
    """After an acceptance the level is the accepted one, and is learned on."""
    season = Season.empty(2)
    for weekday in range(7):
        hours = np.repeat(1_000 * swing(0.4)[:24, None], 2, axis=1).astype(np.float32)
        season.add_day(weekday, hours, np.full((24, 2), 1_000, np.float32), np.array([True, True]))
    before = season.profile(np.ones(2)).rate
    season.rebase(np.array([0]), np.array([0.2]), np.array([50_000.0]))
    after = season.profile(np.ones(2)).rate
    assert after[:, 0] == pytest.approx(2 * before[:, 0], rel=0.01)
    assert after[:, 1] == pytest.approx(before[:, 1])


def test_without_days_nothing_fails() -> None:
    """An hour without rows has the rate of the others."""
    season = Season.empty(1)
    counts = np.zeros((24, 1), np.float32)
    counts[:12] = 30
    season.add_day(0, counts, 10 * counts, np.array([True]))
    rate = season.profile(CALM).rate[:, 0]
    assert np.isfinite(rate).all()
    assert rate[20] == pytest.approx(0.1, rel=0.05)
