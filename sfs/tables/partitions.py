"""Partitions of a Parquet file, or of a folder of Parquet files, that are read with one type per column."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from sfs.errors import UnreadableFile

SUFFIX = ".parquet"
PARTITION_ROWS = 1_000_000
"""Maximum number of rows of a partition; one row group may have more."""

_BUFFER_BYTES = 1 << 20  # a column chunk is read in such pieces, not as a whole
_MAGIC_BYTES = 8  # length of the footer, and PAR1


@dataclass(frozen=True, slots=True)
class Partition:
    """Consecutive row groups of one Parquet file.

    Parameters
    ----------
    name
        Relative path of the partition's result, with the suffix of Parquet; distinct in a table.
    path
        File, absolute.
    groups
        Positions of the row groups in the file.
    first_row
        Position of the first row in the file.
    rows
        Number of rows; may be 0.
    digest
        SHA-256 of the size, the time of change and the footer of the file, in hexadecimal.
    changed
        Size in bytes and time of change in nanoseconds of the file.
    """

    name: str
    path: str
    groups: tuple[int, ...]
    first_row: int
    rows: int
    digest: str
    changed: tuple[int, int]


@dataclass(frozen=True, slots=True)
class PartitionedTable:
    """Parquet file, or folder of Parquet files, as partitions with one schema.

    Parameters
    ----------
    path
        The file or folder.
    schema
        Columns of all files, in the order of their first occurrence. A type holds the values of every file: whole
        numbers in one file and floats in another are floats. A column that has no value in a file takes the type
        of the others, and a column that a file lacks is missing there.
    partitions
        Partitions in the order of their files' names.
    """

    path: Path
    schema: pa.Schema
    partitions: tuple[Partition, ...]

    @property
    def rows(self) -> int:
        """Number of rows of all partitions."""
        return sum(partition.rows for partition in self.partitions)

    @classmethod
    def open(cls, path: str | Path, partition_rows: int = PARTITION_ROWS) -> PartitionedTable:
        """Read the footers of a Parquet file, or of all Parquet files in a folder and its folders.

        Names that begin with ``.`` or ``_`` are left out. A file of more than ``partition_rows`` rows becomes several
        partitions at its row groups.

        Raises
        ------
        UnreadableFile
            If there is no file, a file is no Parquet file, there are no rows, or the files have a column in types
            that have no common one.
        """
        root = Path(path).resolve()
        files = _files(root)
        if not files:
            raise UnreadableFile(f"{path} has no Parquet files: expected names that end in {SUFFIX}")
        folder = root if root.is_dir() else root.parent
        footers = [_Footer.read(file) for file in files]
        partitions = [
            each
            for file, footer in zip(files, footers, strict=True)
            for each in footer.partitions(file, file.relative_to(folder), partition_rows)
        ]
        if twice := [name for name, count in Counter(each.name for each in partitions).items() if count > 1]:
            raise UnreadableFile(f"{path}: two partitions would be named {twice[0]}: rename a file")
        table = cls(Path(path), _common_schema(files, footers), tuple(partitions))
        if not table.rows:
            names = ", ".join(map(repr, table.schema.names))
            raise UnreadableFile(f"{path} has columns but no rows: columns are {names}")
        return table


def partition_batches(partition: Partition, schema: pa.Schema, batch_rows: int = 50_000) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a partition in order, at most ``batch_rows`` at a time, in the columns and types of a schema.

    Raises
    ------
    UnreadableFile
        If the file has changed since its footer was read, cannot be read, or has a value that the type of its column
        cannot hold exactly, such as a whole number beyond 2**53 in a column of floats.
    """
    file = Path(partition.path)
    _require_unchanged(partition)
    try:
        with parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False) as opened:
            present = [name for name in schema.names if name in opened.schema_arrow.names]
            for batch in opened.iter_batches(batch_rows, row_groups=list(partition.groups), columns=present):
                if len(batch):
                    yield _converted(batch, schema, file)
    except (pa.ArrowInvalid, OSError) as error:
        raise UnreadableFile(f"{file} cannot be read: {error}") from error
    _require_unchanged(partition)


