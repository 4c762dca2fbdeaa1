"""Schema: one value per column in every spelling that the rule allows, and types settled once."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfs.errors import SliceError
from sfs.schema import ClassReader, Column, Schema, canonical
from sfs.tables import read_table

FRAME = pd.DataFrame(
    {
        "flag": [True, False, True],
        "count": [3, 2**53 + 1, -4],
        "price": [0.5, 2.0, None],
        "single": np.array([0.1, 0.2, 0.3], dtype=np.float32),
        "zip": ["00501", "90210", "10001"],
        "tier": ["gold", "caf\u00e9", None],
        "odd": ["True", "maybe", "False"],
        "body": ["so much love for this", "buy cheap pills now", "one more of them"],
        "when": [datetime(2026, 5, 1)] * 3,
    }
)
SCHEMA = Schema().completed(FRAME, ["body"])


def test_types_are_settled_from_a_table() -> None:
    """Dates have no type in the schema; codes keep their width, and mixed truth values their spelling."""
    assert list(SCHEMA.columns.values()) == [
        Column("flag", "boolean"),
        Column("count", "integer"),
        Column("price", "number"),
        Column("single", "float32"),
        Column("zip", "category", width=5),
        Column("tier", "category"),
        Column("odd", "category", truth=("True", "False")),
        Column("body", "text"),
    ]


@pytest.mark.parametrize(
    ("column", "given", "value"),
    [
        ("flag", "True", True),
        ("flag", " false ", False),
        ("flag", 1, True),
        ("flag", "0.0", False),
        ("flag", "", None),
        ("flag", "maybe", "maybe"),
        ("flag", 2, 2),
        ("count", "3", 3),
        ("count", 3.0, 3),
        ("count", "9007199254740993", 2**53 + 1),
        ("count", 3.5, 3.5),
        ("count", True, 1),
        ("count", "NA", None),
        ("count", "1_000", "1_000"),
        ("count", "\u0663", "\u0663"),
        ("price", 2, 2.0),
        ("price", " 1e3", 1000.0),
        ("price", float("nan"), None),
        ("price", "1,5", "1,5"),
        ("single", 0.1, float(np.float32(0.1))),
        ("zip", 501, "00501"),
        ("zip", "501", "501"),
        ("zip", "NA", "NA"),
        ("tier", " gold ", "gold"),
        ("tier", "cafe\u0301", "caf\u00e9"),
        ("tier", "  ", None),
        ("tier", 1.0, "1"),
        ("odd", True, "True"),
        ("body", " two  blanks ", " two  blanks "),
        ("body", "", None),
        ("when", "2026-05-01", "2026-05-01"),
        ("unknown", " x ", " x "),
    ],
)
def test_a_value_is_read_as_its_column(column: str, given: Any, value: Any) -> None:
    """A value of another type is left as it is."""
    (parsed,) = SCHEMA.parse_record({column: given}).values()
    assert (parsed, type(parsed)) == (value, type(value))


def test_a_table_without_changes_is_the_same_table() -> None:
    """Reading the training table by its own schema changes nothing."""
    assert SCHEMA.parse_frame(FRAME) is FRAME


def test_a_row_is_read_alike_beside_any_other_row(tmp_path: Path) -> None:
    """The other values of a file do not change the types of a row."""
    row = "True,3,2,0.1,00501,gold,True,so much love\n"
    header = "flag,count,price,single,zip,tier,odd,body\n"
    others = ["", "maybe,x,y,z,1,2,3,4\n", "false,4,1.5,0.2,90210,,x,\n"]
    rows = []
    for number, other in enumerate(others):
        file = tmp_path / f"{number}.csv"
        file.write_text(header + row + other)
        rows.append(read_table(file, schema=SCHEMA).iloc[0].tolist())
    assert rows[0] == rows[1] == rows[2]
    assert rows[0] == [True, 3, 2.0, np.float32(0.1), "00501", "gold", "True", "so much love"]


@given(
    flag=st.none() | st.booleans(),
    count=st.none() | st.integers(-(2**63), 2**63 - 1),
    price=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    zip_code=st.from_regex(r"[0-9]{5}", fullmatch=True),
    tier=st.sampled_from([None, "gold", "caf\u00e9", "a,b", 'say "x"']),
    data=st.data(),
)
def test_every_spelling_of_a_row_is_the_same_row(
    flag: Any, count: Any, price: Any, zip_code: str, tier: Any, data: st.DataObject
) -> None:
    """JSON values, their texts, and blanks around them give one record."""
    row = {"flag": flag, "count": count, "price": price, "zip": zip_code, "tier": tier}
    spelled = {}
    for name, value in row.items():
        texts = ["" if value is None else str(value), value]
        if name != "body":
            texts.append(f" {texts[0]} ")
        if isinstance(value, bool):
            texts += [str(value).upper(), int(value)]
        if value is None and name in ("flag", "count", "price"):
            texts.append("NA")
        if name == "zip":
            texts.append(int(zip_code))
        spelled[name] = data.draw(st.sampled_from(texts))
    assert SCHEMA.parse_record(spelled) == row


def test_files_of_all_formats_give_the_same_table(tmp_path: Path) -> None:
    """CSV, TSV, JSON Lines and Parquet with the same rows are read alike."""
    frame = FRAME.drop(columns="when")
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "a.parquet")
    records = [{k: None if pd.isna(v) else v for k, v in row.items()} for row in frame.to_dict("records")]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row, default=float) + "\n" for row in records))
    expected = SCHEMA.parse_frame(frame)
    for name in ("a.csv", "a.tsv", "a.parquet", "a.jsonl"):
        pd.testing.assert_frame_equal(read_table(tmp_path / name, schema=SCHEMA), expected)


def test_a_schema_survives_json() -> None:
    """Its JSON form is exact, and a malformed one is refused with the column."""
    assert Schema.from_json(json.loads(json.dumps(SCHEMA.to_json()))) == SCHEMA
    with pytest.raises(SliceError, match=r"malformed schema, column 0.type: .* got 'date'"):
        Schema.from_json([{"name": "when", "type": "date"}])
    with pytest.raises(SliceError, match="must be distinct"):
        Schema([Column("a", "text"), Column("a", "number")])


@pytest.mark.parametrize(
    ("classes", "label", "name"),
    [
        (["true", "false"], "True", "true"),
        (["0.0", "1.0", "unsure"], "1", "1.0"),
        (["0", "1"], "1.0", "1"),
        (["ham", "spam"], " spam ", "spam"),
        (["ham", "spam"], "Spam", None),
        (["007", "7"], "7", "7"),
        (["1", "1.0"], "1.0", "1.0"),
        (["1", "1.0"], "1.00", None),
    ],
)
def test_labels_are_read_in_every_spelling_of_their_class(classes: list[str], label: str, name: Any) -> None:
    """Two classes that differ in spelling only are read exactly."""
    assert ClassReader(classes).read(label) == name


def test_canonical_text_keeps_codes() -> None:
    """Leading zeros are part of a label."""
    assert [canonical(text) for text in ("007", "7.0", "-0.5", "1e3", "NaN")] == [
        "007",
        "7",
        "-0.5",
        "1000",
        "NaN",
    ]
