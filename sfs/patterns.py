"""Regular expressions by RE2: linear in the length of the text, whatever the pattern.

Many patterns over one field are matched together. A batch of rows and a handful of patterns go through
Arrow's kernel (one pass over the column per pattern); everything else through RE2's filter, which finds the
literals that the patterns need in one pass and runs only the patterns whose literals occur. Both are RE2 and
answer the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import re2
from numpy.typing import NDArray

MAX_PATTERN_CHARACTERS = 1_000
MAX_PATTERN_BYTES = 2 << 20
"""What one compiled pattern may take in memory, its cache of states included."""

_LONG_CHARACTERS = 10_000
_LONG_BYTES = 64 << 20
"""A list of words longer than that is matched alone, and may take so much."""

_ARROW_PATTERNS = 12
_FEW_HITS = 20
ARROW_ROWS = 128
"""From so many rows on, a pass over an Arrow column costs less than a loop over texts."""


def fault_of(pattern: str, ignore_case: bool = False) -> str | None:
    """Return why a pattern is refused, or None if it is accepted.

    Examples
    --------
    >>> fault_of("check.*out"), fault_of("(?=look)")
    (None, 'invalid perl operator: (?=')
    """
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        return f"{len(pattern)} characters are more than {MAX_PATTERN_CHARACTERS}"
    try:
        re2.compile(pattern, _options())
        re2.compile(cased_pattern(pattern, ignore_case), _options())
    except re2.error as error:
        reason = error.args[0]
        return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    return None


def _options(max_bytes: int = MAX_PATTERN_BYTES) -> re2.Options:
    chosen = re2.Options()
    chosen.log_errors = False
    chosen.max_mem = max_bytes
    return chosen


def words_pattern(words: Sequence[str], whole_word: bool) -> str:
    """Return the pattern of "any of these words occurs", alone between other characters if asked.

    A character of a word is a letter, a mark, a digit of any script, or an underscore.
    """
    any_word = "|".join(re2.escape(word) for word in words)
    if not whole_word:
        return any_word
    return rf"(?:^|[^\pL\pM\pN_])(?:{any_word})(?:$|[^\pL\pM\pN_])"


def cased_pattern(pattern: str, ignore_case: bool) -> str:
    """Return the pattern with its case flag written into it."""
    return f"(?i:{pattern})" if ignore_case else pattern


class Texts:
    """N texts in the forms that the engines read, each made once when first read.

    Parameters
    ----------
    values
        The texts as they are.
    """

    def __init__(self, values: Sequence[str]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def encoded(self, lowered: bool) -> list[bytes]:
        """Return the texts, lowered or as they are, in UTF-8."""
        values = [text.lower() for text in self.values] if lowered else self.values
        try:
            return [text.encode() for text in values]
        except UnicodeEncodeError:
            return [whole_characters(text).encode() for text in values]

    def column(self, lowered: bool) -> pa.LargeStringArray:
        """Return the texts, lowered or as they are, as an Arrow column."""
        return self._lowered if lowered else self._as_is

    @cached_property
    def _as_is(self) -> pa.LargeStringArray:
        return _arrow(self.values)

    @cached_property
    def _lowered(self) -> pa.LargeStringArray:
        """Lowered by Arrow where all is ASCII, and elsewhere by Python, whose rules differ from Arrow's."""
        wide = pc.invert(pc.string_is_ascii(self._as_is))
        rows = np.flatnonzero(wide.to_numpy(zero_copy_only=False)).tolist()
        lowered = _arrow([self.values[row].lower() for row in rows])
        return pc.replace_with_mask(pc.ascii_lower(self._as_is), wide, lowered)


def _arrow(texts: Sequence[str]) -> pa.LargeStringArray:
    try:
        return pa.array(texts, type=pa.large_string())
    except UnicodeEncodeError:
        return pa.array([whole_characters(text) for text in texts], type=pa.large_string())


class PatternSet:
    """Patterns matched together against many texts.

    Parameters
    ----------
    patterns
        P patterns that RE2 accepts.
    lowered
        Whether they read the lowered text.
    """

    def __init__(self, patterns: Sequence[str], lowered: bool = False) -> None:
        self._patterns = tuple(patterns)
        self._is_lowered = lowered
        columnar = [p for p, pattern in enumerate(patterns) if _same_in_arrow(pattern)]
        self._columnar = columnar if len(columnar) <= _ARROW_PATTERNS else []
        numbered = dict(enumerate(patterns))
        self._all = _Filter(numbered)
        self._rest = _Filter({p: numbered[p] for p in numbered if p not in set(self._columnar)})

    def match(self, texts: Texts, found: NDArray[np.bool_]) -> None:
        """Set true in bool[N, P], false before, where a pattern occurs in a text."""
        if self._columnar and len(texts) >= ARROW_ROWS:
            column = texts.column(self._is_lowered)
            for p in self._columnar:
                matched = pc.match_substring_regex(column, self._patterns[p])
                found[:, p] = matched.to_numpy(zero_copy_only=False)
            self._rest.match(texts, self._is_lowered, found)
        else:
            self._all.match(texts, self._is_lowered, found)


class _Filter:
    """RE2's filter over some of the patterns, known by their numbers; very long ones are matched alone."""

    def __init__(self, patterns: Mapping[int, str]) -> None:
        short = {p: pattern for p, pattern in patterns.items() if len(pattern) <= _LONG_CHARACTERS}
        self._filters = _filters(short)
        self._long = {
            p: re2.compile(pattern, _options(_LONG_BYTES))
            for p, pattern in patterns.items()
            if p not in short
        }

    def match(self, texts: Texts, lowered: bool, found: NDArray[np.bool_]) -> None:
        rows: list[int] = []
        columns: list[int] = []
        for row, text in enumerate(texts.encoded(lowered) if self._filters or self._long else ()):
            for numbers, literals in self._filters:
                if hits := literals.Match(text):
                    rows += [row] * len(hits)
                    columns += [numbers[hit] for hit in hits]
            for number, pattern in self._long.items():
                if pattern.search(text) is not None:
                    rows.append(row)
                    columns.append(number)
        if len(rows) > _FEW_HITS:
            found[rows, columns] = True
        else:  # one by one is faster than an index of two lists
            for row, column in zip(rows, columns, strict=True):
                found[row, column] = True


def _filters(patterns: Mapping[int, str]) -> list[tuple[list[int], re2.Filter]]:
    """Return one filter over all patterns, or several where their literals are too many for one."""
    if not patterns:
        return []
    out, numbers = re2.Filter(), list(patterns)
    for pattern in patterns.values():
        out.Add(pattern, _options())
    try:
        out.Compile()
    except re2.error:
        if len(numbers) == 1:
            raise
        half = len(numbers) // 2
        parts = (numbers[:half], numbers[half:])
        return [each for part in parts for each in _filters({p: patterns[p] for p in part})]
    return [(numbers, out)]


def _same_in_arrow(pattern: str) -> bool:
    """Tell whether Arrow's RE2, which is older, is sure to read the pattern as ours does.

    Tables of scripts differ from one Unicode version to the next, and so do a few spellings of groups.
    """
    plain = pattern.isascii() and "\\p" not in pattern.lower() and "(?<" not in pattern
    return plain and len(pattern) <= _LONG_CHARACTERS


def whole_characters(text: str) -> str:
    """Return the text with every half of a surrogate pair, which JSON can carry, replaced by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        pass
    else:
        return text
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
