"""Slices of the rows on which labelling functions overlap or conflict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Unpack

from sfs.apply import RowEvaluator
from sfs.errors import InvalidFunction
from sfs.function import LabelingFunction, MetadataKwargs, SlicingFunction, slicing_function
from sfs.registry import validate_functions

Functions = Sequence[LabelingFunction]


def overlap_slice(
    functions: Iterable[LabelingFunction], name: str = "label_overlap", **metadata: Unpack[MetadataKwargs]
) -> SlicingFunction:
    """Create the slice of the rows for which two or more labelling functions vote.

    Its coverage is ``LFAnalysis.label_overlap()``. A function that raises or returns an invalid value makes the
    membership unknown, unless the votes of the others decide it.

    Parameters
    ----------
    functions
        Two or more labelling functions. They are called again for this slice; a preprocessor that they share runs
        once for each row.
    name
        Name of the slice.
    **metadata
        As in ``slicing_function``. The description names the functions by default, and the budget is the sum of
        those that they have.

    Raises
    ------
    InvalidFunction
        If there are fewer than two functions, one is no labelling function, or an argument is invalid.
    DuplicateName
        If two functions share a name.

    Examples
    --------
    >>> short = LabelingFunction("short", lambda x: 0 if len(x.text) < 9 else -1)
    >>> loud = LabelingFunction("loud", lambda x: 1 if x.text.isupper() else -1)
    >>> overlap = overlap_slice([short, loud])
    >>> overlap({"text": "NICE"}), overlap({"text": "nice"})
    (True, False)
    """
    return _vote_slice(_overlap, "More than one labelling function votes", functions, name, metadata)


def conflict_slice(
    functions: Iterable[LabelingFunction], name: str = "label_conflict", **metadata: Unpack[MetadataKwargs]
) -> SlicingFunction:
    """Create the slice of the rows for which labelling functions vote for different classes.

    Its coverage is ``LFAnalysis.label_conflict()``. Parameters, unknown memberships and errors are those of
    ``overlap_slice``.

    Examples
    --------
    >>> short = LabelingFunction("short", lambda x: 0 if len(x.text) < 9 else -1)
    >>> loud = LabelingFunction("loud", lambda x: 1 if x.text.isupper() else -1)
    >>> conflict_slice([short, loud])({"text": "NICE"})
    True
    """
    return _vote_slice(_conflict, "Labelling functions vote for different classes", functions, name, metadata)


def _vote_slice(
    f: Callable[[Any, Functions], bool],
    meaning: str,
    functions: Iterable[LabelingFunction],
    name: str,
    metadata: MetadataKwargs,
) -> SlicingFunction:
    chosen: Functions = validate_functions(functions, LabelingFunction)
    if slicing := [each.name for each in chosen if isinstance(each, SlicingFunction)]:
        raise InvalidFunction(f"{slicing[0]!r} of {name!r} is a slicing function, which does not vote: leave it out")
    if len(chosen) < 2:
        raise InvalidFunction(f"{name!r} needs two labelling functions or more, got {len(chosen)}")
    if metadata.get("description") is None:
        metadata["description"] = f"{meaning}: {', '.join(each.name for each in chosen)}."
    if metadata.get("budget_ms") is None:
        metadata["budget_ms"] = sum(each.budget_ms or 0 for each in chosen) or None
    return slicing_function(name, {"functions": chosen}, **metadata)(f)


def _overlap(x: Any, functions: Functions) -> bool:
    return _decided(x, functions, lambda votes: len(votes) > 1)


def _conflict(x: Any, functions: Functions) -> bool:
    return _decided(x, functions, lambda votes: len(set(votes)) > 1)


def _decided(x: Any, functions: Functions, is_member: Callable[[list[int]], bool]) -> bool:
    """Return whether the votes on a row make it a member; raise the first fault if it could change the answer."""
    evaluator = RowEvaluator(functions, 1, assignable=True)
    evaluator.evaluate(0, [x])
    votes = [int(result.values[0]) for result in evaluator.results if not result.unknown[0]]
    if is_member(votes):
        return True
    faults = [result.first_fault for result in evaluator.results if result.first_fault is not None]
    if faults and len(votes) + len(faults) > 1:
        raise faults[0][1]
    return False
