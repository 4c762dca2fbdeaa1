"""Every route crossed with every scope, and what a caller's name is used for."""

import json
import logging
import re

import pytest

from service.api.access import OPEN, ROUTES_OF_SCOPES, SCOPES_BY_ROUTE, scope_of
from service.app import create_app
from service.keys import SCOPES, KeyFile

PUBLIC = {
    ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/openapi.json"), ("GET", "/console/console.css"),
    ("GET", "/login"), ("POST", "/login"), ("POST", "/logout"),
}  # fmt: skip
"""Routes that need no key: these, and never another one by accident."""


def routes_of(app):
    """Yield method and path of every route of an application, those of its routers too."""

    def walk(routes):
        for route in routes:
            inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
            if inner:
                yield from walk(inner)
            elif getattr(route, "path", None):
                yield from ((method, route.path) for method in route.methods or () if method != "HEAD")

    yield from walk(app.router.routes)


@pytest.fixture
def guarded(service):
    """The service with a key of every scope, by scope."""
    file = KeyFile(service.runtime.settings.keys_file)
    tokens = {scope: file.add(f"key-{scope}", (scope,), service.now).token for scope in SCOPES}
    service.restart()
    service.connect(create_app(service.runtime))
    service.file, service.tokens = file, tokens
    return service


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def ask(service, method, path, token=None, **more):
    headers = {**({} if token is None else bearer(token)), **more.pop("headers", {})}
    return service.runner.run(service.client.request(method, path, headers=headers, **more))


def concrete(path):
    return re.sub(r"\{[^}]*\}", "1", path)


def test_every_route_has_a_scope(service):
    """A new route has to be entered in the table; until then only ``admin`` reaches it."""
    found = set(routes_of(create_app(service.runtime)))
    assert len(found) > 40
    assert found - {("GET", "/openapi.json")} == set(SCOPES_BY_ROUTE) - {("GET", "/openapi.json")}
    assert {route for route, scope in SCOPES_BY_ROUTE.items() if scope == OPEN} == PUBLIC
    assert set(ROUTES_OF_SCOPES) == {OPEN, *SCOPES}


def test_every_route_is_matched_by_its_own_entry():
    """The scope of a request is that of the route that answers it, with any values in its path."""
    for (method, path), scope in SCOPES_BY_ROUTE.items():
        assert scope_of(method, concrete(path)) == scope
    assert scope_of("HEAD", "/v1/slices") == "read"


@pytest.mark.parametrize("scope", SCOPES)
def test_every_route_is_crossed_with_every_scope(guarded, scope):
    """401 without a key and with a wrong one, 403 that names the missing scope, or the route's own answer."""
    token = guarded.tokens[scope]
    for (method, path), needed in SCOPES_BY_ROUTE.items():
        answer = ask(guarded, method, concrete(path), token, content=b"")
        if needed in (OPEN, scope) or scope == "admin":
            assert answer.status_code not in (401, 500), (method, path)
            assert "problem:forbidden" not in answer.text, (method, path)
        else:
            assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
            assert f"lacks the scope '{needed}'" in answer.json()["detail"]


@pytest.mark.parametrize("token", [None, "sw_AAAAAAAA_" + 43 * "A"])
def test_no_route_is_reached_without_a_valid_key(guarded, token):
    """401 with ``WWW-Authenticate: Bearer``; a page asks a browser without a key to sign in."""
    for (method, path), needed in SCOPES_BY_ROUTE.items():
        for each in (method, *(["HEAD"] if method == "GET" else [])):
            if needed == OPEN:
                continue
            answer = ask(guarded, each, concrete(path), token, content=b"")
            if token is None and not path.startswith("/v1/") and needed != "metrics":
                assert (answer.status_code, answer.headers["location"][:12]) == (303, "/login?next=")
            elif answer.status_code != 429:  # wrong keys of one address are limited
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
                assert each == "HEAD" or answer.json()["type"] == "urn:slicewatch:problem:unauthorized"


