"""Reports on columns: live traffic against the reference, made by a child process that alone loads Evidently.

A report has a folder of its own. The values go back to whoever asked; what stays in the folder are the compared
columns, no texts, from which a page is made when somebody wants to see one.
"""

from __future__ import annotations

import json
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event
from time import monotonic
from typing import IO, Any, Literal

from models.errors import ModelError
from models.registry import AliasChange, ModelRegistry
from service.decisions import DriftReport
from service.errors import ServiceError
from service.jobs.column_report.columns import FEWEST_ROWS, PredictedRow
from service.serving.deployment import Deployment
from service.serving.errors import NoModel
from service.settings.schema import Settings
from service.store.engine import Store
from service.store.errors import UnknownReport
from service.store.reports import add_report, report, reports
from service.store.training_rows import TrafficRow, traffic_rows
from service.store.writer import Writer

TASK, ROWS, VALUES, KEPT, PAGE, REASON = (
    "task.json",
    "rows.jsonl",
    "values.json",
    "columns.json.gz",
    "report.html",
    "reason.txt",
)
"""The files of a folder: what the child is asked, the traffic, what it found, what a page is made of, the page,
and why it failed."""
KEEP = 20
_LAST_WORDS = 4000
_LOOK_SECONDS = 0.2
_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
_MARK = "%Y%m%dT%H%M%S.%fZ"

_log = logging.getLogger(__name__)


class ReportPageMissing(ServiceError):
    """The page of a report cannot be shown."""


class _Failed(Exception):
    """The child did not do what it was asked; the message says why."""


@dataclass(frozen=True, slots=True)
class ReportSpec:
    """What is to be compared.

    Parameters
    ----------
    model, version
        Whose traffic.
    bundle
        The folder of the version's bundle, whose sample is the reference.
    at, start, end
        Now, and the span of the traffic.
    rows
        The traffic, or an even sample of it.
    sources, declarations
        The live functions: files and modules as `sfs.FunctionSet.from_files` takes them, and templates as they
        are declared. They tell the model of the slices of the reference; what cannot be loaded is unknown to it.
    """

    model: str
    version: int
    bundle: Path
    at: datetime
    start: datetime
    end: datetime
    rows: Sequence[PredictedRow]
    sources: Sequence[str] = ()
    declarations: Sequence[Mapping[str, Any]] = ()


def folder_of(root: Path, at: datetime) -> Path:
    """Return the folder of the report that was made at a moment; later ones sort behind it.

    >>> folder_of(Path("reports"), datetime(2026, 5, 1, 12, tzinfo=UTC)).name
    '20260501T120000.000000Z'
    """
    return root / at.astimezone(UTC).strftime(_MARK)


def make_report(
    folder: Path,
    spec: ReportSpec,
    timeout_seconds: float,
    *,
    stop: Event | None = None,
    python: str = sys.executable,
) -> DriftReport:
    """Compare, and return what was found, or why nothing was; the id is 0 until a store gives one.

    Parameters
    ----------
    folder
        The report's own, see `folder_of`; it is made, and removed again if there is no report.
    spec
        What is compared.
    timeout_seconds
        When the child is killed.
    stop
        Set to end it before.
    python
        The interpreter that runs the child.
    """
    try:
        found = _compared(folder, spec, timeout_seconds, stop or Event(), python)
    except (_Failed, OSError, TypeError, ValueError) as error:
        _log.warning("no report on version %s of %r: %s", spec.version, spec.model, error)
        return _report(spec, error=str(error))
    return _report(spec, found["reference_rows"], tuple(found["columns"]))


def _report(
    spec: ReportSpec, reference_rows: int = 0, columns: tuple[Mapping[str, Any], ...] = (), error: str = ""
) -> DriftReport:
    return DriftReport(
        id=0,
        model=spec.model,
        version=spec.version,
        at=spec.at,
        start=spec.start,
        end=spec.end,
        reference_rows=reference_rows,
        current_rows=len(spec.rows),
        columns=columns,
        error=error,
    )


