"""Retention job: what it deletes, and what it counts."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from factories import START, make_label, make_metrics, make_prediction, read_sample, recount

from service.jobs.retention import Retention
from service.settings.schema import LogSettings, MonitorSettings, Settings
from service.store import queries

DAY = timedelta(days=1)


def retention(log, settings: Settings, position: object = (START + 99 * DAY, 1_000), **changes: object):
    """Return the job over a log, and its metrics; a run takes no time, unless stated otherwise."""
    metrics, timer = make_metrics(), {"seconds": lambda: 0.0}
    return Retention(settings, SimpleNamespace(position=position), log[1], metrics, **(timer | changes)), metrics


@pytest.fixture
def filled(log):
    """A log with 1,200 rows of the first day and one of the tenth, and labels of two ids that never came."""
    store, writer = log
    old = [make_prediction(f"old{n}", START) for n in range(1_200)]
    writer.append([*old, make_prediction("new", START + 10 * DAY)]).result()
    writer.label("m", [make_label("stray", START), make_label("old0", START)]).result()
    writer.label("m", [make_label("waiting", START + 10 * DAY)]).result()
    while recount(store, writer):
        pass
    return log


def ids(store) -> set[str]:
    with store.read() as connection:
        rows = queries.records(connection, "m", since=START - DAY, until=START + 99 * DAY)
        return {row.prediction.id for row in rows}


def test_without_a_setting_rows_are_kept_for_ever(filled, settings: Settings) -> None:
    """Only labels of ids that never came expire, after the age at which they would no longer count."""
    job, metrics = retention(filled, settings)
    assert job.run(START + 11 * DAY) == 0
    assert job.run(START + 31 * DAY) == 0
    assert len(ids(filled[0])) == 1_201
    assert read_sample(metrics, "slicewatch_labels_expired_total") == 1


def test_rows_beyond_their_age_are_deleted_and_counted(filled, settings: Settings) -> None:
    """All parts of a run are deleted; the row whose label was the last stays, and so do younger rows."""
    job, metrics = retention(filled, replace(settings, log=LogSettings(keep_days=7)))
    assert job.run(START + 11 * DAY) == 1_199
    assert ids(filled[0]) == {"old0", "new"}
    assert read_sample(metrics, "slicewatch_log_deleted_total") == 1_199
    assert read_sample(metrics, "slicewatch_labels_expired_total") == 1


def test_nothing_is_deleted_before_the_detectors_have_run(filled, settings: Settings) -> None:
    """After a start their position is not known yet."""
    job, _ = retention(filled, replace(settings, log=LogSettings(keep_days=7)), position=None)
    assert job.run(START + 11 * DAY) == 0


def test_a_label_of_a_row_that_may_be_deleted_is_too_late(settings: Settings) -> None:
    """The shorter of both ages counts, so that no label changes the counts of deleted rows."""
    ages = [
        replace(settings, log=LogSettings(keep_days=keep), monitor=MonitorSettings(label_days=label)).late_after_seconds
        for keep, label in ((7, 30.0), (60, 30.0), (None, 3.0))
    ]
    assert ages == [7 * 86_400, 30 * 86_400, 3 * 86_400]


def test_a_run_ends_in_time_and_counts_what_it_deleted(filled, settings: Settings) -> None:
    """A shutdown waits for the end of a run: with a slow disk it deletes less, and the next run goes on."""
    seconds = itertools.count(0.0, 0.25)
    job, metrics = retention(filled, replace(settings, log=LogSettings(keep_days=7)), seconds=lambda: next(seconds))
    deleted = job.run(START + 11 * DAY)
    assert 0 < deleted < 100
    assert next(seconds) < 4
    assert read_sample(metrics, "slicewatch_log_deleted_total") == deleted
    assert len(ids(filled[0])) == 1_201 - deleted


def test_rows_deleted_before_a_failure_are_counted(filled, settings: Settings) -> None:
    """Every part is counted after its commit."""
    ticks = itertools.count()

    def seconds() -> float:
        if next(ticks) == 9:  # within the second part of the rows
            raise ValueError("on purpose")
        return 0.0

    job, metrics = retention(filled, replace(settings, log=LogSettings(keep_days=7)), seconds=seconds)
    with pytest.raises(ValueError, match="on purpose"):
        job.run(START + 11 * DAY)
    assert read_sample(metrics, "slicewatch_log_deleted_total") == 1_201 - len(ids(filled[0])) > 0
