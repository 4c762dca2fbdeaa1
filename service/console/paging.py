"""Pages of records, cut where the time changes, so that no record falls between two of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from service.views.records import RecordsView, RecordView

PAGE_RECORDS = 25
TOGETHER_RECORDS = 1000
"""Records of one time that are shown together, at most: as many as one request can bring."""


@dataclass(frozen=True, slots=True)
class RecordsPage:
    """Records on a page, what was counted on the way, and the time before which the next page begins."""

    found: RecordsView
    older: datetime | None


def page_of_records(ask: Callable[[int], RecordsView]) -> RecordsPage:
    """Return the first page of the records that are found.

    Parameters
    ----------
    ask
        Finds so many records, newest first.
    """
    found = ask(PAGE_RECORDS + 1)
    if len(found.records) <= PAGE_RECORDS:
        return RecordsPage(found, None)
    if found.records[0].at == found.records[-1].at:
        found = ask(TOGETHER_RECORDS + 1)
    shown = _cut(found.records)
    return RecordsPage(replace(found, records=shown), shown[-1].at)


def _cut(records: Sequence[RecordView]) -> tuple[RecordView, ...]:
    """Leave out the time that a page cannot show wholly, unless it is the only one."""
    last = records[PAGE_RECORDS].at
    whole = tuple(each for each in records if each.at > last)
    return whole or tuple(each for each in records if each.at == last)
