"""Records, columns, and the text of values."""

import copy
import pickle
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sfs.errors import UnknownName
from sfs.record import (
    ABSENT,
    Columns,
    FrameRow,
    Record,
    freeze,
    label_of,
    mapping_row,
    mutable_copy,
    none_if_missing,
    text_of,
)

MISSING = [None, float("nan"), np.float32("nan"), np.float64("nan"), pd.NA, pd.NaT]


@pytest.mark.parametrize("value", MISSING)
def test_every_spelling_of_missing_is_none(value) -> None:
    """None, NaN of any width, NA and NaT are missing values."""
    assert none_if_missing(value) is None


@pytest.mark.parametrize("value", [0, "", False, 0.0, [], "nan"])
def test_falsy_values_are_present(value) -> None:
    """Empty text, zero and false are values."""
    assert none_if_missing(value) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (1.0, "1"),
        (np.int8(1), "1"),
        ("1", "1"),
        (True, "true"),
        (np.False_, "false"),
        (0.5, "0.5"),
        (-0.0, "0"),
    ],
)
def test_the_text_of_a_scalar_does_not_depend_on_its_type(value, text: str) -> None:
    """Integers, integral floats and text agree; booleans are words."""
    assert text == text_of(value)


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, float("inf")])
def test_only_scalars_have_a_text(value) -> None:
    """A list has no text; infinity has one."""
    if isinstance(value, float):
        assert text_of(value) == "inf"
    else:
        with pytest.raises(TypeError, match="expected text"):
            text_of(value)


@pytest.mark.parametrize("value", [Fraction(10) ** 400, 10**5000], ids=["fraction", "int"])
def test_a_number_too_large_to_convert_is_an_error(value) -> None:
    """The limits are 64-bit floats, and the digits that Python converts."""
    with pytest.raises(TypeError, match=r"a number too large to convert \((Fraction|int)\)"):
        text_of(value)


def test_a_record_reads_by_attribute_and_by_item() -> None:
    """Names that are not identifiers are read as items."""
    x = Record({"text": "hi", "price [eur]": 2})
    assert (x.text, x["price [eur]"], "text" in x, list(x)) == ("hi", 2, True, ["text", "price [eur]"])


def test_get_has_a_default() -> None:
    """An absent field gives the default, and a field named get is a field."""
    x = Record({"text": "hi"})
    assert (x.get("text"), x.get("likes"), x.get("likes", 0)) == ("hi", None, 0)
    assert Record({"get": 1}).get == 1


def test_a_record_cannot_be_changed() -> None:
    """A record rejects assignment and deletion."""
    x = Record({"text": "hi"})
    with pytest.raises(AttributeError, match="a record is immutable"):
        x.text = "other"
    with pytest.raises(AttributeError, match="a record is immutable"):
        del x.text
    assert x == Record({"text": "hi"})


def test_a_field_that_does_not_exist_is_named_with_those_that_do() -> None:
    """The error for an absent field lists the fields."""
    with pytest.raises(AttributeError, match=r"no field 'txt'; its fields are \['text'\]"):
        _ = Record({"text": "hi"}).txt


def test_a_record_copies_and_pickles() -> None:
    """Copies and pickles equal the record."""
    x = Record({"text": "hi", "n": None})
    assert x == pickle.loads(pickle.dumps(x)) == copy.deepcopy(x)  # noqa: S301  # our own bytes
    assert "text" in repr(x)


@pytest.mark.parametrize("dtype", ["object", "string", "string[pyarrow]"])
def test_text_columns_agree_whatever_their_dtype(dtype: str) -> None:
    """Object, nullable and Arrow text give the same values, missing ones as None."""
    frame = pd.DataFrame({"text": pd.Series(["a", None, ""], dtype=dtype)})
    assert Columns(frame).column("text") == ["a", None, ""]
    assert [x.text for x in Columns(frame).records] == ["a", None, ""]


@pytest.mark.parametrize("dtype", ["float64", "Int64", "int64[pyarrow]"])
def test_number_columns_agree_whatever_their_dtype(dtype: str) -> None:
    """Missing numbers are None in every dtype, and the others are equal."""
    frame = pd.DataFrame({"n": pd.Series([1, None], dtype=dtype)})
    assert Columns(frame).column("n") == [1, None]


