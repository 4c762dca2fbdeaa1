"""Injected drift, from a client's rows to a single notification."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import httpx
import pandas as pd
import pytest

from models.comments.generate import generate
from models.comments.profile import DEFAULT, Profile
from service.__main__ import main
from service.runtime.clock import FastClock

PLANTED = "timestamp_mention"
CHANGED = DEFAULT.with_change(PLANTED, at=0, coverage=0.1)
FIELDS = ["text", "likes"]
TRAINED_ROWS, BATCH_ROWS = 3000, 60
CALM_BATCHES, MOST_BATCHES = 60, 120
SPEED = 60.0
BLOCK = timedelta(seconds=10)

SETTINGS = """\
name: comments
data: comments.csv
label: label
features: {text: text, likes: number}
functions: [slices.py, slices.yaml]
learner: {kind: erm, epochs: 1, hidden: [8]}
clock: clock.json
retrain: {automatic: false}
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

    def alarms(self) -> Sequence[Mapping]:
        """Return all alarms, resolved ones included."""
        answer = self.client.get("/v1/alarms", params={"state": "all"})
        return answer.raise_for_status().json()["alarms"]

    def judged(self, expr: str) -> None:
        """Wait until an expression has had a result for eight seconds, so that notifications were sent."""
        often = f"count_over_time({expr}[1m]) >= 8"
        self.settled(lambda: self.prometheus.query(often), expr)

    def told(self) -> Sequence[Mapping]:
        """Return the notifications."""
        return self.receiver.received


def records(rows: pd.DataFrame) -> list[dict[str, object]]:
    return rows[FIELDS].astype(object).where(rows[FIELDS].notna(), None).to_dict("records")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    project: Path,
    serving: Callable,
    prometheus: Callable,
    alertmanager: Callable,
    receiver: object,
    settled: Callable,
) -> Iterator[Live]:
    """Complete deployment without Grafana, on an accelerated clock; stops without lost rows."""
    wall = datetime.now(UTC)
    fast = FastClock(wall, wall.timestamp(), SPEED)
    fast.write(project / "clock.json")
    with (
        serving(project) as client,
        alertmanager(receiver.url) as tells,
        prometheus(client.base_url.port, told=tells.base_url.port) as server,
    ):
        yield Live(client, fast.over(lambda: datetime.now(UTC)), server, tells, receiver, settled)


def test_a_planted_drift_is_notified_once_and_calm_traffic_never(live: Live, queries: Sequence) -> None:
    """No notification in ten calm minutes; then one with the slice, its size, and the start of the change."""
    for _ in live.batches(DEFAULT, CALM_BATCHES):
        pass
    live.judged("slice:slicewatch_slice_drift_alarm:max")
    begun = live.prometheus.query("ALERTS"), live.alertmanager.get("/api/v2/alerts").json()
    assert (live.alarms(), *begun, live.told()) == ([], [], [], [])

    changed_at = live.clock()
    assert any(live.alarms() for _ in live.batches(CHANGED, MOST_BATCHES)), "no alarm"
    live.settled(live.told, "notification")
    live.judged('ALERTS{alertname="SlicewatchSliceCoverageDrift", alertstate="firing"}')

    (alarm,) = live.alarms()
    observed, expected, since = planted(alarm, changed_at)
    (told,) = live.told()
    (alert,) = told["alerts"]
    assert (told["status"], alert["labels"]["alertname"]) == ("firing", "SlicewatchSliceCoverageDrift")
    assert (alert["labels"]["slice"], alert["labels"]["owner"]) == (PLANTED, "trust")
    said = alert["annotations"]
    assert said["summary"] == f"Coverage of slice {PLANTED} is {observed:.4g}%, expected {expected:.4g}%"
    assert f"since about {since:%Y-%m-%d %H:%M:%S} +0000 UTC" in said["description"]

    table = [each.filled(model="comments") for each in queries if each.panel == "Unresolved alarms"]
    shown = [set(live.prometheus.values(expr, "slice", "kind")) for expr in table]
    assert shown == [{(PLANTED, "coverage")}] * 4


def planted(alarm: Mapping, changed_at: datetime) -> tuple[float, float, datetime]:
    """Return observed and expected coverage in percent and the start; they must match the injected drift."""
    observed, expected = (100 * alarm[name]["value"] for name in ("observed", "expected"))
    since = datetime.fromisoformat(alarm["since"])
    assert (alarm["slice"], alarm["kind"], alarm["direction"]) == (PLANTED, "coverage", "up")
    assert (observed, expected) == (pytest.approx(10, abs=4), pytest.approx(2, abs=0.5))
    assert abs(since - changed_at) <= timedelta(minutes=2)
    return observed, expected, since
