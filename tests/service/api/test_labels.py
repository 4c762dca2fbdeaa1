"""``POST /v1/labels``."""

from datetime import timedelta

import pytest
from factories import pending_count

GOOD = {"text": "subscribe to my song for free money", "likes": 2}


def label(service, *labels):
    answer = service.post("/v1/labels", {"labels": list(labels)})
    assert answer.status_code == 200, answer.text
    return answer.json()["labels"]


def outcomes(service, *labels):
    return [each["outcome"] for each in label(service, *labels)]


def test_each_label_has_its_outcome_in_order(service):
    """Labels are answered one by one, in their order, with reasons where they do not count."""
    service.predicted(GOOD, ids=["a"])
    later = (service.now + timedelta(seconds=1)).isoformat()
    told = label(
        service,
        {"id": "a", "label": "true"},
        {"id": "unheard", "label": "true"},
        {"id": "a", "label": "true"},
        {"id": "a", "label": "false", "observed_at": later},
        {"id": "a", "label": "ham"},
    )
    assert [each["outcome"] for each in told] == ["accepted", "pending", "duplicate", "corrected", "rejected"]
    assert [each["id"] for each in told] == ["a", "unheard", "a", "a", "a"]
    assert "not a class; the classes are 'false', 'true'" in told[4]["reason"]
    assert told[0]["reason"] is None


def test_a_label_is_one_class_however_it_was_typed(service):
    """True, "true" and a repeated statement are one label."""
    service.predicted(GOOD, ids=["a"])
    assert outcomes(service, {"id": "a", "label": True}, {"id": "a", "label": "true"}) == [
        "accepted",
        "duplicate",
    ]


def test_the_last_label_of_a_request_counts(service):
    """Labels of one id without a time are taken in order, and a return to the first is a correction."""
    service.predicted(GOOD, ids=["a"])
    told = [{"id": "a", "label": each} for each in ("true", "false", "true")]
    assert outcomes(service, *told) == ["accepted", "corrected", "corrected"]
    assert outcomes(service, told[1]) == ["corrected"]
    assert outcomes(service, told[0]) == ["corrected"]


def test_a_label_from_the_future_is_rejected_alone(service):
    """An observation that has not been made yet is rejected with a reason, and no other label with it."""
    service.predicted(GOOD, ids=["a"])
    ahead = (service.now + timedelta(hours=1)).isoformat()
    told = label(service, {"id": "a", "label": "true", "observed_at": ahead}, {"id": "a", "label": "true"})
    assert [each["outcome"] for each in told] == ["rejected", "accepted"]
    assert "future" in told[0]["reason"]


def test_a_label_after_thirty_days_is_too_late(service):
    """A label that comes too late is kept, and said not to count."""
    service.predicted(GOOD, ids=["a"])
    service.now += timedelta(days=31)
    assert outcomes(service, {"id": "a", "label": "true"}) == ["too_late"]


def test_labels_are_counted_by_outcome(service):
    """Each outcome is a counter, those of labels that never reached the store included."""
    service.predicted(GOOD, ids=["a"])
    label(service, {"id": "a", "label": "true"}, {"id": "a", "label": "x"}, {"id": "b", "label": "true"})
    counts = [
        service.counted(f'labels_total{{model="comments",outcome="{outcome}"}}')
        for outcome in ("accepted", "rejected", "pending", "corrected")
    ]
    assert counts == [1, 1, 1, 0]


def test_an_idempotency_key_is_taken_once(service):
    """A repeated idempotency key is a duplicate, regardless of the observation time."""
    service.predicted(GOOD, ids=["a"])
    first = {"id": "a", "label": "true", "idempotency_key": "k", "labeller": "me"}
    again = first | {"observed_at": (service.now - timedelta(hours=1)).isoformat()}
    assert outcomes(service, first, again) == ["accepted", "duplicate"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"labels": []}, "labels"),
        ({"labels": [{"id": "a"}]}, "labels[0].label"),
        ({"labels": [{"id": "a", "label": {}}]}, "labels[0].label"),
        ({"labels": [{"id": "a", "label": ""}]}, "labels[0].label"),
        ({"labels": [{"id": "a", "label": "x\u0000"}]}, "labels[0].label"),
        ({"labels": [{"id": 3, "label": "true"}]}, "labels[0].id"),
        ({"labels": [{"id": "a", "label": "true", "observed_at": "yesterday"}]}, "labels[0].observed_at"),
        (
            {"labels": [{"id": "a", "label": "true", "observedAt": "2026-05-01T12:00:00Z"}]},
            "labels[0].observedAt",
        ),
        ({"labels": [{"id": "a", "label": "true", "labeller": "x" * 201}]}, "labels[0].labeller"),
        ({"labels": {"id": "a"}}, "labels"),
    ],
)
def test_a_body_of_another_shape_is_refused_as_a_whole(service, body, field):
    """An invalid value returns 422 with the name of the field."""
    answer = service.post("/v1/labels", body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


def test_more_labels_than_may_be_are_refused(service):
    """A request with too many labels gets the limit in the error."""
    answer = service.post("/v1/labels", {"labels": [{"id": "a", "label": "true"}] * 10_001})
    assert answer.status_code == 413


def test_a_closed_log_refuses_labels(service):
    """Labels that the log does not take are refused with a reason."""
    service.writer.stop()
    answer = service.post("/v1/labels", {"labels": [{"id": "a", "label": "true"}]})
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:slicewatch:problem:stopping")


def test_where_no_class_is_known_no_label_is_taken(service):
    """Any text would become a class: what to do is said, and nothing is kept."""
    service.set_state(classes=())
    answer = service.post("/v1/labels", {"labels": [{"id": "a", "label": "maybe"}]})
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:slicewatch:problem:no-model")
    assert "set `classes` in slicewatch.yaml, or train a model" in answer.json()["detail"]
    with service.store.read() as connection:
        assert pending_count(connection, "comments") == 0


def test_a_rejection_is_short_however_many_classes_there_are(service):
    """It is told with each label."""
    service.set_state(classes=tuple(f"{n:03}{'x' * 190}" for n in range(300)))
    [told] = label(service, {"id": "a", "label": "true"})
    assert told["outcome"] == "rejected"
    assert len(told["reason"]) == 300
