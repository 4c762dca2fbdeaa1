"""The states of a slice in words, and which of them to look at first."""

from __future__ import annotations

import math

from service.events import Estimate
from service.views.slices import SliceKind, SliceState, SliceView

STATES: dict[SliceState, str] = {
    "accuracy_low": "accuracy low",
    "coverage_off": "coverage off",
    "unknown_high": "many unknown",
    "too_few": "too few rows",
    "ok": "ok",
}
"""In words, the one to look at first first."""

MEANINGS: dict[SliceState, str] = {
    "accuracy_low": "The whole interval of its accuracy is below its target.",
    "coverage_off": "Its coverage is further from the expected one than both intervals allow.",
    "unknown_high": "For more than 10% of the rows its function gave no answer.",
    "too_few": "There are not enough rows or labels to say more.",
    "ok": "Nothing that was counted speaks against it.",
}

_SEVERITIES = {"critical": 0, "warning": 1, "info": 2}
_TITLES: dict[SliceKind, str] = {"all": "All traffic", "none": "No slice fired"}


def title(view: SliceView) -> str:
    """Return what a slice is called on the pages."""
    return _TITLES.get(view.kind, view.name)


def urgency(view: SliceView) -> tuple[int, int, int, float, str]:
    """Return a key that sorts what to look at first to the front."""
    stopped = view.health is not None and view.health.state == "open"
    rank = list(STATES).index(view.state)
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
