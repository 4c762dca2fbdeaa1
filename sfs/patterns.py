"""RE2 regular expressions: matching time is linear in the length of the text.

All patterns over one field are matched together. Large batches with few patterns use Arrow's kernel (one pass
over the column per pattern), if it gives the same results for all of them. All other cases use RE2's filter, which
finds the required literals in one pass and runs only the patterns whose literals occur.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from time import perf_counter
from typing import Protocol, TypeAlias, cast
from weakref import WeakValueDictionary
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import re2
from numpy.typing import NDArray

from sfs.metering import MAX_WORK

MAX_PATTERN_CHARACTERS = 1_000
MAX_PATTERN_BYTES = 2 << 20
"""Memory limit of one compiled pattern, including its state cache."""
ARROW_ROWS = 128
"""Minimum number of rows at which a pass over an Arrow column is faster than a loop over texts."""

_LONG_CHARACTERS = 10_000  # a longer pattern, such as a list of words, is matched separately
_LONG_BYTES = 64 << 20  # maximum memory limit of such a pattern
_WORDS_BYTES = 8 << 20  # maximum memory limit of a list of words that is not long
_LEAST_BYTES, _INSTRUCTION_BYTES, _WHOLE_WORD_BYTES = 512 << 10, 640, 1390 << 10
_PROGRAM_BYTES, _LITERAL_BYTES, _OBJECT_BYTES = 16, 128, 8 << 10  # measured
_LONG_BYTES_PER_BYTE = 64  # a list of words has up to 1.5 instructions of 16 bytes for each of its bytes
_LITERAL_PART = 8
_MIN_PART, _MAX_PART = 16, 64  # patterns of a filter
_ARROW_PATTERNS = 12
_FEW_HITS = 20
_SHARED_WORK = MAX_WORK // 2
"""Maximum work of a call that matches several patterns."""
_PATTERN_SECONDS, _FILTER_SECONDS = 5e-9, 100e-9
"""Usual CPU time of a search, and of a filter, for a byte of text at most: a third of this on a fast machine."""
_SET_SECONDS = 20e-6
"""Usual CPU time of a match of all patterns of a set, in addition to that for its bytes."""
_WORDS_PART, _WHOLE_WORD_INSTRUCTIONS, _WHOLE_WORD_ACTIVE = 4, 2_690, 20
_BEFORE, _AFTER = r"(?:^|[^\pL\pM\pN_])", r"(?:$|[^\pL\pM\pN_])"


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
    return f"{_BEFORE}(?:{any_word}){_AFTER}"


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
        self._filters = _filters(patterns, lowered)
        self._all = range(len(patterns))
        works = [each.work for _, each in self._filters] or [1]
        self._work, self._part_work = sum(works), max(works)
        self._byte_seconds = sum(each.byte_seconds for _, each in self._filters)

    def match(self, texts: TextColumn, out: NDArray[np.bool_], meter: PatternMeter | None = None) -> _Unmatched:
        """Set the matches in ``out``, bool[N, P], initially all false: text N contains pattern P.

        Returns the texts that were not matched with a pattern, by pattern, because the meter stopped it.
        """
        if self._is_columnar and len(texts) >= ARROW_ROWS:
            column = texts.lowered if self._lowered else texts.original
            if meter is None:
                for p, pattern in enumerate(self._patterns):
                    out[:, p] = _search_column(column, pattern)
                return {}
            sizes = pc.binary_length(column).to_numpy(zero_copy_only=False)
            if int(sizes.max()) * max(size for _, each in self._filters for size in each.sizes) <= MAX_WORK:
                return self._match_columns(column, sizes, out, meter)
        encoded = texts.encoded(self._lowered) if self._filters else []
        total, began = 0, perf_counter()
        if meter is not None:
            total = sum(map(len, encoded))
            meter.add_bytes(total)
            if meter.is_detailed or total * self._work > _SHARED_WORK:
                return self._match_metered(encoded, out, meter)
        _set(out, *_hits(self._filters, encoded, range(len(encoded))))
        if meter is not None:
            usual, seconds = _SET_SECONDS + self._byte_seconds * total, perf_counter() - began
            if seconds > usual:
                meter.note(self._all, seconds, usual)
        return {}

    def _match_columns(
        self, column: pa.LargeStringArray, sizes: NDArray[np.integer], out: NDArray[np.bool_], meter: PatternMeter
    ) -> _Unmatched:
        """Match a column with each pattern, in calls that are short enough; of several, the short texts come first."""
        unmatched: _Unmatched = {}
        meter.add_bytes(int(sizes.sum()))
        instructions = [size for _, each in self._filters for size in each.sizes]
        order = None
        if int(sizes.sum()) * max(instructions) > MAX_WORK:
            order = np.argsort(sizes, kind="stable")
            column, sizes = column.take(pa.array(order)), sizes[order]
        ends = np.cumsum(sizes)
        for p, pattern in enumerate(self._patterns):
            start = 0
            while start < len(sizes):
                done = int(ends[start - 1]) if start else 0
                stop = int(np.searchsorted(ends, done + MAX_WORK // instructions[p], "right"))
                size = int(ends[stop - 1]) - done
                part = partial(_search_column, column.slice(start, stop - start), pattern)
                found = meter.call((self, p), [p], instructions[p] * size, _PATTERN_SECONDS * size, part)
                rows = slice(start, stop) if order is None else order[start:stop]
                if found is None:
                    unmatched.setdefault(p, []).extend(np.arange(len(sizes))[rows].tolist())
                else:
                    out[rows, p] = found
                start = stop
        return unmatched

    def _match_metered(self, texts: Sequence[bytes], out: NDArray[np.bool_], meter: PatternMeter) -> _Unmatched:
        """Match all patterns in calls that are short enough; a long text costs no short one its result."""
        unmatched: _Unmatched = {}
        sizes = [*map(len, texts)]
        order = sorted(range(len(texts)), key=sizes.__getitem__)
        start = 0
        while start < len(order):
            size, stop = sizes[order[start]], start + 1
            while stop < len(order) and (size + sizes[order[stop]]) * self._part_work <= _SHARED_WORK:
                size += sizes[order[stop]]
                stop += 1
            for part in self._filters:
                self._match_part(part, texts, order[start:stop], size, out, meter, unmatched)
            start = stop
        return unmatched

    def _match_part(
        self,
        part: tuple[range, _Filter],
        texts: Sequence[bytes],
        rows: Sequence[int],
        size: int,
        out: NDArray[np.bool_],
        meter: PatternMeter,
        unmatched: _Unmatched,
    ) -> None:
        """Match the patterns of one filter: together, or one by one if they may be slow."""
        numbers, each = part
        is_suspect = meter.is_suspect(each, numbers)
        if not is_suspect and size * each.work <= _SHARED_WORK:
            found = meter.call(each, numbers, 0, each.byte_seconds * size, partial(_hits, [part], texts, rows))
            if found is not None:
                _set(out, *cast("_Hits", found))
                return
        for row in rows:
            text, length = texts[row], len(texts[row])
            work, usual = each.literal_work * length, each.byte_seconds * length
            candidates = meter.call((each, None), numbers, work, usual, partial(each.candidates, text))
            if candidates is None:
                for number in numbers:
                    unmatched.setdefault(number, []).append(row)
                continue
            hits = sorted(cast("Sequence[int]", candidates), key=each.sizes.__getitem__)  # small patterns first
            if not hits:
                continue
            usual = _PATTERN_SECONDS * length
            if not is_suspect and sum(each.sizes[hit] for hit in hits) * length <= _SHARED_WORK:
                found = meter.call(
                    each, [numbers[hit] for hit in hits], 0, usual * len(hits), partial(each.match, text)
                )
                if found is not None:
                    out[row, [numbers[hit] for hit in cast("Sequence[int]", found)]] = True
                    continue
            for hit in hits:
                number, found = numbers[hit], None
                if meter.wants(number):
                    search = partial(each.alone(hit).match, text)
                    found = meter.call((each, hit), [number], each.sizes[hit] * length, usual, search)
                if found is None:
                    unmatched.setdefault(number, []).append(row)
                elif found:
                    out[row, number] = True


_Unmatched: TypeAlias = dict[int, list[int]]
_Hits: TypeAlias = tuple[list[int], list[int]]


def _search_column(column: pa.LargeStringArray, pattern: str) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.match_substring_regex(column, pattern).to_numpy(zero_copy_only=False)
    return found


def _hits(filters: Sequence[tuple[range, _Filter]], texts: Sequence[bytes], positions: Sequence[int]) -> _Hits:
    """Return the positions of texts, and the patterns that they contain."""
    rows: list[int] = []
    columns: list[int] = []
    for row in positions:
        text = texts[row]
        for numbers, each in filters:
            if hits := each.match(text):
                rows += [row] * len(hits)
                columns += [numbers[hit] for hit in hits]
    return rows, columns


def _set(out: NDArray[np.bool_], rows: list[int], columns: list[int]) -> None:
    if len(rows) > _FEW_HITS:
        out[rows, columns] = True
    else:  # single assignments are faster than an index of two lists
        for row, column in zip(rows, columns, strict=True):
            out[row, column] = True


class PatternMeter(Protocol):
    """Bounds the CPU time of the P patterns of a set."""

    @property
    def is_detailed(self) -> bool:
        """Whether to match the parts of the set one by one."""
        ...

    def add_bytes(self, count: int) -> None:
        """Count the bytes of the texts."""

    def note(self, patterns: Sequence[int], seconds: float, usual_seconds: float) -> None:
        """Count a match of some patterns that took longer than usual by the wall clock."""

    def wants(self, pattern: int) -> bool:
        """Return whether a pattern is needed, and has time left."""
        ...

    def is_suspect(self, key: object, patterns: Sequence[int]) -> bool:
        """Return whether to match the patterns of a part one by one."""
        ...

    def call(
        self, key: object, patterns: Sequence[int], work: int, usual_seconds: float, function: Callable[[], object]
    ) -> object:
        """Return the result of a match of some patterns; None if they have no time left."""
        ...


class _Filter:
    """Some patterns, compiled together with a filter of the literals that they require.

    Attributes
    ----------
    sizes, work
        Instructions of each pattern that may be active at a time, and of all of them.
    literal_work
        Instructions of the filter that may be active at a time, about.
    byte_seconds
        Usual CPU time for a byte of text at most, in seconds.
    """

    def __init__(self, patterns: Sequence[str], lowered: bool = False) -> None:
        self._patterns, self._lowered = patterns, lowered
        self._filter = re2.Filter()
        for pattern in patterns:
            self._filter.Add(pattern, _options(_memory_limit(pattern)))
        self._every = range(len(patterns))
        instructions = [self._filter.re(position).programsize for position in self._every]
        self.sizes: list[int] = [
            _active(*each) if lowered else each[1] for each in zip(patterns, instructions, strict=True)
        ]
        self.work, self.literal_work = sum(self.sizes), sum(map(len, patterns)) // _LITERAL_PART
        self._has_literals = max(map(len, patterns)) <= _LONG_CHARACTERS
        if self._has_literals:
            try:
                self._filter.Compile()
            except re2.error:  # more literals than a filter can hold
                self._has_literals = False
        searched = len(self.candidates(b""))  # patterns without a literal, searched in every text
        self.byte_seconds = min(_PATTERN_SECONDS * len(patterns), _FILTER_SECONDS + _PATTERN_SECONDS * searched)

    def match(self, text: bytes) -> Sequence[int]:
        """Return the positions of the patterns that the text contains."""
        if self._has_literals:
            return self._filter.Match(text) or ()
        return [p for p in self._every if self._filter.re(p).search(text) is not None]

    def candidates(self, text: bytes) -> Sequence[int]:
        """Return the positions of the patterns whose literals the text contains."""
        return (self._filter.Match(text, True) or ()) if self._has_literals else self._every

    def alone(self, position: int) -> _Filter:
        """Return a filter of one pattern."""
        return self if len(self._patterns) == 1 else _alone(self._patterns[position], self._lowered)


@lru_cache(maxsize=256)
def _alone(pattern: str, lowered: bool) -> _Filter:
    return _Filter((pattern,), lowered)


_compiled: WeakValueDictionary[tuple[bool, tuple[str, ...]], _Filter] = WeakValueDictionary()
"""Filters in use by their patterns."""


def _filters(patterns: Sequence[str], lowered: bool) -> list[tuple[range, _Filter]]:
    """Return filters over some patterns, with the positions of the patterns of each.

    Where a filter ends depends on the patterns near its end, so that most filters of two similar sequences are
    equal. Small filters keep each step of the compilation, which holds the interpreter lock, short.
    """
    out: list[tuple[range, _Filter]] = []
    start = characters = 0
    for p, pattern in enumerate(patterns):
        if p > start and (p - start >= _MAX_PART or characters + len(pattern) > _LONG_CHARACTERS):
            out.append((range(start, p), _shared_filter(patterns[start:p], lowered)))
            start, characters = p, 0
        characters += len(pattern)
        if p + 1 - start >= _MIN_PART and crc32(pattern.encode(errors="replace")) % _MIN_PART == 0:
            out.append((range(start, p + 1), _shared_filter(patterns[start : p + 1], lowered)))
            start, characters = p + 1, 0
    if start < len(patterns):
        out.append((range(start, len(patterns)), _shared_filter(patterns[start:], lowered)))
    return out


def _shared_filter(patterns: Sequence[str], lowered: bool) -> _Filter:
    key = lowered, tuple(patterns)
    found = _compiled.get(key)
    if found is None:
        found = _compiled[key] = _Filter(key[1], lowered)
    return found


@lru_cache(maxsize=8_000)
def _program_size(pattern: str) -> int:
    """Return the number of instructions of a pattern that is not long."""
    alone = re2.Filter()
    alone.Add(pattern, _options())
    return int(alone.re(0).programsize)


def _active(pattern: str, instructions: int) -> int:
    """Return the number of instructions of a keyword, out of all, that may be active at a time, as measured."""
    if pattern.startswith(_BEFORE):
        return _WHOLE_WORD_ACTIVE + max(0, instructions - _WHOLE_WORD_INSTRUCTIONS) // _WORDS_PART
    return 1 + instructions // _WORDS_PART


def pattern_bytes(pattern: str) -> int:
    """Return the maximum memory of a compiled pattern with its state cache.

    RE2 keeps a third of its limit for the states of searches that give no positions, the only ones made.

    Examples
    --------
    >>> pattern_bytes("check.*out") // 2**10, pattern_bytes(words_pattern(["check"], whole_word=True)) // 2**10
    (184, 522)
    """
    limit = _memory_limit(pattern)
    if len(pattern) > _LONG_CHARACTERS:
        return limit
    return limit // 3 + _PROGRAM_BYTES * _program_size(pattern) + _LITERAL_BYTES * len(pattern) + _OBJECT_BYTES


def _memory_limit(pattern: str) -> int:
    """Return RE2's memory limit for a pattern: with less, RE2 has no room for states, and is slow."""
    if len(pattern) > _LONG_CHARACTERS:
        return min(_LONG_BYTES, MAX_PATTERN_BYTES + _LONG_BYTES_PER_BYTE * len(pattern.encode()))
    size, least = _program_size(pattern), _LEAST_BYTES
    if pattern.startswith(_BEFORE) and pattern.endswith(_AFTER):
        size, least = size - _WHOLE_WORD_INSTRUCTIONS, _WHOLE_WORD_BYTES
    most = MAX_PATTERN_BYTES if len(pattern) <= MAX_PATTERN_CHARACTERS else _WORDS_BYTES
    return min(most, least + _INSTRUCTION_BYTES * max(0, size))


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
