"""Reports in the store."""

from dataclasses import replace
from datetime import timedelta

import pytest

from service.decisions import DriftReport
from service.store.engine import Store
from service.store.reports import add_report, report, reports

DAY = timedelta(days=1)


def report_of(start, model: str = "spam", **changes) -> DriftReport:
    columns = (
        {"column": "text_length", "kind": "number", "value": 0.1 / 3, "drifted": False},
        {"column": "class", "kind": "category", "value": None, "drifted": None},
    )
    made = DriftReport(0, model, 2, start + DAY, start, start + DAY, 1000, 250, columns)
    return replace(made, **changes)


def test_a_report_is_kept_as_it_is(store: Store, writer, start) -> None:
    """A report is stored exactly under a new id, also one that only has an error."""
    given = [report_of(start), report_of(start, columns=(), error="too few rows: 3 of 100")]
    kept = [writer.submit(lambda c, each=each: add_report(c, each)).result() for each in given]
    assert kept == [replace(given[0], id=1), replace(given[1], id=2)]
    with store.read() as connection:
        assert [report(connection, 1), report(connection, 2)] == kept
        assert report(connection, 3) is None


def test_reports_are_read_page_by_page(store: Store, writer, start) -> None:
    """Pages are newest first, of one model."""
    for model in ("spam", "other", "spam", "spam"):
        writer.submit(lambda c, model=model: add_report(c, report_of(start, model))).result()
    with store.read() as connection:
        assert [each.id for each in reports(connection, "spam", limit=2)] == [4, 3]
        assert [each.id for each in reports(connection, "spam", before=3)] == [1]


def test_a_value_that_is_no_number_is_refused(store: Store, writer, start) -> None:
    """A missing value is None, never NaN."""
    bad = report_of(start, columns=({"column": "a", "value": float("nan")},))
    with pytest.raises(ValueError, match="only finite numbers"):
        writer.submit(lambda c: add_report(c, bad)).result()
    with store.read() as connection:
        assert list(reports(connection, "spam")) == []
