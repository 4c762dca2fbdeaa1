"""Template grammar: validation and canonical form.

Declarations in Python, YAML and JSON give the same mappings. The canonical form includes every default; words are
lower-case, values are text (see :func:`sfs.record.text_of`), and both are sorted and distinct. Equal templates
therefore have equal JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from sfs.errors import InvalidFunction, did_you_mean
from sfs.patterns import pattern_error
from sfs.record import text_of

Spec: TypeAlias = dict[str, Any]
"""A canonical template: one kind and its body, made of JSON values only."""
Path: TypeAlias = tuple[str | int, ...]
"""Position in the declaration: keys and list positions."""

BOUNDS = ("above", "at_least", "below", "at_most")
MAX_DEPTH = 16
MAX_TERMS = 200
MAX_WORDS = 10_000
MAX_WORD_CHARACTERS = 1_000
MAX_WORDS_BYTES = 1_000_000


class GrammarError(InvalidFunction):
    """Invalid template declaration; ``path`` is its position, which a YAML reader maps to a line."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path

    def __reduce__(self) -> tuple[type[GrammarError], tuple[Path, str]]:
        return GrammarError, (self.path, str(self))


def canonical(declaration: Mapping[str, Any], path: Path = (), depth: int = 0) -> Spec:
    """Return the canonical form of one kind and its body.

    Parameters
    ----------
    declaration
        Mapping of exactly one kind to its body, such as ``{"missing": {"field": "price"}}``.
    path
        Position of the mapping in the whole declaration.
    depth
        Number of enclosing ``all``, ``any`` and ``not``.

    Raises
    ------
    GrammarError
        If the declaration is invalid; the message names the part and the correction.

    Examples
    --------
    >>> canonical({"keyword": {"field": "text", "words": ["PLZ", "please", "plz"]}})
    {'keyword': {'field': 'text', 'whole_word': False, 'words': ['please', 'plz']}}
    """
    if depth > MAX_DEPTH:
        raise GrammarError(path, f"all, any and not exceed the limit of {MAX_DEPTH} nested levels: split the template")
    kinds = ", ".join(KINDS)
    if not isinstance(declaration, Mapping):
        raise GrammarError(path, f"expected one kind of {kinds}, got {_repr(declaration)}")
    check_known(declaration, path, KINDS)
    if len(declaration) != 1:
        given = ", ".join(declaration) or "none"
        raise GrammarError(
            path, f"exactly one kind of {kinds} is required, got {given}; combine several with all or any"
        )
    kind, body = next(iter(declaration.items()))
    return {kind: KINDS[kind](body, (*path, kind), depth)}


def check_known(mapping: Mapping[Any, Any], path: Path, known: Collection[str]) -> None:
    """Raise GrammarError for the first unknown key of a mapping."""
    for key in mapping:
        if key not in known:
            raise GrammarError((*path, key), f"unknown key {key!r}{did_you_mean(str(key), known)}")


def leaves(spec: Spec) -> Iterator[Spec]:
    """Yield the parts of a canonical template that read a field, in order."""
    kind, body = next(iter(spec.items()))
    if kind in ("all", "any"):
        for part in body:
            yield from leaves(part)
    elif kind == "not":
        yield from leaves(body)
    else:
        yield spec


def limits(bounds: Mapping[str, float]) -> tuple[float, float]:
    """Return the least and the greatest 64-bit float within the bounds of ``length`` or ``compare``."""
    low, high = -math.inf, math.inf
    if "above" in bounds:
        low = math.nextafter(bounds["above"], math.inf)
    if "at_least" in bounds:
        low = bounds["at_least"]
    if "below" in bounds:
        high = math.nextafter(bounds["below"], -math.inf)
    if "at_most" in bounds:
        high = bounds["at_most"]
    return low, high


def _keyword(body: Any, path: Path, _depth: int) -> Spec:
    field = _field(body, path, required=("words",), optional=("whole_word",))
    here = (*path, "words")
    words = _list(body["words"], here, "[please, plz]")
    if len(words) > MAX_WORDS:
        raise GrammarError(here, f"{len(words)} words exceed the limit of {MAX_WORDS}: split the template")
    for i, word in enumerate(words):
        if not isinstance(word, str) or not word:
            raise GrammarError((*here, i), f"a word must be non-empty text, got {_repr(word)}: write it in quotes")
        if len(word) > MAX_WORD_CHARACTERS:
            raise GrammarError(
                (*here, i),
                f"a word of {len(word)} characters exceeds the limit of {MAX_WORD_CHARACTERS}: shorten it",
            )
        _check_encodable(word, (*here, i))
    lowered = {word.lower() for word in words}
    if sum(len(word.encode()) for word in lowered) > MAX_WORDS_BYTES:
        raise GrammarError(here, f"the words exceed the limit of {MAX_WORDS_BYTES:,} bytes: split the template")
    return {"field": field, "whole_word": _flag(body, path, "whole_word"), "words": sorted(lowered)}


