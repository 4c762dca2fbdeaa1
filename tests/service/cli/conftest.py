"""Stub service that answers with documents."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest


class StubService(ThreadingHTTPServer):
    """Answers every path with a document, and records the received ones."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {
            "/readyz": {"ready": True},
            "/v1/models": {"model": "orders", "models": []},
        }
        self.received: list[tuple[str, Any]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if body:
            self.server.received.append((self.path, json.loads(body)))
        payload = json.dumps(self.server.documents[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_POST = do_GET  # noqa: N815 - the server looks for this name

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[StubService]:
    """Stub service with the model ``orders``."""
    with StubService() as stub:
        thread = Thread(target=stub.serve_forever, args=(0.01,))
        thread.start()
        yield stub
        stub.shutdown()
        thread.join()
