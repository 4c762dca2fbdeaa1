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

from models.registry import ModelRegistry
from service.decisions import DriftReport
from service.errors import ServiceError
from service.jobs.report_frames import FEWEST_ROWS, Answered
from service.jobs.reporting import KEEP, ReportSpec, folder_of, html, make_report, prune
from service.store.engine import Store
from service.store.errors import UnknownReport
from service.store.reports import add_report, report, reports
from service.store.teaching import TrafficRow, traffic_rows
from service.store.writer import Writer
from service.views.current import Current, InForce

_log = logging.getLogger(__name__)


class ReportBusy(ServiceError):
    """A report is being made already."""


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
    """One report at a time; safe to call from several threads.

    Parameters
    ----------
    parts, rules
        What it speaks to, and how often.
    """

    def __init__(self, parts: ReportParts, rules: ReportRules) -> None:
        self._parts, self._rules = parts, rules
        self._making, self._stop = threading.Lock(), threading.Event()

    def step(self, now: datetime) -> None:
        """Make a report if one is due, and there is traffic enough since the last; errors become reports.

        Raises
        ------
        StoreError
            If the store cannot be written.
        """
        in_force = self._parts.current.in_force
        with self._parts.store.read() as connection:
            last = next(iter(reports(connection, in_force.model, limit=1)), None)
        since = last.at if last is not None else in_force.promoted_at
        if since is None or since + self._rules.every > now:
            return
        if self._making.acquire(blocking=False):
            try:
                self._make(in_force, now, fewest=FEWEST_ROWS)
            finally:
                self._making.release()

    def ask(self, now: datetime) -> None:
        """Begin to make a report now, in a thread. Raises ReportBusy where one is being made."""
        if not self._making.acquire(blocking=False):
            raise ReportBusy("a report is being made: look at the list of reports in a moment")
        threading.Thread(target=self._asked, args=(now,), name="report", daemon=True).start()

    def page(self, report_id: int) -> Path:
        """Return the page of a report. Raises UnknownReport, or NoPage where it is not kept or cannot be made."""
        with self._parts.store.read() as connection:
            found = report(connection, report_id)
        if found is None:
            raise UnknownReport(f"there is no report {report_id}; ask for the list of reports")
        return html(folder_of(self._parts.folder, found.at), self._rules.timeout_seconds, stop=self._stop)

    def stop(self) -> None:
        """End what is being made."""
        self._stop.set()

    def _asked(self, now: datetime) -> None:
        try:
            self._make(self._parts.current.in_force, now, fewest=0)
        except Exception:
            _log.exception("the report that was asked for could not be made")
        finally:
            self._making.release()

    def _make(self, in_force: InForce, now: datetime, fewest: int) -> None:
        """Make a report of the traffic of the last interval, since the version was put in force."""
        if in_force.version is None or in_force.promoted_at is None:
            raise ServiceError(
                "no version of the registry is in force: there is no reference to compare with"
            )
        start = max(now - self._rules.every, in_force.promoted_at)
        with self._parts.store.read() as connection:
            found = traffic_rows(
                connection, in_force.model, in_force.version, since=start, until=now, limit=self._rules.rows
            )
            rows = [_answered(each) for each in found]
        if len(rows) < fewest:
            return
        made = self._made(in_force.model, in_force.version, start, now, rows)
        if not self._stop.is_set():
            self._parts.writer.submit(partial(add_report, report=made)).result()
            prune(self._parts.folder, KEEP)

    def _made(
        self, model: str, version: int, start: datetime, now: datetime, rows: Sequence[Answered]
    ) -> DriftReport:
        parts = self._parts
        spec = ReportSpec(
            model=model,
            version=version,
            bundle=parts.registry.path(version),
            at=now,
            start=start,
            end=now,
            rows=rows,
            sources=parts.sources,
            declarations=parts.declarations(),
        )
        folder = folder_of(parts.folder, now)
        return make_report(folder, spec, self._rules.timeout_seconds, stop=self._stop)


def _answered(row: TrafficRow) -> Answered:
    features = None if row.features is None else json.loads(row.features)
    return Answered(features, row.label, row.probabilities)