@pytest.mark.parametrize("token", [None, "sw_AAAAAAAA_" + 43 * "A"])
def test_no_answer_without_a_key_names_a_file_or_the_model(guarded, token):
    """Neither of a service that is ready nor of one with faults, also on paths that do not exist."""
    routes = [*SCOPES_BY_ROUTE, ("GET", "/nope"), ("GET", "/v1/nope"), ("PUT", "/login"), ("GET", "/slices/..%2F..")]
    inner = [str(guarded.project), guarded.runtime.settings.name]
    for has_faults in (False, True):
        if has_faults:
            guarded.set_state(active=None, classes=(), fault=f"{guarded.project}/registry cannot be read")
            guarded.runtime.settings.store.rename(guarded.project / "elsewhere")
        for method, path in routes:
            answer = ask(guarded, method, concrete(path), token, content=b"")
            assert [each for each in inner if each in f"{answer.headers} {answer.text}"] == [], (method, path)
    (guarded.project / "elsewhere").rename(guarded.runtime.settings.store)


def test_reasons_of_readiness_have_details_for_readers(guarded):
    """Others get their names; a caller without a key is not counted as refused, and a wrong key is."""
    guarded.set_state(active=None, classes=(), fault="/registry cannot be read")
    expected = {None: False, "wrong": False, guarded.tokens["predict"]: False, guarded.tokens["read"]: True}
    for token, is_shown in expected.items():
        answer = ask(guarded, "GET", "/readyz", token)
        assert (answer.status_code, list(answer.json()["reasons"])) == (503, ["model"])
        assert ("/registry" in answer.text) == is_shown
    assert [guarded.counted(f'unauthorized_total{{reason="{reason}"}}') for reason in ("missing", "wrong")] == [0, 1]


def test_a_path_without_a_route_needs_the_scope_admin(guarded):
    """A route that is forgotten in the table is closed, not open."""
    for method, path in (("GET", "/v1/nope"), ("PUT", "/v1/labels"), ("GET", "//v1/slices"), ("BREW", "/")):
        assert ask(guarded, method, path).status_code == 401
        assert ask(guarded, method, path, guarded.tokens["read"]).status_code == 403
        assert ask(guarded, method, path, guarded.tokens["admin"]).status_code in (404, 405)


def send_scope(guarded, **more):
    """Send a request as it is, and return its status, and the number of reads of its body."""
    read = []

    async def send():
        scope = {
            "type": "http", "method": "POST", "path": "/v1/predict", "raw_path": b"/v1/predict", "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")], "scheme": "http",
            "root_path": "", "http_version": "1.1", "server": ("localhost", 80), "client": ("10.0.0.1", 1),
        } | more  # fmt: skip
        sent = []

        async def receive():
            read.append(1)
            return {"type": "http.request", "body": b"{}"}

        async def take(message):
            sent.append(message)

        await guarded.app(scope, receive, take)
        return sent[0]["status"]

    return guarded.runner.run(send()), len(read)


def test_a_refused_body_is_not_read(guarded):
    """The caller is checked before the body arrives."""
    assert send_scope(guarded) == (401, 0)


def test_a_query_that_is_no_text_is_no_fault_of_the_server(guarded):
    """At a path that no route has, too."""
    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {guarded.tokens['admin']}".encode())]
    for path, status in (("/nope", 404), ("/v1/models", 200)):
        assert send_scope(guarded, method="GET", path=path, query_string=b"\xff", headers=headers) == (status, 0)


def test_the_audit_and_the_log_name_the_key(guarded, caplog):
    """A name in a body is forged, and ignored."""
    raised = guarded.raised()
    token = guarded.tokens["write"]
    with caplog.at_level(logging.DEBUG):
        done = ask(
            guarded, "POST", f"/v1/alarms/{raised.id}/acknowledge", token, json={"by": "root", "note": "seen"}
        ).json()
        ask(guarded, "POST", f"/v1/alarms/{raised.id}/resolve", token, json={"by": "monitor", "note": "gone"})
        guarded.runtime.request_log.flush()
    assert (done["acknowledged_by"], done["note"]) == ("key-write", "seen")
    entries = ask(guarded, "GET", "/v1/audit", guarded.tokens["read"]).json()["entries"]
    assert {each["actor"] for each in entries if each["action"] != "alarm.opened"} == {"key-write"}
    assert entries[0]["detail"]["resolution"] == "by key-write: gone"
    logged = [line for record in caplog.records for line in getattr(record, "requests", ())]
    assert {line.key for line in logged} == {"key-write"}
    assert token not in caplog.text


