"""Injected drift in overlapping slices, from a client's rows to a single notification."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from math import pi, sin
from pathlib import Path
from shutil import copytree

import httpx
import pandas as pd
import pytest

from models.comments.generate import generate
from models.comments.profile import DEFAULT, Profile
from service.__main__ import main
from service.runtime.clock import FastClock

PLANTED = "timestamp_mention"
CHANGED = DEFAULT.with_change(PLANTED, at=0, coverage=0.1)
UNRELATED = "html_markup"
CHANGED_AGAIN = CHANGED.with_change(UNRELATED, at=0, coverage=0.3)
FIELDS = ["text", "likes"]
BUSY = ("SlicewatchTickSlow", "SlicewatchDown")
"""Alerts about the pace of the machine, on which a scrape may take longer than its timeout of a second."""
TRAINED_ROWS, BATCH_ROWS = 3000, 60
CALM_BATCHES, MOST_BATCHES = 60, 300
COVERAGE = {each.name: each.coverage.start for each in DEFAULT.slices}
SPEED = 60.0
BLOCK = timedelta(seconds=10)
SEASONAL_SPEED, SEASONAL_ROWS, SWING = 2_880.0, 300, 0.3
QUARTER = timedelta(minutes=15)

SETTINGS = """\
name: comments
data: comments.csv
label: label
features: {text: text, likes: number}
functions: [slices.py, slices.yaml]
learner: {kind: erm, epochs: 1, hidden: [8]}
clock: clock.json
retrain: {automatic: false}
drift: {swing: 0}
"""
PYTHON = """\
from sfs import slicing_function


@slicing_function(owner="community")
def short_comment(x):
    return len(x.text.split()) < 5


SLICES = (short_comment,)
"""
TEMPLATES = r"""
slices:
  - {name: timestamp_mention, owner: trust, severity: critical, regex: {field: text, pattern: '\b\d{1,2}:\d{2}\b'}}
  - {name: giveaway, regex: {field: text, pattern: 'giveaway|raffle', ignore_case: true}}
  - {name: html_markup, regex: {field: text, pattern: '<br|&(?:#[0-9]+|[a-zA-Z]+);'}}
"""
AROUND = [f"timestamp_or_{letter}" for letter in "abcdghilmos"]
"""Slices that contain the planted one, and comments that begin with a letter."""
TEMPLATES += "".join(
    f"  - {{name: {name}, regex: {{field: text, pattern: '\\b\\d{{1,2}}:\\d{{2}}\\b|^(?i:{name[-1]})'}}}}\n"
    for name in AROUND
)


@dataclass(frozen=True)
class Live:
    """Running service with its clock, Prometheus, Alertmanager and webhook receiver."""

    client: httpx.Client
    clock: Callable[[], datetime]
    prometheus: object
    alertmanager: httpx.Client
    receiver: object
    settled: Callable

    def batches(self, profile: Profile, n: int) -> Iterator[None]:
        """Predict a batch of a profile's comments every ten seconds of the service clock."""
        rows = generate(BATCH_ROWS * n, seed=1, profile=profile)
        due = self.clock()
        for first in range(0, len(rows), BATCH_ROWS):
            self.settled(lambda due=due: self.clock() >= due, "next batch")
            instances = records(rows[first : first + BATCH_ROWS])
            self.client.post("/v1/predict", json={"instances": instances}).raise_for_status()
            due = max(due, self.clock() - BLOCK) + BLOCK
            yield

    def seasonal(self, days: float, factor: float = 1.0) -> Iterator[None]:
        """Predict a batch every quarter of an hour of the service clock, so many days; two slices swing over the day.

        The coverage of the planted one is also multiplied by a factor. A slow machine sends fewer batches.
        """
        due = self.clock()
        end = due + timedelta(days=days)
        while due < end:
            self.settled(lambda due=due: self.clock() >= due, "next batch")
            at = self.clock()
            swing = 1 + SWING * sin(2 * pi * (at.hour + at.minute / 60) / 24)
            profile = DEFAULT.with_change(PLANTED, at=0, coverage=COVERAGE[PLANTED] * swing * factor)
            profile = profile.with_change(UNRELATED, at=0, coverage=COVERAGE[UNRELATED] * swing)
            rows = generate(SEASONAL_ROWS, seed=int(at.timestamp()), profile=profile)
            self.client.post("/v1/predict", json={"instances": records(rows)}).raise_for_status()
            due = max(due, at - QUARTER) + QUARTER
            yield

    def label(self, is_right: bool, rows: int) -> None:
        """Predict comments, and label them right or wrong at once."""
        table = generate(rows, seed=2, profile=DEFAULT)
        answer = self.client.post("/v1/predict", json={"instances": records(table)}).raise_for_status().json()
        other = {"spam": "ham", "ham": "spam"}
        labels = [
            {"id": each["id"], "label": each["label"] if is_right else other[each["label"]]}
            for each in answer["predictions"]
        ]
        self.client.post("/v1/labels", json={"labels": labels}).raise_for_status()

    def incident_alerts(self) -> Sequence[Mapping]:
        """Return the alerts about incidents in the notifications."""
        alerts = [alert for told in self.told() for alert in told["alerts"]]
        return [alert for alert in alerts if alert["labels"]["alertname"] == "SlicewatchIncident"]

    def alarms(self) -> Sequence[Mapping]:
        """Return all alarms, resolved ones included."""
        answer = self.client.get("/v1/alarms", params={"state": "all"})
        return answer.raise_for_status().json()["alarms"]

    def alarmed(self) -> set[str]:
        """Return the slices with an alarm, of which a further change may have raised a second."""
        return {alarm["slice"] for alarm in self.alarms()}

    def incidents(self) -> Sequence[Mapping]:
        """Return the unresolved incidents, newest first."""
        return self.client.get("/v1/incidents").raise_for_status().json()["incidents"]

    def said(self, labels: Mapping) -> Mapping:
        """Return the annotations of an alert as they are now."""
        alerts = self.alertmanager.get("/api/v2/alerts").json()
        (found,) = (each for each in alerts if each["labels"] == labels)
        return found["annotations"]

    def judged(self, expr: str) -> None:
        """Wait until an expression has had a result for eight seconds, so that notifications were sent."""
        often = f"count_over_time({expr}[1m]) >= 8"
        self.settled(lambda: self.prometheus.query(often), expr)

    def told(self) -> Sequence[Mapping]:
        """Return the notifications, without those about the pace of a busy machine."""
        return [each for each in self.receiver.received if each["groupLabels"]["alertname"] not in BUSY]


