"""The log stores every prediction once, and its first answer."""

import pytest

from service.store import queries
from service.store.engine import Store
from service.store.errors import StoreError
from service.store.writer import Writer


def outcomes(writer: Writer, *predictions) -> list[str]:
    return [each.outcome for each in writer.append(predictions).result()]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"probabilities": None, "features": None, "source": "backfill"},
        {"id": "ünï→\u0000'\"", "label": "", "member": b"", "unknown": b"\xff" * 40},
        {"probabilities": (1 / 3, 2 / 3 - 1e-17), "content_hash": -(2**63), "version": 2**40},
        {"content_hash": 2**63 - 1, "probabilities": ()},
    ],
)
def test_a_prediction_comes_back_as_it_was(store: Store, writer: Writer, prediction, changes) -> None:
    """Every field survives, to the last bit."""
    given = prediction(**changes)
    assert outcomes(writer, given) == ["stored"]
    with store.read() as connection:
        assert queries.prediction(connection, "spam", given.id) == given


def test_microseconds_survive(store: Store, writer: Writer, prediction) -> None:
    """The time comes back exactly."""
    given = prediction(seconds=12.345678)
    writer.append([given]).result()
    with store.read() as connection:
        found = queries.prediction(connection, "spam", "p1")
        assert found is not None
        assert found.at == given.at


def test_the_same_content_again_gets_the_answer_of_the_log(writer: Writer, prediction) -> None:
    """A repeated request gets the first answer, even if the model has changed."""
    writer.append([prediction(label="ham")]).result()
    (again,) = writer.append([prediction(label="spam", version=2, seconds=9)]).result()
    assert again.outcome == "repeated"
    assert again.prediction == prediction(label="ham", features=None)


def test_earlier_predictions_come_without_their_features(writer: Writer, prediction) -> None:
    """Those of a request that repeats many ids may take more memory than there is."""
    writer.append([prediction(features="x" * 1000)]).result()
    for given in (prediction(), prediction(content_hash=8)):
        (result,) = writer.append([given]).result()
        assert result.prediction.features is None


def test_other_content_under_an_id_is_a_conflict(store: Store, writer: Writer, prediction) -> None:
    """Other content under a known id is not written; its neighbours are."""
    writer.append([prediction()]).result()
    assert outcomes(writer, prediction(content_hash=8, label="spam"), prediction("p2")) == [
        "conflict",
        "stored",
    ]
    with store.read() as connection:
        assert queries.prediction(connection, "spam", "p1") == prediction()


def test_an_id_twice_in_one_request(writer: Writer, prediction) -> None:
    """Within a request the first content of an id wins."""
    given = [prediction(), prediction(), prediction(content_hash=8)]
    assert outcomes(writer, *given) == ["stored", "repeated", "conflict"]


def test_ids_are_unique_per_model(writer: Writer, prediction) -> None:
    """Two models may use one id."""
    assert outcomes(writer, prediction(), prediction(model="toxic", content_hash=8)) == ["stored", "stored"]


def test_many_repeated_among_many_new(writer: Writer, prediction) -> None:
    """Repeated and new ids are told apart in batches larger than one query."""
    writer.append([prediction(f"p{i}") for i in range(0, 2500, 2)]).result()
    said = outcomes(writer, *(prediction(f"p{i}") for i in range(2500)))
    assert said == ["repeated", "stored"] * 1250


def test_a_function_set_must_be_recorded_first(store: Store, writer: Writer, prediction) -> None:
    """Predictions of an unrecorded function set are refused by its hash."""
    with pytest.raises(StoreError, match="'set-9' is not in the store: record the set before"):
        writer.append([prediction(), prediction("p2", set_hash="set-9")]).result()
    with store.read() as connection:
        assert queries.prediction(connection, "spam", "p1") is None
