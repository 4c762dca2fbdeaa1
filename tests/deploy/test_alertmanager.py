"""Notifications of drift, with a real Prometheus and a real Alertmanager on a metrics page."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client.core import Metric

from service.decisions import Alarm, DriftStatus, ToleranceBand
from service.metrics.exposition import Families, gauge, render
from service.metrics.gauges import render_drift
from sfs.intervals import Rate

SINCE = datetime(2026, 3, 10, 10, tzinfo=UTC)
MODEL = "comments"


def drift(name: str, observed: Rate, kind: str = "coverage", since: datetime | None = SINCE) -> DriftStatus:
    zone = ToleranceBand(Rate(20, 1000), 0.01, 0.03, 0.1)
    return DriftStatus(name, "f", kind, zone, 20.0, 19.0, since, "up", observed, 0.0, 1.0)  # type: ignore[arg-type]


WATCHED = (drift("links", Rate(20, 1000)), drift("short", Rate(20, 1000)))
"""Monitored rates of the page."""


class Page:
    """Metrics page of the service, with its unresolved alarms."""

    def __init__(self) -> None:
        self.unresolved: Sequence[Alarm] = ()

    def __call__(self) -> bytes:
        return render_drift(MODEL, WATCHED, self.unresolved) + render(Families(facts()))


def facts() -> list[Metric]:
    """Return the info series of the slices, and the series that joins it with the model."""
    info = gauge("slice_info", "Who answers for the slice.", ["slice", "owner", "severity", "target"])
    labelled = gauge("slice_labelled_predictions", "The n.", ["model", "version", "slice", "window"])
    for name in ("links", "short"):
        info.add_metric([name, "trust", "critical", ""], 1)
        labelled.add_metric([MODEL, "1", name, "1h"], 0)
    return [info, labelled]


def alarm(number: int, name: str) -> Alarm:
    return Alarm(number, MODEL, 1, SINCE + timedelta(minutes=1), drift(name, Rate(80, 1000)))


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


def test_a_drift_is_notified_once_with_slice_size_and_time(
    page_server: Callable, prometheus: Callable, speaks: httpx.Client, receiver: object, settled: Callable
) -> None:
    """No notification while calm; then one about both drifted slices, and one about the end."""
    page = Page()
    evaluations = "count_over_time(slice:slicewatch_slice_drift_alarm:max[1m])"
    with page_server(page) as port, prometheus(port, told=speaks.base_url.port) as server:
        settled(lambda: min(server.values(evaluations, "slice", "kind").values(), default=0) >= 8, "evaluations")
        alerts = server.query("ALERTS"), speaks.get("/api/v2/alerts").json(), receiver.received
        assert alerts == ([], [], [])

        page.unresolved = [alarm(1, "links"), alarm(2, "short")]
        settled(lambda: receiver.received, "notification")
        page.unresolved = ()
        settled(lambda: receiver.received[-1]["status"] == "resolved", "end")

    assert [each["status"] for each in receiver.received] == ["firing", "resolved"]
    told = receiver.received[0]
    assert told["groupLabels"] == {"alertname": "SlicewatchSliceCoverageDrift", "model": MODEL}
    assert {each["labels"]["slice"]: (each["labels"], each["annotations"]) for each in told["alerts"]} == {
        name: (
            {
                "alertname": "SlicewatchSliceCoverageDrift",
                "kind": "coverage",
                "model": MODEL,
                "owner": "trust",
                "severity": "critical",
                "slice": name,
            },
            {
                "summary": f"Coverage of slice {name} is 8%, expected 2%",
                "description": f"The coverage of slice {name} of {MODEL} has been outside its tolerance band "
                "since about 2026-03-10 10:00:00 +0000 UTC. The alarms page of the console shows the evidence "
                "and the status.",
                "runbook_url": "deploy/runbook.md#slicewatchslicecoveragedrift",
            },
        )
        for name in ("links", "short")
    }


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
