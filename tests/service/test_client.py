"""The client against a server with scripted responses."""

import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from service.client import Client, ClientError, LabelResponse, NoResponse, NotRunning, PredictionResponse
from service.errors import MisuseError

SPAM = {
    "id": "a",
    "label": "spam",
    "probabilities": {"ham": 0.25, "spam": 0.75},
    "slices": ["short"],
    "unknown_slices": ["links"],
    "version": 3,
    "repeated": False,
}
ANSWER = {"model": {"name": "comments", "version": 3}, "predictions": [SPAM]}
HANG_UP = None
"""In place of a response: the connection is closed."""


@dataclass(frozen=True)
class Response:
    status: int = 200
    document: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    document: Any
    port: int


class Scripted(ThreadingHTTPServer):
    """Sends one response after the other, and records the requests."""

    def __init__(self) -> None:
        self.responses: deque[Response | None] = deque()
        self.asked: list[Asked] = []
        self.closed = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def will(self, *responses: Response | None) -> None:
        self.responses.extend(responses)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.closed.set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        document = json.loads(body) if body else None
        self.server.asked.append(Asked(self.command, self.path, document, self.client_address[1]))
        response = self.server.responses.popleft()
        if response is HANG_UP:
            self.close_connection = True
            return
        sent = response.document
        payload = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
        self.send_response(response.status)
        for name, value in {"Content-Length": str(len(payload)), **response.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)
        self.close_connection = "hang up" in response.headers.values()

    do_POST = do_GET  # noqa: N815 - the server looks for this name

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def waits() -> list[float]:
    """Waits of the client, in seconds."""
    return []


@pytest.fixture
def client(server: Scripted, waits: list[float]) -> Iterator[Client]:
    with Client(server.url, timeout_seconds=300, retries=2, sleep=waits.append) as made:
        yield made


def problem(status: int, detail: str, **more: Any) -> Response:
    document = {"type": "urn:x", "title": "Not so", "status": status, "detail": detail, **more}
    return Response(status, document, {"Content-Type": "application/problem+json"})


def test_predictions_are_values(server: Scripted, client: Client) -> None:
    """Records and ids are sent, and the response is a value."""
    server.will(Response(document=ANSWER))
    answer = client.predict([{"text": "hi"}], ["a"])
    expected = PredictionResponse("a", "spam", {"ham": 0.25, "spam": 0.75}, ("short",), ("links",), 3, False)
    assert (answer.model, answer.version, answer.predictions) == ("comments", 3, (expected,))
    assert server.asked[0].document == {"instances": [{"text": "hi"}], "ids": ["a"]}


def test_without_ids_none_are_sent(server: Scripted, client: Client) -> None:
    """Without ids, the request has none."""
    server.will(Response(document=ANSWER))
    client.predict([{"text": "hi"}])
    assert server.asked[0].document == {"instances": [{"text": "hi"}]}


def test_predictions_made_elsewhere_are_logged(server: Scripted, client: Client) -> None:
    """Times are sent with their zone; probabilities may be None."""
    server.will(Response(document={**ANSWER, "predictions": [{**SPAM, "probabilities": None}]}))
    at = datetime(2026, 5, 1, tzinfo=UTC)
    answer = client.log_predictions([{"features": {"text": "hi"}, "label": "spam", "predicted_at": at}])
    assert answer.predictions[0].probabilities is None
    assert server.asked[0].path == "/v1/predictions"
    assert server.asked[0].document["predictions"][0]["predicted_at"] == "2026-05-01T00:00:00+00:00"


def test_labels_go_in_batches_over_one_connection(server: Scripted, client: Client) -> None:
    """Outcomes are returned in order."""
    outcomes = [["accepted", "duplicate"], ["rejected"]]
    for batch in outcomes:
        told = [{"id": "x", "outcome": outcome, "reason": None} for outcome in batch]
        server.will(Response(document={"labels": told}))
    answers = client.label(({"id": str(n), "label": "spam"} for n in range(3)), batch_rows=2)
    assert answers == [LabelResponse("x", outcome) for batch in outcomes for outcome in batch]
    assert [[each["id"] for each in asked.document["labels"]] for asked in server.asked] == [
        ["0", "1"],
        ["2"],
    ]
    assert server.asked[0].port == server.asked[1].port


