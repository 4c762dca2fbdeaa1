"""Preprocessors: derive new fields of a row before slicing functions read it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, TypeAlias

from sfs.declared import checked_callable, checked_name, short_text
from sfs.draft import draft_of, finished
from sfs.errors import InvalidAnswer, InvalidFunction
from sfs.fingerprint import fingerprint_of
from sfs.importable import reduced
from sfs.memo import Memo, key_of

Step: TypeAlias = Callable[[Any], Any]
"""One thing that is done to a row; two steps that are equal do the same."""


class Preprocessor:
    """Derives fields by ``run``, which a subclass writes: fields of the row in, a dict of new fields out.

    Parameters
    ----------
    name
        How errors call it.
    field_names
        From ``run``'s argument names to the row's field names; the same names by default.
    mapped_field_names
        From the keys that ``run`` returns to the new fields' names; all keys as they are by default.
    pre
        Preprocessors that the row goes through first, in order.
    memoize
        Whether results are kept and given again for an equal row.
    memoize_key
        From a row to what tells it from others; everything it holds by default.
    memoize_size
        How many results are kept.

    Raises
    ------
    InvalidFunction
        If the declaration is wrong.

    Examples
    --------
    >>> class Words(Preprocessor):
    ...     def run(self, text):
    ...         return {"words": text.split()}
    >>> from sfs.record import Record
    >>> Words("words")(Record({"text": "Cool video!"})).words
    ['Cool', 'video!']
    """

    def __init__(
        self,
        name: str,
        field_names: Mapping[str, str] | None = None,
        mapped_field_names: Mapping[str, str] | None = None,
        pre: Sequence[Preprocessor] | None = None,
        memoize: bool = False,
        memoize_key: Callable[[Any], Any] | None = None,
        memoize_size: int = 10_000,
    ) -> None:
        self.name = checked_name(name)
        self.pre = checked_pre(name, pre)
        self.field_names = self._checked_fields(field_names)
        self.mapped_field_names = None if mapped_field_names is None else dict(mapped_field_names)
        self.memoize = memoize
        self.memoize_key = memoize_key
        self._memo = Memo(memoize_size)

    def _checked_fields(self, field_names: Mapping[str, str] | None) -> dict[str, str]:
        if field_names is not None:
            return dict(field_names)
        parameters = inspect.signature(self.run).parameters.values()
        if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
            raise InvalidFunction(f"run of {self.name!r} takes *args or **kwargs: give field_names")
        return {p.name: p.name for p in parameters}

    def run(self, *args: Any, **fields: Any) -> Mapping[str, Any] | None:
        """Return new fields of a row; a subclass writes it with the fields it needs as arguments."""
        raise NotImplementedError(f"preprocessor {self.name!r} has no run: write it in a subclass")

    def __call__(self, x: Any) -> Any:
        """Return the row with the new fields; the row given is not changed.

        Raises
        ------
        InvalidAnswer
            If the preprocessor returned None.
        """
        if not self.memoize:
            return self._through(x)
        key = self._key(x)
        kept = self._memo.get(key)
        if kept is None:
            kept = self._through(x)
            self._memo.put(key, kept)
        return kept

    @property
    def steps(self) -> tuple[Step, ...]:
        """The parts that functions can share: ``pre`` and the own work, or the whole where it is memoized."""
        if self.memoize:
            return (self,)
        return (*(step for p in self.pre for step in p.steps), self.derive)

    def derive(self, x: Any) -> Any:
        """Do the own work alone, on a copy of the row and without ``pre``."""
        result = self._derived(draft_of(x))
        if result is None:
            raise InvalidAnswer(f"preprocessor {self.name!r} should not return None: return the row")
        return finished(result, x)

    def reset_cache(self) -> None:
        """Forget all memoized results."""
        self._memo.clear()

    def _through(self, x: Any) -> Any:
        for preprocessor in self.pre:
            x = preprocessor(x)
        return self.derive(x)

    def _derived(self, draft: Any) -> Any:
        made = self.run(**{name: read_field(draft, field) for name, field in self.field_names.items()})
        if made is None:
            return None
        if not isinstance(made, Mapping):
            raise InvalidAnswer(f"run of {self.name!r} returned {short_text(made)}: return a dict")
        for name, value in self._renamed(made).items():
            set_field(draft, name, value)
        return draft

    def _renamed(self, made: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.mapped_field_names is None:
            return made
        if absent := [key for key in self.mapped_field_names if key not in made]:
            raise InvalidAnswer(f"run of {self.name!r} returned {list(made)}, without {absent[0]!r}")
        return {name: made[key] for key, name in self.mapped_field_names.items()}

    def _key(self, x: Any) -> Hashable:
        return key_of(x if self.memoize_key is None else self.memoize_key(x))

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 in hex of what the preprocessor computes; see ``sfs.fingerprint``."""
        return fingerprint_of(self)

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Return what the fingerprint covers: name, class, settings, and preprocessors."""
        return "preprocessor", self.name, type(self), self._settings(), self.pre

    def __reduce_ex__(self, protocol: Any) -> Any:
        return reduced(self, getattr(self, "f", type(self)), partial(super().__reduce_ex__, protocol))

    def _settings(self) -> dict[str, Any]:
        passing = ("name", "pre", "memoize", "memoize_key", "_memo", "fingerprint")
        return {key: value for key, value in vars(self).items() if key not in passing}

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.name}, Pre: {list(self.pre)}"


class LambdaPreprocessor(Preprocessor):
    """Derives fields by a function that gets a copy of the row, sets fields on it, and returns it.

    Parameters
    ----------
    name, pre, memoize, memoize_key, memoize_size
        As in ``Preprocessor``.
    f
        The function of one row.
    """

    def __init__(
        self,
        name: str,
        f: Callable[[Any], Any],
        pre: Sequence[Preprocessor] | None = None,
        memoize: bool = False,
        memoize_key: Callable[[Any], Any] | None = None,
        memoize_size: int = 10_000,
    ) -> None:
        super().__init__(name, {}, None, pre, memoize, memoize_key, memoize_size)
        self.f = checked_callable(name, f)

    def _derived(self, draft: Any) -> Any:
        return self.f(draft)

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Return what the fingerprint covers: name, code and preprocessors."""
        return "preprocessor", self.name, self.f, self.pre


