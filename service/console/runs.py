"""The pages of retrainings: why each was opened, what it was trained on, and what the gate said slice by slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from markupsafe import Markup

from service.console import words
from service.console.choices import ListChoices
from service.console.render import Frame, page
from service.console.spans import difference_plot, reach_of
from service.console.states import RUN_STATES, slice_title
from service.decisions import ACTIVE, AuditEntry, Decision, Run, RunState, SliceDecision
from service.views.rates import estimate_of

MOST_CHARACTERS = 300
"""Of a value in the data of a run."""

_DATA = {
    "base_rows": "Rows of the base data",
    "traffic_rows": "Labelled rows of traffic",
    "traffic_left_out": "Rows of traffic left out",
    "contents": "Different contents",
    "held_out_rows": "Held-out rows compared on",
    "held_out_traffic_rows": "Of these, from traffic",
    "held_out_contents": "Different contents of these",
    "held_out_rows_of_slices": "Held-out rows of slices that repeat",
    "functions_set_aside": "Functions set aside",
    "seconds": "Seconds it took",
}
_NOT_SHOWN = frozenset({"baseline"})  # what will be expected of the candidate; alarms show it
ATTEMPT = "attempt {}"
FIRST_ATTEMPT = ATTEMPT.format(1)
_AFTER: Mapping[RunState, RunState] = {"waiting_for_labels": "training", "training": "gated"}


@dataclass(frozen=True, slots=True)
class Step:
    """A move of a run: when, where to, by whom, and what was said; ``at`` is None for what is still to come."""

    at: datetime | None
    state: RunState
    actor: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class GateRow:
    """What the gate said of one slice, with the plot of the difference."""

    found: SliceDecision
    title: str
    champion: Any
    candidate: Any
    plot: Markup


@dataclass(frozen=True, slots=True)
class Datum:
    """One thing that is known of what a run was trained on."""

    name: str
    value: str


def runs(
    frame: Frame, model: str, choices: ListChoices, shown: Sequence[Run], older: str, now: datetime
) -> str:
    """Return the page of all runs.

    Parameters
    ----------
    frame, model, choices
        What is around it, whose runs, and what the reader has chosen.
    shown, older
        The runs, newest first, and the address of those before; empty where there are none.
    now
        The time, UTC.
    """
    return page("runs.html", frame, model=model, choices=choices, runs=shown, older=older, now=now)


def run(frame: Frame, shown: Run, entries: Sequence[AuditEntry], choices: ListChoices, now: datetime) -> str:
    """Return the page of one run.

    Parameters
    ----------
    frame, choices
        What is around it, and what the reader has chosen.
    shown, entries
        The run, and what the audit says of it, oldest first.
    now
        The time, UTC.
    """
    return page(
        "run.html",
        frame,
        run=shown,
        active=shown.state in ACTIVE,
        steps=steps(shown, entries),
        data=data(shown.data or {}),
        gate=gate(shown.decision),
        reach=reach_of(shown.decision.margin) if shown.decision else 0.0,
        choices=choices,
        now=now,
    )


def steps(shown: Run, entries: Sequence[AuditEntry]) -> list[Step]:
    """Return where a run was, in order, where it stands, and what it comes to next."""
    found: list[Step] = []
    for step in filter(None, map(_step, entries)):
        if found and found[-1].state == step.state and step.detail in ("", FIRST_ATTEMPT):
            continue  # training begins with an attempt; the later ones are told
        found.append(step)
    found = found or [Step(shown.opened_at, shown.state, "", shown.reason)]
    if shown.state in ACTIVE and shown.outcome:
        found[-1] = replace(found[-1], detail=shown.outcome)
    further = _AFTER.get(shown.state)
    return [*found, *([Step(None, further)] if further else [])]


def data(values: Mapping[str, Any]) -> list[Datum]:
    """Return what a run was trained on in words.

    Examples
    --------
    >>> [(each.name, each.value) for each in data({"base_rows": 1955, "seconds": 4.5, "by_slice": {"links": 40}})]
    [('Rows of the base data', '1,955'), ('Seconds it took', '4.5'), ('By slice', 'links 40')]
    """
    return [
        Datum(_DATA.get(name) or name.replace("_", " ").capitalize(), _cut(_said(value)))
        for name, value in values.items()
        if name not in _NOT_SHOWN and value not in (None, "", [], {})
    ]


def gate(decision: Decision | None) -> list[GateRow]:
    """Return the gate's table; nothing before it has decided."""
    if decision is None:
        return []
    reach = reach_of(decision.margin)
    return [
        GateRow(
            each,
            slice_title(each.pairs.slice),
            estimate_of(each.pairs.champion.count, each.pairs.n),
            estimate_of(each.pairs.candidate.count, each.pairs.n),
            difference_plot(each, decision.margin, reach),
        )
        for each in decision.slices
    ]


def _step(entry: AuditEntry) -> Step | None:
    """Return an entry of the audit as a step; None for what moved nothing."""
    detail, name = entry.detail, entry.action.removeprefix("run.")
    state = detail.get("state") if name == "opened" else name
    if state not in RUN_STATES:
        return None
    said = detail.get("reason" if name == "opened" else "outcome") or ""
    attempts = detail.get("attempts")
    again = ATTEMPT.format(attempts) if state == "training" and attempts else ""
    return Step(entry.at, state, entry.actor, "; ".join(each for each in (again, str(said)) if each))


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return words.count(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"
