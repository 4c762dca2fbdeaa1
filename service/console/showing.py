"""From the parts and the reader's choices to a page: what is there is asked for, what is not is explained."""

from __future__ import annotations

from datetime import datetime

from service.console.choices import WINDOWS, OverviewChoices, SliceChoices
from service.console.detail import SliceLoop, detail
from service.console.examples import Examples, examples
from service.console.overview import count_of, overview
from service.console.parts import ConsoleParts
from service.console.render import Frame, Link, message
from service.console.showing_loop import alarms_since
from service.events import Snapshot
from service.store.queries import recent_records
from service.views.alarms import drifts_by_slice, unresolved_by_slice
from service.views.records import records
from service.views.series import series, sparklines
from service.views.slices import UnknownSlice, slices_view

PAGE_RECORDS = 25


def show_overview(parts: ConsoleParts, choices: OverviewChoices, base_url: str) -> str:
    """Return the overview, or what is still to be done before there is one.

    Parameters
    ----------
    parts
        What it is made from.
    choices
        What the reader has chosen.
    base_url
        Where the reader reaches the service, for commands to copy.
    """
    deployment, snapshot = parts.deployment, parts.deployment.snapshot
    if snapshot is None:
        return _before_the_first(
            parts, examples(base_url, None, deployment.state.classes, parts.example()), choices.href()
        )
    if choices.window not in snapshot.windows:
        return _no_window(snapshot, choices)
    now = parts.clock()
    view = slices_view(deployment, choices.window)
    standing = unresolved_by_slice(parts.store, deployment.state.model)
    sparks = sparklines(parts.store, deployment, now=now)
    # Only a page that shows how to send a label looks for a prediction to label.
    wanted = not view.slices[0].estimate.members.labelled
    labellable = _labellable(parts, now) if wanted else None
    commands = examples(base_url, labellable, deployment.state.classes, parts.example())
    return overview(view, sparks, choices, commands, now, standing, parts.speed)


def show_slice(parts: ConsoleParts, choices: SliceChoices) -> str:
    """Return a slice's page.

    Raises
    ------
    UnknownSlice
        If no slice in force has the name.
    """
    deployment, snapshot = parts.deployment, parts.deployment.snapshot
    if snapshot is None:
        return _before_the_first(parts, examples("", None, ()), choices.href())
    if choices.window not in snapshot.windows:
        return _no_window(snapshot, choices)
    view = slices_view(deployment, choices.window)
    found = next((each for each in view.slices if each.name == choices.name), None)
    if found is None:
        raise UnknownSlice(
            f"no slice is called {choices.name!r}: it may have been renamed, removed, or not yet counted"
        )
    now = parts.clock()
    history = series(
        parts.store, deployment, choices.name, window=choices.window, since=None, until=None, now=now
    )
    recent = records(
        parts.store,
        deployment,
        choices.name,
        kind=choices.kind,
        limit=PAGE_RECORDS,
        cursor=choices.cursor or None,
    )
    loop = _loop_of(parts, choices.name, history.points[0].start)
    return detail(view, found, snapshot, history, recent, choices, now, loop)


def _loop_of(parts: ConsoleParts, name: str, since: datetime) -> SliceLoop:
    """Return what the loop knows of a slice, its alarms from a moment on."""
    model = parts.deployment.state.model
    standing = unresolved_by_slice(parts.store, model)
    of_late = alarms_since(parts.store, model, since)
    own = {each.id: each for each in (*standing.get(name, ()), *of_late) if each.drift.slice == name}
    return SliceLoop(
        unresolved=count_of(standing),
        alarms=tuple(sorted(own.values(), key=lambda each: -each.id)),
        drifts=tuple(drifts_by_slice(parts.deployment).get(name, {}).values()),
        failures=parts.failures(name),
        speed=parts.speed,
    )


def _before_the_first(parts: ConsoleParts, commands: Examples, address: str) -> str:
    state = parts.deployment.state
    if state.version is None:
        return message(
            "No model yet",
            f"{state.model} has no champion, and no prediction was logged for it.",
            "Train one with the first command, or log with the second what a model elsewhere predicted.",
            commands=("slicewatch train", commands.logged),
            link=Link(address, "Refresh"),
            frame=Frame("slices"),
        )
    return message(
        "No snapshot yet",
        f"{state.model}, version {state.version}, is in force, and the monitor has not yet looked at it.",
        "The first figures come with the first tick, in at most 10 s.",
        link=Link(address, "Refresh"),
        frame=Frame("slices", refresh=10),
    )


def _no_window(snapshot: Snapshot, choices: OverviewChoices | SliceChoices) -> str:
    return message(
        f"No figures for {WINDOWS[choices.window]}",
        f"Version {snapshot.version} of {snapshot.model} was never promoted, so nothing is counted since then.",
        link=Link(choices.href(window="1h"), "The last hour"),
    )


def _labellable(parts: ConsoleParts, now: datetime) -> str | None:
    """Return the id of a prediction that could be labelled."""
    model = parts.deployment.state.model
    with parts.store.read() as connection:
        last = next(recent_records(connection, model, before=now, limit=1, labelled=False), None)
    return None if last is None else last.prediction.id
