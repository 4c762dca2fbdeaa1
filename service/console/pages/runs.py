"""Pages of retraining runs: trigger, training data, and decision of the promotion gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Response
from markupsafe import Markup

from service.console.formatting import RUN_STATES, count, truncated
from service.console.query_params import BeforeQuery, IdPath, ListParams, RefreshQuery
from service.console.render import PageContext, PageExecutor, page_context, render_page
from service.console.svg import difference_plot, difference_range
from service.decisions import ACTIVE, AuditEntry, Decision, Run, RunState, SliceDecision
from service.events import Estimate, InsufficientData
from service.store.audit import entries_about
from service.views.runs import run_view, runs_view
from service.views.slices import estimate_of

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime

RUN_ROWS = 30
VALUE_CHARACTERS = 300

_DATA_LABELS = {
    "base_rows": "Base rows",
    "traffic_rows": "Labelled traffic rows",
    "traffic_left_out": "Traffic rows left out",
    "contents": "Distinct records",
    "held_out_rows": "Held-out rows",
    "held_out_traffic_rows": "Held-out traffic rows",
    "held_out_contents": "Distinct held-out records",
    "held_out_rows_of_slices": "Held-out rows of repetitive slices",
    "functions_set_aside": "Functions left out",
    "function_labels": "Rows with a label of functions",
    "seconds": "Training time (s)",
}
_HIDDEN_DATA = frozenset({"baseline"})  # expected rates of the candidate, which its alarms show
_NEXT_STATE: Mapping[RunState, RunState] = {"waiting_for_labels": "training", "training": "gated"}


def add_routes(routes: APIRouter, runtime: Runtime, executor: PageExecutor) -> None:
    """Add the routes of retraining runs."""

    @routes.get("/runs")
    async def list_runs(before: BeforeQuery = None, refresh: RefreshQuery = 0) -> Response:
        params = ListParams("/runs", before=before, refresh=refresh)
        return await executor.respond(lambda: runs_page(runtime, params))

    @routes.get("/runs/{id}")
    async def show_run(id: IdPath, refresh: RefreshQuery = 0) -> Response:
        params = ListParams(f"/runs/{id}", refresh=refresh)
        return await executor.respond(lambda: run_page(runtime, id, params))


def runs_page(runtime: Runtime, params: ListParams) -> str:
    """Return the page of all runs."""
    view = runs_view(runtime.store, runtime.model.name, before=params.before, limit=RUN_ROWS)
    older = params.href(before=view.next) if view.next else ""
    context = page_context(runtime, "runs", params.refresh)
    return render_runs(context, runtime.model.name, params, view.items, older, runtime.clock())


def run_page(runtime: Runtime, run_id: int, params: ListParams) -> str:
    """Return the page of one run.

    Raises
    ------
    UnknownRun
        If there is no such run.
    """
    run = run_view(runtime.store, runtime.model.name, run_id)
    with runtime.store.read() as connection:
        entries = entries_about(connection, f"run {run_id}")
    return render_run(page_context(runtime, "runs", params.refresh), run, entries, params, runtime.clock())


@dataclass(frozen=True, slots=True)
class RunStep:
    """Transition of a run to a state; ``at`` is None for the next state."""

    at: datetime | None
    state: RunState
    actor: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class GateRow:
    """Decision of the promotion gate about one slice."""

    decision: SliceDecision
    champion: Estimate | InsufficientData
    candidate: Estimate | InsufficientData
    plot: Markup


def render_runs(
    context: PageContext, model: str, params: ListParams, runs: Sequence[Run], older: str, now: datetime
) -> str:
    """Render the page of all runs, newest first; ``older`` is the address of the next page."""
    return render_page("runs.html", context, model=model, params=params, runs=runs, older=older, now=now)


def render_run(context: PageContext, run: Run, entries: Sequence[AuditEntry], params: ListParams, now: datetime) -> str:
    """Render the page of one run; ``entries`` are its audit entries, oldest first."""
    return render_page(
        "run.html",
        context,
        run=run,
        active=run.state in ACTIVE,
        steps=run_steps(run, entries),
        data=data_rows(run.data or {}),
        gate=[] if run.decision is None else gate_rows(run.decision),
        plot_range=difference_range(run.decision.margin) if run.decision else 0.0,
        params=params,
        now=now,
    )


def run_steps(run: Run, entries: Sequence[AuditEntry]) -> list[RunStep]:
    """Return the states of a run in order, then the next one."""
    steps: list[RunStep] = []
    for entry in entries:
        name = entry.action.removeprefix("run.")
        opened = name == "opened"
        state: Any = entry.detail.get("state") if opened else name
        if state not in RUN_STATES:
            continue
        attempts = entry.detail.get("attempts") if state == "training" else None
        reason = entry.detail.get("reason" if opened else "outcome") or ""
        detail = "; ".join(filter(None, (f"attempt {attempts}" if attempts else "", str(reason))))
        if steps and steps[-1].state == state and detail in ("", "attempt 1"):
            continue  # the first attempt follows the transition to training
        steps.append(RunStep(entry.at, state, entry.actor, detail))
    steps = steps or [RunStep(run.opened_at, run.state, "", run.reason)]
    if run.state in ACTIVE and run.outcome:
        steps[-1] = replace(steps[-1], detail=run.outcome)
    following = _NEXT_STATE.get(run.state)
    return [*steps, *([RunStep(None, following)] if following else [])]


def data_rows(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the training data of a run as names and values.

    Examples
    --------
    >>> data_rows({"base_rows": 1955, "seconds": 4.5, "by_slice": {"links": 40}})
    [('Base rows', '1,955'), ('Training time (s)', '4.5'), ('By slice', 'links 40')]
    """
    return [
        (
            _DATA_LABELS.get(name) or name.replace("_", " ").capitalize(),
            truncated(_value_text(value), VALUE_CHARACTERS),
        )
        for name, value in data.items()
        if name not in _HIDDEN_DATA and value not in (None, "", [], {})
    ]


def _value_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_value_text, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return count(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def gate_rows(decision: Decision) -> list[GateRow]:
    """Return the decision of the promotion gate slice by slice."""
    return [
        GateRow(
            slice_,
            estimate_of(slice_.pairs.champion),
            estimate_of(slice_.pairs.candidate),
            difference_plot(slice_, decision.margin),
        )
        for slice_ in decision.slices
    ]
