"""Traffic: rows and labels, their order, and the ledger."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from service.demo.scenario import Labelling, Scenario
from service.demo.traffic import LabelQueue, PlannedLabel, Traffic, plan_labels


@pytest.fixture
def traffic(scenario: Scenario, retrying_client: Any, clock: Any) -> Traffic:
    """The stream of the scenario."""
    return Traffic(scenario, 3, retrying_client, clock.now)


def test_every_row_is_sent_once_in_order(traffic: Traffic, client: Any) -> None:
    """Ids are positions, a missing value is null, and labels are not sent."""
    traffic.send(50)
    traffic.send(20)
    assert [id_ for kind, id_ in client.calls if kind == "predict"] == [f"d{k:08d}" for k in range(70)]
    assert client.records[:2] == [{"text": "hi", "likes": 1.0}, {"text": None, "likes": None}]
    assert (traffic.position, len(traffic.ledger.predictions)) == (70, 70)


def test_only_early_labels_come_before_their_prediction(traffic: Traffic, client: Any, clock: Any) -> None:
    """A few labels precede their prediction; all others follow when they are due."""
    for _ in range(2):
        traffic.send(60)
    first = [id_ for kind, id_ in client.calls if kind == "label"]
    assert traffic.ledger.outcomes == {"pending": len(first)}
    assert 10 < len(first) < 40
    assert traffic.send_labels() == 0
    clock.sleep(5.0)
    assert traffic.send_labels() > 60
    assert traffic.waiting == 0


def test_the_ledger_ends_with_what_is_true(traffic: Traffic, scenario: Scenario, clock: Any) -> None:
    """After all labels, the ledger has the classes of the rows."""
    traffic.send(120)
    clock.sleep(5.0)
    traffic.send_labels()
    truth = scenario.rows(0, 120)["label"].tolist()
    assert traffic.ledger.labels == {f"d{k:08d}": label for k, label in enumerate(truth)}


def test_an_interrupted_request_is_repeated(traffic: Traffic, client: Any, clock: Any) -> None:
    """A request that Ctrl+C interrupts is repeated unchanged."""
    traffic.send(60)
    predict, label = client.predict, client.label
    sent: list[Any] = []

    def interrupted(*asked: Any) -> None:
        sent.append(asked)
        raise KeyboardInterrupt

    client.predict = interrupted
    with pytest.raises(KeyboardInterrupt):
        traffic.send(30)
    client.predict = predict
    traffic.finish()
    assert traffic.position == 90
    assert [id_ for kind, id_ in client.calls if kind == "predict"][60:] == sent[0][1]

    clock.sleep(5.0)
    client.label = interrupted
    with pytest.raises(KeyboardInterrupt):
        traffic.send_labels()
    assert traffic.waiting > 0
    client.label = label
    traffic.finish()
    assert traffic.waiting == 0
    assert len(traffic.ledger.labels) == 90


IDS = [f"d{k:08d}" for k in range(4_000)]
LABELS = ["spam", "ham"] * 2_000
LABELLING = Labelling(share=0.5, first_minutes=2, last_minutes=60, early=0.1, twice=0.2, corrected=0.1)


@pytest.fixture(scope="module")
def planned() -> dict[str, list[PlannedLabel]]:
    """Labels of 4,000 rows, by id."""
    found: dict[str, list[PlannedLabel]] = {}
    for each in plan_labels(7, 0, IDS, LABELS, LABELLING):
        found.setdefault(each.id, []).append(each)
    return found


def test_labels_are_the_same_each_time() -> None:
    """The seed and the position determine every label."""
    once, again = (plan_labels(7, 50, IDS[:50], LABELS[:50], LABELLING) for _ in range(2))
    assert once == again
    assert once != plan_labels(8, 50, IDS[:50], LABELS[:50], LABELLING)
    assert [each.sent for each in once] != [each.sent for each in plan_labels(7, 0, IDS[:50], LABELS[:50], LABELLING)]


def test_the_share_of_labelled_rows_is_met(planned: dict[str, list[PlannedLabel]]) -> None:
    """Half of the rows are labelled, a tenth of them early."""
    assert len(planned) == pytest.approx(2_000, abs=150)
    early = [each for each in planned.values() if each[0].sent < timedelta(0)]
    assert len(early) == pytest.approx(200, abs=60)


def test_labels_are_late(planned: dict[str, list[PlannedLabel]]) -> None:
    """Delays lie between two minutes and an hour, with a median of 11 minutes."""
    late = sorted(each[0].sent for each in planned.values() if each[0].sent > timedelta(0))
    assert timedelta(minutes=2) <= late[0]
    assert late[-1] <= timedelta(minutes=60)
    assert late[len(late) // 2] / timedelta(minutes=1) == pytest.approx(11, abs=1.5)


def test_a_repeated_label_is_the_same(planned: dict[str, list[PlannedLabel]]) -> None:
    """A repeated label has the key, class and time of the first."""
    twice = [each for each in planned.values() if len(each) == 2 and each[0].key == each[1].key]
    assert len(twice) == pytest.approx(400, abs=80)
    assert all(first.observed == again.observed and first.label == again.label for first, again in twice)
    assert all(first.sent < again.sent for first, again in twice)


def test_a_correction_is_observed_later(planned: dict[str, list[PlannedLabel]]) -> None:
    """A wrong label is followed by the right one with another key."""
    truth = dict(zip(IDS, LABELS, strict=True))
    corrected = [each for each in planned.values() if len(each) == 2 and each[0].key != each[1].key]
    assert len(corrected) == pytest.approx(200, abs=60)
    assert all(wrong.label != truth[wrong.id] == right.label for wrong, right in corrected)
    assert all(wrong.observed < right.observed for wrong, right in corrected)


def test_the_last_label_is_true(planned: dict[str, list[PlannedLabel]]) -> None:
    """The last label of a row is its class."""
    truth = dict(zip(IDS, LABELS, strict=True))
    assert all(max(each, key=lambda one: one.sent).label == truth[id_] for id_, each in planned.items())


def test_the_queue_returns_due_labels(at: datetime) -> None:
    """Due labels are returned in order, at most the limit."""
    queue = LabelQueue()
    minutes = [5, 1, 3]
    queue.add([PlannedLabel(str(m), "ham", timedelta(minutes=m), timedelta(minutes=m), str(m)) for m in minutes], at)
    assert queue.pop_due(at, 10) == []
    assert [each["id"] for each in queue.pop_due(at + timedelta(minutes=3), 1)] == ["1"]
    assert [each["id"] for each in queue.pop_due(at + timedelta(minutes=4), 10)] == ["3"]
    assert len(queue) == 1


def test_a_queued_label_has_the_time_of_observation(at: datetime) -> None:
    """A label has the time of its observation, not of its sending."""
    queue = LabelQueue()
    queue.add([PlannedLabel("a", "ham", timedelta(minutes=2), timedelta(minutes=9), "k")], at)
    (item,) = queue.pop_due(at + timedelta(minutes=9), 1)
    assert (item["observed_at"], item["idempotency_key"]) == (at + timedelta(minutes=2), "k")
