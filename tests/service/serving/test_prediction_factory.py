"""Predictions for the log: ids, content hashes, bitmaps, and the features that are kept."""

import json
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from os import urandom
from typing import Any
from uuid import RFC_4122, UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import DataError
from service.events import Prediction
from service.serving.prediction_factory import (
    ExternalPrediction,
    ModelOutput,
    PredictionFactory,
    PredictionRequest,
    PredictionResult,
    bitmaps_of,
    names_of,
    uuids7,
)
from sfs.matrix import SliceMatrix

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
EARLIER = datetime(2026, 4, 1, tzinfo=UTC)
BITS = st.integers(0, 40).flatmap(
    lambda k: st.lists(st.lists(st.booleans(), min_size=k, max_size=k), min_size=1, max_size=5)
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
SLICES = SliceMatrix(["a", "b"], [[True, False], [False, False]], [[False, True], [False, False]])


def results(factory: PredictionFactory, *rows: Any) -> list[PredictionResult]:
    """Return the results of two records."""
    outputs = [ModelOutput(3, "yes", (0.25, 0.75)), ModelOutput(4, "no", None)]
    return factory.results(rows, outputs, SLICES, "comments", ("no", "yes"), "set-hash")


def predict(row: PredictionRequest | ExternalPrediction, **options: Any) -> Prediction:
    """Return the prediction of one record, without slices."""
    factory = PredictionFactory(lambda: AT, **options)
    none = SliceMatrix(["a"], [[False]], [[False]])
    [result] = factory.results([row], [ModelOutput(1, "no", None)], none, "comments", ("no",), "set-hash")
    return result.prediction


def content_hash(row: PredictionRequest | ExternalPrediction) -> int:
    return predict(row).content_hash


@given(BITS)
def test_bit_k_of_a_bitmap_is_column_k(rows: list[list[bool]]) -> None:
    """Counted from the lowest bit of the first byte, in ceil(K / 8) bytes."""
    bits = np.array(rows, dtype=bool)
    for row, bitmap in zip(rows, bitmaps_of(bits), strict=True):
        assert len(bitmap) == -(-len(row) // 8)
        assert [bool(bitmap[k // 8] >> k % 8 & 1) for k in range(len(row))] == row


@given(BITS)
def test_names_are_those_of_the_columns_that_are_set(rows: list[list[bool]]) -> None:
    """In the order of the columns."""
    names = [f"slice {k}" for k in range(len(rows[0]))]
    expected = [tuple(n for n, bit in zip(names, row, strict=True) if bit) for row in rows]
    assert names_of(np.array(rows, dtype=bool), names) == expected


@given(st.dictionaries(st.text(), VALUES, max_size=4), st.randoms())
def test_the_content_hash_ignores_the_order_of_fields_and_the_id(record: dict[str, Any], random: Any) -> None:
    """It fits 64 signed bits."""
    shuffled = list(record.items())
    random.shuffle(shuffled)
    hash_ = content_hash(PredictionRequest(record))
    assert hash_ == content_hash(PredictionRequest(dict(shuffled), id="x"))
    assert -(2**63) <= hash_ < 2**63


def test_the_content_hash_is_stable() -> None:
    """It is compared with hashes logged by other processes."""
    assert content_hash(PredictionRequest({"text": "Cool \u2764", "likes": 3})) == 5858808818858891573


def test_the_content_of_an_external_prediction_includes_its_output() -> None:
    """Another label, version or probabilities are other content; another time or id is not."""
    one = ExternalPrediction({"text": "a"}, "yes", 1, (0.2, 0.8))
    others = [one._replace(label="no"), one._replace(version=2), one._replace(probabilities=None)]
    assert content_hash(one) == content_hash(one._replace(at=EARLIER, id="x"))
    assert len({content_hash(each) for each in [one, *others]}) == 4


@given(st.text(), st.integers(1, 2**31 - 1), st.none() | st.lists(st.floats(0, 1), max_size=3).map(tuple))
def test_the_content_of_an_external_prediction_is_json(label: str, version: int, p: tuple[float, ...] | None) -> None:
    """Of the record, and then of label, version and probabilities: hashes of earlier releases stay equal."""
    content = '{"text":"a"}' + json.dumps([label, version, p], separators=(",", ":"))
    digest = blake2b(content.encode(), digest_size=8).digest()
    row = ExternalPrediction({"text": "a"}, label, version, p)
    assert content_hash(row) == int.from_bytes(digest, "big", signed=True)


def test_a_prediction_has_its_model_output_slices_and_time(factory: PredictionFactory) -> None:
    """All of it comes from the arguments."""
    first, second = results(factory, PredictionRequest({"text": "free"}, "mine"), PredictionRequest({"text": "song"}))
    one, other = first.prediction, second.prediction
    assert (one.id, one.model, one.version, one.set_hash) == ("mine", "comments", 3, "set-hash")
    assert (one.at, one.label, one.probabilities, one.source) == (factory.now(), "yes", (0.25, 0.75), "live")
    assert (one.member, one.unknown) == (b"\1", b"\2")
    assert one.content_hash == content_hash(PredictionRequest({"text": "free"}))
    assert (other.version, other.label, other.probabilities) == (4, "no", None)
    assert (first.classes, first.slices, first.unknown_slices) == (("no", "yes"), ("a",), ("b",))
    assert (second.slices, second.unknown_slices) == ((), ())


def test_an_external_prediction_keeps_its_time(factory: PredictionFactory) -> None:
    """Without a time it was made now."""
    first, second = results(factory, ExternalPrediction({}, "yes", 3, at=EARLIER), ExternalPrediction({}, "no", 4))
    assert (first.prediction.at, second.prediction.at) == (EARLIER, factory.now())
    assert {first.prediction.source, second.prediction.source} == {"logged"}


@pytest.mark.parametrize(
    ("policy", "kept"),
    [(("all",), {"text": "free", "email": "x@y.z"}), (("text",), {"text": "free"}), (("none",), None)],
)
def test_the_feature_policy_selects_the_features_that_are_kept(policy: Any, kept: Any) -> None:
    """The content hash covers all of them."""
    row = PredictionRequest({"text": "free", "email": "x@y.z"})
    prediction = predict(row, features=policy)
    assert (None if prediction.features is None else json.loads(prediction.features)) == kept
    assert prediction.content_hash == content_hash(row)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes", float("inf")])
def test_values_that_are_not_json_are_refused(value: Any) -> None:
    """The message is about the record."""
    with pytest.raises(DataError, match="a record must be made of JSON values"):
        predict(PredictionRequest({"text": value}))


def test_unpaired_surrogates_can_be_logged() -> None:
    """Text that cannot be encoded is escaped, and is read back unchanged."""
    features = predict(PredictionRequest({"text": "\ud83d"})).features
    assert features is not None
    assert features.isascii()
    assert json.loads(features) == {"text": "\ud83d"}


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC)),
    st.binary(min_size=10, max_size=10),
)
def test_ids_are_uuids_of_version_7(at: datetime, random: bytes) -> None:
    """Variant and version are right, and the first 48 bits are Unix milliseconds."""
    [id_] = map(UUID, uuids7(at, random))
    assert (id_.version, id_.variant) == (7, RFC_4122)
    assert id_.int >> 80 == (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def test_ids_keep_74_random_bits() -> None:
    """Any of them makes another id."""
    assert len(set(uuids7(AT, b"".join((1 << bit).to_bytes(10, "big") for bit in range(80))))) == 74 + 1


def test_ids_are_ordered_by_time() -> None:
    """An id of a later millisecond is greater for any random bits."""
    assert uuids7(AT, b"\xff" * 10) < uuids7(AT + timedelta(milliseconds=1), bytes(10))


def test_records_without_an_id_get_distinct_ids_of_their_batch() -> None:
    """Of version 7, from the time and random bytes of the factory; a client's id is kept."""
    rows = [PredictionRequest({}, "mine" if n == 7 else None) for n in range(1000)]
    factory = PredictionFactory(lambda: AT, random_bytes=urandom)
    none = SliceMatrix([], np.zeros((1000, 0), bool), np.zeros((1000, 0), bool))
    outputs = [ModelOutput(1, "no", None)] * 1000
    ids = [each.prediction.id for each in factory.results(rows, outputs, none, "comments", ("no",), "hash")]
    assert ids[7] == "mine"
    assert len(set(ids)) == 1000
    assert {UUID(each).version for each in ids if each != "mine"} == {7}
