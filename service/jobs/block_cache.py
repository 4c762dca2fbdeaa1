"""Blocks of one model version, cached in memory as they are in the store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection

from service.events import BlockCounts, FunctionSetVersion
from service.monitor.block_counts import empty
from service.monitor.block_index import BlockIndex
from service.monitor.windows import BLOCK_SECONDS
from service.store import queries
from service.store.block_store import Recount
from service.store.errors import StoreError
from service.store.tables import from_us


class BlockCache:
    """Blocks of a model version by function set; none is longer than the store's block of its time.

    All blocks that end after ``since`` are loaded from one view of the store.
    """

    def __init__(self, connection: Connection, model: str, version: int, since: datetime) -> None:
        self.model, self.version, self.since = model, version, since
        self.timelines: dict[str, BlockIndex] = {}
        self.sets: dict[str, FunctionSetVersion] = {}
        self._longer: set[queries.BlockKey] = set()
        for block in queries.iter_blocks(connection, model, version, since):
            self._put(connection, block)

    def serves(self, model: str, version: int | None, since: datetime) -> bool:
        """Return whether the cache has the blocks of a version since a time."""
        return (self.model, self.version) == (model, version) and self.since <= since

    def take(self, connection: Connection, recounts: Sequence[Recount]) -> None:
        """Replace recounted blocks; those of other versions, or before ``since``, are ignored."""
        for set_hash in self.sets.keys() & {recount.series.set_hash for recount in recounts}:
            self._load_set(connection, set_hash)  # the store may have recorded its votes since
        for block in recounts:
            model, version, set_hash = block.series.model, block.series.version, block.series.set_hash
            start, seconds = from_us(block.span[0]), block.span[1]
            own = (model, version) == (self.model, self.version)
            if own and start + timedelta(seconds=seconds) > self.since:
                functions = self.sets.get(set_hash) or self._load_set(connection, set_hash)
                slices = len(functions.names)
                self._put(connection, block.counts or empty(model, version, set_hash, slices, start, seconds))

    def take_merged(self, connection: Connection) -> None:
        """Replace blocks that the store has merged since the last call."""
        longer = queries.longer_blocks(connection, self.model, self.version, self.since)
        if new := longer - self._longer:
            first, last = (pick(key.start for key in new) for pick in (min, max))
            until = last + timedelta(seconds=BLOCK_SECONDS[-1])
            for block in queries.counts_between(connection, self.model, self.version, first, until):
                if queries.BlockKey(block.set_hash, block.start, block.seconds) in new:
                    self._put(connection, block)
        self._longer = longer

    def _put(self, connection: Connection, block: BlockCounts) -> None:
        timeline = self.timelines.get(block.set_hash)
        if timeline is None:
            functions = self.sets.get(block.set_hash) or self._load_set(connection, block.set_hash)
            timeline = self.timelines[block.set_hash] = BlockIndex(*block.series, len(functions.names))
        timeline.put(block)
        if block.seconds > BLOCK_SECONDS[0]:
            self._longer.add(queries.BlockKey(block.set_hash, block.start, block.seconds))

    def _load_set(self, connection: Connection, set_hash: str) -> FunctionSetVersion:
        functions = queries.function_set(connection, set_hash)
        if functions is None:
            raise StoreError(f"function set {set_hash!r} is not in the store, but its blocks are")
        self.sets[set_hash] = functions
        return functions
