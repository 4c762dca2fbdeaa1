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
        moving = partial(
            move_run, run_id=run.id, expected="training", at=AT, state="failed", outcome="out of memory"
        )
        ended: Run = log.writer.submit(moving).result()
        return ended

    return fail


@pytest.fixture
def reported(log: Any) -> Callable[..., DriftReport]:
    """Keeps a report."""

    def report(model: str = "orders") -> DriftReport:
        made = DriftReport(0, model, 1, AT, AT - timedelta(hours=1), AT, 10, 10, ())
        kept: DriftReport = log.writer.submit(partial(add_report, report=made)).result()
        return kept

    return report


def test_runs_follow_page_by_page(log: Any, failed: Callable[..., Run]) -> None:
    """Newest first; the last page says that none follows."""
    first, second, third = failed(), failed(), failed()
    page = runs_view(log.store, "orders", limit=2)
    assert (page.runs, page.next) == ((third, second), second.id)
    page = runs_view(log.store, "orders", limit=2, before=page.next)
    assert (page.runs, page.next) == ((first,), None)


def test_a_run_of_another_model_is_not_found(log: Any, failed: Callable[..., Run]) -> None:
    """Nor listed."""
    other = failed("books")
    assert runs_view(log.store, "orders").runs == ()
    assert run_view(log.store, "books", other.id) == other
    with pytest.raises(UnknownRun, match="the runs are listed under /v1/runs"):
        run_view(log.store, "orders", other.id)


def test_reports_follow_page_by_page(log: Any, reported: Callable[..., DriftReport]) -> None:
    """Newest first; the last page says that none follows."""
    first, second = reported(), reported()
    page = reports_view(log.store, "orders", limit=1)
    assert (page.reports, page.next) == ((second,), second.id)
    page = reports_view(log.store, "orders", limit=1, before=page.next)
    assert (page.reports, page.next) == ((first,), None)


def test_a_report_of_another_model_is_not_found(log: Any, reported: Callable[..., DriftReport]) -> None:
    """Nor listed."""
    other = reported("books")
    assert reports_view(log.store, "orders").reports == ()
    assert report_view(log.store, "books", other.id) == other
    with pytest.raises(UnknownReport, match="the reports are listed under /v1/reports"):
        report_view(log.store, "orders", other.id)


def test_the_audit_follows_page_by_page(log: Any) -> None:
    """Newest first; the last page says that none follows."""
    for action in ("a", "b", "c"):
        log.writer.submit(partial(record, entry=AuditEntry(AT, "ada", action, "x", {}))).result()
    page = audit_view(log.store, limit=2)
    assert [entry.action for _, entry in page.entries] == ["c", "b"]
    last = audit_view(log.store, limit=2, before=page.next)
    assert ([entry.action for _, entry in last.entries], last.next) == (["a"], None)
