"""Appliers and engine on Dask: the results of the pandas applier, on a cluster of two processes."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from nasty_table import check_results, nasty_frame, nasty_task, write_nasty_folder, write_nasty_functions

from sfs.appliers import PandasLFApplier, PandasSFApplier
from sfs.dask import DaskEngine, DaskLFApplier, DaskSFApplier, PandasParallelLFApplier, PandasParallelSFApplier
from sfs.errors import EngineError, SliceError
from sfs.function import LabelingFunction, SlicingFunction
from sfs.local import LocalEngine
from sfs.partitioned import apply_partitions
from sfs.registry import FunctionSet

QUIET = {"progress_bar": False}
TOLERANT = {"fault_tolerant": True, "return_meta": True}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Client of two worker processes."""
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster, set_as_default=False) as client:
        assert client.submit(len, "warm").result() == 4  # threads of the client start here, not in a test
        yield client


@pytest.fixture
def functions(tmp_path: Path) -> FunctionSet:
    """The functions that notice every difference, from their files."""
    return FunctionSet.from_files(write_nasty_functions(tmp_path))


def lambdas() -> list[SlicingFunction]:
    """Return functions that no worker can import."""
    limit = 2
    return [
        SlicingFunction("above", lambda x: x.n > limit),
        SlicingFunction("inverse", lambda x, of: of / x.n > 1, resources={"of": 1}),
    ]


def test_a_pandas_frame_keeps_its_order(client: Client, functions: FunctionSet) -> None:
    """Results and faults are those of the pandas applier, with an index that repeats labels."""
    frame = nasty_frame()
    expected, faults = PandasSFApplier(functions).apply(frame, **QUIET, **TOLERANT)
    found, counted = PandasParallelSFApplier(functions).apply(frame, n_parallel=3, scheduler=client, **TOLERANT)
    assert found.dtype == expected.dtype
    assert found.tolist() == expected.tolist()
    assert counted == faults
    assert counted.faults


def test_a_dask_frame_keeps_its_order(client: Client, functions: FunctionSet) -> None:
    """Results and faults are those of the pandas applier, over partitions of a Dask frame."""
    frame = nasty_frame()
    expected, faults = PandasSFApplier(functions).apply(frame, **QUIET, **TOLERANT)
    with dask.config.set({"dataframe.convert-string": False}):
        parts = dd.from_pandas(frame, npartitions=4, sort=False)
        found, counted = DaskSFApplier(functions).apply(parts, scheduler=client, **TOLERANT)
    assert found.tolist() == expected.tolist()
    assert counted == faults


def test_the_types_of_a_partition_are_those_of_the_frame() -> None:
    """A partition without missing values, or with nothing else, is read as the whole frame."""
    parts = [
        pd.DataFrame({"n": [1, 2], "real": [0.5, 2.0], "flag": [True, False]}),
        pd.DataFrame({"n": [3.0, np.nan], "real": [1, 2], "flag": [None, True]}),
    ]
    meta = pd.DataFrame({"n": [1], "real": [0.5], "flag": [True]}).iloc[:0]
    frame = dd.from_map(lambda k: parts[k], [0, 1], meta=meta)
    functions = [
        SlicingFunction("is_digit", lambda x: str(x.n).isdigit()),
        SlicingFunction("is_float", lambda x: isinstance(x.real, float)),
        SlicingFunction("is_missing", lambda x: pd.isna(x.flag)),
    ]
    found = DaskSFApplier(functions).apply(frame, scheduler="synchronous")
    assert found.tolist() == [(1, 1, 0), (1, 1, 0), (1, 1, 1), (0, 1, 0)]


def test_labels_are_a_matrix(client: Client) -> None:
    """Labelling functions return int64[N, K], large labels and abstentions included."""
    functions = [
        LabelingFunction("parity", lambda x: x.n % 2),
        LabelingFunction("large", lambda x: 2**40 if x.n > 2 else -1),
    ]
    frame = pd.DataFrame({"n": range(5)}, index=[3, 1, 1, 0, 2])
    expected = PandasLFApplier(functions).apply(frame, **QUIET)
    for found in (
        PandasParallelLFApplier(functions).apply(frame, scheduler=client),
        DaskLFApplier(functions).apply(dd.from_pandas(frame, npartitions=2, sort=False), scheduler=client),
    ):
        assert (found.dtype, found.tolist()) == (np.int64, expected.tolist())


def test_the_first_fault_is_raised_as_it_was(client: Client) -> None:
    """Without tolerance the original exception of the first faulty row is raised."""
    frame = pd.DataFrame({"n": [1, 4, 0, 2]})
    with pytest.raises(ZeroDivisionError):
        PandasParallelSFApplier(lambdas()).apply(frame, scheduler=client)
    found, meta = PandasParallelSFApplier(lambdas()).apply(frame, scheduler=client, **TOLERANT)
    assert (found["above"].tolist(), found["inverse"].tolist()) == ([0, 1, 0, 0], [0, 0, -1, 0])
    assert meta.faults == {"inverse": 1}


