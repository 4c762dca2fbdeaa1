"""Job that puts alarms into incidents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import TypeAlias

import numpy as np
from sqlalchemy import Connection

from service.decisions import Alarm
from service.jobs.accuracy_references import family_rates
from service.jobs.drift_observations import known_sets
from service.metrics.gauges import MetricsPage
from service.monitor.block_counts import BoolMatrix, unpack_bitmaps
from service.monitor.incidents import Place, RowSample, find_incidents
from service.serving.deployment import Deployment
from service.store.alarms import alarms
from service.store.engine import Store
from service.store.incidents import assign_alarms, incidents
from service.store.labels import latest_first_labels
from service.store.queries import memberships
from service.store.writer import Writer
from sfs.function import ALL_ROWS

Families: TypeAlias = Mapping[tuple[str, str | None], Mapping[str, str]]
"""Fingerprint by slice of families, by name and fingerprint of the family."""

ROWS, CELLS = 20_000, 10_000_000
"""Maximum number of rows, and of rows times alarms, that are read before and since a change."""

ONSET = timedelta(minutes=1)
"""Least uncertainty of the start of a change."""


class IncidentJob:
    """Puts new alarms into incidents, and shows the unresolved ones.

    An alarm that stands alone is an incident of its own. Any other belongs to the unresolved incident with which it has
    rows in common and whose changes may have begun at the same time, else to a new one. Everything is read from the
    store, in which alarms without an incident wait, so that a restart changes nothing. For one thread at a time.
    """

    def __init__(self, deployment: Deployment, store: Store, writer: Writer, page: MetricsPage) -> None:
        self._deployment, self._store, self._writer, self._page = deployment, store, writer, page

    def run(self) -> None:
        """Assign the unresolved alarms that have no incident, those that may have begun at one time together."""
        model = self._deployment.state.model
        while plans := self._plans(model):

            def commit(connection: Connection, plans: Sequence[dict[int, str]] = plans) -> None:
                for plan in plans:
                    assign_alarms(connection, model, list(plan), plan)

            self._writer.submit(commit).result()
        with self._store.read() as connection:
            current = incidents(connection, model, unresolved=True)
        self._page.show_incidents(model, current, self._deployment.state.metadata)

    def _plans(self, model: str) -> list[dict[int, str]]:
        """Return incidents of the next alarms without one: how each rate moved by id of the alarm, the cause first."""
        with self._store.read() as connection:
            unresolved = sorted(alarms(connection, model, unresolved=True), key=attrgetter("id"))
            waiting = [alarm for alarm in unresolved if alarm.incident is None]
            if not waiting:
                return []
            if alone := [alarm for alarm in waiting if alarm.drift.stands_alone]:
                return [{alarm.id: "by itself"} for alarm in alone]
            unresolved = [alarm for alarm in unresolved if not alarm.drift.stands_alone]
            joining = [alarm for alarm in waiting if _began_together(alarm, waiting[0])]
            assigned = [alarm for alarm in unresolved if alarm.incident is not None]
            known = [alarm for alarm in assigned if any(_began_together(alarm, other) for other in joining)]
            if len(joining) == 1 and not known:
                return [{joining[0].id: "by itself"}]
            together = known + joining
            limit = min(ROWS, CELLS // len(together))
            families = {key[:2]: own for key, own in family_rates(self._deployment.state).items()}
            before = _sample(connection, model, together, families, None, min(map(_start, together)), limit)
            until = max(alarm.at for alarm in joining)
            since = _sample(connection, model, together, families, max(map(_start, joining)), until, limit)
        wrong = np.array([alarm.drift.is_accuracy for alarm in together], np.bool_)
        rising = [(alarm.drift.direction == "up") != of_wrong for alarm, of_wrong in zip(together, wrong, strict=True)]
        merged: dict[int, list[Place]] = {}  # by incident; alarms that are in one stay together
        for places in find_incidents(before, since, rising, wrong):
            ids = [id_ for place in places if (id_ := together[place.alarm].incident) is not None]
            merged.setdefault(min(ids, default=-together[places[0].alarm].id), []).extend(places)
        return [
            {together[place.alarm].id: _moved(place, together) for place in places}
            for places in merged.values()
            if any(together[place.alarm].incident is None for place in places)
        ]


def _start(alarm: Alarm) -> datetime:
    return alarm.drift.since or alarm.at


def _began_together(one: Alarm, other: Alarm) -> bool:
    """Return True if both changes may have begun at one time: as long before their likeliest start as after it."""
    (first, last), (other_first, other_last) = (
        (_start(alarm) - max(alarm.at - _start(alarm), ONSET), alarm.at) for alarm in (one, other)
    )
    return first <= other_last and other_first <= last


def _sample(
    connection: Connection,
    model: str,
    alarms: Sequence[Alarm],
    families: Families,
    since: datetime | None,
    until: datetime,
    limit: int,
) -> RowSample:
    """Return the last rows of [since, until), for the coverages, and the last labelled ones, for the accuracies."""
    rows = [(*row, False) for row in memberships(connection, model, since=since, until=until, limit=limit)]
    is_accuracy = np.array([alarm.drift.is_accuracy for alarm in alarms], np.bool_)
    parts = _parts(connection, alarms, families, rows, ~is_accuracy)
    if is_accuracy.any():
        version = max(alarm.version for alarm in alarms)
        labels = latest_first_labels(connection, model, version, since=since, until=until, limit=limit)
        labelled = [(label.set_hash, label.member, label.unknown, label.label != label.predicted) for label in labels]
        parts += _parts(connection, alarms, families, labelled, is_accuracy, of_labels=True)
    none = np.zeros((0, len(alarms)), np.bool_)
    return RowSample(*(np.concatenate([none, *columns]) for columns in zip(*parts, strict=True)))


def _parts(
    connection: Connection,
    alarms: Sequence[Alarm],
    families: Families,
    rows: Sequence[tuple[str, bytes, bytes, bool]],
    counted: BoolMatrix,
    *,
    of_labels: bool = False,
) -> list[tuple[BoolMatrix, BoolMatrix, BoolMatrix]]:
    """Return members, exposed rows and hits by function set: of rows or labels, for the ``counted`` alarms alone.

    The rows of a family are those in any of its slices.
    """
    sets = known_sets(connection, {row[0] for row in rows})
    parts = []
    for set_hash, group in groupby(sorted(rows, key=itemgetter(0)), key=itemgetter(0)):
        _, member_bits, unknown_bits, is_wrong = zip(*group, strict=True)
        names = list(zip(sets[set_hash].names, sets[set_hash].fingerprints, strict=True))
        every = np.ones((len(is_wrong), 1), np.bool_)
        member, unknown = (unpack_bitmaps(bits, len(names)) for bits in (member_bits, unknown_bits))
        unions = {key: own for key, own in families.items() if own.items() <= {*names}}
        inside = [member[:, [names.index(pair) for pair in own.items()]].any(axis=1) for own in unions.values()]
        of_families = np.column_stack([~every[:, :0], *inside])
        column = {key: k for k, key in enumerate([*names, (ALL_ROWS, None), *unions])}
        chosen = [column.get((alarm.drift.slice, alarm.drift.fingerprint), len(column)) for alarm in alarms]
        member = np.hstack([member, every, of_families, ~every])[:, chosen]  # [N, M]
        known = np.hstack([~unknown, every, of_families, ~every])[:, chosen]  # [N, M]
        exposed = (member if of_labels else known) & counted
        hit = exposed & (np.array(is_wrong, np.bool_)[:, None] if of_labels else member)
        parts.append((member, exposed, hit))
    return parts


def _moved(place: Place, together: Sequence[Alarm]) -> str:
    how = "by itself" if place.cause is None else f"with {together[place.cause].drift.place}"
    return how if place.is_shown else f"{how}, too few rows to be sure"
