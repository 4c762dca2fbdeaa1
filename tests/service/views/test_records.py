"""The latest records of a slice, their confusion, and their pages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import MisuseError
from service.events import FunctionSetVersion
from service.serving.deployment import Deployment
from service.store.queries import Cursor
from service.views.records import (
    BUCKET_ROWS,
    CURSOR,
    RECORD_FIELDS,
    SCANNED_ROWS,
    VALUE_CHARS,
    RecordKind,
    RecordsView,
    UnknownPrediction,
    from_cursor,
    record_view,
    records,
    to_cursor,
)
from service.views.slices import UnknownSlice

Row = Callable[..., Any]


def ids(view: Any) -> str:
    return "".join(each.id for each in view.records)


@pytest.fixture
def filled(log: Any, prediction: Row, old_set: FunctionSetVersion) -> Any:
    """Nine rows, the youngest first: a to i."""
    plan = [("c", ""), ("c", ""), ("c", ""), ("", "c"), ("", ""), ("s", ""), ("", "s"), ("cs", ""), ("", "")]
    rows = [
        prediction(name, timedelta(minutes=k), inside, unknown, "kept" if k % 2 else "lost")
        for k, (name, (inside, unknown)) in enumerate(zip("abcdefghi", plan, strict=True))
    ]
    rows.append(prediction("old", timedelta(days=3), "c", set_hash=old_set.hash, version=2))
    log.add(*rows, a="lost", b="lost", e="kept", f="kept", h="kept")
    return log


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("cheap", "all", "abch"),
        ("cheap", "correct", "ah"),
        ("cheap", "errors", "b"),
        ("cheap", "unlabelled", "c"),
        ("cheap", "unknown", "d"),
        ("short", "all", "fh"),
        ("loud", "all", ""),
        ("__all__", "errors", "be"),
        ("__all__", "unlabelled", "cdgiold"),
        ("__none__", "all", "ei"),
        ("__none__", "unknown", "dg"),
    ],
)
def test_kinds(filled: Any, deployment: Deployment, name: str, kind: RecordKind, found: str) -> None:
    """Records are listed newest first, without rows of another version of the function."""
    assert ids(records(filled.store, deployment, name, kind=kind, limit=50)) == found


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("cheap", "all", "efgi"),
        ("cheap", "errors", "e"),
        ("cheap", "unknown", "d"),
        ("__none__", "all", "abcfh"),
        ("__all__", "all", ""),
    ],
)
def test_the_complement(filled: Any, deployment: Deployment, name: str, kind: RecordKind, found: str) -> None:
    """The complement has the rows known to be outside."""
    assert ids(records(filled.store, deployment, name, kind=kind, limit=50, complement=True)) == found


def test_buckets_count_the_labelled_members(filled: Any, deployment: Deployment) -> None:
    """Members are counted by true and predicted class over all scanned rows, whichever records are listed."""
    view = records(filled.store, deployment, "cheap", kind="errors", limit=50)
    assert view.buckets == {("lost", "lost"): 1, ("lost", "kept"): 1, ("kept", "kept"): 1}
    assert (view.scanned, view.complete) == (10, True)


def test_pages(filled: Any, deployment: Deployment) -> None:
    """A time continues after the last record of a page."""
    first = records(filled.store, deployment, "cheap", kind="all", limit=2)
    second = records(filled.store, deployment, "cheap", kind="all", limit=9, before=first.records[-1].at)
    assert (ids(first), ids(second)) == ("ab", "ch")


def test_a_record_is_returned_as_stored(filled: Any, deployment: Deployment, prediction: Row) -> None:
    """Probabilities belong to the active version, and slice names to the function set of the record."""
    filled.add(prediction("z", timedelta(0), "cl", "s", features=None, probabilities=None))
    z = records(filled.store, deployment, "cheap", limit=1).records[0]
    assert (z.slices, z.unknown_slices) == (("cheap", "loud"), ("short",))
    assert (z.features, z.probabilities, z.label, z.version) == (None, None, None, 1)
    *_, old = records(filled.store, deployment, "__all__", limit=99).records
    assert (old.id, old.slices, old.version, old.probabilities) == ("old", ("cheap",), 2, None)
    a = records(filled.store, deployment, "cheap", kind="correct", limit=1).records[0]
    assert a.features == {"price": 3, "text": "fine"}
    assert a.probabilities == {"kept": 0.75, "lost": 0.25}
    assert (a.predicted, a.label) == ("lost", "lost")


def test_no_slice_depends_on_all_functions(
    filled: Any, deployment: Deployment, prediction: Row, old_set: FunctionSetVersion
) -> None:
    """A row of another function set is neither in nor out."""
    filled.add(prediction("z", timedelta(days=4), set_hash=old_set.hash))
    assert ids(records(filled.store, deployment, "__none__", limit=50)) == "ei"


def test_no_slice_ignores_labelling_functions(filled: Any, deployment: Deployment, prediction: Row) -> None:
    """A label, or an unknown one, leaves the row in no slice."""
    filled.add(prediction("v", timedelta(0), "l"), prediction("w", timedelta(0), "", "l"))
    assert set(ids(records(filled.store, deployment, "__none__", limit=50))) == set("vwei")


def test_an_unknown_slice(filled: Any, deployment: Deployment) -> None:
    """A name that no slice has is refused."""
    with pytest.raises(UnknownSlice, match="no slice 'cheep'"):
        records(filled.store, deployment, "cheep")


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
    st.integers(0, 10**18 - 1),
)
def test_a_cursor_is_a_place(at: datetime, row: int) -> None:
    """Text and back gives the same place, to the microsecond."""
    text = to_cursor(Cursor(at, row))
    assert re.match(CURSOR, text)
    assert from_cursor(text) == Cursor(at, row)


@pytest.mark.parametrize("text", ["", "5", "1-", "-1", "1--2", "1-2-3", "x-1", "1-2\n", "١-2", "9" * 17 + "-1"])
def test_other_text_is_not_a_cursor(text: str) -> None:
    """Text that no page returns is refused."""
    with pytest.raises(MisuseError, match="is not a cursor"):
        from_cursor(text)


def pages_of(log: Any, deployment: Deployment, name: str, **options: Any) -> Iterator[RecordsView]:
    """Follow the cursor to the end."""
    view = records(log.store, deployment, name, **options)
    yield view
    while view.next:
        view = records(log.store, deployment, name, cursor=view.next, **options)
        yield view


@pytest.mark.parametrize(("kind", "found"), [("all", "hgfedcba"), ("errors", "gda"), ("unlabelled", "hfecb")])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 9])
def test_rows_of_one_batch_are_cut_apart(
    log: Any, deployment: Deployment, prediction: Row, kind: RecordKind, found: str, limit: int
) -> None:
    """Rows of one time are on one page each, and no page is empty."""
    log.add(*(prediction(name, timedelta(0), "c") for name in "abcdefgh"), a="lost", d="lost", g="lost")
    pages = list(pages_of(log, deployment, "cheap", kind=kind, limit=limit))
    assert "".join(each.id for page in pages for each in page.records) == found
    assert [len(page.records) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert pages[-1].records


def test_a_later_row_of_the_same_time_shifts_nothing(log: Any, deployment: Deployment, prediction: Row) -> None:
    """A row logged between two pages does not change the next page."""
    log.add(*(prediction(name, timedelta(0), "c") for name in "abc"))
    first = records(log.store, deployment, "cheap", limit=2)
    log.add(prediction("d", timedelta(0), "c"))
    second = records(log.store, deployment, "cheap", limit=2, cursor=first.next)
    assert [each.id for each in (*first.records, *second.records)] == ["c", "b", "a"]


def test_a_page_scans_a_limited_number_of_rows(log: Any, deployment: Deployment, prediction: Row) -> None:
    """Rare records far back are found through empty pages, and frequent ones without a full scan."""
    rows = [prediction(f"p{n}", timedelta(seconds=n // 100), "c") for n in range(SCANNED_ROWS + 5000)]
    rows.append(prediction("rare", timedelta(days=1), "s"))
    for start in range(0, len(rows), 5000):
        log.writer.append(rows[start : start + 5000])
    log.writer.submit(lambda _: None).result()
    pages = list(pages_of(log, deployment, "short", limit=5))
    assert [[each.id for each in page.records] for page in pages] == [[], ["rare"]]
    assert [(page.scanned, page.complete) for page in pages] == [(SCANNED_ROWS, False), (5001, True)]
    common = records(log.store, deployment, "cheap", limit=5)
    assert (len(common.records), common.scanned, common.complete) == (5, BUCKET_ROWS, False)
    second = records(log.store, deployment, "cheap", limit=5, cursor=common.next)
    assert len({each.id for each in (*common.records, *second.records)}) == 10
    assert second.scanned == BUCKET_ROWS


LONG = json.dumps({"text": "y" * 50_000, "nested": [{"a": "z" * 5000}], "likes": 3, "x" * 300: 1, "short": "hi"})


def test_long_values_are_cut_and_say_so(log: Any, deployment: Deployment, prediction: Row) -> None:
    """In a list a long text or object is its beginning and its length; the record by id is whole."""
    log.add(prediction("a", timedelta(0), "c", features=LONG))
    (view,) = records(log.store, deployment, "cheap").records
    features = view.features or {}
    assert features["text"] == "y" * VALUE_CHARS + "… (50,000 characters)"
    assert features["nested"].startswith('[{"a": "zzz')
    assert view.cut == {"text": 50_000, "nested": len(json.dumps(json.loads(LONG)["nested"]))}
    assert (features["likes"], features["short"], view.omitted) == (3, "hi", 1)
    whole = record_view(log.store, deployment, "a")
    assert (whole.features, whole.cut, whole.omitted) == (json.loads(LONG), {}, 0)
    assert (whole.slices, whole.label) == (view.slices, view.label)


def test_a_record_of_many_fields_is_cut(log: Any, deployment: Deployment, prediction: Row) -> None:
    """The number of those left out is told."""
    log.add(prediction("a", timedelta(0), "c", features=json.dumps({f"f{n:04}": n for n in range(1000)})))
    (view,) = records(log.store, deployment, "cheap").records
    assert (len(view.features or {}), view.omitted) == (RECORD_FIELDS, 1000 - RECORD_FIELDS)


@pytest.mark.parametrize(("limit", "size"), [("PAGE_CHARS", 2500), ("STORED_CHARS", 100_000)])
def test_a_page_of_long_records_ends_early(
    log: Any, deployment: Deployment, prediction: Row, monkeypatch: pytest.MonkeyPatch, limit: str, size: int
) -> None:
    """By what it lists and by what it reads; the pages together have every record once."""
    monkeypatch.setattr(f"service.views.records.{limit}", size)
    log.add(*(prediction(f"p{n}", timedelta(minutes=n), "c", features=LONG) for n in range(8)))
    pages = list(pages_of(log, deployment, "cheap", limit=500))
    assert [len(page.records) for page in pages] == [2, 2, 2, 2]
    assert [each.id for page in pages for each in page.records] == [f"p{n}" for n in range(8)]


def test_an_unknown_record_is_named(log: Any, deployment: Deployment) -> None:
    """The error has the id."""
    with pytest.raises(UnknownPrediction, match="has the id 'nope'"):
        record_view(log.store, deployment, "nope")
