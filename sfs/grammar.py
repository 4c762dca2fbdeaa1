"""The grammar of templates: what may be written, and the one canonical spelling of it.

Python, YAML and JSON give the same mappings; the canonical form has every default spelled out, words lowered,
sorted and distinct, and values spelled by :func:`sfs.values.text_of`, so that equal templates are equal JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeAlias

from sfs.errors import InvalidFunction
from sfs.patterns import fault_of
from sfs.values import text_of

Spec: TypeAlias = dict[str, Any]
"""A canonical template: one kind and its body, made of JSON values only."""
Path: TypeAlias = tuple[str | int, ...]
"""Where in the written mapping something stands: keys and list positions."""

BOUNDS = ("above", "at_least", "below", "at_most")
MAX_DEPTH = 16
MAX_TERMS = 200
MAX_WORDS = 10_000
MAX_WORD_CHARACTERS = 1_000
MAX_WORDS_BYTES = 1_000_000


class GrammarFault(InvalidFunction):
    """Something in a written template is wrong; ``path`` says where, for callers that know lines."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path

    def __reduce__(self) -> tuple[type[GrammarFault], tuple[Path, str]]:
        return GrammarFault, (self.path, str(self))


def canonical(written: Mapping[str, Any], path: Path = (), depth: int = 0) -> Spec:
    """Return the canonical form of one kind and its body.

    Parameters
    ----------
    written
        A mapping of exactly one kind to its body, such as ``{"missing": {"field": "price"}}``.
    path
        Where the mapping stands in what was written.
    depth
        How many ``all``, ``any`` and ``not`` are around it.

    Raises
    ------
    GrammarFault
        If it is not a template; the message says which part, and what to write instead.

    Examples
    --------
    >>> canonical({"keyword": {"field": "text", "words": ["PLZ", "please", "plz"]}})
    {'keyword': {'field': 'text', 'whole_word': False, 'words': ['please', 'plz']}}
    """
    if depth > MAX_DEPTH:
        raise GrammarFault(path, f"all, any and not nest deeper than {MAX_DEPTH} levels: split the template")
    kinds = ", ".join(KINDS)
    if not isinstance(written, Mapping):
        raise GrammarFault(path, f"expected one kind of {kinds}, got {_shown(written)}")
    for key in written:
        if key not in KINDS:
            raise GrammarFault((*path, key), unknown_key(key, KINDS))
    if len(written) != 1:
        found = ", ".join(written) or "none"
        raise GrammarFault(
            path, f"exactly one kind of {kinds} is needed, got {found}; combine several with all or any"
        )
    kind, body = next(iter(written.items()))
    return {kind: KINDS[kind](body, (*path, kind), depth)}


