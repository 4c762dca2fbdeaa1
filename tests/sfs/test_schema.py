"""Schema: one value per column in every spelling that the rule allows, and types settled once."""

import json
import pickle
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfs.errors import SliceError
from sfs.schema import ClassReader, Column, ColumnType, Schema, canonical
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
SCHEMA = Schema().completed(FRAME, {"body": "text"})


ADVICE = "correct the value, or change the type of the column in the schema"


def test_types_are_settled_from_a_table() -> None:
    """Codes keep their width, and mixed truth values their spelling."""
    assert list(SCHEMA.columns.values()) == [
        Column("flag", "boolean"),
        Column("count", "integer"),
        Column("price", "number"),
        Column("single", "float32"),
        Column("zip", "category", width=5),
        Column("tier", "category"),
        Column("odd", "category", truth=("True", "False")),
        Column("body", "text"),
        Column("when", "timestamp"),
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
        ("zip", "501", "00501"),
        ("zip", "NA", "NA"),
        ("tier", " gold ", "gold"),
        ("tier", "cafe\u0301", "caf\u00e9"),
        ("tier", "  ", None),
        ("tier", 1.0, "1"),
        ("odd", True, "True"),
        ("body", " two  blanks ", " two  blanks "),
        ("body", "", None),
        ("when", "2026-05-01", "2026-05-01T00:00:00"),
        ("when", "2026-05-01 09:30", "2026-05-01T09:30:00"),
        ("when", datetime(2026, 5, 1, 9, 30), "2026-05-01T09:30:00"),
        ("when", "2026-05-01T09:30:00Z", "2026-05-01T09:30:00Z"),
        ("when", "1 May 2026", "1 May 2026"),
        ("when", "", None),
        ("count", "9007199254740993.0", 2**53 + 1),
        ("price", "NAN", None),
        ("price", "0x1F", "0x1F"),
        ("price", "\u0661\u0662", "\u0661\u0662"),
        ("single", 1e39, None),
        ("single", "inf", None),
        ("price", float("-inf"), None),
        ("price", "1e400", None),
        ("price", 10**400, None),
        ("count", "Infinity", None),
        ("count", "1" * 45, int("1" * 45)),
        ("odd", "TRUE", "True"),
        ("odd", " false ", "False"),
        ("zip", "501.0", "00501"),
        ("zip", "501.5", "501.5"),
        ("unknown", " x ", " x "),
        ("unknown", "", None),
    ],
)
def test_a_value_is_read_as_its_column(column: str, given: Any, value: Any) -> None:
    """A value of another type is left as it is."""
    (parsed,) = SCHEMA.parse_record({column: given}).values()
    assert (parsed, type(parsed)) == (value, type(value))


