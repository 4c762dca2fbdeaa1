"""The states of a slice in words, and which of them to look at first."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from service.decisions import AlarmState, DriftKind, RunState, SliceOutcome, Trigger
from service.events import Estimate
from service.views.slices import SliceKind, SliceState, SliceView
from sfs.function import ALL_ROWS, NO_SLICE

State: TypeAlias = SliceState | Literal["few_labels", "not_judged"]
"""What is said of a slice: pages tell too few labels from too few rows, and what is well from what nobody judged."""

STATES: dict[State, str] = {
    "accuracy_low": "accuracy low",
    "coverage_off": "coverage off",
    "unknown_high": "many unknown",
    "too_few": "too few rows",
    "few_labels": "too few labels",
    "not_judged": "not judged",
    "ok": "ok",
}
"""In words, the one to look at first first."""

MEANINGS: dict[State, str] = {
    "accuracy_low": "The whole interval of its accuracy is below its target.",
    "coverage_off": "Its coverage is further from the expected one than both intervals allow.",
    "unknown_high": "For more than 10% of the rows its function gave no answer.",
    "too_few": "There are no rows that its function answered for.",
    "few_labels": "Its coverage is as expected, or nothing is expected of it; its accuracy cannot be told yet.",
    "not_judged": "It has figures, but neither an expected coverage nor a target that they could be held against.",
    "ok": "Nothing that was counted speaks against it.",
}

UNJUDGED: tuple[State, ...] = ("ok", "not_judged")
"""What is not said of a slice with an alarm."""

DRIFT_KINDS: dict[DriftKind, str] = {"coverage": "coverage drift", "accuracy": "accuracy drop"}
ALARM_STATES: dict[AlarmState, str] = {
    "open": "open",
    "acknowledged": "acknowledged",
    "resolved": "resolved",
}
RUN_STATES: dict[RunState, str] = {
    "waiting_for_labels": "waiting for labels",
    "training": "training",
    "gated": "decided",
    "promoted": "promoted",
    "held": "held for approval",
    "rejected": "rejected",
    "skipped": "skipped",
    "failed": "failed",
}
RUN_MEANINGS: dict[RunState, str] = {
    "waiting_for_labels": "It trains once enough labels have come.",
    "training": "A candidate is being trained.",
    "gated": "The gate has compared the candidate with the champion.",
    "promoted": "The candidate became the champion.",
    "held": "A person decides whether the candidate answers.",
    "rejected": "The champion stays.",
    "skipped": "Nothing was trained, as nothing had to be.",
    "failed": "It ended without a candidate.",
}
TRIGGERS: dict[Trigger, str] = {
    "coverage": "coverage alarm",
    "accuracy": "accuracy alarm",
    "age": "age of the model",
    "request": "asked for by a person",
}
OUTCOMES: dict[SliceOutcome, str] = {
    "better": "better",
    "as_good": "as good",
    "no_harm": "no harm shown",
    "worse": "worse",
    "not_verified": "not verified",
}

_SEVERITIES = {"critical": 0, "warning": 1, "info": 2}
_TITLES: dict[SliceKind, str] = {"all": "All traffic", "none": "No slice fired"}


def title(view: SliceView) -> str:
    """Return what a slice is called on the pages."""
    return _TITLES.get(view.kind, view.name)


def slice_title(name: str) -> str:
    """Return what a slice is called on the pages, by its name alone."""
    return {ALL_ROWS: _TITLES["all"], NO_SLICE: _TITLES["none"]}.get(name, name)


def shown(view: SliceView) -> State:
    """Return what is said of a slice."""
    if view.state == "too_few" and isinstance(view.estimate.coverage, Estimate):
        return "few_labels"
    compared = isinstance(view.reference, Estimate) or view.metadata.target is not None
    return view.state if compared or view.state != "ok" else "not_judged"


def urgency(view: SliceView) -> tuple[int, int, int, float, str]:
    """Return a key that sorts what to look at first to the front."""
    stopped = view.health is not None and view.health.state == "open"
    rank = list(STATES).index(shown(view))
    return 0 if stopped else rank, rank, _SEVERITIES[view.metadata.severity], -_distance(view), view.name


def _distance(view: SliceView) -> float:
    """Return how far the slice is from what is expected, in a unit of its state."""
    target, accuracy = view.metadata.target, view.estimate.members.accuracy
    if view.state == "accuracy_low" and target is not None and isinstance(accuracy, Estimate):
        return target - accuracy.value
    found, reference = view.estimate.coverage, view.reference
    if not isinstance(found, Estimate) or not isinstance(reference, Estimate):
        return 0.0
    if found.value == 0 or reference.value == 0:
        return math.inf if found.value != reference.value else 0.0
    return abs(math.log(found.value / reference.value))
