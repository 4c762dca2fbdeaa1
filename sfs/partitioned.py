"""Application of functions to the partitions of a table, each by itself, in any process; an ended run is resumed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

import pyarrow as pa
from pyarrow import parquet

from sfs.apply import apply_with_stats
from sfs.counts import ApplyCounts
from sfs.errors import EngineError, InvalidFunction, SliceError
from sfs.matrix import SliceMatrix
from sfs.registry import FunctionSet
from sfs.schema import Schema
from sfs.tables.formats import to_dataframe
from sfs.tables.partitions import SUFFIX, Partition, PartitionedTable, partition_batches

_FORMAT = 1
_METADATA = b"slicewatch"
_UNFINISHED = ".tmp"


class PartitionOutcome(NamedTuple):
    """Result of one partition: the counts as JSON values, or the reason why there are none.

    Parameters
    ----------
    counts
        As of ``ApplyCounts.to_json``; None if the partition failed.
    problem
        Message of the error.
    is_input
        Whether the error is one of the rows or functions.
    """

    counts: dict[str, Any] | None
    problem: str = ""
    is_input: bool = False


@dataclass(frozen=True, slots=True)
class PartitionTask:
    """Application of a set of functions to partitions of one table, as it is sent to workers.

    Parameters
    ----------
    functions
        Files and modules, as of ``FunctionSet.from_files``, that a worker loads.
    functions_hash
        Hash of the function set; a worker that loads another set refuses to work.
    table
        Columns and types of the table.
    columns
        Types by which functions read the columns.
    text
        Columns that functions read as text.
    label
        Column that functions do not see, or None.
    out
        Folder of the results, or None to count only.
    """

    functions: tuple[str, ...]
    functions_hash: str
    table: pa.Schema
    columns: Schema
    text: tuple[str, ...] = ()
    label: str | None = None
    out: Path | None = None

    def run(self, partition: Partition) -> ApplyCounts:
        """Apply the functions to one partition, write its result, and return the counts.

        The result has the columns of the partition and one of booleans per slice, null for unknown. It replaces a
        former result at once; an error, or the end of the process, leaves the former one.

        Raises
        ------
        SliceError
            If the functions have changed, or the partition cannot be read.
        """
        functions = _load(self.functions, self.functions_hash)
        counts = ApplyCounts(functions.names)
        with redirect_stdout(sys.stderr):  # stdout is the document of a command
            if self.out is None:
                for _ in self._sliced(partition, functions, counts):
                    pass
            else:
                self._write(partition, functions, counts, self.out / partition.name)
        return counts

    def outcome(self, partition: Partition) -> PartitionOutcome:
        """Run, and return the counts or the error."""
        try:
            return PartitionOutcome(self.run(partition).to_json())
        except SliceError as error:
            return PartitionOutcome(None, str(error), is_input=True)
        except Exception as error:
            return PartitionOutcome(None, f"{partition.path}: {type(error).__name__}: {error}")

    def finished(self, partition: Partition) -> ApplyCounts | None:
        """Return the counts of a partition whose result is there; None if it is not, or is that of other input."""
        if self.out is None:
            return None
        saved = _metadata_of(self.out / partition.name)
        is_same = saved is not None and saved.get("key") == self._key(partition)
        return ApplyCounts.from_json(saved["counts"]) if saved is not None and is_same else None

    def _key(self, partition: Partition) -> str:
        """Return the SHA-256 of all that the result depends on."""
        fields = [[field.name, str(field.type)] for field in self.table]
        parts = [_FORMAT, self.functions_hash, fields, self.columns.to_json(), sorted(self.text), self.label]
        parts += [partition.digest, partition.groups]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _sliced(
        self, partition: Partition, functions: FunctionSet, counts: ApplyCounts
    ) -> Iterator[tuple[pa.RecordBatch, SliceMatrix]]:
        for batch in partition_batches(partition, self.table):
            frame = self.columns.parse_frame(to_dataframe(batch, self.text))
            if self.label is not None:
                frame = frame.loc[:, [name != self.label for name in frame.columns]]
            applied = apply_with_stats(functions, frame)
            counts.add(applied)
            yield batch, applied.matrix

    def _write(self, partition: Partition, functions: FunctionSet, counts: ApplyCounts, file: Path) -> None:
        slices = [pa.field(name, pa.bool_()) for name in functions.names]
        # A column of no type can be written, but not read by every program.
        fields = [field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in self.table]
        schema = pa.schema([*fields, *slices])
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f".{file.name}.{uuid4().hex}{_UNFINISHED}")
        try:
            with parquet.ParquetWriter(unfinished, schema) as writer:
                for batch, S in self._sliced(partition, functions, counts):
                    columns = [c.cast(f.type) for c, f in zip(batch.columns, fields, strict=True)]
                    columns += [pa.array(S.member[:, k], mask=S.unknown[:, k]) for k in range(len(slices))]
                    writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
                saved = {"key": self._key(partition), "counts": counts.to_json()}
                writer.add_key_value_metadata({_METADATA: json.dumps(saved)})
            unfinished.replace(file)
        finally:
            unfinished.unlink(missing_ok=True)
            pa.default_memory_pool().release_unused()


class Engine(Protocol):
    """Runs a task on partitions, on one machine or on many."""

    def run(
        self, task: PartitionTask, partitions: Sequence[Partition]
    ) -> Generator[tuple[int, PartitionOutcome], None, None]:
        """Yield position and outcome of every partition, in any order; end all work when the generator is closed.

        Raises
        ------
        EngineError
            If the engine cannot run.
        """


@dataclass(frozen=True, slots=True)
class PartitionedResult:
    """Counts of all partitions, and the number of those that were computed, and that were there before."""

    counts: ApplyCounts
    computed: int
    resumed: int


def apply_partitions(
    task: PartitionTask, table: PartitionedTable, engine: Engine, progress: Callable[[int], object] | None = None
) -> PartitionedResult:
    """Apply functions to all partitions of a table, but for those whose results are there.

    Results of partitions that the table no longer has are removed. Rows stay with the workers.

    Parameters
    ----------
    task
        Functions, and the folder of the results.
    table
        The partitions.
    engine
        Where they are computed.
    progress
        Callback with the number of rows completed since the last call.

    Raises
    ------
    SliceError
        If a slice has the name of a column, the folder has other Parquet files, or a partition cannot be read. The
        finished partitions are kept, and the next run goes on with the others.
    EngineError
        If the engine cannot run, or a worker failed.
    """
    names = _load(task.functions, task.functions_hash).names
    if both := sorted({*names} & {*table.schema.names}):
        raise SliceError(f"two columns would be named {both}: rename the slices, or the columns of the file")
    found: dict[int, ApplyCounts] = {}
    with _results_folder(task.out, table):
        for position, partition in enumerate(table.partitions):
            if (counts := task.finished(partition)) is not None:
                found[position] = counts
        resumed = len(found)
        if progress is not None:
            progress(sum(counts.rows for counts in found.values()))
        left = [position for position in range(len(table.partitions)) if position not in found]
        if left:
            with closing(engine.run(task, [table.partitions[position] for position in left])) as outcomes:
                for place, outcome in outcomes:
                    if outcome.counts is None:
                        raise (SliceError if outcome.is_input else EngineError)(outcome.problem)
                    found[left[place]] = ApplyCounts.from_json(outcome.counts)
                    if progress is not None:
                        progress(found[left[place]].rows)
        if task.out is not None:
            _remove_other_results(task.out, {partition.name for partition in table.partitions})
    total = ApplyCounts(names)
    for position, partition in enumerate(table.partitions):
        total.merge(found[position], Path(partition.path).name, partition.first_row)
    return PartitionedResult(total, len(left), resumed)


@lru_cache(maxsize=4)  # a worker keeps the functions, and with them the memoized results
def _load(files: tuple[str, ...], expected: str) -> FunctionSet:
    functions = FunctionSet.from_files(files)
    if functions.hash != expected:
        raise InvalidFunction(
            f"the functions of {', '.join(files)} have changed since the run began, or are others on a worker: run "
            "the command again, and give every worker the same files and packages"
        )
    return functions


@contextmanager
def _results_folder(out: Path | None, table: PartitionedTable) -> Iterator[None]:
    """Create the folder of the results, and hold a lock on it."""
    if out is None:
        yield
        return
    source, folder = table.path.resolve(), out.resolve()
    if source.is_relative_to(folder) or (source.is_dir() and folder.is_relative_to(source)):
        raise SliceError(f"{out} and {table.path} overlap: results need a folder of their own")
    if folder.exists() and not folder.is_dir():
        raise SliceError(f"{out} is a file: results of partitions need a folder")
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.rglob(f"*{SUFFIX}"):
        if not file.name.startswith(".") and _metadata_of(file) is None:
            raise SliceError(f"{file} is no result of this command: name another folder, or an empty one")
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SliceError(f"another run writes to {out}: wait for its end") from None
        except OSError:
            pass  # a file system without locks: results are still whole, each by itself
        try:
            yield
        finally:
            for file in folder.rglob(f".*{SUFFIX}.*{_UNFINISHED}"):  # of killed workers, now or in an earlier run
                file.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _remove_other_results(out: Path, names: set[str]) -> None:
    """Remove the results of partitions that the table no longer has."""
    for file in out.rglob(f"*{SUFFIX}"):
        if file.relative_to(out).as_posix() not in names:
            file.unlink(missing_ok=True)


def _metadata_of(file: Path) -> dict[str, Any] | None:
    """Return key and counts in the footer of a result; None for any other file."""
    with suppress(OSError, pa.ArrowInvalid, ValueError):
        found = parquet.read_metadata(file).metadata or {}
        if _METADATA in found:
            saved: dict[str, Any] = json.loads(found[_METADATA])
            return saved
    return None
