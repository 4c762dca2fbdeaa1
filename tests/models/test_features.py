"""From rows of a table to features."""

import base64
import json
import zlib

import numpy as np
import pandas as pd
import pytest
import torch

from models.errors import ConfigError, DataError
from models.features import FeatureSpec, Featurizer

SPECS = (
    FeatureSpec("the text [raw]", "text"),
    FeatureSpec("number of likes", "number"),
    FeatureSpec("країна €", "category"),
    FeatureSpec("flag", "category"),
)
FRAME = pd.DataFrame(
    {
        "unused": range(6),
        "the text [raw]": ["good video", "check OUT", None, "", "good good", "über café"],
        "number of likes": pd.array([3, None, 1_000_000, 0, 2, 5], dtype="Int64"),
        "країна €": ["no", "se", None, "no", "se", "fi"],
        "flag": pd.array([True, False, None, True, False, True], dtype="boolean"),
    }
)


def records(frame: pd.DataFrame) -> list[dict]:
    """The same rows as a request would bring them."""
    values = frame.astype(object).where(frame.notna(), None)
    return values.to_dict("records")


def dense(featurizer: Featurizer, rows: object) -> np.ndarray:
    X = featurizer.transform(rows)
    return X.take(np.arange(len(X))).numpy()


def test_records_and_data_frames_give_the_same_features() -> None:
    """A request's records, one by one or together, and the table give identical numbers."""
    featurizer = Featurizer(SPECS).fit(FRAME)
    whole = dense(featurizer, FRAME)
    assert whole.shape == (6, featurizer.n_features)
    np.testing.assert_array_equal(dense(featurizer, records(FRAME)), whole)
    for row, record in enumerate(records(FRAME)):
        np.testing.assert_array_equal(dense(featurizer, [record])[0], whole[row])


def test_the_state_survives_json_exactly() -> None:
    """After a round trip through text the features are the same, bit for bit."""
    featurizer = Featurizer(SPECS).fit(FRAME)
    again = Featurizer.from_json(json.loads(json.dumps(featurizer.to_json())))
    assert again.specs == SPECS
    np.testing.assert_array_equal(dense(again, FRAME), dense(featurizer, FRAME))
    assert again.to_json() == featurizer.to_json()


def test_one_and_1_and_1_0_are_one_category() -> None:
    """Categories are compared as spelled by the house, however a file typed them."""
    featurizer = Featurizer([FeatureSpec("c", "category")]).fit([{"c": "1"}, {"c": 1.0}, {"c": True}, {"c": "true"}])
    X = dense(featurizer, [{"c": 1}, {"c": "1"}, {"c": 1.0}, {"c": "true"}, {"c": True}])
    np.testing.assert_array_equal(X[0], X[1])
    np.testing.assert_array_equal(X[0], X[2])
    np.testing.assert_array_equal(X[3], X[4])
    assert (X[0] != X[3]).any()


def test_large_tables_are_read_in_blocks_with_the_same_result() -> None:
    """Rows of several blocks have the features that they have alone."""
    frame = pd.concat([FRAME] * 8_400, ignore_index=True)
    featurizer = Featurizer(SPECS[1:3]).fit(frame)
    X = featurizer.transform(frame)
    assert X.shape == (50_400, featurizer.n_features)
    np.testing.assert_array_equal(X.take(slice(50_394, None)).numpy(), dense(featurizer, FRAME))
    numbers = Featurizer(SPECS[1:2]).fit(frame)
    assert numbers.transform(frame).shape == (50_400, 2)


def test_no_rows_have_the_usual_width() -> None:
    """An empty table gives an empty matrix."""
    featurizer = Featurizer(SPECS).fit(FRAME)
    assert featurizer.transform(FRAME.iloc[:0]).shape == (0, featurizer.n_features)
    assert featurizer.transform([]).shape == (0, featurizer.n_features)


def test_a_missing_column_is_refused_with_the_nearest_spelling() -> None:
    """Table and records name the missing column and the nearest one."""
    featurizer = Featurizer([FeatureSpec("label text", "text")])
    with pytest.raises(DataError, match="the table has no column 'label text'; did you mean 'Label Text'"):
        featurizer.fit(pd.DataFrame({"Label Text": ["x"]}))
    featurizer.fit([{"label text": "x"}])
    with pytest.raises(DataError, match="row 1 has no column 'label text'; did you mean 'label_text'"):
        featurizer.transform([{"label text": None}, {"label_text": "x"}])


