"""Partitions of Parquet files: row groups, and one type per column."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from nasty_table import write_nasty_folder
from pyarrow import parquet

from sfs.errors import UnreadableFile
from sfs.tables.partitions import PartitionedTable, partition_batches


def written(folder: Path, **files: pa.Table) -> Path:
    """Write tables as files of a folder."""
    for name, table in files.items():
        parquet.write_table(table, folder / f"{name}.parquet")
    return folder


def values(table: PartitionedTable) -> list[dict]:
    """Return the rows of all partitions."""
    return [
        row for part in table.partitions for batch in partition_batches(part, table.schema) for row in batch.to_pylist()
    ]


def kind_of(*arrays: pa.Array, folder: Path) -> pa.DataType:
    """Return the type of a column that two files have in these forms."""
    tables = {f"part{k}": pa.table({"x": array}) for k, array in enumerate(arrays)}
    return PartitionedTable.open(written(folder, **tables)).schema.field("x").type


NUMBERS, REALS, MISSING = pa.array([1, 2]), pa.array([0.5, 1.0]), pa.array([None, None], pa.float64())


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (NUMBERS, MISSING, pa.int64()),
        (MISSING, NUMBERS, pa.int64()),
        (NUMBERS, pa.nulls(2), pa.int64()),
        (NUMBERS, REALS, pa.float64()),
        (NUMBERS.cast("int8"), NUMBERS, pa.int64()),
        (pa.array(["a"]).dictionary_encode(), pa.array(["b"]), pa.string()),
        (pa.array([[1]]), pa.array([[None]], pa.list_(pa.null())), pa.list_(pa.int64())),
        (MISSING, pa.nulls(2), pa.float64()),
    ],
)
def test_a_column_has_one_type_that_holds_the_values(
    tmp_path: Path, first: pa.Array, second: pa.Array, expected: pa.DataType
) -> None:
    """Files with values determine the type, whichever comes first; a file without values takes it."""
    found = kind_of(first, second, folder=tmp_path)
    # Parquet names the elements of a list otherwise
    assert (
        (found.value_type, found.num_fields) == (expected.value_type, 1)
        if pa.types.is_list(found)
        else found == expected
    )


def test_types_without_a_common_one_are_refused(tmp_path: Path) -> None:
    """The message names the column, both types and both files."""
    written(tmp_path, a=pa.table({"x": [1]}), b=pa.table({"x": ["one"]}))
    with pytest.raises(UnreadableFile, match=r"column 'x' is int64 in .*a.parquet, but string in .*b.parquet"):
        PartitionedTable.open(tmp_path)


def test_a_number_that_floats_cannot_hold_is_refused(tmp_path: Path) -> None:
    """A whole number is never rounded to fit beside floats."""
    table = PartitionedTable.open(written(tmp_path, a=pa.table({"x": [2**53 + 1]}), b=pa.table({"x": [0.5]})))
    with pytest.raises(UnreadableFile, match=r"a.parquet, column 'x': .*other files have it as double"):
        values(table)


def test_the_nasty_folder_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Every value of every part is there, exact, in the order of the names."""
    frame = write_nasty_folder(tmp_path / "rows")
    table = PartitionedTable.open(tmp_path / "rows", partition_rows=7)
    rows = values(table)
    assert [part.rows for part in table.partitions] == [4, 0, 3, 4, 2, 7, 7, 7, 7, 7, 5]
    for name in ("whole", "flag", "unsigned", "part"):
        assert [row[name] for row in rows] == [None if pd.isna(v) else v for v in frame[name].tolist()]
    assert [row["tags"] for row in rows] == frame["tags"].tolist()
    assert [row["text"] for row in rows] == frame["text"].tolist()


def test_row_groups_become_partitions(tmp_path: Path) -> None:
    """A large file is cut at its row groups; each part knows its first row, and has a name of its own."""
    parquet.write_table(pa.table({"x": range(10)}), tmp_path / "rows.parquet", row_group_size=3)
    table = PartitionedTable.open(tmp_path / "rows.parquet", partition_rows=6)
    assert [(p.name, p.first_row, p.rows) for p in table.partitions] == [
        ("rows-00000.parquet", 0, 6),
        ("rows-00001.parquet", 6, 4),
    ]
    assert [row["x"] for row in values(table)] == list(range(10))


def test_nested_folders_are_read_and_hidden_files_are_not(tmp_path: Path) -> None:
    """Names of partitions are paths below the folder."""
    (tmp_path / "day=1").mkdir()
    written(tmp_path / "day=1", a=pa.table({"x": [1]}), _b=pa.table({"x": [2]}))
    written(tmp_path, a=pa.table({"x": [3]}), **{".c": pa.table({"x": [4]})})
    table = PartitionedTable.open(tmp_path)
    assert [part.name for part in table.partitions] == ["a.parquet", "day=1/a.parquet"]


def test_a_column_that_a_file_lacks_is_missing(tmp_path: Path) -> None:
    """Columns are those of all files."""
    table = PartitionedTable.open(written(tmp_path, a=pa.table({"x": [1]}), b=pa.table({"y": ["b"]})))
    assert values(table) == [{"x": 1, "y": None}, {"x": None, "y": "b"}]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no Parquet files"),
        ({"a": pa.table({"x": pa.array([], pa.int64())})}, "has columns but no rows: columns are 'x'"),
        ({"a": pa.Table.from_arrays([pa.array([1])] * 2, names=["x", "x"])}, "column 'x' appears more than once"),
    ],
)
def test_folders_without_rows_are_refused(tmp_path: Path, files: dict[str, pa.Table], message: str) -> None:
    """The message says why there is nothing to read."""
    with pytest.raises(UnreadableFile, match=message):
        PartitionedTable.open(written(tmp_path, **files))


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    """Another format with the suffix is refused."""
    (tmp_path / "a.parquet").write_text("x\n1\n")
    with pytest.raises(UnreadableFile, match=r"a.parquet is not a Parquet file"):
        PartitionedTable.open(tmp_path)


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    """Rows of a file are those of the footer that was read first."""
    table = PartitionedTable.open(written(tmp_path, a=pa.table({"x": [1]})))
    written(tmp_path, a=pa.table({"x": [1, 2]}))
    with pytest.raises(UnreadableFile, match=r"a.parquet has changed while it was read"):
        values(table)
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(UnreadableFile, match="cannot be read"):
        values(table)


def test_batches_are_bounded(tmp_path: Path) -> None:
    """A partition is read at most so many rows at a time."""
    table = PartitionedTable.open(written(tmp_path, a=pa.table({"x": np.arange(10)})))
    (part,) = table.partitions
    assert [len(batch) for batch in partition_batches(part, table.schema, batch_rows=4)] == [4, 4, 2]
