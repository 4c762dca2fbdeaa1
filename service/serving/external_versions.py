"""Versions of a model that other servers log, limited in number: each has blocks of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Set
from datetime import datetime, timedelta

from sqlalchemy import Connection

from service.errors import MisuseError
from service.serving.deployment import Deployment
from service.store.queries import checkpoint
from service.store.writer import Writer, save_checkpoint

MAX_VERSIONS = 100
"""Maximum number of versions logged by other servers within ``REMEMBERED``; the active one is always accepted."""
REMEMBERED = timedelta(days=1)
_RENEWED = timedelta(hours=1)  # the store knows the last row of a version to within this


class ExternalVersions:
    """The versions that other servers logged in the last day, kept in the store: a restart admits no others."""

    def __init__(self, deployment: Deployment, writer: Writer, clock: Callable[[], datetime]) -> None:
        self._deployment, self._writer, self._clock = deployment, writer, clock
        self._name = f"external_versions:{deployment.state.model}"
        self._seen: dict[int, datetime] = {}  # as of the last change here; the store has these, and maybe others

    async def admit(self, versions: Set[int]) -> None:
        """Accept the versions of a request.

        Raises
        ------
        MisuseError
            If one is new, and there are too many; all rows of the request are refused.
        StoreError
            If a new one cannot be stored.
        """
        now, active = self._clock(), self._deployment.state.version
        if all(_is_within(self._seen.get(version), now, _RENEWED) for version in versions):
            return
        kept = _recent(self._seen, now)
        if versions - kept.keys() <= {active} or len(kept) < MAX_VERSIONS:  # else the store refuses them, too

            def work(connection: Connection) -> dict[int, datetime]:
                kept = _recent(self._stored(connection), now)
                new = versions - kept.keys() - {active}
                refused = new if len(kept) + len(new) > MAX_VERSIONS else set()
                kept |= dict.fromkeys(versions - refused, now)
                state = json.dumps({version: at.isoformat() for version, at in kept.items()}).encode()
                save_checkpoint(connection, self._name, now, state)
                return kept

            kept = self._seen = await asyncio.wrap_future(self._writer.submit(work))
        if refused := versions - kept.keys():
            raise MisuseError(
                f"version {min(refused)} is new, and {MAX_VERSIONS} versions may be logged in a day: send the number "
                f"of one of them, or none for the active version"
            )

    def _stored(self, connection: Connection) -> dict[int, datetime]:
        stored = checkpoint(connection, self._name)
        try:
            seen = {} if stored is None else json.loads(stored.state)
            return {int(version): datetime.fromisoformat(at) for version, at in seen.items()}
        except (ValueError, AttributeError, TypeError):  # damaged
            return {}


def _recent(seen: Mapping[int, datetime], now: datetime) -> dict[int, datetime]:
    return {version: at for version, at in seen.items() if _is_within(at, now, REMEMBERED)}


def _is_within(at: datetime | None, now: datetime, span: timedelta) -> bool:
    return at is not None and abs(now - at) <= span  # the clock may have been set back
