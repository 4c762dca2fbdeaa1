"""A clock that runs faster than the wall's, so that a day can be shown in minutes."""

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
    """Time that ran as the wall's clock up to one moment, and so many times as fast since.

    Parameters
    ----------
    t0
        What this clock shows at ``wall0``, with a time zone.
    wall0
        The moment on the wall's clock, in seconds since 1970.
    speed
        Seconds that pass here in one of the wall's.

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
            raise ValueError(f"speed {self.speed} and wall0 {self.wall0} must be finite, speed above 0")

    def at(self, wall: datetime) -> datetime:
        """Return what this clock shows at a moment of the wall's."""
        return self.t0 + timedelta(seconds=(wall.timestamp() - self.wall0) * self.speed)

    def wall(self, at: datetime) -> datetime:
        """Return the moment of the wall's clock at which this one shows a time."""
        passed = (at - self.t0).total_seconds() / self.speed
        return datetime.fromtimestamp(self.wall0 + passed, UTC)

    def over(self, wall: Callable[[], datetime]) -> Callable[[], datetime]:
        """Return this clock as a function, given the wall's."""
        return lambda: self.at(wall())

    def write(self, path: Path) -> None:
        """Write the clock's constants, from which it goes on after a restart."""
        constants = {"t0": self.t0.isoformat(), "wall0": self.wall0, "speed": self.speed}
        path.write_text(json.dumps(constants) + "\n", encoding="utf-8")


def read_clock(path: Path) -> FastClock:
    """Return the clock whose constants were written to a file.

    Raises
    ------
    SettingsError
        If there is no such file, or it does not hold a clock.
    """
    try:
        constants = json.loads(path.read_text(encoding="utf-8"))
        t0 = datetime.fromisoformat(constants["t0"])
        return FastClock(t0, float(constants["wall0"]), float(constants["speed"]))
    except OSError as error:
        raise SettingsError(f"the clock {path} cannot be read: {error.strerror}; leave out `clock`") from None
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(f"{path} holds no clock: {error}; it has t0, wall0 and speed") from None