def test_rows_may_be_mappings_or_any_objects() -> None:
    """Mappings become records; objects are passed as they are, and read by attribute."""
    mappings, objects = Columns([{"a": 1}, {"b": 2}]), Columns([SimpleNamespace(a=float("nan"))])
    assert mappings.column("a") == [1, None]
    assert isinstance(objects.records[0], SimpleNamespace)
    assert objects.column("a") == [None]


def test_an_absent_field_differs_from_a_missing_value():
    """This holds for mappings, records and objects; methods of a record are not fields."""
    rows = [
        {"get": None},
        {},
        Record({"get": None}),
        Record({}),
        SimpleNamespace(get=None),
        SimpleNamespace(),
    ]
    assert Columns(rows).field("get") == [None, ABSENT] * 3
    assert Columns(rows).column("get") == [None] * 6


def test_an_absent_column_is_an_error() -> None:
    """In a data frame an absent column is an error that lists the columns."""
    with pytest.raises(UnknownName, match=r"no column 'txt'; the columns are \['text'\]"):
        Columns(pd.DataFrame({"text": ["a"]})).column("txt")


def test_a_frame_without_columns_still_has_rows() -> None:
    """Two rows without columns are two empty records."""
    assert [Record({}), Record({})] == Columns(pd.DataFrame(index=[0, 1])).records


def test_the_dictionary_of_a_record_is_read_only() -> None:
    """A function that changed it would change the input of the next one."""
    x = Record({"text": "a"})
    for change in (
        lambda: vars(x).update(text="b"),
        lambda: x.__dict__.__setitem__("text", "b"),
        lambda: setattr(x, "__dict__", {}),
    ):
        with pytest.raises((AttributeError, TypeError)):
            change()
    assert dict(vars(x)) == {"text": "a"}
    assert vars(x)["text"] == x.text == "a"


@pytest.mark.parametrize("kind", [Record, mapping_row, lambda fields: FrameRow(fields, 7)])
def test_a_mutable_copy_has_a_dictionary_of_its_own(kind) -> None:
    """A preprocessor may change it by any means."""
    original = kind({"text": "a", "seen": [1]})
    x = mutable_copy(original)
    vars(x)["text"] = "b"
    x["more"] = 1
    x.seen.append(2)
    made = freeze(x, original)
    assert dict(vars(made)) == {"text": "b", "seen": [1, 2], "more": 1}
    assert (type(made), original.text, original.seen) == (type(original), "a", [1])


FRAME_ROW = FrameRow({"a": 1, "b": 2}, 7)


@pytest.mark.parametrize("operate", [
    lambda x: x == 2, lambda x: x != 2, lambda x: x > 1, lambda x: x * 2 + x, lambda x: 2 - x,
    lambda x: -x, lambda x: (x > 1) | (x < 2), lambda x: x // 2, lambda x: x ** 2, np.asarray, pd.isna,
    lambda x: x.max(), lambda x: pd.Series([1], index=["c"]).add(x, fill_value=0), lambda x: x.to_dict(),
])  # fmt: skip
def test_the_row_of_a_frame_is_computed_with_as_a_series(operate) -> None:
    """Operators and functions give what they give for the Series."""
    series = pd.Series({"a": 1, "b": 2}, name=7)
    assert isinstance(FRAME_ROW, pd.Series)
    assert repr(operate(FRAME_ROW)) == repr(operate(series))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])  # noqa: S301
@pytest.mark.parametrize("x", [mapping_row({"a": [1]}), FrameRow({"a": [1]}, 7)])
def test_rows_of_snorkels_doors_copy_and_pickle(x, again) -> None:
    """Type, fields and label are kept."""
    made = again(x)
    assert (type(made), dict(vars(made)), label_of(made)) == (type(x), {"a": [1]}, label_of(x))


@pytest.mark.parametrize("action", [lambda x: x.nope, lambda x: delattr(x, "nope")])
def test_a_mapping_names_its_fields(action) -> None:
    """An attribute that is no field lists those that there are."""
    with pytest.raises(AttributeError, match=r"no field 'nope'; its fields are \['a'\]"):
        action(mapping_row({"a": 1}))
