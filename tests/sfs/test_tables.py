"""Reading and writing files of rows."""

import csv
import gzip
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from sfs.errors import SliceError, UnreadableFile
from sfs.schema import Column, Schema
from sfs.tables import FORMATS, count_rows, read_batches, read_table, write_batches

AWKWARD = pd.DataFrame(
    {
        "the text [raw]": ["a,b", 'say "hi"', "two\nlines", "ünï😀", None],
        "likes": pd.array([1, 2, None, 4, 5], dtype="Int64"),
        "цена €": [0.1, None, 1e300, -2.5, 3.0],
        "flag": pd.array([True, None, False, True, True], dtype="boolean"),
        "zip": ["007", "1234", "99999", "00001", "5"],
    }
)


KINDS = ["t.csv", "t.tsv", "t.parquet", "t.jsonl", "t.ndjson", "t.csv.gz", "t.jsonl.gz"]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.parquet", "t.jsonl", "t.ndjson", "t.csv.gz", "t.jsonl.gz"])
def test_every_format_round_trips(tmp_path: Path, name: str) -> None:
    """Text, numbers, booleans, codes and missing values round-trip through every format."""
    assert write_batches(tmp_path / name, [AWKWARD.iloc[:2], AWKWARD.iloc[2:]]) == 5
    frame = read_table(tmp_path / name)
    assert list(frame.columns) == list(AWKWARD.columns)
    for column in AWKWARD.columns:
        expected = [None if pd.isna(v) else v for v in AWKWARD[column].tolist()]
        assert [None if pd.isna(v) else v for v in frame[column].tolist()] == expected
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.jsonl"])
def test_batches_join_to_the_whole_table(tmp_path: Path, name: str) -> None:
    """The rows and values do not depend on the batch size."""
    frame = pd.DataFrame({"a": [1, 2, 3, None, 5, 6, 7], "b": ["1", "2", "3", "4", "five", "6", None]})
    write_batches(tmp_path / name, [frame])
    whole = read_table(tmp_path / name)
    for batch_rows in (1, 2, 3, 7, 100):
        batches = list(read_batches(tmp_path / name, batch_rows))
        assert [len(batch) for batch in batches[:-1]] == [batch_rows] * (len(batches) - 1)
        joined = pd.concat(batches, ignore_index=True)
        assert joined.astype(object).where(joined.notna(), None).values.tolist() == (
            whole.astype(object).where(whole.notna(), None).values.tolist()
        )


def test_a_type_is_determined_by_the_whole_file(tmp_path: Path) -> None:
    """A word in the last row makes the first row's numbers text."""
    path = written(tmp_path, "t.csv", "a\n" + "1\n" * 5 + "x\n")
    first = next(read_batches(path, 2))
    assert first["a"].tolist() == ["1", "1"]


def test_csv_types(tmp_path: Path) -> None:
    """Numbers, codes, booleans and missing words are distinguished."""
    path = written(
        tmp_path,
        "t.csv",
        "whole,real,code,flag,words,none,big\n"
        ' 1,1.5,007,true,NA,,1\n2,NA,1,False,"",,12345678901234567890\nnull,2e3,2,,x,NA,3\n',
    )
    frame = read_table(path)
    assert frame["whole"].tolist() == [1, 2, pd.NA]
    assert frame["real"].dropna().tolist() == [1.5, 2000.0]
    assert frame["code"].tolist() == ["007", "1", "2"]
    assert frame["flag"].tolist() == [True, False, pd.NA]
    assert frame["words"].tolist() == ["NA", None, "x"]
    assert frame["none"].isna().all()
    assert frame["big"].tolist() == ["1", "12345678901234567890", "3"]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.jsonl"])
def test_declared_text_stays_text(tmp_path: Path, name: str) -> None:
    """A column declared as text keeps numbers as written."""
    if name == "t.csv":
        path = written(tmp_path, name, "text,n\n1.50,1\nNA,2\n,3\n")
        assert read_table(path, text=["text"])["text"].tolist() == ["1.50", "NA", None]
    else:
        write_batches(tmp_path / name, [pd.DataFrame({"text": [1.5, 2.0, None]})])
        assert read_table(tmp_path / name, text=["text", "absent"])["text"].tolist() == ["1.5", "2", None]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.jsonl"])
