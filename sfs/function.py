"""Slicing and labelling functions, their metadata and their decorators."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cached_property, partial
from typing import Any, TypedDict, TypeVar, Unpack

import numpy as np

from sfs.declared import (
    checked_budget,
    checked_callable,
    checked_name,
    checked_resources,
    short_text,
)
from sfs.errors import InvalidAnswer, InvalidFunction
from sfs.fingerprint import fingerprint_of
from sfs.importable import reduced
from sfs.metadata import NO_METADATA, Metadata
from sfs.preprocess import Preprocessor, Step, checked_pre
from sfs.record import Columns

__all__ = ["ALL_ROWS", "NO_METADATA", "NO_SLICE", "LabelingFunction", "Metadata", "SlicingFunction"]
__all__ += ["labeling_function", "slicing_function"]

ALL_ROWS = "__all__"
"""The name that reports and metrics give to the whole traffic."""
NO_SLICE = "__none__"
"""The name that they give to the rows that no function took in."""


class LabelingFunction:
    """A named function of one row that answers an integer label, or -1 to abstain.

    Parameters
    ----------
    name
        How the function is called everywhere: any text without control characters.
    f
        The function itself; it gets the row and the resources.
    resources
        Passed to ``f`` by keyword at every call.
    pre
        Preprocessors that the row goes through first, in order.
    metadata
        Description, owner and so on; never part of the fingerprint.
    budget_ms
        How many milliseconds one call may take, or None for no limit of its own.

    Raises
    ------
    InvalidFunction
        If the declaration is wrong.
    """

    _kind = "labelling"
    _reserved: frozenset[str] = frozenset()

    def __init__(
        self,
        name: str,
        f: Callable[..., Any],
        resources: Mapping[str, Any] | None = None,
        pre: Sequence[Preprocessor] | None = None,
        *,
        metadata: Metadata = NO_METADATA,
        budget_ms: float | None = None,
    ) -> None:
        self.name = checked_name(name, self._reserved)
        self.f = checked_callable(name, f)
        self.resources = checked_resources(name, resources)
        self.pre = checked_pre(name, pre)
        self.metadata = metadata
        self.budget_ms = checked_budget(name, budget_ms)

    @property
    def steps(self) -> tuple[Step, ...]:
        """What a row goes through before ``f``, nested preprocessors laid flat."""
        return tuple(step for preprocessor in self.pre for step in preprocessor.steps)

    @property
    def caller(self) -> Callable[[Any], Any]:
        """The function of one preprocessed row, resources bound."""
        return partial(self.f, **self.resources) if self.resources else self.f

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 in hex of what the function computes; see ``sfs.fingerprint``."""
        return fingerprint_of(self)

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Return what the fingerprint covers: name, code, resources and preprocessors."""
        return self._kind, self.name, self.f, self.resources, self.pre

    def read(self, answer: Any) -> int | None:
        """Return the label that an answer of ``f`` means, or None when it abstained.

        Raises
        ------
        InvalidAnswer
            If the answer is not an integer of at least -1.
        """
        label = _whole(answer)
        if label is None or label < -1:
            raise InvalidAnswer(
                f"{self.name!r} answered {short_text(answer)}: answer a label (0, 1, ...), or -1 to abstain"
            )
        return None if label == -1 else label

    def __call__(self, x: Any) -> int:
        """Return the label of one row, -1 when the function abstains; exceptions of ``f`` propagate."""
        label = self.read(self._raw(x))
        return -1 if label is None else label

    def _raw(self, x: Any) -> Any:
        row = Columns([x]).records[0] if isinstance(x, Mapping) else x
        for step in self.steps:
            row = step(row)
        return self.caller(row)

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.name}, Preprocessors: {list(self.pre)}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return reduced(self, self.f, partial(super().__reduce_ex__, protocol))


class SlicingFunction(LabelingFunction):
    """A named function of one row that answers whether the row is in the slice.

    True, False, 1 and 0 are answers; -1 means that the function abstained, so that the membership is unknown.
    Parameters are those of ``LabelingFunction``.

    Examples
    --------
    >>> short = SlicingFunction("short", lambda x: len(x.text.split()) < 5)
    >>> short({"text": "Cool video!"})
    True
    """

    _kind = "slicing"
    _reserved = frozenset({ALL_ROWS, NO_SLICE})

    def read(self, answer: Any) -> int | None:
        """Return 1 for a member, 0 for a non-member, None when the function abstained.

        Raises
        ------
        InvalidAnswer
            If the answer is none of True, False, 1, 0 and -1.
        """
        code = _whole(answer)
        if code not in (-1, 0, 1):
            raise InvalidAnswer(f"{self.name!r} answered {short_text(answer)}: answer True or False")
        return None if code == -1 else code

    def __call__(self, x: Any) -> bool:
        """Tell whether one row is in the slice; exceptions of ``f`` propagate.

        Raises
        ------
        InvalidAnswer
            If ``f`` abstained or answered something that is neither true nor false.
        """
        code = self.read(self._raw(x))
        if code is None:
            raise InvalidAnswer(f"{self.name!r} abstained (-1): the membership of this row is unknown")
        return bool(code)


class About(TypedDict, total=False):
    """What a decorator may say beside name, resources and preprocessors."""

    description: str | None
    owner: str
    severity: str
    target: float | None
    protected: bool
    family: str
    budget_ms: float | None


FunctionT = TypeVar("FunctionT", bound=LabelingFunction)
Wrap = Callable[[Callable[..., Any]], FunctionT]


def slicing_function(
    name: str | None = None,
    resources: Mapping[str, Any] | None = None,
    pre: Sequence[Preprocessor] | None = None,
    **about: Unpack[About],
) -> Wrap[SlicingFunction]:
    """Make a slicing function of a plain one; the first paragraph of its docstring becomes the description.

    Parameters
    ----------
    name
        The slice's name; the function's own by default.
    resources, pre
        As in ``SlicingFunction``.
    **about
        ``description``, ``owner``, ``severity``, ``target``, ``protected``, ``family`` (see ``Metadata``)
        and ``budget_ms``.

    Raises
    ------
    InvalidFunction
        If the decorator is used without parentheses, or an argument is wrong.

    Examples
    --------
    >>> @slicing_function(owner="trust", target=0.9)
    ... def short_comment(x):
    ...     "Fewer than five words."
    ...     return len(x.text.split()) < 5
    >>> short_comment({"text": "Cool video!"}), short_comment.metadata.description
    (True, 'Fewer than five words.')
    """
    return _decorator(SlicingFunction, name, resources, pre, about)


def labeling_function(
    name: str | None = None,
    resources: Mapping[str, Any] | None = None,
    pre: Sequence[Preprocessor] | None = None,
    **about: Unpack[About],
) -> Wrap[LabelingFunction]:
    """Make a labelling function of a plain one; arguments as in ``slicing_function``.

    Examples
    --------
    >>> @labeling_function()
    ... def loud(x):
    ...     return 1 if x.text.isupper() else -1
    >>> loud({"text": "CHECK THIS"}), loud({"text": "nice"})
    (1, -1)
    """
    return _decorator(LabelingFunction, name, resources, pre, about)


def _decorator(kind: type[FunctionT], name: Any, resources: Any, pre: Any, about: About) -> Wrap[FunctionT]:
    if callable(name):
        decorator = "slicing_function" if kind is SlicingFunction else "labeling_function"
        raise InvalidFunction(f"the decorator is missing parentheses: write @{decorator}()")

    def wrap(f: Callable[..., Any]) -> FunctionT:
        own: Any = getattr(f, "__name__", None) if name is None else name
        budget_ms = about.get("budget_ms")
        return kind(own, f, resources, pre, metadata=_metadata(f, about), budget_ms=budget_ms)

    return wrap


def _metadata(f: Callable[..., Any], about: About) -> Metadata:
    given = {key: value for key, value in about.items() if key != "budget_ms"}
    known = [field.name for field in fields(Metadata)]
    if strange := sorted(set(given) - set(known)):
        raise InvalidFunction(f"a decorator takes {', '.join(known)} and budget_ms, not {strange[0]!r}")
    if given.get("description") is None:
        paragraph = (inspect.getdoc(f) or "").split("\n\n", maxsplit=1)[0]
        given["description"] = " ".join(paragraph.split())
    return Metadata(**given)  # type: ignore[arg-type]  # Metadata checks the kinds itself


def _whole(answer: object) -> int | None:
    return int(answer) if isinstance(answer, (bool, int, np.bool_, np.integer)) else None
