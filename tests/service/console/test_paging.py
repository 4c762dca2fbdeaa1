"""Pages of records leave none out."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.console.paging import PAGE_RECORDS, page_of_records
from service.views.records import RecordsView


def log_of(pages, seconds):
    """Finds the records of a log, newest first, as the view does."""
    log = [pages.record(str(i), at=pages.now - timedelta(seconds=s)) for i, s in enumerate(sorted(seconds))]

    def ask(limit, before):
        found = tuple(each for each in log if before is None or each.at < before)
        return RecordsView(found[:limit], {}, len(found), len(found) <= limit)

    return log, ask


def read_through(ask):
    """The ids on all pages."""
    before, ids = None, []
    while True:
        page = page_of_records(lambda limit, before=before: ask(limit, before))
        ids += [each.id for each in page.found.records]
        if page.older is None:
            return ids
        before = page.older


@settings(deadline=None)
@given(st.lists(st.integers(0, 20), max_size=150))
def test_no_record_falls_between_pages(pages, seconds):
    """Whatever times the records share, reading page by page shows each once."""
    log, ask = log_of(pages, seconds)
    assert read_through(ask) == [each.id for each in log]


@pytest.mark.parametrize("n", [0, 1, PAGE_RECORDS])
def test_the_last_page_leads_nowhere(pages, n):
    """As many as fit, or fewer, are all there are."""
    _, ask = log_of(pages, range(n))
    page = page_of_records(lambda limit: ask(limit, None))
    assert (len(page.found.records), page.older) == (n, None)


def test_a_batch_larger_than_a_page_is_shown_whole(pages):
    """Records of one time stay together, whatever their number."""
    _, ask = log_of(pages, [0] * 60 + [1])
    page = page_of_records(lambda limit: ask(limit, None))
    assert (len(page.found.records), page.older) == (60, pages.now)
    assert len(read_through(ask)) == 61
