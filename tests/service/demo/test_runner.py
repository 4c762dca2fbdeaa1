"""Runs of a scenario on an injected clock, without a server."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from service.client import Predictions
from service.demo.checks import PATH, find_failures
from service.demo.client import run_states
from service.demo.console_output import ending
from service.demo.runner import BATCH_ROWS, ScenarioRunner
from service.demo.scenario import Goal, Phase, Scenario
from service.demo.traffic import Traffic
from sfs.registry import FunctionSet
from sfs.template import template

Document = dict[str, Any]
Make = Callable[..., ScenarioRunner]
GOAL = Goal("links", 0.6, 0.85, 300)


@pytest.fixture
def runner(scenario: Scenario, retrying_client: Any, clock: Any, printed: list[str]) -> Make:
    """Makes a runner of the scenario, endless if it has a goal, or of another scenario."""

    def make(goal: Goal | None = None, other: Scenario | None = None) -> ScenarioRunner:
        chosen = other or replace(scenario, goal=goal, length=None if goal else scenario.length)
        traffic = Traffic(chosen, 3, retrying_client, clock.now)
        return ScenarioRunner(chosen, traffic, retrying_client, clock.now, printed, lambda: clock.seconds, clock.sleep)

    return make


def test_all_rows_are_sent_at_their_rate(runner: Make, client: Any, clock: Any, run: Callable[..., Document]) -> None:
    """120 rows at 50 a second take at least 2.4 seconds, and are counted by version and phase."""
    client.documents["runs"] = [run(state="promoted")]
    made = runner()
    assert made.run_story(60.0) == ""
    assert made.served == {(1, "calm"): 70, (1, "campaign"): 50}
    assert len([kind for kind, _ in client.calls if kind == "predict"]) == 120
    assert clock.seconds >= 2.4


def test_the_first_change_has_a_time(runner: Make, clock: Any, printed: list[str]) -> None:
    """The time of the first change is the start of its phase, and every phase is announced."""
    made = runner()
    assert made.run_story(3.0)
    assert made.changed_at is not None
    assert clock.start < made.changed_at < clock.now()
    assert [line[7:] for line in printed if "TRAFFIC" in line] == [
        "TRAFFIC, calm: as ever.",
        "TRAFFIC, campaign: more links.",
    ]


def test_a_story_without_its_next_step_is_given_up(runner: Make, client: Any, clock: Any) -> None:
    """Without a retraining, only the rows in which it must begin are progress."""
    reason = runner(GOAL).run_story(120.0)
    assert reason.startswith("the story made no progress for 2 minutes: ")
    assert clock.seconds == pytest.approx(200 / 50 + 120, abs=3)


@pytest.mark.parametrize("state", ["training", "gated"])
def test_a_training_may_take_any_time(
    runner: Make, client: Any, clock: Any, run: Callable[..., Document], decision: Document, state: str
) -> None:
    """While a run trains, every snapshot is progress, because the service limits the training itself."""
    ends = clock.seconds + 3_600

    def runs() -> Document:
        over = clock.seconds > ends
        client.documents["runs"] = [run(state="promoted" if over else state, decision=decision)]
        return {"runs": client.documents["runs"]}

    client.runs = runs
    assert runner().run_story(60.0) == ""
    assert clock.seconds > ends


@pytest.mark.parametrize(("rows_a_second", "in_training"), [(600.0, 60), (50.0, 50)])
def test_traffic_leaves_the_machine_to_a_training(
    runner: Make, scenario: Scenario, client: Any, clock: Any, run: Callable[..., Document], rows_a_second: float,
    in_training: float,
) -> None:  # fmt: skip
    """While a run trains at most 60 rows a second are sent, and as many as before once it has ended."""
    sent: dict[float, int] = {}  # rows, by time

    def runs() -> Document:
        sent[clock.seconds] = len([kind for kind, _ in client.calls if kind == "predict"])
        return {"runs": [run(state="training" if clock.seconds < 10 else "promoted")]}

    client.runs = runs
    story = replace(scenario, rows_a_second=rows_a_second, length=1_200, labelling=replace(scenario.labelling, share=0))
    assert runner(other=story).run_story(60.0) == ""
    last = max(seconds for seconds in sent if seconds < 10)
    assert sent[last] == pytest.approx(in_training * last, abs=BATCH_ROWS)
    end = min(seconds for seconds, rows in sent.items() if rows == 1_200)
    assert end - last == pytest.approx((1_200 - sent[last]) / rows_a_second, abs=3)


def test_a_training_without_snapshots_is_given_up(
    runner: Make, client: Any, clock: Any, run: Callable[..., Document]
) -> None:
    """A service that takes no snapshots any more makes no progress."""
    client.documents["runs"] = [run(state="training")]
    stopped = clock.now()
    client.now = lambda: stopped
    assert "made no progress" in runner().run_story(60.0)


def test_the_last_alarms_are_awaited(runner: Make, client: Any, clock: Any, run: Callable[..., Document]) -> None:
    """A story with an end is over when two snapshots have counted its last rows and labels."""
    client.documents["runs"] = [run(state="promoted")]
    late = clock.start
    client.now = lambda: late if clock.seconds < 500 else clock.now()
    assert runner().run_story(600.0) == ""
    assert clock.seconds > 500


def test_training_is_requested_once(runner: Make, client: Any, run: Callable[..., Document]) -> None:
    """A retraining is requested once all labels have arrived and every run was skipped."""
    client.documents["runs"] = [run(state="skipped", outcome="benign")]
    assert runner().run_story(20.0)
    assert [call for call in client.calls if call[0] == "retrain"] == [("retrain", "demo")]


def test_a_goal_needs_labels_after_the_promotion(runner: Make, client: Any, run: Callable[..., Document]) -> None:
    """The story is over when the promoted version has its labels, and not before."""
    client.version = 2
    client.documents["runs"] = [run(state="promoted", candidate=2)]
    client.documents["slices"] = [slice_document("links", 299)]
    assert runner(GOAL).run_story(1.2)
    client.documents["slices"] = [slice_document("links", 300)]
    assert runner(GOAL).run_story(60.0) == ""


def test_bands_belong_to_their_version(runner: Make, client: Any, clock: Any) -> None:
    """Bands that are shown while one version takes over from another are kept for neither."""
    made = runner(GOAL)
    for version, upper in ((1, 0.2), (1, 0.2), (1, 0.9), (2, 0.9), (2, 0.3), (2, 0.3)):
        client.version, client.documents["slices"] = version, [slice_document("links", 5, upper)]
        made.run_story(0.5)
    assert {version: bands["links"]["upper"] for version, bands in made.bands.items()} == {1: 0.2, 2: 0.3}


def test_states_come_from_the_audit_log(retrying_client: Any, client: Any) -> None:
    """The states of a run are read from the audit log, page by page, oldest first."""
    pages = {
        None: ([("run.gated", "run 1", {}), ("run.opened", "run 2", {"state": "training"})], 7),
        7: ([("run.training", "run 1", {}), ("run.opened", "run 1", {"state": "waiting_for_labels"})], None),
    }

    def audit(before: int | None) -> Document:
        entries, following = pages[before]
        names = ("action", "subject", "detail")
        return {"entries": [dict(zip(names, entry, strict=True)) for entry in entries], "next": following}

    client.audit = audit
    assert run_states(retrying_client, 1) == ["waiting_for_labels", "training", "gated"]


FUNCTIONS = FunctionSet([template("links", keyword={"field": "text", "words": ["buy"]})])


def campaign(scenario: Scenario, labels_after: int) -> Scenario:
    """Return an endless scenario in which links, all spam, rise from 2% to 50% at row 200."""

    def rows(start: int, n: int) -> pd.DataFrame:
        links = [k % (2 if k >= 200 else 50) == 0 for k in range(start, start + n)]
        text, label = (
            ["buy" if link else "hi" for link in links],
            ["spam" if link else "ham" for link in links],
        )
        return pd.DataFrame({"text": text, "likes": 1.0, "label": label})

    return replace(
        scenario,
        phases=(Phase("calm", "as ever", 0), Phase("campaign", "more links", 200)),
        goal=Goal("links", at_most_before=0.6, at_least_after=0.85, labelled=labels_after),
        length=None,
        rows=rows,
        sample=lambda phase: rows(phase.start, 200),
    )


class DriftingService:
    """Gives a stub client the behaviour of a service that detects the campaign, retrains and promotes."""

    def __init__(
        self,
        client: Any,
        clock: Any,
        alarm: Callable[..., Document],
        run: Callable[..., Document],
        decision: Document,
    ) -> None:
        self.client, self.clock = client, clock
        self.make_alarm, self.make_run, self.decision = alarm, run, decision
        self.predicted_by: dict[str, tuple[int, bool]] = {}
        self.states = iter(PATH)
        self.label_of_stub, self.predict_of_stub = client.label, client.predict
        client.predict, client.runs, client.run, client.slices = (
            self.predict,
            self.runs,
            self.run,
            self.slices,
        )

    def predict(self, records: list[Document], ids: list[str]) -> Predictions:
        answer, version = self.predict_of_stub(records, ids), self.client.version
        predictions = []
        for prediction, record in zip(answer.predictions, records, strict=True):
            link = record["text"] == "buy"
            self.predicted_by[prediction.id] = version, link
            label, slices = "spam" if link and version == 2 else "ham", ("links",) if link else ()
            predictions.append(replace(prediction, label=label, slices=slices))
        if len(self.predicted_by) >= 400 and not self.client.documents["alarms"]:
            self.client.documents["alarms"] = [self.make_alarm(at=self.clock.now().isoformat())]
        return replace(answer, predictions=tuple(predictions))

    def runs(self) -> Document:
        state = next(self.states, "promoted") if self.client.documents["alarms"] else None
        if state == "promoted":
            self.client.version = 2
        gated = {"decision": self.decision, "candidate": 2} if state in ("gated", "promoted") else {}
        outcome = "" if state in ("waiting_for_labels", "training") else "better on links"
        attempts = 0 if state == "waiting_for_labels" else 1
        made = self.make_run(state=state or "", champion=1, attempts=attempts, outcome=outcome, **gated)
        self.client.documents["runs"] = [made] if state else []
        return {"runs": self.client.documents["runs"]}

    def run(self, id_: int) -> Document:
        return dict(self.client.documents["runs"][0])

    def slices(self, window: str) -> Document:
        version = self.client.version
        labelled = {id_ for kind, id_ in self.client.calls if kind == "label"}
        n = sum(self.predicted_by.get(id_) == (version, True) for id_ in labelled)
        upper = 0.04 if version == 1 else 0.7
        at = self.clock.now().isoformat()
        return {"version": version, "at": at, "slices": [slice_document("links", n, upper, lower=0.01)]}


@pytest.mark.parametrize("raises_alarm", [True, False])
def test_a_whole_story_happens(
    runner: Make, scenario: Scenario, client: Any, clock: Any, alarm: Callable[..., Document],
    run: Callable[..., Document], decision: Document, printed: list[str], raises_alarm: bool,
) -> None:  # fmt: skip
    """Drift, alarm, late labels, retraining, gate, promotion, accuracy: no failure; a missing alarm is one."""
    DriftingService(client, clock, alarm, run, decision)
    made = runner(other=campaign(scenario, labels_after=40))
    assert made.run_story(120.0) == ""
    if not raises_alarm:
        made.state = replace(made.state, alarms={})
    result, goal = made.result(FUNCTIONS, PATH, []), campaign(scenario, 40).goal
    assert goal is not None
    failures = find_failures(result, goal)
    assert failures == ([] if raises_alarm else ["links left its band under version 1 without an alarm"])
    assert result.before[0] < 0.1 * result.before[1]  # a few labels are wrong at first
    assert result.after[0] == result.after[1]
    story = "\n".join([*printed, *ending(result, failures, goal, 1.0)])
    steps = [
        "TRAFFIC, calm",
        "TRAFFIC, campaign",
        "ALARM 1: coverage of",
        "Run 1 is opened by a coverage alarm; it waits for labels",
        "Run 1 is training, attempt 1",
        "Run 1 has trained version 2",
        "Run 1 is promoted",
        "Version 2 is now serving",
        "The story happened" if raises_alarm else "The story did not happen",
    ]
    places = [story.index(step) for step in steps]
    assert places == sorted(places)


def test_a_slow_machine_does_not_end_the_story(
    runner: Make, scenario: Scenario, client: Any, clock: Any, alarm: Callable[..., Document],
    run: Callable[..., Document], decision: Document,
) -> None:  # fmt: skip
    """A story whose every request takes a minute happens, far later than the time of patience."""
    service = DriftingService(client, clock, alarm, run, decision)

    def slow(records: list[Document], ids: list[str]) -> Predictions:
        clock.sleep(60.0)
        return service.predict(records, ids)

    client.predict = slow
    story = campaign(scenario, labels_after=40)
    made = runner(other=story)
    assert made.run_story(120.0) == ""
    assert find_failures(made.result(FUNCTIONS, PATH, []), story.goal) == []
    assert clock.seconds > 600


def slice_document(name: str, labelled: int, upper: float = 0.2, lower: float = 0.1) -> Document:
    """Return the document of a slice, all of whose labelled predictions are correct."""
    return {
        "name": name,
        "drift": {"coverage": {"expected": {"lower": lower, "upper": upper}, "threshold": 18.5}},
        "members": {"labelled": labelled, "accuracy": {"count": labelled, "n": labelled}},
        "metadata": {"protected": False},
    }
