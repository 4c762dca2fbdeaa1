"""Errors of the slicing-function package, and suggestions for misspelled names."""

import difflib
import unicodedata
from collections.abc import Iterable
from itertools import islice

_MAX_COMPARED, _MAX_LISTED = 300, 20  # bound the cost: names may come from a request


class SliceError(ValueError):
    """Invalid slicing functions, return values, or rows."""


class DuplicateName(SliceError):
    """Two functions share a name."""


class UnknownName(SliceError):
    """No slice, function or column of this name exists."""


class InvalidFunction(SliceError):
    """Invalid declaration of a function, template or preprocessor."""


class InvalidReturnValue(SliceError):
    """Return value of a function that is neither a membership nor a label."""


class UnreadableFile(SliceError):
    """A file of rows or functions cannot be read."""


class EngineError(Exception):
    """An engine cannot run: a package or Java is missing, or one of its workers ended."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the closest name, in ASCII if only its Unicode form differs, or nothing."""
    by_folded = {other.strip().casefold(): other for other in islice(known, _MAX_COMPARED)}
    close = difflib.get_close_matches(name.strip().casefold(), list(by_folded), n=1, cutoff=0.65)
    if not close:
        return ""
    found = by_folded[close[0]]
    is_alike = unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", found)
    return f"; did you mean {ascii(found) if is_alike else repr(found)}?"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the hint of an unknown-name error: the closest known name, or the first known names."""
    names = list(known)
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    listed = f"; available: {', '.join(map(repr, names[:_MAX_LISTED]))}{more}" if names else "; none is available"
    return nearest(name, names) or listed
