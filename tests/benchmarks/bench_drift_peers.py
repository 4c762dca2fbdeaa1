"""Drift detectors of other tools beside ours on the same streams: false alarms, delays, misses, and a skill score.

    python tests/benchmarks/bench_drift_peers.py --out FILE.json [--images FOLDER]
        [--slices 40] [--days 14] [--streams 6] [--kinds "independent" "clumps x3" ...] [--others FILE.json]

**False alarms**: two weeks of calm traffic of every kind, after four weeks for learning. Every alarm counts, and so
does every day of a slice with one (a slice-day). Ours has the live baseline of the service, and the threshold of 1,000
slices.

**Delays**: in streams of four weeks for learning and four days, each slice changes once, for good, at a random time of
the first day. A change without an alarm in three days is missed. The hourly z-test gets the limit of a slice that
changes alone among 1,000, since not all slices change at once elsewhere.

**Skill**: what a detector saves, of the cost that is to be saved. In a share of the slice-days, the density, the slice
changes. Such a day costs an hour for each hour until the alarm, at most 24; a calm day with an alarm costs as much as
FALSE_ALARM_HOURS of an undetected change, however many alarms it has. The skill is 1 - cost / reference, where the
reference is the cheaper of never firing (density x 24) and always firing ((1 - density) x FALSE_ALARM_HOURS). So it is
1 for a detector that finds every change at once and raises no false alarm; and both policies that do not look at the
data have a skill of at most 0 at every density: one costs the reference, the other as much or more. No mixture of the
two has more, since its cost is a mixture of theirs. It is the economic value of a forecast: Richardson (2000), Skill
and relative economic value of the ECMWF ensemble prediction system, Q. J. R. Meteorol. Soc. 126, 649-667. The lower
limit has the upper 95 % limits of both the share of days with a false alarm and the mean delay.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from drift_streams import SLICES, Watch, shown, side_by_side
from peer_detectors import PEERS, Alarms, Recording, lone_z_test
from pictures import dot_plot
from traffic_streams import (
    BLOCK_SECONDS,
    DAY_HOURS,
    HOUR_BLOCKS,
    KINDS,
    LEARNING_HOURS,
    Change,
    FloatArray,
    Hour,
    IntArray,
    TrafficStream,
    spread_rates,
)

from sfs.intervals import Rate

SEED = 0
COVERAGES, RATIOS = (0.002, 0.01, 0.05), (0.0, 0.5, 1.5, 2.0, 3.0)
CHANGED_KINDS = ("independent", "clumps x3", "day and week")
CHANGE_HOURS, PATIENCE_HOURS = DAY_HOURS, 3 * DAY_HOURS
DENSITIES, FALSE_ALARM_HOURS = (0.001, 0.01, 0.1), 1.0
OURS = "Slicewatch"
NONE: Mapping[str, Any] = {}


def ours(hours: Iterable[Hour], rates: FloatArray, learning_hours: int, changes: IntArray | None = None) -> Alarms:
    """Return the alarms of the product's detector after the learning.

    With ``changes``, int64[S], a slice has no rows after its first alarm from this block on: the next ones cost time.
    """
    watch, over = Watch(rates), np.zeros(len(rates), np.bool_)
    fired: dict[int, IntArray] = {}
    for hour in hours:
        rows = hour.n if hour.n.ndim == 2 else hour.n[:, None]
        for block, (n, members) in enumerate(zip(rows, hour.members, strict=True), hour.first):
            found = watch.feed(block, members * ~over, n * ~over)
            if found and block >= learning_hours * HOUR_BLOCKS:
                alarmed = fired[block] = np.array([int(each.drift.slice) for each in found], np.int64)
                if changes is not None:
                    over[alarmed] = block >= changes[alarmed]
        if over.all():
            break
    return Alarms.of(fired)


def calm_ours(
    kinds: Sequence[str], slices: int, days: int, learning_hours: int = LEARNING_HOURS
) -> dict[str, dict[str, int]]:
    """Return the alarms of ours on calm traffic, kind by kind.

    For speed, kinds with as many rows by day share a detector, whose slices have rows of their own.
    """
    groups: dict[int | None, list[str]] = {}
    for kind in kinds:
        groups.setdefault(KINDS[kind].halved_after_hours, []).append(kind)
    figures = {}
    for group in groups.values():
        rates = spread_rates(slices, SEED)
        streams = [TrafficStream(KINDS[kind], rates, SEED) for kind in group]
        hours = shown(", ".join(group), side_by_side(streams, learning_hours + days * DAY_HOURS))
        alarms = ours(hours, np.tile(rates, len(group)), learning_hours)
        for number, kind in enumerate(group):
            figures[kind] = alarms.among(number * slices, (number + 1) * slices).figures()
    return figures


def calm(
    kind: str,
    slices: int,
    days: int,
    own: Mapping[str, int],
    learning_hours: int = LEARNING_HOURS,
    known: Mapping[str, Any] = NONE,
) -> dict[str, Any]:
    """Return the alarms of every detector on calm traffic, with those of ours; known figures are not measured again."""
    figures = {OURS: own, **known}
    if len(known) < len(PEERS):
        stream = TrafficStream(KINDS[kind], spread_rates(slices, SEED), SEED)
        recording = Recording.of(stream, learning_hours + days * DAY_HOURS)
        figures |= {name: detector(recording, learning_hours).figures() for name, detector in PEERS.items()}
    return {"kind": kind, "slice_days": slices * days, "detectors": figures}


def changed(
    kind: str,
    streams: int,
    learning_hours: int = LEARNING_HOURS,
    change_hours: int = CHANGE_HOURS,
    patience_hours: int = PATIENCE_HOURS,
    known: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Return the delays of every detector, change by change; known figures are not measured again."""
    pairs = [(coverage, ratio) for coverage in COVERAGES for ratio in RATIOS]
    rates = np.repeat([coverage for coverage, _ in pairs], streams)
    factors = np.repeat([ratio for _, ratio in pairs], streams).tolist()
    spread = np.random.default_rng([SEED, 3]).integers(0, change_hours * HOUR_BLOCKS, len(rates))
    start = learning_hours * HOUR_BLOCKS + spread
    places = enumerate(zip(start.tolist(), factors, strict=True))
    changes = tuple(Change(block, (k,), factor) for k, (block, factor) in places)
    stream = TrafficStream(KINDS[kind], rates, SEED + 1, changes)
    hours = learning_hours + change_hours + patience_hours
    found = {OURS: ours(shown(f"changes, {kind}", stream.hours(hours)), rates, learning_hours, start)}
    if not known:
        recording = Recording.of(stream, hours)
        alone = {**PEERS, "hourly z-test, BH": lone_z_test(SLICES)}
        found |= {name: detector(recording, learning_hours) for name, detector in alone.items()}
    rows: list[dict[str, Any]] = [
        {"kind": kind, "coverage": coverage, "ratio": ratio, "streams": streams, "detectors": {}}
        for coverage, ratio in pairs
    ]
    for name, alarms in found.items():
        delays = (alarms.first_after(start) + 1 - start).reshape(len(pairs), streams)
        for row, each in zip(rows, delays, strict=True):
            row["detectors"][name] = delay_figures(each, patience_hours)
    for row, each in zip(rows, known, strict=bool(known)):
        row["detectors"] |= each
    return rows


