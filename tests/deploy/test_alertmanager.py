"""Notifications of drift, with a real Prometheus and a real Alertmanager on a metrics page."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client.core import Metric

from service.decisions import Alarm, DriftStatus, Incident, ToleranceBand
from service.metrics.exposition import Families, gauge, render
from service.metrics.gauges import render_drift, render_incidents
from sfs.intervals import Rate
from sfs.validation import Metadata

SINCE = datetime(2026, 3, 10, 10, tzinfo=UTC)
MODEL = "comments"


def drift(name: str, observed: Rate, kind: str = "coverage", since: datetime | None = SINCE) -> DriftStatus:
    zone = ToleranceBand(Rate(20, 1000), 0.01, 0.03, 0.1)
    return DriftStatus(name, "f", kind, zone, 20.0, 19.0, since, "up", observed, 0.0, 1.0)  # type: ignore[arg-type]


NAMES = [f"slice-{k}" for k in range(13)]
WATCHED = [drift(name, Rate(20, 1000)) for name in NAMES]
"""Monitored rates of the page."""
METADATA = {name: Metadata(owner="trust", severity="critical") for name in NAMES}


class Page:
    """Metrics page of the service, with its unresolved incidents, and alarms without one."""

    def __init__(self) -> None:
        self.incidents: Sequence[Incident] = ()
        self.loose: Sequence[Alarm] = ()

    def __call__(self) -> bytes:
        unresolved = [*self.loose, *(alarm for incident in self.incidents for alarm in incident.alarms)]
        drifts = render_drift(MODEL, WATCHED, unresolved) + render_incidents(MODEL, self.incidents, METADATA)
        return drifts + render(Families(facts()))


def facts() -> list[Metric]:
    """Return the info series of the slices, and the series that joins it with the model."""
    info = gauge("slice_info", "Who answers for the slice.", ["slice", "owner", "severity", "target"])
    labelled = gauge("slice_labelled_predictions", "The n.", ["model", "version", "slice", "window"])
    for name in NAMES:
        info.add_metric([name, "trust", "critical", ""], 1)
        labelled.add_metric([MODEL, "1", name, "1h"], 0)
    return [info, labelled]


def alarm(number: int, name: str) -> Alarm:
    return Alarm(number, MODEL, 1, SINCE + timedelta(minutes=1), drift(name, Rate(80, 1000)))


def incident(number: int, *names: str) -> Incident:
    """Return an incident whose alarms are numbered as the slices, the first as the cause."""
    return Incident(number, MODEL, tuple(alarm(NAMES.index(name) + 1, name) for name in names))


@pytest.fixture
def speaks(alertmanager: Callable, receiver: object) -> Iterator[httpx.Client]:
    """Alertmanager that notifies the receiver."""
    with alertmanager(receiver.url) as client:
        yield client


def test_the_configuration_is_valid(deploy: Path) -> None:
    """amtool accepts the configuration."""
    command = ["amtool", "check-config", "alertmanager.yml"]
    said = subprocess.run(command, cwd=deploy / "alertmanager", capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


def test_one_cause_is_notified_once(
    page_server: Callable, prometheus: Callable, speaks: httpx.Client, receiver: object, settled: Callable
) -> None:
    """No notification while calm; one about twelve slices that alarm in turn; one about an unrelated slice."""
    page = Page()
    with page_server(page) as port, prometheus(port, told=speaks.base_url.port) as server:

        def judged(expr: str) -> None:
            often = f"count_over_time({expr}[1m]) >= 8"
            settled(lambda: server.query(often), expr)

        judged("slice:slicewatch_slice_drift_alarm:max")
        alerts = server.query("ALERTS"), speaks.get("/api/v2/alerts").json(), receiver.received
        assert alerts == ([], [], [])

        page.incidents = [incident(1, *NAMES[1:4])]
        settled(lambda: receiver.received, "notification")
        page.incidents = [incident(1, *NAMES[:12])]
        judged('slicewatch_incident_slices{cause="slice-0"}')
        assert [each["status"] for each in receiver.received] == ["firing"]

        page.incidents = [incident(1, *NAMES[:12]), incident(2, NAMES[12])]
        settled(lambda: len(receiver.received) == 2, "second notification")
        judged('ALERTS{incident="2", alertstate="firing"}')
        page.incidents = ()
        settled(lambda: len(receiver.received) == 4, "ends")

    told = [(each["status"], each["groupLabels"]) for each in receiver.received]
    groups = [{"alertname": "SlicewatchIncident", "model": MODEL, "incident": str(number)} for number in (1, 2)]
    assert told[:2] == [("firing", group) for group in groups]
    assert [status for status, _ in told[2:]] == ["resolved", "resolved"]
    (alert,) = receiver.received[0]["alerts"]
    assert alert["labels"] == {**groups[0], "owner": "trust", "severity": "critical"}
    assert alert["annotations"] == {
        "summary": "Coverage of slice slice-1 is 8%, expected 2%",
        "description": f"Incident 1 of {MODEL} has 3 drifted slices. The change of the one that explains the most of "
        "the others began about 2026-03-10 10:00:00 +0000 UTC. The incident's page of the console shows all slices, "
        "the evidence and the status.",
        "runbook_url": "deploy/runbook.md#slicewatchincident",
    }


def test_alarms_without_an_incident_are_notified_themselves(
    page_server: Callable, prometheus: Callable, speaks: httpx.Client, receiver: object, settled: Callable
) -> None:
    """If they could not be grouped."""
    page = Page()
    page.loose = [alarm(1, NAMES[0])]
    with page_server(page) as port, prometheus(port, told=speaks.base_url.port):
        settled(lambda: receiver.received, "notification")
    assert name_of(receiver.received[0]) == "SlicewatchSliceCoverageDrift"


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("SlicewatchSliceCoverageDrift", "SlicewatchSliceCoverageOutsideReference", False),
        ("SlicewatchSliceCoverageDrift", "SlicewatchSliceAccuracyDrift", True),
        ("SlicewatchSliceAccuracyDrift", "SlicewatchSliceAccuracyBelowTarget", False),
    ],
)
def test_one_change_is_not_notified_twice(
    first: str, second: str, told: bool, speaks: httpx.Client, receiver: object, settled: Callable
) -> None:
    """The service's alarms inhibit the rules on the same slice and rate, and not each other."""
    post(speaks, first, "links")
    settled(lambda: receiver.received, "notification")
    post(speaks, second, "links", "short")
    settled(lambda: second in {name_of(each) for each in receiver.received}, "second notification")
    of_second = [each for each in receiver.received if name_of(each) == second][-1]
    assert {each["labels"]["slice"] for each in of_second["alerts"]} == ({"links", "short"} if told else {"short"})
    found = speaks.get("/api/v2/alerts", params={"inhibited": "true", "active": "false"}).json()
    assert [each["labels"]["alertname"] for each in found] == ([] if told else [second])


def post(speaks: httpx.Client, name: str, *slices: str) -> None:
    alerts = [{"labels": {"alertname": name, "model": MODEL, "slice": each}} for each in slices]
    speaks.post("/api/v2/alerts", json=alerts).raise_for_status()


def name_of(notification: dict) -> str:
    return notification["groupLabels"]["alertname"]
