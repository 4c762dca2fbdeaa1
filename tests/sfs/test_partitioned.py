"""Functions applied to partitions: the same memberships as on a frame, and runs that are resumed."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from nasty_table import check_results, nasty_task, write_nasty_folder, write_nasty_functions
from pyarrow import parquet

from sfs.errors import EngineError, InvalidFunction, SliceError
from sfs.local import LocalEngine
from sfs.partitioned import PartitionTask, apply_partitions
from sfs.registry import FunctionSet
from sfs.schema import Column, Schema
from sfs.tables.partitions import Partition, PartitionedTable


class Interrupted:
    """Engine of this process that ends after some partitions, and records which it was given."""

    def __init__(self, after: int = 1_000) -> None:
        self.after = after
        self.given: list[str] = []

    def run(self, task: PartitionTask, partitions: Sequence[Partition]) -> Iterator:
        for position, partition in enumerate(partitions):
            if position == self.after:
                raise EngineError("the engine ended")
            self.given.append(partition.name)
            yield position, task.outcome(partition)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files of two rows."""
    (tmp_path / "rows").mkdir()
    for name in "abc":
        pd.DataFrame({"x": [1, 2], "name": name}).to_parquet(tmp_path / "rows" / f"{name}.parquet")
    return tmp_path / "rows"


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    """A file with one template."""
    file = tmp_path / "slices.yaml"
    file.write_text("slices:\n  - {name: big, compare: {field: x, above: 1}}\n")
    return file


def task_of(
    folder: Path, functions: Path, out: Path | None, **options: object
) -> tuple[PartitionTask, PartitionedTable]:
    """Return the task of functions on a folder, and its table."""
    table, files = PartitionedTable.open(folder), (str(functions),)
    given = {"columns": Schema(), **options}
    return PartitionTask(files, FunctionSet.from_files(files).hash, table.schema, out=out, **given), table


def test_the_nasty_folder_has_the_memberships_of_the_frame(tmp_path: Path) -> None:
    """Members, unknown rows and their reasons are those of one data frame, in two processes."""
    frame, files = write_nasty_folder(tmp_path / "rows"), write_nasty_functions(tmp_path)
    task, table = nasty_task(tmp_path / "rows", files, tmp_path / "out")
    result = apply_partitions(task, table, LocalEngine(2))
    assert result.computed == len(table.partitions) == 11
    check_results(frame, files, task, table, result)


def test_a_run_goes_on_where_it_ended(folder: Path, functions: Path, tmp_path: Path) -> None:
    """Only partitions without a result are computed; the counts are those of all."""
    task, table = task_of(folder, functions, tmp_path / "out")
    first, second = Interrupted(after=2), Interrupted()
    with pytest.raises(EngineError, match="the engine ended"):
        apply_partitions(task, table, first)
    result = apply_partitions(task, table, second)
    assert (first.given, second.given) == (["a.parquet", "b.parquet"], ["c.parquet"])
    assert (result.computed, result.resumed) == (1, 2)
    assert (result.counts.rows, result.counts.slices["big"].members) == (6, 3)


def test_changed_functions_and_rows_are_computed_again(folder: Path, functions: Path, tmp_path: Path) -> None:
    """A result belongs to the content of the file, the functions, and the types of all columns."""
    out, again = tmp_path / "out", Interrupted()
    apply_partitions(*task_of(folder, functions, out), LocalEngine())
    pd.DataFrame({"x": [5, 6], "name": "b"}).to_parquet(folder / "b.parquet")
    assert apply_partitions(*task_of(folder, functions, out), again).counts.slices["big"].members == 4
    assert again.given == ["b.parquet"]
    functions.write_text(functions.read_text().replace("above: 1", "above: 5"))
    assert apply_partitions(*task_of(folder, functions, out), again).counts.slices["big"].members == 1
    assert again.given[1:] == ["a.parquet", "b.parquet", "c.parquet"]
    pd.DataFrame({"x": [0.5, 6], "name": "d"}).to_parquet(folder / "d.parquet")
    apply_partitions(*task_of(folder, functions, out), again)
    assert again.given[4:] == ["a.parquet", "b.parquet", "c.parquet", "d.parquet"]
    kinds = {str(parquet.read_schema(file).field("x").type) for file in out.glob("*.parquet")}
    assert kinds == {"double"}


def test_results_of_removed_partitions_and_killed_workers_are_removed(
    folder: Path, functions: Path, tmp_path: Path
) -> None:
    """The folder of the results has one file per partition, and nothing else."""
    out = tmp_path / "out"
    apply_partitions(*task_of(folder, functions, out), LocalEngine())
    (out / ".a.parquet.0123.tmp").write_bytes(b"PAR1")
    (folder / "b.parquet").unlink()
    apply_partitions(*task_of(folder, functions, out), LocalEngine())
    assert sorted(path.name for path in out.iterdir()) == ["a.parquet", "c.parquet"]


def test_files_of_others_are_not_replaced(folder: Path, functions: Path, tmp_path: Path) -> None:
    """A folder with a Parquet file that is no result is refused, and the file stays."""
    out, again = tmp_path / "out", Interrupted()
    apply_partitions(*task_of(folder, functions, out), LocalEngine())
    pd.DataFrame({"mine": [1]}).to_parquet(out / "b.parquet")
    with pytest.raises(SliceError, match=r"b.parquet is no result of this command: name another folder"):
        apply_partitions(*task_of(folder, functions, out), again)
    assert pd.read_parquet(out / "b.parquet").columns.tolist() == ["mine"]


