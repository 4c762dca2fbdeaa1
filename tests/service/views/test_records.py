"""The last records of a slice, and the counts of how they were predicted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from service.events import FunctionSetVersion
from service.views.current import Current, UnknownSlice
from service.views.records import BUCKET_ROWS, SCANNED_ROWS, RecordKind, records

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
def test_kinds(filled: Any, current: Current, name: str, kind: RecordKind, found: str) -> None:
    """Newest first; rows made with another function of the name are no rows of the slice."""
    assert ids(records(filled.store, current, name, kind=kind, limit=50)) == found


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
def test_the_complement(filled: Any, current: Current, name: str, kind: RecordKind, found: str) -> None:
    """Rows that are known to be outside."""
    assert ids(records(filled.store, current, name, kind=kind, limit=50, complement=True)) == found


def test_buckets_count_the_labelled_members(filled: Any, current: Current) -> None:
    """By true and predicted class, over all that was looked at, whichever records are shown."""
    view = records(filled.store, current, "cheap", kind="errors", limit=50)
    assert view.buckets == {("lost", "lost"): 1, ("lost", "kept"): 1, ("kept", "kept"): 1}
    assert (view.scanned, view.complete) == (10, True)


def test_pages(filled: Any, current: Current) -> None:
    """The next page begins before the last record of this one."""
    first = records(filled.store, current, "cheap", kind="all", limit=2)
    second = records(filled.store, current, "cheap", kind="all", limit=9, before=first.records[-1].at)
    assert (ids(first), ids(second)) == ("ab", "ch")


def test_a_record_is_shown_as_it_was_kept(filled: Any, current: Current, prediction: Row) -> None:
    """Probabilities by class where they are those of the version in force, and names by the record's own set."""
    filled.add(prediction("z", timedelta(0), "cl", "s", features=None, probabilities=None))
    z = records(filled.store, current, "cheap", limit=1).records[0]
    assert (z.slices, z.unknown_slices) == (("cheap", "loud"), ("short",))
    assert (z.features, z.probabilities, z.label, z.version) == (None, None, None, 1)
    *_, old = records(filled.store, current, "__all__", limit=99).records
    assert (old.id, old.slices, old.version, old.probabilities) == ("old", ("cheap",), 2, None)
    a = records(filled.store, current, "cheap", kind="correct", limit=1).records[0]
    assert a.features == {"price": 3, "text": "fine"}
    assert a.probabilities == {"kept": 0.75, "lost": 0.25}
    assert (a.predicted, a.label) == ("lost", "lost")


def test_no_slice_fired_is_asked_of_all_functions_together(
    filled: Any, current: Current, prediction: Row, old_set: FunctionSetVersion
) -> None:
    """A row that was made with other functions is neither in nor out."""
    filled.add(prediction("z", timedelta(days=4), set_hash=old_set.hash))
    assert ids(records(filled.store, current, "__none__", limit=50)) == "ei"


def test_no_slice_fired_does_not_ask_labelling_functions(
    filled: Any, current: Current, prediction: Row
) -> None:
    """A vote, or an unknown one, takes no row out of those of no slice."""
    filled.add(prediction("v", timedelta(0), "l"), prediction("w", timedelta(0), "", "l"))
    assert set(ids(records(filled.store, current, "__none__", limit=50))) == set("vwei")


def test_an_unknown_slice(filled: Any, current: Current) -> None:
    """A name that no slice has is refused, and named."""
    with pytest.raises(UnknownSlice, match="no slice 'cheep'"):
        records(filled.store, current, "cheep")


def test_so_many_rows_are_looked_at_and_no_more(log: Any, current: Current, prediction: Row) -> None:
    """A rare slice in a large log costs a bounded time, and the answer says how far it looked."""
    rows = [prediction(f"p{n}", timedelta(seconds=n), "c" * (n % 2)) for n in range(SCANNED_ROWS + 10)]
    for start in range(0, len(rows), 5000):
        log.writer.append(rows[start : start + 5000])
    log.writer.submit(lambda _: None).result()
    rare = records(log.store, current, "short", limit=5)
    assert (rare.records, rare.scanned, rare.complete) == ((), SCANNED_ROWS, False)
    common = records(log.store, current, "cheap", limit=5)
    assert (len(common.records), common.scanned, common.complete) == (5, BUCKET_ROWS, False)
