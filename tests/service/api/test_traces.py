"""Traces of requests: one from the caller to the log, and none where nothing is sampled."""

import asyncio
import json
import logging
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from service.errors import MisuseError
from service.metrics.request_log import LoggedRequest
from service.metrics.traces import MAX_WAITING, ReportingExporter, Traces
from service.runtime.runtime import open_traces
from service.server import request_lines
from service.settings.schema import TracesSettings

ROW = {"text": "subscribe to my song for free money", "likes": 2}
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = {"traceparent": f"00-{TRACE}-{SPAN}-01", "x-request-id": "mine"}
STAGES = ["queue", "features", "functions", "model", "record", "log"]


class Traced:
    """A service whose spans are kept."""

    def __init__(self, service, sample):
        self.service, self._exporter = service, InMemorySpanExporter()
        service.runtime.traces = Traces(sample, self._exporter, service.runtime.metrics.count_lost_spans)

    def spans(self):
        """Return the spans of every request so far, the last ones."""
        self.service.runtime.traces.stop()
        return self._exporter.get_finished_spans()

    def by_name(self):
        found = {span.name: span for span in self.spans()}
        assert len(found) == len(self.spans())
        return found


@pytest.fixture
def traced(service):
    """Function that lets the service trace a share of its requests."""
    yield lambda sample=1.0: Traced(service, sample)
    if service.runtime.traces is not None:
        service.runtime.traces.stop()
        service.runtime.traces = None


def predict(service, rows=1, **headers):
    return service.post("/v1/predict", {"instances": [ROW] * rows}, headers=headers)


def ids(span):
    return f"{span.context.trace_id:032x}", span.parent and f"{span.parent.span_id:016x}"


def test_one_trace_leads_from_the_caller_to_the_log(service, traced):
    """The request is a child of the caller's span, and the stages are children of the request."""
    kept = traced(0.0)
    assert predict(service, 2, **CALLER, tracestate="vendor=a").status_code == 200
    spans = kept.by_name()
    server = spans.pop("POST /v1/predict")
    assert (ids(server), server.kind, server.context.trace_state.get("vendor")) == ((TRACE, SPAN), SpanKind.SERVER, "a")
    assert dict(server.attributes) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v1/predict",
        "slicewatch.request_id": "mine",
        "slicewatch.rows": 2,
    }
    assert sorted(spans) == sorted(STAGES)
    assert {ids(span) for span in spans.values()} == {(TRACE, f"{server.context.span_id:016x}")}
    assert {span.attributes["slicewatch.batch.rows"] for span in spans.values()} == {2}
    assert server.resource.attributes["service.name"] == "slicewatch"


def test_stages_follow_one_another_within_the_request(service, traced):
    """Each begins where the one before has ended, or later."""
    kept = traced()
    predict(service)
    spans = kept.by_name()
    server = spans["POST /v1/predict"]
    ordered = [spans[name] for name in STAGES]
    times = [server.start_time, *(at for span in ordered for at in (span.start_time, span.end_time)), server.end_time]
    assert times == sorted(times)


def test_requests_of_one_batch_have_its_stages_each(service, traced):
    """Three requests at one time are one batch, in three traces."""
    kept = traced()

    async def together():
        sent = [service.client.post("/v1/predict", json={"instances": [ROW]}) for _ in range(3)]
        return await asyncio.gather(*sent)

    assert [answer.status_code for answer in service.runner.run(together())] == [200] * 3
    spans = kept.spans()
    models = [span for span in spans if span.name == "model"]
    assert len({span.context.trace_id for span in spans}) == 3
    assert {span.attributes["slicewatch.batch.rows"] for span in models} == {3}
    assert len({span.end_time - span.start_time for span in models}) == 1


def test_logged_predictions_have_their_stages(service, traced):
    """No model runs for them."""
    kept = traced()
    assert service.post("/v1/predictions", {"predictions": [{"features": ROW, "label": "true"}]}).status_code == 200
    assert sorted(kept.by_name()) == ["POST /v1/predictions", "functions", "log", "queue", "record"]


def test_other_routes_have_the_span_of_the_request(service, traced):
    """Probes and scrapes have none; the status of a server error is an error."""
    kept = traced()
    service.post("/v1/labels", {"labels": [{"id": "a", "label": "true"}]})
    service.get("/v1/slices")  # 503: there is no snapshot yet
    service.get("/nowhere")
    for path in ("/healthz", "/readyz", "/metrics"):
        service.get(path)
    spans = kept.by_name()
    assert sorted(spans) == ["GET", "GET /v1/slices", "POST /v1/labels"]
    assert spans["GET /v1/slices"].status.status_code is StatusCode.ERROR
    assert spans["GET /v1/slices"].attributes["error.type"] == "503"
    assert spans["GET"].status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("given", [None, f"00-{TRACE}-{SPAN}-00"])
