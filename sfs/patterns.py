"""RE2 regular expressions: matching time is linear in the length of the text.

All patterns over one field are matched together. Large batches with few patterns use Arrow's kernel (one pass
over the column per pattern). All other cases use RE2's filter, which finds the required literals in one pass and
runs only the patterns whose literals occur. Both engines are RE2 and give the same results.
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
"""Memory limit of one compiled pattern, including its state cache."""
ARROW_ROWS = 128
"""Minimum number of rows at which a pass over an Arrow column is faster than a loop over texts."""

_LONG_CHARACTERS = 10_000  # a longer pattern, such as a list of words, is matched separately
_LONG_BYTES = 64 << 20  # memory limit of such a pattern
_ARROW_PATTERNS = 12
_FEW_HITS = 20


def pattern_error(pattern: str, ignore_case: bool = False) -> str | None:
    """Return why a pattern is rejected, or None if it is accepted.

    Examples
    --------
    >>> pattern_error("check.*out"), pattern_error("(?=look)")
    (None, 'invalid perl operator: (?=')
    """
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        return f"{len(pattern)} characters exceed the limit of {MAX_PATTERN_CHARACTERS}"
    try:
        re2.compile(pattern, _options())
        re2.compile(with_case_flag(pattern, ignore_case), _options())
    except re2.error as error:
        reason = error.args[0]
        return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    return None


def words_pattern(words: Sequence[str], whole_word: bool) -> str:
    """Return the pattern that matches any of the words, optionally as whole words only.

    A word character is a letter, a mark, a digit of any script, or an underscore.
    """
    any_word = "|".join(re2.escape(word) for word in words)
    if not whole_word:
        return any_word
    return rf"(?:^|[^\pL\pM\pN_])(?:{any_word})(?:$|[^\pL\pM\pN_])"


def with_case_flag(pattern: str, ignore_case: bool) -> str:
    """Return the pattern with its case flag included."""
    return f"(?i:{pattern})" if ignore_case else pattern


def replace_surrogates(text: str) -> str:
    """Replace every lone surrogate, which JSON text can contain, by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    return text


class TextColumn:
    """Column of N texts, converted for the engines and cached.

    Parameters
    ----------
    values
        Original texts.
    """

    def __init__(self, values: Sequence[str]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def encoded(self, lowered: bool) -> list[bytes]:
        """Return the original or lower-case texts in UTF-8."""
        values = [text.lower() for text in self.values] if lowered else self.values
        try:
            return [text.encode() for text in values]
        except UnicodeEncodeError:
            return [replace_surrogates(text).encode() for text in values]

    @cached_property
    def original(self) -> pa.LargeStringArray:
        """Original texts as an Arrow column."""
        return _arrow(self.values)

    @cached_property
    def lowered(self) -> pa.LargeStringArray:
        """Lower-case texts as an Arrow column: ASCII lowered by Arrow, other texts by Python, whose rules differ."""
        wide = pc.invert(pc.string_is_ascii(self.original))
        rows = np.flatnonzero(wide.to_numpy(zero_copy_only=False)).tolist()
        lowered = _arrow([self.values[row].lower() for row in rows])
        return pc.replace_with_mask(pc.ascii_lower(self.original), wide, lowered)


def _arrow(texts: Sequence[str]) -> pa.LargeStringArray:
    try:
        return pa.array(texts, type=pa.large_string())
    except UnicodeEncodeError:
        return pa.array([replace_surrogates(text) for text in texts], type=pa.large_string())


class PatternSet:
    """Patterns matched together against many texts.

    Parameters
    ----------
    patterns
        P patterns that RE2 accepts.
    lowered
        Whether to match the lower-case texts.
    """

    def __init__(self, patterns: Sequence[str], lowered: bool = False) -> None:
        self._patterns = tuple(patterns)
        self._lowered = lowered
        columnar = [p for p, pattern in enumerate(patterns) if _same_in_arrow(pattern)]
        self._columnar = columnar if len(columnar) <= _ARROW_PATTERNS else []
        numbered = dict(enumerate(patterns))
        self._all = _Filter(numbered)
        self._rest = _Filter({p: numbered[p] for p in numbered if p not in set(self._columnar)})

    def match(self, texts: TextColumn, out: NDArray[np.bool_]) -> None:
        """Set the matches in ``out``, bool[N, P], initially all false: text N contains pattern P."""
        if self._columnar and len(texts) >= ARROW_ROWS:
            column = texts.lowered if self._lowered else texts.original
            for p in self._columnar:
                matched = pc.match_substring_regex(column, self._patterns[p])
                out[:, p] = matched.to_numpy(zero_copy_only=False)
            self._rest.match(texts, self._lowered, out)
        else:
            self._all.match(texts, self._lowered, out)


class _Filter:
    """RE2 filter over numbered patterns; very long patterns are matched separately."""

    def __init__(self, patterns: Mapping[int, str]) -> None:
        short = {p: pattern for p, pattern in patterns.items() if len(pattern) <= _LONG_CHARACTERS}
        long = {p: pattern for p, pattern in patterns.items() if p not in short}
        self._filters = _filters(short)
        self._long = {p: re2.compile(pattern, _options(_LONG_BYTES)) for p, pattern in long.items()}

    def match(self, texts: TextColumn, lowered: bool, out: NDArray[np.bool_]) -> None:
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
            out[rows, columns] = True
        else:  # single assignments are faster than an index of two lists
            for row, column in zip(rows, columns, strict=True):
                out[row, column] = True


def _filters(patterns: Mapping[int, str]) -> list[tuple[list[int], re2.Filter]]:
    """Return one filter over all patterns, or several if their literals exceed one filter."""
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


def _options(max_bytes: int = MAX_PATTERN_BYTES) -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = max_bytes
    return options


def _same_in_arrow(pattern: str) -> bool:
    """Return whether Arrow's RE2, an older version, gives the same matches for the pattern.

    Unicode script tables and some forms of group syntax differ between the versions.
    """
    plain = pattern.isascii() and "\\p" not in pattern.lower() and "(?<" not in pattern
    return plain and len(pattern) <= _LONG_CHARACTERS
