"""Labelled traffic below a project's rows."""

from typing import Any

import pandas as pd
import pytest

from models.errors import DataError
from models.features import FeatureSpec
from models.splits import content_hashes
from models.training_rows import NEW_CLASS_CONTENTS, TrainingRows, with_traffic
from sfs.function import SlicingFunction
from sfs.registry import FunctionSet
from sfs.template import template

FEATURES = (FeatureSpec("text", "text"), FeatureSpec("likes", "number"), FeatureSpec("land", "category"))
BASE = pd.DataFrame(
    {
        "id": [7, 8, 9],
        "text": ["good", "12", None],
        "likes": [1.0, None, 3.5],
        "land": ["no", "se", None],
        "sure": [True, False, True],
        "label": [0, 1, 0],
    }
)
RECORD = {"id": 10, "text": "fine", "likes": 2, "land": "dk", "sure": False}
NO_FUNCTIONS = FunctionSet(())
TEMPLATE = template("from_shop", one_of={"field": "shop", "values": ["north"]})
PLAIN = SlicingFunction("plain", lambda x: True)


def joined(*records: dict[str, Any], functions: FunctionSet = NO_FUNCTIONS, label: str = "1") -> TrainingRows:
    return with_traffic(BASE, [(record, label) for record in records], "label", FEATURES, functions)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in RECORD.items() if key != name}


def test_columns_hold_what_the_table_s_hold() -> None:
    """Whole numbers stay whole, numbers stay numbers, and text stays text."""
    rows = joined({**RECORD, "text": 5, "likes": "2.5", "land": 1.0})
    assert (rows.base, rows.traffic, rows.left_out) == (3, 1, 0)
    assert rows.frame["id"].tolist() == [7, 8, 9, 10]
    assert rows.frame["id"].dtype == "int64"
    assert rows.frame["likes"].dtype == "float64"
    assert rows.frame.iloc[3][["text", "likes", "land"]].tolist() == ["5", 2.5, "1"]
    assert rows.frame["label"].tolist() == ["0", "1", "0", "1"]
    assert rows.frame["sure"].tolist() == [True, False, True, False]


def test_what_a_row_lacks_is_missing_there() -> None:
    """A column that traffic lacks, and a value that is null."""
    rows = joined({"text": None, "likes": None, "land": "no"})
    assert rows.frame.iloc[3].isna().to_dict() == {
        **dict.fromkeys(("id", "text", "likes", "sure"), True),
        **dict.fromkeys(("land", "label"), False),
    }


@pytest.mark.parametrize("name", ["text", "likes", "land"])
@pytest.mark.parametrize("value", [..., ["a", "list"], {"a": 1}])
def test_rows_that_no_feature_can_read_are_left_out(name: str, value: object) -> None:
    """Without a feature's column, or with a value of another kind there, a row is not learned from."""
    odd = without(name) if value is ... else {**RECORD, name: value}
    rows = joined(odd, RECORD)
    assert (rows.traffic, rows.left_out) == (1, 1)
    assert rows.frame["text"].tolist()[3:] == ["fine"]


def test_a_text_is_no_number() -> None:
    """A word where a feature is a number leaves the row out; in another column the word stays."""
    assert joined({**RECORD, "likes": "many"}).left_out == 1
    assert joined({**RECORD, "id": "x1"}).frame["id"].tolist() == [7, 8, 9, "x1"]


def test_columns_that_only_traffic_has_are_kept_for_functions_that_read_them() -> None:
    """A template names its columns; a plain function may read any; without either they are left out."""
    record = {**RECORD, "shop": "north", "hour": 3}
    assert list(joined(record).frame) == list(BASE)
    assert list(joined(record, functions=FunctionSet([TEMPLATE])).frame) == [*BASE, "shop"]
    rows = joined(record, functions=FunctionSet([TEMPLATE, PLAIN])).frame
    assert list(rows) == [*BASE, "shop", "hour"]
    assert rows["shop"].tolist() == [None, None, None, "north"]


def test_a_field_of_the_label_s_name_is_not_the_label() -> None:
    """A record's value in the label's column is not read."""
    assert joined({**RECORD, "label": "0"}).frame["label"].tolist() == ["0", "1", "0", "1"]


def test_large_whole_numbers_are_exact() -> None:
    """Beyond 53 and beyond 64 bits, and beside a missing value."""
    assert joined({**RECORD, "id": 2**53 + 1}, {**RECORD, "id": None}).frame["id"].tolist()[3] == 2**53 + 1
    rows = joined({**RECORD, "id": str(2**70 + 1)}, {**RECORD, "id": 10**400})
    assert rows.frame["id"].tolist()[3:] == [2**70 + 1, 10**400]


def test_traffic_logged_otherwise_is_read_by_the_schema() -> None:
    """Rows logged by an earlier version, in other spellings, are read as the table is."""
    rows = joined({**RECORD, "id": "1e1", "likes": "NA", "land": " no ", "sure": "FALSE"})
    assert rows.frame.iloc[3][["id", "land", "sure"]].tolist() == [10, "no", False]
    assert rows.frame["likes"].isna().tolist() == [False, True, False, True]
    assert rows.schema.columns["sure"].type == "boolean"


def test_copies_have_the_content_of_the_table_s_row() -> None:
    """A row that comes back as traffic goes to the same side of every split."""
    rows = joined({**RECORD, "text": " GOOD "}, {**RECORD, "text": 12})
    hashes = content_hashes(rows.frame, FEATURES)
    assert hashes[3:].tolist() == hashes[:2].tolist()


@pytest.mark.parametrize("label", ["1.0", "true", " 1", "TRUE"])
def test_a_label_of_traffic_is_read_by_the_classes_of_the_table(label: str) -> None:
    """However an earlier model spelled it, it makes no new class."""
    records = [{**RECORD, "text": f"new {k}"} for k in range(2 * NEW_CLASS_CONTENTS)]
    assert joined(*records, label=label).frame["label"].unique().tolist() == ["0", "1"]


def test_a_new_class_is_learned_once_there_is_enough_of_it() -> None:
    """One stray label must not end every training."""
    records = [{**RECORD, "text": f"new {k}"} for k in range(2 * NEW_CLASS_CONTENTS)]
    assert joined(*records[:5], label="2").left_out == 5
    assert joined(*records[:1] * 50, label="2").left_out == 50
    assert joined(*records, label="2").traffic == len(records)


def test_without_traffic_the_table_stays_as_it_is() -> None:
    """Nothing is copied or converted."""
    rows = joined()
    assert rows.frame is BASE
    assert (rows.base, rows.traffic, rows.left_out) == (3, 0, 0)


def test_a_table_without_a_feature_is_refused() -> None:
    """The project's own rows must have all features."""
    with pytest.raises(DataError, match="land"):
        with_traffic(BASE.drop(columns="land"), [], "label", FEATURES, NO_FUNCTIONS)


def test_nullable_columns_grow() -> None:
    """Whole numbers with gaps, as Parquet has them, take whole numbers, gaps and fractions."""
    base = BASE.assign(id=pd.array([1, None, 3], dtype="Int64"))
    for value, expected in ((4, [1, 3, 4]), (None, [1, 3]), (4.5, [1, 3, 4.5])):
        rows = with_traffic(base, [({**RECORD, "id": value}, "1")], "label", FEATURES, NO_FUNCTIONS)
        assert rows.frame["id"].dropna().tolist() == expected