def unknown_key(key: object, known: Iterator[str] | Sequence[str] | Mapping[str, Any]) -> str:
    """Say that a key is not known, and which known one it resembles."""
    names = list(known)
    near = get_close_matches(str(key), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
    return f"unknown key {key!r}: {hint}"


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


def _keyword(body: Any, path: Path, _depth: int) -> Spec:
    _check_keys(body, path, required=("field", "words"), optional=("whole_word",))
    words = _list(body["words"], (*path, "words"), "words", "[please, plz]")
    if len(words) > MAX_WORDS:
        raise GrammarFault(
            (*path, "words"), f"{len(words)} words are more than {MAX_WORDS}: split the template"
        )
    lowered = {_word(word, (*path, "words", i)) for i, word in enumerate(words)}
    if sum(len(word.encode()) for word in lowered) > MAX_WORDS_BYTES:
        raise GrammarFault(
            (*path, "words"), f"more than {MAX_WORDS_BYTES:,} bytes of words: split the template"
        )
    whole_word = _flag(body, path, "whole_word")
    return {"field": _field(body, path), "whole_word": whole_word, "words": sorted(lowered)}


def _word(word: Any, path: Path) -> str:
    if not isinstance(word, str) or not word:
        raise GrammarFault(path, f"a word is non-empty text, got {_shown(word)}: write it in quotes")
    if len(word) > MAX_WORD_CHARACTERS:
        raise GrammarFault(path, f"a word of {len(word)} characters is longer than {MAX_WORD_CHARACTERS}")
    _check_encodable(word, path)
    return word.lower()


def _regex(body: Any, path: Path, _depth: int) -> Spec:
    _check_keys(body, path, required=("field", "pattern"), optional=("ignore_case",))
    pattern, here = body["pattern"], (*path, "pattern")
    if not isinstance(pattern, str) or not pattern:
        raise GrammarFault(here, f"a pattern is non-empty text, got {_shown(pattern)}: write it in quotes")
    _check_encodable(pattern, here)
    ignore_case = _flag(body, path, "ignore_case")
    if fault := fault_of(pattern, ignore_case):
        raise GrammarFault(here, f"pattern {_shown(pattern)} is refused by RE2: {fault}")
    return {"field": _field(body, path), "ignore_case": ignore_case, "pattern": pattern}


def _length(body: Any, path: Path, _depth: int) -> Spec:
    _check_keys(body, path, required=("field",), optional=("unit", *BOUNDS))
    unit = body.get("unit", "characters")
    if unit not in ("words", "characters"):
        raise GrammarFault((*path, "unit"), f"a length is in words or characters, got {_shown(unit)}")
    return {"field": _field(body, path), "unit": unit, **_bounds(body, path)}


def _compare(body: Any, path: Path, _depth: int) -> Spec:
    _check_keys(body, path, required=("field",), optional=BOUNDS)
    return {"field": _field(body, path), **_bounds(body, path)}


def _one_of(body: Any, path: Path, _depth: int) -> Spec:
    _check_keys(body, path, required=("field", "values"))
    values = _list(body["values"], (*path, "values"), "values", '["no", se, dk]')
    spelled = {_spelling(value, (*path, "values", i)) for i, value in enumerate(values)}
    return {"field": _field(body, path), "values": sorted(spelled)}


def _spelling(value: Any, path: Path) -> str:
    try:
        return text_of(value)
    except TypeError as error:
        raise GrammarFault(
            path, f"{error}: write the value in quotes, and test for none with missing"
        ) from None


def _missing(body: Any, path: Path, _depth: int) -> Spec:
    _check_keys(body, path, required=("field",))
    return {"field": _field(body, path)}


def _several(body: Any, path: Path, depth: int) -> list[Spec]:
    parts = _list(body, path, str(path[-1]), "[{keyword: {...}}, {missing: {...}}]")
    _check_terms(len(parts), path)
    specs = [canonical(part, (*path, i), depth + 1) for i, part in enumerate(parts)]
    _check_terms(sum(1 for spec in specs for _ in leaves(spec)), path)
    return specs


def _check_terms(count: int, path: Path) -> None:
    """Bound what a template costs for every record."""
    if count > MAX_TERMS:
        raise GrammarFault(
            path, f"{count:,} terms are more than {MAX_TERMS}: split the template, or list words or values"
        )


def _not(body: Any, path: Path, depth: int) -> Spec:
    return canonical(body, path, depth + 1)


KINDS: dict[str, Callable[[Any, Path, int], Any]] = {
    "keyword": _keyword,
    "regex": _regex,
    "length": _length,
    "compare": _compare,
    "one_of": _one_of,
    "missing": _missing,
    "all": _several,
    "any": _several,
    "not": _not,
}


def _check_keys(body: Any, path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> None:
    known = (*required, *optional)
    if not isinstance(body, Mapping):
        raise GrammarFault(path, f"{path[-1]} takes a mapping with {', '.join(known)}, got {_shown(body)}")
    for key in body:
        if key not in known:
            raise GrammarFault((*path, key), unknown_key(key, known))
    for key in required:
        if key not in body:
            raise GrammarFault(path, f"{path[-1]} needs {key!r}; it takes {', '.join(known)}")


def _field(body: Mapping[str, Any], path: Path) -> str:
    name = body["field"]
    if not isinstance(name, str) or not name:
        raise GrammarFault(
            (*path, "field"), f"a field is a column's name, got {_shown(name)}: write it in quotes"
        )
    return name


def _flag(body: Mapping[str, Any], path: Path, key: str) -> bool:
    value = body.get(key, False)
    if not isinstance(value, bool):
        raise GrammarFault((*path, key), f"{key} is true or false, got {_shown(value)}")
    return value


def _list(value: Any, path: Path, what: str, example: str) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)) or not value:
        raise GrammarFault(path, f"{what} is a non-empty list such as {example}, got {_shown(value)}")
    return value


def _bounds(body: Mapping[str, Any], path: Path) -> Spec:
    bounds = {key: _number(body[key], (*path, key)) for key in BOUNDS if key in body}
    if not bounds:
        raise GrammarFault(path, f"{path[-1]} needs at least one of {', '.join(BOUNDS)}")
    for pair in (("above", "at_least"), ("below", "at_most")):
        if all(key in bounds for key in pair):
            raise GrammarFault((*path, pair[1]), f"give {pair[0]} or {pair[1]}, not both")
    low, high = limits(bounds)
    if low > high:
        raise GrammarFault(path, f"no number lies within {bounds}: exchange the bounds")
    return dict(bounds)


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


def _number(value: Any, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise GrammarFault(path, f"{path[-1]} is a number, got {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise GrammarFault(path, f"{path[-1]} is a finite number, got {_shown(value)}")
    return number


def _check_encodable(text: str, path: Path) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise GrammarFault(
            path, f"{text!r} holds half a surrogate pair at {error.start}, which no text has"
        ) from None


def _shown(value: Any) -> str:
    """Spell a value for a message as JSON and YAML would, cut to a readable length."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    spelled = repr(value)
    return spelled if len(spelled) <= 60 else f"{spelled[:57]}..."
