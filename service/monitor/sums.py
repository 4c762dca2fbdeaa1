"""Blocks of counts, added, taken apart, and read under another function set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from service.events import BlockCounts, Counts, FunctionSetVersion


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


def project(block: BlockCounts, made: FunctionSetVersion, wanted: FunctionSetVersion) -> BlockCounts:
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
