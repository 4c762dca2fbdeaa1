"""False alarms and delays of the label detector on simulated labels: short versions of the committed tables."""

import json
from pathlib import Path

import numpy as np
import pytest
from bench_labels import CHANGES, HELD_OUT, first_alarms, pooled
from label_streams import DAY, KINDS, START, LabelStream, Shift

from service.monitor.label_detector import LabelDetector

SLICES = 200


@pytest.mark.parametrize("kind", ["sorted by true class", "sorted by prediction", "delay by true class", "clumps x3"])
def test_calm_labels_raise_no_alarm(kind: str) -> None:
    """A month of 200 slices with 300 labels each, of a budget that 1,000 slices share."""
    stream = LabelStream(KINDS[kind], SLICES, 300, seed=20)
    assert first_alarms(stream.labels(), stream.reference(HELD_OUT), "both") == []


@pytest.mark.parametrize(
    ("kind", "design"),
    [
        ("sorted by true class", "first labels"),
        ("sorted by true class", "predicted class"),
        ("sorted by prediction", "true class"),
        ("clumps x3", "both, undivided"),
    ],
)
def test_every_part_of_the_design_is_needed(kind: str, design: str) -> None:
    """Without it, the same kind of calm labels raises alarms."""
    stream = LabelStream(KINDS[kind], SLICES, 3_000, seed=21)
    assert len(first_alarms(stream.labels(), stream.reference(HELD_OUT), design)) >= 2


def test_labels_that_are_corrected_are_no_errors_once_settled() -> None:
    """4 % of first labels are slips: as they come they raise alarms, a day later none."""
    stream = LabelStream(KINDS["corrections"], SLICES // 2, 3_000, seed=22)
    labels, reference = stream.labels(), stream.reference(HELD_OUT)
    assert len(first_alarms(labels, reference, "both")) >= 2
    assert first_alarms(labels.settled(DAY), reference, "both") == []


def test_at_its_limit_a_rate_raises_as_many_alarms_as_are_allowed() -> None:
    """Error rates just at the limits: of at most 40 alarms in the mean over streams, at least 10."""
    blocks, streams, rng = 2_000, 100, np.random.default_rng(23)
    limits = np.ones((streams, 2, 2))
    limits[:, 0] = 0.05, 0.2
    detector = LabelDetector(limits, np.zeros(streams, np.bool_), np.full(streams, np.log(blocks / 40)), 0)
    alarms, every = 0, np.arange(streams)
    for number in range(1, blocks + 1):
        spam = rng.random(streams) < 0.3
        wrong = rng.random(streams) < np.where(spam, 0.2, 0.05)
        confusion = np.zeros((streams, 2, 2), np.int64)
        confusion[every, spam.astype(int), (spam ^ wrong).astype(int)] = 1
        alarms += len(detector.advance(10 * number, every, confusion))
    assert 10 <= alarms / streams <= 40


def test_delays_are_those_of_the_committed_table(root: Path) -> None:
    """Labels from a change to the alarm, of 20 streams: within 1.3 times the committed mean, and none missed."""
    committed = json.loads((root / "tests/benchmarks/label_delays.json").read_text())
    row = next(row for row in committed if row["change"] == "5 % to 15 %")
    spam, before, odds = CHANGES[row["change"]]
    streams, changed_at = 20, 10
    rates = np.full(streams, spam), np.tile(before, (streams, 1))
    shift = Shift(changed_at, tuple(range(streams)), odds)
    stream = LabelStream(KINDS["independent"], streams, row["labels"], 24, (shift,), 25, rates)
    labels = stream.labels()
    found: dict[int, int] = {}
    for at, rate in first_alarms(labels, stream.reference(20_000), "both"):
        found.setdefault(rate, at)
    moved = labels.predicted_at >= START + changed_at * DAY
    waits = [int((moved & (labels.slices == k) & (labels.arrived_at < at)).sum()) for k, at in found.items()]
    assert len(waits) == streams
    assert min(waits) > 0
    assert np.mean(waits) <= 1.3 * row["both"]["mean"]


def test_slices_with_twenty_labels_a_month_are_found_in_all_rows() -> None:
    """Twice the odds of an error everywhere: the alarm of all rows comes within a week, that of a slice never."""
    shift = Shift(10, tuple(range(SLICES)), (2.0, 2.0))
    falls = pooled(LabelStream(KINDS["independent"], SLICES, 20, 25, (shift,), 20))
    assert all(fall.rate >= SLICES for _, fall in falls)
    day, fall = falls[0]
    assert (fall.rate, 10 < day <= 17) == (SLICES + SLICES // 10, True)
    assert sum(part.errors for part in fall.parts) == fall.errors


def test_the_mix_of_classes_alarms_nowhere() -> None:
    """Five times the odds of spam in every slice, at constant recalls: the accuracy falls in all of them."""
    shift = Shift(10, tuple(range(SLICES)), spam_odds=5.0)
    assert pooled(LabelStream(KINDS["independent"], SLICES, 300, 26, (shift,), 25)) == []
