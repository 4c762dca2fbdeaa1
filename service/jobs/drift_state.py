"""What a watch over drift has seen so far, and how it outlasts a restart."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from service.decisions import Zone
from service.monitor.drift import DriftWatch, Key
from service.monitor.windows import BLOCK_SECONDS, floor_to
from service.store import queries
from service.store.evidence import last_first_label
from service.views.current import InForce

CHECKPOINT = "drift"
"""The name under which the state of the detectors is kept."""

_REACH = timedelta(days=1)  # how far back a watch begins that was never kept

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Watched:
    """The detectors of one version since it was put in force, and how far they have read.

    Parameters
    ----------
    version, promoted_at
        Which version, and since when.
    until, seq
        The end of the last block, and the last first label, that were read.
    zones
        What is watched, and where each rate may lie.
    watch
        The detectors.
    zoned
        What the zones were made from.
    """

    version: int
    promoted_at: datetime | None
    until: datetime
    seq: int
    zones: Mapping[Key, Zone]
    watch: DriftWatch
    zoned: tuple[object, object, str]

    def is_of(self, in_force: InForce) -> bool:
        """Tell whether this is the version in force, and was not put in force again since."""
        return (self.version, self.promoted_at) == (in_force.version, in_force.promoted_at)

    def rezone(self, in_force: InForce, zones: Mapping[Key, Zone]) -> None:
        """Go on with the zones that are in force."""
        self.zones, self.zoned = zones, zoned_by(in_force)
        self.watch.rezone(zones)

    def pass_over(self, connection: Connection, model: str, until: datetime) -> None:
        """Leave unread what came before a moment."""
        self.until = max(self.until, until)
        self.seq = max(self.seq, last_first_label(connection, model, before=until))

    def to_bytes(self) -> bytes:
        """Return the state, as ``restored`` reads it."""
        return json.dumps(
            {
                "version": self.version,
                "promoted_at": self.promoted_at and self.promoted_at.isoformat(),
                "until": self.until.isoformat(),
                "seq": self.seq,
                "state": base64.b64encode(self.watch.to_bytes()).decode(),
            }
        ).encode()


def restored(
    connection: Connection, in_force: InForce, zones: Mapping[Key, Zone], threshold: float
) -> Watched | None:
    """Return the watch of the version in force as it was kept; None where none was."""
    kept = queries.checkpoint(connection, CHECKPOINT)
    if kept is None:
        return None
    try:
        found = json.loads(kept.state)
        promoted_at = found["promoted_at"] and datetime.fromisoformat(found["promoted_at"])
        if (found["version"], promoted_at) != (in_force.version, in_force.promoted_at):
            return None
        until, state = datetime.fromisoformat(found["until"]), base64.b64decode(found["state"])
        watch = DriftWatch.from_bytes(state, zones, threshold)
        return Watched(found["version"], promoted_at, until, found["seq"], zones, watch, zoned_by(in_force))
    except (KeyError, TypeError, ValueError) as error:
        _log.warning("the evidence that was kept is not used, and gathered anew: %s", error)
        return None


def begun(
    connection: Connection, in_force: InForce, zones: Mapping[Key, Zone], threshold: float, now: datetime
) -> Watched:
    """Return a watch that begins where the version was put in force, but not long ago."""
    assert in_force.version is not None  # noqa: S101 - without one there is nothing to watch
    since = now - _REACH
    if in_force.promoted_at is not None:
        since = min(max(in_force.promoted_at, since), now)  # a clock that was set back must not stop it
    return Watched(
        in_force.version,
        in_force.promoted_at,
        floor_to(since, BLOCK_SECONDS[0]),
        last_first_label(connection, in_force.model, before=since),
        zones,
        DriftWatch(zones, threshold),
        zoned_by(in_force),
    )


def zoned_by(in_force: InForce) -> tuple[object, object, str]:
    """Return what the zones depend on."""
    return in_force.references, in_force.accuracies, in_force.functions_version.hash
