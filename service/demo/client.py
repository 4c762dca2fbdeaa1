"""Client of the demo: calls that survive restarts, and the state and events that the service shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypeVar

from service.client import Client, ClientError, NoResponse, NotRunning
from service.demo.service_process import PATIENCE_SECONDS, ServiceProcess
from service.errors import ServiceError

RETRIED_STATUSES = (408, 429, 500, 503, 504)
NOTHING_YET = (404, *RETRIED_STATUSES)
PAUSE_SECONDS = 0.2
FINAL_STATES = ("promoted", "held", "rejected", "skipped", "failed")

Document: TypeAlias = Mapping[str, Any]
T = TypeVar("T")


class RetryingClient:
    """Client of a service process that retries over restarts.

    Requests must be safe to repeat: predictions have ids, labels have keys. ``patience_seconds`` is the time
    without a response after which a request is given up.
    """

    def __init__(
        self,
        service: ServiceProcess,
        sleep: Callable[[float], object] = time.sleep,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._service, self._sleep, self._patience = service, sleep, patience_seconds
        self._client = Client(service.url, retries=0)

    def call(self, request: Callable[[Client], T]) -> T:
        """Return the result of a request, retried until it succeeds.

        Raises
        ------
        ClientError
            If the service returns an error that no retry can change.
        ServiceError
            If it does not respond for the time of patience, or does not restart.
        """
        return self._retry(request, RETRIED_STATUSES)

    def call_if_available(self, request: Callable[[Client], T]) -> T | None:
        """Return the result of a request; None if it is not available yet."""
        try:
            return self._retry(request, ())
        except ClientError as error:
            if error.status in NOTHING_YET:
                return None
            raise

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _retry(self, request: Callable[[Client], T], statuses: Collection[int]) -> T:
        end = time.monotonic() + self._patience
        while True:
            try:
                return request(self._client)
            except ClientError as error:
                if error.status not in statuses or time.monotonic() > end:
                    raise
            except (NotRunning, NoResponse) as error:
                if self._service.revive():
                    end = time.monotonic() + self._patience
                elif time.monotonic() > end:
                    raise ServiceError(f"no response for {self._patience:g} s: {error}") from error
            self._sleep(PAUSE_SECONDS)


@dataclass(frozen=True, slots=True)
class ServiceState:
    """State of the service at one poll; ``version`` is None before the first snapshot.

    Parameters
    ----------
    at
        Time of the last snapshot, by the service's clock; None before the first.
    alarms, runs
        All alarms and runs so far, by id.
    bands
        By slice, the tolerance band of its coverage under the active version (``lower`` and ``upper``), and
        the log evidence at which its detector alarms (``threshold``).
    accuracy
        By slice, the correct and the labelled predictions of the active version.
    """

    version: int | None = None
    at: datetime | None = None
    alarms: Mapping[int, Document] = field(default_factory=dict)
    runs: Mapping[int, Document] = field(default_factory=dict)
    bands: Mapping[str, Document] = field(default_factory=dict)
    accuracy: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoryEvent:
    """Change between two polls, with the document that describes it."""

    kind: Literal["alarm", "resolved", "opened", "run", "gate", "version"]
    document: Document


def poll(client: RetryingClient, before: ServiceState) -> ServiceState:
    """Return the state of the service now; parts that are not available keep their earlier state."""
    slices = client.call_if_available(lambda client: client.slices("since_promotion"))
    alarms = client.call_if_available(lambda client: client.alarms(state="all")) or {"alarms": []}
    runs = client.call_if_available(lambda client: client.runs()) or {"runs": []}
    version, at, bands, accuracy = before.version, before.at, before.bands, before.accuracy
    if slices is not None:
        version, at = slices["version"], datetime.fromisoformat(slices["at"])
        bands, accuracy = read_slices(slices)
        if version == before.version and not bands:
            bands = before.bands
    return ServiceState(
        version=version,
        at=at,
        alarms={**before.alarms, **{alarm["id"]: alarm for alarm in alarms["alarms"]}},
        runs={**before.runs, **{run["id"]: _with_decision(client, run, before) for run in runs["runs"]}},
        bands=bands,
        accuracy=accuracy,
    )


def _with_decision(client: RetryingClient, run: Document, before: ServiceState) -> Document:
    """Return a run with the decision by slice, which is requested only if the run has changed."""
    if run["decision"] is None:
        return run
    known = before.runs.get(run["id"])
    if known is not None and known["decision"] is not None and known["updated_at"] == run["updated_at"]:
        return known
    detail = client.call_if_available(lambda client: client.run(run["id"]))
    return detail or known or {**run, "decision": None}


def read_slices(document: Document) -> tuple[dict[str, Document], dict[str, tuple[int, int]]]:
    """Return bands and accuracies by slice from ``GET /v1/slices``, as in `ServiceState`."""
    bands: dict[str, Document] = {}
    accuracy: dict[str, tuple[int, int]] = {}
    for entry in document["slices"]:
        drift = (entry["drift"] or {}).get("coverage")
        if drift is not None and drift["expected"] is not None:
            bands[entry["name"]] = {**drift["expected"], "threshold": drift["threshold"]}
        members = entry["members"]
        accuracy[entry["name"]] = (members["accuracy"].get("count", 0), members["labelled"])
    return bands, accuracy


def events_between(before: ServiceState, now: ServiceState) -> list[StoryEvent]:
    """Return the changes between two polls, in the order of the story."""
    events = [StoryEvent("alarm", alarm) for id_, alarm in sorted(now.alarms.items()) if id_ not in before.alarms]
    for id_, run in sorted(now.runs.items()):
        known = before.runs.get(id_, {})
        if not known:
            events.append(StoryEvent("opened", run))
        if run["decision"] is not None and known.get("decision") is None:
            events.append(StoryEvent("gate", run))
        moved = any(known.get(name) != run.get(name) for name in ("state", "attempts"))
        if moved and run["state"] != "waiting_for_labels":
            events.append(StoryEvent("run", run))
    if now.version is not None and now.version != before.version:
        events.append(StoryEvent("version", {"version": now.version, "before": before.version}))
    events += [
        StoryEvent("resolved", alarm)
        for id_, alarm in sorted(now.alarms.items())
        if alarm["resolved_at"] and not before.alarms.get(id_, {}).get("resolved_at")
    ]
    return events


def run_states(client: RetryingClient, run_id: int) -> list[str]:
    """Return the states that a run went through, oldest first, from the audit log."""
    states: list[str] = []
    before: int | None = None
    while True:
        page: dict[str, Any] = client.call(lambda client, before=before: client.audit(before=before))  # type: ignore[misc]
        for entry in page["entries"]:
            if entry["subject"] == f"run {run_id}":
                opened = entry["action"] == "run.opened"
                states.append(entry["detail"]["state"] if opened else entry["action"].removeprefix("run."))
        before = page["next"]
        if before is None:
            return states[::-1]
