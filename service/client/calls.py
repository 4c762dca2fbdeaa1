"""The calls that a client can make."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from os import urandom
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from service.client.answers import (
    LabelAnswer,
    LabelItem,
    Predictions,
    Readiness,
    read_document,
    read_labels,
    read_predictions,
)
from service.client.connection import Answer, Connection
from service.client.failures import NoAnswer
from service.errors import MisuseError

DEFAULT_URL = "http://127.0.0.1:8000"
LABEL_ROWS = 1_000
"""Labels in one request."""

BUSY = (429, 503)
LONGEST_WAIT_SECONDS = 10.0
FIRST_WAIT_SECONDS = 0.25

T = TypeVar("T")


class Client:
    """Speaks to a running service over one connection, which is kept open; not to be shared by threads.

    Where the service is busy (429, 503), and where the connection breaks, a call that may be made twice is
    made again: every call that only reads, labels, and predictions whose ids are given.

    Parameters
    ----------
    url
        Where the service listens.
    timeout_seconds
        How long an answer may take.
    retries
        How often a call is made again.
    sleep
        Waits so many seconds before it is.
    draw
        That many random bytes, for keys.

    Raises
    ------
    MisuseError
        If the address is none.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_seconds: float = 30.0,
        retries: int = 4,
        sleep: Callable[[float], object] = time.sleep,
        draw: Callable[[int], bytes] = urandom,
    ) -> None:
        self._connection = Connection(url, timeout_seconds)
        self._retries, self._sleep, self._draw = retries, sleep, draw

    @property
    def url(self) -> str:
        """Where the service listens."""
        return self._connection.url

    def predict(
        self, instances: Sequence[Mapping[str, Any]], ids: Sequence[str] | None = None
    ) -> Predictions:
        """Return the model's answers for some records; for ids that it has answered before, those from then.

        Raises
        ------
        ClientError
            If the service refuses.
        NotRunning, NoAnswer
            If it does not answer.
        MisuseError
            If a record holds what JSON does not have.
        """
        document = {"instances": list(instances)} | ({} if ids is None else {"ids": list(ids)})
        return self._ask(read_predictions, "POST", "/v1/predict", document, again=ids is not None)

    def log_predictions(self, predictions: Sequence[Mapping[str, Any]]) -> Predictions:
        """Log what another server has predicted, and return it with its slices. Raises as ``predict``.

        Parameters
        ----------
        predictions
            Each with its ``features`` and ``label``, and where known ``id``, ``probabilities``,
            ``predicted_at`` and ``version``.
        """
        document = {"predictions": list(predictions)}
        again = all("id" in each for each in predictions)
        return self._ask(read_predictions, "POST", "/v1/predictions", document, again=again)

    def label(self, labels: Iterable[LabelItem], *, batch_rows: int = LABEL_ROWS) -> list[LabelAnswer]:
        """Send labels, so many in one request, and return what became of each. Raises as ``predict``.

        A label without ``observed_at`` and ``idempotency_key`` gets a key, so that none is taken for a later
        statement where its request is made again.
        """
        rest, out = (self._told_apart(each) for each in labels), list[LabelAnswer]()
        while batch := list(islice(rest, batch_rows)):
            out += self._ask(read_labels, "POST", "/v1/labels", {"labels": batch})
        return out

    def slices(self, window: str = "1h") -> dict[str, Any]:
        """Return every slice in a window, as ``GET /v1/slices`` tells it. Raises as ``predict``."""
        return self._ask(read_document, "GET", f"/v1/slices?window={quote(window, safe='')}")

    def models(self) -> dict[str, Any]:
        """Return the versions of the model, as ``GET /v1/models`` tells them. Raises as ``predict``."""
        return self._ask(read_document, "GET", "/v1/models")

    def alarms(
        self, state: str = "unresolved", *, before: int | None = None, limit: int = 100
    ) -> dict[str, Any]:
        """Return a page of alarms, as ``GET /v1/alarms`` tells them. Raises as ``predict``.

        Parameters
        ----------
        state
            ``unresolved`` or ``all``.
        before
            The ``next`` of the page before.
        """
        return self._ask(read_document, "GET", _page("/v1/alarms", before, limit, state=state))

    def alarm(self, alarm_id: int) -> dict[str, Any]:
        """Return one alarm with its evidence. Raises as ``predict``."""
        return self._ask(read_document, "GET", f"/v1/alarms/{alarm_id}")

    def acknowledge(self, alarm_id: int, *, by: str = "", note: str = "") -> dict[str, Any]:
        """Say that somebody knows of an alarm, and return it. Raises as ``predict``."""
        said = {"by": by, "note": note}
        return self._ask(read_document, "POST", f"/v1/alarms/{alarm_id}/acknowledge", said)

    def resolve(self, alarm_id: int, *, by: str = "", note: str = "") -> dict[str, Any]:
        """End an alarm, and return it. Raises as ``predict``."""
        said = {"by": by, "note": note}
        return self._ask(read_document, "POST", f"/v1/alarms/{alarm_id}/resolve", said)

    def retrain(self, reason: str = "", *, by: str = "") -> dict[str, Any]:
        """Begin a retraining, and return its run. Raises as ``predict``."""
        said = {"reason": reason, "by": by}
        return self._ask(read_document, "POST", "/v1/retrain", said, again=False)

    def runs(self, *, before: int | None = None, limit: int = 50) -> dict[str, Any]:
        """Return a page of retrainings, as ``GET /v1/runs`` tells them. Raises as ``predict``."""
        return self._ask(read_document, "GET", _page("/v1/runs", before, limit))

    def run(self, run_id: int) -> dict[str, Any]:
        """Return one retraining, with what the gate said slice by slice. Raises as ``predict``."""
        return self._ask(read_document, "GET", f"/v1/runs/{run_id}")

    def promote(
        self, version: int, *, expected: int | None = None, reason: str = "", by: str = ""
    ) -> dict[str, Any]:
        """Let a version answer, and return what was changed. Raises as ``predict``.

        Parameters
        ----------
        expected
            Change nothing unless this version is the champion now; None for any.
        """
        said = {"reason": reason, "by": by, "expected": expected}
        return self._ask(read_document, "POST", f"/v1/models/{version}/promote", said, again=False)

    def rollback(self, reason: str = "", *, by: str = "") -> dict[str, Any]:
        """Let the champion before this one answer again, and return what was changed. Raises as ``predict``."""
        said = {"reason": reason, "by": by}
        return self._ask(read_document, "POST", "/v1/models/rollback", said, again=False)

    def reports(self, *, before: int | None = None, limit: int = 50) -> dict[str, Any]:
        """Return a page of reports, as ``GET /v1/reports`` tells them. Raises as ``predict``."""
        return self._ask(read_document, "GET", _page("/v1/reports", before, limit))

    def audit(self, *, before: int | None = None, limit: int = 100) -> dict[str, Any]:
        """Return a page of who did what when, as ``GET /v1/audit`` tells it. Raises as ``predict``."""
        return self._ask(read_document, "GET", _page("/v1/audit", before, limit))

    def ready(self) -> Readiness:
        """Tell whether the service is ready. Raises as ``predict``."""
        answer = self._connection.exchange("GET", "/readyz")
        if answer.status == 503:
            return Readiness(False, answer.document().get("reasons") or {})
        if answer.status != 200 or "ready" not in answer.document():
            raise answer.foreign()
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

    def _told_apart(self, label: LabelItem) -> LabelItem:
        if label.get("observed_at") is not None or label.get("idempotency_key") is not None:
            return label
        return {**label, "idempotency_key": self._draw(16).hex()}

    def _ask(
        self, read: Callable[[Any], T], method: str, path: str, document: Any = None, *, again: bool = True
    ) -> T:
        body = None if document is None else _encoded(document)
        for tries in range(self._retries if again else 0):
            answer = self._tried(method, path, body)
            if answer is not None and answer.status not in BUSY:
                return answer.read(read)
            told = None if answer is None else answer.retry_after_seconds
            wait_seconds = FIRST_WAIT_SECONDS * 2**tries if told is None else told
            self._sleep(min(wait_seconds, LONGEST_WAIT_SECONDS))
        return self._connection.exchange(method, path, body).read(read)

    def _tried(self, method: str, path: str, body: bytes | None) -> Answer | None:
        """Return the answer, or None where the connection broke; waiting again for one that is late is no use."""
        try:
            return self._connection.exchange(method, path, body)
        except NoAnswer as error:
            if isinstance(error.__cause__, TimeoutError):
                raise
            return None


def _page(path: str, before: int | None, limit: int, **more: str) -> str:
    asked: dict[str, Any] = {**more, "limit": limit} | ({} if before is None else {"before": before})
    return f"{path}?{urlencode(asked)}"


def _encoded(document: Any) -> bytes:
    try:
        return json.dumps(document, default=_spelled, allow_nan=False).encode()
    except ValueError as error:
        raise MisuseError(f"JSON cannot hold this: {error}; give None where a value is missing") from error
    except TypeError as error:
        raise MisuseError(f"JSON cannot hold this: {error}") from error


def _spelled(value: Any) -> str:
    if not isinstance(value, datetime):
        raise TypeError(f"a {type(value).__name__}; give text, numbers, lists and dicts")
    if value.tzinfo is None:
        raise TypeError(f"the time {value.isoformat()} without a zone; give it in UTC")
    return value.isoformat()
