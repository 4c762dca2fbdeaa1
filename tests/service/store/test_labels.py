"""What becomes of labels, one by one and in batches."""

from datetime import timedelta

import pytest

from service.store import queries
from service.store.engine import Store
from service.store.labels import LabelRules
from service.store.writer import Writer

DAY = 86_400


def outcomes(writer: Writer, *labels) -> list[str]:
    return [each.outcome for each in writer.label("spam", labels).result()]


def counts(store: Store, id_: str = "p1") -> str | None:
    """Return the label that counts."""
    with store.read() as connection:
        return queries.labels(connection, "spam", [id_]).get(id_)


def test_a_label_is_accepted(store: Store, writer: Writer, prediction, label) -> None:
    """The first label of a prediction counts."""
    writer.append([prediction()]).result()
    assert outcomes(writer, label()) == ["accepted"]
    assert counts(store) == "spam"


def test_the_same_statement_again_is_a_duplicate(store: Store, writer: Writer, prediction, label) -> None:
    """What was said before, by the same labeller at the same time, changes nothing, whenever it comes again."""
    writer.append([prediction()]).result()
    later = label(received_at=label().received_at + timedelta(days=60))
    assert outcomes(writer, label(), label()) == ["accepted", "duplicate"]
    assert outcomes(writer, later) == ["duplicate"]
    with store.read() as connection:
        assert [each.label for each in queries.label_history(connection, "spam", "p1")] == [label()]


def test_a_later_observation_corrects(store: Store, writer: Writer, prediction, label) -> None:
    """Another class that was observed later counts in place of the first."""
    writer.append([prediction()]).result()
    assert outcomes(writer, label(), label(label="ham", seconds=90)) == ["accepted", "corrected"]
    assert counts(store) == "ham"


def test_an_earlier_observation_is_kept_only(store: Store, writer: Writer, prediction, label) -> None:
    """A label that was observed before the one that counts is accepted, and does not count."""
    writer.append([prediction()]).result()
    assert outcomes(writer, label(), label(label="ham", seconds=30)) == ["accepted", "accepted"]
    assert counts(store) == "spam"


def test_of_equal_observations_the_last_to_arrive_counts(
    store: Store, writer: Writer, prediction, label
) -> None:
    """Two classes observed at the same moment: the one that came last; repeating the first changes nothing."""
    writer.append([prediction()]).result()
    assert outcomes(writer, label(), label(label="ham"), label()) == ["accepted", "corrected", "duplicate"]
    assert counts(store) == "ham"


def test_a_confirmation_moves_the_time_of_observation(
    store: Store, writer: Writer, prediction, label
) -> None:
    """Saying the same class again later stands against what was observed in between."""
    writer.append([prediction()]).result()
    said = outcomes(writer, label(), label(seconds=120), label(label="ham", seconds=90))
    assert said == ["accepted", "accepted", "accepted"]
    assert counts(store) == "spam"


def test_a_label_before_its_prediction_waits(store: Store, writer: Writer, prediction, label) -> None:
    """A label of an unknown id is pending, and counts as soon as the prediction comes."""
    (waiting,) = writer.label("spam", [label()]).result()
    assert (waiting.outcome, waiting.reason) == (
        "pending",
        "no prediction has this id yet; the label waits for it",
    )
    with store.read() as connection:
        assert queries.pending_count(connection, "spam") == 1
    writer.append([prediction()]).result()
    assert counts(store) == "spam"
    with store.read() as connection:
        assert queries.pending_count(connection, "spam") == 0


def test_waiting_labels_are_weighed_like_others(store: Store, writer: Writer, prediction, label) -> None:
    """Of several labels that wait, the one with the latest observation counts; repeats are duplicates."""
    given = [label(label="ham", seconds=90), label(seconds=30), label(seconds=30)]
    assert outcomes(writer, *given) == ["pending", "pending", "duplicate"]
    writer.append([prediction()]).result()
    assert counts(store) == "ham"


def test_a_label_of_another_model_does_not_count(store: Store, writer: Writer, prediction, label) -> None:
    """Ids are unique per model, so labels are, too."""
    writer.append([prediction()]).result()
    assert [each.outcome for each in writer.label("toxic", [label()]).result()] == ["pending"]
    assert counts(store) is None


def test_a_label_after_thirty_days_is_too_late(store: Store, writer: Writer, prediction, label) -> None:
    """It is kept, said to be too late each time, with the reason, and does not count."""
    writer.append([prediction()]).result()
    late = label(received_at=prediction().at + timedelta(days=30, microseconds=1))
    (first,) = writer.label("spam", [late]).result()
    assert first.outcome == "too_late"
    assert first.reason == "labels count for 30 days after the prediction; this one is kept only"
    assert outcomes(writer, late) == ["too_late"]
    assert counts(store) is None
    with store.read() as connection:
        assert [each.outcome for each in queries.label_history(connection, "spam", "p1")] == ["too_late"]


