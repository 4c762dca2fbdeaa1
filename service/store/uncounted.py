"""Which blocks lack rows that the log has."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, func, select

from service.events import BlockCounts
from service.monitor.windows import BLOCK_SECONDS
from service.store.counts import Span, end_us
from service.store.labels import SECOND_US
from service.store.tables import dirty_blocks, from_us, predictions, to_us


def first_uncounted(
    connection: Connection,
    model: str,
    version: int,
    counted: Iterable[BlockCounts],
    since: datetime,
    until: datetime,
) -> datetime | None:
    """Return the start of the first block that does not count the rows that the log has; None without one.

    Only blocks that are to be counted again can be one. Most of these are not, for a label, too, has a block
    counted again.

    Parameters
    ----------
    counted
        The blocks of the model version that there are in [since, until).
    since, until
        Where to look.
    """
    d = dirty_blocks.c
    marked = select(d.set_hash, d.start_us).where(
        d.model == model, d.version == version, d.start_us >= to_us(since), d.start_us < to_us(until)
    )
    there = {(block.set_hash, to_us(block.start), block.seconds): block.n for block in counted}
    found = set()
    for set_hash, start_us in connection.execute(marked).all():
        span = _span(there, set_hash, start_us)
        if _rows(connection, model, version, set_hash, span) != there.get((set_hash, *span), 0):
            found.add(span[0])
    return from_us(min(found)) if found else None


def _span(there: Iterable[tuple[str, int, int]], set_hash: str, start_us: int) -> Span:
    """Return the span of the block that a mark is about, a short one where there is none."""
    spans = [(start_us - start_us % (seconds * SECOND_US), seconds) for seconds in BLOCK_SECONDS]
    return next((span for span in spans if (set_hash, *span) in there), spans[0])


def _rows(connection: Connection, model: str, version: int, set_hash: str, span: Span) -> int:
    p = predictions.c
    query = select(func.count()).where(
        p.model == model,
        p.version == version,
        p.set_hash == set_hash,
        p.at_us >= span[0],
        p.at_us < end_us(span),
    )
    return connection.scalar(query) or 0
