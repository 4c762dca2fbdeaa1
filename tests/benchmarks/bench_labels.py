"""False alarms and delays of accuracy on labels that are no random sample, of five designs on the same streams.

    python tests/benchmarks/bench_labels.py --part alarms --labels 300 --out FILE.json

The parts are `alarms` (a month of every kind of calm labels), `delays` (labels from a change to the alarm, where labels
are independent) and `changes` (which rates alarm after a change in a slice, in a family, everywhere, and of the mix of
classes).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from label_streams import DAY, FAMILY_SLICES, KINDS, START, Labels, LabelStream, Shift
from numpy.typing import NDArray

from service.monitor.alternatives import ALTERNATIVES, Alternatives
from service.monitor.drift_detector import DetectorState, log_threshold
from service.monitor.label_detector import Fall, LabelDetector, error_limits, log_thresholds
from service.monitor.tolerance_band import accuracy_band
from sfs.intervals import Rate

IntArray = NDArray[np.int64]

SLICES, FALSE_ALARMS_A_MONTH, TOLERANCE = 1_000, 1.0, 0.01
HELD_OUT = 2_000  # rows of every slice
BLOCK = 3_600  # seconds; blocks of 10 s give the same alarms within a few labels, and take a hundred times as long
SETTLING = DAY
DESIGNS = ("first labels", "cohorts of a week", "true class", "predicted class", "both, undivided", "both")
CHANGES: Mapping[str, tuple[float, tuple[float, float], tuple[float, float]]] = {
    "5 % to 10 %": (0.3, (0.02, 0.12), (2.2, 2.2)),
    "5 % to 15 %": (0.3, (0.02, 0.12), (3.8, 3.8)),
    "10 % to 20 %": (0.3, (0.05, 0.22), (2.25, 2.25)),
    "20 % to 33 %": (0.4, (0.12, 0.32), (2.0, 2.0)),
    "spam recall 88 % to 71 %": (0.3, (0.02, 0.12), (1.0, 3.0)),
    "spam recall 88 % to 48 %": (0.3, (0.02, 0.12), (1.0, 8.0)),
    "ham recall 98 % to 92 %": (0.3, (0.02, 0.12), (4.0, 1.0)),
}
"""Share of spam, error rates of ham and spam, and factors on their odds."""

LOWER = (1 / 1.15, 1 / 1.3, 1 / 1.5, 1 / 2, 1 / 3)
"""Factors on the odds of a correct prediction, of the designs that count all labels alike."""


class UndividedDetector(LabelDetector):
    """The detector without dispersion."""

    def divisors(self, rates: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return ones."""
        return np.ones(len(rates))


def thresholds(slices: int, families: int = 100) -> tuple[float, float, float]:
    """Return the thresholds with half of the false alarms for accuracy."""
    return log_thresholds(slices, families, FALSE_ALARMS_A_MONTH / 2)


def first_alarms(labels: Labels, reference: IntArray, design: str, block: int = BLOCK) -> list[tuple[int, int]]:
    """Return time and slice of every alarm of a design on blocks of so many seconds."""
    if design in ("first labels", "cohorts of a week"):
        return _of_all_labels(labels if design == "first labels" else labels.matured(7 * DAY), reference, block)
    limits = error_limits(reference, reference.sum(axis=(1, 2)), TOLERANCE, SLICES)
    if design in ("true class", "predicted class"):
        limits[:, 1 if design == "true class" else 0] = 1.0
    kind = LabelDetector if design == "both" else UndividedDetector
    own = len(reference)
    detector = kind(limits, np.zeros(own, np.bool_), np.full(own, thresholds(SLICES)[0]), START)
    blocks = labels.blocks(block, own)
    return [(end, fall.rate) for end, rates, counts in blocks for fall in detector.advance(end, rates, counts)]


def _of_all_labels(labels: Labels, reference: IntArray, block: int) -> list[tuple[int, int]]:
    right, n = np.einsum("kcc->k", reference), reference.sum(axis=(1, 2))
    bands = [accuracy_band(Rate(*each), TOLERANCE, SLICES) for each in zip(right.tolist(), n.tolist(), strict=True)]
    against = _lower_accuracies(np.array([band.lower for band in bands]))
    state, alarms = DetectorState.zeros(len(bands)), []
    none = np.zeros(len(bands), np.int64)
    for end, rates, counts in labels.blocks(block, len(bands)):
        correct, rows = none.copy(), none.copy()
        correct[rates], rows[rates] = np.einsum("kcc->k", counts), counts.sum(axis=(1, 2))
        state.advance(against, correct, rows, none, end)
        (alarmed,) = np.nonzero(state.evidence >= log_threshold(SLICES, FALSE_ALARMS_A_MONTH))
        alarms += [(end, int(rate)) for rate in alarmed]
        state.reset(alarmed)
    return alarms