def test_a_label_at_thirty_days_is_in_time(store: Store, writer: Writer, prediction, label) -> None:
    """The last moment counts."""
    writer.append([prediction()]).result()
    assert outcomes(writer, label(received_at=prediction().at + timedelta(days=30))) == ["accepted"]


def test_a_waiting_label_can_be_too_late(store: Store, writer: Writer, prediction, label) -> None:
    """Whether a label is too late does not depend on whether it or its prediction was written first."""
    late = label(received_at=prediction().at + timedelta(days=31))
    assert outcomes(writer, late) == ["pending"]
    writer.append([prediction()]).result()
    assert counts(store) is None
    assert outcomes(writer, late) == ["too_late"]


def test_history_takes_labels_of_any_age(store: Store, writer: Writer, prediction, label) -> None:
    """A prediction that was filled in from history is labelled from history."""
    writer.append([prediction(source="backfill")]).result()
    assert outcomes(writer, label(received_at=prediction().at + timedelta(days=400))) == ["accepted"]


def test_when_it_is_too_late_can_be_set(store: Store, prediction, label, functions) -> None:
    """The rules are the writer's."""
    writer = Writer(store, rules=LabelRules(late_after_seconds=100))
    writer.record_functions(functions())
    writer.append([prediction()])
    assert outcomes(writer, label(seconds=41)) == ["too_late"]
    writer.stop()


def test_a_label_from_the_future_is_rejected(store: Store, writer: Writer, prediction, label) -> None:
    """An observation well ahead of the server's clock would stand for ever: it is refused and not kept."""
    writer.append([prediction()]).result()
    received_at = label().observed_at - timedelta(seconds=301)
    (refused,) = writer.label("spam", [label(received_at=received_at)]).result()
    assert refused.outcome == "rejected"
    assert "lies in the future" in str(refused.reason)
    with store.read() as connection:
        assert queries.label_history(connection, "spam", "p1") == []


def test_an_idempotency_key_makes_a_retry_a_duplicate(
    store: Store, writer: Writer, prediction, label
) -> None:
    """A retry under its key is a duplicate although the server gave it a later time of observation."""
    writer.append([prediction()]).result()
    first = outcomes(writer, label(idempotency_key="k1"), label(label="ham", seconds=70))
    assert first == ["accepted", "corrected"]
    assert outcomes(writer, label(seconds=80, idempotency_key="k1")) == ["duplicate"]
    assert counts(store) == "ham"


@pytest.mark.parametrize("other", [{"label": "ham"}, {"id_": "p2"}])
def test_an_idempotency_key_is_not_for_two_labels(writer: Writer, prediction, label, other) -> None:
    """The same key with another label, or for another prediction, is rejected, in one batch and after it."""
    writer.append([prediction(), prediction("p2")]).result()
    again = label(**other, idempotency_key="k1")
    assert outcomes(writer, label(idempotency_key="k1"), again) == ["accepted", "rejected"]
    (refused,) = writer.label("spam", [again]).result()
    assert refused.reason == (
        "idempotency_key 'k1' was used for label 'spam' of prediction 'p1'; use a new key for another label"
    )


def test_the_history_of_labels_is_kept(store: Store, writer: Writer, prediction, label) -> None:
    """Every label that was taken in is there in order of arrival, with what became of it."""
    given = [label(), label(label="ham", seconds=90, labeller="ann", idempotency_key="k"), label(seconds=30)]
    writer.label("spam", given[:1]).result()
    writer.append([prediction()]).result()
    writer.label("spam", given[1:]).result()
    with store.read() as connection:
        history = queries.label_history(connection, "spam", "p1")
    assert [each.label for each in history] == given
    assert [each.outcome for each in history] == ["pending", "corrected", "accepted"]


def test_large_batches(store: Store, writer: Writer, prediction, label) -> None:
    """More labels than fit into one question, half of them before their predictions."""
    ids = [f"p{i}" for i in range(2500)]
    writer.append([prediction(id_) for id_ in ids[::2]]).result()
    said = outcomes(writer, *(label(id_, idempotency_key=id_) for id_ in ids))
    assert said == ["accepted", "pending"] * 1250
    writer.append([prediction(id_) for id_ in ids]).result()
    with store.read() as connection:
        assert len(queries.labels(connection, "spam", ids)) == 2500
        assert queries.pending_count(connection, "spam") == 0
