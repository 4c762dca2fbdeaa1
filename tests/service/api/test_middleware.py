"""Request middleware."""

import asyncio
import gc
import logging
from concurrent.futures import Future

import pytest

from service.api.app import create_api
from service.api.middleware import Deadline, Deadlines
from service.runtime.runtime import STOPPING
from service.server import request_lines

GOOD = {"text": "subscribe to my song for free money", "likes": 2}
JSON = {"content-type": "application/json"}


def lines(service, caplog):
    service.runtime.request_log.flush()
    return [line for record in caplog.records for line in request_lines(record)]


def scope_of(path, method, headers):
    return {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"content-type", b"application/json"), *headers], "scheme": "http", "root_path": "",
        "http_version": "1.1", "server": ("service", 80), "client": ("client", 1),
    }  # fmt: skip


async def ask(service, body, headers=(), path="/v1/predict", method="POST", after_first=None):
    """Send one request as a server would, and return how it was answered, and how much of it was read.

    ``after_first`` is waited for before the second part of the body.
    """
    sent, read = [], []

    async def receive():
        if read and after_first is not None:
            await after_first.wait()
        read.append(len(body))
        chunk = body.pop(0) if body else b""
        return {"type": "http.request", "body": chunk, "more_body": bool(body)}

    async def send(message):
        sent.append(message)

    scope = scope_of(path, method, headers)
    await service.app(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), len(read)


def test_a_request_gets_an_id(service):
    """An id is made for each request, and said in the answer."""
    first, second = (service.get("/healthz").headers["x-request-id"] for _ in range(2))
    assert len(first) == 32
    assert first != second


@pytest.mark.parametrize(("given", "kept"), [("abc-1.2:3_4", True), ("a b", False), ("", False), ("x" * 129, False)])
def test_a_clients_id_is_taken_if_it_is_sane(service, given, kept):
    """A short id of plain characters is the request's; anything else is not repeated."""
    answer = service.get("/healthz", headers={"x-request-id": given})
    assert (answer.headers["x-request-id"] == given) is kept


def test_a_problem_names_its_request(service):
    """A problem has the id that the log has."""
    answer = service.get("/nope", headers={"x-request-id": "mine"})
    assert answer.json()["request_id"] == "mine"


def test_no_answer_is_guessed_at_by_a_browser(service):
    """Every answer says that its type is as it is given, and opens nothing to other origins."""
    for path in ("/healthz", "/nope", "/metrics", "/openapi.json"):
        headers = service.get(path, headers={"origin": "http://elsewhere"}).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_too_long_a_body_is_refused_unread(service):
    """A length beyond the limit is refused before a byte is read, and the connection ends."""
    length = [(b"content-length", b"4194305")]
    status, headers, reads = service.runner.run(ask(service, [b"x"], length))
    assert (status, headers[b"connection"], reads) == (413, b"close", 0)


def test_a_body_without_a_length_is_counted(service):
    """A stream is refused once it is too long, not when it ends."""
    status, _, reads = service.runner.run(ask(service, [b"x" * 2**20] * 64))
    assert (status, reads) == (413, 5)


def test_a_body_as_long_as_may_be_is_read(service):
    """The limit itself is allowed."""
    service.limit(body_bytes=1024)
    body = b'{"instances":[{"text":"love","likes":0}]}'
    assert service.post("/v1/predict", content=body + b" " * (1024 - len(body)), headers=JSON).status_code == 200
    assert service.post("/v1/predict", content=body + b" " * (1025 - len(body)), headers=JSON).status_code == 413


def test_all_bodies_together_have_a_limit(service):
    """While long ones are in hand, another is refused unread, or in the middle; afterwards it is taken."""
    service.limit(body_bytes=1024)
    service.connect(create_api(service.runtime, max_in_flight_bytes=1500))
    body = b'{"instances":[{"text":"love","likes":0}]}'.ljust(900)

    async def story():
        let_go = asyncio.Event()
        held = asyncio.create_task(ask(service, [body[:800], body[800:]], after_first=let_go))
        await asyncio.sleep(0)
        known = await ask(service, [body], [(b"content-length", b"900")])
        streamed = await ask(service, [body[:100], body[100:]])
        short = await ask(service, [body.strip()])
        other = await ask(service, [], path="/healthz", method="GET")
        let_go.set()
        first = await held
        return first, known, streamed, short, other, await ask(service, [body], [(b"content-length", b"900")])

    first, known, streamed, short, other, after = service.runner.run(story())
    assert [each[0] for each in (first, known, streamed, short, other, after)] == [
        200,
        429,
        429,
        200,
        200,
        200,
    ]
    assert (known[1][b"retry-after"], streamed[1][b"retry-after"]) == (b"1", b"1")
    assert (known[2], streamed[2]) == (0, 2)
    assert service.counted('shed_total{reason="queue"}') == 2