def test_input_and_results_need_folders_of_their_own(folder: Path, functions: Path) -> None:
    """Results are never read as rows, and never replace them."""
    for out in (folder, folder / "sliced", folder.parent):
        with pytest.raises(SliceError, match="overlap"):
            apply_partitions(*task_of(folder, functions, out), LocalEngine())
    with pytest.raises(SliceError, match="is a file"):
        apply_partitions(*task_of(folder, functions, functions), LocalEngine())


def test_one_run_at_a_time_writes_to_a_folder(folder: Path, functions: Path, tmp_path: Path) -> None:
    """A second run is refused while the first one has the folder."""
    task, table = task_of(folder, functions, tmp_path / "out")

    class Second(LocalEngine):
        def run(self, task: PartitionTask, partitions: Sequence[Partition]) -> Iterator:
            apply_partitions(task, table, LocalEngine())
            yield from ()

    with pytest.raises(SliceError, match="another run writes to"):
        apply_partitions(task, table, Second())


def test_a_broken_partition_keeps_the_others(folder: Path, functions: Path, tmp_path: Path) -> None:
    """The message names the file; results that were computed before stay."""
    data = bytearray((folder / "b.parquet").read_bytes())
    data[4:40] = bytes(36)
    (folder / "b.parquet").write_bytes(data)
    with pytest.raises(SliceError, match=r"b.parquet cannot be read"):
        apply_partitions(*task_of(folder, functions, tmp_path / "out"), LocalEngine())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.parquet"]


def test_a_worker_that_ends_is_an_error(folder: Path, tmp_path: Path) -> None:
    """A function that ends its process ends the run with the exit code and the file."""
    functions = tmp_path / "ends.py"
    functions.write_text(
        "import os\n\nfrom sfs import slicing_function\n\n\n@slicing_function()\ndef ends(x):\n    os._exit(7)\n"
    )
    with pytest.raises(EngineError, match=r"(a|b).parquet: the worker process ended with exit code 7"):
        apply_partitions(*task_of(folder, functions, tmp_path / "out"), LocalEngine(2))
    assert list((tmp_path / "out").iterdir()) == []


def test_functions_that_are_others_on_a_worker_are_refused(folder: Path, functions: Path, tmp_path: Path) -> None:
    """A worker compares the hash of what it loads."""
    task, table = task_of(folder, functions, tmp_path / "out")
    functions.write_text(functions.read_text().replace("above: 1", "above: 5"))
    with pytest.raises(InvalidFunction, match="have changed since the run began"):
        task.run(table.partitions[0])


def test_a_slice_named_like_a_column_is_refused(folder: Path, functions: Path, tmp_path: Path) -> None:
    """No column is overwritten, and nothing is written."""
    functions.write_text("slices:\n  - {name: x, compare: {field: x, above: 1}}\n")
    with pytest.raises(SliceError, match=r"two columns would be named \['x'\]"):
        apply_partitions(*task_of(folder, functions, tmp_path / "out"), LocalEngine())
    assert not (tmp_path / "out").exists()


def test_functions_read_the_columns_of_a_schema_without_the_label(tmp_path: Path) -> None:
    """Types are those of the project, the label is not seen, and the rows are written as they were."""
    (tmp_path / "rows").mkdir()
    pd.DataFrame({"x": ["1", "7"], "code": [1, 2], "truth": ["a", "b"]}).to_parquet(tmp_path / "rows" / "a.parquet")
    functions = tmp_path / "slices.py"
    functions.write_text(
        "from sfs import slicing_function\n\n\n"
        "@slicing_function()\ndef big(x):\n    return x.x > 5 and x.code == '2'\n\n\n"
        "@slicing_function()\ndef cheat(x):\n    return x.truth == 'a'\n"
    )
    options = {"columns": Schema([Column("x", "integer")]), "text": ("code",), "label": "truth"}
    task, table = task_of(tmp_path / "rows", functions, tmp_path / "out", **options)
    result = apply_partitions(task, table, LocalEngine())
    written = parquet.read_table(tmp_path / "out" / "a.parquet")
    assert written["big"].to_pylist() == [False, True]
    assert written["cheat"].to_pylist() == [None, None]
    assert (written["x"].to_pylist(), written["code"].to_pylist()) == (["1", "7"], [1, 2])
    assert result.counts.slices["cheat"].reasons == {"AttributeError": 2}
    assert result.counts.slices["cheat"].first_fault.startswith("a.parquet, row 0: AttributeError")


def test_the_first_fault_is_named_by_file_and_row(folder: Path, tmp_path: Path) -> None:
    """Rows are counted from the start of the file, whichever partition of it they are in."""
    parquet.write_table(pa.table({"x": [1] * 8 + [0], "name": ["d"] * 9}), folder / "d.parquet", row_group_size=4)
    functions = tmp_path / "slices.py"
    functions.write_text(
        "from sfs import slicing_function\n\n\n@slicing_function()\ndef inverse(x):\n    return 1 / x.x > 2\n"
    )
    task, _ = task_of(folder, functions, None)
    result = apply_partitions(task, PartitionedTable.open(folder, partition_rows=4), LocalEngine())
    assert result.counts.slices["inverse"].first_fault.startswith("d.parquet, row 8: ZeroDivisionError")
    assert result.counts.slices["inverse"].reasons == {"ZeroDivisionError": 1}
