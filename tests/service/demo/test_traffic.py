"""What is sent, in which order, and what is noted of it."""

from typing import Any

import pytest

from service.demo.script import Script
from service.demo.traffic import Traffic


@pytest.fixture
def traffic(script: Script, delivery: Any, clock: Any) -> Traffic:
    """The stream of the script."""
    return Traffic(script, 3, delivery, clock.now)


def test_every_row_is_sent_once_in_order(traffic: Traffic, client: Any) -> None:
    """Ids are the positions; what is missing travels as null, and the label does not travel."""
    traffic.send(50)
    traffic.send(20)
    assert [id_ for kind, id_ in client.calls if kind == "predict"] == [f"d{k:08d}" for k in range(70)]
    assert client.records[:2] == [{"text": "hi", "likes": 1.0}, {"text": None, "likes": None}]
    assert (traffic.position, len(traffic.ledger.predictions)) == (70, 70)


def test_only_early_labels_come_before_their_prediction(traffic: Traffic, client: Any, clock: Any) -> None:
    """A few labels are sent before their prediction; all others after it, when their time has come."""
    for _ in range(2):
        traffic.send(60)
    first = [id_ for kind, id_ in client.calls if kind == "label"]
    assert traffic.ledger.outcomes == {"pending": len(first)}
    assert 10 < len(first) < 40
    assert traffic.send_labels() == 0
    clock.sleep(5.0)
    assert traffic.send_labels() > 60
    assert traffic.waiting == 0


def test_the_ledger_ends_with_what_is_true(traffic: Traffic, script: Script, clock: Any) -> None:
    """When every label has been sent, the ones that count are the classes of the rows."""
    traffic.send(120)
    clock.sleep(5.0)
    traffic.send_labels()
    truth = script.rows(0, 120)["label"].tolist()
    assert traffic.ledger.labels == {f"d{k:08d}": label for k, label in enumerate(truth)}


def test_what_was_interrupted_is_sent_again(traffic: Traffic, client: Any, clock: Any) -> None:
    """Ctrl+C may come when something was sent and not yet acknowledged: it is sent again, the same."""
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
