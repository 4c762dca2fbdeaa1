"""Blocks of counts, made from rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from service.events import EXTRA_COLUMNS, BlockCounts, Counts, Prediction

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
