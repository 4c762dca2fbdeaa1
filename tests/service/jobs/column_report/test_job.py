"""Column reports: when one is created, from which traffic, and its page."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from factories import START, make_local_state, make_prediction, make_state

from models.registry import AliasChange, ModelRegistry
from service.decisions import DriftReport
from service.errors import NoModel, Stopping
from service.jobs.column_report.job import (
    REPORTS,
    ColumnReports,
    NoReference,
    ReportPageMissing,
    ReportRunning,
)
from service.jobs.column_report.process import COLUMNS, KEEP, PAGE, report_folder
from service.serving.deployment import Deployment
from service.serving.table_reference import TableReference
from service.settings.schema import ReportSettings, Settings
from service.store.engine import Store
from service.store.errors import UnknownReport
from service.store.reports import add_report, reports
from service.store.writer import Writer
from sfs.schema import Column, Schema

SECONDS = 600  # a thread that takes longer hangs

pytestmark = pytest.mark.usefixtures("forked_children")


class Log:
    """A log with traffic, and the job over it."""

    def __init__(
        self,
        log: tuple[Store, Writer],
        deployment: Deployment,
        settings: Settings,
        registry: ModelRegistry,
    ) -> None:
        (self.store, self.writer), self.deployment = log, deployment
        self.settings, self.registry = replace(settings, report=ReportSettings(rows=200)), registry
        self.folder = settings.store.parent / REPORTS
        self.activate(1)
        self.job = self.new_job(self.writer)

    def new_job(self, writer: Writer) -> ColumnReports:
        return ColumnReports(self.settings, self.deployment, self.store, writer, self.registry)

    def activate(self, version: int) -> None:
        """Activate a version of the registry at the start."""
        change = AliasChange(1, version, "hash", "promote", "test", START)
        self.deployment.state = make_local_state(version=version, promoted_at=START, history=(change,))

    def predict(self, rows: int, hours: float = 1, version: int = 1, first: int = 0) -> None:
        record = {"Price [eur]": 12.5, "country": "no", "Customer's comment: (raw)": "fine again"}
        predictions = [
            make_prediction(
                f"r{first + i}",
                self.after(hours),
                "kept",
                version=version,
                features=json.dumps({**record, "Price [eur]": i}),
            )
            for i in range(rows)
        ]
        self.writer.append(predictions).result()

    def after(self, hours: float) -> datetime:
        return START + timedelta(hours=hours)

    def add(self, hours: float, error: str = "") -> DriftReport:
        """Store an earlier report, and return it."""
        at = self.after(hours)
        report = DriftReport(0, "m", 1, at, START, at, 0, 5, (), error)
        return self.writer.submit(lambda connection: add_report(connection, report)).result()

    def folder_at(self, hours: float, create: Callable[[Path], None] = Path.touch) -> Path:
        """Return the folder of a finished report without a page."""
        folder = report_folder(self.folder, self.after(hours))
        folder.mkdir(parents=True)
        create(folder / COLUMNS)
        return folder

    def reports(self) -> list[DriftReport]:
        with self.store.read() as connection:
            return list(reports(connection, "m"))


@pytest.fixture
def here(log: tuple[Store, Writer], deployment: Deployment, settings: Settings, trained: Path) -> Log:
    return Log(log, deployment, settings, ModelRegistry(trained.parent / ".slicewatch/registry", "orders"))


def join_report_thread() -> None:
    for each in threading.enumerate():
        if each.name == "report":
            each.join(SECONDS)
            assert not each.is_alive()


def test_the_first_report_comes_an_interval_after_the_promotion(here: Log) -> None:
    """Until then the interval of traffic is not complete."""
    here.predict(100)
    here.job.run(START + timedelta(hours=23))
    assert here.reports() == []


def test_without_traffic_there_is_no_report(here: Log) -> None:
    """A report needs rows."""
    here.job.run(START + timedelta(hours=25))
    assert here.reports() == []


def test_the_next_report_comes_an_interval_after_the_last(here: Log) -> None:
    """A requested report counts, too."""
    here.add(24)
    here.predict(100, hours=25)
    here.job.run(here.after(47))
    assert len(here.reports()) == 1


def test_a_failed_report_is_retried_after_a_tenth_of_the_interval(here: Log) -> None:
    """It is not retried at once, nor before a report is due."""
    here.activate(7)
    here.predict(100, hours=20, version=7)
    here.add(20, error="requested, with too few rows")
    here.job.run(here.after(23))
    assert len(here.reports()) == 1
    here.job.run(here.after(24))
    here.job.run(here.after(26))
    assert [each.at for each in here.reports()] == [here.after(24), here.after(20)]
    here.job.run(here.after(26.5))
    assert len(here.reports()) == 3


def test_a_version_missing_in_the_registry_is_an_error(here: Log) -> None:
    """The report has the error, and the job does not fail."""
    here.activate(7)
    here.predict(100, version=7)
    here.job.run(here.after(24))
    (report,) = here.reports()
    assert "has no version 7" in report.error
    assert (report.version, report.current_rows, report.columns) == (7, 100, ())


def test_a_report_is_created_and_stored(here: Log) -> None:
    """It has every column; with a small sample none is compared, and there is no page."""
    here.predict(100)
    here.job.run(START + timedelta(hours=25))
    (report,) = here.reports()
    assert (report.error, report.model, report.version, report.current_rows) == ("", "m", 1, 100)
    assert (report.at, report.start, report.end) == (here.after(25), here.after(1), here.after(25))
    assert 0 < report.reference_rows < 30
    columns = {each["column"]: each for each in report.columns}
    assert {"country", "Price [eur]"} <= columns.keys()
    assert "30" in columns["country"]["error"]
    with pytest.raises(ReportPageMissing, match="no column could be compared"):
        here.job.page(report.id)


def test_one_report_is_created_at_a_time(here: Log) -> None:
    """A second request is refused until the first report is stored."""
    here.predict(100)
    fifo, functions = here.folder.parent / "fifo", here.folder.parent / "functions.py"
    os.mkfifo(fifo)
    functions.write_text(f"open({str(fifo)!r}).read()")
    here.settings = replace(here.settings, functions=(str(functions),))
    job = here.new_job(here.writer)
    job.request(here.after(2))
    with fifo.open("w"):  # waits until the child of the report has opened it
        with pytest.raises(ReportRunning, match="being created"):
            job.request(here.after(2))
        job.run(here.after(24))
    join_report_thread()
    assert [(each.at, each.error) for each in here.reports()] == [(here.after(2), "")]
    job.request(here.after(100))
    join_report_thread()
    assert here.reports()[0].error == "there are 0 predictions to compare; 30 are needed"
    assert len(here.reports()) == 2


def test_a_promotion_ahead_of_the_clock_stops_no_report(here: Log) -> None:
    """After the clock was set back: the traffic of the last interval is compared."""
    here.deployment.state = replace(here.deployment.state, promoted_at=here.after(100))
    here.predict(60)
    here.job.run(here.after(2))
    here.job.run(here.after(3))
    assert [(each.at, each.error, each.current_rows) for each in here.reports()] == [(here.after(2), "", 60)]


def test_an_unknown_report_has_no_page(here: Log) -> None:
    """The message names the id."""
    with pytest.raises(UnknownReport, match="no report 7"):
        here.job.page(7)


def served_elsewhere(here: Log, **changes: Any) -> None:
    """Follow external version 7, which was first logged at the start."""
    here.deployment.state = make_state(version=7, promoted_at=START, **changes)


def test_an_external_version_waits_for_its_table(here: Log) -> None:
    """Until the table was read there is nothing to compare with: a request is refused with the reason."""
    served_elsewhere(here, table_note="being counted on orders.csv")
    here.predict(100, version=7)
    here.job.run(here.after(24))
    with pytest.raises(NoReference, match=r"being counted on orders\.csv"):
        here.job.request(here.after(24))
    assert here.reports() == []


@pytest.mark.parametrize("label", [None, "kept"])
def test_an_external_version_is_compared_with_its_table(here: Log, label: str | None) -> None:
    """Predictions that the table lacks are those of the first interval; the report names no model."""
    here.settings = replace(here.settings, features={"country": "category", "Price [eur]": "number"})
    here.job = here.new_job(here.writer)
    sample = tuple(({"country": "no", "Price [eur]": float(price)}, label) for price in range(100))
    schema = Schema([Column("Price [eur]", "number")])
    served_elsewhere(here, table=TableReference("orders.csv", "", 100, label is not None, 7, {}, {}, schema, sample))
    here.predict(60, hours=20, version=7)
    here.predict(60, hours=40, version=7, first=60)
    here.job.run(here.after(48))
    (report,) = here.reports()
    assert (report.error, report.version, report.reference_rows, report.current_rows) == ("", 7, 100, 60)
    rows = {each["column"]: each["rows"] for each in report.columns}
    assert rows["Price [eur]"] == [100, 60]
    assert rows["predicted label"] == [60 if label is None else 100, 60]


def test_without_a_version_there_is_no_report(here: Log) -> None:
    """A request is refused."""
    here.deployment.state = make_state(version=None)
    here.job.run(here.after(24))
    with pytest.raises(NoModel, match="no version is active"):
        here.job.request(here.after(24))


@contextmanager
def rendering(job: ColumnReports, report: DriftReport, folder: Path) -> Iterator[Future[Path]]:
    """Render a page, whose child waits for the columns in a FIFO until the job is stopped."""
    with ThreadPoolExecutor(1) as pool:
        page = pool.submit(job.page, report.id)
        try:
            with (folder / COLUMNS).open("wb"):  # waits until the child has opened it
                yield page
        finally:
            job.stop()


def test_one_page_is_rendered_at_a_time(here: Log) -> None:
    """Other requests are refused meanwhile, but for a page that exists."""
    slow, other, finished = (here.add(hours) for hours in (1, 2, 3))
    folder = here.folder_at(1, os.mkfifo)
    here.folder_at(2)
    (here.folder_at(3) / PAGE).touch()
    with rendering(here.job, slow, folder) as page:
        for busy in (slow, other):
            with pytest.raises(ReportRunning, match="a page is being rendered: try again in a moment"):
                here.job.page(busy.id)
        assert here.job.page(finished.id).name == PAGE
        here.job.stop()
        with pytest.raises(Stopping, match="stopping"):
            page.result()


class NotifyingWriter(Writer):
    """A writer that sets an event after a commit."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.committed = threading.Event()

    def submit(self, work: Callable[..., Any]) -> Future[Any]:
        future = super().submit(work)
        future.add_done_callback(lambda _: self.committed.set())
        return future


