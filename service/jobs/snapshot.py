"""Job that takes snapshots: recounts dirty blocks, computes every figure, commits and publishes."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from datetime import datetime
from functools import partial
from time import monotonic

from service.events import Snapshot
from service.jobs.accuracy_references import family_rates
from service.jobs.block_cache import BlockCache
from service.metrics.gauges import MetricsPage
from service.monitor.snapshot import SnapshotScope, from_text, take_snapshot, to_text
from service.monitor.windows import BLOCK_SECONDS, floor_to, windows
from service.serving.deployment import Deployment
from service.store import queries
from service.store.block_store import read_dirty, replace_blocks
from service.store.engine import Store
from service.store.writer import Writer

CHECKPOINT = "snapshot"
"""Name of the checkpoint with the latest snapshot."""

_DIRTY_BLOCKS = 256  # recounted in one transaction
_RECOUNT_SECONDS = 2.0  # of one run, before its last transaction
_COMPRESSION = 1  # the fastest level saves three quarters

_log = logging.getLogger(__name__)


class SnapshotJob:
    """Takes the snapshots of the active version; the only job that recounts blocks. For one thread at a time.

    A run recounts for seconds at most, by ``timer``, the active version first: other versions, and rows of the
    past, delay neither its figures nor drift detection. Blocks that are left are recounted by the next runs.
    """

    def __init__(
        self,
        deployment: Deployment,
        store: Store,
        writer: Writer,
        page: MetricsPage,
        timer: Callable[[], float] = monotonic,
    ) -> None:
        self._deployment, self._store, self._writer, self._page = deployment, store, writer, page
        self._timer = timer
        self._cache: BlockCache | None = None
        self._merged_at: datetime | None = None

    def run(self, now: datetime) -> Snapshot | None:
        """Recount dirty blocks, then commit and publish a snapshot as of now; None without a version.

        After an error the next run reads everything from the store.
        """
        self._deployment.follow_external_version(now)
        try:
            return self._run(now)
        except BaseException:
            self._cache = None
            raise

    def restore(self) -> None:
        """Publish the latest committed snapshot, if it is of the active version."""
        with self._store.read() as connection:
            checkpoint = queries.checkpoint(connection, CHECKPOINT)
        if checkpoint is None:
            return
        try:
            last = from_state(checkpoint.state)
        except ValueError as error:
            _log.warning("the stored snapshot is damaged (%s), and ignored until the next one", type(error).__name__)
            _log.debug("the stored snapshot: %s", error)
            return
        state = self._deployment.state
        if (last.model, last.version) == (state.model, state.version):
            self._publish(last)

    def _run(self, now: datetime) -> Snapshot | None:
        state = self._deployment.state
        since = min(span.start for span in windows(now, state.promoted_at).values())
        if self._cache is not None and not self._cache.serves(state.model, state.version, since):
            self._cache = None
        self._recount(state.model, state.version)
        if state.version is None:
            return None
        merged_at = floor_to(now, BLOCK_SECONDS[1])
        with self._store.read() as connection:
            if self._cache is None:
                self._cache = BlockCache(connection, state.model, state.version, since)
            elif merged_at != self._merged_at:
                self._cache.take_merged(connection)
            cache, self._merged_at = self._cache, merged_at
            last_label_at = queries.last_label_at(connection, state.model)
        scope = SnapshotScope(
            state.model, state.version, state.functions_version, state.promoted_at, last_label_at, family_rates(state)
        )
        config, before = self._deployment.estimate_config, self._deployment.snapshot
        snapshot = take_snapshot(now, scope, cache.timelines.values(), cache.sets, config, before)
        self._writer.save_checkpoint(CHECKPOINT, now, to_state(snapshot)).result()
        self._publish(snapshot)
        return snapshot

    def _recount(self, model: str, version: int | None) -> None:
        """Recount dirty blocks, those of a version first."""
        more, end = True, self._timer() + _RECOUNT_SECONDS
        while more:
            with self._store.read() as connection:
                recounts = read_dirty(connection, _DIRTY_BLOCKS, model, version)
                if not recounts:
                    return
                written = self._writer.submit(partial(replace_blocks, recounts=recounts)).result()
                if self._cache is not None:
                    self._cache.take(connection, written)
            # A block that changed during the recount stays dirty; if all did, they are left to the next run.
            is_full = sum(len(recount.marks) for recount in recounts) >= _DIRTY_BLOCKS
            more = bool(written) and is_full and self._timer() < end

    def _publish(self, snapshot: Snapshot) -> None:
        state = self._deployment.state
        # A version promoted since has other references; the next snapshot shows them.
        references = state.references if snapshot.version == state.version else {}
        self._deployment.snapshot = snapshot
        self._page.show(snapshot, state.metadata, references)


def to_state(snapshot: Snapshot) -> bytes:
    """Return the stored form of a snapshot."""
    return zlib.compress(to_text(snapshot).encode(), _COMPRESSION)


def from_state(state: bytes) -> Snapshot:
    """Return a stored snapshot; the plain text of earlier releases is read, too.

    Raises
    ------
    ValueError
        If it is damaged, or was stored by a later release.
    """
    if state.startswith(b"{"):
        return from_text(state.decode())
    try:
        return from_text(zlib.decompress(state).decode())
    except zlib.error as problem:
        raise ValueError(f"the stored snapshot is damaged: {problem}") from problem
