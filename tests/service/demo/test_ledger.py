"""What was acknowledged, against the log."""

import pytest

from service.demo.ledger import Answer, Ledger, Logged

ANSWER = Answer("spam", 1, ("links",))


@pytest.fixture
def ledger() -> Ledger:
    """Three answers, of which two have labels; one of them was corrected."""
    found = Ledger()
    for id_ in ("a", "b", "c"):
        found.answered(id_, ANSWER)
    found.labelled("a", "ham", "accepted")
    found.labelled("a", "spam", "corrected")
    found.labelled("b", "ham", "pending")
    return found


LOG = [Logged("a", "spam", 1, "spam"), Logged("b", "spam", 1, "ham"), Logged("c", "spam", 1, None)]


def test_a_log_that_agrees_has_no_differences(ledger: Ledger) -> None:
    """Every acknowledged prediction once, with the label that counts."""
    assert ledger.differences(LOG) == []


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ([*LOG, LOG[2]], "1 predictions are in the log more than once"),
        (LOG[:2], "1 acknowledged predictions are not in the log"),
        ([*LOG[:2], Logged("c", "spam", 2, None)], "1 predictions are in the log with another answer"),
        ([*LOG, Logged("d", "ham", 1, None)], "1 predictions are in the log that nobody acknowledged"),
        ([LOG[0], Logged("b", "spam", 1, None), LOG[2]], "1 acknowledged labels do not count"),
        ([Logged("a", "spam", 1, "ham"), *LOG[1:]], "1 predictions have another label than the last one"),
    ],
)
def test_each_difference_is_said(ledger: Ledger, log: list[Logged], says: str) -> None:
    """What is lost, doubled or changed is counted."""
    assert ledger.differences(log) == [says]


def test_a_rejected_label_is_a_difference(ledger: Ledger) -> None:
    """A label that the service refuses does not count, and is said."""
    ledger.labelled("c", "ham", "rejected")
    assert ledger.differences(LOG) == ["1 labels were rejected"]


def test_accuracy_is_of_a_slice_a_version_and_some_rows(ledger: Ledger) -> None:
    """Only labelled rows of the slice that the version answered are counted."""
    ledger.answered("d", Answer("ham", 1, ()))
    ledger.answered("e", Answer("ham", 2, ("links",)))
    for id_ in ("d", "e"):
        ledger.labelled(id_, "ham", "accepted")
    assert ledger.accuracy("links", 1, ["a", "b", "c", "d", "e"]) == (1, 2)
    assert ledger.accuracy("links", 1, ["b"]) == (0, 1)
    assert ledger.accuracy("links", 2, ["a", "e", "gone"]) == (1, 1)
