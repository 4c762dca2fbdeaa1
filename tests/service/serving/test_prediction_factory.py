"""What goes into the log, and how the same content is told from other content."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import DataError
from service.serving.prediction_factory import (
    ExternalPrediction,
    ModelOutput,
    PredictionFactory,
    PredictionRequest,
    PredictionResult,
    PredictionSource,
    bitmaps_of,
    content_hash,
    names_of,
)
from sfs.matrix import SliceMatrix

BITS = st.integers(0, 40).flatmap(
    lambda k: st.lists(st.lists(st.booleans(), min_size=k, max_size=k), min_size=1, max_size=5)
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
EARLIER = datetime(2026, 4, 1, tzinfo=UTC)
SLICES = SliceMatrix(["a", "b"], [[True, False], [False, False]], [[False, True], [False, False]])
ANSWERER = PredictionSource("comments", ("no", "yes"), "set-hash")


def stamped(recorder: PredictionFactory, *asked: Any) -> list[PredictionResult]:
    """Return the answers to two records."""
    verdicts = [ModelOutput(3, "yes", (0.25, 0.75)), ModelOutput(4, "no", None)]
    return recorder.answers(asked, verdicts, SLICES, ANSWERER)


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
    found = names_of(np.array(rows, dtype=bool), names)
    assert found == [tuple(n for n, bit in zip(names, row, strict=True) if bit) for row in rows]


@given(st.dictionaries(st.text(), VALUES, max_size=4), st.randoms())
def test_the_order_of_fields_is_no_part_of_the_content(record: dict[str, Any], random: Any) -> None:
    """The hash fits 64 signed bits and is that of the shuffled record, whatever the id."""
    shuffled = list(record.items())
    random.shuffle(shuffled)
    found = content_hash(PredictionRequest(record))
    assert found == content_hash(PredictionRequest(dict(shuffled), id="x"))
    assert -(2**63) <= found < 2**63


def test_the_hash_of_a_content_never_changes() -> None:
    """It is compared with what was logged by another process, long ago."""
    assert content_hash(PredictionRequest({"text": "Cool \u2764", "likes": 3})) == 5858808818858891573


def test_what_another_server_answered_is_part_of_what_it_logs() -> None:
    """The same record with another label, version or probabilities is other content; its time is not."""
    one = ExternalPrediction({"text": "a"}, "yes", 1, (0.2, 0.8))
    others = [replace(one, label="no"), replace(one, version=2), replace(one, probabilities=None)]
    assert content_hash(one) == content_hash(replace(one, at=EARLIER, id="x"))
    assert len({content_hash(each) for each in [one, *others]}) == 4


def test_a_prediction_says_who_answered_what_and_when(recorder: PredictionFactory) -> None:
    """All of it comes from the parts that were handed in."""
    first, second = stamped(
        recorder, PredictionRequest({"text": "free"}, "mine"), PredictionRequest({"text": "song"})
    )
    one, other = first.prediction, second.prediction
    assert (one.id, one.model, one.version, one.set_hash) == ("mine", "comments", 3, "set-hash")
    assert (one.at, one.label, one.probabilities, one.source) == (recorder.now(), "yes", (0.25, 0.75), "live")
    assert (one.member, one.unknown, one.content_hash) == (
        b"\1",
        b"\2",
        content_hash(PredictionRequest({"text": "free"})),
    )
    assert (other.version, other.label, other.probabilities) == (4, "no", None)
    assert (first.classes, first.slices, first.unknown_slices) == (("no", "yes"), ("a",), ("b",))
    assert (second.slices, second.unknown_slices) == ((), ())


def test_a_record_without_an_id_gets_one(recorder: PredictionFactory) -> None:
    """A UUID of version 7."""
    _, second = stamped(recorder, PredictionRequest({}, "mine"), PredictionRequest({}))
    assert UUID(second.prediction.id).version == 7


def test_a_logged_record_keeps_its_time(recorder: PredictionFactory) -> None:
    """One without a time was predicted now."""
    first, second = stamped(
        recorder, ExternalPrediction({}, "yes", 3, at=EARLIER), ExternalPrediction({}, "no", 4)
    )
    assert (first.prediction.at, second.prediction.at) == (EARLIER, recorder.now())
    assert {first.prediction.source, second.prediction.source} == {"logged"}


def test_the_feature_policy_decides_what_is_kept(recorder: PredictionFactory) -> None:
    """Other content is told apart also by what is not kept."""
    record = {"text": "free", "email": "x@y.z"}
    kept = [
        stamped(replace(recorder, kept=policy), PredictionRequest(record), PredictionRequest({}))[
            0
        ].prediction
        for policy in (lambda r: r, lambda r: {"text": r.get("text")}, lambda r: None)
    ]
    assert [None if p.features is None else json.loads(p.features) for p in kept] == [
        record,
        {"text": "free"},
        None,
    ]
    assert len({p.content_hash for p in kept}) == 1


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes", float("inf")])
def test_what_json_cannot_hold_is_refused(recorder: PredictionFactory, value: Any) -> None:
    """With a sentence about the record."""
    with pytest.raises(DataError, match="a record is made of JSON values"):
        stamped(recorder, PredictionRequest({"text": value}), PredictionRequest({}))


def test_half_surrogate_pairs_can_be_logged(recorder: PredictionFactory) -> None:
    """Text that no encoding takes is escaped, and is the same text when it is read."""
    first, _ = stamped(recorder, PredictionRequest({"text": "\ud83d"}), PredictionRequest({}))
    assert first.prediction.features is not None
    assert first.prediction.features.isascii()
    assert json.loads(first.prediction.features) == {"text": "\ud83d"}
