"""What a featurizer learned, read from JSON."""

import json
from typing import Any

import pytest

from models.errors import DataError
from models.feature_states import TextState, state_from_json, state_to_json
from models.table_features import NumberScale, Vocabulary

GOOD = {
    "text": TextState(2048, True),
    "number": NumberScale(1.5, 0.1, False),
    "category": Vocabulary(("a", "b"), True, False),
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_state_comes_back(kind: str) -> None:
    """JSON keeps every field as it was."""
    assert state_from_json("c", kind, json.loads(json.dumps(state_to_json(GOOD[kind])))) == GOOD[kind]


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("number", "center", "x"),
        ("number", "center", float("inf")),
        ("number", "scale", 0.0),
        ("number", "scale", True),
        ("number", "missing_seen", 1),
        ("category", "names", None),
        ("category", "names", ["a", "a"]),
        ("category", "names", [1]),
        ("category", "other_seen", "yes"),
        ("text", "n_hashed", []),
        ("text", "n_hashed", 2049),
        ("text", "missing_seen", None),
    ],
)
def test_a_field_of_another_kind_is_refused_by_name(kind: str, field: str, value: Any) -> None:
    """The message names the column and the field."""
    saved = {**json.loads(json.dumps(state_to_json(GOOD[kind]))), field: value}
    with pytest.raises(DataError, match=f"{kind} feature 'c': {field} must be"):
        state_from_json("c", kind, saved)


@pytest.mark.parametrize("saved", [[], None, {}, {"n_hashed": 2048}])
def test_a_state_without_its_fields_is_refused(saved: Any) -> None:
    """Fields are neither missing nor more than there are."""
    with pytest.raises(DataError, match="text feature 'c' must have the state n_hashed, missing_seen"):
        state_from_json("c", "text", saved)
