"""Folder of Parquet files whose types differ from file to file, and functions that notice every difference."""

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from sfs.apply import apply_with_stats
from sfs.partitioned import PartitionedResult, PartitionTask
from sfs.registry import FunctionSet
from sfs.schema import Schema
from sfs.tables.partitions import PartitionedTable

BERLIN = ZoneInfo("Europe/Berlin")
PARTS = 6

PYTHON = """
from sfs import preprocessor, slicing_function, template


@preprocessor(memoize=True)
def words(x):
    x.words = x.text.split()
    return x


@preprocessor(pre=[words])
def counted(x):
    x.count = len(x.words)
    return x


@slicing_function()
def whole_is_int(x):
    return str(x.whole + 0).isdigit()


@slicing_function()
def whole_is_odd(x):
    return x.whole % 2 == 1


@slicing_function()
def text_is_missing(x):
    return x.text is None


@slicing_function()
def text_is_empty(x):
    return len(x.text) == 0


@slicing_function()
def has_umlaut(x):
    return "ü" in x.text or "日" in x.text


@slicing_function(pre=[counted])
def three_words(x):
    return x.count == 3


@slicing_function(pre=[words])
def says_please(x):
    return "please" in x.words


@slicing_function()
def flagged(x):
    return x.flag is True


@slicing_function()
def not_flagged(x):
    return not x.flag


@slicing_function()
def real_is_missing(x):
    return x.real != x.real or x.real is None


@slicing_function()
def real_is_small(x):
    return x.real < 1


@slicing_function()
def first_tag_is_int(x):
    return type(x.tags[0]).__name__ == "int"


@slicing_function()
def first_tags(x):
    return str(list(x.tags)).startswith("[1, ")


@slicing_function()
def nested_one(x):
    return str(x.nested["a"]) == "1"


@slicing_function()
def afternoon(x):
    return x.at.hour >= 12


@slicing_function()
def kind_b(x):
    return x.kind == "b"


@slicing_function()
def junk(x):
    return {"a": "yes", "b": True, "c": -1}[x.kind]


@slicing_function()
def unsigned_max(x):
    return x.unsigned == 2**64 - 1


above, has_real = {"compare": {"field": "whole", "above": 2}}, {"not": {"missing": {"field": "real"}}}
declared = template("declared", all=[above, has_real])
"""

YAML = """\
slices:
  - {name: keyword, keyword: {field: text, words: [please, ünï]}}
  - {name: regex, regex: {field: text, pattern: "^.*日"}}
  - {name: long, length: {field: text, unit: words, above: 2}}
  - {name: likes, compare: {field: whole, at_least: 3}}
  - {name: chosen, one_of: {field: kind, values: [a, c]}}
  - {name: flag_or_text, any: [{one_of: {field: flag, values: [true]}}, {missing: {field: text}}]}
  - {name: tags_are_no_text, keyword: {field: tags, words: [x]}}
  - {name: real_above, compare: {field: real, above: 0.5}}
"""


def nasty_frame() -> pd.DataFrame:
    """Return the rows of all parts, with a column ``part``; the index has repeated labels."""
    rows: list[dict[str, Any]] = []

    def add(part: int, **values: Any) -> None:
        defaults = {"whole": None, "text": None, "flag": None, "real": None, "tags": None, "nested": None}
        rows.append({**defaults, "at": None, "kind": None, "unsigned": None, **values, "part": part})

    noon = pd.Timestamp("2026-03-29 12:00", tz=BERLIN)
    add(0, whole=5, text="please look ünï", flag=True, real=0.25, tags=[1, 2], nested={"a": 1}, at=noon, kind="a")
    add(0, whole=None, text="", flag=None, real=float("nan"), tags=[1, None], nested={"a": None}, at=None, kind="b")
    add(0, whole=2**60 + 1, text=None, flag=False, real=-1.5, tags=[], nested=None, at=noon - pd.Timedelta("11h"))
    add(0, whole=3, text="日本 a b", flag=True, real=7.0, tags=None, nested={"a": 1}, kind="c", unsigned=2**64 - 1)
    for k in range(3):  # whole, text, flag and kind have no value here
        add(2, real=float(k), tags=[1, 2, k], nested={"a": 1}, at=noon + pd.Timedelta(k, "h"))
    for k in range(4):  # every column but unsigned has only values
        add(
            3,
            whole=k,
            text=f"please {k}",
            flag=k > 1,
            real=k / 4,
            tags=[k],
            nested={"a": k},
            at=noon,
            kind="bca"[k % 3],
        )
    add(4, whole=2**53 + 1, text="\U0001f600 ü", real=0.5, tags=[1, 2], nested={"a": 1}, at=noon, kind="b", unsigned=1)
    add(4, text="please", tags=[1, None, 3], nested={"a": None}, kind="a")
    for k in range(40):
        add(
            5,
            whole=k if k % 3 else None,
            text=f"{'please ' * (k % 4)}x",
            real=k / 40 if k % 5 else None,
            kind="abc"[k % 3],
        )
    kinds = {
        "whole": "Int64",
        "flag": "boolean",
        "real": "float64",
        "unsigned": "UInt64",
        "at": pd.DatetimeTZDtype("us", BERLIN),
        "kind": pd.CategoricalDtype(["c", "b", "a"]),
        "part": "int64",
    }
    frame = pd.DataFrame({name: _series([row[name] for row in rows], kinds.get(name)) for name in rows[0]})
    frame.index = pd.Index([k % 3 for k in range(len(frame))])
    return frame


