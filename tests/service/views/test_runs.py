"""Runs, reports and the audit log, page by page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from service.decisions import AuditEntry, DriftReport, Run
from service.store.audit import record
from service.store.errors import UnknownReport, UnknownRun
from service.store.reports import add_report
from service.store.runs import move_run, open_run
from service.views.runs import audit_view, report_view, reports_view, run_view, runs_view

AT = datetime(2026, 5, 20, tzinfo=UTC)


@pytest.fixture
def failed(log: Any) -> Callable[..., Run]:
    """Opens a run that fails."""

    def fail(model: str = "orders") -> Run:
        opening = partial(open_run, model=model, state="training", trigger="request", reason="x", at=AT)
        run = log.writer.submit(opening).result()
        failing = partial(move_run, run_id=run.id, expected="training", at=AT, state="failed", outcome="out of memory")
        failed: Run = log.writer.submit(failing).result()
        return failed

    return fail


@pytest.fixture
def add(log: Any) -> Callable[..., DriftReport]:
    """Adds a report."""

    def add(model: str = "orders") -> DriftReport:
        draft = DriftReport(0, model, 1, AT, AT - timedelta(hours=1), AT, 10, 10, ())
        report: DriftReport = log.writer.submit(partial(add_report, report=draft)).result()
        return report

    return add


def test_runs_follow_page_by_page(log: Any, failed: Callable[..., Run]) -> None:
    """Runs are listed newest first; the last page has no next page."""
    first, second, third = failed(), failed(), failed()
    page = runs_view(log.store, "orders", limit=2)
    assert (page.items, page.next) == ((third, second), second.id)
    page = runs_view(log.store, "orders", limit=2, before=page.next)
    assert (page.items, page.next) == ((first,), None)


def test_runs_of_other_models_are_hidden(log: Any, failed: Callable[..., Run]) -> None:
    """A run of another model is neither listed nor returned."""
    other = failed("books")
    assert runs_view(log.store, "orders").items == ()
    assert run_view(log.store, "books", other.id) == other
    with pytest.raises(UnknownRun, match="the runs are listed under /v1/runs"):
        run_view(log.store, "orders", other.id)


def test_reports_follow_page_by_page(log: Any, add: Callable[..., DriftReport]) -> None:
    """Reports are listed newest first; the last page has no next page."""
    first, second = add(), add()
    page = reports_view(log.store, "orders", limit=1)
    assert (page.items, page.next) == ((second,), second.id)
    page = reports_view(log.store, "orders", limit=1, before=page.next)
    assert (page.items, page.next) == ((first,), None)


def test_a_page_of_large_reports_ends_early(log: Any) -> None:
    """By the number of their values; the next page goes on after the last report."""
    columns = tuple({"column": f"c{n}", "shares": {f"v{k}": [0.5, 0.5] for k in range(20)}} for n in range(250))
    draft = DriftReport(0, "orders", 1, AT, AT - timedelta(hours=1), AT, 10, 10, columns)
    ids = [log.writer.submit(partial(add_report, report=draft)).result().id for _ in range(5)]
    page = reports_view(log.store, "orders", limit=200)
    assert ([report.id for report in page.items], page.next) == ([ids[4], ids[3]], ids[3])
    page = reports_view(log.store, "orders", limit=200, before=ids[1])
    assert ([report.id for report in page.items], page.next) == ([ids[0]], None)


def test_reports_of_other_models_are_hidden(log: Any, add: Callable[..., DriftReport]) -> None:
    """A report of another model is neither listed nor returned."""
    other = add("books")
    assert reports_view(log.store, "orders").items == ()
    assert report_view(log.store, "books", other.id) == other
    with pytest.raises(UnknownReport, match="the reports are listed under /v1/reports"):
        report_view(log.store, "orders", other.id)


def test_the_audit_log_follows_page_by_page(log: Any) -> None:
    """Entries are listed newest first; the last page has no next page."""
    for action in ("a", "b", "c"):
        log.writer.submit(partial(record, entry=AuditEntry(AT, "ada", action, "x", {}))).result()
    page = audit_view(log.store, limit=2)
    assert [entry.action for _, entry in page.items] == ["c", "b"]
    last = audit_view(log.store, limit=2, before=page.next)
    assert ([entry.action for _, entry in last.items], last.next) == (["a"], None)