@pytest.mark.parametrize(
    ("column", "given", "value"),
    [
        (Column("x", "boolean", truth=("Y", "N")), "N", False),
        (Column("x", "boolean", truth=("Y", "N")), "no", "no"),
        (Column("x", "category", missing=("NA", "-")), " NA ", None),
        (Column("x", "number", missing=("-999",)), -999.0, None),
        (Column("x", "text", missing=("none",)), "none", None),
        (Column("x", "number", decimal=",", thousands="."), "1.234,5", 1234.5),
        (Column("x", "number", decimal=","), "1.5", "1.5"),
        (Column("x", "integer", thousands=","), "1,234,567", 1234567),
        (Column("x", "integer", thousands=","), "1,5", "1,5"),
        (Column("x", "category", numbers="1.0"), 1, "1.0"),
        (Column("x", "category", numbers="1.0"), "2", "2.0"),
        (Column("x", "category", numbers="1"), "1.0", "1"),
        (Column("x", "category", numbers="1"), "01", "01"),
        (Column("x", "timestamp", zone="Europe/Berlin"), "2026-01-01T00:30:00", "2026-01-01T00:30:00+01:00"),
        (Column("x", "timestamp", zone="UTC"), "2026-01-01T00:30:00+02:00", "2025-12-31T22:30:00+00:00"),
        (Column("x", "timestamp", zone="UTC"), 1767225600, 1767225600),
        (Column("x", "timestamp", zone="Asia/Tokyo"), "9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
        (Column("x", "timestamp", zone="Europe/Berlin"), "2026-03-29T02:30:00", "2026-03-29T03:30:00+02:00"),
        (Column("x", "category", truth=("Y", "N")), "TRUE", "Y"),
        (Column("x", "date"), "2026-05-01", "2026-05-01"),
        (Column("x", "date"), datetime(2026, 5, 1), "2026-05-01"),
        (Column("x", "date"), "2026-05-01T10:00:00", "2026-05-01T10:00:00"),
        (Column("x", "float16"), "0.1", float(np.float16(0.1))),
    ],
)
def test_a_column_is_read_as_it_is_declared(column: Column, given: Any, value: Any) -> None:
    """Spelling of truth values and numbers, missing marks, time zones and small floats."""
    assert (column.parse(given), type(column.parse(given))) == (value, type(value))
    assert column.parse(column.parse(given)) == value


def test_a_fault_names_the_row_and_the_type_that_is_meant() -> None:
    """One value per column is named; what can be read, and columns outside the schema, have no fault."""
    frame = pd.DataFrame(
        {
            "flag": [True, "maybe"],
            "count": ["1", 2.5],
            "when": ["2026-05-01", "x"],
            "tier": [1, "a"],
            "z": [[], {}],
        },
        index=[10, 11],
    )
    assert SCHEMA.faults(frame) == {
        "flag": f"column 'flag', row 11: expected true or false, got 'maybe': {ADVICE}",
        "count": f"column 'count', row 11: expected a whole number, got 2.5: {ADVICE}",
        "when": f"column 'when', row 11: expected a date and time without a time zone, got 'x': {ADVICE}",
    }


@pytest.mark.parametrize(
    ("values", "column"),
    [
        (
            pd.Series(pd.to_datetime(["2026-05-01"])).dt.tz_localize("Europe/Berlin"),
            ("timestamp", "Europe/Berlin"),
        ),
        (pd.Series(pd.to_datetime(["2026-05-01T00:00+05:00"])), ("timestamp", "UTC")),
        (pd.Series([date(2026, 5, 1), None], dtype=object), ("date", None)),
        (
            pd.Series([datetime(2026, 5, 1), datetime(2026, 5, 1, tzinfo=UTC)], dtype=object),
            ("timestamp", "UTC"),
        ),
        (pd.Series(np.array([0.5], dtype=np.float16)), ("float16", None)),
        (pd.Series([2**70, None], dtype=object), ("integer", None)),
    ],
)
def test_times_and_small_floats_are_settled(values: "pd.Series[Any]", column: tuple[str, str | None]) -> None:
    """A zone without a name is UTC; a large whole number stays one."""
    (settled,) = Schema().completed(pd.DataFrame({"x": values})).columns.values()
    assert (settled.type, settled.zone) == column


@pytest.mark.parametrize(
    ("values", "style"),
    [
        (["1", "2", "other"], "1"),
        (["1.0", "2.0", "other"], "1.0"),
        (["1.10", "1.9"], None),
        (["a", "b"], None),
    ],
)
def test_numbers_in_a_category_keep_their_spelling(values: list[str], style: str | None) -> None:
    """Numbers of one spelling are read in every other; versions such as 1.10 stay text."""
    assert Schema().completed(pd.DataFrame({"x": values})).columns["x"].numbers == style


def test_an_infinite_number_is_missing_in_a_table_as_in_a_record() -> None:
    """A template sees the same rows in the training table, the held-out sample and a request."""
    frame = pd.DataFrame({"price": [np.inf, 1.0, -np.inf], "single": np.array([np.inf, 1, 2], dtype=np.float32)})
    parsed = SCHEMA.parse_frame(frame)
    assert parsed["price"].isna().tolist() == [True, False, True]
    assert parsed["single"].isna().tolist() == [True, False, False]
    assert parsed.dtypes.tolist() == frame.dtypes.tolist()


def test_a_feature_without_a_value_has_a_type() -> None:
    """An empty field and null are one value there too; another column stays without a type."""
    frame = pd.DataFrame({"note": [None, None], "price": [None, None], "other": [None, None]}, dtype=object)
    schema = Schema().completed(frame, {"note": "category", "price": "number"})
    assert schema.parse_record({"note": " ", "price": "NA", "other": " "}) == {
        "note": None,
        "price": None,
        "other": " ",
    }


def test_a_table_without_changes_is_the_same_table() -> None:
    """Reading the training table by its own schema changes nothing but times, which become text."""
    frame = FRAME.drop(columns="when")
    assert SCHEMA.parse_frame(frame) is frame
    assert SCHEMA.parse_frame(FRAME)["when"].tolist() == ["2026-05-01T00:00:00"] * 3


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


@given(
    st.sampled_from([*get_args(ColumnType)]),
    st.sampled_from([(), ("-",)]),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["", " ", " a\u0301 ", "-", "1"]),
)
def test_a_record_is_read_as_its_columns(kind: ColumnType, missing: tuple[str, ...], value: Any) -> None:
    """The shortcuts for usual values change nothing."""
    column = Column("x", kind, missing=missing)
    assert repr(Schema([column]).parse_record({"x": value})) == repr({"x": column.parse(value)})


