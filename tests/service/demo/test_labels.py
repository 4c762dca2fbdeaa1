"""What becomes known of the comments, and when."""

from datetime import datetime, timedelta

import pytest

from service.demo.labels import Mailbox, Statement, statements
from service.demo.script import Labelling

IDS = [f"d{k:08d}" for k in range(4_000)]
LABELS = ["spam", "ham"] * 2_000
HOW = Labelling(share=0.5, first_minutes=2, last_minutes=60, early=0.1, twice=0.2, corrected=0.1)


@pytest.fixture(scope="module")
def said() -> dict[str, list[Statement]]:
    """What is said of each of 4,000 rows."""
    found: dict[str, list[Statement]] = {}
    for each in statements(7, 0, IDS, LABELS, HOW):
        found.setdefault(each.id, []).append(each)
    return found


def test_labels_are_the_same_each_time() -> None:
    """The seed and the position decide every label."""
    once, again = (statements(7, 50, IDS[:50], LABELS[:50], HOW) for _ in range(2))
    assert once == again
    assert once != statements(8, 50, IDS[:50], LABELS[:50], HOW)
    assert [each.sent for each in once] != [
        each.sent for each in statements(7, 0, IDS[:50], LABELS[:50], HOW)
    ]


def test_so_many_rows_are_labelled(said: dict[str, list[Statement]]) -> None:
    """The share of labelled rows is the one asked for, and a tenth of them comes early."""
    assert len(said) == pytest.approx(2_000, abs=150)
    early = [each for each in said.values() if each[0].sent < timedelta(0)]
    assert len(early) == pytest.approx(200, abs=60)


def test_labels_are_late(said: dict[str, list[Statement]]) -> None:
    """A label that is not early comes between two minutes and an hour after its prediction, half within 11."""
    late = sorted(each[0].sent for each in said.values() if each[0].sent > timedelta(0))
    assert timedelta(minutes=2) <= late[0]
    assert late[-1] <= timedelta(minutes=60)
    assert late[len(late) // 2] / timedelta(minutes=1) == pytest.approx(11, abs=1.5)


def test_what_is_sent_twice_is_the_same_statement(said: dict[str, list[Statement]]) -> None:
    """A label that is sent again has key, class and time of the first; it only comes later."""
    twice = [each for each in said.values() if len(each) == 2 and each[0].key == each[1].key]
    assert len(twice) == pytest.approx(400, abs=80)
    assert all(first.observed == again.observed and first.label == again.label for first, again in twice)
    assert all(first.sent < again.sent for first, again in twice)


def test_a_correction_is_observed_later(said: dict[str, list[Statement]]) -> None:
    """A wrong label is followed by the right one, under another key."""
    truth = dict(zip(IDS, LABELS, strict=True))
    corrected = [each for each in said.values() if len(each) == 2 and each[0].key != each[1].key]
    assert len(corrected) == pytest.approx(200, abs=60)
    assert all(wrong.label != truth[wrong.id] == right.label for wrong, right in corrected)
    assert all(wrong.observed < right.observed for wrong, right in corrected)


def test_the_last_statement_is_true(said: dict[str, list[Statement]]) -> None:
    """However often a row is labelled, what is said last is its class."""
    truth = dict(zip(IDS, LABELS, strict=True))
    assert all(max(each, key=lambda one: one.sent).label == truth[id_] for id_, each in said.items())


def test_the_mailbox_hands_out_what_is_due(at: datetime) -> None:
    """Labels are handed out in the order of their time, none before it, at most so many."""
    box = Mailbox()
    minutes = [5, 1, 3]
    box.post(
        [Statement(str(m), "ham", timedelta(minutes=m), timedelta(minutes=m), str(m)) for m in minutes], at
    )
    assert box.due(at, 10) == []
    assert [each["id"] for each in box.due(at + timedelta(minutes=3), 1)] == ["1"]
    assert [each["id"] for each in box.due(at + timedelta(minutes=4), 10)] == ["3"]
    assert len(box) == 1


def test_the_mailbox_says_when_it_was_observed(at: datetime) -> None:
    """A label carries the time at which it was observed, not that at which it is sent."""
    box = Mailbox()
    box.post([Statement("a", "ham", timedelta(minutes=2), timedelta(minutes=9), "k")], at)
    (item,) = box.due(at + timedelta(minutes=9), 1)
    assert (item["observed_at"], item["idempotency_key"]) == (at + timedelta(minutes=2), "k")
