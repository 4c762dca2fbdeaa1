"""Electricity market of New South Wales, 1996 to 1998, as rows, slices and counts: a real series with real seasons.

    python tests/benchmarks/elec_series.py --data FOLDER [--counts FILE.csv [--shuffle SEED]]
        [--alarms FILE.json] [--image FILE.svg]

FOLDER is that of docs/data.md; the file is elec/elec.csv, of 45,312 half hours from 7 May 1996 on. It is read here and
never shipped. It has Sunday, 4 May 1997, twice, first with the constants that the Victorian columns have until then,
then with their values. The first copy is left out: otherwise every later day would have the weekday of the next, and
the last day would not be 5 December 1998.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pictures import line_panels

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

DAY, WEEK = 48, 7 * 48
LEARNING_ROWS = 4 * WEEK
BEGIN = datetime(1996, 5, 7)
REPEATED = slice(17_376, 17_424)
PREDICTED_DAYS = 2
MONTHS = ((1996, 7), (1997, 1), (1997, 7), (1998, 1), (1998, 7))
HIGH_DEMAND = ("high_demand", "peak_demand", "record_demand", "morning_high_demand")
WINTER = (*HIGH_DEMAND, "evening_high_demand", "demand_ramp")
LOW_DEMAND = ("low_demand", "weekend_low_demand")
LOW_PRICE = ("low_price", "night_low_price", "business_low_price", "morning_low_price")
HIGH_PRICE = ("high_price", "price_spike", "record_price", "price_jump", "price_fall")
CONTROLS = ("night", "evening", "weekend", "low_demand_high_price")
"""Slices that cannot drift: times of the day and week, and one without members."""


@dataclass(frozen=True, slots=True)
class SeenChange:
    """Change read off the weekly rates, with the slices in which it is plain.

    Parameters
    ----------
    first, last
        Days between which it begins.
    up, down
        Slices whose rates rise and fall.
    yearly
        Whether it comes with the season of the year. It is real all the same: nothing has learned the year yet.
    """

    first: date
    last: date
    what: str
    up: tuple[str, ...] = ()
    down: tuple[str, ...] = ()
    yearly: bool = False

    def explains(self, slice_: str, direction: str, since: date) -> bool:
        """Return whether an alarm that dates its change so is this one; the date is an estimate, to a week."""
        moved = self.up if direction == "up" else self.down
        return slice_ in moved and self.first - timedelta(days=7) <= since <= self.last + timedelta(days=7)


_SEEN: tuple[tuple[str, str, str, tuple[str, ...], tuple[str, ...], bool], ...] = (
    ("1996-05-28", "1996-06-18", "the dear weeks of May 1996 end", (), ("high_price", "evening_high_price"), False),
    ("1996-06-04", "1996-07-09", "winter: demand is high four times as often", WINTER, LOW_DEMAND, True),
    ("1996-07-09", "1996-08-06", "cheap weeks", LOW_PRICE, (), False),
    ("1996-08-27", "1996-09-17", "the cheap weeks end", ("middle_price",), LOW_PRICE, False),
    ("1996-08-27", "1996-09-17", "winter ends", LOW_DEMAND, WINTER, True),
    ("1996-12-17", "1997-01-07", "Christmas", ("low_demand", "lowest_demand"), ("demand_ramp",), True),
    ("1997-02-04", "1997-02-25", "hot weeks", ("high_demand", "peak_demand", "morning_high_demand"), (), True),
    ("1997-02-25", "1997-03-11", "cheaper nights", ("low_price", "night_low_price"), (), False),
    (
        "1997-05-04",
        "1997-05-13",
        "the market is joined with that of Victoria: transfers begin, and the price moves every half hour",
        ("transfer_above", "transfer_below"),
        ("usual_transfer", "price_unchanged"),
        False,
    ),
    (
        "1997-05-13",
        "1997-07-08",
        "prices fall, and stay low for a year",
        (*LOW_PRICE, "price_below_first_weeks"),
        ("middle_price",),
        False,
    ),
    ("1997-05-27", "1997-06-24", "winter", (*WINTER, "high_demand_transfer_above"), LOW_DEMAND, True),
    ("1997-08-19", "1997-09-16", "winter ends", LOW_DEMAND, (*WINTER, "high_demand_transfer_above"), True),
    ("1997-09-02", "1997-09-16", "transfers turn", ("transfer_below",), ("transfer_above",), False),
    ("1997-09-09", "1997-09-30", "three dear weeks", ("high_price", "price_spike", "evening_high_price"), (), False),
    ("1997-10-07", "1997-10-21", "prices recover by half", ("middle_price",), LOW_PRICE, False),
    ("1997-10-28", "1997-11-11", "transfers turn back", ("transfer_above",), ("transfer_below",), False),
    (
        "1997-11-25",
        "1997-12-02",
        "a hot week with record prices",
        (*HIGH_PRICE, "high_price_transfer_below", "high_demand", "peak_demand", "record_demand"),
        (),
        False,
    ),
    ("1997-12-02", "1997-12-16", "prices fall again", LOW_PRICE, ("middle_price",), False),
    ("1997-12-16", "1998-01-06", "Christmas", ("low_demand", "lowest_demand"), ("demand_ramp",), True),
    ("1998-01-13", "1998-02-03", "hot weeks", HIGH_DEMAND, (), True),
    ("1998-03-24", "1998-04-07", "transfers turn for two weeks", ("transfer_below",), ("transfer_above",), False),
    ("1998-05-05", "1998-05-26", "four weeks of restless prices", HIGH_PRICE, (), False),
    ("1998-06-09", "1998-06-30", "winter", (*WINTER, "high_demand_transfer_above"), LOW_DEMAND, True),
    (
        "1998-06-16",
        "1998-07-07",
        "two weeks of record prices",
        (*HIGH_PRICE, "weekend_high_price", "high_demand_high_price"),
        (),
        False,
    ),
    (
        "1998-06-16",
        "1998-07-21",
        "the year of low prices ends",
        ("middle_price",),
        (*LOW_PRICE, "price_below_first_weeks"),
        False,
    ),
    ("1998-08-18", "1998-09-08", "winter ends", LOW_DEMAND, (*WINTER, "high_demand_transfer_above"), True),
    ("1998-09-22", "1998-10-06", "cheap weeks", ("low_price", "night_low_price"), (), False),
)
CHANGES = tuple(SeenChange(date.fromisoformat(first), date.fromisoformat(last), *rest) for first, last, *rest in _SEEN)
"""Changes to see in the picture, written down before any detector was run on the series.