def test_a_request_that_is_not_sampled_has_no_spans(service, traced, given):
    """Neither at a share of 0, nor if the caller has decided against it, whatever the share."""
    kept = traced(0.0 if given is None else 1.0)
    predict(service, **({} if given is None else {"traceparent": given}))
    assert kept.spans() == ()


@pytest.mark.parametrize(
    "given",
    ["", "nonsense", f"00-{'0' * 32}-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-more", "é" * 500],
)
def test_a_malformed_context_is_ignored(service, traced, given):
    """The request begins a trace of its own."""
    kept = traced()
    assert predict(service, traceparent=given.encode()).status_code == 200
    server = kept.by_name()["POST /v1/predict"]
    assert server.parent is None
    assert server.context.trace_id != int(TRACE, 16)


def test_the_share_samples_requests_without_a_caller(service, traced):
    """About half of 200 at one half; the chance of fewer than 60 or more than 140 is below 1e-7."""
    traces = traced(0.5).service.runtime.traces
    assert 60 <= sum(traces.sampled({}) is not None for _ in range(200)) <= 140


def test_the_request_log_and_the_exemplars_name_the_trace(service, traced, caplog):
    """The page in the format of OpenMetrics has it at the bucket of the request."""
    traced(0.0)
    with caplog.at_level(logging.INFO, "service.access"):
        predict(service, **CALLER)
        predict(service)
        service.runtime.request_log.flush()
    logged = [request for record in caplog.records for request in getattr(record, "requests", ())]
    assert [request.trace_id for request in logged] == [TRACE, ""]
    answer = service.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"})
    assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    found = [
        sample.exemplar.labels
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.exemplar and sample.labels.get("route") == "/v1/predict"
    ]
    assert {"trace_id": TRACE, "request_id": "mine"} in found
    assert "# {" not in service.get("/metrics").text


@pytest.mark.parametrize(
    ("accepted", "is_openmetrics"),
    [
        ("application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;q=0.4,text/plain;q=0.3", True),
        ("text/plain;version=0.0.4;q=0.5, application/openmetrics-text;version=1.0.0;q=0.4, */*;q=0.1", False),
        ("application/openmetrics-text;q=0, */*", False),
        ("APPLICATION/OPENMETRICS-TEXT", True),
        ("text/html,*/*", False),
    ],
)
def test_the_format_is_the_one_that_the_client_prefers(service, accepted, is_openmetrics):
    """As Prometheus asks for it, in the order of its ``scrape_protocols``."""
    answer = service.get("/metrics", headers={"accept": accepted})
    kind = "application/openmetrics-text" if is_openmetrics else "text/plain"
    assert answer.headers["content-type"].partition(";")[0] == kind
    assert answer.text.endswith("# EOF\n") == is_openmetrics


def test_both_formats_have_the_same_series(service):
    """Names, labels and values of gauges and counters do not depend on the format."""
    predict(service)
    service.tick()
    text, openmetrics = service.runtime.page.text().decode(), service.runtime.page.openmetrics().decode()
    lines = [
        {line.partition(" # ")[0] for line in page.splitlines() if line.startswith("slicewatch_")}
        for page in (text, openmetrics)
    ]
    assert lines[0] == lines[1]
    assert len(list(text_string_to_metric_families(openmetrics))) > 40


def test_without_traces_no_sdk_is_loaded(service):
    """By default the service has no traces, and a process without them imports no SDK (FastAPI imports its API)."""
    assert service.runtime.traces is None
    assert open_traces(TracesSettings(), service.runtime.metrics) is None
    code = "import service.server, sys; sys.exit('requests' in sys.modules or 'opentelemetry.sdk' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_extra_is_named(service, monkeypatch):
    """The error has the command that installs it."""
    monkeypatch.delitem(sys.modules, "service.metrics.traces")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MisuseError, match=r"opentelemetry is not installed: run `pip install 'slicewatch\[otel\]'`"):
        open_traces(TracesSettings(endpoint="http://localhost:4318/v1/traces"), service.runtime.metrics)


