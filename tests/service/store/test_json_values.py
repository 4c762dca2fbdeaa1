"""The loop's values become JSON and come back as they were."""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.decisions import (
    AccuracyFall,
    Decision,
    DriftDetected,
    DriftStatus,
    FallPart,
    PairedCounts,
    SliceDecision,
    ToleranceBand,
)
from service.store.errors import StoreError
from service.store.json_values import from_json, to_json, values_from_json
from sfs.intervals import Rate

numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**62)
texts = st.text(max_size=8)
moments = st.datetimes(
    datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.sampled_from([UTC, timezone(timedelta(hours=5))])
)
rates = st.builds(Rate, counts, counts)
zones = st.builds(ToleranceBand, rates, numbers, numbers, numbers)
parts = st.lists(st.builds(FallPart, texts, counts, counts), max_size=2).map(tuple)
falls = st.builds(AccuracyFall, st.none() | texts, counts, counts, st.none() | numbers, numbers, parts)
drifts = st.builds(
    DriftStatus,
    texts,
    st.none() | texts,
    st.sampled_from(["coverage", "accuracy"]),
    st.none() | zones,
    numbers,
    numbers,
    st.none() | moments,
    st.sampled_from([None, "up", "down"]),
    rates,
    numbers,
    numbers,
    st.none() | falls,
    st.lists(texts, max_size=2).map(tuple),
)
outcomes = st.sampled_from(["better", "as_good", "no_harm", "worse", "not_verified"])
pairs = st.builds(PairedCounts, texts, counts, counts, counts, counts)
slices = st.builds(SliceDecision, pairs, st.booleans(), numbers, numbers, numbers, outcomes, texts)
decisions = st.builds(
    Decision,
    st.sampled_from(["promote", "hold", "reject"]),
    st.lists(texts, max_size=3).map(tuple),
    st.lists(slices, max_size=3).map(tuple),
    numbers,
    numbers,
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.one_of(rates, zones, drifts, decisions, st.builds(DriftDetected, moments, drifts)))
def test_values_come_back_as_they_were(value) -> None:
    """Every digit, moment and None survives."""
    assert from_json(type(value), to_json(value)) == value


@given(values)
def test_json_values_come_back_as_they_were(value) -> None:
    """All finite JSON values survive."""
    assert values_from_json(to_json(value)) == value


def test_the_words_are_those_of_the_fields(detection, start) -> None:
    """Keys are the field names, and times are ISO 8601."""
    told = json.loads(to_json(detection().drift))
    assert told["since"] == start.isoformat()
    assert told["zone"]["reference"] == {"count": 21, "n": 1000, "independent": None}
    assert list(told) == list(asdict(detection().drift))


def test_a_drift_of_an_earlier_release_is_read(detection) -> None:
    """It has neither the labels behind a fall nor the groups that watch a slice."""
    told = asdict(detection().drift)
    del told["fall"], told["pooled"]
    assert from_json(DriftStatus, to_json(told)) == detection().drift


def test_numbers_of_arrays_are_numbers(detection) -> None:
    """numpy numbers are stored like Python numbers."""
    drift = replace(detection().drift, observed=Rate(np.int64(8), np.int64(90)), evidence=np.float64(15.5))
    assert from_json(DriftStatus, to_json(drift)) == drift


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan"), np.float64("inf")])
def test_infinities_are_refused(detection, number) -> None:
    """Infinities and NaN are not JSON."""
    with pytest.raises(ValueError, match="only finite numbers can be stored"):
        to_json(replace(detection().drift, evidence=number))


@pytest.mark.parametrize("said", ["Infinity", "-Infinity", "NaN", "1e999"])
def test_infinities_are_not_read(detection, said) -> None:
    """Infinities and NaN are refused in every spelling."""
    text = to_json(detection().drift).replace("14.200000000000001", said)
    with pytest.raises(ValueError, match="finite"):
        from_json(DriftStatus, text)
    with pytest.raises(ValueError, match="finite"):
        values_from_json(f"[{said}]")


@pytest.mark.parametrize("value", [datetime(2026, 5, 1), {1: 2}, {"a": {2}}, b"x", Rate])
def test_what_json_cannot_say_is_refused(value) -> None:
    """Naive times, keys that are not strings, sets, bytes and classes are errors."""
    with pytest.raises(ValueError, match=r"zone|key|cannot store"):
        to_json(value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "size"}, "DriftStatus.kind: Input should be 'coverage', 'accuracy', 'family_accuracy', "),
        ({"slice": 3}, "DriftStatus.slice: Input should be a valid string, got 3"),
        ({"evidence": "15"}, "DriftStatus.evidence: Input should be a valid number, got '15'"),
        ({"evidence": 10**400}, "DriftStatus.evidence: Input should be a finite number"),
        ({"evidence": True}, "DriftStatus.evidence: Input should be a valid number, got True"),
        (
            {"observed": {"count": 1.5, "n": 2}},
            "DriftStatus.observed.count: Input should be a valid integer, got 1.5",
        ),
        ({"observed": {"count": 1}}, "DriftStatus.observed.n: Field required"),
        ({"observed": [1, 2]}, "DriftStatus.observed: Input should be an object"),
        ({"since": "yesterday"}, "DriftStatus.since: Input should be a valid datetime"),
        ({"since": "2026-05-01T00:00:00"}, "has no time zone"),
        ({"since": 3}, "DriftStatus.since: Input should be a valid datetime"),
        ({"more": 1}, "DriftStatus.more: Unexpected keyword argument"),
    ],
)
def test_what_is_no_drift_is_not_guessed(detection, change, said) -> None:
    """The error has the path, and the expected type."""
    text = json.dumps(json.loads(to_json(detection().drift)) | change)
    with pytest.raises(ValueError, match=said):
        from_json(DriftStatus, text)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "[" * 100_000], ids=lambda text: text[:4])
def test_what_is_no_json_object_is_refused(text) -> None:
    """Damaged text is a ValueError."""
    with pytest.raises(ValueError, match="damaged JSON in the store: Decision"):
        from_json(Decision, text)


def test_a_list_is_read_as_one(decision) -> None:
    """Items are checked, and named by their index."""
    damaged = json.loads(to_json(decision()))
    damaged["reasons"][1] = None
    with pytest.raises(ValueError, match=r"Decision\.reasons\.1: Input should be a valid string, got None"):
        from_json(Decision, json.dumps(damaged))
    with pytest.raises(ValueError, match=r"Decision\.reasons: Input should be a valid array"):
        from_json(Decision, json.dumps(damaged | {"reasons": "no"}))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "1e999"], ids=lambda text: text[:4])
def test_damage_is_an_error_of_the_store(text) -> None:
    """Who reads it is told that the store is damaged, and not of a defect."""
    with pytest.raises(StoreError, match="damaged JSON in the store"):
        values_from_json(text)
    with pytest.raises(StoreError, match="damaged JSON in the store"):
        from_json(Decision, text)
