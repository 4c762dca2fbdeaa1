"""HTTP client: one connection that is kept open, and a method per call."""

from __future__ import annotations

import json
import select
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from itertools import islice
from os import urandom
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from service.client.responses import (
    HttpResponse,
    LabelItem,
    LabelResponse,
    NoResponse,
    NotRunning,
    Predictions,
    Readiness,
    read_labels,
    read_predictions,
)
from service.errors import MisuseError

DEFAULT_URL = "http://127.0.0.1:8000"
LABEL_ROWS = 1_000
"""Labels in one request."""

RETRIED_STATUSES = (429, 503)
FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.25, 10.0

T = TypeVar("T")


class Connection:
    """HTTP connection that is opened on demand and kept open; the URL may have the path prefix of a proxy.

    Parameters as of `Client`.
    """

    def __init__(
        self,
        url: str,
        timeout_seconds: float,
        key: str | None = None,
        ca: str | Path | None = None,
        *,
        any_name: bool = False,
    ) -> None:
        self.url = url.rstrip("/")
        key = (key or "").strip()
        if not key.isascii() or not key.isprintable():  # an error of the header would quote it
            raise MisuseError("the API key has characters that no key has: expected one line, such as sw_...")
        self._headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or parts.scheme not in ("http", "https"):
            raise MisuseError(f"invalid URL {self.url!r} of a service: write it as http://127.0.0.1:8000")
        self._prefix = parts.path
        if parts.scheme == "http":
            self._http = HTTPConnection(host, port, timeout=timeout_seconds)
            return
        try:
            tls = ssl.create_default_context(cafile=ca)
        except OSError as error:  # also of TLS
            raise MisuseError(f"{ca} cannot be read as a PEM file of certificates: {error}") from None
        if ca is not None:
            tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the file may have the certificate itself
            tls.check_hostname = not any_name
        self._http = HTTPSConnection(host, port, timeout=timeout_seconds, context=tls)

    def exchange(self, method: str, path: str, body: bytes | None = None) -> HttpResponse:
        """Send a request and return the response, whatever its status.

        Raises
        ------
        NotRunning
            If nothing listens at the address.
        NoResponse
            If the connection breaks or times out; its cause is the error.
        """
        self._connect()
        headers = self._headers | ({"Content-Type": "application/json"} if body else {})
        try:
            self._http.request(method, self._prefix + path, body, headers)
            response = self._http.getresponse()
            return HttpResponse(self.url, response.status, response.getheader("Retry-After"), response.read())
        except (OSError, HTTPException) as error:
            self.close()
            timed_out = isinstance(error, TimeoutError)
            why = f"within {self._http.timeout:g} s" if timed_out else f"({type(error).__name__}: {error})"
            raise NoResponse(f"{self.url} did not answer {method} {path} {why}: see its log") from error

    def close(self) -> None:
        """Close the connection; the next exchange opens another."""
        self._http.close()

    def _connect(self) -> None:
        if self._http.sock is not None and select.select([self._http.sock], [], [], 0)[0]:
            self.close()  # no request is pending, so a readable socket was closed by the other side
        if self._http.sock is None:
            try:
                self._http.connect()
            except ssl.SSLError as error:
                self.close()
                reason = getattr(error, "verify_message", "") or error.reason
                raise MisuseError(
                    f"no TLS connection to {self.url}: {reason}; pass the certificate of "
                    "its authority with --ca FILE, and the name for which it was issued"
                ) from error
            except OSError as error:
                self.close()
                raise NotRunning(
                    f"no service answers at {self.url} ({error.strerror or error}): start it with "
                    "`slicewatch up`, or pass the address where it listens"
                ) from error