def test_long_bodies_leave_room_for_short_ones(service):
    """While long ones arrive slowly up to their share, another is refused, and a short one is taken."""
    service.limit(body_bytes=100_000)
    service.connect(create_api(service.runtime, max_in_flight_bytes=244_000))
    body = b'{"instances":[{"text":"love","likes":0}]}'

    async def story():
        let_go = asyncio.Event()
        parts = [body.ljust(90_000), b" "]
        held = [asyncio.create_task(ask(service, [*parts], after_first=let_go)) for _ in range(2)]
        await asyncio.sleep(0)
        long = await ask(service, [body.ljust(90_000)])
        known = await ask(service, [body.ljust(90_000)], [(b"content-length", b"90000")])
        short = await ask(service, [body.ljust(50_000)])
        let_go.set()
        return [answer[0] for answer in (long, known, short, *[await each for each in held])]

    assert service.runner.run(story()) == [429, 429, 200, 200, 200]


def test_a_body_as_long_as_may_be_is_always_taken(service):
    """Also where it is longer than all together may be."""
    service.connect(create_api(service.runtime, max_in_flight_bytes=10))
    assert service.predicted(GOOD).status_code == 200


@pytest.mark.parametrize("length", [b"-1", b"1e3", b"", b"9" * 5000, "²".encode()])
def test_a_length_that_is_none_is_refused(service, length):
    """An invalid Content-Length is a client error."""
    assert service.runner.run(ask(service, [b"{}"], [(b"content-length", length)]))[0] == 422


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip"])
def test_a_compressed_body_is_refused(service, coding):
    """A body that would have to be unpacked first, to any length, is a 415."""
    answer = service.post("/v1/predict", content=b"x", headers=JSON | {"content-encoding": coding})
    assert (answer.status_code, answer.json()["detail"]) == (415, "send the body without content-encoding")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"])
@pytest.mark.parametrize("path", ["/v1/predict", "/v1/functions"])
def test_a_body_has_to_say_that_it_is_json(service, path, kind):
    """Types that pages of other origins may send unasked are refused, with what to send."""
    answer = service.post(path, content=b"{}", headers={"content-type": kind})
    assert answer.status_code == 415
    assert "content-type: application/json" in answer.json()["detail"]


def test_json_may_say_its_charset(service):
    """Parameters of the type are allowed."""
    headers = {"content-type": "application/json; charset=utf-8"}
    assert service.post("/v1/predict", content=b"{}", headers=headers).status_code == 422


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predictions"])
def test_without_room_a_request_is_refused_unread(service, path):
    """While the queue is full, requests are refused at once, with a time to come again, and counted."""
    service.fill_queue()
    status, headers, reads = service.runner.run(ask(service, [b"{}"], path=path))
    assert (status, headers[b"retry-after"], reads) == (429, b"1", 0)
    assert service.counted('shed_total{reason="queue"}') == 1


def test_without_room_other_requests_are_answered(service):
    """Labels and figures do not wait for the model."""
    service.fill_queue()
    assert service.post("/v1/labels", {"labels": [{"id": "a", "label": "true"}]}).status_code == 200
    assert service.get("/v1/functions").status_code == 200


def test_a_service_that_stops_says_so(service):
    """Requests during shutdown return 503 with the problem type ``stopping``."""
    service.runner.run(service.runtime.stop(1))
    answer = service.predicted(GOOD)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:slicewatch:problem:stopping")
    assert STOPPING in service.runtime.problems()


def test_a_request_ends_in_time(service):
    """A request timeout returns 504 and is counted as shed."""
    service.limit(request_seconds=0.05)
    service.override(predict=lambda requests, seconds: never())
    answer = service.predicted(GOOD)
    assert (answer.status_code, answer.headers["content-type"]) == (504, "application/problem+json")
    assert "longer than 0.05 s" in answer.json()["detail"]
    assert service.counted('shed_total{reason="deadline"}') == 1


def test_requests_that_have_ended_are_forgotten():
    """Also behind one that takes its whole time."""

    async def story():
        deadlines = Deadlines(60)
        waiting = deadlines.begin()
        for _ in range(100):
            deadlines.begin().end()
        return waiting, sum(type(each) is Deadline for each in gc.get_objects())

    gc.collect()
    before = sum(type(each) is Deadline for each in gc.get_objects())
    assert asyncio.run(story())[1] == before + 1


def test_a_body_that_does_not_come_is_the_clients(service):
    """A body that is not there in time is a 408, is not counted as refused under load, and ends its connection."""
    service.limit(request_seconds=0.05)
    app, scope = service.app, scope_of("/v1/predict", "POST", ())
    sent = []

    async def receive():
        return await never()

    async def send(message):
        sent.append(message)

    service.runner.run(app(scope, receive, send))
    headers = dict(sent[0]["headers"])
    assert (sent[0]["status"], headers[b"connection"]) == (408, b"close")
    assert service.counted('shed_total{reason="deadline"}') == 0


