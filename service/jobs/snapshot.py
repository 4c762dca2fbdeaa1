"""The monitor's tick: from rows and labels that have come to a committed snapshot."""

from __future__ import annotations

import logging
import zlib
from datetime import datetime
from functools import partial

from sqlalchemy import Connection

from service.events import Snapshot
from service.jobs.block_cache import BlockCache
from service.metrics.page import MetricsPage
from service.monitor.snapshot import SnapshotScope, from_text, take_snapshot, to_text
from service.monitor.windows import BLOCK_SECONDS, floor_to, windows
from service.serving.deployment import Deployment
from service.store import queries
from service.store.block_store import read_dirty, replace_blocks
from service.store.engine import Store
from service.store.writer import Writer

CHECKPOINT = "snapshot"
"""The name under which the last snapshot is kept."""

_DIRTY_BLOCKS = 256  # counted, and committed, together
_COMPRESSION = 1  # the quickest level takes three quarters away

_log = logging.getLogger(__name__)


class SnapshotJob:
    """Takes the snapshots of the active version; the only job that recounts blocks. For one thread at a time.

    Parameters
    ----------
    deployment
        The active version; receives the snapshot.
    store, writer
        The log.
    page
        Serves the gauges of the latest snapshot.
    """

    def __init__(self, deployment: Deployment, store: Store, writer: Writer, page: MetricsPage) -> None:
        self._deployment, self._store, self._writer, self._page = deployment, store, writer, page
        self._cache: BlockCache | None = None
        self._merged_at: datetime | None = None

    def run(self, now: datetime) -> Snapshot | None:
        """Recount what has changed, commit a snapshot as of now, and publish it; None without a version.

        After an error the next run reads everything from the store.

        Raises
        ------
        StoreError
            If the store cannot be written.
        """
        self._deployment.follow_external_version()
        try:
            return self._run(now)
        except BaseException:
            self._cache = None
            raise

    def restore(self) -> None:
        """Publish the last committed snapshot, if it belongs to the active version."""
        with self._store.read() as connection:
            checkpoint = queries.checkpoint(connection, CHECKPOINT)
        if checkpoint is None:
            return
        try:
            last = from_state(checkpoint.state)
        except ValueError as error:
            _log.warning("the last snapshot is not shown: %s", error)
            return
        state = self._deployment.state
        if (last.model, last.version) == (state.model, state.version):
            self._publish(last)

    def _run(self, now: datetime) -> Snapshot | None:
        state = self._deployment.state
        since = min(span.start for span in windows(now, state.promoted_at).values())
        if self._cache is not None and not self._cache.serves(state.model, state.version, since):
            self._cache = None
        self._recount()
        if state.version is None:
            return None
        with self._store.read() as connection:
            cache = self._up_to_date(connection, state.model, state.version, since, now)
            last_label_at = queries.last_label_at(connection, state.model)
        scope = SnapshotScope(
            state.model, state.version, state.functions_version, state.promoted_at, last_label_at
        )
        snapshot = take_snapshot(
            now, scope, cache.timelines.values(), cache.sets, self._deployment.estimate_config
        )
        self._writer.save_checkpoint(CHECKPOINT, now, to_state(snapshot)).result()
        self._publish(snapshot)
        return snapshot

    def _recount(self) -> None:
        """Count dirty blocks again until all that were dirty are done."""
        more = True
        while more:
            with self._store.read() as connection:
                counted = read_dirty(connection, _DIRTY_BLOCKS)
                if not counted:
                    return
                done = self._writer.submit(partial(replace_blocks, recounts=counted)).result()
                if self._cache is not None:
                    self._cache.take(connection, done)
            # What changed while it was counted is dirty still; with nothing done, it is left to the next tick.
            more = bool(done) and sum(len(each.marks) for each in counted) >= _DIRTY_BLOCKS

    def _up_to_date(
        self, connection: Connection, model: str, version: int, since: datetime, now: datetime
    ) -> BlockCache:
        """Return the blocks of the version in force, loaded if they were not, merged as in the store."""
        merged_at = floor_to(now, BLOCK_SECONDS[1])
        if self._cache is None:
            self._cache = BlockCache(connection, model, version, since)
        elif merged_at != self._merged_at:
            self._cache.take_merged(connection)
        self._merged_at = merged_at
        return self._cache

    def _publish(self, snapshot: Snapshot) -> None:
        state = self._deployment.state
        # A version promoted since has other references; the next snapshot shows them.
        references = state.references if snapshot.version == state.version else {}
        self._deployment.snapshot = snapshot
        self._page.show(snapshot, state.metadata, references)


def to_state(made: Snapshot) -> bytes:
    """Return a snapshot as it is kept."""
    return zlib.compress(to_text(made).encode(), _COMPRESSION)


def from_state(state: bytes) -> Snapshot:
    """Return the snapshot that was kept; one that an earlier version kept is text, not compressed.

    Raises
    ------
    ValueError
        If the state is damaged, or of a later version.
    """
    if state.startswith(b"{"):
        return from_text(state.decode())
    try:
        return from_text(zlib.decompress(state).decode())
    except zlib.error as problem:
        raise ValueError(f"the snapshot that was kept is damaged: {problem}") from problem
