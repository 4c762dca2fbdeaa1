"""A clock that runs faster than the wall clock, for demonstrations."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from service.errors import SettingsError


@dataclass(frozen=True, slots=True)
class FastClock:
    """A clock that is ``speed`` times as fast as the wall clock.

    Parameters
    ----------
    t0
        Time of this clock at ``wall0``, with a time zone.
    wall0
        Time of the wall clock, in seconds since 1970.
    speed
        Seconds of this clock per second of the wall clock.

    Examples
    --------
    >>> clock = FastClock(datetime(2026, 5, 1, tzinfo=UTC), 1_000.0, 60.0)
    >>> clock.at(datetime.fromtimestamp(1_002, UTC)).isoformat()
    '2026-05-01T00:02:00+00:00'
    """

    t0: datetime
    wall0: float
    speed: float

    def __post_init__(self) -> None:
        if self.t0.tzinfo is None:
            raise ValueError(f"t0 {self.t0.isoformat()} has no time zone; write it in UTC")
        if not (math.isfinite(self.speed) and self.speed > 0 and math.isfinite(self.wall0)):
            raise ValueError(f"speed {self.speed} and wall0 {self.wall0} must be finite, and speed above 0")

    def at(self, wall: datetime) -> datetime:
        """Return the time of this clock at a time of the wall clock."""
        return self.t0 + timedelta(seconds=(wall.timestamp() - self.wall0) * self.speed)

    def wall(self, at: datetime) -> datetime:
        """Return the time of the wall clock at a time of this clock."""
        return datetime.fromtimestamp(self.wall0 + (at - self.t0).total_seconds() / self.speed, UTC)

    def over(self, wall: Callable[[], datetime]) -> Callable[[], datetime]:
        """Return this clock as a function, over the wall clock as a function."""
        return lambda: self.at(wall())

    def write(self, path: Path) -> None:
        """Write the constants to a file, for the clock to continue after a restart."""
        constants = {"t0": self.t0.isoformat(), "wall0": self.wall0, "speed": self.speed}
        path.write_text(json.dumps(constants) + "\n", encoding="utf-8")


def read_clock(path: Path) -> FastClock:
    """Return the clock with the constants of a file.

    Raises
    ------
    SettingsError
        If the file is missing, or is not a clock.
    """
    try:
        constants = json.loads(path.read_text(encoding="utf-8"))
        t0 = datetime.fromisoformat(constants["t0"])
        return FastClock(t0, float(constants["wall0"]), float(constants["speed"]))
    except OSError as error:
        raise SettingsError(
            f"clock {path} cannot be read: {error.strerror}; remove `clock` to use the wall clock"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(f"{path} is not a clock: {error}; it needs t0, wall0 and speed") from None