def _series(values: list[Any], kind: Any) -> pd.Series:
    if kind is not None:
        return pd.Series(values, dtype=kind)
    objects = np.empty(len(values), dtype=object)
    objects[:] = values
    return pd.Series(objects)


def write_nasty_folder(folder: Path) -> pd.DataFrame:
    """Write the parts as files, part 1 without rows, and return the rows as one frame."""
    frame = nasty_frame()
    folder.mkdir()
    for part in range(PARTS):
        rows = frame[frame["part"] == part]
        file = folder / f"part-{part}.parquet"
        if part == 2:  # pandas makes floats of missing integers, and text without values has no type
            rows = rows.assign(whole=np.nan, text=None, flag=None, kind=None, unsigned=np.nan)
            rows.astype({"text": object, "flag": object, "kind": object}).to_parquet(file)
        elif part == 3:
            rows.drop(columns="unsigned").astype({"whole": "int64", "flag": "bool"}).to_parquet(file, index=False)
        elif part == 4:  # no dictionary, and NaN that is not null
            table = pa.Table.from_pandas(rows.assign(kind=rows["kind"].astype(object)), preserve_index=False)
            real = pa.array([0.5, float("nan")])
            place = table.schema.get_field_index("real")
            parquet.write_table(table.set_column(place, "real", real), file)
        else:
            rows.to_parquet(file, row_group_size=7)
    return frame


def write_nasty_functions(folder: Path) -> list[str]:
    """Write the functions, and return their files."""
    (folder / "nasty.py").write_text(PYTHON)
    (folder / "nasty.yaml").write_text(YAML)
    return [str(folder / "nasty.py"), str(folder / "nasty.yaml")]


def nasty_task(folder: Path, files: list[str], out: Path | None) -> tuple[PartitionTask, PartitionedTable]:
    """Return the task of functions on a folder in partitions of at most seven rows, and its table."""
    table = PartitionedTable.open(folder, partition_rows=7)
    return PartitionTask(tuple(files), FunctionSet.from_files(files).hash, table.schema, Schema(), out=out), table


def check_results(
    frame: pd.DataFrame, files: list[str], task: PartitionTask, table: PartitionedTable, result: PartitionedResult
) -> None:
    """Compare the written memberships and the counts with those of the functions applied to one frame."""
    expected = apply_with_stats(FunctionSet.from_files(files), frame)
    assert task.out is not None
    written = pa.concat_tables([parquet.read_table(task.out / part.name) for part in table.partitions])
    assert written["part"].to_pylist() == frame["part"].tolist()
    for k, stats in enumerate(expected.stats):
        member, unknown = expected.matrix.member[:, k], expected.matrix.unknown[:, k]
        memberships = [None if u else m for m, u in zip(member.tolist(), unknown.tolist(), strict=True)]
        assert written[stats.name].to_pylist() == memberships, stats.name
        counted = result.counts.slices[stats.name]
        assert (counted.members, counted.unknown, counted.reasons) == (member.sum(), unknown.sum(), stats.unknown)
    assert result.counts.rows == len(frame)