def delay_figures(blocks: FloatArray, patience_hours: int) -> dict[str, Any]:
    """Return the mean delay of the changes that were found in time, the missed ones, and the hours of a day lost."""
    found = blocks[blocks <= patience_hours * HOUR_BLOCKS]
    lost = np.minimum(blocks / HOUR_BLOCKS, DAY_HOURS)
    mean = float(found.mean()) if found.size else None
    return {
        "missed": len(blocks) - len(found),
        "mean_minutes": None if mean is None else round(mean * BLOCK_SECONDS / 60, 1),
        "mean_rows": None if mean is None else round(mean * KINDS["independent"].rows),
        "hours_lost": lost.round(4).tolist(),
    }


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a detector in hours of an undetected change.

    Parameters
    ----------
    alarm_days, days
        Calm slice-days with an alarm, and all of them.
    hours_lost
        Hours from a change to its alarm, at most 24, of each change.
    """

    alarm_days: int
    days: int
    hours_lost: Sequence[float]

    def skill(self, density: float) -> float:
        """Return the share of the cost of the better trivial policy that is saved."""
        return self._skill(density, self.alarm_days / self.days, float(np.mean(self.hours_lost)))

    def skill_lower(self, density: float) -> float:
        """Return the skill at the upper 95 % limits of false alarms and mean delay."""
        error = float(np.std(self.hours_lost, ddof=1)) / math.sqrt(len(self.hours_lost))
        _, upper = Rate(self.alarm_days, self.days).interval(0.9)
        return self._skill(density, upper, min(float(np.mean(self.hours_lost)) + 1.645 * error, DAY_HOURS))

    @staticmethod
    def _skill(density: float, alarm_share: float, hours: float) -> float:
        always, never = (1 - density) * FALSE_ALARM_HOURS, density * DAY_HOURS
        return 1 - (alarm_share * always + density * hours) / min(always, never)


def skills(calm_rows: Sequence[Mapping[str, Any]], changes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the skill of every detector, of both trivial policies too, for every kind of traffic and density."""
    rows = []
    for row in calm_rows:
        same = [change["detectors"] for change in changes if change["kind"] == row["kind"]]
        if not same:
            continue
        costs = {
            name: Cost(each["slice_days"], row["slice_days"], [hours for c in same for hours in c[name]["hours_lost"]])
            for name, each in row["detectors"].items()
        }
        costs["never fire"] = Cost(0, row["slice_days"], [float(DAY_HOURS)] * 2)
        for density in DENSITIES:
            figures = {
                name: {"skill": round(cost.skill(density), 3), "lower": round(cost.skill_lower(density), 3)}
                for name, cost in costs.items()
            }
            rows.append({"kind": row["kind"], "density": density, "detectors": figures})
    return rows


