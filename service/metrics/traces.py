"""OpenTelemetry traces: the spans of a request are made when it has ended, from times that were taken anyway."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from time import monotonic
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import requests
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.metrics.exposition import OTHER
from service.metrics.request_log import LoggedRequest, unix_offset_ns

_log = logging.getLogger(__name__)
_VERSION = version("slicewatch")

Stage: TypeAlias = tuple[str, float, float]
"""Name, start and end of a stage, in seconds of ``perf_counter``."""

MAX_WAITING = 2_048
"""Number of spans that wait to be sent beyond which further traces are dropped as a whole."""
_MAX_SPANS = 16  # of one trace
_STOP_SECONDS = 2.0
_WARNING_SECONDS = 3600.0
_REDIRECTION = 300
_CONTEXT = TraceContextTextMapPropagator()


class Traces:
    """Traces of a sample of the requests; a caller's trace is continued if the caller sampled it, else left alone.

    Spans are sent in batches by a thread of their own; a collector that does not answer costs them, and nothing else.

    Parameters
    ----------
    sample
        Share of the requests without a trace of their caller that begin one.
    exporter
        Receives the spans.
    count_lost
        Counts spans that were dropped.
    address
        Receiver, as warnings name it.
    """

    def __init__(
        self, sample: float, exporter: SpanExporter, count_lost: Callable[[int], None], address: str = ""
    ) -> None:
        self._sample, self._count_lost, self._made = sample, count_lost, 0
        self.exporter = ReportingExporter(exporter, count_lost, address)
        named = Resource.create().merge(Resource({"service.name": "slicewatch", "service.version": _VERSION}))
        self._provider = TracerProvider(
            sampler=ParentBased(ALWAYS_ON),
            resource=named.merge(OTELResourceDetector().detect()),  # OTEL_SERVICE_NAME wins
            shutdown_on_exit=False,
        )
        processor = BatchSpanProcessor(self.exporter, max_queue_size=MAX_WAITING + _MAX_SPANS)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("slicewatch", _VERSION)

    @classmethod
    def over_http(cls, endpoint: str, sample: float, count_lost: Callable[[int], None]) -> Traces:
        """Return traces that are sent by OTLP over HTTP, with the headers, timeout and certificate of ``OTEL_*``.

        Raises
        ------
        ValueError
            If one of these variables is not valid.
        """
        # Their lines could quote headers or the whole address, and there would be several for each batch.
        for library in ("opentelemetry", "urllib3"):
            logging.getLogger(library).setLevel(logging.CRITICAL)
        session = requests.Session()
        url = urlsplit(endpoint)
        exporter = OTLPSpanExporter(endpoint=endpoint, session=session)
        traces = cls(sample, exporter, count_lost, f"{url.scheme}://{url.netloc}")
        session.hooks["response"].append(traces.exporter.note_answer)
        return traces

    def sampled(self, headers: Mapping[bytes, bytes]) -> Context | None:
        """Return the caller's context, or an empty one for a new trace; None if the request is not sampled."""
        if b"traceparent" in headers:
            carrier = {name: headers.get(name.encode(), b"").decode("latin-1") for name in _CONTEXT.fields}
            context = _CONTEXT.extract(carrier, Context())
            caller = trace.get_current_span(context).get_span_context()
            if caller.is_valid:
                return context if caller.trace_flags.sampled else None
        return Context() if random.random() < self._sample else None

    def record(self, context: Context, request: LoggedRequest, stages: Sequence[Stage], batch_rows: int) -> str:
        """Make the spans of a sampled request, and return the id of its trace; empty if they were dropped.

        Parameters
        ----------
        context
            As returned by ``sampled``.
        request
            The request, after its end.
        stages, batch_rows
            Stages of its batch, and the number of rows in it; those of other requests may be among them.
        """
        if self._made - self.exporter.taken > MAX_WAITING:
            self._count_lost(1 + len(stages))
            return ""
        offset, status = unix_offset_ns(), request.status

        def at(seconds: float) -> int:
            return offset + int(seconds * 1e9)

        method = "HTTP" if request.method == OTHER else request.method
        attributes: dict[str, str | int] = {
            "http.request.method": "_OTHER" if request.method == OTHER else method,
            "http.response.status_code": status,
            "slicewatch.request_id": request.request_id,
            "slicewatch.rows": request.rows,
        }
        name = method
        if request.route != OTHER:
            name, attributes["http.route"] = f"{method} {request.route}", request.route
        if status >= 500:
            attributes["error.type"] = str(status)
        server = self._tracer.start_span(
            name, context, trace.SpanKind.SERVER, attributes, start_time=at(request.ended - request.ms / 1000)
        )
        if not server.is_recording():  # OTEL_SDK_DISABLED
            return ""
        inner = trace.set_span_in_context(server, context)
        for stage, began, ended in stages:
            rows = {"slicewatch.batch.rows": batch_rows}
            self._tracer.start_span(stage, inner, attributes=rows, start_time=at(began)).end(at(ended))
        if status >= 500:
            server.set_status(trace.StatusCode.ERROR)
        server.end(at(request.ended))
        self._made += 1 + len(stages)
        return trace.format_trace_id(server.get_span_context().trace_id)

    def stop(self) -> None:
        """Send the spans that are waiting, for two seconds at most."""
        stopping = threading.Thread(target=self._provider.shutdown, name="traces-stop", daemon=True)
        stopping.start()
        stopping.join(_STOP_SECONDS)
        if stopping.is_alive():
            self.exporter.shutdown()  # ends its retries
            stopping.join(_STOP_SECONDS)


class ReportingExporter(SpanExporter):
    """Exporter that counts spans taken and lost, and logs once an hour that spans are lost."""

    def __init__(self, exporter: SpanExporter, count_lost: Callable[[int], None], address: str) -> None:
        self._exporter, self._count_lost, self._address = exporter, count_lost, address
        self._status = 0
        self._warned_at: float | None = None
        self.taken = 0
        """Number of spans that are waiting no more."""

    def note_answer(self, response: Any, **_: Any) -> None:
        """Note the status of a response."""
        self._status = response.status_code

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans."""
        self._status, result = 0, SpanExportResult.FAILURE
        with suppress(Exception):  # some releases raise that there is no connection
            result = self._exporter.export(spans)
        if self._status >= _REDIRECTION:  # taken for a success, and not followed
            result = SpanExportResult.FAILURE
        self.taken += len(spans)
        if result is not SpanExportResult.SUCCESS:
            self._count_lost(len(spans))
            if self._warned_at is None or monotonic() - self._warned_at > _WARNING_SECONDS:
                self._warned_at = monotonic()
                answer = f"it answers with status {self._status}" if self._status else "there is no answer"
                _log.warning("traces cannot be sent to %s: %s; their spans are dropped", self._address, answer)
        return result

    def shutdown(self) -> None:
        """End sending."""
        self._exporter.shutdown()
