"""Records as JSON values, and the sample of a bundle."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pandas as pd

from models.bundle.records import SAMPLE_BYTES, plain_records, sample_records


def test_values_are_json_or_left_out() -> None:
    """Dates become text, infinite numbers are missing, and bytes and objects leave no field."""
    row = {
        "text": "x",
        "day": date(2024, 2, 3),
        "instant": datetime(2024, 2, 3, 4, tzinfo=UTC),
        "infinite": np.inf,
        "count": np.int64(3),
        "price": Decimal("1.5"),
        "tags": ["a", {"b": np.nan}],
        "bytes": b"x",
        "object": object(),
        "keys": {1: 2},
        "nested": [b"x"],
    }
    (record,) = plain_records([row], list(row))
    assert record == {
        "text": "x",
        "day": "2024-02-03",
        "instant": "2024-02-03T04:00:00+00:00",
        "infinite": None,
        "count": 3,
        "price": 1.5,
        "tags": ["a", {"b": None}],
    }
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_a_value_nested_without_end_is_left_out() -> None:
    """A list that holds itself is no JSON."""
    endless: list[object] = []
    endless.append(endless)
    assert plain_records([{"a": 1, "b": endless}], ["a", "b"]) == [{"a": 1}]


def test_a_sample_is_bounded_in_rows_and_bytes() -> None:
    """Of many rows the first 1,000 are kept, and of large ones those that fit."""
    frame = pd.DataFrame({"n": range(1500)})
    assert [record["n"] for record in sample_records(frame, ["n"])] == list(range(1000))
    large = pd.DataFrame({"text": ["x" * 100_000] * 100})
    kept = sample_records(large, ["text"])
    assert len(kept) == 39
    assert sum(len(json.dumps(record)) + 1 for record in kept) <= SAMPLE_BYTES
