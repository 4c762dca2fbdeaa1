"""Appliers and engine on Dask: the extra ``slicewatch[dask]``.

Rows stay in the partitions of a Dask data frame. Only codes return, a byte for each row and slicing function.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import ExitStack, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sfs.errors import EngineError, SliceError
from sfs.function import SlicingFunction
from sfs.partitioned import PartitionOutcome, PartitionTask
from sfs.record import is_dataframe
from sfs.remote import RemoteApplier, missing_package, partition_codes
from sfs.tables.partitions import Partition

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DaskEngine", "DaskLFApplier", "DaskSFApplier", "PandasParallelLFApplier", "PandasParallelSFApplier"]

PROCESSES = "processes"


class DaskLFApplier(RemoteApplier):
    """Labelling-function applier for a Dask data frame; see ``sfs.LFApplier``.

    Functions travel by value if they are defined in ``__main__``, such as in a notebook; others by the name of their
    module, or by the path of their file, which workers load and compare.

    Parameters
    ----------
    lfs
        Functions with distinct names.
    """

    _extra = "dask"

    def apply(
        self, df: Any, scheduler: Any = PROCESSES, fault_tolerant: bool = False, return_meta: bool = False
    ) -> Any:
        """Return the results of K functions for N rows, in the order of the partitions.

        Parameters
        ----------
        df
            Dask data frame. A partition is read in the types of the frame's ``dtypes``, whatever its own values: where
            these are whole numbers and the partition lacks some, missing ones are ``NA``.
        scheduler
            ``processes``, ``threads``, ``synchronous``, or a ``distributed.Client``.
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
        """
        if not hasattr(df, "map_partitions"):
            raise SliceError(
                f"expected a Dask data frame, got {type(df).__name__}: use PandasParallelSFApplier for pandas"
            )
        import pandas as pd

        # With meta, Dask does not call functions on rows that it makes up.
        meta = pd.DataFrame({"result": pd.Series([], dtype=object)})
        parts = df.map_partitions(
            _frame_of_codes, self._packed(), tuple(df.dtypes), fault_tolerant, meta=meta, enforce_metadata=False
        )
        return self._joined(parts.compute(scheduler=scheduler)["result"], return_meta)


class DaskSFApplier(DaskLFApplier):
    """Slicing-function applier for a Dask data frame; see ``DaskLFApplier``."""

    _kind = SlicingFunction


class PandasParallelLFApplier(RemoteApplier):
    """Labelling-function applier for a pandas data frame, in several processes; see ``DaskLFApplier``."""

    _extra = "dask"

    def apply(
        self,
        df: pd.DataFrame,
        n_parallel: int = 2,
        scheduler: Any = PROCESSES,
        fault_tolerant: bool = False,
        return_meta: bool = False,
    ) -> Any:
        """Return the results of K functions for N rows, in the frame's order whatever its index.

        Parameters
        ----------
        df
            pandas data frame, which is cut into ``n_parallel`` partitions.
        n_parallel
            Number of partitions, and of processes; at least 2.
        scheduler, fault_tolerant, return_meta
            As in ``DaskLFApplier.apply``.

        Raises
        ------
        ValueError
            If ``n_parallel`` is less than 2.
        Exception
            As in ``DaskLFApplier.apply``.
        EngineError
            If Dask is not installed.
        """
        if n_parallel < 2:
            raise ValueError(f"n_parallel should be >= 2, got {n_parallel}: use PandasSFApplier in a single process")
        if not is_dataframe(df):
            raise SliceError(f"expected a data frame, got {type(df).__name__}: use SFApplier for other rows")
        try:
            import dask
        except ModuleNotFoundError as error:
            raise missing_package(error, "dask") from None
        bounds = np.linspace(0, len(df), n_parallel + 1).astype(int).tolist()
        packed = dask.delayed(self._packed(), name=False)
        call = dask.delayed(partition_codes, pure=False)
        parts = [call(packed, df.iloc[start:stop], fault_tolerant) for start, stop in pairwise(bounds)]
        options = {"num_workers": n_parallel} if scheduler == PROCESSES else {}
        return self._joined(dask.compute(*parts, scheduler=scheduler, **options), return_meta)


class PandasParallelSFApplier(PandasParallelLFApplier):
    """Slicing-function applier for a pandas data frame, in several processes; see ``PandasParallelLFApplier``."""

    _kind = SlicingFunction


class DaskEngine:
    """Runs partitions on the workers of a Dask cluster.

    Parameters
    ----------
    workers
        Number of processes of a cluster on this machine, which ends with the run.
    address
        Address of a running scheduler instead, such as ``tcp://host:8786``.
    """

    def __init__(self, workers: int = 1, address: str | None = None) -> None:
        self.workers, self.address = workers, address

    def run(
        self, task: PartitionTask, partitions: Sequence[Partition]
    ) -> Generator[tuple[int, PartitionOutcome], None, None]:
        """Yield position and outcome of every partition; see ``sfs.partitioned.Engine``."""
        try:
            import distributed
        except ModuleNotFoundError as error:
            raise missing_package(error, "dask") from None
        with ExitStack() as stack:
            try:
                cluster = self.address or stack.enter_context(
                    distributed.LocalCluster(
                        n_workers=min(self.workers, len(partitions)),
                        threads_per_worker=1,
                        dashboard_address=None,
                        silence_logs=logging.ERROR,
                    )
                )
                client = stack.enter_context(distributed.Client(cluster, set_as_default=False))
            except (OSError, ValueError) as error:
                where = f"no Dask scheduler at {self.address}" if self.address else "Dask does not start"
                raise EngineError(f"{where}: {error}") from error
            futures = client.map(_outcome, partitions, task=task, pure=False)
            position = {future.key: place for place, future in enumerate(futures)}
            for future in distributed.as_completed(futures, loop=client.loop):
                try:
                    outcome = future.result()
                except Exception as error:  # the worker ended, or has other packages
                    path = partitions[position[future.key]].path
                    raise EngineError(f"{path}: {type(error).__name__}: {error}") from error
                yield position[future.key], outcome
                future.release()


def _outcome(partition: Partition, task: PartitionTask) -> PartitionOutcome:
    return task.outcome(partition)


def _frame_of_codes(frame: pd.DataFrame, packed: bytes, dtypes: tuple[Any, ...], fault_tolerant: bool) -> pd.DataFrame:
    import pandas as pd

    part = partition_codes(packed, _typed(frame, dtypes), fault_tolerant)
    return pd.DataFrame({"result": pd.Series([part], dtype=object)})


def _typed(frame: pd.DataFrame, dtypes: tuple[Any, ...]) -> pd.DataFrame:
    """Return a partition in the types of the whole frame; a column whose values do not fit stays as it is."""
    import pandas as pd
    from pandas.api import types

    nullable = {"i": "Int64", "u": "UInt64", "b": "boolean"}
    columns = [frame.iloc[:, place] for place in range(frame.shape[1])]
    for place, expected in enumerate(dtypes):
        series = columns[place]
        if series.dtype == expected or types.is_object_dtype(expected):
            continue
        with suppress(TypeError, ValueError):
            is_missing = bool(series.isna().any())
            columns[place] = series.astype(nullable.get(expected.kind, expected) if is_missing else expected)
    if all(column.dtype == found for column, found in zip(columns, frame.dtypes, strict=True)):
        return frame
    typed = pd.concat(columns, axis=1)
    typed.columns = frame.columns
    return typed
