"""The fast clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.errors import SettingsError
from service.runtime.clock import FastClock, read_clock

T0 = datetime(2026, 5, 1, tzinfo=UTC)
WALL0 = datetime(2026, 11, 20, 12, tzinfo=UTC)


def test_it_starts_at_t0_and_runs_at_its_speed() -> None:
    """A second of the wall clock is `speed` seconds of this clock."""
    clock = FastClock(T0, WALL0.timestamp(), 120.0)
    assert [clock.at(WALL0 + timedelta(seconds=s)) - T0 for s in (0, 1, 30)] == [
        timedelta(0),
        timedelta(minutes=2),
        timedelta(hours=1),
    ]


def test_the_wall_clock_follows_from_it() -> None:
    """The time of the wall clock is the inverse of the time of this clock."""
    clock = FastClock(T0, WALL0.timestamp(), 240.0)
    wall = WALL0 + timedelta(seconds=17.5)
    assert clock.wall(clock.at(wall)) == wall


def test_it_continues_from_its_file(tmp_path: Path) -> None:
    """A clock equals the clock read from its file."""
    clock = FastClock(T0, WALL0.timestamp(), 120.0)
    clock.write(tmp_path / "clock.json")
    assert read_clock(tmp_path / "clock.json") == clock


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"t0": "2026-05-01T00:00:00+00:00", "speed": 2}',
        '{"t0": "2026-05-01T00:00:00", "wall0": 1, "speed": 2}',
        '{"t0": "2026-05-01T00:00:00+00:00", "wall0": 1, "speed": 0}',
        '{"t0": "2026-05-01T00:00:00+00:00", "wall0": 1, "speed": 1e999}',
    ],
)
def test_a_file_that_is_not_a_clock_is_refused(tmp_path: Path, text: str) -> None:
    """The error names the file."""
    (tmp_path / "clock.json").write_text(text)
    with pytest.raises(SettingsError, match=r"clock\.json is not a clock"):
        read_clock(tmp_path / "clock.json")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """The error names the file."""
    with pytest.raises(SettingsError, match=r"nothing\.json cannot be read"):
        read_clock(tmp_path / "nothing.json")