def _compared(folder: Path, spec: ReportSpec, seconds: float, stop: Event, python: str) -> dict[str, Any]:
    if len(spec.rows) < FEWEST_ROWS:
        raise _Failed(f"there are {len(spec.rows)} predictions to compare, and {FEWEST_ROWS} are needed")
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700)  # texts are in it for a while
    try:
        _write(folder, spec)
        _run("values", folder, seconds, stop, python)
        found: dict[str, Any] = json.loads((folder / VALUES).read_bytes())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    for name in (TASK, ROWS, VALUES):  # texts are in the log, and nowhere else
        (folder / name).unlink()
    return found


def _write(folder: Path, spec: ReportSpec) -> None:
    task = {"bundle": str(spec.bundle), "sources": [*spec.sources], "declarations": [*spec.declarations]}
    (folder / TASK).write_text(json.dumps(task))
    with (folder / ROWS).open("w") as file:
        for row in spec.rows:
            fields = {"features": row.features, "label": row.label, "probabilities": row.probabilities}
            file.write(json.dumps(fields) + "\n")


def html(
    folder: Path, timeout_seconds: float, *, stop: Event | None = None, python: str = sys.executable
) -> Path:
    """Return the page of a report, which is made when it is first asked for. Not to be called from two threads.

    Parameters
    ----------
    folder, timeout_seconds, stop, python
        As for `make_report`.

    Raises
    ------
    NoPage
        If what it is made of is no longer kept, or it could not be made.
    """
    page = folder / PAGE
    if not (folder / KEPT).exists():
        raise ReportPageMissing(f"the page of this report is gone: those of the last {KEEP} reports are kept")
    try:
        if not page.exists():
            _run("html", folder, timeout_seconds, stop or Event(), python)
    except (_Failed, OSError) as error:
        raise ReportPageMissing(f"the page could not be made: {error}") from None
    return page


def prune(root: Path, keep: int = KEEP) -> None:
    """Remove the folders of all but the last reports, whose values are in the store, and of those left unfinished.

    No report and no page may be in the making meanwhile.
    """
    with suppress(FileNotFoundError):
        folders = sorted(each for each in root.iterdir() if _is_ours(each.name))
        finished = [each for each in folders if (each / KEPT).exists() and not (each / ROWS).exists()]
        for folder in {*folders} - {*finished[max(0, len(finished) - keep) :]}:
            shutil.rmtree(folder, ignore_errors=True)


def _is_ours(name: str) -> bool:
    with suppress(ValueError):
        datetime.strptime(name, _MARK).replace(tzinfo=UTC)
        return True
    return False


def _run(mode: Literal["values", "html"], folder: Path, seconds: float, stop: Event, python: str) -> None:
    """Let the child do it; what it says is logged if it fails."""
    with TemporaryFile("w+", errors="replace") as words:
        code = _ended(_started(mode, folder, words, python), seconds, stop)
        if code == 0:
            return
        words.seek(0)
        _log.warning("the process of a report said: %s", words.read()[-_LAST_WORDS:].strip())
    with suppress(FileNotFoundError):
        raise _Failed((folder / REASON).read_text())
    raise _Failed(f"its process ended with code {code}")


def _started(mode: str, folder: Path, words: IO[str], python: str) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, sys.path))  # so that modules are found where they are found here
    return subprocess.Popen(  # noqa: S603  # our own module
        [python, "-P", "-W", "ignore", "-m", "service.jobs.column_report.worker", mode, str(folder)],
        stdin=subprocess.PIPE,  # never written to: it ends when this process does
        stdout=words,
        stderr=words,
        env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": path},
        start_new_session=True,  # or Ctrl-C would reach it
    )


def _ended(process: subprocess.Popen[bytes], seconds: float, stop: Event) -> int:
    """Wait for the process, end it with all that it started, and return its code."""
    until = monotonic() + seconds
    descriptor = os.pidfd_open(process.pid)
    try:
        while not select.select([descriptor], [], [], _LOOK_SECONDS)[0]:
            if stop.is_set():
                raise _Failed("it was stopped, as the service is")
            if monotonic() > until:
                raise _Failed(f"it was not made within {seconds:g} s")
    finally:
        os.close(descriptor)
        with suppress(ProcessLookupError):  # nobody has waited for it, so that the number is still its own
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    return process.returncode


REPORTS = "reports"
"""Folder beside the store with the data of report pages."""

