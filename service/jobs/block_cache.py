"""The blocks of one model version, held in memory as the store has them."""

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
    """The timelines of a model version, one for each function set that it met.

    No block here is longer than the store's at its time: the store merges blocks when it likes, and what it
    merged is taken over from there.

    Parameters
    ----------
    connection
        Reads the store as of one moment; everything is loaded here.
    model, version
        Whose blocks.
    since
        Blocks that end before are left out.
    """

    def __init__(self, connection: Connection, model: str, version: int, since: datetime) -> None:
        self.model, self.version, self.since = model, version, since
        self.timelines: dict[str, BlockIndex] = {}
        self.sets: dict[str, FunctionSetVersion] = {}
        self._longer: set[queries.BlockKey] = set()
        for block in queries.iter_blocks(connection, model, version, since):
            self._put(connection, block)

    def serves(self, model: str, version: int | None, since: datetime) -> bool:
        """Tell whether these are the blocks of a version, and reach back so far."""
        return (self.model, self.version) == (model, version) and self.since <= since

    def take(self, connection: Connection, recounts: Sequence[Recount]) -> None:
        """Take in what was counted again; blocks of others, and those that were left out, are passed over."""
        for set_hash in self.sets.keys() & {each.series.set_hash for each in recounts}:
            self._learn(connection, set_hash)  # by now it may be known which of its functions are votes
        for each in recounts:
            model, version, set_hash = each.series.model, each.series.version, each.series.set_hash
            start, seconds = from_us(each.span[0]), each.span[1]
            mine = (model, version) == (self.model, self.version)
            if mine and start + timedelta(seconds=seconds) > self.since:
                slices = len(self._set(connection, set_hash).names)
                self._put(connection, each.counts or empty(model, version, set_hash, slices, start, seconds))

    def take_merged(self, connection: Connection) -> None:
        """Take over the blocks that the store has merged into longer ones since the last time."""
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
            slices = len(self._set(connection, block.set_hash).names)
            timeline = self.timelines[block.set_hash] = BlockIndex(*block.series, slices)
        timeline.put(block)
        if block.seconds > BLOCK_SECONDS[0]:
            self._longer.add(queries.BlockKey(block.set_hash, block.start, block.seconds))

    def _set(self, connection: Connection, set_hash: str) -> FunctionSetVersion:
        if set_hash not in self.sets:
            self._learn(connection, set_hash)
        return self.sets[set_hash]

    def _learn(self, connection: Connection, set_hash: str) -> None:
        found = queries.function_set(connection, set_hash)
        if found is None:
            raise StoreError(f"function set {set_hash!r} is not in the store, but its blocks are")
        self.sets[set_hash] = found