def test_a_column_that_is_there_twice_is_refused() -> None:
    """Which of two columns of a name is meant cannot be known."""
    frame = pd.DataFrame([[1, 2]], columns=["n", "n"])
    with pytest.raises(DataError, match="column 'n' more than once"):
        Featurizer([FeatureSpec("n", "number")]).fit(frame)


def test_rows_that_are_no_records_are_refused() -> None:
    """A list of anything but records is refused."""
    with pytest.raises(DataError, match="row 0 is a str: expected a record"):
        Featurizer([FeatureSpec("n", "number")]).fit(["n"])


def test_a_bad_value_is_named_by_its_row_in_the_whole_table() -> None:
    """A part of a table names rows as the table does."""
    frame = pd.DataFrame({"n": ["1", "2", "x", "4"]})
    with pytest.raises(DataError, match="row 2: 'x' is not a number"):
        Featurizer([FeatureSpec("n", "number")]).fit(frame.iloc[1:])


def test_an_unfitted_featurizer_says_so() -> None:
    """Transforming before fitting is refused."""
    with pytest.raises(DataError, match="is not fitted"):
        Featurizer(SPECS).transform(FRAME)


def packed(counts: list[int], size: int = 327_680) -> str:
    """Document frequencies of the first n-grams, as a state has them."""
    content = np.array(counts + [0] * (size - len(counts)), "<i4").tobytes()
    return base64.b64encode(zlib.compress(content)).decode("ascii")


STATES = {
    "text": {"n_hashed": 2048, "missing_seen": True},
    "number": {"center": 1.5, "scale": 0.1, "missing_seen": False},
    "category": {"names": ["a", "b"], "other_seen": True, "missing_seen": False},
}


@pytest.mark.parametrize("wide", [False, True])
def test_a_fitted_featurizer_comes_back(wide: bool) -> None:
    """The features of the same rows are equal, bit for bit."""
    featurizer = Featurizer(SPECS, wide=wide).fit(FRAME)
    again = Featurizer.from_json(json.loads(json.dumps(featurizer.to_json())))
    rows, expected = (each.transform(FRAME).take(slice(None)) for each in (again, featurizer))
    assert again.n_features == featurizer.n_features == rows.shape[1]
    assert torch.equal(rows, expected)
    assert again.to_json() == featurizer.to_json()


def test_numbers_for_linear_models_are_binned() -> None:
    """A number has a one in the bin after the last limit that is not above it; a missing one has none."""
    rows = [{"n": float(n)} for n in range(160)] + [{"n": None}]
    featurizer = Featurizer([FeatureSpec("n", "number")], wide=True).fit(rows)
    X = featurizer.transform(rows).take(slice(None)).numpy()
    assert X.shape == (161, 18)
    assert (X[:, :16].sum(axis=0).min(), X[:, :16].sum(axis=0).max()) == (9, 11)
    assert X[-1].tolist() == [0.0] * 17 + [1.0]
    assert X[0, 0] == X[159, 15] == 1


def test_a_constant_number_has_one_bin() -> None:
    """Equal numbers, and a column without any, make no limits."""
    for values in ([2.0, 2.0], [None, None]):
        featurizer = Featurizer([FeatureSpec("n", "number")], wide=True).fit([{"n": value} for value in values])
        assert featurizer.n_features == 3


@pytest.mark.parametrize(
    ("kind", "state", "place"),
    [
        ("number", {"scale": {"center": 0.0, "scale": 1.0, "missing_seen": False}, "edges": [1.0, 1.0]}, "must rise"),
        ("text", {"n_rows": 1, "document_frequencies": "!", "missing_seen": False}, "cannot be read"),
        ("text", {"n_rows": 1, "document_frequencies": "AAAA", "missing_seen": False}, "cannot be read"),
        ("text", {"n_rows": 0, "document_frequencies": "", "missing_seen": False}, "n_rows"),
        ("text", {"n_rows": 1, "document_frequencies": packed([2]), "missing_seen": False}, "0 to 1, the number of"),
        ("text", {"n_rows": 9, "document_frequencies": packed([2], size=9), "missing_seen": False}, "327,680 numbers"),
    ],
)
def test_a_malformed_wide_state_is_refused(kind: str, state: dict[str, object], place: str) -> None:
    """Limits rise, and document frequencies are as many as the hashed n-grams, and at most the rows."""
    with pytest.raises(DataError, match=f"malformed state of .*{place}"):
        Featurizer.from_json([{"column": "c", "kind": kind, "state": state}])


