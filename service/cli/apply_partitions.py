"""Partitions of ``slicewatch apply``: a folder of Parquet files, or an engine of several machines."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli.terminal import row_progress
from service.errors import MisuseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.training_rows import DataSource
    from sfs.partitioned import Engine, PartitionedResult
    from sfs.registry import FunctionSet

LOCAL, DASK, SPARK = "local", "dask", "spark"
ENGINES = (LOCAL, DASK, SPARK)
MAX_DEFAULT_WORKERS = 3
"""Maximum number of processes without ``--workers``: each holds a batch of rows."""


def is_partitioned(args: argparse.Namespace) -> bool:
    """Return whether a command is for partitions: a folder with Parquet files, or an engine that is not local.

    Raises
    ------
    MisuseError
        If options do not go together.
    """
    is_folder = args.file.is_dir() and not any(args.file.glob("Youtube*.csv"))
    if is_folder and next(args.file.rglob("*.parquet"), None) is None:
        raise MisuseError(
            f"{args.file} is a folder: pass a file of rows, a folder of Parquet files, or that of the UCI YouTube files"
        )
    if not is_folder and args.engine == LOCAL:
        if args.workers is not None or args.cluster is not None:
            raise MisuseError("--workers and --cluster are for a folder of Parquet files, or for another --engine")
        return False
    if args.cluster is not None and args.engine == LOCAL:
        raise MisuseError("--cluster is the address of a cluster: add --engine dask or --engine spark")
    for option in ("with_predictions", "with_split"):
        if getattr(args, option):
            name = option.replace("_", "-")
            raise MisuseError(
                f"--{name} is for one file with --engine local: a folder and other engines add slices only"
            )
    if args.format not in (None, "parquet"):
        raise MisuseError(f"--format {args.format}: a folder and other engines read Parquet")
    return True


def apply_to_partitions(
    args: argparse.Namespace, source: DataSource, files: Sequence[str], functions: FunctionSet
) -> PartitionedResult:
    """Apply functions of files to the partitions of a source; results go to the folder ``--out``."""
    from sfs.partitioned import PartitionTask, apply_partitions
    from sfs.tables import input_format
    from sfs.tables.partitions import PartitionedTable

    if source.path.is_file() and input_format(source.path, args.format or "table") != ".parquet":
        raise MisuseError(
            f"{source.path}: --engine {args.engine} reads Parquet: write it as Parquet, or use --engine local"
        )
    table = PartitionedTable.open(source.path)
    task = PartitionTask(
        # another process may have another folder
        tuple(str(Path(file).resolve()) if Path(file).suffix in (".py", ".yaml", ".yml") else file for file in files),
        functions.hash,
        table.schema,
        source.schema,
        source.text,
        source.label,
        None if args.out is None else args.out.resolve(),
    )
    with row_progress("apply", table.rows) as progress:
        return apply_partitions(task, table, _engine(args), progress)


def partitions_json(result: PartitionedResult) -> dict[str, Any]:
    """Return the numbers of partitions, for ``--json``."""
    return {"computed": result.computed, "resumed": result.resumed}


def partitions_text(result: PartitionedResult) -> str:
    """Return the numbers of partitions as a sentence."""
    count = result.computed + result.resumed
    resumed = f", {result.resumed:,} of them by an earlier run" if result.resumed else ""
    return f"{count:,} partition{'s' * (count != 1)}{resumed}"


def _engine(args: argparse.Namespace) -> Engine:
    workers = args.workers or min(len(os.sched_getaffinity(0)), MAX_DEFAULT_WORKERS)
    if args.engine == DASK:
        from sfs.dask import DaskEngine

        return DaskEngine(workers, args.cluster)
    if args.engine == SPARK:
        from sfs.spark import SparkEngine

        return SparkEngine(workers, args.cluster)
    from sfs.local import LocalEngine

    return LocalEngine(workers)
