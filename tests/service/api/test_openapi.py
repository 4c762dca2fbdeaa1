"""What ``/openapi.json`` says."""

import pytest

from service.api.app import ROUTES

PROBLEM = "application/problem+json"
KEYS = {"401", "403", "429"}
"""Answers of a route that needs a key, if the service has keys."""
BODY = {"408", "413", "415", "422", "429", "503", "504"}
OPERATIONS = {
    ("post", "/v1/predict"): {"200", "408", "409", "413", "415", "422", "429", "503", "504"},
    ("post", "/v1/predictions"): {"200", "408", "409", "413", "415", "422", "429", "503", "504"},
    ("post", "/v1/labels"): {"200", "408", "413", "415", "422", "429", "503", "504"},
    ("get", "/v1/slices"): {"200", "422", "503", "504"},
    ("get", "/v1/slices/{name}"): {"200", "404", "422", "503", "504"},
    ("get", "/v1/predictions/{id}"): {"200", "404", "422", "503", "504"},
    ("get", "/v1/slices/{name}/records"): {"200", "404", "422", "503", "504"},
    ("get", "/v1/functions"): {"200", "503", "504"},
    ("post", "/v1/functions"): {"201", "408", "409", "413", "415", "422", "429", "503", "504"},
    ("post", "/v1/functions/preview"): {"200", "408", "413", "415", "422", "503", "504"},
    ("delete", "/v1/functions/{name}"): {"204", "404", "409", "422", "429", "503", "504"},
    ("get", "/v1/models"): {"200", "503", "504"},
    ("get", "/v1/models/{version}"): {"200", "404", "422", "503", "504"},
    ("post", "/v1/models/{version}/promote"): BODY | {"200", "404", "409"},
    ("post", "/v1/models/rollback"): BODY | {"200", "404", "409"},
    ("get", "/v1/alarms"): {"200", "422", "503", "504"},
    ("get", "/v1/alarms/{id}"): {"200", "404", "422", "503", "504"},
    ("post", "/v1/alarms/{id}/acknowledge"): BODY | {"200", "404", "409"},
    ("post", "/v1/alarms/{id}/resolve"): BODY | {"200", "404"},
    ("post", "/v1/alarms/{id}/accept"): BODY | {"200", "404", "409"},
    ("get", "/v1/incidents"): {"200", "422", "503", "504"},
    ("get", "/v1/incidents/{id}"): {"200", "404", "422", "503", "504"},
    ("post", "/v1/incidents/{id}/acknowledge"): BODY | {"200", "404", "409"},
    ("post", "/v1/incidents/{id}/resolve"): BODY | {"200", "404"},
    ("post", "/v1/retrain"): BODY | {"202", "409"},
    ("get", "/v1/runs"): {"200", "422", "503", "504"},
    ("get", "/v1/runs/{id}"): {"200", "404", "422", "503", "504"},
    ("get", "/v1/reports"): {"200", "422", "503", "504"},
    ("post", "/v1/reports"): BODY | {"202", "409"},
    ("get", "/v1/reports/{id}"): {"200", "404", "422", "503", "504"},
    ("get", "/v1/reports/{id}/html"): {"200", "404", "409", "422", "503", "504"},
    ("get", "/v1/audit"): {"200", "422", "503", "504"},
    ("get", "/healthz"): {"200"},
    ("get", "/readyz"): {"200", "503"},
    ("get", "/metrics"): {"200"},
}


@pytest.fixture
def document(service):
    return service.get("/openapi.json").json()


def references(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_every_route_says_how_it_may_answer(document):
    """The operations, and the statuses of each, are these."""
    found = {
        (method, path): set(operation["responses"])
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    is_open = ("/healthz", "/readyz")
    assert found == {(m, path): own if path in is_open else own | KEYS for (m, path), own in OPERATIONS.items()}
    assert set(document["paths"]) == {route.replace(":path}", "}") for route in ROUTES}


def test_every_refusal_is_a_problem(document):
    """Refusals are problems, and never FastAPI's own shape of errors."""
    for item in document["paths"].values():
        for operation in item.values():
            for status, response in operation["responses"].items():
                if status >= "400":
                    assert list(response["content"]) == [PROBLEM]
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_schema_that_is_spoken_of_is_there(document):
    """No reference leads nowhere."""
    names = {each.removeprefix("#/components/schemas/") for each in references(document)}
    assert names <= set(document["components"]["schemas"])


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        ("/v1/predict", "PredictIn", "PredictionsOut"),
        ("/v1/predictions", "PredictionsIn", "PredictionsOut"),
        ("/v1/labels", "LabelsIn", "LabelsOut"),
        ("/v1/functions", "FunctionIn", "FunctionOut"),
        ("/v1/functions/preview", "PreviewIn", "PreviewOut"),
        ("/v1/models/{version}/promote", "PromoteIn", "PromotedOut"),
        ("/v1/models/rollback", "ActionIn", "PromotedOut"),
        ("/v1/alarms/{id}/acknowledge", "AlarmIn", "AlarmOut"),
        ("/v1/alarms/{id}/resolve", "AlarmIn", "AlarmOut"),
        ("/v1/alarms/{id}/accept", "AlarmIn", "AlarmOut"),
        ("/v1/incidents/{id}/acknowledge", "AlarmIn", "IncidentOut"),
        ("/v1/incidents/{id}/resolve", "AlarmIn", "IncidentOut"),
        ("/v1/retrain", "ActionIn", "RunDetailOut"),
        ("/v1/reports", "ReportIn", "ReportRequestedOut"),
    ],
)
def test_bodies_that_routes_read_by_themselves_are_documented(document, path, body, answer):
    """Each POST says what it takes and gives."""
    operation = document["paths"][path]["post"]
    (good,) = (each for status, each in operation["responses"].items() if status.startswith("2"))
    assert operation["requestBody"]["required"] is True
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith(f"/{body}")
    assert good["content"]["application/json"]["schema"]["$ref"].endswith(f"/{answer}")


def test_the_document_is_made_once(service):
    """Asking again makes the same document."""
    assert service.get("/openapi.json").content == service.get("/openapi.json").content


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_there_is_no_page_that_fetches_scripts(service, path):
    """The framework's pages, which load from the network, are off."""
    answer = service.get(path)
    assert answer.status_code == 404
    assert answer.json()["detail"].endswith("see /openapi.json")