def never():
    return asyncio.wrap_future(Future())


def test_a_thread_that_reads_too_long_is_left_to_itself(service, held_page):
    """A request for figures is answered in time, although its thread still reads."""
    service.runtime.page = held_page
    service.limit(request_seconds=0.05)
    assert service.get("/metrics").status_code == 504


def test_a_defect_is_told_to_the_log_alone(service, caplog):
    """An unexpected error returns 500 without its text; the log has text and traceback under the request id."""

    async def fail(requests, seconds):
        raise ZeroDivisionError("secret")

    service.override(predict=fail)
    answer = service.predicted(GOOD)
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "secret" not in answer.text
    (record,) = [each for each in caplog.records if each.name == "service.api.middleware"]
    assert record.request_id == answer.json()["request_id"]
    assert record.exc_info[0] is ZeroDivisionError


def test_a_timeout_of_something_else_is_a_defect(service, caplog):
    """A TimeoutError that is not ours is no matter of the request's time."""

    async def fail(requests, seconds):
        raise TimeoutError("a socket")

    service.override(predict=fail)
    assert service.predicted(GOOD).status_code == 500


def test_a_client_that_leaves_is_no_defect(service, caplog):
    """A body that breaks off gets no answer, and a line in the log that says so."""
    app, scope = service.app, scope_of("/v1/predict", "POST", ())

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError(message)

    with caplog.at_level(logging.INFO):
        service.runner.run(app(scope, receive, send))
    assert [(each["status"], each["route"]) for each in lines(service, caplog)] == [(499, "/v1/predict")]
    assert len(caplog.records) == 1


def test_an_answer_that_breaks_off_ends_its_connection(service):
    """An error after the answer began goes on to the server, which has to end the connection."""

    async def broken(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    service.app.mount("/broken", broken)
    with pytest.raises(ZeroDivisionError):
        service.runner.run(ask(service, [], path="/broken/in/two", method="GET"))


def test_a_request_is_one_line_in_the_log(service, caplog):
    """The line has route, status, time and rows, and nothing that the request held."""
    with caplog.at_level(logging.INFO):
        service.predicted(GOOD, GOOD, ids=["private-1", "private-2"])
    (line,) = lines(service, caplog)
    assert (line["method"], line["route"], line["status"], line["rows"]) == ("POST", "/v1/predict", 200, 2)
    assert line["ms"] > 0
    assert "private" not in str(line)
    assert "money" not in str(line)


def test_requests_are_told_apart_by_their_route(service, caplog):
    """Lines and counters name the route, not the path; what has none is one series."""
    with caplog.at_level(logging.INFO):
        service.get("/v1/models/1")
        service.get("/v1/secret/path")
    assert [each["route"] for each in lines(service, caplog)] == ["/v1/models/{version}", "__other__"]
    assert service.counted('request_duration_seconds_count{route="/v1/models/{version}"}') == 1
    assert service.counted('request_duration_seconds_count{route="__other__"}') == 1


def test_what_machines_ask_is_for_debugging(service, caplog):
    """Probes and scrapes write no access-log line, except on failure or at debug level."""
    with caplog.at_level(logging.INFO):
        service.get("/healthz")
        service.get("/metrics")
        service.get("/readyz")
        assert lines(service, caplog) == []
        service.set_state(active=None, classes=())
        service.get("/readyz")
    assert [each["status"] for each in lines(service, caplog)] == [503]
    with caplog.at_level(logging.DEBUG):
        service.get("/healthz")
    assert len(lines(service, caplog)) == 2


def test_refusals_are_counted_and_logged_as_well(service, caplog):
    """A request that is refused unread has its line."""
    service.fill_queue()
    with caplog.at_level(logging.INFO):
        service.predicted(GOOD)
    assert [(each["status"], each["route"]) for each in lines(service, caplog)] == [(429, "/v1/predict")]
    assert service.counted('request_duration_seconds_count{route="/v1/predict"}') == 1


def test_what_is_no_request_passes(service):
    """The lifespan of the application is none of the gate's matters."""
    app, messages, sent = service.app, ["startup", "shutdown"], []

    async def receive():
        return {"type": f"lifespan.{messages.pop(0)}"}

    async def send(message):
        sent.append(message["type"])

    service.runner.run(app({"type": "lifespan", "state": {}}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize("method", ["get", "GET\n2026-01-01 INFO forged", "X" * 100_000, "\u2028", "PROPFIND"])
def test_a_method_of_a_client_is_one_of_a_few_in_the_log(service, caplog, method):
    """An unknown method is logged as __other__, and counted under a fixed route."""
    with caplog.at_level(logging.INFO):
        asyncio.run(ask(service, [b""], path="/odd\n/path", method=method))
    (line,) = lines(service, caplog)
    assert (line["method"], line["route"]) == ("__other__", "__other__")
