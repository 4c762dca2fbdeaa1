"""Outcomes of labels, one by one and in batches."""

from datetime import timedelta

import pytest
from factories import label_history, pending_count

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
    """Repeating a statement changes nothing, whenever it arrives."""
    writer.append([prediction()]).result()
    later = label(received_at=label().received_at + timedelta(days=60))
    assert outcomes(writer, label(), label()) == ["accepted", "duplicate"]
    assert outcomes(writer, later) == ["duplicate"]
    with store.read() as connection:
        assert [each.label for each in label_history(connection, "spam", "p1")] == [label()]


def test_a_later_observation_corrects(store: Store, writer: Writer, prediction, label) -> None:
    """A class observed later replaces the current one."""
    writer.append([prediction()]).result()
    assert outcomes(writer, label(), label(label="ham", seconds=90)) == ["accepted", "corrected"]
    assert counts(store) == "ham"


def test_an_earlier_observation_is_kept_only(store: Store, writer: Writer, prediction, label) -> None:
    """A class observed earlier is accepted, but not current."""
    writer.append([prediction()]).result()
    assert outcomes(writer, label(), label(label="ham", seconds=30)) == ["accepted", "accepted"]
    assert counts(store) == "spam"


def test_of_equal_observations_the_last_to_arrive_counts(store: Store, writer: Writer, prediction, label) -> None:
    """Of two classes observed at one moment the last to arrive is current; repeating the first changes nothing."""
    writer.append([prediction()]).result()
    assert outcomes(writer, label(), label(label="ham"), label()) == ["accepted", "corrected", "duplicate"]
    assert counts(store) == "ham"


def test_a_confirmation_moves_the_time_of_observation(store: Store, writer: Writer, prediction, label) -> None:
    """A later confirmation overrides observations before it."""
    writer.append([prediction()]).result()
    said = outcomes(writer, label(), label(seconds=120), label(label="ham", seconds=90))
    assert said == ["accepted", "accepted", "accepted"]
    assert counts(store) == "spam"


def test_a_label_before_its_prediction_waits(store: Store, writer: Writer, prediction, label) -> None:
    """A label of an unknown id is pending, and current as soon as the prediction is logged."""
    (waiting,) = writer.label("spam", [label()]).result()
    assert (waiting.outcome, waiting.reason) == (
        "pending",
        "no prediction has this id yet; the label is kept until it arrives",
    )
    with store.read() as connection:
        assert pending_count(connection, "spam") == 1
    writer.append([prediction()]).result()
    assert counts(store) == "spam"
    with store.read() as connection:
        assert pending_count(connection, "spam") == 0


def test_waiting_labels_are_weighed_like_others(store: Store, writer: Writer, prediction, label) -> None:
    """Of several pending labels the latest observation becomes current; repeats are duplicates."""
    given = [label(label="ham", seconds=90), label(seconds=30), label(seconds=30)]
    assert outcomes(writer, *given) == ["pending", "pending", "duplicate"]
    writer.append([prediction()]).result()
    assert counts(store) == "ham"


def test_a_label_of_another_model_does_not_count(store: Store, writer: Writer, prediction, label) -> None:
    """Ids are unique per model."""
    writer.append([prediction()]).result()
    assert [each.outcome for each in writer.label("toxic", [label()]).result()] == ["pending"]
    assert counts(store) is None


def test_a_label_after_thirty_days_is_too_late(store: Store, writer: Writer, prediction, label) -> None:
    """A late label is stored and answered with the reason, but not current."""
    writer.append([prediction()]).result()
    late = label(received_at=prediction().at + timedelta(days=30, microseconds=1))
    (first,) = writer.label("spam", [late]).result()
    assert first.outcome == "too_late"
    assert first.reason == "stored but not counted: received more than 30 days after the prediction"
    assert outcomes(writer, late) == ["too_late"]
    assert counts(store) is None
    with store.read() as connection:
        assert [each.outcome for each in label_history(connection, "spam", "p1")] == ["too_late"]


