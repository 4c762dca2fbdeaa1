"""Counts of a block: counted from rows, added, mapped to another function set, and packed into bytes."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import reduce
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from models.outputs import RANGES, count_ranges
from service.events import EXTRA_COLUMNS, BlockCounts, Counts, FunctionSetVersion

BoolMatrix = NDArray[np.bool_]

_FORMAT = 2
_READ = (1, _FORMAT)  # format 1 has neither confidence nor indicators
_COMPRESSION = 1  # counts are mostly zeros: the fastest level is dense enough


def empty(model: str, version: int, set_hash: str, slices: int, start: datetime, seconds: int) -> BlockCounts:
    """Return the block without rows, the neutral element of ``merge``."""
    columns = slices + len(EXTRA_COLUMNS)
    none, square = np.zeros((0, columns), np.int64), np.zeros((0, 0, columns), np.int64)
    absent, confidence, indicated = (np.zeros(shape, np.int64) for shape in (columns, RANGES, (2, slices)))
    return BlockCounts(
        model, version, set_hash, start, seconds, (), none, none, square, square, absent, confidence, indicated
    )


def count_columns(
    block: BlockCounts,
    predicted: Sequence[str],
    true: Sequence[str | None],
    member: BoolMatrix,
    unknown: BoolMatrix,
    votes: Sequence[int] = (),
    confidence: NDArray[np.float64] | None = None,
    disagreement: Sequence[bytes | None] = (),
) -> BlockCounts:
    """Return the counts of N rows, given by columns.

    Parameters
    ----------
    block
        Block of the same series and time span; its counts are ignored.
    predicted, true
        N predicted classes, and N true classes, None without a label.
    member, unknown
        bool[N, K].
    votes
        Indices of the labelling functions among the K, which "no slice fired" disregards.
    confidence
        float64[N], NaN without probabilities; None if all rows are.
    disagreement
        N bitmaps of the slices that indicators of the model contradict, None for rows without; empty if all are.
    """
    classes = tuple(sorted({*predicted, *(label for label in true if label is not None)}))
    index = {label: c for c, label in enumerate(classes)}
    # "No slice fired" is unknown wherever a slice is, even if another slice fired. Else a function that always
    # fails would leave only rows that are unknown to it, and the rate would be 0 by construction.
    slices = np.ones(member.shape[1], np.bool_)
    slices[list(votes)] = False
    fired, doubtful = (member & slices).any(axis=1), (unknown & slices).any(axis=1)
    every = np.ones(len(member), np.bool_)
    inside = np.column_stack([member, ~fired & ~doubtful, every])  # [N, K+2]
    unclear = np.column_stack([unknown, doubtful, ~every])  # [N, K+2]

    labelled = np.array([label is not None for label in true], np.bool_)
    called = np.array([index[label] for label in predicted], np.int64)
    actual = np.array([0 if label is None else index[label] for label in true], np.int64)
    cells = (actual * len(classes) + called)[labelled]
    square = (len(classes), len(classes), inside.shape[1])
    return replace(
        block,
        classes=classes,
        predicted=_sums(called, inside, len(classes)),
        predicted_unknown=_sums(called, unclear, len(classes)),
        confusion=_sums(cells, inside[labelled], len(classes) ** 2).reshape(square),
        confusion_unknown=_sums(cells, unclear[labelled], len(classes) ** 2).reshape(square),
        absent=np.zeros(inside.shape[1], np.int64),
        confidence=np.zeros(RANGES, np.int64) if confidence is None else count_ranges(confidence),
        indicated=_indicated(disagreement, unknown),
    )


def _indicated(disagreement: Sequence[bytes | None], unknown: BoolMatrix) -> Counts:
    """Return the rows that indicators were compared on, and those that they contradict, int64[2, K]."""
    compared = [row for row, bitmap in enumerate(disagreement) if bitmap is not None]
    bitmaps = [bitmap for bitmap in disagreement if bitmap is not None]
    known = ~unknown[compared]
    wrong = unpack_bitmaps(bitmaps, unknown.shape[1])
    return np.stack([known.sum(axis=0), (wrong & known).sum(axis=0)])


def _sums(codes: Counts, columns: BoolMatrix, size: int) -> Counts:
    """Return the column sums of the rows of each code: int64[size, K+2]."""
    out = np.zeros((size, columns.shape[1]), np.int64)
    for code in np.unique(codes):
        out[code] = columns[codes == code].sum(axis=0)
    return out


def unpack_bitmaps(bitmaps: Sequence[bytes], slices: int) -> BoolMatrix:
    """Return N bitmaps as bool[N, K].

    Raises
    ------
    ValueError
        If a bitmap does not have ceil(K / 8) bytes.

    Examples
    --------
    >>> unpack_bitmaps([bytes([0b101])], 3).tolist()
    [[True, False, True]]
    """
    width = -(-slices // 8)
    if wrong := [bitmap for bitmap in bitmaps if len(bitmap) != width]:
        raise ValueError(f"a bitmap of {slices} slices has {width} bytes, got {len(wrong[0])}")
    packed = np.frombuffer(b"".join(bitmaps), np.uint8).reshape(len(bitmaps), width)
    return np.unpackbits(packed, axis=1, count=slices, bitorder="little").astype(np.bool_)


def merge(blocks: Iterable[BlockCounts]) -> BlockCounts:
    """Return the sum of disjoint blocks of one series, in any order.

    The result spans the time from the earliest start to the latest end, gaps included.

    Raises
    ------
    ValueError
        If there is no block, or they are of different models, versions or function sets.
    """
    blocks = list(blocks)
    if not blocks:
        raise ValueError("cannot merge zero blocks: use block_counts.empty")
    if len({block.series for block in blocks}) > 1:
        raise ValueError(f"cannot merge blocks of different series: {sorted({b.series for b in blocks})}")
    if len({len(block.absent) for block in blocks}) > 1:
        raise ValueError(f"blocks of set {blocks[0].set_hash!r} differ in their number of slices")
    classes = tuple(sorted({label for block in blocks for label in block.classes}))
    parts = zip(*(_widened(block, classes) for block in blocks), strict=True)
    total = _with_arrays(blocks[0], classes, [reduce(np.add, arrays) for arrays in parts])
    return spanning(total, min(block.start for block in blocks), max(block.end for block in blocks))


def spanning(block: BlockCounts, start: datetime, end: datetime) -> BlockCounts:
    """Return the same counts for the time from ``start`` to ``end``."""
    return replace(block, start=start, seconds=int((end - start) / timedelta(seconds=1)))


def remap_columns(block: BlockCounts, own: FunctionSetVersion, wanted: FunctionSetVersion) -> BlockCounts:
    """Return the block with the columns of another function set.

    A slice keeps its counts if its name and fingerprint are in both sets. For any other slice all rows are
    absent, which is unknown: its function was not applied to them. "No slice fired" depends on all slices, so
    it is absent as well unless both sets have the same ones, whatever their order and votes.

    Parameters
    ----------
    block
        Counts under ``own``.
    own, wanted
        Function set of the block, and of the result.

    Raises
    ------
    ValueError
        If the block was not counted with ``own``.
    """
    if block.set_hash != own.hash or len(block.absent) != len(own.names) + len(EXTRA_COLUMNS):
        raise ValueError(f"the block was counted with set {block.set_hash!r}, not with {own.hash!r}")
    if own.hash == wanted.hash:
        return block
    old = {key: k for k, key in enumerate(zip(own.names, own.fingerprints, strict=True))}
    source = [old.get(key) for key in zip(wanted.names, wanted.fingerprints, strict=True)]
    source += [len(old) if own.slices == wanted.slices else None, len(old) + 1]
    missing = np.array([k is None for k in source], np.bool_)
    column = np.array([0 if k is None else k for k in source], np.intp)

    def mapped(counts: Counts, fill: Counts | int) -> Counts:
        return np.where(missing, fill, counts[..., column])

    arrays = (
        mapped(block.predicted, 0),
        mapped(block.predicted_unknown, block.predicted[..., -1:]),
        mapped(block.confusion, 0),
        mapped(block.confusion_unknown, block.confusion[..., -1:]),
        mapped(block.absent, block.n),
        block.confidence,
        np.where(missing, 0, np.pad(block.indicated, ((0, 0), (0, 2)))[:, column])[:, :-2],
    )
    return replace(_with_arrays(block, block.classes, arrays), set_hash=wanted.hash)


def _widened(block: BlockCounts, classes: tuple[str, ...]) -> Sequence[Counts]:
    """Return the arrays of a block with rows of zeros for the classes that it lacks."""
    if block.classes == classes:
        return block.arrays()
    place = [classes.index(label) for label in block.classes]
    both = np.ix_(place, place)
    shape = (len(classes), len(block.absent))
    predicted, predicted_unknown = np.zeros((2, *shape), np.int64)
    confusion, confusion_unknown = np.zeros((2, len(classes), *shape), np.int64)
    predicted[place], predicted_unknown[place] = block.predicted, block.predicted_unknown
    confusion[both], confusion_unknown[both] = block.confusion, block.confusion_unknown
    return predicted, predicted_unknown, confusion, confusion_unknown, *block.arrays()[4:]


def _with_arrays(block: BlockCounts, classes: tuple[str, ...], arrays: Sequence[Counts]) -> BlockCounts:
    return BlockCounts(*block.series, block.start, block.seconds, classes, *arrays)


def compress(block: BlockCounts) -> bytes:
    """Return the counts as bytes, without series and time."""
    *arrays, confidence, indicated = block.arrays()
    rows = [len(array) if array.any() else 0 for array in (confidence, indicated)]  # often there are none
    arrays += [confidence[: rows[0]], indicated[: rows[1]]]
    flat = np.concatenate([array.ravel() for array in arrays])
    dtype = "<i4" if flat.max(initial=0) < 2**31 else "<i8"
    header = {"format": _FORMAT, "classes": block.classes, "columns": len(block.absent), "dtype": dtype, "rows": rows}
    return zlib.compress(json.dumps(header).encode() + b"\n" + flat.astype(dtype).tobytes(), _COMPRESSION)


def decompress(data: bytes, model: str, version: int, set_hash: str, start: datetime, seconds: int) -> BlockCounts:
    """Return the block packed by ``compress``.

    Raises
    ------
    ValueError
        If the bytes are damaged, or of an unknown format.
    """
    total = PackedSum()
    try:
        total.add(data)
        return total.block(model, version, set_hash, start, seconds)
    except _DamagedCounts as error:
        raise ValueError(
            f"the counts of the block of {model!r} at {start.isoformat()} are damaged: recount it from its rows"
        ) from error


class PackedSum:
    """Sum of packed blocks of one series; faster than unpacking and merging them."""

    def __init__(self) -> None:
        self._by_header: dict[bytes, tuple[_Header, Counts]] = {}

    def add(self, data: bytes) -> None:
        """Add a packed block.

        Raises
        ------
        ValueError
            If the bytes are damaged, or of an unknown format.
        """
        try:
            head, _, body = zlib.decompress(data).partition(b"\n")
            header, flat = self._by_header.get(head) or (_Header.parse(head), None)
            own = np.frombuffer(body, header.dtype).astype(np.int64)
        except (zlib.error, KeyError, TypeError, ValueError) as error:
            raise _DamagedCounts("the counts of a block are damaged: recount it from its rows") from error
        if header.format not in _READ:
            raise ValueError(
                f"counts of format {header.format} were written by a later release: upgrade, or recount the rows"
            )
        if len(own) != header.ends[-1]:
            raise _DamagedCounts(f"expected {header.ends[-1]} numbers in a block, got {len(own)}")
        self._by_header[head] = header, own if flat is None else flat + own

    def block(self, model: str, version: int, set_hash: str, start: datetime, seconds: int) -> BlockCounts:
        """Return the sum as a block of this series and time; at least one block must have been added."""
        parts = []
        for header, flat in self._by_header.values():
            arrays = np.split(flat, header.ends[:-1])
            shaped = [array.reshape(shape) for array, shape in zip(arrays, header.shapes, strict=True)]
            for i, (shape, rows) in enumerate(zip(header.shapes[-2:], (RANGES, 2), strict=True), len(shaped) - 2):
                if not shape[0]:
                    shaped[i] = np.zeros((rows, *shape[1:]), np.int64)
            parts.append(BlockCounts(model, version, set_hash, start, seconds, header.classes, *shaped))
        return parts[0] if len(parts) == 1 else merge(parts)


class _DamagedCounts(ValueError):
    """Bytes that ``compress`` did not write."""


@dataclass(frozen=True, slots=True)
class _Header:
    """Line in front of the packed numbers, with the shapes and end offsets of the arrays."""

    format: int
    classes: tuple[str, ...]
    dtype: str
    shapes: tuple[tuple[int, ...], ...]
    ends: tuple[int, ...]

    @classmethod
    def parse(cls, head: bytes) -> _Header:
        content = json.loads(head)
        classes, columns = tuple(content["classes"]), int(content["columns"])
        by_class = (len(classes), columns)
        square = (len(classes), *by_class)
        ranges, indicators = content.get("rows", (0, 0))
        shapes = (by_class, by_class, square, square, (columns,), (ranges,), (indicators, columns - 2))
        ends = tuple(accumulate(math.prod(shape) for shape in shapes))
        return cls(content["format"], classes, content["dtype"], shapes, ends)
