"""Pages of records by cursor."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import MisuseError
from service.store.queries import Cursor
from service.views.current import Current
from service.views.records import (
    BUCKET_ROWS,
    CURSOR,
    SCANNED_ROWS,
    RecordKind,
    RecordsView,
    from_cursor,
    records,
    to_cursor,
)

Row = Callable[..., Any]


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
    st.integers(0, 10**18 - 1),
)
def test_a_cursor_says_its_place(at: datetime, row: int) -> None:
    """Text and back gives the same place, to the microsecond."""
    text = to_cursor(Cursor(at, row))
    assert re.match(CURSOR, text)
    assert from_cursor(text) == Cursor(at, row)


@pytest.mark.parametrize(
    "text", ["", "5", "1-", "-1", "1--2", "1-2-3", "x-1", "1-2\n", "١-2", "9" * 17 + "-1"]
)
def test_other_text_is_no_cursor(text: str) -> None:
    """What no page gave is refused."""
    with pytest.raises(MisuseError, match="is no cursor"):
        from_cursor(text)


def pages_of(log: Any, current: Current, name: str, **asked: Any) -> Iterator[RecordsView]:
    """Follow the cursor to the end."""
    view = records(log.store, current, name, **asked)
    yield view
    while view.next:
        view = records(log.store, current, name, cursor=view.next, **asked)
        yield view


@pytest.mark.parametrize(("kind", "found"), [("all", "hgfedcba"), ("errors", "gda"), ("unlabelled", "hfecb")])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 9])
def test_rows_of_one_batch_are_cut_apart(
    log: Any, current: Current, prediction: Row, kind: RecordKind, found: str, limit: int
) -> None:
    """Rows that share their time come on one page each, and no page is there for nothing."""
    log.add(*(prediction(name, timedelta(0), "c") for name in "abcdefgh"), a="lost", d="lost", g="lost")
    pages = list(pages_of(log, current, "cheap", kind=kind, limit=limit))
    assert "".join(each.id for page in pages for each in page.records) == found
    assert [len(page.records) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert pages[-1].records


def test_a_row_of_the_same_time_that_comes_later_shifts_nothing(
    log: Any, current: Current, prediction: Row
) -> None:
    """What is logged between two pages is on neither, or on the page where it stands."""
    log.add(*(prediction(name, timedelta(0), "c") for name in "abc"))
    first = records(log.store, current, "cheap", limit=2)
    log.add(prediction("d", timedelta(0), "c"))
    second = records(log.store, current, "cheap", limit=2, cursor=first.next)
    assert [each.id for each in (*first.records, *second.records)] == ["c", "b", "a"]


def test_a_search_that_ended_early_goes_on(log: Any, current: Current, prediction: Row) -> None:
    """Rare records far back are found by following the cursor through pages that hold none."""
    rows = [prediction(f"p{n}", timedelta(seconds=n // 100), "c") for n in range(SCANNED_ROWS + 5000)]
    rows.append(prediction("rare", timedelta(days=1), "s"))
    for start in range(0, len(rows), 5000):
        log.writer.append(rows[start : start + 5000])
    log.writer.submit(lambda _: None).result()
    found = list(pages_of(log, current, "short", limit=5))
    assert [[each.id for each in page.records] for page in found] == [[], ["rare"]]
    assert [(page.scanned, page.complete) for page in found] == [(SCANNED_ROWS, False), (5001, True)]
    common = records(log.store, current, "cheap", limit=5)
    second = records(log.store, current, "cheap", limit=5, cursor=common.next)
    assert len({each.id for each in (*common.records, *second.records)}) == 10
    assert second.scanned == BUCKET_ROWS