def test_a_function_that_exits_ends_no_worker(client: Client) -> None:
    """``sys.exit`` in a function is a fault, and is raised here, as by the pandas applier."""
    frame, exits = pd.DataFrame({"n": [1, 2]}), [SlicingFunction("exits", lambda x: sys.exit(3))]
    _, meta = PandasParallelSFApplier(exits).apply(frame, scheduler=client, **TOLERANT)
    assert meta.faults == {"exits": 2}
    with pytest.raises(SystemExit, match="3"):
        PandasParallelSFApplier(exits).apply(frame, scheduler=client)


def test_an_exception_that_cannot_travel_keeps_its_text(client: Client) -> None:
    """An exception with an object that cannot be pickled becomes an error with its kind and message."""

    def fail(x: object) -> bool:
        raise ValueError("bad row", (n for n in range(3)))

    with pytest.raises(EngineError, match=r"ValueError: .*bad row"):
        PandasParallelSFApplier([SlicingFunction("fails", fail)]).apply(pd.DataFrame({"n": [1]}), scheduler=client)


def test_no_rows_and_no_functions(client: Client) -> None:
    """An empty frame, and an empty list of functions, have results of the right shape."""
    assert PandasParallelSFApplier(lambdas()).apply(pd.DataFrame({"n": []}), scheduler=client).shape == (0,)
    assert PandasParallelLFApplier([]).apply(pd.DataFrame({"n": [1, 2]}), scheduler=client).shape == (2, 0)


def test_misuse_says_which_applier_to_use() -> None:
    """One process, and rows of another kind, are refused."""
    with pytest.raises(ValueError, match="n_parallel should be >= 2, got 1: use PandasSFApplier"):
        PandasParallelSFApplier(lambdas()).apply(pd.DataFrame({"n": [1]}), n_parallel=1)
    with pytest.raises(SliceError, match="expected a Dask data frame, got DataFrame: use PandasParallelSFApplier"):
        DaskSFApplier(lambdas()).apply(pd.DataFrame({"n": [1]}))
    with pytest.raises(SliceError, match="expected a data frame, got list"):
        PandasParallelSFApplier(lambdas()).apply([{"n": 1}])


def test_functions_of_a_script_reach_the_processes(tmp_path: Path) -> None:
    """Functions and preprocessors that a script decorates are sent as code, with the default scheduler."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import pandas as pd

            from sfs import preprocessor, slicing_function
            from sfs.dask import PandasParallelSFApplier


            @preprocessor(memoize=True)
            def doubled(x):
                x.twice = 2 * x.n
                return x


            @slicing_function(pre=[doubled])
            def big(x):
                return x.twice > LIMIT


            LIMIT = 4

            if __name__ == "__main__":
                print(PandasParallelSFApplier([big]).apply(pd.DataFrame({"n": [1, 2, 3]}))["big"].tolist())
        """)
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[0, 0, 1]\n", 0), done.stderr


def test_the_engine_has_the_memberships_of_the_frame(client: Client, tmp_path: Path) -> None:
    """Workers of a running cluster write the results, and only those that another engine left."""
    frame, files = write_nasty_folder(tmp_path / "rows"), write_nasty_functions(tmp_path)
    task, table = nasty_task(tmp_path / "rows", files, tmp_path / "out")
    engine = DaskEngine(address=client.scheduler.address)
    result = apply_partitions(task, table, engine)
    check_results(frame, files, task, table, result)
    (tmp_path / "out" / table.partitions[0].name).unlink()
    resumed = apply_partitions(task, table, engine)
    assert (resumed.computed, resumed.resumed) == (1, 10)
    check_results(frame, files, task, table, resumed)
    assert apply_partitions(task, table, LocalEngine()).computed == 0


def test_a_partition_that_cannot_be_read_is_named(client: Client, tmp_path: Path) -> None:
    """An error of a worker is the error of the run."""
    write_nasty_folder(tmp_path / "rows")
    task, table = nasty_task(tmp_path / "rows", write_nasty_functions(tmp_path), tmp_path / "out")
    (tmp_path / "rows" / "part-3.parquet").unlink()
    with pytest.raises(SliceError, match=r"part-3.parquet: cannot be read"):
        apply_partitions(task, table, DaskEngine(address=client.scheduler.address))


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Appliers and engine say how to install it."""
    write_nasty_folder(tmp_path / "rows")
    task, table = nasty_task(tmp_path / "rows", write_nasty_functions(tmp_path), None)
    monkeypatch.setitem(sys.modules, "dask", None)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(EngineError, match=r"dask is not installed: run `pip install 'slicewatch\[dask\]'`"):
        PandasParallelSFApplier(lambdas()).apply(pd.DataFrame({"n": [1]}))
    with pytest.raises(EngineError, match=r"distributed is not installed: run `pip install 'slicewatch\[dask\]'`"):
        apply_partitions(task, table, DaskEngine())
