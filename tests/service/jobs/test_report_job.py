"""When a report is made, of which traffic, and what is left of it."""

import json
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from models.registry import ModelRegistry
from service.decisions import DriftReport
from service.errors import ServiceError
from service.jobs.report_job import ReportBusy, ReportJob, ReportParts, ReportRules
from service.jobs.reporting import NoPage
from service.store.engine import Store
from service.store.errors import UnknownReport
from service.store.reports import add_report, reports
from service.store.writer import Writer
from service.views.current import Current

RULES = ReportRules(timedelta(hours=24), 200, 300.0)


class Desk:
    """A log with traffic, and the job over it."""

    def __init__(self, desk: Any, log: tuple[Store, Writer], registry: ModelRegistry, folder: Path) -> None:
        self.desk, (self.store, self.writer) = desk, log
        self.current = Current(desk.in_force_of(promoted_at=desk.start))
        self.folder = folder
        given = ReportParts(self.store, self.writer, self.current, registry, folder, (), list)
        self.job = ReportJob(given, RULES)

    def answered(self, rows: int) -> None:
        record = {"Price [eur]": 12.5, "country": "no", "Customer's comment: (raw)": "fine again"}
        at = self.desk.start + timedelta(hours=1)
        made = [
            self.desk.prediction(f"r{i}", at, "kept", features=json.dumps({**record, "Price [eur]": i}))
            for i in range(rows)
        ]
        self.writer.append(made).result()

    def kept(self) -> list[DriftReport]:
        with self.store.read() as connection:
            return reports(connection, "m")


@pytest.fixture
def at_work(desk: Any, log: tuple[Store, Writer], trained: Path, tmp_path: Path) -> Desk:
    registry = ModelRegistry(trained.parent / ".slicewatch/registry", name="orders")
    return Desk(desk, log, registry, tmp_path / "reports")


def test_the_first_report_comes_an_interval_after_the_promotion(at_work: Desk) -> None:
    """Before that there is not a full interval of traffic to look at."""
    at_work.answered(100)
    at_work.job.step(at_work.desk.start + timedelta(hours=23))
    assert at_work.kept() == []


def test_without_traffic_there_is_no_report(at_work: Desk) -> None:
    """A night without requests is nothing to report on."""
    at_work.job.step(at_work.desk.start + timedelta(hours=25))
    assert at_work.kept() == []


def test_the_next_report_comes_an_interval_after_the_last(at_work: Desk) -> None:
    """Whoever made the last one, and whatever became of it."""
    at = at_work.desk.start + timedelta(hours=24)
    last = DriftReport(0, "m", 1, at, at_work.desk.start, at, 0, 5, (), "too few rows")
    at_work.writer.submit(lambda connection: add_report(connection, last)).result()
    at_work.answered(100)
    at_work.job.step(at + timedelta(hours=23))
    assert len(at_work.kept()) == 1


def test_a_report_is_made_and_kept(at_work: Desk) -> None:
    """Every column is in it, here with why it is not compared: the sample is small; so there is no page either."""
    at_work.answered(100)
    at_work.job.step(at_work.desk.start + timedelta(hours=25))
    (report,) = at_work.kept()
    assert report.error == ""
    assert report.current_rows == 100
    columns = {each["column"]: each for each in report.columns}
    assert {"country", "Price [eur]"} <= columns.keys()
    assert "30" in columns["country"]["error"]
    with pytest.raises(NoPage, match="no column could be compared"):
        at_work.job.page(report.id)


def test_one_report_is_made_at_a_time(at_work: Desk) -> None:
    """Whoever asks while one is being made is told so; afterwards it can be asked for again."""
    at_work.answered(5)
    before = threading.active_count()
    at_work.job._making.acquire()
    with pytest.raises(ReportBusy, match="being made"):
        at_work.job.ask(at_work.desk.start)
    at_work.job._making.release()
    at_work.job.ask(at_work.desk.start + timedelta(hours=2))
    end = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    (report,) = at_work.kept()
    assert "there are 5 predictions to compare, and 30 are needed" in report.error


def test_a_page_of_a_report_that_is_not_there(at_work: Desk) -> None:
    """An unknown number is named."""
    with pytest.raises(UnknownReport, match="no report 7"):
        at_work.job.page(7)


def test_without_a_version_of_the_registry_there_is_no_reference(at_work: Desk) -> None:
    """A model that is served elsewhere has no sample to compare with."""
    at_work.current.in_force = at_work.desk.in_force_of(version=7)
    with pytest.raises(ServiceError, match="no reference"):
        at_work.job._make(at_work.current.in_force, at_work.desk.start, 0)
