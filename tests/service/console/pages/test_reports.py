"""Pages of column reports: the number of drifted columns, and every column beside its threshold."""

import pytest
from page_factories import EVIL, NOW, read, report

from service.console.pages.reports import render_report, render_reports
from service.console.query_params import ListParams
from service.console.render import PageContext


@pytest.fixture
def listing():
    """Renders the page of all reports."""

    def make(reports=(), older="", **params):
        context, chosen = PageContext("reports", 0), ListParams("/reports", **params)
        return read(render_reports(context, "spam", chosen, reports, older, 12.0, NOW))

    return make


@pytest.fixture
def single():
    """Renders the page of one report."""
    return lambda shown: read(render_report(PageContext("reports", 0), shown, NOW))


def test_a_row_shows_the_compared_rows_and_the_drift(listing):
    """Time, traffic, rows of both sides, the drifted columns, and a link to the full report."""
    page = listing([report()])
    said = page.all("tbody")[0].words()
    for part in (
        "Report 2 10:00:07 UTC, 2 h ago",
        "2026-04-30 10:00:07 to 2026-05-01 10:00:07 UTC",
        "4,980 against 1,000 reference rows",
        "1 of 3 words",
    ):
        assert part in said
    assert {"/reports/2", "/v1/reports/2/html"} <= {a.attributes["href"] for a in page.all("a")}


def test_a_failed_report_shows_the_reason(listing, single):
    """It has no full report."""
    failed = report(columns=(), error="no reference sample is kept")
    for page in (listing([failed]), single(failed)):
        assert "failed" in page.words()
        assert "no reference sample is kept" in page.words()
        assert not [a for a in page.all("a") if "/html" in a.attributes["href"]]


def test_no_reports_is_explained(listing):
    """The page has the interval of reports, and the call that requests one."""
    said = listing().words()
    assert "No reports yet. A report is created every 12 h" in said
    assert "POST /v1/reports" in said
    assert "No older reports." in listing(before=2).words()


def test_columns_have_value_and_threshold(single):
    """Drifted columns come first; one that was not compared has a reason."""
    rows = [row.words() for row in single(report()).all("tbody")[0].all("tr")]
    assert rows[0] == "words feature wasserstein mean 3.2 → 5.4 0.731 0.1 drifted"
    assert rows[1] == "likes feature wasserstein – 0.03219 0.1 not compared no rows have it"
    assert rows[2] == "prediction prediction jensenshannon spam 25.0% → 31.0%, ham 75.0% → 69.0% 0.0412 0.1 no drift"


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
def test_missing_values_of_a_column_are_left_out(single, odd):
    """A column in the format of another version is shown as far as possible."""
    (row,) = single(report(columns=(odd,))).all("tbody")[0].all("tr")
    assert row.words() == "– – – – – – –"


def test_hostile_text_is_escaped(listing, single):
    """Names, methods and values cannot become elements."""
    columns = ({"column": EVIL, "kind": EVIL, "method": EVIL, "value": EVIL, "drifted": True, "error": EVIL},)
    evil = report(columns=columns)
    for page in (listing([evil]), single(evil)):
        assert page.all("script") == []
        assert EVIL in page.text