def records(rows: pd.DataFrame) -> list[dict[str, object]]:
    return rows[FIELDS].astype(object).where(rows[FIELDS].notna(), None).to_dict("records")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Project on generated comments with a champion."""
    folder = tmp_path_factory.mktemp("project")
    files = {"slicewatch.yaml": SETTINGS, "slices.py": PYTHON, "slices.yaml": TEMPLATES}
    for name, text in files.items():
        (folder / name).write_text(text)
    generate(TRAINED_ROWS)[[*FIELDS, "label"]].to_csv(folder / "comments.csv", index=False)
    words = ["train", "--config", str(folder / "slicewatch.yaml")]
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as said:
        assert main(words, now=lambda: datetime.now(UTC), environ={}) == 0, said.getvalue()
    return folder


@pytest.fixture
def live(
    trained: Path,
    tmp_path: Path,
    serving: Callable,
    prometheus: Callable,
    alertmanager: Callable,
    receiver: object,
    settled: Callable,
    request: pytest.FixtureRequest,
) -> Iterator[Live]:
    """Complete deployment without Grafana, on an accelerated clock; stops without lost rows."""
    wall, project = datetime.now(UTC), copytree(trained, tmp_path / "project")
    speed = getattr(request, "param", SPEED)
    if speed == SEASONAL_SPEED:  # with the swing that the service allows until it knows the hours of the day
        settings = project / "slicewatch.yaml"
        settings.write_text(settings.read_text().replace("drift: {swing: 0}\n", ""))
    fast = FastClock(wall, wall.timestamp(), speed)
    fast.write(project / "clock.json")
    with (
        serving(project) as client,
        alertmanager(receiver.url) as tells,
        prometheus(client.base_url.port, told=tells.base_url.port) as server,
    ):
        yield Live(client, fast.over(lambda: datetime.now(UTC)), server, tells, receiver, settled)


def test_one_cause_is_notified_once_and_calm_traffic_never(live: Live, queries: Sequence) -> None:
    """No notification in ten calm minutes; one about twelve overlapping slices; another about an unrelated one."""
    for _ in live.batches(DEFAULT, CALM_BATCHES):
        pass
    live.judged("slice:slicewatch_slice_drift_alarm:max")
    begun = live.prometheus.query(f'ALERTS{{alertname!~"{"|".join(BUSY)}"}}')
    assert (live.alarms(), begun, live.told()) == ([], [], [])

    changed, earliest = live.batches(CHANGED, MOST_BATCHES), live.clock()
    next(changed)
    latest = live.clock()  # a slow machine makes the comments for minutes of the service clock
    assert any(len(live.alarmed()) == 12 for _ in changed), live.alarmed()
    whole_incident = [{PLANTED, *AROUND}]
    live.settled(lambda: [{*each["slices"]} for each in live.incidents()] == whole_incident, "incident of all slices")
    live.settled(live.told, "notification")
    live.judged('ALERTS{alertname="SlicewatchIncident", alertstate="firing"}')

    (incident,) = live.incidents()
    assert (incident["cause"], set(incident["slices"])) == (PLANTED, {PLANTED, *AROUND})
    assert incident["alarms"][0]["moved"] == "by itself"
    assert {each["moved"].split(",")[0] for each in incident["alarms"][1:]} == {f"with {PLANTED}"}
    observed, expected, since = planted(incident["alarms"][0], earliest, latest)
    (told,) = live.told()
    (alert,) = told["alerts"]
    assert (told["status"], told["groupLabels"]["incident"]) == ("firing", str(incident["id"]))
    assert (alert["labels"]["alertname"], alert["labels"]["severity"]) == ("SlicewatchIncident", "critical")

    def whole() -> Mapping:
        said = live.said(alert["labels"])
        return said if "has 12 drifted slices" in said["description"] else {}

    said = live.settled(whole, "alert on all slices")  # evaluated again since the last of them
    assert said["summary"] == f"Coverage of slice {PLANTED} is {observed:.4g}%, expected {expected:.4g}%"
    assert f"began about {since:%Y-%m-%d %H:%M:%S} +0000 UTC" in said["description"]

    table = [each.filled(model="comments") for each in queries if each.panel == "Unresolved alarms"]
    shown = [set(live.prometheus.values(expr, "slice", "kind")) for expr in table]
    assert shown == [{(name, "coverage") for name in (PLANTED, *AROUND)}] * 4

    assert any(len(live.incidents()) == 2 for _ in live.batches(CHANGED_AGAIN, MOST_BATCHES)), "no second incident"
    live.settled(lambda: len(live.told()) == 2, "second notification")
    live.judged(f'ALERTS{{incident="{live.incidents()[0]["id"]}", alertstate="firing"}}')
    assert [each["cause"] for each in live.incidents()] == [UNRELATED, PLANTED]
    assert [each["groupLabels"]["incident"] for each in live.told()] == [
        str(each["id"]) for each in live.incidents()[::-1]
    ]


@pytest.mark.parametrize("live", [SEASONAL_SPEED], indirect=True)
def test_a_seasonal_day_is_never_notified(live: Live) -> None:
    """The first day, and another once it is known, bring no notification; three times as many bring one."""
    for _ in live.seasonal(2.2):
        pass
    live.judged("slice:slicewatch_slice_drift_alarm:max")
    begun = live.prometheus.query(f'ALERTS{{alertname!~"{"|".join(BUSY)}"}}')
    assert (live.alarms(), begun, live.told()) == ([], [], [])
    (watched,) = (each for each in live.client.get("/v1/slices").json()["slices"] if each["name"] == PLANTED)
    baseline = watched["drift"]["coverage"]["expected"]["baseline"]
    assert baseline["source"] == "live traffic", baseline
    assert baseline["days"] >= 1, baseline  # a slow machine sends for longer

    assert any(PLANTED in live.alarmed() for _ in live.seasonal(3, factor=3)), "no alarm"
    live.settled(live.told, "notification")


@pytest.mark.parametrize("live", [300.0], indirect=True)
def test_an_accuracy_alert_outlives_its_labels(live: Live) -> None:
    """Hours without a label or a row resolve nothing, and everything says since when; right labels resolve it."""
    live.label(False, 150)
    dry_since = live.clock()
    live.settled(live.incident_alerts, "notification")
    expr = 'slice:slicewatch_slice_accuracy_unknown_since:timestamp_seconds{slice="__all__"}'
    live.settled(lambda: live.prometheus.query(expr), "dry labels")

    def firing() -> Mapping:
        found = live.alertmanager.get("/api/v2/alerts", params={"filter": 'alertname="SlicewatchIncident"'}).json()
        return next((alert for alert in found if "unknown since" in alert["annotations"]["description"]), {})

    said = live.settled(firing, "alert with the time")
    assert said["status"]["state"] == "active"
    told = re.search(r"Its accuracy is unknown since (\S+ \S+) \+0000 UTC", said["annotations"]["description"])
    (alarm,) = (each for each in live.alarms() if (each["slice"], each["kind"]) == ("__all__", "accuracy"))
    assert alarm["state"] == "open"
    for at in (f"{told[1]}+00:00", alarm["unknown_since"]):
        assert abs(datetime.fromisoformat(at) - dry_since) < timedelta(minutes=30)
    assert "no labels since" in live.client.get("/slices/__all__").text
    live.judged("slice:slicewatch_slice_drift_alarm:max")
    assert {alert["status"] for alert in live.incident_alerts()} == {"firing"}

    live.label(True, 150)
    live.settled(lambda: live.incident_alerts()[-1]["status"] == "resolved", "end")


def planted(alarm: Mapping, earliest: datetime, latest: datetime) -> tuple[float, float, datetime]:
    """Return observed and expected coverage in percent and the start; they must match the drift injected in between."""
    observed, expected = (100 * alarm[name]["value"] for name in ("observed", "expected"))
    since = datetime.fromisoformat(alarm["since"])
    assert (alarm["slice"], alarm["kind"], alarm["direction"]) == (PLANTED, "coverage", "up")
    assert (observed, expected) == (pytest.approx(10, abs=4), pytest.approx(2, abs=0.5))
    assert earliest - timedelta(minutes=2) <= since <= latest + timedelta(minutes=2)
    return observed, expected, since
