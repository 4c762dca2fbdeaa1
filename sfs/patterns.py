"""RE2 regular expressions: matching time is linear in the length of the text.

All patterns over one field are matched together. Large batches with few patterns use Arrow's kernel (one pass
over the column per pattern), if it gives the same results for all of them. All other cases use RE2's filter, which
finds the required literals in one pass and runs only the patterns whose literals occur.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache, partial
from operator import itemgetter
from typing import Protocol, TypeAlias, cast
from weakref import WeakValueDictionary
from zlib import crc32

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
_LONG_BYTES = 64 << 20  # maximum memory limit of such a pattern
_LEAST_BYTES, _INSTRUCTION_BYTES = 512 << 10, 512  # with less, RE2 has no room for states, and is slow
_LONG_BYTES_PER_BYTE = 64  # a list of words has up to 1.5 instructions of 16 bytes for each of its bytes
_LITERAL_PART = 8
_MIN_PART, _MAX_PART = 16, 64  # patterns of a filter
_ARROW_PATTERNS = 12
_FEW_HITS = 20
_BLOCK_TEXTS = 8  # between two looks at the clock


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
        for each in (pattern, with_case_flag(pattern, ignore_case)):
            re2.compile(each, _options())
    except re2.error as error:
        reason = error.args[0]
        return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    finally:
        re2.purge()  # the compiled pattern would stay in memory
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

    Compiled patterns are shared with other sets: a set that differs from another in few patterns compiles these
    and their neighbours only.

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
        self._is_columnar = 0 < len(patterns) <= _ARROW_PATTERNS and all(map(_same_in_arrow, patterns))
        self._filters = _filters(patterns)
        self._work = sum(each.work for _, each in self._filters)

    def match(self, texts: TextColumn, out: NDArray[np.bool_], meter: PatternMeter | None = None) -> _Unmatched:
        """Set the matches in ``out``, bool[N, P], initially all false: text N contains pattern P.

        Returns the texts that were not matched with a pattern, by pattern, because the meter stopped it.
        """
        if self._is_columnar and len(texts) >= ARROW_ROWS and (meter is None or meter.is_fast(self._arrow_work(texts))):
            column = texts.lowered if self._lowered else texts.original
            for p, pattern in enumerate(self._patterns):
                out[:, p] = pc.match_substring_regex(column, pattern).to_numpy(zero_copy_only=False)
            return {}
        encoded = texts.encoded(self._lowered) if self._filters else []
        rows: list[int] = []
        columns: list[int] = []
        slow: list[int] = []
        for start in range(0, len(encoded), _BLOCK_TEXTS):
            block = encoded[start : start + _BLOCK_TEXTS]
            if meter is not None:
                size = sum(map(len, block))
                meter.add_bytes(size)
                if slow or not meter.is_fast(size * self._work):
                    slow += range(start, start + len(block))
                    continue
            for row, text in enumerate(block, start):
                for numbers, each in self._filters:
                    if hits := each.match(text):
                        rows += [row] * len(hits)
                        columns += [numbers[hit] for hit in hits]
        if len(rows) > _FEW_HITS:
            out[rows, columns] = True
        else:  # single assignments are faster than an index of two lists
            for row, column in zip(rows, columns, strict=True):
                out[row, column] = True
        return _match_metered(self._filters, encoded, slow, out, meter) if slow and meter is not None else {}

    def _arrow_work(self, texts: TextColumn) -> int:
        """Return the work of the largest pattern, of which each is one call."""
        return max(size for _, each in self._filters for size in each.sizes) * 4 * sum(map(len, texts.values))


_Unmatched: TypeAlias = dict[int, list[int]]


class PatternMeter(Protocol):
    """Bounds the CPU time of the P patterns of a set."""

    def add_bytes(self, count: int) -> None:
        """Count the bytes of the texts."""

    def is_fast(self, work: int) -> bool:
        """Return whether matches of this many instructions times bytes may be made without a call of ``call``."""
        ...

    def call(self, key: object, patterns: Sequence[int], work: int, function: Callable[[], object]) -> object:
        """Return the result of a match for some patterns; None if they have no time left."""
        ...


def _match_metered(
    filters: Sequence[tuple[Sequence[int], _Filter]],
    texts: Sequence[bytes],
    rows: Sequence[int],
    out: NDArray[np.bool_],
    meter: PatternMeter,
) -> _Unmatched:
    """Match some texts pattern by pattern: the short texts first, so that a long one costs no other its result."""
    unmatched: _Unmatched = {}
    for row in sorted(rows, key=lambda row: len(texts[row])):
        text = texts[row]
        candidates: list[tuple[int, int, int, _Filter]] = []  # small patterns first
        for numbers, each in filters:
            found = meter.call((each, None), numbers, each.literal_work * len(text), partial(each.candidates, text))
            if found is None:
                for number in numbers:
                    unmatched.setdefault(number, []).append(row)
            hits = cast("Sequence[int]", found or ())
            candidates += [(each.sizes[hit], numbers[hit], hit, each) for hit in hits]
        for size, number, hit, each in sorted(candidates, key=itemgetter(0)):
            found = meter.call((each, hit), [number], size * len(text), partial(each.search, hit, text))
            if found is None:
                unmatched.setdefault(number, []).append(row)
            elif found:
                out[row, number] = True
    return unmatched


class _Filter:
    """Some patterns, compiled together with a filter of the literals that they require.

    Attributes
    ----------
    sizes, work
        Instructions of each pattern, and of all of them.
    literal_work
        Instructions of the filter that may be active at a time, about.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._filter = re2.Filter()
        for pattern in patterns:
            self._filter.Add(pattern, _options(pattern_bytes(pattern)))
        self._expressions = [self._filter.re(position) for position in range(len(patterns))]
        self._every = range(len(patterns))
        self.sizes: list[int] = [expression.programsize for expression in self._expressions]
        self.work, self.literal_work = sum(self.sizes), sum(map(len, patterns)) // _LITERAL_PART
        self._has_literals = max(map(len, patterns)) <= _LONG_CHARACTERS
        if self._has_literals:
            try:
                self._filter.Compile()
            except re2.error:  # more literals than a filter can hold
                self._has_literals = False

    def match(self, text: bytes) -> Sequence[int]:
        """Return the positions of the patterns that the text contains."""
        if self._has_literals:
            return self._filter.Match(text) or ()
        return [position for position in self._every if self.search(position, text)]

    def candidates(self, text: bytes) -> Sequence[int]:
        """Return the positions of the patterns whose literals the text contains."""
        return (self._filter.Match(text, True) or ()) if self._has_literals else self._every

    def search(self, position: int, text: bytes) -> bool:
        """Return whether the text contains one pattern."""
        return self._expressions[position].search(text) is not None


