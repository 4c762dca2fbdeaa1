"""Looks for a new champion; what answers now goes on until the new one is ready."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from models.registry import CHAMPION, ModelRegistry

FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(minutes=30)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tries:
    """The version that could not be loaded last, when it may be tried again, and how long was waited before."""

    version: int | None = None
    not_before: datetime | None = None
    wait: timedelta = FIRST_WAIT


def reload(
    registry: ModelRegistry,
    in_force: int | None,
    load: Callable[[int], object],
    failed: Callable[[Exception], object],
    tries: Tries,
    now: datetime,
) -> bool:
    """Load the champion if it is another version than the one in force, and tell whether that was done.

    Parameters
    ----------
    registry
        Says which version is the champion.
    in_force
        The version that answers now; None for none.
    load
        Loads a version and puts it in force, or raises and leaves everything as it is.
    failed
        Told of every error.
    tries
        The same object at every call. A version that could not be loaded is tried again after a wait that
        doubles from 30 seconds to half an hour; another version is tried at once.
    now
        The time.
    """
    champion = None
    try:
        champion = registry.alias(CHAMPION)
        if champion is None or champion == in_force or not _may_try(tries, champion, now):
            return False
        load(champion)
    except Exception as error:  # whatever is wrong with a version, the one in force goes on
        _log.error("the champion could not be loaded: %s", error)
        _remember(tries, champion, now)
        failed(error)
        return False
    tries.version, tries.not_before, tries.wait = None, None, FIRST_WAIT
    return True


def _may_try(tries: Tries, version: int, now: datetime) -> bool:
    return version != tries.version or tries.not_before is None or now >= tries.not_before


def _remember(tries: Tries, version: int | None, now: datetime) -> None:
    again = version == tries.version
    tries.wait = min(2 * tries.wait, LONGEST_WAIT) if again else FIRST_WAIT
    tries.version, tries.not_before = version, now + tries.wait
