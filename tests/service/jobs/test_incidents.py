"""Alarms put into incidents, from the rows of the log."""

from collections.abc import Callable
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from factories import START, function_set, make_label, make_prediction, make_state

from service.decisions import Alarm, DriftDetected, DriftStatus, Incident, RateKey, ToleranceBand
from service.jobs.incidents import IncidentJob
from service.store.alarms import alarms, open_alarm, resolve_alarm
from service.store.engine import Store
from service.store.incidents import acknowledge_incident, incidents
from service.store.writer import Writer
from sfs.function import ALL_ROWS
from sfs.intervals import Rate
from sfs.validation import Metadata

NAMES = ("cause", "wide", "wider", "apart")
CHANGE = START + timedelta(minutes=10)
BAND = ToleranceBand(Rate(200, 1_000), 0.18, 0.22, 0.1)
MINUTE = timedelta(minutes=1)


class Site:
    """Log with rows of four slices, and the job on it."""

    def __init__(self, log: tuple[Store, Writer], deployment: Any, page: Any) -> None:
        (self.store, self.writer), self.page, self._deployment = log, page, deployment
        self.writer.record_functions(function_set("four", **dict.fromkeys(NAMES, "1"))).result()
        self._rng, self._rows = np.random.default_rng(0), 0
        self.restart()

    def deploy(self, deployment: Any) -> None:
        self._deployment = deployment
        self.restart()

    def restart(self) -> None:
        self.job = IncidentJob(self._deployment, self.store, self.writer, self.page)

    def log(
        self, start: datetime, cause: float, apart: float = 0.1, rows: int = 2_000, wrong: float | None = None
    ) -> None:
        """Log rows of five minutes: two slices contain the cause, one is apart; optionally label them."""
        member = self._rng.random((rows, 4)) < (cause, 0.1, 0.2, apart)
        member[:, 1] |= member[:, 0]
        member[:, 2] |= member[:, 1]
        bits = np.packbits(member, axis=1, bitorder="little")
        at = [start + k * timedelta(minutes=5) / rows for k in range(rows)]
        given = [
            make_prediction(f"r{self._rows + k}", at[k], set_hash="four", member=bits[k].tobytes(), content_hash=k)
            for k in range(rows)
        ]
        self._rows += rows
        self.writer.append(given).result()
        if wrong is not None:
            rate = np.where(member[:, 0], wrong, 0.05)
            labels = np.where(self._rng.random(rows) < rate, "y", "x")
            said = [make_label(row.id, row.at, label) for row, label in zip(given, labels.tolist(), strict=True)]
            self.writer.label("m", said).result()

    def raised(self, name: str, at: datetime = CHANGE + 5 * MINUTE, since: datetime = CHANGE, **how: Any) -> Alarm:
        values = {"kind": "coverage", "direction": "up", "fingerprint": None if name == ALL_ROWS else "1"} | how
        drift = DriftStatus(
            slice=name, zone=BAND, evidence=20.0, threshold=19.0, since=since, observed=Rate(40, 100),
            lower=0.3, upper=0.5, **values,
        )  # fmt: skip
        found = DriftDetected(at, drift)
        return self.writer.submit(lambda c: open_alarm(c, "m", 1, found)).result()

    def incidents(self) -> list[Incident]:
        with self.store.read() as connection:
            return incidents(connection, "m")

    def found(self) -> list[list[tuple[str, str]]]:
        """Return slices, and how they moved, by incident, oldest first."""
        return [[(each.drift.slice, each.moved) for each in incident.alarms] for incident in self.incidents()[::-1]]


Make = Callable[..., Site]


@pytest.fixture
def site(log: tuple[Store, Writer], deployment: Any, page: Any) -> Site:
    return Site(log, deployment, page)


MOVED = [("cause", "by itself"), ("wide", "with cause"), ("wider", "with cause")]


def test_one_cause_is_one_incident(site: Site) -> None:
    """The slices that contain it moved with it; another change at the same time is another incident."""
    site.log(START, 0.05)
    site.log(CHANGE, 0.3, apart=0.4)
    for name in ("wider", "wide", "apart", "cause"):
        site.raised(name)
    site.job.run()
    assert site.found() == [MOVED, [("apart", "by itself")]]


def test_alarms_join_the_incident_that_is_open(site: Site) -> None:
    """They come later, of which the incident keeps its number, and get acknowledged with it."""
    site.log(START, 0.05)
    site.log(CHANGE, 0.3)
    site.raised("wide")
    site.job.run()
    (first,) = site.incidents()
    assert site.found() == [[("wide", "by itself")]]
    site.writer.submit(lambda c: acknowledge_incident(c, first.id, CHANGE, "ann")).result()
    site.raised("cause", CHANGE + 6 * MINUTE)
    site.raised("wider", CHANGE + 6 * MINUTE)
    site.job.run()
    assert site.found() == [MOVED]
    (joined,) = site.incidents()
    assert (joined.id, joined.state) == (first.id, "acknowledged")


