"""Blocks of counts, made from rows."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from service.events import EXTRA_COLUMNS, BlockCounts, Counts, FunctionSetVersion, Prediction

BoolMatrix = NDArray[np.bool_]


def count(
    predictions: Sequence[Prediction],
    labels: Mapping[str, str],
    slices: int,
    start: datetime,
    seconds: int,
    votes: Sequence[int] = (),
) -> BlockCounts:
    """Return the counts of the rows of one block; the rows name its model, version and function set.

    Parameters
    ----------
    predictions
        At least one row; all of one series, and answered in [start, start + seconds).
    labels
        Prediction id to its current true class; ids of other rows do no harm.
    slices
        K, the number of functions in the set.
    votes
        Which of the K are labelling functions, which "no slice fired" does not ask.

    Raises
    ------
    ValueError
        If there are no rows, or one of them belongs elsewhere.
    """
    if not predictions:
        raise ValueError("a block without rows names no model: use blocks.empty")
    first = predictions[0]
    block = empty(first.model, first.version, first.set_hash, slices, start, seconds)
    for row in predictions:
        if (row.model, row.version, row.set_hash) != block.series or not block.start <= row.at < block.end:
            raise ValueError(
                f"prediction {row.id!r} of {row.model!r} version {row.version} at {row.at.isoformat()} is not of "
                f"the block of {block.model!r} version {block.version} at {start.isoformat()}: group rows first"
            )
    return count_columns(
        block,
        [row.label for row in predictions],
        [labels.get(row.id) for row in predictions],
        unpack([row.member for row in predictions], slices),
        unpack([row.unknown for row in predictions], slices),
        votes,
    )


def count_columns(
    block: BlockCounts,
    predicted: Sequence[str],
    true: Sequence[str | None],
    member: BoolMatrix,
    unknown: BoolMatrix,
    votes: Sequence[int] = (),
) -> BlockCounts:
    """Return the block of these N rows, given by columns, under the name and the time of another block.

    Parameters
    ----------
    block
        Names the series and the time; its counts are not read.
    predicted, true
        N classes, and N classes or None where there is no label yet.
    member, unknown
        bool[N, K].
    votes
        Which of the K are labelling functions, which "no slice fired" does not ask.
    """
    classes = tuple(sorted({*predicted, *(each for each in true if each is not None)}))
    place = {each: c for c, each in enumerate(classes)}
    columns, holes = _with_extras(member, unknown, votes)
    called = np.array([place[each] for each in predicted], np.int64)
    cells = np.array([-1 if each is None else place[each] for each in true], np.int64) * len(classes) + called
    known = np.array([each is not None for each in true], np.bool_)
    side = (len(classes), len(classes), columns.shape[1])
    return replace(
        block,
        classes=classes,
        predicted=_sums(called, columns, len(classes)),
        predicted_unknown=_sums(called, holes, len(classes)),
        confusion=_sums(cells[known], columns[known], len(classes) ** 2).reshape(side),
        confusion_unknown=_sums(cells[known], holes[known], len(classes) ** 2).reshape(side),
        absent=np.zeros(columns.shape[1], np.int64),
    )


def unpack(bitmaps: Sequence[bytes], slices: int) -> BoolMatrix:
    """Return bool[N, K] of N bitmaps.

    Raises
    ------
    ValueError
        If a bitmap is not of ceil(K / 8) bytes.

    Examples
    --------
    >>> unpack([bytes([0b101])], 3).tolist()
    [[True, False, True]]
    """
    width = -(-slices // 8)
    if wrong := [bitmap for bitmap in bitmaps if len(bitmap) != width]:
        raise ValueError(f"the bitmap of {slices} slices has {width} bytes, got one of {len(wrong[0])}")
    packed = np.frombuffer(b"".join(bitmaps), np.uint8).reshape(len(bitmaps), width)
    return np.unpackbits(packed, axis=1, count=slices, bitorder="little").astype(np.bool_)


def empty(model: str, version: int, set_hash: str, slices: int, start: datetime, seconds: int) -> BlockCounts:
    """Return the block of no rows: adding it changes no count."""
    columns = slices + len(EXTRA_COLUMNS)
    none, square = np.zeros((0, columns), np.int64), np.zeros((0, 0, columns), np.int64)
    return BlockCounts(
        model, version, set_hash, start, seconds, (), none, none, square, square, np.zeros(columns, np.int64)
    )


def _with_extras(
    member: BoolMatrix, unknown: BoolMatrix, votes: Sequence[int]
) -> tuple[BoolMatrix, BoolMatrix]:
    """Append "no slice fired" and "all rows" to both matrices: bool[N, K+2].

    "No slice fired" is unknown wherever a slice is, also in a row that another slice took in. Else a function
    that always fails would leave only such rows, and their share would be 0 by construction.
    """
    slices = np.ones(member.shape[1], np.bool_)
    slices[list(votes)] = False
    fired, doubtful = (member & slices).any(axis=1), (unknown & slices).any(axis=1)
    every = np.ones(len(member), np.bool_)
    members = np.column_stack([member, ~fired & ~doubtful, every])
    return members, np.column_stack([unknown, doubtful, ~every])


def _sums(codes: Counts, columns: BoolMatrix, size: int) -> Counts:
    """Return the sums of the rows of each code: int64[size, K+2]."""
    out = np.zeros((size, columns.shape[1]), np.int64)
    for code in np.unique(codes):
        out[code] = columns[codes == code].sum(axis=0)
    return out


def merge(blocks: Iterable[BlockCounts]) -> BlockCounts:
    """Return the counts of all rows of disjoint blocks of one series, in any order.

    The result reaches from the earliest start to the latest end, gaps included.

    Raises
    ------
    ValueError
        If there is no block, or they are of different models, versions or function sets.
    """
    blocks = list(blocks)
    if not blocks:
        raise ValueError("no blocks to merge: use blocks.empty")
    if len({block.series for block in blocks}) > 1:
        raise ValueError(f"blocks of several series do not add: {sorted({block.series for block in blocks})}")
    if len({len(block.absent) for block in blocks}) > 1:
        raise ValueError(f"blocks of set {blocks[0].set_hash!r} differ in the number of their slices")
    classes = tuple(sorted({each for block in blocks for each in block.classes}))
    total = _widened(blocks[0], classes)
    for block in blocks[1:]:
        total = _added(total, _widened(block, classes))
    start = min(block.start for block in blocks)
    return spanning(total, start, max(block.end for block in blocks))


def subtract(total: BlockCounts, part: BlockCounts) -> BlockCounts:
    """Return the counts of ``total`` without the rows of ``part``; its time stays that of ``total``.

    Raises
    ------
    ValueError
        If ``part`` is no part of ``total``.
    """
    if total.series != part.series or not set(part.classes) <= set(total.classes):
        raise ValueError("only a part of the same model, version and function set can be taken from a total")
    wide = _widened(part, total.classes)
    arrays = [a - b for a, b in zip(total.arrays(), wide.arrays(), strict=True)]
    if any((array < 0).any() for array in arrays):
        raise ValueError("the part holds rows that the total does not")
    return _narrowed(_with_arrays(total, total.classes, arrays))


def spanning(block: BlockCounts, start: datetime, end: datetime) -> BlockCounts:
    """Return the same counts for the time from ``start`` to ``end``."""
    return replace(block, start=start, seconds=int((end - start) / timedelta(seconds=1)))


def remap_columns(block: BlockCounts, made: FunctionSetVersion, wanted: FunctionSetVersion) -> BlockCounts:
    """Return the block as the columns of another function set.

    A slice keeps its counts if its name and fingerprint are in both sets. For any other slice the rows are
    absent, which is unknown: nobody has asked its function. "No slice fired" holds for one collection of
    slices, so it is absent as well unless the two sets have the same ones, whatever their order and votes.

    Raises
    ------
    ValueError
        If the block was not made with the first set.
    """
    if block.set_hash != made.hash or len(block.absent) != len(made.names) + 2:
        raise ValueError(f"the block was made with set {block.set_hash!r}, not with {made.hash!r}")
    if made.hash == wanted.hash:
        return block
    old = {each: k for k, each in enumerate(zip(made.names, made.fingerprints, strict=True))}
    new = list(zip(wanted.names, wanted.fingerprints, strict=True))
    source = [old.get(each) for each in new] + [
        len(old) if made.slices == wanted.slices else None,
        len(old) + 1,
    ]
    lost = np.array([k is None for k in source], np.bool_)
    place = np.array([-1 if k is None else k for k in source], np.int64)
    member = [np.where(lost, 0, each[..., place]) for each in (block.predicted, block.confusion)]
    unknown = [
        np.where(lost, every[..., -1:], each[..., place])
        for each, every in (
            (block.predicted_unknown, block.predicted),
            (block.confusion_unknown, block.confusion),
        )
    ]
    absent = np.where(lost, block.n, block.absent[place])
    arrays = (member[0], unknown[0], member[1], unknown[1], absent)
    return replace(_with_arrays(block, block.classes, arrays), set_hash=wanted.hash)


def _widened(block: BlockCounts, classes: tuple[str, ...]) -> BlockCounts:
    """Return the block with rows of zeros for the classes that it lacks."""
    if block.classes == classes:
        return block
    place = [classes.index(each) for each in block.classes]
    both = np.ix_(place, place)
    shape = (len(classes), len(block.absent))
    predicted, predicted_unknown = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    confusion, confusion_unknown = (np.zeros((shape[0], *shape), np.int64) for _ in range(2))
    predicted[place], predicted_unknown[place] = block.predicted, block.predicted_unknown
    confusion[both], confusion_unknown[both] = block.confusion, block.confusion_unknown
    arrays = (predicted, predicted_unknown, confusion, confusion_unknown, block.absent)
    return _with_arrays(block, classes, arrays)


def _narrowed(block: BlockCounts) -> BlockCounts:
    """Return the block without the classes that no row and no label has."""
    totals = block.predicted[:, -1] + block.confusion[..., -1].sum(axis=1)
    keep = np.flatnonzero(totals)
    arrays = [array[keep] for array in block.arrays()[:2]]
    arrays += [array[np.ix_(keep, keep)] for array in block.arrays()[2:4]]
    return _with_arrays(block, tuple(block.classes[c] for c in keep), [*arrays, block.absent])


def _added(left: BlockCounts, right: BlockCounts) -> BlockCounts:
    arrays = [a + b for a, b in zip(left.arrays(), right.arrays(), strict=True)]
    return _with_arrays(left, left.classes, arrays)


def _with_arrays(block: BlockCounts, classes: tuple[str, ...], arrays: Sequence[Counts]) -> BlockCounts:
    predicted, predicted_unknown, confusion, confusion_unknown, absent = arrays
    return replace(
        block,
        classes=classes,
        predicted=predicted,
        predicted_unknown=predicted_unknown,
        confusion=confusion,
        confusion_unknown=confusion_unknown,
        absent=absent,
    )


_COUNTS_FORMAT = 1
_COMPRESSION = 1
"""Counts are mostly zeros: the quickest level is dense enough."""


def compress(block: BlockCounts) -> bytes:
    """Return the counts as bytes; series and time are not among them."""
    flat = np.concatenate([array.ravel() for array in block.arrays()])
    width = "<i4" if flat.max(initial=0) < 2**31 else "<i8"
    header = {
        "format": _COUNTS_FORMAT,
        "classes": block.classes,
        "columns": len(block.absent),
        "dtype": width,
    }
    return zlib.compress(json.dumps(header).encode() + b"\n" + flat.astype(width).tobytes(), _COMPRESSION)


def decompress(
    data: bytes, model: str, version: int, set_hash: str, start: datetime, seconds: int
) -> BlockCounts:
    """Return the block that ``compress`` packed.

    Raises
    ------
    ValueError
        If the bytes are damaged, or of a format that this release does not know.
    """
    total = PackedSum()
    try:
        total.add(data)
        return total.block(model, version, set_hash, start, seconds)
    except _DamagedCounts as problem:
        raise ValueError(
            f"the counts of the block of {model!r} at {start.isoformat()} are damaged: recount it from its rows"
        ) from problem


class PackedSum:
    """The sum of packed blocks of one series, which is quicker than to unpack each and merge them."""

    def __init__(self) -> None:
        self._by_head: dict[bytes, tuple[_Header, Counts]] = {}

    def add(self, data: bytes) -> None:
        """Take in a block.

        Raises
        ------
        ValueError
            If the bytes are damaged, or of a format that this release does not know.
        """
        try:
            head, _, body = zlib.decompress(data).partition(b"\n")
            header, flat = self._by_head.get(head) or (_header(head), None)
            own = np.frombuffer(body, header.dtype).astype(np.int64)
        except (zlib.error, KeyError, TypeError, ValueError) as problem:
            raise _DamagedCounts("the counts of a block are damaged: recount it from its rows") from problem
        if header.form != _COUNTS_FORMAT:
            raise ValueError(
                f"counts of format {header.form} are of a later release: upgrade, or recount from the rows"
            )
        if len(own) != header.ends[-1]:
            raise _DamagedCounts(f"{header.ends[-1]} numbers are due in a block, and {len(own)} are there")
        self._by_head[head] = header, own if flat is None else flat + own

    def block(self, model: str, version: int, set_hash: str, start: datetime, seconds: int) -> BlockCounts:
        """Return the sum as a block of this series and time; there must be a block in it."""
        parts = [
            BlockCounts(model, version, set_hash, start, seconds, header.classes, *header.arrays(flat))
            for header, flat in self._by_head.values()
        ]
        return parts[0] if len(parts) == 1 else merge(parts)


class _DamagedCounts(ValueError):
    """The bytes of a block are not as they were written."""


@dataclass(frozen=True, slots=True)
class _Header:
    """What stands before the numbers."""

    form: int
    classes: tuple[str, ...]
    dtype: str
    shapes: tuple[tuple[int, ...], ...]
    ends: tuple[int, ...]

    def arrays(self, flat: Counts) -> list[Counts]:
        parts = np.split(flat, self.ends[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]


def _header(head: bytes) -> _Header:
    content = json.loads(head)
    classes, columns = tuple(content["classes"]), int(content["columns"])
    by_class = (len(classes), columns)
    square = (len(classes), *by_class)
    shapes = (by_class, by_class, square, square, (columns,))
    ends = tuple(accumulate(math.prod(shape) for shape in shapes))
    return _Header(content["format"], classes, content["dtype"], shapes, ends)
