"""What one value of a record is, whichever door it came through: a data frame, a request, or a file."""

from numbers import Integral, Real
from typing import Any

import numpy as np

# by name, so that pandas is not imported where no data frame is
_PANDAS_MISSING = ("NAType", "NaTType")


def present(value: Any) -> Any:
    """Return the value, or None where it stands for a missing one (None, NaN, pandas NA and NaT)."""
    if isinstance(value, (float, np.floating)):
        return None if value != value else value
    return None if type(value).__name__ in _PANDAS_MISSING else value


def text_of(value: Any) -> str:
    """Spell a scalar the same way however it was typed: ``1``, ``1.0`` and ``"1"`` are all ``1``.

    Raises
    ------
    TypeError
        If the value is not text, a boolean, or a number, or is a number too large to spell.

    Examples
    --------
    >>> text_of(3.0), text_of(True), text_of("Cool video!")
    ('3', 'true', 'Cool video!')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    try:
        if isinstance(value, Integral):
            return str(int(value))
        if isinstance(value, Real):
            number = float(value)
            return str(int(number)) if number.is_integer() else repr(number)
    except (OverflowError, ValueError):  # beyond 64-bit floats, or more digits than Python spells
        raise TypeError(
            f"expected text, a boolean or a number, got a number too large to spell ({type(value).__name__})"
        ) from None
    raise TypeError(f"expected text, a boolean or a number, got {type(value).__name__}")
