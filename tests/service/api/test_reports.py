"""``/v1/reports``."""

from datetime import timedelta
from functools import partial

import pytest

from service.decisions import DriftReport
from service.jobs.column_report.job import REPORTS
from service.jobs.column_report.process import PAGE, report_folder
from service.store.reports import add_report

COLUMNS = (
    {"column": "likes", "kind": "number", "method": "wasserstein", "threshold": 0.1, "value": 0.4, "drifted": True},
    {"column": "text", "kind": "text", "method": "domain", "threshold": 0.6, "value": 0.5, "drifted": False},
)  # fmt: skip


def kept(service, error="") -> DriftReport:
    columns = () if error else COLUMNS
    start = service.now - timedelta(hours=1)
    report = DriftReport(0, "comments", 1, service.now, start, service.now, 500, 400, columns, error)
    return service.kept(partial(add_report, report=report))


def kind(answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


def test_a_report_is_told_column_by_column(service):
    """With how many rows were compared, and how many columns differ."""
    report = kept(service)
    (one,) = service.get("/v1/reports").json()["reports"]
    assert one == service.get(f"/v1/reports/{report.id}").json()
    assert (one["reference_rows"], one["current_rows"], one["drifted"]) == (500, 400, 1)
    assert (one["columns"], one["error"]) == (list(COLUMNS), "")
    assert (one["start"], one["end"]) == ("2026-05-01T11:00:00Z", "2026-05-01T12:00:00Z")


def test_reports_come_in_pages(service):
    """Newest first; ``next`` leads on."""
    first, second = kept(service), kept(service)
    page = service.get("/v1/reports?limit=1").json()
    assert ([each["id"] for each in page["reports"]], page["next"]) == ([second.id], second.id)
    page = service.get(f"/v1/reports?limit=1&before={page['next']}").json()
    assert ([each["id"] for each in page["reports"]], page["next"]) == ([first.id], None)


def test_a_report_is_requested(service):
    """202 at once; the report is in the list when it is finished, here with too little traffic."""
    answer = service.post("/v1/reports", {})
    assert (answer.status_code, answer.json()) == (202, {"asked_at": "2026-05-01T12:00:00Z"})
    while not (reports := service.get("/v1/reports").json()["reports"]):
        pass
    assert "0 predictions to compare" in reports[0]["error"]


def test_without_a_version_there_is_nothing_to_report(service):
    """503 that says so; nothing is started."""
    service.set_state(version=None)
    assert kind(service.post("/v1/reports", {})) == (503, "no-model")


def test_an_external_version_without_a_table_has_nothing_to_compare_with(service):
    """409: its reference table has not been read, and the answer says why."""
    service.set_state(version=7, active=None, table_note="being counted on comments.csv")
    answer = service.post("/v1/reports", {})
    assert kind(answer) == (409, "no-reference")
    assert "being counted on comments.csv" in answer.json()["detail"]


def test_one_report_at_a_time(service, held):
    """409 while one is running."""
    held()
    assert service.post("/v1/reports", {}).status_code == 202
    assert kind(service.post("/v1/reports", {})) == (409, "report-running")


def test_a_report_is_shown_as_a_page_that_stands_alone(service):
    """It may run its own scripts, of no origin, and fetch nothing."""
    report = kept(service)
    folder = report_folder(service.runtime.settings.store.parent / REPORTS, report.at)
    folder.mkdir(parents=True)
    (folder / PAGE).write_text("<h1>report</h1>")
    answer = service.get(f"/v1/reports/{report.id}/html")
    assert (answer.status_code, answer.text) == (200, "<h1>report</h1>")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none';")
    assert "allow-same-origin" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_report_that_could_not_be_made_has_no_page(service):
    """404 that says why there is none; its values are empty."""
    report = kept(service, error="too few rows")
    answer = service.get(f"/v1/reports/{report.id}/html")
    assert kind(answer) == (404, "no-page")
    assert "too few rows" in answer.json()["detail"]
    assert service.get(f"/v1/reports/{report.id}").json()["error"] == "too few rows"


@pytest.mark.parametrize("path", ["/v1/reports/7", "/v1/reports/7/html"])
def test_an_unknown_report_is_not_found(service, path):
    """404 that says where the reports are."""
    assert kind(service.get(path)) == (404, "unknown-report")
