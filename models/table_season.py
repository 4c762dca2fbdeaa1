"""Season of a training table: members of its slices by hour of week, from which live traffic starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.errors import BundleError
from sfs.matrix import SliceMatrix

WEEK_HOURS = 168
_LEAST_HOURS = 2 * WEEK_HOURS
_MONDAY = 4 * 24  # hours after the epoch, a Thursday


@dataclass(frozen=True, slots=True)
class TableSeason:
    """Rows of a table by hour of week, and members of its slices among them.

    Parameters
    ----------
    zone
        Time zone of the hours.
    rows
        Rows with a time, 168 numbers from Monday, 00:00.
    members, unknown
        Members, and rows of unknown membership if there are any, by slice.
    dispersion
        Variance of the members of an hour over that of independent rows, by slice with members: the weeks of the
        table are compared.
    """

    zone: str
    rows: tuple[int, ...]
    members: Mapping[str, tuple[int, ...]]
    unknown: Mapping[str, tuple[int, ...]]
    dispersion: Mapping[str, float]

    @classmethod
    def of(cls, times: pd.Series[Any], zone: str, S: SliceMatrix) -> TableSeason | None:
        """Return the season of N rows at times as of `utc_times`; None if they do not span two weeks.

        In one week, a season cannot be told from what happened then.
        """
        timed = times.notna().to_numpy()
        if not timed.any():
            return None
        local = times[timed].dt.tz_convert(zone).dt.tz_localize(None)
        hours, instance = np.unique(local.dt.as_unit("s").astype("int64").to_numpy() // 3600, return_inverse=True)
        if hours[-1] - hours[0] + 1 < _LEAST_HOURS:
            return None
        week = (hours - _MONDAY) % WEEK_HOURS
        members, unknown, dispersion = {}, {}, {}
        for k, name in enumerate(S.names):
            member = np.bincount(instance, S.member[timed, k])
            known = np.bincount(instance, ~S.unknown[timed, k])
            if member.any():
                members[name] = _by_week(week, member)
                dispersion[name] = _dispersion(week, member, known)
                if S.unknown[timed, k].any():
                    unknown[name] = _by_week(week, np.bincount(instance, S.unknown[timed, k]))
        return cls(zone, _by_week(week, np.bincount(instance)), members, unknown, dispersion)

    def to_json(self) -> dict[str, Any]:
        """Return the season as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, saved: Any, slice_names: Sequence[str]) -> TableSeason:
        """Return a stored season.

        Raises
        ------
        BundleError
            If it is malformed, or of other slices.
        """
        try:
            members, unknown = ({n: tuple(c) for n, c in saved[key].items()} for key in ("members", "unknown"))
            season = cls(saved["zone"], tuple(saved["rows"]), members, unknown, dict(saved["dispersion"]))
            counts = [season.rows, *members.values(), *unknown.values()]
            is_right = (
                all(len(each) == WEEK_HOURS and all(type(n) is int and n >= 0 for n in each) for each in counts)
                and {*unknown} <= {*members} == {*season.dispersion} <= {*slice_names}
                and all(type(value) is float and value >= 1 for value in season.dispersion.values())
                and isinstance(season.zone, str)
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise BundleError(f"the season of the table is malformed: {error!r:.100}") from error
        if not is_right:
            raise BundleError("the season of the table is impossible")
        return season


def utc_times(values: pd.Series[Any]) -> pd.Series[Any]:
    """Return timestamps, or text in ISO 8601, as times in UTC; NaT for anything else. Those without a zone are UTC."""
    times = values
    if not pd.api.types.is_datetime64_any_dtype(values.dtype):
        text = values.astype(str)
        # pandas would read a time without a zone in that of the one before
        is_local = ~text.str[10:].str.contains(r"(?:[zZ]|[+-]\d\d(?::?\d\d)?)$")
        text = text.mask(is_local, text.where(text.str.len() > 10, text + "T00:00:00") + "Z")
        times = pd.to_datetime(text.where(text.str[4:5] == "-"), utc=True, format="ISO8601", errors="coerce")
    utc: pd.Series[Any] = times.dt.tz_localize("UTC") if times.dt.tz is None else times.dt.tz_convert("UTC")
    return utc


def _by_week(week: NDArray[np.int64], counts: NDArray[Any]) -> tuple[int, ...]:
    return tuple(np.bincount(week, counts, WEEK_HOURS).astype(np.int64).tolist())


def _dispersion(week: NDArray[np.int64], member: NDArray[Any], known: NDArray[Any]) -> float:
    """Return the squared residuals of the hours from the rate of their hour of week, over those of independent rows."""
    rows = np.bincount(week, known, WEEK_HOURS)
    rate = (np.bincount(week, member, WEEK_HOURS) / np.maximum(rows, 1))[week]
    own = known / np.maximum(rows[week], 1)
    due = float((known * rate * (1 - rate) * (1 - own)).sum())
    return max(1.0, float(((member - known * rate) ** 2).sum()) / due) if due else 1.0
