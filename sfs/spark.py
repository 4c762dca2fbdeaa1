"""Appliers and engine on Apache Spark: the extra ``slicewatch[spark]``, and Java 17 or later.

Rows stay in the partitions of Spark. Only codes return, a byte for each row and slicing function. Functions get rows
from Arrow batches: pandas batches of Spark would round whole numbers in a batch that lacks one.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sfs.apply import BLOCK_ROWS
from sfs.errors import EngineError, SliceError
from sfs.function import SlicingFunction
from sfs.remote import PartitionCodes, RemoteApplier, missing_package, partition_codes
from sfs.tables.formats import to_dataframe

if TYPE_CHECKING:
    from sfs.partitioned import PartitionOutcome, PartitionTask
    from sfs.preprocess import Preprocessor
    from sfs.tables.partitions import Partition

__all__ = ["SparkEngine", "SparkLFApplier", "SparkSFApplier", "make_spark_mapper", "make_spark_preprocessor"]

_CODES = pa.schema(
    [
        ("rows", pa.int64()),
        ("codes", pa.binary()),
        ("kind", pa.string()),
        ("faults", pa.map_(pa.string(), pa.int64())),
        ("error", pa.binary()),
    ]
)
_CODES_DDL = "rows bigint, codes binary, kind string, faults map<string, bigint>, error binary"
_OUTCOME_DDL = "position bigint, counts string, problem string, is_input boolean"
_JAVA = "Spark needs Java 17 or later: install it (Debian: apt-get install default-jre-headless), or set JAVA_HOME"


def make_spark_mapper(mapper: Preprocessor) -> Preprocessor:
    """Return the preprocessor, which takes Spark's ``Row`` objects as it is."""
    return mapper


make_spark_preprocessor = make_spark_mapper


class SparkLFApplier(RemoteApplier):
    """Labelling-function applier for a Spark data frame or RDD; see ``sfs.LFApplier``.

    Functions travel as with ``DaskLFApplier``.

    Parameters
    ----------
    lfs
        Functions with distinct names.
    """

    _extra = "spark"

    def apply(self, data_points: Any, fault_tolerant: bool = False, return_meta: bool = False) -> Any:
        """Return the results of K functions for N rows, in the order of ``collect``.

        Parameters
        ----------
        data_points
            Data frame of Spark: functions get its rows as those of a pandas data frame, with its missing values, and
            times in the zone of the session. Or an RDD: functions get its elements, such as ``Row`` objects.
        fault_tolerant
            Whether to return -1 for a fault instead of raising its exception.
        return_meta
            Whether to return ``ApplierMetadata`` as well: faults are summed over the partitions.

        Returns
        -------
        int64[N, K], or a recarray of N rows with one field per slicing function; with ``return_meta``, a tuple of
        the result and ``ApplierMetadata``.

        Raises
        ------
        Exception
            Without ``fault_tolerant``: the exception of the first partition with a fault.
        EngineError
            If Spark is not installed.
        """
        if hasattr(data_points, "mapInArrow"):
            of_batches = partial(_codes_of_batches, packed=self._packed(), fault_tolerant=fault_tolerant)
            found = data_points.mapInArrow(of_batches, _CODES_DDL).collect()
        elif hasattr(data_points, "mapPartitions"):
            of_objects = partial(_codes_of_objects, packed=self._packed(), fault_tolerant=fault_tolerant)
            found = data_points.mapPartitions(of_objects).collect()
        else:
            raise SliceError(
                f"expected a data frame or an RDD of Spark, got {type(data_points).__name__}: use PandasSFApplier or "
                "SFApplier for other rows"
            )
        return self._joined((PartitionCodes(*row) for row in found), return_meta)


class SparkSFApplier(SparkLFApplier):
    """Slicing-function applier for a Spark data frame or RDD; see ``SparkLFApplier``."""

    _kind = SlicingFunction