def _lower_accuracies(limits: NDArray[np.float64]) -> Alternatives:
    """Return alternatives below limits of accuracies, float64[K]; the other rows have no weight."""
    odds = np.zeros((ALTERNATIVES, len(limits)))
    odds[: len(LOWER)] = np.where((limits > 0) & (limits < 1), np.log(LOWER)[:, None], 0.0)
    miss = -np.log1p(limits * np.expm1(odds))
    return Alternatives(odds + miss, miss, (odds < 0) / np.maximum((odds < 0).sum(axis=0), 1))


def calm(labels_a_month: int, kinds: list[str], designs: list[str], block: int, seed: int) -> list[dict[str, Any]]:
    """Return the false alarms of a month by kind of labels and design."""
    rows = []
    for kind in kinds:
        stream = LabelStream(KINDS[kind], SLICES, labels_a_month, seed)
        labels, reference = stream.labels(), stream.reference(HELD_OUT)
        alarms = {design: len(first_alarms(labels, reference, design, block)) for design in designs}
        if stream.labelling.slips:
            alarms["both, settled"] = len(first_alarms(labels.settled(SETTLING), reference, "both", block))
        rows.append({"kind": kind, "labels": labels_a_month, "alarms": alarms})
        print(f"{labels_a_month:>6,} {kind:<26}", "  ".join(f"{name} {n}" for name, n in alarms.items()), flush=True)
    return rows


def divergence(q: float, p: float) -> float:
    """Return the Kullback-Leibler divergence of Bernoulli(q) from Bernoulli(p)."""
    return q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))


def delays(labels_a_month: int, reference_rows: int, streams: int, seed: int) -> list[dict[str, Any]]:
    """Return the labels from a change to the alarm, in the mean over streams, by change and design."""
    rows, changed_at = [], 10
    log_c = math.log(SLICES * labels_a_month / (FALSE_ALARMS_A_MONTH / 2))
    days = 100 if labels_a_month >= 3_000 else 400
    for name, (spam, before, odds) in CHANGES.items():
        after = [rate * factor / (1 + rate * (factor - 1)) for rate, factor in zip(before, odds, strict=True)]
        overall, changed = ((1 - spam) * ham + spam * of_spam for ham, of_spam in (before, after))
        rates = np.full(streams, spam), np.tile(before, (streams, 1))
        shift = Shift(changed_at, tuple(range(streams)), odds)
        stream = LabelStream(KINDS["independent"], streams, labels_a_month, seed, (shift,), days, rates)
        labels, reference = stream.labels(), stream.reference(reference_rows)
        limit = 1 - accuracy_band(Rate(round(reference_rows * (1 - overall)), reference_rows), TOLERANCE, SLICES).lower
        moved = labels.predicted_at >= START + changed_at * DAY
        row: dict[str, Any] = {
            "change": name,
            "labels": labels_a_month,
            "errors": [round(overall, 3), round(changed, 3)],
            "bound": round(log_c / divergence(changed, overall)),
            "bound_at_limit": round(log_c / divergence(changed, limit)) if changed > limit else None,
        }
        for design in ("first labels", "true class", "both, undivided", "both"):
            found: dict[int, int] = {}
            for at, rate in first_alarms(labels, reference, design):
                if at > START + changed_at * DAY:
                    found.setdefault(rate, at)
            waits = [int((moved & (labels.slices == k) & (labels.arrived_at < at)).sum()) for k, at in found.items()]
            row[design] = {"mean": round(float(np.mean(waits))) if waits else None, "missed": streams - len(found)}
        rows.append(row)
        print(row, flush=True)
    return rows