def targets(rows: Sequence[Mapping[str, Any]], skill_rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the figures to reach: at most one false alarm, and a skill above 0 at every density."""
    found = []
    for row in rows:
        alarms = row["detectors"][OURS]["alarms"]
        what = f"false alarms, {row['kind']}"
        found.append({"what": what, "value": f"{alarms:,}", "reach": "<= 1", "reached": alarms <= 1})
    for kind in dict.fromkeys(row["kind"] for row in skill_rows):
        lowest = min(row["detectors"][OURS]["lower"] for row in skill_rows if row["kind"] == kind)
        what = f"lowest skill of all densities, {kind}"
        found.append({"what": what, "value": f"{lowest:.2f}", "reach": "> 0", "reached": lowest > 0})
    return found


def false_alarm_picture(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the false alarms of every detector on every kind of traffic, as SVG."""
    marks = {name: [row["detectors"][name]["alarms"] for row in rows] for name in rows[0]["detectors"]}
    ticks = {0.5: "0", 1: "1", 10: "10", 100: "100", 1e3: "1,000", 1e4: "10,000", 1e5: "100,000", 1e6: "1 million"}
    placed = {name: [max(alarms, 0.5) for alarms in each] for name, each in marks.items()}
    return dot_plot("False alarms in the time watched, all slices", [row["kind"] for row in rows], placed, ticks)


def delay_picture(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the mean delays of every detector for every change, as SVG; at the right what is missed mostly."""
    missed = 60 * 24 * 6
    marks = {
        name: [
            missed if each["missed"] > row["streams"] / 2 else each["mean_minutes"]
            for row in rows
            for each in (row["detectors"][name],)
        ]
        for name in rows[0]["detectors"]
        if name != "always fire"
    }
    ticks = {0.2: "12 s", 1: "1 min", 10: "10 min", 60: "1 h", 360: "6 h", 1440: "1 day", missed: "missed"}
    labels = [f"{row['coverage']:.1%} x {row['ratio']:g}" for row in rows]
    return dot_plot(f"Mean time from the change to the alarm, {rows[0]['kind']}", labels, marks, ticks)


def main() -> int:
    """Measure, print, draw and write; 1 when a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the results go, as JSON")
    parser.add_argument("--images", type=Path, help="folder of the pictures")
    parser.add_argument("--slices", type=int, default=40, help="of calm traffic")
    parser.add_argument("--days", type=int, default=14, help="of calm traffic")
    parser.add_argument("--streams", type=int, default=6, help="of each change")
    parser.add_argument("--others", type=Path, help="results of an earlier run: measure only ours again")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS), help="kinds of traffic")
    options = parser.parse_args()
    setting = {"slices": options.slices, "days": options.days, "streams": options.streams, "seed": SEED}
    earlier = json.loads(options.others.read_text()) if options.others else {"calm": [], "changes": [], **setting}
    if any(earlier[name] != value for name, value in setting.items()):
        raise SystemExit(f"{options.others} was measured with other settings than {setting}")
    own, rows, changes = calm_ours(options.kinds, options.slices, options.days), [], []
    for kind in options.kinds:
        found = [others(row) for row in earlier["calm"] if row["kind"] == kind]
        rows.append(calm(kind, options.slices, options.days, own[kind], known=found[0] if found else NONE))
        print(f"{kind:>18}:", {name: each["alarms"] for name, each in rows[-1]["detectors"].items()}, flush=True)
        if kind in CHANGED_KINDS:
            found = [others(row) for row in earlier["changes"] if row["kind"] == kind]
            changes += changed(kind, options.streams, known=found)
    return finish({**setting, "budget_slices": SLICES, "calm": rows, "changes": changes}, options)


def others(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of the detectors of other tools."""
    return {name: figures for name, figures in row["detectors"].items() if name != OURS}


def finish(document: dict[str, Any], options: argparse.Namespace) -> int:
    """Add skills and targets to the measurements; write and draw them."""
    document["skills"] = skills(document["calm"], document["changes"])
    document["targets"] = targets(document["calm"], document["skills"])
    options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if options.images:
        draw(document["calm"], document["changes"], options.images)
    for row in document["targets"]:
        print(f"{row['what']}: {row['value']} ({row['reach']}): {'reached' if row['reached'] else 'MISSED'}")
    return int(not all(row["reached"] for row in document["targets"]))


def draw(rows: Sequence[Mapping[str, Any]], changes: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write the pictures of false alarms and delays into a folder; return their paths."""
    pictures = {"false-alarms": false_alarm_picture(rows)}
    for kind in dict.fromkeys(row["kind"] for row in changes):
        pictures[f"delays-{kind.replace(' ', '-')}"] = delay_picture([row for row in changes if row["kind"] == kind])
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"drift-peers-{name}.svg" for name in pictures]
    for path, picture in zip(paths, pictures.values(), strict=True):
        path.write_text(picture, encoding="utf-8")
    return paths


if __name__ == "__main__":
    sys.exit(main())
