"""Where a page of records ended, as text that the next question says again."""

from __future__ import annotations

import re

from service.errors import MisuseError
from service.store.queries import Place
from service.store.tables import from_us, to_us

CURSOR = "^[0-9]{1,16}-[0-9]{1,18}$"
"""What every cursor looks like; both numbers are such that a time and a row can have them."""


def to_cursor(place: Place) -> str:
    """Return a place in the log as text.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> to_cursor(Place(datetime(2026, 5, 1, tzinfo=UTC), 7))
    '1777593600000000-7'
    """
    return f"{to_us(place.at)}-{place.row}"


def from_cursor(text: str) -> Place:
    """Return the place that a cursor says.

    Raises
    ------
    MisuseError
        If it is none.
    """
    if not re.fullmatch(CURSOR, text):
        raise MisuseError(f"{text!r} is no cursor: give the 'next' of a page as it was")
    at_us, _, row = text.partition("-")
    return Place(from_us(int(at_us)), int(row))
