"""Hot calls are answered as by FastAPI's router, byte for byte."""

import httpx
import pytest
from fastapi import FastAPI

from service.api.app import create_api
from service.api.short_path import HOT_CALLS

ROW = {"text": "subscribe to my song for free money", "likes": 2}
JSON = {"content-type": "application/json"}
CALLS = [
    ("POST", "/v1/predict", {"json": {"instances": [ROW]}}),
    ("POST", "/v1/predict", {"json": {"instances": [{"text": "no likes"}]}}),
    ("POST", "/v1/predict", {"json": {"instances": 3, "more": 4}}),
    ("POST", "/v1/predict", {"content": b"{", "headers": JSON}),
    ("POST", "/v1/predict", {"content": b"{}"}),
    ("POST", "/v1/predict", {"content": b"{}", "headers": JSON | {"content-encoding": "gzip"}}),
    ("POST", "/v1/predict", {"content": b"x" * 5_000_000, "headers": JSON}),
    ("POST", "/v1/predict", {"json": {}, "headers": {"host": "elsewhere"}}),
    ("POST", "/v1/predict", {"json": {"instances": [ROW]}, "headers": {"x-request-id": "mine"}}),
    ("POST", "/v1/predictions", {"json": {"predictions": [{"features": ROW, "label": "true"}]}}),
    ("POST", "/v1/predictions", {"json": {"predictions": [{"features": ROW, "label": "odd"}]}}),
    ("POST", "/v1/labels", {"json": {"labels": [{"id": "a", "label": "true", "idempotency_key": "k"}]}}),
    ("POST", "/v1/labels", {"json": {"labels": [{"id": "a", "label": "odd"}]}}),
    ("GET", "/healthz", {}),
    ("GET", "/healthz", {"headers": {"host": ""}}),
]


@pytest.mark.parametrize(("method", "path", "sent"), CALLS)
def test_the_answer_is_that_of_the_router(service, method, path, sent):
    """Status, headers in their order, and body, but for generated ids."""
    app = create_api(service.runtime, ["localhost"])

    async def routed(scope, receive, send):
        await FastAPI.__call__(app, scope, receive, send)

    def answer(asked):
        async def ask():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(asked), base_url="http://localhost") as client:
                return await client.request(method, path, **sent)

        got = service.runner.run(ask())
        ids = [got.headers.get("x-request-id", "none"), *(each["id"] for each in predictions(got))]
        text, headers = got.text, repr(got.headers.raw)
        for each in ids:
            text, headers = text.replace(each, "ID"), headers.replace(each, "ID")
        return got.status_code, headers, text

    service.post("/v1/labels", {"labels": [{"id": "a", "label": "true", "idempotency_key": "k"}]})
    assert answer(app) == answer(routed)


def predictions(answer):
    return answer.json().get("predictions", ()) if answer.status_code == 200 and "json" in str(answer.headers) else ()


def test_other_methods_are_refused_by_the_router(service):
    """A hot call is a method and a path."""
    for method, path in HOT_CALLS:
        other = "GET" if method == "POST" else "POST"
        answer = service.runner.run(service.client.request(other, path))
        assert (answer.status_code, answer.headers["allow"]) == (405, method)


def test_hot_calls_are_documented(service):
    """The document has them with their schemas."""
    paths = service.get("/openapi.json").json()["paths"]
    assert {(method.upper(), path) for path, item in paths.items() for method in item} >= HOT_CALLS


def test_a_second_host_is_not_accepted_later(service):
    """Of two host headers the first is checked; the other one names no host of the service."""
    app = create_api(service.runtime, ["localhost"])

    async def statuses():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            hosts = ["localhost", "elsewhere"], ["elsewhere"], ["localhost"]
            asked = [await client.get("/healthz", headers=[("host", each) for each in some]) for some in hosts]
            return [answer.status_code for answer in asked]

    assert service.runner.run(statuses()) == [200, 400, 200]