def pooled(stream: LabelStream) -> list[tuple[float, Fall]]:
    """Return day and content of the alarms of a stream's slices, its families, and all its rows."""
    slices = stream.slices
    families = slices // FAMILY_SLICES
    reference = stream.reference(HELD_OUT)
    groups = reference.reshape(families, FAMILY_SLICES, 2, 2).sum(axis=1)
    every = np.concatenate([reference, groups, groups.sum(axis=0, keepdims=True)])
    limits = error_limits(every, every.sum(axis=(1, 2)), TOLERANCE, SLICES)
    of_slice, of_family, of_all = thresholds(SLICES)
    levels = np.array([of_slice] * slices + [of_family] * families + [of_all])
    parts = {slices + f: range(f * FAMILY_SLICES, (f + 1) * FAMILY_SLICES) for f in range(families)}
    parts[slices + families] = range(slices)
    detector = LabelDetector(limits, np.zeros(len(limits), np.bool_), levels, START, parts)
    falls = []
    for end, own, counts in stream.labels().blocks(BLOCK, slices):
        dense = np.zeros((slices, 2, 2), np.int64)
        dense[own] = counts
        sums = dense.reshape(families, FAMILY_SLICES, 2, 2).sum(axis=1)
        (some,) = np.nonzero(sums.any(axis=(1, 2)))
        rates = np.concatenate([own, slices + some, [slices + families]])
        confusion = np.concatenate([counts, sums[some], sums.sum(axis=0, keepdims=True)])
        falls += [((end - START) / DAY, fall) for fall in detector.advance(end, rates, confusion)]
    return falls


def changes(seed: int, days: int = 120) -> list[dict[str, Any]]:
    """Return the first alarms after changes of streams with 20 and with 300 labels a slice and month."""
    planted = {
        "none": (),
        "spam recall of one slice": (Shift(30, (13,), (1.0, 12.0)),),
        "spam recall of a family": (Shift(30, tuple(range(10, 20)), (1.0, 6.0)),),
        "errors of all slices": (Shift(30, tuple(range(200)), (2.0, 2.0)),),
        "mix of classes of a family": (Shift(30, tuple(range(10, 20)), (1.0, 1.0), 5.0),),
    }
    rows = []
    for labels_a_month in (20, 300):
        for name, shifts in planted.items():
            found = pooled(LabelStream(KINDS["independent"], 200, labels_a_month, seed, shifts, days))
            row: dict[str, Any] = {"labels": labels_a_month, "change": name}
            for level, low, high in (("slices", 0, 200), ("families", 200, 220), ("all", 220, 221)):
                own = [(day, fall) for day, fall in found if low <= fall.rate < high]
                row[level] = {"alarms": len(own), "rates": len({fall.rate for _, fall in own})}
                if own:
                    day, fall = own[0]
                    best = [f"{part.errors} of {part.labels} in {part.rate}" for part in fall.parts[:2]]
                    text = f"day {day:.1f}: rate {fall.rate}, class {fall.true_class}, since day "
                    text += f"{(fall.since - START) / DAY:.1f}, {fall.errors} of {fall.labels} wrong; {'; '.join(best)}"
                    row[level]["first"] = text
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def block_ms(seed: int, blocks: int = 200) -> float:
    """Return the mean CPU time of a block in which each of the slices has a label."""
    stream = LabelStream(KINDS["independent"], SLICES, 300, seed)
    reference = stream.reference(HELD_OUT)
    limits = error_limits(reference, reference.sum(axis=(1, 2)), TOLERANCE, SLICES)
    detector = LabelDetector(limits, np.zeros(SLICES, np.bool_), np.full(SLICES, 20.0), START)
    one, every = np.zeros((SLICES, 2, 2), np.int64), np.arange(SLICES)
    one[:, 0, 0] = 1
    began = time.process_time()
    for number in range(blocks):
        detector.advance(START + 10 * (number + 1), every, one)
    return 1e3 * (time.process_time() - began) / blocks


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("alarms", "delays", "changes", "cost"), required=True)
    parser.add_argument("--labels", type=int, default=300, help="labels of a slice in a month")
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of calm labels")
    parser.add_argument("--designs", default=";".join(DESIGNS), help="designs, separated by semicolons, for alarms")
    parser.add_argument("--block", type=int, default=BLOCK, help="seconds of a block, for alarms")
    parser.add_argument("--reference-rows", type=int, default=20_000, help="held-out rows of a slice, for delays")
    parser.add_argument("--streams", type=int, default=40, help="of each change, for delays")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where the results go, as JSON")
    options = parser.parse_args()
    results: Any
    if options.part == "alarms":
        results = calm(
            options.labels, options.kinds.split(","), options.designs.split(";"), options.block, options.seed
        )
    elif options.part == "delays":
        results = delays(options.labels, options.reference_rows, options.streams, options.seed)
    elif options.part == "changes":
        results = changes(options.seed)
    else:
        results = {"block_ms": block_ms(options.seed)}
        print(results)
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