_compiled: WeakValueDictionary[tuple[str, ...], _Filter] = WeakValueDictionary()
"""Filters in use by their patterns."""


def _filters(patterns: Sequence[str]) -> list[tuple[list[int], _Filter]]:
    """Return filters over some patterns, with the positions of the patterns of each.

    Where a filter ends depends on the patterns near its end, so that most filters of two similar sequences are
    equal. Small filters keep each step of the compilation, which holds the interpreter lock, short.
    """
    out: list[tuple[list[int], _Filter]] = []
    part: list[int] = []
    characters = 0
    for p, pattern in enumerate(patterns):
        length = len(pattern)
        if part and (len(part) >= _MAX_PART or characters + length > _LONG_CHARACTERS):
            out.append((part, _shared_filter(patterns[each] for each in part)))
            part, characters = [], 0
        part.append(p)
        characters += length
        if len(part) >= _MIN_PART and crc32(pattern.encode(errors="replace")) % _MIN_PART == 0:
            out.append((part, _shared_filter(patterns[each] for each in part)))
            part, characters = [], 0
    if part:
        out.append((part, _shared_filter(patterns[each] for each in part)))
    return out


def _shared_filter(patterns: Iterable[str]) -> _Filter:
    key = tuple(patterns)
    found = _compiled.get(key)
    if found is None:
        found = _compiled[key] = _Filter(key)
    return found


@lru_cache(maxsize=2_000)
def _program_size(pattern: str) -> int:
    """Return the number of instructions of a pattern that is not long."""
    alone = re2.Filter()
    alone.Add(pattern, _options())
    return int(alone.re(0).programsize)


def pattern_bytes(pattern: str) -> int:
    """Return the memory limit of a compiled pattern with its state cache.

    Examples
    --------
    >>> pattern_bytes("check.*out") // 2**10, pattern_bytes(words_pattern(["check"], whole_word=True)) // 2**10
    (522, 1864)
    """
    if len(pattern) > _LONG_CHARACTERS:
        return min(_LONG_BYTES, MAX_PATTERN_BYTES + _LONG_BYTES_PER_BYTE * len(pattern.encode()))
    return min(MAX_PATTERN_BYTES, _LEAST_BYTES + _INSTRUCTION_BYTES * _program_size(pattern))


def _options(max_bytes: int = MAX_PATTERN_BYTES) -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.max_mem = max_bytes
    return options


def _same_in_arrow(pattern: str) -> bool:
    """Return whether Arrow's RE2, an older version, gives the same matches for the pattern.

    Unicode script tables and some forms of group syntax differ between the versions.
    """
    plain = pattern.isascii() and "\\p" not in pattern.lower() and "(?<" not in pattern
    return plain and len(pattern) <= _LONG_CHARACTERS