def _regex(body: Any, path: Path, _depth: int) -> Spec:
    field = _field(body, path, required=("pattern",), optional=("ignore_case",))
    pattern, here = body["pattern"], (*path, "pattern")
    if not isinstance(pattern, str) or not pattern:
        raise GrammarError(here, f"a pattern must be non-empty text, got {_repr(pattern)}: write it in quotes")
    _check_encodable(pattern, here)
    ignore_case = _flag(body, path, "ignore_case")
    if error := pattern_error(pattern, ignore_case):
        raise GrammarError(here, f"pattern {_repr(pattern)} is rejected by RE2: {error}")
    return {"field": field, "ignore_case": ignore_case, "pattern": pattern}


def _length(body: Any, path: Path, _depth: int) -> Spec:
    field = _field(body, path, optional=("unit", *BOUNDS))
    unit = body.get("unit", "characters")
    if unit not in ("words", "characters"):
        raise GrammarError((*path, "unit"), f"unit must be words or characters, got {_repr(unit)}")
    return {"field": field, "unit": unit, **_bounds(body, path)}


def _compare(body: Any, path: Path, _depth: int) -> Spec:
    return {"field": _field(body, path, optional=BOUNDS), **_bounds(body, path)}


def _one_of(body: Any, path: Path, _depth: int) -> Spec:
    field = _field(body, path, required=("values",))
    values = set()
    for i, value in enumerate(_list(body["values"], (*path, "values"), '["no", se, dk]')):
        try:
            values.add(text_of(value))
        except TypeError as error:
            raise GrammarError(
                (*path, "values", i),
                f"{error}: write the value in quotes, and use missing for a missing value",
            ) from None
    return {"field": field, "values": sorted(values)}


def _missing(body: Any, path: Path, _depth: int) -> Spec:
    return {"field": _field(body, path)}


def _combination(body: Any, path: Path, depth: int) -> list[Spec]:
    """Return the parts of ``all`` or ``any``, limited in number because every record evaluates all of them."""
    parts = _list(body, path, "[{keyword: {...}}, {missing: {...}}]")
    specs: list[Spec] = []
    terms = len(parts)
    if terms <= MAX_TERMS:
        specs = [canonical(part, (*path, i), depth + 1) for i, part in enumerate(parts)]
        terms = sum(1 for spec in specs for _ in leaves(spec))
    if terms > MAX_TERMS:
        raise GrammarError(
            path,
            f"{terms:,} terms exceed the limit of {MAX_TERMS}: split the template, or list words or values",
        )
    return specs


def _not(body: Any, path: Path, depth: int) -> Spec:
    return canonical(body, path, depth + 1)


KINDS: dict[str, Callable[[Any, Path, int], Any]] = {
    "keyword": _keyword,
    "regex": _regex,
    "length": _length,
    "compare": _compare,
    "one_of": _one_of,
    "missing": _missing,
    "all": _combination,
    "any": _combination,
    "not": _not,
}


def _field(body: Any, path: Path, required: Sequence[str] = (), optional: Sequence[str] = ()) -> str:
    """Return the field of a leaf's body, after checking the body's keys."""
    known = ("field", *required, *optional)
    if not isinstance(body, Mapping):
        raise GrammarError(path, f"{path[-1]} takes a mapping with {', '.join(known)}, got {_repr(body)}")
    check_known(body, path, known)
    for key in ("field", *required):
        if key not in body:
            raise GrammarError(path, f"{path[-1]} requires {key!r}; it takes {', '.join(known)}")
    name = body["field"]
    if not isinstance(name, str) or not name:
        raise GrammarError((*path, "field"), f"field must be a column name, got {_repr(name)}: write it in quotes")
    return name


def _flag(body: Mapping[str, Any], path: Path, key: str) -> bool:
    value = body.get(key, False)
    if not isinstance(value, bool):
        raise GrammarError((*path, key), f"{key} must be true or false, got {_repr(value)}")
    return value


def _list(value: Any, path: Path, example: str) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)) or not value:
        raise GrammarError(path, f"{path[-1]} must be a non-empty list such as {example}, got {_repr(value)}")
    return value


def _bounds(body: Mapping[str, Any], path: Path) -> Spec:
    bounds: dict[str, float] = {}
    for key in BOUNDS:
        if key not in body:
            continue
        value = body[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise GrammarError((*path, key), f"{key} must be a number, got {_repr(value)}")
        try:
            bounds[key] = float(value)
        except OverflowError:
            bounds[key] = math.inf
        if not math.isfinite(bounds[key]):
            raise GrammarError((*path, key), f"{key} must be a finite number, got {_repr(value)}")
    if not bounds:
        raise GrammarError(path, f"{path[-1]} requires at least one of {', '.join(BOUNDS)}")
    for first, second in (("above", "at_least"), ("below", "at_most")):
        if first in bounds and second in bounds:
            raise GrammarError((*path, second), f"give {first} or {second}, not both")
    low, high = limits(bounds)
    if low > high:
        raise GrammarError(path, f"no number is within the bounds {bounds}: swap the bounds")
    return dict(bounds)


def _check_encodable(text: str, path: Path) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise GrammarError(
            path, f"{text!r} contains a lone surrogate at position {error.start}: remove the character"
        ) from None


def _repr(value: Any) -> str:
    """Return a value as written in JSON and YAML, truncated to 60 characters."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