def test_columns_are_chosen_in_order(tmp_path: Path, name: str) -> None:
    """Only the given columns are read, in the given order."""
    write_batches(tmp_path / name, [pd.DataFrame({"a": [1], "b": [2], "c": [3]})])
    assert read_table(tmp_path / name, columns=["c", "a"]).to_dict("list") == {"c": [3], "a": [1]}
    with pytest.raises(UnreadableFile, match=r"no column 'C'; did you mean 'c'\?"):
        read_table(tmp_path / name, columns=["C"])


BAD = {
    "empty.csv": (b"", r"is empty \(0 bytes\)"),
    "blank.csv": (b"\n\n", "only blank lines"),
    "header.csv": (b"a,b\n", "a header but no rows: columns are 'a', 'b'"),
    "twice.csv": (b"a,b,a\n1,2,3\n", "column 'a' appears more than once"),
    "long.csv": (b"a,b\n1,2\n3,4,5\n", "line 3 has 3 values where the header has 2"),
    "short.csv": (b'a,b\n"1\n",2\n3\n', "line 4 has 1 value where the header has 2"),
    "unclosed.csv": (
        b'a,b,c\n1,x,2\n"y, it,4\n5,z,6\n',
        r"the record that begins in line 3 and ends in line 4 has 1 value .* is a quote not closed in line 3\?",
    ),
    "unclosed_last.csv": (b'a,b\n1,x\n2,"y\n3,z\n', "begins in line 3 .* is a quote not closed in line 3"),
    "closed_by_another.csv": (
        b'a,b,c\n1,x,2\n3,"y,4\n5,z,6\n7,"no",8\n',
        "begins in line 3 and ends in line 5 .* is a quote not closed in line 3",
    ),
    "one_line.csv": (b"a,b\n1,x\n2,y,3\n", r"line 3 has 3 values where the header has 2: quote values"),
    "two_unnamed.csv": (b",a,\n1,2,3\n", "columns 1, 3 have no name: name them in the first line"),
    "title.csv": (b"Sales of May,,\na,b,c\n1,2,3\n", "columns 2, 3 have no name"),
    "short_title.csv": (b"Sales of May\na,b,c\n1,2,3\n", r"is line 1 a title above the header\?"),
    "digits.jsonl": (b'{"a": ' + b"1" * 5000 + b"}\n", "line 1 cannot be read"),
    "binary.data": (b"PK\x00\x01", "unknown file format '.data'"),
    "latin.csv": ("a,b\n1,x\n2,é\n".encode("latin-1"), r"line 3 \(byte 0xe9\) is not UTF-8"),
    "latin_head.csv": ("é,b\n1,x\n".encode("latin-1"), r"line 1 \(byte 0xe9\) is not UTF-8"),
    "latin.jsonl": ('{"a": 1}\n{"a": "é"}\n'.encode("latin-1"), r"line 2 \(byte 0xe9\) is not UTF-8"),
    "bad.jsonl": (b'{"a": 1}\n{"a": \n', "line 2 is not JSON"),
    "list.jsonl": (b"[1]\n", "line 1 is not a JSON object"),
    "none.jsonl": (b"\n \n", "has no rows"),
    "bad.parquet": (b"PAR1 is not enough", "is not a Parquet file"),
    "rows.xlsx": (b"x", "unknown file format '.xlsx'; supported are .csv"),
    "rows.parquet.gz": (b"x", "unknown file format '.gz'"),
    "bad.csv.gz": (b"this is not packed", "cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_unreadable_file_is_rejected_with_its_reason(tmp_path: Path, name: str) -> None:
    """Every kind of bad file has a message with the file and the reason."""
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableFile, match=message) as caught:
        read_table(tmp_path / name)
    assert name in str(caught.value)


def test_absent_files_and_folders_are_rejected(tmp_path: Path) -> None:
    """The message distinguishes an absent file and a folder."""
    with pytest.raises(UnreadableFile, match="no file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(UnreadableFile, match="is a folder"):
        read_table(tmp_path)


def test_parquet_without_rows_is_rejected(tmp_path: Path) -> None:
    """A Parquet file without rows is rejected like a header without rows."""
    pd.DataFrame({"a": pd.Series([], dtype="int64")}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UnreadableFile, match="no rows: columns are 'a'"):
        read_table(tmp_path / "t.parquet")


def test_parquet_categories_and_decimals_are_plain_values(tmp_path: Path) -> None:
    """Dictionary-encoded text is text, decimals are numbers."""

    pd.DataFrame({"c": pd.Categorical(["x", None]), "d": [Decimal("1.5"), None]}).to_parquet(tmp_path / "t.parquet")
    frame = read_table(tmp_path / "t.parquet")
    assert frame["c"].tolist() == ["x", None]
    assert frame["d"].tolist()[0] == 1.5


def test_parquet_keeps_large_unsigned_numbers_beside_missing_ones(tmp_path: Path) -> None:
    """A number beyond a signed one of 64 bits is exact."""
    pq.write_table(pa.table({"n": pa.array([2**64 - 1, None, 1], pa.uint64())}), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet")["n"].tolist() == [2**64 - 1, pd.NA, 1]


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    """Files with a byte order mark read like those without."""
    assert list(read_table(written(tmp_path, "t.csv", "\ufeffa,b\n1,2\n")).columns) == ["a", "b"]
    assert list(read_table(written(tmp_path, "t.jsonl", '\ufeff{"a": 1}\n')).columns) == ["a"]


@pytest.mark.parametrize(("name", "mark"), [("rows.csv", ","), ("rows.tsv", "\t")])
def test_blanks_around_a_name_in_a_header_mean_nothing(tmp_path: Path, name: str, mark: str) -> None:
    """The columns are read, chosen and typed by their bare names; inner blanks count."""
    file = written(tmp_path, name, f"id{mark} plan {mark}\u00a0a  b\n007{mark} x{mark}2\n")
    assert read_table(file).to_dict("list") == {"id": ["007"], "plan": [" x"], "a  b": [2]}
    schema = Schema([Column("plan", "category"), Column("a  b", "number")])
    assert read_table(file, columns=["a  b", "plan"], schema=schema).values.tolist() == [[2.0, "x"]]


def test_names_that_differ_by_blanks_only_are_one_name_twice(tmp_path: Path) -> None:
    """They are refused, because either could be meant."""
    with pytest.raises(UnreadableFile, match="column 'plan' appears more than once"):
        read_table(written(tmp_path, "rows.csv", "plan, plan\n1,2\n"))


def test_json_lines_may_lack_keys(tmp_path: Path) -> None:
    """An absent key is a missing value, also before its first occurrence."""
    path = written(tmp_path, "t.jsonl", '{"a": 1}\n\n{"b": true, "a": 2.5}\n{"a": null, "b": false}\n')
    batches = list(read_batches(path, 1))
    assert [list(batch.columns) for batch in batches] == [["a", "b"]] * 3
    assert [batch["b"].tolist()[0] for batch in batches] == [pd.NA, True, False]
    assert {str(batch["a"].dtype) for batch in batches} == {"float64"}


def test_an_empty_text_in_json_lines_is_missing_as_an_empty_field_of_a_csv_file(tmp_path: Path) -> None:
    """Numbers beside it stay numbers."""
    frame = read_table(written(tmp_path, "t.jsonl", '{"a": 1, "b": "x"}\n{"a": "", "b": ""}\n'))
    assert (frame["a"].tolist(), frame["b"].tolist()) == ([1, pd.NA], ["x", None])


fields = st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), min_size=1))


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(fields, fields), min_size=1, max_size=8), data=st.data())
def test_rows_are_counted_as_they_are_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list, data: st.DataObject
) -> None:
    """Counting agrees with reading for quoted line ends, blank lines and any line end."""
    path = tmp_path_factory.mktemp("count") / "t.csv"
    ending = data.draw(st.sampled_from(["\n", "\r\n", "\n\n"]))
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator=ending, quoting=csv.QUOTE_ALL)
        writer.writerows([("a", "b"), *[tuple("" if f is None else f for f in row) for row in rows]])
    assert count_rows(path) == len(rows)
    assert read_table(path, text=["a", "b"]).astype(object).values.tolist() == [list(row) for row in rows]


