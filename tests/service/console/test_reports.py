"""The pages of reports say how many columns drifted, and each column's value beside its threshold."""

import pytest

from service.console import reports as page_of
from service.console.choices import ListChoices
from service.console.parts import Promises
from service.console.render import Frame
from service.console.reports import report_row

EVIL = '"><script>alert(1)</script>'


@pytest.fixture
def listing(pages):
    """Renders the page of all reports."""

    def make(reports=(), older="", **choices):
        rows = [report_row(each) for each in reports]
        chosen, promises = ListChoices("/reports", **choices), Promises(report_hours=12)
        html = page_of.reports(Frame("reports", 0), "spam", chosen, rows, older, promises, pages.now)
        return pages.read(html)

    return make


@pytest.fixture
def single(pages):
    """Renders the page of one report."""
    return lambda shown: pages.read(page_of.report(Frame("reports", 0), shown, pages.now))


def test_a_row_says_what_was_compared_and_what_drifted(pages, listing):
    """When, which traffic, rows of both sides, how many of the columns drifted and which, and its page."""
    page = listing([pages.report()])
    said = page.all("tbody")[0].words()
    for part in (
        "Report 2 10:00:07 UTC, 2 h ago",
        "2026-04-30 10:00:07 to 2026-05-01 10:00:07 UTC",
        "4,980 with 1,000 of the reference",
        "1 of 3 words",
    ):
        assert part in said
    assert {"/reports/2", "/v1/reports/2/html"} <= {a.attributes["href"] for a in page.all("a")}


def test_a_report_that_could_not_be_made_says_why(pages, listing, single):
    """It has no page to look at."""
    failed = pages.report(columns=(), error="no reference sample is kept")
    for page in (listing([failed]), single(failed)):
        assert "not made" in page.words()
        assert "no reference sample is kept" in page.words()
        assert not [a for a in page.all("a") if "/html" in a.attributes["href"]]


def test_no_reports_is_explained(listing):
    """How often one is made, and how to ask for one."""
    said = listing().words()
    assert "No reports yet. One is made every 12 h" in said
    assert "POST /v1/reports" in said
    assert "None further back." in listing(before=2).words()


def test_columns_stand_with_value_and_threshold(pages, single):
    """Those that drifted come first; one that could not be compared says why."""
    rows = [row.words() for row in single(pages.report()).all("tbody")[0].all("tr")]
    assert rows[0] == "words feature wasserstein mean 3.2 → 5.4 0.731 0.1 drifted"
    assert rows[1] == "likes feature wasserstein – 0.03219 0.1 not compared no rows have it"
    assert (
        rows[2] == "prediction prediction jensenshannon spam 25.0% → 31.0%, ham 75.0% → 69.0% 0.0412 0.1 no"
    )


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"column": None, "value": None, "drifted": None},
        {"mean": [1]},
        {"shares": {"a": 3}},
        {"mean": "no"},
    ],
)
def test_what_a_column_does_not_say_is_left_out(pages, single, odd):
    """A record of another version of reports is shown as far as it goes."""
    (row,) = single(pages.report(columns=(odd,))).all("tbody")[0].all("tr")
    assert row.words() == "– – – – – – –"


def test_hostile_columns_are_only_text(pages, listing, single):
    """Names, methods and values cannot become elements."""
    columns = ({"column": EVIL, "kind": EVIL, "method": EVIL, "value": EVIL, "drifted": True, "error": EVIL},)
    evil = pages.report(columns=columns)
    for page in (listing([evil]), single(evil)):
        assert page.all("script") == []
        assert EVIL in page.text
