"""How soon a small slice with a target alarms, and how often falsely."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from service.decisions import RateKey
from service.monitor.accuracy_detector import AccuracyDetector, AccuracyReference, LabelledBlock
from service.monitor.tolerance_band import accuracy_band
from service.settings.schema import DriftSettings
from sfs.intervals import Rate

START = datetime(2026, 3, 1, tzinfo=UTC)
SLICES, FALLEN, CALM = 200, 10, 60
KEYS = [RateKey(str(k), "f", "accuracy") for k in range(SLICES)]
HELD_OUT = {
    "counts by class": (("ham", "ham", 14), ("ham", "spam", 6), ("spam", "spam", 14), ("spam", "ham", 6)),
    "no counts by class": (),
}
"""A small slice: 28 of 40 held-out rows correct, so that the reference alone sets a limit of 38%."""


def detector(held_out: str) -> AccuracyDetector:
    """Return the detector of as many slices with a target of 75%."""
    band = accuracy_band(Rate(28, 40), 0.01, SLICES, target=0.75)
    references = dict.fromkeys(KEYS, AccuracyReference(band, HELD_OUT[held_out]))
    return AccuracyDetector(references, {}, ["ham", "spam"], DriftSettings(), START)


def labels(
    accuracy: float, number: int, seed: int, fallen: float | None = None, at_once: int = 1
) -> Iterator[LabelledBlock]:
    """Yield as many blocks with labels of every slice; after 60 of them some slices have another accuracy.

    A label of a slice comes every 14.4 minutes, and ``at_once`` of them are in a block.
    """
    rng = np.random.default_rng(seed)
    for i in range(number):
        rate = np.full(SLICES, accuracy)
        rate[:FALLEN] = accuracy if fallen is None or i < CALM else fallen
        counts = np.zeros((SLICES, 2, 2), np.int64)
        for _ in range(at_once):
            true, right = rng.integers(0, 2, SLICES), rng.random(SLICES) < rate
            counts[np.arange(SLICES), true, np.where(right, true, 1 - true)] += 1
        at = START + i * at_once * timedelta(minutes=14.4)
        yield LabelledBlock(at, at + timedelta(seconds=10), dict(zip(KEYS, counts, strict=True)))


@pytest.mark.parametrize("held_out", HELD_OUT)
def test_a_small_slice_with_a_target_alarms_within_thirty_labels(held_out: str) -> None:
    """In 30 runs the accuracy falls from 80% to 12%: an alarm after 30 labels in the mean, and none elsewhere."""
    delays = np.zeros((3, FALLEN))
    for seed, run in enumerate(delays):
        watch = detector(held_out)
        for number, block in enumerate(labels(0.8, CALM + 100, seed, fallen=0.12), 1):
            for detection in watch.advance(block):
                k = int(detection.drift.slice)
                run[k] = run[k] or number - CALM
                assert detection.drift.direction == "down"
    assert delays.min() > 0
    assert delays.mean() <= 30


@pytest.mark.parametrize("held_out", HELD_OUT)
def test_a_kept_target_raises_no_false_alarm_in_a_month(held_out: str) -> None:
    """At exactly 75%, with 100 labels a day over 30 days, which are read by the hour."""
    watch = detector(held_out)
    blocks = labels(0.75, 750, seed=13, at_once=4)
    assert [found for block in blocks for found in watch.advance(block)] == []
