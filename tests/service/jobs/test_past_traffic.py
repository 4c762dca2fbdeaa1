"""Past traffic."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from factories import make_label, make_prediction
from hypothesis import given
from hypothesis import strategies as st

from service.decisions import RateKey
from service.errors import MisuseError
from service.jobs.past_traffic import BlockCounter, LoggedTraffic, times_us

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
SECOND = 1_000_000


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans(), st.booleans()), max_size=40), st.integers(1, 7))
def test_blocks_count_the_rows_however_they_are_read(rows: list[tuple[int, bool, bool]], step: int) -> None:
    """Blocks of ten seconds have the counts of their rows, in parts of any size."""
    rows = sorted(rows)
    counter, blocks = BlockCounter(), []
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        at_us = np.array([second * SECOND for second, _, _ in part], np.int64)
        member, known = (np.array([[row[k]] for row in part], np.bool_) for k in (1, 2))
        blocks += counter.add(at_us, member & known, known, ~known)
    blocks += counter.end()
    expected = {}
    for second, member, known in rows:
        count = expected.setdefault(second // 10, [0, 0, 0])
        count[0] += member and known
        count[1] += known
        count[2] += not known
    found = {
        int(block.start.timestamp()) // 10: [int(each[0]) for each in (block.member, block.known, block.unknown)]
        for block in blocks
    }
    assert found == expected
    assert [block.start for block in blocks] == sorted(block.start for block in blocks)


@pytest.mark.parametrize(
    "values",
    [
        ["2026-01-05T12:00:00Z", "2026-01-05T14:00:00+02:00", "2026-01-05 12:00:00"],
        pd.to_datetime(["2026-01-05T12:00:00"] * 3),
        pd.to_datetime(["2026-01-05T14:00:00"] * 3).tz_localize(timezone(timedelta(hours=2))),
    ],
)
def test_times_are_utc_without_a_zone(values: Any) -> None:
    """Times with a zone are converted, those without are UTC, as text and as timestamps."""
    found = times_us(pd.Series(values), "at", Path("rows.csv"), 0)
    assert found.tolist() == [round(NOON.timestamp()) * SECOND] * 3


def test_a_missing_timestamp_is_named() -> None:
    """A row without a time is named by its number in the file."""
    with pytest.raises(MisuseError, match="row 101: column 'at' has None: expected a time"):
        times_us(pd.Series([pd.Timestamp(NOON), None]), "at", Path("rows.csv"), 100)


def test_the_log_has_the_rows_and_labels_of_one_version(log: Any) -> None:
    """Rows of another version, or outside of the time, are left out, and a changed function is a slice of its own."""
    store, writer = log
    at = [NOON + timedelta(seconds=3 * k) for k in range(8)]
    rows = [make_prediction(f"r{k}", at[k], set_hash="first" if k < 4 else "edited", unknown=b"\x02") for k in range(8)]
    writer.append([*rows, make_prediction("other", at[2], version=2)]).result()
    writer.label("m", [make_label(f"r{k}", at[k] + timedelta(minutes=1), "y") for k in range(8)]).result()
    with store.read() as connection:
        traffic = LoggedTraffic(connection, "m", 1, at[1], at[7])
        parts = list(traffic.parts())
    assert traffic.slices == [
        RateKey(*each, "coverage") for each in (("a", "1"), ("b", "2"), ("d", "1"), ("b", "1"), ("c", "1"))
    ]
    blocks = [block for part in parts for block in part.blocks]
    assert [block.start.second for block in blocks] == [0, 10]
    assert [block.member.tolist() for block in blocks] == [[3, 0, 0, 0, 0], [3, 0, 0, 0, 0]]
    assert [block.known.tolist() for block in blocks] == [[3, 0, 0, 0, 3], [3, 0, 3, 0, 0]]
    assert [block.unknown.tolist() for block in blocks] == [[0, 0, 0, 3, 0], [0, 3, 0, 0, 0]]
    assert sum(part.rows for part in parts) == 6
