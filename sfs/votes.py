"""Labelling functions seen as slices: the rows on which a function votes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sfs.function import LabelingFunction, SlicingFunction

__all__ = ["VoteSlice"]


class VoteSlice(SlicingFunction):
    """The slice of the rows that a labelling function labels.

    A row is a member where the function answers a label, whichever it is, and no member where it abstains;
    where it raises or answers junk, the membership is unknown. Name, preprocessors, metadata and budget are
    the function's own, and the slice's fingerprint changes when the function does.

    Parameters
    ----------
    function
        The labelling function.

    Raises
    ------
    InvalidFunction
        If the function has a name that no slice can have.

    Examples
    --------
    >>> loud = LabelingFunction("loud", lambda x: 0 if x.text.isupper() else -1)
    >>> votes = VoteSlice(loud)
    >>> votes({"text": "CHECK THIS"}), votes({"text": "nice"})
    (True, False)
    """

    _kind = "votes"

    def __init__(self, function: LabelingFunction) -> None:
        self.function = function
        # A subclass that is called in its own way prepares its rows itself.
        self._plain = type(function).__call__ is LabelingFunction.__call__
        super().__init__(
            function.name,
            function.f,
            function.resources,
            function.pre if self._plain else (),
            metadata=function.metadata,
            budget_ms=function.budget_ms,
        )

    @property
    def caller(self) -> Callable[[Any], bool]:
        """The function of one preprocessed row that tells whether the labelling function votes."""
        return partial(_votes, self.function.caller if self._plain else self.function, self.function.read)

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Return what the fingerprint covers: all that the labelling function's own covers."""
        return self._kind, *self.function.fingerprint_parts()

    def __reduce_ex__(self, _protocol: Any) -> tuple[Any, ...]:
        return VoteSlice, (self.function,)


def _votes(call: Callable[[Any], Any], read: Callable[[Any], int | None], x: Any) -> bool:
    return read(call(x)) is not None