def test_a_change_of_functions_is_audited(guarded):
    """Under the name of the key; an addition that changes nothing is no entry."""
    token, function = guarded.tokens["write"], {"name": "long", "length": {"field": "text", "above": 30}}
    for _ in range(2):
        assert ask(guarded, "POST", "/v1/functions", token, json=function).status_code == 201
    assert ask(guarded, "DELETE", "/v1/functions/long", token).status_code == 204
    entries = ask(guarded, "GET", "/v1/audit", guarded.tokens["read"]).json()["entries"]
    assert [(each["actor"], each["action"], each["subject"]) for each in entries] == [
        ("key-write", "function.removed", "function long"),
        ("key-write", "function.added", "function long"),
    ]


@pytest.mark.parametrize(("path", "body"), [("/v1/models/rollback", {}), ("/v1/models/1/promote", {})])
def test_a_promotion_is_the_keys(guarded, two, path, body):
    """Whatever name its body gives."""
    two.promote(2, expected=1, reason="x", at=guarded.now)
    answer = ask(guarded, "POST", path, guarded.tokens["admin"], json={**body, "by": "monitor"})
    assert answer.status_code == 200, answer.text
    (entry, *_) = ask(guarded, "GET", "/v1/audit", guarded.tokens["read"]).json()["entries"]
    assert entry["actor"] == "key-admin"


def test_a_predicting_key_sees_nothing_else(guarded):
    """It predicts, and neither reads records nor scrapes."""
    token = guarded.tokens["predict"]
    answer = ask(
        guarded, "POST", "/v1/predict", token, json={"instances": [{"text": "love", "likes": 0}], "ids": ["a"]}
    )
    assert answer.status_code == 200
    assert [ask(guarded, "GET", path, token).status_code for path in ("/v1/predictions/a", "/metrics")] == [403, 403]


def test_a_key_above_its_rate_gets_429(guarded, caplog):
    """With the time to wait, counted as shed, and logged with its name."""
    token = guarded.file.add("slow", ("read",), guarded.now, rate=0.2).token
    guarded.restart()
    guarded.connect(create_app(guarded.runtime))
    assert ask(guarded, "GET", "/v1/models", token).status_code == 200
    with caplog.at_level(logging.DEBUG):
        answer = ask(guarded, "GET", "/v1/models", token)
        guarded.runtime.request_log.flush()
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
    assert guarded.counted('shed_total{reason="rate"}') == 1
    (line,) = [line for record in caplog.records for line in getattr(record, "requests", ()) if line.status == 429]
    assert line.key == "slow"


def test_a_revoked_key_is_refused_without_a_restart(guarded):
    """Within a second of the command."""
    token = guarded.tokens["read"]
    assert ask(guarded, "GET", "/v1/models", token).status_code == 200
    guarded.file.revoke("key-read", guarded.now)
    assert guarded.runtime.access.is_on(float("inf"))
    answer = ask(guarded, "GET", "/v1/models", token)
    assert (answer.status_code, answer.json()["detail"][:33]) == (401, "the key of 'key-read' is revoked:")


def test_the_document_names_the_scope_of_every_call(guarded):
    """In its security requirement; the document itself needs no key."""
    document = json.loads(ask(guarded, "GET", "/openapi.json").content)
    for path, item in document["paths"].items():
        for method, operation in item.items():
            scope = scope_of(method.upper(), concrete(path))
            assert operation.get("security") == (None if scope == OPEN else [{"key": [scope]}])
