"""A service with keys as a process: who gets in, and what strangers, guesses and malformed bodies get."""

import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import utc_now
from service.api.access import OPEN, SCOPES_BY_ROUTE
from service.client import Client, ClientError
from service.keys import SCOPES, KeyFile

WRONG = "sw_AAAAAAAA_" + 43 * "A"
NEVER_VALID = (
    b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 50_000, b'{"by":' + b"9" * 5000 + b"}", b'{"\xed\xa0\x80":1}',
    b'{"reason":' + b"[" * 200 + b"]" * 200 + b"}", b"key=%ff&next=//x", b"\x00" * 1000,
)  # fmt: skip


class Keyed:
    """A running service with a key of every scope."""

    def __init__(self, running: Any, file: KeyFile, tokens: dict[str, str]) -> None:
        self.running, self.file, self.tokens = running, file, tokens
        self.url = f"http://127.0.0.1:{running.port}"

    def ask(self, method: str, path: str, token: str | None = None, body: bytes | None = None, **headers: str) -> Any:
        """Return status and headers of an answer, which is read to its end."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent |= {} if token is None else {"authorization": f"Bearer {token}"}
        connection = HTTPConnection("127.0.0.1", self.running.port, timeout=150)
        try:
            connection.request(method, path, body, {"content-type": "application/json"} | sent)
            response = connection.getresponse()
            response.read()
            return response
        finally:
            connection.close()

    def status(self, *args: Any, **headers: str) -> int:
        return int(self.ask(*args, **headers).status)


def keys_of(project: Path) -> tuple[KeyFile, dict[str, str]]:
    """Add a key of every scope to a project."""
    file = KeyFile(project / ".slicewatch" / "keys.json")
    return file, {scope: file.add(scope, (scope,), utc_now()).token for scope in SCOPES}


@pytest.fixture(scope="module")
def keyed(trained: Path, start_shared: Callable[..., Any]) -> Keyed:
    """A service with keys, shared by the module."""
    made: dict[str, Any] = {}

    def prepare(folder: Path) -> None:
        made["file"], made["tokens"] = keys_of(folder)

    service = Keyed(start_shared(trained, prepare), made["file"], made["tokens"])
    for token in service.tokens.values():  # a key in use is taken while wrong ones of the same address are refused
        assert service.status("GET", "/v1/none", token) in (403, 404)
    return service


def test_keys_change_without_a_restart(keyed: Keyed, until: Callable[..., Any]) -> None:
    """A key is valid within about a second of its addition, rotation and revocation."""
    token = keyed.file.add("new", ("read",), utc_now()).token
    until(lambda: keyed.status("GET", "/v1/models", token) == 200)
    other = keyed.file.rotate("new", utc_now(), 0.0).token
    until(lambda: keyed.status("GET", "/v1/models", other) == 200)
    assert keyed.status("GET", "/v1/models", token) == 401
    keyed.file.revoke("new", utc_now())
    until(lambda: keyed.status("GET", "/v1/models", other) in (401, 429))


def test_an_expired_key_is_refused(keyed: Keyed, until: Callable[..., Any]) -> None:
    """By the clock, while the service runs: a key of a longer life, if it was read too late on a busy machine."""
    for seconds in (3, 30, 300):
        expires = utc_now() + timedelta(seconds=seconds)
        token = keyed.file.add("brief", ("read",), utc_now(), expires=expires).token
        while (status := keyed.status("GET", "/v1/models", token)) != 200 and utc_now() < expires:
            time.sleep(0.02)
        if status == 200:
            break
    assert status == 200
    until(lambda: keyed.status("GET", "/v1/models", token) == 401)


def test_commands_and_clients_have_a_key(keyed: Keyed, command: Callable[..., int]) -> None:
    """From the variable or the argument; without one the error names both options."""
    folder = keyed.running.log.parent
    port = {"SLICEWATCH_SERVE_PORT": keyed.running.port}
    assert command(folder, "drift", SLICEWATCH_KEY=keyed.tokens["read"], **port) == 0
    assert command(folder, "drift", **port) == 1
    with Client(keyed.url, key=keyed.tokens["read"]) as client:
        assert client.models()["model"] == "comments"
    with Client(keyed.url) as client, pytest.raises(ClientError, match="SLICEWATCH_KEY or --key-file") as error:
        client.models()
    assert error.value.status == 401


def test_no_header_makes_another_caller(keyed: Keyed) -> None:
    """Headers of proxies, of users and of other addresses are no key."""
    forged = {
        "x_forwarded_user": "root", "x_forwarded_for": "10.0.0.7", "x_real_ip": "10.0.0.7", "forwarded": "for=10.0.0.7",
        "x_forwarded_proto": "https", "x_remote_user": "root", "remote_user": "root",
        "x_api_key": keyed.tokens["admin"], "x_http_method_override": "GET",
        "x_original_url": "/healthz", "x_rewrite_url": "/healthz",
    }  # fmt: skip
    assert keyed.status("GET", "/v1/models", None, None, **forged) == 401
    assert keyed.status("GET", f"/v1/models?key={keyed.tokens['admin']}&access_token={keyed.tokens['admin']}") == 401


@pytest.mark.parametrize(
    "path",
    ["//v1/models", "/v1//models", "/v1/models/", "/V1/models", "/healthz/../v1/models", "/v1/models%00",
     "/healthz%2f..%2fv1%2fmodels", "/v1/models;/healthz", "/console/console.css/../../v1/models", "/v1/%6dodels"],
)  # fmt: skip
def test_no_spelling_of_a_path_avoids_its_scope(keyed: Keyed, path: str) -> None:
    """Without a key every spelling is refused or leads to the form; none is answered."""
    assert keyed.status("GET", path) in (303, 401, 404)


def test_guesses_are_limited(keyed: Keyed) -> None:
    """Hundreds of wrong keys get 401, then 429 with the time to wait; a key in use goes on."""
    read = keyed.tokens["read"]
    assert keyed.status("GET", "/v1/models", read) == 200
    draw, began = random.Random(3), time.monotonic()
    answers = [
        keyed.ask("GET", "/v1/models", f"{read[:12]}{''.join(draw.choices('abcXYZ019_-', k=43))}") for _ in range(300)
    ]
    counted = Counter(each.status for each in answers)
    assert set(counted) == {401, 429}
    minutes = (time.monotonic() - began) // 60 + 2  # those that have begun
    assert counted[401] <= 20 * minutes
    assert all(1 <= int(each.headers["retry-after"]) <= 60 for each in answers if each.status == 429)
    assert keyed.status("GET", "/v1/models", read) == 200


def test_malformed_bodies_are_no_fault_of_the_server(keyed: Keyed) -> None:
    """On every route that takes a body, without a key, with a wrong one, and with one that may: no 5xx, no hang."""
    posts = [(path, scope) for (method, path), scope in SCOPES_BY_ROUTE.items() if method == "POST"]
    answers: Counter[tuple[str, int]] = Counter()
    for path, scope in posts:
        for body in NEVER_VALID:
            if scope == "admin" and not body:
                continue
            for kind, token in (("none", None), ("wrong", WRONG), ("right", keyed.tokens[scope or "read"])):
                headers = {"content_type": "application/x-www-form-urlencoded"} if scope == OPEN else {}
                status = keyed.status("POST", re.sub(r"\{[^}]*\}", "1", path), token, body, **headers)
                answers[kind, status] += 1
    assert {status for _, status in answers if status >= 500} == set(), answers
    assert {status for kind, status in answers if kind == "none"} <= {303, 401, 403}
    assert {status for kind, status in answers if kind == "wrong"} <= {401, 403, 429}
    assert not {401, 429} & {status for kind, status in answers if kind == "right"}
    assert keyed.status("GET", "/readyz") == 200
    assert [line for line in keyed.running.lines() if line["level"] == "ERROR"] == []


def test_no_secret_is_in_the_log(keyed: Keyed) -> None:
    """Requests are logged with the name of their key."""
    keyed.status("GET", "/v1/models", keyed.tokens["read"])
    said = keyed.running.said()
    assert [token for token in keyed.tokens.values() if token[12:] in said] == []


def test_only_the_proxys_connections_name_a_user(project: Path, up: Callable[..., Any]) -> None:
    """A header of the proxy is taken by the address of its connection, whatever else it forwards."""
    proxy = json.dumps({"address": "127.0.0.1", "header": "X-User", "scope": "read"})
    service = Keyed(up(project, SLICEWATCH_SERVE_TRUST_PROXY=proxy), KeyFile(project / "none"), {})
    assert service.status("GET", "/v1/models", x_user="ada", x_forwarded_for="203.0.113.9") == 200
    assert service.status("POST", "/v1/retrain", None, b"{}", x_user="ada") == 403
    assert service.status("GET", "/v1/models") == 401


def test_another_address_is_not_the_proxy(project: Path, up: Callable[..., Any]) -> None:
    """Not even if it claims the address of the proxy."""
    proxy = json.dumps({"address": "10.0.0.7", "header": "X-User", "scope": "admin"})
    service = Keyed(up(project, SLICEWATCH_SERVE_TRUST_PROXY=proxy), KeyFile(project / "none"), {})
    for forged in ({}, {"x_forwarded_for": "10.0.0.7"}, {"forwarded": "for=10.0.0.7"}):
        assert service.status("GET", "/v1/models", x_user="ada", **forged) == 401


def test_a_missing_file_that_the_settings_name_ends_the_start(project: Path, refused_up: Any) -> None:
    """A wrong path opens no door, at an address of this machine either."""
    settings = project / "slicewatch.yaml"
    settings.write_text(settings.read_text() + "serve: {port: 0, keys: nowhere/keys.json}\n")
    code, said = refused_up(project)
    assert (code, "serve.keys: there is no file" in said) == (2, True)


def test_a_lost_file_ends_the_start(project: Path, refused_up: Any) -> None:
    """A service that had keys does not open without them."""
    file, _ = keys_of(project)
    file.path.unlink()
    code, said = refused_up(project, "--port", "0")
    assert (code, "keys.json is missing, and the service had keys" in said) == (1, True)


def test_nobody_takes_over_without_the_keys(project: Path, up: Callable[..., Any], until: Callable[..., Any]) -> None:
    """A deleted file opens no door with the next process."""
    file, _ = keys_of(project)
    service = Keyed(up(project), file, {})
    file.path.unlink()
    os.kill(service.running.process.pid, signal.SIGUSR2)
    until(lambda: any("no process can take over" in line.get("message", "") for line in service.running.lines()))
    assert service.status("GET", "/v1/models") == 401


def test_other_machines_need_keys(project: Path, refused_up: Any, up: Callable[..., Any]) -> None:
    """A public address needs keys, also with ``insecure`` alone; with them any host name is accepted."""
    folder = project
    settings = folder / "slicewatch.yaml"
    settings.write_text(settings.read_text() + "serve: {insecure: true}\n")
    code, said = refused_up(folder, "--host", "0.0.0.0", "--port", "0")  # noqa: S104
    assert (code, "slicewatch keys add NAME" in said) == (2, True)
    _, tokens = keys_of(folder)
    running = up(folder, SLICEWATCH_SERVE_HOST="0.0.0.0", SLICEWATCH_SERVE_INSECURE="false")  # noqa: S104
    service = Keyed(running, KeyFile(folder / "none"), tokens)
    assert service.status("GET", "/v1/models", tokens["read"], host="monitoring.example") == 200
    assert service.status("GET", "/v1/models", host="monitoring.example") == 401
