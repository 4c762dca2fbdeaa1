"""Stored detectors, also those of earlier releases."""

import json
from base64 import b64encode

import numpy as np

from service.decisions import RateKey
from service.jobs.detector_checkpoint import STORED, expected_rates
from sfs.intervals import Rate

A = RateKey("a", "1", "accuracy")
RATE = {"count": 9, "n": 10}
ROWS = b64encode(np.arange(3, dtype="<i8").tobytes()).decode()


def stored(**parts: object) -> str:
    values = {"version": 1, "promoted_at": None, "until": "2026-05-01T00:00:00Z", "seq": 7, "state": ""}
    return json.dumps(values | parts)


def test_rates_of_earlier_releases_have_no_counts_by_class() -> None:
    """Learned and accepted ones are kept, and first labels whose classes were not counted are not."""
    before = STORED.validate_json(stored(learned=[[1, [[A, RATE]]]], accepted=[[A, RATE]], period=[[A, 2, ROWS]]))
    assert expected_rates(before.accepted) == expected_rates(before.learned[0][1]) == {A: (Rate(9, 10), ())}
    assert before.gathered(300).contents == {}
    assert before.accuracy is None


def test_first_labels_continue_by_class() -> None:
    """With their contents, in the order of arrival."""
    pairs = [["x", "x", 2], ["y", "x", 1]]
    now = STORED.validate_json(stored(accepted=[[A, RATE, pairs]], period=[[A, pairs, ROWS]]))
    assert expected_rates(now.accepted) == {A: (Rate(9, 10), (("x", "x", 2), ("y", "x", 1)))}
    period = now.gathered(300)
    assert (period.contents, period.confusion) == ({A: [0, 1, 2]}, {A: {("x", "x"): 2, ("y", "x"): 1}})
