"""Live baseline: expected coverages, and rates like them, learned from calm traffic of the past days."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from service.decisions import LiveTraffic, RateKey, ToleranceBand
from service.events import Counts
from service.monitor.alternatives import ALTERNATIVES, Alternatives
from service.monitor.dispersion import WANDER_DEVIATIONS, Dispersion, Peaks
from service.monitor.season import (
    DAY_HOURS,
    LEVEL_DAYS,
    WEEK_DAYS,
    WEEK_HOURS,
    BoolArray,
    FloatArray,
    Season,
    TableProfile,
)
from sfs.intervals import Rate

SETTLED_DAYS = WEEK_DAYS + 1
"""Days from which the season is known, and the residuals from it: no swing is tolerated any more."""

_DAY_SECONDS, _HOUR_SECONDS = 86_400, 3_600
_MONDAY = 4 * _DAY_SECONDS  # after the epoch, a Thursday
_LIMIT_DEVIATIONS, _EARLY_DEVIATIONS = 1.645, 3.5  # of the expected rate, on one side
_LEAST_UPPER = 0.001  # limit of live traffic: a rate of 0 is not refuted by a handful of rows
_ASSUMED_DAYS, _ASSUMED_SWINGS = 2, 4.0  # bursts of so many times the swing are assumed at first
_CALM_BETWEEN = 4  # of the six days between two that recur: after a lasting change none is calm
_FORMAT = 1
_COMPRESSION = 1


@dataclass(frozen=True, eq=False, slots=True)
class Limits:
    """Range of the rates of K slices without drift, float64[K] each.

    Parameters
    ----------
    lower, upper
        Limits, with the tolerance.
    calm_lower, calm_upper
        The same without it: where a calm rate is found, but for its wander.
    expected
        Expected rate.
    """

    lower: FloatArray
    upper: FloatArray
    calm_lower: FloatArray
    calm_upper: FloatArray
    expected: FloatArray


@dataclass(eq=False)
class LiveBaseline:
    """Expected rates of K slices, from the reference until the first whole day, from live traffic afterwards.

    Traffic is learned a day at a time, in the time zone of the baseline, and only that of slices that were calm all
    day, or deviated on the same weekday a week before, by about as much, and were calm on most days between: a change
    that lasts is not learned. Until a week and a day are known, a swing is tolerated on top. The upper limit of live
    traffic is at least 0.001.

    Parameters
    ----------
    keys
        The rates; no accuracies.
    references
        Their tolerance bands by the reference, in the same order.
    tolerance, swing
        Tolerated relative change, and what is added to it until the season is known.
    zone
        Time zone of the season.
    table
        Season of the training table, which takes the place of the swing until a week and a day are known.

    Examples
    --------
    >>> band = ToleranceBand(Rate(200, 10_000), 0.017, 0.023, 0.1)
    >>> baseline = LiveBaseline([RateKey("short", "f1", "coverage")], [band], 0.1, 0.4)
    >>> limits = baseline.limits(datetime(2026, 1, 5, tzinfo=UTC))
    >>> limits.lower.round(4).tolist(), limits.upper.round(4).tolist()
    ([0.0102], [0.0322])
    """

    keys: Sequence[RateKey]
    references: Sequence[ToleranceBand]
    tolerance: float
    swing: float
    zone: tzinfo = UTC
    table: TableProfile | None = None
    season: Season = field(init=False)
    dispersion: Dispersion = field(init=False)
    peaks: Peaks = field(init=False)
    since: FloatArray = field(init=False)
    """float64[K]: start of the traffic that is learned, in seconds since the epoch; 0 before."""
    alarmed: BoolArray = field(init=False)
    """bool[K]: slices that alarmed this day."""
    deviations: FloatArray = field(init=False)
    """float64[7, K]: logarithm of the rate of the last Monday to Sunday over the expected one; 0 if it was calm."""
    day: int = field(init=False, default=-1)
    """Current day since the epoch, by the zone; -1 before the first row."""
    _hourly: FloatArray = field(init=False)  # dispersion of the members of an hour, as of the start of the day
    _members: NDArray[np.float32] = field(init=False)
    _rows: NDArray[np.float32] = field(init=False)
    _last: int = field(init=False, default=0)
    _offset: tuple[int, int] = field(init=False, default=(-1, 0))
    _packed: bytes = field(init=False, default=b"")
    _level: tuple[FloatArray, FloatArray] | None = field(init=False, default=None)  # by the table's season
    _bands: tuple[FloatArray, ...] = field(init=False)

    def __post_init__(self) -> None:
        rates = len(self.keys)
        self.season, self.dispersion = Season.empty(rates), Dispersion.empty(rates)
        self.peaks = Peaks.empty(ALTERNATIVES, rates)
        self.since, self.alarmed, self._hourly = np.zeros(rates), np.zeros(rates, np.bool_), np.ones(rates)
        self.deviations = np.zeros((WEEK_DAYS, rates))
        self._members, self._rows = np.zeros((2, DAY_HOURS, rates), np.float32)
        self._bands = self._reference_bands()

    def hour(self, at: int) -> float:
        """Return the hours since Monday, 00:00, by the zone, of a time in seconds since the epoch."""
        return (at + self._utc_offset(at) - _MONDAY) / _HOUR_SECONDS % WEEK_HOURS

    def _hours(self, times: Sequence[int]) -> FloatArray:
        """Return the hours since Monday, 00:00, of times of at most a week, float64[H]."""
        first, last = self._utc_offset(times[0]), self._utc_offset(times[-1])
        if first != last:  # the clocks are changed in between
            return np.array([self.hour(time) for time in times])
        return np.asarray((np.array(times) + first - _MONDAY) / _HOUR_SECONDS % WEEK_HOURS)

    def is_live(self) -> BoolArray:
        """Return whether live traffic sets the expected rate, bool[K]."""
        return self.season.days >= 1

    def starts_day(self, at: int) -> bool:
        """Return whether a time is in a later day than the rows so far."""
        return -1 < self.day < self._day(at)

    def end_day(self, at: int, calm: BoolArray) -> None:
        """Learn from the day that is over, for the slices that were calm or recur; ``at`` is a time of the next day.

        Slices that alarmed during the day were not calm.
        """
        calm = calm & ~self.alarmed
        start = self.day * _DAY_SECONDS - self._utc_offset(at)
        incomplete = self.season.days < WEEK_DAYS
        weekday = (self.day - _MONDAY // _DAY_SECONDS) % WEEK_DAYS
        hours = slice(weekday * DAY_HOURS, (weekday + 1) * DAY_HOURS)
        due = self._rows * self.season.profile(self._hourly).rate[hours] * self.is_live()
        self.dispersion.end_day(calm, self._members.astype(np.float64), due)
        recurring = self._recurs(weekday, due.sum(axis=0), calm)
        whole = (self.since > 0) & (self.since <= start) & (self._rows.sum(axis=0) > 0)
        self.season.add_day(weekday, self._members * calm, self._rows * calm, whole & (calm | recurring))
        if recurring.any():
            self.season.replace_day(weekday, self._members * recurring, self._rows * recurring, self._hourly)
        self.dispersion.forget_residuals(incomplete & (self.season.days >= WEEK_DAYS))
        self.peaks.fade()
        self._hourly = np.maximum(self.dispersion.ratios().max(axis=0), 1.0)
        self.season.settle(self._hourly)
        self.alarmed[:] = False
        self._members[:] = 0
        self._rows[:] = 0
        self._packed, self._level = b"", None
        self.day = self._day(at)

    def add(self, start: int, seconds: int, count: Counts, n: Counts) -> None:
        """Add an observation: int64[K] members and known rows; one before the last is ignored.

        Parameters
        ----------
        start, seconds
            Start in seconds since the epoch, and length.
        """
        if start < self._last:
            return
        self._last = start
        if self.day < 0:
            self.day = self._day(start)
        np.copyto(self.since, start, where=(self.since == 0) & (n > 0))
        hour = int(self.hour(start)) % DAY_HOURS
        self._members[hour] += count
        self._rows[hour] += n
        live = self.is_live()
        expected = self._expected(start) * live if live.any() else None
        self.dispersion.add(start, seconds, count.astype(np.float64), n.astype(np.float64), expected)

    def limits(self, at: datetime | int) -> Limits:
        """Return the range of every rate at a time."""
        seconds = int(at.timestamp()) if isinstance(at, datetime) else at
        return Limits(*(each[0] for each in self._limits([seconds])))

    def limits_over(self, start: datetime, end: datetime) -> Limits:
        """Return the range of every rate over a time: the mean over its hours, weighted by their usual rows."""
        first, hours = int(start.timestamp()), max(1, round((end - start).total_seconds() / _HOUR_SECONDS))
        times = [first + _HOUR_SECONDS // 2 + hour * _HOUR_SECONDS for hour in range(min(hours, WEEK_HOURS))]
        weights = self.season.rows[self._hours(times).astype(np.intp)].astype(np.float64) + 1  # [H, K]
        weights /= weights.sum(axis=0)
        return Limits(*((weights * each).sum(axis=0) for each in self._limits(times)))

    def _limits(self, times: Sequence[int]) -> tuple[FloatArray, ...]:
        """Return the fields of the limits at H times, float64[H, K] each."""
        hours = self._hours(times)
        expected, lowest, highest, error = self.season.profile(self._hourly).at(hours)
        days = self.season.days
        settled = days >= SETTLED_DAYS
        swing = np.where(settled, 0.0, self.swing)
        factor, least, most = (np.broadcast_to(each, expected.shape) for each in (1.0, 1 - swing, 1 + swing))
        by_table = self._by_table()
        if self.table is not None and by_table.any():
            of_table, level = self.table.at(hours), self._table_level()
            factor, least, most = (
                np.where(by_table, *each) for each in zip(of_table, (factor, least, most), strict=True)
            )
            expected, lowest, highest = (np.where(by_table, level[0], each) for each in (expected, lowest, highest))
            error = np.where(by_table, level[1], error)
        deviations = np.where(settled, _LIMIT_DEVIATIONS, _EARLY_DEVIATIONS)
        few = deviations**2 * self._hourly / np.maximum(self.season.level_rows, 1.0) / 2  # no members are no proof of 0
        largest = expected + few + np.hypot(expected * deviations * error, few)
        calm_upper = np.maximum(highest, largest) * most
        calm_lower = np.minimum(lowest, expected / (1 + deviations * error)) * least
        live = days >= 1
        lower, upper, reference = self._bands
        lower, upper = lower * least, np.where(upper < 1, np.minimum(upper * most, 1.0), 1.0)
        expected, reference = expected * factor, np.minimum(reference * factor, 1.0)
        calm_upper = np.where(live, calm_upper, upper / (1 + self.tolerance))
        calm_lower = np.where(live, calm_lower, lower / (1 - self.tolerance))
        return (
            np.where(live, calm_lower * (1 - self.tolerance), lower),
            np.where(live, np.clip(calm_upper * (1 + self.tolerance), _LEAST_UPPER, 1.0), upper),
            calm_lower,
            calm_upper,
            np.where(live, expected, reference),
        )

    def divisor(self, alternatives: Alternatives, limits: Limits, pace: float) -> FloatArray:
        """Return the divisors of the log-likelihood ratios, float64[C, K], at least 1; ``pace`` is in rows a second.

        Each is the largest of four. The first is the dispersion of blocks. Where the rate at which the ratio is 0 lies
        within reach of a wander, the second is the one at which a Gaussian wander of the variance seen at ten minutes
        to six hours leaves the ratio fair; elsewhere a wander does not matter. The others are those of the largest
        excursion, and of the heights that the ratio reached. In the first two days, excursions of four times the swing
        are assumed.
        """
        hit, miss = alternatives.hit, alternatives.miss
        ratios, expected = self.dispersion.ratios(), np.clip(limits.expected, 1e-6, 1 - 1e-6)
        block = np.maximum(np.maximum(ratios[0], ratios[1]), 1.0)
        slow = np.maximum(ratios.max(axis=0) - block, 0.0)
        difference = np.abs(hit - miss)
        fair = np.divide(-miss, hit - miss, out=np.ones_like(hit), where=difference > 0)
        calm = np.where(hit > 0, limits.calm_upper, limits.calm_lower)
        gap = np.maximum(np.abs(fair / np.maximum(calm, 1e-9) - 1), 1e-3)
        within = gap < WANDER_DEVIATIONS * self.dispersion.wander(ratios, expected)
        wandering = np.where(within, slow * difference * (1 - expected) / (2 * gap), 0.0)
        level = np.where(self.is_live(), self._table_level()[0], self._bands[2])  # without the season of the table
        level = np.where(self._by_table(), np.clip(level, 1e-6, 1 - 1e-6), expected)
        assumed = np.maximum((1 + _ASSUMED_SWINGS * self.swing) * level / expected - 1, 0.0)
        assumed = np.where(self.season.days < _ASSUMED_DAYS, assumed, 0.0)
        excursion = self.dispersion.excursion_evidence(hit, miss, expected, assumed, pace)
        return np.asarray(np.maximum(np.maximum(block + wandering, excursion), self.peaks.divisor(block)))

    def rebase(self, levels: Mapping[RateKey, Rate]) -> None:
        """Take other rates as normal; the season of the slices stays."""
        found = [(k, levels[key]) for k, key in enumerate(self.keys) if key in levels and levels[key].n]
        if found:
            rates = np.array([k for k, _ in found], np.intp)
            level = np.array([rate.count / rate.n for _, rate in found])
            self.season.rebase(rates, level, np.array([float(rate.n) for _, rate in found]))
            self._members[:, rates] = 0
            self._rows[:, rates] = 0
            self._changed()

    def resume(self, other: LiveBaseline, without: Collection[RateKey] = ()) -> None:
        """Continue the learning of another baseline, for the slices that both have, except some."""
        index = {key: k for k, key in enumerate(other.keys)}
        pairs = [(k, index[key]) for k, key in enumerate(self.keys) if key in index and key not in without]
        own, others = np.array(pairs, np.intp).reshape(-1, 2).T
        for array, previous in zip(self._by_rate(), other._by_rate(), strict=True):
            array[..., own] = previous[..., others]
        for array, previous in zip(self.dispersion.shared(), other.dispersion.shared(), strict=True):
            array[...] = previous
        self.day, self._last = other.day, other._last
        self._changed()

    def band(self, k: int, limits: Limits) -> ToleranceBand:
        """Return the tolerance band of a slice within limits."""
        days, since = int(self.season.days[k]), float(self.since[k])
        if days < 1:
            missing = "hour of day: 0 of 1 days"
        elif days < SETTLED_DAYS:
            missing = f"hour of week: {days} of {SETTLED_DAYS} days"
        else:
            missing = "" if self.season.anchor[k] else f"level: {days} of {LEVEL_DAYS} days"
        if self.table is not None and self._by_table()[k]:
            missing += "; season: training table"
        live = LiveTraffic(datetime.fromtimestamp(since, UTC) if since else None, days, missing)
        rate = self.references[k].reference
        if live.source == "live traffic":
            rate = Rate(int(self.season.members[:, k].sum()), int(self.season.rows[:, k].sum()))
        return ToleranceBand(rate, float(limits.lower[k]), float(limits.upper[k]), self.tolerance, live=live)

    def to_bytes(self) -> bytes:
        """Return the state, from which ``from_bytes`` continues exactly."""
        shared = [array.tolist() for array in self.dispersion.shared()]
        header = {"format": _FORMAT, "keys": self.keys, "day": self.day, "last": self._last, "shared": shared}
        if not self._packed:  # by far the largest part changes once a day
            self._packed = _pack(self._by_rate()[:2])
        rest = _pack(self._by_rate()[2:])
        head = json.dumps(header | {"season": len(self._packed)}).encode()
        return head + b"\n" + self._packed + rest

    @classmethod
    def from_bytes(cls, state: bytes) -> LiveBaseline:
        """Return the learning that was stored, for ``resume``; it expects nothing by a reference.

        Raises
        ------
        ValueError
            If the bytes are damaged, or of an unknown format.
        """
        try:
            head, _, body = state.partition(b"\n")
            header = json.loads(head)
            if header["format"] != _FORMAT:
                raise ValueError(f"the state has format {header['format']}, this release reads {_FORMAT}")
            keys = [RateKey(*(*key, "coverage")[:3]) for key in header["keys"]]  # earlier releases wrote no kind
            baseline = cls(keys, [NO_REFERENCE] * len(keys), 0.0, 0.0)
            _unpack(body[: header["season"]], baseline._by_rate()[:2])
            _unpack(body[header["season"] :], baseline._by_rate()[2:])
            for array, values in zip(baseline.dispersion.shared(), header["shared"], strict=True):
                array[...] = values
            baseline.day, baseline._last = int(header["day"]), int(header["last"])
        except (zlib.error, KeyError, TypeError, ValueError) as error:
            raise ValueError("the stored live baseline is damaged: it is learned from the start") from error
        return baseline

    def _recurs(self, weekday: int, due: FloatArray, calm: BoolArray) -> BoolArray:
        """Return whether the day deviates as its weekday did a week before, bool[K], and note its deviation."""
        deviation = np.log((self._members.sum(axis=0) + 0.5) / (due + 0.5))
        deviation = np.where(calm | (due == 0), 0.0, deviation)
        before, between = self.deviations[weekday], np.delete(self.deviations, weekday, axis=0)
        alike = np.abs(deviation - before) < np.minimum(np.abs(deviation), np.abs(before)) / 2
        recurring = alike & ((between == 0).sum(axis=0) >= _CALM_BETWEEN)
        self.deviations[weekday] = np.where(recurring, 0.0, deviation)
        return np.asarray(recurring)

    def _by_rate(self) -> tuple[NDArray[Any], ...]:
        """Return the arrays whose last axis are the slices; those of the season by hour first."""
        own = self.since, self.alarmed, self.deviations, self._hourly, self._members, self._rows
        return *self.season.arrays(), *own, *self.dispersion.by_rate(), *self.peaks.arrays()

    def _changed(self) -> None:
        self._packed, self._level = b"", None
        self.season.touch()

    def _expected(self, at: int) -> FloatArray:
        hour, by_table = self.hour(at), self._by_table()
        expected = self.season.profile(self._hourly).expected(hour)
        if self.table is None or not by_table.any():
            return expected
        return np.where(by_table, self._table_level()[0] * self.table.at(np.array([hour]))[0][0], expected)

    def _by_table(self) -> BoolArray:
        """Return whether the season is that of the training table, bool[K]: its uncertainty is below half the swing."""
        return (self.season.days < SETTLED_DAYS) & (self.table is not None and self.table.spread < self.swing / 2)

    def _table_level(self) -> tuple[FloatArray, FloatArray]:
        if self._level is None and self.table is not None:
            self._level = self.table.level(self.season, self._hourly)
        return self._level or (np.zeros(len(self.keys)), np.zeros(len(self.keys)))

    def _day(self, at: int) -> int:
        return (at + self._utc_offset(at)) // _DAY_SECONDS

    def _utc_offset(self, at: int) -> int:
        """Return the seconds by which the zone is ahead of UTC; it changes at full quarters of an hour."""
        quarter = at // 900
        if self._offset[0] != quarter:
            offset = datetime.fromtimestamp(at, self.zone).utcoffset()
            self._offset = quarter, 0 if offset is None else int(offset.total_seconds())
        return self._offset[1]

    def _reference_bands(self) -> tuple[FloatArray, ...]:
        """Return lower and upper limit by the reference, and its rate."""
        limits = (np.array([getattr(band, name) for band in self.references]) for name in ("lower", "upper"))
        return *limits, np.array([band.reference.value or 0.0 for band in self.references])


NO_REFERENCE = ToleranceBand(Rate(0, 0), 0.0, 1.0, 0.0)
"""Band of a slice of which nothing is expected."""


def named_zone(name: str) -> tzinfo:
    """Return a time zone by name; UTC needs no database of time zones."""
    return UTC if name == "UTC" else ZoneInfo(name)


def _pack(arrays: Sequence[NDArray[Any]]) -> bytes:
    body = b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in arrays)
    return zlib.compress(body, _COMPRESSION)


def _unpack(data: bytes, arrays: Sequence[NDArray[Any]]) -> None:
    body, offset = zlib.decompress(data), 0
    for array in arrays:
        values = np.frombuffer(body, array.dtype.newbyteorder("<"), array.size, offset)
        array[...] = values.reshape(array.shape)
        offset += array.nbytes
    if offset != len(body):
        raise ValueError(f"expected {offset} bytes, got {len(body)}")
