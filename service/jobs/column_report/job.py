"""Job that compares the columns of live traffic with the reference, at intervals and on request."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from models.errors import ModelError
from models.registry import ModelRegistry
from service.decisions import DriftReport
from service.errors import NoModel, ServiceError, Stopping
from service.jobs.column_report.columns import MINIMUM_ROWS
from service.jobs.column_report.process import (
    COLUMNS,
    KEEP,
    PAGE,
    ReportFailed,
    ReportSpec,
    compare_columns,
    prune,
    render_page,
    report_folder,
)
from service.serving.deployment import Deployment, DeploymentState
from service.settings.schema import Settings
from service.store.engine import Store
from service.store.errors import UnknownReport
from service.store.reports import add_report, report, reports
from service.store.training_rows import TrafficRow, traffic_rows, traffic_sample
from service.store.writer import Writer

REPORTS = "reports"
"""Folder beside the store with the data of report pages."""

_RETRIES = 10  # per interval, of a failed report
_FIRST_ROWS = 1000  # predictions of an external version with which later ones are compared

_log = logging.getLogger(__name__)


class ReportRunning(ServiceError):
    """A report or a page is already being created."""


class ReportPageMissing(ServiceError):
    """A report has no page."""


class NoReference(ServiceError):
    """The version is served elsewhere, and its reference table has not been read."""


class ColumnReports:
    """Creates one report at a time, and one page at a time; safe to call from several threads.

    The reference is the sample in the bundle of the active version, or that of the reference table if the version
    is served elsewhere. Predictions and confidences that this table lacks are those of the version's first interval.
    """

    def __init__(
        self,
        settings: Settings,
        deployment: Deployment,
        store: Store,
        writer: Writer,
        registry: ModelRegistry,
    ) -> None:
        self._settings, self._deployment = settings, deployment
        self._store, self._writer, self._registry = store, writer, registry
        self._root = settings.store.parent / REPORTS
        self._interval = timedelta(hours=settings.report.every_hours)
        self._timeout_seconds = settings.report.timeout_minutes * 60
        self._report_lock, self._page_lock = threading.Lock(), threading.Lock()
        self._stop = threading.Event()
        prune(self._root)

    def run(self, now: datetime) -> None:
        """Create a report if one is due and there are enough rows; a failure becomes a report with an error.

        A report is due an interval after the last one or the promotion; after a failed one, a tenth of that.
        Raises StoreError if the store cannot be written.
        """
        state = self._deployment.state
        try:
            since = self._start(state, now)
        except ServiceError:
            return
        with self._store.read() as connection:
            stored = reports(connection, state.model, limit=_RETRIES + 1)
            latest = [report for report in stored if report.at <= now]  # the clock may have been set back
        due = next((report.at for report in latest if not report.error), since) + self._interval
        if latest and latest[0].error:
            due = max(due, latest[0].at + self._interval / _RETRIES)
        if now >= due and self._report_lock.acquire(blocking=False):
            try:
                self._create(state, since, now, minimum_rows=MINIMUM_ROWS)
            finally:
                self._report_lock.release()

    def request(self, now: datetime) -> None:
        """Start to create a report, in a thread.

        Raises
        ------
        NoModel, NoReference, ReportRunning
            If no version is active; if its reference table has not been read; if a report is being created.
        """
        state = self._deployment.state
        since = self._start(state, now)
        if not self._report_lock.acquire(blocking=False):
            raise ReportRunning("a report is being created: see the list of reports in a moment")

        def create() -> None:
            try:
                self._create(state, since, now, minimum_rows=0)
            except Exception:
                _log.exception("the requested report could not be created")
            finally:
                self._report_lock.release()

        try:
            threading.Thread(target=create, name="report", daemon=True).start()
        except RuntimeError:  # no more threads: otherwise every later report would be refused
            self._report_lock.release()
            raise

    def page(self, report_id: int) -> Path:
        """Return the page of a report, rendered at the first call.

        Raises
        ------
        UnknownReport, ReportPageMissing, ReportRunning
            If there is no such report; if the data of its page was deleted or cannot be rendered; if a page is
            being rendered, this one or another.
        Stopping
            If the service is stopping.
        """
        with self._store.read() as connection:
            stored = report(connection, report_id)
        if stored is None:
            raise UnknownReport(f"there is no report {report_id}: see the list of reports")
        folder = report_folder(self._root, stored.at)
        if (folder / PAGE).exists():
            return folder / PAGE
        if not self._page_lock.acquire(blocking=False):
            raise ReportRunning("a page is being rendered: try again in a moment")
        try:
            if not (folder / COLUMNS).exists():
                raise ReportPageMissing(f"the report has no page any more: the latest {KEEP} reports have one")
            return render_page(folder, self._timeout_seconds, stop=self._stop)
        except ReportFailed as error:
            if self._stop.is_set():
                raise Stopping("the service is stopping: ask for the page again later") from None
            raise ReportPageMissing(f"the page could not be rendered: {error}") from None
        finally:
            self._page_lock.release()

    def stop(self) -> None:
        """Kill a report or page in progress."""
        self._stop.set()

    def _start(self, state: DeploymentState, now: datetime) -> datetime:
        """Return the start of the traffic that can be compared; NoModel or NoReference if there is none."""
        if state.version is None or state.promoted_at is None:
            raise NoModel("no version is active: there is no traffic to compare with its reference")
        if state.is_external and not state.sample:
            raise NoReference(f"there is nothing to compare with yet: {state.table_note or 'the table is being read'}")
        if state.promoted_at > now:  # the clock was set back
            return now - self._interval
        return state.promoted_at

    def _create(self, state: DeploymentState, since: datetime, now: datetime, minimum_rows: int) -> None:
        """Create a report of the last interval's traffic, from the promotion on, and store it."""
        model, version, start = state.model, state.version or 0, max(now - self._interval, since)
        table = state.table if state.is_external else None
        first: list[int] = []  # before the compared traffic
        with self._store.read() as connection:
            limit = self._settings.report.rows
            sample = traffic_sample(connection, model, version, since=start, until=now, limit=limit)
            if table is not None and start >= since + self._interval:
                until = since + self._interval
                first = traffic_sample(connection, model, version, since=since, until=until, limit=_FIRST_ROWS)
        if len(sample) < minimum_rows:
            return
        created = DriftReport(0, model, version, now, start, now, 0, len(sample), ())
        try:
            if len(sample) < MINIMUM_ROWS:
                raise ReportFailed(f"there are {len(sample)} predictions to compare; {MINIMUM_ROWS} are needed")
            rows = self._rows(sample)
            if table is None:
                path, functions = self._registry.path(version), self._settings.functions
                spec = ReportSpec(path, rows, functions, self._deployment.state.declarations)
            else:
                spec = ReportSpec(None, rows, table=table, features=self._settings.features, first=self._rows(first))
            reference_rows, current_rows, columns = compare_columns(
                report_folder(self._root, now), spec, self._timeout_seconds, stop=self._stop
            )
            created = replace(created, reference_rows=reference_rows, current_rows=current_rows, columns=columns)
        except (ModelError, ReportFailed) as error:
            reason = self._registry.relative(str(error))
            _log.warning("the report on version %s of %r failed: %s", version, model, reason)
            created = replace(created, error=reason)
        if not self._stop.is_set():
            self._writer.submit(partial(add_report, report=created)).result()
            with self._page_lock:  # a page in progress keeps its folder
                prune(self._root)

    def _rows(self, sample: Sequence[int]) -> Iterator[TrafficRow]:
        with self._store.read() as connection:
            yield from traffic_rows(connection, sample)