They say what is to be found. An alarm that none explains may be right all the same, since the series is restless:
``SliceRows.around`` has the rates before and after the start that it states. Of the right guesses no change is seen:
they are 62 % of all and vary, from week to week, nearly three times as much as chance alone would.
"""


@dataclass(frozen=True)
class ElecSeries:
    """Rows of the series in order of time; N half hours.

    Parameters
    ----------
    half_hour : int64[N]
        Half hours since the begin, from which follow time of day and weekday.
    demand, price, transfer : float64[N]
        Of New South Wales: demand, price, and transfer to and from Victoria; each normalised to [0, 1].
    label : int64[N]
        1 if the price is above its mean over the last 24 hours.
    """

    half_hour: IntArray
    demand: FloatArray
    price: FloatArray
    transfer: FloatArray
    label: IntArray

    @classmethod
    def read(cls, data: Path) -> ElecSeries:
        """Read the file of a folder of public data."""
        rows = np.delete(pd.read_csv(data / "elec/elec.csv").to_numpy(), REPEATED, axis=0)
        _, price, demand, _, _, transfer, label = rows.T
        return cls(np.arange(len(rows)), demand, price, transfer, label.astype(np.int64))

    @property
    def hour(self) -> FloatArray:
        """Hour of the day, in [0, 24)."""
        return self.half_hour % DAY / 2

    @property
    def weekday(self) -> IntArray:
        """Day of the week; Monday is 0."""
        return (self.half_hour // DAY + BEGIN.weekday()) % 7

    @property
    def times(self) -> list[datetime]:
        """Time of each row, without a zone: that of the market."""
        return [BEGIN + timedelta(minutes=30 * int(k)) for k in self.half_hour]

    def slices(self) -> dict[str, Mask]:
        """Return the members of every slice, bool[N]; every limit is a quantile of the first four weeks."""
        demand, price, transfer, hour = self.demand, self.price, self.transfer, self.hour
        d, p = (np.quantile(v[:LEARNING_ROWS], [0.02, 0.1, 0.9, 0.98, 1.0]) for v in (demand, price))
        rise, change = np.diff(price, prepend=price[0]), np.abs(np.diff(demand, prepend=demand[0]))
        step, ramp = (np.quantile(np.abs(moves[:LEARNING_ROWS]), 0.95) for moves in (rise, change))
        usual = np.median(transfer[:LEARNING_ROWS])
        night, morning, evening = hour < 6, (hour >= 7) & (hour < 10), (hour >= 17) & (hour < 20)
        weekend = self.weekday >= 5
        business = (hour >= 9) & (hour < 17) & ~weekend
        high_demand, low_demand, high_price, low_price = demand >= d[2], demand <= d[1], price >= p[2], price <= p[1]
        return {
            "high_demand": high_demand,
            "peak_demand": demand >= d[3],
            "record_demand": demand > d[4],
            "low_demand": low_demand,
            "lowest_demand": demand <= d[0],
            "middle_demand": ~high_demand & ~low_demand,
            "demand_ramp": change >= ramp,
            "high_price": high_price,
            "price_spike": price >= p[3],
            "record_price": price > p[4],
            "low_price": low_price,
            "price_below_first_weeks": price < price[:LEARNING_ROWS].min(),
            "middle_price": ~high_price & ~low_price,
            "price_unchanged": rise == 0,
            "price_jump": rise >= step,
            "price_fall": rise <= -step,
            "usual_transfer": transfer == usual,
            "transfer_above": transfer > usual,
            "transfer_below": transfer < usual,
            "high_demand_low_price": high_demand & low_price,
            "high_demand_high_price": high_demand & high_price,
            "low_demand_high_price": low_demand & high_price,
            "high_demand_transfer_above": high_demand & (transfer > usual),
            "high_price_transfer_below": high_price & (transfer < usual),
            "evening_high_price": evening & high_price,
            "evening_high_demand": evening & high_demand,
            "morning_high_demand": morning & high_demand,
            "morning_low_price": morning & low_price,
            "night_low_price": night & low_price,
            "night_usual_demand": night & ~low_demand,
            "business_low_price": business & low_price,
            "weekend_high_price": weekend & high_price,
            "weekend_low_demand": weekend & low_demand,
            "night": night,
            "evening": evening,
            "weekend": weekend,
        }

    def rows(self) -> SliceRows:
        """Return memberships, labels and predictions.

        The prediction is a guess without a model: the label of two days before, the last whole day whose labels are
        known. It is right in 62 % of the rows.
        """
        slices = self.slices()
        predicted = np.roll(self.label, PREDICTED_DAYS * DAY)
        return SliceRows(tuple(slices), np.stack(list(slices.values()), axis=1), self.label, predicted)


@dataclass(frozen=True)
class SliceRows:
    """Rows in order of time, one each half hour: ``member`` bool[N, S], ``label`` and ``predicted`` int64[N].

    A month has 1,440 rows, so the stream is sparse, and they are not independent: an hour of high demand follows
    another, and one cold week another. One row is one observation; ``counts`` adds up any number of them, such as
    48, so that the hour of the day is no season, or 336, so that the weekday is none either.
    """

    names: tuple[str, ...]
    member: Mask
    label: IntArray
    predicted: IntArray

    def shuffled(self, seed: int) -> SliceRows:
        """Return a copy without drift, seasons and dispersion: the same rows in a random order."""
        order = np.random.default_rng(seed).permutation(len(self.label))
        return SliceRows(self.names, self.member[order], self.label[order], self.predicted[order])

    def counts(self, block_rows: int) -> IntArray:
        """Return the members of each whole block of rows, int64[B, S]."""
        blocks = len(self.label) // block_rows
        whole = self.member[: blocks * block_rows]
        return whole.reshape(blocks, block_rows, -1).sum(axis=1)

    def correct(self, block_rows: int) -> IntArray:
        """Return the members of each whole block whose prediction is right, int64[B, S]."""
        right = SliceRows(self.names, self.member & (self.label == self.predicted)[:, None], self.label, self.predicted)
        return right.counts(block_rows)

    def around(self, slice_: str, since: date) -> tuple[float, float, float]:
        """Return the rate of a slice in the first four weeks, in the four weeks before a day, and in two from it on."""
        day = (since - BEGIN.date()).days * DAY
        member = self.member[:, self.names.index(slice_)]
        parts = slice(LEARNING_ROWS), slice(max(day - 4 * WEEK, 0), max(day, 1)), slice(day, day + 2 * WEEK)
        first, before, after = (float(member[part].mean()) for part in parts)
        return first, before, after

    def dispersion(self, block_rows: int, rows: slice) -> FloatArray:
        """Return float64[S]: the variance of blocks of rows over that of independent rows; 1 if all or none are in."""
        part = SliceRows(self.names, self.member[rows], self.label[rows], self.predicted[rows])
        counts, p = part.counts(block_rows), part.member.mean(axis=0)
        binomial = block_rows * p * (1 - p)
        return np.divide(counts.var(axis=0, ddof=1), binomial, out=np.ones(len(p)), where=binomial > 0)

    def label_hours(self, seed: int, slower: float = 1.0) -> FloatArray:
        """Return float64[N]: the hours from each row to its label, a day and an exponential time of mean 6 h.

        The latter is ``slower`` times as long for rows of label 1, so that early labels are of one class.
        """
        extra = np.random.default_rng([seed, 1]).exponential(6.0, len(self.label))
        return 24 + extra * np.where(self.label == 1, slower, 1.0)

    def write_counts(self, path: Path) -> None:
        """Write the table of counts that a replay reads: start in UTC, known rows, members of every slice."""
        starts = [(BEGIN + timedelta(minutes=30 * k)).isoformat() + "Z" for k in range(len(self.label))]
        lines = [",".join(row) for row in self.member.astype(np.int64).astype(str).tolist()]
        body = "\n".join(f"{start},1,{line}" for start, line in zip(starts, lines, strict=True))
        path.write_text(f"start,known,{','.join(self.names)}\n{body}\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class JudgedAlarm:
    """Coverage alarm of a replay, with the listed change that it is, if any, and the rates beside its start.

    ``first``, ``before`` and ``after`` are those of ``SliceRows.around``. Without a listed change it is plain if the
    rate has moved in its direction by half of the first weeks' or of the weeks before: a person would agree.
    """

    slice: str
    direction: str
    raised: date
    since: date
    change: SeenChange | None
    first: float
    before: float
    after: float

    @property
    def plain(self) -> bool:
        """Whether a person would agree."""
        if self.direction == "up":
            return self.change is not None or self.after > 1.5 * min(self.first, self.before)
        return self.change is not None or self.after < max(self.first, self.before) / 1.5


def judge(rows: SliceRows, alarms: Sequence[Mapping[str, Any]]) -> tuple[list[JudgedAlarm], list[SeenChange]]:
    """Return the coverage alarms that a replay wrote, each judged, and the listed changes that none of them is."""
    judged = []
    for alarm in alarms:
        if alarm["kind"] != "coverage" or alarm["slice"] not in rows.names:
            continue
        name, direction = alarm["slice"], alarm["direction"]
        raised, since = (datetime.fromisoformat(alarm[key]).date() for key in ("raised", "since"))
        change = next((each for each in CHANGES if each.explains(name, direction, since)), None)
        judged.append(JudgedAlarm(name, direction, raised, since, change, *rows.around(name, since)))
    found = {each.change for each in judged}
    return judged, [change for change in CHANGES if change not in found]


def picture(rows: SliceRows, alarms: Sequence[JudgedAlarm] = ()) -> str:
    """Return the weekly rates of every slice and of right guesses as SVG: dashed changes, and dots for alarms."""
    weekly = rows.counts(WEEK) / WEEK
    panels = {name: weekly[:, k].tolist() for k, name in enumerate(rows.names)}
    panels["right guesses"] = ((rows.label == rows.predicted)[: len(weekly) * WEEK].reshape(-1, WEEK).mean(1)).tolist()
    ticks = {week_of(date(year, month, 1)): f"{month}/{year % 100}" for year, month in MONTHS}
    marks = {name: [week_of(each.first) for each in CHANGES if name in each.up + each.down] for name in panels}
    dots = {name: [week_of(each.raised) for each in alarms if each.slice == name] for name in panels}
    return line_panels("Weekly rates of the slices, electricity market 1996 to 1998", panels, ticks, marks, 4, dots)


def week_of(at: date) -> int:
    """Return the week of the series in which a time is."""
    return (at - BEGIN.date()).days // 7


def main() -> int:
    """Write, draw or judge what is asked for; print what is not independent in the series."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public data sets")
    parser.add_argument("--shuffle", type=int, metavar="SEED", help="take the copy with this seed")
    parser.add_argument("--counts", type=Path, help="where the table of counts for a replay goes")
    parser.add_argument("--alarms", type=Path, help="what the replay wrote, as JSON: judge its alarms")
    parser.add_argument("--image", type=Path, help="where the picture goes")
    options = parser.parse_args()
    rows = ElecSeries.read(options.data).rows()
    if options.shuffle is not None:
        rows = rows.shuffled(options.shuffle)
    if options.counts:
        rows.write_counts(options.counts)
    alarms, missed = judge(rows, json.loads(options.alarms.read_text())["alarms"]) if options.alarms else ([], [])
    if options.image:
        options.image.write_text(picture(rows, alarms), encoding="utf-8")
    for each in alarms:
        verdict = each.change.what if each.change else "moved" if each.plain else "NOT SEEN"
        rates = f"{each.first:.1%}, {each.before:.1%} -> {each.after:.1%}"
        print(f"{each.raised} {each.slice} {each.direction} since {each.since}: {rates}: {verdict}")
    for change in missed:
        print(f"no alarm: {change.first} {change.what}")
    if not options.alarms:
        print_dispersion(rows)
    return 0


def print_dispersion(rows: SliceRows) -> None:
    """Print rates and dispersion of every slice."""
    first, rest = slice(LEARNING_ROWS), slice(LEARNING_ROWS, None)
    print(f"{'slice':>28} {'first weeks':>11} {'later':>7}   dispersion of a day, a week: first weeks; later")
    for k, name in enumerate(rows.names):
        rates = rows.member[first, k].mean(), rows.member[rest, k].mean()
        early, late = ([rows.dispersion(size, part)[k] for size in (DAY, WEEK)] for part in (first, rest))
        print(
            f"{name:>28} {rates[0]:>11.1%} {rates[1]:>7.1%}   {early[0]:5.1f} {early[1]:6.1f}; "
            f"{late[0]:5.1f} {late[1]:6.1f}"
        )


if __name__ == "__main__":
    sys.exit(main())