def test_counting_is_cheap_or_none(tmp_path: Path) -> None:
    """Parquet, text without a last line end, and JSON lines are counted; a compressed file is not."""
    write_batches(tmp_path / "t.parquet", [AWKWARD])
    assert count_rows(tmp_path / "t.parquet") == 5
    assert count_rows(written(tmp_path, "t.csv", "a\n1\n2")) == 2
    assert count_rows(written(tmp_path, "t.jsonl", '{"a": "\\""}\n{"a": 1}\n')) == 2
    assert count_rows(written(tmp_path, "t.csv.gz", "a\n1\n")) is None


def test_a_failed_write_leaves_nothing_and_keeps_the_old_file(tmp_path: Path) -> None:
    """Writes are atomic."""
    path = written(tmp_path, "t.parquet", "old")
    frames = [pd.DataFrame({"a": [1]}), pd.DataFrame({"a": ["x"]})]
    with pytest.raises(SliceError, match="a Parquet column has one type"):
        write_batches(path, frames)
    with pytest.raises(SliceError, match="every batch must have the columns"):
        write_batches(path, [frames[0], pd.DataFrame({"b": [1]})])
    with pytest.raises(SliceError, match="nothing to write"):
        write_batches(path, [])
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]
    assert path.read_bytes() == b"old"