def preprocessor(
    name: str | None = None,
    pre: Sequence[Preprocessor] | None = None,
    memoize: bool = False,
    memoize_key: Callable[[Any], Any] | None = None,
    memoize_size: int = 10_000,
) -> Callable[[Callable[[Any], Any]], LambdaPreprocessor]:
    """Make a preprocessor of a plain function; arguments as in ``Preprocessor``.

    Raises
    ------
    InvalidFunction
        If the decorator is used without parentheses, or an argument is wrong.

    Examples
    --------
    >>> @preprocessor()
    ... def count_words(x):
    ...     x.n_words = len(x.text.split())
    ...     return x
    >>> from sfs.record import Record
    >>> count_words(Record({"text": "Cool video!"})).n_words
    2
    """
    if callable(name):
        raise InvalidFunction("the decorator is missing parentheses: write @preprocessor()")

    def wrap(f: Callable[[Any], Any]) -> LambdaPreprocessor:
        own = getattr(f, "__name__", "") if name is None else name
        return LambdaPreprocessor(own, f, pre, memoize, memoize_key, memoize_size)

    return wrap


def checked_pre(name: str, pre: object) -> tuple[Preprocessor, ...]:
    """Return the preprocessors of a declaration."""
    if pre is None:
        return ()
    if not isinstance(pre, Sequence):
        raise InvalidFunction(f"pre of {name!r} is a list of preprocessors, got {short_text(pre)}")
    for one in pre:
        if not isinstance(one, Preprocessor):
            raise InvalidFunction(f"pre of {name!r} holds {short_text(one)}: make it with @preprocessor()")
    return tuple(pre)


def read_field(x: Any, name: str) -> Any:
    """Return a field of a row of any kind."""
    return x[name] if isinstance(x, Mapping) else getattr(x, name)


def set_field(x: Any, name: str, value: Any) -> None:
    """Set a field of a row of any kind."""
    if isinstance(x, dict):
        x[name] = value
    else:
        setattr(x, name, value)