def test_a_wrong_variable_of_opentelemetry_is_an_error(service, monkeypatch):
    """The start is refused with its reason."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "-1")
    with pytest.raises(MisuseError, match=r"OTEL_\* of OpenTelemetry is not valid: schedule_delay_millis must be"):
        open_traces(TracesSettings(endpoint="http://localhost:4318/v1/traces"), service.runtime.metrics)


@pytest.fixture
def closed_port():
    """Port that nothing listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_collector_that_is_down_costs_spans_only(service, monkeypatch, caplog, closed_port):
    """They are counted, and one warning names the collector, without the headers sent to it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    address = f"http://127.0.0.1:{closed_port}"
    settings = TracesSettings(endpoint=f"{address}/v1/traces?key=secret", sample=1.0)
    service.runtime.traces = open_traces(settings, service.runtime.metrics)
    assert [predict(service).status_code for _ in range(3)] == [200] * 3
    service.runtime.traces.stop()
    service.runtime.traces = None
    assert service.counted("spans_lost_total") == 3 * (1 + len(STAGES))
    warned = [record.getMessage() for record in caplog.records if record.name == "service.metrics.traces"]
    assert warned == [f"traces cannot be sent to {address}: there is no answer; their spans are dropped"]
    assert "secret" not in caplog.text


class Redirecting(BaseHTTPRequestHandler):
    """A collector that has moved."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(308)
        self.send_header("location", "https://elsewhere/")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        """Nothing is logged."""


def test_a_redirection_is_no_success(service, caplog):
    """Its spans are counted as lost; the log has no query of the address, at level DEBUG neither."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) as collector, caplog.at_level(logging.DEBUG):
        threading.Thread(target=collector.serve_forever).start()
        address = f"http://127.0.0.1:{collector.server_port}"
        settings = TracesSettings(endpoint=f"{address}/v1/traces?key=secret", sample=1.0)
        service.runtime.traces = open_traces(settings, service.runtime.metrics)
        service.get("/v1/models")
        service.runtime.traces.stop()
        service.runtime.traces = None
        collector.shutdown()
    assert service.counted("spans_lost_total") == 1
    warned = [record.getMessage() for record in caplog.records if record.name == "service.metrics.traces"]
    assert warned == [f"traces cannot be sent to {address}: it answers with status 308; their spans are dropped"]
    assert "secret" not in caplog.text


class Broken(SpanExporter):
    """An exporter that raises its errors, as some releases of the one for HTTP do."""

    def export(self, spans):
        raise ConnectionError


def test_spans_of_an_exporter_that_raises_wait_no_more():
    """They are lost, and leave room for others."""
    lost = []
    exporter = ReportingExporter(Broken(), lost.append, "http://collector")
    assert exporter.export([None] * 3) is SpanExportResult.FAILURE
    assert (exporter.taken, lost) == (3, [3])


class Stuck(SpanExporter):
    """An exporter that takes nothing until it is opened."""

    def __init__(self, opened):
        self._opened = opened

    def export(self, spans):
        assert self._opened.wait(600)
        return SpanExportResult.SUCCESS


def test_waiting_spans_are_bounded():
    """Further traces are dropped as a whole, and counted."""
    opened, lost = threading.Event(), []
    traces = Traces(1.0, Stuck(opened), lost.append)
    request = LoggedRequest(1.0, logging.INFO, "r", "POST", "/v1/predict", 200, 1.0, 1)
    stages = [("queue", 0.999, 1.0)]
    made = [traces.record(traces.sampled({}), request, stages, 1) for _ in range(MAX_WAITING)]
    kept = sum(map(bool, made))
    assert MAX_WAITING / 2 <= kept <= MAX_WAITING / 2 + 1
    assert sum(lost) == 2 * (MAX_WAITING - kept)
    opened.set()
    traces.stop()


def test_settings_name_what_is_wrong():
    """A receiver is a URL without credentials, which are not quoted; a share is from 0 to 1."""
    assert TracesSettings(endpoint="https://tempo:4318/v1/traces", sample="1").sample == 1.0
    for endpoint in (
        "localhost:4318",
        "http://tempo:4318O/v1/traces",
        "http://tempo:99999/",
        "http://[::1/",
        "http://a b/",
    ):
        with pytest.raises(ValueError, match=r"expected a URL, as .*, got"):
            TracesSettings(endpoint=endpoint)
    for sample in (1.5, "-0.1", "nan", "many", True):
        with pytest.raises(ValueError, match="expected a number from 0 to 1, got"):
            TracesSettings(sample=sample)
    for endpoint in ("http://me:pass@tempo:4318/v1/traces", "http://me:pass@tempo:port/", "me:pass@tempo:4318"):
        with pytest.raises(ValueError, match="without user and password: set OTEL_EXPORTER_OTLP_HEADERS"):
            TracesSettings(endpoint=endpoint)


def test_a_line_of_the_log_has_the_trace():
    """As ``trace_id``; other lines have no such field."""
    record = logging.makeLogRecord({"name": "service.access", "created": 10.0})
    plain = LoggedRequest(1.0, logging.INFO, "r", "POST", "/v1/predict", 200, 1.0, 1)
    record.requests, record.written = [plain, plain._replace(trace_id=TRACE)], 1.0
    assert [json.loads(json.dumps(line)).get("trace_id") for line in request_lines(record)] == [None, TRACE]
