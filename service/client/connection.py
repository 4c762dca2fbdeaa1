"""One connection to the service: what is sent, and what comes back."""

from __future__ import annotations

import json
import select
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection, responses
from typing import Any, TypeVar
from urllib.parse import urlsplit

from service.client.failures import ClientError, NoAnswer, NotRunning
from service.errors import MisuseError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as it came."""

    url: str
    status: int
    retry_after: str | None
    body: bytes

    @property
    def retry_after_seconds(self) -> float | None:
        """When to come again; None where the service does not say it in seconds."""
        said = (self.retry_after or "").strip()
        return float(said) if said.isdecimal() else None

    def read(self, make: Callable[[Any], T]) -> T:
        """Return what ``make`` makes of the document.

        Raises
        ------
        ClientError
            If the answer is a refusal, or not one of this service.
        """
        if not 200 <= self.status < 300:
            raise self.refusal()
        try:
            return make(json.loads(self.body))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self.foreign() from error

    def foreign(self) -> ClientError:
        """Return that something else answers at the address."""
        said = f"{self.url} is no Slicewatch service of this version"
        return ClientError(self.status, said, _start_of(self.body))

    def refusal(self) -> ClientError:
        """Return the problem that the body describes."""
        document = self.document()
        title = str(document.get("title") or responses.get(self.status, "refused"))
        detail = document.get("detail") or ("" if document else _start_of(self.body))
        told = [each for each in document.get("errors") or [] if isinstance(each, dict)]
        errors = [(str(each.get("field", "")), str(each.get("message", ""))) for each in told]
        return ClientError(self.status, title, str(detail), errors)

    def document(self) -> dict[str, Any]:
        """Return the body if it is a JSON object, else an empty one."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}


class Connection:
    """A connection that is opened when it is needed, and kept.

    Parameters
    ----------
    url
        Where the service listens, with the path that a proxy may have put before its own.
    timeout_seconds
        How long to wait for the other side.

    Raises
    ------
    MisuseError
        If the address is none.
    """

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self.url = url.rstrip("/")
        self._http, self._prefix = _opened(self.url, timeout_seconds)

    def exchange(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """Send a request, and return whatever is answered.

        Raises
        ------
        NotRunning
            If nothing listens.
        NoAnswer
            If the connection breaks, or the time is over; its cause is the error.
        """
        self._connect()
        headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if body else {})
        try:
            self._http.request(method, self._prefix + path, body, headers)
            answer = self._http.getresponse()
            return Answer(self.url, answer.status, answer.getheader("Retry-After"), answer.read())
        except (OSError, HTTPException) as error:
            self.close()
            late = isinstance(error, TimeoutError)
            why = f"within {self._http.timeout:g} s" if late else f"({type(error).__name__}: {error})"
            raise NoAnswer(f"{self.url} did not answer {method} {path} {why}: see its log") from error

    def close(self) -> None:
        """Close the connection; the next exchange opens another."""
        self._http.close()

    def _connect(self) -> None:
        if self._http.sock is not None and select.select([self._http.sock], [], [], 0)[0]:
            self.close()  # nothing was asked, so what can be read is the end of the connection
        if self._http.sock is None:
            try:
                self._http.connect()
            except OSError as error:
                self.close()
                raise NotRunning(
                    f"no service answers at {self.url} ({error.strerror or error}): start it with "
                    "`slicewatch up`, or name the address where it listens"
                ) from error


def _opened(url: str, timeout_seconds: float) -> tuple[HTTPConnection, str]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in ("http", "https"):
        raise MisuseError(f"{url!r} is no address of a service: write it as http://127.0.0.1:8000")
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return kind(host, port, timeout=timeout_seconds), parts.path


def _start_of(body: bytes) -> str:
    return " ".join(body[:200].decode("utf-8", "replace").split())
