"""Regular expressions by RE2: linear in the length of the text, whatever the pattern.

Many patterns over one field are matched together. A batch of rows and a handful of patterns go through
Arrow's kernel (one pass over the column per pattern); everything else through RE2's filter, which finds the
literals that the patterns need in one pass and runs only the patterns whose literals occur. Both are RE2 and
answer the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import re2
from numpy.typing import NDArray

MAX_PATTERN_CHARACTERS = 1_000
MAX_PATTERN_BYTES = 2 << 20
"""What one compiled pattern may take, its cache of states included."""

_ARROW_PATTERNS = 12
_ARROW_ROWS = 128


def fault_of(pattern: str) -> str | None:
    """Return why a pattern is refused, or None if it is accepted.

    Examples
    --------
    >>> fault_of("check.*out"), fault_of("(?=look)")
    (None, 'invalid perl operator: (?=')
    """
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        return f"{len(pattern)} characters are more than {MAX_PATTERN_CHARACTERS}"
    try:
        re2.compile(pattern, options())
    except re2.error as error:
        reason = error.args[0]
        return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    return None


def options() -> re2.Options:
    """Return the options of every pattern: UTF-8, quiet, and bounded in memory."""
    chosen = re2.Options()
    chosen.log_errors = False
    chosen.max_mem = MAX_PATTERN_BYTES
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


class PatternSet:
    """Patterns matched together against many texts.

    Parameters
    ----------
    patterns
        P patterns that RE2 accepts.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = tuple(patterns)
        everywhere = [p for p, pattern in enumerate(patterns) if _same_in_arrow(pattern)]
        self._columnar = everywhere if len(everywhere) <= _ARROW_PATTERNS else []
        self._filtered = [p for p in range(len(patterns)) if p not in set(self._columnar)]
        self._all = _filter(self._patterns)
        self._rest = _filter([self._patterns[p] for p in self._filtered])

    def __len__(self) -> int:
        return len(self._patterns)

    def match(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Return bool[N, P], true where a pattern occurs in a text."""
        found = np.zeros((len(texts), len(self)), dtype=bool, order="F")
        if self._columnar and len(texts) >= _ARROW_ROWS:
            column = _arrow_column(texts)
            for p in self._columnar:
                found[:, p] = _arrow_match(column, self._patterns[p])
            if self._filtered:
                found[:, self._filtered] = _filter_match(self._rest, texts, len(self._filtered))
        else:
            found[:] = _filter_match(self._all, texts, len(self))
        return found


def _same_in_arrow(pattern: str) -> bool:
    """Tell whether Arrow's RE2, which is older, is sure to read the pattern as ours does.

    Tables of scripts differ from one Unicode version to the next, and so do a few spellings of groups.
    """
    return pattern.isascii() and "\\p" not in pattern.lower() and "(?<" not in pattern


def _filter(patterns: Sequence[str]) -> re2.Filter | None:
    if not patterns:
        return None
    out = re2.Filter()
    for pattern in patterns:
        out.Add(pattern, options())
    out.Compile()
    return out


def _filter_match(filters: re2.Filter | None, texts: Sequence[str], patterns: int) -> NDArray[np.bool_]:
    found = np.zeros((len(texts), patterns), dtype=bool)
    if filters is None:
        return found
    hits = [filters.Match(text) for text in _encoded(texts)]
    rows = [row for row, hit in enumerate(hits) if hit for _ in hit]
    found[rows, [p for hit in hits if hit for p in hit]] = True
    return found


def _encoded(texts: Sequence[str]) -> list[bytes]:
    try:
        return [text.encode() for text in texts]
    except UnicodeEncodeError:
        return [whole_characters(text).encode() for text in texts]


def _arrow_column(texts: Sequence[str]) -> pa.Array:
    try:
        return pa.array(texts, type=pa.large_string())
    except UnicodeEncodeError:
        return pa.array([whole_characters(text) for text in texts], type=pa.large_string())


def _arrow_match(column: pa.Array, pattern: str) -> NDArray[np.bool_]:
    matched: NDArray[np.bool_] = pc.match_substring_regex(column, pattern).to_numpy(zero_copy_only=False)
    return matched


def whole_characters(text: str) -> str:
    """Return the text with every half of a surrogate pair, which JSON can carry, replaced by U+FFFD."""
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