class Client:
    """Client of a running service over one connection; not thread-safe.

    Calls that can safely be repeated (reads, labels, and predictions with ids) are retried if the service is
    busy (429, 503) or the connection breaks.

    Parameters
    ----------
    url
        Address of the service.
    ca
        PEM file of the certificates to trust, or of that of the service, for an address with https; those of the
        system by default.
    any_name
        Whether the certificate in ``ca`` may be for another name than that of the address.
    timeout_seconds, retries
        Timeout of a response, and maximum number of retries.
    sleep
        Waits a number of seconds before a retry.
    draw
        Returns a number of random bytes, for idempotency keys.
    key
        API key; None for a service without keys.

    Raises
    ------
    MisuseError
        If the URL or the key is invalid, or the certificates cannot be read.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        ca: str | Path | None = None,
        any_name: bool = False,
        timeout_seconds: float = 30.0,
        retries: int = 4,
        sleep: Callable[[float], object] = time.sleep,
        draw: Callable[[int], bytes] = urandom,
        key: str | None = None,
    ) -> None:
        self._connection = Connection(url, timeout_seconds, key, ca, any_name=any_name)
        self._retries, self._sleep, self._draw = retries, sleep, draw

    @property
    def url(self) -> str:
        """Address of the service."""
        return self._connection.url

    def predict(self, instances: Sequence[Mapping[str, Any]], ids: Sequence[str] | None = None) -> Predictions:
        """Return predictions for records; a repeated id returns its earlier prediction.

        Raises
        ------
        ClientError
            If the service returns an error.
        NotRunning, NoResponse
            If it does not respond.
        MisuseError
            If a record cannot be written as JSON.
        """
        document = {"instances": list(instances)} | ({} if ids is None else {"ids": list(ids)})
        return self._call(read_predictions, "POST", "/v1/predict", document, retry=ids is not None)

    def log_predictions(self, predictions: Sequence[Mapping[str, Any]]) -> Predictions:
        """Log predictions of a model that is served elsewhere, and return them with their slices.

        A prediction has ``features`` and ``label``, and optionally ``id``, ``probabilities``, ``predicted_at`` and
        ``version``. Raises as `predict`, as do all methods below.
        """
        retry = all("id" in prediction for prediction in predictions)
        document = {"predictions": list(predictions)}
        return self._call(read_predictions, "POST", "/v1/predictions", document, retry=retry)

    def label(self, labels: Iterable[LabelItem], *, batch_rows: int = LABEL_ROWS) -> list[LabelResponse]:
        """Send labels in batches, and return the outcome of each.

        A label without ``observed_at`` and ``idempotency_key`` gets a key, so that a retried request is not
        taken for a later label.
        """
        keyed = (
            label
            if label.get("observed_at") is not None or label.get("idempotency_key") is not None
            else {**label, "idempotency_key": self._draw(16).hex()}
            for label in labels
        )
        outcomes: list[LabelResponse] = []
        while batch := list(islice(keyed, batch_rows)):
            outcomes += self._call(read_labels, "POST", "/v1/labels", {"labels": batch})
        return outcomes

    def slices(self, window: str = "1h") -> dict[str, Any]:
        """Return all slices over a window, as ``GET /v1/slices`` does."""
        return self._call(dict, "GET", f"/v1/slices?window={quote(window, safe='')}")

    def models(self) -> dict[str, Any]:
        """Return the versions of the model, as ``GET /v1/models`` does."""
        return self._call(dict, "GET", "/v1/models")

    def alarms(self, state: str = "unresolved", *, before: int | None = None, limit: int = 100) -> dict[str, Any]:
        """Return a page of ``unresolved`` or ``all`` alarms; ``before`` is ``next`` of the previous page."""
        return self._page("/v1/alarms", before, limit, state=state)

    def alarm(self, alarm_id: int) -> dict[str, Any]:
        """Return one alarm with its evidence."""
        return self._call(dict, "GET", f"/v1/alarms/{alarm_id}")

    def acknowledge(self, alarm_id: int, *, by: str = "", note: str = "") -> dict[str, Any]:
        """Acknowledge an alarm, and return it."""
        return self._call(dict, "POST", f"/v1/alarms/{alarm_id}/acknowledge", {"by": by, "note": note})

    def resolve(self, alarm_id: int, *, by: str = "", note: str = "") -> dict[str, Any]:
        """Resolve an alarm, and return it."""
        return self._call(dict, "POST", f"/v1/alarms/{alarm_id}/resolve", {"by": by, "note": note})

    def accept(self, alarm_id: int, *, by: str = "", note: str = "") -> dict[str, Any]:
        """Accept the rate since the change of an alarm as the new normal, and return the alarm."""
        return self._call(dict, "POST", f"/v1/alarms/{alarm_id}/accept", {"by": by, "note": note})

    def incidents(self, state: str = "unresolved", *, before: int | None = None, limit: int = 100) -> dict[str, Any]:
        """Return a page of ``unresolved`` or ``all`` incidents, with their alarms."""
        return self._page("/v1/incidents", before, limit, state=state)

    def incident(self, incident_id: int) -> dict[str, Any]:
        """Return one incident with its alarms."""
        return self._call(dict, "GET", f"/v1/incidents/{incident_id}")

    def acknowledge_incident(self, incident_id: int, *, by: str = "", note: str = "") -> dict[str, Any]:
        """Acknowledge an incident with all its alarms, and return it."""
        return self._call(dict, "POST", f"/v1/incidents/{incident_id}/acknowledge", {"by": by, "note": note})

    def resolve_incident(self, incident_id: int, *, by: str = "", note: str = "") -> dict[str, Any]:
        """Resolve all alarms of an incident, and return it."""
        return self._call(dict, "POST", f"/v1/incidents/{incident_id}/resolve", {"by": by, "note": note})

    def retrain(self, reason: str = "", *, by: str = "") -> dict[str, Any]:
        """Start a retraining, and return its run."""
        return self._call(dict, "POST", "/v1/retrain", {"reason": reason, "by": by}, retry=False)

    def runs(self, *, before: int | None = None, limit: int = 50) -> dict[str, Any]:
        """Return a page of retraining runs, as ``GET /v1/runs`` does."""
        return self._page("/v1/runs", before, limit)

    def run(self, run_id: int) -> dict[str, Any]:
        """Return one retraining run, with the decision of the gate by slice."""
        return self._call(dict, "GET", f"/v1/runs/{run_id}")

    def promote(self, version: int, *, expected: int | None = None, reason: str = "", by: str = "") -> dict[str, Any]:
        """Promote a version to champion, unless another version than ``expected`` is champion now."""
        document = {"reason": reason, "by": by, "expected": expected}
        return self._call(dict, "POST", f"/v1/models/{version}/promote", document, retry=False)

    def rollback(self, reason: str = "", *, by: str = "") -> dict[str, Any]:
        """Promote the previous champion again, and return the change."""
        return self._call(dict, "POST", "/v1/models/rollback", {"reason": reason, "by": by}, retry=False)

    def reports(self, *, before: int | None = None, limit: int = 50) -> dict[str, Any]:
        """Return a page of reports, as ``GET /v1/reports`` does."""
        return self._page("/v1/reports", before, limit)

    def audit(self, *, before: int | None = None, limit: int = 100) -> dict[str, Any]:
        """Return a page of the audit log, as ``GET /v1/audit`` does."""
        return self._page("/v1/audit", before, limit)

    def ready(self) -> Readiness:
        """Return the readiness of the service."""
        response = self._connection.exchange("GET", "/readyz")
        if response.status == 503:
            return Readiness(False, response.document().get("reasons") or {})
        if response.status != 200 or "ready" not in response.document():
            raise response.foreign()
        return Readiness(True, {})

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _page(self, path: str, before: int | None, limit: int, **query: str) -> dict[str, Any]:
        cursor = {} if before is None else {"before": before}
        return self._call(dict, "GET", f"{path}?{urlencode({**query, 'limit': limit, **cursor})}")

    def _call(
        self, convert: Callable[[Any], T], method: str, path: str, document: Any = None, *, retry: bool = True
    ) -> T:
        body = None if document is None else _to_json(document)
        for attempt in range(self._retries if retry else 0):
            wait_seconds = None
            try:
                response = self._connection.exchange(method, path, body)
            except NoResponse as error:
                if isinstance(error.__cause__, TimeoutError):
                    raise  # a service that is too slow would be slower still
            else:
                if response.status not in RETRIED_STATUSES:
                    return response.read(convert)
                wait_seconds = response.retry_after_seconds
            self._sleep(
                min(
                    FIRST_WAIT_SECONDS * 2**attempt if wait_seconds is None else wait_seconds,
                    MAX_WAIT_SECONDS,
                )
            )
        return self._connection.exchange(method, path, body).read(convert)


def _to_json(document: Any) -> bytes:
    try:
        return json.dumps(document, default=_encode, allow_nan=False).encode()
    except (ValueError, TypeError) as error:
        try:
            place, fault = _first_fault(document) or ("", error)
        except RecursionError:  # a value that contains itself
            place, fault = "", error
        advice = "; use None for a missing value" if isinstance(fault, ValueError) else ""
        at = f"{place}: " if place else ""
        raise MisuseError(f"{at}not valid in JSON: {fault}{advice}") from error


def _encode(value: Any) -> Any:
    """Return a scalar of NumPy as its Python value, and a time as text."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise TypeError(f"the time {value.isoformat()} without a time zone; use UTC")
        return value.isoformat()
    if getattr(value, "ndim", None) == 0 and getattr(value.dtype, "kind", "") in "biuf":
        return value.item()
    raise TypeError(f"a {type(value).__name__}; use text, numbers, lists and dicts")


def _first_fault(value: Any, place: str = "") -> tuple[str, Exception] | None:
    """Return place and error of the first value that JSON lacks, such as ``instances[3].views``."""
    parts: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        parts = ((f"{place}.{name}" if place else str(name), part) for name, part in value.items())
    elif isinstance(value, list | tuple):
        parts = ((f"{place}[{n}]", part) for n, part in enumerate(value))
    if fault := next(filter(None, (_first_fault(part, at) for at, part in parts)), None):
        return fault
    try:
        json.dumps(value, default=_encode, allow_nan=False)
    except (ValueError, TypeError) as error:
        return place, error
    return None
