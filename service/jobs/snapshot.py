"""The monitor's tick: from rows and labels that have come to a committed snapshot."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from datetime import datetime
from functools import partial

from sqlalchemy import Connection

from service.events import Snapshot
from service.jobs.block_cache import BlockCache
from service.monitor.estimates import EstimateConfig
from service.monitor.snapshot import SnapshotScope, from_text, take_snapshot, to_text
from service.monitor.windows import BLOCK_SECONDS, floor_to, windows
from service.store import queries
from service.store.block_store import read_dirty, replace_blocks
from service.store.engine import Store
from service.store.writer import Writer
from service.views.current import Current

CHECKPOINT = "snapshot"
"""The name under which the last snapshot is kept."""

_DIRTY_BLOCKS = 256  # counted, and committed, together
_COMPRESSION = 1  # the quickest level takes three quarters away

_log = logging.getLogger(__name__)


class SnapshotJob:
    """Makes the snapshots of the version in force; the only one that counts blocks again.

    Not to be called from two threads at once.

    Parameters
    ----------
    store, writer
        The log.
    current
        Says what is in force, and is told the snapshot and how its figures were made.
    judging
        How figures are made, asked at every tick.
    show
        Is given every snapshot once it is committed.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer,
        current: Current,
        judging: Callable[[], EstimateConfig],
        show: Callable[[Snapshot], object],
    ) -> None:
        self._store, self._writer, self._current = store, writer, current
        self._judging, self._show = judging, show
        self._held: BlockCache | None = None
        self._merged_at: datetime | None = None

    def tick(self, now: datetime) -> Snapshot | None:
        """Count what has changed again, commit a snapshot as of now, and show it; None where no version is.

        After an error everything is read from the store the next time.

        Raises
        ------
        StoreError
            If the store cannot be written.
        """
        try:
            made = self._tick(now)
        except BaseException:
            self._held = None
            raise
        return made

    def restore(self) -> None:
        """Show the last snapshot that was committed, if it is of the version in force."""
        self._current.judging = self._judging()
        with self._store.read() as connection:
            kept = queries.checkpoint(connection, CHECKPOINT)
        if kept is None:
            return
        try:
            last = from_state(kept.state)
        except ValueError as error:
            _log.warning("the last snapshot is not shown: %s", error)
            return
        in_force = self._current.in_force
        if (last.model, last.version) == (in_force.model, in_force.version):
            self._publish(last)

    def _tick(self, now: datetime) -> Snapshot | None:
        in_force = self._current.in_force
        since = min(span.start for span in windows(now, in_force.promoted_at).values())
        if self._held is not None and not self._held.serves(in_force.model, in_force.version, since):
            self._held = None
        self._recount()
        if in_force.version is None:
            return None
        with self._store.read() as connection:
            held = self._up_to_date(connection, in_force.model, in_force.version, since, now)
            last_label_at = queries.last_label_at(connection, in_force.model)
        watched = SnapshotScope(
            in_force.model,
            in_force.version,
            in_force.functions_version,
            in_force.promoted_at,
            last_label_at,
        )
        judging = self._current.judging = self._judging()
        made = take_snapshot(now, watched, held.timelines.values(), held.sets, judging)
        self._writer.save_checkpoint(CHECKPOINT, now, to_state(made)).result()
        self._publish(made)
        return made

    def _recount(self) -> None:
        """Count dirty blocks again until all that were dirty are done."""
        more = True
        while more:
            with self._store.read() as connection:
                counted = read_dirty(connection, _DIRTY_BLOCKS)
                if not counted:
                    return
                done = self._writer.submit(partial(replace_blocks, recounts=counted)).result()
                if self._held is not None:
                    self._held.take(connection, done)
            # What changed while it was counted is dirty still; with nothing done, it is left to the next tick.
            more = bool(done) and sum(len(each.marks) for each in counted) >= _DIRTY_BLOCKS

    def _up_to_date(
        self, connection: Connection, model: str, version: int, since: datetime, now: datetime
    ) -> BlockCache:
        """Return the blocks of the version in force, loaded if they were not, merged as in the store."""
        merged_at = floor_to(now, BLOCK_SECONDS[1])
        if self._held is None:
            self._held = BlockCache(connection, model, version, since)
        elif merged_at != self._merged_at:
            self._held.take_merged(connection)
        self._merged_at = merged_at
        return self._held

    def _publish(self, made: Snapshot) -> None:
        self._current.snapshot = made
        self._show(made)


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