class SparkEngine:
    """Runs partitions on the executors of Spark, a task each.

    Parameters
    ----------
    workers
        Number of processes on this machine, without a master.
    master
        URL of a running master instead, such as ``spark://host:7077``.
    """

    def __init__(self, workers: int = 1, master: str | None = None) -> None:
        self.workers, self.master = workers, master

    def run(
        self, task: PartitionTask, partitions: Sequence[Partition]
    ) -> Generator[tuple[int, PartitionOutcome], None, None]:
        """Yield position and outcome of every partition at the end; see ``sfs.partitioned.Engine``."""
        session, is_ours = self.session()
        try:
            rows = session.range(0, len(partitions), 1, len(partitions))
            outcomes = partial(_outcomes, task=task, partitions=tuple(partitions))
            for position, *outcome in rows.mapInPandas(outcomes, _OUTCOME_DDL).collect():
                yield position, _parsed(*outcome)
        except _spark_errors() as error:
            raise EngineError(f"Spark: {_summary(error)}") from error
        finally:
            if is_ours:
                session.stop()

    def session(self) -> tuple[Any, bool]:
        """Return the active session of this process, or a new one, and whether it is new: its caller stops it.

        Raises
        ------
        EngineError
            If Spark or Java is not installed, or the master does not answer.
        """
        try:
            from pyspark.sql import SparkSession
        except ModuleNotFoundError as error:
            raise missing_package(error, "spark") from None
        active = SparkSession.getActiveSession()
        if active is not None:
            return active, False
        java = os.environ.get("JAVA_HOME")
        if not (shutil.which(f"{java}/bin/java") if java else shutil.which("java")):
            raise EngineError(f"no Java at {java}: {_JAVA}" if java else f"no Java: {_JAVA}")
        builder = SparkSession.builder.appName("slicewatch apply").config("spark.ui.enabled", "false")
        builder = builder.config("spark.ui.showConsoleProgress", "false").config("spark.log.level", "FATAL")
        if self.master is None:
            # Workers are processes of this interpreter, in which a folder of the user cannot shadow our packages.
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
            os.environ.setdefault("PYTHONSAFEPATH", "1")
            for end in ("spark.driver.host", "spark.driver.bindAddress"):
                builder = builder.config(end, "127.0.0.1")
        try:
            session = builder.master(self.master or f"local[{self.workers}]").getOrCreate()
        except _spark_errors() as error:
            raise EngineError(f"Spark does not start: {_summary(error)}; {_JAVA}") from error
        return session, True


def _spark_errors() -> tuple[type[Exception], ...]:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    return PySparkException, Py4JError


def _summary(error: Exception) -> str:
    """Return the first line of an error, and the last one of the worker's traceback in it."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith((" ", "\t"))]
    return " ".join(dict.fromkeys([*lines[:1], *lines[-1:]])) or type(error).__name__


def _codes_of_batches(
    batches: Iterator[pa.RecordBatch], packed: bytes, fault_tolerant: bool
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        part = partition_codes(packed, to_dataframe(batch), fault_tolerant)
        values = [[part.rows], [part.codes], [part.kind], [list(part.faults.items())], [part.error]]
        yield pa.RecordBatch.from_arrays(
            [pa.array(value, kind) for value, kind in zip(values, _CODES.types, strict=True)], schema=_CODES
        )
        if part.error is not None:
            return


def _codes_of_objects(rows: Iterator[Any], packed: bytes, fault_tolerant: bool) -> Iterator[tuple[Any, ...]]:
    while block := list(islice(rows, BLOCK_ROWS)):
        part = partition_codes(packed, block, fault_tolerant)
        yield tuple(part)
        if part.error is not None:
            return


def _outcomes(frames: Iterator[Any], task: PartitionTask, partitions: tuple[Partition, ...]) -> Iterator[Any]:
    import pandas as pd

    for frame in frames:
        for position in frame["id"].tolist():
            counts, problem, is_input = task.outcome(partitions[position])
            saved = None if counts is None else json.dumps(counts)
            yield pd.DataFrame(
                {"position": [position], "counts": [saved], "problem": [problem], "is_input": [is_input]}
            )


def _parsed(counts: str | None, problem: str, is_input: bool) -> PartitionOutcome:
    from sfs.partitioned import PartitionOutcome  # the command has it; workers of the appliers do not need it

    return PartitionOutcome(None if counts is None else json.loads(counts), problem, is_input)