@pytest.mark.parametrize("kind", STATES)
def test_a_state_comes_back(kind: str) -> None:
    """JSON keeps every field as it was."""
    saved = [{"column": "c", "kind": kind, "state": STATES[kind]}]
    assert json.loads(json.dumps(Featurizer.from_json(saved).to_json())) == saved


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("number", "center", "x"),
        ("number", "center", float("inf")),
        ("number", "scale", 0.0),
        ("number", "scale", True),
        ("number", "missing_seen", 1),
        ("number", "more", 1),
        ("category", "names", None),
        ("category", "names", [1]),
        ("category", "other_seen", "yes"),
        ("text", "n_hashed", []),
        ("text", "n_hashed", 2049),
        ("text", "missing_seen", None),
    ],
)
def test_a_field_of_another_kind_is_refused_by_name(kind: str, field: str, value: object) -> None:
    """The message names the feature and the field."""
    saved = [{"column": "c", "kind": kind, "state": {**STATES[kind], field: value}}]
    with pytest.raises(DataError, match=f"malformed state of feature 0, {kind}, state, {field}"):
        Featurizer.from_json(saved)


@pytest.mark.parametrize(
    ("saved", "place"),
    [
        ([{"column": "n"}], "feature 0: "),
        ([{"column": "n", "kind": "number", "state": {"x": 1}}], "feature 0, number, state"),
        ([{"column": "n", "kind": "date", "state": {}}], "feature 0: "),
        ([1], "feature 0: "),
        ({}, "feature "),
        ([], "a featurizer: no features"),
        (
            [{"column": "c", "kind": "category", "state": {**STATES["category"], "names": ["a", "a"]}}],
            "distinct",
        ),
    ],
)
def test_a_malformed_state_is_refused(saved: object, place: str) -> None:
    """JSON of another shape is no featurizer."""
    with pytest.raises(DataError, match=f"malformed state of .*{place}"):
        Featurizer.from_json(saved)


def test_features_are_declared_once_and_of_a_known_kind() -> None:
    """No feature, a column twice, and an unknown kind are refused."""
    with pytest.raises(ConfigError, match="no features: name at least one column"):
        Featurizer([])
    with pytest.raises(ConfigError, match="'n' is named twice"):
        Featurizer([FeatureSpec("n", "number"), FeatureSpec("n", "text")])
    with pytest.raises(ConfigError, match="'n' has unknown kind 'date'; known are text, number, category"):
        FeatureSpec("n", "date")  # type: ignore[arg-type]


def test_of_a_record_with_many_long_names_the_first_are_told() -> None:
    """The length of a message does not grow with the request."""
    names = [f"{n:04}{'x' * 5000}" for n in range(900)]
    featurizer = Featurizer([FeatureSpec("likes", "number")]).fit([{"likes": 1}, {"likes": 2}])
    with pytest.raises(DataError) as caught:
        featurizer.transform([dict.fromkeys(names, 1)])
    assert len(str(caught.value)) < 2000
    assert str(caught.value).startswith("row 0 has no column 'likes'; available: '0000xxx")
    assert str(caught.value).endswith("x' and 880 more")


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ({"text": "a", "likes": 3}, None),
        ({"text": None, "likes": None}, None),
        ({"text": "a"}, "no column 'likes'"),
        ({"text": ["a"], "likes": 3}, "is a list"),
        ({"text": "a", "likes": "many"}, "is not a number"),
    ],
)
def test_a_record_is_checked_as_it_is_transformed(record: dict[str, object], error: str | None) -> None:
    """The check raises for the records that the transformation refuses, with the same words."""
    featurizer = Featurizer([FeatureSpec("text", "text"), FeatureSpec("likes", "number")])
    featurizer.fit([{"text": "a", "likes": 1}, {"text": "b", "likes": 2}])
    for read in (featurizer.check, lambda record: featurizer.transform([record])):
        if error is None:
            read(record)
        else:
            with pytest.raises(DataError, match=error):
                read(record)
