"""Past traffic in order of time: blocks of counts and first labels, of a file of rows or counts, or of the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from sqlalchemy import Connection

from service.decisions import RateKey
from service.errors import MisuseError
from service.events import Counts, FunctionSetVersion
from service.jobs.drift_observations import known_sets
from service.monitor.block_counts import BoolMatrix, unpack_bitmaps
from service.monitor.windows import BLOCK_SECONDS
from service.store import queries
from service.store.labels import FirstLabel, first_labels, last_first_label
from service.store.tables import from_us, to_us
from sfs.record import none_if_missing

if TYPE_CHECKING:
    import pandas as pd

    from models.features import FeatureSpec
    from models.training_rows import DataSource
    from sfs.registry import FunctionSet

START, KNOWN = "start", "known"
"""Columns of a table of counts, beside one per slice."""

LONGEST_BLOCK = 3600
"""Seconds of the longest block: the season is one of hours."""

_BLOCK_US = BLOCK_SECONDS[0] * 1_000_000
_CELLS = 2_000_000  # counts read at once
_ROWS = 20_000  # rows of the log read at once
_LABELS = 20_000


@dataclass(frozen=True, eq=False, slots=True)
class CountedBlock:
    """Members, known and unknown rows of K slices in one block, int64[K] each."""

    start: datetime
    end: datetime
    member: Counts
    known: Counts
    unknown: Counts


@dataclass(frozen=True, eq=False, slots=True)
class TrafficPart:
    """Next part of past traffic.

    Parameters
    ----------
    rows
        Rows that were read.
    blocks, labels
        Blocks that are complete, and labels that arrived until then, in order of time.
    member
        Members of the slices, bool[rows, K]; None for counts.
    """

    rows: int
    blocks: Sequence[CountedBlock]
    labels: Sequence[FirstLabel] = ()
    member: BoolMatrix | None = None


class PastTraffic(Protocol):
    """Traffic of K slices that can be read once."""

    @property
    def slices(self) -> Sequence[RateKey]:
        """The slices."""

    @property
    def sets(self) -> Mapping[str, FunctionSetVersion]:
        """Function sets of the labels."""

    @property
    def has_labels(self) -> bool:
        """Whether there are labels."""

    def parts(self) -> Iterator[TrafficPart]:
        """Yield the parts in order of time."""

    def total(self) -> int | None:
        """Return the number of rows for a progress bar; None if it is not known."""


class BlockCounter:
    """Counts rows, in order of time, into blocks of ten seconds."""

    def __init__(self) -> None:
        self._open: tuple[int, Counts] | None = None  # number of the last block, and its counts, int64[3, K]

    def add(self, at_us: Counts, *columns: BoolMatrix) -> list[CountedBlock]:
        """Add N rows with their times in microseconds, and return the blocks that are complete.

        ``columns`` are bool[N, K]: members, known and unknown rows.
        """
        if not len(at_us):
            return []
        index = at_us // _BLOCK_US
        starts = np.flatnonzero(np.diff(index, prepend=index[0] - 1))
        sums = np.stack([np.add.reduceat(each, starts, axis=0, dtype=np.int64) for each in columns], axis=1)
        numbers = index[starts].tolist()
        done: list[CountedBlock] = []
        for number, counts in zip(numbers, sums, strict=True):
            if self._open is not None and self._open[0] == number:
                self._open = number, self._open[1] + counts
            else:
                done += self.end()
                self._open = number, counts
        return done

    def end(self) -> list[CountedBlock]:
        """Return the last block, if there is one."""
        if self._open is None:
            return []
        (number, counts), self._open = self._open, None
        start = from_us(number * _BLOCK_US)
        return [CountedBlock(start, start + timedelta(seconds=BLOCK_SECONDS[0]), *counts)]


@dataclass(slots=True)
class CountsFile:
    """Table of counts: a row per block with its start, the known rows, and the members of every slice.

    Without ``block_seconds`` the length of a block is the least distance between two starts at the beginning of
    the file.
    """

    path: Path
    format: str
    slices: Sequence[RateKey]
    block_seconds: int | None = None
    sets: Mapping[str, FunctionSetVersion] = field(default_factory=dict)
    has_labels: bool = False

    def total(self) -> int | None:
        """Return the number of blocks."""
        from sfs.tables import count_rows

        return count_rows(self.path, self.format)

    def parts(self) -> Iterator[TrafficPart]:
        """Yield the blocks.

        Raises
        ------
        MisuseError
            If a start is no time, blocks overlap or are not in order, or members are not among the known rows.
        """
        from sfs.tables import read_batches

        names = [key.slice for key in self.slices]
        batch_rows = min(max(_CELLS // len(names), 100), 50_000)
        first, last = 0, -1
        for frame in read_batches(self.path, batch_rows, [START, KNOWN, *names], format=self.format):
            at_us = times_us(frame[START], START, self.path, first)
            known, member = (_integers(frame, columns, self.path, first) for columns in ([KNOWN], names))
            length = self._length(at_us) * 1_000_000
            self._check(at_us, last, length, known, member, first)
            nothing = np.zeros(len(names), np.int64)
            blocks = [
                CountedBlock(from_us(at), from_us(at + length), row, np.broadcast_to(n, row.shape), nothing)
                for at, row, n in zip(at_us.tolist(), member, known, strict=True)
            ]
            yield TrafficPart(len(frame), blocks)
            first, last = first + len(frame), int(at_us[-1])

    def _length(self, at_us: Counts) -> int:
        """Return the seconds of a block."""
        if self.block_seconds is None:
            apart = np.diff(at_us)
            later = apart[apart > 0]
            self.block_seconds = max(1, int(later.min()) // 1_000_000) if later.size else BLOCK_SECONDS[0]
        if self.block_seconds > LONGEST_BLOCK:
            raise MisuseError(
                f"{self.path}: the starts are more than an hour apart: count in blocks of at most an hour, since "
                "the season is one of hours; name the length of sparse blocks with --block-seconds"
            )
        return self.block_seconds

    def _check(self, at_us: Counts, last: int, length: int, known: Counts, member: Counts, first: int) -> None:
        apart = np.diff(at_us, prepend=last if last >= 0 else at_us[0] - length)
        if (apart < length).any():
            row = int(np.argmax(apart < length))
            at = from_us(int(at_us[row])).isoformat()
            fault = "is not after" if apart[row] <= 0 else f"overlaps, at {length // 1_000_000} s a block, with"
            raise MisuseError(
                f"{self.path}, row {first + row}: the block at {at} {fault} the one before: sort the blocks by "
                "their start, add up those of one time, or name their length with --block-seconds"
            )
        wrong = (member < 0) | (member > known)
        if wrong.any():
            row, k = divmod(int(np.argmax(wrong)), len(self.slices))
            raise MisuseError(
                f"{self.path}, row {first + row}: slice {self.slices[k].slice!r} has {member[row, k]:,} members of "
                f"{known[row, 0]:,} known rows: expected 0 to {max(known[row, 0], 0):,}"
            )


@dataclass(frozen=True, slots=True)
class RowColumns:
    """Columns of a file of rows: time, and optionally predicted class, label, and arrival of the label."""

    time: str
    predicted: str | None = None
    label: str | None = None
    label_time: str | None = None


class RowsFile:
    """File of rows to which slicing functions are applied."""

    def __init__(
        self,
        source: DataSource,
        functions: FunctionSet,
        columns: RowColumns,
        classes: Sequence[str] = (),
        features: Sequence[FeatureSpec] = (),
    ) -> None:
        self.source, self.functions, self.columns, self.features = source, functions, columns, features
        self.slices = [RateKey(*pair, "coverage") for pair in functions.fingerprints.items()]
        prints = tuple(functions.fingerprints.values())
        own = FunctionSetVersion(functions.hash, functions.names, prints, datetime.min.replace(tzinfo=UTC))
        self.sets = {own.hash: own}
        self.has_labels = columns.predicted is not None
        self._classes = classes
        self._waiting: list[tuple[int, int, FirstLabel]] = []  # a heap, by arrival

    def total(self) -> int | None:
        """Return the number of rows; None where counting is not cheap."""
        return self.source.total()

    def parts(self) -> Iterator[TrafficPart]:
        """Yield the rows in parts.

        Raises
        ------
        MisuseError
            If a time is missing or unreadable, or the rows are not in order of time.
        """
        from sfs.apply import apply_with_stats

        counter, first, last = BlockCounter(), 0, -1
        for frame in self.source.batches():
            at_us = times_us(frame[self.columns.time], self.columns.time, self.source.path, first)
            back = np.diff(at_us, prepend=last) < 0
            if back.any():
                row = int(np.argmax(back))
                raise MisuseError(
                    f"{self.source.path}, row {first + row}: {from_us(int(at_us[row])).isoformat()} is before the row "
                    f"above: sort the file by {self.columns.time!r}, such as by frame.sort_values of pandas"
                )
            S = apply_with_stats(self.functions, self.source.visible(frame)).matrix
            if self.has_labels:
                self._take_labels(frame, at_us, S.member, S.unknown, first)
            blocks = counter.add(at_us, S.member, ~S.unknown, S.unknown)
            first, last = first + len(frame), int(at_us[-1])
            yield TrafficPart(len(frame), blocks, self._arrived(last // _BLOCK_US * _BLOCK_US), S.member)
        yield TrafficPart(0, counter.end(), self._arrived(None))

    def _take_labels(
        self, frame: pd.DataFrame, at_us: Counts, member: BoolMatrix, unknown: BoolMatrix, first: int
    ) -> None:
        from models.errors import DataError
        from models.splits import content_hashes

        columns = self.columns
        predicted = self._texts(frame, columns.predicted, first)
        labels = self._texts(frame, columns.label, first)
        arrived = at_us
        if columns.label_time is not None:
            given = frame[columns.label_time]
            there = ~given.isna().to_numpy()
            labels = [label if is_there else None for label, is_there in zip(labels, there.tolist(), strict=True)]
            arrived = at_us.copy()
            arrived[there] = times_us(given[there], columns.label_time, self.source.path, first)
        contents = np.arange(first, first + len(frame))
        with suppress(DataError):
            if self.features:
                contents = content_hashes(frame, self.features).view(np.int64)
        bits = [np.packbits(each, axis=1, bitorder="little") for each in (member, unknown)]
        for row in [k for k, pair in enumerate(zip(labels, predicted, strict=True)) if None not in pair]:
            at = max(int(arrived[row]), int(at_us[row]))
            number = first + row
            inside, unclear = (each[row].tobytes() for each in bits)
            label = FirstLabel(
                number, from_us(at), 0, self.functions.hash, str(predicted[row]), str(labels[row]), inside, unclear,
                int(contents[row]), number,
            )  # fmt: skip
            heappush(self._waiting, (at, number, label))

    def _texts(self, frame: pd.DataFrame, column: str | None, first: int) -> list[str | None]:
        """Return the classes in a column, None where it is blank."""
        from models.column_encoders import as_text
        from sfs.record import Columns
        from sfs.schema import ClassReader, normalize

        reader = ClassReader(self._classes)
        read: list[str | None] = []
        for row, value in enumerate(Columns(frame).column(str(column))):
            text = as_text(value, str(column), first + row)
            if text is None or not text.strip():
                read.append(None)
                continue
            name = reader.read(text) if self._classes else normalize(text)
            if name is None:
                listed = ", ".join(map(repr, self._classes[:20]))
                raise MisuseError(
                    f"{self.source.path}, row {first + row}: {text!r:.60} in column {column!r} is not a class; the "
                    f"classes are {listed}"
                )
            read.append(name)
        return read

    def _arrived(self, before_us: int | None) -> list[FirstLabel]:
        """Return the labels that arrived before a time, or all, in order of arrival."""
        arrived = []
        while self._waiting and (before_us is None or self._waiting[0][0] < before_us):
            arrived.append(heappop(self._waiting)[-1])
        return arrived


class LoggedTraffic:
    """Rows and labels of a model version in the log, from a time until another; labels as of ``settling`` later."""

    has_labels = True

    def __init__(
        self,
        connection: Connection,
        model: str,
        version: int,
        since: datetime,
        until: datetime,
        settling: timedelta = timedelta(0),
    ) -> None:
        self._connection, self._model, self.version, self._settling = connection, model, version, settling
        self._since, self._until = since, until
        hashes = queries.logged_sets(connection, model, version, since, until)
        self.sets = known_sets(connection, hashes)
        keys = [key for hash_ in hashes for key in self._keys(hash_)]
        self.slices: list[RateKey] = list(dict.fromkeys(keys))
        self._place = {key: k for k, key in enumerate(self.slices)}

    def total(self) -> int | None:
        """Return None: rows of the log are counted while they are read."""
        return None

    def parts(self) -> Iterator[TrafficPart]:
        """Yield the rows in parts."""
        counter, labels = BlockCounter(), self._labels()
        label = next(labels, None)
        for rows in queries.logged_memberships(
            self._connection, self._model, self.version, self._since, self._until, _ROWS
        ):
            at_us = np.array([to_us(row.at) for row in rows], np.int64)
            columns = self._columns(rows)
            blocks = counter.add(at_us, *columns)
            arrived = []
            while label is not None and to_us(label.at) < at_us[-1] // _BLOCK_US * _BLOCK_US:
                arrived.append(label)
                label = next(labels, None)
            yield TrafficPart(len(rows), blocks, arrived, columns[0])
        rest = [] if label is None else [label, *labels]
        yield TrafficPart(0, counter.end(), [each for each in rest if each.at < self._until])

    def _keys(self, set_hash: str) -> list[RateKey]:
        functions = self.sets[set_hash]
        return [RateKey(*pair, "coverage") for pair in zip(functions.names, functions.fingerprints, strict=True)]

    def _columns(self, rows: Sequence[queries.Membership]) -> tuple[BoolMatrix, BoolMatrix, BoolMatrix]:
        """Return members, known and unknown rows, bool[N, K]; rows of another function of the name are neither."""
        member, known, unknown = np.zeros((3, len(rows), len(self.slices)), np.bool_)
        hashes = np.array([row.set_hash for row in rows])
        for set_hash in dict.fromkeys(hashes.tolist()):
            chosen, keys = np.flatnonzero(hashes == set_hash), self._keys(set_hash)
            at = np.ix_(chosen, np.array([self._place[key] for key in keys], np.intp))
            member[at], unknown[at] = (
                unpack_bitmaps([getattr(rows[row], name) for row in chosen.tolist()], len(keys))
                for name in ("member", "unknown")
            )
            known[at] = ~unknown[at]
        return member, known, unknown

    def _labels(self) -> Iterator[FirstLabel]:
        seq = last_first_label(self._connection, self._model, before=self._since)
        while part := first_labels(self._connection, self._model, seq, _LABELS, self._settling):
            yield from (label for label in part if label.version == self.version)
            seq = part[-1].seq


def times_us(values: pd.Series[Any], column: str, path: Path, first: int) -> Counts:
    """Return times as microseconds since 1970, int64[N]; those without a zone are UTC.

    Parameters
    ----------
    values
        Timestamps, or text in ISO 8601.
    column, path, first
        Column and file, and the number of the first row, for errors.

    Raises
    ------
    MisuseError
        If a time is missing, or no time after 1970.
    """
    from models.table_season import utc_times

    times = utc_times(values)
    at_us = times.dt.as_unit("us").astype("int64").to_numpy()
    wrong = times.isna().to_numpy() | (at_us <= 0)
    if wrong.any():
        row = int(np.argmax(wrong))
        label, value = values.index[row], none_if_missing(values.tolist()[row])
        raise MisuseError(
            f"{path}, row {first + int(label)}: column {column!r} has {value!r:.60}: expected a time such as "
            "2026-05-01T12:00:00Z"
        )
    return np.asarray(at_us, np.int64)


def _integers(frame: pd.DataFrame, names: Sequence[str], path: Path, first: int) -> Counts:
    """Return whole numbers of some columns, int64[N, K]."""
    import pandas as pd

    values = frame[list(names)].to_numpy()
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    for name in names:
        numbers = pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        wrong = ~(np.floor(numbers) == numbers)
        if wrong.any():
            row = int(np.argmax(wrong))
            value = none_if_missing(frame[name].tolist()[row])
            raise MisuseError(
                f"{path}, row {first + row}: column {name!r} has {value!r:.60}: expected a whole number of rows"
            )
    return values.astype(np.float64).astype(np.int64)
