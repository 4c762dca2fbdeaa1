"""Makes a report of live traffic when it is due, or when somebody asks for one."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from models.errors import ModelError
from models.registry import AliasChange, ModelRegistry
from service.decisions import DriftReport
from service.errors import ServiceError
from service.jobs.report_frames import FEWEST_ROWS, Answered
from service.jobs.reporting import KEEP, PAGE, ReportSpec, folder_of, html, make_report, prune
from service.store.engine import Store
from service.store.errors import UnknownReport
from service.store.reports import add_report, report, reports
from service.store.teaching import TrafficRow, traffic_rows
from service.store.writer import Writer
from service.views.current import Current, InForce

_SOONER = 10  # times as often is a report tried again that failed
_LOOKED_AT = _SOONER + 1

_log = logging.getLogger(__name__)


class ReportBusy(ServiceError):
    """A report, or a page, is being made already."""


class NoReference(ServiceError):
    """There is nothing to compare traffic with: no version of the registry answers here."""


@dataclass(frozen=True, slots=True)
class ReportParts:
    """What the job speaks to.

    Parameters
    ----------
    store, writer
        The log, and the reports in it.
    current
        What is in force.
    registry
        Where the bundles are, whose samples are the references.
    folder
        Where reports keep what their pages are made of.
    sources
        The files and modules of the live functions.
    declarations
        Returns those that were added by HTTP.
    """

    store: Store
    writer: Writer
    current: Current
    registry: ModelRegistry
    folder: Path
    sources: Sequence[str]
    declarations: Callable[[], Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class ReportRules:
    """How often a report is made, of how many rows, and how long making it may take."""

    every: timedelta
    rows: int
    timeout_seconds: float


class ReportJob:
    """One report at a time, and one page at a time; safe to call from several threads.

    Parameters
    ----------
    parts, rules
        What it speaks to, and how often.
    """

    def __init__(self, parts: ReportParts, rules: ReportRules) -> None:
        self._parts, self._rules = parts, rules
        self._making, self._paging = threading.Lock(), threading.Lock()
        self._stop = threading.Event()

    def step(self, now: datetime) -> None:
        """Make a report if one is due, and there is traffic enough since the last; errors become reports.

        Of a version that is served elsewhere none is made: the registry has no sample of it. A report that
        failed is tried again after a tenth of the interval.

        Raises
        ------
        StoreError
            If the store cannot be written.
        """
        in_force = self._parts.current.in_force
        promoted = _promoted(in_force)
        if promoted is None:
            return
        with self._parts.store.read() as connection:
            last = reports(connection, in_force.model, limit=_LOOKED_AT)
        if now >= _due(promoted.at, last, self._rules.every) and self._making.acquire(blocking=False):
            try:
                self._make(in_force.model, promoted, now, fewest=FEWEST_ROWS)
            finally:
                self._making.release()

    def ask(self, now: datetime) -> None:
        """Begin to make a report now, in a thread.

        Raises
        ------
        NoReference
            If no version of the registry answers here.
        ReportBusy
            If a report is being made.
        """
        in_force = self._parts.current.in_force
        promoted = _promoted(in_force)
        if promoted is None:
            raise NoReference(_missing(in_force.version))
        if not self._making.acquire(blocking=False):
            raise ReportBusy("a report is being made: look at the list of reports in a moment")
        work = (in_force.model, promoted, now)
        threading.Thread(target=self._asked, args=work, name="report", daemon=True).start()

    def page(self, report_id: int) -> Path:
        """Return the page of a report, which is made when it is first asked for.

        Raises
        ------
        UnknownReport
            If there is no such report.
        NoPage
            If the page is not kept, or cannot be made.
        ReportBusy
            If a page is being made, be it this one or another.
        """
        with self._parts.store.read() as connection:
            found = report(connection, report_id)
        if found is None:
            raise UnknownReport(f"there is no report {report_id}; ask for the list of reports")
        folder = folder_of(self._parts.folder, found.at)
        if (folder / PAGE).exists():
            return folder / PAGE
        if not self._paging.acquire(blocking=False):
            raise ReportBusy("a page is being made: ask again in a moment")
        try:
            return html(folder, self._rules.timeout_seconds, stop=self._stop)
        finally:
            self._paging.release()

    def stop(self) -> None:
        """End what is being made."""
        self._stop.set()

    def _asked(self, model: str, promoted: AliasChange, now: datetime) -> None:
        try:
            self._make(model, promoted, now, fewest=0)
        except Exception:
            _log.exception("the report that was asked for could not be made")
        finally:
            self._making.release()

    def _make(self, model: str, promoted: AliasChange, now: datetime, fewest: int) -> None:
        """Make a report of the traffic of the last interval, since the version was put in force."""
        version, start = promoted.version, max(now - self._rules.every, promoted.at)
        with self._parts.store.read() as connection:
            found = traffic_rows(connection, model, version, since=start, until=now, limit=self._rules.rows)
            rows = [_answered(each) for each in found]
        if len(rows) < fewest:
            return
        made = self._made(model, version, start, now, rows)
        if not self._stop.is_set():
            self._parts.writer.submit(partial(add_report, report=made)).result()
            with self._paging:  # no folder goes from under the process that makes its page
                prune(self._parts.folder, KEEP)

    def _made(
        self, model: str, version: int, start: datetime, now: datetime, rows: Sequence[Answered]
    ) -> DriftReport:
        parts = self._parts
        try:
            bundle = parts.registry.path(version)
        except ModelError as error:
            return DriftReport(0, model, version, now, start, now, 0, len(rows), (), str(error))
        spec = ReportSpec(
            model=model,
            version=version,
            bundle=bundle,
            at=now,
            start=start,
            end=now,
            rows=rows,
            sources=parts.sources,
            declarations=parts.declarations(),
        )
        folder = folder_of(parts.folder, now)
        return make_report(folder, spec, self._rules.timeout_seconds, stop=self._stop)


def _promoted(in_force: InForce) -> AliasChange | None:
    """Return how the version in force came to answer here; None where it is served elsewhere, or there is none.

    Its number alone does not tell: whoever serves elsewhere may count as the registry does.
    """
    return next((each for each in reversed(in_force.history) if each.version == in_force.version), None)


def _missing(version: int | None) -> str:
    """Return why there is no reference."""
    if version is None:
        return "no version is in force: there is no traffic to compare with its reference"
    return f"version {version} is served elsewhere: the registry has no sample of it to compare traffic with"


def _due(promoted_at: datetime, last: Sequence[DriftReport], every: timedelta) -> datetime:
    """Return when the next report is due, from the last ones, newest first.

    It is an interval after the last that did not fail, but where one failed since, a tenth of it after that.
    """
    due = next((each.at for each in last if not each.error), promoted_at) + every
    return max(due, last[0].at + every / _SOONER) if last and last[0].error else due


def _answered(row: TrafficRow) -> Answered:
    features = None if row.features is None else json.loads(row.features)
    return Answered(features, row.label, row.probabilities)