def test_a_label_that_is_sent_again_has_the_same_key(server: Scripted, client: Client) -> None:
    """A retried label keeps its key; the same label in another call has another key."""
    told = Response(document={"labels": [{"id": "a", "outcome": "accepted", "reason": None}]})
    server.will(HANG_UP, Response(503, {}), told, told)
    for _ in range(2):
        client.label([{"id": "a", "label": "spam"}])
    *again, other = [asked.document["labels"][0]["idempotency_key"] for asked in server.asked]
    assert len(again) == 3
    assert len(set(again)) == 1
    assert len(again[0]) == 32
    assert other not in again


def test_a_label_with_a_time_or_a_key_is_kept(server: Scripted, client: Client) -> None:
    """A label with a time or a key gets no other key."""
    outcome = {"id": "a", "outcome": "accepted", "reason": None}
    server.will(Response(document={"labels": [outcome] * 3}))
    timed = {"id": "a", "label": "spam", "observed_at": "2026-05-01T12:00:00Z"}
    keyed = {"id": "a", "label": "spam", "idempotency_key": "mine"}
    client.label([timed, keyed, {"id": "a", "label": "spam"}])
    *sent, other = server.asked[0].document["labels"]
    assert sent == [timed, keyed]
    assert other["idempotency_key"]


def test_no_labels_are_no_request(server: Scripted, client: Client) -> None:
    """Without labels, no request is sent."""
    assert client.label([]) == []
    assert server.asked == []


def test_slices_and_models_are_documents(server: Scripted, client: Client) -> None:
    """Slices and models are returned as documents."""
    server.will(Response(document={"window": "5m"}), Response(document={"models": []}))
    assert (client.slices("5m"), client.models()) == ({"window": "5m"}, {"models": []})
    assert [asked.path for asked in server.asked] == ["/v1/slices?window=5m", "/v1/models"]


@pytest.mark.parametrize(
    ("call", "method", "path", "document"),
    [
        (lambda client: client.alarms(), "GET", "/v1/alarms?state=unresolved&limit=100", None),
        (lambda client: client.alarms("all", before=7, limit=2), "GET", "/v1/alarms?state=all&limit=2&before=7", None),
        (lambda client: client.alarm(3), "GET", "/v1/alarms/3", None),
        (lambda client: client.acknowledge(3, by="ada"), "POST", "/v1/alarms/3/acknowledge", {"by": "ada", "note": ""}),
        (lambda client: client.resolve(3, note="over"), "POST", "/v1/alarms/3/resolve", {"by": "", "note": "over"}),
        (lambda client: client.retrain("new labels"), "POST", "/v1/retrain", {"reason": "new labels", "by": ""}),
        (lambda client: client.runs(before=4), "GET", "/v1/runs?limit=50&before=4", None),
        (lambda client: client.run(4), "GET", "/v1/runs/4", None),
        (
            lambda client: client.promote(2, expected=1, reason="better"),
            "POST",
            "/v1/models/2/promote",
            {"reason": "better", "by": "", "expected": 1},
        ),
        (lambda client: client.rollback("worse"), "POST", "/v1/models/rollback", {"reason": "worse", "by": ""}),
        (lambda client: client.reports(limit=1), "GET", "/v1/reports?limit=1", None),
        (lambda client: client.audit(), "GET", "/v1/audit?limit=100", None),
    ],
)  # fmt: skip
def test_calls_of_the_loop_are_documents(
    server: Scripted, client: Client, call: Callable, method: str, path: str, document: Any
) -> None:
    """Every call has its method, path and document, and returns the response."""
    server.will(Response(document={"id": 3}))
    assert call(client) == {"id": 3}
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.document) == (method, path, document)


def test_readiness_has_reasons(server: Scripted, client: Client) -> None:
    """Not ready is a response with reasons."""
    server.will(problem(503, "no champion", reasons={"model": "no champion"}), Response(document={"ready": True}))
    first, second = client.ready(), client.ready()
    assert (first.ready, first.reasons) == (False, {"model": "no champion"})
    assert (second.ready, second.reasons) == (True, {})


@pytest.mark.parametrize("response", [Response(404, b"nothing here"), Response(200, b"hello")])
def test_something_else_is_not_ready(server: Scripted, client: Client, response: Response) -> None:
    """Another server at the address is an error."""
    server.will(response)
    with pytest.raises(ClientError, match=f"{server.url} is not a Slicewatch service of this version: [nh]"):
        client.ready()


def test_a_refusal_says_which_fields(server: Scripted, client: Client) -> None:
    """A problem document becomes an error with its fields."""
    server.will(problem(422, "two fields", errors=[{"field": "instances[0].likes", "message": "not a number"}]))
    with pytest.raises(ClientError) as caught:
        client.predict([{"likes": "x"}])
    assert (caught.value.status, caught.value.title, caught.value.detail) == (422, "Not so", "two fields")
    assert caught.value.errors == (("instances[0].likes", "not a number"),)
    assert str(caught.value) == "422 Not so: two fields; instances[0].likes: not a number"