def test_a_column_missing_at_first_may_hold_text_later(tmp_path: Path) -> None:
    """In Parquet a column without values in the first batch is text."""
    frames = [pd.DataFrame({"a": [None, None]}), pd.DataFrame({"a": ["x", None]})]
    write_batches(tmp_path / "t.parquet", frames)
    assert read_table(tmp_path / "t.parquet")["a"].tolist() == [None, None, "x", None]


def test_floats_read_back_exactly(tmp_path: Path) -> None:
    """A float in its shortest form reads back exactly."""
    values = np.random.default_rng(0).normal(size=500) * 10.0 ** np.arange(-250, 250)
    written(tmp_path, "t.csv", "v\n" + "\n".join(map(repr, values.tolist())) + "\n")
    assert read_table(tmp_path / "t.csv")["v"].tolist() == values.tolist()
    written(tmp_path, "t.jsonl", "\n".join(json.dumps({"v": v}) for v in values.tolist()))
    assert read_table(tmp_path / "t.jsonl")["v"].tolist() == values.tolist()


def test_batch_rows_must_be_positive(tmp_path: Path) -> None:
    """batch_rows of 0 is an error."""
    with pytest.raises(ValueError, match="at least 1, got 0"):
        next(read_batches(written(tmp_path, "t.csv", "a\n1\n"), 0))


@pytest.mark.parametrize("name", KINDS)
def test_a_lone_surrogate_is_replaced_when_written(tmp_path: Path, name: str) -> None:
    """A character that UTF-8 cannot encode does not fail the write, in names, values and categories."""
    frame = pd.DataFrame({"te\ud83dxt": ["a\ud83d", "b", None], "n": [1, 2, 3]}, index=[5, 5, 6])
    frame["kind"] = pd.Categorical(["x", "y\udc00", "x"])
    write_batches(tmp_path / name, [frame])
    back = read_table(tmp_path / name)
    assert list(back.columns) == ["te\ufffdxt", "n", "kind"]
    assert [None if pd.isna(v) else v for v in back["te\ufffdxt"]] == ["a\ufffd", "b", None]
    assert back["kind"].tolist() == ["x", "y\ufffd", "x"]
    assert frame["te\ud83dxt"].tolist()[0] == "a\ud83d"


def test_a_lone_surrogate_is_replaced_inside_lists(tmp_path: Path) -> None:
    """JSON lines may hold lists and mappings of text."""
    write_batches(tmp_path / "t.jsonl", [pd.DataFrame({"tags": [["a\ud83d", {"b\ud83d": ["c"]}], ["ok"]]})])
    assert read_table(tmp_path / "t.jsonl")["tags"].tolist() == [["a\ufffd", {"b\ufffd": ["c"]}], ["ok"]]


def test_json_lines_keep_the_digits_of_a_float(tmp_path: Path) -> None:
    """Floats keep fifteen decimals."""
    values = [0.123456789012345, 1e-12, 1 / 3]
    write_batches(tmp_path / "t.jsonl", [pd.DataFrame({"v": values})])
    assert np.allclose(read_table(tmp_path / "t.jsonl")["v"], values, rtol=0, atol=1e-15)


