"""Looks for a new champion; what answers now goes on until the new one is ready."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from models.registry import CHAMPION, ModelRegistry

FIRST_WAIT_SECONDS = 30.0
LONGEST_WAIT_SECONDS = 1800.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class RetryState:
    """The version that could not be loaded last, from which second on it may be tried again, and its wait."""

    version: int | None = None
    not_before: float = 0.0
    wait_seconds: float = FIRST_WAIT_SECONDS


def reload(
    registry: ModelRegistry,
    in_force: int | None,
    load: Callable[[int], object],
    failed: Callable[[Exception], object],
    tries: RetryState,
    seconds: float,
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
    seconds
        The time on a clock that nobody sets.
    """
    champion = None
    try:
        champion = registry.alias(CHAMPION)
        if champion is None or champion == in_force or not _may_try(tries, champion, seconds):
            return False
        load(champion)
    except Exception as error:  # whatever is wrong with a version, the one in force goes on
        _log.error("the champion could not be loaded: %s", error)
        _remember(tries, champion, seconds)
        failed(error)
        return False
    tries.version, tries.wait_seconds = None, FIRST_WAIT_SECONDS
    return True


def _may_try(tries: RetryState, version: int, seconds: float) -> bool:
    return version != tries.version or seconds >= tries.not_before


def _remember(tries: RetryState, version: int | None, seconds: float) -> None:
    again = version == tries.version
    tries.wait_seconds = min(2 * tries.wait_seconds, LONGEST_WAIT_SECONDS) if again else FIRST_WAIT_SECONDS
    tries.version, tries.not_before = version, seconds + tries.wait_seconds
