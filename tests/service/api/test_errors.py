"""Errors as problems."""

import pytest

from models.errors import DataError, RegistryError
from service.api.errors import FieldError, InvalidRequest, error_response, problem_type_of
from service.errors import (
    DeadlinePassed,
    MisuseError,
    NoModel,
    Overloaded,
    ServiceError,
    Stopping,
    WrongResultCount,
)
from service.jobs.column_report.job import NoReference, ReportPageMissing, ReportRunning
from service.jobs.promotion import DamagedVersion, PromotionConflict
from service.store.errors import (
    AlarmResolved,
    RunActive,
    StaleRun,
    StoreError,
    StoreFull,
    StoreStopped,
    UnknownAlarm,
    UnknownReport,
    UnknownRun,
)
from service.views.slices import NotReady, UnknownSlice
from sfs.errors import InvalidFunction


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Overloaded("x"), 429),
        (StoreFull("x"), 429),
        (Stopping("x"), 503),
        (StoreStopped("x"), 503),
        (NoModel("x"), 503),
        (NotReady("x"), 503),
        (StoreError("x"), 503),
        (DeadlinePassed("x"), 504),
        (DataError("x"), 422),
        (InvalidFunction("x"), 422),
        (MisuseError("x"), 422),
        (UnknownSlice("x"), 404),
        (RegistryError("x"), 404),
        (UnknownAlarm("x"), 404),
        (UnknownRun("x"), 404),
        (UnknownReport("x"), 404),
        (ReportPageMissing("x"), 404),
        (AlarmResolved("x"), 409),
        (RunActive("x"), 409),
        (StaleRun("x"), 409),
        (PromotionConflict("x"), 409),
        (ReportRunning("x"), 409),
        (DamagedVersion("x"), 422),
        (NoReference("x"), 409),
        (WrongResultCount("x"), 500),
        (ServiceError("x"), 500),
        (ZeroDivisionError("x"), 500),
    ],
)
def test_each_error_has_its_status(error, status):
    """The status is that of the error's nearest class; unexpected errors are internal errors."""
    assert problem_type_of(error).status == status


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nope", 404), ("PUT", "/v1/predict", 405)])
def test_what_is_not_routed_is_a_problem(service, method, path, status):
    """Unknown paths and methods are problems too."""
    answer = service.runner.run(service.client.request(method, path))
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["detail"].startswith(f"{method} {path}: ")
    assert (answer.headers.get("allow") == "POST") is (status == 405)


def test_a_problem_has_all_its_members():
    """Type, title, status, detail, and the fields that are wrong."""
    answer = error_response(InvalidRequest([FieldError("ids[2]", "is there twice")]), "mine")
    assert answer.body == (
        b'{"type":"urn:slicewatch:problem:invalid-request","title":"The request is invalid","status":422,'
        b'"detail":"ids[2]: is there twice","errors":[{"field":"ids[2]","message":"is there twice"}],'
        b'"request_id":"mine"}'
    )