def test_a_field_in_the_detail_is_not_repeated(server: Scripted, client: Client) -> None:
    """A field that is in the detail is not repeated."""
    server.will(problem(422, "ids[0]: too long", errors=[{"field": "ids[0]", "message": "too long"}]))
    with pytest.raises(ClientError) as caught:
        client.predict([{}], ["x" * 300])
    assert str(caught.value) == "422 Not so: ids[0]: too long"


def test_an_error_of_a_proxy_is_shown(server: Scripted, client: Client) -> None:
    """The error of another body has its beginning."""
    server.will(Response(502, b"<h1>Bad\n gateway</h1>" + b"." * 1000))
    with pytest.raises(ClientError, match=r"^502 Bad Gateway: <h1>Bad gateway</h1>\.+$") as caught:
        client.models()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("document", [b"<html>", [], {"predictions": []}, {"model": 1, "predictions": [1]}])
def test_another_service_is_recognised(server: Scripted, client: Client, document: Any) -> None:
    """An unexpected document is an error with the address."""
    server.will(Response(document=document))
    with pytest.raises(ClientError, match="is not a Slicewatch service"):
        client.predict([{}])


def test_a_busy_service_is_retried(server: Scripted, client: Client, waits: list) -> None:
    """Retry-After in seconds is obeyed; other waits grow to a maximum."""
    told = {"labels": [{"id": "a", "outcome": "accepted", "reason": None}]}
    server.will(Response(429, {}, {"Retry-After": "3"}), Response(503, {}), Response(document=told))
    assert client.label([{"id": "a", "label": "spam"}]) == [LabelResponse("a", "accepted")]
    assert waits == [3.0, 0.5]
    server.will(Response(429, {}, {"Retry-After": "3600"}), Response(document=told))
    client.label([{"id": "a", "label": "spam"}])
    assert waits[2:] == [10.0]


def test_a_date_in_retry_after_is_ignored(server: Scripted, client: Client, waits: list) -> None:
    """Retry-After as a date is ignored."""
    server.will(Response(503, {}, {"Retry-After": "Fri, 01 May 2026 00:00:00 GMT"}), Response(document=ANSWER))
    client.predict([{}], ["a"])
    assert waits == [0.25]


def test_a_service_that_stays_busy_is_an_error(server: Scripted, client: Client, waits: list) -> None:
    """A service that stays busy is an error after all retries."""
    server.will(*[problem(429, "too many rows wait")] * 3)
    with pytest.raises(ClientError, match="429 Not so: too many rows wait"):
        client.slices()
    assert (len(server.asked), len(waits)) == (3, 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.predict([{}]),
        lambda client: client.log_predictions([{"label": "a", "id": "x"}, {"label": "b"}]),
        lambda client: client.retrain(),
        lambda client: client.promote(2),
        lambda client: client.rollback(),
    ],
)
def test_unsafe_calls_are_sent_once(server: Scripted, client: Client, call: Callable) -> None:
    """Calls that are not safe to repeat are sent once."""
    server.will(problem(429, "later"), HANG_UP)
    with pytest.raises(ClientError, match="429"):
        call(client)
    with pytest.raises(NoResponse, match="did not answer POST"):
        call(client)
    assert len(server.asked) == 2


def test_a_broken_connection_is_reopened(server: Scripted, client: Client) -> None:
    """A call that is safe to repeat is retried over a new connection."""
    server.will(HANG_UP, Response(document=ANSWER))
    assert client.predict([{}], ["a"]).version == 3
    assert server.asked[0].port != server.asked[1].port


def test_a_closed_idle_connection_is_reopened(server: Scripted, client: Client) -> None:
    """An idle connection that was closed is reopened, for every call."""
    server.will(Response(document=ANSWER, headers={"X-Then": "hang up"}), Response(document=ANSWER))
    client.predict([{}])
    assert server.closed.wait(300)
    client.predict([{}])
    assert len(server.asked) == 2


