"""When a report is made, of which traffic, and what is left of it."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from models.registry import AliasChange, ModelRegistry
from service.decisions import DriftReport
from service.jobs.column_report.job import (
    KEEP,
    KEPT,
    PAGE,
    ColumnReports,
    NoReference,
    ReportPageMissing,
    ReportParts,
    ReportRules,
    ReportRunning,
    folder_of,
)
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
        self.current = Current(self.in_force(1))
        self.folder = folder
        given = ReportParts(self.store, self.writer, self.current, registry, folder, (), list)
        self.job = ColumnReports(given, RULES)

    def in_force(self, version: int, here: bool = True) -> Any:
        """Return a version that was put in force at the start, or is served elsewhere since then."""
        at = self.desk.start
        change = AliasChange(1, version, "hash", "promote", "tried", at)
        return self.desk.in_force_of(version=version, promoted_at=at, history=(change,) if here else ())

    def answered(self, rows: int, hours: float = 1, version: int = 1) -> None:
        record = {"Price [eur]": 12.5, "country": "no", "Customer's comment: (raw)": "fine again"}
        at = self.after(hours)
        made = [
            self.desk.prediction(
                f"r{i}", at, "kept", version=version, features=json.dumps({**record, "Price [eur]": i})
            )
            for i in range(rows)
        ]
        self.writer.append(made).result()

    def after(self, hours: float) -> datetime:
        return self.desk.start + timedelta(hours=hours)

    def told(self, hours: float, error: str = "") -> DriftReport:
        """Keep a report that was made before, and return it."""
        at = self.after(hours)
        report = DriftReport(0, "m", 1, at, self.desk.start, at, 0, 5, (), error)
        return self.writer.submit(lambda connection: add_report(connection, report)).result()

    def folder_at(self, hours: float, keep: Callable[[Path], None] = Path.touch) -> Path:
        """Return the folder of a finished report, whose page is not made yet."""
        folder = folder_of(self.folder, self.after(hours))
        folder.mkdir(parents=True)
        keep(folder / KEPT)
        return folder

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
    """Whoever made the last one."""
    at_work.told(24)
    at_work.answered(100, hours=25)
    at_work.job.step(at_work.after(47))
    assert len(at_work.kept()) == 1


def test_a_report_that_failed_is_tried_again_after_a_tenth_of_the_interval(at_work: Desk) -> None:
    """Not at once, as it would most likely fail again; and one that nobody awaits yet is not made for that."""
    at_work.current.in_force = at_work.in_force(7)
    at_work.answered(100, hours=20, version=7)
    at_work.told(20, error="asked for by hand, of too few rows")
    at_work.job.step(at_work.after(23))
    assert len(at_work.kept()) == 1
    at_work.job.step(at_work.after(24))
    at_work.job.step(at_work.after(26))
    assert [each.at for each in at_work.kept()] == [at_work.after(24), at_work.after(20)]
    at_work.job.step(at_work.after(26.5))
    assert len(at_work.kept()) == 3


def test_a_version_that_the_registry_lost_is_a_reason(at_work: Desk) -> None:
    """The report says so: it is not an error of the job."""
    at_work.current.in_force = at_work.in_force(7)
    at_work.answered(100, version=7)
    at_work.job.step(at_work.after(24))
    (report,) = at_work.kept()
    assert "has no version 7" in report.error
    assert (report.version, report.current_rows, report.columns) == (7, 100, ())


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
    with pytest.raises(ReportPageMissing, match="no column could be compared"):
        at_work.job.page(report.id)


def test_one_report_is_made_at_a_time(at_work: Desk) -> None:
    """Whoever asks while one is being made is told so; afterwards it can be asked for again."""
    at_work.answered(5)
    before = threading.active_count()
    at_work.job._making.acquire()
    with pytest.raises(ReportRunning, match="being made"):
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


@pytest.mark.parametrize("version", [1, 7])
def test_of_a_version_that_is_served_elsewhere_no_report_is_made(at_work: Desk, version: int) -> None:
    """It has no sample to compare with, even where a version of the registry has its number; whoever asks is told."""
    at_work.current.in_force = at_work.in_force(version, here=False)
    at_work.answered(100, version=version)
    at_work.job.step(at_work.after(24))
    with pytest.raises(NoReference, match=f"version {version} is served elsewhere"):
        at_work.job.ask(at_work.after(24))
    assert at_work.kept() == []


def test_without_a_version_there_is_nothing_to_report_on(at_work: Desk) -> None:
    """Whoever asks is told."""
    at_work.current.in_force = at_work.desk.in_force_of(version=None)
    at_work.job.step(at_work.after(24))
    with pytest.raises(NoReference, match="no version is in force"):
        at_work.job.ask(at_work.after(24))


def until(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def held() -> Iterator[Callable[[Path], None]]:
    """Waits until the page of a report is being made, which then does not end by itself."""
    ends: list[int] = []

    def begun(folder: Path) -> bool:
        with suppress(OSError):  # nobody reads yet
            ends.append(os.open(folder / KEPT, os.O_WRONLY | os.O_NONBLOCK))
        return bool(ends)

    yield lambda folder: until(lambda: begun(folder))
    for each in ends:
        os.close(each)


def test_one_page_is_made_at_a_time(at_work: Desk, held: Callable[[Path], None]) -> None:
    """Whoever asks for another one meanwhile is told so, but for one that is there."""
    slow, other, made = (at_work.told(hours) for hours in (1, 2, 3))
    folder = at_work.folder_at(1, os.mkfifo)
    at_work.folder_at(2)
    (at_work.folder_at(3) / PAGE).touch()
    with ThreadPoolExecutor(1) as pool, ExitStack() as end:
        end.callback(at_work.job.stop)
        making = pool.submit(at_work.job.page, slow.id)
        held(folder)
        for busy in (slow, other):
            with pytest.raises(ReportRunning, match="a page is being made: ask again in a moment"):
                at_work.job.page(busy.id)
        assert at_work.job.page(made.id).name == PAGE
        at_work.job.stop()
        with pytest.raises(ReportPageMissing, match="stopped"):
            making.result()


def test_no_folder_is_removed_while_its_page_is_made(at_work: Desk, held: Callable[[Path], None]) -> None:
    """The oldest one has to go with the next report, once its page is there, or cannot be made."""
    first = at_work.told(0)
    later = [at_work.folder_at(hours) for hours in range(1, KEEP + 1)]
    folder = at_work.folder_at(0, os.mkfifo)
    with ThreadPoolExecutor(1) as pool, ExitStack() as end:
        end.callback(at_work.job.stop)
        making = pool.submit(at_work.job.page, first.id)
        held(folder)
        at_work.job.ask(at_work.after(23))
        until(lambda: len(at_work.kept()) == 2)
        (waits,) = (each for each in threading.enumerate() if each.name == "report")
        assert folder.exists()
        at_work.job.stop()
        with pytest.raises(ReportPageMissing, match="stopped"):
            making.result()
        waits.join(60)
    assert sorted(at_work.folder.iterdir()) == later