def test_an_accuracy_fell_with_that_of_a_slice(site: Site) -> None:
    """Wrong labelled rows take the place of members."""
    site.log(START, 0.2, wrong=0.05)
    site.log(CHANGE, 0.2, wrong=0.6)
    for name in ("wider", ALL_ROWS, "wide", "cause"):
        site.raised(name, kind="accuracy", direction="down")
    site.job.run()
    assert [sorted(incident) for incident in site.found()] == [sorted([*MOVED, (ALL_ROWS, "with cause")])]
    assert site.found()[0][0] == ("cause", "by itself")


def test_a_family_fell_with_its_slice(site: Site) -> None:
    """Its rows are those in any of its slices, of which one explains the fall."""
    metadata = {name: Metadata(family="f") for name in ("cause", "apart")}
    prints = dict.fromkeys(NAMES, "1")
    deployed = SimpleNamespace(state=make_state(metadata=metadata, functions_version=function_set("four", **prints)))
    site.deploy(deployed)
    site.log(START, 0.1, wrong=0.05)
    site.log(CHANGE, 0.1, wrong=0.6)
    down = {"kind": "accuracy", "direction": "down"}
    family = RateKey.of_family("f", {"cause": "1", "apart": "1"})
    site.raised("f", **(down | {"kind": "family_accuracy", "fingerprint": family.fingerprint}))
    site.raised("cause", **down)
    site.job.run()
    assert site.found() == [[("cause", "by itself"), ("f", "with cause")]]


def test_changes_of_other_times_are_apart(site: Site) -> None:
    """An alarm whose change began long after an incident does not join it, whatever rows it has."""
    site.log(START, 0.05)
    site.log(CHANGE, 0.3)
    site.raised("cause")
    site.job.run()
    site.raised("wide", CHANGE + 65 * MINUTE, CHANGE + 60 * MINUTE)
    site.job.run()
    assert site.found() == [[("cause", "by itself")], [("wide", "by itself")]]


def test_an_ended_incident_takes_no_alarms(site: Site) -> None:
    """A new one is opened."""
    site.log(START, 0.05)
    site.log(CHANGE, 0.3)
    one = site.raised("cause")
    site.job.run()
    site.writer.submit(lambda c: resolve_alarm(c, one.id, CHANGE, "done")).result()
    site.raised("wide")
    site.job.run()
    assert [len(incident.alarms) for incident in site.incidents()] == [1, 1]


def test_few_rows_are_said_to_be_few(site: Site) -> None:
    """The alarms are grouped by the rows that there are."""
    site.log(START, 0.05, rows=40)
    site.log(CHANGE, 0.3, rows=40)
    for name in ("cause", "wide", "wider"):
        site.raised(name)
    site.job.run()
    assert any(moved.endswith(", too few rows to be sure") for incident in site.found() for _, moved in incident)


def test_alarms_wait_in_the_store(site: Site) -> None:
    """A restart before they are assigned gives the same incidents, and so does a later time with more rows."""
    site.log(START, 0.05)
    site.log(CHANGE, 0.3)
    for name in ("wider", "cause"):
        site.raised(name)
    site.log(CHANGE + 5 * MINUTE, 0.05)
    site.restart()
    site.job.run()
    site.job.run()
    assert site.found() == [[("cause", "by itself"), ("wider", "with cause")]]


def test_functions_without_logged_rows_are_apart(site: Site) -> None:
    """A function that no row knows, or an earlier version of one, shares no rows with others."""
    site.log(START, 0.05)
    site.log(CHANGE, 0.3)
    for name, fingerprint in (("cause", "1"), ("wide", "0"), ("new", "1")):
        site.raised(name, fingerprint=fingerprint)
    site.job.run()
    assert sorted(map(len, site.found())) == [1, 1, 1]


def test_the_metrics_page_shows_open_incidents(site: Site) -> None:
    """One series per incident, with the number of its slices."""
    site.log(START, 0.05)
    site.log(CHANGE, 0.3)
    for name in ("wider", "wide", "cause"):
        site.raised(name)
    site.job.run()
    text = site.page.text().decode()
    labels = 'cause="cause",incident="1",kind="coverage",model="m",owner="",severity="warning"'
    assert f"slicewatch_incident_slices{{{labels}}} 3" in text
    assert 'slicewatch_incidents{model="m"} 1' in text
    with site.store.read() as connection:
        for alarm in alarms(connection, "m", unresolved=True):
            site.writer.submit(lambda c, alarm=alarm: resolve_alarm(c, alarm.id, CHANGE, "done")).result()
    site.job.run()
    text = site.page.text().decode()
    assert "slicewatch_incident_slices{" not in text
    assert 'slicewatch_incidents{model="m"} 0' in text


def test_rates_without_rows_of_a_slice_are_incidents_of_their_own(site: Site) -> None:
    """Unknown rows and a predicted class began with a coverage, and join neither it nor each other."""
    site.log(START, 0.05)
    site.log(CHANGE, 0.3)
    site.raised("cause", kind="unknown")
    site.raised("cause")
    site.raised("x", kind="predicted", fingerprint=None)
    site.job.run()
    assert sorted(site.found()) == [[("cause", "by itself")], [("cause", "by itself")], [("x", "by itself")]]
