"""Slicing and labelling functions, and their decorators."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cached_property, partial
from numbers import Real
from typing import Any, TypedDict, TypeVar, Unpack

import numpy as np

from sfs.errors import InvalidFunction, InvalidReturnValue
from sfs.fingerprint import fingerprint_of
from sfs.loading import reduce_wrapper
from sfs.preprocess import Preprocessor, Step, validate_pre
from sfs.record import mapping_row, none_if_missing
from sfs.validation import (
    NO_METADATA,
    Metadata,
    short_repr,
    validate_budget,
    validate_callable,
    validate_name,
    validate_resources,
)

ALL_ROWS = "__all__"
"""Name of the whole traffic in reports and metrics."""
NO_SLICE = "__none__"
"""Name of the rows that belong to no slice."""


class LabelingFunction:
    """Named function of one row that returns an integer label, or -1 to abstain.

    Parameters
    ----------
    name
        Unique name: any text without control characters.
    f
        Function called with the row, and with the resources as keyword arguments.
    resources
        Keyword arguments passed to every call of ``f``.
    pre
        Preprocessors applied to the row before ``f``, in order.
    metadata
        Description, owner and other metadata; not part of the fingerprint.
    budget_ms
        Time budget per call in milliseconds, or None for the default.

    Raises
    ------
    InvalidFunction
        If an argument is invalid.
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
        self.name = validate_name(name, self._reserved)
        self.f = validate_callable(name, f)
        self.resources = validate_resources(name, resources)
        self.pre = validate_pre(name, pre)
        self.metadata = metadata
        self.budget_ms = validate_budget(name, budget_ms)

    @property
    def steps(self) -> tuple[Step, ...]:
        """Preprocessing steps that run before ``f``, with nested preprocessors flattened."""
        return tuple(step for preprocessor in self.pre for step in preprocessor.steps)

    @property
    def bound_function(self) -> Callable[[Any], Any]:
        """``f`` with the resources bound: a function of one preprocessed row."""
        return partial(self.f, **self.resources) if self.resources else self.f

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the function's computation in hexadecimal; see ``sfs.fingerprint``."""
        return fingerprint_of(self)

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Return the parts that the fingerprint covers: name, code, resources and preprocessors."""
        return self._kind, self.name, self.f, self.resources, self.pre

    def parse_return_value(self, value: Any) -> int | None:
        """Return the label of a return value of ``f``, or None for an abstention.

        Raises
        ------
        InvalidReturnValue
            If the value is not an integer of at least -1.
        """
        label = _as_int(value)
        if label is None or label < -1:
            raise InvalidReturnValue(
                f"{self.name!r} returned {short_repr(value)}: return a label (0, 1, ...), or -1 to abstain"
            )
        return None if label == -1 else label

    def __call__(self, x: Any) -> Any:
        """Return the label of one row, -1 for an abstention, None if ``f`` returns None; its exceptions propagate.

        Raises
        ------
        InvalidReturnValue
            If ``f`` returns another invalid value.
        """
        returned = self._evaluate_row(x)
        label = None if returned is None else self.parse_return_value(returned)
        return -1 if label is None and returned is not None else label

    def _evaluate_row(self, x: Any) -> Any:
        row = mapping_row({key: none_if_missing(value) for key, value in x.items()}) if isinstance(x, Mapping) else x
        for step in self.steps:
            row = step(row)
        return self.bound_function(row)

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.name}, Preprocessors: {list(self.pre)}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return reduce_wrapper(self, self.f, partial(super().__reduce_ex__, protocol))


class SlicingFunction(LabelingFunction):
    """Named function that returns whether a row is in the slice.

    Valid return values are True, False, 1 and 0, and -1 to abstain, which makes the membership unknown; each also as
    a float or as an array or tensor of one element.
    Parameters are those of ``LabelingFunction``.

    Examples
    --------
    >>> short = SlicingFunction("short", lambda x: len(x.text.split()) < 5)
    >>> short({"text": "Cool video!"})
    True
    """

    _kind = "slicing"
    _reserved = frozenset({ALL_ROWS, NO_SLICE})

    def parse_return_value(self, value: Any) -> int | None:
        """Return 1 for a member, 0 for a non-member, None for an abstention.

        Raises
        ------
        InvalidReturnValue
            If the value is not True, False, 1, 0 or -1.
        """
        code = _as_int(value)
        if code not in (-1, 0, 1):
            raise InvalidReturnValue(f"{self.name!r} returned {short_repr(value)}: return True or False")
        return None if code == -1 else code

    def __call__(self, x: Any) -> Any:
        """Return whether one row is in the slice; -1 and None if ``f`` returns them. Exceptions of ``f`` propagate.

        Raises
        ------
        InvalidReturnValue
            If ``f`` returns another invalid value.
        """
        code = super().__call__(x)
        return bool(code) if code in (0, 1) else code


class LabelingFunctionSlice(SlicingFunction):
    """Slice of the rows that a labelling function labels.

    A row is a member if the function returns any label, and a non-member if it abstains; if it raises or
    returns an invalid value, the membership is unknown. Name, preprocessors, metadata and budget are those of
    the function, and the fingerprint of the slice changes with that of the function.

    Parameters
    ----------
    function
        The labelling function.

    Raises
    ------
    InvalidFunction
        If the function's name is reserved.

    Examples
    --------
    >>> loud = LabelingFunctionSlice(LabelingFunction("loud", lambda x: 0 if x.text.isupper() else -1))
    >>> loud({"text": "CHECK THIS"}), loud({"text": "nice"})
    (True, False)
    """

    _kind = "votes"  # covered by stored fingerprints

    def __init__(self, function: LabelingFunction) -> None:
        self.function = function
        # A subclass that overrides __call__ runs its own preprocessors.
        self._has_default_call = type(function).__call__ is LabelingFunction.__call__
        super().__init__(
            function.name,
            function.f,
            function.resources,
            function.pre if self._has_default_call else (),
            metadata=function.metadata,
            budget_ms=function.budget_ms,
        )

    @property
    def bound_function(self) -> Callable[[Any], bool]:
        """Function of one preprocessed row that returns whether the labelling function labels it."""
        call = self.function.bound_function if self._has_default_call else self.function
        return lambda x: self.function.parse_return_value(call(x)) is not None

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Return the parts that the fingerprint covers: those of the labelling function."""
        return self._kind, *self.function.fingerprint_parts()

    def __reduce_ex__(self, _protocol: Any) -> tuple[Any, ...]:
        return LabelingFunctionSlice, (self.function,)


