"""What the service shows of itself: looked up again and again, and compared with the look before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from service.demo.deliver import Delivery

Document: TypeAlias = Mapping[str, Any]
ENDED = ("promoted", "held", "rejected", "skipped", "failed")


@dataclass(frozen=True, slots=True)
class Seen:
    """One look.

    Parameters
    ----------
    version
        The one in force; None before there is a snapshot.
    alarms, runs
        By id, all there ever were.
    zones
        By slice, where its coverage may lie with the version in force (``lower`` and ``upper``), and the
        logarithm at which its detector alarms (``threshold``).
    accuracy
        By slice, the right and the labelled rows that this version has answered.
    protected
        The slices that the gate protects.
    """

    version: int | None = None
    alarms: Mapping[int, Document] = field(default_factory=dict)
    runs: Mapping[int, Document] = field(default_factory=dict)
    zones: Mapping[str, Document] = field(default_factory=dict)
    accuracy: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    protected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class News:
    """Something that is otherwise than at the look before, with the document that tells of it."""

    kind: Literal["alarm", "resolved", "opened", "run", "gate", "version"]
    document: Document


def look(delivery: Delivery, before: Seen) -> Seen:
    """Return what the service shows now; what it does not answer yet stays as it was."""
    slices = delivery.look(lambda client: client.slices("since_promotion"))
    alarms = delivery.look(lambda client: client.alarms(state="all")) or {"alarms": []}
    runs = delivery.look(lambda client: client.runs()) or {"runs": []}
    known = {each["id"]: _whole(delivery, each, before) for each in runs["runs"]}
    figures = before if slices is None else read_slices(slices)
    return Seen(
        version=figures.version,
        alarms={**before.alarms, **{each["id"]: each for each in alarms["alarms"]}},
        runs={**before.runs, **known},
        zones=figures.zones or before.zones if figures.version == before.version else figures.zones,
        accuracy=figures.accuracy,
        protected=figures.protected,
    )


def read_slices(document: Document) -> Seen:
    """Return what ``GET /v1/slices`` tells of zones and accuracies."""
    zones, accuracy, protected = {}, {}, []
    for each in document["slices"]:
        drift = (each["drift"] or {}).get("coverage")
        if drift is not None and drift["expected"] is not None:
            zones[each["name"]] = {**drift["expected"], "threshold": drift["threshold"]}
        members = each["members"]
        accuracy[each["name"]] = (members["accuracy"].get("count", 0), members["labelled"])
        if each["metadata"]["protected"]:
            protected.append(each["name"])
    return Seen(document["version"], zones=zones, accuracy=accuracy, protected=tuple(protected))


def news(before: Seen, now: Seen) -> list[News]:
    """Return what has changed between two looks, in the order in which it is best told."""
    found = [News("alarm", each) for id_, each in sorted(now.alarms.items()) if id_ not in before.alarms]
    for id_, run in sorted(now.runs.items()):
        there = before.runs.get(id_, {})
        if not there:
            found.append(News("opened", run))
        if run["decision"] is not None and there.get("decision") is None:
            found.append(News("gate", run))
        if run["state"] != "waiting_for_labels" and _place(there) != _place(run):
            found.append(News("run", run))
    if now.version is not None and now.version != before.version:
        found.append(News("version", {"version": now.version, "before": before.version}))
    for id_, each in sorted(now.alarms.items()):
        if each["resolved_at"] and not before.alarms.get(id_, {}).get("resolved_at"):
            found.append(News("resolved", each))
    return found


def _place(run: Document) -> tuple[Any, Any]:
    return run.get("state"), run.get("attempts")


def _whole(delivery: Delivery, run: Document, before: Seen) -> Document:
    """Return a run with what the gate said slice by slice, asked for when there is something new of it."""
    if run["decision"] is None:
        return run
    there = before.runs.get(run["id"])
    if there is not None and there["decision"] is not None and there["updated_at"] == run["updated_at"]:
        return there
    return delivery.look(lambda client: client.run(run["id"])) or there or {**run, "decision": None}
