"""The pages of alarms: what stands, what has ended, and the evidence for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from service.console.choices import ListChoices, SliceChoices
from service.console.parts import Promises
from service.console.render import Frame, page
from service.console.spans import zone_chart
from service.console.watch import WatchRow, watch_row
from service.decisions import Alarm, DriftKind, DriftStatus, Run
from service.views.alarms import alarm_sentence

NEAREST, LEAST_SHARE = 5, 0.2
"""Detectors that are shown, of those that have not alarmed, and the evidence that they need for it."""


@dataclass(frozen=True, slots=True)
class AlarmRow:
    """One alarm; ``run`` is the last that answers it."""

    alarm: Alarm
    sentence: str
    watch: WatchRow
    slice_href: str
    run: Run | None


@dataclass(frozen=True, slots=True)
class AlarmList:
    """Some alarms, and the address of those before; empty where there are none."""

    rows: tuple[AlarmRow, ...]
    older: str


@dataclass(frozen=True, slots=True)
class Watched:
    """What the detectors watch.

    Parameters
    ----------
    slices
        How many slices, by kind of detector.
    blind
        Slices that cannot be watched, as nothing is known to be expected of them.
    nearest
        Those with the most evidence, if it is some, and no alarm yet.
    """

    slices: Mapping[DriftKind, int]
    blind: tuple[str, ...]
    nearest: tuple[WatchRow, ...]


def alarm_row(alarm: Alarm, runs: Iterable[Run] = ()) -> AlarmRow:
    """Return an alarm as it is shown; ``runs`` are the newest first."""
    answering = next((run for run in runs if alarm.id in run.alarms), None)
    slice_href = SliceChoices(alarm.drift.slice).href()
    return AlarmRow(alarm, alarm_sentence(alarm), watch_row(alarm.drift), slice_href, answering)


def watched(drifts: Sequence[DriftStatus], quiet: Sequence[DriftStatus]) -> Watched:
    """Return what is watched.

    Parameters
    ----------
    drifts
        Where every detector stands.
    quiet
        Those of them whose slice has no such alarm now, the ones nearest to it first.
    """
    seeing = [each for each in drifts if each.zone is not None]
    kinds: tuple[DriftKind, ...] = ("coverage", "accuracy")
    return Watched(
        slices={kind: sum(each.kind == kind for each in seeing) for kind in kinds},
        blind=tuple(sorted({each.slice for each in drifts} - {each.slice for each in seeing})),
        nearest=tuple(watch_row(each) for each in quiet[:NEAREST] if each.zone and each.share >= LEAST_SHARE),
    )


def alarms(
    frame: Frame,
    model: str,
    choices: ListChoices,
    unresolved: AlarmList,
    resolved: AlarmList,
    watch: Watched,
    promises: Promises,
    now: datetime,
) -> str:
    """Return the page of all alarms.

    Parameters
    ----------
    frame, model, choices
        What is around it, whose alarms, and what the reader has chosen.
    unresolved, resolved
        Those that stand, and those that have ended.
    watch, promises
        What is watched, and how often that may be wrong.
    now
        The time, UTC.
    """
    return page(
        "alarms.html",
        frame,
        model=model,
        choices=choices,
        unresolved=unresolved,
        resolved=resolved,
        watch=watch,
        promises=promises,
        now=now,
    )


def alarm(
    frame: Frame,
    shown: Alarm,
    runs: Sequence[Run],
    current: DriftStatus | None,
    promises: Promises,
    now: datetime,
    *,
    answerable: bool,
) -> str:
    """Return the page of one alarm.

    Parameters
    ----------
    frame
        What is around it.
    shown, runs
        The alarm, and the runs since, newest first.
    current
        Where its slice stands with the same detector now; None where it is not watched.
    promises
        How often an alarm may be wrong.
    now
        The time, UTC.
    answerable
        Whether it can be acknowledged here.
    """
    row = alarm_row(shown, runs)
    return page(
        "alarm.html",
        frame,
        row=row,
        alarm=shown,
        drift=shown.drift,
        chart=zone_chart(shown.drift),
        current=None if current is None else watch_row(current),
        current_chart=Markup("") if current is None else zone_chart(current),
        promises=promises,
        answerable=answerable and shown.state == "open",
        now=now,
    )