def test_a_label_at_thirty_days_is_in_time(store: Store, writer: Writer, prediction, label) -> None:
    """The limit is inclusive."""
    writer.append([prediction()]).result()
    assert outcomes(writer, label(received_at=prediction().at + timedelta(days=30))) == ["accepted"]


def test_a_waiting_label_can_be_too_late(store: Store, writer: Writer, prediction, label) -> None:
    """Lateness does not depend on the order of label and prediction."""
    late = label(received_at=prediction().at + timedelta(days=31))
    assert outcomes(writer, late) == ["pending"]
    writer.append([prediction()]).result()
    assert counts(store) is None
    assert outcomes(writer, late) == ["too_late"]


def test_history_takes_labels_of_any_age(store: Store, writer: Writer, prediction, label) -> None:
    """Labels of backfilled predictions are never too late."""
    writer.append([prediction(source="backfill")]).result()
    assert outcomes(writer, label(received_at=prediction().at + timedelta(days=400))) == ["accepted"]


def test_when_it_is_too_late_can_be_set(store: Store, prediction, label, functions) -> None:
    """The rules are settings of the writer."""
    writer = Writer(store, rules=LabelRules(late_after_seconds=100))
    writer.record_functions(functions())
    writer.append([prediction()])
    assert outcomes(writer, label(seconds=41)) == ["too_late"]
    writer.stop()


def test_a_label_from_the_future_is_rejected(store: Store, writer: Writer, prediction, label) -> None:
    """An observation well ahead of the server's clock is rejected and not stored."""
    writer.append([prediction()]).result()
    received_at = label().observed_at - timedelta(seconds=301)
    (refused,) = writer.label("spam", [label(received_at=received_at)]).result()
    assert refused.outcome == "rejected"
    assert "is in the future" in str(refused.reason)
    with store.read() as connection:
        assert label_history(connection, "spam", "p1") == []


def test_an_idempotency_key_makes_a_retry_a_duplicate(store: Store, writer: Writer, prediction, label) -> None:
    """A retry under its key is a duplicate even with a later time of observation."""
    writer.append([prediction()]).result()
    first = outcomes(writer, label(idempotency_key="k1"), label(label="ham", seconds=70))
    assert first == ["accepted", "corrected"]
    assert outcomes(writer, label(seconds=80, idempotency_key="k1")) == ["duplicate"]
    assert counts(store) == "ham"


def test_a_new_key_corrects_back_to_an_earlier_label(store: Store, writer: Writer, prediction, label) -> None:
    """A repeated statement under a new key counts in place of a label given since; under its key it is a duplicate."""
    writer.append([prediction()]).result()
    given = [
        label(idempotency_key="k1"),
        label(label="ham", idempotency_key="k2"),
        label(idempotency_key="k3"),
    ]
    assert outcomes(writer, *given) == ["accepted", "corrected", "corrected"]
    assert [outcomes(writer, each) for each in given] == [["duplicate"]] * 3
    assert counts(store) == "spam"


def test_a_key_of_a_repeated_statement_is_kept(store: Store, writer: Writer, prediction, label) -> None:
    """The key of a duplicate is known afterwards, with a later time as well."""
    writer.append([prediction()]).result()
    again = label(idempotency_key="k2")
    assert outcomes(writer, label(idempotency_key="k1"), again) == ["accepted", "duplicate"]
    assert outcomes(writer, label(seconds=90, idempotency_key="k2")) == ["duplicate"]
    assert outcomes(writer, label(label="ham", idempotency_key="k2")) == ["rejected"]