def test_a_missing_service_is_reported_with_advice() -> None:
    """The error has the address and the command that starts the service."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises(NotRunning, match=rf"no service answers at {url[:-1]} \(.*refused\).*slicewatch up"):
            Client(url).slices()


def test_a_timeout_is_not_retried(waits: list) -> None:
    """A timeout is not retried."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        client = Client(f"http://127.0.0.1:{port}", timeout_seconds=0.05, sleep=waits.append)
        with pytest.raises(NoResponse, match=r"did not answer GET /v1/models within 0\.05 s"):
            client.models()
    assert waits == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "use None for a missing value"),
        ({1, 2}, "a set; use text, numbers, lists and dicts"),
        (datetime(2026, 5, 1), "the time 2026-05-01T00:00:00 without a time zone"),
    ],
)
def test_values_that_json_lacks_are_refused(server: Scripted, client: Client, value: Any, message: str) -> None:
    """Values that JSON lacks are refused before any request."""
    with pytest.raises(MisuseError, match=message):
        client.predict([{"likes": value}])
    assert server.asked == []


def test_scalars_of_numpy_are_sent_as_their_values(server: Scripted, client: Client) -> None:
    """Integers, floats and booleans of any width are numbers and booleans."""
    server.will(Response(document=ANSWER))
    row = {
        "a": np.int64(3),
        "b": np.float32(0.5),
        "c": np.bool_(True),
        "d": np.float64(1.5),
        "e": np.str_("x"),
    }
    client.predict([row])
    assert server.asked[0].document["instances"] == [{"a": 3, "b": 0.5, "c": True, "d": 1.5, "e": "x"}]


@pytest.mark.parametrize("value", [np.float32("nan"), np.datetime64("2026-05-01"), np.zeros(2), pd.NaT, pd.NA, b"x"])
def test_a_refused_value_is_named_by_row_and_column(server: Scripted, client: Client, value: Any) -> None:
    """The message begins with the place of the first value that JSON lacks."""
    with pytest.raises(MisuseError, match=r"^instances\[1\]\.likes: not valid in JSON: "):
        client.predict([{"likes": 1}, {"text": "a", "likes": value}])
    features = [{"id": "a", "label": "x", "features": {"likes": [1, value]}}]
    with pytest.raises(MisuseError, match=r"^predictions\[0\]\.features\.likes\[1\]: not valid in JSON: "):
        client.log_predictions(features)
    assert server.asked == []


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://host:port", "http://[::1", ""])
def test_an_invalid_url_is_refused(url: str) -> None:
    """An invalid URL is refused with an example."""
    with pytest.raises(MisuseError, match=r"of a service: write it as http://127\.0\.0\.1:8000"):
        Client(url)


@pytest.mark.parametrize("key", ["sw_ä", "sw_a\nsw_b", "sw_\udcff"])
def test_a_key_that_is_none_is_refused_without_quoting_it(key: str) -> None:
    """It may be a secret in the wrong form, and errors are logged."""
    with pytest.raises(MisuseError, match="has characters that no key has") as error:
        Client(key=key)
    assert key not in str(error.value)


def test_a_key_may_have_the_end_of_its_line(server: Scripted) -> None:
    """As read from a file."""
    server.responses.append(Response(document={"model": "comments", "models": []}))
    with Client(server.url, key="sw_a\n") as client:
        assert client.models()["model"] == "comments"


def test_a_service_behind_a_path_is_reached(server: Scripted) -> None:
    """The URL may have a path prefix."""
    server.will(Response(document={"models": []}))
    with Client(f"{server.url}/watch/") as client:
        assert client.url == f"{server.url}/watch"
        client.models()
    assert server.asked[0].path == "/watch/v1/models"


def test_the_service_itself_is_understood(running: tuple[Path, str]) -> None:
    """Predictions, repetitions, conflicts, outcomes and documents of a real service are understood."""
    _, url = running
    order = {"Price [eur]": 12.5, "country": "no", "Customer's comment: (raw)": "fine thanks"}
    with Client(url) as client:
        (first,) = client.predict([order], ["order-1"]).predictions
        (again,) = client.predict([order], ["order-1"]).predictions
        assert (first.repeated, again.repeated, again.label) == (False, True, first.label)
        assert set(first.probabilities) == {"kept", "lost", "returned"}
        assert {"short_comment", "cheap"} <= {*first.slices, *first.unknown_slices}
        with pytest.raises(ClientError) as caught:
            client.predict([{**order, "country": "se"}], ["order-1"])
        assert (caught.value.status, caught.value.errors[0][0]) == (409, "ids[0]")
        logged = client.log_predictions([{"id": "order-2", "features": order, "label": "lost"}])
        assert (logged.model, logged.predictions[0].probabilities) == ("orders", None)
        outcomes = client.label([{"id": id_, "label": "kept"} for id_ in ("order-1", "order-2", "order-3")])
        assert [each.outcome for each in outcomes] == ["accepted", "accepted", "pending"]
        assert client.models()["models"][0]["version"] == 1
        assert isinstance(client.ready().ready, bool)