_SOONER = 10  # times as often is a report tried again that failed
_LOOKED_AT = _SOONER + 1


class ReportRunning(ServiceError):
    """A report, or a page, is being made already."""


class NoReference(ServiceError):
    """There is nothing to compare traffic with: no version of the registry answers here."""


class ColumnReports:
    """Makes one report at a time, and one page at a time; safe to call from several threads.

    Parameters
    ----------
    settings
        Settings of the project.
    deployment
        The active version and its functions.
    store, writer
        The log, and the reports in it.
    registry
        The bundles, whose samples are the references.
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
        self._folder = settings.store.parent / REPORTS
        self._every = timedelta(hours=settings.report.every_hours)
        self._timeout_seconds = settings.report.timeout_minutes * 60
        self._making, self._paging = threading.Lock(), threading.Lock()
        self._stop = threading.Event()
        prune(self._folder)

    def run(self, now: datetime) -> None:
        """Make a report if one is due, and there is traffic enough since the last; errors become reports.

        Of a version that is served elsewhere none is made: the registry has no sample of it. A report that
        failed is tried again after a tenth of the interval.

        Raises
        ------
        StoreError
            If the store cannot be written.
        """
        state = self._deployment.state
        promoted = state.promotion
        if promoted is None:
            return
        with self._store.read() as connection:
            last = reports(connection, state.model, limit=_LOOKED_AT)
        if now >= _due(promoted.at, last, self._every) and self._making.acquire(blocking=False):
            try:
                self._make(state.model, promoted, now, fewest=FEWEST_ROWS)
            finally:
                self._making.release()

    def request(self, now: datetime) -> None:
        """Begin to make a report now, in a thread.

        Raises
        ------
        NoReference
            If no version of the registry answers here.
        ReportBusy
            If a report is being made.
        """
        state = self._deployment.state
        promoted = state.promotion
        if state.version is None:
            raise NoModel("no version is active: there is no traffic to compare with its reference")
        if promoted is None:
            raise NoReference(
                f"version {state.version} is served elsewhere: the registry has no sample to compare traffic with"
            )
        if not self._making.acquire(blocking=False):
            raise ReportRunning("a report is being made: look at the list of reports in a moment")
        work = (state.model, promoted, now)
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
        with self._store.read() as connection:
            found = report(connection, report_id)
        if found is None:
            raise UnknownReport(f"there is no report {report_id}; ask for the list of reports")
        folder = folder_of(self._folder, found.at)
        if (folder / PAGE).exists():
            return folder / PAGE
        if not self._paging.acquire(blocking=False):
            raise ReportRunning("a page is being made: ask again in a moment")
        try:
            return html(folder, self._timeout_seconds, stop=self._stop)
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
        version, start = promoted.version, max(now - self._every, promoted.at)
        with self._store.read() as connection:
            found = traffic_rows(
                connection, model, version, since=start, until=now, limit=self._settings.report.rows
            )
            rows = [_answered(each) for each in found]
        if len(rows) < fewest:
            return
        made = self._made(model, version, start, now, rows)
        if not self._stop.is_set():
            self._writer.submit(partial(add_report, report=made)).result()
            with self._paging:  # no folder goes from under the process that makes its page
                prune(self._folder, KEEP)

    def _made(
        self, model: str, version: int, start: datetime, now: datetime, rows: Sequence[PredictedRow]
    ) -> DriftReport:
        try:
            bundle = self._registry.path(version)
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
            sources=self._settings.functions,
            declarations=self._deployment.state.declarations,
        )
        folder = folder_of(self._folder, now)
        return make_report(folder, spec, self._timeout_seconds, stop=self._stop)


def _due(promoted_at: datetime, last: Sequence[DriftReport], every: timedelta) -> datetime:
    """Return when the next report is due, from the last ones, newest first.

    It is an interval after the last that did not fail, but where one failed since, a tenth of it after that.
    """
    due = next((each.at for each in last if not each.error), promoted_at) + every
    return max(due, last[0].at + every / _SOONER) if last and last[0].error else due


def _answered(row: TrafficRow) -> PredictedRow:
    features = None if row.features is None else json.loads(row.features)
    return PredictedRow(features, row.label, row.probabilities)