def test_of_labels_of_one_moment_the_last_counts(store: Store, writer: Writer, prediction, label) -> None:
    """Labels observed on arrival are counted in their order, before and after their prediction."""
    at = label().observed_at
    given = [label(label=name, received_at=at) for name in ("spam", "ham", "spam", "ham", "spam")]
    assert set(outcomes(writer, *given)) == {"pending"}
    writer.append([prediction()]).result()
    assert counts(store) == "spam"
    writer.append([prediction("p2")]).result()
    given = [label("p2", name, received_at=at) for name in ("spam", "ham", "spam", "spam")]
    assert outcomes(writer, *given) == ["accepted", "corrected", "corrected", "duplicate"]
    assert counts(store, "p2") == "spam"


def test_a_label_that_does_not_count_names_the_one_that_does(writer: Writer, prediction, label) -> None:
    """An earlier observation and a duplicate have the standing label in their reasons."""
    writer.append([prediction()]).result()
    given = [
        label(label="ham"),
        label(label="spam", seconds=90),
        label(label="ham"),
        label(label="ham", seconds=30),
    ]
    results = writer.label("spam", given).result()
    assert [each.outcome for each in results] == ["accepted", "corrected", "duplicate", "accepted"]
    assert [each.reason for each in results[:2]] == [None, None]
    for each in results[2:]:
        assert str(each.reason).startswith("label 'spam' counts for this prediction: to replace it, send")


@pytest.mark.parametrize("other", [{"label": "ham"}, {"id_": "p2"}])
def test_an_idempotency_key_is_not_for_two_labels(writer: Writer, prediction, label, other) -> None:
    """The same key with another label or prediction is rejected, within a batch and after it."""
    writer.append([prediction(), prediction("p2")]).result()
    again = label(**other, idempotency_key="k1")
    assert outcomes(writer, label(idempotency_key="k1"), again) == ["accepted", "rejected"]
    (refused,) = writer.label("spam", [again]).result()
    assert refused.reason == (
        "idempotency_key 'k1' was used for label 'spam' of prediction 'p1': use a new key for another label"
    )


def test_the_history_of_labels_is_kept(store: Store, writer: Writer, prediction, label) -> None:
    """All events are stored in order of arrival, with their outcomes."""
    given = [label(), label(label="ham", seconds=90, labeller="ann", idempotency_key="k"), label(seconds=30)]
    writer.label("spam", given[:1]).result()
    writer.append([prediction()]).result()
    writer.label("spam", given[1:]).result()
    with store.read() as connection:
        history = label_history(connection, "spam", "p1")
    assert [each.label for each in history] == given
    assert [each.outcome for each in history] == ["pending", "corrected", "accepted"]


def test_large_batches(store: Store, writer: Writer, prediction, label) -> None:
    """Batches larger than one query work, with labels before and after their predictions."""
    ids = [f"p{i}" for i in range(2500)]
    writer.append([prediction(id_) for id_ in ids[::2]]).result()
    said = outcomes(writer, *(label(id_, idempotency_key=id_) for id_ in ids))
    assert said == ["accepted", "pending"] * 1250
    writer.append([prediction(id_) for id_ in ids]).result()
    with store.read() as connection:
        assert len(queries.labels(connection, "spam", ids)) == 2500
        assert pending_count(connection, "spam") == 0


def test_a_label_from_before_the_clock_was_set_back_can_be_corrected(
    store: Store, writer: Writer, prediction, label
) -> None:
    """Its time lies ahead of the clock, and would otherwise override every correction until the clock gets there."""
    writer.append([prediction()]).result()
    assert outcomes(writer, label(seconds=7_200), label(label="ham", seconds=60)) == ["accepted", "corrected"]
    assert counts(store) == "ham"


def test_a_label_of_an_id_that_may_have_been_deleted_says_so(store: Store, functions, label) -> None:
    """With an age at which rows are deleted, an unknown id may be one of theirs."""
    writer = Writer(store, rules=LabelRules(keep_days=7))
    writer.record_functions(functions()).result()
    (result,) = writer.label("spam", [label("gone")]).result()
    writer.stop()
    assert result.outcome == "pending"
    assert result.reason == (
        "no prediction has this id yet, or it was deleted after 7 days (log.keep_days); "
        "the label is kept until it arrives"
    )