def _converted(batch: pa.RecordBatch, schema: pa.Schema, file: Path) -> pa.RecordBatch:
    columns = []
    for field in schema:
        place = batch.schema.get_field_index(field.name)
        if place < 0:
            columns.append(pa.nulls(len(batch), field.type))
            continue
        column = batch.column(place)
        try:
            columns.append(column if column.type == field.type else column.cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UnreadableFile(
                f"{file}, column {field.name!r}: {error}: other files have it as {field.type}, this one as "
                f"{column.type}; write it with one type"
            ) from error
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _require_unchanged(partition: Partition) -> None:
    file = Path(partition.path)
    if _changed(file) != partition.changed:
        raise UnreadableFile(f"{file} has changed while it was read: run the command again")


def _changed(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError as error:
        raise UnreadableFile(f"{file}: cannot be read: {error.strerror or error}") from None
    return found.st_size, found.st_mtime_ns


def _files(root: Path) -> list[Path]:
    if not root.is_dir():
        return [root]
    found = [path for path in root.rglob(f"*{SUFFIX}") if path.is_file()]
    return sorted(path for path in found if not any(part[0] in "._" for part in path.relative_to(root).parts))


@dataclass(frozen=True, slots=True)
class _Footer:
    """Metadata of a Parquet file; ``schema`` has plain types in the place of dictionaries."""

    schema: pa.Schema
    metadata: Any
    digest: str
    changed: tuple[int, int]

    @classmethod
    def read(cls, file: Path) -> _Footer:
        changed = _changed(file)
        try:
            with file.open("rb") as stream:
                stream.seek(-_MAGIC_BYTES, os.SEEK_END)
                length = int.from_bytes(stream.read(_MAGIC_BYTES)[:4], "little")
                stream.seek(-min(length + _MAGIC_BYTES, changed[0]), os.SEEK_END)
                footer = stream.read()
            with parquet.ParquetFile(file) as opened:
                schema, metadata = opened.schema_arrow, opened.metadata
        except (pa.ArrowInvalid, OSError) as error:
            raise UnreadableFile(f"{file} is not a Parquet file: {error}") from error
        if twice := [name for name, count in Counter(schema.names).items() if count > 1]:
            raise UnreadableFile(f"{file}: column {twice[0]!r} appears more than once: rename one of them")
        plain = pa.schema([field.with_type(_plain(field.type)).with_nullable(True) for field in schema])
        digest = hashlib.sha256(f"{changed} ".encode() + footer).hexdigest()
        return cls(plain, metadata, digest, changed)

    def partitions(self, file: Path, relative: Path, partition_rows: int) -> Iterator[Partition]:
        sizes = [self.metadata.row_group(k).num_rows for k in range(self.metadata.num_row_groups)]
        parts: list[list[int]] = [[]]
        for group, size in enumerate(sizes):
            if parts[-1] and sum(sizes[k] for k in parts[-1]) + size > partition_rows:
                parts.append([])
            parts[-1].append(group)
        first_row = 0
        for number, groups in enumerate(parts):
            name = relative if len(parts) == 1 else relative.with_name(f"{relative.stem}-{number:05d}{SUFFIX}")
            rows = sum(sizes[k] for k in groups)
            # Each has the digest of the whole file: a changed file is computed again as a whole.
            yield Partition(
                name.with_suffix(SUFFIX).as_posix(),
                str(file),
                tuple(groups),
                first_row,
                rows,
                self.digest,
                self.changed,
            )
            first_row += rows

    def has_values(self, name: str) -> bool:
        """Return False if a column has no value, by its type or by its statistics."""
        kind = self.schema.field(name).type
        if pa.types.is_null(kind):
            return False
        for k in range(self.metadata.num_row_groups):
            group = self.metadata.row_group(k)
            for j in range(group.num_columns):
                column = group.column(j)
                if column.path_in_schema != name:
                    continue
                statistics = column.statistics
                known = statistics is not None and statistics.has_null_count
                if not known or statistics.null_count < column.num_values:
                    return True
        return bool(self.metadata.num_rows and pa.types.is_nested(kind))  # its statistics are those of its elements


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _common_schema(files: Sequence[Path], footers: Sequence[_Footer]) -> pa.Schema:
    names = dict.fromkeys(name for footer in footers for name in footer.schema.names)
    return pa.schema([pa.field(name, _common_type(name, files, footers)) for name in names])


def _common_type(name: str, files: Sequence[Path], footers: Sequence[_Footer]) -> pa.DataType:
    having = [(file, footer) for file, footer in zip(files, footers, strict=True) if name in footer.schema.names]
    kinds: dict[pa.DataType, Path] = {}
    for file, footer in having:
        kinds.setdefault(footer.schema.field(name).type, file)
    if len(kinds) > 1:
        # pandas writes a column without a value as text, as floats, or without a type
        used = {footer.schema.field(name).type for _, footer in having if footer.has_values(name)}
        kinds = {kind: file for kind, file in kinds.items() if kind in used} or kinds
    common, first = next(iter(kinds.items()))
    for kind, file in kinds.items():
        try:
            schemas = [pa.schema([(name, each)]) for each in (common, kind)]
            common = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
        except (pa.ArrowTypeError, pa.ArrowInvalid):
            raise UnreadableFile(
                f"column {name!r} is {common} in {first}, but {kind} in {file}: write it with one type"
            ) from None
    return common