@pytest.mark.parametrize("line", ["{0},b\n1,2\n", "a,b\n{0},2\n", "a,b\n1,2\n{0},2\n"])
def test_a_long_text_is_read_in_any_row(tmp_path: Path, line: str) -> None:
    """Fields may exceed the csv module's limit, which is restored."""
    before = csv.field_size_limit()
    frame = read_table(written(tmp_path, "t.csv", line.format("x" * 200_000)))
    assert [len(name) for name in frame.columns] in ([1, 1], [200_000, 1])
    assert frame.shape[1] == 2
    ragged = written(tmp_path, "r.csv", f"a,b\n{'x' * 200_000},2\n1\n")
    with pytest.raises(UnreadableFile, match="line 3 has 1 value where the header has 2"):
        read_table(ragged)
    assert csv.field_size_limit() == before


def test_semicolons_as_separators_are_rejected(tmp_path: Path) -> None:
    """The message has the remedy; semicolons within a text are text."""
    with pytest.raises(UnreadableFile, match="appears to be separated by ';': save it with commas"):
        read_table(written(tmp_path, "t.csv", "a;b\n1;2\n"))
    assert list(read_table(written(tmp_path, "one.csv", "text\nfine; really\n")).columns) == ["text"]


@pytest.mark.parametrize("name", ["rows", "rows.data", "rows.txt", "rows.DAT", "rows.test", "rows.data.gz"])
@pytest.mark.parametrize("kind", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_file_without_a_telling_suffix_is_read_by_its_content(tmp_path: Path, name: str, kind: str) -> None:
    """Commas, tabs, JSON lines and Parquet are told apart by the first bytes."""
    if name.endswith(".gz") and kind == ".parquet":
        return
    frame = pd.DataFrame({"a": [1, 2], "b": ["x, y", "z"]})
    path = tmp_path / f"t{kind}{'.gz' if name.endswith('.gz') else ''}"
    write_batches(path, [frame])
    pd.testing.assert_frame_equal(read_table(path.rename(tmp_path / name)), frame)
    assert count_rows(tmp_path / name) in (2, None)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_given_format_overrides_suffix_and_content(tmp_path: Path, kind: str) -> None:
    """A file of any name is read in the format that is passed."""
    frame = pd.DataFrame({"a": [1, 2], "b": ["x, y", "z"]})
    write_batches(tmp_path / f"t.{kind}", [frame])
    path = (tmp_path / f"t.{kind}").rename(tmp_path / ("t.csv" if kind == "parquet" else "t.export"))
    pd.testing.assert_frame_equal(read_table(path, format=kind), frame)
    assert count_rows(path, kind) == 2


def test_one_column_with_a_tab_is_read_as_commas_if_stated(tmp_path: Path) -> None:
    """A tab in the header makes a file tab-separated by content, not against a given format."""
    path = written(tmp_path, "t.txt", "a\tb\n1\n")
    assert list(read_table(path, format="csv").columns) == ["a\tb"]


def test_an_unknown_given_format_is_named_with_the_known_ones(tmp_path: Path) -> None:
    """The message lists the formats, also that of a file with an unknown suffix."""
    path = written(tmp_path, "t.csv", "a\n1\n")
    with pytest.raises(UnreadableFile, match="unknown file format 'xml'; supported are csv, tsv, parquet, jsonl"):
        read_table(path, format="xml")
    with pytest.raises(UnreadableFile, match=r"unknown file format '.log'.* its format: csv, tsv, parquet, jsonl"):
        read_table(path.rename(tmp_path / "t.log"))


def test_quoted_line_ends_are_no_unclosed_quote(tmp_path: Path) -> None:
    """Values over several lines are read, with doubled quotes and at the end of the file."""
    path = written(tmp_path, "t.csv", 'a,b\n"x\ny",1\n"say ""hi""\nz","2\n"')
    assert read_table(path)["a"].tolist() == ["x\ny", 'say "hi"\nz']


def test_lists_in_a_column_declared_as_text_stay_lists(tmp_path: Path) -> None:
    """A reader refuses no value: a feature does, and names the row."""
    file = written(tmp_path, "rows.jsonl", '{"text": "a"}\n{"text": ["b"]}\n{"text": null}\n')
    assert read_table(file, text=["text"])["text"].tolist() == ["a", ["b"], None]
