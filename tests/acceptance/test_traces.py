"""Traces of ``slicewatch up`` as a collector receives them."""

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(ThreadingHTTPServer):
    """Receiver of OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.received: list[ExportTraceServiceRequest] = []
        self.sent_headers: list[dict[str, str]] = []

    @property
    def spans(self) -> dict[str, Any]:
        """Spans of the trace by name."""
        scopes = [scope for each in self.received for spans in each.resource_spans for scope in spans.scope_spans]
        return {span.name: span for scope in scopes for span in scope.spans if span.trace_id.hex() == TRACE}


class Receiver(BaseHTTPRequestHandler):
    """One export."""

    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.sent_headers.append(dict(self.headers))
        self.server.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A running collector."""
    with Collector() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_collector_receives_the_whole_trace(
    project: Path, up: Callable[..., Any], collector: Collector, records: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request of a caller with a trace is in it with all its stages, also those that wait at the end."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "comments")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    endpoint = f"http://127.0.0.1:{collector.server_address[1]}/v1/traces"
    service = up(project, SLICEWATCH_TRACES_ENDPOINT=endpoint, SLICEWATCH_TRACES_SAMPLE=0)
    connection = HTTPConnection("127.0.0.1", service.port, timeout=300)
    headers = {"content-type": "application/json", "traceparent": f"00-{TRACE}-{SPAN}-01"}
    connection.request("POST", "/v1/predict", json.dumps({"instances": records[:2]}), headers)
    assert connection.getresponse().status == 200
    connection.close()
    assert service.stop() == 0
    spans = collector.spans
    server = spans.pop("POST /v1/predict")
    assert server.parent_span_id.hex() == SPAN
    assert sorted(spans) == ["features", "functions", "log", "model", "queue", "record"]
    assert {span.parent_span_id for span in spans.values()} == {server.span_id}
    (resource,) = {
        (each.key, each.value.string_value)
        for received in collector.received
        for spans in received.resource_spans
        for each in spans.resource.attributes
        if each.key == "service.name"
    }
    assert resource == ("service.name", "comments")
    assert {sent["authorization"] for sent in collector.sent_headers} == {"Bearer secret"}
    assert [line["trace_id"] for line in service.lines() if line.get("route") == "/v1/predict"] == [TRACE]
    assert "secret" not in service.said()


def test_a_collector_that_never_answers_delays_no_end(
    project: Path, up: Callable[..., Any], records: list[Any]
) -> None:
    """Requests are answered, the service ends by itself, and the log has one warning at most."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as silent:  # accepts, and answers nothing
        endpoint = f"http://127.0.0.1:{silent.server_address[1]}/v1/traces"
        service = up(project, SLICEWATCH_TRACES_ENDPOINT=endpoint, SLICEWATCH_TRACES_SAMPLE=1)
        for _ in range(5):
            assert service.ask("POST", "/v1/predict", {"instances": records[:1]}).status == 200
        assert service.stop() == 0
    assert sum("traces cannot be sent" in line for line in service.said().splitlines()) <= 1


def test_a_collector_that_is_down_delays_no_takeover(project: Path, up: Callable[..., Any], records: list[Any]) -> None:
    """The next process serves before the first one gives up its spans."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}/v1/traces"
        variables = {"SLICEWATCH_TRACES_ENDPOINT": endpoint, "SLICEWATCH_TRACES_SAMPLE": 1}
        service = up(project, **variables, OTEL_BSP_SCHEDULE_DELAY=600_000)
        assert service.ask("POST", "/v1/predict", {"instances": records[:1]}).status == 200
        os.kill(service.process.pid, signal.SIGUSR2)
        assert service.process.wait(300) == 0
    said = [line["message"] for line in service.lines()]
    (taken_over,) = [place for place, message in enumerate(said) if message.endswith("has taken over")]
    os.kill(int(said[taken_over].split()[1]), signal.SIGKILL)
    (warned,) = [place for place, message in enumerate(said) if "traces cannot be sent" in message]
    assert taken_over < warned
