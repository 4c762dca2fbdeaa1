"""Errors of the slicing-function package, and suggestions for misspelled names."""

import difflib
import unicodedata
from collections.abc import Iterable

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


def quoted_beside(name: str, other: str) -> str:
    """Return a name in quotes, in ASCII if it differs from another one in its Unicode form only."""
    return ascii(name) if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other) else repr(name)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the hint of an unknown-name error: the closest known name, or the first known names.

    Examples
    --------
    >>> did_you_mean("lable", ["text", "label"]), did_you_mean("x", ["text"])
    ("; did you mean 'label'?", "; available: 'text'")
    """
    names = list(known)
    compared = names[:_MAX_COMPARED]
    folded = [other for other in compared if other.strip().casefold() == name.strip().casefold()]
    if close := folded or difflib.get_close_matches(name, compared, n=1, cutoff=0.65):
        return f"; did you mean {quoted_beside(close[0], name)}?"
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return f"; available: {', '.join(map(repr, names[:_MAX_LISTED]))}{more}" if names else "; none is available"
