"""Appliers and engine on Spark: the results of the pandas applier, in one session with two threads."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from nasty_table import (
    check_results,
    nasty_frame,
    nasty_task,
    write_nasty_folder,
    write_nasty_functions,
)

from sfs.appliers import LFApplier, PandasSFApplier, SFApplier
from sfs.errors import EngineError, SliceError
from sfs.function import LabelingFunction, SlicingFunction
from sfs.partitioned import apply_partitions
from sfs.preprocess import Preprocessor, preprocessor
from sfs.registry import FunctionSet
from sfs.spark import SparkEngine, SparkLFApplier, SparkSFApplier, make_spark_mapper
from sfs.tables import read_table

TOLERANT = {"fault_tolerant": True, "return_meta": True}
FAST = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto"
"""Options of a virtual machine that lives for seconds."""


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    """Session of Spark on this machine, as the engine starts it."""
    before = os.environ.get("JAVA_TOOL_OPTIONS", "")
    os.environ["JAVA_TOOL_OPTIONS"] = f"{before} {FAST}"
    session, is_new = SparkEngine(2).session()
    os.environ["JAVA_TOOL_OPTIONS"] = before
    assert is_new
    session.conf.set("spark.sql.session.timeZone", "Europe/Berlin")
    session.conf.set("spark.sql.codegen.wholeStage", "false")  # compiling takes longer than these rows
    yield session
    session.stop()  # the virtual machine ends with this process


def lambdas() -> list[SlicingFunction]:
    """Return functions that no worker can import."""
    limit = 2
    return [
        SlicingFunction("above", lambda x: x.n > limit),
        SlicingFunction("inverse", lambda x, of: of / x.n > 1, resources={"of": 1}),
    ]


def test_the_engine_has_the_memberships_of_the_frame(session: Any, tmp_path: Path) -> None:
    """Executors write the results, and only those that are lacking."""
    frame, files = write_nasty_folder(tmp_path / "rows"), write_nasty_functions(tmp_path)
    task, table = nasty_task(tmp_path / "rows", files, tmp_path / "out")
    result = apply_partitions(task, table, SparkEngine(2))
    check_results(frame, files, task, table, result)
    (tmp_path / "out" / table.partitions[3].name).unlink()
    resumed = apply_partitions(task, table, SparkEngine(2))
    assert (resumed.computed, resumed.resumed) == (1, 10)
    check_results(frame, files, task, table, resumed)


def test_a_data_frame_has_the_results_of_the_pandas_applier(session: Any, tmp_path: Path) -> None:
    """Results and faults are the same over batches, some of which lack values that others have."""
    functions = FunctionSet.from_files(write_nasty_functions(tmp_path))
    plain = nasty_frame().drop(columns="unsigned").astype({"kind": object})
    plain.assign(unsigned=np.arange(len(plain))).to_parquet(tmp_path / "rows.parquet", index=False)
    rows = read_table(tmp_path / "rows.parquet")
    expected, faults = PandasSFApplier(functions).apply(rows, progress_bar=False, **TOLERANT)
    session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "7")
    frame = session.read.parquet(str(tmp_path / "rows.parquet"))
    found, counted = SparkSFApplier(functions).apply(frame, **TOLERANT)
    assert found.dtype == expected.dtype
    assert found.tolist() == expected.tolist()
    assert counted == faults
    assert counted.faults


def test_an_rdd_has_the_results_of_the_applier_of_objects(session: Any) -> None:
    """Functions get the elements of an RDD, in their order over three partitions."""
    from pyspark.sql import Row

    rows = [Row(n=n, text="a b" if n % 2 else None) for n in (4, 0, 3, 1, 2, 7, 5)]
    functions = [
        LabelingFunction("words", lambda x: len(x.text.split())),
        LabelingFunction("large", lambda x: 2**40 if x.n > 2 else -1),
    ]
    expected, faults = LFApplier(functions).apply(rows, progress_bar=False, **TOLERANT)
    found, counted = SparkLFApplier(functions).apply(session.sparkContext.parallelize(rows, 3), **TOLERANT)
    assert (found.dtype, found.tolist(), counted) == (np.int64, expected.tolist(), faults)


def test_memberships_of_an_rdd_have_the_names_of_slices(session: Any) -> None:
    """As those of a frame; the faults of all partitions are summed."""
    from pyspark.sql import Row

    rdd = session.sparkContext.parallelize([Row(n=n) for n in (4, 0, 3, 0)], 2)
    found, meta = SparkSFApplier(lambdas()).apply(rdd, **TOLERANT)
    assert isinstance(found, np.recarray)
    assert (found.above.tolist(), found.inverse.tolist()) == ([1, 0, 1, 0], [0, -1, 0, -1])
    assert meta.faults == {"inverse": 2}


def test_the_first_fault_is_raised_as_it_was(session: Any) -> None:
    """Without tolerance the original exception of the first faulty row is raised."""
    frame = session.createDataFrame(pd.DataFrame({"n": [1, 4, 0, 2]}))
    with pytest.raises(ZeroDivisionError):
        SparkSFApplier(lambdas()).apply(frame)
    found, meta = SparkSFApplier(lambdas()).apply(frame, **TOLERANT)
    assert (found["above"].tolist(), found["inverse"].tolist()) == ([0, 1, 0, 0], [0, 0, -1, 0])
    assert meta.faults == {"inverse": 1}


def test_rows_of_another_kind_are_refused() -> None:
    """The message says which applier to use."""
    with pytest.raises(
        SliceError, match="expected a data frame or an RDD of Spark, got DataFrame: use PandasSFApplier"
    ):
        SparkSFApplier(lambdas()).apply(pd.DataFrame({"n": [1]}))


def test_without_spark_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine says how to install it."""
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(EngineError, match=r"is not installed: run `pip install 'slicewatch\[spark\]'`"):
        SparkEngine().session()


class Words(Preprocessor):
    """Preprocessor that derives the words of a text."""

    def run(self, text: str) -> dict[str, list[str]]:
        return {"words": text.split()}


@pytest.mark.parametrize("memoize", [False, True])
def test_rows_get_new_fields_in_a_row_of_their_kind(memoize: bool) -> None:
    """Without conversion; Snorkel needs `make_spark_mapper`, which returns the same preprocessor here."""
    from pyspark.sql import Row

    words, row = Words("words", memoize=memoize), Row(text="a b", n=1)
    assert make_spark_mapper(words) is words
    for _ in range(2):
        assert words(row) == Row(text="a b", n=1, words=["a", "b"])
    function = SlicingFunction("two", lambda x: len(x.words) == 2, pre=[words])
    assert SFApplier([function]).apply([row, Row(text="a", n=1)], progress_bar=False).tolist() == [(1,), (0,)]
    assert row == Row(text="a b", n=1)


def test_rows_of_other_fields_share_no_memoized_result() -> None:
    """Equal values of fields of other names are another row."""
    from pyspark.sql import Row

    same = preprocessor(memoize=True)(lambda x: x)
    assert [same(Row(a=1)).asDict(), same(Row(b=1)).asDict()] == [{"a": 1}, {"b": 1}]