class MetadataKwargs(TypedDict, total=False):
    """Keyword arguments of a decorator, besides name, resources and preprocessors."""

    description: str | None
    owner: str
    severity: str
    target: float | None
    protected: bool
    family: str
    budget_ms: float | None


FunctionT = TypeVar("FunctionT", bound=LabelingFunction)
Decorator = Callable[[Callable[..., Any]], FunctionT]


def slicing_function(
    name: str | None = None,
    resources: Mapping[str, Any] | None = None,
    pre: Sequence[Preprocessor] | None = None,
    **metadata: Unpack[MetadataKwargs],
) -> Decorator[SlicingFunction]:
    """Decorator to define a slicing function from a function of one row.

    Parameters
    ----------
    name
        Name of the slice; the name of the function by default.
    resources, pre
        As in ``SlicingFunction``.
    **metadata
        ``description``, ``owner``, ``severity``, ``target``, ``protected``, ``family`` (see ``Metadata``)
        and ``budget_ms``. The description defaults to the first paragraph of the docstring.

    Raises
    ------
    InvalidFunction
        If the decorator is used without parentheses, or an argument is invalid.

    Examples
    --------
    >>> @slicing_function(owner="trust", target=0.9)
    ... def short_comment(x):
    ...     "Fewer than five words."
    ...     return len(x.text.split()) < 5
    >>> short_comment({"text": "Cool video!"}), short_comment.metadata.description
    (True, 'Fewer than five words.')
    """
    return make_decorator(SlicingFunction, "slicing_function", name, resources, pre, metadata)


def labeling_function(
    name: str | None = None,
    resources: Mapping[str, Any] | None = None,
    pre: Sequence[Preprocessor] | None = None,
    **metadata: Unpack[MetadataKwargs],
) -> Decorator[LabelingFunction]:
    """Decorator to define a labelling function from a function of one row; see ``slicing_function``.

    Examples
    --------
    >>> @labeling_function()
    ... def loud(x):
    ...     return 1 if x.text.isupper() else -1
    >>> loud({"text": "CHECK THIS"}), loud({"text": "nice"})
    (1, -1)
    """
    return make_decorator(LabelingFunction, "labeling_function", name, resources, pre, metadata)


def make_decorator(
    kind: type[FunctionT],
    written: str,
    name: Any,
    resources: Any,
    pre: Any,
    kwargs: MetadataKwargs,
    settings: Sequence[Any] = (),
) -> Decorator[FunctionT]:
    """Return the decorator ``written``, which makes functions of a kind, with ``settings`` after ``pre``."""
    if callable(name):
        raise InvalidFunction(f"Looks like this decorator is missing parentheses! Write @{written}()")

    def wrap(f: Callable[..., Any]) -> FunctionT:
        given = {key: value for key, value in kwargs.items() if key != "budget_ms"}
        known = [field.name for field in fields(Metadata)]
        if unknown := sorted(set(given) - set(known)):
            raise InvalidFunction(f"unknown decorator argument {unknown[0]!r}: use {', '.join(known)} or budget_ms")
        if given.get("description") is None:
            paragraph = (inspect.getdoc(f) or "").split("\n\n", maxsplit=1)[0]
            given["description"] = " ".join(paragraph.split())
        metadata = Metadata(**given)  # type: ignore[arg-type]  # Metadata validates the types
        own: Any = getattr(f, "__name__", None) if name is None else name
        return kind(own, f, resources, pre, *settings, metadata=metadata, budget_ms=kwargs.get("budget_ms"))

    return wrap


def _as_int(value: Any) -> int | None:
    """Return a number that is whole as an integer, also from an array or tensor of one element; else None."""
    if isinstance(value, (bool, int, np.bool_, np.integer)):
        return int(value)
    if isinstance(value, np.ma.MaskedArray):
        return None
    if not isinstance(value, Real) and getattr(value, "shape", None) in ((), (1,)) and hasattr(value, "item"):
        return _as_int(value.item())
    try:
        number = int(value) if isinstance(value, Real) else None  # type: ignore[call-overload]  # all have __trunc__
        return number if number == value else None
    except (ValueError, OverflowError):  # NaN and infinity
        return None
