"""False alarms of the drift detector."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from service.decisions import RateKey
from service.monitor.drift_detector import DriftDetector, Observation, log_threshold
from service.monitor.tolerance_band import coverage_band
from sfs.intervals import Rate

TEN = datetime(2026, 3, 1, 10, tzinfo=UTC)
SEEDS, SLICES = 10, 50


def block_of(number: int, keys: list[RateKey], counts: Any, n: int) -> Observation:
    start = TEN + number * timedelta(seconds=10)
    rates = {key: Rate(count, n) for key, count in zip(keys, counts.tolist(), strict=True)}
    return Observation.of(start, start + timedelta(seconds=10), rates)


@pytest.mark.parametrize("block", [1_000, 250])
def test_calm_is_calm(block: int) -> None:
    """50 slices with constant rates and sampled references raise no alarm in 10 seeds."""
    rng = np.random.default_rng(4)
    p, rows = np.exp(rng.uniform(np.log(0.002), np.log(0.3), SEEDS * SLICES)), 200_000
    keys = [RateKey(f"{k // SLICES}/{k % SLICES}", "f", "coverage") for k in range(len(p))]
    known = [Rate(count, rows) for count in rng.binomial(rows, p).tolist()]
    zones = [coverage_band(rate, 0.1, SLICES) for rate in known]
    detector = DriftDetector(dict(zip(keys, zones, strict=True)), log_threshold(SLICES, 1.0))
    alarms = [
        detection
        for number in range(rows // block)
        for detection in detector.advance(block_of(number, keys, rng.binomial(block, p), block))
    ]
    assert alarms == []
