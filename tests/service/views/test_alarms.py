"""Alarms, page by page, and what each says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from service.decisions import Alarm, DriftDetected, DriftStatus, ToleranceBand
from service.store.alarms import open_alarm, resolve_alarm
from service.store.errors import UnknownAlarm
from service.views.alarms import (
    alarm_sentence,
    alarm_view,
    alarms_view,
    drift_sentence,
    share_text,
    unresolved_by_slice,
)
from sfs.function import ALL_ROWS
from sfs.intervals import Rate

AT = datetime(2026, 5, 20, 12, 50, tzinfo=UTC)
MOVED = DriftStatus(
    "cheap", "f", "coverage", ToleranceBand(Rate(400, 20_000), 0.018, 0.022, 0.1), 9.0, 8.0,
    datetime(2026, 5, 20, 12, 40, tzinfo=UTC), "up", Rate(81, 1000), 0.06, 0.1,
)  # fmt: skip
DROPPED = replace(
    MOVED, kind="accuracy", zone=ToleranceBand(Rate(900, 1000), 0.87, 1.0, 0.01), direction="down",
    observed=Rate(190, 312),
)  # fmt: skip


@pytest.fixture
def raised(log: Any) -> Callable[..., Alarm]:
    """Raises an alarm."""

    def raise_(drift: DriftStatus = MOVED, model: str = "orders") -> Alarm:
        work = partial(open_alarm, model=model, version=1, detection=DriftDetected(AT, drift))
        alarm: Alarm | None = log.writer.submit(work).result()
        assert alarm is not None
        return alarm

    return raise_


def test_pages_follow_each_other_without_gaps(log: Any, raised: Callable[..., Alarm]) -> None:
    """A page that holds the last one says that none follows, however full it is."""
    ids = [raised(replace(MOVED, slice=name)).id for name in ("a", "b", "c", "d")]
    first = alarms_view(log.store, "orders", limit=2)
    assert ([each.id for each in first.alarms], first.next) == (ids[:1:-1], ids[2])
    second = alarms_view(log.store, "orders", limit=2, before=first.next)
    assert ([each.id for each in second.alarms], second.next) == (ids[1::-1], None)


def test_alarms_of_another_model_are_not_shown(log: Any, raised: Callable[..., Alarm]) -> None:
    """A store may hold the alarms of a name that the project had before."""
    other = raised(model="books")
    assert alarms_view(log.store, "orders").alarms == ()
    with pytest.raises(UnknownAlarm, match=f"there is no alarm {other.id}; the alarms are listed"):
        alarm_view(log.store, "orders", other.id)
    assert alarm_view(log.store, "books", other.id) == other


def test_alarms_that_have_not_ended_are_found_by_their_slice(log: Any, raised: Callable[..., Alarm]) -> None:
    """Both kinds of a slice, newest first; those that ended are out."""
    coverage, accuracy, ended = raised(), raised(DROPPED), raised(replace(MOVED, slice="short"))
    log.writer.submit(partial(resolve_alarm, alarm_id=ended.id, at=AT, resolution="over")).result()
    assert unresolved_by_slice(log.store, "orders") == {"cheap": (accuracy, coverage)}


def test_an_alarm_of_coverage_in_a_sentence() -> None:
    """Share, since when, and where it was expected."""
    alarm = Alarm(1, "orders", 1, AT, MOVED)
    assert alarm_sentence(alarm) == "cheap holds 8.1 % of rows since 12:40 UTC, expected 1.8 to 2.2 %"


def test_an_alarm_of_accuracy_in_a_sentence() -> None:
    """With how many labels it was counted from."""
    assert drift_sentence(DROPPED, AT) == (
        "accuracy on cheap is 60.9 % of 312 labelled rows since 12:40 UTC, expected at least 87.0 %"
    )


def test_a_change_of_another_day_says_which() -> None:
    """The hour alone would mean today's."""
    drift = replace(MOVED, since=AT - timedelta(days=2))
    assert "since 2026-05-18 12:50 UTC" in drift_sentence(drift, AT)


def test_a_slice_that_vanished_holds_nothing() -> None:
    """No row is a share as well, and more than no rows to count."""
    drift = replace(MOVED, observed=Rate(0, 500), direction="down")
    assert drift_sentence(drift, AT).startswith("cheap holds 0 % of rows since 12:40 UTC")


def test_the_whole_traffic_has_a_name() -> None:
    """Its column's name is for machines."""
    assert drift_sentence(replace(DROPPED, slice=ALL_ROWS), AT).startswith("accuracy on the whole traffic is")


@pytest.mark.parametrize(
    ("share", "text"), [(0.5, "50.0 %"), (0.0094, "0.94 %"), (0.99999999, ">99.999 %"), (1e-7, "<0.001 %")]
)
def test_shares_are_never_rounded_to_none_or_all(share: float, text: str) -> None:
    """The digits follow the distance from the nearer end."""
    assert share_text(share) == text
