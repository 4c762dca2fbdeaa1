"""Observations for the detectors: final rows and first labels of the store, counted by slice."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import accumulate, chain, groupby, takewhile
from operator import attrgetter, itemgetter
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from models.outputs import LIMITS
from service.decisions import DriftKind, RateKey
from service.events import NONE_FIRED, BlockCounts, Counts, FunctionSetVersion
from service.jobs.detector_checkpoint import DetectorCheckpoint
from service.monitor.accuracy_detector import LabelledBlock
from service.monitor.block_counts import BoolMatrix, count_columns, empty, unpack_bitmaps
from service.monitor.drift_detector import Observation
from service.monitor.reference_period import ReferencePeriod
from service.monitor.windows import BLOCK_SECONDS, floor_to, watermark
from service.serving.deployment import DeploymentState
from service.store import queries
from service.store.block_store import first_uncounted
from service.store.errors import StoreError
from service.store.labels import FirstLabel
from service.store.tables import chunks, to_confidence
from sfs.function import ALL_ROWS

LOW_CONFIDENCE = tuple(RateKey(f"below {limit:.6g}", None, "confidence") for limit in LIMITS)
"""Shares of the rows whose confidence is below each limit; one of them is monitored."""

EVERY_ROW = RateKey(ALL_ROWS, None, "accuracy")
"""Accuracy of all rows; their coverage is 1."""

_ARRIVALS = 10_000  # rows in memory at once
_BLOCK_STARTS = BLOCK_SECONDS[-1] // BLOCK_SECONDS[0]  # read at once: an hour of the shortest blocks


def is_final(at: datetime, now: datetime) -> bool:
    """Return True if no more rows of the block at this time arrive: they have, or the clock was ahead."""
    return at < watermark(now) or at > now


def up_to(label: FirstLabel, until: datetime) -> FirstLabel:
    """Return a label from the future as one of the last final block."""
    return label if label.at < until else replace(label, at=until - timedelta(seconds=BLOCK_SECONDS[0]))


def next_arrivals(
    connection: Connection, checkpoint: DetectorCheckpoint, model: str, now: datetime
) -> Observation | None:
    """Return the final rows before ``until`` that arrived after ``row``, and move ``row`` on; None without any.

    Once the clock has caught up, the checkpoint is no longer behind. The rows are one observation, at most one per
    block of the clock: the number of observations bounds that of false alarms.
    """
    end = watermark(now)
    if checkpoint.arrived_until == end:
        return None
    checkpoint.arrived_until, checkpoint.is_behind = end, end < checkpoint.until
    counted: list[_Counted] = []
    start = end - timedelta(seconds=BLOCK_SECONDS[0])
    for part in chunks(queries.arrivals(connection, checkpoint.row), _ARRIVALS):
        final = list(takewhile(lambda row: row.at >= checkpoint.until or is_final(row.at, now), part))
        own = [row for row in final if (row.model, row.version) == (model, checkpoint.version)]
        own = sorted((row for row in own if row.at < checkpoint.until), key=lambda row: row.set_hash)
        sets = known_sets(connection, {row.set_hash for row in own})
        start = min([start, *(floor_to(row.at, BLOCK_SECONDS[0]) for row in own)])
        for set_hash, group in groupby(own, key=lambda row: row.set_hash):
            rows = list(group)
            functions, predicted = sets[set_hash], [row.predicted for row in rows]
            bitmaps = [row.member for row in rows], [row.unknown for row in rows]
            member, not_known = (unpack_bitmaps(each, len(functions.names)) for each in bitmaps)
            block = empty(model, checkpoint.version, set_hash, len(functions.names), start, BLOCK_SECONDS[0])
            votes = [functions.names.index(name) for name in functions.votes]
            block = count_columns(
                block,
                predicted,
                [None] * len(rows),
                member,
                not_known,
                votes,
                to_confidence([row.packed for row in rows]),
                [row.disagreement for row in rows],
            )
            counted.append(_RateColumns.of(functions, checkpoint.bands).counted(block))
        if final:
            checkpoint.row = final[-1].row
        if len(final) < len(part):
            break
    return Observation(start, end, *_sum(counted)) if counted else None


def next_blocks(
    connection: Connection, model: str, version: int, since: datetime, until: datetime
) -> list[BlockCounts]:
    """Return the next blocks of a model version, in order of time; repeated calls return all of them.

    Blocks that start before ``since``, the end of the blocks already read, are skipped. Blocks that reach beyond
    ``until``, the time before which rows are final, wait. If a block does not count all of its rows yet, it and
    every later one wait until it does.
    """
    starts = queries.block_starts(connection, model, version, since, until, _BLOCK_STARTS + 1)
    if len(starts) > _BLOCK_STARTS:
        until = floor_to(starts[-1], BLOCK_SECONDS[-1])  # no block reaches over a full hour
    reaching = queries.counts_between(connection, model, version, since, until) if starts else []
    blocks = [block for block in reaching if block.start >= since]
    until = first_uncounted(connection, model, version, blocks, since, until) or until
    # A long block that has to wait holds back the short ones of other function sets at its time.
    until = min([until, *(block.start for block in blocks if block.end > until)])
    return [block for block in blocks if block.end <= until]


def known_sets(connection: Connection, hashes: Iterable[str]) -> dict[str, FunctionSetVersion]:
    """Return the function sets with these hashes; StoreError if one was never recorded."""
    sets = {}
    for set_hash in hashes:
        functions = queries.function_set(connection, set_hash)
        if functions is None:
            raise StoreError(
                f"function set {set_hash!r} is not in the store, but rows counted with it are: "
                "restore the store from a backup, or activate these functions once, which records them"
            )
        sets[set_hash] = functions
    return sets


def coverages(
    blocks: Iterable[BlockCounts], sets: Mapping[str, FunctionSetVersion], watched: Collection[RateKey]
) -> Iterator[Observation]:
    """Yield the counts of every monitored rate but accuracies, block by block, in order of time.

    Blocks of the same time under several function sets are added; a slice is the same if its function is.
    """
    columns = {set_hash: _RateColumns.of(functions, watched) for set_hash, functions in sets.items()}
    for (start, end), group in groupby(blocks, key=lambda block: (block.start, block.end)):
        yield Observation(start, end, *_sum([columns[block.set_hash].counted(block) for block in group]))


def feature_content(connection: Connection, state: DeploymentState, label: FirstLabel) -> int:
    """Return a number for a labelled record, equal for records with the same content of the features."""
    from models.splits import record_contents  # imports pandas

    stored = queries.stored_features(connection, label.row)
    record = None if stored is None else state.schema.parse_record(json.loads(stored))
    return record_contents([record], state.specs, [label.content])[0]


@dataclass(frozen=True, slots=True)
class LabelCounter:
    """Counts labels by true and predicted class for all rows, slices and families.

    Parameters
    ----------
    sets
        Function sets of the labels, by hash.
    classes
        The C classes; a label or prediction of another one is not counted.
    families
        Fingerprint by slice of every family.
    period
        First labels of rates without an expected accuracy.
    content
        Content of a labelled record.
    votes
        Class of the votes of every labelling function to count.
    """

    sets: Mapping[str, FunctionSetVersion]
    classes: Sequence[str]
    families: Mapping[RateKey, Mapping[str, str]] = field(default_factory=dict)
    period: ReferencePeriod | None = None
    content: Callable[[FirstLabel], int] = attrgetter("content")
    votes: Mapping[RateKey, str] = field(default_factory=dict)

    def blocks(self, labels: Sequence[FirstLabel]) -> Iterator[LabelledBlock]:
        """Yield the labels of every rate, per 10 seconds of their arrival.

        A label that arrived after one of a later time belongs to the 10 seconds of that one, so that these are one
        block each: the number of blocks bounds that of false alarms.

        The first labels of rates in a period are gathered there, with their contents. They are counted apart, before
        the others of their 10 seconds: a target applies to them, too.
        """
        known, rates = {*self.classes}, {set_hash: self._rates(each) for set_hash, each in self.sets.items()}
        labels = [label for label in labels if {label.label, label.predicted} <= known]
        starts = accumulate((floor_to(label.at, BLOCK_SECONDS[0]) for label in labels), max)
        for start, arrived in groupby(zip(starts, labels, strict=True), key=itemgetter(0)):
            end = start + timedelta(seconds=BLOCK_SECONDS[0])
            counts: dict[RateKey, Counts] = {}
            first: dict[RateKey, Counts] = {}
            by_set = sorted((label for _, label in arrived), key=attrgetter("set_hash"))
            for set_hash, group in groupby(by_set, key=attrgetter("set_hash")):
                rows = list(group)
                keys, unions = rates[set_hash]
                member = unpack_bitmaps([label.member for label in rows], len(self.sets[set_hash].names))
                of_families = [member[:, own].any(axis=1) for own in unions]
                inside = np.column_stack([np.ones(len(rows), np.bool_), member, *of_families])
                confusion = self._confusion(rows, inside)
                for k in np.flatnonzero(inside.any(axis=0)).tolist():
                    counts[keys[k]] = counts.get(keys[k], 0) + confusion[k]
                    vote = keys[k]._replace(kind="votes")
                    if vote in self.votes:
                        counts[vote] = counts.get(vote, 0) + self._as_voted(confusion[k], self.votes[vote])
                if self.period is not None and self.period.contents:
                    self._gather(self.period, first, rows, keys, inside)
            if first:
                yield LabelledBlock(start, end, first)
                counts = {key: each - first[key] if key in first else each for key, each in counts.items()}
                counts = {key: each for key, each in counts.items() if each.any()}
            if counts:
                yield LabelledBlock(start, end, counts)

    def _rates(self, functions: FunctionSetVersion) -> tuple[list[RateKey], list[list[int]]]:
        """Return the rates under a function set, and the columns of the families, the last of them."""
        prints = dict(zip(functions.names, functions.fingerprints, strict=True))
        families = {key: own for key, own in self.families.items() if own.items() <= prints.items()}
        keys = [EVERY_ROW, *(RateKey(*pair, "accuracy") for pair in prints.items()), *families]
        return keys, [[functions.names.index(name) for name in own] for own in families.values()]

    def _confusion(self, rows: Sequence[FirstLabel], inside: BoolMatrix) -> Counts:
        """Return the rows of every rate by true and predicted class, int64[K, C, C]."""
        position, classes = {name: c for c, name in enumerate(self.classes)}, len(self.classes)
        pair = np.array([position[row.label] * classes + position[row.predicted] for row in rows], np.intp)
        row, rate = np.nonzero(inside)
        counts = np.bincount(rate * classes**2 + pair[row], minlength=inside.shape[1] * classes**2)
        return counts.reshape(-1, classes, classes)

    def _as_voted(self, confusion: Counts, voted: str) -> Counts:
        """Return rows on which a function votes for a class, int64[C, C] by true class and vote."""
        counts = np.zeros_like(confusion)
        counts[:, self.classes.index(voted)] = confusion.sum(axis=1)
        return counts

    def _gather(
        self,
        period: ReferencePeriod,
        first: dict[RateKey, Counts],
        rows: Sequence[FirstLabel],
        keys: Sequence[RateKey],
        inside: BoolMatrix,
    ) -> None:
        """Add the rows that a period still lacks to it, and to the counts of first labels."""
        contents: dict[int, int] = {}
        for k in [k for k, key in enumerate(keys) if key in period.contents]:
            key, at = keys[k], np.flatnonzero(inside[:, k]).tolist()
            while at and (lacks := period.lacks(key)):
                part, at = at[:lacks], at[lacks:]
                contents |= {row: self.content(rows[row]) for row in part if row not in contents}
                taken = [rows[row] for row in part]
                pairs = [(label.label, label.predicted) for label in taken]
                period.take(key, [contents[row] for row in part], pairs)
                counted = self._confusion(taken, np.ones((len(part), 1), np.bool_))[0]
                first[key] = first.get(key, 0) + counted


def _columns(functions: FunctionSetVersion, kind: DriftKind, watched: Container[RateKey]) -> list[tuple[int, RateKey]]:
    """Return the monitored columns of a function set; that of the rows in no slice follows the slices."""
    pairs = zip((*functions.names, NONE_FIRED), (*functions.fingerprints, functions.hash), strict=True)
    keys = (RateKey(name, fingerprint, kind) for name, fingerprint in pairs)
    return [(k, key) for k, key in enumerate(keys) if key in watched]


Indices: TypeAlias = NDArray[np.intp]
_Counted: TypeAlias = tuple[tuple[RateKey, ...], Counts]
"""Rates, and their counts as an `Observation` has them."""


@dataclass(frozen=True, slots=True)
class _RateColumns:
    """Monitored rates of the counts under one function set, by kind, and the columns of slices and limits."""

    keys: tuple[RateKey, ...]
    predicted: tuple[str, ...]
    coverage: Indices
    unknown: Indices
    disagreement: Indices
    confidence: Indices

    @classmethod
    def of(cls, functions: FunctionSetVersion, watched: Collection[RateKey]) -> _RateColumns:
        """Return the monitored rates of a function set."""
        kinds: tuple[DriftKind, ...] = ("coverage", "unknown", "disagreement")
        of_slices = [_columns(functions, kind, watched) for kind in kinds]
        of_limits = [(k, key) for k, key in enumerate(LOW_CONFIDENCE) if key in watched]
        predicted = tuple(key for key in watched if key.kind == "predicted")
        slices, limits = [key for part in of_slices for _, key in part], [key for _, key in of_limits]
        places = (np.array([k for k, _ in part], np.intp) for part in (*of_slices, of_limits))
        return cls((*slices, *predicted, *limits), tuple(key.slice for key in predicted), *places)

    def counted(self, block: BlockCounts) -> _Counted:
        """Return the rates and the counts of a block."""
        compared, contradicted = block.indicated
        below = block.confidence.cumsum()
        called = dict(zip(block.classes, block.predicted[:, -1].tolist(), strict=True)) if self.predicted else {}
        of_classes = np.array([called.get(name, 0) for name in self.predicted], np.int64)
        not_known, others = block.unknown[self.coverage], block.unknown[self.disagreement]
        kinds = (
            (block.member[self.coverage], block.n - not_known, not_known),
            (block.unknown[self.unknown], block.n, 0),
            (contradicted[self.disagreement], compared[self.disagreement], others * (compared[self.disagreement] > 0)),
            (of_classes, block.n, 0),
            (below[self.confidence], below[-1], 0),
        )
        return self.keys, np.concatenate([np.stack(np.broadcast_arrays(*counts)) for counts in kinds], axis=1)


def _sum(counted: Sequence[_Counted]) -> _Counted:
    """Return the rates of some blocks, and the sums of their counts."""
    if len(counted) == 1:
        return counted[0]
    keys, _ = counted[0]
    if any(other is not keys for other, _ in counted[1:]):
        keys = tuple(dict.fromkeys(chain.from_iterable(each for each, _ in counted)))
    index = {key: k for k, key in enumerate(keys)}
    total = np.zeros((3, len(keys)), np.int64)
    for each, counts in counted:
        total[:, [index[key] for key in each]] += counts
    return keys, total