def test_a_schema_can_be_pickled_after_use() -> None:
    """For a copy in another process."""
    schema = Schema([Column("tier", "category"), Column("body", "text")])
    schema.parse_record({"tier": " gold ", "body": ""})
    again = pickle.loads(pickle.dumps(schema))  # noqa: S301  # our own bytes
    assert again.parse_record({"tier": " gold ", "body": ""}) == {"tier": "gold", "body": None}


def test_files_of_all_formats_give_the_same_table(tmp_path: Path) -> None:
    """CSV, TSV, JSON Lines and Parquet with the same rows are read alike."""
    frame = FRAME
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "a.parquet")
    records = [{k: None if pd.isna(v) else v for k, v in row.items()} for row in frame.to_dict("records")]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row, default=str) + "\n" for row in records))
    expected = SCHEMA.parse_frame(frame)
    for name in ("a.csv", "a.tsv", "a.parquet", "a.jsonl"):
        pd.testing.assert_frame_equal(read_table(tmp_path / name, schema=SCHEMA), expected)


def test_a_schema_survives_json() -> None:
    """Its JSON form is exact, and a malformed one is refused with the column."""
    assert Schema.from_json(json.loads(json.dumps(SCHEMA.to_json()))) == SCHEMA
    with pytest.raises(SliceError, match=r"malformed schema, column 0.type: .* got 'day'"):
        Schema.from_json([{"name": "when", "type": "day"}])
    with pytest.raises(SliceError, match=r"column 0: unknown time zone 'Mars'"):
        Schema.from_json([{"name": "when", "type": "timestamp", "zone": "Mars"}])
    with pytest.raises(SliceError, match=r"column 0: decimal and thousands must differ"):
        Schema.from_json([{"name": "x", "type": "number", "decimal": ",", "thousands": ","}])
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
        (["true", "false"], "1", "true"),
        (["true", "false"], "0.0", "false"),
        (["True", "False"], "1", "True"),
        (["0", "1"], "True", "1"),
        (["1.0", "0.0"], "false", "0.0"),
        (["0", "1", "2"], "true", None),
        (["true", "false", "unsure"], "1", None),
        (["true", "maybe"], "1", None),
        (["true", "1"], "1.0", "1"),
        (["00501", "90210"], "501", "00501"),
        (["7", "12"], "07", None),
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