def test_a_page_in_progress_keeps_its_folder(here: Log) -> None:
    """The oldest folder is deleted after the next report once its page is rendered or has failed."""
    first = here.add(0)
    here.writer.stop()  # a store has one writer
    writer = NotifyingWriter(here.store)
    job = here.new_job(writer)
    later = [here.folder_at(hours) for hours in range(1, KEEP + 1)]
    folder = here.folder_at(0, os.mkfifo)
    with rendering(job, first, folder) as page:
        job.request(here.after(23))
        assert writer.committed.wait(SECONDS)
        assert len(here.reports()) == 2
        assert folder.exists()
        job.stop()
        with pytest.raises(Stopping, match="stopping"):
            page.result()
    join_report_thread()
    writer.stop()
    assert sorted(here.folder.iterdir()) == later


def test_a_report_without_data_has_no_page(here: Log) -> None:
    """The message names the number of reports that have one."""
    with pytest.raises(ReportPageMissing, match="no page any more: the latest 20 reports have one"):
        here.job.page(here.add(1).id)


def test_a_report_without_a_thread_blocks_no_other(here: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no thread can be started, the request fails, and the next one does not find a report running."""

    def refuse(*args: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", refuse)
        with pytest.raises(RuntimeError, match="thread"):
            here.job.request(here.after(2))
    here.job.request(here.after(2))
    join_report_thread()
